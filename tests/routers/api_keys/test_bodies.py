"""Bodies that are refused: none of them is repeated, and none is a 500."""

from typing import Any

import pytest

from api_key.databases import Database
from fastapi_guard import JWTAuth, configure_app
from routers.api_keys.calling import ALICE, CONFIG, Service

SECRET = "sk-never-repeated"
# The secret is in each of them, in another place.
REFUSED: dict[str, Any] = {
    "owner": {"user_id": SECRET},
    "tenant": {"tenant_id": SECRET},
    "issuer": {"issuer": SECRET},
    "maker": {"maker": SECRET},
    "metadata": {"metadata": {"roles": [SECRET]}},
    "subject type": {"subject_type": SECRET},
    "an unknown member": {SECRET: 1},
    "scope with a space": {"scopes": [f"{SECRET} items:edit"]},
    "scope with a line feed": {"scopes": [f"{SECRET}\n"]},
    "empty scope": {"scopes": ["", SECRET]},
    "non-ASCII scope": {"scopes": [f"é{SECRET}"]},
    "one scope": {"scopes": SECRET},
    "a number as a scope": {"scopes": [1, SECRET]},
    "many scopes": {"scopes": [SECRET] * 101},
    "NUL": {"name": f"{SECRET}\x00b"},
    "line feed": {"name": f"{SECRET}\n"},
    "long name": {"name": SECRET * 100},
    "name of another type": {"name": [SECRET]},
    "an administrator in a text": {"is_admin": SECRET},
    "an administrator as a number": {"is_admin": 1},
    "no moment": {"expires_at": SECRET},
    "a number as a moment": {"expires_at": 4_000_000_000},
    "far": {"expires_at": "9999-12-31T23:59:59-12:00"},
    "environment": {"environment": SECRET},
    "network": {"allowed_networks": [SECRET]},
    "bits beyond the prefix": {"allowed_networks": ["192.0.2.1/24"]},
    "origin": {"allowed_origins": [SECRET]},
    "rate": {"rate": SECRET},
    "quota": {"quota": SECRET},
    "no quota": {"quota": 0},
    "a huge quota": {"quota": 10**30},
    "period without a quota": {"quota_period_seconds": 60},
    "list": [SECRET],
    "text": SECRET,
    "a lone surrogate": b'{"name": "' + SECRET.encode() + b'\\ud800"}',
    "a lone surrogate in a name": b'{"' + SECRET.encode() + b'\\udfff": 1}',
    "not UTF-8": b'{"name": "' + SECRET.encode() + b'\xff"}',
    "UTF-16": ('{"name": "' + SECRET + '"}').encode("utf-16"),
    "a member twice": b'{"name": "x", "name": "' + SECRET.encode() + b'"}',
    "deep": b"[" * 10_000 + SECRET.encode(),
    "deep in a member": b'{"scopes": ' + b"[" * 1000 + b"]" * 1000 + b"}",
    "NaN": b'{"quota": NaN, "name": "' + SECRET.encode() + b'"}',
    "cut off": b'{"name": "' + SECRET.encode(),
    "empty": b"",
    "form": b"name=" + SECRET.encode(),
}


@pytest.fixture(params=[False, True], ids=["plain", "configured"])
def service(request: pytest.FixtureRequest, database: Database) -> Service:
    """Return an application, with and without the problem details of configure_app."""
    service = Service(database.auth(), JWTAuth(CONFIG))
    if request.param:
        configure_app(service.app)
    return service


async def test_refused_bodies(service: Service) -> None:
    """Each is a 422 without anything that was sent; nothing is created, and a good body creates a key."""
    for case, body in REFUSED.items():
        answer = await service.call("POST", "/api-keys", ALICE, body)
        assert answer.status == 422, (case, answer)
        text = answer.body.decode("utf-8") + str(answer.headers)
        assert SECRET not in text, case
        assert "input" not in {name for error in answer.json.get("detail", []) for name in error}, case
        assert answer.header("cache-control") == "no-store", case
    assert await service.listed(ALICE) == []
    good = {"name": "é" * 255, "scopes": ["items:read"], "expires_at": "2099-01-01T00:00:00Z"}
    assert (await service.call("POST", "/api-keys", ALICE, good)).status == 201


async def test_an_unknown_member(service: Service) -> None:
    """The response has the names that are known, and not the one that was sent."""
    key = await service.created(ALICE)
    for path, known in (("", "name, scopes, is_admin, expires_at,"), (f"/{key['key_id']}/rotate", "overlap_seconds,")):
        answer = await service.call("POST", f"/api-keys{path}", ALICE, {"scope": [SECRET]})
        [error] = answer.json["detail"]
        assert (error["type"], error["loc"]) == ("extra_forbidden", ["body"])
        assert error["msg"].startswith(f"Extra inputs are not permitted; known are {known} ")


ROTATIONS: dict[str, Any] = {
    "owner": {"user_id": SECRET},
    "an unknown member": {SECRET: 1},
    "no number": {"overlap_seconds": SECRET},
    "a negative overlap": {"overlap_seconds": -1},
    "a long overlap": {"overlap_seconds": 30 * 86_400 + 1},
    "no moment": {"expires_at": SECRET},
    "not UTF-8": b'"' + SECRET.encode() + b'\xff"',
    "list": [SECRET],
}


async def test_refused_rotations(service: Service) -> None:
    """The same of the body of a rotation, which may be left out."""
    key = await service.created(ALICE)
    path = f"/api-keys/{key['key_id']}/rotate"
    for case, body in ROTATIONS.items():
        answer = await service.call("POST", path, ALICE, body)
        assert (answer.status, SECRET in answer.body.decode()) == (422, False), case
    assert (await service.call("POST", path, ALICE, b"", content_type="text/plain")).status == 201


async def test_size_and_content_type(service: Service) -> None:
    """A body of more than 64 KiB is a 413, one that is not JSON a 415; the largest that is allowed is read."""
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""):
        answer = await service.call("POST", "/api-keys", ALICE, b'{"name": "x"}', content_type=kind)
        assert (answer.status, answer.json["detail"]) == (415, "Send application/json")
    padding = 64 * 1024 - len(b'{"name": "x"}')
    for size, status in ((padding, 201), (padding + 1, 413)):
        body = b'{"name": "x"' + b" " * size + b"}"
        answer = await service.call("POST", "/api-keys", ALICE, body, content_type="application/json; charset=utf-8")
        assert answer.status == status
