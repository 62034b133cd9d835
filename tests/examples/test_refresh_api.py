"""The JSON API with refresh tokens: log in, rotate, get refused, log out everywhere."""

from collections.abc import Iterator

import pytest
import time_machine
from fastapi.testclient import TestClient

import refresh_api


@pytest.fixture
def client() -> Iterator[TestClient]:
    """Return a client for which an unexpected error is a 500."""
    with TestClient(refresh_api.app, raise_server_exceptions=False) as reader:
        yield reader


def login(client: TestClient) -> dict[str, str]:
    """Return the pair of tokens of a login."""
    answer = client.post("/token", data={"username": "ada@example.com", "password": "analytical engine"})
    assert answer.status_code == 200
    pair: dict[str, str] = answer.json()
    return pair


def items(client: TestClient, pair: dict[str, str]) -> int:
    """Return the status of a call with a pair."""
    return client.get("/items", headers={"Authorization": f"Bearer {pair['access_token']}"}).status_code


def test_rotation(client: TestClient) -> None:
    """An expired token is refreshed; a refresh token that is used again after the grace ends the login."""
    with time_machine.travel(1_800_000_000, tick=False) as traveller:
        first = login(client)
        assert items(client, first) == 200
        traveller.shift(320)
        assert items(client, first) == 401
        second = client.post("/token/refresh", data={"refresh_token": first["refresh_token"]}).json()
        assert items(client, second) == 200
        again = client.post("/token/refresh", json={"refresh_token": first["refresh_token"]})
        assert again.json()["refresh_token"] == second["refresh_token"]
        traveller.shift(31)
        refused = client.post("/token/refresh", json={"refresh_token": first["refresh_token"]})
        assert (refused.status_code, refused.json()["detail"]) == (400, "The refresh token is invalid")
        ended = client.post("/token/refresh", json={"refresh_token": second["refresh_token"]})
        assert ended.status_code == 400


def test_logging_out(client: TestClient) -> None:
    """A logout ends one login, and a logout everywhere ends all of them."""
    one, other = login(client), login(client)
    headers = {"Authorization": f"Bearer {one['access_token']}"}
    assert client.post("/logout", headers=headers).status_code == 204
    assert [items(client, one), items(client, other)] == [401, 200]
    headers = {"Authorization": f"Bearer {other['access_token']}"}
    assert client.post("/logout-everywhere", headers=headers).status_code == 204
    assert items(client, other) == 401
    assert client.post("/token/refresh", json={"refresh_token": other["refresh_token"]}).status_code == 400


def test_a_wrong_password(client: TestClient) -> None:
    """A wrong password is the error of RFC 6749 5.2."""
    answer = client.post("/token", json={"email": "ada@example.com", "password": "difference engine"})
    assert (answer.status_code, answer.json()["detail"]) == (400, "Incorrect username or password")
    assert answer.json()["error"] == "invalid_grant"
