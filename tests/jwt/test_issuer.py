"""Tokens that a JWTAuth issues."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from joserfc import jwt
from joserfc.jwk import JWKRegistry

from fastapi_guard import BearerAccessToken, ConfigurationError, JWTAuth, JWTConfig
from fastapi_guard.jwt.compact import MAX_DEPTH
from support.tokens import ALGORITHMS, AUDIENCE, ISSUER, KEYS, NOW, auth_of, decode_unverified, fixed_clock

KEY = KEYS["ES256"]


@pytest.mark.filterwarnings("ignore:EdDSA is deprecated:joserfc.errors.SecurityWarning")
@pytest.mark.parametrize("name", ALGORITHMS)
async def test_issued_tokens_are_accepted(name: str) -> None:
    """An Auth accepts the tokens that it issues, and so does joserfc."""
    auth = auth_of(name)
    token = auth.encode({"sub": "ada", "scope": "items:read"})
    claims = await auth.verify(token)
    assert claims == {"sub": "ada", "scope": "items:read", "iss": ISSUER, "aud": AUDIENCE, "iat": NOW} | {
        "exp": NOW + 3600,
        "jti": claims["jti"],
    }
    assert decode_unverified(token)[0] == {"alg": name, "kid": KEYS[name].thumbprint(), "typ": "JWT"}
    assert jwt.decode(token, KEYS[name], algorithms=[name]).claims == claims


def test_what_is_added_to_a_payload() -> None:
    """iat, iss, aud, exp and jti are added where they are not there; explicit values win; nothing passed is changed."""
    auth = auth_of("ES256", audience=[AUDIENCE, "b"])
    payload: dict[str, Any] = {}
    added = decode_unverified(auth.encode(payload))[1]
    assert payload == {}
    assert {name: added[name] for name in ("iat", "iss", "aud", "exp")} == {
        "iat": NOW,
        "iss": ISSUER,
        "aud": [AUDIENCE, "b"],
        "exp": NOW + 3600,
    }
    assert len(added["jti"]) == 22
    own = {"iat": NOW - 5, "iss": "https://own.example", "aud": "own", "exp": NOW + 5, "jti": "own", "nbf": NOW}
    assert decode_unverified(auth.encode(own))[1] == own
    bare = JWTAuth(JWTConfig(key=KEY, expiration_seconds=None), clock=fixed_clock)
    assert set(decode_unverified(bare.encode({}))[1]) == {"iat", "jti"}


def test_every_token_has_a_name_of_its_own() -> None:
    """No two tokens share a jti."""
    auth = auth_of("HS256")
    assert len({decode_unverified(auth.encode({}))[1]["jti"] for _ in range(100)}) == 100


@pytest.mark.parametrize(
    ("expires_in", "lifetime"),
    [
        (None, 3600),
        (1, 1),
        (0, 0),
        (-60, -60),
        (1.9, 1),
        (timedelta(minutes=5), 300),
        (timedelta(0), 0),
        (timedelta(days=-1), -86_400),
    ],
)
def test_expires_in(expires_in: float | timedelta | None, lifetime: int) -> None:
    """A lifetime is seconds or a timedelta; zero is zero, and only None is the configured one."""
    auth = auth_of("HS256")
    assert decode_unverified(auth.encode({}, expires_in))[1]["exp"] == NOW + lifetime
    response = auth.create_access_token({}, expires_in)
    assert decode_unverified(response.access_token)[1]["exp"] == NOW + lifetime
    assert response.expires_in == max(0, lifetime)


@pytest.mark.parametrize(
    ("payload", "expires_in"),
    [
        ({"exp": NOW + 30}, 30),
        ({"exp": NOW + 30.5}, 30),
        ({"exp": NOW - 30}, 0),
        ({"iat": NOW - 1000}, 2600),
        ({"iat": NOW + 5}, 3605),
        ({"iat": NOW - 1000, "exp": NOW + 7}, 7),
    ],
)
def test_the_response_says_what_was_applied(payload: dict[str, Any], expires_in: int) -> None:
    """expires_in is counted from now (RFC 6749 5.1); the lifetime is counted from iat."""
    response = auth_of("HS256").create_access_token(payload, 3600)
    assert (response.token_type, response.expires_in) == ("bearer", expires_in)


@pytest.mark.parametrize("issued", [NOW - 1000, NOW - 1000.0, NOW - 1000.5])
async def test_exp_is_counted_from_iat(issued: float) -> None:
    """The lifetime is counted from the iat of the payload; exp has a fraction where iat has one, and else none."""
    auth = auth_of("HS256")
    claims = await auth.verify(auth.encode({"iat": issued}, 1060))
    assert claims["exp"] == issued + 1060
    assert isinstance(claims["exp"], int) is (issued != NOW - 1000.5)


async def test_a_token_response() -> None:
    """The answer of a login is that of RFC 6749 5.1, without expires_in where it never expires; its repr is silent."""
    app = FastAPI()
    lasting = JWTAuth(JWTConfig(key=KEY, expiration_seconds=None), clock=fixed_clock)

    @app.post("/{kind}")
    async def login(kind: str) -> BearerAccessToken:
        return (lasting if kind == "lasting" else auth_of("ES256")).create_access_token({"sub": "ada"})

    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://api.example") as client:
        answer = (await client.post("/usual")).json()
        assert {**answer, "access_token": "..."} == {"access_token": "...", "token_type": "bearer", "expires_in": 3600}
        assert await auth_of("ES256").validate_token(answer["access_token"])
        answer = (await client.post("/lasting")).json()
    assert set(answer) == {"access_token", "token_type"}
    assert await lasting.verify(answer["access_token"])
    response = lasting.create_access_token({})
    assert response.access_token not in f"{response!r} {response}"


async def test_times_as_datetimes() -> None:
    """Aware datetimes become seconds, in whatever zone; a naive one is refused."""
    moment = datetime.fromtimestamp(NOW + 60, UTC)
    auth = auth_of("ES256")
    token = auth.encode(
        {"exp": moment.astimezone(), "nbf": datetime.fromtimestamp(NOW, UTC), "iat": datetime.fromtimestamp(NOW, UTC)}
    )
    claims = await auth.verify(token)
    assert (claims["exp"], claims["nbf"], claims["iat"]) == (NOW + 60, NOW, NOW)
    with pytest.raises(ValueError, match=r"exp is a datetime without a time zone: use datetime.now\(UTC\)"):
        auth.encode({"exp": moment.replace(tzinfo=None)})


def nested(depth: int) -> list[Any]:
    """Return lists within lists."""
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ({"sub": 5}, r"sub is a non-empty string .*str\(user.id\), not int"),
        ({"sub": None}, "sub is a non-empty string"),
        ({"sub": ""}, "sub is a non-empty string"),
        ({"jti": 5}, "jti is a non-empty string"),
        ({"iss": ""}, "iss is a non-empty string"),
        ({"exp": None}, "exp is a finite number of seconds"),
        ({"exp": "tomorrow"}, "exp is a finite number of seconds"),
        ({"exp": True}, "exp is a finite number of seconds"),
        ({"nbf": "x"}, "nbf is a finite number of seconds"),
        ({"iat": None}, "iat is a finite number of seconds"),
        ({"x": float("nan")}, "Out of range float values are not JSON compliant"),
        ({"exp": float("inf")}, "exp is a finite number of seconds"),
        ({"iat": float("nan")}, "iat is a finite number of seconds"),
        ({"iat": 10**400}, "iat is a finite number of seconds"),
        ({"exp": 10**400}, "exp is a finite number of seconds"),
        ({"x": "\ud800"}, "a text holds half of a surrogate pair"),
        ({"\udfff": 1}, "a text holds half of a surrogate pair"),
        ({"x": nested(MAX_DEPTH)}, "nested deeper than 32 levels"),
        ({"x": nested(100_000)}, "nested deeper than 32 levels"),
        ({"x": {1: 1, "1": 2}}, "a name is there twice once it is text"),
        ({1: 1, "1": 2}, "the name of a claim is text"),
        ({1: 1}, "the name of a claim is text"),
        ({"cnf": {"jkt": "x"}}, "a token with cnf is bound to a key"),
        ({"x": "x" * 13_000}, "more than max_token_bytes: put less into it"),
    ],
)
def test_payloads_that_would_be_refused(payload: dict[str, Any], message: str) -> None:
    """A token that this same Auth would refuse is not issued."""
    with pytest.raises(ValueError, match=message):
        auth_of("ES256").encode(payload)
    with pytest.raises(ValueError, match=message):
        auth_of("ES256").create_access_token(payload)


async def test_the_deepest_payload() -> None:
    """Claims as deep as a verification accepts are issued."""
    auth = auth_of("ES256")
    claims = await auth.verify(auth.encode({"x": nested(MAX_DEPTH - 1)}))
    assert claims["x"] == nested(MAX_DEPTH - 1)


@pytest.mark.parametrize("expires_in", ["60", True, float("inf"), float("nan"), [60], Decimal(60)])
def test_lifetimes_that_are_none(expires_in: Any) -> None:
    """A lifetime is a finite number of seconds, or a timedelta."""
    auth = auth_of("ES256")
    for issue in (auth.encode, auth.create_access_token):
        with pytest.raises(ValueError, match=r"^expires_in is a finite number of seconds, or a timedelta, not "):
            issue({}, expires_in)


@pytest.mark.parametrize("audience", ["", [], [""], [1], 1, None, {"a": 1}])
def test_audiences_that_would_be_refused(audience: Any) -> None:
    """An audience that no verification accepts is not issued."""
    assert auth_of("ES256").encode({"aud": ("a", "b")})
    with pytest.raises(ValueError, match=r"^aud is a non-empty string, or a list of such"):
        auth_of("ES256").encode({"aud": audience})


@pytest.mark.parametrize("payload", ["ada", 7, None, [("sub", "ada")]])
def test_a_payload_that_is_no_mapping(payload: Any) -> None:
    """The subject alone, as other libraries want it, is an error that shows what to pass."""
    auth = auth_of("ES256")
    for issue in (auth.encode, auth.create_access_token):
        with pytest.raises(TypeError, match=r'^the payload is a mapping of claims, such as {"sub": "ada"}, not '):
            issue(payload)


async def test_sets_in_a_payload() -> None:
    """A set of scopes, as `granted()` returns it, is written as a sorted list; other types are a mistake."""
    auth = auth_of("ES256")
    assert (await auth.verify(auth.encode({"scope": {"b", "a"}, "scp": frozenset("c")})))["scope"] == ["a", "b"]
    with pytest.raises(TypeError, match=r"^a value of type object cannot be written as JSON$"):
        auth.encode({"x": object()})


def test_issuing_without_a_private_key() -> None:
    """Issuing with a public key, or with none, is a mistake of the configuration."""
    public = JWKRegistry.import_key(KEY.as_dict(private=False))
    for config in (JWTConfig(key=public), JWTConfig(algorithms=["ES256"])):
        with pytest.raises(ConfigurationError, match=r"there is no key to sign with"):
            JWTAuth(config).encode({})


def test_members_of_the_header() -> None:
    """Issued tokens carry the configured members, beside alg and kid."""
    auth = auth_of("ES256", header={"typ": "at+jwt", "x": 1})
    assert decode_unverified(auth.encode({}))[0] == {"alg": "ES256", "kid": KEY.thumbprint(), "typ": "at+jwt", "x": 1}
    auth = auth_of("ES256", header={"x5c": ["M" * 8192]})
    assert decode_unverified(auth.encode({}))[0]["x5c"] == ["M" * 8192]
