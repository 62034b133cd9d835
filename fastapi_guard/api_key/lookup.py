"""The look-up of a key: one SELECT by its id, its digest compared in constant time, then the state of its row.

An unknown id costs the work of a wrong secret: a decoy is compared where there is no row, and nothing of a row is
decoded before its digest has matched. Needs the extra ``sqlalchemy``.
"""

import json
from collections.abc import Sequence
from typing import Any, Final

from fastapi_guard.api_key.digest import DECOY, StoredDigest
from fastapi_guard.api_key.key import COLUMNS, StoredKey
from fastapi_guard.api_key.models import APIKeyEventMixin
from fastapi_guard.api_key.rows import KeyRows, attribute_name
from fastapi_guard.exceptions import INVALID_API_KEY, MissingExtraError, Unauthorized
from fastapi_guard.stores.database import Sessions
from fastapi_guard.stores.selects import SharedSelect
from fastapi_guard.stores.sqlalchemy_changes import RowChanges

try:
    from sqlalchemy import JSON, ColumnElement, Text
    from sqlalchemy import cast as as_type
    from sqlalchemy.orm import class_mapper
except ImportError:
    raise MissingExtraError("sqlalchemy", "sqlalchemy") from None

_DIGEST: Final = ("salt", "digest", "pepper")
_LISTS: Final = frozenset({"scopes", "allowed_networks", "allowed_origins"})


class KeyLookup:
    """Finds keys by their id, and verifies them."""

    def __init__(
        self, sessions: Sessions, rows: KeyRows, *, require_pepper: bool, timeout_seconds: float | None = None
    ) -> None:
        """Look into the table of ``rows``, by its rules; reject keys without a pepper where one is required."""
        self._rows = rows
        self._require_pepper = require_pepper
        mapper = class_mapper(rows.model)
        columns = [_undecoded(mapper.columns[attribute_name(name)]) for name in (*COLUMNS, *_DIGEST)]
        self._select = SharedSelect(sessions, columns, timeout_seconds=timeout_seconds)

    async def verified(self, raw: str, key_id: str, now: float) -> StoredKey:
        """Return the key with this text.

        Args:
            raw: The text of the key.
            key_id: The id in it.
            now: Seconds since the epoch.

        Raises:
            Unauthorized: It is not valid; whatever the cause, the answer and the work are the same.
            ServiceUnavailable: The database cannot be reached.
        """
        [row] = await self._select.rows(key_id)
        # The secret comes first: the state of a key, and that it exists, is not for clients without the key.
        stored = DECOY if row is None else StoredDigest(*row[-len(_DIGEST) :])
        matches = self._rows.peppers.matches(raw, stored)
        if row is None or not matches:
            raise refusal("unknown_key" if row is None else "bad_secret")
        key = _decoded(row[: -len(_DIGEST)])
        reason = self._reason_against(key, stored.pepper, now)
        if reason is not None:
            raise refusal(reason)
        return key

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


def _undecoded(column: ColumnElement[Any]) -> ColumnElement[Any]:
    # As text: a driver or SQLAlchemy would decode it before the digest has matched.
    return as_type(column, Text) if isinstance(column.type, JSON) else column


def _decoded(columns: Sequence[Any]) -> StoredKey:
    values = dict(zip(COLUMNS, columns, strict=True))
    for name in _LISTS:
        values[name] = _texts(values[name])
    metadata = None if values["metadata"] is None else json.loads(values["metadata"])
    values["metadata"] = metadata if isinstance(metadata, dict) else {}
    return StoredKey.of_row(list(values.values()))


def _texts(value: str | None) -> list[str]:
    # What was edited by hand and is not a list of texts grants nothing.
    listed = None if value is None else json.loads(value)
    return [each for each in listed if isinstance(each, str)] if isinstance(listed, list) else []
