"""Look-ups on a real replica of PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy import URL, Column, Integer, MetaData, String, Table, create_engine, event, text
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlalchemy.orm import sessionmaker

from api_key.databases import Database
from fastapi_guard import ConfigurationError
from fastapi_guard.api_key.database import DatabaseAPIKeyAuth
from fastapi_guard.stores.database import Sessions
from fastapi_guard.stores.replica import Replica, ReplicaSelect
from fastapi_guard.stores.selects import SharedSelect
from support.clock import Clock
from support.postgres import PostgresServer
from support.redis import until

LAG = 4
words = Table("words", MetaData(), Column("word", String, primary_key=True), Column("length", Integer))


@dataclass
class Pair:
    """A primary and its replica, and where look-ups went."""

    primary: AsyncEngine
    replica: AsyncEngine
    clock: Clock
    places: list[str]

    def select(self) -> ReplicaSelect:
        """Return look-ups on the replica, which may be 4 s old, by the clock of the test."""
        replica = Replica(async_sessionmaker(self.replica), lag=LAG)
        sessions = Sessions(async_sessionmaker(self.primary))
        return ReplicaSelect(sessions, replica, select_words, monotonic=self.clock)

    async def run(self, statement: str, *, on_replica: bool = False) -> Any:
        """Return the one value of a statement."""
        async with (self.replica if on_replica else self.primary).begin() as connection:
            return (await connection.execute(text(statement))).scalar()

    async def catches_up(self) -> None:
        """Wait until the replica has replayed everything."""
        end = await self.run("SELECT CAST(pg_current_wal_insert_lsn() AS text)")

        async def has() -> bool:
            return bool(await self.run(f"SELECT pg_last_wal_replay_lsn() >= '{end}'", on_replica=True))

        await until(has)


def select_words(sessions: Sessions, timeout_seconds: float) -> SharedSelect:
    """Return look-ups of words."""
    return SharedSelect(sessions, list(words.c), timeout_seconds=timeout_seconds)


@pytest.fixture(scope="module")
def urls() -> Iterator[tuple[URL, URL]]:
    """Yield the URLs of a primary and of its replica."""
    server = PostgresServer()
    with server.replica() as replica:
        yield server.url, replica
    server.remove()


@pytest.fixture
async def pair(urls: tuple[URL, URL], clock: Clock) -> AsyncIterator[Pair]:
    """Yield a primary with a word, and its replica."""
    primary, replica = (create_async_engine(url.set(drivername="postgresql+asyncpg")) for url in urls)
    pair = Pair(primary, replica, clock, [])
    for engine, name in ((primary, "primary"), (replica, "replica")):

        def note(*about: Any, name: str = name) -> None:
            if "FROM words" in about[2]:
                pair.places.append(name)

        event.listen(engine.sync_engine, "before_cursor_execute", note)
    async with primary.begin() as connection:
        await connection.run_sync(words.drop, checkfirst=True)
        await connection.run_sync(words.create)
    await pair.run("INSERT INTO words VALUES ('a', 1) RETURNING 1")
    await pair.catches_up()
    yield pair
    for engine in (primary, replica):
        await engine.dispose()


async def test_a_replica_that_is_fresh_late_and_gone(pair: Pair, clock: Clock) -> None:
    """Look-ups go to the replica while it is no older than the lag, and to the primary otherwise."""
    select = pair.select()
    for _ in range(3):
        assert await select.rows("a", "b") == [("a", 1), None]
        clock.move(1)
    assert pair.places == ["replica"] * 3
    # It replays nothing: what it has counts for the lag.
    await pair.run("SELECT pg_wal_replay_pause()", on_replica=True)
    await pair.run("INSERT INTO words VALUES ('b', 1) RETURNING 1")
    pair.places.clear()
    found = []
    for _ in range(LAG + 2):
        found.append((await select.rows("b"))[0])
        clock.move(1)
    assert set(pair.places[:2]) == {"replica"}
    assert pair.places[LAG:] == ["primary"] * 2
    assert found[LAG:] == [("b", 1)] * 2
    await pair.run("SELECT pg_wal_replay_resume()", on_replica=True)
    await pair.catches_up()
    pair.places.clear()
    clock.move(1)
    assert await select.rows("b") == [("b", 1)]
    clock.move(1)
    assert await select.rows("b") == [("b", 1)]
    assert pair.places[-1] == "replica"


async def test_a_replica_that_is_gone(pair: Pair, clock: Clock) -> None:
    """Without the replica the primary is read, also by the request that finds out."""
    select = pair.select()
    assert await select.rows("a") == [("a", 1)]
    await pair.replica.dispose()

    def refuse(*_: object) -> None:
        raise ConnectionRefusedError

    event.listen(pair.replica.sync_engine, "do_connect", refuse)
    pair.places.clear()
    assert await select.rows("a") == [("a", 1)]
    for _ in range(2):
        clock.move(2)
        assert await select.rows("a") == [("a", 1)]
    assert set(pair.places) == {"primary"}


@pytest.mark.parametrize("driver", ["postgresql+asyncpg", "postgresql+psycopg"])
async def test_a_replica_that_does_not_respond(pair: Pair, urls: tuple[URL, URL], driver: str) -> None:
    """A look-up waits for it as long as its lag, and not until the timeout; then the primary is read."""
    database = Database.of(urls[1].set(drivername=driver), pool_size=1, max_overflow=0)
    replica = Replica(database.factory, lag=0.2)
    sessions = Sessions(async_sessionmaker(pair.primary))
    select = ReplicaSelect(sessions, replica, select_words, timeout_seconds=600, monotonic=pair.clock)
    # Once while it is known to be fresh, and once while that is read.
    assert await select.rows("a") == [("a", 1)]
    held: Any = database.engine.connect()
    if isinstance(database.engine, AsyncEngine):
        held = await held
    pair.places.clear()
    for _ in range(2):
        assert await asyncio.wait_for(select.rows("a"), 20) == [("a", 1)]
        pair.clock.move(1)
    assert pair.places == ["primary"] * 2
    closed = held.close()
    if closed is not None:
        await closed
    await database.dispose()


async def test_a_primary_in_the_place_of_a_replica(pair: Pair) -> None:
    """A server that is not a replica is never known to be fresh: the primary is read."""
    replica = Replica(async_sessionmaker(pair.primary), lag=LAG)
    select = ReplicaSelect(Sessions(async_sessionmaker(pair.primary)), replica, select_words, monotonic=pair.clock)
    assert await select.rows("a") == [("a", 1)]
    assert not await select._age.is_within(LAG)


async def test_api_keys(pair: Pair) -> None:
    """A key is looked up on the replica; its use is written on the primary."""
    database = Database(pair.primary, async_sessionmaker(pair.primary))
    await database.create_tables()
    keys = database.auth(replica=Replica(async_sessionmaker(pair.replica), lag=60))
    key_id, raw = await keys.create(user_id="ada")
    await pair.catches_up()
    seen: list[str] = []
    event.listen(pair.replica.sync_engine, "before_cursor_execute", lambda *about: seen.append(about[2]))
    assert (await keys.verify(raw))["sub"] == "ada"
    assert any("api_keys" in statement for statement in seen)
    await keys.aclose()
    stored = await keys.get(key_id)
    assert stored is not None
    assert stored.last_used_at is not None
    await keys.revoke(key_id)
    await pair.catches_up()
    assert not await keys.validate_token(raw)


@pytest.mark.parametrize(
    ("factory", "lag", "message"),
    [
        (sessionmaker(create_engine("sqlite:///replica.db")), 5, "a replica is one of PostgreSQL"),
        (sessionmaker(), 5, "a replica is one of PostgreSQL"),
        (async_sessionmaker(create_async_engine("postgresql+asyncpg:///name")), 0, "more than 0"),
    ],
)
def test_replicas_that_are_rejected(factory: Any, lag: float, message: str) -> None:
    """Another database, no engine, or no lag raises ConfigurationError."""
    with pytest.raises(ConfigurationError, match=message):
        Replica(factory, lag=lag)


def test_a_replica_beside_a_cache() -> None:
    """A cache beside a replica raises ConfigurationError: it would keep rows from before a change."""
    factory = async_sessionmaker(create_async_engine("postgresql+asyncpg:///name"))
    with pytest.raises(ConfigurationError, match="pass cache_ttl or replica"):
        DatabaseAPIKeyAuth(factory, cache_ttl=60, replica=Replica(factory, lag=5))
