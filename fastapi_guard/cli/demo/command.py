"""``fastapi-guard demo``: serve an application that shows what a guard does, and print how to call it."""

import sys
from ipaddress import ip_address
from pathlib import Path
from socket import AF_INET6, SO_REUSEADDR, SOCK_STREAM, SOL_SOCKET, getaddrinfo, socket
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import TYPE_CHECKING, Annotated

import typer

from fastapi_guard.cli.options import URL_VARIABLE, DatabaseURL, database_url
from fastapi_guard.cli.output import fail, failures
from fastapi_guard.exceptions import ConfigurationError, MissingExtraError

if TYPE_CHECKING:
    from fastapi_guard.cli.demo.served import Served


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
            from fastapi_guard.cli.demo import served as applications  # noqa: PLC0415 - the other commands need no such extras

            if api_key is not None:
                served = applications.behind_a_key(api_key)
            elif auth_type == "database":
                served = applications.behind_a_database(database_url(context, url), temporary)
            else:
                served = applications.behind_a_login(temporary)
            listening = _listen(host, port)
        _serve(server, served, listening)


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


def _serve(server: ModuleType, served: "Served", listening: socket) -> None:
    app, lines = served
    url = _address_of(listening)
    typer.echo(f"# Serving at {url}, its documentation at {url}/docs; Ctrl+C ends it. In another shell:")
    for line in lines(url):
        typer.echo(line)
    sys.stdout.flush()
    with listening:
        server.Server(server.Config(app, log_level="warning")).run(sockets=[listening])
