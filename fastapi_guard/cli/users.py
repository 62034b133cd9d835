"""``fastapi-guard users``: create, invite, list, disable and enable users, reset factors, list sessions."""

from collections.abc import Awaitable, Callable
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Annotated, Any, Final, TypeVar
from uuid import uuid4

import typer

from fastapi_guard.cli.options import AsJSON, DatabaseURL, database_url, secrets_in, wants_json
from fastapi_guard.cli.output import failures, print_fields, print_json, print_table
from fastapi_guard.cli.password import MinCharacters, hashed_password, new_password
from fastapi_guard.cli.records import Ended, StorePrefix, StoreURL, StoreURLs, end_user, ended_lines, in_store
from fastapi_guard.exceptions import ConfigurationError, GuardError
from fastapi_guard.login.enrolled import DatabaseFactors, EnrolledFactors, StoredFactors
from fastapi_guard.login.keyring import mailing_keys
from fastapi_guard.login.mailed_secrets import MailedSecrets
from fastapi_guard.login.session import Session, SessionAuth
from fastapi_guard.login.users import DatabaseUsers, User
from fastapi_guard.login.users.names import checked_address, checked_username, normalized
from fastapi_guard.scopes import Scope
from fastapi_guard.stores import Store
from fastapi_guard.stores.arguments import check_texts

ResultT = TypeVar("ResultT")

app: typer.Typer = typer.Typer(no_args_is_help=True, help="Users in a database.")

_NOT_SHOWN: Final = ("password_hash", "credentials_version", "extra_claims")
MAIL_KEY_VARIABLE: Final = "FASTAPI_GUARD_MAIL_KEY"

LoginName = Annotated[str, typer.Option("--login", help="The name of the Login.")]
Username = Annotated[str, typer.Argument(help="The username that the user logs in with.", show_default=False)]


@app.command()
def create(  # noqa: PLR0913 - an option each
    context: typer.Context,
    username: Username,
    *,
    subject_id: Annotated[
        str | None, typer.Option("--subject-id", help="The sub of the tokens; a random one where it is left out.")
    ] = None,
    subject_type: Annotated[str, typer.Option("--subject-type", help="user, agent or service.")] = "user",
    tenant: Annotated[str | None, typer.Option("--tenant", help="The tenant.", show_default=False)] = None,
    scope: Annotated[list[str] | None, typer.Option("--scope", help="A granted scope; repeat it for more.")] = None,
    role: Annotated[list[str] | None, typer.Option("--role", help="A role; repeat it for more.")] = None,
    admin: Annotated[bool, typer.Option("--admin", help="Make the user an administrator: the claim is_admin.")] = False,
    min_characters: MinCharacters = 15,
    url: DatabaseURL = None,
    as_json: AsJSON = False,
) -> None:
    """Create a user. The password is typed in, or read from standard input."""

    async def work(users: DatabaseUsers) -> User:
        user = User(
            username=name,
            email=address,
            password_hash=await hashed_password(password),
            subject_id=subject_id or str(uuid4()),
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
        # As in a registration on the web.
        is_address = "@" in normalized(username)
        name, address = (None, checked_address(username)) if is_address else (checked_username(username), None)
        roles = {f"role {number}": name for number, name in enumerate(role or (), 1)}
        check_texts(subject_id=subject_id, subject_type=subject_type, tenant=tenant, **roles)
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
            *("username", "email", "subject_id", "subject_type", "tenant_id"),
            *("is_admin", "scopes", "roles", "disabled"),
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
    store: StoreURLs = None,
    store_prefix: StorePrefix = None,
    url: DatabaseURL = None,
    as_json: AsJSON = False,
) -> None:
    """Set another password; API keys end, and with --store what followed from the old password."""

    async def work(users: DatabaseUsers) -> User:
        user = await _found(users, username)
        return await _updated(users, user, password_hash=await hashed_password(password))

    with failures():
        password = new_password(min_characters, username)
        user = _run(context, url, work)
        ended = end_user([database_url(context, url)], store or (), store_prefix, user.subject_id)
    _report(context, user, "password set", ended, as_json=as_json)


@app.command()
def invite(  # noqa: PLR0913 - an option each
    context: typer.Context,
    email: Annotated[str, typer.Argument(help="The address of the invited user.", show_default=False)],
    *,
    site: Annotated[str, typer.Option("--site", help="The origin of the application: https://shop.example.")],
    page: Annotated[str, typer.Option("--page", help="The path of its page for invitations.")] = "/invitation",
    login: LoginName = "login",
    tenant: Annotated[str | None, typer.Option("--tenant", help="The tenant.", show_default=False)] = None,
    scope: Annotated[list[str] | None, typer.Option("--scope", help="A granted scope; repeat it for more.")] = None,
    role: Annotated[list[str] | None, typer.Option("--role", help="A role; repeat it for more.")] = None,
    store: StoreURL = None,
    store_prefix: StorePrefix = None,
    as_json: AsJSON = False,
) -> None:
    """Print the link of an invitation, which is valid for 7 days. FASTAPI_GUARD_MAIL_KEY is the key of Accounts."""
    with failures():
        from fastapi_guard.login.accounts import AccountPages, Invited  # noqa: PLC0415 - needs the extra
        from fastapi_guard.login.accounts.invitations import invitation  # noqa: PLC0415

        keys = mailing_keys(secrets_in(MAIL_KEY_VARIABLE))
        scopes = tuple(map(Scope, scope or ()))
        invited = Invited(email=checked_address(email), roles=tuple(role or ()), scopes=scopes, tenant_id=tenant)
        pages = AccountPages(site=site, invitation=page)
        mailed = invitation(invited, None)
        issued = in_store(store, store_prefix, lambda found: MailedSecrets(found, keys, name=login).issue(mailed))
        assert issued is not None  # noqa: S101 - without a handle there is no limit
    link = pages.link("invitation", issued.token)
    expires_at = datetime.fromtimestamp(issued.expires_at, UTC)
    if wants_json(context, as_json):
        print_json({"email": invited.email, "link": link, "expires_at": expires_at})
    else:
        typer.echo(link)


