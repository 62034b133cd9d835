import asyncio
import gc
import json
import logging
import tracemalloc
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from contextvars import ContextVar
from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx2
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, RSAKey
from joserfc.jws import JWSRegistry

from fastapi_guard import ConfigurationError, JWTAuth, JWTConfig, ServiceUnavailable, Unauthorized
from fastapi_guard.jwt.compact import Header
from fastapi_guard.jwt.http import in_process
from fastapi_guard.jwt.remote import RemoteKeySet
from fastapi_guard.jwt.responses import Answer
from fastapi_guard.testing.issuer import FakeIssuer
from support.clock import Clock
from support.deadlines import changed, result_at_once
from support.examples import scaled
from support.guarded import assert_refused, assert_unavailable, guarded_app, run_in_new_loop, send

TTL = 300  # the max-age of FakeIssuer


class World:
    """An issuer, its keys as an application holds them, and a clock for all."""

    def __init__(self, **options: Any) -> None:
        """Begin, with nothing fetched."""
        self.clock = Clock()
        self.issuer = FakeIssuer(clock=self.clock)
        self.keys = RemoteKeySet(self.issuer.jwks_uri, **{"client": self.issuer.client, "clock": self.clock, **options})
        self.auth = self.auth_of()
        self.app = guarded_app(self.auth)

    def auth_of(self, **settings: Any) -> JWTAuth:
        """Return an Auth that shares the keys."""
        config = JWTConfig(key=self.keys, issuer_url=self.issuer.url, audience="https://api.example", **settings)
        return JWTAuth(config, clock=self.clock)

    def deadline(self, seconds: float) -> AbstractContextManager[None]:
        """Let fetches take no longer than this within a block."""
        return changed(self.keys, "_freshness", replace(self.keys._freshness, timeout=seconds))

    @property
    def fetches(self) -> int:
        """The number of requests to the issuer."""
        return len(self.issuer.requests)


def plain_claims(world: World) -> dict[str, Any]:
    """Return the claims of an access token without a type."""
    now = int(world.clock())
    return {"iss": world.issuer.url, "aud": "https://api.example", "scope": "a", "sub": "x", "exp": now + 60}


