"""Log in with tokens: ``/login`` for an application's own clients, ``/token`` for clients of OAuth 2.0."""

from collections.abc import Mapping
from typing import Annotated, Any, Final

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.responses import JSONResponse

from fastapi_guard.claims import Claims
from fastapi_guard.exceptions import ConfigurationError, Unauthorized
from fastapi_guard.jwt.tokens import BearerAccessToken, TokenPair
from fastapi_guard.login.cookies import CookieSettings, cookie_in, cookie_name
from fastapi_guard.login.family import Family
from fastapi_guard.login.local import LocalAuth
from fastapi_guard.login.login import Complete, Pending
from fastapi_guard.login.tokens import InvalidScope, TokenPairs
from fastapi_guard.routers.bodies import described, required, texts_in
from fastapi_guard.routers.devices import Device
from fastapi_guard.routers.oauth import OAuthRefusal, OAuthRoute
from fastapi_guard.routers.responses import (
    NeverStoredRoute,
    PathText,
    Responses,
    described_statuses,
    never_stored_router,
)
from fastapi_guard.routers.steps import SecondStepNeeded, add_login, add_step_up
from fastapi_guard.stores.arguments import check_flags, instance_of, path_of

_MFA_REQUIRED: Final = "A second factor is required"
_OAUTH: Final[Responses] = described_statuses(400, 413, 415, 503)


def login_router(auth: LocalAuth | TokenPairs, *, prefix: str = "", refresh_cookie: bool = False) -> APIRouter:
    """Serve ``/login`` and its steps, ``/token``, ``/logout`` and ``/devices`` for ``auth``.

    Each takes a form or JSON of at most 64 KiB, and no answer is stored by a cache. With a ``prefix`` the Authorize
    button needs it too, without its first slash: ``LocalAuth(..., scheme=BearerScheme.password("auth/token"))``.

    Args:
        auth: What issues the tokens. Without refresh tokens there is no ``/token/refresh`` and no ``/devices``.
        prefix: Put before each path.
        refresh_cookie: Put the refresh token into a ``__Host-`` cookie that no script can read, and not into the
            answer: for a page of the same site. Every request then has to come from the application's own pages.

    Raises:
        ConfigurationError: An argument has the wrong type, or there is a refresh cookie without refresh tokens.
    """
    instance_of("auth", auth, (LocalAuth, TokenPairs), "a LocalAuth or TokenPairs")
    tokens = auth.tokens if isinstance(auth, LocalAuth) else auth
    answers = TokenAnswers(tokens, refresh_cookie=refresh_cookie)
    router = APIRouter(prefix=path_of("prefix", prefix, prefix=True))
    own, oauth = (never_stored_router("", ["login"], route_class=kind) for kind in (NeverStoredRoute, OAuthRoute))
    add_login(own, tokens.login, answers)
    add_step_up(own, tokens.login, answers, tokens.jwt.authenticated())
    _add_logout(own, tokens, answers)
    _add_token(oauth, tokens, answers)
    router.include_router(own)
    router.include_router(oauth)
    return router


