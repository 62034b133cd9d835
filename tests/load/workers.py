"""The workers of gunicorn: started, replaced one after the other, and their memory."""

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGHUP, SIGKILL, SIGTERM, Signals

import httpx2

from support.redis import free_port

WORKERS = 2
# For a machine that is busy: when all answer, and when one has answered what it held and its successor answers.
START_SECONDS, REPLACED_SECONDS = 240, 60


@dataclass
class Lifetime:
    """A worker from its first look to its last.

    Attributes:
        pid: Its process.
        began: Seconds since the epoch.
        ended: Likewise; `None` while it runs.
        memory: At about each second: the seconds since it began, the bytes that it shares with no process, and those
            that are in RAM at all.
    """

    pid: int
    began: float
    ended: float | None = None
    memory: list[tuple[float, int, int]] = field(default_factory=list)


@dataclass
class Restart:
    """Workers that were told to end, by a kind of signal.

    Attributes:
        kind: The signal: `SIGHUP` of all, or one of one.
        pids: The workers.
        begin: Seconds since the epoch.
        end: When the last of them had ended and as many others had begun.
    """

    kind: str
    pids: tuple[int, ...]
    begin: float
    end: float = float("inf")

    def covers(self, moment: float) -> bool:
        """Return whether a connection may break at this moment."""
        return self.begin <= moment <= min(self.end + 1, self.begin + REPLACED_SECONDS)


class Workers:
    """An application behind gunicorn --preload, on a port of its own."""

    def __init__(self, application: str, environment: Mapping[str, str], errors: Path, *, core: int | None) -> None:
        """Serve nothing yet.

        Args:
            application: As gunicorn names it.
            environment: Further variables.
            errors: Where the standard error goes.
            core: The one that they run on; `None`: any.
        """
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.lifetimes: list[Lifetime] = []
        self.restarts: list[Restart] = []
        self._errors, self._core = errors, core
        self._environment = {**os.environ, **environment, "HOME": str(errors.parent)}  # where gunicorn has a socket
        self._command = [sys.executable, "-m", "gunicorn", application, "--preload", "--workers", str(WORKERS)]
        self._command += ["--worker-class", "uvicorn_worker.UvicornWorker", "--bind", f"127.0.0.1:{port}"]
        self._command += ["--forwarded-allow-ips", "", "--log-level", "warning"]
        self._master: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start them, and wait until all of them run."""
        with self._errors.open("ab") as stderr:
            self._master = subprocess.Popen(self._command, stderr=stderr, env=self._environment)  # noqa: S603 - ours
        if self._core is not None:
            os.sched_setaffinity(self._master.pid, {self._core})
        deadline = time.monotonic() + START_SECONDS
        while not self._answers() or len(self._pids()) < WORKERS:
            if time.monotonic() > deadline or self._master.poll() is not None:
                raise SystemExit(f"gunicorn does not start:\n{self._errors.read_text(encoding='utf-8')}")
            time.sleep(0.1)
        self.look()

    def stop(self) -> None:
        """End them as an operator does, and wait."""
        if self._master is not None:
            self._master.terminate()
            self._master.wait()
            self._master = None
        self._close(set())

    def reload(self) -> None:
        """Have gunicorn replace all of them."""
        assert self._master is not None
        self._restart("SIGHUP", tuple(self._pids()))
        self._master.send_signal(SIGHUP)

    def replace(self) -> None:
        """End the one that has run the longest; gunicorn starts another."""
        self._end_oldest(SIGTERM)

    def kill(self) -> None:
        """End that one at once, as a crash does."""
        self._end_oldest(SIGKILL)

    def may_break(self, moment: float) -> bool:
        """Return whether a connection may break at this moment, with the worker that it was to."""
        return any(restart.covers(moment) for restart in self.restarts)

    def look(self) -> None:
        """Note which of them run, and their memory."""
        now, pids = time.time(), set(self._pids())
        self._close(pids)
        known = {lifetime.pid for lifetime in self._running()}
        self.lifetimes += [Lifetime(pid, now) for pid in sorted(pids - known)]
        for restart in self.restarts:
            if restart.end == float("inf") and not pids.intersection(restart.pids) and len(pids) == WORKERS:
                restart.end = now
        for lifetime in self._running():
            own, resident = _memory(lifetime.pid)
            if own:
                lifetime.memory.append((now - lifetime.began, own, resident))

    def _end_oldest(self, number: Signals) -> None:
        oldest = min(self._running(), key=lambda lifetime: lifetime.began)
        self._restart(number.name, (oldest.pid,))
        os.kill(oldest.pid, number)

    def _restart(self, kind: str, pids: tuple[int, ...]) -> None:
        self.restarts.append(Restart(kind, pids, time.time()))

    def _running(self) -> list[Lifetime]:
        return [lifetime for lifetime in self.lifetimes if lifetime.ended is None]

    def _close(self, pids: set[int]) -> None:
        for lifetime in self._running():
            if lifetime.pid not in pids:
                lifetime.ended = time.time()

    def _pids(self) -> list[int]:
        assert self._master is not None
        children = Path(f"/proc/{self._master.pid}/task/{self._master.pid}/children")
        return [int(pid) for pid in children.read_text(encoding="ascii").split()]

    def _answers(self) -> bool:
        try:
            return httpx2.get(f"{self.url}/health").status_code == 200
        except httpx2.TransportError:
            return False


def _memory(pid: int) -> tuple[int, int]:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()[1:]
    except OSError:  # it has ended
        return 0, 0
    kib = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
    return (kib["Private_Clean"] + kib["Private_Dirty"]) * 1024, kib["Rss"] * 1024
