"""The tutorial from its first line to its last: each piece is typed in, served, and called as on the page."""

import doctest
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen
from typing import IO, NamedTuple

import pytest

import fastapi_guard
from support.commands import running_program

# The lines of Python run on each version, as those of every page.
pytestmark = pytest.mark.once

TUTORIAL = Path(__file__).parent.parent / "docs" / "tutorial"
PARTS = ("quickstart.md", "api-keys.md", "refresh-tokens.md", "second-factor.md", "deployment.md")
PRINTED_ADDRESS = "127.0.0.1:8000"
PRINTED_REDIS = "redis://127.0.0.1:6379/0"
# The page's first block makes an environment of its own; here the tests' own stands for it.
SET_UP = "python3.11 -m venv"


class Server(NamedTuple):
    """A block that starts the server: its number on the pages, the lines before, and the command."""

    number: int
    before: str
    command: str


class Step(NamedTuple):
    """A line of the shell, the output shown below it, and what `main.py` contains and what serves it by then."""

    part: str
    line: str
    output: str
    source: str
    server: Server


def steps() -> list[Step]:
    """Return the lines of the tutorial in their order; a block that makes the application starts the file again."""
    source, found = "", []
    server = Server(0, "", "")
    for part in PARTS:
        text = (TUTORIAL / part).read_text(encoding="utf-8")
        for language, block in re.findall(r"^```(\w+)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL):
            if language == "python":
                source = block if "app = FastAPI()" in block else f"{source}\n{block}"
            elif language == "diff":
                source = changed(source, block)
            elif language == "bash" and SET_UP not in block:
                before, start, command = re.split(r"^(?=(uvicorn|gunicorn) )", block, flags=re.MULTILINE)
                assert start in command
                server = Server(server.number + 1, before, command)
            elif language == "console":
                pieces = re.findall(r"^\$ ((?:.*\\\n)*.*)\n((?:(?!\$ ).*\n)*)", block, flags=re.MULTILINE)
                found += [Step(part, line, output, source, server) for line, output in pieces]
    return found


def changed(source: str, diff: str) -> str:
    """Return the source with the lines of a block of changes, whose context is in it once."""
    lines = diff.splitlines(keepends=True)
    former = "".join(line[1:] for line in lines if not line.startswith("+"))
    assert source.count(former) == 1, former
    return source.replace(former, "".join(line[1:] for line in lines if not line.startswith("-")))


@contextmanager
def started(words: Sequence[str], folder: Path, environment: Mapping[str, str]) -> Iterator[IO[str]]:
    """Yield the log of a server while it runs; a daemon, as of `running_program`, starts no workers."""
    command = [sys.executable, "-m", *words]
    with Popen(command, cwd=folder, env=environment, stderr=PIPE, stdout=DEVNULL, text=True) as process:  # noqa: S603
        assert process.stderr is not None
        yield process.stderr
        process.terminate()
        process.communicate(timeout=60)


class Reader:  # pragma: no cover - as the test that has it
    """A reader who follows the tutorial, with a folder, a shell and a server."""

    def __init__(self, folder: Path, redis: str) -> None:
        """Sit down in an empty folder."""
        programs, package = folder / "bin", Path(fastapi_guard.__file__).parent.parent
        programs.mkdir()
        for name, arguments in (("fastapi-guard", "-m fastapi_guard"), ("python", "")):
            command = programs / name
            command.write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments} "$@"\n', encoding="utf-8")
            command.chmod(0o700)
        self.environment = {
            **os.environ,
            "HOME": str(folder),  # where gunicorn has a socket
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(package),
        }
        self.redis = redis
        self.folder = folder / "app"
        self.folder.mkdir()
        self.shell = Popen(["sh"], stdin=PIPE, stdout=PIPE, text=True, cwd=self.folder, env=self.environment)  # noqa: S607
        self.server = ExitStack()
        self.served: tuple[str, Server] | None = None
        self.address = ""

    def write(self, source: str) -> None:
        """Save `main.py`."""
        (self.folder / "main.py").write_text(source, encoding="utf-8")

    def serve(self, source: str, server: Server) -> None:
        """Serve `main.py`, and restart the server if the file or the command has changed."""
        if (source, server) == self.served:
            return
        self.stop_serving()
        command = server.command.replace("\\\n", " ").replace(PRINTED_ADDRESS, "127.0.0.1:0")
        program, *options = shlex.split(command)
        words = [program, *(option for option in options if option != "--reload")]
        if program == "uvicorn":
            words += ["--port", "0", "--no-access-log"]
        environment = self.exported(server.before)
        if "--workers" in words:
            output = self.server.enter_context(started(words, self.folder, environment))
        else:
            output = self.server.enter_context(
                running_program(*words, environment=environment, folder=self.folder, stream="stderr")
            )
        said = ""
        address = None
        # uvicorn prints the address before its workers listen.
        while address is None or "startup complete" not in said:
            line = output.readline()
            assert line, said
            said += line
            address = re.search(r"(?:running on|Listening at:) http://(127\.0\.0\.1:\d+)", said)
        self.served, self.address = (source, server), address[1]

    def exported(self, lines: str) -> dict[str, str]:
        """Return the environment of the server's shell after these lines."""
        command = ["sh", "-c", f"{lines}\nenv -0"]
        output = subprocess.check_output(command, cwd=self.folder, env=self.environment, text=True)  # noqa: S603
        return dict(variable.split("=", 1) for variable in output.split("\0") if variable)

    def stop_serving(self) -> None:
        """End the server, where there is one."""
        self.server.close()

    def type(self, line: str) -> str:
        """Return what a line of the shell prints."""
        assert self.shell.stdin is not None
        assert self.shell.stdout is not None
        line = line.replace(PRINTED_ADDRESS, self.address).replace(PRINTED_REDIS, self.redis)
        self.shell.stdin.write(f"{line}\necho; echo '-- done --'\n")
        self.shell.stdin.flush()
        printed = "".join(iter(self.shell.stdout.readline, "-- done --\n"))
        return printed.replace("\r", "").strip("\n") + "\n"

    def leave(self) -> None:
        """End the shell and the server."""
        self.shell.communicate(timeout=60)
        self.stop_serving()


