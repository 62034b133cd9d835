"""A cache that ends with a change: at most once in a while it reads what changed in other processes.

A record is served from memory only where the changes were read less than ``fresh_within`` ago, so that a revocation in
another process counts within that time. The reading happens within the request that needs it: nothing runs in the
background. Where the changes cannot be read, the cache is not used.
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from threading import Lock
from typing import Final

from fastapi_guard.exceptions import ConfigurationError, ServiceUnavailable
from fastapi_guard.stores.bounds import BoundedCache
from fastapi_guard.stores.changes import AnnouncesChanges, Changes, Forgets, forget_when_changed
from fastapi_guard.stores.forks import reset_after_fork
from fastapi_guard.stores.protocol import Record, Store

FRESH_WITHIN_SECONDS: Final = 1.0
# Longer than a change is kept for those who read it (a day), nothing may be served.
LONGEST_TTL_SECONDS: Final = 3600.0
# A longer key may be announced as its hash.
_MAX_KEY_LENGTH: Final = 255


class Freshness:
    """When the changes were last read, and by whom they are read again: one request at a time."""

    def __init__(
        self,
        changes: Changes,
        cache: Forgets,
        *,
        fresh_within_seconds: float = FRESH_WITHIN_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Let ``cache`` forget what ``changes`` returns.

        Args:
            changes: The changes of a store.
            cache: Also forgets what changes in this process.
            fresh_within_seconds: How long a reading counts.
            monotonic: Seconds from any start.
        """
        self._changes = changes
        self._cache = cache
        self._fresh_within_seconds = fresh_within_seconds
        self._monotonic = monotonic
        self._fresh_until = float("-inf")
        self._task: asyncio.Task[bool] | None = None
        self._lock = Lock()
        forget_when_changed(cache)
        reset_after_fork(self)

    def is_fresh(self) -> bool:
        """Return whether the cache may be used without reading the changes."""
        return self._monotonic() < self._fresh_until

    async def refresh(self) -> bool:
        """Read the changes, together with other requests that need it; return whether the cache may be used now."""
        task = self._task
        loop = asyncio.get_running_loop()
        if task is None or task.done() or task.get_loop() is not loop:
            # One event loop at a time: the position in the changes is not shared.
            if not self._lock.acquire(blocking=False):
                return False
            task = self._task = loop.create_task(self._read())
            task.add_done_callback(self._release)
        await asyncio.shield(task)
        return task.result()

    def after_fork(self) -> None:
        """Forget the reading that the parent process may have been at."""
        self._lock, self._task = Lock(), None

    def _release(self, _: "asyncio.Task[bool]") -> None:
        self._lock.release()

    async def _read(self) -> bool:
        began = self._monotonic()
        try:
            changed = await self._changes.read()
        except ServiceUnavailable:
            return False
        if changed is None or changed:
            self._cache.forget(changed)
        self._fresh_until = began + self._fresh_within_seconds
        return self.is_fresh()


class CachedRecords:
    """``get`` of a store, from memory where nothing changed: for records that are read with every request."""

    def __init__(
        self,
        store: Store,
        *,
        ttl_seconds: float,
        size: int = 10_000,
        fresh_within_seconds: float = FRESH_WITHIN_SECONDS,
        keep_missing: bool = False,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Keep records of ``store``.

        Args:
            store: One that announces its changes: MemoryStore, SQLAlchemyStore, RedisStore.
            ttl_seconds: How long a record is served without reading it again, at most an hour.
            size: The number of records to keep.
            fresh_within_seconds: How soon a change in another process counts.
            keep_missing: Whether to keep that there is no record, as for revocations. Not for keys that a client can
                make up.
            clock: Seconds since the epoch.
            monotonic: Seconds from any start.

        Raises:
            ConfigurationError: The store does not announce its changes, or an argument is out of its range.
        """
        if not isinstance(store, AnnouncesChanges):
            msg = f"cache_ttl needs a store whose changes can be read, such as RedisStore, not {type(store).__name__}"
            raise ConfigurationError(msg)
        if not 0 < ttl_seconds <= LONGEST_TTL_SECONDS or not 0 < fresh_within_seconds <= ttl_seconds:
            msg = "cache_ttl is at most an hour, and fresh_within positive and no longer than cache_ttl"
            raise ConfigurationError(msg)
        if type(size) is not int or size < 1:
            msg = f"cache_size is at least 1, not {size!r}: leave out cache_ttl for no cache"
            raise ConfigurationError(msg)
        self._store: Store = store
        self._ttl_seconds = ttl_seconds
        self._keep_missing = keep_missing
        self._clock = clock
        self._monotonic = monotonic
        self._entries: BoundedCache[str, tuple[float, Record | None]] = BoundedCache(size)
        self._generation = 0
        self._freshness = Freshness(
            store.changes(), self, fresh_within_seconds=fresh_within_seconds, monotonic=monotonic
        )

    async def get(self, *keys: str) -> list[Record | None]:
        """Return the records under ``keys``, in that order, ``None`` where there is none or it has expired.

        Raises:
            ServiceUnavailable: The store cannot be reached, and the records are not in memory.
        """
        if not self._freshness.is_fresh() and not await self._freshness.refresh():
            return await self._store.get(*keys)
        since = self._monotonic() - self._ttl_seconds
        entries = [self._entries.get(key) for key in keys]
        if all(entry is not None and entry[0] > since for entry in entries):
            now = self._clock()
            records = [entry[1] for entry in entries if entry is not None]
            return [record if record is not None and record.is_alive(now) else None for record in records]
        generation, loaded_at = self._generation, self._monotonic()
        found = await self._store.get(*keys)
        # What changed during the read may have been read as it was before.
        if generation == self._generation:
            for key, record in zip(keys, found, strict=True):
                if (record is not None or self._keep_missing) and len(key) <= _MAX_KEY_LENGTH:
                    self._entries.put(key, (loaded_at, record))
        return found

    def forget(self, keys: Iterable[str] | None) -> None:
        """Drop these keys, or all where ``None``; what is being read is not kept."""
        self._generation += 1
        if keys is None:
            self._entries.clear()
        else:
            for key in keys:
                self._entries.pop(key)
