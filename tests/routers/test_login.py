"""The routes of a login: forms and JSON, refusals, and nothing that a cache may keep."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.testclient import TestClient
from joserfc import jwk

from fastapi_guard import JWTConfig, ServiceUnavailable, configure_app
from fastapi_guard.login.local import LocalAuth
from fastapi_guard.login.refresh import RefreshTokens
from fastapi_guard.login.revocation import Revocations
from fastapi_guard.routers.bodies import MAX_BODY_BYTES
from fastapi_guard.routers.login import login_router
from fastapi_guard.stores import MemoryStore, Record
from support.passwords import quick_hasher

PASSWORD = "wonderland tea party"
USER = {"username": "alice@example.com", "password": PASSWORD}
JSON = {"Content-Type": "application/json"}
KEY = jwk.OctKey.generate_key(256)


class Failing(MemoryStore):
    """A store that can be away."""

    away = False

    async def get(self, *keys: str) -> list[Record | None]:
        """Look up."""
        if self.away:
            raise ServiceUnavailable(reason="store_unreachable")
        return await super().get(*keys)


@pytest.fixture
def store() -> Failing:
    """Return a store."""
    return Failing()


@pytest.fixture
def app(store: Failing) -> Iterator[FastAPI]:
    """Return an application with the routes of a login."""
    hasher = quick_hasher()
    users = {"alice@example.com": {"password_hash": asyncio.run(hasher.hash(PASSWORD)), "scopes": ["items:read"]}}
    auth = LocalAuth(
        JWTConfig(key=KEY), users, hasher=hasher, refresh=RefreshTokens(store), revocations=Revocations(store)
    )
    app = FastAPI()
    app.include_router(login_router(auth))
    app.get("/items", dependencies=[auth.requires("items:read")])(lambda: "items")
    yield app
    hasher.close()


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    """Return a client of the application."""
    with TestClient(app, raise_server_exceptions=False) as each:
        yield each


def bearer(pair: dict[str, Any]) -> dict[str, str]:
    """Return the header that carries an access token."""
    return {"Authorization": f"Bearer {pair['access_token']}"}


SENT: list[dict[str, Any]] = [
    {"data": USER},
    {"data": {**USER, "grant_type": "password", "scope": "", "client_id": "", "client_secret": ""}},
    {"json": USER},
    {"json": {"email": "alice@example.com", "password": PASSWORD}},
    {"json": {"email": "alice@example.com", "password": PASSWORD, "remember": True}},
]


@pytest.mark.parametrize("sent", SENT, ids=range(len(SENT)))
def test_login(client: TestClient, sent: dict[str, Any]) -> None:
    """A form as the Authorize button sends it, and JSON, log in; the answer is RFC 6749's, and no cache keeps it."""
    answer = client.post("/token", **sent)
    assert answer.status_code == 200
    assert set(answer.json()) == {"access_token", "token_type", "expires_in", "refresh_token"}
    assert (answer.json()["token_type"], answer.json()["expires_in"]) == ("bearer", 3600)
    assert answer.headers["cache-control"] == "no-store"
    assert client.get("/items", headers=bearer(answer.json())).status_code == 200


def test_the_oauth2_flow(client: TestClient) -> None:
    """Log in, refresh, call, and end it, each with a form."""
    first = client.post("/token", data=USER).json()
    answer = client.post(
        "/token/refresh", data={"grant_type": "refresh_token", "refresh_token": first["refresh_token"]}
    )
    second = answer.json()
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    assert client.get("/items", headers=bearer(second)).status_code == 200
    answer = client.post("/token/revoke", data={"token": first["refresh_token"], "token_type_hint": "refresh_token"})
    assert (answer.status_code, answer.json(), answer.headers["cache-control"]) == (200, {}, "no-store")
    answer = client.post("/token/refresh", json={"refresh_token": second["refresh_token"]})
    assert (answer.status_code, answer.json()) == (401, {"detail": "The refresh token is invalid"})
    assert answer.headers["www-authenticate"] == 'Bearer realm="api"'
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("path", ["/token", "/token/refresh", "/token/revoke"])
def test_no_cache_keeps_what_is_wrong_with_a_body(client: TestClient, path: str) -> None:
    """A body without its fields, or that cannot be read, is answered as FastAPI does it, and to nobody else."""
    for sent in ({"json": {}}, {"content": "{", "headers": JSON}):
        answer = client.post(path, **sent)
        assert (answer.status_code, answer.headers["cache-control"]) == (422, "no-store")
        assert answer.json()["detail"][0]["loc"][0] == "body"


