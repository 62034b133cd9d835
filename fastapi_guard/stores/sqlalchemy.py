"""SQLAlchemyStore: records in a table of SQLite or PostgreSQL. Needs the extra ``sqlalchemy``."""

import logging
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

from fastapi_guard.exceptions import ConfigurationError, MissingExtraError, ServiceUnavailable
from fastapi_guard.stores.bounds import seconds_of
from fastapi_guard.stores.columns import SecretBytes
from fastapi_guard.stores.database import SessionFactory, Sessions
from fastapi_guard.stores.names import decode_name, encode_name
from fastapi_guard.stores.protocol import KEPT_AFTER_EXPIRY_SECONDS, Record
from fastapi_guard.stores.selects import TIMEOUT_SECONDS, Selects, SharedSelect

try:
    from sqlalchemy import (
        Column,
        Connection,
        Double,
        Executable,
        LargeBinary,
        MetaData,
        Table,
        bindparam,
        delete,
        or_,
        select,
        update,
    )
    from sqlalchemy.dialects import postgresql, sqlite
    from sqlalchemy.orm import Session
except ImportError:
    raise MissingExtraError("sqlalchemy", "sqlalchemy") from None

logger: logging.Logger = logging.getLogger("fastapi_guard")

_INSERTS: Final[dict[str, Any]] = {"postgresql": postgresql.insert, "sqlite": sqlite.insert}
_PRUNED_EVERY_SECONDS: Final = 60


def records_table(metadata: MetaData, name: str = "fastapi_guard_records") -> Table:
    """Return the table of a store within ``metadata``, such as ``Base.metadata`` of the application."""
    return Table(
        name,
        metadata,
        # Bytes, so that no collation treats two keys as one.
        Column("key", LargeBinary, primary_key=True),
        Column("value", SecretBytes, nullable=False),
        Column("owner", LargeBinary, nullable=True, index=True),
        Column("expires_at", Double, nullable=True, index=True),
    )


metadata: MetaData = MetaData()
records: Table = records_table(metadata)


