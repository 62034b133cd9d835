"""The README's `curl` lines, run as printed against the quickstart as it is served."""

import doctest
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PRINTED_ADDRESS = "127.0.0.1:8000"
SEPARATOR = "-- next --"


def calls() -> list[tuple[str, str]]:
    """Return each line of the README's block of calls, with what stands below it as its output."""
    (block,) = (block for block in re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL) if "curl" in block)
    lines = re.findall(r"^([^#\n].*)\n((?:# .*\n)*)", block, flags=re.MULTILINE)
    return [(line, re.sub(r"^# ", "", output, flags=re.MULTILINE)) for line, output in lines]


@pytest.fixture
def address() -> Iterator[str]:
    """Serve the quickstart as the README does, at a free port of this machine."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host, port = listener.getsockname()
        # The socket listens before the server starts: a call waits for its answer, and nobody waits for the server.
        uvicorn = ["-m", "uvicorn", "--app-dir", "examples", "quickstart:app", "--fd", str(listener.fileno())]
        server = subprocess.Popen(  # noqa: S603 - ours
            [sys.executable, *uvicorn], cwd=ROOT, pass_fds=[listener.fileno()], stderr=subprocess.DEVNULL
        )
    yield f"{host}:{port}"
    server.terminate()
    server.wait(timeout=10)


# A machine with only Python and pip passes the tests too, without this one; CI installs curl.
@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_calls_print_what_the_readme_says(address: str) -> None:  # pragma: no cover - see skipif
    """Each call prints what stands below it: login, two answers, a 401, a 403, the public keys."""
    script = f"\necho; echo '{SEPARATOR}'\n".join(line for line, _ in calls()).replace(PRINTED_ADDRESS, address)
    shell = subprocess.run(["sh", "-euc", script], check=True, capture_output=True, text=True, timeout=60)  # noqa: S603, S607
    printed = [text.replace("\r", "").strip("\n") + "\n" for text in shell.stdout.split(SEPARATOR)]
    wanted = [output or "\n" for _, output in calls()]
    agree = doctest.OutputChecker().check_output
    assert [
        (want, got) for want, got in zip(wanted, printed, strict=True) if not agree(want, got, doctest.ELLIPSIS)
    ] == []


def test_the_calls_cover_the_quickstart() -> None:
    """The README calls every path of the quickstart, and shows a refusal with its challenge."""
    lines = [line for line, _ in calls()]
    for path in ("/token", "/me", "/items", "/admin/users", "/.well-known/jwks.json"):
        assert any(f"http://{PRINTED_ADDRESS}{path} " in f"{line} " for line in lines)
    assert any("401" in output and "www-authenticate: Bearer" in output for _, output in calls())
