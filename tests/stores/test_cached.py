"""A cache that ends with a change, also with one that another process makes."""

import asyncio
import sys
import time
from collections.abc import Callable, Collection
from datetime import timedelta
from typing import Any

import pytest
from redis.asyncio import Redis

from fastapi_guard import ConfigurationError, ServiceUnavailable
from fastapi_guard.stores import MemoryStore, Record, Store
from fastapi_guard.stores import cached as cached_module
from fastapi_guard.stores.cached import CachedRecords, CacheLimits, Freshness
from fastapi_guard.stores.kinds import REVOKED, SESSION
from fastapi_guard.stores.redis import RedisStore
from support.clock import Clock
from support.other_process import Call, Counting, other_process, shared

__all__ = ["other_process", "shared"]

KEY = f"{SESSION}k"
FRESH_WITHIN = 0.2
SOON = CacheLimits(ttl_seconds=3600, fresh_within_seconds=FRESH_WITHIN)


async def test_a_session_that_another_process_ends(shared: tuple[Any, Call], clock: Clock) -> None:
    """A cached record that another process deletes or replaces is not returned after `fresh_within`."""
    store, other = shared
    counting = Counting(store)
    cached = CachedRecords(counting, SOON, monotonic=clock)
    assert other("add", KEY, "1", "ada")
    record = Record(KEY, b"1", "ada")
    for _ in range(20):
        assert await cached.get(KEY) == [record]
    assert len(counting.reads) == 1
    assert other("replace", KEY, "1", "2")
    assert await cached.get(KEY) == [record]
    clock.move(FRESH_WITHIN)
    new = Record(KEY, b"2")
    for _ in range(2):
        assert await cached.get(KEY) == [new]
    assert other("delete", KEY)
    assert await cached.get(KEY) == [new]
    clock.move(FRESH_WITHIN)
    assert await cached.get(KEY) == [None]


async def test_a_token_that_another_process_revokes(shared: tuple[Any, Call], clock: Clock) -> None:
    """That there is no revocation is cached too, until another process revokes."""
    store, other = shared
    counting = Counting(store)
    cached = CachedRecords(counting, SOON, keep_missing=True, monotonic=clock)
    keys = (f"{REVOKED}t", f"{REVOKED}s")
    for _ in range(20):
        assert await cached.get(*keys) == [None, None]
    assert len(counting.reads) == 1
    for key in keys:
        assert other("add", key, "1", None)
        assert await cached.get(key) == [None]
        clock.move(FRESH_WITHIN)
        assert await cached.get(key) == [Record(key, b"1")]
    assert await cached.get(*keys) == [Record(key, b"1") for key in keys]


async def test_what_is_not_announced(shared: tuple[Any, Call]) -> None:
    """Changes of other kinds of records, of sessions that are added, and of other prefixes are not announced."""
    store, other = shared
    changes = store.changes()
    assert await changes.read() is None
    for key in (KEY, "refresh:r", "dpop:p", "ticket:t"):
        assert other("add", key, "1", "ada")
        assert other("replace", key, "1", "2")
        assert other("replace", key, "1", "3") is False
    assert await changes.read() == {KEY}
    assert await changes.read() == set()
    for key in (KEY, "refresh:r", "dpop:p", "ticket:t"):
        assert other("delete", key)
    assert await changes.read() == {KEY}


async def test_more_changes_than_are_read(shared: tuple[Any, Call], monkeypatch: pytest.MonkeyPatch) -> None:
    """If there are more changes than are read at once, anything may have changed, and then it goes on."""
    store, other = shared
    monkeypatch.setattr("fastapi_guard.stores.sqlalchemy_changes.MOST_ROWS", 2)
    monkeypatch.setattr("fastapi_guard.stores.redis_changes.MOST_ENTRIES", 2)
    now = Clock(0)
    changes = store.changes()
    changes._monotonic = now
    assert await changes.read() is None
    for number in range(3):
        assert other("add", f"{REVOKED}{number}", "", None)
    assert await changes.read() is None
    now.move(10)
    await changes.read()
    assert other("add", f"{REVOKED}last", "", None)
    assert await changes.read() == {f"{REVOKED}last"}


