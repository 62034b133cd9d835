"""Find phrases to avoid in the prose of the repository, and code on pages that is too wide.

Run it with ``python tests/words/check.py``; ``--update`` drops files that are clean now from ``to_clean.txt``. It needs
nothing but Python. ``phrases.toml`` has the phrases, ``exceptions.toml`` the reviewed exceptions.
"""

import ast
import io
import re
import sys
import tokenize
import tomllib
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = Path(__file__).parent
TO_CLEAN = FOLDER / "to_clean.txt"
# Python files whose strings are messages to users, and are checked too. In tests, strings are data.
WITH_STRINGS = ("fastapi_guard", "examples", "docs", "noxfile.py")
PATTERNS = (
    "*.md",
    "docs/**/*.md",
    "tests/*.md",
    "docs/**/*.py",
    "fastapi_guard/**/*.py",
    "examples/**/*.py",
    "examples/**/*.md",
    "tests/**/*.py",
    "noxfile.py",
    "conftest.py",
    "mkdocs.yml",
    "pyproject.toml",
    ".ci/run",
)
# The loop variable that no reader can tell from another.
EACH = "each"
# The longest line of code on a page that a reader sees without scrolling.
MAX_COLUMNS = 88


@dataclass(frozen=True)
class Phrase:
    """A pattern to avoid, the words to write instead, and the part of a file where it is looked for."""

    pattern: re.Pattern[str]
    write: str
    part: str
    finds: tuple[str, ...]
    passes: tuple[str, ...]


@dataclass(frozen=True)
class Allowed:
    """A reviewed exception: words in one file, and the reason why they stay."""

    file: str
    text: str
    reason: str


@dataclass(frozen=True)
class Finding:
    """A phrase in a file, with its line (from 1) and the words around it."""

    file: str
    line: int
    found: str
    context: str
    write: str

    def __str__(self) -> str:
        """Return the finding as one line of a report."""
        return f"{self.file}:{self.line}: {self.found!r} in {self.context!r}; write: {self.write}"


@dataclass
class Block:
    """A piece of prose with its white space collapsed, which remembers the line of each word."""

    text: str = ""
    starts: list[int] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, text: str, line: int) -> "Block":
        """Collapse the white space of a text that begins at a line."""
        block = cls()
        pieces: list[str] = []
        length = 0
        for number, words in enumerate(text.split("\n"), line):
            if stripped := " ".join(words.split()):
                block.starts.append(length)
                block.lines.append(number)
                pieces.append(stripped)
                length += len(stripped) + 1
        block.text = " ".join(pieces)
        return block

    def line_of(self, position: int) -> int:
        """Return the line of a position in the collapsed text."""
        return self.lines[bisect_right(self.starts, position) - 1]


def read_phrases() -> list[Phrase]:
    """Return the phrases to avoid."""
    return [
        Phrase(
            re.compile(entry["pattern"]),
            entry["write"],
            entry.get("part", "text"),
            tuple(entry["finds"]),
            tuple(entry["passes"]),
        )
        for entry in tomllib.loads((FOLDER / "phrases.toml").read_text(encoding="utf-8"))["phrase"]
    ]


def read_exceptions() -> list[Allowed]:
    """Return the reviewed exceptions."""
    listed = tomllib.loads((FOLDER / "exceptions.toml").read_text(encoding="utf-8"))["exceptions"]
    return [Allowed(**entry) for entry in listed]


def files_to_clean() -> list[str]:
    """Return the files that still have phrases to avoid. The list may only become shorter."""
    lines = TO_CLEAN.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def checked_files() -> list[str]:
    """Return the paths of all files with prose, from the root of the repository."""
    found = {path.relative_to(ROOT) for pattern in PATTERNS for path in ROOT.glob(pattern)}
    return sorted(path.as_posix() for path in found if "__pycache__" not in path.parts)


def comments(source: str) -> Iterator[Block]:
    """Yield the comments of a Python file; comments on consecutive lines are one block."""
    gathered: list[str] = []
    first = 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT:
            continue
        if gathered and token.start[0] != first + len(gathered):
            yield Block.of("\n".join(gathered), first)
            gathered = []
        first = first if gathered else token.start[0]
        gathered.append(token.string.lstrip("#:"))
    yield Block.of("\n".join(gathered), first)


def docstrings(tree: ast.Module) -> Iterator[ast.Constant]:
    """Yield each string that is a statement of its own: docstrings, also those of attributes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.value


def loops_over_each(tree: ast.Module) -> Iterator[int]:
    """Yield the lines where a variable or a parameter is called `each`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id == EACH:
            yield node.lineno
        if isinstance(node, ast.arg) and node.arg == EACH:
            yield node.lineno


