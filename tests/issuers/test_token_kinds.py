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
    assert (await send(app, ISSUER.token(**{**plain, "azp": "other"}))).status_code == 200
    assert_refused(await send(app, ISSUER.token(**plain)))


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
