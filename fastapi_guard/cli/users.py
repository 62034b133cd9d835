"""``fastapi-guard users``: add, list, set the password of, disable and enable those who log in."""

from collections.abc import Awaitable, Callable
from dataclasses import asdict, replace
from typing import Annotated, Any, Final, TypeVar
from uuid import uuid4

import typer

from fastapi_guard.cli.options import AsJSON, DatabaseURL, database_url, wants_json
from fastapi_guard.cli.output import failures, print_fields, print_json, print_table
from fastapi_guard.cli.password import MinCharacters, hashed_password, new_password
from fastapi_guard.cli.records import StorePrefix, StoreURL, end_subject
from fastapi_guard.exceptions import ConfigurationError, GuardError
from fastapi_guard.login.users import DatabaseUsers, User
from fastapi_guard.login.users.names import normalized
from fastapi_guard.scopes import Scope

ResultT = TypeVar("ResultT")

app: typer.Typer = typer.Typer(no_args_is_help=True, help="Users in a database.")

_NOT_SHOWN: Final = ("password_hash", "credentials_version", "extra_claims")

Username = Annotated[str, typer.Argument(help="What is typed in at a login.", show_default=False)]


@app.command()
def add(  # noqa: PLR0913 - an option each
    context: typer.Context,
    username: Username,
    *,
    subject_id: Annotated[
        str | None, typer.Option("--subject-id", help="The sub of the tokens; a random one where it is left out.")
    ] = None,
    subject_type: Annotated[str, typer.Option("--subject-type", help="user, agent or service.")] = "user",
    tenant: Annotated[str | None, typer.Option("--tenant", help="The tenant.", show_default=False)] = None,
    scope: Annotated[list[str] | None, typer.Option("--scope", help="What they may do; repeat it for more.")] = None,
    role: Annotated[list[str] | None, typer.Option("--role", help="A role; repeat it for more.")] = None,
    admin: Annotated[bool, typer.Option("--admin", help="Let the claims say is_admin.")] = False,
    min_characters: MinCharacters = 15,
    url: DatabaseURL = None,
    as_json: AsJSON = False,
) -> None:
    """Add a user. The password is asked for, or read from standard input."""

    async def work(users: DatabaseUsers) -> User:
        user = User(
            username=None if "@" in username else username,
            email=username if "@" in username else None,
            password_hash=await hashed_password(password),
            subject_id=subject_id or uuid4().hex,
            subject_type=subject_type,
            tenant_id=tenant,
            is_admin=admin,
            scopes=tuple(map(Scope, scope or ())),
            roles=tuple(role or ()),
        )
        if not await users.add(user):
            msg = f"there is a user {username!r}, or one with this subject id"
            raise ConfigurationError(msg)
        return user

    with failures():
        password = new_password(min_characters, username)
    added = _fields(_run(context, url, work))
    if wants_json(context, as_json):
        print_json(added)
    else:
        print_fields(added)


@app.command("list")
def list_users(context: typer.Context, *, url: DatabaseURL = None, as_json: AsJSON = False) -> None:
    """List the users, by name."""
    found = [_fields(user) for user in _run(context, url, lambda users: users.all())]
    if wants_json(context, as_json):
        print_json(found)
    else:
        columns = (
            "username",
            "email",
            "subject_id",
            "subject_type",
            "tenant_id",
            "is_admin",
            "scopes",
            "roles",
            "disabled",
        )
        print_table(
            [column.replace("_", " ") for column in columns], [[user[column] for column in columns] for user in found]
        )


@app.command("set-password")
def set_password(
    context: typer.Context,
    username: Username,
    *,
    min_characters: MinCharacters = 15,
    store: StoreURL = None,
    store_prefix: StorePrefix = None,
    url: DatabaseURL = None,
    as_json: AsJSON = False,
) -> None:
    """Set another password. With --store, what followed from the old one ends."""

    async def work(users: DatabaseUsers) -> User:
        user = await _found(users, username)
        return await _updated(users, user, password_hash=await hashed_password(password))

    with failures():
        password = new_password(min_characters, username)
    _changed(context, _run(context, url, work), "password set", store, store_prefix, as_json=as_json)


@app.command()
def disable(
    context: typer.Context,
    username: Username,
    *,
    store: StoreURL = None,
    store_prefix: StorePrefix = None,
    url: DatabaseURL = None,
    as_json: AsJSON = False,
) -> None:
    """Let a user neither log in nor refresh. With --store, what they have ends at once."""
    _changed(
        context, _run(context, url, _disabling(username, to=True)), "disabled", store, store_prefix, as_json=as_json
    )


@app.command()
def enable(context: typer.Context, username: Username, *, url: DatabaseURL = None, as_json: AsJSON = False) -> None:
    """Let a user log in again."""
    _changed(context, _run(context, url, _disabling(username, to=False)), "enabled", None, None, as_json=as_json)


def _disabling(username: str, *, to: bool) -> Callable[[DatabaseUsers], Awaitable[User]]:
    async def work(users: DatabaseUsers) -> User:
        user = await _found(users, username)
        return await _updated(users, user, disabled=to)

    return work


async def _found(users: DatabaseUsers, username: str) -> User:
    user = await users.by_login(normalized(username))
    if user is None:
        msg = f"there is no user {username!r}"
        raise GuardError(msg)
    return user


async def _updated(users: DatabaseUsers, user: User, **changes: Any) -> User:
    changed = replace(user, credentials_version=user.credentials_version + 1, **changes)
    if not await users.update(user, changed):
        msg = f"the user {user.login_name!r} was changed by another process: run the command again"
        raise GuardError(msg)
    return changed


def _run(context: typer.Context, url: str | None, work: Callable[[DatabaseUsers], Awaitable[ResultT]]) -> ResultT:
    with failures():
        from fastapi_guard.cli.database import USERS, run  # noqa: PLC0415 - so that --help needs no extra

        return run(database_url(context, url), lambda factory: work(DatabaseUsers(factory)), tables=USERS)
    raise AssertionError  # pragma: no cover - failures() ends the command


def _changed(
    context: typer.Context, user: User, what: str, store: str | None, prefix: str | None, *, as_json: bool
) -> None:
    ended = None
    if store is not None:
        with failures():
            ended = end_subject(store, prefix, user.subject_id)
    if wants_json(context, as_json):
        print_json({"username": user.login_name, "changed": what, "ended": ended})
        return
    typer.echo(f"{user.login_name}: {what}")
    if ended is not None:
        typer.echo(f"ended {ended} sessions and refresh token families")
    elif what != "enabled":
        typer.echo("Sessions and tokens go on until they expire: name their store with --store.", err=True)


def _fields(user: User) -> dict[str, Any]:
    fields = {name: value for name, value in asdict(user).items() if name not in _NOT_SHOWN}
    return {**fields, "scopes": list(user.scopes), "roles": list(user.roles)}
