"""Open a store of each kind, on real servers."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from redis.asyncio import Redis, RedisCluster
from sqlalchemy import URL, create_engine
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlalchemy.orm import sessionmaker

from fastapi_guard.stores import MemoryStore, Record, Store
from fastapi_guard.stores.redis import RedisStore
from fastapi_guard.stores.redis_cluster import RedisClusterStore
from fastapi_guard.stores.sqlalchemy import SQLAlchemyStore

# The kind of store, and for a database whether its engine is sync or async.
STORES = ["memory", "sqlite-async", "sqlite-sync", "postgres-async", "postgres-sync", "redis"]
# The contract of a store is tested on a cluster too.
CLUSTER = "redis-cluster"
DATABASES = [name for name in STORES if name.startswith(("sqlite", "postgres"))]


class FiveMethods:
    """A store of the application's own, with the methods of the protocol alone."""

    def __init__(self, store: Store) -> None:
        """Keep records in another store."""
        self._store = store

    async def get(self, *keys: str) -> list[Record | None]:
        """Return the records."""
        return await self._store.get(*keys)

    async def add(self, record: Record) -> bool:
        """Add a record."""
        return await self._store.add(record)

    async def replace(self, key: str, expected: Record, new: Record) -> bool:
        """Replace a record."""
        return await self._store.replace(key, expected, new)

    async def delete(self, key: str) -> bool:
        """Delete a record."""
        return await self._store.delete(key)

    async def find(self, owner: str) -> list[Record]:
        """Return the records of an owner."""
        return await self._store.find(owner)


@asynccontextmanager
async def sessions_of(request: pytest.FixtureRequest, name: str) -> AsyncIterator[Callable[[], Any]]:
    """Yield a sessionmaker or an async_sessionmaker of a database of this name."""
    kind, _, mode = name.partition("-")
    with tempfile.TemporaryDirectory() as folder:
        if kind == "sqlite":
            driver = "sqlite+aiosqlite" if mode == "async" else "sqlite"
            url = URL.create(driver, database=str(Path(folder) / "test.db"))
        else:
            driver = "postgresql+asyncpg" if kind == "asyncpg" else "postgresql+psycopg"
            url = request.getfixturevalue("postgres_url").set(drivername=driver)
        engine = create_async_engine(url) if mode == "async" else create_engine(url)
        try:
            yield async_sessionmaker(engine) if isinstance(engine, AsyncEngine) else sessionmaker(engine)
        finally:
            if isinstance(engine, AsyncEngine):
                await engine.dispose()
            else:
                await asyncio.to_thread(engine.dispose)


@asynccontextmanager
async def open_store(request: pytest.FixtureRequest, clock: Callable[[], float]) -> AsyncIterator[Store]:
    """Yield an empty store of the kind that the parameter of the fixture names."""
    name: str = request.param
    prefix = f"{uuid4().hex}:"
    if name == "memory":
        yield MemoryStore(clock=clock)
    elif name == "redis":
        async with Redis.from_url(request.getfixturevalue("redis_url")) as client:
            yield RedisStore(client, prefix=prefix, clock=clock)
    elif name == CLUSTER:
        ports: list[int] = request.getfixturevalue("cluster_ports")
        async with RedisCluster(host="127.0.0.1", port=ports[0]) as cluster:
            yield RedisClusterStore(cluster, prefix=prefix, clock=clock)
    else:
        async with sessions_of(request, name) as sessions:
            store = SQLAlchemyStore(sessions, prefix=prefix, clock=clock)
            await store.create_table()
            yield store
