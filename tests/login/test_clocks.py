"""Two hosts whose clocks are apart by seconds, on one store: what one revokes has ended on the other."""

import copy
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from fastapi import Response
from joserfc import jwk
from starlette.requests import HTTPConnection

from fastapi_guard import ConfigurationError, JWTAuth, JWTConfig, Unauthorized
from fastapi_guard.login.refresh import RefreshTokens, TokenPair
from fastapi_guard.login.revocation import Revocations
from fastapi_guard.login.session import SessionAuth
from fastapi_guard.login.tokens import TokenPairs
from fastapi_guard.login.users import MappingUsers
from fastapi_guard.stores import Store
from support.clock import Clock
from support.login import CountingStore
from support.logins import House, users_of

CONFIG = JWTConfig(key=jwk.OctKey.generate_key(256))
NOWHERE = HTTPConnection({"type": "http", "method": "POST", "headers": []})
APART = [5, -5]
IDLE = timedelta(minutes=30)


class Host(House):
    """A host: a Login with tokens and sessions, by its own clock."""

    def __post_init__(self) -> None:
        """Build the tokens and the sessions."""
        super().__post_init__()
        self.revocations = Revocations(self.store, clock=self.clock)
        self.jwt = JWTAuth(CONFIG, revocations=self.revocations, clock=self.clock)
        self.refresh = RefreshTokens(self.store, idle_lifetime=IDLE, clock=self.clock)
        self.tokens = TokenPairs(self.jwt, self.refresh, login=self.login)
        self.sessions = SessionAuth(self.store, idle_lifetime=IDLE, clock=self.clock)

    async def pair(self) -> TokenPair:
        """Return the tokens of a login."""
        pair = await self.tokens.issue(await self.complete())
        assert isinstance(pair, TokenPair)
        return pair

    async def session(self) -> str:
        """Return the cookie of a new session."""
        response = Response()
        await self.sessions.login(response, {"sub": "ada"}, connection=NOWHERE)
        return response.headers["set-cookie"].partition("=")[2].partition(";")[0]

    async def rejects(self, token: str) -> bool:
        """Return whether an access token is revoked."""
        try:
            await self.jwt.verify(token)
        except Unauthorized as refusal:
            return refusal.reason == "revoked"
        return False


@dataclass
class Hosts:
    """Two hosts: `other` is some seconds ahead of `here`, or behind."""

    here: Host
    other: Host

    def move(self, by: float) -> None:
        """Let time pass."""
        for host in (self.here, self.other):
            host.clock.move(by)

    @property
    def both(self) -> tuple[Host, Host]:
        """Both of them."""
        return self.here, self.other


def host(store: Store, clock: Clock, users: MappingUsers) -> Host:
    """Return a host, with a store of its own where there are the same records."""
    own: Any = copy.copy(store)
    own._clock = clock
    if hasattr(store, "_records"):
        # Of one process, with one clock for all.
        own = store
    return Host(CountingStore(own), clock, {}, users=users)


@pytest.fixture(params=APART)
def hosts(request: pytest.FixtureRequest, store: Store, clock: Clock) -> Hosts:
    """Return two hosts on each store, the other one ahead and behind."""
    users = users_of()
    return Hosts(host(store, Clock(clock()), users), host(store, Clock(clock() + request.param), users))


async def test_access_tokens(hosts: Hosts) -> None:
    """Tokens that either host issued before are revoked on both; those that it issues at once afterwards are valid."""
    subject = (await hosts.here.user()).subject_id
    before = [(await host.pair()).access_token for host in hosts.both]
    # A login of the application's own that does not call number_for.
    plain = [host.jwt.encode({"sub": subject}) for host in hosts.both]
    for host in hosts.both:
        assert not any([await host.rejects(token) for token in before + plain])
    await hosts.here.revocations.revoke_subject(subject)
    # The clock that is ahead dates in the future, which the leeway allows.
    for host in hosts.both:
        assert all([await host.rejects(token) for token in before + plain])
    after = [(await host.pair()).access_token for host in hosts.both]
    for host in hosts.both:
        for token in after:
            assert (await host.jwt.verify(token))["revocation_number"] == 1
    # What has a number ends with the next revocation, by whichever host.
    await hosts.other.revocations.revoke_subject(subject)
    for host in hosts.both:
        assert all([await host.rejects(token) for token in after])
    last = [(await host.pair()).access_token for host in hosts.both]
    hosts.move(60)
    for host in hosts.both:
        assert not any([await host.rejects(token) for token in last])
        assert all([await host.rejects(token) for token in before + plain + after])
    # The number goes when it is not needed any more.
    claims = await hosts.here.jwt.verify((await hosts.here.pair()).access_token)
    assert "revocation_number" not in claims


