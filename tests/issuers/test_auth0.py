import asyncio
import base64
import json
from typing import Annotated, Any

import httpx
import pytest
import time_machine
from auth0_api_python import ApiClient, ApiClientOptions
from auth0_api_python.errors import DomainsResolverError, VerifyAccessTokenError
from fastapi import FastAPI, WebSocket
from fastapi.testclient import TestClient
from joserfc.jwk import ECKey
from starlette.requests import Request

from fastapi_guard import ConfigurationError, Unauthorized
from fastapi_guard.app import expires_with
from fastapi_guard.issuers.auth0 import Auth0
from fastapi_guard.stores import MemoryStore, Record
from fastapi_guard.testing.issuer import FakeIssuer
from support.deadlines import changed
from support.dpop import make_proof
from support.guarded import EXPIRED, EXPIRED_CHALLENGE, INVALID, assert_refused, assert_unavailable, guarded_app, send

API = "https://api.example"
DOMAIN = "tenant.eu.auth0.com"
DISCOVERY = "/.well-known/openid-configuration"
BOTH = 'Bearer realm="api", DPoP realm="api", algs="ES256"'
SAID = 'error="invalid_token", error_description="The access token is invalid"'
BOTH_INVALID = f'Bearer realm="api", {SAID}, DPoP realm="api", {SAID}, algs="ES256"'
PROOF = {"detail": "The DPoP proof is invalid"}
PROOF_CHALLENGE = (
    'Bearer realm="api", DPoP realm="api", error="invalid_dpop_proof", '
    'error_description="The DPoP proof is invalid", algs="ES256"'
)
KEY = ECKey.generate_key("P-256")
TENANT = FakeIssuer(f"https://{DOMAIN}/", audience=API, algorithm="RS256")
OTHER = FakeIssuer(f"https://{DOMAIN}/", audience=API, algorithm="RS256")


class Tenant(FakeIssuer):
    """An Auth0 tenant that responds to the library in process; its RSA keys are made once for all tests."""

    def __init__(self, url: str = f"https://{DOMAIN}/") -> None:
        """Begin with the shared key."""
        super().__init__(url, audience=API)
        self._algorithm = "RS256"
        self._keys = list(TENANT._keys)

    async def fetch(self, url: str) -> httpx.Response:
        """Answer as the library's `custom_fetch`: what httpx would give it, errors of HTTP raised."""
        answer = await self.client.get(url)
        response = httpx.Response(
            answer.status_code, headers=dict(answer.headers), content=answer.content, request=httpx.Request("GET", url)
        )
        return response.raise_for_status()

    def api_client(self, **options: Any) -> ApiClient:
        """Return the library's client, as its documentation constructs it."""
        return ApiClient(ApiClientOptions(**{"domain": DOMAIN, "audience": API, "custom_fetch": self.fetch, **options}))

    def auth(self, *, origin: str | None = None, store: Any = None, clock: Any = None, **options: Any) -> Auth0:
        """Return an Auth for its tokens."""
        more = {name: value for name, value in (("store", store), ("clock", clock)) if value is not None}
        return Auth0(self.api_client(**options), origin=origin, **more)

    def bound_token(self, **claims: Any) -> str:
        """Return a token that is bound to a key."""
        return self.token(cnf={"jkt": KEY.thumbprint()}, **claims)


def test_a_store_that_nothing_uses() -> None:
    """The ids of proofs are kept only where proofs are checked; a store that would be dropped is an error."""
    tenant = Tenant()
    for options in ({}, {"origin": API, "dpop_enabled": False}):
        with pytest.raises(ConfigurationError, match="store keeps the ids of proofs"):
            tenant.auth(store=MemoryStore(), **options)


