"""For development: a mailbox that shows every message, and a provider that signs anyone in."""

import secrets
from collections import deque
from typing import Annotated

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from fastapi_guard.login.messages import ConsoleSender, Message
from fastapi_guard.login.providers import OpenIDProvider
from fastapi_guard.login.session import SessionAuth
from fastapi_guard.testing.issuer import FakeIssuer

from .html import Html, escape

_MOST = 50


class Mailbox:
    """Sends messages to the terminal, and keeps the last of them for a page."""

    def __init__(self) -> None:
        """Begin empty."""
        self.messages: deque[Message] = deque(maxlen=_MOST)
        self._terminal = ConsoleSender()

    def __call__(self, message: Message) -> None:
        """Write a message, and keep it."""
        self.messages.appendleft(message)
        self._terminal(message)


class DevelopmentProvider:
    """A provider of OpenID Connect in this process: its page accepts any name."""

    def __init__(self, url: str) -> None:
        """Issue ID tokens as ``url``."""
        self.issuer: FakeIssuer = FakeIssuer(url, audience="accounts")
        secret = secrets.token_urlsafe(24)
        self.client: OpenIDProvider = OpenIDProvider("development", url, "accounts", secret, client=self.issuer.client)


def development_router(html: Html, mailbox: Mailbox, provider: DevelopmentProvider, sessions: SessionAuth) -> APIRouter:
    """Serve the messages, and the page of the provider."""
    router = APIRouter(include_in_schema=False)

    @router.get("/messages")
    async def messages() -> HTMLResponse:
        shown = "".join(_shown(message) for message in mailbox.messages) or "<p>There is no message yet.</p>"
        intro = "<p>This page is for development: it shows what users would receive by mail, the latest first.</p>"
        return html.page("Messages", intro + shown)

    @router.get("/development/authorize")
    async def ask(request: Request) -> HTMLResponse:
        fields = html.field("name", "Name", autocomplete="off", pattern="[a-z0-9]{1,32}", hint="a-z and 0-9")
        address = html.field("email", "Address", "email", autocomplete="off", required=False, hint="optional")
        hidden = html.hidden("request", str(request.url.query))
        intro = "<p>This stands for the login page of a provider. It believes any name.</p>"
        form = html.form("/development/authorize", hidden + fields + address, "Sign in and agree")
        return html.page("Development provider", intro + form)

    @router.post("/development/authorize")
    async def agree(
        connection: Request,
        request: Annotated[str, Form(max_length=4096)],
        name: Annotated[str, Form(pattern="^[a-z0-9]{1,32}$")],
        email: Annotated[str, Form(max_length=254)] = "",
    ) -> Response:
        sessions.check_origin(connection)
        claims = {"name": name, **({"email": email, "email_verified": True} if email else {})}
        try:
            target = provider.issuer.authorize(f"{provider.issuer.url}/authorize?{request}", sub=name, **claims)
        except ValueError:
            return html.failure(400, "That is not an authorization request.")
        return RedirectResponse(target, 303)

    return router


def _shown(message: Message) -> str:
    link = "" if message.link is None else f'<p><a href="{escape(message.link)}">Open the link</a></p>'
    code = "" if message.code is None else f"<p>Code: <code>{escape(message.code)}</code></p>"
    return (
        f"<article><h2>{escape(message.subject)}</h2><p>To: {escape(message.address)}</p>"
        f"<pre>{escape(message.text)}</pre>{link}{code}</article>"
    )
