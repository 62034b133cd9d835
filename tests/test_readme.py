"""The README: its example, its features, and its `curl` lines, which run against the served demo."""

import doctest
import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.commands import running_program

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PRINTED_ADDRESS = "127.0.0.1:8000"
SEPARATOR = "-- next --"


def calls() -> list[tuple[str, str]]:
    """Return each line of the README's block of calls, with the output below it."""
    (block,) = (block for block in re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL) if "curl" in block)
    lines = re.findall(r"^([^#\n].*)\n((?:# .*\n)*)", block, flags=re.MULTILINE)
    return [(line, re.sub(r"^# ", "", output, flags=re.MULTILINE)) for line, output in lines]


@pytest.fixture(scope="module")
def printed() -> Iterator[list[str]]:
    """Serve the demo at a free port of this machine, and return what it prints."""
    with running_program("fastapi_guard", "demo", "--port", "0", environment=dict(os.environ)) as output:
        # It listens before it prints, so a call need not wait for the server.
        yield [output.readline().rstrip("\n") for _ in range(1 + len(calls()))]


def address_in(printed: list[str]) -> str:
    """Return the address of the demo."""
    found = re.match(r"# Serving at http://(127\.0\.0\.1:\d+),", printed[0])
    assert found is not None
    return found[1]


def test_the_readme_shows_what_the_demo_prints(printed: list[str]) -> None:
    """The lines of the README are those of the demo, at its usual address."""
    lines = [line.replace(address_in(printed), PRINTED_ADDRESS) for line in printed[1:]]
    assert lines == [line for line, _ in calls()]


# A machine with only Python and pip passes the other tests; CI installs curl.
@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_output_of_the_calls(printed: list[str]) -> None:  # pragma: no cover - see skipif
    """Each call prints the output below it: a login, posts, 403 of an owner and of a scope, a key, a 401."""
    script = f"\necho; echo '{SEPARATOR}'\n".join(line for line, _ in calls())
    script = script.replace(PRINTED_ADDRESS, address_in(printed))
    shell = subprocess.run(["sh", "-euc", script], check=True, capture_output=True, text=True, timeout=60)  # noqa: S603, S607
    answers = [text.replace("\r", "").strip("\n") + "\n" for text in shell.stdout.split(SEPARATOR)]
    # A login may go on into the next second, so a second less of its hour may be left.
    answers = [re.sub(r'"expires_in":359\d\b', '"expires_in":3600', text) for text in answers]
    wanted = [output or "\n" for _, output in calls()]
    agree = doctest.OutputChecker().check_output
    assert [
        (want, got) for want, got in zip(wanted, answers, strict=True) if not agree(want, got, doctest.ELLIPSIS)
    ] == []


def test_the_calls_cover_the_demo() -> None:
    """The README calls each kind of path of the demo, and shows a refusal with its challenge."""
    lines = [line for line, _ in calls()]
    for path in ("/health", "/token", "/token/refresh", "/me", "/posts", "/posts/1", "/admin/users", "/keys"):
        assert any(f"$URL{path} " in f"{line} " for line in lines)
    assert any("401" in output and "www-authenticate: Bearer" in output for _, output in calls())


def test_the_example_is_short() -> None:
    """The first block of the README is an application of at most 25 lines."""
    (example, *_) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert "FastAPI()" in example
    assert len(example.splitlines()) <= 25


def test_the_source_distribution_has_what_is_linked() -> None:
    """The index of packages shows this page without the files that it links: they are in the source distribution."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    included = project["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    linked = {path for path in re.findall(r"(?:\]\(|src=\")([^)#\"]+)", README) if "://" not in path}
    assert len(linked) > 50
    assert [path for path in linked if f"/{path.partition('/')[0]}" not in included and "/" in path] == []
    assert {path for path in linked if "/" not in path} == {"CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"}
    assert "/*.md" in included


def test_the_features() -> None:
    """Each feature in the table links to a page that exists, and the home page of the site lists the same features."""
    (table,) = re.findall(r"^\| feature \|.*\n\|.*\n((?:\|.*\n)+)", README, flags=re.MULTILINE)
    rows = [row.split("|")[1:3] for row in table.splitlines()]
    home = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    assert len(rows) > 10
    for name, pages in rows:
        links = re.findall(r"\]\(([^)#]+)", pages)
        assert links
        assert all((ROOT / link).is_file() for link in links), name
        assert any(f"]({link.removeprefix('docs/')}" in home for link in links), name
