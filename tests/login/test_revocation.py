"""Revocations: one token, or all of a subject's up to a moment, on every store."""

import asyncio
import json
import logging
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from fastapi import FastAPI, Response
from fastapi.testclient import TestClient
from joserfc import jwk
from starlette.requests import HTTPConnection

from fastapi_guard import ConfigurationError, JWTAuth, JWTConfig, ServiceUnavailable, Unauthorized
from fastapi_guard.login.local import LocalAuth
from fastapi_guard.login.refresh import RefreshTokens
from fastapi_guard.login.revocation import Revocations
from fastapi_guard.login.session import SessionAuth
from fastapi_guard.login.state import owner_of
from fastapi_guard.stores import MemoryStore, Record, Store
from fastapi_guard.stores.values import UnreadableRecord
from support.clock import Clock
from support.login import CountingStore, request
from support.logins import House
from support.other_process import Counting

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
    """A token that a verifier still accepts within the greatest leeway is still revoked then."""
    revocations = Revocations(store, clock=clock)
    auth = JWTAuth(JWTConfig(key=KEY, leeway_seconds=300), revocations=revocations, clock=clock)
    token, other = auth.encode({"sub": "ada"}), auth.encode({"sub": "ada"})
    await revocations.revoke(await auth.verify(token))
    clock.move(3600 + 299)
    assert await refusal(auth, token) == "revoked"
    assert (await auth.verify(other))["sub"] == "ada"


async def test_a_subject(store: Store, clock: Clock) -> None:
    """Every token of a subject up to the skew of clocks is refused, those of the next second and of others are not."""
    revocations = Revocations(store, clock=clock)
    auth = JWTAuth(JWTConfig(key=KEY), revocations=revocations, clock=clock)
    before = auth.encode({"sub": "ada"})
    clock.move(10)
    same_second, other = auth.encode({"sub": "ada"}), auth.encode({"sub": "bob"})
    later_in_it = auth.encode({"sub": "ada", "iat": clock() + 0.5})
    by_a_clock_that_is_ahead = auth.encode({"sub": "ada", "iat": int(clock()) + 10})
    assert await revocations.revoke_subject("ada") == 0
    for token in (before, same_second, later_in_it, by_a_clock_that_is_ahead):
        assert await refusal(auth, token) == "revoked"
    assert (await auth.verify(other))["sub"] == "bob"
    clock.move(11)
    assert (await auth.verify(auth.encode({"sub": "ada"})))["sub"] == "ada"


async def test_a_login_in_the_same_second(store: Store, clock: Clock) -> None:
    """A token that is issued after a revocation, in the same second, is valid, until the next revocation."""
    revocations = Revocations(store, clock=clock)
    auth = JWTAuth(JWTConfig(key=KEY), revocations=revocations, clock=clock)

    async def logged_in() -> str:
        claims = {"sub": "ada", "iat": int(clock())}
        return auth.encode({**claims, **await revocations.number_for(claims)})

    assert await revocations.number_for({"sub": "ada", "iat": int(clock())}) == {}
    before = await logged_in()
    await revocations.revoke_subject("ada")
    first = await logged_in()
    assert (await auth.verify(first))["revocation_number"] == 1
    await revocations.revoke_subject("ada", issuer="https://other.example")
    await revocations.revoke_subject("ada")
    second = await logged_in()
    for token in (before, first):
        assert await refusal(auth, token) == "revoked"
    assert await auth.verify(second)
    clock.move(11)
    assert await revocations.number_for({"sub": "ada", "iat": int(clock())}) == {}
    await revocations.revoke_subject("ada")
    assert await refusal(auth, second) == "revoked"


async def test_a_number_that_a_token_brings(store: Store, clock: Clock) -> None:
    """The number of an old token does not spare it, whatever it is."""
    revocations = Revocations(store, clock=clock)
    await revocations.revoke_subject("ada")
    now = int(clock())
    claims = {"sub": "ada", "iat": now - 60, "revocation_number": 1000}
    assert await revocations.is_revoked(claims)
    assert await revocations.is_revoked({**claims, "iat": now, "revocation_number": True})
    assert not await revocations.is_revoked({**claims, "iat": now})


