import dataclasses
import json
import logging
from base64 import urlsafe_b64decode
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any
from unittest.mock import AsyncMock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc.errors import InvalidClaimError, JoseError
from joserfc.jwk import ECKey, JWKRegistry, KeySet
from joserfc.jwt import JWTClaimsRegistry

from fastapi_guard import ConfigurationError, JWTAuth, JWTConfig, Unauthorized
from fastapi_guard.jwt.algorithms import ASYMMETRIC
from fastapi_guard.jwt.compact import Header
from fastapi_guard.jwt.verification_keys import VerificationKeys
from support.tokens import (
    ALGORITHMS,
    AUDIENCE,
    FOREIGN_KEYS,
    ISSUER,
    KEYS,
    NOW,
    config_of,
    fixed_clock,
    forge,
    valid_claims,
)

KEY = KEYS["ES256"]
PUBLIC = JWKRegistry.import_key(KEY.as_dict(private=False))


class Source:
    """A source of keys, with none of them: as much of one as a configuration looks at."""

    load = AsyncMock()

    def peek(self) -> None:
        """Have none."""


class Published(Source):
    """A source with the public key of another issuer, as several configurations may share it."""

    def for_algorithms(self, algorithms: Sequence[str]) -> "Published":
        """Return this source."""
        return self

    def peek(self) -> VerificationKeys:  # type: ignore[override]
        """Have it."""
        return VerificationKeys([KEY], ["ES256"])


def config(**settings: Any) -> JWTConfig:
    """Return a configuration with an elliptic key."""
    return JWTConfig(**({"key": KEY} | settings))


def refusal_of(check: Callable[..., object], *arguments: object, **named: object) -> tuple[str, str | None, str]:
    """Return the detail, the error code and the reason with which a check refuses."""
    with pytest.raises(Unauthorized) as refused:
        check(*arguments, **named)
    return refused.value.detail, refused.value.error, refused.value.reason


def invalid(reason: str) -> tuple[str, str, str]:
    """Return what ``refusal_of`` returns for an invalid token."""
    return "The access token is invalid", "invalid_token", reason


# --- every setting is read -------------------------------------------------------------------------------------------


def issued(settings: JWTConfig) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the header and the claims of an issued token."""
    head, payload, _ = JWTAuth(settings, clock=fixed_clock).encode({"jti": "1"}).split(".")
    return tuple(json.loads(urlsafe_b64decode(part + "==")) for part in (head, payload))  # type: ignore[return-value]


async def kid_and_alg(settings: JWTConfig) -> object:
    """Observe the header that names the key."""
    return issued(settings)[0]["kid"], issued(settings)[0]["alg"]


async def issued_header(settings: JWTConfig) -> object:
    """Observe the header of an issued token."""
    return issued(settings)[0]


async def issued_claims(settings: JWTConfig) -> object:
    """Observe the claims of an issued token."""
    return issued(settings)[1]


def accepts(header: Mapping[str, Any] | None = None, **claims: Any) -> Callable[[JWTConfig], Awaitable[object]]:
    """Observe whether a token is accepted."""

    async def observe(settings: JWTConfig) -> bool:
        token = forge("ES256", valid_claims(aud=..., iss=...) | claims, header)
        return await JWTAuth(settings, clock=fixed_clock).validate_token(token)

    return observe


async def verified_twice(settings: JWTConfig) -> object:
    """Observe how often a token's signature is checked, in two verifications."""
    auth, asked = JWTAuth(settings, clock=fixed_clock), []

    class Counting(VerificationKeys):
        def verify(self, signing_input: bytes, header_segment: bytes, signature: bytes) -> Header:
            asked.append(signature)
            return super().verify(signing_input, header_segment, signature)

    auth._verifier.use(Counting([KEY], ["ES256"]))
    token = auth.encode({})
    assert await auth.verify(token) == await auth.verify(token)
    return len(asked)


