"""The table of users: a mixin for the application's own model, and a ready model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final, cast
from uuid import uuid4

from fastapi_guard.exceptions import MissingExtraError
from fastapi_guard.login.users.names import normalized
from fastapi_guard.login.users.protocol import User
from fastapi_guard.stores.arguments import sync_function_of
from fastapi_guard.stores.columns import SecretText, as_stored, keep_indexes, model_of
from fastapi_guard.stores.database import SessionFactory, Sessions, can_be_stored, change_one, create_tables, insert

try:
    from sqlalchemy import JSON, Connection, String, Table, false, func, select, true, update
    from sqlalchemy.orm import DeclarativeBase, Mapped, class_mapper, mapped_column, validates
    from sqlalchemy.orm.attributes import set_committed_value
except ImportError:
    raise MissingExtraError("sqlalchemy", "sqlalchemy") from None

if TYPE_CHECKING:
    from sqlalchemy import Select
    from sqlalchemy.orm import Session

_LISTS: Final = ("scopes", "roles")
_FLAGS: Final = ("is_admin", "email_verified", "disabled")
_COLUMNS: Final = tuple(field.name for field in fields(User) if field.name != "extra_claims")


class UserMixin:
    """The columns that a login needs, for a model of the application's own, which has its own primary key.

    Override ``extra_claims`` for claims of the application's own.
    """

    subject_id: Mapped[str] = mapped_column(String(255), unique=True, default=lambda: str(uuid4()))
    username: Mapped[str | None] = mapped_column(String(150))
    email: Mapped[str | None] = mapped_column(String(254))
    #: ``username`` and ``email`` normalised, by which users are looked up; set together with them.
    username_key: Mapped[str | None] = mapped_column(String(255), unique=True)
    email_key: Mapped[str | None] = mapped_column(String(320), unique=True)
    email_verified: Mapped[bool] = mapped_column(default=True, server_default=true())
    password_hash: Mapped[str | None] = mapped_column(SecretText)
    subject_type: Mapped[str] = mapped_column(String(32), default="user", server_default="user")
    tenant_id: Mapped[str | None] = mapped_column(String(255))
    is_admin: Mapped[bool] = mapped_column(default=False, server_default=false())
    scopes: Mapped[list[str]] = mapped_column(JSON, default=list)
    roles: Mapped[list[str]] = mapped_column(JSON, default=list)
    disabled: Mapped[bool] = mapped_column(default=False, server_default=false())
    credentials_version: Mapped[int] = mapped_column(default=0, server_default="0")

    @validates("username", "email")
    def _set_key(self, name: str, value: str | None) -> str | None:
        setattr(self, f"{name}_key", None if value is None else normalized(value))
        return value

    def extra_claims(self) -> Mapping[str, Any]:
        """Return claims of the application's own, JSON throughout; none unless overridden."""
        return {}

    def to_user(self) -> User:
        """Return the fields that a login needs."""
        return User(
            subject_id=self.subject_id,
            username=self.username,
            email=self.email,
            email_verified=self.email_verified,
            password_hash=self.password_hash,
            subject_type=self.subject_type,
            tenant_id=self.tenant_id,
            is_admin=self.is_admin,
            scopes=_texts(self.scopes),
            roles=_texts(self.roles),
            disabled=self.disabled,
            credentials_version=self.credentials_version,
            extra_claims=self.extra_claims(),
        )


# The application may declare a column again. Without these two names could be given to two users.
keep_indexes(UserMixin, "subject_id", "username_key", "email_key", unique=True)


class Base(DeclarativeBase):
    """The base of the ready model; Alembic's ``target_metadata`` may list ``Base.metadata``."""


class StoredUser(UserMixin, Base):
    """The ready table of users."""

    __tablename__ = "fastapi_guard_users"

    id: Mapped[int] = mapped_column(primary_key=True)


def set_login_keys(connection: Connection, table: Table) -> None:
    """Fill ``username_key`` and ``email_key`` of every row: for a migration that adds these columns.

    Args:
        connection: A connection in a transaction, such as ``op.get_bind()`` of Alembic.
        table: The table of users, with the columns ``subject_id``, ``username``, ``email`` and both keys.

    Raises:
        ValueError: Several users have the same name, apart from case and Unicode form. All of them are listed, and
            nothing was changed.
    """
    rows = connection.execute(select(table.c.subject_id, table.c.username, table.c.email)).all()
    keys = {row.subject_id: {"username_key": _key(row.username), "email_key": _key(row.email)} for row in rows}
    collisions: list[str] = []
    for column in ("username_key", "email_key"):
        subjects: dict[str, list[str]] = {}
        for subject, values in keys.items():
            if values[column] is not None:
                subjects.setdefault(cast("str", values[column]), []).append(subject)
        collisions += [f"{key!r}: {', '.join(same)}" for key, same in subjects.items() if len(same) > 1]
    if collisions:
        msg = "several users have the same name; rename all but one of each:\n" + "\n".join(collisions)
        raise ValueError(msg)
    for subject, values in keys.items():
        connection.execute(update(table).where(table.c.subject_id == subject).values(**values))


