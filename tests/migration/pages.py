"""Checks for the pages about other libraries: their tables are compared with the applications that they describe."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

_CODE = re.compile(r"`([^`]+)`")
_NAME = re.compile(r"@?([A-Za-z_][\w.]*)")


class Answer(Protocol):
    """The response that a client gets, in any process."""

    status_code: int
    headers: Mapping[str, str]

    def json(self) -> Any:
        """Return the body."""
        ...


def seen(answer: Answer) -> str:
    """Return how a table describes a response: the status, and of a refusal the challenge and the text too."""
    if answer.status_code < 400:
        return str(answer.status_code)
    challenge = answer.headers.get("www-authenticate")
    body = answer.json()
    text = body.get("detail", body.get("message"))
    return f"{answer.status_code}, {f'`{challenge}`' if challenge else 'no challenge'}, `{text}`"


def assert_rows(found: Mapping[str, Sequence[object]], title: str, *, columns: int | None = None) -> None:
    """Compare the table under ``title`` with what was found, by the first cell of each row.

    With ``columns`` so many are compared, and each row has a text behind them.
    """
    table = _table(_page(), title)
    assert len(table) == len(found)
    written = {row[0]: row[1:] for row in table}
    if columns is not None:
        assert all(row[columns + 1 :] for row in table)
        written = {name: cells[:columns] for name, cells in written.items()}
    rows = {name: [str(cell) for cell in row] for name, row in found.items()}
    differing = {name: (written.get(name), row) for name, row in rows.items() if written.get(name) != row}
    assert differing == {}, differing


def assert_clients_see(answers: Mapping[str, Sequence[Answer]], title: str = "What changes for clients") -> None:
    """Compare each row of the table under ``title`` with the responses that it describes, one a column."""
    assert_rows({row: [seen(answer) for answer in given] for row, given in answers.items()}, title)


def assert_names(*lookups: Callable[[str], object], title: str = "What is called what") -> None:
    """Look up the name that begins each piece of code in the table under ``title``, by one function a column.

    What ends in an equals sign is a keyword argument, and no name.
    """
    table = _table(_page(), title)
    found = 0
    for row in table:
        for cell, look_up in zip(row, lookups, strict=True):
            for code in (piece for piece in _CODE.findall(cell) if not piece.endswith("=")):
                name = _NAME.match(code)
                assert name, code
                look_up(name[1].rstrip("."))
                found += 1
    assert found > len(table) // 2


def named_in(*places: ModuleType | Mapping[str, Any]) -> Callable[[str], object]:
    """Return a function that looks a name up, dots included, in all of these modules and namespaces."""
    names = {}
    for place in places:
        names.update(vars(place) if isinstance(place, ModuleType) else place)

    def look_up(name: str) -> object:
        found, *attributes = name.split(".")
        return reduce(getattr, attributes, names[found])

    return look_up


def _page() -> str:
    frame = sys._getframe()
    while frame.f_code.co_filename == __file__:
        assert frame.f_back
        frame = frame.f_back
    return Path(frame.f_code.co_filename).read_text(encoding="utf-8")


def _table(page: str, title: str) -> list[list[str]]:
    section = page.split(f"\n## {title}\n")[1].split("\n## ", maxsplit=1)[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


class FormerAnswer:
    """An answer of an application in another process."""

    def __init__(self, status_code: int, headers: dict[str, str], body: Any) -> None:
        """Keep what came."""
        self.status_code = status_code
        self.headers = headers
        self._body = body

    def json(self) -> Any:
        """Return the body."""
        return self._body


class FormerApplication:
    """The application in the first block of a page, in the Python that the session made for its library."""

    def __init__(self, variable: str) -> None:
        """Start it in the interpreter that the environment variable names."""
        source = re.search(r"^```python\n(.*?)^```$", _page(), flags=re.MULTILINE | re.DOTALL)
        assert source
        Path("former.py").write_text(source[1], encoding="utf-8")
        serving = Path(__file__).with_name("serving.py")
        command = [os.environ[variable], str(serving), "former.py"]
        self._process = subprocess.Popen(  # noqa: S603 - our own command
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def get(self, path: str, **sent: Any) -> FormerAnswer:
        """Send a GET."""
        return FormerAnswer(*self._ask({"method": "GET", "url": path, **sent}))

    def post(self, path: str, **sent: Any) -> FormerAnswer:
        """Send a POST."""
        return FormerAnswer(*self._ask({"method": "POST", "url": path, **sent}))

    def evaluate(self, expression: str) -> Any:
        """Return what an expression is among the names of the application, as JSON has it."""
        return self._ask({"expression": expression})

    def close(self) -> None:
        """End it, and see that it ended well."""
        self._process.communicate()
        assert self._process.returncode == 0

    def _ask(self, question: dict[str, Any]) -> Any:
        assert self._process.stdin
        assert self._process.stdout
        print(json.dumps(question), file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())
