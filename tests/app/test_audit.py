"""Which route is guarded by what, and what is found wrong."""

from functools import partial, wraps
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Cookie, Depends, FastAPI, Request, WebSocket
from fastapi.routing import APIRoute
from fastapi.security import APIKeyCookie
from fastapi.testclient import TestClient
from starlette.applications import Starlette
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from fastapi_guard import (
    AnyAuth,
    APIKeyScheme,
    Auth,
    BearerScheme,
    ConfigurationError,
    ScopesAuth,
    TokenAuth,
    configure_app,
    no_store,
)
from fastapi_guard.app import authorization_of
from fastapi_guard.app.audit import AuditedRoute, NotGuarded, assert_guarded, audited, guarded_routes
from fastapi_guard.app.routing import GuardedRoute


class Tokens(ScopesAuth):
    """An Auth of claims."""

    async def verify(self, raw: str) -> dict[str, Any]:
        """Accept anything."""
        return {"sub": raw}  # pragma: no cover - nothing is sent here


auth = Tokens(name="jwt")
keys = Tokens(APIKeyScheme("X-Api-Key"), name="keys")


def endpoint() -> None:
    """Answer nothing."""


def found(app: FastAPI) -> dict[str, tuple[str, ...]]:
    """Return the findings of each route."""
    return {f"{route.method} {route.path}": route.findings for route in guarded_routes(app)}


def test_method_path_guard_scopes_schemes() -> None:
    """Each method of each route is listed, with the guards of all levels, in the order in which they run."""
    app = FastAPI(dependencies=[keys.authenticated()])
    router = APIRouter(prefix="/posts", dependencies=[auth.requires("posts:read")])
    router.api_route("/{post_id}", methods=["PUT", "DELETE"], dependencies=[auth.requires("posts:edit")])(endpoint)
    router.get("", dependencies=[auth.requires_any("a", "b")])(endpoint)
    app.include_router(router, prefix="/v1")
    listed = [
        (route.method, route.path, route.guard, route.scopes, route.schemes, route.findings)
        for route in guarded_routes(app)
    ]
    schemes = ("X-Api-Key", "Bearer")
    assert listed == [
        ("DELETE", "/v1/posts/{post_id}", "keys, jwt", ("posts:read", "posts:edit"), schemes, ()),
        ("PUT", "/v1/posts/{post_id}", "keys, jwt", ("posts:read", "posts:edit"), schemes, ()),
        ("GET", "/v1/posts", "keys, jwt", ("posts:read", "any of a, b"), schemes, ()),
    ]
    assert_guarded(app)


def test_rules_in_words() -> None:
    """A guard that requires more than all of some scopes is listed with the names of the objects that decide."""
    app = FastAPI()
    roles = Tokens(roles={"editor": ["a:b"], "author": []})
    made: list[tuple[Any, tuple[str, ...]]] = [
        (auth.requires_any("a", "b"), ("any of a, b",)),
        (roles.requires_role("editor", "author"), ("role editor or author",)),
        (auth.requires_admin(), ("admin",)),
        (auth.requires_tenant(), ("tenant tenant",)),
        (auth.requires_tenant("customer"), ("tenant customer",)),
        (auth.requires_recent(300), ("login within 300 s",)),
        (auth.user(endpoint, "a"), ("a", "user endpoint")),
        (auth.allows(endpoint, "a"), ("a", "policy endpoint")),
        (auth.owned(endpoint, "a", owner="author_id"), ("a", "owner author_id")),
        (auth.owned(endpoint, owner=found, or_scope="a:edit"), ("owner found or a:edit",)),
        (auth.granted(), ()),
    ]
    for number, (guard, _) in enumerate(made):
        app.get(f"/{number}", dependencies=[guard])(endpoint)
    assert [route.scopes for route in guarded_routes(app)] == [scopes for _, scopes in made]