RSA = KEYS["RS256"]
GRACE_ONLY = JWTClaimsRegistry(sub={"essential": True, "value": "grace"})
PLACE = {"issuer_url": ISSUER, "audience": AUDIENCE}  # what the profile cannot do without
# For each setting: two configurations that differ in it alone, and something that comes out differently.
READ: dict[str, tuple[dict[str, Any], dict[str, Any], Callable[[JWTConfig], Awaitable[object]]]] = {
    "key": ({"key": KEY}, {"key": FOREIGN_KEYS["ES256"]}, kid_and_alg),
    "algorithms": ({"key": RSA, "algorithms": ["RS256"]}, {"key": RSA, "algorithms": ["PS512"]}, kid_and_alg),
    "issuer_url": ({"issuer_url": ISSUER}, {"issuer_url": None}, issued_claims),
    "audience": ({"audience": AUDIENCE}, {"audience": [AUDIENCE]}, issued_claims),
    "expiration_seconds": ({"expiration_seconds": 60}, {"expiration_seconds": 61}, issued_claims),
    "leeway_seconds": ({"leeway_seconds": 5}, {"leeway_seconds": 4}, accepts(exp=NOW - 4)),
    "header": ({"header": {"x": 1}}, {"header": {"x": 2}}, issued_header),
    "claims_registry": ({"claims_registry": None}, {"claims_registry": GRACE_ONLY}, accepts()),
    "audience_claim": (
        {"audience": AUDIENCE, "audience_claim": "aud"},
        {"audience": AUDIENCE, "audience_claim": "client_id"},
        accepts(aud=AUDIENCE),
    ),
    "access_mark": ({"access_mark": None}, {"access_mark": {"kind": "access"}}, accepts()),
    "no_id_tokens": (
        {"key": Published(), "no_id_tokens": False},
        {"key": Published(), "no_id_tokens": True},
        accepts(scope=""),
    ),
    "requires_type": ({"requires_type": False}, {"requires_type": True}, accepts()),
    "token_types": ({"token_types": ["JWT"]}, {"token_types": ["at+jwt"]}, accepts({"typ": "JWT"})),
    "max_token_bytes": ({"max_token_bytes": 2000}, {"max_token_bytes": 1000}, accepts(x="x" * 700)),
    "profile": (
        {**PLACE, "profile": None},
        {**PLACE, "profile": "rfc9068"},
        accepts(iss=ISSUER, aud=AUDIENCE, jti="j"),
    ),
    "cache_size": ({"cache_size": 0}, {"cache_size": 1}, verified_twice),
}


def test_every_setting_has_a_test_that_it_is_read() -> None:
    """A setting that nothing reads is a promise without effect: this fails on one without an entry above."""
    assert {field.name for field in dataclasses.fields(JWTConfig) if field.init} == set(READ)


@pytest.mark.parametrize("name", READ)
async def test_every_setting_is_read(name: str) -> None:
    """Two configurations that differ in one setting behave differently."""
    one, other, observe = READ[name]
    shared = {"key", *PLACE} - {name}
    assert set(one) - shared | {name} == set(other) - shared | {name} == {name}
    seen = [await observe(config(**settings)) for settings in (one, other, one)]
    assert seen[0] == seen[2] != seen[1]


@pytest.mark.parametrize("claims", [{"iss": ISSUER}, {"aud": AUDIENCE}, {"exp": NOW - 11}, {"exp": ...}])
async def test_settings_are_read_in_verification_too(claims: dict[str, Any]) -> None:
    """The issuer, the audience and the lifetime are settings of what is accepted, not only of what is issued."""
    settings = {"iss": {"issuer_url": ISSUER}, "aud": {"audience": AUDIENCE}, "exp": {"expiration_seconds": None}}
    (name,) = claims
    token = forge("ES256", valid_claims(**{"iss": ..., "aud": ..., **claims}))
    strict = config() if name != "iss" else config(issuer_url="https://other.example")
    loose = config(**settings[name])
    assert await JWTAuth(strict, clock=fixed_clock).validate_token(token) is False
    assert await JWTAuth(loose, clock=fixed_clock).validate_token(token) is (claims != {"exp": NOW - 11})


