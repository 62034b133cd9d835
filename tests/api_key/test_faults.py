import asyncio
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import event, make_url, select
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.pool import NullPool

from api_key import another_process
from api_key.databases import DRIVERS, Database
from fastapi_guard import ServiceUnavailable, Unauthorized
from fastapi_guard.api_key.database import DatabaseAPIKeyAuth
from fastapi_guard.api_key.format import KeyFormat
from fastapi_guard.api_key.models import APIKey
from fastapi_guard.stores.replica import Replica
from support.asgi import Answer, endpoint, exchange
from support.postgres import PostgresServer
from support.processes import OtherProcess

POSTGRES_DRIVERS = [driver for driver in DRIVERS.values() if driver.startswith("postgres")]


async def ask(keys: DatabaseAPIKeyAuth, raw: str) -> Answer:
    """Return the answer to a request with a key."""
    app = FastAPI()
    app.get("/", dependencies=[keys.authenticated()])(endpoint)
    return await exchange(app, "/", [(b"authorization", b"Bearer " + raw.encode())])


@pytest.mark.parametrize("driver", POSTGRES_DRIVERS)
async def test_a_server_that_stops_and_starts(
    stoppable_postgres: PostgresServer, driver: str, caplog: pytest.LogCaptureFixture
) -> None:
    """While the database is unavailable the response is 503 with Retry-After, and it recovers by itself."""
    database = Database.of(stoppable_postgres.url.set(drivername=driver))
    await database.create_tables()
    keys = database.auth()
    key_id, raw = await keys.create(user_id="alice")
    assert (await ask(keys, raw)).status == 200

    # A restart between two requests: the connections in the pool are dead, and no client notices.
    stoppable_postgres.stop()
    stoppable_postgres.start()
    assert [(await ask(keys, raw)).status for _ in range(2)] == [200, 200]

    stoppable_postgres.stop()
    for _ in range(2):
        answer = await ask(keys, raw)
        assert (answer.status, answer.json) == (503, {"detail": "Service temporarily unavailable"})
        assert answer.header("retry-after") == "5"
        assert answer.header("www-authenticate") is None
    assert "the database is unavailable" in caplog.text
    # What cannot be a key is refused all the same.
    assert (await ask(keys, raw[:-1])).status == 401
    for attempt in (
        keys.create(user_id="bob"),
        keys.revoke(key_id),
        keys.rotate(key_id),
        keys.get(key_id),
        keys.list(),
    ):
        with pytest.raises(ServiceUnavailable):
            await attempt

    stoppable_postgres.start()
    assert (await ask(keys, raw)).status == 200
    await keys.revoke(key_id)
    assert (await ask(keys, raw)).status == 401
    await database.dispose()


async def test_a_cached_key_while_the_server_is_away(stoppable_postgres: PostgresServer) -> None:
    """A cached key stays valid while the database is unavailable, and no failed write fails it."""
    database = Database.of(stoppable_postgres.url.set(drivername="postgresql+asyncpg"))
    await database.create_tables()
    now = time.time()
    # As long as this test, so that the time that the server needs to stop does not count.
    keys = database.auth(cache_ttl=300, fresh_within=300, clock=lambda: now)
    _, raw = await keys.create(user_id="alice")
    assert (await ask(keys, raw)).status == 200
    stoppable_postgres.stop()
    now += 120
    assert (await ask(keys, raw)).status == 200
    now += 180
    assert (await ask(keys, raw)).status == 503
    await database.dispose()


async def test_a_server_that_hangs(stoppable_postgres: PostgresServer) -> None:
    """A database that does not answer in time is a 503 too; then the same key is accepted again."""
    database = Database.of(stoppable_postgres.url.set(drivername="postgresql+asyncpg"))
    await database.create_tables()
    keys = database.auth(timeout=60)
    _, raw = await keys.create(user_id="alice")
    assert (await ask(keys, raw)).status == 200

    async def backends() -> list[int]:
        import asyncpg  # noqa: PLC0415 - for this test alone

        connection = await asyncpg.connect(stoppable_postgres.url.render_as_string())
        others = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        found = await connection.fetch(others)
        await connection.close()
        return [row["pid"] for row in found]

    pids = await backends()
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        answer = await ask(database.auth(timeout=0.01), raw)
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    assert (answer.status, answer.header("retry-after")) == (503, "5")
    assert (await ask(keys, raw)).status == 200
    await database.dispose()


