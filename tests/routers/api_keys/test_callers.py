"""The keys that a caller sees and manages: by issuer and subject, kind of subject, tenant."""

from typing import Any

import pytest

from api_key.databases import Database
from fastapi_guard import AnyAuth, JWTAuth, JWTConfig
from fastapi_guard.api_key.key import StoredKey
from fastapi_guard.claims import Subject
from fastapi_guard.issuers import MultiOIDCAuth
from fastapi_guard.routers.api_keys.callers import Caller, Owner
from fastapi_guard.testing.issuer import FakeIssuer
from routers.api_keys.calling import ADMIN, ALICE, BOB, CONFIG, EXCEEDS, FORBIDDEN, MISSING, Issuer, Service

SEVERAL = (403, "The credential is of several tenants: name one in the path", None)
ROUTES = (("GET", ""), ("DELETE", ""), ("POST", "/rotate"), ("POST", "/pause"), ("POST", "/resume"), ("GET", "/usage"))


async def assert_hidden(service: Service, key_id: str, claims: dict[str, Any] | str, *, listed: str = "") -> None:
    """Assert that a key is missing for a caller on every route, as an id without a key is."""
    for method, suffix in ROUTES:
        for each_id in (key_id, "0" * 16):
            assert (await service.call(method, f"/api-keys/{each_id}{suffix}", claims)).refusal == MISSING
    assert key_id not in await service.listed(claims, listed)


async def test_keys_of_other_users(service: Service) -> None:
    """Another user neither sees nor changes a key; an administrator does, but does not get a key that acts as her."""
    key = await service.created(ALICE, scopes=["items:read"])
    path = f"/api-keys/{key['key_id']}"
    await assert_hidden(service, key["key_id"], BOB)
    for query in ("user_id=alice", "everyone=true", "user_id=bob&issuer=https://a.example"):
        assert (await service.call("GET", f"/api-keys?{query}", BOB)).refusal == FORBIDDEN
    assert await service.listed(BOB, "user_id=bob") == []

    assert await service.listed(ADMIN) == []
    for query in ("user_id=alice", "everyone=true"):
        assert await service.listed(ADMIN, query) == [key["key_id"]]
    assert (await service.call("GET", path, ADMIN)).status == 200
    refusal = (403, "Only the owner of a key can rotate it", None)
    powerful = {"sub": "root", "scope": "api-keys:admin items:* *:*", "is_admin": True}
    for administrator in (ADMIN, powerful):
        assert (await service.call("POST", f"{path}/rotate", administrator)).refusal == refusal
    assert (await service.call("POST", f"{path}/rotate", ALICE)).status == 201
    assert (await service.call("DELETE", path, ADMIN)).status == 204
    assert not await service.keys.validate_token(key["key"])


KINDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "an agent of the same name": (ALICE, {**ALICE, "subject_type": "agent"}),
    "a service of the same name": ({**ALICE, "subject_type": "session"}, {**ALICE, "subject_type": "service"}),
    "another tenant": ({**ALICE, "tenant_id": "acme"}, {**ALICE, "tenant_id": "other"}),
    "no tenant": ({**ALICE, "tenant_id": "acme"}, ALICE),
    "a tenant": (ALICE, {**ALICE, "tenant_id": "acme"}),
    "a tenant under its other name": (ALICE, {**ALICE, "tenant": "acme"}),
    "an administrator of no tenant": ({**ALICE, "tenant_id": "acme"}, ADMIN),
    "an administrator of another tenant": ({**ALICE, "tenant": "acme"}, {**ADMIN, "tenant": "other"}),
    "an administrator of a tenant": (ALICE, {**ADMIN, "tenant": "acme"}),
    "another case": (ALICE, {**ALICE, "sub": "Alice"}),
}


@pytest.mark.parametrize("case", KINDS)
async def test_owners_that_only_look_alike(service: Service, case: str) -> None:
    """The same sub as another kind of subject, or in another tenant or none, is another owner."""
    owner, other = KINDS[case]
    key = await service.created(owner)
    await assert_hidden(service, key["key_id"], other)
    if "administrator" in case:
        await assert_hidden(service, key["key_id"], other, listed="everyone=true")
    assert await service.listed(owner) == [key["key_id"]]
    assert (await service.call("POST", f"/api-keys/{key['key_id']}/rotate", owner)).status == 201


