"""Check the arguments of constructors and routers: each error names the argument, and what to pass.

No value is quoted, since it may be a secret that was passed in the wrong place.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from inspect import getmembers, isfunction, signature
from typing import Final, TypeVar

from starlette.convertors import CONVERTOR_TYPES
from starlette.routing import PARAM_REGEX

from fastapi_guard.callables import accepts, is_async
from fastapi_guard.exceptions import ConfigurationError, shown
from fastapi_guard.scopes import Scope

ValueT = TypeVar("ValueT")

_STORE_METHODS: Final = ("get", "add", "replace", "delete", "find")
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def clock_of(clock: Callable[[], float], name: str = "clock") -> Callable[[], float]:
    """Return ``clock`` if it is a function, and not an ``async def``.

    Raises:
        ConfigurationError: It is not, such as a number or a class.
    """
    function_of(name, clock, "that returns seconds, such as time.time")
    if isinstance(clock, type) or is_async(clock):
        msg = f"{name} is a function that returns seconds, such as time.time, not a class or an async def"
        raise ConfigurationError(msg)
    return clock


def function_of(name: str, function: ValueT, what: str, *parameters: str) -> ValueT:
    """Return ``function`` if it can be called, sync or async.

    Args:
        name: The name of the argument, for the message.
        function: What was passed.
        what: What it is a function of, for the message.
        parameters: What it is called with by position.

    Raises:
        ConfigurationError: It cannot.
    """
    if not callable(function):
        msg = f"{name} is a function {what}, not {shown(function)}"
        raise ConfigurationError(msg)
    if parameters:
        check_parameters(name, function, parameters)
    return function


def plain_function_of(name: str, function: ValueT, what: str, *parameters: str) -> ValueT:
    """Return ``function`` if it can be called, and is not a class: an object of it would be the result.

    Raises:
        ConfigurationError: It is not.
    """
    if isinstance(function, type):
        msg = f"{name} is a function {what}, not {shown(function)}: construct it"
        raise ConfigurationError(msg)
    return function_of(name, function, what, *parameters)


def sync_function_of(name: str, function: ValueT, what: str, *parameters: str) -> ValueT:
    """Return ``function`` if it is a plain one, and not an ``async def``, which would not be awaited.

    Raises:
        ConfigurationError: It cannot, or it is one.
    """
    if is_async(plain_function_of(name, function, what, *parameters)):
        msg = f"{name} is a function {what}: a def, not an async def"
        raise ConfigurationError(msg)
    return function


def async_function_of(name: str, function: ValueT, what: str, *parameters: str) -> ValueT:
    """Return ``function`` if it is an ``async def``, which is awaited.

    Raises:
        ConfigurationError: It is not.
    """
    if not is_async(function_of(name, function, what, *parameters)):
        msg = f"{name} is a function {what}: an async def, not a def"
        raise ConfigurationError(msg)
    return function


def check_parameters(
    name: str, call: Callable[..., object], parameters: Collection[str], keywords: Iterable[str] = ()
) -> None:
    """Reject a function that cannot be called with ``parameters`` by position and ``keywords`` by name.

    Raises:
        ConfigurationError: It cannot, as far as it has a signature.
    """
    if not accepts(call, len(parameters), keywords):
        written = ", ".join([*parameters, *(f"{keyword}=..." for keyword in keywords)])
        msg = f"{name} has other parameters than it is called with: ({written})"
        raise ConfigurationError(msg)


def instance_of(name: str, value: ValueT, kind: type | tuple[type, ...], example: str) -> ValueT:
    """Return ``value`` if it is a ``kind``, or one of several.

    Raises:
        ConfigurationError: It is not.
    """
    if not isinstance(value, kind):
        msg = f"{name} is {example}, not {shown(value)}"
        raise ConfigurationError(msg)
    return value


def implementing(
    name: str, value: ValueT, methods: Collection[str], example: str, *, plain: Collection[str] = ()
) -> ValueT:
    """Return ``value`` if it is an object with these methods, and not the class of one.

    Args:
        name: The name of the argument, for the message.
        value: The object.
        methods: Its methods that are awaited: each is an ``async def``.
        example: What to pass, for the message.
        plain: Its methods that are not awaited: each is a ``def``. A coroutine counts as true.

    Raises:
        ConfigurationError: It is not.
    """
    if isinstance(value, type) or not all(callable(getattr(value, method, None)) for method in (*methods, *plain)):
        msg = f"{name} is {example}, not {shown(value)}"
        raise ConfigurationError(msg)
    for method in (*methods, *plain):
        if is_async(getattr(value, method)) is (method in plain):
            kind = "a def, not an async def" if method in plain else "an async def"
            msg = f"{name}: {type(value).__name__}.{method} has to be {kind}"
            raise ConfigurationError(msg)
    return value


def store_of(name: str, value: ValueT) -> ValueT:
    """Return ``value`` if it has the methods of a Store, and is not the class of one.

    Raises:
        ConfigurationError: It is not a store.
    """
    return implementing(name, value, _STORE_METHODS, "a Store, such as MemoryStore()")


def like(name: str, value: ValueT, protocol: type, example: str) -> ValueT:
    """Return ``value`` if it has the methods of ``protocol``: ``async def`` or not as there, for the same arguments.

    Raises:
        ConfigurationError: It has not.
    """
    declared = {method: own for method, own in getmembers(protocol, isfunction) if not method.startswith("_")}
    plain = [method for method, own in declared.items() if not is_async(own)]
    implementing(name, value, [method for method in declared if method not in plain], example, plain=plain)
    for method, own in declared.items():
        called = f"{name}: {type(value).__name__}.{method}"
        check_parameters(called, getattr(value, method), [*signature(own).parameters][1:])
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


def check_options(owner: str, options: Mapping[str, object], known: type, remedy: str) -> None:
    """Reject a keyword argument that a class would not use, though its base class has it.

    Args:
        owner: The name of the class.
        options: The keyword arguments.
        known: The TypedDict of those that it uses.
        remedy: What to do instead.

    Raises:
        ConfigurationError: There is one.
    """
    if unused := sorted(set(options).difference(known.__annotations__)):
        msg = f"{owner} has no argument {', '.join(unused)}: {remedy}"
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


def check_field_names(**names: object) -> None:
    """Reject what is neither the name of a header field (RFC 9110 5.1) nor ``None``.

    Raises:
        ConfigurationError: One is not: no request would have the field.
    """
    for argument, name in names.items():
        if name is not None and not (isinstance(name, str) and _TOKEN.fullmatch(name)):
            msg = f"{argument} is the name of a header field, such as X-Request-Id, not {shown(name)}"
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


def texts_of(name: str, values: Iterable[str], example: str) -> tuple[str, ...]:
    """Return the items of a list, tuple or set of texts.

    Raises:
        ConfigurationError: It is not one, or an item is not text, or empty.
    """
    texts = items_of(name, values, example)
    for text in texts:
        if not isinstance(text, str) or not text:
            msg = f"{name} is a list {example}, not of {shown(text)}"
            raise ConfigurationError(msg)
    return texts


def scopes_in(name: str, values: Iterable[str], example: str = 'such as ["items:read"]') -> tuple[Scope, ...]:
    """Return the scopes of a list, tuple or set.

    Raises:
        ConfigurationError: It is not one, or an item is not a scope.
    """
    try:
        return tuple(Scope(value) for value in items_of(name, values, f"of scopes, {example}"))
    except ConfigurationError as error:
        msg = str(error) if str(error).startswith(name) else f"{name}: {error}"
        raise ConfigurationError(msg) from None


def path_of(name: str, path: str, *, prefix: bool = False) -> str:
    """Return ``path`` if a route can have it; with ``prefix``, if it can be put before the paths of routes.

    Raises:
        ConfigurationError: It cannot: no request would reach the route.
    """
    example = f'{name} is a path such as "/auth"{", or empty" if prefix else ""}'
    if not isinstance(path, str):
        msg = f"{example}, not {shown(path)}"
        raise ConfigurationError(msg)
    if prefix and not path:
        return path
    ends = prefix and path.endswith("/")
    if not path.startswith("/") or "//" in path or ends or not path.isprintable() or {*path} & {*" ?#"}:
        msg = f"{example}: it begins with one slash{', ends with none' if prefix else ''}, and has no query"
        raise ConfigurationError(msg)
    found: list[tuple[str, str]] = PARAM_REGEX.findall(path)
    is_unknown = any(kind and kind[1:] not in CONVERTOR_TYPES for _, kind in found)
    if is_unknown or len({text for text, _ in found}) < len(found) or {*PARAM_REGEX.sub("", path)} & {*"{}"}:
        msg = f"{example}: a placeholder has the form {{name}} or {{name:path}}, and a name of its own"
        raise ConfigurationError(msg)
    return path
