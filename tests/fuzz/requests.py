"""Whole requests, byte for byte: a status, a challenge and a text that are ours, and 200 for the credential alone."""

import asyncio
from collections.abc import Iterable
from typing import Annotated, Any, Literal
from urllib.parse import unquote_to_bytes

from fastapi import FastAPI, Response, WebSocket
from starlette.requests import HTTPConnection
from starlette.types import Message

from fastapi_guard import APIKeyScheme, JWTAuth, JWTConfig, StaticAPIKeyAuth
from fastapi_guard.login.session import SessionAuth
from fastapi_guard.stores import MemoryStore
from fuzz.challenge import challenges_of
from fuzz.tokens import KEYS

NOW = 1_800_000_000
KEY = "sk-quite-a-long-key-0123456789"
SAFE = ("GET", "HEAD", "OPTIONS", "TRACE")
TRUSTED = b"https://app.example"
Fields = list[tuple[bytes, bytes]]

app = FastAPI()


def clock() -> float:
    """Stand still."""
    return NOW


jwt = JWTAuth(JWTConfig(key=KEYS["HS256"], algorithms=["HS256"], issuer_url="joe"), clock=clock)
Place = Literal["header", "query", "cookie"]
PLACES: dict[str, tuple[str, Place]] = {
    "/header": ("X-Api-Key", "header"),
    "/query": ("api_key", "query"),
    "/cookie": ("key", "cookie"),
}
keys = {
    path: StaticAPIKeyAuth({KEY: {"user_id": "ada"}}, APIKeyScheme(name, place), trusted_origins=[TRUSTED.decode()])
    for path, (name, place) in PLACES.items()
}
sessions = SessionAuth(MemoryStore(clock=clock), clock=clock, trusted_origins=[TRUSTED.decode()])
either = jwt | keys["/header"]


def begin_session() -> str:
    """Log in, and return the id that the browser gets."""
    response = Response()
    nobody = HTTPConnection({"type": "http", "headers": []})
    asyncio.run(sessions.login(response, {"sub": "ada"}, connection=nobody))
    return response.headers["set-cookie"].partition("=")[2].partition(";")[0]


TOKEN = jwt.encode({"sub": "ada", "scope": "items:read", "jti": "1"})
SESSION = begin_session()
NAMES = {
    b"{token}": TOKEN.encode(),
    b"{expired}": jwt.encode({"sub": "ada", "exp": NOW - 100}).encode(),
    b"{key}": KEY.encode(),
    b"{session}": SESSION.encode(),
}
GUARDS = {"/bearer": jwt, **keys, "/session": sessions, "/either": either}
DETAILS = {
    "Not authenticated",
    "The access token is invalid",
    "The access token has expired",
    "More than one credential",
    "Invalid API Key",
    "Forbidden",
    "Token is missing required scope: admin:write",
}
DESCRIBED = {
    "invalid_request": {"More than one credential"},
    "invalid_token": {"The access token is invalid", "The access token has expired", "Invalid API Key"},
    "insufficient_scope": set(),
}
SCHEMES = {
    "/bearer": ["Bearer"],
    "/admin": ["Bearer"],
    "/ws/bearer": ["Bearer"],
    "/session": ["Session"],
    "/ws/session": ["Session"],
    "/header": ["ApiKey"],
    "/query": ["ApiKey"],
    "/cookie": ["ApiKey"],
    "/either": ["Bearer", "ApiKey"],
}


async def endpoint(response: Response) -> str:
    """Respond to every caller that the guard allows."""
    return "in"


for path, guard in GUARDS.items():
    app.add_api_route(path, endpoint, methods=["GET", "POST", "DELETE"], dependencies=[guard.authenticated()])
app.add_api_route("/admin", endpoint, dependencies=[jwt.requires("admin:write")])


@app.websocket("/ws/bearer")
async def bearer_socket(websocket: WebSocket, claims: Annotated[dict[str, Any], jwt.authenticated()]) -> None:
    """Accept every caller that the guard allows."""
    await websocket.accept()


@app.websocket("/ws/session")
async def session_socket(websocket: WebSocket, claims: Annotated[dict[str, Any], sessions.authenticated()]) -> None:
    """Accept every caller that the guard allows."""
    await websocket.accept()


def values(fields: Fields, name: bytes) -> list[bytes]:
    """Return every value of a field."""
    return [value for field, value in fields if field == name]


def bears(fields: Fields, credential: bytes) -> bool:
    """Return whether the one Authorization field is this credential as a bearer token (RFC 6750 2.1)."""
    found = values(fields, b"authorization")
    scheme, _, rest = found[0].strip(b" \t").partition(b" ") if len(found) == 1 else (b"", b"", b"")
    return scheme.lower() == b"bearer" and rest.lstrip(b" ") == credential


def offers(fields: Fields, credential: bytes) -> bool:
    """Return whether a WebSocket comes with this token, in the field or among the offered protocols."""
    offered = [
        entry.strip(b" \t") for value in values(fields, b"sec-websocket-protocol") for entry in value.split(b",")
    ]
    places = [place for place, entry in enumerate(offered) if entry.lower() == b"bearer"]
    if not places or places == [len(offered) - 1]:
        return bears(fields, credential)
    alone = len(places) == 1 and not values(fields, b"authorization")
    return alone and offered[places[0] + 1] == credential


def has_cookie(fields: Fields, name: bytes, credential: bytes) -> bool:
    """Return whether there is one cookie of that name, with this value, quoted or not (RFC 6265 4.1.1)."""
    pairs = [pair.partition(b"=") for value in values(fields, b"cookie") for pair in value.split(b";")]
    found = [value.strip(b" \t") for key, _, value in pairs if key.strip(b" \t") == name]
    return found in ([credential], [b'"' + credential + b'"'])