async def test_a_token_of_the_tenant() -> None:
    """Scopes of `scope` and of `permissions` count; what is missing is a 403, what is not the tenant's a 401."""
    tenant = Tenant()
    app = guarded_app(tenant.auth(), "items:read")
    answer = await send(app, tenant.token(scope="items:read"))
    assert answer.json() == {"sub": "user-1", "provider": None, "by": "auth0"}
    assert (await send(app, tenant.token(permissions=["items:read"]))).status_code == 200
    assert (await send(app, tenant.token(header={"typ": "JWT"}, permissions=["items:read"]))).status_code == 200
    lacking = await send(app, tenant.token(permissions=["items:write"]))
    assert lacking.status_code == 403
    assert lacking.headers["WWW-Authenticate"] == 'Bearer realm="api", error="insufficient_scope", scope="items:read"'
    assert_refused(await send(app, OTHER.token(header={"kid": tenant.kid}, scope="items:read")))
    assert_refused(await send(app), {"detail": "Not authenticated"}, 'Bearer realm="api"')
    assert tenant.requests == [DISCOVERY, "/jwks"]
    claims = await tenant.auth().verify(tenant.token("ada"))
    assert (claims["sub"], type(claims)) == ("ada", dict)


REFUSED: dict[str, dict[str, Any]] = {
    "another audience": {"aud": "other"},
    "no audience": {"aud": None},
    "an audience that is a number": {"aud": 7},
    "another issuer": {"iss": "https://attacker.example/"},
    "an issuer in another case": {"iss": f"https://{DOMAIN.upper()}/"},
    "an issuer over http": {"iss": f"http://{DOMAIN}/"},
    "an issuer with a path": {"iss": f"https://{DOMAIN}/path"},
    "an issuer that is a list": {"iss": [f"https://{DOMAIN}/"]},
    "no issuer": {"iss": None},
    "no end": {"exp": None},
    "an end that is text": {"exp": "4000000000"},
    "an end that is a bool": {"exp": True},
    "not yet valid": {"nbf": 4_000_000_000},
    "a begin that is text": {"nbf": "1"},
    "issued in the future": {"iat": 4_000_000_000},
    "no moment of issue": {"iat": None},
    "a subject that is a number": {"sub": 7},
    "bound to a key": {"cnf": {"jkt": "x"}},
    "bound to a certificate": {"cnf": {"x5t#S256": "x"}},
    "bound to nothing": {"cnf": None, "exp": None},
}


@pytest.mark.parametrize("claims", REFUSED.values(), ids=REFUSED)
async def test_claims_that_do_not_hold(claims: dict[str, Any]) -> None:
    """Claims are refused alike, whether the library checks them or not; a good token passes."""
    tenant = Tenant()
    auth = tenant.auth()
    app = guarded_app(auth)
    sub = claims.get("sub", "user-1")
    token = tenant.token(sub, **{name: value for name, value in claims.items() if name != "sub"})
    assert_refused(await send(app, token))
    assert not await auth.validate_token(token)
    assert (await send(app, tenant.token())).status_code == 200


async def test_an_expired_token() -> None:
    """Is refused as such."""
    tenant = Tenant()
    app = guarded_app(tenant.auth())
    assert_refused(await send(app, tenant.token(expires_in=-60)), EXPIRED, EXPIRED_CHALLENGE)
    assert (await send(app, tenant.token())).status_code == 200


ODD_HEADERS: dict[str, Any] = {
    "alg a list": {"alg": ["RS256"]},
    "alg null": {"alg": None},
    "alg a number": {"alg": 256},
    "alg none": {"alg": "none"},
    "alg symmetric": {"alg": "HS256"},
    "alg of another family": {"alg": "ES256"},
    "no kid": {"kid": None},
    "kid empty": {"kid": ""},
    "kid a number": {"kid": 7},
    "kid a list": {"kid": ["x"]},
    "kid unknown": {"kid": "unknown"},
    "typ of an ID token's logout": {"typ": "logout+jwt"},
    "typ a number": {"typ": 1},
    "crit": {"crit": ["exp"]},
    "b64": {"b64": False},
    "quotes": {"kid": 'x", error="none'},
    "line breaks": {"kid": "x\r\nSet-Cookie: a=b"},
}


