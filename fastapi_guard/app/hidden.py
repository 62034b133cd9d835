"""Find the functions and values inside a callable that FastAPI does not see.

A guard in one of them is not run: FastAPI resolves the parameters in the signature of the callable, and no others.
"""

import inspect
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from types import CodeType, FunctionType
from typing import Any, Final

from starlette.applications import Starlette
from starlette.routing import Router

from fastapi_guard.app.annotations import Written, attributes_of, cells_of, parameters_of

# The functions in one callable that are looked at.
_MOST: Final = 100
# What a handler of a route may hold, which is looked at.
_MOST_HELD: Final = 1000


def hidden_in(call: Any) -> Iterator[tuple[Callable[..., Any], Written]]:
    """Yield the parameters of functions inside ``call`` that FastAPI does not see, each with its function.

    ``functools.partial`` fills some, a decorator or a ``__signature__`` may hide others. FastAPI calls a class, not the
    ``__call__`` of its instances, and an instance, not the ``__init__`` of its class. An annotated attribute of a class
    is a parameter only of a dataclass and its like, and never of a method.
    """
    shown = {written.name for written in parameters_of(call)}
    inside = tuple(_inside(call))
    for inner in (*inside, *_unsigned((call, *inside))):
        for written in parameters_of(inner):
            if written.name not in shown:
                yield inner, written
    if inspect.ismethod(call) or not inspect.isroutine(call):
        owner = getattr(call, "__self__", call)
        kind = owner if inspect.isclass(owner) else type(owner)
        for written in attributes_of(kind):
            if written.name not in shown:
                yield kind, written


def held_by(call: Any) -> Iterator[object]:
    """Yield what ``call`` holds beside its parameters, which FastAPI does not see.

    That is in the closures of functions, in the positional arguments of ``functools.partial``, and in the attributes of
    a class or an instance. An object whose method it is may hold what is for other methods.
    """
    for inner in (call, *_inside(call)):
        yield from _values_of(inner)
        if not isinstance(inner, partial) and not inspect.isroutine(inner):
            for kind in (inner if inspect.isclass(inner) else type(inner)).__mro__:
                yield from vars(kind).values()


def called_by(call: Any) -> Iterator[Callable[..., Any]]:
    """Yield the functions that ``call`` holds, as a decorator without ``functools.wraps`` holds what it decorates.

    Functions that were defined beside it are left out: endpoints that are made by one function may call each other.
    """
    seen: dict[int, Any] = {}
    pending: list[Any] = [call, *_inside(call)]
    while pending and len(seen) < _MOST:
        outer = pending.pop()
        for value in () if inspect.isclass(outer) else _values_of(outer):
            is_function = isinstance(value, partial) or inspect.isroutine(value)
            if is_function and id(value) not in seen and not _is_beside(value, outer):
                seen[id(value)] = value
                yield value
                pending += [value, *_inside(value)]


def reaches(call: Any, code: CodeType) -> bool:
    """Return whether ``call`` holds a function of this code at any depth, as a handler holds the one that it calls."""
    seen: dict[int, Any] = {}
    pending = deque([call])
    while pending and len(seen) < _MOST_HELD:
        value = pending.popleft()
        if getattr(value, "__code__", None) is code:
            return True
        if id(value) not in seen:
            seen[id(value)] = value
            pending += _held_in(value)
    return False


def _held_in(value: Any) -> Iterable[Any]:
    if isinstance(value, partial):
        return (value.func, *value.args, *value.keywords.values())
    if inspect.ismethod(value):
        return (value.__func__, value.__self__)
    if isinstance(value, dict | list | tuple):
        return value.values() if isinstance(value, dict) else value
    if inspect.isclass(value) or isinstance(value, Router | Starlette):  # which has handlers of other routes
        return ()
    return (held for held in _values_of(value) if inspect.isroutine(value) or callable(held))


def _values_of(call: Any) -> Iterator[Any]:
    if isinstance(call, partial):
        yield from call.args
    elif inspect.isroutine(call):
        yield from cells_of(call).values()
    else:
        yield from getattr(call, "__dict__", {}).values()
        for kind in (call if inspect.isclass(call) else type(call)).__mro__:
            yield from (getattr(call, name, None) for name in getattr(kind, "__slots__", ()))


def _is_beside(function: Any, other: Any) -> bool:
    place, outer = (_place_of(call) for call in (function, other))
    # Of one place and one text are the layers of a decorator that is applied twice.
    return place is not None and place == outer and function.__code__ is not other.__code__


def _place_of(call: Any) -> tuple[str, str] | None:
    place = getattr(call, "__qualname__", "").rpartition("<locals>.")[0]
    return (call.__module__, place) if place and hasattr(call, "__code__") else None


def _unsigned(calls: Iterable[Any]) -> Iterator[Callable[..., Any]]:
    # The parameters that a function really has, where its signature was set by hand.
    for call in calls:
        function = getattr(call, "__func__", call)
        if inspect.isfunction(function) and "__signature__" in vars(function):
            code, around = function.__code__, function.__globals__
            bare = FunctionType(code, around, function.__name__, function.__defaults__, function.__closure__)
            annotations = "__annotate__" if sys.version_info >= (3, 14) else "__annotations__"
            for name in ("__kwdefaults__", "__qualname__", annotations):
                setattr(bare, name, getattr(function, name))
            yield bare


def _inside(call: Any) -> Iterator[Any]:
    while True:
        if isinstance(call, partial):
            call = call.func
        elif hasattr(call, "__wrapped__"):
            call = call.__wrapped__
        else:
            break
        yield call
    if inspect.isclass(call):
        own = inspect.getattr_static(call, "__call__", None)
        if inspect.isfunction(own):
            yield own
    elif not inspect.isroutine(call):
        yield type(call).__init__
