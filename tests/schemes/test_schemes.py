"""From bytes on a connection to the raw credential, or to a refusal with its challenge."""

import string
from collections.abc import Callable
from typing import Annotated, Any
from urllib.parse import urlencode

import pytest
from fastapi import Cookie, Depends, FastAPI, Header, Path, Query, WebSocket
from fastapi.security import (
    APIKeyCookie,
    APIKeyHeader,
    APIKeyQuery,
    HTTPBasic,
    HTTPBearer,
    HTTPDigest,
    OAuth2,
    OAuth2AuthorizationCodeBearer,
    OAuth2PasswordBearer,
    OpenIdConnect,
)
from fastapi.testclient import TestClient
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.requests import HTTPConnection
from starlette.testclient import WebSocketDenialResponse

from fastapi_guard import APIKeyScheme, Auth, BearerScheme, ConfigurationError, ScopesAuth, TokenAuth, Unauthorized
from fastapi_guard.schemes import CallableScheme, DPoPScheme, Scheme, as_scheme
from support.asgi import Answer, handshake, request
from support.ids import case_id

Field = tuple[bytes, bytes]

NOT_AUTHENTICATED = "Not authenticated"
INVALID = "The access token is invalid"
TWO = "More than one credential"
PLAIN = 'Bearer realm="api"'
INVALID_TOKEN = f'{PLAIN}, error="invalid_token", error_description="{INVALID}"'
INVALID_REQUEST = f'{PLAIN}, error="invalid_request", error_description="{TWO}"'
API_KEY = 'ApiKey realm="api"'

MISSING = (401, NOT_AUTHENTICATED, PLAIN)
MALFORMED = (401, INVALID, INVALID_TOKEN)
SEVERAL = (401, TWO, INVALID_REQUEST)


def application(scheme: Any, **options: Any) -> FastAPI:
    """Return an application that sends the raw credential back, over HTTP and over a WebSocket."""
    auth: Auth[str] = Auth(scheme, **options)
    app = FastAPI()

    @app.get("/")
    @app.post("/")
    async def endpoint(raw: Annotated[str, auth.authenticated()]) -> dict[str, str]:
        return {"raw": raw}

    @app.get("/optional")
    async def optional(raw: Annotated[str | None, auth.optional()]) -> dict[str, str | None]:
        return {"raw": raw}

    @app.websocket("/ws")
    async def socket(websocket: WebSocket, raw: Annotated[str, auth.authenticated()]) -> None:
        await websocket.accept(headers=[(b"x-raw", raw.encode())])

    return app


def connection(*headers: Field, query: bytes = b"") -> HTTPConnection:
    """Return a connection with exactly these bytes."""
    return HTTPConnection({"type": "http", "headers": list(headers), "query_string": query})


def extract(scheme: Scheme, connection: HTTPConnection) -> str | tuple[str, str | None]:
    """Return the credential, an empty text where there is none, or the text and the code of the refusal."""
    try:
        return scheme.extract(connection) or ""
    except Unauthorized as refusal:
        return refusal.detail, refusal.error


def authorization(value: bytes) -> Field:
    """Return an Authorization field."""
    return (b"authorization", value)


def assert_refused(app: FastAPI, headers: list[Field], refusal: tuple[int, str, str], query: bytes = b"") -> None:
    """Check the refusal of a request and of a handshake; what is missing, and only that, passes an optional guard."""
    assert request(app, "/", headers, query=query).refusal == refusal
    assert handshake(app, "/ws", headers, query=query).refusal == refusal
    answer = request(app, "/optional", headers, query=query)
    if refusal[1] == NOT_AUTHENTICATED:
        assert (answer.status, answer.json) == (200, {"raw": None})
    else:
        assert answer.refusal == refusal


def assert_taken(app: FastAPI, headers: list[Field], raw: str, query: bytes = b"") -> None:
    """Check that a request and a handshake have this credential."""
    for path in ("/", "/optional"):
        answer = request(app, path, headers, query=query)
        assert (answer.status, answer.json) == (200, {"raw": raw})
    accepted = handshake(app, "/ws", headers, query=query)
    assert (accepted.status, accepted.header("x-raw")) == (101, raw)


# --- Bearer ---

BEARERS: dict[str, Callable[[], Any]] = {
    "Bearer": BearerScheme,
    "password": lambda: BearerScheme.password("/token"),
    "authorization_code": lambda: BearerScheme.authorization_code("/authorize", "/token"),
    "openid_connect": lambda: BearerScheme.openid_connect("/.well-known/openid-configuration"),
    "OAuth2PasswordBearer": lambda: OAuth2PasswordBearer("/token", auto_error=False),
    "OAuth2AuthorizationCodeBearer": lambda: OAuth2AuthorizationCodeBearer("/authorize", "/token", auto_error=False),
}
TOKEN68 = (string.ascii_letters + string.digits + "-._~+/").encode()


@pytest.fixture(params=BEARERS)
def bearer_app(request: pytest.FixtureRequest) -> FastAPI:
    """Return an application for each way to describe a bearer token: all extract alike."""
    return application(BEARERS[request.param]())


@pytest.mark.parametrize(
    ("value", "raw"),
    [
        (b"Bearer a", "a"),
        (b"bearer a", "a"),
        (b"BEARER a", "a"),
        (b"bEaReR a", "a"),
        (b"Bearer    a", "a"),
        (b" \tBearer a\t ", "a"),
        (b"Bearer a=", "a="),
        (b"Bearer aZ09-._~+/==", "aZ09-._~+/=="),
        (b"Bearer Bearer", "Bearer"),
        (b"Bearer " + b"a" * 100_000, "a" * 100_000),
    ],
    ids=case_id,
)
def test_a_bearer_token_is_taken(bearer_app: FastAPI, value: bytes, raw: str) -> None:
    """The scheme's name is compared without case, one or more spaces and a token68 follow, OWS surrounds."""
    assert_taken(bearer_app, [authorization(value)], raw)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b" \t",
        b"Bearer",
        b"bearer",
        b"Bearer ",
        b"Bearer\t",
        b" Bearer \t ",
        b"Bearera",
        b"Bearer,a",
        b"Bearer:a",
        b"BearerToken a",
        b"a",
        b"Basic YTpi",
        b"basic Bearer",
        b"Token a",
        b"DPoP a",
        b'Digest username="Bearer a", realm="api", nonce="bearer"',
        b"\xa0Bearer a",
        b"\x85Bearer a",
        b"Bearer\xa0a",
        b"Bearer\x85a",
        b"Bearer\x0ba",
        b"Bearer\x0ca",
        b"\xef\xbb\xbfBearer a",
        b"B\xc4\x93arer a",
        b"\x00",
        b"\xff" * 1000,
    ],
    ids=case_id,
)
def test_another_schemes_credential_is_none(bearer_app: FastAPI, value: bytes) -> None:
    """Without a bearer token, or with another scheme's credential, the challenge has no error code."""
    assert_refused(bearer_app, [authorization(value)], MISSING)


