"""An application whose users sign in with the provider, at which it registers itself (RFC 7591)."""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import httpx2
from fastapi import FastAPI, Request, Response
from fastapi.responses import RedirectResponse
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.pool import StaticPool
from starlette.types import ASGIApp, Receive, Scope, Send

from fastapi_guard.login.login import Login, LoginLimits
from fastapi_guard.login.providers import OpenIDProvider, ProviderLogin, ProviderLogout
from fastapi_guard.login.session import SessionAuth
from fastapi_guard.login.users import DatabaseUsers
from fastapi_guard.routers.login_pages import LoginPages
from fastapi_guard.routers.providers import providers_router
from fastapi_guard.stores import MemoryStore

ISSUER, SITE = "https://id.example", "https://api.example"
REGISTRATION = {
    "redirect_uris": [f"{SITE}/providers/acme/callback"],
    "post_logout_redirect_uris": [f"{SITE}/bye"],
    "backchannel_logout_uri": f"{SITE}/providers/acme/logout",
    "backchannel_logout_session_required": True,
}
metadata = httpx2.get(f"{ISSUER}/.well-known/openid-configuration").json()
registered = httpx2.post(metadata["registration_endpoint"], json=REGISTRATION).raise_for_status().json()

engine = create_async_engine("sqlite+aiosqlite://", poolclass=StaticPool)
users, store = DatabaseUsers(async_sessionmaker(engine)), MemoryStore()
# All tests come from one address.
login = Login(users, store, passwords=None, limits=LoginLimits(account=None, address=None))
sessions = SessionAuth(store)
provider = OpenIDProvider(
    "acme", ISSUER, registered["client_id"], registered["client_secret"], userinfo=True, vouches=True
)
sign_in = ProviderLogin(login, [provider], callback=f"{SITE}/providers/{{provider}}/callback")
key = secrets.token_urlsafe(32)
logout = ProviderLogout(sign_in, sessions, after=f"{SITE}/bye", id_token_key=key)
logout_bodies: list[str] = []


class Recording:
    """Records the bodies of the back channel."""

    def __init__(self, app: ASGIApp) -> None:
        """Record what is sent to ``app``."""
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Record a message."""

        async def recording() -> Any:
            message = await receive()
            if scope["type"] == "http" and scope["path"].endswith("/logout"):
                logout_bodies.append(message.get("body", b"").decode())
            return message

        await self.app(scope, recording, send)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Create the table of users."""
    await users.create_table()
    yield
    await engine.dispose()


app = FastAPI(lifespan=lifespan)
app.add_middleware(Recording)
app.include_router(providers_router(sign_in, sessions, logout=logout, pages=LoginPages(done="/me")))


@app.get("/me")
async def me(claims: Annotated[dict[str, Any], sessions.authenticated()]) -> dict[str, Any]:
    """Return what a test looks at."""
    user = await users.by_subject(claims["sub"])
    assert user is not None
    return {"amr": claims["amr"], "idp": claims["idp"], "email": user.email, "subject": user.subject_id}


@app.post("/leave")
async def leave(request: Request, claims: Annotated[dict[str, Any], sessions.authenticated()]) -> Response:
    """End the session, and go on to the logout of the provider."""
    response = RedirectResponse(await logout.url(claims, state="a state") or "/bye", 303)
    await sessions.logout(response, connection=request)
    return response


@app.post("/recorder/logout")
async def recorded(request: Request) -> None:
    """Accept what is for another client."""
    await request.body()


@app.get("/logout-bodies")
async def bodies() -> list[str]:
    """Return what came through the back channel."""
    return [body for body in logout_bodies if body]
