"""Evaluate the signature of a callable as it is written, when the application starts.

FastAPI evaluates annotations when a route is declared, by the names that its module has at that moment. What it cannot
evaluate it takes for a parameter that the client sends. When the application starts, the names below a route are
defined too, so that ``lost_guards`` can compare what is written with what FastAPI built.
"""

import builtins
import inspect
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import MISSING, fields, is_dataclass
from functools import partial
from inspect import Parameter, Signature
from typing import Annotated, Any, ForwardRef, Literal, NamedTuple, get_args, get_origin, get_type_hints

from pydantic.fields import FieldInfo
from typing_extensions import is_typeddict


class Written(NamedTuple):
    """A parameter as it is written.

    Attributes:
        name: Its name.
        kind: Its type, evaluated now, without its metadata.
        metadata: What follows its type in ``Annotated``.
        below: What its type is made of at any depth: types and their metadata.
        default: Its default, or ``Parameter.empty``.
        undefined: The names in the annotation that are not defined.
    """

    name: str
    kind: Any
    metadata: tuple[Any, ...]
    below: tuple[Any, ...]
    default: Any
    undefined: tuple[str, ...]


def parameters_of(call: Any) -> tuple[Written, ...]:
    """Return the parameters that FastAPI sees in ``call``, none where it has no signature."""
    signature = _signature_of(call)
    if signature is None:
        return ()
    names = _names_around(call)
    factories = _factories_of(call)
    return tuple(
        _written(name, parameter.annotation, factories.get(name, parameter.default), names)
        for name, parameter in signature.parameters.items()
    )


def return_of(call: Any) -> Written | None:
    """Return what ``call`` returns, as it is written, ``None`` where nothing is."""
    signature = None if inspect.isclass(call) else _signature_of(call)
    if signature is None or signature.return_annotation is Signature.empty:
        return None
    return _written("return", signature.return_annotation, Parameter.empty, _names_around(call))


def fields_within(kinds: Iterable[Any]) -> Iterator[FieldInfo]:
    """Yield the fields of models, dataclasses and their like, at any depth."""
    pending, seen = list(kinds), set()
    while pending:
        kind = pending.pop()
        if inspect.isclass(kind) and kind not in seen:
            seen.add(kind)
            for field in _fields_of(kind):
                yield field
                pending += [field.annotation, *_parts(field.annotation, _Names({}, {}), set())]


def function_of(call: Any) -> Any:
    """Return the function that runs: below partials and wrappers, of a method, an instance or a class."""
    while True:
        call = inspect.unwrap(call)
        if isinstance(call, partial):
            call = call.func
        elif inspect.ismethod(call):
            call = call.__func__
        elif inspect.isclass(call):
            call = call.__init__
        elif inspect.isroutine(call):
            return call
        else:
            call = type(call).__call__


def split(annotation: Any) -> tuple[Any, tuple[Any, ...]]:
    """Return the type of an annotation and its metadata; an alias stands for its value."""
    while True:
        if not hasattr(annotation, "__value__"):
            metadata: tuple[Any, ...] = getattr(annotation, "__metadata__", ())
            return (annotation.__origin__ if metadata else annotation), metadata
        annotation = annotation.__value__  # of the statement of Python 3.12: type Reader = Annotated[...]


class _Undefined:
    """Stands for a name that is not defined, so that the rest of an annotation can be evaluated."""

    def __getattr__(self, name: str) -> "_Undefined":
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, *_: object, **__: object) -> "_Undefined":
        return self

    def __getitem__(self, _: object) -> "_Undefined":
        return self

    def __or__(self, other: Any) -> Any:
        return Annotated[Any, self] | other

    def __ror__(self, other: Any) -> Any:
        return other | Annotated[Any, self]


