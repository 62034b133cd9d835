"""Attacks on a whole application: refused by applications of this package, and found in one that is broken."""

from collections.abc import Callable
from typing import Annotated, Any
from urllib.parse import urlsplit

import pytest
from fastapi import FastAPI, Request, Response
from fastapi.responses import RedirectResponse
from fastapi.testclient import TestClient
from joserfc import jwk

from fastapi_guard import Claims, JWTAuth, JWTConfig
from fastapi_guard.app.asgi import guarded
from fastapi_guard.app.tickets import TicketAuth
from fastapi_guard.login.accounts import Accounts
from fastapi_guard.login.refresh import RefreshTokens
from fastapi_guard.login.session import SessionAuth
from fastapi_guard.login.tokens import TokenPairs
from fastapi_guard.login.totp import TOTP
from fastapi_guard.routers.accounts import accounts_router
from fastapi_guard.routers.login import login_router
from fastapi_guard.routers.providers import providers_router
from fastapi_guard.routers.sessions import session_router
from fastapi_guard.routers.tickets import tickets_router
from fastapi_guard.stores import MemoryStore
from fastapi_guard.testing.site import Site, SiteAttack
from fastapi_guard.testing.site_attacks import site_attacks
from support.clock import Clock
from support.factors import KEY
from support.login import PASSWORD
from support.providers import Shop

ORIGIN = "https://shop.example"


class Application:
    """An application of this package with everything that is attacked."""

    def __init__(self, clock: Clock, *, tokens: bool = False) -> None:
        """Build it, with sessions or with tokens."""
        self.clock, self.store = clock, MemoryStore(clock=clock)
        self.shop = Shop(self.store, clock, second=[TOTP(key=KEY, issuer="Shop")], provider={"vouches": True})
        self.login = self.shop.house.login
        self.app = FastAPI()
        self.auth = self.add_tokens() if tokens else self.add_sessions()
        tickets = TicketAuth(self.store, self.auth, clock=clock)
        self.app.include_router(tickets_router(tickets))
        self.app.mount("/inside", guarded(Response("inside"), self.auth.authenticated()))

        @self.app.get("/me")
        async def me(claims: Annotated[Claims, self.auth.authenticated()]) -> Any:
            return claims["sub"]

        @self.app.get("/files/1")
        async def file(claims: Annotated[Claims, tickets.authenticated()]) -> Any:
            return claims["sub"]

    def add_sessions(self) -> Any:
        """Serve logins that lead to sessions."""
        sessions = SessionAuth(self.store, clock=self.clock)
        self.app.include_router(session_router(sessions, self.login))
        self.app.include_router(providers_router(self.shop.sign_in, sessions))
        self.app.include_router(accounts_router(Accounts(self.login, key=KEY, pages=ORIGIN), sessions))
        return sessions

    def add_tokens(self) -> Any:
        """Serve logins that lead to tokens."""
        jwt = JWTAuth(JWTConfig(key=jwk.OctKey.generate_key(256)), clock=self.clock)
        pairs = TokenPairs(jwt, RefreshTokens(self.store, clock=self.clock), login=self.login)
        self.app.include_router(login_router(pairs))
        return jwt

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
        return str(self.shop.house.messages[-1].link).partition("token=")[2]

    def agree(self, url: str) -> str:
        """Return where the provider sends the browser back to."""
        target = urlsplit(self.shop.issuer.authorize(url, sub="u-1", email="ada@example.com", email_verified=True))
        return f"{target.path}?{target.query}"

    def ticket(self) -> str:
        """Return a request with a ticket."""
        client = self.client()
        client.post("/login", json={"username": "ada", "password": PASSWORD})
        made = client.post("/tickets", json={"path": "/files/1"}, headers={"Sec-Fetch-Site": "same-origin"})
        return f"/files/1?ticket={made.json()['ticket']}"

    def site(self) -> Site:
        """Return the site that is attacked."""
        return Site(
            client=self.client,
            username="ada",
            password=PASSWORD,
            code=self.code,
            address="ada@example.com",
            mailed=self.mailed,
            sign_in="/providers/acme",
            agree=self.agree,
            ticket=self.ticket,
            mounts=("/inside",),
        )


