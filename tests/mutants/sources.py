"""Write a copy of the package in which each function of the chosen modules selects one of its mutants when called."""

import difflib
import re
import shutil
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mutmut.mutation.file_mutation import MutatedFile, mutate_file_contents

ROOT = Path(__file__).parents[2]
PACKAGE = "fastapi_guard"
SETTINGS: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["mutmut"]
# Names of mutants: "x_parse__mutmut_3" of a function, "xǁKeysǁissue__mutmut_3" of a method.
NUMBER, ORIGINAL = "__mutmut_", "__mutmut_orig"


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """One change of one function."""

    # As it is given on the command line: "login/tokens".
    module: str
    # As mutmut's trampoline reads it: "fastapi_guard.login.tokens.xǁTokenPairsǁissue__mutmut_1".
    name: str
    diff: str

    @property
    def function(self) -> str:
        """Return the name of what is changed, as the trampoline reports a call of it."""
        return self.name.partition(NUMBER)[0]


def paths_of(modules: Iterable[str]) -> list[Path]:
    """Return the files of modules or packages, as in "login/tokens" or "auth"; without any, those of pyproject.toml.

    Raises:
        FileNotFoundError: There is no module of this name.
    """
    patterns = {name: (f"{PACKAGE}/{name}.py", f"{PACKAGE}/{name}/**/*.py") for name in modules}
    found = []
    for name, tried in (patterns or {path: (path,) for path in SETTINGS["only_mutate"]}).items():
        paths = [path for pattern in tried for path in sorted(ROOT.glob(pattern))]
        if not paths:
            raise FileNotFoundError(f"no module of the package is called {name}")
        found += paths
    return list(dict.fromkeys(found))


def write(folder: Path, modules: Iterable[str]) -> list[Mutant]:
    """Copy the package to a folder, change the modules there, and return their mutants."""
    shutil.copytree(ROOT / PACKAGE, folder / PACKAGE, ignore=shutil.ignore_patterns("__pycache__"))
    mutants: list[Mutant] = []
    for path in paths_of(modules):
        relative = path.relative_to(ROOT)
        mutated = mutate_file_contents(str(relative), path.read_text(encoding="utf-8"))
        (folder / relative).write_text(mutated.code, encoding="utf-8")
        parts = [part for part in relative.with_suffix("").parts if part != "__init__"]
        lines = mutated.code.splitlines()
        mutants += (
            Mutant(
                module="/".join(parts[1:]) or PACKAGE,
                name=".".join([*parts, name]),
                diff=diff_of(mutated, lines, name),
            )
            for name in mutated.mutant_names
        )
    return mutants


def diff_of(mutated: MutatedFile, lines: list[str], name: str) -> str:
    """Return how a mutant differs from the function that it was made of."""
    mangled = name.partition(NUMBER)[0]
    texts = []
    for generated in (mangled + ORIGINAL, name):
        span = mutated.line_span_by_function_name[generated]
        texts.append(
            [line.replace(generated, re.split("x_|ǁ", mangled)[-1]) for line in lines[span.start - 1 : span.end]]
        )
    return "\n".join(list(difflib.unified_diff(*texts, n=1, lineterm=""))[3:])
