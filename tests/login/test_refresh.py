"""Refresh tokens: used once, alike on every store, whatever happens in between."""

import asyncio
import gc
import logging
import signal
import weakref
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from fastapi_guard import Claims, ConfigurationError, ServiceUnavailable, Unauthorized
from fastapi_guard.events import Event
from fastapi_guard.login.client import Client
from fastapi_guard.login.family import FamilyState, Token
from fastapi_guard.login.login import Login
from fastapi_guard.login.refresh import Family, RefreshTokens, TokenPair
from fastapi_guard.login.revocation import Revocations
from fastapi_guard.login.session import SessionAuth
from fastapi_guard.login.state import owner_of
from fastapi_guard.stores import MemoryStore, Record, Store
from fastapi_guard.stores.sqlalchemy import SQLAlchemyStore
from login import killed_process
from support.clock import Clock
from support.login import CountingStore, request
from support.processes import OtherProcess

CLAIMS = {"sub": "ada", "scope": "items:read"}
DAY = 86_400


def elsewhere(store: Store, clock: Clock, **options: Any) -> RefreshTokens:
    """Return the RefreshTokens of another process on the same store."""
    return RefreshTokens(CountingStore(store), clock=clock, **options)


async def families_in(store: Store, subject: str = "ada") -> list[Record]:
    """Return the records of a subject."""
    return await store.find(owner_of(subject))


async def refused(tokens: RefreshTokens, token: str) -> str:
    """Return the reason for which a token is refused."""
    with pytest.raises(Unauthorized) as error:
        await tokens.rotate(token)
    assert (error.value.status_code, error.value.detail) == (401, "The refresh token is invalid")
    assert error.value.headers == {"WWW-Authenticate": 'Bearer realm="api"'}
    return error.value.reason


async def test_a_token_is_used_once(store: Store, clock: Clock) -> None:
    """Each rotation returns the claims and another token; after the grace a used one ends the family."""
    events: list[Event] = []
    tokens = RefreshTokens(store, on_event=events.append, clock=clock)
    first = await tokens.issue(CLAIMS)
    claims, second = await tokens.rotate(first)
    assert claims == CLAIMS
    clock.move(31)
    _, third = await tokens.rotate(second)
    assert len({first, second, third}) == 3
    clock.move(10)
    assert events == []
    assert await refused(tokens, second) == "reused"
    assert events == [Event("refresh_reused", "refresh", 401, "reused", subject="ada")]
    assert await refused(tokens, third) == "unknown_refresh_token"
    assert await tokens.families("ada") == []


async def test_a_token_from_long_ago_ends_the_family(store: Store, clock: Clock) -> None:
    """A token two rotations old is in two hands, within the grace of the last rotation too."""
    tokens = RefreshTokens(store, clock=clock)
    first = await tokens.issue(CLAIMS)
    _, second = await tokens.rotate(first)
    _, third = await tokens.rotate(second)
    assert await refused(tokens, first) == "reused"
    assert await refused(tokens, third) == "unknown_refresh_token"


async def test_the_grace(store: Store, clock: Clock) -> None:
    """Within the grace a used token returns the same successor and claims again; the successor is valid."""
    tokens = RefreshTokens(store, clock=clock)
    first = await tokens.issue(CLAIMS)
    rotated = await tokens.rotate(first)
    clock.move(9.9)
    assert await tokens.rotate(first) == rotated
    clock.move(-10)
    assert await tokens.rotate(first) == rotated
    _, third = await tokens.rotate(rotated[1])
    assert third != rotated[1]


# Seconds since the rotation, and how far the clock goes back then.
SET_BACK = [(10.1, 0.1), (10.1, 0.5), (10.1, 15), (10.1, 3600), (10.1, 90 * DAY), (295, 300)]


@pytest.mark.parametrize(("later", "back"), SET_BACK)
@pytest.mark.parametrize("elsewhere_too", [False, True])
async def test_a_clock_that_is_set_back(
    store: Store, clock: Clock, later: float, back: float, elsewhere_too: bool
) -> None:
    """A grace that is over does not begin again, whatever the clock does."""
    tokens = RefreshTokens(store, clock=clock)
    first = await tokens.issue(CLAIMS)
    await tokens.rotate(first)
    clock.move(later)
    assert len(await tokens.families("ada")) == 1
    clock.move(-back)
    other = elsewhere(store, clock) if elsewhere_too and later - back < -30 else tokens
    assert await refused(other, first) == "reused"


