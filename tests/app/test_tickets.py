"""Tickets: one request, one minute, some of the maker's scopes, and an end with the maker's credential."""

import asyncio
import base64
import json
import logging
import signal
import threading
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any
from uuid import uuid4

import httpx2
import pytest
import uvicorn
from fastapi import FastAPI, HTTPException, Request, Response, WebSocket
from fastapi.responses import StreamingResponse
from fastapi.testclient import TestClient
from joserfc import jwk
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.pool import StaticPool
from starlette.requests import HTTPConnection
from starlette.websockets import WebSocketDisconnect

from app import ticket_process
from fastapi_guard import (
    AnyAuth,
    APIKeyScheme,
    Auth,
    BearerScheme,
    ConfigurationError,
    Forbidden,
    JWTAuth,
    JWTConfig,
    ScopesAuth,
    ServiceUnavailable,
    SimpleScopeValidator,
    Unauthorized,
    configure_app,
)
from fastapi_guard.api_key.database import DatabaseAPIKeyAuth
from fastapi_guard.api_key.models import Base
from fastapi_guard.app import expires_with
from fastapi_guard.app.ticket_scheme import MAX_CHARACTERS
from fastapi_guard.app.tickets import TicketAuth
from fastapi_guard.events import Event
from fastapi_guard.issuers import MultiOIDCAuth, OIDCAuth
from fastapi_guard.login.revocation import Revocations
from fastapi_guard.login.session import SessionAuth
from fastapi_guard.stores import MemoryStore, Store
from fastapi_guard.stores.sqlalchemy import SQLAlchemyStore
from fastapi_guard.testing import acting_as
from fastapi_guard.testing.issuer import FakeIssuer
from support.asgi import Answer, call_scope, exchange, handshake, scope_of
from support.clock import Clock
from support.login import CountingStore
from support.other_process import store_at
from support.processes import OtherProcess

REFUSED = (401, "The access token is invalid", 'Ticket realm="api"')
ANONYMOUS = (401, "Not authenticated", 'Ticket realm="api"')
SCOPES = "files:read files:write chat:*"


class Maker(ScopesAuth):
    """An Auth whose tokens are any claims, as JSON in hexadecimal."""

    name = "maker"

    async def verify(self, raw: str) -> dict[str, Any]:
        """Return what the token is."""
        claims: dict[str, Any] = json.loads(bytes.fromhex(raw))
        return claims


def token_of(**claims: Any) -> str:
    """Return a token of Maker."""
    return json.dumps({"sub": "ada", "scope": SCOPES, **claims}).encode().hex()


def presented(token: str, path: str = "/") -> Request:
    """Return a request with a token."""
    return Request(scope_of(path, [(b"authorization", b"Bearer " + token.encode())]))


async def ticket_of(
    tickets: TicketAuth, *scopes: str, path: str | None = "/files/1", token: str = "", **claims: Any
) -> str:
    """Return a ticket that the bearer of a token makes."""
    connection = presented(token or token_of(**claims))
    await tickets.maker.decide(connection)
    return (await tickets.issue(connection, *scopes, path=path)).text


