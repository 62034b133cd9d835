"""configure_app: bodies of RFC 9457, an OpenAPI document that matches the guards, unguarded routes refused."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import pytest
import starlette.exceptions
from fastapi import APIRouter, FastAPI, HTTPException, Request, WebSocket
from fastapi.responses import JSONResponse, PlainTextResponse
from fastapi.testclient import TestClient
from joserfc import jwk
from starlette.routing import Route, Router
from starlette.staticfiles import StaticFiles
from starlette.testclient import WebSocketDenialResponse

from fastapi_guard import (
    APIKeyScheme,
    Auth,
    AuthError,
    ConfigurationError,
    Forbidden,
    JWTAuth,
    JWTConfig,
    ScopesAuth,
    ServiceUnavailable,
    TooManyRequests,
    Unauthorized,
    configure_app,
)
from support.asgi import handshake, request

PLAIN = 'Bearer realm="api"'
PATHS = 'public has paths as written at the route, and prefixes that end in /*, such as "/admin/*", not '


class Tokens(ScopesAuth):
    """An Auth with one good credential, which may do ``a``."""

    async def verify(self, raw: str) -> dict[str, Any]:
        """Accept ``good``."""
        if raw != "good":
            raise Unauthorized("The access token has expired", error="invalid_token", reason="expired")
        return {"sub": "ada", "scope": "a"}


GOOD = [(b"authorization", b"Bearer good")]
auth = Tokens()


def endpoint() -> None:
    """Answer nothing."""


def problem(status: int, title: str, detail: str) -> dict[str, object]:
    """Return the body of a refusal."""
    return {"type": "about:blank", "title": title, "status": status, "detail": detail}


# --- bodies ---


@pytest.mark.parametrize(
    ("path", "headers", "status", "title", "detail", "challenge"),
    [
        ("/a", [], 401, "Unauthorized", "Not authenticated", PLAIN),
        (
            "/a",
            [(b"authorization", b"Bearer old")],
            401,
            "Unauthorized",
            "The access token has expired",
            f'{PLAIN}, error="invalid_token", error_description="The access token has expired"',
        ),
        (
            "/b",
            GOOD,
            403,
            "Forbidden",
            "Token is missing required scope: b",
            f'{PLAIN}, error="insufficient_scope", scope="b"',
        ),
        ("/own", GOOD, 403, "Forbidden", "Not yours", None),
        ("/login", [], 401, "Unauthorized", "Incorrect username or password", PLAIN),
        ("/busy", [], 429, "Too Many Requests", "Too many requests", None),
        ("/away", [], 503, "Service Unavailable", "Service temporarily unavailable", None),
    ],
)
def test_a_refusal_is_a_problem(
    path: str, headers: list[tuple[bytes, bytes]], status: int, title: str, detail: str, challenge: str | None
) -> None:
    """Each refusal has the four members of RFC 9457, its media type, and its headers."""
    app = FastAPI()
    app.get("/a", dependencies=[auth.requires("a")])(endpoint)
    app.get("/b", dependencies=[auth.requires("b")])(endpoint)
    raised = {
        "/own": Forbidden("Not yours"),
        "/login": Unauthorized("Incorrect username or password"),
        "/busy": TooManyRequests(retry_after=9),
        "/away": ServiceUnavailable(retry_after=9),
    }

    @app.get("/{name}")
    async def failing(name: str) -> None:
        raise raised[f"/{name}"]

    configure_app(app)
    answer = request(app, path, headers)
    assert answer.json == problem(status, title, detail)
    assert answer.refusal == (status, detail, challenge)
    assert answer.header("content-type") == "application/problem+json"
    assert answer.header("retry-after") == ("9" if status in {429, 503} else None)
    assert request(app, "/a", GOOD).status == 200


@pytest.mark.parametrize(
    ("detail", "text"),
    [
        ({"code": 1}, "Forbidden"),
        (["code"], "Forbidden"),
        (5, "Forbidden"),
        (False, "Forbidden"),
        ("", ""),
        ("Größe \u2028 \U0001f600", "Größe \u2028 \U0001f600"),
        ("half \ud800", "half \ud800"),
    ],
)
def test_a_detail_of_any_kind(detail: Any, text: str) -> None:
    """A problem's detail is text: the application's own, else the title; no value of it makes a 500."""
    app = FastAPI()

    @app.get("/")
    async def failing() -> None:
        raise Forbidden(detail)

    configure_app(app)
    answer = request(app)
    assert (answer.status, answer.json) == (403, problem(403, "Forbidden", text))
    assert answer.body.isascii()


def test_other_errors_are_left_alone() -> None:
    """An HTTPException of the application's own, and a validation error, are the same as without configure_app."""
    app = FastAPI()

    @app.get("/{number}")
    async def failing(number: int) -> None:
        raise HTTPException(404, "No such number")

    configure_app(app)
    assert (request(app, "/1").status, request(app, "/1").json) == (404, {"detail": "No such number"})
    assert request(app, "/x").status == 422


