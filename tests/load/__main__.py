"""`python -m load`: guards with state, the throughput beside other libraries, the soak; or one of these alone."""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from support.postgres import PostgresServer

from . import burst, lookups, soak, state, throughput
from .applications import COMPARED

PARTS = ("state", "throughput", "soak")
LOOK_UP_ROUNDS = 21


def apart() -> int | None:
    """Run wrk, PostgreSQL and ourselves on all cores but the first; return the first, which is the server's."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if len(cores) < 2:
        return None
    os.sched_setaffinity(0, cores[1:])
    return cores[0]


def main() -> int:
    """Measure, print, write; return 1 where the soak found a fault."""
    parser = argparse.ArgumentParser(prog="load", description=__doc__)
    parser.add_argument("part", nargs="?", choices=PARTS, help="by default one after the other")
    parser.add_argument("--rounds", type=int, default=5, help="how often each application is loaded (%(default)s)")
    parser.add_argument("--seconds", type=int, default=4, help="how long each time (%(default)s)")
    parser.add_argument(
        "--soak-seconds", type=int, default=soak.SECONDS, help="how long the soak takes at least (%(default)s)"
    )
    parser.add_argument("--folder", type=Path, default=Path(".bench"), help="of the result files (%(default)s)")
    parser.add_argument(
        "--former", default="", help="the Python of an environment with 0.1.0; without it, no rows of it"
    )
    parser.add_argument("--only", default="", help="of the guards with state, those with this text in their name")
    options = parser.parse_args()
    parts = PARTS if options.part is None else (options.part,)
    busy, core = os.getloadavg()[0], apart()
    if core is None:
        print("with one core, the server shares it with what loads it: these figures say little")
    print(f"{busy:.1f} processes wanted a core in the minute before")
    server = PostgresServer()
    try:
        postgres = server.url.set(drivername="postgresql+asyncpg").render_as_string(hide_password=False)
        if "state" in parts:
            measure_state(server, postgres, core, options)
        if "throughput" in parts:
            measured = throughput.measure(COMPARED, postgres, core=core, rounds=options.rounds, seconds=options.seconds)
            throughput.report(options.folder / "load.json", measured, seconds=options.seconds)
        if "soak" not in parts:
            return 0
        return soak.run(options.folder / "soak.json", server, postgres, core=core, seconds=options.soak_seconds)
    finally:
        server.remove()


def measure_state(server: PostgresServer, postgres: str, core: int | None, options: argparse.Namespace) -> None:
    """Measure the guards that read state, one look-up at a time, and a burst."""
    listed = [variant for variant in state.variants(former=bool(options.former)) if options.only in variant.name]
    measured = state.measure(
        listed, server, core=core, rounds=options.rounds, seconds=options.seconds, former=options.former
    )
    single = lookups.measure(postgres, rounds=LOOK_UP_ROUNDS)
    more: dict[str, Any] = {"look_ups": single, "burst": burst.measure(server, core=core)}
    state.report(options.folder / "state.json", measured, more, seconds=options.seconds)
    lookups.report(single)


if __name__ == "__main__":
    sys.exit(main())