def test_as_json_says_it() -> None:
    """A route as a dict of what JSON has, with the guard's name in its place."""
    app = FastAPI()
    app.get("/a", dependencies=[auth.requires("a:read")])(endpoint)
    app.get("/b", dependencies=[auth.optional()])(endpoint)
    assert [route.as_dict() for route in guarded_routes(app)] == [
        {
            "method": "GET",
            "path": "/a",
            "guard": "jwt",
            "scopes": ["a:read"],
            "schemes": ["Bearer"],
            "public": False,
            "findings": [],
            "notes": [],
        },
        {
            "method": "GET",
            "path": "/b",
            "guard": "jwt (optional)",
            "scopes": [],
            "schemes": ["Bearer"],
            "public": False,
            "findings": ["unguarded: its guard is optional"],
            "notes": [],
        },
    ]


def test_an_unguarded_route() -> None:
    """A route without a guard is found, one with an optional guard too, beside a guarded one that is not."""
    app = FastAPI()
    app.get("/open")(endpoint)
    app.get("/optional", dependencies=[auth.optional(ignore_invalid=True)])(endpoint)
    app.get("/guarded", dependencies=[auth.authenticated()])(endpoint)
    assert found(app) == {
        "GET /open": ("unguarded",),
        "GET /optional": ("unguarded: its guard is optional",),
        "GET /guarded": (),
    }
    with pytest.raises(NotGuarded) as error:
        assert_guarded(app)
    assert str(error.value) == "GET /open: unguarded\nGET /optional: unguarded: its guard is optional"
    assert isinstance(error.value, ConfigurationError | AssertionError)
    assert_guarded(app, allow=["/open", "/optional"])


def test_what_allow_says() -> None:
    """An allowed path is listed without findings; a path that is not there is an error, FastAPI's pages are not."""
    app = FastAPI()
    app.get("/health")(endpoint)
    assert [route.findings for route in audited(app, ["/health", "/docs", "/openapi.json"])] == [()]
    with pytest.raises(ConfigurationError, match=r"allow names /gone, /heath, which no route has"):
        assert_guarded(app, allow={"/heath", "/gone"})
    with pytest.raises(ConfigurationError, match=r"allow is a list of paths: \['/health'\]"):
        assert_guarded(app, allow="/health")


def test_what_configure_app_names_as_public() -> None:
    """It is marked, and has no finding for being unguarded; other findings stay."""
    app = FastAPI()
    app.get("/health")(endpoint)
    app.get("/pages/a")(endpoint)
    app.get("/present", dependencies=[Auth(BearerScheme(), name="any").authenticated()])(endpoint)
    app.get("/bare")(endpoint)

    def lost(claims: Any = [auth.authenticated()]) -> None:  # noqa: B006, B008
        """Accept a list."""

    app.get("/lost")(lost)
    configure_app(app, public=["/health", "/pages/*", "/present", "/lost"])
    listed = {route.path: (route.public, len(route.findings)) for route in guarded_routes(app)}
    assert listed == {
        "/health": (True, 0),
        "/pages/a": (True, 0),
        "/present": (True, 0),
        "/bare": (False, 1),
        "/lost": (True, 1),
    }
    assert_guarded(app, allow=["/bare", "/los*", "/lost"][::2])
    assert_guarded(app, allow=["/*"])
    with pytest.raises(NotGuarded, match=r"^GET /bare: unguarded\nGET /lost: no guard: parameter claims of lost\(\)"):
        assert_guarded(app)
    assert guarded_routes(app)[0].as_dict()["public"] is True


def test_what_configure_app_does_not_let_start() -> None:
    """Two schemes of one name, and a public path that no route has, are findings, whatever is allowed."""
    other = Tokens(APIKeyScheme("X-Other", scheme_name="Bearer"))
    app = FastAPI(dependencies=[auth.requires("a"), other.requires("a")])
    app.get("/a")(endpoint)
    assert_guarded(app)
    configure_app(app, public=["/b", "/docs"])
    with pytest.raises(NotGuarded) as refused:
        assert_guarded(app, allow=["/*"])
    assert str(refused.value) == (
        "APPLICATION /: does not start: two different schemes are called 'Bearer' in OpenAPI: give one another"
        " scheme_name\n"
        "APPLICATION /: does not start: public names /b, which no route has: remove it, or correct it"
    )
    with pytest.raises(ConfigurationError, match="two different schemes"), TestClient(app):
        pass  # pragma: no cover - it does not start


