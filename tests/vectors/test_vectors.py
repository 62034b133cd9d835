import json
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import JWKRegistry

from fastapi_guard import JWTAuth, JWTConfig, Unauthorized
from fastapi_guard.jwt.compact import decode_base64url, split
from fastapi_guard.jwt.keys import VerificationKeys, usable_keys

HERE = Path(__file__).parent
TOKENS = [
    pytest.param(vector, id=f"{name}: {vector['name']}")
    for name in ("rfc7515", "rfc8037", "strict")
    for vector in json.loads((HERE / f"{name}.json").read_text(encoding="utf-8"))["vectors"]
]
KEYS = json.loads((HERE / "rfc7517.json").read_text(encoding="utf-8"))
NOW = 1_300_819_380  # the moment at which the examples of RFC 7515 expire, within the leeway


@pytest.mark.parametrize("vector", TOKENS)
async def test_tokens(vector: dict[str, Any]) -> None:
    """Each token has the outcome that its vector says, refused ones for that reason and no other (J.45)."""
    key = JWKRegistry.import_key(vector["key"])
    config = JWTConfig(key=key, algorithms=[vector["algorithm"]], issuer_url="joe")
    auth = JWTAuth(config, clock=lambda: NOW)
    if vector["outcome"] == "accepted":
        assert await auth.verify(vector["token"]) == vector["claims"]
    else:
        with pytest.raises(Unauthorized) as refusal:
            await auth.verify(vector["token"])
        assert (refusal.value.detail, refusal.value.error) == ("The access token is invalid", "invalid_token")
        assert refusal.value.reason == vector["reason"]


@pytest.mark.parametrize("vector", [each for each in TOKENS if "whose payload is no claims" in str(each.id)])
def test_signatures(vector: dict[str, Any]) -> None:
    """Where an example's payload is no claims, its signature holds all the same."""
    keys = VerificationKeys([JWKRegistry.import_key(vector["key"])], [vector["algorithm"]])
    signing_input, header, payload, signature = split(vector["token"].encode())
    assert decode_base64url(payload) in (b"Payload", b"Example of Ed25519 signing")
    found = keys.candidates(header)
    assert found.algorithm.verify(signing_input, decode_base64url(signature), found.keys[0])
    assert not found.algorithm.verify(signing_input + b"x", decode_base64url(signature), found.keys[0])


@pytest.mark.parametrize("vector", KEYS["thumbprints"], ids=lambda vector: vector["name"])
def test_thumbprints(vector: dict[str, Any]) -> None:
    """A key's thumbprint is that of RFC 7638, whatever else its JWK says."""
    assert JWKRegistry.import_key(vector["key"]).thumbprint() == vector["thumbprint"]


@pytest.mark.parametrize("vector", KEYS["sets"], ids=lambda vector: vector["name"])
def test_sets(vector: dict[str, Any]) -> None:
    """Of a published set the keys that are meant for signatures with these algorithms are taken."""
    assert [key.kid for key in usable_keys(vector["set"], vector["algorithms"])] == vector["usable"]
