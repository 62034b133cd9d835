"""The pages of a user who is logged in: home, devices, password, the end of the account, and proving it again."""

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Form, HTTPException
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from fastapi_guard.login.devices import device_label
from fastapi_guard.login.users import User
from fastapi_guard.schemes.origin import path_within

from .html import Html, escape
from .parts import Parts


def account_router(html: Html, parts: Parts) -> APIRouter:
    """Serve the pages, and the posts of them that no router of the library has."""
    router = APIRouter(include_in_schema=False)
    _serve_account(router, html, parts)
    _serve_devices(router, html, parts)
    _serve_step_up(router, html, parts)
    return router


def _serve_account(router: APIRouter, html: Html, parts: Parts) -> None:
    current, caller = parts.current, parts.sessions.authenticated()

    @router.get("/")
    async def home(user: Annotated[User, current], claims: Annotated[dict[str, Any], caller]) -> HTMLResponse:
        factors = await parts.login.factors.of(user.subject_id)
        rows = {
            "Username": user.username or "none",
            "Address": user.email or "none",
            "Logged in with": ", ".join(claims["amr"]),
            "Second factors": ", ".join(factor.name for factor in factors) or "none",
        }
        listed = "".join(f"<dt>{name}</dt><dd>{escape(value)}</dd>" for name, value in rows.items())
        body = f"<dl>{listed}</dl><h2>Delete the account</h2><p>{html.link('/delete', 'Delete the account')}</p>"
        return html.page(f"Hello, {user.login_name}", body, user=user.login_name)

    @router.get("/password")
    async def password(user: Annotated[User, current], error: str = "", notice: str = "") -> HTMLResponse:
        fields = html.new_password()
        if user.password_hash is not None:
            fields = (
                html.field("current_password", "Current password", "password", autocomplete="current-password") + fields
            )
        form = html.form("/account/password", fields, "Change the password")
        return html.page("Password", form, user=user.login_name, error=error, notice=notice)

    @router.get("/delete")
    async def delete(user: Annotated[User, current], error: str = "") -> HTMLResponse:
        proof = ""
        if user.password_hash is not None:
            proof = html.field("password", "Password", "password", autocomplete="current-password")
        body = "<p>The account, its devices and its keys are deleted. That cannot be undone.</p>"
        body += html.form("/account/delete", proof, "Delete the account", kind="danger")
        return html.page("Delete the account", body, user=user.login_name, error=error)


def _serve_devices(router: APIRouter, html: Html, parts: Parts) -> None:
    sessions, current, caller = parts.sessions, parts.current, parts.sessions.authenticated()

    @router.get("/devices")
    async def devices(
        user: Annotated[User, current], claims: Annotated[dict[str, Any], caller], notice: str = ""
    ) -> HTMLResponse:
        rows = ""
        for session in await sessions.list(user.subject_id):
            seen = f"last used {moment(session.seen_at)}"
            hidden = html.hidden("session", session.id)
            end = html.form("/devices/end", hidden, "End this login", kind="danger")
            is_this = session.id == claims["sid"]
            shown = f"<span>{escape(device_label(session.client))}<br><small>{seen}</small></span>"
            rows += f'<li class="row">{shown}{"<strong>This device</strong>" if is_this else end}</li>'
        others = html.form("/devices/end-others", "", "Log out all other devices", kind="danger")
        body = f'<ul class="rows">{rows}</ul>{others}'
        return html.page("Devices", body, user=user.login_name, notice=notice)

    @router.post("/devices/end")
    async def end(session: Annotated[str, Form()], claims: Annotated[dict[str, Any], caller]) -> Response:
        if session not in {own.id for own in await sessions.list(claims["sub"])}:
            raise HTTPException(404)
        await sessions.end(session)
        return RedirectResponse(f"{html.base}/devices?notice=ended", 303)

    @router.post("/devices/end-others")
    async def end_others(claims: Annotated[dict[str, Any], caller]) -> Response:
        await sessions.end_all(claims["sub"], keep=claims["sid"])
        return RedirectResponse(f"{html.base}/devices?notice=ended", 303)


def _serve_step_up(router: APIRouter, html: Html, parts: Parts) -> None:
    current, caller = parts.current, parts.sessions.authenticated()
    inputs = {
        "password": html.field("password", "Password", "password", autocomplete="current-password"),
        "totp": html.field("code", "Code of the app", autocomplete="one-time-code", inputmode="numeric"),
        "recovery": html.field("code", "Recovery code", autocomplete="off", ident="recovery-code"),
    }

    @router.get("/step-up")
    async def step_up(
        user: Annotated[User, current],
        claims: Annotated[dict[str, Any], caller],
        next: str = "",  # noqa: A002 - as in a form
        error: str = "",
    ) -> HTMLResponse:
        target = path_within(next, f"{html.base}/")
        kinds = await parts.login.step_up.kinds(claims)
        body = "<p>This needs a recent proof that it is you.</p>"
        for kind in kinds:
            if kind in inputs:
                hidden = html.hidden("factor", kind) + html.hidden("next", target)
                body += html.form("/login/step-up", hidden + inputs[kind], "Confirm")
            else:
                body += html.passkey_button("confirm", "Use a passkey", target)
        if not kinds:
            body += f"<p>{html.link('/providers/development', 'Sign in again', next=target)}</p>"
        return html.page("Confirm that it is you", body, user=user.login_name, error=error)


def moment(seconds: float) -> str:
    """Return a moment as a page shows it."""
    at = datetime.fromtimestamp(seconds, UTC)
    return f'<time datetime="{at.isoformat()}">{at:%Y-%m-%d %H:%M} UTC</time>'