@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
def test_own_handlers_keep_precedence(first: bool) -> None:
    """A handler for Unauthorized or Forbidden answers instead, registered before or after; others stay problems."""
    app = FastAPI()
    if not first:
        configure_app(app)

    @app.exception_handler(Unauthorized)
    async def unauthorized(_: Request, error: Unauthorized) -> JSONResponse:
        return JSONResponse({"detail": error.detail, "login": "/login"}, 401, error.headers)

    @app.exception_handler(Forbidden)
    def forbidden(_: Request, error: Forbidden) -> PlainTextResponse:
        return PlainTextResponse("no", 403)

    if first:
        configure_app(app)
    app.get("/a", dependencies=[auth.requires("a")])(endpoint)
    app.get("/b", dependencies=[auth.requires("b")])(endpoint)

    @app.get("/away")
    async def away() -> None:
        raise ServiceUnavailable

    assert request(app, "/a").json == {"detail": "Not authenticated", "login": "/login"}
    assert request(app, "/a").header("www-authenticate") == PLAIN
    assert request(app, "/b", GOOD).body == b"no"
    assert request(app, "/a", GOOD).status == 200
    assert request(app, "/away").json == problem(503, "Service Unavailable", "Service temporarily unavailable")


@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
def test_an_own_handler_for_all_refusals_keeps_precedence(first: bool) -> None:
    """A handler for AuthError itself answers instead, registered before or after."""
    app = FastAPI()
    if not first:
        configure_app(app)

    @app.exception_handler(AuthError)
    async def refused(_: Request, error: AuthError) -> JSONResponse:
        return JSONResponse({"error": error.detail}, error.status_code, error.headers)

    if first:
        configure_app(app)
    app.get("/a", dependencies=[auth.requires("a")])(endpoint)
    assert request(app, "/a").json == {"error": "Not authenticated"}
    assert request(app, "/a").header("www-authenticate") == PLAIN
    assert request(app, "/a", GOOD).status == 200


def test_the_denial_of_a_websocket_is_a_problem() -> None:
    """A handshake is denied with the same body, media type and challenge."""
    app = FastAPI()

    @app.websocket("/ws")
    async def socket(websocket: WebSocket, claims: Annotated[dict[str, Any], auth.requires("a")]) -> None:
        await websocket.accept()

    configure_app(app)
    answer = handshake(app, "/ws")
    assert answer.refusal == (401, "Not authenticated", PLAIN)
    assert answer.header("content-type") == "application/problem+json"
    assert handshake(app, "/ws", GOOD).status == 101
    with pytest.raises(WebSocketDenialResponse) as denied:
        TestClient(app).websocket_connect("/ws").__enter__()
    assert denied.value.json() == problem(401, "Unauthorized", "Not authenticated")


def test_what_cannot_be_decided() -> None:
    """Keys that are not there yet make a 503 with Retry-After, no 401 and no pass."""
    waiting = JWTAuth(JWTConfig(algorithms=["ES256"], issuer_url="https://id.example"))
    ready = JWTAuth(JWTConfig(key=jwk.ECKey.generate_key("P-256"), issuer_url="https://id.example"))
    token = [(b"authorization", b"Bearer " + ready.encode({"sub": "ada"}).encode())]
    for used, status in ((waiting, 503), (ready, 200)):
        app = FastAPI()
        app.get("/", dependencies=[used.authenticated()])(endpoint)
        app.get("/optional", dependencies=[used.optional(ignore_invalid=True)])(endpoint)
        configure_app(app)
        for path in ("/", "/optional"):
            answer = request(app, path, token)
            assert answer.status == status
            assert answer.header("retry-after") == ("5" if status == 503 else None)
            assert answer.header("www-authenticate") is None


