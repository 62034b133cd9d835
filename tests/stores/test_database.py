"""The way to a database: what met is done again, what was lost is not, and what cannot be done is a 503."""

import asyncio
import sqlite3
import sys
import threading
from contextlib import closing
from importlib import util
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL, Connection, create_engine, text
from sqlalchemy.exc import DBAPIError, NoResultFound, OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import AsyncAdaptedQueuePool, StaticPool

from fastapi_guard import ConfigurationError, GuardError, MissingExtraError, ServiceUnavailable
from fastapi_guard.login.users import DatabaseUsers
from fastapi_guard.stores import Record, database
from fastapi_guard.stores.database import Sessions
from fastapi_guard.stores.failures import Refused
from fastapi_guard.stores.selects import Selects
from fastapi_guard.stores.sqlalchemy import SQLAlchemyStore
from support.notes import engine_with_notes, lose, note, notes

__all__ = ["engine_with_notes"]


@pytest.mark.parametrize("isolation", ["SERIALIZABLE", "REPEATABLE READ"])
async def test_a_stricter_isolation(postgres_url: URL, isolation: Any) -> None:
    """Of many that replace a record at once one returns True, under each isolation of PostgreSQL."""
    engine = create_async_engine(postgres_url.set(drivername="postgresql+psycopg"), isolation_level=isolation)
    store = SQLAlchemyStore(async_sessionmaker(engine), prefix=f"{isolation}:")
    await store.create_table()
    await store.add(old := Record("k", b"old"))
    replaced = await asyncio.gather(*(store.replace("k", old, Record("k", b"%d" % number)) for number in range(15)))
    assert replaced.count(True) == 1
    assert await store.get("k") == [Record("k", b"%d" % replaced.index(True))]
    await store.delete("k")
    await engine.dispose()


async def test_a_cancelled_request_leaves_no_lock(tmp_path: Path) -> None:
    """Work whose request is cancelled while it waits for SQLite is finished, and keeps no other request waiting."""
    file = tmp_path / "records.db"
    engine = create_async_engine(
        f"sqlite+aiosqlite:///{file}", poolclass=AsyncAdaptedQueuePool, connect_args={"timeout": 2}
    )
    store = SQLAlchemyStore(async_sessionmaker(engine))
    await store.create_table()
    before = asyncio.all_tasks()
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        requests = [asyncio.create_task(store.add(Record(f"{number}", b""))) for number in range(3)]
        while engine.pool.checkedout() < 3:  # type: ignore[attr-defined]
            await asyncio.wait(requests, timeout=0.01)
        for request in requests:
            request.cancel()
        await asyncio.wait(requests)
        other.execute("ROLLBACK")
    assert all(request.cancelled() for request in requests)
    assert await store.add(Record("after", b""))
    await asyncio.gather(*(asyncio.all_tasks() - before))
    assert await store.get("0", "1", "2") == [Record(f"{number}", b"") for number in range(3)]
    await engine.dispose()


class Met(Exception):
    """The error of a driver where transactions met."""

    sqlstate = "40001"


@pytest.mark.parametrize(("failures", "cause"), [(1, Met()), (5, Met()), (1, ValueError())])
async def test_work_is_done_again(failures: int, cause: Exception) -> None:
    """Work that met another transaction is done again, a few times; other failures are a 503 at once."""
    engine = create_engine("sqlite://", poolclass=StaticPool)
    tries: list[int] = []

    def work(session: Session) -> str:
        tries.append(1)
        if len(tries) <= failures:
            raise DBAPIError("UPDATE", {}, cause)
        return "done"

    if failures == 1 and isinstance(cause, Met):
        assert await Sessions(sessionmaker(engine)).transaction(work) == "done"
        assert len(tries) == 2
    else:
        with pytest.raises(ServiceUnavailable) as error:
            await Sessions(sessionmaker(engine)).transaction(work)
        assert error.value.reason == "database_unreachable"
        assert len(tries) == failures
    engine.dispose()


