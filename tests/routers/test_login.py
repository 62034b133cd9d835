"""The routes of a login with tokens: RFC 6749 at /token, JSON and forms at /login, and the refusals of each."""

import json
from collections.abc import Iterator
from datetime import timedelta
from itertools import product
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from joserfc import jwk

from fastapi_guard import JWTConfig, ServiceUnavailable, configure_app
from fastapi_guard.login.limits import LoginLimits
from fastapi_guard.login.local import LocalAuth
from fastapi_guard.login.refresh import RefreshTokens
from fastapi_guard.login.revocation import Revocations
from fastapi_guard.login.users import User
from fastapi_guard.routers.bodies import MAX_BODY_BYTES
from fastapi_guard.routers.login import login_router
from fastapi_guard.stores import MemoryStore, Record
from support.clock import Clock
from support.login import PASSWORD
from support.logins import House, users_of

USER = {"username": "ada@example.com", "password": PASSWORD}
JSON = {"Content-Type": "application/json"}
FORM = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
KEY = jwk.OctKey.generate_key(256)
WRONG = "Incorrect username or password"


class Failing(MemoryStore):
    """A store that can be unreachable."""

    unreachable = False

    async def get(self, *keys: str) -> list[Record | None]:
        """Look up."""
        self._connect()
        return await super().get(*keys)

    async def take(self, key: str) -> Record | None:
        """Remove."""
        self._connect()
        return await super().take(key)

    def _connect(self) -> None:
        if self.unreachable:
            raise ServiceUnavailable(reason="store_unreachable")


class Site:
    """An application with the routes of a login, and its parts."""

    def __init__(self, clock: Clock, *, refresh: bool = True, cookie: bool = False, **options: Any) -> None:
        """Build the application."""
        self.store = Failing(clock=clock)
        users = users_of(**options.pop("user", {"scopes": ["items:read", "notes:read"]}))
        self.home = House(self.store, clock, options, users=users)
        self.auth = LocalAuth(
            JWTConfig(key=KEY),
            self.home.login,
            refresh=RefreshTokens(self.store, clock=clock) if refresh else None,
            revocations=Revocations(self.store, clock=clock),
            clock=clock,
            trusted_origins=["https://shop.example"],
        )
        self.app = FastAPI()
        self.app.include_router(login_router(self.auth, refresh_cookie=cookie))
        self.app.get("/items", dependencies=[self.auth.requires("items:read")])(lambda: "items")

    def client(self) -> TestClient:
        """Return a browser at the application."""
        return TestClient(self.app, base_url="https://app.example")


@pytest.fixture
def site(clock: Clock) -> Site:
    """Return an application."""
    return Site(clock)


@pytest.fixture
def client(site: Site) -> Iterator[TestClient]:
    """Return a client of the application."""
    with site.client() as opened:
        yield opened


def bearer(pair: dict[str, Any]) -> dict[str, str]:
    """Return the header that carries an access token."""
    return {"Authorization": f"Bearer {pair['access_token']}"}


def assert_refused(answer: httpx2.Response, error: str, description: str, status: int = 400) -> None:
    """Assert an error response of RFC 6749 5.2 that no cache stores."""
    assert answer.status_code == status, answer.text
    expected = {"error": error, "error_description": description, "detail": description}
    assert expected.items() <= answer.json().items()
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"


SENT: list[dict[str, Any]] = [
    {"data": USER},
    {"data": {**USER, "grant_type": "password", "scope": "", "client_id": "", "client_secret": ""}},
    {"json": USER},
    {"json": {"email": "ada@example.com", "password": PASSWORD, "remember": True}},
]


@pytest.mark.parametrize("path", ["/token", "/login"])
@pytest.mark.parametrize("sent", SENT, ids=range(len(SENT)))
def test_log_in(client: TestClient, path: str, sent: dict[str, Any]) -> None:
    """A form as the Authorize button sends it, and JSON, log in; the answer is RFC 6749's, and no cache stores it."""
    answer = client.post(path, **sent)
    assert answer.status_code == 200
    assert set(answer.json()) == {"access_token", "token_type", "expires_in", "refresh_token"}
    assert answer.json()["token_type"] == "bearer"
    # The lifetime begins before the user is read, and what is left of it after that is whole seconds.
    assert 3590 < answer.json()["expires_in"] <= 3600
    assert answer.headers["cache-control"] == "no-store"
    assert client.get("/items", headers=bearer(answer.json())).status_code == 200