# --- what is refused at construction --------------------------------------------------------------------------------

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"key": None}, "pass a key; or, for keys that fetch_jwks brings, name the algorithms"),
    ({"key": None, "algorithms": ["HS256"]}, "a symmetric algorithm needs a key of its own"),
    ({"key": Source(), "algorithms": ["HS256"]}, "a symmetric algorithm needs a key of its own"),
    ({"key": Source(), "algorithms": ["none"]}, "algorithms needs names among"),
    ({"key": None, "algorithms": "ES256"}, "algorithms is a list of names, such as .*, not text of 5 characters"),
    ({"algorithms": []}, "algorithms needs names among .*, not none$"),
    ({"algorithms": ()}, "algorithms needs names among .*, not none$"),
    ({"algorithms": ""}, "algorithms is a list of names"),
    ({"key": Source(), "algorithms": []}, "algorithms needs names among .*, not none$"),
    ({"key": None, "algorithms": []}, "algorithms needs names among .*, not none$"),
    ({"algorithms": ["none"]}, "algorithms needs names among"),
    ({"algorithms": ["HS256"]}, "a key of type EC P-256 fits none of the algorithms HS256"),
    ({"algorithms": ["ES384"]}, "a key of type EC P-256 fits none of the algorithms ES384"),
    ({"key": [KEY, KEYS["HS256"]]}, "use one configuration for each"),
    ({"key": [KEY, KEYS["HS256"]], "algorithms": ["ES256"]}, "a key of type oct fits none of the algorithms ES256"),
    ({"key": [KEY, KEYS["ES384"]], "algorithms": ["ES256"]}, "a key of type EC P-384 fits none"),
    ({"key": "a password that somebody typed"}, "neither PEM nor JWK"),
    ({"key": KeySet([])}, "key is empty: pass at least one"),
    ({"key": KEY, "audience_claim": ""}, "audience_claim is the name of a claim"),
    ({"key": KEY, "audience_claim": 5}, "audience_claim is the name of a claim"),
    ({"key": KEY, "requires_type": 1}, "requires_type is True or False, not 1"),
    ({"key": Source(), "no_id_tokens": 1}, "no_id_tokens is True or False, not 1"),
    ({"key": KEY, "no_id_tokens": True}, "no_id_tokens is for keys that are fetched"),
    (
        {"key": Published(), "no_id_tokens": True, "access_mark": {"scope": True}},
        "no_id_tokens is for keys that are fetched",
    ),
    ({"access_mark": {}}, "access_mark names a claim that access tokens have and ID tokens do not"),
    ({"access_mark": "scope"}, "access_mark names a claim"),
    ({"access_mark": {"kind": None}}, r"access_mark\['kind'\] is the value"),
    ({"access_mark": {"kind": ["access", ""]}}, r"access_mark\['kind'\] is the value"),
    ({"key": ECKey.import_key({**PUBLIC.as_dict(), "use": "enc"})}, "or its alg or use excludes all"),
    ({"issuer_url": ""}, "issuer_url is the exact text of the iss claim, or None"),
    ({"issuer_url": ["a"]}, "issuer_url is the exact text of the iss claim, or None"),
    ({"audience": ""}, "audience is text or a list of texts, not text of 0 characters"),
    ({"audience": []}, "audience is empty: name at least one"),
    ({"audience": [""]}, "audience is text or a list of texts"),
    ({"audience": [1]}, "audience is text or a list of texts"),
    ({"audience": 5}, "audience is text or a list of texts, not 5"),
    ({"audience": {"a": 1}}, "audience is text or a list of texts"),
    ({"token_types": []}, "token_types is empty: name at least one"),
    ({"token_types": [None]}, "token_types is text or a list of texts"),
    ({"header": ["typ"]}, "header is a mapping of members by their names, not list"),
    ({"header": {1: 2}}, "header is a mapping of members by their names, not dict"),
    ({"header": {"x": object()}}, "header cannot be that of a token: a value of type object cannot be written as JSON"),
    ({"header": {"x": float("nan")}}, "header cannot be that of a token: Out of range float values"),
    ({"header": {"x": "\ud800"}}, "header cannot be that of a token: a text holds half of a surrogate pair"),
    ({"header": {"\ud800": 1}}, "header cannot be that of a token: a text holds half of a surrogate pair"),
    ({"header": {"x": {1: 2, "1": 3}}}, "header cannot be that of a token: a name is there twice"),
    ({"header": {"x5c": ["M" * 9200]}}, "header cannot be that of a token: oversized_header"),
    ({"key": Source(), "header": {"x5c": ["M" * 8700]}}, "header cannot be that of a token: oversized_header"),
    ({"header": {"alg": "none"}}, "header cannot set alg:"),
    ({"header": {"kid": "1"}}, "header cannot set kid:"),
    ({"header": {"crit": ["b64"], "b64": False}}, "header cannot set b64, crit:"),
    ({"header": {"typ": "dpop+jwt"}}, "header sets a typ that token_types does not accept: text of 8 characters"),
    ({"header": {"typ": None}}, "header sets a typ that token_types does not accept: None"),
    *[
        ({name: value}, f"{name} is a whole number from {least}")
        for name, least in (("expiration_seconds", 1), ("leeway_seconds", 0), ("max_token_bytes", 1), ("cache_size", 0))
        for value in (least - 1, -1, 1.5, True, "10", float("nan"))
    ],
    ({"leeway_seconds": 301}, "leeway_seconds is a whole number from 0 to 300, not 301"),
    ({"claims_registry": {"sub": {"essential": True}}}, "claims_registry is a joserfc.jwt.JWTClaimsRegistry, not dict"),
    ({"claims_registry": JWTClaimsRegistry}, "claims_registry is a joserfc.jwt.JWTClaimsRegistry, not type"),
    ({"leeway_seconds": None}, "leeway_seconds is a whole number"),
    ({"max_token_bytes": None}, "max_token_bytes is a whole number"),
]