@pytest.mark.parametrize(("back", "graced"), [(10, True), (10.25, False)])
async def test_a_clock_that_is_set_back_in_a_grace(clock: Clock, back: float, *, graced: bool) -> None:
    """A clock that goes back by no more than the grace does not end it; by more, it does."""
    tokens = RefreshTokens(MemoryStore(clock=clock), clock=clock)
    first = await tokens.issue(CLAIMS)
    rotated = await tokens.rotate(first)
    clock.move(-back)
    if graced:
        assert await tokens.rotate(first) == rotated
    else:
        assert await refused(tokens, first) == "reused"


async def test_a_clock_that_was_wrong_for_a_moment(store: Store, clock: Clock) -> None:
    """A clock that was days ahead, and was corrected, costs no later rotation its grace."""
    tokens = RefreshTokens(store, clock=clock)
    clock.move(10 * DAY)
    await tokens.issue(CLAIMS)
    clock.move(-10 * DAY)
    first = await tokens.issue(CLAIMS)
    assert await tokens.rotate(first) == await tokens.rotate(first)


FIREFOX, CHROME = Client("192.0.2.1", "Firefox"), Client("192.0.2.1", "Chrome")


@pytest.mark.parametrize(
    ("owner", "sender", "reason"),
    [
        (FIREFOX, FIREFOX, None),
        (FIREFOX, CHROME, "other_agent"),
        (FIREFOX, Client("198.51.100.7", "Firefox"), "other_address"),
        (FIREFOX, Client("198.51.100.7", None), "other_agent"),
        (Client(), CHROME, None),
        (FIREFOX, Client(), None),
    ],
)
async def test_a_grace_that_another_client_uses(clock: Clock, owner: Client, sender: Client, reason: str) -> None:
    """Two tabs of one browser have one address and one agent; where they differ in a grace, that is an event."""
    events: list[Event] = []
    tokens = RefreshTokens(MemoryStore(clock=clock), on_event=events.append, clock=clock)
    first = await tokens.issue(CLAIMS, client=FIREFOX)
    rotated = await tokens.rotate(first, client=owner)
    if owner == Client():
        clock.move(-0.001)
        (record,) = await families_in(tokens._store)
        bare = replace(FamilyState.of(record), address=None, agent=None)
        await tokens._store.replace(record.key, record, replace(record, value=bare.encoded()))
    assert await tokens.rotate(first, client=sender) == rotated
    assert events == ([] if reason is None else [Event("refresh_graced", "refresh", None, reason, subject="ada")])


async def test_the_client_of_a_family(store: Store, clock: Clock) -> None:
    """A family has the address and the agent of the client that used it last."""
    tokens = RefreshTokens(store, clock=clock)
    token = await tokens.issue(CLAIMS, client=FIREFOX)
    assert [family.client for family in await tokens.families("ada")] == [FIREFOX]
    _, token = await tokens.rotate(token, connection=request("198.51.100.7", agent="Chrome"))
    (family,) = await tokens.families("ada")
    assert family.client == Client("198.51.100.7", "Chrome")
    await tokens.rotate(token)
    assert (await tokens.families("ada"))[0].client == family.client


async def test_a_hundred_uses_at_once(store: Store, clock: Clock) -> None:
    """100 concurrent uses of one token: one family, one successor, in at most three round trips each."""
    counting = CountingStore(store)
    tokens = RefreshTokens(counting, clock=clock)
    token = await tokens.issue(CLAIMS)
    counting.trips.clear()
    results = await asyncio.gather(*(tokens.rotate(token) for _ in range(100)))
    assert len({successor for _, successor in results}) == 1
    assert len(counting.trips) <= 300
    assert [claims for claims, _ in results] == [CLAIMS] * 100
    assert len(await tokens.families("ada")) == 1
    claims, _ = await tokens.rotate(results[0][1])
    assert claims == CLAIMS


async def test_round_trips(store: Store, clock: Clock) -> None:
    """A rotation is two round trips; one that lost a race is three."""
    counting = CountingStore(store)
    tokens = RefreshTokens(counting, clock=clock)
    token = await tokens.issue(CLAIMS)
    counting.trips.clear()
    _, second = await tokens.rotate(token)
    assert counting.trips == ["get", "replace"]
    counting.trips.clear()
    won: list[Any] = []

    async def win() -> None:
        won.append(await elsewhere(store, clock).rotate(second))

    counting.before["replace"] = win
    assert await tokens.rotate(second) == won[0]
    assert counting.trips == ["get", "replace", "get"]
    counting.trips.clear()
    assert await tokens.revoke(second)
    assert counting.trips == ["get", "delete"]


