"""The routes of api_keys_router, and what the router requires of its Auths."""

import json
import logging
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import make_url, select

from api_key.databases import Database
from fastapi_guard import (
    AnyAuth,
    APIKeyAuth,
    ConfigurationError,
    HierarchicalScopeValidator,
    JWTAuth,
    SimpleScopeValidator,
    configure_app,
)
from fastapi_guard.api_key.database import DatabaseAPIKeyAuth
from fastapi_guard.api_key.models import APIKeyEvent
from fastapi_guard.app.routes import routes_of
from fastapi_guard.events import Event
from fastapi_guard.routers.api_keys import api_keys_router, service_accounts_router
from fastapi_guard.stores import MemoryStore
from routers.api_keys.calling import ADMIN, ALICE, BOB, CONFIG, FORBIDDEN, MISSING, Service, in_future
from support.asgi import exchange

CONFLICT = (409, "The API key has expired, was revoked, paused or rotated before", None)


async def test_the_life_of_a_key(service: Service, database: Database) -> None:
    """Create, get, list, rotate and revoke one's own key; the key itself is in the two answers that made it."""
    answer = await service.call("POST", "/api-keys", ALICE, {"name": "ci", "scopes": ["items:read"]})
    assert (answer.status, answer.header("cache-control")) == (201, "no-store")
    assert answer.json.keys() == {"key_id", "key", "expires_at"}
    key_id, raw = answer.json["key_id"], answer.json["key"]
    claims = await service.keys.verify(raw)
    assert (claims["sub"], claims["scope"], claims["name"], claims["is_admin"]) == ("alice", "items:read", "ci", False)
    await service.keys.aclose()

    answer = await service.call("GET", f"/api-keys/{key_id}", ALICE)
    assert (answer.status, answer.header("cache-control")) == (200, "no-store")
    assert (answer.json["status"], answer.json["last_used_at"] is None) == ("active", False)
    assert answer.json.keys().isdisjoint({"key", "salt", "digest", "pepper"})
    listed = await service.call("GET", "/api-keys", ALICE)
    assert listed.json == [answer.json]

    answer = await service.call("POST", f"/api-keys/{key_id}/rotate", ALICE, {"overlap_seconds": 3600})
    assert (answer.status, answer.header("cache-control")) == (201, "no-store")
    new_id, new_raw = answer.json["key_id"], answer.json["key"]
    assert (await service.keys.verify(raw))["key_id"] == key_id
    assert (await service.keys.verify(new_raw))["scope"] == "items:read"
    again = await service.call("POST", f"/api-keys/{key_id}/rotate", ALICE)
    assert again.refusal == CONFLICT

    answer = await service.call("DELETE", f"/api-keys/{new_id}", ALICE)
    assert (answer.status, answer.body, answer.header("cache-control")) == (204, b"", "no-store")
    assert (await service.call("DELETE", f"/api-keys/{new_id}", ALICE)).status == 204
    assert not await service.keys.validate_token(new_raw)
    actors = await database.within(lambda session: set(session.scalars(select(APIKeyEvent.actor))))
    assert actors == {"alice"}


async def test_without_a_credential(service: Service) -> None:
    """Every route is a 401 for an unauthenticated request, before anything else."""
    routes = list(routes_of(service.app))
    assert len(routes) == 8
    assert all(route.is_guarded for route in routes)
    for route in routes:
        answer = await exchange(service.app, route.path.replace("{key_id}", "x"), method=route.methods[0], body=b"{")
        assert answer.refusal == (401, "Not authenticated", 'Bearer realm="api"')
        assert answer.header("cache-control") == "no-store"


