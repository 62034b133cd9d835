"""From a principal to a user, an owned object, a yes or no: callables of the application as FastAPI dependencies.

A loader or a policy gets the principal, and whatever else its parameters ask FastAPI for. Its dependency resolves the
principal first, so that a stranger is refused before anything is loaded.
"""

import inspect
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from datetime import timedelta
from functools import partial
from inspect import Parameter
from types import SimpleNamespace
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from fastapi import BackgroundTasks, HTTPException, Response, params
from fastapi.dependencies.utils import get_typed_signature
from fastapi.security import SecurityScopes
from pydantic.fields import FieldInfo
from starlette.concurrency import run_in_threadpool
from starlette.requests import HTTPConnection

from fastapi_guard.exceptions import ConfigurationError

# An async callable with the parameters that FastAPI is to resolve.
Dependency = Callable[..., Awaitable[Any]]
# What answers a connection: an exception to raise.
Refusal = Callable[[HTTPConnection], Exception]
Owner = str | Callable[[Any], object]

# Names of parameters of ours, beside those of the application's callable, which does not use them.
_CONNECTION = "guarded_connection_"
_SCOPES = "_guarded_scopes"
_PRINCIPAL = "guarded_principal_"
_GIVEN_BY_FASTAPI = (HTTPConnection, Response, BackgroundTasks, SecurityScopes)
_VARIADIC = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
# How far a clock may be ahead of ours.
_AHEAD_SECONDS = 60


def loading(load: Callable[..., Any], guard: params.Depends, refuse: Refusal) -> Dependency:
    """Return the dependency that gives what ``load`` returns for the principal; ``None`` is refused.

    Raises:
        ConfigurationError: ``load`` cannot be a dependency.
    """
    loader = _Callee(load, "a loader")
    call = loader.call

    async def load_user(guarded_connection_: HTTPConnection, _guarded_scopes: SecurityScopes, **values: Any) -> Any:
        found = await call(**values)
        if found is None or found is False:
            raise refuse(guarded_connection_)
        return found

    return loader.sign(load_user, guard)


def allowing(policy: Callable[..., Any], guard: params.Depends, refuse: Refusal) -> Dependency:
    """Return the dependency that gives the principal where ``policy`` is ``True``; anything false is refused.

    Raises:
        ConfigurationError: ``policy`` cannot be a dependency.
    """
    asked = _Callee(policy, "a policy")
    call, name = asked.call, asked.principal

    async def allow(guarded_connection_: HTTPConnection, _guarded_scopes: SecurityScopes, **values: Any) -> Any:
        answer = await call(**values)
        if answer is not True:
            if answer:
                # A coroutine, a mock or a query that nobody executed is true as well.
                msg = f"the policy {name_of(policy)} returned {type(answer).__name__}: return True or False"
                raise TypeError(msg)
            raise refuse(guarded_connection_)
        return values[name]

    return asked.sign(allow, guard)


def owning(
    load: Callable[..., Any],
    guard: params.Depends,
    owner: Owner,
    exempt: Callable[[HTTPConnection, Any], bool],
    refuse: Refusal,
) -> Dependency:
    """Return the dependency that gives the object that ``load`` finds to its owner, and to whoever is ``exempt``.

    Raises:
        ConfigurationError: ``load`` cannot be a dependency, or ``owner`` names nothing, or is async.
    """
    if not (callable(owner) or (isinstance(owner, str) and owner)):
        msg = f"owner is the name of an attribute or a key, or a callable that returns the owner, not {owner!r}"
        raise ConfigurationError(msg)
    if callable(owner) and is_async(owner):
        # Its coroutine would be nobody's sub: a 403 for everybody.
        msg = f"{name_of(owner)} is async: owner reads the owner off what the loader found; what awaits is the loader"
        raise ConfigurationError(msg)

    async def own(
        connection: HTTPConnection,
        principal: Annotated[Any, guard],
        found: Annotated[Any, params.Depends(_loadable(load, guard))],
        _guarded_scopes: SecurityScopes,
    ) -> Any:
        if found is None:
            raise HTTPException(404)
        if not is_subject(_owner_of(found, owner), principal) and not exempt(connection, principal):
            raise refuse(connection)
        return found

    return own


def is_subject(owner: object, principal: object) -> bool:
    """Return whether ``owner`` is the ``sub`` of ``principal``, compared as text. Nobody owns what has no owner."""
    subject = principal.get("sub") if isinstance(principal, Mapping) else None
    if any(one is None or isinstance(one, bool | bytes) for one in (owner, subject)):
        return False
    return str(owner) == str(subject) != ""


