"""Writes that may wait: together, after the responses, and all of them at the end."""

import asyncio
import logging
from datetime import timedelta
from uuid import uuid4

import pytest
from fastapi import Response
from sqlalchemy import create_engine, update
from starlette.requests import HTTPConnection

from fastapi_guard import ServiceUnavailable
from fastapi_guard.login.session import SessionAuth
from fastapi_guard.stores import MemoryStore, Record, Store
from fastapi_guard.stores import later as module
from fastapi_guard.stores.later import _MOST, LaterReplacements, LaterWrites
from fastapi_guard.stores.sqlalchemy import SQLAlchemyStore, records
from support.clock import Clock
from support.stores import DATABASES, FiveMethods, sessions_of

NOWHERE = HTTPConnection({"type": "http", "method": "POST", "headers": []})


async def test_items_are_written_together() -> None:
    """Items within the delay are one batch, the newest of a key counts, and nothing runs before or afterwards."""
    batches: list[dict[str, int]] = []
    written = asyncio.Event()

    async def write(items: dict[str, int]) -> None:
        batches.append(items)
        written.set()

    later: LaterWrites[str, int] = LaterWrites(write, delay_seconds=0.01)
    before = asyncio.all_tasks()
    for key, item in (("a", 1), ("b", 2), ("a", 3)):
        later.put(key, item)
    assert asyncio.all_tasks() == before
    await written.wait()
    assert batches == [{"a": 3, "b": 2}]
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before
    await later.aclose()
    assert len(batches) == 1


async def test_no_write_begins_before_the_delay() -> None:
    """An item that comes while others wait is not written with them, unless it has waited for the whole delay too."""
    batches: list[dict[str, int]] = []
    moments: list[float] = []
    done = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def write(items: dict[str, int]) -> None:
        batches.append(items)
        moments.append(loop.time())
        if len(batches) == 2:
            done.set()

    later: LaterWrites[str, int] = LaterWrites(write, delay_seconds=0.1)
    began = loop.time()
    later.put("a", 1)
    later._turn()
    late = loop.time()
    later.put("b", 2)
    # This one has waited long enough, and is not put off by another use.
    later.put("a", 3)
    await done.wait()
    assert batches == [{"a": 1}, {"b": 2}]
    # The clock of a loop is a little coarse.
    assert moments[0] >= began + 0.1 - 0.01
    assert moments[1] >= late + 0.1 - 0.01


