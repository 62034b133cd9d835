"""When keys were last used: at most one write a key a minute, in its own statement, and no request fails by it.

Needs the extra ``sqlalchemy``.
"""

import logging
from datetime import UTC, datetime, timedelta
from typing import cast

from fastapi_guard.api_key.cache import VerifiedKey
from fastapi_guard.api_key.models import APIKeyMixin
from fastapi_guard.exceptions import MissingExtraError, ServiceUnavailable
from fastapi_guard.stores.database import Sessions

try:
    from sqlalchemy import Table, bindparam, or_, update
    from sqlalchemy.orm import class_mapper
except ImportError:
    raise MissingExtraError("sqlalchemy", "sqlalchemy") from None

logger: logging.Logger = logging.getLogger("fastapi_guard")

USE_INTERVAL_SECONDS = 60
_MAX_REMEMBERED = 16_384


class KeyUses:
    """Writes ``last_used_at`` where it is due."""

    def __init__(self, sessions: Sessions, model: type[APIKeyMixin]) -> None:
        """Write into the table of ``model``."""
        self._sessions = sessions
        table = cast("Table", class_mapper(model).local_table)
        columns = table.c
        unused = or_(columns.last_used_at.is_(None), columns.last_used_at <= bindparam("before"))
        used = update(table).where(columns.key_id == bindparam("id"), unused)
        self._update = used.values(last_used_at=bindparam("now"))
        # When a key's use was last written, or tried to be: key id -> seconds since the epoch.
        self._written: dict[str, float] = {}

    def is_due(self, key: VerifiedKey, now: float) -> bool:
        """Return whether the use of ``key`` is to be written, and take it for written then."""
        for before in (self._written.get(key.key_id), key.used_at):
            if before is not None and 0 <= now - before < USE_INTERVAL_SECONDS:
                return False
        # Noted before the write, so that requests at the same time and a failure do not write again.
        self._written.pop(key.key_id, None)
        self._written[key.key_id] = now
        if len(self._written) > _MAX_REMEMBERED:
            del self._written[next(iter(self._written))]
        return True

    async def write(self, key_id: str, now: float) -> None:
        """Write that a key was used, unless another process has written it within the minute."""
        moment = datetime.fromtimestamp(now, UTC)
        before = moment - timedelta(seconds=USE_INTERVAL_SECONDS)
        try:
            await self._sessions.execute(self._update, {"id": key_id, "now": moment, "before": before})
        except ServiceUnavailable:
            logger.warning("last_used_at of the API key %s could not be written", key_id)
