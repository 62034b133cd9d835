"""``fastapi-guard keys``: create, list, show, rotate, pause, resume, revoke, prune and hash API keys."""

import json
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from math import log2
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, cast

import typer

from fastapi_guard.api_key.digest import PEPPERS_VARIABLE, Peppers
from fastapi_guard.api_key.entries import MIN_KEY_LENGTH
from fastapi_guard.cli.options import AsJSON, DatabaseURL, actor, database_url, duration, moment, wants_json
from fastapi_guard.cli.output import failures, print_fields, print_json, print_table
from fastapi_guard.stores import MemoryStore

if TYPE_CHECKING:
    from fastapi_guard.api_key.database import DatabaseAPIKeyAuth
    from fastapi_guard.api_key.fields import SubjectType
    from fastapi_guard.api_key.key import KeyQueryFields, StoredKey


ResultT = TypeVar("ResultT")

# Fields that few keys have: left out for people where there is nothing in them.
_SELDOM = frozenset(
    {
        "environment",
        "issuer",
        "allowed_networks",
        "allowed_origins",
        "rate",
        "quota",
        "quota_seconds",
        "usage_id",
        "maker_issuer",
        "maker_id",
        "maker_key_id",
        "outlives_maker",
        "paused_at",
        "paused_by",
        "last_address",
    }
)
# 32 hexadecimal digits have at least so many.
_RANDOM_BITS = 96

app: typer.Typer = typer.Typer(no_args_is_help=True, help="API keys in a database.")

KeyId = Annotated[str, typer.Argument(help="The id of the key, the part between the hyphens.", show_default=False)]
Expires = Annotated[
    datetime | None,
    typer.Option("--expires", parser=moment, metavar="DURATION|MOMENT", help="90d, or 2027-01-01T00:00:00Z."),
]
Prefix = Annotated[
    str, typer.Option("--prefix", envvar="FASTAPI_GUARD_KEY_PREFIX", help="What the new key begins with.")
]


@app.command()
def create(  # noqa: PLR0913 - an option each
    context: typer.Context,
    *,
    user: Annotated[str, typer.Option("--user", help="The user that the key belongs to.", show_default=False)],
    name: Annotated[str, typer.Option("--name", help="The name that its owner sees.")] = "",
    scope: Annotated[
        list[str] | None, typer.Option("--scope", help="A scope that it grants; repeat the option for more.")
    ] = None,
    admin: Annotated[bool, typer.Option("--admin", help="Make it an administrator: the claim is_admin.")] = False,
    tenant: Annotated[str | None, typer.Option("--tenant", help="The tenant that it is limited to.")] = None,
    expires: Expires = None,
    metadata: Annotated[str | None, typer.Option("--metadata", help="A JSON object for its claims.")] = None,
    subject_type: Annotated[
        str, typer.Option("--subject-type", help="What --user names: user, agent, service or session.")
    ] = "user",
    environment: Annotated[
        str | None, typer.Option("--environment", help="The environment that the key begins with, such as test.")
    ] = None,
    rate: Annotated[
        str | None, typer.Option("--rate", help="The most requests in a time, such as 100/minute; 5000/day.")
    ] = None,
    quota: Annotated[int | None, typer.Option("--quota", help="The most requests in all, or in each period.")] = None,
    quota_period: Annotated[
        timedelta | None,
        typer.Option(
            "--quota-period", parser=duration, metavar="DURATION", help="The period of the quota, such as 30d."
        ),
    ] = None,
    prefix: Prefix = "sk",
    url: DatabaseURL = None,
    as_json: AsJSON = False,
) -> None:
    """Create a key and print it. It is shown this once."""

    async def work(keys: "DatabaseAPIKeyAuth") -> tuple[str, str]:
        return await keys.create(
            user_id=user,
            name=name,
            scopes=scope or [],
            is_admin=admin,
            tenant_id=tenant,
            expires_at=expires,
            metadata=_object(metadata),
            subject_type=cast("SubjectType", subject_type),
            rate=rate,
            quota=quota,
            quota_period=quota_period,
            by=actor(),
        )

    _print_new(_run(context, url, work, prefix, environment), wants_json(context, as_json))


