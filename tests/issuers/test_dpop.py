import asyncio
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Annotated, Any

import pytest
from fastapi import FastAPI, WebSocket
from fastapi.security import OAuth2PasswordBearer
from joserfc.jwk import ECKey, Key, OctKey, RSAKey
from joserfc.jws import JWSRegistry
from starlette.requests import HTTPConnection, Request

from fastapi_guard import (
    APIKeyScheme,
    BearerScheme,
    ConfigurationError,
    JWTAuth,
    JWTConfig,
    ServiceUnavailable,
    Unauthorized,
)
from fastapi_guard.issuers.dpop import DPoP, DPoPNonces, paths_of
from fastapi_guard.stores import MemoryStore, Record
from support.asgi import handshake
from support.clock import Clock
from support.guarded import INVALID, assert_refused, assert_unavailable, guarded_app, send
from support.tokens import KEYS

ORIGIN = "https://api.example"
ALGS = "ES256 EdDSA Ed25519 RS256 PS256"
CHALLENGE = f'Bearer realm="api", DPoP realm="api", algs="{ALGS}"'
TOKEN_CHALLENGE = (
    'Bearer realm="api", error="invalid_token", error_description="The access token is invalid", '
    f'DPoP realm="api", error="invalid_token", error_description="The access token is invalid", algs="{ALGS}"'
)
PROOF = {"detail": "The DPoP proof is invalid"}
PROOF_CHALLENGE = (
    'Bearer realm="api", DPoP realm="api", error="invalid_dpop_proof", '
    f'error_description="The DPoP proof is invalid", algs="{ALGS}"'
)
CLIENT_KEY = ECKey.generate_key("P-256")
ISSUER_KEY = ECKey.generate_key("P-256")


def base64url(raw: bytes | str) -> str:
    """Encode as RFC 7515 2 does."""
    return urlsafe_b64encode(raw if isinstance(raw, bytes) else raw.encode()).rstrip(b"=").decode()


def signed(header: Mapping[str, Any] | str, payload: Mapping[str, Any] | str, key: Key, algorithm: str) -> str:
    """Return a compact JWS of exactly these texts."""
    parts = [part if isinstance(part, str) else json.dumps(part) for part in (header, payload)]
    signing_input = ".".join(map(base64url, parts))
    return f"{signing_input}.{base64url(JWSRegistry.algorithms[algorithm].sign(signing_input.encode(), key))}"


class World:
    """An API that accepts bound tokens, and a client with a key."""

    def __init__(self, **options: Any) -> None:
        """Begin."""
        self.clock = Clock()
        self.store = MemoryStore(clock=self.clock)
        config = JWTConfig(key=ISSUER_KEY, issuer_url="https://id.example", audience=ORIGIN)
        self.dpop = DPoP(self.store, **{"origin": ORIGIN, "clock": self.clock, **options})
        self.auth = JWTAuth(config, dpop=self.dpop, clock=self.clock)
        self.app = guarded_app(self.auth, "items:read")
        self.made = 0

    def token(self, key: Key = CLIENT_KEY, **claims: Any) -> str:
        """Return a token that is bound to a key."""
        bound = {"sub": "ada", "scope": "items:read", "cnf": {"jkt": key.thumbprint()}, **claims}
        return self.auth.encode({name: value for name, value in bound.items() if value is not None})

    def proof(
        self,
        token: str,
        *,
        key: Key = CLIENT_KEY,
        algorithm: str = "ES256",
        header: Mapping[str, Any] | None = None,
        **claims: Any,
    ) -> str:
        """Return a proof for a GET of /items; a member that is ... is left out."""
        self.made += 1
        members = {"typ": "dpop+jwt", "alg": algorithm, "jwk": key.as_dict(private=False), **(header or {})}
        members["jwk"].pop("kid", None) if isinstance(members["jwk"], dict) else None
        own = {
            "jti": f"proof-{self.made}",
            "htm": "GET",
            "htu": f"{ORIGIN}/items",
            "iat": int(self.clock()),
            "ath": base64url(sha256(token.encode()).digest()),
        }
        present = {name: value for name, value in {**own, **claims}.items() if value is not ...}
        return signed({name: value for name, value in members.items() if value is not ...}, present, key, algorithm)

    async def ask(self, token: str, proof: str | None = None, **options: Any) -> Any:
        """Send a request with a bound token and its proof."""
        headers = {} if proof is None else {"DPoP": proof}
        return await send(self.app, token, **{"scheme": "DPoP", "headers": headers, **options})


