from typing import Any

import pytest

from fastapi_guard import ConfigurationError, Unauthorized
from fastapi_guard.issuers import MultiOIDCAuth, OIDCAuth, presets
from support.guarded import assert_unavailable, guarded_app, send
from support.provider import NOW, WITHOUT, Case, Provider, check_table, signer

TENANT = "72f988bf-86f1-41af-91ab-2d7cd011db47"
OTHER = "0e9a9c38-3f4e-4a8c-9c0c-8b8f0f0d2f4a"
PERSONAL = "9188040d-6c67-4c5b-b112-36a304b66dad"
API = "6e74172b-be56-4843-9ff4-e66a39bb12e3"
CLIENT = "9a7c1e52-2f39-4f0f-8b0b-2f3a4a7e1a11"
HOST = "https://login.microsoftonline.com"
TEMPLATE = f"{HOST}/{{tenantid}}/v2.0"
B2C = "https://contoso.b2clogin.com"


def published(jwk: dict[str, Any]) -> dict[str, Any]:
    """Return the keys as Microsoft publishes them: with x5t and issuer, without alg."""
    own = {name: jwk[name] for name in ("kty", "n", "e", "kid")}
    other = signer("RS256", 1).jwks["keys"][0]
    personal = {**{name: other[name] for name in ("kty", "n", "e", "kid")}, "issuer": f"{HOST}/{PERSONAL}/v2.0"}
    shared = {"use": "sig", "x5t": jwk["kid"], "x5c": ["MIIC"]}
    return {"keys": [{**own, **shared, "issuer": TEMPLATE}, {**personal, "use": "sig"}]}