async def test_what_is_at_rest(clock: Clock) -> None:
    """The store holds no token, nor what one could be made of: hashes, the claims, and for the grace a nonce."""
    store = MemoryStore(clock=clock)
    tokens = RefreshTokens(store, grace=timedelta(), clock=clock)
    first = await tokens.issue(CLAIMS)
    _, second = await tokens.rotate(first)

    def held() -> str:
        (record,) = store._records.values()
        return f"{record.key} {record.value!r} {record!r}"

    for token in (first, second):
        assert token not in held()
        assert token[:20] not in held()
    assert '"nonce":"' in held()
    (record,) = await families_in(store)
    assert record.key == f"refresh:{RefreshTokens.family_id(second)}"
    state = FamilyState.of(record)
    for secret in (state.current, state.previous, state.nonce):
        assert isinstance(secret, str)
        assert secret not in repr(state)
    while '"nonce":null' not in held():  # noqa: ASYNC110 - a task of the loop's own erases it
        await asyncio.sleep(0)
    assert await refused(tokens, first) == "reused"


async def test_the_nonce_is_erased(store: Store, clock: Clock) -> None:
    """When the grace ends the nonce is erased; the family goes on, and so does one that was rotated since."""
    tokens = RefreshTokens(store, clock=clock)
    _, second = await tokens.rotate(await tokens.issue(CLAIMS))
    (record,) = await families_in(store)
    await tokens._erase(record.key)
    assert await families_in(store) == [record]
    clock.move(10)
    await tokens._erase(record.key)
    (erased,) = await families_in(store)
    assert b'"nonce":null' in erased.value
    assert erased.expires_at == record.expires_at
    await tokens._erase(record.key)
    assert await families_in(store) == [erased]
    _, third = await tokens.rotate(second)
    await tokens.revoke(third)
    await tokens._erase(record.key)
    assert await families_in(store) == []


async def test_erasing_outlives_a_collection(clock: Clock) -> None:
    """The erasure of a nonce continues where nothing else refers to it."""
    waits: list[weakref.ref[asyncio.Future[None]]] = []

    class Slow(MemoryStore):
        """A store that serves the rotation at once, and the erasure later."""

        first = True

        async def get(self, *keys: str) -> list[Record | None]:
            """Wait, but for the first time."""
            if not self.first:
                later = asyncio.get_running_loop().create_future()
                waits.append(weakref.ref(later))
                await later
            self.first = False
            return await super().get(*keys)

    store = Slow(clock=clock)
    tokens = RefreshTokens(store, grace=timedelta(), clock=clock)
    await tokens.rotate(await tokens.issue(CLAIMS))
    while not waits:  # noqa: ASYNC110 - a task of the loop's own reads
        await asyncio.sleep(0)
    gc.collect()
    later = waits[0]()
    assert later is not None
    later.set_result(None)
    while b'"nonce":null' not in (await families_in(store))[0].value:  # noqa: ASYNC110 - the same task
        await asyncio.sleep(0)


async def test_erasing_does_not_lose_a_rotation(clock: Clock) -> None:
    """A rotation that meets the erasure of the nonce before it is done again, and rotates once."""
    store = MemoryStore(clock=clock)
    counting = CountingStore(store)
    tokens = RefreshTokens(counting, clock=clock)
    asked: list[Claims] = []
    _, second = await tokens.rotate(await tokens.issue(CLAIMS))
    clock.move(30)
    (record,) = await families_in(store)
    counting.before["replace"] = lambda: elsewhere(store, clock)._erase(record.key)
    claims, third = await tokens.rotate(second, may_continue=lambda claims: asked.append(claims) or True)
    assert (claims, asked) == (CLAIMS, [CLAIMS])
    assert (await tokens.rotate(second))[1] == third


async def test_a_rotation_that_never_wins(clock: Clock) -> None:
    """A record that changes under each of three attempts is a 503, and the token is as good as before."""

    class Changing(MemoryStore):
        """A store in which another process is always first, with the family unchanged."""

        async def replace(self, key: str, expected: Record, new: Record) -> bool:
            """Lose."""
            return False

    store = Changing(clock=clock)
    counting = CountingStore(store)
    tokens = RefreshTokens(counting, clock=clock)
    token = await tokens.issue(CLAIMS)
    counting.trips.clear()
    with pytest.raises(ServiceUnavailable) as error:
        await tokens.rotate(token)
    assert error.value.reason == "contended"
    assert counting.trips == ["get", "replace"] * 3
    store.replace = super(Changing, store).replace  # type: ignore[method-assign]
    assert (await tokens.rotate(token))[0] == CLAIMS