async def test_a_driver_that_hangs(sqlite: Database) -> None:
    """A look-up that lasts longer than the timeout is a 503."""
    _, raw = await sqlite.auth().create(user_id="alice")
    may_end = threading.Event()
    event.listen(sqlite.sync_engine, "before_cursor_execute", lambda *_: may_end.wait())
    assert (await ask(sqlite.auth(timeout=0.05), raw)).status == 503
    may_end.set()
    # The thread of the look-up gives the connection back, and only then are all of them closed.
    pool: Any = sqlite.sync_engine.pool
    while pool.checkedout():  # noqa: ASYNC110 - a pool has no event for it
        await asyncio.sleep(0.01)


async def test_a_replica_that_was_never_there(sqlite: Database) -> None:
    """Keys are looked up in the database itself while nothing is known of its replica."""
    replica = Replica(async_sessionmaker(create_async_engine("postgresql+asyncpg://postgres@127.0.0.1:1/keys")), lag=4)
    keys = sqlite.auth(replica=replica)
    _, raw = await keys.create(user_id="alice")
    assert (await ask(keys, raw)).status == 200
    select: Any = keys._lookup._select
    # The limit of the Auth counts for the keys, and the lag for what is read of the replica.
    limited = [select._on_primary._selects, select._on_replica._selects]
    assert [selects._timeout_seconds for selects in limited] == [60, 4]
    assert select._age._patience_seconds == 4


async def test_cancelled_requests_leave_no_connection_behind(postgres_url: Any) -> None:
    """Requests that are cancelled at any moment give their connections back."""
    database = Database.of(
        postgres_url.set(drivername="postgresql+asyncpg"), pool_size=2, max_overflow=0, pool_timeout=60
    )
    await database.create_tables()
    keys = database.auth()
    _, raw = await keys.create(user_id="alice")
    for delay in range(60):
        task = asyncio.create_task(keys.verify(raw))
        await asyncio.sleep(delay / 20_000)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    results = await asyncio.gather(*(keys.verify(raw) for _ in range(20)))
    assert {claims["sub"] for claims in results} == {"alice"}
    await database.dispose()


@pytest.mark.parametrize("driver", DRIVERS.values())
async def test_a_database_that_was_never_there(tmp_path: Path, driver: str, anyio_backend: str) -> None:
    """No server, no file and no tables are a 503, whatever the driver; a malformed key is a 401."""
    if driver.startswith("sqlite"):
        url = make_url(f"{driver}:///{tmp_path / 'missing' / 'keys.db'}")
    else:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            port = unused.getsockname()[1]
        url = make_url(f"{driver}://postgres@127.0.0.1:{port}/postgres")
    database = Database.of(url)
    keys = database.auth()
    assert (await ask(keys, KeyFormat().generate().raw)).status == 503
    assert (await ask(keys, "sk-no-key")).status == 401
    await database.dispose()
    # The thread of a connection of aiosqlite that could not be opened ends on its own, and wants the loop for it.
    workers = [thread for thread in threading.enumerate() if "_connection_worker" in thread.name]
    await asyncio.gather(*(asyncio.to_thread(thread.join) for thread in workers))


async def test_missing_tables(tmp_path: Path, anyio_backend: str, caplog: pytest.LogCaptureFixture) -> None:
    """Missing tables are a 503, and the log names what is missing."""
    database = Database.of(make_url(f"sqlite:///{tmp_path / 'keys.db'}"))
    keys = database.auth()
    caplog.set_level(logging.WARNING)
    assert (await ask(keys, KeyFormat().generate().raw)).status == 503
    remedy = "'no such table: api_keys'; create the tables with `fastapi-guard init-db` or a migration"
    assert caplog.messages == [f"the database is unavailable: OperationalError: {remedy}"]
    await database.create_tables()
    _, raw = await keys.create(user_id="alice")
    assert (await ask(keys, raw)).status == 200
    await database.dispose()


