"""A quota that several processes spend at once."""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path

import pytest
from sqlalchemy import make_url

from api_key.databases import Database
from fastapi_guard.stores import MemoryStore
from fastapi_guard.stores.sqlalchemy import SQLAlchemyStore

SCRIPT = Path(__file__).with_name("quota_process.py")
PROCESSES, REQUESTS = 4, 25
# Where the keys and the counts are: in one database, or the keys in SQLite and the counts in Redis.
PLACES = ["sqlite", "postgres", "sqlite and redis"]


async def line(process: Process) -> str:
    """Return the next line that a process prints."""
    assert process.stdout is not None
    return (await process.stdout.readline()).decode().strip()


@pytest.mark.parametrize("place", PLACES)
async def test_a_quota_raced_by_four_processes(
    place: str, request: pytest.FixtureRequest, tmp_path: Path, anyio_backend: str
) -> None:
    """Of 100 requests in four processes with a key of quota 1 one passes, and 99 are refused with 429."""
    if place.startswith("sqlite"):
        url = make_url(f"sqlite:///{tmp_path / 'keys.db'}").update_query_dict({"timeout": "60"})
    else:
        url = request.getfixturevalue("postgres_url").set(drivername="postgresql+asyncpg")
    store_url = request.getfixturevalue("redis_url") if "redis" in place else ""
    database = Database.of(url)
    await database.create_tables()
    await SQLAlchemyStore(database.factory).create_table()
    _, raw = await database.auth(usage=MemoryStore()).create(user_id="alice", quota=1)
    arguments = [str(SCRIPT), url.render_as_string(hide_password=False), store_url, raw, str(REQUESTS)]
    environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parents[1])}
    processes = [
        await asyncio.create_subprocess_exec(sys.executable, *arguments, stdin=PIPE, stdout=PIPE, env=environment)
        for _ in range(PROCESSES)
    ]
    assert await asyncio.gather(*map(line, processes)) == ["ready"] * PROCESSES
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(b"go\n")
    statuses = " ".join(await asyncio.gather(*map(line, processes))).split()
    await asyncio.gather(*(process.wait() for process in processes))
    assert sorted(statuses) == ["200"] + ["429"] * (PROCESSES * REQUESTS - 1)
    await database.dispose()
