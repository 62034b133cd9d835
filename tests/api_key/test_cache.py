import asyncio
import threading
import tracemalloc
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from api_key.databases import Database
from fastapi_guard import Unauthorized
from fastapi_guard.api_key.cache import KeyCache, forget, revision
from fastapi_guard.api_key.database import DatabaseAPIKeyAuth
from fastapi_guard.api_key.key import COLUMNS, StoredKey
from fastapi_guard.api_key.lookup import key_changes
from fastapi_guard.api_key.models import APIKeyEvent
from fastapi_guard.stores.cached import CacheLimits
from fastapi_guard.stores.changes import NoOtherProcess
from fastapi_guard.stores.database import Sessions
from support.clock import Clock

NOW = 1_800_000_000.0


async def read_once(database: Database, **options: Any) -> DatabaseAPIKeyAuth:
    """Return an Auth that has read the changes, and reads them again after a minute."""
    keys = database.auth(fresh_within=60, **{"cache_ttl": 3600, **options})
    assert keys._cache is not None
    assert await keys._cache.is_usable()
    return keys


@pytest.fixture
def clock() -> Clock:
    """Return a clock of its own."""
    return Clock(NOW)


def key(key_id: str) -> StoredKey:
    """Return a key that was valid."""
    moment = datetime.fromtimestamp(NOW, UTC)
    fields: dict[str, Any] = {"metadata": {}, "scopes": [], "allowed_networks": [], "allowed_origins": []}
    return StoredKey(key_id=key_id, usage_id=key_id, user_id="alice", created_at=moment, **fields)


def put(cache: KeyCache, raw: str, entry: StoredKey, loaded_at: float = NOW) -> None:
    """Cache a key whose look-up has just begun."""
    cache.put(raw, entry, loaded_at=loaded_at, revision=revision())


def cached(cache: KeyCache, key_id: str, now: float = NOW) -> bool:
    """Return whether the key `raw-<id>` of an id is in the cache."""
    return cache.get(f"raw-{key_id}", key_id, now) is not None


def cache_of(size: int = 4) -> KeyCache:
    """Return a cache of so many keys for ten seconds, where no other process is."""
    return KeyCache(CacheLimits(ttl_seconds=10, size=size), NoOtherProcess())


def test_for_a_while() -> None:
    """A key stays for its time to live, and not at all where the clock was set back."""
    cache = cache_of()
    put(cache, "raw", key("a"))
    assert cache.get("raw", "a", NOW + 9.9) == key("a")
    assert cache.get("raw", "a", NOW + 10) is None
    assert cache.get("raw", "a", NOW - 0.1) is None
    assert cache.get("other", "a", NOW) is None
    assert cache.get("raw", "b", NOW) is None


def test_within_bounds() -> None:
    """Of more keys than there is room for the oldest goes."""
    cache = cache_of(2)
    for name in "abc":
        put(cache, f"raw-{name}", key(name))
    assert [cached(cache, name) for name in "abc"] == [False, True, True]
    put(cache, "raw-b", key("b"), NOW + 1)
    put(cache, "raw-d", key("d"))
    assert [cached(cache, name, NOW + 1) for name in "bcd"] == [True, False, True]


def test_a_change_drops_a_key_from_every_cache() -> None:
    """A key that was changed goes from every cache of the process; a look-up from before the change is not cached."""
    first, second = cache_of(), cache_of()
    before = revision()
    for cache in (first, second):
        put(cache, "raw-a", key("a"))
        put(cache, "raw-b", key("b"))
    forget(["a", "unknown"])
    for cache in (first, second):
        assert not cached(cache, "a")
        cache.put("raw-a", key("a"), loaded_at=NOW, revision=before)
        assert not cached(cache, "a")
        assert cached(cache, "b")
        # A look-up that began after the change has read what it left.
        put(cache, "raw-a", key("a"))
        assert cached(cache, "a")


def test_a_change_in_an_open_transaction() -> None:
    """Until the transaction has ended the key is not cached, however often it is looked up, nor by who began before."""
    cache = cache_of()
    is_open = True
    forget(["a", "b"], lambda: is_open)
    for _ in range(3):
        put(cache, "raw-a", key("a"))
        assert not cached(cache, "a")
    before = revision()
    is_open = False
    cache.put("raw-a", key("a"), loaded_at=NOW, revision=before)
    cache.put("raw-a", key("a"), loaded_at=NOW, revision=before)
    assert not cached(cache, "a")
    put(cache, "raw-a", key("a"))
    assert cached(cache, "a")
    # The other one was never looked up: the next change forgets its transaction, and looks-ups from before it.
    before = revision()
    forget([])
    cache.put("raw-b", key("b"), loaded_at=NOW, revision=before)
    assert not cached(cache, "b")
    put(cache, "raw-b", key("b"))
    assert cached(cache, "b")


