"""The types of Auths for the tokens of other issuers: checked by mypy and basedpyright, never run."""

from datetime import timedelta
from typing import Any, assert_type

from fastapi import APIRouter
from fastapi.params import Security
from httpx2 import AsyncClient
from joserfc import jwk
from pydantic import HttpUrl

from fastapi_guard import JWTAuth, JWTConfig, ScopesAuth
from fastapi_guard.issuers import DPoP, IntrospectionAuth, MultiOIDCAuth, OIDCAuth, presets
from fastapi_guard.jwt.remote import RemoteKeySet
from fastapi_guard.routers import protected_resource_router
from fastapi_guard.stores import MemoryStore
from fastapi_guard.testing.issuer import FakeIssuer

issuer = FakeIssuer()
assert_type(issuer.client, AsyncClient)
assert_type(issuer.token("ada", scope="items:read", header={"typ": None}), str)
assert_type(issuer.rotate(), str)

keys = RemoteKeySet(issuer.jwks_uri, client=issuer.client, max_ttl=timedelta(minutes=15), cooldown=5)
dpop = DPoP(MemoryStore(), origin="https://api.example")
auth = JWTAuth(JWTConfig(key=keys, profile="rfc9068", issuer_url=issuer.url, audience="api"), dpop=dpop)
JWTConfig(key=keys, issuer_url=HttpUrl(issuer.url), audience=["api", HttpUrl("https://api.example/items")])
assert_type(auth.requires("items:read"), Security)
assert_type(auth.issuers, tuple[str, ...])
held = JWTConfig(key=jwk.ECKey.generate_key("P-256"))

one = OIDCAuth(issuer="https://accounts.example", audience="client-id", accept="id", cooldown=5, roles={"a": ["b"]})
assert_type(OIDCAuth.google("client", hosted_domain="example.com", client=issuer.client), OIDCAuth)
assert_type(OIDCAuth.entra("tenant", "client", require={"azp": ["a", "b"]}), OIDCAuth)
assert_type(presets.cognito("eu-central-1_Ab12Cd34E", "client", accept="id", cooldown=5), OIDCAuth)
assert_type(presets.clerk("https://clerk.example", ["https://a.example"], reject={"sts": "pending"}), OIDCAuth)
assert_type(presets.entra_tenants("client", {"a"}.__contains__), OIDCAuth)
assert_type(presets.google_iap("/projects/1/apps/shop", trusted_origins=["https://a.example"]), OIDCAuth)
assert_type(presets.aws_alb("arn", "client", "issuer", roles={"a": ["b"]}), ScopesAuth)
assert_type(presets.supabase_hs256("https://a.example", "secret"), JWTAuth)
several = MultiOIDCAuth({"one": one, "two": {"issuer": "https://two.example", "audience": "x"}}, dpop=dpop)
assert_type(several.requires_any("a", "b"), Security)
assert_type(several.providers, dict[str, OIDCAuth])

introspecting = IntrospectionAuth("https://id.example/i", client_id="a", client_secret="b", cache_seconds=10)
assert_type(protected_resource_router(one, resource="https://api.example", scopes=["a"]), APIRouter)


async def verified() -> None:
    """All of them return claims."""
    assert_type(await one.verify("token"), dict[str, Any])
    assert_type(await several.verify("token"), dict[str, Any])
    assert_type(await introspecting.verify("token"), dict[str, Any])
    async with keys as entered:
        assert_type(entered, RemoteKeySet)
    async with one as started:
        assert_type(started, OIDCAuth)
