"""The flows that fastapi-users documents, sent to an application of each library."""

import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

from fastapi import FastAPI, Request
from fastapi.testclient import TestClient
from fastapi_users import BaseUserManager, FastAPIUsers, UUIDIDMixin, schemas
from fastapi_users.authentication import AuthenticationBackend, BearerTransport, JWTStrategy
from fastapi_users.db import (
    SQLAlchemyBaseOAuthAccountTableUUID,
    SQLAlchemyBaseUserTableUUID,
    SQLAlchemyUserDatabase,
)
from httpx_oauth.oauth2 import BaseOAuth2, OAuth2Token
from joserfc import jwk
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, relationship
from sqlalchemy.pool import StaticPool

from fastapi_guard import JWTConfig, configure_app
from fastapi_guard.login.accounts import Accounts
from fastapi_guard.login.local import LocalAuth
from fastapi_guard.login.login import Login
from fastapi_guard.login.messages import Message
from fastapi_guard.login.providers import DatabaseIdentities, OpenIDProvider, ProviderLogin
from fastapi_guard.login.refresh import RefreshTokens
from fastapi_guard.login.revocation import Revocations
from fastapi_guard.login.session import SessionAuth
from fastapi_guard.login.users import DatabaseUsers
from fastapi_guard.routers.accounts import accounts_router
from fastapi_guard.routers.login import login_router
from fastapi_guard.routers.providers import providers_router
from fastapi_guard.stores.sqlalchemy import SQLAlchemyStore
from fastapi_guard.testing.issuer import FakeIssuer

SITE = "https://shop.example"
SECRET = "0f9d5c3b7e1a8642d0c9b8a7f6e5d4c3"
PASSWORD, NEXT = "analytical engine", "difference engine no 2"


class Base(DeclarativeBase):
    """The tables of fastapi-users."""


class OAuthAccount(SQLAlchemyBaseOAuthAccountTableUUID, Base):
    """An account at a provider."""


class User(SQLAlchemyBaseUserTableUUID, Base):
    """A user."""

    oauth_accounts: Mapped[list[OAuthAccount]] = relationship(lazy="joined")


class UserRead(schemas.BaseUser[uuid.UUID]):
    """A user in an answer."""


class UserCreate(schemas.BaseUserCreate):
    """A user in a request."""


class UserUpdate(schemas.BaseUserUpdate):
    """A change of a user."""


class Acme(BaseOAuth2[dict[str, Any]]):
    """A provider, whose codes are the addresses of its users."""

    def __init__(self) -> None:
        """Name it and its pages."""
        super().__init__("client", "secret", "https://id.example/authorize", "https://id.example/token", name="acme")

    async def get_access_token(self, code: str, *_: Any, **__: Any) -> OAuth2Token:
        """Return a token for a code."""
        return OAuth2Token({"access_token": code, "token_type": "bearer", "expires_in": 3600})

    async def get_id_email(self, token: str) -> tuple[str, str | None]:
        """Return who the token is for."""
        return f"id of {token}", token