async def test_issuers(store: Store, clock: Clock) -> None:
    """A revocation counts for its issuer, where it has one, and without one for any."""
    revocations = Revocations(store, clock=clock)
    one, two = ({"sub": "ada", "jti": "1", "sid": "s", "iat": 1, "iss": f"https://{name}.example"} for name in "ab")
    own = {name: value for name, value in one.items() if name != "iss"}

    async def revoked() -> list[bool]:
        return [await revocations.is_revoked(claims) for claims in (one, two, own)]

    await revocations.revoke_subject("ada", issuer="https://a.example")
    assert await revoked() == [True, False, False]
    for claims in (one, two, own):
        claims["sub"] = "bob"
    await revocations.revoke(one)
    assert await revoked() == [True, False, False]
    await revocations.revoke(own)
    assert await revoked() == [True, False, True]
    await revocations.revoke_id("1", issuer="https://b.example")
    assert await revoked() == [True, True, True]
    for claims in (one, two, own):
        claims["jti"] = "2"
    await revocations.revoke_id("2", issuer="https://b.example")
    assert await revoked() == [False, True, False]
    await revocations.revoke_id("2")
    assert await revoked() == [True, True, True]
    for claims in (one, two, own):
        del claims["jti"]
    await revocations.revoke_session("s", issuer="https://b.example")
    assert await revoked() == [False, True, False]
    await revocations.revoke_session("s")
    assert await revoked() == [True, True, True]
    for claims in (one, two, own):
        del claims["sid"]
    await revocations.revoke_subject("bob")
    assert await revoked() == [True, True, True]


async def test_names(store: Store, clock: Clock) -> None:
    """Revocations of another name are unknown, and end no session or family of the store."""
    staff, customers = (Revocations(store, name=name, clock=clock) for name in ("staff", "customers"))
    refresh = RefreshTokens(store, clock=clock)
    await refresh.issue({"sub": "ada"})
    assert await customers.revoke_subject("ada") == 0
    await customers.revoke_id("1")
    assert len(await refresh.families("ada")) == 1
    claims = {"sub": "ada", "iat": 1}
    assert [await known.is_revoked(claims) for known in (staff, customers)] == [False, True]
    assert [await known.is_revoked({"jti": "1"}) for known in (staff, customers)] == [False, True]
    with pytest.raises(ConfigurationError, match="a name is text"):
        Revocations(store, name="")


async def test_a_session_that_is_kept(store: Store, clock: Clock) -> None:
    """The tokens of one session are spared, as far as no earlier revocation had revoked them."""
    revocations = Revocations(store, clock=clock)
    old, kept, other = ({"sub": "ada", "sid": sid, "iat": int(clock())} for sid in ("old", "kept", "other"))

    async def revoked(**changes: Any) -> list[bool]:
        return [await revocations.is_revoked({**claims, **changes}) for claims in (old, kept, other)]

    await revocations.revoke_subject("ada", keep="old")
    assert await revoked() == [False, True, True]
    # Nothing of it was revoked yet, whatever a token has.
    for claims in ({}, {"iat": "2"}, {"iat": int(clock()), "revocation_number": 0}):
        assert not await revocations.is_revoked({"sub": "ada", "sid": "old", **claims})
    clock.move(100)
    later = int(clock())
    await revocations.revoke_subject("ada", keep="kept")
    assert await revoked(iat=later) == [True, False, True]
    assert await revoked() == [True, True, True]
    clock.move(100)
    await revocations.revoke_subject("ada", keep="kept")
    assert await revoked(iat=int(clock())) == [True, False, True]
    assert await revoked(iat=later) == [True, False, True]
    assert [await revocations.is_revoked({"sub": "ada", "sid": "kept"})] == [True]
    await revocations.revoke_subject("ada")
    assert await revoked(iat=int(clock())) == [True, True, True]


async def test_a_session_that_is_kept_twice(store: Store, clock: Clock) -> None:
    """A session that began in the second of a revocation is kept by the two that follow it."""
    revocations = Revocations(store, clock=clock)
    await revocations.revoke_subject("ada")
    kept: dict[str, Any] = {"sub": "ada", "sid": "kept", "iat": int(clock())}
    kept |= await revocations.number_for(kept)
    for _ in range(2):
        await revocations.revoke_subject("ada", keep="kept")
        assert not await revocations.is_revoked(kept)
        assert await revocations.is_revoked({**kept, "sid": "other"})


