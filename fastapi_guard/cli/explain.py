"""``fastapi-guard explain``: why a request is allowed or refused."""

import asyncio
from typing import Annotated, Any

import typer
from fastapi import FastAPI

from fastapi_guard.app.explain import explain
from fastapi_guard.app.explanation import Explanation
from fastapi_guard.app.presented import Presented
from fastapi_guard.cli.audit import load
from fastapi_guard.cli.options import AsJSON, wants_json
from fastapi_guard.cli.output import failures, print_json
from fastapi_guard.cli.secrets import read_secret

Secret = str | None


def command(  # noqa: PLR0913 - its options
    context: typer.Context,
    target: Annotated[str, typer.Argument(metavar="MODULE:APP", help="Such as main:app.", show_default=False)],
    method: Annotated[str, typer.Argument(help="The method, WEBSOCKET for a WebSocket.", show_default=False)],
    path: Annotated[str, typer.Argument(help="The path, with its query string.", show_default=False)],
    *,
    token: Annotated[
        Secret, typer.Option("--token", metavar="SOURCE", help="A bearer token: - for standard input, or env:NAME.")
    ] = None,
    key: Annotated[
        Secret, typer.Option("--key", metavar="SOURCE", help="An API key, where the route reads one.")
    ] = None,
    cookie: Annotated[
        Secret, typer.Option("--cookie", metavar="SOURCE", help="The value of a cookie, where the route reads one.")
    ] = None,
    app_dir: Annotated[str, typer.Option("--app-dir", help="The folder of the module.")] = ".",
    factory: Annotated[bool, typer.Option("--factory", help="MODULE:APP is a function that returns it.")] = False,
    as_json: AsJSON = False,
) -> None:
    """Explain why a request is allowed or refused; exit code 1 where it is not allowed."""
    with failures():
        secrets = {name: read_secret(f"--{name}", given) for name, given in _named(token, key, cookie)}
        app = load(target, app_dir, factory=factory)
        found = asyncio.run(_explained(app, method, path, secrets))
    if wants_json(context, as_json):
        print_json(found.as_dict())
    else:
        typer.echo(str(found))
    if not found.allowed:
        raise typer.Exit(1)


def _named(token: Secret, key: Secret, cookie: Secret) -> tuple[tuple[str, Secret], ...]:
    return ("token", token), ("key", key), ("cookie", cookie)


async def _explained(app: FastAPI, method: str, path: str, secrets: dict[str, Any]) -> Explanation:
    # The application may load keys and open stores there.
    async with app.router.lifespan_context(app) as state:
        return await explain(app, Presented(method=method, path=path, state=state or {}, **secrets))
