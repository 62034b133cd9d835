"""Verified keys, cached for a while, so that a busy key is not looked up for every request.

What other processes change is read from the table of events; see ``stores.cached``.
"""

import time
from collections.abc import Callable, Iterable
from hashlib import sha256
from hmac import compare_digest
from threading import Lock
from weakref import WeakSet

from fastapi_guard.api_key.key import StoredKey
from fastapi_guard.stores.bounds import BoundedCache
from fastapi_guard.stores.cached import CacheLimits, Freshness
from fastapi_guard.stores.changes import Changes


class KeyCache:
    """Keys that were valid when they were looked up, while nothing is known to have changed."""

    def __init__(
        self, limits: CacheLimits, changes: Changes, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """Start empty; ``changes`` returns the ids of the keys that any process changes."""
        self._ttl_seconds = limits.ttl_seconds
        self._keys: BoundedCache[str, tuple[bytes, float, StoredKey]] = BoundedCache(limits.size)
        self._freshness = Freshness(changes, fresh_within_seconds=limits.fresh_within_seconds, monotonic=monotonic)
        self._freshness.watch(self)
        _changes.watch(self)

    async def is_usable(self) -> bool:
        """Return whether the cache may be used now: the changes were read, or are read here."""
        return await self._freshness.is_usable()

    def get(self, raw: str, key_id: str, now: float) -> StoredKey | None:
        """Return a key that was cached; ``None`` where it is unknown or too old, also when the clock was set back."""
        found = self._keys.get(key_id)
        if found is None or not compare_digest(found[0], _digest(raw)):
            return None
        return found[2] if 0 <= now - found[1] < self._ttl_seconds else None

    def put(self, raw: str, key: StoredKey, *, loaded_at: float, revision: int) -> None:
        """Cache a key, unless any key was changed in this process since ``revision``, before it was looked up.

        Args:
            raw: Its text.
            key: The key.
            loaded_at: When it was looked up, in seconds since the epoch.
            revision: ``revision()`` before that.
        """
        entry = (_digest(raw), loaded_at, key)
        _changes.unless_changed(key.key_id, revision, lambda: self._keys.put(key.key_id, entry))

    def forget(self, keys: Iterable[str] | None) -> None:
        """Drop keys that another process changed, or all where ``None``, also from look-ups that are in flight."""
        if keys is None:
            self._keys.clear()
        forget(keys or ())

    def drop(self, key_id: str) -> None:
        """Drop a key that was changed."""
        self._keys.pop(key_id)


class _Changes:
    """The changes to keys that this process made: a look-up that was under way may have read the key before.

    Each change has a number. A key whose look-up began before the last change is not cached. A change in a transaction
    of the caller counts from its end on, so until then the key is not cached at all.
    """

    def __init__(self) -> None:
        self._caches: WeakSet[KeyCache] = WeakSet()
        self._lock = Lock()
        self._open: dict[str, Callable[[], bool]] = {}
        self.revision = 0

    def watch(self, cache: KeyCache) -> None:
        with self._lock:
            self._caches.add(cache)

    def add(self, key_ids: Iterable[str], is_open: Callable[[], bool] | None) -> None:
        with self._lock:
            self.revision += 1
            self._open = {key_id: still for key_id, still in self._open.items() if still()}
            for key_id in key_ids:
                if is_open is not None:
                    self._open[key_id] = is_open
                for cache in self._caches:
                    cache.drop(key_id)

    def unless_changed(self, key_id: str, revision: int, put: Callable[[], None]) -> None:
        with self._lock:
            is_open = self._open.get(key_id)
            if is_open is not None and not is_open():
                # The transaction has ended: what a look-up reads from here on is its outcome.
                del self._open[key_id]
                self.revision += 1
            elif is_open is None and revision == self.revision:
                put()


_changes = _Changes()


def revision() -> int:
    """Return the number of the last change to keys in this process, for ``KeyCache.put``."""
    return _changes.revision


def forget(key_ids: Iterable[str], is_open: Callable[[], bool] | None = None) -> None:
    """Drop keys that were changed from every cache of this process.

    Args:
        key_ids: Their ids.
        is_open: Returns whether the transaction that changes them is still open; until it has ended, the keys are not
            cached. ``None`` where it has ended.
    """
    _changes.add(key_ids, is_open)


def _digest(raw: str) -> bytes:
    # Not the text itself: a dump of the memory should have as few keys in it as possible.
    return sha256(raw.encode("ascii")).digest()
