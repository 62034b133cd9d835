"""Sign in with a provider: for pages, which the browser comes back to, and for an SPA, which hands the answer on."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import BaseModel

from fastapi_guard.claims import Claims
from fastapi_guard.exceptions import AuthError, ConfigurationError, Unauthorized
from fastapi_guard.login.cookies import CookieSettings, browser_in, cookie_in, cookie_name
from fastapi_guard.login.local import LocalAuth
from fastapi_guard.login.login import Pending
from fastapi_guard.login.lookup import found
from fastapi_guard.login.providers import ProviderLogin, ProviderLogout
from fastapi_guard.login.session import SessionAuth
from fastapi_guard.login.tokens import TokenPairs
from fastapi_guard.routers.account_routes import login_user
from fastapi_guard.routers.bodies import described, is_form, required, texts_in
from fastapi_guard.routers.login import TokenAnswers
from fastapi_guard.routers.login_pages import LoginPages
from fastapi_guard.routers.responses import PathText, Responses, described_statuses, never_stored_router, with_query
from fastapi_guard.routers.sessions import SessionAnswers
from fastapi_guard.routers.steps import BEGINNING_REFUSED, REFUSED, Answers, SecondStepNeeded, success_of, with_cookies
from fastapi_guard.schemes.origin import path_within
from fastapi_guard.stores.arguments import check_flags, instance_of

_RECENT_SECONDS: Final = 600
_BROWSER_SECONDS: Final = 900
_PARAMETERS: Final = ("state", "code", "iss", "error")
# By the reason of a refusal; any other is named by its status.
_CODES: Final = {
    "link_first": "link_first",
    "name_taken": "link_first",
    "no_account": "no_account",
    "identity_taken": "identity_taken",
    "no_second_factor": "no_second_factor",
    "unknown_state": "expired",
    "logged_out": "expired",
}
_STATUSES: Final = {401: "provider", 403: "forbidden", 429: "too_many", 503: "unavailable"}


class Started(BaseModel):
    """A sign-in that has begun.

    Attributes:
        authorization_url: Where to send the browser.
    """

    authorization_url: str


class OwnIdentity(BaseModel):
    """An identity that is linked to the account of the caller.

    Attributes:
        id: What to unlink it by.
        provider: The name of the provider.
        label: The address or the name at the provider.
        created_at: Seconds since the epoch.
    """

    id: str
    provider: str
    label: str | None
    created_at: float


def providers_router(
    sign_in: ProviderLogin,
    credentials: SessionAuth | TokenPairs | LocalAuth,
    *,
    prefix: str = "",
    pages: LoginPages | None = None,
    logout: ProviderLogout | None = None,
    refresh_cookie: bool = False,
) -> APIRouter:
    """Serve ``/providers/{provider}`` for browsers, ``/start`` and ``/finish`` for an SPA, and the linked identities.

    Args:
        sign_in: The ProviderLogin.
        credentials: What a login leads to: a session, or tokens. With tokens the page that the browser comes back to is
            the SPA's own, which posts the parameters to ``/finish``.
        prefix: Put before each path.
        pages: Where the browser goes after a session has begun, and after a failure with ``?error=``: ``provider``,
            ``expired``, ``link_first``, ``no_account``, ``identity_taken``, ``forbidden``, ``too_many``,
            ``unavailable``.
        logout: Given, ``/providers/{provider}/logout`` is the back-channel logout URI.
        refresh_cookie: Put the refresh token into the cookie of ``login_router(..., refresh_cookie=True)``.

    Raises:
        ConfigurationError: An argument has the wrong type, there are pages for tokens, or a refresh cookie without
            refresh tokens; or ``credentials`` or ``logout`` belong to another Login or other credentials.
    """
    instance_of("sign_in", sign_in, ProviderLogin, "a ProviderLogin")
    instance_of(
        "credentials", credentials, (SessionAuth, TokenPairs, LocalAuth), "a SessionAuth, TokenPairs or a LocalAuth"
    )
    instance_of("pages", pages, (LoginPages, type(None)), "LoginPages or None")
    instance_of("logout", logout, (ProviderLogout, type(None)), "a ProviderLogout or None")
    check_flags(refresh_cookie=refresh_cookie)
    router = never_stored_router(prefix, ["providers"])
    if isinstance(credentials, LocalAuth):
        credentials = credentials.tokens
    if isinstance(credentials, TokenPairs) and credentials.login is not sign_in.login:
        msg = "credentials are of another Login than sign_in: its users would be looked up there at each refresh"
        raise ConfigurationError(msg)
    if logout is not None and not logout.ends(sign_in, credentials):
        msg = "logout is a ProviderLogout of this sign_in and these credentials: it would not end these sessions"
        raise ConfigurationError(msg)
    cookie = CookieSettings(name=cookie_name("sign-in", sign_in.login.name))
    if isinstance(credentials, SessionAuth):
        if refresh_cookie:
            msg = "a session has no refresh token: leave refresh_cookie out, or pass TokenPairs"
            raise ConfigurationError(msg)
        answers: Answers = SessionAnswers(credentials, sign_in.login)
        auth: Any = credentials
        _add_pages(router, sign_in, answers, cookie, pages or LoginPages())
    else:
        if pages is not None:
            msg = "with tokens the browser comes back to a page of the SPA: leave pages out, or pass a SessionAuth"
            raise ConfigurationError(msg)
        answers, auth = TokenAnswers(credentials, refresh_cookie=refresh_cookie), credentials.jwt
    _add_posts(router, sign_in, answers, cookie)
    _add_identities(router, sign_in, answers, cookie, auth)
    if logout is not None:
        _add_logout(router, logout)
    return router


def _add_pages(
    router: APIRouter, sign_in: ProviderLogin, answers: Answers, cookie: CookieSettings, pages: LoginPages
) -> None:
    @router.get("/providers/{provider}", summary="Sign in with a provider", status_code=303, response_class=Response)
    async def begin(provider: PathText, request: Request, next: str | None = None) -> Response:  # noqa: A002 - as in a form
        """Send the browser to the provider; ``next`` is a path of the application."""
        try:
            await sign_in.login.limits.count(None, request)
            browser = browser_in(request, cookie)
            url = await sign_in.start(provider, browser=browser, next=path_within(next, "") or None)
        except AuthError as error:
            return _redirect(pages.login, {"error": _code_of(error)})
        response = _redirect(url, {})
        cookie.set(response, browser, max_age=_BROWSER_SECONDS)
        return response

    @router.get(
        "/providers/{provider}/callback",
        summary="Come back from a provider",
        status_code=303,
        response_class=Response,
    )
    async def callback(provider: PathText, request: Request) -> Response:
        """Log in with the answer of the provider, and go on to the page that was asked for."""
        try:
            parameters, browser = _parameters_in(request.query_params.multi_items()), cookie_in(request, cookie)
            signed_in = await sign_in.finish(
                provider, parameters, browser=browser, connection=request, still_valid=answers.is_valid
            )
            target = path_within(signed_in.next, pages.done)
            if signed_in.outcome is None:
                return _redirect(target, {})
            if isinstance(signed_in.outcome, Pending):
                following = {} if signed_in.next is None else {"next": target}
                return with_cookies(answers.pending(signed_in.outcome), _redirect(pages.second, following))
            return with_cookies(await answers.complete(request, signed_in.outcome, {}), _redirect(target, {}))
        except AuthError as error:
            return _redirect(pages.login, {"error": _code_of(error)})

    @router.post(
        "/providers/{provider}/callback",
        summary="Come back by a form",
        status_code=303,
        response_class=Response,
        responses=described_statuses(413, 415, 422),
        openapi_extra=described([], *_PARAMETERS),
    )
    async def posted(provider: PathText, request: Request) -> Response:
        """Go on as a GET of the redirect URI: a form of another site's page carries no Lax cookie (``form_post``)."""
        try:
            sign_in.provider(provider)
        except AuthError as error:
            return _redirect(pages.login, {"error": _code_of(error)})
        texts = await texts_in(request)
        return _redirect(sign_in.redirect_uri(provider), {name: texts[name] for name in _PARAMETERS if name in texts})


