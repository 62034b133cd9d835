import json
import logging
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from joserfc.jwk import OctKey
from sqlalchemy import make_url, select

from api_key.databases import Database
from fastapi_guard import (
    AnyAuth,
    APIKeyAuth,
    ConfigurationError,
    HierarchicalScopeValidator,
    JWTAuth,
    JWTConfig,
    ScopesAuth,
    SimpleScopeValidator,
    StaticAPIKeyAuth,
    configure_app,
)
from fastapi_guard.api_key.database import DatabaseAPIKeyAuth
from fastapi_guard.api_key.models import APIKeyEvent
from fastapi_guard.app.routes import routes_of
from fastapi_guard.routers.api_keys import api_keys_router
from support.asgi import Answer, exchange

EXCEEDS = (403, "The key would exceed the credential that asks for it", None)
MISSING = (404, "No such API key", None)
# The same key for all: the tests look at claims, not at signatures.
CONFIG = JWTConfig(key=OctKey.generate_key(256), algorithms=["HS256"], expiration_seconds=None)


@pytest.fixture
async def database(tmp_path: Path, anyio_backend: str) -> AsyncIterator[Database]:
    """Give a database with empty tables."""
    database = Database.of(make_url(f"sqlite:///{tmp_path / 'keys.db'}"))
    await database.create_tables()
    yield database
    await database.dispose()


class Service:
    """An application with the router, and a caller of it."""

    def __init__(self, keys: DatabaseAPIKeyAuth, auth: ScopesAuth, **options: Any) -> None:
        """Include the router, guarded by `auth`."""
        self.keys, self.auth = keys, auth
        self.app = FastAPI()
        self.app.include_router(api_keys_router(keys, auth=auth, **options))

    async def call(self, method: str, path: str, claims: dict[str, Any] | str, body: Any = None) -> Answer:
        """Call with a token of these claims, or with a credential."""
        raw = claims if isinstance(claims, str) else JWTAuth(CONFIG).encode({"jti": "1", **claims})
        path, _, query = path.partition("?")
        return await exchange(
            self.app,
            path,
            [(b"authorization", b"Bearer " + raw.encode()), (b"content-type", b"application/json")],
            method=method,
            query=query.encode(),
            body=b"" if body is None else json.dumps(body).encode(),
        )

    async def created(self, claims: dict[str, Any] | str, **body: Any) -> dict[str, Any]:
        """Create a key that has to be created, and return the answer."""
        answer = await self.call("POST", "/api-keys", claims, body)
        assert answer.status == 201, answer
        return dict(answer.json)


@pytest.fixture
def service(database: Database) -> Service:
    """Give an application whose callers come with signed tokens."""
    return Service(database.auth(), JWTAuth(CONFIG))


ALICE = {"sub": "alice", "scope": "items:* users:read"}
BOB = {"sub": "bob", "scope": "items:*"}
ADMIN = {"sub": "root", "scope": "api-keys:admin items:*", "is_admin": True}


async def test_the_life_of_a_key(service: Service, database: Database) -> None:
    """Create, get, list, rotate and revoke one's own key; the key itself is in the two answers that made it."""
    answer = await service.call("POST", "/api-keys", ALICE, {"name": "ci", "scopes": ["items:read"]})
    assert (answer.status, answer.header("cache-control")) == (201, "no-store")
    assert answer.json.keys() == {"key_id", "key", "expires_at"}
    key_id, raw = answer.json["key_id"], answer.json["key"]
    claims = await service.keys.verify(raw)
    assert (claims["sub"], claims["scope"], claims["name"], claims["is_admin"]) == ("alice", "items:read", "ci", False)

    answer = await service.call("GET", f"/api-keys/{key_id}", ALICE)
    assert (answer.status, answer.header("cache-control")) == (200, "no-store")
    assert answer.json["last_used_at"] is not None
    assert answer.json.keys().isdisjoint({"key", "salt", "digest", "pepper"})
    listed = await service.call("GET", "/api-keys", ALICE)
    assert listed.json == [answer.json]

    answer = await service.call("POST", f"/api-keys/{key_id}/rotate", ALICE, {"overlap_seconds": 3600})
    assert (answer.status, answer.header("cache-control")) == (201, "no-store")
    new_id, new_raw = answer.json["key_id"], answer.json["key"]
    assert (await service.keys.verify(raw))["key_id"] == key_id
    assert (await service.keys.verify(new_raw))["scope"] == "items:read"
    again = await service.call("POST", f"/api-keys/{key_id}/rotate", ALICE)
    assert again.refusal == (409, "The API key has ended or was rotated before", None)

    answer = await service.call("DELETE", f"/api-keys/{new_id}", ALICE)
    assert (answer.status, answer.body, answer.header("cache-control")) == (204, b"", "no-store")
    assert (await service.call("DELETE", f"/api-keys/{new_id}", ALICE)).status == 204
    assert not await service.keys.validate_token(new_raw)
    actors = await database.within(lambda session: set(session.scalars(select(APIKeyEvent.actor))))
    assert actors == {"alice"}