class SQLAlchemyStore:
    """Records in a table of a database that the application has already.

    Create the table with ``await store.create_table()``, or by a migration: ``metadata`` of this module contains it,
    and ``records_table(Base.metadata)`` adds it to the application's own. Expired records are deleted about once a
    minute, when others are added.
    """

    def __init__(
        self,
        sessions: SessionFactory,
        *,
        table: Table = records,
        prefix: str = "",
        timeout: timedelta | float = TIMEOUT_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Keep records in the database that ``sessions``, a sessionmaker or an async_sessionmaker, is bound to.

        Args:
            sessions: Its sessions are committed here, so they must not be the application's current ones.
            table: A table of ``records_table``.
            prefix: Put before each key and owner: several applications can share one table.
            timeout: The longest time that ``get`` waits, a timedelta or seconds; then it raises ServiceUnavailable.
            clock: Seconds since the epoch.

        Raises:
            ConfigurationError: It is not a session factory, or SQLite in memory, a separate one in each thread.
        """
        self._sessions = Sessions(sessions)
        self._table = table
        self._prefix = prefix.encode("utf-8", "surrogatepass")
        self._clock = clock
        self._prune_at = 0.0
        timeout_seconds = seconds_of("timeout", timeout, positive=True)
        self._selects = Selects(self._sessions, timeout_seconds)
        self._shared = SharedSelect(self._sessions, list(table.c), timeout_seconds=timeout_seconds)
        self._statements = _Statements(table)

    async def create_table(self) -> None:
        """Create the table unless it exists. SQLite is switched to WAL, in which reading and writing do not wait."""
        await self._sessions.change(self._create)

    async def get(self, *keys: str) -> list[Record | None]:
        """Return the records under ``keys``, in that order, ``None`` where there is none or it has expired."""
        rows = await self._shared.rows(*map(self._name, keys))
        now = self._clock()
        found = [None if row is None else self._record(row, key) for key, row in zip(keys, rows, strict=True)]
        return [record if record is not None and record.is_alive(now) else None for record in found]

    async def add(self, record: Record) -> bool:
        """Add ``record`` unless its key is taken; return whether it was added."""
        parameters = {**self._row(record), "now": self._clock()}
        added = await self._sessions.change(
            lambda connection: _changed(connection, self._statements.add(connection), parameters)
        )
        await self._prune_sometimes()
        return added == 1

    async def replace(self, key: str, expected: Record, new: Record) -> bool:
        """Replace the record under ``key`` by ``new`` if its value is still that of ``expected``."""
        found = {"this": self._name(key), "expected": expected.value, "now": self._clock()}
        return await self._change(self._statements.replace, {**self._row(new), **found})

    async def delete(self, key: str) -> bool:
        """Remove the record under ``key``; of several callers one gets ``True``."""
        return await self._change(self._statements.delete, {"this": self._name(key), "now": self._clock()})

    async def find(self, owner: str) -> list[Record]:
        """Return the records of ``owner`` that have not expired, in any order."""
        rows = await self._selects.all(self._statements.find, {"of": self._name(owner), "now": self._clock()})
        return [self._record(row) for row in rows]

    async def prune(self) -> int:
        """Delete the records that expired some minutes ago; return how many."""
        parameters = {"long_ago": self._clock() - KEPT_AFTER_EXPIRY_SECONDS}
        return await self._sessions.change(lambda connection: _changed(connection, self._statements.prune, parameters))

    async def _prune_sometimes(self) -> None:
        now = self._clock()
        # A clock that was set back must not put it off indefinitely.
        if now >= self._prune_at or now < self._prune_at - _PRUNED_EVERY_SECONDS:
            self._prune_at = now + _PRUNED_EVERY_SECONDS
            try:
                await self.prune()
            except ServiceUnavailable:
                logger.warning("expired records could not be deleted", exc_info=True)

    async def _change(self, statement: Executable, parameters: dict[str, Any]) -> bool:
        return await self._sessions.change(lambda connection: _changed(connection, statement, parameters)) == 1

    def _create(self, connection: Connection | Session) -> None:
        opened = connection.connection() if isinstance(connection, Session) else connection
        if opened.dialect.name == "sqlite":
            opened.exec_driver_sql("PRAGMA journal_mode = WAL")
        self._table.create(opened, checkfirst=True)

    def _name(self, text: str) -> bytes:
        return self._prefix + encode_name(text)

    def _text(self, name: bytes) -> str:
        return decode_name(name[len(self._prefix) :])

    def _row(self, record: Record) -> dict[str, Any]:
        owner = None if record.owner is None else self._name(record.owner)
        return {
            "new_key": self._name(record.key),
            "new_value": record.value,
            "new_owner": owner,
            "new_expires_at": record.expires_at,
        }

    def _record(self, row: Any, key: str | None = None) -> Record:
        stored, value, owner, expires_at = row
        of = None if owner is None else self._text(owner)
        return Record(self._text(stored) if key is None else key, bytes(value), of, expires_at)


class _Statements:
    """The statements on a table, built once: SQLAlchemy compiles each of them once for a dialect."""

    def __init__(self, table: Table) -> None:
        columns = table.c
        alive = or_(columns.expires_at.is_(None), columns.expires_at > bindparam("now"))
        this = columns.key == bindparam("this")
        new: dict[str, Any] = {column.name: bindparam(f"new_{column.name}") for column in columns}
        self._upserts: dict[str, Any] = {}
        for dialect, insert in _INSERTS.items():
            values = insert(table).values(new)
            self._upserts[dialect] = values.on_conflict_do_update(
                index_elements=["key"],
                set_={column.name: values.excluded[column.name] for column in columns},
                where=columns.expires_at <= bindparam("now"),
            ).execution_options(preserve_rowcount=True)
        self.replace = update(table).where(this, columns.value == bindparam("expected"), alive).values(new)
        self.delete = delete(table).where(this, alive)
        self.find = select(table).where(columns.owner == bindparam("of"), alive)
        self.prune = delete(table).where(columns.expires_at <= bindparam("long_ago"))

    def add(self, connection: Connection | Session) -> Any:
        bind = connection.get_bind() if isinstance(connection, Session) else connection
        upsert = self._upserts.get(bind.dialect.name)
        if upsert is None:
            msg = f"SQLAlchemyStore works on SQLite and PostgreSQL, not on {bind.dialect.name}"
            raise ConfigurationError(msg)
        return upsert


def _changed(connection: Connection | Session, statement: Executable, parameters: dict[str, Any]) -> int:
    result: Any = connection.execute(statement, parameters)
    return int(result.rowcount)
