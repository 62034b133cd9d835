"""A table `notes` in PostgreSQL, with rules that a change can break."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import URL, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine


@pytest.fixture(name="engine", params=["asyncpg", "psycopg"])
async def engine_with_notes(request: pytest.FixtureRequest, postgres_url: URL) -> AsyncIterator[AsyncEngine]:
    """Yield an engine with one connection, on a database with the table."""
    url = postgres_url.set(drivername=f"postgresql+{request.param}")
    engine = create_async_engine(url, pool_size=1, max_overflow=0)
    async with engine.begin() as connection:
        await connection.execute(text("DROP TABLE IF EXISTS notes"))
        rule = "UNIQUE (number) DEFERRABLE INITIALLY DEFERRED"
        await connection.execute(text(f"CREATE TABLE notes (word VARCHAR(5) UNIQUE, number INT, {rule})"))
    yield engine
    async with engine.begin() as connection:
        await connection.execute(text("DROP TABLE notes"))
    await engine.dispose()


def note(word: str, number: int) -> Any:
    """Return the work that writes a note."""
    statement = text("INSERT INTO notes VALUES (:word, :number)").bindparams(word=word, number=number)
    return lambda session: session.execute(statement)


async def notes(engine: AsyncEngine) -> list[str]:
    """Return the words that were committed."""
    async with engine.connect() as connection:
        return list(await connection.scalars(text("SELECT word FROM notes ORDER BY word")))


async def lose(engine: AsyncEngine) -> None:
    """End the connection that waits in the pool, from another one."""
    other = create_async_engine(engine.url)
    end = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
    async with engine.connect() as connection:
        pid = await connection.scalar(text("SELECT pg_backend_pid()"))
    async with other.connect() as connection:
        assert await connection.scalar(text(f"{end} WHERE pid = {pid}"))
    await other.dispose()
