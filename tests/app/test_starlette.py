from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import pytest
from fastapi import Cookie, FastAPI, HTTPException, Request, WebSocket
from fastapi.responses import JSONResponse
from fastapi.testclient import TestClient
from starlette.applications import Starlette
from starlette.authentication import AuthenticationError, requires
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocketDisconnect

from fastapi_guard import (
    APIKeyScheme,
    Auth,
    ConfigurationError,
    JWTAuth,
    ServiceUnavailable,
    Unauthorized,
    configure_app,
)
from fastapi_guard.app.starlette import GuardBackend, GuardUser, on_error
from support.tokens import auth_of, forge, valid_claims

PLAIN = 'Bearer realm="api"'
INVALID = f'{PLAIN}, error="invalid_token", error_description="The access token is invalid"'


class Counting(JWTAuth):
    """Count the verifications."""

    verified = 0

    async def verify(self, raw: str) -> dict[str, Any]:
        """Verify, unless the backend is unavailable."""
        self.verified += 1
        if raw == "a.w.ay":
            raise ServiceUnavailable(retry_after=7)
        return await super().verify(raw)


def counting(**options: Any) -> Counting:
    """Return an Auth whose clock stands still."""
    auth = auth_of("HS256")
    return Counting(auth.config, clock=auth._clock, **options)


def bearer(**claims: Any) -> dict[str, str]:
    """Return the header with a token."""
    return {"Authorization": f"Bearer {forge('HS256', valid_claims(**claims))}"}


def behind(
    auth: Any, load_user: Callable[..., Any] | None = None, missing_user: Any = "anonymous", **options: Any
) -> FastAPI:
    """Return an application behind the middleware, with a route that returns the user."""
    app = FastAPI()
    options = {"on_error": on_error, **options}
    backend = GuardBackend(auth, load_user, missing_user=missing_user)
    app.add_middleware(AuthenticationMiddleware, backend=backend, **options)

    @app.get("/")
    async def who(request: Request) -> list[Any]:
        return [request.user.is_authenticated, request.user.display_name, request.auth.scopes]

    return app


# --- who it is -------------------------------------------------------------------------------------------------------


def test_the_user_of_a_request() -> None:
    """A valid credential makes a user with the scopes of its claims; an anonymous caller is Starlette's."""
    auth = counting(roles={"editor": ["posts:*"]})
    client = TestClient(behind(auth))
    assert client.get("/").json() == [False, "", []]
    assert client.get("/", headers=bearer()).json() == [True, "ada", ["items:read"]]
    named = bearer(name="Ada Lovelace", roles=["editor"])
    assert client.get("/", headers=named).json() == [True, "Ada Lovelace", ["items:read", "posts:*"]]


async def test_the_user() -> None:
    """It has its subject, its claims, and permissions as a guard would decide."""
    user = GuardUser({"sub": 7, "preferred_username": "ada"}, lambda scope: scope == "items:read")
    assert (user.is_authenticated, user.identity, user.display_name) == (True, "7", "ada")
    assert (user.has_permission("items:read"), user.has_permission("items:edit")) == (True, False)
    nobody = GuardUser("raw", bool)
    assert (nobody.identity, nobody.display_name, nobody.claims) == ("", "", "raw")


def test_permissions() -> None:
    """Permissions and Starlette's @requires are decided as a guard decides: by the validator, and by roles."""
    app = behind(counting(roles={"editor": ["posts:*"]}))

    @app.get("/permitted")
    async def permitted(request: Request) -> list[bool]:
        return [request.user.has_permission(scope) for scope in ("posts:read", "items:read", "items:edit")]

    @app.get("/posts")
    @requires("posts:delete")
    async def posts(request: Request) -> str:
        return "posts"

    @app.get("/anybody")
    @requires(["authenticated"])
    async def anybody(request: Request) -> list[bool]:
        return [5 in request.auth.scopes, "nothing" in request.auth.scopes]

    client = TestClient(app)
    assert client.get("/permitted", headers=bearer(roles=["editor"])).json() == [True, True, False]
    assert client.get("/posts", headers=bearer(roles=["editor"])).json() == "posts"
    assert client.get("/posts", headers=bearer()).status_code == 403
    assert client.get("/posts").status_code == 403
    assert client.get("/anybody", headers=bearer(scope=...)).json() == [False, False]
    assert client.get("/anybody").status_code == 403


@dataclass
class Member:
    """A user of the application, with permissions of its own."""

    name: str
    is_authenticated: bool = True

    @property
    def display_name(self) -> str:
        """The name."""
        return self.name.upper()

    def has_permission(self, scope: str) -> bool:
        """Allow what begins with the name."""
        return scope.startswith(self.name)


def load(claims: dict[str, Any]) -> Member | None:
    """Load in a thread."""
    return None if claims["sub"] == "eve" else Member(claims["sub"])


