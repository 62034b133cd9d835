import gzip
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import httpx2
import pytest
from joserfc.jwk import ECKey

from fastapi_guard import ConfigurationError, ServiceUnavailable, Unauthorized
from fastapi_guard.issuers import DPoP, IntrospectionAuth
from fastapi_guard.jwt.http import in_process
from fastapi_guard.jwt.responses import Answer
from fastapi_guard.schemes import BearerScheme
from fastapi_guard.stores import MemoryStore
from fastapi_guard.testing.issuer import FakeIssuer
from support.clock import Clock
from support.deadlines import changed
from support.dpop import make_proof
from support.guarded import EXPIRED, EXPIRED_CHALLENGE, assert_refused, assert_unavailable, guarded_app, send

API = "https://api.example"
ENDPOINT = "https://id.example/introspect"


class World:
    """An issuer of opaque tokens, and an API that introspects them."""

    def __init__(self, **options: Any) -> None:
        """Begin."""
        self.clock = Clock()
        self.issuer = FakeIssuer(clock=self.clock)
        self.auth = IntrospectionAuth(
            self.issuer.introspection_endpoint,
            **{
                "client_id": self.issuer.client_id,
                "client_secret": self.issuer.client_secret,
                "client": self.issuer.client,
                "issuer": self.issuer.url,
                "audience": API,
                "clock": self.clock,
                **options,
            },
        )
        self.app = guarded_app(self.auth, "items:read")

    @property
    def asked(self) -> int:
        """The number of requests to the issuer."""
        return len(self.issuer.requests)