@pytest.mark.parametrize(("settings", "message"), WRONG)
def test_wrong_settings(settings: dict[str, Any], message: str) -> None:
    """A wrong setting raises ConfigurationError with the remedy; the same configuration without it stands."""
    assert config().algorithms == ("ES256",)
    with pytest.raises(ConfigurationError, match=message):
        config(**settings)


def test_a_configuration_is_frozen_and_keyword_only() -> None:
    """Nothing is passed by position, and nothing is changed afterwards."""
    with pytest.raises(TypeError):
        JWTConfig(KEY)  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        config().leeway_seconds = 300  # type: ignore[misc]


def test_arguments_are_not_changed() -> None:
    """A passed object stays as it was, and changing it later changes nothing that is verified."""
    header: dict[str, Any] = {"x": [1]}
    audience, algorithms = ["a"], ["ES256"]
    settings = config(header=header, audience=audience, algorithms=algorithms)
    assert (header, audience, algorithms) == ({"x": [1]}, ["a"], ["ES256"])
    header["alg"] = "none"
    header["x"].append(2)
    audience.append("b")
    algorithms.append("none")
    assert settings.header == {"x": [1]}
    assert settings.audience == ("a",)
    with pytest.raises(TypeError):
        settings.header["alg"] = "none"  # type: ignore[index]
    assert settings.algorithms == ("ES256",)
    assert refusal_of(settings.rules.check, {"aud": "b"}) == invalid("audience")


def test_no_secret_in_the_repr() -> None:
    """The repr of a configuration, and of an Auth, shows no key."""
    key = KEYS["HS256"]
    settings = JWTConfig(key=key)
    shown = repr(settings) + repr(JWTAuth(settings))
    assert key.as_dict(private=True)["k"] not in shown
    assert repr(key.raw_value) not in shown
    assert "algorithms=('HS256',)" in shown


def test_tokens_that_never_expire_are_said_out_loud(caplog: pytest.LogCaptureFixture) -> None:
    """`expiration_seconds=None` weakens a check, so it is logged; another lifetime is not."""
    with caplog.at_level(logging.WARNING, "fastapi_guard"):
        config(expiration_seconds=1)
        assert caplog.messages == []
        config(expiration_seconds=None)
    assert caplog.messages == ["JWTConfig(expiration_seconds=None): tokens without exp are issued and accepted"]


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm_can_be_configured(name: str) -> None:
    """Each algorithm of the closed list works by its name."""
    assert config_of(name).signing_key()[0].name == name


def test_keys_from_elsewhere() -> None:
    """A source is asked for asymmetric keys where no algorithm is named; without a key there is no source."""
    source = Source()
    assert JWTConfig(key=source).source is source
    assert JWTConfig(key=source).algorithms == ASYMMETRIC
    assert JWTConfig(key=source).verification_keys() is None
    assert JWTConfig(algorithms=["ES256"]).source is None
    assert JWTConfig(algorithms=["ES256"]).verification_keys() is None
    assert config().source is None