def test_the_members_of_an_any_auth_that_count() -> None:
    """A guard for some members of an AnyAuth names them."""
    either = AnyAuth(auth, keys)
    app = FastAPI()
    app.get("/a", dependencies=[either.authenticated()])(endpoint)
    app.get("/b", dependencies=[either.requires("a", via=["keys"])])(endpoint)
    app.get("/c", dependencies=[either.optional()])(endpoint)
    listed = guarded_routes(app)
    assert [route.guard for route in listed] == ["any", "any via keys", "any (optional)"]
    assert [route.guards[0].via for route in listed] == [(), ("keys",), ()]


def test_what_answers_where_no_route_matches() -> None:
    """A handler of 404 and the default of a router are ways in."""

    async def plain(scope: Any, receive: Any, send: Any) -> None:
        """Answer nothing."""

    app = FastAPI()
    app.router.default = plain
    app.add_exception_handler(404, plain)
    assert found(app) == {"ANY /{unmatched:path}": ("unguarded: it is the handler of 404",)}
    assert [route.findings for route in guarded_routes(app)] == [
        ("unguarded: it is the default of the router",),
        ("unguarded: it is the handler of 404",),
    ]


def test_websockets_mounts_and_nested_applications() -> None:
    """WebSockets are listed; a mounted application has its own guards alone; a foreign one is a mount without any."""

    async def plain(scope: Any, receive: Any, send: Any) -> None:
        """Answer nothing."""

    def page(request: Request) -> PlainTextResponse:
        """Answer something."""
        return PlainTextResponse("")  # pragma: no cover - nothing is sent here

    async def socket(websocket: WebSocket, claims: Annotated[Any, auth.requires("ws:read")]) -> None:
        """Do nothing."""

    inner = FastAPI(dependencies=[keys.authenticated()], openapi_url=None)
    inner.get("/a")(endpoint)
    bare = FastAPI(docs_url=None, redoc_url=None)
    bare.get("/b")(endpoint)
    inner.mount("/bare", bare)
    app = FastAPI(dependencies=[auth.authenticated()])
    app.websocket("/ws")(socket)
    app.mount("/inner", inner)
    app.mount("/plain", plain)
    app.mount("/pages", Starlette(routes=[Route("/c", page)]))
    assert [(route.method, route.path, route.guard, route.findings) for route in guarded_routes(app)] == [
        ("WEBSOCKET", "/ws", "jwt", ()),
        ("GET", "/inner/a", "keys", ()),
        ("GET", "/inner/bare/openapi.json", "", ("unguarded: the guard of jwt, keys around it does not run for it",)),
        ("GET", "/inner/bare/b", "", ("unguarded: the guard of jwt, keys around it does not run for it",)),
        ("MOUNT", "/plain", "", ("unguarded: the guard of jwt around it does not run for it",)),
        ("GET", "/pages/c", "", ("unguarded: the guard of jwt around it does not run for it",)),
    ]


def test_presence_only() -> None:
    """An Auth that verifies nothing is found on every route, one that does is not."""

    class Verified(Auth[str]):
        """An Auth that looks at the request."""

        async def verify_request(self, connection: HTTPConnection, raw: str) -> str:
            """Accept anything."""
            return raw  # pragma: no cover - nothing is sent here

    app = FastAPI()
    app.get("/a", dependencies=[Auth(BearerScheme(), name="any").authenticated()])(endpoint)
    app.get("/b", dependencies=[TokenAuth[str]().authenticated(), auth.authenticated()])(endpoint)
    app.get("/c", dependencies=[Verified(BearerScheme()).authenticated()])(endpoint)
    assert found(app) == {
        "GET /a": ("presence only: any verifies nothing",),
        "GET /b": ("presence only: auth verifies nothing",),
        "GET /c": (),
    }


def by_parameter(session: Annotated[str | None, Cookie()] = None) -> str | None:
    """Read a cookie that the signature shows."""
    return session  # pragma: no cover - nothing is sent here


def by_request(request: HTTPConnection) -> str | None:
    """Read a cookie that only the code shows."""
    return request.cookies.get("session")  # pragma: no cover - nothing is sent here


