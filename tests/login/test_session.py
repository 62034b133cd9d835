"""Sessions: an id in a cookie that is worth nothing before the login, after the end, or from another site's page."""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Annotated, Any

import pytest
from fastapi import FastAPI, Request, Response, WebSocket
from fastapi.testclient import TestClient
from starlette.middleware.sessions import SessionMiddleware
from starlette.testclient import WebSocketDenialResponse

from fastapi_guard import Claims, ConfigurationError, ScopesAuth, ServiceUnavailable, Unauthorized, configure_app
from fastapi_guard.login.client import Client
from fastapi_guard.login.cookies import CookieSettings
from fastapi_guard.login.outcome import Complete, Confirm
from fastapi_guard.login.revocation import Revocations
from fastapi_guard.login.session import SessionAuth, StarletteSessionScheme
from fastapi_guard.login.state import owner_of
from fastapi_guard.login.users import User
from fastapi_guard.stores import MemoryStore, Record, Store
from fastapi_guard.stores.kinds import SESSION
from support.clock import Clock
from support.login import CountingStore, request

CLAIMS = {"sub": "ada", "scope": "items:read"}
REFUSED = (401, "Not authenticated", 'Session realm="api"')
NOWHERE = Request({"type": "http", "headers": []})


class Watched(MemoryStore):
    """A store that counts its writes, and fails where it is told to."""

    def __init__(self, clock: Clock) -> None:
        """Begin without a failure."""
        super().__init__(clock=clock)
        self.writes = 0
        self.failing: set[str] = set()

    async def get(self, *keys: str) -> list[Record | None]:
        """Look up."""
        self._fail("get")
        return await super().get(*keys)

    async def replace(self, key: str, expected: Record, new: Record) -> bool:
        """Count."""
        self._fail("replace")
        self.writes += 1
        return await super().replace(key, expected, new)

    def _fail(self, name: str) -> None:
        if name in self.failing:
            raise ServiceUnavailable(reason="store_unreachable")


def application(sessions: SessionAuth) -> FastAPI:
    """Return an application that logs in any subject."""
    app = FastAPI()

    @app.post("/login")
    async def login(request: Request, response: Response, claims: dict[str, Any]) -> str:
        return (await sessions.login(response, claims, connection=request)).id

    @app.post("/logout")
    async def logout(request: Request, response: Response) -> bool:
        return await sessions.logout(response, connection=request)

    @app.get("/me")
    @app.post("/me")
    async def me(claims: Annotated[Claims, sessions.authenticated()]) -> Claims:
        return claims

    @app.get("/items", dependencies=[sessions.requires("items:read")])
    async def items() -> str:
        return "items"

    @app.get("/reports", dependencies=[sessions.requires("reports:read")])
    async def reports() -> str:
        return "reports"

    @app.post("/end-others")
    async def end_others(claims: Annotated[Claims, sessions.authenticated()]) -> int:
        return await sessions.end_all(claims["sub"], keep=claims["sid"])

    @app.post("/renew")
    async def renew(
        request: Request, response: Response, claims: Annotated[Claims, sessions.authenticated()]
    ) -> list[object]:
        renewed = await sessions.renew(response, claims["sid"], {"amr": ["pwd", "otp"]}, connection=request)
        return [renewed.id, await sessions.end_all(claims["sub"], keep=renewed.id)]

    @app.websocket("/feed")
    async def feed(websocket: WebSocket, claims: Annotated[Claims, sessions.authenticated()]) -> None:
        await websocket.accept()
        await websocket.send_json(claims["sub"])
        await websocket.close()

    return app


def browser(sessions: SessionAuth) -> TestClient:
    """Return a client that keeps cookies, over https."""
    return TestClient(application(sessions), base_url="https://app.example")


def cookie(client: TestClient) -> str:
    """Return the id that the client has."""
    value = client.cookies.get("__Host-session")
    assert value is not None
    return value


def raw_id(response: Response) -> str:
    """Return the id in the cookie of a response."""
    return response.headers["set-cookie"].partition("=")[2].partition(";")[0]