@pytest.mark.parametrize("name", [b"x-user", b"x-forwarded-user", b"x-forwarded-for", b"remote-user", b"x-real-ip"])
def test_fields_of_a_proxy_authenticate_nobody(name: bytes) -> None:
    """A header that a proxy may add, a client may add too: it is ignored."""
    app = FastAPI(dependencies=[auth.authenticated()])
    app.get("/")(endpoint)
    configure_app(app)
    for value in (b"ada", b"127.0.0.1", b"good", b"Bearer good"):
        assert request(app, headers=[(name, value)]).refusal == (401, "Not authenticated", PLAIN)
    assert request(app, headers=[(name, b"ada"), *GOOD]).status == 200


def test_a_path_of_the_client_is_not_answered() -> None:
    """Neither a path nor a query with markup and line breaks reaches the answer of a guard."""
    app = FastAPI(dependencies=[auth.authenticated()])
    app.get("/{path:path}")(endpoint)
    configure_app(app)
    answer = request(app, "/evil<b>\r", [(b"host", b"evil"), (b"referer", b"evil")], query=b"evil")
    assert answer.refusal == (401, "Not authenticated", PLAIN)
    assert "evil" not in repr(answer)


# --- startup ---


def start(app: FastAPI) -> None:
    """Start and stop the application."""
    with TestClient(app):
        pass


def application() -> FastAPI:
    """Return an application in which some routes are guarded."""
    app = FastAPI()
    app.get("/guarded", dependencies=[auth.authenticated()])(endpoint)
    router = APIRouter(prefix="/router", dependencies=[auth.authenticated()])
    router.get("/guarded")(endpoint)
    app.include_router(router)
    return app


def test_guarded_routes_start() -> None:
    """If each route is guarded, or named as public, the application starts and serves; its documentation too."""
    app = application()
    app.get("/health")(endpoint)
    configure_app(app, unguarded="refuse", public=["/health"])
    with TestClient(app) as client:
        statuses = [client.get(path).status_code for path in ("/health", "/guarded", "/router/guarded", "/docs")]
    assert statuses == [200, 401, 401, 200]


async def plain(scope: Any, receive: Any, send: Any) -> None:
    """Be an ASGI application that cannot be looked into."""


def add_route(app: FastAPI) -> str:
    """Add an unguarded route."""
    app.get("/bare")(endpoint)
    return "GET /bare"


def add_methods(app: FastAPI) -> str:
    """Add an unguarded route of several methods, at a path that is guarded for another."""
    app.api_route("/guarded", methods=["PUT", "POST"])(endpoint)
    return "POST/PUT /guarded"


def add_optional(app: FastAPI) -> str:
    """Add a route that allows anonymous callers."""
    app.get("/optional", dependencies=[auth.optional()])(endpoint)
    return "GET /optional"


def add_router(app: FastAPI) -> str:
    """Add a route of a nested router."""
    inner, outer = APIRouter(prefix="/inner"), APIRouter(prefix="/outer")
    inner.get("/{name:path}")(endpoint)
    outer.include_router(inner)
    app.include_router(outer)
    return "GET /outer/inner/{name:path}"


def add_websocket(app: FastAPI) -> str:
    """Add a WebSocket."""
    app.websocket("/ws")(endpoint)
    return "WEBSOCKET /ws"


def add_mount(app: FastAPI) -> str:
    """Add a mounted application, for which the application's own guards do not run."""
    inner = FastAPI(openapi_url=None)
    inner.get("/bare")(endpoint)
    app.mount("/mounted", inner)
    return "GET /mounted/bare"


def add_plain(app: FastAPI) -> str:
    """Add a mounted application of another kind."""
    app.mount("/plain", plain)
    return "mount /plain"


def add_page(app: FastAPI) -> str:
    """Add a route at the path of a documentation page."""
    app.post("/docs")(endpoint)
    return "POST /docs"


