"""What every test shares."""

import pytest

import fastapi_guard.auth0  # noqa: F401 - quietly, before a test imports the library that warns


@pytest.fixture
def anyio_backend() -> str:
    """Run asynchronous tests on asyncio, the loop of every ASGI server that FastAPI names."""
    return "asyncio"