class Feed:
    """Changes that the test decides about."""

    def __init__(self) -> None:
        """Nothing changed."""
        self.answers: list[Collection[str] | Exception | None] = []
        self.reads = 0
        self.begins, self.may_end = asyncio.Event(), asyncio.Event()
        self.may_end.set()

    async def read(self) -> Collection[str] | None:
        """Return the next answer, nothing without one."""
        self.reads += 1
        self.begins.set()
        await self.may_end.wait()
        answer = self.answers.pop(0) if self.answers else ()
        if isinstance(answer, Exception):
            raise answer
        return answer


class Announcing(Counting):
    """A store with changes that the test decides about."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        """Keep records in memory."""
        super().__init__(MemoryStore(clock=clock))
        self.feed = Feed()
        self.changes = lambda: self.feed


def cache_of(store: Any, now: Clock, *, size: int = 10_000, keep_missing: bool = False) -> CachedRecords:
    """Return a cache for a minute that reads the changes once a second, by the clock of the test."""
    limits = CacheLimits(ttl_seconds=60, size=size)
    return CachedRecords(store, limits, keep_missing=keep_missing, clock=now, monotonic=now)


async def test_how_often_is_read(clock: Clock) -> None:
    """The changes are read once in `fresh_within`, by one request for all; a record once in its time to live."""
    store = Announcing(clock)
    cached = cache_of(store, clock)
    await store.add(record := Record(KEY, b"1", None, clock() + 100))
    for _ in range(10):
        assert await cached.get(KEY) == [record]
    assert (store.feed.reads, len(store.reads)) == (1, 1)
    clock.move(1)
    found = await asyncio.gather(*(cached.get(KEY) for _ in range(10)))
    assert found == [[record]] * 10
    assert (store.feed.reads, len(store.reads)) == (2, 1)
    clock.move(59)
    assert await cached.get(KEY) == [record]
    assert (store.feed.reads, len(store.reads)) == (3, 2)
    # It has expired here, and may have been prolonged elsewhere.
    clock.move(40)
    assert await cached.get(KEY) == [None]
    assert len(store.reads) == 3


async def test_caches_of_one_store_share_the_reading(clock: Clock) -> None:
    """However many caches there are on a store, its changes are read once in `fresh_within`, for all of them."""
    store = Announcing()
    first, second = cache_of(store, clock), cache_of(store, clock, keep_missing=True)
    await store.add(record := Record(KEY, b"1"))
    for seconds in (0, 1):
        clock.move(seconds)
        store.feed.answers = [[KEY]]
        for cached in (first, second, first, second):
            assert await cached.get(KEY) == [record]
    assert (store.feed.reads, len(store.reads)) == (2, 4)


async def test_a_record_that_was_prolonged_elsewhere(clock: Clock) -> None:
    """A cached record that has expired is read again: another process may have prolonged it without a word."""
    store = Announcing(clock)
    cached = cache_of(store, clock)
    await store.add(old := Record(KEY, b"1", None, clock() + 30))
    assert await cached.get(KEY) == [old]
    store.store._records[KEY] = new = Record(KEY, b"2", None, clock() + 60)
    clock.move(29)
    assert await cached.get(KEY) == [old]
    clock.move(1)
    assert await cached.get(KEY) == [new]


async def test_changes_that_cannot_be_read(clock: Clock) -> None:
    """If the changes cannot be read, or took longer than they count, the cache is not used."""
    store = Announcing()
    cached = cache_of(store, clock)
    await store.add(record := Record(KEY, b"1"))
    assert await cached.get(KEY) == [record]
    clock.move(1)
    store.feed.answers = [ServiceUnavailable(), ServiceUnavailable()]
    for _ in range(2):
        assert await cached.get(KEY) == [record]
    assert len(store.reads) == 3
    assert await cached.get(KEY) == [record]
    assert len(store.reads) == 3
    clock.move(1)
    store.feed.begins.clear()
    store.feed.may_end.clear()
    request = asyncio.create_task(cached.get(KEY))
    await store.feed.begins.wait()
    clock.move(1)
    store.feed.may_end.set()
    assert await request == [record]
    assert len(store.reads) == 4


async def test_changes_that_are_awaited(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the reading of the changes does not end, requests do without the cache, after a moment or at once."""
    monkeypatch.setattr(cached_module, "_PATIENCE_SECONDS", 0.01)
    store = Announcing()
    cached = CachedRecords(store, CacheLimits(ttl_seconds=3600, fresh_within_seconds=60), monotonic=clock)
    await store.add(record := Record(KEY, b"1"))
    store.feed.may_end.clear()
    for _ in range(3):
        assert await cached.get(KEY) == [record]
        clock.move(1)
    assert len(store.reads) == 3
    store.feed.may_end.set()
    for _ in range(3):
        assert await cached.get(KEY) == [record]
    assert len(store.reads) == 4


