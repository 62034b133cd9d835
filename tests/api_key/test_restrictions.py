"""Requests with a valid key from a wrong network or origin, or beyond a rate or a quota."""

from datetime import timedelta
from typing import Annotated, Any

import pytest
from fastapi import FastAPI, Request, Response, WebSocket
from fastapi.testclient import TestClient
from sqlalchemy import update
from starlette.requests import HTTPConnection

from api_key.databases import Database
from fastapi_guard import ConfigurationError, Forbidden, ServiceUnavailable, Unauthorized
from fastapi_guard.api_key import restrictions
from fastapi_guard.api_key.database import DatabaseAPIKeyAuth
from fastapi_guard.api_key.limits import RATE_LIMITS, RateLimitFields
from fastapi_guard.api_key.models import APIKey
from fastapi_guard.api_key.restrictions import network_of
from fastapi_guard.claims import Claims
from fastapi_guard.stores import MemoryStore
from support.asgi import Answer, exchange, scope_of
from support.clock import Clock

INVALID = (401, "Invalid API Key", 'Bearer realm="api", error="invalid_token", error_description="Invalid API Key"')
FORBIDDEN = (403, "Forbidden", None)


def application(keys: DatabaseAPIKeyAuth) -> FastAPI:
    """Return an application with one guarded route, which shows the limits of the key."""
    app = FastAPI()

    @app.get("/items")
    async def items(request: Request, claims: Annotated[dict[str, Any], keys.authenticated()]) -> Any:
        return [state.remaining for state in getattr(request.state, "rate_limits", [])]

    return app


async def send(keys: DatabaseAPIKeyAuth, raw: str, *fields: tuple[bytes, bytes]) -> Answer:
    """Return the answer to a request with a key from 192.0.2.1, the address of `exchange`."""
    return await exchange(application(keys), "/items", [(b"authorization", b"Bearer " + raw.encode()), *fields])


def forwarded(value: bytes) -> tuple[bytes, bytes]:
    """Return the header field of a proxy."""
    return b"x-forwarded-for", value


NETWORKS = {
    "its network": (["192.0.2.0/24"], 0, [], 200),
    "its address": (["192.0.2.1"], 0, [], 200),
    "one of several": (["10.0.0.0/8", "192.0.2.0/28"], 0, [], 200),
    "another network": (["10.0.0.0/8"], 0, [], 403),
    "of another version": (["::/0"], 0, [], 403),
    "a field that nobody trusts": (["10.0.0.0/8"], 0, [forwarded(b"10.0.0.1")], 403),
    "behind a proxy": (["10.0.0.0/8"], 1, [forwarded(b"192.0.2.9, 10.0.0.1")], 200),
    "the client's own field": (["10.0.0.0/8"], 1, [forwarded(b"10.0.0.1, 192.0.2.9")], 403),
    "in two fields": (["10.0.0.0/8"], 1, [forwarded(b"192.0.2.9"), forwarded(b"10.0.0.1")], 200),
    "fewer hops than proxies": (["192.0.2.1"], 2, [forwarded(b"10.0.0.1")], 200),
    "no address in the field": (["192.0.2.1"], 1, [forwarded(b"unknown")], 200),
}


@pytest.mark.parametrize("case", NETWORKS)
async def test_allowed_networks(sqlite: Database, case: str) -> None:
    """A key with networks is accepted from there alone; trusted proxies are counted from the right."""
    networks, proxies, fields, status = NETWORKS[case]
    keys = sqlite.auth(trusted_proxies=proxies)
    _, raw = await keys.create(user_id="alice", allowed_networks=networks)
    for _ in range(2):
        answer = await send(keys, raw, *fields)
        assert answer.status == status
    if status == 403:
        assert answer.refusal == FORBIDDEN
    _, anywhere = await keys.create(user_id="alice")
    assert (await send(keys, anywhere, *fields)).status == 200


@pytest.mark.parametrize("client", [None, ("testclient", 1)])
async def test_a_client_without_an_address(sqlite: Database, client: Any) -> None:
    """A key with networks is not accepted from a client without an address."""
    keys = sqlite.auth()
    _, raw = await keys.create(user_id="alice", allowed_networks=["0.0.0.0/0", "::/0"])
    connection = HTTPConnection({**scope_of("/", []), "client": client})
    with pytest.raises(Forbidden) as refusal:
        await keys.verify_request(connection, raw)
    assert refusal.value.reason == "network"


