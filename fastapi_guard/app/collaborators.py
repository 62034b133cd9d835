"""Find the objects of this package that an application uses: Auths, stores, throttles, key files, configurations.

They are found from the guards and endpoints of the routes, along attributes, containers and closures. Objects of the
application and of other libraries are not entered.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from inspect import isfunction, ismethod, isroutine
from typing import Any, Final

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts

_PACKAGE: Final = "fastapi_guard."
# Objects that a walk would never leave.
_MOST: Final = 20_000


def collaborators_of(app: FastAPI) -> list[Any]:
    """Return the objects of this package that the routes of ``app`` lead to, each once."""
    pending: list[Any] = [dependency.dependency for dependency in app.router.dependencies]
    for context in iter_route_contexts(app.routes):
        route: Any = context.original_route
        pending += [getattr(route, "endpoint", None), getattr(context, "dependant", None), getattr(route, "app", None)]
    seen: dict[int, Any] = {}
    found: list[Any] = []
    while pending and len(seen) < _MOST:
        value = pending.pop(0)
        if value is None or isinstance(value, str | bytes | int | float | type) or id(value) in seen:
            continue
        seen[id(value)] = value
        if _is_ours(value):
            found.append(value)
        pending += _below(value)
    return found


def is_a(value: object, *names: str) -> bool:
    """Return whether a class of this package with one of these names is among the classes of ``value``.

    By name, since the modules of some need an extra.
    """
    return any(kind.__name__ in names and kind.__module__.startswith(_PACKAGE) for kind in type(value).__mro__)


def _is_ours(value: object) -> bool:
    return not isroutine(value) and any(kind.__module__.startswith(_PACKAGE) for kind in type(value).__mro__)


def _below(value: Any) -> Iterator[Any]:
    if isinstance(value, list | tuple | set | frozenset):
        yield from value
    elif isinstance(value, Mapping):
        yield from list(value.values())
    elif isinstance(value, partial):
        yield from (value.func, *value.args, *value.keywords.values())
    elif ismethod(value):
        yield from (value.__self__, value.__func__)
    elif isfunction(value):
        yield from _closure(value)
    elif type(value).__name__ == "Dependant":
        yield from (value.call, *value.dependencies)
    elif _is_ours(value):
        yield from list(getattr(value, "__dict__", {}).values())
        slots = (name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ()))
        yield from (getattr(value, name, None) for name in slots if isinstance(name, str))


def _closure(function: Any) -> Iterator[Any]:
    yield getattr(function, "__wrapped__", None)
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:
            continue