@pytest.mark.parametrize("path", ["/token", "/token/refresh"])
def test_refresh(client: TestClient, path: str) -> None:
    """Both the token endpoint and a path of its own exchange a refresh token; it is used up."""
    first = client.post("/token", data=USER).json()
    form = {"grant_type": "refresh_token", "refresh_token": first["refresh_token"]}
    answer = client.post(path, data=form)
    second = answer.json()
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    assert client.get("/items", headers=bearer(second)).status_code == 200
    answer = client.post("/token/revoke", data={"token": first["refresh_token"], "token_type_hint": "refresh_token"})
    assert (answer.status_code, answer.json(), answer.headers["cache-control"]) == (200, {}, "no-store")
    for token in (second["refresh_token"], "x", "x" * 64, "", "\ud800"):
        body = json.dumps({"refresh_token": token})
        answer = client.post(path, content=body, headers=JSON)
        assert_refused(answer, "invalid_grant", "The refresh token is invalid")


@pytest.mark.parametrize("grant", ["authorization_code", "client_credentials", "PASSWORD", "urn:x", "implicit"])
def test_another_grant(client: TestClient, grant: str) -> None:
    """Another grant is unsupported, whatever else is sent."""
    answer = client.post("/token", data={**USER, "grant_type": grant})
    assert_refused(answer, "unsupported_grant_type", "The grant type is not supported")


@pytest.mark.parametrize("scope", [["items:read"], [], {"items:read": True}, 7, False], ids=repr)
@pytest.mark.parametrize("path", ["/token", "/login", "/token/refresh", "/login/passkey"])
def test_scopes_that_are_not_text(client: TestClient, path: str, scope: Any) -> None:
    """Scopes of another type are not left out, which would grant all of them."""
    answer = client.post(path, json={**BODIES[path], "scope": scope})
    assert answer.status_code == (400 if path in OAUTH else 422)


def test_scopes(client: TestClient) -> None:
    """Scopes that are requested narrow the token, and the answer names what was granted."""
    answer = client.post("/token", data={**USER, "scope": "items:read x:y"}).json()
    assert answer["scope"] == "items:read"
    answer = client.post("/token/refresh", data={"refresh_token": answer["refresh_token"], "scope": "items:read"})
    assert answer.json()["scope"] == "items:read"
    refused = client.post("/token", data={**USER, "scope": "x:y"})
    assert_refused(refused, "invalid_scope", "The requested scopes are not granted")
    refused = client.post("/login", json={**USER, "scope": "x:y"})
    assert (refused.status_code, refused.json()) == (403, {"detail": "The requested scopes are not granted"})
    pair = client.post("/login", json={**USER, "scope": "notes:read"}).json()
    assert client.get("/items", headers=bearer(pair)).status_code == 403


async def test_a_second_factor(site: Site) -> None:
    """/token names what is needed and is not a 200; /login is a 202; a code completes both."""
    await site.home.enrol("totp")
    await site.home.enrol("recovery")
    with site.client() as client:
        answer = client.post("/token", data=USER)
        assert_refused(answer, "mfa_required", "A second factor is required")
        assert (answer.json()["factors"], answer.json()["expires_in"]) == (["recovery", "totp"], 600)
        pending = client.post("/login", json=USER)
        assert (pending.status_code, pending.headers["cache-control"]) == (202, "no-store")
        assert set(pending.json()) == {"pending", "factors", "expires_in"}
        assert client.post("/login/challenge", json={**pending.json(), "factor": "totp"}).json() == {}
        for begun in (answer.json(), pending.json()):
            wrong = client.post("/login/totp", json={"pending": begun["pending"], "code": "000 00x"})
            assert (wrong.status_code, wrong.json()) == (401, {"detail": "The second factor is wrong"})
            done = client.post("/login/totp", data={"pending": begun["pending"], "code": site.home.code()})
            assert done.status_code == 200
            assert client.get("/items", headers=bearer(done.json())).status_code == 200
            again = client.post("/login/totp", data={"pending": begun["pending"], "code": site.home.code()})
            assert (again.status_code, again.json()) == (401, {"detail": "The login has expired"})
            site.home.clock.move(60)


