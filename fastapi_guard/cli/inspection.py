"""``fastapi-guard token inspect``: what a token is, and what the Auths of an application decide about it."""

import asyncio
import time
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from fastapi import FastAPI

from fastapi_guard.app.audit import routes_of_app
from fastapi_guard.app.inspection import Inspection, inspect_token
from fastapi_guard.app.lock import auths_of
from fastapi_guard.auth import AnyAuth, Auth
from fastapi_guard.cli.audit import load
from fastapi_guard.cli.options import AsJSON, existing_file, wants_json
from fastapi_guard.cli.output import failures, print_json
from fastapi_guard.cli.secrets import read_secret
from fastapi_guard.exceptions import ConfigurationError
from fastapi_guard.settings import create_auth


def inspect(  # noqa: PLR0913 - an option each
    context: typer.Context,
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="The token: - for standard input, or env:NAME.")],
    *,
    app: Annotated[str | None, typer.Option("--app", metavar="MODULE:APP", help="Such as main:app.")] = None,
    auth: Annotated[str | None, typer.Option("--auth", help="The name of the Auth, by default each.")] = None,
    config: Annotated[str | None, typer.Option("--config", help="A configuration file, in place of --app.")] = None,
    kind: Annotated[str, typer.Option("--kind", help="The kind of that configuration.")] = "oidc",
    app_dir: Annotated[str, typer.Option("--app-dir", help="The folder of the module.")] = ".",
    factory: Annotated[bool, typer.Option("--factory", help="MODULE:APP is a function that returns it.")] = False,
    as_json: AsJSON = False,
) -> None:
    """Show what a token contains, and why it would be refused; exit code 1 where no Auth accepts it."""
    with failures():
        raw = read_secret("SOURCE", source) or ""
        if app is not None:
            found = asyncio.run(_by_application(raw, load(app, app_dir, factory=factory), auth))
        else:
            made = [] if config is None else [create_auth(kind, existing_file("--config", config))]
            found = asyncio.run(_inspected(raw, made))
    if wants_json(context, as_json):
        print_json(found.as_dict())
    else:
        typer.echo(str(found))
    if found.verdicts and not any(verdict.accepted for verdict in found.verdicts):
        raise typer.Exit(1)


async def _by_application(raw: str, app: FastAPI, name: str | None) -> Inspection:
    # The application may load keys and open stores there.
    async with app.router.lifespan_context(app):
        auths = {key: auth for key, auth in auths_of(routes_of_app(app).ways).items() if not isinstance(auth, AnyAuth)}
        if name is not None and name not in auths:
            msg = f"no route has an Auth {name}; there are {', '.join(auths) or 'none'}"
            raise ConfigurationError(msg)
        return await _inspected(raw, list(auths.values()) if name is None else [auths[name]])


async def _inspected(raw: str, auths: Sequence[Auth[Any]]) -> Inspection:
    try:
        return await inspect_token(raw, auths, time.time())
    finally:
        for auth in auths:
            await auth.aclose()
