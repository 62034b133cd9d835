"""From a coroutine to the database and back, with one implementation for sync and async SQLAlchemy.

Every piece of work is a sync function. An async engine runs it in a greenlet (``AsyncSession.run_sync``), a sync one in
a worker thread. Whatever goes wrong on the way is ServiceUnavailable. Needs the extra ``sqlalchemy``.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from starlette.concurrency import run_in_threadpool

from fastapi_guard.exceptions import ConfigurationError, GuardError, KeyConflict, MissingExtraError, ServiceUnavailable

try:
    from sqlalchemy import Connection, Engine, Executable
    from sqlalchemy.exc import DataError, DBAPIError, IntegrityError
    from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
    from sqlalchemy.orm import Session, sessionmaker
    from sqlalchemy.pool import SingletonThreadPool
except ImportError:
    raise MissingExtraError("sqlalchemy", "sqlalchemy") from None

logger: logging.Logger = logging.getLogger("fastapi_guard")

ResultT = TypeVar("ResultT")
SessionFactory = sessionmaker[Any] | async_sessionmaker[Any]

_SERIALIZATION_FAILURE = "40001"


class Sessions:
    """The sessions of a factory, and the connections of its engine for single statements."""

    def __init__(self, factory: SessionFactory, timeout_seconds: float) -> None:
        """Use ``factory``; look-ups on an async engine are given up after ``timeout_seconds``.

        Raises:
            ConfigurationError: It is no session factory, or its database cannot be seen from another thread.
        """
        if not isinstance(factory, sessionmaker | async_sessionmaker):
            msg = f"pass a factory, sessionmaker(engine) or async_sessionmaker(engine), not {type(factory).__name__}"
            raise ConfigurationError(msg)
        self._factory = factory
        self._is_async = isinstance(factory, async_sessionmaker)
        self._timeout_seconds = timeout_seconds
        # Only its run_sync is used, which is the documented way from a coroutine to a sync function: it has no state.
        self._greenlets = AsyncSession()
        self._bind: object = None
        self._engine: Engine | None = None
        self._current_engine()

    async def row(self, statement: Executable, parameters: Mapping[str, Any]) -> tuple[Any, ...] | None:
        """Return the first row of a query.

        Raises:
            ServiceUnavailable: The database cannot be asked.
        """
        return await self._ask(self._read, statement, parameters)

    async def write(self, statement: Executable, parameters: Mapping[str, Any]) -> None:
        """Execute one statement in a transaction of its own.

        Raises:
            ServiceUnavailable: The database cannot be asked.
        """
        await self._ask(self._write, statement, parameters)

    async def transaction(self, work: Callable[[Session], ResultT]) -> ResultT:
        """Return what ``work`` returns, in a session that is committed then.

        Raises:
            KeyConflict: The database refused the row, or another transaction was first.
            ServiceUnavailable: The database cannot be asked.
        """
        try:
            return await self._in_session(work)
        except (GuardError, TypeError, ValueError):
            raise
        except (IntegrityError, DataError) as error:
            msg = f"the database refused the API key: {_first_line(error.orig)}"
            raise KeyConflict(msg) from error
        except Exception as error:
            if isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", None) == _SERIALIZATION_FAILURE:
                msg = "another transaction changed the API key first: look at it and try again"
                raise KeyConflict(msg) from error
            raise _unavailable(error) from error

    async def _ask(self, work: Callable[..., ResultT], *arguments: object) -> ResultT:
        try:
            try:
                return await self._once(work, *arguments)
            except DBAPIError as error:
                # The connection was closed while it waited in the pool: the server was restarted. The pool has thrown
                # away all that are as old, so that a second try tells whether the database is back.
                if not error.connection_invalidated:
                    raise
                return await self._once(work, *arguments)
        except Exception as error:
            raise _unavailable(error) from error

    async def _once(self, work: Callable[..., ResultT], *arguments: object) -> ResultT:
        if not self._is_async:
            return await run_in_threadpool(work, None, *arguments)
        async with asyncio.timeout(self._timeout_seconds):
            return await self._greenlets.run_sync(work, *arguments)

    async def _in_session(self, work: Callable[[Session], ResultT]) -> ResultT:
        if not self._is_async:
            return await run_in_threadpool(self._committed, work)
        return await self._greenlets.run_sync(lambda _: self._committed(work))

    def _committed(self, work: Callable[[Session], ResultT]) -> ResultT:
        with self._session() as session:
            result = work(session)
            session.commit()
            return result

    def _session(self) -> Session:
        made = self._factory()
        return made.sync_session if isinstance(made, AsyncSession) else made

    def _connection(self) -> Connection | Session:
        engine = self._current_engine()
        return self._session() if engine is None else engine.connect()

    def _read(self, _: object, statement: Executable, parameters: Mapping[str, Any]) -> tuple[Any, ...] | None:
        with self._connection() as connection:
            return connection.execute(statement, parameters).first()

    def _write(self, _: object, statement: Executable, parameters: Mapping[str, Any]) -> None:
        with self._connection() as connection:
            connection.execute(statement, parameters)
            connection.commit()

    def _current_engine(self) -> Engine | None:
        # A factory may be bound after the Auth was made.
        bind = self._factory.kw.get("bind")
        if bind is not self._bind:
            self._engine = None if "binds" in self._factory.kw else _engine_of(bind)
            self._bind = bind
        return self._engine


def _engine_of(bind: object) -> Engine | None:
    if isinstance(bind, AsyncEngine):
        # A transaction around one SELECT is two more round trips.
        if bind.dialect.name == "postgresql":
            return bind.sync_engine.execution_options(isolation_level="AUTOCOMMIT")
        return bind.sync_engine
    if not isinstance(bind, Engine):
        return None
    if isinstance(bind.pool, SingletonThreadPool):
        msg = (
            "this SQLite database is in memory, and another one in each thread: use a file, or create_engine("
            '"sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})'
        )
        raise ConfigurationError(msg)
    return bind


def _unavailable(error: Exception) -> ServiceUnavailable:
    logger.warning("the database of the API keys cannot be asked: %s", _first_line(error))
    return ServiceUnavailable(reason="database_unreachable")


def _first_line(error: BaseException | None) -> str:
    cause = getattr(error, "orig", None) or error
    text = str(cause).strip().partition("\n")[0]
    return f"{type(cause).__name__}: {text!r}"[:300]