# A right body for each route that an anonymous caller can post to.
BODIES: dict[str, dict[str, Any]] = {
    "/login": USER,
    "/login/challenge": {"pending": "x", "factor": "totp"},
    "/login/totp": {"pending": "x", "code": "123456"},
    "/login/recovery": {"pending": "x", "code": "123456"},
    "/login/mail": {"pending": "x", "code": "123456"},
    "/login/passkey": {"pending": "x", "credential": {}},
    "/login/passkey/begin": {"username": "ada"},
    "/login/passkey/finish": {"credential": {}},
    "/login/mail/begin": {"username": "ada"},
    "/login/mail/finish": {"code": "12345678"},
    "/token": USER,
    "/token/refresh": {"refresh_token": "x"},
    "/token/revoke": {"token": "x"},
}
PATHS = list(BODIES)
OAUTH = [path for path in PATHS if path.startswith("/token")]

UNREADABLE: list[tuple[dict[str, Any], int, str]] = [
    ({"content": b"{" + PASSWORD.encode(), "headers": JSON}, 422, "invalid_request"),
    ({"content": b"[1]", "headers": JSON}, 422, "invalid_request"),
    ({"content": b'{"a": "b", "a": "c"}', "headers": JSON}, 422, "invalid_request"),
    ({"content": b"[" * 60_000, "headers": JSON}, 422, "invalid_request"),
    ({"content": b"\xff\xfe", "headers": JSON}, 422, "invalid_request"),
    ({"content": b"username=a&username=b&password=c", "headers": FORM}, 422, "invalid_request"),
    ({"content": b"&".join(b"a=b" for _ in range(100)), "headers": FORM}, 422, "invalid_request"),
    ({"content": PASSWORD.encode(), "headers": {"Content-Type": "text/plain"}}, 415, "invalid_request"),
    ({"content": b"x" * (MAX_BODY_BYTES + 1), "headers": FORM}, 413, "invalid_request"),
    ({"content": b"x" * (MAX_BODY_BYTES + 1), "headers": JSON}, 413, "invalid_request"),
]


def test_bodies_that_cannot_be_read(clock: Clock) -> None:
    """A body that is too long, of another type, or malformed is refused, without what was sent, and not stored."""
    client = Site(clock, limits=LoginLimits(account=None, address=None)).client()
    for path in PATHS:
        for sent, status, error in UNREADABLE:
            answer = client.post(path, **sent)
            if path in OAUTH:
                assert answer.json()["error"] == error
            expected = 400 if path in OAUTH and status == 422 else status
            assert (answer.status_code, answer.headers["cache-control"]) == (expected, "no-store"), (path, sent)
            assert PASSWORD not in answer.text
        streamed = client.post(path, content=iter([b"x" * MAX_BODY_BYTES, b"x"]), headers=FORM)
        assert streamed.status_code == 413


def test_fields_that_are_missing(client: TestClient) -> None:
    """A field that is missing, or of another type, is named; what else was sent is not repeated."""
    for path in ("/login", "/login/challenge", "/token", "/token/revoke", "/token/refresh"):
        for sent in ({"json": {}}, {"data": {"password": PASSWORD}}, {"json": {"username": 7, "password": PASSWORD}}):
            answer = client.post(path, **sent)
            assert PASSWORD not in answer.text
            if path in OAUTH:
                assert_refused(answer, "invalid_request", "The body cannot be read, or a field is missing")
            elif path == "/login/challenge":
                assert (answer.status_code, answer.json()) == (401, {"detail": "The login has expired"})
            else:
                assert (answer.status_code, answer.json()["detail"][0]["type"]) == (422, "missing")