TENANTS: dict[str, tuple[dict[str, Any], str | None]] = {
    "none": ({}, None),
    "null": ({"tenant_id": None}, None),
    "empty": ({"tenant_id": ""}, None),
    "an empty list": ({"tenant_id": []}, None),
    "tenant_id": ({"tenant_id": "acme"}, "acme"),
    "tenant": ({"tenant": "acme"}, "acme"),
    "the first that is there": ({"tenant_id": None, "tenant": "acme"}, "acme"),
    "both": ({"tenant_id": "acme", "tenant": "other"}, "acme"),
    "a number": ({"tenant_id": 5}, "5"),
    "a list of one": ({"tenant_id": ["acme"]}, "acme"),
}


@pytest.mark.parametrize("case", TENANTS)
async def test_tenants(service: Service, case: str) -> None:
    """The tenant of a key is the one that requires_tenant reads; its administrators are those of that tenant."""
    claims, tenant_id = TENANTS[case]
    key = await service.created({**ALICE, **claims}, scopes=["items:read"])
    assert (await service.keys.verify(key["key"]))["tenant_id"] == tenant_id
    here = {**ADMIN, **({} if tenant_id is None else {"tenant": tenant_id})}
    assert await service.listed(here, "everyone=true") == [key["key_id"]]
    elsewhere = {**ADMIN, "tenant": "elsewhere"}
    await assert_hidden(service, key["key_id"], elsewhere, listed="everyone=true")


@pytest.mark.parametrize("value", [{"id": "acme"}, True, [{"id": "acme"}], [True], 5.5, "t" * 256])
async def test_malformed_tenants(service: Service, value: Any) -> None:
    """A tenant of a wrong type is not the same as none, not even for an administrator."""
    for method, body in (("POST", {}), ("GET", None)):
        for claims in (ALICE, ADMIN):
            assert (await service.call(method, "/api-keys", {**claims, "tenant_id": value}, body)).refusal == FORBIDDEN
            assert (await service.call(method, "/api-keys", claims, body)).status in (200, 201)


async def test_several_tenants(database: Database) -> None:
    """A caller of several tenants names one in the path, under requires_tenant; its administrators see that one."""
    options: dict[str, Any] = {"prefix": "/tenants/{tenant}/api-keys", "tenant_param": "tenant"}
    service = Service(database.auth(), JWTAuth(CONFIG), **options)
    both = {**ALICE, "tenant_id": ["acme", "other"]}
    key = await service.created(both, "/tenants/acme/api-keys")
    assert (await service.keys.verify(key["key"]))["tenant_id"] == "acme"
    one = f"/api-keys/{key['key_id']}"
    assert (await service.call("GET", f"/tenants/acme{one}", both)).status == 200
    assert (await service.call("GET", f"/tenants/other{one}", both)).refusal == MISSING
    for claims in (ALICE, {**ADMIN, "tenant": "other"}, ADMIN, {**ADMIN, "tenant": {"acme": 1}}):
        assert (await service.call("GET", f"/tenants/acme{one}", claims)).refusal == FORBIDDEN
    listed = await service.call("GET", "/tenants/acme/api-keys?everyone=true", {**ADMIN, "tenant": "acme"})
    assert [shown["key_id"] for shown in listed.json] == [key["key_id"]]
    plain = Service(database.auth(), JWTAuth(CONFIG))
    assert (await plain.call("POST", "/api-keys", both, {})).refusal == SEVERAL
    assert (await plain.call("POST", "/api-keys", {**ALICE, "tenant_id": "acme"}, {})).status == 201


async def test_another_name_of_the_tenant(database: Database) -> None:
    """The claim that requires_tenant reads is the one that counts here, and no other."""
    service = Service(database.auth(), JWTAuth(CONFIG, tenant_claims=("org",)))
    key = await service.created({**ALICE, "org": "acme", "tenant_id": "other"})
    assert (await service.keys.verify(key["key"]))["tenant_id"] == "acme"
    await assert_hidden(service, key["key_id"], {**ADMIN, "tenant_id": "acme"}, listed="everyone=true")
    assert await service.listed({**ADMIN, "org": "acme"}, "everyone=true") == [key["key_id"]]


@pytest.mark.parametrize(
    "claims",
    [
        {"scope": "items:*"},
        {"sub": "a" * 256},
        {"sub": "a\x00"},
        {"sub": "alice", "subject_type": "root"},
    ],
    ids=["no sub", "a long sub", "a NUL", "an unknown kind"],
)
async def test_credentials_without_an_owner(service: Service, claims: dict[str, Any]) -> None:
    """A credential that names no subject as keys can have it creates and lists nothing."""
    answer = await service.call("POST", "/api-keys", claims, {})
    assert answer.status in (401, 403)
    assert (await service.call("GET", "/api-keys", claims)).status in (401, 403)
    assert (await service.call("POST", "/api-keys", {"sub": "alice"}, {})).status == 201


