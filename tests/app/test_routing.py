from collections.abc import Iterable
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Body, Cookie, Depends, FastAPI, Form, Request
from fastapi.testclient import TestClient
from starlette.types import Message

from fastapi_guard import AnyAuth, JWTAuth, ScopesAuth, configure_app
from fastapi_guard.app.routing import GuardedRoute
from fastapi_guard.testing import acting_as
from support.asgi import scope_of
from support.tokens import auth_of, forge, valid_claims

PLAIN = 'Bearer realm="api"'
JSON = (b"content-type", b"application/json")


class Counting(JWTAuth):
    """Count the verifications."""

    verified = 0

    async def verify(self, raw: str) -> dict[str, Any]:
        """Verify."""
        self.verified += 1
        return await super().verify(raw)


def counting() -> Counting:
    """Return an Auth whose clock stands still."""
    auth = auth_of("HS256")
    return Counting(auth.config, clock=auth._clock)


class Sent:
    """A request whose body comes in parts, and what was read of it."""

    def __init__(self, app: FastAPI, body: Iterable[bytes]) -> None:
        """Send to ``app``."""
        self.app = app
        self.body = list(body)
        self.read = 0
        self.status = 0
        self.challenge: str | None = None

    async def post(self, path: str = "/", token: str | None = None, *fields: tuple[bytes, bytes]) -> int:
        """Return the status of the answer."""
        own = [] if token is None else [(b"authorization", f"Bearer {token}".encode())]
        await self.app(scope_of(path, [JSON, *fields, *own], method="POST"), self.receive, self.send)
        return self.status

    async def receive(self) -> Message:
        """Hand the next part out."""
        self.read += 1
        part = self.body[self.read - 1]
        return {"type": "http.request", "body": part, "more_body": self.read < len(self.body)}

    async def send(self, message: Message) -> None:
        """Keep the answer."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.challenge = dict(message["headers"]).get(b"www-authenticate", b"").decode()


MALFORMED = [b"{", b"x" * 1000]
GOOD = [b'{"name":', b' "ada"}']


async def endpoint(name: Annotated[str, Body(embed=True)]) -> str:
    """Accept a body."""
    return name


def on_route(app: FastAPI, auth: Any) -> None:
    """Guard the route."""
    app.router.route_class = GuardedRoute
    app.post("/", dependencies=[auth.authenticated()])(endpoint)


def on_parameter(app: FastAPI, auth: Any) -> None:
    """Guard by a parameter, behind the one for the body."""

    async def guarded(
        name: Annotated[str, Body(embed=True)], claims: Annotated[Any, auth.requires("items:read")]
    ) -> str:
        return name

    app.router.route_class = GuardedRoute
    app.post("/")(guarded)


def on_router(app: FastAPI, auth: Any) -> None:
    """Guard the router."""
    router = APIRouter(route_class=GuardedRoute, dependencies=[auth.requires("items:read")])
    router.post("/")(endpoint)
    app.include_router(router)


def on_include(app: FastAPI, auth: Any) -> None:
    """Guard an include, of a router that is included twice, in another."""
    inner, outer = APIRouter(route_class=GuardedRoute), APIRouter()
    inner.post("/")(endpoint)
    outer.include_router(inner, dependencies=[auth.authenticated()])
    app.include_router(inner, prefix="/open")
    app.include_router(outer)


def on_application(app: FastAPI, auth: Any) -> None:
    """Guard the application."""
    app.router.dependencies.append(auth.authenticated())
    router = APIRouter(route_class=GuardedRoute)
    router.post("/")(endpoint)
    app.include_router(router)


def below_a_dependency(app: FastAPI, auth: Any) -> None:
    """Guard by a dependency of a dependency, behind a form."""

    async def user(claims: Annotated[Any, auth.requires_any("items:read")]) -> Any:
        return claims

    async def form(request: Request) -> Any:
        return await request.body()

    app.router.route_class = GuardedRoute
    app.post("/", dependencies=[Depends(form), Depends(user)])(endpoint)


def by_any(app: FastAPI, auth: Any) -> None:
    """Guard by several Auths."""

    class Other(ScopesAuth):
        name = "other"

        def recognises(self, raw: str) -> bool:
            return False

        async def verify(self, raw: str) -> dict[str, Any]:
            raise AssertionError  # pragma: no cover - it recognises nothing

    on_route(app, AnyAuth(Other(), auth))


PLACES = [on_route, on_parameter, on_router, on_include, on_application, below_a_dependency, by_any]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("configured", [False, True])
async def test_a_stranger_is_refused_before_the_body_is_read(place: Any, configured: bool) -> None:
    """At every place of the guard an anonymous caller gets a 401 with the body unread; a caller is verified once."""
    auth = counting()
    app = FastAPI()
    place(app, auth)
    if configured:
        configure_app(app)
    for token in (None, "a.b.c"):
        sent = Sent(app, MALFORMED)
        assert (await sent.post("/", token), sent.read) == (401, 0)
        assert (sent.challenge or "").startswith(PLAIN)
    auth.verified = 0
    sent = Sent(app, MALFORMED)
    assert (await sent.post("/", forge("HS256")), sent.read) == (422, 2)
    sent = Sent(app, GOOD)
    assert (await sent.post("/", forge("HS256")), sent.read) == (200, 2)
    assert auth.verified == 2


async def test_a_missing_scope_is_refused_before_too() -> None:
    """A flat guard is checked as a whole: a scope that is missing is a 403 with the body unread."""
    app = FastAPI()
    on_router(app, counting())
    sent = Sent(app, MALFORMED)
    assert (await sent.post("/", forge("HS256", valid_claims(scope="x"))), sent.read) == (403, 0)


async def test_one_include_of_several() -> None:
    """A route counts with the guards of the include through which it was reached."""
    app = FastAPI()
    on_include(app, counting())
    sent = Sent(app, GOOD)
    assert await sent.post("/open/") == 200
    assert await Sent(app, GOOD).post("/") == 401


async def test_without_the_route_class() -> None:
    """FastAPI's own route reads the body first: the control of the above."""
    auth = counting()
    app = FastAPI()
    app.post("/", dependencies=[auth.authenticated()])(endpoint)
    sent = Sent(app, MALFORMED)
    assert (await sent.post(), sent.read) == (422, 2)


