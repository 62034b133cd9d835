"""Stores that were used before a fork: `gunicorn --preload` forks after importing the application."""

import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any
from weakref import ref

import pytest
from sqlalchemy import URL, create_engine
from sqlalchemy.orm import sessionmaker

from fastapi_guard.stores import database, forks
from fastapi_guard.stores.database import Sessions
from fastapi_guard.stores.memory import MemoryStore
from fastapi_guard.stores.reader import _dispose

# A parent opens connections, threads and loops, and forks; then both use the store at the same time.
SCRIPT = """
import asyncio, os, sys
from fastapi_guard.stores import MemoryStore, Record
from fastapi_guard.stores.redis import RedisStore
from fastapi_guard.stores.sqlalchemy import SQLAlchemyStore
from redis.asyncio import Redis
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import sessionmaker

kind, url = sys.argv[1:]
if kind == "sync":
    engine = create_engine(url)
    store = SQLAlchemyStore(sessionmaker(engine))
elif kind == "async":
    engine = create_async_engine(url)
    store = SQLAlchemyStore(async_sessionmaker(engine))
elif kind == "redis":
    store = RedisStore.from_url(url, prefix="fork:")
elif kind == "redis client":
    store = RedisStore(Redis.from_url(url), prefix="fork client:")
else:
    store = MemoryStore()

async def before():
    if hasattr(store, "create_table"):
        await store.create_table()
    await asyncio.gather(*(store.add(Record(f"k{n}", str(n).encode(), "ada")) for n in range(5)))
    await asyncio.gather(*(store.get(f"k{n}") for n in range(5)))

async def after(name):
    for turn in range(30):
        found = await asyncio.gather(*(store.get(f"k{n}") for n in range(5)))
        assert found == [[Record(f"k{n}", str(n).encode(), "ada")] for n in range(5)], found
        assert await store.add(Record(f"{name}{turn}", b"", name))
    assert len(await store.find(name)) == 30

asyncio.run(before())
children = []
for name in ("one", "two"):
    child = os.fork()
    if not child:
        status = 1
        try:
            asyncio.run(asyncio.wait_for(after(name), 60))
            status = 0
        finally:
            os._exit(status)
    children.append(child)
if kind not in ("async", "redis client"):  # their connections belong to the loop that has ended
    asyncio.run(asyncio.wait_for(after("parent"), 60))
sys.exit(sum(os.waitpid(child, 0)[1] for child in children))
"""

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
    script = tmp_path / "forking.py"
    script.write_text(dedent(SCRIPT), encoding="utf-8")
    command = [sys.executable, "-W", "ignore", str(script), mode, url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)  # noqa: S603 - ours
    assert (done.returncode, done.stderr) == (0, "")


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