async def test_without_a_credential(service: Service) -> None:
    """Every route answers 401 to a stranger, before it says anything else."""
    routes = list(routes_of(service.app))
    assert len(routes) == 5
    assert all(route.is_guarded for route in routes)
    for route in routes:
        answer = await exchange(service.app, route.path.replace("{key_id}", "x"), method=route.methods[0], body=b"{}")
        assert answer.refusal == (401, "Not authenticated", 'Bearer realm="api"')
        assert answer.header("cache-control") == "no-store"


async def test_another_users_keys(service: Service) -> None:
    """Nobody else sees, rotates or revokes a key, nor learns that it exists; with the admin scope one does."""
    key = await service.created(ALICE, scopes=["items:read"])
    path = f"/api-keys/{key['key_id']}"
    for method, suffix in (("GET", ""), ("DELETE", ""), ("POST", "/rotate")):
        assert (await service.call(method, path + suffix, BOB)).refusal == MISSING
        assert (await service.call(method, "/api-keys/" + "0" * 16 + suffix, BOB)).refusal == MISSING
    assert (await service.call("GET", "/api-keys", BOB)).json == []
    assert (await service.call("GET", "/api-keys?user_id=alice", BOB)).refusal == (403, "Forbidden", None)
    assert (await service.call("GET", "/api-keys?user_id=bob", BOB)).json == []

    assert (await service.call("GET", "/api-keys", ADMIN)).json == []
    assert [each["key_id"] for each in (await service.call("GET", "/api-keys?user_id=alice", ADMIN)).json] == [
        key["key_id"]
    ]
    rotated = await service.call("POST", f"{path}/rotate", ADMIN)
    assert rotated.status == 201
    assert (await service.keys.verify(rotated.json["key"]))["sub"] == "alice"
    assert (await service.call("DELETE", f"/api-keys/{rotated.json['key_id']}", ADMIN)).status == 204
    assert not await service.keys.validate_token(rotated.json["key"])


async def test_a_subject_of_another_type(service: Service) -> None:
    """An agent that is called as a user is does not have the user's keys."""
    key = await service.created(ALICE)
    agent = {**ALICE, "subject_type": "agent"}
    assert (await service.call("GET", f"/api-keys/{key['key_id']}", agent)).refusal == MISSING
    assert (await service.call("GET", "/api-keys", agent)).json == []
    own = await service.created(agent)
    assert (await service.keys.verify(own["key"]))["subject_type"] == "agent"
    assert len((await service.call("GET", "/api-keys", ALICE)).json) == 1


async def test_an_administrator_of_a_tenant(service: Service) -> None:
    """The admin scope reaches as far as the tenant of the credential; no tenant is not any tenant."""
    key = await service.created({**ALICE, "tenant_id": "acme"}, scopes=["items:read"])
    path = f"/api-keys/{key['key_id']}"
    assert (await service.keys.verify(key["key"]))["tenant_id"] == "acme"
    elsewhere, here = {**ADMIN, "tenant_id": "other"}, {**ADMIN, "tenant_id": "acme"}
    for other in (elsewhere, ADMIN):
        assert (await service.call("GET", path, other)).refusal == MISSING
        assert (await service.call("DELETE", path, other)).refusal == MISSING
        assert (await service.call("GET", "/api-keys?user_id=alice", other)).json == []
        assert (await service.call("POST", f"{path}/rotate", other)).refusal == MISSING
    assert (await service.call("GET", path, here)).status == 200
    assert len((await service.call("GET", "/api-keys?user_id=alice", here)).json) == 1
    assert (await service.call("POST", f"{path}/rotate", ALICE)).refusal == MISSING
    assert (await service.call("POST", f"{path}/rotate", here)).status == 201


