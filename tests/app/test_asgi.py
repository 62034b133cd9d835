"""guarded: nothing of a mounted application answers before its guards."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Body, Cookie, Depends, FastAPI, Request, Response, WebSocket
from fastapi.dependencies.models import Dependant
from fastapi.testclient import TestClient
from joserfc import jwk
from starlette.applications import Starlette
from starlette.background import BackgroundTasks
from starlette.endpoints import HTTPEndpoint
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Host, Mount, NoMatchFound, Route, Router, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.testclient import WebSocketDenialResponse
from starlette.websockets import WebSocketDisconnect

from fastapi_guard import AnyAuth, APIKeyScheme, ConfigurationError, JWTAuth, JWTConfig, ScopesAuth, configure_app
from fastapi_guard.app import GuardedRoute, assert_guarded, guarded, guarded_routes
from fastapi_guard.app.asgi import innermost, is_mcp_server
from fastapi_guard.app.guards import guards_in
from fastapi_guard.testing import acting_as
from support.asgi import Answer, handshake, request, scope_of

PLAIN = 'Bearer realm="api"'
MISSING = 'Bearer realm="api", error="insufficient_scope", scope="files:read"'
INVALID = 'Bearer realm="api", error="invalid_token", error_description="The access token is invalid"'


class Tokens(ScopesAuth):
    """An Auth whose tokens are scopes, and that counts its verifications."""

    verified = 0

    async def verify(self, raw: str) -> dict[str, Any]:
        """Accept everything but ``bad``."""
        self.verified += 1
        return False if raw == "bad" else {"sub": "ada", "scope": raw.replace("-", ":")}  # type: ignore[return-value]


class Counter:
    """An application that counts what it sees."""

    def __init__(self) -> None:
        """Begin at zero."""
        self.seen = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Count, and respond with the path."""
        self.seen += 1
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.close", "code": 1000})
        else:
            await PlainTextResponse(scope["path"])(scope, receive, send)


def token(text: str) -> list[tuple[bytes, bytes]]:
    """Return the header fields of a token."""
    return [(b"authorization", b"Bearer " + text.encode())]


def refusals(app: FastAPI, path: str) -> list[tuple[int, str, str | None]]:
    """Return the refusals of an anonymous caller, a bad token and one without the scope."""
    return [request(app, path, headers).refusal for headers in ([], token("bad"), token("other"))]


@pytest.mark.parametrize("configured", [False, True])
def test_a_mount_is_refused_as_a_route_is(configured: bool) -> None:
    """Status, body and challenge are those of a route, and what is below sees valid requests alone."""
    auth, below = Tokens(), Counter()
    app = FastAPI()
    app.get("/route", dependencies=[auth.requires("files:read")])(lambda: None)
    app.mount("/mount", guarded(below, auth.requires("files:read")))
    if configured:
        configure_app(app, unguarded="refuse")
    assert refusals(app, "/mount/a") == refusals(app, "/route")
    assert refusals(app, "/mount/a") == [
        (401, "Not authenticated", PLAIN),
        (401, "The access token is invalid", INVALID),
        (403, "Token is missing required scope: files:read", MISSING),
    ]
    types = {request(app, path).header("content-type") for path in ("/mount/a", "/route")}
    assert types == {"application/problem+json" if configured else "application/json"}
    assert handshake(app, "/mount/ws").status == 401
    assert below.seen == 0
    answer = request(app, "/mount/a", token("files-read"))
    assert (answer.status, answer.body, below.seen) == (200, b"/mount/a", 1)


PATHS = [
    *("/mount", "/mount/", "/mount/a", "/mount//a", "/mount/../a", "/mount/%2e%2e/a", "/mount/a%2Fb", "/mount/a/b/c"),
    *("//mount/a", "/mount;x=1", "/mount/a;b", "/mount/a?x=/mount", "/./mount/a", "/x/../mount/a", "/mount/\x00"),
    *("/mount/openapi.json", "/mount/docs", "/MOUNT/a", "/mount/\u00e9", "/mount/a.css", "/mount/.well-known/x"),
]
METHODS = ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "TRACE", "CONNECT", "PROPFIND", "get", "QUERY"]
UPGRADE = [(b"connection", b"upgrade"), (b"upgrade", b"websocket"), (b"sec-websocket-key", b"x")]
PREFLIGHT = [(b"origin", b"https://evil.example"), (b"access-control-request-method", b"GET")]


