"""The types that a user of the core meets: checked by mypy and basedpyright, never run."""

from typing import Annotated, Any, assert_type

from fastapi import APIRouter, FastAPI
from fastapi.params import Depends, Security
from joserfc import jwk

from fastapi_guard import (
    APIKeyScheme,
    Auth,
    BearerAccessToken,
    BearerScheme,
    Claims,
    HierarchicalScopeValidator,
    JWTAuth,
    JWTConfig,
    ScopesAuth,
    TokenAuth,
    configure_app,
    jwks_router,
)


class Text(TokenAuth[str]):
    """An Auth whose principal is a text."""

    async def verify(self, raw: str) -> str:
        return raw


class Mine(ScopesAuth):
    """An Auth that verifies by itself, and reads its scopes from the claims."""

    async def verify(self, raw: str) -> dict[str, Any]:
        return {"sub": raw, "scope": "items:read"}


class Ranks(HierarchicalScopeValidator):
    """An own hierarchy."""

    scope_hierarchy = {"read": set(), "write": {"read"}, "admin": {"read", "write"}}


config = JWTConfig(key=jwk.OctKey.generate_key(256), algorithms=["HS256"], audience="https://api.example")
auth = JWTAuth(config, scheme=BearerScheme.password("/token", scopes={"items:read": "Read items"}))
app = FastAPI(dependencies=[auth.authenticated()])
router = APIRouter(dependencies=[auth.requires("admin:*"), auth.requires_any("items:read", "items:edit")])


@app.get("/items")
async def items(claims: Annotated[dict[str, Any], auth.requires("items:read")]) -> str:
    assert_type(claims, dict[str, Any])
    return auth.encode(claims)


app.include_router(jwks_router(auth))
configure_app(app)

assert_type(auth.authenticated(), Security)
assert_type(auth.optional(ignore_invalid=True), Security)
assert_type(auth.requires("items:read"), Security)
assert_type(auth.requires_any("items:read", "items:edit"), Security)
assert_type(auth.requires_role("editor"), Security)
assert_type(auth.requires_admin(), Security)
granted: Depends = auth.granted()
assert_type(auth.covers({"scope": "items:read"}, "items:read"), bool)
assert_type(auth.create_access_token({"sub": "ada"}), BearerAccessToken)
assert_type(auth.encode({"sub": "ada"}), str)
assert_type(config.jwks["keys"], list[dict[str, str]])
own = JWTAuth(config, scope_validator=Ranks())
key = Auth[str](APIKeyScheme("X-Api-Key"))


async def verify(text: Text, mine: Mine) -> None:
    """verify() returns the type parameter of the Auth."""
    assert_type(await text.verify("a"), str)
    assert_type(await mine.verify("a"), Claims)
    assert_type(await auth.verify("a"), Claims)
    assert_type(await key.verify("a"), str)
    assert_type(await auth.validate_token("a"), bool)
