"""The tutorial from its first line to its last: each piece is typed in, served, and called as on the page."""

import doctest
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from subprocess import PIPE, Popen
from typing import NamedTuple

import pytest

import fastapi_guard
from support.commands import running_program

TUTORIAL = Path(__file__).parent.parent / "docs" / "tutorial"
PARTS = ("quickstart.md", "api-keys.md", "refresh-tokens.md")
PRINTED_ADDRESS = "127.0.0.1:8000"
# The page's first block makes an environment of its own; here the tests' own stands for it.
SET_UP = "python3.11 -m venv"


class Step(NamedTuple):
    """A line of the shell, the output shown below it, and what `main.py` contains by then."""

    line: str
    output: str
    source: str


def steps() -> list[Step]:
    """Return the lines of the tutorial in their order; a block that makes the application starts the file again."""
    source, found = "", []
    for part in PARTS:
        text = (TUTORIAL / part).read_text(encoding="utf-8")
        for language, block in re.findall(r"^```(\w+)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL):
            if language == "python":
                source = block if "app = FastAPI()" in block else f"{source}\n{block}"
            elif language == "console":
                pieces = re.findall(r"^\$ ((?:.*\\\n)*.*)\n((?:(?!\$ ).*\n)*)", block, flags=re.MULTILINE)
                found += [Step(line, output, source) for line, output in pieces]
    return found


class Reader:  # pragma: no cover - as the test that has it
    """A reader who follows the tutorial, with a folder, a shell and a server."""

    def __init__(self, folder: Path) -> None:
        """Sit down in an empty folder."""
        programs, package = folder / "bin", Path(fastapi_guard.__file__).parent.parent
        programs.mkdir()
        command = programs / "fastapi-guard"
        command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m fastapi_guard "$@"\n', encoding="utf-8")
        command.chmod(0o700)
        self.environment = {
            **os.environ,
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(package),
        }
        self.folder = folder / "app"
        self.folder.mkdir()
        self.shell = Popen(["sh"], stdin=PIPE, stdout=PIPE, text=True, cwd=self.folder, env=self.environment)  # noqa: S607
        self.server = ExitStack()
        self.served = self.address = ""

    def serve(self, source: str) -> None:
        """Serve `main.py`, and restart the server if the file has changed."""
        if source == self.served:
            return
        self.stop_serving()
        (self.folder / "main.py").write_text(source, encoding="utf-8")
        words = ("uvicorn", "main:app", "--port", "0", "--no-access-log")
        output = self.server.enter_context(
            running_program(*words, environment=self.environment, folder=self.folder, stream="stderr")
        )
        said = ""
        # It listens before it prints that it does.
        while (address := re.search(r"running on http://(127\.0\.0\.1:\d+)", said)) is None:
            line = output.readline()
            assert line, said
            said += line
        self.served, self.address = source, address[1]

    def stop_serving(self) -> None:
        """End the server, where there is one."""
        self.server.close()

    def type(self, line: str) -> str:
        """Return what a line of the shell prints."""
        assert self.shell.stdin is not None
        assert self.shell.stdout is not None
        self.shell.stdin.write(f"{line.replace(PRINTED_ADDRESS, self.address)}\necho; echo '-- done --'\n")
        self.shell.stdin.flush()
        printed = "".join(iter(self.shell.stdout.readline, "-- done --\n"))
        return printed.replace("\r", "").strip("\n") + "\n"

    def leave(self) -> None:
        """End the shell and the server."""
        self.shell.communicate(timeout=60)
        self.stop_serving()


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:  # pragma: no cover - as the test that has it
    """Yield a reader, who leaves nothing running."""
    sitting = Reader(tmp_path)
    yield sitting
    sitting.leave()


# A machine with only Python and pip passes the tests too, without this one; CI installs curl.
@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_tutorial(reader: Reader) -> None:  # pragma: no cover - see skipif
    """Every line prints the output shown below it: a login, scopes, keys, a router for them, a rotation, a refusal."""
    agree = doctest.OutputChecker().check_output
    for step in steps():
        if step.source:
            reader.serve(step.source)
        printed = reader.type(step.line)
        assert agree(step.output or "\n", printed, doctest.ELLIPSIS), f"$ {step.line}\n{printed}"


def test_the_tutorial_sets_up_what_the_readme_does() -> None:
    """The environment of the tutorial has the extras of the README's, so that every command of it is there."""
    page = (TUTORIAL / PARTS[0]).read_text(encoding="utf-8")
    readme = (TUTORIAL.parent.parent / "README.md").read_text(encoding="utf-8")
    (extras,) = re.findall(r"pip install '(\.\[.*?\])'", page)
    assert f"pip install '{extras}'" in readme
    assert f"\n{SET_UP} .venv\n" in page


def test_the_parts_follow_each_other() -> None:
    """Each part leads to the next, and the last is the whole application."""
    for part, following in pairwise(PARTS):
        assert f"]({following})" in (TUTORIAL / part).read_text(encoding="utf-8")
    last = steps()[-1].source
    assert all(name in last for name in ("LocalAuth(", "RefreshTokens(", "DatabaseAPIKeyAuth(", "jwks_router("))