def application(*dependencies: Any, paths: tuple[str, ...] = ("/files/{number}",)) -> FastAPI:
    """Return an application with a route and a WebSocket on each path, that return the claims."""
    app = FastAPI(dependencies=list(dependencies))

    async def claims_of(request: Request) -> Any:
        return getattr(request.state, "claims", None)

    async def talk(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.close()

    for path in paths:
        app.api_route(path, methods=["GET", "HEAD", "POST", "PUT", "DELETE"])(claims_of)
        app.websocket(path)(talk)
    return app


async def send(app: Any, ticket: str, path: str = "/files/1", method: str = "GET", more: str = "") -> Answer:
    """Return the response to a request with a ticket."""
    return await exchange(app, path, method=method, query=f"ticket={ticket}{more}".encode())


async def test_a_ticket(store: Store, clock: Clock) -> None:
    """It is valid once, on its path, with the scopes that it was made with; the store has its hash alone."""
    tickets = TicketAuth(store, Maker(), clock=clock)
    app = application(tickets.requires("files:read"))
    ticket = await ticket_of(tickets, "files:read", email="ada@example.org", tenant_id="acme", roles=["admin"], jti="j")
    secret = ticket.partition(".")[0]
    assert len(base64.urlsafe_b64decode(secret + "=")) * 8 >= 128
    assert await store.get(f"ticket:{ticket}") == [None]
    answer = await send(app, ticket)
    assert answer.status == 200
    assert answer.json == {
        "sub": "ada",
        "jti": "j",
        "tenant_id": "acme",
        "scope": "files:read",
        "ticket_of": "maker",
    }
    assert (await send(app, ticket)).refusal == REFUSED


async def test_of_several_at_once_one_passes(store: Store, clock: Clock) -> None:
    """A ticket that comes eight times at the same time is used once, on each kind of store."""
    tickets = TicketAuth(store, Maker(), clock=clock)
    app = application(tickets.authenticated())
    for _ in range(3):
        ticket = await ticket_of(tickets)
        statuses = [answer.status for answer in await asyncio.gather(*(send(app, ticket) for _ in range(8)))]
        assert sorted(statuses) == [200, *([401] * 7)]


async def test_two_processes(request: pytest.FixtureRequest, tmp_path: Path, anyio_backend: str) -> None:
    """A ticket that two processes get at the same time is used once, on each store that processes share."""
    prefix = f"{uuid4().hex}:"
    postgres = request.getfixturevalue("postgres_url").set(drivername="postgresql+asyncpg")
    urls = [
        f"sqlite:///{tmp_path / 'tickets.db'}?timeout=60",
        postgres.render_as_string(hide_password=False),
        request.getfixturevalue("redis_url"),
    ]
    stores = [store_at(url, prefix) for url in urls]
    for store in stores:
        if isinstance(store, SQLAlchemyStore):
            await store.create_table()
    processes = [OtherProcess(ticket_process.main, prefix, urls) for _ in range(2)]
    assert [await asyncio.to_thread(process.receive) for process in processes] == ["ready"] * 2
    for number, store in enumerate(stores):
        tickets = TicketAuth(store, Maker())
        for _ in range(5):
            ticket = await ticket_of(tickets, "a", path="/file", scope="a")
            for process in processes:
                process.send((number, ticket))
            statuses = [await asyncio.to_thread(process.receive) for process in processes]
            assert sorted(statuses) == [200, 401]
    for process in processes:
        process.kill(signal.SIGKILL)
        process.wait()
    for store in stores:
        if isinstance(store, SQLAlchemyStore):
            closed = store._sessions._factory.kw["bind"].dispose()
            if closed is not None:
                await closed
        else:
            await store.aclose()


async def test_one_round_trip() -> None:
    """Making a ticket is one call of the store, and so is using one."""
    store = CountingStore(MemoryStore())
    tickets = TicketAuth(store, Maker())
    ticket = await ticket_of(tickets)
    assert (await send(application(tickets.authenticated()), ticket)).status == 200
    assert store.trips == ["add", "delete"]


CHANGES = [
    *("?", "x", "x.y", "." * 60, "a" * 43 + ".", "a" * 43 + ".e30", "é" * 43 + ".e30", "%00", "a" * 5000),
    *("{secret}", "{secret}.", "{secret}.{payload}A", "{secret}.{other}", "A{secret}.{payload}", "{payload}"),
    *("{secret}.{payload}=", "{secret}.{payload}%20", "%20{secret}.{payload}"),
]


@pytest.mark.parametrize("change", CHANGES)
async def test_other_texts(change: str, clock: Clock) -> None:
    """A text that is not exactly a ticket is refused, and the ticket stays valid."""
    tickets = TicketAuth(MemoryStore(clock=clock), Maker(), clock=clock)
    app = application(tickets.authenticated())
    ticket = await ticket_of(tickets)
    secret, _, payload = ticket.partition(".")
    content = json.loads(base64.urlsafe_b64decode(payload + "=="))
    content["claims"]["sub"] = "eve"
    other = base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")
    answer = await send(app, change.format(secret=secret, payload=payload, other=other))
    assert answer.refusal == REFUSED
    assert (await send(app, ticket)).status == 200


async def test_how_it_is_sent(clock: Clock) -> None:
    """A ticket in another field, or beside another one, is refused; without a ticket the 401 has no code."""
    tickets = TicketAuth(MemoryStore(clock=clock), Maker(), clock=clock)
    app = application(tickets.authenticated())
    ticket = await ticket_of(tickets)
    bearer = [(b"authorization", b"Bearer " + ticket.encode())]
    assert (await exchange(app, "/files/1", bearer)).refusal == ANONYMOUS
    assert (await exchange(app, "/files/1", [(b"cookie", b"ticket=" + ticket.encode())])).refusal == ANONYMOUS
    for query in ("", "ticket", "ticket=", "Ticket=x", "x=ticket"):
        assert (await exchange(app, "/files/1", query=query.encode())).refusal == ANONYMOUS
    twice = await send(app, ticket, more=f"&%74icket={ticket}")
    assert twice.refusal == (401, "More than one credential", 'Ticket realm="api"')
    assert (await send(app, ticket, more="&x=1")).status == 200


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        ("/files/1", "GET", 200),
        ("/files/2", "GET", 401),
        ("/files/1/", "GET", 401),
        ("/FILES/1", "GET", 401),
        ("/files/%31", "GET", 401),
        ("/files/1", "HEAD", 401),
        ("/files/1", "POST", 401),
        ("/files/1", "DELETE", 401),
    ],
)
async def test_the_path(path: str, method: str, status: int, clock: Clock) -> None:
    """A ticket is for the path that the application sees, and for GET; a ticket that came elsewhere is used up."""
    tickets = TicketAuth(MemoryStore(clock=clock), Maker(), clock=clock)
    app = application(tickets.authenticated(), paths=("/{path:path}",))
    ticket = await ticket_of(tickets, path="/files/1")
    assert (await send(app, ticket, path, method)).status == status
    assert (await send(app, ticket)).status == 401


async def test_the_path_of_a_url(clock: Clock) -> None:
    """It may be encoded as in a URL, and with the prefix that a proxy cuts off."""
    tickets = TicketAuth(MemoryStore(clock=clock), Maker(), clock=clock)
    app = application(tickets.authenticated(), paths=("/{path:path}",))
    encoded = await ticket_of(tickets, path="/a%20b/%C3%A9")
    assert (await send(app, encoded, "/a b/é")).status == 200
    for path, status in (("/api/mine", 200), ("/mine", 401)):
        query = f"ticket={await ticket_of(tickets, path=path)}".encode()
        answer = await call_scope(app, {**scope_of("/mine", [], query=query), "root_path": "/api"})
        assert answer.status == status


async def test_a_purpose(clock: Clock) -> None:
    """A ticket for a purpose is valid wherever its Auth guards, and nowhere else."""
    store = MemoryStore(clock=clock)
    tickets = TicketAuth(store, Maker(), purpose="chat", clock=clock)
    other = TicketAuth(store, Maker(), name="other", purpose="chat", clock=clock)
    app = application(tickets.authenticated(), paths=("/a", "/b"))
    for path in ("/a", "/b"):
        assert (await send(app, await ticket_of(tickets, path=None), path)).status == 200
    assert (await send(app, await ticket_of(other, path=None), "/a")).refusal == REFUSED
    assert (await tickets.verify(await ticket_of(tickets, path=None)))["sub"] == "ada"
    with pytest.raises(ValueError, match=r"^a ticket for a purpose has no path: leave path out$"):
        await ticket_of(tickets, path="/a")


