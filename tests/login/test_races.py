"""Two processes use the same secret at the same time: one of them succeeds, on each store."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from fastapi_guard.login.enrolled import DatabaseFactors
from fastapi_guard.login.factor_models import Base
from login import racing
from login.racing import ROUNDS, RULES, Race, storage
from support.clock import Clock
from support.processes import OtherProcess

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


@contextmanager
def another_process(*arguments: object) -> Iterator[OtherProcess]:
    """Start the other process, and wait until it has opened the storage."""
    process = OtherProcess(racing.main, *arguments)
    assert process.receive() == "ready"
    yield process
    process.send(None)
    assert process.wait() == 0


@pytest.mark.parametrize("kind", KINDS)
async def test_one_of_two_processes(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock, kind: str) -> None:
    """Of two processes that spend the same secret at the same time one succeeds, for each rule of single use."""
    where = (kind, url_of(request, kind, tmp_path), f"{uuid4().hex}:")
    async with storage(*where) as (store, records):
        here = Race(store, records, clock())
        with another_process(*where, clock()) as there:
            for rule in RULES:
                made = await here.rounds(rule)
                assert len(made) == ROUNDS
                there.send((rule, made))
                spent = await here.spend(rule, made)
                spent_there = await asyncio.to_thread(there.receive)
                assert [first + second for first, second in zip(spent, spent_there, strict=True)] == [1] * ROUNDS, rule
        if isinstance(records, DatabaseFactors):
            await records._tables._sessions.transaction(lambda session: Base.metadata.drop_all(session.connection()))
