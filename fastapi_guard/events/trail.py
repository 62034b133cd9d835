"""AuditTrail: append every event to a file, a JSON object a line, for an audit."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import Any, Final

from fastapi_guard.events.event import Event
from fastapi_guard.events.publishing import count_lost, logger
from fastapi_guard.exceptions import ConfigurationError, shown

_FLAGS: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
# Readable by its owner and a group, such as that of what ships logs.
_MODE: Final = 0o640


class AuditTrail:
    """A file to which events are appended: ``JWTAuth(config, on_event=AuditTrail("audit.jsonl"))``.

    Each event is one line, the JSON of ``Event.as_dict``, written at once by one system call in append mode. It
    survives a crash of the process; a crash of the machine may lose what the system had not written to disk, about 30
    seconds on Linux. Several processes and threads may write one file, also after a fork. Nothing here changes
    or deletes a line. A file that was moved, as by logrotate, is opened again.

    An event that cannot be written fails no request. It is counted in ``lost`` and in the counter
    ``fastapi_guard.events.lost``, and logged: the first at once, and their number when writing succeeds again.

    Attributes:
        path: The file.
        lost: How many events could not be written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Append to ``path``, which is created where it is missing, with mode 0640.

        Raises:
            ConfigurationError: It is not a path, or a directory is there.
        """
        if not isinstance(path, str | os.PathLike) or not str(path):
            msg = f'path is the path of a file, such as "/var/log/app/audit.jsonl", not {shown(path)}'
            raise ConfigurationError(msg)
        self.path: Path = Path(path)
        if self.path.is_dir():
            msg = f"path is the path of a file, and {self.path} is a directory: every event would be lost"
            raise ConfigurationError(msg)
        self.lost: int = 0
        self._lock = Lock()
        self._descriptor: int | None = None
        self._identity: tuple[int, int] | None = None
        self._lost_since = 0
        self._is_torn = False
        os.register_at_fork(after_in_child=self._after_fork)

    def __call__(self, event: Event) -> None:
        """Append an event."""
        line = json.dumps(event.as_dict()).encode() + b"\n"
        with self._lock:
            try:
                self._write(line)
            except OSError as error:
                self._lose(error)
                return
            recovered, self._lost_since = self._lost_since, 0
        if recovered:
            logger.error("the audit trail %s is written again; %d events were lost", self.path, recovered)

    def close(self) -> None:
        """Close the file; another event opens it again."""
        with self._lock:
            descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def _write(self, line: bytes) -> None:
        descriptor = self._opened()
        # A line that was written in part, on a full disk, ends before the next begins.
        whole = b"\n" + line if self._is_torn else line
        written = os.write(descriptor, whole)
        self._is_torn = written < len(whole) and (written > 0 or self._is_torn)
        if written < len(whole):
            raise OSError(None, "the disk is full")

    def _opened(self) -> int:
        identity = self._identity_of_path()
        if self._descriptor is not None and (identity is None or identity != self._identity):
            os.close(self._descriptor)
            self._descriptor = None
        if self._descriptor is None:
            self._descriptor = os.open(self.path, _FLAGS, _MODE)
            self._identity = self._identity_of_path()
        return self._descriptor

    def _identity_of_path(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self.path)  # noqa: PTH116 - once an event
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino

    def _lose(self, error: OSError) -> None:
        self.lost += 1
        self._lost_since += 1
        count_lost(1)
        if self._lost_since == 1:
            logger.error("an event is lost, since the audit trail %s cannot be written: %s", self.path, error.strerror)

    def _after_fork(self) -> None:
        self._lock = Lock()


def read_trail(path: str | os.PathLike[str]) -> list[Mapping[str, Any]]:
    """Return the events of an audit trail, oldest first; a line that is not JSON, torn by a full disk, is left out."""
    events: list[Mapping[str, Any]] = []
    for line in Path(path).read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            events.append(json.loads(line))
        except ValueError:
            continue
    return events