@pytest.fixture(scope="module")
def reader(
    tmp_path_factory: pytest.TempPathFactory, redis_url: str
) -> Iterator[Reader]:  # pragma: no cover - as the test that has it
    """Yield a reader, who goes on where the part before ended, and leaves nothing running."""
    sitting = Reader(tmp_path_factory.mktemp("reader"), redis_url)
    yield sitting
    sitting.leave()


# A machine with only Python and pip passes the tests too, without this one; CI installs curl.
@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
@pytest.mark.parametrize("part", PARTS)
def test_the_tutorial(reader: Reader, part: str) -> None:  # pragma: no cover - see skipif
    """Every line prints the output shown below it: logins, scopes, keys, second factors, workers, rotations."""
    agree = doctest.OutputChecker().check_output
    for step in (step for step in steps() if step.part == part):
        reader.write(step.source)
        if PRINTED_ADDRESS in step.line:
            reader.serve(step.source, step.server)
        printed = reader.type(step.line)
        assert agree(step.output or "\n", printed, doctest.ELLIPSIS), f"$ {step.line}\n{printed}"


def test_the_tutorial_sets_up_what_its_parts_need() -> None:
    """The environment of the tutorial has the extras of the README and Redis, so that it has every command."""
    page = (TUTORIAL / PARTS[0]).read_text(encoding="utf-8")
    readme = (TUTORIAL.parent.parent / "README.md").read_text(encoding="utf-8")
    (extras,) = re.findall(r"pip install '(\.\[.*?\])'", page)
    (readme_extras,) = re.findall(r"pip install '\.\[(.*?)\]' && .venv/bin/fastapi-guard demo", readme)
    # The last part counts the attempts at the login in a Redis.
    assert extras.strip(".[]").split(",") == sorted([*readme_extras.split(","), "redis"])
    assert f"\n{SET_UP} .venv\n" in page


def test_the_parts_follow_each_other() -> None:
    """Each part leads to the next, and the last is the whole application."""
    for part, following in pairwise(PARTS):
        assert f"]({following})" in (TUTORIAL / part).read_text(encoding="utf-8")
    last = steps()[-1].source
    assert all(name in last for name in ("LocalAuth(", "RefreshTokens(", "DatabaseAPIKeyAuth(", "TOTP("))
