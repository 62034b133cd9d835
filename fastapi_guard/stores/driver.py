"""SELECTs that the driver executes itself, on a connection of the pool: compiled once, without SQLAlchemy's Core.

For a look-up, Core takes longer than asyncpg or sqlite3 and the database together. The pool, the SQL of the dialect
and the types of the columns stay those of SQLAlchemy. Needs the extra ``sqlalchemy``.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from fastapi_guard.exceptions import MissingExtraError

try:
    from sqlalchemy import ColumnElement, Dialect, Engine, PoolProxiedConnection, Select
    from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
    from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
    from sqlalchemy.exc import DBAPIError
    from sqlalchemy.types import TypeEngine
except ImportError:
    raise MissingExtraError("sqlalchemy", "sqlalchemy") from None

Statement: TypeAlias = Select[Any]
Processor: TypeAlias = Callable[[Any], Any]
DriverRows: TypeAlias = Sequence[Sequence[Any]]

# Where the application listens to one of these, a statement may be logged, measured or changed.
_EVENTS: Final = (
    *("before_execute", "after_execute", "before_cursor_execute", "after_cursor_execute"),
    *("engine_connect", "begin", "rollback"),
)
_DIALECT_EVENTS: Final = ("do_execute", "do_setinputsizes", "handle_error")
# The OID of NUMERIC in PostgreSQL. Types of numbers alone depend on what the driver returns.
_NUMERIC: Final = 1700


class DriverSelect:
    """A SELECT for which the driver is enough, without parameters that expand."""

    def __init__(self, statement: Statement) -> None:
        """Compile nothing yet.

        Args:
            statement: Core executes it where ``rows`` returns ``None``.
        """
        self.statement: Statement = statement
        self._compiled: _Compiled | None = None

    def rows(self, engine: Engine, parameters: Mapping[str, Any]) -> DriverRows | None:
        """Return the rows; ``None`` where Core has to execute the statement. In a greenlet for an async engine.

        Core has to, if the driver is another one than asyncpg or sqlite3, if asyncpg keeps no prepared statements, if
        the engine has execution options, a log or listeners that Core serves, or if the connection was lost.

        Raises:
            DBAPIError: The database or the driver rejects the statement.
            Exception: The pool has no connection, or a value cannot be read: a ValueError, TypeError or LookupError.
        """
        fetch = _FETCHES.get(type(engine.dialect))
        if fetch is None or _is_observed(engine):
            return None
        compiled = self._compiled
        if compiled is None or compiled.dialect is not engine.dialect:
            compiled = self._compiled = _Compiled(self.statement, engine.dialect)
        values = compiled.values(parameters)
        connection = engine.raw_connection()
        try:
            found = fetch(connection, compiled.sql, values)
        except Exception as error:
            if engine.dialect.is_disconnect(error, connection.dbapi_connection, None):  # type: ignore[arg-type]
                # Core also discards the other connections of the pool where it finds one of them lost.
                connection.invalidate(error)
                return None
            if isinstance(error, TypeError | ValueError | LookupError):
                raise
            raise DBAPIError(None, None, error, hide_parameters=True) from error
        except BaseException as error:
            # The response to a SELECT that was given up is still to come.
            connection.invalidate(error)
            raise
        finally:
            connection.close()
        return None if found is None else compiled.decoded(found)


class _Compiled:
    """A statement in the SQL of a dialect."""

    def __init__(self, statement: Statement, dialect: Dialect) -> None:
        self.dialect = dialect
        compiled: Any = statement.compile(dialect=dialect)
        self.sql = str(compiled)
        binds = [compiled.binds[name] for name in compiled.positiontup]
        self._binds = [(bind.key, bind.value, _process_bind(bind, dialect)) for bind in binds]
        processors = [_process_result(column, dialect) for column in statement.selected_columns]
        self._results = [(place, process) for place, process in enumerate(processors) if process is not None]

    def values(self, parameters: Mapping[str, Any]) -> list[Any]:
        """Return the values in the order of the driver."""
        listed = []
        for name, default, process in self._binds:
            value = parameters.get(name, default)
            listed.append(value if process is None else process(value))
        return listed

    def decoded(self, found: DriverRows) -> DriverRows:
        """Return the rows as the types of their columns have them."""
        if not self._results:
            return found
        rows = []
        for row in found:
            values = list(row)
            for place, process in self._results:
                values[place] = process(values[place])
            rows.append(tuple(values))
        return rows


def _process_bind(bind: Any, dialect: Dialect) -> Processor | None:
    found: TypeEngine[Any] = bind.type.dialect_impl(dialect)
    return found.bind_processor(dialect)


def _process_result(column: ColumnElement[Any], dialect: Dialect) -> Processor | None:
    return column.type.dialect_impl(dialect).result_processor(dialect, _NUMERIC)


def _is_observed(engine: Engine) -> bool:
    return (
        bool(engine.get_execution_options())
        or engine.logger.isEnabledFor(logging.INFO)
        or _has_listeners(engine, _EVENTS)
        or _has_listeners(engine.dialect, _DIALECT_EVENTS)
    )


def _has_listeners(target: Engine | Dialect, events: tuple[str, ...]) -> bool:
    # SQLAlchemy's own short cut: it is false while there never was one.
    return getattr(target, "_has_events", True) and any(getattr(target.dispatch, event) for event in events)


def _by_asyncpg(connection: PoolProxiedConnection, sql: str, values: list[Any]) -> DriverRows | None:
    adapted: Any = connection.dbapi_connection
    # Settings for PgBouncer: without prepared statements, asyncpg needs a transaction for its two steps.
    is_kept = getattr(adapted, "_prepared_statement_cache", None) is not None
    settings = getattr(adapted.driver_connection, "_config", None)
    if not is_kept or not getattr(settings, "statement_cache_size", 0):
        return None
    found: DriverRows = adapted.run_async(lambda driver: driver.fetch(sql, *values))
    return found


def _by_sqlite3(connection: PoolProxiedConnection, sql: str, values: list[Any]) -> DriverRows:
    cursor = connection.cursor()
    try:
        cursor.execute(sql, values)
        return cursor.fetchall()
    finally:
        cursor.close()


# By the exact class: one that is derived from it may have other rules.
_FETCHES: Final[dict[type[Dialect], Callable[[PoolProxiedConnection, str, list[Any]], DriverRows | None]]] = {
    PGDialect_asyncpg: _by_asyncpg,
    SQLiteDialect_pysqlite: _by_sqlite3,
}
