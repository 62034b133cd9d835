import base64
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID
from joserfc import jwt
from joserfc.jwk import OctKey
from pydantic import SecretStr

from fastapi_guard import ConfigurationError
from fastapi_guard.issuers import OIDCAuth, presets
from support.clock import Clock
from support.guarded import guarded_app, send
from support.provider import NOW, WITHOUT, Case, Provider, check_table, signer

TENANT = "72f988bf-86f1-41af-91ab-2d7cd011db47"
POOL = "eu-central-1_Ab12Cd34E"
COGNITO = f"https://cognito-idp.eu-central-1.amazonaws.com/{POOL}"
CLERK = "https://clerk.example.com"
SUPABASE = "https://abcdefghijklmnopqrst.supabase.co"
GOOGLE_KEYS = "https://www.googleapis.com/service_accounts/v1/jwk/securetoken@system.gserviceaccount.com"
SESSION_KEYS = "https://www.googleapis.com/identitytoolkit/v3/relyingparty/publicKeys"
ZITADEL_ROLES = "urn:zitadel:iam:org:project:roles"


def certificates(jwk: dict[str, Any]) -> dict[str, str]:
    """Return the certificate of the key by its ``kid``, as Google publishes those of session cookies."""
    key: Any = signer("RS256")._keys[0].private_key  # type: ignore[attr-defined]
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "federated-signon.system.gserviceaccount.com")])
    day = datetime(2026, 1, 1, tzinfo=UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(day)
        .not_valid_after(day + timedelta(days=9000))
        .sign(key, hashes.SHA256())
    )
    return {jwk["kid"]: certificate.public_bytes(serialization.Encoding.PEM).decode()}