@pytest.mark.parametrize("method", METHODS)
def test_an_anonymous_caller_reaches_nothing(method: str) -> None:
    """No path, method or upgrade gets below the guard, whatever the mount is; with a token some do."""
    auth, below = Tokens(), Counter()
    mounted = guarded(below, auth.authenticated())
    outer, router, root = FastAPI(), APIRouter(), FastAPI()
    outer.mount("/mount", mounted)
    router.mount("/mount", mounted)
    included = FastAPI()
    included.include_router(router)
    root.mount("/", mounted)
    for app in (outer, included, root, Starlette(routes=[Mount("/mount", mounted)])):
        for path in PATHS:
            for headers in ([], UPGRADE, PREFLIGHT):
                answer = request(app, path, headers, method=method)
                assert answer.status in (401, 404, 405, 307), (path, answer)
        assert below.seen == 0
    assert request(root, "/x", method=method).status == 401
    assert request(root, "/mount//a", token("x"), method=method).status == 200


@pytest.mark.parametrize("path", PATHS)
def test_an_anonymous_websocket_reaches_nothing(path: str) -> None:
    """The handshake is denied with a 401, or does not find the mount; with a token it is accepted."""
    auth, below = Tokens(), Counter()
    app, root = FastAPI(), FastAPI()
    app.mount("/mount", guarded(below, auth.authenticated()))
    root.mount("/", guarded(below, auth.authenticated()))
    with pytest.raises((WebSocketDenialResponse, WebSocketDisconnect)):
        TestClient(app).websocket_connect("/mount/x").__enter__()
    assert handshake(root, path).status == 401
    assert below.seen == 0
    assert handshake(root, path, token("x")).status == 101
    assert below.seen == 1


def test_static_files(tmp_path: Path) -> None:
    """Files are served to a caller with the scope, ranges and conditional requests as before."""
    (tmp_path / "a.txt").write_text("a file")
    auth = Tokens()
    app = FastAPI()
    app.mount("/files", guarded(StaticFiles(directory=tmp_path), auth.requires("files:read")))
    configure_app(app, unguarded="refuse")
    assert_guarded(app)
    with TestClient(app) as client:
        for path in ("/files/a.txt", "/files/missing", "/files/", "/files"):
            assert client.get(path).status_code == 401
        headers = {"Authorization": "Bearer files-read"}
        answer = client.get("/files/a.txt", headers=headers)
        assert (answer.status_code, answer.text) == (200, "a file")
        assert client.get("/files/missing", headers=headers).status_code == 404
        assert client.get("/files/a.txt", headers={**headers, "Range": "bytes=0-0"}).text == "a"
        assert (
            client.get("/files/a.txt", headers={**headers, "If-None-Match": answer.headers["etag"]}).status_code == 304
        )


def test_a_sub_application() -> None:
    """Its routes, guards, documentation and WebSockets are behind the guard, and nothing is verified twice."""
    auth = Tokens()
    inner = FastAPI(dependencies=[auth.authenticated()])

    @inner.get("/me")
    async def me(request: Request, claims: Annotated[Any, auth.requires("a")]) -> list[Any]:
        return [claims["sub"], request.state.claims["sub"], request.state.auth_method]

    inner.add_api_route("/strict", me, dependencies=[auth.requires("b")])
    app = FastAPI()
    app.mount("/inner", guarded(inner, auth.authenticated()))
    configure_app(app, unguarded="refuse")
    with TestClient(app) as client:
        for path in ("/inner/me", "/inner/docs", "/inner/openapi.json", "/inner/missing"):
            assert client.get(path).status_code == 401
        before = auth.verified
        answer = client.get("/inner/me", headers={"Authorization": "Bearer a"})
        assert (answer.json(), auth.verified - before) == (["ada", "ada", "auth"], 1)
        assert client.get("/inner/strict", headers={"Authorization": "Bearer a"}).status_code == 403
        document = client.get("/inner/openapi.json", headers={"Authorization": "Bearer a"}).json()
    assert document["paths"]["/me"]["get"]["security"] == [{"Bearer": ["a"]}]
    assert_guarded(app)


