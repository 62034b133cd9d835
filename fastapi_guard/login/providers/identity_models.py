"""The table of linked identities: a mixin for the application's own model, and a ready model."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from fastapi_guard.exceptions import MissingExtraError
from fastapi_guard.login.providers.identities import LinkedIdentity
from fastapi_guard.stores.columns import keep_indexes, model_of
from fastapi_guard.stores.database import SessionFactory, Sessions, can_be_stored, change_one, create_tables, insert

try:
    from sqlalchemy import Double, String, delete, select
    from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
except ImportError:
    raise MissingExtraError("sqlalchemy", "sqlalchemy") from None

if TYPE_CHECKING:
    from sqlalchemy.orm import Session


class IdentityMixin:
    """The columns of a linked identity, for a model of the application's own, which has its own primary key.

    Attributes:
        identity_id: A hash of issuer and provider's subject, unique.
        subject_id: The ``subject_id`` of the user.
        provider: The name of the provider.
        issuer: The issuer.
        provider_subject: The ``sub`` at the provider.
        label: The address or name that the provider named when it was linked.
        created_at: Seconds since the epoch.
    """

    identity_id: Mapped[str] = mapped_column(String(64), unique=True)
    subject_id: Mapped[str] = mapped_column(String(255), index=True)
    provider: Mapped[str] = mapped_column(String(32))
    issuer: Mapped[str] = mapped_column(String(255))
    provider_subject: Mapped[str] = mapped_column(String(255))
    label: Mapped[str | None] = mapped_column(String(254))
    created_at: Mapped[float] = mapped_column(Double)


keep_indexes(IdentityMixin, "subject_id")
keep_indexes(IdentityMixin, "identity_id", unique=True)


class Base(DeclarativeBase):
    """The base of the ready model; Alembic's ``target_metadata`` may list ``Base.metadata``."""


class StoredIdentity(IdentityMixin, Base):
    """The ready table of linked identities."""

    __tablename__ = "fastapi_guard_identities"

    id: Mapped[int] = mapped_column(primary_key=True)


class IdentityTable:
    """The statements of DatabaseIdentities: each method is a transaction of its own."""

    def __init__(self, sessions: SessionFactory, model: type[IdentityMixin]) -> None:
        """Work on the table of ``model``."""
        self._sessions = Sessions(sessions)
        self._model: Any = model_of("model", model, IdentityMixin)

    async def create(self) -> None:
        """Create the table unless it exists."""
        await create_tables(self._sessions, self._model)

    async def where(self, column: str, value: str) -> list[LinkedIdentity]:
        """Return the identities whose ``column`` has this value."""
        if not can_be_stored(value):
            return []
        statement = select(self._model).where(getattr(self._model, column) == value)

        def read(session: "Session") -> list[LinkedIdentity]:
            # A collation of the database may treat another text as equal.
            return [_identity(row) for row in session.scalars(statement) if getattr(row, column) == value]

        return await self._sessions.transaction(read)

    async def add(self, identity: LinkedIdentity) -> bool:
        """Add an identity unless its id is taken."""
        columns = asdict(identity)
        columns |= {"identity_id": columns.pop("id"), "subject_id": columns.pop("subject")}
        return await insert(self._sessions, lambda: self._model(**columns))

    async def remove(self, identity_id: str) -> bool:
        """Remove an identity; return whether there was one."""
        if not can_be_stored(identity_id):
            return False
        return await change_one(self._sessions, delete(self._model).where(self._model.identity_id == identity_id))


def _identity(row: IdentityMixin) -> LinkedIdentity:
    return LinkedIdentity(
        id=row.identity_id,
        subject=row.subject_id,
        provider=row.provider,
        issuer=row.issuer,
        provider_subject=row.provider_subject,
        label=row.label,
        created_at=row.created_at,
    )
