"""Queries for rows of API keys, in a session of the caller. Needs the extra ``sqlalchemy``."""

import logging
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final, NamedTuple

from fastapi_guard.api_key.key import COLUMNS, KeyQuery, StoredKey
from fastapi_guard.api_key.models import APIKeyMixin
from fastapi_guard.api_key.statements import column
from fastapi_guard.exceptions import MissingExtraError, ServiceUnavailable
from fastapi_guard.stores.columns import as_stored
from fastapi_guard.stores.failures import DatabaseFailure, is_refusal, is_unreadable

try:
    from sqlalchemy import ColumnElement, and_, case, func, or_, select
    from sqlalchemy.orm import Session, aliased
except ImportError:
    raise MissingExtraError("sqlalchemy", "sqlalchemy") from None

logger: logging.Logger = logging.getLogger("fastapi_guard")

_UNREADABLE: Final = "a row of the API keys cannot be read"


class KeyOwner(NamedTuple):
    """A key and its owner: what has to be readable of a row to revoke it."""

    key_id: str
    user_id: str


def find_keys(
    session: Session, model: type[APIKeyMixin], conditions: Iterable[ColumnElement[bool]], query: KeyQuery
) -> list[StoredKey]:
    """Return the keys under these conditions, oldest first, on the page of ``query``.

    Raises:
        ServiceUnavailable: One of the rows cannot be read.
    """
    statement = select(*(as_stored(column(model, name).expression) for name in COLUMNS)).where(*conditions)
    statement = statement.order_by(model.created_at, model.key_id).limit(query.limit).offset(query.offset or None)
    try:
        return [StoredKey.of_row(row) for row in session.execute(statement)]
    except Exception as error:
        is_value = isinstance(error, TypeError | ValueError | RecursionError)
        if not is_value and not is_refusal(error) and not is_unreadable(error):
            raise
        # Without the traceback, which quotes a value.
        logger.error(_UNREADABLE)  # noqa: TRY400 - see above
    failure = ServiceUnavailable(reason="unreadable_key")
    failure.__cause__ = DatabaseFailure(_UNREADABLE)
    raise failure


def unrevoked_keys(session: Session, model: type[APIKeyMixin], condition: ColumnElement[bool]) -> list[KeyOwner]:
    """Return the keys under a condition that are not revoked, oldest first."""
    statement = select(model.key_id, model.user_id).where(condition, model.revoked_at.is_(None))
    return [KeyOwner(*row) for row in session.execute(statement.order_by(model.created_at, model.key_id))]


def with_replaced(session: Session, model: type[APIKeyMixin], key_ids: Iterable[str]) -> list[str]:
    """Return these ids, and those of the keys that they replaced, which make keys until their overlap ends."""
    found, new, latest = list[str](), aliased(model), list(key_ids)
    while latest:
        found += latest
        # Of one user, whose keys have an index.
        statement = select(model.key_id).join(new, and_(new.key_id == model.replaced_by, new.user_id == model.user_id))
        replaced = session.scalars(statement.where(new.key_id.in_(latest)))
        latest = [key_id for key_id in replaced if key_id not in found]
    return found


def ends_too(model: type[APIKeyMixin]) -> ColumnElement[bool]:
    """Return the condition that a key ends with the subject or the key that made it."""
    # Also where SQLite has a text for the flag, which is not a true one.
    return model.outlives_maker.is_not(True)


def had_ended(model: type[APIKeyMixin], before: datetime) -> ColumnElement[bool]:
    """Return the condition that a key was revoked or had expired at a moment."""
    return or_(model.revoked_at <= before, model.expires_at <= before)


def ended_usage(session: Session, model: type[APIKeyMixin], before: datetime) -> Sequence[str]:
    """Return the usage ids under which only keys that had ended at a moment have a quota that is never refilled."""
    usage_id = func.coalesce(model.usage_id, model.key_id)
    found = select(usage_id).where(model.quota.is_not(None), model.quota_seconds.is_(None)).group_by(usage_id)
    are_all = func.count() == func.count(case((had_ended(model, before), 1)))
    return session.scalars(found.having(are_all)).all()
