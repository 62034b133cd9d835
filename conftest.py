"""Run every python block of the README and of the documents as a test."""

import os
from tempfile import TemporaryDirectory
from typing import Any

from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser


def enter_a_folder(namespace: dict[str, Any]) -> None:
    """Let a document write the files that it shows into a folder of its own."""
    namespace["_folder"], namespace["_before"] = TemporaryDirectory(), os.getcwd()  # noqa: PTH109
    os.chdir(namespace["_folder"].name)


def leave_the_folder(namespace: dict[str, Any]) -> None:
    """Go back, and leave nothing behind."""
    os.chdir(namespace["_before"])
    namespace["_folder"].cleanup()


pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser(), SkipParser()],
    patterns=["README.md", "docs/*.md", "docs/**/*.md"],
    setup=enter_a_folder,
    teardown=leave_the_folder,
).pytest()
