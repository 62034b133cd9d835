"""The lines of curl on the page about accounts, typed in against the application that it shows."""

import doctest
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from support.commands import running_program

# The lines of Python run on each version, as those of every page.
pytestmark = pytest.mark.once

PAGE = (Path(__file__).parent.parent / "docs" / "how-to" / "accounts.md").read_text(encoding="utf-8")
PRINTED_ADDRESS = "localhost:8000"
TOKEN = "TOKEN=..."


def block(language: str) -> str:
    """Return the first block of a language."""
    found = re.search(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


# A machine with only Python and pip passes the tests too, without this one; CI installs curl.
@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_lines_of_curl(tmp_path: Path) -> None:  # pragma: no cover - see skipif
    """Each line prints what the page shows, with the token of the message that the server prints."""
    (tmp_path / "main.py").write_text(block("python"), encoding="utf-8")
    words = ("uvicorn", "main:app", "--port", "0", "--no-access-log")
    lines = re.findall(r"^\$ ((?:.*\\\n)*.*)\n((?:(?!\$ ).*\n)*)", block("console"), flags=re.MULTILINE)
    assert len(lines) > 5
    agree = doctest.OutputChecker().check_output
    with running_program(*words, environment=dict(os.environ), folder=tmp_path, stream="stderr") as server:
        printed = ""
        while (address := re.search(r"running on http://127\.0\.0\.1:(\d+)", printed)) is None:
            printed += server.readline()
        token = ""
        for line, output in lines:
            if line.startswith(TOKEN):
                # The message is sent after the answer.
                while (link := re.search(r"#token=(\S+)", printed)) is None:
                    printed += server.readline()
                token = link[1]
                continue
            typed = line.replace(PRINTED_ADDRESS, f"localhost:{address[1]}").replace("$TOKEN", token)
            done = subprocess.run(["sh", "-c", typed], cwd=tmp_path, capture_output=True, text=True, check=True)  # noqa: S603, S607
            assert agree(output, done.stdout.rstrip("\n") + "\n", doctest.ELLIPSIS), f"$ {typed}\n{done.stdout}"
