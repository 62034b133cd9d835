"""The look-up of a key: one SELECT by its id, its digest compared in constant time, then the state of its row.

Needs the extra ``sqlalchemy``.
"""

from datetime import datetime
from typing import Any, NamedTuple, cast

from fastapi_guard.api_key.cache import VerifiedKey
from fastapi_guard.api_key.digest import NOBODY, StoredDigest
from fastapi_guard.api_key.rows import KeyRows
from fastapi_guard.claims import Claims
from fastapi_guard.exceptions import INVALID_API_KEY, MissingExtraError, Unauthorized
from fastapi_guard.stores.database import Sessions
from fastapi_guard.stores.selects import SharedSelect

try:
    from sqlalchemy import Table
    from sqlalchemy.orm import class_mapper
except ImportError:
    raise MissingExtraError("sqlalchemy", "sqlalchemy") from None


class _Row(NamedTuple):
    """What a verification reads, in the order in which it is selected."""

    key_id: str
    salt: bytes
    digest: bytes
    pepper: str | None
    name: str
    subject_type: str
    user_id: str
    tenant_id: str | None
    is_admin: bool
    scopes: object
    metadata: dict[str, Any]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


class KeyLookup:
    """Finds keys by their id, and tells those that hold."""

    def __init__(
        self, sessions: Sessions, rows: KeyRows, *, require_pepper: bool, timeout_seconds: float | None = None
    ) -> None:
        """Look into the table of ``rows``, whose rules apply; refuse keys without a pepper where one is required."""
        self._rows = rows
        self._require_pepper = require_pepper
        columns = cast("Table", class_mapper(rows.model).local_table).c
        self._select = SharedSelect(sessions, [columns[name] for name in _Row._fields], timeout_seconds=timeout_seconds)

    async def verified(self, raw: str, key_id: str, now: float) -> VerifiedKey:
        """Return what the key says.

        Args:
            raw: Its text.
            key_id: The id in it.
            now: Seconds since the epoch.

        Raises:
            Unauthorized: It does not hold; whatever the cause, the answer and the work are the same.
            ServiceUnavailable: The database cannot be asked.
        """
        [found] = await self._select.rows(key_id)
        row = None if found is None else _Row._make(found)
        reason = self._reason_against(raw, row, now)
        if row is None or reason is not None:
            raise refusal(reason or "unknown_key")
        return VerifiedKey(key_id, _claims_of(row), _timestamp(row.expires_at), now, _timestamp(row.last_used_at))

    def _reason_against(self, raw: str, row: _Row | None, now: float) -> str | None:
        # The secret goes first, with the same work for a row that is not there: nobody learns of a key's state, or
        # that it exists, without the key.
        stored = NOBODY if row is None else StoredDigest(row.salt, row.digest, row.pepper)
        matches = self._rows.peppers.matches(raw, stored)
        if row is None:
            return "unknown_key"
        if not matches:
            return "bad_secret"
        if row.revoked_at is not None:
            return "revoked"
        if row.pepper is None and self._require_pepper:
            return "no_pepper"
        expires_at = _timestamp(row.expires_at)
        if expires_at is None:
            return "no_expiry" if self._rows.require_expiry else None
        return "expired" if expires_at <= now else None


def refusal(reason: str) -> Unauthorized:
    """Return the one answer to every key that does not hold."""
    return Unauthorized(INVALID_API_KEY, error="invalid_token", reason=reason)


def _claims_of(row: _Row) -> Claims:
    scopes = row.scopes if isinstance(row.scopes, list) else []
    claims: Claims = {
        "sub": row.user_id,
        "subject_type": row.subject_type,
        "key_id": row.key_id,
        "name": row.name,
        "scope": " ".join(scope for scope in scopes if isinstance(scope, str)),
        "tenant_id": row.tenant_id,
        "is_admin": row.is_admin,
        "iat": int(row.created_at.timestamp()),
        "metadata": row.metadata,
    }
    if row.expires_at is not None:
        claims["exp"] = int(row.expires_at.timestamp())
    return claims


def _timestamp(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()
