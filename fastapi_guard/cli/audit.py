"""``fastapi-guard audit``: list what guards each route of an application, and which is not as it should be."""

import os
import sys
from collections import Counter
from importlib import import_module
from pathlib import Path
from traceback import walk_tb
from typing import Annotated, Any

import typer
from fastapi import FastAPI, HTTPException
from pydantic import ValidationError

from fastapi_guard.app.audit import audited, overridden_in, routes_of_app
from fastapi_guard.app.lock import authorization_of
from fastapi_guard.app.lock_changes import lock_changes
from fastapi_guard.cli.options import AsJSON, wants_json
from fastapi_guard.cli.output import fail, failures, print_json, print_table
from fastapi_guard.exceptions import ConfigurationError, shown

_COLUMNS = ("method", "path", "guard", "scopes", "schemes", "public", "findings", "notes")


def audit(
    context: typer.Context,
    target: Annotated[str, typer.Argument(metavar="MODULE:APP", help="Such as main:app.", show_default=False)],
    *,
    allow: Annotated[
        list[str] | None,
        typer.Option(
            "--allow",
            metavar="PATH",
            help="A path, or a prefix such as '/pages/*', that is not checked, beside the public paths of"
            " configure_app; repeat it for more.",
        ),
    ] = None,
    app_dir: Annotated[str, typer.Option("--app-dir", help="The folder of the module.")] = ".",
    factory: Annotated[bool, typer.Option("--factory", help="MODULE:APP is a function that returns it.")] = False,
    lock: Annotated[
        Path | None,
        typer.Option(
            "--lock", metavar="FILE", help="Write every way in with what it requires to this file.", show_default=False
        ),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Compare the file of --lock; exit code 1 where anything differs.")
    ] = False,
    as_json: AsJSON = False,
) -> None:
    """List every route with what guards it; exit code 1 where one is not guarded as it should be."""
    if lock is not None or check:
        with failures():
            _lock(_whole(target, app_dir, factory=factory), lock, check=check, as_json=wants_json(context, as_json))
        return
    with failures():
        rows = [route.as_dict() for route in audited(_whole(target, app_dir, factory=factory), allow or [])]
    failing = sum(bool(row["findings"]) for row in rows)
    if wants_json(context, as_json):
        print_json(rows)
    else:
        print_table(_COLUMNS, [[_cell(row[name]) for name in _COLUMNS] for row in rows])
    if failing:
        fail(f"{failing} of {len(rows)} routes are not guarded as they should be")
    typer.echo(f"{len(rows)} routes, each guarded or allowed", err=True)


def _whole(target: str, app_dir: str, *, factory: bool) -> FastAPI:
    app = load(target, app_dir, factory=factory)
    if overridden := overridden_in(routes_of_app(app)):
        msg = (
            f"{target} replaces {', '.join(overridden)} in app.dependency_overrides, so that guards may not run:"
            " override dependencies in tests alone"
        )
        raise ConfigurationError(msg)
    return app


def _cell(value: object) -> object:
    return "; ".join(value) if isinstance(value, list) else value


def _lock(app: FastAPI, file: Path | None, *, check: bool, as_json: bool) -> None:
    if file is None:
        msg = "--check compares a lockfile: name it with --lock, such as --lock authz.lock"
        raise ConfigurationError(msg)
    if not check:
        authorization = authorization_of(app)
        _write(file, authorization.text)
        if as_json:
            print_json(authorization.as_dict())
        else:
            typer.echo(f"{file}: {len(authorization.ways)} ways in")
        return
    changes = lock_changes(app, _read(file))
    if as_json:
        print_json({"lock": str(file), "changes": [change.as_dict() for change in changes]})
    else:
        for change in changes:
            typer.echo(str(change))
    if changes:
        counted = Counter(change.verdict for change in changes)
        kinds = ", ".join(f"{number} {verdict}" for verdict, number in counted.items())
        fail(f"the application differs from {file}: {kinds}; after a review, write it again with --lock")
    typer.echo(f"{file}: the application is as it was reviewed", err=True)


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        msg = f"the lockfile cannot be read: {getattr(error, 'strerror', None) or 'it is not text'}"
        raise ConfigurationError(msg) from None


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        msg = f"the lockfile cannot be written: {error.strerror}"
        raise ConfigurationError(msg) from None


def load(target: str, app_dir: str, *, factory: bool) -> FastAPI:
    """Return the application that ``target`` names, without the middlewares around it.

    Raises:
        ConfigurationError: It cannot be imported, or is not an application of FastAPI's; the message names a file or a
            setting that is missing.
    """
    module, _, path = target.partition(":")
    if not module or not path:
        msg = f"{shown(target)} names no application: write it as main:app"
        raise ConfigurationError(msg)
    # Not a relative path: what it stood for when it was first searched is remembered.
    sys.path.insert(0, str(Path(app_dir).resolve()))
    try:
        found: Any = import_module(module)
    except Exception as error:
        msg = f"{module} cannot be imported: {_cause(error)}"
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
        msg = f"{target} is not a FastAPI application, but {type(found).__name__}{hint}"
        raise ConfigurationError(msg)
    return inner


def _made(target: str, factory: Any) -> Any:
    try:
        return factory()
    except Exception as error:
        msg = f"{target} made no application: {_cause(error)}"
        raise ConfigurationError(msg) from error


def _cause(error: BaseException) -> str:
    if isinstance(error, HTTPException) and error.__cause__ is not None:
        return _cause(error.__cause__)  # a client receives 503, the operator needs the reason
    if isinstance(error, ValidationError):
        # Without the values, which may be secrets.
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        return "; ".join(f"{'.'.join(map(str, fault['loc'])) or error.title}: {fault['msg']}" for fault in faults)
    if isinstance(error, KeyError) and _is_of_environment(error):
        return f"the environment variable {error.args[0]} is not set"
    return f"{type(error).__name__}: {error}"


def _is_of_environment(error: KeyError) -> bool:
    frames = [frame for frame, _ in walk_tb(error.__traceback__)]
    return frames[-1].f_code.co_filename == os.environ.__class__.__getitem__.__code__.co_filename
