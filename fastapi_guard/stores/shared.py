"""Reads that share a round trip: keys that are requested during a read go together in the next one.

It is group commit for reads. A read never starts before the request that it serves, so that no answer is older than
its request; there is no delay, no cache, and nothing runs while no request waits.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from contextvars import Context
from typing import Any, Final, Generic, TypeVar
from weakref import WeakKeyDictionary, ref

from fastapi_guard.exceptions import ServiceUnavailable

KeyT = TypeVar("KeyT", bound=Hashable)
ValueT = TypeVar("ValueT")

MAX_KEYS: Final = 100


class SharedReads(Generic[KeyT, ValueT]):
    """Read values by key, one read at a time in each event loop.

    A request waits for the read in flight and then for its own: two at most, unless more than ``MAX_KEYS`` keys wait.
    """

    def __init__(
        self,
        read: Callable[[list[KeyT]], Awaitable[Mapping[KeyT, ValueT]]],
        *,
        timeout_seconds: float | None = None,
    ) -> None:
        """Read with ``read``.

        Args:
            read: Returns the values of distinct keys, at most ``MAX_KEYS``; a key without a value may be left out. It
                has to end by itself, also where the other side does not respond.
            timeout_seconds: The longest time that a request waits, for all reads together; ``None`` for no limit.
        """
        self._read = read
        self._timeout_seconds = timeout_seconds
        self._lines: WeakKeyDictionary[asyncio.AbstractEventLoop, _Line[KeyT, ValueT]] = WeakKeyDictionary()
        self._latest: _Line[KeyT, ValueT] | None = None

    async def get(self, keys: Sequence[KeyT]) -> Mapping[KeyT, ValueT]:
        """Return values by key; the mapping may contain more than the keys that were requested.

        Raises:
            ServiceUnavailable: The read failed with it, or took too long.
            Exception: What the read of these keys raised. The keys of other requests are read without them.
        """
        if len(keys) <= MAX_KEYS:
            return await self._get(keys)
        parts = [keys[start : start + MAX_KEYS] for start in range(0, len(keys), MAX_KEYS)]
        found: dict[KeyT, ValueT] = {}
        for part in parts:
            found.update(await self._get(part))
        return found

    async def _get(self, keys: Sequence[KeyT]) -> Mapping[KeyT, ValueT]:
        loop = asyncio.get_running_loop()
        line = self._latest
        if line is None or line.loop() is not loop:
            line = self._latest = self._lines.setdefault(loop, _Line(loop))
        future: asyncio.Future[Mapping[KeyT, ValueT]] = loop.create_future()
        line.waiting.append((future, keys))
        if line.task is None:
            # In a context of its own: the read serves other requests too.
            line.task = loop.create_task(self._serve(line), context=Context())
        if self._timeout_seconds is None:
            return await future
        timer = loop.call_later(self._timeout_seconds, line.give_up, future)
        try:
            return await future
        finally:
            timer.cancel()

    async def _serve(self, line: "_Line[KeyT, ValueT]") -> None:
        batch: list[_Waiter[KeyT, ValueT]] = []
        try:
            while batch := line.next_batch():
                await self._read_together(batch)
        finally:
            line.task = None
            if batch or line.waiting:
                # Left over where the loop cancels its tasks at its end.
                _fail([*batch, *line.waiting], ServiceUnavailable(reason="shut_down"))
                line.waiting.clear()

    async def _read_together(self, batch: "list[_Waiter[KeyT, ValueT]]") -> None:
        try:
            found = await self._read(list({key: None for _, keys in batch for key in keys}))
        except Exception as error:  # noqa: BLE001 - it is raised to each request
            if len(batch) == 1 or isinstance(error, ServiceUnavailable):
                _fail(batch, error)
            else:
                # One key has a value that cannot be read: the others are not to suffer for it.
                middle = len(batch) // 2
                await self._read_together(batch[:middle])
                await self._read_together(batch[middle:])
        else:
            for future, _ in batch:
                if not future.done():
                    future.set_result(found)


_Waiter = tuple[asyncio.Future[Mapping[KeyT, ValueT]], Sequence[KeyT]]


class _Line(Generic[KeyT, ValueT]):
    """The requests that wait in one event loop."""

    __slots__ = ("loop", "task", "waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        # Weak: the line is the value of its loop in a WeakKeyDictionary.
        self.loop = ref(loop)
        self.waiting: deque[_Waiter[KeyT, ValueT]] = deque()
        self.task: asyncio.Task[None] | None = None

    def give_up(self, future: asyncio.Future[Any]) -> None:
        """Refuse the request that waits for a future; forget those before it that wait no longer."""
        give_up(future)
        # A read that hangs in a thread would collect them.
        while self.waiting and self.waiting[0][0].done():
            self.waiting.popleft()

    def next_batch(self) -> list[_Waiter[KeyT, ValueT]]:
        """Remove and return the requests of the next read, in order: at most ``MAX_KEYS`` keys, none cancelled."""
        batch: list[_Waiter[KeyT, ValueT]] = []
        keys: set[KeyT] = set()
        while self.waiting:
            future, wanted = self.waiting[0]
            if not future.done():
                if batch and len(keys.union(wanted)) > MAX_KEYS:
                    break
                keys.update(wanted)
                batch.append((future, wanted))
            self.waiting.popleft()
        return batch


def give_up(future: asyncio.Future[Any]) -> None:
    """Refuse the request that waits for a future with a 503, unless it has its result."""
    if not future.done():
        future.set_exception(ServiceUnavailable(reason="timeout"))


def _fail(batch: Sequence[_Waiter[Any, Any]], error: Exception) -> None:
    for future, _ in batch:
        if not future.done():
            future.set_exception(own(error))


def own(error: Exception) -> Exception:
    """Return an error for one of several requests that share a failure.

    The traceback of an error grows where it is raised, and its challenge is set where it is caught.
    """
    if not isinstance(error, ServiceUnavailable):
        return error
    copied = ServiceUnavailable(reason=error.reason, headers=error.headers)
    copied.__cause__ = error.__cause__
    return copied