async def test_a_store_that_is_away(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """While the store is unavailable a rotation is a 503, and erasing a nonce only a line in the log."""
    store = CountingStore(MemoryStore(clock=clock))
    tokens = RefreshTokens(store, clock=clock)
    token = await tokens.issue(CLAIMS)

    async def away() -> None:
        raise ServiceUnavailable(reason="store_unreachable")

    for step in ("get", "replace"):
        store.before[step] = away
        with pytest.raises(ServiceUnavailable) as error:
            await tokens.rotate(token)
        assert error.value.headers == {"Retry-After": "5"}
    store.before["get"] = away
    with caplog.at_level(logging.WARNING, "fastapi_guard"):
        await tokens._erase("refresh:none")
    logged = [(record.name, record.message) for record in caplog.records]
    assert logged == [("fastapi_guard", "the nonce of a refresh token could not be erased")]
    assert (await tokens.rotate(token))[0] == CLAIMS


async def test_idle_lifetime(store: Store, clock: Clock) -> None:
    """A token that is not used expires; each rotation begins a new idle lifetime."""
    tokens = RefreshTokens(store, idle_lifetime=timedelta(days=2), absolute_lifetime=timedelta(days=5), clock=clock)
    token = await tokens.issue(CLAIMS)
    clock.move(2 * DAY - 1)
    _, token = await tokens.rotate(token)
    clock.move(2 * DAY - 1)
    _, token = await tokens.rotate(token)
    clock.move(DAY)
    assert (await tokens.families("ada"))[0].expires_at == clock() + 2
    clock.move(1)
    _, token = await tokens.rotate(token)
    clock.move(1)
    assert await refused(tokens, token) == "unknown_refresh_token"


async def test_idle(store: Store, clock: Clock) -> None:
    """A token that was not used for the idle lifetime is refused."""
    tokens = RefreshTokens(store, idle_lifetime=timedelta(days=2), clock=clock)
    token = await tokens.issue(CLAIMS)
    clock.move(2 * DAY)
    assert await refused(tokens, token) == "unknown_refresh_token"


async def test_a_shorter_absolute_lifetime_counts_for_old_families(clock: Clock) -> None:
    """A family does not outlive a configuration that became stricter, whatever is in its record, and is not listed."""
    store = MemoryStore(clock=clock)
    tokens = RefreshTokens(store, clock=clock)
    token = await tokens.issue(CLAIMS)
    strict = elsewhere(store, clock, idle_lifetime=timedelta(days=1), absolute_lifetime=timedelta(days=1))
    clock.move(DAY)
    assert await refused(strict, token) == "unknown_refresh_token"
    assert await strict.families("ada") == []
    assert (await tokens.rotate(token))[0] == CLAIMS


async def test_families_of_another_name(store: Store, clock: Clock) -> None:
    """RefreshTokens of another name neither rotate a token nor see, change or end its family."""
    staff = RefreshTokens(store, name="staff", clock=clock)
    customers = RefreshTokens(store, name="customers", clock=clock)
    token = await customers.issue(CLAIMS)
    family = customers.family_id(token)
    assert await refused(staff, token) == "unknown_refresh_token"
    assert await staff.families("ada") == []
    assert not await staff.revoke(token)
    assert not await staff.end(family)
    assert not await staff.change(family, {"scope": "*"}, subject="ada")
    assert await staff.revoke_subject("ada") == 0
    assert (await customers.rotate(token))[0] == CLAIMS


async def test_two_of_one_name(clock: Clock) -> None:
    """Two of one name on one store are an error, unless the first is not in use any more."""
    store = MemoryStore(clock=clock)
    first = RefreshTokens(store)
    with pytest.raises(
        ConfigurationError,
        match=r"two RefreshTokens named 'refresh' on one store.*: pass RefreshTokens\(store, name=\"...\"\)$",
    ):
        RefreshTokens(store)
    assert RefreshTokens(MemoryStore())
    assert RefreshTokens(store, name="other")
    del first
    assert RefreshTokens(store)


async def test_subjects_of_two_issuers(store: Store, clock: Clock) -> None:
    """The same sub of two issuers is two subjects."""
    tokens = RefreshTokens(store, clock=clock)
    token = await tokens.issue({**CLAIMS, "iss": "https://a.example"})
    await tokens.issue(CLAIMS)
    [own], [foreign] = await tokens.families("ada"), await tokens.families("ada", issuer="https://a.example")
    assert own.id != foreign.id == tokens.family_id(token)
    assert await tokens.revoke_subject("ada") == 1
    assert await tokens.rotate(token)
    assert await tokens.revoke_subject("ada", issuer="https://a.example") == 1


async def test_a_family_that_is_kept(store: Store, clock: Clock) -> None:
    """The other families of a subject end, and one continues."""
    tokens = RefreshTokens(store, clock=clock)
    kept, ended = [await tokens.issue(CLAIMS) for _ in range(2)]
    assert await tokens.revoke_subject("ada", keep=tokens.family_id(kept)) == 1
    assert await refused(tokens, ended) == "unknown_refresh_token"
    assert await tokens.rotate(kept)


async def test_change(store: Store, clock: Clock) -> None:
    """Claims of a family are changed by compare-and-swap, and its token stays."""
    counting = CountingStore(store)
    tokens = RefreshTokens(counting, clock=clock)
    token = await tokens.issue(CLAIMS)
    family = tokens.family_id(token)
    rotated: list[str] = []

    async def rotate() -> None:
        rotated.append((await elsewhere(store, clock).rotate(token))[1])

    counting.before["replace"] = rotate
    assert await tokens.change(family, {"amr": ["pwd", "otp"]}, subject="ada")
    assert (await tokens.rotate(rotated[0]))[0] == {**CLAIMS, "amr": ["pwd", "otp"]}
    assert not await tokens.change("0" * 64, {"amr": []}, subject="ada")

    async def lose(*arguments: Any) -> bool:
        return False

    counting.replace = lose  # type: ignore[method-assign]
    with pytest.raises(ServiceUnavailable) as error:
        await tokens.change(family, {}, subject="ada")
    assert (error.value.reason, error.value.headers) == ("contended", {"Retry-After": "5"})


@pytest.mark.parametrize("size", [3_000, 64_000])
async def test_a_long_subject(store: Store, clock: Clock, size: int) -> None:
    """A sub of any length is a subject like another."""
    tokens = RefreshTokens(store, clock=clock)
    token = await tokens.issue({"sub": "x" * size})
    assert (await tokens.rotate(token))[0] == {"sub": "x" * size}
    assert await tokens.revoke_subject("x" * size) == 1


async def test_revoke(store: Store, clock: Clock) -> None:
    """Any token of a family ends it, the first one too; ending what is not there is no error."""
    tokens = RefreshTokens(store, clock=clock)
    first = await tokens.issue(CLAIMS)
    other = await tokens.issue(CLAIMS)
    _, second = await tokens.rotate(first)
    _, third = await tokens.rotate(second)
    assert await tokens.revoke(first)
    assert await refused(tokens, third) == "unknown_refresh_token"
    assert not await tokens.revoke(first)
    assert not await tokens.revoke("no token at all")
    assert (await tokens.rotate(other))[0] == CLAIMS


async def test_families(store: Store, clock: Clock) -> None:
    """One's families are listed, the oldest first, and ended one by one or all at once."""
    tokens = RefreshTokens(store, clock=clock)
    await store.add(Record("other", b"not a family", owner_of("ada"), None))
    first = await tokens.issue(CLAIMS)
    began = clock()
    clock.move(60)
    second = await tokens.issue({**CLAIMS, "scope": ""})
    await tokens.issue({"sub": "bob"})
    clock.move(60)
    await tokens.rotate(first)
    one, two = await tokens.families("ada")
    assert one == Family(
        tokens.family_id(first), "ada", began, began + 120, began + 120 + 14 * DAY, CLAIMS, ends_at=began + 90 * DAY
    )
    assert two == Family(
        tokens.family_id(second),
        "ada",
        began + 60,
        began + 60,
        began + 60 + 14 * DAY,
        {**CLAIMS, "scope": ""},
        ends_at=began + 60 + 90 * DAY,
    )
    assert await tokens.end(one.id)
    assert not await tokens.end(one.id)
    assert await refused(tokens, first) == "unknown_refresh_token"
    third = await tokens.issue(CLAIMS)
    assert await tokens.revoke_subject("ada") == 2
    for token in (second, third):
        assert await refused(tokens, token) == "unknown_refresh_token"
    assert len(await tokens.families("bob")) == 1
    assert len(await store.get("other")) == 1


@pytest.mark.parametrize("answer", [False, None])
@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("where", ["constructor", "call"])
async def test_who_may_not_continue(clock: Clock, answer: Any, asynchronous: bool, where: str) -> None:
    """The hook is called with the claims before anything is changed; its refusal ends the family."""
    store = MemoryStore(clock=clock)
    asked: list[Claims] = []
    answers: list[Any] = [True, answer]

    def may_continue(claims: Claims) -> Any:
        asked.append(claims)
        return answers.pop(0)

    async def may_continue_later(claims: Claims) -> Any:
        return may_continue(claims)

    hook = may_continue_later if asynchronous else may_continue
    tokens = RefreshTokens(store, may_continue=hook if where == "constructor" else None, clock=clock)
    call = hook if where == "call" else None
    _, token = await tokens.rotate(await tokens.issue(CLAIMS), may_continue=call)
    with pytest.raises(Unauthorized) as error:
        await tokens.rotate(token, may_continue=call)
    assert (error.value.detail, error.value.reason) == ("The refresh token is invalid", "may_not_continue")
    assert asked == [CLAIMS, CLAIMS]
    assert await tokens.families("ada") == []


async def test_the_hook_brings_other_claims(store: Store, clock: Clock) -> None:
    """Claims of the hook take the place of the old ones from then on, but the subject stays."""
    tokens = RefreshTokens(store, may_continue=lambda claims: {"sub": "eve", "scope": "none"}, clock=clock)
    token = await tokens.issue(CLAIMS)
    claims, successor = await tokens.rotate(token)
    assert claims == {"sub": "ada", "scope": "none"}
    assert (await elsewhere(store, clock).rotate(successor))[0] == claims
    assert await families_in(store, "eve") == []


async def test_the_hook_is_asked_within_the_grace(clock: Clock) -> None:
    """A user who may not continue does not within the grace either."""
    store = MemoryStore(clock=clock)
    token = await elsewhere(store, clock).issue(CLAIMS)
    await elsewhere(store, clock).rotate(token)
    assert await refused(elsewhere(store, clock, may_continue=lambda _: False), token) == "may_not_continue"


async def test_a_hook_that_fails(clock: Clock) -> None:
    """A hook that raises changes nothing: the token is as good as before."""
    store = MemoryStore(clock=clock)

    def fail(claims: Claims) -> bool:
        raise ServiceUnavailable(reason="users_unreachable")

    tokens = RefreshTokens(store, clock=clock)
    token = await tokens.issue(CLAIMS)
    with pytest.raises(ServiceUnavailable):
        await tokens.rotate(token, may_continue=fail)
    assert (await tokens.rotate(token))[0] == CLAIMS


MALFORMED = ["", "x", "a" * 63, "a" * 65, "a" * 63 + "=", "a" * 63 + " ", "a" * 63 + "ä", "+" * 64, "-" * 63 + "\ud800"]


@pytest.mark.parametrize("token", [*MALFORMED, None, 7, b"a" * 64])
async def test_what_is_no_token(clock: Clock, token: Any) -> None:
    """A text that cannot be a token is rejected without a look-up; a token beside it is valid."""
    store = CountingStore(MemoryStore(clock=clock))
    tokens = RefreshTokens(store, clock=clock)
    assert await refused(tokens, token) == "malformed"
    assert not await tokens.revoke(token)
    assert store.trips == []
    assert (await tokens.rotate(await tokens.issue(CLAIMS)))[0] == CLAIMS


@given(st.text() | st.text(alphabet="abcXYZ019-_", min_size=64, max_size=64))
def test_no_text_is_a_token(token: str) -> None:
    """Whatever text it is, it is refused and nothing else."""
    assert asyncio.run(refused(RefreshTokens(MemoryStore()), token)) in {"malformed", "unknown_refresh_token"}


async def test_a_tampered_token_ends_the_family(clock: Clock) -> None:
    """A client with the first half of a token has had a token: it is in two hands."""
    tokens = RefreshTokens(MemoryStore(clock=clock), clock=clock)
    token = await tokens.issue(CLAIMS)
    forged = token[:-1] + ("A" if token[-1] != "A" else "B")
    assert await refused(tokens, forged) == "reused"
    assert await refused(tokens, token) == "unknown_refresh_token"


def test_the_token_that_follows_is_of_the_same_family() -> None:
    """A token that is derived is what a client presents later: of the family of the token before it."""
    token = Token.new()
    successor = token.successor("00" * 32)
    assert (successor, successor.family) == (Token.parse(successor.text), token.family)


def test_a_family_of_the_first_version_belongs_to_no_auth() -> None:
    """A record without a name has the one name that no RefreshTokens can have."""
    value = b'{"claims":{"sub":"ada"},"created_at":1,"rotated_at":1,"current":"00"}'
    assert FamilyState.of(Record("refresh:1", value, expires_at=2)).auth == ""
    with pytest.raises(ConfigurationError):
        RefreshTokens(MemoryStore(), name="")


async def test_the_id_of_a_family_makes_no_token(clock: Clock) -> None:
    """The id that `families` shows, and that a token has as `sid`, does not reach the family from outside."""
    tokens = RefreshTokens(MemoryStore(clock=clock), clock=clock)
    token = await tokens.issue(CLAIMS)
    (family,) = await tokens.families("ada")
    assert len(family.id) == 64
    assert await refused(tokens, family.id) == "unknown_refresh_token"
    assert (await tokens.rotate(token))[0] == CLAIMS


NO_SUBJECT = "the claims of a refresh token need a sub, a non-empty string"


@pytest.mark.parametrize(
    ("claims", "message"),
    [
        ({}, NO_SUBJECT),
        ({"sub": ""}, NO_SUBJECT),
        ({"sub": 7}, NO_SUBJECT),
        ({"sub": "a", "x": {1}}, "the claims of a refresh token are JSON: texts, numbers, lists, objects"),
        ({"sub": "a", "x": float("nan")}, "Out of range float values are not JSON compliant"),
    ],
)
async def test_claims_that_cannot_be_kept(clock: Clock, claims: Any, message: str) -> None:
    """Claims without a subject, or that JSON cannot hold, are refused where they are issued."""
    tokens = RefreshTokens(MemoryStore(clock=clock), clock=clock)
    with pytest.raises(ValueError, match=f"^{message}"):
        await tokens.issue(claims)
    assert await tokens.issue({"sub": "a", "x": [1, {"y": None}]})


LIFETIMES = "idle_lifetime is longer than absolute_lifetime; a number is of seconds"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"idle_lifetime": timedelta()}, "idle_lifetime is a timedelta or a number of seconds, more than 0.*"),
        ({"idle_lifetime": "60"}, "idle_lifetime is a timedelta.*"),
        ({"absolute_lifetime": True}, "absolute_lifetime is a timedelta.*"),
        ({"absolute_lifetime": timedelta()}, "absolute_lifetime is a timedelta or a number of seconds, more than 0.*"),
        ({"grace": "30"}, "grace is a timedelta.*"),
        ({"idle_lifetime": timedelta(days=91)}, LIFETIMES),
        ({"grace": timedelta(seconds=-1)}, "grace is a timedelta.*"),
        ({"grace": timedelta(minutes=1, microseconds=1)}, "grace is at most 60 seconds.*"),
        ({"on_event": 5}, "on_event is a function of one Event.*"),
        ({"name": ""}, "a name is text of 1 to 64 printable characters.*"),
        ({"name": "x" * 65}, "a name is text of 1 to 64 printable characters.*"),
        ({"name": "a\nb"}, "a name is text of 1 to 64 printable characters.*"),
        ({"name": "a|b"}, r"a name is text without \|, not .*"),
        ({"name": 7}, "a name is text of 1 to 64 printable characters.*"),
    ],
)
def test_a_configuration_that_cannot_work(options: dict[str, Any], message: str) -> None:
    """Lifetimes, grace and name are checked at construction."""
    with pytest.raises(ConfigurationError, match=f"^{message}$"):
        RefreshTokens(MemoryStore(), **options)