def _add_posts(router: APIRouter, sign_in: ProviderLogin, answers: Answers, cookie: CookieSettings) -> None:
    # Without factors no login waits for a second step.
    pending: Responses = {202: {"model": SecondStepNeeded}} if sign_in.login.factors.kinds else {}

    @router.post(
        "/providers/{provider}/start",
        summary="Begin a sign-in",
        responses=BEGINNING_REFUSED,
        openapi_extra=described([], "next"),
    )
    async def start(provider: PathText, request: Request, response: Response) -> Started:
        """Return the URL to send the browser to."""
        answers.check(request, sets_cookie=True)
        await sign_in.login.limits.count_address(request)
        texts = await texts_in(request)
        browser = browser_in(request, cookie)
        url = await sign_in.start(provider, browser=browser, next=path_within(texts.get("next"), "") or None)
        cookie.set(response, browser, max_age=_BROWSER_SECONDS)
        return Started(authorization_url=url)

    @router.post(
        "/providers/{provider}/finish",
        summary="Finish a sign-in",
        status_code=success_of(answers.responses),
        responses={**REFUSED, **answers.responses, **pending, 204: {"description": "No Content"}},
        openapi_extra=described(["state"], "code", "iss", "error"),
    )
    async def finish(provider: PathText, request: Request) -> Response:
        """Log in with the parameters that the provider appended to the page of the application."""
        answers.check(request, sets_cookie=True)
        await sign_in.login.limits.count_address(request)
        texts = await texts_in(request)
        required(texts, "state")
        browser = cookie_in(request, cookie)
        signed_in = await sign_in.finish(
            provider, texts, browser=browser, connection=request, still_valid=answers.is_valid
        )
        if signed_in.outcome is None:
            return Response(status_code=204)
        if isinstance(signed_in.outcome, Pending):
            return answers.pending(signed_in.outcome)
        return await answers.complete(request, signed_in.outcome, texts)