def me(client: TestClient, raw: str | None = None) -> tuple[int, str, str | None]:
    """Return the response to a request with the client's session, or with this id."""
    headers = {} if raw is None else {"Cookie": f"__Host-session={raw}"}
    answer = client.get("/me", headers=headers)
    text = answer.json()["detail"] if answer.status_code != 200 else answer.json()["sub"]
    return answer.status_code, text, answer.headers.get("www-authenticate")


@pytest.fixture
def watched(clock: Clock) -> Watched:
    """Return a store that is watched."""
    return Watched(clock)


@pytest.fixture
def client(watched: Watched, clock: Clock) -> Iterator[TestClient]:
    """Return a browser at an application with sessions."""
    with browser(SessionAuth(watched, clock=clock)) as client:
        yield client


def test_the_cookie(client: TestClient) -> None:
    """The id has 256 bits, in a cookie that no script, no other host and no page over http reaches; no-store."""
    answer = client.post("/login", json=CLAIMS)
    name, value, attributes = re.fullmatch(r"([^=]+)=([^;]+); (.*)", answer.headers["set-cookie"]).groups()  # type: ignore[union-attr]
    assert (name, len(value)) == ("__Host-session", 43)
    assert attributes == "HttpOnly; Max-Age=43200; Path=/; SameSite=lax; Secure"
    assert answer.headers["cache-control"] == "no-store"


def test_claims(client: TestClient, clock: Clock) -> None:
    """The guards return the claims of the login, with its moment, its end and a public id of the session."""
    session_id = client.post("/login", json=CLAIMS).json()
    moments = {"iat": int(clock()), "auth_time": int(clock())}
    assert client.get("/me").json() == {**moments, **CLAIMS, "sid": session_id, "exp": int(clock() + 12 * 3600)}
    assert client.get("/items").status_code == 200
    refused = client.get("/reports")
    assert (refused.status_code, refused.json()["detail"]) == (403, "Token is missing required scope: reports:read")
    challenge = 'Session realm="api", error="insufficient_scope", scope="reports:read"'
    assert refused.headers["www-authenticate"] == challenge
    client.post("/login", json={**CLAIMS, "scope": "reports:read"})
    assert client.get("/reports").json() == "reports"


async def test_claims_that_an_application_changes(watched: Watched, clock: Clock) -> None:
    """Changes that an application makes to the claims of a request, or to a part of them, end with it."""
    sessions = SessionAuth(watched, clock=clock)
    response = Response()
    claims = {**CLAIMS, "teams": ["red"], "limits": {"daily": [1]}}
    await sessions.login(response, claims, connection=NOWHERE)
    raw = response.headers["set-cookie"].partition(";")[0].partition("=")[2]
    for _ in range(2):
        found = await sessions.verify(raw)
        assert {name: found[name] for name in claims} == {**CLAIMS, "teams": ["red"], "limits": {"daily": [1]}}
        found["teams"].append("blue")
        found["limits"]["daily"].append(2)
        found["scope"] = found["admin"] = "yes"


@pytest.mark.parametrize(
    "raw", ["a" * 43, "a", "%00", "é", "a" * 4000, '"quoted"', "a.b.c", ""], ids=lambda raw: f"{raw[:3]}{len(raw)}"
)
def test_refusals(client: TestClient, raw: str) -> None:
    """Another text than the id of a session is rejected like a missing cookie; the real id is accepted."""
    assert me(client) == REFUSED
    client.post("/login", json=CLAIMS)
    own = cookie(client)
    client.cookies.clear()
    assert client.get("/me", headers={"Cookie": b"__Host-session=" + raw.encode("latin-1")}).status_code == 401
    assert me(client, raw.encode("ascii", "ignore").decode()) == REFUSED
    assert me(client, own[:-1] + ("A" if own[-1] != "A" else "B")) == REFUSED
    assert me(client, own) == (200, "ada", None)


def test_two_cookies(client: TestClient) -> None:
    """Of two cookies of the name neither is believed."""
    client.post("/login", json=CLAIMS)
    own = cookie(client)
    client.cookies.clear()
    answer = client.get("/me", headers={"Cookie": f"__Host-session={own}; __Host-session={own}"})
    assert (answer.status_code, answer.json()["detail"]) == (401, "More than one credential")
    assert answer.headers["www-authenticate"] == 'Session realm="api"'
    answer = client.post("/logout", headers={"Cookie": f"__Host-session={own}; __Host-session={own}"})
    assert answer.json() is False
    assert me(client, own) == (200, "ada", None)


