"""Which guards stand before which route."""

import sys
from functools import partial
from inspect import Parameter, Signature
from typing import Annotated, Any

import pytest
from annotated_doc import Doc
from fastapi import APIRouter, Body, Cookie, Depends, FastAPI, Request, Security, WebSocket, params
from fastapi.routing import APIRoute, APIWebSocketRoute
from fastapi.security import APIKeyHeader
from pydantic import ConfigDict, create_model
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute, Host, Mount, Route, Router
from typing_extensions import TypeAliasType

from fastapi_guard import AnyAuth, Auth, ConfigurationError, ScopesAuth, configure_app
from fastapi_guard.app.asgi import guard_documentation
from fastapi_guard.app.asgi import guarded as behind
from fastapi_guard.app.guards import guards_in
from fastapi_guard.app.routes import Routes, routes_of
from fastapi_guard.app.routing import GuardedRoute
from support.asgi import request


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
    """Dependencies other than guards guard nothing, and the documentation pages do not count as the user's routes."""
    app = FastAPI(dependencies=[Depends(APIKeyHeader(name="X-Key", auto_error=False))])
    app.get("/a")(endpoint)
    assert guarded(app) == {("/a", "GET"): []}
    assert [route.is_guarded for route in routes_of(app)] == [False]
    assert guards_in(None) == ()


def test_guards_in_the_order_of_their_resolution() -> None:
    """Guards of application, include, router, route, parameter and sub-dependency are all there, in order."""

    def sub(claims: Annotated[dict[str, Any], auth.requires("sub")]) -> None:
        """Require more."""

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
    """A guard for one of several scopes, a role or an administrator is recognised by the guard beneath it."""
    app = FastAPI()
    made = (auth.requires_any("a", "b"), auth.requires_role("a"), auth.requires_admin(), auth.granted())
    for number, guard in enumerate(made):
        app.get(f"/{number}", dependencies=[guard])(endpoint)
    assert guarded(app) == {(f"/{number}", "GET"): [("auth", ())] for number in range(4)}
    assert all(route.is_guarded for route in routes_of(app))


def test_scopes_are_handed_down() -> None:
    """Scopes that an enclosing Security() requires count for the guard within, each once."""

    def sub(claims: Annotated[dict[str, Any], auth.requires("a", "b")]) -> None:
        """Require a scope."""

    app = FastAPI()
    app.get("/", dependencies=[Security(sub, scopes=["c", "a"])])(endpoint)
    assert guarded(app) == {("/", "GET"): [("auth", ("c", "a", "b"))]}


@pytest.mark.parametrize("ignore_invalid", [False, True])
def test_an_optional_guard_guards_nothing(ignore_invalid: bool) -> None:
    """A route whose only guards are optional allows anonymous callers; with another guard beside them it does not."""
    app = FastAPI()
    app.get("/a", dependencies=[auth.optional(ignore_invalid=ignore_invalid)])(endpoint)
    app.get("/b", dependencies=[auth.optional(ignore_invalid=ignore_invalid), other.authenticated()])(endpoint)
    assert [(route.path, route.is_guarded, len(route.guards)) for route in routes_of(app)] == [
        ("/a", False, 1),
        ("/b", True, 2),
    ]


def test_a_check_of_presence_guards_nothing() -> None:
    """Neither does a credential of one of several Auths, unless the guard is for others alone."""
    present: Auth[str] = Auth(APIKeyHeader(name="X-Key", auto_error=False), name="present")
    several = AnyAuth(present, auth)
    app = FastAPI()
    for path, guard in {
        "/present": present.authenticated(),
        "/several": several.authenticated(),
        "/via": several.authenticated(via=["auth"]),
    }.items():
        app.get(path, dependencies=[guard])(endpoint)
    assert [route.is_guarded for route in routes_of(app)] == [False, False, True]