@pytest.mark.parametrize(
    "value",
    [
        b"Bearer\ta",
        b"Bearer \ta",
        b"Bearer a\xa0",
        b"Bearer \xa0a",
        b"Bearer \x85a",
        b"Bearer a\x85",
        b"Bearer a\x0b",
        b"Bearer a\x0c",
        b"Bearer \x00",
        b"Bearer a\r\nx:y",
        b"Bearer =",
        b"Bearer a=b",
        b'Bearer "a"',
        b"Bearer a;b",
        b"Bearer a:b",
        b"Bearer \xff\xfe",
        b"Bearer \xc3\xa9",
        b"Bearer realm=api",
        b"Bearer <a>",
        b"Bearer %61",
    ],
    ids=case_id,
)
def test_what_cannot_be_a_token_is_invalid(bearer_app: FastAPI, value: bytes) -> None:
    """Only SP and HTAB are white space, and anything but token68 is a bad credential."""
    assert_refused(bearer_app, [authorization(value)], MALFORMED)


@pytest.mark.parametrize(
    "values",
    [
        [b"Bearer a b"],
        [b"Bearer a\tb"],
        [b"Bearer a,b"],
        [b"Bearer a,"],
        [b"Bearer a, Bearer b"],
        [b"Bearer a,Bearer b"],
        [b"Bearer a, Basic YTpi"],
        [b"Basic YTpi, Bearer a"],
        [b"Basic YTpi,\tbearer\ta"],
        [b"Bearer " + b"a " * 10_000],
        [b"Bearer a", b"Bearer b"],
        [b"Bearer a", b"Bearer a"],
        [b"Bearer a", b"Basic YTpi"],
        [b"Basic YTpi", b"Bearer a"],
        [b"", b"Bearer a"],
        [b"", b""],
    ],
    ids=case_id,
)
def test_more_than_one_bearer_token(bearer_app: FastAPI, values: list[bytes]) -> None:
    """Several Authorization fields, or several credentials in one, are an invalid request, even if equal."""
    assert_refused(bearer_app, [authorization(value) for value in values], SEVERAL)


def test_a_token_elsewhere_is_ignored(bearer_app: FastAPI) -> None:
    """A token in the query, in a cookie or in another header does not count as one."""
    elsewhere = [
        (b"cookie", b"access_token=a; Authorization=Bearer a"),
        (b"x-authorization", b"Bearer a"),
        (b"x-forwarded-authorization", b"Bearer a"),
        (b"proxy-authorization", b"Bearer a"),
        (b"x-user", b"ada"),
        (b"x-forwarded-user", b"ada"),
    ]
    query = b"access_token=a&authorization=Bearer+a&token=a"
    assert_refused(bearer_app, elsewhere, MISSING, query)
    assert_taken(bearer_app, [*elsewhere, authorization(b"Bearer b")], "b", query)


def test_a_token_in_a_form_is_ignored() -> None:
    """A token in the body does not count as one."""
    client = TestClient(application(BearerScheme()))
    answer = client.post("/", content=b"access_token=a", headers={"content-type": "application/x-www-form-urlencoded"})
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, PLAIN)


SPACES = st.text(" \t\xa0\x85", max_size=2).map(lambda text: text.encode("latin-1"))
NAMES = st.sampled_from([b"Bearer", b"bearer", b"BeArEr", b"Basic", b"Bearer,", b"Bear", b""])
TOKENS = st.lists(st.sampled_from([b"a", b"B.c", b"=", b",", b" ", b"\xff", b"\x00", b'"', b"Bearer"]), max_size=4)
FIELDS = st.tuples(SPACES, NAMES, st.just(b" ") | SPACES, TOKENS.map(b"".join), SPACES).map(b"".join)
HEADER_VALUES = st.one_of(FIELDS, FIELDS, st.tuples(FIELDS, FIELDS).map(b",".join), st.binary(max_size=12))


def naive_bearer(value: bytes) -> str | None:
    """Return the token in an Authorization field that has exactly one; else ``None``."""
    value = value.strip(b" \t")
    name, behind, token = value[:6], value[6:7], value[6:].lstrip(b" ")
    body = token.rstrip(b"=")
    taken = name.lower() == b"bearer" and behind == b" " and body and set(body) <= set(TOKEN68)
    return token.decode("ascii") if taken else None


@example(b"Bearer a")
@example(b"Bearer a b")
@example(b"Basic a")
@given(HEADER_VALUES)
def test_any_bytes_as_a_bearer_token(value: bytes) -> None:
    """Whatever the bytes, the outcome is the one token in them, no credential, or a refusal with one of two texts."""
    expected = naive_bearer(value)
    outcome = extract(BearerScheme(), connection(authorization(value)))
    if expected is not None:
        assert outcome == expected
    elif outcome != "":
        assert outcome in {(INVALID, "invalid_token"), (TWO, "invalid_request")}
        assert b"bearer" in value.lower()


@example(b"Bearer a")
@example(b"Bearer a b")
@example(b"Basic a")
@given(HEADER_VALUES)
def test_any_bytes_through_the_application(value: bytes) -> None:
    """Whatever the bytes, the answer is the credential or one of three refusals, with nothing of the client's in it."""
    answer = request(BEARER_APP, headers=[authorization(value)])
    expected = naive_bearer(value)
    if expected is None:
        assert answer.refusal in {MISSING, MALFORMED, SEVERAL}
    else:
        assert (answer.status, answer.json) == (200, {"raw": expected})


BEARER_APP = application(BearerScheme())


# --- API keys ---

VISIBLE = frozenset(range(0x21, 0x7F))


def header_field(value: bytes) -> tuple[list[Field], bytes]:
    """Send a credential in a header of its own."""
    return [(b"x-key", value)], b""


def cookie_field(value: bytes) -> tuple[list[Field], bytes]:
    """Send a credential in a cookie, among others."""
    return [(b"cookie", b"a=1; x-key=" + value + b"; b=2")], b""


