"""Log in with a password, go on with a refresh token, log out (RFC 6749 4.3 and 6, RFC 7009)."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Request

from fastapi_guard.claims import Claims
from fastapi_guard.jwt.tokens import BearerAccessToken, TokenPair
from fastapi_guard.login.local import LocalAuth
from fastapi_guard.routers.bodies import described, required, texts_in
from fastapi_guard.routers.responses import NeverStoredRoute, never_stored

_REFUSED: Final[dict[int | str, dict[str, Any]]] = {
    401: {"description": "Unauthorized"},
    413: {"description": "Content Too Large"},
    415: {"description": "Unsupported Media Type"},
    422: {"description": "Unprocessable Content"},
    429: {"description": "Too Many Requests"},
    503: {"description": "Service Unavailable"},
}


def login_router(auth: LocalAuth, *, prefix: str = "") -> APIRouter:
    """Serve ``POST /token``, ``/token/refresh``, ``/token/revoke`` and ``/logout`` for ``auth``.

    Each takes a form or a JSON body, and none of the answers is to be stored. With a ``prefix`` tell the Authorize
    button too: ``LocalAuth(..., scheme=BearerScheme.password(prefix + "/token"))``.

    Args:
        auth: Who is asked. Without refresh tokens there is no ``/token/refresh``.
        prefix: Put before each path.
    """
    router = APIRouter(
        prefix=prefix, route_class=NeverStoredRoute, dependencies=[Depends(never_stored)], tags=["login"]
    )

    @router.post(
        "/token",
        summary="Log in",
        response_model=BearerAccessToken if auth.refresh_tokens is None else TokenPair,
        responses=_REFUSED,
        openapi_extra=described(["username", "password"]),
    )
    async def token(request: Request) -> BearerAccessToken:
        """Exchange a username, in JSON also called ``email``, and a password for a token."""
        texts = await texts_in(request)
        username, password = required(texts, "username", "email"), required(texts, "password")
        return await auth.login(username, password, connection=request)

    if auth.refresh_tokens is not None:

        @router.post(
            "/token/refresh",
            summary="Refresh a token",
            responses={status: said for status, said in _REFUSED.items() if status != 429},
            openapi_extra=described(["refresh_token"]),
        )
        async def refresh(request: Request) -> TokenPair:
            """Exchange a refresh token for a new pair; it is used up then."""
            return await auth.refresh(required(await texts_in(request), "refresh_token"))

    @router.post(
        "/token/revoke",
        summary="Revoke a token",
        responses={status: said for status, said in _REFUSED.items() if status not in (401, 429)},
        openapi_extra=described(["token"]),
    )
    async def revoke(request: Request) -> dict[str, str]:
        """End a token and what follows from it; a token that nobody knows is answered alike (RFC 7009 2.2)."""
        await auth.revoke(required(await texts_in(request), "token"))
        return {}

    @router.post("/logout", summary="Log out", status_code=204)
    async def logout(claims: Annotated[Claims, auth.authenticated()]) -> None:
        """End the login that the presented token came from."""
        await auth.logout(claims)

    return router
