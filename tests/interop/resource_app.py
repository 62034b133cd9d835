"""An API for tokens of the provider: JWTs, bound JWTs and opaque tokens."""

from typing import Annotated, Any

from fastapi import FastAPI

from fastapi_guard import configure_app
from fastapi_guard.issuers import DPoP, IntrospectionAuth, OIDCAuth
from fastapi_guard.stores import MemoryStore

ISSUER = "https://id.example"

auth = OIDCAuth(issuer=ISSUER, audience="https://api.example/jwt")
bound = OIDCAuth(
    issuer=ISSUER,
    audience="https://api.example/bound",
    name="bound",
    dpop=DPoP(MemoryStore(), origin="https://api.example"),
)
opaque = IntrospectionAuth(
    "https://id.example/token/introspection",
    client_id="api",
    client_secret="the-secret-of-the-api",
    issuer=ISSUER,
    audience="https://api.example/opaque",
    cache_seconds=0,
)
opaque_bound = IntrospectionAuth(
    "https://id.example/token/introspection",
    client_id="api",
    client_secret="the-secret-of-the-api",
    issuer=ISSUER,
    audience="https://api.example/opaque-bound",
    name="opaque-bound",
    cache_seconds=0,
    dpop=DPoP(MemoryStore(), origin="https://api.example"),
)
app = FastAPI()


@app.get("/jwt")
async def items(claims: Annotated[dict[str, Any], auth.requires("items:read")]) -> str:
    """Return the subject."""
    return str(claims["sub"])


@app.get("/bound")
async def bound_items(claims: Annotated[dict[str, Any], bound.requires("items:read")]) -> str:
    """Return the subject."""
    return str(claims["sub"])


@app.get("/opaque")
async def opaque_items(claims: Annotated[dict[str, Any], opaque.requires("items:read")]) -> str:
    """Return the client."""
    return str(claims["client_id"])


@app.get("/opaque-bound")
async def opaque_bound_items(claims: Annotated[dict[str, Any], opaque_bound.requires("items:read")]) -> str:
    """Return the client."""
    return str(claims["client_id"])


configure_app(app, unguarded="refuse")
