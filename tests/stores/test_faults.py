"""Stores that are slow, break, or respond by half, on real servers: never a wrong answer, and then it works again."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fastapi import Request, Response
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from sqlalchemy import URL, create_engine, text, update
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import sessionmaker

from fastapi_guard import ServiceUnavailable, Unauthorized
from fastapi_guard.login.revocation import Revocations
from fastapi_guard.login.session import SessionAuth
from fastapi_guard.stores import Record, Store
from fastapi_guard.stores.redis import RedisStore
from fastapi_guard.stores.sqlalchemy import SQLAlchemyStore, records
from support.between import Between, before_postgres, before_redis
from support.clock import Clock
from support.redis import running_redis, until

RECORDS = [Record(f"k{number}", b"%d" % number * 100) for number in range(10)]
PATIENT, IMPATIENT = 60.0, 0.3


@dataclass(frozen=True)
class Server:
    """A store on a real server, and what a test does to the server.

    Attributes:
        between: Stands before the server.
        open_store: Opens a store with this timeout in seconds, through `between`.
        hold: Keeps every look-up waiting within the block.
        is_waiting: Returns whether a look-up waits at the server.
        kill: Ends the connections of all other clients.
        poison: Makes the record under a key one that cannot be read.
    """

    between: Between
    open_store: Callable[[float], Store]
    hold: Callable[[], Any]
    is_waiting: Callable[[], Awaitable[bool]]
    kill: Callable[[], Awaitable[object]]
    poison: Callable[[str], Awaitable[object]]


@asynccontextmanager
async def on_redis(url: str) -> AsyncIterator[Server]:
    """Yield a Redis of its own."""
    async with AsyncExitStack() as stack:
        between = await stack.enter_async_context(before_redis(url).listening())
        control = await stack.enter_async_context(Redis.from_url(url))

        def open_store(timeout: float) -> Store:
            client = Redis(port=between.port, retry=Retry(NoBackoff(), 1))
            stack.push_async_callback(client.aclose)
            return RedisStore(client, prefix="faults:", timeout=timeout)

        @asynccontextmanager
        async def hold() -> AsyncIterator[None]:
            between.passes.clear()
            yield
            between.passes.set()

        async def is_waiting() -> bool:
            return between.held > 0

        async def kill() -> None:
            await control.execute_command("CLIENT", "KILL", "SKIPME", "yes")

        async def poison(key: str) -> None:
            await control.set(f"faults:record:{key}", b"no record")

        yield Server(between, open_store, hold, is_waiting, kill, poison)


@asynccontextmanager
async def on_postgres(url: URL) -> AsyncIterator[Server]:
    """Yield a PostgreSQL with the tables of a store."""
    async with AsyncExitStack() as stack:
        between = await stack.enter_async_context(before_postgres(url).listening())
        control = create_async_engine(url.set(drivername="postgresql+asyncpg"), isolation_level="AUTOCOMMIT")
        stack.push_async_callback(control.dispose)
        through = URL.create("postgresql+asyncpg", url.username, None, "127.0.0.1", between.port, url.database)

        def open_store(timeout: float) -> Store:
            engine = create_async_engine(through, pool_size=2, max_overflow=0)
            stack.push_async_callback(engine.dispose)
            return SQLAlchemyStore(async_sessionmaker(engine), prefix="faults:", timeout=timeout)

        @asynccontextmanager
        async def hold() -> AsyncIterator[None]:
            async with control.connect() as connection:
                await connection.execution_options(isolation_level="READ COMMITTED")
                await connection.execute(text("LOCK TABLE fastapi_guard_records IN ACCESS EXCLUSIVE MODE"))
                yield

        async def all_of(statement: str) -> Any:
            async with control.connect() as connection:
                return (await connection.execute(text(statement))).all()

        async def is_waiting() -> bool:
            return bool(await all_of("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"))

        async def kill() -> None:
            await all_of("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")

        async def poison(key: str) -> None:
            # An owner that is not UTF-8.
            invalid = update(records).where(records.c.key == f"faults:{key}".encode()).values(owner=b"faults:\xff")
            async with control.connect() as connection:
                await connection.execute(invalid)

        await SQLAlchemyStore(async_sessionmaker(control)).create_table()
        yield Server(between, open_store, hold, is_waiting, kill, poison)
        await all_of("DELETE FROM fastapi_guard_records RETURNING 1")


@pytest.fixture(params=["postgres", "redis"])
async def server(request: pytest.FixtureRequest) -> AsyncIterator[Server]:
    """Yield a server of each kind, with the records."""
    if request.param == "postgres":
        url: URL = request.getfixturevalue("postgres_url")
        async with on_postgres(url) as opened:
            await fill(opened)
            yield opened
    else:
        with running_redis() as redis_url:
            async with on_redis(redis_url) as opened:
                await fill(opened)
                yield opened


async def fill(server: Server) -> None:
    """Add the records."""
    store = server.open_store(PATIENT)
    for record in RECORDS:
        assert await store.add(record)


def reads(store: Store) -> list[asyncio.Task[list[Record | None]]]:
    """Begin to read every record, in a request each."""
    return [asyncio.create_task(store.get(record.key)) for record in RECORDS]


async def assert_right(store: Store) -> None:
    """Read every record at once, and compare."""
    assert await asyncio.gather(*reads(store)) == [[record] for record in RECORDS]


async def reasons(tasks: list[asyncio.Task[Any]]) -> set[str]:
    """Return the reasons for which all of these are 503s."""
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(failure, ServiceUnavailable) for failure in found)
    return {failure.reason for failure in found if isinstance(failure, ServiceUnavailable)}


async def test_a_server_that_is_slow(server: Server) -> None:
    """A batch that is not answered in time is a 503 for every request; later answers are not mixed up."""
    store = server.open_store(IMPATIENT)
    await assert_right(server.open_store(PATIENT))
    async with server.hold():
        assert await reasons(reads(store)) == {"timeout"}

    async def is_over() -> bool:
        # What was given up may still be in the way for a moment.
        found = await asyncio.gather(*reads(store), return_exceptions=True)
        assert all(
            answer == [record] for answer, record in zip(found, RECORDS, strict=True) if isinstance(answer, list)
        )
        return all(isinstance(answer, list) for answer in found)

    await until(is_over)


async def test_connections_that_end_in_the_middle_of_a_batch(server: Server) -> None:
    """Connections that end during a batch are replaced, and the batch is read again within the request."""
    store = server.open_store(PATIENT)
    await assert_right(store)
    async with server.hold():
        waiting = reads(store)
        await until(server.is_waiting)
        await server.kill()
    assert await asyncio.gather(*waiting) == [[record] for record in RECORDS]


@pytest.mark.parametrize(("halves", "is_answered"), [(1, True), (100, False)])
async def test_half_an_answer(server: Server, halves: int, is_answered: bool) -> None:
    """A connection that breaks in the middle of an answer is replaced; if each one breaks, all requests are 503s."""
    store = server.open_store(PATIENT)
    await assert_right(store)
    server.between.halves = halves
    if is_answered:
        await assert_right(store)
    else:
        assert await reasons(reads(store)) <= {"store_unreachable", "database_unreachable"}
        server.between.halves = 0
        await assert_right(store)
    assert server.between.halves == 0


async def test_callers_that_are_cancelled(server: Server) -> None:
    """Of a batch in flight every other request is cancelled: the others get their own records, and so do later ones."""
    store = server.open_store(PATIENT)
    await assert_right(store)
    async with server.hold():
        waiting = reads(store)
        await until(server.is_waiting)
        for task in waiting[::2]:
            task.cancel()
        await asyncio.wait(waiting[::2])
    assert await asyncio.gather(*waiting[1::2]) == [[record] for record in RECORDS[1::2]]
    await assert_right(store)


async def test_a_poisoned_record(server: Server) -> None:
    """A record that cannot be read is a 503 for its own request; the others of the batch get theirs."""
    store = server.open_store(PATIENT)
    await assert_right(store)
    await server.poison(RECORDS[3].key)
    for _ in range(2):
        found = await asyncio.gather(*reads(store), return_exceptions=True)
        failed = found.pop(3)
        assert isinstance(failed, ServiceUnavailable)
        assert failed.reason == "unreadable_record"
        assert found == [[record] for record in RECORDS if record is not RECORDS[3]]


@pytest.mark.parametrize("kind", ["sqlite", "postgresql+psycopg"])
def test_two_event_loops(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """Two event loops, in two threads, read from one store on a sync engine at the same time."""
    postgres: URL | None = request.getfixturevalue("postgres_url") if kind.startswith("postgresql") else None
    url = URL.create(kind, database=str(tmp_path / "loops.db")) if postgres is None else postgres.set(drivername=kind)
    engine = create_engine(url)
    store = SQLAlchemyStore(sessionmaker(engine), prefix="loops:")

    async def fill() -> None:
        await store.create_table()
        for record in RECORDS:
            await store.add(record)

    async def use() -> None:
        for _ in range(10):
            await assert_right(store)

    asyncio.run(fill())
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda _: asyncio.run(use()), range(2)))
    engine.dispose()


class OnAnotherHost(SQLAlchemyStore):
    """A store as a process of its own has it, where the same name in the same place is that of another worker."""

    place = None


@pytest.mark.parametrize("apart", [5, -5])
async def test_clocks_apart(postgres_url: URL, apart: int) -> None:
    """A session and a revocation of one worker count in another one, whose clock is 5 s before or behind."""
    engine = create_async_engine(postgres_url.set(drivername="postgresql+asyncpg"))
    here, there = Clock(), Clock()
    there.move(apart)
    prefix = f"apart{apart}:"
    one, other = (OnAnotherHost(async_sessionmaker(engine), prefix=prefix, clock=clock) for clock in (here, there))
    await one.create_table()
    ours, theirs = SessionAuth(one, clock=here), SessionAuth(other, clock=there)
    response = Response()
    session = await ours.login(response, {"sub": "ada"}, connection=Request({"type": "http", "headers": []}))
    raw = response.headers["set-cookie"].partition("=")[2].partition(";")[0]
    for clock in (here, there):
        clock.move(3590)
    assert (await theirs.verify(raw))["sub"] == "ada"
    await theirs.aclose()
    # Used there: it slides here too.
    for clock in (here, there):
        clock.move(600)
    assert (await ours.verify(raw))["sub"] == "ada"
    assert await theirs.end(session.id)
    with pytest.raises(Unauthorized):
        await ours.verify(raw)
    claims = {"jti": "1", "sub": "ada", "iat": here(), "exp": here() + 60}
    await Revocations(other, clock=there).revoke(claims)
    assert await Revocations(one, clock=here).is_revoked(claims)
    await engine.dispose()


async def test_a_primary_that_became_a_replica() -> None:
    """A Redis that lost its role still responds to reads; changes are 503s, and count again when it is primary."""
    with running_redis() as url:
        async with Redis.from_url(url) as client:
            store = RedisStore(client)
            assert await store.add(RECORDS[0])
            await client.execute_command("REPLICAOF", "127.0.0.1", 1)
            for change in (store.add(RECORDS[1]), store.delete(RECORDS[0].key), store.replace("k0", *RECORDS[:2])):
                with pytest.raises(ServiceUnavailable) as refused:
                    await change
                assert refused.value.reason == "store_unreachable"
            assert await store.get("k0") == [RECORDS[0]]
            await client.execute_command("REPLICAOF", "NO", "ONE")
            assert await store.delete("k0")
