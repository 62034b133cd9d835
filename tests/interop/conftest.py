"""An authorization server and the applications under test, each a process of its own."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from interop.running import Serve, running


@pytest.fixture(scope="session")
def provider() -> Iterator[str]:
    """Run oidc-provider; its issuer."""
    with running("node", "provider.mjs") as issuer:
        yield issuer


@pytest.fixture(scope="session")
def sign_in_provider() -> Iterator[str]:
    """Run oidc-provider for users to sign in with; its issuer."""
    with running("node", "sign_in_provider.mjs") as issuer:
        yield issuer


@pytest.fixture(scope="session")
def serve(provider: str) -> Iterator[Serve]:
    """Return what serves a page's block, or a module beside this file, for the tokens of the provider, once each."""
    with _serving(provider) as start:
        yield start


@pytest.fixture(scope="session")
def serve_sign_in(sign_in_provider: str) -> Iterator[Serve]:
    """Return what serves a module whose users sign in with the provider."""
    with _serving(sign_in_provider) as start:
        yield start


@pytest.fixture(scope="session")
def mock_provider() -> Iterator[str]:
    """Run oidc-provider-mock; its issuer."""
    with running(sys.executable, "mock_provider.py") as issuer:
        yield issuer


@contextmanager
def _serving(issuer: str) -> Iterator[Serve]:
    served: dict[tuple[str, int], str] = {}
    with ExitStack() as stack:

        def start(source: str, number: int = 0) -> str:
            if (source, number) not in served:
                command = (sys.executable, "serve.py", source, issuer, str(number))
                served[source, number] = stack.enter_context(running(*command))
            return served[source, number]

        yield start


@pytest.fixture
def anyio_backend() -> str:
    """Run on asyncio."""
    return "asyncio"