async def test_a_purpose_that_changed(clock: Clock) -> None:
    """A ticket from before a change of the purpose is refused, and one with a path outside of a request."""
    store = MemoryStore(clock=clock)
    tickets = TicketAuth(store, Maker(), purpose="chat", clock=clock)
    ticket = await ticket_of(tickets, path=None)
    tickets._purpose = "calls"
    with pytest.raises(Unauthorized):
        await tickets.verify(ticket)
    tickets._purpose = None
    with pytest.raises(Unauthorized):
        await tickets.verify(await ticket_of(tickets))


async def test_a_lifetime(clock: Clock) -> None:
    """A ticket lives for a minute, or as long as its maker's credential if that is shorter."""
    tickets = TicketAuth(MemoryStore(clock=clock), Maker(), clock=clock)
    app = application(tickets.authenticated())
    for claims, seconds in (({}, 60), ({"exp": clock() + 5}, 5), ({"exp": clock() + 1000}, 60)):
        for late, status in ((0.01, 200), (-0.01, 401)):
            ticket = await ticket_of(tickets, **claims)
            clock.move(seconds - late)
            assert (await send(app, ticket)).status == status
            clock.move(late - seconds)
    for seconds, shown in ((5, 5), (1, 1), (0.5, 1)):
        connection = presented(token_of(exp=clock() + seconds))
        await tickets.maker.decide(connection)
        assert (await tickets.issue(connection, path="/a")).expires_in == shown
    for expired in (clock(), clock() - 5, "soon", True):
        with pytest.raises(Unauthorized):
            await ticket_of(tickets, exp=expired)


async def test_a_ticket_that_is_not_used(clock: Clock) -> None:
    """The store keeps the hash of a ticket no longer than the ticket is valid."""
    store = MemoryStore(clock=clock)
    await ticket_of(TicketAuth(store, Maker(), lifetime=timedelta(seconds=30), clock=clock))
    [record] = store._records.values()
    assert (record.value, record.owner, record.expires_at) == (b"", None, clock() + 30)


async def test_a_ticket_is_short(clock: Clock) -> None:
    """It is part of a URL: its claims are JSON without white space."""
    ticket = await ticket_of(TicketAuth(MemoryStore(clock=clock), Maker(), clock=clock), "files:read")
    written = base64.urlsafe_b64decode(ticket.partition(".")[2] + "==")
    assert written == json.dumps(json.loads(written), separators=(",", ":")).encode()


async def test_a_store_with_another_clock(clock: Clock) -> None:
    """The lifetime is checked by the clock of the Auth too."""
    tickets = TicketAuth(MemoryStore(clock=lambda: 0), Maker(), clock=clock)
    ticket = await ticket_of(tickets)
    clock.move(60)
    assert (await send(application(tickets.authenticated()), ticket)).refusal == REFUSED


async def test_scopes(clock: Clock) -> None:
    """A ticket grants what it was made with, by default nothing, and never more than its maker has."""
    tickets = TicketAuth(MemoryStore(clock=clock), Maker(), clock=clock)
    reading = application(tickets.requires("files:read"))
    missing = (403, "Token is missing required scope: files:read")
    for scopes in ((), ("files:write",), ("chat:*",)):
        assert (await send(reading, await ticket_of(tickets, *scopes))).refusal[:2] == missing
    assert (await send(reading, await ticket_of(tickets, "files:write", "files:read"))).status == 200
    chatting = application(tickets.requires("chat:post"))
    assert (await send(chatting, await ticket_of(tickets, "chat:*"))).status == 200
    for scope in ("files:delete", "files:*", "*:read", "*", "admin"):
        with pytest.raises(Forbidden) as refused:
            await ticket_of(tickets, scope)
        assert refused.value.detail == f"Token is missing required scope: {scope}"
    for scope in ("", "a b", 'a"b', "é"):
        with pytest.raises(ValueError, match="scope"):
            await ticket_of(tickets, scope)


async def test_roles_and_marks_stay_behind(clock: Clock) -> None:
    """A ticket has no role and no administrator mark, whatever its maker has."""
    tickets = TicketAuth(MemoryStore(clock=clock), Maker(), keeps=["department"], clock=clock)
    claims = {"roles": ["admin"], "is_admin": True, "role": "admin", "department": "x", "password": "hidden"}
    for guard in (tickets.requires_admin(), tickets.requires_role("admin")):
        assert (await send(application(guard), await ticket_of(tickets, **claims))).status == 403
    answer = await send(application(tickets.authenticated()), await ticket_of(tickets, **claims))
    assert answer.json == {"sub": "ada", "department": "x", "scope": "", "ticket_of": "maker"}
    assert tickets.grants_of({**claims, "scope": "a"}).roles == frozenset()


async def test_a_validator_of_the_maker(clock: Clock) -> None:
    """The coverage of a scope is decided as for the maker: a verbatim ``files:*`` does not become a wildcard."""
    maker = Maker(scope_validator=SimpleScopeValidator())
    tickets = TicketAuth(MemoryStore(clock=clock), maker, clock=clock)
    ticket = await ticket_of(tickets, "files:*", scope="files:*")
    assert (await send(application(tickets.requires("files:read")), ticket)).status == 403


