"""The thread in which SELECTs run on a sync engine: one hop between event loop and thread for each.

SQLite responds in microseconds. An asynchronous driver for it takes a hundred times as long, since each of its steps
goes through a thread; so SQLite is read through a sync engine in any case. Needs the extra ``sqlalchemy``.
"""

import asyncio
import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar
from weakref import finalize, ref

from fastapi_guard.exceptions import MissingExtraError
from fastapi_guard.stores.database import Sessions, keep_inherited
from fastapi_guard.stores.forks import reset_after_fork

try:
    from sqlalchemy import Engine, create_engine, event
    from sqlalchemy.orm import Session
    from sqlalchemy.pool import QueuePool
except ImportError:
    raise MissingExtraError("sqlalchemy", "sqlalchemy") from None

ResultT = TypeVar("ResultT")


class Reader:
    """Runs functions on a connection of a sync engine, one at a time, in a thread of its own.

    An async engine on a file of SQLite gets a sync engine on the same file beside it, which is disposed of together
    with it. A database in memory is visible to its own engine alone, and is read through that.
    """

    def __init__(self, sessions: Sessions) -> None:
        """Open nothing yet."""
        self._sessions = sessions
        self._executor: ThreadPoolExecutor | None = None
        self._beside: _Beside | None = None
        reset_after_fork(self)

    async def run(self, work: Callable[[Engine | None], ResultT]) -> ResultT:
        """Return the result of ``work`` on an engine, ``None`` for the one of the sessions in a coroutine of its own.

        An error of the database is raised as it is.
        """
        engine = self._sessions.engine
        if engine is not None and self._sessions.is_async:
            beside = self._beside
            if beside is None or beside.of() is not engine:
                beside = await self._open(engine)
            engine = beside.engine
        if engine is None:
            return await self._sessions.run_to_the_end(work, None)
        if self._executor is None:
            self._executor = ThreadPoolExecutor(1, thread_name_prefix="fastapi-guard-reads")
        return await asyncio.get_running_loop().run_in_executor(self._executor, work, engine)

    def after_fork(self) -> None:
        """Forget the thread of the parent process."""
        self._executor = self._beside = None

    async def _open(self, engine: Engine) -> "_Beside":
        path = await self._sessions.run_to_the_end(self._path)
        # Another request may have been as fast.
        if self._beside is None or self._beside.of() is not engine:
            self._beside = _Beside(engine, path)
        return self._beside

    def _path(self) -> str:
        with self._sessions.connection() as connection:
            driver = connection.connection() if isinstance(connection, Session) else connection
            listed = driver.exec_driver_sql("PRAGMA database_list")
            [path] = [file for _, name, file in listed if name == "main"]
            return path or ""


class _Beside:
    """A sync engine on the file of an async one; ``None`` where there is no file."""

    __slots__ = ("__weakref__", "engine", "of")

    def __init__(self, engine: Engine, path: str) -> None:
        self.of = ref(engine)
        self.engine: Engine | None = None
        if path:
            connect = partial(sqlite3.connect, path, check_same_thread=False)
            self.engine = create_engine(
                "sqlite://", creator=connect, poolclass=QueuePool, pool_size=1, max_overflow=0, hide_parameters=True
            )
            event.listen(self.engine, "connect", _only_read)
            event.listen(engine, "engine_disposed", partial(_dispose, ref(self.engine), os.getpid()))
            # With the Auth or the store that reads, which may end before its engine.
            finalize(self, _dispose, ref(self.engine), os.getpid(), self.engine).atexit = False


def _dispose(engine: "ref[Engine]", process: int, _: Engine) -> None:
    beside = engine()
    if beside is not None:
        inherited = process != os.getpid()
        if inherited:
            keep_inherited(beside.pool)
        beside.dispose(close=not inherited)


def _only_read(connection: sqlite3.Connection, _: object) -> None:
    connection.execute("PRAGMA query_only = ON")
