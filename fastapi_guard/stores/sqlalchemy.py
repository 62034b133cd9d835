"""SQLAlchemyStore: records in a table of SQLite or PostgreSQL. Needs the extra ``sqlalchemy``."""

import logging
import time
from collections.abc import Callable, Hashable, Sequence
from datetime import timedelta
from typing import Any, Final, TypeVar

from fastapi_guard.exceptions import ConfigurationError, MissingExtraError, ServiceUnavailable
from fastapi_guard.stores.arguments import clock_of, instance_of
from fastapi_guard.stores.bounds import seconds_of
from fastapi_guard.stores.changes import changed_here
from fastapi_guard.stores.columns import SecretBytes, StoredBytes
from fastapi_guard.stores.database import SessionFactory, Sessions, execute_without_waiting, write_unlocked
from fastapi_guard.stores.kinds import is_announced
from fastapi_guard.stores.names import decode_name, encode_name
from fastapi_guard.stores.protocol import KEPT_AFTER_EXPIRY_SECONDS, Record
from fastapi_guard.stores.selects import TIMEOUT_SECONDS, Selects, SharedSelect
from fastapi_guard.stores.sqlalchemy_changes import RowChanges

try:
    from sqlalchemy import (
        BigInteger,
        Column,
        Connection,
        Double,
        Executable,
        Integer,
        MetaData,
        Row,
        Table,
        bindparam,
        delete,
        insert,
        or_,
        select,
        update,
    )
    from sqlalchemy.dialects import postgresql, sqlite
    from sqlalchemy.orm import Session
except ImportError:
    raise MissingExtraError("sqlalchemy", "sqlalchemy") from None

logger: logging.Logger = logging.getLogger("fastapi_guard")

ResultT = TypeVar("ResultT")
_INSERTS: Final[dict[str, Any]] = {"postgresql": postgresql.insert, "sqlite": sqlite.insert}
_PRUNED_EVERY_SECONDS: Final = 60
_CHANGES_KEPT_SECONDS: Final = 86_400


def records_table(metadata: MetaData, name: str = "fastapi_guard_records") -> Table:
    """Return the table of a store within ``metadata``, such as ``Base.metadata`` of the application.

    A second table, ``name`` and ``_changes``, is made beside it: the caches of other processes read there which
    sessions and tokens were ended.
    """
    Table(
        f"{name}_changes",
        metadata,
        Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
        Column("key", StoredBytes, nullable=False),
        Column("at", Double, nullable=False, index=True),
        # A number is never used twice, although rows are deleted.
        sqlite_autoincrement=True,
    )
    return Table(
        name,
        metadata,
        # Bytes, so that no collation treats two keys as one.
        Column("key", StoredBytes, primary_key=True),
        Column("value", SecretBytes, nullable=False),
        Column("owner", StoredBytes, nullable=True, index=True),
        Column("expires_at", Double, nullable=True, index=True),
    )


metadata: MetaData = MetaData()
records: Table = records_table(metadata)


