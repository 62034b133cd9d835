"""``fastapi-guard jwk``: manage a file of signing keys, for ``JWTConfig(key=KeyFile(path))``."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Annotated, cast, get_args

import typer

from fastapi_guard.cli.options import AsJSON, duration, existing_file, wants_json
from fastapi_guard.cli.output import failures, print_json
from fastapi_guard.jwt.key_file import KeyAlgorithm, KeyFile

app: typer.Typer = typer.Typer(no_args_is_help=True, help="Manage signing keys in a file.")

File = Annotated[Path, typer.Argument(help="The key file.", show_default=False)]
_NAMES = ", ".join(get_args(KeyAlgorithm))


@app.command()
def generate(
    context: typer.Context,
    file: File,
    *,
    algorithm: Annotated[str, typer.Option("--alg", help=f"One of {_NAMES}.")] = "ES256",
    as_json: AsJSON = False,
) -> None:
    """Create a file with a current and a next key, which only its owner may read."""
    with failures():
        KeyFile(file).generate(cast("KeyAlgorithm", algorithm))
    _report(context, file, "created", as_json=as_json)


@app.command()
def rotate(
    context: typer.Context,
    file: File,
    *,
    keep: Annotated[
        timedelta,
        typer.Option(
            "--keep", parser=duration, metavar="DURATION", help="How long a retired key verifies, such as 24h."
        ),
    ] = cast("timedelta", "24h"),  # noqa: B008 - typer parses the default too
    algorithm: Annotated[
        str | None, typer.Option("--alg", help="Algorithm of the new key; default: that of the next key.")
    ] = None,
    as_json: AsJSON = False,
) -> None:
    """Sign with the next key, and add a new next key; the current key still verifies for a while."""
    with failures():
        KeyFile(existing_file("FILE", file)).rotate(keep=keep, algorithm=cast("KeyAlgorithm | None", algorithm))
    _report(context, file, "rotated", as_json=as_json)


@app.command()
def public(file: File) -> None:
    """Print the public keys as a JWK Set."""
    with failures():
        typer.echo(json.dumps(KeyFile(existing_file("FILE", file)).jwks(), indent=2))


def _report(context: typer.Context, file: Path, what: str, *, as_json: bool) -> None:
    with failures():
        kids = [key["kid"] for key in KeyFile(file).jwks()["keys"]]
    if wants_json(context, as_json):
        print_json({"file": str(file), "current": kids[0], "next": kids[1], "retired": kids[2:]})
    else:
        typer.echo(f"{what} {file}: {kids[0]} signs, {kids[1]} is next")
