"""Second factors, and the sign-ins that are linked: add them and remove them."""

from typing import Annotated, Any

from fastapi import APIRouter, Form, HTTPException, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from fastapi_guard.exceptions import Conflict, Forbidden
from fastapi_guard.login.enrolment import Begun
from fastapi_guard.login.users import User
from fastapi_guard.routers.factors import enrolment_binding

from .account_pages import moment
from .html import Html, escape
from .parts import Parts


def security_router(html: Html, parts: Parts) -> APIRouter:
    """Serve the page of second factors, and the two enrolments that show something once."""
    router = APIRouter(include_in_schema=False)
    _serve_security(router, html, parts)
    _serve_totp(router, html, parts)
    _serve_recovery_codes(router, html, parts)
    return router


def _serve_security(router: APIRouter, html: Html, parts: Parts) -> None:
    sessions, current = parts.sessions, parts.current

    @router.get("/security")
    async def security(user: Annotated[User, current], error: str = "", notice: str = "") -> HTMLResponse:
        body = "<h2>Second factors</h2>" + await _factors(html, parts, user)
        body += html.form("/security/totp", "", "Add an authenticator app")
        name = html.field("passkey-name", "Name of the new passkey", autocomplete="off", required=False)
        body += name + html.passkey_button("enrol", "Add a passkey", f"{html.base}/security?notice=factor")
        body += html.form("/security/recovery", "", "Make recovery codes")
        body += "<h2>Linked sign-ins</h2>" + await _identities(html, parts, user)
        hidden = html.hidden("next", f"{html.base}/security")
        for provider in parts.sign_in.providers:
            body += html.form(f"/identities/{provider}/start", hidden, f"Link the {provider} provider")
        if error == "log_in_again":
            body = f"<p>{html.link('/step-up', 'Confirm that it is you', next=f'{html.base}/security')}</p>{body}"
        return html.page("Security", body, user=user.login_name, error=error, notice=notice)

    @router.post("/security/unlink", dependencies=[sessions.requires_recent(max_age=600)])
    async def unlink(user: Annotated[User, current], identity: Annotated[str, Form(max_length=128)]) -> Response:
        try:
            if not await parts.sign_in.unlink(user, identity):
                raise HTTPException(404)
        except Forbidden as error:
            return RedirectResponse(f"{html.base}/security?error={error.reason}", 303)
        return RedirectResponse(f"{html.base}/security?notice=removed", 303)


async def _factors(html: Html, parts: Parts, user: User) -> str:
    rows = ""
    for factor in await parts.login.factors.of(user.subject_id):
        left = parts.login.factors.describe(factor).get("remaining")
        about = f"added {moment(factor.created_at)}" if left is None else f"{left} codes left"
        remove = html.form(f"/factors/{factor.id}/remove", "", f"Remove {factor.name}", kind="danger")
        rows += f'<li class="row"><span>{escape(factor.name)}<br><small>{about}</small></span>{remove}</li>'
    return f'<ul class="rows">{rows}</ul>' if rows else "<p>There is none: the password is enough to log in.</p>"


async def _identities(html: Html, parts: Parts, user: User) -> str:
    rows = ""
    for identity in await parts.identities.of(user.subject_id):
        shown = f"{identity.provider}: {identity.label or identity.provider_subject}"
        unlink = html.form("/security/unlink", html.hidden("identity", identity.id), "Unlink", kind="danger")
        rows += f'<li class="row"><span>{escape(shown)}</span>{unlink}</li>'
    return f'<ul class="rows">{rows}</ul>' if rows else "<p>There is none.</p>"


def _serve_totp(router: APIRouter, html: Html, parts: Parts) -> None:
    login, current, caller = parts.login, parts.current, parts.sessions.authenticated()

    @router.post("/security/totp")
    async def totp(user: Annotated[User, current], claims: Annotated[dict[str, Any], caller]) -> HTMLResponse:
        begun = await _begin(parts, "totp", user, claims)
        shown = f"<p>Scan this code with the app, or type the secret: <code>{escape(begun.shown['secret'])}</code></p>"
        code = f'<div role="img" aria-label="QR code of the secret">{begun.shown["qr"]}</div>'
        return html.page("Authenticator app", shown + code + confirmation(begun.enrolment or ""), user=user.login_name)

    @router.post("/security/totp/confirm")
    async def confirm(
        request: Request,
        user: Annotated[User, current],
        claims: Annotated[dict[str, Any], caller],
        enrolment: Annotated[str, Form(max_length=64)],
        code: Annotated[str, Form(max_length=64)],
    ) -> Response:
        await login.limits.count(None, request)
        binding = enrolment_binding(claims)
        if await login.enrolments.confirm(user, enrolment, {"code": code}, binding=binding) is None:
            # It has five tries, with the secret that the app has by now.
            return html.page("Authenticator app", confirmation(enrolment), user=user.login_name, error="wrong_code")
        return RedirectResponse(f"{html.base}/security?notice=factor", 303)

    def confirmation(enrolment: str) -> str:
        code = html.field("code", "Code of the app", autocomplete="one-time-code", inputmode="numeric")
        return html.form("/security/totp/confirm", html.hidden("enrolment", enrolment) + code, "Confirm")


def _serve_recovery_codes(router: APIRouter, html: Html, parts: Parts) -> None:
    current, caller = parts.current, parts.sessions.authenticated()

    @router.post("/security/recovery")
    async def recovery(user: Annotated[User, current], claims: Annotated[dict[str, Any], caller]) -> HTMLResponse:
        begun = await _begin(parts, "recovery", user, claims)
        codes = "".join(f"<li><code>{code}</code></li>" for code in begun.shown["codes"])
        body = "<p>Each of these codes works once, in place of another factor. They are not shown again.</p>"
        body += f"<ul>{codes}</ul><p>{html.link('/security', 'I have stored them')}</p>"
        return html.page("Recovery codes", body, user=user.login_name)


async def _begin(parts: Parts, kind: str, user: User, claims: dict[str, Any]) -> Begun:
    # The binding is that of factors_router, so that each enrolment of a session counts as a proof for the next one.
    binding = enrolment_binding(claims)
    begun = await parts.login.enrolments.begin(kind, user, {}, binding=binding, claims=claims)
    if begun is None:  # changed by another request at the same time
        raise Conflict(reason="enrolment")
    return begun
