"""The parts of the application: what the pages show, and the routers of the library serve."""

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from fastapi import params
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine

from fastapi_guard.api_key.database import DatabaseAPIKeyAuth
from fastapi_guard.api_key.models import Base as KeyBase
from fastapi_guard.exceptions import ConfigurationError
from fastapi_guard.login.accounts import AccountPages, Accounts
from fastapi_guard.login.enrolled import DatabaseFactors
from fastapi_guard.login.login import Login
from fastapi_guard.login.messages import Outbox
from fastapi_guard.login.passkeys import Passkeys
from fastapi_guard.login.providers import DatabaseIdentities, ProviderLogin
from fastapi_guard.login.recovery import RecoveryCodes
from fastapi_guard.login.session import SessionAuth
from fastapi_guard.login.totp import TOTP
from fastapi_guard.login.users import DatabaseUsers, User
from fastapi_guard.stores.sqlalchemy import SQLAlchemyStore

from .development import DevelopmentProvider, Mailbox

NAME = "Accounts"
# Every user is a member, and a key has at most the scopes of the user who makes it.
ROLES = {"member": ["profile:read", "profile:edit"]}


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """The settings of the application.

    Attributes:
        key: At least 32 random bytes, which encrypt the secrets of authenticator apps and hash mailed codes.
        site: The origin of the pages, on which links, passkeys and redirect URIs depend.
        base: The path that the application is mounted at; "" where it has a server of its own.
        database: A URL of SQLAlchemy, with an async driver.
        development: Whether `development.py` may be served at another host than localhost.
    """

    key: str = field(repr=False)
    site: str = "http://localhost:8000"
    base: str = ""
    database: str = "sqlite+aiosqlite:///accounts.db"
    development: bool = False

    def __post_init__(self) -> None:
        """Check the host: the page of messages shows every link to everyone.

        Raises:
            ConfigurationError: Other machines may reach it.
        """
        if urlsplit(self.site).hostname != "localhost" and not self.development:
            msg = "replace Mailbox and DevelopmentProvider in parts.py, and remove this check with development.py"
            raise ConfigurationError(msg)


class Parts:
    """The parts of the application, made of its settings.

    Attributes:
        sessions: The Auth of the pages; ``current`` is a guard that returns the user of a session.
        keys: The Auth of ``/api/profile``.
    """

    def __init__(self, settings: Settings) -> None:
        """Open the database; nothing is read or written yet."""
        self.settings: Settings = settings
        self.engine: AsyncEngine = create_async_engine(settings.database)
        factory = async_sessionmaker(self.engine)
        self.users: DatabaseUsers = DatabaseUsers(factory)
        self.store: SQLAlchemyStore = SQLAlchemyStore(factory)
        self.factors: DatabaseFactors = DatabaseFactors(factory)
        self.identities: DatabaseIdentities = DatabaseIdentities(factory)
        self.mailbox: Mailbox = Mailbox()
        url = settings.site + settings.base
        self.login: Login = Login(
            self.users,
            self.store,
            second=[
                TOTP(key=settings.key, issuer=NAME),
                Passkeys(rp_id=urlsplit(settings.site).hostname or "", origin=settings.site, rp_name=NAME),
                RecoveryCodes(),
            ],
            records=self.factors,
            outbox=Outbox(self.mailbox),
        )
        self.sessions: SessionAuth = SessionAuth(self.store, roles=ROLES, default_role="member")
        self.current: params.Security = self.sessions.user(self._load)
        self.keys: DatabaseAPIKeyAuth = DatabaseAPIKeyAuth(factory)
        # A change of password, and the end of an account, ends its keys too.
        self.login.ends(self.keys)
        pages = AccountPages(
            site=settings.site, verify=f"{settings.base}/verify", reset=f"{settings.base}/reset", in_query=True
        )
        self.accounts: Accounts = Accounts(self.login, key=settings.key, pages=pages)
        self.provider: DevelopmentProvider = DevelopmentProvider(f"{url}/development")
        self.sign_in: ProviderLogin = ProviderLogin(
            self.login,
            [self.provider.client],  # and presets.google(...), GitHub(...)
            callback=f"{url}/providers/{{provider}}/callback",
            identities=self.identities,
        )

    async def _load(self, claims: dict[str, Any]) -> User | None:
        return await self.users.by_subject(claims["sub"])

    async def create_tables(self) -> None:
        """Create the tables that do not exist."""
        for tables in (self.users, self.store, self.identities):
            await tables.create_table()
        await self.factors.create_tables()
        async with self.engine.begin() as connection:
            await connection.run_sync(KeyBase.metadata.create_all)

    async def aclose(self) -> None:
        """Send what waits to be sent, and close the database."""
        await self.accounts.outbox.drain()
        await self.sessions.aclose()
        await self.login.aclose()
        await self.engine.dispose()
