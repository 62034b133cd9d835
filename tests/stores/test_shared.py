"""Reads that share a round trip."""

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable, Mapping
from contextvars import ContextVar

import pytest

from fastapi_guard import ServiceUnavailable
from fastapi_guard.stores.shared import MAX_KEYS, SharedReads, give_up


class Source:
    """Values by key, read one batch at a time; the test decides when a read ends."""

    def __init__(self, values: Callable[[str], str] = str.upper) -> None:
        """Read with `values`."""
        self.batches: list[list[str]] = []
        self.may_end = asyncio.Event()
        self.may_end.set()
        self._begins = asyncio.Event()
        self._values = values

    async def read(self, keys: list[str]) -> Mapping[str, str]:
        """Return the values when the test allows it."""
        self.batches.append(keys)
        self._begins.set()
        await self.may_end.wait()
        return {key: self._values(key) for key in keys}

    async def begun(self, batches: int) -> None:
        """Wait until so many reads have begun."""
        while len(self.batches) < batches:
            self._begins.clear()
            await self._begins.wait()


async def test_reads_that_arrive_during_a_read_go_together() -> None:
    """The first read starts at once; all that arrive during it share the next, one key once."""
    source = Source()
    source.may_end.clear()
    reads: SharedReads[str, str] = SharedReads(source.read)
    requests = [asyncio.create_task(reads.get(["first"]))]
    await source.begun(1)
    requests += [asyncio.create_task(reads.get([key])) for key in ("a", "b", "a", "c")]
    await asyncio.sleep(0)
    source.may_end.set()
    found = await asyncio.gather(*requests)
    assert source.batches == [["first"], ["a", "b", "c"]]
    assert [values[key] for values, key in zip(found, ("first", "a", "b", "a", "c"), strict=True)] == [
        "FIRST",
        "A",
        "B",
        "A",
        "C",
    ]


async def test_no_read_begins_before_its_request() -> None:
    """A request never receives a value that was read before it: what changed in the meantime counts."""
    current = {"a": "old"}
    source = Source(lambda key: current[key])
    reads: SharedReads[str, str] = SharedReads(source.read)
    source.may_end.clear()
    first = asyncio.create_task(reads.get(["a"]))
    await source.begun(1)
    current["a"] = "new"
    second = asyncio.create_task(reads.get(["a"]))
    source.may_end.set()
    assert (await second)["a"] == "new"
    await first
    assert source.batches == [["a"], ["a"]]


async def test_a_batch_is_bounded() -> None:
    """A read has at most 100 keys: those who wait longest go first, and one request is never split over two reads."""
    source = Source()
    source.may_end.clear()
    reads: SharedReads[str, str] = SharedReads(source.read)
    requests = [asyncio.create_task(reads.get([f"{number}a", f"{number}b", f"{number}c"])) for number in range(100)]
    await source.begun(1)
    source.may_end.set()
    await asyncio.gather(*requests)
    assert [len(batch) for batch in source.batches] == [99, 99, 99, 3]
    assert source.batches[0][:3] == ["0a", "0b", "0c"]


async def test_many_keys_of_one_request() -> None:
    """A request of more keys than a read may have is read in parts."""
    source = Source()
    reads: SharedReads[str, str] = SharedReads(source.read)
    keys = [f"k{number}" for number in range(2 * MAX_KEYS + 1)]
    assert await reads.get(keys) == {key: key.upper() for key in keys}
    assert [len(batch) for batch in source.batches] == [MAX_KEYS, MAX_KEYS, 1]
    assert await reads.get([]) == {}


async def test_nothing_runs_while_nothing_waits() -> None:
    """There is one task while requests wait, and none afterwards."""
    source = Source()
    source.may_end.clear()
    reads: SharedReads[str, str] = SharedReads(source.read)
    before = asyncio.all_tasks()
    requests = [asyncio.create_task(reads.get([key])) for key in "abc"]
    await source.begun(1)
    assert len(asyncio.all_tasks() - before) == len(requests) + 1
    source.may_end.set()
    await asyncio.gather(*requests)
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before


async def test_a_cancelled_request_disturbs_no_other() -> None:
    """A request that is cancelled ends alone: in the read, and before it, where its key is not read at all."""
    source = Source()
    source.may_end.clear()
    reads: SharedReads[str, str] = SharedReads(source.read)
    requests = [asyncio.create_task(reads.get([key])) for key in "ab"]
    await source.begun(1)
    requests += [asyncio.create_task(reads.get([key])) for key in "cd"]
    await asyncio.sleep(0)
    requests[0].cancel()
    requests[2].cancel()
    await asyncio.wait([requests[0], requests[2]])
    source.may_end.set()
    assert (await requests[1])["b"] == "B"
    assert (await requests[3])["d"] == "D"
    assert requests[0].cancelled()
    assert requests[2].cancelled()
    assert source.batches == [["a", "b"], ["d"]]


async def test_an_error_reaches_every_request() -> None:
    """Each request of a read that failed gets a 503 of its own, and the next read is tried."""
    cause = OSError("gone")

    def fail(_: str) -> str:
        raise ServiceUnavailable(reason="database_unreachable", retry_after=7) from cause

    source = Source(fail)
    reads: SharedReads[str, str] = SharedReads(source.read)
    failures = await asyncio.gather(*(reads.get([key]) for key in "abc"), return_exceptions=True)
    assert [type(failure) for failure in failures] == [ServiceUnavailable] * 3
    assert len({id(failure) for failure in failures}) == 3
    for failure in failures:
        assert isinstance(failure, ServiceUnavailable)
        assert (failure.reason, failure.headers, failure.__cause__) == (
            "database_unreachable",
            {"Retry-After": "7"},
            cause,
        )
    assert len(source.batches) == 1


