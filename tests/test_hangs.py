"""A test that hangs or ends its process is a failure: with the stacks of all threads, and not run again."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

ROOT = Path(__file__).parent.parent

OPTIONS = """
[tool.pytest]
faulthandler_timeout = 2
faulthandler_exit_on_timeout = true
"""

TESTS = """
import os
import threading
from pathlib import Path

def note(name):
    with Path("ran.txt").open("a") as file:
        print(name, file=file)

def test_that_passes():
    note("passes")

def wait_in_a_thread():
    threading.Event().wait()

def wait_in_a_test():
    threading.Event().wait()

def test_that_hangs():
    note("hangs")
    threading.Thread(target=wait_in_a_thread, daemon=True).start()
    wait_in_a_test()

def test_that_ends_its_process():
    note("ends")
    os._exit(1)"""


def test_a_hang_is_a_failure_with_all_stacks(tmp_path: Path) -> None:
    """A test that hangs and one that ends its process fail and end the run, each runs once, and stacks are shown."""
    shutil.copy(ROOT / "conftest.py", tmp_path)
    (tmp_path / "pyproject.toml").write_text(OPTIONS)
    (tmp_path / "test_four.py").write_text(TESTS)
    options = ["-p", "xdist", "-p", "no:cacheprovider", "--numprocesses=2", "--max-worker-restart=0"]
    # Without what pytest and its processes set for the tests around this one.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    ran = subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-m", "pytest", *options],
        cwd=tmp_path,
        env={**inherited, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 1
    assert "2 failed, 1 passed" in ran.stdout
    for name in ("test_that_hangs", "test_that_ends_its_process"):
        assert f"crashed while running 'test_four.py::{name}'" in ran.stdout
    assert sorted((tmp_path / "ran.txt").read_text().split()) == ["ends", "hangs", "passes"]
    for function in ("wait_in_a_thread", "wait_in_a_test"):
        assert f"in {function}" in ran.stderr + ran.stdout
