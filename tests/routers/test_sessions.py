"""The routes of sessions in a browser."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from joserfc import jwk

from fastapi_guard import JWTConfig
from fastapi_guard.login.local import LocalAuth
from fastapi_guard.login.session import SessionAuth
from fastapi_guard.routers.sessions import session_router
from fastapi_guard.schemes.origin import path_within
from fastapi_guard.stores import MemoryStore
from support.passwords import quick_hasher

PASSWORD = "wonderland tea party"


@pytest.fixture
def browser() -> Iterator[Callable[[], TestClient]]:
    """Return what opens another browser at the same application."""
    hasher = quick_hasher()
    stored = asyncio.run(hasher.hash(PASSWORD))
    auth = LocalAuth(
        JWTConfig(key=jwk.OctKey.generate_key(256)),
        {name: {"password_hash": stored} for name in ("alice", "bob")},
        hasher=hasher,
    )
    sessions = SessionAuth(MemoryStore(), trusted_origins=["https://shop.example"])
    app = FastAPI()
    app.include_router(session_router(sessions, auth))
    yield lambda: TestClient(app, base_url="https://app.example")
    hasher.close()


def login(client: TestClient, name: str = "alice", **options: Any) -> int:
    """Return the status of a login."""
    return client.post("/login", data={"username": name, "password": PASSWORD}, **options).status_code


def test_login_and_logout(browser: Callable[[], TestClient]) -> None:
    """A form and JSON log in, a logout ends it, and no cache keeps any of it."""
    client = browser()
    assert client.get("/sessions").headers["www-authenticate"] == 'Session realm="api"'
    answer = client.post("/login", json={"email": "alice", "password": PASSWORD})
    assert (answer.status_code, answer.headers["cache-control"]) == (204, "no-store")
    listed = client.get("/sessions")
    assert (listed.headers["cache-control"], listed.headers["vary"]) == ("no-store", "Authorization, Cookie")
    (own,) = listed.json()
    assert set(own) == {"id", "created_at", "seen_at", "expires_at", "current"}
    assert own["current"] is True
    answer = client.post("/logout")
    assert (answer.status_code, answer.headers["cache-control"]) == (204, "no-store")
    refused = client.get("/sessions")
    assert (refused.status_code, refused.json()) == (401, {"detail": "Not authenticated"})
    assert refused.headers["cache-control"] == "no-store"
    assert client.post("/logout").status_code == 204


def test_a_login_that_fails(browser: Callable[[], TestClient]) -> None:
    """A wrong password sets no cookie."""
    client = browser()
    answer = client.post("/login", data={"username": "alice", "password": "wrong"})
    assert (answer.status_code, answer.json()) == (401, {"detail": "Incorrect username or password"})
    assert "set-cookie" not in answer.headers
    assert login(client) == 204


@pytest.mark.parametrize(
    "headers",
    [{"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Origin": "https://evil.example"}],
)
def test_another_sites_page(browser: Callable[[], TestClient], headers: dict[str, str]) -> None:
    """Another site's page can neither log in, nor out, nor end a session; one that is trusted can."""
    client = browser()
    assert login(client, headers=headers) == 403
    assert login(client, headers={"Origin": "https://shop.example"}) == 204
    (own,) = client.get("/sessions").json()
    for method, path in (("POST", "/logout"), ("DELETE", "/sessions"), ("DELETE", f"/sessions/{own['id']}")):
        answer = client.request(method, path, headers=headers)
        assert (answer.status_code, answer.json()) == (403, {"detail": "Forbidden"})
    assert client.get("/sessions").status_code == 200


def test_ones_own_sessions(browser: Callable[[], TestClient]) -> None:
    """One sees and ends one's own sessions and nobody else's, and one's current one stays where the others end."""
    phone, laptop, tablet, bob = (browser() for _ in range(4))
    assert [login(each) for each in (phone, laptop, tablet)] == [204] * 3
    assert login(bob, "bob") == 204
    listed = phone.get("/sessions").json()
    assert [each["current"] for each in listed] == [True, False, False]
    (theirs,) = bob.get("/sessions").json()
    answer = phone.delete(f"/sessions/{theirs['id']}")
    assert (answer.status_code, answer.json()) == (404, {"detail": "Not Found"})
    assert phone.delete(f"/sessions/{listed[1]['id']}").status_code == 204
    assert phone.delete(f"/sessions/{listed[1]['id']}").status_code == 404
    assert phone.delete("/sessions").json() == {"ended": 1}
    assert [each.get("/sessions").status_code for each in (phone, laptop, tablet, bob)] == [200, 401, 401, 200]


def test_without_a_password() -> None:
    """Where somebody else logs in, there is no route for it."""
    app = FastAPI()
    app.include_router(session_router(SessionAuth(MemoryStore()), prefix="/web"))
    assert set(app.openapi()["paths"]) == {"/web/logout", "/web/sessions", "/web/sessions/{session_id}"}


@pytest.mark.parametrize("target", ["/", "/a", "/a/b?c=d#e", "/a//b", "/-", "/~", "/[", "/]"])
def test_a_path_within(target: str) -> None:
    """A path from the root is where a browser may be sent after a login."""
    assert path_within(target, "/home") == target


ELSEWHERE = [
    "//evil.example",
    "/\\evil.example",
    "https://evil.example",
    "evil",
    "",
    "/\t/evil",
    "/a\n",
    "/ä",
    "/a b",
    "/a\\b",
    None,
]


@pytest.mark.parametrize("target", ELSEWHERE)
def test_a_target_elsewhere(target: str | None) -> None:
    """Whatever a browser may take for another host is not (open redirect)."""
    assert path_within(target, "/home") == "/home"
