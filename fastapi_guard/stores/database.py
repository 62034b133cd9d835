"""From a coroutine to the application's database and back, whether its sessions are synchronous or asynchronous.

Every piece of work is a sync function. An async engine runs it in a greenlet (``AsyncSession.run_sync``), a sync one in
a worker thread. Needs the extra ``sqlalchemy``.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from starlette.concurrency import run_in_threadpool

from fastapi_guard.exceptions import ConfigurationError, GuardError, MissingExtraError, ServiceUnavailable

try:
    from sqlalchemy import Connection, Engine, Executable
    from sqlalchemy.exc import DataError, DBAPIError, IntegrityError
    from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
    from sqlalchemy.orm import Session, sessionmaker
    from sqlalchemy.pool import SingletonThreadPool
except ImportError:
    raise MissingExtraError("sqlalchemy", "sqlalchemy") from None

if TYPE_CHECKING:
    from sqlalchemy.engine.interfaces import DBAPIConnection

logger: logging.Logger = logging.getLogger("fastapi_guard")

ResultT = TypeVar("ResultT")
SessionFactory = sessionmaker[Any] | async_sessionmaker[Any]

# Transactions of a stricter isolation that met (PostgreSQL, appendix A): what to do is to do it again.
_MET = frozenset({"40001", "40P01"})
_ATTEMPTS = 5
# The classes of a value that does not fit, and of a constraint that does not hold, likewise.
_RULES = frozenset({"22", "23"})
# An event loop does not keep its tasks alive by itself.
_under_way: Final[set[asyncio.Task[Any]]] = set()


class Refused(GuardError):
    """The database is there, and what was to be written breaks a rule of its own; the message is the database's."""


