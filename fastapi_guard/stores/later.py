"""Writes that may wait: collected by key, and written together one to two seconds later, after the responses.

For moments of last use. No request waits for them, no write begins within a second of the request that it is for, and
what is lost with a crash is those two seconds.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, Protocol, TypeVar, runtime_checkable

from fastapi_guard.stores.forks import reset_after_fork
from fastapi_guard.stores.protocol import Record, Store

KeyT = TypeVar("KeyT")
ItemT = TypeVar("ItemT")

logger: logging.Logger = logging.getLogger("fastapi_guard")

_DELAY_SECONDS: Final = 1.0
_PATIENCE_SECONDS: Final = 0.25
_MOST: Final = 10_000


class LaterWrites(Generic[KeyT, ItemT]):
    """Writes items in batches, one batch at a time; the newest item of a key counts."""

    def __init__(
        self, write: Callable[[dict[KeyT, ItemT]], Awaitable[object]], *, delay_seconds: float = _DELAY_SECONDS
    ) -> None:
        """Write each item with ``write``, after ``delay_seconds`` and before twice that time.

        A batch that fails is logged and dropped.
        """
        self._write = write
        self._delay_seconds = delay_seconds
        # The next batch, and the items that came too late for it.
        self._batch: dict[KeyT, ItemT] = {}
        self._items: dict[KeyT, ItemT] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        reset_after_fork(self)

    def put(self, key: KeyT, item: ItemT) -> None:
        """Write ``item`` later, from the event loop that runs, unless an item of its key is in the next batch.

        Beyond 10,000 keys new ones are dropped.
        """
        if key in self._batch:
            return
        if key in self._items or len(self._batch) + len(self._items) < _MOST:
            self._items[key] = item
            self._schedule()

    async def put_now(self, key: KeyT, item: ItemT) -> None:
        """Write ``item`` without the delay, unless a batch is being written; wait for a quarter of a second at most."""
        self.put(key, item)
        task = self._task
        if task is None:
            self._fill_batch()
            task = self._start()
        if task.get_loop() is asyncio.get_running_loop():
            await asyncio.wait((task,), timeout=_PATIENCE_SECONDS)

    async def aclose(self) -> None:
        """Write what waits, at the end of the application."""
        loop = asyncio.get_running_loop()
        while True:
            task = self._task
            if task is None or task.get_loop() is not loop:
                self._fill_batch()
                if not self._batch:
                    break
                task = self._start()
            await asyncio.wait([task])

    def after_fork(self) -> None:
        """Leave what waits to the parent process, which writes it."""
        self._batch, self._items = {}, {}
        self._timer = self._loop = self._task = None

    def _schedule(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is not None and not self._loop.is_closed():
            return
        self._loop = loop
        self._timer = loop.call_later(self._delay_seconds, self._turn)

    def _turn(self) -> None:
        if self._batch:
            self._start()
            return
        self._fill_batch()
        self._timer = asyncio.get_running_loop().call_later(self._delay_seconds, self._turn)

    def _fill_batch(self) -> None:
        self._batch, self._items = {**self._batch, **self._items}, {}

    def _start(self) -> asyncio.Task[None]:
        if self._timer is not None:
            self._timer.cancel()
        self._loop = loop = asyncio.get_running_loop()
        self._timer, self._task = None, loop.create_task(self._flush())
        return self._task

    async def _flush(self) -> None:
        items, self._batch = self._batch, {}
        # What has waited since the last turn is old enough at the next one.
        self._fill_batch()
        try:
            await self._write(items)
        except asyncio.CancelledError:
            # The event loop ends: another one may write them.
            self._batch = {**items, **self._batch}
            raise
        except Exception as error:  # noqa: BLE001 - it must not end with an exception that no code retrieves
            logger.warning("%d moments of last use could not be written: %s", len(items), type(error).__name__)
        finally:
            self._task = self._loop = None
            if self._batch or self._items:
                self._schedule()


@runtime_checkable
class ReplacesTogether(Protocol):
    """A store that replaces several records in one round trip."""

    async def replace_all(self, changes: Sequence[tuple[Record, Record]]) -> None:
        """Replace each first record by the second, where the value under the key is still that of the first.

        Neither the caches of other processes nor the caller learn of it.
        """
        ...  # pragma: no cover


class LaterReplacements:
    """Replacements of records that may wait, such as the moment at which a session was last used."""

    def __init__(self, store: Store, *, delay_seconds: float = _DELAY_SECONDS) -> None:
        """Replace records in ``store``, after ``delay_seconds`` and before twice that time."""
        self._store = store
        self._writes: LaterWrites[str, tuple[Record, Record]] = LaterWrites(self._replace, delay_seconds=delay_seconds)

    def replace(self, expected: Record, new: Record) -> None:
        """Replace the record under the key of ``expected`` later, if its value is still that of ``expected`` then."""
        self._writes.put(expected.key, (expected, new))

    async def replace_now(self, expected: Record, new: Record) -> None:
        """Replace a record that is about to expire, without the delay; a lock is waited for a moment at most."""
        await self._writes.put_now(expected.key, (expected, new))

    async def aclose(self) -> None:
        """Replace what waits, at the end of the application."""
        await self._writes.aclose()

    async def _replace(self, changes: dict[str, tuple[Record, Record]]) -> None:
        if isinstance(self._store, ReplacesTogether):
            await self._store.replace_all(list(changes.values()))
            return
        for key, (expected, new) in changes.items():
            await self._store.replace(key, expected, new)
