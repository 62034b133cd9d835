"""Find guards that are written, and that FastAPI does not run.

What annotations and defaults say when the application starts is compared with the dependency tree that FastAPI built
when the route was declared. Each difference is a sentence that names the parameter and the remedy.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import partial
from itertools import islice
from typing import Any, Final, ForwardRef, get_args

from fastapi import params
from fastapi.dependencies.models import Dependant
from pydantic.fields import FieldInfo
from starlette.applications import Starlette

from fastapi_guard.app.annotations import Written, fields_within, parameters_of, return_of
from fastapi_guard.app.guards import GuardUse, guards_in, guards_of
from fastapi_guard.app.hidden import called_by, held_by, hidden_in
from fastapi_guard.auth import Auth, Guard
from fastapi_guard.auth.guard import rule_of
from fastapi_guard.auth.placement import REMEDY, Placed, is_guard_method
from fastapi_guard.exceptions import ConfigurationError
from fastapi_guard.schemes import Scheme
from fastapi_guard.scopes import Scope

_ADDED_LATE: Final = (
    "a guard in dependencies is not run, since it was added after the route was declared, or beside add_api_route:"
    " pass it where the application, the router or the route is made, as in APIRouter(dependencies=[...])"
)
_LATE: Final = (
    "FastAPI does not run this dependency, whose annotation it could not evaluate when the route was declared: define"
    " the names in it above the route, at the top of the module, and write Annotated[...], not an alias of an alias"
)
_LAST: Final = "of several dependencies in one Annotated[...] FastAPI runs the last alone: give each its own parameter"
_NESTED: Final = f"a dependency inside another type is not run: {REMEDY}"
_DEFAULT: Final = (
    "a list of guards as the default of a parameter is not run: write it in the decorator,"
    ' as in @app.get("/items", dependencies=[auth.requires("items:read")])'
)
_SCHEME: Final = (
    "finds a credential and verifies none, so that every caller passes: write the guard of an Auth with this scheme,"
    " as in dependencies=[auth.authenticated()]"
)
_FOREIGN: Final = f"FastAPI does not resolve this function, so its guard is not run: {REMEDY}"
_NO_EFFECT: Final = f"a guard has no effect here: {REMEDY}"
# The parts of a value, and of each container in it, that are looked at: a dependency may hold any amount of data.
_MOST: Final = 10_000
_MOST_IN_ONE: Final = 100
_CONTAINERS = (list, tuple, set, frozenset)


def lost_guards(dependant: Dependant) -> Iterator[str]:
    """Yield what is wrong with the guards that are written in a dependency tree, each as a sentence."""
    yield from _not_called(dependant)
    yield from _lost_in(dependant)
    for part in dependant.dependencies:
        if isinstance(part.call, Guard):
            yield from _invalid_scopes(part)
        elif isinstance(part.call, Scheme) and part.name is None and not guards_in(dependant):
            yield f"{type(part.call).__name__} in dependencies {_SCHEME}"
        else:
            yield from lost_guards(part)


def mistakes_in(dependant: Dependant, wanted: Sequence[GuardUse], run: Sequence[GuardUse]) -> tuple[str, ...]:
    """Return what ``lost_guards`` yields, and whether a guard that is ``wanted`` is not among those that ``run``."""
    return (*lost_guards(dependant), *(() if are_among(wanted, run) else (_ADDED_LATE,)))


def never_run(call: Any) -> Iterator[str]:
    """Yield the guards in the signature of a callable that FastAPI does not resolve, such as a page of Starlette's."""
    for function in _functions_of(call):
        for written in parameters_of(function):
            taken = _taken(written)
            is_guard = taken is not None and (_is_unusable(taken) or guards_of(taken, written.kind))
            if is_guard or any(_misplaced(written)):
                yield f"{_of(written, function)}: {_FOREIGN}"


def misconfigured(app: Starlette) -> list[str]:
    """Return the guards that are written where an application never runs one: in its handlers and its middleware."""
    mistakes = [mistake for handler in app.exception_handlers.values() for mistake in never_run(handler)]
    for middleware in app.user_middleware:
        called = (getattr(middleware.cls, name, None) for name in ("__call__", "dispatch"))
        values = (*middleware.args, *middleware.kwargs.values())
        functions = (*called, *(value for value in values if callable(value) and not isinstance(value, Placed)))
        mistakes += [mistake for function in functions for mistake in never_run(function)]
    if getattr(app, "dependencies", None):
        mistakes.append("FastAPI does not read app.dependencies: write FastAPI(dependencies=[...])")
    return mistakes