@pytest.mark.parametrize(("first", "second"), [(10, 1000), (1000, 10), (10, None), (None, 10)])
async def test_a_token_that_is_revoked_twice(store: Store, clock: Clock, first: Any, second: Any) -> None:
    """The later of two expiries counts."""
    revocations = Revocations(store, clock=clock)
    for seconds in (first, second):
        await revocations.revoke_id("1", expires_at=None if seconds is None else clock() + seconds)
    clock.move(1299)
    assert await revocations.is_revoked({"jti": "1"})
    clock.move(2)
    assert await revocations.is_revoked({"jti": "1"}) is (None in (first, second))


async def test_a_session_of_tokens(store: Store, clock: Clock) -> None:
    """The tokens of a session are revoked until the last of them expires."""
    revocations = Revocations(store, clock=clock)
    await revocations.revoke_session("s", expires_at=clock() + 3600)
    assert await revocations.is_revoked({"sid": "s", "sub": "ada", "jti": "1"})
    assert not await revocations.is_revoked({"sid": "t", "sub": "ada", "jti": "1"})
    clock.move(3600 + 300)
    assert not await revocations.is_revoked({"sid": "s"})


@pytest.mark.parametrize("size", [3_000, 64_000])
async def test_long_subjects(store: Store, clock: Clock, size: int) -> None:
    """A sub of any length is revoked like another."""
    revocations = Revocations(store, clock=clock)
    await revocations.revoke_subject("x" * size)
    assert await revocations.is_revoked({"sub": "x" * size, "iat": 1})
    assert not await revocations.is_revoked({"sub": "x" * (size + 1), "iat": 1})


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
    """A token of a revoked subject without the moment of its issue is revoked; one without a subject is not."""
    revocations = Revocations(MemoryStore(clock=clock), clock=clock)
    await revocations.revoke_subject("ada")
    await revocations.revoke_id("one")
    assert await revocations.is_revoked(claims) is revoked


async def test_one_round_trip(clock: Clock) -> None:
    """A token, its session and its subject are looked up together; a token without any of them costs no look-up."""
    store = CountingStore(MemoryStore(clock=clock))
    revocations = Revocations(store, clock=clock)
    assert not await revocations.is_revoked({"sub": "ada", "jti": "one", "sid": "s", "iat": 1})
    assert not await revocations.is_revoked({})
    assert store.trips == ["get"]


async def test_a_moment_that_expires_meanwhile(clock: Clock) -> None:
    """A record that goes between two steps is written again."""

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
    """In the same store they end by themselves, in another one where configured; other subjects keep theirs."""
    elsewhere = MemoryStore(clock=clock)
    refresh, other_refresh = RefreshTokens(store, clock=clock), RefreshTokens(elsewhere, clock=clock)
    sessions, other_sessions = SessionAuth(store, clock=clock), SessionAuth(elsewhere, clock=clock)
    revocations = Revocations(store, ends=[other_refresh, other_sessions], clock=clock)
    await store.add(Record("mine", b"", owner_of("ada")))
    for subject in ("ada", "bob"):
        for tokens in (refresh, other_refresh):
            await tokens.issue({"sub": subject})
        for auth in (sessions, other_sessions):
            await auth.login(Response(), {"sub": subject}, connection=NOWHERE)
    assert await revocations.revoke_subject("ada") == 4
    for left, subject in ((0, "ada"), (1, "bob")):
        for tokens in (refresh, other_refresh):
            assert len(await tokens.families(subject)) == left
        for auth in (sessions, other_sessions):
            assert len(await auth.list(subject)) == left
    assert await store.get("mine") == [Record("mine", b"", owner_of("ada"))]


async def test_pending_logins_end_with_the_subject(clock: Clock) -> None:
    """A login that waits for its second step ends too, and is not counted."""
    home = House(MemoryStore(clock=clock), clock)
    await home.enrol("totp")
    pending = await home.pending()
    assert await Revocations(home.store, clock=clock).revoke_subject("ada") == 0
    with pytest.raises(Unauthorized):
        await home.login.with_totp(pending.id, home.code(), connection=request())
    assert await home.login.with_totp((await home.pending()).id, home.code(), connection=request())