async def test_pause_and_resume(service: Service) -> None:
    """An owner pauses and resumes a key; a pause by an administrator counts until an administrator ends it."""
    key = await service.created(ALICE)
    path = f"/api-keys/{key['key_id']}"

    async def after(action: str, claims: dict[str, Any]) -> tuple[int, str]:
        answer = await service.call("POST", f"{path}/{action}", claims)
        return answer.status, (await service.call("GET", path, ALICE)).json["status"]

    assert await after("pause", ALICE) == (204, "paused")
    assert not await service.keys.validate_token(key["key"])
    assert (await service.call("POST", f"{path}/rotate", ALICE)).refusal == CONFLICT
    assert await after("resume", ALICE) == (204, "active")
    assert await after("resume", ALICE) == (204, "active")
    assert await service.keys.validate_token(key["key"])
    assert await after("pause", ALICE) == (204, "paused")
    # The administrator takes over the pause of the owner, who can neither end it nor take it back.
    assert await after("pause", ADMIN) == (204, "paused")
    assert await after("pause", ALICE) == (204, "paused")
    assert await after("resume", ALICE) == (403, "paused")
    assert await after("resume", ADMIN) == (204, "active")
    assert (await service.call("POST", f"{path}/pause", BOB)).refusal == MISSING
    await service.keys.revoke(key["key_id"])
    for action in ("pause", "resume"):
        assert (await service.call("POST", f"{path}/{action}", ALICE)).refusal == CONFLICT


async def test_limits_and_networks(database: Database) -> None:
    """A key has a rate, a quota, networks, origins and an environment; its usage is shown, and nothing is counted."""
    keys = database.auth(usage=MemoryStore(), environments=("live", "test"))
    service = Service(keys, JWTAuth(CONFIG))
    body = {
        "environment": "test",
        "allowed_networks": ["192.0.2.0/24"],
        "allowed_origins": ["https://app.example"],
        "rate": "5/minute",
        "quota": 9,
        "quota_period_seconds": 3600,
    }
    key = await service.created(ALICE, **body)
    assert key["key"].startswith("sk_test_")
    shown = (await service.call("GET", f"/api-keys/{key['key_id']}", ALICE)).json
    assert {name: shown.get(name, shown["quota_seconds"]) for name in body} == body
    usage = await service.call("GET", f"/api-keys/{key['key_id']}/usage", ALICE)
    assert [(limit["name"], limit["amount"], limit["remaining"]) for limit in usage.json] == [
        ("rate", 5, 5),
        ("quota", 9, 9),
    ]
    assert (await service.call("GET", f"/api-keys/{key['key_id']}/usage", BOB)).refusal == MISSING
    endless = await service.created(ALICE, environment="live", quota=1, quota_period_seconds=None)
    usage = await service.call("GET", f"/api-keys/{endless['key_id']}/usage", ALICE)
    assert usage.json[0]["seconds"] is None


@pytest.mark.parametrize(
    "path",
    ["/api-keys/%00", "/api-keys/nope", "/api-keys/" + "x" * 255, "/api-keys/é", "/api-keys/'--"],
    ids=["NUL", "short", "long", "non-ASCII", "SQL"],
)
async def test_invalid_ids(service: Service, path: str) -> None:
    """A text that cannot be an id is not found, and a longer one than any is not looked up."""
    for method, suffix in (("GET", ""), ("DELETE", ""), ("POST", "/rotate"), ("POST", "/pause"), ("GET", "/usage")):
        assert (await service.call(method, path + suffix, ALICE)).refusal == MISSING
        assert (await service.call(method, "/api-keys/" + "x" * 256 + suffix, ALICE)).status == 422


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=sk-secret", "offset=-1", "offset=99999999999", "user_id=%00", "user_id=%ED%A0%80x"]
)
async def test_queries(service: Service, query: str) -> None:
    """Pages are bounded, an owner is a text, and a refused query is not repeated."""
    answer = await service.call("GET", f"/api-keys?{query}", ADMIN)
    assert (answer.status, answer.json == []) in ((422, False), (200, True))
    assert answer.status == 422 or "ED" in query
    assert b"sk-secret" not in answer.body
    assert b"input" not in answer.body or answer.status == 422
    for _ in range(3):
        await service.created(ADMIN)
    assert len(await service.listed(ADMIN, "limit=2")) == 2
    assert len(await service.listed(ADMIN, "limit=2&offset=2")) == 1


