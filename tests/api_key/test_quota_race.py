"""A quota that several processes spend at once."""

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import make_url

from api_key import quota_process
from api_key.databases import Database
from fastapi_guard.stores import MemoryStore
from fastapi_guard.stores.sqlalchemy import SQLAlchemyStore
from support.processes import OtherProcess

PROCESSES, REQUESTS = 4, 25
# Where the keys and the counts are: in one database, or the keys in SQLite and the counts in Redis.
PLACES = ["sqlite", "postgres", "sqlite and redis"]


@pytest.mark.parametrize("place", PLACES)
async def test_a_quota_raced_by_four_processes(
    place: str, request: pytest.FixtureRequest, tmp_path: Path, anyio_backend: str
) -> None:
    """Of 100 requests in four processes with a key of quota 1 one passes, and 99 are refused with 429."""
    if place.startswith("sqlite"):
        url = make_url(f"sqlite:///{tmp_path / 'keys.db'}").update_query_dict({"timeout": "60"})
    else:
        url = request.getfixturevalue("postgres_url").set(drivername="postgresql+asyncpg")
    store_url = request.getfixturevalue("redis_url") if "redis" in place else None
    database = Database.of(url)
    await database.create_tables()
    await SQLAlchemyStore(database.factory).create_table()
    _, raw = await database.auth(usage=MemoryStore()).create(user_id="alice", quota=1)
    arguments = (url.render_as_string(hide_password=False), store_url, raw, REQUESTS)
    processes = [OtherProcess(quota_process.main, *arguments) for _ in range(PROCESSES)]
    assert [process.receive() for process in processes] == ["ready"] * PROCESSES
    for process in processes:
        process.send("go")
    statuses = [status for process in processes for status in await asyncio.to_thread(process.receive)]
    assert [process.wait() for process in processes] == [0] * PROCESSES
    assert sorted(statuses) == [200] + [429] * (PROCESSES * REQUESTS - 1)
    await database.dispose()
