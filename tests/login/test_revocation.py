"""Revocations: one token, or all of a subject's up to a moment, on every store."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from fastapi import FastAPI, Response
from fastapi.testclient import TestClient
from joserfc import jwk
from starlette.requests import HTTPConnection

from fastapi_guard import ConfigurationError, JWTAuth, JWTConfig, ServiceUnavailable, Unauthorized
from fastapi_guard.login.refresh import RefreshTokens
from fastapi_guard.login.revocation import Revocations
from fastapi_guard.login.session import SessionAuth
from fastapi_guard.stores import MemoryStore, Record, Store
from support.clock import Clock

KEY = jwk.OctKey.generate_key(256)
NOWHERE = HTTPConnection({"type": "http", "method": "POST", "headers": []})


class Away(MemoryStore):
    """A store that cannot be reached."""

    async def get(self, *keys: str) -> list[Record | None]:
        """Fail as a store does."""
        raise ServiceUnavailable(reason="store_unreachable")


async def refusal(auth: JWTAuth, token: str) -> str:
    """Return the reason for which a token is refused."""
    with pytest.raises(Unauthorized) as error:
        await auth.verify(token)
    assert (error.value.status_code, error.value.detail) == (401, "The access token is invalid")
    assert error.value.error == "invalid_token"
    return error.value.reason


async def test_one_token(store: Store, clock: Clock) -> None:
    """A revoked token is refused, another of the same subject is not; the record goes with the token."""
    revocations = Revocations(store, clock=clock)
    auth = JWTAuth(JWTConfig(key=KEY), revocations=revocations, clock=clock)
    revoked, other = (auth.encode({"sub": "ada"}) for _ in range(2))
    claims = await auth.verify(revoked)
    await revocations.revoke(claims)
    await revocations.revoke(claims)
    assert await refusal(auth, revoked) == "revoked"
    assert (await auth.verify(other))["sub"] == "ada"
    clock.move(3600 + 300)
    assert not await revocations.is_revoked(claims)


async def test_a_revocation_outlives_the_leeway(store: Store, clock: Clock) -> None:
    """A token that a verifier still takes within the greatest leeway is still revoked then."""
    revocations = Revocations(store, clock=clock)
    auth = JWTAuth(JWTConfig(key=KEY, leeway_seconds=300), revocations=revocations, clock=clock)
    token, other = auth.encode({"sub": "ada"}), auth.encode({"sub": "ada"})
    await revocations.revoke(await auth.verify(token))
    clock.move(3600 + 299)
    assert await refusal(auth, token) == "revoked"
    assert (await auth.verify(other))["sub"] == "ada"


async def test_a_subject(store: Store, clock: Clock) -> None:
    """Every token of a subject up to the moment's second is refused, those of the next second and of others are not."""
    revocations = Revocations(store, clock=clock)
    auth = JWTAuth(JWTConfig(key=KEY), revocations=revocations, clock=clock)
    before = auth.encode({"sub": "ada"})
    clock.move(10)
    same_second, other = auth.encode({"sub": "ada"}), auth.encode({"sub": "bob"})
    later_in_it = auth.encode({"sub": "ada", "iat": clock() + 0.5})
    assert await revocations.revoke_subject("ada") == 0
    for token in (before, same_second, later_in_it):
        assert await refusal(auth, token) == "revoked"
    assert (await auth.verify(other))["sub"] == "bob"
    clock.move(1)
    assert (await auth.verify(auth.encode({"sub": "ada"})))["sub"] == "ada"


async def test_the_later_moment_stands(store: Store, clock: Clock) -> None:
    """A subject revoked twice is revoked up to the later moment, also when the clock went back in between."""
    revocations = Revocations(store, clock=clock)
    await revocations.revoke_subject("ada")
    clock.move(60)
    token = {"sub": "ada", "iat": int(clock())}
    assert not await revocations.is_revoked(token)
    await revocations.revoke_subject("ada")
    assert await revocations.is_revoked(token)
    clock.move(-60)
    await revocations.revoke_subject("ada")
    assert await revocations.is_revoked(token)
    await asyncio.gather(*(revocations.revoke_subject("ada") for _ in range(10)))
    assert await revocations.is_revoked(token)


@pytest.mark.parametrize(
    ("claims", "revoked"),
    [
        ({"sub": "ada", "iat": 1}, True),
        ({"sub": "ada"}, True),
        ({"sub": "ada", "iat": "2"}, True),
        ({"sub": "ada", "iat": True}, True),
        ({"sub": "ada", "iat": 2e9}, False),
        ({"sub": "bob", "iat": 1}, False),
        ({"jti": "one"}, True),
        ({"jti": "one", "sub": "ada", "iat": 2e9}, True),
        ({"jti": "two"}, False),
        ({"jti": 7, "sub": ["ada"]}, False),
        ({"jti": "\ud800", "sub": "\ud800"}, False),
        ({}, False),
    ],
)
async def test_claims(clock: Clock, claims: dict[str, Any], revoked: bool) -> None:
    """A token of a revoked subject that does not say when it was issued is revoked; one that is nobody's is not."""
    revocations = Revocations(MemoryStore(clock=clock), clock=clock)
    await revocations.revoke_subject("ada")
    await revocations.revoke_id("one")
    assert await revocations.is_revoked(claims) is revoked


