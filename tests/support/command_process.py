"""A module run as a program in a process of its own, as ``python -m`` runs it."""

import os
import runpy
import signal
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path


def main(_: Connection, words: Sequence[str], environment: Mapping[str, str], streams: Path, folder: Path) -> None:
    """Run the module that is the first of ``words`` with the others as arguments.

    Its output goes to ``stdout`` and ``stderr`` in ``streams``; ``folder`` is where it runs.
    """
    # It is ignored where the tests run in the background of a shell, until a server handles it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(streams / name, os.O_WRONLY | os.O_CREAT), descriptor)
    module, *sys.argv[1:] = words
    runpy.run_module(module, run_name="__main__", alter_sys=True)
