"""Modules that an import loads, and libraries that it needs; run with each extra alone, and with all of them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import fastapi_guard

pytestmark = pytest.mark.once

INSTALLED_EXTRAS = os.environ.get("INSTALLED_EXTRAS", "all").split()

# Without bcrypt, which cryptography loads by itself where it is there.
OPTIONAL_LIBRARIES = {
    "aiosqlite",
    "argon2",
    "auth0_api_python",
    "greenlet",
    "httpx",
    "httpx2",
    "limits",
    "mcp",
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


def test_what_the_import_loads() -> None:
    """`import fastapi_guard` loads the wheel under nox, no optional library, and nothing that only a key needs."""
    place, *loaded = run("import fastapi_guard, sys; print(fastapi_guard.__file__, *sys.modules, sep='\\n')")
    assert Path(place) == Path(fastapi_guard.__file__)
    assert not sys.flags.safe_path or not Path(place).is_relative_to(Path(__file__).parents[1] / "fastapi_guard")
    assert "fastapi_guard.auth" in loaded
    assert not OPTIONAL_LIBRARIES.intersection(loaded)
    assert "opentelemetry.sdk" not in loaded
    assert [name for name in loaded if name.startswith("joserfc.j")] == ["joserfc.jwk"]
    # What reads static keys, and what configure_app does, are loaded when they are used.
    assert not {"fastapi_guard.api_key.mistakes", "fastapi_guard.app.routes"}.intersection(loaded)


def test_a_module_without_its_extra_names_it() -> None:
    """Every module imports without a warning, or raises MissingExtraError with the command that installs its extra."""
    missing = run(IMPORT_EVERYTHING)
    assert all("pip install 'fastapi-guard-auth[" in line for line in missing)
    assert not [line for line in missing if any(f"[{extra}]" in line or extra == "all" for extra in INSTALLED_EXTRAS)]


# An interpreter without the libraries of other extras: each command that it reads runs in a fork of its own.
COMMAND_LINE = f"""
import json, os, sys, tempfile
sys.modules.update(dict.fromkeys({sorted(OPTIONAL_LIBRARIES - {"rich", "typer"})}))
import fastapi, fastapi_guard, rich, typer
from fastapi_guard.__main__ import main

for line in sys.stdin.read().splitlines():
    with tempfile.TemporaryFile("w+") as output:
        child = os.fork()
        if not child:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
            sys.argv[1:] = json.loads(line)
            main()
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        output.seek(0)
        print(json.dumps([code, output.read()]))
"""

COMMANDS = {
    "jwk generate keys.json": "created keys.json: ",
    "audit --factory fastapi:FastAPI": "0 routes, each guarded or allowed",
    "config check auth.toml": "auth.toml: no mistakes, the kind is static",
    "keys hash": "error: there is no key to hash",
    "users create --help": "Usage: fastapi-guard users create",
    "keys list": "error: sqlalchemy is not installed: pip install 'fastapi-guard-auth[sqlalchemy]'",
    "init-db": "error: sqlalchemy is not installed: pip install 'fastapi-guard-auth[sqlalchemy]'",
    "token revoke --jti 1 --store sqlite://": "error: sqlalchemy is not installed: pip install 'fastapi",
    "token revoke --jti 1 --store redis://x": "error: redis is not installed: pip install 'fastapi-guard-auth[redis]",
    "password hash": "error: libpass is not installed: pip install 'fastapi-guard-auth[passwords]'",
    "demo": "error: uvicorn is not installed: pip install 'fastapi-guard-auth[serve]'",
}


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str]]:
    """Return the exit code and the output of each command, with the extra cli alone."""
    folder = tmp_path_factory.mktemp("commands")
    (folder / "auth.toml").write_text('[api_keys."sk-alice-random-value-7d1f"]\nuser_id = "alice"\n')
    lines = "".join(f"{json.dumps(command.split())}\n" for command in COMMANDS)
    python = [sys.executable, "-W", "error", "-c", COMMAND_LINE]
    ran = subprocess.run(python, cwd=folder, input=lines, check=True, capture_output=True, text=True)  # noqa: S603 - ours
    return dict(zip(COMMANDS, map(json.loads, ran.stdout.splitlines()), strict=True))


@pytest.mark.skipif(not {"all", "cli"}.intersection(INSTALLED_EXTRAS), reason="needs the extra cli")
@pytest.mark.parametrize(("command", "answer"), COMMANDS.items())
def test_a_command_names_the_extra_that_it_needs(
    answers: dict[str, tuple[int, str]], command: str, answer: str
) -> None:
    """With the extra cli alone a command works, or names in one line the other extra that it needs."""
    code, output = answers[command]
    assert "Traceback" not in output
    assert answer in output
    assert (code == 0) is not answer.startswith("error:")
