"""The databases of the contract, each with empty tables."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import make_url

from api_key.databases import DRIVERS, Database


@pytest.fixture(params=DRIVERS)
async def database(request: pytest.FixtureRequest, tmp_path: Path, anyio_backend: str) -> AsyncIterator[Database]:
    """Yield each database of the contract in turn."""
    driver = DRIVERS[request.param]
    if driver.startswith("sqlite"):
        url = make_url(f"{driver}:///{tmp_path / 'keys.db'}")
    else:
        url = request.getfixturevalue("postgres_url").set(drivername=driver)
    database = Database.of(url)
    await database.create_tables()
    yield database
    await database.dispose()


@pytest.fixture
async def sqlite(tmp_path: Path, anyio_backend: str) -> AsyncIterator[Database]:
    """Yield the embedded default alone, for what does not depend on the database."""
    database = Database.of(make_url(f"sqlite:///{tmp_path / 'keys.db'}"))
    await database.create_tables()
    yield database
    await database.dispose()
