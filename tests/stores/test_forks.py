"""Stores that were used before a fork: `gunicorn --preload` forks after importing the application."""

import gc
import os
import sqlite3
from pathlib import Path
from typing import Any
from weakref import ref

import pytest
from redis.asyncio import Redis
from sqlalchemy import URL, create_engine
from sqlalchemy.orm import sessionmaker

from fastapi_guard.stores import database, forks
from fastapi_guard.stores.database import Sessions
from fastapi_guard.stores.memory import MemoryStore
from fastapi_guard.stores.reader import _Beside, _dispose
from fastapi_guard.stores.redis import RedisStore
from stores import forking_process
from support.processes import OtherProcess

KINDS = ["memory", "sqlite", "sqlite+aiosqlite", "psycopg", "asyncpg", "redis", "redis client"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_store_that_was_used_before_a_fork(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """Parent and children use a store at the same time, and each gets its own answers."""
    mode, url = kind, ""
    if kind.startswith("sqlite"):
        mode, url = "async" if "aio" in kind else "sync", f"{kind}:///{tmp_path / 'forked.db'}"
    elif kind.startswith("redis"):
        url = request.getfixturevalue("redis_url")
    elif kind != "memory":
        postgres: URL = request.getfixturevalue("postgres_url")
        mode = "sync" if kind == "psycopg" else "async"
        url = postgres.set(drivername=f"postgresql+{kind}").render_as_string(hide_password=False)
    errors = tmp_path / "errors.txt"
    status = OtherProcess(forking_process.main, mode, url, errors).wait()
    assert (errors.read_text(encoding="utf-8"), status) == ("", 0)


def test_an_engine_beside_another_in_a_child(tmp_path: Path) -> None:
    """In a child process the connection to a file of SQLite is left open: closing it could break the parent's locks."""
    engine, beside = (create_engine(f"sqlite:///{tmp_path / 'forked.db'}") for _ in range(2))
    connections: list[Any] = []
    for _ in range(2):
        with beside.connect() as connection:
            connections.append(connection.connection.dbapi_connection)
        _dispose(ref(beside), os.getpid() - len(connections) + 1, engine)
    parents, childs = connections
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        parents.execute("SELECT 1")
    childs.execute("SELECT 1")
    childs.close()
    inherited = database._inherited.pop()
    inherited.dispose()
    engine.dispose()


def test_an_engine_beside_another_that_is_dropped(tmp_path: Path) -> None:
    """The connection to a file of SQLite is closed with the reader that opened it, before the engine is disposed of."""
    engine = create_engine("sqlite://")
    beside = _Beside(engine, str(tmp_path / "dropped.db"))
    assert beside.engine is not None
    with beside.engine.connect() as connection:
        opened: Any = connection.connection.dbapi_connection
    opened.execute("SELECT 1")
    del beside, connection
    gc.collect()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        opened.execute("SELECT 1")
    engine.dispose()


async def test_a_client_of_redis_in_a_child(redis_url: str) -> None:
    """In a child process a client that was passed in opens connections of its own; those of the parent stay open."""
    client = Redis.from_url(redis_url)
    store = RedisStore(client)
    await store.get("k")
    opened = list(client.connection_pool._available_connections)
    store.after_fork()
    assert opened
    assert client.connection_pool._available_connections == []
    assert [connection.is_connected for connection in opened] == [True]
    await store.get("k")
    for connection in opened:
        await connection.disconnect()
    await client.aclose()


def test_a_factory_that_is_bound_to_nothing_yet() -> None:
    """A factory without an engine has nothing to leave to the parent."""
    sessions = Sessions(sessionmaker())
    forks._reset()
    assert sessions.engine is None


def test_a_lock_that_was_held_at_the_fork() -> None:
    """A lock that another thread of the parent held is free in the child."""
    store = MemoryStore()
    store._lock.acquire()
    forks._reset()
    assert not store._lock.locked()