def test_an_id_from_before_the_login_is_worthless(client: TestClient) -> None:
    """A planted id is not taken over, and the one of an earlier login ends with the next (session fixation)."""
    client.cookies.set("__Host-session", "p" * 43, domain="app.example")
    client.post("/login", json=CLAIMS)
    first = cookie(client)
    assert first != "p" * 43
    client.post("/login", json={**CLAIMS, "scope": "items:edit"})
    second = cookie(client)
    assert len({first, second}) == 2
    client.cookies.clear()
    assert [me(client, raw) for raw in ("p" * 43, first, second)] == [REFUSED, REFUSED, (200, "ada", None)]


def test_logout(client: TestClient) -> None:
    """A logout ends the session in the store and deletes the cookie; a second one has nothing to end."""
    client.post("/login", json=CLAIMS)
    own = cookie(client)
    answer = client.post("/logout")
    assert answer.json() is True
    cleared = '__Host-session=""; expires='
    assert answer.headers["set-cookie"].startswith(cleared)
    assert "; HttpOnly; Max-Age=0; Path=/; SameSite=lax; Secure" in answer.headers["set-cookie"]
    assert answer.headers["cache-control"] == "no-store"
    assert client.cookies.get("__Host-session") is None
    assert me(client, own) == REFUSED
    assert client.post("/logout").json() is False
    assert client.post("/logout", headers={"Cookie": "__Host-session=x"}).json() is False


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_another_sites_page(client: TestClient, site: str) -> None:
    """A cookie that another site's page made the browser send changes nothing: 403, without a challenge."""
    client.post("/login", json=CLAIMS)
    answer = client.post("/me", headers={"Sec-Fetch-Site": site, "Origin": "https://evil.example"})
    assert (answer.status_code, answer.json()) == (403, {"detail": "Forbidden"})
    assert "www-authenticate" not in answer.headers
    assert client.post("/me", headers={"Sec-Fetch-Site": "same-origin"}).status_code == 200
    assert client.get("/me", headers={"Sec-Fetch-Site": site}).status_code == 200
    with pytest.raises(WebSocketDenialResponse) as refused:
        client.websocket_connect("wss://app.example/feed", headers={"Origin": "https://evil.example"}).__enter__()
    assert refused.value.status_code == 403
    with client.websocket_connect("wss://app.example/feed", headers={"Sec-Fetch-Site": "same-origin"}) as feed:
        assert feed.receive_json() == "ada"


def test_idle_and_absolute_expiry(client: TestClient, clock: Clock) -> None:
    """A session slides while it is used, ends an hour after that, and in any case twelve hours after the login."""
    client.post("/login", json=CLAIMS)
    for _ in range(12):
        clock.move(3599)
        assert me(client)[0] == 200
    clock.move(11)
    assert me(client) == (200, "ada", None)
    clock.move(1)
    assert me(client) == REFUSED
    client.post("/login", json=CLAIMS)
    clock.move(3600)
    assert me(client) == REFUSED


def test_a_stricter_configuration_holds_for_old_sessions(watched: Watched, clock: Clock) -> None:
    """A session does not outlive a configuration that became stricter, and is not listed any more."""
    client = browser(SessionAuth(watched, clock=clock))
    client.post("/login", json=CLAIMS)
    strict = SessionAuth(CountingStore(watched), idle_lifetime=timedelta(minutes=1), clock=clock)
    raw = cookie(client)
    clock.move(60)
    assert me(browser(strict), raw) == REFUSED
    assert asyncio.run(strict.list("ada")) == []
    assert me(client) == (200, "ada", None)


async def test_one_write_a_minute(watched: Watched, clock: Clock) -> None:
    """However often a session is used, its use is stored once a minute, after the response."""
    sessions = SessionAuth(watched, clock=clock)
    response = Response()
    await sessions.login(response, CLAIMS, connection=NOWHERE)
    raw = raw_id(response)
    for _ in range(180):
        clock.move(1)
        assert (await sessions.verify(raw))["sub"] == "ada"
        await sessions.aclose()
    assert watched.writes == 3


