import hmac
import json
import logging
import re
import socket
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, cast
from unittest.mock import Mock

import httpx2
import pytest
import time_machine
from fastapi import Depends, FastAPI
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.errors import InvalidClaimError, JoseError
from joserfc.jwk import ECKey, JWKRegistry, Key, KeySet, OctKey
from joserfc.jws import JWSRegistry
from joserfc.jwt import JWTClaimsRegistry

from fastapi_guard import (
    APIKeyScheme,
    ConfigurationError,
    HierarchicalScopeValidator,
    JWTAuth,
    JWTConfig,
    ServiceUnavailable,
    SimpleScopeValidator,
    Unauthorized,
)
from fastapi_guard.events import Event
from fastapi_guard.jwt import verifier as module
from fastapi_guard.jwt.compact import Header
from fastapi_guard.jwt.verification_keys import VerificationKeys
from support.asgi import Answer, call
from support.clock import Clock
from support.examples import at_most
from support.tokens import (
    ALGORITHMS,
    AUDIENCE,
    FOREIGN_KEYS,
    ISSUER,
    KEYS,
    NOW,
    auth_of,
    base64url,
    config_of,
    decode_unverified,
    fixed_clock,
    forge,
    sign,
    valid_claims,
)

INVALID = "The access token is invalid"
EXPIRED = "The access token has expired"
KEY = KEYS["ES256"]
PUBLIC = KEY.as_dict(private=False)


def challenge(detail: str, error: str = "invalid_token") -> str:
    """Return the challenge of a refusal."""
    return f'Bearer realm="api", error="{error}", error_description="{detail}"'


async def refused(auth: JWTAuth, token: str) -> str:
    """Return the reason with which a token is refused as invalid."""
    with pytest.raises(Unauthorized) as refusal:
        await auth.verify(token)
    assert (refusal.value.detail, refusal.value.error) == (INVALID, "invalid_token")
    return refusal.value.reason


class Guarded:
    """An application with one route that requires `items:read`, and the reasons of its refusals."""

    def __init__(self, auth: Callable[..., JWTAuth]) -> None:
        """Guard by what ``auth`` makes of options."""
        self.reasons: list[str | None] = []
        self.auth = auth(on_event=lambda event: self.reasons.append(event.reason))
        self.app = FastAPI()

        @self.app.get("/")
        async def items(claims: Annotated[dict[str, Any], self.auth.requires("items:read")]) -> dict[str, Any]:
            return claims

    async def get(self, token: str | None, *more: tuple[bytes, bytes]) -> Answer:
        """Call the route."""
        return await call(self.app, "/", token, *more)


GUARDED = {name: Guarded(lambda name=name, **options: auth_of(name, options=options)) for name in ALGORITHMS}


class Awaiting(JWTAuth):
    """An Auth that verifies in a coroutine, as with a remote service."""

    async def verify(self, raw: str) -> dict[str, Any]:
        """Do the same."""
        return await super().verify(raw)


AWAITED = {
    name: Guarded(lambda name=name, **options: Awaiting(config_of(name), **{"clock": fixed_clock, **options}))
    for name in ALGORITHMS
}


def both(name: str) -> Iterator[Guarded]:
    """Yield what verifies a token at once, and what verifies it in a coroutine, without a reason of before."""
    for guarded in (GUARDED[name], AWAITED[name]):
        guarded.reasons.clear()
        yield guarded


# --- the table of refusals -------------------------------------------------------------------------------------------


def other_family(name: str) -> str:
    """Return an algorithm of the other kind: symmetric for asymmetric, and the reverse."""
    return "ES256" if name.startswith("HS") else "HS256"


def segment(members: Mapping[str, Any]) -> str:
    """Return an object in base64url."""
    return base64url(json.dumps(members).encode())


def confused(name: str) -> str:
    """Sign with HMAC and what is public about the key, as if it were a secret."""
    key = KEYS[name]
    public = key.as_pem(private=False) if key.key_type != "oct" else b"public"
    head = f"{segment({'alg': 'HS256'})}.{segment(valid_claims())}"
    return f"{head}.{base64url(hmac.digest(public, head.encode(), 'sha256'))}"


def spliced(name: str, part: int, text: str | Callable[[str], str]) -> str:
    """Return a good token with one of its parts changed."""
    segments = forge(name).split(".")
    segments[part] = text if isinstance(text, str) else text(segments[part])
    return ".".join(segments)


def resigned(name: str, header: str, payload: str) -> str:
    """Return a token of segments as they are, with a signature that holds over them."""
    return f"{header}.{payload}.{sign(name, KEYS[name], f'{header}.{payload}')}"


def with_alg(alg: object) -> Callable[[str], str]:
    """Claim another algorithm, over a signature that holds for the configured one."""
    return lambda name: forge(name, header={"alg": alg})


def with_header(**members: object) -> Callable[[str], str]:
    """Add header members to a token that is good otherwise."""
    return lambda name: forge(name, header=members)


def with_claims(**changes: object) -> Callable[[str], str]:
    """Change claims of a token that is good otherwise."""
    return lambda name: forge(name, valid_claims(**changes))


def with_raw(replacement: bytes) -> Callable[[str], str]:
    """Put raw JSON in place of a marker in good claims."""
    raw = json.dumps(valid_claims(marker="marker")).encode().replace(b'"marker": "marker"', replacement)
    return lambda name: forge(name, raw)


STRAY = {"A": "B", "Q": "R", "g": "h", "w": "x", "E": "F", "I": "J", "M": "N", "U": "V", "Y": "Z", "c": "d"} | {
    "k": "l",
    "o": "p",
    "s": "t",
    "0": "1",
    "4": "5",
    "8": "9",
}


def stray_bits(text: str) -> str:
    """Spell the last character another way that a lax decoder decodes alike."""
    return text[:-1] + STRAY[text[-1]]


def unpadded(members: Mapping[str, Any]) -> str:
    """Return an object in base64url of a length that other alphabets pad."""
    raw = json.dumps(members).encode()
    return base64url(raw if len(raw) % 3 else raw + b" ")


def padded(members: Mapping[str, Any]) -> str:
    """Return an object in base64url with padding."""
    text = unpadded(members)
    return text + "=" * (-len(text) % 4)