@pytest.mark.parametrize("failure", [OperationalError("SELECT", {}, OSError("disk")), NoResultFound(), OSError("net")])
async def test_work_that_fails_by_itself(failure: Exception) -> None:
    """An error of the database that no other transaction caused is a 503."""
    engine = create_engine("sqlite://", poolclass=StaticPool)

    def work(session: Session) -> None:
        raise failure

    with pytest.raises(ServiceUnavailable):
        await Sessions(sessionmaker(engine)).transaction(work)
    engine.dispose()


@pytest.mark.parametrize("made", [SQLAlchemyStore, DatabaseUsers])
async def test_a_database_of_each_thread(made: Any) -> None:
    """SQLite in memory is refused where each thread would find an empty one of its own; a shared one is not."""
    engine = create_engine("sqlite://")
    with pytest.raises(ConfigurationError, match=r"another one in each thread: use a file, or create_engine\("):
        made(sessionmaker(engine))
    engine.dispose()
    shared = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    there = made(sessionmaker(shared))
    await there.create_table()
    shared.dispose()


@pytest.mark.parametrize("made", [SQLAlchemyStore, DatabaseUsers])
@pytest.mark.parametrize("given", ["sqlite:///keys.db", create_engine("sqlite:///unused.db")], ids=["URL", "engine"])
def test_no_factory(made: Any, given: Any) -> None:
    """A URL or an engine in the place of a factory raises ConfigurationError when constructed."""
    with pytest.raises(ConfigurationError, match=r"pass a factory, sessionmaker\(engine\) or async_sessionmaker"):
        made(given)


@pytest.mark.parametrize("made", [SQLAlchemyStore, DatabaseUsers])
def test_a_factory_of_the_other_kind_of_engine(made: Any) -> None:
    """A sync factory of an async engine or driver, or the reverse, raises ConfigurationError when constructed."""
    sync, driver = create_engine("sqlite:///unused.db"), create_engine("sqlite+aiosqlite:///unused.db")
    asynchronous: Any = create_async_engine("sqlite+aiosqlite:///unused.db")
    mixed: list[Any] = [
        *(sessionmaker(asynchronous), sessionmaker(asynchronous.sync_engine), sessionmaker(driver)),
        *(async_sessionmaker(sync), async_sessionmaker(driver)),  # type: ignore[arg-type]
    ]
    for factory in mixed:
        with pytest.raises(ConfigurationError, match=r"^pass sessionmaker\(create_engine\(url\)\) or async_sessionm"):
            made(factory)
    assert made(sessionmaker(sync))
    assert made(async_sessionmaker(asynchronous))


async def test_a_connection_that_was_lost_in_the_pool(engine: AsyncEngine) -> None:
    """A connection that was closed while it waited goes unnoticed: statements and work are done on another."""
    sessions = Sessions(async_sessionmaker(engine))
    await lose(engine)
    assert await Selects(sessions).all(text("SELECT 1"), {}) == [(1,)]
    await lose(engine)
    await sessions.execute(text("INSERT INTO notes VALUES (:word, 1)"), {"word": "a"})
    await lose(engine)
    await sessions.transaction(note("b", 2))
    assert await notes(engine) == ["a", "b"]


async def test_a_connection_that_is_lost_at_the_commit(engine: AsyncEngine) -> None:
    """If it is not known whether it was committed, work is not done again, and the response is 503."""
    factory = async_sessionmaker(engine)
    sessions, tries = Sessions(factory), []

    def write(session: Session) -> None:
        tries.append(1)
        note("a", 1)(session)

    class Unlucky(Session):
        """A session that learns at the commit that its connection is gone."""

        def commit(self) -> None:
            raise OperationalError("COMMIT", {}, OSError("gone"), connection_invalidated=True)

    factory.configure(sync_session_class=Unlucky)
    with pytest.raises(ServiceUnavailable):
        await sessions.transaction(write)
    assert len(tries) == 1
    assert await notes(engine) == []


async def test_transactions_that_meet_at_the_commit(engine: AsyncEngine) -> None:
    """Work that a serializable transaction rejects at the commit is done again, and is then committed."""
    strict = engine.execution_options(isolation_level="SERIALIZABLE")
    other, seen = create_engine(engine.url.set(drivername="postgresql+psycopg"), isolation_level="SERIALIZABLE"), []

    def write(session: Session) -> None:
        seen.append(session.scalar(text("SELECT count(*) FROM notes")))
        note(f"our{len(seen)}", len(seen))(session)
        if len(seen) == 1:
            with other.begin() as connection:
                connection.scalar(text("SELECT count(*) FROM notes"))
                connection.execute(text("INSERT INTO notes VALUES ('their', 7)"))

    await Sessions(async_sessionmaker(strict)).transaction(write)
    assert seen == [0, 1]
    assert await notes(engine) == ["our2", "their"]
    other.dispose()