def test_a_short_session_slides(watched: Watched, clock: Clock) -> None:
    """A session that ends within two minutes is written down often enough to slide."""
    client = browser(SessionAuth(watched, idle_lifetime=timedelta(seconds=30), clock=clock))
    client.post("/login", json=CLAIMS)
    for _ in range(10):
        clock.move(20)
        assert me(client)[0] == 200
    clock.move(30)
    assert me(client) == REFUSED


def test_a_clock_that_goes_back(client: TestClient, clock: Clock) -> None:
    """A clock that is set back by a minute ends no session, and shortens none."""
    client.post("/login", json=CLAIMS)
    clock.move(-60)
    assert me(client)[0] == 200
    clock.move(60 + 3599)
    assert me(client)[0] == 200


@pytest.mark.parametrize("idle", [timedelta(hours=1), timedelta(seconds=65)])
async def test_a_revoked_session_does_not_come_back(watched: Watched, clock: Clock, idle: timedelta) -> None:
    """A request that began before the revocation does not write the session back after it."""
    sessions = SessionAuth(watched, idle_lifetime=idle, clock=clock)
    session = await sessions.login(Response(), CLAIMS, connection=NOWHERE)
    (record,) = await watched.find(owner_of("ada"))
    clock.move(60)
    await sessions.end(session.id)
    await sessions._see(record, session, clock())
    await sessions.aclose()
    assert await sessions.list("ada") == []


@pytest.mark.parametrize("idle", [timedelta(hours=1), timedelta(seconds=65)])
async def test_a_store_that_is_unavailable(
    watched: Watched, clock: Clock, caplog: pytest.LogCaptureFixture, idle: timedelta
) -> None:
    """An unavailable store is a 503, never a pass; a use that cannot be stored is only logged."""
    sessions = SessionAuth(watched, idle_lifetime=idle, clock=clock)
    response = Response()
    await sessions.login(response, CLAIMS, connection=NOWHERE)
    watched.failing = {"get"}
    answer = browser(sessions).get("/me", headers={"Cookie": f"__Host-session={raw_id(response)}"})
    assert (answer.status_code, answer.json()) == (503, {"detail": "Service temporarily unavailable"})
    assert answer.headers["retry-after"] == "5"
    watched.failing = {"replace"}
    clock.move(61)
    with caplog.at_level(logging.WARNING, "fastapi_guard"):
        assert (await sessions.verify(raw_id(response)))["sub"] == "ada"
        await sessions.aclose()
    messages = [record.message for record in caplog.records if not record.message.startswith("refused by")]
    assert messages == ["1 moments of last use could not be written: ServiceUnavailable"]


async def test_a_cached_session_that_ends_here(store: Store, clock: Clock) -> None:
    """The end of a cached session in this process counts with the next request; the uses of a cached one are stored."""
    sessions = SessionAuth(store, cache_ttl=timedelta(minutes=30), clock=clock)
    response = Response()
    session = await sessions.login(response, CLAIMS, connection=NOWHERE)
    raw = raw_id(response)
    for _ in range(3):
        await sessions.verify(raw)
        clock.move(61)
    await sessions.aclose()
    (listed,) = await sessions.list("ada")
    assert listed.seen_at == session.created_at + 122
    await sessions.end(session.id)
    with pytest.raises(Unauthorized) as refusal:
        await sessions.verify(raw)
    assert refusal.value.reason == "unknown_session"


async def test_list_and_end(store: Store, clock: Clock) -> None:
    """One's sessions are listed, the oldest first, and ended one by one or all at once; those of others are not."""
    sessions = SessionAuth(store, clock=clock)
    await store.add(Record("other", b"no session", owner_of("ada"), None))
    nowhere = Request({"type": "http", "headers": []})
    first = await sessions.login(Response(), CLAIMS, connection=nowhere)
    clock.move(5)
    second = await sessions.login(Response(), CLAIMS, connection=nowhere)
    await sessions.login(Response(), {"sub": "bob"}, connection=nowhere)
    assert await sessions.list("ada") == [first, second]
    assert (first.expires_at, first.seen_at) == (first.created_at + 3600, first.created_at)
    assert await sessions.end(first.id)
    assert not await sessions.end(first.id)
    assert await sessions.list("ada") == [second]
    await sessions.login(Response(), CLAIMS, connection=nowhere)
    assert await sessions.end_all("ada") == 2
    assert await sessions.revoke_subject("bob") == 1
    assert await store.get("other") != [None]