async def test_several_makers(clock: Clock) -> None:
    """A ticket of an AnyAuth has the scopes of the member that verified, and a member that is gone ends it."""
    store = MemoryStore(clock=clock)
    first, second = Maker(name="first"), Maker(APIKeyScheme("X-Key"), name="second")
    tickets = TicketAuth(store, AnyAuth(first, second), clock=clock)
    app = application(tickets.authenticated())
    answer = await send(app, await ticket_of(tickets, "a", scope="a"))
    assert (answer.json["ticket_of"], answer.json["scope"]) == ("first", "a")
    ticket = await ticket_of(tickets)
    del tickets._makers["first"]
    assert (await send(app, ticket)).refusal == REFUSED


async def test_who_may_make_one(clock: Clock) -> None:
    """Without a verified credential of the maker there is no ticket; a test may act as a caller."""
    tickets = TicketAuth(MemoryStore(clock=clock), Maker(), clock=clock)
    with pytest.raises(Unauthorized, match="Not authenticated"):
        await tickets.issue(presented("00"), path="/a")
    app = FastAPI()

    @app.post("/make", dependencies=[tickets.maker.authenticated()])
    async def make(request: Request) -> str:
        return (await tickets.issue(request, path="/files/1")).text

    with acting_as(app, tickets.maker, {"sub": "test"}):
        ticket = TestClient(app).post("/make").json()
    assert (await send(application(tickets.authenticated()), ticket)).json["sub"] == "test"


@pytest.mark.parametrize("path", ["", "files", "//?", "/a?x=1", "/a#b", "/a b", "/é", "/a\n", "/" + "a" * 2048, None])
async def test_paths_that_cannot_be(path: Any, clock: Clock) -> None:
    """A path is one of a URL, from the root, without a query."""
    tickets = TicketAuth(MemoryStore(clock=clock), Maker(), clock=clock)
    with pytest.raises(ValueError, match=r"^a ticket is for a path such as /files/1, without a query$"):
        await ticket_of(tickets, path=path)
    assert await ticket_of(tickets, path="/" + "a" * 2047)


async def test_claims_that_are_too_long(clock: Clock) -> None:
    """A ticket is part of a URL."""
    tickets = TicketAuth(MemoryStore(clock=clock), Maker(), clock=clock)
    message = "the claims, the scopes and the path are too long for a ticket, which is part of a URL"
    with pytest.raises(ValueError, match=f"^{message}$"):
        await ticket_of(tickets, sub="a" * 4000)
    longest = 0
    for size in range(2800, 3000):
        with suppress(ValueError):
            longest = max(longest, len(await ticket_of(tickets, sub="a" * size)))
    assert longest == MAX_CHARACTERS


def test_another_thing_than_a_store() -> None:
    """The error names the argument."""
    with pytest.raises(ConfigurationError, match=r"^store is a Store, such as MemoryStore\(\), not text of 6"):
        TicketAuth("memory", Maker())  # type: ignore[arg-type]


async def test_the_event_of_a_scope_that_the_maker_does_not_have(clock: Clock) -> None:
    """A ticket that is not made is an event of the maker, with the request that wanted it."""
    events: list[Event] = []
    tickets = TicketAuth(MemoryStore(clock=clock), Maker(on_event=events.append), clock=clock)
    with pytest.raises(Forbidden):
        await ticket_of(tickets, "files:delete")
    refused = events[-1]
    assert (refused.name, refused.auth, refused.status, refused.method) == ("refused", "maker", 403, "GET")


_MAKER = "maker is an Auth with scopes, such as a SessionAuth or a JWTAuth"
_PURPOSE = "purpose is a text such as 'chat', or left out"
_KEEPS = (
    "keeps is a list of claims, none of cnf, exp, is_admin, role, roles, scope, scp, ticket_of: a ticket grants its"
    " scopes alone"
)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"maker": Auth(BearerScheme())}, f"{_MAKER}, not Auth"),
        ({"maker": AnyAuth(Maker(), Auth(BearerScheme(), name="x"))}, f"{_MAKER}, not Auth"),
        ({"maker": TicketAuth(MemoryStore(), Maker())}, f"{_MAKER}, not TicketAuth"),
        (
            {"maker": AnyAuth(Maker(), Maker(scope_validator=SimpleScopeValidator(), name="x"))},
            "a ticket grants what its maker's scopes cover: give all members the same scope validator",
        ),
        ({"purpose": ""}, f"{_PURPOSE}, not text of 0 characters"),
        ({"purpose": 1}, f"{_PURPOSE}, not 1"),
        ({"purpose": "a\n"}, f"{_PURPOSE}, not text of 2 characters"),
        ({"keeps": "email"}, "keeps is a list of claims, not text of 5 characters"),
        ({"keeps": [1]}, "keeps is a list of claims, not of 1"),
        (
            {"roles": {"admin": ["*"]}, "default_role": "admin"},
            "TicketAuth has no argument default_role, roles: a ticket grants its own scopes, and no role",
        ),
        (
            {"scope_claims": ["permissions"]},
            "TicketAuth has no argument scope_claims: a ticket grants its own scopes, and no role",
        ),
        ({"keeps": ["roles"]}, _KEEPS),
        ({"keeps": ["is_admin"]}, _KEEPS),
        (
            {"lifetime": timedelta(seconds=61)},
            "lifetime is at most 60 seconds, not 0:01:01: a ticket is made right before it is used",
        ),
        ({"lifetime": timedelta(0)}, "lifetime is a timedelta or a number of seconds, more than 0, not 0:00:00"),
        ({"parameter": ""}, "'' cannot be the name of a query: use a token of RFC 9110 5.6.2"),
        ({"name": ""}, "a name is text of 1 to 64 printable characters, not text of 0 characters"),
    ],
)
def test_settings(options: dict[str, Any], message: str) -> None:
    """A setting that cannot work is refused when it is constructed."""
    with pytest.raises(ConfigurationError) as error:
        TicketAuth(MemoryStore(), **{"maker": Maker(), **options})
    assert str(error.value) == message


