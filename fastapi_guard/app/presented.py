"""The request that ``explain`` runs the guards of, made of credentials that the operator passes."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote, unquote

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.routing import Mount
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from fastapi_guard.exceptions import ConfigurationError
from fastapi_guard.login.session_schemes import StarletteSessionScheme
from fastapi_guard.schemes import BearerScheme, CallableScheme, Scheme
from fastapi_guard.schemes.api_key import APIKeyScheme

_SESSION_MIDDLEWARE: Final = ("starlette.middleware.sessions", "SessionMiddleware")


@dataclass(frozen=True, kw_only=True, slots=True)
class Presented:
    """A request to explain, with the credentials that it has.

    Attributes:
        method: The method, ``WEBSOCKET`` for a WebSocket.
        path: The path, and a query string behind a ``?``.
        token: A bearer token.
        key: An API key, for the first scheme of the route that reads one.
        cookie: The value of a cookie, for the first scheme of the route that reads one.
        headers: Further header fields.
        state: What the lifespan of the application made available.
    """

    method: str
    path: str
    token: str | None = field(default=None, repr=False)
    key: str | None = field(default=None, repr=False)
    cookie: str | None = field(default=None, repr=False)
    headers: Sequence[tuple[str, str]] = field(default=(), repr=False)
    state: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        """Refuse method and path in the wrong order, and a path that no route has.

        Raises:
            ConfigurationError: They are.
        """
        if not self.method.isalpha() or not self.path.startswith("/"):
            msg = "a request is a method and a path that begins with a slash, such as GET /items"
            raise ConfigurationError(msg)


def connection_of(
    app: FastAPI, presented: Presented, parameters: Mapping[str, Any], schemes: Sequence[Scheme]
) -> Request | WebSocket:
    """Return the connection of a request to explain.

    Args:
        app: The application.
        presented: The request.
        parameters: The parameters of the path.
        schemes: The schemes of the route, where a key and a cookie are put.

    Raises:
        ConfigurationError: None of the schemes reads the credential.
    """
    path, _, query = presented.path.partition("?")
    headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in presented.headers]
    if presented.token is not None:
        headers.append((b"authorization", b"Bearer " + presented.token.encode("latin-1", "replace")))
    for credential, scheme in _placed(presented, schemes):
        if isinstance(scheme, APIKeyScheme) and scheme.location == "query":
            query += f"{'&' if query else ''}{quote(scheme.name)}={quote(credential)}"
            continue
        name, value = _field(scheme, credential)
        headers.append((name.encode(), value.encode("latin-1", "replace")))
    scope: dict[str, Any] = {
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "scheme": "https",
        "path": unquote(path),
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": query.encode(),
        "headers": headers,
        "client": None,
        "server": None,
        "state": dict(presented.state),
        "app": app,
        "path_params": dict(parameters),
    }
    if presented.method.upper() == "WEBSOCKET":
        return WebSocket({**scope, "type": "websocket", "scheme": "wss", "subprotocols": []}, _nothing, _ignored)
    return Request({**scope, "type": "http", "method": presented.method.upper()}, _nothing)


async def read_sessions(app: ASGIApp, connection: HTTPConnection, path: str) -> None:
    """Put ``request.session`` on a connection, as Starlette's SessionMiddleware of an application does.

    No other middleware is run.

    Args:
        app: The application, and with it those that are mounted on it.
        connection: The connection.
        path: Its path, below the application.
    """
    for middleware in _session_middleware(app, path):
        await middleware(connection.scope, _nothing, _ignored)


def lacks_session(connection: HTTPConnection, schemes: Iterable[Scheme]) -> bool:
    """Return whether a scheme reads a session of Starlette's that is not on the connection."""
    return "session" not in connection.scope and any(isinstance(one, StarletteSessionScheme) for one in schemes)


def _session_middleware(app: Any, path: str) -> Iterator[Any]:
    while not isinstance(app, Starlette):
        if _is_session_middleware(type(app)):
            alone = copy(app)
            alone.app = _end
            yield alone
        app = getattr(app, "app", None)
        if app is None:
            return
    for middleware in app.user_middleware:
        if _is_session_middleware(middleware.cls):
            cls: Any = middleware.cls
            yield cls(_end, *middleware.args, **middleware.kwargs)
    for context in iter_route_contexts(app.routes):
        original: Any = context.original_route
        if isinstance(original, Mount) and path.startswith(f"{context.path}/"):
            yield from _session_middleware(original.app, path.removeprefix(context.path or ""))


def _is_session_middleware(cls: object) -> bool:
    # By name, since its module needs a library that may be missing.
    kinds = cls.__mro__ if isinstance(cls, type) else ()
    return any((kind.__module__, kind.__name__) == _SESSION_MIDDLEWARE for kind in kinds)


async def _end(scope: Scope, receive: Receive, send: Send) -> None:
    """Stand for the application behind a middleware."""


async def _nothing() -> Message:
    return {"type": "http.request"}


async def _ignored(_: Message) -> None:
    """Send nothing: there is no client."""


def _placed(presented: Presented, schemes: Sequence[Scheme]) -> Iterator[tuple[str, Scheme]]:
    if presented.key is not None:
        own = (scheme for scheme in schemes if isinstance(scheme, APIKeyScheme) and not scheme.is_cookie)
        bearers = (scheme for scheme in schemes if isinstance(scheme, BearerScheme))
        yield presented.key, _first((*own, *bearers), "an API key")
    if presented.cookie is not None:
        yield presented.cookie, _first([scheme for scheme in schemes if _cookie_of(scheme)], "a cookie")


def _first(schemes: Sequence[Scheme], what: str) -> Scheme:
    if not schemes:
        msg = f"no Auth of this route reads {what}"
        raise ConfigurationError(msg)
    return schemes[0]


def _field(scheme: Scheme, credential: str) -> tuple[str, str]:
    cookie = _cookie_of(scheme)
    if cookie is not None:
        return "cookie", f"{cookie}={credential}"
    if isinstance(scheme, APIKeyScheme):
        return scheme.name.lower(), credential
    return "authorization", f"Bearer {credential}"


def _cookie_of(scheme: Scheme) -> str | None:
    name: str | None = getattr(scheme.model, "name", None)
    return name if scheme.is_cookie else None


def place_of(scheme: Scheme) -> str:
    """Return where a scheme reads the credential, in words."""
    cookie = _cookie_of(scheme)
    if cookie is not None:
        return f"cookie {cookie}"
    if isinstance(scheme, APIKeyScheme):
        return f"{scheme.location} {scheme.name}"
    if isinstance(scheme, CallableScheme):
        return f"callable {getattr(scheme.call, '__name__', type(scheme.call).__name__)}"
    return "Authorization: Bearer" if isinstance(scheme, BearerScheme) else scheme.scheme_name
