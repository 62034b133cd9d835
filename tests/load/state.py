"""Costs of guards that read state: each beside the bare route, in slices that alternate.

The bare route and the variant are processes on the same core, of which one is loaded at a time. Shares are of the
requests a second that the bare route answers in the slice before.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from secrets import token_hex
from statistics import median
from typing import Any

import httpx2
import psycopg
import redis
from sqlalchemy import URL

from benchmarks.report import machine, show, versions
from support.postgres import PostgresServer
from support.redis import running_redis

from . import wrk
from .applications import CONNECTIONS
from .guards import PATH

SCRIPT = Path(__file__).with_name("guards.py")
WARM_UP_SECONDS = 1
TAKES_PART = (
    *("fastapi", "starlette", "uvicorn", "uvloop", "httptools", "joserfc"),
    *("sqlalchemy", "asyncpg", "aiosqlite", "redis"),
)
NAMES = {
    "bare": "bare route",
    "jwt": "JWT",
    "key": "API key",
    "session": "session",
    "revocable": "revocable JWT",
    "memory": "memory",
    "postgres": "PostgreSQL",
    "redis": "Redis",
    "sqlite": "SQLite",
}
# Shares of the bare route, and of the same guard with its state in memory.
STRICT = {"postgres": 0.35, "redis": 0.45, "sqlite": 0.35}
OF_MEMORY = {"postgres": 0.60, "redis": 0.70, "sqlite": 0.65}
CACHED = {"key": 0.60, "session": 0.55, "revocable": 0.55}
MORE_KEYS = 1_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """One way to serve the route: the arguments of `guards`, and the version.

    Attributes:
        kind: The guard.
        place: Where its state is; `none` without state.
        cached: Whether with `cache_ttl`.
        tuned: Whether with `tune_gc`; 0.1.0 has none.
        rows: How many other API keys there are.
        former: Whether it is 0.1.0.
    """

    kind: str
    place: str = "none"
    cached: bool = False
    tuned: bool = True
    rows: int = 0
    former: bool = False

    @property
    def name(self) -> str:
        """The name of its row."""
        words = [NAMES[self.kind]] + ([] if self.place == "none" else [NAMES[self.place]])
        words += [f"{self.rows:,} keys"] if self.rows else []
        words += ["cached"] if self.cached else []
        words += ["0.1.0"] if self.former else ([] if self.tuned else ["without tune_gc"])
        return ", ".join(words)

    @property
    def goal(self) -> float | None:
        """The share of the bare route that is to be reached."""
        if self.former or not self.tuned or self.rows:
            return None
        return CACHED[self.kind] if self.cached else STRICT.get(self.place)


def variants(*, former: bool) -> list[Variant]:
    """Return all that is measured, the ceiling of each kind first."""
    listed = [Variant(kind="jwt"), Variant(kind="jwt", tuned=False)]
    for kind in ("key", "session", "revocable"):
        places = ("postgres", "sqlite") if kind == "key" else ("postgres", "redis", "sqlite")
        listed.append(Variant(kind=kind, place="memory"))
        listed += [Variant(kind=kind, place=place) for place in places]
        listed += [Variant(kind=kind, place=place, cached=True) for place in places]
        listed.append(Variant(kind=kind, place="postgres", tuned=False))
        if former:
            listed += [Variant(kind=kind, place=place, tuned=False, former=True) for place in places]
    if former:
        listed.insert(2, Variant(kind="jwt", tuned=False, former=True))
    return [*listed, *(Variant(kind="key", place="postgres", rows=rows) for rows in (1_000, MORE_KEYS))]


@dataclass(frozen=True, kw_only=True, slots=True)
class Slice:
    """The figures of one slice.

    Attributes:
        requests_a_second: Of wrk.
        p50_ms: The median of the time to a response.
        p99_ms: The 99th percentile.
        cpu_us: The processor time of the server, for one request, in microseconds.
    """

    requests_a_second: float
    p50_ms: float
    p99_ms: float
    cpu_us: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """A variant, and what was measured of it.

    Attributes:
        variant: The variant.
        bare: The slices of the bare route, each before one of the variant.
        slices: Those of the variant.
        trips: Round trips to the store for one request, `None` where they cannot be counted from outside.
        store_cpu_us: The processor time of the store's server for one request, in microseconds; likewise.
        resident_bytes: The memory of the server at the end.
    """

    variant: Variant
    bare: Sequence[Slice]
    slices: Sequence[Slice]
    trips: float | None
    store_cpu_us: float | None
    resident_bytes: int

    @property
    def shares(self) -> list[float]:
        """The share of the bare route's requests, slice by slice."""
        pairs = zip(self.slices, self.bare, strict=True)
        return [mine.requests_a_second / other.requests_a_second for mine, other in pairs]

    def written(self) -> dict[str, Any]:
        """Return what is written to the file."""
        return {
            "name": self.variant.name,
            "goal": self.variant.goal,
            "variant": asdict(self.variant),
            "bare": [asdict(part) for part in self.bare],
            "slices": [asdict(part) for part in self.slices],
            "shares": self.shares,
            "trips": self.trips,
            "store_cpu_us": self.store_cpu_us,
            "resident_bytes": self.resident_bytes,
        }


