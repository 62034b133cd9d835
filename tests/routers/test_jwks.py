"""The JWK Set that an application publishes."""

from pathlib import Path

import pytest
from fastapi import FastAPI
from joserfc import jwk, jwt

from fastapi_guard import ConfigurationError, JWTAuth, JWTConfig, configure_app, jwks_router
from fastapi_guard.jwt.key_file import KeyFile
from support.asgi import request
from support.tokens import KEYS

FIRST = jwk.ECKey.generate_key("P-256")
SECOND = KEYS["RS256"]
PRIVATE_MEMBERS = {"d", "p", "q", "dp", "dq", "qi", "k", "oth"}


def test_public_keys_verify_and_hold_nothing_private() -> None:
    """Every key is there, signing keys first, with its public members alone; a token verifies with them."""
    auth = JWTAuth(JWTConfig(key=[FIRST, SECOND], algorithms=["ES256", "RS256"]))
    app = FastAPI()
    app.include_router(jwks_router(auth))
    answer = request(app, "/.well-known/jwks.json")
    assert (answer.status, answer.header("content-type")) == (200, "application/json")
    assert answer.header("cache-control") == "public, max-age=300"
    assert [key["kty"] for key in answer.json["keys"]] == ["EC", "RSA"]
    assert not any(PRIVATE_MEMBERS.intersection(key) for key in answer.json["keys"])
    keys = jwk.KeySet.import_key_set(answer.json)
    assert jwt.decode(auth.encode({"sub": "ada"}), keys, ["ES256"]).claims["sub"] == "ada"


def test_own_path_and_age() -> None:
    """Path and age are those that the application passes, below the prefix of an include."""
    app = FastAPI()
    app.include_router(jwks_router(JWTAuth(JWTConfig(key=FIRST)), "/keys", max_age_seconds=60), prefix="/id")
    answer = request(app, "/id/keys")
    assert (answer.status, answer.header("cache-control")) == (200, "public, max-age=60")


def test_replaced_keys_appear_at_once() -> None:
    """Keys that replace_keys brings are served by the router that exists already."""
    auth = JWTAuth(JWTConfig(key=FIRST, algorithms=["ES256"]))
    app = FastAPI()
    app.include_router(jwks_router(auth, "/keys"))
    before = request(app, "/keys").json["keys"]
    auth.replace_keys([jwk.ECKey.generate_key("P-256"), FIRST])
    after = request(app, "/keys").json["keys"]
    assert len(after) == 2
    assert after[1] == before[0]


def test_a_key_file_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An application that is started in another folder gets the path and the command, instead of a 503."""
    monkeypatch.chdir(tmp_path)
    missing = (
        f"the key file {tmp_path}/keys.json cannot be read: No such file or directory;"
        " create it with `fastapi-guard jwk generate keys.json`"
    )
    with pytest.raises(ConfigurationError) as error:
        jwks_router(JWTAuth(JWTConfig(key=KeyFile("keys.json"))))
    assert str(error.value) == missing
    assert caplog.messages == [f"{missing}; requests that need a key are refused (503)"]


@pytest.mark.parametrize(
    "config",
    [
        JWTConfig(key=jwk.OctKey.generate_key(256), algorithms=["HS256"]),
        JWTConfig(algorithms=["ES256"], issuer_url="https://id.example"),
    ],
    ids=["symmetric", "keys of another issuer"],
)
def test_nothing_to_publish(config: JWTConfig) -> None:
    """Without a public key of its own there is no router: a shared secret cannot be published by mistake."""
    with pytest.raises(ConfigurationError):
        jwks_router(JWTAuth(config))


def test_the_route_is_public() -> None:
    """With unguarded routes refused, the path has to be public; OpenAPI requires no credential."""
    app = FastAPI()
    app.include_router(jwks_router(JWTAuth(JWTConfig(key=FIRST))))
    configure_app(app)
    operation = app.openapi()["paths"]["/.well-known/jwks.json"]["get"]
    assert "security" not in operation
    assert set(operation["responses"]) == {"200"}