ORIGINS: dict[str, tuple[list[bytes], int]] = {
    "the page": ([b"https://app.example"], 200),
    "another page": ([b"https://evil.example"], 403),
    "a part of it": ([b"https://app.example.evil.example"], 403),
    "in upper case": ([b"https://APP.example"], 403),
    "no page": ([], 403),
    "null": ([b"null"], 403),
    "twice": ([b"https://app.example", b"https://app.example"], 403),
}


@pytest.mark.parametrize("case", ORIGINS)
async def test_allowed_origins(sqlite: Database, case: str) -> None:
    """A key with origins is accepted from their pages alone."""
    sent, status = ORIGINS[case]
    keys = sqlite.auth()
    _, raw = await keys.create(user_id="alice", allowed_origins=["https://app.example", "http://localhost:3000"])
    answer = await send(keys, raw, *((b"origin", origin) for origin in sent))
    assert answer.status == status
    if status == 403:
        assert answer.refusal == FORBIDDEN
        connection = HTTPConnection(scope_of("/", [(b"origin", origin) for origin in sent]))
        with pytest.raises(Forbidden) as error:
            await keys.verify_request(connection, raw)
        assert error.value.reason == "origin"
    _, anywhere = await keys.create(user_id="alice")
    assert (await send(keys, anywhere, *((b"origin", origin) for origin in sent))).status == 200


async def test_outside_of_a_request(sqlite: Database) -> None:
    """Without a request networks and origins cannot be checked, so such a key is rejected as an invalid one is."""
    keys = sqlite.auth()
    for restriction in ({"allowed_networks": ["0.0.0.0/0"]}, {"allowed_origins": ["https://app.example"]}):
        _, raw = await keys.create(user_id="alice", **restriction)  # type: ignore[arg-type]
        with pytest.raises(Unauthorized) as refusal:
            await keys.verify(raw)
        assert (refusal.value.detail, refusal.value.reason) == ("Invalid API Key", "needs_request")
        assert not await keys.validate_token(raw)


async def test_a_wrong_key_from_a_wrong_place(sqlite: Database) -> None:
    """Without the key the restrictions cannot be found out; a revoked key is a 401 from everywhere."""
    keys = sqlite.auth()
    key_id, raw = await keys.create(user_id="alice", allowed_networks=["10.0.0.0/8"])
    assert (await send(keys, raw)).refusal == FORBIDDEN
    await keys.revoke(key_id)
    assert (await send(keys, raw)).refusal == INVALID


async def test_a_rate(sqlite: Database, clock: Clock) -> None:
    """A key with a rate is counted once a request, and refused with 429, Retry-After and the RateLimit fields."""
    keys = sqlite.auth(usage=MemoryStore(clock=clock), clock=clock)
    _, raw = await keys.create(user_id="alice", rate="2/minute", quota=10)
    assert [(await send(keys, raw)).json for _ in range(2)] == [[1, 9], [0, 8]]
    refused = await send(keys, raw)
    assert (refused.status, refused.json) == (429, {"detail": "Too many requests"})
    assert refused.header("retry-after") == "60"
    assert refused.header("ratelimit-policy") == '"rate";q=2;w=60, "quota";q=10'
    assert refused.header("ratelimit") == '"rate";r=0;t=60, "quota";r=8'
    clock.move(60)
    assert (await send(keys, raw)).json == [1, 7]