class Server:
    """A process that serves a variant."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        """Read where it listens, and what it accepts."""
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            msg = "the server does not start"
            raise RuntimeError(msg)
        said = json.loads(line)
        self.url: str = said["url"]
        self.requests = [wrk.Request(path=PATH, field=name, credential=value) for name, value in said["sent"]]
        self._process = Path(f"/proc/{process.pid}")

    @property
    def cpu_seconds(self) -> float:
        """The processor time that it has used."""
        fields = (self._process / "stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def resident_bytes(self) -> int:
        """The memory that is in RAM."""
        return int((self._process / "statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def loaded(self, listed: Path, seconds: int) -> Slice:
        """Return what a slice measured.

        Raises:
            RuntimeError: A request was not answered with 200.
        """
        wrk.write(listed, self.requests)
        before = self.cpu_seconds
        answers = wrk.finished(wrk.start(self.url, listed, connections=CONNECTIONS, seconds=seconds))
        used = self.cpu_seconds - before
        if set(answers.statuses) != {200} or answers.lost:
            msg = f"answered {dict(answers.statuses)}, and lost {answers.lost}"
            raise RuntimeError(msg)
        return Slice(
            requests_a_second=answers.requests_a_second,
            p50_ms=answers.p50_ms,
            p99_ms=answers.p99_ms,
            cpu_us=used / answers.statuses.total() * 1e6,
        )

    def check(self) -> None:
        """Send a request without a credential.

        Raises:
            RuntimeError: It is accepted, although the route is guarded.
        """
        status = httpx2.get(self.url + PATH).status_code
        if self.requests[0].field and status != 401:
            msg = f"answered {status} to a request without a credential"
            raise RuntimeError(msg)


class Places:
    """The servers that state is in, and their counters."""

    def __init__(self, postgres: PostgresServer, redis_url: str) -> None:
        """Use a PostgreSQL and a Redis that run."""
        self._postgres = postgres
        self._redis_url = redis_url
        self._redis = redis.Redis.from_url(redis_url)

    @contextmanager
    def new(self, place: str) -> Iterator[str]:
        """Yield the URL of an empty database or Redis; none where the place needs no server."""
        if place == "redis":
            self._redis.flushall()
            yield self._redis_url
        elif place == "postgres":
            name = f"load_{token_hex(6)}"
            with self._connected() as connection:
                connection.execute(f'CREATE DATABASE "{name}"')  # type: ignore[call-overload]
                yield self._url(name).set(drivername="postgresql+asyncpg").render_as_string(hide_password=False)
                connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')  # type: ignore[call-overload]
        else:
            yield ""

    def spent(self, place: str, url: str) -> tuple[float, float] | None:
        """Return how many commands or transactions a server has executed, and in how many seconds of processor time."""
        if place == "redis":
            info: Any = self._redis.info()
            return info["total_commands_processed"], info["used_cpu_user"] + info["used_cpu_sys"]
        if place == "postgres":
            name = url.rpartition("/")[2].partition("?")[0]
            statement = "SELECT xact_commit, current_setting('data_directory') FROM pg_stat_database WHERE datname = %s"
            with self._connected() as connection:
                committed, folder = connection.execute(statement, [name]).fetchone()  # type: ignore[misc]
            return committed, _cpu_seconds_of_all(int(Path(folder, "postmaster.pid").read_text("ascii").split()[0]))
        return None

    def _url(self, name: str) -> URL:
        return self._postgres.url.set(database=name)

    def _connected(self) -> "psycopg.Connection[Any]":
        url = self._postgres.url.set(drivername="postgresql").render_as_string(hide_password=False)
        return psycopg.connect(url, autocommit=True)


def _cpu_seconds_of_all(postmaster: int) -> float:
    """Return the processor time of a PostgreSQL: its first process, those that it has now, and those that ended."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = stat.read_text(encoding="ascii", errors="replace").rpartition(")")
        except OSError:  # it has ended
            continue
        fields = rest.split()
        if postmaster in (int(name.partition(" ")[0]), int(fields[1])):
            ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