def _add_identities(
    router: APIRouter, sign_in: ProviderLogin, answers: Answers, cookie: CookieSettings, auth: Any
) -> None:
    recent = auth.requires_recent(max_age=_RECENT_SECONDS)

    @router.get("/providers", summary="List the providers")
    async def providers() -> list[str]:
        """Return the names of the providers, for the buttons of a page."""
        return list(sign_in.providers)

    @router.get("/identities", summary="List one's identities")
    async def own(claims: Annotated[Claims, auth.authenticated()]) -> list[OwnIdentity]:
        """Return the identities that are linked to the account of the caller."""
        user = await login_user(sign_in.login, claims, auth)
        linked = await found(Sequence, sign_in.identities.of, user.subject_id)
        return [
            OwnIdentity(
                id=identity.id, provider=identity.provider, label=identity.label, created_at=identity.created_at
            )
            for identity in linked
        ]

    @router.post(
        "/identities/{provider}/start",
        summary="Link an identity",
        response_model=Started,
        responses=described_statuses(303, 401, 403, 413, 422, 503),
    )
    async def link(provider: PathText, request: Request, response: Response, claims: Annotated[Claims, recent]) -> Any:
        """Begin to link an identity, after a recent login; the browser comes back to the callback or to ``/finish``.

        A form, which may have a field ``next``, sends the browser to the provider.
        """
        answers.check(request, sets_cookie=True)
        from_page = is_form(request)
        texts = await texts_in(request) if from_page else {}
        browser, target = browser_in(request, cookie), path_within(texts.get("next"), "") or None
        user = await login_user(sign_in.login, claims, auth)
        url = await sign_in.start(provider, browser=browser, next=target, user=user, claims=claims)
        answer = _redirect(url, {}) if from_page else response
        cookie.set(answer, browser, max_age=_BROWSER_SECONDS)
        return answer if from_page else Started(authorization_url=url)

    @router.delete(
        "/identities/{identity}",
        summary="Unlink an identity",
        status_code=204,
        responses=described_statuses(401, 403, 404, 422, 503),
    )
    async def unlink(identity: PathText, claims: Annotated[Claims, recent]) -> None:
        """Unlink an identity, after a recent login; not the only way to log in."""
        if not await sign_in.unlink(await login_user(sign_in.login, claims, auth), identity):
            raise HTTPException(404)


def _add_logout(router: APIRouter, logout: ProviderLogout) -> None:
    @router.post(
        "/providers/{provider}/logout",
        summary="Back-channel logout",
        response_class=Response,
        responses=described_statuses(400, 413, 415, 422, 503),
        openapi_extra=described(["logout_token"]),
    )
    async def ended(provider: PathText, request: Request) -> Response:
        """End the sessions that a provider ends (OpenID Connect Back-Channel Logout 2.5)."""
        token = required(await texts_in(request), "logout_token")
        try:
            await logout.end(provider, token)
        except Unauthorized:
            raise HTTPException(400, "The logout token is invalid", {"Cache-Control": "no-store"}) from None
        return Response(headers={"Cache-Control": "no-store"})


def _parameters_in(items: list[tuple[str, str]]) -> Mapping[str, str]:
    names = [name for name, _ in items if name in _PARAMETERS]
    # RFC 6749 3.1: a parameter is there once.
    return {} if len(set(names)) < len(names) else {name: value for name, value in items if name in _PARAMETERS}


def _code_of(error: AuthError) -> str:
    return _CODES.get(error.reason) or _STATUSES.get(error.status_code, "provider")


def _redirect(target: str, query: Mapping[str, str]) -> Response:
    headers = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
    return RedirectResponse(with_query(target, query), 303, headers)
