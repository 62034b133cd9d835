"""Costs of a session, a revocation check, a refresh and a login, beside 0.1.0, and of logins for other requests.

Run it as `python -m tests.benchmarks.login`.
"""

import argparse
import asyncio
import json
import logging
import secrets
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import httpx2
from fastapi import FastAPI, Response
from joserfc import jwk
from redis.asyncio import Redis
from starlette.requests import HTTPConnection

from fastapi_guard import JWTConfig, Unauthorized
from fastapi_guard.login.accounts import Accounts
from fastapi_guard.login.local import LocalAuth
from fastapi_guard.login.login import Login, LoginLimits
from fastapi_guard.login.messages import Message, Outbox
from fastapi_guard.login.passwords import PasswordHasher
from fastapi_guard.login.refresh import RefreshTokens
from fastapi_guard.login.revocation import Revocations
from fastapi_guard.login.session import SessionAuth
from fastapi_guard.login.state import owner_of
from fastapi_guard.login.users import MappingUsers
from fastapi_guard.routers.accounts import accounts_router
from fastapi_guard.stores import MemoryStore, Record, Store
from fastapi_guard.stores.redis import RedisStore

from . import logins as beside
from .harness import Client, application
from .report import Limit, machine, show, versions

sys.path.insert(0, str(Path(__file__).parent.parent))
from support.redis import running_redis

TAKES_PART = ("fastapi", "redis", "limits", "libpass", "argon2-cffi")
PASSWORD = "wonderland tea party"
LOGINS = 200
FORGOTTEN = 500
ON_REDIS = 1.5
MEMORY_MICROSECONDS = 15.0
ROUND_TRIPS = 3
DELAY_MILLISECONDS = 50.0
NOWHERE = HTTPConnection({"type": "http", "headers": []})


async def timed(calls: Mapping[str, Callable[[], Awaitable[object]]], rounds: int, requests: int) -> dict[str, float]:
    """Return the microseconds of one call of each, the median over rounds in which they take turns."""
    spent: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            for _ in range(requests):
                await call()
            spent[name].append((time.perf_counter() - start) / requests * 1e6)
    return {name: median(rest) for name, (_, *rest) in spent.items()}  # the first round warms up


async def session_of(sessions: SessionAuth) -> str:
    """Return the id in the cookie of a new session."""
    response = Response()
    await sessions.login(response, {"sub": "ada", "scope": "items:read"}, connection=NOWHERE)
    return response.headers["set-cookie"].partition("=")[2].partition(";")[0]


async def look_ups(store: Store) -> dict[str, Callable[[], Awaitable[object]]]:
    """Return the look-up of a session, and the check of a token's revocation, in a store."""
    sessions, revocations = SessionAuth(store), Revocations(store)
    raw = await session_of(sessions)
    claims = {"sub": "ada", "jti": "an-identifier-of-22-ch", "iat": time.time()}
    assert (await sessions.verify(raw))["sub"] == "ada"
    assert not await revocations.is_revoked(claims)
    return {"session": lambda: sessions.verify(raw), "revocation": lambda: revocations.is_revoked(claims)}


async def stores(url: str, rounds: int, requests: int) -> list[Limit]:
    """Time look-ups on Redis beside one MGET of as many keys, and in memory."""
    async with Redis.from_url(url) as client:
        store = RedisStore(client)
        calls = await look_ups(store)
        (record,) = await store.find(owner_of("ada"))
        session_key = b"fastapi-guard:record:" + record.key.encode()
        calls["MGET of one"] = lambda: client.mget([session_key])
        calls["MGET of two"] = lambda: client.mget([b"fastapi-guard:a" * 5, b"fastapi-guard:b" * 5])
        on_redis = await timed(calls, rounds, requests)
    in_memory = await timed(await look_ups(MemoryStore()), rounds, requests)
    beside = {"session": "MGET of one", "revocation": "MGET of two"}
    return [
        Limit(
            request=f"{name}, {where}",
            measured=measured[name],
            reference=reference or mget,
            cost=cost or on_redis[mget],
            factor=factor,
        )
        for where, measured, reference, cost, factor in (
            ("Redis", on_redis, "", 0.0, ON_REDIS),
            ("memory", in_memory, "15 µs", MEMORY_MICROSECONDS, 1),
        )
        for name, mget in beside.items()
    ]


