"""The rights and the lifetime of a new key: never more than those of the credential that creates it."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi import Response
from starlette.requests import Request

from api_key.databases import Database
from fastapi_guard import AnyAuth, JWTAuth, JWTConfig, ScopesAuth, StaticAPIKeyAuth
from fastapi_guard.api_key.database import DatabaseAPIKeyAuth
from fastapi_guard.api_key.format import NewKey
from fastapi_guard.api_key.rows import DraftKey
from fastapi_guard.claims import Claims
from fastapi_guard.login.refresh import RefreshTokens
from fastapi_guard.login.revocation import Revocations
from fastapi_guard.login.session import SessionAuth
from fastapi_guard.stores import MemoryStore
from fastapi_guard.testing import acting_as
from routers.api_keys.calling import (
    ADMIN,
    ALICE,
    CONFIG,
    EXCEEDS,
    FORBIDDEN,
    OUTLIVES,
    Service,
    in_future,
)
from support.asgi import exchange, scope_of

UNKNOWN = (403, "The key would outlive the credential that creates it, whose expiry is unknown", None)

# The claims of the caller, what exceeds them, and what does not.
EXCEEDING: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "another scope": ({"scope": "items:read"}, {"scopes": ["items:edit"]}, {"scopes": ["items:read"]}),
    "one of several": ({"scope": "a:read b:read"}, {"scopes": ["a:read", "c:read"]}, {"scopes": ["a:read", "b:read"]}),
    "wildcard": ({"scope": "items:edit"}, {"scopes": ["items:*"]}, {"scopes": ["items:read"]}),
    "any resource": ({"scope": "items:*"}, {"scopes": ["*:read"]}, {"scopes": ["items:*"]}),
    "star of a token": ({"scope": "*"}, {"scopes": ["*"]}, {"scopes": []}),
    "all of all": ({"scope": "*:read"}, {"scopes": ["*:*"]}, {"scopes": ["*:read"]}),
    "administrator": ({"scope": ""}, {"is_admin": True}, {"is_admin": False}),
    "administrator in a text": ({"is_admin": "true"}, {"is_admin": True}, {}),
    "a scope of none": ({}, {"scopes": ["x"]}, {}),
}


@pytest.mark.parametrize("case", EXCEEDING)
async def test_nothing_exceeds_the_credential(service: Service, case: str) -> None:
    """A key with more than the credential grants is refused, and one with as much is not."""
    grants, too_much, enough = EXCEEDING[case]
    claims = {"sub": "alice", **grants}
    assert (await service.call("POST", "/api-keys", claims, too_much)).refusal == EXCEEDS
    assert (await service.call("POST", "/api-keys", claims, enough)).status == 201
    assert len(await service.listed(claims)) == 1


# The claim that roles of keys are read from, the claims of the caller, and the bodies that are refused and accepted.
ROLES_FROM: dict[str, tuple[str, dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "name": ("name", {}, {"name": "root"}, {"name": "laptop"}),
    "subject type": ("subject_type", {"subject_type": "agent"}, {}, {}),
    "tenant": ("tenant_id", {"tenant": "root"}, {}, {}),
    "subject": ("sub", {"sub": "root"}, {}, {}),
    "issuer": ("iss", {"iss": "root"}, {}, {}),
    "environment": ("environment", {}, {"environment": "live"}, {"environment": "test"}),
    "key id": ("key_id", {}, {}, {}),
}


@pytest.mark.parametrize("case", ROLES_FROM)
async def test_roles_from_any_claim_of_a_key(database: Database, case: str) -> None:
    """A caller without a role gets no key with it, whichever claim of a key roles are read from."""
    claim, claims, too_much, enough = ROLES_FROM[case]
    roles = {"root": ["admin:*"], "agent": ["admin:*"], "live": ["admin:*"]}
    options: dict[str, Any] = {"environments": ("live", "test")} if case == "environment" else {}
    keys = database.auth(roles=roles, role_claims=(claim,), **options)
    service = Service(keys, JWTAuth(CONFIG, roles=roles))
    caller = {"sub": "alice", **claims}
    assert (await service.call("POST", "/api-keys", caller, too_much)).refusal == EXCEEDS
    if enough:
        answer = await service.call("POST", "/api-keys", caller, enough)
        # Any text of such a claim is a role, which the caller has to have.
        assert answer.refusal == EXCEEDS
        name = str(next(iter(enough.values())))
        assert (await service.call("POST", "/api-keys", {**caller, "roles": [name]}, enough)).status == 201


async def test_roles_from_metadata(database: Database) -> None:
    """An owner without a role does not rotate a key that has it from its metadata."""
    roles = {"editor": ["items:edit"]}
    keys = database.auth(roles=roles, role_claims=("metadata.roles",))
    service = Service(keys, JWTAuth(CONFIG, roles=roles))
    key_id, raw = await keys.create(user_id="alice", metadata={"roles": ["editor"]})
    assert keys.covers(await keys.verify(raw), "items:read")
    for claims in ({"sub": "alice"}, {"sub": "alice", "scope": "items:edit"}):
        assert (await service.call("POST", f"/api-keys/{key_id}/rotate", claims)).refusal == EXCEEDS
    editor = {"sub": "alice", "roles": ["editor"]}
    assert (await service.call("POST", f"/api-keys/{key_id}/rotate", editor)).status == 201


async def test_a_tenant_from_another_claim_of_a_key(database: Database) -> None:
    """No other claim of a key makes it a key of another tenant."""
    service = Service(database.auth(tenant_claims=("environment", "tenant_id")), JWTAuth(CONFIG))
    assert await service.created({**ALICE, "tenant": "acme"})
    live = database.auth(tenant_claims=("environment", "tenant_id"), environments=("live",))
    assert (await Service(live, JWTAuth(CONFIG)).call("POST", "/api-keys", ALICE, {})).refusal == EXCEEDS


async def test_rotation_needs_the_rights_of_the_key(service: Service) -> None:
    """A caller with fewer rights than a key does not rotate it."""
    key = await service.created(ADMIN, is_admin=True, scopes=["items:read"])
    path = f"/api-keys/{key['key_id']}/rotate"
    for less in ({**ADMIN, "is_admin": False}, {**ADMIN, "scope": "api-keys:admin"}):
        assert (await service.call("POST", path, less)).refusal == EXCEEDS
    rotated = await service.call("POST", path, ADMIN)
    assert (await service.keys.verify(rotated.json["key"]))["is_admin"] is True


async def test_keys_that_create_keys(database: Database) -> None:
    """Guarded by the keys themselves: a key with a bare star grants all, one with an expiry none that outlives it."""
    keys = database.auth()
    service = Service(keys, keys)
    _, star = await keys.create(user_id="alice", scopes=["*"])
    assert (await service.call("POST", "/api-keys", star, {"scopes": ["*", "anything", "x:y"]})).status == 201
    soon = datetime.now(UTC) + timedelta(hours=1)
    key_id, brief = await keys.create(user_id="alice", scopes=["items:read"], expires_at=soon)
    made = await service.created(brief, scopes=["items:read"])
    assert (await keys.verify(made["key"]))["exp"] == int(soon.timestamp())
    assert (await service.call("POST", "/api-keys", brief, {"scopes": ["*"]})).refusal == EXCEEDS
    rotated = await service.call("POST", f"/api-keys/{key_id}/rotate", brief, {"overlap_seconds": 60})
    assert (await keys.verify(rotated.json["key"]))["exp"] == int(soon.timestamp())


# The restrictions of a key, and bodies of what it creates: refused ones, and accepted ones with what is stored.
RESTRICTIONS: dict[str, tuple[dict[str, Any], list[dict[str, Any]], list[tuple[dict[str, Any], dict[str, Any]]]]] = {
    "networks": (
        {"allowed_networks": ["192.0.2.0/24", "2001:db8::/32"]},
        [
            {"allowed_networks": ["192.0.0.0/16"]},
            {"allowed_networks": ["0.0.0.0/0"]},
            {"allowed_networks": ["::/0"]},
            {"allowed_networks": ["192.0.2.0/25", "10.0.0.1"]},
            {"allowed_networks": []},
        ],
        [
            ({}, {"allowed_networks": ["192.0.2.0/24", "2001:db8::/32"]}),
            ({"allowed_networks": ["192.0.2.1"]}, {"allowed_networks": ["192.0.2.1/32"]}),
        ],
    ),
    "origins": (
        {"allowed_origins": ["https://a.example", "https://b.example"]},
        [{"allowed_origins": ["https://c.example"]}, {"allowed_origins": []}],
        [
            ({}, {"allowed_origins": ["https://a.example", "https://b.example"]}),
            ({"allowed_origins": ["https://a.example"]}, {"allowed_origins": ["https://a.example"]}),
        ],
    ),
    "environment": ({"environment": "test"}, [{"environment": "live"}], [({}, {"environment": "test"})]),
    "quota": (
        {"environment": "test", "quota": 10, "quota_period": timedelta(hours=1)},
        [{"quota": 11}, {"quota": 9}, {"rate": "5/minute"}, {"quota": None, "quota_period_seconds": None}],
        [({}, {"quota": 10, "quota_seconds": 3600, "rate": None})],
    ),
    "rate": (
        {"environment": "test", "rate": "90/minute"},
        [{"rate": "91/minute"}, {"rate": None}, {"quota": 5}],
        [({}, {"rate": "90/minute"}), ({"rate": "90/minute"}, {"rate": "90/minute"})],
    ),
}


@pytest.mark.parametrize("case", RESTRICTIONS)
async def test_restrictions_of_the_key_that_creates_keys(database: Database, case: str) -> None:
    """A key that an API key creates is no less restricted, and shares its quota instead of having one of its own."""
    restricted, refused, accepted = RESTRICTIONS[case]
    keys = database.auth(environments=("live", "test"), usage=MemoryStore())
    service = Service(keys, keys)
    origin = [(b"origin", b"https://a.example")]

    async def call(raw: str, path: str, body: dict[str, Any]) -> Any:
        fields = [(b"authorization", b"Bearer " + raw.encode()), (b"content-type", b"application/json"), *origin]
        return await exchange(service.app, path, fields, method="POST", body=json_of(body))

    key_id, raw = await keys.create(user_id="alice", scopes=["items:*"], **{"environment": "test", **restricted})
    for body in refused:
        assert (await call(raw, "/api-keys", body)).refusal == EXCEEDS, body
    for body, stored in accepted:
        made = await keys.get((await call(raw, "/api-keys", body)).json["key_id"])
        assert made is not None
        assert {name: getattr(made, name) for name in stored} == stored
        assert (made.usage_id == key_id) is made.is_limited
    # It rotates itself, and not a key of its owner that is less restricted.
    free_id, free = await keys.create(user_id="alice", environment="live")
    assert (await call(raw, f"/api-keys/{free_id}/rotate", {})).refusal == EXCEEDS
    assert (await call(free, f"/api-keys/{free_id}/rotate", {})).status == 201
    assert (await call(raw, f"/api-keys/{key_id}/rotate", {})).status == 201


def json_of(body: dict[str, Any]) -> bytes:
    """Return a body as JSON."""
    import json  # noqa: PLC0415 - the fixture above has a parameter of that name

    return json.dumps(body).encode()


async def test_a_key_that_ends_meanwhile(database: Database) -> None:
    """A key that is cached and was revoked in another process creates nothing."""
    keys, elsewhere = database.auth(cache_ttl=600), database.auth()
    service = Service(keys, keys)
    key_id, raw = await keys.create(user_id="alice")
    assert await service.created(raw)
    await database.within(
        lambda session: session.connection().exec_driver_sql("UPDATE api_keys SET revoked_at = created_at")
    )
    assert await elsewhere.get(key_id)
    assert (await service.call("POST", "/api-keys", raw, {})).refusal == EXCEEDS


class Slow(DatabaseAPIKeyAuth):
    """Keys that something else happens before they are stored."""

    async def meanwhile(self) -> None:
        """Do nothing."""

    async def add(self, draft: DraftKey) -> NewKey:
        """Store a key after that."""
        await self.meanwhile()
        return await super().add(draft)


@pytest.mark.parametrize("kind", ["session", "token", "both"])
async def test_a_user_who_is_disabled_meanwhile(database: Database, kind: str) -> None:
    """A session or a token that is revoked while it creates a key leaves none (34a)."""
    keys, store = Slow(database.factory), MemoryStore()
    sessions, revocations = SessionAuth(store), Revocations(store, ends=[keys])
    tokens = JWTAuth(CONFIG, revocations=revocations)
    service = Service(keys, {"session": sessions, "token": tokens, "both": tokens | sessions}[kind])
    response = Response()
    await sessions.login(response, {"sub": "alice"}, connection=Request({"type": "http", "headers": []}))
    credential = (b"cookie", response.headers["set-cookie"].partition(";")[0].encode())
    if kind == "token":
        credential = (b"authorization", b"Bearer " + tokens.encode({"sub": "alice"}).encode())

    async def create() -> tuple[int, str, str | None]:
        headers = [credential, (b"content-type", b"application/json")]
        answer = await exchange(service.app, "/api-keys", headers, method="POST", body=b"{}")
        return answer.refusal if answer.status == 403 else (answer.status, "", None)

    assert await create() == (201, "", None)
    keys.meanwhile = lambda: revocations.revoke_subject("alice")  # type: ignore[method-assign, assignment, return-value]
    assert await create() == EXCEEDS
    assert await keys.list(active_only=True) == []
    await keys.aclose()


async def test_a_guard_that_a_test_replaces(database: Database) -> None:
    """With a principal in place of a verified key there is no key whose restrictions would count."""
    keys = database.auth()
    service = Service(keys, keys)
    service.app.dependency_overrides[keys.dependency] = lambda: {"sub": "alice", "scope": "items:read"}
    assert (await service.created("x", scopes=["items:read"]))["expires_at"] is None
    service.app.dependency_overrides.clear()
    other = Service(keys, JWTAuth(CONFIG))
    with acting_as(other.app, other.auth, {"sub": "alice", "scope": "items:read"}):
        assert await other.created("x", scopes=["items:read"])


async def test_expiry(service: Service) -> None:
    """A key expires no later than the credential, by default with it; a later, past or naive moment is refused."""
    exp = int((datetime.now(UTC) + timedelta(hours=1)).timestamp())
    claims = {**ALICE, "exp": exp}

    def at(seconds: int) -> str:
        return datetime.fromtimestamp(exp + seconds, UTC).isoformat()

    assert (await service.keys.verify((await service.created(claims))["key"]))["exp"] == exp
    for seconds in (-60, 0):
        key = await service.created(claims, expires_at=at(seconds))
        assert (await service.keys.verify(key["key"]))["exp"] == exp + seconds
    assert (await service.call("POST", "/api-keys", claims, {"expires_at": at(1)})).refusal == OUTLIVES
    path = f"/api-keys/{key['key_id']}/rotate"
    assert (await service.call("POST", path, claims, {"expires_at": at(1)})).refusal == OUTLIVES
    past = await service.call("POST", "/api-keys", claims, {"expires_at": at(-7200)})
    assert (past.status, past.json["detail"]) == (
        422,
        [{"type": "value_error", "loc": ["body"], "msg": "expires_at has passed"}],
    )
    assert (await service.call("POST", "/api-keys", claims, {"expires_at": "2030-01-01T00:00:00"})).status == 422
    # Without an expiry of the credential any moment will do, and none.
    assert (await service.created(ALICE))["expires_at"] is None
    assert (await service.created(ALICE, expires_at=at(10**7)))["expires_at"] is not None
    assert (await service.created({**ALICE, "exp": 10**15}))["expires_at"].startswith("9999-12-31")


async def test_a_token_in_its_leeway(service: Service) -> None:
    """A token that has expired within the leeway creates nothing."""
    claims = {**ALICE, "exp": int(datetime.now(UTC).timestamp()) - 2}
    assert (await service.call("GET", "/api-keys", claims)).status == 200
    assert (await service.call("POST", "/api-keys", claims, {})).refusal == OUTLIVES


async def test_rotation_of_a_key_that_expires(service: Service) -> None:
    """The new key lives as long as the old one was to live, and no longer than the credential."""
    lifetime = datetime.now(UTC) + timedelta(days=30)
    key = await service.created(ALICE, expires_at=lifetime.isoformat())
    rotated = await service.call("POST", f"/api-keys/{key['key_id']}/rotate", ALICE)
    expires_at = datetime.fromisoformat(rotated.json["expires_at"])
    assert timedelta(0) <= expires_at - lifetime < timedelta(minutes=1)
    exp = int((datetime.now(UTC) + timedelta(hours=1)).timestamp())
    again = await service.call("POST", f"/api-keys/{rotated.json['key_id']}/rotate", {**ALICE, "exp": exp})
    assert datetime.fromisoformat(again.json["expires_at"]).timestamp() == exp
    # A key without an expiry does not get out of the bounds of the token either.
    endless = await service.created(ALICE)
    bounded = await service.call("POST", f"/api-keys/{endless['key_id']}/rotate", {**ALICE, "exp": exp})
    assert datetime.fromisoformat(bounded.json["expires_at"]).timestamp() == exp


async def test_rotating_a_key_that_lives_nearly_forever(service: Service) -> None:
    """A key whose lifetime again would end after the last moment of a datetime is rotated all the same."""
    expires_at = datetime.max.replace(tzinfo=UTC) - timedelta(days=1)
    key_id, _ = await service.keys.create(user_id="alice", expires_at=expires_at)
    assert (await service.call("POST", f"/api-keys/{key_id}/rotate", {"sub": "alice"})).status == 201


async def test_keys_that_outlive_their_credential(database: Database) -> None:
    """With allow_outliving a short token creates a long key, up to max_lifetime where there is one."""
    service = Service(database.auth(), JWTAuth(CONFIG), allow_outliving=True)
    claims = {**ALICE, "exp": int(datetime.now(UTC).timestamp()) + 300}
    assert (await service.created(claims))["expires_at"] is None
    key = await service.created(claims, expires_at=in_future(days=365))
    rotated = await service.call("POST", f"/api-keys/{key['key_id']}/rotate", claims)
    assert rotated.json["expires_at"] > in_future(days=364)

    limited = Service(database.auth(), JWTAuth(CONFIG), allow_outliving=True, max_lifetime=timedelta(days=90))
    assert in_future(days=89) < (await limited.created(claims))["expires_at"] < in_future(days=90, seconds=1)
    assert await limited.created(claims, expires_at=in_future(days=89))
    late = await limited.call("POST", "/api-keys", claims, {"expires_at": in_future(days=91)})
    assert (late.status, late.json["detail"][0]["msg"]) == (
        422,
        "expires_at is later than the lifetime of keys allows here",
    )
    rotated = await limited.call("POST", f"/api-keys/{rotated.json['key_id']}/rotate", claims)
    assert rotated.json["expires_at"] < in_future(days=90, seconds=1)


async def test_required_expiry(database: Database) -> None:
    """A key without an expiry is a 422 with the remedy, for keys that need one."""
    service = Service(database.auth(require_expiry=True), JWTAuth(CONFIG))
    answer = await service.call("POST", "/api-keys", ALICE, {})
    (found,) = answer.json["detail"]
    assert (answer.status, found["msg"][:27]) == (422, "expires_at is required here")
    assert (await service.call("POST", "/api-keys", {**ALICE, "exp": 10**11}, {})).status == 201


async def test_a_session_that_creates_keys(database: Database) -> None:
    """A key that a session creates ends with its absolute lifetime, and is not one of the year 2099."""
    sessions = SessionAuth(MemoryStore())
    keys = database.auth()
    service = Service(keys, sessions)
    response = Response()
    session = await sessions.login(response, {"sub": "alice"}, connection=Request(scope_of("/", [], method="POST")))
    cookie = response.headers["set-cookie"].partition(";")[0].encode()
    fields = [(b"cookie", cookie), (b"content-type", b"application/json"), (b"sec-fetch-site", b"same-origin")]

    async def create(body: bytes) -> Any:
        return await exchange(service.app, "/api-keys", fields, method="POST", body=body)

    made = await create(b"{}")
    ends_at = datetime.fromisoformat(made.json["expires_at"]).timestamp()
    assert ends_at == int(session.created_at + timedelta(hours=12).total_seconds())
    assert (await create(b'{"expires_at": "2099-01-01T00:00:00Z"}')).refusal == OUTLIVES


async def test_access_tokens_of_a_login(database: Database) -> None:
    """With its refresh families a login creates keys that live as long as it can last, not as long as the token."""
    families = RefreshTokens(MemoryStore(), absolute_lifetime=timedelta(days=30))
    own = JWTAuth(JWTConfig(key=CONFIG.key, expiration_seconds=300))
    token = own.encode({**ALICE, "sid": RefreshTokens.family_id(await families.issue({"sub": "alice"}))})
    with_families = Service(database.auth(), own, families=families)
    assert in_future(days=29) < (await with_families.created(token))["expires_at"] < in_future(days=30, seconds=1)
    assert await with_families.created(token, expires_at=in_future(days=29))
    body = {"expires_at": in_future(days=31)}
    assert (await with_families.call("POST", "/api-keys", token, body)).refusal == OUTLIVES
    assert (await Service(database.auth(), own).created(token))["expires_at"] < in_future(seconds=301)
    # An unknown family, a family of another user, and a login that has ended add nothing to the token.
    other = own.encode({"sub": "bob", "sid": RefreshTokens.family_id(await families.issue({"sub": "alice"}))})
    await families.revoke_subject("alice")
    for ended in (token, other, own.encode({**ALICE, "sid": "unknown"}), own.encode(ALICE)):
        assert (await with_families.created(ended))["expires_at"] < in_future(seconds=301)


class Plain(ScopesAuth):
    """A credential of the application, whose claims are in it."""

    exp: Any = None

    async def verify(self, raw: str) -> Claims:
        """Return claims without an expiry, or with one of a wrong type."""
        return {"sub": raw} if self.exp is None else {"sub": raw, "exp": self.exp}


@pytest.mark.parametrize("exp", [None, "2099", True])
async def test_credentials_whose_expiry_is_unknown(database: Database, exp: Any) -> None:
    """A credential that does not say when it expires creates no key, unless keys may outlive it."""
    plain = Plain()
    plain.exp = exp
    service = Service(database.auth(), plain)
    assert (await service.call("POST", "/api-keys", "alice", {})).refusal == UNKNOWN
    assert await service.listed("alice") == []
    assert await Service(database.auth(), plain, allow_outliving=True).created("alice")


async def test_static_keys_as_the_guard(database: Database) -> None:
    """Any ScopesAuth guards the routes, by its own rules; a static key without an expiry has none."""
    service = Service(database.auth(), StaticAPIKeyAuth({"sk-alice-secret-key": {"user_id": "alice", "scopes": ["*"]}}))
    made = await service.created("sk-alice-secret-key", scopes=["*"])
    assert made["expires_at"] is None


async def test_a_key_ends_with_the_key_that_made_it(database: Database) -> None:
    """A key that was stolen cannot live on in the keys that it made."""
    keys = database.auth()
    service = Service(keys, keys)
    _, stolen = await keys.create(user_id="alice", scopes=["*"])
    first = await service.created(stolen, scopes=["items:read"])
    second = await service.created(first["key"], scopes=["items:read"])
    assert await keys.validate_token(second["key"])
    await keys.revoke((await keys.verify(stolen))["key_id"])
    for made in (first, second):
        assert not await keys.validate_token(made["key"])


@pytest.mark.parametrize("keys_first", [True, False])
async def test_one_of_several_auths(database: Database, keys_first: bool) -> None:
    """A credential grants what its own Auth decides: a bare star of a token is not that of a key."""
    keys, tokens = database.auth(), JWTAuth(CONFIG, roles={"reader": ["users:read"]})
    service = Service(keys, AnyAuth(keys, tokens) if keys_first else tokens | keys)
    star = {"sub": "alice", "scope": "* items:*", "roles": ["reader"]}
    made = await service.created(star, scopes=["items:read", "users:read"])
    for wanted in ({"scopes": ["*"]}, {"scopes": ["admin:read"]}, {"is_admin": True}):
        assert (await service.call("POST", "/api-keys", star, wanted)).refusal == EXCEEDS
        assert (await service.call("POST", "/api-keys", made["key"], wanted)).refusal == EXCEEDS
    assert await service.created(made["key"], scopes=["items:read"])
    _, everything = await keys.create(user_id="root", scopes=["*"])
    assert await service.created(everything, scopes=["*"])
    assert await service.listed(everything, "user_id=alice")
    assert (await service.call("GET", "/api-keys?user_id=root", star)).refusal == FORBIDDEN
