"""The examples of RFCs that are more than a token: a question, an answer, a proof, a document."""

import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx2
import pytest
from joserfc.jwk import JWKRegistry
from starlette.requests import HTTPConnection

from fastapi_guard import JWTAuth, JWTConfig, Unauthorized
from fastapi_guard.issuers import DPoP, IntrospectionAuth
from fastapi_guard.jwt.http import in_process
from fastapi_guard.jwt.responses import Answer
from fastapi_guard.routers import protected_resource_router
from fastapi_guard.schemes import DPoPScheme
from fastapi_guard.stores import MemoryStore
from support import reference_verifier
from support.asgi import scope_of
from support.guarded import assert_refused, guarded_app, send
from support.tokens import KEYS, base64url, forge

HERE = Path(__file__).parent
INTROSPECTION, ACCESS_TOKEN, PROOF, METADATA = (
    json.loads((HERE / f"rfc{number}.json").read_text(encoding="utf-8")) for number in (7662, 9068, 9449, 9728)
)


def introspected(answer: Mapping[str, Any], now: float, **options: Any) -> tuple[IntrospectionAuth, list[Any]]:
    """Return an Auth whose issuer sends this response, and the requests that it received."""
    asked: list[Any] = []

    async def issuer(method: str, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        fields = {name.lower(): value for name, value in headers.items()}
        asked.append((method, url, fields["authorization"], fields["content-type"], body.decode()))
        return Answer(200, {"Content-Type": "application/json"}, json.dumps(answer).encode())

    example = INTROSPECTION["request"]
    auth = IntrospectionAuth(
        example["url"],
        client_id=example["client_id"],
        client_secret=example["client_secret"],
        client=httpx2.AsyncClient(transport=in_process(issuer)),
        clock=lambda: now,
        **options,
    )
    return auth, asked


async def test_rfc_7662_active() -> None:
    """The request is exactly the one of 2.1, and the response of 2.2 becomes the claims."""
    example, answer = INTROSPECTION["request"], INTROSPECTION["active"]
    auth, asked = introspected(answer, answer["iat"], issuer=answer["iss"], audience=answer["aud"])
    claims = await auth.verify(example["token"])
    form = "application/x-www-form-urlencoded"
    assert asked == [("POST", example["url"], example["authorization"], form, example["body"])]
    assert claims == {name: value for name, value in answer.items() if name != "active"}
    assert auth.covers(claims, "read", "write", "dolphin")
    assert not auth.covers(claims, "openid")


@pytest.mark.parametrize(
    ("change", "later", "reason"),
    [
        (INTROSPECTION["inactive"], 0, "inactive"),
        ({"active": "true"}, 0, "inactive"),
        ({}, 6_010, "expired"),
        ({"iss": "https://server.example.com"}, 0, "issuer"),
        ({"aud": "https://protected.example.net/"}, 0, "audience"),
    ],
)
async def test_rfc_7662_inactive(change: dict[str, Any], later: int, reason: str) -> None:
    """The other response of 2.2, and the first one with another value, or too old, is a refusal."""
    answer = INTROSPECTION["active"]
    auth, _ = introspected({**answer, **change}, answer["iat"] + later, issuer=answer["iss"], audience=answer["aud"])
    with pytest.raises(Unauthorized) as refusal:
        await auth.verify(INTROSPECTION["request"]["token"])
    assert refusal.value.reason == reason


def profile_of(**settings: Any) -> JWTAuth:
    """Return an Auth for the access tokens of RFC 9068, whose clock shows the moment of issue."""
    claims, own = ACCESS_TOKEN["claims"], KEYS["RS256"].as_dict(private=True)
    config = {
        "key": JWKRegistry.import_key({**own, "kid": ACCESS_TOKEN["header"]["kid"]}),
        "algorithms": ["RS256"],
        "issuer_url": claims["iss"],
        "audience": claims["aud"],
        "profile": "rfc9068",
    }
    return JWTAuth(JWTConfig(**{**config, **settings}), clock=lambda: claims["iat"])


async def test_rfc_9068() -> None:
    """The header and the claims of section 3 are accepted, and what they grant is granted."""
    auth = profile_of()
    claims = await auth.verify(forge("RS256", ACCESS_TOKEN["claims"], ACCESS_TOKEN["header"]))
    assert claims == ACCESS_TOKEN["claims"]
    assert auth.covers(claims, "openid", "profile", "reademail")
    assert not auth.covers(claims, "email")


@pytest.mark.parametrize(
    ("claims", "header", "settings", "reason"),
    [
        ({}, {"typ": "JWT"}, {}, "token_type"),
        ({}, {"alg": "none"}, {}, "algorithm"),
        ({}, {"kid": "other"}, {}, "unknown_key"),
        ({}, {}, {"issuer_url": "https://authorization-server.example.com"}, "issuer"),
        ({}, {}, {"audience": "https://rs.example.com"}, "audience"),
        ({"client_id": ...}, {}, {}, "profile"),
        ({"jti": ...}, {}, {}, "profile"),
        ({"exp": 1618354090 - 10}, {}, {}, "expired"),
    ],
)
async def test_rfc_9068_otherwise(
    claims: dict[str, Any], header: dict[str, Any], settings: dict[str, Any], reason: str
) -> None:
    """A token that differs from the example in what section 4 checks is refused."""
    changed = {name: value for name, value in {**ACCESS_TOKEN["claims"], **claims}.items() if value is not ...}
    token = forge("RS256", changed, {**ACCESS_TOKEN["header"], **header})
    with pytest.raises(Unauthorized) as refusal:
        await profile_of(**settings).verify(token)
    assert refusal.value.reason == reason


@pytest.mark.parametrize("name", ["token_request", "resource_request"])
def test_rfc_9449_proofs(name: str) -> None:
    """Both proofs are whole: the key in the header has the thumbprint, and has signed the content of the figure."""
    example = PROOF[name]
    message, _, signature = example["proof"].rpartition(".")
    header, claims = (reference_verifier.object_of(reference_verifier.decoded(part)) for part in message.split("."))
    assert header == {"typ": "dpop+jwt", "alg": "ES256", "jwk": PROOF["key"]}
    assert reference_verifier.is_signature_valid(
        PROOF["key"], "ES256", message.encode(), reference_verifier.decoded(signature)
    )
    assert JWKRegistry.import_key(PROOF["key"]).thumbprint() == PROOF["thumbprint"]
    said = {"jti": example["jti"], "htm": example["method"], "htu": example["url"], "iat": example["iat"]}
    assert claims == said | ({"ath": example["ath"]} if "ath" in example else {})
    if "ath" in example:
        assert base64url(sha256(example["token"].encode()).digest()) == example["ath"]


def proved(
    name: str, now: float, *, origin: str = "https://resource.example.org", **changes: Any
) -> tuple[DPoP, HTTPConnection]:
    """Return who checks the proof of an example, and the request that it came with."""
    example = PROOF[name]
    dpop = DPoP(MemoryStore(clock=lambda: now), origin=origin, clock=lambda: now)
    fields = [
        (b"authorization", b"DPoP " + PROOF["resource_request"]["token"].encode()),
        (b"dpop", example["proof"].encode()),
    ]
    path, method = (
        changes.get("path", f"/{example['url'].rpartition('/')[2]}"),
        changes.get("method", example["method"]),
    )
    return dpop, HTTPConnection(scope_of(path, fields, method=method))


async def test_rfc_9449_resource_request() -> None:
    """The request of 7.1 with its token and its proof is accepted, once."""
    token, bound = PROOF["resource_request"]["token"], {"cnf": PROOF["bound_token"]["cnf"]}
    dpop, connection = proved("resource_request", PROOF["resource_request"]["iat"])
    await dpop.check(connection, token, bound)
    with pytest.raises(Unauthorized) as refusal:
        await dpop.check(connection, token, bound)
    assert (refusal.value.error, refusal.value.reason) == ("invalid_dpop_proof", "proof_replayed")


@pytest.mark.parametrize(
    ("changes", "token", "jkt", "later", "reason"),
    [
        ({}, "another-token", None, 0, "proof_ath"),
        ({"path": "/other"}, None, None, 0, "proof_htu"),
        ({"origin": "https://resource.example.net"}, None, None, 0, "proof_htu"),
        ({"method": "POST"}, None, None, 0, "proof_htm"),
        ({}, None, None, 61, "proof_expired"),
        ({}, None, None, -11, "proof_expired"),
        ({}, None, "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs", 0, "bound_to_another_key"),
    ],
)
async def test_rfc_9449_another_request(
    changes: dict[str, Any], token: str | None, jkt: str | None, later: int, reason: str
) -> None:
    """With another token, place, method, moment or key the same proof is refused."""
    example = PROOF["resource_request"]
    dpop, connection = proved("resource_request", example["iat"] + later, **changes)
    with pytest.raises(Unauthorized) as refusal:
        await dpop.check(connection, token or example["token"], {"cnf": {"jkt": jkt or PROOF["thumbprint"]}})
    assert refusal.value.reason == reason


async def test_rfc_9449_token_request() -> None:
    """The proof of 4.1, which names no access token, is invalid for a resource."""
    example = PROOF["token_request"]
    dpop, connection = proved("token_request", example["iat"], origin="https://server.example.com")
    with pytest.raises(Unauthorized) as refusal:
        await dpop.check(connection, PROOF["resource_request"]["token"], {"cnf": PROOF["bound_token"]["cnf"]})
    assert refusal.value.reason == "proof_ath"


async def test_rfc_9449_bound_tokens() -> None:
    """The token of 6.1 and the response of 6.2 are refused where no proof is checked, but valid without cnf."""
    bound = PROOF["bound_token"]
    free = {name: value for name, value in bound.items() if name != "cnf"}
    auth = JWTAuth(JWTConfig(key=KEYS["ES256"], issuer_url=bound["iss"]), clock=lambda: bound["nbf"])
    assert await auth.verify(forge("ES256", free)) == free
    with pytest.raises(Unauthorized) as refusal:
        await auth.verify(forge("ES256", bound))
    assert refusal.value.reason == "bound_token"
    asked, _ = introspected({"active": True, **free}, bound["nbf"])
    assert await asked.verify("opaque") == free
    asked, _ = introspected({"active": True, **bound}, bound["nbf"])
    with pytest.raises(Unauthorized) as refusal:
        await asked.verify("opaque")
    assert refusal.value.reason == "bound_token"


def test_rfc_9449_challenge() -> None:
    """The challenge of 7.1 names the algorithms of proofs, and ours the realm beside (RFC 9110 11.5)."""
    algorithms = PROOF["algorithms"]
    scheme = DPoPScheme(algorithms=algorithms.split(" "), required=True)
    assert scheme.plain_challenge == f'DPoP realm="api", algs="{algorithms}"'


async def test_rfc_9728() -> None:
    """A client is shown the way by the challenge of 5.1 to the document of 3.2; no token is taken from a body."""
    example = METADATA["metadata"]
    auth = JWTAuth(JWTConfig(key=KEYS["RS256"], issuer_url=example["authorization_servers"][0]))
    router = protected_resource_router(
        auth,
        resource=example["resource"],
        scopes=example["scopes_supported"],
        authorization_servers=example["authorization_servers"],
        documentation=example["resource_documentation"],
    )
    app = guarded_app(auth)
    app.include_router(router)
    assert_refused(await send(app), {"detail": "Not authenticated"}, f'Bearer realm="api", {METADATA["challenge"]}')
    answer = await send(app, path=METADATA["places"][example["resource"]])
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json() == {**example, "bearer_methods_supported": ["header"]}


@pytest.mark.parametrize(("resource", "place"), METADATA["places"].items())
async def test_rfc_9728_places(resource: str, place: str) -> None:
    """The document stands where 3.1 puts it: the well-known path before that of the resource."""
    auth = JWTAuth(JWTConfig(key=KEYS["ES256"], issuer_url="https://as1.example.com"))
    app = guarded_app(auth)
    app.include_router(protected_resource_router(auth, resource=resource))
    assert (await send(app, path=place)).json()["resource"] == resource
    assert (
        (await send(app))
        .headers["WWW-Authenticate"]
        .endswith(f'resource_metadata="https://resource.example.com{place}"')
    )