async def test_an_item_that_cannot_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is written at once with what waits; a long write is waited for a moment only."""
    batches: list[dict[str, int]] = []
    may_end = asyncio.Event()
    may_end.set()

    async def write(items: dict[str, int]) -> None:
        await may_end.wait()
        batches.append(items)

    later: LaterWrites[str, int] = LaterWrites(write, delay_seconds=1000)
    later.put("a", 1)
    await later.put_now("b", 2)
    assert batches == [{"a": 1, "b": 2}]
    monkeypatch.setattr(module, "_PATIENCE_SECONDS", 0.01)
    may_end.clear()
    for key in "cd":
        await later.put_now(key, 3)
    assert len(batches) == 1
    may_end.set()
    await later.aclose()
    assert batches[1:] == [{"c": 3}, {"d": 3}]


def test_an_item_that_cannot_wait_in_another_event_loop() -> None:
    """A task of another event loop is not waited for."""
    batches: list[dict[str, int]] = []

    async def write(items: dict[str, int]) -> None:
        if not batches:
            batches.append(items)
            await asyncio.Event().wait()
        batches.append(items)

    later: LaterWrites[str, int] = LaterWrites(write, delay_seconds=1000)

    async def begin() -> None:
        later.put("a", 1)
        later._turn()
        later._turn()
        await asyncio.sleep(0)

    other = asyncio.new_event_loop()
    other.run_until_complete(begin())
    task = later._task
    assert task is not None
    asyncio.run(later.put_now("b", 2))
    assert batches == [{"a": 1}]
    asyncio.run(later.aclose())
    assert batches == [{"a": 1}, {"b": 2}]
    task.cancel()
    other.run_until_complete(asyncio.wait([task]))
    other.close()


async def test_one_batch_at_a_time() -> None:
    """Items that are put in during a write go into the next batch, and closing waits for both."""
    batches: list[list[str]] = []
    begun, may_end = asyncio.Event(), asyncio.Event()

    async def write(items: dict[str, int]) -> None:
        begun.set()
        await may_end.wait()
        batches.append(list(items))

    later: LaterWrites[str, int] = LaterWrites(write, delay_seconds=0)
    later.put("a", 1)
    await begun.wait()
    later.put("b", 2)
    later.put("c", 3)
    closing = asyncio.create_task(later.aclose())
    await asyncio.sleep(0)
    assert batches == []
    may_end.set()
    await closing
    assert batches == [["a"], ["b", "c"]]


async def test_closing_does_not_wait_for_the_delay() -> None:
    """Items that wait are written at once at the end of the application."""
    batches: list[dict[str, int]] = []

    async def write(items: dict[str, int]) -> None:
        batches.append(items)

    later: LaterWrites[str, int] = LaterWrites(write, delay_seconds=1000)
    later.put("a", 1)
    await later.aclose()
    await later.aclose()
    assert batches == [{"a": 1}]


@pytest.mark.parametrize("error", [ServiceUnavailable(), RuntimeError("closed")])
async def test_a_batch_that_fails_is_logged(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    """A batch that cannot be written is dropped with a line in the log, and the next one is tried."""
    batches: list[dict[str, int]] = []

    async def write(items: dict[str, int]) -> None:
        batches.append(items)
        raise error

    later: LaterWrites[str, int] = LaterWrites(write, delay_seconds=0)
    with caplog.at_level(logging.WARNING, "fastapi_guard"):
        for key in "ab":
            later.put(key, 1)
            await later.aclose()
    assert batches == [{"a": 1}, {"b": 1}]
    message = f"1 moments of last use could not be written: {type(error).__name__}"
    assert [record.message for record in caplog.records] == [message] * 2


async def test_the_number_of_items_is_bounded() -> None:
    """Beyond a number of keys new ones are dropped; what waits already may still change."""
    batches: list[dict[int, int]] = []

    async def write(items: dict[int, int]) -> None:
        batches.append(items)

    later: LaterWrites[int, int] = LaterWrites(write, delay_seconds=1000)
    for key in range(_MOST + 5):
        later.put(key, 0)
    later.put(0, 1)
    await later.aclose()
    assert len(batches[0]) == _MOST
    assert batches[0][0] == 1


def test_another_event_loop() -> None:
    """Items that waited, or were being written, in an event loop that has ended are written in another one."""
    batches: list[dict[str, int]] = []
    hangs = True

    async def write(items: dict[str, int]) -> None:
        batches.append(items)
        if hangs:
            await asyncio.Event().wait()

    later: LaterWrites[str, int] = LaterWrites(write, delay_seconds=1000)

    async def put(key: str) -> None:
        later.put(key, 1)

    async def put_and_begin(key: str) -> None:
        later.put(key, 1)
        later._turn()
        later._turn()
        await asyncio.sleep(0)

    asyncio.run(put("a"))
    asyncio.run(put("b"))
    asyncio.run(put_and_begin("c"))
    hangs = False
    asyncio.run(put("d"))
    asyncio.run(later.aclose())
    assert batches == [{"a": 1, "b": 1, "c": 1}, {"a": 1, "b": 1, "c": 1, "d": 1}]


def test_two_event_loops() -> None:
    """Closing in one event loop does not wait for a batch that another one writes."""
    batches: list[dict[str, int]] = []
    may_end: asyncio.Event | None = None

    async def write(items: dict[str, int]) -> None:
        batches.append(items)
        if may_end is not None:
            await may_end.wait()

    later: LaterWrites[str, int] = LaterWrites(write, delay_seconds=1000)

    async def begin() -> None:
        nonlocal may_end
        may_end = asyncio.Event()
        later.put("a", 1)
        later._turn()
        later._turn()
        await asyncio.sleep(0)

    async def put_and_close() -> None:
        nonlocal may_end
        may_end = None
        later.put("b", 1)
        await later.aclose()

    other = asyncio.new_event_loop()
    other.run_until_complete(begin())
    event, task = may_end, later._task
    asyncio.run(put_and_close())
    assert batches == [{"a": 1}, {"b": 1}]
    assert event is not None
    assert task is not None
    event.set()
    other.run_until_complete(task)
    other.close()


async def test_a_child_process_starts_without_items() -> None:
    """Items that wait in the parent process are written by the parent."""

    async def write(_: dict[str, int]) -> None:
        raise AssertionError  # pragma: no cover - then the test fails

    later: LaterWrites[str, int] = LaterWrites(write, delay_seconds=1000)
    later.put("a", 1)
    timer = later._timer
    later.after_fork()
    await later.aclose()
    assert timer is not None
    timer.cancel()


async def test_replacements_of_records(store: Store, clock: Clock) -> None:
    """Records are replaced where they are still as they were; one that ended in the meantime does not come back."""
    old = [Record(f"session:{number}", b"old", "ada", clock() + 60) for number in range(4)]
    for record in old:
        await store.add(record)
    later = LaterReplacements(store, delay_seconds=1000)
    for record in old:
        later.replace(record, Record(record.key, b"new", "ada", clock() + 120))
    await store.delete("session:1")
    await store.replace("session:2", old[2], changed := Record("session:2", b"changed", "ada", clock() + 60))
    await later.aclose()
    found = await store.get(*(record.key for record in old))
    assert found == [
        Record("session:0", b"new", "ada", clock() + 120),
        None,
        changed,
        Record("session:3", b"new", "ada", clock() + 120),
    ]
    assert len(await store.find("ada")) == 3


async def test_replacements_in_a_store_of_five_methods() -> None:
    """A store without `replace_all` replaces one record after the other."""
    store = FiveMethods(MemoryStore())
    old = [Record(f"k{number}", b"old") for number in range(2)]
    for record in old:
        await store.add(record)
    later = LaterReplacements(store)
    for record in old:
        later.replace(record, Record(record.key, b"new"))
    await later.aclose()
    assert await store.get("k0", "k1") == [Record("k0", b"new"), Record("k1", b"new")]
    assert await store.delete("k0")
    assert await store.find("ada") == []


@pytest.mark.parametrize("name", DATABASES)
async def test_a_lock_of_the_application(
    request: pytest.FixtureRequest, clock: Clock, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A session is accepted while its row is locked, and neither it nor the shutdown waits for the lock."""
    async with sessions_of(request, name) as factory:
        store = SQLAlchemyStore(factory, prefix=f"{uuid4().hex}:", clock=clock)
        await store.create_table()
        auth = SessionAuth(store, idle_lifetime=timedelta(hours=1), clock=clock)
        raws: list[str] = []
        for _ in range(2):
            response = Response()
            await auth.login(response, {"sub": "ada"}, connection=NOWHERE)
            raws.append(response.headers["set-cookie"].partition("=")[2].partition(";")[0])
        first, second = await auth.list("ada")
        url = factory.kw["bind"].url
        driver = {"sqlite+aiosqlite": "sqlite", "postgresql+asyncpg": "postgresql+psycopg"}.get(url.drivername)
        engine = create_engine(url if driver is None else url.set(drivername=driver))
        clock.move(61)
        with engine.connect() as application:
            key = store._name(f"session:{first.id}")
            application.execute(update(records).where(records.c.key == key).values(expires_at=records.c.expires_at))
            async with asyncio.timeout(60):
                for raw in raws:
                    assert (await auth.verify(raw))["sub"] == "ada"
                await auth.aclose()
            application.rollback()
        # SQLite has one lock for all rows.
        is_sqlite = url.get_backend_name() == "sqlite"
        seen = {session.id: session.seen_at == clock() for session in await auth.list("ada")}
        assert seen == {first.id: False, second.id: not is_sqlite}
        assert ("2 moments of last use could not be written" in caplog.text) is is_sqlite
        for raw in raws:
            await auth.verify(raw)
        await auth.aclose()
        assert {session.seen_at for session in await auth.list("ada")} == {clock()}
        engine.dispose()
