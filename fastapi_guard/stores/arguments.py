"""Check the arguments of constructors: each error names the argument, and what to pass.

No value is quoted, since it may be a secret that was passed in the wrong place.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from inspect import iscoroutinefunction, unwrap
from typing import Final, TypeVar

from fastapi_guard.exceptions import ConfigurationError, shown

ValueT = TypeVar("ValueT")

STORE_METHODS: Final = ("get", "add", "replace", "delete", "find")


def clock_of(clock: Callable[[], float], name: str = "clock") -> Callable[[], float]:
    """Return ``clock`` if it is a function, and not an ``async def``.

    Raises:
        ConfigurationError: It is not, such as a number or a class.
    """
    function_of(name, clock, "that returns seconds, such as time.time")
    if isinstance(clock, type) or iscoroutinefunction(unwrap(clock)):
        msg = f"{name} is a function that returns seconds, such as time.time, not a class or an async def"
        raise ConfigurationError(msg)
    return clock


def function_of(name: str, function: ValueT, what: str) -> ValueT:
    """Return ``function`` if it can be called.

    Raises:
        ConfigurationError: It cannot.
    """
    if not callable(function):
        msg = f"{name} is a function {what}, not {shown(function)}"
        raise ConfigurationError(msg)
    return function


def instance_of(name: str, value: ValueT, kind: type | tuple[type, ...], example: str) -> ValueT:
    """Return ``value`` if it is a ``kind``, or one of several.

    Raises:
        ConfigurationError: It is not.
    """
    if not isinstance(value, kind):
        msg = f"{name} is {example}, not {shown(value)}"
        raise ConfigurationError(msg)
    return value


def implementing(name: str, value: ValueT, methods: Collection[str], example: str) -> ValueT:
    """Return ``value`` if it is an object with these methods, and not the class of one.

    Raises:
        ConfigurationError: It is not.
    """
    if isinstance(value, type) or not all(callable(getattr(value, method, None)) for method in methods):
        msg = f"{name} is {example}, not {shown(value)}"
        raise ConfigurationError(msg)
    return value


def check_flags(**flags: object) -> None:
    """Reject a flag that is not ``True`` or ``False``: the text "false" would count as true.

    Raises:
        ConfigurationError: One is not.
    """
    for name, flag in flags.items():
        if type(flag) is not bool:
            msg = f"{name} is True or False, not {shown(flag)}"
            raise ConfigurationError(msg)


def check_numbers(least: int = 0, /, **numbers: object) -> None:
    """Reject what is not a whole number from ``least`` on.

    Raises:
        ConfigurationError: One is not.
    """
    for name, number in numbers.items():
        if type(number) is not int or number < least:
            msg = f"{name} is a whole number from {least}, not {shown(number)}"
            raise ConfigurationError(msg)


def check_texts(**texts: object) -> None:
    """Reject what is neither text that can be printed nor ``None``.

    Raises:
        ConfigurationError: One is not.
    """
    for name, text in texts.items():
        if text is not None and (not isinstance(text, str) or not text or not text.isprintable()):
            msg = f"{name} is text without control characters, not {shown(text)}"
            raise ConfigurationError(msg)


def optional_texts(**texts: object) -> None:
    """Reject what is neither text nor ``None``.

    Raises:
        ConfigurationError: One is not.
    """
    for name, text in texts.items():
        instance_of(name, text, (str, type(None)), "text")


def items_of(name: str, values: Iterable[ValueT], example: str) -> tuple[ValueT, ...]:
    """Return the items of a list, tuple or set.

    Raises:
        ConfigurationError: It is not one; a single text is not.
    """
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        msg = f"{name} is a list {example}, not {shown(values)}"
        raise ConfigurationError(msg)
    return tuple(values)


def mapping_of(name: str, values: Mapping[str, ValueT], example: str) -> Mapping[str, ValueT]:
    """Return ``values`` if it is a mapping with texts as names.

    Raises:
        ConfigurationError: It is not.
    """
    if not isinstance(values, Mapping) or not all(isinstance(key, str) for key in values):
        msg = f"{name} is a mapping, such as {example}, not {shown(values)}"
        raise ConfigurationError(msg)
    return values
