"""The application of the soak, and what it is created with: `gunicorn 'load.soaked:create()' --preload`.

API keys, users and refresh tokens are in PostgreSQL; sessions, revocations, quotas and attempts to log in are in Redis.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from benchmarks import core
from fastapi_guard import AnyAuth, BearerScheme, JWTConfig, configure_app
from fastapi_guard.api_key.database import DatabaseAPIKeyAuth
from fastapi_guard.app import tune_gc
from fastapi_guard.cli import database
from fastapi_guard.cli import demo as command
from fastapi_guard.events import AuditTrail, Event
from fastapi_guard.issuers import OIDCAuth
from fastapi_guard.jwt.key_file import KeyFile
from fastapi_guard.login.limits import LoginLimits
from fastapi_guard.login.local import LocalAuth
from fastapi_guard.login.login import Login
from fastapi_guard.login.refresh import RefreshTokens
from fastapi_guard.login.revocation import Revocations
from fastapi_guard.login.session import SessionAuth
from fastapi_guard.login.throttle import Throttle
from fastapi_guard.login.users import DatabaseUsers
from fastapi_guard.routers.api_keys import api_keys_router
from fastapi_guard.routers.login import login_router
from fastapi_guard.routers.sessions import session_router
from fastapi_guard.stores.redis import RedisStore
from fastapi_guard.stores.sqlalchemy import SQLAlchemyStore

demo = command.load_example()
ROLES = {"admin": ["*"], "author": ["posts:edit"], "reader": ["posts:read"]}
AUDIENCE = core.AUDIENCE
COOKIE = "__Host-session"
OWN, BROWSER, ISSUED, ADMIN = "/me", "/browser/me", "/issued", "/admin"
# So short that an outage of some seconds is one: keys serve for their lifetime, and then this much longer.
LIFETIME_SECONDS, STALE_SECONDS, COOLDOWN_SECONDS = 4, 10, 2
# So long that a busy machine is not an outage: what is stopped refuses a connection at once.
PATIENCE_SECONDS = 15
# So short that a session whose uses were lost expires during the soak, and longer than its last restart.
IDLE_SECONDS = 240
ATTEMPTS = 5
_NOT_KEPT = ("authenticated", "refused")  # of each request of wrk


@dataclass(frozen=True, kw_only=True, slots=True)
class Places:
    """The places of the state, from the environment of the workers.

    Attributes:
        postgres: The URL of a PostgreSQL database.
        redis: The URL of a Redis.
        issuer: The URL of an issuer.
        folder: For the signing keys and the audit trail.
    """

    postgres: str
    redis: str
    issuer: str
    folder: Path

    @classmethod
    def named(cls) -> "Places":
        """Return those that the environment names."""
        postgres, redis, issuer, folder = (os.environ[f"SOAK_{name}"] for name in cls.__slots__)
        return cls(postgres=postgres, redis=redis, issuer=issuer, folder=Path(folder))

    def environment(self) -> dict[str, str]:
        """Return the variables that name these."""
        return {f"SOAK_{name}": str(getattr(self, name)) for name in self.__slots__}

    @property
    def keys(self) -> KeyFile:
        """The signing keys."""
        return KeyFile(self.folder / "keys.json")

    @property
    def trail(self) -> Path:
        """The audit trail."""
        return self.folder / "audit.jsonl"

    def fill(self) -> None:
        """Make the tables, the users and the signing keys."""
        database.run(self.postgres, demo.fill, create_tables=True, tables=database.TABLES)
        self.keys.generate()


def create() -> FastAPI:
    """Return the application."""
    places = Places.named()
    engine = create_async_engine(places.postgres, pool_size=5, max_overflow=0)
    sessions, redis, trail = async_sessionmaker(engine), RedisStore.from_url(places.redis), AuditTrail(places.trail)

    def kept(event: Event) -> None:
        if event.name not in _NOT_KEPT:
            trail(event)

    limits = LoginLimits(
        account=Throttle(f"{ATTEMPTS}/hour", storage=places.redis, name="account", timeout=PATIENCE_SECONDS),
        address=Throttle("100000/hour", storage=places.redis, name="address", timeout=PATIENCE_SECONDS),
    )
    login = Login(DatabaseUsers(sessions), redis, limits=limits, on_event=kept)
    tokens = LocalAuth(
        JWTConfig(key=places.keys, issuer_url="https://soak.example", audience=AUDIENCE),
        login,
        refresh=RefreshTokens(SQLAlchemyStore(sessions), on_event=kept),
        revocations=Revocations(redis, name="tokens"),
        roles=ROLES,
        on_event=kept,
    )
    browser = SessionAuth(
        redis,
        idle_lifetime=timedelta(seconds=IDLE_SECONDS),
        cache_ttl=timedelta(minutes=5),
        roles=ROLES,
        on_event=kept,
    )
    keys = DatabaseAPIKeyAuth(sessions, BearerScheme(scheme_name="APIKey"), usage=redis, roles=ROLES, on_event=kept)
    issued = OIDCAuth(
        places.issuer,
        AUDIENCE,
        min_ttl=LIFETIME_SECONDS,
        max_ttl=LIFETIME_SECONDS,
        stale_for=STALE_SECONDS,
        cooldown=COOLDOWN_SECONDS,
        timeout=PATIENCE_SECONDS,
    )
    own = AnyAuth(tokens, keys)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        tune_gc()
        async with issued:
            yield
        for auth in (tokens, browser, keys):
            await auth.aclose()
        await redis.aclose()
        await engine.dispose()

    app = FastAPI(lifespan=lifespan)
    app.include_router(login_router(tokens))
    app.include_router(session_router(browser, login, prefix="/browser"))
    app.include_router(api_keys_router(keys, auth=own, prefix="/keys"))

    @app.get("/health")
    async def health() -> str:
        return "ok"

    @app.get(OWN)
    async def of_tokens_and_keys(claims: Annotated[dict[str, Any], own.authenticated()]) -> str:
        return str(claims["sub"])

    @app.get(BROWSER)
    async def of_a_session(claims: Annotated[dict[str, Any], browser.authenticated()]) -> str:
        return str(claims["sub"])

    @app.get(ISSUED)
    async def of_the_issuer(claims: Annotated[dict[str, Any], issued.requires("items:read")]) -> str:
        return str(claims["sub"])

    @app.get(ADMIN, dependencies=[own.requires("users:read")])
    async def of_administrators() -> str:
        return "ok"

    public = ["/health", "/token", "/token/refresh", "/token/revoke", "/login", "/browser/login", "/browser/logout"]
    configure_app(app, unguarded="refuse", public=public)
    return app