def are_among(wanted: Sequence[GuardUse], run: Sequence[GuardUse]) -> bool:
    """Return whether each of the guards ``wanted`` is run, with its scopes at least."""
    return all(
        any(one.guard is use.guard and set(use.scopes) <= set(one.scopes) and one.rule == use.rule for one in run)
        for use in wanted
    )


def _lost_in(dependant: Dependant) -> Iterator[str]:
    call = dependant.call
    parts = {part.name: part for part in dependant.dependencies if part.name is not None}
    for written in parameters_of(call):
        part = parts.get(written.name)
        taken = _taken(written)
        if taken is not None and not _is_run(taken, written, part):
            yield f"{_of(written, call)}: {_LATE}"
        elif written.undefined and part is None and not _was_evaluated(written.name, dependant):
            names = ", ".join(written.undefined)
            yield (
                f"{_of(written, call)}: {names} cannot be evaluated, so that a guard would have no effect, and FastAPI"
                " takes the parameter from the client: define the names above the route, at the top of the module"
            )
        elif taken is None and any(map(_has_guard, fields_within((written.kind, *written.below)))):
            yield f"{_of(written, call)}: {_NESTED}"
        yield from (f"{_of(written, call)}: {what}" for what in dict.fromkeys(_misplaced(written)))
    returned = return_of(call)
    if returned is not None and (_taken(returned) is not None or any(_misplaced(returned))):
        yield f"what {_name(call)} returns: {_NO_EFFECT}"
    run = guards_in(Dependant(dependencies=dependant.dependencies))  # without the rule of a dependency of ours
    for place in dict.fromkeys(_unseen(call, run)):
        yield f"{place}: FastAPI does not see the parameter, so its guard is not run: {REMEDY}"
    if any(_is_unusable(guard) or not are_among(guards_of(guard), run) for guard in _held_in(call)):
        yield f"{_name(call)} holds a guard as a value, which FastAPI does not run: {REMEDY}"


def _unseen(call: Any, run: Sequence[GuardUse]) -> Iterator[str]:
    for inner, written in hidden_in(call):
        if _is_lost(written, run) or any(_misplaced(written)):
            yield _of(written, inner)
    for inner in called_by(call):
        yield from (_of(written, inner) for written in parameters_of(inner) if _is_lost(written, run))


def _is_lost(written: Written, run: Sequence[GuardUse]) -> bool:
    taken = _taken(written)
    return taken is not None and (_is_unusable(taken) or not are_among(guards_of(taken, written.kind), run))


def _has_guard(field: FieldInfo) -> bool:
    marks = (mark for mark in field.metadata if isinstance(mark, params.Depends))
    return any(_is_unusable(mark) or guards_of(mark, field.annotation) for mark in marks)


def _held_in(call: Any) -> Iterator[params.Depends]:
    for value in held_by(call):
        with suppress(Exception):  # a lazy object of the application may raise whatever is read from it
            yield from [found for found in _guards_within(value) if isinstance(found, params.Depends)]


def _taken(written: Written) -> params.Depends | None:
    # What FastAPI runs for a parameter: its default, or the last of its own markers in Annotated.
    if isinstance(written.default, params.Depends):
        return written.default
    markers = [mark for mark in written.metadata if isinstance(mark, params.Depends | params.Param | params.Body)]
    return markers[-1] if markers and isinstance(markers[-1], params.Depends) else None


def _is_run(taken: params.Depends, written: Written, part: Dependant | None) -> bool:
    if part is None:
        return False
    call = written.kind if taken.dependency is None else taken.dependency
    scopes = getattr(taken, "scopes", None) or ()
    if part.call is call and set(scopes) <= set(part.own_oauth_scopes or ()):
        return True
    return are_among(guards_of(taken, written.kind), guards_in(Dependant(dependencies=[part])))


def _is_unusable(taken: params.Depends) -> bool:
    # As in Depends(auth), which FastAPI refuses where it sees it.
    return isinstance(taken.dependency, Placed) and not isinstance(taken.dependency, Guard)


def _was_evaluated(name: str, dependant: Dependant) -> bool:
    # By names that were defined when the route was declared, and are no more.
    fields = (
        *(dependant.path_params, dependant.query_params, dependant.header_params),
        *(dependant.cookie_params, dependant.body_params),
    )
    found = [field for listed in fields for field in listed if field.name == name]
    return all(not _has_text(field.field_info.annotation) for field in found)


def _has_text(annotation: Any) -> bool:
    return isinstance(annotation, str | ForwardRef) or any(map(_has_text, get_args(annotation)))


