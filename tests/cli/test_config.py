"""`fastapi-guard config check`, over files."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from fastapi_guard.cli.app import app

GOOD = "issuer: https://id.example\naudience: api\n"
BAD = "kind: local\njwt_secret: short\nusers: {alice: {password_hash: plain}}\nisuer: x\n"


def run(*arguments: str) -> Result:
    """Run the command."""
    return CliRunner().invoke(app, ["config", "check", *arguments])


def test_a_file_without_a_mistake(tmp_path: Path) -> None:
    """The kind is said, and the exit code is 0."""
    file = tmp_path / "auth.yaml"
    file.write_text(GOOD)
    result = run(str(file))
    assert (result.exit_code, result.stdout) == (0, f"{file}: no mistakes, the kind is oidc\n")
    assert json.loads(run(str(file), "--json").stdout) == {"file": str(file), "kind": "oidc", "mistakes": []}


def test_every_mistake_of_a_file(tmp_path: Path) -> None:
    """Each mistake is a line on standard error with its place, and the exit code is 1."""
    file = tmp_path / "auth.yaml"
    file.write_text(BAD)
    result = run(str(file))
    lines = result.stderr.splitlines()
    assert (result.exit_code, result.stdout, len(lines)) == (1, "", 3)
    assert lines[0].startswith("error: auth.yaml, line 2, jwt_secret: has 5 bytes, and 32 are needed")
    assert lines[1].startswith("error: auth.yaml, line 3, users.alice.password_hash: is not a hash")
    assert lines[2] == "error: auth.yaml, line 4, isuer: is not known; did you mean issuer?"
    as_json = run(str(file), "--json")
    assert (as_json.exit_code, len(json.loads(as_json.stdout)["mistakes"])) == (1, 3)


def test_what_the_file_does_not_tell(tmp_path: Path) -> None:
    """The kind, and what the application passes, are options."""
    file = tmp_path / "auth.toml"
    file.write_text("require_expiry = true\n")
    assert run(str(file)).exit_code == 1
    assert run(str(file), "--kind", "database").exit_code == 0
    file.write_text('jwt_secret = "0f2c9b1e-4a7d-43f8-9c65-b1de07a3"\n')
    assert run(str(file)).stderr == "error: auth.toml, users: is missing\n"
    assert run(str(file), "--given", "users").exit_code == 0


@pytest.mark.parametrize("name", ["gone.yaml", "auth.ini"])
def test_what_is_no_file(name: str, tmp_path: Path) -> None:
    """A file that is not there, or is of another kind, is one clear line."""
    (tmp_path / "auth.ini").write_text("")
    result = run(str(tmp_path / name))
    assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)
