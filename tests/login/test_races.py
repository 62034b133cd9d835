"""Two processes use the same secret at the same time: one of them succeeds, on each store."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from fastapi_guard.login.enrolled import DatabaseFactors
from fastapi_guard.login.factor_models import Base
from login.racing import ROUNDS, RULES, Race, storage
from support.clock import Clock

SCRIPT = Path(__file__).with_name("racing.py")
KINDS = ["sqlite", "sqlite-tables", "postgres", "postgres-tables", "redis"]


def url_of(request: pytest.FixtureRequest, kind: str, folder: Path) -> str:
    """Return the URL of the storage of a kind."""
    if kind == "redis":
        url: str = request.getfixturevalue("redis_url")
    elif kind.startswith("postgres"):
        server = request.getfixturevalue("postgres_url").set(drivername="postgresql+psycopg")
        url = server.render_as_string(hide_password=False)
    else:
        url = f"sqlite+aiosqlite:///{folder / 'race.db'}"
    return url


@asynccontextmanager
async def another_process(*arguments: str) -> AsyncIterator[tuple[asyncio.StreamWriter, asyncio.StreamReader]]:
    """Start the other process, and wait until it has opened the storage."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(SCRIPT),
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(SCRIPT.parents[1])},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    yield process.stdin, process.stdout
    process.stdin.close()
    assert await process.wait() == 0


@pytest.mark.parametrize("kind", KINDS)
async def test_one_of_two_processes(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock, kind: str) -> None:
    """Of two processes that spend the same secret at the same time one succeeds, for each rule of single use."""
    where = (kind, url_of(request, kind, tmp_path), f"{uuid4().hex}:")
    async with storage(*where) as (store, records):
        here = Race(store, records, clock())
        async with another_process(*where, repr(clock())) as (to, of):
            for rule in RULES:
                made = await here.rounds(rule)
                assert len(made) == ROUNDS
                to.write(json.dumps([rule, made]).encode() + b"\n")
                await to.drain()
                spent = await here.spend(rule, made)
                spent_there = json.loads(await of.readline())
                assert [first + second for first, second in zip(spent, spent_there, strict=True)] == [1] * ROUNDS, rule
        if isinstance(records, DatabaseFactors):
            await records._tables._sessions.transaction(lambda session: Base.metadata.drop_all(session.connection()))
