"""The common parts of the routes of accounts: bodies, cookies of browsers, refusals."""

import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError

from fastapi_guard.auth import AnyAuth, Auth, ScopesAuth
from fastapi_guard.claims import Claims
from fastapi_guard.exceptions import STALE_LOGIN, Forbidden, Unauthorized
from fastapi_guard.login.accounts import Accounts, MailedProof, Rejected
from fastapi_guard.login.accounts.desk import CHANGED, TAKEN
from fastapi_guard.login.accounts.invitations import HAS_ACCOUNT, OTHER_TENANT
from fastapi_guard.login.accounts.mailing import INVALID_SECRET
from fastapi_guard.login.accounts.registration import CLOSED, OTHER_BROWSER
from fastapi_guard.login.cookies import CookieSettings, cookie_in, cookie_name
from fastapi_guard.login.login import Login
from fastapi_guard.login.lookup import USER, found
from fastapi_guard.login.mailed_secrets import LIFETIMES, Purpose
from fastapi_guard.login.password_check import WRONG_PASSWORD
from fastapi_guard.login.users import User
from fastapi_guard.routers.bodies import described, texts_in
from fastapi_guard.routers.form_pages import FormPage, with_page
from fastapi_guard.routers.issuers import is_own
from fastapi_guard.routers.responses import described_statuses
from fastapi_guard.schemes import BearerScheme, Scheme
from fastapi_guard.schemes.origin import is_same_origin

Endpoint = Callable[..., Any]
Decorator = Callable[[Endpoint], Endpoint]

_BROWSER_BYTES: Final = 32
_LONGEST_BROWSER: Final = 64
_CODES: Final[Mapping[str, str]] = {
    INVALID_SECRET: "invalid_link",
    OTHER_BROWSER: "other_browser",
    WRONG_PASSWORD: "wrong_password",
    CLOSED: "invitation_needed",
    TAKEN: "username_taken",
    CHANGED: "try_again",
    HAS_ACCOUNT: "has_account",
    OTHER_TENANT: "other_tenant",
    STALE_LOGIN: "log_in_again",
}
_REFUSALS: Final = (403, 413, 415, 422, 429, 503)
# By route: those without a login, and those that change no user.
_ANONYMOUS: Final = frozenset({"register", "verify", "resend", "forgot", "reset", "accept"})
_UNCHANGING: Final = frozenset({"resend", "forgot", "address", "invite"})


@dataclass(frozen=True, slots=True)
class AccountRoutes:
    """The common parts of the routes.

    Attributes:
        accounts: The accounts.
        router: Where the routes are added.
        pages: The pages of forms, by route.
        trusted_origins: Other origins whose pages may post without a login.
    """

    accounts: Accounts
    router: APIRouter
    pages: Mapping[str, FormPage]
    trusted_origins: frozenset[bytes]

    def post(self, path: str, name: str, summary: str, status: int, fields: list[str], *optional: str) -> Decorator:
        """Return the decorator of a route."""
        page = with_page(self.pages.get(name), _CODES)
        route = self.router.post(
            path,
            summary=summary,
            status_code=status,
            responses=described_statuses(*_statuses_of(name)),
            openapi_extra=described(fields, *optional),
        )

        def decorate(endpoint: Endpoint) -> Endpoint:
            decorated: Endpoint = route(page(endpoint))
            return decorated

        return decorate

    async def texts(self, request: Request) -> dict[str, str]:
        """Return the body of a request without a login, whose address is counted before it is read.

        Raises:
            Forbidden: Another site's page sent it.
        """
        if not is_same_origin(request, self.trusted_origins):
            raise Forbidden(reason="cross_origin")
        await self.accounts.login.limits.count_address(request)
        return await texts_in(request)

    def cookie(self, purpose: Purpose) -> CookieSettings:
        """Return the cookie that recognises the browser that asked."""
        return CookieSettings(name=cookie_name(purpose.partition("_")[0], self.accounts.login.name))

    def new_browser(self, response: Response, purpose: Purpose) -> str:
        """Set a new cookie and return its value."""
        browser = secrets.token_urlsafe(_BROWSER_BYTES)
        self.cookie(purpose).set(response, browser, max_age=int(LIFETIMES[purpose].total_seconds()))
        return browser

    def browser(self, request: Request, purpose: Purpose) -> str | None:
        """Return the value of the cookie that the browser has."""
        value = cookie_in(request, self.cookie(purpose)) or ""
        return value if 0 < len(value) <= _LONGEST_BROWSER else None

    def proof(self, request: Request, texts: Mapping[str, str], purpose: Purpose) -> MailedProof:
        """Return the link or code in a body."""
        return MailedProof(token=texts.get("token"), code=texts.get("code"), browser=self.browser(request, purpose))

    async def user(self, claims: Claims, auth: Auth[Any]) -> User:
        """Return the user of a login; see ``login_user``."""
        return await login_user(self.accounts.login, claims, auth)


def _statuses_of(name: str) -> list[int]:
    own = [(401, name not in _ANONYMOUS), (409, name not in _UNCHANGING)]
    return sorted([*_REFUSALS, *(status for status, is_possible in own if is_possible)])


async def login_user(login: Login, claims: Claims, auth: Auth[Any]) -> User:
    """Return the user whose login claims are of.

    Args:
        login: The Login.
        claims: The claims.
        auth: The Auth that verified them.

    Raises:
        Unauthorized: There is no such user any more, or the user is disabled.
        Forbidden: It is not a login, but an API key that acts as the user, or a login of another issuer's subject.
        ServiceUnavailable: The users are unreachable.
    """
    is_login = isinstance(claims.get("auth_time"), int | float) and "key_id" not in claims
    if not is_login or not is_own(claims, auth):
        raise Forbidden(reason="no_login")
    user = await found(USER, login.users.by_subject, str(claims.get("sub", "")))
    if user is None or user.disabled:
        raise Unauthorized(reason="unknown_user")
    return user


async def no_referrer(response: Response) -> None:
    """Keep the URL of a page, which may have a token in its query, out of the ``Referer`` of what follows."""
    response.headers["Referrer-Policy"] = "no-referrer"


@contextmanager
def challenged(auth: ScopesAuth | AnyAuth) -> Iterator[None]:
    """Put the challenge of RFC 9470 on a refusal that needs a more recent login, in the scheme of ``auth``.

    Raises:
        Unauthorized: With that challenge.
    """
    try:
        yield
    except Unauthorized as error:
        scheme = auth.scheme if isinstance(auth, ScopesAuth) and isinstance(auth.scheme, Scheme) else BearerScheme()
        error.challenge(scheme.challenge(error="insufficient_user_authentication", error_description=STALE_LOGIN))
        raise


@contextmanager
def named() -> Iterator[None]:
    """Answer what may not be set with a 422 that names the field, as of every body, and does not repeat the value.

    Raises:
        RequestValidationError: It was rejected.
    """
    try:
        yield
    except Rejected as error:
        found = {"type": "rejected", "loc": ("body", error.field), "msg": str(error)}
        raise RequestValidationError([found]) from None