def answered(answer: Answer, **options: Any) -> IntrospectionAuth:
    """Return an Auth whose issuer always sends the same response."""

    async def fixed(method: str, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        return answer

    return IntrospectionAuth(
        ENDPOINT, client_id="api", client_secret="s", client=httpx2.AsyncClient(transport=in_process(fixed)), **options
    )


async def test_an_active_token_is_accepted_with_what_it_grants() -> None:
    """The answer is the claims; a missing scope is a 403, an unknown token a 401."""
    world = World()
    assert (await send(world.app, world.issuer.opaque_token(scope="items:read"))).json()["sub"] == "user-1"
    assert (await send(world.app, world.issuer.opaque_token(scope="items:write"))).status_code == 403
    assert_refused(await send(world.app, "unknown"))
    claims = await world.auth.verify(world.issuer.opaque_token())
    assert claims["client_id"] == "client-1"
    assert "active" not in claims
    assert world.auth.issuers == (world.issuer.url,)


@pytest.mark.parametrize("method", ["basic", "post"])
async def test_both_ways_to_authenticate(method: str) -> None:
    """In the Authorization field or in the form; a wrong secret is our fault, and so a 503."""
    world = World(client_authentication=method)
    assert await world.auth.validate_token(world.issuer.opaque_token())
    world = World(client_authentication=method, client_secret="wrong")
    assert_unavailable(await send(world.app, world.issuer.opaque_token(scope="items:read")))


async def test_what_is_sent() -> None:
    """The token, its kind and the client; id and secret are form-encoded before they are joined (RFC 6749 2.3.1)."""
    seen: list[tuple[str, str | None, bytes]] = []

    async def answer(method: str, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        seen.append((method, headers.get("Authorization"), body))
        return Answer(200, {}, b'{"active": true}')

    options: dict[str, Any] = {
        "client_id": "a:b",
        "client_secret": "c d%é",
        "client": httpx2.AsyncClient(transport=in_process(answer)),
    }
    await IntrospectionAuth(ENDPOINT, **options).verify("tok+en")
    await IntrospectionAuth(ENDPOINT, client_authentication="post", **options).verify("tok+en")
    assert seen == [
        ("POST", "Basic YSUzQWI6YytkJTI1JUMzJUE5", b"token=tok%2Ben&token_type_hint=access_token"),
        ("POST", None, b"token=tok%2Ben&token_type_hint=access_token&client_id=a%3Ab&client_secret=c+d%25%C3%A9"),
    ]


async def test_over_http() -> None:
    """Over loopback HTTP, on connections that stay open until they are closed."""
    issuer = FakeIssuer()
    with issuer.serve():
        auth = IntrospectionAuth(
            issuer.introspection_endpoint,
            client_id=issuer.client_id,
            client_secret=issuer.client_secret,
            audience=API,
        )
        for _ in range(2):
            assert await auth.validate_token(issuer.opaque_token())
        assert not await auth.validate_token("unknown")
        await auth.aclose()


async def test_the_example_of_rfc_7662() -> None:
    """The response of RFC 7662 2.2, held to its issuer and audience."""
    example = {
        "active": True,
        "client_id": "l238j323ds-23ij4",
        "username": "jdoe",
        "scope": "read write dolphin",
        "sub": "Z5O3upPC88QrAjx00dis",
        "aud": "https://protected.example.net/resource",
        "iss": "https://server.example.com/",
        "exp": 1419356238,
        "iat": 1419350238,
        "extension_field": "twenty-seven",
    }
    clock = Clock(1419350300)
    options: dict[str, Any] = {"issuer": example["iss"], "audience": example["aud"], "clock": clock}
    auth = answered(Answer(200, {}, json.dumps(example).encode()), **options)
    claims = await auth.verify("2YotnFZFEjr1zCsicMWpAA")
    assert claims["username"] == "jdoe"
    assert auth.covers(claims, "read", "dolphin")
    assert not await answered(Answer(200, {}, b'{"active": false}')).validate_token("20mhcnpqUN")


@pytest.mark.parametrize("active", ["true", "True", 1, 1.0, [True], {"x": 1}, None, False, 0, "", ...], ids=repr)
async def test_active_is_strictly_boolean(active: Any) -> None:
    """Anything but JSON's true is not active."""
    body = {"sub": "x"} if active is ... else {"sub": "x", "active": active}
    assert_refused(await send(guarded_app(answered(Answer(200, {}, json.dumps(body).encode()))), "token"))
    good = answered(Answer(200, {}, b'{"sub": "x", "active": true}'))
    assert (await send(guarded_app(good), "token")).status_code == 200


REFUSED: dict[str, dict[str, Any]] = {
    "an ID token by its hash": {"at_hash": "h"},
    "an ID token by its kind": {"token_use": "ID"},
    "a logout token": {"events": {"http://schemas.openid.net/event/backchannel-logout": {}}},
    "another issuer": {"iss": "https://attacker.example"},
    "no issuer": {"iss": None},
    "an issuer that is a list": {"iss": ["https://id.example"]},
    "another audience": {"aud": "other"},
    "no audience": {"aud": None},
    "an audience that is a number": {"aud": 7},
    "audiences of which one is none": {"aud": [API, 7]},
    "an end that is text": {"exp": "4000000000"},
    "an end that is a bool": {"exp": True},
    "an end that is infinite": {"exp": float("inf")},
    "not yet valid": {"nbf": 1_800_000_100},
    "a begin that is text": {"nbf": "1"},
    "issued in the future": {"iat": 1_800_000_100},
    "a subject that is a number": {"sub": 7},
    "an issuer that is a list ": {"iss": [["https://id.example"]]},
    "an id that is a number": {"jti": 7},
    "claimed to be bound, to no key": {"token_type": "DPoP"},
    "bound to nothing": {"cnf": {}},
    "bound to a key": {"cnf": {"jkt": "x"}},
    "a refresh token at Keycloak": {"typ": "Refresh"},
    "an ID token at Keycloak": {"typ": "ID"},
    "a refresh token at Hydra": {"token_use": "refresh_token"},
    "a refresh token by its type": {"token_type": "refresh_token"},
}


@pytest.mark.parametrize("claims", REFUSED.values(), ids=REFUSED)
async def test_an_active_token_that_is_not_for_us(claims: dict[str, Any]) -> None:
    """Issuer, audience, times, subject, kind and binding are checked, whatever the issuer thinks of the token."""
    world = World()
    if claims.get("exp") == float("inf"):
        with world.issuer.answering("/introspect", b'{"active": true, "exp": 1e999}'):
            assert_refused(await send(guarded_app(_plain(world)), "token"))
    else:
        world.issuer._opaque["token"] = {"active": True, **_good(world), **claims}
        world.issuer._opaque["token"] = {k: v for k, v in world.issuer._opaque["token"].items() if v is not None}
        world.issuer._clock = lambda: 0 if isinstance(claims.get("exp"), int | float) else -1.0
        with world.issuer.answering("/introspect", json.dumps(world.issuer._opaque["token"]).encode()):
            assert_refused(await send(world.app, "token"))
    assert (await send(world.app, _token(world))).status_code == 200


def _good(world: World) -> dict[str, Any]:
    return {"iss": world.issuer.url, "aud": API, "sub": "x", "scope": "items:read", "exp": int(world.clock()) + 60}


def _plain(world: World) -> IntrospectionAuth:
    return IntrospectionAuth(ENDPOINT, client_id="a", client_secret="s", client=world.issuer.client)


def _token(world: World) -> str:
    world.issuer._clock = world.clock
    return world.issuer.opaque_token(scope="items:read")


async def test_an_expired_token() -> None:
    """One past its expiry is refused as expired, although the issuer's answer is that it is active."""
    world = World()
    body = json.dumps({"active": True, **_good(world), "exp": int(world.clock()) - 10}).encode()
    with world.issuer.answering("/introspect", body):
        assert_refused(await send(world.app, "token"), EXPIRED, EXPIRED_CHALLENGE)
    body = json.dumps({"active": True, **_good(world), "exp": int(world.clock()) - 9}).encode()
    with world.issuer.answering("/introspect", body):
        assert (await send(world.app, "other")).status_code == 200


async def test_what_is_not_configured_is_not_named() -> None:
    """An audience in the answer without a configured one is refused; an issuer and an end may be absent."""
    assert not await answered(Answer(200, {}, b'{"active": true, "aud": "x"}')).validate_token("t")
    assert await answered(Answer(200, {}, b'{"active": true, "iss": "x"}')).validate_token("t")
    auth = answered(Answer(200, {}, b'{"active": true}'))
    assert await auth.verify("t") == {}
    assert auth.issuers == ()
    several = answered(Answer(200, {}, b'{"active": true, "aud": ["b", "c"]}'), audience=["a", "b"])
    assert await several.validate_token("t")


@pytest.mark.parametrize("raw", ["", "a b", "é", "\x00", "a\n", "a" * 20_000], ids=lambda raw: repr(raw)[:10])
async def test_what_is_no_token_is_not_sent(raw: str) -> None:
    """Nothing leaves for a text that cannot be a token."""
    world = World()
    with pytest.raises(Unauthorized):
        await world.auth.verify(raw)
    assert world.asked == 0


# --- cache


async def test_active_answers_are_kept_for_a_while() -> None:
    """A revoked token lives on for `cache_seconds` at most."""
    world = World(cache_seconds=30, inactive_cache_seconds=0)
    token = world.issuer.opaque_token(scope="items:read")
    for _ in range(3):
        assert (await send(world.app, token)).status_code == 200
    assert world.asked == 1
    world.issuer.revoke(token)
    world.clock.move(29)
    assert (await send(world.app, token)).status_code == 200
    world.clock.move(1)
    for _ in range(2):
        assert_refused(await send(world.app, token))
    assert world.asked == 3


async def test_refused_tokens_are_remembered_for_a_moment() -> None:
    """The same garbage again and again is one request in five seconds; a token that becomes active is then accepted."""
    world = World()
    token = world.issuer.opaque_token(scope="items:read")
    foreign = world.issuer.opaque_token(aud="https://other.example")
    claims = world.issuer._opaque.pop(token)
    for _ in range(3):
        assert_refused(await send(world.app, token))
        assert_refused(await send(world.app, foreign))
    assert world.asked == 2
    world.issuer._opaque[token] = claims
    world.clock.move(4.9)
    assert_refused(await send(world.app, token))
    world.clock.move(0.1)
    assert (await send(world.app, token)).status_code == 200
    assert world.asked == 3


async def test_a_flood_of_invalid_tokens_drops_no_active_answer() -> None:
    """However many texts are made up, memory is bounded, and known tokens cost no request."""
    world = World(cache_size=8)
    token = world.issuer.opaque_token(scope="items:read")
    assert (await send(world.app, token)).status_code == 200
    for number in range(20):
        assert_refused(await send(world.app, f"made-up-{number}"))
    assert (len(world.auth._refused), len(world.auth._active)) == (8, 1)
    assert (await send(world.app, token)).status_code == 200
    assert world.asked == 21


async def test_the_form_of_a_token() -> None:
    """With a pattern, a text of another form is refused without a request."""
    world = World(token_pattern=r"[A-Za-z0-9_-]{32}|at_\d+")
    token = world.issuer.opaque_token(scope="items:read")
    assert (await send(world.app, token)).status_code == 200
    for other in (token + "x", token[:-1], "x" + token, "at_", "at_12x", "a.b.c"):
        assert not world.auth.recognises(other)
        assert_refused(await send(world.app, other))
    assert world.auth.recognises("at_12")
    assert world.asked == 1


async def test_a_kept_answer_still_expires() -> None:
    """The end of a token is asked for at every use."""
    world = World(cache_seconds=3600)
    token = world.issuer.opaque_token(scope="items:read", expires_in=60)
    assert (await send(world.app, token)).status_code == 200
    world.clock.move(69)
    assert (await send(world.app, token)).status_code == 200
    world.clock.move(1)
    assert_refused(await send(world.app, token), EXPIRED, EXPIRED_CHALLENGE)
    assert world.asked == 1


async def test_the_cache_is_bounded() -> None:
    """The answer that was kept first goes first."""
    world = World(cache_size=2)
    tokens = [world.issuer.opaque_token() for _ in range(3)]
    for token in tokens:
        await world.auth.verify(token)
    assert len(world.auth._active) == 2
    await world.auth.verify(tokens[2])
    assert world.asked == 3
    await world.auth.verify(tokens[0])
    assert world.asked == 4


@pytest.mark.parametrize("options", [{"cache_seconds": 0}, {"cache_size": 0}])
async def test_without_a_cache(options: dict[str, Any]) -> None:
    """Every request is introspected, and a revocation counts at once."""
    world = World(**options)
    token = world.issuer.opaque_token()
    for _ in range(2):
        assert await world.auth.validate_token(token)
    assert world.asked == 2
    world.issuer.revoke(token)
    assert not await world.auth.validate_token(token)


async def test_claims_are_handed_out_as_a_copy() -> None:
    """An endpoint that changes its claims does not change those of the next request."""
    world = World()
    token = world.issuer.opaque_token(scope=["a"])
    (await world.auth.verify(token))["scope"].append("admin")
    assert (await world.auth.verify(token))["scope"] == ["a"]


# --- odd answers

ACTIVE = b'{"active": true, "sub": "x", "scope": "items:read"'
ODD: dict[str, bytes] = {
    "a number of 5,000 digits": ACTIVE + b', "exp": ' + b"9" * 5000 + b"}",
    "900 levels": ACTIVE + b', "x": ' + b"[" * 900 + b"]" * 900 + b"}",
    "33 levels": ACTIVE + b', "x": ' + b'{"x": ' * 33 + b"1" + b"}" * 33 + b"}",
    "a lone surrogate": ACTIVE + b', "x": "\\ud800"}',
    "a lone surrogate in a name": ACTIVE + b', "\\udfff": 1}',
    "a subject twice": ACTIVE + b', "sub": "y"}',
    "active twice": ACTIVE + b', "active": true}',
    "active, then not": ACTIVE + b', "active": false}',
    "a duplicate further down": ACTIVE + b', "x": {"y": 1, "y": 2}}',
    "NaN": ACTIVE + b', "x": NaN}',
    "an infinite number": ACTIVE + b', "exp": 1e999}',
}
ODD_TYPES: dict[str, Any] = {
    "sub": [7, True, ["x"], {"x": 1}],
    "iss": [7, True, ["x"], {"x": 1}],
    "jti": [7, True, ["x"], {"x": 1}],
    "aud": [7, True, {"x": 1}, [API, 7], [[API]], [None]],
    "exp": ["4000000000", True, [4_000_000_000], {"x": 1}],
    "nbf": ["1", False, [1], {"x": 1}],
    "iat": ["1", False, [1], {"x": 1}],
}


@pytest.mark.parametrize("body", ODD.values(), ids=ODD)
async def test_an_active_answer_that_is_malformed(body: bytes) -> None:
    """An answer is decoded as strictly as a token: a refusal is a 401, never a 500, never a pass."""
    assert_refused(await send(guarded_app(answered(Answer(200, {}, body))), "token"))
    assert (await send(guarded_app(answered(Answer(200, {}, ACTIVE + b"}"))), "token")).status_code == 200


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in ODD_TYPES.items() for value in values])
async def test_an_active_answer_with_a_wrong_type(name: str, value: Any) -> None:
    """A claim of a wrong type is malformed, and not absent."""
    body = json.dumps({"active": True, "sub": "x", "aud": API, name: value}).encode()
    assert_refused(await send(guarded_app(answered(Answer(200, {}, body), audience=API)), "token"))


