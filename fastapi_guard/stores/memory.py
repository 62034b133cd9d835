"""The embedded default: one process, gone with it."""

import time
from collections.abc import Callable
from heapq import heappop, heappush

from fastapi_guard.stores.protocol import Record


class MemoryStore:
    """Records in this process. For one worker, and for tests; see the page on scaling for more.

    Expired records are dropped as records are added, so that memory is bounded by what is alive.
    """

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        """Tell the time by ``clock``, in seconds since the epoch."""
        self._clock = clock
        self._records: dict[str, Record] = {}
        self._owned: dict[str, set[str]] = {}
        self._expiries: list[tuple[float, str]] = []

    async def get(self, *keys: str) -> list[Record | None]:
        """Return the records under ``keys``, in that order, ``None`` where there is none or it has expired."""
        return [self._alive(key) for key in keys]

    async def add(self, record: Record) -> bool:
        """Put ``record`` in unless its key is taken; return whether it was put in."""
        self._prune()
        if self._alive(record.key) is not None:
            return False
        self._put(record)
        return True

    async def replace(self, key: str, expected: Record, new: Record) -> bool:
        """Put ``new`` in place of the record under ``key`` if that still holds the value of ``expected``."""
        current = self._alive(key)
        if current is None or current.value != expected.value:
            return False
        self._drop(key)
        self._put(new)
        return True

    async def delete(self, key: str) -> bool:
        """Remove the record under ``key``; of several callers one is told ``True``."""
        found = self._alive(key) is not None
        self._drop(key)
        return found

    async def find(self, owner: str) -> list[Record]:
        """Return the records of ``owner`` that have not expired, in no order."""
        alive = [self._alive(key) for key in self._owned.get(owner, ())]
        return [record for record in alive if record is not None]

    def _alive(self, key: str) -> Record | None:
        record = self._records.get(key)
        if record is None or (record.expires_at is not None and record.expires_at <= self._clock()):
            return None
        return record

    def _put(self, record: Record) -> None:
        self._drop(record.key)
        self._records[record.key] = record
        if record.owner is not None:
            self._owned.setdefault(record.owner, set()).add(record.key)
        if record.expires_at is not None:
            heappush(self._expiries, (record.expires_at, record.key))

    def _drop(self, key: str) -> None:
        record = self._records.pop(key, None)
        if record is not None and record.owner is not None:
            keys = self._owned[record.owner]
            keys.discard(key)
            if not keys:
                del self._owned[record.owner]

    def _prune(self) -> None:
        # A replaced record leaves its old expiry behind; it goes when its time comes, and drops nothing alive.
        now = self._clock()
        while self._expiries and self._expiries[0][0] <= now:
            _, key = heappop(self._expiries)
            if self._alive(key) is None:
                self._drop(key)