def test_from_several_threads() -> None:
    """Threads that put, get and forget do not disturb each other."""
    cache = cache_of(50)

    def work(name: str) -> None:
        for number in range(500):
            put(cache, f"{name}{number}", key(f"{name}{number}"))
            cache.get(f"{name}{number - 1}", f"{name}{number - 1}", NOW)
            forget([f"{name}{number - 2}"])

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(cache._keys) <= 50


async def test_a_cached_key_costs_no_query(database: Database, clock: Clock) -> None:
    """Within the time to live a key is selected once, then again; a wrong key is never kept."""
    keys = await read_once(database, cache_ttl=60, clock=clock)
    _, raw = await keys.create(user_id="alice", metadata={"teams": ["red"]})
    with database.statements() as statements:
        for _ in range(3):
            claims = await keys.verify(raw)
            claims["metadata"]["teams"].append("blue")
            claims["scope"] = "*"
        await keys.aclose()
    assert [statement.split()[0] for statement in statements] == ["SELECT", "UPDATE"]
    assert await keys.verify(raw) == {**claims, "scope": "", "metadata": {"teams": ["red"]}}
    clock.move(60)
    with database.statements() as statements:
        await keys.verify(raw)
        await keys.aclose()
    assert [statement.split()[0] for statement in statements] == ["SELECT", "UPDATE"]
    wrong = (await database.auth(peppers={"1": "another-deployments-pepper"}).create(user_id="eve")).raw
    with database.statements() as statements:
        for _ in range(2):
            assert not await keys.validate_token(wrong)
    assert len(statements) == 2


async def test_the_use_of_a_cached_key_is_written(database: Database, clock: Clock) -> None:
    """A key that comes from the cache has its use written once a minute all the same."""
    keys = database.auth(cache_ttl=3600, clock=clock)
    key_id, raw = await keys.create(user_id="alice")
    for _ in range(130):
        await keys.verify(raw)
        clock.move(1)
    await keys.aclose()
    stored = await keys.get(key_id)
    assert stored is not None
    assert stored.last_used_at is not None
    assert stored.last_used_at.timestamp() == NOW + 120


async def test_a_cached_key_expires(database: Database, clock: Clock) -> None:
    """The expiry is checked on every hit."""
    keys = database.auth(cache_ttl=3600, clock=clock)
    _, raw = await keys.create(user_id="alice", expires_at=datetime.fromtimestamp(NOW + 60, UTC))
    assert (await keys.verify(raw))["exp"] == NOW + 60
    clock.move(60)
    with pytest.raises(Unauthorized) as refusal:
        await keys.verify(raw)
    assert refusal.value.reason == "expired"


def revoke_on_the_auth(keys: DatabaseAPIKeyAuth, database: Database, key_id: str) -> Any:
    """Revoke on the Auth's own session."""
    return keys.revoke(key_id)


def revoke_on_another_auth(keys: DatabaseAPIKeyAuth, database: Database, key_id: str) -> Any:
    """Revoke by another Auth of this process."""
    return database.auth().revoke(key_id)


def revoke_on_the_class(keys: DatabaseAPIKeyAuth, database: Database, key_id: str) -> Any:
    """Revoke in a session, by the method of the class."""
    return database.within(lambda session: DatabaseAPIKeyAuth.revoke_key(session, key_id))


def rotate(keys: DatabaseAPIKeyAuth, database: Database, key_id: str) -> Any:
    """Rotate without an overlap."""
    return keys.rotate(key_id)


@pytest.mark.parametrize("end", [revoke_on_the_auth, revoke_on_another_auth, revoke_on_the_class, rotate])
async def test_an_end_in_this_process_is_immediate(database: Database, clock: Clock, end: Any) -> None:
    """However a key ends in this process, no cache of it answers for the key any more."""
    keys = database.auth(cache_ttl=3600, clock=clock)
    key_id, raw = await keys.create(user_id="alice")
    assert (await keys.verify(raw))["sub"] == "alice"
    await end(keys, database, key_id)
    assert not await keys.validate_token(raw)
    clock.move(1)
    assert not await keys.validate_token(raw)


async def test_a_look_up_under_way_while_the_key_is_revoked(database: Database, clock: Clock) -> None:
    """A look-up that began before a revocation is not cached after it."""
    keys = database.auth(cache_ttl=3600, clock=clock)
    for _ in range(10):
        key_id, raw = await keys.create(user_id="alice")
        await asyncio.gather(*(keys.validate_token(raw) for _ in range(5)), keys.revoke(key_id))
        assert not await keys.validate_token(raw)


