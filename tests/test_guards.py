"""Which guards stand before which route."""

from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Cookie, Depends, FastAPI, Security, WebSocket
from fastapi.security import APIKeyHeader
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from fastapi_guard import Auth, ScopesAuth
from fastapi_guard.guards import guards_in, routes_of


class Tokens(ScopesAuth):
    """An Auth of claims."""

    async def verify(self, raw: str) -> dict[str, Any]:
        """Accept anything."""
        return {"sub": raw}  # pragma: no cover - nothing is sent here


auth = Tokens(name="auth")
other = Tokens(name="other")


def endpoint() -> None:
    """Answer nothing."""


Uses = list[tuple[str, tuple[str, ...]]]


def guarded(app: FastAPI) -> dict[tuple[str, str], Uses]:
    """Return path and method of each route, with the names of its guards and their scopes."""
    return {
        (route.path, "/".join(route.methods)): [(use.guard.auth.name, use.scopes) for use in route.guards]
        for route in routes_of(app)
    }


def test_a_route_without_a_guard() -> None:
    """Dependencies that are no guards guard nothing, and the pages of the documentation are no routes of the user."""
    app = FastAPI(dependencies=[Depends(APIKeyHeader(name="X-Key", auto_error=False))])
    app.get("/a")(endpoint)
    assert guarded(app) == {("/a", "GET"): []}
    assert [route.is_guarded for route in routes_of(app)] == [False]
    assert guards_in(None) == ()


def test_guards_in_the_order_of_their_resolution() -> None:
    """Guards of application, include, router, route, parameter and sub-dependency are all there, in order."""

    def sub(claims: Annotated[dict[str, Any], auth.requires("sub")]) -> None:
        """Ask for more."""

    app = FastAPI(dependencies=[other.authenticated()])
    inner = APIRouter(prefix="/inner", dependencies=[auth.requires("router")])

    @inner.get("/a", dependencies=[auth.requires("route", "more")])
    def of_route(
        claims: Annotated[dict[str, Any], auth.requires("parameter")], _: Annotated[None, Depends(sub)]
    ) -> None:
        """Answer nothing."""

    outer = APIRouter(prefix="/outer")
    outer.include_router(inner, dependencies=[auth.requires("nested")])
    app.include_router(outer, prefix="/v1", dependencies=[auth.requires("include")])
    assert guarded(app) == {
        ("/v1/outer/inner/a", "GET"): [
            ("other", ()),
            *[("auth", (scope,)) for scope in ("include", "nested", "router")],
            ("auth", ("route", "more")),
            ("auth", ("parameter",)),
            ("auth", ("sub",)),
        ]
    }


def test_guards_inside_of_thin_dependencies() -> None:
    """What asks for one of several scopes, a role or an administrator is a guard by the one beneath it."""
    app = FastAPI()
    made = (auth.requires_any("a", "b"), auth.requires_role("a"), auth.requires_admin(), auth.granted())
    for number, guard in enumerate(made):
        app.get(f"/{number}", dependencies=[guard])(endpoint)
    assert guarded(app) == {(f"/{number}", "GET"): [("auth", ())] for number in range(4)}
    assert all(route.is_guarded for route in routes_of(app))


def test_scopes_are_handed_down() -> None:
    """Scopes that an enclosing Security() requires count for the guard within, each once."""

    def sub(claims: Annotated[dict[str, Any], auth.requires("a", "b")]) -> None:
        """Ask for a scope."""

    app = FastAPI()
    app.get("/", dependencies=[Security(sub, scopes=["c", "a"])])(endpoint)
    assert guarded(app) == {("/", "GET"): [("auth", ("c", "a", "b"))]}


@pytest.mark.parametrize("ignore_invalid", [False, True])
def test_an_optional_guard_guards_nothing(ignore_invalid: bool) -> None:
    """A route whose only guards are optional lets strangers pass; another guard beside them does not."""
    app = FastAPI()
    app.get("/a", dependencies=[auth.optional(ignore_invalid=ignore_invalid)])(endpoint)
    app.get("/b", dependencies=[auth.optional(ignore_invalid=ignore_invalid), other.authenticated()])(endpoint)
    assert [(route.path, route.is_guarded, len(route.guards)) for route in routes_of(app)] == [
        ("/a", False, 1),
        ("/b", True, 2),
    ]


def test_websockets() -> None:
    """A WebSocket route is a route, with the guards of application, router and parameter."""
    app = FastAPI(dependencies=[other.authenticated()])
    router = APIRouter(dependencies=[auth.requires("router")])

    @router.websocket("/ws")
    async def guarded_socket(websocket: WebSocket, claims: Annotated[dict[str, Any], auth.requires("ws")]) -> None:
        """Say nothing."""

    app.include_router(router)
    assert guarded(app) == {("/ws", "WEBSOCKET"): [("other", ()), ("auth", ("router",)), ("auth", ("ws",))]}


def test_several_methods() -> None:
    """The methods of a route are listed together, sorted."""
    app = FastAPI()
    app.api_route("/", methods=["POST", "DELETE"], dependencies=[auth.authenticated()])(endpoint)
    assert guarded(app) == {("/", "DELETE/POST"): [("auth", ())]}


