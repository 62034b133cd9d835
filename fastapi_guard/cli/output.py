"""What the command line prints: JSON for programs, tables for people, one line on standard error for a failure."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fastapi_guard.exceptions import GuardError, ServiceUnavailable

_WIDTH_OF_A_PIPE = 1000


@contextmanager
def failures() -> Iterator[None]:
    """Turn an error of ours into one line on standard error and exit code 1.

    Raises:
        typer.Exit: There was one.
    """
    try:
        yield
    except ServiceUnavailable as error:
        cause = getattr(error.__cause__, "orig", None) or error.__cause__
        fail(f"the database cannot be asked: {cause}")
    except (GuardError, ValueError) as error:
        fail(str(error))


def fail(message: str) -> None:
    """Say ``message`` on standard error, in one line, and end with exit code 1.

    Raises:
        typer.Exit: Always.
    """
    typer.echo("error: " + " ".join(message.split()), err=True)
    raise typer.Exit(1)


def print_json(value: object) -> None:
    """Print ``value`` as JSON; moments become ISO 8601."""
    typer.echo(json.dumps(value, default=datetime.isoformat, indent=2))


def print_fields(fields: Mapping[str, Any]) -> None:
    """Print a name and a value a line."""
    width = max(map(len, fields)) + 2
    for name, value in fields.items():
        typer.echo(f"{name.replace('_', ' '):{width}}{_shown(value)}")


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table, as wide as the terminal; nothing is cut off where there is none."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH_OF_A_PIPE)
    table = Table(box=None, pad_edge=False)
    for column in columns:
        # The first column is what the other commands are called with: it is never shortened.
        table.add_column(column, no_wrap=column == columns[0], overflow="fold")
    for row in rows:
        # As Text, since names may have what rich takes for markup.
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
        return " ".join(map(str, value)) or "-"
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False) if value else "-"
    return str(value) or "-"