async def test_tokens_without_a_number(hosts: Hosts) -> None:
    """Tokens without a number are valid again after the skew, on both hosts."""
    await hosts.here.revocations.revoke_subject("ada")
    hosts.move(16)
    tokens = [host.jwt.encode({"sub": "ada"}) for host in hosts.both]
    for host in hosts.both:
        assert not any([await host.rejects(token) for token in tokens])


async def test_refresh_families(hosts: Hosts) -> None:
    """A family of the other host has ended, also one that expires in this moment; one that is issued after is valid."""
    subject = (await hosts.here.user()).subject_id
    old = [await host.pair() for host in hosts.both]
    hosts.move(IDLE.total_seconds() - 3)
    young = [await host.pair() for host in hosts.both]
    # By a clock that is ahead the old ones have expired.
    await max(hosts.both, key=lambda host: host.clock()).revocations.revoke_subject(subject)
    after = [await host.pair() for host in hosts.both]
    for host in hosts.both:
        for pair in old + young:
            with pytest.raises(Unauthorized):
                await host.tokens.refresh(pair.refresh_token)
    for host, pair in zip(hosts.both, reversed(after), strict=True):
        refreshed = await host.tokens.refresh(pair.refresh_token)
        for verifier in hosts.both:
            assert (await verifier.jwt.verify(refreshed.access_token))["sub"] == subject


@pytest.mark.parametrize("way", ["revocations", "sessions", "families"])
async def test_what_is_about_to_expire(hosts: Hosts, way: str) -> None:
    """A host that is ahead ends what is still valid on the other, with a positive control."""
    behind, ahead = sorted(hosts.both, key=lambda host: host.clock())
    cookies = [await behind.session() for _ in range(2)]
    families = [await behind.refresh.issue({"sub": "ada"}) for _ in range(2)]
    hosts.move(IDLE.total_seconds() - 3)
    control = await behind.refresh.issue({"sub": "bob"})
    assert (await behind.sessions.verify(cookies[0]))["sub"] == "ada"
    await behind.sessions.aclose()
    assert await ahead.refresh.families("ada") == []
    ended = {
        "revocations": ahead.revocations.revoke_subject,
        "sessions": ahead.sessions.revoke_subject,
        "families": ahead.refresh.revoke_subject,
    }[way]
    # By its clock the session that was not used had expired, so it does not count, but it ends.
    assert await ended("ada") == {"revocations": 4, "sessions": 1, "families": 2}[way]
    for cookie in cookies if way != "families" else ():
        with pytest.raises(Unauthorized):
            await behind.sessions.verify(cookie)
    for token in families if way != "sessions" else ():
        with pytest.raises(Unauthorized):
            await behind.refresh.rotate(token)
    assert (await behind.refresh.rotate(control))[0] == {"sub": "bob"}


async def test_a_session_that_is_ended_alone(hosts: Hosts) -> None:
    """A logout on a host that is ahead ends a session that has expired there, and a step-up does not renew it."""
    behind, ahead = sorted(hosts.both, key=lambda host: host.clock())
    cookie = await behind.session()
    [session] = await behind.sessions.list("ada")
    hosts.move(IDLE.total_seconds() - 3)
    with pytest.raises(Unauthorized):
        await ahead.sessions.renew(Response(), session.id, {}, connection=NOWHERE)
    assert await behind.sessions.list("ada") == [session]
    assert not await ahead.sessions.end(session.id)
    with pytest.raises(Unauthorized):
        await behind.sessions.verify(cookie)


async def test_the_setting(store: Store, clock: Clock) -> None:
    """Tokens without a number are covered up to the skew that was configured; 0 is the second alone."""
    revocations = {skew: Revocations(CountingStore(store), clock_skew=skew, clock=clock) for skew in (0, 10, 60)}
    await revocations[0].revoke_subject("ada")
    second = int(clock())
    for skew, configured in revocations.items():
        ahead = [second + skew, second + skew + 1]
        covered = [await configured.is_revoked({"sub": "ada", "iat": iat}) for iat in ahead]
        assert covered == [True, False]
    with pytest.raises(ConfigurationError, match="clock_skew is at most a minute"):
        Revocations(store, clock_skew=61)
    with pytest.raises(ConfigurationError, match="clock_skew is a timedelta or a number of seconds"):
        Revocations(store, clock_skew=-1)
