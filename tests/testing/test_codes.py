"""The authorization and token endpoints of a FakeIssuer."""

from urllib.parse import urlencode

import pytest

from fastapi_guard import Unauthorized
from fastapi_guard.issuers import OIDCAuth
from fastapi_guard.testing.issuer import FakeIssuer

QUERY = {
    "response_type": "code",
    "client_id": "shop",
    "redirect_uri": "https://shop.example/callback?a=b",
    "state": "s",
    "code_challenge": "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",
    "code_challenge_method": "S256",
}
# RFC 7636, appendix B.
VERIFIER = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"


@pytest.mark.parametrize("missing", sorted(QUERY))
def test_requests_without_pkce(missing: str) -> None:
    """An authorization request that leaves something out is an error of the test that made it."""
    query = urlencode({name: value for name, value in QUERY.items() if name != missing})
    with pytest.raises(ValueError, match="PKCE"):
        FakeIssuer().authorize(f"https://id.example/authorize?{query}")


@pytest.mark.parametrize(
    ("changed", "valid"),
    [
        ({}, True),
        ({"code_verifier": "another"}, False),
        ({"client_id": "another"}, False),
        ({"redirect_uri": "https://evil.example"}, False),
        ({"grant_type": "password"}, False),
    ],
)
async def test_the_exchange(changed: dict[str, str], valid: bool) -> None:
    """A code is exchanged by its client, with its verifier and redirect URI, once."""
    issuer = FakeIssuer()
    answer = issuer.authorize(f"https://id.example/authorize?{urlencode(QUERY)}")
    assert answer.startswith("https://shop.example/callback?a=b&state=s&code=")
    code = answer.partition("&code=")[2].partition("&")[0]
    own = {"grant_type": "authorization_code", "code": code, "code_verifier": VERIFIER, "client_id": "shop"}
    form = {**own, "redirect_uri": QUERY["redirect_uri"], **changed}
    statuses = [(await issuer.client.post("https://id.example/token", data=form)).status_code for _ in range(2)]
    assert statuses == [200 if valid else 400, 400]
    bearer = {"Authorization": "Bearer x"}
    assert (await issuer.client.post("https://id.example/token", data={}, headers=bearer)).status_code == 400


async def test_the_tokens() -> None:
    """The access token has the scopes of the request, and the ID token is for the client; an API accepts the former."""
    issuer = FakeIssuer()
    api = OIDCAuth(issuer=issuer.url, audience=issuer.audience, client=issuer.client)
    for scope, granted in (("openid items:read", "openid items:read"), ("", None)):
        answer = issuer.authorize(f"https://id.example/authorize?{urlencode({**QUERY, 'scope': scope})}", "ada")
        code = answer.partition("&code=")[2].partition("&")[0]
        own = {"grant_type": "authorization_code", "code": code, "code_verifier": VERIFIER, "client_id": "shop"}
        form = {**own, "redirect_uri": QUERY["redirect_uri"]}
        tokens = (await issuer.client.post("https://id.example/token", data=form)).json()
        claims = await api.verify(tokens["access_token"])
        assert (claims["sub"], claims["client_id"], claims.get("scope")) == ("ada", "shop", granted)
        with pytest.raises(Unauthorized):
            await api.verify(tokens["id_token"])
    await api.aclose()
