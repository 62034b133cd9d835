"""The rules for claims, one by one: what each accepts, up to its edge, and the reason of each refusal."""

from math import inf
from typing import Any

import pytest
from joserfc.jwt import JWTClaimsRegistry

from fastapi_guard import Unauthorized
from fastapi_guard.exceptions import EXPIRED_TOKEN, INVALID_TOKEN
from fastapi_guard.jwt.kinds import Client
from fastapi_guard.jwt.rules import ACCESS_TOKEN_CLAIMS, ClaimRules

ISSUER, API, OTHER = "https://id.example", "https://api.example", "https://other.example"
NOW = 1_000_000
LOGOUT = "http://schemas.openid.net/event/backchannel-logout"
RULES = ClaimRules(issuers=frozenset({ISSUER}), audiences=frozenset({API}))
ID_TOKENS = ClaimRules(issuers=frozenset({ISSUER}), audiences=frozenset({"shop"}), kind="id")
LOGOUT_TOKENS = ClaimRules(issuers=frozenset({ISSUER}), audiences=frozenset({"shop"}), kind="logout")
GOOD = {"iss": ISSUER, "aud": API, "sub": "ada"}
GOOD_ID = {"iss": ISSUER, "aud": "shop", "sub": "ada", "iat": NOW, "nonce": "n", "at_hash": "h"}
GOOD_LOGOUT = {"iss": ISSUER, "aud": "shop", "sub": "ada", "iat": NOW, "jti": "1", "events": {LOGOUT: {}}}


