"""Detect a guard that is written where FastAPI does not run it.

FastAPI runs a guard in two places: as the last dependency at the top of a parameter's ``Annotated[...]`` (or as its
default), and in a list ``dependencies=[...]``. Anywhere else it passes the guard to pydantic, or fails with an error of
its own. The hooks here turn both into a ConfigurationError that names the remedy, when the route is declared. What
raises nothing then is found by ``configure_app`` when the application starts (``app/lost_guards.py``).

FastAPI and pydantic have no interface for that. Three tricks are in this module and nowhere else, and
``tests/auth/test_placement.py`` tests each on the oldest and the newest FastAPI:

- Special attributes, which FastAPI and pydantic read from what they inspect, raise the error.
- The route and the parameter in its message come from the stack of calls: neither library passes them on.
- A context variable detects a guard that is made during a request. FastAPI calls the function that makes it without
  any argument from which that could be seen.
"""

from collections.abc import Callable
from contextvars import ContextVar
from functools import wraps
from inspect import isroutine, signature
from traceback import walk_stack
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeGuard, TypeVar, cast

from fastapi import params

from fastapi_guard.exceptions import ConfigurationError

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])

REMEDY: Final = (
    'write the guard, called, at the top of Annotated, as in Annotated[dict, auth.requires("items:read")] or'
    " Annotated[dict | None, auth.optional()], or in the list dependencies=[...]"
)
_SCHEMA_HOOK: Final = "__get_pydantic_core_schema__"
_GUARD_METHOD: Final = "fastapi_guard_method"
# The attributes that FastAPI reads from an entry of dependencies=[...].
_OF_AN_ENTRY: Final = ("dependency", "scope")

# Whether a request is being handled, so that a guard which is made now comes too late for FastAPI to run it.
handling_request: ContextVar[bool] = ContextVar("fastapi_guard_handling_request", default=False)


class MisplacedGuard(ConfigurationError, AttributeError):
    """FastAPI reads an attribute that only a dependency has; to ``hasattr`` it is missing, as it should be."""


def _where() -> str:
    # FastAPI gives a dependency neither the route nor the parameter that it declares. Both are read from the stack of
    # calls for the message alone; without them the message is shorter.
    found: dict[str, str] = {}
    for frame, _ in walk_stack(None):
        if frame.f_globals.get("__name__", "").startswith("fastapi."):
            for name in ("param_name", "path"):
                value = frame.f_locals.get(name)
                if isinstance(value, str) and value:
                    found.setdefault(name, value)
    parameter = f", parameter {found['param_name']}" if "param_name" in found else ""
    return f"{found['path']}{parameter}: " if "path" in found else ""


def _refuse(what: str, kind: type[ConfigurationError] = ConfigurationError) -> NoReturn:
    msg = f"{_where()}{what}: {REMEDY}"
    raise kind(msg)


def _refuse_schema(*_: object) -> NoReturn:
    _refuse("a guard has no effect here")


class _SchemaHook:
    """Refuse an instance in an annotation, whose schema pydantic reads; a class may well be a type in one."""

    def __get__(self, instance: object, owner: type) -> Callable[..., NoReturn]:
        if instance is None:
            raise AttributeError(_SCHEMA_HOOK)
        return _refuse_schema


class _SignatureHook:
    """Refuse an instance in ``Depends(...)``, whose signature FastAPI reads, unless it is a dependency."""

    def __get__(self, instance: object, owner: type) -> NoReturn:
        if instance is None or owner.__call__ is not Placed.__call__:
            raise AttributeError("__signature__")
        _refuse("what makes or describes a guard is not a callable for Depends() or Security()")


class _EntryHook:
    """Refuse an instance in ``dependencies``: FastAPI reads this attribute of an entry.

    A ``__getattr__`` in its place would make Python 3.11 look up each attribute of each Auth the slow way.
    """

    def __get__(self, instance: object, owner: type) -> NoReturn:
        what = owner.__name__ if instance is not None else f"the class {owner.__name__}"
        _refuse(f"{what} is not an entry of dependencies", MisplacedGuard)