async def test_a_bound_token_with_its_proof_is_accepted() -> None:
    """The scheme is DPoP, in any case; every request has a proof of its own."""
    world = World()
    token = world.token()
    for scheme in ("DPoP", "dpop", "DPOP"):
        answer = await world.ask(token, world.proof(token), scheme=scheme)
        assert answer.status_code == 200
        assert answer.json()["sub"] == "ada"


async def test_a_token_that_is_bound_to_nothing_is_a_bearer_token_as_ever() -> None:
    """DPoP beside Bearer leaves plain tokens as they are, with or without a DPoP field."""
    world = World()
    token = world.token(cnf=None)
    assert (await send(world.app, token)).status_code == 200
    assert_refused(await world.ask(token, world.proof(token)), INVALID, TOKEN_CHALLENGE)


async def test_no_credential_is_told_both_schemes() -> None:
    """The challenge for an anonymous caller names Bearer and DPoP, and the algorithms of proofs (RFC 9449 7.1)."""
    world = World()
    assert_refused(await send(world.app), {"detail": "Not authenticated"}, CHALLENGE)
    assert_refused(await world.ask("a b"), {"detail": "More than one credential"}, _two())


def _two() -> str:
    said = 'error="invalid_request", error_description="More than one credential"'
    return f'Bearer realm="api", {said}, DPoP realm="api", {said}, algs="{ALGS}"'


async def test_a_bound_token_without_a_proof_is_refused_everywhere() -> None:
    """As a bearer token, without the connection, and by an Auth without proofs."""
    world = World()
    token = world.token()
    assert_refused(await send(world.app, token), INVALID, TOKEN_CHALLENGE)
    assert_refused(await send(world.app, token, headers={"DPoP": world.proof(token)}), INVALID, TOKEN_CHALLENGE)
    assert_refused(await world.ask(token), PROOF, PROOF_CHALLENGE)
    assert not await world.auth.validate_token(token)
    plain = JWTAuth(world.auth.config, clock=world.clock)
    assert_refused(await send(guarded_app(plain), token))
    assert (await world.ask(token, world.proof(token))).status_code == 200
    assert await world.auth.validate_token(world.token(cnf=None))


async def test_a_cached_token_needs_its_proof_as_well() -> None:
    """The cache of verified tokens remembers the token, never a proof."""
    world = World()
    config = JWTConfig(key=ISSUER_KEY, issuer_url="https://id.example", audience=ORIGIN, cache_size=8)
    world.auth = JWTAuth(config, dpop=world.dpop, clock=world.clock)
    world.app = guarded_app(world.auth)
    token = world.token()
    assert (await world.ask(token, world.proof(token))).status_code == 200
    assert len(world.auth._verifier._cache or ()) == 1
    assert_refused(await send(world.app, token), INVALID, TOKEN_CHALLENGE)
    assert_refused(await world.ask(token), PROOF, PROOF_CHALLENGE)
    assert not await world.auth.validate_token(token)
    assert (await world.ask(token, world.proof(token))).status_code == 200


async def test_a_proof_is_used_once() -> None:
    """A replayed proof is refused, however soon, and also at the last moment of its life."""
    world = World()
    token = world.token()
    proof = world.proof(token)
    assert (await world.ask(token, proof)).status_code == 200
    assert_refused(await world.ask(token, proof), PROOF, PROOF_CHALLENGE)
    world.clock.move(60)
    assert_refused(await world.ask(token, proof), PROOF, PROOF_CHALLENGE)
    assert (await world.ask(token, world.proof(token))).status_code == 200


async def test_of_concurrent_replays_one_is_accepted() -> None:
    """Of many requests with one proof at the same time, one passes."""
    world = World()
    token = world.token()
    proof = world.proof(token)
    answers = await asyncio.gather(*(world.ask(token, proof) for _ in range(10)))
    assert sorted(answer.status_code for answer in answers) == [200, *[401] * 9]


async def test_two_clients_may_have_the_same_jti() -> None:
    """A jti is of its key: another client cannot use it up."""
    world = World()
    other = ECKey.generate_key("P-256")
    for key in (CLIENT_KEY, other):
        token = world.token(key)
        assert (await world.ask(token, world.proof(token, key=key, jti="same"))).status_code == 200


