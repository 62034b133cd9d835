"""Tables that several processes create at once, as the workers of an application do at its first start."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from psycopg import errors
from sqlalchemy import URL, Table, create_engine, event, inspect, make_url
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.orm import sessionmaker
from sqlalchemy.pool import NullPool

from fastapi_guard import GuardError, ServiceUnavailable
from fastapi_guard.cli.database import TABLES, run
from fastapi_guard.login.users import DatabaseUsers
from fastapi_guard.login.users.models import StoredUser
from fastapi_guard.stores.failures import is_transient
from fastapi_guard.stores.sqlalchemy import SQLAlchemyStore, records


@contextmanager
def meeting(table: Any) -> Iterator[None]:
    """Let two creations of a table begin after both have found that there is none."""
    barrier, lock, seen = threading.Barrier(2), threading.Lock(), []

    def meet(*_: object, **__: object) -> None:
        with lock:
            seen.append(1)
            is_first = len(seen) <= 2
        if is_first:
            barrier.wait(60)

    event.listen(table, "before_create", meet)
    try:
        yield
        assert len(seen) >= 2
    finally:
        event.remove(table, "before_create", meet)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[URL]:
    """Yield the URL of a database without our tables."""
    if request.param == "sqlite":
        yield make_url(f"sqlite:///{tmp_path}/shop.db")
        return
    found: URL = request.getfixturevalue("postgres_url").set(drivername="postgresql+psycopg")
    engine = create_engine(found, poolclass=NullPool)
    tables: list[Table] = [table for metadata in TABLES for table in metadata.sorted_tables]
    for table in tables:
        table.drop(engine, checkfirst=True)
    yield found
    for table in tables:
        table.drop(engine, checkfirst=True)


def at_once(create: Callable[[], object]) -> None:
    """Call a function in two threads."""
    with ThreadPoolExecutor(2) as threads:
        for future in [threads.submit(create) for _ in range(2)]:
            future.result(120)


@pytest.mark.parametrize(("kind", "table"), [(DatabaseUsers, StoredUser.__table__), (SQLAlchemyStore, records)])
def test_two_workers(url: URL, kind: Any, table: Any) -> None:
    """Both workers start, and the table is there."""

    def create() -> None:
        asyncio.run(kind(sessionmaker(create_engine(url, poolclass=NullPool))).create_table())

    with meeting(table):
        at_once(create)
    assert inspect(create_engine(url, poolclass=NullPool)).has_table(table.name)


def test_two_commands(tmp_path: Path) -> None:
    """Two runs of ``init-db`` both succeed, and every table is there."""

    async def nothing(_: object) -> None:
        return None

    place = f"sqlite:///{tmp_path}/shop.db"
    with meeting(StoredUser.__table__):
        at_once(lambda: run(place, nothing, create_tables=True, tables=TABLES))
    found = inspect(create_engine(place, poolclass=NullPool)).get_table_names()
    assert {table.name for metadata in TABLES for table in metadata.sorted_tables} <= {*found}


@pytest.mark.parametrize(
    "error",
    [
        errors.DuplicateTable("Relation »users« existiert bereits"),
        errors.DuplicateObject("Typ »users« existiert bereits"),
        errors.UniqueViolation("doppelter Schlüsselwert verletzt Unique-Constraint »pg_type_typname_nsp_index«"),
        errors.UniqueViolation("doppelter Schlüsselwert verletzt Unique-Constraint »pg_class_relname_nsp_index«"),
    ],
)
def test_a_server_in_another_language(error: Exception) -> None:
    """A table of another process is recognised whatever the language of the messages of PostgreSQL is."""
    assert is_transient(DBAPIError("CREATE TABLE users", {}, error))


def test_a_table_that_is_never_found(tmp_path: Path) -> None:
    """A table that cannot be created, although another attempt might, is an error after some attempts."""

    def exists(*_: object, **__: object) -> None:
        raise OperationalError("CREATE TABLE", {}, Exception("table users already exists"))

    async def nothing(_: object) -> None:
        raise AssertionError  # pragma: no cover - not reached

    place = f"sqlite:///{tmp_path}/shop.db"
    event.listen(StoredUser.__table__, "before_create", exists)
    try:
        with pytest.raises(GuardError, match="already exists"):
            run(place, nothing, create_tables=True, tables=TABLES)
        with pytest.raises(ServiceUnavailable):
            asyncio.run(DatabaseUsers(sessionmaker(create_engine(place, poolclass=NullPool))).create_table())
    finally:
        event.remove(StoredUser.__table__, "before_create", exists)
