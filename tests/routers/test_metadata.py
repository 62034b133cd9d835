from typing import Any

import pytest
from fastapi import APIRouter, FastAPI

from fastapi_guard import (
    APIKeyScheme,
    Auth,
    BearerScheme,
    ConfigurationError,
    JWTAuth,
    JWTConfig,
    TokenAuth,
    configure_app,
)
from fastapi_guard.issuers import DPoP, IntrospectionAuth, MultiOIDCAuth, OIDCAuth
from fastapi_guard.jwt.remote import RemoteKeySet
from fastapi_guard.routers import protected_resource_router
from fastapi_guard.stores import MemoryStore
from fastapi_guard.testing.issuer import FakeIssuer
from support.guarded import assert_refused, guarded_app, send
from support.ids import case_id

API = "https://api.example"
WELL_KNOWN = "/.well-known/oauth-protected-resource"


def auth_of(issuer: FakeIssuer, **options: Any) -> OIDCAuth:
    """Return an Auth for the tokens of ``issuer``."""
    return OIDCAuth(issuer.url, options.pop("audience", API), client=issuer.client, **options)


async def test_a_client_finds_its_way() -> None:
    """From the 401 to the metadata, from there to the authorization server, and with its token in (RFC 9728 5)."""
    issuer = FakeIssuer()
    auth = auth_of(issuer)
    app = guarded_app(auth, "items:read")
    app.include_router(protected_resource_router(auth, resource=API, scopes=["items:read"]))
    refused = await send(app)
    url = f"{API}{WELL_KNOWN}"
    challenge = f'Bearer realm="api", scope="items:read", resource_metadata="{url}"'
    assert_refused(refused, {"detail": "Not authenticated"}, challenge)
    answer = await send(app, path=url.removeprefix(API))
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "public, max-age=300"
    metadata = answer.json()
    assert metadata == {
        "resource": API,
        "authorization_servers": [issuer.url],
        "scopes_supported": ["items:read"],
        "bearer_methods_supported": ["header"],
    }
    assert metadata["authorization_servers"] == [issuer.metadata["issuer"]]
    assert (await send(app, issuer.token(aud=metadata["resource"], scope="items:read"))).status_code == 200


async def test_every_challenge_names_the_metadata() -> None:
    """Also that of a bad token, and of a missing scope."""
    issuer = FakeIssuer()
    auth = auth_of(issuer)
    app = guarded_app(auth, "items:read")
    router = protected_resource_router(auth, resource=API)
    app.include_router(router)
    metadata = f'resource_metadata="{API}{WELL_KNOWN}"'
    bad = 'Bearer realm="api", error="invalid_token", error_description="The access token is invalid"'
    assert_refused(await send(app, "bad"), challenge=f"{bad}, {metadata}")
    lacking = await send(app, issuer.token())
    assert lacking.status_code == 403
    expected = f'Bearer realm="api", error="insufficient_scope", scope="items:read", {metadata}'
    assert lacking.headers["WWW-Authenticate"] == expected


@pytest.mark.parametrize(
    ("resource", "path"),
    [
        ("https://api.example", WELL_KNOWN),
        ("https://api.example/", WELL_KNOWN),
        ("https://api.example/mcp", f"{WELL_KNOWN}/mcp"),
        ("https://api.example/v1/mcp/", f"{WELL_KNOWN}/v1/mcp/"),
        ("https://api.example/mcp//", f"{WELL_KNOWN}/mcp//"),
        ("https://resource.example.com/resource1", f"{WELL_KNOWN}/resource1"),  # of RFC 9728 3.1
        ("http://localhost:8000/mcp", f"{WELL_KNOWN}/mcp"),
        ("http://127.0.0.1:8000", WELL_KNOWN),
        ("http://[::1]:8000", WELL_KNOWN),
    ],
)
async def test_where_the_metadata_of_a_resource_is(resource: str, path: str) -> None:
    """The well-known path is between host and path (RFC 9728 3.1), and the document names the resource."""
    auth = auth_of(FakeIssuer())
    app = guarded_app(auth)
    app.include_router(protected_resource_router(auth, resource=resource))
    assert (await send(app, path=path)).json()["resource"] == resource
    challenge = (await send(app)).headers["WWW-Authenticate"]
    assert challenge.endswith(f'{path}"')
    without = path.rstrip("/")
    assert (await send(app, path=without)).json()["resource"] == resource


async def test_everything_that_can_be_said() -> None:
    """Name, documentation and the algorithms of proofs are there where they are known."""
    auth = auth_of(FakeIssuer(), dpop=DPoP(MemoryStore(), origin=API, algorithms=["ES256"]))
    app = guarded_app(auth)
    router = protected_resource_router(
        auth, resource=API, name="Items", documentation="https://docs.example", max_age_seconds=60
    )
    app.include_router(router)
    answer = await send(app, path=WELL_KNOWN)
    assert answer.json() == {
        "resource": API,
        "authorization_servers": ["https://id.example"],
        "bearer_methods_supported": ["header"],
        "dpop_signing_alg_values_supported": ["ES256"],
        "resource_name": "Items",
        "resource_documentation": "https://docs.example",
    }
    assert answer.headers["Cache-Control"] == "public, max-age=60"
    metadata = f'resource_metadata="{API}{WELL_KNOWN}"'
    expected = f'Bearer realm="api", {metadata}, DPoP realm="api", algs="ES256", {metadata}'
    assert (await send(app)).headers["WWW-Authenticate"] == expected


