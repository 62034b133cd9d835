"""The look-up of a key: one SELECT by its id, its digest compared in constant time, then the state of its row.

An unknown id costs the work of a wrong secret: the database returns a decoy where there is no row, its digest is
compared, and nothing of a row is decoded before its digest has matched. Needs the extra ``sqlalchemy``.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import fields
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

from fastapi_guard.api_key.digest import DECOY, StoredDigest
from fastapi_guard.api_key.key import COLUMNS, StoredKey
from fastapi_guard.api_key.models import APIKeyEventMixin
from fastapi_guard.api_key.rows import KeyRows
from fastapi_guard.api_key.statements import attribute_name
from fastapi_guard.exceptions import INVALID_API_KEY, MissingExtraError, ServiceUnavailable, Unauthorized
from fastapi_guard.stores.columns import SecretBytes, SecretBytesOrNone, UTCDateTime, as_stored
from fastapi_guard.stores.database import Sessions
from fastapi_guard.stores.replica import Replica, ReplicaSelect
from fastapi_guard.stores.selects import SharedSelect
from fastapi_guard.stores.sqlalchemy_changes import RowChanges

try:
    from sqlalchemy import (
        JSON,
        Boolean,
        Column,
        ColumnElement,
        LargeBinary,
        String,
        Text,
        false,
        func,
        literal,
        literal_column,
        type_coerce,
    )
    from sqlalchemy import cast as as_type
    from sqlalchemy.orm import class_mapper
    from sqlalchemy.types import NullType
except ImportError:
    raise MissingExtraError("sqlalchemy", "sqlalchemy") from None

logger: logging.Logger = logging.getLogger("fastapi_guard")

_DIGEST: Final = ("salt", "digest", "pepper")
_MOMENTS: Final = tuple(name for name in COLUMNS if name.endswith("_at"))
_OFTEN_ABSENT: Final = frozenset(column.name for column in fields(StoredKey) if column.default is None)
_DOCUMENTS: Final = ("scopes", "metadata", "allowed_networks", "allowed_origins")
_ROWS_KEPT: Final = 1024
_UNREADABLE: Final = "the row of the API key %s cannot be read"


class KeyLookup:
    """Finds keys by their id, and verifies them."""

    def __init__(
        self,
        sessions: Sessions,
        rows: KeyRows,
        *,
        require_pepper: bool,
        timeout_seconds: float,
        replica: Replica | None = None,
    ) -> None:
        """Look into the table of ``rows``, by its rules; reject keys without a pepper where one is required."""
        self._rows = rows
        self._require_pepper = require_pepper
        # Most rows are as they were at the look-up before: such a row is read and compared, and not decoded again.
        self._decoded = lru_cache(_ROWS_KEPT)(_decoded)
        mapper = class_mapper(rows.model)
        columns = [mapper.columns[attribute_name(name)] for name in (*COLUMNS, *_DIGEST)]
        decoy = [*(_decoy_of(column) for column in columns[1 : -len(_DIGEST)]), *map(literal, DECOY[:2]), None]

        def select_on(place: Sessions, seconds: float) -> SharedSelect:
            selected = [_undecoded(column) for column in columns]
            return SharedSelect(place, selected, timeout_seconds=seconds, decoy=decoy)

        self._select: SharedSelect | ReplicaSelect = select_on(sessions, timeout_seconds)
        if replica is not None:
            self._select = ReplicaSelect(sessions, replica, select_on, timeout_seconds=timeout_seconds)

    async def verified(self, raw: str, key_id: str, now: float) -> StoredKey:
        """Return the key with this text.

        Args:
            raw: The text of the key.
            key_id: The id in it.
            now: Seconds since the epoch.

        Raises:
            Unauthorized: It is not valid; whatever the cause, the answer and the work are the same.
            ServiceUnavailable: The database cannot be reached, or the row cannot be read.
        """
        [row] = await self._select.rows(key_id)
        # The secret comes first: the state of a key, and that it exists, is not for clients without the key.
        stored = None if row is None else _stored_digest(key_id, *row[-len(_DIGEST) :])
        matches = self._rows.peppers.matches(raw, stored or DECOY)
        if row is None or stored is None or not matches:
            is_unreadable = row is not None and stored is None
            raise refusal("unreadable_key" if is_unreadable else _reason_of(stored))
        key = self._readable(row[: -len(_DIGEST)])
        reason = self._reason_against(key, stored.pepper, now)
        if reason is not None:
            raise refusal(reason)
        return key

    def _readable(self, columns: Sequence[Any]) -> StoredKey:
        try:
            return self._decoded(columns)
        except (TypeError, ValueError, RecursionError):
            # Without the traceback, which quotes a value.
            logger.error(_UNREADABLE, columns[0])  # noqa: TRY400 - see above
        raise ServiceUnavailable(reason="unreadable_key")

    def _reason_against(self, key: StoredKey, pepper: str | None, now: float) -> str | None:
        if key.revoked_at is not None:
            return "revoked"
        if pepper is None and self._require_pepper:
            return "no_pepper"
        if key.expires_at is None:
            return "no_expiry" if self._rows.require_expiry else paused(key)
        return "expired" if key.expires_at.timestamp() <= now else paused(key)


def key_changes(sessions: Sessions, events: type[APIKeyEventMixin]) -> RowChanges:
    """Return a position in the table of events: the ids of the keys that any process changes."""
    columns = class_mapper(events).columns
    # A key that is new is in no cache.
    return RowChanges(sessions, columns["id"], columns["key_id"], columns["event"] != "created")


def paused(key: StoredKey) -> str | None:
    """Return the reason against a paused key."""
    return None if key.paused_at is None else "paused"


def refusal(reason: str) -> Unauthorized:
    """Return the one answer to every key that is not valid."""
    return Unauthorized(INVALID_API_KEY, error="invalid_token", reason=reason)


def _stored_digest(key_id: str, salt: bytes | None, digest: bytes | None, pepper: object) -> StoredDigest | None:
    if salt is None or digest is None or not isinstance(pepper, str | None):
        logger.error(_UNREADABLE, key_id)
        return None
    return StoredDigest(salt, digest, pepper)


def _reason_of(stored: StoredDigest | None) -> str:
    return "unknown_key" if stored is None or stored.salt == DECOY.salt else "bad_secret"


def _undecoded(column: ColumnElement[Any]) -> ColumnElement[Any]:
    # A driver or SQLAlchemy would decode it before the digest has matched.
    if isinstance(column.type, JSON):
        return as_type(column, Text)
    if isinstance(column.type, LargeBinary | SecretBytes):
        return type_coerce(column, SecretBytesOrNone())
    return type_coerce(column, NullType()) if isinstance(column.type, UTCDateTime) else as_stored(column)


def _decoy_of(column: Column[Any]) -> ColumnElement[Any] | None:
    # A value where the row of a plain key has one: a row of NULLs would be read faster.
    if column.name in _OFTEN_ABSENT:
        return None
    if isinstance(column.type, JSON):
        return literal_column("'[]'", Text)
    if isinstance(column.type, UTCDateTime):
        return type_coerce(func.current_timestamp(), NullType())
    if isinstance(column.type, Boolean):
        return type_coerce(false(), NullType())
    return literal_column("'decoy'", String) if type(column.type) is String else None


def _decoded(columns: Sequence[Any]) -> StoredKey:
    values = dict(zip(COLUMNS, columns, strict=True))
    for name in _DOCUMENTS:
        values[name] = None if values[name] is None else json.loads(values[name])
    for name in _MOMENTS:
        if values[name] is not None:
            values[name] = _moment(values[name])
    return StoredKey.of_columns(values)


def _moment(value: str | datetime) -> datetime:
    # SQLite has texts, in UTC and without a zone.
    moment = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    if moment.tzinfo is UTC:
        return moment
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