EXCEEDING: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "another scope": ({"scope": "items:read"}, {"scopes": ["items:edit"]}, {"scopes": ["items:read"]}),
    "one of several": ({"scope": "a:read b:read"}, {"scopes": ["a:read", "c:read"]}, {"scopes": ["a:read", "b:read"]}),
    "wildcard": ({"scope": "items:edit"}, {"scopes": ["items:*"]}, {"scopes": ["items:read"]}),
    "any resource": ({"scope": "items:*"}, {"scopes": ["*:read"]}, {"scopes": ["items:*"]}),
    "star of a token": ({"scope": "*"}, {"scopes": ["*"]}, {"scopes": []}),
    "all of all": ({"scope": "*:read"}, {"scopes": ["*:*"]}, {"scopes": ["*:read"]}),
    "administrator": ({"scope": ""}, {"is_admin": True}, {"is_admin": False}),
    "administrator in a text": ({"is_admin": "true"}, {"is_admin": True}, {}),
    "scope of nobody": ({}, {"scopes": ["x"]}, {}),
}


@pytest.mark.parametrize("case", EXCEEDING)
async def test_nothing_exceeds_its_creators_credential(service: Service, case: str) -> None:
    """What the credential does not grant is refused to a key, and what it does grant is not."""
    grants, too_much, enough = EXCEEDING[case]
    claims = {"sub": "alice", **grants}
    assert (await service.call("POST", "/api-keys", claims, too_much)).refusal == EXCEEDS
    assert (await service.call("POST", "/api-keys", claims, enough)).status == 201
    assert len((await service.call("GET", "/api-keys", claims)).json) == 1


async def test_an_administrators_key(service: Service) -> None:
    """An administrator may make an administrator's key; somebody else cannot rotate it into their hands."""
    key = await service.created(ADMIN, is_admin=True, scopes=["items:read"])
    assert (await service.keys.verify(key["key"]))["is_admin"] is True
    lesser = {**ADMIN, "is_admin": False}
    assert (await service.call("POST", f"/api-keys/{key['key_id']}/rotate", lesser)).refusal == EXCEEDS
    assert (await service.call("POST", f"/api-keys/{key['key_id']}/rotate", ADMIN)).status == 201


async def test_rotation_needs_the_scopes_of_the_key(service: Service) -> None:
    """An administrator of keys does not get at what a key may do by rotating it."""
    key = await service.created(ALICE, scopes=["users:read"])
    assert (await service.call("POST", f"/api-keys/{key['key_id']}/rotate", ADMIN)).refusal == EXCEEDS
    reader = {**ADMIN, "scope": "api-keys:admin users:read"}
    assert (await service.call("POST", f"/api-keys/{key['key_id']}/rotate", reader)).status == 201


async def test_keys_that_keep_keys(database: Database) -> None:
    """Guarded by the keys themselves: a key with a bare star grants all, one with an expiry none that outlive it."""
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


