"""Positions in the changes of a store: nothing is missed, whatever commits when, and a gap is noticed."""

import gc
from typing import Any

import psycopg
import pytest
from redis.asyncio import Redis
from sqlalchemy import URL, MetaData, create_engine, text
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlalchemy.orm import sessionmaker
from sqlalchemy.pool import StaticPool

from fastapi_guard import ConfigurationError
from fastapi_guard.stores import MemoryStore, Record
from fastapi_guard.stores.changes import _caches, changed_here, forget_when_changed
from fastapi_guard.stores.database import Sessions
from fastapi_guard.stores.redis import RedisStore
from fastapi_guard.stores.sqlalchemy import SQLAlchemyStore, records, records_table
from fastapi_guard.stores.sqlalchemy_changes import RowChanges
from support.clock import Clock


async def placed(postgres_url: URL) -> tuple[AsyncEngine, SQLAlchemyStore, RowChanges, Clock]:
    """Return a store, its changes from here on, and the clock by which they are read."""
    engine = create_async_engine(postgres_url.set(drivername="postgresql+asyncpg"))
    store = SQLAlchemyStore(async_sessionmaker(engine))
    await store.create_table()
    now = Clock(0)
    changes = store.changes()
    changes._monotonic = now
    await changes.read()
    return engine, store, changes, now


async def test_a_transaction_that_commits_late(postgres_url: URL) -> None:
    """A row that was written before others and is committed long after them is read."""
    engine, store, changes, now = await placed(postgres_url)
    insert = "INSERT INTO fastapi_guard_records_changes (key, at) VALUES ('session:late', 0)"
    with psycopg.connect(postgres_url.render_as_string(hide_password=False)) as late:
        late.execute(insert)
        for number in range(3):
            await store.add(Record(f"revoked:token:{number}", b""))
            assert await changes.read() == {f"revoked:token:{number}"}
            assert await changes.read() == set()
            now.move(100)
        late.commit()
    assert await changes.read() == {"session:late"}
    assert await changes.read() == set()
    # All is settled then: what was read is not kept in mind any more.
    now.move(100)
    assert await changes.read() == set()
    assert (changes._seen, changes._marks) == (set(), [])
    await engine.dispose()


async def test_a_late_commit_through_sessions_alone(postgres_url: URL) -> None:
    """So it is if the factory routes by `binds`, and only a session chooses the engine."""
    engine, store, _, _ = await placed(postgres_url)
    rows = records.metadata.tables["fastapi_guard_records_changes"]
    routing = Sessions(async_sessionmaker(binds={rows: engine}))
    changes = RowChanges(routing, rows.c.id, rows.c.key, decode=bytes.decode)
    await changes.read()
    with psycopg.connect(postgres_url.render_as_string(hide_password=False)) as late:
        late.execute("INSERT INTO fastapi_guard_records_changes (key, at) VALUES ('session:late', 0)")
        await store.add(Record("revoked:token:routed", b""))
        assert await changes.read() == {"revoked:token:routed"}
        late.commit()
    assert await changes.read() == {"session:late"}
    await engine.dispose()


async def test_numbers_that_are_used_again(postgres_url: URL) -> None:
    """If the table was emptied or restored, anything may have changed; what changes later is read."""
    engine, store, changes, now = await placed(postgres_url)
    for is_settled in (False, True):
        names = {f"revoked:token:{is_settled}{number}" for number in range(3)}
        for name in names:
            await store.add(Record(name, b""))
        assert await changes.read() == names
        if is_settled:
            now.move(100)
            assert await changes.read() == set()
            assert changes._marks == []
        async with engine.begin() as connection:
            await connection.execute(text("TRUNCATE fastapi_guard_records_changes RESTART IDENTITY"))
        await store.add(Record(f"revoked:token:{is_settled}again", b""))
        assert await changes.read() is None
        assert await changes.read() == set()
        await store.add(Record(f"revoked:token:{is_settled}later", b""))
        assert await changes.read() == {f"revoked:token:{is_settled}later"}
    await engine.dispose()