def test_keys_that_may_not_verify() -> None:
    """Keys of which none may verify are refused before the first request."""
    settings = JWTConfig(key=ECKey.import_key({**KEY.as_dict(private=True), "key_ops": ["sign"]}))
    with pytest.raises(ConfigurationError, match="no key may verify: its key_ops say otherwise"):
        settings.verification_keys()


@pytest.mark.parametrize(
    "settings",
    [
        JWTConfig(key=PUBLIC),
        JWTConfig(key=[PUBLIC, KEY]),
        JWTConfig(algorithms=["ES256"]),
        JWTConfig(key=ECKey.import_key({**KEY.as_dict(private=True), "key_ops": ["verify"]})),
    ],
    ids=["public", "first public", "no key", "key_ops"],
)
def test_nothing_to_sign_with(settings: JWTConfig) -> None:
    """Signing without a first key that is private and may sign is a mistake of the configuration."""
    with pytest.raises(ConfigurationError, match="there is no key to sign with"):
        settings.signing_key()


def test_jwks() -> None:
    """The public set is that of all keys, the first one first; of a secret there is none."""
    shown = JWTConfig(key=[KEY, FOREIGN_KEYS["ES256"]]).jwks["keys"]
    assert [key["kid"] for key in shown] == [KEY.thumbprint(), FOREIGN_KEYS["ES256"].thumbprint()]
    for settings in (JWTConfig(key=KEYS["HS256"]), JWTConfig(algorithms=["ES256"])):
        with pytest.raises(ConfigurationError, match="there is no public key to show"):
            _ = settings.jwks


# --- the claims ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("typ", [None, "JWT", "jwt", "at+jwt", "AT+JWT", "application/at+jwt", "Application/AT+jwt"])
def test_accepted_types(typ: str | None) -> None:
    """A token without typ, and one of the accepted types in any case, passes."""
    config().rules.check_type(typ)


@pytest.mark.parametrize(
    "typ", ["", "dpop+jwt", "logout+jwt", "rt+jwt", "JWT ", "JWTX", "application/", "application/application/jwt"]
)
def test_refused_types(typ: str) -> None:
    """DPoP proofs, logout tokens and every other kind are not access tokens."""
    assert refusal_of(config().rules.check_type, typ) == invalid("token_type")


def test_own_types() -> None:
    """The accepted types are a setting, spelled with or without the media type's prefix; issued tokens carry it."""
    settings = config(token_types=["application/X+jwt"])
    settings.rules.check_type("x+jwt")
    assert issued(settings)[0]["typ"] == "application/X+jwt"
    assert refusal_of(settings.rules.check_type, "JWT") == invalid("token_type")


def test_other_types_in_place_of_the_usual_ones() -> None:
    """A configuration with other types is made from one with the usual ones: no typ was set."""
    settings = dataclasses.replace(config(), token_types=("at+jwt",))
    assert issued(settings)[0]["typ"] == "at+jwt"
    with pytest.raises(ConfigurationError, match="header sets a typ that token_types does not accept"):
        dataclasses.replace(config(header={"typ": "JWT"}), token_types=("at+jwt",))


EXPIRED = ("The access token has expired", "invalid_token", "expired")