def with_header(token: str, **changes: Any) -> str:
    """Return ``token`` with other members in its header; the signature no longer holds."""
    head, rest = token.split(".", 1)
    header = {**json.loads(base64.urlsafe_b64decode(head + "==")), **changes}
    return base64.urlsafe_b64encode(json.dumps(header).encode()).rstrip(b"=").decode() + "." + rest


@pytest.mark.parametrize("changes", ODD_HEADERS.values(), ids=ODD_HEADERS)
async def test_odd_headers(changes: dict[str, Any]) -> None:
    """A text that makes the library fail is a plain 401, and nothing of it comes back."""
    tenant = Tenant()
    app = guarded_app(tenant.auth())
    answer = await send(app, with_header(tenant.token(), **changes))
    assert_refused(answer)
    assert "Set-Cookie" not in answer.headers
    assert (await send(app, tenant.token())).status_code == 200


@pytest.mark.parametrize(
    "raw", ["", "a", "a.b.c", "..", "e30.e30.AA", "e30.W10.AA", "a.b.c.d.e", "é.é.é", "A" * 20_000, "b'e30.e30.AA'"]
)
async def test_what_is_no_token(raw: str) -> None:
    """Any such text is one refusal, and causes no request."""
    tenant = Tenant()
    with pytest.raises(Unauthorized) as caught:
        await tenant.auth().verify(raw)
    assert caught.value.detail == INVALID["detail"]
    assert tenant.requests == []


# --- the tenant


async def test_a_tenant_that_answers_with_garbage() -> None:
    """503 with Retry-After, whether discovery or the keys are garbled."""
    for path in (DISCOVERY, "/jwks"):
        for body, status in ((b"", 500), (b"<html>", 200), (b"{}", 200), (b"[]", 200), (b'{"keys": [1]}', 200)):
            tenant = Tenant()
            with tenant.answering(path, body, status=status):
                assert_unavailable(await send(guarded_app(tenant.auth()), tenant.token()))


@pytest.mark.parametrize("fault", ["outage", "slow", "dripping"])
async def test_a_tenant_that_is_away(fault: str) -> None:
    """503 with Retry-After while it is down, slow or dripping; then it recovers."""
    tenant = Tenant()
    auth = Auth0(tenant.api_client(), timeout_seconds=60)
    app = guarded_app(auth)
    faults = {"outage": tenant.outage(), "slow": tenant.slow(3600), "dripping": tenant.slow(seconds_a_byte=60)}

    async def while_it_lasts() -> None:
        with faults[fault], changed(auth, "_timeout", 0.05):
            assert_unavailable(await send(app, tenant.token()))

    await while_it_lasts()
    assert (await send(app, tenant.token())).status_code == 200
    assert_refused(await send(app, OTHER.token(header={"kid": tenant.kid})))


async def test_the_library_without_a_fetch_of_its_own() -> None:
    """Its own HTTP client meets a host that does not exist: 503."""
    client = ApiClient(ApiClientOptions(domain="127.0.0.1:1", audience=API))
    tenant = Tenant("https://127.0.0.1:1/")
    assert_unavailable(await send(guarded_app(Auth0(client)), tenant.token()))


