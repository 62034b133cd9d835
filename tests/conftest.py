"""Fixtures of all tests, and the profiles of hypothesis."""

from collections.abc import AsyncIterator

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.strategies import text

import fastapi_guard.issuers.auth0  # noqa: F401 - quietly, before a test imports the library that warns
from fastapi_guard.stores import Store
from support.clock import Clock
from support.postgres import postgres_server, postgres_url, stoppable_postgres
from support.redis import cluster_ports, redis_url
from support.stores import STORES, open_store

__all__ = ["anyio_backend", "cluster_ports", "postgres_server", "postgres_url", "redis_url", "stoppable_postgres"]

# Nothing measures time, so that a busy machine fails no test. `quick` is for each change, `full` for a last check.
settings.register_profile("full", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("quick", settings.get_profile("full"), max_examples=25, derandomize=True, database=None)
settings.load_profile("full")


def pytest_testnodeready() -> None:
    """Make hypothesis' table of characters while the processes collect; each of them would make one for itself."""
    text().validate()


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
    async with open_store(request, clock) as opened:
        yield opened