def test_end_all_but_the_current_one(watched: Watched, clock: Clock) -> None:
    """A request ends the other sessions of its subject, and its own continues."""
    sessions = SessionAuth(watched, clock=clock)
    one, other, bob = (browser(sessions) for _ in range(3))
    for client, subject in ((one, "ada"), (other, "ada"), (bob, "bob")):
        client.post("/login", json={"sub": subject})
    assert one.post("/end-others").json() == 1
    assert [me(client)[0] for client in (one, other, bob)] == [200, 401, 200]


def test_renew(watched: Watched, clock: Clock) -> None:
    """A renewed session has a new id, changed claims and the end of the old one, which ends."""
    sessions = SessionAuth(watched, clock=clock)
    one, other = browser(sessions), browser(sessions)
    for client in (one, other):
        client.post("/login", json=CLAIMS)
    before, claims = cookie(one), one.get("/me").json()
    clock.move(600)
    session_id, ended = one.post("/renew").json()
    assert ended == 1
    assert cookie(one) != before
    assert one.get("/me").json() == {**claims, "sid": session_id, "amr": ["pwd", "otp"]}
    assert [me(other)[0], me(one, before)[0]] == [401, 401]
    clock.move(12 * 3600 - 600)
    assert me(one)[0] == 401


async def test_logout_with_a_session_that_was_replaced(store: Store, clock: Clock) -> None:
    """It ends the session that took its place, however often it was replaced, and is good for nothing else."""
    sessions = SessionAuth(store, clock=clock)
    staff = SessionAuth(store, name="staff", clock=clock)
    for times in (1, 3):
        response = Response()
        session = await sessions.login(response, CLAIMS, connection=NOWHERE)
        first = raw = raw_id(response)
        for _ in range(times):
            response = Response()
            session = await sessions.renew(response, session.id, {}, connection=NOWHERE)
            raw = raw_id(response)
        other = await sessions.login(Response(), CLAIMS, connection=NOWHERE)
        assert not await sessions.validate_token(first)
        presented = request(cookie=f"__Host-session={first}")
        assert not await staff.logout(Response(), connection=presented)
        assert await sessions.validate_token(raw)
        answer = Response()
        assert await sessions.logout(answer, connection=presented)
        assert "Max-Age=0" in answer.headers["set-cookie"]
        assert not await sessions.validate_token(raw)
        assert [one.id for one in await sessions.list("ada")] == [other.id]
        assert not await sessions.logout(Response(), connection=presented)
        await sessions.end(other.id)


async def test_logout_while_a_session_is_replaced_twice(clock: Clock) -> None:
    """Of two step-ups at once one succeeds, and a logout with the session before ends what is left of them."""
    memory = MemoryStore(clock=clock)
    store = CountingStore(memory)
    sessions = SessionAuth(store, clock=clock)
    again = SessionAuth(memory, clock=clock)
    response, inner = Response(), Response()
    session = await sessions.login(response, CLAIMS, connection=NOWHERE)
    store.before["delete"] = lambda: again.renew(inner, session.id, {}, connection=NOWHERE)
    with pytest.raises(Unauthorized):
        await sessions.renew(Response(), session.id, {}, connection=NOWHERE)
    assert await sessions.validate_token(raw_id(inner))
    assert await sessions.logout(Response(), connection=request(cookie=f"__Host-session={raw_id(response)}"))
    assert await sessions.list("ada") == []


