"""Access to the database of the application, through its own session factory, whether that is sync or async.

All work is written as a sync function. An async engine runs it in a greenlet, a sync one in a worker thread. Needs the
extra ``sqlalchemy``.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from typing import Any, Final, TypeVar, cast

from starlette.concurrency import run_in_threadpool

from fastapi_guard.exceptions import ConfigurationError, GuardError, MissingExtraError, ServiceUnavailable
from fastapi_guard.stores.failures import is_refusal, is_transient, refused, unavailable
from fastapi_guard.stores.forks import reset_after_fork
from fastapi_guard.stores.greenlets import run_in_greenlet
from fastapi_guard.stores.places import place_of_engine

try:
    from sqlalchemy import Connection, CursorResult, Engine, Executable
    from sqlalchemy.exc import DBAPIError, IntegrityError
    from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
    from sqlalchemy.orm import Session, sessionmaker
    from sqlalchemy.pool import Pool, SingletonThreadPool
except ImportError:
    raise MissingExtraError("sqlalchemy", "sqlalchemy") from None

ResultT = TypeVar("ResultT")
SessionFactory = sessionmaker[Any] | async_sessionmaker[Any]

_ATTEMPTS: Final = 5
# Longer than SQLite waits for a lock by default.
_LONGEST_SECONDS: Final = 30.0
_PAUSES_SECONDS: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
# An event loop does not keep its tasks alive by itself.
_under_way: Final[set[asyncio.Task[Any]]] = set()
# Pools of the parent process: their connections must not even be closed here.
_inherited: Final[list[Pool]] = []


class Sessions:
    """The sessions of a factory for units of work, and the connections of its engine for single statements.

    Work that fails because its connection was closed while it waited in the pool is done again on another connection:
    a restart of the database between two requests goes unnoticed. In a forked process the pool starts empty.
    """

    def __init__(self, factory: SessionFactory) -> None:
        """Use ``factory``.

        Raises:
            ConfigurationError: It is not a session factory, it is a sync one of an async engine or the reverse, or its
                database is not visible from another thread.
        """
        if not isinstance(factory, sessionmaker | async_sessionmaker):
            msg = f"pass a factory, sessionmaker(engine) or async_sessionmaker(engine), not {type(factory).__name__}"
            raise ConfigurationError(msg)
        self._factory = factory
        self._place: Hashable | None = None
        engine, bind = self.engine, factory.kw.get("bind")
        if engine is not None and not (self.is_async == engine.dialect.is_async == isinstance(bind, AsyncEngine)):
            msg = "pass sessionmaker(create_engine(url)) or async_sessionmaker(create_async_engine(url)), and not a mix"
            raise ConfigurationError(msg)
        if engine is not None and isinstance(engine.pool, SingletonThreadPool):
            msg = (
                "this SQLite database is in memory, and another one in each thread: use a file, or create_engine("
                '"sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})'
            )
            raise ConfigurationError(msg)
        reset_after_fork(self)

    @property
    def is_async(self) -> bool:
        """Whether the engine is an async one."""
        return isinstance(self._factory, async_sessionmaker)

    @property
    def engine(self) -> Engine | None:
        """The engine that the factory is bound to now; ``None`` where it is bound to anything else."""
        # A factory may be bound after this was made.
        options = self._factory.kw
        bind = None if "binds" in options else options.get("bind")
        if isinstance(bind, AsyncEngine):
            return bind.sync_engine
        return bind if isinstance(bind, Engine) else None

    @property
    def place(self) -> Hashable:
        """The database, without a password; the factory where it is bound to anything else than an engine."""
        # Kept once it is known: the path of a SQLite file may be relative to a folder that the process leaves later.
        if self._place is None and (engine := self.engine) is not None:
            self._place = place_of_engine(engine)
        return self._factory if self._place is None else self._place

    async def transaction(self, work: Callable[[Session], ResultT], *, is_long: bool = False) -> ResultT:
        """Return the result of ``work``, in a session of its own that is committed afterwards.

        Work that conflicts with another transaction is done again, so it must have no effects outside of its session.
        A GuardError, TypeError, ValueError or LookupError that it raises is raised as it is. Where the caller is
        cancelled, or has waited for half a minute, work that has begun is finished.

        Args:
            work: What to do.
            is_long: Whether it may take any time, and is waited for.

        Raises:
            Refused: A constraint is violated, or a value does not fit its column.
            ServiceUnavailable: The database is unreachable, cannot do it, or does not respond.
        """
        return await self._done(self._session, work, is_long=is_long)

    async def change(self, work: Callable[[Connection | Session], ResultT], *, is_long: bool = False) -> ResultT:
        """Return the result of ``work`` as ``transaction`` does, on a connection instead of a session.

        Raises:
            Refused: A constraint is violated, or a value does not fit its column.
            ServiceUnavailable: The database is unreachable, cannot do it, or does not respond.
        """
        return await self._done(self.connection, work, is_long=is_long)

    async def execute(self, statement: Executable, parameters: Mapping[str, Any]) -> None:
        """Execute one statement in a transaction of its own.

        Raises:
            ServiceUnavailable: The database is unreachable, or cannot do it.
        """

        def work(connection: Connection | Session) -> None:
            connection.execute(statement, parameters)

        await self.attempt(lambda: self.run_in_time(self._committed, self.connection, work))

    async def attempt(self, attempt: Callable[[], Awaitable[ResultT]], *, is_work: bool = False) -> ResultT:
        """Return the result of ``attempt``, which is called again where the connection was lost.

        Args:
            attempt: Does it once.
            is_work: Whether it may raise errors of its own, and break rules of the database.

        Raises:
            Refused: A constraint is violated, or a value does not fit its column; for work alone.
            ServiceUnavailable: The database is unreachable, or cannot do it.
        """
        attempts = 0
        while True:
            attempts += 1
            try:
                return await attempt()
            except Exception as error:
                if is_work and isinstance(error, GuardError | TypeError | ValueError | LookupError):
                    raise
                if attempts < _ATTEMPTS and is_transient(error):
                    continue
                failure = refused(error) if is_work and is_refusal(error) else unavailable(error)
            # Not within the except clause: the error of the driver, which quotes values, is not even the context.
            raise failure

    async def run(self, work: Callable[..., ResultT], *arguments: object) -> ResultT:
        """Return the result of a sync function, in a greenlet or in a worker thread."""
        if not self.is_async:
            return await run_in_threadpool(work, *arguments)
        return await run_in_greenlet(work, *arguments)

    async def run_to_the_end(self, work: Callable[..., ResultT], *arguments: object) -> ResultT:
        """Return the result of a sync function as ``run`` does; where the caller is cancelled, it is finished."""
        # A request that is cancelled leaves the work to itself: an aiosqlite that is interrupted stays locked.
        task = asyncio.create_task(self.run(work, *arguments))
        _under_way.add(task)
        task.add_done_callback(_forget)
        return await asyncio.shield(task)

    async def run_in_time(self, work: Callable[..., ResultT], *arguments: object) -> ResultT:
        """Return the result of a sync function as ``run_to_the_end`` does, for which the caller waits half a minute.

        Raises:
            TimeoutError: The caller has waited; the function goes on.
        """
        async with asyncio.timeout(_LONGEST_SECONDS):
            return await self.run_to_the_end(work, *arguments)

    def connection(self) -> Connection | Session:
        """Return a connection of the engine, or a session where there is none; the caller closes it."""
        engine = self.engine
        return self._session() if engine is None else engine.connect()

    def after_fork(self) -> None:
        """Leave the connections of the parent process to it."""
        engine = self.engine
        if engine is not None:
            keep_inherited(engine.pool)
            engine.dispose(close=False)

    async def _done(
        self, opened: Callable[[], Any], work: Callable[[Any], ResultT], *, is_long: bool = False
    ) -> ResultT:
        run = self.run_to_the_end if is_long else self.run_in_time
        return await self.attempt(lambda: run(self._committed, opened, work), is_work=True)

    def _committed(self, opened: Callable[[], Any], work: Callable[[Any], ResultT]) -> ResultT:
        with opened() as transaction:
            result = work(transaction)
            if isinstance(transaction, Session):
                transaction.flush()
            lost = None
            try:
                transaction.commit()
            except DBAPIError as error:
                if not error.connection_invalidated:
                    raise
                # It may have been committed or not: it must not be done again.
                lost = unavailable(error)
            if lost is not None:
                raise lost
            return result

    def _session(self) -> Session:
        made = self._factory()
        return made.sync_session if isinstance(made, AsyncSession) else made


async def create_tables(sessions: Sessions, *models: type[Any]) -> None:
    """Create the tables of these models unless they exist."""

    def create(session: Session) -> None:
        for model in models:
            model.__table__.create(session.connection(), checkfirst=True)

    await sessions.transaction(create)


async def insert(sessions: Sessions, make_row: Callable[[], object]) -> bool:
    """Insert a row unless a unique column is taken; return whether it was inserted."""

    def work(session: Session) -> bool:
        session.add(make_row())
        try:
            session.flush()
        except IntegrityError:
            session.rollback()
            return False
        return True

    return await sessions.transaction(work)


async def change_one(sessions: Sessions, statement: Executable) -> bool:
    """Return whether ``statement`` changed one row; a unique column that is taken changes none."""

    def work(session: Session) -> bool:
        try:
            return cast("CursorResult[Any]", session.execute(statement)).rowcount == 1
        except IntegrityError:
            session.rollback()
            return False

    return await sessions.transaction(work)


async def write_unlocked(attempt: Callable[[], Awaitable[bool]]) -> None:
    """Call ``attempt``, which uses ``execute_without_waiting``, until it was written, for about a second.

    In between no connection is held, and no request waits.

    Raises:
        ServiceUnavailable: The database was locked each time.
    """
    for pause in (0, *_PAUSES_SECONDS):
        await asyncio.sleep(pause)
        if await attempt():
            return
    raise ServiceUnavailable(reason="locked")


def execute_without_waiting(
    connection: Connection, statement: Executable, parameters: Sequence[Mapping[str, Any]]
) -> bool:
    """Execute a statement that skips locked rows; return ``False`` where SQLite, which has one lock, is locked.

    On SQLite the transaction is committed, or rolled back.
    """
    if connection.dialect.name != "sqlite":
        connection.execute(statement, parameters)
        return True
    driver = connection.connection
    pragma = driver.cursor()
    pragma.execute("PRAGMA busy_timeout")
    (patience,) = cast("tuple[int]", pragma.fetchone())
    pragma.execute("PRAGMA busy_timeout = 0")
    try:
        connection.execute(statement, parameters)
        # Here, since a commit waits for those who read, unless the file is in WAL mode.
        driver.commit()
    except Exception as error:
        cause = getattr(error, "orig", error)
        if "locked" not in str(cause):
            raise
        driver.rollback()
        return False
    finally:
        pragma.execute(f"PRAGMA busy_timeout = {patience}")
        pragma.close()
    return True


def can_be_stored(text: str) -> bool:
    """Return whether a database stores ``text``: none stores a lone surrogate, and PostgreSQL no NUL."""
    return "\x00" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def keep_inherited(pool: Pool) -> None:
    """Keep a pool of the parent process, so that no connection of it is closed when it is collected."""
    _inherited.append(pool)


def _forget(task: asyncio.Task[Any]) -> None:
    _under_way.discard(task)
    # Where the caller was cancelled, this is the only place that retrieves the exception.
    _ = task.cancelled() or task.exception()
