"""Verified keys for a short while, so that a busy one is not looked up for every request."""

from collections.abc import Iterable
from hashlib import sha256
from threading import Lock
from typing import Any, NamedTuple
from weakref import WeakSet

from fastapi_guard.exceptions import ConfigurationError

# What a key is forgotten by: a revocation in this process reaches every cache of it, whoever revokes.
_caches: "WeakSet[KeyCache]" = WeakSet()
_lock = Lock()


class VerifiedKey(NamedTuple):
    """A key that held.

    Attributes:
        key_id: Its id.
        claims: What the key says; handed out as a copy.
        expires_at: Seconds since the epoch, ``None`` for never.
        loaded_at: When it was read from the database, likewise.
        used_at: When it had last been used then, likewise, ``None`` for never.
    """

    key_id: str
    claims: dict[str, Any]
    expires_at: float | None
    loaded_at: float
    used_at: float | None = None


class KeyCache:
    """At most ``size`` keys, each for ``ttl_seconds``. Only keys that held are in it."""

    def __init__(self, ttl_seconds: float, size: int) -> None:
        """Start empty.

        Raises:
            ConfigurationError: There is no room for a key.
        """
        if size < 1:
            msg = f"cache_size is at least 1, not {size}: leave out cache_ttl for no cache"
            raise ConfigurationError(msg)
        self._ttl_seconds = ttl_seconds
        self._size = size
        self._keys: dict[bytes, VerifiedKey] = {}
        self._digests: dict[str, bytes] = {}
        # Ids that were revoked or rotated here. A look-up that was under way may still bring what the key was before.
        self._barred: dict[str, None] = {}
        with _lock:
            _caches.add(self)

    def get(self, raw: str, now: float) -> VerifiedKey | None:
        """Return what is known of a key; ``None`` where it has to be asked for, also when the clock was set back."""
        found = self._keys.get(_digest(raw))
        if found is None or not 0 <= now - found.loaded_at < self._ttl_seconds:
            return None
        return found

    def put(self, raw: str, key: VerifiedKey) -> None:
        """Keep a key that held."""
        digest = _digest(raw)
        with _lock:
            if key.key_id not in self._barred:
                self._keys.pop(digest, None)
                self._keys[digest] = key
                self._digests[key.key_id] = digest
                if len(self._keys) > self._size:
                    # Each stays for the same while, so that the first is the nearest to its end.
                    oldest = self._keys.pop(next(iter(self._keys)))
                    del self._digests[oldest.key_id]

    def _bar(self, key_id: str) -> None:
        self._barred[key_id] = None
        if len(self._barred) > self._size:
            del self._barred[next(iter(self._barred))]
        digest = self._digests.pop(key_id, None)
        if digest is not None:
            del self._keys[digest]


def forget(key_ids: Iterable[str]) -> None:
    """Drop keys from every cache of this process, and never take them in again."""
    with _lock:
        for cache in list(_caches):
            for key_id in key_ids:
                cache._bar(key_id)  # noqa: SLF001 - of this module


def _digest(raw: str) -> bytes:
    # Not the text itself: a dump of the memory should hold as few keys as can be.
    return sha256(raw.encode("ascii")).digest()
