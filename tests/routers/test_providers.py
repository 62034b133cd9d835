"""The routes of a sign-in with a provider: for pages, for an SPA, and for linked identities."""

from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
from fastapi import FastAPI, Request, Response
from fastapi.testclient import TestClient
from joserfc import jwk

from fastapi_guard import ConfigurationError, JWTAuth, JWTConfig
from fastapi_guard.login.local import LocalAuth
from fastapi_guard.login.providers import ProviderLogout
from fastapi_guard.login.refresh import RefreshTokens
from fastapi_guard.login.revocation import Revocations
from fastapi_guard.login.session import SessionAuth
from fastapi_guard.login.tokens import TokenPairs
from fastapi_guard.login.users import User
from fastapi_guard.routers.login import login_router
from fastapi_guard.routers.login_pages import LoginPages
from fastapi_guard.routers.providers import providers_router
from fastapi_guard.routers.sessions import session_router
from fastapi_guard.stores import MemoryStore
from support.clock import Clock
from support.login import PASSWORD
from support.logins import House
from support.providers import Shop, parameters_of

CALLBACK = "https://shop.example/providers/acme/callback"
FETCHED = {"Sec-Fetch-Site": "same-origin"}


class Site:
    """An application with sessions, or with tokens, whose users sign in with a provider."""

    def __init__(self, clock: Clock, *, second: bool = False, tokens: bool = False) -> None:
        """Build the application."""
        store = MemoryStore(clock=clock)
        kinds: Any = House(MemoryStore(clock=clock), clock).kinds() if second else None
        self.shop = Shop(store, clock, second=kinds, provider={"vouches": True})
        self.sessions = SessionAuth(store, clock=clock)
        app = FastAPI()
        if tokens:
            key = jwk.OctKey.generate_key(256)
            jwt = JWTAuth(JWTConfig(key=key), clock=clock)
            pairs = TokenPairs(jwt, RefreshTokens(store, clock=clock), login=self.shop.house.login)
            app.include_router(providers_router(self.shop.sign_in, pairs))
        else:
            logout = ProviderLogout(self.shop.sign_in, self.sessions)
            app.include_router(session_router(self.sessions, self.shop.house.login))
            app.include_router(providers_router(self.shop.sign_in, self.sessions, logout=logout))
        self.app = app
        self.client = TestClient(app, base_url="https://shop.example", follow_redirects=False)

    def back(self, url: str, **claims: Any) -> str:
        """Return where the provider sends the browser back, from the URL of an authorization request."""
        target = urlsplit(self.shop.issuer.authorize(url, **claims))
        return f"{target.path}?{target.query}"

    def sign_in(self, *, next: str | None = None, **claims: Any) -> httpx2.Response:  # noqa: A002 - of the route
        """Sign in as the browser does."""
        begun = self.client.get("/providers/acme", params={} if next is None else {"next": next})
        assert (begun.status_code, begun.headers["cache-control"]) == (303, "no-store")
        return self.client.get(self.back(begun.headers["location"], **claims))


@pytest.fixture
def site(clock: Clock) -> Site:
    """Return an application with sessions."""
    return Site(clock)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (None, "/"),
        ("/orders?page=2", "/orders?page=2"),
        ("//evil.example", "/"),
        ("/\\evil.example", "/"),
        ("https://evil.example", "/"),
        ("/%2f/evil", "/%2f/evil"),
        ("https://shop.example@evil.example", "/"),
    ],
)
def test_from_click_to_session(site: Site, target: str | None, expected: str) -> None:
    """A browser that comes back has a session, and goes on to a path of the application alone."""
    answer = site.sign_in(next=target, sub="u-1")
    assert (answer.status_code, answer.headers["location"]) == (303, expected)
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert len(site.client.get("/sessions").json()) == 1


