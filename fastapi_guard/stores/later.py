"""Writes that may wait: collected by key, and written together about a second later, after the responses.

For moments of last use. No request waits for them, and what is lost with a crash is that second.
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
_MOST: Final = 10_000


class LaterWrites(Generic[KeyT, ItemT]):
    """Writes items in batches, one batch at a time; the newest item of a key counts."""

    def __init__(
        self, write: Callable[[dict[KeyT, ItemT]], Awaitable[object]], *, delay_seconds: float = _DELAY_SECONDS
    ) -> None:
        """Write with ``write``, ``delay_seconds`` after the first item of a batch.

        A batch that fails is logged and dropped.
        """
        self._write = write
        self._delay_seconds = delay_seconds
        self._items: dict[KeyT, ItemT] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        reset_after_fork(self)

    def put(self, key: KeyT, item: ItemT) -> None:
        """Write ``item`` later, from the event loop that runs. Beyond 10,000 keys new ones are dropped."""
        if key in self._items or len(self._items) < _MOST:
            self._items[key] = item
            self._schedule()

    async def aclose(self) -> None:
        """Write what waits, at the end of the application."""
        loop = asyncio.get_running_loop()
        while True:
            task = self._task
            if task is None or task.get_loop() is not loop:
                if not self._items:
                    break
                task = self._start()
            await asyncio.wait([task])

    def after_fork(self) -> None:
        """Leave what waits to the parent process, which writes it."""
        self._items = {}
        self._timer = self._loop = self._task = None

    def _schedule(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is not None and not self._loop.is_closed():
            return
        self._loop = loop
        self._timer = loop.call_later(self._delay_seconds, self._start)

    def _start(self) -> asyncio.Task[None]:
        if self._timer is not None:
            self._timer.cancel()
        self._loop = loop = asyncio.get_running_loop()
        self._timer, self._task = None, loop.create_task(self._flush())
        return self._task

    async def _flush(self) -> None:
        items, self._items = self._items, {}
        try:
            await self._write(items)
        except asyncio.CancelledError:
            # The event loop ends: another one may write them.
            self._items = {**items, **self._items}
            raise
        except Exception as error:  # noqa: BLE001 - it must not end with an exception that no code retrieves
            logger.warning("%d moments of last use could not be written: %s", len(items), type(error).__name__)
        finally:
            self._task = self._loop = None
            if self._items:
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
        """Replace records in ``store``, ``delay_seconds`` after the first of a batch."""
        self._store = store
        self._writes: LaterWrites[str, tuple[Record, Record]] = LaterWrites(self._replace, delay_seconds=delay_seconds)

    def replace(self, expected: Record, new: Record) -> None:
        """Replace the record under the key of ``expected`` later, if its value is still that of ``expected`` then."""
        self._writes.put(expected.key, (expected, new))

    async def aclose(self) -> None:
        """Replace what waits, at the end of the application."""
        await self._writes.aclose()

    async def _replace(self, changes: dict[str, tuple[Record, Record]]) -> None:
        if isinstance(self._store, ReplacesTogether):
            await self._store.replace_all(list(changes.values()))
            return
        for key, (expected, new) in changes.items():
            await self._store.replace(key, expected, new)