async def test_the_subject_of_another_issuer_ends_everywhere(store: Store, clock: Clock) -> None:
    """With an issuer, what `ends` has of its subject ends, and nothing of the same name elsewhere (12)."""
    elsewhere, url = MemoryStore(clock=clock), "https://login.example"
    refresh, sessions = RefreshTokens(elsewhere, clock=clock), SessionAuth(elsewhere, clock=clock)
    own = RefreshTokens(elsewhere, name="local", clock=clock)
    config = JWTConfig(key=jwk.OctKey.generate_key(256), issuer_url=url)
    local = LocalAuth(config, {}, refresh=own, clock=clock)
    revocations = Revocations(store, ends=[refresh, sessions, local, local.tokens], clock=clock)
    for claims in ({"sub": "ada"}, {"sub": "ada", "iss": "https://id.example"}):
        await refresh.issue(claims)
        await sessions.login(Response(), claims, connection=NOWHERE)
    await own.issue({"sub": "ada"})
    assert await revocations.revoke_subject("ada", issuer="https://id.example") == 2
    assert [len(await holder.families("ada")) for holder in (refresh, own)] == [1, 1]
    assert len(await sessions.list("ada")) == 1
    # Their own issuer is that of the tokens that follow from them.
    assert await revocations.revoke_subject("ada", issuer=url) == 1
    assert [len(await holder.families("ada")) for holder in (refresh, own)] == [1, 0]
    assert await revocations.revoke_subject("ada") == 2


async def test_the_session_that_a_revocation_keeps(clock: Clock) -> None:
    """With `keep` one session or family continues, in the store and in what `ends` has; the others are counted."""
    store, elsewhere = MemoryStore(clock=clock), MemoryStore(clock=clock)
    refresh, others = RefreshTokens(store, clock=clock), RefreshTokens(elsewhere, clock=clock)
    revocations = Revocations(store, ends=[others], clock=clock)
    for tokens in (refresh, others):
        kept = tokens.family_id(await tokens.issue({"sub": "ada"}))
        for more in (refresh, others, others):
            await more.issue({"sub": "ada"})
        assert await revocations.revoke_subject("ada", keep=kept) == 3
        assert [family.id for family in await tokens.families("ada")] == [kept]
        assert await revocations.revoke_subject("ada") == 1


async def test_the_issuer_of_what_is_in_the_store(clock: Clock) -> None:
    """With an issuer its families in the store end, and without one those that have none."""
    store = MemoryStore(clock=clock)
    refresh, revocations = RefreshTokens(store, clock=clock), Revocations(store, clock=clock)
    for claims in ({"sub": "ada"}, {"sub": "ada", "iss": "https://a.example"}, {"sub": "ada"}):
        await refresh.issue(claims)
    assert await revocations.revoke_subject("ada", issuer="https://a.example") == 1
    assert len(await refresh.families("ada")) == 2
    assert await revocations.revoke_subject("ada", issuer="https://a.example") == 0
    assert await revocations.revoke_subject("ada") == 2


async def test_a_holder_that_knows_no_issuers(clock: Clock) -> None:
    """A holder of the application needs no argument for an issuer, unless there is one."""
    ended: list[str] = []

    class Devices:
        """Credentials of the application's own."""

        async def revoke_subject(self, subject: str, *, keep: str | None = None) -> int:
            """End them."""
            ended.append(subject)
            return 7

    assert await Revocations(MemoryStore(clock=clock), ends=[Devices()], clock=clock).revoke_subject("ada") == 7
    assert ended == ["ada"]


async def test_the_number_of_an_issuer(clock: Clock) -> None:
    """A new token has a number after a revocation of its own issuer or of any, not of another issuer."""
    revocations = Revocations(MemoryStore(clock=clock), clock=clock)
    claims = {"sub": "ada", "iat": int(clock())}
    one, two = {**claims, "iss": "https://a.example"}, {**claims, "iss": "https://b.example"}
    await revocations.revoke_subject("ada", issuer="https://a.example")
    assert await revocations.number_for(one) == {"revocation_number": 1}
    assert [await revocations.number_for(other) for other in (two, claims)] == [{}, {}]
    assert not await revocations.is_revoked({**one, **await revocations.number_for(one)})
    await revocations.revoke_subject("ada")
    assert [await revocations.number_for(other) for other in (one, two, claims)] == [{"revocation_number": 2}] * 3