@pytest.mark.parametrize("is_async", [False, True])
def test_an_applications_own_answer_to_what_is_wrong_with_a_body(app: FastAPI, *, is_async: bool) -> None:
    """A handler of the application, sync or async, writes that answer, and no cache keeps it."""

    def own(request: Request, error: Exception) -> Response:
        return Response("not like this", 422)

    async def own_async(request: Request, error: Exception) -> Response:
        return own(request, error)

    app.add_exception_handler(RequestValidationError, own_async if is_async else own)
    with TestClient(app) as client:
        answer = client.post("/token", json={})
    assert (answer.status_code, answer.text, answer.headers["cache-control"]) == (422, "not like this", "no-store")


@pytest.mark.parametrize("token", ["", "nonsense", "a" * 64, "a.b.c", "\ud800"])
def test_revoking_what_nobody_knows(client: TestClient, token: str) -> None:
    """A token that nobody knows is answered like one that was ended (RFC 7009 2.2)."""
    body = json.dumps({"token": token})
    assert client.post("/token/revoke", content=body, headers=JSON).status_code == 200
    pair = client.post("/token", data=USER).json()
    assert client.post("/token/revoke", json={"token": pair["access_token"]}).status_code == 200
    assert client.get("/items", headers=bearer(pair)).status_code == 401


def test_logout(client: TestClient) -> None:
    """A logout ends the access token and its family; it needs the token, and none is a 401."""
    pair = client.post("/token", data=USER).json()
    answer = client.post("/logout")
    assert (answer.status_code, answer.json()) == (401, {"detail": "Not authenticated"})
    assert answer.headers["cache-control"] == "no-store"
    answer = client.post("/logout", headers=bearer(pair))
    assert (answer.status_code, answer.content, answer.headers["cache-control"]) == (204, b"", "no-store")
    assert client.get("/items", headers=bearer(pair)).status_code == 401
    assert client.post("/token/refresh", json={"refresh_token": pair["refresh_token"]}).status_code == 401


WRONG: list[dict[str, Any]] = [
    {"data": {**USER, "password": "wrong"}},
    {"data": {**USER, "username": "nobody@example.com"}},
    {"data": {**USER, "password": "a" * 60_000}},
    {"data": {**USER, "password": "a\0b"}},
    {"data": {**USER, "password": ""}},
    {"content": json.dumps({**USER, "password": "\ud800"}), "headers": JSON},
    {"content": json.dumps({**USER, "username": "\ud800"}), "headers": JSON},
    {"json": {**USER, "username": "\0"}},
    {"content": b"username=alice%40example.com&password=%ff%fe", "form": True},
    {"content": b"username=alice%40example.com&password=\xff\xfe", "form": True},
]


def post(client: TestClient, sent: dict[str, Any]) -> Any:
    """Return the answer to what is sent, as a form where it says so."""
    form = {"headers": {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}}
    return client.post("/token", **({"content": sent["content"], **form} if "form" in sent else sent))


@pytest.mark.parametrize("sent", WRONG, ids=range(len(WRONG)))
def test_a_login_that_fails(client: TestClient, sent: dict[str, Any]) -> None:
    """Whatever the bytes of a username and a password, a wrong one is a 401 that no cache keeps."""
    answer = post(client, sent)
    assert (answer.status_code, answer.json()) == (401, {"detail": "Incorrect username or password"})
    assert answer.headers["www-authenticate"] == 'Bearer realm="api"'
    assert answer.headers["cache-control"] == "no-store"
    assert client.post("/token", data=USER).status_code == 200


UNREADABLE: list[tuple[dict[str, Any], int, str]] = [
    ({"data": {"username": "alice@example.com"}}, 422, "missing"),
    ({"data": {"password": PASSWORD}}, 422, "missing"),
    ({"json": {"username": 7, "password": PASSWORD}}, 422, "missing"),
    ({"json": [PASSWORD]}, 422, "json_invalid"),
    ({"content": b"{" + PASSWORD.encode(), "headers": JSON}, 422, "json_invalid"),
    ({"content": b'{"username": "a", "username": "b", "password": "c"}', "headers": JSON}, 422, "json_invalid"),
    ({"content": b"[" * 60_000, "headers": JSON}, 422, "json_invalid"),
    ({"content": b"\xff\xfe", "headers": JSON}, 422, "json_invalid"),
    ({"form": True, "content": b"username=a&username=b&password=c"}, 422, "form_invalid"),
    ({"form": True, "content": b"&".join(b"a=b" for _ in range(100))}, 422, "form_invalid"),
    ({"form": True, "content": b""}, 422, "missing"),
    (
        {"content": b"username=a", "headers": {"Content-Type": "text/plain"}},
        415,
        "Send application/x-www-form-urlencoded",
    ),
    ({"content": b"username=a"}, 415, "Send application/x-www-form-urlencoded or application/json"),
    ({"form": True, "content": b"a" * (MAX_BODY_BYTES + 1)}, 413, "The body is too long"),
    ({"form": True, "content": iter([b"a" * MAX_BODY_BYTES, b"a"])}, 413, "The body is too long"),
]


