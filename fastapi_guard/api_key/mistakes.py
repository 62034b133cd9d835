"""The mistakes of a configuration: each with its place, and none with a value, which may be a secret."""

import json
import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from types import UnionType
from typing import Annotated, Any, ClassVar, Final, TypeAlias, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Strict, ValidationError, model_validator

from fastapi_guard.exceptions import ConfigurationError
from fastapi_guard.scopes import Scope
from fastapi_guard.stores.hidden import revealed

# The names on the way to a value; a number is that of a key, which is not shown.
Place: TypeAlias = tuple[str | int, ...]

# Unknown names that are shown. With one wrong indentation a key is where a name should be.
_PLAIN_NAME: Final = re.compile(r"[a-z_]{1,30}|.{1,15}|[\w.+-]{1,64}@[\w.-]{1,64}", re.DOTALL)
_KINDS: Final = {
    str: "a text",
    list: "a list",
    dict: "a mapping",
    bool: "true or false",
    int: "a number",
    float: "a number",
    type(None): "nothing",
}


class Mistakes:
    """The mistakes of one configuration.

    Attributes:
        source: The name of the file, empty where there is none.
        lines: The line of each place in the file, as far as that is known.
        variables: The prefix of the environment variables that the settings are, empty where they are not.
        found: A line for each mistake so far.
    """

    def __init__(self, source: str = "", lines: Mapping[Place, int] | None = None, variables: str = "") -> None:
        """Start without a mistake."""
        self.source: str = source
        self.lines: Mapping[Place, int] = lines or {}
        self.variables: str = variables
        self.found: list[str] = []

    def add(self, place: Place, mistake: str) -> None:
        """Add a mistake at a place."""
        line = next((self.lines[place[:end]] for end in range(len(place), 0, -1) if place[:end] in self.lines), None)
        names = [f"key {part}" if isinstance(part, int) else shown_name(part) for part in place]
        if self.variables and names:
            names[0] = self.variables + names[0].upper()
        where = (self.source, "" if line is None else f"line {line}", ".".join(names))
        self.found.append(": ".join(part for part in (", ".join(filter(None, where)), mistake) if part))

    def add_all(self, error: ValidationError, model: type[BaseModel], place: Place = ()) -> None:
        """Add each mistake that the validation of ``model`` at ``place`` found."""
        for found in error.errors(include_url=False):
            path = [str(step) for step in found["loc"] if step != "[key]"]
            self.add((*place, *path), _mistake(found, path, model))

    def refuse(self) -> None:
        """Raise if there was a mistake.

        Raises:
            ConfigurationError: There was; the message has a line for each.
        """
        if self.found:
            raise ConfigurationError("\n".join(self.found))


def shown_name(name: object) -> str:
    """Return a name as it is shown: one that may be a secret is not."""
    return str(name) if _PLAIN_NAME.fullmatch(str(name)) else "(a long name)"


class Settings(BaseModel):
    """A table of settings: an unknown one is a mistake, and ``null`` is the same as none."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        extra="forbid", frozen=True, hide_input_in_errors=True, defer_build=True, arbitrary_types_allowed=True
    )

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        return {name: revealed(setting) for name, setting in value.items() if setting is not None}


def from_json(kind: type) -> Callable[[Any], Any]:
    """Return a function that reads a text as JSON of one kind: as a text an environment variable has a list."""

    def read(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        try:
            found = json.loads(value)
        except (ValueError, RecursionError):
            return value
        return found if type(found) is kind else value

    return read


def _listed(value: Any) -> Any:
    value = from_json(list)(value)
    if value == "":
        msg = "is empty"
        raise ValueError(msg)
    if isinstance(value, str):
        return [value]
    return list(value) if isinstance(value, tuple | set | frozenset) else value


def _scope(value: Any) -> str:
    try:
        return str(Scope(value))
    except ConfigurationError:
        msg = "is not a scope: a text without spaces and quotation marks (RFC 6749 3.3)"
        raise ValueError(msg) from None


Text = Annotated[str, Strict(), Field(min_length=1)]
Flag = Annotated[bool, BeforeValidator(from_json(bool)), Strict()]
#: A list of texts, or one text alone.
Texts = Annotated[list[Text], BeforeValidator(_listed), Field(min_length=1)]
ScopeList = Annotated[
    list[Annotated[str, BeforeValidator(_scope)]],
    BeforeValidator(lambda value: list(value) if isinstance(value, tuple | set | frozenset) else value),
    BeforeValidator(from_json(list)),
]
Table: BeforeValidator = BeforeValidator(from_json(dict))


def _mistake(error: Any, path: list[str], model: type[BaseModel]) -> str:
    kind, value = error["type"], _kind(error["input"])
    if kind == "extra_forbidden":
        known = _known_at(model, path[:-1])
        close = get_close_matches(path[-1], known, n=1)
        return f"is not known; did you mean {close[0]}?" if close else f"is not known; known are {', '.join(known)}"
    if kind == "literal_error":
        return f"is one of {error['ctx']['expected']}".replace("'", "").replace(" or ", ", ")
    if kind == "value_error":
        return str(error["ctx"]["error"])
    known = _known_at(model, path)
    texts = {
        "missing": "is missing",
        "string_type": f"is a text, not {value}",
        "string_too_short": "is empty",
        "too_short": "is empty",
        "bool_type": f"is true or false, not {value}",
        "list_type": f"is a list of texts, not {value}",
        "dict_type": f"is a mapping, not {value}",
        "model_type": f"is a mapping of {', '.join(known)}, not {value}",
    }
    # The texts of pydantic have no value in them either.
    return texts.get(kind, str(error["msg"]))


def _known_at(model: Any, path: list[str]) -> list[str]:
    for step in path:
        model = _bare(model)
        fields = getattr(model, "model_fields", {})
        # Of a mapping from names to tables, the table.
        model = fields[step].annotation if step in fields else next(iter(get_args(model)[1:]), None)
    return list(getattr(_bare(model), "model_fields", ()))


def _bare(kind: Any) -> Any:
    while get_origin(kind) in (Annotated, Union, UnionType):
        kind = next(inner for inner in get_args(kind) if inner is not type(None))
    return kind


def _kind(value: object) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool) and value < 0:
        return "a negative number"
    return next((name for kind, name in _KINDS.items() if type(value) is kind), type(value).__name__)
