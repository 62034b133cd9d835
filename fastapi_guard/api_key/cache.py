"""Verified keys, cached for a short while, so that a busy key is not looked up for every request."""

from collections.abc import Callable, Iterable
from hashlib import sha256
from hmac import compare_digest
from threading import Lock
from typing import Final, NamedTuple
from weakref import WeakSet

from fastapi_guard.api_key.key import StoredKey
from fastapi_guard.exceptions import ConfigurationError
from fastapi_guard.stores.bounds import BoundedCache

DEFAULT_CACHE_SIZE: Final = 1024


class VerifiedKey(NamedTuple):
    """A key that was valid when it was looked up.

    Attributes:
        key: The key.
        loaded_at: When it was read from the database, in seconds since the epoch.
    """

    key: StoredKey
    loaded_at: float


class KeyCache:
    """At most ``size`` keys, each for ``ttl_seconds``. Only valid keys are in it."""

    def __init__(self, ttl_seconds: float, size: int) -> None:
        """Start empty.

        Raises:
            ConfigurationError: There is no room for a key.
        """
        if size < 1:
            msg = f"cache_size is at least 1, not {size}: leave out cache_ttl for no cache"
            raise ConfigurationError(msg)
        self._ttl_seconds = ttl_seconds
        self._keys: BoundedCache[str, tuple[bytes, VerifiedKey]] = BoundedCache(size)
        _changes.watch(self)

    def get(self, raw: str, key_id: str, now: float) -> VerifiedKey | None:
        """Return a key that was cached; ``None`` where it is unknown or too old, also when the clock was set back."""
        found = self._keys.get(key_id)
        if found is None or not compare_digest(found[0], _digest(raw)):
            return None
        key = found[1]
        return key if 0 <= now - key.loaded_at < self._ttl_seconds else None

    def put(self, raw: str, key: VerifiedKey, revision: int) -> None:
        """Cache a key, unless any key was changed in this process since ``revision``, before it was looked up."""
        key_id, entry = key.key.key_id, (_digest(raw), key)
        _changes.unless_changed(key_id, revision, lambda: self._keys.put(key_id, entry))

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
