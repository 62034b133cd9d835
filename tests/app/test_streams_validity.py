"""expires_with: a connection ends when its credential does, and not only at its exp."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import timedelta
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, Request, Response, WebSocket
from fastapi.responses import StreamingResponse
from fastapi.testclient import TestClient
from joserfc import jwk
from joserfc.jwk import ECKey
from starlette.requests import HTTPConnection
from starlette.websockets import WebSocketDisconnect

from fastapi_guard import (
    AnyAuth,
    APIKeyScheme,
    Auth,
    ConfigurationError,
    JWTAuth,
    JWTConfig,
    ScopesAuth,
    ServiceUnavailable,
    Unauthorized,
)
from fastapi_guard.app import expires_with, guarded
from fastapi_guard.issuers import DPoP
from fastapi_guard.login.revocation import Revocations
from fastapi_guard.login.session import SessionAuth
from fastapi_guard.stores import MemoryStore
from fastapi_guard.testing import acting_as
from support.dpop import make_proof

OFTEN = 0.02
INVALID = (1008, "The credential is no longer valid")


class Changing(ScopesAuth):
    """An Auth whose credential changes while a connection is open."""

    def __init__(self, *args: Any, **options: Any) -> None:
        """Begin with a valid credential."""
        super().__init__(*args, **options)
        self.outcomes: list[Any] = []
        self.verified = 0

    async def verify(self, raw: str) -> dict[str, Any]:
        """Return the next outcome; the last one stays."""
        self.verified += 1
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else (self.outcomes or [None])[0]
        if isinstance(outcome, Exception):
            raise outcome
        return {"sub": "ada", "scope": "a"} if outcome is None else outcome


def application(auth: Auth[Any], *dependencies: Any, **options: Any) -> FastAPI:
    """Return an application with a WebSocket and a stream that last as long as the credential."""
    app, router = FastAPI(), APIRouter(dependencies=list(dependencies))
    options = {"every": OFTEN, **options}

    @router.websocket("/ws")
    async def talk(websocket: WebSocket, claims: Annotated[Any, auth.authenticated()]) -> None:
        await websocket.accept()
        async with expires_with(websocket, claims, **options):
            async for text in websocket.iter_text():
                await websocket.send_text(text)

    @router.get("/stream")
    async def stream(request: Request, claims: Annotated[Any, auth.authenticated()]) -> StreamingResponse:
        async def endless() -> AsyncIterator[str]:
            yield "first"
            await asyncio.Event().wait()

        return StreamingResponse(expires_with(request, claims, **options).over(endless()))

    app.include_router(router)
    return app


def closes(
    app: FastAPI, headers: dict[str, str], change: Callable[[], Any] | None = None, *, path: str = "/ws"
) -> tuple[int, str]:
    """Return code and reason of the close; a change comes when the connection is open and watched."""
    with TestClient(app).websocket_connect(path, headers=headers) as session:
        if change is not None:
            session.send_text("hello")
            assert session.receive_text() == "hello"
            change()
        with pytest.raises(WebSocketDisconnect) as closed:
            session.receive_text()
    return closed.value.code, closed.value.reason or ""


BEARER = {"Authorization": "Bearer x"}


def test_a_session_that_ends() -> None:
    """Logout, the end of all sessions of a subject, and the absolute lifetime close the WebSocket."""
    moment = [1_000_000.0]
    auth = SessionAuth(MemoryStore(clock=lambda: moment[0]), clock=lambda: moment[0])
    app = application(auth, clock=lambda: moment[0])

    @app.post("/login")
    async def login(request: Request, response: Response) -> None:
        await auth.login(response, {"sub": "ada"}, connection=request)

    def age() -> None:
        moment[0] += timedelta(hours=13).total_seconds()

    for change in (lambda: asyncio.run(auth.end_all("ada")), lambda: asyncio.run(auth.revoke_subject("ada")), age):
        client = TestClient(app, base_url="https://testserver")
        cookie = client.post("/login").headers["set-cookie"].split(";")[0]
        assert closes(app, {"Cookie": cookie}, change) == INVALID


def test_a_token_that_is_revoked() -> None:
    """By its id, or with its subject."""
    revocations = Revocations(MemoryStore())
    auth = JWTAuth(JWTConfig(key=jwk.OctKey.generate_key(256)), revocations=revocations)
    app = application(auth)
    for by_subject in (False, True):
        token = auth.encode({"sub": "ada"})
        claims = asyncio.run(auth.verify(token))

        def change(by_subject: bool = by_subject, claims: dict[str, Any] = claims) -> None:
            asyncio.run(revocations.revoke_subject("ada") if by_subject else revocations.revoke(claims))

        assert closes(app, {"Authorization": f"Bearer {token}"}, change) == INVALID


def test_a_scope_that_is_taken_back() -> None:
    """The scopes that the route requires are checked again, those of an include too."""
    for dependencies in ([True], []):
        auth = Changing()
        app = application(auth, *([auth.requires("a")] if dependencies else []))
        auth.outcomes = [None, {"sub": "ada", "scope": "b"}, Unauthorized()]
        expected = 2 if dependencies else 3
        assert closes(app, BEARER) == INVALID
        assert auth.verified >= expected


GRANTED: dict[str, Any] = {"sub": "ada", "scope": "a", "roles": ["editor"], "is_admin": True, "tenant_id": "acme"}


RULES: list[tuple[Callable[[Any], Any], dict[str, Any]]] = [
    (lambda auth: auth.requires_any("a", "b"), {"scope": "c"}),
    (lambda auth: auth.requires_role("editor"), {"roles": ["reader"]}),
    (lambda auth: auth.requires_admin(), {"is_admin": False}),
    (lambda auth: auth.requires_tenant(), {"tenant_id": "other"}),
    (lambda auth: auth.requires_tenant(), {"tenant_id": None}),
]


@pytest.mark.parametrize(("guard", "taken"), RULES)
@pytest.mark.parametrize("alone", [True, False], ids=["alone", "in an AnyAuth"])
def test_a_rule_about_grants(guard: Callable[[Any], Any], taken: dict[str, Any], *, alone: bool) -> None:
    """A rule about scopes, roles or tenants has to hold as long as the connection is open."""
    one = Changing()
    auth = one if alone else AnyAuth(one, Changing(APIKeyScheme("X-Key"), name="keys"))
    app, around = FastAPI(), application(auth, guard(auth))
    app.mount("/{tenant}", around)
    one.outcomes = [GRANTED, GRANTED, GRANTED, {**GRANTED, **taken}]
    assert closes(app, BEARER, path="/acme/ws") == INVALID
    assert one.verified == 4


def test_what_holds_at_the_handshake() -> None:
    """A login that was recent stays enough, and neither a loader, a policy nor an owner is called again."""
    auth, calls = Changing(), []

    def load(claims: dict[str, Any]) -> dict[str, Any]:
        calls.append(claims)
        return {"owner": "ada"}

    app = application(
        auth,
        auth.requires_recent(60),
        auth.requires_factor("otp", max_age=60),
        auth.user(load),
        auth.allows(lambda claims: load(claims) is not None),
        auth.owned(load, owner="owner"),
    )
    fresh = {"sub": "ada", "scope": "a", "amr": ["otp"], "auth_time": time.time(), "factors": {"otp": time.time()}}
    stale = {**fresh, "auth_time": 0, "factors": {"otp": 0}}
    auth.outcomes = [fresh, stale, stale, Unauthorized()]
    assert closes(app, BEARER) == INVALID
    assert (auth.verified, len(calls)) == (4, 3)


def test_members_of_an_any_auth() -> None:
    """The member that verified the credential is what counts, though another would accept the connection."""
    jwt, keys = Changing(name="jwt"), Changing(APIKeyScheme("X-Key"), name="keys")
    app = application(AnyAuth(jwt, keys))
    assert closes(app, {**BEARER, "X-Key": "k"}, lambda: jwt.outcomes.append(Unauthorized())) == INVALID


def test_a_backend_that_is_unavailable() -> None:
    """The connection stays for two checks, and is closed with the third in a row."""
    auth = Changing()
    away = ServiceUnavailable()
    auth.outcomes = [None, away, away, {"sub": "ada"}, away, away, away]
    assert closes(application(auth), BEARER) == (1013, "The credential cannot be verified now")
    assert auth.verified == 7


def test_an_error_of_the_application(caplog: pytest.LogCaptureFixture) -> None:
    """It ends the connection, and is logged."""
    auth = Changing()
    auth.outcomes = [None, ZeroDivisionError()]
    assert closes(application(auth), BEARER) == (1013, "The credential cannot be verified now")
    assert "could not be verified" in caplog.text


def test_a_connection_that_lasts() -> None:
    """A credential that stays valid changes nothing, and the checks end with the block."""
    auth = Changing()
    with TestClient(application(auth)) as client:
        with client.websocket_connect("/ws", headers=BEARER) as session:
            while auth.verified < 4:
                session.send_text("hello")
                assert session.receive_text() == "hello"
        verified = auth.verified
    assert auth.verified <= verified + 1


def test_a_stream_ends() -> None:
    """A stream that waits ends when the credential is invalid, or at its exp, and its source is closed."""
    for outcome, options in ((Unauthorized(), {}), (ServiceUnavailable(), {}), (None, {"clock": lambda: 99.95})):
        auth = Changing()
        auth.outcomes = [{"sub": "ada", "exp": 100}, outcome] if outcome is None else [None, outcome]
        answer = TestClient(application(auth, **options)).get("/stream", headers=BEARER)
        assert (answer.status_code, answer.text) == (200, "first")


async def test_streams() -> None:
    """Items pass until the source ends or fails, and the source is closed when the reader stops."""
    request = HTTPConnection({"type": "http", "headers": []})
    closed: list[str] = []

    async def source(fail: bool = False) -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
            if fail:
                raise ZeroDivisionError
        finally:
            closed.append("closed")

    assert [item async for item in expires_with(request, {}).over(source())] == [1, 2]
    with pytest.raises(ZeroDivisionError):
        [item async for item in expires_with(request, {"exp": float("inf")}).over(source(fail=True))]
    stream: Any = expires_with(request, {}).over(source())
    assert await anext(stream) == 1
    await stream.aclose()
    assert closed == ["closed"] * 3

    class Plain:
        """A source that cannot be closed."""

        def __aiter__(self) -> Any:
            """Return itself."""
            return self

        async def __anext__(self) -> int:
            """Wait without end."""
            await asyncio.Event().wait()
            raise AssertionError  # pragma: no cover - it waits

    assert [item async for item in expires_with(request, {"exp": 1}).over(Plain())] == []
    waiting: Any = expires_with(request, {}).over(Plain())
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(waiting), 0.01)


class Regranted(JWTAuth):
    """An Auth whose tokens are bound to a key, and grant something else while a connection is open."""

    taken: Mapping[str, Any] = {}
    verified = 0

    async def verify_request(self, connection: HTTPConnection, raw: str) -> dict[str, Any]:
        """Check the proof, and return what the token grants now."""
        claims = await super().verify_request(connection, raw)
        self.verified += 1
        return {**claims, **self.taken}


@pytest.mark.parametrize(("guard", "taken"), [*RULES, (lambda auth: auth.requires("a"), {"scope": "c"})])
@pytest.mark.parametrize("alone", [True, False], ids=["alone", "in an AnyAuth"])
def test_a_rule_about_the_grants_of_a_bound_token(
    guard: Callable[[Any], Any], taken: dict[str, Any], *, alone: bool
) -> None:
    """It has to hold as long as the connection is open, and the proof of the handshake is not used again."""
    key = ECKey.generate_key("P-256")
    dpop = DPoP(MemoryStore(), origin="https://api.example")
    one = Regranted(JWTConfig(key=jwk.OctKey.generate_key(256)), dpop=dpop)
    token = one.encode({**GRANTED, "cnf": {"jkt": key.thumbprint()}})
    auth = one if alone else AnyAuth(one, Changing(APIKeyScheme("X-Key"), name="keys"))
    app = FastAPI()
    app.mount("/{tenant}", application(auth, guard(auth)))

    def headers() -> dict[str, str]:
        proof = make_proof(key, token, url="https://api.example/acme/ws")
        return {"Authorization": f"DPoP {token}", "DPoP": proof}

    with TestClient(app).websocket_connect("/acme/ws", headers=headers()) as session:
        while one.verified < 3:
            session.send_text("hello")
            assert session.receive_text() == "hello"
    assert closes(app, headers(), lambda: setattr(one, "taken", taken), path="/acme/ws") == INVALID


def test_a_proof_of_another_kind() -> None:
    """A proof that an application checks itself is checked at the handshake alone, too."""
    checked: list[str] = []

    class Proofs(DPoP):
        """Proofs that are accepted once."""

        async def check(self, connection: HTTPConnection, raw: str, claims: Mapping[str, Any]) -> None:
            """Accept the first one."""
            assert raw not in checked
            checked.append(raw)

    dpop = Proofs(MemoryStore(), origin="https://api.example")
    auth = Regranted(JWTConfig(key=jwk.OctKey.generate_key(256)), dpop=dpop)
    headers = {"Authorization": f"Bearer {auth.encode({'sub': 'ada'})}"}
    with TestClient(application(auth)).websocket_connect("/ws", headers=headers) as session:
        while auth.verified < 3:
            session.send_text("hello")
            assert session.receive_text() == "hello"
    assert len(checked) == 1


def test_a_proof_is_not_used_twice() -> None:
    """A token that is bound to a key is verified again without its proof, which is accepted once."""
    verified = 0

    class Counted(Revocations):
        """Revocations that count how often a token was verified."""

        async def is_revoked(self, claims: Mapping[str, Any]) -> bool:
            """Count, and look it up."""
            nonlocal verified
            verified += 1
            return await super().is_revoked(claims)

    revocations = Counted(MemoryStore())
    dpop = DPoP(MemoryStore(), origin="https://api.example")
    auth = JWTAuth(JWTConfig(key=jwk.OctKey.generate_key(256)), revocations=revocations, dpop=dpop)
    bound = auth.encode({"sub": "ada", "cnf": {"jkt": "x" * 43}})

    async def accept(*_: Any) -> None:
        """Accept the proof."""

    dpop.check = accept  # type: ignore[method-assign]
    app = application(auth)

    def revoke() -> None:
        asyncio.run(revocations.revoke_subject("ada"))

    headers = {"Authorization": f"DPoP {bound}", "DPoP": "proof"}
    with TestClient(app).websocket_connect("/ws", headers=headers) as session:
        while verified < 3:
            session.send_text("hello")
            assert session.receive_text() == "hello"
    assert closes(app, headers, revoke) == INVALID


def test_a_credential_that_is_used_once() -> None:
    """An Auth with ``still_valid`` does not verify the credential again."""

    class Ticket(Changing):
        """An Auth of tickets."""

        valid = (True, True, False)

        async def still_valid(self, claims: dict[str, Any]) -> bool:
            """Return whether what made the ticket is valid."""
            assert claims["sub"] == "ada"
            valid, *self.valid = self.valid
            return valid

    auth = Ticket()
    assert closes(application(auth), BEARER) == INVALID
    assert auth.verified == 1


@pytest.mark.parametrize("first", [True, False])
def test_a_credential_that_is_used_once_among_several(first: bool) -> None:
    """The member of an AnyAuth that verified decides how the credential is verified again."""

    class Ticket(Changing):
        """An Auth of tickets, which are in a field of their own."""

        name = "ticket"
        has_ended = False

        async def still_valid(self, claims: dict[str, Any]) -> bool:
            """Return whether what made the ticket is valid."""
            assert claims["sub"] == "ada"
            return not self.has_ended

    tickets, tokens = Ticket(APIKeyScheme("X-Ticket")), Changing(name="tokens")
    app = application(tickets | tokens if first else tokens | tickets)
    tickets.outcomes = [None, Unauthorized()]
    assert closes(app, {"X-Ticket": "x"}, lambda: setattr(tickets, "has_ended", True)) == INVALID
    assert (tickets.verified, tokens.verified) == (1, 0)
    assert closes(app, BEARER, lambda: tokens.outcomes.append(Unauthorized())) == INVALID
    assert tokens.verified > 1


@pytest.mark.parametrize("answer", [None, 1, "no", asyncio.sleep], ids=["None", "a number", "a text", "a function"])
def test_an_answer_that_is_not_a_bool(answer: Any) -> None:
    """A coroutine that was not awaited is true as well, and the connection would never end."""

    class Ticket(Changing):
        """An Auth of tickets."""

        async def still_valid(self, claims: dict[str, Any]) -> Any:
            """Return anything."""
            assert claims["sub"] == "ada"
            return answer

    assert closes(application(Ticket(), every=0.5), BEARER) == INVALID


def test_other_guards() -> None:
    """Optional guards do not end a connection, and a caller that a test put there stays."""
    auth, other = Changing(), Changing(name="other")
    app = application(auth, other.optional(), Depends(lambda: None))
    assert closes(app, BEARER, lambda: auth.outcomes.append(Unauthorized())) == INVALID
    app = application(auth)
    with acting_as(app, auth, {"sub": "test"}), TestClient(app).websocket_connect("/ws") as session:
        session.send_text("hello")
        assert session.receive_text() == "hello"


def test_below_a_guarded_mount() -> None:
    """The credential that a mount verified ends a connection below it."""
    auth = Changing()
    inner = FastAPI()

    @inner.websocket("/ws")
    async def talk(websocket: WebSocket) -> None:
        await websocket.accept()
        async with expires_with(websocket, websocket.state.claims, every=timedelta(seconds=OFTEN)):
            await websocket.receive_text()

    app = FastAPI()
    app.mount("/inner", guarded(inner, auth.authenticated()))
    with TestClient(app).websocket_connect("/inner/ws", headers=BEARER) as session:
        auth.outcomes.append(Unauthorized())
        with pytest.raises(WebSocketDisconnect) as closed:
            session.receive_text()
    assert closed.value.code == 1008


@pytest.mark.parametrize("every", [0, -1, True, "30", None, float("inf"), float("nan"), timedelta(0)])
def test_how_often(every: Any) -> None:
    """It is a positive time."""
    with pytest.raises(ConfigurationError, match=r"^every is a number of seconds above 0"):
        expires_with(HTTPConnection({"type": "http", "headers": []}), {}, every=every)