async def test_expiry(service: Service) -> None:
    """A key ends no later than the credential, by default with it; a later, past or naive moment is refused."""
    exp = int((datetime.now(UTC) + timedelta(hours=1)).timestamp())
    claims = {**ALICE, "exp": exp}

    def at(seconds: int) -> str:
        return datetime.fromtimestamp(exp + seconds, UTC).isoformat()

    assert (await service.keys.verify((await service.created(claims))["key"]))["exp"] == exp
    for seconds in (-60, 0):
        key = await service.created(claims, expires_at=at(seconds))
        assert (await service.keys.verify(key["key"]))["exp"] == exp + seconds
    assert (await service.call("POST", "/api-keys", claims, {"expires_at": at(1)})).refusal == EXCEEDS
    path = f"/api-keys/{key['key_id']}/rotate"
    assert (await service.call("POST", path, claims, {"expires_at": at(1)})).refusal == EXCEEDS
    past = await service.call("POST", "/api-keys", claims, {"expires_at": at(-7200)})
    said = {"type": "value_error", "loc": ["body"], "msg": "expires_at has passed"}
    assert (past.status, past.json["detail"]) == (422, [said])
    assert (await service.call("POST", "/api-keys", claims, {"expires_at": "2030-01-01T00:00:00"})).status == 422
    # Without an expiry of the credential any moment will do, and none.
    assert (await service.created(ALICE))["expires_at"] is None
    assert (await service.created(ALICE, expires_at=at(10**7)))["expires_at"] is not None
    assert (await service.created({**ALICE, "exp": 10**15}))["expires_at"].startswith("9999-12-31")


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


async def test_keys_that_outlive_their_credential(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    """With allow_outliving, which is logged at the start, a short token makes a long key."""
    caplog.set_level(logging.WARNING)
    service = Service(database.auth(), JWTAuth(CONFIG), allow_outliving=True)
    assert "allow_outliving lets API keys live longer" in caplog.text
    claims = {**ALICE, "exp": int(datetime.now(UTC).timestamp()) + 300}
    assert (await service.created(claims))["expires_at"] is None
    year = (datetime.now(UTC) + timedelta(days=365)).isoformat()
    key = await service.created(claims, expires_at=year)
    rotated = await service.call("POST", f"/api-keys/{key['key_id']}/rotate", claims)
    assert rotated.json["expires_at"] > (datetime.now(UTC) + timedelta(days=364)).isoformat()


async def test_required_expiry(database: Database) -> None:
    """Where keys need an expiry, one without is a 422 that says so."""
    service = Service(database.auth(require_expiry=True), JWTAuth(CONFIG))
    answer = await service.call("POST", "/api-keys", ALICE, {})
    (said,) = answer.json["detail"]
    assert (answer.status, said["msg"][:27]) == (422, "expires_at is required here")
    assert (await service.call("POST", "/api-keys", {**ALICE, "exp": 10**11}, {})).status == 201


BODIES: dict[str, Any] = {
    "owner": {"user_id": "bob"},
    "tenant": {"tenant_id": "acme"},
    "metadata": {"metadata": {"roles": ["admin"]}},
    "subject type": {"subject_type": "service"},
    "scope with a space": {"scopes": ["items:read items:edit"]},
    "scope with a line feed": {"scopes": ["items:read\n"]},
    "empty scope": {"scopes": [""]},
    "non-ASCII scope": {"scopes": ["é"]},
    "one scope": {"scopes": "items:read"},
    "many scopes": {"scopes": ["items:read"] * 101},
    "NUL": {"name": "a\x00b"},
    "line feed": {"name": "a\n"},
    "long name": {"name": "n" * 256},
    "number": {"expires_at": "soon"},
    "list": [],
    "far": {"expires_at": "9999-12-31T23:59:59-12:00"},
}


@pytest.mark.parametrize("case", BODIES)
async def test_bodies_that_are_refused(service: Service, case: str) -> None:
    """What a body cannot say is a 422, whose it would be above all; nothing is created."""
    assert (await service.call("POST", "/api-keys", ALICE, BODIES[case])).status == 422
    assert (await service.call("GET", "/api-keys", ALICE)).json == []
    assert (await service.call("POST", "/api-keys", ALICE, {"name": "é" * 255, "scopes": ["items:read"]})).status == 201


@pytest.mark.parametrize(
    "path",
    ["/api-keys/%00", "/api-keys/nope", "/api-keys/" + "x" * 5000, "/api-keys/é", "/api-keys/'--"],
    ids=["NUL", "short", "long", "non-ASCII", "SQL"],
)
async def test_ids_that_are_none(service: Service, path: str) -> None:
    """What is no id is not found."""
    for method, suffix in (("GET", ""), ("DELETE", ""), ("POST", "/rotate")):
        assert (await service.call(method, path + suffix, ALICE)).refusal == MISSING


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=1001", "offset=-1", "offset=99999999999", "user_id=%00", "user_id=%ED%A0%80x"]
)
async def test_queries(service: Service, query: str) -> None:
    """Pages are bounded, and a user's name is a text; a good query is answered."""
    answer = await service.call("GET", f"/api-keys?{query}", ADMIN)
    assert (answer.status, answer.json == []) in ((422, False), (200, True))
    assert answer.status == 422 or "ED" in query
    for _ in range(3):
        await service.created(ADMIN)
    assert len((await service.call("GET", "/api-keys?limit=2", ADMIN)).json) == 2
    assert len((await service.call("GET", "/api-keys?limit=2&offset=2", ADMIN)).json) == 1


