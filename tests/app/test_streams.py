import asyncio
import re
import time
from typing import Annotated, Any

import pytest
from fastapi import FastAPI, WebSocket
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import HTTPConnection
from starlette.testclient import WebSocketDenialResponse
from starlette.websockets import WebSocketDisconnect

from fastapi_guard import BearerScheme, ConfigurationError, JWTAuth, Unauthorized
from fastapi_guard.app.streams import expires_with
from support.asgi import handshake, request
from support.tokens import KEYS, auth_of, forge, valid_claims

PLAIN = 'Bearer realm="api"'
PROTOCOL = b"sec-websocket-protocol"


# --- Sec-WebSocket-Protocol ------------------------------------------------------------------------------------------


def guarded(**options: Any) -> FastAPI:
    """Return an application that sends the name of the caller, and accepts by a protocol."""
    auth = auth_of("HS256", options=options)
    app = FastAPI()

    @app.websocket("/")
    async def greet(websocket: WebSocket, claims: Annotated[dict[str, Any], auth.requires("items:read")]) -> None:
        await websocket.accept(subprotocol="bearer" if "bearer" in websocket.scope["subprotocols"] else None)
        await websocket.send_json(claims["sub"])
        await websocket.close()

    @app.get("/http", dependencies=[auth.authenticated()])
    async def page() -> None: ...

    return app


def test_a_browser() -> None:
    """A browser sends the token as a subprotocol, and the response has the name that precedes it."""
    client = TestClient(guarded())
    with client.websocket_connect("/", subprotocols=["bearer", forge("HS256")]) as session:
        assert session.accepted_subprotocol == "bearer"
        assert session.receive_json() == "ada"
    with client.websocket_connect("/", headers={"Authorization": f"Bearer {forge('HS256')}"}) as session:
        assert session.receive_json() == "ada"
    for protocols in (["bearer", "a.b.c"], ["bearer"], ["chat"], []):
        with pytest.raises(WebSocketDenialResponse) as denied, client.websocket_connect("/", subprotocols=protocols):
            pass  # pragma: no cover - it is not accepted
        assert denied.value.status_code == 401
        assert denied.value.headers["www-authenticate"].startswith(PLAIN)


@pytest.mark.parametrize(
    ("fields", "status", "challenge"),
    [
        (["bearer, {}"], 101, None),
        (["bearer,{}"], 101, None),
        (["Bearer\t, \t{}"], 101, None),
        (["chat, bearer, {}, other"], 101, None),
        (["chat", "bearer", "{}"], 101, None),
        ([], 401, PLAIN),
        (["bearer"], 401, PLAIN),
        (["{}"], 401, PLAIN),
        (["chat, bearer"], 401, PLAIN),
        (["{}, bearer"], 401, PLAIN),
        (["bearer {}"], 401, PLAIN),
        (["bearer, "], 401, PLAIN),
        (["bearer, , {}"], 401, PLAIN),
        (["\x0bbearer, {}"], 401, PLAIN),
        (["Xbearer, {}"], 401, PLAIN),
        (["bearer, {}x"], 401, "invalid_token"),
        (['bearer, "{}"'], 401, "invalid_token"),
        (["bearer, \xe9"], 401, "invalid_token"),
        (["bearer, {}, bearer, {}"], 401, "invalid_request"),
        (["bearer, {}", "bearer, {}"], 401, "invalid_request"),
        (["bearer, bearer, {}"], 401, "invalid_request"),
        (["bearer, a b"], 401, "invalid_request"),
    ],
)
def test_the_protocols_of_a_handshake(fields: list[str], status: int, challenge: str | None) -> None:
    """The token follows the one entry `bearer`; anything else is not a token, or a refusal."""
    token = forge("HS256")
    answer = handshake(guarded(), "/", [(PROTOCOL, field.replace("{}", token).encode("latin-1")) for field in fields])
    assert answer.status == status
    assert (answer.header("www-authenticate") == challenge) or challenge in (answer.header("www-authenticate") or "")