async def test_a_proof_is_asked_for_once_a_request() -> None:
    """Guards of the application and the parameter verify once, so that the proof is not its own replay."""
    world = World()
    app = FastAPI(dependencies=[world.auth.authenticated()])

    @app.get("/items")
    async def items(claims: Annotated[dict[str, Any], world.auth.requires("items:read")]) -> str:
        return str(claims["sub"])

    token = world.token()
    assert (await send(app, token, scheme="DPoP", headers={"DPoP": world.proof(token)})).json() == "ada"


@pytest.mark.parametrize("algorithm", ["ES256", "EdDSA", "Ed25519", "RS256", "PS256"])
async def test_algorithms_of_proofs(algorithm: str) -> None:
    """ES256, EdDSA under both names, RS256 and PS256."""
    world, key = World(), KEYS[algorithm]
    token = world.token(key)
    assert (await world.ask(token, world.proof(token, key=key, algorithm=algorithm))).status_code == 200


WEAK = KEYS["RS256"].as_dict(private=False)
REFUSED_PROOFS: dict[str, dict[str, Any]] = {
    "another key": {"key": ECKey.generate_key("P-256"), "body": INVALID, "challenge": TOKEN_CHALLENGE},
    "no typ": {"header": {"typ": ...}},
    "typ of a token": {"header": {"typ": "JWT"}},
    "typ a number": {"header": {"typ": 1}},
    "alg none": {"header": {"alg": "none"}},
    "alg of another family": {"header": {"alg": "RS256"}},
    "alg not configured": {"header": {"alg": "ES384"}},
    "alg symmetric": {"header": {"alg": "HS256"}},
    "alg a list": {"header": {"alg": ["ES256"]}},
    "no jwk": {"header": {"jwk": ...}},
    "jwk a text": {"header": {"jwk": "key"}},
    "jwk empty": {"header": {"jwk": {}}},
    "jwk without kty": {"header": {"jwk": {"crv": "P-256"}}},
    "jwk with a kty that is a list": {"header": {"jwk": {"kty": ["EC"]}}},
    "jwk private": {"header": {"jwk": CLIENT_KEY.as_dict(private=True)}},
    "jwk symmetric": {"header": {"jwk": OctKey.generate_key(256).as_dict(private=True)}},
    "jwk of another curve": {"header": {"jwk": ECKey.generate_key("P-384").as_dict(private=False)}},
    "jwk not on its curve": {"header": {"jwk": {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}}},
    "jwk with a number": {"header": {"jwk": {"kty": "EC", "crv": 256, "x": 1, "y": 2}}},
    "jwk with a huge exponent": {"header": {"alg": "RS256", "jwk": {**WEAK, "e": "AQAB" * 64}}},
    "jwk too short": {"header": {"alg": "RS256", "jwk": {"kty": "RSA", "n": "u7-9" * 20, "e": "AQAB"}}},
    "crit": {"header": {"crit": ["b64"], "b64": False}},
    "no jti": {"claims": {"jti": ...}},
    "jti empty": {"claims": {"jti": ""}},
    "jti a number": {"claims": {"jti": 7}},
    "no htm": {"claims": {"htm": ...}},
    "htm of another method": {"claims": {"htm": "POST"}},
    "htm in another case": {"claims": {"htm": "get"}},
    "no htu": {"claims": {"htu": ...}},
    "htu a list": {"claims": {"htu": ["https://api.example/items"]}},
    "htu of another path": {"claims": {"htu": "https://api.example/item"}},
    "htu of a longer path": {"claims": {"htu": "https://api.example/items/"}},
    "htu of another host": {"claims": {"htu": "https://api.example.org/items"}},
    "htu of another port": {"claims": {"htu": "https://api.example:8443/items"}},
    "htu of another scheme": {"claims": {"htu": "http://api.example/items"}},
    "htu with a user": {"claims": {"htu": "https://api.example@attacker.example/items"}},
    "htu of our user": {"claims": {"htu": "https://user@api.example/items"}},
    "htu a path": {"claims": {"htu": "/items"}},
    "htu with a space in front": {"claims": {"htu": " https://api.example/items"}},
    "htu with a line end": {"claims": {"htu": "https://api.example/it\nems"}},
    "htu with a tab": {"claims": {"htu": "https://api.ex\tample/items"}},
    "htu not ASCII": {"claims": {"htu": "https://api.example/ítems"}},
    "htu with a port that is none": {"claims": {"htu": "https://api.example:x/items"}},
    "htu with broken escapes": {"claims": {"htu": "https://api.example/%ff"}},
    "no ath": {"claims": {"ath": ...}},
    "ath of another token": {"claims": {"ath": base64url(sha256(b"other").digest())}},
    "no iat": {"claims": {"iat": ...}},
    "iat a text": {"claims": {"iat": "now"}},
    "iat a bool": {"claims": {"iat": True}},
    "iat too old": {"claims": {"iat": 1_800_000_000 - 61}},
    "iat in the future": {"claims": {"iat": 1_800_000_000 + 11}},
    "iat huge": {"claims": {"iat": 10**400}},
}