def changed(claims: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Return claims with changes; ``...`` removes one."""
    return {name: value for name, value in {**claims, **changes}.items() if value is not ...}


def refusal(rules: ClaimRules, claims: dict[str, Any], typ: str | None = None) -> str | None:
    """Return the reason with which claims are refused, ``None`` where they are accepted."""
    try:
        rules.check_times(claims, NOW)
        rules.check(claims, typ)
    except Unauthorized as raised:
        error = raised
    else:
        return None
    detail = EXPIRED_TOKEN if error.reason == "expired" else INVALID_TOKEN
    assert (error.status_code, error.error, error.detail) == (401, "invalid_token", detail)
    return error.reason


# --- times ---


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"exp": NOW - 9}, None),
        ({"exp": NOW - 10}, "expired"),
        ({"exp": NOW - 9.5}, None),
        ({"exp": NOW - 10.5}, "expired"),
        ({"exp": 0}, "expired"),
        ({}, "exp_missing"),
        ({"exp": NOW, "nbf": NOW + 10}, None),
        ({"exp": NOW, "nbf": NOW + 11}, "nbf_in_the_future"),
        ({"exp": NOW, "nbf": NOW + 10.5}, "nbf_in_the_future"),
        ({"exp": NOW, "iat": NOW + 10}, None),
        ({"exp": NOW, "iat": NOW + 11}, "iat_in_the_future"),
        ({"exp": NOW, "iat": NOW + 10.5}, "iat_in_the_future"),
        ({"exp": NOW, "auth_time": NOW + 11}, None),
        *(
            ({"exp": NOW, name: value}, f"{name}_type")
            for name in ("exp", "nbf", "iat")
            for value in (None, True, "1", [1], inf, float("nan"))
        ),
    ],
    ids=repr,
)
def test_times(claims: dict[str, Any], reason: str | None) -> None:
    """A token is valid before `exp`, from `nbf` and `iat` on, with ten seconds of leeway for each."""
    assert refusal(RULES, {**GOOD, **claims}) == reason


@pytest.mark.parametrize(
    ("auth_time", "reason"),
    [
        (NOW + 10, None),
        (NOW + 10.5, "auth_time_in_the_future"),
        (NOW + 11, "auth_time_in_the_future"),
        ("1", "auth_time_type"),
        (None, "auth_time_type"),
    ],
)
def test_the_time_of_a_login(auth_time: object, reason: str | None) -> None:
    """An ID token does not name a login of the future."""
    assert refusal(ID_TOKENS, {**GOOD_ID, "exp": NOW, "auth_time": auth_time}) == reason


@pytest.mark.parametrize(
    ("claims", "valid_from", "valid_until"),
    [
        ({}, -inf, inf),
        ({"exp": NOW + 60}, -inf, NOW + 70),
        ({"nbf": NOW - 60}, NOW - 70, inf),
        ({"iat": NOW - 60}, NOW - 70, inf),
        ({"nbf": NOW - 60, "iat": NOW - 30}, NOW - 40, inf),
        ({"nbf": NOW - 30, "iat": NOW - 60}, NOW - 40, inf),
        ({"nbf": NOW - 1.5, "iat": NOW - 2.5, "exp": NOW + 1.5}, NOW - 11.5, NOW + 11.5),
    ],
)
def test_how_long_a_token_is_valid(claims: dict[str, Any], valid_from: float, valid_until: float) -> None:
    """The later of `nbf` and `iat` begins it, `exp` ends it, the leeway included; what is missing does not limit it."""
    rules = ClaimRules(requires_exp=False)
    assert rules.check_times(claims, NOW) == (valid_from, valid_until)


def test_a_registry_of_an_application() -> None:
    """It checks the claims too, with the times."""
    rules = ClaimRules(requires_exp=False, registry=JWTClaimsRegistry(tenant={"essential": True, "value": "acme"}))
    assert rules.check_times({"tenant": "acme"}, NOW) == (-inf, inf)
    with pytest.raises(Exception, match="tenant"):
        rules.check_times({"tenant": "other"}, NOW)


# --- type, issuer, audience, texts ---


@pytest.mark.parametrize(
    ("typ", "is_accepted"),
    [
        ("JWT", True),
        ("jwt", True),
        ("application/jwt", True),
        ("at+jwt", True),
        ("Application/AT+JWT", True),
        (None, True),
        ("", False),
        ("dpop+jwt", False),
        ("logout+jwt", False),
        ("id+jwt", False),
        ("text/jwt", False),
        ("jwt/application/", False),
    ],
)
def test_the_type_of_a_token(typ: str | None, is_accepted: bool) -> None:
    """A missing `typ` passes unless one is required; one that is there has to be accepted (RFC 8725 3.11)."""
    for requires_type in (False, True):
        rules = ClaimRules(requires_type=requires_type)
        if is_accepted and not (typ is None and requires_type):
            rules.check_type(typ)
        else:
            with pytest.raises(Unauthorized) as refused:
                rules.check_type(typ)
            assert refused.value.reason == "token_type"
    ClaimRules().check_type(None)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"iss": ...}, "issuer"),
        ({"iss": OTHER}, "issuer"),
        ({"iss": [ISSUER]}, "issuer"),
        ({"iss": None}, "issuer"),
        ({"aud": [API]}, None),
        ({"aud": [OTHER, API]}, None),
        ({"aud": ...}, "audience_missing"),
        ({"aud": OTHER}, "audience"),
        ({"aud": [OTHER]}, "audience"),
        ({"aud": []}, "audience"),
        ({"aud": [API, 1]}, "audience_type"),
        ({"aud": [API, None]}, "audience_type"),
        ({"aud": {API: 1}}, "audience_type"),
        ({"aud": None}, "audience_type"),
        ({"aud": 1}, "audience_type"),
        ({"sub": ...}, None),
        ({"sub": ""}, "sub"),
        ({"sub": 1}, "sub"),
        ({"sub": None}, "sub"),
        ({"jti": "1"}, None),
        ({"jti": ""}, "jti"),
        ({"jti": 1}, "jti"),
        ({"jti": None}, "jti"),
    ],
    ids=repr,
)
def test_issuer_audience_and_subject(changes: dict[str, Any], reason: str | None) -> None:
    """The issuer and one audience have to be ours, exactly; `sub` and `jti` are texts and not empty."""
    assert refusal(RULES, changed(GOOD, exp=NOW, **changes)) == reason


@pytest.mark.parametrize(
    ("claims", "reason"),
    [({}, None), ({"iss": OTHER}, None), ({"iss": ""}, "iss"), ({"iss": 1}, "iss"), ({"aud": API}, "audience")],
    ids=repr,
)
def test_rules_without_an_issuer_and_an_audience(claims: dict[str, Any], reason: str | None) -> None:
    """Any issuer that is a text is accepted; a token for an audience is for another API."""
    assert refusal(ClaimRules(requires_exp=False), claims) == reason


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"client": "shop"}, None),
        ({"client": ["shop", "app"]}, None),
        ({"client": "shop", "aud": "shop"}, None),
        ({"client": "other"}, "audience"),
        ({"client": 1}, "audience_type"),
        ({}, "audience_missing"),
        ({"aud": "shop"}, "audience_missing"),
        ({"client": "shop", "aud": OTHER}, "audience"),
        ({"client": "shop", "aud": None}, "audience_type"),
    ],
    ids=repr,
)
def test_another_claim_that_names_the_audience(claims: dict[str, Any], reason: str | None) -> None:
    """It is checked as `aud` is, and an `aud` beside it too."""
    rules = ClaimRules(audiences=frozenset({"shop"}), audience_claim="client", requires_exp=False)
    assert refusal(rules, claims) == reason


def test_an_empty_subject() -> None:
    """A preset may accept one, and no other empty text beside it."""
    rules = ClaimRules(requires_exp=False, allows_empty_sub=True)
    assert refusal(rules, {"sub": ""}) is None
    assert refusal(rules, {"sub": 0}) == "sub"
    assert refusal(rules, {"jti": ""}) == "jti"
    assert refusal(rules, {"iss": ""}) == "iss"


# --- kinds ---


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"events": {LOGOUT: {}}}, "logout_token"),
        ({"events": {LOGOUT: {}, "other": {}}}, "logout_token"),
        ({"events": {"other": {}}}, None),
        ({"events": [LOGOUT]}, None),
        ({"events": None}, None),
        ({"htm": "GET", "htu": "https://api.example/items"}, "dpop_proof"),
        ({"htm": "GET"}, None),
        ({"htu": "https://api.example/items"}, None),
        ({"at_hash": "h"}, "id_token"),
        ({"c_hash": "h"}, "id_token"),
        ({"s_hash": "h"}, "id_token"),
        ({"nonce": "n"}, None),
    ],
    ids=repr,
)
def test_other_kinds_than_an_access_token(claims: dict[str, Any], reason: str | None) -> None:
    """A logout token, a DPoP proof and an ID token are rejected as access tokens."""
    rules = ClaimRules(issuers=frozenset({ISSUER}), audiences=frozenset({API}))
    assert refusal(rules, {**GOOD, "exp": NOW, **claims}) == reason


@pytest.mark.parametrize("events", [{LOGOUT: {}}, {"other": {}}, {}, None, "text"], ids=repr)
def test_security_event_tokens(events: object) -> None:
    """A claim `events` of any value is enough to refuse all of them (RFC 8417 2.2)."""
    rules = ClaimRules(requires_exp=False, refuses_events=True)
    assert refusal(rules, {"events": events}) == "event_token"
    assert refusal(rules, {}) is None


@pytest.mark.parametrize(
    ("value", "reason"),
    [("refresh", "token_kind"), ("Refresh", "token_kind"), ("access", None), (["refresh"], None), (None, None)],
    ids=repr,
)
def test_a_claim_that_names_another_kind(value: object, reason: str | None) -> None:
    """It is compared without case."""
    rules = ClaimRules(requires_exp=False, other_kinds={"token_use": frozenset({"refresh", "id"})})
    assert refusal(rules, {"token_use": value}) == reason


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"sub": ...}, "id_token_claims"),
        ({"iat": ...}, "id_token_claims"),
        ({"aud": ["shop"]}, None),
        ({"aud": ["shop"], "azp": "other"}, None),
        ({"aud": ["shop", "other"], "azp": "shop"}, None),
        ({"aud": ["shop", "other"], "azp": "other"}, "authorized_party"),
        ({"aud": ["shop", "other"]}, "authorized_party"),
        ({"aud": ["shop", "other"], "azp": ["shop"]}, "authorized_party"),
        ({"aud": ["shop", "other", "third"]}, "authorized_party"),
        ({"aud": "other"}, "audience"),
        ({"events": {LOGOUT: {}}}, "logout_token"),
        ({"htm": "GET", "htu": "https://api.example/items"}, "dpop_proof"),
    ],
    ids=repr,
)
def test_an_id_token(changes: dict[str, Any], reason: str | None) -> None:
    """It has `sub` and `iat`, and of several audiences `azp` is ours (OpenID Connect Core 2 and 3.1.3.7)."""
    assert refusal(ID_TOKENS, changed(GOOD_ID, exp=NOW, **changes)) == reason


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"sid": "s"}, None),
        ({"sid": "s", "sub": ...}, None),
        ({"events": {LOGOUT: {}, "other": {}}}, None),
        ({"events": ...}, "logout_event"),
        ({"events": None}, "logout_event"),
        ({"events": [LOGOUT]}, "logout_event"),
        ({"events": {}}, "logout_event"),
        ({"events": {"other": {}}}, "logout_event"),
        ({"events": {LOGOUT: None}}, "logout_event"),
        ({"nonce": "n"}, "logout_claims"),
        ({"iat": ...}, "logout_claims"),
        ({"jti": ...}, "logout_claims"),
        ({"sub": ...}, "logout_claims"),
        ({"sub": ..., "sid": None}, "logout_claims"),
        ({"sid": ""}, "sid"),
        ({"sid": 1}, "sid"),
        ({"sid": ["s"]}, "sid"),
        ({"aud": "other"}, "audience"),
    ],
    ids=repr,
)
def test_a_logout_token(changes: dict[str, Any], reason: str | None) -> None:
    """It has the event, `iat` and `jti`, a user or a session, and no nonce (Back-Channel Logout 2.4 and 2.6)."""
    assert refusal(LOGOUT_TOKENS, changed(GOOD_LOGOUT, exp=NOW, **changes)) == reason


# --- profile, required claims, marks ---

PROFILED = {**GOOD, "exp": NOW, "iat": NOW, "jti": "1", "client_id": "shop"}


@pytest.mark.parametrize("missing", sorted(ACCESS_TOKEN_CLAIMS - {"iss", "aud", "exp"}))
def test_the_profile(missing: str) -> None:
    """RFC 9068 2.2 requires each of its claims; without the profile they may be missing."""
    rules = ClaimRules(issuers=RULES.issuers, audiences=RULES.audiences, profile="rfc9068")
    assert refusal(rules, PROFILED) is None
    assert refusal(rules, changed(PROFILED, **{missing: ...})) == "profile"
    assert refusal(RULES, changed(PROFILED, **{missing: ...})) is None


def test_the_claims_of_the_profile() -> None:
    """They are those that RFC 9068 2.2 names."""
    assert {"iss", "exp", "aud", "sub", "client_id", "iat", "jti"} == ACCESS_TOKEN_CLAIMS
    anyone = ClaimRules(profile="rfc9068", requires_exp=False, audiences=frozenset({API}))
    for name in ("iss", "exp"):
        assert refusal(anyone, changed(PROFILED, **{name: ...})) == "profile"


@pytest.mark.parametrize("client", ["", None, 1, ["shop"]], ids=repr)
def test_the_client_of_the_profile(client: object) -> None:
    """It is a text that is not empty."""
    rules = ClaimRules(issuers=RULES.issuers, audiences=RULES.audiences, profile="rfc9068")
    assert refusal(rules, {**PROFILED, "client_id": client}) == "client_id"


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"tid": "acme", "level": 1}, None),
        ({"tid": "shop", "level": 1}, None),
        ({"tid": "other", "level": 1}, "required_claim"),
        ({"tid": "acme", "level": 2}, "required_claim"),
        ({"tid": "acme", "level": True}, "required_claim"),
        ({"tid": "acme", "level": 1.0}, "required_claim"),
        ({"tid": "acme", "level": "1"}, "required_claim"),
        ({"tid": ["acme"], "level": 1}, "required_claim"),
        ({"tid": "acme"}, "required_claim"),
        ({"level": 1}, "required_claim"),
    ],
    ids=repr,
)
def test_required_claims(claims: dict[str, Any], reason: str | None) -> None:
    """Each has one of its accepted values, of the same type."""
    rules = ClaimRules(requires_exp=False, required={"tid": ("acme", "shop"), "level": (1,)})
    assert refusal(rules, claims) == reason


def test_marks_of_an_access_token() -> None:
    """One of the claims that are marks is required, or the type of an access token."""
    rules = ClaimRules(requires_exp=False, audiences=frozenset({API}), access_marks={"token_use": ("access",)})
    assert refusal(rules, {"aud": API}) == "no_access_mark"
    assert refusal(rules, {"aud": API, "token_use": "access"}) is None
    assert refusal(rules, {"aud": API, "token_use": "id"}) == "no_access_mark"
    assert refusal(rules, {"aud": API}, "at+jwt") is None
    assert refusal(rules, {"aud": API}, "JWT") == "no_access_mark"


@pytest.mark.parametrize(
    ("client", "reason"), [("shop", None), (API, "no_access_mark"), ("https://second.example", "no_access_mark")]
)
def test_a_client_as_the_mark(client: str, reason: str | None) -> None:
    """A client that is one of the accepted audiences, named or not, is not a mark."""
    audiences = frozenset({API, "https://second.example"})
    rules = ClaimRules(requires_exp=False, audiences=audiences, access_marks={"client_id": (Client.OTHER,)})
    assert refusal(rules, {"aud": API, "client_id": client}) == reason