class Counted(MemoryStore):
    """A store that counts its round trips."""

    trips = 0

    async def get(self, *keys: str) -> list[Record | None]:
        """Count, and let others in, as a store elsewhere does."""
        self.trips += 1
        await asyncio.sleep(0)
        return await super().get(*keys)

    async def replace(self, key: str, expected: Record, new: Record) -> bool:
        """Count, and let others in, as a store elsewhere does."""
        self.trips += 1
        await asyncio.sleep(0)
        return await super().replace(key, expected, new)


async def round_trips() -> Limit:
    """Count the round trips of a rotation that lost a race, the most there are."""
    store = Counted()
    tokens = RefreshTokens(store)
    token = await tokens.issue({"sub": "ada"})
    racers = 50
    successors = {successor for _, successor in await asyncio.gather(*(tokens.rotate(token) for _ in range(racers)))}
    assert len(successors) == 1
    a_racer = store.trips / racers
    return Limit(
        request="refresh, 50 at once", measured=a_racer, reference="3", cost=ROUND_TRIPS, factor=1, unit="trips"
    )


async def delays(app: FastAPI, client: Client, until: Callable[[], bool], least: int) -> list[float]:
    """Return the milliseconds of unrelated requests, one every five milliseconds or so."""
    spent: list[float] = []
    while len(spent) < least or not until():
        due = time.perf_counter() + 0.005
        await asyncio.sleep(0.005)
        await client.get(app, None)
        spent.append((time.perf_counter() - due) * 1e3)  # late to begin counts too
    return spent


def p99(values: Sequence[float]) -> float:
    """Return the value that one in a hundred exceeds."""
    return quantiles(values, n=100)[98]


async def logins() -> Limit:
    """Measure unrelated requests while 200 logins are in flight, beside a quiet time."""
    hasher = PasswordHasher()
    stored = await hasher.hash(PASSWORD)
    users = {f"user{number}": {"password_hash": stored} for number in range(LOGINS)}
    config = JWTConfig(key=jwk.OctKey.generate_key(256))
    login = Login(users, MemoryStore(), passwords=hasher)
    auth = LocalAuth(config, login, refresh=RefreshTokens(MemoryStore()))
    app, client = application(), Client()
    quiet = p99(await delays(app, client, lambda: True, 400))
    start = time.perf_counter()
    flying = asyncio.gather(*(auth.login(name, PASSWORD) for name in users))
    busy = p99(await delays(app, client, flying.done, 400))
    await flying
    seconds = time.perf_counter() - start
    await auth.aclose()
    print(
        f"{LOGINS} logins at once: {seconds:.1f} s; p99 of other requests {quiet:.2f} ms before, {busy:.2f} ms beside"
    )
    return Limit(
        request="p99 beside 200 logins, added",
        measured=max(0.0, busy - quiet),
        reference="50 ms",
        cost=DELAY_MILLISECONDS,
        factor=1,
        unit="ms",
    )


