"""Change records of stores in another process, whose clock is 5 s ahead of ours."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import URL, create_engine
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import sessionmaker

from fastapi_guard.api_key.database import DatabaseAPIKeyAuth
from fastapi_guard.stores import Record
from fastapi_guard.stores.redis import RedisStore
from fastapi_guard.stores.sqlalchemy import SQLAlchemyStore

CLOCK_AHEAD_SECONDS = 5
SHARED = ["sqlite", "sqlite+aiosqlite", "postgresql+psycopg", "postgresql+asyncpg", "redis"]

Call = Callable[..., Any]


class Counting:
    """A store that counts its reads, around another one."""

    def __init__(self, store: Any) -> None:
        """Read from `store`."""
        self.store = store
        self.reads: list[tuple[str, ...]] = []
        self.after: Callable[[], Awaitable[object]] | None = None
        self.add, self.replace, self.delete, self.find = store.add, store.replace, store.delete, store.find
        self.changes = store.changes

    async def get(self, *keys: str) -> list[Record | None]:
        """Return the records; the test may do something afterwards."""
        self.reads.append(keys)
        found: list[Record | None] = await self.store.get(*keys)
        if self.after is not None:
            await self.after()
        return found


class OtherProcess:
    """A process that uses stores by their URLs."""

    def __init__(self) -> None:
        """Start it."""
        command = [sys.executable, "-m", "support.other_process"]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, text=True)  # noqa: S603

    def call(self, url: str, prefix: str, method: str, *arguments: object) -> Any:
        """Return what the method of the store returned there."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps([url, prefix, method, *arguments]), file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        """End it."""
        self._process.communicate()


@pytest.fixture(scope="session")
def other_process() -> Iterator[OtherProcess]:
    """Yield a process that runs as long as the tests."""
    process = OtherProcess()
    yield process
    process.close()


@pytest.fixture(params=SHARED)
async def shared(
    request: pytest.FixtureRequest, tmp_path: Path, other_process: OtherProcess
) -> AsyncIterator[tuple[Any, Call]]:
    """Yield a store, and a function that calls its methods in another process, whose clock is 5 s ahead."""
    name, prefix = request.param, f"{uuid4().hex}:"
    if name == "redis":
        url: str = request.getfixturevalue("redis_url")
    elif name.startswith("sqlite"):
        url = f"{name}:///{tmp_path / 'shared.db'}"
    else:
        postgres: URL = request.getfixturevalue("postgres_url")
        url = postgres.set(drivername=name).render_as_string(hide_password=False)
    store = store_at(url, prefix)
    if isinstance(store, SQLAlchemyStore):
        await store.create_table()
    yield store, partial(other_process.call, url, prefix)
    if isinstance(store, SQLAlchemyStore):
        closed = store._sessions._factory.kw["bind"].dispose()
        if closed is not None:
            await closed
    else:
        await store.aclose()


def keys_of(store: Any, **options: Any) -> DatabaseAPIKeyAuth:
    """Return API keys in the database of a store."""
    return DatabaseAPIKeyAuth(store._sessions._factory, **options)


def store_at(url: str, prefix: str, clock_ahead: float = 0) -> SQLAlchemyStore | RedisStore:
    """Return the store at a URL of Redis or of SQLAlchemy."""

    def clock() -> float:
        return time.time() + clock_ahead

    if url.startswith("redis"):
        from redis.asyncio import Redis  # noqa: PLC0415 - the name is that of a module beside this one

        return RedisStore(lambda: Redis.from_url(url), prefix=prefix, clock=clock)
    if "+aiosqlite" in url or "+asyncpg" in url:
        return SQLAlchemyStore(async_sessionmaker(create_async_engine(url)), prefix=prefix, clock=clock)
    return SQLAlchemyStore(sessionmaker(create_engine(url)), prefix=prefix, clock=clock)


async def main() -> None:  # pragma: no cover - another process, where nothing is measured
    """Call methods of stores as the lines of standard input say."""
    stores: dict[tuple[str, str], SQLAlchemyStore | RedisStore] = {}
    while line := await asyncio.to_thread(sys.stdin.readline):
        url, prefix, method, *arguments = json.loads(line)
        store = stores.get((url, prefix)) or store_at(url, prefix, CLOCK_AHEAD_SECONDS)
        stores[url, prefix] = store
        if method == "add":
            key, value, owner = arguments
            answer = await store.add(Record(key, value.encode(), owner))
        elif method == "replace":
            key, old, new = arguments
            answer = await store.replace(key, Record(key, old.encode()), Record(key, new.encode()))
        elif method in ("revoke", "pause"):
            answer = await getattr(keys_of(store), method)(*arguments)
        else:
            answer = await store.delete(*arguments)
        print(json.dumps(answer), flush=True)  # noqa: T201 - the answer to the parent


if __name__ == "__main__":
    asyncio.run(main())
