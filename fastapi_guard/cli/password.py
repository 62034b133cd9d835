"""``fastapi-guard password``: hash one, and ask for a new one wherever a command needs it."""

import asyncio
import sys
from typing import Annotated

import typer

from fastapi_guard.cli.options import AsJSON, wants_json
from fastapi_guard.cli.output import failures, print_json

app: typer.Typer = typer.Typer(no_args_is_help=True, help="Passwords.")

MinCharacters = Annotated[
    int, typer.Option("--min-characters", help="The least length: 15, or 8 beside a second factor.")
]


@app.command("hash")
def hash_password(context: typer.Context, *, min_characters: MinCharacters = 15, as_json: AsJSON = False) -> None:
    """Print the hash of a password, for a mapping of users. It is asked for, or read from standard input."""
    with failures():
        hashed = asyncio.run(hashed_password(new_password(min_characters)))
    if wants_json(context, as_json):
        print_json({"password_hash": hashed})
    else:
        typer.echo(hashed)


def new_password(min_characters: int, *context: str) -> str:
    """Return a password that is typed in twice, or the first line of standard input.

    Args:
        min_characters: The least length.
        context: What it must not be, such as the user's name.

    Raises:
        ValueError: It may not be set.
    """
    from fastapi_guard.login.passwords import PasswordPolicy  # noqa: PLC0415 - other commands go without the extra

    if sys.stdin.isatty():
        password = str(typer.prompt("Password", hide_input=True, confirmation_prompt=True))
    else:
        password = sys.stdin.readline().removesuffix("\n")
    PasswordPolicy(min_characters=min_characters).check(password, *context)
    return password


async def hashed_password(password: str) -> str:
    """Return the hash of ``password``.

    Raises:
        ValueError: It is too long, or has a character that cannot be hashed.
    """
    from fastapi_guard.login.passwords import PasswordHasher  # noqa: PLC0415 - other commands go without the extra

    hasher = PasswordHasher()
    try:
        return await hasher.hash(password)
    finally:
        hasher.close()
