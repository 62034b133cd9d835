"""An application of this package with everything that `testing.site_attacks` attacks."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import FastAPI, Request, Response, WebSocket
from fastapi.testclient import TestClient
from joserfc import jwk
from sqlalchemy import create_engine
from sqlalchemy.orm import sessionmaker
from sqlalchemy.pool import StaticPool
from starlette.requests import HTTPConnection

from fastapi_guard import AnyAuth, Claims, JWTAuth, JWTConfig
from fastapi_guard.api_key.database import DatabaseAPIKeyAuth
from fastapi_guard.api_key.models import Base
from fastapi_guard.app import expires_with
from fastapi_guard.app.asgi import guarded
from fastapi_guard.app.tickets import TicketAuth
from fastapi_guard.issuers import OIDCAuth
from fastapi_guard.login.accounts import Accounts
from fastapi_guard.login.providers import Identity, ProviderLogout
from fastapi_guard.login.refresh import RefreshTokens
from fastapi_guard.login.revocation import Revocations
from fastapi_guard.login.session import SessionAuth
from fastapi_guard.login.tokens import TokenPairs
from fastapi_guard.login.totp import TOTP
from fastapi_guard.login.users import User
from fastapi_guard.routers.accounts import accounts_router
from fastapi_guard.routers.api_keys import api_keys_router
from fastapi_guard.routers.factors import factors_router
from fastapi_guard.routers.login import login_router
from fastapi_guard.routers.login_pages import LoginPages
from fastapi_guard.routers.providers import providers_router
from fastapi_guard.routers.sessions import session_router
from fastapi_guard.routers.tickets import tickets_router
from fastapi_guard.stores import MemoryStore
from fastapi_guard.testing.issuer import FakeIssuer
from fastapi_guard.testing.site import Site, SiteAttack
from support.asgi import call_scope
from support.clock import Clock
from support.factors import KEY
from support.login import PASSWORD
from support.providers import Shop

ORIGIN = "https://shop.example"
# Kinds of attacks on a user who has a second factor.
ENROLLED = ("factors", "resets", "identities")
EVENTS = {"http://schemas.openid.net/event/backchannel-logout": {}}
# How often open connections are checked, and how long one that is not may last, in seconds.
OFTEN, LONG_ENOUGH = 0.01, 30.0


class Application:
    """An application of this package with everything that is attacked.

    Attributes:
        clock: Seconds since the epoch.
        shop: Its Login and its provider.
        app: The application.
        auth: Verifies its own sessions or tokens.
        any: Verifies those and the tokens of another issuer.
        roles: The roles of the user, read at each request.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        tokens: bool = False,
        refresh_cookie: bool = False,
        pages: LoginPages | None = None,
        keeps_addresses: bool = True,
    ) -> None:
        """Build it, with sessions or with tokens, where new users may have addresses that no provider vouches for."""
        self.clock, self.store = clock, MemoryStore(clock=clock)
        factors = [TOTP(key=KEY, issuer="Shop")]
        new_user = _user_of if keeps_addresses else None
        self.shop = Shop(self.store, clock, second=factors, provider={"vouches": True}, new_user=new_user)
        self.login = self.shop.house.login
        self.app = FastAPI()
        self.roles = ["editor"]
        self.provider_sessions = 0
        self.foreign = FakeIssuer("https://other.example", clock=clock)
        self.auth: Any = self.add_tokens(refresh_cookie=refresh_cookie) if tokens else self.add_sessions(pages)
        other = OIDCAuth(self.foreign.url, "https://api.example", client=self.foreign.client, clock=clock)
        self.any = AnyAuth(self.auth, other)
        self.tickets = TicketAuth(self.store, self.auth, clock=clock)
        self.app.include_router(accounts_router(Accounts(self.login, key=KEY, pages=ORIGIN), self.any))
        self.app.include_router(factors_router(self.login, self.any))
        self.app.include_router(tickets_router(self.tickets))
        self.app.include_router(api_keys_router(self.keys(), auth=self.any))
        self.app.mount("/inside", guarded(Response("inside"), self.auth.authenticated()))
        self.add_routes()

    def add_sessions(self, pages: LoginPages | None) -> SessionAuth:
        """Serve logins that lead to sessions."""
        application = self

        class Sessions(SessionAuth):
            """Sessions whose roles are read at each request."""

            async def verify_request(self, connection: HTTPConnection, raw: str) -> Claims:
                """Read the roles."""
                return {**await super().verify_request(connection, raw), "roles": [*application.roles]}

        sessions = Sessions(self.store, clock=self.clock)
        logout = ProviderLogout(self.shop.sign_in, sessions)
        self.app.include_router(session_router(sessions, self.login, pages=pages))
        self.app.include_router(providers_router(self.shop.sign_in, sessions, logout=logout))
        return sessions

    def add_tokens(self, *, refresh_cookie: bool) -> JWTAuth:
        """Serve logins that lead to tokens."""
        application = self

        class Tokens(JWTAuth):
            """Tokens whose roles are read at each request."""

            async def verify_request(self, connection: HTTPConnection, raw: str) -> Claims:
                """Read the roles."""
                return {**await super().verify_request(connection, raw), "roles": [*application.roles]}

        config = JWTConfig(key=jwk.OctKey.generate_key(256), issuer_url=ORIGIN)
        tokens = Tokens(config, revocations=Revocations(self.store, clock=self.clock), clock=self.clock)
        pairs = TokenPairs(tokens, RefreshTokens(self.store, clock=self.clock), login=self.login)
        self.app.include_router(login_router(pairs, refresh_cookie=refresh_cookie))
        return tokens

    def keys(self) -> DatabaseAPIKeyAuth:
        """Return API keys in a database in memory."""
        self.engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
        return DatabaseAPIKeyAuth(sessionmaker(self.engine), clock=self.clock)

    def add_routes(self) -> None:
        """Add the routes of the application itself."""

        @self.app.get("/me")
        async def me(claims: Annotated[Claims, self.any.authenticated()]) -> Any:
            return claims["sub"]

        @self.app.get("/admin", dependencies=[self.any.requires("admin:all")])
        async def admin() -> None: ...

        @self.app.get("/files/1")
        async def file(claims: Annotated[Claims, self.tickets.authenticated()]) -> Any:
            return claims["sub"]

        @self.app.websocket("/live")
        async def live(websocket: WebSocket, claims: Annotated[Claims, self.auth.requires_role("editor")]) -> None:
            await websocket.accept()
            async with expires_with(websocket, claims, every=OFTEN, clock=self.clock):
                async for text in websocket.iter_text():
                    await websocket.send_text(text)

        @self.app.post("/batch")
        async def batch(request: Request, _: Annotated[Claims, self.any.authenticated()]) -> list[int]:
            statuses = []
            for headers in await request.json():
                raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
                scope = {**request.scope, "path": "/me", "raw_path": b"/me", "method": "GET", "headers": raw}
                statuses.append((await call_scope(self.app, scope)).status)
            return statuses

    def client(self) -> TestClient:
        """Return a new client."""
        return TestClient(self.app, base_url=ORIGIN, follow_redirects=False, raise_server_exceptions=False)

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return the result of a coroutine function, on a loop of its own."""
        with self.client() as client:
            assert client.portal is not None
            return client.portal.call(function, *arguments)

    def enrol(self) -> None:
        """Enrol the second factor."""
        self.call(self.shop.house.enrol, "totp")

    def code(self) -> str:
        """Return another code of the second factor."""
        self.clock.move(60)
        return self.shop.house.code()

    def mailed(self) -> str:
        """Return the secret of the newest message."""
        self.call(self.shop.house.outbox.drain)
        links = [str(message.link) for message in self.shop.house.messages if message.link is not None]
        return links[-1].partition("token=")[2] if links else ""

    def agree(self, url: str) -> str:
        """Return where the provider sends the browser back to."""
        self.provider_sessions += 1
        return self._back(url, sub="u-1", email="ada@example.com", email_verified=True)

    def agree_as(self, url: str, verified: bool) -> str:
        """Return it for a user with an address that is new here, or for an attacker who claims to have it."""
        sub = "owner" if verified else "attacker"
        return self._back(url, sub=sub, email="owner@example.com", email_verified=verified)

    def _back(self, url: str, **claims: Any) -> str:
        target = urlsplit(self.shop.issuer.authorize(url, sid=f"s-{self.provider_sessions}", **claims))
        return f"{target.path}?{target.query}"

    def logout_token(self) -> str:
        """Return a logout token for the last session at the provider."""
        session = f"s-{self.provider_sessions}"
        claims: dict[str, Any] = {"aud": "shop", "events": EVENTS, "jti": f"of-{session}", "sid": session}
        header = {"typ": "logout+jwt"}
        return self.shop.issuer.id_token("u-1", header=header, nonce=None, at_hash=None, **claims)

    def foreign_token(self) -> str:
        """Return a token of the other issuer with the subject of the user, who logged in there."""
        return self.foreign.token("ada", auth_time=int(self.clock()))

    def ticket(self, *, late: bool = False) -> str:
        """Return a request with a ticket, after a logout where it is late."""
        client = self.client()
        client.post("/login", json={"username": "ada", "password": PASSWORD})
        made = client.post("/tickets", json={"path": "/files/1"}, headers={"Sec-Fetch-Site": "same-origin"})
        if late:
            client.post("/logout")
        return f"/files/1?ticket={made.json()['ticket']}"

    def batch(self, headers: Sequence[Mapping[str, str]]) -> list[int]:
        """Return the statuses of a batch."""
        client = self.client()
        answer = client.post("/login", json={"username": "ada", "password": PASSWORD})
        bearer = {"Authorization": f"Bearer {answer.json()['access_token']}"} if answer.content else {}
        statuses: list[int] = client.post("/batch", json=[*headers], headers=bearer).json()
        return statuses

    def site(self) -> Site:
        """Return the site that is attacked."""
        return Site(
            client=self.client,
            forbidden="/admin",
            username="ada",
            password=PASSWORD,
            account="/me",
            code=self.code,
            address="ada@example.com",
            mailed=self.mailed,
            sign_in="/providers/acme",
            agree=self.agree,
            agree_as=self.agree_as,
            link="/identities/acme/start",
            logout_token=self.logout_token,
            provider_logout="/providers/acme/logout",
            foreign=self.foreign_token,
            own=("/account", "/factors"),
            keys="/api-keys",
            ticket=self.ticket,
            late_ticket=lambda: self.ticket(late=True),
            connection="wss://shop.example/live",
            connection_seconds=LONG_ENOUGH,
            demote=self.roles.clear,
            batch=self.batch,
            other=("bob", PASSWORD),
            sessions="/devices" if isinstance(self.auth, JWTAuth) else "/sessions",
            mounts=("/inside",),
        )


@contextmanager
def attacked(attack: SiteAttack, clock: Clock, **options: Any) -> Iterator[Application]:
    """Yield an application with a user as an attack needs it."""
    application = Application(clock, **options)
    if attack.kind in ENROLLED:
        application.enrol()
    if attack.kind == "keys":
        Base.metadata.create_all(application.engine)
    yield application
    application.engine.dispose()


def _user_of(identity: Identity) -> User:
    # With the address, whether or not the provider vouches for it.
    return User(subject_id=f"user-{identity.subject}", username=f"user-{identity.subject}", email=identity.email)