def test_two_of_one_name() -> None:
    """Two Auths of tickets on one store have different names."""
    store = MemoryStore()
    kept = TicketAuth(store, Maker())
    with pytest.raises(ConfigurationError) as error:
        TicketAuth(store, Maker())
    assert str(error.value) == (
        "two TicketAuths named 'ticket' on one store would accept each other's records:"
        ' pass TicketAuth(store, auth, name="...")'
    )
    assert TicketAuth(store, Maker(), name="other").maker is not kept.maker


class Failing(MemoryStore):
    """A store without a network."""

    error: Exception = ServiceUnavailable()

    async def delete(self, key: str) -> bool:
        """Fail."""
        raise self.error


async def reason_of(attempt: Awaitable[object]) -> str:
    """Return the reason of a 401."""
    with pytest.raises(Unauthorized) as error:
        await attempt
    return error.value.reason


async def test_the_reasons(clock: Clock) -> None:
    """Each refusal has its reason for the log and for events, and one text for the client."""
    tickets = TicketAuth(MemoryStore(clock=clock), Maker(), clock=clock)
    other = Request(scope_of("/files/2", []))
    used = await ticket_of(tickets)
    assert (await tickets.verify_request(Request(scope_of("/files/1", [])), used))["sub"] == "ada"
    assert await reason_of(tickets.verify(used)) == "unknown_ticket"
    assert await reason_of(tickets.verify_request(other, await ticket_of(tickets))) == "other_target"
    assert await reason_of(tickets.verify(await ticket_of(tickets))) == "other_target"
    assert await reason_of(tickets.issue(Request(scope_of("/", [])), path="/files/1")) == "missing"
    for exp, reason in (
        (clock(), "expired"),
        (clock() - 1, "expired"),
        ("soon", "malformed_claim"),
        (True, "malformed_claim"),
    ):
        assert await reason_of(ticket_of(tickets, exp=exp)) == reason
    assert await ticket_of(tickets, exp=clock() + 0.5)


async def test_the_reason_of_a_scope_that_was_taken_away(clock: Clock) -> None:
    """A ticket with a scope that the maker's credential does not grant any more is refused; another one is valid."""

    class Reduced(Maker):
        """An Auth whose credentials grant reading alone by the time that a ticket is used."""

        async def _current(self, principal: dict[str, Any], connection: HTTPConnection | None) -> dict[str, Any]:
            return {**principal, "scope": "files:read"}

    tickets = TicketAuth(MemoryStore(clock=clock), Reduced(), clock=clock)
    connection = Request(scope_of("/files/1", []))
    assert await tickets.verify_request(connection, await ticket_of(tickets, "files:read"))
    writing = await ticket_of(tickets, "files:read", "files:write")
    assert await reason_of(tickets.verify_request(connection, writing)) == "scope_taken_away"


async def test_the_reasons_of_the_maker(clock: Clock) -> None:
    """The log names a maker that is gone, a credential that has expired, and a refusal of the maker."""

    class Refusing(Maker):
        """An Auth that has ended every credential."""

        async def _current(self, principal: dict[str, Any], connection: HTTPConnection | None) -> dict[str, Any]:
            raise Unauthorized(reason="revoked")

    tickets = TicketAuth(MemoryStore(clock=clock), Refusing(), purpose="chat", clock=clock)
    assert await reason_of(tickets.verify(await ticket_of(tickets, path=None))) == "maker_revoked"
    claims = {"ticket_of": "another", "scope": ""}
    assert await reason_of(tickets._check_maker(claims, None)) == "unknown_maker"
    claims = {"ticket_of": "maker", "scope": "", "exp": clock()}
    assert await reason_of(tickets._check_maker(claims, None)) == "expired"


async def test_a_store_that_forgets_late(clock: Clock) -> None:
    """A ticket has expired by the clock, at the very second, whatever is still in the store."""
    tickets = TicketAuth(MemoryStore(clock=lambda: 0.0), Maker(), purpose="chat", clock=clock)
    for late, expired in ((59.75, False), (60, True)):
        ticket = await ticket_of(tickets, path=None)
        clock.move(late)
        if expired:
            assert await reason_of(tickets.verify(ticket)) == "expired"
        else:
            assert await tickets.verify(ticket)


async def test_a_store_that_is_unavailable(clock: Clock) -> None:
    """It is a 503, whether the store raises a 503 or an error of its own."""
    store = Failing(clock=clock)
    tickets = TicketAuth(store, Maker(), clock=clock)
    app = application(tickets.authenticated())
    for store.error in (ServiceUnavailable(), OSError("lost")):
        assert (await send(app, await ticket_of(tickets))).status == 503
    with pytest.raises(ServiceUnavailable) as error:
        await tickets.verify(await ticket_of(tickets))
    assert error.value.reason == "tickets_unreachable"


