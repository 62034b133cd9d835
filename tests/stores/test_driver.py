"""SELECTs by the driver itself: the same rows and errors as by Core, and Core wherever it has more to do."""

import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import (
    JSON,
    URL,
    Boolean,
    Column,
    DateTime,
    Double,
    Engine,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    String,
    Table,
    Uuid,
    bindparam,
    create_engine,
    event,
    func,
    insert,
    literal,
    select,
    text,
)
from sqlalchemy import Enum as EnumColumn
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlalchemy.orm import sessionmaker

from fastapi_guard import ServiceUnavailable
from fastapi_guard.stores.columns import SecretBytes, UTCDateTime
from fastapi_guard.stores.database import Sessions
from fastapi_guard.stores.driver import _DIALECT_EVENTS, _EVENTS, DriverSelect
from fastapi_guard.stores.failures import Refused
from fastapi_guard.stores.hidden import HiddenBytes
from fastapi_guard.stores.selects import Selects


class Colour(Enum):
    """The type of a column that an application may have."""

    RED = "red"


things = Table(
    "things",
    MetaData(),
    Column("word", String(9), primary_key=True),
    Column("number", Integer),
    Column("flag", Boolean),
    Column("weight", Double),
    Column("price", Numeric(9, 2)),
    Column("uuid", Uuid),
    Column("colour", EnumColumn(Colour)),
    Column("plain", LargeBinary),
    Column("secret", SecretBytes),
    Column("document", JSON),
    Column("at", DateTime(timezone=True)),
    Column("utc", UTCDateTime),
)
THING: dict[str, Any] = {
    "word": "a",
    "number": 2,
    "flag": True,
    "weight": 0.5,
    "price": Decimal("1.25"),
    "uuid": uuid4(),
    "colour": Colour.RED,
    "plain": b"\x00\xff",
    "secret": b"\x01",
    "document": {"a": [1]},
    "at": datetime(2026, 1, 1, 12, tzinfo=UTC),
    "utc": datetime(2026, 1, 1, 12, tzinfo=UTC),
}
BY_WORD = DriverSelect(select(*things.c).where(things.c.word == bindparam("wanted")))


@pytest.fixture(params=["postgresql+asyncpg", "sqlite"])
async def factory(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Any]:
    """Yield a factory of sessions with a driver of its own, on a table with two things."""
    if request.param == "sqlite":
        engine = create_engine(f"sqlite:///{tmp_path / 'things.db'}")
        made: Any = sessionmaker(engine)
        dispose: Any = engine.dispose
    else:
        url: URL = request.getfixturevalue("postgres_url").set(drivername=request.param)
        asynchronous = create_async_engine(url, pool_size=6, max_overflow=0)
        made, dispose = async_sessionmaker(asynchronous), asynchronous.dispose
    sessions = Sessions(made)

    def fill(session: Any) -> None:
        things.create(session.connection())
        for row in (THING, {"word": "empty"}):
            session.execute(insert(things), row)

    await sessions.transaction(fill)
    yield made
    await sessions.transaction(lambda session: things.drop(session.connection()))
    closing = dispose()
    if closing is not None:
        await closing


def engine_of(factory: Any) -> Engine:
    """Return the sync engine that a factory is bound to."""
    bind = factory.kw["bind"]
    return bind.sync_engine if isinstance(bind, AsyncEngine) else bind


async def by_driver(factory: Any, chosen: DriverSelect = BY_WORD, **parameters: Any) -> Any:
    """Return the rows of the driver alone, ``None`` where Core has to execute the SELECT."""
    return await Sessions(factory).run(chosen.rows, engine_of(factory), {"wanted": "a", **parameters})


async def by_either(factory: Any, chosen: DriverSelect = BY_WORD, **parameters: Any) -> Any:
    """Return the rows of the driver, or of Core where it has to execute the SELECT."""
    return await Selects(Sessions(factory)).look_up(chosen, {"wanted": "a", **parameters})


async def test_columns_of_each_type(factory: Any) -> None:
    """Values have the types that Core returns, also where there is none; secrets stay hidden."""
    for word in ("a", "empty", "missing"):
        found = await by_driver(factory, wanted=word)
        expected = await Selects(Sessions(factory)).all(BY_WORD.statement, {"wanted": word})
        assert [tuple(row) for row in found] == [tuple(row) for row in expected]
        for row, other in zip(found, expected, strict=True):
            assert [type(value) for value in row] == [type(value) for value in other]
    [found] = await by_driver(factory)
    assert type(found[list(THING).index("secret")]) is HiddenBytes