def wide_lines(page: str) -> Iterator[tuple[int, str]]:
    """Yield the lines of code on a page that are too wide, with their numbers. Hidden blocks do not count."""
    for block in re.finditer(r"^```.*?^```$|^<!--.*?^-->$", page, flags=re.MULTILINE | re.DOTALL):
        if block[0].startswith("```"):
            first = page.count("\n", 0, block.start()) + 1
            lines = enumerate(block[0].split("\n"), first)
            yield from ((number, line) for number, line in lines if len(line) > MAX_COLUMNS)


def prose_of_python(source: str, *, with_strings: bool) -> Iterator[tuple[str, Block]]:
    """Yield the prose of a Python file with the part that it is: "text" or "summary"."""
    tree = ast.parse(source)
    documented = {id(node): node for node in docstrings(tree)}
    for node in documented.values():
        yield "text", Block.of(str(node.value), node.lineno)
        yield "summary", Block.of(str(node.value).strip().partition("\n\n")[0], node.lineno)
    if with_strings:
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documented:
                yield "text", Block.of(node.value, node.lineno)
    for block in comments(source):
        yield "text", block


def prose(file: str, source: str) -> Iterator[tuple[str, Block]]:
    """Yield the prose of a file with the part that it is."""
    if file.endswith(".py"):
        yield from prose_of_python(source, with_strings=file.startswith(WITH_STRINGS))
    else:
        yield "text", Block.of(source, 1)


class Checker:
    """The phrases and the exceptions, with the exceptions that were used."""

    def __init__(self, phrases: Iterable[Phrase], exceptions: Iterable[Allowed]) -> None:
        """Remember what to look for."""
        self.phrases = list(phrases)
        self.exceptions = list(exceptions)
        self.used: set[Allowed] = set()

    def findings(self, file: str, source: str) -> list[Finding]:
        """Return the findings in a file, each place once, in the order of the lines."""
        found = {finding for part, block in prose(file, source) for finding in self._in_block(file, part, block)}
        if file.endswith(".py"):
            write = "a loop variable named after the thing"
            found |= {Finding(file, line, EACH, EACH, write) for line in loops_over_each(ast.parse(source))}
        if file.endswith(".md"):
            write = f"code of at most {MAX_COLUMNS} columns"
            wide = [(line, text) for line, text in wide_lines(source) if self._without_exceptions(file, text) == text]
            found |= {Finding(file, line, f"{len(text)} columns", text, write) for line, text in wide}
        return sorted(found, key=lambda finding: (finding.line, finding.found, finding.context))

    def _in_block(self, file: str, part: str, block: Block) -> Iterator[Finding]:
        text = self._without_exceptions(file, block.text)
        for phrase in self.phrases:
            if phrase.part == part:
                for match in phrase.pattern.finditer(text):
                    context = block.text[max(0, match.start() - 30) : match.end() + 30]
                    yield Finding(file, block.line_of(match.start()), match[0], context, phrase.write)

    def _without_exceptions(self, file: str, text: str) -> str:
        for allowed in self.exceptions:
            if allowed.file == file and allowed.text in text:
                self.used.add(allowed)
                text = text.replace(allowed.text, " " * len(allowed.text))
        return text

    @property
    def unused(self) -> list[Allowed]:
        """The exceptions that no file needed."""
        return [allowed for allowed in self.exceptions if allowed not in self.used]


def all_findings(checker: Checker) -> dict[str, list[Finding]]:
    """Return the findings of every file that has any."""
    sources = {file: (ROOT / file).read_text(encoding="utf-8") for file in checked_files()}
    found = {file: checker.findings(file, source) for file, source in sources.items()}
    return {file: findings for file, findings in found.items() if findings}


def mistakes(found: dict[str, list[Finding]], to_clean: list[str], unused: Iterable[Allowed]) -> list[str]:
    """Return the lines of the report: findings outside the list, clean files on it, exceptions without use."""
    lines = [str(finding) for file, findings in found.items() if file not in to_clean for finding in findings]
    lines += [
        f"{file} is clean or gone: run `python tests/words/check.py --update`" for file in to_clean if file not in found
    ]
    lines += [f"exceptions.toml: nothing in {allowed.file} needs {allowed.text!r}" for allowed in unused]
    return lines


def update(found: dict[str, list[Finding]]) -> None:
    """Drop the files that are clean or gone from the list of files to clean."""
    lines = TO_CLEAN.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if line.startswith("#") or not line.strip() or line.strip() in found]
    TO_CLEAN.write_text("".join(kept), encoding="utf-8")


def main(arguments: list[str]) -> int:
    """Print the findings; return 1 where there are any. Files named as arguments are checked, listed or not."""
    checker = Checker(read_phrases(), read_exceptions())
    found = all_findings(checker)
    if arguments == ["--update"]:
        update(found)
        arguments = []
    if arguments:
        lines = [str(finding) for file in arguments for finding in found.get(file, ())]
    else:
        lines = mistakes(found, files_to_clean(), checker.unused)
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
