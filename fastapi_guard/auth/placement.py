"""Where a guard may stand: at the top of ``Annotated[...]``, called.

FastAPI overlooks it anywhere else, takes the parameter for one that the client sends, and asks pydantic about it. So
pydantic asking is the sign that a guard has no effect, and that is refused where the endpoint is written.
"""

from collections.abc import Callable
from inspect import Parameter, signature
from typing import Annotated, Any, ClassVar, NoReturn, TypeVar

from fastapi import params

from fastapi_guard.exceptions import ConfigurationError

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])

PLACED = (
    "a guard stands at the top of Annotated[...] and is called: auth.authenticated(); where it is optional:"
    " auth.optional()"
)
_HOOK = "__get_pydantic_core_schema__"


def _refuse(*_: object) -> NoReturn:
    raise ConfigurationError(PLACED)


class _Hook:
    def __get__(self, instance: object, owner: type) -> Callable[..., NoReturn]:
        if instance is None:  # the class itself may well be the type of a field
            raise AttributeError(_HOOK)
        return _refuse


class Placed:
    """What pydantic must not meet in an annotation."""

    __get_pydantic_core_schema__: ClassVar[_Hook] = _Hook()


class GuardParameter(Placed, params.Security):
    """A guard as a parameter's annotation or a route's dependency."""


class PlainParameter(Placed, params.Depends):
    """The same for a dependency that requires no scopes of its own."""


def called(function: FunctionT) -> FunctionT:
    """Refuse this method where its parentheses were forgotten, in an annotation or in ``Depends(...)``.

    A dependency that only makes a guard would let everybody pass. FastAPI asks for the signature of a dependency, and
    pydantic about its parameters: so there it has one more, which pydantic must not meet.
    """
    setattr(function, _HOOK, _refuse)
    shown = signature(function)
    met = Parameter("called", Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[Any, function])
    setattr(function, "__signature__", shown.replace(parameters=[*shown.parameters.values(), met]))  # noqa: B010
    return function
