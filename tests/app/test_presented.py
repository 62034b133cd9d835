"""The connection of a request to explain."""

from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.openapi.models import APIKey, APIKeyIn
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.types import ASGIApp
from starlette.websockets import WebSocket

from fastapi_guard import APIKeyScheme, BearerScheme, ConfigurationError
from fastapi_guard.app.presented import Presented, connection_of, place_of, read_sessions
from fastapi_guard.schemes import CallableScheme, Scheme

APP = FastAPI()
SCOPE: dict[str, Any] = {
    "asgi": {"version": "3.0"},
    "http_version": "1.1",
    "path": "/items/a b",
    "raw_path": b"/items/a%20b",
    "root_path": "",
    "query_string": b"x=1",
    "client": None,
    "server": None,
    "state": {"pool": 1},
    "app": APP,
    "path_params": {"item": "a b"},
}


def connection(method: str = "get", **fields: Any) -> Any:
    """Return the connection of a request with these credentials, to a route with these schemes."""
    schemes = fields.pop("schemes", [])
    presented = Presented(**{"method": method, "path": "/items/a%20b?x=1", "state": {"pool": 1}, **fields})
    return connection_of(APP, presented, {"item": "a b"}, schemes)


@pytest.mark.parametrize(("method", "path"), [("/items", "GET"), ("GET", "items"), ("GET", ""), ("", "/items")])
def test_what_is_not_a_request(method: str, path: str) -> None:
    """Exchanged they would be a route that does not exist."""
    message = "a request is a method and a path that begins with a slash, such as GET /items"
    with pytest.raises(ConfigurationError, match=f"^{message}$"):
        Presented(method=method, path=path)


async def test_the_scope_of_a_request() -> None:
    """It is what a server would pass on, with the state of the lifespan and the parameters of the path."""
    found = connection(token="a.b.c", headers=[("X-Name", "\xe9")])
    assert isinstance(found, Request)
    headers = [(b"x-name", b"\xe9"), (b"authorization", b"Bearer a.b.c")]
    assert found.scope == {**SCOPE, "type": "http", "method": "GET", "scheme": "https", "headers": headers}
    assert await found.body() == b""


def test_the_scope_of_a_websocket() -> None:
    """A WebSocket has no method."""
    found = connection("websocket")
    assert isinstance(found, WebSocket)
    own = {"type": "websocket", "scheme": "wss", "subprotocols": [], "headers": []}
    assert found.scope == {**SCOPE, **own}


@pytest.mark.parametrize(("path", "query"), [("/items?x=1", b"x=1&my%20key=a%26b"), ("/items", b"my%20key=a%26b")])
def test_a_key_in_the_query(path: str, query: bytes) -> None:
    """A key is put after the other parameters, encoded."""
    found = connection(path=path, key="a&b", schemes=[APIKeyScheme("my key", location="query")])
    assert (found.scope["query_string"], found.scope["headers"]) == (query, [])


def test_a_key_in_the_query_beside_a_cookie() -> None:
    """Each credential is put where its scheme reads it."""
    schemes = [APIKeyScheme("key", location="query"), APIKeyScheme("sid", location="cookie")]
    found = connection(path="/items", key="abc", cookie="def", schemes=schemes)
    assert (found.scope["query_string"], found.scope["headers"]) == (b"key=abc", [(b"cookie", b"sid=def")])


FIELDS: list[tuple[dict[str, Any], tuple[bytes, bytes]]] = [
    ({"token": "a\u20acb"}, (b"authorization", b"Bearer a?b")),
    ({"key": "a\u20acb", "schemes": [BearerScheme(), APIKeyScheme("X-Key")]}, (b"x-key", b"a?b")),
    ({"key": "abc", "schemes": [BearerScheme()]}, (b"authorization", b"Bearer abc")),
    ({"cookie": "abc", "schemes": [APIKeyScheme("sid", location="cookie")]}, (b"cookie", b"sid=abc")),
]


@pytest.mark.parametrize(("fields", "header"), FIELDS)
def test_a_credential_in_a_header_field(fields: dict[str, Any], header: tuple[bytes, bytes]) -> None:
    """A credential is put where the first scheme reads it; what no header field can have is replaced."""
    assert connection(**fields).scope["headers"] == [header]


@pytest.mark.parametrize(("name", "message"), [("key", "an API key"), ("cookie", "a cookie")])
def test_a_credential_that_no_scheme_reads(name: str, message: str) -> None:
    """It is an error with the kind of the credential."""
    with pytest.raises(ConfigurationError) as error:
        connection(**{name: "abc"})
    assert str(error.value) == f"no Auth of this route reads {message}"


def without_change(app: ASGIApp) -> ASGIApp:
    """Return the application: a middleware that is a function."""
    return app


async def test_the_sessions_of_mounts() -> None:
    """The session of an application that is mounted around the path is read, at any depth, and no other one."""
    inner, middle, other, app = FastAPI(), FastAPI(), FastAPI(), FastAPI()
    # As arguments by position, and by keyword.
    inner.add_middleware(SessionMiddleware, "a key of a test")
    other.add_middleware(SessionMiddleware, secret_key="a key of a test")
    middle.mount("/inner", inner)
    app.mount("/middle", middle)
    app.mount("/other", other)
    app.add_middleware(without_change)
    for path, is_read in (("/middle/inner/a", True), ("/other/a", True), ("/middle/a", False), ("/a", False)):
        found = connection()
        await read_sessions(app, found, path)
        assert ("session" in found.scope) is is_read, path


def read(request: Request) -> str | None:
    """Read a credential."""
    return request.headers.get("x-credential")


class Reader:
    """An object that reads a credential."""

    __call__ = staticmethod(read)


class SignatureScheme(Scheme):
    """A scheme of an application."""

    def __init__(self) -> None:
        """Describe it as a field."""
        super().__init__(APIKey(**{"in": APIKeyIn.header}, name="Signature"), "Signature", "api")

    def extract(self, connection: HTTPConnection) -> str | None:
        """Read the field."""
        return connection.headers.get("signature")


@pytest.mark.parametrize(
    ("scheme", "place"),
    [
        (SignatureScheme(), "Signature"),
        (CallableScheme(Reader()), "callable Reader"),
        (CallableScheme(read), "callable read"),
        (APIKeyScheme("sid", location="cookie"), "cookie sid"),
        (APIKeyScheme("key", location="query"), "query key"),
        (APIKeyScheme("X-Key"), "header X-Key"),
        (BearerScheme(), "Authorization: Bearer"),
    ],
)
def test_the_place_of_a_credential(scheme: Scheme, place: str) -> None:
    """A scheme is described by where it reads."""
    assert place_of(scheme) == place
