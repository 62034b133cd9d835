"""``fastapi-guard demo``: serve an application that shows what a guard does, and print how to call it."""

import shlex
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from socket import AF_INET6, SO_REUSEADDR, SOCK_STREAM, SOL_SOCKET, getaddrinfo, socket
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import TYPE_CHECKING, Annotated

from fastapi import FastAPI

from fastapi_guard.api_key.models import Base
from fastapi_guard.cli import users
from fastapi_guard.cli.database import URL_VARIABLE, open_database, run
from fastapi_guard.cli.options import DatabaseURL, database_url
from fastapi_guard.cli.output import fail, failures
from fastapi_guard.database import SessionFactory
from fastapi_guard.exceptions import ConfigurationError, MissingExtraError
from fastapi_guard.stores.sqlalchemy import metadata as records

if TYPE_CHECKING:
    from fastapi_guard.demo import Parts

try:
    import typer
except ImportError:
    raise MissingExtraError("typer", "cli") from None

_TABLES = (Base.metadata, users.TABLES, records)

# An application, and the lines that call it at a URL.
_Served = tuple[FastAPI, Callable[[str], list[str]]]


def demo(
    context: typer.Context,
    *,
    host: Annotated[str, typer.Option("--host", help="The address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="The port; 0 is any free one.")] = 8000,
    api_key: Annotated[
        str | None,
        typer.Option("--api-key", metavar="KEY", help="Guard it by this one key; no database.", show_default=False),
    ] = None,
    auth_type: Annotated[
        str | None,
        typer.Option(
            "--auth-type",
            metavar="local|database",
            help=f"local: users who log in, on SQLite (default); database: the API keys at {URL_VARIABLE}.",
            show_default=False,
        ),
    ] = None,
    url: DatabaseURL = None,
) -> None:
    """Serve posts behind a login, or behind API keys, and print curl lines that work."""
    if auth_type not in (None, "local", "database"):
        fail(f"--auth-type is local or database, not {auth_type!r}")
    if api_key is not None and auth_type is not None:
        fail("--api-key is one way to guard the demo and --auth-type another: choose one")
    with TemporaryDirectory(prefix="fastapi-guard-demo-") as folder:
        temporary = f"sqlite+aiosqlite:///{Path(folder, 'demo.db')}"
        with failures():
            server = _server()
            if api_key is not None:
                served = _behind_a_key(api_key)
            elif auth_type == "database":
                served = _behind_a_database(database_url(context, url), temporary)
            else:
                served = _behind_a_login(temporary)
            listening = _listen(host, port)
        _serve(server, served, listening)


def _behind_a_key(api_key: str) -> _Served:
    from fastapi_guard import demo as application  # noqa: PLC0415 - the other commands do without its extras
    from fastapi_guard.cli import calls  # noqa: PLC0415

    app = application.create_app(application.static_parts(api_key))
    return app, partial(calls.with_key, key=shlex.quote(api_key))


def _behind_a_login(url: str) -> _Served:
    from fastapi_guard import demo as application  # noqa: PLC0415 - the other commands do without its extras
    from fastapi_guard.cli import calls  # noqa: PLC0415

    run(url, application.fill, create_tables=True, tables=_TABLES)
    return _on_database(url, application.local_parts), calls.after_login


def _behind_a_database(url: str | None, temporary: str) -> _Served:
    from fastapi_guard import demo as application  # noqa: PLC0415 - the other commands do without its extras
    from fastapi_guard.cli import calls  # noqa: PLC0415

    # In a database of its own nobody could have made a key before.
    if not url:
        key = run(temporary, application.make_key, create_tables=True, tables=_TABLES)
    else:
        run(url, _nothing, create_tables=True, tables=_TABLES)
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


def _on_database(url: str, parts: "Callable[[SessionFactory], Parts]") -> FastAPI:
    from fastapi_guard import demo as application  # noqa: PLC0415 - the other commands do without its extras

    database = open_database(url)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await database.dispose()

    return application.create_app(parts(database.factory), lifespan)


def _server() -> ModuleType:
    try:
        import uvicorn  # noqa: PLC0415 - the other commands need no server
    except ImportError:
        raise MissingExtraError("uvicorn", "serve") from None
    return uvicorn


def _listen(host: str, port: int) -> socket:
    try:
        family, kind, *_, address = getaddrinfo(host, port, type=SOCK_STREAM)[0]
        listening = socket(family, kind)
        try:
            listening.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
            listening.bind(address)
            # From here on a call waits for its answer, and nobody has to wait for the server.
            listening.listen(128)
        except OSError:
            listening.close()
            raise
    except OSError as error:
        msg = f"cannot listen at {host}, port {port}: {error.strerror}; choose others with --host and --port"
        raise ConfigurationError(msg) from None
    return listening


def _address_of(listening: socket) -> str:
    found = ip_address(listening.getsockname()[0])
    if not found.is_loopback:
        typer.echo(
            f"# {found} may be reached from elsewhere, and the passwords of this demo are known to everybody.", err=True
        )
    if found.is_unspecified:
        found = ip_address("::1" if listening.family == AF_INET6 else "127.0.0.1")
    host = f"[{found}]" if listening.family == AF_INET6 else str(found)
    return f"http://{host}:{listening.getsockname()[1]}"


def _serve(server: ModuleType, served: _Served, listening: socket) -> None:
    app, lines = served
    url = _address_of(listening)
    typer.echo(f"# Serving at {url}, its documentation at {url}/docs; Ctrl+C ends it. In another shell:")
    for line in lines(url):
        typer.echo(line)
    sys.stdout.flush()
    with listening:
        server.Server(server.Config(app, log_level="warning")).run(sockets=[listening])