async def test_values_of_the_statement_itself(factory: Any) -> None:
    """A value that is written in the statement goes to the driver together with the parameters."""
    chosen = DriverSelect(
        select(things.c.number + literal(40), literal(None)).where(things.c.word == bindparam("word"))
    )
    assert [tuple(row) for row in await by_driver(factory, chosen, word="a")] == [(42, None)]


@pytest.mark.parametrize("name", [*_EVENTS, *_DIALECT_EVENTS])
async def test_an_application_that_listens(factory: Any, name: str) -> None:
    """While the application listens to statements, of its engine or of any, Core executes them."""
    engine = engine_of(factory)

    def listener(*_: Any) -> None:
        """Do nothing."""

    for target in (engine, Engine) if name in _EVENTS else (engine,):
        assert await by_driver(factory)
        event.listen(target, name, listener)
        try:
            assert await by_driver(factory) is None
            assert len(await by_either(factory)) == 1
        finally:
            event.remove(target, name, listener)
    assert await by_driver(factory)


async def test_an_application_that_logs(factory: Any) -> None:
    """While statements are logged, Core executes them."""
    logger = logging.getLogger("sqlalchemy.engine.Engine")
    level = logger.level
    logger.setLevel(logging.INFO)
    try:
        assert await by_driver(factory) is None
    finally:
        logger.setLevel(level)
    assert await by_driver(factory)


async def test_an_engine_with_options(factory: Any) -> None:
    """An engine with execution options, such as other schemas for its tables, is left to Core."""
    bind = factory.kw["bind"]
    factory.configure(bind=bind.execution_options(schema_translate_map={None: "nowhere"}))
    assert await by_driver(factory) is None
    with pytest.raises(ServiceUnavailable):
        await by_either(factory)
    factory.configure(bind=bind)
    assert await by_driver(factory)


@pytest.mark.parametrize("driver", ["sqlite+aiosqlite", "postgresql+psycopg"])
async def test_other_drivers(request: pytest.FixtureRequest, tmp_path: Path, driver: str) -> None:
    """On other drivers Core executes the SELECT."""
    url = URL.create(driver, database=str(tmp_path / "things.db"))
    if driver.startswith("postgresql"):
        url = request.getfixturevalue("postgres_url").set(drivername=driver)
    engine = create_async_engine(url)
    chosen = DriverSelect(select(bindparam("wanted", type_=String)))
    assert await by_driver(async_sessionmaker(engine), chosen) is None
    assert await by_either(async_sessionmaker(engine), chosen) == [("a",)]
    await engine.dispose()


@pytest.mark.parametrize("setting", ["statement_cache_size", "prepared_statement_cache_size"])
async def test_asyncpg_without_prepared_statements(postgres_url: URL, setting: str) -> None:
    """Core executes the SELECT if asyncpg or the dialect keeps no prepared statements, as for PgBouncer."""
    engine = create_async_engine(postgres_url.set(drivername="postgresql+asyncpg"), connect_args={setting: 0})
    chosen = DriverSelect(select(bindparam("wanted", type_=String)))
    for _ in range(2):
        assert await by_driver(async_sessionmaker(engine), chosen) is None
        assert await by_either(async_sessionmaker(engine), chosen) == [("a",)]
    await engine.dispose()


async def test_another_engine_in_the_same_factory(factory: Any, tmp_path: Path) -> None:
    """A factory that is bound to a database of another kind later gets the SQL of that."""
    assert len(await by_either(factory)) == 1
    engine = create_engine(f"sqlite:///{tmp_path / 'other.db'}")
    things.create(engine)
    assert await by_either(sessionmaker(engine)) == []
    assert len(await by_either(factory)) == 1
    engine.dispose()


