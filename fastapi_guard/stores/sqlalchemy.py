"""Records in a table: SQLite embedded, PostgreSQL in production."""

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from fastapi_guard.exceptions import ConfigurationError, MissingExtraError, ServiceUnavailable
from fastapi_guard.stores.database import SessionFactory, Sessions
from fastapi_guard.stores.protocol import KEPT_AFTER_EXPIRY_SECONDS, Record

try:
    from sqlalchemy import Column, Double, LargeBinary, MetaData, Table, delete, or_, select, update
    from sqlalchemy.dialects import postgresql, sqlite
except ImportError:
    raise MissingExtraError("sqlalchemy", "sqlalchemy") from None

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

logger: logging.Logger = logging.getLogger("fastapi_guard")

_INSERTS: Final[dict[str, Any]] = {"postgresql": postgresql.insert, "sqlite": sqlite.insert}
_PRUNED_EVERY_SECONDS: Final = 60


def records_table(metadata: MetaData, name: str = "fastapi_guard_records") -> Table:
    """Return the table of a store within ``metadata``, such as ``Base.metadata`` of the application."""
    return Table(
        name,
        metadata,
        # Bytes, so that no collation takes two keys for one.
        Column("key", LargeBinary, primary_key=True),
        Column("value", LargeBinary, nullable=False),
        Column("owner", LargeBinary, nullable=True, index=True),
        Column("expires_at", Double, nullable=True, index=True),
    )


metadata: MetaData = MetaData()
records: Table = records_table(metadata)


class SQLAlchemyStore:
    """Records in a table of a database that the application has anyway.

    Create the table with ``await store.create_table()``, or by a migration: ``metadata`` of this module has it, and
    ``records_table(Base.metadata)`` puts it among the application's own. Expired records are deleted about once a
    minute, as others are added.
    """

    def __init__(
        self,
        sessions: SessionFactory,
        *,
        table: Table = records,
        prefix: str = "",
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Work in sessions of ``sessions``, a sessionmaker or an async_sessionmaker.

        Args:
            sessions: Its sessions are committed here, so they must not be the application's current ones.
            table: A table of ``records_table``.
            prefix: Put before each key and owner: several applications can share one table.
            clock: Seconds since the epoch.

        Raises:
            ConfigurationError: They are none, or of SQLite in memory, which is another one in each thread.
        """
        self._sessions = Sessions(sessions)
        self._table = table
        self._prefix = prefix
        self._clock = clock
        self._prune_at = 0.0

    async def create_table(self) -> None:
        """Create the table unless it is there."""
        await self._sessions.transaction(lambda session: self._table.create(session.connection(), checkfirst=True))

    async def get(self, *keys: str) -> list[Record | None]:
        """Return the records under ``keys``, in that order, ``None`` where there is none or it has expired."""
        columns = self._table.c
        statement = select(self._table).where(columns.key.in_([self._name(key) for key in keys]), self._unexpired())
        rows = await self._sessions.transaction(lambda session: session.execute(statement).all())
        found = {record.key: record for record in map(self._record, rows)}
        return [found.get(key) for key in keys]

    async def add(self, record: Record) -> bool:
        """Put ``record`` in unless its key is taken; return whether it was put in."""
        row = self._row(record)
        now = self._clock()

        def insert(session: "Session") -> bool:
            statement = self._insert(session).values(row)
            upsert = statement.on_conflict_do_update(
                index_elements=["key"], set_=row, where=self._table.c.expires_at <= now
            )
            counted = {"preserve_rowcount": True}  # what an INSERT did not do is no -1
            return session.connection().execute(upsert, execution_options=counted).rowcount == 1

        added = await self._sessions.transaction(insert)
        await self._prune_sometimes()
        return added

    async def replace(self, key: str, expected: Record, new: Record) -> bool:
        """Put ``new`` in place of the record under ``key`` if that still holds the value of ``expected``."""
        columns = self._table.c
        matching = (columns.key == self._name(key), columns.value == expected.value, self._unexpired())
        return await self._change(update(self._table).where(*matching).values(self._row(new)))

    async def delete(self, key: str) -> bool:
        """Remove the record under ``key``; of several callers one is told ``True``."""
        return await self._change(delete(self._table).where(self._table.c.key == self._name(key), self._unexpired()))

    async def find(self, owner: str) -> list[Record]:
        """Return the records of ``owner`` that have not expired, in no order."""
        statement = select(self._table).where(self._table.c.owner == self._name(owner), self._unexpired())
        rows = await self._sessions.transaction(lambda session: session.execute(statement).all())
        return [self._record(row) for row in rows]

    async def prune(self) -> int:
        """Delete the records that expired some minutes ago; return how many they were."""
        long_ago = self._clock() - KEPT_AFTER_EXPIRY_SECONDS
        statement = delete(self._table).where(self._table.c.expires_at <= long_ago)
        return await self._sessions.transaction(lambda session: session.connection().execute(statement).rowcount)

    async def _prune_sometimes(self) -> None:
        now = self._clock()
        # A clock that was set back must not put it off for ever.
        if now >= self._prune_at or now < self._prune_at - _PRUNED_EVERY_SECONDS:
            self._prune_at = now + _PRUNED_EVERY_SECONDS
            try:
                await self.prune()
            except ServiceUnavailable:
                logger.warning("expired records could not be deleted", exc_info=True)

    async def _change(self, statement: Any) -> bool:
        changed = await self._sessions.transaction(lambda session: session.connection().execute(statement).rowcount)
        return changed == 1

    def _insert(self, session: "Session") -> Any:
        dialect = session.get_bind().dialect.name
        if dialect not in _INSERTS:
            msg = f"SQLAlchemyStore works on SQLite and PostgreSQL, not on {dialect}"
            raise ConfigurationError(msg)
        return _INSERTS[dialect](self._table)

    def _unexpired(self) -> Any:
        expires_at = self._table.c.expires_at
        return or_(expires_at.is_(None), expires_at > self._clock())

    def _name(self, text: str) -> bytes:
        return (self._prefix + text).encode("utf-8", "surrogatepass")

    def _text(self, name: bytes) -> str:
        return name.decode("utf-8", "surrogatepass")[len(self._prefix) :]

    def _row(self, record: Record) -> dict[str, Any]:
        owner = None if record.owner is None else self._name(record.owner)
        return {
            "key": self._name(record.key),
            "value": record.value,
            "owner": owner,
            "expires_at": record.expires_at,
        }

    def _record(self, row: Any) -> Record:
        owner = None if row.owner is None else self._text(row.owner)
        return Record(self._text(row.key), row.value, owner, row.expires_at)
