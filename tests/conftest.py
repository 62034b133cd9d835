"""What every test shares."""

import pytest
from servers.postgres import postgres_server, postgres_url, stoppable_postgres

__all__ = ["anyio_backend", "postgres_server", "postgres_url", "stoppable_postgres"]


@pytest.fixture
def anyio_backend() -> str:
    """Run asynchronous tests on asyncio, the loop of every ASGI server that FastAPI names."""
    return "asyncio"
