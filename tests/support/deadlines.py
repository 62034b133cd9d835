"""Test deadlines without measuring time: a deadline that passes at once, and a coroutine that never waits."""

from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import pytest

ResultT = TypeVar("ResultT")


@contextmanager
def changed(owner: object, name: str, value: object) -> Iterator[None]:
    """Set an attribute within a block, such as a deadline that is a minute for the requests before and after it."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def result_at_once(coroutine: Coroutine[Any, Any, ResultT]) -> ResultT:
    """Return the result of a coroutine that has to end without waiting for anything."""
    with pytest.raises(StopIteration) as end:
        coroutine.send(None)
    result: ResultT = end.value.value
    return result