async def test_the_fields_of_every_response(sqlite: Database, clock: Clock) -> None:
    """With the middleware a response to a counted request has the RateLimit fields too, and no other response has."""
    keys = sqlite.auth(usage=MemoryStore(clock=clock), clock=clock)
    _, limited = await keys.create(user_id="alice", rate="2/minute")
    _, free = await keys.create(user_id="alice")
    app = FastAPI()
    app.add_middleware(RateLimitFields)

    @app.get("/", dependencies=[keys.authenticated()])
    async def read(own: bool = False) -> Response:
        return Response(headers={"RateLimit": '"own";r=1'} if own else None)

    @app.websocket("/ws", dependencies=[keys.authenticated()])
    async def listen(socket: WebSocket) -> None:
        await socket.accept()
        await socket.close()

    async def fields(raw: str, path: str = "/") -> tuple[int, str | None, str | None]:
        answer = await exchange(app, path, [(b"authorization", b"Bearer " + raw.encode())])
        assert len(answer.all("ratelimit-policy")) < 2
        return answer.status, answer.header("ratelimit-policy"), answer.header("ratelimit")

    policy = '"rate";q=2;w=60'
    assert await fields(free) == (200, None, None)
    assert await fields(limited) == (200, policy, '"rate";r=1;t=60')
    assert await fields(limited, "/?own=true") == (200, policy, '"own";r=1')
    assert await fields(limited) == (429, policy, '"rate";r=0;t=60')
    with TestClient(app) as client, client.websocket_connect("/ws", headers={"Authorization": f"Bearer {free}"}):
        pass


def test_the_fields_and_a_body() -> None:
    """The middleware leaves the body of a request to the application."""
    app = FastAPI()
    app.add_middleware(RateLimitFields)

    @app.post("/")
    async def echo(request: Request) -> str:
        return (await request.body()).decode()

    assert TestClient(app).post("/", content=b"a body").json() == "a body"


async def test_a_rotated_key_continues_its_quota(sqlite: Database, clock: Clock) -> None:
    """A key that replaces another counts on in the same period, which begins and ends as before."""
    keys = sqlite.auth(usage=MemoryStore(clock=clock), clock=clock)
    key_id, raw = await keys.create(user_id="alice", quota=3, quota_period=timedelta(hours=1))
    assert (await send(keys, raw)).json == [2]
    clock.move(1800)
    new_id, new = await keys.rotate(key_id, overlap=timedelta(minutes=30))
    assert await keys.usage(new_id) == await keys.usage(key_id)
    assert [(await send(keys, new)).json, (await send(keys, raw)).json] == [[1], [0]]
    refused = await send(keys, new)
    assert (refused.status, refused.header("retry-after")) == (429, "1800")
    clock.move(1800)
    assert [(await send(keys, new)).json, (await send(keys, raw)).status] == [[2], 401]


async def test_several_guards_of_a_request_count_once(sqlite: Database, clock: Clock) -> None:
    """A request with guards on the application, the router and the route is one request."""
    keys = sqlite.auth(usage=MemoryStore(clock=clock), clock=clock)
    _, raw = await keys.create(user_id="alice", quota=2, scopes=["a"])
    app = FastAPI(dependencies=[keys.authenticated()])

    @app.get("/", dependencies=[keys.requires("a")])
    async def read(claims: Annotated[dict[str, Any], keys.requires_any("a", "b")]) -> str:
        return claims["sub"]

    statuses = [(await exchange(app, "/", [(b"authorization", b"Bearer " + raw.encode())])).status for _ in range(3)]
    assert statuses == [200, 200, 429]


async def test_an_auth_that_cannot_count(sqlite: Database, caplog: pytest.LogCaptureFixture) -> None:
    """A key with limits is not accepted by an Auth that has no store for the counts: a 503, and a line in the log."""
    keys = sqlite.auth()
    counting = sqlite.auth(usage=MemoryStore())
    key_id, raw = await counting.create(user_id="alice", quota=5)
    assert (await send(counting, raw)).status == 200
    assert (await send(keys, raw)).status == 503
    line = f"the API key {key_id} has a rate or a quota: pass usage= to the Auth that verifies it"
    assert line in [record.getMessage() for record in caplog.records]
    with pytest.raises(ServiceUnavailable) as error:
        await keys.verify(raw)
    assert error.value.reason == "no_usage_store"


async def test_rows_that_were_edited_by_hand(sqlite: Database, caplog: pytest.LogCaptureFixture) -> None:
    """An invalid network admits no client, an invalid rate is a 503: never a pass, and never a 500."""
    keys = sqlite.auth(usage=MemoryStore())
    key_id, raw = await keys.create(user_id="alice", allowed_networks=["192.0.2.0/24"], rate="5/minute")
    await sqlite.within(lambda session: session.execute(update(APIKey).values(allowed_networks=["everywhere"])))
    assert (await send(keys, raw)).refusal == FORBIDDEN
    await sqlite.within(lambda session: session.execute(update(APIKey).values(allowed_networks=[], rate="often")))
    assert (await send(keys, raw)).status == 503
    assert f"the rate of the API key {key_id} cannot be read" in [record.getMessage() for record in caplog.records]
    with pytest.raises(ServiceUnavailable) as error:
        await keys.verify(raw)
    assert error.value.reason == "rate_invalid"