class TokenAnswers:
    """Responds to a login with tokens; the pending login is in the JSON."""

    #: A page without a script keeps no tokens.
    pages = None

    def __init__(self, tokens: TokenPairs, *, refresh_cookie: bool) -> None:
        """Respond with ``tokens``, and with ``refresh_cookie`` keep the refresh token out of the answer.

        Raises:
            ConfigurationError: There are no refresh tokens to put into a cookie.
        """
        check_flags(refresh_cookie=refresh_cookie)
        if refresh_cookie and tokens.refresh_tokens is None:
            msg = "refresh_cookie=True needs refresh tokens: pass refresh=RefreshTokens(store)"
            raise ConfigurationError(msg)
        self.tokens = tokens
        self.cookie: CookieSettings | None = None
        if refresh_cookie:
            self.cookie = CookieSettings(name=cookie_name("refresh", tokens.jwt.name), samesite="strict")
        self.model: type[BearerAccessToken] = (
            BearerAccessToken if refresh_cookie or tokens.refresh_tokens is None else TokenPair
        )

    @property
    def responses(self) -> Responses:
        """The token response."""
        return {200: {"model": self.model}}

    @property
    def renewed(self) -> Responses:
        """The new access token; the refresh token stays the same."""
        return {200: {"model": BearerAccessToken}}

    def check(self, request: Request, *, sets_cookie: bool = False) -> None:
        """Reject a request of another site's page where a cookie is read or set."""
        if self.cookie is not None or sets_cookie:
            self.tokens.check_origin(request)

    async def complete(self, request: Request, outcome: Complete, fields: Mapping[str, Any]) -> Response:  # noqa: ARG002
        """Return the tokens."""
        scope = fields.get("scope")
        try:
            issued = await self.tokens.issue(outcome, scope=scope if isinstance(scope, str) and scope else None)
        except InvalidScope:
            raise HTTPException(403, "The requested scopes are not granted") from None
        return self.respond(issued)

    def respond(self, issued: BearerAccessToken) -> Response:
        """Return the token response, with the refresh token in its place."""
        body = issued.model_dump(exclude_none=True)
        refresh_token = body.get("refresh_token")
        if self.cookie is None or refresh_token is None:
            return _json(body)
        del body["refresh_token"]
        response = _json(body)
        assert self.tokens.refresh_tokens is not None  # noqa: S101 - it made the token
        self.cookie.set(response, refresh_token, max_age=int(self.tokens.refresh_tokens.idle_seconds))
        return response

    def presented(self, request: Request, texts: Mapping[str, str]) -> str:
        """Return the refresh token of the request."""
        if self.cookie is None:
            return required(texts, "refresh_token")
        return cookie_in(request, self.cookie) or ""

    def pending(self, pending: Pending) -> Response:
        """Return the pending login."""
        return _json(_needed(pending).model_dump(), 202)

    def pending_id(self, request: Request, fields: Mapping[str, Any]) -> str | None:  # noqa: ARG002 - in the body
        """Return the id in the body."""
        pending = fields.get("pending")
        return pending if isinstance(pending, str) else None

    async def renew(self, request: Request, claims: Claims, outcome: Complete) -> Response:  # noqa: ARG002
        """Return the new access token."""
        return _json((await self.tokens.step_up(claims, outcome)).model_dump(exclude_none=True))

    async def is_valid(self, claims: Claims) -> bool:
        """Return whether the refresh tokens are valid; without any, whether the access token is not revoked."""
        tokens, family = self.tokens, claims.get("sid")
        if tokens.refresh_tokens is not None and isinstance(family, str):
            return family in {known.id for known in await tokens.devices(claims["sub"])}
        try:
            await tokens.jwt._current(claims, None)  # noqa: SLF001 - of this package, as for tickets
        except Unauthorized:
            return False
        return True


