"""One application in a process of its own, served as in production: uvicorn with uvloop and httptools, one worker."""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import uvicorn

from .applications import Surroundings, create
from .wrk import Request

PIN = "--core"


@dataclass(frozen=True, kw_only=True, slots=True)
class Served:
    """An application that is served.

    Attributes:
        url: Where.
        request: What it is loaded with.
        pid: The process.
    """

    url: str
    request: Request
    pid: int


@contextmanager
def served(name: str, *, postgres: str, core: int | None = None) -> Iterator[Served]:
    """Serve an application on a free port while the block runs.

    Args:
        name: See `applications.create`.
        postgres: A database.
        core: The one that it runs on; `None`: any.

    Raises:
        RuntimeError: It does not start.
    """
    command = [sys.executable, "-m", __name__, name, "--postgres", postgres]
    command += [] if core is None else [PIN, str(core)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603 - ours
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        if not line:
            msg = f"{name} does not start"
            raise RuntimeError(msg)
        said = json.loads(line)
        credential = said["credential"] or _logged_in(said["url"], said["login"])
        yield Served(url=said["url"], request=Request(path=said["path"], credential=credential), pid=process.pid)
    finally:
        process.terminate()
        process.communicate()


def _logged_in(url: str, login: dict[str, str] | None) -> str:
    if login is None:
        return ""
    answer = httpx2.post(f"{url}/token", data=login)
    return f"Bearer {answer.raise_for_status().json()['access_token']}"


def main() -> None:
    """Serve, and say where and with what."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("--postgres", required=True)
    parser.add_argument(PIN, type=int)
    options = parser.parse_args()
    if options.core is not None:
        os.sched_setaffinity(0, {options.core})
    with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0), backlog=128) as listening:
        around = Surroundings(postgres=options.postgres, folder=Path(folder))
        created = create(options.name, around)
        said = {
            "url": f"http://127.0.0.1:{listening.getsockname()[1]}",
            "path": created.path,
            "credential": created.credential,
            "login": created.login,
        }
        print(json.dumps(said), flush=True)
        config = uvicorn.Config(created.app, loop="uvloop", http="httptools", access_log=False, log_level="warning")
        uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main()
