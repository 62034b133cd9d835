"""Sign arbitrary tokens: the test controls every byte, and the clock."""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from typing import Any

from joserfc.jwk import ECKey, Key, OctKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from fastapi_guard import JWTAuth, JWTConfig

NOW = 1_800_000_000
ISSUER = "https://id.example"
AUDIENCE = "https://api.example"

# An RSA key takes a while to make: two for all tests.
_RSA = (RSAKey.generate_key(2048), RSAKey.generate_key(2048))
_CURVES = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}
_SECRET_BITS = {"HS256": 256, "HS384": 384, "HS512": 512}


def _keys(of: int) -> dict[str, Key]:
    keys: dict[str, Key] = {name: OctKey.generate_key(bits) for name, bits in _SECRET_BITS.items()}
    keys |= {f"{family}{size}": _RSA[of] for family in ("RS", "PS") for size in (256, 384, 512)}
    keys |= {name: ECKey.generate_key(curve) for name, curve in _CURVES.items()}
    edwards = OKPKey.generate_key("Ed25519")
    return keys | {"Ed25519": edwards, "EdDSA": edwards}


KEYS = _keys(0)
FOREIGN_KEYS = _keys(1)
ALGORITHMS = tuple(KEYS)


def base64url(raw: bytes) -> str:
    """Encode as RFC 7515 2 does."""
    return urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def as_bytes(value: Mapping[str, Any] | bytes) -> bytes:
    """Serialize an object; bytes are taken as they are."""
    return value if isinstance(value, bytes) else json.dumps(value).encode()


def valid_claims(**changes: Any) -> dict[str, Any]:
    """Return claims that ``auth_of`` accepts, with ``changes``; a claim changed to ``...`` is left out."""
    claims = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "ada",
        "exp": NOW + 60,
        "iat": NOW,
        "scope": "items:read",
    } | changes
    return {name: value for name, value in claims.items() if value is not ...}


def sign(algorithm: str, key: Key, signing_input: str) -> str:
    """Sign with joserfc, whatever the `use` or `alg` of the key."""
    return base64url(JWSRegistry.algorithms[algorithm].sign(signing_input.encode(), key))


def forge(
    algorithm: str,
    payload: Mapping[str, Any] | bytes | None = None,
    header: Mapping[str, Any] | bytes | None = None,
    *,
    key: Key | None = None,
) -> str:
    """Return a token with a valid signature.

    Args:
        algorithm: What it is signed with.
        payload: Claims, or the bytes of the payload; good claims where left out.
        header: Members on top of ``alg``, or the bytes of the header.
        key: What it is signed with, the key of the algorithm where left out.
    """
    members = header if isinstance(header, bytes) else {"alg": algorithm, **(header or {})}
    body = valid_claims() if payload is None else payload
    signing_input = f"{base64url(as_bytes(members))}.{base64url(as_bytes(body))}"
    return f"{signing_input}.{sign(algorithm, key or KEYS[algorithm], signing_input)}"


def fixed_clock() -> float:
    """Return ``NOW``."""
    return NOW


def config_of(algorithm: str, **settings: Any) -> JWTConfig:
    """Return a configuration that accepts what ``forge`` makes."""
    defaults = {"key": KEYS[algorithm], "algorithms": [algorithm], "issuer_url": ISSUER, "audience": AUDIENCE}
    return JWTConfig(**(defaults | settings))


def auth_of(algorithm: str, *, options: Mapping[str, Any] | None = None, **settings: Any) -> JWTAuth:
    """Return an Auth whose clock is fixed at ``NOW``."""
    return JWTAuth(config_of(algorithm, **settings), **{"clock": fixed_clock, **(options or {})})


def decode_unverified(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the header and the claims of a token, unverified."""
    head, payload, _ = token.split(".")
    return json.loads(urlsafe_b64decode(head + "==")), json.loads(urlsafe_b64decode(payload + "=="))
