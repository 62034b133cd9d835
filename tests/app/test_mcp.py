"""MCP servers behind guards: sessions with owners, tools with guards of their own."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from joserfc import jwk
from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.auth.settings import AuthSettings
from mcp.server.lowlevel import Server
from mcp.server.mcpserver import MCPServer
from mcp.types import ListToolsResult
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from fastapi_guard import (
    AnyAuth,
    APIKeyScheme,
    Auth,
    BearerScheme,
    ConfigurationError,
    JWTAuth,
    JWTConfig,
    ScopesAuth,
    ServiceUnavailable,
    configure_app,
)
from fastapi_guard.app import guarded, guarded_routes
from fastapi_guard.app.mcp import guarded_mcp, guarded_tools, token_verifier
from fastapi_guard.routers import protected_resource_router
from support.asgi import handshake, scope_of

KEY = jwk.OctKey.generate_key(256)
ISSUER, RESOURCE = "https://id.example", "https://api.example/mcp"
ACCEPT = {"Accept": "application/json, text/event-stream"}
METADATA = "https://api.example/.well-known/oauth-protected-resource/mcp"


def auth_of() -> JWTAuth:
    """Return an Auth of its own, since one resource names its metadata in the challenges."""
    return JWTAuth(JWTConfig(key=KEY, issuer_url=ISSUER, audience=RESOURCE))


def server_of(**options: Any) -> Starlette:
    """Return a server with two tools, that returns who calls."""
    server = MCPServer("items")

    @server.tool()
    def read() -> str:
        token = get_access_token()
        return "nobody" if token is None else f"{token.subject} of {(token.claims or {}).get('iss')}, {token.token!r}"

    @server.tool()
    def delete(name: str) -> str:
        return f"deleted {name}"

    return server.streamable_http_app(host="testserver", **{"json_response": True, **options})


@contextmanager
def client_of(mounted: Any, auth: ScopesAuth) -> Iterator[TestClient]:
    """Yield a client of an application with the server at /mcp."""
    app = FastAPI(lifespan=mounted.lifespan)
    app.include_router(protected_resource_router(auth, resource=RESOURCE, authorization_servers=[ISSUER]))
    app.mount("/", mounted)
    configure_app(app, unguarded="refuse", public=["/.well-known/oauth-protected-resource/mcp"])
    with TestClient(app) as client:
        yield client


def bearer(auth: JWTAuth, sub: str = "ada", scope: str = "mcp:use", **claims: Any) -> dict[str, str]:
    """Return the header fields of a caller."""
    return {"Authorization": f"Bearer {auth.encode({'sub': sub, 'scope': scope, **claims})}", **ACCEPT}


def message(method: str, **params: Any) -> dict[str, Any]:
    """Return a message of JSON-RPC."""
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}


def call(name: str, /, **arguments: Any) -> dict[str, Any]:
    """Return the message that calls a tool."""
    return message("tools/call", name=name, arguments=arguments)


INITIALIZE = message(
    "initialize",
    protocolVersion="2025-06-18",
    capabilities={},
    clientInfo={"name": "test", "version": "1"},
)


def session_of(client: TestClient, headers: dict[str, str]) -> dict[str, str]:
    """Begin a session; return the header fields of its requests."""
    answer = client.post("/mcp", headers=headers, json=INITIALIZE)
    assert answer.status_code == 200, answer.text
    session = {"Mcp-Session-Id": answer.headers["mcp-session-id"], "Mcp-Protocol-Version": "2025-06-18"}
    client.post("/mcp", headers={**headers, **session}, json={"jsonrpc": "2.0", "method": "notifications/initialized"})
    return session


def content_of(answer: Any) -> Any:
    """Return the result of a message, from JSON or from events."""
    text = answer.text
    if answer.headers["content-type"].startswith("text/event-stream"):
        text = "".join(line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: {"))
    return json.loads(text)


def behind_cors(app: Starlette, *guards: Any) -> Any:
    """Guard a server behind middleware."""
    return guarded(CORSMiddleware(app), *guards)


def mounted_again(app: Starlette, *guards: Any) -> Any:
    """Guard an application on which a server is mounted."""
    return guarded(Starlette(routes=[Mount("/", app)], lifespan=lambda _: app.router.lifespan_context(app)), *guards)


@pytest.mark.parametrize("make", [guarded, guarded_mcp, behind_cors, mounted_again])
def test_a_session_belongs_to_its_owner(make: Any) -> None:
    """Another user's token on the id of a session is a 404, for every method; the owner's works, renewed too."""
    auth = auth_of()
    with client_of(make(server_of(), auth.requires("mcp:use")), auth) as client:
        owner = bearer(auth)
        session = session_of(client, owner)
        for other in ({"sub": "eve"}, {"client_id": "another"}):
            stolen = {**bearer(auth, **other), **session}
            assert client.post("/mcp", headers=stolen, json=call("read")).status_code == 404
            assert client.delete("/mcp", headers=stolen).status_code == 404
        assert client.post("/mcp", headers={**ACCEPT, **session}, json=call("read")).status_code == 401
        renewed = bearer(auth, scope="mcp:use more")
        result = content_of(client.post("/mcp", headers={**renewed, **session}, json=call("read")))
        # The text of the credential is not there for a log or a repr.
        assert result["result"]["content"][0]["text"] == f"ada of {ISSUER}, ''"


def test_the_way_from_the_first_401() -> None:
    """An anonymous caller finds the metadata, and a caller without the scope finds its name."""
    auth = auth_of()
    with client_of(guarded_mcp(server_of(), auth.requires("mcp:use")), auth) as client:
        for method in ("GET", "POST", "DELETE", "OPTIONS", "HEAD"):
            refused = client.request(method, "/mcp")
            assert refused.status_code == 401
            challenge = f'Bearer realm="api", scope="mcp:use", resource_metadata="{METADATA}"'
            assert refused.headers["www-authenticate"] == challenge
        refused = client.post("/mcp", headers=bearer(auth, scope="other"), json=INITIALIZE)
        assert refused.status_code == 403
        assert 'error="insufficient_scope", scope="mcp:use"' in refused.headers["www-authenticate"]
        assert f'resource_metadata="{METADATA}"' in refused.headers["www-authenticate"]
        assert client.get("/.well-known/oauth-protected-resource/mcp").json()["resource"] == RESOURCE


@pytest.mark.parametrize("json_response", [True, False])
def test_the_guard_of_a_tool(json_response: bool) -> None:
    """A call without its scope is a 403 that names all scopes; with it the tool is called, and others are as before."""
    auth = auth_of()
    tools = {"delete": auth.requires("items:delete")}
    mounted = guarded_mcp(server_of(json_response=json_response), auth.requires("mcp:use"), tools=tools)
    with client_of(mounted, auth) as client:
        reader, writer = bearer(auth), bearer(auth, scope="mcp:use items:delete")
        session = session_of(client, reader)
        refused = client.post("/mcp", headers={**reader, **session}, json=call("delete", name="x"))
        assert refused.status_code == 403
        assert 'error="insufficient_scope", scope="mcp:use items:delete"' in refused.headers["www-authenticate"]
        listed = content_of(client.post("/mcp", headers={**reader, **session}, json=message("tools/list")))
        assert [tool["name"] for tool in listed["result"]["tools"]] == ["read", "delete"]
        assert client.post("/mcp", headers={**reader, **session}, json=call("read")).status_code == 200
        result = content_of(client.post("/mcp", headers={**writer, **session}, json=call("delete", name="x")))
        assert result["result"]["content"][0]["text"] == "deleted x"


@pytest.mark.parametrize("json_response", [True, False])
def test_a_tool_that_is_hidden(json_response: bool) -> None:
    """It is not listed, and unknown when called; with the scope it is there."""
    auth = auth_of()
    tools = {"delete": auth.requires("items:delete")}
    mounted = guarded_mcp(server_of(json_response=json_response), auth.requires("mcp:use"), tools=tools, hide=True)
    with client_of(mounted, auth) as client:
        for scope, names in (("mcp:use", ["read"]), ("mcp:use items:delete", ["read", "delete"])):
            headers = bearer(auth, scope=scope)
            headers |= session_of(client, headers)
            listed = content_of(client.post("/mcp", headers=headers, json=message("tools/list")))
            assert [tool["name"] for tool in listed["result"]["tools"]] == names
            answer = content_of(client.post("/mcp", headers=headers, json=call("delete", name="x")))
            assert ("error" in answer) is (len(names) == 1)
        assert "delete" not in json.dumps(
            content_of(client.post("/mcp", headers={**headers, **bearer(auth)}, json=call("delete", name="x")))
        )


BODIES = [
    b'{"method":"ping","method":"tools/call","params":{"name":"delete"}}',
    b'{"method":"tools/call","params":{"name":"read","name":"delete"}}',
    b'{"method":"tools/call","params":{"name":"read"},"params":{"name":"delete"}}',
    b'[{"method":"tools/call","method":"ping","params":{"name":"delete"}}]',
    b"[1]",
    b'["a"]',
    b"[[]]",
    b'[] , "x": 1',
    b"1",
    b"",
    b"{",
    b"\xff",
    b'\xef\xbb\xbf{"method":"tools/call","params":{"name":"delete"}}',
    '{"method":"tools/call","params":{"name":"delete"}}'.encode("utf-16"),
]


@pytest.mark.parametrize("hide", [False, True])
def test_bodies(hide: bool) -> None:
    """A body that a server could read otherwise is refused; a batch is checked message by message."""
    auth, seen = auth_of(), []

    async def endpoint(request: Request) -> JSONResponse:
        seen.append(await request.body())
        return JSONResponse({})

    below = Starlette(routes=[Route("/mcp", endpoint, methods=["GET", "POST"])])
    tools = {"delete": auth.requires("items:delete")}
    mounted = guarded_mcp(below, auth.requires("mcp:use"), tools=tools, hide=hide)
    with client_of(mounted, auth) as client:
        headers = {**bearer(auth), "Content-Type": "application/json"}
        for body in BODIES[:7] + BODIES[8:]:
            assert client.post("/mcp", headers=headers, content=body).status_code == 400, body
        long = b'{"a":"' + b"x" * 5_000_000 + b'"}'
        assert client.post("/mcp", headers=headers, content=long).status_code == 413
        batch = json.dumps([message("ping"), call("delete", name="x")])
        refused = client.post("/mcp", headers=headers, content=batch)
        assert refused.status_code == (200 if hide else 403)
        assert "Unknown tool" in refused.text or not hide
        assert seen == []
        passing = ['{"method":"tools/call","params":[]}', '{"method":"tools/call","params":{"name":1}}', f"[{batch}]"]
        for text in [*passing[:2], "[]", '{"method":"ping","params":{"name":"delete"}}']:
            assert client.post("/mcp", headers=headers, content=text).status_code == 200
        assert len(seen) == 4
        pieces = iter([b'{"method":"tools/call",', b'"params":{"name":"delete"}}'])
        refused = client.post("/mcp", headers=headers, content=pieces)
        assert refused.status_code == (200 if hide else 403)
        assert len(seen) == 4
        assert client.get("/mcp", headers=headers).status_code == 200


def test_what_else_a_server_sends() -> None:
    """Events in pieces, other events, lists in a batch and other types pass; hidden tools are left out of all."""
    auth = auth_of()
    listed = {"jsonrpc": "2.0", "id": 1, "result": {"tools": [{"name": "delete"}, {"name": "read"}, 1]}}

    async def events(request: Request) -> StreamingResponse:
        async def pieces() -> Any:
            yield b": comment\n\nevent: message\nid: 7\nda"
            yield b"ta: " + json.dumps(listed).encode() + b"\r\n"
            yield b'\r\ndata: "tools" {\n\n'
            yield b"data: " + json.dumps([listed, {"result": {"tools": 1}}, {"result": 1}]).encode()

        return StreamingResponse(pieces(), media_type="text/event-stream")

    async def text(request: Request) -> PlainTextResponse:
        return PlainTextResponse('{"result":{"tools":[{"name":"delete"}]}}')

    async def parts(request: Request) -> StreamingResponse:
        content = json.dumps(listed).encode()
        return StreamingResponse(iter([content[:9], content[9:]]), media_type="application/json")

    below = Starlette(routes=[Route("/events", events), Route("/text", text), Route("/parts", parts)])
    tools = {"delete": auth.requires("items:delete")}
    mounted = guarded_mcp(below, auth.requires("mcp:use"), tools=tools, hide=True)
    with client_of(mounted, auth) as client:
        kept = json.dumps({**listed, "result": {"tools": [{"name": "read"}, 1]}}, separators=(",", ":"))
        streamed = client.get("/events", headers=bearer(auth)).text
        assert streamed.startswith(": comment\n\nevent: message\r\nid: 7\r\ndata: " + kept)
        assert 'data: "tools" {\n\n' in streamed
        assert streamed.endswith(f'data: [{kept},{{"result":{{"tools":1}}}},{{"result":1}}]')
        assert "delete" not in streamed
        assert client.get("/parts", headers=bearer(auth)).text == kept
        assert "delete" in client.get("/text", headers=bearer(auth)).text


def test_a_backend_that_is_unavailable() -> None:
    """If a guard cannot decide, the response is a 503, for a hidden tool too."""

    class Away(ScopesAuth):
        """An Auth without its backend."""

        async def verify(self, raw: str) -> dict[str, Any]:
            """Fail."""
            raise ServiceUnavailable

    auth, away = auth_of(), Away(APIKeyScheme("X-Key"), name="away")
    for hide in (False, True):
        tools = {"delete": away.requires("items:delete")}
        mounted = guarded_mcp(server_of(), auth.requires("mcp:use"), tools=tools, hide=hide)
        app = FastAPI(lifespan=mounted.lifespan)
        app.mount("/", mounted)
        with TestClient(app) as client:
            headers = {**bearer(auth), "X-Key": "k"}
            assert client.post("/mcp", headers=headers, json=call("delete")).status_code == 503


def test_a_server_that_authenticates_by_itself() -> None:
    """Its tools have guards, whose refusals are a response outside of any application too."""
    auth = auth_of()
    settings = AuthSettings(
        issuer_url=ISSUER,  # type: ignore[arg-type]
        resource_server_url=RESOURCE,  # type: ignore[arg-type]
        required_scopes=["mcp:use"],
        validate_token_resource=True,
    )
    server = MCPServer("items", token_verifier=token_verifier(auth), auth=settings)

    @server.tool()
    def delete(name: str) -> str:
        return f"deleted {name}"

    sdk = server.streamable_http_app(host="testserver", json_response=True)
    app = guarded_tools(sdk, {"delete": auth.requires("mcp:use", "items:delete")})
    with TestClient(app) as client:
        assert client.post("/mcp", headers=ACCEPT, json=INITIALIZE).status_code == 401
        reader, writer = bearer(auth), bearer(auth, scope="mcp:use items:delete")
        session = session_of(client, reader)
        refused = client.post("/mcp", headers={**reader, **session}, json=call("delete", name="x"))
        assert refused.status_code == 403
        assert 'scope="mcp:use items:delete"' in refused.headers["www-authenticate"]
        result = content_of(client.post("/mcp", headers={**writer, **session}, json=call("delete", name="x")))
        assert result["result"]["content"][0]["text"] == "deleted x"
        other = bearer(auth, sub="eve", scope="mcp:use items:delete")
        assert client.post("/mcp", headers={**other, **session}, json=call("delete", name="x")).status_code == 404


async def test_a_body_in_parts() -> None:
    """A message that comes in parts is read as a whole, and the server reads it again."""
    auth = auth_of()
    parts = [b'{"method":"tools/call",', b'"params":{"name":"delete"}}']
    read: list[bytes] = []

    async def below(scope: Any, receive: Any, send: Any) -> None:
        read.append((await receive())["body"])
        await PlainTextResponse("done")(scope, receive, send)

    app = guarded_tools(below, {"delete": auth.requires("items:delete")})
    for scope, status in (("items:read", 403), ("items:delete", 200)):
        pending = [{"type": "http.request", "body": part, "more_body": part is parts[0]} for part in parts]
        sent: list[Any] = []

        async def receive(pending: list[Any] = pending) -> Any:
            return pending.pop(0)

        async def send(message: Any, sent: list[Any] = sent) -> None:
            sent.append(message)

        headers = [(b"authorization", bearer(auth, scope=scope)["Authorization"].encode())]
        await app(scope_of("/mcp", headers, method="POST"), receive, send)
        assert sent[0]["status"] == status
    assert read == [b"".join(parts)]


def test_a_websocket() -> None:
    """Its messages are not read, so a server with guarded tools closes it, even where the server accepts WebSockets."""

    async def accepting(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.close(4000)

    auth = auth_of()
    server = server_of()
    server.router.routes.append(WebSocketRoute("/ws", accepting))
    for tools, code in ({"delete": auth.requires("items:delete")}, 1008), ({}, 4000):
        mounted = guarded_mcp(server, auth.requires("mcp:use"), tools=tools)
        assert handshake(mounted, "/ws").status == 401
        with (
            pytest.raises(WebSocketDisconnect) as closed,
            TestClient(mounted).websocket_connect("/ws", headers=bearer(auth)) as websocket,
        ):
            websocket.receive_text()
        assert closed.value.code == code


def test_a_caller_without_a_subject() -> None:
    """Its sessions would have no owner: 403."""
    auth = auth_of()
    presence = Auth(APIKeyScheme("X-Key"), name="presence")
    for guard in (auth.requires("mcp:use"), AnyAuth(auth, presence).authenticated()):
        mounted = guarded_mcp(server_of(), guard)
        app = FastAPI(lifespan=mounted.lifespan)
        app.mount("/", mounted)
        with TestClient(app) as client:
            anonymous = {"Authorization": f"Bearer {auth.encode({'scope': 'mcp:use'})}"}
            assert client.post("/mcp", headers=anonymous, json=INITIALIZE).status_code == 403
            answer = client.post("/mcp", headers={"X-Key": "k"}, json=INITIALIZE)
            assert answer.status_code == (403 if guard.dependency is not auth.dependency else 401)


def test_the_audit_and_the_lifespan() -> None:
    """The audit lists the mount with its guard, and a server whose lifespan is not run is an error at startup."""
    auth = auth_of()
    mounted = guarded_mcp(server_of(), auth.requires("mcp:use"), tools={"delete": auth.requires("items:delete")})
    app = FastAPI()
    app.mount("/", mounted)
    configure_app(app)
    [route] = [route for route in guarded_routes(app) if route.path == "/mcp"]
    assert (route.guard, route.scopes, route.findings) == ("jwt", ("mcp:use",), ())
    with pytest.raises(ConfigurationError, match="lifespan"):
        TestClient(app).__enter__()


def guard_tools(app: Any, auth: JWTAuth, *names: str) -> Any:
    """Guard tools of a server that authenticates its callers by itself."""
    return guarded_tools(app, {name: auth.requires("items:delete") for name in names})


def guard_server(app: Any, auth: JWTAuth, *names: str) -> Any:
    """Guard a server and tools of it."""
    return guarded_mcp(app, auth.requires("mcp:use"), tools={name: auth.requires("items:delete") for name in names})


@pytest.mark.parametrize("guard", [guard_server, guard_tools])
@pytest.mark.parametrize(
    "within",
    [lambda app: app, CORSMiddleware, lambda app: Starlette(routes=[Mount("/in", app)])],
    ids=["itself", "behind middleware", "mounted"],
)
def test_a_tool_that_is_not_there(guard: Any, within: Any) -> None:
    """A name that no tool of the server has is an error at startup, with the closest one that it has."""
    auth = auth_of()

    def started(app: Starlette, *names: str) -> None:
        outer = guard(within(app), auth, *names)
        with TestClient(Starlette(lifespan=lambda _: app.router.lifespan_context(app), routes=[Mount("/", outer)])):
            pass

    started(server_of(), "delete", "read")
    with pytest.raises(ConfigurationError) as error:
        started(server_of(), "delete", "raed")
    assert str(error.value) == (
        "tools: the MCP server has no tool 'raed' (did you mean 'read'?) to guard:"
        " register its tools before the application starts"
    )
    with pytest.raises(ConfigurationError, match=r"no tool 'delete' to guard"):
        started(MCPServer("empty").streamable_http_app(host="testserver"), "delete")


def test_a_tool_that_is_not_there_in_a_fastapi_application() -> None:
    """The application does not start by the lifespan of the mount."""
    auth = auth_of()
    with (
        pytest.raises(ConfigurationError, match="did you mean 'delete'"),
        client_of(guard_server(server_of(), auth, "Delete"), auth),
    ):
        pass


def test_tools_of_two_servers() -> None:
    """A name is one of any server below the mount; one of another transport is left out."""
    auth = auth_of()

    def servers() -> Starlette:
        more = MCPServer("more")
        more.add_tool(lambda: "shown", name="show")
        found = [server_of(), more.streamable_http_app(host="testserver"), MCPServer("events").sse_app()]
        return Starlette(routes=[Mount(f"/{number}", server) for number, server in enumerate(found)])

    with client_of(guard_server(servers(), auth, "delete", "show"), auth):
        pass
    with (
        pytest.raises(ConfigurationError, match="did you mean 'show'"),
        client_of(guard_server(servers(), auth, "shwo"), auth),
    ):
        pass


class Provided(MCPServer):
    """A server that lists a tool only for those who may see it, as FastMCP does."""

    def __init__(self, *providers: Any) -> None:
        """Have the tools of providers."""
        super().__init__("provided")
        self.providers = providers


class Unavailable:
    """A provider that cannot list its tools now."""

    async def list_tools(self) -> list[Any]:
        """Fail."""
        msg = "upstream"
        raise RuntimeError(msg)


def test_tools_that_a_server_does_not_list(caplog: pytest.LogCaptureFixture) -> None:
    """Tools of providers count; names are not checked where tools cannot be listed, or by the request alone."""
    auth, behind = auth_of(), MCPServer("behind")
    behind.add_tool(lambda: "shown", name="show")
    with client_of(guard_server(Provided(behind).streamable_http_app(host="testserver"), auth, "show"), auth):
        pass
    with (
        pytest.raises(ConfigurationError),
        client_of(guard_server(Provided(behind).streamable_http_app(host="testserver"), auth, "hide"), auth),
    ):
        pass
    assert caplog.text == ""
    with client_of(guard_server(Provided(Unavailable()).streamable_http_app(host="testserver"), auth, "show"), auth):
        pass
    assert "the tools of an MCP server cannot be listed: RuntimeError" in caplog.text

    async def list_tools(context: Any, params: Any) -> ListToolsResult:
        return ListToolsResult(tools=[])

    for options in ({}, {"on_list_tools": list_tools}):
        own = Server("own", **options).streamable_http_app(host="testserver")
        with client_of(guard_server(own, auth, "show"), auth):
            pass


async def test_a_token_verifier() -> None:
    """It returns client, issuer, subject, scopes, audience and claims, and None for what an Auth refuses."""
    auth = auth_of()
    verifier = token_verifier(auth)
    assert (verifier.required_scopes, verifier.scopes_supported) == ([], [])
    token = auth.encode({"sub": "ada", "scope": "b a", "client_id": "cli", "exp": 4_000_000_000})
    found = await verifier.verify_token(token)
    assert found is not None
    assert (found.client_id, found.subject, found.scopes, found.resource) == ("cli", "ada", ["a", "b"], RESOURCE)
    assert (found.token, found.expires_at, (found.claims or {})["iss"]) == (token, 4_000_000_000, ISSUER)
    for claims in ({"scope": "a"}, {"sub": "ada", "aud": "https://other.example"}, {"sub": "ada", "exp": 1}):
        assert await verifier.verify_token(auth.encode(claims)) is None
    assert await verifier.verify_token("a.b.c") is None

    class Odd(ScopesAuth):
        """An Auth with answers of its own."""

        answer: Any = None

        async def verify(self, raw: str) -> dict[str, Any]:
            """Return the answer."""
            if isinstance(self.answer, Exception):
                raise self.answer
            return self.answer  # type: ignore[no-any-return]

    odd = Odd()
    answers: list[tuple[Any, str | None]] = [
        *((False, None), (None, None)),
        *(({"sub": "x", "aud": ["one", "two"]}, "one"), ({"sub": "x"}, None)),
    ]
    for odd.answer, expected in answers:
        found = await token_verifier(odd).verify_token("x")
        assert (found.resource if found else None) == expected
    odd.answer = ServiceUnavailable()
    with pytest.raises(ServiceUnavailable):
        await token_verifier(odd).verify_token("x")
    with pytest.raises(ConfigurationError, match="takes an Auth with scopes"):
        token_verifier(Auth(BearerScheme()))  # type: ignore[arg-type]
