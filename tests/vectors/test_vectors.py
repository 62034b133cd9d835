import json
import warnings
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest
from cryptography.x509 import load_der_x509_certificate
from joserfc import jwe, jws
from joserfc.jwk import JWKRegistry, KeySet, OctKey, RSAKey

from fastapi_guard import ConfigurationError, JWTAuth, JWTConfig, Unauthorized
from fastapi_guard.jwt.compact import decode_base64url, split
from fastapi_guard.jwt.keys import usable_keys
from fastapi_guard.jwt.verification_keys import VerificationKeys
from support import reference_verifier

HERE = Path(__file__).parent
TOKENS = [
    pytest.param(vector, id=f"{name}: {vector['name']}")
    for name in ("rfc7515", "rfc7519", "rfc8037", "strict")
    for vector in json.loads((HERE / f"{name}.json").read_text(encoding="utf-8"))["vectors"]
]
KEYS = json.loads((HERE / "rfc7517.json").read_text(encoding="utf-8"))
ENCRYPTION = json.loads((HERE / "rfc7519.json").read_text(encoding="utf-8"))["encryption"]
NOW = 1_300_819_380  # the moment at which the examples of RFC 7515 expire, within the leeway


@pytest.mark.parametrize("vector", TOKENS)
async def test_tokens(vector: dict[str, Any]) -> None:
    """Each token has the outcome in its vector, refused ones for that reason and no other."""
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


@pytest.mark.parametrize("vector", TOKENS)
def test_the_reference_verifier(vector: dict[str, Any]) -> None:
    """Other code comes to the same outcome, so that no vector is mistyped; a bad signature is bad there too."""
    rules = reference_verifier.Rules(vector["key"], vector["algorithm"], "joe", None, NOW)
    assert reference_verifier.claims_of(rules, vector["token"]) == vector.get("claims")
    if vector.get("reason") == "bad_signature":
        message, _, signature = vector["token"].rpartition(".")
        raw = reference_verifier.decoded(signature)
        assert not reference_verifier.is_signature_valid(vector["key"], vector["algorithm"], message.encode(), raw)


@pytest.mark.parametrize("algorithm", ["HS256", "RS256", "PS256", "ES256", "ES384", "ES512", "Ed25519", "EdDSA"])
def test_every_family_has_a_positive_control(algorithm: str) -> None:
    """Beside what is refused for its signature stands one that is accepted, of the same algorithm."""
    of_it = [token.values[0] for token in TOKENS if token.values[0]["algorithm"] == algorithm]  # type: ignore[index,call-overload]
    assert {"accepted", "refused"} == {vector["outcome"] for vector in of_it}


@pytest.mark.parametrize("vector", [token for token in TOKENS if "whose payload is no claims" in str(token.id)])
def test_signatures(vector: dict[str, Any]) -> None:
    """An example whose payload is not a claims set still has a valid signature."""
    keys = VerificationKeys([JWKRegistry.import_key(vector["key"])], [vector["algorithm"]])
    signing_input, header, payload, signature = split(vector["token"].encode())
    assert decode_base64url(payload) in (b"Payload", b"Example of Ed25519 signing")
    found = keys.candidates(header)
    assert found.algorithm.verify(signing_input, decode_base64url(signature), found.keys[0])
    assert not found.algorithm.verify(signing_input + b"x", decode_base64url(signature), found.keys[0])


@pytest.mark.parametrize("vector", [token for token in TOKENS if "JSON serialization, " in str(token.id)])
def test_the_json_forms_are_whole(vector: dict[str, Any]) -> None:
    """A token that is refused for its form alone has valid signatures (RFC 7515 A.6 and A.7)."""
    public = {token.values[0]["name"]: token.values[0]["key"] for token in TOKENS}  # type: ignore[index,call-overload]
    rsa, elliptic = (next(key for name, key in public.items() if f"7515 {part}:" in name) for part in ("A.2", "A.3"))
    members = [{**rsa, "kid": "2010-12-29"}, {**elliptic, "kid": "e9bc097a-ce51-4036-9562-d2ade882db0d"}]
    keys = KeySet([JWKRegistry.import_key(member) for member in members])
    form = jws.deserialize_json(json.loads(vector["token"]), keys, algorithms=["RS256", "ES256"])
    assert json.loads(form.payload or b"")["iss"] == "joe"


