"""Output of the command line: JSON for programs, tables for people, one line on standard error for an error."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fastapi_guard.events.publishing import on_one_line
from fastapi_guard.exceptions import ConfigurationError, GuardError, ServiceUnavailable

_WIDTH_OF_A_PIPE = 1000


@contextmanager
def failures() -> Iterator[None]:
    """Print an error of the package in one line on standard error, and exit with code 1.

    Raises:
        typer.Exit: There was an error.
    """
    try:
        yield
    except ServiceUnavailable as error:
        fail(_unavailable(error))
    except (GuardError, ValueError) as error:
        fail(str(error))


def _unavailable(error: ServiceUnavailable) -> str:
    cause = getattr(error.__cause__, "orig", None) or error.__cause__
    if error.reason == "database_unreachable":
        return f"the database is unavailable: {cause}"
    # A key file that cannot be read, or a Redis, is not the database.
    return str(cause) if isinstance(cause, ConfigurationError) else f"unavailable ({error.reason}): {cause}"


def fail(message: str) -> None:
    """Print ``message`` on standard error, in one line, and exit with code 1.

    Raises:
        typer.Exit: Always.
    """
    typer.echo("error: " + " ".join(message.split()), err=True)
    raise typer.Exit(1)


def print_json(value: object) -> None:
    """Print ``value`` as JSON, with times in ISO 8601."""
    typer.echo(json.dumps(value, default=datetime.isoformat, indent=2))


def print_fields(fields: Mapping[str, Any]) -> None:
    """Print one name and value per line."""
    width = max(map(len, fields)) + 2
    for name, value in fields.items():
        typer.echo(f"{name.replace('_', ' '):{width}}{_shown(value)}")


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table as wide as the terminal, and without truncation if the output is not a terminal."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH_OF_A_PIPE)
    table = Table(box=None, pad_edge=False)
    for column in columns:
        # The first column is the argument of other commands, and is never truncated.
        table.add_column(column, no_wrap=column == columns[0], overflow="fold")
    for row in rows:
        # Text is printed as it is; a string could contain markup of rich.
        table.add_row(*(Text(_shown(value)) for value in row))
    console.print(table)


def _shown(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%SZ")
    if isinstance(value, list):
        return on_one_line(" ".join(map(str, value))) or "-"
    if isinstance(value, dict):
        return on_one_line(json.dumps(value, ensure_ascii=False)) if value else "-"
    return on_one_line(str(value)) or "-"
