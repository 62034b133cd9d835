"""Show what was measured beside what it may be: tables on the standard output, and a JSON file."""

import argparse
import json
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from .harness import Timings


@dataclass(frozen=True, kw_only=True, slots=True)
class Limit:
    """A measured cost beside what it may be: `factor` times the cost of the reference, both in `unit`."""

    request: str
    measured: float
    reference: str
    cost: float
    factor: float
    unit: str = "µs"

    @property
    def ratio(self) -> float:
        """The measured cost over that of the reference."""
        return self.measured / self.cost

    @property
    def verdict(self) -> str:
        """Whether the measured cost is within the limit."""
        return "within" if self.ratio <= self.factor else "OVER"

    def cells(self) -> tuple[str, ...]:
        """Return the row of the printed table."""
        measured, cost = f"{self.measured:.1f} {self.unit}", f"{self.cost:.1f} {self.unit}"
        return self.request, measured, self.reference, cost, f"{self.ratio:.2f}", f"{self.factor:.2f}", self.verdict


def arguments(description: str, table: str) -> argparse.Namespace:
    """Read `--rounds`, `--requests` and `--json` from the command line."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rounds", type=int, default=25, help="how many times everything is measured (%(default)s)")
    parser.add_argument("--requests", type=int, default=300, help="requests of each variant in a round (%(default)s)")
    parser.add_argument("--json", type=Path, default=Path(f".bench/{table}.json"), help="result file (%(default)s)")
    return parser.parse_args()


def versions(distributions: Iterable[str]) -> dict[str, str]:
    """Return the version of Python and of each distribution."""
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in distributions}}


def machine() -> dict[str, str]:
    """Return the processor, its cores, how many processes wanted one in the minute before, the system, and the day."""
    described = Path("/proc/cpuinfo")
    lines = described.read_text(encoding="utf-8").splitlines() if described.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return {
        "processor": next(named, platform.processor() or platform.machine()),
        "cores": str(os.cpu_count()),
        "busy": f"{os.getloadavg()[0]:.1f}",
        "system": f"{platform.system()} {platform.machine()}",
        "day": datetime.now(UTC).date().isoformat(),
    }


def show(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table: the first column to the left, the others to the right."""
    lines = [header, *rows]
    first, *others = (max(map(len, column)) for column in zip(*lines, strict=True))
    for line in lines:
        print(line[0].ljust(first), *map(str.rjust, line[1:], others), sep="  ")
    print()


def report(path: Path, timings: Timings, bare: str, limits: Sequence[Limit], installed: Mapping[str, str]) -> None:
    """Print the timings and the limits, and write both to a file.

    Args:
        path: the JSON file; its folder is created.
        timings: in microseconds.
        bare: name of the variant over which added cost is counted.
        limits: what the timings, and whatever else was measured, are held against.
        installed: versions that took part.
    """
    print(*(f"{name} {number}" for name, number in installed.items()), sep=", ", end="\n\n")
    medians = [(name, timings.cost(name), timings.spread(name), timings.added(name, bare)) for name in timings.rounds]
    show(
        ("µs a request", "median", "quartiles apart", "added"),
        [(name, f"{cost:.1f}", f"{spread:.1f}", f"{added:+.1f}") for name, cost, spread, added in medians],
    )
    header = ("request", "measured", "reference", "its cost", "ratio", "at most", "")
    show(header, [limit.cells() for limit in limits])
    measured = {
        "machine": machine(),
        "versions": installed,
        "bare": bare,
        "microseconds": timings.rounds,
        "limits": [asdict(limit) | {"ratio": limit.ratio, "verdict": limit.verdict} for limit in limits],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(measured, indent=1), encoding="utf-8")
    print("written to", path)
