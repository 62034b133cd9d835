"""An application with every router of the package, on a database in a file."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from fastapi import FastAPI, Request, Response
from sqlalchemy import event, inspect
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from fastapi_guard import JWTConfig, configure_app, jwks_router
from fastapi_guard.api_key.database import DatabaseAPIKeyAuth
from fastapi_guard.api_key.models import Base as KeyBase
from fastapi_guard.app.tickets import TicketAuth
from fastapi_guard.jwt.key_file import KeyFile
from fastapi_guard.login.accounts import AccountPages, Accounts
from fastapi_guard.login.enrolled import DatabaseFactors
from fastapi_guard.login.local import LocalAuth
from fastapi_guard.login.login import Login, LoginLimits
from fastapi_guard.login.mailed import MailedCode
from fastapi_guard.login.messages import Message, Outbox
from fastapi_guard.login.passkeys import Passkeys
from fastapi_guard.login.passwords import PasswordHasher
from fastapi_guard.login.providers import DatabaseIdentities, OpenIDProvider, ProviderLogin, ProviderLogout
from fastapi_guard.login.recovery import RecoveryCodes
from fastapi_guard.login.refresh import RefreshTokens
from fastapi_guard.login.session import SessionAuth
from fastapi_guard.login.throttle import Throttle
from fastapi_guard.login.totp import TOTP
from fastapi_guard.login.users import DatabaseUsers, User
from fastapi_guard.routers import protected_resource_router
from fastapi_guard.routers.accounts import accounts_router
from fastapi_guard.routers.api_keys import api_keys_router, service_accounts_router
from fastapi_guard.routers.factors import factors_router
from fastapi_guard.routers.login import login_router
from fastapi_guard.routers.login_pages import LoginPages
from fastapi_guard.routers.providers import providers_router
from fastapi_guard.routers.sessions import session_router
from fastapi_guard.routers.tickets import tickets_router
from fastapi_guard.stores.sqlalchemy import SQLAlchemyStore
from fastapi_guard.testing.issuer import FakeIssuer

SITE = "https://shop.example"
# One whose work is not what is tested here.
QUICK = {"argon2__memory_cost": 64, "argon2__time_cost": 1, "argon2__parallelism": 1}
KEY = "8d1c0b7a45f29e6331c7d8e0f4a5b6c7"
PASSWORD = "wonderland tea party"
NAMES = ("ada", "grace", "joan", "mary")


class EveryRouter:
    """The application, and what surrounds it.

    Attributes:
        app: The application, at ``SITE``.
        auth: Issues its tokens.
        sessions: Its sessions.
        issuer: The provider, ``acme``.
        messages: What was sent.
        loop: Where it runs, once it does.
    """

    loop: asyncio.AbstractEventLoop

    def __init__(self, folder: Path, address: Throttle) -> None:
        """Build it, with a limit on what one address may try, and none on an account that a test would reach."""
        keys = KeyFile(folder / "keys.json")
        keys.generate("ES256")
        self.engine = create_async_engine(f"sqlite+aiosqlite:///{folder / 'every-router.db'}")
        event.listen(self.engine.sync_engine, "connect", _hurry)
        factory = async_sessionmaker(self.engine)
        self.messages: SimpleQueue[Message] = SimpleQueue()
        self._tables: list[Any] = [DatabaseUsers(factory), SQLAlchemyStore(factory), DatabaseIdentities(factory)]
        users, store, identities = self._tables
        self.factors = DatabaseFactors(factory)
        outbox = Outbox(self._send)
        limits = LoginLimits(account=Throttle("100000/minute", name="account"), address=address)
        self.login = Login(
            users,
            store,
            second=[
                TOTP(key=KEY, issuer="Shop"),
                Passkeys(rp_id="shop.example", origin=SITE),
                RecoveryCodes(),
                MailedCode(outbox, key=KEY, first=True),
            ],
            records=self.factors,
            outbox=outbox,
            limits=limits,
            passwords=PasswordHasher(["argon2"], settings=QUICK),
        )
        config = JWTConfig(key=keys, issuer_url=SITE, audience=SITE)
        refresh = RefreshTokens(store)
        self.auth = auth = LocalAuth(config, self.login, refresh=refresh)
        self.sessions = sessions = SessionAuth(store)
        api_keys = DatabaseAPIKeyAuth(factory)
        accounts = Accounts(self.login, key=KEY, pages=AccountPages(site=SITE))
        self.issuer = provider = FakeIssuer("https://id.example", audience="shop")
        acme = OpenIDProvider("acme", provider.url, "shop", "a secret of the client", client=provider.client)
        callback = f"{SITE}/session/providers/{{provider}}/callback"
        sign_in = ProviderLogin(self.login, [acme], callback=callback, identities=identities)
        logout = ProviderLogout(sign_in, sessions, after=f"{SITE}/bye")
        self.app = app = FastAPI(lifespan=self._lifespan)
        app.include_router(login_router(auth))
        app.include_router(login_router(auth, prefix="/spa", refresh_cookie=True))
        app.include_router(session_router(sessions, self.login, prefix="/session", pages=LoginPages()))
        app.include_router(accounts_router(accounts, auth, inviters=auth.authenticated()))
        app.include_router(accounts_router(accounts, sessions, prefix="/session"))
        app.include_router(factors_router(self.login, auth))
        app.include_router(factors_router(self.login, sessions, prefix="/session"))
        app.include_router(api_keys_router(api_keys, auth=auth, families=refresh))
        app.include_router(service_accounts_router(api_keys, auth=auth))
        app.include_router(providers_router(sign_in, auth))
        app.include_router(providers_router(sign_in, sessions, prefix="/session", logout=logout))
        app.include_router(tickets_router(TicketAuth(store, auth)))
        app.include_router(tickets_router(TicketAuth(store, auth, name="chat", purpose="chat"), prefix="/chat"))
        app.include_router(jwks_router(auth))
        app.include_router(protected_resource_router(auth, resource=SITE))
        configure_app(app)

    @asynccontextmanager
    async def _lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        self.loop = asyncio.get_running_loop()
        for tables in self._tables:
            await tables.create_table()
        await self.factors.create_tables()
        async with self.engine.begin() as connection:
            await connection.run_sync(KeyBase.metadata.create_all)
        assert self.login.passwords is not None
        hashed = await self.login.passwords.hash(PASSWORD)
        for name in NAMES:
            user = User(
                subject_id=name,
                username=name,
                email=f"{name}@shop.example",
                email_verified=True,
                password_hash=hashed,
                scopes=("api-keys:admin", "items:read"),
            )
            assert await self.login.users.add(user)
        yield
        await self.login.outbox.drain()
        await self.login.aclose()
        await self.engine.dispose()

    async def execute(self, *statements: str) -> None:
        """Execute statements of SQL in its database."""
        async with self.engine.begin() as connection:
            for statement in statements:
                await connection.exec_driver_sql(statement)

    async def lose_database(self) -> None:
        """Drop its tables."""
        async with self.engine.begin() as connection:
            tables = await connection.run_sync(lambda sync: inspect(sync).get_table_names())
        await self.execute(*(f'DROP TABLE "{table}"' for table in tables))

    async def session(self, **claims: Any) -> str:
        """Begin a session with claims of the application's own, and return its cookie."""
        response = Response()
        await self.sessions.login(response, claims, connection=Request({"type": "http", "headers": []}))
        return response.headers["set-cookie"].partition(";")[0]

    async def _send(self, message: Message) -> None:
        self.messages.put(message)


def _hurry(connection: Any, _: object) -> None:
    # Nothing has to survive a crash.
    connection.cursor().execute("PRAGMA synchronous = OFF")