async def test_a_cache(clock: Clock) -> None:
    """The cache keeps so many look-ups, also of tokens that are not revoked; by the clock a revocation expires."""
    store = Counting(MemoryStore(clock=clock))
    limits: dict[str, Any] = {"cache_ttl": 60, "fresh_within": 30, "cache_size": 2}
    revocations = Revocations(store, **limits, clock=clock)
    for jti in ("1", "1", "2", "1"):
        assert not await revocations.is_revoked({"jti": jti})
    assert len(store.reads) == 2
    assert not await revocations.is_revoked({"jti": "3"})
    assert not await revocations.is_revoked({"jti": "1"})
    assert len(store.reads) == 4
    await revocations.revoke_id("4", expires_at=clock() + 60)
    assert await revocations.is_revoked({"jti": "4"})
    clock.move(60 + 300)
    assert not await revocations.is_revoked({"jti": "4"})
    plain = Counting(MemoryStore(clock=clock))
    for _ in range(2):
        assert not await Revocations(plain, clock=clock).is_revoked({"jti": "1"})
    assert len(plain.reads) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cache_ttl": 3601}, "cache_ttl is at most an hour, not 3601 seconds"),
        ({"cache_ttl": 5, "fresh_within": 6}, "fresh_within is positive and no longer than cache_ttl, not 6 seconds"),
        ({"cache_ttl": 5, "cache_size": 0}, "cache_size is at least 1, not 0: leave out cache_ttl for no cache"),
    ],
)
def test_a_cache_that_cannot_work(options: dict[str, Any], message: str) -> None:
    """The limits of a cache are checked at construction."""
    with pytest.raises(ConfigurationError) as error:
        Revocations(MemoryStore(), **options)
    assert str(error.value) == message


async def test_a_token_without_an_id() -> None:
    """A token without a jti cannot be revoked alone."""
    with pytest.raises(ValueError, match=r"^a token without a jti cannot be revoked alone: revoke its subject$"):
        await Revocations(MemoryStore()).revoke({"sub": "ada", "exp": 1})


async def test_a_token_that_never_expires(clock: Clock) -> None:
    """A token without exp, or with an exp that is not a moment, is revoked indefinitely."""
    revocations = Revocations(MemoryStore(clock=clock), clock=clock)
    odd: list[Any] = [float("inf"), 10**400, "1", True, None, [1]]
    for claims in ({"jti": "one"}, *({"jti": str(number), "exp": exp} for number, exp in enumerate(odd))):
        await revocations.revoke(claims)
        clock.move(1e9)
        assert await revocations.is_revoked(claims)


def test_a_store_that_is_away() -> None:
    """An unavailable store is a 503 with Retry-After, never a pass; with the store available it passes."""
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
    with pytest.raises(ConfigurationError, match="longest_lifetime is a timedelta or a number of seconds, more than 0"):
        Revocations(MemoryStore(), longest_lifetime=timedelta())


CUT = {"second": 1, "number": 1}
UNREADABLE = [
    *(b"{", b"[1]", b"null", b"\xff", b"{}", b'{"hidden":null}', b'{"*":"hidden"}', b'{"=":[]}', b'{"=":true}'),
    *(b'{"=":{}}', b'{"=":{"hidden":1}}'),
]
UNREADABLE_CUTS = [
    json.dumps({"=": {**CUT, **members}}).encode("ascii")
    for members in ({"second": "1"}, {"number": None}, {"number": 0}, {"keep": 1}, {"until": "1"}, {"kept_second": []})
]


async def broken(revocations: Revocations, kind: str, value: bytes) -> Any:
    """Store another value in a revocation of ada, and return what revokes her."""
    revoke = revocations.revoke_id if kind == "jti" else revocations.revoke_subject
    await revoke("ada")
    key = revocations._key(kind, "ada")
    [record] = await revocations.store.get(key)
    assert record is not None
    assert await revocations.store.replace(key, record, replace(record, value=value))
    return revoke


