"""Options that several commands have, and the settings in the context of a command."""

import getpass
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from fastapi_guard.cli.usage import InvalidValue
from fastapi_guard.exceptions import ConfigurationError, shown
from fastapi_guard.stores.bounds import duration_of

URL_VARIABLE = "FASTAPI_GUARD_DATABASE_URL"
# In the query of a URL, as drivers read it.
_PASSWORD = re.compile(r"[?&](?:[a-z_]*password|passwd|passfile|secret)=", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Settings:
    """The options before the name of the command."""

    database_url: str | None
    as_json: bool


DatabaseURL = Annotated[
    str | None,
    typer.Option(
        "--database-url", help=f"URL of SQLAlchemy, such as sqlite:///keys.db; or {URL_VARIABLE}.", show_default=False
    ),
]
AsJSON = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def duration(text: str) -> timedelta:
    """Return a duration such as ``90d``: a number and s, m, h, d or w.

    Raises:
        InvalidValue: The text is of another form.
    """
    try:
        return duration_of(text)
    except ValueError:
        msg = f"{shown(text)} is not a duration: write a number and s, m, h, d or w, such as 90d"
        raise InvalidValue(msg) from None


def moment(text: str) -> datetime:
    """Return a time in the future, from a duration such as ``90d`` or a time such as ``2027-01-01T00:00:00Z``.

    Raises:
        InvalidValue: The text is neither, has no time zone, or is in the past.
    """
    try:
        return datetime.now(UTC) + duration_of(text)
    except OverflowError:
        msg = "that duration from now is after the year 9999"
        raise InvalidValue(msg) from None
    except ValueError:
        pass
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        msg = f"{shown(text)} is neither a duration, such as 90d, nor a time, such as 2027-01-01T00:00:00Z"
        raise InvalidValue(msg) from None
    if found.utcoffset() is None:
        msg = "the time has no time zone: append Z for UTC, or an offset such as +02:00"
        raise InvalidValue(msg)
    if found <= datetime.now(UTC):
        msg = "the time is in the past"
        raise InvalidValue(msg)
    return found


def database_url(context: typer.Context, given: str | None) -> str | None:
    """Return the database URL of the command, or that before the command.

    Raises:
        InvalidValue: The URL of the command has a password.
    """
    settings: Settings = context.obj
    return check_argument(given) or settings.database_url


def check_argument(url: str | None, variable: str = URL_VARIABLE) -> str | None:
    """Return a URL that was typed as an argument.

    Args:
        url: The URL.
        variable: The environment variable to use in its place.

    Raises:
        InvalidValue: It has a password, which is now in the list of processes and in the history of the shell.
    """
    rest = (url or "").partition("://")[2]
    user, at, _ = rest.rpartition("@")
    if (at and ":" in user) or _PASSWORD.search(rest):
        msg = f"the URL has a password, which every user of this machine can see: set {variable} instead"
        raise InvalidValue(msg)
    return url


def wants_json(context: typer.Context, given: bool) -> bool:  # noqa: FBT001 - the value of the option
    """Return whether ``--json`` was given, after the command or before it."""
    settings: Settings = context.obj
    return given or settings.as_json


def existing_file(parameter: str, file: str | Path) -> Path:
    """Return the path of a file that exists; the error does not repeat it.

    Raises:
        ConfigurationError: There is no such file.
    """
    path = Path(file)
    if not path.is_file():
        msg = f"{parameter} cannot be read: there is no such file"
        raise ConfigurationError(msg)
    return path


def secrets_in(variable: str) -> Mapping[str, str]:
    """Return the secrets by id in a variable of the environment, which is a JSON object.

    Raises:
        ConfigurationError: It is not set, or is another text.
    """
    try:
        secrets = json.loads(os.environ.get(variable, ""))
    except ValueError:
        secrets = None
    if not isinstance(secrets, dict) or not secrets or not all(isinstance(key, str) for key in secrets.values()):
        msg = f'{variable} is a JSON object of keys by id, such as {{"2": "...", "1": "..."}}, the new one first'
        raise ConfigurationError(msg)
    return secrets


def actor() -> str:
    """Return the name of the current user of the system, for the table of events."""
    try:
        return f"cli:{getpass.getuser()}"
    except (OSError, KeyError):  # an account without a name, as in a container
        return "cli"