async def owner_of(service: Service, raw: str) -> tuple[Subject, Subject | None]:
    """Return owner and maker of a key."""
    key = await service.keys.get((await service.keys.verify(raw))["key_id"])
    assert isinstance(key, StoredKey)
    return key.owner, key.maker


async def test_two_issuers(database: Database) -> None:
    """The same sub at another issuer neither lists, rotates nor revokes; a key keeps the issuer of its owner."""
    one, two = Issuer("one"), Issuer("two")
    own = JWTAuth(JWTConfig(key=CONFIG.key, issuer_url="https://api.example", expiration_seconds=None))
    keys = database.auth()
    service = Service(keys, AnyAuth(one.auth, two.auth, own, keys))
    key = await service.created(one.token(ALICE), scopes=["items:read"])
    claims = await keys.verify(key["key"])
    assert (claims["iss"], claims["sub"]) == ("https://one.example", "alice")
    subject = Subject("https://one.example", "alice")
    assert await owner_of(service, key["key"]) == (subject, subject)
    path = f"/api-keys/{key['key_id']}"
    administrators = (two.token(ADMIN), own.encode(ADMIN))
    await assert_hidden(service, key["key_id"], two.token(ALICE))
    await assert_hidden(service, key["key_id"], own.encode(ALICE))
    await assert_hidden(service, key["key_id"], administrators[0], listed="everyone=true")
    refusal = await service.call("GET", "/api-keys?user_id=alice&issuer=https://one.example", administrators[0])
    assert refusal.refusal == FORBIDDEN
    # An administrator of the application itself administers the subjects of every issuer, and acts as none of them.
    for query in ("everyone=true", "user_id=alice&issuer=https://one.example"):
        assert await service.listed(administrators[1], query) == [key["key_id"]]
    assert await service.listed(administrators[1], "user_id=alice") == []
    assert (await service.call("POST", f"{path}/rotate", administrators[1])).status == 403
    # The key itself acts as its owner, and as no other alice.
    made = await service.created(key["key"], scopes=["items:read"])
    assert await owner_of(service, made["key"]) == (subject, subject)
    assert (await service.call("DELETE", path, one.token(ALICE))).status == 204


async def test_the_application_itself(database: Database) -> None:
    """Tokens that the application signs are of its own subjects, as sessions are, and their keys end with them."""
    own = JWTAuth(JWTConfig(key=CONFIG.key, issuer_url="https://api.example", expiration_seconds=None))
    keys = database.auth()
    service = Service(keys, own | keys)
    by_hand, _ = await keys.create(user_id="alice")
    made = await service.created(own.encode(ALICE))
    assert await owner_of(service, made["key"]) == (Subject(None, "alice"), Subject(None, "alice"))
    assert "iss" not in await keys.verify(made["key"])
    assert list(await service.listed(own.encode(ALICE))) == [by_hand, made["key_id"]]
    assert await keys.revoke_subject("alice") == 2


async def test_several_issuers_that_sign(database: Database) -> None:
    """Of several Auths that sign none is the application itself: their subjects stay apart, in two routers too."""
    keys = database.auth()
    customers, staff = (
        JWTAuth(JWTConfig(key=CONFIG.key, issuer_url=f"https://{name}.example", expiration_seconds=None), name=name)
        for name in ("customers", "staff")
    )
    both = Service(keys, AnyAuth(customers, staff))
    key = await both.created(customers.encode(ALICE))
    await assert_hidden(both, key["key_id"], staff.encode(ALICE))
    assert await owner_of(both, key["key"]) == (Subject("https://customers.example", "alice"),) * 2
    first, second = Service(keys, customers), Service(keys, staff)
    own, other = await first.created(customers.encode(ALICE)), await second.created(staff.encode(ALICE))
    assert (await owner_of(first, own["key"]))[0] == Subject(None, "alice")
    assert (await owner_of(second, other["key"]))[0] == Subject("https://staff.example", "alice")
    await assert_hidden(second, own["key_id"], staff.encode(ALICE))
    await assert_hidden(first, other["key_id"], customers.encode(ALICE))


