"""Two minutes under load in which keys change, tokens end, and the issuer and the database go away and come back.

wrk sends throughout: credentials that hold on most connections, and some that do not on the others. Beside it each of
them is sent once a second and its answer compared, so that a wrong answer is found with its credential and its time.
"""

import json
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from signal import SIGINT

from benchmarks.report import machine, show
from fastapi_guard.testing.issuer import FakeIssuer
from support.postgres import PostgresServer

from . import wrk
from .applications import AUDIENCE, CONNECTIONS, SOAKED
from .found import Found
from .process import served
from .scenario import Scenario

WARM_UP_SECONDS, SECONDS = 20, 120
# The end of wrk in any case.
MOST_SECONDS = 600
REFUSED_CONNECTIONS = 2


def run(path: Path, server: PostgresServer, postgres: str, *, core: int | None) -> int:
    """Soak, print and write what was found; return 1 where that is a fault."""
    issuer = FakeIssuer(audience=AUDIENCE)
    with tempfile.TemporaryDirectory() as folder, issuer.serve() as url:
        errors = Path(folder, "errors.txt")
        with served(SOAKED, postgres=postgres, issuer=url, core=core, errors=errors) as application:
            scenario = Scenario(application, issuer, server, Path(folder))
            answered = _loaded(scenario, application.url)
        scenario.found.judge(answered, errors.read_text(encoding="utf-8"))
    report(path, scenario.found, answered)
    return 1 if scenario.found.faults else 0


def _loaded(scenario: Scenario, url: str) -> dict[int, wrk.Answers]:
    loading = {
        200: wrk.start(url, scenario.mix.accepted_file, connections=CONNECTIONS, seconds=MOST_SECONDS),
        401: wrk.start(url, scenario.mix.refused_file, connections=REFUSED_CONNECTIONS, seconds=MOST_SECONDS),
    }
    start, schedule, before = time.monotonic() + WARM_UP_SECONDS, scenario.schedule(), 0.0
    while (second := time.monotonic() - start) < SECONDS or schedule:
        if schedule and before + schedule[0][0] <= second:
            schedule.pop(0)[1]()
            before = time.monotonic() - start
        scenario.look(second)
        time.sleep(max(0.0, 1 - (time.monotonic() - start - second)))
    for running in loading.values():
        running.send_signal(SIGINT)  # which ends it with its report
    return {expected: wrk.finished(running) for expected, running in loading.items()}


def report(path: Path, found: Found, answered: Mapping[int, wrk.Answers]) -> None:
    """Print what was found, and write it with the answers of each second."""
    rows = []
    for expected, answers in answered.items():
        statuses = answers.statuses
        counts = [statuses[status] for status in (200, 401, 503)]
        counts.append(statuses.total() - sum(counts))
        rows.append((str(expected), f"{answers.requests_a_second:.0f}", *map(str, counts), f"{answers.p99_ms:.1f}"))
    show(("expected", "requests/s", "200", "401", "503", "else", "p99 ms"), rows)
    before, most, after = (size / 2**20 for size in found.memory())
    print(f"memory of the server: {before:.1f} MiB after the warm-up, at most {most:.1f}, {after:.1f} at the end")
    for name, away in found.away.items():
        print(f"{name} away for {away.end - away.begin:.1f} s: {away.unavailable} of our own requests answered 503")
    written = {
        "machine": machine(),
        "answered": {expected: answers.by_second for expected, answers in answered.items()},
        "away": {name: asdict(away) for name, away in found.away.items()},
        "resident_bytes": found.resident_bytes,
        "faults": found.faults,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(written, indent=1), encoding="utf-8")
    print("written to", path)
    print(*found.faults or ["no fault was found"], sep="\n")
