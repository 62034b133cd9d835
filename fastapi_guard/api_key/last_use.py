"""When and from where keys were last used.

A use is written at most once a minute and key. One task writes the uses of all keys together, in a transaction of its
own that never waits for a lock of the application. A request waits for the task that it has started for a moment, and
no longer: with a database that is well the use is there with the answer, and with one that is slow or fails the answer
is there without the use. Needs the extra ``sqlalchemy``.
"""

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final, NamedTuple, cast

from fastapi_guard.api_key.key import StoredKey
from fastapi_guard.api_key.models import APIKeyMixin
from fastapi_guard.exceptions import MissingExtraError, ServiceUnavailable
from fastapi_guard.stores.bounds import BoundedCache
from fastapi_guard.stores.database import Sessions
from fastapi_guard.stores.failures import Refused

try:
    from sqlalchemy import Connection, Table, Update, bindparam, or_, select, update
    from sqlalchemy.orm import Session, class_mapper
except ImportError:
    raise MissingExtraError("sqlalchemy", "sqlalchemy") from None

logger: logging.Logger = logging.getLogger("fastapi_guard")

USE_INTERVAL_SECONDS = 60
_MAX_KNOWN: Final = 16_384
_MAX_BATCH: Final = 500
_PATIENCE_SECONDS: Final = 0.25


class Use(NamedTuple):
    """A use of a key.

    Attributes:
        now: When, in seconds since the epoch.
        address: From where, as far as that is known.
    """

    now: float
    address: str | None


class LastUses:
    """Writes ``last_used_at`` and ``last_address`` of the keys in one table."""

    def __init__(self, sessions: Sessions, model: type[APIKeyMixin]) -> None:
        """Write into the table of ``model``."""
        self._sessions = sessions
        self._model = model
        mapper = class_mapper(model)
        table, columns = cast("Table", mapper.local_table), mapper.columns
        key_id, last_used_at = columns["key_id"], columns["last_used_at"]
        is_due = (key_id == bindparam("id"), or_(last_used_at.is_(None), last_used_at <= bindparam("before")))
        values: dict[Any, Any] = {last_used_at: bindparam("now"), columns["last_address"]: bindparam("address")}
        self._update: Update = update(table).where(*is_due).values(values)
        # A row that the application has locked is left out: its next use is written.
        free = select(key_id).where(*is_due).with_for_update(skip_locked=True, key_share=True)
        self._update_unlocked: Update = update(table).where(key_id.in_(free)).values(values)
        self._noted: BoundedCache[str, float] = BoundedCache(_MAX_KNOWN)
        self._waiting: dict[str, Use] = {}
        self._writing: asyncio.Task[None] | None = None

    async def note(self, key: StoredKey, use: Use) -> None:
        """Have a use written, unless one was written or noted within the minute."""
        stored = None if key.last_used_at is None else key.last_used_at.timestamp()
        for before in (self._noted.get(key.key_id), stored):
            if before is not None and 0 <= use.now - before < USE_INTERVAL_SECONDS:
                return
        self._noted.put(key.key_id, use.now)
        if len(self._waiting) < _MAX_KNOWN:
            self._waiting[key.key_id] = use
        started = self._start()
        if started is not None:
            await asyncio.wait((started,), timeout=_PATIENCE_SECONDS)

    async def flush(self) -> None:
        """Write what was noted so far."""
        self._start()
        if self._writing is not None and self._writing.get_loop() is asyncio.get_running_loop():
            await asyncio.wait((self._writing,))

    def _start(self) -> asyncio.Task[None] | None:
        # A task of a loop that has ended writes no more; what it has not written is still waiting.
        writing = self._writing
        if not self._waiting or not (writing is None or writing.done() or writing.get_loop().is_closed()):
            return None
        self._writing = asyncio.get_running_loop().create_task(self._write())
        return self._writing

    async def _write(self) -> None:
        while self._waiting:
            batch = dict(list(self._waiting.items())[:_MAX_BATCH])
            try:
                await self._sessions.transaction(partial(self._write_batch, batch))
            except (ServiceUnavailable, Refused):
                logger.warning("last_used_at of %d API keys could not be written", len(batch))
            for key_id, use in batch.items():
                if self._waiting.get(key_id) is use:
                    del self._waiting[key_id]

    def _write_batch(self, batch: dict[str, Use], session: Session) -> None:
        connection = session.connection(bind_arguments={"mapper": self._model})
        parameters: list[dict[str, Any]] = []
        for key_id, use in sorted(batch.items()):
            now = datetime.fromtimestamp(use.now, UTC)
            before = now - timedelta(seconds=USE_INTERVAL_SECONDS)
            parameters.append({"id": key_id, "now": now, "before": before, "address": use.address})
        if connection.dialect.name == "sqlite":
            _write_without_waiting(connection, self._update, parameters)
        else:
            is_postgres = connection.dialect.name == "postgresql"
            connection.execute(self._update_unlocked if is_postgres else self._update, parameters)


def _write_without_waiting(connection: Connection, statement: Update, parameters: list[dict[str, Any]]) -> None:
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
        # Another connection writes or reads: the next use of these keys is written.
        driver.rollback()
    finally:
        pragma.execute(f"PRAGMA busy_timeout = {patience}")
        pragma.close()
