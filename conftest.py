"""Run the python blocks of the documents as tests, and share the tests between processes."""

import doctest
import gc
import os
import sys
import threading
import weakref
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


class Scheduling(LoadScopeScheduling):
    """Hand out the cases of a test, or the blocks of a document, to one process."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        return path if path.endswith(".md") else nodeid.partition("[")[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduling:
    """Hand out the tests in the order in which they are collected."""
    config.option.loadscopereorder = False
    return Scheduling(config, log)


class GreenletsOfAThread(weakref.WeakKeyDictionary[Any, Any]):
    """Greenlets of a thread as coverage stores them, dropped without running Python code.

    Under a trace function Python 3.11 repeats the first instruction of a function for as long as a pending call is
    asked for, and within a pending call that never ends. greenlet forgets an ended thread in a pending call, and the
    weak references to its greenlets call back: where that is a function in Python, and another thread ends in that
    moment, the tests hang.
    """

    def __init__(self, *arguments: Any) -> None:
        """Drop a dead key by a function in C; in the main thread, which has others, as before."""
        super().__init__(*arguments)
        if threading.get_ident() != threading.main_thread().ident:
            self._remove = self.data.pop


if sys.version_info < (3, 12):
    # Where the tracer of coverage, which is in C, looks for it.
    weakref.WeakKeyDictionary = GreenletsOfAThread
