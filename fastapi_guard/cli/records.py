"""The store of a command: in Redis or in a database, by its URL."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

import typer

from fastapi_guard.cli.options import check_argument
from fastapi_guard.exceptions import GuardError, ServiceUnavailable
from fastapi_guard.login.revocation import Revocations
from fastapi_guard.stores import Store

ResultT = TypeVar("ResultT")

STORE_VARIABLE = "FASTAPI_GUARD_STORE_URL"


def _checked(context: typer.Context, parameter: typer.CallbackParam, url: str | None) -> str | None:
    # From the environment it may have a password.
    source = context.get_parameter_source(parameter.name or "")
    return check_argument(url, STORE_VARIABLE) if source is not None and source.name == "COMMANDLINE" else url


StoreURL = Annotated[
    str | None,
    typer.Option(
        "--store",
        envvar=STORE_VARIABLE,
        callback=_checked,
        help="Where sessions, refresh tokens and revocations are: redis://host, or a URL of SQLAlchemy.",
        show_default=False,
    ),
]
StorePrefix = Annotated[
    str | None, typer.Option("--store-prefix", help="The prefix of that store.", show_default=False)
]


def in_store(url: str | None, prefix: str | None, work: Callable[[Store], Awaitable[ResultT]]) -> ResultT:
    """Return what ``work`` returns on the store at ``url``.

    Raises:
        GuardError: There is no URL, the store cannot be reached, or its table is missing.
    """
    try:
        if url is not None and url.startswith(("redis://", "rediss://", "unix://")):
            return _in_redis(url, prefix, work)
        return _in_database(url, prefix, work)
    except ServiceUnavailable as error:  # pragma: no cover - a test asserts it; Python 3.11 loses its trace here
        msg = f"the store cannot be reached: {error.__cause__}"
        raise GuardError(msg) from error


def end_subject(url: str, prefix: str | None, subject: str) -> int:
    """End the tokens, sessions and refresh families of ``subject``; return how many sessions and families.

    Raises:
        GuardError: The store cannot be reached, or its table is missing.
    """
    return in_store(url, prefix, lambda store: Revocations(store).revoke_subject(subject))


def _in_redis(url: str, prefix: str | None, work: Callable[[Store], Awaitable[ResultT]]) -> ResultT:
    from fastapi_guard.stores.redis import RedisStore  # noqa: PLC0415 - the extra "redis" is only for this

    class Records(RedisStore):
        place = None  # an operator works on the records of Auths, which may be in this process too

    async def worked() -> ResultT:
        store = Records.from_url(url) if prefix is None else Records.from_url(url, prefix=prefix)
        try:
            return await work(store)
        finally:
            await store.aclose()

    return asyncio.run(worked())


def _in_database(url: str | None, prefix: str | None, work: Callable[[Store], Awaitable[ResultT]]) -> ResultT:
    from fastapi_guard.cli.database import RECORDS, run  # noqa: PLC0415 - the extra "sqlalchemy" is only for this
    from fastapi_guard.stores.sqlalchemy import SQLAlchemyStore  # noqa: PLC0415

    class Records(SQLAlchemyStore):
        place = None  # as above

    return run(url, lambda sessions: work(Records(sessions, prefix=prefix or "")), tables=RECORDS)