async def test_one_round_trip(clock: Clock) -> None:
    """A token and its subject are asked for together, and a token without either is not asked for."""
    asked: list[int] = []

    class Counting(MemoryStore):
        """A store that counts what it is asked for."""

        async def get(self, *keys: str) -> list[Record | None]:
            """Count."""
            asked.append(len(keys))
            return await super().get(*keys)

    revocations = Revocations(Counting(clock=clock), clock=clock)
    assert not await revocations.is_revoked({"sub": "ada", "jti": "one", "iat": 1})
    assert not await revocations.is_revoked({})
    assert asked == [2]


async def test_a_moment_that_expires_meanwhile(clock: Clock) -> None:
    """A record that goes between two steps is written anew."""

    class Racing(MemoryStore):
        """A store where the first add meets a record that is gone when it is looked at."""

        adds = 0

        async def add(self, record: Record) -> bool:
            """Lose once."""
            self.adds += 1
            return self.adds > 1 and await super().add(record)

    revocations = Revocations(Racing(clock=clock), clock=clock)
    await revocations.revoke_subject("ada")
    assert await revocations.is_revoked({"sub": "ada", "iat": 1})
    assert not await revocations.is_revoked({"sub": "bob", "iat": 1})


async def test_longest_lifetime(clock: Clock) -> None:
    """The revocation of a subject is forgotten after the longest lifetime of a token, and else never."""
    store = MemoryStore(clock=clock)
    for subject, longest in (("ada", timedelta(hours=1)), ("bob", None)):
        await Revocations(store, longest_lifetime=longest, clock=clock).revoke_subject(subject)
    revocations = Revocations(store, clock=clock)
    clock.move(3600 + 299)
    assert await revocations.is_revoked({"sub": "ada", "iat": 1})
    clock.move(1)
    assert not await revocations.is_revoked({"sub": "ada", "iat": 1})
    clock.move(1e8)
    assert await revocations.is_revoked({"sub": "bob", "iat": 1})


async def test_sessions_and_families_end_with_the_subject(store: Store, clock: Clock) -> None:
    """In the same store they end by themselves, in another where it is told of them; nobody else's do."""
    elsewhere = MemoryStore(clock=clock)
    refresh, other_refresh = RefreshTokens(store, clock=clock), RefreshTokens(elsewhere, clock=clock)
    sessions, other_sessions = SessionAuth(store, clock=clock), SessionAuth(elsewhere, clock=clock)
    revocations = Revocations(store, ends=[other_refresh, other_sessions], clock=clock)
    await store.add(Record("mine", b"", "ada"))
    for subject in ("ada", "bob"):
        for tokens in (refresh, other_refresh):
            await tokens.issue({"sub": subject})
        for each in (sessions, other_sessions):
            await each.login(Response(), {"sub": subject}, connection=NOWHERE)
    assert await revocations.revoke_subject("ada") == 4
    for left, subject in ((0, "ada"), (1, "bob")):
        for tokens in (refresh, other_refresh):
            assert len(await tokens.families(subject)) == left
        for each in (sessions, other_sessions):
            assert len(await each.list(subject)) == left
    assert await store.get("mine") == [Record("mine", b"", "ada")]


async def test_a_token_without_an_id() -> None:
    """A token without a jti cannot be revoked by itself, and that is said."""
    with pytest.raises(ValueError, match="revoke its subject"):
        await Revocations(MemoryStore()).revoke({"sub": "ada", "exp": 1})


async def test_a_token_that_never_expires(clock: Clock) -> None:
    """A token without exp, or with one that is no moment, is revoked for ever."""
    revocations = Revocations(MemoryStore(clock=clock), clock=clock)
    for claims in ({"jti": "one"}, {"jti": "two", "exp": float("inf")}, {"jti": "three", "exp": 10**400}):
        await revocations.revoke(claims)
        clock.move(1e9)
        assert await revocations.is_revoked(claims)


def test_a_store_that_is_away() -> None:
    """What cannot be asked is a 503 with Retry-After, never a pass; with the store there it passes."""
    app = FastAPI()
    for path, store in (("/away", Away()), ("/there", MemoryStore())):
        auth = JWTAuth(JWTConfig(key=KEY), revocations=Revocations(store))
        app.get(path, dependencies=[auth.authenticated()])(lambda: "in")
    headers = {"Authorization": "Bearer " + JWTAuth(JWTConfig(key=KEY)).encode({"sub": "ada"})}
    client = TestClient(app)
    answer = client.get("/away", headers=headers)
    assert (answer.status_code, answer.json()) == (503, {"detail": "Service temporarily unavailable"})
    assert answer.headers["retry-after"] == "5"
    assert client.get("/there", headers=headers).status_code == 200


def test_a_lifetime_that_is_none() -> None:
    """A longest lifetime is positive."""
    with pytest.raises(ConfigurationError, match="longest_lifetime is positive"):
        Revocations(MemoryStore(), longest_lifetime=timedelta())