@pytest.mark.parametrize(
    "error",
    [
        ZeroDivisionError("secret"),
        KeyError("secret"),
        DomainsResolverError("secret"),
        VerifyAccessTokenError("Failed to fetch JWKS: secret"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_any_exception_of_the_library_is_a_503(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    """None of its text leaves, neither in the answer nor in the log."""

    class Broken(ApiClient):
        async def verify_access_token(self, *args: Any, **kwargs: Any) -> Any:
            raise error

    tenant = Tenant()
    client = Broken(ApiClientOptions(domain=DOMAIN, audience=API, custom_fetch=tenant.fetch))
    answer = await send(guarded_app(Auth0(client)), tenant.token())
    assert_unavailable(answer)
    assert "secret" not in answer.text + str(answer.headers) + caplog.text


async def test_a_refusal_of_the_library_says_nothing_of_its_own() -> None:
    """Its text stays inside."""

    class Refusing(ApiClient):
        async def verify_access_token(self, *args: Any, **kwargs: Any) -> Any:
            raise VerifyAccessTokenError("secret")

    tenant = Tenant()
    client = Refusing(ApiClientOptions(domain=DOMAIN, audience=API, custom_fetch=tenant.fetch))
    assert_refused(await send(guarded_app(Auth0(client)), tenant.token()))


async def test_a_new_key_is_fetched() -> None:
    """The library keeps its keys whatever a token names; a new kid makes it fetch them, once a cooldown."""
    now = [1_000_000_000.0]
    tenant = Tenant()
    tenant._clock = lambda: 1_000_000_000.0
    with time_machine.travel(1_000_000_000, tick=False):
        auth = tenant.auth(clock=lambda: now[0])
        app = guarded_app(auth)
        assert (await send(app, tenant.token())).status_code == 200
        tenant._keys = list(OTHER._keys)
        assert (await send(app, tenant.token())).status_code == 200
        assert tenant.requests == [DISCOVERY, "/jwks", "/jwks"]
        for number in range(5):
            assert_refused(await send(app, tenant.token(header={"kid": f"made-up-{number}"})))
        assert tenant.requests == [DISCOVERY, "/jwks", "/jwks"]
        now[0] += 30
        assert_refused(await send(app, tenant.token(header={"kid": "made-up"})))
        assert tenant.requests == [DISCOVERY, "/jwks", "/jwks", "/jwks"]


async def test_known_kids_are_bounded() -> None:
    """An issuer with another name for each key does not fill the memory."""
    tenant = Tenant()
    auth = tenant.auth()
    auth._known_kids = {f"kid-{number}" for number in range(128)}
    assert await auth.validate_token(tenant.token())
    assert len(auth._known_kids) == 128


@pytest.mark.parametrize("missing", ["_discovery_cache", "_jwks_cache"])
async def test_a_library_without_these_caches(missing: str) -> None:
    """If another release keeps its keys elsewhere, a new key waits until the library fetches it."""
    tenant = Tenant()
    client = tenant.api_client()
    auth = Auth0(client)
    assert await auth.validate_token(tenant.token())

    class Without:
        """Stands before the library's client, and lacks an attribute."""

        def __getattr__(self, name: str) -> Any:
            if name == missing:
                raise AttributeError(name)
            return getattr(client, name)

    auth._api_client = Without()  # type: ignore[assignment]
    assert not await auth.validate_token(tenant.token(header={"kid": "unknown"}))
    assert await auth.validate_token(tenant.token())


async def test_several_domains() -> None:
    """A list of domains, and a resolver that sees the request; a token of none of them is refused unasked."""
    tenant = Tenant()
    auth = tenant.auth(domain=None, domains=[DOMAIN, "https://other.eu.auth0.com/"])
    assert auth.issuers == (f"https://{DOMAIN}/", "https://other.eu.auth0.com/")
    assert await auth.validate_token(tenant.token())
    assert not await auth.validate_token(tenant.token(iss="https://attacker.example/"))
    assert tenant.requests == [DISCOVERY, "/jwks"]
    assert not await auth.validate_token(tenant.token(header={"kid": "unknown"}))
    assert tenant.requests == [DISCOVERY, "/jwks", "/jwks"]
    seen: list[dict[str, Any]] = []

    def resolve(context: dict[str, Any]) -> list[str]:
        seen.append(context)
        return [DOMAIN]

    resolving = tenant.auth(domain=None, domains=resolve, origin=API)
    assert resolving.issuers == ()
    assert (await send(guarded_app(resolving), tenant.token(), headers={"X-Own": "1"})).status_code == 200
    assert seen[0]["request_url"] == f"{API}/items"
    assert seen[0]["request_headers"]["x-own"] == "1"
    assert tenant.auth().issuers == (f"https://{DOMAIN}/",)


# --- DPoP


async def test_a_bound_token_with_its_proof() -> None:
    """Method and URL of the request count; a replayed proof is refused."""
    tenant = Tenant()
    app = guarded_app(tenant.auth(origin=API))
    token = tenant.bound_token()
    proof = make_proof(KEY, token)
    assert (await send(app, token, scheme="DPoP", headers={"DPoP": proof})).status_code == 200
    assert_refused(await send(app, token, scheme="DPoP", headers={"DPoP": proof}), PROOF, PROOF_CHALLENGE)
    for changes in (
        {"method": "POST"},
        {"url": f"{API}/other"},
        {"url": "https://attacker.example/items"},
        {"htm": "get"},
        {"ath": "x"},
        {"iat": 1},
        {"jti": ""},
    ):
        answer = await send(app, token, scheme="DPoP", headers={"DPoP": make_proof(KEY, token, **changes)})
        assert_refused(answer, PROOF, PROOF_CHALLENGE)
    posted = make_proof(KEY, token, method="POST")
    assert (await send(app, token, scheme="DPoP", method="POST", headers={"DPoP": posted})).status_code == 200
    assert_refused(await send(app, token, scheme="DPoP"), PROOF, PROOF_CHALLENGE)
    assert_refused(await send(app, token, scheme="DPoP", headers={"DPoP": "x"}), PROOF, PROOF_CHALLENGE)
    other = make_proof(ECKey.generate_key("P-256"), token)
    assert_refused(await send(app, token, scheme="DPoP", headers={"DPoP": other}), INVALID, BOTH_INVALID)


async def test_a_bound_token_without_its_proof_is_refused_everywhere() -> None:
    """As a bearer token, without the connection, and where no origin was named."""
    tenant = Tenant()
    token = tenant.bound_token()
    headers = {"DPoP": make_proof(KEY, token)}
    app = guarded_app(tenant.auth(origin=API))
    assert_refused(await send(app, token), INVALID, BOTH_INVALID)
    assert_refused(await send(app, token, headers=headers), INVALID, BOTH_INVALID)
    assert_refused(await send(app), {"detail": "Not authenticated"}, BOTH)
    assert not await tenant.auth(origin=API).validate_token(token)
    plain = guarded_app(tenant.auth())
    assert_refused(await send(plain, token))
    not_taken = await send(plain, token, scheme="DPoP", headers=headers)
    assert_refused(not_taken, {"detail": "Not authenticated"}, 'Bearer realm="api"')
    assert (await send(app, tenant.token())).status_code == 200
    unbound = tenant.token()
    as_bound = await send(app, unbound, scheme="DPoP", headers={"DPoP": make_proof(KEY, unbound)})
    assert_refused(as_bound, INVALID, BOTH_INVALID)


async def test_the_clients_own_settings_count() -> None:
    """`dpop_required` rejects bearer tokens and needs an origin; `dpop_enabled=False` offers no DPoP."""
    tenant = Tenant()
    app = guarded_app(tenant.auth(origin=API, dpop_required=True))
    assert_refused(await send(app, tenant.token()), {"detail": "Not authenticated"}, 'DPoP realm="api", algs="ES256"')
    token = tenant.bound_token()
    assert (await send(app, token, scheme="DPoP", headers={"DPoP": make_proof(KEY, token)})).status_code == 200
    with pytest.raises(ConfigurationError, match="origin"):
        tenant.auth(dpop_required=True)
    disabled = guarded_app(tenant.auth(origin=API, dpop_enabled=False))
    assert_refused(await send(disabled), {"detail": "Not authenticated"}, 'Bearer realm="api"')
    assert_refused(await send(disabled, token))


async def test_a_bound_token_of_an_open_connection() -> None:
    """It is verified again without its proof, which was accepted when the connection was opened."""
    tenant = Tenant()
    auth = tenant.auth(origin=API)
    token = tenant.bound_token()
    headers = {"Authorization": f"DPoP {token}", "DPoP": make_proof(KEY, token, url=f"{API}/ws")}
    app = FastAPI()

    @app.websocket("/ws")
    async def talk(websocket: WebSocket, claims: Annotated[Any, auth.authenticated()]) -> None:
        await websocket.accept()
        checks = expires_with(websocket, claims)._checks
        for _ in range(2):
            await checks[0]()
        assert len(checks) == 1
        await websocket.close(4000)

    with TestClient(app).websocket_connect("/ws", headers=headers) as session:
        assert session.receive() == {"type": "websocket.close", "code": 4000, "reason": ""}


async def test_the_library_has_the_last_word_on_a_proof() -> None:
    """Its refusals are refusals here, with any exception, and without its text."""
    tenant = Tenant()

    class Refusing(ApiClient):
        async def verify_dpop_proof(self, *args: Any, **kwargs: Any) -> Any:
            raise ValueError("secret")

    options: dict[str, Any] = {"domain": DOMAIN, "audience": API, "custom_fetch": tenant.fetch}
    token = tenant.bound_token()
    for kind, status in ((Refusing, 401), (ApiClient, 200)):
        app = guarded_app(Auth0(kind(ApiClientOptions(**options)), origin=API))
        answer = await send(app, token, scheme="DPoP", headers={"DPoP": make_proof(KEY, token)})
        assert answer.status_code == status
        if status == 401:
            assert_refused(answer, PROOF, PROOF_CHALLENGE)


async def test_a_store_of_proofs_for_several_processes() -> None:
    """Two Auths with one store refuse each other's replays; a store that fails is a 503."""
    tenant = Tenant()
    store = MemoryStore()
    token = tenant.bound_token()
    proof = make_proof(KEY, token)
    first, second = (guarded_app(tenant.auth(origin=API, store=store)) for _ in range(2))
    assert (await send(first, token, scheme="DPoP", headers={"DPoP": proof})).status_code == 200
    assert_refused(await send(second, token, scheme="DPoP", headers={"DPoP": proof}), PROOF, PROOF_CHALLENGE)

    class Broken(MemoryStore):
        async def add(self, record: Record) -> bool:
            raise OSError

    broken = guarded_app(tenant.auth(origin=API, store=Broken()))
    headers = {"DPoP": make_proof(KEY, token)}
    assert_unavailable(await send(broken, token, scheme="DPoP", headers=headers))


async def test_a_path_that_is_spelled_in_escapes() -> None:
    """The library compares URLs as text: the path is given to it as a client writes it."""
    tenant = Tenant()
    auth = tenant.auth(origin=API)
    token = tenant.bound_token()
    proof = make_proof(KEY, token, url=f"{API}/caf%C3%A9/a%20b")
    headers = [(b"authorization", f"DPoP {token}".encode()), (b"dpop", proof.encode())]
    request = Request({"type": "http", "method": "GET", "path": "/café/a b", "headers": headers})
    assert (await auth.verify_request(request, token))["sub"] == "user-1"


def test_what_is_no_client() -> None:
    """The options alone, or anything else, are a ConfigurationError; a misspelled option a TypeError."""
    for wrong in (ApiClientOptions(domain=DOMAIN, audience=API), None, "client"):
        with pytest.raises(ConfigurationError, match="ApiClientOptions"):
            Auth0(wrong)
    with pytest.raises(TypeError, match="orgin"):
        Auth0(Tenant().api_client(), orgin=API)  # type: ignore[call-arg]


async def test_many_requests_at_once() -> None:
    """Concurrent requests are decided one by one, whatever the library does meanwhile."""
    tenant = Tenant()
    auth = tenant.auth()
    tokens = [tenant.token(), OTHER.token(header={"kid": tenant.kid})] * 20
    assert await asyncio.gather(*map(auth.validate_token, tokens)) == [True, False] * 20