def test_a_second_step(clock: Clock) -> None:
    """With an enrolled second factor the browser goes to its page with a pending login."""
    site = Site(clock, second=True)
    ada = site.client.portal
    assert ada is None
    with site.client as client:
        portal: Any = client.portal
        user = portal.call(site.shop.house.users.by_subject, "ada")
        enrol = site.shop.house.login.enrolments.begin
        portal.call(lambda: enrol("recovery", user, {}, binding="b"))
        answer = site.sign_in(next="/orders", sub="u-1", email="ada@example.com", email_verified=True)
        assert answer.headers["location"] == "/login/second?next=/orders"
        assert "__Host-pending" in answer.headers["set-cookie"]
        assert client.get("/sessions").status_code == 401


@pytest.mark.parametrize(
    ("claims", "changed", "code"),
    [
        ({"sub": "u-1"}, {"state": "x"}, "expired"),
        ({"sub": "u-1", "nonce": "x"}, {}, "provider"),
        ({"sub": "u-1"}, {"error": "<b>a text of the provider</b>"}, "provider"),
    ],
)
def test_failures_are_codes(site: Site, claims: dict[str, Any], changed: dict[str, str], code: str) -> None:
    """A page learns a constant code, and nothing that the provider said."""
    begun = site.client.get("/providers/acme").headers["location"]
    parameters = {**parameters_of(site.shop.issuer.authorize(begun, **claims)), **changed}
    answer = site.client.get("/providers/acme/callback", params=parameters)
    assert answer.headers["location"] == f"/login?error={code}"


def test_a_name_that_is_taken(clock: Clock) -> None:
    """A new user with the name of another one logs in to that account first, as with its address."""
    shop = Shop(MemoryStore(clock=clock), clock, new_user=lambda identity: User(subject_id="new", username="ada"))
    app = FastAPI()
    app.include_router(providers_router(shop.sign_in, SessionAuth(MemoryStore(clock=clock), clock=clock)))
    client = TestClient(app, base_url="https://shop.example", follow_redirects=False)
    begun = client.get("/providers/acme").headers["location"]
    parameters = parameters_of(shop.issuer.authorize(begun, sub="u-1"))
    answer = client.get("/providers/acme/callback", params=parameters)
    assert answer.headers["location"] == "/login?error=link_first"


def test_parameters_that_come_twice(site: Site) -> None:
    """A parameter that comes twice is ignored (RFC 6749 3.1)."""
    begun = site.client.get("/providers/acme").headers["location"]
    back = site.back(begun, sub="u-1")
    assert site.client.get(f"{back}&state=x").headers["location"] == "/login?error=expired"
    assert site.client.get(back).headers["location"] == "/"


def test_a_provider_that_is_down(site: Site) -> None:
    """A provider that is unreachable is a code, and a 503 in JSON."""
    with site.shop.issuer.outage():
        assert site.client.get("/providers/acme").headers["location"] == "/login?error=unavailable"
        assert site.client.post("/providers/acme/start", json={}, headers=FETCHED).status_code == 503
    assert site.client.get("/providers/another").headers["location"] == "/login?error=forbidden"


def test_a_form_of_the_provider(site: Site) -> None:
    """The POST of a provider's page, which carries no Lax cookie, goes on as a GET."""
    begun = site.client.get("/providers/acme").headers["location"]
    fields = parameters_of(site.shop.issuer.authorize(begun, sub="u-1"))
    without_cookie = TestClient(site.app, base_url="https://shop.example", follow_redirects=False)
    posted = without_cookie.post("/providers/acme/callback", data={**fields, "user": "{}"})
    assert posted.status_code == 303
    assert site.client.get(posted.headers["location"]).headers["location"] == "/"
    # Bytes that are not UTF-8 cannot be in a URL.
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    posted = without_cookie.post("/providers/acme/callback", content="state=x&code=%FF", headers=form)
    assert (posted.status_code, posted.headers["location"]) == (303, f"{CALLBACK}?state=x&code=%3F")
    # A proxy may have removed a prefix of the path.
    behind = FastAPI()
    behind.mount("/tenants/{tenant}", site.app)
    posted = TestClient(behind, follow_redirects=False).post("/tenants/%09/providers/acme/callback", data={"code": "y"})
    assert posted.headers["location"] == f"{CALLBACK}?code=y"


