"""MemoryStore: records in the memory of one process."""

import time
from collections.abc import Callable, Sequence
from heapq import heapify, heappop, heappush
from threading import Lock
from typing import Final

from fastapi_guard.stores.arguments import clock_of
from fastapi_guard.stores.changes import NoOtherProcess, changed_here
from fastapi_guard.stores.forks import reset_after_fork
from fastapi_guard.stores.protocol import KEPT_AFTER_EXPIRY_SECONDS, Record

# The number of expiries without a record that may pile up before they are swept out.
_STALE_EXPIRIES: Final = 1024


class MemoryStore:
    """Records in this process, for one worker and for tests: they are lost when it ends.

    Expired records are dropped when others are added, so that memory is bounded by the records that are alive.
    """

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        """Expire records by ``clock``, in seconds since the epoch."""
        self._clock = clock_of(clock)
        self._lock = Lock()  # a process may run several event loops
        self._records: dict[str, Record] = {}
        self._owned: dict[str, set[str]] = {}
        self._expiries: list[tuple[float, str]] = []
        reset_after_fork(self)

    async def get(self, *keys: str) -> list[Record | None]:
        """Return the records under ``keys``, in that order, ``None`` where there is none or it has expired."""
        now = self._clock()
        found = [self._records.get(key) for key in keys]
        return [record if record is not None and record.is_alive(now) else None for record in found]

    async def add(self, record: Record) -> bool:
        """Add ``record`` unless its key is taken; return whether it was added."""
        with self._lock:
            self._prune()
            if self._alive(record.key) is not None:
                return False
            self._put(record)
            return True

    async def replace(self, key: str, expected: Record, new: Record) -> bool:
        """Replace the record under ``key`` by ``new`` if its value is still that of ``expected``."""
        with self._lock:
            current = self._alive(key)
            if current is None or current.value != expected.value:
                return False
            self._put(new)
            return True

    async def delete(self, key: str) -> bool:
        """Remove the record under ``key``; of several callers one gets ``True``."""
        return await self.take(key) is not None

    async def take(self, key: str) -> Record | None:
        """Remove the record under ``key``, and return it; of several callers one gets it."""
        with self._lock:
            found = self._alive(key)
            self._drop(key)
            return found

    async def replace_all(self, changes: Sequence[tuple[Record, Record]]) -> None:
        """Replace each first record by the second, where the value under the key is still that of the first."""
        for expected, new in changes:
            await self.replace(expected.key, expected, new)

    def changes(self) -> NoOtherProcess:
        """Return the changes that other processes make: none, they have stores of their own."""
        return NoOtherProcess()

    async def find(self, owner: str) -> list[Record]:
        """Return the records of ``owner`` that have not expired, in any order."""
        with self._lock:
            alive = [self._alive(key) for key in self._owned.get(owner, ())]
        return [record for record in alive if record is not None]

    def after_fork(self) -> None:
        """Replace the lock, which another thread of the parent process may have held."""
        self._lock = Lock()

    def _alive(self, key: str) -> Record | None:
        record = self._records.get(key)
        return record if record is not None and record.is_alive(self._clock()) else None

    def _put(self, record: Record) -> None:
        self._drop(record.key)
        self._records[record.key] = record
        changed_here(record.key)
        if record.owner is not None:
            self._owned.setdefault(record.owner, set()).add(record.key)
        if record.expires_at is not None:
            heappush(self._expiries, (record.expires_at, record.key))
            # Each replacement leaves an expiry behind, and a session that is used for weeks is replaced every minute.
            if len(self._expiries) > 2 * len(self._records) + _STALE_EXPIRIES:
                alive = self._records.values()
                self._expiries = [(record.expires_at, record.key) for record in alive if record.expires_at is not None]
                heapify(self._expiries)

    def _drop(self, key: str) -> None:
        record = self._records.pop(key, None)
        changed_here(key)
        if record is not None and record.owner is not None:
            keys = self._owned[record.owner]
            keys.discard(key)
            if not keys:
                del self._owned[record.owner]

    def _prune(self) -> None:
        # An expiry whose record was replaced drops nothing: the record has another expiry.
        long_ago = self._clock() - KEPT_AFTER_EXPIRY_SECONDS
        while self._expiries and self._expiries[0][0] <= long_ago:
            _, key = heappop(self._expiries)
            record = self._records.get(key)
            if record is not None and not record.is_alive(long_ago):
                self._drop(key)