def query_field(value: bytes) -> tuple[list[Field], bytes]:
    """Send a credential in the query, among others."""
    return [], b"a=1&x-key=" + value.replace(b" ", b"%20") + b"&b=2"


KEYS: dict[str, tuple[Callable[[], Any], Callable[[bytes], tuple[list[Field], bytes]]]] = {
    "header": (lambda: APIKeyScheme("X-Key"), header_field),
    "query": (lambda: APIKeyScheme("x-key", "query"), query_field),
    "cookie": (lambda: APIKeyScheme("x-key", "cookie"), cookie_field),
    "APIKeyHeader": (lambda: APIKeyHeader(name="X-Key", auto_error=False), header_field),
    "APIKeyQuery": (lambda: APIKeyQuery(name="x-key", auto_error=False), query_field),
    "APIKeyCookie": (lambda: APIKeyCookie(name="x-key", auto_error=False), cookie_field),
}
each_key = pytest.mark.parametrize("kind", KEYS)


@each_key
@pytest.mark.parametrize("value", [b"a", b"XaX", b"sk-1_2.3", b"a=b", b"a/+~!", b"a" * 10_000], ids=case_id)
def test_a_key_is_taken(kind: str, value: bytes) -> None:
    """A key of visible ASCII is the credential, in a header, a query parameter or a cookie of its own."""
    make, send = KEYS[kind]
    headers, query = send(value.replace(b"+", b"%2B") if "uery" in kind else value)
    assert_taken(application(make()), headers, value.decode(), query)


@each_key
def test_a_missing_key(kind: str) -> None:
    """Without the field, and with an empty one, the challenge is plain: ApiKey with its realm."""
    make, send = KEYS[kind]
    app = application(make())
    bystanders = [authorization(b"Bearer a"), (b"x-api-key", b"a"), (b"cookie", b"X_Key=a; =x-key; x-ke=y; ;;=")]
    for headers, query in ([], b""), (bystanders, b"X_Key=a&=x-key&x-ke=y&;"), send(b""):
        assert_refused(app, list(headers), (401, NOT_AUTHENTICATED, API_KEY), query)


@each_key
@pytest.mark.parametrize(
    "value",
    [b"a b", b"\xc3\xa9", b"\xff", b"a\xa0", b"\x85a", b"a\x00", b"a\x7f", b"a\tb", b"a\x0b", b"\x0ca"],
    ids=case_id,
)
def test_a_malformed_key(kind: str, value: bytes) -> None:
    """A key with anything but visible ASCII in it is a bad credential; no byte is stripped but SP and HTAB."""
    make, send = KEYS[kind]
    headers, query = send(value)
    assert_refused(application(make()), headers, (401, INVALID, API_KEY), query)


@pytest.mark.parametrize(
    ("kind", "headers", "query"),
    [
        ("header", [(b"x-key", b"a"), (b"x-key", b"b")], b""),
        ("header", [(b"x-key", b"a"), (b"x-key", b"a")], b""),
        ("header", [(b"x-key", b""), (b"x-key", b"a")], b""),
        ("APIKeyHeader", [(b"x-key", b"a"), (b"x-key", b"b")], b""),
        ("query", [], b"x-key=a&x-key=b"),
        ("query", [], b"x-key=a&x-key="),
        ("query", [], b"x-key=a&%78-key=a"),
        ("APIKeyQuery", [], b"x-key=a&x-key=b"),
        ("cookie", [(b"cookie", b"x-key=a; x-key=b")], b""),
        ("cookie", [(b"cookie", b"x-key=a;x-key=a")], b""),
        ("cookie", [(b"cookie", b"x-key; x-key=a")], b""),
        ("cookie", [(b"cookie", b"x-key=a"), (b"cookie", b"x-key=b")], b""),
        ("APIKeyCookie", [(b"cookie", b"x-key=a; x-key=b")], b""),
    ],
    ids=case_id,
)
def test_more_than_one_key(kind: str, headers: list[Field], query: bytes) -> None:
    """A second header, parameter or cookie of the same name makes it unclear which was meant."""
    assert_refused(application(KEYS[kind][0]()), headers, (401, TWO, API_KEY), query)


@pytest.mark.parametrize(
    ("field", "raw"),
    [
        (b"x-key=a", "a"),
        (b" \tx-key =\ta ", "a"),
        (b'x-key="a"', "a"),
        (b'x-key="', '"'),
        (b"x-key=XaX", "XaX"),
        (b"Xx-key=b; x-keyX=b; x-key=a", "a"),
        (b'x-key=a"', 'a"'),
        (b"x-key=a=b=c", "a=b=c"),
        (b"other=x-key=b; x-key=a", "a"),
        (b"X-Key=b; x-key=a", "a"),
        (b"__Host-x-key=b; x-key=a", "a"),
        (b"\xa0x-key=b; x-key=a", "a"),
        (b"x-key\x85=b;x-key=a;", "a"),
    ],
    ids=case_id,
)
def test_a_cookie_among_others(field: bytes, raw: str) -> None:
    """The name of a cookie is compared exactly, one pair of quotation marks is taken off, the rest is the value."""
    assert_taken(application(APIKeyScheme("x-key", "cookie")), [(b"cookie", field)], raw)


def test_any_name_in_a_query() -> None:
    """The name of a query parameter is encoded like its value, and may be any text."""
    app = application(APIKeyScheme("my key", "query"))
    assert_taken(app, [], "a", b"my%20key=a")
    assert_refused(app, [], (401, NOT_AUTHENTICATED, API_KEY), b"mykey=a")


def test_the_location_is_the_only_one() -> None:
    """A key is looked for in its one location: a header does not count as a cookie or a query parameter."""
    for kind, (make, own) in KEYS.items():
        app = application(make())
        for send in (header_field, cookie_field, query_field):
            headers, query = send(b"a")
            assert (request(app, headers=headers, query=query).status == 200) == (send is own), kind


