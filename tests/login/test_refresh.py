"""Refresh tokens: used once, alike on every store, whatever happens in between."""

import asyncio
import gc
import logging
import subprocess
import sys
import textwrap
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
from fastapi_guard.login.refresh import Family, RefreshTokens, TokenPair, _State
from fastapi_guard.stores import MemoryStore, Record, Store
from fastapi_guard.stores.sqlalchemy import SQLAlchemyStore
from support.clock import Clock

CLAIMS = {"sub": "ada", "scope": "items:read"}
DAY = 86_400


class Counting:
    """A store that counts its round trips, and does something before one of them."""

    def __init__(self, store: Store) -> None:
        """Ask `store`."""
        self.store = store
        self.trips: list[str] = []
        self.before: dict[str, Callable[[], Any]] = {}

    async def _trip(self, name: str, *arguments: Any) -> Any:
        self.trips.append(name)
        if name in self.before:
            await self.before.pop(name)()
        return await getattr(self.store, name)(*arguments)

    async def get(self, *keys: str) -> list[Record | None]:
        """Count."""
        found: list[Record | None] = await self._trip("get", *keys)
        return found

    async def add(self, record: Record) -> bool:
        """Count."""
        return bool(await self._trip("add", record))

    async def replace(self, key: str, expected: Record, new: Record) -> bool:
        """Count."""
        return bool(await self._trip("replace", key, expected, new))

    async def delete(self, key: str) -> bool:
        """Count."""
        return bool(await self._trip("delete", key))

    async def find(self, owner: str) -> list[Record]:
        """Count."""
        found: list[Record] = await self._trip("find", owner)
        return found


async def refused(tokens: RefreshTokens, token: str) -> str:
    """Return the reason for which a token is refused."""
    with pytest.raises(Unauthorized) as error:
        await tokens.rotate(token)
    assert (error.value.status_code, error.value.detail) == (401, "The refresh token is invalid")
    assert error.value.headers == {"WWW-Authenticate": 'Bearer realm="api"'}
    return error.value.reason


async def test_a_token_is_used_once(store: Store, clock: Clock) -> None:
    """Each rotation gives the claims and another token; after the grace a used one is refused, and its family ends."""
    events: list[Event] = []
    tokens = RefreshTokens(store, on_event=events.append, clock=clock)
    first = await tokens.issue(CLAIMS)
    claims, second = await tokens.rotate(first)
    assert claims == CLAIMS
    clock.move(31)
    _, third = await tokens.rotate(second)
    assert len({first, second, third}) == 3
    clock.move(30)
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
    """Within the grace a used token gives the same successor and claims again; the successor is good."""
    tokens = RefreshTokens(store, clock=clock)
    first = await tokens.issue(CLAIMS)
    rotated = await tokens.rotate(first)
    clock.move(29.9)
    assert await tokens.rotate(first) == rotated
    clock.move(-120)
    assert await tokens.rotate(first) == rotated
    _, third = await tokens.rotate(rotated[1])
    assert third != rotated[1]


async def test_a_hundred_uses_at_once(store: Store, clock: Clock) -> None:
    """100 concurrent uses of one token: one family, one successor, in at most three round trips each."""
    counting = Counting(store)
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
    counting = Counting(store)
    tokens = RefreshTokens(counting, clock=clock)
    token = await tokens.issue(CLAIMS)
    counting.trips.clear()
    _, second = await tokens.rotate(token)
    assert counting.trips == ["get", "replace"]
    counting.trips.clear()
    won: list[Any] = []

    async def win() -> None:
        won.append(await RefreshTokens(store, clock=clock).rotate(second))

    counting.before["replace"] = win
    assert await tokens.rotate(second) == won[0]
    assert counting.trips == ["get", "replace", "get"]
    counting.trips.clear()
    assert await tokens.revoke(second)
    assert counting.trips == ["delete"]


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
    (record,) = await store.find("ada")
    assert record.key == f"refresh:{RefreshTokens.family_id(second)}"
    state = _State.of(record)
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
    (record,) = await store.find("ada")
    await tokens._erase(record.key)
    assert await store.find("ada") == [record]
    clock.move(30)
    await tokens._erase(record.key)
    (erased,) = await store.find("ada")
    assert b'"nonce":null' in erased.value
    assert erased.expires_at == record.expires_at
    await tokens._erase(record.key)
    assert await store.find("ada") == [erased]
    _, third = await tokens.rotate(second)
    await tokens.revoke(third)
    await tokens._erase(record.key)
    assert await store.find("ada") == []


