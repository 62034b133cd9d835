"""Make DPoP proofs, and access tokens that are bound to their key (RFC 9449)."""

import time
from base64 import urlsafe_b64encode
from hashlib import sha256
from typing import Any

from joserfc import jwt
from joserfc.jwk import ECKey

from fastapi_guard.testing.issuer import FakeIssuer


def make_proof(
    key: ECKey, token: str, *, url: str = "https://api.example/items", method: str = "GET", **claims: Any
) -> str:
    """Return a proof for one request with ``token`` (RFC 9449 4.2)."""
    own = {
        "jti": str(time.perf_counter_ns()),
        "htm": method,
        "htu": url,
        "iat": int(time.time()),
        "ath": urlsafe_b64encode(sha256(token.encode()).digest()).rstrip(b"=").decode(),
    }
    public = {name: value for name, value in key.as_dict(private=False).items() if name in ("kty", "crv", "x", "y")}
    return jwt.encode({"typ": "dpop+jwt", "alg": "ES256", "jwk": public}, {**own, **claims}, key, ["ES256"])


def bound_token_and_proof(issuer: FakeIssuer, **claims: Any) -> tuple[str, str]:
    """Return a token bound to a new key, and a proof for a GET of /items."""
    key = ECKey.generate_key("P-256")
    token = issuer.token(cnf={"jkt": key.thumbprint()}, **claims)
    return token, make_proof(key, token)
