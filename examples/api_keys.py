"""API keys in a SQLite file, and a router with which users manage their own keys.

Serve it with `uvicorn --app-dir examples api_keys:app`. Create the first key with
`FASTAPI_GUARD_DATABASE_URL=sqlite:///api-keys.db fastapi-guard keys create --user ada --scope 'items:*'`.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import FastAPI
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from fastapi_guard import configure_app
from fastapi_guard.api_key.database import DatabaseAPIKeyAuth
from fastapi_guard.api_key.models import Base
from fastapi_guard.routers.api_keys import api_keys_router

engine = create_async_engine(os.environ.get("DATABASE_URL", "sqlite+aiosqlite:///api-keys.db"))
keys = DatabaseAPIKeyAuth(async_sessionmaker(engine))


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield
    await engine.dispose()


app = FastAPI(lifespan=lifespan)


@app.get("/items")
async def items(claims: Annotated[dict[str, Any], keys.requires("items:read")]) -> dict[str, Any]:
    return {"owner": claims["sub"], "items": ["difference engine", "loom"]}


app.include_router(api_keys_router(keys, auth=keys))
configure_app(app, unguarded="refuse")
