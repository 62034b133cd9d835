"""Servers of the pages: programs, started as their users start them, and the files of Swagger UI."""

import re
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import fastapi_offline
import pytest

# What FastAPI's /docs loads from elsewhere, and the files that answer in its place.
_FILES = Path(fastapi_offline.__file__).parent / "static"
ELSEWHERE = {
    "https://cdn.jsdelivr.net/npm/swagger-ui-dist@5/swagger-ui-bundle.js": _FILES / "swagger-ui-bundle.js",
    "https://cdn.jsdelivr.net/npm/swagger-ui-dist@5/swagger-ui.css": _FILES / "swagger-ui.css",
    "https://fastapi.tiangolo.com/img/favicon.png": _FILES / "favicon.png",
}

Screenshot = Callable[[str], None]


def free_port() -> int:
    """Return a port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as bound:
        port: int = bound.getsockname()[1]
    return port


@contextmanager
def served(command: Sequence[str], folder: Path) -> Iterator[str]:
    """Run a server in `folder`, and give the address that it prints when it answers."""
    server = subprocess.Popen(  # noqa: S603 - ours
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert server.stdout is not None
    printed = ""
    try:
        while not (found := re.search(r"(?:Serving at|running on) (https?://127\.0\.0\.1:\d+)", printed)):
            line = server.stdout.readline()
            if not line:
                pytest.fail(f"{' '.join(command)} ended:\n{printed}")
            printed += line
        yield found[1]
    finally:
        server.terminate()
        server.communicate(timeout=60)
