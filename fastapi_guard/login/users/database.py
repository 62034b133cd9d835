"""Users in a table: DatabaseUsers, which can be imported without SQLAlchemy, before the table that cannot."""

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
            ConfigurationError: It is none, or of SQLite in memory, which is another one in each thread.
            MissingExtraError: The extra ``sqlalchemy`` is not installed.
        """
        from fastapi_guard.login.users import models  # noqa: PLC0415 - MappingUsers is for those without the extra

        self._table = models.UserTable(session_factory, models.StoredUser if model is None else model)

    async def create_table(self) -> None:
        """Create the table unless it is there."""
        await self._table.create()

    async def get(self, username: str) -> User | None:
        """Return the user of this name, ``None`` where there is none."""
        return await self._table.get(username)

    async def all(self) -> list[User]:
        """Return every user, by name."""
        return await self._table.all()

    async def add(self, user: User) -> bool:
        """Put a user in unless the name or the subject is taken; return whether it was put in."""
        return await self._table.add(user)

    async def set_password_hash(self, username: str, hash: str) -> None:  # noqa: A002 - what it is
        """Store another hash of the password, and touch nothing else."""
        await self._table.change(username, password_hash=hash)

    async def set_disabled(self, username: str, disabled: bool = True) -> bool:  # noqa: FBT001, FBT002 - what is set
        """Disable a user, or enable it again; return whether there is one of that name."""
        return await self._table.change(username, disabled=disabled)