def _add_token(router: APIRouter, tokens: TokenPairs, answers: TokenAnswers) -> None:
    @router.post(
        "/token",
        summary="Get a token",
        response_model=answers.model,
        responses={**_OAUTH, **described_statuses(429)},
        openapi_extra=described(["username", "password"], "grant_type", "scope"),
    )
    async def token(request: Request) -> Response:
        """Exchange a username and a password, or a refresh token, for tokens (RFC 6749 4.3 and 6)."""
        answers.check(request)
        await tokens.login.limits.count_address(request)
        texts = await texts_in(request)
        grant = texts.get("grant_type") or ("refresh_token" if "refresh_token" in texts else "password")
        if grant == "refresh_token" and tokens.refresh_tokens is not None:
            return await _refreshed(tokens, answers, request, texts)
        if grant != "password" or tokens.login.passwords is None:
            raise OAuthRefusal("unsupported_grant_type", "The grant type is not supported")
        username, password = required(texts, "username", "email"), required(texts, "password")
        outcome = await tokens.login.with_password(username, password, connection=request)
        if isinstance(outcome, Pending):
            raise OAuthRefusal("mfa_required", _MFA_REQUIRED, **_needed(outcome).model_dump())
        return answers.respond(await tokens.issue(outcome, scope=texts.get("scope") or None))

    if tokens.refresh_tokens is not None:

        @router.post(
            "/token/refresh",
            summary="Refresh a token",
            response_model=answers.model,
            responses=_OAUTH if answers.cookie is None else described_statuses(400, 503),
            openapi_extra=described(["refresh_token"], "scope") if answers.cookie is None else None,
        )
        async def refresh(request: Request) -> Response:
            """Exchange a refresh token for new tokens; it is used up then."""
            answers.check(request)
            texts = {} if answers.cookie is not None else await texts_in(request)
            return await _refreshed(tokens, answers, request, texts)

    @router.post("/token/revoke", summary="Revoke a token", responses=_OAUTH, openapi_extra=described(["token"]))
    async def revoke(request: Request) -> dict[str, str]:
        """End a token and what follows from it; the answer for an unknown token is the same (RFC 7009 2.2)."""
        await tokens.revoke(required(await texts_in(request), "token"))
        return {}


async def _refreshed(tokens: TokenPairs, answers: TokenAnswers, request: Request, texts: Mapping[str, str]) -> Response:
    presented = answers.presented(request, texts)
    try:
        pair = await tokens.refresh(presented, connection=request, scope=texts.get("scope") or None)
    except Unauthorized as error:
        if answers.cookie is not None:
            gone = Response()
            answers.cookie.delete(gone)
            error.headers["set-cookie"] = gone.headers["set-cookie"]
        raise
    return answers.respond(pair)


def _add_logout(router: APIRouter, tokens: TokenPairs, answers: TokenAnswers) -> None:
    authenticated = tokens.jwt.authenticated()

    @router.post("/logout", summary="Log out", status_code=204)
    async def logout(request: Request, claims: Annotated[Claims, authenticated]) -> Response:
        """End the login that the presented access token came from."""
        answers.check(request)
        response = Response(status_code=204, headers={"Cache-Control": "no-store"})
        await tokens.logout(claims)
        if answers.cookie is not None:
            await tokens.revoke(cookie_in(request, answers.cookie) or "")
            answers.cookie.delete(response)
        return response

    if tokens.refresh_tokens is None:
        return

    @router.get("/devices", summary="List one's logins")
    async def devices(claims: Annotated[Claims, authenticated]) -> list[Device]:
        """Return the logins of the caller, the oldest first."""
        return [_device(family, claims.get("sid")) for family in await tokens.devices(claims["sub"])]

    @router.delete("/devices", summary="End one's other logins")
    async def end_others(claims: Annotated[Claims, authenticated]) -> dict[str, int]:
        """End every login of the caller but this one."""
        others = [family.id for family in await tokens.devices(claims["sub"]) if family.id != claims.get("sid")]
        return {"ended": sum([await tokens.end_device(sid) for sid in others])}

    @router.delete(
        "/devices/{device_id}",
        summary="End one of one's logins",
        status_code=204,
        responses=described_statuses(404),
    )
    async def end_one(device_id: PathText, claims: Annotated[Claims, authenticated]) -> None:
        """End a login of the caller."""
        if device_id not in {family.id for family in await tokens.devices(claims["sub"])}:
            raise HTTPException(404)
        await tokens.end_device(device_id)


def _needed(pending: Pending) -> SecondStepNeeded:
    return SecondStepNeeded(factors=pending.factors, expires_in=pending.expires_in, pending=pending.id)


def _device(family: Family, current: object) -> Device:
    return Device(
        id=family.id,
        address=family.client.address,
        user_agent=family.client.agent,
        created_at=family.created_at,
        seen_at=family.rotated_at,
        expires_at=family.expires_at,
        current=family.id == current,
    )


def _json(body: Mapping[str, Any], status: int = 200) -> Response:
    return JSONResponse(body, status, headers={"Cache-Control": "no-store"})