ODD: list[dict[str, Any]] = [
    {"data": {**USER, "password": "wrong"}},
    {"data": {**USER, "username": "nobody@example.com"}},
    {"data": {**USER, "username": "mallory@example.com"}},
    {"data": {**USER, "password": "a" * 60_000}},
    {"data": {**USER, "password": "a\0b"}},
    {"data": {**USER, "password": ""}},
    {"content": json.dumps({**USER, "password": "\ud800"}), "headers": JSON},
    {"content": json.dumps({**USER, "username": "\ud800"}), "headers": JSON},
    {"json": {**USER, "username": "\0"}},
    {"content": b"username=ada%40example.com&password=%ff%fe", "headers": FORM},
    {"content": b"username=ada%40example.com&password=\xff\xfe", "headers": FORM},
]


@pytest.mark.parametrize("sent", ODD, ids=range(len(ODD)))
def test_a_login_that_fails(client: TestClient, sent: dict[str, Any]) -> None:
    """Any wrong username or password is one refusal: 401 at /login, and invalid_grant at /token."""
    answer = client.post("/login", **sent)
    assert (answer.status_code, answer.json()) == (401, {"detail": WRONG})
    assert answer.headers["www-authenticate"] == 'Bearer realm="api"'
    assert answer.headers["cache-control"] == "no-store"
    answer = client.post("/token", **sent)
    assert_refused(answer, "invalid_grant", WRONG)
    assert "www-authenticate" not in answer.headers
    assert client.post("/token", data=USER).status_code == 200


STRANGE: list[Any] = ["", "x", "x" * 43, "x" * 65, "\0", None, 7, ["x"], {"a": 1}]


def test_a_login_that_is_not_pending(client: TestClient) -> None:
    """An id of no pending login, of any type or missing, is one refusal at each second step."""
    steps = [path for path in PATHS if path.count("/") == 2 and path.startswith("/login")]
    for path, pending in product(steps, STRANGE):
        body = {**BODIES[path], "pending": pending}
        answer = client.post(path, json=body)
        assert (answer.status_code, answer.json()) == (401, {"detail": "The login has expired"}), body
        assert answer.headers["cache-control"] == "no-store"


PROOFS: list[dict[str, Any]] = [
    {},
    {"code": None},
    {"code": 123456},
    {"code": ""},
    {"code": "1" * 500},
    {"code": "\0"},
    {"code": ["123456"]},
    {"credential": "x"},
    {"credential": {"id": "x", "response": []}},
    {"token": "x"},
]


async def test_proofs_that_are_wrong(clock: Clock) -> None:
    """A proof of any shape is wrong and nothing else, at each second step, and at each first one."""
    site = Site(clock, limits=LoginLimits(account=None, address=None))
    kinds = ("totp", "passkey", "recovery", "mail")
    for kind in kinds:
        await site.home.enrol(kind)
    with site.client() as client:
        for kind, proof in product(kinds, PROOFS):
            pending = client.post("/login", json=USER).json()["pending"]
            answer = client.post(f"/login/{kind}", json={"pending": pending, **proof})
            assert (answer.status_code, answer.json()) == (401, {"detail": "The second factor is wrong"}), proof
        for kind, proof in product(("passkey", "mail"), PROOFS):
            client.post(f"/login/{kind}/begin", json={"username": "ada"})
            answer = client.post(f"/login/{kind}/finish", json=proof)
            assert (answer.status_code, answer.json()) == (401, {"detail": "Login failed"}), proof
        await site.home.outbox.drain()


async def test_a_passkey_alone(site: Site) -> None:
    """A passkey logs in, in the browser that began; in another one, or twice, it does not."""
    device = await site.home.enrol("passkey")
    with site.client() as client:
        begun = client.post("/login/passkey/begin", json={})
        assert begun.headers["set-cookie"].startswith("__Host-browser-login=")
        credential = {"credential": device.get(begun.json()["publicKey"])}
        elsewhere = site.client().post("/login/passkey/finish", json=credential)
        assert (elsewhere.status_code, elsewhere.json()) == (401, {"detail": "Login failed"})
        begun = client.post("/login/passkey/begin", json={})
        credential = {"credential": device.get(begun.json()["publicKey"])}
        answer = client.post("/login/passkey/finish", json=credential)
        assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
        assert client.post("/login/passkey/finish", json=credential).status_code == 401


