"""SELECTs on the way of a request: without a transaction, shared, and never waiting indefinitely."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import (
    JSON,
    URL,
    Column,
    ColumnElement,
    Engine,
    MetaData,
    String,
    Table,
    create_engine,
    event,
    insert,
    literal,
    null,
    text,
)
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import AsyncAdaptedQueuePool, StaticPool

from fastapi_guard import ServiceUnavailable
from fastapi_guard.stores.database import Sessions
from fastapi_guard.stores.selects import Selects, SharedSelect
from support.notes import engine_with_notes, note, notes
from support.stores import DATABASES, sessions_of

__all__ = ["engine_with_notes"]


async def test_a_select_without_a_transaction(engine: AsyncEngine) -> None:
    """One SELECT on PostgreSQL is in no transaction, and the connection then is as it was: transactions roll back."""
    sessions = Sessions(async_sessionmaker(engine))
    selects = Selects(sessions)
    found = text("SELECT word FROM notes WHERE word = :word")
    # PostgreSQL refuses a procedure that commits within a transaction.
    procedure = "PROCEDURE committing(INOUT done INT) LANGUAGE plpgsql AS 'BEGIN COMMIT; done := 1; END'"
    await sessions.transaction(lambda session: session.execute(text(f"CREATE OR REPLACE {procedure}")))
    await sessions.transaction(note("a", 1))
    for _ in range(2):
        assert await selects.all(found, {"word": "a"}) == [("a",)]
        assert await selects.all(text("CALL committing(0)"), {}) == [(1,)]
        async with engine.connect() as connection:
            await connection.execute(text("INSERT INTO notes VALUES ('lost', 2)"))
            await connection.rollback()
        assert await notes(engine) == ["a"]


async def test_a_failed_select_leaves_no_trace(engine: AsyncEngine) -> None:
    """After a SELECT that failed or was given up, transactions on the connections of the pool roll back as before."""
    selects = Selects(Sessions(async_sessionmaker(engine)), 0.2)
    for statement in ("SELECT nothing FROM notes", "SELECT pg_sleep(60)"):
        with pytest.raises(ServiceUnavailable):
            await selects.all(text(statement), {})
        async with engine.connect() as connection:
            await connection.execute(text("INSERT INTO notes VALUES ('lost', 2)"))
            await connection.rollback()
        assert await notes(engine) == []


async def test_an_engine_of_another_isolation(engine: AsyncEngine) -> None:
    """An engine whose transactions are stricter has them back after a SELECT without one."""
    strict = engine.execution_options(isolation_level="SERIALIZABLE")
    selects = Selects(Sessions(async_sessionmaker(strict)))
    assert await selects.all(text("SELECT 1"), {}) == [(1,)]
    level = text("SHOW transaction_isolation")
    async with strict.connect() as connection:
        assert await connection.scalar(level) == "serializable"
    async with engine.connect() as connection:
        assert await connection.scalar(level) == "read committed"


async def test_a_cancelled_select_on_sqlite(tmp_path: Path) -> None:
    """A query of SQLite that was cancelled is finished, and its thread serves the next one."""
    url = f"sqlite+aiosqlite:///{tmp_path / 'notes.db'}"
    engine = create_async_engine(url, poolclass=AsyncAdaptedQueuePool, pool_size=1, max_overflow=0)
    sessions = Sessions(async_sessionmaker(engine))
    selects = Selects(sessions, 30)
    await sessions.transaction(lambda session: session.execute(text("CREATE TABLE notes (word TEXT, number INT)")))
    slow = text("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200000) SELECT max(i) FROM n")
    requests = [asyncio.create_task(selects.all(slow, {})) for _ in range(3)]
    await asyncio.wait(requests, timeout=0.01)
    for request in requests:
        request.cancel()
    await asyncio.wait(requests)
    await sessions.execute(text("INSERT INTO notes VALUES ('a', 1)"), {})
    assert await selects.all(text("SELECT word FROM notes"), {}) == [("a",)]
    assert await notes(engine) == ["a"]
    await engine.dispose()


words = Table("words", MetaData(), Column("word", String(9), primary_key=True), Column("meaning", JSON))


@pytest.fixture(params=[*DATABASES, "asyncpg-async"])
async def factory(request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    """Yield a factory of sessions for each kind of database, with a table of words."""
    async with sessions_of(request, request.param) as made:

        def fill(session: Session) -> None:
            words.drop(session.connection(), checkfirst=True)
            words.create(session.connection())
            session.execute(insert(words), [{"word": word, "meaning": [word.upper()]} for word in "abc"])

        await Sessions(made).transaction(fill)
        yield made


def engine_of(factory: Any) -> Engine:
    """Return the sync engine that a factory is bound to."""
    bind = factory.kw["bind"]
    return bind.sync_engine if isinstance(bind, AsyncEngine) else bind


async def test_look_ups_at_the_same_time_share_a_select(factory: Any) -> None:
    """A hundred look-ups at the same time are two SELECTs at most, on one connection, and each gets its own row."""
    select = SharedSelect(Sessions(factory), list(words.c))
    sent: list[str] = []
    event.listen(Engine, "before_cursor_execute", count := lambda *about: sent.append(about[2]))
    await select.rows("a")
    sent.clear()
    try:
        found = await asyncio.gather(*(select.rows(word, "none") for word in "abc" * 33))
    finally:
        event.remove(Engine, "before_cursor_execute", count)
    assert [row and tuple(row) for row, _ in found] == [(word, [word.upper()]) for word in "abc" * 33]
    assert {missing for _, missing in found} == {None}
    assert len([statement for statement in sent if statement.startswith("SELECT")]) <= 2
    pool: Any = engine_of(factory).pool
    assert pool.checkedout() == 0
    assert pool.checkedin() <= 1


@pytest.mark.parametrize("more", [0, 1, 9, 10, 99])
async def test_look_ups_of_many_keys(factory: Any, more: int) -> None:
    """A look-up of any number of keys returns their rows in order, and nothing for no key."""
    select = SharedSelect(Sessions(factory), list(words.c))
    found = await select.rows("b", *(f"none-{number}" for number in range(more)))
    assert [row and tuple(row) for row in found] == [("b", ["B"]), *[None] * more]
    assert await select.rows() == []


@pytest.mark.parametrize("more", [0, 1, 98])
async def test_decoys(factory: Any, more: int) -> None:
    """A key without a row gets the decoy, alone and among others; where a row has NULL it stays NULL."""
    sessions = Sessions(factory)
    nothing = {"word": "d", "meaning": null()}
    await sessions.transaction(lambda session: session.execute(insert(words), nothing))
    select = SharedSelect(sessions, list(words.c), decoy=[literal(["decoy"], JSON)])
    found = await select.rows("none", *("abd"[: 3 * bool(more)]), *(f"none-{number}" for number in range(more - 2)))
    rows = [row and tuple(row) for row in found]
    assert rows[0] == ("none", ["decoy"])
    assert rows[1:4] == ([("a", ["A"]), ("b", ["B"]), ("d", None)] if more else [])
    assert rows[4:] == [(f"none-{number}", ["decoy"]) for number in range(more - 2)]
    assert [tuple(row) for row in await select.rows("d") if row] == [("d", None)]


@pytest.mark.parametrize("decoy", [[], [literal(["decoy"], JSON)]])
async def test_postgresql_keeps_the_plan(postgres_url: URL, decoy: list[ColumnElement[Any]]) -> None:
    """PostgreSQL plans a SELECT of several keys, however many they are, some times and then no more."""
    # As with more rows than these.
    settings = {"server_settings": {"enable_seqscan": "off"}}
    url = postgres_url.set(drivername="postgresql+asyncpg")
    engine = create_async_engine(url, pool_size=1, max_overflow=0, connect_args=settings)
    async with engine.begin() as connection:
        await connection.run_sync(words.create, checkfirst=True)
    select = SharedSelect(Sessions(async_sessionmaker(engine)), list(words.c), decoy=decoy)
    for number in range(40):
        await select.rows(*"abcdefghi"[: 2 + number % 8])
    plans = text("SELECT custom_plans, generic_plans FROM pg_prepared_statements")
    async with engine.begin() as connection:
        # Those of the SELECT, beside statements of SQLAlchemy.
        assert (5, 35) in (await connection.execute(plans)).all()
        await connection.run_sync(words.drop)
    await engine.dispose()


async def test_a_key_that_the_database_rejects_fails_alone(factory: Any) -> None:
    """A key that a database cannot even compare is a 503, or not there, and the others of the batch are found."""
    select = SharedSelect(Sessions(factory), list(words.c))
    found = await asyncio.gather(*(select.rows(word) for word in ("a", "b\x00", "c")), return_exceptions=True)
    assert [row and tuple(row) for row in (found[0][0], found[2][0])] == [("a", ["A"]), ("c", ["C"])]  # type: ignore[index]
    if engine_of(factory).dialect.name == "postgresql":
        assert isinstance(found[1], ServiceUnavailable)
    else:
        assert found[1] == [None]


async def test_a_row_that_cannot_be_read_fails_alone(tmp_path: Path) -> None:
    """A row with a value that is not JSON is a 503 for its own look-up; the others of the batch are found."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'words.db'}")
    sessions = Sessions(async_sessionmaker(engine))

    def fill(session: Session) -> None:
        words.create(session.connection())
        session.execute(text("""INSERT INTO words VALUES ('a', '["A"]'), ('bad', '[not'), ('c', '["C"]')"""))

    await sessions.transaction(fill)
    select = SharedSelect(sessions, list(words.c))
    found = await asyncio.gather(*(select.rows(word) for word in ("a", "bad", "c")), return_exceptions=True)
    assert isinstance(found[1], ServiceUnavailable)
    assert [found[0], found[2]] == [[("a", ["A"])], [("c", ["C"])]]
    with pytest.raises(ServiceUnavailable):
        await select.rows("bad")
    await engine.dispose()


