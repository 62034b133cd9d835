"""Attacks on a whole application: refused by applications of this package, and found in one that is broken."""

from dataclasses import replace
from urllib.parse import urlsplit

import pytest
from fastapi import FastAPI, Request, Response
from fastapi.responses import RedirectResponse
from fastapi.testclient import TestClient
from starlette.middleware.base import RequestResponseEndpoint

from fastapi_guard.routers.login_pages import LoginPages
from fastapi_guard.testing.site import Site, SiteAttack
from fastapi_guard.testing.site_attacks import site_attacks
from support.attacked import attacked
from support.clock import Clock
from testing.test_broken_sites import BROKEN

# Kinds of which each application below has what they need.
BOTH = ("login", "factors", "resets", "mail", "account", "rights", "keys", "issuers", "connections", "batch")
SESSIONS = (*BOTH, "provider", "identities", "takeover", "tickets", "mounts")
UNCHECKED = [attack for attack in site_attacks() if attack.name not in BROKEN and attack.kind != "mcp"]
# The others need no part of the application, or report what is not refused alone.
WORKING = [attack for attack in site_attacks() if attack.kind not in ("login", "mounts")]


@pytest.mark.parametrize("attack", site_attacks(*SESSIONS), ids=str)
def test_sessions_withstand(attack: SiteAttack, clock: Clock) -> None:
    """No attack has success on an application with sessions."""
    with attacked(attack, clock) as application:
        attack.on(application.site())


@pytest.mark.parametrize("attack", site_attacks("tokens", *BOTH), ids=str)
def test_tokens_withstand(attack: SiteAttack, clock: Clock) -> None:
    """No attack has success on an application with tokens."""
    with attacked(attack, clock, tokens=True) as application:
        attack.on(application.site())


@pytest.mark.parametrize("attack", site_attacks("tokens", "mail"), ids=str)
def test_a_refresh_cookie_withstands(attack: SiteAttack, clock: Clock) -> None:
    """No attack on tokens has success where the refresh token is in a cookie."""
    with attacked(attack, clock, tokens=True, refresh_cookie=True) as application:
        attack.on(application.site())


def test_a_form_of_a_page(clock: Clock) -> None:
    """A form of another site's page may be redirected to the page of the login: it sets no cookie."""
    [attack] = [attack for attack in site_attacks("login") if "login CSRF" in attack.name]
    with attacked(attack, clock, pages=LoginPages()) as application:
        attack.on(application.site())


@pytest.mark.parametrize("attack", site_attacks("takeover"), ids=str)
def test_users_without_addresses_withstand(attack: SiteAttack, clock: Clock) -> None:
    """No attack on an address has success where users have the addresses alone that a provider vouches for."""
    with attacked(attack, clock, keeps_addresses=False) as application:
        attack.on(application.site())


@pytest.mark.parametrize("attack", site_attacks("keys"), ids=str)
def test_keys_without_another_issuer(attack: SiteAttack, clock: Clock) -> None:
    """An attack on keys needs no other issuer."""
    with attacked(attack, clock) as application:
        attack.on(replace(application.site(), foreign=None))


def test_a_cookie_of_another_kind(clock: Clock) -> None:
    """A cookie without which the login is valid may be there twice, and under another name."""
    [attack] = [attack for attack in site_attacks("login") if "plant a cookie" in attack.name]
    with attacked(attack, clock) as application:

        @application.app.middleware("http")
        async def with_theme(request: Request, call_next: RequestResponseEndpoint) -> Response:
            response = await call_next(request)
            response.set_cookie("theme", "dark")
            return response

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
        agree_as=lambda url, _: f"/back?{urlsplit(url).query}",
        logout_token=lambda: "a token",
        foreign=lambda: "a token",
        ticket=lambda: "/files/1?ticket=x",
        late_ticket=lambda: "/files/1?ticket=x",
        connection="/live",
        demote=lambda: None,
        batch=lambda headers: [404 for _ in headers],
        forbidden="/admin",
        keys="/api-keys",
        mcp="/mcp",
        other=("grace", "right"),
        mounts=("/mounted",),
    )


@pytest.mark.parametrize("attack", UNCHECKED, ids=str)
def test_a_broken_application_is_found(attack: SiteAttack) -> None:
    """Each attack has success on an application without checks."""
    with pytest.raises(AssertionError, match=r".{10}"):
        attack.on(site_of(broken()))


@pytest.mark.parametrize("attack", WORKING, ids=str)
def test_an_application_that_refuses_everything(attack: SiteAttack) -> None:
    """An application in which nothing works does not pass, and neither does a test without what the attack needs."""
    refusing = FastAPI()
    refusing.state.mailed = "attacker.example"
    with pytest.raises(AssertionError):
        attack.on(site_of(refusing))


@pytest.mark.parametrize(
    ("kind", "part"),
    [
        ("tickets", "ticket"),
        ("connections", "connection"),
        ("batch", "batch"),
        ("mcp", "mcp"),
        ("keys", "keys"),
        ("rights", "forbidden"),
        ("identities", "agree"),
        ("mail", "(address|mailed)"),
        ("mounts", "mounts"),
    ],
)
def test_a_site_without_a_part(kind: str, part: str) -> None:
    """An attack on a part that the site does not have names the argument."""
    site = Site(
        client=lambda: TestClient(broken(), follow_redirects=False),
        username="ada",
        password="analytical engine",
        sign_in="/sign-in",
    )
    for attack in site_attacks(kind):
        with pytest.raises(AssertionError, match=rf"this attack needs Site\({part}=\.\.\.\)"):
            attack.on(site)


def test_a_site_without_a_user() -> None:
    """An attack on the login needs the name of a user."""
    [attack, *_] = site_attacks("login")
    with pytest.raises(AssertionError, match=r"this attack needs Site\(username=\.\.\.\)"):
        attack.on(Site(client=lambda: TestClient(broken(), follow_redirects=False)))


def test_a_site_without_links() -> None:
    """The attack by a link names the path that it needs."""
    [attack] = [attack for attack in site_attacks("takeover") if "logged out" in attack.name]
    with pytest.raises(AssertionError, match=r"this attack needs Site\(link=\.\.\.\)"):
        attack.on(site_of(broken()))


def test_kinds() -> None:
    """Attacks are chosen by their kinds; one that does not exist is an error."""
    assert {attack.kind for attack in site_attacks("mail", "tickets")} == {"mail", "tickets"}
    assert str(site_attacks("mounts")[0]) == "mounts: reach what is below a mount without a credential"
    assert len(site_attacks()) == len({attack.name for attack in site_attacks()}) > 40
    with pytest.raises(ValueError, match=r"no attacks of the kinds mails; there are account, batch, connections,"):
        site_attacks("mails")