async def load_later(claims: dict[str, Any]) -> Member | None:
    """Load on the loop."""
    return load(claims)


async def load_without_await(claims: dict[str, Any]) -> Any:
    """Return a coroutine that nothing awaited yet."""
    return load_later(claims)


LOADERS = [load, load_later, lambda claims: load_later({**claims}), load_without_await]


@pytest.mark.parametrize("load_user", LOADERS)
def test_a_user_of_ones_own(load_user: Callable[..., Any]) -> None:
    """A class of the application's own is the user; without one the request is anonymous, or a 401."""
    app = behind(counting(), load_user)

    @app.get("/permitted")
    async def permitted(request: Request) -> list[bool]:
        return [request.user.has_permission(scope) for scope in ("ada:x", "items:read")]

    client = TestClient(app)
    assert client.get("/", headers=bearer()).json() == [True, "ADA", ["items:read"]]
    assert client.get("/permitted", headers=bearer()).json() == [True, False]
    assert client.get("/", headers=bearer(sub="eve")).json() == [False, "", []]
    strict = TestClient(behind(counting(), load_user, missing_user="refuse"))
    assert strict.get("/", headers=bearer()).json() == [True, "ADA", ["items:read"]]
    refused = strict.get("/", headers=bearer(sub="eve"))
    assert (refused.status_code, refused.json()) == (401, {"detail": "The access token is invalid"})
    assert refused.headers["www-authenticate"] == INVALID
    assert client.get("/").json() == [False, "", []]


def test_a_user_that_is_false() -> None:
    """``False`` is not a user, as for ``Auth.user``: the request has no scopes."""
    client = TestClient(behind(counting(), lambda _: False))
    assert client.get("/", headers=bearer()).json() == [False, "", []]
    strict = TestClient(behind(counting(), lambda _: False, missing_user="refuse"))
    assert strict.get("/", headers=bearer()).status_code == 401


@pytest.mark.parametrize("load_user", [lambda: None, lambda claims, request: None], ids=["none", "two"])
def test_a_loader_of_other_parameters(load_user: Callable[..., Any]) -> None:
    """It would fail at every request with a credential."""
    with pytest.raises(
        ConfigurationError, match=r"^load_user has other parameters than it is called with: \(claims\)$"
    ):
        GuardBackend(counting(), load_user)


def test_what_a_missing_user_is() -> None:
    """It is an anonymous request or a refusal, and nothing else."""
    ignore: Any = "ignore"
    with pytest.raises(ConfigurationError, match=r"missing_user is .* not 'ignore'"):
        GuardBackend(counting(), missing_user=ignore)


def test_a_class_that_is_given_the_claims() -> None:
    """A class is a loader of its instances."""

    class Own:
        is_authenticated = True

        def __init__(self, claims: dict[str, Any]) -> None:
            self.display_name = claims["sub"]

    assert TestClient(behind(counting(), Own)).get("/", headers=bearer()).json() == [True, "ada", ["items:read"]]


def test_a_loader_that_fails() -> None:
    """An HTTPException of the loader is the answer, and any other exception a fault of the application."""

    def fail(claims: dict[str, Any]) -> Any:
        if claims["sub"] == "teapot":
            raise HTTPException(418, "Tea")
        raise ZeroDivisionError

    client = TestClient(behind(counting(), fail))
    refused = client.get("/", headers=bearer(sub="teapot"))
    assert (refused.status_code, refused.json()) == (418, {"detail": "Tea"})
    with pytest.raises(ZeroDivisionError):
        client.get("/", headers=bearer())


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("configured", [False, True])
def test_a_bad_credential(configured: bool) -> None:
    """An invalid credential is a 401 on every route, with the same response as a guard's refusal."""
    app = behind(counting())
    if configured:
        configure_app(app)
    client = TestClient(app)
    for path in ("/", "/docs", "/nowhere"):
        refused = client.get(path, headers={"Authorization": "Bearer a.b.c"})
        assert (refused.status_code, refused.json()["detail"]) == (401, "The access token is invalid")
        assert refused.headers["www-authenticate"] == INVALID
        expected = "application/problem+json" if configured else "application/json"
        assert refused.headers["content-type"] == expected
    away = client.get("/", headers={"Authorization": "Bearer a.w.ay"})
    assert (away.status_code, away.headers["retry-after"]) == (503, "7")
    assert client.get("/", headers={"Authorization": "Basic YTpi"}).status_code == 200


@pytest.mark.parametrize("is_async", [False, True])
def test_handlers_of_the_application(is_async: bool) -> None:
    """A handler of the application's own answers, sync or async; one for everything is not asked."""
    app = behind(counting())

    def own(request: Request, error: Unauthorized) -> JSONResponse:
        return JSONResponse({"own": error.reason}, error.status_code, headers=error.headers)

    async def own_later(request: Request, error: Unauthorized) -> JSONResponse:
        return own(request, error)

    def everything(request: Request, error: Exception) -> JSONResponse:
        raise AssertionError  # pragma: no cover - it is not asked

    app.add_exception_handler(Unauthorized, own_later if is_async else own)  # type: ignore[arg-type]
    app.add_exception_handler(Exception, everything)
    refused = TestClient(app).get("/", headers={"Authorization": "Bearer a.b.c"})
    assert (refused.status_code, refused.json()) == (401, {"own": "base64url"})