@example(b'k="a"')
@example(b'k=""')
@example(b"k=a b")
@example(b"k=a;k=a")
@given(
    st.lists(st.sampled_from([b"k", b"kk", b"=", b";", b" ", b"\t", b'"', b"a", b"\xa0", b"\x00"]), max_size=9).map(
        b"".join
    )
)
def test_any_bytes_as_a_cookie(value: bytes) -> None:
    """The one value of the cookie, read pair by pair; several are refused, and so is what is not visible ASCII."""
    pairs = [pair.strip(b" \t") for pair in value.split(b";")]
    matching = [pair for pair in pairs if pair.split(b"=")[0].rstrip(b" \t") == b"k"]
    contents = [b"=".join(pair.split(b"=")[1:]).lstrip(b" \t") for pair in matching]
    content = contents[0] if contents else b""
    if len(content) >= 2 and content.startswith(b'"') and content.endswith(b'"'):
        content = content[1:-1]
    outcome = extract(APIKeyScheme("k", "cookie"), connection((b"cookie", value)))
    if len(matching) > 1:
        assert outcome == (TWO, "invalid_request")
    elif VISIBLE.issuperset(content):
        assert outcome == content.decode()
    else:
        assert outcome == (INVALID, "invalid_token")


@given(st.binary(max_size=12))
def test_any_bytes_as_a_key_in_a_header(value: bytes) -> None:
    """The value without the SP and HTAB around it, where that is visible ASCII."""
    stripped = value.strip(b" \t")
    expected = stripped.decode("latin-1") if VISIBLE.issuperset(stripped) else (INVALID, "invalid_token")
    assert extract(APIKeyScheme("X-Key"), connection((b"x-key", value))) == expected


@given(st.dictionaries(st.text("ab&=+ é", max_size=3), st.text(max_size=6)), st.text("abc&=+%;#", min_size=1))
def test_any_key_in_a_query(others: dict[str, str], key: str) -> None:
    """A key survives the encoding of the query, whatever the other parameters are."""
    query = urlencode({**others, "x-key": key}).encode()
    assert APIKeyScheme("x-key", "query").extract(connection(query=query)) == key


@given(st.binary(max_size=16))
def test_any_bytes_as_a_query(query: bytes) -> None:
    """No query makes anything but a credential, none, or a refusal."""
    outcome = extract(APIKeyScheme("k", "query"), connection(query=b"k=" + query))
    refused = outcome in {(INVALID, "invalid_token"), (TWO, "invalid_request")}
    assert refused or VISIBLE.issuperset(str(outcome).encode())


# --- callables ---


def sync_cookie(session: str | None = Cookie(default=None)) -> str | None:
    """Read a cookie."""
    return session


async def async_cookie(session: Annotated[str | None, Cookie()] = None) -> str | None:
    """Read a cookie, in the loop."""
    return session


def sync_header(session: str | None = Header(default=None)) -> str | None:
    """Read a header."""
    return session


async def async_header(session: Annotated[str | None, Header()] = None) -> str | None:
    """Read a header, in the loop."""
    return session


async def async_query(session: Annotated[str, Query()] = "") -> str:
    """Read a query parameter."""
    return session


class FromRequest:
    """An object as a scheme."""

    async def __call__(self, request: HTTPConnection) -> str | None:
        """Read the connection itself."""
        return request.headers.get("session")


@pytest.mark.parametrize(
    ("scheme", "headers", "query"),
    [
        (sync_cookie, [(b"cookie", b"session=a")], b""),
        (async_cookie, [(b"cookie", b"session=a")], b""),
        (sync_header, [(b"session", b"a")], b""),
        (async_header, [(b"session", b"a")], b""),
        (async_query, [], b"session=a"),
        (FromRequest(), [(b"session", b"a")], b""),
    ],
    ids=["sync cookie", "async cookie", "sync header", "async header", "query", "object"],
)
def test_a_callable_as_a_scheme(scheme: Any, headers: list[Field], query: bytes) -> None:
    """FastAPI resolves a callable's parameters; without its credential, or with an empty one, it is a 401."""
    app = application(scheme)
    assert_taken(app, headers, "a", query)
    assert_refused(app, [], MISSING)
    empty = [(name, value.replace(b"a", b"").replace(b"session", b"session")) for name, value in headers]
    assert_refused(app, [authorization(b"Bearer a")], MISSING)
    assert request(app, headers=empty).status == 401


@pytest.mark.parametrize("value", [b"\xff\xfe", b"a\x00", b"a" * 10_000, b'"', b"\\", b"a, b"], ids=case_id)
@pytest.mark.parametrize("scheme", [sync_cookie, async_header])
def test_odd_bytes_for_a_callable(scheme: Any, value: bytes) -> None:
    """The text that a callable returns goes to verify() unchanged: odd bytes are a refusal of the Auth, never a 500."""

    class Strict(TokenAuth[str]):
        """An Auth with one good credential."""

        async def verify(self, raw: str) -> str:
            """Accept one credential."""
            if raw != "good":
                raise Unauthorized(error="invalid_token", reason="bad_signature")
            return raw

    auth = Strict(scheme)
    app = FastAPI(dependencies=[auth.authenticated()])
    app.get("/")(lambda: None)
    field, before = (b"session", b"") if scheme is async_header else (b"cookie", b"session=")
    assert request(app, headers=[(field, before + value)]).refusal == MALFORMED
    assert request(app, headers=[(field, before + b"good")]).status == 200


def test_a_callable_of_a_callable() -> None:
    """A callable may depend on a scheme, ours or FastAPI's, and inherits whether that reads a cookie."""
    ours, theirs = APIKeyScheme("session", "cookie"), APIKeyCookie(name="session", auto_error=False)
    header = APIKeyScheme("session")
    for inner, is_cookie in ((ours, True), (theirs, True), (header, False), (sync_cookie, True), (sync_header, False)):

        async def outer(raw: Annotated[str | None, Depends(inner)]) -> str | None:
            return raw

        scheme = as_scheme(outer)
        assert scheme.is_cookie is is_cookie
        assert_taken(application(outer), [(b"cookie", b"session=a"), (b"session", b"a")], "a")


def test_a_callable_that_returns_something_else() -> None:
    """A callable that returns no text is a mistake of the application, and no credential."""

    async def number() -> int:
        return 5

    with pytest.raises(TypeError, match="returns the credential as str or None, not int"):
        request(application(number))


def test_a_callable_works_only_as_a_dependency() -> None:
    """Outside of FastAPI a callable's parameters cannot be resolved."""
    for call, name in ((sync_cookie, "sync_cookie"), (FromRequest(), "FromRequest")):
        with pytest.raises(ConfigurationError) as refused:
            as_scheme(call).extract(connection())
        message = f"the scheme {name} has FastAPI parameters and works only as a dependency"
        assert str(refused.value) == message


# --- schemes that raise ConfigurationError when constructed ---