@pytest.mark.parametrize("attack", site_attacks(), ids=str)
def test_sessions_withstand(attack: SiteAttack, clock: Clock) -> None:
    """No attack has success on an application with sessions."""
    application = Application(clock)
    if attack.kind == "factors":
        application.enrol()
    attack.on(application.site())


@pytest.mark.parametrize("attack", site_attacks("login", "factors"), ids=str)
def test_tokens_withstand(attack: SiteAttack, clock: Clock) -> None:
    """No attack has success on an application with tokens."""
    application = Application(clock, tokens=True)
    if attack.kind == "factors":
        application.enrol()
    attack.on(application.site())


def broken() -> FastAPI:
    """Return an application that checks no password, code, secret, state or ticket, and guards no mount."""
    app = FastAPI()
    app.state.mailed = ""

    @app.post("/login")
    async def log_in(request: Request, response: Response) -> dict[str, str]:
        response.set_cookie("session", request.cookies.get("session", "ada"))
        return {"pending": "ada"}

    @app.post("/login/totp")
    async def second(response: Response) -> None:
        response.set_cookie("session", "ada")

    @app.get("/me")
    async def me() -> None: ...

    @app.post("/forgot")
    async def forgot(request: Request) -> str:
        app.state.mailed = f"https://{request.headers['host']}/reset#token"
        return str((await request.json())["username"])

    @app.post("/reset")
    @app.get("/reset")
    @app.get("/files/1")
    @app.post("/mounted")
    async def anything() -> None: ...

    @app.get("/sign-in")
    async def begin(next: str = "/") -> Response:  # noqa: A002 - as in the package
        return RedirectResponse(f"https://provider.example/?state={'x' * 22}&code_challenge_method=S256&next={next}")

    @app.get("/back")
    async def back(next: str = "/") -> Response:  # noqa: A002 - as in the package
        response = RedirectResponse(next)
        response.set_cookie("session", "ada")
        return response

    return app


def site_of(app: FastAPI) -> Site:
    """Return the site of a broken application."""
    return Site(
        client=lambda: TestClient(app, base_url="https://shop.example", follow_redirects=False),
        username="ada",
        password="right",
        code=lambda: "123456",
        mailed=lambda: str(app.state.mailed),
        sign_in="/sign-in",
        agree=lambda url: f"/back?{urlsplit(url).query}",
        ticket=lambda: "/files/1?ticket=x",
        mounts=("/mounted",),
    )


@pytest.mark.parametrize("attack", site_attacks(), ids=str)
def test_a_broken_application_is_found(attack: SiteAttack) -> None:
    """Each attack has success on an application without checks."""
    with pytest.raises(AssertionError, match=r".{10}"):
        attack.on(site_of(broken()))


@pytest.mark.parametrize("attack", site_attacks("factors", "mail", "provider", "tickets"), ids=str)
def test_an_application_that_refuses_everything(attack: SiteAttack) -> None:
    """An application in which nothing works does not pass, and neither does a test without what the attack needs."""
    refusing = FastAPI()
    refusing.state.mailed = "attacker.example"
    with pytest.raises(AssertionError):
        attack.on(site_of(refusing))


def test_a_site_without_a_part() -> None:
    """An attack on a part that the site does not have names the argument."""
    site = Site(client=lambda: TestClient(broken(), follow_redirects=False))
    (attack,) = site_attacks("tickets")
    with pytest.raises(AssertionError, match=r"this attack needs Site\(ticket=\.\.\.\)"):
        attack.on(site)


def test_kinds() -> None:
    """Attacks are chosen by their kinds; one that does not exist is an error."""
    assert {attack.kind for attack in site_attacks("mail", "tickets")} == {"mail", "tickets"}
    assert str(site_attacks("mounts")[0]) == "mounts: reach what is below a mount without a credential"
    assert len(site_attacks()) == len({str(attack) for attack in site_attacks()}) > 14
    with pytest.raises(ValueError, match=r"no attacks of the kinds mails; there are factors, login, mail,"):
        site_attacks("mails")
