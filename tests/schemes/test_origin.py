"""The same-origin rule for credentials that a browser sends by itself."""

from typing import Annotated, Any

import pytest
from fastapi import Cookie, FastAPI, WebSocket
from fastapi.security import APIKeyCookie
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import HTTPConnection

from fastapi_guard import APIKeyScheme, Auth, BearerScheme, ConfigurationError, TokenAuth
from fastapi_guard.schemes.origin import is_same_origin, trusted
from support.asgi import handshake, request

Field = tuple[bytes, bytes]

TRUSTED = "https://app.example"
SAFE = ["GET", "HEAD", "OPTIONS", "TRACE"]
UNSAFE = ["POST", "PUT", "PATCH", "DELETE", "CONNECT", "get", "QUERY"]
SITES = [None, b"same-origin", b"same-site", b"cross-site", b"none", b"", b"Same-Origin", b"same-origin,none"]
ORIGINS = [None, b"https://app.example", b"https://evil.example", b"null", b"", b"https://app.example.evil.example"]


def fields(site: bytes | None, origin: bytes | None) -> list[Field]:
    """Return the fields that a browser adds."""
    named = ((b"sec-fetch-site", site), (b"origin", origin))
    return [(name, value) for name, value in named if value is not None]


def proves(site: bytes | None, origin: bytes | None) -> bool:
    """Decide as the rule is worded."""
    if site is None and origin is None:
        return True
    return site in {b"same-origin", b"none"} or origin == TRUSTED.encode()


@given(
    st.sampled_from(["http", "websocket"]),
    st.sampled_from(SAFE + UNSAFE),
    st.sampled_from(SITES),
    st.sampled_from(ORIGINS),
)
def test_the_rule(kind: str, method: str, site: bytes | None, origin: bytes | None) -> None:
    """A safe method passes; others, and each handshake, with the proof or without both fields."""
    scope = {"type": kind, "method": method, "headers": [*fields(site, origin), (b"host", b"app.example")]}
    expected = (kind == "http" and method in SAFE) or proves(site, origin)
    assert is_same_origin(HTTPConnection(scope), trusted([TRUSTED])) == expected


@pytest.mark.parametrize(
    "headers",
    [
        [(b"sec-fetch-site", b"same-origin"), (b"sec-fetch-site", b"cross-site")],
        [(b"sec-fetch-site", b"cross-site"), (b"sec-fetch-site", b"same-origin")],
        [(b"origin", b"https://app.example"), (b"origin", b"https://evil.example")],
        [(b"origin", b"https://app.example"), (b"origin", b"https://app.example")],
        [(b"origin", b"https://evil.example"), (b"host", b"evil.example")],
        [(b"origin", b"https://evil.example"), (b"x-forwarded-host", b"evil.example")],
        [(b"origin", b"https://evil.example"), (b"referer", b"https://app.example/")],
        [(b"sec-fetch-site", b"cross-site"), (b"sec-fetch-mode", b"navigate")],
    ],
    ids=repr,
)
def test_what_proves_nothing(headers: list[Field]) -> None:
    """A repeated field proves nothing, and neither do Host, a forwarded host or a Referer."""
    scope = {"type": "http", "method": "POST", "headers": headers}
    assert not is_same_origin(HTTPConnection(scope), trusted([TRUSTED]))


def test_nobody_is_trusted_by_default() -> None:
    """Without trusted origins an Origin never proves anything, that of the application's own Host included."""
    scope = {"type": "http", "method": "POST", "headers": [(b"origin", b"https://a.example"), (b"host", b"a.example")]}
    assert not is_same_origin(HTTPConnection(scope), trusted(()))


@pytest.mark.parametrize(
    "origin",
    [
        "https://app.example",
        "http://localhost:3000",
        "https://app.example:8443",
        "http://app.example:443",
        "https://app.example:80",
        "http://127.0.0.1",
        "https://[::1]:8000",
        "https://xn--bcher-kva.example",
    ],
)
def test_an_origin_as_a_browser_sends_it(origin: str) -> None:
    """The origin is kept as the bytes that a browser sends."""
    assert trusted(iter([origin])) == {origin.encode()}


@pytest.mark.parametrize(
    "origin",
    [
        "",
        "*",
        "null",
        "app.example",
        "https://app.example/",
        "https://app.example/path",
        "HTTPS://app.example",
        "https://App.example",
        "https://app.example:443",
        "http://app.example:80",
        "https://app.example:0443",
        "https://user@app.example",
        "https://*.example",
        "https://app.example\n",
        "https://bücher.example",
        "ws://app.example",
        "https://",
        "https://app.example https://b.example",
    ],
)
def test_an_origin_that_would_never_match(origin: str) -> None:
    """An origin that no browser spells so raises ConfigurationError when constructed, with an example."""
    with pytest.raises(ConfigurationError, match=r'such as "https://app\.example"'):
        trusted([TRUSTED, origin])


