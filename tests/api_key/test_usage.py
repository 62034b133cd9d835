"""The counting of requests, on every store."""

import asyncio
from typing import Any

import pytest

from fastapi_guard import ServiceUnavailable, TooManyRequests
from fastapi_guard.api_key.limits import Limits, LimitState, parse_rate
from fastapi_guard.api_key.usage import KeyUsage
from fastapi_guard.stores import MemoryStore, Record, Store
from support.clock import Clock


def outcomes(results: list[Any]) -> tuple[int, int]:
    """Return how many requests were counted and how many refused, of which nothing else may come."""
    counted = [result for result in results if isinstance(result, list)]
    refused = [result for result in results if isinstance(result, TooManyRequests)]
    assert len(counted) + len(refused) == len(results), results
    return len(counted), len(refused)


async def test_a_quota_of_one_raced(store: Store, clock: Clock) -> None:
    """Of 100 requests at once by four workers one passes, on every store."""
    workers = [KeyUsage(store, clock) for _ in range(4)]
    limits = Limits(quota=1)
    results = await asyncio.gather(
        *(workers[number % 4].spend("key", limits) for number in range(100)), return_exceptions=True
    )
    assert outcomes(results) == (1, 99)


async def test_a_rate_on_every_store(store: Store, clock: Clock) -> None:
    """A rate allows its number of requests in a window; the refusal has the time of the next."""
    usage, limits = KeyUsage(store, clock), Limits(rates=parse_rate("5/minute"))
    assert await usage.states("key", limits) == [LimitState("rate", 5, 60, 5, 60)]
    for number in range(5):
        assert await usage.spend("key", limits) == [LimitState("rate", 5, 60, 4 - number, 60.0 - number)]
        clock.move(1)
    with pytest.raises(TooManyRequests) as refusal:
        await usage.spend("key", limits)
    assert (refusal.value.detail, refusal.value.reason) == ("Too many requests", "rate")
    assert refusal.value.headers == {
        "Retry-After": "55",
        "RateLimit-Policy": '"rate";q=5;w=60',
        "RateLimit": '"rate";r=0;t=55',
    }
    # Another key has its own counts, and a refused request is not counted.
    assert await usage.spend("other", limits)
    clock.move(55)
    assert await usage.spend("key", limits)
    assert (await usage.states("key", limits))[0].remaining == 0


async def test_a_quota_that_is_refilled(store: Store, clock: Clock) -> None:
    """A quota is full again in its next period, or when an operator refills it."""
    usage, limits = KeyUsage(store, clock), Limits(quota=2, quota_seconds=3600)
    for _ in range(2):
        await usage.spend("key", limits)
    with pytest.raises(TooManyRequests) as refusal:
        await usage.spend("key", limits)
    assert (refusal.value.detail, refusal.value.reason) == ("The quota of the API key is used up", "quota")
    assert refusal.value.headers["Retry-After"] == "3600"
    await usage.refill("key")
    assert [state.remaining for state in await usage.spend("key", limits)] == [1]
    await usage.spend("key", limits)
    clock.move(3600)
    assert (await usage.states("key", limits))[0].remaining == 2
    assert await usage.spend("key", limits)


class CountingStore(MemoryStore):
    """A store that counts its calls, and lets a test hold them up."""

    def __init__(self, clock: Clock) -> None:
        """Start with nothing counted, and nothing held up."""
        super().__init__(clock=clock)
        self.calls: list[str] = []
        self.free = asyncio.Event()
        self.free.set()

    async def get(self, *keys: str) -> list[Record | None]:
        """Count, and wait."""
        self.calls.append("get")
        await self.free.wait()
        return await super().get(*keys)

    async def replace(self, key: str, expected: Record, new: Record) -> bool:
        """Count."""
        self.calls.append("replace")
        return await super().replace(key, expected, new)


async def test_requests_at_once_share_a_round(clock: Clock) -> None:
    """Requests that arrive while a round is under way are counted together in the next."""
    store = CountingStore(clock)
    usage, limits = KeyUsage(store, clock), Limits(quota=1000)
    await usage.spend("key", limits)
    store.free.clear()
    first = asyncio.ensure_future(usage.spend("key", limits))
    await asyncio.sleep(0)
    others = [asyncio.ensure_future(usage.spend("key", limits)) for _ in range(50)]
    await asyncio.sleep(0)
    store.free.set()
    await asyncio.gather(first, *others)
    assert store.calls == ["get", "get", "replace", "get", "replace"]
    assert (await usage.states("key", limits))[0].remaining == 1000 - 52


async def test_a_request_that_is_cancelled(clock: Clock) -> None:
    """A request that is cancelled while it waits is not counted, one that is cancelled later is, as are the others."""
    store = CountingStore(clock)
    usage, limits = KeyUsage(store, clock), Limits(quota=2)
    store.free.clear()
    under_way = asyncio.ensure_future(usage.spend("key", limits))
    await asyncio.sleep(0)
    waiting = asyncio.ensure_future(usage.spend("key", limits))
    third = asyncio.ensure_future(usage.spend("key", limits))
    await asyncio.sleep(0)
    under_way.cancel()
    waiting.cancel()
    await asyncio.sleep(0)
    store.free.set()
    assert [state.remaining for state in await third] == [0]
    with pytest.raises(TooManyRequests):
        await usage.spend("key", limits)


async def test_new_limits_count_at_once(clock: Clock) -> None:
    """A request is counted by the limits that its key has now, also while others of the key are under way."""
    store = CountingStore(clock)
    usage = KeyUsage(store, clock)
    store.free.clear()
    first = asyncio.ensure_future(usage.spend("key", Limits(quota=5)))
    await asyncio.sleep(0)
    second = asyncio.ensure_future(usage.spend("key", Limits(quota=1)))
    await asyncio.sleep(0)
    store.free.set()
    assert await first
    with pytest.raises(TooManyRequests):
        await second


