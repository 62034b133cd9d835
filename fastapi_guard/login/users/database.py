"""Users in a table: DatabaseUsers, which can be imported without SQLAlchemy, unlike the table."""

from typing import TYPE_CHECKING

from fastapi_guard.login.users.protocol import User

if TYPE_CHECKING:
    from fastapi_guard.login.users.models import UserMixin
    from fastapi_guard.stores.database import SessionFactory


class DatabaseUsers:
    """Users in a table of the application's database, by ``fastapi_guard.login.users.models``."""

    def __init__(self, session_factory: "SessionFactory", *, model: "type[UserMixin] | None" = None) -> None:
        """Work in sessions of a sessionmaker or an async_sessionmaker, which are committed here.

        Args:
            session_factory: The sessionmaker.
            model: A model with UserMixin, by default the ready StoredUser.

        Raises:
            ConfigurationError: It is not a sessionmaker, or of a SQLite database in memory, which every thread has
                its own copy of.
            MissingExtraError: The extra ``sqlalchemy`` is not installed.
        """
        from fastapi_guard.login.users import models  # noqa: PLC0415 - MappingUsers does not need the extra

        self._models = models
        self._table = models.UserTable(session_factory, models.StoredUser if model is None else model)

    async def create_table(self) -> None:
        """Create the table unless it exists."""
        await self._table.create()

    async def by_login(self, login: str) -> User | None:
        """Return the user with this normalised username or address, ``None`` where there is no such user."""
        return await self._table.one("email_key" if "@" in login else "username_key", login)

    async def by_subject(self, subject: str) -> User | None:
        """Return the user with this ``subject_id``, ``None`` where there is no such user."""
        return await self._table.one("subject_id", subject)

    async def all(self) -> list[User]:
        """Return every user, by name."""
        return await self._table.all()

    async def add(self, user: User) -> bool:
        """Add a user unless the subject, the username or the address is taken; return whether it was added."""
        return await self._table.add(user)

    async def set_password_hash(self, subject: str, expected: str | None, new: str) -> bool:
        """Replace the hash of the password where it is still ``expected``, and change nothing else."""
        return await self._table.change(subject, {"password_hash": new}, password_hash=expected)

    async def update(self, expected: User, new: User) -> bool:
        """Write the fields that differ, where the user still has the ``credentials_version`` of ``expected``."""
        changes = self._models.differences(expected, new)
        # A statement that changes nothing would not tell whether the version is still the same.
        changes.setdefault("credentials_version", new.credentials_version)
        return await self._table.change(expected.subject_id, changes, credentials_version=expected.credentials_version)

    async def remove(self, subject: str) -> bool:
        """Delete a user; return whether there was one."""
        return await self._table.remove(subject)
