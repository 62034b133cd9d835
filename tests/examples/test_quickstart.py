"""The quickstart: log in, call with the token, and get the right refusals."""

import base64
import time
from typing import Any

import pytest
from fastapi.testclient import TestClient
from joserfc import jwk, jwt

import quickstart
from fastapi_guard import JWTAuth, JWTConfig

ISSUER = "https://id.example"
AUDIENCE = "https://api.example"
INVALID = 'Bearer realm="api", error="invalid_token", error_description="The access token is invalid"'
EXPIRED = 'Bearer realm="api", error="invalid_token", error_description="The access token has expired"'


@pytest.fixture
def client() -> TestClient:
    """Return a client of the quickstart for which an unexpected error is a 500."""
    return TestClient(quickstart.app, raise_server_exceptions=False)


@pytest.fixture
def token(client: TestClient) -> str:
    """Return the token of a user who has logged in."""
    return str(login(client, "ada", "analytical-engine").json()["access_token"])


def login(client: TestClient, username: str, password: str) -> Any:
    """Return the response to a login."""
    return client.post("/token", data={"username": username, "password": password})


def bearer(token: str) -> dict[str, str]:
    """Return the header that carries a token."""
    return {"Authorization": f"Bearer {token}"}


def encode(**claims: object) -> str:
    """Return a token of the quickstart's own key."""
    return quickstart.auth.encode({"sub": "ada", "scope": "items:read", **claims})


def signed_by_another(**settings: Any) -> str:
    """Return a token of another configuration."""
    ours = {"key": quickstart.config.key, "issuer_url": ISSUER, "audience": AUDIENCE}
    return JWTAuth(JWTConfig(**{**ours, **settings})).encode({"sub": "ada", "scope": "items:read"})


def problem(status: int, title: str, detail: str) -> dict[str, object]:
    """Return the body of a refusal (RFC 9457)."""
    return {"type": "about:blank", "title": title, "status": status, "detail": detail}


def unsigned() -> str:
    """Return a valid token without a signature, whose header requires no check of it."""
    header = base64.urlsafe_b64encode(b'{"alg":"none"}').decode().rstrip("=")
    return f"{header}.{encode().split('.')[1]}."


def tampered() -> str:
    """Return a token with the payload of another token."""
    first, second = encode().split("."), encode(scope="admin:*").split(".")
    return ".".join([first[0], second[1], first[2]])


def test_login(client: TestClient) -> None:
    """The right password returns a signed token of an hour for this API, in a response that no cache stores."""
    answer = login(client, "ada", "analytical-engine")
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    assert {**answer.json(), "access_token": ""} == {"token_type": "bearer", "access_token": "", "expires_in": 3600}
    keys = jwk.KeySet.import_key_set(client.get("/.well-known/jwks.json").json())
    claims = jwt.decode(answer.json()["access_token"], keys, ["ES256"]).claims
    expected = {"sub": "ada", "scope": "items:read", "iss": ISSUER, "aud": AUDIENCE}
    assert {name: claims[name] for name in expected} == expected
    assert claims["exp"] - claims["iat"] == 3600


@pytest.mark.parametrize(
    ("username", "password"),
    [
        ("ada", "wrong"),
        ("charles", "analytical-engine"),
        ("ada", "analytical-engine "),
        ("ada", "ünïcode \x00"),
        ("ünïcode", "x" * 5000),
    ],
)
def test_login_refused(client: TestClient, username: str, password: str) -> None:
    """The responses to a wrong password and to an unknown user are the same."""
    answer = login(client, username, password)
    assert answer.status_code == 401
    assert answer.json() == problem(401, "Unauthorized", "Incorrect username or password")
    assert answer.headers.get_list("www-authenticate") == ['Bearer realm="api"']


@pytest.mark.parametrize(("username", "password"), [("ada", ""), ("", "analytical-engine"), ("charles", "")])
def test_login_incomplete(client: TestClient, username: str, password: str) -> None:
    """A form without a name or a password is rejected."""
    assert login(client, username, password).status_code == 422


def test_a_password_that_no_encoding_holds(client: TestClient) -> None:
    """A lone surrogate, which a form in an unusual encoding can contain, is a wrong password."""
    fields = ('name="username"\r\n\r\nada', 'name="password"\r\n\r\n\\ud800')
    body = "".join(f"--x\r\nContent-Disposition: form-data; {field}\r\n" for field in fields) + "--x--\r\n"
    form = {"Content-Type": "multipart/form-data; boundary=x; charset=unicode_escape"}
    assert client.post("/token", content=body, headers=form).status_code == 401


def test_me(client: TestClient, token: str) -> None:
    """An endpoint receives the claims of the caller."""
    answer = client.get("/me", headers=bearer(token))
    assert (answer.status_code, answer.json()) == (200, {"sub": "ada"})


def test_items(client: TestClient, token: str) -> None:
    """A token with the scope is accepted."""
    answer = client.get("/items", headers=bearer(token))
    assert (answer.status_code, answer.json()) == (200, ["difference engine", "loom"])