async def test_a_cached_session_that_is_used_elsewhere(clock: Clock) -> None:
    """A session that another process has prolonged does not expire in the cache of this one."""
    store = MemoryStore(clock=clock)
    sessions = SessionAuth(store, idle_lifetime=timedelta(minutes=15), cache_ttl=3600, clock=clock)
    response = Response()
    session = await sessions.login(response, CLAIMS, connection=NOWHERE)
    assert await sessions.validate_token(raw_id(response))
    clock.move(600)
    used = replace(session, seen_at=clock(), expires_at=clock() + 900).record("session")
    # Past the cache of this process.
    store._records[used.key] = used
    clock.move(330)
    assert await sessions.validate_token(raw_id(response))


async def by_end_all(store: Store, clock: Clock) -> int:
    """End all sessions through their Auth."""
    return await SessionAuth(store, clock=clock).end_all("ada")


async def by_revocation(store: Store, clock: Clock) -> int:
    """End all sessions with a revocation of the subject, through the store alone."""
    return await Revocations(store, clock=clock).revoke_subject("ada")


@pytest.mark.parametrize("end_all", [by_end_all, by_revocation])
async def test_all_sessions_end_while_one_is_replaced(
    store: Store, clock: Clock, end_all: Callable[[Store, Clock], Awaitable[int]]
) -> None:
    """A step-up that takes place after the sessions were found leaves none, however often it is repeated."""
    sessions = SessionAuth(store, clock=clock)
    session = await sessions.login(Response(), CLAIMS, connection=NOWHERE)
    watched = CountingStore(store)

    async def replace_twice() -> None:
        renewed = await sessions.renew(Response(), session.id, {}, connection=NOWHERE)
        await sessions.renew(Response(), renewed.id, {}, connection=NOWHERE)

    watched.before["delete"] = replace_twice
    assert await end_all(watched, clock) == 1
    assert await sessions.list("ada") == []


@pytest.mark.parametrize("moment", ["before", "meanwhile"])
async def test_renewing_a_session_that_was_revoked(watched: Watched, clock: Clock, moment: str) -> None:
    """A session that is revoked before or during its renewal has no successor."""
    store = CountingStore(watched)
    sessions = SessionAuth(store, clock=clock)
    response = Response()
    session = await sessions.login(response, CLAIMS, connection=request())
    if moment == "before":
        await sessions.end(session.id)
    else:
        store.before["delete"] = lambda: watched.delete(SESSION + session.id)
    with pytest.raises(Unauthorized) as error:
        await sessions.renew(Response(), session.id, {}, connection=request())
    assert error.value.reason == "unknown_session"
    assert await sessions.list("ada") == []


def outcome(check: Confirm) -> Complete:
    """Return a login that is complete."""
    user = User(subject_id="ada", username="ada")
    return Complete(user=user, claims={"sub": "ada"}, kept={}, client=Client("192.0.2.9", "Links"), confirm=check)


async def test_a_complete_login(watched: Watched, clock: Clock) -> None:
    """A login that is complete is confirmed once its session is stored, and the session has its client."""
    sessions = SessionAuth(watched, clock=clock)

    async def confirm(sid: str | None = None) -> None:
        assert [session.id for session in await sessions.list("ada")] == [sid]

    session = await sessions.login(Response(), outcome(confirm), connection=request())
    assert await sessions.list("ada") == [session]
    assert session.client == Client("192.0.2.9", "Links")


async def test_a_login_that_is_not_confirmed(watched: Watched, clock: Clock) -> None:
    """There is no session and no cookie where the user changed during the login."""
    sessions, response = SessionAuth(watched, clock=clock), Response()

    async def confirm(sid: str | None = None) -> None:
        raise Unauthorized(reason="changed")

    with pytest.raises(Unauthorized):
        await sessions.login(response, outcome(confirm), connection=request())
    assert await sessions.list("ada") == []
    assert "set-cookie" not in response.headers


async def test_sessions_of_another_auth(store: Store, clock: Clock) -> None:
    """An id is unknown to an Auth of another name on the store, which neither sees nor ends its session."""
    staff = SessionAuth(store, name="staff", clock=clock)
    customers = SessionAuth(store, name="customers", clock=clock)
    response = Response()
    session = await customers.login(response, CLAIMS, connection=request())
    raw = response.headers["set-cookie"].partition("=")[2].partition(";")[0]
    presented = request(cookie=f"__Host-session={raw}")
    assert not await staff.validate_token(raw)
    assert await staff.list("ada") == []
    assert not await staff.end(session.id)
    assert not await staff.logout(Response(), connection=presented)
    assert await staff.end_all("ada") == 0
    await staff.login(Response(), CLAIMS, connection=presented)
    with pytest.raises(Unauthorized):
        await staff.renew(Response(), session.id, {}, connection=presented)
    assert await customers.validate_token(raw)