@pytest.mark.parametrize("case", REFUSED_PROOFS.values(), ids=REFUSED_PROOFS)
async def test_a_proof_that_does_not_hold(case: dict[str, Any]) -> None:
    """Each is refused with its code, leaves nothing in the store, and the same client's good proof passes."""
    world = World()
    token = world.token()
    proof = world.proof(token, key=case.get("key", CLIENT_KEY), header=case.get("header"), **case.get("claims", {}))
    answer = await world.ask(token, proof)
    assert_refused(answer, case.get("body", PROOF), case.get("challenge", PROOF_CHALLENGE))
    assert not world.store._records
    assert (await world.ask(token, world.proof(token))).status_code == 200


SPOILED: dict[str, Callable[[str], str]] = {
    "empty": lambda _: "",
    "a word": lambda _: "proof",
    "padded": lambda proof: proof + "=",
    "five parts": lambda proof: f"{proof}.{proof}",
    "another signature": lambda proof: proof[:-6] + ("AAAAAA" if proof[-6:-1] != "AAAAA" else "BBBBBA"),
    "a part too many": lambda proof: proof.replace(".", "..", 1),
    "duplicate members": lambda proof: ".".join([proof.split(".")[0], base64url('{"a":1,"a":2}'), proof.split(".")[2]]),
    "two in one": lambda proof: f"{proof}, {proof}",
    "oversized": lambda proof: "A" * 9000 + proof,
    "not ASCII": lambda _: "é",
}


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED)
async def test_a_field_that_is_no_proof(spoil: Any) -> None:
    """Whatever the bytes, one refusal; the proof that they were made of passes."""
    world = World()
    token = world.token()
    proof = world.proof(token)
    answer = await world.ask(token, headers={"DPoP": spoil(proof).encode("latin-1")})
    assert_refused(answer, PROOF, PROOF_CHALLENGE)
    assert (await world.ask(token, proof)).status_code == 200


async def test_two_fields_are_none() -> None:
    """More than one DPoP field is refused (RFC 9449 4.3), also when both hold."""
    world = World()
    token = world.token()
    both = [("DPoP", world.proof(token)), ("DPoP", world.proof(token))]
    assert_refused(await world.ask(token, headers=both), PROOF, PROOF_CHALLENGE)
    assert (await world.ask(token, world.proof(token))).status_code == 200


@pytest.mark.parametrize(
    "confirmation", [None, "jkt", {}, {"jkt": 7}, {"x5t#S256": "AA"}, {"jkt": CLIENT_KEY.thumbprint(), "x5t#S256": "A"}]
)
async def test_another_confirmation_is_not_checked_and_so_refused(confirmation: Any) -> None:
    """A token that is bound in another way, or in one more way, is refused (RFC 7800 3.1)."""
    world = World()
    token = world.auth.encode({"sub": "ada", "scope": "items:read", "cnf": confirmation})
    assert_refused(await world.ask(token, world.proof(token)), INVALID, TOKEN_CHALLENGE)
    assert_refused(await send(world.app, token), INVALID, TOKEN_CHALLENGE)
    bound = world.token()
    assert (await world.ask(bound, world.proof(bound))).status_code == 200


async def test_a_missing_scope_is_told_to_both_schemes() -> None:
    """A 403 names the scope, whichever scheme was used."""
    world = World()
    token = world.token(scope="items:write")
    answer = await world.ask(token, world.proof(token))
    assert answer.status_code == 403
    said = 'error="insufficient_scope", scope="items:read"'
    expected = f'Bearer realm="api", {said}, DPoP realm="api", {said}, algs="{ALGS}"'
    assert answer.headers["WWW-Authenticate"] == expected


