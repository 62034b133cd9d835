"""What importing loads, and what it asks for; run with each extra alone, and with all of them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import fastapi_guard

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
    "pyotp",
    "redis",
    "rich",
    "segno",
    "sqlalchemy",
    "typer",
    "uvicorn",
    "webauthn",
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


def test_it_is_the_installed_package() -> None:
    """Where the working tree is kept off the path, as nox does it, the package is not that of the working tree."""
    (place,) = run("import fastapi_guard; print(fastapi_guard.__file__)")
    assert Path(place) == Path(fastapi_guard.__file__)
    assert not sys.flags.safe_path or not Path(place).is_relative_to(Path(__file__).parents[1] / "fastapi_guard")


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


NO_OTHER_EXTRA = f"""
import sys
sys.modules.update(dict.fromkeys({sorted(OPTIONAL_LIBRARIES - {"rich", "typer"})}))
from fastapi_guard.__main__ import main
main()
"""


@pytest.mark.skipif(not {"all", "cli"}.intersection(INSTALLED_EXTRAS), reason="what the extra cli is for")
@pytest.mark.parametrize(
    ("command", "answer"),
    [
        ("jwk generate keys.json", "created keys.json: "),
        ("audit --factory fastapi:FastAPI", "0 routes, each guarded or allowed"),
        ("config check auth.toml", "auth.toml: no mistakes, the kind is static"),
        ("keys hash sk-alice-secret-key", "sha256:"),
        ("users add --help", "Usage: fastapi-guard users add"),
        ("keys list", "error: sqlalchemy is not installed: pip install 'fastapi-guard-auth[sqlalchemy]'"),
        ("init-db", "error: sqlalchemy is not installed: pip install 'fastapi-guard-auth[sqlalchemy]'"),
        ("token revoke --jti 1 --store sqlite://", "error: sqlalchemy is not installed: pip install 'fastapi"),
        (
            "token revoke --jti 1 --store redis://x",
            "error: redis is not installed: pip install 'fastapi-guard-auth[redis]",
        ),
        ("password hash", "error: libpass is not installed: pip install 'fastapi-guard-auth[passwords]'"),
        ("demo", "error: uvicorn is not installed: pip install 'fastapi-guard-auth[serve]'"),
    ],
)
def test_a_command_asks_for_the_extra_that_it_needs(command: str, answer: str, tmp_path: Path) -> None:
    """With the extra cli alone a command works, or says in one line which other extra it needs."""
    (tmp_path / "auth.toml").write_text('[api_keys."sk-alice-random-value-7d1f"]\nuser_id = "alice"\n')
    python = [sys.executable, "-W", "error", "-c", NO_OTHER_EXTRA, *command.split()]
    ran = subprocess.run(python, cwd=tmp_path, input="", capture_output=True, text=True, check=False)  # noqa: S603 - ours
    assert "Traceback" not in ran.stderr
    assert answer in ran.stdout + ran.stderr
    assert (ran.returncode == 0) is not answer.startswith("error:")
