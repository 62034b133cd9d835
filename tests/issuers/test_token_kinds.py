"""ID tokens are not access tokens, for every Auth that verifies by the keys of another issuer (SECURITY.md, 13)."""

from typing import Any

import pytest
from auth0_api_python import ApiClient, ApiClientOptions

from fastapi_guard import JWTAuth, JWTConfig
from fastapi_guard.issuers import MultiOIDCAuth, OIDCAuth
from fastapi_guard.issuers.auth0 import Auth0
from fastapi_guard.jwt.remote import RemoteKeySet
from fastapi_guard.testing.issuer import FakeIssuer
from support.guarded import assert_refused, guarded_app, send

# As with Entra and B2C, the audience of access tokens is the client's id, so that issuer and audience tell nothing.
CLIENT = "client-1"
ISSUER = FakeIssuer("https://tenant.example/", audience=CLIENT, algorithm="RS256")
PLACE: dict[str, Any] = {"issuer_url": ISSUER.url, "audience": CLIENT}
PLAIN: dict[str, Any] = {"nonce": None, "at_hash": None}


def with_remote_keys(**settings: Any) -> JWTAuth:
    """Return a plain JWTAuth that verifies by the published keys."""
    return JWTAuth(JWTConfig(key=RemoteKeySet(ISSUER.jwks_uri, client=ISSUER.client), **PLACE, **settings))


async def auth_of(kind: str) -> Any:
    """Return an Auth of a kind, for the tokens of the issuer."""
    one: dict[str, Any] = {"issuer": ISSUER.url, "audience": CLIENT, "client": ISSUER.client}
    if kind == "oidc":
        return OIDCAuth(**one)
    if kind == "multi-oidc":
        return MultiOIDCAuth({"one": one})
    if kind == "remote":
        return with_remote_keys()
    if kind == "auth0":
        fetched = ApiClientOptions(domain="tenant.example", audience=CLIENT, custom_fetch=ISSUER.client.get)
        return Auth0(ApiClient(fetched))
    auth = JWTAuth(JWTConfig(algorithms=["RS256"], **PLACE))
    await auth.fetch_jwks(ISSUER.jwks_uri, client=ISSUER.client)
    return auth


KINDS = ("oidc", "multi-oidc", "remote", "fetched", "auth0")


@pytest.mark.parametrize("kind", KINDS)
async def test_an_id_token_is_refused(kind: str) -> None:
    """With each of its marks, and without any: {iss, sub, aud, exp, iat} is what a code flow without nonce returns."""
    app = guarded_app(await auth_of(kind))
    for claims in (
        {},
        {"at_hash": None},
        {"nonce": None},
        PLAIN,
        {**PLAIN, "email": "ada@example.org", "auth_time": 1, "sid": "s", "acr": "1", "amr": ["pwd"]},
        {**PLAIN, "token_use": "id"},
        {**PLAIN, "typ": "ID"},
        {**PLAIN, "scope": ""},
        {**PLAIN, "scope": "  "},
        {**PLAIN, "scope": ["openid"], "token_use": "ID"},
    ):
        for header in ({"typ": "JWT"}, {"typ": None}):
            assert_refused(await send(app, ISSUER.id_token(header=header, **claims)))
    assert_refused(await send(app, ISSUER.token(events={}, typ="Logout")))


@pytest.mark.parametrize("kind", KINDS)
async def test_an_access_token_is_accepted(kind: str) -> None:
    """By its header, by a scope, or by a client that is not the audience."""
    app = guarded_app(await auth_of(kind))
    plain: dict[str, Any] = {"header": {"typ": "JWT"}, "client_id": None}
    assert (await send(app, ISSUER.token(client_id=None))).status_code == 200
    assert (await send(app, ISSUER.token(**plain, scope="a"))).status_code == 200
    assert (await send(app, ISSUER.token(**{**plain, "client_id": "other"}))).status_code == 200
    assert_refused(await send(app, ISSUER.token(**plain)))


RESOURCE = "https://api.example"
# A token without typ at+jwt; its azp, its further claims, and whether it is an access token for a client's id as the
# audience, and for a URI.
PARTIES: list[tuple[dict[str, Any], bool, bool]] = [
    ({"azp": "android.apps.example"}, False, True),
    ({"azp": "android.apps.example", "email": "ada@example.org", "email_verified": True}, False, False),
    *(({"azp": "other", name: "x"}, False, False) for name in ("auth_time", "acr", "amr", "sid", "hd", "name")),
    ({"azp": "other", "nonce": None, "sid": "s", "scope": "a"}, True, True),
    ({"azp": "https://app.example/client.json"}, False, False),
    ({"azp": CLIENT}, False, True),
    ({"azp": ""}, False, False),
    ({"azp": ["other"]}, False, False),
    ({"client_id": "other"}, True, True),
    ({"client_id": "other", "sid": "s"}, False, False),
    ({"client_id": CLIENT}, False, True),
    ({"client_id": "other", "s_hash": "h"}, False, False),
]


@pytest.mark.parametrize(("claims", "of_client", "of_resource"), PARTIES)
async def test_another_party_than_the_audience(claims: dict[str, Any], of_client: bool, of_resource: bool) -> None:
    """An ID token may be issued to another client (Google: `azp` of an app); a URI is not a client."""
    for audience, accepted in ((CLIENT, of_client), (RESOURCE, of_resource)):
        auth = OIDCAuth(ISSUER.url, audience, client=ISSUER.client)
        token = ISSUER.id_token(**{**PLAIN, "aud": audience, **claims})
        assert await auth.validate_token(token) is accepted, audience
        several = ISSUER.id_token(**{**PLAIN, "aud": ["https://userinfo.example", audience], **claims})
        assert await auth.validate_token(several) is accepted, audience


async def test_a_party_that_is_an_audience() -> None:
    """Neither an audience of the configuration nor the claim that has the audience is a mark."""
    both = OIDCAuth(ISSUER.url, [RESOURCE, "android"], client=ISSUER.client)
    for name in ("azp", "client_id"):
        assert not await both.validate_token(ISSUER.id_token(**PLAIN, aud=RESOURCE, **{name: "android"}))
        assert await both.validate_token(ISSUER.id_token(**PLAIN, aud=RESOURCE, **{name: "other"}))
        named = OIDCAuth(ISSUER.url, CLIENT, audience_claim=name, client=ISSUER.client)
        assert not await named.validate_token(ISSUER.id_token(**PLAIN, aud=None, **{name: CLIENT}))
        assert await named.validate_token(ISSUER.id_token(**PLAIN, aud=None, **{name: CLIENT}, scope="a"))


async def test_an_issuer_without_id_tokens(caplog: pytest.LogCaptureFixture) -> None:
    """With the keyword, a token without a mark is accepted, and the log warns of it."""
    plain: dict[str, Any] = {"header": {"typ": "JWT"}, "client_id": None}
    with caplog.at_level("WARNING", "fastapi_guard"):
        auth = with_remote_keys(no_id_tokens=True)
    assert "no_id_tokens=True" in caplog.text
    assert await auth.validate_token(ISSUER.token(**plain))
    assert not await with_remote_keys().validate_token(ISSUER.token(**plain))
    assert await with_remote_keys(access_mark={"kind": "access"}).validate_token(ISSUER.token(**plain, kind="access"))
    assert not await with_remote_keys(access_mark={"kind": "access"}).validate_token(ISSUER.token(**plain, kind="id"))
