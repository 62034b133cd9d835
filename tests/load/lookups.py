"""One look-up at a time, without a server: each beside the driver's own, in slices that alternate, under uvloop."""

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
    ("API key, PostgreSQL", "asyncpg, prepared", 4.5),
    ("session, SQLite", "sqlite3", 35.0),
    ("API key, SQLite", "sqlite3", 35.0),
    ("session, Redis", "redis-py", None),
)

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
        for place, url in (("PostgreSQL", postgres), ("SQLite", f"sqlite+aiosqlite:///{file}")):
            engine = create_async_engine(url, pool_size=5, max_overflow=0)
            stack.push_async_callback(engine.dispose)
            look_ups |= await _ours(place, engine)
        driver = await asyncpg.connect(postgres.replace("postgresql+asyncpg", "postgresql"))
        stack.push_async_callback(driver.close)
        prepared = await driver.prepare(
            "SELECT key, value, owner, expires_at FROM fastapi_guard_records WHERE key = $1"
        )
        look_ups["asyncpg, prepared"] = lambda: prepared.fetchrow(KEY.encode())
        look_ups["sqlite3"] = _by_sqlite3(file)
        client = Redis.from_url(redis_url)
        stack.push_async_callback(client.aclose)
        store = RedisStore(client)
        await store.add(RECORD)
        look_ups["session, Redis"] = lambda: store.get(KEY)
        look_ups["redis-py"] = lambda: client.get("fastapi-guard:record:" + KEY)
        return await _timed(look_ups, rounds)


async def _ours(place: str, engine: AsyncEngine) -> dict[str, LookUp]:
    factory = async_sessionmaker(engine)
    store, keys = SQLAlchemyStore(factory), DatabaseAPIKeyAuth(factory)
    await store.create_table()
    async with engine.begin() as connection:
        await connection.execute(text("DELETE FROM fastapi_guard_records"))
        await connection.run_sync(Base.metadata.create_all)
    await store.add(RECORD)
    raw = (await keys.create(user_id="user-1", scopes=["items:read"])).raw
    return {f"session, {place}": lambda: store.get(KEY), f"API key, {place}": lambda: keys.verify(raw)}


def _by_sqlite3(file: Path) -> LookUp:
    connection = sqlite3.connect(file)

    async def look_up() -> object:
        statement = "SELECT key, value, owner, expires_at FROM fastapi_guard_records WHERE key = ?"
        return connection.execute(statement, (KEY.encode(),)).fetchone()

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