def test_the_document_of_a_sub_application() -> None:
    """An application that is configured itself documents the guard of its mount on every operation."""
    auth, inner = Tokens(), FastAPI()
    inner.get("/a")(lambda: None)
    configure_app(inner)
    app = FastAPI()
    app.mount("/inner", guarded(inner, auth.requires("files:read")))
    operation = inner.openapi()["paths"]["/a"]["get"]
    assert operation["security"] == [{"Bearer": ["files:read"]}]
    assert {"401", "403", "503"} < set(operation["responses"])
    assert {route.guard for route in guarded_routes(inner)} == {"auth"}


def test_several_guards_and_an_any_auth() -> None:
    """All have to pass, and each member of an AnyAuth has its challenge."""
    jwt = JWTAuth(JWTConfig(key=jwk.OctKey.generate_key(256)))
    keys = Tokens(APIKeyScheme("X-Key"), name="keys")
    below = Counter()
    app = FastAPI()
    app.mount("/any", guarded(below, AnyAuth(jwt, keys).requires("a")))
    app.mount("/all", guarded(below, keys.authenticated(), jwt.requires("a")))
    assert request(app, "/any/x").header("www-authenticate") == 'Bearer realm="api", ApiKey realm="api"'
    key = (b"x-key", b"a")
    bearer = (b"authorization", b"Bearer " + jwt.encode({"sub": "ada", "scope": "a"}).encode())
    assert [request(app, "/any/x", [field]).status for field in (key, bearer)] == [200, 200]
    assert [request(app, "/all/x", fields).status for fields in ([key], [bearer], [key, bearer])] == [401, 401, 200]


def test_users_policies_and_owners() -> None:
    """Guards that FastAPI resolves run as on a route, with dependencies of their own that are closed afterwards."""
    auth, below = Tokens(), Counter()
    closed: list[str] = []

    async def database() -> AsyncIterator[str]:
        yield "open"
        closed.append(f"after {below.seen}")

    async def load(claims: dict[str, Any], db: Annotated[str, Depends(database)], q: int = 1) -> str | None:
        return f"{claims['sub']} {db}" if q else None

    def policy(claims: dict[str, Any], response: Response, tasks: BackgroundTasks, host: str = "") -> bool:
        response.headers["X-Policy"] = "seen"
        return host != "evil"

    app = FastAPI()
    app.mount("/user", guarded(below, auth.user(load, "a")))
    app.mount("/policy", guarded(below, auth.allows(policy)))
    app.mount("/t/{tenant}", guarded(below, auth.requires_tenant()))
    assert request(app, "/user/x").status == 401
    assert request(app, "/user/x", token("b")).status == 403
    assert closed == ["after 0", "after 0"][: len(closed)]
    closed.clear()
    assert request(app, "/user/x", token("a")).status == 200
    assert closed == ["after 1"]
    assert request(app, "/user/x?q=0", token("a")).status == 401
    assert request(app, "/user/x?q=text", token("a")).status == 422
    answer = request(app, "/policy/x", token("a"))
    assert (answer.status, answer.header("x-policy")) == (200, "seen")
    assert request(app, "/policy/x?host=evil", token("a")).status == 403
    assert request(app, "/t/one/x", token("a")).status == 403
    assert below.seen == 2


def test_the_guards_of_a_mount_in_a_report() -> None:
    """Each guard is a part of its own, in the order in which they run, as explain and the lockfile show them."""
    auth = Tokens()
    mounted = guarded(Counter(), auth.requires("a"), auth.requires_role("editor"))
    uses = [guards_in(Dependant(dependencies=[part])) for part in mounted.parts]
    assert [[(use.scopes, use.rule) for use in part] for part in uses] == [[(("a",), None)], [((), "role editor")]]


async def bare(scope: Any, receive: Any, send: Any) -> None:
    """Respond without header fields."""
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"bare"})


