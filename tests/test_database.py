"""Work in a session: transactions that meet are done again, and what cannot be done is a 503."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import URL, create_engine
from sqlalchemy.exc import DBAPIError, NoResultFound, OperationalError
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import StaticPool

from fastapi_guard import ConfigurationError, ServiceUnavailable
from fastapi_guard.database import in_session
from fastapi_guard.stores import Record
from fastapi_guard.stores.sqlalchemy import SQLAlchemyStore
from fastapi_guard.users import DatabaseUsers


@pytest.mark.parametrize("isolation", ["SERIALIZABLE", "REPEATABLE READ"])
async def test_a_stricter_isolation(postgres_url: URL, isolation: Any) -> None:
    """Of many that replace a record at once one is told that it did, under each isolation of PostgreSQL."""
    engine = create_async_engine(postgres_url.set(drivername="postgresql+psycopg"), isolation_level=isolation)
    store = SQLAlchemyStore(async_sessionmaker(engine), prefix=f"{isolation}:")
    await store.create_table()
    await store.add(old := Record("k", b"old"))
    replaced = await asyncio.gather(*(store.replace("k", old, Record("k", b"%d" % number)) for number in range(15)))
    assert replaced.count(True) == 1
    assert await store.get("k") == [Record("k", b"%d" % replaced.index(True))]
    await store.delete("k")
    await engine.dispose()


class Met(Exception):
    """What a driver says where transactions met."""

    sqlstate = "40001"


@pytest.mark.parametrize(("failures", "cause"), [(1, Met()), (5, Met()), (1, ValueError())])
async def test_work_is_done_again(failures: int, cause: Exception) -> None:
    """Work that met another transaction is done again, a few times; other failures are a 503 at once."""
    engine = create_engine("sqlite://")
    tries: list[int] = []

    def work(session: Session) -> str:
        tries.append(1)
        if len(tries) <= failures:
            raise DBAPIError("UPDATE", {}, cause)
        return "done"

    if failures == 1 and isinstance(cause, Met):
        assert await in_session(sessionmaker(engine), work) == "done"
        assert len(tries) == 2
    else:
        with pytest.raises(ServiceUnavailable) as error:
            await in_session(sessionmaker(engine), work)
        assert error.value.reason == "database_unreachable"
        assert len(tries) == failures
    engine.dispose()


@pytest.mark.parametrize("failure", [OperationalError("SELECT", {}, OSError("disk")), NoResultFound(), OSError("net")])
async def test_work_that_fails_by_itself(failure: Exception) -> None:
    """An error of the database that no other transaction caused is a 503."""
    engine = create_engine("sqlite://")

    def work(session: Session) -> None:
        raise failure

    with pytest.raises(ServiceUnavailable):
        await in_session(sessionmaker(engine), work)
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
    """A URL or an engine in the place of a factory is refused where it is written."""
    with pytest.raises(ConfigurationError, match=r"pass a factory, sessionmaker\(engine\) or async_sessionmaker"):
        made(given)