ID_TOKEN = {"scp": WITHOUT, "azpacr": WITHOUT}
CASES = {
    "entra v2.0": Case(
        auth=lambda **options: OIDCAuth.entra(TENANT, API, **options),
        issuer=f"{HOST}/{TENANT}/v2.0",
        keys_at=f"{HOST}/{TENANT}/discovery/v2.0/keys",
        found=True,
        good={
            "sub": "AAAAAAAAAAAAAAAAAAAAAIkzqFVrSaSaFHy782bbtaQ",
            "aud": API,
            "tid": TENANT,
            "ver": "2.0",
            "azp": CLIENT,
            "azpacr": "1",
            "scp": "Items.Read",
            "oid": "690222be-ff1a-4d56-abd1-7e4f7d38e474",
            "roles": ["Items.Admin"],
        },
        also_good={
            "an application": {"scp": WITHOUT, "azp": CLIENT},
            "an application without a role": {"scp": WITHOUT, "roles": WITHOUT, "azpacr": WITHOUT},
            "an application for itself": {"scp": WITHOUT, "azp": API},
            "with a nonce": {"nonce": "n"},
        },
        refused={
            "another API": {"aud": "00000003-0000-0000-c000-000000000000"},
            "another tenant": {"tid": OTHER},
            "the issuer of another tenant": {"iss": f"{HOST}/{OTHER}/v2.0", "tid": OTHER},
            "version 1.0": {"ver": "1.0"},
            "an ID token": {**ID_TOKEN, "azp": WITHOUT, "nonce": "n", "preferred_username": "ada@example.org"},
            "an ID token without a nonce": {**ID_TOKEN, "azp": WITHOUT},
            "an ID token of the client": {**ID_TOKEN, "azp": API},
            "an ID token of another client": {**ID_TOKEN, "sid": "s"},
            "an ID token with a name": {**ID_TOKEN, "name": "Ada"},
            "an unknown way of authentication": {**ID_TOKEN, "azp": WITHOUT, "azpacr": "x"},
        },
    ),
    "entra v1.0": Case(
        auth=lambda **options: OIDCAuth.entra(TENANT, "api://orders", version="1.0", **options),
        issuer=f"https://sts.windows.net/{TENANT}/",
        keys_at=f"{HOST}/{TENANT}/discovery/keys",
        good={
            "sub": "AAAAAAAAAAAAAAAAAAAAAIkzqFVrSaSaFHy782bbtaQ",
            "aud": "api://orders",
            "tid": TENANT,
            "ver": "1.0",
            "appid": CLIENT,
            "appidacr": "0",
            "scp": "Items.Read",
            "unique_name": "ada@example.org",
        },
        also_good={"an application": {"scp": WITHOUT}},
        refused={
            "another API": {"aud": "https://graph.microsoft.com"},
            "another tenant": {"tid": OTHER, "iss": f"https://sts.windows.net/{OTHER}/"},
            "version 2.0": {"ver": "2.0"},
            "an ID token": {"appid": WITHOUT, "scp": WITHOUT, "amr": ["pwd"]},
        },
    ),
    "several tenants": Case(
        auth=lambda **options: presets.entra_tenants(API, {TENANT, PERSONAL}.__contains__, **options),
        issuer=f"{HOST}/{TENANT}/v2.0",
        keys_at=f"{HOST}/organizations/discovery/v2.0/keys",
        document=published,
        good={"sub": "AAAA", "aud": API, "tid": TENANT, "ver": "2.0", "azp": CLIENT, "scp": "Items.Read"},
        refused={
            "a tenant that is not accepted": {"tid": OTHER, "iss": f"{HOST}/{OTHER}/v2.0"},
            "the issuer of another tenant": {"iss": f"{HOST}/{OTHER}/v2.0"},
            "the id of another tenant": {"tid": OTHER},
            "an id in another case": {"tid": TENANT.upper(), "iss": f"{HOST}/{TENANT.upper()}/v2.0"},
            "no tenant": {"tid": WITHOUT},
            "tenants as a list": {"tid": [TENANT]},
            "the template itself": {"tid": "{tenantid}", "iss": TEMPLATE},
            "version 1.0": {"ver": "1.0", "iss": f"https://sts.windows.net/{TENANT}/"},
            "an ID token": {"azp": WITHOUT, "scp": WITHOUT},
            "an ID token of the client": {"azp": API, "scp": WITHOUT},
            "an ID token of another client": {"scp": WITHOUT, "nonce": "n"},
        },
    ),
    "b2c": Case(
        auth=lambda **options: presets.entra_b2c("contoso", TENANT, "B2C_1_signupsignin", API, **options),
        issuer=f"{B2C}/{TENANT}/v2.0/",
        keys_at=f"{B2C}/contoso.onmicrosoft.com/B2C_1_signupsignin/discovery/v2.0/keys",
        good={
            "sub": "8a2d9c1f-6c3f-4d4b-9d2f-1a2b3c4d5e6f",
            "aud": API,
            "ver": "1.0",
            "azp": CLIENT,
            "scp": "items.read",
            "tfp": "B2C_1_signupsignin",
            "nonce": "n",
            "auth_time": NOW - 20,
        },
        refused={
            "another API": {"aud": CLIENT},
            "another policy": {"tfp": "B2C_1_passwordreset"},
            "no policy": {"tfp": WITHOUT},
            "another tenant": {"iss": f"{B2C}/{OTHER}/v2.0/"},
            "an ID token": {"scp": WITHOUT, "azp": WITHOUT},
            "an ID token with a client": {"scp": WITHOUT},
        },
    ),
    "adfs": Case(
        auth=lambda **options: presets.adfs("adfs.example.com", "https://api.example", **options),
        issuer="http://adfs.example.com/adfs/services/trust",
        keys_at="https://adfs.example.com/adfs/discovery/keys",
        good={
            "sub": "ada",
            "aud": "https://api.example",
            "apptype": "Confidential",
            "appid": CLIENT,
            "authmethod": "urn:oasis:names:tc:SAML:2.0:ac:classes:PasswordProtectedTransport",
            "ver": "1.0",
            "scp": "openid",
            "role": "editor",
        },
        also_good={"the client's own API": {"aud": ["https://api.example", "microsoft:identityserver:x"]}},
        refused={
            "another API": {"aud": "https://other.example"},
            "an ID token": {"iss": "https://adfs.example.com/adfs", "appid": WITHOUT, "scp": WITHOUT},
            "an ID token of that issuer": {"appid": WITHOUT, "scp": WITHOUT},
        },
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
async def test_tokens_of_a_provider(case: Case) -> None:
    """Each preset accepts the documented tokens of its provider, by its documents, and refuses the table."""
    await check_table(case)


async def test_a_personal_account() -> None:
    """Its key names its own issuer, so that it signs for no tenant."""
    provider = Provider(CASES["several tenants"])
    personal = signer("RS256", 1)
    claims = {**CASES["several tenants"].good, "iat": NOW, "exp": NOW + 300}
    for tenant in (PERSONAL, TENANT):
        token = personal._signed({"kid": personal.kid}, {**claims, "tid": tenant, "iss": f"{HOST}/{tenant}/v2.0"})
        assert not await provider.auth.validate_token(token)
    assert await provider.auth.validate_token(provider.token())


async def test_the_tenants_are_looked_up_at_each_verification() -> None:
    """A function may be asynchronous, decides for cached tokens too, and must return True; its failure is a 503."""
    accepted: list[Any] = [True]

    async def accepts(tenant: str) -> Any:
        assert tenant == TENANT
        if isinstance(accepted[0], Exception):
            raise accepted[0]
        return accepted[0]

    options = {**vars(CASES["several tenants"])}
    options["auth"] = lambda **given: presets.entra_tenants(API, accepts, cache_size=8, **given)
    provider = Provider(Case(**options))
    token = provider.token()
    assert await provider.status(token) == 200
    for answer in (False, None, 1, "yes"):
        accepted[0] = answer
        assert await provider.status(token) == 401
    accepted[0] = RuntimeError(token)
    assert_unavailable(await send(guarded_app(provider.auth), token))
    accepted[0] = Unauthorized()
    assert await provider.status(token) == 401
    accepted[0] = True
    assert await provider.status(token) == 200
    # A ticket, which has the claims alone, ends with the tenant too.
    claims = {"tid": TENANT, "sub": "x"}
    assert await provider.auth._current(claims, None) == claims
    accepted[0] = False
    with pytest.raises(Unauthorized):
        await provider.auth._current(claims, None)
    assert provider.auth.dependency.decision.tenants({"tid": TENANT}) == {TENANT}


async def test_documents_that_are_not_a_key_set() -> None:
    """A page of a proxy instead of the keys is a 503, as for every RemoteKeySet."""
    provider = Provider(CASES["several tenants"])
    for document in ([], {"keys": "none"}, {"keys": [7]}):
        provider.case = Case(**{**vars(CASES["several tenants"]), "document": lambda _, found=document: found})
        assert_unavailable(await send(guarded_app(provider.auth), provider.token()))


def test_several_tenants_beside_other_providers() -> None:
    """Its issuers are not known in advance, so a MultiOIDCAuth cannot find it: combine it by ``|``."""
    auth = presets.entra_tenants(API, lambda _: True)
    assert auth.issuers == ()  # type: ignore[attr-defined]
    with pytest.raises(ConfigurationError, match="no fixed issuer"):
        MultiOIDCAuth({"entra": auth})


@pytest.mark.parametrize(
    "arguments",
    [
        ("contoso.onmicrosoft.com", TENANT, "B2C_1_x"),
        ("contoso", "common", "B2C_1_x"),
        ("contoso", TENANT, "a/../b"),
        ("contoso", TENANT, ""),
    ],
)
def test_b2c_takes_names(arguments: tuple[str, str, str]) -> None:
    """Each is a part of a URL."""
    with pytest.raises(ConfigurationError, match="entra_b2c takes"):
        presets.entra_b2c(*arguments, API)


def test_mistakes() -> None:
    """A version that does not exist, tenants that are not a function, a URL for a host."""
    with pytest.raises(ConfigurationError, match="version is"):
        OIDCAuth.entra(TENANT, API, version="3.0")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="requires tid itself"):
        OIDCAuth.entra(TENANT, API, require={"tid": OTHER})
    with pytest.raises(ConfigurationError, match="accepts is a function"):
        presets.entra_tenants(API, {TENANT})  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="is not a host name"):
        presets.adfs("https://adfs.example.com", API)
    assert OIDCAuth.entra(TENANT, API, accept="id").config.rules.access_marks is not None


def test_names_of_b2c_that_are_not_text() -> None:
    """They are refused with an example."""
    wrong: Any = None
    for names in ((wrong, "72f988bf-86f1-41af-91ab-2d7cd011db47", "B2C_1"), ("contoso", wrong, "B2C_1")):
        with pytest.raises(ConfigurationError, match="entra_b2c takes such as"):
            presets.entra_b2c(*names, "api")