class UserTable:
    """The statements of DatabaseUsers on a model: each method is a transaction of its own."""

    def __init__(self, sessions: SessionFactory, model: type[UserMixin]) -> None:
        """Work on the table of ``model``."""
        self._sessions = Sessions(sessions)
        self._model = model_of("model", model, UserMixin)
        for method in (model.extra_claims, model.to_user):
            sync_function_of(method.__qualname__, method, "of the row", "self")

    async def create(self) -> None:
        """Create the table unless it exists."""
        await create_tables(self._sessions, self._model)

    async def one(self, column: str, value: str) -> User | None:
        """Return the user whose ``column`` has this value."""
        if not can_be_stored(value):
            return None
        condition = getattr(self._model, column) == value

        def find(session: "Session") -> User | None:
            found = self._read(session, lambda statement: statement.where(condition))
            # A collation of the database may treat another name as equal.
            return next((row.to_user() for row in found if getattr(row, column) == value), None)

        return await self._sessions.transaction(find)

    async def all(self) -> list[User]:
        """Return every user, by name."""
        name = func.coalesce(self._model.username, self._model.email)

        def find(session: "Session") -> list[User]:
            return [row.to_user() for row in self._read(session, lambda statement: statement.order_by(name))]

        return await self._sessions.transaction(find)

    async def add(self, user: User) -> bool:
        """Add a user unless the subject, the username or the address is taken."""

        def row() -> UserMixin:
            made = self._model()
            for name in _COLUMNS:
                setattr(made, name, _stored(name, getattr(user, name)))
            return made

        return await insert(self._sessions, row)

    async def change(self, subject: str, values: Mapping[str, Any], **expected: Any) -> bool:
        """Change columns of a user where other columns have the expected values; return whether it did."""
        if not can_be_stored(subject):
            return False
        model = self._model
        where = [getattr(model, name) == value for name, value in {"subject_id": subject, **expected}.items()]
        statement = update(model).where(*where).values(**_with_keys(values))

        return await change_one(self._sessions, statement)

    async def remove(self, subject: str) -> bool:
        """Delete a user; return whether there was one."""
        if not can_be_stored(subject):
            return False
        statement = select(self._model).where(self._model.subject_id == subject)

        def delete(session: "Session") -> bool:
            # Through the ORM, so that what the application's model cascades to is deleted too.
            found = session.scalars(statement).one_or_none()
            if found is not None:
                session.delete(found)
            return found is not None

        return await self._sessions.transaction(delete)

    def _read(self, session: "Session", narrowed: "Callable[[Select[Any]], Select[Any]]") -> list[UserMixin]:
        columns = class_mapper(self._model).columns
        # A model of the application may have a property in place of a column.
        flags = [name for name in _FLAGS if name in columns]
        statement = select(self._model, *(as_stored(columns[name]).label(f"stored_{name}") for name in flags))
        found = []
        for row, *stored in session.execute(narrowed(statement)):
            for name, value in zip(flags, stored, strict=True):
                # Only 1 and true grant, and only 0 and false do not disable: SQLite stores any text.
                set_committed_value(row, name, value != 0 if name == "disabled" else value == 1)
            found.append(row)
        return found


def differences(expected: User, new: User) -> dict[str, Any]:
    """Return the columns in which two versions of a user differ, with the new values."""
    return {
        name: _stored(name, getattr(new, name)) for name in _COLUMNS if getattr(new, name) != getattr(expected, name)
    }


def _with_keys(values: Mapping[str, Any]) -> dict[str, Any]:
    # An UPDATE does not go through the validator of the mixin.
    return {**values, **{f"{name}_key": _key(values[name]) for name in ("username", "email") if name in values}}


def _stored(name: str, value: Any) -> Any:
    return list(value) if name in _LISTS else value


def _key(name: str | None) -> str | None:
    return None if name is None else normalized(name)


def _texts(value: Sequence[str] | None) -> tuple[str, ...]:
    return tuple(value or ())
