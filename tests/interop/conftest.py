"""Foreign programs on loopback: an authorization server, MCP servers and clients, each a process of its own."""

import asyncio
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
Serve = Callable[..., str]


@contextmanager
def running(*command: str) -> Iterator[str]:
    """Run a server, and yield the address that it prints when it listens."""
    server = subprocess.Popen(command, cwd=HERE, stdout=subprocess.PIPE, text=True)  # noqa: S603 - ours
    assert server.stdout is not None
    try:
        printed = ""
        while not (found := re.search(r"^Serving at (http://127\.0\.0\.1:\d+)$", printed, flags=re.MULTILINE)):
            line = server.stdout.readline()
            if not line:
                pytest.fail(f"{' '.join(command)} ended:\n{printed}")
            printed += line
        yield found[1]
    finally:
        server.terminate()
        server.communicate(timeout=60)


@pytest.fixture(scope="session")
def provider() -> Iterator[str]:
    """Run oidc-provider; its issuer."""
    with running("node", "provider.mjs") as issuer:
        yield issuer


@pytest.fixture(scope="session")
def serve(provider: str) -> Iterator[Serve]:
    """Return what serves a page's block, or a module beside this file, for the tokens of the provider, once each."""
    served: dict[tuple[str, str], str] = {}
    with ExitStack() as stack:

        def start(source: str, number: int = 0) -> str:
            key = (source, str(number))
            if key not in served:
                command = (sys.executable, "serve.py", source, provider, str(number))
                served[key] = stack.enter_context(running(*command))
            return served[key]

        yield start


def node(script: str, *arguments: str) -> str:
    """Return what a program for Node.js prints; it fails the test where it fails."""
    command = ["node", script, *arguments]
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, timeout=60, check=False)  # noqa: S603
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def anyio_backend() -> str:
    """Run on asyncio."""
    return "asyncio"


__all__ = ["asyncio"]