@app.command("reset-factors")
def reset_factors(
    context: typer.Context,
    username: Username,
    *,
    login: LoginName = "login",
    store: StoreURL = None,
    store_prefix: StorePrefix = None,
    url: DatabaseURL = None,
    as_json: AsJSON = False,
) -> None:
    """Remove the second factors of a user whose identity was verified by other means: from the tables, or --store."""
    with failures():
        user = _run(context, url, lambda users: _found(users, username))
        if store is not None:
            removed = in_store(
                store, store_prefix, lambda found: _reset_factors(StoredFactors(found, name=login), user)
            )
        else:
            from fastapi_guard.cli.database import FACTORS, run  # noqa: PLC0415 - so that --help needs no extra

            place = database_url(context, url)
            removed = run(place, lambda factory: _reset_factors(DatabaseFactors(factory), user), tables=FACTORS)
        _run(context, url, lambda users: _updated(users, user))
    if wants_json(context, as_json):
        print_json({"username": user.login_name, "removed": removed})
    else:
        typer.echo(f"{user.login_name}: removed {removed} factors")


@app.command()
def sessions(
    context: typer.Context,
    username: Username,
    *,
    name: Annotated[str, typer.Option("--auth", help="The name of the SessionAuth.")] = "session",
    end: Annotated[str | None, typer.Option("--end", help="End the session of this id.", show_default=False)] = None,
    store: StoreURL = None,
    store_prefix: StorePrefix = None,
    url: DatabaseURL = None,
    as_json: AsJSON = False,
) -> None:
    """List the sessions of a user, or end one of them; ``disable`` ends all of them."""

    async def work(found: Store) -> list[dict[str, Any]] | None:
        auth = SessionAuth(found, name=name)
        known = await auth.list(user.subject_id)
        if end is None:
            return [_session(session) for session in known]
        return None if end in {session.id for session in known} and await auth.end(end) else []

    with failures():
        user = _run(context, url, lambda users: _found(users, username))
        listed = in_store(store, store_prefix, work)
        if end is not None and listed is not None:
            msg = f"the user {user.login_name!r} has no session with this id"
            raise GuardError(msg)
    if wants_json(context, as_json):
        print_json(listed if listed is not None else {"ended": end})
    elif listed is None:
        typer.echo(f"ended {end}")
    else:
        columns = ("id", "since", "last_used", "expires", "address", "agent")
        print_table(
            [column.replace("_", " ") for column in columns], [[row[column] for column in columns] for row in listed]
        )


@app.command()
def disable(
    context: typer.Context,
    username: Username,
    *,
    store: StoreURLs = None,
    store_prefix: StorePrefix = None,
    url: DatabaseURL = None,
    as_json: AsJSON = False,
) -> None:
    """Let a user neither log in nor refresh; API keys end, and with --store sessions and tokens."""
    with failures():
        user = _run(context, url, _disabling(username, to=True))
        ended = end_user([database_url(context, url)], store or (), store_prefix, user.subject_id)
    _report(context, user, "disabled", ended, as_json=as_json)


@app.command()
def enable(context: typer.Context, username: Username, *, url: DatabaseURL = None, as_json: AsJSON = False) -> None:
    """Let a user log in again."""
    user = _run(context, url, _disabling(username, to=False))
    if wants_json(context, as_json):
        print_json({"username": user.login_name, "changed": "enabled", "ended": None})
    else:
        typer.echo(f"{user.login_name}: enabled")


async def _reset_factors(factors: EnrolledFactors, user: User) -> int:
    removed = [await factors.remove(factor.id) for factor in await factors.of(user.subject_id)]
    return sum(removed)


def _session(session: Session) -> dict[str, Any]:
    moments = {"since": session.created_at, "last_used": session.seen_at, "expires": session.expires_at}
    times = {name: datetime.fromtimestamp(moment, UTC) for name, moment in moments.items()}
    return {"id": session.id, **times, "address": session.client.address, "agent": session.client.agent}


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


def _report(context: typer.Context, user: User, what: str, ended: Ended, *, as_json: bool) -> None:
    if wants_json(context, as_json):
        total = sum(ended.stores.values()) if ended.stores else None
        print_json({"username": user.login_name, "changed": what, "ended": total, **ended._asdict()})
        return
    typer.echo(f"{user.login_name}: {what}")
    for line in ended_lines(ended.stores):
        typer.echo(line)
    if ended.api_keys:
        typer.echo(f"revoked {ended.api_keys} API keys")
    if not ended.stores:
        typer.echo("Sessions and tokens go on until they expire: name their store with --store.", err=True)


def _fields(user: User) -> dict[str, Any]:
    fields = {name: value for name, value in asdict(user).items() if name not in _NOT_SHOWN}
    return {**fields, "scopes": list(user.scopes), "roles": list(user.roles)}
