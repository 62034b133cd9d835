"""The parts of statements on the table of API keys: columns, conditions, and how many rows a statement changed."""

from typing import Any, cast

from fastapi_guard.api_key.format import KEY_ID
from fastapi_guard.api_key.key import unknown_key
from fastapi_guard.api_key.models import APIKeyMixin
from fastapi_guard.exceptions import MissingExtraError

try:
    from sqlalchemy import ColumnElement, CursorResult, Delete, Update
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import InstrumentedAttribute, Session
except ImportError:
    raise MissingExtraError("sqlalchemy", "sqlalchemy") from None


def attribute_name(field_name: str) -> str:
    """Return the attribute of the model for a field of StoredKey."""
    # A declarative class has a metadata of its own.
    return "metadata_" if field_name == "metadata" else field_name


def column(model: type[APIKeyMixin], name: str) -> InstrumentedAttribute[Any]:
    """Return the column of the model for a field of StoredKey."""
    return cast("InstrumentedAttribute[Any]", getattr(model, attribute_name(name)))


def equals(model: type[APIKeyMixin], name: str, value: str | None) -> ColumnElement[bool]:
    """Return the condition that a field has this value, or none."""
    found = column(model, name)
    return found.is_(None) if value is None else found == value


def changed_rows(session: Session, statement: Update | Delete) -> int:
    """Return how many rows a statement changed."""
    return cast("CursorResult[Any]", session.execute(statement)).rowcount


def check_sync(session: Session | AsyncSession, method: str) -> Session:
    """Return a session of the caller in which ``method`` can wait for the database.

    Raises:
        TypeError: It is an async one.
    """
    if isinstance(session, AsyncSession):
        msg = f"{method}() waits for the database: call await session.run_sync(keys.{method}, ...)"
        raise TypeError(msg)
    return session


def known_shape(key_id: str) -> str:
    """Return the id of a key.

    Raises:
        KeyNotFound: No id has this shape.
    """
    if not KEY_ID.fullmatch(key_id):
        raise unknown_key(key_id)
    return key_id