@app.command("list")
def list_keys(
    context: typer.Context,
    *,
    user: Annotated[str | None, typer.Option("--user", help="List the keys of this user only.")] = None,
    tenant: Annotated[str | None, typer.Option("--tenant", help="List the keys of this tenant only.")] = None,
    unused_for: Annotated[
        timedelta | None,
        typer.Option(
            "--unused-for",
            parser=duration,
            metavar="DURATION",
            help="List keys that were not used for this long, such as 90d.",
        ),
    ] = None,
    active: Annotated[bool, typer.Option("--active", help="List valid keys only.")] = False,
    url: DatabaseURL = None,
    as_json: AsJSON = False,
) -> None:
    """List keys, oldest first. One that was never used counts from its creation for --unused-for."""
    query: KeyQueryFields = {"user_id": user, "unused_for": unused_for, "active_only": active}
    if tenant is not None:
        query["tenant_id"] = tenant
    found = _run(context, url, lambda keys: keys.list(**query))
    if wants_json(context, as_json):
        print_json([_fields(key) for key in found])
        return
    columns = ("key_id", "name", "user_id", "status", "scopes", "expires_at", "last_used_at")
    print_table(
        [column.removesuffix("_at").replace("_", " ") for column in columns],
        [[_fields(key)[column] for column in columns] for key in found],
    )


@app.command()
def show(context: typer.Context, key_id: KeyId, *, url: DatabaseURL = None, as_json: AsJSON = False) -> None:
    """Show what is stored of a key."""

    async def work(keys: "DatabaseAPIKeyAuth") -> "StoredKey":
        from fastapi_guard.api_key.key import unknown_key  # noqa: PLC0415 - so that --help needs no extra

        found = await keys.get(key_id)
        if found is None:
            raise unknown_key(key_id)
        return found

    fields = _fields(_run(context, url, work))
    if wants_json(context, as_json):
        print_json(fields)
    else:
        print_fields({name: value for name, value in fields.items() if name not in _SELDOM or value})


@app.command()
def rotate(
    context: typer.Context,
    key_id: KeyId,
    *,
    overlap: Annotated[
        timedelta,
        typer.Option(
            "--overlap", parser=duration, metavar="DURATION", help="How long both keys are valid, such as 24h."
        ),
    ] = cast("timedelta", "0s"),  # noqa: B008 - typer parses a default as it parses what is typed
    expires: Expires = None,
    prefix: Prefix = "sk",
    url: DatabaseURL = None,
    as_json: AsJSON = False,
) -> None:
    """Put a new key in the place of another, and print it. It is shown this once."""

    async def work(keys: "DatabaseAPIKeyAuth") -> tuple[str, str]:
        return await keys.rotate(key_id, overlap=overlap, expires_at=expires, by=actor())

    old = _run(context, url, lambda keys: keys.get(key_id))
    environment = None if old is None else old.environment
    _print_new(_run(context, url, work, prefix, environment), wants_json(context, as_json))


@app.command()
def revoke(context: typer.Context, key_id: KeyId, *, url: DatabaseURL = None, as_json: AsJSON = False) -> None:
    """Revoke a key for good."""
    ended = _run(context, url, lambda keys: keys.revoke(key_id, by=actor()))
    _print_change(key_id, "revoked", wants_json(context, as_json), changed=ended)


@app.command()
def pause(context: typer.Context, key_id: KeyId, *, url: DatabaseURL = None, as_json: AsJSON = False) -> None:
    """Reject a key until it is resumed. Its owner cannot resume it."""
    paused = _run(context, url, lambda keys: keys.pause(key_id, by=actor(), override=True))
    _print_change(key_id, "paused", wants_json(context, as_json), changed=paused)


