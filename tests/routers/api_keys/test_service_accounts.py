"""The keys of service accounts, which administrators manage and which outlive them."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from api_key.databases import Database
from fastapi_guard import JWTAuth
from fastapi_guard.routers.api_keys import api_keys_router, service_accounts_router
from routers.api_keys.calling import ADMIN, ALICE, CONFIG, EXCEEDS, FORBIDDEN, MISSING, Service, in_future

CI = "/service-accounts/ci/keys"
HERE = {**ADMIN, "tenant": "acme"}


@pytest.fixture
def service(database: Database) -> Service:
    """Return an application with both routers."""
    keys, auth = database.auth(), JWTAuth(CONFIG)
    service = Service(keys, auth, router=service_accounts_router(keys, auth=auth))
    service.app.include_router(api_keys_router(keys, auth=keys))
    return service


async def test_a_key_of_a_service_account(service: Service) -> None:
    """It acts as no user, is of the tenant of the administrator, and is not revoked with the administrator."""
    short = {**HERE, "exp": int(datetime.now(UTC).timestamp()) + 300}
    key = await service.created(short, CI, scopes=["items:read"], name="deploy")
    claims = await service.keys.verify(key["key"])
    assert (claims["sub"], claims["subject_type"], claims["tenant_id"]) == ("service:acme/ci", "service", "acme")
    assert (key["expires_at"], claims["scope"], "iss" in claims) == (None, "items:read", False)
    assert await service.keys.revoke_subject("root") == 0
    assert await service.keys.validate_token(key["key"])
    assert await service.keys.revoke_subject("service:acme/ci") == 1


async def test_other_administrators_of_the_tenant(service: Service) -> None:
    """Every administrator of the tenant manages the keys of its accounts, and no other caller."""
    key = await service.created(HERE, CI, scopes=["items:read"])
    path, second = f"{CI}/{key['key_id']}", {**HERE, "sub": "second"}
    for action, state in (("pause", "paused"), ("resume", "active")):
        assert (await service.call("POST", f"{path}/{action}", second)).status == 204
        assert (await service.call("GET", path, HERE)).json["status"] == state
    for query in ("", "?limit=1"):
        for listing in (CI, "/service-accounts"):
            listed = await service.call("GET", listing + query, second)
            assert [shown["key_id"] for shown in listed.json] == [key["key_id"]]
    assert (await service.call("GET", f"{path}/usage", second)).json == []
    missing = f"/service-accounts/other/keys/{key['key_id']}"
    for administrator in (ADMIN, {**ADMIN, "tenant": "other"}):
        assert (await service.call("GET", path, administrator)).refusal == MISSING
        assert (await service.call("POST", f"{path}/rotate", administrator)).refusal == MISSING
        assert (await service.call("GET", CI, administrator)).json == []
        assert (await service.call("GET", "/service-accounts", administrator)).json == []
    assert (await service.call("GET", missing, HERE)).refusal == MISSING
    for method, url in (("GET", CI), ("POST", CI), ("GET", "/service-accounts"), ("DELETE", path)):
        refusal = await service.call(method, url, {**ALICE, "tenant": "acme"}, {})
        assert refusal.refusal[:2] == (403, "Token is missing required scope: api-keys:admin")
    rotated = await service.call("POST", f"{path}/rotate", second)
    assert (await service.keys.verify(rotated.json["key"]))["sub"] == "service:acme/ci"
    assert (await service.call("DELETE", f"{CI}/{rotated.json['key_id']}", HERE)).status == 204


async def test_it_exceeds_no_administrator(service: Service) -> None:
    """A key of an account has no more than the administrator who creates or rotates it."""
    key = await service.created(HERE, CI, scopes=["items:read"], is_admin=True)
    lesser: dict[str, Any] = {"sub": "lesser", "scope": "api-keys:admin", "tenant": "acme"}
    for body in ({"is_admin": True}, {"scopes": ["items:read"]}, {"scopes": ["*"]}):
        assert (await service.call("POST", CI, lesser, body)).refusal == EXCEEDS
    assert (await service.call("POST", f"{CI}/{key['key_id']}/rotate", lesser)).refusal == EXCEEDS
    assert (await service.call("POST", CI, lesser, {})).status == 201


async def test_keys_of_users_are_not_there(service: Service) -> None:
    """A user of the name of an account, and a key of a user, are not reached by way of an account."""
    user_key, _ = await service.keys.create(user_id="service:acme/ci", tenant_id="acme")
    other, _ = await service.keys.create(user_id="ci", tenant_id="acme", subject_type="service")
    for key_id in (user_key, other):
        assert (await service.call("GET", f"{CI}/{key_id}", HERE)).refusal == MISSING
        assert (await service.call("POST", f"{CI}/{key_id}/rotate", HERE)).refusal == MISSING
    assert (await service.call("GET", CI, HERE)).json == []


async def test_an_account_manages_its_own_keys(service: Service) -> None:
    """With a key an account rotates it and creates others, as a user does."""
    key = await service.created(HERE, CI, scopes=["items:read"])
    assert (await service.call("GET", "/api-keys", key["key"])).json[0]["key_id"] == key["key_id"]
    assert (await service.call("POST", f"/api-keys/{key['key_id']}/rotate", key["key"])).status == 201


@pytest.mark.parametrize("account", ["a/b", "-ci", "c" * 65, "é", "a b", "a%2Fb", ".."])
async def test_names_that_are_not_accepted(service: Service, account: str) -> None:
    """The name of an account has letters, digits, dots, hyphens and underscores, and is not repeated."""
    answer = await service.call("POST", f"/service-accounts/{account}/keys", HERE, {})
    assert answer.status in (404, 422)
    assert account.encode() not in answer.body
    assert (await service.call("POST", "/service-accounts/a.b-c_1/keys", HERE, {})).status == 201


async def test_a_long_tenant(service: Service) -> None:
    """A tenant so long that the subject of an account would not fit is refused, not cut."""
    assert (await service.call("POST", CI, {**ADMIN, "tenant": "t" * 250}, {})).refusal == FORBIDDEN
    assert (await service.call("POST", CI, {**ADMIN, "tenant": "t" * 200}, {})).status == 201


async def test_a_tenant_in_the_path(database: Database) -> None:
    """The routes may be below a tenant, whose administrators alone have access; keys live at most so long."""
    keys, auth = database.auth(), JWTAuth(CONFIG)
    prefix = "/tenants/{org}/service-accounts"
    router = service_accounts_router(
        keys, auth=auth, prefix=prefix, tenant_param="org", scopes=["ops"], max_lifetime=timedelta(days=90)
    )
    service = Service(keys, auth, router=router)
    operator = {**ADMIN, "scope": "api-keys:admin ops", "tenant_id": ["acme", "other"]}
    key = await service.created(operator, "/tenants/acme/service-accounts/ci/keys")
    assert (await keys.verify(key["key"]))["tenant_id"] == "acme"
    assert in_future(days=89) < key["expires_at"] < in_future(days=90, seconds=1)
    assert (await service.call("GET", "/tenants/third/service-accounts", operator)).refusal == FORBIDDEN
    assert (await service.call("GET", "/tenants/acme/service-accounts", HERE)).status == 403
    assert len((await service.call("GET", "/tenants/acme/service-accounts", operator)).json) == 1
    assert (await service.call("GET", "/tenants/other/service-accounts", operator)).json == []
