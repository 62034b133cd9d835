"""The commands of the README of examples/saas, typed in where the folder was copied to."""

import doctest
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest

from support.commands import running_program

pytestmark = pytest.mark.once

SOURCE = Path(__file__).parents[2] / "examples" / "saas"
README = (SOURCE / "README.md").read_text(encoding="utf-8")
PRINTED_SITE = "http://localhost:8000"
SERVING = "uvicorn saas.main:app"
FROM_THE_MESSAGE = "TOKEN=..."
END = "the end of a command"


def commands(title: str) -> Iterator[tuple[str, str]]:
    """Return the commands below a title, each with what it prints."""
    section = README.split(f"\n## {title}\n")[1].split("\n## ")[0]
    for block in re.findall(r"^```console\n(.*?)^```$", section, flags=re.MULTILINE | re.DOTALL):
        yield from re.findall(r"^\$ ((?:.*\\\n)*.*)\n((?:(?!\$ ).*\n)*)", block, flags=re.MULTILINE)


def line_of(server: TextIO) -> str:  # pragma: no cover - see skipif
    """Return the next line of the server, which is still running."""
    line = server.readline()
    assert line, "the server has ended"
    return line


# A machine with only Python and pip passes the tests too, without this one; CI installs curl.
@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_commands_of_the_readme(tmp_path: Path) -> None:  # pragma: no cover - see skipif
    """Each command prints what the README shows, with the token of the message that the server prints."""
    shutil.copytree(SOURCE, tmp_path / "saas", ignore=shutil.ignore_patterns("__pycache__"))
    scripts = str(Path(sys.executable).parent)
    environment = {**os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"}
    *exports, generate, (serving, _) = commands("Run it")
    assert serving == SERVING
    shown = subprocess.run(  # noqa: S603
        ["sh", "-c", "\n".join([*(command for command, _ in [*exports, generate]), "env -0"])],  # noqa: S607
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    environment = dict(line.split("=", 1) for line in shown.stdout.partition("\n")[2].split("\0") if "=" in line)
    words = (*SERVING.split(), "--port", "0", "--no-access-log")
    agree = doctest.OutputChecker().check_output
    with running_program(*words, environment=environment, folder=tmp_path, stream="stderr") as server:
        printed = ""
        while (address := re.search(r"running on http://127\.0\.0\.1:(\d+)", printed)) is None:
            printed += line_of(server)
        # The tokens are of the site that the README has; it is where the server listens alone that differs.
        environment["SAAS_SITE"] = f"http://localhost:{address[1]}"
        shell = subprocess.Popen(
            ["sh"],  # noqa: S607
            cwd=tmp_path,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        with shell:
            assert shell.stdin is not None
            assert shell.stdout is not None
            for command, expected in commands("Use it"):
                typed = command
                if command.startswith(FROM_THE_MESSAGE):
                    # The message is sent after the answer.
                    while (link := re.search(r"#token=(\S+)", printed)) is None:
                        printed += line_of(server)
                    typed = f"TOKEN={link[1]}"
                shell.stdin.write(f"{typed}\necho; echo '{END}'\n")
                shell.stdin.flush()
                output = "".join(iter(shell.stdout.readline, f"{END}\n")).rstrip("\n") + "\n"
                assert agree(expected or "\n", output, doctest.ELLIPSIS), f"$ {command}\n{output}"
            shell.stdin.close()
