"""What stands in a configuration: read from a mapping, a file or the environment, and checked as a whole.

Each mistake is noted with its place, and all of them are told at once. No value is ever quoted: it may be a secret.
"""

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, TypeAlias

from fastapi_guard.api_key.static import load_file
from fastapi_guard.exceptions import ConfigurationError
from fastapi_guard.scopes import Scope

ENVIRONMENT_PREFIX: Final = "FASTAPI_GUARD_"
MISSING: Final = "is missing"

# A number stands for a key, which is not shown.
Place: TypeAlias = tuple[str | int, ...]

# ${NAME}, ${NAME:-what stands in for it}, and $${ for a literal ${.
_VARIABLE = re.compile(r"\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
# What may be shown of a name that nobody expected: with one wrong indentation a key stands where a name should.
_PLAIN_NAME = re.compile(r"[a-z_]+|.{1,15}|.*@.*", re.DOTALL)


@dataclass(slots=True)
class Reading:
    """One configuration while it is read.

    Attributes:
        source: The name of the file, empty where there is none.
        lines: The line of each path in it, as far as that is known.
        from_environment: Whether each setting is an environment variable.
        mistakes: What was found so far.
    """

    source: str = ""
    lines: Mapping[tuple[str | int, ...], int] = field(default_factory=dict)
    from_environment: bool = False
    mistakes: list[str] = field(default_factory=list)

    def note(self, place: Place, mistake: str) -> None:
        """Add a mistake at ``place``."""
        names = [f"key {part}" if isinstance(part, int) else part for part in place]
        if self.from_environment and names:
            names[0] = ENVIRONMENT_PREFIX + names[0].upper()
        shown = ".".join(names)
        line = next((self.lines[place[:end]] for end in range(len(place), 0, -1) if place[:end] in self.lines), None)
        where = ", ".join(part for part in (self.source, "" if line is None else f"line {line}", shown) if part)
        self.mistakes.append(f"{where}: {mistake}" if where else mistake)

    def refuse(self) -> None:
        """Raise if there was a mistake.

        Raises:
            ConfigurationError: With a line for each.
        """
        if self.mistakes:
            raise ConfigurationError("\n".join(self.mistakes))


# Notes what is wrong with a value, and returns what it stands for.
Check: TypeAlias = Callable[[Reading, Place, Any], Any]


@dataclass(frozen=True, slots=True)
class Setting:
    """A member of a table: how it is checked, and whether it must be there."""

    check: Check
    required: bool = False


Schema: TypeAlias = Mapping[str, Setting]


def read(config: Mapping[str, Any] | str | Path | None, names: Iterable[str] = ()) -> tuple[Reading, Any]:
    """Return the content of a configuration, with ``${ENV}`` of a file filled in; nothing of it is checked yet.

    Args:
        config: A mapping, the path of a YAML or TOML file, or ``None`` for the environment.
        names: The settings that are looked for in the environment.

    Raises:
        ConfigurationError: The file cannot be read.
        MissingExtraError: It is YAML, and the extra ``yaml`` is not installed.
    """
    if config is None:
        found = {name: os.environ.get(ENVIRONMENT_PREFIX + name.upper(), "") for name in names}
        return Reading(from_environment=True), {name: value for name, value in found.items() if value}
    if isinstance(config, str | Path):
        file = Path(config)
        content, lines = load_file(file)
        reading = Reading(file.name, lines)
        return reading, _filled_in(reading, (), content)
    return Reading(), config


def _filled_in(reading: Reading, place: Place, value: Any) -> Any:
    if isinstance(value, str):
        return _with_variables(reading, place, value)
    if isinstance(value, list):
        return [_filled_in(reading, (*place, str(number)), each) for number, each in enumerate(value)]
    if isinstance(value, dict):
        numbered = place == ("api_keys",)
        return {
            _filled_in(reading, below, name): _filled_in(reading, below, each)
            for number, (name, each) in enumerate(value.items(), 1)
            for below in [(*place, number if numbered else _shown(name))]
        }
    return value


def _shown(name: object) -> str:
    return str(name) if _PLAIN_NAME.fullmatch(str(name)) else "(a long name)"


def _with_variables(reading: Reading, place: Place, text: str) -> str:
    def value(found: re.Match[str]) -> str:
        name, default = found.groups()
        if name is None:
            return "${"
        in_environment = os.environ.get(name, "")
        if not in_environment and default is None:
            reading.note(place, f"the environment has no {name}")
        return in_environment or default or ""

    return _VARIABLE.sub(value, text)


def table(schema: Schema) -> Check:
    """Check a mapping by what its members must be; an unknown one is a mistake, ``null`` is as if it were not there."""

    def check(reading: Reading, place: Place, value: Any) -> dict[str, Any]:
        value = _structured(value, dict)
        if not isinstance(value, Mapping):
            reading.note(place, f"is a mapping of {', '.join(schema)}, not {_kind(value)}")
            return {}
        for name in value:
            if name not in schema:
                reading.note((*place, _shown(name)), _unknown(str(name), schema))
        found = {}
        for name, setting in schema.items():
            below = (*place, name)
            if value.get(name) is not None:
                found[name] = setting.check(reading, below, value[name])
            elif setting.required:
                reading.note(below, MISSING)
        return found

    return check


def mapping_of(each: Check) -> Check:
    """Check a mapping from names to what ``each`` checks."""

    def check(reading: Reading, place: Place, value: Any) -> dict[str, Any]:
        value = _structured(value, dict)
        if not isinstance(value, Mapping) or not all(isinstance(name, str) and name for name in value):
            reading.note(place, f"is a mapping from names, not {_kind(value)}")
            return {}
        return {name: each(reading, (*place, name), below) for name, below in value.items()}

    return check


def any_mapping(reading: Reading, place: Place, value: Any) -> Any:
    """Check that it is a mapping, and leave what is in it to somebody else."""
    value = _structured(value, dict)
    if not isinstance(value, Mapping):
        reading.note(place, f"is a mapping, not {_kind(value)}")
        return {}
    return value


def text(reading: Reading, place: Place, value: Any) -> str:
    """Check that it is text, and not empty."""
    if not isinstance(value, str) or not value:
        reading.note(place, "is empty" if value == "" else f"is a text, not {_kind(value)}")
        return ""
    return value


def texts(reading: Reading, place: Place, value: Any) -> list[str]:
    """Check a list of texts; one text alone is a list of one."""
    value = _structured(value, list)
    if isinstance(value, str):
        return [text(reading, place, value)]
    if not isinstance(value, list | tuple) or not value:
        reading.note(place, f"is a list of texts, not {'empty' if value in ([], ()) else _kind(value)}")
        return []
    return [text(reading, (*place, str(number)), each) for number, each in enumerate(value)]


def text_or_texts(reading: Reading, place: Place, value: Any) -> str | list[str]:
    """Check a text, or a list of several."""
    found = texts(reading, place, value)
    return found[0] if len(found) == 1 else found


def scopes(reading: Reading, place: Place, value: Any) -> list[str]:
    """Check a list of scopes, which may be empty."""
    value = _structured(value, list)
    if not isinstance(value, list | tuple):
        reading.note(place, f"is a list of scopes, not {_kind(value)}")
        return []
    found = []
    for number, each in enumerate(value):
        try:
            found.append(str(Scope(each)))
        except (ConfigurationError, TypeError, AttributeError):
            reading.note((*place, str(number)), "is no scope: a text without spaces and quotation marks (RFC 6749 3.3)")
    return found


def flag(reading: Reading, place: Place, value: Any) -> bool:
    """Check that it is true or false."""
    value = _structured(value, bool)
    if not isinstance(value, bool):
        reading.note(place, f"is true or false, not {_kind(value)}")
    return value is True


def whole(least: int = 0, most: int | None = None) -> Check:
    """Check that it is a whole number from ``least`` on, and up to ``most``."""
    span = f"from {least} {'on' if most is None else f'to {most}'}"

    def check(reading: Reading, place: Place, value: Any) -> int:
        value = _structured(value, int)
        if type(value) is not int or value < least or (most is not None and value > most):
            kind = _kind(value)
            reading.note(place, f"is a whole number {span}" + ("" if kind == "a number" else f", not {kind}"))
            return least
        return value

    return check


def choice(*values: str) -> Check:
    """Check that it is one of ``values``."""

    def check(reading: Reading, place: Place, value: Any) -> str:
        if value not in values:
            reading.note(place, f"is one of {', '.join(values)}")
            return values[0]
        return str(value)

    return check


def choices(*values: str) -> Check:
    """Check a list of some of ``values``; one of them alone is a list of one."""
    each = choice(*values)

    def check(reading: Reading, place: Place, value: Any) -> list[str]:
        return [each(reading, (*place, str(number)), name) for number, name in enumerate(texts(reading, place, value))]

    return check


def _structured(value: Any, kind: type) -> Any:
    # An environment variable is a text; what is more than that stands in it as JSON.
    if isinstance(value, str):
        try:
            found = json.loads(value)
        except (ValueError, RecursionError):
            return value
        return found if type(found) is kind else value
    return value


def _kind(value: object) -> str:
    names = {str: "a text", list: "a list", dict: "a mapping", bool: "true or false", type(None): "nothing"}
    if isinstance(value, int | float) and not isinstance(value, bool):
        return "a number" if isinstance(value, float) or value >= 0 else "a negative number"
    return names.get(type(value), type(value).__name__)


def _unknown(name: str, schema: Schema) -> str:
    close = get_close_matches(name, schema, n=1)
    return f"is not known; did you mean {close[0]}?" if close else f"is not known; known are {', '.join(schema)}"
