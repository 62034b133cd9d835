"""The last use of a key is written without delaying or failing a request."""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, event, text, update
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import sessionmaker
from sqlalchemy.pool import StaticPool

from api_key.databases import Database
from fastapi_guard.api_key import last_use as module
from fastapi_guard.api_key.database import DatabaseAPIKeyAuth
from fastapi_guard.api_key.models import APIKey
from support.clock import Clock

# For a test that hangs, also on a machine that is slow.
PATIENCE_SECONDS = 60


@contextmanager
def locked(database: Database, key_id: str) -> Iterator[None]:
    """Lock the row of a key, in a transaction of another connection."""
    url = database.sync_engine.url
    driver = {"sqlite+aiosqlite": "sqlite", "postgresql+asyncpg": "postgresql+psycopg"}.get(url.drivername)
    engine = create_engine(url if driver is None else url.set(drivername=driver))
    with engine.connect() as connection:
        connection.execute(update(APIKey).where(APIKey.key_id == key_id).values(name="renamed"))
        yield
        connection.rollback()
    engine.dispose()


async def test_a_row_that_the_application_has_locked(database: Database, clock: Clock) -> None:
    """While the application has the row of a key locked the key is accepted; its next use is written."""
    keys = database.auth(clock=clock)
    key_id, raw = await keys.create(user_id="alice")
    other_id, other = await keys.create(user_id="bob")
    with locked(database, key_id):
        async with asyncio.timeout(PATIENCE_SECONDS):
            for used_key in (raw, other, raw):
                await keys.verify(used_key)
            # Nothing waits for the lock, not even what is written beside the requests.
            await keys.aclose()
    used = {key.key_id: key.last_used_at is not None for key in await keys.list()}
    # SQLite has one lock for all rows.
    assert used == {key_id: False, other_id: database.sync_engine.dialect.name != "sqlite"}
    clock.move(60)
    for used_key in (raw, other):
        await keys.verify(used_key)
    await keys.aclose()
    assert {key.key_id: key.last_used_at is not None for key in await keys.list()} == {key_id: True, other_id: True}


async def test_a_reader_of_sqlite(sqlite: Database, clock: Clock) -> None:
    """A transaction that reads holds up the commit of another on SQLite: the use is not waited for."""
    keys = sqlite.auth(clock=clock)
    _, raw = await keys.create(user_id="alice")
    with sqlite.sync_engine.connect() as reader:
        reader.exec_driver_sql("BEGIN")
        reader.exec_driver_sql("SELECT * FROM api_keys").fetchall()
        started = time.monotonic()
        await keys.verify(raw)
        await keys.aclose()
        # The driver itself would wait for five seconds.
        assert time.monotonic() - started < 4
        reader.rollback()
    assert [key.last_used_at for key in await keys.list()] == [None]
    clock.move(60)
    await keys.verify(raw)
    await keys.aclose()
    assert [key.last_used_at is None for key in await keys.list()] == [False]