def test_admin(client: TestClient) -> None:
    """A wildcard scope of a router needs a granted wildcard."""
    answer = client.get("/admin/users", headers=bearer(encode(scope="admin:*")))
    assert (answer.status_code, answer.json()) == (200, ["ada"])


@pytest.mark.parametrize("path", ["/me", "/items", "/admin/users"])
@pytest.mark.parametrize("headers", [{}, {"Authorization": "Basic YWRhOng="}, {"Authorization": "Bearer"}])
def test_no_credential(client: TestClient, path: str, headers: dict[str, str]) -> None:
    """A request without a credential of the scheme is a 401 with the challenge and without an error code."""
    answer = client.get(path, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json() == problem(401, "Unauthorized", "Not authenticated")
    assert answer.headers.get_list("www-authenticate") == ['Bearer realm="api"']


@pytest.mark.parametrize("path", ["/me", "/items", "/admin/users"])
@pytest.mark.parametrize(
    ("credential", "detail", "challenge"),
    [
        pytest.param("nonsense", "The access token is invalid", INVALID, id="malformed"),
        pytest.param("ä", "The access token is invalid", INVALID, id="not ASCII"),
        pytest.param("a." * 20000, "The access token is invalid", INVALID, id="oversized"),
        pytest.param(tampered(), "The access token is invalid", INVALID, id="tampered"),
        pytest.param(unsigned(), "The access token is invalid", INVALID, id="unsigned"),
        pytest.param(
            signed_by_another(key=jwk.ECKey.generate_key("P-256")),
            "The access token is invalid",
            INVALID,
            id="another key",
        ),
        pytest.param(
            signed_by_another(issuer_url="https://x.example"), "The access token is invalid", INVALID, id="issuer"
        ),
        pytest.param(
            signed_by_another(audience="https://x.example"), "The access token is invalid", INVALID, id="audience"
        ),
        pytest.param(encode(nbf=int(time.time()) + 86_400), "The access token is invalid", INVALID, id="not yet"),
        pytest.param(encode(iat=1, exp=2), "The access token has expired", EXPIRED, id="expired"),
    ],
)
def test_bad_credential(client: TestClient, path: str, credential: str, detail: str, challenge: str) -> None:
    """An invalid credential is a 401 with the code of RFC 6750, whatever its scope."""
    answer = client.get(path, headers={"Authorization": f"Bearer {credential}".encode()})
    assert answer.status_code == 401
    assert answer.json() == problem(401, "Unauthorized", detail)
    assert answer.headers.get_list("www-authenticate") == [challenge]


def test_two_credentials(client: TestClient, token: str) -> None:
    """Two valid credentials are rejected."""
    answer = client.get("/me", headers=[("Authorization", f"Bearer {token}")] * 2)
    assert (answer.status_code, answer.json()["detail"]) == (401, "More than one credential")
    assert 'error="invalid_request"' in answer.headers["www-authenticate"]


@pytest.mark.parametrize(
    ("path", "granted", "scope"),
    [
        ("/items", "items:write", "items:read"),
        ("/items", "", "items:read"),
        ("/items", "*", "items:read"),
        ("/admin/users", "items:read", "admin:*"),
        ("/admin/users", "admin:read", "admin:*"),
    ],
)
def test_missing_scope(client: TestClient, path: str, granted: str, scope: str) -> None:
    """A valid token without the scope is a 403 that names the required scope."""
    answer = client.get(path, headers=bearer(encode(scope=granted)))
    assert answer.status_code == 403
    assert answer.json() == problem(403, "Forbidden", f"Token is missing required scope: {scope}")
    assert answer.headers.get_list("www-authenticate") == [
        f'Bearer realm="api", error="insufficient_scope", scope="{scope}"'
    ]


def test_jwks(client: TestClient) -> None:
    """The public key is published without its private part, and caches may store it."""
    answer = client.get("/.well-known/jwks.json")
    (key,) = answer.json()["keys"]
    assert answer.status_code == 200
    assert "max-age" in answer.headers["cache-control"]
    assert {"kty": "EC", "crv": "P-256"}.items() <= key.items()
    assert "d" not in key


def test_openapi(client: TestClient) -> None:
    """The OpenAPI document lists the guarded operations, their scopes and the login."""
    document = client.get("/openapi.json").json()
    (name,) = document["components"]["securitySchemes"]
    flow = document["components"]["securitySchemes"][name]["flows"]["password"]
    assert flow["tokenUrl"] == "token"
    assert flow["scopes"] == {"items:read": "Read items", "admin:*": ""}
    security = {
        path: operations["get"].get("security") for path, operations in document["paths"].items() if path != "/token"
    }
    assert security == {
        "/me": [{name: []}],
        "/items": [{name: ["items:read"]}],
        "/admin/users": [{name: ["admin:*"]}],
        "/.well-known/jwks.json": None,
    }
    guarded = {
        path
        for path, operations in document["paths"].items()
        for one in operations.values()
        if {"401", "403"} <= set(one["responses"])
    }
    assert guarded == {"/me", "/items", "/admin/users"}
