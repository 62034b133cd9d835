"""A plugin, `-p support.branches`: every line and branch of the package and of the examples runs in some test.

SlipCover marks them in the code as it is imported, so that all other code runs as it does without. A trace function,
which Python 3.11 calls for each line of everything, more than doubled the time of the tests.
"""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from slipcover import FileMatcher, ImportManager, Slipcover, wrap_spec_from_file_location

ROOT = Path(__file__).parent.parent.parent
SPEC = importlib.util.find_spec("fastapi_guard")
PACKAGE = Path(SPEC.origin).parent if SPEC is not None and SPEC.origin is not None else ROOT / "fastapi_guard"
SOURCES = [str(PACKAGE), *(str(ROOT / "examples" / name) for name in ("accounts", "demo", "saas"))]
EXCLUDED = ["if __name__ == .__main__.:", "assert_never\\("]
# Two of the examples are in the wheel too, in this folder.
SHIPPED = "fastapi_guard/examples/"

# The marks stay where they are: to take them out would replace the code of functions that tests look at.
measured = Slipcover(branch=True, source=SOURCES, exclude_also=EXCLUDED, d_miss_threshold=-1)
matcher = FileMatcher(sources=SOURCES)
# Before pytest imports a conftest.py, and with it the package.
ImportManager(measured, matcher).__enter__()
wrap_spec_from_file_location(measured, matcher)

# Of each file, the lines and the branches (the numbers of two lines) that ran in no process.
missing: dict[str, dict[str, set[Any]]] = {}
PARTS = ("lines", "branches")


def own() -> Iterator[tuple[str, str, list[Any]]]:
    """Yield the name of each file, the part, and what of it did not run in this process."""
    for file, found in measured.get_coverage()["files"].items():
        path = Path(file).absolute()
        inside = PACKAGE.parent if path.is_relative_to(PACKAGE) else ROOT
        name = path.relative_to(inside).as_posix().replace(SHIPPED, "examples/")
        for part in PARTS:
            yield name, part, found[f"missing_{part}"]


def keep(name: str, part: str, absent: list[Any]) -> None:
    """Keep of what is missing that which did not run here either."""
    here = {tuple(item) if part == "branches" else item for item in absent}
    parts = missing.setdefault(name, {})
    parts[part] = parts[part] & here if part in parts else here


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Read the result of another process of the tests."""
    for found in getattr(node, "workeroutput", {}).get("branches", ()):
        keep(*found)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Send the result to the process that started this one; there, fail if something is missing."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["branches"] = list(own())
        return
    if session.exitstatus != pytest.ExitCode.OK:
        # A test that failed has left out what comes after.
        missing.clear()
        return
    for found in own():
        keep(*found)
    if any(absent for parts in missing.values() for absent in parts.values()):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what no test runs, where all tests passed."""
    if not missing:
        return
    incomplete = 0
    for name, parts in sorted(missing.items()):
        lines = sorted(parts["lines"])
        branches = [f"{start}->{end or 'exit'}" for start, end in sorted(parts["branches"]) if start not in lines]
        if lines or branches:
            incomplete += 1
            terminalreporter.write_line(f"{name}: no test runs {', '.join([*map(str, lines), *branches])}")
    terminalreporter.write_line(f"every line and branch runs in {len(missing) - incomplete} of {len(missing)} files")