async def test_a_factory_without_an_engine() -> None:
    """A table that is reached by a connection alone is read too."""
    engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    table = records_table(MetaData())
    table.metadata.create_all(engine)
    with engine.connect() as connection:
        store = SQLAlchemyStore(sessionmaker(connection), table=table)
        assert await store.changes().read() is None
        rows = table.metadata.tables["fastapi_guard_records_changes"]
        connection.execute(text("INSERT INTO fastapi_guard_records_changes (key, at) VALUES (x'ff', 0), (x'61', 0)"))

        def decode(name: bytes) -> str | None:
            return None if name == b"\xff" else name.decode()

        changes = RowChanges(Sessions(sessionmaker(connection)), rows.c.id, rows.c.key, decode=decode)
        assert await changes.read() is None
        connection.execute(text("INSERT INTO fastapi_guard_records_changes (key, at) VALUES (x'ff', 0), (x'62', 0)"))
        assert await changes.read() == {"b"}
    engine.dispose()


async def test_other_prefixes(postgres_url: URL) -> None:
    """Two stores on one table do not read each other's changes."""
    engine = create_engine(postgres_url.set(drivername="postgresql+psycopg"))
    one, other = (SQLAlchemyStore(sessionmaker(engine), prefix=prefix) for prefix in ("one:", "other:"))
    await one.create_table()
    changes = one.changes()
    await changes.read()
    for store in (one, other):
        await store.add(Record("revoked:token:t", b""))
    assert await changes.read() == {"revoked:token:t"}
    engine.dispose()


async def test_changes_are_pruned(clock: Clock) -> None:
    """Changes are deleted after a day, and their numbers are not used again."""
    engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    store = SQLAlchemyStore(sessionmaker(engine), clock=clock)
    await store.create_table()
    changes = store.changes()
    await changes.read()
    await store.add(Record("revoked:token:old", b""))
    assert await changes.read() == {"revoked:token:old"}
    clock.move(86_401)
    await store.prune()
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM fastapi_guard_records_changes")) == 0
    await store.add(Record("revoked:token:new", b""))
    assert await changes.read() == {"revoked:token:new"}
    engine.dispose()


async def test_a_foreign_table() -> None:
    """A table without changes beside it is rejected when the store is constructed."""
    engine = create_engine("sqlite://", poolclass=StaticPool)
    with pytest.raises(ConfigurationError, match=r"pass a table that records_table\(metadata, name\) returned"):
        SQLAlchemyStore(sessionmaker(engine), table=records.to_metadata(MetaData()))
    engine.dispose()


@pytest.mark.parametrize("gap", ["deleted", "trimmed", "another primary"])
async def test_a_gap_in_the_stream(redis_url: str, gap: str) -> None:
    """If the last entry that was read is gone from Redis, anything may have changed."""
    async with Redis.from_url(redis_url) as client:
        store = RedisStore(client, prefix=f"{gap}:")
        changes = store.changes()
        assert await changes.read() is None
        await store.add(Record("revoked:token:a", b""))
        assert await changes.read() == {"revoked:token:a"}
        stream = f"{gap}:changes"
        if gap == "trimmed":
            await client.xadd(stream, {"key": f"{gap}:record:session:x"}, maxlen=1, approximate=False)
        else:
            await client.delete(stream)
        if gap == "another primary":
            await client.xadd(stream, {"key": f"{gap}:record:session:x"}, id="1-1")
        assert await changes.read() is None
        await store.add(Record("revoked:token:b", b""))
        assert await changes.read() == {"revoked:token:b"}
        assert 86_000 < await client.ttl(stream) <= 86_400


async def test_no_other_process() -> None:
    """No other process can change a store in memory."""
    assert await MemoryStore().changes().read() == ()


def test_caches_are_not_kept_alive() -> None:
    """A cache that the application dropped is not told any more."""
    told: list[Any] = []

    class Cache:
        def forget(self, keys: Any) -> None:
            told.append(keys)

    cache = Cache()
    forget_when_changed(cache)
    changed_here("a", "b")
    assert told == [("a", "b")]
    del cache
    gc.collect()
    changed_here("c")
    assert len(told) == 1
    assert not any(isinstance(kept, Cache) for kept in _caches)
