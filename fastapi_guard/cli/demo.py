"""``fastapi-guard demo``: serve the examples ``demo`` and ``accounts``, and print lines of curl."""

import secrets
import shlex
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from functools import partial
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import module_from_spec
from ipaddress import ip_address
from pathlib import Path
from socket import AF_INET6, SO_REUSEADDR, SOCK_STREAM, SOL_SOCKET, getaddrinfo, socket
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Annotated, Any, Final, TypeAlias

import typer
from fastapi import FastAPI

from fastapi_guard.app import tune_gc
from fastapi_guard.cli.options import URL_VARIABLE, DatabaseURL, database_url
from fastapi_guard.cli.output import fail, failures
from fastapi_guard.cli.secrets import STANDARD_INPUT, read_secret
from fastapi_guard.exceptions import ConfigurationError, MissingExtraError, shown

# An application, and a function that returns the lines that call it at a URL.
Served: TypeAlias = tuple[FastAPI, Callable[[str], list[str]]]
# Examples are imported by their place in the wheel, which cannot clash with a module of the user.
_EXAMPLES: Final = "fastapi_guard.examples"
# They are in the wheel, below the package; an editable install has them in the checkout, beside the package.
_FOLDERS: Final = tuple(folder / "examples" for folder in Path(__file__).parents[1:3])
# Where the pages are; see create_app of the example.
_PAGES: Final = "/accounts"


