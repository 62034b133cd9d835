"""Single sign-out: logout tokens, the sessions that they end, and the logout at the provider."""

import json
from base64 import urlsafe_b64decode
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
from fastapi import FastAPI, Response
from fastapi.testclient import TestClient
from joserfc.jwk import OctKey

from fastapi_guard import ConfigurationError, JWTAuth, JWTConfig, ServiceUnavailable, Unauthorized
from fastapi_guard.events import Event
from fastapi_guard.login.login import Complete
from fastapi_guard.login.providers import GitHub, Identity, OpenIDProvider, ProviderLogin, ProviderLogout
from fastapi_guard.login.providers.id_token_hints import IDTokenHints
from fastapi_guard.login.providers.provider import Provider
from fastapi_guard.login.refresh import RefreshTokens, TokenPair
from fastapi_guard.login.revocation import Revocations
from fastapi_guard.login.session import SessionAuth
from fastapi_guard.login.state import digest_of
from fastapi_guard.login.tokens import TokenPairs
from fastapi_guard.routers.providers import providers_router
from fastapi_guard.routers.sessions import session_router
from fastapi_guard.stores import MemoryStore, Record
from fastapi_guard.stores.kinds import SIGN_IN
from fastapi_guard.testing.issuer import FakeIssuer
from support.clock import Clock
from support.factors import KEY, OTHER_KEY
from support.login import PASSWORD, request
from support.providers import CALLBACK, Shop, parameters_of
from support.turns import Turns, TurnStore

HOLDER = r"credentials is what has end_device\(sid\): a SessionAuth, TokenPairs"
EVENTS = {"http://schemas.openid.net/event/backchannel-logout": {}}


def logout_token(shop: Shop, **changed: Any) -> str:
    """Return a logout token of the provider of an application."""
    own = {"aud": "shop", "events": EVENTS, "jti": "j-1", "sid": "s-1", "nonce": None, "at_hash": None}
    header = changed.pop("header", {"typ": "logout+jwt"})
    return shop.issuer.id_token(header=header, **{"sub": "u-1", **own, **changed})


class Site:
    """An application whose sessions end with those at the provider."""

    def __init__(self, clock: Clock, *, more: list[Provider] | None = None, **options: Any) -> None:
        """Build it, with further providers, and options of the logout."""
        self.clock = clock
        self.store = MemoryStore(clock=clock)
        self.shop = Shop(self.store, clock, more=more)
        self.sessions = SessionAuth(self.store, clock=clock)
        self.events: list[Event] = []
        own = {"after": "https://shop.example/bye", "on_event": self.events.append, **options}
        self.logout = ProviderLogout(self.shop.sign_in, self.sessions, **own)

    async def session(self, sub: str = "u-1", **claims: Any) -> str:
        """Sign in, and return the `sid` of the session."""
        outcome = (await self.shop.enter(sub=sub, **claims)).outcome
        assert isinstance(outcome, Complete)
        return (await self.sessions.login(Response(), outcome, connection=request())).id

    async def alive(self, *sids: str) -> list[bool]:
        """Return which sessions there are, and end them."""
        return [await self.sessions.end(sid) for sid in sids]

    def key(self, *parts: str) -> str:
        """Return the key of a record, or its owner."""
        return f"{SIGN_IN}logout:{digest_of(json.dumps(['login', *parts]))}"

    def token(self, **changed: Any) -> str:
        """Return a logout token."""
        return logout_token(self.shop, **changed)


@pytest.fixture
def site(clock: Clock) -> Site:
    """Return an application."""
    return Site(clock)


async def test_by_session(site: Site) -> None:
    """A logout token with a sid ends the sessions of that login at the provider alone, which is an event."""
    first, second, other = [await site.session(sid="s-1") for _ in range(2)] + [await site.session(sid="s-2")]
    plain = await site.session()
    assert await site.logout.end("acme", site.token()) == 2
    notes = await site.store.get(*(site.key("of", "sid", sid) for sid in (first, second, other)))
    assert [note is None for note in notes] == [True, True, False]
    assert await site.alive(first, second, other, plain) == [False, False, True, True]
    assert site.events == [Event("provider_logout", "login", reason="sid")]


