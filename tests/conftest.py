"""What every test shares."""

from collections.abc import AsyncIterator, Iterator

import pytest

from fastapi_guard.stores import Store
from moving import Clock
from servers.postgres import running_postgres
from servers.redis import running_redis
from servers.stores import STORES, opened


@pytest.fixture
def anyio_backend() -> str:
    """Run asynchronous tests on asyncio, the loop of every ASGI server that FastAPI names."""
    return "asyncio"


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """Return the URL of a Redis that runs as long as the tests."""
    with running_redis() as url:
        yield url


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """Return the URL of a PostgreSQL that runs as long as the tests, as libpq has it."""
    with running_postgres() as url:
        yield url


@pytest.fixture
def clock() -> Clock:
    """Return a clock that only a test moves."""
    return Clock()


@pytest.fixture(params=STORES)
async def store(request: pytest.FixtureRequest, clock: Clock) -> AsyncIterator[Store]:
    """Return an empty store of each kind, that lives by `clock`."""
    async with opened(request, clock) as each:
        yield each
