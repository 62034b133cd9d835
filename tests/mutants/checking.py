"""Run the collected tests in forks of this process: once without a mutant, then for each mutant those that reach it.

No test runs in this process itself, so that each fork begins as the tests were collected, without threads or fixtures.
"""

import itertools
import json
import mmap
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from _pytest.runner import runtestprotocol
from mutmut.mutation import trampoline

from mutants.sources import Mutant

# The statuses of a fork.
SURVIVED, KILLED = 0, 1
# For a mutant that does not leave a loop, waits without end, or fills the memory. The first limit is of the time of the
# processor, so that a busy machine ends no test.
LOOP_SECONDS, WAIT_SECONDS, SLOWER = 5, 100, 10
LIMIT_BYTES = 8 << 30
SERVERS = ("support.postgres", "support.redis", "support.other_process")
TIMEOUTS = (-signal.SIGPROF, -signal.SIGALRM)


class Reached(set[str]):
    """The names of the functions that were called since it was emptied."""

    def record(self, name: str, caller: str | None = None) -> None:
        """Note a call; mutmut's trampoline passes the caller too."""
        self.add(name)


class Checking:
    """A plugin of pytest, which checks mutants in place of running the tests."""

    def __init__(
        self, mutants: list[Mutant], folder: Path, processes: int, report: Callable[[Mutant, str], None]
    ) -> None:
        """Check these mutants, and report of each that it is killed, timeout, survived or not reached."""
        self.mutants, self.folder, self.processes, self.report = mutants, folder, processes, report
        self.reached = Reached()
        # What runs before a mutant is selected: its function at import is always the original.
        self.imported: frozenset[str] = frozenset()
        # The positions of the tests that reach a function, the fastest first; and the seconds of each test.
        self.tests: dict[str, list[int]] = {}
        self.seconds: dict[int, float] = {}
        # The position of the test that failed last for a mutant of a function, which all forks write to: the next one
        # often fails there too.
        self.functions = {name: place for place, name in enumerate({mutant.function for mutant in mutants})}
        self.failed = memoryview(mmap.mmap(-1, 4 * max(len(self.functions), 1))).cast("i")

    @pytest.hookimpl(wrapper=True)
    def pytest_collection(self) -> Iterator[None]:
        """Find out which functions run while the tests are imported."""
        trampoline.record_trampoline_hit = self.reached.record  # type: ignore[assignment]
        trampoline.set_mutant_under_test("stats")
        yield
        self.imported = frozenset(self.reached)

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Leave out the tests with a server, which would be started for every mutant."""
        left_out = [item for item in items if needs_server(item)]
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Check each mutant."""
        if session.testsfailed:
            raise session.Interrupted(f"{session.testsfailed} errors during collection")
        if threading.active_count() > 1:
            raise session.Failed(f"a thread was started by an import: {threading.enumerate()}")
        # Otherwise each fork would make, and remove, a folder of the same name.
        session.config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]
        self.measure(session)
        running: dict[int, Mutant] = {}
        for mutant in self.mutants:
            if mutant.function not in self.tests:
                self.report(mutant, "not reached")
                continue
            if len(running) == self.processes:
                self.finish(running)
            running[fork(lambda mutant=mutant: self.check(session.items, mutant))] = mutant
        while running:
            self.finish(running)
        return True

    def measure(self, session: pytest.Session) -> None:
        """Run all tests without a mutant, and note the functions that each reaches, and its time."""
        files = [self.folder / f"{share}.json" for share in range(self.processes)]
        running = {
            fork(lambda share=share: self.run_share(session.items, share, files[share]))
            for share in range(self.processes)
        }
        while running:
            running.remove(os.wait()[0])
        functions: dict[int, list[str]] = {}
        for file in files:
            for position, seconds, names, failure in json.loads(file.read_text(encoding="utf-8")):
                if failure:
                    raise session.Failed(f"{session.items[position].nodeid} fails without a mutant:\n{failure}")
                self.seconds[position] = seconds
                functions[position] = names
        for position in sorted(functions, key=self.seconds.__getitem__):
            for name in functions[position]:
                self.tests.setdefault(name, []).append(position)

    def run_share(self, items: list[pytest.Item], share: int, file: Path) -> int:
        """Run one of so many tests, and write the seconds and the functions of each."""
        found = []
        for position in range(share, len(items), self.processes):
            self.reached.clear()
            before = time.process_time()
            failure = failure_of(items[position])
            found.append((position, time.process_time() - before, list(self.reached), failure))
            if failure:
                break
        file.write_text(json.dumps(found), encoding="utf-8")
        return 0

    def check(self, items: list[pytest.Item], mutant: Mutant) -> int:
        """Run the tests that reach a mutant, up to the first that fails."""
        resource.setrlimit(resource.RLIMIT_AS, (LIMIT_BYTES, LIMIT_BYTES))
        trampoline.set_mutant_under_test(mutant.name)
        place = self.functions[mutant.function]
        tests = self.tests[mutant.function]
        for position in [self.failed[place], *tests] if self.failed[place] in tests else tests:
            # Their signals, which nothing handles, end the process.
            signal.setitimer(signal.ITIMER_PROF, LOOP_SECONDS + SLOWER * self.seconds[position])
            signal.setitimer(signal.ITIMER_REAL, WAIT_SECONDS + SLOWER * self.seconds[position])
            if failure_of(items[position]):
                self.failed[place] = position
                return KILLED
        return SURVIVED

    def finish(self, running: dict[int, Mutant]) -> None:
        """Wait for a fork, and report its mutant."""
        pid, status = os.wait()
        code = os.waitstatus_to_exitcode(status)
        result = "survived" if code == SURVIVED else "timeout" if code in TIMEOUTS else "killed"
        self.report(running.pop(pid), result)


def fork(call: Callable[[], int]) -> int:
    """Call a function in a fork of this process, whose exit status it returns; return the number of the fork."""
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    status = KILLED
    try:
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        status = call()
    finally:
        # Whatever was raised: this process has a copy of everything that the first one writes at its end.
        os._exit(status)


def needs_server(item: Any) -> bool:
    """Return whether a test uses a fixture of the modules that start servers."""
    used = itertools.chain(*item._fixtureinfo.name2fixturedefs.values())
    return any(fixture.func.__module__ in SERVERS for fixture in used)


def failure_of(item: pytest.Item) -> str:
    """Run a test with its fixtures, and return how it fails; empty where it passes."""
    reports: list[Any] = runtestprotocol(item, log=False, nextitem=None)
    return next((report.longreprtext or "failed" for report in reports if report.failed), "")