async def test_a_database_that_is_unavailable_fails_every_look_up(tmp_path: Path) -> None:
    """Without a table each of the look-ups is a 503 of its own."""
    engine = create_engine(f"sqlite:///{tmp_path / 'empty.db'}")
    select = SharedSelect(Sessions(sessionmaker(engine)), list(words.c))
    found = await asyncio.gather(*(select.rows(word) for word in "abc"), return_exceptions=True)
    assert [getattr(failure, "reason", None) for failure in found] == ["database_unreachable"] * 3
    engine.dispose()


async def test_a_factory_without_an_engine(tmp_path: Path) -> None:
    """A factory that is bound to a connection, or by mapper, is read through its sessions."""
    engine = create_engine(f"sqlite:///{tmp_path / 'words.db'}", connect_args={"check_same_thread": False})
    with engine.connect() as connection:
        words.create(connection)
        connection.execute(insert(words), [{"word": "a", "meaning": []}])
        select = SharedSelect(Sessions(sessionmaker(connection)), list(words.c))
        assert await select.rows("a", "b") == [("a", []), None]
    engine.dispose()


async def test_in_memory_through_an_async_engine() -> None:
    """A database in memory is read through the engine that has it, and a cancelled request leaves no lock."""
    engine = create_async_engine("sqlite+aiosqlite://", poolclass=StaticPool)
    sessions = Sessions(async_sessionmaker(engine))
    await sessions.transaction(lambda session: words.create(session.connection()))
    await sessions.transaction(lambda session: session.execute(insert(words), [{"word": "a", "meaning": 1}]))
    select = SharedSelect(sessions, list(words.c))
    before = asyncio.all_tasks()
    request = asyncio.create_task(select.rows("a"))
    await asyncio.sleep(0)
    request.cancel()
    await asyncio.wait([request])
    assert await select.rows("a") == [("a", 1)]
    await asyncio.gather(*(asyncio.all_tasks() - before))
    await engine.dispose()