def add_starlette(app: FastAPI) -> str:
    """Add a route of Starlette's."""
    app.add_route("/starlette", PlainTextResponse, methods=["DELETE"])
    return "DELETE /starlette"


BARE = [add_route, add_methods, add_optional, add_router, add_websocket, add_mount, add_plain, add_page, add_starlette]


@pytest.mark.parametrize("add", BARE)
@pytest.mark.parametrize("first", [True, False], ids=["configured first", "configured last"])
def test_an_unguarded_route_is_refused(add: Any, first: bool) -> None:
    """An unguarded route of any kind, added before or after, makes the start fail; named as public it does not."""
    app = application()
    if first:
        configure_app(app, unguarded="refuse")
    route = add(app)
    if not first:
        configure_app(app, unguarded="refuse")
    path = route.split(" ")[1]
    with pytest.raises(ConfigurationError) as refused:
        start(app)
    assert str(refused.value) == (
        f"no Auth guards {route}: guard them, or name them in configure_app(app, public=['{path}'])"
    )
    public = application()
    add(public)
    configure_app(public, unguarded="refuse", public=[path])
    start(public)


@pytest.mark.parametrize("add", BARE)
def test_unguarded_routes_are_allowed_by_default(add: Any) -> None:
    """Without ``unguarded="refuse"`` nothing has to be guarded."""
    app = application()
    add(app)
    configure_app(app)
    start(app)


def test_a_check_of_presence_guards_nothing() -> None:
    """A route before which any credential passes is unguarded, and the refusal names the cause; another guard helps."""
    present: Auth[str] = Auth(APIKeyScheme("X-Key"), name="present")
    app = FastAPI()
    app.get("/both", dependencies=[present.authenticated(), auth.authenticated()])(endpoint)
    configure_app(app, unguarded="refuse")
    start(app)
    app.get("/present", dependencies=[auth.optional(), present.authenticated()])(endpoint)
    message = r"no Auth guards GET /present \(present only checks that a credential is there\): guard them"
    with pytest.raises(ConfigurationError, match=message):
        start(app)


def test_guards_of_the_application_count_for_routes_but_not_for_mounts() -> None:
    """A guard of the application stands before each route of its own, a WebSocket and Starlette's pages aside."""
    app = FastAPI(dependencies=[auth.authenticated()])
    add_route(app)
    add_websocket(app)
    add_router(app)
    configure_app(app, unguarded="refuse")
    start(app)
    app.mount("/plain", plain)
    with pytest.raises(ConfigurationError, match="mount /plain"):
        start(app)


def test_a_public_path_that_no_route_has() -> None:
    """A path that was misspelt, or whose route is gone, is refused at startup."""
    app = application()
    configure_app(app, unguarded="refuse", public=["/helth"])
    with pytest.raises(ConfigurationError, match="public names /helth, which no route has"):
        start(app)


def test_a_guard_that_was_not_called() -> None:
    """A guard without its parentheses allows every caller: refused at startup even where unguarded routes are not."""

    def defaulting(claims: Any = auth.requires_admin) -> None:
        """Default to a method."""

    app = FastAPI()
    app.get("/a")(defaulting)
    configure_app(app)
    message = (
        r"guards are written that are not run: GET /a: parameter claims of defaulting\(\): auth\.requires_admin is not"
    )
    with pytest.raises(ConfigurationError, match=message):
        start(app)


def test_the_lifespan_of_the_application_runs() -> None:
    """The application's own lifespan runs after the check, its state reaches the request, and its end is reached."""
    seen: list[str] = []

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, str]]:
        seen.append("start")
        yield {"greeting": "hello"}
        seen.append("stop")

    app = FastAPI(lifespan=lifespan)

    @app.get("/")
    async def greet(request: Request) -> str:
        return str(request.state.greeting)

    configure_app(app, unguarded="refuse", public=["/"])
    with TestClient(app) as client:
        assert client.get("/").json() == "hello"
    assert seen == ["start", "stop"]
    add_route(app)
    with pytest.raises(ConfigurationError):
        start(app)
    assert seen == ["start", "stop"]


