"""What every test shares."""

import pytest


@pytest.fixture
def anyio_backend() -> str:
    """Run asynchronous tests on asyncio, the loop of every ASGI server that FastAPI names."""
    return "asyncio"
