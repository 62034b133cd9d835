"""Open the database of a command from its URL, with error messages for people."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

from fastapi_guard.api_key.models import Base as Keys
from fastapi_guard.cli.options import URL_VARIABLE
from fastapi_guard.exceptions import ConfigurationError, GuardError, MissingExtraError
from fastapi_guard.login.factor_models import Base as Factors
from fastapi_guard.login.users.models import Base as Users
from fastapi_guard.stores.database import SessionFactory, Sessions
from fastapi_guard.stores.failures import is_transient
from fastapi_guard.stores.sqlalchemy import metadata as records

try:
    from sqlalchemy import URL, Connection, Engine, MetaData, create_engine, inspect, make_url
    from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
    from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
    from sqlalchemy.orm import sessionmaker
except ImportError:
    raise MissingExtraError("sqlalchemy", "sqlalchemy") from None

ResultT = TypeVar("ResultT")

KEYS, USERS, FACTORS, RECORDS = (Keys.metadata,), (Users.metadata,), (Factors.metadata,), (records,)
# The tables that init-db creates: API keys, users, second factors; records of sessions, refresh tokens and revocations.
TABLES = (*KEYS, *USERS, *FACTORS, *RECORDS)
# Drivers for a URL that names no driver, in the order in which they are tried.
_POSTGRES_DRIVERS = ("psycopg", "asyncpg", "psycopg2")
# What pip installs, for the modules of SQLAlchemy's drivers that have another name than their distribution.
_DISTRIBUTIONS = {
    "psycopg": "'psycopg[binary]'",
    "psycopg2": "psycopg2-binary",
    "MySQLdb": "mysqlclient",
    "mysql": "mysql-connector-python",
}


@dataclass(frozen=True, slots=True)
class Database:
    """An open database: its engine, and the factory of its sessions."""

    engine: Engine | AsyncEngine
    factory: SessionFactory

    async def dispose(self) -> None:
        """Close its connections."""
        if isinstance(self.engine, AsyncEngine):
            await self.engine.dispose()
        else:
            self.engine.dispose()


def run(
    url: str | None,
    work: Callable[[SessionFactory], Awaitable[ResultT]],
    *,
    create_tables: bool = False,
    tables: Sequence[MetaData] = KEYS,
) -> ResultT:
    """Return what ``work`` returns on the database at ``url``.

    Args:
        url: A URL of SQLAlchemy, with a sync or an async driver; optional for PostgreSQL.
        work: Called with a session factory.
        create_tables: Whether to create missing tables; otherwise a missing table is an error.
        tables: The tables that ``work`` uses.

    Raises:
        GuardError: There is no URL, the database cannot be reached, or tables are missing.
    """
    if not url:
        msg = f"which database? Pass --database-url or set {URL_VARIABLE}"
        raise ConfigurationError(msg)
    return asyncio.run(_run(_parsed(url), work, create_tables, tables))


async def has_tables(sessions: SessionFactory, tables: Sequence[MetaData]) -> bool:
    """Return whether the database of ``sessions`` has all of these tables."""
    return not await Sessions(sessions).transaction(lambda session: _missing_tables(tables, session.connection()))


def open_database(url: str) -> Database:
    """Return the database at ``url``, as in ``run``. The caller disposes of its engine.

    Raises:
        ConfigurationError: The URL is malformed, or its driver is not installed.
    """
    return _open(_parsed(url))


async def _run(
    url: URL,
    work: Callable[[SessionFactory], Awaitable[ResultT]],
    create_tables: bool,  # noqa: FBT001 - called by run() only
    tables: Sequence[MetaData],
) -> ResultT:
    if url.get_backend_name() == "sqlite" and url.database and not create_tables:
        # SQLite would create an empty file for a mistyped name.
        _check_file(url.database)
    database = _open(url)
    try:
        with _reaching():
            if create_tables:
                await _created(database.engine, tables)
            missing = await _on_connection(database.engine, partial(_missing_tables, tables))
        if missing:
            msg = f"there is no table {' and no table '.join(missing)} in this database: run fastapi-guard init-db"
            raise GuardError(msg)
        return await work(database.factory)
    finally:
        await database.dispose()


def _parsed(text: str) -> URL:
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        # The message of SQLAlchemy contains the URL, and with it a password.
        url = None
    # A part of a password that has an @ of its own would be part of the host, which the error of a driver repeats.
    if url is None or "@" in (url.host or ""):
        msg = (
            "the database URL is malformed: write it as sqlite:///keys.db or postgresql://user:password@host/name,"
            " and characters such as @ and / in the password as %40 and %2F"
        )
        raise ConfigurationError(msg)
    if url.drivername in ("postgres", "postgresql"):
        driver = next((name for name in _POSTGRES_DRIVERS if find_spec(name)), _POSTGRES_DRIVERS[0])
        return url.set(drivername=f"postgresql+{driver}")
    return url


def _check_file(path: str) -> None:
    if path != ":memory:" and not path.startswith("file:") and not Path(path).is_file():
        msg = f"the database cannot be reached: there is no file {path}; create it with fastapi-guard init-db"
        raise GuardError(msg)


def _open(url: URL) -> Database:
    try:
        # Look-ups share a connection: more of them, opened and closed in bursts, make them slower.
        pool = {"max_overflow": 0} if url.get_backend_name() == "postgresql" else {}
        if url.get_dialect().is_async:
            engine = create_async_engine(url, **pool)
            return Database(engine, async_sessionmaker(engine))
        sync = create_engine(url, **pool)
        return Database(sync, sessionmaker(sync))
    except NoSuchModuleError:
        msg = f"the database URL names a database that SQLAlchemy does not support: {url.drivername}"
        raise ConfigurationError(msg) from None
    except ImportError as error:
        package = _DISTRIBUTIONS.get(str(error.name), error.name)
        msg = f"the driver of {url.drivername} is not installed: pip install {package}"
        raise ConfigurationError(msg) from None


@contextmanager
def _reaching() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        cause = getattr(error, "orig", None) or error
        msg = f"the database cannot be reached: {str(cause) or type(cause).__name__}"
        raise GuardError(msg) from error


async def _on_connection(engine: Engine | AsyncEngine, work: Callable[[Connection], ResultT]) -> ResultT:
    if isinstance(engine, AsyncEngine):
        async with engine.begin() as connection:
            return await connection.run_sync(work)
    with engine.begin() as connection:
        return work(connection)


def _missing_tables(tables: Sequence[MetaData], connection: Connection) -> list[str]:
    existing = inspect(connection)
    return [table.name for metadata in tables for table in metadata.sorted_tables if not existing.has_table(table.name)]


async def _created(engine: Engine | AsyncEngine, tables: Sequence[MetaData]) -> None:
    attempts = sum(len(metadata.tables) for metadata in tables)
    while True:
        try:
            await _on_connection(engine, partial(_create, tables))
        except DBAPIError as error:
            # Another process may be creating the same tables, each of which can fail here once.
            attempts -= 1
            if attempts < 0 or not is_transient(error):
                raise
        else:
            return


def _create(tables: Sequence[MetaData], connection: Connection) -> None:
    for metadata in tables:
        metadata.create_all(connection)
