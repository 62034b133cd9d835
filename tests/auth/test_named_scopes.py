"""The 401 for a request without a credential names the scopes that the route needs (RFC 6750 3)."""

from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, WebSocket
from starlette.requests import HTTPConnection
from starlette.testclient import TestClient, WebSocketDenialResponse

from fastapi_guard import APIKeyScheme, BearerScheme, ConfigurationError, ScopesAuth, configure_app
from fastapi_guard.app import guarded
from fastapi_guard.routers import protected_resource_router
from support.guarded import send
from support.tokens import auth_of

METADATA = 'resource_metadata="https://api.example/.well-known/oauth-protected-resource"'
PLAIN = 'Bearer realm="api"'


class Keys(ScopesAuth):
    """An Auth of the application with keys in a header."""

    name = "keys"

    async def verify(self, raw: str) -> dict[str, Any]:  # type: ignore[empty-body]
        """Verify nothing: no test sends a key."""


def app_of(auth: ScopesAuth, **settings: Any) -> FastAPI:
    """Return an application with routes that need scopes in several ways."""
    app = FastAPI(dependencies=[auth.optional()])
    router = APIRouter(prefix="/items", dependencies=[auth.requires("items:read")])

    def editing(claims: Annotated[Any, auth.requires("items:edit")]) -> None:
        """Require a scope: no request gets this far."""

    @router.get("/one", dependencies=[auth.requires("items:list", "items:read")])
    @router.get("/nested", dependencies=[Depends(editing)])
    @router.get("/any", dependencies=[auth.requires_any("a", "b")])
    @router.get("/router")
    async def items() -> None:
        """Return nothing: no request gets this far."""

    @app.get("/none", dependencies=[auth.authenticated()])
    @app.get("/admin", dependencies=[auth.requires_admin()])
    async def others() -> None:
        """Return nothing: no request gets this far."""

    app.include_router(router)
    configure_app(app, **settings)
    return app


async def challenge_at(app: FastAPI, path: str) -> str:
    """Return the challenge of the 401 for a request without a credential."""
    response = await send(app, path=path)
    assert response.status_code == 401
    assert response.json()["detail"] == "Not authenticated"
    return response.headers["WWW-Authenticate"]


NEEDED = {
    "/items/one": "items:read items:list",
    "/items/nested": "items:read items:edit",
    "/items/router": "items:read",
    "/items/any": "items:read",
    "/none": "",
    "/admin": "",
}


@pytest.mark.parametrize("path", NEEDED)
async def test_the_scopes_of_a_route(path: str) -> None:
    """Those of its own guards and of the routers around it, each once; by default, and where switched off, none."""
    auth = auth_of("ES256")
    scope = f', scope="{NEEDED[path]}"' if NEEDED[path] else ""
    assert await challenge_at(app_of(auth, name_scopes=True), path) == f"{PLAIN}{scope}"
    assert await challenge_at(app_of(auth), path) == PLAIN
    assert await challenge_at(app_of(auth, name_scopes=False), path) == PLAIN
    protected_resource_router(auth, resource="https://api.example", authorization_servers=["https://id.example"])
    assert await challenge_at(app_of(auth), path) == f"{PLAIN}{scope}, {METADATA}"
    assert await challenge_at(app_of(auth, name_scopes=False), path) == f"{PLAIN}, {METADATA}"


async def test_a_router_that_is_included_twice() -> None:
    """The scopes are those of the include by which the request came."""
    auth = auth_of("ES256")
    router = APIRouter(dependencies=[auth.requires("items:read")])
    router.get("/items")(lambda: None)
    app = FastAPI()
    for prefix, scope in (("/own", "own:read"), ("/all", "all:read")):
        app.include_router(router, prefix=prefix, dependencies=[auth.requires(scope)])
    configure_app(app, name_scopes=True)
    assert await challenge_at(app, "/own/items") == f'{PLAIN}, scope="own:read items:read"'
    assert await challenge_at(app, "/all/items") == f'{PLAIN}, scope="all:read items:read"'


async def test_only_an_absent_credential() -> None:
    """An invalid token is refused with its own code, and names no scopes (RFC 6750 3.1)."""
    app = app_of(auth_of("ES256"), name_scopes=True)
    refused = await send(app, "not.a.token", path="/items/one")
    assert refused.status_code == 401
    assert "scope=" not in refused.headers["WWW-Authenticate"]
    other = await send(app, path="/items/one", headers={"Authorization": "Basic eDp5"})
    assert other.headers["WWW-Authenticate"] == f'{PLAIN}, scope="items:read items:list"'


async def test_several_auths() -> None:
    """The scopes are those of the bearer scheme; a challenge for keys has none. A callable of ours challenges alike."""
    auth = auth_of("ES256") | Keys(APIKeyScheme("X-Key"))
    challenge = await challenge_at(app_of(auth, name_scopes=True), "/items/one")
    assert challenge == f'{PLAIN}, scope="items:read items:list", ApiKey realm="api"'
    assert await challenge_at(app_of(auth), "/items/one") == f'{PLAIN}, ApiKey realm="api"'

    class Scheme(BearerScheme):
        async def __call__(self, connection: HTTPConnection) -> str | None:
            return await super().__call__(connection)

    own = app_of(Keys(Scheme()), name_scopes=True)
    assert await challenge_at(own, "/items/one") == f'{PLAIN}, scope="items:read items:list"'
    assert await challenge_at(app_of(Keys(Scheme())), "/items/one") == PLAIN


def test_websockets_and_mounts() -> None:
    """A handshake is challenged alike, and a guarded mount names the scopes of its guard."""
    auth = auth_of("ES256")
    app = FastAPI()

    @app.websocket("/live", dependencies=[auth.requires("items:watch")])
    async def live(socket: WebSocket) -> None:
        """Accept nothing: no handshake gets this far."""

    app.mount("/files", guarded(FastAPI(), auth.requires("files:read")))
    configure_app(app, name_scopes=True)
    client = TestClient(app)
    with pytest.raises(WebSocketDenialResponse) as denied:
        client.websocket_connect("/live").__enter__()
    assert denied.value.headers["WWW-Authenticate"] == f'{PLAIN}, scope="items:watch"'
    assert client.get("/files/a").headers["WWW-Authenticate"] == f'{PLAIN}, scope="files:read"'


def test_the_option_is_a_bool() -> None:
    """Anything else is an error, and so is another value at a second call."""
    app = FastAPI()
    with pytest.raises(ConfigurationError, match="name_scopes is True"):
        configure_app(app, name_scopes="yes")  # type: ignore[arg-type]
    configure_app(app, name_scopes=True)
    with pytest.raises(ConfigurationError, match="called twice"):
        configure_app(app, name_scopes=False)
