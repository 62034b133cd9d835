"""`python -m load`: the throughput, and then the soak; `throughput` or `soak` alone."""

import argparse
import os
import sys
from pathlib import Path

from support.postgres import PostgresServer

from . import soak, throughput
from .applications import COMPARED


def apart() -> int | None:
    """Take all cores but the first for wrk, PostgreSQL and ourselves; return the first, which is the server's."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if len(cores) < 2:
        return None
    os.sched_setaffinity(0, cores[1:])
    return cores[0]


def main() -> int:
    """Measure, print, write; return 1 where the soak found a fault."""
    parser = argparse.ArgumentParser(prog="load", description=__doc__)
    parser.add_argument("part", nargs="?", choices=("throughput", "soak"), help="by default the one and the other")
    parser.add_argument("--rounds", type=int, default=5, help="how often each application is loaded (%(default)s)")
    parser.add_argument("--seconds", type=int, default=4, help="how long each time (%(default)s)")
    parser.add_argument("--folder", type=Path, default=Path(".bench"), help="of the result files (%(default)s)")
    options = parser.parse_args()
    busy, core = os.getloadavg()[0], apart()
    if core is None:
        print("with one core, the server shares it with what loads it: these figures say little")
    print(f"{busy:.1f} processes wanted a core in the minute before")
    server = PostgresServer()
    try:
        postgres = server.url.set(drivername="postgresql+asyncpg").render_as_string(hide_password=False)
        if options.part != "soak":
            measured = throughput.measure(COMPARED, postgres, core=core, rounds=options.rounds, seconds=options.seconds)
            throughput.report(options.folder / "load.json", measured, seconds=options.seconds)
        return (
            0 if options.part == "throughput" else soak.run(options.folder / "soak.json", server, postgres, core=core)
        )
    finally:
        server.remove()


if __name__ == "__main__":
    sys.exit(main())