async def test_a_guard_with_parameters_of_its_own_keeps_its_place() -> None:
    """A guard whose scheme FastAPI resolves runs where it stands, behind the body; others still come first."""

    def scheme(session: Annotated[str | None, Cookie()] = None) -> str | None:
        return session

    auth, other = auth_of("HS256"), auth_of("HS256")
    resolved = Counting(auth.config, scheme, clock=auth._clock)
    app = FastAPI()
    on_route(app, resolved)
    app.post("/both", dependencies=[resolved.authenticated(), other.authenticated()])(endpoint)
    sent = Sent(app, MALFORMED)
    assert (await sent.post(), sent.read) == (422, 2)
    assert await Sent(app, GOOD).post() == 401
    field = (b"cookie", b"session=" + forge("HS256").encode())
    assert await Sent(app, GOOD).post("/", None, field) == 200
    sent = Sent(app, MALFORMED)
    assert (await sent.post("/both", None, field), sent.read) == (401, 0)


async def test_an_optional_guard() -> None:
    """An optional guard allows an anonymous caller, and refuses a bad credential before the body is read."""
    app = FastAPI()
    app.router.route_class = GuardedRoute
    app.post("/", dependencies=[auth_of("HS256").optional()])(endpoint)
    assert await Sent(app, GOOD).post() == 200
    sent = Sent(app, MALFORMED)
    assert (await sent.post("/", "a.b.c"), sent.read) == (401, 0)


async def test_a_route_without_guards() -> None:
    """A route without guards is FastAPI's."""
    app = FastAPI()
    app.router.route_class = GuardedRoute
    app.post("/")(endpoint)
    assert await Sent(app, GOOD).post() == 200


@pytest.mark.parametrize("place", PLACES)
async def test_overrides(place: Any) -> None:
    """A guard that a test has overridden does not run before; neither does one below an overridden dependency."""
    auth = counting()
    app = FastAPI()
    place(app, auth)
    assert await Sent(app, GOOD).post() == 401
    app.dependency_overrides[endpoint] = endpoint
    sent = Sent(app, MALFORMED)
    assert (await sent.post(), sent.read) == (401, 0)
    app.dependency_overrides = {auth.dependency: lambda: {"sub": "test", "scope": "items:read"}}
    assert await Sent(app, GOOD).post() == 200
    app.dependency_overrides.clear()
    with acting_as(app, auth, {"sub": "test", "scope": "items:read"}):
        assert await Sent(app, GOOD).post() == 200
    assert await Sent(app, GOOD).post() == 401


async def test_an_overridden_dependency_above_a_guard() -> None:
    """A dependency that FastAPI does not resolve is not resolved earlier."""
    auth = counting()

    async def user(claims: Annotated[Any, auth.authenticated()]) -> Any:
        return claims

    app = FastAPI()
    app.router.route_class = GuardedRoute
    app.post("/", dependencies=[Depends(user)])(endpoint)
    assert await Sent(app, GOOD).post() == 401
    assert await Sent(app, GOOD).post("/", forge("HS256")) == 200
    app.dependency_overrides[user] = lambda: "test"
    assert await Sent(app, GOOD).post() == 200


def test_forms_and_documentation() -> None:
    """Forms are read behind the guards too, and OpenAPI describes the route like any other."""
    auth = auth_of("HS256")
    app = FastAPI()
    app.router.route_class = GuardedRoute

    @app.post("/form", dependencies=[auth.authenticated()])
    async def form(name: Annotated[str, Form()]) -> str:
        return name

    client = TestClient(app)
    good = {"Authorization": f"Bearer {forge('HS256')}"}
    assert client.post("/form", data={"name": "ada"}, headers=good).json() == "ada"
    assert client.post("/form", content=b"\xff", headers={"Content-Type": "multipart/form-data"}).status_code == 401
    assert app.openapi()["paths"]["/form"]["post"]["security"] == [{"Bearer": []}]