class SQLAlchemyStore:
    """Records in a table of a database that the application has already.

    Create its tables with ``await store.create_table()``, or by a migration: ``metadata`` of this module contains them,
    and ``records_table(Base.metadata)`` adds them to the application's own. Expired records are deleted about once a
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
            timeout: The longest time that ``get`` and ``find`` wait, a timedelta or seconds; then they raise
                ServiceUnavailable.
            clock: Seconds since the epoch.

        Raises:
            ConfigurationError: It is not a session factory, or SQLite in memory, a separate one in each thread.
        """
        self._sessions = Sessions(sessions)
        instance_of("table", table, Table, "a table that records_table(metadata, name) returned")
        instance_of("prefix", prefix, str, 'text, such as "shop:"')
        self._table = table
        self._prefix = prefix.encode("utf-8", "surrogatepass")
        self._clock = clock_of(clock)
        self._prune_at = 0.0
        timeout_seconds = seconds_of("timeout", timeout, positive=True)
        self._selects = Selects(self._sessions, timeout_seconds)
        self._shared = SharedSelect(self._sessions, list(table.c), timeout_seconds=timeout_seconds)
        changes = table.metadata.tables.get(f"{table.fullname}_changes")
        if changes is None:
            msg = "pass a table that records_table(metadata, name) returned"
            raise ConfigurationError(msg)
        self._statements = _Statements(table, changes)

    @property
    def place(self) -> Hashable:
        """The database, table and prefix, without a password: two stores of one place hold the same records."""
        return (self._sessions.place, self._table.fullname, self._prefix)

    async def create_table(self) -> None:
        """Create the tables unless they exist. SQLite is switched to WAL, in which reading and writing do not wait."""
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
        added = await self._change(lambda opened: self._statements.add(opened, parameters), record.key, added=True)
        await self._prune_sometimes()
        return added

    async def replace(self, key: str, expected: Record, new: Record) -> bool:
        """Replace the record under ``key`` by ``new`` if its value is still that of ``expected``."""
        parameters = self._replacing(key, expected, new)
        return await self._change(lambda opened: _changed(opened, self._statements.replace, parameters) == 1, key)

    async def replace_all(self, changes: Sequence[tuple[Record, Record]]) -> None:
        """Replace each first record by the second, where the value under the key is still that of the first.

        A row that another transaction has locked is left out.

        Raises:
            ServiceUnavailable: The database is unreachable, or SQLite is locked by another transaction for a second.
        """
        # In one order, so that two workers do not wait for each other.
        many = [self._replacing(old.key, old, new) for old, new in sorted(changes, key=lambda change: change[0].key)]

        def work(connection: Connection | Session) -> bool:
            return execute_without_waiting(_opened(connection), self._statements.replace_unlocked, many)

        await write_unlocked(lambda: self._sessions.change(work))
        changed_here(*(expected.key for expected, _ in changes))

    async def delete(self, key: str) -> bool:
        """Remove the record under ``key``; of several callers one gets ``True``."""
        return await self.take(key) is not None

    async def take(self, key: str) -> Record | None:
        """Remove the record under ``key``, and return it; of several callers one gets it."""
        parameters = {"this": self._name(key), "now": self._clock()}
        row = await self._change(lambda opened: self._statements.delete(opened, parameters), key)
        return None if row is None else self._record(row, key)

    def changes(self) -> RowChanges:
        """Return a position in the changes that any process makes: records that ended, and revocations."""
        table = self._statements.changes
        return RowChanges(self._sessions, table.c.id, table.c.key, decode=self._announced)

    async def find(self, owner: str) -> list[Record]:
        """Return the records of ``owner`` that have not expired, in any order."""
        rows = await self._selects.all(self._statements.find, {"of": self._name(owner), "now": self._clock()})
        return [self._record(row) for row in rows]

    async def prune(self) -> int:
        """Delete the records that expired some minutes ago; return how many."""
        return await self._sessions.change(self._pruned, is_long=True)

    def _pruned(self, connection: Connection | Session) -> int:
        now = self._clock()
        connection.execute(self._statements.prune_changes, {"long_ago": now - _CHANGES_KEPT_SECONDS})
        return _changed(connection, self._statements.prune, {"long_ago": now - KEPT_AFTER_EXPIRY_SECONDS})

    async def _prune_sometimes(self) -> None:
        now = self._clock()
        # A clock that was set back must not put it off indefinitely.
        if now >= self._prune_at or now < self._prune_at - _PRUNED_EVERY_SECONDS:
            self._prune_at = now + _PRUNED_EVERY_SECONDS
            try:
                await self._sessions.change(self._pruned)
            except ServiceUnavailable:
                logger.warning("expired records could not be deleted", exc_info=True)

    async def _change(
        self, work: Callable[[Connection | Session], ResultT], key: str, *, added: bool = False
    ) -> ResultT:
        announced = {"announced_key": self._name(key), "announced_at": self._clock()}

        def announcing(connection: Connection | Session) -> ResultT:
            changed = work(connection)
            if changed and is_announced(key, added=added):
                connection.execute(self._statements.announce, announced)
            return changed

        changed = await self._sessions.change(announcing)
        changed_here(key)
        return changed

    def _create(self, connection: Connection | Session) -> None:
        opened = _opened(connection)
        if opened.dialect.name == "sqlite":
            opened.exec_driver_sql("PRAGMA journal_mode = WAL")
        for table in (self._table, self._statements.changes):
            table.create(opened, checkfirst=True)

    def _name(self, text: str) -> bytes:
        return self._prefix + encode_name(text)

    def _text(self, name: bytes) -> str:
        return decode_name(name[len(self._prefix) :])

    def _announced(self, name: bytes) -> str | None:
        return self._text(name) if name.startswith(self._prefix) else None

    def _replacing(self, key: str, expected: Record, new: Record) -> dict[str, Any]:
        return {**self._row(new), "this": self._name(key), "expected": expected.value, "now": self._clock()}

    def _row(self, record: Record) -> dict[str, Any]:
        return {
            "new_key": self._name(record.key),
            "new_value": record.value,
            "new_owner": None if record.owner is None else self._name(record.owner),
            "new_expires_at": record.expires_at,
        }

    def _record(self, row: Any, key: str | None = None) -> Record:
        stored, value, owner, expires_at = row
        try:
            of = None if owner is None else self._text(owner)
            return Record(self._text(stored) if key is None else key, bytes(value), of, expires_at)
        except ValueError:
            logger.warning("a record in a table cannot be read: another application uses the same prefix")
        raise ServiceUnavailable(reason="unreadable_record")


