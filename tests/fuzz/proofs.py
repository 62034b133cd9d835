"""Proofs of possession: an attacker writes every byte, the key included, and only a proof of this request is valid."""

import json
import re
from hashlib import sha256
from typing import Any
from urllib.parse import unquote_to_bytes

from joserfc.jwk import ECKey
from joserfc.jws import JWSRegistry
from starlette.requests import HTTPConnection

from fastapi_guard import Unauthorized
from fastapi_guard.issuers import DPoP
from fastapi_guard.stores import MemoryStore
from fuzz.tokens import SEPARATOR, base64url
from support import reference_verifier
from support.asgi import scope_of

NOW = 1_562_262_618
TOKEN = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU"
ATH = base64url(sha256(TOKEN.encode()).digest())
# Published in RFC 7515 A.3.
KEY = ECKey.import_key(
    {
        "kty": "EC",
        "crv": "P-256",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
        "d": "jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI",
    }
)
PUBLIC = {name: str(value) for name, value in KEY.as_dict(private=False).items() if name in ("kty", "crv", "x", "y")}
PRIVATE = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
PLACE = re.compile(r"(?i:https://api\.example)(?::(?:0*443)?)?(/[!-~]*?)(?:[?#][!-~]*)?")
NAMES = {b"{jwk}": json.dumps(PUBLIC).encode(), b"{ath}": ATH.encode()}


def proof_of(raw: bytes) -> bytes:
    """Return the proof that an input stands for: itself, or a header and a payload to be signed as they are."""
    parts = raw.split(SEPARATOR)
    if len(parts) == 1:
        return raw
    for name, text in NAMES.items():
        parts = [part.replace(name, text) for part in parts]
    signing_input = f"{base64url(parts[0])}.{base64url(parts[1])}"
    signature = JWSRegistry.algorithms["ES256"].sign(signing_input.encode(), KEY)
    return f"{signing_input}.{base64url(signature)}".encode() + b"".join(parts[2:])


def said_in(proof: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return header and claims of a proof whose signature is valid under the key, or refuse.

    Raises:
        RefusedError: The text is not such a proof.
    """
    parts = proof.decode("latin-1").strip(" \t").split(".")
    reference_verifier.require(len(parts) == 3)
    header, claims, signature = (reference_verifier.decoded(part) for part in parts)
    message = f"{parts[0]}.{parts[1]}".encode()
    reference_verifier.require(reference_verifier.is_signature_valid(PUBLIC, "ES256", message, signature))
    return reference_verifier.object_of(header), reference_verifier.object_of(claims)


async def refusal_of(dpop: DPoP, connection: HTTPConnection) -> Unauthorized | None:
    """Return how a request is refused, `None` if its proof is valid; anything else that is raised is a finding."""
    try:
        await dpop.check(connection, TOKEN, {"cnf": {"jkt": KEY.thumbprint()}})
    except Unauthorized as refusal:
        return refusal
    return None


def is_true(proof: bytes) -> bool:
    """Return whether a proof is made with the key, of this kind, for this request and this token, and now.

    A place may be written in more than one way (RFC 3986 6.2): its query does not count, nor how the rest is escaped.
    """
    try:
        header, claims = said_in(proof)
        reference_verifier.require(header.get("alg") == "ES256" and isinstance(header.get("typ"), str))
        reference_verifier.require(header["typ"].lower().removeprefix("application/") == "dpop+jwt")
        jwk = header.get("jwk")
        reference_verifier.require(isinstance(jwk, dict) and {name: jwk.get(name) for name in PUBLIC} == PUBLIC)
        reference_verifier.require(PRIVATE.isdisjoint(jwk))
        reference_verifier.require("crit" not in header and "b64" not in header)
        reference_verifier.require(isinstance(header.get("kid", ""), str) and len(header.get("kid", "")) <= 512)
        reference_verifier.require((claims.get("htm"), claims.get("ath")) == ("GET", ATH))
        reference_verifier.require(isinstance(claims.get("jti"), str) and claims["jti"])
        reference_verifier.require(type(claims.get("iat")) in (int, float) and NOW - 60 <= claims["iat"] <= NOW + 10)
        place = PLACE.fullmatch(claims["htu"]) if isinstance(claims.get("htu"), str) else None
        reference_verifier.require(place and unquote_to_bytes(place[1]) == b"/items")
    except reference_verifier.RefusedError:
        return False
    return True


async def check(raw: bytes) -> None:
    """Compare whether a proof is accepted with whether it is true, and whether it is accepted once."""
    proof = proof_of(raw)
    dpop = DPoP(MemoryStore(clock=lambda: NOW), origin="https://api.example", clock=lambda: NOW)
    fields = [(b"authorization", b"DPoP " + TOKEN.encode()), (b"dpop", proof)]
    connection = HTTPConnection(scope_of("/items", fields))
    refusal = await refusal_of(dpop, connection)
    assert (refusal is None) is is_true(proof), (proof, refusal and refusal.reason)
    if refusal is not None:
        assert refusal.error in ("invalid_dpop_proof", "invalid_token")
        return
    again = await refusal_of(dpop, connection)
    assert again is not None
    assert again.reason == "proof_replayed"
