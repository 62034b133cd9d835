"""Many look-ups at once: of keys that exist, and of keys that a client makes up."""

import asyncio
from typing import Any

from sqlalchemy import URL

from api_key.databases import Database
from fastapi_guard import Unauthorized
from fastapi_guard.api_key.format import KeyFormat
from support.examples import scaled

REQUESTS = 1000
UNKNOWN = scaled(10_000)


async def copies(database: Database, count: int) -> list[str]:
    """Return the texts of so many valid keys, whose rows are added in one statement."""
    keys = database.auth()
    drafts = [keys.draft(user_id=f"user-{number}") for number in range(count)]

    def add(session: Any) -> None:
        for draft in drafts:
            keys._rows.add(session, draft)

    await database.within(add)
    return [draft.new.raw for draft in drafts]


async def test_a_burst_on_a_small_pool(postgres_url: URL) -> None:
    """A thousand requests at once, each with another key, are all accepted, with twenty statements at most."""
    url = postgres_url.set(drivername="postgresql+asyncpg")
    database = Database.of(url, pool_size=5, max_overflow=0, pool_timeout=60)
    await database.create_tables()
    raws = await copies(database, REQUESTS)
    keys = database.auth(timeout=60)
    await keys.verify(raws[0])
    with database.statements() as statements:
        found = await asyncio.gather(*(keys.verify(raw) for raw in raws))
        await keys.aclose()
    assert [claims["sub"] for claims in found] == [f"user-{number}" for number in range(REQUESTS)]
    assert len(statements) <= 20
    pool: Any = database.sync_engine.pool
    assert pool.checkedout() == 0
    assert pool.size() == 5
    await database.dispose()


async def test_keys_that_a_client_makes_up(sqlite: Database) -> None:
    """Thousands of unknown keys are refused with a query for each hundred, and nothing of them is kept.

    Where the checksum is wrong there is no query at all.
    """
    keys = sqlite.auth(timeout=60, cache_ttl=60, fresh_within=60)
    raws = [KeyFormat().generate().raw for _ in range(UNKNOWN)]
    with sqlite.statements() as statements:
        refused = await asyncio.gather(*(keys.verify(raw) for raw in raws), return_exceptions=True)
    assert {failure.reason for failure in refused if isinstance(failure, Unauthorized)} == {"unknown_key"}
    assert len(refused) == UNKNOWN
    assert len(statements) <= UNKNOWN / 100 + 2
    assert keys._cache is not None
    assert (len(keys._cache._keys), len(keys._uses._noted), keys._uses._writes._items) == (0, 0, {})
    assert {len(line.waiting) for line in keys._lookup._select._reads._lines.values()} == {0}
    with sqlite.statements() as statements:
        refused = await asyncio.gather(
            *(keys.verify(raw[:-1] + ("a" if raw[-1] != "a" else "b")) for raw in raws), return_exceptions=True
        )
    assert {failure.reason for failure in refused if isinstance(failure, Unauthorized)} == {"malformed"}
    assert statements == []
