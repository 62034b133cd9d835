"""Run modules as programs, such as `fastapi_guard` or `uvicorn`, each in a process of its own."""

import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, NamedTuple, TextIO

from support import command_process
from support.processes import OtherProcess


class Completed(NamedTuple):
    """A program that has ended."""

    status: int | None
    stdout: str
    stderr: str


def run_program(*words: str, environment: Mapping[str, str] | None = None) -> Completed:
    """Return what a module printed, with these variables in addition to the environment of the tests."""
    with TemporaryDirectory() as name:
        streams = Path(name)
        variables = {**os.environ, **(environment or {})}
        status = OtherProcess(command_process.main, words, variables, streams, Path.cwd()).wait()
        stdout, stderr = ((streams / stream).read_text(encoding="utf-8") for stream in ("stdout", "stderr"))
    return Completed(status, stdout, stderr)


@contextmanager
def running_program(
    *words: str,
    environment: Mapping[str, str],
    folder: Path | None = None,
    stream: Literal["stdout", "stderr"] = "stdout",
) -> Iterator[TextIO]:
    """Yield a stream of a module while it runs; it is interrupted at the end of the block."""
    with TemporaryDirectory() as name:
        streams = Path(name)
        os.mkfifo(streams / stream)
        process = OtherProcess(command_process.main, words, environment, streams, folder or Path.cwd())
        with (streams / stream).open(encoding="utf-8") as output:
            yield output
            process.kill(signal.SIGINT)
            process.wait()
