"""The content of a configuration: a mapping, a settings model, a file, or the environment."""

import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

from pydantic import BaseModel

from fastapi_guard.api_key.mistakes import Mistakes, Place, shown_name
from fastapi_guard.api_key.static import load_file
from fastapi_guard.exceptions import ConfigurationError
from fastapi_guard.stores.hidden import plain

ENVIRONMENT_PREFIX: Final = "FASTAPI_GUARD_"

Config: TypeAlias = Mapping[str, Any] | BaseModel | str | Path

# ${NAME}, ${NAME:-the default}, and $${ for a literal ${.
_VARIABLE: Final = re.compile(r"\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")


def read(config: Config | None, names: Iterable[str] = ()) -> tuple[Mistakes, Any]:
    """Return the content of a configuration, in plain values and with ``${ENV}`` of a file filled in.

    Args:
        config: A mapping or a settings model, the path of a YAML or TOML file, or ``None`` for the environment.
        names: The settings that are looked for in the environment.

    Raises:
        ConfigurationError: The file cannot be read, or the content contains itself.
        MissingExtraError: It is YAML, and the extra ``yaml`` is not installed.
    """
    if config is None:
        found = {name: os.environ.get(ENVIRONMENT_PREFIX + name.upper(), "") for name in names}
        return Mistakes(variables=ENVIRONMENT_PREFIX), {name: value for name, value in found.items() if value}
    if isinstance(config, str | Path):
        file = Path(config)
        content, lines = load_file(file)
        mistakes = Mistakes(file.name, lines)
        return mistakes, _finite(_filled_in, mistakes, (), content)
    return Mistakes(), _finite(_plain, config)


def _finite(read: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return read(*arguments)
    except RecursionError:
        msg = "the configuration is nested too deeply, or contains itself"
        raise ConfigurationError(msg) from None


def _plain(value: Any) -> Any:
    """Return a value without the types of pydantic: a secret revealed, a URL as text, a model as a mapping."""
    if isinstance(value, BaseModel):
        return {name: _plain(getattr(value, name)) for name in (*type(value).model_fields, *(value.model_extra or ()))}
    if isinstance(value, Mapping):
        return {_plain_name(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return plain(value)


def _plain_name(name: Any) -> Any:
    # A tuple would become a list, which is not a name; whether it is a text is found where the names are checked.
    return name if isinstance(name, tuple) else plain(name)


def _filled_in(mistakes: Mistakes, place: Place, value: Any) -> Any:
    if isinstance(value, str):
        return _with_variables(mistakes, place, value)
    if isinstance(value, list):
        return [_filled_in(mistakes, (*place, str(number)), inner) for number, inner in enumerate(value)]
    if isinstance(value, dict):
        numbered = place == ("api_keys",)
        return {
            _filled_in(mistakes, below, name): _filled_in(mistakes, below, inner)
            for number, (name, inner) in enumerate(value.items(), 1)
            for below in [(*place, number if numbered else str(name))]
        }
    return value


def _with_variables(mistakes: Mistakes, place: Place, text: str) -> str:
    def value(found: re.Match[str]) -> str:
        name, default = found.groups()
        if name is None:
            return "${"
        in_environment = os.environ.get(name, "")
        if not in_environment and default is None:
            mistakes.add(place, f"the environment has no {shown_name(name)}")
        return in_environment or default or ""

    return _VARIABLE.sub(value, text)
