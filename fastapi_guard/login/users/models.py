"""The table of users: a mixin for the application's own model, and a ready one."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

from fastapi_guard.exceptions import MissingExtraError
from fastapi_guard.login.users.protocol import User
from fastapi_guard.stores.database import SessionFactory, Sessions

try:
    from sqlalchemy import JSON, CursorResult, String, Table, Text, false, select, update
    from sqlalchemy.exc import IntegrityError
    from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
except ImportError:
    raise MissingExtraError("sqlalchemy", "sqlalchemy") from None

if TYPE_CHECKING:
    from sqlalchemy.orm import Session


class UserMixin:
    """The columns that logging in needs, for a model of the application's own; the primary key is its own too."""

    username: Mapped[str] = mapped_column(String(320), unique=True)
    password_hash: Mapped[str] = mapped_column(Text)
    subject_id: Mapped[str] = mapped_column(String(255), unique=True, default=lambda: uuid4().hex)
    subject_type: Mapped[str] = mapped_column(String(32), default="user", server_default="user")
    tenant_id: Mapped[str | None] = mapped_column(String(255))
    is_admin: Mapped[bool] = mapped_column(default=False, server_default=false())
    scopes: Mapped[list[str]] = mapped_column(JSON, default=list)
    roles: Mapped[list[str]] = mapped_column(JSON, default=list)
    disabled: Mapped[bool] = mapped_column(default=False, server_default=false())

    def to_user(self) -> User:
        """Return what logging in needs to know."""
        return User(
            username=self.username,
            password_hash=self.password_hash,
            subject_id=self.subject_id,
            subject_type=self.subject_type,
            tenant_id=self.tenant_id,
            is_admin=self.is_admin,
            scopes=_texts(self.scopes),
            roles=_texts(self.roles),
            disabled=self.disabled,
        )


class Base(DeclarativeBase):
    """The base of the ready model; Alembic's ``target_metadata`` may list ``Base.metadata``."""


class StoredUser(UserMixin, Base):
    """The ready table of users."""

    __tablename__ = "fastapi_guard_users"

    id: Mapped[int] = mapped_column(primary_key=True)


class UserTable:
    """What DatabaseUsers does with a model: each method is one statement in a transaction of its own."""

    def __init__(self, sessions: SessionFactory, model: type[UserMixin]) -> None:
        """Work on the table of ``model``."""
        self._sessions = Sessions(sessions)
        self._model = model

    async def create(self) -> None:
        """Create the table unless it is there."""
        table = cast("Table", cast("Any", self._model).__table__)
        await self._sessions.transaction(lambda session: table.create(session.connection(), checkfirst=True))

    async def get(self, username: str) -> User | None:
        """Return the user of this name."""
        if not _can_be_stored(username):
            return None
        statement = select(self._model).where(self._model.username == username)

        def find(session: "Session") -> User | None:
            found = session.scalars(statement).one_or_none()
            # A collation of the database may take another name for this one.
            return None if found is None or found.username != username else found.to_user()

        return await self._sessions.transaction(find)

    async def all(self) -> list[User]:
        """Return every user, by name."""
        statement = select(self._model).order_by(self._model.username)
        return await self._sessions.transaction(lambda session: [each.to_user() for each in session.scalars(statement)])

    async def add(self, user: User) -> bool:
        """Put a user in unless the name or the subject is taken."""

        def insert(session: "Session") -> bool:
            row = self._model()
            for name in User.__slots__:
                value = getattr(user, name)
                setattr(row, name, list(value) if name in ("scopes", "roles") else value)
            session.add(row)
            try:
                session.flush()
            except IntegrityError:
                session.rollback()
                return False
            return True

        return await self._sessions.transaction(insert)

    async def change(self, username: str, **values: Any) -> bool:
        """Change these columns of a user and no other; return whether there is one of that name."""
        if not _can_be_stored(username):
            return False
        statement = update(self._model).where(self._model.username == username).values(**values)

        def write(session: "Session") -> bool:
            return cast("CursorResult[Any]", session.execute(statement)).rowcount == 1

        return await self._sessions.transaction(write)


def _can_be_stored(name: str) -> bool:
    # No database holds a lone surrogate, PostgreSQL no NUL: whoever asks for such a name is nobody, and no error.
    return "\x00" not in name and not any("\ud800" <= character <= "\udfff" for character in name)


def _texts(value: Sequence[str] | None) -> tuple[str, ...]:
    return tuple(value or ())