async def test_logs_and_the_application_do_not_see_it(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """After the guard the query string is without the ticket; our log, repr and errors never have it."""
    caplog.set_level(logging.DEBUG)
    tickets = TicketAuth(MemoryStore(clock=clock), Maker(), clock=clock)
    seen: list[str] = []
    app = FastAPI(dependencies=[tickets.optional()])

    @app.get("/files/1", dependencies=[tickets.authenticated()])
    async def show(request: Request) -> None:
        seen.append(str(request.url))

    ticket = await ticket_of(tickets)
    connection = presented(token_of())
    await tickets.maker.decide(connection)
    assert "." not in repr(await tickets.issue(connection, path="/a"))
    assert (await exchange(app, "/files/1", query=f"a=%20&ticket={ticket}&b".encode())).status == 200
    assert seen == ["https://api.example/files/1?a=%20&b"]
    assert (await send(app, ticket, "/other")).status == 404
    assert ticket not in caplog.text


class Raising(Maker):
    """An Auth that raises an error."""

    def __init__(self, error: HTTPException) -> None:
        """Raise `error`, whatever the token is."""
        super().__init__()
        self.error = error

    async def verify(self, raw: str) -> dict[str, Any]:
        """Raise it."""
        raise self.error


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize(
    ("first", "via", "token", "path", "statuses"),
    [
        (Maker(), None, token_of(), "/files/1", (200, 200)),
        (Maker(), None, token_of(), "/files/2", (200, 200)),
        (Maker(), ["maker"], token_of(), "/files/1", (200, 200)),
        (Maker(), ["ticket"], token_of(), "/files/1", (200, 200)),
        (Raising(Unauthorized(reason="x")), None, token_of(), "/files/1", (200, 200)),
        (Raising(Unauthorized(reason="x")), None, token_of(), "/files/2", (401, 401)),
        (Maker(), None, None, "/files/1", (200, 200)),
        (Raising(HTTPException(418)), None, token_of(), "/files/1", (418, 200)),
    ],
)
async def test_beside_another_credential(
    order: int,
    first: Maker,
    via: list[str] | None,
    token: str | None,
    path: str,
    statuses: tuple[int, int],
    clock: Clock,
) -> None:
    """In any order of members, the first that accepts decides, and a ticket is removed from the URL and used up."""
    tickets = TicketAuth(MemoryStore(clock=clock), Maker(), clock=clock)
    seen: list[Any] = []
    app = FastAPI()
    either = AnyAuth(*[first, tickets][::order])

    @app.get("/files/{number}", dependencies=[either.authenticated(via=via)])
    async def show(number: int) -> int:
        """Return the number of the file."""
        return number

    async def noted(scope: Any, receive: Any, send: Any) -> None:
        await app(scope, receive, send)
        seen.append((scope["query_string"], scope["state"].get("auth_method")))

    ticket = await ticket_of(tickets)
    fields = [] if token is None else [(b"authorization", f"Bearer {token}".encode())]
    answer = await exchange(noted, path, fields, query=f"ticket={ticket}&x=1".encode())
    assert (answer.status, seen[0][0]) == (statuses[0 if order == 1 else 1], b"x=1")
    decides = "maker" if type(first) is Maker and token and (order == 1 or path != "/files/1") else "ticket"
    assert seen[0][1] == (None if answer.status != 200 else via[0] if via else decides)
    again = await exchange(noted, "/files/1", query=f"ticket={ticket}".encode())
    assert again.status == 401


async def test_beside_another_credential_that_cannot_be_used_up(clock: Clock) -> None:
    """The member before them decides all the same: the store is unavailable, or there are two tickets."""
    store = CountingStore(MemoryStore(clock=clock))
    tickets = TicketAuth(store, Maker(), clock=clock)
    app = application((Maker() | tickets).authenticated())
    bearer = [(b"authorization", b"Bearer " + token_of().encode())]
    ticket = await ticket_of(tickets)
    for query in (f"ticket={ticket}", f"ticket={ticket}&ticket={ticket}", "ticket=?", ""):
        assert (await exchange(app, "/files/1", bearer, query=query.encode())).status == 200
    assert store.trips == ["add", "delete"]
    lost = TicketAuth(Failing(clock=clock), Maker(), clock=clock)
    app = application((Maker() | lost).authenticated())
    assert (await exchange(app, "/files/1", bearer, query=f"ticket={ticket}".encode())).status == 200


@pytest.mark.parametrize("several", [False, True])
async def test_a_copy_with_another_ticket(several: bool, clock: Clock) -> None:
    """A copy of a scope with another ticket is decided by that ticket, also while others are decided."""
    tickets = TicketAuth(MemoryStore(clock=clock), Maker(), clock=clock)
    auth: Auth[Any] = Maker() | tickets if several else tickets
    texts = [await ticket_of(tickets, sub=sub) for sub in ("ada", "bob", "eve")]
    outer = Request(scope_of("/files/1", [], query=f"ticket={texts[0]}".encode()))
    first = await auth.decide(outer)
    copies = [Request({**outer.scope, "query_string": f"ticket={text}".encode()}) for text in (*texts[1:], "x.y")]
    decided = await asyncio.gather(*map(auth.decide, copies))
    assert [getattr(one, "principal", {}).get("sub") for one in (first, *decided)] == ["ada", "bob", "eve", None]
    # A further guard of each.
    assert [await auth.decide(connection) for connection in (outer, *copies)] == [first, *decided]


async def test_what_was_verified_before_stays_verified(clock: Clock) -> None:
    """Taking the ticket out of the query string verifies no other credential again."""
    maker = Maker()
    verified: list[str] = []
    verify = maker.verify

    async def counted(raw: str) -> dict[str, Any]:
        verified.append(raw)
        return await verify(raw)

    maker.verify = counted  # type: ignore[method-assign]
    tickets = TicketAuth(MemoryStore(clock=clock), maker, clock=clock)
    app = application(maker.optional(), tickets.authenticated(), maker.authenticated())
    ticket = await ticket_of(tickets)
    verified.clear()
    bearer = [(b"authorization", b"Bearer " + token_of().encode())]
    assert (await exchange(app, "/files/1", bearer, query=f"ticket={ticket}".encode())).status == 200
    assert len(verified) == 1


def test_the_access_log_of_a_server(caplog: pytest.LogCaptureFixture) -> None:
    """The line that uvicorn logs of a request is without the ticket, whether it was accepted or refused."""
    caplog.set_level(logging.INFO, logger="uvicorn.access")
    caplog.set_level(logging.INFO, logger="uvicorn.error")
    tickets = TicketAuth(MemoryStore(), Maker())
    app = application(tickets.authenticated())
    config = uvicorn.Config(app, port=0, log_config=None, lifespan="off")
    server = uvicorn.Server(config)
    started = threading.Event()
    startup = server.startup

    async def tell(*arguments: Any, **options: Any) -> None:
        await startup(*arguments, **options)
        started.set()

    server.startup = tell  # type: ignore[method-assign]
    thread = threading.Thread(target=server.run)
    thread.start()
    assert started.wait(60)
    port = server.servers[0].sockets[0].getsockname()[1]
    ticket = asyncio.run(ticket_of(tickets))
    try:
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}") as client:
            answers = [client.get(f"/files/1?ticket={ticket}&a=1").status_code for _ in range(2)]
    finally:
        server.should_exit = True
        thread.join()
    assert answers == [200, 401]
    assert '"GET /files/1?a=1 HTTP/1.1" 200' in caplog.text
    assert '"GET /files/1?a=1 HTTP/1.1" 401' in caplog.text
    assert ticket not in caplog.text


