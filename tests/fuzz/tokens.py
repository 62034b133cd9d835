"""Compact tokens: what is accepted, and with which claims, is what a second opinion and joserfc say."""

import json
import re
from base64 import urlsafe_b64encode
from pathlib import Path
from typing import Any, cast

from joserfc import jwt
from joserfc.jwk import JWKRegistry
from joserfc.jws import JWSRegistry
from starlette.requests import HTTPConnection

from fastapi_guard import JWTAuth, JWTConfig, Unauthorized
from fastapi_guard.auth import Verified
from support import reference_verifier

VECTORS = Path(__file__).parent.parent / "vectors"
SEPARATOR = b"\x1e"
REFUSALS = (("The access token is invalid", "invalid_token"), ("The access token has expired", "invalid_token"))
TOKEN68 = re.compile(r"[A-Za-z0-9\-._~+/]+=*")
NOW = 1_300_819_380  # the examples of RFC 7515 have just expired, within the leeway
# The published keys of the RFCs, of each algorithm for which there is an accepted token.
JWKS: dict[str, dict[str, str]] = {
    vector["algorithm"]: vector["key"]
    for name in ("rfc7515", "strict")
    for vector in json.loads((VECTORS / f"{name}.json").read_text(encoding="utf-8"))["vectors"]
    if vector["outcome"] == "accepted" and vector["algorithm"] != "EdDSA"  # the old name of Ed25519
}
KEYS = {algorithm: JWKRegistry.import_key(jwk) for algorithm, jwk in JWKS.items()}


class Lax(JWSRegistry):
    """joserfc where it accepts the most: any header member, at any length that the package allows."""

    max_header_length = 12_288

    def __init__(self, algorithm: str) -> None:
        """Allow one algorithm."""
        super().__init__(algorithms=[algorithm], strict_check_header=False)


def auth_of(algorithm: str, audience: str | None = None, **settings: Any) -> tuple[JWTAuth, reference_verifier.Rules]:
    """Return an Auth, and its rules in the form that the second opinion reads."""
    config = JWTConfig(key=KEYS[algorithm], algorithms=[algorithm], issuer_url="joe", audience=audience, **settings)
    rules = reference_verifier.Rules(JWKS[algorithm], algorithm, "joe", audience, NOW)
    return JWTAuth(config, clock=lambda: NOW), rules


AUTHS = [auth_of(algorithm) for algorithm in KEYS]
AUTHS += [auth_of("HS256", "api"), auth_of("HS256", cache_size=8)]


def base64url(raw: bytes) -> str:
    """Encode as RFC 7515 2 does."""
    return urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def token_of(raw: bytes) -> str:
    """Return the token that an input stands for.

    A text without a separator is the token. Else it is a header and a payload, to be signed as they are, and then
    edits of the signed token: two bytes of where, one of how many characters go, and what comes in their place.
    """
    parts = raw.split(SEPARATOR)
    if len(parts) == 1:
        return raw.decode("utf-8", "surrogateescape")
    signing_input = f"{base64url(parts[0])}.{base64url(parts[1])}"
    signature = JWSRegistry.algorithms["HS256"].sign(signing_input.encode(), KEYS["HS256"])
    token = f"{signing_input}.{base64url(signature)}"
    for edit in parts[2:]:
        start = int.from_bytes(edit[:2], "big") % (len(token) + 1)
        end = start + int.from_bytes(edit[2:3], "big")
        token = token[:start] + edit[3:].decode("utf-8", "surrogateescape") + token[end:]
    return token


def reason_of(answer: object) -> str | None:
    """Return why a token is refused, ``None`` where it is not."""
    return answer.reason if isinstance(answer, Unauthorized) else None


async def answer_of(auth: JWTAuth, token: str) -> dict[str, Any] | Unauthorized:
    """Return the claims, or how the token is refused; anything else that is raised is a finding."""
    try:
        return await auth.verify(token)
    except Unauthorized as refusal:
        return refusal


async def answer_on_a_connection(auth: JWTAuth, token: str) -> dict[str, Any] | Unauthorized | None:
    """Return the same for the token in a request; ``None`` where it is not a credential there."""
    field = (b"authorization", b"Bearer " + token.encode("utf-8", "surrogateescape"))
    connection = HTTPConnection({"type": "http", "headers": [field]})
    decided = await auth.decide(connection)
    return decided.principal if isinstance(decided, Verified) else cast("Unauthorized | None", decided)


async def check(raw: bytes) -> None:
    """Compare the package with the second opinion in both directions, and with joserfc in one."""
    token = token_of(raw)
    for auth, rules in AUTHS:
        expected = reference_verifier.claims_of(rules, token)
        answer = await answer_of(auth, token)
        sent = await answer_on_a_connection(auth, token)
        if TOKEN68.fullmatch(token):
            assert sent == answer or reason_of(sent) == reason_of(answer) is not None, (rules.algorithm, token)
        elif sent is not None and not isinstance(sent, Unauthorized):
            # In a field there may be white space around a token.
            assert sent == reference_verifier.claims_of(rules, token.strip(" \t")), (rules.algorithm, token)
        if isinstance(answer, Unauthorized):
            assert expected is None, (rules.algorithm, token)
            assert (answer.detail, answer.error) in REFUSALS
            # What no check expects is a refusal too, and to be looked at.
            assert answer.reason != "undecodable", token
            continue
        assert answer == expected, (rules.algorithm, token)
        theirs = jwt.decode(token, KEYS[rules.algorithm], registry=Lax(rules.algorithm))
        assert theirs.claims == answer
        for _ in range(2):  # an endpoint may do what it likes with its claims
            for value in answer.values():
                if isinstance(value, dict | list):
                    value.clear()
            answer.clear()
            answer = await auth.verify(token)
            assert answer == expected