async def test_a_poisoned_key_fails_alone() -> None:
    """A key whose value cannot be read fails its own request; the others of the batch get their values."""

    def value(key: str) -> str:
        if key == "poisoned":
            msg = "not JSON"
            raise ValueError(msg)
        return key.upper()

    source = Source(value)
    reads: SharedReads[str, str] = SharedReads(source.read)
    keys = [f"k{number}" for number in range(49)] + ["poisoned"] + [f"l{number}" for number in range(50)]
    found = await asyncio.gather(*(reads.get([key]) for key in keys), return_exceptions=True)
    assert [key for key, outcome in zip(keys, found, strict=True) if isinstance(outcome, ValueError)] == ["poisoned"]
    assert sum(isinstance(outcome, dict) for outcome in found) == 99
    # Halved until it was alone.
    assert len(source.batches) <= 2 * 7 + 1


async def test_a_timeout_covers_both_reads() -> None:
    """A request that waited for the timeout is a 503, in the read and before it; others go on afterwards."""
    source = Source()
    source.may_end.clear()
    reads: SharedReads[str, str] = SharedReads(source.read, timeout_seconds=0.01)
    in_flight, waiting = asyncio.create_task(reads.get(["a"])), asyncio.create_task(reads.get(["b"]))
    for request in (in_flight, waiting):
        with pytest.raises(ServiceUnavailable) as refused:
            await request
        assert refused.value.reason == "timeout"
    source.may_end.set()
    patient: SharedReads[str, str] = SharedReads(source.read, timeout_seconds=60)
    assert await patient.get(["c"]) == {"c": "C"}


async def test_requests_that_were_given_up_are_forgotten() -> None:
    """A read that does not end collects no requests."""
    source = Source()
    source.may_end.clear()
    reads: SharedReads[str, str] = SharedReads(source.read, timeout_seconds=0.01)
    for _ in range(3):
        await asyncio.gather(*(reads.get([f"{number}"]) for number in range(50)), return_exceptions=True)
    assert reads._latest is not None
    assert len(reads._latest.waiting) == 0
    source.may_end.set()


async def test_a_timeout_as_the_value_arrives() -> None:
    """A timer that fires when the value is there, and its request has not run yet, changes nothing."""
    future: asyncio.Future[dict[str, str]] = asyncio.get_running_loop().create_future()
    future.set_result({"a": "A"})
    give_up(future)
    assert await future == {"a": "A"}


async def test_a_failure_after_the_request_was_cancelled() -> None:
    """A read that fails when one of its requests was cancelled fails the others alone."""

    def fail(_: str) -> str:
        raise ServiceUnavailable

    source = Source(fail)
    source.may_end.clear()
    reads: SharedReads[str, str] = SharedReads(source.read)
    requests = [asyncio.create_task(reads.get([key])) for key in "ab"]
    await source.begun(1)
    requests[0].cancel()
    await asyncio.wait([requests[0]])
    source.may_end.set()
    with pytest.raises(ServiceUnavailable):
        await requests[1]
    assert requests[0].cancelled()


async def test_a_loop_that_ends_leaves_no_request_waiting() -> None:
    """If the task of the reads is cancelled, as a loop does at its end, each request that waits is a 503."""
    source = Source()
    source.may_end.clear()
    reads: SharedReads[str, str] = SharedReads(source.read)
    before = asyncio.all_tasks()
    requests = [asyncio.create_task(reads.get(["a"]))]
    await source.begun(1)
    requests.append(asyncio.create_task(reads.get(["b"])))
    await asyncio.sleep(0)
    for task in asyncio.all_tasks() - before - set(requests):
        task.cancel()
    failures = await asyncio.gather(*requests, return_exceptions=True)
    assert [getattr(failure, "reason", None) for failure in failures] == ["shut_down"] * 2
    source.may_end.set()
    assert await reads.get(["c"]) == {"c": "C"}


def test_several_event_loops() -> None:
    """Event loops in several threads share nothing, and a loop that was closed is forgotten."""
    read_in: list[tuple[int, list[str]]] = []

    async def read(keys: list[str]) -> Mapping[str, str]:
        read_in.append((id(asyncio.get_running_loop()), keys))
        await asyncio.sleep(0)
        return {key: key.upper() for key in keys}

    reads: SharedReads[str, str] = SharedReads(read)
    loops: list[weakref.ref[asyncio.AbstractEventLoop]] = []
    wrong: list[str] = []

    async def ask(together: threading.Barrier) -> None:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        # All loops are there before the first is closed, so that no two have one identity.
        together.wait()
        for turn in range(20):
            keys = [f"{threading.get_ident()}-{turn}-{number}" for number in range(5)]
            for key, values in zip(keys, await asyncio.gather(*(reads.get([key]) for key in keys)), strict=True):
                if values[key] != key.upper():  # pragma: no cover - then the test fails
                    wrong.append(key)

    both = threading.Barrier(2)
    threads = [threading.Thread(target=lambda: asyncio.run(ask(both))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    by_loop = [{keys[0].partition("-")[0] for loop, keys in read_in if loop == one} for one, _ in read_in]
    assert all(len(owners) == 1 for owners in by_loop)
    asyncio.run(ask(threading.Barrier(1)))
    gc.collect()
    assert [loop() for loop in loops[:2]] == [None, None]


async def test_a_read_belongs_to_no_request() -> None:
    """A context variable of a request, such as its tenant, is not set in the read that it shares with others."""
    tenant: ContextVar[str] = ContextVar("tenant", default="nobody")

    async def read(keys: list[str]) -> Mapping[str, str]:
        return dict.fromkeys(keys, tenant.get())

    reads: SharedReads[str, str] = SharedReads(read)
    tenant.set("shop")
    assert await reads.get(["a"]) == {"a": "nobody"}
