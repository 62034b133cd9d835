"""API keys of a user: make one, see them, revoke one; and a route that they open."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Form, HTTPException
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from fastapi_guard.exceptions import Forbidden
from fastapi_guard.login.users import User

from .html import Html, escape
from .parts import Parts

SCOPES = {"profile:read": "Read the profile", "profile:edit": "Change the profile"}


def keys_router(html: Html, parts: Parts) -> APIRouter:
    """Serve the page of keys, and ``/api/profile``."""
    router = APIRouter()
    sessions, keys = parts.sessions, parts.keys

    current = parts.current

    @router.get("/api/profile")
    async def profile(claims: Annotated[dict[str, Any], keys.requires("profile:read")]) -> dict[str, Any]:
        return {"user": claims["sub"], "key": claims["name"]}

    @router.get("/keys", include_in_schema=False)
    async def listed(user: Annotated[User, current], notice: str = "") -> HTMLResponse:
        rows = ""
        for key in await keys.list(user_id=user.subject_id, active_only=True):
            revoke = html.form("/keys/revoke", html.hidden("key_id", key.key_id), "Revoke", kind="danger")
            about = f"{escape(key.key_id)}, {escape(' '.join(key.scopes))}"
            rows += f'<li class="row"><span>{escape(key.name or "Key")}<br><small>{about}</small></span>{revoke}</li>'
        body = f'<ul class="rows">{rows}</ul>' if rows else "<p>There is no key.</p>"
        scopes = "".join(f'<option value="{scope}">{text}</option>' for scope, text in SCOPES.items())
        fields = html.field("name", "Name", autocomplete="off", hint="Such as the program that uses it.")
        fields += f'<p><label for="scope">May</label><select id="scope" name="scope">{scopes}</select></p>'
        body += "<h2>Make a key</h2>" + html.form("/keys", fields, "Make the key")
        return html.page("API keys", body, user=user.login_name, notice=notice)

    @router.post("/keys", include_in_schema=False)
    async def make(
        user: Annotated[User, current],
        granted: Annotated[frozenset[str], sessions.granted()],
        name: Annotated[str, Form(pattern=r"^[\w .-]{1,64}$")],
        scope: Annotated[Literal["profile:read", "profile:edit"], Form()],
    ) -> HTMLResponse:
        # A key can do no more than its maker.
        if not sessions.has_scope(scope, sorted(granted)):
            raise Forbidden(reason="scope")
        expires_at = datetime.now(UTC) + timedelta(days=90)
        _, key = await keys.create(user_id=user.subject_id, name=name, scopes=[scope], expires_at=expires_at)
        url = parts.settings.site + html.base
        call = f"curl -H 'Authorization: Bearer {key}' {url}/api/profile"
        body = "<p>Copy the key now; it is not shown again. It is valid for 90 days.</p>"
        body += f"<pre>{escape(key)}</pre><p>Use it in a shell:</p><pre>{escape(call)}</pre>"
        body += f"<p>{html.link('/keys', 'All keys')}</p>"
        return html.page("The new key", body, user=user.login_name)

    @router.post("/keys/revoke", include_in_schema=False)
    async def revoke(user: Annotated[User, current], key_id: Annotated[str, Form(max_length=64)]) -> Response:
        if key_id not in {key.key_id for key in await keys.list(user_id=user.subject_id)}:
            raise HTTPException(404)
        await keys.revoke(key_id)
        return RedirectResponse(f"{html.base}/keys?notice=revoked", 303)

    return router
