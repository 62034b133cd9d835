"""The same guard as others build it: with fastapi-views, with authx, and by hand from PyJWT and FastAPI's HTTPBearer.

Each function returns an application that accepts the token that ours accepts, and checks what ours checks as far as
that library can: the signature, exp, iss, aud, and the scope `items:read`. The libraries are imported by name, since
they are installed for the benchmarks alone and the type checkers run without them.
"""

from importlib import import_module
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from joserfc import jwk, jwt

from .harness import application


def fastapi_views(algorithm: str, key: jwk.Key, issuer: str, audience: str) -> FastAPI:
    """Guard by `requires`; without a registry of its own the application would accept any audience."""
    registry = jwt.JWTClaimsRegistry(leeway=10, exp={"essential": True}, aud={"essential": True, "value": audience})
    views = import_module("fastapi_views.auth.jwt")
    auth = views.JWTAuth(views.JWTConfig(key=key, algorithms=[algorithm], issuer_url=issuer, claims_registry=registry))
    app = application(auth.requires("items:read"))
    import_module("fastapi_views.handlers").add_error_handlers(app)
    return app


def authx(algorithm: str, key: jwk.Key, issuer: str, audience: str) -> FastAPI:
    """Guard by `scopes_required`, which reads a claim named `scopes`; keys are text, and parsed for every request."""
    library = import_module("authx")
    if isinstance(key, jwk.OctKey):
        keys = {"JWT_SECRET_KEY": key.raw_value.decode("ascii")}
    else:
        keys = {"JWT_PUBLIC_KEY": key.as_pem(private=False).decode("ascii")}
    config = library.AuthXConfig(
        JWT_ALGORITHM=algorithm, JWT_DECODE_ISSUER=issuer, JWT_DECODE_AUDIENCE=audience, **keys
    )
    auth = library.AuthX(config=config)
    app = application(Depends(auth.scopes_required("items:read")))
    auth.handle_errors(app)
    return app


def pyjwt(algorithm: str, key: jwk.Key, issuer: str, audience: str) -> FastAPI:
    """Guard by one dependency as it is usually written by hand; the key is ready for use."""
    library = import_module("jwt")
    verifying = key.get_op_key("verify")

    async def claims(bearer: Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer())]) -> dict[str, Any]:
        try:
            claims: dict[str, Any] = library.decode(
                bearer.credentials,
                verifying,
                algorithms=[algorithm],
                audience=audience,
                issuer=issuer,
                leeway=10,
                options={"require": ["exp"]},
            )
        except library.InvalidTokenError:
            raise HTTPException(401, "Invalid token", {"WWW-Authenticate": "Bearer"}) from None
        if "items:read" not in claims.get("scope", "").split():
            raise HTTPException(403, "Missing scope")
        return claims

    return application(Depends(claims))
