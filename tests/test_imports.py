"""What importing loads, and what it asks for; run with each extra alone, and with all of them."""

import os
import subprocess
import sys

INSTALLED_EXTRAS = os.environ.get("INSTALLED_EXTRAS", "all").split()

# Without bcrypt, which cryptography loads by itself where it is there.
OPTIONAL_LIBRARIES = {
    "aiosqlite",
    "argon2",
    "auth0_api_python",
    "httpx",
    "httpx2",
    "limits",
    "passlib",
    "redis",
    "rich",
    "sqlalchemy",
    "typer",
    "uvicorn",
    "websockets",
    "yaml",
}

IMPORT_EVERYTHING = """
import importlib, pkgutil, fastapi_guard
for module in pkgutil.walk_packages(fastapi_guard.__path__, "fastapi_guard."):
    try:
        importlib.import_module(module.name)
    except fastapi_guard.MissingExtraError as error:
        print(module.name, error)
"""


def run(code: str) -> list[str]:
    """Return the lines that a new interpreter prints."""
    python = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(python, check=True, capture_output=True, text=True).stdout.splitlines()  # noqa: S603 - ours


def test_the_core_loads_no_optional_library() -> None:
    """`import fastapi_guard` loads nothing that only an extra brings."""
    loaded = run("import fastapi_guard, sys; print(*sys.modules, sep='\\n')")
    assert "fastapi_guard.auth" in loaded
    assert not OPTIONAL_LIBRARIES.intersection(loaded)


def test_a_module_without_its_extra_names_it() -> None:
    """Every module imports, or raises MissingExtraError with the command that installs what is missing."""
    missing = run(IMPORT_EVERYTHING)
    assert all("pip install 'fastapi-guard-auth[" in line for line in missing)
    assert not [line for line in missing if any(f"[{extra}]" in line or extra == "all" for extra in INSTALLED_EXTRAS)]