@app.command()
def resume(context: typer.Context, key_id: KeyId, *, url: DatabaseURL = None, as_json: AsJSON = False) -> None:
    """Accept a paused key again."""
    resumed = _run(context, url, lambda keys: keys.resume(key_id, by=actor()))
    _print_change(key_id, "resumed", wants_json(context, as_json), changed=resumed)


@app.command()
def prune(
    context: typer.Context,
    *,
    ended_for: Annotated[
        timedelta,
        typer.Option(
            "--ended-for",
            parser=duration,
            metavar="DURATION",
            help="Keys that have been revoked or expired for this long.",
        ),
    ] = cast("timedelta", "90d"),  # noqa: B008 - typer parses a default as it parses what is typed
    url: DatabaseURL = None,
    as_json: AsJSON = False,
) -> None:
    """Delete keys that ended long ago. Their events stay."""
    count = _run(context, url, lambda keys: keys.prune(ended_for=ended_for))
    if wants_json(context, as_json):
        print_json({"deleted": count})
    else:
        typer.echo(f"deleted {count}")


@app.command("hash")
def hash_key(context: typer.Context, *, as_json: AsJSON = False) -> None:
    """Print the hash of a key that is typed or on standard input, for StaticAPIKeyAuth. It needs no database."""
    # Not an argument: the arguments of a command are in the list of processes and in the history of the shell.
    key = str(typer.prompt("Key", hide_input=True) if sys.stdin.isatty() else sys.stdin.readline()).strip()
    with failures():
        if not key:
            msg = "there is no key to hash"
            raise ValueError(msg)
        if len(key) < MIN_KEY_LENGTH:
            msg = f"the key has fewer than {MIN_KEY_LENGTH} characters and can be guessed: use a random one"
            raise ValueError(msg)
        if len(key) * log2(len(set(key))) < _RANDOM_BITS:
            typer.echo("The key does not look random: a hash does not protect a key that can be guessed.", err=True)
        hashed = "sha256:" + sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
    if wants_json(context, as_json):
        print_json({"hash": hashed})
    else:
        typer.echo(hashed)


def _run(
    context: typer.Context,
    url: str | None,
    work: "Callable[[DatabaseAPIKeyAuth], Awaitable[ResultT]]",
    prefix: str = "sk",
    environment: str | None = None,
) -> ResultT:
    with failures():
        from fastapi_guard.api_key.database import DatabaseAPIKeyAuth  # noqa: PLC0415 - keys hash needs no extra
        from fastapi_guard.cli.database import run  # noqa: PLC0415

        peppers = Peppers.from_environment(PEPPERS_VARIABLE)
        environments = () if environment is None else (environment,)
        return run(
            database_url(context, url),
            lambda factory: work(
                # Nothing is counted here: with a store, a key may have a rate and a quota.
                DatabaseAPIKeyAuth(
                    factory, prefix=prefix, environments=environments, peppers=peppers, usage=MemoryStore()
                )
            ),
        )
    raise AssertionError  # pragma: no cover - failures() ends the command


def _object(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        found = json.loads(text)
    except ValueError:
        found = text
    if not isinstance(found, dict):
        msg = '--metadata is a JSON object, such as \'{"team": "red"}\''
        raise ValueError(msg)  # noqa: TRY004 - of what was typed
    return found


def _fields(key: "StoredKey") -> dict[str, Any]:
    fields = {**asdict(key), "status": key.status(datetime.now(UTC))}
    if key.usage_id == key.key_id:
        del fields["usage_id"]
    return fields


def _print_change(key_id: str, state: str, as_json: bool, *, changed: bool) -> None:  # noqa: FBT001 - as the option is
    if as_json:
        print_json({"key_id": key_id, state: True, "changed": changed})
    else:
        typer.echo(f"{state} {key_id}" if changed else f"{key_id} was {state} before")


def _print_new(new: tuple[str, str], as_json: bool) -> None:  # noqa: FBT001 - as the option is
    key_id, raw = new
    if as_json:
        print_json({"key_id": key_id, "key": raw})
    else:
        print_fields({"key_id": key_id, "key": raw})
        typer.echo("Keep it now: it is not shown again.", err=True)
