"""A process that opens connections, threads and loops, and forks; then all use the store at the same time."""

import asyncio
import os
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

from redis.asyncio import Redis
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import sessionmaker

from fastapi_guard.stores import MemoryStore, Record, Store
from fastapi_guard.stores.redis import RedisStore
from fastapi_guard.stores.sqlalchemy import SQLAlchemyStore

RECORDS = [Record(f"k{number}", str(number).encode(), "ada") for number in range(5)]
OPEN: dict[str, Callable[[str, str], Store]] = {
    "memory": lambda _url, _prefix: MemoryStore(),
    "redis": lambda url, prefix: RedisStore.from_url(url, prefix=prefix),
    "redis client": lambda url, prefix: RedisStore(Redis.from_url(url), prefix=prefix),
    "sync": lambda url, prefix: SQLAlchemyStore(sessionmaker(create_engine(url)), prefix=prefix),
    "async": lambda url, prefix: SQLAlchemyStore(async_sessionmaker(create_async_engine(url)), prefix=prefix),
}


async def before(store: Store) -> None:
    """Use the store before the fork."""
    if isinstance(store, SQLAlchemyStore):
        await store.create_table()
    await asyncio.gather(*(store.add(record) for record in RECORDS))
    await asyncio.gather(*(store.get(record.key) for record in RECORDS))


async def after(store: Store, name: str) -> None:
    """Use it after the fork."""
    for turn in range(30):
        assert await asyncio.gather(*(store.get(record.key) for record in RECORDS)) == [[record] for record in RECORDS]
        assert await store.add(Record(f"{name}{turn}", b"", name))
    assert len(await store.find(name)) == 30


def main(_: Connection, mode: str, url: str, errors: Path) -> None:
    """Use a store in this process and in two children of it, and write what they print on stderr into a file."""
    descriptor = os.open(errors, os.O_WRONLY | os.O_CREAT)
    os.dup2(descriptor, 2)
    # Python 3.12 warns of a fork in a process that has threads.
    warnings.simplefilter("ignore")
    store = OPEN[mode](url, f"{errors.parent.name}:")
    asyncio.run(before(store))
    children = []
    for name in ("one", "two"):
        child = os.fork()
        if not child:
            status = 1
            try:
                asyncio.run(asyncio.wait_for(after(store, name), 60))
                status = 0
            finally:
                os._exit(status)
        children.append(child)
    if mode not in ("async", "redis client"):  # their connections belong to the loop that has ended
        asyncio.run(asyncio.wait_for(after(store, "parent"), 60))
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