@contextmanager
def fastapi_users_application() -> Iterator[tuple[TestClient, dict[str, str]]]:
    """Yield a client of an application with every router of fastapi-users, and the tokens that it mails by address."""
    engine = create_async_engine("sqlite+aiosqlite://", poolclass=StaticPool)
    factory = async_sessionmaker(engine, expire_on_commit=False)
    mailed: dict[str, str] = {}

    class UserManager(UUIDIDMixin, BaseUserManager[User, uuid.UUID]):
        reset_password_token_secret = verification_token_secret = SECRET

        async def on_after_forgot_password(self, user: User, token: str, request: Request | None = None) -> None:
            mailed[user.email] = token

        async def on_after_request_verify(self, user: User, token: str, request: Request | None = None) -> None:
            mailed[user.email] = token

    async def manager() -> AsyncIterator[UserManager]:
        async with factory() as session:
            yield UserManager(SQLAlchemyUserDatabase(session, User, OAuthAccount))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        yield
        await engine.dispose()

    def strategy() -> JWTStrategy[User, uuid.UUID]:
        return JWTStrategy(secret=SECRET, lifetime_seconds=3600)

    backend = AuthenticationBackend("jwt", BearerTransport("auth/jwt/login"), strategy)
    users = FastAPIUsers[User, uuid.UUID](manager, [backend])
    app = FastAPI(lifespan=lifespan)
    app.include_router(users.get_auth_router(backend), prefix="/auth/jwt")
    app.include_router(users.get_register_router(UserRead, UserCreate), prefix="/auth")
    app.include_router(users.get_verify_router(UserRead), prefix="/auth")
    app.include_router(users.get_reset_password_router(), prefix="/auth")
    app.include_router(users.get_users_router(UserRead, UserUpdate), prefix="/users")
    app.include_router(users.get_oauth_router(Acme(), backend, SECRET), prefix="/auth/acme")
    app.include_router(users.get_oauth_associate_router(Acme(), UserRead, SECRET), prefix="/auth/associate/acme")
    with TestClient(app, base_url=SITE, follow_redirects=False) as client:
        yield client, mailed


class Ours:
    """An application with the routers of this package, and the messages that it sends."""

    def __init__(self) -> None:
        """Build it."""
        self.engine = create_async_engine("sqlite+aiosqlite://", poolclass=StaticPool)
        factory = async_sessionmaker(self.engine)
        self._tables: list[Any] = [DatabaseUsers(factory), SQLAlchemyStore(factory), DatabaseIdentities(factory)]
        users, store, identities = self._tables
        self.messages: list[Message] = []
        self.issuer = FakeIssuer("https://id.example", audience="client")
        login = Login(users, store)
        config = JWTConfig(key=jwk.OctKey.import_key(SECRET), issuer_url=SITE, audience=SITE)
        auth = LocalAuth(config, login, refresh=RefreshTokens(store), revocations=Revocations(store))
        sessions = SessionAuth(store)
        login.ends(sessions)
        self.accounts = Accounts(login, key=SECRET, pages=SITE, send=self._send)
        provider = OpenIDProvider("acme", self.issuer.url, "client", "a secret", client=self.issuer.client)
        sign_in = ProviderLogin(
            login, [provider], callback=f"{SITE}/providers/{{provider}}/callback", identities=identities
        )
        self.app = FastAPI(lifespan=self._lifespan)
        self.app.include_router(login_router(auth))
        self.app.include_router(accounts_router(self.accounts, auth | sessions))
        self.app.include_router(providers_router(sign_in, sessions))
        configure_app(self.app)

    @asynccontextmanager
    async def _lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        for tables in self._tables:
            await tables.create_table()
        yield
        await self.engine.dispose()

    async def _send(self, message: Message) -> None:
        self.messages.append(message)

    def mailed(self, client: TestClient) -> str:
        """Return the token in the link of the last message."""
        assert client.portal is not None
        client.portal.call(self.accounts.outbox.drain)
        link = self.messages[-1].link
        assert link is not None
        return link.partition("#token=")[2]


def answer(response: Any) -> str:
    """Return how the table shows a response: the status, and the code of a refusal."""
    if response.status_code == 303:
        target = urlsplit(response.headers["location"])
        return f"303 `{target.path}{f'?{target.query}' if 'error=' in target.query else ''}`"
    detail = response.json().get("detail") if response.status_code >= 400 and response.content else None
    detail = detail.get("code") if isinstance(detail, dict) else detail
    return f"{response.status_code} `{detail}`" if isinstance(detail, str) else str(response.status_code)


def bearer(response: Any) -> dict[str, dict[str, str]]:
    """Return the arguments of a request with the token in a response."""
    return {"headers": {"Authorization": f"Bearer {response.json()['access_token']}"}}


