"""Logouts at a provider while a login of the same user is on its way."""

from typing import Any

import pytest
from fastapi import Response
from joserfc import jwt

from fastapi_guard import Unauthorized
from fastapi_guard.login.login import Complete, Pending
from fastapi_guard.login.providers import Identity, ProviderLogout
from fastapi_guard.login.session import SessionAuth
from fastapi_guard.stores import MemoryStore
from login.providers.test_logout import EVENTS, logout_token
from support.clock import Clock
from support.login import request
from support.logins import House
from support.providers import Shop


class Site:
    """An application with second factors, whose sessions end with those at the provider."""

    def __init__(self, clock: Clock) -> None:
        """Build it."""
        store = MemoryStore(clock=clock)
        kinds = House(MemoryStore(clock=clock), clock).kinds()
        self.clock = clock
        self.shop = Shop(store, clock, second=kinds, provider={"vouches": True})
        self.sessions = SessionAuth(store, clock=clock)
        self.logout = ProviderLogout(self.shop.sign_in, self.sessions)

    async def pending(self, **claims: Any) -> tuple[Pending, str]:
        """Return a login of Ada that waits for its second step, and a recovery code."""
        login, ada = self.shop.house.login, await self.shop.house.user()
        begun = await login.enrolments.begin("recovery", ada, {}, binding="b")
        assert begun is not None
        outcome = (await self.shop.enter(email="ada@example.com", email_verified=True, **claims)).outcome
        assert isinstance(outcome, Pending)
        return outcome, begun.shown["codes"][0]

    async def complete(self, pending: Pending, code: str) -> None:
        """Complete the second step, and begin the session."""
        outcome = await self.shop.house.login.with_recovery_code(pending.id, code, connection=request())
        await self.begin(outcome)

    async def begin(self, outcome: Any) -> None:
        """Begin a session."""
        assert isinstance(outcome, Complete)
        await self.sessions.login(Response(), outcome, connection=request())


@pytest.fixture
def site(clock: Clock) -> Site:
    """Return an application."""
    return Site(clock)


@pytest.mark.parametrize("sid", ["s-1", None])
async def test_a_logout_before_the_second_step(site: Site, sid: str | None) -> None:
    """A login that waits for its second step ends with the login at the provider."""
    pending, code = await site.pending(sub="u-1", sid="s-1")
    site.clock.now += 60
    assert await site.logout.end("acme", logout_token(site.shop, sid=sid)) == 0
    with pytest.raises(Unauthorized) as refusal:
        await site.complete(pending, code)
    assert refusal.value.reason == "provider_logout"
    assert await site.sessions.list("ada") == []


@pytest.mark.parametrize("changed", [{"sid": "s-2"}, {"sub": "u-2"}, {"sub": "u-2", "sid": None}])
async def test_a_logout_of_another_session(site: Site, changed: dict[str, Any]) -> None:
    """A logout of another session or user ends nothing of this login."""
    pending, code = await site.pending(sub="u-1", sid="s-1")
    await site.logout.end("acme", logout_token(site.shop, **changed))
    await site.complete(pending, code)
    assert len(await site.sessions.list("ada")) == 1


async def test_a_login_after_a_logout(site: Site) -> None:
    """A user who logs in again after a logout of every session is not logged out by it."""
    await site.logout.end("acme", logout_token(site.shop, sid=None))
    site.clock.now += 1
    await site.begin((await site.shop.enter(sub="u-1", sid="s-2")).outcome)
    site.clock.now += 1
    await site.logout.end("acme", logout_token(site.shop, sid="s-2", jti="j-2"))
    site.clock.now += 1
    with pytest.raises(Unauthorized):
        await site.begin((await site.shop.enter(sub="u-1", sid="s-2")).outcome)


async def test_a_logout_between_the_answer_and_the_session(site: Site) -> None:
    """A logout that comes while the session begins ends it, in the very second of the answer too."""
    site.clock.now = float(int(site.clock.now))
    outcome = (await site.shop.enter(sub="u-1", sid="s-1")).outcome
    await site.logout.end("acme", logout_token(site.shop, sid=None))
    with pytest.raises(Unauthorized):
        await site.begin(outcome)


@pytest.mark.parametrize("sid", ["s-1", None])
async def test_a_logout_between_the_code_and_the_login(site: Site, sid: str | None) -> None:
    """A logout that comes after the code was exchanged, and before the login begins, ends the login."""

    async def logs_out(_: Identity) -> dict[str, str]:
        site.clock.now += 1
        await site.logout.end("acme", logout_token(site.shop, sid=sid))
        site.clock.now += 1
        return {}

    site.shop.sign_in.on_identified(logs_out)
    outcome = (await site.shop.enter(sub="u-1", sid="s-1")).outcome
    with pytest.raises(Unauthorized) as refusal:
        await site.begin(outcome)
    assert refusal.value.reason == "provider_logout"
    assert isinstance(outcome, Complete)
    assert await site.sessions.list(outcome.user.subject_id) == []


async def test_a_session_that_is_null(site: Site) -> None:
    """A ``sid`` that is ``null`` names no session: the token is about the user."""
    await site.begin((await site.shop.enter(sub="u-1", sid="s-1")).outcome)
    issuer, now = site.shop.issuer, int(site.clock())
    claims = {"iss": issuer.url, "sub": "u-1", "sid": None, "aud": "shop", "iat": now, "exp": now + 60, "jti": "j-1"}
    token = jwt.encode({"alg": "ES256", "kid": issuer.kid}, {**claims, "events": EVENTS}, issuer._keys[0])
    assert await site.logout.end("acme", token) == 1