@pytest.mark.parametrize(
    ("claims", "refusal"),
    [
        ({"exp": NOW + 1}, None),
        ({"exp": NOW - 9}, None),
        ({"exp": NOW - 9.5}, None),
        ({"exp": NOW - 10}, EXPIRED),
        ({"exp": NOW - 11}, EXPIRED),
        ({"exp": 0}, EXPIRED),
        ({"exp": -1}, EXPIRED),
        ({"exp": -(10**400)}, EXPIRED),
        ({"exp": 10**400}, None),
        ({}, invalid("exp_missing")),
        ({"exp": None}, invalid("exp_type")),
        ({"exp": True}, invalid("exp_type")),
        ({"exp": str(NOW + 1)}, invalid("exp_type")),
        ({"exp": "never"}, invalid("exp_type")),
        ({"exp": [NOW + 1]}, invalid("exp_type")),
        ({"exp": {}}, invalid("exp_type")),
        ({"exp": float("nan")}, invalid("exp_type")),
        ({"exp": float("inf")}, invalid("exp_type")),
        ({"nbf": NOW}, None),
        ({"nbf": NOW + 10}, None),
        ({"nbf": NOW + 11}, invalid("nbf_in_the_future")),
        ({"nbf": 10**400}, invalid("nbf_in_the_future")),
        ({"nbf": None}, invalid("nbf_type")),
        ({"nbf": False}, invalid("nbf_type")),
        ({"nbf": str(NOW)}, invalid("nbf_type")),
        ({"nbf": [NOW]}, invalid("nbf_type")),
        ({"nbf": float("-inf")}, invalid("nbf_type")),
        ({"iat": NOW + 10.0}, None),
        ({"iat": NOW + 10.5}, invalid("iat_in_the_future")),
        ({"iat": None}, invalid("iat_type")),
        ({"iat": True}, invalid("iat_type")),
        ({"iat": str(NOW)}, invalid("iat_type")),
    ],
)
def test_times(claims: dict[str, Any], refusal: tuple[str, str, str] | None) -> None:
    """Times are numbers, `now < exp`, one leeway for all, and malformed is never taken for absent."""
    settings = config(leeway_seconds=10)
    whole = claims if claims.keys() & {"exp"} or not claims else {"exp": NOW + 60, **claims}
    if refusal is None:
        settings.rules.check_times(whole, NOW)
    else:
        assert refusal_of(settings.rules.check_times, whole, NOW) == refusal


def test_times_without_leeway() -> None:
    """The moment of exp itself is too late (RFC 7519 4.1.4), that of nbf and iat is not too early."""
    settings = config(leeway_seconds=0)
    settings.rules.check_times({"exp": NOW + 0.5, "nbf": NOW, "iat": NOW}, NOW)
    assert refusal_of(settings.rules.check_times, {"exp": NOW}, NOW) == EXPIRED


def test_tokens_that_need_not_expire() -> None:
    """Without a lifetime exp may be missing, while one that is there still counts."""
    settings = config(expiration_seconds=None)
    settings.rules.check_times({}, NOW)
    assert refusal_of(settings.rules.check_times, {"exp": NOW - 10}, NOW) == EXPIRED
    assert refusal_of(settings.rules.check_times, {"exp": None}, NOW) == invalid("exp_type")


@given(st.floats(0, 4e9), st.floats(-400, 400), st.integers(0, 300))
def test_the_leeway_is_what_it_says(now: float, beside: float, leeway: int) -> None:
    """A token is forgiven the leeway and not more, before and after."""
    settings = config(leeway_seconds=leeway)
    moment = now + beside

    def accepted(claims: dict[str, float]) -> bool:
        try:
            settings.rules.check_times(claims, now)
        except Unauthorized:
            return False
        return True

    assert accepted({"exp": moment}) is (now < moment + leeway)
    for name in ("nbf", "iat"):
        assert accepted({"exp": now + 1000, name: moment}) is (moment - leeway <= now)


@pytest.mark.parametrize(
    "issuer",
    [
        "https://id.example/",
        "https://ID.example",
        "http://id.example",
        "https://id.exampl",
        "https://id.example.evil.example",
        " https://id.example",
        "",
        None,
        1,
        ["https://id.example"],
        {"https://id.example": 1},
        ...,
    ],
)
def test_the_issuer(issuer: object) -> None:
    """The issuer is compared as a whole, character by character."""
    settings = config(issuer_url=ISSUER)
    settings.rules.check({"iss": ISSUER})
    assert refusal_of(settings.rules.check, {} if issuer is ... else {"iss": issuer}) == invalid("issuer")


@pytest.mark.parametrize("audience", [AUDIENCE, [AUDIENCE], ["other", AUDIENCE], ["b"]])
def test_accepted_audiences(audience: object) -> None:
    """A token names one of the audiences, alone or in a list."""
    config(audience=[AUDIENCE, "b"]).rules.check({"aud": audience})


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({}, "audience_missing"),
        ({"aud": "other"}, "audience"),
        ({"aud": ["other"]}, "audience"),
        ({"aud": []}, "audience"),
        ({"aud": ""}, "audience"),
        ({"aud": f"{AUDIENCE}/"}, "audience"),
        ({"aud": AUDIENCE.upper()}, "audience"),
        ({"aud": AUDIENCE[:-1]}, "audience"),
        ({"aud": f"{AUDIENCE} other"}, "audience"),
        ({"aud": None}, "audience_type"),
        ({"aud": 1}, "audience_type"),
        ({"aud": True}, "audience_type"),
        ({"aud": {AUDIENCE: 1}}, "audience_type"),
        ({"aud": [AUDIENCE, None]}, "audience_type"),
        ({"aud": [[AUDIENCE]]}, "audience_type"),
    ],
)
def test_refused_audiences(claims: dict[str, Any], reason: str) -> None:
    """Missing, foreign and malformed audiences are refused, and nothing but an exact member counts."""
    assert refusal_of(config(audience=AUDIENCE).rules.check, claims) == invalid(reason)


