from dataclasses import replace
from typing import Any

import pytest
from joserfc.jwk import ECKey, RSAKey

from fastapi_guard import ConfigurationError, JWTAuth, JWTConfig
from fastapi_guard.jwt.compact import decode_base64url, decode_object
from support.clock import Clock
from support.guarded import assert_refused, guarded_app, send
from support.tokens import KEYS, forge

KEY = ECKey.generate_key("P-256")
CLIENT = {"sub": "ada", "client_id": "client-1"}


def config_of(**settings: Any) -> JWTConfig:
    """Return a configuration of the profile."""
    own = {"key": KEY, "issuer_url": "https://id.example", "audience": "https://api.example", "profile": "rfc9068"}
    return JWTConfig(**{**own, **settings})


async def test_an_access_token_of_rfc_9068_is_issued_and_accepted() -> None:
    """Typ is at+jwt, and the claims of section 2.2 are all there."""
    auth = JWTAuth(config_of(), clock=Clock())
    token = auth.create_access_token({**CLIENT, "scope": "items:read"}).access_token
    header, payload, _ = (decode_base64url(part.encode()) for part in token.split("."))
    assert decode_object(header)["typ"] == "at+jwt"
    assert decode_object(payload).keys() == {"iss", "exp", "aud", "sub", "client_id", "iat", "jti", "scope"}
    assert (await send(guarded_app(auth, "items:read"), token)).status_code == 200


@pytest.mark.parametrize(
    "payload", [{"sub": "ada"}, {"client_id": "c"}, {}, {**CLIENT, "client_id": ""}, {**CLIENT, "client_id": 7}]
)
def test_what_would_be_refused_is_not_issued(payload: dict[str, Any]) -> None:
    """Without a client or a subject there is no token; a plain configuration issues one all the same."""
    with pytest.raises(ValueError, match=r"client_id|sub"):
        JWTAuth(config_of()).encode(payload)
    if payload.get("client_id", "x") == "x":
        assert JWTAuth(config_of(profile=None)).encode(payload)


@pytest.mark.parametrize("name", ["iss", "exp", "aud", "sub", "client_id", "iat", "jti"])
async def test_each_claim_of_the_profile_is_required(name: str) -> None:
    """A token that lacks one is refused, the same one with it accepted."""
    clock = Clock()
    app = guarded_app(JWTAuth(config_of(), clock=clock))
    claims = {**CLIENT, "iss": "https://id.example", "aud": "https://api.example", "jti": "j"}
    claims |= {"iat": int(clock()), "exp": int(clock()) + 60}
    header = {"typ": "at+jwt"}
    assert (await send(app, forge("ES256", claims, header, key=KEY))).status_code == 200
    del claims[name]
    assert_refused(await send(app, forge("ES256", claims, header, key=KEY)))


@pytest.mark.parametrize(
    ("typ", "status"), [("at+jwt", 200), ("AT+JWT", 200), ("application/at+jwt", 200), ("JWT", 401), (None, 401)]
)
async def test_the_type_is_required(typ: str | None, status: int) -> None:
    """at+jwt, as a media type in any spelling; a token that does not say what it is, is refused."""
    clock = Clock()
    app = guarded_app(JWTAuth(config_of(), clock=clock))
    claims = {**CLIENT, "iss": "https://id.example", "aud": "https://api.example", "jti": "j"}
    claims |= {"iat": int(clock()), "exp": int(clock()) + 60}
    answer = await send(app, forge("ES256", claims, {} if typ is None else {"typ": typ}, key=KEY))
    assert answer.status_code == status
    if status == 401:
        assert_refused(answer)


async def test_the_example_of_rfc_9068() -> None:
    """The header and the claims of RFC 9068 figure 2, at a moment when they hold."""
    header = {"typ": "at+JWT", "alg": "RS256", "kid": "RjEwOwOA"}
    claims = {
        "iss": "https://authorization-server.example.com/",
        "sub": "5ba552d67",
        "aud": "https://rs.example.com/",
        "exp": 1639528912,
        "iat": 1618354090,
        "jti": "dbe39bf3a3ba4238a513f51d6e1691c4",
        "client_id": "s6BhdRkqt3",
        "scope": "openid profile reademail",
    }
    rsa = RSAKey.import_key({**KEYS["RS256"].as_dict(private=True), "kid": header["kid"]})
    config = config_of(key=rsa, issuer_url=claims["iss"], audience=claims["aud"])
    app = guarded_app(JWTAuth(config, clock=Clock(1618354100)), "reademail")
    assert (await send(app, forge("RS256", claims, header, key=rsa))).status_code == 200
    assert_refused(await send(app, forge("RS256", {**claims, "aud": "https://other.example.com/"}, header, key=rsa)))


@pytest.mark.parametrize(
    "settings",
    [
        {"profile": "rfc7519"},
        {"profile": True},
        {"issuer_url": None},
        {"audience": None},
        {"expiration_seconds": None},
        {"token_types": ["JWT"]},
    ],
    ids=repr,
)
def test_a_configuration_that_contradicts_the_profile(settings: dict[str, Any]) -> None:
    """A setting that the profile needs or fixes raises ConfigurationError when constructed."""
    with pytest.raises(ConfigurationError):
        config_of(**settings)


def test_a_configuration_of_the_profile_can_be_copied() -> None:
    """A copy with another key keeps the profile."""
    copied = replace(config_of(), key=ECKey.generate_key("P-256"))
    assert copied.profile == "rfc9068"
    assert copied.token_types == ("at+jwt",)
    assert copied.issued_header("ES256", "one")["typ"] == "at+jwt"
