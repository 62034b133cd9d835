"""The core table beside that of an earlier commit, in one process: what the code since then costs or saves.

Run it as `python -m tests.benchmarks.former COMMIT`, or as `nox -s former -- COMMIT`. The wheel of the commit is
imported twice, so that the difference of the two shows how exact the measurement is.
"""

import argparse
import importlib
import io
import logging
import subprocess
import sys
import tarfile
import tempfile
import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

from joserfc.errors import SecurityWarning

from . import imports
from .core import ALGORITHMS, new_key, ours
from .harness import Timings, Variant, measure

ROOT = Path(__file__).parents[2]
PACKAGE = "fastapi_guard"
FORMER, CONTROL, PRESENT = "former", "former again", "present"
# The most that a row may cost beyond that of the former commit: a part of the whole request, and for a token of the
# cache a number of microseconds.
WHOLE_REQUEST = 0.03
CACHED_MICROSECONDS = 1.5
IMPORT = 0.03


def exported(commit: str, folder: Path) -> Path:
    """Return the files of a commit, in a folder."""
    archive = subprocess.run(  # noqa: S603 - git, with a commit that the caller names
        ["git", "archive", commit],  # noqa: S607
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extractall(folder, filter="data")
    return folder


def built(source: Path, folder: Path) -> Path:
    """Return the contents of the wheel of a source tree, in a folder from which it can be imported."""
    wheels = folder / "wheels"
    hatchling = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(wheels)]
    subprocess.run(hatchling, cwd=source, check=True, capture_output=True)  # noqa: S603 - ours
    with zipfile.ZipFile(next(wheels.glob("*.whl"))) as wheel:
        wheel.extractall(folder / "site")  # noqa: S202 - the wheel that was built above
    return folder / "site"


def imported(folder: Path) -> ModuleType:
    """Return the package of a folder, apart from others of that name that were imported before."""
    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        del sys.modules[name]
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    package = importlib.import_module(PACKAGE)
    sys.path.remove(str(folder))
    if not Path(package.__file__ or "").is_relative_to(folder):
        msg = f"{package.__file__} was imported instead of the package in {folder}"
        raise RuntimeError(msg)
    return package


def variants_of(packages: dict[str, ModuleType]) -> Iterator[Variant]:
    """Yield the rows of the core table for each package, all with the same keys and tokens of one form."""
    for algorithm in ALGORITHMS:
        key = new_key(algorithm)
        for label, package in packages.items():
            for variant in ours(algorithm, key, package):
                yield replace(variant, name=f"{variant.name}, {label}")


def rows_of(timings: Timings) -> list[str]:
    """Return the names of the rows, without the package."""
    suffix = f", {FORMER}"
    return [name.removesuffix(suffix) for name in timings.rounds if name.endswith(suffix)]


def line(row: str, timings: Timings, unit: str, limit: float) -> str:
    """Return a line of the table; ``limit`` is the most that the row may cost more, in its unit."""
    former, control, present = (f"{row}, {label}" for label in (FORMER, CONTROL, PRESENT))
    cost = timings.cost(former)
    noise, change = timings.added(control, former), timings.added(present, former)
    verdict = "" if change <= limit else f"over {limit:.2f}"
    return f"| {row} | {cost:.2f} {unit} | {noise:+.2f} | {change:+.2f} | {change / cost:+.1%} | {verdict} |"


def table(timings: Timings, started: Timings) -> Iterator[str]:
    """Yield the lines of the table, in Markdown."""
    yield "| row | former | former again | present | of the row | |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for row in rows_of(timings):
        whole = timings.cost(f"{row}, {FORMER}") * WHOLE_REQUEST
        yield line(row, timings, "µs", CACHED_MICROSECONDS if row.endswith("cached") else whole)
    for row in rows_of(started):
        yield line(row, started, "ms", started.cost(f"{row}, {FORMER}") * IMPORT)


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description="The core table beside that of an earlier commit.")
    parser.add_argument("commit", help="the commit to compare with")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--requests", type=int, default=1000)
    options = parser.parse_args()
    logging.getLogger(PACKAGE).setLevel(logging.WARNING)
    warnings.simplefilter("ignore", SecurityWarning)  # of joserfc, about EdDSA
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        former = exported(options.commit, folder / "source")
        folders = {label: built(former, folder / label) for label in (FORMER, CONTROL)}
        folders[PRESENT] = built(ROOT, folder / PRESENT)
        packages = {label: imported(place) for label, place in folders.items()}
        timings = measure(list(variants_of(packages)), rounds=options.rounds, requests=options.requests)
        codes = {
            f"import {PACKAGE}, {label}": f"import sys; sys.path.insert(0, {str(place)!r}); import {PACKAGE}"
            for label, place in folders.items()
        }
        started = imports.measure(codes, rounds=options.rounds)
    sys.stdout.write("".join(f"{text}\n" for text in table(timings, started)))


if __name__ == "__main__":
    main()