async def test_a_passkey_as_the_second_factor(site: Site) -> None:
    """A passkey completes a login after its challenge."""
    device = await site.home.enrol("passkey")
    with site.client() as client:
        pending = client.post("/login", json=USER).json()["pending"]
        options = client.post("/login/challenge", json={"pending": pending, "factor": "passkey"}).json()
        credential = device.get(options["publicKey"])
        assert client.post("/login/passkey", json={"pending": pending, "credential": credential}).status_code == 200


async def test_a_message_alone(site: Site) -> None:
    """The answer to a request for a code is the same for known and unknown addresses; the code logs in."""
    with site.client() as client:
        answers = [
            client.post("/login/mail/begin", data={"username": name}) for name in ("ada@example.com", "x@example.com")
        ]
        assert [(answer.status_code, answer.json()) for answer in answers] == [(200, {})] * 2
        client.portal.call(site.home.outbox.drain)  # type: ignore[union-attr]
        assert len(site.home.messages) == 1
        code = site.home.messages[0].code
        assert site.client().post("/login/mail/finish", json={"code": code}).status_code == 401
        assert client.post("/login/mail/finish", json={"code": code}).status_code == 200


async def test_a_trusted_device(clock: Clock) -> None:
    """With trust the browser gets a cookie, and the password alone is enough from then on; elsewhere it is not."""
    site = Site(clock, trusted_devices=timedelta(days=30))
    await site.home.enrol("totp")
    with site.client() as client:
        pending = client.post("/login", json=USER).json()["pending"]
        body = {"pending": pending, "code": site.home.code(), "trust": True}
        foreign = client.post("/login/totp", json=body, headers={"Sec-Fetch-Site": "cross-site"})
        assert foreign.status_code == 403
        done = client.post("/login/totp", json=body)
        assert (done.status_code, done.headers["set-cookie"].partition("=")[0]) == (200, "__Host-device-login")
        assert client.post("/token", data=USER).status_code == 200
        assert site.client().post("/token", data=USER).json()["error"] == "mfa_required"


async def test_trust_that_is_not_configured(site: Site) -> None:
    """Without trusted devices nothing is trusted, and the code is not used up by trying."""
    await site.home.enrol("totp")
    with site.client() as client:
        body = {"pending": client.post("/login", json=USER).json()["pending"], "code": site.home.code()}
        assert client.post("/login/totp", json={**body, "trust": True}).status_code == 403
        assert client.post("/login/totp", json=body).status_code == 200


async def test_step_up(site: Site) -> None:
    """A step-up needs the access token, and is a new access token of the same login."""
    await site.home.enrol("totp", "bob")
    with site.client() as client:
        for method, path in (("GET", ""), ("POST", ""), ("POST", "/challenge")):
            assert client.request(method, f"/login/step-up{path}", json={"factor": "password"}).status_code == 401
        pair = client.post("/token", data=USER).json()
        await site.home.enrol("totp")
        headers = bearer(pair)
        assert client.get("/login/step-up", headers=headers).json() == {"factors": ["totp", "password"]}
        challenge = client.post("/login/step-up/challenge", json={"factor": "totp"}, headers=headers)
        assert (challenge.status_code, challenge.json()) == (200, {})
        wrong = client.post("/login/step-up", json={"factor": "totp", "code": "x"}, headers=headers)
        assert (wrong.status_code, wrong.json()) == (401, {"detail": "The second factor is wrong"})
        wrong = client.post("/login/step-up", json={"factor": "password", "password": "x"}, headers=headers)
        assert (wrong.status_code, wrong.json()) == (401, {"detail": "The password is wrong"})
        body = {"factor": "totp", "code": site.home.code()}
        answer = client.post("/login/step-up", json=body, headers=headers)
        assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
        assert set(answer.json()) == {"access_token", "token_type", "expires_in"}
        claims = await site.auth.verify(answer.json()["access_token"])
        assert claims["amr"] == ["pwd", "otp", "mfa"]
        assert client.post("/login/step-up", json={"factor": 7}, headers=headers).status_code == 422
        assert client.post("/login/step-up", json={"factor": "sms"}, headers=headers).status_code == 403