async def test_several_providers(database: Database) -> None:
    """Behind MultiOIDCAuth is_admin counts from the admin_providers alone, and a sub of one is not that of another."""
    one, two = FakeIssuer("https://one.example"), FakeIssuer("https://two.example")
    providers = {
        name: {"issuer": issuer.url, "audience": issuer.audience, "client": issuer.client}
        for name, issuer in (("one", one), ("two", two))
    }
    auth = MultiOIDCAuth(providers, admin_providers=["one"])
    service = Service(database.auth(), auth)
    claims = {"scope": "api-keys:admin", "is_admin": True}
    key = await service.created(one.token("alice", **claims), is_admin=True)
    assert (await service.keys.verify(key["key"]))["is_admin"] is True
    other = two.token("alice", **claims)
    assert (await service.call("POST", "/api-keys", other, {"is_admin": True})).refusal == EXCEEDS
    await assert_hidden(service, key["key_id"], other, listed="everyone=true")
    assert (await service.keys.verify((await service.created(other))["key"]))["is_admin"] is False
    await auth.aclose()


async def test_the_actor_of_another_issuer(database: Database) -> None:
    """The table of events has the issuer of an actor, and a hash of what does not fit."""
    service = Service(database.auth(), AnyAuth((one := Issuer("one")).auth, (far := Issuer("f" * 238)).auth))
    for issuer, expected in ((one, "https://one.example|alice"), (far, None)):
        token = issuer.token(ALICE)
        key = await service.created(token)
        await service.call("POST", f"/api-keys/{key['key_id']}/pause", token)
        found = await service.keys.get(key["key_id"])
        assert found is not None
        assert found.paused_by is not None
        assert found.paused_by == expected or len(found.paused_by) == 65
        assert (await service.call("POST", f"/api-keys/{key['key_id']}/resume", token)).status == 204


def actor_of(issuer: str | None, sub: str, kind: Any = "user") -> str:
    """Return the actor that a caller is."""
    identity = Owner(Subject(issuer, sub), kind, None)
    own: Any = dict.fromkeys(("connection", "decision", "grants", "claims", "is_administrator", "sees_others"))
    return Caller(**own, identity=identity, owner=identity).actor


def test_actors() -> None:
    """A user is a plain sub, one of another issuer has it before; what could be another caller is written out."""
    assert actor_of(None, "alice") == "alice"
    assert actor_of(None, "service:acme/ci", "service") == "service:acme/ci"
    assert actor_of("https://acme.example/", "auth0|1") == "https://acme.example/|auth0|1"
    alike: list[tuple[Any, ...]] = [
        *((None, "a|b|c"), ("a", "b|c"), ("a|b", "c"), ("a%7Cb", "c"), ("", "a|b|c"), (None, "|user|=a|b|c")),
        *((None, "alice", kind) for kind in ("user", "agent", "session", "service")),
        *((None, "cli"), (None, "cli:root"), (None, "client"), (None, "service:x"), (None, "service:x", "service")),
        *((None, "service:x|y", "service"), ("service:x", "y"), ("a", "b", "agent"), ("a", "b")),
        *(("f" * 200, "a" * length) for length in (54, 55, 200)),
        *((None, actor_of("f" * 200, "a" * 200)), (None, actor_of(None, "a|b"))),
    ]
    actors = [actor_of(*caller) for caller in alike]
    assert len(set(actors)) == len(alike)
    assert max(map(len, actors)) == 255
    assert not {"cli", "cli:root"} & set(actors)


async def test_a_pause_by_an_administrator_of_a_like_name(database: Database) -> None:
    """The owner cannot end it: the caller who paused a key is compared, not a text that several have."""
    one = Issuer("one")
    service = Service(database.auth(), AnyAuth(JWTAuth(CONFIG), one.auth))
    administrator = {**ADMIN, "sub": "https://one.example|alice"}
    agent = {**ALICE, "subject_type": "agent"}
    for owner, pauser in ((one.token(ALICE), administrator), (agent, {**ADMIN, "sub": "alice"})):
        path = f"/api-keys/{(await service.created(owner))['key_id']}"
        assert (await service.call("POST", f"{path}/pause", pauser)).status == 204
        refused = await service.call("POST", f"{path}/resume", owner)
        assert refused.refusal == (403, "The key was paused by an administrator", None)
        assert (await service.call("POST", f"{path}/resume", pauser)).status == 204


@pytest.mark.parametrize("sub", ["cli:root", "cli"])
async def test_a_pause_by_the_command_line(service: Service, sub: str) -> None:
    """A user with the name of an operator of the command line cannot end it."""
    owner = {**ALICE, "sub": sub}
    key = await service.created(owner)
    await service.keys.pause(key["key_id"], by=sub)
    assert (await service.call("POST", f"/api-keys/{key['key_id']}/resume", owner)).status == 403