OFTEN = 0.02


def closes_after(app: FastAPI, ticket: str, change: Any) -> tuple[int, str | None]:
    """Return the close of a WebSocket that a ticket opened, after a change."""
    with TestClient(app).websocket_connect(f"/ws?ticket={ticket}") as session:
        session.send_text("hello")
        assert session.receive_text() == "hello"
        change()
        with pytest.raises(WebSocketDisconnect) as closed:
            session.receive_text()
    return closed.value.code, closed.value.reason


def talking(tickets: TicketAuth, end: Callable[[], Awaitable[None]]) -> FastAPI:
    """Return an application with a WebSocket, and a stream that calls `end`: both last as long as the credential."""
    app = FastAPI()

    @app.websocket("/ws")
    async def talk(websocket: WebSocket, claims: Annotated[Any, tickets.requires("chat:read")]) -> None:
        await websocket.accept()
        async with expires_with(websocket, claims, every=OFTEN):
            async for text in websocket.iter_text():
                await websocket.send_text(text)

    @app.get("/stream")
    async def stream(request: Request, claims: Annotated[Any, tickets.requires("chat:read")]) -> StreamingResponse:
        async def endless() -> AsyncIterator[str]:
            yield "first"
            await end()
            await asyncio.Event().wait()

        return StreamingResponse(expires_with(request, claims, every=OFTEN).over(endless()))

    return app


class Kind(ABC):
    """An Auth with state: how a caller gets a credential, and how that ends."""

    auth: ScopesAuth

    @abstractmethod
    async def connection(self) -> Request:
        """Return a request with a valid credential that grants chat:read."""

    @abstractmethod
    async def end(self) -> None:
        """End the credential."""


class Tokens(Kind):
    """A JWTAuth whose tokens are revoked by their ids."""

    def __init__(self) -> None:
        """Make the Auth."""
        self.revocations = Revocations(MemoryStore())
        self.auth: JWTAuth = JWTAuth(JWTConfig(key=jwk.OctKey.generate_key(256)), revocations=self.revocations)

    async def connection(self) -> Request:
        """Return a request with a token."""
        token = self.auth.encode({"sub": "ada", "scope": "chat:read"})
        self.claims = await self.auth.verify(token)
        return presented(token)

    async def end(self) -> None:
        """Revoke the token."""
        await self.revocations.revoke(self.claims)


class Subjects(Tokens):
    """A JWTAuth whose tokens are revoked with their subject."""

    async def end(self) -> None:
        """Revoke the subject."""
        await self.revocations.revoke_subject("ada")


class Providers(Tokens):
    """A MultiOIDCAuth with revocations."""

    def __init__(self) -> None:
        """Make the Auth."""
        self.issuer = FakeIssuer()
        self.revocations = Revocations(MemoryStore())
        provider = OIDCAuth(
            issuer=self.issuer.url,
            audience=self.issuer.audience,
            client=self.issuer.client,
            revocations=self.revocations,
        )
        self.auth = MultiOIDCAuth({"one": provider})  # type: ignore[assignment]

    async def connection(self) -> Request:
        """Return a request with a token of the issuer."""
        token = self.issuer.token(sub="ada", scope="chat:read")
        self.claims = await self.auth.verify(token)
        return presented(token)


class Sessions(Kind):
    """A SessionAuth, from which the user logs out."""

    def __init__(self) -> None:
        """Make the Auth."""
        self.auth: SessionAuth = SessionAuth(MemoryStore())

    async def connection(self) -> Request:
        """Return a request with the cookie of a new session."""
        anonymous = Request(scope_of("/", []))
        response = Response()
        self.session = await self.auth.login(response, {"sub": "ada", "scope": "chat:read"}, connection=anonymous)
        cookie = response.headers["set-cookie"].partition(";")[0]
        return Request(scope_of("/", [(b"cookie", cookie.encode())]))

    async def end(self) -> None:
        """Log out."""
        await self.auth.end(self.session.id)


class Keys(Kind):
    """A DatabaseAPIKeyAuth, one of whose keys is revoked."""

    def __init__(self) -> None:
        """Make the Auth."""
        self.engine = create_async_engine("sqlite+aiosqlite://", poolclass=StaticPool)
        self.auth: DatabaseAPIKeyAuth = DatabaseAPIKeyAuth(async_sessionmaker(self.engine))

    async def connection(self) -> Request:
        """Return a request with a new key."""
        async with self.engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        self.key, raw = await self.auth.create(user_id="ada", scopes=["chat:read"])
        return presented(raw)

    async def end(self) -> None:
        """Revoke the key."""
        await self.auth.revoke(self.key)


KINDS = [Tokens, Subjects, Providers, Sessions, Keys]


