"""Call an ASGI application directly, without normalising anything: for bytes that no HTTP client sends."""

import asyncio
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp, Message


@dataclass(frozen=True)
class Answer:
    """The response of the application."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def refusal(self) -> tuple[int, str, str | None]:
        """Status, detail and challenge; there is never more than one challenge field."""
        return self.status, self.json["detail"], self.header("www-authenticate")

    @property
    def challenges(self) -> list[str]:
        """Every WWW-Authenticate field."""
        return self.all("www-authenticate")

    def all(self, name: str) -> list[str]:
        """Return every value of a header field."""
        return [value for field, value in self.headers if field == name]

    def header(self, name: str) -> str | None:
        """Return the one value of a header field."""
        values = self.all(name)
        assert len(values) < 2
        return values[0] if values else None


async def endpoint() -> None:
    """Return nothing: an endpoint for tests of what runs before it."""


def request(
    app: ASGIApp,
    path: str = "/",
    headers: Iterable[tuple[bytes, bytes]] = (),
    *,
    method: str = "GET",
    query: bytes = b"",
) -> Answer:
    """Return the response to a request with exactly these bytes in its header fields and its query."""
    return _answer(app, scope_of(path, headers, method=method, query=query), {"type": "http.request", "body": b""})


async def exchange(
    app: ASGIApp,
    path: str = "/",
    headers: Iterable[tuple[bytes, bytes]] = (),
    *,
    method: str = "GET",
    query: bytes = b"",
    body: bytes = b"",
) -> Answer:
    """Return the response as `request` does, on the running loop: for objects bound to one, such as a database."""
    scope = scope_of(path, headers, method=method, query=query)
    return await _answer_here(app, scope, {"type": "http.request", "body": body})


async def broken_off(app: ASGIApp, path: str, media_type: str, body: bytes) -> Answer:
    """Return the response to a post whose client disconnects after these bytes of its body."""
    messages = [{"type": "http.disconnect"}, {"type": "http.request", "body": body, "more_body": True}]
    sent: list[Message] = []

    async def receive() -> Message:
        return messages.pop()

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope_of(path, [(b"content-type", media_type.encode())], method="POST"), receive, send)
    return Answer(sent[0]["status"], [], b"".join(message.get("body", b"") for message in sent))


async def call_scope(app: ASGIApp, scope: dict[str, Any]) -> Answer:
    """Return the response to a request with this scope, such as a copy of another request's."""
    return await _answer_here(app, scope, {"type": "http.request", "body": b""})


async def call(app: ASGIApp, path: str = "/", token: str | None = None, *more: tuple[bytes, bytes]) -> Answer:
    """Return the response to a request with this bearer token, unchanged, and further header fields."""
    fields = [*more] if token is None else [(b"authorization", b"Bearer " + token.encode("latin-1")), *more]
    return await exchange(app, path, fields)


def handshake(
    app: ASGIApp, path: str = "/", headers: Iterable[tuple[bytes, bytes]] = (), *, query: bytes = b""
) -> Answer:
    """Return the response to a WebSocket handshake: status 101, or the denial."""
    return asyncio.run(open_websocket(app, path, headers, query=query))


async def open_websocket(
    app: ASGIApp, path: str = "/", headers: Iterable[tuple[bytes, bytes]] = (), *, query: bytes = b""
) -> Answer:
    """Return the response as `handshake` does, on the running loop."""
    scope = {"type": "websocket", "scheme": "wss", "subprotocols": [], "extensions": {"websocket.http.response": {}}}
    return await _answer_here(app, {**scope, **_connection(path, headers, query)}, {"type": "websocket.connect"})


def scope_of(
    path: str, headers: Iterable[tuple[bytes, bytes]], *, method: str = "GET", query: bytes = b""
) -> dict[str, Any]:
    """Return the ASGI scope of a request; the query may follow the path too."""
    path, _, behind = path.partition("?")
    scope = {"type": "http", "method": method, "scheme": "https", "http_version": "1.1"}
    return {**scope, **_connection(path, headers, query or behind.encode())}


def _connection(path: str, headers: Iterable[tuple[bytes, bytes]], query: bytes) -> dict[str, Any]:
    connection = {"path": path, "raw_path": path.encode(), "root_path": "", "query_string": query}
    addresses = {"client": ("192.0.2.1", 1), "server": ("api.example", 443)}
    return {"asgi": {"version": "3.0"}, "headers": list(headers), "state": {}, **connection, **addresses}


def _answer(app: ASGIApp, scope: dict[str, Any], first: Message) -> Answer:
    return asyncio.run(_answer_here(app, scope, first))


async def _answer_here(app: ASGIApp, scope: dict[str, Any], first: Message) -> Answer:
    sent: list[Message] = []

    async def receive() -> Message:
        return first

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    # Python 3.11 loses its trace in a coroutine into which an exception was thrown, until it is resumed.
    await asyncio.sleep(0)
    start, *rest = sent
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in start.get("headers", ())]
    return Answer(start.get("status", 101), headers, b"".join(message.get("body", b"") for message in rest))
