"""Count the requests with a key, for its rate and its quota: once for all workers, in a Store.

The counts of a key are one record, which is changed by compare-and-swap. Requests with one key that arrive while its
record is read or written are counted together in the next round, so that a worker has one round under way a key.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from fastapi_guard.api_key.limits import Counts, Limits, LimitState, header_fields, retry_after
from fastapi_guard.exceptions import TOO_MANY_REQUESTS, ServiceUnavailable, TooManyRequests
from fastapi_guard.stores.protocol import Record, Store
from fastapi_guard.stores.shared import give_up, own

QUOTA_SPENT: Final = "The quota of the API key is used up"
_KEY: Final = "key-usage:"
# Each round that fails has been won by another worker.
_MAX_ROUNDS: Final = 200


@dataclass(slots=True)
class _Group:
    """The requests with one key that wait to be counted, and what counts them."""

    limits: Limits
    waiting: list[asyncio.Future[list[LimitState]]] = field(default_factory=list)
    task: asyncio.Task[None] | None = None


class KeyUsage:
    """Counts requests in a store."""

    def __init__(self, store: Store, clock: Callable[[], float], *, timeout_seconds: float | None = None) -> None:
        """Count in ``store`` by ``clock``, in seconds since the epoch.

        Args:
            store: Where requests are counted.
            clock: Seconds since the epoch.
            timeout_seconds: The longest time that a request waits; ``None`` for no limit. The round under way goes on,
                so that a store that does not respond has one for each key.
        """
        self._store = store
        self._clock = clock
        self._timeout_seconds = timeout_seconds
        self._groups: dict[tuple[asyncio.AbstractEventLoop, str], _Group] = {}

    async def spend(self, usage_id: str, limits: Limits) -> list[LimitState]:
        """Count one request; return the limits after it.

        Raises:
            TooManyRequests: A limit is reached; the answer has Retry-After and the RateLimit fields. It is not counted.
            ServiceUnavailable: The store cannot be reached, or took too long.
        """
        loop = asyncio.get_running_loop()
        group = self._groups.setdefault((loop, usage_id), _Group(limits))
        group.limits = limits
        future: asyncio.Future[list[LimitState]] = loop.create_future()
        group.waiting.append(future)
        if group.task is None:
            group.task = loop.create_task(self._count((loop, usage_id), group))
        if self._timeout_seconds is None:
            return await future
        timer = loop.call_later(self._timeout_seconds, _give_up, group, future)
        try:
            return await future
        finally:
            timer.cancel()

    async def states(self, usage_id: str, limits: Limits) -> list[LimitState]:
        """Return the limits as they are, without counting a request.

        Raises:
            ServiceUnavailable: The store cannot be reached.
        """
        [record] = await self._store.get(_KEY + usage_id)
        return _spend(record, limits, 0, self._clock()).states

    async def refill(self, usage_id: str) -> None:
        """Forget what was counted for a key.

        Raises:
            ServiceUnavailable: The store cannot be reached.
        """
        await self._store.delete(_KEY + usage_id)

    async def _count(self, place: tuple[asyncio.AbstractEventLoop, str], group: _Group) -> None:
        batch: list[asyncio.Future[list[LimitState]]] = []
        try:
            while group.waiting:
                # A request that was cancelled while it waited is not counted.
                batch = [future for future in group.waiting if not future.done()]
                group.waiting.clear()
                try:
                    await self._count_batch(_KEY + place[1], batch, group.limits)
                except Exception as error:  # noqa: BLE001 - it reaches each request
                    for future in batch:
                        if not future.done():
                            future.set_exception(own(error))
        finally:
            # Nothing is awaited between the last look at the list and this. Where the loop ends, so do the requests.
            del self._groups[place]
            for future in (*batch, *group.waiting):
                future.cancel()

    async def _count_batch(self, key: str, batch: list[asyncio.Future[list[LimitState]]], limits: Limits) -> None:
        for _ in range(_MAX_ROUNDS):
            [record] = await self._store.get(key)
            now = self._clock()
            counts, granted, states = _spend(record, limits, len(batch), now)
            if granted:
                new = Record(key, counts.encode(), None, counts.expires_at(limits, now))
                written = await self._store.add(new) if record is None else await self._store.replace(key, record, new)
                if not written:
                    continue
            _answer(batch, granted, states)
            return
        raise ServiceUnavailable(reason="usage_contended")


def _give_up(group: _Group, future: asyncio.Future[list[LimitState]]) -> None:
    give_up(future)
    if future in group.waiting:
        group.waiting.remove(future)


class _Spent(NamedTuple):
    """The requests that were counted for a key, how many of the new ones are allowed, and the limits after them."""

    counts: Counts
    granted: int
    states: list[LimitState]


def _spend(record: Record | None, limits: Limits, wanted: int, now: float) -> _Spent:
    counts = Counts() if record is None else Counts.decode(record.value)
    granted = counts.spend(limits, wanted, now)
    return _Spent(counts, granted, counts.states(limits, now))


def _answer(batch: list[asyncio.Future[list[LimitState]]], granted: int, states: list[LimitState]) -> None:
    for number, future in enumerate(batch):
        # One that was cancelled meanwhile has been counted.
        if not future.done():
            if number < granted:
                future.set_result(states)
            else:
                future.set_exception(_refusal(states))


def _refusal(states: list[LimitState]) -> TooManyRequests:
    is_quota = any(state.name == "quota" and not state.remaining for state in states)
    return TooManyRequests(
        QUOTA_SPENT if is_quota else TOO_MANY_REQUESTS,
        retry_after=retry_after(states),
        reason="quota" if is_quota else "rate",
        headers=header_fields(states),
    )
