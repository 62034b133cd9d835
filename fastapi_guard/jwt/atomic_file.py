"""Change a file in one step, one process at a time."""

import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from fastapi_guard.exceptions import ConfigurationError

# A change takes milliseconds, or as long as an RSA key takes to generate.
_LOCK_SECONDS: Final = 30.0
_LOCK_POLL_SECONDS: Final = 0.02


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Let one process, and one thread of it, change a file at a time; the others wait.

    The lock is on the folder, so that no file is left behind, and the operating system releases it when the process
    ends.

    Raises:
        ConfigurationError: The folder is missing, or another process keeps the lock for too long.
    """
    try:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        msg = f"{path} cannot be written: {error.strerror}"
        raise ConfigurationError(msg) from None
    try:
        _acquire(folder, path)
        yield
    finally:
        os.close(folder)


def _acquire(folder: int, path: Path) -> None:
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                msg = f"{path} has been locked by another process for {_LOCK_SECONDS:g} seconds"
                raise ConfigurationError(msg) from None
            time.sleep(_LOCK_POLL_SECONDS)
        except OSError as error:  # of a file system without locks
            msg = f"{path.parent} cannot be locked: {error.strerror}"
            raise ConfigurationError(msg) from None
        else:
            return


def write(path: Path, value: Mapping[str, Any]) -> None:
    """Write ``value`` as JSON to a new file of mode 0600, and put it in place of ``path`` in one step.

    A reader sees the old file or the new one, also if this process is killed. The caller has the lock.

    Raises:
        ConfigurationError: The file cannot be written.
    """
    new = path.with_name(path.name + ".new")
    try:
        new.unlink(missing_ok=True)  # of a process that was killed
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
            json.dump(value, file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError as error:
        new.unlink(missing_ok=True)
        msg = f"{path} cannot be written: {error.strerror}"
        raise ConfigurationError(msg) from None
