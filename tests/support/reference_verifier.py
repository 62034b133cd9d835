"""Verify a token slowly and plainly, with pyca/cryptography alone: a second implementation to compare with.

It uses no code of the package or of joserfc, and decides for every text whether it must be accepted. The package has to
agree in both directions.
"""

import hmac
import json
import math
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils

HASHES = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}
CURVES = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(), "P-521": ec.SECP521R1()}
SCALAR_BYTES = {"ES256": 32, "ES384": 48, "ES512": 66}


@dataclass(frozen=True)
class Rules:
    """The rules of acceptance: one key, one algorithm, one issuer."""

    jwk: Mapping[str, str]
    algorithm: str
    issuer: str
    audience: str | None
    now: float
    leeway: int = 10


class RefusedError(Exception):
    """The token must be rejected."""


def require(condition: object) -> None:
    """Reject the token unless `condition` is true."""
    if not condition:
        raise RefusedError


def decoded(segment: str) -> bytes:
    """Decode base64url, in the one spelling that encoding produces (RFC 7515 2)."""
    require(re.fullmatch(r"[A-Za-z0-9_-]*", segment) and len(segment) % 4 != 1)
    raw = urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    require(urlsafe_b64encode(raw).rstrip(b"=").decode() == segment)
    return raw


def number(jwk: Mapping[str, str], name: str) -> int:
    """Return a member of a JWK as the number that it is (RFC 7518 6)."""
    return int.from_bytes(decoded(jwk[name]), "big")


def verify(jwk: Mapping[str, str], algorithm: str, message: bytes, signature: bytes) -> None:
    """Verify by RFC 7518 3 and RFC 8037 3.1; an algorithm and a key that do not belong together are a KeyError.

    Raises:
        InvalidSignature: The signature is invalid.
        ValueError: It has a shape that no signature has.
    """
    family, size = algorithm[:2], algorithm[2:]
    if family == "Ed":
        ed25519.Ed25519PublicKey.from_public_bytes(decoded(jwk["x"])).verify(signature, message)
    elif family == "HS":
        code = hmac.digest(decoded(jwk["k"]), message, f"sha{size}")
        if code != signature:
            raise InvalidSignature
    elif family == "ES":
        half = SCALAR_BYTES[algorithm]
        if len(signature) != 2 * half:
            raise InvalidSignature
        public = ec.EllipticCurvePublicNumbers(number(jwk, "x"), number(jwk, "y"), CURVES[jwk["crv"]]).public_key()
        r, s = int.from_bytes(signature[:half], "big"), int.from_bytes(signature[half:], "big")
        public.verify(utils.encode_dss_signature(r, s), message, ec.ECDSA(HASHES[size]))
    else:
        rsa_key = rsa.RSAPublicNumbers(number(jwk, "e"), number(jwk, "n")).public_key()
        digest = HASHES[size]
        pss = padding.PSS(padding.MGF1(digest), digest.digest_size)
        rsa_key.verify(signature, message, pss if family == "PS" else padding.PKCS1v15(), digest)


def is_signature_valid(jwk: Mapping[str, str], algorithm: str, message: bytes, signature: bytes) -> bool:
    """Return whether a signature is valid."""
    try:
        verify(jwk, algorithm, message, signature)
    except (InvalidSignature, ValueError):
        return False
    return True


def object_of(raw: bytes) -> dict[str, Any]:
    """Return the JSON object in `raw`: no name twice, finite numbers, whole characters, 32 levels at most."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        require(len({name for name, _ in pairs}) == len(pairs))
        return dict(pairs)

    def finite(text: str) -> float:
        require(math.isfinite(float(text)))
        return float(text)

    def check(value: Any, level: int) -> None:
        if isinstance(value, str):
            require(not any("\ud800" <= character <= "\udfff" for character in value))
        elif isinstance(value, dict | list):
            require(level < 32)
            for member in value:
                check(member, level + 1)
            for member in value.values() if isinstance(value, dict) else ():
                check(member, level + 1)

    try:
        text = raw.decode("utf-8")
        value = json.loads(text, object_pairs_hook=unique, parse_float=finite, parse_constant=finite)
    except (ValueError, RecursionError):
        raise RefusedError from None
    require(isinstance(value, dict))
    check(value, 0)
    return value


def check_header(rules: Rules, segment: str) -> None:
    """Check the members of a header (RFC 7515 4.1, RFC 7797 7, RFC 8725 3.11)."""
    require(len(segment) <= 12_288)
    header = object_of(decoded(segment))
    require(header.get("alg") == rules.algorithm)
    require("crit" not in header and "b64" not in header)
    kid, typ = header.get("kid", ""), header.get("typ", "JWT")
    require(isinstance(kid, str) and len(kid) <= 512)
    require(isinstance(typ, str) and typ.lower().removeprefix("application/") in ("jwt", "at+jwt"))


def check_claims(rules: Rules, claims: Mapping[str, Any]) -> None:
    """Check the claims (RFC 7519 4.1, RFC 8725 3.8 to 3.12, RFC 9449 7.2)."""
    for name in ("exp", "nbf", "iat"):
        require(type(claims.get(name, 0)) in (int, float))
    require("exp" in claims and rules.now < claims["exp"] + rules.leeway)
    require(all(claims.get(name, 0) - rules.leeway <= rules.now for name in ("nbf", "iat")))
    require(claims.get("iss") == rules.issuer)
    audience = claims.get("aud", ...)
    listed = audience if isinstance(audience, list) else [audience]
    if rules.audience is None:
        require(audience is ...)
    else:
        require(all(isinstance(member, str) for member in listed) and rules.audience in listed)
    for name in ("sub", "jti"):
        require(isinstance(claims.get(name, "x"), str) and claims.get(name, "x"))
    require({"cnf", "at_hash", "c_hash"}.isdisjoint(claims))
    require(not {"htm", "htu"} <= claims.keys())
    events = claims.get("events")
    require(not isinstance(events, dict) or "http://schemas.openid.net/event/backchannel-logout" not in events)


def claims_of(rules: Rules, token: str) -> dict[str, Any] | None:
    """Return the claims of a token that has to be accepted, `None` for a text that has to be refused."""
    try:
        require(len(token) <= 16_384)
        parts = token.split(".")
        require(len(parts) == 3)
        _, payload, signature = (decoded(part) for part in parts)
        check_header(rules, parts[0])
        require(is_signature_valid(rules.jwk, rules.algorithm, token.rpartition(".")[0].encode(), signature))
        claims = object_of(payload)
        check_claims(rules, claims)
    except RefusedError:
        return None
    return claims
