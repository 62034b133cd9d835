"""Run a real PgBouncer in transaction mode: Debian's, on PATH."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import URL

from support.redis import free_port

_CONFIGURATION = """[databases]
{database} = host={host} dbname={database} user={user}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 2
ignore_startup_parameters = extra_float_digits
"""


@contextmanager
def running_pgbouncer(url: URL) -> Iterator[URL]:
    """Yield a URL that reaches the database at `url`, on a Unix socket, over at most two of its connections."""
    host, port = str(url.query["host"]), free_port()
    # It does not run as root, and the socket is readable for its owner alone.
    is_root = os.getuid() == 0
    user = ["-u", pwd.getpwuid(Path(host).stat().st_uid).pw_name] if is_root else []
    program = shutil.which("pgbouncer") or "/usr/sbin/pgbouncer"
    assert Path(program).exists(), "install pgbouncer: apt-get install pgbouncer"
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        file = Path(folder, "pgbouncer.ini")
        text = _CONFIGURATION.format(database=url.database, host=host, user=url.username, port=port)
        file.write_text(text, encoding="utf-8")
        bouncer = subprocess.Popen([program, "-q", *user, str(file)], stderr=subprocess.DEVNULL)  # noqa: S603 - ours
        try:
            _wait_until_it_listens(port)
            yield URL.create("postgresql", username=url.username, host="127.0.0.1", port=port, database=url.database)
        finally:
            bouncer.terminate()
            bouncer.wait()


def _wait_until_it_listens(port: int) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            assert time.monotonic() < deadline, "PgBouncer does not listen after a minute"
            time.sleep(0.02)
        else:
            return