def test_header_fields_of_a_guard() -> None:
    """They are added to those of the application; a guard may ask whether the client left."""

    async def policy(claims: dict[str, Any], request: Request, response: Response) -> bool:
        response.headers["X-Policy"] = str(await request.is_disconnected())
        return True

    for below, own in ((PlainTextResponse("text"), "text/plain; charset=utf-8"), (bare, None)):
        app = FastAPI()
        app.mount("/a", guarded(below, Tokens().allows(policy)))
        answer = request(app, "/a/x", token("a"))
        assert (answer.header("x-policy"), answer.header("content-type")) == ("False", own)


def test_the_application_behind_several_guards() -> None:
    """The innermost application is found, and an endpoint that is one of an MCP server."""
    auth, below = Tokens(), FastAPI()
    assert innermost(guarded(guarded(below, auth.requires("a")), auth.authenticated())) is below

    async def session(_: Request) -> Response:
        return Response()

    assert not is_mcp_server(Starlette(routes=[Route("/mcp", session)]))
    session.__module__ = "mcp.server.sse"
    assert is_mcp_server(Starlette(routes=[Route("/mcp", session)]))


def test_a_scheme_that_fastapi_resolves() -> None:
    """A callable of the application as a scheme works for a mount."""

    def cookie(session: Annotated[str | None, Cookie()] = None) -> str | None:
        return session

    auth, below = Tokens(cookie), Counter()
    app = FastAPI()
    app.mount("/a", guarded(below, auth.requires("a")))
    assert request(app, "/a/x").status == 401
    assert request(app, "/a/x", [(b"cookie", b"session=a")]).status == 200
    assert handshake(app, "/a/x", [(b"cookie", b"session=a"), (b"origin", b"https://evil.example")]).status == 403


def test_a_websocket_with_a_parameter_that_is_not_valid() -> None:
    """It is refused as FastAPI refuses it on a route."""
    auth, below = Tokens(), Counter()

    def policy(claims: dict[str, Any], number: int) -> bool:
        return True  # pragma: no cover - no request gets here

    app = FastAPI()
    app.mount("/a", guarded(below, auth.allows(policy)))
    headers = {"Authorization": "Bearer a"}
    with (
        pytest.raises(WebSocketDisconnect) as refused,
        TestClient(app).websocket_connect("/a/x?number=text", headers=headers),
    ):
        pass  # pragma: no cover - it does not open
    assert (refused.value.code, below.seen) == (1008, 0)
    answer = request(app, "/a/x", token("a"))
    assert answer.status == 422
    assert [error["loc"] for error in json.loads(answer.body)["detail"]] == [["query", "number"]]


async def test_the_body_is_not_read_and_a_response_is_streamed() -> None:
    """The application below gets the very receive and send of the server, and an anonymous body is not read."""
    auth = Tokens()
    passed: list[Any] = []

    async def below(scope: Any, receive: Any, send: Any) -> None:
        passed.extend((receive, send))
        await receive()
        for number in range(3):
            message = {"type": "http.response.body", "body": b"x", "more_body": number < 2}
            await send({"type": "http.response.start", "status": 200} if not number else message)

    async def receive() -> Any:
        passed.append("read")
        return {"type": "http.request", "body": b"large"}

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    mounted = guarded(below, auth.requires("a"))
    scope = {**scope_of("/a", token("a")), "app": FastAPI()}
    await mounted(scope, receive, send)
    assert passed == [receive, send, "read"]
    passed.clear()
    await guarded(below, auth.requires("a"))(scope_of("/a", []), receive, send)
    assert passed == []
    assert sent[-2]["status"] == 401


def test_outside_of_an_application() -> None:
    """A guarded application may be the outermost: it answers refusals itself."""
    auth, below = Tokens(), Counter()
    app = guarded(below, auth.requires("files:read"))
    answer: Answer = request(app, "/a")
    assert (answer.status, answer.header("www-authenticate")) == (401, PLAIN)
    assert request(app, "/a", token("files-read")).status == 200
    with TestClient(guarded(Starlette(), auth.authenticated())) as client:
        assert client.get("/").status_code == 401


def test_a_caller_that_a_test_puts_there() -> None:
    """acting_as and overrides of the outer application count for its mounts."""
    auth, below = Tokens(), Counter()
    app = FastAPI()
    app.mount("/a", guarded(below, auth.requires("a")))
    with acting_as(app, auth, {"sub": "test", "scope": "a"}):
        assert request(app, "/a/x").status == 200
    with acting_as(app, auth, {"sub": "test", "scope": "b"}):
        assert request(app, "/a/x").status == 403
    assert request(app, "/a/x").status == 401