async def test_changes_that_are_not_those_of_a_store(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """If a change cannot be decoded, those beside it are lost, so the cache forgets everything."""
    store = Announcing()
    cached = cache_of(store, clock)
    await store.add(record := Record(KEY, b"1"))
    assert await cached.get(KEY) == [record]
    await store.delete(KEY)
    clock.move(1)
    store.feed.answers = [UnicodeDecodeError("utf-8", b"secret", 0, 1, "invalid")]
    assert await cached.get(KEY) == [None]
    assert await cached.get(KEY) == [None]
    assert caplog.messages == ["the changes of a store cannot be read: UnicodeDecodeError"]


async def test_a_foreign_entry_among_the_changes(redis_url: str, clock: Clock) -> None:
    """An entry that another application added to the stream hides no change beside it."""
    async with Redis.from_url(redis_url) as client:
        store = RedisStore(client, prefix="foreign-changes:")
        cached = cache_of(store, clock)
        await store.add(record := Record(KEY, b"1"))
        assert await cached.get(KEY) == [record]
        for entry in ({b"other": b"1"}, {b"key": b"foreign-changes:record:\xff"}):
            await cached.get(KEY)
            clock.move(1)
            # As another process deletes it.
            await client.delete(f"foreign-changes:record:{KEY}")
            await client.xadd("foreign-changes:changes", {b"key": f"foreign-changes:record:{KEY}".encode()})
            await client.xadd("foreign-changes:changes", entry)  # type: ignore[arg-type]
            assert [await cached.get(KEY), await cached.get(KEY)] == [[None], [None]]
            await store.add(record)


async def test_what_another_process_changed_is_read_again(clock: Clock) -> None:
    """A record that changed elsewhere is read again, and all of them if it is not known which."""
    store = Announcing()
    cached = cache_of(store, clock)
    for key in ("session:a", "session:b"):
        await store.add(Record(key, b"1"))
        await cached.get(key)
    for answer, reads in ((["session:a"], 1), (None, 2), ((), 0)):
        clock.move(1)
        store.feed.answers = [answer]
        before = len(store.reads)
        for key in ("session:a", "session:b"):
            assert await cached.get(key) == [Record(key, b"1")]
        assert len(store.reads) - before == reads


async def test_a_record_that_changes_while_it_is_read(clock: Clock) -> None:
    """A record that may have been read as it was before a change is not kept."""
    store = Announcing()
    cached = cache_of(store, clock)
    await store.add(old := Record(KEY, b"1"))

    async def change() -> None:
        store.after = None
        await store.replace(KEY, old, Record(KEY, b"2"))

    store.after = change
    assert await cached.get(KEY) == [old]
    assert await cached.get(KEY) == [Record(KEY, b"2")]
    assert await cached.get(KEY) == [Record(KEY, b"2")]
    assert len(store.reads) == 2


async def test_a_change_in_this_process_counts_at_once(store: Store, clock: Clock) -> None:
    """A record that this process deletes, replaces or adds is not returned from any cache of it."""
    cached = cache_of(store, clock, keep_missing=True)
    assert await cached.get(KEY) == [None]
    await store.add(record := Record(KEY, b"1", None, clock() + 60))
    assert await cached.get(KEY) == [record]
    await store.replace(KEY, record, new := Record(KEY, b"2", None, clock() + 60))
    assert await cached.get(KEY) == [new]
    await store.replace_all([(new, last := Record(KEY, b"3", None, clock() + 60))])  # type: ignore[attr-defined]
    assert await cached.get(KEY) == [last]
    await store.delete(KEY)
    assert await cached.get(KEY) == [None]


async def test_what_is_kept(clock: Clock) -> None:
    """Missing records are kept for revocations alone, and a very long key never is."""
    store = Announcing()
    sessions, revocations = cache_of(store, clock), cache_of(store, clock, keep_missing=True)
    long = "revoked:token:" + "x" * 300
    for cached, key, reads in ((sessions, KEY, 3), (revocations, f"{REVOKED}t", 1), (revocations, long, 3)):
        before = len(store.reads)
        for _ in range(3):
            assert await cached.get(key) == [None]
        assert len(store.reads) - before == reads


async def test_the_memory_of_a_cache(clock: Clock) -> None:
    """A cache has a bounded number of entries, and a cached credential needs less than 1 KiB."""
    store = Announcing()
    cached = cache_of(store, clock, size=100)
    value = b'{"claims": {"sub": "user-1", "sid": "%s"}}' % (b"0" * 64)
    for number in range(500):
        await store.add(Record(f"session:{number:064d}", value, "user-1"))
        await cached.get(f"session:{number:064d}")
    entries: Any = cached._entries._entries
    assert len(entries) == 100
    seen: set[int] = set()

    def size_of(value: Any) -> int:
        if id(value) in seen:
            return 0
        seen.add(id(value))
        inner = value if isinstance(value, tuple) else ()
        if isinstance(value, Record):
            inner = (value.key, value.value, value.owner)
        return sys.getsizeof(value) + sum(map(size_of, inner))

    total = sys.getsizeof(entries) + sum(size_of(key) + size_of(entry) for key, entry in entries.items())
    assert total / 100 < 1024


def test_several_event_loops(clock: Clock) -> None:
    """While one event loop reads the changes, another one goes without the cache."""
    store = Announcing()
    cached = cache_of(store, clock)

    async def fill() -> None:
        await store.add(Record(KEY, b"1"))
        await cached.get(KEY)

    asyncio.run(fill())
    clock.move(1)
    freshness: Freshness = cached._freshness
    assert freshness._lock.acquire()
    assert asyncio.run(cached.get(KEY)) == [Record(KEY, b"1")]
    assert len(store.reads) == 2
    freshness.after_fork()
    assert asyncio.run(cached.get(KEY)) == [Record(KEY, b"1")]
    assert len(store.reads) == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ((3601, None, None), "cache_ttl is at most an hour"),
        ((-1, None, None), "cache_ttl is a timedelta or a number of seconds"),
        ((60, None, 0), "fresh_within is a timedelta or a number of seconds, more than 0"),
        ((60, None, 61), "fresh_within is positive and no longer than cache_ttl"),
        ((60, 0, None), "cache_size is at least 1"),
        ((60, True, None), "cache_size is at least 1"),
        ((None, 10, None), "belong to a cache"),
        ((0, None, 1), "belong to a cache"),
    ],
)
def test_limits_that_are_rejected(settings: tuple[Any, Any, Any], message: str) -> None:
    """A setting that is out of its range, or without effect, raises ConfigurationError."""
    with pytest.raises(ConfigurationError, match=message):
        CacheLimits.of(*settings)


def test_limits_that_are_left_out() -> None:
    """Without `cache_ttl` there is no cache; changes are read once a second, or once in a shorter time to live."""
    assert CacheLimits.of(None, None, None) is None
    assert CacheLimits.of(0, None, None) is None
    assert CacheLimits.of(timedelta(minutes=1), None, None) == CacheLimits(ttl_seconds=60)
    assert CacheLimits.of(0.5, 7, None) == CacheLimits(ttl_seconds=0.5, fresh_within_seconds=0.5, size=7)


def test_a_store_without_changes(clock: Clock) -> None:
    """A cache on a store whose changes cannot be read raises ConfigurationError when it is constructed."""
    with pytest.raises(ConfigurationError, match="needs a store whose changes can be read"):
        cache_of(object(), clock)