def test_routes_that_a_lifespan_adds() -> None:
    """An unguarded route that the application's own lifespan adds is an error at startup, and the lifespan ends."""
    seen: list[str] = []

    @asynccontextmanager
    async def lifespan(starting: FastAPI) -> AsyncIterator[None]:
        starting.get("/late")(endpoint)
        try:
            yield
        finally:
            seen.append("stop")

    app = FastAPI(lifespan=lifespan)
    configure_app(app, unguarded="refuse")
    with pytest.raises(ConfigurationError, match="no Auth guards GET /late"):
        start(app)
    assert seen == ["stop"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"unguarded": "forbid"}, 'unguarded is "allow" or "refuse", not \'forbid\''),
        ({"unguarded": True}, 'unguarded is "allow" or "refuse", not True'),
        ({"public": "/health"}, "public is a list of paths: ['/health']"),
        *[({"public": [path]}, f"{PATHS}{path!r}") for path in ("health", "", "*", "/a*", "/*/a", "/a/**", 5)],
    ],
)
def test_arguments_that_mean_nothing(arguments: dict[str, Any], message: str) -> None:
    """A misspelt argument, or one text instead of a list, raises ConfigurationError when constructed."""
    with pytest.raises(ConfigurationError) as refused:
        configure_app(FastAPI(), **arguments)
    assert str(refused.value) == message


def test_configured_twice() -> None:
    """A second call with the same arguments changes nothing; one with others is refused."""
    app = application()
    app.get("/health")(endpoint)
    for _ in range(2):
        configure_app(app, unguarded="refuse", public=["/health"])
    with pytest.raises(ConfigurationError, match="called twice for one application, with other arguments"):
        configure_app(app, public=["/health"])
    start(app)


def test_configured_too_late() -> None:
    """After the first request a handler would not be called any more."""
    app = application()
    request(app, "/guarded")
    with pytest.raises(ConfigurationError, match="before the application answers its first request"):
        configure_app(app)


def test_without_a_lifespan_each_request_is_refused() -> None:
    """Without a lifespan, the first request checks the application; nothing is served, however many requests follow."""
    app = FastAPI()
    app.get("/open")(endpoint)
    configure_app(app, unguarded="refuse")
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="no Auth guards GET /open"):
            request(app, "/open")
    guarded = FastAPI()
    guarded.get("/closed", dependencies=[auth.authenticated()])(endpoint)
    configure_app(guarded, unguarded="refuse")
    for _ in range(2):
        assert request(guarded, "/closed", GOOD).status == 200


def test_a_mounted_application_is_checked_at_its_first_request() -> None:
    """The lifespan of a mounted application does not run, and its own configure_app holds all the same."""
    inner = FastAPI()
    inner.get("/open")(endpoint)
    configure_app(inner, unguarded="refuse")
    outer = FastAPI()
    outer.mount("/inner", inner)
    with TestClient(outer) as client, pytest.raises(ConfigurationError, match="no Auth guards GET /open"):
        client.get("/inner/open")


def test_routes_that_are_added_while_the_application_runs() -> None:
    """An unguarded route is refused, whenever it is added; so is a guard that is not run. Mended, it answers again."""
    app = application()
    inner = APIRouter()
    app.include_router(inner, prefix="/inner")
    configure_app(app, unguarded="refuse")
    with TestClient(app) as client:
        assert client.get("/guarded").status_code == 401
        inner.get("/late", dependencies=[auth.authenticated()])(endpoint)
        assert client.get("/inner/late").status_code == 401
        inner.get("/bare")(endpoint)
        for path in ("/inner/bare", "/guarded"):
            with pytest.raises(ConfigurationError, match="no Auth guards GET /inner/bare"):
                client.get(path)
        inner.routes.pop()
        inner._mark_routes_changed()
        assert client.get("/inner/bare").status_code == 404

        def lost(caller: Any = [auth.authenticated()]) -> None:  # noqa: B006, B008
            """Accept a list."""

        app.get("/lost", dependencies=[auth.authenticated()])(lost)
        with pytest.raises(ConfigurationError, match="GET /lost: parameter caller of lost"):
            client.get("/guarded")