async def test_erasing_outlives_a_collection(clock: Clock) -> None:
    """The erasure of a nonce goes on where nothing but itself knows what it waits for."""
    waits: list[weakref.ref[asyncio.Future[None]]] = []

    class Slow(MemoryStore):
        """A store that answers the rotation at once, and the erasure later."""

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
    while not waits:  # noqa: ASYNC110 - a task of the loop's own asks
        await asyncio.sleep(0)
    gc.collect()
    later = waits[0]()
    assert later is not None
    later.set_result(None)
    while b'"nonce":null' not in (await store.find("ada"))[0].value:  # noqa: ASYNC110 - the same task
        await asyncio.sleep(0)


async def test_erasing_does_not_lose_a_rotation(clock: Clock) -> None:
    """A rotation that meets the erasure of the nonce before it is done again, and rotates once."""
    store = MemoryStore(clock=clock)
    counting = Counting(store)
    tokens = RefreshTokens(counting, clock=clock)
    asked: list[Claims] = []
    _, second = await tokens.rotate(await tokens.issue(CLAIMS))
    clock.move(30)
    (record,) = await store.find("ada")
    counting.before["replace"] = lambda: RefreshTokens(store, clock=clock)._erase(record.key)
    claims, third = await tokens.rotate(second, may_continue=lambda claims: asked.append(claims) or True)
    assert (claims, asked) == (CLAIMS, [CLAIMS])
    assert (await tokens.rotate(second))[1] == third


async def test_a_rotation_that_never_wins(clock: Clock) -> None:
    """A record that changes under each of three attempts is a 503, and the token is as good as before."""

    class Changing(MemoryStore):
        """A store in which somebody else is always first, with the family unchanged."""

        async def replace(self, key: str, expected: Record, new: Record) -> bool:
            """Lose."""
            return False

    store = Changing(clock=clock)
    counting = Counting(store)
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
    """While the store is away a rotation is a 503, and erasing a nonce only a line in the log."""
    store = Counting(MemoryStore(clock=clock))
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
    logged = [(each.name, each.message) for each in caplog.records]
    assert logged == [("fastapi_guard", "the nonce of a refresh token could not be erased")]
    assert (await tokens.rotate(token))[0] == CLAIMS


async def test_idle_lifetime(store: Store, clock: Clock) -> None:
    """A token that nobody uses expires; each rotation begins anew."""
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


async def test_a_shorter_absolute_lifetime_holds_for_old_families(clock: Clock) -> None:
    """A family does not outlive a configuration that became stricter, whatever its record says."""
    store = MemoryStore(clock=clock)
    token = await RefreshTokens(store, clock=clock).issue(CLAIMS)
    strict = RefreshTokens(store, idle_lifetime=timedelta(days=1), absolute_lifetime=timedelta(days=1), clock=clock)
    clock.move(DAY)
    assert await refused(strict, token) == "unknown_refresh_token"
    assert (await RefreshTokens(store, clock=clock).rotate(token))[0] == CLAIMS


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
    await store.add(Record("other", b"not a family", "ada", None))
    first = await tokens.issue(CLAIMS)
    began = clock()
    clock.move(60)
    second = await tokens.issue({**CLAIMS, "scope": ""})
    await tokens.issue({"sub": "bob"})
    clock.move(60)
    await tokens.rotate(first)
    one, two = await tokens.families("ada")
    assert one == Family(tokens.family_id(first), "ada", began, began + 120, began + 120 + 14 * DAY)
    assert two == Family(tokens.family_id(second), "ada", began + 60, began + 60, began + 60 + 14 * DAY)
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
    """The hook is asked with the claims before anything is changed; its no ends the family."""
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
    assert (await RefreshTokens(store, clock=clock).rotate(successor))[0] == claims
    assert await store.find("eve") == []