def test_an_spa(clock: Clock) -> None:
    """An SPA begins and finishes with JSON, and receives tokens."""
    site = Site(clock, tokens=True)
    assert site.client.get("/providers").json() == ["acme"]
    url = site.client.post("/providers/acme/start", json={}).json()["authorization_url"]
    fields = parameters_of(site.shop.issuer.authorize(url, sub="u-1"))
    answer = site.client.post("/providers/acme/finish", json=fields)
    assert set(answer.json()) == {"access_token", "token_type", "expires_in", "refresh_token"}
    assert site.client.post("/providers/acme/finish", json=fields).status_code == 401
    assert site.client.post("/providers/acme/finish", json={}).status_code == 422
    headers = {"Authorization": f"Bearer {answer.json()['access_token']}"}
    assert [found["provider"] for found in site.client.get("/identities", headers=headers).json()] == ["acme"]
    assert site.client.get("/providers/acme/callback").status_code == 404


def test_a_local_auth(clock: Clock) -> None:
    """A LocalAuth's users sign in with a provider too."""
    shop = Shop(MemoryStore(clock=clock), clock)
    auth = LocalAuth(JWTConfig(key=jwk.OctKey.generate_key(256)), shop.house.login, clock=clock)
    app = FastAPI()
    app.include_router(providers_router(shop.sign_in, auth))
    client = TestClient(app, base_url="https://shop.example")
    url = client.post("/providers/acme/start", json={}).json()["authorization_url"]
    fields = parameters_of(shop.issuer.authorize(url, sub="u-1"))
    assert "access_token" in client.post("/providers/acme/finish", json=fields).json()


def test_a_refresh_cookie(clock: Clock) -> None:
    """The refresh token of a sign-in is in the cookie that the login routes read, and not in the answer."""
    shop = Shop(MemoryStore(clock=clock), clock)
    jwt = JWTAuth(JWTConfig(key=jwk.OctKey.generate_key(256)), clock=clock)
    pairs = TokenPairs(jwt, RefreshTokens(MemoryStore(clock=clock), clock=clock), login=shop.house.login)
    app = FastAPI()
    app.include_router(login_router(pairs, refresh_cookie=True))
    app.include_router(providers_router(shop.sign_in, pairs, refresh_cookie=True))
    client = TestClient(app, base_url="https://shop.example")
    url = client.post("/providers/acme/start", json={}).json()["authorization_url"]
    answer = client.post("/providers/acme/finish", json=parameters_of(shop.issuer.authorize(url, sub="u-1")))
    assert set(answer.json()) == {"access_token", "token_type", "expires_in"}
    assert "HttpOnly" in answer.headers["set-cookie"]
    assert "access_token" in client.post("/token/refresh").json()


def test_options_that_would_not_apply(clock: Clock) -> None:
    """Pages for tokens, and a refresh cookie without refresh tokens, are errors when constructed."""
    shop = Shop(MemoryStore(clock=clock), clock)
    pairs = TokenPairs(JWTAuth(JWTConfig(key=jwk.OctKey.generate_key(256))), login=shop.house.login)
    sessions = SessionAuth(MemoryStore(clock=clock), clock=clock)
    with pytest.raises(ConfigurationError, match="leave pages out"):
        providers_router(shop.sign_in, pairs, pages=LoginPages())
    with pytest.raises(ConfigurationError, match="a session has no refresh token"):
        providers_router(shop.sign_in, sessions, refresh_cookie=True)
    with pytest.raises(ConfigurationError, match="needs refresh tokens"):
        providers_router(shop.sign_in, pairs, refresh_cookie=True)
    with pytest.raises(ConfigurationError, match="needs refresh tokens"):
        login_router(pairs, refresh_cookie=True)


def test_another_sites_page(site: Site) -> None:
    """Another site's page begins and finishes nothing."""
    cross = {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}
    for path in ("/providers/acme/start", "/providers/acme/finish"):
        assert site.client.post(path, json={"state": "x"}, headers=cross).status_code == 403