async def test_a_write_that_takes_long(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request does not wait for a database that is slow to write; at the shutdown the use is written."""
    monkeypatch.setattr("fastapi_guard.api_key.last_use._PATIENCE_SECONDS", 0.01)
    keys = database.auth()
    key_id, raw = await keys.create(user_id="alice")
    free = threading.Event()
    loop = asyncio.get_running_loop()

    def hold_up(connection: object, cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("UPDATE") and not isinstance(database.engine, AsyncEngine):
            free.wait(PATIENCE_SECONDS)

    event.listen(database.sync_engine, "before_cursor_execute", hold_up)
    try:
        for _ in range(3):
            assert (await keys.verify(raw))["sub"] == "alice"
        loop.call_soon(free.set)
        await keys.aclose()
    finally:
        event.remove(database.sync_engine, "before_cursor_execute", hold_up)
    stored = await keys.get(key_id)
    assert stored is not None
    assert stored.last_used_at is not None


async def test_uses_of_many_keys_are_written_together(database: Database, clock: Clock) -> None:
    """The uses of keys at once are written in few transactions, each key with its own address."""
    keys = database.auth(clock=clock)
    raws = [(await keys.create(user_id=f"user-{number}")).raw for number in range(20)]
    commits: list[object] = []

    def note(connection: object) -> None:
        commits.append(connection)

    event.listen(database.sync_engine, "commit", note)
    await asyncio.gather(*(keys.verify(raw) for raw in raws))
    await keys.aclose()
    event.remove(database.sync_engine, "commit", note)
    assert all(key.last_used_at is not None for key in await keys.list())
    assert len(commits) < 20


async def test_another_failure_of_sqlite(sqlite: Database, caplog: pytest.LogCaptureFixture) -> None:
    """An error that is not a lock is in the log, and the file's patience with locks is as it was."""
    keys = sqlite.auth()
    _, raw = await keys.create(user_id="alice")
    trigger = text("CREATE TRIGGER no_use BEFORE UPDATE ON api_keys BEGIN SELECT RAISE(ABORT, 'no'); END")
    await sqlite.within(lambda session: session.execute(trigger))
    assert (await keys.verify(raw))["sub"] == "alice"
    await keys.aclose()
    assert "last_used_at of 1 API keys could not be written" in caplog.text
    patience = await sqlite.within(lambda session: session.connection().exec_driver_sql("PRAGMA busy_timeout").scalar())
    assert patience == 5000


@pytest.fixture
def keys(tmp_path: Path) -> Iterator[DatabaseAPIKeyAuth]:
    """Return an Auth on a sync engine, for a test with event loops of its own."""
    engine = create_engine(f"sqlite:///{tmp_path / 'keys.db'}")
    APIKey.metadata.create_all(engine)
    yield DatabaseAPIKeyAuth(sessionmaker(engine))
    engine.dispose()


class NeverDone:
    """Sessions whose work never ends."""

    async def transaction(self, work: object) -> None:
        """Wait for what never comes."""
        await asyncio.Event().wait()


async def use(keys: DatabaseAPIKeyAuth, raw: str) -> None:
    """Use a key while nothing can be written, and begin to write."""
    sessions, keys._uses._sessions = keys._uses._sessions, NeverDone()  # type: ignore[assignment]
    verifying = asyncio.ensure_future(keys.verify(raw))
    async with asyncio.timeout(PATIENCE_SECONDS):
        await verifying
    keys._uses._sessions = sessions


def used(keys: DatabaseAPIKeyAuth) -> list[bool]:
    """Return for each key whether it was used, after all uses were written."""
    asyncio.run(keys.aclose())
    return [key.last_used_at is not None for key in asyncio.run(keys.list())]


def test_a_loop_that_ends_before_the_write(keys: DatabaseAPIKeyAuth) -> None:
    """The next event loop writes the uses that one could not write."""
    _, raw = asyncio.run(keys.create(user_id="alice"))
    asyncio.run(use(keys, raw))
    assert used(keys) == [True]
    asyncio.run(keys.aclose())


def test_a_loop_that_was_thrown_away(keys: DatabaseAPIKeyAuth) -> None:
    """A loop that was closed while it wrote does not keep another from writing."""
    _, raw = asyncio.run(keys.create(user_id="alice"))
    loop = asyncio.new_event_loop()
    loop.run_until_complete(use(keys, raw))
    writing: Any = keys._uses._writing
    # The loop is closed without a word to its tasks.
    writing._log_destroy_pending = False
    loop.close()
    assert used(keys) == [True]


def test_another_loop_is_writing(keys: DatabaseAPIKeyAuth) -> None:
    """A loop does not wait for the task of another, which writes for both."""
    _, raw = asyncio.run(keys.create(user_id="alice"))
    loop = asyncio.new_event_loop()
    loop.run_until_complete(use(keys, raw))
    assert used(keys) == [False]
    writing: Any = keys._uses._writing
    writing.cancel()
    loop.run_until_complete(asyncio.wait([writing]))
    loop.close()
    assert used(keys) == [True]


async def test_one_connection_for_all(anyio_backend: str) -> None:
    """On a database in memory, where there is one connection, the use is written too."""
    engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    APIKey.metadata.create_all(engine)
    keys = DatabaseAPIKeyAuth(sessionmaker(engine))
    key_id, raw = await keys.create(user_id="alice")
    await keys.verify(raw)
    stored = await keys.get(key_id)
    assert stored is not None
    assert stored.last_used_at is not None
    engine.dispose()


async def test_more_keys_than_are_kept(sqlite: Database, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A use beyond the bound is not written, and the key is accepted."""
    keys = sqlite.auth(clock=clock)
    _, raw = await keys.create(user_id="alice")
    monkeypatch.setattr(module, "_MAX_KNOWN", 0)
    assert (await keys.verify(raw))["sub"] == "alice"
    await keys.aclose()
    assert [key.last_used_at for key in await keys.list()] == [None]


async def test_a_use_during_a_write(sqlite: Database, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that is used again while its use is written is written once more."""
    keys = sqlite.auth(clock=clock)
    key_id, raw = await keys.create(user_id="alice")
    uses, written = keys._uses, list[float]()
    write = uses._write_batch

    def writing(batch: Any, session: Any) -> None:
        write(batch, session)
        written.append(batch[key_id].now)
        if len(written) == 1:
            uses._waiting[key_id] = batch[key_id]._replace(now=batch[key_id].now + 60)

    monkeypatch.setattr(uses, "_write_batch", writing)
    await keys.verify(raw)
    await keys.aclose()
    assert written == [clock(), clock() + 60]
