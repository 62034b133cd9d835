"""Callables of the application as FastAPI dependencies: their parameters, their annotations, how they are called."""

import inspect
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from inspect import Parameter
from types import SimpleNamespace
from typing import Annotated, Any, Final, get_args, get_origin, get_type_hints

from fastapi import BackgroundTasks, Response, params
from fastapi.dependencies.utils import get_typed_signature
from fastapi.security import SecurityScopes
from pydantic.fields import FieldInfo
from starlette.concurrency import run_in_threadpool
from starlette.requests import HTTPConnection

from fastapi_guard.callables import is_async
from fastapi_guard.exceptions import ConfigurationError

# An async callable with the parameters that FastAPI is to resolve.
Dependency = Callable[..., Awaitable[Any]]

# Names of our parameters, beside those of the application's callable, which does not use them.
CONNECTION: Final = "guarded_connection_"
SCOPES: Final = "_guarded_scopes"
_PRINCIPAL: Final = "guarded_principal_"
_FILLED_BY_FASTAPI = (HTTPConnection, Response, BackgroundTasks, SecurityScopes)
_VARIADIC = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)


def name_of(call: object) -> str:
    """Return what a callable is called, for a message."""
    while isinstance(call, partial):
        call = call.func
    return getattr(call, "__qualname__", type(call).__qualname__)


def is_coroutine_function(call: Callable[..., Any]) -> bool:
    """Return whether calling ``call`` returns a coroutine; any other callable runs in a thread.

    A decorator is called as it is, since it may run what it decorates to its end. ``is_async`` looks behind it, for a
    coroutine that nothing would await.
    """
    return inspect.iscoroutinefunction(_function_of(call))


def check_hooks(owner: object, /, **hooks: bool | None) -> None:
    """Refuse a method that a subclass overrides by one that is not called as it was written.

    Args:
        owner: The object with these methods.
        hooks: Whether each is async, by name. A coroutine that is never awaited refuses nothing. ``None``: a method of
            an earlier version, which is not called any more, so that what it checks is not checked.

    Raises:
        ConfigurationError: One is not as it has to be.
    """
    for name, is_awaited in hooks.items():
        hook = getattr(owner, name, None)
        if is_awaited is None and hook is not None:
            fault = "is never called: override verify or verify_request"
        elif is_awaited is not None and is_async(hook) is not is_awaited:
            fault = f"has to be {'an async def' if is_awaited else 'a def, not an async def'}"
        else:
            continue
        msg = f"{type(owner).__name__}.{name} {fault}"
        raise ConfigurationError(msg)


class Callee:
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
        self.parameters: list[Parameter] = _parameters_of(call, role)
        unfilled = [parameter.name for parameter in self.parameters if not _is_filled(parameter)]
        named = "claims" if "claims" in unfilled else None
        self.gets_principal: str | None = named or (unfilled[0] if unfilled and needs_principal else None)
        self.principal: str = self.gets_principal or _PRINCIPAL
        self.call: Dependency = self._as_async(call)

    def _as_async(self, call: Callable[..., Any]) -> Dependency:
        asynchronous = is_coroutine_function(call)
        positional = [parameter.name for parameter in self.parameters if parameter.kind is Parameter.POSITIONAL_ONLY]
        dropped = () if self.gets_principal else (_PRINCIPAL,)

        async def adapted(**values: Any) -> Any:
            for name in dropped:
                del values[name]
            arguments = [values.pop(name) for name in positional]
            if asynchronous:
                answer = await call(*arguments, **values)
            else:
                answer = await run_in_threadpool(call, *arguments, **values)
            # Either may return the coroutine of another function: as a user it would let every caller pass.
            return await answer if inspect.isawaitable(answer) else answer

        return adapted

    def sign(self, dependency: Dependency, guard: params.Depends) -> Dependency:
        """Set the parameters of this callable on ``dependency``, the principal from ``guard`` first."""
        others = (_beside_ours(parameter) for parameter in self.parameters if parameter.name != self.principal)
        return _signed(
            dependency,
            Parameter(self.principal, Parameter.KEYWORD_ONLY, annotation=Annotated[Any, guard]),
            Parameter(CONNECTION, Parameter.KEYWORD_ONLY, annotation=HTTPConnection),
            # Without it FastAPI looks for scopes below the dependency, at every request.
            Parameter(SCOPES, Parameter.KEYWORD_ONLY, annotation=SecurityScopes),
            *others,
        )