@pytest.mark.parametrize(
    ("htu", "path"),
    [
        ("https://api.example/items?page=2#top", "/items"),
        ("HTTPS://API.EXAMPLE:443/items", "/items"),
        ("https://api.example/%69tems", "/items"),
        ("https://api.example/items", "/items?page=2"),
    ],
)
async def test_spellings_of_one_url(htu: str, path: str) -> None:
    """Query and fragment do not count, and what has another spelling is the same (RFC 9449 4.3, RFC 3986 6.2)."""
    world = World()
    token = world.token()
    assert (await world.ask(token, world.proof(token, htu=htu), path=path)).status_code == 200


async def test_the_method_counts() -> None:
    """A proof for a POST is one for a POST."""
    world = World()
    token = world.token()
    assert_refused(await world.ask(token, world.proof(token), method="POST"), PROOF, PROOF_CHALLENGE)
    assert (await world.ask(token, world.proof(token, htm="POST"), method="POST")).status_code == 200


async def test_the_host_field_is_not_believed() -> None:
    """The origin is the configured one, whatever a client says."""
    world = World()
    token = world.token()
    proof = world.proof(token, htu="https://attacker.example/items")
    headers = {"DPoP": proof, "Host": "attacker.example", "X-Forwarded-Host": "attacker.example"}
    assert_refused(await world.ask(token, headers=headers), PROOF, PROOF_CHALLENGE)
    good = {"DPoP": world.proof(token), "Host": "attacker.example"}
    assert (await world.ask(token, headers=good)).status_code == 200


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        ({"path": "/items"}, ("/items",)),
        ({"path": "/items", "root_path": ""}, ("/items",)),
        ({"path": "/items", "root_path": "/"}, ("/items",)),
        ({"path": "/items", "root_path": "/api"}, ("/api/items",)),
        ({"path": "/api/items", "root_path": "/api"}, ("/api/items", "/api/api/items")),
        ({"path": "/api/items", "root_path": "/api/"}, ("/api/items", "/api/api/items")),
        ({"path": "/api", "root_path": "/api"}, ("/api", "/api/api")),
        ({"path": "/apis", "root_path": "/api"}, ("/api/apis",)),
        (
            {"path": "/api/sub/items", "root_path": "/api/sub", "app_root_path": "/api"},
            ("/api/sub/items", "/api/api/sub/items"),
        ),
        ({"path": "/sub/items", "root_path": "/sub", "app_root_path": ""}, ("/sub/items",)),
    ],
)
def test_paths_of(scope: dict[str, Any], expected: tuple[str, ...]) -> None:
    """The path is that of the client: with the part that a proxy cut off; two if it may be either."""
    assert paths_of(scope) == expected


@pytest.mark.parametrize("server_adds", [True, False])
async def test_a_route_that_begins_with_the_prefix_of_the_proxy(server_adds: bool) -> None:
    """Behind a proxy that cuts off /api, /api/api/items is a route like others, whatever the server does to paths."""
    world = World()
    token = world.token()

    async def behind_a_proxy(proof: str) -> None:
        path = "/api/api/items" if server_adds else "/api/items"
        await world.dpop.check(_connection(f"DPoP {token}", path, [(b"dpop", proof.encode())]), token, claims)

    claims = {"cnf": {"jkt": CLIENT_KEY.thumbprint()}}
    await behind_a_proxy(world.proof(token, htu=f"{ORIGIN}/api/api/items"))
    for path in ("/items", "/api", "/api/item", "/apis/items"):
        with pytest.raises(Unauthorized) as refusal:
            await behind_a_proxy(world.proof(token, htu=f"{ORIGIN}{path}"))
        assert refusal.value.reason == "proof_htu"


async def test_behind_a_proxy_and_in_a_mounted_application() -> None:
    """`root_path` counts, of a proxy that cuts it off and of a mount."""
    world = World()
    token = world.token()
    outer = FastAPI()
    outer.mount("/v1", world.app)
    world.app = outer
    path, htu = "/v1/items", f"{ORIGIN}/v1/items"
    assert (await world.ask(token, world.proof(token, htu=htu), path=path)).status_code == 200
    assert_refused(await world.ask(token, world.proof(token), path=path), PROOF, PROOF_CHALLENGE)
    proxied = guarded_app(world.auth)
    proxied.root_path = "/api"
    world.app = proxied
    assert (await world.ask(token, world.proof(token, htu=f"{ORIGIN}/api/items"))).status_code == 200
    assert_refused(await world.ask(token, world.proof(token)), PROOF, PROOF_CHALLENGE)


