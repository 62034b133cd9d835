"""A cache that ends with a change: at most once in a while it reads what changed in other processes.

A record is served from memory only where the changes were read less than ``fresh_within`` ago, so that a revocation in
another process counts within that time. The reading happens within the request that needs it: nothing runs in the
background. Where the changes cannot be read, the cache is not used.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from threading import Lock
from typing import Final
from weakref import WeakSet, WeakValueDictionary

from fastapi_guard.exceptions import ConfigurationError, ServiceUnavailable, shown
from fastapi_guard.stores.bounds import BoundedCache, seconds_of
from fastapi_guard.stores.changes import AnnouncesChanges, Changes, Forgets, forget_when_changed
from fastapi_guard.stores.forks import reset_after_fork
from fastapi_guard.stores.protocol import Record, Store

logger: logging.Logger = logging.getLogger("fastapi_guard")

FRESH_WITHIN_SECONDS: Final = 1.0
CACHE_SIZE: Final = 10_000
# Longer than a change is kept for those who read it (a day), nothing may be served.
LONGEST_TTL_SECONDS: Final = 3600.0
_PATIENCE_SECONDS: Final = 1.0
# A longer key may be announced as its hash.
_MAX_KEY_LENGTH: Final = 255


@dataclass(frozen=True, kw_only=True, slots=True)
class CacheLimits:
    """How long and how much a cache keeps, as ``cache_ttl``, ``cache_size`` and ``fresh_within`` of an Auth set it.

    Attributes:
        ttl_seconds: How long an entry is served without reading it again, at most an hour.
        fresh_within_seconds: How soon a change in another process counts.
        size: The number of entries.
    """

    ttl_seconds: float
    fresh_within_seconds: float = FRESH_WITHIN_SECONDS
    size: int = CACHE_SIZE

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            ConfigurationError: A number is out of its range.
        """
        if not 0 < self.ttl_seconds <= LONGEST_TTL_SECONDS:
            msg = f"cache_ttl is at most an hour, not {self.ttl_seconds:g} seconds"
            raise ConfigurationError(msg)
        if not 0 < self.fresh_within_seconds <= self.ttl_seconds:
            msg = f"fresh_within is positive and no longer than cache_ttl, not {self.fresh_within_seconds:g} seconds"
            raise ConfigurationError(msg)
        if type(self.size) is not int or self.size < 1:
            msg = f"cache_size is at least 1, not {shown(self.size)}: leave out cache_ttl for no cache"
            raise ConfigurationError(msg)

    @classmethod
    def of(
        cls, ttl: timedelta | float | None, size: int | None, fresh_within: timedelta | float | None
    ) -> "CacheLimits | None":
        """Return the limits that were configured, ``None`` where no cache is wanted.

        Args:
            ttl: ``cache_ttl``, a timedelta or seconds; ``None`` and 0 turn the cache off.
            size: ``cache_size``; ``None`` for the default.
            fresh_within: A timedelta or seconds; ``None`` for the default, or the ``ttl`` where that is shorter.

        Raises:
            ConfigurationError: A value is out of its range, or cannot have an effect without a cache.
        """
        ttl_seconds = 0.0 if ttl is None else seconds_of("cache_ttl", ttl)
        if not ttl_seconds:
            if size is not None or fresh_within is not None:
                msg = "cache_size and fresh_within belong to a cache: turn it on with cache_ttl=timedelta(seconds=30)"
                raise ConfigurationError(msg)
            return None
        fresh = min(FRESH_WITHIN_SECONDS, ttl_seconds)
        if fresh_within is not None:
            fresh = seconds_of("fresh_within", fresh_within, positive=True)
        size = CACHE_SIZE if size is None else size
        return cls(ttl_seconds=ttl_seconds, fresh_within_seconds=fresh, size=size)