def test_no_store() -> None:
    """Another object than a store is an error at construction."""
    with pytest.raises(ConfigurationError, match=r"store is a Store, such as MemoryStore\(\), not dict"):
        RefreshTokens({})  # type: ignore[arg-type]


def test_a_configuration_at_its_bounds() -> None:
    """A token may be idle for all the lifetime of its family, and the grace be a minute."""
    assert RefreshTokens(MemoryStore(), idle_lifetime=timedelta(days=90), grace=timedelta(minutes=1))
    assert RefreshTokens(MemoryStore(), idle_lifetime=timedelta(microseconds=1), grace=timedelta())


def test_a_pair_hides_its_tokens() -> None:
    """Neither token is in the repr of a pair, and both are in the answer."""
    pair = TokenPair(access_token="secret-a", refresh_token="secret-b", expires_in=60)
    assert "secret" not in repr(pair)
    assert pair.model_dump() == {
        "access_token": "secret-a",
        "token_type": "bearer",
        "expires_in": 60,
        "refresh_token": "secret-b",
    }


@pytest.mark.parametrize("moment", ["before get", "after get", "before replace", "after replace"])
async def test_a_process_killed_in_a_rotation(tmp_path: Path, moment: str) -> None:
    """Whenever a process is killed in a rotation, the client that sends its token again goes on in one family."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'test.db'}")
    store = SQLAlchemyStore(async_sessionmaker(engine))
    await store.create_table()
    tokens = RefreshTokens(store)
    token = await tokens.issue(CLAIMS)
    killed = OtherProcess(killed_process.main, str(tmp_path / "test.db"), token, moment)
    assert await asyncio.to_thread(killed.wait) == -signal.SIGKILL
    claims, second = await tokens.rotate(token)
    assert claims == CLAIMS
    assert await tokens.rotate(token) == (claims, second)
    assert len(await tokens.families("ada")) == 1
    assert (await tokens.rotate(second))[0] == CLAIMS
    await engine.dispose()
    gc.collect()


async def test_replace_keeps_the_owner(store: Store, clock: Clock) -> None:
    """A rotated family is still found by its subject, and its record is another of the same key."""
    tokens = RefreshTokens(store, clock=clock)
    token = await tokens.issue(CLAIMS)
    (before,) = await families_in(store)
    await tokens.rotate(token)
    (after,) = await families_in(store)
    assert replace(after, value=before.value) == before


STORE = MemoryStore()
WRONG_PARTS: list[tuple[Callable[[], object], str]] = [
    (lambda: RefreshTokens(MemoryStore), "store is a Store"),  # type: ignore[arg-type]
    (lambda: SessionAuth(MemoryStore), "store is a Store"),  # type: ignore[arg-type]
    (lambda: Revocations(MemoryStore), "store is a Store"),  # type: ignore[arg-type]
    (lambda: Login({}, MemoryStore), "store is a Store"),  # type: ignore[arg-type]
    (
        lambda: RefreshTokens(STORE, may_continue=True),
        "may_continue is a function of the claims of a family, not True$",
    ),  # type: ignore[arg-type]
    (lambda: Revocations(STORE, ends=[STORE]), "^ends is what has .*, such as SessionAuth, not MemoryStore$"),  # type: ignore[list-item]
]


@pytest.mark.parametrize(("make", "message"), WRONG_PARTS, ids=range(len(WRONG_PARTS)))
def test_parts_that_cannot_work(make: Callable[[], object], message: str) -> None:
    """The class of a store instead of an instance, and parts without the needed methods, are rejected."""
    with pytest.raises(ConfigurationError, match=message):
        make()


def failing(_: Claims) -> Any:
    """Fail."""
    raise OSError


async def failing_later(_: Claims) -> Any:
    """Fail."""
    raise OSError


@pytest.mark.parametrize(
    ("hook", "logged"),
    [
        (failing, "may_continue failed with OSError"),
        (failing_later, "may_continue failed with OSError"),
        (lambda _: 0, "may_continue returned int, not True, False or claims"),
        (lambda _: "", "may_continue returned str, not True, False or claims"),
        (lambda _: ["sub"], "may_continue returned list, not True, False or claims"),
    ],
    ids=range(5),
)
async def test_an_odd_answer_of_the_hook(
    clock: Clock, hook: Any, logged: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A hook that does not decide is a 503, the log has its fault, and the token is as good as before."""
    store = MemoryStore(clock=clock)
    token = await elsewhere(store, clock).issue(CLAIMS)
    with pytest.raises(ServiceUnavailable) as error:
        await elsewhere(store, clock, may_continue=hook).rotate(token)
    assert error.value.reason == "may_continue"
    assert logged in caplog.messages
    assert (await elsewhere(store, clock).rotate(token))[0] == CLAIMS


class Between(MemoryStore):
    """A store in which something happens before the next replacement."""

    happens: Callable[[], Any] | None = None

    async def replace(self, key: str, expected: Record, new: Record) -> bool:
        """Replace, after what happens."""
        happens, self.happens = self.happens, None
        if happens is not None:
            await happens()
        return await super().replace(key, expected, new)


async def test_a_step_up_during_a_rotation(clock: Clock) -> None:
    """A rotation that loses against a change of the claims keeps that change, and decides about it."""
    store = Between(clock=clock)
    asked: list[Claims] = []
    tokens = RefreshTokens(store, may_continue=lambda claims: asked.append(claims) or True, clock=clock)  # type: ignore[func-returns-value]
    token = await tokens.issue(CLAIMS)
    changed = {**CLAIMS, "amr": ["pwd", "otp"]}
    store.happens = lambda: tokens.change(tokens.family_id(token), {"amr": ["pwd", "otp"]}, subject="ada")
    claims, successor = await tokens.rotate(token)
    assert claims == changed
    assert (await tokens.rotate(successor))[0] == changed
    assert asked == [CLAIMS, changed, changed]