async def test_scopes_for_all_and_another_prefix(database: Database) -> None:
    """The application may require a scope of every caller, and choose the paths and the scope of administrators."""
    service = Service(database.auth(), JWTAuth(CONFIG), prefix="/keys", scopes=["keys:edit"], admin_scope="keys:admin")
    challenge = 'Bearer realm="api", error="insufficient_scope", scope="keys:edit"'
    refusal = (403, "Token is missing required scope: keys:edit", challenge)
    assert (await service.call("GET", "/keys", ALICE)).refusal == refusal
    owner = {"sub": "alice", "scope": "keys:edit"}
    assert (await service.call("POST", "/keys", owner, {})).status == 201
    administrator = {"sub": "x", "scope": "keys:edit keys:admin"}
    assert (await service.call("GET", "/keys?user_id=alice", administrator)).status == 200


async def test_refusals_are_reported(database: Database) -> None:
    """A refusal of the router is an event of the Auth that verified the caller, as every other refusal is."""
    seen: list[Event] = []
    service = Service(database.auth(), JWTAuth(CONFIG, on_event=seen.append))
    assert (await service.call("GET", "/api-keys?user_id=bob", ALICE)).refusal == FORBIDDEN
    assert (await service.call("POST", "/api-keys", ALICE, {"is_admin": True})).status == 403
    assert (await service.call("POST", "/api-keys", {"sub": "a", "tenant_id": ["x", "y"]}, {})).status == 403
    refused = [(event.reason, event.subject) for event in seen if event.name == "refused"]
    assert refused == [("not_an_administrator", "alice"), ("exceeds_credential", "alice"), ("several_tenants", "a")]


async def test_a_database_that_is_unavailable(tmp_path: Path, anyio_backend: str) -> None:
    """Without its database every route is a 503."""
    database = Database.of(make_url(f"sqlite:///{tmp_path / 'none' / 'keys.db'}"))
    service = Service(database.auth(), JWTAuth(CONFIG))
    one = "/" + "0" * 16
    for method, path, body in (("POST", "", {}), ("GET", "", None), ("GET", one, None), ("DELETE", one, None)):
        answer = await service.call(method, f"/api-keys{path}", ALICE, body)
        assert (answer.status, answer.header("retry-after")) == (503, "5")
    await database.dispose()


def test_openapi(database: Database) -> None:
    """The document has the guard, the body and the statuses of each operation, and no example of a key."""
    app = FastAPI()
    app.include_router(api_keys_router(database.auth(), auth=JWTAuth(CONFIG)))
    app.include_router(
        service_accounts_router(database.auth(), auth=JWTAuth(CONFIG), tenant_param="tenant", prefix="/t/{tenant}/sa")
    )
    configure_app(app)
    document = app.openapi()
    paths = ["", "/{key_id}", "/{key_id}/pause", "/{key_id}/resume", "/{key_id}/rotate", "/{key_id}/usage"]
    of_accounts = ["/t/{tenant}/sa", *("/t/{tenant}/sa/{account}/keys" + path for path in paths)]
    assert sorted(document["paths"]) == [*("/api-keys" + path for path in paths), *of_accounts]
    create = document["paths"]["/api-keys"]["post"]
    assert create["security"] == [{"Bearer": []}]
    schema = create["requestBody"]["content"]["application/json"]["schema"]
    assert {"name", "scopes", "expires_at", "rate", "quota"} <= schema["properties"].keys()
    statuses = {
        (path, method): set(map(int, operation["responses"])) - {401, 403, 503}
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        if path.startswith("/api-keys")
    }
    one = "/api-keys/{key_id}"
    assert statuses == {
        ("/api-keys", "post"): {201, 409, 413, 415, 422},
        ("/api-keys", "get"): {200, 422},
        (one, "get"): {200, 404, 422},
        (one, "delete"): {204, 404, 422},
        (f"{one}/usage", "get"): {200, 404, 422},
        (f"{one}/rotate", "post"): {201, 404, 409, 413, 415, 422},
        (f"{one}/pause", "post"): {204, 404, 409, 422},
        (f"{one}/resume", "post"): {204, 404, 409, 422},
    }
    parameters = document["paths"]["/t/{tenant}/sa/{account}/keys/{key_id}"]["get"]["parameters"]
    assert sorted(parameter["name"] for parameter in parameters) == ["account", "key_id", "tenant"]
    assert "example" not in json.dumps(document)
    assert "sk-" not in json.dumps(document)


