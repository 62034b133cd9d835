"""Registration, two factors, passkeys, password reset and devices. Serve it over https, which its cookies need:

openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=localhost -keyout key.pem -out cert.pem
export SHOP_KEY=$(python -c 'import secrets; print(secrets.token_urlsafe(32))')
export SHOP_HOST=localhost SHOP_SITE=https://localhost:8000 SHOP_SMTP=localhost:8025
uvicorn --app-dir examples shop:app --ssl-keyfile key.pem --ssl-certfile cert.pem

SHOP_SMTP is a mail server. One that prints each mail: pip install aiosmtpd, and python -m aiosmtpd -n -l localhost:8025
It breaks the link into two lines, with a "=" between them; the code in the mail does the same as the link.
"""

import os
import smtplib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.message import EmailMessage
from typing import Annotated, Any

from fastapi import FastAPI
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from fastapi_guard import configure_app
from fastapi_guard.login.accounts import Accounts
from fastapi_guard.login.login import Login
from fastapi_guard.login.messages import Message, Outbox
from fastapi_guard.login.passkeys import Passkeys
from fastapi_guard.login.recovery import RecoveryCodes
from fastapi_guard.login.session import SessionAuth
from fastapi_guard.login.totp import TOTP
from fastapi_guard.login.users import DatabaseUsers
from fastapi_guard.routers.accounts import accounts_router
from fastapi_guard.routers.factors import factors_router
from fastapi_guard.routers.sessions import session_router
from fastapi_guard.stores.sqlalchemy import SQLAlchemyStore

# SHOP_KEY is 32 random bytes, always the same.
KEY, HOST, SITE, SMTP = (os.environ[f"SHOP_{name}"] for name in ("KEY", "HOST", "SITE", "SMTP"))


def send(message: Message) -> None:
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = f"shop@{HOST}", message.address, message.subject
    mail.set_content(message.text)
    with smtplib.SMTP(SMTP, timeout=10) as server:
        server.send_message(mail)


engine = create_async_engine("sqlite+aiosqlite:///shop.db")
users, store = DatabaseUsers(async_sessionmaker(engine)), SQLAlchemyStore(async_sessionmaker(engine))
second = (TOTP(key=KEY, issuer="Shop"), Passkeys(rp_id=HOST, origin=SITE), RecoveryCodes())
login = Login(users, store, second=second, outbox=Outbox(send))
sessions = SessionAuth(store)
accounts = Accounts(login, key=KEY, pages=SITE)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    await users.create_table()
    await store.create_table()
    yield
    await login.aclose()
    await engine.dispose()


app = FastAPI(lifespan=lifespan)
configure_app(app)
app.include_router(session_router(sessions, login))
app.include_router(accounts_router(accounts, sessions))
app.include_router(factors_router(login, sessions))


@app.get("/me")
async def me(claims: Annotated[dict[str, Any], sessions.authenticated()]) -> list[str]:
    return list(claims["amr"])