def test_logout_and_devices(client: TestClient) -> None:
    """A user lists and ends logins, and no one else's; a logout ends one's own."""
    pairs = [client.post("/token", data=USER, headers={"User-Agent": f"phone {number}"}).json() for number in range(3)]
    other = client.post("/token", data={**USER, "username": "bob"}).json()
    listed = client.get("/devices", headers=bearer(pairs[0])).json()
    assert sorted(device["user_agent"] for device in listed) == ["phone 0", "phone 1", "phone 2"]
    mine = next(device for device in listed if device["current"])
    assert (mine["user_agent"], set(mine)) == (
        "phone 0",
        {"id", "address", "user_agent", "created_at", "seen_at", "expires_at", "current"},
    )
    ended = next(device["id"] for device in listed if device["user_agent"] == "phone 1")
    assert client.delete(f"/devices/{ended}", headers=bearer(other)).status_code == 404
    assert client.delete(f"/devices/{ended}", headers=bearer(pairs[0])).status_code == 204
    assert client.get("/items", headers=bearer(pairs[1])).status_code == 401
    assert client.delete("/devices", headers=bearer(pairs[0])).json() == {"ended": 1}
    assert [client.get("/items", headers=bearer(pair)).status_code for pair in pairs] == [200, 401, 401]
    assert client.get("/items", headers=bearer(other)).status_code in (200, 403)
    answer = client.post("/logout", headers=bearer(pairs[0]))
    assert (answer.status_code, answer.content, answer.headers["cache-control"]) == (204, b"", "no-store")
    assert client.get("/items", headers=bearer(pairs[0])).status_code == 401
    refused = client.post("/logout")
    assert (refused.status_code, refused.json()) == (401, {"detail": "Not authenticated"})
    assert refused.headers["cache-control"] == "no-store"


def test_too_many(client: TestClient) -> None:
    """The sixth wrong password is a 429 with Retry-After that no cache stores."""
    wrong = {**USER, "password": "wrong"}
    answers = [client.post("/token", data=wrong) for _ in range(6)]
    assert [answer.status_code for answer in answers] == [400] * 5 + [429]
    assert_refused(answers[-1], "temporarily_unavailable", "Too many requests", 429)
    assert int(answers[-1].headers["retry-after"]) == 900
    answer = client.post("/login", json=wrong)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "900")


def test_an_address_is_counted_before_the_body_is_read(client: TestClient) -> None:
    """An address beyond its limit is refused before its body, also where its bodies are malformed."""
    for number in range(50):
        path = ("/login", "/token", "/login/totp", "/login/mail/finish", "/login/mail/begin")[number % 5]
        assert client.post(path, content=b"{", headers=JSON).status_code in (400, 422)
    too_long = {"content": b"x" * (MAX_BODY_BYTES + 1), "headers": FORM}
    assert client.post("/login", **too_long).status_code == 429
    assert client.post("/token", **too_long).status_code == 429


def test_a_store_that_is_unreachable(client: TestClient, site: Site) -> None:
    """An unreachable store is a 503, and afterwards the token is as good as before."""
    pair = client.post("/token", data=USER).json()
    site.store.unreachable = True
    refused = client.post("/token/refresh", json={"refresh_token": pair["refresh_token"]})
    assert_refused(refused, "temporarily_unavailable", "Service temporarily unavailable", 503)
    assert refused.headers["retry-after"] == "5"
    assert client.get("/items", headers=bearer(pair)).status_code == 503
    answer = client.post("/login/totp", json={"pending": "x" * 43, "code": "x"})
    assert (answer.status_code, answer.json()) == (503, {"detail": "Service temporarily unavailable"})
    site.store.unreachable = False
    assert client.post("/token/refresh", json={"refresh_token": pair["refresh_token"]}).status_code == 200


