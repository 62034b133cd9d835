"""The tables of a store: how they are created and pruned, and requests while the database is unavailable."""

import asyncio
import logging
import threading
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import MetaData, create_engine, event, inspect, select
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import sessionmaker
from sqlalchemy.pool import NullPool, StaticPool

from fastapi_guard import ConfigurationError, ServiceUnavailable
from fastapi_guard.stores import Record
from fastapi_guard.stores.database import Sessions
from fastapi_guard.stores.sqlalchemy import SQLAlchemyStore, metadata, records, records_table
from support.clock import Clock
from support.stores import DATABASES, sessions_of


@pytest.fixture(params=DATABASES)
async def sessions(request: pytest.FixtureRequest) -> Any:
    """Return a factory of sessions for each kind of database, synchronous and asynchronous."""
    async with sessions_of(request, request.param) as factory:
        yield factory


async def test_prune(sessions: Any, clock: Clock) -> None:
    """Adding deletes what expired some minutes ago, at most once a minute, and `prune` does it at once."""
    table = records_table(MetaData(), f"pruned_{uuid4().hex}")
    store = SQLAlchemyStore(sessions, table=table, clock=clock)
    await store.create_table()
    await store.create_table()

    async def kept() -> set[bytes]:
        return await Sessions(sessions).transaction(lambda session: set(session.scalars(select(table.c.key))))

    await store.add(Record("a", b"", None, clock() + 1))
    clock.move(302)
    await store.add(Record("b", b"", None, clock() + 1))
    assert await kept() == {b"b"}
    clock.move(59)
    await store.add(Record("c", b"", None, clock() - 1000))
    assert await kept() == {b"b", b"c"}
    clock.move(-600)  # does not put it off indefinitely
    await store.add(Record("d", b"", None, clock() - 1000))
    assert await kept() == {b"b"}
    clock.move(10_000)
    assert await store.prune() == 1
    assert await kept() == set()


async def test_the_ready_table() -> None:
    """A migration finds the table in the metadata of the module, with an index on owner and on expiry."""
    engine = create_engine("sqlite://")
    metadata.create_all(engine)
    assert records.name == "fastapi_guard_records"
    indexed = {index["column_names"][0] for index in inspect(engine).get_indexes(records.name)}
    assert indexed == {"owner", "expires_at"}
    engine.dispose()


async def test_a_driver_that_does_not_respond(tmp_path: Path) -> None:
    """On a sync engine, too, each read is a 503 after the timeout."""
    engine = create_engine(f"sqlite:///{tmp_path / 'records.db'}")
    store = SQLAlchemyStore(sessionmaker(engine), timeout=0.05)
    await store.create_table()
    may_end = threading.Event()
    event.listen(engine, "before_cursor_execute", lambda *_: may_end.wait())
    for read in (store.get, store.find, store.get, store.find):
        with pytest.raises(ServiceUnavailable):
            await asyncio.wait_for(read("k"), 20)
    may_end.set()
    patient = SQLAlchemyStore(sessionmaker(engine))
    assert [await patient.get("k"), await patient.find("k")] == [[None], []]
    # The thread of the reads gives its connection back.
    pool: Any = engine.pool
    while pool.checkedout():  # noqa: ASYNC110 - a pool has no event for it
        await asyncio.sleep(0.01)
    engine.dispose()


AWAY = [
    async_sessionmaker(create_async_engine("postgresql+psycopg://nobody@127.0.0.1:1/none", poolclass=NullPool)),
    sessionmaker(create_engine("postgresql+psycopg://nobody@127.0.0.1:1/none", poolclass=NullPool)),
    sessionmaker(create_engine("sqlite:////nowhere/at/all.db", poolclass=NullPool)),
]


@pytest.mark.parametrize("sessions", AWAY, ids=["async", "sync", "sqlite"])
@pytest.mark.parametrize("method", ["get", "add", "replace", "delete", "find"])
async def test_a_database_that_is_away(sessions: Any, method: str) -> None:
    """Each method of a store that cannot be reached is a 503 with Retry-After."""
    record = Record("k", b"")
    arguments: dict[str, tuple[Any, ...]] = {"add": (record,), "replace": ("k", record, record)}
    with pytest.raises(ServiceUnavailable) as refused:
        await getattr(SQLAlchemyStore(sessions), method)(*arguments.get(method, ("k",)))
    assert (refused.value.status_code, refused.value.detail) == (503, "Service temporarily unavailable")
    assert refused.value.headers == {"Retry-After": "5"}
    assert refused.value.reason == "database_unreachable"


async def test_a_failure_to_prune_is_only_logged(
    sessions: Any, clock: Clock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record is added although those that expired cannot be deleted."""
    store = SQLAlchemyStore(sessions, prefix="unpruned:", clock=clock)
    await store.create_table()

    def fail(_: object) -> int:
        raise ServiceUnavailable

    monkeypatch.setattr(store, "_pruned", fail)
    with caplog.at_level(logging.WARNING, "fastapi_guard"):
        assert await store.add(Record("k", b""))
    assert [record.message for record in caplog.records] == ["expired records could not be deleted"]
    assert await store.delete("k")


@pytest.mark.parametrize("sessions", [name for name in DATABASES if "sqlite" in name], indirect=True)
async def test_a_sqlite_without_returning(sessions: Any, clock: Clock) -> None:
    """SQLite before 3.35 returns what was deleted too, to one of many, as the last replacement left it."""
    store = SQLAlchemyStore(sessions, clock=clock)
    await store.create_table()
    engine = Sessions(sessions).engine
    assert engine is not None
    engine.dialect.delete_returning = False
    for number in range(8):
        old, new = Record("k", b"old", "ada"), Record("k", str(number).encode(), "bob")
        assert await store.add(old)
        replaced, *deleted = await asyncio.gather(store.replace("k", old, new), *(store.take("k") for _ in range(8)))
        assert [found for found in deleted if found is not None] == [new if replaced else old]
        assert await store.get("k") == [None]


def test_no_session_factory() -> None:
    """An argument that is not a session factory raises ConfigurationError with the remedy."""
    with pytest.raises(ConfigurationError, match="pass a factory, sessionmaker"):
        SQLAlchemyStore(object)  # type: ignore[arg-type]


async def test_another_database() -> None:
    """A database whose way to insert or update is not known is refused, not guessed at."""
    engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    engine.dialect.name = "mysql"
    store = SQLAlchemyStore(sessionmaker(engine))
    with pytest.raises(ConfigurationError, match="works on SQLite and PostgreSQL, not on mysql"):
        await store.add(Record("k", b""))
    engine.dispose()