def is_recent(principal: object, max_age: int, now: float) -> bool:
    """Return whether the login of ``principal``, its ``auth_time``, is at most ``max_age`` seconds ago.

    Without an ``auth_time`` it is not known to be, and one of another type than a number says nothing (RFC 9470 6.1).
    """
    moment = principal.get("auth_time") if isinstance(principal, Mapping) else None
    if isinstance(moment, bool) or not isinstance(moment, int | float):
        return False
    # Nothing is taken from ``now``, which is a float: a whole number of JSON may be larger than any.
    return moment - _AHEAD_SECONDS <= now <= moment + max_age


def whole_seconds(duration: float | timedelta, name: str) -> int:
    """Return a duration in whole seconds.

    Raises:
        ConfigurationError: It is none, or negative.
    """
    seconds = duration.total_seconds() if isinstance(duration, timedelta) else duration
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or seconds != seconds // 1 or seconds < 0:
        msg = f"{name} is a number of whole seconds or a timedelta, zero or more, not {duration!r}"
        raise ConfigurationError(msg)
    return int(seconds)


def name_of(call: object) -> str:
    """Return what a callable is called, for a message."""
    while isinstance(call, partial):
        call = call.func
    return getattr(call, "__qualname__", type(call).__qualname__)


def is_async(call: Callable[..., Any]) -> bool:
    """Return whether calling ``call`` gives a coroutine; what does not is called in a thread."""
    return inspect.iscoroutinefunction(_function_of(call))


class _Callee:
    """A callable of the application: what it needs, and how it is called.

    Attributes:
        principal: The name under which it gets the principal.
        call: It as an async callable of keyword arguments alone.
    """

    def __init__(self, call: Callable[..., Any], role: str, *, needs_principal: bool = True) -> None:
        """Look at ``call``, evaluating its annotations here.

        The principal is the parameter ``claims``, else the first that nothing else fills: no FastAPI marker, and no
        type that FastAPI gives by itself.
        """
        self.parameters = _parameters_of(call, role)
        unfilled = [each.name for each in self.parameters if not _is_filled(each)]
        named = "claims" if "claims" in unfilled else None
        self.gets_principal = named or (unfilled[0] if unfilled and needs_principal else None)
        self.principal = self.gets_principal or _PRINCIPAL
        self.call = self._as_async(call)

    def _as_async(self, call: Callable[..., Any]) -> Dependency:
        asynchronous = is_async(call)
        positional = [each.name for each in self.parameters if each.kind is Parameter.POSITIONAL_ONLY]
        if asynchronous and self.gets_principal and not positional:
            return call
        dropped = () if self.gets_principal else (_PRINCIPAL,)

        async def adapted(**values: Any) -> Any:
            for name in dropped:
                del values[name]
            arguments = [values.pop(name) for name in positional]
            answer = call(*arguments, **values) if asynchronous else await run_in_threadpool(call, *arguments, **values)
            # A sync callable around an async one hands out a coroutine.
            return await answer if inspect.isawaitable(answer) else answer

        return adapted

    def sign(self, dependency: Dependency, guard: params.Depends) -> Dependency:
        """Give ``dependency`` the parameters of this callable, with the principal from ``guard`` before the others."""
        others = (_beside_ours(each) for each in self.parameters if each.name != self.principal)
        return _signed(
            dependency,
            Parameter(self.principal, Parameter.KEYWORD_ONLY, annotation=Annotated[Any, guard]),
            Parameter(_CONNECTION, Parameter.KEYWORD_ONLY, annotation=HTTPConnection),
            # Without it FastAPI looks for scopes below the dependency, at every request.
            Parameter(_SCOPES, Parameter.KEYWORD_ONLY, annotation=SecurityScopes),
            *others,
        )


def _signed(dependency: Dependency, *parameters: Parameter) -> Dependency:
    as_keywords = [each.replace(kind=Parameter.KEYWORD_ONLY) for each in parameters]
    dependency.__signature__ = inspect.Signature(as_keywords)  # type: ignore[attr-defined]
    return dependency


def _loadable(load: Callable[..., Any], guard: params.Depends) -> Callable[..., Any]:
    callee = _Callee(load, "a loader", needs_principal=False)
    if callee.gets_principal:

        async def load_for(**values: Any) -> Any:
            del values[_CONNECTION], values[_SCOPES]
            return await callee.call(**values)

        return callee.sign(load_for, guard)
    if _is_understood(load, callee.parameters):
        # The loader itself: loaded once a request, wherever else it is a dependency, and overridden in one place.
        return load

    async def load_object(**values: Any) -> Any:
        return await callee.call(**values, **{_PRINCIPAL: None})

    return _signed(load_object, *callee.parameters)