def required_header(session: Annotated[str, Header()]) -> str:
    """Require a header that an anonymous caller will not send."""
    return session  # pragma: no cover - it is refused before


def required_both(session: Annotated[str, Header()], ticket: Annotated[str, Cookie()]) -> str:
    """Require two of them."""
    return session + ticket  # pragma: no cover - it is refused before


def required_inside(raw: Annotated[str, Depends(required_header)]) -> str:
    """Require it one step further in."""
    return raw  # pragma: no cover - it is refused before


def answering_inside(credentials: Annotated[Any, Depends(HTTPBearer())]) -> str:
    """Depend on a scheme that refuses an anonymous caller by itself, without our challenge."""
    return str(credentials.credentials)  # pragma: no cover - it is refused before


SILENT = "sends an error of its own: pass auto_error=False"
NO_CREDENTIAL = "returns an object, not the credential:"
WHOLE_HEADER = "returns the whole header: use BearerScheme.openid_connect(url) or .password(url)"
NO_SCHEME = "is not a scheme: pass BearerScheme(), APIKeyScheme(name), a callable that returns str | None"


@pytest.mark.parametrize(
    ("scheme", "message"),
    [
        (HTTPBearer(auto_error=False), f"HTTPBearer {NO_CREDENTIAL} use BearerScheme()"),
        (HTTPBearer(), f"HTTPBearer {NO_CREDENTIAL} use BearerScheme()"),
        (HTTPBasic(auto_error=False), f"HTTPBasic {NO_CREDENTIAL} pass a function that returns str | None"),
        (HTTPDigest(auto_error=False), f"HTTPDigest {NO_CREDENTIAL} pass a function that returns str | None"),
        (OAuth2PasswordBearer("/token"), f"OAuth2PasswordBearer(auto_error=True) {SILENT}"),
        (APIKeyHeader(name="X-Key"), f"APIKeyHeader(auto_error=True) {SILENT}"),
        (APIKeyQuery(name="X-Key"), f"APIKeyQuery(auto_error=True) {SILENT}"),
        (APIKeyCookie(name="X-Key"), f"APIKeyCookie(auto_error=True) {SILENT}"),
        (OpenIdConnect(openIdConnectUrl="/", auto_error=False), f"OpenIdConnect {WHOLE_HEADER}"),
        (OAuth2(auto_error=False), f"OAuth2 {WHOLE_HEADER}"),
        (required_header, "the scheme required_header requires session: give each a default of None"),
        (required_both, "the scheme required_both requires session, ticket: give each a default of None"),
        (required_inside, "the scheme required_inside requires session: give each a default of None"),
        (answering_inside, f"HTTPBearer(auto_error=True) {SILENT}"),
        (BearerScheme, f"<class 'fastapi_guard.schemes.bearer.BearerScheme'> {NO_SCHEME}"),
        (APIKeyHeader, f"<class 'fastapi.security.api_key.APIKeyHeader'> {NO_SCHEME}"),
        ("Bearer", f"'Bearer' {NO_SCHEME}"),
        (None, f"None {NO_SCHEME}"),
    ],
)
def test_a_scheme_that_cannot_work(scheme: Any, message: str) -> None:
    """A scheme that refuses by itself, has no text or makes an anonymous request a 422 is an error with a remedy."""
    with pytest.raises(ConfigurationError) as refused:
        Auth(scheme)
    assert str(refused.value) == message


def test_a_path_parameter_is_always_there() -> None:
    """A callable may read a path parameter: no request of the route is without it."""

    def from_path(key: Annotated[str, Path()]) -> str:
        return key

    auth: Auth[str] = Auth(from_path)
    app = FastAPI()

    @app.get("/{key}")
    async def endpoint(raw: Annotated[str, auth.authenticated()], key: str) -> list[str]:
        return [raw, key]

    assert request(app, "/a").json == ["a", "a"]


UNQUOTABLE = "cannot be in a challenge: it has a character outside of RFC 6750 3"
NO_COMPONENT = "cannot name an OpenAPI component: use letters, digits, '.', '_' and '-'"
NO_TOKEN = "use a token of RFC 9110 5.6.2"


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        (BearerScheme, {"realm": 'a"b'}, f"realm 'a\"b' {UNQUOTABLE}"),
        (BearerScheme, {"realm": "a\\"}, f"realm 'a\\\\' {UNQUOTABLE}"),
        (BearerScheme, {"realm": "a\r\nSet-Cookie: b"}, f"realm 'a\\r\\nSet-Cookie: b' {UNQUOTABLE}"),
        (BearerScheme, {"realm": "é"}, f"realm 'é' {UNQUOTABLE}"),
        (BearerScheme, {"realm": None}, f"realm None {UNQUOTABLE}"),
        (BearerScheme, {"resource_metadata": '"'}, f"resource_metadata '\"' {UNQUOTABLE}"),
        (DPoPScheme, {"algorithms": ["ES256", '"']}, f"algs 'ES256 \"' {UNQUOTABLE}"),
        (BearerScheme, {"scheme_name": "my bearer"}, f"scheme_name 'my bearer' {NO_COMPONENT}"),
        (BearerScheme, {"scheme_name": ""}, f"scheme_name '' {NO_COMPONENT}"),
        (APIKeyScheme, {"name": "X", "scheme_name": "my key"}, f"scheme_name 'my key' {NO_COMPONENT}"),
        (APIKeyScheme, {"name": "X", "location": "body"}, 'location is "header", "query" or "cookie", not \'body\''),
        (APIKeyScheme, {"name": ""}, f"'' cannot be the name of a header: {NO_TOKEN}"),
        (APIKeyScheme, {"name": "", "location": "query"}, f"'' cannot be the name of a query: {NO_TOKEN}"),
        (APIKeyScheme, {"name": "X Key"}, f"'X Key' cannot be the name of a header: {NO_TOKEN}"),
        (APIKeyScheme, {"name": "a=b", "location": "cookie"}, f"'a=b' cannot be the name of a cookie: {NO_TOKEN}"),
        (APIKeyScheme, {"name": "é"}, f"'é' cannot be the name of a header: {NO_TOKEN}"),
    ],
    ids=case_id,
)
def test_names_that_cannot_be_sent(kind: Callable[..., object], arguments: dict[str, Any], message: str) -> None:
    """A realm, a component's name or a field's name with a character that it cannot have is refused."""
    with pytest.raises(ConfigurationError) as refused:
        kind(**arguments)
    assert str(refused.value) == message