def test_a_token_in_two_places() -> None:
    """A token in the header and another among the protocols are two credentials."""
    token = forge("HS256").encode()
    both = [(b"authorization", b"Bearer " + token), (PROTOCOL, b"bearer, " + token)]
    assert [handshake(guarded(), "/", [field]).status for field in both] == [101, 101]
    answer = handshake(guarded(), "/", both)
    assert answer.refusal[:2] == (401, "More than one credential")


def test_protocols_of_a_request() -> None:
    """On anything but a WebSocket the field means nothing."""
    token = forge("HS256").encode()
    assert request(guarded(), "/http", [(b"authorization", b"Bearer " + token)]).status == 200
    assert request(guarded(), "/http", [(PROTOCOL, b"bearer, " + token)]).refusal == (401, "Not authenticated", PLAIN)


def test_a_scope_on_a_handshake() -> None:
    """A missing scope is an HTTP answer before the connection is accepted, by whichever way the token came."""
    lacking = forge("HS256", valid_claims(scope="x")).encode()
    for field in ((b"authorization", b"Bearer " + lacking), (PROTOCOL, b"bearer, " + lacking)):
        answer = handshake(guarded(), "/", [field])
        assert answer.refusal[0] == 403
        assert "insufficient_scope" in (answer.header("www-authenticate") or "")


_ENTRIES = st.one_of(st.sampled_from(["bearer", "Bearer", "chat", "a.b.c", ""]), st.text('a \t"\xff\x00=', max_size=3))


@given(st.lists(st.lists(_ENTRIES, max_size=4).map(",".join), max_size=3))
def test_any_protocols(fields: list[str]) -> None:
    """Any entries are a token, nothing, or a refusal; a token is never more than one entry."""
    headers = [(PROTOCOL, field.encode("latin-1")) for field in fields]
    try:
        raw = BearerScheme().extract(HTTPConnection({"type": "websocket", "headers": headers}))
    except Unauthorized:
        return
    assert raw is None or (raw and "," not in raw and raw in ",".join(fields))


# --- expires_with ----------------------------------------------------------------------------------------------------


class Ended:
    """An application whose WebSocket lasts as long as the claims, and what happened to it."""

    def __init__(self, claims: dict[str, Any], **options: Any) -> None:
        """Build it."""
        self.happened: list[str] = []
        self.app = FastAPI()

        @self.app.websocket("/")
        async def echo(websocket: WebSocket) -> None:
            await websocket.accept()
            try:
                async with expires_with(websocket, claims, **options):
                    async for text in websocket.iter_text():
                        if text == "close":
                            await websocket.close(4000)
                            break
                        if text == "fail":
                            raise ZeroDivisionError
                        if text == "end":
                            break
                        await websocket.send_text(text)
                self.happened.append("after")
            finally:
                self.happened.append("finally")


@pytest.mark.parametrize("exp", [pytest.param(10**400, id="larger"), 1e308])
def test_a_credential_beyond_any_clock(exp: float) -> None:
    """A moment beyond the range of any clock lets the block run, and end by itself."""
    ended = Ended({"exp": exp})
    with TestClient(ended.app).websocket_connect("/") as session:
        session.send_text("hello")
        assert session.receive_text() == "hello"
        session.send_text("end")
    assert ended.happened == ["after", "finally"]


def test_it_ends_with_the_credential() -> None:
    """The WebSocket is closed with 1008 when the credential ends, and the block with it."""
    ended = Ended({"exp": time.time() + 1})
    with TestClient(ended.app).websocket_connect("/") as session:
        session.send_text("hello")
        assert session.receive_text() == "hello"
        with pytest.raises(WebSocketDisconnect) as closed:
            session.receive_text()
    assert (closed.value.code, closed.value.reason) == (1008, "The credential has expired")
    assert ended.happened == ["after", "finally"]


def test_one_that_has_ended() -> None:
    """A credential whose time is over, by the clock that is given, ends it at once."""
    for expires in (99, 100, float("-inf")):
        ended = Ended({"exp": expires}, clock=lambda: 100)
        with TestClient(ended.app).websocket_connect("/") as session, pytest.raises(WebSocketDisconnect) as closed:
            session.receive_text()
        assert closed.value.code == 1008
        assert ended.happened == ["after", "finally"]