def test_without_refresh_tokens(clock: Clock) -> None:
    """Without refresh tokens there is no route for them, and a login is an access token."""
    site = Site(clock, refresh=False, second=())
    app = FastAPI()
    app.include_router(login_router(site.auth, prefix="/auth"))
    client = TestClient(app)
    assert set(client.post("/auth/token", data=USER).json()) == {"access_token", "token_type", "expires_in"}
    paths = {"token", "token/revoke", "logout", "login", "login/step-up", "login/step-up/challenge"}
    assert set(app.openapi()["paths"]) == {f"/auth/{path}" for path in paths}
    answer = client.post("/auth/token", data={"grant_type": "refresh_token", "refresh_token": "x"})
    assert_refused(answer, "unsupported_grant_type", "The grant type is not supported")


def test_without_passwords(clock: Clock) -> None:
    """Without passwords there is no login by one, and the token endpoint has the other grant alone."""
    site = Site(clock, passwords=None)
    client = site.client()
    assert client.post("/login", json=USER).status_code == 405 or client.post("/login", json=USER).status_code == 404
    assert_refused(client.post("/token", data=USER), "unsupported_grant_type", "The grant type is not supported")


COOKIE = "__Host-refresh-local"
FOREIGN = [{"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Origin": "https://evil.example"}]


def test_a_refresh_cookie(clock: Clock) -> None:
    """The refresh token is in a cookie that no script reads, and in no answer; refresh and logout use it."""
    site = Site(clock, cookie=True)
    with site.client() as client:
        for path in ("/login", "/token"):
            answer = client.post(path, data=USER)
            assert set(answer.json()) == {"access_token", "token_type", "expires_in"}
            name, _, rest = answer.headers["set-cookie"].partition("=")
            assert name == COOKIE
            assert rest.partition("; ")[2] == "HttpOnly; Max-Age=1209600; Path=/; SameSite=strict; Secure"
        first = client.cookies[COOKIE]
        refreshed = client.post("/token/refresh")
        assert (refreshed.status_code, set(refreshed.json())) == (200, {"access_token", "token_type", "expires_in"})
        assert client.cookies[COOKIE] != first
        assert client.post("/token", data={"grant_type": "refresh_token"}).status_code == 200
        out = client.post("/logout", headers=bearer(refreshed.json()))
        assert out.status_code == 204
        assert COOKIE not in client.cookies
        assert_refused(client.post("/token/refresh"), "invalid_grant", "The refresh token is invalid")
        client.cookies.set(COOKIE, first)
        ended = client.post("/token/refresh")
        assert_refused(ended, "invalid_grant", "The refresh token is invalid")
        assert ended.headers["set-cookie"].startswith(f'{COOKIE}=""')


@pytest.mark.parametrize("headers", FOREIGN, ids=range(len(FOREIGN)))
async def test_another_sites_page(clock: Clock, headers: dict[str, str]) -> None:
    """A page of another site can neither log a browser in, nor refresh, nor log out; a trusted one can."""
    site = Site(clock, cookie=True)
    with site.client() as client:
        pair = client.post("/login", json=USER).json()
        for path in ("/login", "/login/totp", "/login/challenge", "/login/mail/begin", "/login/mail/finish"):
            answer = client.post(path, json=USER, headers=headers)
            assert (answer.status_code, answer.json()) == (403, {"detail": "Forbidden"}), path
        for path in ("/token", "/token/refresh"):
            assert_refused(client.post(path, data=USER, headers=headers), "invalid_grant", "Forbidden")
        assert client.post("/logout", headers={**bearer(pair), **headers}).status_code == 403
        trusted = {"Origin": "https://shop.example"}
        assert client.post("/token/refresh", headers=trusted).status_code == 200
        assert client.post("/login", json=USER, headers=trusted).status_code == 200