def test_what_answers_where_no_route_matches_is_a_way_in() -> None:
    """The default of a router and a handler of 404 serve any caller: they are refused, or named as public."""
    for public in ([], ["/{unmatched:path}"]):
        for add in (
            lambda app: setattr(app.router, "default", plain),
            lambda app: app.add_exception_handler(404, plain),
            lambda app: app.add_exception_handler(starlette.exceptions.HTTPException, plain),
        ):
            app = application()
            add(app)
            configure_app(app, unguarded="refuse", public=public)
            if public:
                start(app)
            else:
                with pytest.raises(ConfigurationError, match=r"no Auth guards ANY /\{unmatched:path\} \(the "):
                    start(app)


def test_public_by_prefix(tmp_path: Path) -> None:
    """A prefix names what is below it, mounts too, and nothing beside it."""

    def made(public: list[str]) -> FastAPI:
        app = application()
        router = APIRouter(prefix="/pages")
        router.get("/a/{name}")(endpoint)
        router.websocket("/ws")(endpoint)
        app.include_router(router)
        app.mount("/static", StaticFiles(directory=tmp_path))
        app.mount("/inner/deep", FastAPI())
        configure_app(app, unguarded="refuse", public=public)
        return app

    start(made(["/pages/*", "/static/*", "/inner/*"]))
    start(made(["/*"]))
    for public in (
        ["/pages/*", "/static/*"],
        ["/page/*", "/static/*", "/inner/*"],
        ["/pages/*", "/stat/*", "/inner/*"],
    ):
        with pytest.raises(ConfigurationError):
            start(made(public))
    with pytest.raises(ConfigurationError, match=r"public names /other/\*, which no route has"):
        start(made(["/pages/*", "/static/*", "/inner/*", "/other/*"]))
    app = application()
    app.get("/pages")(endpoint)
    app.get("/pages/a")(endpoint)
    configure_app(app, unguarded="refuse", public=["/pages/*"])
    with pytest.raises(ConfigurationError, match="no Auth guards GET /pages: "):
        start(app)


def around(app: FastAPI, path: str) -> None:
    """Add what FastAPI runs no dependency for."""
    if path == "/static":
        app.mount(path, plain)
    elif path == "/page":
        app.add_route(path, PlainTextResponse)
    elif path == "/ws":
        app.router.add_websocket_route(path, plain)
    elif path == "/inner/bare":
        inner = FastAPI()
        inner.get("/bare")(endpoint)
        app.mount("/inner", inner)
    else:
        router = APIRouter()
        router.mount("/files", plain)
        app.include_router(router, prefix="/r")


@pytest.mark.parametrize("path", ["/static", "/page", "/ws", "/inner/bare", "/r/files"])
def test_a_guard_that_does_not_run_for_what_it_is_around(path: str) -> None:
    """A guard is written around a mount that serves any caller: refused even where unguarded routes are allowed."""
    app = FastAPI(dependencies=[auth.authenticated()])
    around(app, path)
    configure_app(app)
    with pytest.raises(ConfigurationError, match=f"the guard of auth around [A-Za-z]+ {path} does not run there"):
        start(app)
    for options, public in (
        ({"dependencies": [auth.authenticated()]}, [f"{path}/*" if path in ("/static", "/r/files") else path]),
        ({"dependencies": [auth.optional()]}, ()),
    ):
        named = FastAPI(**options)
        around(named, path)
        configure_app(named, public=public)
        start(named)


def test_a_guard_of_an_include_does_not_run_for_a_mount() -> None:
    """So does one of a router, for its own pages."""
    for dependencies, included in ([auth.requires("a")], []), ([], [auth.requires_any("a", "b")]):
        app, router = FastAPI(), APIRouter(dependencies=dependencies)
        router.add_route("/page", PlainTextResponse)
        app.include_router(router, dependencies=included)
        configure_app(app)
        with pytest.raises(ConfigurationError, match="the guard of auth around ANY /page does not run there"):
            start(app)


def test_mounts_are_named_where_the_application_has_guards(caplog: pytest.LogCaptureFixture) -> None:
    """An application with guards logs at startup, once, which mounts it does not guard."""
    app = application()
    app.mount("/static", plain)
    configure_app(app)
    with TestClient(app) as client:
        client.get("/guarded")
        app.get("/late")(endpoint)
        client.get("/late")
    assert [record.message for record in caplog.records if record.name == "fastapi_guard"] == [
        "no guard runs for what is mounted: mount /static"
    ]
    caplog.clear()
    for public, make in ([], FastAPI), (["/static/*"], application):
        app = make()
        app.mount("/static", plain)
        configure_app(app, public=public)
        start(app)
    assert not caplog.records


