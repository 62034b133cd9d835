"""Tokens that no application may accept, sent to one for each algorithm."""

import logging
from typing import Any

import pytest
from fastapi import FastAPI
from joserfc.jwk import ECKey

from fastapi_guard import ConfigurationError, JWTAuth, JWTConfig
from fastapi_guard.testing.attacks import Attack, attack_tokens
from support.asgi import request
from support.tokens import KEYS

PLACE: dict[str, Any] = {"issuer_url": "https://id.example", "audience": "https://api.example"}
NAMES = ("HS256", "HS512", "RS256", "PS256", "ES256", "ES384", "Ed25519")
CONFIGS = {name: JWTConfig(key=KEYS[name], algorithms=[name], **PLACE) for name in NAMES}
CONFIGS["alone"] = JWTConfig(key=KEYS["ES256"])
CONFIGS["several audiences"] = JWTConfig(key=KEYS["ES256"], audience=["https://api.example", "b"])


def guarded(config: JWTConfig) -> FastAPI:
    """Return an application with a route that a token of this configuration guards."""
    app = FastAPI()
    app.get("/", dependencies=[JWTAuth(config).requires("items:read")])(lambda: None)
    return app


def answers(app: FastAPI, tokens: list[Attack]) -> dict[str, int]:
    """Return the status of each that is not refused as it should be."""
    found = {
        name: request(app, "/", [(b"authorization", b"Bearer " + token.encode())]).status for name, token in tokens
    }
    return {name: status for name, status in found.items() if status != 401}


@pytest.mark.parametrize("name", CONFIGS)
def test_every_attack_is_refused(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """Each token is a 401, whatever it is signed with, and one that holds is accepted."""
    caplog.set_level(logging.CRITICAL)
    config = CONFIGS[name]
    app, tokens = guarded(config), attack_tokens(config, {"scope": "items:read"})
    assert answers(app, tokens) == {}
    good = JWTAuth(config).encode({"sub": "ada", "scope": "items:read"})
    assert answers(app, [Attack("good", good)]) == {"good": 200}
    names = [attack.name for attack in tokens]
    assert len(set(names)) == len(names) > 90
    assert all(attack.token.isascii() and attack.token.isprintable() and " " not in attack.token for attack in tokens)


def test_without_a_key_to_sign_with() -> None:
    """A configuration of public keys, or of an issuer's, gets the attacks that need no secret."""
    public = ECKey.import_key(KEYS["ES256"].as_dict(private=False))
    config = JWTConfig(key=public, **PLACE)
    tokens = attack_tokens(config, {"scope": "items:read"})
    assert answers(guarded(config), tokens) == {}
    names = [name for name, _ in tokens]
    assert any("CVE-2016-10555" in name for name in names)
    assert "expired" not in names
    later = JWTConfig(algorithms=["RS256"], **PLACE)
    assert len(attack_tokens(later)) > 30


def test_what_is_allowed_is_no_attack() -> None:
    """Tokens that a configuration accepts by its own choice are not among the attacks."""
    caller = JWTConfig(key=KEYS["ES256"], expiration_seconds=None, token_types=["JWT", "logout+jwt"])
    names = [name for name, _ in attack_tokens(caller)]
    assert "without exp" not in names
    assert "typ is 'logout+jwt' (RFC 8725 3.11)" not in names
    assert "ES256, which is not configured" not in names
    assert "RS256, which is not configured" in names
    assert answers(guarded(caller), attack_tokens(caller, {"scope": "items:read"})) == {}


def test_an_auth_in_the_place_of_its_configuration() -> None:
    """The error names the configuration of an Auth, where the Auth itself is passed."""
    with pytest.raises(ConfigurationError, match=r"config is a JWTConfig, such as auth\.config, not JWTAuth"):
        attack_tokens(JWTAuth(CONFIGS["alone"]))  # type: ignore[arg-type]
