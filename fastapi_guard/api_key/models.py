"""The tables of API keys: mixins for the application's own declarative base, and models that are ready for use.

Needs the extra ``sqlalchemy``. The columns are plain ones to Alembic: a migration that it generates names nothing of
this package.
"""

from datetime import UTC, datetime
from typing import Any, NoReturn

from fastapi_guard.api_key.digest import DIGEST_BYTES, SALT_BYTES
from fastapi_guard.api_key.fields import MAX_TEXT_LENGTH
from fastapi_guard.exceptions import GuardError, MissingExtraError
from fastapi_guard.stores.columns import SecretBytes

try:
    from sqlalchemy import JSON, BigInteger, DateTime, Dialect, Integer, String, event
    from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, validates
    from sqlalchemy.types import TypeDecorator
except ImportError:
    raise MissingExtraError("sqlalchemy", "sqlalchemy") from None


class UTCDateTime(TypeDecorator[datetime]):
    """An aware moment in UTC, also from a database that stores no time zone."""

    # By these two a generated migration says sa.DateTime(timezone=True), and does not depend on this package.
    __module__ = "sqlalchemy.types"

    def __repr__(self) -> str:
        """Show the type that the database sees."""
        return repr(self.impl)

    impl: DateTime = DateTime(timezone=True)
    cache_ok: bool | None = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - SQLAlchemy's
        """Refuse a naive datetime, whose moment nobody knows."""
        if value is None:
            return None
        if value.tzinfo is None:
            msg = "a naive datetime cannot be stored: use datetime.now(UTC)"
            raise ValueError(msg)
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - SQLAlchemy's
        """Return it in UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class APIKeyMixin:
    """The columns of an API key. Give it to a class on a declarative base, with another ``__tablename__`` if need be.

    Attributes:
        key_id: What the row is found by; part of the key, and no secret.
        name: What its owner calls it.
        subject_type: ``user``, ``agent``, ``service`` or ``session``.
        user_id: Whom it belongs to.
        tenant_id: Where it holds, ``None`` for no tenant.
        is_admin: Whether its claims say ``is_admin``.
        scopes: What it may do; a bare ``*`` is everything.
        metadata_: Anything that JSON can say; the column is ``metadata``.
        salt: Random bytes that went into the digest.
        digest: HMAC-SHA256(salt + pepper, key).
        pepper: The version of the pepper in it.
        created_at: When it was created.
        expires_at: From when on it does not hold.
        revoked_at: Since when it does not hold. Once set it stays: an assignment of ``None`` or of a later moment, as
            a stale copy that is merged into a session would make, leaves it as it is.
        last_used_at: When it was last used, to the minute.
        replaced_by: The id of the key that rotation put in its place.
    """

    __tablename__ = "api_keys"

    key_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str] = mapped_column(String(MAX_TEXT_LENGTH), default="")
    subject_type: Mapped[str] = mapped_column(String(16), default="user")
    user_id: Mapped[str] = mapped_column(String(MAX_TEXT_LENGTH), index=True)
    tenant_id: Mapped[str | None] = mapped_column(String(MAX_TEXT_LENGTH))
    is_admin: Mapped[bool] = mapped_column(default=False)
    scopes: Mapped[list[str]] = mapped_column(JSON, default=list)
    metadata_: Mapped[dict[str, Any]] = mapped_column("metadata", JSON, default=dict)
    salt: Mapped[bytes] = mapped_column(SecretBytes(SALT_BYTES))
    digest: Mapped[bytes] = mapped_column(SecretBytes(DIGEST_BYTES))
    pepper: Mapped[str | None] = mapped_column(String(32))
    created_at: Mapped[datetime] = mapped_column(UTCDateTime)
    expires_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    revoked_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    last_used_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    replaced_by: Mapped[str | None] = mapped_column(String(32))

    def __repr__(self) -> str:
        """Show whose key it is, and nothing that it was made of."""
        return f"{type(self).__name__}(key_id={self.key_id!r}, user_id={self.user_id!r})"

    @validates("revoked_at")
    def _stay_revoked(self, _: str, value: datetime | None) -> datetime | None:
        revoked_at: datetime | None = self.revoked_at
        if revoked_at is None or (value is not None and value < revoked_at):
            return value
        return revoked_at


class APIKeyEventMixin:
    """The columns of what happened to API keys. Rows are added, never changed and never deleted.

    Attributes:
        id: In the order of the events, nearly.
        key_id: The key that it happened to.
        event: ``created``, ``rotated`` or ``revoked``.
        actor: By whom, as far as the caller said.
        replaced_by: The id of the new key of a rotation.
        at: When.
    """

    __tablename__ = "api_key_events"

    # SQLite numbers rows by itself only where the type is INTEGER.
    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    key_id: Mapped[str] = mapped_column(String(32), index=True)
    event: Mapped[str] = mapped_column(String(16))
    actor: Mapped[str | None] = mapped_column(String(MAX_TEXT_LENGTH))
    replaced_by: Mapped[str | None] = mapped_column(String(32))
    at: Mapped[datetime] = mapped_column(UTCDateTime)


@event.listens_for(APIKeyEventMixin, "before_update", propagate=True)
@event.listens_for(APIKeyEventMixin, "before_delete", propagate=True)
def _refuse_change(*_: object) -> NoReturn:
    msg = "the events of API keys are append-only: an event is never changed and never deleted"
    raise GuardError(msg)


class Base(DeclarativeBase):
    """The declarative base of the models below, for ``Base.metadata.create_all`` and Alembic's ``target_metadata``."""


class APIKey(APIKeyMixin, Base):
    """An API key."""


class APIKeyEvent(APIKeyEventMixin, Base):
    """Something that happened to an API key."""
