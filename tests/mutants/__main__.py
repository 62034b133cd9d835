"""`python -m mutants [MODULE ...]`: the tests find 95 of 100 mutants of each module, as in `login/tokens` or `auth`."""

import argparse
import os
import shutil
import sys
from collections import Counter, defaultdict

import pytest

from mutants.checking import Checking
from mutants.sources import ROOT, SETTINGS, Mutant, write

FOLDER = ROOT / ".mutants"
# The least part of the mutants that the tests have to find, in each module.
KILLED = 0.95
# Packages whose modules count as one.
PACKAGES = ("auth", "schemes")


class Scores:
    """The number of mutants of each module by their status."""

    def __init__(self) -> None:
        """Begin without any."""
        self.statuses: dict[str, Counter[str]] = defaultdict(Counter)

    def report(self, mutant: Mutant, status: str) -> None:
        """Count a mutant, and show it unless a test failed."""
        package = mutant.module.partition("/")[0]
        self.statuses[package if package in PACKAGES else mutant.module][status] += 1
        if status != "killed":
            print(f"\n{mutant.name}: {status}\n{mutant.diff}", flush=True)
        checked = sum(found.total() for found in self.statuses.values())
        if checked % 100 == 0:
            print(f"{checked} checked", flush=True)

    def weak(self) -> list[str]:
        """Print the score of each module, and return those with too many survivors."""
        weak = []
        for module, found in sorted(self.statuses.items()):
            killed, total = found["killed"] + found["timeout"], found.total()
            print(f"{module}: {killed} of {total}, {killed / total:.1%} ({found['timeout']} by a timeout)")
            if killed < KILLED * total:
                weak.append(module)
        return weak


def main() -> int:
    """Write the mutants, check them, print the scores; return 1 where a module has too many survivors."""
    parser = argparse.ArgumentParser(prog="mutants", description=__doc__)
    parser.add_argument("module", nargs="*", help="by default those that pyproject.toml names")
    parser.add_argument("--sample", type=int, default=1, metavar="N", help="check each Nth mutant")
    parser.add_argument("--name", nargs="+", default=[""], help="check those with one of these texts in their names")
    parser.add_argument("--tests", nargs="+", help="run these, in place of those that pyproject.toml names")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 2, help="at the same time (%(default)s)")
    options = parser.parse_args()
    shutil.rmtree(FOLDER, ignore_errors=True)
    scratch = FOLDER / "tmp"
    scratch.mkdir(parents=True)
    mutants = write(FOLDER, options.module)
    mutants = [one for one in mutants if any(name in one.name for name in options.name)][:: options.sample]
    print(f"{len(mutants)} mutants", flush=True)
    # Before anything imports the package; a process that a test starts imports the same.
    sys.path.insert(0, str(FOLDER))
    os.environ["PYTHONPATH"] = os.pathsep.join([str(FOLDER), os.environ.get("PYTHONPATH", "")])
    os.environ["TMPDIR"] = str(scratch)
    scores = Scores()
    checking = Checking(mutants, FOLDER, options.processes, scores.report)
    # Forks share a file that captures what they write: it is kept in their memory. The failure of a mutant is not
    # shown, and a traceback of another kind takes a multiple of the time: it parses each file that it quotes.
    quick = ["--capture=sys", "--tb=native", "--override-ini=tmp_path_retention_policy=none"]
    arguments = [*quick, *SETTINGS["pytest_add_cli_args"]]
    selected = options.tests or SETTINGS["pytest_add_cli_args_test_selection"]
    status = pytest.main(["-q", *arguments, *selected], plugins=[checking])
    shutil.rmtree(scratch, ignore_errors=True)
    weak = scores.weak()
    if weak:
        print(f"below {KILLED:.0%}: {', '.join(weak)}")
    return int(status) or bool(weak)


if __name__ == "__main__":
    sys.exit(main())