@contextmanager
def served(variant: Variant, url: str, *, core: int | None, former: str, **more: int) -> Iterator[Server]:
    """Serve a variant on a core of its own.

    Args:
        variant: The variant.
        url: Of the database or Redis.
        core: The core; `None` for any.
        former: The Python of 0.1.0.
        more: Further arguments of `guards`.
    """
    command = [former if variant.former else sys.executable, str(SCRIPT), variant.kind, variant.place, "--url", url]
    command += ["--cached"] if variant.cached else []
    command += ["--tuned"] if variant.tuned else []
    for name, value in {"rows": variant.rows, **more, **({} if core is None else {"core": core})}.items():
        command += [f"--{name}", str(value)]
    # Neither the working tree nor the tests are on its path.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)  # noqa: S603 - ours
    try:
        yield Server(process)
    finally:
        process.terminate()
        process.communicate()


def measure(
    listed: Sequence[Variant], postgres: PostgresServer, *, core: int | None, rounds: int, seconds: int, former: str
) -> list[Measured]:
    """Return what was measured of each variant."""
    measured = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        places = Places(postgres, stack.enter_context(running_redis()))
        bare = {
            tuned: stack.enter_context(served(Variant(kind="bare", tuned=tuned), "", core=core, former=former))
            for tuned in (True, False)
        }
        requests = folder / "requests.txt"
        for variant in listed:
            with places.new(variant.place) as url:
                with served(variant, url, core=core, former=former) as server:
                    server.check()
                    before = places.spent(variant.place, url)
                    answered = server.loaded(requests, WARM_UP_SECONDS).requests_a_second * WARM_UP_SECONDS
                    beside, slices = [], []
                    for _ in range(rounds):
                        beside.append(bare[variant.tuned].loaded(requests, seconds))
                        slices.append(server.loaded(requests, seconds))
                    answered += sum(part.requests_a_second for part in slices) * seconds
                    resident_bytes = server.resident_bytes
                # Its connections are closed: PostgreSQL has counted what they did.
                after = places.spent(variant.place, url)
            trips = seconds_spent = None
            if before is not None and after is not None:
                trips, seconds_spent = ((late - early) / answered for early, late in zip(before, after, strict=True))
            measured.append(
                Measured(
                    variant=variant,
                    bare=beside,
                    slices=slices,
                    trips=trips,
                    store_cpu_us=None if seconds_spent is None else seconds_spent * 1e6,
                    resident_bytes=resident_bytes,
                )
            )
            print(f"{variant.name}: {median(measured[-1].shares):.2f}", flush=True)
    return measured


def report(path: Path, measured: Sequence[Measured], more: Mapping[str, Any], *, seconds: int) -> None:
    """Print the medians, and write all that was measured, with what else is known."""
    print(*machine().values(), f"{CONNECTIONS} connections, slices of {seconds} s", sep="; ", end="\n\n")
    rows = []
    for one in measured:
        p50, p99 = (median(getattr(part, name) for part in one.slices) for name in ("p50_ms", "p99_ms"))
        cpu, share = median(part.cpu_us for part in one.slices), median(one.shares)
        goal = "" if one.variant.goal is None else f"{one.variant.goal:.2f}"
        rows.append((one.variant.name, f"{share:.2f}", goal, f"{cpu:.0f}", f"{p50:.2f}", f"{p99:.2f}"))
    show(("medians of the slices", "of bare", "goal", "cpu us", "p50 ms", "p99 ms"), rows)
    written = {
        "machine": machine(),
        "versions": versions(TAKES_PART),
        "connections": CONNECTIONS,
        "seconds": seconds,
        "of_memory": OF_MEMORY,
        "measured": [one.written() for one in measured],
        **more,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(written, indent=1), encoding="utf-8")
    print("written to", path)