async def test_a_credential_that_names_nobody(service: Service) -> None:
    """Without a subject, or with an odd tenant, there is nobody whose key it would be."""
    for claims in ({"scope": "items:*"}, {"sub": "alice", "tenant_id": 5}):
        assert (await service.call("POST", "/api-keys", claims, {})).refusal == (403, "Forbidden", None)
    long = await service.call("POST", "/api-keys", {"sub": "a" * 256}, {})
    assert long.status == 422
    assert (await service.call("POST", "/api-keys", {"sub": "alice", "tenant_id": "acme"}, {})).status == 201


async def test_roles_out_of_metadata(database: Database) -> None:
    """Where roles are read out of a key's metadata, a key with a role is not rotated by somebody without it."""
    roles = {"editor": ["items:edit"]}
    keys = database.auth(roles=roles, role_claims=("metadata.roles",))
    service = Service(keys, JWTAuth(CONFIG, roles=roles))
    key_id, raw = await keys.create(user_id="alice", metadata={"roles": ["editor"]})
    assert keys.covers(await keys.verify(raw), "items:read")
    for claims in ({"sub": "alice"}, {"sub": "alice", "scope": "items:edit"}):
        assert (await service.call("POST", f"/api-keys/{key_id}/rotate", claims)).refusal == EXCEEDS
    editor = {"sub": "alice", "roles": ["editor"]}
    assert (await service.call("POST", f"/api-keys/{key_id}/rotate", editor)).status == 201


async def test_rotating_a_key_that_lives_nearly_for_ever(database: Database) -> None:
    """A key whose lifetime again would end behind the last moment that a datetime counts is rotated all the same."""
    keys = database.auth()
    service = Service(keys, JWTAuth(CONFIG))
    key_id, _ = await keys.create(user_id="alice", expires_at=datetime.max.replace(tzinfo=UTC) - timedelta(days=1))
    claims = {"sub": "alice", "scope": ""}
    answer = await service.call("POST", f"/api-keys/{key_id}/rotate", claims)
    assert answer.status == 201


async def test_scopes_for_all_and_another_prefix(database: Database) -> None:
    """The application may ask every caller for a scope, and choose the paths and the name of the admin scope."""
    service = Service(database.auth(), JWTAuth(CONFIG), prefix="/keys", scopes=["keys:edit"], admin_scope="keys:admin")
    challenge = 'Bearer realm="api", error="insufficient_scope", scope="keys:edit"'
    assert (await service.call("GET", "/keys", ALICE)).refusal == (
        403,
        "Token is missing required scope: keys:edit",
        challenge,
    )
    holder = {"sub": "alice", "scope": "keys:edit"}
    assert (await service.call("POST", "/keys", holder, {})).status == 201
    assert (
        await service.call("GET", "/keys?user_id=alice", {"sub": "x", "scope": "keys:edit keys:admin"})
    ).status == 200


async def test_static_keys_as_the_guard(database: Database) -> None:
    """Any ScopesAuth guards the routes, with its own rules."""
    service = Service(database.auth(), StaticAPIKeyAuth({"sk-alice-secret-key": {"user_id": "alice", "scopes": ["*"]}}))
    assert (await service.call("POST", "/api-keys", "sk-alice-secret-key", {"scopes": ["*"]})).status == 201