@pytest.mark.parametrize("name", ["exp", "nbf", "iat", "sub", "iss", "jti", "scope", "typ", "token_use", "username"])
@pytest.mark.parametrize("value", [None, [], ""], ids=repr)
async def test_null_and_empty_count_as_absent(name: str, value: Any) -> None:
    """A member that is null or empty counts as absent, and is not among the claims (13a)."""
    body = json.dumps({"active": True, "client_id": "x", name: value}).encode()
    assert await answered(Answer(200, {}, body)).verify("token") == {"client_id": "x"}


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32-be"])
async def test_an_answer_in_another_encoding(encoding: str) -> None:
    """The issuer is at fault, and not the token: a 503 (RFC 8259 8.1)."""
    body = json.dumps({"active": True, "sub": "x"}).encode(encoding)
    response = await send(guarded_app(answered(Answer(200, {}, body))), "token")
    assert response.status_code == 503


@pytest.mark.parametrize("value", [None, [], ""], ids=repr)
async def test_an_audience_that_says_nothing(value: Any) -> None:
    """It counts as absent: refused if an audience is required, and accepted if there is none."""
    body = json.dumps({"active": True, "sub": "x", "aud": value}).encode()
    assert await answered(Answer(200, {}, body)).validate_token("token")
    assert not await answered(Answer(200, {}, body), audience=API).validate_token("token")