def test_one_text_is_no_list() -> None:
    """A text instead of a list would be taken letter by letter."""
    with pytest.raises(ConfigurationError, match=r"such as \['https://app\.example'\]"):
        trusted(TRUSTED)


# --- in an application ---


def sync_cookie(session: str | None = Cookie(default=None)) -> str | None:
    """Read a cookie."""
    return session


async def read_by_hand(connection: HTTPConnection) -> str | None:
    """Read a cookie that no signature shows."""
    return connection.cookies.get("session")


COOKIES: dict[str, tuple[Any, dict[str, Any]]] = {
    "ours": (APIKeyScheme("session", "cookie"), {}),
    "FastAPI's": (APIKeyCookie(name="session", auto_error=False), {}),
    "callable": (sync_cookie, {}),
    "said": (read_by_hand, {"cookie": True}),
}


def application(scheme: Any, **options: Any) -> FastAPI:
    """Return an application that is guarded by a cookie."""
    auth: Auth[str] = TokenAuth(scheme, trusted_origins=[TRUSTED], **options)
    app = FastAPI()

    @app.get("/")
    @app.post("/")
    async def endpoint(raw: Annotated[str, auth.authenticated()]) -> str:
        return raw

    @app.post("/lenient")
    async def lenient(raw: Annotated[str | None, auth.optional(ignore_invalid=True)]) -> str | None:
        return raw

    @app.websocket("/")
    async def socket(websocket: WebSocket, raw: Annotated[str, auth.authenticated()]) -> None:
        await websocket.accept()

    return app


# Another origin learns nothing: no challenge, nothing about the cause.
FORBIDDEN = (403, "Forbidden", None)


@pytest.mark.parametrize("kind", COOKIES)
def test_a_cookie_needs_proof(kind: str) -> None:
    """A cookie counts on a safe request; a change, or a WebSocket, requires proof."""
    scheme, options = COOKIES[kind]
    app = application(scheme, **options)
    cookie = (b"cookie", b"session=a")
    foreign = [cookie, (b"sec-fetch-site", b"cross-site"), (b"origin", b"https://evil.example")]
    assert request(app, headers=foreign).status == 200
    assert request(app, headers=foreign, method="POST").refusal == FORBIDDEN
    assert request(app, "/lenient", foreign, method="POST").refusal == FORBIDDEN
    assert handshake(app, headers=foreign).refusal == FORBIDDEN
    for proof in ((b"sec-fetch-site", b"same-origin"), (b"sec-fetch-site", b"none"), (b"origin", TRUSTED.encode())):
        assert request(app, headers=[cookie, proof], method="POST").json == "a"
        assert request(app, "/lenient", [cookie, proof], method="POST").json == "a"
        assert handshake(app, headers=[cookie, proof]).status == 101
    assert request(app, headers=[cookie], method="POST").json == "a"


def test_without_a_cookie_there_is_nothing_to_prove() -> None:
    """An anonymous caller from elsewhere is a 401, not a 403."""
    app = application(APIKeyScheme("session", "cookie"))
    answer = request(app, headers=[(b"origin", b"https://evil.example")], method="POST")
    assert answer.refusal == (401, "Not authenticated", 'ApiKey realm="api"')


@pytest.mark.parametrize(
    ("scheme", "options", "header"),
    [
        (BearerScheme(), {}, (b"authorization", b"Bearer a")),
        (APIKeyScheme("X-Key"), {}, (b"x-key", b"a")),
        (read_by_hand, {}, (b"cookie", b"session=a")),
        (APIKeyScheme("session", "cookie"), {"cookie": False}, (b"cookie", b"session=a")),
    ],
    ids=["bearer", "header", "unseen", "said"],
)
def test_what_no_browser_sends_by_itself(scheme: Any, options: dict[str, Any], header: Field) -> None:
    """A credential in a header of its own needs no proof, nor one that the application has declared as such."""
    app = application(scheme, **options)
    foreign = [header, (b"sec-fetch-site", b"cross-site"), (b"origin", b"https://evil.example")]
    assert request(app, headers=foreign, method="POST").json == "a"
    assert handshake(app, headers=foreign).status == 101