URL = "is a URL, or a path of this application, not 5"
PASSWORD, CODE = BearerScheme.password, BearerScheme.authorization_code


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        (APIKeyScheme, {"name": 5}, "name is text, not 5"),
        (APIKeyScheme, {"name": "X", "scheme_name": 5}, "scheme_name is text, not 5"),
        (APIKeyScheme, {"name": "X", "description": 5}, "description is text, not 5"),
        (BearerScheme, {"scheme_name": 5}, f"scheme_name 5 {NO_COMPONENT}"),
        (BearerScheme, {"scheme_name": HTTPConnection}, f"scheme_name the class HTTPConnection {NO_COMPONENT}"),
        (BearerScheme, {"description": 5}, "description is text, not 5"),
        (BearerScheme, {"model": 5}, "model is a SecurityBase of fastapi.openapi.models, not 5"),
        (PASSWORD, {"token_url": 5}, f"token_url {URL}"),
        (PASSWORD, {"token_url": "/", "refresh_url": 5}, f"refresh_url {URL}"),
        (PASSWORD, {"token_url": "/", "description": 5}, "description is text, not 5"),
        (CODE, {"authorization_url": 5, "token_url": "/"}, f"authorization_url {URL}"),
        (CODE, {"authorization_url": "/", "token_url": 5}, f"token_url {URL}"),
        (CODE, {"authorization_url": "/", "token_url": "/", "refresh_url": 5}, f"refresh_url {URL}"),
        (CODE, {"authorization_url": "/", "token_url": "/", "description": 5}, "description is text, not 5"),
        (BearerScheme.openid_connect, {"url": 5}, f"url {URL}"),
        (BearerScheme.openid_connect, {"url": "/", "description": 5}, "description is text, not 5"),
    ],
    ids=case_id,
)
def test_an_argument_of_another_type(kind: Callable[..., object], arguments: dict[str, Any], message: str) -> None:
    """A number where a text is wanted is an error that names the argument, and what to pass."""
    with pytest.raises(ConfigurationError) as refused:
        kind(**arguments)
    assert str(refused.value) == message


# --- challenges ---


@example("api", "invalid_token")
@example("api", "\r\n")
@given(st.text(max_size=6), st.text(max_size=6))
def test_a_challenge_holds_only_what_a_challenge_may(realm: str, value: str) -> None:
    """Each parameter of a challenge is quoted once, and no character outside of RFC 6750 3 gets in."""
    allowed = set(map(chr, range(0x20, 0x7F))) - {'"', "\\"}
    if allowed.issuperset(realm + value):
        challenge = BearerScheme(realm=realm).challenge(error=value)
        assert challenge == f'Bearer realm="{realm}", error="{value}"'
    else:
        with pytest.raises(ConfigurationError):
            BearerScheme(realm=realm).challenge(error=value)


def test_the_realm_is_the_schemes() -> None:
    """Every challenge of a scheme has its realm: of nothing, of something bad, of a missing scope."""
    for scheme, field, name in (
        (BearerScheme(realm="keys"), b"authorization", "Bearer"),
        (APIKeyScheme("X-Key", realm="keys"), b"x-key", "ApiKey"),
    ):
        app = application(scheme)
        assert request(app).refusal == (401, NOT_AUTHENTICATED, f'{name} realm="keys"')
        bad = request(app, headers=[(field, b"Bearer \xff")])
        assert str(bad.header("www-authenticate")).startswith(f'{name} realm="keys"')
        assert scheme.challenge(error="insufficient_scope") == f'{name} realm="keys", error="insufficient_scope"'
    assert as_scheme(sync_cookie).challenge() == PLAIN
    for described in (
        BearerScheme.password("/token", realm="keys"),
        BearerScheme.authorization_code("/authorize", "/token", realm="keys"),
        BearerScheme.openid_connect("/.well-known/openid-configuration", realm="keys"),
        CallableScheme(sync_cookie, realm="keys"),
    ):
        assert (described.realm, described.challenge()) == ("keys", 'Bearer realm="keys"')


@pytest.mark.parametrize(("scopes", "shown"), [("items:read", "'items:read'"), (["items:read"], "['items:read']")])
def test_scopes_without_a_description(scopes: Any, shown: str) -> None:
    """The scopes of a flow are described one by one; a text or a list of them is refused, with an example."""
    for make in (BearerScheme.password, lambda url, scopes: BearerScheme.authorization_code(url, url, scopes)):
        with pytest.raises(ConfigurationError) as refused:
            make("/token", scopes)
        expected = f'scopes maps each scope to its description, such as {{"items:read": "Read items"}}, not {shown}'
        assert str(refused.value) == expected


def test_another_name_of_the_scheme() -> None:
    """A subclass with another ``auth_scheme`` extracts and challenges by that name."""

    class Token(BearerScheme):
        auth_scheme = "Token"

    app = application(Token())
    assert_taken(app, [authorization(b"token a")], "a")
    assert_refused(app, [authorization(b"Bearer a")], (401, NOT_AUTHENTICATED, 'Token realm="api"'))


def test_nothing_of_the_client_is_answered() -> None:
    """Neither the credential nor Host nor a forwarded field reaches an answer's header or body."""
    chosen = [
        authorization(b"Bearer evil\xff"),
        (b"host", b"evil.example"),
        (b"x-forwarded-host", b"evil.example"),
        (b"forwarded", b"host=evil.example"),
        (b"x-forwarded-prefix", b"/evil"),
    ]
    answer = request(BEARER_APP, headers=chosen, query=b"evil=1")
    assert answer.refusal == MALFORMED
    assert "evil" not in repr(answer)


# --- dependencies of one's own, OpenAPI, WebSockets ---


def test_a_scheme_is_a_dependency_of_its_own() -> None:
    """A scheme returns the raw credential to an endpoint that verifies nothing."""
    app = FastAPI()

    @app.get("/")
    async def endpoint(raw: Annotated[str | None, Depends(BearerScheme())]) -> dict[str, str | None]:
        return {"raw": raw}

    assert request(app).json == {"raw": None}
    assert request(app, headers=[authorization(b"Bearer a")]).json == {"raw": "a"}
    assert app.openapi()["paths"]["/"]["get"]["security"] == [{"Bearer": []}]


class Suffixed(BearerScheme):
    """One of ours that does more than extract."""

    async def __call__(self, connection: HTTPConnection) -> str | None:
        """Add to the credential."""
        raw = self.extract(connection)
        return None if raw is None else raw + "-suffixed"