class Freshness:
    """When the changes were last read, and by whom they are read again: one request at a time."""

    def __init__(
        self,
        changes: Changes,
        *,
        fresh_within_seconds: float = FRESH_WITHIN_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
        source: object = None,
    ) -> None:
        """Read ``changes``, and let caches forget what it returns.

        Args:
            changes: The changes of a store.
            fresh_within_seconds: How long a reading counts.
            monotonic: Seconds from any start.
            source: Kept alive as long as this is.
        """
        self._changes = changes
        self._source = source
        self._caches: WeakSet[Forgets] = WeakSet()
        self._fresh_within_seconds = fresh_within_seconds
        self._monotonic = monotonic
        self._began = self._fresh_until = float("-inf")
        self._task: asyncio.Task[None] | None = None
        self._lock = Lock()
        reset_after_fork(self)

    @classmethod
    def of(
        cls, store: AnnouncesChanges, fresh_within_seconds: float, monotonic: Callable[[], float] = time.monotonic
    ) -> "Freshness":
        """Return the one of a store: several caches on it share the reading of its changes."""
        place = (id(store), fresh_within_seconds, monotonic)
        with _shared_lock:
            found = _shared.get(place)
            if found is None:
                # With the store, so that no other object gets its id in the meantime.
                found = _shared[place] = cls(
                    store.changes(), fresh_within_seconds=fresh_within_seconds, monotonic=monotonic, source=store
                )
            return found

    def watch(self, cache: Forgets) -> None:
        """Let ``cache`` forget what other processes change, from now on."""
        self._caches.add(cache)

    async def is_usable(self) -> bool:
        """Return whether a cache may be used now; read the changes for it where the last reading is too old."""
        return self.is_fresh() or await self.refresh()

    def is_fresh(self) -> bool:
        """Return whether the cache may be used without reading the changes."""
        return self._monotonic() < self._fresh_until

    async def refresh(self) -> bool:
        """Read the changes, together with other requests that need it; return whether the cache may be used now.

        Where the store does not respond, requests wait for the first moment alone, and then without the cache.
        """
        task = self._task
        loop = asyncio.get_running_loop()
        if task is None or task.done() or task.get_loop() is not loop:
            # One event loop at a time: the position in the changes is not shared.
            if not self._lock.acquire(blocking=False):
                return False
            self._began = self._monotonic()
            task = self._task = loop.create_task(self._read())
            task.add_done_callback(self._release)
        # What takes longer than that is not fresh any more.
        patience = min(self._fresh_within_seconds, _PATIENCE_SECONDS) - (self._monotonic() - self._began)
        await asyncio.wait((task,), timeout=max(0, patience))
        return self.is_fresh()

    def after_fork(self) -> None:
        """Forget the reading that the parent process may have been at."""
        self._lock, self._task = Lock(), None

    def _release(self, _: "asyncio.Task[None]") -> None:
        self._lock.release()

    async def _read(self) -> None:
        try:
            changed = await self._changes.read()
        except ServiceUnavailable:
            return
        except Exception as error:  # noqa: BLE001 - the store is read instead
            # The position may be behind changes that were not returned.
            logger.warning("the changes of a store cannot be read: %s", type(error).__name__)
            self._forget(None)
            return
        if changed is None or changed:
            self._forget(changed)
        self._fresh_until = self._began + self._fresh_within_seconds

    def _forget(self, keys: Iterable[str] | None) -> None:
        for cache in list(self._caches):
            cache.forget(keys)


_shared: WeakValueDictionary[tuple[int, float, Callable[[], float]], Freshness] = WeakValueDictionary()
_shared_lock: Final = Lock()


class CachedRecords:
    """``get`` of a store, from memory where nothing changed: for records that are read with every request."""

    def __init__(
        self,
        store: Store,
        limits: CacheLimits,
        *,
        keep_missing: bool = False,
        slack_seconds: float = 0,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Keep records of ``store``.

        Args:
            store: One that announces its changes: MemoryStore, SQLAlchemyStore, RedisStore.
            limits: How long, and how many.
            keep_missing: Whether to keep that there is no record, as for revocations. Not for keys that a client can
                make up.
            slack_seconds: How long before its record has expired an entry counts as expired.
            clock: Seconds since the epoch.
            monotonic: Seconds from any start.

        Raises:
            ConfigurationError: The store does not announce its changes.
        """
        if not isinstance(store, AnnouncesChanges):
            msg = f"cache_ttl needs a store whose changes can be read, such as RedisStore, not {type(store).__name__}"
            raise ConfigurationError(msg)
        self._store: Store = store
        self._ttl_seconds = limits.ttl_seconds
        self._keep_missing = keep_missing
        self._slack_seconds = slack_seconds
        self._clock = clock
        self._monotonic = monotonic
        self._entries: BoundedCache[str, tuple[float, Record | None]] = BoundedCache(limits.size)
        self._generation = 0
        self._freshness = Freshness.of(store, limits.fresh_within_seconds, monotonic)
        self._freshness.watch(self)
        forget_when_changed(self)

    async def get(self, *keys: str) -> list[Record | None]:
        """Return the records under ``keys``, in that order, ``None`` where there is none or it has expired.

        Raises:
            ServiceUnavailable: The store cannot be reached, and the records are not in memory.
        """
        if not await self._freshness.is_usable():
            return await self._store.get(*keys)
        since, now = self._monotonic() - self._ttl_seconds, self._clock() + self._slack_seconds
        entries = [self._entries.get(key) for key in keys]
        # One that has expired is read again: it may have been used, and so prolonged, in another process.
        records = [
            entry[1]
            for entry in entries
            if entry is not None and entry[0] > since and (entry[1] is None or entry[1].is_alive(now))
        ]
        if len(records) == len(keys):
            return records
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


def reader(
    store: Store,
    limits: CacheLimits | None,
    *,
    keep_missing: bool = False,
    slack_seconds: float = 0,
    clock: Callable[[], float] = time.time,
) -> Callable[..., Awaitable[list[Record | None]]]:
    """Return how records are read with every request: ``get`` of the store, or of a CachedRecords with these arguments.

    Raises:
        ConfigurationError: A cache is wanted, and the store does not announce its changes.
    """
    if limits is None:
        return store.get
    return CachedRecords(store, limits, keep_missing=keep_missing, slack_seconds=slack_seconds, clock=clock).get