async def test_a_subclass_that_overrides_verify_alone(sqlite: Database) -> None:
    """A request is verified by verify_request, so a subclass with a verify of its own is told to override that."""

    class Stricter(DatabaseAPIKeyAuth):
        async def verify(self, raw: str) -> Claims:
            raise AssertionError  # pragma: no cover - it is rejected

    with pytest.raises(ConfigurationError, match=r"override verify_request\(connection, raw\)"):
        Stricter(sqlite.factory)


async def test_a_subclass_that_overrides_verify_request(sqlite: Database) -> None:
    """A subclass adds a rule of its own to each request."""

    class Stricter(DatabaseAPIKeyAuth):
        async def verify_request(self, connection: HTTPConnection, raw: str) -> Claims:
            claims = await super().verify_request(connection, raw)
            if connection.headers.get("x-wanted") is None:
                raise Forbidden(reason="unwanted")
            return claims

    keys = Stricter(sqlite.factory)
    _, raw = await keys.create(user_id="alice")
    assert (await send(keys, raw)).refusal == FORBIDDEN
    assert (await send(keys, raw, (b"x-wanted", b"1"))).status == 200


async def test_the_last_address(sqlite: Database) -> None:
    """The address that a key was last used from is stored with the moment."""
    keys = sqlite.auth(trusted_proxies=1)
    key_id, raw = await keys.create(user_id="alice")
    assert (await send(keys, raw, forwarded(b"2001:db8::7"))).status == 200
    await keys.aclose()
    stored = await keys.get(key_id)
    assert stored is not None
    assert stored.last_address == "2001:db8::7"


async def test_a_connection_without_a_state_or_an_address(sqlite: Database) -> None:
    """The limits of a key are put on the connection, whatever the server has put there; no address is stored."""
    keys = sqlite.auth(usage=MemoryStore())
    key_id, raw = await keys.create(user_id="alice", quota=5)
    connection = HTTPConnection({"type": "http", "headers": [], "client": None})
    await keys.verify_request(connection, raw)
    assert [state.remaining for state in connection.scope["state"][RATE_LIMITS]] == [4]
    await keys.aclose()
    stored = await keys.get(key_id)
    assert stored is not None
    assert stored.last_address is None


async def test_a_network_is_parsed_once(sqlite: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """The networks of keys are kept as they were parsed."""
    parsed: list[str] = []

    def parse(text: str) -> Any:
        parsed.append(text)
        return network_of(text)

    monkeypatch.setattr(restrictions, "network_of", parse)
    keys = sqlite.auth()
    _, raw = await keys.create(user_id="alice", allowed_networks=["10.0.0.0/8", "192.0.2.0/24"])
    assert [(await send(keys, raw)).status for _ in range(2)] == [200, 200]
    assert parsed == ["10.0.0.0/8", "192.0.2.0/24"]


async def test_a_websocket(sqlite: Database) -> None:
    """The same holds for a WebSocket."""
    keys = sqlite.auth()
    app = FastAPI()

    @app.websocket("/live")
    async def live(socket: WebSocket, claims: Annotated[Claims, keys.authenticated()]) -> None:
        await socket.accept()
        await socket.close()

    _, raw = await keys.create(user_id="alice", allowed_networks=["10.0.0.0/8"])
    headers = [(b"authorization", b"Bearer " + raw.encode())]
    scope = {**scope_of("/live", headers), "type": "websocket", "scheme": "wss", "subprotocols": []}
    scope["extensions"] = {"websocket.http.response": {}}
    for address, first in (("192.0.2.1", "websocket.http.response.start"), ("10.0.0.1", "websocket.accept")):
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "websocket.connect"}

        async def collect(message: Any, sent: list[Any] = sent) -> None:
            sent.append(message)

        await app({**scope, "client": (address, 1)}, receive, collect)
        assert sent[0]["type"] == first