@pytest.mark.parametrize(("sent", "status", "text"), UNREADABLE, ids=range(len(UNREADABLE)))
def test_a_body_that_cannot_be_read(client: TestClient, sent: dict[str, Any], status: int, text: str) -> None:
    """What is no login is told so, without what was sent: it may hold a password."""
    answer = post(client, sent)
    assert answer.status_code == status
    assert text in answer.text
    assert PASSWORD not in answer.text
    assert client.post("/token", data=USER).status_code == 200


def test_too_many(client: TestClient) -> None:
    """The sixth wrong password is a 429 with Retry-After that no cache keeps."""
    answers = [client.post("/token", data={**USER, "password": "wrong"}) for _ in range(6)]
    assert [answer.status_code for answer in answers] == [401] * 5 + [429]
    assert int(answers[-1].headers["retry-after"]) in range(880, 901)
    assert answers[-1].headers["cache-control"] == "no-store"


def test_a_store_that_is_away(client: TestClient, store: Failing) -> None:
    """While the store is away a refresh is a 503, and afterwards the token is as good as before."""
    pair = client.post("/token", data=USER).json()
    store.away = True
    for answer in (
        client.post("/token/refresh", json={"refresh_token": pair["refresh_token"]}),
        client.get("/items", headers=bearer(pair)),
        client.post("/token/revoke", json={"token": pair["access_token"]}),
    ):
        assert (answer.status_code, answer.json()) == (503, {"detail": "Service temporarily unavailable"})
        assert answer.headers["retry-after"] == "5"
    store.away = False
    assert client.post("/token/refresh", json={"refresh_token": pair["refresh_token"]}).status_code == 200


def test_without_refresh_tokens() -> None:
    """Without refresh tokens there is no route for them, and a login answers with an access token."""
    hasher = quick_hasher()
    stored = asyncio.run(hasher.hash(PASSWORD))
    auth = LocalAuth(JWTConfig(key=KEY), {"alice@example.com": {"password_hash": stored}}, hasher=hasher)
    app = FastAPI()
    app.include_router(login_router(auth, prefix="/auth"))
    client = TestClient(app)
    assert set(client.post("/auth/token", data=USER).json()) == {"access_token", "token_type", "expires_in"}
    assert set(app.openapi()["paths"]) == {"/auth/token", "/auth/token/revoke", "/auth/logout"}
    hasher.close()


def test_openapi(app: FastAPI) -> None:
    """OpenAPI says what each route takes and answers; only the logout asks for a token."""
    configure_app(app, unguarded="refuse", public=["/token", "/token/refresh", "/token/revoke"])
    document = app.openapi()
    login = document["paths"]["/token"]["post"]
    assert list(login["requestBody"]["content"]) == ["application/x-www-form-urlencoded"]
    form = login["requestBody"]["content"]["application/x-www-form-urlencoded"]["schema"]
    assert form["required"] == ["username", "password"]
    assert form["properties"]["password"] == {"type": "string", "format": "password"}
    assert {
        path: sorted(item["post"]["responses"]) for path, item in document["paths"].items() if path != "/items"
    } == {
        "/token": ["200", "401", "413", "415", "422", "429", "503"],
        "/token/refresh": ["200", "401", "413", "415", "422", "503"],
        "/token/revoke": ["200", "413", "415", "422", "503"],
        "/logout": ["204", "401", "403", "503"],
    }
    assert [path for path, item in document["paths"].items() if "security" in item.get("post", {})] == ["/logout"]
    with TestClient(app) as configured:
        refused = configured.post("/token", data={**USER, "password": "wrong"})
    assert (refused.headers["content-type"], refused.headers["cache-control"]) == (
        "application/problem+json",
        "no-store",
    )