async def test_a_locked_file(tmp_path: Path, anyio_backend: str) -> None:
    """While another writer holds the file a look-up waits as long as its driver is configured to, and is a 503."""
    database = Database.of(
        make_url(f"sqlite:///{tmp_path / 'keys.db'}"), connect_args={"timeout": 0.1}, poolclass=NullPool
    )
    await database.create_tables()
    keys = database.auth()
    _, raw = await keys.create(user_id="alice")
    with database.sync_engine.connect() as connection:
        connection.exec_driver_sql("BEGIN EXCLUSIVE")
        assert (await ask(keys, raw)).status == 503
        connection.rollback()
    assert (await ask(keys, raw)).status == 200
    await database.dispose()


@contextmanager
def running_process(url: str, cache_ttl: float) -> Iterator[OtherProcess]:
    """Run another process on the same database."""
    process = OtherProcess(another_process.main, url, cache_ttl)
    yield process
    process.send(None)
    assert process.wait() == 0


async def verified(process: OtherProcess, sent: str | float) -> str:
    """Return the outcome in the other process: of a key, or of the seconds by which its clock moves."""
    process.send(sent)
    outcome: str = await asyncio.to_thread(process.receive)
    return outcome


@pytest.fixture(params=["sqlite-sync", "postgres-async"])
async def shared(
    request: pytest.FixtureRequest, tmp_path: Path, anyio_backend: str
) -> AsyncIterator[tuple[Database, str]]:
    """Yield a database that two processes share, and its URL."""
    driver = DRIVERS[request.param]
    if driver == "sqlite":
        url = make_url(f"sqlite:///{tmp_path / 'keys.db'}")
    else:
        url = request.getfixturevalue("postgres_url").set(drivername=driver)
    database = Database.of(url)
    await database.create_tables()
    yield database, url.render_as_string(hide_password=False)
    await database.dispose()


async def test_revocation_in_another_process_at_once(shared: tuple[Database, str]) -> None:
    """Without a cache a revocation here is seen there with the next request, and the other way round it stays."""
    database, url = shared
    keys = database.auth()
    key_id, raw = await keys.create(user_id="alice")
    with running_process(url, 0) as process:
        assert await verified(process, raw) == "accepted"
        await keys.revoke(key_id)
        assert await verified(process, raw) == "revoked"


async def test_a_stale_cached_key_in_another_process(shared: tuple[Database, str]) -> None:
    """A copy that is stale in another process goes within its time, and never brings the key back.

    The stale process writes the use of the key that it believes in; the row stays revoked.
    """
    database, url = shared
    keys = database.auth()
    key_id, raw = await keys.create(user_id="alice")
    with running_process(url, 3600.0) as process:
        assert await verified(process, raw) == "accepted"
        await keys.revoke(key_id)
        revoked = await keys.get(key_id)
        assert await verified(process, raw) == "accepted"
        # Let the next use there be due, so that it writes.
        long_ago = datetime.now(UTC) - timedelta(hours=1)
        await database.within(lambda session: session.execute(APIKey.__table__.update().values(last_used_at=long_ago)))  # type: ignore[attr-defined]
        assert await verified(process, raw) == "accepted"
        assert await verified(process, 3600.0) == "moved"
        assert [await verified(process, raw) for _ in range(2)] == ["revoked"] * 2
    after = await keys.get(key_id)
    assert revoked is not None
    assert after is not None
    assert after.revoked_at == revoked.revoked_at is not None
    with pytest.raises(Unauthorized):
        await keys.verify(raw)
    assert await database.within(lambda session: session.scalar(select(APIKey.revoked_at))) == revoked.revoked_at
