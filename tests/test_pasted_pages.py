"""Guides whose code runs as a reader pastes it: the visible blocks alone, in their order, in an empty folder."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

GUIDES = Path(__file__).parent.parent / "docs" / "how-to"
INVISIBLE = re.compile(r"<!-- .*?-->", re.DOTALL)
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def pasted(text: str, folder: Path) -> str:
    """Return the last line of the traceback of the blocks of a page, empty where there is none."""
    blocks = BLOCK.findall(INVISIBLE.sub("", text))
    assert blocks
    source = folder / "main.py"
    source.write_text("\n".join(blocks), encoding="utf-8")
    done = subprocess.run([sys.executable, source], cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603
    return done.stderr.strip().rpartition("\n")[2] if done.returncode else ""


@pytest.mark.parametrize("page", ["accounts", "configuration", "hosted-logins", "magic-links"])
def test_a_page_as_it_is_pasted(page: str, tmp_path: Path) -> None:
    """Nothing that a reader does not see is needed."""
    assert pasted((GUIDES / f"{page}.md").read_text(encoding="utf-8"), tmp_path) == ""


def test_a_page_with_an_invisible_name(tmp_path: Path) -> None:
    """A name of an invisible block is missing."""
    page = "<!-- invisible-code-block: python\nkey = 1\n-->\n\n```python\nprint(key)\n```\n"
    assert pasted(page, tmp_path) == "NameError: name 'key' is not defined"
