"""Costs of keys that are fetched: warm, at a cold start, under a flood of unknown kids, and among many issuers.

Run it as `python -m tests.benchmarks.remote_keys`.
"""

import asyncio
import gc
import json
import logging
import time
import tracemalloc
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from statistics import median

from joserfc.jwk import KeySet

from fastapi_guard import JWTAuth, JWTConfig
from fastapi_guard.issuers import MultiOIDCAuth, OIDCAuth
from fastapi_guard.jwt.remote import RemoteKeySet
from fastapi_guard.testing.issuer import FakeIssuer

from .core import BARE, guarded
from .harness import Client, Timings, Variant, application, measure
from .report import Limit, arguments, report, versions

AUDIENCE = "https://api.example"
ALGORITHMS = ("RS256", "ES256", "Ed25519")
REQUESTS = 10_000
ISSUERS = 100

WARM = 1.05
SLOWED = 1.20
FIND_MICROSECONDS = 5.0
# What may stay of each token of the flood; the name of its key alone would be more.
BYTES_A_TOKEN = 20.0


def warm(algorithm: str) -> Iterator[Variant]:
    """Yield the same key twice: held by the application, and fetched from its issuer."""
    issuer = FakeIssuer(audience=AUDIENCE, algorithm=algorithm)
    place = {"algorithms": [algorithm], "issuer_url": issuer.url, "audience": AUDIENCE}
    local = JWTAuth(JWTConfig(key=KeySet.import_key_set(issuer.jwks), **place))
    fetched = JWTAuth(JWTConfig(key=RemoteKeySet(issuer.jwks_uri, client=issuer.client), **place))
    good, lacking = (f"Bearer {issuer.token(scope=scope)}" for scope in ("items:read", "items:write"))
    for kind, auth in (("held", local), ("fetched", fetched)):
        yield guarded(f"{algorithm} {kind}", application(auth.requires("items:read")), good, lacking)


async def cold_start() -> list[str]:
    """Return what the issuer was asked for by 10,000 requests at once that find no keys."""
    issuer = FakeIssuer(audience=AUDIENCE)
    auth = OIDCAuth(issuer.url, AUDIENCE, client=issuer.client)
    app, credential = application(auth.requires("items:read")), f"Bearer {issuer.token(scope='items:read')}"
    with issuer.slow(0.05):
        statuses = await asyncio.gather(*(Client().get(app, credential) for _ in range(REQUESTS)))
    _expect(set(statuses), {200})
    return issuer.requests


class Flood:
    """10,000 tokens with distinct unknown kids, and one with the key that is known."""

    def __init__(self) -> None:
        """Make the tokens before anything is timed."""
        self.issuer = FakeIssuer(audience=AUDIENCE)
        keys = RemoteKeySet(self.issuer.jwks_uri, client=self.issuer.client, cooldown=3600)
        auth = JWTAuth(JWTConfig(key=keys, issuer_url=self.issuer.url, audience=AUDIENCE))
        self.app = application(auth.requires("items:read"))
        self.good = f"Bearer {self.issuer.token(scope='items:read')}"
        rest = FakeIssuer(audience=AUDIENCE).token().partition(".")[2]
        self.bad = [f"Bearer {_header(f'made-up-{number}')}.{rest}" for number in range(REQUESTS)]

    async def run(self, rounds: int) -> tuple[list[float], list[float], int, float]:
        """Return the cost of a valid request alone and amid the flood, the fetches, and the bytes left by a token."""
        client, clock = Client(), time.perf_counter
        _expect(await client.get(self.app, self.good), 200)
        for token in self.bad[:100]:
            _expect(await client.get(self.app, token), 401)
        alone: list[float] = []
        amid: list[float] = []
        tracemalloc.start()
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        for token in self.bad:
            await client.get(self.app, token)
        gc.collect()
        left = (tracemalloc.get_traced_memory()[0] - before) / len(self.bad)
        tracemalloc.stop()
        for round_ in range(rounds):
            tokens = [self.bad[(round_ * 200 + number) % REQUESTS] for number in range(200)]
            for costs, flooded in ((alone, False), (amid, True)):
                spent = []
                for token in tokens:
                    if flooded:
                        _expect(await client.get(self.app, token), 401)
                    start = clock()
                    await client.get(self.app, self.good)
                    spent.append(clock() - start)
                    _expect(client.status, 200)
                costs.append(median(spent) * 1e6)
        return alone, amid, len(self.issuer.requests) - 1, left