def test_an_overridden_call_is_called() -> None:
    """A scheme that overrides ``__call__``, ours or FastAPI's, is resolved by FastAPI and not second-guessed."""

    class Upper(APIKeyHeader):
        async def __call__(self, connection: HTTPConnection) -> str | None:
            return connection.headers.get(self.model.name, "").upper()

    class Lower(OAuth2PasswordBearer):
        async def __call__(self, connection: HTTPConnection) -> str | None:
            return connection.headers.get("authorization", "").lower()

    headers = [authorization(b"Bearer a"), (b"x-key", b"a")]

    class Code(OAuth2AuthorizationCodeBearer):
        __call__ = Lower.__call__

    for scheme, raw in (
        (Suffixed(), "a-suffixed"),
        (Upper(name="X-Key", auto_error=False), "A"),
        (Lower("/token", auto_error=False), "bearer a"),
        (Code("/authorize", "/token", auto_error=False), "bearer a"),
    ):
        app = application(scheme)
        assert_taken(app, headers, raw)
        assert_refused(app, [], MISSING)


DESCRIPTIONS: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "Bearer": (lambda: BearerScheme(description="A JWT"), {"type": "http", "scheme": "bearer", "description": "A JWT"}),
    "OAuth2PasswordBearer": (
        lambda: BearerScheme.password(
            "/token", {"items:read": "Read items"}, refresh_url="/refresh", description="Log in"
        ),
        {
            "type": "oauth2",
            "description": "Log in",
            "flows": {
                "password": {
                    "tokenUrl": "/token",
                    "refreshUrl": "/refresh",
                    "scopes": {"items:read": "Read items"},
                }
            },
        },
    ),
    "OAuth2AuthorizationCodeBearer": (
        lambda: BearerScheme.authorization_code(
            "/authorize", "/token", {"items:read": "Read items"}, refresh_url="/refresh", description="Log in"
        ),
        {
            "type": "oauth2",
            "description": "Log in",
            "flows": {
                "authorizationCode": {
                    "authorizationUrl": "/authorize",
                    "tokenUrl": "/token",
                    "refreshUrl": "/refresh",
                    "scopes": {"items:read": "Read items"},
                }
            },
        },
    ),
    "OpenIdConnect": (
        lambda: BearerScheme.openid_connect("/.well-known/openid-configuration", description="Log in"),
        {"type": "openIdConnect", "openIdConnectUrl": "/.well-known/openid-configuration", "description": "Log in"},
    ),
    "mine": (lambda: BearerScheme(scheme_name="mine"), {"type": "http", "scheme": "bearer"}),
    "my_password": (
        lambda: BearerScheme.password("/token", scheme_name="my_password"),
        {"type": "oauth2", "flows": {"password": {"tokenUrl": "/token", "scopes": {}}}},
    ),
    "X-Key": (lambda: APIKeyScheme("X-Key"), {"type": "apiKey", "in": "header", "name": "X-Key"}),
    "key": (
        lambda: APIKeyScheme("key", "query", description="A key"),
        {"type": "apiKey", "in": "query", "name": "key", "description": "A key"},
    ),
    "APIKey": (lambda: APIKeyScheme("session!", "cookie"), {"type": "apiKey", "in": "cookie", "name": "session!"}),
    "other": (lambda: APIKeyScheme("X-Key", scheme_name="other"), {"type": "apiKey", "in": "header", "name": "X-Key"}),
    "APIKeyHeader": (
        lambda: APIKeyHeader(name="X-Key", description="A key", auto_error=False),
        {"type": "apiKey", "in": "header", "name": "X-Key", "description": "A key"},
    ),
    "theirs": (
        lambda: OAuth2PasswordBearer("/token", scheme_name="theirs", scopes={"a": "b"}, auto_error=False),
        {"type": "oauth2", "flows": {"password": {"tokenUrl": "/token", "scopes": {"a": "b"}}}},
    ),
    "their_code": (
        lambda: OAuth2AuthorizationCodeBearer("/authorize", "/token", scheme_name="their_code", auto_error=False),
        {
            "type": "oauth2",
            "flows": {"authorizationCode": {"authorizationUrl": "/authorize", "tokenUrl": "/token", "scopes": {}}},
        },
    ),
}


@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_what_openapi_says(name: str) -> None:
    """A scheme is listed under its name, as what it is; FastAPI's own keep their descriptions."""
    make, description = DESCRIPTIONS[name]
    document = application(make()).openapi()
    assert document["components"]["securitySchemes"] == {name: description}
    assert document["paths"]["/"]["get"]["security"] == [{name: []}]


def test_a_websocket_is_denied_before_it_is_accepted() -> None:
    """To a client the refusal of a handshake is a real HTTP answer, with status, detail and challenge."""
    client = TestClient(application(BearerScheme()))
    with client.websocket_connect("/ws", headers={"Authorization": "Bearer a"}) as accepted:
        assert accepted.extra_headers == [(b"x-raw", b"a")]
    with pytest.raises(WebSocketDenialResponse) as denied, client.websocket_connect("/ws"):
        pass  # pragma: no cover - it is denied
    answer = denied.value
    assert (answer.status_code, answer.json(), answer.headers["www-authenticate"]) == (
        401,
        {"detail": NOT_AUTHENTICATED},
        PLAIN,
    )


def connecting(kind: str, *headers: Field) -> HTTPConnection:
    """Return a connection with these header fields."""
    return HTTPConnection({"type": kind, "headers": list(headers), "query_string": b""})


@pytest.mark.parametrize(
    ("offered", "token"),
    [
        ([], None),
        ([b"chat"], None),
        ([b"bearer"], None),
        ([b"chat, bearer"], None),
        ([b"abc, bearer"], None),
        ([b"bearer, abc"], "abc"),
        ([b"Bearer,abc"], "abc"),
        ([b"bearer", b"abc"], "abc"),
        ([b"chat, bearer, abc"], "abc"),
        ([b"bearer, abc, chat"], "abc"),
        ([b"\tbearer\t,\tabc\t"], "abc"),
        ([b"bearer, XabcX"], "XabcX"),
    ],
)
def test_a_token_among_the_protocols_of_a_websocket(offered: list[bytes], token: str | None) -> None:
    """A browser sends it behind the protocol `bearer`; a request that is not a handshake sends none so."""
    headers = [(b"sec-websocket-protocol", field) for field in offered]
    for scheme in (BearerScheme(), DPoPScheme()):
        assert scheme.extract(connecting("websocket", *headers)) == token
        assert scheme.extract(connecting("http", *headers)) is None
        if token is None:
            field = (b"authorization", b"Bearer abc")
            assert scheme.extract(connecting("websocket", *headers, field)) == "abc"


