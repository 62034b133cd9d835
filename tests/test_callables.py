"""Checks of a callable before it is called."""

from collections.abc import Callable
from functools import partial, wraps
from typing import Any

import pytest

from fastapi_guard.callables import accepts, is_async


async def awaited(value: object, *, also: object = None) -> object:
    """Return a coroutine."""
    return value, also


def plain(value: object, *, also: object = None) -> object:
    """Return a value."""
    return value, also


@wraps(awaited)
def decorated(value: object) -> object:
    """Return the coroutine of what is decorated."""
    return awaited(value)


class Object:
    """An object whose call, and a method of which, returns a coroutine."""

    async def __call__(self, value: object) -> object:
        """Return a coroutine."""
        return value

    async def method(self, value: object) -> object:
        """Return a coroutine."""
        return value


ASYNC: list[Callable[..., Any]] = [awaited, decorated, Object(), Object().method]


@pytest.mark.parametrize("of", [None, 0, 1], ids=["itself", "of a partial", "of a partial with an argument"])
@pytest.mark.parametrize("function", ASYNC, ids=["function", "decorated", "object", "method"])
def test_it_returns_a_coroutine(function: Callable[..., Any], of: int | None) -> None:
    """So does what a decorator, an object or a partial calls."""
    assert is_async(function if of is None else partial(partial(function), *range(of)))


@pytest.mark.parametrize("function", [plain, partial(plain, 1), Object, print, str.lower, None, "text"])
def test_it_returns_none(function: object) -> None:
    """Neither does a function, a class, a builtin, nor what cannot be called."""
    assert not is_async(function)


@pytest.mark.parametrize(
    ("function", "arguments", "keywords", "expected"),
    [
        (plain, 1, (), True),
        (plain, 1, ("also",), True),
        (plain, 0, (), False),
        (plain, 2, (), False),
        (plain, 1, ("other",), False),
        (partial(plain, 1), 0, (), True),
        (partial(plain, 1), 1, (), False),
        (Object(), 1, (), True),
        (max, 5, ("unknown",), True),  # its signature cannot be read
    ],
)
def test_arguments(function: Any, arguments: int, keywords: tuple[str, ...], expected: bool) -> None:
    """A call is possible as far as the signature shows."""
    assert accepts(function, arguments, keywords) is expected
