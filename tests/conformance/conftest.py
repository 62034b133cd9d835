"""The demo in each of its kinds, served by its command, and the application with every router."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from conformance.calls import Demo
from conformance.everything import TRIES, Everything, served
from fastapi_guard.login.throttle import Throttle

KEY = "sk-demo-0123456789abcdef"
KINDS = {"login": [], "key": ["--api-key", KEY], "database": ["--auth-type", "database"]}


@pytest.fixture(params=KINDS)
def demo(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Demo]:
    """Serve the demo, with its database in a folder of the test."""
    environment = {name: value for name, value in os.environ.items() if name != "FASTAPI_GUARD_DATABASE_URL"}
    command = [sys.executable, "-m", "fastapi_guard", "demo", "--port", "0", *KINDS[request.param]]
    server = subprocess.Popen(  # noqa: S603 - ours
        command, stdout=subprocess.PIPE, text=True, env={**environment, "TMPDIR": str(tmp_path)}
    )
    assert server.stdout is not None
    printed = ""
    try:
        while "-si" not in printed.rpartition("\n")[2] or not printed.endswith("/posts"):
            printed = f"{printed}\n{server.stdout.readline().rstrip()}"
        found = re.search(r"# Serving at (http://\S+),", printed)
        assert found is not None
        key = re.search(r"^TOKEN=(\S+)$", printed, flags=re.MULTILINE)
        with requests.Session() as session:
            yield Demo(request.param, found[1], session, tmp_path, None if key is None else key[1])
    finally:
        server.terminate()
        server.communicate(timeout=60)


@pytest.fixture
def everything(tmp_path: Path) -> Iterator[Everything]:
    """Serve the application with every router."""
    with served(tmp_path, Throttle(f"{TRIES}/hour", name="address")) as opened:
        yield opened
