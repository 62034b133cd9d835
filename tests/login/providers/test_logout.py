"""Single sign-out: logout tokens, the sessions that they end, and the logout at the provider."""

from typing import Any

import pytest
from fastapi import Response

from fastapi_guard import ConfigurationError, ServiceUnavailable, Unauthorized
from fastapi_guard.login.login import Complete
from fastapi_guard.login.providers import ProviderLogout
from fastapi_guard.login.session import SessionAuth
from fastapi_guard.stores import MemoryStore
from support.clock import Clock
from support.login import request
from support.providers import Shop

EVENTS = {"http://schemas.openid.net/event/backchannel-logout": {}}


class Site:
    """An application whose sessions end with those at the provider."""

    def __init__(self, clock: Clock) -> None:
        """Build it."""
        self.clock = clock
        store = MemoryStore(clock=clock)
        self.shop = Shop(store, clock)
        self.sessions = SessionAuth(store, clock=clock)
        self.logout = ProviderLogout(self.shop.sign_in, self.sessions, after="https://shop.example/bye")

    async def session(self, sub: str = "u-1", **claims: Any) -> str:
        """Sign in, and return the `sid` of the session."""
        outcome = (await self.shop.enter(sub=sub, **claims)).outcome
        assert isinstance(outcome, Complete)
        return (await self.sessions.login(Response(), outcome, connection=request())).id

    async def alive(self, *sids: str) -> list[bool]:
        """Return which sessions there are, and end them."""
        return [await self.sessions.end(sid) for sid in sids]

    def token(self, **changed: Any) -> str:
        """Return a logout token."""
        own = {"aud": "shop", "events": EVENTS, "jti": "j-1", "sid": "s-1", "nonce": None, "at_hash": None}
        header = changed.pop("header", {"typ": "logout+jwt"})
        return self.shop.issuer.id_token(header=header, **{"sub": "u-1", **own, **changed})


@pytest.fixture
def site(clock: Clock) -> Site:
    """Return an application."""
    return Site(clock)


async def test_by_session(site: Site) -> None:
    """A logout token with a sid ends the sessions of that login at the provider alone."""
    first, second, other = [await site.session(sid="s-1") for _ in range(2)] + [await site.session(sid="s-2")]
    plain = await site.session()
    assert await site.logout.end("acme", site.token()) == 2
    assert await site.alive(first, second, other, plain) == [False, False, True, True]


@pytest.mark.parametrize("typ", ["JWT", None, "application/logout+jwt"])
async def test_by_subject(site: Site, typ: str | None) -> None:
    """A logout token with a sub alone ends every session of that identity."""
    mine = [await site.session(sid="s-1"), await site.session()]
    other = await site.session("u-2", sid="s-1")
    assert await site.logout.end("acme", site.token(sid=None, header={"typ": typ}, exp=None)) == 2
    assert await site.alive(*mine, other) == [False, False, True]


async def test_a_session_of_another_user(site: Site) -> None:
    """With sub and sid, the session has to be that user's."""
    sid = await site.session("u-2", sid="s-1")
    assert await site.logout.end("acme", site.token()) == 0
    assert await site.alive(sid) == [True]


REFUSED: dict[str, dict[str, Any]] = {
    "an ID token": {"events": None, "nonce": "n"},
    "a nonce": {"nonce": "n"},
    "no events": {"events": None},
    "another event": {"events": {"https://example.com/event": {}}},
    "an event of another type": {"events": {next(iter(EVENTS)): None}},
    "another audience": {"aud": "another"},
    "another issuer": {"iss": "https://evil.example"},
    "no jti": {"jti": None},
    "no iat": {"iat": None},
    "old": {"iat": 1_000_000_000, "exp": None},
    "expired": {"exp": 1},
    "nobody": {"sid": None, "sub": None},
    "an empty sid": {"sid": ""},
    "a sid of another type": {"sid": 7},
    "an access token": {"header": {"typ": "at+jwt"}},
}


@pytest.mark.parametrize("case", REFUSED)
async def test_tokens_that_are_refused(site: Site, case: str) -> None:
    """Nothing but a logout token for this client ends a session."""
    sid = await site.session(sid="s-1")
    claims = dict(REFUSED[case])
    with pytest.raises(Unauthorized):
        await site.logout.end("acme", site.token(**claims))
    with pytest.raises(Unauthorized):
        await site.logout.end("another", site.token())
    assert await site.logout.end("acme", site.token()) == 1
    assert await site.alive(sid) == [False]


async def test_a_token_is_used_once(site: Site) -> None:
    """A logout token that comes again is refused."""
    token = site.token()
    await site.logout.end("acme", token)
    with pytest.raises(Unauthorized):
        await site.logout.end("acme", token)


async def test_a_logout_token_is_no_id_token(site: Site) -> None:
    """A logout token does not log in."""
    url = await site.shop.start()
    answer = dict(item.split("=") for item in site.shop.issuer.authorize(url).partition("?")[2].split("&"))
    with site.shop.issuer.answering("/token", f'{{"id_token":"{site.token()}"}}'.encode()), pytest.raises(Unauthorized):
        await site.shop.finish(answer)


async def test_the_logout_at_the_provider(site: Site) -> None:
    """The browser of a user who signed in with a provider can log out there too."""
    claims = {"idp": {"iss": site.shop.issuer.url, "sub": "u-1"}}
    url = await site.logout.url(claims, state="x")
    assert url == (
        f"{site.shop.issuer.url}/logout?client_id=shop&post_logout_redirect_uri=https%3A%2F%2Fshop.example%2Fbye"
        "&state=x"
    )
    assert await site.logout.url({}) is None
    assert await site.logout.url({"idp": {"iss": "https://another.example"}}) is None


async def test_a_provider_without_a_logout(clock: Clock) -> None:
    """A provider that announces no endpoint has no such URL; one that is down is a 503."""
    site = Site(clock)
    claims = {"idp": {"iss": site.shop.issuer.url}}
    with site.shop.issuer.outage(), pytest.raises(ServiceUnavailable):
        await site.logout.url(claims)
    plain = ProviderLogout(site.shop.sign_in, site.sessions)
    assert await plain.url(claims) == f"{site.shop.issuer.url}/logout?client_id=shop"
    metadata = b'{"issuer":"%s","authorization_endpoint":"https://a.example/","token_endpoint":"https://a.example/"}'
    clock.now += 4000
    with site.shop.issuer.answering(
        "/.well-known/openid-configuration", metadata.replace(b"%s", site.shop.issuer.url.encode())
    ):
        assert await plain.url(claims) is None


async def test_logins_of_other_kinds(site: Site) -> None:
    """A login with a password is not noted."""
    outcome = await site.shop.house.login.begin(
        (await site.shop.house.users.by_subject("ada")),  # type: ignore[arg-type]
        amr=["pwd"],
        connection=request(),
    )
    assert isinstance(outcome, Complete)
    assert await site.sessions.login(Response(), outcome, connection=request())


@pytest.mark.parametrize(
    ("credentials", "options", "message"),
    [
        ([], {}, "pass the SessionAuth"),
        ([object()], {}, "end_device"),
        ([SessionAuth], {}, "end_device"),
        (None, {"after": "/bye"}, "https"),
    ],
)
def test_a_wrong_configuration(clock: Clock, credentials: Any, options: Any, message: str) -> None:
    """A wrong configuration is refused with the remedy."""
    site = Site(clock)
    with pytest.raises(ConfigurationError, match=message):
        ProviderLogout(site.shop.sign_in, *([site.sessions] if credentials is None else credentials), **options)