def test_guarded_pages_of_starlette() -> None:
    """A guarded application may be a page or a WebSocket too, and is listed as guarded."""
    auth, below = Tokens(), Counter()
    app = FastAPI()
    app.router.routes.append(Route("/page", guarded(below, auth.requires("a"))))
    app.router.routes.append(WebSocketRoute("/ws", guarded(below, auth.authenticated())))
    app.mount("/cors", CORSMiddleware(guarded(below, auth.authenticated())))
    app.mount("/twice", guarded(guarded(below, auth.requires("a")), auth.requires("b")))
    app.mount("/optional", guarded(below, auth.optional()))
    configure_app(app, unguarded="refuse", public=["/optional/*"])
    with TestClient(app) as client:
        assert client.get("/page").status_code == client.get("/cors/x").status_code == 401
        assert client.get("/optional/x").status_code == 200
        assert client.get("/twice/x", headers={"Authorization": "Bearer a"}).status_code == 403
    listed = {(route.method, route.path): (route.guard, route.scopes) for route in guarded_routes(app)}
    assert listed == {
        ("ANY", "/page"): ("auth", ("a",)),
        ("WEBSOCKET", "/ws"): ("auth", ()),
        ("MOUNT", "/cors"): ("auth", ()),
        ("MOUNT", "/twice"): ("auth", ("b", "a")),
        ("MOUNT", "/optional"): ("auth (optional)", ()),
    }


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    """Be an application."""


class OfTwoSteps:
    """An application of ASGI 2, which is called twice."""

    def __init__(self, scope: Any, receive: Any, send: Any) -> None:
        """Be called."""


def reads_body(
    claims: dict[str, Any], item: Annotated[dict[str, Any], Body()], other: Annotated[dict[str, Any], Body()]
) -> bool:
    """Read the body."""
    return True  # pragma: no cover - it is refused


MISTAKES: dict[str, Callable[[Tokens], Any]] = {
    "takes guards": lambda auth: guarded(nothing),
    "not Tokens": lambda auth: guarded(nothing, auth),
    "not method": lambda auth: guarded(nothing, auth.requires),
    "not FlatGuard": lambda auth: guarded(nothing, auth.dependency),
    "takes guards: write guarded": lambda auth: guarded(nothing, Depends(lambda: None)),
    "not a callable": lambda auth: guarded(nothing, Depends(auth.requires("a"))),
    "the application first and each guard called": lambda auth: guarded(auth.requires("a"), FastAPI()),  # type: ignore[arg-type]
    "takes an ASGI application.*, not text of 6 characters$": lambda auth: guarded("static", auth.authenticated()),
    "not the class OfTwoSteps$": lambda auth: guarded(OfTwoSteps, auth.authenticated()),  # type: ignore[arg-type]
    "reads no body, .*: item, other$": lambda auth: guarded(nothing, auth.allows(reads_body)),
}


@pytest.mark.parametrize("message", MISTAKES)
def test_mistakes(message: str) -> None:
    """They raise a ConfigurationError with the remedy when the application is constructed."""
    with pytest.raises(ConfigurationError, match=message):
        MISTAKES[message](Tokens())
    with pytest.raises(ConfigurationError):
        configure_app(FastAPI(), docs=Tokens())  # type: ignore[arg-type]


def test_an_endpoint_that_is_a_class() -> None:
    """A class whose instances are awaited is an application."""

    class Page(HTTPEndpoint):
        async def get(self, request: Request) -> PlainTextResponse:
            return PlainTextResponse("page")

    app = guarded(Page, Tokens().authenticated())
    assert request(app, headers=token("a")).body == b"page"
    assert request(app).status == 401


def application(ran: list[str]) -> FastAPI:
    """Return an application with a lifespan that has a state."""

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[dict[str, str]]:
        ran.append("start")
        yield {"greeting": "hello"}
        ran.append("stop")

    app = FastAPI(lifespan=lifespan)
    app.get("/a")(lambda request: request.state.greeting)
    app.router.routes.clear()

    @app.get("/a")
    async def greet(request: Request) -> str:
        return f"{request.state.greeting} {request.state.claims['sub']}"

    return app


