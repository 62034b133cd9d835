"""A database with empty tables, and an application whose callers come with signed tokens."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import make_url

from api_key.databases import Database
from fastapi_guard import JWTAuth
from routers.api_keys.calling import CONFIG, Service


@pytest.fixture
async def database(tmp_path: Path, anyio_backend: str) -> AsyncIterator[Database]:
    """Yield a database with empty tables."""
    database = Database.of(make_url(f"sqlite:///{tmp_path / 'keys.db'}"))
    await database.create_tables()
    yield database
    await database.dispose()


@pytest.fixture
def service(database: Database) -> Service:
    """Return an application whose callers come with signed tokens."""
    return Service(database.auth(), JWTAuth(CONFIG))
