"""The audit trail: append-only, complete, and never silent about a loss."""

import logging
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from fastapi_guard import ConfigurationError
from fastapi_guard.events import AuditTrail, Event, read_trail


def event(number: int) -> Event:
    """Return an event that its subject identifies."""
    return Event("authenticated", "jwt", subject=str(number))


def subjects(path: Path) -> list[str]:
    """Return the subjects in a trail."""
    return [entry["subject"] for entry in read_trail(path)]


def test_events_are_appended(tmp_path: Path) -> None:
    """A line is there as soon as the event was published, what was there before stays, and the mode is 0640."""
    path = tmp_path / "audit.jsonl"
    path.write_text('{"subject": "before"}\n')
    trail = AuditTrail(path)
    trail(event(1))
    assert subjects(path) == ["before", "1"]
    trail(event(2))
    trail.close()
    trail.close()
    trail(event(3))
    assert (subjects(path), trail.lost) == (["before", "1", "2", "3"], 0)
    trail.close()
    fresh = AuditTrail(tmp_path / "new.jsonl")
    fresh(event(1))
    fresh.close()
    assert (tmp_path / "new.jsonl").stat().st_mode & 0o137 == 0


def test_threads_and_a_fork(tmp_path: Path) -> None:
    """Threads and a forked process write whole lines to one file."""
    trail = AuditTrail(tmp_path / "audit.jsonl")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(trail, map(event, range(200))))

    trail._after_fork()  # as in a child, where another thread may have held the lock
    script = (
        "import os, sys\n"
        "from fastapi_guard.events import AuditTrail, Event\n"
        "trail = AuditTrail(sys.argv[1])\n"
        "trail(Event('authenticated', 'jwt', subject='200'))\n"
        "child = os.fork()\n"
        "for number in range(201, 251) if child else range(251, 301):\n"
        "    trail(Event('authenticated', 'jwt', subject=str(number)))\n"
        "if not child: os._exit(0)\n"
        "assert os.waitpid(child, 0)[1] == 0\n"
    )
    subprocess.run([sys.executable, "-c", script, str(trail.path)], check=True)  # noqa: S603 - our own
    trail(event(301))
    trail.close()
    assert sorted(map(int, subjects(trail.path))) == list(range(302))


def test_a_file_that_is_moved(tmp_path: Path) -> None:
    """After logrotate has moved or replaced the file, events go to a new one."""
    trail = AuditTrail(tmp_path / "audit.jsonl")
    trail(event(1))
    trail.path.rename(tmp_path / "audit.jsonl.1")
    trail(event(2))
    trail.path.unlink()
    trail.path.touch()
    trail(event(3))
    trail.close()
    assert (subjects(tmp_path / "audit.jsonl.1"), subjects(trail.path)) == (["1"], ["3"])


def test_a_loss_is_counted_and_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Events that cannot be written are counted; the first is logged at once, their number when writing succeeds."""
    folder = tmp_path / "missing"
    trail = AuditTrail(folder / "audit.jsonl")
    trail(event(1))
    trail(event(2))
    assert trail.lost == 2
    folder.mkdir()
    trail(event(3))
    trail(event(4))
    trail.close()
    assert subjects(trail.path) == ["3", "4"]
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (
            logging.ERROR,
            f"an event is lost, since the audit trail {trail.path} cannot be written: No such file or directory",
        ),
        (logging.ERROR, f"the audit trail {trail.path} is written again; 2 events were lost"),
    ]


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Let files grow to so many bytes, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


def test_a_line_that_is_torn(tmp_path: Path) -> None:
    """A line of which the disk took a part is a loss, and the next line is whole again."""
    trail = AuditTrail(tmp_path / "audit.jsonl")
    trail(event(1))
    with files_of_at_most(trail.path.stat().st_size + 10):
        trail(event(2))
        trail(event(3))
    assert trail.lost == 2
    trail(event(4))
    trail.close()
    assert subjects(trail.path) == ["1", "4"]
    assert os.fspath(trail.path).endswith("audit.jsonl")


def test_a_directory(tmp_path: Path) -> None:
    """A directory in the place of the file is an error at once, and not a trail whose events are lost."""
    with pytest.raises(ConfigurationError, match="is a directory"):
        AuditTrail(tmp_path)
