"""The request that ``explain`` runs the guards of, made of credentials that the operator passes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, unquote

from fastapi import FastAPI
from starlette.requests import Request
from starlette.types import Message
from starlette.websockets import WebSocket

from fastapi_guard.exceptions import ConfigurationError
from fastapi_guard.schemes import BearerScheme, CallableScheme, Scheme
from fastapi_guard.schemes.api_key import APIKeyScheme


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


async def _nothing() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


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