def test_websockets() -> None:
    """A WebSocket route is a route, with the guards of application, router and parameter."""
    app = FastAPI(dependencies=[other.authenticated()])
    router = APIRouter(dependencies=[auth.requires("router")])

    @router.websocket("/ws")
    async def guarded_socket(websocket: WebSocket, claims: Annotated[dict[str, Any], auth.requires("ws")]) -> None:
        """Do nothing."""

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
        **{(f"/inner/{page}", "GET/HEAD"): [] for page in ("openapi.json", "help", "docs/oauth2-redirect", "redoc")},
        ("/inner/b", "GET"): [("other", ())],
        ("/inner/innermost/c", "GET"): [],
    }
    assert [route.schema_path for route in routes_of(app)] == ["/a", *[None] * 6]
    assert [route.bypassed for route in routes_of(app)] == [(), *[("auth", "other")] * 4, ("auth",), ("auth", "other")]


def test_what_is_mounted_and_cannot_be_looked_into() -> None:
    """A mounted ASGI application is one unguarded route; one of Starlette's is looked into, and so is a host."""

    async def plain(scope: Any, receive: Any, send: Any) -> None:
        """Answer nothing."""

    def page(request: Any) -> PlainTextResponse:
        """Answer something."""
        return PlainTextResponse("")  # pragma: no cover - nothing is sent here

    below = FastAPI(dependencies=[auth.authenticated()], openapi_url=None)
    below.get("/c")(endpoint)
    app = FastAPI()
    app.mount("/plain", plain)
    app.mount("/starlette", Starlette(routes=[Route("/a", page), Mount("/b", routes=[Route("/d", page)])]))
    app.host("c.example", below)
    assert guarded(app) == {
        ("/plain", "MOUNT"): [],
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
        """Accept one of two keys."""
        return one or two  # pragma: no cover - nothing is sent here

    def cookie(session: Annotated[str | None, Cookie()] = None) -> str | None:
        """Read a cookie."""
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


def misplaced(claims: Any, default: Any = Parameter.empty) -> FastAPI:
    """Return an application whose one endpoint has a parameter with this annotation and default."""

    def written(claims: Any) -> None:
        """Accept claims."""

    parameter = Parameter("claims", Parameter.POSITIONAL_OR_KEYWORD, annotation=claims, default=default)
    written.__signature__ = Signature([parameter])  # type: ignore[attr-defined]
    app = FastAPI()
    app.post("/")(written)
    return app


Dict = dict[str, Any]
either = auth | other


def load(claims: Dict) -> Any:
    """Load something."""


# What FastAPI would take for a body, a query or nothing at all.
OVERLOOKED: dict[str, Any] = {
    "dependency": lambda: Annotated[Dict, auth.dependency],
    "optional_dependency": lambda: Annotated[Dict, auth.optional_dependency],
    "auth": lambda: Annotated[Dict, auth],
    "method": lambda: Annotated[Dict, auth.authenticated],
    "method of scopes": lambda: Annotated[Dict, auth.requires],
    "union": lambda: Annotated[Dict, auth.authenticated()] | None,
    "union, scopes": lambda: Annotated[Dict, auth.requires("a")] | None,
    "union, any": lambda: Annotated[Dict, auth.requires_any("a")] | None,
    "union, role": lambda: Annotated[Dict, auth.requires_role("a")] | None,
    "union, admin": lambda: Annotated[Dict, auth.requires_admin()] | None,
    "union, optional": lambda: Annotated[Dict, auth.optional()] | None,
    "union, granted": lambda: Annotated[frozenset[str], auth.granted()] | None,
    "union, tenant": lambda: Annotated[Dict, auth.requires_tenant()] | None,
    "union, recent": lambda: Annotated[Dict, auth.requires_recent(60)] | None,
    "union, user": lambda: Annotated[Dict, auth.user(load)] | None,
    "union, policy": lambda: Annotated[Dict, auth.allows(load)] | None,
    "union, owner": lambda: Annotated[Dict, auth.owned(load, owner="sub")] | None,
    "union, any of two": lambda: Annotated[Dict, either.authenticated(via=["other"])] | None,
    "any of two": lambda: Annotated[Dict, either],
    "any of two, dependency": lambda: Annotated[Dict, either.dependency],
    "any of two, method": lambda: Annotated[Dict, either.authenticated],
    "union, dependency": lambda: Annotated[Dict, auth.dependency] | None,
    "list": lambda: list[Annotated[Dict, auth.authenticated()]],
    "alias in a union": lambda: TypeAliasType("Claims", Annotated[Dict, auth.authenticated()]) | None,
    "before a Body": lambda: Annotated[Dict, auth.authenticated(), Body()],
}


@pytest.mark.parametrize("default", [Parameter.empty, None])
@pytest.mark.parametrize("spelling", OVERLOOKED)
def test_a_guard_that_fastapi_overlooks_is_refused_where_it_is_written(spelling: str, default: Any) -> None:
    """A guard that FastAPI does not see is refused with the endpoint, on every Python, without configure_app."""
    with pytest.raises(ConfigurationError, match=r"^/, parameter claims: a guard has no effect here"):
        misplaced(OVERLOOKED[spelling](), default)


def test_a_guard_in_a_model_is_refused() -> None:
    """A field is the client's, whatever the other annotations are."""
    with pytest.raises(ConfigurationError, match="at the top of Annotated"):
        create_model("Model", claims=(Annotated[Dict, auth.authenticated()], ...))


def test_an_auth_in_a_model_is_a_value() -> None:
    """The type of an Auth may be that of a field."""
    model: Any = create_model("Model", auth=(Tokens, ...), __config__=ConfigDict(arbitrary_types_allowed=True))
    assert model(auth=auth).auth is auth


class Named(params.Security):
    """A Security() of the application's own, which older versions of Python can put into a union too."""

    __hash__ = object.__hash__


# What pydantic is not asked about, so that only the routes show it.
MISPLACED: dict[str, Any] = {
    "default: dependency": (Any, auth.dependency),
    "default: auth": (Any, auth),
    "default: typed": (Dict, auth.dependency),
    "own Security in a union": (Annotated[Dict, Named(auth.dependency)] | None, None),
    "own Security, deeper": (list[Annotated[Dict, Named(auth.dependency)] | None], None),
    "own Security in an alias": (TypeAliasType("Own", Annotated[Dict, Named(auth.dependency)]) | None, None),
}


@pytest.mark.parametrize("spelling", MISPLACED)
def test_a_guard_without_effect(spelling: str) -> None:
    """A guard that FastAPI does not see is listed."""
    (route,) = routes_of(misplaced(*MISPLACED[spelling]))
    assert len(route.mistakes) == 1
    assert route.mistakes[0].startswith("parameter claims of written(): ")
    assert "write the guard, called, at the top of Annotated" in route.mistakes[0]


@pytest.mark.parametrize(
    "claims",
    [
        Annotated[Dict, auth.requires("a"), auth.requires("b")],
        Annotated[Dict, auth.requires("a"), Depends(endpoint)],
        Annotated[Dict, Security(auth.dependency, scopes=["a"]), Body()],
        Annotated[Dict, other, auth.requires("b")],
    ],
    ids=["two guards", "Depends", "Body", "Auth"],
)
def test_a_guard_that_another_annotation_replaces(claims: Any) -> None:
    """FastAPI uses the last of several, so the others are listed."""
    (route,) = routes_of(misplaced(claims))
    assert len(route.mistakes) == 1
    assert route.mistakes[0].startswith("parameter claims of written(): ")


# The statement of Python 3.12 makes the only alias that names itself.
syntax = "type Json = dict[str, Json] | None" if sys.version_info >= (3, 12) else "Json = dict[str, object] | None"
names: dict[str, Any] = {}
exec(syntax, names)  # noqa: S102
Json = names["Json"]
RIGHT: dict[str, Any] = {
    "annotated": (Annotated[Dict, auth.requires("a")], Parameter.empty),
    "annotated, optional": (Annotated[Dict | None, auth.optional()], None),
    "default": (Dict, auth.requires("a")),
    "own Security": (Annotated[Dict, Security(auth.dependency, scopes=["a"])], Parameter.empty),
    "documented": (Annotated[Dict, Doc("who"), auth.requires("a")], Parameter.empty),
    "alias": (TypeAliasType("Reader", Annotated[Dict, auth.requires("a")]), Parameter.empty),
    "several Depends": (Annotated[Dict, Depends(endpoint), Depends(endpoint)], Parameter.empty),
    "an alias that names itself": (Annotated[dict[str, Json] | None, Body()], None),
}


@pytest.mark.parametrize("spelling", RIGHT)
def test_a_guard_in_its_place(spelling: str) -> None:
    """The spellings that work are not reported as mistakes."""
    (route,) = routes_of(misplaced(*RIGHT[spelling]))
    assert route.mistakes == ()


def test_an_annotation_that_cannot_be_evaluated() -> None:
    """FastAPI evaluates a string by the names of the module; one that it cannot evaluate counts as the client's."""

    def hidden(claims: "Annotated[Any, nowhere.authenticated()]" = None) -> None:  # type: ignore[name-defined] # noqa: F821
        """Accept claims."""

    app = FastAPI()
    app.get("/")(hidden)
    (route,) = routes_of(app)
    assert (route.guards, len(route.mistakes)) == ((), 1)
    assert route.mistakes[0].startswith("parameter claims of hidden(): nowhere cannot be evaluated")


def test_a_callable_without_a_signature() -> None:
    """A callable without a signature that Python can read has no guard in it."""
    app = FastAPI()
    app.get("/")(endpoint)
    dependant: Any = app.routes[-1].dependant  # type: ignore[attr-defined]
    dependant.call = dict
    (route,) = routes_of(app)
    assert route.mistakes == ()


def test_scopes_that_are_none() -> None:
    """A Security() of the application's own with a scope that no challenge could name is listed, not a 500 later."""

    def sub(claims: Annotated[Any, Security(auth.dependency, scopes=["good", 'b"ad'])]) -> None:
        """Require a scope."""

    app = FastAPI()
    app.get("/a")(sub)
    app.get("/b", dependencies=[Security(endpoint, scopes=["a b"])])(endpoint)
    app.get("/c", dependencies=[Security(auth.dependency, scopes=["good"])])(endpoint)
    first, *others = routes_of(app)
    assert len(first.mistakes) == 1
    assert first.mistakes[0].startswith("auth: 'b\"ad' is not a scope")
    assert [route.mistakes for route in others] == [(), ()]


# --- every way in ---


class Custom(BaseRoute):
    """A route of another kind."""


class OwnRoute(APIRoute):
    """A route of FastAPI's, by a class of the application's."""


class Itself(Starlette):
    """An application that answers by itself, whatever its routes are."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer nothing."""


async def plain(scope: Any, receive: Any, send: Any) -> None:
    """Be an application that cannot be looked into."""


def page(request: Any) -> PlainTextResponse:
    """Answer something."""
    return PlainTextResponse("")  # pragma: no cover - nothing is sent here


class Endpoint(HTTPEndpoint):
    """A page for every method."""


def add_custom(app: FastAPI) -> list[tuple[str, str]]:
    """Add a route without a path or methods."""
    app.router.routes.append(Custom())
    return [("ANY", "/{Custom}")]


def add_endpoint(app: FastAPI) -> list[tuple[str, str]]:
    """Add a class of Starlette's."""
    app.add_route("/a", Endpoint)
    return [("ANY", "/a")]


def add_socket(app: FastAPI) -> list[tuple[str, str]]:
    """Add a WebSocket of Starlette's."""
    app.router.add_websocket_route("/ws", plain)
    return [("WEBSOCKET", "/ws")]


def add_own_class(app: FastAPI) -> list[tuple[str, str]]:
    """Add a route by a class of the application's, at the path of a documentation page."""
    router = APIRouter(route_class=OwnRoute)
    router.get("/docs")(endpoint)
    app.include_router(router)
    return [("GET", "/docs")]


def add_page(app: FastAPI) -> list[tuple[str, str]]:
    """Add pages of Starlette's at the paths of the documentation, before and after FastAPI's."""
    app.router.routes.insert(0, Route("/docs", page))
    app.add_route("/openapi.json", page, methods=["POST"])
    return [("GET/HEAD", "/docs"), ("POST", "/openapi.json")]


def add_included(app: FastAPI) -> list[tuple[str, str]]:
    """Include pages, a WebSocket and a mount of Starlette's, and the documentation of another application."""
    router = APIRouter()
    router.add_route("/a", page)
    router.add_websocket_route("/ws", plain)
    router.mount("/files", plain)
    other_app = FastAPI(redoc_url=None, docs_url=None)
    app.include_router(router, prefix="/r")
    app.include_router(other_app.router, prefix="/o")
    return [("GET/HEAD", "/r/a"), ("WEBSOCKET", "/r/ws"), ("MOUNT", "/r/files"), ("GET/HEAD", "/o/openapi.json")]


def add_mounts(app: FastAPI) -> list[tuple[str, str]]:
    """Mount routers, applications in middlewares, and what answers by itself, deep."""
    router = APIRouter()
    router.get("/a")(endpoint)
    app.mount("/router", Router([Mount("/deep", router)]))
    app.mount("/known", CORSMiddleware(Starlette(routes=[Route("/b", page)])))
    app.mount("/itself", Itself(routes=[Route("/c", page)]))
    app.mount("/", plain)
    return [
        ("GET", "/router/deep/a"),
        ("GET/HEAD", "/known/b"),
        ("GET/HEAD", "/itself/c"),
        ("MOUNT", "/itself"),
        ("MOUNT", "/"),
    ]


def add_default(app: FastAPI) -> list[tuple[str, str]]:
    """Answer where no route matches, in the application and in a mounted router."""
    app.router.default = plain
    app.mount("/r", Router(default=plain))
    return [("ANY", "/r/{unmatched:path}"), ("ANY", "/{unmatched:path}")]


def add_handler(app: FastAPI) -> list[tuple[str, str]]:
    """Answer where no route matches, as a handler of 404 and of 405."""
    app.exception_handler(404)(page)
    app.exception_handler(405)(page)
    return [("ANY", "/{unmatched:path}"), ("ANY", "/{unmatched:path}")]


def add_handlers(app: FastAPI) -> list[tuple[str, str]]:
    """Answer them as a handler of the class, in a mounted application."""
    inner = Starlette(exception_handlers={HTTPException: page, 500: page, Exception: page})
    app.mount("/inner", inner)
    return [("ANY", "/inner/{unmatched:path}"), ("ANY", "/inner/{unmatched:path}")]


WAYS = [
    *(add_custom, add_endpoint, add_socket, add_own_class, add_page, add_included, add_mounts),
    *(add_default, add_handler, add_handlers),
]


@pytest.mark.parametrize("add", WAYS)
def test_every_way_in_is_listed(add: Any) -> None:
    """Every route that FastAPI does not guard is listed: only the pages that FastAPI itself adds are left out."""
    app = FastAPI()
    expected = add(app)
    assert [("/".join(way.methods), way.path) for way in routes_of(app)] == expected
    assert not any(way.is_guarded or way.mistakes for way in routes_of(app))
    guarded_app = FastAPI(dependencies=[auth.authenticated()])
    add(guarded_app)
    for way in routes_of(guarded_app):
        assert way.is_guarded is isinstance_of_fastapi(way.path, add)
        assert way.is_guarded or way.answers or way.bypassed == ("auth",)


def isinstance_of_fastapi(path: str, add: Any) -> bool:
    """Return whether FastAPI resolves the application's dependencies for a route."""
    return path == "/docs" and add is add_own_class


class OwnRouter(Router):
    """A router that answers by itself, whatever its routes are."""

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer nothing."""


class OwnStack(Starlette):
    """An application that answers by itself."""

    def build_middleware_stack(self) -> Any:
        """Answer nothing."""


class OwnIncluded(APIRouter):
    """A router that answers by itself where it is included."""

    async def handle(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer nothing."""


def test_classes_that_answer_by_themselves() -> None:
    """A class of the application is a way in by itself, whatever routes it has."""
    app = FastAPI(dependencies=[auth.authenticated()])
    replaced = Starlette()
    replaced.router = OwnRouter()
    app.mount("/router", OwnRouter())
    app.mount("/replaced", replaced)
    app.mount("/stack", OwnStack())
    app.mount("/own", APIRouter())
    app.include_router(OwnIncluded(prefix="/included"), prefix="/r")
    ways = list(routes_of(app))
    assert [(way.methods, way.path) for way in ways] == [
        (("MOUNT",), path) for path in ("/router", "/replaced", "/stack", "/r/included")
    ]
    assert not any(way.is_guarded for way in ways)


class OwnMount(Mount):
    """A mount that answers by itself."""

    async def handle(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer nothing."""


class OwnPage(Route):
    """A page that answers by itself."""

    async def handle(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer nothing."""


class Pretending(BaseRoute):
    """A route that has the attributes of FastAPI's, and resolves no dependency."""

    def __init__(self, route: APIRoute) -> None:
        """Have the attributes of a route."""
        self.__dict__.update(vars(route))


def test_classes_of_routes_that_answer_by_themselves() -> None:
    """Guards that are written for such a route, and which it does not run, guard nothing."""
    app, inner = FastAPI(), FastAPI(openapi_url=None)
    inner.get("/a", dependencies=[auth.authenticated()])(endpoint)
    closed = behind(plain, auth.authenticated())
    app.router.routes += [
        OwnMount("/mount", inner),
        OwnMount("/closed", closed),
        OwnPage("/page", closed),
        Pretending(APIRoute("/route", endpoint, dependencies=[auth.authenticated()])),
        Mount("/right", closed),
        Route("/right", closed),
    ]
    assert [(way.path, "/".join(way.methods), way.is_guarded) for way in routes_of(app)] == [
        ("/mount", "MOUNT", False),
        ("/mount/a", "GET", True),
        ("/closed", "MOUNT", False),
        ("/closed", "MOUNT", True),
        ("/page", "ANY", False),
        ("/route", "GET", False),
        ("/right", "MOUNT", True),
        ("/right", "ANY", True),
    ]


class Replaced(APIRoute):
    """A route that answers by itself, whatever its dependencies are."""

    def get_route_handler(self) -> Any:
        """Return a handler of its own."""

        async def handle(_: Request) -> Any:
            return PlainTextResponse("")

        return handle


class Timed(APIRoute):
    """A route around the handler of FastAPI, as its documentation shows it."""

    def get_route_handler(self) -> Any:
        """Return a function that calls the handler."""
        handle = super().get_route_handler()

        async def timed(request: Request) -> Any:
            return await handle(request)

        return timed


class Kept(APIRoute):
    """A route that keeps the handler of FastAPI in a dict of a list."""

    def get_route_handler(self) -> Any:
        """Return a function that looks the handler up."""
        handlers = {"all": [page, page, super().get_route_handler()]}

        async def handle(request: Request) -> Any:
            return await handlers["all"][-1](request)

        return handle


class Calling:
    """A handler that is an object."""

    __slots__ = ("application", "handle", "kind")

    def __init__(self, handle: Any) -> None:
        """Keep the handler of FastAPI."""
        self.handle = handle
        self.application = FastAPI()
        self.kind = Timed

    async def __call__(self, request: Request) -> Any:
        """Call it."""
        return await self.handle(request)


class Made(Timed):
    """A route whose handler is such an object, in a partial."""

    def get_route_handler(self) -> Any:
        """Return the object."""
        return partial(Calling(super().get_route_handler()))


class Bound(APIRoute):
    """A route whose handler is a method of its own."""

    def get_route_handler(self) -> Any:
        """Keep the handler of FastAPI, and return the method."""
        self.kept = super().get_route_handler()
        return self.handle_request

    async def handle_request(self, request: Request) -> Any:
        """Call it."""
        return await self.kept(request)


OWN_HANDLERS = (Replaced, Timed, Kept, Made, Bound, GuardedRoute)


def of_classes(*kinds: type[APIRoute], included: bool) -> FastAPI:
    """Return an application with a guarded route of each class, named after it."""
    app = FastAPI()
    for kind in kinds:
        router = APIRouter(route_class=kind) if included else app.router
        router.route_class = kind
        router.get(f"/{kind.__name__}", dependencies=[auth.authenticated()])(endpoint)
        if included:
            app.include_router(router)
    return app


@pytest.mark.parametrize("included", [False, True])
def test_a_handler_without_fastapis(included: bool) -> None:
    """A class of routes that does not call the handler of FastAPI runs no dependency: its guards guard nothing."""
    app = of_classes(*OWN_HANDLERS, included=included)
    guarded = {way.path: way.is_guarded for way in routes_of(app)}
    assert {path: request(app, path).status == 401 for path in guarded} == guarded
    assert [path for path, is_guarded in guarded.items() if not is_guarded] == ["/Replaced"]


@pytest.mark.parametrize("included", [False, True])
def test_a_handler_without_fastapis_is_refused(included: bool) -> None:
    """An application with such a guard does not start; one whose handlers call that of FastAPI does."""
    app = of_classes(*OWN_HANDLERS[1:], included=included)
    configure_app(app, unguarded="refuse")
    assert request(app, "/Timed").status == 401
    refused = of_classes(*OWN_HANDLERS, included=included)
    configure_app(refused)
    text = r"^the guard of auth around GET /Replaced \(a handler of Replaced without FastAPI's\) does not run there, "
    with pytest.raises(ConfigurationError, match=text):
        request(refused, "/Timed")


def test_a_host_of_an_included_router() -> None:
    """Its paths have the prefix of the include."""
    app, router, inner = FastAPI(), APIRouter(), FastAPI(openapi_url=None)
    inner.get("/a")(endpoint)
    router.host("{name}.example", inner)
    app.include_router(router, prefix="/r")
    routes = Routes(app)
    assert [way.path for way in routes.ways] == ["/r/a"]
    assert routes.host_params == {"name"}


def test_an_application_that_is_mounted_within_itself() -> None:
    """Its routes are listed once; the guards of its documentation are put there once."""
    app, inner = FastAPI(), FastAPI()
    app.get("/a")(endpoint)
    app.mount("/v1", app)
    app.mount("/inner", inner)
    inner.mount("/again", inner)
    guard_documentation(app, [auth.authenticated()])
    ways = [way for way in routes_of(app) if not way.is_guarded]
    assert [way.path for way in ways] == ["/a"]


def test_what_answers_where_no_route_matches() -> None:
    """It is named, so that it can be found."""
    app = FastAPI()
    add_default(app)
    add_handler(app)
    assert [way.answers for way in routes_of(app)] == [
        *("the default of the router", "the default of the router", "the handler of 404", "the handler of 405")
    ]
    plain_app = FastAPI()
    plain_app.exception_handler(500)(page)
    plain_app.exception_handler(Exception)(page)
    assert list(routes_of(plain_app)) == []


def test_the_pages_that_fastapi_adds() -> None:
    """They are known by their function: at another path, without some of them, or in a subclass that adds its own."""

    class Own(FastAPI):
        """An application with a page of its own among them."""

        def setup(self) -> None:
            """Add it."""
            super().setup()
            self.add_route("/help", page)

    app = Own(docs_url="/d", redoc_url=None, openapi_url="/o.json")
    routes = Routes(app)
    assert routes.documentation == {"/d", "/docs/oauth2-redirect", "/o.json"}
    assert [way.path for way in routes.ways] == ["/help"]
    assert Routes(FastAPI(openapi_url=None)).documentation == set()


def replace(app: FastAPI, route: APIRoute) -> None:
    """Put a route in place of that at the same path."""
    app.router.routes = [route if getattr(one, "path", "") == route.path else one for one in app.router.routes]


def test_routes_that_change() -> None:
    """A route that is added to a router, an included one, or a mounted one, is a change; a request changes nothing."""
    app, router, inner = FastAPI(), APIRouter(), FastAPI()
    app.include_router(router)
    app.mount("/inner", inner)
    changes: list[Any] = [
        lambda: app.get("/a")(endpoint),
        lambda: router.get("/b")(endpoint),
        lambda: inner.get("/c")(endpoint),
        lambda: app.router.routes.append(Route("/d", page)),
        lambda: setattr(app.router, "routes", app.router.routes[:-1]),
        lambda: setattr(inner.router, "default", plain),
        lambda: app.frontend("/", directory="none", check_dir=False),
        lambda: router.frontend("/pages", directory="none", check_dir=False),
        lambda: inner.add_exception_handler(404, page),
        # They are equal, and differ in their guards.
        lambda: replace(app, APIRoute("/a", endpoint, methods=["GET"], dependencies=[auth.authenticated()])),
        lambda: replace(app, APIRoute("/a", endpoint, methods=["GET"])),
    ]
    for change in changes:
        routes = Routes(app)
        assert not routes.have_changed()
        change()
        assert routes.have_changed()


def test_another_app_in_the_place_of_that_of_a_route() -> None:
    """The other app runs no dependency of the route; middleware around the app of the route does."""
    app, included = FastAPI(), APIRouter()
    for path in ("/replaced", "/guarded", "/wrapped", "/untouched"):
        app.get(path, dependencies=[auth.authenticated()])(endpoint)
    app.websocket("/ws", dependencies=[auth.authenticated()])(endpoint)
    replaced, closed, wrapped, _, socket = [
        route for route in app.routes if isinstance(route, APIRoute | APIWebSocketRoute)
    ]
    replaced.app = socket.app = plain
    closed.app = behind(plain, other.authenticated())
    wrapped.app = CORSMiddleware(wrapped.app)
    included.get("/included", dependencies=[auth.authenticated()])(endpoint)
    app.include_router(included)
    found = {way.path: ([use.guard.auth.name for use in way.guards], way.bypassed) for way in routes_of(app)}
    assert found == {
        "/replaced": ([], ("auth",)),
        "/guarded": (["other"], ("auth",)),
        "/wrapped": (["auth"], ()),
        "/untouched": (["auth"], ()),
        "/ws": ([], ("auth",)),
        "/included": (["auth"], ()),
    }


class OwnApplication(FastAPI):
    """An application that may respond by itself."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Do as before."""


def test_an_application_that_may_answer_by_itself() -> None:
    """It is a way in beside its routes, as one that is mounted is."""
    app = OwnApplication(openapi_url=None)
    app.get("/a", dependencies=[auth.authenticated()])(endpoint)
    assert [(way.path, way.methods, way.is_guarded, way.answers) for way in routes_of(app)] == [
        ("/a", ("GET",), True, None),
        ("/{any:path}", ("ANY",), False, "OwnApplication itself"),
    ]


def test_names_of_public_ways() -> None:
    """A mount at the root has a name that no page has, and what is mounted by its host is named with it."""
    app, inner = FastAPI(), FastAPI(openapi_url=None)
    inner.get("/s")(endpoint)
    app.get("/")(endpoint)
    app.get("/s")(endpoint)
    app.mount("/static", plain)
    app.router.routes += [Host("{tenant}.example.com", inner), Host("cdn.example.com", plain)]
    inner.host("deep.example.com", Router([Route("/s", plain)]))
    app.mount("/", plain)
    assert [way.public_name for way in routes_of(app)] == [
        "/",
        "/s",
        "/static",
        "//{tenant}.example.com/s",
        "//deep.example.com/s",
        "//cdn.example.com/{mounted:path}",
        "/{mounted:path}",
    ]