def by_header(request: HTTPConnection) -> str | None:
    """Read a cookie from its header."""
    return request.headers.get("Cookie")  # pragma: no cover - nothing is sent here


def by_dependency(session: Annotated[str | None, Depends(by_request)]) -> str | None:
    """Return what another dependency has found."""
    return session  # pragma: no cover - nothing is sent here


def by_inner_function(request: HTTPConnection) -> str | None:
    """Read a cookie in a nested function."""

    def find() -> str | None:  # pragma: no cover - as below
        return request.cookies.get("session")

    return find()  # pragma: no cover - nothing is sent here


def by_argument(name: Any, request: HTTPConnection) -> str | None:
    """Read the cookie of a name."""
    return request.cookies.get(name)  # pragma: no cover - nothing is sent here


@wraps(by_request)
def wrapped(request: HTTPConnection) -> str | None:
    """Return what the wrapped function finds."""
    return by_request(request)  # pragma: no cover - nothing is sent here


class ByInstance:
    """Reads a cookie as a callable instance."""

    def __call__(self, request: HTTPConnection) -> str | None:
        """Read a cookie."""
        return request.cookies.get("session")  # pragma: no cover - nothing is sent here


def by_query(session: str | None = None) -> str | None:
    """Read a parameter that no browser sends by itself."""
    return session  # pragma: no cover - nothing is sent here


class OwnScheme(BearerScheme):
    """A scheme whose extraction looks for a cookie."""

    def extract(self, connection: HTTPConnection) -> str | None:
        """Read a cookie."""
        return connection.cookies.get("session")  # pragma: no cover - nothing is sent here


COOKIES: list[Any] = [
    APIKeyScheme("session", "cookie"),
    APIKeyCookie(name="session", auto_error=False),
    by_parameter,
]
# What code reads out of the request is not known: it is noted.
REQUESTS: list[Any] = [
    by_request,
    by_header,
    by_dependency,
    by_inner_function,
    partial(by_argument, "session"),
    wrapped,
    ByInstance(),
    OwnScheme(),
]


@pytest.mark.parametrize("scheme", COOKIES, ids=range(len(COOKIES)))
def test_a_cookie_without_the_origin_rule(scheme: Any) -> None:
    """It is found where something is changed, or a socket opened; never with the rule, or where it is only read."""
    for cookie, expected in ((False, ("cookie without the origin rule: session",)), (True, ())):
        session = Tokens(scheme, name="session", cookie=cookie)
        app = FastAPI(dependencies=[session.authenticated()])
        app.api_route("/", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])(endpoint)
        app.websocket("/ws")(endpoint)
        assert found(app) == {
            "GET /": (),
            **{f"{method} /": expected for method in ("POST", "PUT", "PATCH", "DELETE")},
            "WEBSOCKET /ws": expected,
        }


@pytest.mark.parametrize("scheme", REQUESTS, ids=range(len(REQUESTS)))
def test_a_scheme_that_sees_the_request(scheme: Any) -> None:
    """It may read a cookie, which no signature shows: noted, with the remedy; never with the origin rule."""
    note = "session sees the whole request: where it reads a cookie, pass cookie=True"
    for cookie, expected in ((False, (note,)), (None, (note,)), (True, ())):
        session = Tokens(scheme, name="session", cookie=cookie)
        app = FastAPI(dependencies=[session.authenticated()])
        app.api_route("/", methods=["GET", "POST"])(endpoint)
        assert {f"{route.method}": route.notes for route in guarded_routes(app)} == {"GET": (), "POST": expected}
        assert_guarded(app)


NO_COOKIES = {"bearer": None, "query": by_query, "key": APIKeyScheme("X-Api-Key"), "in C": partial(len, "")}


@pytest.mark.parametrize("scheme", NO_COOKIES.values(), ids=NO_COOKIES)
def test_a_credential_that_no_browser_sends(scheme: Any) -> None:
    """A credential outside of cookies needs no origin."""
    app = FastAPI()
    app.post("/", dependencies=[Tokens(scheme).authenticated()])(endpoint)
    assert found(app) == {"POST /": ()}
    assert guarded_routes(app)[0].notes == ()