# What is wrong, and the reason that the log gives. Every one of these is 401, invalid_token and the same text.
REFUSALS: dict[str, tuple[Callable[[str], str], str]] = {
    "one part": (lambda _: "abc", "not_three_parts"),
    "two parts": (lambda name: forge(name).rpartition(".")[0], "not_three_parts"),
    "four parts": (lambda name: forge(name) + ".abc", "not_three_parts"),
    "five parts, a JWE": (lambda _: segment({"alg": "dir", "enc": "A128GCM"}) + "..a.b.c", "not_three_parts"),
    "JSON serialization": (lambda name: segment({"payload": forge(name)}), "not_three_parts"),
    "dots alone": (lambda _: "..", "json"),
    "oversized": (lambda name: forge(name, valid_claims(x="x" * 16_384)), "oversized"),
    "a signature of a megabyte": (lambda name: spliced(name, 2, "A" * 1_000_000), "oversized"),
    "a header of a megabyte": (lambda name: forge(name, header={"x": "x" * 1_000_000}), "oversized"),
    "an oversized header": (lambda name: forge(name, header={"x": "x" * 9_300}), "oversized_header"),
    "a kid of a megabyte": (lambda name: forge(name, header={"kid": "k" * 1_000_000}), "oversized"),
    "a long kid": (lambda name: forge(name, header={"kid": "k" * 513}), "oversized_kid"),
    "alg none, no signature": (lambda _: f"{segment({'alg': 'none'})}.{segment(valid_claims())}.", "algorithm"),
    "alg none, signed": (with_alg("none"), "algorithm"),
    "alg None": (with_alg("None"), "algorithm"),
    "alg NONE": (with_alg("NONE"), "algorithm"),
    "alg nOnE": (with_alg("nOnE"), "algorithm"),
    "alg empty": (with_alg(""), "algorithm"),
    "alg null": (with_alg(None), "header_type"),
    "alg a number": (with_alg(256), "header_type"),
    "alg a list": (lambda name: forge(name, header={"alg": [name]}), "header_type"),
    "alg in lower case": (lambda name: forge(name, header={"alg": name.swapcase()}), "algorithm"),
    "alg with white space": (lambda name: forge(name, header={"alg": f" {name}"}), "algorithm"),
    "no alg": (lambda name: forge(name, header=b"{}"), "header_type"),
    "an algorithm of another family": (lambda name: forge(other_family(name)), "algorithm"),
    "HMAC with the public key": (confused, "bad_signature_or_algorithm"),
    "a key of somebody else": (lambda name: forge(name, key=FOREIGN_KEYS[name]), "bad_signature"),
    "no signature": (lambda name: spliced(name, 2, ""), "bad_signature"),
    "half a signature": (lambda name: spliced(name, 2, lambda text: text[: len(text) // 8 * 4]), "bad_signature"),
    "a signature with more behind": (lambda name: spliced(name, 2, lambda text: "AAAA" + text), "bad_signature"),
    "a signature of zeros": (lambda name: spliced(name, 2, lambda text: "A" * (len(text) // 4 * 4)), "bad_signature"),
    "another payload": (
        lambda name: spliced(name, 1, segment(valid_claims(sub="root"))),
        "bad_signature",
    ),
    "another header": (lambda name: spliced(name, 0, segment({"typ": "JWT", "alg": name})), "bad_signature"),
    "crit": (with_header(crit=["exp"], exp=NOW), "critical_header"),
    "crit empty": (with_header(crit=[]), "critical_header"),
    "crit of a wrong type": (with_header(crit=1), "critical_header"),
    "crit of numbers": (with_header(crit=[1]), "critical_header"),
    "crit null": (with_header(crit=None), "critical_header"),
    "b64 false": (with_header(b64=False, crit=["b64"]), "critical_header"),
    "b64 true": (with_header(b64=True), "critical_header"),
    "kid a number": (with_header(kid=1), "header_type"),
    "kid a list": (with_header(kid=["1"]), "header_type"),
    "kid an object": (with_header(kid={"": 1}), "header_type"),
    "kid null": (with_header(kid=None), "header_type"),
    "typ of a proof": (with_header(typ="dpop+jwt"), "token_type"),
    "typ of a logout token": (with_header(typ="logout+jwt"), "token_type"),
    "typ empty": (with_header(typ=""), "token_type"),
    "typ a number": (with_header(typ=1), "header_type"),
    "a duplicate member": (
        lambda name: forge(name, header=f'{{"alg":"none","alg":"{name}"}}'.encode()),
        "duplicate_member",
    ),
    "a header in UTF-16": (lambda name: forge(name, header=json.dumps({"alg": name}).encode("utf-16")), "json"),
    "a header with a BOM": (
        lambda name: forge(name, header=b"\xef\xbb\xbf" + json.dumps({"alg": name}).encode()),
        "json",
    ),
    "a header that is a list": (lambda name: forge(name, header=f'["{name}"]'.encode()), "not_an_object"),
    "a header that is no JSON": (lambda name: forge(name, header=b"alg"), "json"),
    "a deep header": (
        lambda name: forge(name, header=f'{{"alg":"{name}","x":{"[" * 3000}{"]" * 3000}}}'.encode()),
        "nesting",
    ),
    "stray bits in the signature": (
        lambda name: spliced(name, 2, lambda text: stray_bits(text) if len(text) % 4 else f"{text}A"),
        "base64url",
    ),
    "stray bits in the header": (
        lambda name: resigned(name, stray_bits(unpadded({"alg": name})), segment(valid_claims())),
        "base64url",
    ),
    "padding in the signature": (lambda name: spliced(name, 2, lambda text: text + "="), "base64url"),
    "the standard alphabet": (lambda name: spliced(name, 2, lambda text: "++++" + text), "base64url"),
    "a slash": (lambda name: spliced(name, 2, lambda text: "////" + text), "base64url"),
    "padding in the payload": (
        lambda name: resigned(name, segment({"alg": name}), padded(valid_claims())),
        "malformed",
    ),
    "padding in the header": (lambda name: resigned(name, padded({"alg": name}), segment(valid_claims())), "malformed"),
    "stray bits in the payload": (
        lambda name: resigned(name, segment({"alg": name}), stray_bits(unpadded(valid_claims()))),
        "base64url",
    ),
    "a payload in UTF-16": (lambda name: forge(name, json.dumps(valid_claims()).encode("utf-16")), "json"),
    "a payload in UTF-16 without a BOM": (
        lambda name: forge(name, json.dumps(valid_claims()).encode("utf-16-le")),
        "json",
    ),
    "a payload in UTF-32": (lambda name: forge(name, json.dumps(valid_claims()).encode("utf-32")), "json"),
    "a payload in Latin-1": (with_raw(b'"name":"\xe9"'), "json"),
    "a payload that is empty": (lambda name: forge(name, b""), "json"),
    "a payload that is a list": (lambda name: forge(name, b"[]"), "not_an_object"),
    "a payload that is a text": (lambda name: forge(name, b'"sub"'), "not_an_object"),
    "a payload that is null": (lambda name: forge(name, b"null"), "not_an_object"),
    "a payload with more behind": (lambda name: forge(name, json.dumps(valid_claims()).encode() + b"{}"), "json"),
    "a duplicate claim": (with_raw(b'"sub":"eve"'), "duplicate_member"),
    "a duplicate claim, escaped": (with_raw(b'"\\u0073ub":"eve"'), "duplicate_member"),
    "NaN": (with_raw(b'"x":NaN'), "number"),
    "Infinity": (with_raw(b'"x":-Infinity'), "number"),
    "1e999": (with_raw(b'"x":1e999'), "number"),
    "a number of 5000 digits": (with_raw(b'"x":' + b"9" * 5000), "json"),
    "a deep payload": (with_raw(b'"x":' + b"[" * 4000 + b"]" * 4000), "nesting"),
    "a lone surrogate": (with_raw(b'"x":"\\ud800"'), "json"),
    "a lone surrogate in a name": (with_raw(b'"\\udfff":1'), "json"),
    "exp missing": (with_claims(exp=...), "exp_missing"),
    "exp null": (with_claims(exp=None), "exp_type"),
    "exp true": (with_claims(exp=True), "exp_type"),
    "exp a text": (with_claims(exp=str(NOW + 60)), "exp_type"),
    "exp a list": (with_claims(exp=[NOW + 60]), "exp_type"),
    "exp NaN": (lambda name: forge(name, json.dumps(valid_claims(exp=float("nan"))).encode()), "number"),
    "not yet valid": (with_claims(nbf=NOW + 11), "nbf_in_the_future"),
    "nbf a text": (with_claims(nbf="0"), "nbf_type"),
    "nbf null": (with_claims(nbf=None), "nbf_type"),
    "nbf false": (with_claims(nbf=False), "nbf_type"),
    "issued in the future": (with_claims(iat=NOW + 11), "iat_in_the_future"),
    "iat a text": (with_claims(iat="0"), "iat_type"),
    "iat true": (with_claims(iat=True), "iat_type"),
    "another issuer": (with_claims(iss="https://evil.example"), "issuer"),
    "an issuer with a slash": (with_claims(iss=f"{ISSUER}/"), "issuer"),
    "a part of the issuer": (with_claims(iss=ISSUER[:-1]), "issuer"),
    "no issuer": (with_claims(iss=...), "issuer"),
    "a list of issuers": (with_claims(iss=[ISSUER]), "issuer"),
    "another audience": (with_claims(aud="https://other.example"), "audience"),
    "no audience": (with_claims(aud=...), "audience_missing"),
    "an empty list of audiences": (with_claims(aud=[]), "audience"),
    "audience null": (with_claims(aud=None), "audience_type"),
    "an audience that is a number": (with_claims(aud=1), "audience_type"),
    "sub empty": (with_claims(sub=""), "sub"),
    "sub a number": (with_claims(sub=1), "sub"),
    "sub null": (with_claims(sub=None), "sub"),
    "jti a number": (with_claims(jti=1), "jti"),
    "a logout token": (
        with_claims(events={"http://schemas.openid.net/event/backchannel-logout": {}}),
        "logout_token",
    ),
    "a DPoP proof": (with_claims(htm="GET", htu="https://api.example/items"), "dpop_proof"),
    "an ID token": (with_claims(at_hash="x", nonce="y"), "id_token"),
    "bound to a key": (with_claims(cnf={"jkt": "x"}), "bound_token"),
}


@pytest.mark.parametrize("case", REFUSALS)
async def test_refusals(case: str) -> None:
    """Each of these is 401 with one text, one code and one challenge, under every algorithm (A, B, C)."""
    for name in ALGORITHMS:
        build, reason = REFUSALS[case]
        if reason == "bad_signature_or_algorithm":
            reason = "bad_signature" if name == "HS256" else "algorithm"
        token = build(name)
        for guarded in both(name):
            assert (await guarded.get(forge(name))).status == 200
            answer = await guarded.get(token)
            assert (name, answer.status, answer.json) == (name, 401, {"detail": INVALID})
            assert answer.challenges == [challenge(INVALID)]
            assert (name, guarded.reasons) == (name, [None, reason])


@pytest.mark.parametrize("claims", [{"exp": NOW - 10}, {"exp": NOW - 10, "scope": ""}, {"exp": 0}, {"exp": -1e300}])
@pytest.mark.parametrize("name", ALGORITHMS)
async def test_expired(name: str, claims: dict[str, Any]) -> None:
    """An expired token has its own text, whether its scope would do or not."""
    for guarded in both(name):
        assert (await guarded.get(forge(name, valid_claims(exp=NOW - 9)))).status == 200
        answer = await guarded.get(forge(name, valid_claims(**claims)))
        assert (answer.status, answer.json) == (401, {"detail": EXPIRED})
        assert answer.challenges == [challenge(EXPIRED)]
        assert guarded.reasons == [None, "expired"]


@pytest.mark.parametrize("name", ALGORITHMS)
@pytest.mark.parametrize("scope", ["", "items:reader", "ITEMS:READ", ..., ["items"], 5, None, {"items:read": 1}])
async def test_missing_scope(name: str, scope: object) -> None:
    """A good token without the scope is 403 with the scope in the challenge, and nothing of what is granted."""
    for guarded in both(name):
        assert (await guarded.get(forge(name))).status == 200
        answer = await guarded.get(forge(name, valid_claims(scope=scope)))
        assert (answer.status, answer.json) == (403, {"detail": "Token is missing required scope: items:read"})
        assert answer.challenges == ['Bearer realm="api", error="insufficient_scope", scope="items:read"']
        assert guarded.reasons == [None, None, "missing_scope"]


@pytest.mark.parametrize("name", ALGORITHMS)
async def test_a_bad_token_without_the_scope(name: str) -> None:
    """A bad token is 401 also where the scope is missing."""
    token = forge(name, valid_claims(scope=""), key=FOREIGN_KEYS[name])
    answer = await GUARDED[name].get(token)
    assert (answer.status, answer.challenges) == (401, [challenge(INVALID)])


@pytest.mark.parametrize("name", ALGORITHMS)
async def test_missing_and_malformed_credentials(name: str) -> None:
    """No credential has no error code; one that cannot be a token, or two of them, have theirs."""
    good = forge(name)
    absent = (401, {"detail": "Not authenticated"}, ['Bearer realm="api"'])
    bad = (401, {"detail": INVALID}, [challenge(INVALID)])
    two = (401, {"detail": "More than one credential"}, [challenge("More than one credential", "invalid_request")])
    field = (b"authorization", b"Bearer " + good.encode())
    for token, more, expected in (
        (None, [], absent),
        ("", [], absent),
        ("   ", [], absent),
        (None, [(b"authorization", b"Basic " + good.encode())], absent),
        (None, [(b"authorization", good.encode())], absent),
        ("\xe9" + good, [], bad),
        (good + "\xff", [], bad),
        (good + "\x00", [], bad),
        (good + "\x0b", [], bad),
        (good + "\xa0", [], bad),
        ('"' + good + '"', [], bad),
        (good + " " + good, [], two),
        (good + "," + good, [], two),
        (good[:20] + " " + good[20:], [], two),
        (good, [field], two),
        (None, [field, (b"authorization", b"Basic YTpi")], two),
    ):
        for guarded in both(name):
            answer = await guarded.get(token, *more)
            assert (answer.status, answer.json, answer.challenges) == expected, (token, more)
            assert (await guarded.get(good)).json == valid_claims()


@pytest.mark.parametrize("name", ALGORITHMS)
async def test_text_that_is_not_ascii(name: str) -> None:
    """A token from another place than a header is refused for text outside of ASCII too (B.7)."""
    auth = auth_of(name)
    assert await auth.verify(forge(name)) == valid_claims()
    for token in (
        "é" + forge(name),
        forge(name) + "\ud800",
        forge(name).replace(".", "\u2024"),
        "\x00",
        " " + forge(name),
    ):
        assert await refused(auth, token) in {"not_three_parts", "not_ascii", "base64url"}


@pytest.mark.parametrize("name", ALGORITHMS)
async def test_accepted(name: str) -> None:
    """Unusual and allowed tokens are accepted: the positive controls of the strict rules."""
    auth = auth_of(name)
    for token, claims in (
        (forge(name), valid_claims()),
        (forge(name, header={"typ": "at+jwt", "cty": "JWT", "x": [1, {"y": None}]}), valid_claims()),
        (forge(name, header={"kid": KEYS[name].thumbprint()}), valid_claims()),
        (forge(name, header={"kid": "a name that the issuer has given it"}), valid_claims()),
        (forge(name, header={"x5c": ["M" * 8000]}), valid_claims()),
        (
            forge(name, valid_claims(aud=["x", AUDIENCE], exp=NOW + 0.5, nbf=NOW)),
            valid_claims(aud=["x", AUDIENCE], exp=NOW + 0.5, nbf=NOW),
        ),
        (
            forge(name, json.dumps(valid_claims(name="é😀"), ensure_ascii=False, indent=2).encode()),
            valid_claims(name="é😀"),
        ),
        (forge(name, valid_claims(x=[[[]]] * 50)), valid_claims(x=[[[]]] * 50)),
    ):
        assert await auth.verify(token) == claims
        assert await auth.validate_token(token) is True


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Mock:
    """Return what is called to look a name up or to connect, which fails."""
    called = Mock(side_effect=OSError)
    monkeypatch.setattr(socket, "getaddrinfo", called)
    monkeypatch.setattr(socket.socket, "connect", called)
    return called


@pytest.mark.parametrize("name", ALGORITHMS)
async def test_a_token_chooses_no_key(name: str, network: Mock) -> None:
    """Keys and URLs in a token are not used and not asked for; beside a good signature they are ignored (A.4)."""
    foreign = FOREIGN_KEYS[name]
    jwk = foreign.as_dict(private=foreign.key_type == "oct")
    auth = auth_of(name)
    for members in (
        {"jwk": jwk},
        {"jwk": jwk, "kid": foreign.thumbprint()},
        {"jku": "https://evil.example/jwks.json"},
        {"x5u": "https://evil.example/cert.pem"},
        {"x5c": ["MIIB"], "x5t": "x", "x5t#S256": "y"},
        {"jwk": 5, "jku": [], "x5u": {}, "x5c": None},
        {"kid": "https://evil.example/key"},
        {"kid": "../../../../dev/null"},
        {"kid": "' OR 1=1 --"},
    ):
        assert await refused(auth, forge(name, header=members, key=foreign)) == "bad_signature"
        assert await auth.verify(forge(name, header=members)) == valid_claims()
    claims = valid_claims(iss="https://evil.example", jku="https://evil.example/jwks.json")
    assert await refused(auth, forge(name, claims, key=foreign)) == "bad_signature"
    network.assert_not_called()


@pytest.mark.parametrize("name", [name for name in ALGORITHMS if KEYS[name].key_type in ("RSA", "OKP")])
async def test_one_key_one_algorithm(name: str) -> None:
    """A signature by another algorithm of the same key type is refused where that is not configured (A.1)."""
    auth = auth_of(name)
    for other in ALGORITHMS:
        if other != name and KEYS[other].key_type == KEYS[name].key_type:
            assert await refused(auth, forge(other, key=KEYS[name])) == "algorithm"
            assert await auth_of(other, key=KEYS[name]).verify(forge(other, key=KEYS[name])) == valid_claims()


async def test_a_label_of_another_algorithm() -> None:
    """A token that names one allowed algorithm and is signed by another one is refused (A.1)."""
    auth = auth_of("RS256", algorithms=["RS256", "PS256"])
    assert await auth.verify(forge("PS256")) == valid_claims()
    assert await refused(auth, forge("PS256", header={"alg": "RS256"})) == "bad_signature"
    assert await refused(auth, forge("RS256", header={"alg": "PS256"})) == "bad_signature"


# --- against joserfc -------------------------------------------------------------------------------------------------

# joserfc with its own bounds lifted: a short header, and its list of members.
LAX = {name: JWSRegistry(algorithms=[name], strict_check_header=False) for name in ALGORITHMS}
for registry in LAX.values():
    registry.max_header_length = registry.max_payload_length = registry.max_signature_length = 100_000

DIFFERENTIAL = ("HS256", "RS256", "PS256", "ES256", "ES512", "Ed25519")
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
CLAIMS = st.dictionaries(
    st.sampled_from(["exp", "nbf", "iat", "sub", "jti", "iss", "aud", "scope", "cnf"]) | st.text(),
    VALUES | st.sampled_from([NOW, NOW - 60, NOW + 60, "ada", ISSUER, AUDIENCE, [AUDIENCE]]),
    max_size=5,
)
# joserfc checks the types of members that nothing here looks at, so these are of the right one.
MEMBERS = {name: VALUES | st.sampled_from(["JWT", "at+jwt", *ALGORITHMS, "none"]) for name in ("typ", "kid", "alg")}
MEMBERS |= {"crit": VALUES, "b64": VALUES, "cty": st.text(), "x5c": st.lists(st.text()), "unheard": VALUES}
HEADERS = st.fixed_dictionaries({}, optional=MEMBERS)


async def agreed(name: str, token: str) -> dict[str, Any] | None:
    """Return what we accept, having made sure that joserfc accepts just that; ``None`` for a refusal."""
    try:
        claims = await auth_of(name).verify(token)
    except Unauthorized:
        return None
    theirs = jwt.decode(token, KEYS[name], algorithms=[name], registry=LAX[name])
    JWTClaimsRegistry(
        now=NOW,
        leeway=11,  # joserfc's is exclusive where ours is inclusive
        exp={"essential": True},
        iss={"essential": True, "value": ISSUER},
        aud={"essential": True, "value": AUDIENCE},
    ).validate(theirs.claims)
    assert theirs.claims == claims
    return claims


@pytest.mark.parametrize("name", DIFFERENTIAL)
@at_most(60)
@given(changes=CLAIMS, members=HEADERS)
async def test_whatever_we_accept_joserfc_accepts(name: str, changes: dict[str, Any], members: dict[str, Any]) -> None:
    """A token of any claims and header members is refused, or accepted by joserfc with the same claims."""
    token = forge(name, json.dumps(valid_claims() | changes).encode(), json.dumps({"alg": name} | members).encode())
    await agreed(name, token)


@pytest.mark.parametrize("name", DIFFERENTIAL)
async def test_the_differential_test_accepts_something(name: str) -> None:
    """A good token passes both, so that the comparison above is one."""
    assert await agreed(name, forge(name, header={"typ": "JWT", "kid": "x", "unheard": 1})) == valid_claims()


@pytest.mark.parametrize("name", DIFFERENTIAL)
@at_most(60)
@given(data=st.data())
async def test_a_mutated_token_is_refused(name: str, data: st.DataObject) -> None:
    """A token with any character changed, added or taken away is refused."""
    token = forge(name)
    at = data.draw(st.integers(0, len(token) - 1))
    text = data.draw(st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.+/= \n", max_size=3))
    taken = data.draw(st.integers(0, 3))
    mutated = token[:at] + text + token[at + taken :]
    expected = valid_claims() if mutated == token else None
    assert await agreed(name, mutated) == expected


@pytest.mark.parametrize("name", DIFFERENTIAL)
@at_most(60)
@given(token=st.text() | st.lists(st.binary().map(base64url), min_size=1, max_size=6).map(".".join))
async def test_any_text_is_refused(name: str, token: str) -> None:
    """No text that was not signed is accepted, and none raises anything but Unauthorized (B.7)."""
    assert await auth_of(name).validate_token(token) is False
    with pytest.raises(Unauthorized):
        await auth_of(name, cache_size=1).verify(token)


@at_most(200, HealthCheck.function_scoped_fixture)
@given(raw=st.binary())
async def test_any_header_field_is_an_answer(raw: bytes) -> None:
    """No byte sequence in the header is a 500, or accepted by accident (B.7)."""
    guarded = GUARDED["HS256"]
    for value in (raw, b"Bearer " + raw, b"Bearer " + urlsafe_b64encode(raw).rstrip(b"=") + b"..", raw + b".a.b"):
        answer = await guarded.get(None, (b"authorization", value))
        assert answer.status == 401
        assert answer.challenges[0].startswith('Bearer realm="api"')


@pytest.mark.parametrize("name", DIFFERENTIAL)
@at_most(60)
@given(payload=st.binary() | VALUES.map(lambda value: json.dumps(value).encode()))
async def test_signed_nonsense_is_refused(name: str, payload: bytes) -> None:
    """A signature over bytes that are not claims is refused, be it by our own key (B.7)."""
    assert await refused(auth_of(name), forge(name, payload)) in {
        "duplicate_member",
        "exp_missing",
        "exp_type",
        "json",
        "nesting",
        "not_an_object",
        "number",
    }


# --- the choke point -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [TypeError, RecursionError, OverflowError, UnicodeError, ValueError, KeyError, MemoryError, AssertionError]
)
async def test_whatever_decoding_raises_is_one_refusal(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Any exception of decoding is the one refusal, logged by its kind and without its text."""
    auth, token = auth_of("ES256"), forge("ES256")
    assert await auth.verify(token) == valid_claims()

    def fail(raw: bytes) -> None:
        raise error(raw)

    monkeypatch.setattr(module, "decode_object", fail)
    assert await refused(auth, token) == "undecodable"
    assert caplog.messages == [f"a token was refused after {error.__name__}"]


async def test_a_failing_claims_registry_is_a_refusal() -> None:
    """A check of joserfc's that fails is a refusal by its code, one that breaks is a refusal as well (B.7)."""

    class Own(JWTClaimsRegistry):
        """Checks of the application's own."""

        def validate_nickname(self, value: str) -> None:
            """Break on anything but text."""
            if value.startswith("y"):
                raise CodelessError

    class CodelessError(JoseError):
        """An error without a code."""

        error = ""

    auth = auth_of("ES256", claims_registry=Own(scope={"essential": True, "values": ["items:read"]}))
    assert await auth.verify(forge("ES256", valid_claims(nickname="ada"))) == valid_claims(nickname="ada")
    assert await refused(auth, forge("ES256", valid_claims(nickname=5))) == "undecodable"
    assert await refused(auth, forge("ES256", valid_claims(nickname="y"))) == "jose"
    assert await refused(auth, forge("ES256", valid_claims(scope=...))) == "missing_claim"
    assert await refused(auth, forge("ES256", valid_claims(scope="other"))) == "invalid_claim"


async def test_nothing_of_a_token_reaches_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """Neither the token nor what it claims is in any record, at any level, whether accepted or refused."""
    guarded = GUARDED["HS256"]
    marker = "s3cr3t-marker"
    with caplog.at_level(logging.DEBUG):
        for token in (
            forge("HS256", valid_claims(sub=marker)),
            forge("HS256", valid_claims(sub=marker, exp=0)),
            forge("HS256", valid_claims(sub=marker), {"kid": [marker]}),
            marker,
        ):
            await guarded.get(token)
            await guarded.get(None, (b"authorization", token.encode() + b"\r\n\x1b[31m"))
    assert caplog.messages
    for record in caplog.messages:
        assert marker not in record
        assert base64url(marker.encode())[:12] not in record
        assert re.fullmatch(r"[ -~]+", record)


# --- the Auth --------------------------------------------------------------------------------------------------------


def test_what_an_auth_is_made_of() -> None:
    """A configuration alone makes an Auth with the Bearer header and hierarchical scopes; options are passed on."""
    auth = JWTAuth(config_of("ES256"), None)
    assert (auth.name, auth.scheme.plain_challenge) == ("jwt", 'Bearer realm="api"')
    assert isinstance(auth.scope_validator, HierarchicalScopeValidator)
    own = JWTAuth(config_of("ES256"), None, SimpleScopeValidator(), name="own", scope_claims=["permissions"])
    assert (own.name, own.covers({"permissions": "a:*"}, "a:*")) == ("own", True)
    assert not own.covers({"permissions": "a:*"}, "a:read")
    assert not own.covers({"scope": "a:read"}, "a:read")


async def test_a_bare_star_in_a_token_is_no_everything() -> None:
    """A bare star in a token is a scope like any other."""
    answer = await GUARDED["ES256"].get(forge("ES256", valid_claims(scope="*")))
    assert (answer.status, answer.json["detail"]) == (403, "Token is missing required scope: items:read")


@pytest.mark.parametrize("config", [None, KEY, {"key": KEY}, "secret"])
def test_what_is_no_configuration(config: Any) -> None:
    """The configuration is a JWTConfig and nothing like it."""
    with pytest.raises(ConfigurationError, match=r"^JWTAuth takes a JWTConfig"):
        JWTAuth(config)


async def test_the_clock_is_that_of_the_machine_by_default() -> None:
    """Without a clock of its own an Auth looks at the machine's, at each verification."""
    with time_machine.travel(NOW, tick=False) as moment:
        auth = JWTAuth(config_of("HS256"))
        token = auth.encode({})
        assert (await auth.verify(token))["iat"] == NOW
        moment.shift(3610)
        with pytest.raises(Unauthorized, match=EXPIRED):
            await auth.verify(token)


# --- keys that change ------------------------------------------------------------------------------------------------

OLD, NEW = ECKey.generate_key("P-256"), ECKey.generate_key("P-256")


def key_of(token: str) -> str:
    """Return the kid in the header of a token."""
    kid: str = decode_unverified(token)[0]["kid"]
    return kid


async def test_rotation() -> None:
    """The first key signs, all verify, and a retired one verifies until it is removed."""
    older, newer = (ECKey.generate_key("P-256", {"kid": kid}) for kid in ("older", "newer"))
    auth = auth_of("ES256", key=older)
    old = auth.encode({})
    assert key_of(old) == "older"
    auth.replace_keys([newer, older])
    new = auth.encode({})
    assert key_of(new) == "newer"
    assert await auth.validate_token(old)
    assert await auth.validate_token(new)
    auth.replace_keys(KeySet([newer]))
    assert await refused(auth, old) == "unknown_key"
    assert await auth.validate_token(new)
    assert [key["kid"] for key in auth.config.jwks["keys"]] == ["newer"]


async def test_replacing_keys_while_serving() -> None:
    """An application follows from one request to the next."""
    guarded = Guarded(lambda **options: auth_of("ES256", key=OLD, options=options))
    statuses = []
    for keys in (OLD, [NEW, OLD], NEW):
        guarded.auth.replace_keys(keys)
        statuses.append([(await guarded.get(forge("ES256", key=key))).status for key in (OLD, NEW)])
    assert statuses == [[200, 401], [200, 200], [401, 200]]


def test_replacing_keys_keeps_every_other_setting() -> None:
    """Only the keys are replaced."""
    auth = auth_of("ES256", leeway_seconds=3, header={"x": 1}, cache_size=2, token_types=["at+jwt"])
    before = auth.config
    auth.replace_keys(NEW)
    assert auth.config != before
    for name in ("algorithms", "issuer_url", "audience", "leeway_seconds", "header", "cache_size", "token_types"):
        assert getattr(auth.config, name) == getattr(before, name)


async def test_keys_that_cannot_sign_replace_none_that_can() -> None:
    """An issuer cannot lose its signing key by mistake; who only verifies may go from public key to public key."""
    auth = auth_of("ES256")
    public = JWKRegistry.import_key(PUBLIC)
    with pytest.raises(ConfigurationError, match="put a private key first"):
        auth.replace_keys([public, NEW])
    assert key_of(auth.encode({})) == KEY.thumbprint()
    verifier = auth_of("ES256", key=JWKRegistry.import_key(NEW.as_dict(private=False)))
    verifier.replace_keys(public)
    assert await verifier.verify(forge("ES256")) == valid_claims()


@pytest.mark.parametrize(
    "key", [[], "x", KEYS["HS256"], KEYS["ES384"], ECKey.import_key({**NEW.as_dict(private=True), "key_ops": ["sign"]})]
)
async def test_keys_that_do_not_fit_replace_nothing(key: Any) -> None:
    """Keys that the configuration would refuse are refused, and the old ones stay (A.2)."""
    auth = auth_of("ES256")
    with pytest.raises(ConfigurationError):
        auth.replace_keys(key)
    assert await auth.verify(auth.encode({}))


@pytest.mark.parametrize("name", ["HS256", "RS256", "ES256", "Ed25519"])
async def test_keys_without_a_name(name: str) -> None:
    """Tokens of two nameless keys of one type are distinguished by their signatures, with a kid or without."""
    auth = auth_of(name, key=[KEYS[name], FOREIGN_KEYS[name]])
    for key in (KEYS[name], FOREIGN_KEYS[name]):
        for members in ({}, {"kid": key.thumbprint()}, {"kid": "from elsewhere"}):
            assert await auth.verify(forge(name, header=members, key=key)) == valid_claims()
    other = KEYS[name].thumbprint()
    assert await refused(auth, forge(name, header={"kid": other}, key=FOREIGN_KEYS[name])) == "bad_signature"


async def test_a_name_binds() -> None:
    """Between named keys a kid decides, and an unknown one is refused without a signature check (A.4)."""
    one = ECKey.generate_key("P-256", {"kid": "one"})
    two = ECKey.generate_key("P-256", {"kid": "two"})
    auth = auth_of("ES256", key=[one, two])
    assert await auth.verify(forge("ES256", header={"kid": "one"}, key=one)) == valid_claims()
    assert await auth.verify(forge("ES256", key=two)) == valid_claims()
    assert await refused(auth, forge("ES256", header={"kid": "two"}, key=one)) == "bad_signature"
    assert await refused(auth, forge("ES256", header={"kid": "three"}, key=one)) == "unknown_key"


async def test_a_remembered_header_vouches_for_no_other_token() -> None:
    """The key of a header is remembered after a good signature, and the signature of the next token still counts."""
    auth = auth_of("ES256")
    for _ in range(2):
        assert await auth.verify(forge("ES256")) == valid_claims()
        assert await refused(auth, forge("ES256", key=FOREIGN_KEYS["ES256"])) == "bad_signature"
        assert await refused(auth, forge("ES256", header={"typ": "dpop+jwt"})) == "token_type"


# --- keys from elsewhere ---------------------------------------------------------------------------------------------


class Source:
    """A source of keys as an application might write it."""

    def __init__(
        self, ready: VerificationKeys | None = None, later: VerificationKeys | Exception | None = None
    ) -> None:
        """Have ``ready`` at once, and ``later`` when it is asked to load."""
        self.ready = ready
        self.later = later
        self.headers: list[Header | None] = []

    def peek(self) -> VerificationKeys | None:
        """Return what is there."""
        return self.ready

    async def load(self, header: Header | None = None) -> VerificationKeys:
        """Return what comes later."""
        self.headers.append(header)
        if isinstance(self.later, VerificationKeys):
            return self.later
        raise self.later or ServiceUnavailable(reason="away")


def verification(*keys: Key) -> VerificationKeys:
    """Return named keys that verify."""
    return VerificationKeys(
        [JWKRegistry.import_key({**key.as_dict(private=True), "kid": key.thumbprint()}) for key in keys], ["ES256"]
    )


def named(key: Key) -> str:
    """Return a good token that names its key."""
    return forge("ES256", header={"kid": key.thumbprint()}, key=key)


async def test_a_source_with_keys() -> None:
    """A source that has the key loads nothing, unless a signature is bad: the key may be a new one."""
    source = Source(verification(OLD), verification(OLD))
    auth = auth_of("ES256", key=source)
    assert await auth.verify(named(OLD)) == valid_claims()
    assert await refused(auth, forge("ES256", header={"kid": OLD.thumbprint()}, key=NEW)) == "bad_signature"
    assert source.headers == [Header("ES256", OLD.thumbprint(), None)]
    assert await refused(auth, forge("HS256")) == "algorithm"
    assert len(source.headers) == 1


async def test_a_source_that_fails_to_peek(caplog: pytest.LogCaptureFixture) -> None:
    """A source whose peek() raises leaves it open whether a token is valid: a 503, logged without the text."""

    class Failing(Source):
        def peek(self) -> VerificationKeys | None:
            raise OSError("a secret")

    with pytest.raises(ServiceUnavailable) as unavailable:
        await auth_of("ES256", key=Failing()).verify(named(OLD))
    assert unavailable.value.reason == "keys_unreachable"
    assert caplog.messages == ["the source of keys failed with OSError"]


@pytest.mark.parametrize("keys", [[OLD], {"keys": []}, OLD, None])
async def test_a_source_that_returns_something_else(keys: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A source that returns no VerificationKeys leaves it open whether a token is valid: a 503, logged."""

    class Loaded(Source):
        def peek(self) -> VerificationKeys | None:
            return None

        async def load(self, header: Header | None = None) -> VerificationKeys:
            return cast("VerificationKeys", keys)

    class Peeked(Loaded):
        def peek(self) -> VerificationKeys | None:
            return cast("VerificationKeys", keys)

    for source in (Loaded(), Peeked()):
        with pytest.raises(ServiceUnavailable) as unavailable:
            await auth_of("ES256", key=source).verify(named(OLD))
        assert unavailable.value.reason == "keys_unreachable"
    assert set(caplog.messages) == {f"the source of keys returned {type(keys).__name__}, not VerificationKeys"}


async def test_a_source_is_asked_for_an_unknown_key() -> None:
    """A source without keys loads them, and one without this key is asked for it, by the checked header."""
    source = Source(None, verification(OLD))
    auth = auth_of("ES256", key=source)
    assert await auth.verify(named(OLD)) == valid_claims()
    assert source.headers == [None]
    source = Source(verification(OLD), verification(OLD, NEW))
    auth = auth_of("ES256", key=source)
    assert await auth.verify(named(NEW)) == valid_claims()
    assert source.headers == [Header("ES256", NEW.thumbprint(), None)]
    source.later = source.ready
    assert await refused(auth, named(NEW)) == "unknown_key"


@pytest.mark.parametrize(
    "failure", [None, OSError(), KeyError("kid"), ServiceUnavailable(reason="away", retry_after=9)]
)
@pytest.mark.parametrize("ready", [None, verification(OLD)], ids=["no key", "another key"])
async def test_a_source_that_fails(failure: Exception | None, ready: VerificationKeys | None) -> None:
    """Keys that cannot be had are a 503 with Retry-After, never a 401 and never a 500."""
    guarded = Guarded(lambda **options: auth_of("ES256", key=Source(ready, failure), options=options))
    answer = await guarded.get(named(NEW))
    assert (answer.status, answer.json) == (503, {"detail": "Service temporarily unavailable"})
    assert answer.all("retry-after") == ["9" if isinstance(failure, ServiceUnavailable) else "5"]
    assert answer.challenges == []
    with pytest.raises(ServiceUnavailable):
        await guarded.auth.validate_token(named(NEW))


async def test_a_cache_before_there_are_keys() -> None:
    """An Auth with a cache loads the first keys from its source as any other does."""
    source = Source(None, verification(OLD))
    guarded = Guarded(lambda **options: auth_of("ES256", key=source, cache_size=2, options=options))
    assert (await guarded.get(named(OLD))).status == 200
    assert source.headers == [None]


async def test_a_token_without_a_header_loads_nothing() -> None:
    """A malformed token never makes a source load."""
    source = Source(verification(OLD))
    auth = auth_of("ES256", key=source)
    for token in (
        "",
        "a.b.c",
        forge("ES256", header={"kid": 5}, key=NEW),
        forge("ES256", header={"crit": []}, key=NEW),
    ):
        assert await refused(auth, token)
    assert source.headers == []


JWKS_URL = f"{ISSUER}/.well-known/jwks.json"


class Issuer:
    """The HTTP side of an issuer."""

    def __init__(self, *answers: object) -> None:
        """Answer one request after the other."""
        self.answers = list(answers)
        self.urls: list[str] = []
        self.client = httpx2.AsyncClient(transport=httpx2.MockTransport(self._answer))

    def _answer(self, request: httpx2.Request) -> httpx2.Response:
        self.urls.append(str(request.url))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, httpx2.Response) else httpx2.Response(200, json=answer)


async def test_keys_of_an_issuer() -> None:
    """Until the keys of the issuer are loaded a request is 503; from then on tokens are verified."""
    guarded = Guarded(lambda **options: auth_of("ES256", key=None, options=options))
    answer = await guarded.get(forge("ES256"))
    assert (answer.status, answer.json) == (503, {"detail": "Service temporarily unavailable"})
    assert (answer.all("retry-after"), answer.challenges, guarded.reasons) == (["5"], [], ["keys_not_loaded"])
    assert (await guarded.get(None)).status == 401
    issuer = Issuer({"keys": [PUBLIC, {"kty": "oct", "k": base64url(bytes(64))}, {"broken": 1}]})
    await guarded.auth.fetch_jwks("/.well-known/jwks.json", client=issuer.client)
    assert issuer.urls == [JWKS_URL]
    assert (await guarded.get(forge("ES256"))).status == 200
    assert (await guarded.get(forge("ES256", key=NEW))).status == 401


@pytest.mark.parametrize(
    ("issuer_url", "path", "url"),
    [
        (ISSUER, "/jwks", f"{ISSUER}/jwks"),
        (f"{ISSUER}/realm/", "/jwks", f"{ISSUER}/realm/jwks"),
        (ISSUER, "https://keys.example/jwks", "https://keys.example/jwks"),
        (None, "https://keys.example/jwks", "https://keys.example/jwks"),
        ("http://127.0.0.1:9", "/jwks", "http://127.0.0.1:9/jwks"),
        (ISSUER, "//evil.example/jwks", f"{ISSUER}//evil.example/jwks"),
        (ISSUER, "/@evil.example/jwks", f"{ISSUER}/@evil.example/jwks"),
    ],
)
async def test_where_keys_are_fetched(issuer_url: str | None, path: str, url: str) -> None:
    """A path is below the issuer and stays there; a whole URL is used as it is."""
    issuer = Issuer({"keys": [PUBLIC]})
    auth = JWTAuth(JWTConfig(algorithms=["ES256"], issuer_url=issuer_url))
    await auth.fetch_jwks(path, client=issuer.client)
    assert issuer.urls == [url]


@pytest.mark.parametrize(
    ("settings", "url", "message"),
    [
        ({"key": KEY}, JWKS_URL, r"fetch_jwks\(\) is for a configuration without key"),
        ({"key": Source()}, JWKS_URL, r"fetch_jwks\(\) is for a configuration without key"),
        ({}, "/jwks", "is below issuer_url, which the configuration does not have"),
        ({"issuer_url": "http://id.example"}, "/jwks", "is not an https URL"),
        ({"issuer_url": "my issuer"}, "/jwks", "is not an https URL"),
        ({"issuer_url": "https://id.exam"}, "jwks", "is not an https URL"),
    ],
)
async def test_where_keys_are_not_fetched(settings: dict[str, Any], url: str, message: str) -> None:
    """A configuration with keys, a path below nothing, and a URL that anyone can answer for are refused."""
    issuer = Issuer()
    with pytest.raises(ConfigurationError, match=message):
        await JWTAuth(JWTConfig(**{"algorithms": ["ES256"]} | settings)).fetch_jwks(url, client=issuer.client)
    assert issuer.urls == []


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (httpx2.ConnectError("refused"), "keys_unreachable"),
        (httpx2.Response(500), "keys_unreachable"),
        (httpx2.Response(200, text="<html>"), "keys_unreachable"),
        ({"keys": []}, "no_usable_keys"),
        ({"keys": [KEYS["HS256"].as_dict(private=True)]}, "no_usable_keys"),
        ({"keys": [{**PUBLIC, "key_ops": ["sign"]}]}, "no_usable_keys"),
        ({"keys": [KEYS["ES384"].as_dict(private=False)]}, "no_usable_keys"),
        ([], "no_usable_keys"),
        ("keys", "no_usable_keys"),
    ],
)
async def test_a_failed_fetch_changes_nothing(answer: object, reason: str) -> None:
    """Keys that cannot be fetched or used are a 503, and those that were loaded stay."""
    auth = auth_of("ES256", key=None)
    issuer = Issuer(answer, {"keys": [PUBLIC]}, answer)
    for loaded in (False, True):
        with pytest.raises(ServiceUnavailable) as refusal:
            await auth.fetch_jwks(JWKS_URL, client=issuer.client)
        assert (refusal.value.status_code, refusal.value.reason) == (503, reason)
        if loaded:
            assert await auth.verify(forge("ES256")) == valid_claims()
        else:
            await auth.fetch_jwks(JWKS_URL, client=issuer.client)


# --- the verified-token cache ----------------------------------------------------------------------------------------


class Looking(VerificationKeys):
    """Keys that count how often they verify."""

    looked = 0

    def verify(self, signing_input: bytes, header_segment: bytes, signature: bytes) -> Header:
        """Count, and verify."""
        self.looked += 1
        return super().verify(signing_input, header_segment, signature)


def caching(size: int = 2, **options: Any) -> tuple[JWTAuth, Looking]:
    """Return an Auth that remembers tokens, and its keys."""
    auth = auth_of("ES256", cache_size=size, options=options)
    keys = Looking([KEY], ["ES256"])
    auth._verifier.use(keys)
    return auth, keys


async def test_a_token_in_the_cache_is_not_verified_again() -> None:
    """A second look at a token is one at the cache, with the same claims; nothing is cached unless asked for."""
    for size, looked in ((2, 1), (0, 2)):
        auth, keys = caching(size)
        token = forge("ES256")
        assert await auth.verify(token) == valid_claims() == await auth.verify(token)
        assert keys.looked == looked


@pytest.mark.parametrize(
    ("claims", "now", "reason"),
    [
        ({}, NOW + 70, "expired"),
        ({"nbf": NOW}, NOW - 10.5, "nbf_in_the_future"),
        ({}, NOW - 10.5, "iat_in_the_future"),
    ],
)
async def test_times_are_asked_on_a_hit(claims: dict[str, Any], now: float, reason: str) -> None:
    """exp, nbf and iat hold for a token in the cache to the second; beyond them it is verified like any."""
    moving = Clock(NOW)
    auth, keys = caching(clock=moving)
    token = forge("ES256", valid_claims(**claims))
    assert await auth.verify(token)
    moving.now = NOW + 69.5
    assert await auth.verify(token)
    moving.now = now
    with pytest.raises(Unauthorized) as refusal:
        await auth.verify(token)
    detail = EXPIRED if reason == "expired" else INVALID
    assert (refusal.value.detail, refusal.value.error, refusal.value.reason) == (detail, "invalid_token", reason)
    assert keys.looked == 2


async def test_a_claims_registry_is_asked_on_a_hit() -> None:
    """Checks of a registry may look at a clock too, so they hold for a token in the cache."""
    moment = [NOW]

    class Fresh(JWTClaimsRegistry):
        """Tokens that were issued a moment ago."""

        def validate_iat(self, value: Any) -> None:
            """Refuse an old one."""
            if value < moment[0] - 60:
                raise InvalidClaimError("iat")

    auth = auth_of("ES256", cache_size=2, claims_registry=Fresh())
    token = forge("ES256")
    assert await auth.verify(token) == valid_claims() == await auth.verify(token)
    moment[0] = NOW + 80
    assert await refused(auth, token) == "invalid_claim"


async def test_revocation_is_asked_on_a_hit() -> None:
    """A token that is revoked is refused although it is in the cache."""
    revoked: list[str] = []

    class Revocations:
        async def is_revoked(self, claims: Mapping[str, Any]) -> bool:
            return claims["sub"] in revoked

    auth, keys = caching(revocations=Revocations())
    token = forge("ES256")
    assert await auth.verify(token) == await auth.verify(token)
    revoked.append("ada")
    assert await refused(auth, token) == "revoked"
    assert keys.looked == 1


async def test_the_cache_is_emptied_when_keys_change() -> None:
    """A token of a key that was removed is refused although it was in the cache, and comes back only with its key."""
    auth = auth_of("ES256", cache_size=2, key=OLD)
    token = forge("ES256", key=OLD)
    assert await auth.verify(token) == valid_claims()
    auth.replace_keys(NEW)
    assert await refused(auth, token) == "bad_signature"
    auth.replace_keys(OLD)
    assert await auth.verify(token) == valid_claims()


async def test_the_cache_is_emptied_when_a_source_changes_its_keys() -> None:
    """That holds for a source's keys as well, and for a token that was let in by keys loaded for it."""
    source = Source(verification(OLD), verification(OLD, NEW))
    auth = auth_of("ES256", cache_size=2, key=source)
    for _ in range(2):
        assert await auth.verify(named(NEW)) == await auth.verify(named(OLD)) == valid_claims()
    source.later = source.ready
    assert await auth.verify(named(OLD)) == valid_claims()
    assert await refused(auth, named(NEW)) == "unknown_key"


async def test_a_change_of_keys_while_a_token_waits_for_its_own() -> None:
    """A token that old keys let in while the keys changed is not in the cache of the new ones."""
    source = Source(verification(OLD))
    auth = auth_of("ES256", cache_size=2, key=source)

    class Changing(Source):
        async def load(self, header: Header | None = None) -> VerificationKeys:
            late, self.ready = verification(OLD, NEW), verification(OLD)
            assert await auth.verify(named(OLD)) == valid_claims()
            return late

    changing = Changing(verification(KEY))
    auth = auth_of("ES256", cache_size=2, key=changing)
    assert await auth.verify(named(NEW)) == valid_claims()
    changing.later = changing.ready
    changing.load = Source.load.__get__(changing)  # type: ignore[method-assign]
    assert await refused(auth, named(NEW)) == "unknown_key"


async def test_the_cache_is_bounded() -> None:
    """Beyond its size the token that was verified first goes."""
    auth, keys = caching(2)
    one, two, three = (forge("ES256", valid_claims(sub=sub)) for sub in ("one", "two", "three"))
    for token in (one, two, one, three):
        await auth.verify(token)
    assert (len(auth._verifier._cache), keys.looked) == (2, 3)
    await auth.verify(two)
    await auth.verify(three)
    assert keys.looked == 3
    await auth.verify(one)
    assert keys.looked == 4


async def test_refusals_are_not_cached() -> None:
    """Only valid tokens are remembered, so that anonymous callers evict nothing."""
    auth, keys = caching(2)
    good = forge("ES256")
    await auth.verify(good)
    for number in range(5):
        await refused(auth, forge("ES256", valid_claims(iss=str(number))))
        await refused(auth, forge("ES256", valid_claims(sub=str(number)), key=NEW))
    before = keys.looked
    await auth.verify(good)
    assert (keys.looked, len(auth._verifier._cache)) == (before, 1)


@pytest.mark.parametrize("extra", [{}, {"roles": ["reader"], "nested": {"list": [{"deep": 1}]}}])
async def test_claims_are_handed_out_as_a_copy(extra: dict[str, Any]) -> None:
    """A change of the claims by an endpoint reaches no other request, at any depth."""
    auth, _ = caching()
    token = forge("ES256", valid_claims(**extra))
    for _ in range(3):
        claims = await auth.verify(token)
        assert claims == valid_claims(**extra)
        claims["sub"] = "root"
        claims["scope"] = "admin:*"
        if extra:
            claims["roles"].append("admin")
            claims["nested"]["list"][0]["deep"] = 2


@pytest.mark.parametrize("extra", [{}, {"roles": ["reader"]}])
async def test_the_cache_over_http(extra: dict[str, Any]) -> None:
    """A request with a token in the cache has the checks of any other: times, scopes, keys, and claims of its own."""
    moving = Clock(NOW)
    guarded = Guarded(lambda **options: auth_of("ES256", cache_size=4, options={"clock": moving, **options}))
    keys = Looking([KEY], ["ES256"])
    guarded.auth._verifier.use(keys)
    app, good = guarded.app, forge("ES256", valid_claims(**extra))
    other = forge("ES256", valid_claims(scope="other", **extra))

    @app.get("/edit")
    async def edit(claims: Annotated[dict[str, Any], guarded.auth.authenticated()]) -> None:
        claims["scope"] = "items:read"
        claims.setdefault("roles", []).append("root")

    for _ in range(3):
        assert (await guarded.get(good)).json == valid_claims(**extra)
        assert (await call(app, "/edit", other)).status == 200
        answer = await guarded.get(other)
        assert (answer.status, answer.json["detail"]) == (403, "Token is missing required scope: items:read")
    assert keys.looked == 2
    moving.now = NOW + 70
    answer = await guarded.get(good)
    assert (answer.status, answer.json, answer.challenges) == (401, {"detail": EXPIRED}, [challenge(EXPIRED)])
    moving.now = NOW
    assert (await guarded.get(good)).status == 200
    guarded.auth.replace_keys(NEW)
    assert (await guarded.get(good)).status == 401


@pytest.mark.parametrize("what", ["revocations", "claims_registry", "verify"])
async def test_what_is_asked_at_each_use_is_asked_on_a_hit_over_http(what: str) -> None:
    """Revocations, a claims registry and a verify of a subclass see each request, cached token or not."""
    asked: list[object] = []

    class Revocations:
        async def is_revoked(self, claims: Mapping[str, Any]) -> bool:
            asked.append(claims)
            return len(asked) > 2

    class Registry(JWTClaimsRegistry):
        def validate(self, claims: dict[str, Any]) -> None:
            asked.append(claims)
            if len(asked) > 2:
                raise JoseError

    class Own(JWTAuth):
        async def verify(self, raw: str) -> dict[str, Any]:
            asked.append(raw)
            if len(asked) > 2:
                raise Unauthorized(INVALID, error="invalid_token")
            return await super().verify(raw)

    registry = Registry() if what == "claims_registry" else None
    revocations = Revocations() if what == "revocations" else None
    config = config_of("ES256", cache_size=4, claims_registry=registry)
    auth = (Own if what == "verify" else JWTAuth)(config, revocations=revocations, clock=fixed_clock)
    guarded = Guarded(lambda **_: auth)
    token = forge("ES256")
    assert [(await guarded.get(token)).status for _ in range(3)] == [200, 200, 401]
    assert len(asked) == 3


async def test_the_cache_and_odd_texts() -> None:
    """Text that is not a token, or too long, is refused by an Auth with a cache as by any other."""
    auth = auth_of("ES256", cache_size=4, max_token_bytes=1000, options={"scheme": APIKeyScheme("t", "query")})
    app = FastAPI(dependencies=[auth.authenticated()])
    app.add_api_route("/", lambda: None)
    good = forge("ES256")
    for _ in range(2):
        assert (await call(app, f"/?t={good}")).status == 200
        for query in (
            "t=%C3%A9",
            f"t={good}%C3%A9",
            f"t={good}&t={good}",
            "t=" + "x" * 2000,
            f"t={good}x",
            f"t=?{good}",
        ):
            answer = await call(app, f"/?{query}")
            assert (answer.status, answer.challenges) == (401, ['ApiKey realm="api"'])
    assert len(auth._verifier._cache) == 1


async def test_a_hit_is_of_the_whole_token() -> None:
    """A token that differs in its signature alone is not taken for the one in the cache."""
    auth, _ = caching()
    token = forge("ES256")
    assert await auth.verify(token) == valid_claims()
    head, _, signature = token.rpartition(".")
    assert await refused(auth, f"{head}.{signature[::-1]}") in {"bad_signature", "base64url"}
    assert await refused(auth, f"{head}.") == "bad_signature"


# --- revocations -----------------------------------------------------------------------------------------------------


class Failing:
    """Revocations that are unavailable."""

    def __init__(self, error: Exception) -> None:
        """Fail with ``error``."""
        self.error = error

    async def is_revoked(self, claims: Mapping[str, Any]) -> bool:
        """Fail."""
        raise self.error


@pytest.mark.parametrize(
    ("error", "retry_after"),
    [(OSError(), "5"), (TimeoutError(), "5"), (KeyError("jti"), "5"), (ServiceUnavailable(retry_after=30), "30")],
)
@pytest.mark.parametrize("size", [0, 1])
async def test_revocations_that_cannot_be_asked(error: Exception, retry_after: str, size: int) -> None:
    """Not knowing whether a token is revoked is a 503 with Retry-After: never a pass, a 401 or a 500."""
    guarded = Guarded(
        lambda **options: auth_of("ES256", cache_size=size, options={**options, "revocations": Failing(error)})
    )
    for _ in range(2):
        answer = await guarded.get(forge("ES256"))
        assert (answer.status, answer.json) == (503, {"detail": "Service temporarily unavailable"})
        assert (answer.all("retry-after"), answer.challenges) == ([retry_after], [])
    assert (await guarded.get(forge("ES256", key=NEW))).status == 401
    with pytest.raises(ServiceUnavailable):
        await guarded.auth.validate_token(forge("ES256"))


async def test_revocations_are_asked_last() -> None:
    """They are asked for what has been verified alone, with its claims, once a verification."""
    asked: list[Mapping[str, Any]] = []

    class Revocations:
        async def is_revoked(self, claims: Mapping[str, Any]) -> bool:
            asked.append(claims)
            return "jti" in claims

    auth = auth_of("ES256", options={"revocations": Revocations()})
    await refused(auth, forge("ES256", key=NEW))
    await refused(auth, forge("ES256", valid_claims(aud="other")))
    assert asked == []
    assert await auth.verify(forge("ES256")) == valid_claims()
    assert await refused(auth, forge("ES256", valid_claims(jti="1"))) == "revoked"
    assert asked == [valid_claims(), valid_claims(jti="1")]


async def test_the_cause_of_a_503_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The kind of error is in the log, and its text is not: it may quote the token or an address."""
    for options in (
        {"options": {"revocations": Failing(ConnectionError("secret"))}},
        {"key": Source(None, TimeoutError("secret"))},
    ):
        with pytest.raises(ServiceUnavailable):
            await auth_of("ES256", **options).verify(forge("ES256"))
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "the revocations failed with ConnectionError"),
        ("WARNING", "the source of keys failed with TimeoutError"),
    ]


class SyncRevocations:
    """Revocations that cannot be awaited."""

    def is_revoked(self, claims: Mapping[str, Any]) -> bool: ...  # noqa: D102


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"revocations": SyncRevocations()}, "revocations is an object with async def is_revoked"),
        ({"revocations": Failing}, "revocations is an object with async def is_revoked"),
        ({"revocations": object()}, "revocations is an object with async def is_revoked"),
        ({"revocations": False}, "revocations is an object with async def is_revoked"),
        ({"clock": 5}, "clock is a function"),
        ({"clock": None}, "clock is a function"),
    ],
)
def test_collaborators_that_cannot_work(options: dict[str, Any], message: str) -> None:
    """They are refused where they are passed, rather than to make each request a 503 or a 500."""
    with pytest.raises(ConfigurationError, match=message):
        auth_of("ES256", options=options)


@pytest.mark.parametrize("key", [OLD, None])
def test_no_keys_are_no_replacement(key: Any) -> None:
    """``replace_keys(None)`` is refused, also where the keys were fetched; those in use stay (A.1)."""
    config = JWTConfig(key=key, algorithms=["ES256"], issuer_url="https://id.example")
    auth = JWTAuth(config)
    with pytest.raises(ConfigurationError, match=r"replace_keys\(\) takes the new keys"):
        auth.replace_keys(None)  # type: ignore[arg-type]
    assert auth.config is config


async def test_an_unauthorized_of_the_revocations_is_kept() -> None:
    """Revocations may refuse in their own words."""
    auth = auth_of("ES256", options={"revocations": Failing(Unauthorized("Logged out everywhere", reason="logout"))})
    with pytest.raises(Unauthorized, match=r"Logged out everywhere"):
        await auth.verify(forge("ES256"))


async def test_events_tell_no_secret() -> None:
    """An event has the decision and the reason, and nothing of the credential."""
    events: list[Event] = []
    app = FastAPI()
    auth = auth_of("ES256", options={"on_event": events.append})

    @app.get("/", dependencies=[auth.authenticated(), Depends(lambda: None)])
    async def index() -> None: ...

    await call(app, "/", forge("ES256"))
    await call(app, "/", forge("ES256", key=NEW))
    await call(app, "/")
    assert events == [
        Event("authenticated", "jwt", subject="ada"),
        Event("refused", "jwt", 401, "bad_signature"),
        Event("refused", "jwt", 401, "missing"),
    ]


async def test_a_symmetric_key_and_nothing_else() -> None:
    """The least configuration works: a secret, its algorithm, a lifetime."""
    auth = JWTAuth(JWTConfig(key=OctKey.generate_key(256), algorithms=["HS256"], expiration_seconds=3600))
    assert (await auth.verify(auth.create_access_token({"sub": "ada"}).access_token))["sub"] == "ada"
