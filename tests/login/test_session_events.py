"""Events of sessions: one when a session starts, and one when it ends, whichever way it ends."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from fastapi import FastAPI, Response
from fastapi.testclient import TestClient

from fastapi_guard import Unauthorized
from fastapi_guard.events import Event
from fastapi_guard.login.revocation import Revocations
from fastapi_guard.login.session import Session, SessionAuth
from fastapi_guard.routers.sessions import session_router
from fastapi_guard.stores import MemoryStore
from support.clock import Clock
from support.login import PASSWORD, request
from support.logins import House

STARTED, ENDED = "session_started", "session_ended"


class Site:
    """An application with sessions, whose events are kept.

    Attributes:
        events: Those of the sessions.
        cookie: The cookie of the last session.
    """

    def __init__(self, clock: Clock) -> None:
        """Build it."""
        self.home = House(MemoryStore(clock=clock), clock)
        self.events: list[Event] = []
        self.sessions = SessionAuth(self.home.store, clock=clock, on_event=self.events.append)
        self.home.login.ends(self.sessions)
        self.cookie = ""

    async def begin(self) -> Session:
        """Log in, as a browser with the cookie of before."""
        response = Response()
        connection = request(cookie=self.cookie)
        session = await self.sessions.login(response, await self.home.complete(), connection=connection)
        self.cookie = response.headers["set-cookie"].partition(";")[0]
        return session

    def seen(self) -> list[tuple[str, str, str | None, str | None]]:
        """Return the events with their Auth, subject and client, and forget them."""
        seen = [(event.name, event.auth, event.subject, event.client) for event in self.events]
        self.events.clear()
        return seen


async def by_logout(site: Site, _: Session) -> None:
    """Log out."""
    assert await site.sessions.logout(Response(), connection=request(cookie=site.cookie))


async def by_end(site: Site, session: Session) -> None:
    """End one by its id, for a request."""
    assert await site.sessions.end(session.id, connection=request())


async def by_end_of_a_device(site: Site, session: Session) -> None:
    """End one as a provider does, or an operator."""
    assert await site.sessions.end_device(session.id)


async def by_end_all(site: Site, _: Session) -> None:
    """End all of a subject, for a request."""
    assert await site.sessions.end_all("ada", connection=request()) == 1


async def by_password(site: Site, _: Session) -> None:
    """Change the password of the user."""
    await site.home.login.change(await site.home.user(), password_hash="another")


async def by_disabling(site: Site, _: Session) -> None:
    """Disable the user."""
    await site.home.login.change(await site.home.user(), disabled=True)


async def by_an_administrator(site: Site, _: Session) -> None:
    """End everything that a user has."""
    assert await site.home.login.end_all("ada") == 1


async def by_revocation(site: Site, _: Session) -> None:
    """Revoke the subject, with its sessions."""
    revocations = Revocations(MemoryStore(clock=site.home.clock), ends=[site.sessions], clock=site.home.clock)
    assert await revocations.revoke_subject("ada") == 1


def fields_of(record: Any) -> tuple[str, str, str | None, str | None]:
    """Return the event, the Auth, the subject and the issuer in a record of the log."""
    return record.event, record.auth, record.subject, record.issuer


End = Callable[[Site, Session], Awaitable[None]]
WITH_A_REQUEST = [by_logout, by_end, by_end_all]
WITHOUT = [by_end_of_a_device, by_password, by_disabling, by_an_administrator, by_revocation]


@pytest.mark.parametrize("end", WITH_A_REQUEST + WITHOUT)
async def test_an_end(clock: Clock, end: End) -> None:
    """A session that ends is one event with its user, and with the client where a request ended it; not one again."""
    site = Site(clock)
    session = await site.begin()
    assert site.seen() == [(STARTED, "session", "ada", "192.0.2.1")]
    await end(site, session)
    assert site.seen() == [(ENDED, "session", "ada", "192.0.2.1" if end in WITH_A_REQUEST else None)]
    assert not await site.sessions.end(session.id)
    assert not await site.sessions.logout(Response(), connection=request(cookie=site.cookie))
    assert await site.sessions.end_all("ada") == 0
    assert site.seen() == []


async def test_a_login_in_place_of_a_session(clock: Clock) -> None:
    """A login ends the session that the browser came with, and starts another."""
    site = Site(clock)
    await site.begin()
    await site.begin()
    assert [name for name, *_ in site.seen()] == [STARTED, ENDED, STARTED]


async def test_a_step_up(clock: Clock) -> None:
    """A step-up ends the session of the old id and starts that of the new one; one of an ended session does neither."""
    site = Site(clock)
    old = await site.begin()
    site.seen()
    await site.sessions.renew(Response(), old.id, {"amr": ["pwd", "otp"]}, connection=request())
    assert site.seen() == [(name, "session", "ada", "192.0.2.1") for name in (ENDED, STARTED)]
    with pytest.raises(Unauthorized):
        await site.sessions.renew(Response(), old.id, {}, connection=request())
    assert site.seen() == []


async def test_a_login_that_is_not_confirmed(clock: Clock) -> None:
    """A session that is taken back, since the user has changed, has not started."""
    site = Site(clock)
    outcome = await site.home.complete()
    await site.home.login.change(await site.home.user())
    with pytest.raises(Unauthorized):
        await site.sessions.login(Response(), outcome, connection=request())
    assert site.seen() == []


async def test_a_revocation_in_the_store(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """Revocations on the store of the sessions end them with one event each, in the log without a callback."""
    site = Site(clock)
    for ends in ([], [site.sessions]):
        await site.begin()
        caplog.clear()
        with caplog.at_level("INFO", logger="fastapi_guard"):
            assert await Revocations(site.home.store, ends=ends, clock=clock).revoke_subject("ada") == 1
        assert [fields_of(record) for record in caplog.records] == [(ENDED, "session", "ada", None)]


async def test_a_revocation_of_another_issuer_in_the_store(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """The event of a session that ends with a subject of another issuer names the issuer, and its own Auth."""
    store, issuer = MemoryStore(clock=clock), "https://id.example"
    partners = SessionAuth(store, name="partners", clock=clock)
    await partners.login(Response(), {"sub": "ada", "iss": issuer}, connection=request())
    caplog.clear()
    with caplog.at_level("INFO", logger="fastapi_guard"):
        assert await Revocations(store, clock=clock).revoke_subject("ada", issuer=issuer) == 1
    assert [fields_of(record) for record in caplog.records] == [(ENDED, "partners", "ada", issuer)]


async def test_an_expired_session(clock: Clock) -> None:
    """A session that expired is not ended again."""
    site = Site(clock)
    session = await site.begin()
    site.seen()
    clock.move(3600)
    assert not await site.sessions.end(session.id)
    assert site.seen() == []


def test_the_place(clock: Clock) -> None:
    """The events of requests have the route, the method and the user agent."""
    site = Site(clock)
    app = FastAPI()
    app.include_router(session_router(site.sessions, site.home.login))
    first, second = (TestClient(app, base_url="https://shop.example") for _ in range(2))
    body: dict[str, Any] = {"username": "ada", "password": PASSWORD}
    for client in (first, second):
        assert client.post("/login", json=body).status_code == 204
    [other] = [one["id"] for one in first.get("/sessions").json() if not one["current"]]
    assert first.delete(f"/sessions/{other}").status_code == 204
    assert second.post("/login", json=body).status_code == 204
    assert first.delete("/sessions").json() == {"ended": 1}
    assert first.post("/login/step-up", json={"factor": "password", "password": PASSWORD}).status_code == 204
    assert first.post("/logout").status_code == 204
    found = [event for event in site.events if event.name != "authenticated"]
    assert [(event.name, event.method, event.route, event.user_agent) for event in found] == [
        (name, method, route, "testclient")
        for name, method, route in [
            (STARTED, "POST", "/login"),
            (STARTED, "POST", "/login"),
            (ENDED, "DELETE", "/sessions/{session_id}"),
            (STARTED, "POST", "/login"),
            (ENDED, "DELETE", "/sessions"),
            (ENDED, "POST", "/login/step-up"),
            (STARTED, "POST", "/login/step-up"),
            (ENDED, "POST", "/logout"),
        ]
    ]