def flows() -> dict[str, tuple[str, str]]:
    """Return the answers of both, by flow."""
    theirs = flows_of_fastapi_users()
    ours = flows_of_ours()
    assert theirs.keys() == ours.keys(), theirs.keys() ^ ours.keys()
    return {flow: (theirs[flow], ours[flow]) for flow in theirs}


def flows_of_fastapi_users() -> dict[str, str]:
    """Return the answers of fastapi-users."""
    found: dict[str, Any] = {}
    ada = {"email": "ada@shop.example", "password": PASSWORD}
    form = {"username": ada["email"], "password": PASSWORD}
    with fastapi_users_application() as (client, mailed):
        post = client.post
        found["register"] = post("/auth/register", json=ada)
        found["register an address that has an account"] = post("/auth/register", json=ada)
        found["register with a short password"] = post(
            "/auth/register", json={"email": "b@shop.example", "password": "x"}
        )
        found["log in before the address is verified"] = post("/auth/jwt/login", data=form)
        found["ask for the message again"] = post("/auth/request-verify-token", json={"email": ada["email"]})
        token = {"token": mailed[ada["email"]]}
        found["verify"] = post("/auth/verify", json=token)
        found["verify a second time"] = post("/auth/verify", json=token)
        found["log in"] = logged_in = post("/auth/jwt/login", data=form)
        found["log in with a wrong password"] = post("/auth/jwt/login", data={**form, "password": "wrong"})
        wrong = {"username": "eve@shop.example", "password": "wrong"}
        found["the sixth wrong password"] = [post("/auth/jwt/login", data=wrong) for _ in range(6)][-1]
        found["read the account"] = client.get("/users/me", **bearer(logged_in))
        found["read it anonymously"] = client.get("/users/me")
        found["forgot, of an unknown address"] = post("/auth/forgot-password", json={"email": "nobody@shop.example"})
        found["forgot"] = post("/auth/forgot-password", json={"email": ada["email"]})
        reset = {"token": mailed[ada["email"]], "password": NEXT}
        found["reset"] = post("/auth/reset-password", json=reset)
        found["reset a second time"] = post("/auth/reset-password", json=reset)
        found["a token of before the reset"] = client.get("/users/me", **bearer(logged_in))
        logged_in = post("/auth/jwt/login", data={**form, "password": NEXT})
        change = {"password": PASSWORD}
        found["change the password, without the current one"] = client.patch(
            "/users/me", json=change, **bearer(logged_in)
        )
        found["change the password"] = client.patch("/users/me", json={"password": NEXT}, **bearer(logged_in))
        address = {"email": "ada.l@shop.example"}
        found["change the address"] = client.patch("/users/me", json=address, **bearer(logged_in))
        moved = client.get("/users/me", **bearer(logged_in)).json()["email"] == address["email"]
        found["it is changed at once"] = "yes" if moved else "no"
        found["sign in with a provider"] = begun = client.get("/auth/acme/authorize")
        found["come back from it"] = _back(client, "/auth/acme", begun, "grace@shop.example")
        begun = client.get("/auth/acme/authorize")
        found["come back with the address of an account"] = _back(client, "/auth/acme", begun, address["email"])
        begun = client.get("/auth/acme/authorize")
        client.cookies.clear()
        found["come back to another browser"] = _back(client, "/auth/acme", begun, "eve@shop.example")
        found["associate, and come back"] = _back(
            client,
            "/auth/associate/acme",
            client.get("/auth/associate/acme/authorize", **bearer(logged_in)),
            "ada at acme",
            **bearer(logged_in),
        )
        found["delete the account"] = client.delete("/users/me", **bearer(logged_in))
        found["log out"] = post("/auth/jwt/logout", **bearer(logged_in))
        found["a token of before the logout"] = client.get("/users/me", **bearer(logged_in))
    return {flow: given if isinstance(given, str) else answer(given) for flow, given in found.items()}


def _back(client: TestClient, path: str, begun: Any, code: str, **arguments: Any) -> Any:
    state = parse_qs(urlsplit(begun.json()["authorization_url"]).query)["state"][0]
    return client.get(f"{path}/callback", params={"code": code, "state": state}, **arguments)