async def test_the_metadata_is_public_and_takes_nothing_from_the_request() -> None:
    """An application that refuses unguarded routes names it as public; the Host field is not repeated."""
    auth = auth_of(FakeIssuer())
    app = FastAPI()
    app.include_router(protected_resource_router(auth, resource=API))
    configure_app(app, unguarded="refuse", public=[WELL_KNOWN])
    answer = await send(app, path=WELL_KNOWN, headers={"Host": "attacker.example"})
    assert "attacker" not in answer.text
    async with app.router.lifespan_context(app):
        pass


@pytest.mark.parametrize("around", ["application", "include", "router"])
async def test_the_metadata_stays_public(around: str) -> None:
    """Guards of an application, an include or a router around it do not run for it, and the application starts."""
    auth = auth_of(FakeIssuer())
    guards = [auth.authenticated()]
    app = FastAPI(dependencies=guards if around == "application" else [])
    outer = APIRouter(dependencies=guards if around == "router" else [])
    outer.include_router(protected_resource_router(auth, resource=f"{API}/mcp/"))
    app.include_router(outer, dependencies=guards if around == "include" else [])
    configure_app(app)
    async with app.router.lifespan_context(app):
        for path in (f"{WELL_KNOWN}/mcp/", f"{WELL_KNOWN}/mcp"):
            answer = await send(app, path=path)
            assert (answer.status_code, answer.json()["resource"]) == (200, f"{API}/mcp/")
    assert (await send(app, path=f"{WELL_KNOWN}/mcp", method="HEAD")).status_code == 200
    assert (await send(app, path=f"{WELL_KNOWN}/mcp", method="POST")).status_code == 405


def test_the_authorization_servers_are_those_of_the_auth() -> None:
    """An Auth that has issuers names them; otherwise the application has to."""
    several = MultiOIDCAuth(
        {"a": {"issuer": "https://a.example", "audience": API}, "b": {"issuer": "https://b.example", "audience": API}}
    )
    assert several.issuers == ("https://a.example", "https://b.example")
    protected_resource_router(several, resource=API)
    keys = RemoteKeySet("https://id.example/jwks")
    protected_resource_router(JWTAuth(JWTConfig(key=keys, issuer_url="https://id.example")), resource=API)
    introspecting = IntrospectionAuth("https://id.example/i", client_id="a", client_secret="s")
    for auth in (JWTAuth(JWTConfig(key=keys)), TokenAuth(), introspecting):
        with pytest.raises(ConfigurationError, match="authorization_servers"):
            protected_resource_router(auth, resource=API)
        protected_resource_router(auth, resource=API, authorization_servers=["https://id.example"])


def test_a_scheme_describes_one_resource() -> None:
    """The same metadata may be named twice, other metadata may not."""
    auth = TokenAuth(BearerScheme(resource_metadata=f"{API}{WELL_KNOWN}"))
    servers = ["https://id.example"]
    protected_resource_router(auth, resource=API, authorization_servers=servers)
    protected_resource_router(auth, resource=API, authorization_servers=servers)
    with pytest.raises(ConfigurationError, match="one resource"):
        protected_resource_router(auth, resource=f"{API}/mcp", authorization_servers=servers)


@pytest.mark.parametrize(
    "options",
    [
        {"resource": "http://api.example"},
        {"resource": "api.example"},
        {"resource": ""},
        {"resource": None},
        {"resource": "https://"},
        {"resource": "https://[api.example"},
        {"resource": "https://user@api.example"},
        {"resource": "https://api.example#x"},
        {"resource": "https://api.example?x=1"},
        {"resource": "https://api.example/{tenant}"},
        {"resource": "https://api.example/é"},
        {"scopes": "items:read"},
        {"scopes": ["items read"]},
        {"authorization_servers": []},
        {"authorization_servers": "https://id.example"},
    ],
    ids=case_id,
)
def test_a_mistake_raises_a_configuration_error(options: dict[str, Any]) -> None:
    """A resource that is not an https URL, an invalid scope, no authorization server."""
    with pytest.raises(ConfigurationError):
        protected_resource_router(auth_of(FakeIssuer()), **{"resource": API, **options})


def test_only_a_bearer_scheme_has_such_metadata() -> None:
    """An API key has no authorization server."""
    with pytest.raises(ConfigurationError, match="BearerScheme"):
        protected_resource_router(
            Auth(APIKeyScheme("X-Key")), resource=API, authorization_servers=["https://id.example"]
        )