async def test_what_the_database_refuses(engine: AsyncEngine) -> None:
    """Work that breaks a rule of a table raises Refused, also if the rule is deferred; a single statement is a 503."""
    sessions = Sessions(async_sessionmaker(engine))
    await sessions.transaction(note("a", 1))
    for word, number in (("a", 2), ("b", 1), ("longer", 3)):
        with pytest.raises(Refused, match=r"(Error|Violation|Truncation)\w*: "):
            await sessions.transaction(note(word, number))
    with pytest.raises(ServiceUnavailable):
        await sessions.execute(text("INSERT INTO notes VALUES ('a', 2)"), {})
    assert await notes(engine) == ["a"]


@pytest.mark.parametrize("error", [GuardError("ours"), TypeError("ours"), ValueError("ours")])
async def test_what_work_raises_of_its_own(error: Exception) -> None:
    """An error of the work itself comes out as it is, and nothing is committed."""
    memory = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    with memory.begin() as connection:
        connection.execute(text("CREATE TABLE notes (word TEXT, number INT)"))

    def work(session: Session) -> None:
        note("a", 1)(session)
        raise error

    sessions = Sessions(sessionmaker(memory))
    with pytest.raises(type(error), match="ours"):
        await sessions.transaction(work)
    assert await Selects(sessions).all(text("SELECT count(*) FROM notes"), {}) == [(0,)]
    memory.dispose()


def test_without_sqlalchemy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without SQLAlchemy, the error names the extra."""
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    spec: Any = util.spec_from_file_location("again", database.__file__)
    with pytest.raises(MissingExtraError, match=r"pip install 'fastapi-guard-auth\[sqlalchemy\]'"):
        spec.loader.exec_module(util.module_from_spec(spec))


async def test_a_database_that_does_not_respond(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that lasts too long is a 503, and is finished; one that may be long is waited for."""
    engine = create_engine(f"sqlite:///{tmp_path / 'notes.db'}")
    sessions, may_end = Sessions(sessionmaker(engine)), threading.Event()
    await sessions.transaction(lambda session: session.execute(text("CREATE TABLE notes (word TEXT, number INT)")))

    def work(session: Session | Connection) -> None:
        may_end.wait()
        session.execute(text("INSERT INTO notes VALUES ('a', 1)"))

    before = asyncio.all_tasks()
    with monkeypatch.context() as patched:
        patched.setattr(database, "_LONGEST_SECONDS", 0.01)
        for write in (sessions.transaction, sessions.change):
            with pytest.raises(ServiceUnavailable) as refused:
                await write(work)
            assert refused.value.reason == "database_unreachable"
        long = asyncio.create_task(sessions.transaction(work, is_long=True))
        await asyncio.wait([long], timeout=0.05)
        may_end.set()
        await long
    await asyncio.gather(*(asyncio.all_tasks() - before))
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM notes")) == 3
    engine.dispose()


async def test_work_that_fails_after_its_request_was_cancelled(tmp_path: Path) -> None:
    """An error after the caller was cancelled disturbs no other request, and nothing is committed."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'notes.db'}")
    sessions = Sessions(async_sessionmaker(engine))
    await sessions.transaction(lambda session: session.execute(text("CREATE TABLE notes (word TEXT, number INT)")))
    before, begun = asyncio.all_tasks(), asyncio.Event()

    def work(session: Session) -> None:
        note("a", 1)(session)
        begun.set()
        session.execute(text("SELECT nothing"))

    request = asyncio.create_task(sessions.transaction(work))
    await begun.wait()
    request.cancel()
    await asyncio.wait([request])
    assert request.cancelled()
    await asyncio.wait(asyncio.all_tasks() - before)
    assert await notes(engine) == []
    await engine.dispose()
