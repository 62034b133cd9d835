"""How long imports take, each in a fresh interpreter with its bytecode already written."""

import os
import random
import subprocess
import sys
from collections.abc import Mapping

from .harness import Timings

PROGRAM = "import time; start = time.perf_counter(); {}; print(time.perf_counter() - start)"


def seconds(statement: str) -> float:
    """Return how long the statement took, the start of the interpreter not counted."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-c", PROGRAM.format(statement)]
    run = subprocess.run(command, env=environment, capture_output=True, check=True, text=True)  # noqa: S603 - our own text
    return float(run.stdout)


def measure(statements: Mapping[str, str], *, rounds: int) -> Timings:
    """Return the milliseconds of each import statement, by name and round; within a round their order is shuffled."""
    order = list(statements)
    timed: dict[str, list[float]] = {name: [] for name in order}
    for statement in statements.values():
        seconds(statement)  # writes the bytecode
    for _ in range(rounds):
        random.shuffle(order)
        for name in order:
            timed[name].append(seconds(statements[name]) * 1e3)
    return Timings(timed)