async def test_a_database_that_is_away(tmp_path: Path, anyio_backend: str) -> None:
    """Without its database every route is a 503."""
    database = Database.of(make_url(f"sqlite:///{tmp_path / 'none' / 'keys.db'}"))
    service = Service(database.auth(), JWTAuth(CONFIG))
    for method, path, body in (
        ("POST", "", {}),
        ("GET", "", None),
        ("GET", "/" + "0" * 16, None),
        ("DELETE", "/" + "0" * 16, None),
    ):
        answer = await service.call(method, f"/api-keys{path}", ALICE, body)
        assert (answer.status, answer.header("retry-after")) == (503, "5")
    await database.dispose()


GUARDS: dict[str, Callable[[], Any]] = {
    "nothing": lambda: None,
    "presence only": APIKeyAuth,
    "a class": lambda: DatabaseAPIKeyAuth,
}


@pytest.mark.parametrize("guard", GUARDS)
def test_it_needs_an_auth_that_guards(guard: str) -> None:
    """Without an Auth whose scopes can be compared the router cannot be built, and not at all without one."""
    keys = DatabaseAPIKeyAuth(Database.of(make_url("sqlite:///unused.db")).factory)
    with pytest.raises(ConfigurationError, match="pass a ScopesAuth"):
        api_keys_router(keys, auth=GUARDS[guard]())
    with pytest.raises(TypeError, match="auth"):
        api_keys_router(keys)  # type: ignore[call-arg]
    api_keys_router(keys, auth=keys)


def test_two_ways_to_decide_scopes() -> None:
    """Where the two decide scopes differently a key could do more than its creator: refused."""

    class Own(HierarchicalScopeValidator):
        """Another hierarchy."""

        scope_hierarchy = {"all": {"read"}}  # noqa: RUF012 - as documented

    keys = DatabaseAPIKeyAuth(Database.of(make_url("sqlite:///unused.db")).factory)
    for validator in (SimpleScopeValidator(), Own()):
        with pytest.raises(ConfigurationError, match="two ways"):
            api_keys_router(keys, auth=JWTAuth(CONFIG, scope_validator=validator))
    with pytest.raises(ConfigurationError, match="is not a scope"):
        api_keys_router(keys, auth=keys, admin_scope="a b")


@pytest.mark.parametrize("keys_first", [True, False])
async def test_one_of_several_auths(database: Database, keys_first: bool) -> None:
    """What a credential grants is what its own Auth says: a token's bare star is no key's, whichever comes first."""
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
    assert (await service.call("GET", "/api-keys?user_id=alice", everything)).status == 200
    assert (await service.call("GET", "/api-keys?user_id=root", star)).status == 403


def test_a_member_that_grants_nothing() -> None:
    """Each of several Auths has scopes to hold a key against, decided in the way of the keys."""
    keys = DatabaseAPIKeyAuth(Database.of(make_url("sqlite:///unused.db")).factory)
    with pytest.raises(ConfigurationError, match="pass a ScopesAuth"):
        api_keys_router(keys, auth=AnyAuth(JWTAuth(CONFIG), APIKeyAuth(name="presence")))
    with pytest.raises(ConfigurationError, match="two ways"):
        api_keys_router(keys, auth=keys | JWTAuth(CONFIG, scope_validator=SimpleScopeValidator()))


def test_openapi(database: Database) -> None:
    """The document says what each operation needs, and has no example of a key."""
    app = FastAPI()
    app.include_router(api_keys_router(database.auth(), auth=JWTAuth(CONFIG)))
    configure_app(app)
    document = app.openapi()
    assert sorted(document["paths"]) == ["/api-keys", "/api-keys/{key_id}", "/api-keys/{key_id}/rotate"]
    create = document["paths"]["/api-keys"]["post"]
    assert create["security"] == [{"Bearer": []}]
    answers = {
        (path, method): set(map(int, operation["responses"]))
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    }
    refused = {401, 403, 422, 503}
    assert answers == {
        ("/api-keys", "post"): {201, 400, *refused},
        ("/api-keys", "get"): {200, *refused},
        ("/api-keys/{key_id}", "get"): {200, 404, *refused},
        ("/api-keys/{key_id}", "delete"): {204, 404, *refused},
        ("/api-keys/{key_id}/rotate", "post"): {201, 400, 404, 409, *refused},
    }
    assert "example" not in json.dumps(document)
    assert "sk-" not in json.dumps(document)