async def settled() -> None:
    """Let tasks that belong to no request come to their end."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_the_first_request_fetches_and_the_next_do_not() -> None:
    """Nothing is fetched before it is needed, and then once."""
    world = World()
    assert world.fetches == 0
    for _ in range(3):
        assert (await send(world.app, world.issuer.token())).status_code == 200
    assert world.fetches == 1
    assert_refused(await send(world.app, FakeIssuer(clock=world.clock).token()))


async def test_a_lifespan_may_fetch_before_the_first_request() -> None:
    """`start()` and `async with` fetch; the keys are still there after the end."""
    world = World()
    async with world.keys as keys:
        assert keys is world.keys
        assert world.fetches == 1
    assert await world.auth.validate_token(world.issuer.token())
    assert world.fetches == 1


async def test_over_http() -> None:
    """The same over loopback HTTP, with a client of its own."""
    issuer = FakeIssuer()
    with issuer.serve():
        auth = JWTAuth(JWTConfig(key=RemoteKeySet(issuer.jwks_uri), issuer_url=issuer.url, audience=issuer.audience))
        assert (await send(guarded_app(auth), issuer.token())).status_code == 200
        assert_refused(await send(guarded_app(auth), FakeIssuer(issuer.url).token()))


async def test_several_configurations_share_a_key_set() -> None:
    """One fetch serves all of them, and each has an allow-list of its own."""
    world = World()
    other = world.auth_of(algorithms=["RS256"])
    token = world.issuer.token()
    assert await world.auth.validate_token(token)
    with pytest.raises(Unauthorized) as caught:
        await other.verify(token)
    assert caught.value.reason == "algorithm"
    assert world.fetches == 1


@pytest.mark.parametrize(
    "options",
    [
        {"min_ttl": -1},
        {"max_ttl": float("inf")},
        {"max_ttl": float("nan")},
        {"cooldown": "30"},
        {"stale_for": True},
        {"stale_for": None},
        {"timeout": 0},
        {"timeout": timedelta(0)},
        {"max_bytes": 0},
        {"max_bytes": 1.5},
        {"max_bytes": True},
        {"min_ttl": 10, "max_ttl": 5},
        {"client": httpx2.Client()},
        {"client": "client"},
        {"url": "http://id.example/jwks"},
        {"url": "https://id.example/jwks#k"},
    ],
)
def test_what_makes_no_sense_is_refused_where_it_is_written(options: dict[str, Any]) -> None:
    """A text instead of a number, bounds that cross, a URL that anyone can change: ConfigurationError."""
    with pytest.raises(ConfigurationError):
        RemoteKeySet(**{"url": "https://id.example/jwks", **options})
    RemoteKeySet("https://id.example/jwks", min_ttl=timedelta(minutes=1), max_ttl=timedelta(hours=1), timeout=0.5)


@pytest.mark.parametrize(
    ("options", "bounds"),
    [
        ({}, (60, 3600)),
        ({"max_ttl": 10}, (10, 10)),
        ({"min_ttl": 7200}, (7200, 7200)),
        ({"min_ttl": 0}, (0, 3600)),
        ({"min_ttl": timedelta(seconds=5), "max_ttl": 5}, (5, 5)),
    ],
)
def test_one_bound_moves_the_default_of_the_other(options: dict[str, Any], bounds: tuple[float, float]) -> None:
    """One bound may be given without the other."""
    keys = RemoteKeySet("https://id.example/jwks", **options)
    assert (keys._freshness.min_ttl, keys._freshness.max_ttl) == bounds


def test_symmetric_algorithms_are_not_for_published_keys() -> None:
    """A remote key set verifies asymmetric signatures alone."""
    with pytest.raises(ConfigurationError, match="symmetric"):
        JWTConfig(key=RemoteKeySet("https://id.example/jwks"), algorithms=["HS256"])
    assert "HS256" not in JWTConfig(key=RemoteKeySet("https://id.example/jwks")).algorithms


# --- lifetimes


@pytest.mark.parametrize(
    ("max_age", "ttl"), [(None, 3600), (0, 60), (30, 60), (300, 300), (3600, 3600), (1_000_000, 3600)]
)
async def test_the_lifetime_is_what_the_issuer_says_within_bounds(max_age: int | None, ttl: int) -> None:
    """Keys live for the `max-age` of Cache-Control, but no less than `min_ttl` and no longer than `max_ttl`."""
    world = World(min_ttl=60, max_ttl=3600)
    world.issuer.max_age = max_age
    await world.keys.start()
    world.clock.move(ttl * 0.79)
    assert world.keys.current() is not None
    await settled()
    assert world.fetches == 1
    world.clock.move(ttl * 0.02)
    assert world.keys.current() is not None
    await settled()
    assert world.fetches == 2
    world.clock.move(ttl)
    assert world.keys.current() is None


async def test_keys_are_refreshed_ahead_while_the_old_ones_serve() -> None:
    """The request that finds the keys in their last fifth does not wait for the refresh that it causes."""
    world = World()
    token = world.issuer.token()
    assert await world.auth.validate_token(token)
    new = world.issuer.rotate()
    world.clock.move(TTL * 0.9)
    with world.issuer.slow(0.05):
        assert await world.auth.validate_token(token)
        assert [key.kid for key in world.keys.current() or ()] != [new]
        assert world.keys._held is not None
        assert new not in {key.kid for key in world.keys._held.keys}
        async with asyncio.timeout(60):
            while new not in {key.kid for key in world.keys._held.keys}:  # noqa: ASYNC110 - nothing signals the end of the refresh
                await asyncio.sleep(0.001)
    assert world.fetches == 2
    await world.keys.aclose()


async def test_a_refresh_that_brings_the_same_keys_keeps_verified_tokens() -> None:
    """The keys stay the same object, so that a cache of verified tokens outlives a refresh."""
    world = World()
    auth = world.auth_of(cache_size=8)
    token = world.issuer.token()
    for _ in range(2):
        assert (await send(guarded_app(auth), token)).status_code == 200
    before = world.keys.current()
    await world.keys.refresh()
    assert world.keys.current() is before
    assert await auth.validate_token(token)
    assert len(auth._verifier._cache or ()) == 1
    world.issuer.rotate()
    await world.keys.refresh()
    assert world.keys.current() is not before
    assert await auth.validate_token(token)


async def test_a_withdrawn_key_is_refused_after_its_lifetime() -> None:
    """A key that the issuer withdraws serves until the end of the lifetime, and not a request longer."""
    world = World(max_ttl=120)
    token = world.issuer.token()
    assert await world.auth.validate_token(token)
    world.issuer.rotate(withdraw=True)
    world.clock.move(90)
    assert await world.auth.validate_token(token)
    world.clock.move(31)
    assert_refused(await send(world.app, token))
    assert (await send(world.app, world.issuer.token())).status_code == 200


async def test_an_issuer_may_withdraw_all_its_keys() -> None:
    """An empty set is a set: the keys are gone, and their tokens refused."""
    world = World()
    token = world.issuer.token()
    assert await world.auth.validate_token(token)
    with world.issuer.answering("/jwks", b'{"keys": []}'):
        world.clock.move(TTL)
        assert_refused(await send(world.app, token))
    world.clock.move(30)
    assert (await send(world.app, token)).status_code == 200


# --- unknown keys


async def test_an_unknown_kid_is_fetched_at_most_once_a_cooldown() -> None:
    """A flood of made-up kids costs the issuer one request a cooldown, and every one of them a 401."""
    world = World(cooldown=30)
    foreign = FakeIssuer(clock=world.clock)
    assert await world.auth.validate_token(world.issuer.token())
    for number in range(50):
        assert_refused(await send(world.app, foreign.token(header={"kid": f"made-up-{number}"})))
    assert world.fetches == 2
    world.clock.move(29)
    assert_refused(await send(world.app, foreign.token()))
    assert world.fetches == 2
    world.clock.move(1)
    assert_refused(await send(world.app, foreign.token()))
    assert world.fetches == 3
    assert (await send(world.app, world.issuer.token())).status_code == 200


async def test_a_flood_of_concurrent_unknown_kids_shares_one_fetch_and_bounded_memory() -> None:
    """Thousands of tokens with distinct unknown kids: one fetch, nothing kept of any of them."""
    world, number_of_tokens = World(), scaled(10_000)
    token = world.issuer.token()
    assert await world.auth.validate_token(token)
    rest = FakeIssuer(clock=world.clock).token().partition(".")[2]
    headers = [json.dumps({"alg": "ES256", "kid": f"made-up-{number}"}) for number in range(number_of_tokens)]
    tokens = [f"{_base64url(header)}.{rest}" for header in headers]
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    accepted = await asyncio.gather(*(world.auth.validate_token(token) for token in tokens))
    await settled()
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert accepted == [False] * number_of_tokens
    assert world.fetches == 2
    assert grown < 300 * number_of_tokens
    assert len(world.auth.config.source._selected._headers) == 1  # type: ignore[union-attr]
    assert not world.keys._flights
    assert await world.auth.validate_token(token)


async def test_a_known_kid_with_another_algorithm() -> None:
    """An issuer may keep a kid and change the algorithm: that is worth one fetch a cooldown."""
    world = World(cooldown=30)
    assert await world.auth.validate_token(world.issuer.token())
    rsa = RSAKey.generate_key(2048)
    forged = jwt.encode({"alg": "RS256", "kid": world.issuer.kid}, {"sub": "x"}, rsa, ["RS256"])
    for _ in range(3):
        assert_refused(await send(world.app, forged))
    assert world.fetches == 2
    assert (await send(world.app, world.issuer.token())).status_code == 200


async def test_a_token_without_a_kid() -> None:
    """Is of any key of its algorithm; where there is none, that is looked for like an unknown kid."""
    world = World()
    assert (await send(world.app, world.issuer.token(header={"kid": None}))).status_code == 200
    rsa = jwt.encode({"alg": "RS256"}, {"sub": "x"}, RSAKey.generate_key(2048), ["RS256"])
    for _ in range(3):
        assert_refused(await send(world.app, rsa))
    assert world.fetches == 2


async def test_a_fetch_for_an_unknown_kid_only_adds() -> None:
    """It brings the new key, keeps a withdrawn one, and does not prolong it; the scheduled refresh replaces."""
    world = World()
    old = world.issuer.token()
    assert await world.auth.validate_token(old)
    world.clock.move(TTL / 2)
    world.issuer.rotate(withdraw=True)
    assert await world.auth.validate_token(world.issuer.token())
    assert await world.auth.validate_token(old)
    assert world.fetches == 2
    world.clock.move(TTL / 2)
    assert await world.auth.validate_token(world.issuer.token())
    assert_refused(await send(world.app, old))
    assert world.keys._held is not None
    assert [key.kid for key in world.keys._held.keys] == [world.issuer.kid]


async def test_a_failed_fetch_for_an_unknown_kid_changes_nothing() -> None:
    """A token that cannot be decided is a 503, never a 401; known keys serve on."""
    world = World(cooldown=30)
    token = world.issuer.token()
    assert await world.auth.validate_token(token)
    with world.issuer.outage():
        world.issuer.rotate()
        for _ in range(3):
            answer = await send(world.app, world.issuer.token())
            assert_unavailable(answer)
            assert int(answer.headers["Retry-After"]) == 30
        assert (await send(world.app, token)).status_code == 200
        assert world.fetches == 2
    world.clock.move(30)
    assert (await send(world.app, world.issuer.token())).status_code == 200
    assert_refused(await send(world.app, FakeIssuer(clock=world.clock).token()))


async def test_an_unknown_kid_while_a_refresh_is_in_flight() -> None:
    """A fetch that began before the key was published does not count: another fetch follows."""
    world = World()
    assert await world.auth.validate_token(world.issuer.token())
    stale = json.dumps(world.issuer.jwks).encode()
    world.clock.move(TTL * 0.9)
    world.issuer.rotate()
    with world.issuer.answering("/jwks", stale), world.issuer.slow(0.3):
        refreshed = asyncio.create_task(world.keys.refresh())
        await settled()
        waiting = asyncio.create_task(world.auth.validate_token(world.issuer.token()))
        await settled()
    await refreshed
    assert await waiting
    assert world.fetches == 3


async def test_a_refresh_while_an_adding_fetch_is_in_flight() -> None:
    """A fetch that only adds does not stand for the refresh: another follows."""
    world = World()
    token = world.issuer.token()
    assert await world.auth.validate_token(token)
    world.issuer.rotate(withdraw=True)
    with world.issuer.slow(0.3):
        adding = asyncio.create_task(world.auth.validate_token(world.issuer.token()))
        await settled()
        world.clock.move(TTL)
        assert not await world.auth.validate_token(token)
    assert await adding
    assert world.fetches == 4  # the last for the sake of the kid that is unknown by then


async def test_two_requests_refresh_after_an_adding_fetch_with_one_more() -> None:
    """Both wait for the fetch that only adds, then share the one that replaces."""
    world = World()
    assert await world.auth.validate_token(world.issuer.token())
    world.issuer.rotate()
    with world.issuer.slow(0.3):
        adding = asyncio.create_task(world.auth.validate_token(world.issuer.token()))
        await settled()
        await asyncio.gather(world.keys.refresh(), world.keys.refresh())
    assert await adding
    assert world.fetches == 3


async def test_rotation_under_load() -> None:
    """No request with the old key or with the new one fails, however many come at once."""
    world = World()
    old = world.issuer.token()
    assert await world.auth.validate_token(old)
    stop = False
    asked = 0

    async def load(make: Callable[[], str]) -> None:
        nonlocal asked
        while not stop:
            assert (await send(world.app, make())).status_code == 200
            asked += 1
            await asyncio.sleep(0)

    async def with_new_keys() -> None:
        for _ in range(5):
            assert (await send(world.app, world.issuer.token())).status_code == 200

    with world.issuer.slow(0.005):
        clients = [asyncio.create_task(load(lambda: old)) for _ in range(4)]
        while asked < 10:  # noqa: ASYNC110 - the clients count
            await asyncio.sleep(0)
        world.issuer.rotate()
        await asyncio.gather(*(with_new_keys() for _ in range(4)))
        stop = True
        await asyncio.gather(*clients)
    assert world.fetches == 2


# --- outages


async def test_an_issuer_that_is_down_at_the_start() -> None:
    """The application starts, responds with 503 and Retry-After, and recovers with the issuer."""
    world = World()
    with world.issuer.outage():
        async with world.keys:
            assert_unavailable(await send(world.app, world.issuer.token()))
            with pytest.raises(ServiceUnavailable):
                await world.keys.refresh()
    assert (await send(world.app, world.issuer.token())).status_code == 200
    assert_refused(await send(world.app, FakeIssuer(clock=world.clock).token()))


async def test_an_issuer_that_was_down_for_a_moment_is_asked_at_the_next_request() -> None:
    """After a few failures no request waits."""
    world = World()
    with world.issuer.outage():
        for _ in range(3):
            assert_unavailable(await send(world.app, world.issuer.token()))
    assert (await send(world.app, world.issuer.token())).status_code == 200


async def test_attempts_become_rare_while_the_issuer_is_away() -> None:
    """At once a few times, then after 1, 2, 4 ... seconds, at most the cooldown; Retry-After has the time."""
    world = World(cooldown=5)
    moments = []
    with world.issuer.outage():
        for second in range(30):
            before = world.fetches
            answer = await send(world.app, world.issuer.token())
            assert_unavailable(answer)
            if world.fetches > before:
                moments.append(second)
            assert int(answer.headers["Retry-After"]) <= 5
            world.clock.move(1)
    assert moments == [0, 1, 2, 3, 4, 6, 10, 15, 20, 25]


async def test_an_issuer_that_goes_down_later() -> None:
    """Old keys serve for `stale_for` beyond their lifetime, then the answer is 503; it recovers."""
    world = World(stale_for=1000, cooldown=10)
    token = world.issuer.token(expires_in=10_000)
    assert (await send(world.app, token)).status_code == 200
    with world.issuer.outage():
        for _ in range(12):
            world.clock.move(100)
            assert (await send(world.app, token)).status_code == 200
            await settled()
        world.clock.move(TTL + 1000 - 1200 - 1)
        assert (await send(world.app, token)).status_code == 200
        world.clock.move(1)
        assert_unavailable(await send(world.app, token))
    world.clock.move(10)
    assert (await send(world.app, token)).status_code == 200


async def test_stale_keys_serve_without_waiting() -> None:
    """While attempts fail, requests are decided by the old keys at once, and the attempts go on beside them."""
    world = World(cooldown=10)
    token = world.issuer.token(expires_in=10_000)
    assert await world.auth.validate_token(token)
    with world.issuer.slow(3600), world.deadline(0.01):
        world.clock.move(TTL)
        assert await world.auth.validate_token(token)  # this one waits, until the issuer is found unreachable
        before = world.fetches
        while world.fetches < before + 3:
            world.clock.move(1)
            assert result_at_once(world.auth.validate_token(token))
            await asyncio.sleep(0.01)
    await world.keys.aclose()


async def test_what_failed_long_ago_says_nothing_about_now() -> None:
    """After a quiet time a request with keys that are too old waits for new ones: the issuer may be back."""
    world = World(cooldown=10)
    token = world.issuer.token(expires_in=10_000)
    assert await world.auth.validate_token(token)
    world.clock.move(TTL * 0.9)
    with world.issuer.outage():
        assert await world.auth.validate_token(token)
        await settled()
    world.issuer.rotate(withdraw=True)
    world.clock.move(TTL)
    assert_refused(await send(world.app, token))


GARBAGE = {
    "an error": Answer(500),
    "HTML": Answer(200, {"Content-Type": "text/html"}, b"<!doctype html><title>Sign in to the Wi-Fi</title>"),
    "nothing": Answer(200),
    "a list": Answer(200, {}, b"[]"),
    "null": Answer(200, {}, b"null"),
    "no keys": Answer(200, {}, b"{}"),
    "an object of keys": Answer(200, {}, b'{"keys": {}}'),
    "null keys": Answer(200, {}, b'{"keys": null}'),
    "no usable key": Answer(200, {}, b'{"keys": [{}, 1, null, "x"]}'),
    "50 MB": Answer(200, {}, b'{"keys": [' + b'{"kty": "EC"},' * 3_600_000 + b"{}]}"),
    "a redirect to another host": Answer(302, {"Location": "https://elsewhere.example/jwks"}),
    "a redirect to a page": Answer(302, {"Location": "/login"}),
}


@pytest.mark.parametrize("answer", GARBAGE.values(), ids=GARBAGE)
async def test_garbage_changes_nothing(answer: Answer) -> None:
    """HTML, another form, 50 MB, a redirect to another host: at the start a 503, later the old keys serve."""
    world = World()
    body = answer.body
    assert isinstance(body, bytes)
    token = world.issuer.token(expires_in=10_000)
    with world.issuer.answering("/jwks", body, status=answer.status, headers=answer.headers):
        assert_unavailable(await send(world.app, token))
    assert (await send(world.app, token)).status_code == 200
    with world.issuer.answering("/jwks", body, status=answer.status, headers=answer.headers):
        world.clock.move(TTL)
        assert (await send(world.app, token)).status_code == 200
    assert set(world.issuer.requests) <= {"/jwks", "/login"}


async def test_slow_and_dripping() -> None:
    """One deadline for all of it: at the start a 503 in time, later the keys that are there are not affected."""
    world = World()
    token = world.issuer.token(expires_in=10_000)
    for fault in (world.issuer.slow(3600), world.issuer.slow(seconds_a_byte=60)):
        with fault, world.deadline(0.01):
            assert_unavailable(await send(world.app, token))
    world.clock.move(30)
    assert (await send(world.app, token)).status_code == 200
    with world.issuer.slow(seconds_a_byte=60):
        world.clock.move(TTL * 0.9)
        assert (await send(world.app, token)).status_code == 200
        await settled()
        assert world.fetches == 4
        assert result_at_once(world.auth.validate_token(token))
    await world.keys.aclose()


async def test_whatever_goes_wrong_in_a_fetch_is_a_failed_fetch() -> None:
    """An error in `read` of a subclass is a failed fetch, logged by its kind alone."""

    class Broken(RemoteKeySet):
        async def read(self) -> Any:
            raise KeyError("secret")

    auth = JWTAuth(JWTConfig(key=Broken("https://id.example/jwks"), issuer_url="https://id.example"))
    with pytest.raises(ServiceUnavailable) as caught:
        await auth.verify("e30.e30.AA")
    assert caught.value.reason == "keys_unreachable"


# --- tasks and loops


async def test_a_cold_start_with_many_requests_fetches_once() -> None:
    """Thousands of requests at once at a cold start: one fetch for all of them."""
    world = World()
    token = world.issuer.token()
    with world.issuer.slow(0.01):
        accepted = await asyncio.gather(*(world.auth.validate_token(token) for _ in range(scaled(10_000))))
    assert all(accepted)
    assert world.fetches == 1


async def test_a_cold_start_while_the_issuer_is_down_fetches_once() -> None:
    """All requests that wait for a fetch get its failure."""
    world = World()
    with world.issuer.outage(), world.issuer.slow(0.01):
        answers = await asyncio.gather(*(send(world.app, world.issuer.token()) for _ in range(20)))
    for answer in answers:
        assert_unavailable(answer)
    assert world.fetches == 1


async def test_a_cancelled_request_does_not_cancel_the_fetch() -> None:
    """The request that caused the fetch is cancelled, and the fetch serves the others."""
    world = World()
    token = world.issuer.token()
    with world.issuer.slow(1):
        first = asyncio.create_task(world.auth.verify(token))
        await settled()
        second = asyncio.create_task(world.auth.verify(token))
        await settled()
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert (await second)["sub"] == "user-1"
    assert world.fetches == 1


async def test_the_fetch_knows_nothing_of_the_request() -> None:
    """It runs in a context of its own."""
    request: ContextVar[str] = ContextVar("request", default="none")
    seen: list[str] = []

    async def answer(method: str, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        seen.append(request.get())
        return Answer(200, {}, b'{"keys": []}')

    request.set("of a request")
    keys = RemoteKeySet("https://id.example/jwks", client=httpx2.AsyncClient(transport=in_process(answer)))
    await keys.refresh()
    assert seen == ["none"]


async def test_closing_ends_the_fetch_and_nobody_waits_for_ever() -> None:
    """A waiting request is a 503, and the keys can be fetched again."""
    world = World()
    token = world.issuer.token()
    with world.issuer.slow(10):
        waiting = asyncio.create_task(send(world.app, token))
        while not world.fetches:  # noqa: ASYNC110 - the issuer counts
            await asyncio.sleep(0)
        await world.keys.aclose()
        assert_unavailable(await waiting)
    assert (await send(world.app, token)).status_code == 200
    await world.keys.aclose()


def test_two_event_loops_one_after_the_other() -> None:
    """The fetch of a loop that has ended does not delay the next loop."""
    world = World()
    token = world.issuer.token()

    async def abandoned() -> None:
        asyncio.get_running_loop().create_task(world.auth.verify(token))
        await settled()

    with world.issuer.slow(10):
        asyncio.run(abandoned())
    assert asyncio.run(world.auth.verify(token))["sub"] == "user-1"
    assert asyncio.run(world.auth.verify(token))["sub"] == "user-1"
    assert world.fetches == 2


def test_a_loop_that_was_closed_with_a_fetch_in_flight() -> None:
    """Also where the loop did not even cancel its tasks."""
    world = World()
    token = world.issuer.token()
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)  # "Task was destroyed but it is pending": so it was

    async def begin() -> None:
        world.keys._begin(adding=False)
        await settled()

    with world.issuer.slow(10):
        loop.run_until_complete(begin())
    flight = world.keys._flights[loop]
    loop.close()
    assert asyncio.run(world.auth.verify(token))["sub"] == "user-1"
    assert not world.keys._flights
    flight.task._log_destroy_pending = False  # type: ignore[attr-defined]
    flight.task.get_coro().close()  # type: ignore[union-attr]


def test_two_event_loops_over_http() -> None:
    """No connection is taken from one loop to the next."""
    issuer = FakeIssuer()
    issuer.max_age = 0
    with issuer.serve():
        keys = RemoteKeySet(issuer.jwks_uri, min_ttl=0)
        auth = JWTAuth(JWTConfig(key=keys, issuer_url=issuer.url, audience=issuer.audience))
        for _ in range(3):
            assert run_in_new_loop(auth.verify(issuer.token()))["sub"] == "user-1"
    assert issuer.requests == ["/jwks"] * 3


# --- keys that change without another name


def _replace_key(issuer: FakeIssuer, **members: Any) -> None:
    """Let the issuer sign with new material under the name of its present key, or without a name."""
    jwk = ECKey.generate_key("P-256").as_dict(private=True)
    issuer._keys = [ECKey.import_key({**jwk, "use": "sig", "alg": "ES256", "kid": issuer.kid, **members})]


async def test_new_material_under_the_same_kid() -> None:
    """Keys other than those that failed are returned after one fetch; the old ones serve until the refresh."""
    world = World(cooldown=30)
    header = Header("ES256", world.issuer.kid, None)
    source = world.keys.for_algorithms(["ES256"])
    before = await source.load()
    assert await source.load(header) is before
    assert world.fetches == 2
    world.clock.move(30)
    _replace_key(world.issuer)
    after = await source.load(header)
    assert after is not before
    assert source.peek() is after
    assert world.fetches == 3
    for _ in range(3):
        assert await source.load(header) is after
    assert world.fetches == 3


async def test_new_material_without_a_kid() -> None:
    """Neither keys nor tokens need a name for that."""
    world = World(cooldown=30)
    jwk = ECKey.generate_key("P-256").as_dict(private=True)
    world.issuer._keys = [ECKey.import_key(jwk)]
    header = Header("ES256", None, None)
    source = world.keys.for_algorithms(["ES256"])
    before = await source.load()
    world.issuer._keys = [ECKey.generate_key("P-256")]
    after = await source.load(header)
    assert after is not before
    assert len(after.candidates(_base64url('{"alg":"ES256"}').encode()).keys) == 2
    assert world.fetches == 2


@pytest.mark.parametrize("kid", ["same", None])
async def test_tokens_of_new_material_without_another_name(kid: str | None) -> None:
    """A failed signature is worth one fetch a cooldown: the next token of the new key passes, and the old ones too."""
    world = World(cooldown=30)
    _replace_key(world.issuer, kid=kid or "unnamed")
    header = {"kid": kid}
    if kid is None:
        world.issuer._keys = [ECKey.generate_key("P-256")]
    else:
        _replace_key(world.issuer, kid=kid)
    old = world.issuer.token(header=header)
    assert (await send(world.app, old)).status_code == 200
    if kid is None:
        world.issuer._keys = [ECKey.generate_key("P-256")]
    else:
        _replace_key(world.issuer, kid=kid)
    assert (await send(world.app, world.issuer.token(header=header))).status_code == 200
    assert (await send(world.app, old)).status_code == 200
    assert world.fetches == 2
    foreign = FakeIssuer(clock=world.clock).token(header=header)
    for _ in range(3):
        assert_refused(await send(world.app, foreign))
    assert world.fetches == 2
    with world.issuer.outage():
        world.clock.move(30)
        assert_refused(await send(world.app, foreign))
    assert world.fetches == 3


async def test_a_flood_of_failed_signatures_shares_one_fetch() -> None:
    """Requests meanwhile wait for the same fetch, and a failed one leaves the present keys."""
    world = World(cooldown=30)
    header = Header("ES256", world.issuer.kid, None)
    source = world.keys.for_algorithms(["ES256"])
    before = await source.load()
    loaded = await asyncio.gather(*(source.load(header) for _ in range(1000)))
    assert set(loaded) == {before}
    assert world.fetches == 2
    world.clock.move(30)
    with world.issuer.outage():
        assert await source.load(header) is before
    assert world.fetches == 3


# --- the entries of a key set, and the members of a token


async def test_skipped_keys_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """Each with its kid and the reason, however often the set is fetched; another reason is logged again."""
    world = World()
    world.issuer.entries = [{"kty": "RSA", "kid": "for encryption", "use": "enc"}, {"kty": "oct", "kid": "secret"}]
    with caplog.at_level(logging.WARNING, "fastapi_guard"):
        for _ in range(3):
            await world.keys.refresh()
        assert [record.message for record in caplog.records if "skipped" in record.message] == [
            f"{world.issuer.jwks_uri}: the key 'for encryption' is skipped: \"its use is 'enc'\"",
            f"{world.issuer.jwks_uri}: the key 'secret' is skipped: 'it is not a JWK of type RSA, EC or OKP'",
        ]
        caplog.clear()
        world.issuer.entries = [{"kty": "EC", "kid": f"{number}"} for number in range(200)]
        await world.keys.refresh()
        assert len(caplog.records) == 98


async def test_a_map_of_public_keys() -> None:
    """Keys in PEM by their kid are fetched as a JWK Set is."""
    world = World()
    pem = world.issuer._keys[0].as_pem().decode()  # type: ignore[attr-defined]
    with world.issuer.answering("/jwks", json.dumps({world.issuer.kid: pem, "other": "x"}).encode()):
        assert (await send(world.app, world.issuer.token())).status_code == 200
        assert_refused(await send(world.app, FakeIssuer(clock=world.clock).token()))


def _published(issuer: FakeIssuer) -> dict[str, Any]:
    entry: dict[str, Any] = issuer.jwks["keys"][0]
    return dict(entry)


@pytest.mark.parametrize(
    "entry",
    [
        None,
        1,
        "key",
        [],
        {},
        {"kty": "EC"},
        {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"},
        {"kty": "EC", "crv": "P-256K", "x": "AA", "y": "AA"},
        {"kty": "AKP", "alg": "ML-DSA-65", "pub": "AA"},
        {"kty": 7},
        {"kty": ["EC"], "kid": {}},
        {"kty": "RSA", "n": "AA", "e": "AQAB"},
        {"kty": "oct", "k": "AA"},
        {"kty": "EC", "crv": "P-256", "x": "\ud800", "y": "AA"},
    ],
    ids=repr,
)
async def test_one_broken_entry_is_skipped(entry: Any) -> None:
    """A good key verifies beside any other entry."""
    world = World()
    world.issuer.entries = [entry]
    assert (await send(world.app, world.issuer.token())).status_code == 200
    assert world.keys._held is not None
    assert len(world.keys._held.keys) == 1


async def test_a_number_that_python_does_not_read() -> None:
    """An entry with thousands of digits is skipped like any other, and does not refuse the whole document."""
    world = World()
    world.issuer.entries = [{"kty": "RSA", "n": "AA", "e": "digits"}]
    document = json.dumps(world.issuer.jwks).replace('"digits"', "9" * 5000).encode()
    with world.issuer.answering("/jwks", document):
        assert (await send(world.app, world.issuer.token())).status_code == 200
    assert world.keys._held is not None
    assert len(world.keys._held.keys) == 1


@pytest.mark.parametrize(
    "change",
    [{"use": "enc"}, {"alg": "ES384"}, {"alg": "ECDH-ES"}, {"key_ops": ["encrypt"]}, {"key_ops": ["sign"]}],
    ids=repr,
)
async def test_a_key_that_is_for_something_else_verifies_nothing(change: dict[str, Any]) -> None:
    """`use`, `alg` and `key_ops` are kept to; the same key without them verifies."""
    world = World()
    private = ECKey.generate_key("P-256")
    entry = {**private.as_dict(private=False), "kid": "other"}
    claims = plain_claims(world)
    token = jwt.encode({"alg": "ES256", "kid": "other"}, claims, private, ["ES256"])
    world.issuer.entries = [{**entry, **change}]
    assert_refused(await send(world.app, token))
    world.issuer.entries = [entry]
    world.clock.move(30)
    assert (await send(world.app, token)).status_code == 200


async def test_an_oct_key_in_a_remote_set_is_no_key() -> None:
    """A published secret is not a secret: a token that is signed with it is refused, one of the real key accepted."""
    world = World()
    secret = OctKey.generate_key(256)
    world.issuer.entries = [{**secret.as_dict(private=True), "kid": "shared"}]
    for kid in ("shared", world.issuer.kid):
        forged = jwt.encode({"alg": "HS256", "kid": kid}, {"iss": world.issuer.url, "sub": "x"}, secret, ["HS256"])
        assert_refused(await send(world.app, forged))
    assert (await send(world.app, world.issuer.token())).status_code == 200


async def test_duplicate_kids() -> None:
    """Keys of one name are all tried: of other types, and of the same."""
    world = World()
    rsa, ec = RSAKey.generate_key(2048), ECKey.generate_key("P-256")
    world.issuer.entries = [{**key.as_dict(private=False), "kid": world.issuer.kid} for key in (rsa, ec)]
    assert (await send(world.app, world.issuer.token())).status_code == 200
    claims = plain_claims(world)
    for algorithm, key in (("RS256", rsa), ("ES256", ec)):
        token = jwt.encode({"alg": algorithm, "kid": world.issuer.kid}, claims, key, [algorithm])
        assert (await send(world.app, token)).status_code == 200
    foreign = jwt.encode({"alg": "ES256", "kid": world.issuer.kid}, claims, ECKey.generate_key("P-256"), ["ES256"])
    assert_refused(await send(world.app, foreign))
    assert world.fetches == 2


@pytest.mark.parametrize(
    "kid",
    [
        7,
        -1.5,
        True,
        ["k"],
        {"kid": "k"},
        "x" * 1_000_000,
        "y" * 513,
        "../../../../dev/null",
        "https://attacker.example/jwks",
        "' OR 1=1 --",
        "; DROP TABLE keys",
        "\x00",
        "\u202e",
        "",
    ],
    ids=lambda kid: repr(kid)[:20],
)
async def test_a_kid_is_an_opaque_name(kid: Any) -> None:
    """A number, an array, a megabyte, a path, SQL: a 401, and at most the one fetch of a cooldown."""
    world = World()
    assert (await send(world.app, world.issuer.token())).status_code == 200
    foreign = ECKey.generate_key("P-256")
    claims = plain_claims(world)
    header = json.dumps({"alg": "ES256", "kid": kid})
    signed = jwt.encode({"alg": "ES256"}, claims, foreign, ["ES256"])
    token = ".".join([_base64url(header), *signed.split(".")[1:]])
    assert_refused(await send(world.app, token))
    assert world.issuer.requests in (["/jwks"], ["/jwks"] * 2)


@pytest.mark.parametrize("name", ["jku", "x5u", "jwk", "x5c"])
async def test_a_token_chooses_no_key_and_causes_no_request(name: str) -> None:
    """A key or an address in a header is not looked at: no request leaves, and the token is refused."""
    world = World()
    assert (await send(world.app, world.issuer.token())).status_code == 200
    asked = world.fetches
    attacker = FakeIssuer("https://attacker.example", clock=world.clock)
    value = {
        "jku": attacker.jwks_uri,
        "x5u": "https://attacker.example/cert.pem",
        "jwk": _published(attacker),
        "x5c": ["MIIB"],
    }[name]
    header = {"alg": "ES256", "kid": world.issuer.kid, name: value}
    claims = plain_claims(world)
    signing_input = f"{_base64url(json.dumps(header))}.{_base64url(json.dumps(claims))}"
    forged = f"{signing_input}.{_signature(signing_input, attacker._keys[0])}"
    assert_refused(await send(world.app, forged))
    assert attacker.requests == []
    assert world.fetches == asked + 1  # at the issuer, for a signature that no key verifies
    assert_refused(await send(world.app, forged))
    genuine = f"{signing_input}.{_signature(signing_input, world.issuer._keys[0])}"
    assert (await send(world.app, genuine)).status_code == 200
    assert world.fetches == asked + 1


def _base64url(text: str) -> str:
    return urlsafe_b64encode(text.encode("utf-8", "surrogatepass")).rstrip(b"=").decode()


def _signature(signing_input: str, key: Any) -> str:
    raw = JWSRegistry.algorithms["ES256"].sign(signing_input.encode(), key)
    return urlsafe_b64encode(raw).rstrip(b"=").decode()