def find(rounds: int) -> list[float]:
    """Return the microseconds until one of a hundred issuers is found, for each round."""
    issuers = [FakeIssuer(f"https://id{number}.example", audience=AUDIENCE) for number in range(ISSUERS)]
    auth = MultiOIDCAuth({issuer.url: {"issuer": issuer.url, "audience": AUDIENCE} for issuer in issuers})
    tokens = [issuer.token(scope="items:read") for issuer in issuers]
    for issuer, token in zip(issuers, tokens, strict=True):
        _expect(auth.find(token)[0], issuer.url)
    costs = []
    for _ in range(rounds):
        start = time.perf_counter()
        for token in tokens:
            auth.find(token)
        costs.append((time.perf_counter() - start) / len(tokens) * 1e6)
    return costs


def limits(timings: Timings, asked: list[str], fetches: int, left: float) -> Iterator[Limit]:
    """Yield each limit with what it is held against."""
    for algorithm in ALGORITHMS:
        yield Limit(
            request=f"{algorithm} token, key fetched, warm",
            measured=timings.added(f"{algorithm} fetched", BARE),
            reference="key held",
            cost=timings.added(f"{algorithm} held", BARE),
            factor=WARM,
        )
    yield Limit(
        request="valid request amid unknown kids",
        measured=timings.cost("amid the flood"),
        reference="alone",
        cost=timings.cost("alone"),
        factor=SLOWED,
    )
    counts = (
        ("discoveries at a cold start of 10,000", float(asked.count("/.well-known/openid-configuration")), 1.0, ""),
        ("fetches of keys at a cold start of 10,000", float(asked.count("/jwks")), 1.0, ""),
        ("fetches for 10,000 unknown kids, one cooldown", float(fetches), 1.0, ""),
        ("memory left by a token with an unknown kid", max(left, 0.0), BYTES_A_TOKEN, "B"),
        (f"finding one of {ISSUERS} issuers", timings.cost("find"), FIND_MICROSECONDS, "µs"),
    )
    for request, measured, most, unit in counts:
        yield Limit(request=request, measured=measured, reference="limit", cost=most, factor=1.0, unit=unit)


def _header(kid: str) -> str:
    return urlsafe_b64encode(json.dumps({"alg": "ES256", "kid": kid}).encode()).rstrip(b"=").decode()


def _expect(got: object, expected: object) -> None:
    if got != expected:
        msg = f"expected {expected!r}, got {got!r}"
        raise RuntimeError(msg)


def main() -> None:
    """Measure, print, and write."""
    options = arguments("Cost of keys that are fetched.", "remote_keys")
    logging.getLogger("fastapi_guard").setLevel(logging.ERROR)
    asked = asyncio.run(cold_start())
    alone, amid, fetches, left = asyncio.run(Flood().run(options.rounds))
    variants = [Variant(name=BARE, app=application(), controls={})]
    for algorithm in ALGORITHMS:
        variants += warm(algorithm)
    measured = measure(variants, rounds=options.rounds, requests=options.requests)
    timings = Timings({**measured.rounds, "alone": alone, "amid the flood": amid, "find": find(options.rounds)})
    taking_part = versions(("fastapi", "starlette", "joserfc", "cryptography", "httpx2"))
    report(options.json, timings, BARE, list(limits(timings, asked, fetches, left)), taking_part)


if __name__ == "__main__":
    main()
