"""The API of the single-page application, and the page."""

import os
import re
from base64 import b64encode
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI
from fastapi.responses import HTMLResponse
from joserfc import jwk
from pydantic import BaseModel, Field
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from fastapi_guard import JWTConfig, configure_app
from fastapi_guard.login.local import LocalAuth
from fastapi_guard.login.login import Login
from fastapi_guard.login.providers import DatabaseIdentities, OpenIDProvider, ProviderLogin
from fastapi_guard.login.recovery import RecoveryCodes
from fastapi_guard.login.refresh import RefreshTokens
from fastapi_guard.login.revocation import Revocations
from fastapi_guard.login.totp import TOTP
from fastapi_guard.login.users import DatabaseUsers
from fastapi_guard.routers.factors import factors_router
from fastapi_guard.routers.login import login_router
from fastapi_guard.routers.providers import providers_router
from fastapi_guard.stores.sqlalchemy import SQLAlchemyStore

SITE = os.environ.get("SPA_SITE", "http://localhost:8000")
# The page, and the policy that lets its one script and its one style run, and no other.
PAGE = Path(__file__).with_name("index.html").read_text(encoding="utf-8")


def hash_of(element: str) -> str:
    """Return the CSP hash of the one inline element of this kind (CSP level 3, section 2.3.1)."""
    (text,) = re.findall(rf"<{element}\b[^>]*>(.*?)</{element}>", PAGE, flags=re.DOTALL)
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"


POLICY = "; ".join(
    (
        "default-src 'none'",
        f"script-src {hash_of('script')}",
        f"style-src {hash_of('style')}",
        "connect-src 'self'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
    )
)
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

engine = create_async_engine(os.environ.get("SPA_DATABASE_URL", "sqlite+aiosqlite:///spa.db"))
factory = async_sessionmaker(engine)
users, store, identities = DatabaseUsers(factory), SQLAlchemyStore(factory), DatabaseIdentities(factory)
login = Login(users, store, second=(TOTP(key=os.environ["SPA_KEY"], issuer="Notes"), RecoveryCodes()))
# A key for one process: with several workers, use a KeyFile. The page refreshes after a restart.
auth = LocalAuth(
    JWTConfig(key=jwk.ECKey.generate_key("P-256"), issuer_url=SITE, audience=SITE, expiration_seconds=300),
    login,
    refresh=RefreshTokens(store),
    revocations=Revocations(store),
)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    for table in (users, store, identities):
        await table.create_table()
    yield
    await auth.aclose()
    await engine.dispose()


app = FastAPI(title="Notes", lifespan=lifespan)
app.include_router(login_router(auth, refresh_cookie=True))
app.include_router(factors_router(login, auth))
public = ["/", "/signed-in/{provider}", "/login", "/login/*", "/token", "/token/*"]

if "SPA_ISSUER" in os.environ:
    provider = OpenIDProvider(
        "acme", os.environ["SPA_ISSUER"], os.environ["SPA_CLIENT_ID"], os.environ["SPA_CLIENT_SECRET"]
    )
    # Register this URL at the provider: it is the page, which posts the answer of the provider to /finish.
    callback = f"{SITE}/signed-in/{{provider}}"
    sign_in = ProviderLogin(login, [provider], callback=callback, identities=identities)
    app.include_router(providers_router(sign_in, auth, refresh_cookie=True))
    public += ["/providers", "/providers/*"]


@app.get("/", include_in_schema=False)
@app.get("/signed-in/{provider}", include_in_schema=False)
async def page() -> HTMLResponse:
    return HTMLResponse(PAGE, headers=HEADERS)


class Note(BaseModel):
    text: str = Field(max_length=1000)


NOTES: defaultdict[str, list[Note]] = defaultdict(list)


@app.get("/notes")
async def notes(claims: Annotated[dict[str, Any], auth.authenticated()]) -> list[Note]:
    return NOTES[claims["sub"]]


@app.post("/notes", status_code=201)
async def add_note(note: Note, claims: Annotated[dict[str, Any], auth.authenticated()]) -> Note:
    NOTES[claims["sub"]].append(note)
    return note


@app.get("/me")
async def me(claims: Annotated[dict[str, Any], auth.authenticated()]) -> dict[str, Any]:
    return {"subject": claims["sub"], "amr": claims["amr"]}


configure_app(app, unguarded="refuse", public=public)