def demo(
    context: typer.Context,
    *,
    host: Annotated[str, typer.Option("--host", help="The address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="At most 65535; 0 is any free one.")] = 8000,
    api_key: Annotated[
        str | None,
        typer.Option(
            "--api-key",
            metavar="SOURCE",
            help="Guard it by this one key, without a database: - for standard input, or env:NAME.",
            show_default=False,
        ),
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
    """Serve posts behind a login or behind API keys, and pages of accounts; print lines of curl that call it."""
    if auth_type not in (None, "local", "database"):
        fail(f"--auth-type is local or database, not {shown(auth_type)}")
    if api_key is not None and auth_type is not None:
        fail("--api-key and --auth-type are two ways to guard the demo: choose one")
    is_typed = api_key is not None and api_key != STANDARD_INPUT and not api_key.startswith("env:")
    with TemporaryDirectory(prefix="fastapi-guard-demo-") as folder:
        temporary = f"sqlite+aiosqlite:///{Path(folder, 'demo.db')}"
        with failures(), ExitStack() as opened:
            server, served = _server(), None
            if api_key is not None:
                served = behind_a_key(api_key if is_typed else str(read_secret("--api-key", api_key)))
            elif auth_type == "database":
                served = behind_a_database(database_url(context, url), temporary)
            listening = opened.enter_context(listen(host, port))
            site = None
            if served is None:
                site = local_site(listening)
                pages = None if site is None else account_pages(site, f"sqlite+aiosqlite:///{folder}/accounts.db")
                served = behind_a_login(temporary, pages)
            opened.pop_all()
        if is_typed:
            typer.echo("# every user of this machine can see this key: pass --api-key - or env:NAME", err=True)
        _serve(server, served, listening, site)


def load_example(name: str = "demo") -> ModuleType:
    """Import an example application, from the wheel or from the checkout.

    Raises:
        MissingExtraError: An extra of the example is not installed.
    """
    folder, imported = next(folder / name for folder in _FOLDERS if folder.is_dir()), f"{_EXAMPLES}.{name}"
    loader = SourceFileLoader(imported, str(folder / "__init__.py"))
    specification = ModuleSpec(imported, loader, origin=loader.path, is_package=True)
    specification.submodule_search_locations = [str(folder)]
    module = module_from_spec(specification)
    sys.modules[imported] = module
    loader.exec_module(module)
    return module


def behind_a_key(api_key: str) -> Served:
    """Return the application behind one API key.

    Raises:
        ConfigurationError: The key is too short, or has characters that a header cannot contain.
    """
    example = load_example()
    return example.create_app(example.static_parts(api_key)), partial(example.with_key, key=shlex.quote(api_key))


def local_site(listening: socket) -> str | None:
    """Return the origin of pages on this machine, where browsers have passkeys and Secure cookies without TLS.

    ``None`` where other machines could reach them: they show every message.
    """
    address, port = listening.getsockname()[:2]
    return f"http://localhost:{port}" if address in ("127.0.0.1", "::1") else None


def account_pages(site: str, url: str) -> FastAPI:
    """Return the pages at ``site``, with users of their own in the database at ``url``.

    Raises:
        MissingExtraError: An extra of the example is not installed.
    """
    example = load_example("accounts")
    settings = example.Settings(key=secrets.token_urlsafe(32), site=site, base=_PAGES, database=url)
    app: FastAPI = example.create_app(settings)
    return app


def behind_a_login(url: str, pages: FastAPI | None = None) -> Served:
    """Return the application behind a login, with its users and posts in the empty database at ``url``."""
    from fastapi_guard.cli.database import TABLES, run  # noqa: PLC0415 - needs an extra

    example = load_example()
    run(url, example.fill, create_tables=True, tables=TABLES)
    return _on_database(example, url, example.local_parts, pages), example.after_login


def behind_a_database(url: str | None, temporary: str) -> Served:
    """Return the application behind the API keys of the database at ``url``, or of a ``temporary`` one with one key."""
    from fastapi_guard.cli.database import TABLES, run  # noqa: PLC0415 - needs an extra

    example = load_example()
    if not url:
        key = run(temporary, example.create_key, create_tables=True, tables=TABLES)
    else:
        run(url, _nothing, create_tables=True, tables=TABLES)
        # A URL with a password is not printed: the other shell needs the variable of the environment then.
        option = "" if "@" in url else f" --database-url {shlex.quote(url)}"
        key = f"$({_program()} keys create{option} --user demo --name demo --scope '*' --expires 1d --json"
        key += """ | sed -n 's/.*"key": "\\([^"]*\\)".*/\\1/p')"""
    return _on_database(example, url or temporary, example.database_parts), partial(example.with_key, key=key)


async def _nothing(_: object) -> None:
    """Do nothing: only the tables are created."""


def _program() -> str:
    started = Path(sys.argv[0])
    words = [sys.argv[0]] if started.stem == "fastapi-guard" else [sys.executable, "-m", "fastapi_guard"]
    return shlex.join(words)


def _on_database(example: ModuleType, url: str, parts: Callable[..., Any], pages: FastAPI | None = None) -> FastAPI:
    from fastapi_guard.cli.database import open_database  # noqa: PLC0415 - needs an extra

    database = open_database(url)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as started:
            if pages is not None:
                # An application does not run the lifespan of one that is mounted on it.
                await started.enter_async_context(pages.router.lifespan_context(pages))
            yield
        await database.dispose()

    app: FastAPI = example.create_app(parts(database.factory), lifespan, pages=pages)
    return app


def _server() -> ModuleType:
    try:
        import uvicorn  # noqa: PLC0415 - the other commands need no server
    except ImportError:
        raise MissingExtraError("uvicorn", "serve") from None
    return uvicorn


def listen(host: str, port: int) -> socket:
    """Return a socket that listens: connections wait in its queue until the server accepts them.

    Raises:
        ConfigurationError: The address cannot be resolved, or is in use.
    """
    try:
        family, kind, *_, address = getaddrinfo(host, port, type=SOCK_STREAM)[0]
        listening = socket(family, kind)
        try:
            listening.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen(128)
        except OSError:
            listening.close()
            raise
    except OSError as error:
        msg = f"cannot listen at {host}, port {port}: {error.strerror}; choose others with --host and --port"
        raise ConfigurationError(msg) from None
    return listening


def address_of(listening: socket) -> str:
    """Return the URL at which this machine reaches a listening socket; warn if other machines may reach it too."""
    found = ip_address(listening.getsockname()[0])
    if not found.is_loopback:
        typer.echo(
            f"# {found} may be reachable from other machines, and the passwords of this demo are public.", err=True
        )
    if found.is_unspecified:
        found = ip_address("::1" if listening.family == AF_INET6 else "127.0.0.1")
    host = f"[{found}]" if listening.family == AF_INET6 else str(found)
    return f"http://{host}:{listening.getsockname()[1]}"


def _serve(server: ModuleType, served: Served, listening: socket, site: str | None) -> None:
    app, lines = served
    url = address_of(listening)
    pages = "" if site is None else f"pages at {site}{_PAGES}/, and "
    typer.echo(f"# Serving at {url}, with {pages}documentation at {url}/docs; stop it with Ctrl+C. In another shell:")
    for line in lines(url):
        typer.echo(line)
    sys.stdout.flush()
    tune_gc()
    with listening:
        server.Server(server.Config(app, log_level="warning")).run(sockets=[listening])