def test_a_second_step_of_an_spa(clock: Clock) -> None:
    """An SPA receives the pending login."""
    site = Site(clock, second=True, tokens=True)
    with site.client as client:
        portal: Any = client.portal
        user = portal.call(site.shop.house.users.by_subject, "ada")
        portal.call(lambda: site.shop.house.login.enrolments.begin("recovery", user, {}, binding="b"))
        url = client.post("/providers/acme/start", json={}).json()["authorization_url"]
        fields = parameters_of(site.shop.issuer.authorize(url, sub="u-1", email="ada@example.com", email_verified=True))
        answer = client.post("/providers/acme/finish", json=fields)
    assert (answer.status_code, answer.json()["factors"]) == (202, ["recovery"])


def test_identities(site: Site, clock: Clock) -> None:
    """A user links, lists and unlinks identities after a recent login."""
    client = site.client
    assert client.post("/login", json={"username": "ada", "password": PASSWORD}, headers=FETCHED).status_code == 204
    url = client.post("/identities/acme/start", headers=FETCHED).json()["authorization_url"]
    assert client.get(site.back(url, sub="u-9")).headers["location"] == "/"
    url = client.post("/identities/acme/start", headers=FETCHED).json()["authorization_url"]
    fields = parameters_of(site.shop.issuer.authorize(url, sub="u-9"))
    assert client.post("/providers/acme/finish", json=fields, headers=FETCHED).status_code == 204
    [identity] = client.get("/identities").json()
    assert client.delete("/identities/x", headers=FETCHED).status_code == 404
    clock.now += 601
    assert client.delete(f"/identities/{identity['id']}", headers=FETCHED).status_code == 401
    clock.now -= 601
    assert client.delete(f"/identities/{identity['id']}", headers=FETCHED).status_code == 204
    assert client.get("/identities").json() == []


def test_link_by_a_form(site: Site) -> None:
    """A form sends the browser to the provider, and the callback goes on to the page that the form named."""
    client = site.client
    assert client.post("/login", json={"username": "ada", "password": PASSWORD}, headers=FETCHED).status_code == 204
    for target, after in (("/settings", "/settings"), ("//evil.example", "/")):
        begun = client.post("/identities/acme/start", data={"next": target}, headers=FETCHED)
        assert (begun.status_code, begun.headers["cache-control"]) == (303, "no-store")
        assert client.get(site.back(begun.headers["location"], sub="u-9")).headers["location"] == after
    assert [identity["provider"] for identity in client.get("/identities").json()] == ["acme"]


def test_a_link_after_the_logout(site: Site) -> None:
    """A link that a session began is not made after the logout, as by the next user of the same browser."""
    client, body = site.client, {"username": "ada", "password": PASSWORD}
    for ends in (False, True):
        assert client.post("/login", json=body, headers=FETCHED).status_code == 204
        begun = client.post("/identities/acme/start", headers=FETCHED).json()["authorization_url"]
        if ends:
            assert client.post("/logout", headers=FETCHED).status_code == 204
        place = client.get(site.back(begun, sub=f"u-{ends}")).headers["location"]
        assert place == ("/login?error=expired" if ends else "/")
    client.post("/login", json=body, headers=FETCHED)
    assert len(client.get("/identities").json()) == 1


@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize("refreshes", [False, True])
def test_a_link_after_the_logout_of_tokens(clock: Clock, *, refreshes: bool, ends: bool) -> None:
    """It is not made where the login has neither refresh tokens nor an access token that is valid any more."""
    store = MemoryStore(clock=clock)
    shop = Shop(store, clock)
    revocations = None if refreshes else Revocations(store, clock=clock)
    jwt = JWTAuth(JWTConfig(key=jwk.OctKey.generate_key(256)), revocations=revocations, clock=clock)
    refresh = RefreshTokens(store, clock=clock) if refreshes else None
    pairs, app = TokenPairs(jwt, refresh, login=shop.house.login), FastAPI()
    app.include_router(login_router(pairs))
    app.include_router(providers_router(shop.sign_in, pairs))
    client = TestClient(app, base_url="https://shop.example")
    token = client.post("/login", json={"username": "ada", "password": PASSWORD}).json()["access_token"]
    bearer = {"Authorization": f"Bearer {token}"}
    begun = client.post("/identities/acme/start", headers=bearer).json()["authorization_url"]
    if ends:
        assert client.post("/logout", headers=bearer).status_code == 204
    finished = client.post("/providers/acme/finish", json=parameters_of(shop.issuer.authorize(begun)))
    assert finished.status_code == (401 if ends else 204)


