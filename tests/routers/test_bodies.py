"""Bodies of a login: forms, and JSON objects that are not only texts."""

import json
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qsl

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from fastapi.testclient import TestClient

from fastapi_guard.routers.bodies import MAX_BODY_BYTES, is_form, json_in, texts_in
from support.asgi import broken_off

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
    b'{"a": [' + b"{}," * 20_000 + b"{}]}",
    b'{"a": [' + b"0," * 4200 + b"0]}",
    b"{" + b",".join(b'"%d":""' % number for number in range(1100)) + b"}",
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


FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.fixture
def form_client() -> TestClient:
    """Return a client of an application that returns the texts of a body."""
    app = FastAPI()

    @app.post("/", response_class=JSONResponse)
    async def read(request: Request) -> JSONResponse:
        return JSONResponse({name: ascii(text) for name, text in (await texts_in(request)).items()})

    return TestClient(app)


def test_a_form(form_client: TestClient) -> None:
    """It is decoded as by a browser's rules: a percent sign without an escape is itself, as are bytes of no text."""
    content = b"a=%C3%A9+b%2Bc=_&&b=100%&c=%2525&d=%ff\xfe&e=%%41&f=a%0Ab\r\nc&g&h=%&i=%3d=%3D3D"
    answer = form_client.post("/", content=content, headers=FORM)
    expected = dict(
        parse_qsl(content.decode("utf-8", "surrogateescape"), keep_blank_values=True, errors="surrogateescape")
    )
    assert answer.json() == {name: ascii(text) for name, text in expected.items()}
    assert (expected["b"], expected["e"], expected["i"]) == ("100%", "%A", "===3D")


def test_texts_of_json(form_client: TestClient) -> None:
    """Texts of an object are returned, also a password of separators alone; numbers of any length are left out."""
    password = '"' * 4096
    numbers = b'"n": ' + b"9" * 50_000 + b', "m": [' + b"9" * 50 + b', 1e999], "o": 0.5'
    content = b'{"password": ' + json.dumps(password).encode() + b", " + numbers + b"}"
    assert form_client.post("/", content=content, headers=JSON).json() == {"password": ascii(password)}
    assert form_client.post("/", content=b'{"a": [' + b"0," * 4200 + b"0]}", headers=JSON).status_code == 422


@pytest.mark.parametrize("content", [b"a=" + b"%" * 257, b"&" * 64, b"a=1&a=2", b"a=1&%61=2"])
def test_a_form_that_cannot_be_read(form_client: TestClient, content: bytes) -> None:
    """Hundreds of broken escapes, too many fields and a field twice are a 422."""
    answer = form_client.post("/", content=content, headers=FORM)
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["type"] == "form_invalid"


@pytest.mark.parametrize("read", [json_in, texts_in])
async def test_a_client_that_disconnects(read: Callable[[Request], Awaitable[Any]]) -> None:
    """A body that ends before its end is a 422, not an error of the application."""
    app = FastAPI()

    @app.post("/")
    async def echo(request: Request) -> Any:
        return await read(request)

    answer = await broken_off(app, "/", "application/json", b'{"a":')
    assert (answer.status, answer.json["detail"][0]["type"]) == (422, "body_incomplete")
