"""The tables of API keys: mixins for the application's own declarative base, and ready models.

Needs the extra ``sqlalchemy``. To Alembic the columns are plain ones: a generated migration does not import this
package.
"""

from datetime import datetime
from typing import Any, NoReturn

from fastapi_guard.api_key.digest import DIGEST_BYTES, SALT_BYTES
from fastapi_guard.api_key.key import MAX_TEXT_LENGTH
from fastapi_guard.exceptions import GuardError, MissingExtraError
from fastapi_guard.stores.columns import SecretBytes, UTCDateTime, keep_indexes

try:
    from sqlalchemy import JSON, BigInteger, Integer, String, event, false
    from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, validates
except ImportError:
    raise MissingExtraError("sqlalchemy", "sqlalchemy") from None


class APIKeyMixin:
    """The columns of an API key, for a class on a declarative base, with another ``__tablename__`` if need be.

    Attributes:
        key_id: The id, which is part of the key and not a secret.
        name: A name for people.
        environment: The environment that is part of the text of the key.
        subject_type: The kind of the owner: ``user``, ``agent``, ``service`` or ``session``.
        issuer: The issuer of the owner; ``NULL`` for subjects of the application itself.
        user_id: The owner.
        tenant_id: The tenant; ``NULL`` for no tenant.
        is_admin: Whether the claims have ``is_admin``.
        scopes: The granted scopes; a bare ``*`` is every scope.
        metadata_: A JSON object; the column is ``metadata``.
        allowed_networks: The networks that the key is accepted from.
        allowed_origins: The origins that may send the key.
        rate: How many requests in which time.
        quota: How many requests in a period, or in all.
        quota_seconds: The period of the quota.
        usage_id: The key id under which its requests are counted.
        maker_issuer: The issuer of the subject that made it.
        maker_id: The subject that made it.
        maker_key_id: The API key that made it, where it was one.
        outlives_maker: Whether it goes on when its maker ends.
        salt: Random bytes that went into the digest.
        digest: HMAC-SHA256(salt + pepper, key).
        pepper: The version of the pepper in the digest.
        created_at: When it was created.
        expires_at: When it expires.
        paused_at: When it was paused; ``NULL`` where it is not.
        paused_by: The actor who paused it.
        revoked_at: When it was revoked. Once set it stays: an assignment of ``None`` or of a later moment, as a stale
            copy that is merged into a session would make, leaves it as it is.
        last_used_at: When it was last used, to the minute.
        last_address: The address that it was last used from.
        replaced_by: The id of the key that replaced it at a rotation.
    """

    __tablename__ = "api_keys"

    key_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str] = mapped_column(String(MAX_TEXT_LENGTH), default="")
    environment: Mapped[str | None] = mapped_column(String(16))
    subject_type: Mapped[str] = mapped_column(String(16), default="user")
    issuer: Mapped[str | None] = mapped_column(String(MAX_TEXT_LENGTH))
    user_id: Mapped[str] = mapped_column(String(MAX_TEXT_LENGTH), index=True)
    tenant_id: Mapped[str | None] = mapped_column(String(MAX_TEXT_LENGTH), index=True)
    is_admin: Mapped[bool] = mapped_column(default=False)
    scopes: Mapped[list[str]] = mapped_column(JSON, default=list)
    metadata_: Mapped[dict[str, Any]] = mapped_column("metadata", JSON, default=dict)
    allowed_networks: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True))
    allowed_origins: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True))
    rate: Mapped[str | None] = mapped_column(String(MAX_TEXT_LENGTH))
    quota: Mapped[int | None] = mapped_column(BigInteger)
    quota_seconds: Mapped[int | None] = mapped_column(BigInteger)
    usage_id: Mapped[str | None] = mapped_column(String(32))
    maker_issuer: Mapped[str | None] = mapped_column(String(MAX_TEXT_LENGTH))
    maker_id: Mapped[str | None] = mapped_column(String(MAX_TEXT_LENGTH), index=True)
    maker_key_id: Mapped[str | None] = mapped_column(String(32), index=True)
    outlives_maker: Mapped[bool] = mapped_column(default=False, server_default=false())
    salt: Mapped[bytes] = mapped_column(SecretBytes(SALT_BYTES))
    digest: Mapped[bytes] = mapped_column(SecretBytes(DIGEST_BYTES))
    pepper: Mapped[str | None] = mapped_column(String(32))
    created_at: Mapped[datetime] = mapped_column(UTCDateTime)
    expires_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    paused_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    paused_by: Mapped[str | None] = mapped_column(String(MAX_TEXT_LENGTH))
    revoked_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    last_used_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    last_address: Mapped[str | None] = mapped_column(String(64))
    replaced_by: Mapped[str | None] = mapped_column(String(32))

    def __repr__(self) -> str:
        """Show the id and the owner, and nothing of the digest."""
        return f"{type(self).__name__}(key_id={self.key_id!r}, user_id={self.user_id!r})"

    @validates("revoked_at")
    def _stay_revoked(self, _: str, value: datetime | None) -> datetime | None:
        revoked_at: datetime | None = self.revoked_at
        if revoked_at is None or (value is not None and value < revoked_at):
            return value
        return revoked_at


keep_indexes(APIKeyMixin, "user_id", "tenant_id", "maker_id", "maker_key_id")


class APIKeyEventMixin:
    """The columns of an event in the life of an API key. Rows are added, never changed and never deleted.

    Attributes:
        id: A number that grows, nearly in the order of the events.
        key_id: The key.
        event: ``created``, ``rotated``, ``paused``, ``resumed`` or ``revoked``.
        actor: The actor, as far as the caller named one.
        replaced_by: The id of the new key of a rotation.
        at: The moment.
    """

    __tablename__ = "api_key_events"

    # SQLite numbers rows by itself only where the type is INTEGER.
    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    key_id: Mapped[str] = mapped_column(String(32), index=True)
    event: Mapped[str] = mapped_column(String(16))
    actor: Mapped[str | None] = mapped_column(String(MAX_TEXT_LENGTH))
    replaced_by: Mapped[str | None] = mapped_column(String(32))
    at: Mapped[datetime] = mapped_column(UTCDateTime)


keep_indexes(APIKeyEventMixin, "key_id")


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
    """An event in the life of an API key."""