async def test_the_hook_is_asked_within_the_grace(clock: Clock) -> None:
    """Who may not continue any more does not within the grace either."""
    store = MemoryStore(clock=clock)
    token = await RefreshTokens(store, clock=clock).issue(CLAIMS)
    await RefreshTokens(store, clock=clock).rotate(token)
    assert await refused(RefreshTokens(store, may_continue=lambda _: False, clock=clock), token) == "may_not_continue"


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
    """What cannot be a token is refused without asking the store; a token beside it is good."""
    store = Counting(MemoryStore(clock=clock))
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
    """Who has the first half of a token has had a token: it is in two hands."""
    tokens = RefreshTokens(MemoryStore(clock=clock), clock=clock)
    token = await tokens.issue(CLAIMS)
    forged = token[:-1] + ("A" if token[-1] != "A" else "B")
    assert await refused(tokens, forged) == "reused"
    assert await refused(tokens, token) == "unknown_refresh_token"


async def test_the_id_of_a_family_makes_no_token(clock: Clock) -> None:
    """What `families` shows, and a token carries as `sid`, does not reach the family from outside."""
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


TIMEDELTAS = r"idle_lifetime and absolute_lifetime are timedeltas, such as timedelta\(days=1\)"
LIFETIMES = "idle_lifetime is positive and no longer than absolute_lifetime"
GRACE = "grace is a timedelta from nothing to an hour: it is for a client that sends again at once"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"idle_lifetime": timedelta()}, LIFETIMES),
        ({"idle_lifetime": 60}, TIMEDELTAS),
        ({"absolute_lifetime": 60}, TIMEDELTAS),
        ({"grace": 30}, GRACE),
        ({"idle_lifetime": timedelta(days=91)}, LIFETIMES),
        ({"grace": timedelta(seconds=-1)}, GRACE),
        ({"grace": timedelta(hours=1, microseconds=1)}, GRACE),
        ({"on_event": 5}, "on_event is a function of one Event.*"),
    ],
)
def test_a_configuration_that_cannot_work(options: dict[str, Any], message: str) -> None:
    """Lifetimes and grace are checked where they are written."""
    with pytest.raises(ConfigurationError, match=f"^{message}$"):
        RefreshTokens(MemoryStore(), **options)


def test_a_configuration_at_its_bounds() -> None:
    """A token may be idle for all that its family lives, and the grace be an hour."""
    assert RefreshTokens(MemoryStore(), idle_lifetime=timedelta(days=90), grace=timedelta(hours=1))
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


KILLED = """
import asyncio, os, signal, sys
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from fastapi_guard.login.refresh import RefreshTokens
from fastapi_guard.stores.sqlalchemy import SQLAlchemyStore

class Dying(SQLAlchemyStore):
    async def _step(self, name, call):
        if sys.argv[3] == "before " + name:
            os.kill(os.getpid(), signal.SIGKILL)
        result = await call
        if sys.argv[3] == "after " + name:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    async def get(self, *keys):
        return await self._step("get", super().get(*keys))
    async def replace(self, *arguments):
        return await self._step("replace", super().replace(*arguments))

async def main():
    sessions = async_sessionmaker(create_async_engine("sqlite+aiosqlite:///" + sys.argv[1]))
    await RefreshTokens(Dying(sessions)).rotate(sys.argv[2])

asyncio.run(main())
"""


@pytest.mark.parametrize("moment", ["before get", "after get", "before replace", "after replace"])
async def test_a_process_killed_in_a_rotation(tmp_path: Path, moment: str) -> None:
    """Whenever a process is killed in a rotation, the client that sends its token again goes on in one family."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'test.db'}")
    store = SQLAlchemyStore(async_sessionmaker(engine))
    await store.create_table()
    tokens = RefreshTokens(store)
    token = await tokens.issue(CLAIMS)
    arguments = [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path / "test.db"), token, moment]
    killed = await asyncio.to_thread(subprocess.run, arguments, capture_output=True, check=False)
    assert killed.returncode == -9, killed.stderr
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
    (before,) = await store.find("ada")
    await tokens.rotate(token)
    (after,) = await store.find("ada")
    assert replace(after, value=before.value) == before
