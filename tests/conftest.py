"""What every test shares."""

from collections.abc import AsyncIterator

import pytest

import fastapi_guard.issuers.auth0  # noqa: F401 - quietly, before a test imports the library that warns
from fastapi_guard.stores import Store
from support.clock import Clock
from support.postgres import postgres_server, postgres_url, stoppable_postgres
from support.redis import redis_url
from support.stores import STORES, open_store

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
    async with open_store(request, clock) as each:
        yield each
