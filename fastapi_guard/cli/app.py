"""The command line application: its common options, its commands, and ``init-db``."""

import logging
from typing import Annotated

import typer

from fastapi_guard.cli import config, factors, jwk, keys, password, token, users
from fastapi_guard.cli.audit import audit
from fastapi_guard.cli.check import check
from fastapi_guard.cli.demo import demo
from fastapi_guard.cli.explain import command as explain
from fastapi_guard.cli.inspection import inspect
from fastapi_guard.cli.options import (
    URL_VARIABLE,
    AsJSON,
    DatabaseURL,
    Settings,
    check_argument,
    database_url,
    wants_json,
)
from fastapi_guard.cli.output import failures, print_json
from fastapi_guard.cli.usage import ConstantUsage

# Local variables can contain keys, which must not be in a traceback.
app: typer.Typer = typer.Typer(
    cls=ConstantUsage, no_args_is_help=True, add_completion=False, pretty_exceptions_show_locals=False
)
app.add_typer(keys.app, name="keys")
app.add_typer(users.app, name="users")
app.add_typer(factors.app, name="factors")
app.add_typer(password.app, name="password")
app.add_typer(token.app, name="token")
app.add_typer(jwk.app, name="jwk")
app.add_typer(config.app, name="config")
token.app.command("inspect")(inspect)
app.command()(audit)
app.command("explain")(explain)
app.command()(check)
app.command()(demo)


@app.callback()
def settings(
    context: typer.Context,
    *,
    url: Annotated[
        str | None,
        typer.Option(
            "--database-url",
            envvar=URL_VARIABLE,
            help="URL of SQLAlchemy, such as sqlite:///keys.db.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJSON = False,
) -> None:
    """Administer API keys, users, tokens and signing keys, and audit the routes of an application."""
    # The commands print what matters on standard error.
    logging.getLogger("fastapi_guard").addHandler(logging.NullHandler())
    source = context.get_parameter_source("url")
    is_typed = source is not None and source.name == "COMMANDLINE"
    context.obj = Settings(check_argument(url) if is_typed else url, as_json)


@app.command("init-db")
def init_db(context: typer.Context, *, url: DatabaseURL = None, as_json: AsJSON = False) -> None:
    """Create the tables that are missing, and leave existing tables unchanged."""

    async def nothing(_: object) -> None:
        return None

    with failures():
        from fastapi_guard.cli.database import TABLES, run  # noqa: PLC0415 - the commands without a database need no extra

        run(database_url(context, url), nothing, create_tables=True, tables=TABLES)
    if wants_json(context, as_json):
        print_json({"created": True})
    else:
        typer.echo("all tables exist")
