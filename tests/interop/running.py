"""Run foreign programs: servers on loopback, each a process of its own, and clients that print what they did."""

import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


def node(script: str, *arguments: str) -> str:
    """Return what a program for Node.js prints; it fails the test where it fails."""
    command = ["node", script, *arguments]
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, timeout=60, check=False)  # noqa: S603
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