def _signed(dependency: Dependency, *parameters: Parameter) -> Dependency:
    as_keywords = [parameter.replace(kind=Parameter.KEYWORD_ONLY) for parameter in parameters]
    dependency.__signature__ = inspect.Signature(as_keywords)  # type: ignore[attr-defined]
    return dependency


def loadable(load: Callable[..., Any], guard: params.Depends) -> Callable[..., Any]:
    """Return ``load`` as a dependency, with the principal from ``guard`` where it has a parameter ``claims``.

    Raises:
        ConfigurationError: ``load`` cannot be a dependency.
    """
    callee = Callee(load, "a loader", needs_principal=False)
    if callee.gets_principal:

        async def load_for(**values: Any) -> Any:
            del values[CONNECTION], values[SCOPES]
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
    expected = [(parameter.name, parameter.annotation) for parameter in parameters]
    return [(parameter.name, parameter.annotation) for parameter in seen] == expected


def _parameters_of(call: Callable[..., Any], role: str) -> list[Parameter]:
    if not callable(call):
        msg = f"{call!r} is not callable: pass {role} itself"
        raise ConfigurationError(msg)
    function = _function_of(call)
    for candidate in (function, inspect.unwrap(function)):
        if inspect.isgeneratorfunction(candidate) or inspect.isasyncgenfunction(candidate):
            msg = f"{name_of(call)} yields: {role} returns. What has to be closed belongs into a dependency of its own"
            raise ConfigurationError(msg)
    try:
        signature = inspect.signature(call)
    except (TypeError, ValueError) as error:
        msg = f"{name_of(call)} has no signature that can be read: wrap it into a function"
        raise ConfigurationError(msg) from error
    return [
        parameter.replace(annotation=_evaluated(parameter, call, inspect.unwrap(function)))
        for parameter in signature.parameters.values()
        if parameter.kind not in _VARIADIC
    ]


def _evaluated(parameter: Parameter, call: object, function: Any) -> Any:
    if parameter.annotation is Parameter.empty:
        return parameter.annotation
    written = SimpleNamespace(__annotations__={parameter.name: parameter.annotation})
    try:
        names = getattr(function, "__globals__", {}), _closure_of(function)
        hints = get_type_hints(written, *names, include_extras=True)
    except Exception as error:
        where = f"the annotation {parameter.annotation!r} of {parameter.name}, a parameter of {name_of(call)}"
        msg = f"{where}, cannot be evaluated: {error}; define its names at the top of the module, above it"
        raise ConfigurationError(msg) from error
    return hints[parameter.name]


def _closure_of(function: Any) -> dict[str, Any]:
    cells = zip(_free_names(function), getattr(function, "__closure__", None) or (), strict=False)
    return {name: cell.cell_contents for name, cell in cells if not _is_empty(cell)}


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
    return _is_marked(parameter) or any(issubclass(parameter, _FILLED_BY_FASTAPI) for parameter in _types(parameter))


def _is_marked(parameter: Parameter) -> bool:
    metadata = getattr(parameter.annotation, "__metadata__", ())
    return any(isinstance(parameter, params.Depends | FieldInfo) for parameter in (parameter.default, *metadata))


def _types(parameter: Parameter) -> Iterator[type]:
    annotation = parameter.annotation
    if get_origin(annotation) is Annotated:
        annotation = annotation.__origin__
    # Request | None is Request to FastAPI.
    yield from (parameter for parameter in (annotation, *get_args(annotation)) if isinstance(parameter, type))


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
