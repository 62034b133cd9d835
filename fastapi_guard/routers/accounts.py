"""Register, verify an address, reset and change a password, change the address, delete, invite.

Each route takes JSON or a form of at most 64 KiB. No answer depends on whether an address is known.
"""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Request, Response, params
from fastapi.exceptions import RequestValidationError
from pydantic import AnyUrl, BaseModel

from fastapi_guard.app.guards import guards_of
from fastapi_guard.auth import AnyAuth, Auth, ScopesAuth
from fastapi_guard.claims import Claims
from fastapi_guard.exceptions import ConfigurationError
from fastapi_guard.login.accounts import Accounts, Invited, MailedProof, NewAccount
from fastapi_guard.routers.account_routes import AccountRoutes, challenged, named, no_referrer
from fastapi_guard.routers.bodies import is_form, json_in, required, texts_in
from fastapi_guard.routers.form_pages import FormPage, PageRoute, checked_pages
from fastapi_guard.routers.issuers import check_issuers
from fastapi_guard.routers.responses import never_stored_router
from fastapi_guard.schemes.origin import trusted
from fastapi_guard.stores.arguments import instance_of

_INVITERS: Final = 'a guard, such as auth.requires("users:invite")'
_ROUTES: Final = (
    "register",
    "verify",
    "resend",
    "forgot",
    "reset",
    "password",
    "address",
    "confirm_address",
    "delete",
    "invite",
    "accept",
    "join",
)


class OwnAccount(BaseModel):
    """The account of the caller.

    Attributes:
        username: ``None`` where the user has none.
        email: ``None`` where the user has none.
        email_verified: Whether the address is verified.
        has_password: Whether a change needs the current password.
        tenant_id: The tenant.
        roles: The roles.
    """

    username: str | None
    email: str | None
    email_verified: bool
    has_password: bool
    tenant_id: str | None
    roles: list[str]


def accounts_router(
    accounts: Accounts,
    auth: ScopesAuth | AnyAuth | None = None,
    *,
    inviters: params.Security | None = None,
    pages: Mapping[str, FormPage] | None = None,
    prefix: str = "",
    tags: Iterable[str] = ("accounts",),
    trusted_origins: Iterable[str | AnyUrl] = (),
) -> APIRouter:
    """Serve ``/register``, ``/verify``, ``/forgot``, ``/reset``, ``/account`` and ``/invitations``.

    Args:
        accounts: The accounts.
        auth: Guards the routes of a user who is logged in; without it there are none.
        inviters: Guards ``POST /invitations``, such as ``auth.requires("users:invite")``; without it there is none.
        pages: Where a browser goes after the post of a form, by route: ``{"register": FormPage(...)}``.
        prefix: Put before each path.
        tags: In OpenAPI.
        trusted_origins: Other origins whose pages may post to the routes without a login, such as
            ``["https://app.example"]``.

    Raises:
        ConfigurationError: An argument has the wrong type, or ``inviters`` is not a guard.
    """
    instance_of("accounts", accounts, Accounts, "Accounts")
    instance_of("auth", auth, (ScopesAuth, type(None)), "an Auth with scopes, such as a SessionAuth, or None")
    uses = () if inviters is None else guards_of(instance_of("inviters", inviters, params.Depends, _INVITERS))
    if inviters is not None and not uses:
        msg = f"inviters is {_INVITERS}, not a dependency without a guard"
        raise ConfigurationError(msg)
    router = never_stored_router(prefix, tags, Depends(no_referrer), route_class=PageRoute)
    routes = AccountRoutes(accounts, router, checked_pages(pages, _ROUTES), trusted(trusted_origins))
    _serve_registration(routes)
    _serve_resets(routes)
    _serve_acceptance(routes)
    if auth is not None:
        check_issuers(auth)
        _serve_account(routes, auth)
        _serve_address(routes, auth)
        _serve_joining(routes, auth)
    if inviters is not None:
        check_issuers(uses[0].guard.auth)
        _serve_invitations(routes, inviters, uses[0].guard.auth)
    return router


def _serve_registration(routes: AccountRoutes) -> None:
    registration = routes.accounts.registration

    @routes.post("/register", "register", "Register", 202, ["email", "password"], "username")
    async def register(request: Request, response: Response) -> dict[str, str]:
        """Send a message to the address. The answer is the same for an address that has an account."""
        texts = await routes.texts(request)
        new = NewAccount(email=required(texts, "email"), password=texts.get("password"), username=texts.get("username"))
        with named():
            browser = routes.new_browser(response, "verify_address")
            await registration.register(new, browser=browser, connection=request)
        return {}

    @routes.post("/verify", "verify", "Verify an address", 204, [], "token", "code", "password")
    async def verify(request: Request, response: Response) -> None:
        """Verify by the link or the code of a message; in another browser the link needs the password."""
        texts = await routes.texts(request)
        proof = routes.proof(request, texts, "verify_address")
        await registration.verify(proof, password=texts.get("password"), connection=request)
        routes.cookie("verify_address").delete(response)

    @routes.post("/verify/resend", "resend", "Send the message again", 202, ["email"])
    async def resend(request: Request) -> dict[str, str]:
        """Send another link, if the address waits for it."""
        texts = await routes.texts(request)
        with named():
            browser = routes.browser(request, "verify_address")
            await registration.resend(required(texts, "email"), browser=browser, connection=request)
        return {}


