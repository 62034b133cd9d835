"""Throttles: who is counted, how long, and what a client can do about it: nothing."""

import asyncio
import time
import tracemalloc
from datetime import timedelta
from typing import Annotated, Any
from uuid import UUID

import pytest
import time_machine
from fastapi import Body, Depends, FastAPI, Form, Request, WebSocket
from fastapi.testclient import TestClient
from joserfc import jwk
from limits.aio.storage import MemoryStorage
from limits.storage import MemoryStorage as SynchronousStorage
from redis.asyncio import Redis
from starlette.requests import HTTPConnection
from starlette.testclient import WebSocketDenialResponse

from fastapi_guard import ConfigurationError, JWTAuth, JWTConfig, ServiceUnavailable, TooManyRequests, configure_app
from fastapi_guard.events import Event
from fastapi_guard.login.client import address_of
from fastapi_guard.login.limits import default_limits
from fastapi_guard.login.throttle import Throttle, account, client_address, subject
from fastapi_guard.login.throttle.windows import MemoryWindows, StoredWindows, rate_of
from fastapi_guard.login.users.names import normalized
from support.asgi import broken_off, endpoint
from support.clock import Clock


def served(throttle: Throttle, **options: Any) -> TestClient:
    """Return a client of an application whose one route is throttled."""
    app = FastAPI()
    app.get("/", dependencies=[Depends(throttle)])(lambda: "in")
    return TestClient(app, **options)


def connection(client: tuple[str, int] | None = ("192.0.2.1", 4711), *forwarded: str) -> HTTPConnection:
    """Return a connection from an address, with these X-Forwarded-For fields."""
    headers = [(b"x-forwarded-for", value.encode("latin-1")) for value in forwarded]
    return HTTPConnection({"type": "http", "client": client, "headers": headers})


def test_too_many(clock: Clock) -> None:
    """The one too many is a 429 with the seconds until the oldest is forgotten; nothing that is refused counts."""
    client = served(Throttle("2/15 minutes", clock=clock))
    assert client.get("/").status_code == 200
    clock.move(100)
    assert client.get("/").status_code == 200
    for wait in (800, 799):
        answer = client.get("/")
        assert (answer.status_code, answer.json()) == (429, {"detail": "Too many requests"})
        assert answer.headers["retry-after"] == str(wait)
        assert "www-authenticate" not in answer.headers
        clock.move(1)
    clock.move(797.9)
    assert client.get("/").status_code == 429
    clock.move(0.1)
    assert client.get("/").status_code == 200
    assert client.get("/").headers["retry-after"] == "100"


