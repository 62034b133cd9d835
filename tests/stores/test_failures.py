"""Errors of a database: no value that was sent is in a text, a log or a chained traceback."""

import logging
import sys
import traceback
from importlib import util
from typing import Any

import pytest
from sqlalchemy import URL, create_engine, text
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import StaticPool

from fastapi_guard import MissingExtraError, ServiceUnavailable
from fastapi_guard.login.users import DatabaseUsers, User
from fastapi_guard.stores import (
    Record,
    columns,
    failures,
    reader,
    redis,
    replica,
    selects,
    sqlalchemy,
    sqlalchemy_changes,
)
from fastapi_guard.stores.database import Sessions
from fastapi_guard.stores.failures import Refused
from fastapi_guard.stores.sqlalchemy import SQLAlchemyStore

SECRET = "hunter2hunter2"


def told(error: BaseException) -> str:
    """Return all that a log of the error would show, its causes included."""
    return "".join(traceback.format_exception(error)) + repr(error)


BREAKING = {
    "a constraint": "INSERT INTO secrets VALUES (:secret, :secret, 1)",
    "a check": "INSERT INTO secrets VALUES (:secret, 'b', -1)",
    "too long": "INSERT INTO secrets VALUES ('c', :secret || :secret, 1)",
    "another type": "INSERT INTO secrets VALUES ('d', 'd', CAST(CAST(:secret AS TEXT) AS INT))",
    "no table": "INSERT INTO nothing VALUES (CAST(:secret AS TEXT))",
}


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
@pytest.mark.parametrize("statement", BREAKING.values(), ids=BREAKING)
async def test_no_value_in_an_error(
    postgres_url: URL, driver: str, statement: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever PostgreSQL rejects, the error and its causes show neither the parameters nor the row."""
    engine = create_async_engine(postgres_url.set(drivername=f"postgresql+{driver}"))
    sessions = Sessions(async_sessionmaker(engine))
    table = "CREATE TABLE secrets (one VARCHAR(20) UNIQUE, two VARCHAR(20), number INT CHECK (number > 0))"

    def create(session: Session) -> None:
        session.execute(text("DROP TABLE IF EXISTS secrets"))
        session.execute(text(table))
        session.execute(text("INSERT INTO secrets VALUES (:secret, 'a', 1)"), {"secret": SECRET})

    await sessions.transaction(create)
    with caplog.at_level(logging.DEBUG, "fastapi_guard"), pytest.raises((Refused, ServiceUnavailable)) as error:
        await sessions.transaction(lambda session: session.execute(text(statement), {"secret": SECRET}))
    assert SECRET not in told(error.value) + caplog.text
    assert error.value.__context__ is None
    await sessions.transaction(lambda session: session.execute(text("DROP TABLE secrets")))
    await engine.dispose()


async def test_no_argument_in_an_error_of_asyncpg(postgres_url: URL) -> None:
    """An argument of the wrong type is quoted by asyncpg, and not shown."""
    engine = create_async_engine(postgres_url.set(drivername="postgresql+asyncpg"))
    with pytest.raises(Refused, match="Error: 'a value does not fit its column'") as error:
        await Sessions(async_sessionmaker(engine)).transaction(
            lambda session: session.execute(text("SELECT CAST(:secret AS INT)"), {"secret": SECRET})
        )
    assert SECRET not in told(error.value)
    await engine.dispose()


@pytest.mark.parametrize("echo", [True, "debug"])
async def test_no_secret_in_the_log_of_sql(echo: Any, caplog: pytest.LogCaptureFixture) -> None:
    """The log of SQLAlchemy, down to the rows, shows no hash of a password and no value of a record."""
    engine = create_engine("sqlite://", poolclass=StaticPool, echo=echo, connect_args={"check_same_thread": False})
    factory = sessionmaker(engine)
    users, store = DatabaseUsers(factory), SQLAlchemyStore(factory)
    with caplog.at_level(logging.DEBUG, "sqlalchemy"):
        await users.create_table()
        await store.create_table()
        await users.add(User(username="ada", password_hash=SECRET, subject_id="ada"))
        found = await users.by_login("ada")
        await store.add(record := Record("k", SECRET.encode(), "ada"))
        assert await store.get("k") == [record]
        assert await store.replace("k", record, record)
    assert found is not None
    assert str(found.password_hash) == SECRET
    assert "INSERT INTO" in caplog.text
    assert SECRET not in caplog.text
    engine.dispose()


LIBRARIES = {
    "sqlalchemy": [columns, failures, reader, replica, selects, sqlalchemy, sqlalchemy_changes],
    "redis": [redis],
}


@pytest.mark.parametrize(
    ("library", "module"), [(library, module) for library, modules in LIBRARIES.items() for module in modules]
)
def test_without_a_library(monkeypatch: pytest.MonkeyPatch, library: str, module: Any) -> None:
    """If the library is missing, the error names the extra."""
    for part in ("", ".exc", ".asyncio"):
        monkeypatch.setitem(sys.modules, library + part, None)
    spec: Any = util.spec_from_file_location("again", module.__file__)
    with pytest.raises(MissingExtraError, match=rf"pip install 'fastapi-guard-auth\[{library}\]'"):
        spec.loader.exec_module(util.module_from_spec(spec))
