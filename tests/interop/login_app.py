"""An API that logs users in with a password, and whose users make API keys."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import FastAPI
from joserfc import jwk
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.pool import StaticPool

from fastapi_guard import JWTConfig, configure_app
from fastapi_guard.api_key.database import DatabaseAPIKeyAuth
from fastapi_guard.api_key.models import Base
from fastapi_guard.login.local import LocalAuth
from fastapi_guard.login.passwords import PasswordHasher
from fastapi_guard.login.refresh import RefreshTokens
from fastapi_guard.routers.api_keys import api_keys_router
from fastapi_guard.routers.login import login_router
from fastapi_guard.stores import MemoryStore

hashed = asyncio.run(PasswordHasher().hash("wonderland tea party"))
auth = LocalAuth(
    JWTConfig(key=jwk.ECKey.generate_key("P-256"), expiration_seconds=300),
    {"alice": {"password_hash": hashed, "scopes": ["items:read", "items:write"]}},
    refresh=RefreshTokens(MemoryStore()),
)
engine = create_async_engine("sqlite+aiosqlite://", poolclass=StaticPool)
keys = DatabaseAPIKeyAuth(async_sessionmaker(engine))


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Create the tables."""
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield
    await engine.dispose()


app = FastAPI(lifespan=lifespan)
app.include_router(login_router(auth))
app.include_router(api_keys_router(keys, auth=auth | keys))


@app.get("/items")
async def items(claims: Annotated[dict[str, Any], (auth | keys).requires("items:read")]) -> str:
    """Return the scopes."""
    return str(claims["scope"])


@app.get("/changes")
async def changes(claims: Annotated[dict[str, Any], (auth | keys).requires("items:write")]) -> str:
    """Return the scopes."""
    return str(claims["scope"])


configure_app(app, unguarded="refuse", public=["/login", "/login/*", "/token", "/token/*", "/logout"])