async def test_a_select_that_fails(factory: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A SELECT that the database rejects is a 503 whose log shows no value, and its connection is used again."""
    engine = engine_of(factory)
    chosen = DriverSelect(select(text("nothing")).select_from(things).where(things.c.word == bindparam("wanted")))
    with pytest.raises(ServiceUnavailable):
        await by_either(factory, chosen, wanted="secret")
    assert "nothing" in caplog.text
    assert "secret" not in caplog.text
    pool: Any = engine.pool
    assert (pool.checkedin(), pool.checkedout()) == (1, 0)
    assert len(await by_driver(factory)) == 1


@pytest.mark.parametrize("factory", ["postgresql+asyncpg"], indirect=True)
async def test_values_that_postgresql_rejects(factory: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A value that the database or asyncpg rejects is refused without showing it; the connection is used again."""
    by_number = DriverSelect(select(things.c.word).where(things.c.number == bindparam("wanted")))
    for chosen, wanted in ((BY_WORD, "secret\x00"), (by_number, "secret")):
        with pytest.raises(Refused) as failed:
            await by_either(factory, chosen, wanted=wanted)
        assert "secret" not in str(failed.value)
        assert len(await by_driver(factory)) == 1
    assert not caplog.text
    assert engine_of(factory).pool.checkedin() == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("factory", ["sqlite"], indirect=True)
async def test_a_value_that_sqlite3_rejects(factory: Any) -> None:
    """A text that is not Unicode is a ValueError, as it is by Core, so that it fails alone."""
    with pytest.raises(UnicodeEncodeError):
        await by_either(factory, wanted="\ud800")
    with pytest.raises(UnicodeEncodeError):
        await Selects(Sessions(factory)).all(BY_WORD.statement, {"wanted": "\ud800"})
    assert len(await by_driver(factory)) == 1


async def test_a_value_of_the_wrong_type(factory: Any) -> None:
    """A value that the type of its column rejects does not reach the database."""
    chosen = DriverSelect(select(things.c.word).where(things.c.utc == bindparam("wanted")))
    with pytest.raises(ValueError, match="naive"):
        await by_either(factory, chosen, wanted=datetime(2026, 1, 1))  # noqa: DTZ001 - the point


async def test_connections_that_were_lost(factory: Any) -> None:
    """A pool of lost connections, more than there are attempts, is replaced within the look-up."""
    engine = engine_of(factory)
    if engine.dialect.name == "sqlite":
        with engine.connect() as connection:
            # Without the pool's knowledge.
            connection.connection.dbapi_connection.close()  # type: ignore[union-attr]
    else:
        bind = factory.kw["bind"]
        connections = [await bind.connect() for _ in range(6)]
        pids = [await connection.scalar(text("SELECT pg_backend_pid()")) for connection in connections]
        for connection in connections:
            await connection.close()
        other = create_async_engine(engine.url)
        async with other.connect() as connection:
            for pid in pids:
                assert await connection.scalar(text(f"SELECT pg_terminate_backend({pid}, 5000)"))
        await other.dispose()
    for _ in range(4):
        assert len(await by_either(factory)) == 1


@pytest.mark.parametrize("factory", ["postgresql+asyncpg"], indirect=True)
async def test_a_select_that_is_given_up(factory: Any) -> None:
    """The connection of a SELECT that did not end in time is not used again, and no transaction stays open."""
    chosen = DriverSelect(select(func.pg_sleep(bindparam("wanted", type_=Double))))
    selects = Selects(Sessions(factory), 0.2)
    with pytest.raises(ServiceUnavailable) as failed:
        await selects.look_up(chosen, {"wanted": 60.0})
    assert failed.value.reason == "database_unreachable"
    task = asyncio.create_task(by_either(factory, chosen, wanted=60.0))
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    pool: Any = engine_of(factory).pool
    assert pool.checkedout() == 0
    assert len(await by_either(factory)) == 1
    open_ones = "SELECT count(*) FROM pg_stat_activity WHERE state <> 'idle' AND datname = current_database()"
    async with factory.kw["bind"].connect() as connection:
        # The server learns of it a moment later.
        while await connection.scalar(text(f"{open_ones} AND pid <> pg_backend_pid()")):  # noqa: ASYNC110 - of another process
            await asyncio.sleep(0.01)
        await connection.execute(insert(things), {"word": "lost"})
        await connection.rollback()
    assert await by_either(factory, wanted="lost") == []


@pytest.mark.parametrize("factory", ["postgresql+asyncpg"], indirect=True)
async def test_a_table_that_changes(factory: Any) -> None:
    """A migration between two look-ups goes unnoticed, although the prepared statement is outdated."""
    assert len(await by_driver(factory)) == 1
    async with factory.kw["bind"].begin() as connection:
        await connection.execute(text("ALTER TABLE things ALTER COLUMN number TYPE BIGINT"))
    [row] = await by_driver(factory)
    assert row[1] == THING["number"]


async def test_an_unreachable_database(tmp_path: Path) -> None:
    """A connection that cannot be opened is a 503."""
    engine = create_engine(f"sqlite:///{tmp_path / 'missing' / 'things.db'}")
    with pytest.raises(ServiceUnavailable) as failed:
        await by_either(sessionmaker(engine))
    assert failed.value.reason == "database_unreachable"
