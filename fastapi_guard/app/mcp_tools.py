"""Guard the tools of an MCP server: read the messages to it, and leave tools out of its lists."""

import json
import re
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from contextlib import asynccontextmanager
from difflib import get_close_matches
from typing import Any, Final, NamedTuple

from fastapi import HTTPException
from fastapi.routing import iter_route_contexts
from starlette.applications import Starlette
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from fastapi_guard.app.asgi import MCP_PACKAGES, Guarded, innermost
from fastapi_guard.app.lifespans import behind_middleware
from fastapi_guard.events import logger
from fastapi_guard.exceptions import ConfigurationError, ServiceUnavailable
from fastapi_guard.jwt.compact import MalformedToken, decode_object

# As the SDK bounds it.
_MAX_BODY_BYTES: Final = 4 * 1024 * 1024
# The end of an event (WHATWG HTML 9.2.6).
_EVENT_END: Final = re.compile(rb"\r\n\r\n|\n\n|\r\r")
UNKNOWN_TOOL: Final = -32602
_PARSE_ERROR: Final = -32700


class GuardedTools:
    """An MCP server, some of whose tools have guards of their own.

    Attributes:
        app: The server.
        tool_guards: The guards, by the name of the tool.
    """

    def __init__(self, app: ASGIApp, guards: Mapping[str, Guarded], *, hide: bool) -> None:
        """Guard tools of ``app`` by their names; ``hide`` those that a caller may not call."""
        self.app = app
        self.tool_guards: dict[str, Guarded] = dict(guards)
        self._hide = hide

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on where the guards of the tools that it calls admit it; close a WebSocket.

        Raises:
            HTTPException: A guard refuses it.
        """
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            # Its messages are not read, so that no guard of a tool would run.
            await WebSocketClose(code=1008)(scope, receive, send)
        elif "app" in scope:
            await self._serve(scope, receive, send)
        else:
            # Outside of any application nothing else responds to a refusal.
            await ExceptionMiddleware(self._serve)(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        hidden = await self._refused(scope, receive, send) if self._hide else frozenset()
        if scope["method"] == "POST":
            body = await _body_of(receive)
            response = await self._response_to(body, hidden, scope, receive, send)
            if response is not None:
                await response(scope, receive, send)
                return
            receive = _replayed(body or b"", receive)
        await self.app(scope, receive, _Lists(send, hidden).send if hidden else send)

    async def _response_to(
        self, body: bytes | None, hidden: Collection[str], scope: Scope, receive: Receive, send: Send
    ) -> JSONResponse | None:
        if body is None:
            return JSONResponse(_error(None, _PARSE_ERROR, "The body is too long"), 413)
        try:
            messages = _messages(body)
        except MalformedToken:
            # A server that reads it otherwise, such as the last of two names, would call another tool.
            return JSONResponse(_error(None, _PARSE_ERROR, "Parse error"), 400)
        for message in messages:
            name = _called(message)
            if name in hidden:
                return JSONResponse(_error(message.get("id"), UNKNOWN_TOOL, "Unknown tool"))
            if name in self.tool_guards:
                await self.tool_guards[name].admit(scope, receive, send)
        return None

    async def _refused(self, scope: Scope, receive: Receive, send: Send) -> frozenset[str]:
        refused = set()
        for name, guard in self.tool_guards.items():
            try:
                await guard.admit(scope, receive, send)
            except ServiceUnavailable:
                raise
            except HTTPException:
                refused.add(name)
        return frozenset(refused)


class _Server(NamedTuple):
    """An MCP server of the SDK or of FastMCP.

    Attributes:
        app: The application that has its route.
        path: The path at which it receives messages.
        endpoint: What receives them.
    """

    app: Starlette
    path: str
    endpoint: Any


def server_paths(app: object) -> Iterator[str]:
    """Yield the paths below an application at which MCP servers of the SDK and of FastMCP receive messages."""
    yield from (server.path for server in _servers(app))


def check_tools_at_start(app: object, names: Collection[str]) -> None:
    """Refuse from now on to start MCP servers below ``app`` of which none has a tool of one of these names.

    A guard of a mistyped name would guard nothing. The lifespan raises the ConfigurationError.
    """
    for below in {id(server.app): server.app for server in _servers(app)}.values():
        below.router.lifespan_context = _checked(below.router.lifespan_context, app, names)


def _checked(lifespan: Any, app: object, names: Collection[str]) -> Any:
    @asynccontextmanager
    async def checked(below: Any) -> AsyncIterator[Any]:
        async with lifespan(below) as state:
            # FastMCP makes the server in its lifespan.
            mistake = _mistake(await _tools_of(app), names)
            if mistake is None:
                yield state
        # Afterwards: the task group of the lifespan would wrap it.
        if mistake is not None:
            raise ConfigurationError(mistake)

    checked.__wrapped__ = lifespan  # type: ignore[attr-defined]  # what is looked at to see whether there is one
    return checked


def _mistake(known: Collection[str] | None, names: Collection[str]) -> str | None:
    unknown = [] if known is None else [name for name in names if name not in known]
    if not unknown:
        return None
    listed = ", ".join(f"{name!r}{_meant(name, known or ())}" for name in unknown)
    return f"tools: the MCP server has no tool {listed} to guard: register its tools before the application starts"


def _meant(name: str, known: Collection[str]) -> str:
    closest = get_close_matches(name, known, 1, 0)
    return f" (did you mean {closest[0]!r}?)" if closest else ""


async def _tools_of(app: object) -> Collection[str] | None:
    """Return the names of the tools below an application, ``None`` where a server does not list them."""
    names: set[str] = set()
    for server in _servers(app):
        endpoint = server.endpoint
        while not hasattr(endpoint, "session_manager") and hasattr(endpoint, "app"):
            endpoint = endpoint.app
        if not hasattr(endpoint, "session_manager"):
            continue  # another transport, or a page of the SDK
        entry = endpoint.session_manager and endpoint.session_manager.app.get_request_handler("tools/list")
        # A handler of the application's own reads the request.
        owner: Any = getattr(getattr(entry, "handler", None), "__self__", None)
        if not hasattr(owner, "list_tools"):
            return None
        try:
            # FastMCP lists a tool for those who may see it; a provider lists all that it has.
            lists = [await source.list_tools() for source in (owner, *getattr(owner, "providers", ()))]
        except Exception as error:  # noqa: BLE001 - such as of a server behind a proxy of FastMCP's
            logger.warning("the tools of an MCP server cannot be listed: %s", type(error).__name__)
            return None
        names.update(tool.name for tools in lists for tool in tools)
    return names


def _servers(app: object, path: str = "") -> Iterator[_Server]:
    app = innermost(app)
    while isinstance(app, GuardedTools):
        app = innermost(app.app)
    if not isinstance(app, Starlette):
        return
    for context in iter_route_contexts(app.routes):
        route: Any = context.original_route
        below = path + str(context.path or "")
        endpoint = behind_middleware(getattr(route, "endpoint", None) or getattr(route, "app", None))
        if str(getattr(endpoint, "__module__", "")).startswith(MCP_PACKAGES):
            yield _Server(app, below, endpoint)
        else:
            yield from _servers(endpoint, below)


class _Lists:
    """A response without the tools that are hidden, as JSON or as events."""

    def __init__(self, send: Send, hidden: Collection[str]) -> None:
        self._send = send
        self._hidden = hidden
        self._start: Message = {}
        self._kind = ""
        self._held = b""

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            fields = {name.lower(): value for name, value in message.get("headers", ())}
            self._kind = fields.get(b"content-type", b"").decode("latin-1").partition(";")[0].strip()
            self._start = message
            if self._kind != "application/json":
                await self._send(message)
        elif message["type"] != "http.response.body" or self._kind not in ("application/json", "text/event-stream"):
            await self._send(message)
        elif self._kind == "application/json":
            await self._send_json(message)
        else:
            await self._send_events(message)

    async def _send_json(self, message: Message) -> None:
        self._held += message.get("body", b"")
        if message.get("more_body", False):
            return
        body = self._filtered(self._held)
        kept = [(name, value) for name, value in self._start.get("headers", ()) if name.lower() != b"content-length"]
        await self._send({**self._start, "headers": [*kept, (b"content-length", str(len(body)).encode())]})
        await self._send({"type": "http.response.body", "body": body})

    async def _send_events(self, message: Message) -> None:
        self._held += message.get("body", b"")
        sent = b""
        while end := _EVENT_END.search(self._held):
            sent += self._event(self._held[: end.start()]) + end.group()
            self._held = self._held[end.end() :]
        if not message.get("more_body", False):
            sent, self._held = sent + self._event(self._held), b""
        await self._send({**message, "body": sent})

    def _event(self, event: bytes) -> bytes:
        lines = event.splitlines()
        data = [line[5:].removeprefix(b" ") for line in lines if line.startswith(b"data:")]
        content = b"\n".join(data)
        filtered = self._filtered(content)
        if filtered == content:
            return event
        return b"\r\n".join([*(line for line in lines if not line.startswith(b"data:")), b"data: " + filtered])

    def _filtered(self, content: bytes) -> bytes:
        if b'"tools"' not in content:
            return content
        try:
            document = json.loads(content)
        except ValueError:
            return content
        changed = False
        for message in document if isinstance(document, list) else [document]:
            result: Any = message.get("result") if isinstance(message, dict) else None
            tools = result.get("tools") if isinstance(result, dict) else None
            if isinstance(tools, list):
                result["tools"] = [tool for tool in tools if not self._is_hidden(tool)]
                changed = True
        return json.dumps(document, separators=(",", ":")).encode() if changed else content

    def _is_hidden(self, tool: object) -> bool:
        return isinstance(tool, dict) and tool.get("name") in self._hidden


def _messages(body: bytes) -> list[dict[str, Any]]:
    """Return the messages in a body: one, or several in a batch (revision 2025-03-26)."""
    if not body.lstrip().startswith(b"["):
        return [decode_object(body)]
    return list(_elements(decode_object(b'{"batch":' + body + b"}")["batch"]))


def _elements(batch: Any) -> Iterator[dict[str, Any]]:
    for message in batch:
        if not isinstance(message, dict):
            raise MalformedToken("batch")
        yield message


def _called(message: Mapping[str, Any]) -> str | None:
    called = message.get("params")
    name = called.get("name") if message.get("method") == "tools/call" and isinstance(called, dict) else None
    return name if isinstance(name, str) else None


def _error(request_id: Any, code: int, message: str) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": request_id, "error": {"code": code, "message": message}}


async def _body_of(receive: Receive) -> bytes | None:
    """Return the whole body, ``None`` where it is too long."""
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > _MAX_BODY_BYTES:
            return None
        if not message.get("more_body", False):
            return bytes(body)


def _replayed(body: bytes, receive: Receive) -> Receive:
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return pending.pop() if pending else await receive()

    return replayed