async def test_tokens_by_session(clock: Clock) -> None:
    """A logout token ends the refresh and access tokens that were issued for the login at the provider."""
    store = MemoryStore(clock=clock)
    shop = Shop(store, clock)
    jwt = JWTAuth(JWTConfig(key=OctKey.generate_key(256)), revocations=Revocations(store, clock=clock), clock=clock)
    pairs = TokenPairs(jwt, RefreshTokens(store, clock=clock), login=shop.house.login)
    logout = ProviderLogout(shop.sign_in, pairs)
    issued = []
    for sid in ("s-1", "s-2"):
        outcome = (await shop.enter(sub="u-1", sid=sid)).outcome
        assert isinstance(outcome, Complete)
        issued.append(await pairs.issue(outcome))
    ended, other = issued
    assert isinstance(ended, TokenPair)
    assert await logout.end("acme", logout_token(shop)) == 1
    assert [await jwt.validate_token(pair.access_token) for pair in (ended, other)] == [False, True]
    with pytest.raises(Unauthorized):
        await pairs.refresh(ended.refresh_token)


@pytest.mark.parametrize("typ", ["JWT", None, "application/logout+jwt"])
async def test_by_subject(site: Site, typ: str | None) -> None:
    """A logout token with a sub alone ends every session of that identity."""
    mine = [await site.session(sid="s-1"), await site.session()]
    other = await site.session("u-2", sid="s-1")
    assert await site.logout.end("acme", site.token(sid=None, header={"typ": typ}, exp=None)) == 2
    assert site.events == [Event("provider_logout", "login", reason="sub")]
    assert await site.alive(*mine, other) == [False, False, True]


async def test_a_claim_that_names_the_kind(site: Site) -> None:
    """A logout token of Keycloak, which has the kind among its claims too, is accepted."""
    sid = await site.session(sid="s-1")
    assert await site.logout.end("acme", site.token(typ="Logout")) == 1
    assert await site.alive(sid) == [False]


async def test_a_session_of_another_user(site: Site) -> None:
    """With sub and sid, the session has to be that user's."""
    sids = [await site.session(sub, sid="s-1") for sub in ("u-2", "u-1", "u-2")]
    assert await site.logout.end("acme", site.token()) == 1
    assert await site.alive(*sids) == [True, False, True]


async def test_the_events_of_a_login(clock: Clock) -> None:
    """Without a function of its own, a logout is an event of the Login."""
    site = Site(clock, on_event=None)
    await site.logout.end("acme", site.token())
    assert site.shop.house.events == [Event("provider_logout", "login", reason="sid")]


async def test_what_a_logout_ends(site: Site, clock: Clock) -> None:
    """It ends the credentials that it was constructed with, of users who came by its ProviderLogin."""
    other = Site(clock)
    assert site.logout.ends(site.shop.sign_in, site.sessions)
    assert not site.logout.ends(site.shop.sign_in, other.sessions)
    assert not site.logout.ends(other.shop.sign_in, site.sessions)


async def test_the_records_of_a_session(site: Site, clock: Clock) -> None:
    """A session is noted for its identity and its login at the provider, as long as it is remembered."""
    sid = await site.session(sid="s-1")
    value, until = f'{{"session":"{sid}","sub":"u-1","hint":null}}'.encode(), clock() + 90 * 86_400
    for kind, named in (("sub", "u-1"), ("sid", "s-1")):
        key, owner = site.key("of", kind, sid), site.key(kind, site.shop.issuer.url, "shop", named)
        assert await site.store.get(key) == [Record(key, value, owner, until)]


async def test_the_record_of_a_logout_token(site: Site, clock: Clock) -> None:
    """A logout token is noted for twenty minutes, which is twice its greatest age, for logins that are on their way."""
    await site.logout.end("acme", site.token())
    key = site.key("spent", "acme", "j-1")
    owner = site.key("sid", site.shop.issuer.url, "shop", "s-1") + ":ended"
    [record] = await site.store.get(key)
    assert record is not None
    assert (record.owner, record.expires_at) == (owner, clock() + 1200)
    assert json.loads(record.value) == {"at": clock(), "sub": "u-1", "done": True}


async def test_the_age_of_a_logout_token(site: Site, clock: Clock) -> None:
    """Without an expiry a logout token is valid for ten minutes, to the second."""
    now = int(clock())
    clock.now = now
    with pytest.raises(Unauthorized) as refused:
        await site.logout.end("acme", site.token(exp=None, iat=now - 601))
    assert (refused.value.error, refused.value.reason) == ("invalid_token", "logout_token_age")
    assert await site.logout.end("acme", site.token(exp=None, iat=now - 600)) == 0


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
    with pytest.raises(Unauthorized) as refused:
        await site.logout.end("another", site.token())
    assert (refused.value.error, refused.value.reason) == ("invalid_token", "unknown_provider")
    assert await site.logout.end("acme", site.token()) == 1
    assert await site.alive(sid) == [False]


