"""The logins, invitations and keys of the application."""

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from fastapi_guard import AnyAuth, BearerScheme, JWTConfig, configure_app, jwks_router
from fastapi_guard.api_key.database import DatabaseAPIKeyAuth
from fastapi_guard.api_key.models import Base as KeyBase
from fastapi_guard.jwt.key_file import KeyFile
from fastapi_guard.login.accounts import Accounts
from fastapi_guard.login.login import Login
from fastapi_guard.login.messages import ConsoleSender, Outbox
from fastapi_guard.login.refresh import RefreshTokens
from fastapi_guard.login.revocation import Revocations
from fastapi_guard.login.users import DatabaseUsers
from fastapi_guard.routers.accounts import accounts_router
from fastapi_guard.routers.api_keys import service_accounts_router
from fastapi_guard.routers.login import login_router
from fastapi_guard.stores.sqlalchemy import SQLAlchemyStore

from .members import ROLES, MemberAuth, may_invite, members_router
from .projects import Base, projects_router

SITE = os.environ["SAAS_SITE"]
MAIL_KEYS = json.loads(os.environ["FASTAPI_GUARD_MAIL_KEY"])
engine = create_async_engine(os.environ["FASTAPI_GUARD_STORE_URL"])
factory = async_sessionmaker(engine, expire_on_commit=False)
users, store = DatabaseUsers(factory), SQLAlchemyStore(factory)
# ConsoleSender is for development; examples/shop.py sends mails.
login = Login(users, store, outbox=Outbox(ConsoleSender()))
tokens = MemberAuth(
    JWTConfig(key=KeyFile("saas-keys.json"), issuer_url=SITE, audience=SITE, expiration_seconds=900),
    login,
    refresh=RefreshTokens(store),
    revocations=Revocations(store),
    roles=ROLES,
)
keys = DatabaseAPIKeyAuth(factory, BearerScheme(scheme_name="APIKey"))
auth = AnyAuth(tokens, keys)
accounts = Accounts(login, key=MAIL_KEYS, pages=SITE, registration="invited", may_invite=may_invite)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    await users.create_table()
    await store.create_table()
    async with engine.begin() as connection:
        for base in (KeyBase, Base):
            await connection.run_sync(base.metadata.create_all)
    yield
    await tokens.aclose()
    await engine.dispose()


app = FastAPI(title="Projects", lifespan=lifespan)
app.include_router(login_router(tokens))
app.include_router(jwks_router(tokens))
# Who may invite into which tenant is decided by may_invite.
app.include_router(accounts_router(accounts, tokens, inviters=tokens.authenticated()))
app.include_router(members_router(tokens))
app.include_router(
    service_accounts_router(keys, auth=tokens, prefix="/tenants/{tenant}/service-accounts", tenant_param="tenant")
)
app.include_router(projects_router(auth, factory))
configure_app(
    app,
    unguarded="refuse",
    public=[
        "/login",
        "/token",
        "/token/refresh",
        "/token/revoke",
        "/.well-known/jwks.json",
        "/register",
        "/verify",
        "/verify/resend",
        "/forgot",
        "/reset",
        "/invitations/accept",
    ],
)
