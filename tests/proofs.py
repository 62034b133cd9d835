"""A client that holds a key: bound tokens and the proofs that go with them."""

import time
from base64 import urlsafe_b64encode
from hashlib import sha256
from typing import Any

from joserfc import jwt
from joserfc.jwk import ECKey

from fastapi_guard.testing.issuer import FakeIssuer


def proof_of(
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


def proof_for(issuer: FakeIssuer, **claims: Any) -> tuple[str, str]:
    """Return a token that is bound to a new key, and a proof for a GET of /items."""
    key = ECKey.generate_key("P-256")
    token = issuer.token(cnf={"jkt": key.thumbprint()}, **claims)
    return token, proof_of(key, token)
