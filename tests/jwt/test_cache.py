"""Tokens in the cache, as they come on a connection: found by one look, accepted and refused like any other."""

from hashlib import sha256
from typing import Annotated, Any

import pytest
from fastapi import FastAPI, WebSocket
from starlette.requests import HTTPConnection

from fastapi_guard import BearerScheme, JWTAuth, ServiceUnavailable, Unauthorized
from fastapi_guard.jwt import verifier
from fastapi_guard.jwt.compact import Header
from fastapi_guard.jwt.verification_keys import VerificationKeys
from support.asgi import handshake, request
from support.tokens import KEYS, auth_of, forge

TOKEN = forge("ES256")
BEARER = b"Bearer " + TOKEN.encode()
FIELD = (b"authorization", BEARER)


def application(**settings: Any) -> tuple[FastAPI, JWTAuth]:
    """Return an application with a route and a WebSocket, and what guards both."""
    auth = auth_of("ES256", **settings)
    app = FastAPI()

    @app.get("/")
    async def endpoint(claims: Annotated[dict[str, Any], auth.requires("items:read")]) -> dict[str, Any]:
        return claims

    @app.websocket("/")
    async def socket(websocket: WebSocket, claims: Annotated[dict[str, Any], auth.authenticated()]) -> None:
        await websocket.accept()

    return app, auth


def test_a_token_in_the_cache_on_a_websocket() -> None:
    """A WebSocket has it in the field or in the offered subprotocols, and not in both."""
    app, _ = application(cache_size=4)
    assert request(app, "/", [FIELD]).status == 200
    offered = (b"sec-websocket-protocol", b"bearer, " + TOKEN.encode())
    assert [handshake(app, "/", headers).status for headers in ([FIELD], [offered], [FIELD, offered])] == [
        101,
        101,
        401,
    ]


def test_a_scheme_that_extracts_in_its_own_way() -> None:
    """A subclass of a scheme extracts at each request, whatever is in the cache."""
    asked: list[HTTPConnection] = []

    class Own(BearerScheme):
        def extract(self, connection: HTTPConnection) -> str | None:
            asked.append(connection)
            return super().extract(connection) if len(asked) < 3 else None

    app, _ = application(cache_size=4, options={"scheme": Own()})
    assert [request(app, "/", [FIELD]).status for _ in range(3)] == [200, 200, 401]


def test_keys_that_are_away() -> None:
    """Without usable keys of its source, a token in the cache waits for them like any other."""

    class Source:
        ready: VerificationKeys | None = VerificationKeys([KEYS["ES256"]], ["ES256"])

        def peek(self) -> VerificationKeys | None:
            return self.ready

        async def load(self, header: Header | None = None) -> VerificationKeys:
            raise ServiceUnavailable(reason="away")

    source = Source()
    app, _ = application(cache_size=4, key=source)
    assert [request(app, "/", [FIELD]).status for _ in range(2)] == [200, 200]
    source.ready = None
    assert request(app, "/", [FIELD]).status == 503


def test_two_guards_of_one_request() -> None:
    """The second guard of a request gets what the first got, and no copy of its own."""
    app, auth = application(cache_size=4)
    seen: list[dict[str, Any]] = []

    @app.get("/twice", dependencies=[auth.authenticated()])
    async def twice(claims: Annotated[dict[str, Any], auth.requires("items:read")], connection: HTTPConnection) -> None:
        seen.extend((claims, connection.state.claims))

    for _ in range(2):
        assert request(app, "/twice", [FIELD]).status == 200
    first, state, second, again = seen
    assert first is state
    assert second is again
    assert first is not second


async def test_an_oversized_token_is_not_hashed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A token above the limit is refused before anything is done with it."""
    hashed: list[bytes] = []

    def noting(token: bytes) -> Any:
        hashed.append(token)
        return sha256(token)

    monkeypatch.setattr(verifier, "sha256", noting)
    _, auth = application(cache_size=4, max_token_bytes=len(TOKEN))
    assert await auth.verify(TOKEN) == await auth.verify(TOKEN)
    assert len(hashed) == 2
    with pytest.raises(Unauthorized, match="invalid"):
        await auth.verify(TOKEN + "x")
    assert len(hashed) == 2