def test_the_members_of_a_composition() -> None:
    """A composed Auth is judged by each of its members."""

    class Composed(Tokens):
        """An Auth of several."""

        members = (auth, Tokens(APIKeyCookie(name="s", auto_error=False), name="session", cookie=False))

    app = FastAPI()
    app.post("/", dependencies=[Composed(name="any").authenticated()])(endpoint)
    assert found(app) == {"POST /": ("cookie without the origin rule: session",)}


def test_a_guard_that_was_not_called() -> None:
    """A method without its parentheses is a finding of its own."""
    app = FastAPI(dependencies=[keys.authenticated()])

    def defaulting(claims: Any = auth.requires_admin) -> None:
        """Default to a method."""

    app.get("/")(defaulting)
    finding = "jwt.requires_admin is not called, so that it guards nothing: write requires_admin()"
    assert found(app) == {"GET /": (f"no guard: parameter claims of defaulting(): {finding}",)}


def test_what_runs_before_the_guard_is_noted() -> None:
    """A dependency of the application before the first guard is noted; ours and those behind a guard are not."""

    def database() -> None:
        """Open something."""

    def page(db: Annotated[None, Depends(database)]) -> None:
        """Need something open."""

    class Loader:
        """A callable instance."""

        def __call__(self, claims: Annotated[Any, auth.authenticated()]) -> None:
            """Load for an authenticated caller."""

    app = FastAPI()
    first = auth.authenticated()
    app.get("/late", dependencies=[Depends(page), Depends(no_store), Depends(Loader()), first])(endpoint)
    app.get("/first", dependencies=[first, Depends(page)])(endpoint)
    app.get("/optional", dependencies=[auth.optional(), Depends(page)])(endpoint)
    app.get("/scheme", dependencies=[Tokens(by_query).authenticated()])(endpoint)
    assert {route.path: route.notes for route in guarded_routes(app)} == {
        "/late": ("runs before the guard: database, page",),
        "/first": (),
        "/optional": (),
        "/scheme": (),
    }
    assert_guarded(app, allow=["/optional"])


def test_a_class_of_routes_that_responds_before_the_guard() -> None:
    """A handler of its own may respond first, which is noted where there is a guard; GuardedRoute is ours."""

    class Caching(APIRoute):
        """A route that responds from a cache."""

        def get_route_handler(self) -> Any:
            """Return what is cached."""
            return super().get_route_handler()

    app = FastAPI()
    for path, kind in (("/cached", Caching), ("/guarded", GuardedRoute)):
        router = APIRouter(route_class=kind)
        router.get(path, dependencies=[auth.authenticated()])(endpoint)
        app.include_router(router)
    bare = APIRouter(route_class=Caching)
    bare.get("/bare")(endpoint)
    app.include_router(bare)
    assert {route.path: route.notes for route in guarded_routes(app)} == {
        "/cached": ("runs before the guard: Caching",),
        "/guarded": (),
        "/bare": (),
    }


def test_a_head_beside_a_get_is_one_route() -> None:
    """Starlette's HEAD is not listed beside its GET, and is listed where it stands alone."""
    app = FastAPI()
    app.add_route("/a", lambda request: PlainTextResponse(""), methods=["GET"])
    app.head("/b")(endpoint)
    assert [(route.method, route.path) for route in guarded_routes(app)] == [("GET", "/a"), ("HEAD", "/b")]


def test_a_route_of_an_audit_is_a_value() -> None:
    """The result of the audit is compared by value, and has no finding of its own accord."""
    assert AuditedRoute("GET", "/", ()) == AuditedRoute("GET", "/", ())


@pytest.mark.parametrize("app", [FastAPI, APIRouter()], ids=["class", "router"])
@pytest.mark.parametrize("audit", [guarded_routes, assert_guarded, authorization_of])
def test_what_is_not_an_application(app: Any, audit: Any) -> None:
    """Its class, or a router, has no routes of its own to audit."""
    with pytest.raises(ConfigurationError, match=r"^app is a FastAPI application, not "):
        audit(app)
