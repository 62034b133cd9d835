"""The guides name the extras that their code needs."""

import json
import re
import subprocess
import sys
from itertools import chain
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

GUIDES = Path(__file__).parent.parent / "docs" / "how-to"
# The libraries that code imports, by the extra that installs them.
LIBRARIES = {
    "auth0": ["auth0_api_python"],
    "cli": ["rich", "typer"],
    "http": ["httpx2"],
    "mcp": ["mcp"],
    "passkeys": ["webauthn"],
    "passwords": ["argon2", "passlib"],
    "redis": ["redis"],
    "serve": ["uvicorn"],
    "sqlalchemy": ["aiosqlite", "greenlet", "sqlalchemy"],
    "throttle": ["limits"],
    "totp": ["pyotp", "segno"],
    "yaml": ["yaml"],
}
INVISIBLE = re.compile(r"<!-- invisible.*?-->", re.DOTALL)
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
IMPORT = re.compile(
    rf"^(?:>>> )?((?:from|import) (?:fastapi_guard|{'|'.join(chain(*LIBRARIES.values()))})\b(?:[^(\n]*\([^)]*\)|.*))",
    re.MULTILINE,
)
NAMED = re.compile(r"extras?\s((?:`[a-z0-9]+`(?:,\sand\s|,\s|\sand\s)?)+)|'(?:fastapi-guard-auth|\.)\[([a-z0-9,]+)\]'")

COMMAND = re.compile(r"^```(?:console|bash)\n(?:(?!```).*\n)*?(?:\$ )?fastapi-guard [a-z]", re.MULTILINE)

# Each set of extras has a fork of its own, without the libraries of all other extras.
IMPORT_IN_FORKS = """
import json, os, sys, fastapi, fastapi_guard
for missing, lines in json.load(sys.stdin):
    if not os.fork():
        sys.modules.update(dict.fromkeys(missing))
        for page, line in lines:
            try:
                exec(line)
            except ImportError as error:
                print(f"{page}: {error}", flush=True)
        os._exit(0)
    os.wait()
"""


def named_in(text: str) -> frozenset[str]:
    """Return the extras that the text of a page names."""
    named = {name for match in NAMED.finditer(text) for name in re.findall(r"[a-z0-9]+", match[1] or match[2])}
    return frozenset(named - {"and"})


def imports_in(text: str) -> list[str]:
    """Return the statements of the code that a reader sees, which import this package or an optional library."""
    return [line for block in BLOCK.findall(INVISIBLE.sub("", text)) for line in IMPORT.findall(block)]


def failures(pages: dict[str, str]) -> list[str]:
    """Return which import of which page fails where only the extras that the page names are installed."""
    groups: dict[frozenset[str], list[tuple[str, str]]] = {}
    for page, text in pages.items():
        groups.setdefault(named_in(text), []).extend((page, line) for line in imports_in(text))
    forks = [
        ([library for extra, names in LIBRARIES.items() if extra not in named for library in names], lines)
        for named, lines in groups.items()
    ]
    python = [sys.executable, "-c", IMPORT_IN_FORKS]
    ran = subprocess.run(python, input=json.dumps(forks), check=True, capture_output=True, text=True)  # noqa: S603 - ours
    return ran.stdout.splitlines()


def test_guides_name_the_extras_that_they_need() -> None:
    """Every import of a guide succeeds with the extras that it names, and with no other."""
    assert failures({path.name: path.read_text(encoding="utf-8") for path in sorted(GUIDES.glob("*.md"))}) == []


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("", ["page: sqlalchemy is not installed: pip install 'fastapi-guard-auth[sqlalchemy]'"]),
        ("It needs the extras `redis` and\n`sqlalchemy`, or none.", []),
        ("Install 'fastapi-guard-auth[cli,sqlalchemy]'", []),
    ],
)
def test_a_page_without_the_extra(text: str, answer: list[str]) -> None:
    """A page has to name the extra in its text or in a command."""
    code = "```python\nfrom fastapi_guard.login.users.models import (\n    Base,\n    UserMixin,\n)\n```\n"
    assert failures({"page": f"{text}\n\n{code}"}) == answer


def test_guides_name_the_extra_of_the_command() -> None:
    """Every guide with a line for a shell that calls the command names its extra."""
    texts = {path.name: path.read_text(encoding="utf-8") for path in sorted(GUIDES.glob("*.md"))}
    with_command = {name for name, text in texts.items() if COMMAND.search(text)}
    assert {"audit.md", "users.md"} & with_command == {"audit.md"}
    assert [name for name in sorted(with_command) if "cli" not in named_in(texts[name])] == []