class Sessions:
    """The sessions of a factory, one for each piece of work, and the connections of its engine for single statements.

    What a connection cannot do because it was closed while it waited in the pool is done again on another, so that a
    restart of the database between two requests goes unnoticed. The pool throws away all that are as old.
    """

    def __init__(self, factory: SessionFactory, timeout_seconds: float | None = None) -> None:
        """Use ``factory``; single statements on an async engine are given up after ``timeout_seconds``.

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
        engine = self._engine()
        if engine is not None and isinstance(engine.pool, SingletonThreadPool):
            msg = (
                "this SQLite database is in memory, and another one in each thread: use a file, or create_engine("
                '"sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})'
            )
            raise ConfigurationError(msg)

    async def first(self, statement: Executable, parameters: Mapping[str, Any]) -> tuple[Any, ...] | None:
        """Return the first row of a query.

        Raises:
            ServiceUnavailable: The database cannot be asked.
        """
        return await self._answered(lambda: self._in_time(self._first, statement, parameters))

    async def execute(self, statement: Executable, parameters: Mapping[str, Any]) -> None:
        """Execute one statement in a transaction of its own.

        Raises:
            ServiceUnavailable: The database cannot be asked.
        """
        await self._answered(lambda: self._in_time(self._execute, statement, parameters))

    async def transaction(self, work: Callable[[Session], ResultT]) -> ResultT:
        """Return what ``work`` returns, in a session of its own that is committed then.

        Work that met another transaction is done again, so it must be free of effects outside of its session. What it
        raises of its own, a GuardError, a TypeError or a ValueError, is not the database's. Where the caller is
        cancelled, what has begun is finished.

        Raises:
            Refused: A constraint does not hold, or a value does not fit its column.
            ServiceUnavailable: The database cannot be asked, or cannot do it.
        """
        return await self._answered(lambda: self._to_the_end(self._commit, work), is_work=True)

    async def _answered(self, attempt: Callable[[], Awaitable[ResultT]], *, is_work: bool = False) -> ResultT:
        attempts = 0
        while True:
            attempts += 1
            try:
                return await attempt()
            except Exception as error:
                if is_work and isinstance(error, GuardError | TypeError | ValueError):
                    raise
                if is_work and _is_refusal(error):
                    raise Refused(_first_line(error)) from error
                if attempts == _ATTEMPTS or not _passes_by_itself(error):
                    raise _unavailable(error) from error

    async def _in_time(self, work: Callable[..., ResultT], *arguments: object) -> ResultT:
        if not self._is_async:
            return await run_in_threadpool(work, *arguments)
        engine = self._engine()
        run = self._run if engine is not None and engine.dialect.name != "sqlite" else self._to_the_end
        async with asyncio.timeout(self._timeout_seconds):
            return await run(work, *arguments)

    async def _to_the_end(self, work: Callable[..., ResultT], *arguments: object) -> ResultT:
        # A request that is cancelled leaves it to itself: where aiosqlite is interrupted, the database stays locked.
        task = asyncio.create_task(self._run(work, *arguments))
        _under_way.add(task)
        task.add_done_callback(_forget)
        return await asyncio.shield(task)

    async def _run(self, work: Callable[..., ResultT], *arguments: object) -> ResultT:
        if not self._is_async:
            return await run_in_threadpool(work, *arguments)
        return await self._greenlets.run_sync(lambda _: work(*arguments))

    def _commit(self, work: Callable[[Session], ResultT]) -> ResultT:
        with self._session() as session:
            result = work(session)
            session.flush()
            try:
                session.commit()
            except DBAPIError as error:
                if error.connection_invalidated:
                    # Nobody knows whether it was committed: it must not be done again.
                    raise _unavailable(error) from error
                raise
            return result

    def _first(self, statement: Executable, parameters: Mapping[str, Any]) -> tuple[Any, ...] | None:
        with self._connection() as connection:
            if self._is_async and isinstance(connection, Connection) and connection.dialect.name == "postgresql":
                return _first_in_autocommit(connection, statement, parameters)
            return connection.execute(statement, parameters).first()

    def _execute(self, statement: Executable, parameters: Mapping[str, Any]) -> None:
        with self._connection() as connection:
            connection.execute(statement, parameters)
            connection.commit()

    def _connection(self) -> Connection | Session:
        engine = self._engine()
        return self._session() if engine is None else engine.connect()

    def _session(self) -> Session:
        made = self._factory()
        return made.sync_session if isinstance(made, AsyncSession) else made

    def _engine(self) -> Engine | None:
        # A factory may be bound after this was made.
        options = self._factory.kw
        bind = None if "binds" in options else options.get("bind")
        if isinstance(bind, AsyncEngine):
            return bind.sync_engine
        return bind if isinstance(bind, Engine) else None


def _forget(task: asyncio.Task[Any]) -> None:
    _under_way.discard(task)
    # Where the caller was cancelled, nobody else asks.
    _ = task.cancelled() or task.exception()


def _first_in_autocommit(
    connection: Connection, statement: Executable, parameters: Mapping[str, Any]
) -> tuple[Any, ...] | None:
    # A transaction around one SELECT is two more round trips. The dialect is asked, and not
    # execution_options(isolation_level=...), whose bookkeeping takes as long as the SELECT itself.
    dialect, driver = connection.dialect, cast("DBAPIConnection", connection.connection.dbapi_connection)
    dialect.set_isolation_level(driver, "AUTOCOMMIT")
    try:
        return connection.execute(statement, parameters).first()
    finally:
        # One that was lost is not reused.
        if not connection.invalidated:
            dialect.reset_isolation_level(driver)


def _passes_by_itself(error: Exception) -> bool:
    return _sqlstate(error) in _MET or (isinstance(error, DBAPIError) and error.connection_invalidated)


def _is_refusal(error: Exception) -> bool:
    # What asyncpg says of a value is none of the DB-API's kinds of errors to SQLAlchemy.
    return isinstance(error, IntegrityError | DataError) or _sqlstate(error)[:2] in _RULES


def _sqlstate(error: Exception) -> str:
    return getattr(getattr(error, "orig", None), "sqlstate", None) or ""


def _unavailable(error: Exception) -> ServiceUnavailable:
    logger.warning("the database cannot be asked: %s", _first_line(error))
    return ServiceUnavailable(reason="database_unreachable")


def _first_line(error: BaseException | None) -> str:
    cause = getattr(error, "orig", None) or error
    text = str(cause).strip().partition("\n")[0]
    return f"{type(cause).__name__}: {text!r}"[:300]
