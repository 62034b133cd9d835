"""An authorization server and the applications under test, each a process of its own."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from interop.running import Serve, running


@pytest.fixture(scope="session")
def provider() -> Iterator[str]:
    """Run oidc-provider; its issuer."""
    with running("node", "provider.mjs") as issuer:
        yield issuer


@pytest.fixture(scope="session")
def serve(provider: str) -> Iterator[Serve]:
    """Return what serves a page's block, or a module beside this file, for the tokens of the provider, once each."""
    served: dict[tuple[str, int], str] = {}
    with ExitStack() as stack:

        def start(source: str, number: int = 0) -> str:
            if (source, number) not in served:
                command = (sys.executable, "serve.py", source, provider, str(number))
                served[source, number] = stack.enter_context(running(*command))
            return served[source, number]

        yield start


@pytest.fixture
def anyio_backend() -> str:
    """Run on asyncio."""
    return "asyncio"
