"""The last use of a key is written without delaying or failing a request."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fastapi import FastAPI, WebSocket
from sqlalchemy import String, create_engine, event, text, update
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, sessionmaker
from sqlalchemy.pool import StaticPool
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware

from api_key.databases import Database
from fastapi_guard.api_key import last_use as module
from fastapi_guard.api_key.database import DatabaseAPIKeyAuth
from fastapi_guard.api_key.models import APIKey, APIKeyEventMixin, APIKeyMixin
from fastapi_guard.app import guarded
from fastapi_guard.app.starlette import GuardBackend
from support.asgi import endpoint, exchange, open_websocket
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


class Named(DeclarativeBase):
    """A base with names of columns that the application has chosen."""


class NamedKey(APIKeyMixin, Named):
    """A key whose columns have other names, and names of ours."""

    key_id: Mapped[str] = mapped_column("id", String(32), primary_key=True)
    now: Mapped[str | None]
    before: Mapped[str | None]
    address: Mapped[str | None]


class NamedEvent(APIKeyEventMixin, Named):
    """The events of these keys."""


async def test_columns_of_the_application(database: Database) -> None:
    """The use of a key is written, however the columns of the application's model are named."""
    for change in (Named.metadata.drop_all, Named.metadata.create_all):
        await database.within(lambda session, change=change: change(session.connection()))  # type: ignore[misc]
    keys = database.auth(model=NamedKey, event_model=NamedEvent)
    key_id, raw = await keys.create(user_id="alice")
    await keys.verify(raw)
    await keys.aclose()
    key = await keys.get(key_id)
    assert key is not None
    assert key.last_used_at is not None


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


async def test_a_write_that_takes_long(database: Database) -> None:
    """A request does not wait for a database that is slow to write; at the shutdown the use is written."""
    keys = database.auth()
    key_id, raw = await keys.create(user_id="alice")
    free = threading.Event()
    loop = asyncio.get_running_loop()

    def hold_up(connection: object, cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("UPDATE") and not isinstance(database.engine, AsyncEngine):
            free.wait(PATIENCE_SECONDS)

    event.listen(database.sync_engine, "before_cursor_execute", hold_up)
    try:
        assert (await keys.verify(raw))["sub"] == "alice"
        begin_to_write(keys)
        for _ in range(3):
            assert (await keys.verify(raw))["sub"] == "alice"
        loop.call_soon(free.set)
        await keys.aclose()
    finally:
        event.remove(database.sync_engine, "before_cursor_execute", hold_up)
    stored = await keys.get(key_id)
    assert stored is not None
    assert stored.last_used_at is not None


def route(keys: DatabaseAPIKeyAuth) -> FastAPI:
    """Return a guarded route."""
    app = FastAPI()
    app.get("/", dependencies=[keys.authenticated()])(endpoint)
    return app


def websocket(keys: DatabaseAPIKeyAuth) -> FastAPI:
    """Return a guarded WebSocket."""
    app = FastAPI()

    @app.websocket("/", dependencies=[keys.authenticated()])
    async def greet(socket: WebSocket) -> None:
        await socket.accept()

    return app


def backend(keys: DatabaseAPIKeyAuth) -> FastAPI:
    """Return an application behind Starlette's middleware."""
    app = FastAPI(middleware=[Middleware(AuthenticationMiddleware, backend=GuardBackend(keys))])
    app.get("/")(endpoint)
    return app


def mount(keys: DatabaseAPIKeyAuth) -> FastAPI:
    """Return a guarded mount."""
    app, below = FastAPI(), FastAPI()
    below.get("/")(endpoint)
    app.mount("/", guarded(below, keys.authenticated()))
    return app


@pytest.mark.parametrize("kind", [route, websocket, backend, mount])
async def test_the_response_comes_before_the_write(
    database: Database, kind: Callable[[DatabaseAPIKeyAuth], FastAPI]
) -> None:
    """While the row of the key is locked the response is sent; the write begins afterwards."""
    keys = database.auth()
    key_id, raw = await keys.create(user_id="alice")
    headers = [(b"authorization", b"Bearer " + raw.encode())]
    app = kind(keys)
    with locked(database, key_id), database.statements() as statements:
        async with asyncio.timeout(PATIENCE_SECONDS):
            answer = await (open_websocket if kind is websocket else exchange)(app, "/", headers)
        assert answer.status == (101 if kind is websocket else 200)
        assert [statement for statement in statements if not statement.startswith("SELECT")] == []
    await keys.aclose()
    stored = await keys.get(key_id)
    assert stored is not None
    assert stored.last_used_at is not None


async def test_a_use_is_written_by_itself(database: Database) -> None:
    """After the delay the use is written, without a shutdown, and also where the database was locked for a moment."""
    keys = database.auth()
    key_id, raw = await keys.create(user_id="alice")
    await keys.verify(raw)
    # PostgreSQL leaves out a row that is locked, so only SQLite is.
    with locked(database, key_id if database.sync_engine.dialect.name == "sqlite" else "another"):
        begin_to_write(keys)
        writing = keys._uses._writes._task
        await asyncio.sleep(0.05)
    assert writing is not None
    await asyncio.wait([writing])
    assert [key.last_used_at is None for key in await keys.list()] == [False]


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


def begin_to_write(keys: DatabaseAPIKeyAuth) -> None:
    """Write what was noted, as after the delay."""
    for _ in range(2):
        keys._uses._writes._turn()


def test_a_loop_that_ends_before_the_write(keys: DatabaseAPIKeyAuth) -> None:
    """The next event loop writes the uses that one could not write."""
    _, raw = asyncio.run(keys.create(user_id="alice"))
    asyncio.run(keys.verify(raw))
    assert [key.last_used_at for key in asyncio.run(keys.list())] == [None]
    asyncio.run(keys.aclose())
    assert [key.last_used_at is None for key in asyncio.run(keys.list())] == [False]


async def test_one_connection_for_all(anyio_backend: str) -> None:
    """On a database in memory, where there is one connection, the use is written too."""
    engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    APIKey.metadata.create_all(engine)
    keys = DatabaseAPIKeyAuth(sessionmaker(engine))
    key_id, raw = await keys.create(user_id="alice")
    await keys.verify(raw)
    await keys.aclose()
    stored = await keys.get(key_id)
    assert stored is not None
    assert stored.last_used_at is not None
    engine.dispose()


async def test_more_keys_than_one_transaction_takes(sqlite: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """The uses of very many keys are written in several transactions; one that fails does not stop the others."""
    monkeypatch.setattr(module, "_MAX_BATCH", 2)
    keys = sqlite.auth()
    made = sorted([await keys.create(user_id="alice") for _ in range(5)])
    for key in made:
        await keys.verify(key.raw)
    trigger = text(
        "CREATE TRIGGER no_use BEFORE UPDATE ON api_keys"
        f" WHEN NEW.key_id = '{made[2].key_id}' BEGIN SELECT RAISE(ABORT, 'no'); END"
    )
    await sqlite.within(lambda session: session.execute(trigger))
    await keys.aclose()
    used = {key.key_id for key in await keys.list() if key.last_used_at is not None}
    assert used == {made[number].key_id for number in (0, 1, 4)}