@pytest.mark.parametrize(
    ("kind", "value"),
    [("jti", value) for value in UNREADABLE] + [("sub", value) for value in (*UNREADABLE, *UNREADABLE_CUTS)],
)
async def test_a_record_that_cannot_be_read(
    clock: Clock, kind: str, value: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """It is a 503 for what it is about, until that is revoked again; nothing of it is logged."""
    revocations = Revocations(MemoryStore(clock=clock), clock=clock)
    revoke = await broken(revocations, kind, value)
    claims = {kind: "ada", "iat": int(clock())}
    attempts: list[Any] = [lambda: revocations.is_revoked(claims)]
    attempts += [lambda: revocations.number_for(claims)] if kind == "sub" else []
    for attempt in attempts:
        with pytest.raises(ServiceUnavailable) as refused:
            await attempt()
        assert refused.value.reason == "unreadable_record"
    assert not await revocations.is_revoked({kind: "grace", "iat": 1})
    caplog.clear()
    await revoke("ada", issuer="https://a.example")
    for issuer in ({}, {"iss": "https://a.example"}, {"iss": "https://b.example"}):
        assert await revocations.is_revoked({**claims, **issuer})
    assert [name for name, level, _ in caplog.record_tuples if level == logging.WARNING] == ["fastapi_guard"]
    assert "is replaced by one of everything" in caplog.text
    assert "hidden" not in caplog.text
    await revoke("ada")
    assert await revocations.is_revoked(claims)


async def test_a_login_after_a_record_that_could_not_be_read(clock: Clock) -> None:
    """Tokens with a number are revoked, those of a kept session too; a login after the revocation is valid at once."""
    revocations = Revocations(MemoryStore(clock=clock), longest_lifetime=timedelta(hours=1), clock=clock)
    claims = {"sub": "ada", "sid": "kept", "iat": int(clock())}
    for _ in range(3):
        await revocations.revoke_subject("ada")
    numbered = {**claims, **await revocations.number_for(claims)}
    assert not await revocations.is_revoked(numbered)
    await broken(revocations, "sub", b"{")
    assert await revocations.revoke_subject("ada", keep="kept", issuer="https://a.example") == 0
    again = {**claims, **await revocations.number_for(claims)}
    elsewhere = {**claims, "iss": "https://a.example"}
    assert [await revocations.is_revoked(token) for token in (numbered, again, elsewhere)] == [True, False, True]
    # A session is kept from the revocations that follow.
    await revocations.revoke_subject("ada", keep="kept")
    other = {**again, "sid": "other"}
    assert [await revocations.is_revoked(token) for token in (numbered, again, other)] == [True, False, True]
    clock.move(3600 + 300)
    assert not await revocations.is_revoked(claims)


class Failing:
    """Credentials that cannot be ended, and how often it was tried."""

    def __init__(self, error: Exception) -> None:
        """Fail with ``error``."""
        self.error = error

    async def revoke_subject(self, subject: str, *, keep: str | None = None, issuer: str | None = None) -> int:
        """Fail."""
        raise self.error


@pytest.mark.parametrize("error", [ServiceUnavailable(reason="store_unreachable"), OSError("away"), TypeError()])
async def test_a_holder_that_fails(clock: Clock, error: Exception) -> None:
    """The others end all the same, also where the revocations themselves cannot be stored."""
    elsewhere = MemoryStore(clock=clock)
    refresh = RefreshTokens(elsewhere, clock=clock)
    for store in (MemoryStore(clock=clock), Away(clock=clock)):
        await refresh.issue({"sub": "ada"})
        revocations = Revocations(store, ends=[Failing(error), refresh], clock=clock)
        with pytest.raises(ServiceUnavailable):
            await revocations.revoke_subject("ada")
        assert await refresh.families("ada") == []
        assert isinstance(store, Away) or await revocations.is_revoked({"sub": "ada", "iat": int(clock())})


async def test_a_store_that_cannot_read_a_record_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    """A revocation is a 503 if a store of the application cannot replace it either."""
    store = MemoryStore()

    async def get(*_: str) -> list[Record | None]:
        raise UnreadableRecord

    monkeypatch.setattr(store, "get", get)
    with pytest.raises(UnreadableRecord):
        await Revocations(store).revoke_subject("ada")
