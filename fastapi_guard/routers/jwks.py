"""The public keys of an issuer, for those who verify its tokens (RFC 7517 5)."""

from typing import Any

from fastapi import APIRouter, Response

from fastapi_guard.exceptions import ServiceUnavailable
from fastapi_guard.jwt.auth import JWTAuth
from fastapi_guard.stores.arguments import check_numbers, instance_of, path_of


def jwks_router(auth: JWTAuth, path: str = "/.well-known/jwks.json", *, max_age_seconds: int = 300) -> APIRouter:
    """Serve the JWK Set of ``auth``, with a Cache-Control of ``max_age_seconds``.

    Keys that ``replace_keys`` brings appear at once; announce a new key for at least that long before signing with it.

    Raises:
        ConfigurationError: An argument has the wrong type, there is no public key to show, or the key file cannot be
            read.
    """
    instance_of("auth", auth, JWTAuth, "a JWTAuth")
    path_of("path", path)
    check_numbers(max_age_seconds=max_age_seconds)
    try:
        _ = auth.config.jwks
    except ServiceUnavailable as error:
        # It is a 503 for a request. Here the application is being built, and its author needs the remedy.
        raise error.__cause__ or error from None
    router = APIRouter()

    @router.get(path, summary="JSON Web Key Set")
    async def jwks(response: Response) -> dict[str, list[dict[str, Any]]]:
        response.headers["Cache-Control"] = f"public, max-age={max_age_seconds}"
        return auth.config.jwks

    return router