def has_parameter(query: bytes, name: bytes, credential: bytes) -> bool:
    """Return whether there is one parameter of that name, with this value (WHATWG URL 5.1)."""
    pairs = [pair.replace(b"+", b" ").partition(b"=") for pair in query.split(b"&")]
    found = [unquote_to_bytes(value) for key, _, value in pairs if unquote_to_bytes(key) == name]
    return found == [credential]


def is_own(fields: Fields, method: str) -> bool:
    """Return whether a cookie may be believed: a safe method, or a page of our own or a trusted origin."""
    sites, origins = values(fields, b"sec-fetch-site"), values(fields, b"origin")
    if method in SAFE:
        return True
    if len(sites) > 1 or len(origins) > 1:
        return False
    return sites in ([b"same-origin"], [b"none"]) or (origins == [TRUSTED] if origins else not sites)


def holds(path: str, method: str, query: bytes, fields: Fields) -> bool:
    """Return whether the request has the credential that opens the path, and has it in the right way."""
    token, key = NAMES[b"{token}"], NAMES[b"{key}"]
    by_key = [value.strip(b" \t") for value in values(fields, b"x-api-key")] == [key]
    if path == "/ws/bearer":
        return offers(fields, token)
    if path in ("/bearer", "/admin"):
        return bears(fields, token)
    if path == "/either":
        return bears(fields, token) or by_key
    if path == "/header":
        return by_key
    if path == "/query":
        return has_parameter(query, b"api_key", key)
    name, credential = (b"key", key) if path == "/cookie" else (b"__Host-session", NAMES[b"{session}"])
    return has_cookie(fields, name, credential) and is_own(fields, method)


def may_be_two(fields: Fields) -> bool:
    """Return whether there may be more than one credential in Authorization, which no other credential makes good."""
    found = values(fields, b"authorization")
    return len(found) > 1 or any(b"," in value or len(value.replace(b"\t", b" ").split()) > 2 for value in found)


def request_of(raw: bytes) -> tuple[str, str, bytes, Fields]:
    """Return method, path, query and fields of an input: as HTTP/1.1 writes them, credentials by their names."""
    for name, text in NAMES.items():
        raw = raw.replace(name, text)
    line, *rest = raw.split(b"\n")
    method, _, target = line.decode("latin-1").partition(" ")
    path, _, query = target.partition("?")
    pairs = (field.partition(b":") for field in rest if b":" in field)
    return (
        method,
        path,
        query.encode("latin-1"),
        [(name.strip().lower(), value.strip(b" ")) for name, _, value in pairs],
    )


async def answered(scope: dict[str, Any]) -> tuple[int, Fields, bytes]:
    """Return status, fields and body; 101 for a WebSocket that is accepted."""
    sent: list[Message] = []

    async def receive() -> Message:
        kind = "http.request" if scope["type"] == "http" else "websocket.connect"
        return {"type": kind, "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    body = b"".join(message.get("body", b"") for message in sent[1:])
    return sent[0].get("status", 101), list(sent[0].get("headers", ())), body


def check_challenge(path: str, status: int, field: str) -> None:
    """Check a challenge against the grammars, and each of its values against what we say."""
    found = challenges_of(field)
    assert [scheme for scheme, _ in found] == SCHEMES[path], field
    for scheme, parameters in found:
        assert parameters["realm"] == "api"
        rest = {name: value for name, value in parameters.items() if name != "realm"}
        if scheme != "Bearer" or not rest:
            assert not rest, field
            continue
        described = DESCRIBED[rest.pop("error")]
        assert rest.pop("error_description", None) in (described or {None}), field
        assert rest == ({"scope": "admin:write"} if status == 403 else {}), field


def check_refusal(path: str, status: int, fields: Iterable[tuple[bytes, bytes]], body: bytes) -> None:
    """Check that nothing in a refusal is the client's."""
    detail = body.decode().removeprefix('{"detail":"').removesuffix('"}')
    assert detail in DETAILS, body
    found = {name.decode(): value.decode() for name, value in fields}
    assert found.pop("content-type") == "application/json"
    assert found.pop("content-length") == str(len(body))
    if detail == "Forbidden":
        assert status == 403
    else:
        check_challenge(path, status, found.pop("www-authenticate"))
    assert not found


async def check(raw: bytes) -> None:
    """Compare the answer with what the request holds."""
    method, path, query, fields = request_of(raw)
    socket = path.startswith("/ws/")
    known = path in SCHEMES and (socket or method in (("GET",) if path == "/admin" else ("GET", "POST", "DELETE")))
    if not known:
        return
    scope: dict[str, Any] = {
        "type": "websocket" if socket else "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "scheme": "wss" if socket else "https",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": query,
        "headers": fields,
        "client": ("192.0.2.1", 1),
        "server": ("api.example", 443),
        "state": {},
    }
    scope |= {"subprotocols": [], "extensions": {"websocket.http.response": {}}} if socket else {"method": method}
    status, sent, body = await answered(scope)
    let_in = holds(path, "" if socket else method, query, fields)
    if path == "/either" and let_in and status == 401 and may_be_two(fields):
        assert body == b'{"detail":"More than one credential"}'
        let_in = False
    if let_in and path != "/admin":
        assert status == (101 if socket else 200), (raw, status)
        assert all(name in (b"content-type", b"content-length") for name, _ in sent)
        return
    assert status == 403 if let_in else status in (401, 403), (raw, status)
    check_refusal(path, status, sent, body)
