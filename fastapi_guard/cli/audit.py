"""``fastapi-guard audit``: what guards each route of an application, and which is not as it should be."""

import sys
from importlib import import_module
from typing import Annotated, Any

import typer
from fastapi import FastAPI

from fastapi_guard.app.audit import audited
from fastapi_guard.cli.options import AsJSON, wants_json
from fastapi_guard.cli.output import fail, failures, print_json, print_table
from fastapi_guard.exceptions import ConfigurationError

_COLUMNS = ("method", "path", "guard", "scopes", "schemes", "findings", "notes")


def audit(
    context: typer.Context,
    target: Annotated[str, typer.Argument(metavar="MODULE:APP", help="Such as main:app.", show_default=False)],
    *,
    allow: Annotated[
        list[str] | None,
        typer.Option("--allow", metavar="PATH", help="A path of which nothing is asked; repeat it for more."),
    ] = None,
    app_dir: Annotated[str, typer.Option("--app-dir", help="Where the module is looked for.")] = ".",
    factory: Annotated[bool, typer.Option("--factory", help="What is named returns the application.")] = False,
    as_json: AsJSON = False,
) -> None:
    """List every route with what guards it; exit code 1 where one is not guarded as it should be."""
    with failures():
        rows = [route.as_dict() for route in audited(load(target, app_dir, factory=factory), allow or [])]
    failing = sum(bool(row["findings"]) for row in rows)
    if wants_json(context, as_json):
        print_json(rows)
    else:
        print_table(_COLUMNS, [[_cell(row[name]) for name in _COLUMNS] for row in rows])
    if failing:
        fail(f"{failing} of {len(rows)} routes are not guarded as they should be")
    typer.echo(f"{len(rows)} routes, each guarded or allowed", err=True)


def _cell(value: str | list[str]) -> str:
    return value if isinstance(value, str) else "; ".join(value)


def load(target: str, app_dir: str, *, factory: bool) -> FastAPI:
    """Return the application that ``target`` names, out of the middlewares around it.

    Raises:
        ConfigurationError: There is none.
    """
    module, _, path = target.partition(":")
    if not module or not path:
        msg = f"{target!r} names no application: write it as main:app"
        raise ConfigurationError(msg)
    sys.path.insert(0, app_dir)
    try:
        found: Any = import_module(module)
    except Exception as error:
        msg = f"{module} cannot be imported: {type(error).__name__}: {error}"
        raise ConfigurationError(msg) from error
    for name in path.split("."):
        if not hasattr(found, name):
            msg = f"there is no {path} in {module}"
            raise ConfigurationError(msg)
        found = getattr(found, name)
    if factory:
        found = _made(target, found)
    inner = found
    while not isinstance(inner, FastAPI) and hasattr(inner, "app"):
        inner = inner.app
    if not isinstance(inner, FastAPI):
        hint = "; does it return one? Then pass --factory" if callable(found) else ""
        msg = f"{target} is no FastAPI application, but {type(found).__name__}{hint}"
        raise ConfigurationError(msg)
    return inner


def _made(target: str, factory: Any) -> Any:
    try:
        return factory()
    except Exception as error:
        msg = f"{target} made no application: {type(error).__name__}: {error}"
        raise ConfigurationError(msg) from error
