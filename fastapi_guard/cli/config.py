"""``fastapi-guard config``: check the configuration of an application."""

from typing import Annotated

import typer

from fastapi_guard.cli.options import AsJSON, existing_file, wants_json
from fastapi_guard.cli.output import print_json
from fastapi_guard.exceptions import ConfigurationError, MissingExtraError
from fastapi_guard.settings import check_config

app: typer.Typer = typer.Typer(no_args_is_help=True, help="Configuration files.")


@app.callback()
def config() -> None:
    """Check the files that create_auth() reads."""


@app.command()
def check(
    context: typer.Context,
    file: Annotated[str, typer.Argument(help="A YAML or TOML file.", show_default=False)],
    *,
    kind: Annotated[
        str | None,
        typer.Option("--kind", help="static, database, local, oidc or multi-oidc, where no setting names it."),
    ] = None,
    given: Annotated[
        list[str] | None,
        typer.Option("--given", metavar="NAME", help="An argument that the application passes itself, such as users."),
    ] = None,
    as_json: AsJSON = False,
) -> None:
    """Name every mistake of a file on a line of its own; exit code 1 where there is one."""
    try:
        found = check_config(existing_file("FILE", file), kind, given=given or ())
    except (ConfigurationError, MissingExtraError) as error:
        mistakes = str(error).splitlines()
        if wants_json(context, as_json):
            print_json({"file": file, "kind": kind, "mistakes": mistakes})
        for mistake in mistakes:
            typer.echo(f"error: {mistake}", err=True)
        raise typer.Exit(1) from None
    if wants_json(context, as_json):
        print_json({"file": file, "kind": found, "mistakes": []})
    else:
        typer.echo(f"{file}: no mistakes, the kind is {found}")