def test_a_mounted_application_by_its_own_guards() -> None:
    """The application's dependencies do not run for what is mounted, which may mount again."""
    innermost = FastAPI(openapi_url=None)
    innermost.get("/c")(endpoint)
    inner = FastAPI(dependencies=[other.authenticated()], docs_url="/help")
    inner.get("/b")(endpoint)
    inner.mount("/innermost", innermost)
    app = FastAPI(dependencies=[auth.authenticated()])
    app.get("/a")(endpoint)
    app.mount("/inner", inner)
    assert guarded(app) == {
        ("/a", "GET"): [("auth", ())],
        ("/inner/b", "GET"): [("other", ())],
        ("/inner/innermost/c", "GET"): [],
    }
    assert [route.schema_path for route in routes_of(app)] == ["/a", None, None]


def test_what_is_mounted_and_cannot_be_looked_into() -> None:
    """A mounted ASGI application is one unguarded route; one of Starlette's is looked into, and so is a host."""

    async def plain(scope: Any, receive: Any, send: Any) -> None:
        """Answer nothing."""

    def page(request: Any) -> PlainTextResponse:
        """Answer something."""
        return PlainTextResponse("")  # pragma: no cover - nothing is sent here

    below = FastAPI(dependencies=[auth.authenticated()])
    below.get("/c")(endpoint)
    app = FastAPI()
    app.mount("/plain", plain)
    app.mount("/starlette", Starlette(routes=[Route("/a", page), Mount("/b", routes=[Route("/d", page)])]))
    app.host("c.example", below)
    assert guarded(app) == {
        ("/plain", ""): [],
        ("/starlette/a", "GET/HEAD"): [],
        ("/starlette/b/d", "GET/HEAD"): [],
        ("/c", "GET"): [("auth", ())],
    }


def test_an_own_route_beside_a_documentation_page() -> None:
    """Only FastAPI's own page is left out, not a route that the application has at the same path."""
    app = FastAPI(docs_url="/docs")
    app.post("/docs")(endpoint)
    app.get("/help/docs")(endpoint)
    assert guarded(app) == {("/docs", "POST"): [], ("/help/docs", "GET"): []}


def test_the_path_in_openapi() -> None:
    """A path is listed in OpenAPI without its converters, and not at all where the route is hidden."""
    app = FastAPI()
    router = APIRouter(prefix="/r")
    router.get("/{name:path}")(endpoint)
    router.get("/hidden", include_in_schema=False)(endpoint)
    app.include_router(router)
    hidden = APIRouter(prefix="/h", include_in_schema=False)
    hidden.get("/a")(endpoint)
    app.include_router(hidden)
    app.websocket("/ws")(endpoint)
    assert {route.path: route.schema_path for route in routes_of(app)} == {
        "/r/{name:path}": "/r/{name}",
        "/r/hidden": None,
        "/h/a": None,
        "/ws": None,
    }


def test_the_schemes_of_a_guard() -> None:
    """A guard is listed under the name of its scheme, one over a callable under what that depends on."""
    first = APIKeyHeader(name="X-First", scheme_name="first", auto_error=False)
    second = APIKeyHeader(name="X-Second", scheme_name="second", auto_error=False)

    def either(one: Annotated[str | None, Depends(first)], two: Annotated[str | None, Depends(second)]) -> str | None:
        """Take one of two keys."""
        return one or two  # pragma: no cover - nothing is sent here

    def cookie(session: Annotated[str | None, Cookie()] = None) -> str | None:
        """Take a cookie."""
        return session  # pragma: no cover - nothing is sent here

    app = FastAPI()
    for path, scheme in (("/bearer", None), ("/either", either), ("/cookie", cookie)):
        app.get(path, dependencies=[Tokens(scheme).authenticated()])(endpoint)
    app.get("/key", dependencies=[Auth(first).authenticated()])(endpoint)
    assert {route.path: route.guards[0].schemes for route in routes_of(app)} == {
        "/bearer": ("Bearer",),
        "/either": ("first", "second"),
        "/cookie": (),
        "/key": ("first",),
    }


def test_a_guard_that_was_not_called() -> None:
    """A method without its parentheses guards nothing: as Depends(), in Annotated, as a default, deep in the tree."""

    def sub(claims: Annotated[Any, Depends(auth.optional)]) -> None:
        """Depend on a method."""

    def annotated(claims: Annotated[Any, auth.authenticated]) -> None:
        """Annotate with a method."""

    def default(claims: Any = auth.granted) -> None:
        """Default to a method."""

    def right(claims: Annotated[Any, auth.authenticated()], limit: int = 5) -> None:
        """Guard."""

    app = FastAPI()
    app.get("/depends", dependencies=[Depends(auth.requires_admin)])(endpoint)
    app.get("/sub", dependencies=[Depends(sub)])(endpoint)
    app.get("/annotated")(annotated)
    app.get("/default")(default)
    app.get("/right")(right)
    assert {route.path: route.mistakes for route in routes_of(app)} == {
        "/depends": ("auth.requires_admin is not called: write requires_admin()",),
        "/sub": ("auth.optional is not called: write optional()",),
        "/annotated": ("auth.authenticated is not called: write authenticated()",),
        "/default": ("auth.granted is not called: write granted()",),
        "/right": (),
    }