def test_a_login_without_cookies_is_not_a_matter_of_origin(client: TestClient) -> None:
    """Without cookies a page of another origin may log in, as far as CORS lets it."""
    headers = {"Origin": "https://spa.example", "Sec-Fetch-Site": "cross-site"}
    assert client.post("/login", json=USER, headers=headers).status_code == 200
    assert client.post("/token", data=USER, headers=headers).status_code == 200


def test_openapi(site: Site, clock: Clock) -> None:
    """OpenAPI documents the form alone at the token endpoint, and a guard at what needs the token."""
    public = ["/login", "/login/*", "/token", "/token/refresh", "/token/revoke"]
    configure_app(site.app, unguarded="refuse", public=public)
    document = site.app.openapi()
    token = document["paths"]["/token"]["post"]
    assert list(token["requestBody"]["content"]) == ["application/x-www-form-urlencoded"]
    form = token["requestBody"]["content"]["application/x-www-form-urlencoded"]["schema"]
    assert (form["required"], form["properties"]["password"]) == (
        ["username", "password"],
        {"type": "string", "format": "password"},
    )
    responses = {
        path: sorted(item["post"]["responses"])
        for path, item in document["paths"].items()
        if "post" in item and path.startswith("/token")
    }
    assert responses == {
        "/token": ["200", "400", "413", "415", "429", "503"],
        "/token/refresh": ["200", "400", "413", "415", "503"],
        "/token/revoke": ["200", "400", "413", "415", "503"],
    }
    # With a refresh cookie nothing is in the body.
    refresh = Site(clock, cookie=True).app.openapi()["paths"]["/token/refresh"]["post"]
    assert ("requestBody" in refresh, sorted(refresh["responses"])) == (False, ["200", "400", "503"])
    assert {"200", "202", "401", "403", "413", "415", "422", "429", "503"} == set(
        document["paths"]["/login"]["post"]["responses"]
    )
    secured = {
        path for path, item in document["paths"].items() for operation in item.values() if "security" in operation
    }
    assert secured == {
        "/devices",
        "/devices/{device_id}",
        "/items",
        "/login/step-up",
        "/login/step-up/challenge",
        "/logout",
    }
    with site.client() as configured:
        assert_refused(configured.post("/token", data={**USER, "password": "wrong"}), "invalid_grant", WRONG)
        refused = configured.post("/login", json={**USER, "password": "wrong"})
        assert (refused.headers["content-type"], refused.headers["cache-control"]) == (
            "application/problem+json",
            "no-store",
        )


def test_an_error_of_the_application(clock: Clock) -> None:
    """An error that the application's own rule raises is passed on as it is."""

    class TeapotError(ServiceUnavailable):
        status = 418

    def broken(user: User, connection: object) -> bool:
        raise TeapotError

    site = Site(clock, may_login=broken)
    assert site.client().post("/token", data=USER).status_code == 418


def test_openapi_of_a_pending_login(clock: Clock) -> None:
    """OpenAPI documents 202 where a login can begin that waits for a second step: not after a passkey."""

    def pending(site: Site) -> set[str]:
        paths = site.app.openapi()["paths"]
        return {path for path, item in paths.items() if "202" in item.get("post", {}).get("responses", {})}

    assert pending(Site(clock)) == {"/login", "/login/mail/finish"}
    assert pending(Site(clock, second=[])) == set()


def test_openapi_of_a_step_up(site: Site, client: TestClient) -> None:
    """OpenAPI documents an access token alone for a step-up, which is what it responds with, and a pair for a login."""
    paths, pair = site.app.openapi()["paths"], client.post("/login", json=USER).json()
    proof = {"factor": "password", "password": PASSWORD}
    answers = {"/login": pair, "/login/step-up": client.post("/login/step-up", json=proof, headers=bearer(pair)).json()}
    assert {path: "refresh_token" in answer for path, answer in answers.items()} == {
        "/login": True,
        "/login/step-up": False,
    }
    documented = {
        path: paths[path]["post"]["responses"]["200"]["content"]["application/json"]["schema"]["$ref"]
        for path in answers
    }
    assert documented == {
        "/login": "#/components/schemas/TokenPair",
        "/login/step-up": "#/components/schemas/BearerAccessToken",
    }