class _Statements:
    """The statements on the tables of a store, built once: SQLAlchemy compiles each of them once for a dialect."""

    def __init__(self, table: Table, changes: Table) -> None:
        columns = table.c
        alive = or_(columns.expires_at.is_(None), columns.expires_at > bindparam("now"))
        this = columns.key == bindparam("this")
        new: dict[str, Any] = {column.name: bindparam(f"new_{column.name}") for column in columns}
        self._upserts: dict[str, Any] = {}
        for dialect, insert_of in _INSERTS.items():
            values = insert_of(table).values(new)
            self._upserts[dialect] = values.on_conflict_do_update(
                index_elements=["key"],
                set_={column.name: values.excluded[column.name] for column in columns},
                where=columns.expires_at <= bindparam("now"),
            ).execution_options(preserve_rowcount=True)
        expected = (this, columns.value == bindparam("expected"), alive)
        self.replace = update(table).where(*expected).values(new)
        # SQLite, which locks the whole file, ignores FOR UPDATE.
        free = select(columns.key).where(*expected).with_for_update(skip_locked=True)
        self.replace_unlocked = update(table).where(columns.key.in_(free)).values(new)
        self._delete = delete(table).where(this, alive)
        self._deleted = self._delete.returning(*columns)
        self._lock = update(table).where(this).values(key=columns.key)
        self._this = select(table).where(this, alive)
        self.find = select(table).where(columns.owner == bindparam("of"), alive)
        self.prune = delete(table).where(columns.expires_at <= bindparam("long_ago"))
        self.changes = changes
        self.announce = insert(changes).values(key=bindparam("announced_key"), at=bindparam("announced_at"))
        self.prune_changes = delete(changes).where(changes.c.at <= bindparam("long_ago"))

    def add(self, connection: Connection | Session, parameters: dict[str, Any]) -> bool:
        dialect = _opened(connection).dialect
        upsert: Executable | None = self._upserts.get(dialect.name)
        if upsert is None:
            msg = f"SQLAlchemyStore works on SQLite and PostgreSQL, not on {dialect.name}"
            raise ConfigurationError(msg)
        return _changed(connection, upsert, parameters) == 1

    def delete(self, connection: Connection | Session, parameters: dict[str, Any]) -> Row[Any] | None:
        if _opened(connection).dialect.delete_returning:
            return connection.execute(self._deleted, parameters).first()
        # SQLite before 3.35 has no RETURNING. The first write locks it until the end of the transaction.
        connection.execute(self._lock, parameters)
        found = connection.execute(self._this, parameters).first()
        connection.execute(self._delete, parameters)
        return found


def _opened(connection: Connection | Session) -> Connection:
    return connection.connection() if isinstance(connection, Session) else connection


def _changed(connection: Connection | Session, statement: Executable, parameters: dict[str, Any]) -> int:
    result: Any = connection.execute(statement, parameters)
    return int(result.rowcount)
