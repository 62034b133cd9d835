"""One look-up at a time, without a server, under uvloop: each beside the driver's own SELECT of the same row.

The slices of all of them alternate.
"""

import asyncio
import sqlite3
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median
from typing import Any

import asyncpg
import uvloop
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine

from benchmarks.report import show
from fastapi_guard.api_key.database import DatabaseAPIKeyAuth
from fastapi_guard.api_key.key import COLUMNS
from fastapi_guard.api_key.models import Base
from fastapi_guard.stores import Record
from fastapi_guard.stores.kinds import SESSION
from fastapi_guard.stores.redis import RedisStore
from fastapi_guard.stores.sqlalchemy import SQLAlchemyStore
from support.redis import running_redis

SLICE = 200
KEY = f"{SESSION}0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
RECORD = Record(KEY, b'{"claims": {"sub": "user-1", "scope": "items:read"}}', "subject:1", None)
# Our look-up, the driver's, and how many times as long ours may take.
PAIRS = (
    ("session, PostgreSQL", "asyncpg, prepared", 4.5),
    ("API key, PostgreSQL", "asyncpg, prepared, a key", 4.5),
    ("session, SQLite", "sqlite3", 35.0),
    ("API key, SQLite", "sqlite3, a key", 35.0),
    ("session, Redis", "redis-py", None),
)
OF_A_RECORD = "SELECT key, value, owner, expires_at FROM fastapi_guard_records WHERE key = "
OF_A_KEY = f"SELECT {', '.join(COLUMNS)}, salt, digest, pepper FROM api_keys WHERE key_id = "  # noqa: S608 - ours

LookUp = Callable[[], Awaitable[object]]


def measure(postgres: str, *, rounds: int) -> list[dict[str, Any]]:
    """Return, for each pair, the microseconds of both and their ratio, as medians of the rounds."""
    with running_redis() as url, tempfile.TemporaryDirectory() as folder:
        timed = uvloop.run(_measured(postgres, url, Path(folder, "lookups.db"), rounds))
    found = []
    for name, driver, goal in PAIRS:
        ratios = [mine / other for mine, other in zip(timed[name], timed[driver], strict=True)]
        found.append(
            {
                "name": name,
                "driver": driver,
                "us": median(timed[name]),
                "driver_us": median(timed[driver]),
                "ratio": median(ratios),
                "lowest": min(ratios),
                "highest": max(ratios),
                "goal": goal,
            }
        )
    return found


def report(found: Sequence[dict[str, Any]]) -> None:
    """Print the table."""
    rows = [
        (pair["name"], f"{pair['us']:.0f}", pair["driver"], f"{pair['driver_us']:.0f}", f"{pair['ratio']:.1f}")
        for pair in found
    ]
    show(("one at a time", "us", "beside", "us", "ratio"), rows)


async def _measured(postgres: str, redis_url: str, file: Path, rounds: int) -> dict[str, list[float]]:
    async with AsyncExitStack() as stack:
        look_ups: dict[str, LookUp] = {}
        key_ids: dict[str, str] = {}
        for place, url in (("PostgreSQL", postgres), ("SQLite", f"sqlite+aiosqlite:///{file}")):
            engine = create_async_engine(url, pool_size=5, max_overflow=0)
            stack.push_async_callback(engine.dispose)
            ours, key_ids[place] = await _ours(place, engine)
            look_ups |= ours
        driver = await asyncpg.connect(postgres.replace("postgresql+asyncpg", "postgresql"))
        stack.push_async_callback(driver.close)
        record, key = await driver.prepare(f"{OF_A_RECORD}$1"), await driver.prepare(f"{OF_A_KEY}$1")
        look_ups["asyncpg, prepared"] = lambda: record.fetchrow(KEY.encode())
        look_ups["asyncpg, prepared, a key"] = lambda: key.fetchrow(key_ids["PostgreSQL"])
        look_ups["sqlite3"] = _by_sqlite3(file, f"{OF_A_RECORD}?", KEY.encode())
        look_ups["sqlite3, a key"] = _by_sqlite3(file, f"{OF_A_KEY}?", key_ids["SQLite"])
        client = Redis.from_url(redis_url)
        stack.push_async_callback(client.aclose)
        store = RedisStore(client)
        await store.add(RECORD)
        look_ups["session, Redis"] = lambda: store.get(KEY)
        look_ups["redis-py"] = lambda: client.get("fastapi-guard:record:" + KEY)
        return await _timed(look_ups, rounds)


async def _ours(place: str, engine: AsyncEngine) -> tuple[dict[str, LookUp], str]:
    factory = async_sessionmaker(engine)
    store, keys = SQLAlchemyStore(factory), DatabaseAPIKeyAuth(factory)
    await store.create_table()
    async with engine.begin() as connection:
        await connection.execute(text("DELETE FROM fastapi_guard_records"))
        await connection.run_sync(Base.metadata.create_all)
    await store.add(RECORD)
    created = await keys.create(user_id="user-1", scopes=["items:read"])
    look_ups: dict[str, LookUp] = {
        f"session, {place}": lambda: store.get(KEY),
        f"API key, {place}": lambda: keys.verify(created.raw),
    }
    return look_ups, created.key_id


def _by_sqlite3(file: Path, statement: str, value: object) -> LookUp:
    connection = sqlite3.connect(file)

    async def look_up() -> object:
        return connection.execute(statement, (value,)).fetchone()

    return look_up


async def _timed(look_ups: dict[str, LookUp], rounds: int) -> dict[str, list[float]]:
    timed: dict[str, list[float]] = {name: [] for name in look_ups}
    for round_ in range(rounds + 1):
        for name, look_up in look_ups.items():
            # Nothing else runs in the meantime.
            await asyncio.sleep(0)
            start = time.perf_counter()
            for _ in range(SLICE):
                await look_up()
            elapsed = time.perf_counter() - start
            if round_:  # the first one warms up
                timed[name].append(elapsed / SLICE * 1e6)
    return timed
