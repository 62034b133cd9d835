"""PostgreSQL through PgBouncer in transaction mode, with the settings that the page on stores shows."""

import asyncio
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.pool import NullPool

from fastapi_guard.stores import Record
from fastapi_guard.stores.sqlalchemy import SQLAlchemyStore
from support.pgbouncer import running_pgbouncer

SETTINGS: dict[str, dict[str, Any]] = {
    "asyncpg": {
        "statement_cache_size": 0,
        "prepared_statement_cache_size": 0,
        "prepared_statement_name_func": lambda: f"__asyncpg_{uuid4()}__",
    },
    "psycopg": {"prepare_threshold": None},
}


@pytest.mark.parametrize("driver", SETTINGS)
async def test_through_pgbouncer(postgres_url: URL, driver: str) -> None:
    """Six stores at the same time get their own records over two connections of the server."""
    with running_pgbouncer(postgres_url) as url:
        engine = create_async_engine(
            url.set(drivername=f"postgresql+{driver}"), connect_args=SETTINGS[driver], poolclass=NullPool
        )
        stores = [SQLAlchemyStore(async_sessionmaker(engine), prefix=f"{driver}:") for _ in range(6)]
        await stores[0].create_table()
        records = [Record(f"k{number}", b"1", "ada") for number in range(20)]
        for record in records:
            assert await stores[0].add(record)

        async def use(store: SQLAlchemyStore) -> None:
            for _ in range(5):
                found = await asyncio.gather(*(store.get(record.key) for record in records))
                assert [record for [record] in found] == records
                assert len(await store.find("ada")) == len(records)

        await asyncio.gather(*(use(store) for store in stores))
        await engine.dispose()
