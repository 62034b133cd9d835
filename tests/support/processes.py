"""Run functions of the tests in other processes, forked from one that has imported the package and its libraries."""

import multiprocessing
import os
from collections.abc import Callable
from typing import Any

# Imported once, in the process that is forked: a process that imports them itself takes seconds of a core.
_PRELOADED = [
    "aiosqlite",
    "asyncpg",
    "fastapi_guard.api_key.database",
    "fastapi_guard.cli.app",
    "fastapi_guard.issuers",
    "fastapi_guard.jwt.key_file",
    "fastapi_guard.jwt.remote",
    "fastapi_guard.login.enrolled",
    "fastapi_guard.login.enrolment",
    "fastapi_guard.login.mailed_secrets",
    "fastapi_guard.login.passkeys",
    "fastapi_guard.login.passwords",
    "fastapi_guard.login.recovery",
    "fastapi_guard.login.refresh",
    "fastapi_guard.login.totp",
    "fastapi_guard.stores.redis",
    "fastapi_guard.stores.sqlalchemy",
    "psycopg",
    "redis.asyncio",
    "sqlalchemy.ext.asyncio",
    "uvicorn",
    "websockets",
]
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(_PRELOADED)


class OtherProcess:
    """A process that runs ``target(connection, *arguments)``, and what goes to it and comes from it."""

    def __init__(self, target: Callable[..., None], *arguments: object) -> None:
        """Start it. ``target`` is a function of a module that can be imported by its name."""
        self._connection, theirs = _FORKS.Pipe()
        self._process = _FORKS.Process(target=target, args=(theirs, *arguments), daemon=True)
        self._process.start()
        theirs.close()

    def send(self, value: object) -> None:
        """Send an object to it."""
        self._connection.send(value)

    def receive(self) -> Any:
        """Return the next object that it sends."""
        return self._connection.recv()

    def is_running(self) -> bool:
        """Return whether it has not ended."""
        return self._process.is_alive()

    def kill(self, number: int) -> None:
        """Send a signal to it."""
        assert self._process.pid is not None
        os.kill(self._process.pid, number)

    def wait(self) -> int | None:
        """Return its exit status when it has ended: 0, or the negative number of the signal that killed it."""
        self._connection.close()
        self._process.join()
        status = self._process.exitcode
        self._process.close()
        return status