def flows_of_ours() -> dict[str, str]:
    """Return the answers of this package."""
    found: dict[str, Any] = {}
    ours = Ours()
    ada = {"email": "ada@shop.example", "password": PASSWORD}
    login = {"username": ada["email"], "password": PASSWORD}
    with TestClient(ours.app, base_url=SITE, follow_redirects=False) as client:
        post = client.post
        found["register"] = post("/register", json=ada)
        found["register with a short password"] = post("/register", json={"email": "b@shop.example", "password": "x"})
        found["log in before the address is verified"] = post("/login", json=login)
        found["ask for the message again"] = post("/verify/resend", json={"email": ada["email"]})
        token = {"token": ours.mailed(client)}
        found["verify"] = post("/verify", json=token)
        found["verify a second time"] = post("/verify", json=token)
        found["register an address that has an account"] = post("/register", json=ada)
        found["log in"] = logged_in = post("/login", json=login)
        found["log in with a wrong password"] = post("/login", json={**login, "password": "wrong"})
        wrong = {"username": "eve@shop.example", "password": "wrong"}
        found["the sixth wrong password"] = [post("/login", json=wrong) for _ in range(6)][-1]
        found["read the account"] = client.get("/account", **bearer(logged_in))
        found["read it anonymously"] = client.get("/account")
        found["forgot, of an unknown address"] = post("/forgot", json={"email": "nobody@shop.example"})
        found["forgot"] = post("/forgot", json={"email": ada["email"]})
        reset = {"token": ours.mailed(client), "password": NEXT}
        found["reset"] = post("/reset", json=reset)
        found["reset a second time"] = post("/reset", json=reset)
        found["a token of before the reset"] = client.get("/account", **bearer(logged_in))
        logged_in = post("/login", json={**login, "password": NEXT})
        change: dict[str, str] = {"password": PASSWORD}
        found["change the password, without the current one"] = post(
            "/account/password", json=change, **bearer(logged_in)
        )
        change |= {"current_password": NEXT}
        found["change the password"] = post("/account/password", json=change, **bearer(logged_in))
        logged_in = post("/login", json=login)
        address = {"email": "ada.l@shop.example"}
        found["change the address"] = post(
            "/account/address", json={**address, "password": PASSWORD}, **bearer(logged_in)
        )
        moved = client.get("/account", **bearer(logged_in)).json()["email"] == address["email"]
        found["it is changed at once"] = "yes" if moved else "no"
        found |= _sign_ins(client, ours, ada["email"])
        found["log out"] = post("/logout", **bearer(logged_in))
        found["a token of before the logout"] = client.get("/account", **bearer(logged_in))
        logged_in = post("/login", json=login)
        found["delete the account"] = post("/account/delete", json={"password": PASSWORD}, **bearer(logged_in))
    return {flow: given if isinstance(given, str) else answer(given) for flow, given in found.items()}


def _sign_ins(client: TestClient, ours: Ours, taken: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    found["sign in with a provider"] = client.get("/providers/acme")
    grace = {"email": "grace@shop.example", "email_verified": True}
    found["come back from it"] = client.get(_sent_back(ours, found["sign in with a provider"], "grace", **grace))
    begun = client.post("/identities/acme/start")
    found["associate, and come back"] = client.get(
        ours.issuer.authorize(begun.json()["authorization_url"], sub="grace at work")
    )
    client.cookies.clear()
    sent_back = _sent_back(ours, client.get("/providers/acme"), "other", email=taken, email_verified=True)
    found["come back with the address of an account"] = client.get(sent_back)
    begun = client.get("/providers/acme")
    client.cookies.clear()
    found["come back to another browser"] = client.get(_sent_back(ours, begun, "eve"))
    return found


def _sent_back(ours: Ours, begun: Any, sub: str, **claims: Any) -> str:
    return ours.issuer.authorize(begun.headers["location"], sub=sub, **claims)