@pytest.mark.parametrize("kind", KINDS)
async def test_an_end_before_the_ticket_is_used(kind: type[Kind]) -> None:
    """A ticket is refused when the credential of its maker was revoked; before it is valid."""
    made = kind()
    tickets = TicketAuth(MemoryStore(), made.auth)
    app = application(tickets.requires("chat:read"))
    connection = await made.connection()
    await made.auth.decide(connection)
    first, second = [(await tickets.issue(connection, "chat:read", path="/files/1")).text for _ in range(2)]
    assert (await send(app, first)).status == 200
    await made.end()
    assert (await send(app, second)).refusal == REFUSED
    if isinstance(made, Keys):
        await made.engine.dispose()


async def opening(made: Kind, tickets: TicketAuth, path: str) -> str:
    """Return a ticket for a path, made with a new credential."""
    connection = await made.connection()
    await made.auth.decide(connection)
    return (await tickets.issue(connection, "chat:read", path=path)).text


@pytest.mark.parametrize("kind", [Tokens, Subjects, Providers, Sessions])
def test_an_end_while_a_connection_is_open(kind: type[Kind]) -> None:
    """A WebSocket and a stream that a ticket opened end when the credential of its maker does."""
    for path in ("/ws", "/stream"):
        made = kind()
        tickets = TicketAuth(MemoryStore(), made.auth)
        ticket = asyncio.run(opening(made, tickets, path))
        app = talking(tickets, made.end)
        if path == "/ws":
            closed = closes_after(app, ticket, lambda made=made: asyncio.run(made.end()))
            assert closed == (1008, "The credential is no longer valid")
        else:
            assert TestClient(app).get(f"/stream?ticket={ticket}").text == "first"


async def test_an_api_key_that_ends_while_a_connection_is_open() -> None:
    """A revoked, paused or unknown key is not valid any more, and one without the scope neither."""
    made = Keys()
    tickets = TicketAuth(MemoryStore(), made.auth)
    connection = await made.connection()
    await made.auth.decide(connection)
    ticket = await tickets.issue(connection, "chat:read", path="/files/1")
    claims = (await send(application(tickets.authenticated()), ticket.text)).json
    assert await tickets.still_valid(claims)
    assert not await tickets.still_valid({**claims, "scope": "chat:write"})
    assert not await tickets.still_valid({**claims, "key_id": "unknown"})
    await made.end()
    assert not await tickets.still_valid(claims)
    await made.engine.dispose()


async def test_an_api_key_for_a_network(clock: Clock) -> None:
    """A ticket of a key that is bound to a network is refused from elsewhere."""
    made = Keys()
    await made.connection()
    _, raw = await made.auth.create(user_id="ada", allowed_networks=["198.51.100.0/24"])
    tickets = TicketAuth(MemoryStore(), made.auth)
    connection = Request({**presented(raw).scope, "client": ("198.51.100.7", 1)})
    await made.auth.decide(connection)
    ticket = await tickets.issue(connection, path="/files/1")
    answer = await send(application(tickets.authenticated()), ticket.text)
    assert answer.status == 403
    await made.engine.dispose()


async def test_an_issuer_that_is_gone() -> None:
    """A ticket of a provider that is no longer configured is refused."""
    made = Providers()
    tickets = TicketAuth(MemoryStore(), made.auth)
    connection = await made.connection()
    await made.auth.decide(connection)
    ticket = await tickets.issue(connection, path="/files/1")
    made.auth._by_issuer.clear()  # type: ignore[attr-defined]
    assert (await send(application(tickets.authenticated()), ticket.text)).refusal == REFUSED


async def test_a_maker_that_is_unavailable(clock: Clock) -> None:
    """If the credential of the maker cannot be checked, the ticket is a 503, and nothing is decided."""

    class Away(Maker):
        """An Auth whose state cannot be reached."""

        async def _current(self, principal: dict[str, Any], connection: HTTPConnection | None) -> dict[str, Any]:
            raise ServiceUnavailable

    tickets = TicketAuth(MemoryStore(clock=clock), Away(), clock=clock)
    assert (await send(application(tickets.authenticated()), await ticket_of(tickets))).status == 503
    with pytest.raises(ServiceUnavailable):
        await tickets.still_valid({"ticket_of": "maker", "scope": ""})


async def test_the_exp_of_the_maker(clock: Clock) -> None:
    """A connection ends at the ``exp`` of the maker's credential."""
    tickets = TicketAuth(MemoryStore(clock=clock), Maker(), clock=clock)
    app = application(tickets.authenticated())
    claims = (await send(app, await ticket_of(tickets, exp=clock() + 3600))).json
    assert claims["exp"] == clock() + 3600
    assert await tickets.still_valid(claims)
    clock.move(3600)
    assert not await tickets.still_valid(claims)


def test_a_websocket(clock: Clock) -> None:
    """A handshake with a ticket is accepted once."""
    tickets = TicketAuth(MemoryStore(clock=clock), Maker(), clock=clock)
    app = application(tickets.authenticated())
    ticket = asyncio.run(ticket_of(tickets))
    assert [handshake(app, "/files/1", query=f"ticket={ticket}".encode()).status for _ in range(2)] == [101, 401]


def test_openapi() -> None:
    """The scheme is an API key in the query; those of two parameters have two names."""
    store, maker = MemoryStore(), Maker()
    app = FastAPI()
    for parameter in ("ticket", "t"):
        tickets = TicketAuth(store, maker, name=parameter, parameter=parameter)
        app.get(f"/{parameter}", dependencies=[tickets.authenticated()])(lambda: None)
    configure_app(app)
    with TestClient(app) as client:
        schemes = client.get("/openapi.json").json()["components"]["securitySchemes"]
    assert schemes == {name: {"type": "apiKey", "in": "query", "name": name.lower()} for name in ("Ticket", "t")}
