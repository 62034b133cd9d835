"""What ``fastapi-guard demo`` serves: an application, and the lines that call it at a URL."""

import shlex
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from fastapi import FastAPI

from fastapi_guard.cli.database import TABLES, open_database, run
from fastapi_guard.cli.demo import application, calls
from fastapi_guard.stores.database import SessionFactory

# An application, and the lines that call it at a URL.
Served = tuple[FastAPI, Callable[[str], list[str]]]


def behind_a_key(api_key: str) -> Served:
    """Return posts behind this one key."""
    app = application.create_app(application.static_parts(api_key))
    return app, partial(calls.with_key, key=shlex.quote(api_key))


def behind_a_login(url: str) -> Served:
    """Return posts behind a login, with all that there is to it in the database at ``url``."""
    run(url, application.fill, create_tables=True, tables=TABLES)
    return _on_database(url, application.local_parts), calls.after_login


def behind_a_database(url: str | None, temporary: str) -> Served:
    """Return posts behind the API keys of the database at ``url``, else of a ``temporary`` one."""
    # In a database of its own nobody could have made a key before.
    if not url:
        key = run(temporary, application.make_key, create_tables=True, tables=TABLES)
    else:
        run(url, _nothing, create_tables=True, tables=TABLES)
        # A password has no place on a screen: then the other shell has the variable too.
        where = "" if "@" in url else f" --database-url {shlex.quote(url)}"
        key = f"$({_program()} keys create{where} --user demo --name demo --scope '*' --expires 1d --json"
        key += """ | sed -n 's/.*"key": "\\([^"]*\\)".*/\\1/p')"""
    return _on_database(url or temporary, application.database_parts), partial(calls.with_key, key=key)


async def _nothing(_: SessionFactory) -> None:
    """The tables are all that there has to be."""


def _program() -> str:
    started = Path(sys.argv[0])
    words = [sys.argv[0]] if started.stem == "fastapi-guard" else [sys.executable, "-m", "fastapi_guard"]
    return shlex.join(words)


def _on_database(url: str, parts: Callable[[SessionFactory], application.Parts]) -> FastAPI:
    database = open_database(url)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await database.dispose()

    return application.create_app(parts(database.factory), lifespan)
