"""Guards that read a parameter of the path: an application whose path does not have it does not start.

The audit finds the same ones.
"""

from collections.abc import Callable
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, WebSocket
from fastapi.testclient import TestClient
from starlette.routing import Host, Route, Router

from fastapi_guard import ConfigurationError, ScopesAuth, configure_app
from fastapi_guard.app import assert_guarded, guarded, guarded_routes
from fastapi_guard.app.audit import NotGuarded


class Tenants(ScopesAuth):
    """An Auth that accepts every token, of the tenant acme."""

    async def verify(self, raw: str) -> dict[str, Any]:
        """Accept anything."""
        return {"sub": raw, "tenant_id": "acme"}


auth = Tenants(name="tenants")
either = auth | Tenants(name="others")
own = auth.requires_tenant()
HEADERS = {"Authorization": "Bearer x"}


async def endpoint() -> None:
    """Do nothing."""


async def socket(websocket: WebSocket) -> None:
    """Do nothing."""


def own_tenant(claims: Annotated[dict[str, Any], own]) -> str:
    """Return the tenant, as a dependency of the application."""
    tenant: str = claims["tenant_id"]
    return tenant


def app_with(path: str, *, mount: str = "", include: str = "", prefix: str = "", guard: Any = own) -> FastAPI:
    """Return an application with a guarded route in a router, included and mounted by these paths."""
    router = APIRouter(prefix=prefix, dependencies=[guard])
    router.get(path)(endpoint)
    app = below = FastAPI()
    if mount:
        below = FastAPI()
        app.mount(mount, below)
    below.include_router(router, prefix=include)
    return app


def with_websocket(path: str) -> FastAPI:
    """Return an application with a WebSocket."""
    app = FastAPI()
    app.websocket(path, dependencies=[own])(socket)
    return app


def with_mount(mount: str, path: str = "/x") -> FastAPI:
    """Return an application with a guarded mount."""
    app, below = FastAPI(), FastAPI()
    below.get(path)(endpoint)
    app.mount(mount, guarded(below, own))
    return app


def with_route(path: str) -> FastAPI:
    """Return an application with a route of Starlette's that is guarded."""
    app = FastAPI()
    app.router.routes.append(Route(path, guarded(Router([Route("/{rest:path}", endpoint)]), own)))
    return app


def with_host(host: str) -> FastAPI:
    """Return an application with another by a host."""
    app = FastAPI()
    app.router.routes.append(Host(host, app_with("/items")))
    return app


MISSING = [
    (lambda: app_with("/items"), "tenant", "/items"),
    (lambda: app_with("/{org}/items"), "tenant", "/{org}/items"),
    (lambda: app_with("/{tenant}", guard=auth.requires_tenant("org")), "org", "/{tenant}"),
    (lambda: app_with("/items", guard=Depends(own_tenant)), "tenant", "/items"),
    (lambda: app_with("/items", guard=either.requires_tenant()), "tenant", "/items"),
    (lambda: app_with("/items", mount="/a", include="/b", prefix="/c"), "tenant", "/a/b/c/items"),
    (lambda: with_websocket("/items"), "tenant", "/items"),
    (lambda: with_mount("/a", "/{tenant}"), "tenant", "/a"),
    (lambda: with_route("/a"), "tenant", "/a"),
    (lambda: with_host("shop.example"), "tenant", "/items"),
]


@pytest.mark.parametrize(("make", "name", "path"), MISSING, ids=map(str, range(len(MISSING))))
def test_a_path_without_the_parameter(make: Callable[[], FastAPI], name: str, path: str) -> None:
    """The application does not start; the error names the path, the parameter and the remedy."""
    app = make()
    configure_app(app)
    with pytest.raises(ConfigurationError) as refused, TestClient(app):
        pass  # pragma: no cover - it does not start
    where = f"reads {{{name}}}, which the path {path} does not have"
    remedy = "write it there, or pass the name of the parameter with the tenant as path_param="
    assert where in str(refused.value)
    assert str(refused.value).endswith(remedy)
    with pytest.raises(NotGuarded) as audited:
        assert_guarded(app)
    assert f" {path}: no guard: requires_tenant() of " in str(audited.value)
    assert where in str(audited.value)
    # Without a lifespan, the first request finds it, with or without a credential.
    with pytest.raises(ConfigurationError, match="which the path"):
        TestClient(app).get("/unknown")


@pytest.mark.parametrize(
    "make",
    [
        lambda: app_with("/{tenant}/items"),
        lambda: app_with("/{tenant:path}"),
        lambda: app_with("/items", prefix="/{tenant}"),
        lambda: app_with("/items", include="/{tenant}"),
        lambda: app_with("/items", mount="/{tenant}"),
        lambda: app_with("/items", mount="/{org}", guard=auth.requires_tenant("org")),
        lambda: with_websocket("/{tenant}/ws"),
        lambda: with_mount("/{tenant}"),
        lambda: with_route("/{tenant}"),
        lambda: with_host("{tenant}.shop.example"),
    ],
    ids=map(str, range(10)),
)
def test_a_path_with_the_parameter(make: Callable[[], FastAPI]) -> None:
    """The parameter may be in any part of the path, or in the host."""
    app = make()
    configure_app(app)
    with TestClient(app):
        pass
    assert not [text for route in guarded_routes(app) for text in route.findings if text.startswith("no guard")]


def test_a_mounted_application_does_not_know_its_whole_path() -> None:
    """An application with a configuration of its own is judged with the path of its mount."""
    app, below = FastAPI(), app_with("/items")
    configure_app(below)
    app.mount("/t/{tenant}", below)
    client = TestClient(app)
    assert client.get("/t/acme/items", headers=HEADERS).status_code == 200
    assert client.get("/t/other/items", headers=HEADERS).status_code == 403

    mounted = guarded(app_with("/items"), own)
    configure_app(mounted.app)  # type: ignore[arg-type]
    outer = FastAPI(lifespan=mounted.lifespan)
    outer.mount("/t/{tenant}", mounted)
    configure_app(outer)
    with TestClient(outer) as started:
        assert started.get("/t/acme/items", headers=HEADERS).status_code == 200