def test_two_of_one_name(clock: Clock) -> None:
    """Two of one name on one store are an error, unless the first is not in use any more."""
    store = MemoryStore()
    first = SessionAuth(store)
    with pytest.raises(ConfigurationError, match=r"two SessionAuths named 'session' on one store .* name="):
        SessionAuth(store)
    assert SessionAuth(store, name="other")
    del first
    assert SessionAuth(store)


async def test_subjects_of_two_issuers(store: Store, clock: Clock) -> None:
    """The same sub of two issuers is two subjects."""
    sessions = SessionAuth(store, clock=clock)
    await sessions.login(Response(), CLAIMS, connection=request())
    await sessions.login(Response(), {**CLAIMS, "iss": "https://a.example"}, connection=request())
    assert len(await sessions.list("ada")) == len(await sessions.list("ada", issuer="https://a.example")) == 1
    assert await sessions.end_all("ada") == 1
    assert await sessions.end_all("ada", issuer="https://a.example") == 1


@pytest.mark.parametrize("size", [3_000, 64_000])
async def test_a_long_subject(store: Store, clock: Clock, size: int) -> None:
    """A sub of any length is a subject like another."""
    sessions = SessionAuth(store, clock=clock)
    await sessions.login(Response(), {"sub": "x" * size}, connection=request())
    assert [session.subject for session in await sessions.list("x" * size)] == ["x" * size]
    assert await sessions.revoke_subject("x" * size) == 1


async def test_what_is_at_rest(watched: Watched, clock: Clock) -> None:
    """The store holds the hash of an id and no id, and the public id makes no cookie."""
    sessions = SessionAuth(watched, clock=clock)
    response = Response()
    session = await sessions.login(response, CLAIMS, connection=Request({"type": "http", "headers": []}))
    raw = response.headers["set-cookie"].partition("=")[2].partition(";")[0]
    (record,) = watched._records.values()
    assert raw not in f"{record.key} {record.value!r}"
    assert not await sessions.validate_token(session.id)
    assert await sessions.validate_token(raw)


@pytest.mark.parametrize(
    "claims", [{}, {"sub": ""}, {"sub": 7}, {"sub": "a", "x": {1}}, {"sub": "a", "x": float("nan")}]
)
async def test_claims_that_cannot_be_kept(watched: Watched, claims: Any) -> None:
    """Claims without a subject, or that JSON cannot hold, are refused at the login, and no cookie is set."""
    response = Response()
    with pytest.raises(ValueError, match=r"claims of a session|not JSON compliant"):
        await SessionAuth(watched).login(response, claims, connection=Request({"type": "http", "headers": []}))
    assert "set-cookie" not in response.headers
    assert watched._records == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"secure": False}, "accepts '__Host-session' only as a Secure cookie, over https.*base_url"),
        ({"name": "__secure-s", "secure": False}, "accepts '__secure-s' only as a Secure cookie"),
        ({"path": "/app"}, 'only with path="/" and domain=None'),
        ({"domain": "example.com"}, 'only with path="/" and domain=None'),
        ({"name": "s", "path": "app"}, 'path starts with "/"'),
        ({"name": "s", "path": "/app; Domain=example.com"}, 'has no ";"'),
        ({"name": "s", "domain": "https://example.com"}, 'a host such as "example.com", without https://'),
        ({"name": "s", "domain": "example.com:8000"}, "domain is a host"),
        ({"name": "s", "domain": "example.com; Path=/app"}, "domain is a host"),
        ({"name": "s", "domain": "bücher.example"}, "domain is a host"),
        ({"samesite": "any"}, 'samesite is "lax", "strict"'),
        ({"name": "s", "samesite": "none", "secure": False}, 'samesite is "lax", "strict"'),
        ({"name": "s" * 129}, "at most 128 characters"),
    ],
)
def test_a_cookie_that_no_browser_accepts(options: dict[str, Any], message: str) -> None:
    """A cookie that a browser would drop in silence is an error at construction, with the remedy."""
    with pytest.raises(ConfigurationError, match=message):
        CookieSettings(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cookie_settings": CookieSettings(name="a b")}, "cannot be the name of a cookie"),
        ({"idle_lifetime": timedelta()}, "idle_lifetime is a timedelta or a number of seconds, more than 0"),
        ({"absolute_lifetime": "3600"}, "absolute_lifetime is a timedelta"),
        (
            {"idle_lifetime": timedelta(days=1)},
            "idle_lifetime is longer than absolute_lifetime; a number is of seconds",
        ),
        ({"name": "x" * 65}, "a name is text"),
    ],
)
def test_a_configuration_that_cannot_work(options: dict[str, Any], message: str) -> None:
    """Lifetimes and names are checked at construction."""
    with pytest.raises(ConfigurationError, match=message):
        SessionAuth(MemoryStore(), **options)


