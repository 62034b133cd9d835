"""Callables of the application: whether one is async, and what it can be called with, before it is called."""

from collections.abc import Callable, Iterable
from functools import partial
from inspect import iscoroutinefunction, signature, unwrap
from typing import Any


def is_async(function: object) -> bool:
    """Return whether calling ``function`` returns a coroutine: it is an ``async def``, or an object with one."""
    while isinstance(function, partial):
        function = function.func
    # An object is called by the method of its class.
    calls: tuple[Any, ...] = (function, getattr(type(function), "__call__", None))  # noqa: B004 - not whether, but what
    return any(iscoroutinefunction(unwrap(call)) for call in calls if call is not None)


def accepts(function: Callable[..., Any], arguments: int, keywords: Iterable[str] = ()) -> bool:
    """Return whether a function can be called with so many arguments and these keywords, as far as it shows."""
    try:
        signature(function).bind(*range(arguments), **dict.fromkeys(keywords))
    except TypeError:
        return False
    except ValueError:
        return True  # without a signature, as some of those in C
    return True