async def test_an_answer_in_odd_clothes() -> None:
    """A byte order mark and compression are accepted."""
    body = b"\xef\xbb\xbf" + json.dumps({"active": True, "sub": "x"}).encode()
    assert await answered(Answer(200, {"Content-Encoding": ""}, body)).verify("token") == {"sub": "x"}
    compressed = Answer(200, {"Content-Encoding": "gzip"}, gzip.compress(body))
    assert await answered(compressed).verify("token") == {"sub": "x"}


@pytest.mark.parametrize("code", ["unsupported_token_type", "invalid_token"])
async def test_a_400_about_the_token(code: str) -> None:
    """A server that rejects this kind of token responds with a 400, and the client gets a 401."""
    body = json.dumps({"error": code, "error_description": "no"}).encode()
    assert_refused(await send(guarded_app(answered(Answer(400, {}, body))), "token"))


@pytest.mark.parametrize(
    "body",
    [
        b'{"error": "invalid_client"}',
        b'{"error": "invalid_request"}',
        b'{"error": ["x"]}',
        b"{}",
        b"[]",
        b"<html>",
        b"",
    ],
)
async def test_a_400_about_the_request(body: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """Any other 400 is about this API, and so a 503, with the code in the log."""
    assert_unavailable(await send(guarded_app(answered(Answer(400, {}, body))), "token"))
    if b"invalid_client" in body:
        assert "the error 'invalid_client'" in caplog.text


# --- tokens that are bound to a key


async def test_bound_tokens() -> None:
    """With `dpop`, a bound token passes beside its proof, once (RFC 9449 6.2); as a bearer token it is refused."""
    world = World(dpop=DPoP(MemoryStore(), origin=API))
    key = ECKey.generate_key("P-256")
    token = world.issuer.opaque_token(scope="items:read", cnf={"jkt": key.thumbprint()}, token_type="DPoP")
    proof = {"DPoP": make_proof(key, token)}
    assert (await send(world.app, token, scheme="DPoP", headers=proof)).status_code == 200
    assert (await send(world.app, token, scheme="DPoP", headers=proof)).status_code == 401
    assert (await send(world.app, token, scheme="DPoP")).status_code == 401
    assert (await send(world.app, token)).status_code == 401
    assert not await world.auth.validate_token(token)
    other = {"DPoP": make_proof(ECKey.generate_key("P-256"), token)}
    assert (await send(world.app, token, scheme="DPoP", headers=other)).status_code == 401
    plain = world.issuer.opaque_token(scope="items:read")
    assert (await send(world.app, plain)).status_code == 200
    assert (await send(world.app, plain, scheme="DPoP", headers=proof)).status_code == 401
    keyless = world.issuer.opaque_token(scope="items:read", token_type="dpop")
    for scheme in ("Bearer", "DPoP"):
        assert (await send(world.app, keyless, scheme=scheme, headers=proof)).status_code == 401


# --- outages


@pytest.mark.parametrize(
    "answer",
    [
        Answer(401),
        Answer(400),
        Answer(403),
        Answer(404),
        Answer(500),
        Answer(307, {"Location": "https://elsewhere.example"}),
        Answer(200, {}, b"<html>"),
        Answer(200, {}, b"[]"),
        Answer(200, {}, b"true"),
        Answer(200, {}, b"[" * 100_000),
        Answer(200, {"Content-Encoding": "br"}, b"{}"),
        Answer(200, {}, b'{"active": true, "x": "' + b"x" * 300_000 + b'"}'),
    ],
    ids=lambda answer: f"{answer.status} {bytes(answer.body)[:20]!r}",
)
async def test_an_issuer_that_does_not_answer_the_question(answer: Answer) -> None:
    """An error, a page, a redirect, too much: 503, never 401, never a pass."""
    assert_unavailable(await send(guarded_app(answered(answer)), "token"))


async def test_an_issuer_that_is_away() -> None:
    """503 while it is down or slow; kept answers serve meanwhile; it recovers."""
    world = World()
    kept = world.issuer.opaque_token(scope="items:read")
    other = world.issuer.opaque_token(scope="items:read")
    assert (await send(world.app, kept)).status_code == 200
    for fault in (world.issuer.outage(), world.issuer.slow(3600), world.issuer.slow(seconds_a_byte=60)):
        with fault, changed(world.auth._poster, "_timeout_seconds", 0.01):
            assert_unavailable(await send(world.app, other))
            assert (await send(world.app, kept)).status_code == 200
            with pytest.raises(ServiceUnavailable):
                await world.auth.validate_token(other)
    assert (await send(world.app, other)).status_code == 200


@pytest.mark.parametrize(
    "options",
    [
        {"endpoint": "http://id.example/introspect"},
        {"client_id": ""},
        {"client_secret": ""},
        {"client_secret": None},
        {"client_authentication": "digest"},
        {"dpop": "DPoP"},
        {"token_pattern": "["},
        {"token_pattern": 7},
        {"inactive_cache_seconds": -1},
        {"max_bytes": 1.5},
        {"issuer": ""},
        {"issuer": 7},
        {"audience": ""},
        {"audience": []},
        {"audience": [""]},
        {"audience": 7},
        {"leeway_seconds": -1},
        {"leeway_seconds": 301},
        {"leeway_seconds": 1.5},
        {"cache_seconds": -1},
        {"cache_seconds": float("nan")},
        {"cache_size": True},
        {"timeout_seconds": 0},
        {"max_bytes": 0},
    ],
    ids=repr,
)
def test_a_mistake_is_refused_where_it_is_written(options: dict[str, Any]) -> None:
    """No secret, an endpoint without TLS, a text instead of a number."""
    with pytest.raises(ConfigurationError):
        IntrospectionAuth(**{"endpoint": ENDPOINT, "client_id": "a", "client_secret": "s", **options})


@pytest.mark.parametrize("name", ["endpoint", "client_authentication", "issuer", "audience", "token_pattern"])
def test_a_secret_in_the_wrong_place(name: str) -> None:
    """No error repeats what was passed: it may be the secret."""
    wrong: Any = ["hunter2", ""] if name in ("issuer", "audience") else "hunter2["
    with pytest.raises(ConfigurationError) as refusal:
        IntrospectionAuth(**{"endpoint": ENDPOINT, "client_id": "a", "client_secret": "s", name: wrong})
    assert "hunter2" not in str(refusal.value)


def test_an_option_that_does_not_exist() -> None:
    """A misspelled option is a TypeError that names it."""
    with pytest.raises(TypeError, match="audiance"):
        IntrospectionAuth(ENDPOINT, client_id="a", client_secret="s", audiance="x")  # type: ignore[call-arg]


def test_the_secret_is_in_no_repr() -> None:
    """Neither the Auth nor what it holds shows it."""
    auth = IntrospectionAuth(ENDPOINT, client_id="a", client_secret="hunter2-hunter2")
    assert "hunter2" not in repr(auth) + repr(auth._poster)


async def test_a_clock_that_is_set_back() -> None:
    """No answer is kept for longer than it would be, by a clock that is set back."""
    world = World(cache_seconds=30, inactive_cache_seconds=5)
    token, foreign = world.issuer.opaque_token(scope="items:read"), "foreign"
    assert (await send(world.app, token)).status_code == 200
    assert_refused(await send(world.app, foreign))
    assert world.asked == 2
    world.clock.move(-3600)
    world.auth._accepted = replace(world.auth._accepted, leeway_seconds=7200)
    world.issuer.revoke(token)
    assert_refused(await send(world.app, token))
    assert_refused(await send(world.app, foreign))
    assert world.asked == 4


async def test_a_check_of_proofs_that_refuses() -> None:
    """``False`` is a refusal, and a check that is not an ``async def`` is an error when constructed."""

    class Proofs:
        algorithms = ("ES256",)

        def scheme(self, bearer: object) -> BearerScheme:
            return BearerScheme()

        async def check(self, *_: object) -> Any:
            return False

    world = World(dpop=Proofs())
    assert_refused(await send(world.app, world.issuer.opaque_token(scope="items:read")))
