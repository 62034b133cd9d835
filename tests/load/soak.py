"""Ten minutes under load in which keys change, credentials end, servers go away and workers are replaced.

wrk sends throughout: credentials that are accepted on most connections, and some that are not on the others. Beside it
each of them is sent about once a second and its answer compared, so that a wrong answer is found with its credential
and its time. At the end the workers are stopped and started, and all that was issued and ended is compared once more.
"""

import json
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from signal import SIGINT
from typing import Any

from benchmarks.report import machine, show, versions
from fastapi_guard.testing.issuer import FakeIssuer
from support.postgres import PostgresServer

from . import wrk
from .applications import CONNECTIONS
from .kept_redis import KeptRedis
from .scenario import Scenario
from .soaked import AUDIENCE, Places
from .workers import WORKERS, Workers

SECONDS = 600
# A round of events, on a machine that is not too busy.
ROUND_SECONDS = 150
# The end of wrk in any case.
MOST_SECONDS = 3600
OVER = {200: CONNECTIONS, 401: 2, 403: 1, 429: 1}
TAKES_PART = ("fastapi", "uvicorn", "gunicorn", "uvicorn-worker", "sqlalchemy", "asyncpg", "redis")


def run(path: Path, server: PostgresServer, postgres: str, *, core: int | None, seconds: int) -> int:
    """Soak, print and write what was found; return 1 where that is a fault."""
    issuer = FakeIssuer(audience=AUDIENCE)
    with tempfile.TemporaryDirectory() as folder, issuer.serve() as url:
        redis = KeptRedis(Path(folder))
        places = Places(postgres=postgres, redis=redis.url, issuer=url, folder=Path(folder))
        places.fill()
        errors = Path(folder, "errors.txt")
        workers = Workers("load.soaked:create()", places.environment(), errors, core=core)
        try:
            workers.start()
            scenario = Scenario(workers, issuer, server, redis, places)
            try:
                took, answered = _loaded(scenario, workers, seconds)
                scenario.finish()
            except BaseException:
                print(*scenario.found.faults, errors.read_text(encoding="utf-8")[-4000:], sep="\n")
                raise
        finally:
            workers.stop()
            redis.stop()
        found = scenario.found
        found.judge(answered, OVER, workers.restarts)
        log = errors.read_text(encoding="utf-8")
        found.judge_log(log)
    written = {
        "machine": machine(),
        "versions": versions(TAKES_PART),
        "seconds": round(took),
        "workers": WORKERS,
        "answered": {str(expected): _written(answers) for expected, answers in answered.items()},
        "own": {str(status): count for status, count in sorted(found.own.items())},
        "broken": found.broken,
        "away": [{**asdict(away), "recovered_seconds": away.recovered_seconds} for away in found.away],
        "restarts": [asdict(restart) for restart in workers.restarts],
        "memory": [asdict(memory) for memory in found.judge_memory(workers.lifetimes)],
        "samples": {str(lifetime.pid): lifetime.memory for lifetime in workers.lifetimes},
        "uses": found.uses,
        "checked": found.checked,
        "faults": found.faults,
    }
    report(path, written)
    path.with_suffix(".log").write_text(log, encoding="utf-8")
    return 1 if found.faults else 0


def _loaded(scenario: Scenario, workers: Workers, seconds: int) -> tuple[float, dict[int, wrk.Answers]]:
    loading = {
        expected: wrk.start(workers.url, scenario.mix.files[expected], connections=connections, seconds=MOST_SECONDS)
        for expected, connections in OVER.items()
    }
    try:
        took = _run(scenario, seconds)
    finally:
        for running in loading.values():
            running.send_signal(SIGINT)  # which ends it with its report
    return took, {expected: wrk.finished(running) for expected, running in loading.items()}


def _run(scenario: Scenario, seconds: int) -> float:
    start, before = time.monotonic(), 0.0
    schedule = scenario.schedule(max(1, seconds // ROUND_SECONDS))
    while (second := time.monotonic() - start) < seconds or schedule:
        if schedule and before + schedule[0][0] <= second:
            schedule.pop(0)[1]()
            before = time.monotonic() - start
        scenario.look()
        time.sleep(max(0.0, 1 - (time.monotonic() - start - second)))
    return time.monotonic() - start


def _written(answers: wrk.Answers) -> dict[str, Any]:
    statuses = {str(status): count for status, count in sorted(answers.statuses.items())}
    return {"statuses": statuses, "lost": answers.lost, "by_second": answers.by_second}


def report(path: Path, written: Mapping[str, Any]) -> None:
    """Print what was found, and write it with the answers of each second."""
    rows = []
    for expected, answers in written["answered"].items():
        statuses = answers["statuses"]
        other = sum(count for status, count in statuses.items() if status not in (expected, "503"))
        counts = (statuses.get(expected, 0), statuses.get("503", 0), other, answers["lost"])
        rows.append((expected, *map(str, counts)))
    show(("expected", "as expected", "503", "else", "no answer"), rows)
    print(
        f"our own: {written['own']}, and {written['broken']} without an answer; compared at the end:",
        written["checked"],
    )
    print(f"{written['uses']} uses were noted right before a worker ended")
    for away in written["away"]:
        lasted, recovered = away["end"] - away["begin"], away["recovered_seconds"]
        print(
            f"{away['name']}: away {lasted:.1f} s, the last 503 {recovered:.1f} s after; {away['unavailable']} of ours"
        )
    for restart in written["restarts"]:
        print(f"{restart['kind']} of {len(restart['pids'])}: replaced after {restart['end'] - restart['begin']:.1f} s")
    for memory in written["memory"]:
        own, resident = (", ".join(f"{size / 2**20:.1f}" for size in memory[name]) for name in ("own", "resident"))
        warm, ended = memory["warm"], memory["seconds"]
        print(f"worker {memory['pid']}, {warm:.0f} to {ended:.0f} s, MiB when warm, at most, at the end:")
        print(f"  own {own}; resident {resident}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(written, indent=1), encoding="utf-8")
    print("written to", path)
    print(*written["faults"] or ["no fault was found"], sep="\n")
