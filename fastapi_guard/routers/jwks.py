"""The public keys of an issuer, for those who verify its tokens (RFC 7517 5)."""

from typing import Any

from fastapi import APIRouter, Response

from fastapi_guard.jwt.auth import JWTAuth


def jwks_router(auth: JWTAuth, path: str = "/.well-known/jwks.json", *, max_age_seconds: int = 300) -> APIRouter:
    """Serve the JWK Set of ``auth``, with a Cache-Control of ``max_age_seconds``.

    Keys that ``replace_keys`` brings appear at once; announce a new key for at least that long before signing with it.

    Raises:
        ConfigurationError: There is no public key to show.
    """
    _ = auth.config.jwks
    router = APIRouter()

    @router.get(path, summary="JSON Web Key Set")
    async def jwks(response: Response) -> dict[str, list[dict[str, Any]]]:
        response.headers["Cache-Control"] = f"public, max-age={max_age_seconds}"
        return auth.config.jwks

    return router