def test_a_websocket_handshake_is_a_get() -> None:
    """The handshake of a WebSocket has a proof as any GET has."""
    world = World()
    app = FastAPI()

    @app.websocket("/items")
    async def items(socket: WebSocket, claims: Annotated[dict[str, Any], world.auth.authenticated()]) -> None:
        await socket.accept()
        await socket.close()

    token = world.token()
    authorization = (b"authorization", f"DPoP {token}".encode())
    assert handshake(app, "/items", [authorization, (b"dpop", world.proof(token).encode())]).status == 101
    refused = handshake(app, "/items", [authorization])
    assert refused.refusal == (401, PROOF["detail"], PROOF_CHALLENGE)


async def test_required_takes_no_bearer_token() -> None:
    """If proofs are required, a plain token is refused, and Bearer is not offered."""
    world = World(required=True)
    challenge = f'DPoP realm="api", algs="{ALGS}"'
    plain = world.token(cnf=None)
    assert_refused(await send(world.app, plain), {"detail": "Not authenticated"}, challenge)
    said = 'error="invalid_token", error_description="The access token is invalid"'
    assert_refused(await world.ask(plain, world.proof(plain)), INVALID, f'DPoP realm="api", {said}, algs="{ALGS}"')
    token = world.token()
    assert_refused(await send(world.app, token), {"detail": "Not authenticated"}, challenge)
    assert (await world.ask(token, world.proof(token))).status_code == 200
    with pytest.raises(Unauthorized) as caught:
        await world.auth.verify_request(_connection(f"Bearer {plain}"), plain)
    assert caught.value.reason == "not_bound"


def _connection(authorization: str, path: str = "/", fields: list[tuple[bytes, bytes]] | None = None) -> Any:
    headers = [(b"authorization", authorization.encode()), *(fields or [])]
    return Request({"type": "http", "method": "GET", "path": path, "root_path": "/api", "headers": headers})


# --- nonces

NONCE_KEY = bytes(range(32))
NONCE_CHALLENGE = PROOF_CHALLENGE.replace("invalid_dpop_proof", "use_dpop_nonce")


async def test_a_nonce_of_the_server() -> None:
    """A proof without one is refused with a nonce in a field; the next proof has it and passes (RFC 9449 9)."""
    world = World(nonces=DPoPNonces(key=NONCE_KEY))
    token = world.token()
    answer = await world.ask(token, world.proof(token))
    assert_refused(answer, PROOF, NONCE_CHALLENGE)
    nonce = answer.headers["DPoP-Nonce"]
    assert answer.headers["Cache-Control"] == "no-store"
    assert (await world.ask(token, world.proof(token, nonce=nonce))).status_code == 200
    assert (await world.ask(token, world.proof(token, nonce=nonce))).status_code == 200
    assert (await send(world.app, world.token(cnf=None))).status_code == 200


@pytest.mark.parametrize("nonce", ["", "x", None, 7, ["x"], {"x": "y"}, "é", "A" * 2000])
async def test_a_nonce_that_the_server_did_not_send(nonce: Any) -> None:
    """Any other is refused, uses up nothing, and gets the current one."""
    world = World(nonces=DPoPNonces(key=NONCE_KEY))
    token = world.token()
    answer = await world.ask(token, world.proof(token, nonce=nonce))
    assert_refused(answer, PROOF, NONCE_CHALLENGE)
    assert not world.store._records
    assert (await world.ask(token, world.proof(token, nonce=answer.headers["DPoP-Nonce"]))).status_code == 200


async def test_a_nonce_ends() -> None:
    """It is accepted in its period and the next one, in every process with the same key; another key makes others."""
    world = World(nonces=DPoPNonces(key=NONCE_KEY, seconds=60))
    token = world.token()
    nonce = (await world.ask(token, world.proof(token))).headers["DPoP-Nonce"]
    other = World(nonces=DPoPNonces(key=NONCE_KEY, seconds=60))
    other.clock = other.dpop._clock = world.clock
    other.auth._clock = world.clock  # type: ignore[attr-defined]
    for expected in (200, 200, 401):
        assert (await world.ask(token, world.proof(token, nonce=nonce))).status_code == expected
        world.clock.move(60)
    world.clock.move(-180)
    assert (await other.ask(token, other.proof(token, nonce=nonce))).status_code == 200
    foreign = World(nonces=DPoPNonces(key=bytes(range(1, 33)), seconds=60))
    assert_refused(await foreign.ask(token, foreign.proof(token, nonce=nonce)), PROOF, NONCE_CHALLENGE)


