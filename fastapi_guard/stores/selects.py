"""SELECTs on the way of a request: Core statements that are built once, without a transaction, and shared.

Needs the extra ``sqlalchemy``.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from fastapi_guard.exceptions import MissingExtraError
from fastapi_guard.stores.database import Sessions
from fastapi_guard.stores.driver import DriverRows, DriverSelect, Statement
from fastapi_guard.stores.failures import Refused, is_unreadable, unavailable
from fastapi_guard.stores.reader import Reader
from fastapi_guard.stores.shared import MAX_KEYS, SharedReads

try:
    from sqlalchemy import (
        ARRAY,
        Column,
        ColumnElement,
        Connection,
        Engine,
        Executable,
        FromClause,
        Row,
        bindparam,
        case,
        func,
        select,
    )
    from sqlalchemy.orm import Session
except ImportError:
    raise MissingExtraError("sqlalchemy", "sqlalchemy") from None

if TYPE_CHECKING:
    from sqlalchemy.engine.interfaces import DBAPIConnection, Dialect

ResultT = TypeVar("ResultT")
Rows = Sequence[Row[Any]]

TIMEOUT_SECONDS: Final = 10.0
# A list of keys is filled with NULL up to one of these lengths, so that there are as many statements.
_SIZES: Final = (10, MAX_KEYS)
_NAMES: Final = tuple(f"key_{number}" for number in range(MAX_KEYS))


class Selects:
    """Runs SELECTs: without a transaction on PostgreSQL, in one thread on a sync engine and on SQLite."""

    def __init__(self, sessions: Sessions, timeout_seconds: float | None = TIMEOUT_SECONDS) -> None:
        """Read through ``sessions``; a SELECT is given up after ``timeout_seconds``, which ends no thread."""
        self._sessions = sessions
        self._timeout_seconds = timeout_seconds
        self._reader = Reader(sessions)

    async def all(self, statement: Executable, parameters: Mapping[str, Any]) -> Rows:
        """Return the rows of a query.

        Raises:
            ServiceUnavailable: The database is unreachable, or took too long.
            GuardError: It rejects a parameter.
            Exception: A row cannot be read: a ValueError, TypeError or LookupError.
        """
        return await self._attempt(partial(self._by_core, statement, parameters))

    async def look_up(self, select: DriverSelect, parameters: Mapping[str, Any]) -> DriverRows:
        """Return the rows of a query as ``all`` does, by the driver itself where that is enough."""
        return await self._attempt(partial(self._by_driver, select, parameters))

    def _attempt(self, work: Callable[[Engine | None], ResultT]) -> Awaitable[ResultT]:
        return self._sessions.attempt(partial(self._run, work), is_work=True)

    async def _run(self, work: Callable[[Engine | None], ResultT]) -> ResultT:
        engine = self._sessions.engine
        try:
            async with asyncio.timeout(self._timeout_seconds):
                if engine is None:
                    return await self._sessions.run_to_the_end(work, None)
                if not self._sessions.is_async or engine.dialect.name == "sqlite":
                    return await self._reader.run(work)
                return await self._sessions.run(work, engine)
        except Exception as error:
            if not is_unreadable(error):
                raise
        # Not within the except clause: the error of the driver, which may quote the value, is not even the context.
        msg = "a value in a row cannot be read"
        raise ValueError(msg)

    def _by_driver(self, select: DriverSelect, parameters: Mapping[str, Any], engine: Engine | None) -> DriverRows:
        found = None if engine is None else select.rows(engine, parameters)
        return self._by_core(select.statement, parameters, engine) if found is None else found

    def _by_core(self, statement: Executable, parameters: Mapping[str, Any], engine: Engine | None) -> Rows:
        with self._sessions.connection() if engine is None else engine.connect() as connection:
            return _rows(connection, statement, parameters)


class SharedSelect:
    """The rows of a table by one of its columns; requests at the same time share a SELECT."""

    def __init__(
        self,
        sessions: Sessions,
        columns: Sequence[ColumnElement[Any]],
        *,
        timeout_seconds: float | None = TIMEOUT_SECONDS,
        decoy: Sequence[ColumnElement[Any] | None] = (),
    ) -> None:
        """Select ``columns``, of which the first is the unique one to look up by.

        Args:
            sessions: Where the table is.
            columns: Of one table.
            timeout_seconds: The longest time that a request waits; ``None`` for no limit.
            decoy: Values of the columns after the first, ``None`` for NULL. The database returns a row of them for each
                key without a row, on PostgreSQL and SQLite, so that both cost the same. Empty: there is no such row.
        """
        self._sessions = sessions
        self._selects = Selects(sessions, timeout_seconds)
        key = columns[0]
        # Not as an array of one key: PostgreSQL plans that SELECT again for each execution.
        wanted: ColumnElement[Any] = bindparam("key", type_=key.type)
        lone: Statement = select(*columns).where(key == wanted)
        # One statement with one parameter for any number of keys, where the database has arrays.
        array = func.unnest(bindparam("keys", type_=ARRAY(key.type))).table_valued("value").render_derived()
        by_array: Statement = select(*columns).join(array, key == array.c.value)
        self._by_list = {size: DriverSelect(_by_list(columns, size)) for size in _SIZES}
        self._by_json: DriverSelect | None = None
        if decoy:
            lone = _with_decoys(columns, decoy, select(wanted.label("value")).subquery())
            by_array = _with_decoys(columns, decoy, array).where(array.c.value.is_not(None))
            # SQLite has no arrays: it reads the keys from JSON.
            listed = func.json_each(bindparam("keys")).table_valued("value")
            self._by_json = DriverSelect(_with_decoys(columns, decoy, listed))
        self._lone, self._by_array = DriverSelect(lone), DriverSelect(by_array)
        self._reads: SharedReads[Any, Sequence[Any]] = SharedReads(self._read, timeout_seconds=timeout_seconds)

    async def rows(self, *keys: object) -> list[Sequence[Any] | None]:
        """Return the rows with these keys, in that order, ``None`` where there is no row.

        Raises:
            ServiceUnavailable: The database is unreachable, or took too long; or one of these rows cannot be read.
        """
        try:
            found = await self._reads.get(keys)
        except (Refused, TypeError, ValueError, LookupError) as error:
            failure = unavailable(error)
        else:
            return [found.get(key) for key in keys]
        raise failure

    async def _read(self, keys: list[Any]) -> dict[Any, Sequence[Any]]:
        engine = self._sessions.engine
        dialect = "" if engine is None else engine.dialect.name
        if len(keys) == 1:
            found = await self._selects.look_up(self._lone, {"key": keys[0]})
        elif dialect == "postgresql":
            # PostgreSQL expects ten keys, and would plan a SELECT of fewer again for each execution.
            padded = keys + [None] * (_SIZES[0] - len(keys))
            found = await self._selects.look_up(self._by_array, {"keys": padded})
        elif dialect == "sqlite" and self._by_json is not None:
            found = await self._selects.look_up(self._by_json, {"keys": json.dumps(keys)})
        else:
            size = next(size for size in _SIZES if size >= len(keys))
            padded = keys + [None] * (size - len(keys))
            found = await self._selects.look_up(self._by_list[size], dict(zip(_NAMES, padded, strict=False)))
        return {row[0]: row for row in found}


def _by_list(columns: Sequence[ColumnElement[Any]], size: int) -> Statement:
    wanted = [bindparam(name, type_=columns[0].type) for name in _NAMES[:size]]
    return select(*columns).where(columns[0].in_(wanted))


def _with_decoys(
    columns: Sequence[ColumnElement[Any]], decoy: Sequence[ColumnElement[Any] | None], wanted: FromClause
) -> Statement:
    key, *others = columns
    values = [
        column if value is None else case((key.is_not(None), column), else_=value)
        for column, value in zip(others, decoy, strict=True)
    ]
    table = cast("Column[Any]", key).table
    return select(wanted.c.value, *values).select_from(wanted.outerjoin(table, key == wanted.c.value))


def _rows(connection: Connection | Session, statement: Executable, parameters: Mapping[str, Any]) -> Rows:
    if isinstance(connection, Session) or connection.dialect.name != "postgresql":
        return connection.execute(statement, parameters).all()
    # A transaction around one SELECT is two more round trips. The dialect is called directly: the bookkeeping of
    # execution_options(isolation_level=...) takes as long as the SELECT itself.
    dialect, driver = connection.dialect, cast("DBAPIConnection", connection.connection.dbapi_connection)
    if _needs_transaction(dialect, driver):
        return connection.execute(statement, parameters).all()
    dialect.set_isolation_level(driver, "AUTOCOMMIT")
    try:
        return connection.execute(statement, parameters).all()
    finally:
        # A connection that was lost is not reused.
        if not connection.invalidated:
            dialect.reset_isolation_level(driver)


def _needs_transaction(dialect: "Dialect", driver: "DBAPIConnection") -> bool:
    # Without a cache of prepared statements (prepared_statement_cache_size=0, for PgBouncer) asyncpg prepares and
    # executes in two steps, and only a transaction keeps both on one connection of the server.
    return dialect.driver == "asyncpg" and getattr(driver, "_prepared_statement_cache", True) is None