GUARDS: dict[str, Callable[[], Any]] = {
    "nothing": lambda: None,
    "presence only": APIKeyAuth,
    "a class": lambda: DatabaseAPIKeyAuth,
    "a member without scopes": lambda: AnyAuth(JWTAuth(CONFIG), APIKeyAuth(name="presence")),
}
ROUTERS: tuple[Any, ...] = (api_keys_router, service_accounts_router)


@pytest.fixture
def unused() -> DatabaseAPIKeyAuth:
    """Return an Auth whose database is not used."""
    return DatabaseAPIKeyAuth(Database.of(make_url("sqlite:///unused.db")).factory)


@pytest.mark.parametrize("guard", GUARDS)
@pytest.mark.parametrize("router", ROUTERS)
def test_it_needs_an_auth_with_scopes(unused: DatabaseAPIKeyAuth, router: Any, guard: str) -> None:
    """Without an Auth whose scopes can be compared the router cannot be built, nor without one at all."""
    with pytest.raises(ConfigurationError, match="pass a ScopesAuth"):
        router(unused, auth=GUARDS[guard]())
    with pytest.raises(TypeError, match="auth"):
        router(unused)
    router(unused, auth=unused)


class Scopes(HierarchicalScopeValidator):
    """A hierarchy that each instance has."""

    def __init__(self, edit: set[str]) -> None:
        """Let `edit` cover these actions."""
        self.scope_hierarchy = {"edit": edit}  # type: ignore[misc]


@pytest.mark.parametrize("router", ROUTERS)
def test_two_ways_to_decide(unused: DatabaseAPIKeyAuth, router: Any) -> None:
    """Two validators, or keys that read another tenant than their own, are an error: a key could do too much."""

    class Own(HierarchicalScopeValidator):
        """Another hierarchy."""

        scope_hierarchy = {"all": {"read"}}  # noqa: RUF012 - as documented

    for validator in (SimpleScopeValidator(), Own()):
        other = JWTAuth(CONFIG, scope_validator=validator)
        for auth in (other, unused | other):
            with pytest.raises(ConfigurationError, match="two ways"):
                router(unused, auth=auth)
    for mine, theirs in (({"read"}, {"read", "delete"}), ({"read"}, {"read"})):
        alike = Scopes(mine), Scopes(theirs)
        keys = DatabaseAPIKeyAuth(Database.of(make_url("sqlite:///unused.db")).factory, scope_validator=alike[0])
        auth = JWTAuth(CONFIG, scope_validator=alike[1])
        with nullcontext() if mine == theirs else pytest.raises(ConfigurationError, match="two ways"):
            router(keys, auth=auth)
    with pytest.raises(ConfigurationError, match="is not a scope"):
        router(unused, auth=unused, admin_scope="a b")
    with pytest.raises(ConfigurationError, match="max_lifetime"):
        router(unused, auth=unused, max_lifetime=0)
    factory = Database.of(make_url("sqlite:///unused.db")).factory
    with pytest.raises(ConfigurationError, match="tenant_id"):
        router(DatabaseAPIKeyAuth(factory, tenant_claims=("org",)), auth=unused)
    router(DatabaseAPIKeyAuth(factory, tenant_claims=("org", "tenant_id")), auth=unused, max_lifetime=None)


def test_outliving_is_logged(unused: DatabaseAPIKeyAuth, caplog: pytest.LogCaptureFixture) -> None:
    """The keyword that weakens the rule is logged at the start."""
    caplog.set_level(logging.WARNING)
    api_keys_router(unused, auth=unused)
    assert caplog.text == ""
    api_keys_router(unused, auth=unused, allow_outliving=True)
    assert "allow_outliving lets API keys live longer" in caplog.text


async def test_a_key_that_the_database_refuses(database: Database) -> None:
    """A constraint of the application's table is a 409."""
    await database.within(
        lambda session: session.connection().exec_driver_sql("CREATE UNIQUE INDEX one ON api_keys (user_id)")
    )
    service = Service(database.auth(), JWTAuth(CONFIG))
    assert await service.created(ALICE, expires_at=in_future(days=1))
    assert (await service.call("POST", "/api-keys", ALICE, {})).status == 409