def test_a_user_who_is_gone(site: Site) -> None:
    """A session of a user who was removed links nothing."""
    site.sign_in(sub="u-1")
    site.shop.house.users._users.clear()
    assert site.client.post("/identities/acme/start", headers=FETCHED).status_code == 401


def test_back_channel_logout(site: Site) -> None:
    """The provider ends the session, and a token that is not valid is a 400 (Back-Channel Logout 2.8)."""
    site.sign_in(sub="u-1", sid="s-1")
    event = {"http://schemas.openid.net/event/backchannel-logout": {}}
    token = site.shop.issuer.id_token("u-1", aud="shop", events=event, jti="j", sid="s-1", nonce=None, at_hash=None)
    for presented, status in ((token[:-4], 400), (token, 200), (token, 400)):
        answer = site.client.post("/providers/acme/logout", data={"logout_token": presented})
        assert (answer.status_code, answer.headers["cache-control"]) == (status, "no-store")
    assert site.client.get("/sessions").status_code == 401


@pytest.mark.parametrize(("second", "statuses"), [(False, {"204"}), (True, {"202", "204"})])
def test_the_statuses_in_openapi(clock: Clock, second: bool, statuses: set[str]) -> None:
    """A sign-in that leads to a session has no body, and waits for a second step where there are factors."""
    site = Site(clock, second=second)
    responses = site.app.openapi()["paths"]["/providers/{provider}/finish"]["post"]["responses"]
    assert {status for status in responses if status.startswith("2")} == statuses


def test_parts_of_two_applications(clock: Clock) -> None:
    """Tokens of another Login, and a logout of another sign-in or of other credentials, are errors when constructed."""
    store = MemoryStore(clock=clock)
    shop, another = Shop(store, clock), Shop(MemoryStore(clock=clock), clock)
    jwt = JWTAuth(JWTConfig(key=jwk.OctKey.generate_key(256)))
    with pytest.raises(ConfigurationError, match="credentials are of another Login than sign_in"):
        providers_router(shop.sign_in, TokenPairs(jwt, login=another.house.login))
    sessions, others = SessionAuth(store, clock=clock), SessionAuth(store, name="others", clock=clock)
    for logout in (ProviderLogout(shop.sign_in, others), ProviderLogout(another.sign_in, sessions)):
        with pytest.raises(ConfigurationError, match="a ProviderLogout of this sign_in and these credentials"):
            providers_router(shop.sign_in, sessions, logout=logout)
    local = LocalAuth(JWTConfig(key=jwk.OctKey.generate_key(256)), shop.house.login)
    assert providers_router(shop.sign_in, local, logout=ProviderLogout(shop.sign_in, others, local.tokens))


def test_a_session_of_another_issuer(site: Site) -> None:
    """The same subject of another issuer is not the user: it neither sees nor links identities."""

    @site.app.post("/enter")
    async def enter(request: Request, response: Response, iss: str | None = None) -> None:
        issuer = {} if iss is None else {"iss": iss}
        await site.sessions.login(response, {"sub": "ada", **issuer}, connection=request)

    assert site.client.post("/enter", headers=FETCHED).status_code == 200
    assert site.client.get("/identities").status_code == 200
    assert site.client.post("/identities/acme/start", headers=FETCHED).status_code == 200
    assert site.client.post("/enter", params={"iss": "https://id.example"}, headers=FETCHED).status_code == 200
    assert site.client.get("/identities").status_code == 403
    assert site.client.post("/identities/acme/start", headers=FETCHED).status_code == 403