@pytest.mark.parametrize(
    "settings",
    [
        {"key": "text"},
        {"key": b""},
        {"key": bytes(32)},
        {"key": b"changeme-changeme-changeme-changeme"},
        {"key": NONCE_KEY, "seconds": 0},
        {"key": NONCE_KEY, "seconds": 3601},
        {"key": NONCE_KEY, "seconds": 1.5},
    ],
)
def test_nonces_that_could_be_guessed(settings: dict[str, Any]) -> None:
    """A key that is weak, and a time that is not a number of seconds, are rejected; the key is in no repr."""
    with pytest.raises(ConfigurationError):
        DPoPNonces(**settings)
    assert "key" not in repr(DPoPNonces(key=NONCE_KEY))


async def test_a_bad_proof_is_no_reason_for_a_nonce() -> None:
    """A proof that is invalid anyway is refused for its own reason, with a nonce or without."""
    world = World(nonces=DPoPNonces(key=NONCE_KEY))
    token = world.token()
    answer = await world.ask(token, world.proof(token, htm="POST"))
    assert_refused(answer, PROOF, PROOF_CHALLENGE)
    assert "DPoP-Nonce" not in answer.headers


async def test_a_nonce_that_is_not_asked_for() -> None:
    """Is ignored."""
    world = World()
    token = world.token()
    assert (await world.ask(token, world.proof(token, nonce="x"))).status_code == 200


@pytest.mark.parametrize("failure", [OSError("redis://secret@host"), ValueError()])
async def test_a_store_that_fails_is_a_503(failure: Exception) -> None:
    """Whether a proof was used already cannot be known then: never a pass, never a 401."""

    class Broken(MemoryStore):
        async def add(self, record: Record) -> bool:
            raise failure

    world = World()
    world.dpop._store = Broken()
    token = world.token()
    assert_unavailable(await world.ask(token, world.proof(token)))
    world.dpop._store = world.store
    assert (await world.ask(token, world.proof(token))).status_code == 200


async def test_a_store_that_says_503_itself_is_heard() -> None:
    """A ServiceUnavailable of a store goes through as it is."""

    class Away(MemoryStore):
        async def add(self, record: Record) -> bool:
            raise ServiceUnavailable(retry_after=77)

    world = World()
    world.dpop._store = Away()
    token = world.token()
    answer = await world.ask(token, world.proof(token))
    assert_unavailable(answer)
    assert answer.headers["Retry-After"] == "77"


async def test_what_was_seen_is_forgotten_when_it_can_no_longer_be_used() -> None:
    """The store holds a proof as long as it would pass, and no longer."""
    world = World(max_age_seconds=30, leeway_seconds=0)
    token = world.token()
    assert (await world.ask(token, world.proof(token))).status_code == 200
    (seen,) = world.store._records
    assert await world.store.get(seen) != [None]
    world.clock.move(32)
    assert (await world.ask(token, world.proof(token))).status_code == 200
    assert await world.store.get(seen) == [None]


@pytest.mark.parametrize(
    "options",
    [
        {"origin": "api.example"},
        {"origin": "https://api.example/"},
        {"origin": "https://api.example/path"},
        {"origin": "https://API.example"},
        {"origin": "https://api.example:443"},
        {"origin": ""},
        {"origin": None},
        {"origin": ["https://api.example"]},
        {"algorithms": []},
        {"algorithms": ["HS256"]},
        {"algorithms": ["none"]},
        {"algorithms": "ES256"},
        {"store": "redis://localhost"},
        {"store": None},
        {"nonces": NONCE_KEY},
        {"nonces": True},
        {"max_age_seconds": -1},
        {"max_age_seconds": 10_000},
        {"max_age_seconds": 1.5},
        {"leeway_seconds": True},
    ],
)
def test_a_mistake_is_refused_where_it_is_written(options: dict[str, Any]) -> None:
    """An origin that no proof would name, an algorithm that proves nothing, a text instead of a number."""
    with pytest.raises(ConfigurationError):
        DPoP(**{"store": MemoryStore(), "origin": ORIGIN, **options})
    assert DPoP(MemoryStore(), origin="http://localhost:8000").algorithms