async def test_a_token_is_used_once(site: Site) -> None:
    """A logout token that comes again is refused."""
    token = site.token()
    await site.logout.end("acme", token)
    with pytest.raises(Unauthorized) as refused:
        await site.logout.end("acme", token)
    assert (refused.value.error, refused.value.reason) == ("invalid_token", "logout_token_reused")


async def test_a_logout_that_fails(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token is not used up where a store fails in the middle: the provider sends it again."""
    sid, token = await site.session(sid="s-1"), site.token()

    async def fail(owner: str) -> Any:
        raise ServiceUnavailable

    with monkeypatch.context() as broken:
        broken.setattr(site.store, "find", fail)
        with pytest.raises(ServiceUnavailable):
            await site.logout.end("acme", token)
    assert await site.logout.end("acme", token) == 1
    assert await site.alive(sid) == [False]


@pytest.mark.parametrize("done", [False, True], ids=["before the work", "after the work"])
@pytest.mark.parametrize("fails", [1, 1000], ids=["once", "lastingly"])
async def test_a_logout_in_an_outage(clock: Clock, fails: int, *, done: bool) -> None:
    """A token that failed at any call of the store ends the sessions when it comes again, and then never again."""
    at, reached = 0, True
    while reached:
        at += 1
        turns = Turns(at=at, fails=fails, done=done)
        shop = Shop(TurnStore(MemoryStore(clock=clock), turns), clock)
        sessions = SessionAuth(MemoryStore(clock=clock), clock=clock)
        logout = ProviderLogout(shop.sign_in, sessions)
        outcome = (await shop.enter(sub="u-1", sid="s-1")).outcome
        assert isinstance(outcome, Complete)
        session = await sessions.login(Response(), outcome, connection=request())
        token = logout_token(shop)
        try:
            await turns.run(partial(logout.end, "acme", token))
        except ServiceUnavailable:
            with suppress(Unauthorized):  # everything had ended before
                await logout.end("acme", token)
        assert not await sessions.end(session.id), at
        with pytest.raises(Unauthorized):
            await logout.end("acme", token)
        reached = turns.count >= at


async def test_another_client_of_the_issuer(clock: Clock) -> None:
    """A logout token for one client of an issuer ends no session of another client of the same issuer."""
    issuer = FakeIssuer(audience="shop", clock=clock)
    staff = OpenIDProvider("staff", issuer.url, "staff", "a secret", client=issuer.client, clock=clock)
    site = Site(clock, more=[staff])
    site.shop.issuer._keys = issuer._keys
    mine = await site.session(sid="s-1")
    token = issuer.id_token("u-1", aud="staff", events=EVENTS, jti="j", sid="s-1", nonce=None, at_hash=None)
    assert await site.logout.end("staff", token) == 0
    with pytest.raises(Unauthorized):
        await site.logout.end("acme", token)
    assert await site.alive(mine) == [True]


async def test_a_session_that_was_stepped_up(clock: Clock) -> None:
    """A session that has a new id after a step-up ends with the login at the provider too."""
    site = Site(clock)
    app = FastAPI()
    app.include_router(providers_router(site.shop.sign_in, site.sessions, logout=site.logout))
    app.include_router(session_router(site.sessions, site.shop.house.login))
    user = await site.shop.house.users.by_subject("ada")
    assert user is not None
    client = TestClient(app, base_url="https://shop.example", follow_redirects=False)
    proof = {"username": "ada", "password": PASSWORD}
    assert client.post("/login", json=proof).status_code == 204
    url = client.post("/identities/acme/start").json()["authorization_url"]
    client.get(site.shop.issuer.authorize(url, sub="u-1"))
    client.post("/logout")
    url = client.get("/providers/acme").headers["location"]
    client.get(site.shop.issuer.authorize(url, sub="u-1", sid="s-1"))
    before = client.cookies["__Host-session"]
    assert client.post("/login/step-up", json={"factor": "password", "password": PASSWORD}).status_code == 204
    assert client.cookies["__Host-session"] != before
    assert client.post("/providers/acme/logout", data={"logout_token": site.token()}).status_code == 200
    assert client.get("/sessions").status_code == 401


async def test_id_tokens_that_are_kept(clock: Clock) -> None:
    """With a key the ID token is kept, encrypted, for one logout: also after a step-up and a refresh."""
    site = Site(clock, id_token_key=KEY)
    outcome = (await site.shop.enter(sub="u-1")).outcome
    assert isinstance(outcome, Complete)
    await site.sessions.login(Response(), outcome, connection=request())
    idp = outcome.kept["idp"]
    [kept] = [record for key, record in site.store._records.items() if ":hint:" in key]
    assert (kept.expires_at, b"eyJ" in kept.value) == (clock() + 90 * 86_400, False)
    url = await site.logout.url({"idp": idp})
    assert url is not None
    hint = parameters_of(url)["id_token_hint"]
    claims = json.loads(urlsafe_b64decode(hint.split(".")[1] + "=="))
    assert (claims["sub"], claims["aud"]) == ("u-1", "shop")
    assert "id_token_hint" not in str(await site.logout.url({"idp": idp}))


async def test_id_tokens_that_are_not_kept_longer(clock: Clock) -> None:
    """The ID token of a sign-in that leads to no session is kept for minutes; the provider's logout deletes it."""
    site = Site(clock, id_token_key={"1": KEY})
    abandoned = (await site.shop.enter(sub="u-1")).outcome
    assert isinstance(abandoned, Complete)
    clock.now += 901
    await site.sessions.login(Response(), abandoned, connection=request())
    assert "id_token_hint" not in str(await site.logout.url(abandoned.kept))
    await site.session(sid="s-1")
    assert await site.logout.end("acme", site.token()) == 1
    hints = [key for key in site.store._records if ":hint:" in key]
    assert await site.store.get(*hints) == [None]
    # The issuer may send no ID token at all: then there is nothing to keep.
    assert await IDTokenHints(site.store, KEY, now=clock).keep(Identity(issuer="x", subject="y")) == {}


async def test_a_key_that_is_gone(clock: Clock) -> None:
    """An ID token that no key opens is not sent."""
    site = Site(clock, id_token_key=KEY)
    outcome = (await site.shop.enter(sub="u-1")).outcome
    assert isinstance(outcome, Complete)
    other = ProviderLogout(site.shop.sign_in, site.sessions, id_token_key=OTHER_KEY)
    url = await other.url(outcome.kept)
    assert url == f"{site.shop.issuer.url}/logout?client_id=shop"


async def test_a_logout_token_is_no_id_token(site: Site) -> None:
    """A logout token does not log in."""
    url = await site.shop.start()
    answer = dict(item.split("=") for item in site.shop.issuer.authorize(url).partition("?")[2].split("&"))
    with site.shop.issuer.answering("/token", f'{{"id_token":"{site.token()}"}}'.encode()), pytest.raises(Unauthorized):
        await site.shop.finish(answer)


async def test_the_logout_at_the_provider(site: Site) -> None:
    """The browser of a user who signed in with a provider can log out there too."""
    claims = {"idp": {"provider": "acme", "iss": site.shop.issuer.url, "sub": "u-1"}}
    url = await site.logout.url(claims, state="x")
    assert url == (
        f"{site.shop.issuer.url}/logout?client_id=shop&post_logout_redirect_uri=https%3A%2F%2Fshop.example%2Fbye"
        "&state=x"
    )
    assert await site.logout.url({}) is None
    assert await site.logout.url({"idp": {"provider": "acme", "iss": "https://another.example"}}) is None
    assert await site.logout.url({"idp": {"provider": "another", "iss": site.shop.issuer.url}}) is None


async def test_a_provider_without_a_logout(clock: Clock) -> None:
    """A provider that announces no endpoint has no such URL; one that is down is a 503."""
    site = Site(clock)
    claims = {"idp": {"provider": "acme", "iss": site.shop.issuer.url}}
    with site.shop.issuer.outage(), pytest.raises(ServiceUnavailable) as error:
        await site.logout.url(claims)
    assert error.value.reason == "provider_unreachable"
    plain = ProviderLogout(site.shop.sign_in, site.sessions)
    assert await plain.url(claims) == f"{site.shop.issuer.url}/logout?client_id=shop"
    metadata = b'{"issuer":"%s","authorization_endpoint":"https://a.example/","token_endpoint":"https://a.example/"}'
    clock.now += 4000
    with site.shop.issuer.answering(
        "/.well-known/openid-configuration", metadata.replace(b"%s", site.shop.issuer.url.encode())
    ):
        assert await plain.url(claims) is None


async def test_an_endpoint_with_a_query(site: Site) -> None:
    """The parameters of a logout follow those that the endpoint has."""
    endpoint = f"{site.shop.issuer.url}/logout?realm=a"
    metadata = json.dumps({**site.shop.issuer.metadata, "end_session_endpoint": endpoint}).encode()
    with site.shop.issuer.answering("/.well-known/openid-configuration", metadata):
        url = await site.logout.url({"idp": {"provider": "acme", "iss": site.shop.issuer.url}}, state="x")
    assert url == f"{endpoint}&client_id=shop&post_logout_redirect_uri=https%3A%2F%2Fshop.example%2Fbye&state=x"


async def test_credentials_that_do_not_count(clock: Clock) -> None:
    """Credentials of the application's own that return nothing have ended; the others end, too."""

    class Silent:
        async def end_device(self, sid: str) -> bool:
            return None  # type: ignore[return-value]

    site = Site(clock)
    logout = ProviderLogout(site.shop.sign_in, Silent(), site.sessions)
    sid = await site.session(sid="s-1")
    assert await logout.end("acme", site.token()) == 1
    assert await site.alive(sid) == [False]


async def test_credentials_that_cannot_be_ended(clock: Clock) -> None:
    """A logout is a 503 then, so that the provider sends it again; what the others have has ended."""

    class Failing:
        async def end_device(self, sid: str) -> bool:
            raise OSError

    site = Site(clock)
    logout = ProviderLogout(site.shop.sign_in, Failing(), site.sessions)
    sid = await site.session(sid="s-1")
    with pytest.raises(ServiceUnavailable):
        await logout.end("acme", site.token())
    assert await site.alive(sid) == [False]


async def test_a_session_that_cannot_be_ended(clock: Clock) -> None:
    """The other sessions of the logout end, and that one when the provider sends the token again."""
    site = Site(clock)
    called: list[str] = []

    class FailingOnce:
        async def end_device(self, sid: str) -> bool:
            called.append(sid)
            if len(called) == 1:
                raise OSError
            return await site.sessions.end_device(sid)

    logout, token = ProviderLogout(site.shop.sign_in, FailingOnce()), site.token()
    for _ in range(3):
        await site.session(sid="s-1")
    with pytest.raises(ServiceUnavailable):
        await logout.end("acme", token)
    assert len(called) == 3
    assert await logout.end("acme", token) == 1
    assert called[3:] == called[:1]


async def test_what_is_noted_of_an_identity(clock: Clock) -> None:
    """A function that returns nothing adds nothing to the claim ``idp``."""
    shop = Shop(MemoryStore(clock=clock), clock)

    async def seen(identity: Identity) -> dict[str, str]:
        return None  # type: ignore[return-value]

    shop.sign_in.on_identified(seen)
    outcome = (await shop.enter(sub="u-1")).outcome
    assert isinstance(outcome, Complete)
    assert outcome.kept["idp"]["sub"] == "u-1"


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
        ([], {}, "^pass the SessionAuth or TokenPairs whose sessions end$"),
        ([object()], {}, rf"^{HOLDER}, not object$"),
        ([SessionAuth], {}, rf"^{HOLDER}, not the class SessionAuth$"),
        (None, {"id_token_key": "short"}, "id-token-hints.* 32 bytes"),
        (None, {"after": "/bye"}, "https"),
        (None, {"remembered": 0}, "^remembered is a timedelta or a number of seconds, more than 0, not 0$"),
    ],
)
def test_a_wrong_configuration(clock: Clock, credentials: Any, options: Any, message: str) -> None:
    """A wrong configuration is refused with the remedy."""
    site = Site(clock)
    with pytest.raises(ConfigurationError, match=message):
        ProviderLogout(site.shop.sign_in, *([site.sessions] if credentials is None else credentials), **options)


def test_without_an_openid_provider(clock: Clock) -> None:
    """A logout among providers without ID tokens could end no session, and is an error."""
    login = Site(clock).shop.house.login
    sign_in = ProviderLogin(login, [GitHub("shop", "a secret")], callback=CALLBACK)
    message = "^sign_in has no OpenIDProvider, and other providers end no sessions: leave ProviderLogout out$"
    with pytest.raises(ConfigurationError, match=message):
        ProviderLogout(sign_in, SessionAuth(login.store, name="other"))
    with pytest.raises(ConfigurationError, match=r"^sign_in is a ProviderLogin, not Login$"):
        ProviderLogout(login, SessionAuth(login.store, name="another"))  # type: ignore[arg-type]
