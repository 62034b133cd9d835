"""Run every python block of the README and of the documents as a test."""

import os
from collections import Counter
from tempfile import TemporaryDirectory
from typing import Any

import pytest
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
    patterns=["README.md", "docs/**/*.md"],
    setup=enter_a_folder,
    teardown=leave_the_folder,
).pytest()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Number the cases of a test where files run side by side: some are named by keys that each process makes anew."""
    if hasattr(config, "workerinput"):
        counts: Counter[str] = Counter()
        for item in items:
            test, bracket, _ = item.nodeid.partition("[")
            if bracket:
                counts[test] += 1
                item._nodeid = f"{test}[{counts[test]}]"  # noqa: SLF001 - pytest has no other way
