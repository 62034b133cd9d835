"""When and from where keys were last used.

A use is written at most once a minute and key, one to two seconds after it was noted. The uses of all keys are written
together, in a transaction of its own that never waits for a lock of the application. No request waits for it. Needs the
extra ``sqlalchemy``.
"""

import logging
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final, NamedTuple, cast

from fastapi_guard.api_key.key import StoredKey
from fastapi_guard.api_key.models import APIKeyMixin
from fastapi_guard.exceptions import MissingExtraError, ServiceUnavailable
from fastapi_guard.schemes.address import Address
from fastapi_guard.stores.bounds import BoundedCache
from fastapi_guard.stores.database import Sessions, execute_without_waiting, write_unlocked
from fastapi_guard.stores.failures import Refused
from fastapi_guard.stores.later import LaterWrites

try:
    from sqlalchemy import BindParameter, Table, Update, bindparam, or_, select, update
    from sqlalchemy.orm import Session, class_mapper
except ImportError:
    raise MissingExtraError("sqlalchemy", "sqlalchemy") from None

logger: logging.Logger = logging.getLogger("fastapi_guard")

USE_INTERVAL_SECONDS = 60
_MAX_KNOWN: Final = 16_384
_MAX_BATCH: Final = 500
_PARAMETERS: Final = ("guard_key_id", "guard_now", "guard_before", "guard_address")


class Use(NamedTuple):
    """A use of a key.

    Attributes:
        now: When, in seconds since the epoch.
        address: From where, as far as that is known.
    """

    now: float
    address: Address | None


class LastUses:
    """Writes ``last_used_at`` and ``last_address`` of the keys in one table."""

    def __init__(self, sessions: Sessions, model: type[APIKeyMixin]) -> None:
        """Write into the table of ``model``."""
        self._sessions = sessions
        self._model = model
        mapper = class_mapper(model)
        table, columns = cast("Table", mapper.local_table), mapper.columns
        key_id, last_used_at = columns["key_id"], columns["last_used_at"]
        # SQLAlchemy rejects parameters that are named like a column, and the application names the columns.
        binds: list[BindParameter[Any]] = [bindparam(name) for name in _PARAMETERS]
        wanted, now, before, address = binds
        is_due = (key_id == wanted, or_(last_used_at.is_(None), last_used_at <= before))
        values: dict[Any, Any] = {last_used_at: now, columns["last_address"]: address}
        self._update: Update = update(table).where(*is_due).values(values)
        # A row that the application has locked is left out: its next use is written.
        free = select(key_id).where(*is_due).with_for_update(skip_locked=True, key_share=True)
        self._update_unlocked: Update = update(table).where(key_id.in_(free)).values(values)
        self._noted: BoundedCache[str, float] = BoundedCache(_MAX_KNOWN)
        self._writes: LaterWrites[str, Use] = LaterWrites(self._write)

    def note(self, key: StoredKey, use: Use) -> None:
        """Have a use written later, unless one was written or noted within the minute."""
        noted = self._noted.get(key.key_id)
        if noted is not None and 0 <= use.now - noted < USE_INTERVAL_SECONDS:
            return
        stored = key.last_used_at
        if stored is not None and 0 <= use.now - stored.timestamp() < USE_INTERVAL_SECONDS:
            return
        self._noted.put(key.key_id, use.now)
        self._writes.put(key.key_id, use)

    async def flush(self) -> None:
        """Write what was noted so far."""
        await self._writes.aclose()

    async def _write(self, uses: dict[str, Use]) -> None:
        ordered = sorted(uses.items())
        for start in range(0, len(ordered), _MAX_BATCH):
            batch = ordered[start : start + _MAX_BATCH]
            write = partial(self._sessions.transaction, partial(self._write_batch, batch))
            try:
                await write_unlocked(write)
            except (ServiceUnavailable, Refused):
                logger.warning("last_used_at of %d API keys could not be written", len(batch))

    def _write_batch(self, batch: list[tuple[str, Use]], session: Session) -> bool:
        connection = session.connection(bind_arguments={"mapper": self._model})
        parameters: list[dict[str, Any]] = []
        for key_id, use in batch:
            now = datetime.fromtimestamp(use.now, UTC)
            before = now - timedelta(seconds=USE_INTERVAL_SECONDS)
            address = None if use.address is None else str(use.address)
            parameters.append(dict(zip(_PARAMETERS, (key_id, now, before, address), strict=True)))
        is_postgres = connection.dialect.name == "postgresql"
        return execute_without_waiting(connection, self._update_unlocked if is_postgres else self._update, parameters)