@pytest.mark.parametrize("audience", ["anyone", ["anyone"], [], ""])
def test_no_audience_is_not_every_audience(audience: object) -> None:
    """Without a configured audience, a token with an audience is for another API."""
    config().rules.check({})
    assert refusal_of(config().rules.check, {"aud": audience}) == invalid("audience")


@pytest.mark.parametrize(
    ("option", "audience"),
    [
        ({"value": "registered"}, ("registered",)),
        ({"value": ["registered", "b"]}, ("registered", "b")),
        ({"values": ["registered", "b"]}, ("registered", "b")),
        ({"values": ["registered", 1]}, ("registered",)),
    ],
)
def test_a_registered_audience_is_a_configured_one(option: dict[str, Any], audience: tuple[str, ...]) -> None:
    """The `aud` of a claims registry is an audience, of what is accepted and of what is issued."""
    settings = config(claims_registry=JWTClaimsRegistry(aud=option))
    assert settings.audience == audience
    settings.rules.check({"aud": "registered"})
    assert refusal_of(settings.rules.check, {}) == invalid("audience_missing")
    assert refusal_of(settings.rules.check, {"aud": "other"}) == invalid("audience")


def test_a_registered_audience_beside_another() -> None:
    """With both, either may be named; the setting is what is issued."""
    settings = config(audience="a", claims_registry=JWTClaimsRegistry(aud={"value": "b"}))
    assert settings.audience == "a"
    settings.rules.check({"aud": "b"})


class Asked(JWTClaimsRegistry):
    """A registry with checks of its own, some of which ask joserfc's as well."""

    def __init__(self, **options: Any) -> None:
        """Remember the checks."""
        super().__init__(now=NOW + 1_000_000, **options)
        self.asked: list[str] = []

    def validate(self, claims: dict[str, Any]) -> None:
        """Check all, and remember it."""
        self.asked.append("all")
        super().validate(claims)

    def validate_exp(self, value: Any) -> None:
        """Refuse what lasts for more than an hour, on top of joserfc's check."""
        self.asked.append("exp")
        super().validate_exp(value)
        if value > NOW + 3600:
            raise InvalidClaimError("exp")

    def validate_tenant(self, value: object) -> None:
        """Refuse all tenants but one."""
        self.asked.append("tenant")
        if value != "acme":
            raise InvalidClaimError("tenant")


@pytest.mark.parametrize("registry", [JWTClaimsRegistry(), JWTClaimsRegistry(now=NOW + 1_000_000, leeway=0), Asked()])
def test_the_times_are_ours(registry: JWTClaimsRegistry) -> None:
    """A claims registry cancels neither the leeway nor the clock, whatever its own say."""
    settings = config(claims_registry=registry, leeway_seconds=10)
    settings.rules.check_times({"exp": NOW - 9, "nbf": NOW + 10, "iat": NOW + 10}, NOW)
    settings.rules.check_times({"exp": 9, "nbf": 0.5, "iat": 0}, 0)
    assert refusal_of(settings.rules.check_times, {"exp": NOW - 10}, NOW) == EXPIRED
    for name in ("nbf", "iat"):
        claims = {"exp": NOW + 60, name: NOW + 11}
        assert refusal_of(settings.rules.check_times, claims, NOW) == invalid(f"{name}_in_the_future")


