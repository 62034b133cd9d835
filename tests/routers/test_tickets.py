"""The route that makes tickets."""

from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from joserfc import jwk

from fastapi_guard import JWTAuth, JWTConfig, configure_app
from fastapi_guard.app import guarded_routes
from fastapi_guard.app.tickets import TicketAuth
from fastapi_guard.login.session import SessionAuth
from fastapi_guard.routers.tickets import tickets_router
from fastapi_guard.stores import MemoryStore

JWT = JWTAuth(JWTConfig(key=jwk.OctKey.generate_key(256)))
BEARER = {"Authorization": f"Bearer {JWT.encode({'sub': 'ada', 'scope': 'files:read'})}"}


def client_of(**options: Any) -> TestClient:
    """Return a client of an application that makes and accepts tickets."""
    tickets = TicketAuth(MemoryStore(), JWT, **options)
    app = FastAPI()
    app.include_router(tickets_router(tickets, prefix="/auth"))
    app.get("/files/{number}", dependencies=[tickets.requires("files:read")])(lambda: "content")
    configure_app(app, unguarded="refuse")
    return TestClient(app)


@pytest.mark.parametrize("kind", ["data", "json"])
def test_a_ticket(kind: str) -> None:
    """A form or JSON names path and scopes; the response has the ticket, and no cache stores it."""
    client = client_of()
    body = {"path": "/files/1", "scope": "files:read"}
    answer = client.post("/auth/tickets", headers=BEARER, **{kind: body})
    assert (answer.status_code, answer.headers["cache-control"]) == (201, "no-store")
    assert answer.json().keys() == {"ticket", "expires_in"}
    assert answer.json()["expires_in"] == 60
    query = {"ticket": answer.json()["ticket"]}
    assert client.get("/files/1", params=query).json() == "content"
    assert client.get("/files/1", params=query).status_code == 401


def test_refusals() -> None:
    """An anonymous caller is a 401 before the body is read, another scope a 403, a body that cannot be a 4xx."""
    client = client_of()
    url = "/auth/tickets"
    assert client.post(url, content=b"{" * 100_000).status_code == 401
    assert client.post(url, headers={"Authorization": "Bearer a.b.c"}, data={"path": "/a"}).status_code == 401
    exceeding = client.post(url, headers=BEARER, data={"path": "/a", "scope": "files:read files:write"})
    assert (exceeding.status_code, exceeding.json()["detail"]) == (403, "Token is missing required scope: files:write")
    assert 'scope="files:read files:write"' in exceeding.headers["www-authenticate"]
    assert client.post(url, headers=BEARER, content=b"x" * 70_000).status_code == 415
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert client.post(url, headers={**BEARER, **form}, content=b"x" * 70_000).status_code == 413
    bodies: list[dict[str, Any]] = [
        *({}, {"path": "elsewhere"}, {"path": "/a?b"}, {"path": "/a", "scope": "\u00e9"}, {"path": "/" + "a" * 3000}),
        *({"path": 1}, {"path": ["/a"]}, {"path": "/a", "scope": "a " * 2000}),
    ]
    for body in bodies[:-1]:
        answer = client.post(url, headers=BEARER, json=body)
        assert (answer.status_code, answer.headers["cache-control"]) == (422, "no-store")
        assert "elsewhere" not in answer.text
    assert client.post(url, headers=BEARER, json=bodies[-1]).status_code == 403
    assert client.post(url, headers=BEARER, json={"path": "/files/1", "scope": " "}).status_code == 201


def test_a_purpose() -> None:
    """If the tickets are for a purpose, a path is an error."""
    client = client_of(purpose="reading")
    assert client.post("/auth/tickets", headers=BEARER, json={"path": "/files/1"}).status_code == 422
    ticket = client.post("/auth/tickets", headers=BEARER, json={"scope": "files:read"}).json()["ticket"]
    assert client.get("/files/2", params={"ticket": ticket}).status_code == 200


def test_a_session_needs_the_same_origin() -> None:
    """A page of another site makes no ticket with the cookie of a user."""
    sessions = SessionAuth(MemoryStore())
    app = FastAPI()
    app.include_router(tickets_router(TicketAuth(MemoryStore(), sessions)))
    client = TestClient(app, base_url="https://app.example")
    client.cookies.set(sessions.cookie_settings.name, "a" * 43)
    crossing = client.post("/tickets", headers={"Origin": "https://evil.example"}, json={"path": "/a"})
    assert crossing.status_code == 403
    assert client.post("/tickets", json={"path": "/a"}).status_code == 401


def test_openapi_and_audit() -> None:
    """The document has the form, with its fields, and the audit has the guard."""
    client = client_of()
    operation = client.get("/openapi.json").json()["paths"]["/auth/tickets"]["post"]
    [(kind, content)] = operation["requestBody"]["content"].items()
    assert kind == "application/x-www-form-urlencoded"
    assert content["schema"]["required"] == ["path"]
    assert set(content["schema"]["properties"]) == {"path", "scope"}
    assert set(operation["responses"]) == {"201", "401", "403", "413", "415", "422", "503"}
    [route] = [route for route in guarded_routes(client.app) if route.path == "/auth/tickets"]  # type: ignore[arg-type]
    assert (route.guard, route.findings) == ("jwt", ())
