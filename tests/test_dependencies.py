"""pyproject.toml declares what the package imports, and nothing else."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import files, packages_distributions
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "fastapi_guard"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MODULES = [path.relative_to(PACKAGE).as_posix() for path in sorted(PACKAGE.rglob("*.py"))]

EXTRAS = {
    "sqlalchemy": {"sqlalchemy", "greenlet", "aiosqlite"},
    "passwords": {"libpass", "argon2-cffi", "bcrypt"},
    "http": {"httpx2"},
    "auth0": {"auth0-api-python"},
    "redis": {"redis"},
    "throttle": {"limits"},
    "mcp": {"mcp"},
    "totp": {"pyotp", "segno"},
    "passkeys": {"webauthn"},
    "yaml": {"pyyaml"},
    "cli": {"typer", "rich"},
    "serve": {"uvicorn", "python-multipart", "websockets"},
}

# Declared and not imported by the package: another library loads it by name.
LOADED_BY_ANOTHER = {
    "aiosqlite": "SQLAlchemy, for sqlite+aiosqlite://",
    "argon2-cffi": "libpass, for argon2id",
    "bcrypt": "libpass, for bcrypt",
    "python-multipart": "Starlette, for forms",
    "websockets": "uvicorn, for WebSockets",
}

# Modules of the standard library that the oldest Python does not have; they are imported where the version has them.
OF_A_NEWER_PYTHON = {"annotationlib"}

# Imported and not declared: fastapi_guard.testing.fixtures is a plugin, which only pytest imports.
PLUGINS_OF = {"pytest"}


@cache
def installed() -> Mapping[str, list[str]]:
    """Return the distributions of each top-level module."""
    return packages_distributions()


def names(requirements: list[str]) -> set[str]:
    """Return the distributions that requirements name, normalised (PEP 503)."""
    return {normalised(re.split(r"[\[>=<~!; @]", requirement, maxsplit=1)[0]) for requirement in requirements}


def normalised(name: str) -> str:
    """Return the name of a distribution as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def is_type_checking(node: ast.AST) -> bool:
    """Return whether `node` is an `if TYPE_CHECKING` block, which imports nothing at run time."""
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def modules_imported(tree: ast.AST) -> Iterator[str]:
    """Yield the absolute module of every import below `tree`, also within functions."""
    for node in ast.iter_child_nodes(tree):
        if is_type_checking(node):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield str(node.module)
        else:
            yield from modules_imported(node)


def distributions_imported(source: str) -> set[str]:
    """Return the distributions that a module imports from, the standard library and the package left out."""
    imported = set(modules_imported(ast.parse(source)))
    own = sys.stdlib_module_names | OF_A_NEWER_PYTHON | {"fastapi_guard"}
    return {distribution_of(module) for module in imported if module.partition(".")[0] not in own}


@cache
def imported_by(module: str) -> set[str]:
    """Return the distributions that a module of the package imports from."""
    return distributions_imported((PACKAGE / module).read_text(encoding="utf-8"))


def distribution_of(module: str) -> str:
    """Return the distribution of a module; several may share a namespace package, such as `opentelemetry`."""
    candidates = installed()[module.partition(".")[0]]
    path = module.replace(".", "/")
    (found,) = candidates if len(candidates) == 1 else [name for name in candidates if has_package(name, path)]
    return normalised(found)


def has_package(name: str, path: str) -> bool:
    """Return whether the package at `path` is one of this distribution."""
    return any(file.as_posix() == f"{path}/__init__.py" for file in files(name) or ())


CORE = names(PROJECT["dependencies"])


def test_the_core_is_fastapi_and_joserfc_and_what_these_bring() -> None:
    """The core requires FastAPI, joserfc and libraries that one of these installs anyway."""
    assert {"fastapi", "joserfc"} <= CORE
    brought = {
        "anyio",
        "cryptography",
        "opentelemetry-api",
        "pydantic",
        "starlette",
        "typing-extensions",
    }
    assert CORE - {"fastapi", "joserfc"} <= brought


def test_the_extras() -> None:
    """Each extra brings the libraries of one concern; `all` is all of them."""
    extras = dict(PROJECT["optional-dependencies"])
    assert extras.pop("all") == [f"fastapi-guard-auth[{','.join(extras)}]"]
    assert {extra: names(requirements) for extra, requirements in extras.items()} == EXTRAS


@pytest.mark.parametrize("module", MODULES)
def test_every_import_is_declared(module: str) -> None:
    """A module imports distributions of the core, of an extra, or the tool that it is a plugin of."""
    assert imported_by(module) <= CORE.union(*EXTRAS.values(), PLUGINS_OF)


def test_every_declared_distribution_is_imported() -> None:
    """A declared distribution is imported by the package, or loaded by a library that is."""
    assert CORE.union(*EXTRAS.values()) - set().union(*map(imported_by, MODULES)) == LOADED_BY_ANOTHER.keys()


def test_imports_are_found() -> None:
    """Imports of modules and of names are found, in functions and in try blocks; those for type checkers are not."""
    source = """
import sqlalchemy.orm, re, opentelemetry.metrics
from . import a
from fastapi_guard import b
if TYPE_CHECKING:
    import redis
def f():
    try:
        from yaml import safe_load
    except ImportError:
        pass
"""
    assert distributions_imported(source) == {"sqlalchemy", "opentelemetry-api", "pyyaml"}