def _misplaced(written: Written) -> Iterator[str]:
    taken = _taken(written)
    for mark in written.metadata:
        if isinstance(mark, params.Depends):
            if mark is not taken and (_is_guard(mark) or guards_of(mark, written.kind)):
                yield _LAST
        else:
            yield from map(_described, _guards_within(mark))
    if (
        _is_guard(written.kind)
        and not inspect.isclass(written.kind)
        and (taken is None or taken.dependency is not None)
    ):
        yield _described(written.kind)
    for part in written.below:
        if isinstance(part, params.Depends):
            yield _NESTED
        else:
            yield from (_described(found) for found in _guards_within(part) if not inspect.isclass(found))
    if taken is not written.default:
        in_list = isinstance(written.default, (*_CONTAINERS, dict))
        for found in _guards_within(written.default):
            yield _DEFAULT if in_list and isinstance(found, params.Depends) else _described(found)


def _guards_within(value: object) -> Iterator[object]:
    seen: dict[int, object] = {}
    found = [value]
    while found and len(seen) < _MOST:
        part = found.pop()
        if _is_guard(part):
            yield part
        elif id(part) not in seen:  # a list may hold itself
            seen[id(part)] = part
            found += islice(_contents(part), _MOST_IN_ONE)


def _contents(value: object) -> Iterator[object]:
    if isinstance(value, _CONTAINERS):
        yield from value
    elif isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, partial):
        yield from (value.func, *value.args, *value.keywords.values())
    elif isinstance(value, params.Depends):
        yield value.dependency
    elif isinstance(value, Enum):
        yield value.value
    elif isinstance(value, FieldInfo):
        yield from (value.default, value.default_factory, *value.metadata)
    elif is_dataclass(value) and not isinstance(value, type):
        yield from (getattr(value, field.name, None) for field in fields(value))


def _is_guard(value: object) -> bool:
    if isinstance(value, params.Depends) and not isinstance(value, Placed):
        return isinstance(value.dependency, Placed) or rule_of(value.dependency) is not None
    if inspect.isclass(value):
        return issubclass(value, Auth) or _makes_dependencies(value)
    return isinstance(value, Placed) or _is_method_of_auth(value)


def _makes_dependencies(kind: type) -> bool:
    # A Throttle or a Scheme: FastAPI would read the arguments of the class from the request, and not call the object.
    return any("__call__" in vars(base) and base.__module__.startswith("fastapi_guard.") for base in kind.__mro__)


def _is_method_of_auth(value: object) -> bool:
    return is_guard_method(value) or (inspect.ismethod(value) and isinstance(value.__self__, Auth))


def _described(guard: object) -> str:
    if _is_method_of_auth(guard):
        owner = getattr(guard, "__self__", None)
        whose = f"{owner.name}." if isinstance(owner, Auth) else ""
        name = getattr(guard, "__name__", "")
        if hasattr(Auth, name) and not is_guard_method(guard):
            return f"{whose}{name} is not a guard: {REMEDY}"
        return f"{whose}{name} is not called, so that it guards nothing: write {name}()"
    if inspect.isclass(guard) and issubclass(guard, Auth):
        return f"{guard.__name__} is a class, which guards nothing: {REMEDY}"
    if inspect.isclass(guard):
        return f"{guard.__name__} is a class, whose arguments FastAPI reads from the request: pass an object of it"
    return _NO_EFFECT


def _not_called(dependant: Dependant) -> Iterator[str]:
    # As a dependency it makes a guard, or does something else, and lets every caller pass.
    call: Any = dependant.call
    while call is not None:
        is_dependency = dependant.name is not None or dependant.scope != "function"
        if is_guard_method(call) or (is_dependency and not isinstance(call, Placed) and _is_guard(call)):
            if is_guard_method(call) or not guards_in(dependant):
                yield _described(call)
            return
        call = call.func if isinstance(call, partial) else getattr(call, "__wrapped__", None)


def _invalid_scopes(part: Dependant) -> Iterator[str]:
    # A Security() of the application's own has not been through requires().
    assert isinstance(part.call, Guard)  # noqa: S101 - its caller asked
    for scope in (*(part.parent_oauth_scopes or ()), *(part.own_oauth_scopes or ())):
        try:
            Scope(scope)
        except ConfigurationError as error:
            yield f"{part.call.auth.name}: {error}"


def _functions_of(call: Any) -> Iterator[Callable[..., Any]]:
    yield call
    if inspect.isclass(call):  # an endpoint of Starlette's: a method for each method of HTTP
        for _, function in inspect.getmembers(call, inspect.isfunction):
            if not function.__module__.startswith("starlette."):
                yield function


def _of(written: Written, call: Any) -> str:
    return f"parameter {written.name} of {_name(call)}"


def _name(call: Any) -> str:
    while isinstance(call, partial):
        call = call.func
    name = getattr(call, "__qualname__", type(call).__qualname__)
    return f"{name.rpartition('<locals>.')[2]}()"