def _serve_resets(routes: AccountRoutes) -> None:
    passwords = routes.accounts.passwords

    @routes.post("/forgot", "forgot", "Forgot the password", 202, ["username"])
    async def forgot(request: Request, response: Response) -> dict[str, str]:
        """Send a message, if there is a user of this name or address (in JSON also called ``email``)."""
        username = required(await routes.texts(request), "username", "email")
        browser = routes.new_browser(response, "reset_password")
        await passwords.forgot(username, browser=browser, connection=request)
        return {}

    @routes.post("/reset", "reset", "Set a new password", 204, ["password"], "token", "code")
    async def reset(request: Request, response: Response) -> None:
        """Set a password by the link or the code of a message. Every session and token of the user ends."""
        texts = await routes.texts(request)
        proof = routes.proof(request, texts, "reset_password")
        with named():
            await passwords.reset(proof, required(texts, "password"), connection=request)
        routes.cookie("reset_password").delete(response)


def _serve_acceptance(routes: AccountRoutes) -> None:
    @routes.post("/invitations/accept", "accept", "Register by an invitation", 204, ["token", "password"], "username")
    async def accept(request: Request) -> None:
        """Make an account for the address that was invited."""
        texts = await routes.texts(request)
        new = NewAccount(password=texts.get("password"), username=texts.get("username"))
        with named():
            await routes.accounts.invitations.accept(required(texts, "token"), new, connection=request)


def _serve_account(routes: AccountRoutes, auth: ScopesAuth | AnyAuth) -> None:
    accounts = routes.accounts

    @routes.router.get("/account", summary="Show one's own account")
    async def account(claims: Annotated[Claims, auth.authenticated()]) -> OwnAccount:
        user = await routes.user(claims, auth)
        return OwnAccount(
            username=user.username,
            email=user.email,
            email_verified=user.email_verified,
            has_password=user.password_hash is not None,
            tenant_id=user.tenant_id,
            roles=list(user.roles),
        )

    @routes.post("/account/password", "password", "Change the password", 204, ["password"], "current_password")
    async def change_password(request: Request, claims: Annotated[Claims, auth.authenticated()]) -> None:
        """Set a new password. The other sessions and tokens of the user end."""
        texts, user = await texts_in(request), await routes.user(claims, auth)
        with named(), challenged(auth):
            await accounts.passwords.change(
                user,
                required(texts, "password"),
                current=texts.get("current_password"),
                claims=claims,
                connection=request,
            )

    @routes.post("/account/delete", "delete", "Delete the account", 204, [], "password")
    async def delete(request: Request, claims: Annotated[Claims, auth.authenticated()]) -> None:
        """Delete the account, with everything that belongs to it here."""
        texts, user = await texts_in(request), await routes.user(claims, auth)
        with challenged(auth):
            await accounts.delete(user, password=texts.get("password"), claims=claims, connection=request)


def _serve_address(routes: AccountRoutes, auth: ScopesAuth | AnyAuth) -> None:
    addresses = routes.accounts.addresses

    @routes.post("/account/address", "address", "Change the address", 202, ["email"], "password")
    async def request_address(request: Request, claims: Annotated[Claims, auth.authenticated()]) -> dict[str, str]:
        """Send a message to the new address. The answer is the same for an address of another user."""
        texts, user = await texts_in(request), await routes.user(claims, auth)
        with named(), challenged(auth):
            await addresses.request(
                user, required(texts, "email"), password=texts.get("password"), claims=claims, connection=request
            )
        return {}

    @routes.post("/account/address/confirm", "confirm_address", "Confirm the address", 204, [], "token", "code")
    async def confirm_address(request: Request, claims: Annotated[Claims, auth.authenticated()]) -> None:
        """Set the new address by the link or code of the message, while logged in as the user who asked."""
        texts, user = await texts_in(request), await routes.user(claims, auth)
        proof = MailedProof(token=texts.get("token"), code=texts.get("code"))
        await addresses.confirm(user, proof, connection=request)


def _serve_joining(routes: AccountRoutes, auth: ScopesAuth | AnyAuth) -> None:
    @routes.post("/invitations/join", "join", "Accept an invitation", 204, ["token"])
    async def join(request: Request, claims: Annotated[Claims, auth.authenticated()]) -> None:
        """Accept an invitation to the address of one's own account."""
        texts, user = await texts_in(request), await routes.user(claims, auth)
        await routes.accounts.invitations.join(required(texts, "token"), user, connection=request)


def _serve_invitations(routes: AccountRoutes, inviters: params.Security, auth: Auth[Any]) -> None:
    @routes.post("/invitations", "invite", "Invite", 202, ["email"], "roles", "scopes", "tenant_id")
    async def invite(request: Request, claims: Annotated[Claims, inviters]) -> dict[str, str]:
        """Send an invitation. In a form, roles and scopes are separated by spaces; in JSON they may be lists."""
        body: Mapping[str, Any] = await (texts_in(request) if is_form(request) else json_in(request))
        user = await routes.user(claims, auth)
        email = required({name: value for name, value in body.items() if isinstance(value, str)}, "email")
        invited = Invited(
            email=email,
            roles=_listed(body, "roles"),
            scopes=_listed(body, "scopes"),
            tenant_id=body["tenant_id"] if isinstance(body.get("tenant_id"), str) else user.tenant_id,
        )
        with named():
            await routes.accounts.invitations.invite(invited, inviter=user, claims=claims, connection=request)
        return {}


def _listed(body: Mapping[str, Any], name: str) -> tuple[str, ...]:
    value = body.get(name, "")
    if isinstance(value, str):
        return tuple(value.split())
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise RequestValidationError([{"type": "list_type", "loc": ("body", name), "msg": "A list of texts"}])
    return tuple(value)
