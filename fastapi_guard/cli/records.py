"""The store of a command: in Redis or in a database, by its URL."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Annotated, NamedTuple, TypeVar

import typer

from fastapi_guard.cli.options import actor, check_argument
from fastapi_guard.exceptions import GuardError, ServiceUnavailable
from fastapi_guard.login.revocation import Revocations
from fastapi_guard.stores import Store

ResultT = TypeVar("ResultT")

STORE_VARIABLE = "FASTAPI_GUARD_STORE_URL"


def _all_checked(context: typer.Context, parameter: typer.CallbackParam, urls: list[str] | None) -> list[str]:
    return [url for url in urls or () if _checked(context, parameter, url)]


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
StoreURLs = Annotated[
    list[str] | None,
    typer.Option(
        "--store",
        envvar=STORE_VARIABLE,
        callback=_all_checked,
        help="Where sessions, refresh tokens and revocations are: redis://host, or a URL of SQLAlchemy; or several.",
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
        if url is not None and not is_database(url):
            return _in_redis(url, prefix, work)
        return _in_database(url, prefix, work)
    except ServiceUnavailable as error:  # pragma: no cover - a test asserts it; Python 3.11 loses its trace here
        msg = f"the store cannot be reached: {error.__cause__}"
        raise GuardError(msg) from error


def end_subject(urls: Sequence[str], prefix: str | None, subject: str) -> dict[str, int]:
    """End the tokens, sessions and refresh families of ``subject`` in each store.

    Returns:
        How many sessions and families there were, by the URL of the store without a password.

    Raises:
        GuardError: A store cannot be reached, or its table is missing. The others were changed.
    """
    ended: dict[str, int] = {}
    failed: list[str] = []
    for url in urls:
        try:
            ended[_shown(url)] = in_store(url, prefix, lambda store: Revocations(store).revoke_subject(subject))
        except GuardError as error:
            failed.append(str(error) if len(urls) == 1 else f"{_shown(url)}: {error}")
    if failed:
        done = [f"ended {count} sessions and refresh token families in {name}" for name, count in ended.items()]
        raise GuardError("; ".join([*failed, *done]))
    return ended


def ended_lines(ended: Mapping[str, int]) -> list[str]:
    """Return a line for each store about what ``end_subject`` has ended; of several, with its URL."""
    several = len(ended) > 1
    return [
        f"ended {count} sessions and refresh token families" + (f" in {name}" if several else "")
        for name, count in ended.items()
    ]


def revoke_keys(url: str | None, subject: str) -> int:
    """Revoke the API keys of ``subject`` and those that it made, in a database with their table; return how many.

    Raises:
        GuardError: The database cannot be reached.
    """
    from fastapi_guard.api_key.database import DatabaseAPIKeyAuth  # noqa: PLC0415 - the extra "sqlalchemy"
    from fastapi_guard.cli.database import KEYS, has_tables, run  # noqa: PLC0415 - as above
    from fastapi_guard.stores.database import SessionFactory  # noqa: PLC0415 - as above

    async def work(sessions: SessionFactory) -> int:
        if not await has_tables(sessions, KEYS):
            return 0
        return await DatabaseAPIKeyAuth(sessions).revoke_subject(subject, by=actor())

    return run(url, work, tables=())


class Ended(NamedTuple):
    """The number of credentials of a user that ended.

    Attributes:
        stores: Sessions and refresh families, by the URL of the store without a password.
        api_keys: API keys.
    """

    stores: dict[str, int]
    api_keys: int


def end_user(urls: Iterable[str | None], stores: Sequence[str], prefix: str | None, subject: str) -> Ended:
    """End what ``subject`` has in ``stores``, and then the API keys in databases, which sessions and tokens can make.

    Raises:
        GuardError: See ``end_subject`` and ``revoke_keys``. What is in the others has ended all the same.
    """
    ended, revoked, failures = dict[str, int](), 0, list[GuardError]()
    try:
        ended = end_subject(stores, prefix, subject)
    except GuardError as error:
        failures.append(error)
    for url in urls:
        try:
            revoked += revoke_keys(url, subject)
        except GuardError as error:
            failures.append(error)
    if failures:
        raise failures[0]
    return Ended(ended, revoked)


def is_database(url: str) -> bool:
    """Return whether the URL of a store is one of SQLAlchemy."""
    return not url.startswith(("redis://", "rediss://", "unix://"))


def _shown(url: str) -> str:
    # Neither the password nor the query, which may have one too.
    scheme, separator, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    return scheme + separator + host.rpartition("@")[2] + slash + path.partition("?")[0]


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
