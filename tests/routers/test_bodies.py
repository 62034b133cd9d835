"""Bodies of a login: JSON objects that are not only texts."""

from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient

from fastapi_guard.routers.bodies import MAX_BODY_BYTES, is_form, json_in

JSON = {"Content-Type": "application/json; charset=utf-8"}


@pytest.fixture
def client() -> TestClient:
    """Return a client of an application that returns the object that it receives."""
    app = FastAPI()

    @app.post("/")
    async def echo(request: Request) -> dict[str, Any]:
        assert not is_form(request)
        return await json_in(request)

    return TestClient(app)


def test_an_object(client: TestClient) -> None:
    """A JSON object is read with all its members."""
    body = {"credential": {"id": "a", "transports": ["usb"], "n": 1.5, "none": None}, "text": "\N{SNOWMAN}"}
    assert client.post("/", json=body).json() == body


UNREADABLE = [
    b"",
    b"[]",
    b"null",
    b"{",
    b'{"a": 1, "a": 2}',
    b'{"a": {"b": 1, "b": 2}}',
    b'{"a": NaN}',
    b'{"a": 1e999}',
    b'{"a": "\\ud800"}',
    b'{"a": "\xff"}',
    b'\xff\xfe{\x00"\x00',
    b'{"a": ' + b"[" * 60_000,
    b'{"a": ' + b"9" * 60_000 + b"}",
]


@pytest.mark.parametrize("body", UNREADABLE, ids=range(len(UNREADABLE)))
def test_what_cannot_be_read(client: TestClient, body: bytes) -> None:
    """Everything else is a 422 that does not repeat the body."""
    answer = client.post("/", content=body, headers=JSON)
    assert answer.status_code == 422
    assert answer.json() == {
        "detail": [{"type": "json_invalid", "loc": ["body"], "msg": "The body cannot be read"}],
    }


def test_a_long_body(client: TestClient) -> None:
    """A body of more than 64 KiB is a 413, with and without a stated length."""
    long = b'{"a": "' + b"a" * MAX_BODY_BYTES + b'"}'
    for content in (long, iter([long])):
        answer = client.post("/", content=content, headers=JSON)
        assert (answer.status_code, answer.json()) == (413, {"detail": "The body is too long"})


def test_another_type(client: TestClient) -> None:
    """A form is a 415 where JSON alone is read."""
    app = FastAPI()

    @app.post("/")
    async def read(request: Request) -> bool:
        assert is_form(request)
        return bool(await json_in(request))

    answer = TestClient(app).post("/", data={"a": "b"})
    assert (answer.status_code, answer.json()) == (415, {"detail": "Send application/json"})