async def who_is_there(rounds: int) -> list[tuple[str, ...]]:
    """Return the milliseconds of a failed login for each kind of user: median, and how far quartiles are apart."""
    hasher = PasswordHasher()
    stored = await hasher.hash(PASSWORD)
    known = {"password_hash": stored}
    users: dict[str, Any] = {"known": known, "disabled": {**known, "disabled": True}}
    login = Login(users, MemoryStore(), passwords=hasher, limits=LoginLimits(account=None, address=None))
    auth = LocalAuth(JWTConfig(key=jwk.OctKey.generate_key(256)), login)
    attempts = {
        "known, wrong password": ("known", "wrong"),
        "unknown": ("unknown", PASSWORD),
        "disabled, right password": ("disabled", PASSWORD),
        "known, a megabyte": ("known", "a" * 1_000_000),
    }
    spent: dict[str, list[float]] = {name: [] for name in attempts}
    for _ in range(rounds):
        for name, (username, password) in attempts.items():
            start = time.perf_counter()
            try:
                await auth.login(username, password)
            except Unauthorized:
                spent[name].append((time.perf_counter() - start) * 1e3)
    await auth.aclose()
    rows = []
    for name, values in spent.items():
        lower, middle, upper = quantiles(values, n=4)
        rows.append((name, f"{middle:.1f}", f"{upper - lower:.1f}"))
    return rows


async def forgotten() -> Limit:
    """Time ``POST /forgot`` for a known and an unknown address in turns, beside the noise of one of them."""
    stored = await PasswordHasher().hash(PASSWORD)
    users = MappingUsers({"known@example.com": {"password_hash": stored, "subject_id": "known"}})
    users.add = users.remove = users.update  # type: ignore[attr-defined]
    limits = LoginLimits(account=None, address=None)
    login = Login(users, MemoryStore(), limits=limits, outbox=Outbox(print_nothing))
    accounts = Accounts(login, key=secrets.token_urlsafe(32), pages="https://shop.example")
    app = FastAPI()
    app.include_router(accounts_router(accounts))
    spent: dict[str, list[float]] = {"known": [], "unknown": []}
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="https://shop.example") as client:
        for number in range(2 * FORGOTTEN):
            name = ("known", "unknown")[number % 2]
            start = time.perf_counter()
            answer = await client.post("/forgot", json={"username": f"{name}@example.com"})
            spent[name].append((time.perf_counter() - start) * 1e6)
            assert answer.status_code == 202
            await accounts.outbox.drain()
    lower, _, upper = quantiles(spent["unknown"], n=4)
    return Limit(
        request="/forgot, known and unknown, apart",
        measured=abs(median(spent["known"]) - median(spent["unknown"])),
        reference="quartiles apart",
        cost=upper - lower,
        factor=1,
    )


async def print_nothing(message: Message) -> None:
    """Send nothing."""


def main() -> None:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(description="Cost of sessions, revocation, refresh and logins.")
    parser.add_argument("--rounds", type=int, default=25, help="how many times everything is measured (%(default)s)")
    parser.add_argument("--requests", type=int, default=300, help="calls of each in a round (%(default)s)")
    parser.add_argument("--json", type=Path, default=Path(".bench/login.json"), help="result file (%(default)s)")
    options = parser.parse_args()
    logging.getLogger("fastapi_guard").setLevel(logging.ERROR)
    installed = versions(TAKES_PART)
    print(*(f"{name} {number}" for name, number in installed.items()), sep=", ", end="\n\n")
    with running_redis() as url:
        limits = asyncio.run(stores(url, options.rounds, options.requests))
    limits += beside.measured(options.rounds, options.requests)
    limits += [asyncio.run(round_trips()), asyncio.run(logins()), asyncio.run(forgotten())]
    rows = asyncio.run(who_is_there(options.rounds))
    print()
    show(("a failed login, ms", "median", "quartiles apart"), rows)
    header = ("request", "measured", "reference", "its cost", "ratio", "at most", "")
    show(header, [limit.cells() for limit in limits])
    written = [asdict(limit) | {"ratio": limit.ratio, "verdict": limit.verdict} for limit in limits]
    options.json.parent.mkdir(parents=True, exist_ok=True)
    found = {"machine": machine(), "versions": installed, "failed_logins": rows, "limits": written}
    options.json.write_text(json.dumps(found, indent=1), encoding="utf-8")
    print("written to", options.json)


if __name__ == "__main__":
    main()
