"""One of several processes that rotate the keys of one file."""

from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path

from fastapi_guard.jwt.key_file import KeyFile


def main(connection: Connection, path: Path) -> None:
    """Rotate five times when it is sent a word."""
    connection.recv()
    for _ in range(5):
        KeyFile(path).rotate(keep=timedelta(hours=1))