def test_what_is_no_dpop() -> None:
    """Any other object is an error when constructed."""
    config = JWTConfig(key=ISSUER_KEY)
    with pytest.raises(ConfigurationError, match="DPoP"):
        JWTAuth(config, dpop="required")  # type: ignore[arg-type]
    assert JWTAuth(config, dpop=DPoP(MemoryStore(), origin=ORIGIN)).scheme.scheme_name == "Bearer"

    class Blind(JWTAuth):
        async def verify(self, raw: str) -> dict[str, Any]: ...  # type: ignore[empty-body]

    class Seeing(Blind):
        async def verify_request(self, connection: HTTPConnection, raw: str) -> dict[str, Any]: ...  # type: ignore[empty-body]

    with pytest.raises(ConfigurationError, match=r"Blind\.verify\(raw\) sees no proof: override verify_request"):
        Blind(config, dpop=DPoP(MemoryStore(), origin=ORIGIN))
    assert Blind(config)
    assert Seeing(config, dpop=DPoP(MemoryStore(), origin=ORIGIN))


def test_the_scheme_keeps_what_the_bearer_scheme_says() -> None:
    """Realm, OpenAPI name and model, and metadata stay; a credential from elsewhere cannot be bound."""
    dpop = DPoP(MemoryStore(), origin=ORIGIN)
    bearer = BearerScheme(realm="own", scheme_name="Own", resource_metadata="https://api.example/meta")
    scheme = dpop.scheme(bearer)
    assert (scheme.realm, scheme.scheme_name, scheme.model) == ("own", "Own", bearer.model)
    metadata = 'resource_metadata="https://api.example/meta"'
    assert scheme.plain_challenge == f'Bearer realm="own", {metadata}, DPoP realm="own", algs="{ALGS}", {metadata}'
    assert dpop.scheme(OAuth2PasswordBearer("token", auto_error=False)).scheme_name == "OAuth2PasswordBearer"
    with pytest.raises(ConfigurationError, match="Authorization field"):
        dpop.scheme(APIKeyScheme("X-Key"))
    with pytest.raises(ConfigurationError, match="Authorization field"):
        dpop.scheme(lambda: None)


async def test_the_example_of_rfc_9449() -> None:
    """The proof and the thumbprint of RFC 9449 7.1 and 6.1, at the moment for which they were made."""
    proof = (
        "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0Rs"
        "cEJoRjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2"
        "In19.eyJqdGkiOiJlMWozVl9iS2ljOC1MQUVCIiwiaHRtIjoiR0VUIiwiaHR1IjoiaHR0cHM6Ly9yZXNvdXJjZS5leGFtcGxlLm9yZy9wcm90"
        "ZWN0ZWRyZXNvdXJjZSIsImlhdCI6MTU2MjI2MjYxOCwiYXRoIjoiZlVIeU8ycjJaM0RaNTNFc05yV0JiMHhXWG9hTnk1OUlpS0NBcWtzbVFF"
        "byJ9.2oW9RP35yRqzhrtNP86L-Ey71EOptxRimPPToA1plemAgR6pxHF8y6-yqyVnmcw6Fy1dqd-jfxSYoMxhAJpLjA"
    )
    token = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU"
    clock = Clock(1_562_262_618)
    dpop = DPoP(MemoryStore(clock=clock), origin="https://resource.example.org", clock=clock)
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/protectedresource",
        "headers": [(b"authorization", f"DPoP {token}".encode()), (b"dpop", proof.encode())],
    }
    confirmation = {"cnf": {"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}}
    await dpop.check(Request(scope), token, confirmation)
    with pytest.raises(Unauthorized) as caught:
        await dpop.check(Request(scope), token, confirmation)
    assert caught.value.reason == "proof_replayed"


def test_the_example_of_rfc_7638() -> None:
    """The thumbprint of RFC 7638 3.1."""
    modulus = (
        "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMs"
        "tn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajr"
        "n1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"
    )
    key = RSAKey.import_key({"kty": "RSA", "n": modulus, "e": "AQAB", "alg": "RS256", "kid": "2011-04-29"})
    assert key.thumbprint() == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"
    assert urlsafe_b64decode(key.thumbprint() + "=")