class Placed:
    """An object that FastAPI and pydantic must not find where it has no effect."""

    # A type checker reports the same mistakes earlier, as long as it does not see these.
    if TYPE_CHECKING:
        pass
    else:
        __get_pydantic_core_schema__ = _SchemaHook()
        __signature__ = _SignatureHook()

        def __call__(self, *_: object, **__: object) -> NoReturn:
            """Refuse to be a decorator, or a dependency."""
            _refuse("a guard is not a decorator, nor a function to call")

        def __getitem__(self, _: object) -> NoReturn:
            """Refuse to be a list of dependencies, or the claims."""
            _refuse("a guard is neither a list of dependencies nor the claims")

        dependency = _EntryHook()
        scope = _EntryHook()

        def __dir__(self) -> list[str]:
            """Return the names without those that are there for FastAPI alone."""
            return [name for name in super().__dir__() if name not in _OF_AN_ENTRY or name in vars(self)]


class _Uncalled(Placed):
    """The part of a method that makes guards that FastAPI finds in a list of dependencies."""


class _MadeBefore(Placed):
    """A dependency that has to be made before a request: later it guards nothing."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        if handling_request.get():
            msg = f"a guard was made during a request, too late to be run: declare it before, {REMEDY}"
            raise ConfigurationError(msg)
        super().__init__(*arguments, **options)


class GuardParameter(_MadeBefore, params.Security):
    """A guard as a parameter's annotation or a route's dependency."""


class PlainParameter(_MadeBefore, params.Depends):
    """The same for a dependency that requires no scopes of its own."""


class _MethodSource:
    """The function below a method that makes guards, as FastAPI sees it: it cannot be a dependency.

    FastAPI reads the globals of the innermost function when it declares a dependency, and its ``__call__`` when it
    classifies one that is a ``functools.partial``. For a call or for ``help`` Python reads neither.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> NoReturn:
        if name in ("__globals__", "__call__"):
            msg = f"{_where()}{self._name} is not called, so that it guards nothing: write {self._name}()"
            raise ConfigurationError(msg)
        raise AttributeError(name)


def guard_method(function: FunctionT) -> FunctionT:
    """Mark a method that makes a guard: without its parentheses it guards nothing.

    Without them, in an annotation, in ``Depends(auth.requires)``, in a list of dependencies or as a decorator, it
    raises ConfigurationError when the route is declared. ``inspect.signature`` and ``help`` show the documented
    parameters.
    """
    declared = signature(function)
    takes_function = {"load", "policy"}.intersection(declared.parameters)

    @wraps(function)
    def method(*arguments: Any, **options: Any) -> Any:
        if not (arguments and isinstance(arguments[0], Placed)):
            name = function.__name__
            msg = f"{name}() was called on a class: construct an Auth, and call {name}() of that, as in auth.{name}()"
            raise ConfigurationError(msg)
        if not takes_function and any(map(isroutine, arguments)):
            _refuse(f"{function.__name__} is not a decorator")
        return function(*arguments, **options)

    attributes: dict[str, object] = {
        _SCHEMA_HOOK: _refuse_schema,
        _GUARD_METHOD: True,
        "__signature__": declared,
        "__wrapped__": _MethodSource(function.__name__),
        # What FastAPI reads from an entry of dependencies=[...].
        "dependency": _Uncalled(),
        "scope": None,
        "_concurrency": None,
    }
    for name, value in attributes.items():
        setattr(method, name, value)
    return cast("FunctionT", method)


def is_guard_method(function: object) -> TypeGuard[Callable[..., Any]]:
    """Return whether ``function`` is a method that makes a guard, bound or not."""
    return getattr(function, _GUARD_METHOD, False) is True
