"""How many requests a second a guarded route answers over loopback, beside the bare one and other libraries."""

import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median

import httpx2

from benchmarks.report import machine, show, versions

from . import wrk
from .applications import COMPARED, CONNECTIONS
from .process import Served, served

WARM_UP_SECONDS = 1
# No round begins later than this: a machine that is busy starts a process slowly.
LAST_ROUND_SECONDS = 480
TAKES_PART = (
    *("fastapi", "starlette", "uvicorn", "uvloop", "httptools", "joserfc", "cryptography"),
    *("fastapi-views", "authx", "pyjwt", "sqlalchemy", "asyncpg", "aiosqlite"),
)


def measure(
    names: Sequence[str], postgres: str, *, core: int | None, rounds: int, seconds: int
) -> dict[str, list[wrk.Answers]]:
    """Return what each application answered in each round, in a new process each time.

    There are fewer rounds than asked for where they take too long.

    Raises:
        RuntimeError: A request was not answered, or not with 200, or one without its credential was let in.
    """
    answered: dict[str, list[wrk.Answers]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder, "requests.txt")
        began = time.monotonic()
        for round_ in range(rounds):
            if round_ and time.monotonic() - began > LAST_ROUND_SECONDS:
                break
            for name in names:
                with served(name, postgres=postgres, core=core) as application:
                    _check(name, application)
                    wrk.write(listed, [application.request])
                    _loaded(name, application, listed, WARM_UP_SECONDS)
                    answered[name].append(_loaded(name, application, listed, seconds))
    return answered


def _loaded(name: str, application: Served, listed: Path, seconds: int) -> wrk.Answers:
    answers = wrk.finished(wrk.start(application.url, listed, connections=CONNECTIONS, seconds=seconds))
    if set(answers.statuses) != {200} or answers.lost:
        msg = f"{name}: answered {dict(answers.statuses)}, and lost {answers.lost}"
        raise RuntimeError(msg)
    return answers


def _check(name: str, application: Served) -> None:
    # That what is measured decides at all.
    if application.request.credential:
        status = httpx2.get(application.url + application.request.path).status_code
        if status != 401:
            msg = f"{name}: answered {status} to a request without a credential"
            raise RuntimeError(msg)


def report(path: Path, rounds: dict[str, list[wrk.Answers]], *, seconds: int) -> None:
    """Print the medians, and write all that was measured."""
    bare = rounds[COMPARED[0]]
    rows = []
    for name, answers in rounds.items():
        of_bare = median(
            mine.requests_a_second / other.requests_a_second for mine, other in zip(answers, bare, strict=True)
        )
        medians = (
            median(getattr(part, figure) for part in answers) for figure in ("requests_a_second", "p50_ms", "p99_ms")
        )
        rows.append((name, *medians, of_bare))
    print(*machine().values(), f"{CONNECTIONS} connections, {len(bare)} rounds of {seconds} s", sep="; ", end="\n\n")
    show(
        ("medians of the rounds", "requests/s", "p50 ms", "p99 ms", "of bare"),
        [
            (name, f"{a_second:.0f}", f"{p50:.2f}", f"{p99:.2f}", f"{part:.2f}")
            for name, a_second, p50, p99, part in rows
        ],
    )
    measured = {
        "machine": machine(),
        "versions": versions(TAKES_PART),
        "connections": CONNECTIONS,
        "seconds": seconds,
        "rounds": {name: [_written(part) for part in answers] for name, answers in rounds.items()},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(measured, indent=1), encoding="utf-8")
    print("written to", path)


def _written(answers: wrk.Answers) -> dict[str, float]:
    return {name: value for name, value in asdict(answers).items() if name != "by_second"}