def test_without_on_error() -> None:
    """Starlette's own answer has the text and no more."""
    refused = TestClient(behind(counting(), on_error=None)).get("/", headers={"Authorization": "Bearer a.b.c"})
    assert (refused.status_code, refused.text) == (400, "The access token is invalid")


def test_a_refusal_of_another_backend() -> None:
    """An error that is not ours is a 401."""
    request = Request({"type": "http", "headers": []})
    assert on_error(request, AuthenticationError("who?")).status_code == 401


def test_starlette_alone() -> None:
    """A Starlette application without handlers refuses a bad credential too."""

    def page(request: Request) -> PlainTextResponse:
        return PlainTextResponse(request.user.display_name)

    async def echo(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(websocket.user.display_name)
        await websocket.close()

    middleware = [Middleware(AuthenticationMiddleware, backend=GuardBackend(counting()), on_error=on_error)]
    client = TestClient(Starlette(routes=[Route("/", page), WebSocketRoute("/ws", echo)], middleware=middleware))
    assert client.get("/", headers=bearer()).text == "ada"
    refused = client.get("/", headers={"Authorization": "Bearer a.b.c"})
    assert (refused.status_code, refused.headers["www-authenticate"]) == (401, INVALID)
    with client.websocket_connect("/ws", headers=bearer()) as session:
        assert session.receive_text() == "ada"
    with (
        pytest.raises(WebSocketDisconnect),
        client.websocket_connect("/ws", headers={"Authorization": "Bearer a.b.c"}),
    ):
        pass  # pragma: no cover - it is not accepted


# --- together with guards --------------------------------------------------------------------------------------------


def test_nothing_is_verified_twice() -> None:
    """The guards behind the middleware find what it has verified, in included and mounted applications too."""
    auth = counting()
    app = behind(auth)

    @app.get("/guarded", dependencies=[auth.requires("items:read")])
    async def guarded(request: Request, claims: Annotated[Any, auth.authenticated()]) -> list[Any]:
        return [claims["sub"], request.user.identity, request.state.auth_method]

    inner = FastAPI()
    inner.get("/x", dependencies=[auth.requires("items:read")])(lambda: "inner")
    app.mount("/inner", inner)
    client = TestClient(app)
    assert client.get("/guarded", headers=bearer()).json() == ["ada", "ada", "jwt"]
    assert auth.verified == 1
    assert client.get("/inner/x", headers=bearer()).json() == "inner"
    assert auth.verified == 2
    assert client.get("/guarded").status_code == 401
    assert client.get("/guarded", headers=bearer(scope="x")).status_code == 403


def test_several_auths() -> None:
    """An AnyAuth authenticates by any of its members, whose rules decide about permissions."""

    class Keys(Auth[str]):
        name = "keys"

        async def verify(self, raw: str) -> str:
            return raw

    keys = Keys(APIKeyScheme("X-Key"))
    app = behind(counting() | keys)

    @app.get("/permitted")
    async def permitted(request: Request) -> list[Any]:
        return [request.state.auth_method, request.user.has_permission("items:read"), request.user.identity]

    client = TestClient(app)
    assert client.get("/permitted", headers=bearer()).json() == ["jwt", True, "ada"]
    assert client.get("/permitted", headers={"X-Key": "k"}).json() == ["keys", False, ""]
    assert client.get("/").json()[0] is False
    assert client.get("/", headers={"Authorization": "Bearer a.b.c"}).status_code == 401


def test_a_cookie_of_another_site() -> None:
    """The same-origin rule holds in the middleware as well."""
    auth = counting(scheme=APIKeyScheme("sid", "cookie"))
    app = behind(auth)
    app.post("/")(lambda: "done")
    client = TestClient(app, cookies={"sid": forge("HS256")})
    assert client.post("/").json() == "done"
    refused = client.post("/", headers={"Origin": "https://evil.example"})
    assert (refused.status_code, refused.json()) == (403, {"detail": "Forbidden"})


def test_a_scheme_that_fastapi_resolves() -> None:
    """No middleware can resolve a scheme with FastAPI parameters: ConfigurationError when constructed."""

    def scheme(session: Annotated[str | None, Cookie()] = None) -> str | None:
        return session  # pragma: no cover - nothing is sent here

    resolved = counting(scheme=scheme)
    for auth in (resolved, counting(name="plain") | resolved):
        with pytest.raises(ConfigurationError, match="a middleware runs before FastAPI"):
            GuardBackend(auth)