CASES = {
    "google": Case(
        auth=lambda **options: OIDCAuth.google("web", hosted_domain="example.com", **options),
        issuer="https://accounts.google.com",
        keys_at="https://www.googleapis.com/oauth2/v3/certs",
        found=True,
        good={"sub": "110169484474386276334", "aud": "web", "azp": "web", "hd": "example.com", "email_verified": True},
        also_good={"with a hash and a nonce": {"at_hash": "h", "nonce": "n"}},
        refused={
            "another client": {"aud": "other", "azp": "other"},
            "another domain": {"hd": "other.example"},
            "a consumer": {"hd": WITHOUT},
        },
    ),
    "auth0": Case(
        auth=lambda **options: OIDCAuth.auth0("tenant.eu.auth0.com", "https://api.example", **options),
        issuer="https://tenant.eu.auth0.com/",
        keys_at="https://tenant.eu.auth0.com/.well-known/jwks.json",
        found=True,
        good={
            "sub": "auth0|6553da60a54af58e29493993",
            "aud": ["https://api.example", "https://tenant.eu.auth0.com/userinfo"],
            "azp": "client-1",
            "scope": "openid items:read",
            "permissions": ["items:read"],
        },
        also_good={"a machine": {"sub": "client-1@clients", "aud": "https://api.example", "gty": "client-credentials"}},
        refused={
            "another API": {"aud": "https://other.example"},
            "an ID token": {"azp": WITHOUT, "scope": WITHOUT, "permissions": WITHOUT, "aud": "https://api.example"},
            "an ID token of another client": {"scope": WITHOUT, "permissions": WITHOUT, "sid": "s"},
            "an ID token of the client": {"scope": WITHOUT, "permissions": WITHOUT, "azp": "https://api.example"},
        },
    ),
    "keycloak": Case(
        auth=lambda **options: OIDCAuth.keycloak(
            "http://keycloak:8080", "main", "com.acme.api", client_id="com.acme.api", private_http=True, **options
        ),
        issuer="http://keycloak:8080/realms/main",
        keys_at="http://keycloak:8080/realms/main/protocol/openid-connect/certs",
        found=True,
        good={
            "sub": "f:1",
            "aud": ["com.acme.api", "account"],
            "typ": "Bearer",
            "azp": "web",
            "realm_access": {"roles": ["offline_access"]},
            "resource_access": {"com.acme.api": {"roles": ["editor"]}},
            "scope": "openid profile",
        },
        also_good={"an old server": {"nonce": "n"}},
        refused={
            "another audience": {"aud": "account"},
            "an ID token": {"typ": "ID"},
            "a refresh token": {"typ": "Refresh"},
            "no type": {"typ": WITHOUT},
        },
    ),
    "cognito": Case(
        auth=lambda **options: presets.cognito(POOL, "client-1", **options),
        issuer=COGNITO,
        keys_at=f"{COGNITO}/.well-known/jwks.json",
        found=True,
        good={
            "sub": "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee",
            "token_use": "access",
            "client_id": "client-1",
            "scope": "items/read",
            "username": "ada",
            "cognito:groups": ["editors"],
            "version": 2,
        },
        refused={
            "another client": {"client_id": "other"},
            "no client": {"client_id": WITHOUT},
            "for another API": {"aud": "https://other.example"},
            "an ID token": {"token_use": "id", "client_id": WITHOUT, "aud": "client-1"},
            "an ID token with a client": {"token_use": "id"},
            "no kind": {"token_use": WITHOUT},
        },
    ),
    "cognito-id": Case(
        auth=lambda **options: presets.cognito(POOL, "client-1", accept="id", **options),
        issuer=COGNITO,
        keys_at=f"{COGNITO}/.well-known/jwks.json",
        found=True,
        good={"sub": "u", "aud": "client-1", "token_use": "id", "cognito:username": "ada", "auth_time": NOW},
        refused={
            "another client": {"aud": "other"},
            "an access token": {"token_use": "access", "aud": WITHOUT, "client_id": "client-1"},
            "an access token with an audience": {"token_use": "access"},
            "no kind": {"token_use": WITHOUT},
        },
    ),
    "okta": Case(
        auth=lambda **options: presets.okta("acme.okta.com", **options),
        issuer="https://acme.okta.com/oauth2/default",
        keys_at="https://acme.okta.com/oauth2/default/v1/keys",
        found=True,
        header={},
        good={
            "ver": 1,
            "jti": "AT.0mP4JKAZX1iACIT4vbEDF7LpvDVjxypPMf0D7uX39RE",
            "aud": "api://default",
            "cid": "0oabucvyc38HLL1ef0h7",
            "uid": "00uix9o0ycbwCJWwU0g4",
            "scp": ["openid", "items.read"],
            "sub": "ada@example.org",
        },
        also_good={"a service": {"uid": WITHOUT, "sub": "0oabucvyc38HLL1ef0h7"}},
        refused={
            "another audience": {"aud": "api://other"},
            "an ID token": {"cid": WITHOUT, "scp": WITHOUT, "amr": ["pwd"], "idp": "00o1", "at_hash": "h"},
            "an ID token without a hash": {"cid": WITHOUT, "scp": WITHOUT},
            "the org server": {"iss": "https://acme.okta.com"},
        },
    ),
    "okta-org": Case(
        auth=lambda **options: presets.okta_org("acme.okta.com", "client-1", **options),
        issuer="https://acme.okta.com",
        keys_at="https://acme.okta.com/oauth2/v1/keys",
        found=True,
        header={},
        good={
            "sub": "00uix9o0ycbwCJWwU0g4",
            "aud": "client-1",
            "ver": 1,
            "idp": "00o1",
            "amr": ["pwd"],
            "at_hash": "h",
        },
        refused={"an access token": {"aud": "https://acme.okta.com"}, "another client": {"aud": "other"}},
    ),
    "clerk": Case(
        auth=lambda **options: presets.clerk(CLERK, ["https://app.example.com"], **options),
        issuer=CLERK,
        keys_at=f"{CLERK}/.well-known/jwks.json",
        header={"typ": "JWT", "cat": "cl_B7d4PD111AAA"},
        good={
            "sub": "user_2x",
            "azp": "https://app.example.com",
            "sid": "sess_2x",
            "v": 2,
            "sts": "active",
            "fva": [7, -1],
            "o": {"id": "org_2x", "slg": "acme", "rol": "admin"},
        },
        also_good={"version 1": {"v": WITHOUT, "sts": WITHOUT, "o": WITHOUT, "org_role": "admin"}},
        refused={
            "another site": {"azp": "https://evil.example.com"},
            "no site": {"azp": WITHOUT},
            "a pending session": {"sts": "pending"},
            "an ID token": {"sid": WITHOUT, "aud": "client-1"},
            "an ID token of a session": {"aud": "client-1"},
        },
    ),
    "workos": Case(
        auth=lambda **options: presets.workos("client_01HXYZ", **options),
        issuer="https://api.workos.com/user_management/client_01HXYZ",
        keys_at="https://api.workos.com/sso/jwks/client_01HXYZ",
        good={
            "sub": "user_01HBEQKA6K4QJAS93VPE39W1JT",
            "sid": "session_01HQSXZGF8FHF7A9ZZFCW4387R",
            "org_id": "org_01HRDMC6CM357W30QMHMQ96Q0S",
            "role": "member",
            "roles": ["member"],
            "permissions": ["posts:read"],
            "jti": "01HQSXZXPPFPKMDD32RKTFY6PV",
        },
        refused={
            "another client": {"iss": "https://api.workos.com/user_management/client_01OTHER"},
            "an audience that nothing names": {"aud": "https://other.example"},
            "without a session": {"sid": WITHOUT},
        },
    ),
    "workos with an audience": Case(
        auth=lambda **options: presets.workos(
            "client_01HXYZ", issuer="https://api.workos.com", audience="https://api.example", **options
        ),
        issuer="https://api.workos.com",
        keys_at="https://api.workos.com/sso/jwks/client_01HXYZ",
        good={"sub": "user_1", "sid": "session_1", "aud": "https://api.example"},
        refused={"another audience": {"aud": "https://other.example"}, "no audience": {"aud": WITHOUT}},
    ),
    "supabase": Case(
        auth=lambda **options: presets.supabase(SUPABASE, **options),
        issuer=f"{SUPABASE}/auth/v1",
        keys_at=f"{SUPABASE}/auth/v1/.well-known/jwks.json",
        algorithm="ES256",
        good={
            "sub": "123e4567-e89b-12d3-a456-426614174000",
            "aud": "authenticated",
            "role": "authenticated",
            "aal": "aal1",
            "session_id": "5f9c0d3e",
            "amr": [{"method": "password", "timestamp": NOW}],
            "app_metadata": {"provider": "email", "roles": ["editor"]},
            "user_metadata": {"roles": ["admin"]},
            "is_anonymous": False,
        },
        refused={"an anonymous key": {"aud": "anon"}, "an ID token": {"session_id": WITHOUT}},
    ),
    "firebase": Case(
        auth=lambda **options: presets.firebase("shop-1", **options),
        issuer="https://securetoken.google.com/shop-1",
        keys_at=GOOGLE_KEYS,
        good={
            "sub": "k3Jx9",
            "aud": "shop-1",
            "user_id": "k3Jx9",
            "auth_time": NOW - 20,
            "firebase": {"identities": {}, "sign_in_provider": "password"},
        },
        also_good={"a clock that is ahead": {"auth_time": NOW + 10}, "half a second ago": {"auth_time": NOW - 0.5}},
        refused={
            "another project": {"aud": "shop-2", "iss": "https://securetoken.google.com/shop-2"},
            "a session cookie": {"iss": "https://session.firebase.google.com/shop-1"},
            "no subject": {"sub": WITHOUT},
            "a login in the future": {"auth_time": NOW + 60},
            "a login at no time": {"auth_time": "yesterday"},
        },
    ),
    "firebase-session": Case(
        auth=lambda **options: presets.firebase_session("shop-1", **options),
        issuer="https://session.firebase.google.com/shop-1",
        keys_at=SESSION_KEYS,
        document=certificates,
        cookie="session",
        header={},
        good={"sub": "k3Jx9", "aud": "shop-1", "auth_time": NOW - 20, "firebase": {"sign_in_provider": "password"}},
        refused={
            "an ID token": {"iss": "https://securetoken.google.com/shop-1"},
            "another project": {"aud": "shop-2"},
            "a login in the future": {"auth_time": NOW + 60},
        },
    ),
    "apple": Case(
        auth=lambda **options: presets.apple("com.example.app", **options),
        issuer="https://appleid.apple.com",
        keys_at="https://appleid.apple.com/auth/keys",
        found=True,
        header={},
        good={
            "sub": "001999.0a1b2c.1234",
            "aud": "com.example.app",
            "nonce": "n",
            "nonce_supported": True,
            "email": "x@privaterelay.appleid.com",
            "email_verified": "true",
            "is_private_email": "true",
            "c_hash": "h",
        },
        refused={
            "another app": {"aud": "com.other.app"},
            "a notification": {"events": '{"type":"consent-revoked"}'},
            "no moment of issue": {"iat": WITHOUT},
        },
    ),
    "zitadel": Case(
        auth=lambda **options: presets.zitadel("https://acme-x1y2z3.zitadel.cloud", "69234237810729019", **options),
        issuer="https://acme-x1y2z3.zitadel.cloud",
        keys_at="https://acme-x1y2z3.zitadel.cloud/oauth/v2/keys",
        found=True,
        good={
            "sub": "77776025198584418",
            "aud": ["69234237810729234@shop", "69234237810729019"],
            "azp": "69234237810729234@shop",
            "jti": "V2_1",
            ZITADEL_ROLES: {"editor": {"1234": "acme.zitadel.cloud"}},
        },
        refused={
            "another project": {"aud": ["69234237810729234@shop"]},
            "an ID token": {"jti": WITHOUT, "amr": ["pwd"], "auth_time": NOW},
            "an ID token with a hash": {"at_hash": "h"},
        },
    ),
    "fusionauth": Case(
        auth=lambda **options: presets.fusionauth(
            "https://login.example", "e9fdb985-9173-4e01-9d73-ac2d60d1dc8e", issuer="acme.com", **options
        ),
        issuer="acme.com",
        keys_at="https://login.example/.well-known/jwks.json",
        header={"typ": "JWT", "gty": ["authorization_code"]},
        good={
            "sub": "00000000-0000-0000-0000-111111111111",
            "aud": "e9fdb985-9173-4e01-9d73-ac2d60d1dc8e",
            "applicationId": "e9fdb985-9173-4e01-9d73-ac2d60d1dc8e",
            "authenticationType": "PASSWORD",
            "scope": "offline_access profile openid",
            "roles": ["editor"],
            "tid": TENANT,
        },
        also_good={"client credentials": {"applicationId": WITHOUT, "roles": WITHOUT, "permissions": ["items:read"]}},
        refused={
            "another application": {"aud": "other", "applicationId": "other"},
            "an ID token": {"applicationId": WITHOUT, "roles": WITHOUT},
            "an ID token with a hash": {"at_hash": "h"},
            "the application of another audience": {"applicationId": "other"},
        },
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
async def test_tokens_of_a_provider(case: Case) -> None:
    """Each preset accepts the documented tokens of its provider, by its documents, and refuses the table."""
    await check_table(case)


async def test_roles_scopes_and_tenants() -> None:
    """The roles, scopes and tenants of each provider grant access, and claims that a user can edit do not."""
    for name, roles in {
        "keycloak": {"offline_access", "editor"},
        "cognito": {"editors"},
        "clerk": {"admin"},
        "workos": {"member"},
        "supabase": {"editor"},
        "zitadel": {"editor"},
        "fusionauth": {"editor"},
    }.items():
        provider = Provider(CASES[name])
        claims = await provider.auth.verify(provider.token())
        assert provider.auth.grants_of(claims).roles == roles, name
    okta = Provider(CASES["okta"])
    assert okta.auth.covers(await okta.auth.verify(okta.token()), "items.read")
    workos = Provider(CASES["workos"])
    claims = await workos.auth.verify(workos.token())
    assert workos.auth.covers(claims, "posts:read")
    assert workos.auth.dependency.decision.tenants(claims) == {"org_01HRDMC6CM357W30QMHMQ96Q0S"}


async def test_cognito_with_resource_binding() -> None:
    """A token that has an audience too has to name one of the accepted ones, beside an accepted client."""
    options = {**vars(CASES["cognito"])}
    both = ["client-1", "https://api.example"]
    options["auth"] = lambda **given: presets.cognito(POOL, both, **given)
    provider = Provider(Case(**options))
    assert await provider.status(provider.token()) == 200
    assert await provider.status(provider.token(aud="https://api.example")) == 200
    assert await provider.status(provider.token(aud=["https://api.example"])) == 200
    assert await provider.status(provider.token(aud="https://other.example")) == 401
    assert await provider.status(provider.token(aud="https://api.example", client_id="other")) == 401


async def test_a_session_cookie_of_another_site() -> None:
    """The cookie comes along by itself: on an unsafe method it counts from the application's own pages alone."""
    provider = Provider(CASES["firebase-session"])
    token = provider.token()
    assert await provider.status(token, method="POST", Sec_Fetch_Site="same-origin") == 200
    assert await provider.status(token, method="POST") == 200
    assert await provider.status(token, method="POST", Sec_Fetch_Site="cross-site") == 403
    assert await provider.status(token, method="POST", Origin="https://evil.example") == 403


SECRET = base64.b64encode(bytes(range(64))).decode()


def legacy(secret: str = SECRET, **changes: Any) -> str:
    """Return a token of Supabase that is signed with the legacy secret."""
    claims = {
        "iss": f"{SUPABASE}/auth/v1",
        "exp": NOW + 300,
        "iat": NOW - 10,
        **CASES["supabase"].good,
        **changes,
    }
    kept = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode({"alg": "HS256", "typ": "JWT"}, kept, OctKey.import_key(secret), ["HS256"])


async def test_supabase_while_it_migrates() -> None:
    """Tokens of the legacy secret and of the signing keys pass together, each by its own algorithm alone."""
    new = Provider(CASES["supabase"])
    old = presets.supabase_hs256(SUPABASE, SECRET)
    old._clock = old._verifier._clock = Clock(NOW)
    assert await old.validate_token(legacy())
    refused: dict[str, dict[str, Any]] = {
        "another secret": {"secret": SECRET[::-1]},
        "expired": {"exp": NOW - 60},
        "another issuer": {"iss": "https://other.supabase.co/auth/v1"},
        "another audience": {"aud": "anon"},
        "without a session": {"session_id": None},
    }
    for description, changes in refused.items():
        assert not await old.validate_token(legacy(**changes)), description
    assert not await old.validate_token(new.token())
    assert not await new.auth.validate_token(legacy())
    app = guarded_app(new.auth | old)
    for token, status in ((legacy(), 200), (new.token(), 200), (legacy(exp=NOW - 60), 401), (new.token(aud="x"), 401)):
        assert (await send(app, token)).status_code == status
    public = f"{SUPABASE}/auth/v1/.well-known/jwks.json"
    assert new.asked == [public]
    with pytest.raises(ConfigurationError):
        presets.supabase_hs256(SUPABASE, "super-secret-jwt-token-with-at-least-32-characters-long")


MISTAKES: list[tuple[Any, str]] = [
    (lambda: presets.cognito("eu-central-1", "x"), "user_pool_id is such as"),
    (lambda: presets.cognito("eu-central-1_a/../b", "x"), "user_pool_id is such as"),
    (lambda: presets.cognito(7, "x"), "user_pool_id is such as"),  # type: ignore[arg-type]
    (lambda: presets.okta("https://acme.okta.com"), "domain .* is not a host name"),
    (lambda: presets.okta("acme.okta.com", server="a/b"), "server is the id"),
    (lambda: presets.okta_org("acme", "x"), "domain .* is not a host name"),
    (lambda: presets.workos("a/b"), "client_id is such as"),
    (lambda: presets.clerk("http://clerk.example.com", "https://a.example"), "https"),
    (lambda: presets.clerk(CLERK, []), "audience"),
    (lambda: presets.cognito(POOL, "x", require={"token_use": "id"}), "requires token_use itself"),
    (lambda: presets.clerk(CLERK, "https://a.example", reject={"sts": []}), r"reject\['sts'\]"),
    (lambda: presets.clerk(CLERK, "https://a.example", reject={"typ": "x"}), r"reject\['typ'\]"),
    (lambda: presets.clerk(CLERK, "https://a.example", reject={"sts": 7}), r"reject\['sts'\]"),  # type: ignore[dict-item]
]


def test_a_mistake_is_an_error_when_constructed() -> None:
    """Names, hosts and URLs are checked, and a requirement that contradicts the preset is rejected."""
    for make, message in MISTAKES:
        with pytest.raises(ConfigurationError, match=message):
            make()


async def test_options_of_a_preset_are_applied() -> None:
    """A requirement is added, an option of the user replaces that of the preset, and a misspelt one is a TypeError."""
    case = CASES["cognito"]
    provider = Provider(case, require={"username": "ada"}, role_claims=["groups"])
    assert await provider.status(provider.token()) == 200
    assert await provider.status(provider.token(username="grace")) == 401
    assert provider.auth.grants_of(await provider.auth.verify(provider.token())).roles == frozenset()
    with pytest.raises(TypeError, match="acept"):
        presets.cognito(POOL, "client-1", acept="id")  # type: ignore[call-arg]


def test_the_secret_of_supabase() -> None:
    """It is text, also as a secret of pydantic."""
    text = "Zk3v9Q0xR7tYwM2nB5cD8fG1hJ4kL6pS"
    assert presets.supabase_hs256("https://a.supabase.co", SecretStr(text)).name == "supabase-hs256"
    with pytest.raises(ConfigurationError, match="secret is the legacy JWT secret, not None"):
        presets.supabase_hs256("https://a.supabase.co", None)  # type: ignore[arg-type]