async def test_many_revocations_in_one_transaction(database: Database, clock: Clock) -> None:
    """More keys than the cache has room for are revoked in one transaction, and used meanwhile: each ends with it."""
    keys = database.auth(cache_ttl=3600, cache_size=2, clock=clock)
    created = [await keys.create(user_id="alice") for _ in range(6)]
    for _, raw in created:
        await keys.verify(raw)
    session = database.factory()
    try:
        for key_id, _ in created:
            if isinstance(session, AsyncSession):
                await session.run_sync(keys.revoke_key, key_id)
            else:
                await asyncio.to_thread(keys.revoke_key, session, key_id)
        # Nothing is committed yet. On SQLite no other connection can write meanwhile, and each can read.
        for _, raw in created:
            assert await keys.validate_token(raw)
        await (session.commit() if isinstance(session, AsyncSession) else asyncio.to_thread(session.commit))
    finally:
        await (session.close() if isinstance(session, AsyncSession) else asyncio.to_thread(session.close))
    assert [await keys.validate_token(raw) for _, raw in created] == [False] * 6


async def test_a_revocation_in_a_transaction_around_the_session(sqlite: Database, clock: Clock) -> None:
    """A session may be joined into a transaction of its connection, which decides when the revocation counts."""
    keys = sqlite.auth(cache_ttl=3600, clock=clock)
    key_id, raw = await keys.create(user_id="alice")
    await keys.verify(raw)
    with sqlite.sync_engine.connect() as connection, connection.begin():
        with Session(connection) as session:
            keys.revoke_key(session, key_id)
            session.commit()
        assert await keys.validate_token(raw)
    assert not await keys.validate_token(raw)


async def test_a_revocation_that_is_rolled_back(database: Database, clock: Clock) -> None:
    """After a rollback the key is cached again."""
    keys = await read_once(database, clock=clock)
    key_id, raw = await keys.create(user_id="alice")

    def revoke(session: Session) -> None:
        keys.revoke_key(session, key_id)
        session.rollback()

    await database.within(revoke)
    for _ in range(2):
        await keys.verify(raw)
    with database.statements() as statements:
        await keys.verify(raw)
    assert statements == []


async def test_pausing_is_immediate(database: Database, clock: Clock) -> None:
    """A paused key is refused at once by every cache of the process, and accepted at once when it is resumed."""
    keys = database.auth(cache_ttl=3600, clock=clock)
    key_id, raw = await keys.create(user_id="alice")
    await keys.verify(raw)
    await database.auth().pause(key_id)
    assert not await keys.validate_token(raw)
    await keys.resume(key_id)
    assert await keys.validate_token(raw)


async def test_the_changes_of_keys(sqlite: Database) -> None:
    """They are the ids of the keys that were changed; a new key is in no cache."""
    keys = sqlite.auth()
    changes = key_changes(Sessions(sqlite.factory), APIKeyEvent)
    await changes.read()
    await keys.create(user_id="alice")
    key_id, _ = await keys.create(user_id="alice")
    assert await changes.read() == set()
    await keys.revoke(key_id)
    assert await changes.read() == {key_id}


async def test_changes_that_cannot_be_read(sqlite: Database, clock: Clock) -> None:
    """Each key is looked up while the table of events cannot be read."""
    keys = sqlite.auth(cache_ttl=3600, clock=clock)
    _, raw = await keys.create(user_id="alice")
    await sqlite.within(lambda session: session.execute(text("ALTER TABLE api_key_events RENAME TO events")))
    with sqlite.statements() as statements:
        for _ in range(3):
            assert await keys.validate_token(raw)
    assert len([statement for statement in statements if "api_keys" in statement]) == 3


def test_the_memory_of_a_cached_key(clock: Clock) -> None:
    """A cached key needs less than 1 KiB, however many there are."""
    count = 8_000  # so that what other threads allocate meanwhile does not count
    cache = cache_of(count)
    now = datetime.fromtimestamp(NOW, UTC)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(count):
            moment = now + timedelta(seconds=number)
            key_id = f"{number:016x}"
            row = {
                **dict.fromkeys(COLUMNS),
                "key_id": key_id,
                "name": f"key {number}",
                "subject_type": "user",
                "user_id": f"user-{number}",
                "scopes": [f"items:{number}"],
                "metadata": {},
                "created_at": moment,
                "last_used_at": moment + timedelta(seconds=1),
            }
            put(cache, f"sk-{number:064x}", StoredKey.of_row(list(row.values())), NOW + number)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(cache._keys) == count
    assert (after - before) / count < 1024