def _is_understood(load: Callable[..., Any], parameters: list[Parameter]) -> bool:
    # FastAPI evaluates annotations by the globals of a plain function alone.
    try:
        seen = list(get_typed_signature(load).parameters.values())
    except Exception:  # noqa: BLE001 - whatever a text that it cannot evaluate provokes
        return False
    return [(each.name, each.annotation) for each in seen] == [(each.name, each.annotation) for each in parameters]


def _owner_of(found: Any, owner: Owner) -> object:
    if not isinstance(owner, str):
        return owner(found)
    return found[owner] if isinstance(found, Mapping) else getattr(found, owner)


def _parameters_of(call: Callable[..., Any], role: str) -> list[Parameter]:
    if not callable(call):
        msg = f"{call!r} is not callable: pass {role} itself"
        raise ConfigurationError(msg)
    function = _function_of(call)
    for each in (function, inspect.unwrap(function)):
        if inspect.isgeneratorfunction(each) or inspect.isasyncgenfunction(each):
            msg = f"{name_of(call)} yields: {role} returns. What has to be closed belongs into a dependency of its own"
            raise ConfigurationError(msg)
    try:
        signature = inspect.signature(call)
    except (TypeError, ValueError) as error:
        msg = f"{name_of(call)} has no signature that can be read: wrap it into a function"
        raise ConfigurationError(msg) from error
    return [
        each.replace(annotation=_evaluated(each, call, inspect.unwrap(function)))
        for each in signature.parameters.values()
        if each.kind not in _VARIADIC
    ]


def _evaluated(parameter: Parameter, call: object, function: Any) -> Any:
    if parameter.annotation is Parameter.empty:
        return parameter.annotation
    written = SimpleNamespace(__annotations__={parameter.name: parameter.annotation})
    try:
        hints = get_type_hints(written, getattr(function, "__globals__", {}), _locals_of(function), include_extras=True)
    except Exception as error:
        where = f"the annotation {parameter.annotation!r} of {parameter.name}, a parameter of {name_of(call)}"
        msg = f"{where}, cannot be evaluated: {error}"
        raise ConfigurationError(msg) from error
    return hints[parameter.name]


def _locals_of(function: Any) -> dict[str, Any]:
    # A function that is defined in another knows its names, as long as that one runs: it is declared in there.
    found: dict[str, Any] = {}
    frame = sys._getframe()  # noqa: SLF001 - no other way to the names around a function
    around = []
    while frame is not None:
        inside = f"{frame.f_code.co_qualname}.<locals>."
        if frame.f_globals is getattr(function, "__globals__", None) and function.__qualname__.startswith(inside):
            around.append(frame.f_locals)
        frame = frame.f_back  # type: ignore[assignment]
    for names in reversed(around):
        found.update(names)
    for name, cell in zip(_free_names(function), getattr(function, "__closure__", None) or (), strict=False):
        if not _is_empty(cell):
            found[name] = cell.cell_contents
    return found


def _free_names(function: Any) -> tuple[str, ...]:
    code = getattr(function, "__code__", None)
    return () if code is None else code.co_freevars


def _is_empty(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018 - it raises where there are none yet
    except ValueError:
        return True
    return False


def _function_of(call: Any) -> Any:
    """Return the function that runs: below partials, of a bound method, of an instance, of a class."""
    while True:
        if isinstance(call, partial):
            call = call.func
        elif inspect.ismethod(call):
            call = call.__func__
        elif inspect.isclass(call):
            return call.__init__
        elif inspect.isroutine(call):
            return call
        else:
            call = type(call).__call__


def _is_filled(parameter: Parameter) -> bool:
    return _is_marked(parameter) or any(issubclass(each, _GIVEN_BY_FASTAPI) for each in _types(parameter))


def _is_marked(parameter: Parameter) -> bool:
    metadata = getattr(parameter.annotation, "__metadata__", ())
    return any(isinstance(each, params.Depends | FieldInfo) for each in (parameter.default, *metadata))


def _types(parameter: Parameter) -> Iterator[type]:
    annotation = parameter.annotation
    if get_origin(annotation) is Annotated:
        annotation = annotation.__origin__
    # Request | None is Request to FastAPI.
    yield from (each for each in (annotation, *get_args(annotation)) if isinstance(each, type))


async def _connection(connection: HTTPConnection) -> HTTPConnection:
    return connection


async def _scopes(scopes: SecurityScopes) -> SecurityScopes:
    return scopes


def _beside_ours(parameter: Parameter) -> Parameter:
    # FastAPI fills one parameter of these types in a signature, and that is ours.
    for kind, give in ((HTTPConnection, _connection), (SecurityScopes, _scopes)):
        if kind in _types(parameter) and not _is_marked(parameter):
            return parameter.replace(annotation=Annotated[Any, params.Depends(give)], default=Parameter.empty)
    return parameter