def test_the_lifespan_of_a_mount() -> None:
    """The outer application runs it, with its state; where it does not, it does not start."""
    auth = Tokens()
    ran: list[str] = []
    mounted = guarded(application(ran), auth.requires("a"))
    app = FastAPI(lifespan=mounted.lifespan)
    app.mount("/inner", mounted)
    configure_app(app)
    with TestClient(app) as client:
        assert client.get("/inner/a", headers={"Authorization": "Bearer a"}).json() == "hello ada"
        assert mounted.lifespans.missed() == []
    assert ran == ["start", "stop"]
    missed = FastAPI()
    missed.mount("/inner", guarded(application(ran), auth.requires("a")))
    missed.mount("/plain", guarded(FastAPI(), auth.authenticated()))
    configure_app(missed)
    with pytest.raises(ConfigurationError, match="the lifespan of what is mounted at /inner is not run"):
        TestClient(missed).__enter__()


async def test_a_server_without_a_state() -> None:
    """The state of the lifespan of a mount is there behind a server that has no state of a lifespan."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, str]]:
        yield {"pool": "of the mount"}

    inner = FastAPI(lifespan=lifespan)
    inner.router.add_route("/a", lambda request: PlainTextResponse(request.state.pool))
    mounted = guarded(inner, Tokens().optional())
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request"}

    async with mounted.lifespan():
        scope = scope_of("/a", [])
        del scope["state"]
        await mounted(scope, receive, send)
    assert [message.get("status") or message["body"] for message in sent] == [200, b"of the mount"]


BETWEEN: dict[str, Callable[[Any, Tokens], Any]] = {
    "nothing": lambda app, auth: guarded(app, auth.authenticated()),
    "middleware": lambda app, auth: guarded(CORSMiddleware(app), auth.authenticated()),
    "two middlewares": lambda app, auth: guarded(GZipMiddleware(CORSMiddleware(app)), auth.authenticated()),
    "another guard": lambda app, auth: guarded(guarded(app, auth.authenticated()), auth.requires("a")),
    "both": lambda app, auth: guarded(CORSMiddleware(guarded(app, auth.authenticated())), auth.requires("a")),
}


@pytest.mark.parametrize("between", BETWEEN)
def test_a_lifespan_behind_something(between: str) -> None:
    """Middleware and a second guard hide neither the lifespan of the application nor the guard."""
    ran: list[str] = []
    inner = application(ran)
    mounted = BETWEEN[between](inner, Tokens())
    app, missed = FastAPI(lifespan=mounted.lifespan), FastAPI()
    for outer in (app, missed):
        outer.mount("/inner", mounted)
        configure_app(outer)
    with pytest.raises(ConfigurationError, match="mounted at /inner is not run"):
        TestClient(missed).__enter__()
    assert ran == []
    with TestClient(app) as client:
        assert client.get("/inner/a", headers={"Authorization": "Bearer a"}).json() == "hello ada"
    assert (ran, mounted.lifespans.missed()) == (["start", "stop"], [""])
    assert {route.guard for route in guarded_routes(inner)} == {"auth"}


def nested(ran: list[str], name: str, below: object = None, lifespan: Any = None) -> FastAPI:
    """Return an application that notes its start and its end, with something mounted below it."""

    @asynccontextmanager
    async def noted(_: FastAPI) -> AsyncIterator[dict[str, str]]:
        ran.append(f"start {name}")
        async with AsyncExitStack() as stack:
            if lifespan is not None:
                await stack.enter_async_context(lifespan)
            yield {name: name}
        ran.append(f"stop {name}")

    app = FastAPI(lifespan=noted)

    @app.get("/state")
    async def state(request: Request) -> dict[str, Any]:
        return {key: value for key, value in request.scope["state"].items() if isinstance(value, str)}

    if below is not None:
        app.mount("/below", below)  # type: ignore[arg-type]
    return app


NESTED: dict[str, Callable[[FastAPI, Tokens], Any]] = {
    "plain": lambda app, _: app,
    "guarded": lambda app, auth: guarded(app, auth.authenticated()),
    "middleware": lambda app, _: GZipMiddleware(CORSMiddleware(app)),
    "router": lambda app, _: Router(routes=[Mount("/", app=app)]),
    "host": lambda app, _: Router(routes=[Host("api.example", app=app)]),
    "configured": lambda app, _: configured(app),
}


def configured(app: FastAPI) -> FastAPI:
    """Return an application after it was configured."""
    configure_app(app)
    return app


@pytest.mark.parametrize("is_configured", [False, True])
@pytest.mark.parametrize("kind", NESTED)
def test_the_lifespans_below_a_guarded_mount(kind: str, is_configured: bool) -> None:
    """Those of what is mounted below it, at any depth, are offered with its own, run once, and missed at startup."""
    auth, ran = Tokens(), list[str]()
    deepest = nested(ran, "deepest")
    inner = nested(ran, "inner", NESTED[kind](deepest, auth))
    outer = nested(ran, "outer", NESTED[kind](inner, auth))
    outer.mount("/again", inner)
    if is_configured:
        configure_app(outer)
    mounted = guarded(outer, auth.authenticated())
    app, missed = FastAPI(lifespan=mounted.lifespan), FastAPI(lifespan=lambda _: outer.router.lifespan_context(outer))
    for top in (app, missed):
        top.mount("/outer", mounted)
        configure_app(top)
    fields = {"Authorization": "Bearer a", "Host": "api.example"}
    for _ in range(2):
        with TestClient(app) as client:
            found = client.get("/outer/below/below/state", headers=fields).json()
        assert {found.get(name) for name in ("deepest", "inner", "outer")} == {"deepest", "inner", "outer"}
        names = ["outer", "inner", "deepest"]
        assert ran == [*(f"start {name}" for name in names), *(f"stop {name}" for name in reversed(names))]
        assert mounted.lifespans.missed() == ["", "/below", "/below/below"]
        ran.clear()
    where = "mounted at (/outer)?/below, (/outer)?/below/below.* is not run"
    with pytest.raises(ConfigurationError, match=where):
        TestClient(missed).__enter__()


def test_lifespans_that_an_application_runs_itself() -> None:
    """The lifespan of a mount that the one above it runs is not run again."""
    auth, ran = Tokens(), list[str]()
    inner = guarded(nested(ran, "inner"), auth.authenticated())
    plain = nested(ran, "plain")
    outer = nested(ran, "outer", inner, inner.lifespan())
    outer.mount("/plain", plain)
    mounted = guarded(outer, auth.authenticated())

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[Any]:
        async with plain.router.lifespan_context(plain), mounted.lifespan() as state:
            yield state

    app = FastAPI(lifespan=lifespan)
    app.mount("/outer", mounted)
    configure_app(app)
    with TestClient(app) as client:
        found = client.get("/outer/below/state", headers={"Authorization": "Bearer a"}).json()
    assert found == {"auth_method": "auth", "inner": "inner", "outer": "outer"}
    names = ["plain", "outer", "inner"]
    assert ran == [*(f"start {name}" for name in names), *(f"stop {name}" for name in reversed(names))]


def test_routers_and_a_configuration_are_no_lifespan() -> None:
    """FastAPI merges the lifespans of routers that have none; that of one router that has one counts."""
    auth = Tokens()
    inner, router = FastAPI(), APIRouter()
    router.include_router(APIRouter())
    inner.include_router(router)
    configure_app(inner)
    app = FastAPI()
    app.mount("/inner", guarded(inner, auth.authenticated()))
    configure_app(app)
    with TestClient(app) as client:
        assert client.get("/inner/docs").status_code == 401
    ran: list[str] = []
    for late in (application(ran).router, APIRouter(on_startup=[lambda: None])):
        other = FastAPI()
        other.include_router(APIRouter())
        other.include_router(late)
        configure_app(other)
        assert guarded(other, auth.authenticated()).lifespans.missed() == [""]


async def test_an_application_without_a_lifespan() -> None:
    """Its lifespan does nothing."""
    mounted = guarded(nothing, Tokens().authenticated())
    assert mounted.lifespans.missed() == []
    async with mounted.lifespan() as state:
        assert state is None


def test_handlers_of_start_and_stop() -> None:
    """They are a lifespan too."""
    inner = FastAPI()
    assert guarded(inner, Tokens().authenticated()).lifespans.missed() == []
    inner.router.on_startup.append(lambda: None)
    assert guarded(inner, Tokens().authenticated()).lifespans.missed() == [""]


def test_the_document_of_an_application_with_several_mounts() -> None:
    """It names the guards of each of them."""
    auth, keys, below = Tokens(), Tokens(APIKeyScheme("X-Key")), FastAPI()
    below.get("/items")(lambda: None)
    configure_app(below)
    app = FastAPI()
    app.mount("/a", guarded(below, auth.requires("a")))
    app.mount("/b", guarded(below, keys.authenticated()))
    assert set(below.openapi()["components"]["securitySchemes"]) == {auth.scheme.scheme_name, keys.scheme.scheme_name}


def test_guarded_documentation() -> None:
    """Pages and document are guarded, by whatever paths; those of mounted applications too, and routes are not."""
    auth = Tokens()
    app = FastAPI(docs_url="/help", openapi_url="/o.json")
    app.get("/a", dependencies=[auth.requires("a")])(lambda: None)
    inner, deep = FastAPI(dependencies=[auth.authenticated()]), FastAPI()
    app.mount("/inner", CORSMiddleware(inner))
    inner.mount("/deep", deep)
    app.get("/docs")(lambda: "mine")
    configure_app(app, unguarded="refuse", public=["/docs"], docs=auth.requires("docs:read"))
    pages = ["/help", "/redoc", "/o.json", "/docs/oauth2-redirect"]
    inners = [f"/inner{at}/{page}" for at in ("", "/deep") for page in ("docs", "redoc", "openapi.json")]
    with TestClient(app) as client:
        for page in [*pages, *inners]:
            assert client.get(page).status_code == 401, page
            assert client.get(page, headers={"Authorization": "Bearer a"}).status_code == 403
            assert client.get(page, headers={"Authorization": "Bearer docs-read"}).status_code == 200
        assert client.get("/o.json").headers["content-type"] == "application/problem+json"
        assert client.get("/docs").json() == "mine"
        late = FastAPI()
        app.mount("/late", late)
        assert client.get("/late/docs").status_code == 401
    assert {route.path for route in guarded_routes(app) if route.scopes == ("docs:read",)} > {*pages, *inners}


def test_guarded_documentation_in_an_audit() -> None:
    """An audit sees it without a start."""
    auth = Tokens()
    app = FastAPI()
    app.mount("/inner", guarded(FastAPI(), auth.authenticated()))
    configure_app(app, docs=[auth.requires("docs:read")])
    assert_guarded(app)
    assert request(app, "/docs").status == 401


def test_a_guarded_route_inside() -> None:
    """A GuardedRoute below a guarded mount verifies nothing again."""
    auth = Tokens()
    inner = FastAPI()
    router = APIRouter(route_class=GuardedRoute)

    @router.websocket("/ws")
    async def talk(websocket: WebSocket, claims: Annotated[Any, auth.requires("a")]) -> None:
        await websocket.accept()
        await websocket.send_json(claims["sub"])
        await websocket.close()

    inner.include_router(router)
    app = FastAPI()
    app.mount("/inner", guarded(inner, auth.authenticated()))
    headers = {"Authorization": "Bearer a"}
    with TestClient(app).websocket_connect("/inner/ws", headers=headers) as websocket:
        assert websocket.receive_json() == "ada"
    assert auth.verified == 1


def test_names_of_routes_below() -> None:
    """``url_for`` finds the routes of a guarded application by their names, and none where it has none."""
    auth = Tokens()
    below = Starlette(routes=[Route("/list/{page}", PlainTextResponse("page"), name="list")])
    app = FastAPI()
    app.mount("/admin", guarded(below, auth.authenticated()), name="admin")
    app.mount("/other", guarded(Counter(), auth.authenticated()), name="other")
    assert app.url_path_for("admin:list", page="1") == "/admin/list/1"
    with pytest.raises(NoMatchFound):
        app.url_path_for("other:list", page="1")