async def test_the_engine_beside_an_async_one(tmp_path: Path) -> None:
    """A file is read by a sync engine that cannot write, which is closed and opened together with the async one."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'words.db'}")
    sessions = Sessions(async_sessionmaker(engine))
    selects = Selects(sessions)
    await sessions.transaction(lambda session: words.create(session.connection()))
    found = await asyncio.gather(*(selects.all(text("SELECT count(*) FROM words"), {}) for _ in range(3)))
    assert found == [[(0,)]] * 3
    with pytest.raises(ServiceUnavailable):
        await selects.all(text("INSERT INTO words VALUES ('a', 'null') RETURNING word"), {})
    beside: Any = selects._reader._beside
    assert beside.engine.pool.checkedin() == 1
    await engine.dispose()
    assert beside.engine.pool.checkedin() == 0
    assert await selects.all(text("SELECT count(*) FROM words"), {}) == [(0,)]
    await engine.dispose()


async def test_another_engine_in_the_same_factory(tmp_path: Path) -> None:
    """A factory that is bound to another file later is read from that file."""
    engines = [create_async_engine(f"sqlite+aiosqlite:///{tmp_path / name}") for name in ("one.db", "two.db")]
    factory = async_sessionmaker(engines[0])
    selects, sessions = Selects(Sessions(factory)), Sessions(factory)
    for engine in engines:
        factory.configure(bind=engine)
        create = text(f"CREATE TABLE {Path(str(engine.url.database)).stem} (a INT)")
        await sessions.transaction(lambda session, create=create: session.execute(create))  # type: ignore[misc]
        [(name,)] = await selects.all(text("SELECT name FROM sqlite_master"), {})
        assert f"{name}.db" == Path(str(engine.url.database)).name
    for engine in engines:
        await engine.dispose()


async def test_a_sync_database_that_hangs(tmp_path: Path) -> None:
    """Look-ups through a driver that hangs are 503s in time; no second thread is started, and then it goes on."""
    engine = create_engine(f"sqlite:///{tmp_path / 'words.db'}")
    may_end, threads = threading.Event(), set[int]()

    @event.listens_for(engine, "before_cursor_execute")
    def hang(*_: object) -> None:
        threads.add(threading.get_ident())
        may_end.wait()

    select = SharedSelect(Sessions(sessionmaker(engine)), list(words.c), timeout_seconds=0.05)
    for _ in range(3):
        with pytest.raises(ServiceUnavailable) as refused:
            await select.rows("a")
        assert refused.value.reason == "timeout"
    assert len(threads) == 1
    may_end.set()
    words.create(engine)
    while True:
        try:
            assert await select.rows("a") == [None]
        except ServiceUnavailable:  # pragma: no cover - the thread may still be at the look-ups from before
            continue
        break
    engine.dispose()


async def test_reading_while_another_process_writes(tmp_path: Path) -> None:
    """In WAL, a look-up does not wait for an application that has locked the database to write."""
    file = tmp_path / "words.db"
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("PRAGMA journal_mode = WAL")
        other.execute("CREATE TABLE words (word TEXT PRIMARY KEY, meaning TEXT)")
        other.execute("INSERT INTO words VALUES ('a', 'null')")
        other.execute("BEGIN EXCLUSIVE")
        other.execute("DELETE FROM words")
        engine = create_async_engine(f"sqlite+aiosqlite:///{file}")
        select = SharedSelect(Sessions(async_sessionmaker(engine)), list(words.c))
        assert await select.rows("a") == [("a", None)]
        other.execute("COMMIT")
        assert await select.rows("a") == [None]
    await engine.dispose()
