"""Call what the application supplies: its users, its factors, its rules.

Only a result of the declared type counts. ``None``, or a coroutine that was not awaited, is neither consent nor another
state: like an exception other than an AuthError it is a 503, and a record in the log.
"""

import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from fastapi_guard.auth.conversion import name_of
from fastapi_guard.exceptions import AuthError, ServiceUnavailable, shown

logger: logging.Logger = logging.getLogger("fastapi_guard")

ResultT = TypeVar("ResultT")
Kinds = type | tuple[type, ...]

NONE: Final = type(None)
#: A yes or no. A number is one too, such as the count of rows that were changed; ``None`` is not.
YES_OR_NO: Final = int
_NAMES: Final[dict[type, str]] = {NONE: "None", YES_OR_NO: "True or False"}


class _UnexpectedResultError(TypeError):
    """The application returned something of another type than it has to."""


@contextmanager
def or_unavailable(reason: str, *, passes: type[Exception] | tuple[type[Exception], ...] = AuthError) -> Iterator[None]:
    """Turn whatever the application raises, other than what ``passes``, into a 503 with this ``reason``.

    Raises:
        ServiceUnavailable: It raised something else.
    """
    try:
        yield
    except passes:
        raise
    except Exception as error:
        # The text of an exception may quote what a database was to write.
        cause = str(error) if isinstance(error, _UnexpectedResultError) else type(error.__cause__ or error).__name__
        logger.warning("%s: %s", reason, cause)
        raise ServiceUnavailable(reason=reason) from error


@contextmanager
def or_logged(message: str) -> Iterator[None]:
    """Log a ``message``, a constant, where a backend is unavailable, and go on: what was done before stays done."""
    try:
        yield
    except ServiceUnavailable as error:
        logger.warning("%s: %s", message, type(error.__cause__ or error).__name__)


def expected(result: ResultT, kinds: Kinds, call: Callable[..., object]) -> ResultT:
    """Return the ``result`` of ``call`` if it is of one of the ``kinds``.

    Raises:
        TypeError: It is not.
    """
    if not isinstance(result, kinds):
        listed = kinds if isinstance(kinds, tuple) else (kinds,)
        names = " or ".join(_NAMES.get(kind, kind.__name__) for kind in listed)
        msg = f"{name_of(call)} returned {shown(result)}, not {names}"
        raise _UnexpectedResultError(msg)
    return result


async def result_of(
    reason: str, kinds: Kinds, call: Callable[..., Awaitable[ResultT]], *arguments: Any, **named: Any
) -> ResultT:
    """Return the result of an async method of the application.

    Raises:
        ServiceUnavailable: It raised anything other than an AuthError, or returned something of another type.
    """
    with or_unavailable(reason):
        return expected(await call(*arguments, **named), kinds, call)
