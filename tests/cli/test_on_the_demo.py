"""The commands of operators on the application of the demo."""

import json
import sys
from collections.abc import Iterator
from importlib import invalidate_caches
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from fastapi_guard.cli.app import app

KEY = "sk-demo-key-that-is-long-enough-0123456789"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Work in a folder with the demo's application, which is forgotten afterwards."""
    text = f"from demo.application import create_app, static_parts\napp = create_app(static_parts({KEY!r}))\n"
    (tmp_path / "operated_demo.py").write_text(text)
    invalidate_caches()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    sys.modules.pop("operated_demo", None)


def run(command: str, *arguments: str, text: str = "") -> Result:
    """Run a command on the demo."""
    return CliRunner().invoke(app, [command, "operated_demo:app", *arguments], input=text)


def test_the_commands(folder: Path) -> None:
    """The lockfile is written and passes, a refusal is explained, and the checklist has no error."""
    lock = str(folder / "authz.lock")
    assert run("audit", "--lock", lock).exit_code == 0
    assert run("audit", "--lock", lock, "--check").exit_code == 0
    allowed = run("explain", "GET", "/posts", "--key", "-", "--json", text=KEY)
    assert json.loads(allowed.stdout)["allowed"] is True
    refused = run("explain", "GET", "/posts", "--json")
    assert (json.loads(refused.stdout)["status"], refused.exit_code) == (401, 1)
    checked = run("check", "--deploy", "--workers", "1", "--json")
    assert (checked.exit_code, "error" in {row["severity"] for row in json.loads(checked.stdout)}) == (0, False)