def test_a_cookie_of_ones_own(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """Without the prefix a cookie can have a path and a domain, and be sent over http, which is logged."""
    with caplog.at_level(logging.WARNING, "fastapi_guard"):
        settings = CookieSettings(name="sid", secure=False, path="/app", samesite="strict")
    assert len(caplog.records) == 1
    assert "over http" in caplog.records[0].message
    sessions = SessionAuth(MemoryStore(clock=clock), cookie_settings=settings, realm="app")
    client = TestClient(application(sessions), base_url="http://app.example")
    answer = client.post("/login", json=CLAIMS)
    assert answer.headers["set-cookie"].endswith("; HttpOnly; Max-Age=43200; Path=/app; SameSite=strict")
    assert me(client)[2] == 'Session realm="app"'
    CookieSettings(name="__Secure-sid", path="/app", domain="example.com")


def test_openapi() -> None:
    """OpenAPI describes the cookie."""
    app = application(SessionAuth(MemoryStore()))
    configure_app(app)
    schemes = app.openapi()["components"]["securitySchemes"]
    assert schemes == {"Session": {"type": "apiKey", "in": "cookie", "name": "__Host-session"}}


class ById(ScopesAuth):
    """An Auth of an application that puts the user's id into Starlette's session."""

    name = "starlette-session"
    _invalid_detail = "Not authenticated"

    async def verify(self, raw: str) -> Claims:
        """Return one of two users."""
        users = {"ada": {"sub": "ada"}, "7": {"sub": "seven"}}
        return users.get(raw)  # type: ignore[return-value]


def test_starlettes_session() -> None:
    """An application with a SessionMiddleware keeps it: the scheme reads the user's id from it."""
    auth = ById(StarletteSessionScheme("user_id"))
    app = FastAPI()

    @app.post("/login")
    async def login(request: Request, body: dict[str, Any]) -> None:
        request.session.update(body)

    @app.api_route("/me", methods=["GET", "POST"])
    async def me(claims: Annotated[Claims, auth.authenticated()]) -> Claims:
        return claims

    without = TestClient(app, base_url="https://app.example")
    with pytest.raises(ConfigurationError, match=r"app\.add_middleware\(SessionMiddleware"):
        without.get("/me")
    app = FastAPI(routes=app.routes)
    app.add_middleware(SessionMiddleware, secret_key="a key of a test", https_only=True)
    client = TestClient(app, base_url="https://app.example")
    answers = []
    for user in (None, "ada", 7, "", "nobody", ["ada"], True):
        client.post("/login", json={"user_id": user})
        answer = client.get("/me")
        answers.append(answer.status_code)
        assert answer.status_code == 200 or (
            answer.json() == {"detail": "Not authenticated"}
            and answer.headers["www-authenticate"] == 'Session realm="api"'
        )
    assert answers == [401, 200, 200, 401, 401, 401, 401]
    client.post("/login", json={"user_id": "ada"})
    assert client.get("/me").headers["vary"] == "Cookie"
    assert client.post("/me", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert client.post("/me", headers={"Sec-Fetch-Site": "same-origin"}).status_code == 200