@pytest.mark.parametrize("claims", [{}, {"exp": None}, {"exp": time.time() + 3600}, {"exp": float("inf")}])
def test_one_that_lasts(claims: dict[str, Any]) -> None:
    """Until then nothing happens, and a credential that does not expire sets no end."""
    ended = Ended(claims)
    with TestClient(ended.app).websocket_connect("/") as session:
        for text in ("a", "b"):
            session.send_text(text)
            assert session.receive_text() == text
        session.send_text("end")
    assert ended.happened == ["after", "finally"]


def test_what_happens_within() -> None:
    """An exception of the block is the application's; a close of its own is not made again."""
    ended = Ended({"exp": time.time() + 3600})
    with pytest.raises(ZeroDivisionError), TestClient(ended.app).websocket_connect("/") as session:
        session.send_text("fail")
    assert ended.happened == ["finally"]
    ended = Ended({"exp": time.time() + 3600})
    with TestClient(ended.app).websocket_connect("/") as session:
        session.send_text("close")
        with pytest.raises(WebSocketDisconnect) as closed:
            session.receive_text()
    assert closed.value.code == 4000


class Socket:
    """Events that a server sends to an application when a client leaves while the WebSocket is closed."""

    def __init__(self, *, fails: bool = False, close_first: bool = False) -> None:
        """Fail at the close, or let the block close."""
        self.sent: list[str] = []
        self.fails = fails
        self.close_first = close_first

    async def run(self) -> None:
        """Run a block until its credential ends."""
        websocket = WebSocket({"type": "websocket", "headers": []}, self.receive, self.send)
        await websocket.accept()
        async with expires_with(websocket, {"exp": 100}, clock=lambda: 99.99):
            if self.close_first:
                await websocket.close(4000)
            await asyncio.Event().wait()

    async def receive(self) -> Any:
        """Connect."""
        return {"type": "websocket.connect"}

    async def send(self, message: Any) -> None:
        """Keep what was sent."""
        self.sent.append(message["type"])
        if self.fails and message["type"] == "websocket.close":
            raise OSError


@pytest.mark.parametrize("options", [{}, {"fails": True}, {"close_first": True}])
def test_a_client_that_is_gone(options: dict[str, bool]) -> None:
    """A connection that is closed already, or breaks at that moment, raises no error, and nothing is sent twice."""
    socket = Socket(**options)
    asyncio.run(socket.run())
    assert socket.sent == ["websocket.accept", "websocket.close"]


@pytest.mark.parametrize("exp", ["100", True, [100]])
def test_what_is_no_moment(exp: Any) -> None:
    """A moment of another type is a mistake, and never an endless connection."""
    with pytest.raises(TypeError, match=r"^exp is a number of seconds, not \w+$"):
        expires_with(WebSocket({"type": "websocket"}, None, None), {"exp": exp})  # type: ignore[arg-type]


def test_arguments_in_another_order() -> None:
    """The connection and the claims, exchanged, are an error that names them."""
    socket: Any = WebSocket({"type": "websocket"}, None, None)  # type: ignore[arg-type]
    wrong: dict[str, Any] = {
        "connection is the WebSocket or the request of the claims, not dict": ({}, socket),
        "claims is the mapping that the guard returned, not text": (socket, "ada"),
    }
    for message, arguments in wrong.items():
        with pytest.raises(ConfigurationError, match=f"^{re.escape(message)}"):
            expires_with(*arguments)


def test_a_token_that_expires_while_the_socket_is_open() -> None:
    """A token opens a WebSocket, and its end ends it."""
    config = auth_of("HS256", leeway_seconds=0).config
    auth = JWTAuth(config)
    app = FastAPI()

    @app.websocket("/")
    async def listen(websocket: WebSocket, claims: Annotated[dict[str, Any], auth.authenticated()]) -> None:
        await websocket.accept(subprotocol="bearer")
        async with expires_with(websocket, claims):
            await websocket.receive_text()

    now = time.time()
    token = forge("HS256", valid_claims(exp=now + 1.5, iat=int(now)), key=KEYS["HS256"])
    with TestClient(app).websocket_connect("/", subprotocols=["bearer", token]) as session:
        with pytest.raises(WebSocketDisconnect) as closed:
            session.receive_text()
        assert closed.value.code == 1008