PROTOCOL, AUTHORIZATION = b"sec-websocket-protocol", b"authorization"


WHY: list[tuple[BearerScheme | APIKeyScheme, list[Field], str]] = [
    (BearerScheme(), [(PROTOCOL, b"bearer, a, bearer, b")], "two_credentials"),
    (BearerScheme(), [(PROTOCOL, b"bearer, a"), (AUTHORIZATION, b"Bearer b")], "two_credentials"),
    (BearerScheme(), [(PROTOCOL, b"bearer, a"), (AUTHORIZATION, b"Basic b")], "two_credentials"),
    (BearerScheme(), [(PROTOCOL, b"bearer, a=b")], "malformed"),
    (BearerScheme(), [(PROTOCOL, b"bearer, \x0ba")], "malformed"),
    (BearerScheme(), [(AUTHORIZATION, b"Bearer a"), (AUTHORIZATION, b"Bearer a")], "two_credentials"),
    (BearerScheme(), [(AUTHORIZATION, b"Bearer a b")], "two_credentials"),
    (BearerScheme(), [(AUTHORIZATION, b"Bearer a=b")], "malformed"),
    (APIKeyScheme("X-Key"), [(b"x-key", b"a"), (b"x-key", b"b")], "two_credentials"),
    (APIKeyScheme("X-Key"), [(b"x-key", b"a b")], "malformed"),
    (APIKeyScheme("sid", "cookie"), [(b"cookie", b"sid=a; sid=b")], "two_credentials"),
    (APIKeyScheme("sid", "cookie"), [(b"cookie", b"sid=a b")], "malformed"),
]


@pytest.mark.parametrize(("scheme", "headers", "reason"), WHY, ids=range(len(WHY)))
def test_why_a_credential_is_refused(scheme: BearerScheme | APIKeyScheme, headers: list[Field], reason: str) -> None:
    """The log distinguishes two credentials from a malformed one, and so does the code of the challenge."""
    with pytest.raises(Unauthorized) as refused:
        scheme.extract(connecting("websocket", *headers))
    code = "invalid_request" if reason == "two_credentials" else "invalid_token"
    assert (refused.value.reason, refused.value.error) == (reason, code)


def test_the_scopes_of_a_missing_credential() -> None:
    """They are separated by spaces (RFC 6750 3); without any the challenge is the plain one."""
    for scheme in (BearerScheme(), CallableScheme(BearerScheme())):
        assert scheme.missing(["items:read", "items:edit"]) == f'{PLAIN}, scope="items:read items:edit"'
        assert scheme.missing([]) == scheme.plain_challenge == PLAIN
    assert APIKeyScheme("X-Key").missing(["items:read"]) == 'ApiKey realm="api"'


def test_a_memory_of_answers() -> None:
    """The parser of these tests distinguishes one header field from several."""
    with pytest.raises(AssertionError):
        Answer(401, [("www-authenticate", "a"), ("www-authenticate", "b")], b"").header("www-authenticate")


def test_a_scheme_of_ones_own_keeps_its_challenge() -> None:
    """A subclass that overrides ``__call__`` is resolved by FastAPI, and challenges by its own name and realm."""

    class Ticket(APIKeyScheme):
        auth_scheme = "Ticket"

        async def __call__(self, connection: HTTPConnection) -> str | None:
            return connection.headers.get("x-ticket") or connection.headers.get("x-old-ticket")

    class Tickets(ScopesAuth):
        async def verify(self, raw: str) -> dict[str, Any]:
            if raw != "good":
                raise Unauthorized
            return {"sub": "ada", "scope": "a"}

    auth = Tickets(Ticket("X-Ticket", realm="hall"))
    app = FastAPI()

    @app.get("/", dependencies=[auth.requires("b")])
    def show() -> None: ...  # pragma: no cover - no caller is granted b

    client = TestClient(app)
    for sent, status, challenge in (
        ({}, 401, 'Ticket realm="hall"'),
        ({"x-old-ticket": "bad"}, 401, 'Ticket realm="hall"'),
        ({"x-old-ticket": "good"}, 403, 'Ticket realm="hall", error="insufficient_scope", scope="b"'),
    ):
        answer = client.get("/", headers=sent)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (status, challenge)
    assert auth.scheme.scheme_name == "X-Ticket"
    assert auth.scheme.model.model_dump(exclude_none=True)["name"] == "X-Ticket"


# --- DPoP ---


def test_dpop_beside_bearer() -> None:
    """Unless proofs are required, a bearer token is taken too, and both schemes are challenged."""
    scheme = DPoPScheme()
    assert extract(scheme, connection(authorization(b"Bearer a"))) == "a"
    assert extract(scheme, connection(authorization(b"dpop a"))) == "a"
    assert scheme.challenge() == 'Bearer realm="api", DPoP realm="api", algs="ES256"'
    required = DPoPScheme(algorithms=("ES256", "EdDSA"), required=True)
    assert extract(required, connection(authorization(b"Bearer a"))) == ""
    assert required.challenge() == 'DPoP realm="api", algs="ES256 EdDSA"'


@pytest.mark.parametrize(
    ("value", "used"),
    [
        (b"DPoP a", True),
        (b"dpop a", True),
        (b" \tDPoP a ", True),
        (b"\x0bDPoP a", False),
        (b"XDPoP a", False),
        (b"DPoP", False),
        (b"DPoPa", False),
        (b"Bearer DPoP ", False),
    ],
    ids=case_id,
)
def test_whether_dpop_is_used(value: bytes, used: bool) -> None:
    """The name of the scheme decides, read as everywhere: after SP and HTAB, without case, before a space."""
    assert DPoPScheme.is_used(connection(authorization(value))) is used
    assert not DPoPScheme.is_used(connection())


def test_a_scheme_that_would_have_to_be_awaited() -> None:
    """Its coroutine would be the credential, also of a caller that sent none."""

    class Later(BearerScheme):
        """A scheme that awaits."""

        async def extract(self, connection: HTTPConnection) -> str | None:  # type: ignore[override]
            """Return a credential."""
            return "x"  # pragma: no cover - it is refused

    with pytest.raises(ConfigurationError, match=r"^Later.extract has to be a def, not an async def"):
        TokenAuth(Later())
