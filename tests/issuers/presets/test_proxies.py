from typing import Any

import pytest
from fastapi import FastAPI, WebSocket
from starlette.testclient import TestClient, WebSocketDenialResponse

from fastapi_guard import ConfigurationError
from fastapi_guard.issuers import presets
from support.guarded import guarded_app, send
from support.provider import WITHOUT, Case, Provider, check_table

TEAM = "https://acme.cloudflareaccess.com"
AUD = "32eafc7626e974616deaf0dc3ce63d7bcbed58a2731e84d06bc3cdf1b53c4228"
SERVICE = "e367826f93b8d71185e03fe518aff3b4.access"
IAP_AUDIENCE = "/projects/123456789/global/backendServices/987654321"


def certs(jwk: dict[str, Any]) -> dict[str, Any]:
    """Return the document of Cloudflare: keys, and the same as certificates."""
    return {
        "keys": [{name: jwk[name] for name in ("kid", "kty", "use", "e", "n", "alg")}],
        "public_cert": {"kid": jwk["kid"], "cert": "-----BEGIN CERTIFICATE-----\nMIIC\n-----END CERTIFICATE-----"},
        "public_certs": [],
    }


USER: dict[str, Any] = {
    "sub": "7335d417-61da-459d-899c-0a01c76a2f94",
    "aud": [AUD],
    "email": "ada@example.com",
    "type": "app",
    "identity_nonce": "6ei69kawdKzMIAPF",
    "country": "US",
}
CASES = {
    "cloudflare access": Case(
        auth=lambda **options: presets.cloudflare_access("acme.cloudflareaccess.com", AUD, **options),
        issuer=TEAM,
        keys_at=f"{TEAM}/cdn-cgi/access/certs",
        document=certs,
        send_in="Cf-Access-Jwt-Assertion",
        good=USER,
        refused={
            "another application": {"aud": ["97e2aae120121f902df8bc99fc345913"]},
            "no application": {"aud": WITHOUT},
            "another team": {"iss": "https://other.cloudflareaccess.com"},
            "the session of the organization": {"type": "org"},
            "no type": {"type": WITHOUT},
            "a service": {"sub": "", "common_name": SERVICE, "email": WITHOUT},
            "nobody": {"sub": WITHOUT},
        },
    ),
    "google iap": Case(
        auth=lambda **options: presets.google_iap(IAP_AUDIENCE, hosted_domain="example.com", **options),
        issuer="https://cloud.google.com/iap",
        keys_at="https://www.gstatic.com/iap/verify/public_key-jwk",
        algorithm="ES256",
        send_in="x-goog-iap-jwt-assertion",
        good={
            "sub": "accounts.google.com:118133858486581853996",
            "aud": IAP_AUDIENCE,
            "azp": IAP_AUDIENCE,
            "email": "ada@example.com",
            "hd": "example.com",
            "identity_source": "GOOGLE",
            "google": {"access_levels": []},
        },
        refused={
            "another service": {"aud": "/projects/123456789/global/backendServices/1"},
            "another domain": {"hd": "other.example"},
            "an ID token of Google": {"iss": "https://accounts.google.com"},
        },
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
async def test_tokens_of_a_proxy(case: Case) -> None:
    """Each preset accepts the documented assertions of its proxy, by its documents, and refuses the table."""
    await check_table(case)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
async def test_the_header_is_a_cookie_in_disguise(case: Case) -> None:
    """The proxy adds it to each request of a browser: a page of another site can change nothing by that."""
    provider = Provider(case, trusted_origins=["https://app.example"])
    token = provider.token()
    assert await provider.status(token, method="POST", Sec_Fetch_Site="same-origin") == 200
    assert await provider.status(token, method="POST", Origin="https://app.example") == 200
    assert await provider.status(token, method="POST") == 200  # not a browser
    assert await provider.status(token, Sec_Fetch_Site="cross-site") == 200  # a safe method
    for fields in (
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Origin": "https://evil.example"},
    ):
        assert await provider.status(token, method="POST", **fields) == 403
    app = FastAPI()

    @app.websocket("/live", dependencies=[provider.auth.authenticated()])
    async def live(socket: WebSocket) -> None:
        await socket.accept()
        await socket.close()

    name = str(case.send_in)
    client = TestClient(app)
    with client.websocket_connect("/live", headers={name: token, "Origin": "https://app.example"}):
        pass
    with pytest.raises(WebSocketDenialResponse):
        client.websocket_connect("/live", headers={name: token, "Origin": "https://evil.example"}).__enter__()


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
async def test_only_the_header_of_the_proxy_counts(case: Case) -> None:
    """A header without a signature, a bearer token and a second header do not authenticate."""
    provider = Provider(case)
    token = provider.token()
    app = guarded_app(provider.auth)
    name = str(case.send_in)
    assert (await send(app, headers={name: token})).status_code == 200
    unsigned = {"x-goog-authenticated-user-email": "accounts.google.com:ada@example.com", "X-User": "ada"}
    refused = await send(app, headers={"Cf-Access-Authenticated-User-Email": "ada@example.com", **unsigned})
    assert refused.status_code == 401
    assert refused.headers["WWW-Authenticate"] == 'ApiKey realm="api"'
    assert (await send(app, token)).status_code == 401
    assert (await send(app, headers=[(name, token), (name, token)])).status_code == 401
    for raw in ("ada@example.com", "a.b.c", "..", token + "=", token[:-4], f"{token},{token}"):
        assert (await send(app, headers={name: raw})).status_code == 401


async def test_services_of_cloudflare() -> None:
    """A service has an empty subject and its id in `common_name`: accepted where the id is named, and no other."""
    named = Case(
        **{
            **vars(CASES["cloudflare access"]),
            "auth": lambda **options: presets.cloudflare_access(
                "acme.cloudflareaccess.com", AUD, service_tokens=[SERVICE], **options
            ),
        }
    )
    provider = Provider(named)
    service: dict[str, Any] = {"sub": "", "common_name": SERVICE, "email": None, "identity_nonce": None}
    assert await provider.status(provider.token()) == 200
    assert await provider.status(provider.token(**service)) == 200
    assert (await provider.auth.verify(provider.token(**service)))["common_name"] == SERVICE
    for change in (
        {"common_name": "other.access"},
        {"common_name": None},
        {"common_name": [SERVICE]},
        {"sub": None, "common_name": "other.access"},
        {"sub": 7},
        {"aud": ["other"]},
    ):
        assert await provider.status(provider.token(**{**service, **change})) == 401, change


def test_mistakes() -> None:
    """The rule cannot be switched off, a team is a host, ids are a list."""
    with pytest.raises(ConfigurationError, match="cookie=False would let"):
        presets.google_iap(IAP_AUDIENCE, cookie=False)
    with pytest.raises(ConfigurationError, match="cookie=False would let"):
        presets.cloudflare_access("acme.cloudflareaccess.com", AUD, cookie=False)
    with pytest.raises(ConfigurationError, match=r"team .* is not a host name"):
        presets.cloudflare_access(TEAM, AUD)
    with pytest.raises(ConfigurationError, match="service_tokens is a list"):
        presets.cloudflare_access("acme.cloudflareaccess.com", AUD, service_tokens=SERVICE)
    assert presets.google_iap(IAP_AUDIENCE, cookie=True).dependency.decision.is_cookie


@pytest.mark.parametrize("tokens", [None, 5, "e367826f93b8d711.access", [None], [""]])
def test_what_is_not_a_list_of_service_tokens(tokens: Any) -> None:
    """Ids of service tokens are a list of texts."""
    with pytest.raises(ConfigurationError, match="service_tokens is a list of client ids"):
        presets.cloudflare_access("acme.cloudflareaccess.com", "aud", service_tokens=tokens)
    with pytest.raises(ConfigurationError, match="hosted_domain is text"):
        presets.google_iap("/projects/1/apps/a", hosted_domain=5)  # type: ignore[arg-type]
