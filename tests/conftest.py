"""What every test shares."""

from collections.abc import AsyncIterator

import pytest

import fastapi_guard.issuers.auth0  # noqa: F401 - quietly, before a test imports the library that warns
from fastapi_guard.stores import Store
from moving import Clock
from servers.postgres import postgres_server, postgres_url, stoppable_postgres
from servers.redis import redis_url
from servers.stores import STORES, opened

__all__ = ["anyio_backend", "postgres_server", "postgres_url", "redis_url", "stoppable_postgres"]


@pytest.fixture
def anyio_backend() -> str:
    """Run asynchronous tests on asyncio, the loop of every ASGI server that FastAPI names."""
    return "asyncio"


@pytest.fixture
def clock() -> Clock:
    """Return a clock that only a test moves."""
    return Clock()


@pytest.fixture(params=STORES)
async def store(request: pytest.FixtureRequest, clock: Clock) -> AsyncIterator[Store]:
    """Return an empty store of each kind, that lives by `clock`."""
    async with opened(request, clock) as each:
        yield each
