"""Run the python blocks of the documents as tests, and share the tests between processes."""

import doctest
import gc
import os
import sys
from collections.abc import Iterator
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser
from xdist.scheduler import LoadScopeScheduling


def enter_a_folder(namespace: dict[str, Any]) -> None:
    """Let a document write the files that it shows into a folder of its own."""
    namespace["_folder"], namespace["_before"] = TemporaryDirectory(), os.getcwd()  # noqa: PTH109 - for chdir
    os.chdir(namespace["_folder"].name)


def leave_the_folder(namespace: dict[str, Any]) -> None:
    """Go back, and leave nothing behind."""
    os.chdir(namespace["_before"])
    namespace["_folder"].cleanup()
    # What a document made stays in use as long as all documents are known, and two of them may name one database.
    state: Any = sys.modules.get("fastapi_guard.login.state")
    if state is not None:
        state._claimed.clear()  # noqa: SLF001 - nothing public gives up a name that is in use


# A page wraps long output, and leaves out with ``...`` what does not matter.
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE

pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser(doctest_optionflags=FLAGS), SkipParser()],
    patterns=["README.md", "docs/*.md", "docs/*/*.md"],
    setup=enter_a_folder,
    teardown=leave_the_folder,
).pytest()


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Collect no garbage while all modules are imported, and exempt them from the collections that follow.

    That was a third of the time in which the tests are collected, and a sixth of that in which they run.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest test, so that no process is left alone with it at the end."""
    items.sort(key=lambda item: item.path.name != "test_tutorial.py")


@pytest.fixture(autouse=True, scope="module")
def _kept() -> Iterator[None]:
    """Exempt what the tests of a module leave in caches: a test that collects garbage would look at all of it."""
    yield
    gc.collect()
    gc.freeze()


class Scheduling(LoadScopeScheduling):
    """Hand out the cases of a test, or the blocks of a document, to one process."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        return path if path.endswith(".md") else nodeid.partition("[")[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduling:
    """Hand out the tests in the order in which they are collected."""
    config.option.loadscopereorder = False
    return Scheduling(config, log)
