"""Queries for rows of API keys, in a session of the caller. Needs the extra ``sqlalchemy``."""

import logging
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from fastapi_guard.api_key.key import COLUMNS, KeyQuery, StoredKey
from fastapi_guard.api_key.models import APIKeyMixin
from fastapi_guard.api_key.statements import column
from fastapi_guard.exceptions import MissingExtraError, ServiceUnavailable
from fastapi_guard.stores.columns import as_stored
from fastapi_guard.stores.failures import DatabaseFailure, is_refusal, is_unreadable

try:
    from sqlalchemy import ColumnElement, and_, case, func, null, or_, select, union_all
    from sqlalchemy.orm import Session
except ImportError:
    raise MissingExtraError("sqlalchemy", "sqlalchemy") from None

logger: logging.Logger = logging.getLogger("fastapi_guard")

_UNREADABLE: Final = "a row of the API keys cannot be read"


class KeyOwner(NamedTuple):
    """A key and its owner, ``None`` where that cannot be read: for an event."""

    key_id: str
    user_id: str | None


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


def unrevoked_keys(session: Session, model: type[APIKeyMixin], begin: ColumnElement[bool]) -> list[KeyOwner]:
    """Return the keys under a condition, and those that end with them, that are not revoked, oldest first.

    A key ends with the one that replaced it, and with the one that made it unless it outlives its maker. One query,
    which goes on where a key between two others was revoked before.
    """
    columns = (model.key_id, model.user_id)
    ending = select(*columns).where(begin).cte(recursive=True)
    # Of one user, whose keys have an index.
    replaced = and_(model.replaced_by == ending.c.key_id, model.user_id == ending.c.user_id)
    made = and_(model.maker_key_id == ending.c.key_id, ends_too(model))
    ending = ending.union(select(*columns).join(ending, or_(replaced, made)))
    ended = select(*columns).join(ending, model.key_id == ending.c.key_id).where(model.revoked_at.is_(None))
    ended = ended.order_by(model.created_at, model.key_id)
    rows: Sequence[Any]
    try:
        rows = session.execute(ended).all()
    except Exception as error:
        if not is_unreadable(error):
            raise
        rows = session.execute(ended.with_only_columns(model.key_id, null())).all()
    return [KeyOwner(key_id, user_id if isinstance(user_id, str) else None) for key_id, user_id in rows]


def ends_too(model: type[APIKeyMixin]) -> ColumnElement[bool]:
    """Return the condition that a key ends with the subject or the key that made it."""
    # Also where SQLite has a text for the flag, which is not a true one.
    return model.outlives_maker.is_not(True)


def had_ended(model: type[APIKeyMixin], before: datetime) -> ColumnElement[bool]:
    """Return the condition that a key was revoked or had expired at a moment."""
    return or_(model.revoked_at <= before, model.expires_at <= before)


def unneeded_keys(session: Session, model: type[APIKeyMixin], before: datetime) -> Sequence[str]:
    """Return the keys that had ended at a moment, without those that lead from one that had not to one that ends it."""
    stays = and_(
        or_(model.revoked_at.is_(None), model.revoked_at > before),
        or_(model.expires_at.is_(None), model.expires_at > before),
    )
    replaced = select(model.key_id, model.replaced_by.label("ender")).where(model.replaced_by.is_not(None))
    made = select(model.key_id, model.maker_key_id).where(model.maker_key_id.is_not(None), ends_too(model))
    links = union_all(replaced, made).subquery()
    first = select(links.c.ender).join(model, model.key_id == links.c.key_id).where(stays)
    needed = first.cte(recursive=True)
    needed = needed.union(select(links.c.ender).join(needed, links.c.key_id == needed.c.ender))
    ended = select(model.key_id).join(needed, model.key_id == needed.c.ender, isouter=True)
    return session.scalars(ended.where(had_ended(model, before), needed.c.ender.is_(None))).all()


def ended_usage(session: Session, model: type[APIKeyMixin], before: datetime) -> Sequence[str]:
    """Return the usage ids under which only keys that had ended at a moment have a quota that is never refilled."""
    usage_id = func.coalesce(model.usage_id, model.key_id)
    found = select(usage_id).where(model.quota.is_not(None), model.quota_seconds.is_(None)).group_by(usage_id)
    are_all = func.count() == func.count(case((had_ended(model, before), 1)))
    return session.scalars(found.having(are_all)).all()