@pytest.mark.parametrize("name", ["exp", "nbf", "iat", "sub", "tenant"])
def test_every_other_check_of_a_registry_counts(name: str) -> None:
    """The requirements of a registry are checked, of the times as of all others."""
    good: dict[str, Any] = {"exp": NOW + 60, "nbf": NOW - 1, "iat": NOW - 1, "sub": "ada", "tenant": "acme"}
    other = {"exp": NOW + 61, "nbf": NOW - 2, "iat": NOW - 2, "sub": "eve", "tenant": "other"}
    without = {claim: value for claim, value in good.items() if claim != name}
    for option, bad in (
        ({"value": good[name]}, good | {name: other[name]}),
        ({"values": [good[name]]}, good | {name: other[name]}),
        ({"essential": True}, without),
    ):
        settings = config(claims_registry=JWTClaimsRegistry(**{name: option}), expiration_seconds=None)  # type: ignore[arg-type]
        settings.rules.check_times(good, NOW)
        with pytest.raises(JoseError):
            settings.rules.check_times(bad, NOW)


def test_the_checks_of_a_subclass_count() -> None:
    """A subclass checks in full, by its `validate` and by its check of a time; what was passed is not changed."""
    registry = Asked(iss={"essential": True})
    settings = config(claims_registry=registry)
    good = {"exp": NOW + 60, "tenant": "acme", "iss": ISSUER}
    settings.rules.check_times(good, NOW)
    assert registry.asked == ["all", "exp", "tenant"]
    assert type(registry) is Asked
    assert settings.claims_registry is dataclasses.replace(settings, leeway_seconds=5).claims_registry is registry
    for changes in ({"tenant": "other"}, {"exp": NOW + 3601}, {"iss": None}):
        with pytest.raises(JoseError):
            settings.rules.check_times(good | changes, NOW)


@pytest.mark.parametrize("name", ["iss", "sub", "jti"])
@pytest.mark.parametrize("value", ["", None, 1, True, ["ada"], {}])
def test_names_are_texts(name: str, value: object) -> None:
    """iss, sub and jti are non-empty texts where they are there at all."""
    config().rules.check({name: "ada"})
    config().rules.check({})
    assert refusal_of(config().rules.check, {name: value}) == invalid(name)


LOGOUT = {"http://schemas.openid.net/event/backchannel-logout": {}}


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"events": LOGOUT}, "logout_token"),
        ({"events": {**LOGOUT, "https://other.example": {}}, "sid": "1"}, "logout_token"),
        ({"htm": "GET", "htu": "https://api.example/items"}, "dpop_proof"),
        ({"htm": None, "htu": 5}, "dpop_proof"),
        ({"at_hash": "x"}, "id_token"),
        ({"c_hash": "x"}, "id_token"),
        ({"at_hash": None}, "id_token"),
    ],
)
def test_tokens_of_another_kind(claims: dict[str, Any], reason: str) -> None:
    """Logout tokens, DPoP proofs and ID tokens are not access tokens, with and without a typ."""
    config().rules.check({"sub": "ada"})
    assert refusal_of(config().rules.check, {"sub": "ada", **claims}) == invalid(reason)
    id_rules = dataclasses.replace(config().rules, kind="id")
    if reason == "id_token":
        id_rules.check({"sub": "ada", "iat": NOW, **claims})
    else:
        assert refusal_of(id_rules.check, {"sub": "ada", "iat": NOW, **claims}) == invalid(reason)


@pytest.mark.parametrize(
    "claims",
    [
        {"events": ["concert"]},
        {"events": {"https://other.example": {}}},
        {"events": None},
        {"htm": "x"},
        {"htu": "x"},
        {"nonce": "x"},
    ],
)
def test_claims_that_mark_no_other_kind(claims: dict[str, Any]) -> None:
    """Claims of an application's own are not taken for the marks of another kind."""
    config().rules.check(claims)


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"client_id": "web"}, None),
        ({"client_id": ["other", "web"]}, None),
        ({"client_id": "web", "aud": ["web"]}, None),
        ({"client_id": "web", "aud": "other"}, "audience"),
        ({"client_id": "other"}, "audience"),
        ({"aud": "web"}, "audience_missing"),
        ({}, "audience_missing"),
    ],
)
def test_an_audience_under_another_name(claims: dict[str, Any], reason: str | None) -> None:
    """The named claim has to name an audience, and so does an ``aud`` beside it."""
    rules = config(audience="web", audience_claim="client_id").rules
    if reason is None:
        rules.check(claims)
    else:
        assert refusal_of(rules.check, claims) == invalid(reason)