class _Names(dict[str, Any]):
    """The names that an annotation may use, local ones first, and a list of those that are not defined."""

    def __init__(self, around: Mapping[str, Any], module: Mapping[str, Any]) -> None:
        super().__init__(around)
        self._module = module
        self.undefined: dict[str, None] = {}

    def __missing__(self, name: str) -> Any:
        if name in self._module:
            return self._module[name]
        if hasattr(builtins, name):
            return getattr(builtins, name)
        self.undefined[name] = None
        return _Undefined()

    def evaluate(self, annotation: Any) -> Any:
        """Return an annotation with text in its place evaluated, however often it is quoted."""
        while isinstance(annotation, str | ForwardRef):
            text = annotation if isinstance(annotation, str) else annotation.__forward_arg__
            try:
                annotation = eval(text, {}, self)  # noqa: S307 - the text is the application's, as for FastAPI
            except Exception:  # noqa: BLE001 - whatever a text provokes that cannot be evaluated
                self.undefined[text] = None
                return Any
        return annotation


def _names_around(call: Any) -> _Names:
    function = function_of(call)
    module = getattr(function, "__globals__", {})
    if inspect.isclass(call):
        module = {**vars(sys.modules.get(call.__module__, builtins)), **module, **vars(call)}
    around = {kind.__name__: kind for kind in getattr(function, "__type_params__", ())}
    return _Names({**around, **cells_of(function)}, module)


def _fields_of(kind: type) -> list[FieldInfo]:
    declared = getattr(kind, "model_fields", None)
    if isinstance(declared, dict):
        return list(declared.values())
    if is_dataclass(kind) or is_typeddict(kind) or hasattr(kind, "_fields"):
        with suppress(Exception):  # whatever a text provokes that cannot be evaluated
            return [FieldInfo.from_annotation(hint) for hint in get_type_hints(kind, include_extras=True).values()]
    return []


def cells_of(function: Any) -> dict[str, Any]:
    """Return what a function closes over, by name."""
    cells = zip(
        getattr(getattr(function, "__code__", None), "co_freevars", ()),
        getattr(function, "__closure__", None) or (),
        strict=False,
    )
    contents: dict[str, Any] = {}
    for name, cell in cells:
        try:
            contents[name] = cell.cell_contents
        except ValueError:  # it is assigned later, if ever
            continue
    return contents


def _written(name: str, annotation: Any, default: Any, names: _Names) -> Written:
    names.undefined.clear()
    kind, metadata = split(names.evaluate(annotation))
    kind = names.evaluate(kind)
    below = tuple(_parts(kind, names, set()))
    return Written(name, kind, metadata, below, default, tuple(names.undefined))


def _parts(annotation: Any, names: _Names, seen: set[int]) -> Iterator[Any]:
    for argument in _arguments(annotation):
        kind, metadata = split(names.evaluate(argument))
        yield kind
        yield from metadata
        if id(kind) not in seen:  # an alias may name itself
            seen.add(id(kind))
            yield from _parts(kind, names, seen)


def _arguments(annotation: Any) -> Iterator[Any]:
    if get_origin(annotation) is Literal:
        return
    for argument in get_args(annotation):
        yield from argument if isinstance(argument, list) else (argument,)  # the parameters of a Callable
    if hasattr(annotation, "__supertype__"):  # of a NewType
        yield annotation.__supertype__
    fields = getattr(annotation, "model_fields", None) if inspect.isclass(annotation) else None
    for field in fields.values() if isinstance(fields, dict) else ():
        # A field of a model is the client's, whatever its default is.
        yield Annotated[Any if field.annotation is None else field.annotation, field]


def _signature_of(call: Any) -> Signature | None:
    options: dict[str, Any] = {}
    if sys.version_info >= (3, 14):  # pragma: no cover - annotations are evaluated when they are asked for
        from annotationlib import Format  # noqa: PLC0415

        options["annotation_format"] = Format.FORWARDREF
    try:
        return inspect.signature(call, **options)
    except (TypeError, ValueError):  # a builtin such as dict has no signature, nor a guard in it
        return None


def _factories_of(call: Any) -> dict[str, object]:
    # What makes the defaults of a dataclass is not in its signature.
    declared = fields(call) if inspect.isclass(call) and is_dataclass(call) else ()
    return {field.name: field.default_factory for field in declared if field.default_factory is not MISSING}


def attributes_of(kind: type) -> Iterator[Written]:
    """Yield the annotated attributes of a class, as if they were parameters."""
    names = _names_around(kind)
    for owner in kind.__mro__:
        annotations = vars(owner).get("__annotations__", {})
        for name, annotation in annotations.items():
            yield _written(name, annotation, vars(owner).get(name, Parameter.empty), names)