def test_what_is_refused_is_an_event(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """A request that is refused is told to the log and to the callback, without whose it is; one that passes is not."""
    events: list[Event] = []
    client = served(Throttle("1/minute", name="search", on_event=events.append, clock=clock))
    assert client.get("/").status_code == 200
    assert events == []
    with caplog.at_level("INFO", "fastapi_guard"):
        assert client.get("/").status_code == 429
    assert events == [Event("refused", "throttle:search", 429, "throttled")]
    assert caplog.messages == ["refused by throttle:search: throttled (429)"]


async def test_a_hit_by_hand_is_none(clock: Clock) -> None:
    """A login, which counts attempts itself, has an event of its own."""
    events: list[Event] = []
    throttle = Throttle("1/minute", on_event=events.append, clock=clock)
    await throttle.hit("alice")
    with pytest.raises(TooManyRequests):
        await throttle.hit("alice")
    assert events == []


def test_websocket(clock: Clock) -> None:
    """A WebSocket is throttled before it is accepted."""
    app = FastAPI()

    @app.websocket("/", dependencies=[Depends(Throttle("1/minute", clock=clock))])
    async def feed(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.close()

    client = TestClient(app)
    with client.websocket_connect("/"):
        pass
    with pytest.raises(WebSocketDenialResponse) as refused, client.websocket_connect("/"):
        raise AssertionError  # pragma: no cover - it is refused
    assert refused.value.status_code == 429


def test_openapi(clock: Clock) -> None:
    """429 and 503 are documented on exactly the operations that are throttled, 401 where there is an Auth too."""
    auth = JWTAuth(JWTConfig(key=jwk.OctKey.generate_key(256)))
    app = FastAPI()
    by_subject = Throttle("1/minute", by=subject(auth), clock=clock)

    async def wrapped(throttled: Annotated[None, Depends(Throttle("1/minute", clock=clock))]) -> None:
        """Stand for a dependency that has a throttle of its own."""

    app.get("/throttled", dependencies=[Depends(Throttle("1/minute", clock=clock))])(lambda: None)
    app.get("/nested", dependencies=[Depends(wrapped)])(lambda: None)
    app.get("/both", dependencies=[Depends(by_subject)])(lambda: None)
    app.get("/guarded", dependencies=[auth.authenticated()])(lambda: None)
    app.get("/free")(lambda: None)
    app.get("/hidden", dependencies=[Depends(by_subject)], include_in_schema=False)(lambda: None)
    configure_app(app)
    documented = {path: sorted(item["get"]["responses"]) for path, item in app.openapi()["paths"].items()}
    assert documented == {
        "/throttled": ["200", "429", "503"],
        "/nested": ["200", "429", "503"],
        "/both": ["200", "401", "403", "429", "503"],
        "/guarded": ["200", "401", "403", "503"],
        "/free": ["200"],
    }
    assert "security" not in app.openapi()["paths"]["/throttled"]["get"]
    response = app.openapi()["paths"]["/throttled"]["get"]["responses"]["429"]
    assert response["headers"] == {"Retry-After": {"schema": {"type": "string"}}}
    assert TestClient(app).get("/throttled").status_code == 200
    assert TestClient(app).get("/throttled").headers["content-type"] == "application/problem+json"


def test_addresses_are_counted_apart(clock: Clock) -> None:
    """One address does not use up what another has."""
    app = FastAPI()
    app.get("/", dependencies=[Depends(Throttle("1/minute", clock=clock))])(lambda: "in")
    one, other = (TestClient(app, client=(host, 1)) for host in ("192.0.2.1", "192.0.2.2"))
    assert [one.get("/").status_code, one.get("/").status_code, other.get("/").status_code] == [200, 429, 200]


FORGED = [["203.0.113.9"], ["203.0.113.9, 203.0.113.8"], ["203.0.113.7", "203.0.113.6"], ["unknown"], [""], ["é"]]


@pytest.mark.parametrize("forged", FORGED)
def test_a_forged_x_forwarded_for(clock: Clock, forged: list[str]) -> None:
    """Without trusted proxies the field is ignored, so that it does not avoid a throttle."""
    client = served(Throttle("1/minute", clock=clock))
    assert client.get("/").status_code == 200
    headers = [(b"X-Forwarded-For", value.encode("latin-1")) for value in forged]
    assert client.get("/", headers=headers).status_code == 429


@pytest.mark.parametrize("forged", FORGED)
def test_a_forged_x_forwarded_for_behind_proxies(clock: Clock, forged: list[str]) -> None:
    """Behind proxies what the client wrote stands to the left of what they append, and is not looked at."""
    client = served(Throttle("1/minute", trusted_proxies=2, clock=clock))
    appended = b"198.51.100.1, 10.0.0.1"
    assert client.get("/", headers={b"X-Forwarded-For": appended}).status_code == 200
    written = ", ".join(forged).encode("latin-1")
    assert client.get("/", headers={b"X-Forwarded-For": written + b", " + appended}).status_code == 429
    as_fields = [(b"X-Forwarded-For", value.encode("latin-1")) for value in forged]
    assert client.get("/", headers=[*as_fields, (b"X-Forwarded-For", appended)]).status_code == 429
    assert client.get("/", headers={b"X-Forwarded-For": b"198.51.100.2, 10.0.0.1"}).status_code == 200


@pytest.mark.parametrize(
    ("hops", "forwarded", "address"),
    [
        (0, ["203.0.113.9"], "192.0.2.1"),
        (1, ["203.0.113.9"], "203.0.113.9"),
        (1, ["203.0.113.8, 203.0.113.9"], "203.0.113.9"),
        (2, ["203.0.113.8, 203.0.113.9"], "203.0.113.8"),
        (2, ["203.0.113.8", "203.0.113.9"], "203.0.113.8"),
        (3, ["203.0.113.8, 203.0.113.9"], "192.0.2.1"),
        (1, [], "192.0.2.1"),
        (1, ["unknown"], "192.0.2.1"),
        (1, ["203.0.113.9:4711"], "203.0.113.9"),
        (1, ["[2001:db8:1:2:3::9]:4711"], "2001:db8:1:2::/64"),
        (1, ["2001:db8:1:2:ffff::9"], "2001:db8:1:2::/64"),
        (1, ["::ffff:203.0.113.9"], "203.0.113.9"),
        (1, [" 203.0.113.9\t"], "203.0.113.9"),
    ],
)
def test_hops(hops: int, forwarded: list[str], address: str) -> None:
    """Hops are counted from the right over all fields; where there is no address, it is the peer's."""
    assert address_of(connection(("192.0.2.1", 4711), *forwarded), hops) == address


def test_peers() -> None:
    """An IPv6 network counts as one, a peer without an address has a count of its own."""
    assert client_address(connection(("2001:db8::1", 1))) == client_address(connection(("2001:db8::2", 1)))
    assert client_address(connection(("2001:db8:0:1::1", 1))) != client_address(connection(("2001:db8::2", 1)))
    assert client_address(connection(("testclient", 1))) == "testclient"
    assert client_address(connection(None)) == "unknown"


def test_by_account(clock: Clock) -> None:
    """A form and JSON name an account alike, however it is spelled; a body without one is not counted."""
    app = FastAPI()
    throttled = [Depends(Throttle("1/minute", by=account("email"), clock=clock))]

    @app.post("/json", dependencies=throttled)
    async def take_json(body: Any) -> str:
        return "in"

    @app.post("/form", dependencies=throttled)
    async def take_form(email: Annotated[str, Form()] = "") -> str:
        return "in"

    client = TestClient(app)
    assert client.post("/json?body=", json={"email": "Ada@Example.com"}).status_code == 200
    assert client.post("/form", data={"email": " ada@example.COM "}).status_code == 429
    assert client.post("/form", data={"email": "bob@example.com"}).status_code == 200
    for _ in range(2):
        for body in ({"email": 7}, {}, [], "ada@example.com", None):
            assert client.post("/json?body=", json=body).status_code == 200
        assert client.post("/form", data={"name": "x"}).status_code == 200
        broken = client.post("/json?body=", content=b"{", headers={"Content-Type": "application/json"})
        assert broken.status_code == 200
    assert normalized("\uff21\uff24\uff21") == normalized("ada")


@pytest.mark.parametrize(
    "kind", ["Application/JSON", "application/vnd.api+json", " application/json", "application/json;charset=utf-8"]
)
def test_by_account_whatever_json_is_called(clock: Clock, kind: str) -> None:
    """The account in a JSON body is counted, whatever media type the endpoint accepts for it."""
    app = FastAPI()

    @app.post("/", dependencies=[Depends(Throttle("1/minute", by=account("email"), clock=clock))])
    async def take(email: Annotated[str, Body(embed=True)]) -> str:
        return email

    client = TestClient(app)
    answers = [client.post("/", content=b'{"email": "ada"}', headers={"Content-Type": kind}) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 429]


def test_by_account_of_a_body_that_the_endpoint_reads(clock: Clock) -> None:
    """An endpoint that reads the body itself can, after the account in it was counted."""
    app = FastAPI()

    @app.post("/form", dependencies=[Depends(Throttle("1/minute", by=account(), clock=clock))])
    async def form(request: Request) -> int:
        async with request.form() as fields:
            return len(fields)

    @app.post("/raw", dependencies=[Depends(Throttle("1/minute", by=account(), clock=clock))])
    async def raw(request: Request) -> int:
        return len(b"".join([part async for part in request.stream()]))

    client = TestClient(app)

    def posted(path: str, **body: Any) -> list[int | str]:
        answer = client.post(path, **body)
        return [answer.status_code, answer.text]

    assert posted("/raw", data={"username": "ada"}) == [200, "12"]
    assert posted("/raw", json={"username": "bob"}) == [200, "18"]
    assert posted("/form", data={"username": "ada"}) == [200, "1"]
    assert posted("/form", data={"username": "bob"}, files={"file": b"-"}) == [200, "2"]
    for path, body in (("/raw", "data"), ("/raw", "json"), ("/form", "data")):
        for name in ("ada", "bob"):
            assert posted(path, **{body: {"username": name}})[0] == 429


def test_by_account_of_a_body_without_end(clock: Clock) -> None:
    """JSON that is too deep to be read names no account, and is not an error of the application."""
    app = FastAPI()
    app.post("/", dependencies=[Depends(Throttle("1/minute", by=account(), clock=clock))])(lambda: "in")
    client = TestClient(app)
    for content in (b"[" * 60_000, b"\xff"):
        answer = client.post("/", content=content, headers={"Content-Type": "application/json"})
        assert (answer.status_code, answer.json()) == (200, "in")


@pytest.mark.parametrize("kind", ["application/json", "application/x-www-form-urlencoded", "text/plain"])
def test_by_account_of_a_long_body(clock: Clock, kind: str) -> None:
    """More than 64 KiB are a 413 before anything is parsed, so that a body cannot pass uncounted."""
    app = FastAPI()
    app.post("/", dependencies=[Depends(Throttle("1/minute", by=account(), clock=clock))])(lambda: "in")
    client = TestClient(app)
    for content, status in ((b"&" * 65_536, 200), (b"&" * 65_537, 413)):
        answer = client.post("/", content=content, headers={"Content-Type": kind})
        assert answer.status_code == status


@pytest.mark.parametrize(
    "kind", ["application/json", "application/x-www-form-urlencoded", "multipart/form-data; boundary=b"]
)
async def test_by_account_of_a_client_that_disconnects(clock: Clock, kind: str) -> None:
    """A body that ends before its end is a 400, not an error of the application."""
    app = FastAPI()
    app.post("/", dependencies=[Depends(Throttle("1/minute", by=account(), clock=clock))])(lambda: "in")
    answer = await broken_off(app, "/", kind, b"--b\r\n")
    assert (answer.status, answer.json) == (400, {"detail": "The body is incomplete"})


def test_by_subject(clock: Clock) -> None:
    """Verified requests are counted by subject; an unauthenticated request is rejected by the Auth and not counted."""
    auth = JWTAuth(JWTConfig(key=jwk.OctKey.generate_key(256)))
    app = FastAPI()
    app.get("/", dependencies=[Depends(Throttle("1/minute", by=subject(auth), clock=clock))])(lambda: "in")
    client = TestClient(app)

    def get(**claims: Any) -> int:
        return client.get("/", headers={"Authorization": "Bearer " + auth.encode(claims)}).status_code

    assert [get(sub="ada"), get(sub="ada"), get(sub="bob"), get(), get()] == [200, 429, 200, 200, 200]
    refused = client.get("/")
    assert (refused.status_code, refused.headers["www-authenticate"]) == (401, 'Bearer realm="api"')


async def test_a_hundred_at_once(clock: Clock) -> None:
    """Of 100 attempts at once as many pass as the rate allows."""
    throttle = Throttle("5/minute", clock=clock)

    async def hit() -> bool:
        try:
            await throttle.hit("ada")
        except TooManyRequests:
            return False
        return True

    assert sum(await asyncio.gather(*(hit() for _ in range(100)))) == 5
    await throttle.clear("ada")
    assert await hit()


async def test_memory_is_released(clock: Clock) -> None:
    """A key that was not hit for a whole window is forgotten."""
    throttle = Throttle("5/minute", clock=clock)
    for number in range(1000):
        await throttle.hit(str(number))
        await throttle.hit(str(number // 2))
    clock.move(60)
    await throttle.hit("last")
    windows = throttle._windows
    assert isinstance(windows, MemoryWindows)
    assert (len(windows._once), len(windows._often)) == (1, 0)


@pytest.mark.parametrize(("rate", "hits"), [("5/minute", 2), ("5/minute", 5), ("1/minute", 1), ("2/minute", 2)])
async def test_memory_is_bounded(clock: Clock, rate: str, hits: int) -> None:
    """A flood of new keys is forgotten before a key that was tried several times, or as often as it may be."""
    windows, item = MemoryWindows(max_keys=100, clock=clock), rate_of(rate)
    for _ in range(hits):
        assert await windows.hit(item, "victim") is None
    for number in range(1000 if item.amount > 1 else 98):
        await windows.hit(item, str(number))
    assert len(windows._once) + len(windows._often) <= 100
    allowed = 0
    while await windows.hit(item, "victim") is None:
        allowed += 1
    assert allowed == item.amount - hits


async def test_memory_of_many_keys_that_are_all_tried(clock: Clock) -> None:
    """The oldest key is forgotten where every key was tried several times."""
    windows, item = MemoryWindows(max_keys=10, clock=clock), rate_of("2/minute")
    for number in range(11):
        await windows.hit(item, str(number))
        await windows.hit(item, str(number))
    assert await windows.hit(item, "10") == 60
    assert await windows.hit(item, "0") is None


async def test_memory_for_a_key(clock: Clock) -> None:
    """A key costs less than 400 bytes."""
    windows, item = MemoryWindows(clock=clock), rate_of("5/minute")
    tracemalloc.start()
    for number in range(10_000):
        await windows.hit(item, f"login-account:{number:064}")
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size / 10_000 < 400


async def test_more_attempts_at_once_than_connections(redis_url: str) -> None:
    """A thousand attempts at once are all counted, although a client of Redis has 100 connections."""
    throttle = Throttle("5/minute", storage=redis_url, timeout=60, name="crowd")
    answers = await asyncio.gather(*(throttle.hit("ada") for _ in range(1000)), return_exceptions=True)
    kinds = [type(answer) for answer in answers]
    assert (kinds.count(type(None)), kinds.count(TooManyRequests)) == (5, 995)
    await throttle.aclose()
    await throttle.aclose()


def test_several_event_loops(redis_url: str) -> None:
    """A throttle counts in each event loop that it is used in, as after a fork."""
    throttle = Throttle("2/minute", storage=redis_url, timeout=60, name="loops")

    async def hit() -> None:
        try:
            await throttle.hit("ada")
        finally:
            await throttle.aclose()

    async def hit_and_leave_an_entry() -> None:
        await throttle.hit("bob")
        windows = throttle._windows
        assert isinstance(windows, StoredWindows)
        client: Any = windows._loops[asyncio.get_running_loop()].storage
        await client.bridge.get_connection().aclose()

    asyncio.run(hit())
    asyncio.run(hit_and_leave_an_entry())
    asyncio.run(hit())
    with pytest.raises(TooManyRequests):
        asyncio.run(hit())


@pytest.mark.parametrize("moment", [2_000_000_000, 1_000_000_000], ids=["forward", "back"])
async def test_a_clock_that_is_set(clock: Clock, monkeypatch: pytest.MonkeyPatch, moment: int) -> None:
    """The clock of the system, set forward or back, neither ends nor extends a window in memory."""
    with monkeypatch.context() as patched:
        patched.setattr(time, "monotonic", clock)
        throttles = [Throttle("1/hour"), default_limits(time.time).account]
    with time_machine.travel(1_500_000_000, tick=False) as traveller:
        for throttle in throttles:
            assert throttle is not None
            for _ in range(throttle.rate.amount):
                await throttle.hit("ada")
        traveller.move_to(moment)
        for throttle in throttles:
            assert throttle is not None
            with pytest.raises(TooManyRequests) as error:
                await throttle.hit("ada")
            assert error.value.headers["Retry-After"] == str(throttle.rate.get_expiry())
        clock.move(3600)
        for throttle in throttles:
            assert throttle is not None
            await throttle.hit("ada")


async def test_redis(redis_url: str) -> None:
    """Workers that share a Redis share the counts of a name, exactly, and a wrong number never passes."""
    with time_machine.travel(1_800_000_000, tick=False) as traveller:
        workers = [Throttle("5/minute", storage=redis_url, timeout=60, name="shared") for _ in range(2)]
        other = Throttle("5/minute", storage=redis_url, timeout=60, name="other")

        async def hit(number: int) -> float | None:
            try:
                await workers[number % 2].hit("ada")
            except TooManyRequests as error:
                return float((error.headers or {})["Retry-After"])
            return None

        answers = await asyncio.gather(*(hit(number) for number in range(100)))
        assert answers.count(None) == 5
        assert set(answers) == {None, 60.0}
        await other.hit("ada")
        traveller.shift(30)
        assert await hit(0) == 30
        traveller.shift(30.1)
        assert await hit(0) is None
        for _ in range(4):
            await hit(0)
        assert await hit(0) is not None
        await workers[0].clear("ada")
        assert await hit(0) is None
        for throttle in (*workers, other):
            await throttle.aclose()


async def test_connections_that_were_closed_while_idle(redis_url: str) -> None:
    """After a restart of Redis no attempt is a 503: each connection that it closed is opened again."""
    throttle = Throttle("5/minute", storage=redis_url, timeout=60, name="restarted")
    # Several at once open several connections.
    await asyncio.gather(*(throttle.hit("ada") for _ in range(4)))
    async with Redis.from_url(redis_url) as client:
        assert await client.client_kill_filter(_type="normal", skipme=True) >= 1
    await throttle.hit("ada")
    answers = await asyncio.gather(*(throttle.hit("ada") for _ in range(4)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [TooManyRequests] * 4
    await throttle.aclose()


class SilentStorage(MemoryStorage):
    """A storage that accepts a request and never answers."""

    async def acquire_entry(self, *arguments: Any, **options: Any) -> bool:
        """Wait indefinitely."""
        return await asyncio.Event().wait()

    async def clear(self, key: str) -> None:
        """Wait indefinitely."""
        await asyncio.Event().wait()


async def test_a_storage_that_does_not_answer() -> None:
    """An attempt that is not counted within the timeout is a 503, never a pass."""
    throttle = Throttle("1/minute", storage=SilentStorage(), timeout=timedelta(milliseconds=1))
    for call in (throttle.hit, throttle.clear):
        with pytest.raises(ServiceUnavailable) as error:
            await call("ada")
        assert error.value.reason == "throttle_unreachable"


async def test_a_storage_of_limits() -> None:
    """Any asynchronous storage of limits does."""
    throttle = Throttle("1/minute", storage=MemoryStorage())
    await throttle.hit("ada")
    with pytest.raises(TooManyRequests):
        await throttle.hit("ada")
    await throttle.aclose()  # it is not ours to close


async def test_a_storage_that_is_away(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """An attempt that cannot be counted is a 503 with Retry-After, never a pass, and the log names the cause."""
    throttle = Throttle("1/minute", storage="redis://127.0.0.1:1/0", name="search")
    for call in (throttle.hit, throttle.clear):
        with pytest.raises(ServiceUnavailable) as error:
            await call("ada")
        assert error.value.headers == {"Retry-After": "5"}
        assert error.value.reason == "throttle_unreachable"
        cause = 'the storage of the Throttle search is unavailable: ConnectionError: "Error 111 connecting to '
        assert caplog.messages.pop().startswith(cause)
        caplog.clear()
    await throttle.aclose()
    await Throttle("1/minute", clock=clock).aclose()


@pytest.mark.parametrize(
    ("rate", "options", "message"),
    [
        ("often", {}, "a rate is such as .*, not text of 5 characters"),
        ("0/minute", {}, "allows nothing"),
        ("5/minute, 10/hour", {}, "more than one rate"),
        ("5/minute;10/hour", {}, "more than one rate"),
        ("5/minute", {"trusted_proxies": -1}, "trusted_proxies is a whole number from 0"),
        ("5/minute", {"trusted_proxies": 1, "by": account()}, "for by=client_address"),
        ("5/minute", {"by": account}, "are called: each returns a function"),
        ("5/minute", {"by": subject}, "are called: each returns a function"),
        ("5/minute", {"by": lambda request: "key"}, r"reads request from the query .* def by\(request: Request\)"),
        ("5/minute", {"by": lambda claims: "key"}, r"reads claims from the query .* by=subject\(auth\) for claims"),
        ("5/minute", {"by": str}, "by is a function of parameters that FastAPI resolves, not the class str"),
        ("5/minute", {"storage": "mongodb://localhost"}, "storage is memory://"),
        ("5/minute", {"storage": "async+redis://localhost"}, "storage is memory://"),
        ("5/minute", {"storage": "redis://:secret@localhost"}, "this URL of Redis: write redis://host:port/number$"),
        ("5/minute", {"storage": SynchronousStorage()}, "is asynchronous"),
        ("5/minute", {"timeout": 5}, "timeout belongs to a storage outside of this process"),
        ("5/minute", {"timeout": 5, "storage": "memory://"}, "timeout belongs to a storage outside of this process"),
        *(
            ("5/minute", {"timeout": timeout, "storage": MemoryStorage()}, "timeout is a positive duration")
            for timeout in (0, -1, float("nan"), float("inf"), timedelta(0), True, "5")
        ),
    ],
)
def test_a_configuration_that_cannot_work(rate: str, options: dict[str, Any], message: str) -> None:
    """Rates, storages and hops are checked at construction."""
    with pytest.raises(ConfigurationError, match=message):
        Throttle(rate, **options)


def test_a_throttle_without_depends() -> None:
    """A Throttle in a list of dependencies, where a guard stands by itself, is an error with the remedy."""
    throttle = Throttle("5/minute")
    for options in ({"dependencies": [throttle]}, {"dependencies": [Depends(lambda: None), throttle]}):
        with pytest.raises(ConfigurationError, match=r"dependencies=\[Depends\(Throttle\("):
            FastAPI().get("/", **options)(endpoint)  # type: ignore[arg-type]
    assert not hasattr(throttle, "dependency")
    with pytest.raises(AttributeError, match="'Throttle' object has no attribute 'rates'"):
        _ = throttle.rates  # type: ignore[attr-defined]


@pytest.mark.parametrize("key", [7, UUID(int=7)], ids=str)
async def test_the_id_of_a_user(clock: Clock, key: Any) -> None:
    """A key may be a number or a UUID, which is its text."""
    client = served(Throttle("1/minute", by=lambda: key, clock=clock))
    assert [client.get("/").status_code for _ in range(2)] == [200, 429]
    throttle = Throttle("1/minute", clock=clock)
    await throttle.hit(key)
    with pytest.raises(TooManyRequests):
        await throttle.hit(str(key))
    await throttle.clear(key)
    await throttle.hit(key)


@pytest.mark.parametrize("key", [True, b"ada", object()], ids=["a flag", "bytes", "an object"])
def test_what_is_not_a_key(clock: Clock, key: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Anything else is a 503 rather than a request that is not counted, and the log has the type."""
    client = served(Throttle("1/minute", by=lambda: key, clock=clock))
    assert client.get("/").status_code == 503
    assert f"is {type(key).__name__}, not text or None" in caplog.text


def test_subjects_of_two_issuers(clock: Clock) -> None:
    """The same subject of another issuer is counted apart."""
    auth = JWTAuth(JWTConfig(key=jwk.OctKey.generate_key(256)))
    app = FastAPI()
    app.get("/", dependencies=[Depends(Throttle("1/minute", by=subject(auth), clock=clock))])(lambda: "in")
    client = TestClient(app)
    tokens = [auth.encode({"sub": "ada", "iss": issuer}) for issuer in ("https://a.example", "https://b.example")]
    statuses = [client.get("/", headers={"Authorization": f"Bearer {token}"}).status_code for token in tokens * 2]
    assert statuses == [200, 200, 429, 429]