def test_documentation_of_mounted_applications() -> None:
    """Only the pages of the application itself need not be named: those of a mounted one are ways in."""
    app = application()
    app.mount("/inner", FastAPI(dependencies=[auth.authenticated()]))
    configure_app(app, unguarded="refuse")
    with pytest.raises(
        ConfigurationError, match=r"no Auth guards GET/HEAD /inner/openapi\.json, GET/HEAD /inner/docs, "
    ):
        start(app)


def test_a_frontend_is_a_route(tmp_path: Path) -> None:
    """Files that app.frontend() serves must be guarded too, or named; those of an included router have its prefix."""
    app, router = FastAPI(), APIRouter()
    app.frontend("/", directory=tmp_path)
    router.frontend("/pages", directory=tmp_path)
    app.include_router(router, prefix="/inner")
    app.get("/closed", dependencies=[auth.authenticated()])(endpoint)
    configure_app(app, unguarded="refuse")
    with pytest.raises(ConfigurationError, match=re.escape("no Auth guards GET /, GET /inner/pages:")):
        TestClient(app).__enter__()
    late = FastAPI()
    configure_app(late, unguarded="refuse")
    with TestClient(late) as client:
        late.frontend("/", directory=tmp_path)
        with pytest.raises(ConfigurationError, match=re.escape("no Auth guards GET /:")):
            client.get("/")
    closed = FastAPI(dependencies=[auth.authenticated()])
    closed.frontend("/", directory=tmp_path)
    configure_app(closed, unguarded="refuse")
    with TestClient(closed) as client:
        assert client.get("/").status_code == 401


def test_a_status_without_a_name() -> None:
    """An own AuthError of a status that HTTP has no name for is a problem as well."""

    class Expired(AuthError):
        status = 498
        default_detail = "Token expired"

    app = FastAPI()

    @app.get("/")
    def expired() -> None:
        raise Expired

    configure_app(app)
    answer = TestClient(app).get("/")
    assert answer.status_code == 498
    assert answer.json() == problem(498, "Error", "Token expired")


def test_documentation_pages_may_be_named() -> None:
    """FastAPI's own pages need not be named in ``public``, and may be."""
    app = FastAPI()
    app.get("/closed", dependencies=[auth.authenticated()])(endpoint)
    configure_app(app, unguarded="refuse", public=["/docs", "/openapi.json"])
    with TestClient(app) as client:
        assert client.get("/docs").status_code == 200


def test_the_path_of_a_page_names_no_mount_at_the_root() -> None:
    """`public=["/"]` for the index page does not open an application that is mounted there, nor one of a host."""
    public = ["/"]
    for add, name in (
        (lambda app: app.mount("/", plain), "/{mounted:path}"),
        (lambda app: app.host("x.example.com", Router([Route("/", plain)])), "//x.example.com/"),
    ):
        app = FastAPI()
        app.get("/")(endpoint)
        add(app)
        configure_app(app, unguarded="refuse", public=public)
        with pytest.raises(ConfigurationError, match=re.escape(f"name them in configure_app(app, public=['{name}'])")):
            start(app)
        app = FastAPI()
        app.get("/")(endpoint)
        add(app)
        configure_app(app, unguarded="refuse", public=["/", name])
        start(app)
    app = FastAPI()
    app.mount("/", plain)
    configure_app(app, unguarded="refuse", public=public)
    message = "public names /, which no route has: name /{mounted:path}"
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        start(app)


@pytest.mark.parametrize("name", ["/files", "/files/*", "/*"])
def test_a_mount_is_named_by_its_path(name: str) -> None:
    """Or by a prefix of what is below it; another prefix is an error."""
    app = FastAPI()
    app.mount("/files", plain)
    configure_app(app, unguarded="refuse", public=[name])
    start(app)
    other = FastAPI()
    other.mount("/files-of-others", plain)
    configure_app(other, unguarded="refuse", public=["/files/*"])
    with pytest.raises(ConfigurationError, match=re.escape("public names /files/*, which no route has")):
        start(other)