@pytest.mark.parametrize("vector", [token for token in TOKENS if "encrypted" in str(token.id)])
def test_the_encrypted_forms_are_whole(vector: dict[str, Any]) -> None:
    """A token that is refused for its five parts is a JWE that can be decrypted (RFC 7519 appendix A)."""
    key = RSAKey.import_key(ENCRYPTION["key"])
    with warnings.catch_warnings(action="ignore"):  # the algorithm is deprecated
        form = jwe.decrypt_compact(vector["token"], key, algorithms=["RSA1_5", "A128CBC-HS256"])
    assert (form.plaintext or b"").decode() == ENCRYPTION["plaintexts"][vector["name"]]


@pytest.mark.parametrize("vector", KEYS["thumbprints"], ids=lambda vector: vector["name"])
def test_thumbprints(vector: dict[str, Any]) -> None:
    """A key's thumbprint is that of RFC 7638, whatever other members its JWK has."""
    assert JWKRegistry.import_key(vector["key"]).thumbprint() == vector["thumbprint"]


@pytest.mark.parametrize("vector", KEYS["sets"], ids=lambda vector: vector["name"])
def test_sets(vector: dict[str, Any]) -> None:
    """Of a published set the keys that are meant for signatures with these algorithms are taken."""
    assert [key.kid for key in usable_keys(vector["set"], vector["algorithms"])] == vector["usable"]


async def test_private_keys() -> None:
    """RFC 7517 A.2: the RSA key signs and shows its public half alone; the other is for encryption, and refused."""
    elliptic, rsa = KEYS["private"]["keys"]
    config = JWTConfig(key=json.dumps(rsa), issuer_url="joe")
    auth = JWTAuth(config)
    assert config.algorithms == ("RS256",)
    assert (await auth.verify(auth.encode({"sub": "ada"})))["sub"] == "ada"
    (shown,) = config.jwks["keys"]
    assert shown == {**{name: rsa[name] for name in ("kty", "n", "e", "kid", "alg")}, "use": "sig"}
    with pytest.raises(ConfigurationError, match="its alg or use excludes all"):
        JWTConfig(key=json.dumps(elliptic), algorithms=["ES256"])
    for_anything = {name: value for name, value in elliptic.items() if name != "use"}
    auth = JWTAuth(JWTConfig(key=json.dumps(for_anything), algorithms=["ES256"], issuer_url="joe"))
    assert (await auth.verify(auth.encode({"sub": "ada"})))["sub"] == "ada"


def test_a_key_with_its_certificate() -> None:
    """RFC 7517 B: the key is that of its certificate; it verifies, and the certificate is not shown (A.4)."""
    member = KEYS["certified"]["key"]
    certificate = load_der_x509_certificate(b64decode(member["x5c"][0]))
    assert certificate.public_key() == RSAKey.import_key(member).public_key
    assert [key.kid for key in usable_keys({"keys": [member]}, ["RS256"])] == ["1b94c"]
    config = JWTConfig(key=json.dumps(member), algorithms=["RS256"], issuer_url="joe")
    assert "x5c" not in config.jwks["keys"][0]


def test_an_encrypted_key() -> None:
    """RFC 7517 C: refused as a key and skipped in a set; what is inside is for encryption, and refused too (A.5)."""
    vector = KEYS["encrypted"]
    password = OctKey.import_key(vector["password"].encode())
    inside = jwe.decrypt_compact(vector["jwe"], password, algorithms=["PBES2-HS256+A128KW", "A128CBC-HS256"])
    assert json.loads(inside.plaintext or b"") == vector["key"]
    with pytest.raises(ConfigurationError, match="neither PEM nor JWK"):
        JWTConfig(key=vector["jwe"])
    with pytest.raises(ConfigurationError, match="its alg or use excludes all"):
        JWTConfig(key=json.dumps(vector["key"]), algorithms=["RS256"])
    beside = KEYS["certified"]["key"]
    assert [key.kid for key in usable_keys({"keys": [vector["jwe"], vector["key"], beside]}, ["RS256"])] == ["1b94c"]