class BrokenStore(MemoryStore):
    """A store that cannot be reached, or where another worker is always faster."""

    def __init__(self, clock: Clock, *, reachable: bool) -> None:
        """Fail in one way or the other."""
        super().__init__(clock=clock)
        self._reachable = reachable

    async def get(self, *keys: str) -> list[Record | None]:
        """Fail."""
        if not self._reachable:
            raise ServiceUnavailable(reason="store_unreachable")
        return await super().get(*keys)

    async def add(self, record: Record) -> bool:
        """Lose."""
        return False


@pytest.mark.parametrize(("reachable", "reason"), [(False, "store_unreachable"), (True, "usage_contended")])
async def test_a_store_that_fails(clock: Clock, reachable: bool, reason: str) -> None:
    """Requests that cannot be counted are a 503 each, never a pass."""
    usage = KeyUsage(BrokenStore(clock, reachable=reachable), clock)
    results = await asyncio.gather(*(usage.spend("key", Limits(quota=5)) for _ in range(3)), return_exceptions=True)
    assert [getattr(result, "reason", None) for result in results] == [reason] * 3
    # An error for each: its traceback has nothing of the other requests.
    assert len({id(result) for result in results}) == 3
    assert usage._groups == {}


@pytest.mark.parametrize(
    "value",
    [
        *(b"junk", b"\xff", b"null", b"1", b"{}", b'"abc"', b"[]", b"[[],0]", b"[" * 100_000),
        *(
            b'[[["a",1]],0,0]',
            b'[[[["a",1]]],0,0]',
            b"[[[[NaN,1]]],0,0]",
            b"[[[[1e999,1]]],0,0]",
            b"[[[[true,1]]],0,0]",
        ),
        *(
            b"[[[[1,-9]]],0,0]",
            b"[[[[1,1.5]]],0,0]",
            b"[[[[1,true]]],0,0]",
            b"[[[[1]]],0,0]",
            b"[{},0,0]",
            b"[[{}],0,0]",
        ),
        *(b'[[],"x","y"]', b"[[],-1,0]", b"[[],0,-9]", b"[[],0,NaN]", b"[[],0,1.5]", b"[[],0,true]", b"[[],null,0]"),
    ],
    ids=lambda value: repr(value)[:20],
)
async def test_counts_that_cannot_be_read(clock: Clock, caplog: pytest.LogCaptureFixture, value: bytes) -> None:
    """Requests of a key whose counts were overwritten are a 503 each, until the key is refilled."""
    store, limits = MemoryStore(clock=clock), Limits(rates=parse_rate("5/minute"), quota=5, quota_seconds=60)
    usage = KeyUsage(store, clock)
    await store.add(Record("key-usage:key", value))
    counted = [usage.spend("key", limits), usage.spend("key", limits), usage.states("key", limits)]
    results = await asyncio.gather(*counted, return_exceptions=True)
    assert [getattr(result, "reason", None) for result in results] == ["unreadable_record"] * 3
    assert set(caplog.messages) == {"the record of the usage of an API key cannot be read"}
    await usage.refill("key")
    assert [state.remaining for state in await usage.spend("key", limits)] == [4, 4]


async def test_a_store_that_does_not_respond(clock: Clock) -> None:
    """Requests wait for their timeout, and not for a store that never responds, where one round a key is under way."""
    store = CountingStore(clock)
    usage, limits = KeyUsage(store, clock, timeout_seconds=0.01), Limits(quota=5)
    store.free.clear()
    for _ in range(3):
        counted = [usage.spend("key", limits), usage.spend("key", limits)]
        results = await asyncio.gather(*counted, return_exceptions=True)
        assert [getattr(result, "reason", None) for result in results] == ["timeout"] * 2
    [group] = usage._groups.values()
    assert (group.waiting, store.calls) == ([], ["get"])
    store.free.set()
    assert group.task is not None
    await group.task
    patient = KeyUsage(store, clock, timeout_seconds=60)
    # The two of the round that was under way are counted.
    assert [state.remaining for state in await patient.spend("key", limits)] == [2]


def test_several_event_loops(clock: Clock) -> None:
    """Each event loop counts by itself; one that ends in the middle leaves nothing behind."""
    store = MemoryStore(clock=clock)
    usage, limits = KeyUsage(store, clock), Limits(quota=3)
    asyncio.run(usage.spend("key", limits))
    asyncio.run(usage.spend("key", limits))

    async def end_in_the_middle() -> None:
        stuck = CountingStore(clock)
        stuck.free.clear()
        usage._store = stuck
        under_way = [asyncio.ensure_future(usage.spend("key", limits)) for _ in range(2)]
        await asyncio.sleep(0)
        assert not any(request.done() for request in under_way)

    asyncio.run(end_in_the_middle())
    assert usage._groups == {}
    usage._store = store
    assert [state.remaining for state in asyncio.run(usage.spend("key", limits))] == [0]


async def test_a_request_that_is_cancelled_while_the_store_fails(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others get the error, and the cancelled one stays cancelled."""
    usage, limits = KeyUsage(MemoryStore(clock=clock), clock), Limits(quota=5)
    waiting = [asyncio.create_task(usage.spend("key", limits)) for _ in range(2)]

    async def fail(_: str, batch: Any, __: Any) -> None:
        batch[0].cancel()
        raise ServiceUnavailable

    monkeypatch.setattr(usage, "_count_batch", fail)
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(result) for result in results] == [asyncio.CancelledError, ServiceUnavailable]
