"""Tokens that are verified at once, without a coroutine: decided, answered and reported as those that are awaited."""

import gc
from typing import Annotated, Any

import pytest
from fastapi import FastAPI, HTTPException, WebSocket
from starlette.requests import HTTPConnection

from fastapi_guard import APIKeyScheme, Auth, BearerScheme, JWTAuth, ScopesAuth, ServiceUnavailable, Unauthorized
from fastapi_guard.auth import Verified
from fastapi_guard.claims import Grants
from fastapi_guard.jwt.compact import Header
from fastapi_guard.jwt.verification import VerificationKeys
from fastapi_guard.schemes import UNDECIDED
from support.asgi import Answer, call, endpoint, handshake, request
from support.tokens import FOREIGN_KEYS, KEYS, auth_of, config_of, fixed_clock, forge, valid_claims

TOKEN = forge("ES256")
FOREIGN = forge("ES256", key=FOREIGN_KEYS["ES256"])
BEARER = b"Bearer " + TOKEN.encode()
INVALID = "The access token is invalid"
CHALLENGE = f'Bearer realm="api", error="invalid_token", error_description="{INVALID}"'


class Awaiting(JWTAuth):
    """What verifies in a coroutine, as whatever asks somebody else about a token."""

    async def verify(self, raw: str) -> dict[str, Any]:
        """Do the same."""
        return await super().verify(raw)


class Application:
    """An application with a route and a WebSocket behind one Auth, and the reasons of its refusals."""

    def __init__(self, kind: type[JWTAuth] = JWTAuth, **settings: Any) -> None:
        """Guard by an Auth of this kind."""
        self.reasons: list[str | None] = []
        options = {"clock": fixed_clock, "on_event": lambda event: self.reasons.append(event.reason)}
        self.auth = kind(config_of("ES256", **settings), **options)
        self.app = FastAPI()

        @self.app.get("/")
        async def items(claims: Annotated[dict[str, Any], self.auth.requires("items:read")]) -> dict[str, Any]:
            return claims

        @self.app.websocket("/")
        async def socket(websocket: WebSocket, claims: Annotated[dict[str, Any], self.auth.authenticated()]) -> None:
            await websocket.accept()

    def get(self, *values: bytes) -> tuple[Answer, list[str | None]]:
        """Return the answer to a request with these Authorization fields, and what was reported."""
        self.reasons.clear()
        return request(self.app, "/", [(b"authorization", value) for value in values]), self.reasons


def on(token: str | None = TOKEN) -> HTTPConnection:
    """Return a connection with a token."""
    fields = [] if token is None else [(b"authorization", b"Bearer " + token.encode())]
    return HTTPConnection({"type": "http", "headers": fields})


def behind(auth: Auth[Any]) -> FastAPI:
    """Return an application with a route behind an Auth."""
    app = FastAPI(dependencies=[auth.authenticated()])
    app.get("/")(endpoint)
    return app


def head_of(token: str) -> bytes:
    """Return a token up to its signature, as the value of a field."""
    return b"Bearer " + token.rpartition(".")[0].encode()


FIELDS = [
    [],
    [b""],
    [b"Bearer"],
    [b"Bearer "],
    [BEARER],
    [BEARER + b" "],
    [b"bearer  " + TOKEN.encode()],
    [b"Bearer\t" + TOKEN.encode()],
    [BEARER, BEARER],
    [BEARER, b""],
    [b"", BEARER],
    [b"Bearer ", BEARER],
    [BEARER, b"Basic YTpi"],
    [b"Basic YTpi", BEARER],
    [b"Basic " + TOKEN.encode()],
    [BEARER + b", " + BEARER],
    [BEARER + b"," + TOKEN.encode()],
    [BEARER + b" x"],
    [BEARER.replace(b".", b". ", 1)],
    [BEARER.replace(b".", b",", 1)],
    [BEARER.replace(b".", b".,", 1)],
    [BEARER + b"!"],
    [BEARER + b"="],
    [BEARER + b"+"],
    [BEARER + b"\xff"],
    [BEARER + b"x" * 20_000],
    [b"Bearer " + FOREIGN.encode()],
    [b"Bearer " + FOREIGN.encode() + b" "],
    [b"Bearer " + FOREIGN.encode().replace(b".", b".,", 1)],
    [head_of(TOKEN)],
    [head_of(TOKEN) + b"."],
    [b"Bearer sk-123"],
    [b"Bearer .."],
    [b"Bearer a.b.c"],
    [b"Bearer a.b.c.d.e"],
]


@pytest.mark.parametrize("values", FIELDS, ids=range(len(FIELDS)))
@pytest.mark.parametrize("size", [0, 4])
def test_what_is_told_at_once_is_what_would_be_awaited(size: int, values: list[bytes]) -> None:
    """Whatever stands in the fields, and whatever is in the cache, the answer and the report are the same."""
    slow, fast = Application(Awaiting), Application(cache_size=size)
    assert slow.get(BEARER) == fast.get(BEARER)
    assert slow.get(BEARER)[0].status == 200
    assert slow.get(*values) == fast.get(*values)
    assert fast.get(BEARER)[0].status == 200


def test_a_websocket() -> None:
    """A WebSocket takes a token from the field and from the offered subprotocols, and not from both."""
    offered = (b"sec-websocket-protocol", b"bearer, " + TOKEN.encode())
    field, bad = (b"authorization", BEARER), (b"authorization", b"Bearer " + FOREIGN.encode())
    for kind in (JWTAuth, Awaiting):
        app = Application(kind).app
        answers = [handshake(app, "/", headers).status for headers in ([field], [offered], [field, offered], [bad])]
        assert answers == [101, 101, 401, 401]


def test_no_coroutine_is_needed() -> None:
    """The claims and what they grant are there at once, or the refusal, or that nothing was sent."""
    auth = auth_of("ES256")
    connection = on()
    verified = auth.at_once(connection)
    assert isinstance(verified, tuple)
    assert verified[0] == valid_claims()
    assert verified[1].scopes == {"items:read"}
    assert auth.at_once(connection) is verified is auth.verified_on(connection)
    assert auth.at_once(on(None)) is None
    with pytest.raises(Unauthorized) as refusal:
        auth.at_once(on(FOREIGN))
    assert (refusal.value.detail, refusal.value.error, refusal.value.reason) == (
        INVALID,
        "invalid_token",
        "bad_signature",
    )


class Tenants(JWTAuth):
    """What wants a claim of its own."""

    def check_claims(self, claims: dict[str, Any]) -> None:
        """Refuse a token without a tenant."""
        super().check_claims(claims)
        try:
            claims["tenant"]
        except KeyError:
            raise Unauthorized(INVALID, error="invalid_token", reason="tenant") from None


def refusals() -> int:
    """Return how many there are in memory."""
    return sum(isinstance(each, Unauthorized) for each in gc.get_objects())


@pytest.mark.parametrize(("kind", "token"), [(JWTAuth, FOREIGN), (Tenants, TOKEN)])
def test_a_refused_request_is_freed_at_once(kind: type[JWTAuth], token: str) -> None:
    """What went wrong below is not hung on the refusal: it would keep the request until a full collection."""
    application = Application(kind)
    fields = b"Bearer " + token.encode()
    assert application.get(fields)[0].status == 401
    gc.collect()
    gc.disable()
    try:
        before = refusals()
        assert application.get(fields)[0].status == 401
        assert refusals() == before
    finally:
        gc.enable()


async def test_a_refusal_is_that_of_every_guard() -> None:
    """It is reported once, and raised again wherever this Auth is asked, awaited or not (D.17)."""
    application = Application()
    auth, connection = application.auth, on(FOREIGN)
    with pytest.raises(Unauthorized) as refusal:
        auth.at_once(connection)
    with pytest.raises(Unauthorized) as second:
        auth.at_once(connection)
    with pytest.raises(Unauthorized) as third:
        await auth.authenticate(connection)
    assert refusal.value is second.value is third.value
    assert await auth.authenticate(connection, ignore_invalid=True) is None
    assert application.reasons == ["bad_signature"]


@pytest.mark.parametrize("token", [TOKEN, FOREIGN, None])
async def test_what_another_auth_has_decided(token: str | None) -> None:
    """It changes nothing: each decides for itself (D.17)."""
    application = Application()
    first, second, connection = application.auth, auth_of("HS256"), on(token)
    for auth, good in ((first, token == TOKEN), (second, False)):
        if token is None:
            assert await auth.dependency.auth.authenticate(connection) is None
            continue
        try:
            decided = auth.at_once(connection)
            if decided is UNDECIDED:
                decided = await auth.authenticate(connection)
        except Unauthorized:
            decided = None
        assert (decided is not None) is good


@pytest.mark.parametrize("size", [0, 4])
def test_who_reads_the_grants_fails(size: int) -> None:
    """A fault there is none of the client's: it is no 401, and what says its status is answered and reported so."""
    raised: Exception = KeyError("sub")

    class Odd(JWTAuth):
        def grants_of(self, principal: dict[str, Any]) -> Any:
            raise raised

    class AwaitedOdd(Odd, Awaiting):
        """The same, awaited."""

    for kind in (Odd, AwaitedOdd):
        application = Application(kind, cache_size=size)
        for _ in range(2):
            raised = KeyError("sub")
            with pytest.raises(KeyError):
                application.get(BEARER)
            raised = ServiceUnavailable(reason="directory_away")
            answer, reasons = application.get(BEARER)
            assert (answer.status, reasons) == (503, ["directory_away"])
            raised = Unauthorized(INVALID, error="invalid_token", reason="left")
            answer, reasons = application.get(BEARER)
            assert answer.refusal == (401, INVALID, CHALLENGE)
            assert reasons == ["left"]
            raised = HTTPException(418)
            answer, reasons = application.get(BEARER)
            assert (answer.status, reasons) == (418, ["refused"])


@pytest.mark.parametrize("size", [0, 4])
def test_the_grants_of_what_verify_adds(size: int) -> None:
    """A subclass may add claims once the token holds; what grants is read from these, and read once."""
    read: list[dict[str, Any]] = []

    class Adding(JWTAuth):
        async def verify(self, raw: str) -> dict[str, Any]:
            return {**await super().verify(raw), "permissions": "items:read"}

        def grants_of(self, principal: dict[str, Any]) -> Grants:
            read.append(principal)
            return Grants(frozenset({principal["permissions"]}))

    application = Application(Adding, cache_size=size)
    for times in (1, 2, 3):
        assert application.get(b"Bearer " + forge("ES256", valid_claims(scope="x")).encode())[0].status == 200
        assert len(read) == times


async def test_what_was_verified_elsewhere_is_granted_here() -> None:
    """A token that is in the cache from a direct call of ``verify`` grants what it grants."""
    application = Application(cache_size=4)
    for _ in range(2):
        assert await application.auth.verify(TOKEN) == valid_claims()
        assert (await call(application.app, "/", TOKEN)).status == 200


class Refusing:
    """Revocations that revoke everything, and proofs that never hold."""

    algorithms = ("ES256",)

    async def is_revoked(self, claims: object) -> bool:
        """Revoke it."""
        return True

    async def check(self, *_: object) -> None:
        """Refuse it."""
        raise Unauthorized(INVALID, error="invalid_token", reason="no_proof")


@pytest.mark.parametrize(("name", "reason"), [("dpop", "no_proof"), ("_revocations", "revoked")])
@pytest.mark.parametrize("size", [0, 4])
def test_who_is_put_in_place_afterwards_is_asked(size: int, name: str, reason: str) -> None:
    """Whoever checks proofs or revocations is asked from the moment on at which the Auth has it."""
    application = Application(cache_size=size)
    assert application.get(BEARER)[0].status == 200
    setattr(application.auth, name, Refusing())
    application.auth._sees_request = True
    answer, reasons = application.get(BEARER)
    assert (answer.status, reasons) == (401, [reason])


# --- whoever has to be asked is asked --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["verify", "verify_request", "authenticate", "recognises"])
@pytest.mark.parametrize("size", [0, 4])
def test_what_a_subclass_overrides_is_asked_at_each_request(size: int, name: str) -> None:
    """A method on the way of a token sees each token, cached or not; ``recognises`` where there are several Auths."""
    asked: list[str] = []

    class Asked(JWTAuth):
        def __getattribute__(self, attribute: str) -> Any:
            if attribute == name:
                asked.append(attribute)
            return super().__getattribute__(attribute)

    async def verify(self: JWTAuth, raw: str) -> dict[str, Any]:
        return await JWTAuth.verify(self, raw)

    async def verify_request(self: JWTAuth, connection: HTTPConnection, raw: str) -> dict[str, Any]:
        return await JWTAuth.verify_request(self, connection, raw)

    async def authenticate(self: JWTAuth, *given: Any, **options: Any) -> Verified[Any] | None:
        return await JWTAuth.authenticate(self, *given, **options)

    def recognises(self: JWTAuth, raw: str) -> bool:
        return JWTAuth.recognises(self, raw)

    own: dict[str, Any] = {
        "verify": verify,
        "verify_request": verify_request,
        "authenticate": authenticate,
        "recognises": recognises,
    }
    setattr(Asked, name, own[name])
    auth = Asked(config_of("ES256", cache_size=size), clock=fixed_clock)
    app = behind(auth | auth_of("HS256", options={"name": "other"}))
    asked.clear()
    for times in (1, 2, 3):
        request(app, "/", [(b"authorization", BEARER)])
        assert len(asked) == times


@pytest.mark.parametrize("where", ["instance", "class"])
async def test_what_a_test_puts_in_place_of_verify(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is what answers, although it is no method of a subclass."""

    async def verify(*_: Any) -> dict[str, Any]:
        return {"sub": "a stand-in", "scope": "items:read"}

    application = Application()
    monkeypatch.setattr(application.auth if where == "instance" else JWTAuth, "verify", verify)
    assert (await call(application.app, "/", FOREIGN)).json["sub"] == "a stand-in"
    monkeypatch.undo()
    assert (await call(application.app, "/", FOREIGN)).status == 401


def test_schemes_that_are_looked_at_more_closely() -> None:
    """A scheme of another kind, or one that extracts in its own way, is asked as it always was."""
    asked: list[HTTPConnection] = []

    class Own(BearerScheme):
        def extract(self, connection: HTTPConnection) -> str | None:
            asked.append(connection)
            return super().extract(connection)

    async def scheme(connection: HTTPConnection) -> str | None:
        return connection.headers.get("x-token")

    for given, field in (
        (Own(), (b"authorization", BEARER)),
        (APIKeyScheme("X-Token"), (b"x-token", TOKEN.encode())),
        (scheme, (b"x-token", TOKEN.encode())),
    ):
        auth = auth_of("ES256", options={"scheme": given})
        app = behind(auth)
        assert auth.at_once(HTTPConnection({"type": "http", "headers": [field]})) is UNDECIDED
        assert [request(app, "/", fields).status for fields in ([field], [])] == [200, 401]
    assert len(asked) == 2


async def test_keys_that_are_yet_to_be_loaded() -> None:
    """Nothing is refused for a key that its source may still load; what it has loaded, or can use, decides."""
    old, new = KEYS["ES256"], FOREIGN_KEYS["ES256"]

    class Source:
        ready: VerificationKeys | None = None
        loaded = VerificationKeys([old], ["ES256"])

        def peek(self) -> VerificationKeys | None:
            return self.ready

        async def load(self, header: Header | None = None) -> VerificationKeys:
            self.ready = self.loaded
            return self.loaded

    source = Source()
    auth = auth_of("ES256", key=source)
    assert auth.at_once(on()) is UNDECIDED
    assert await auth.authenticate(on()) is not None
    assert isinstance(auth.at_once(on()), tuple)
    named = forge("ES256", header={"kid": new.thumbprint()}, key=new)
    source.ready = VerificationKeys([old], ["ES256"])
    source.loaded = VerificationKeys([old, new], ["ES256"])
    source.ready._by_algorithm["ES256"] = [("its name", *each[1:]) for each in source.ready._by_algorithm["ES256"]]
    assert auth.at_once(on(named)) is UNDECIDED
    assert await auth.authenticate(on(named)) is not None
    assert isinstance(auth.at_once(on(named)), tuple)
    with pytest.raises(Unauthorized):
        auth.at_once(on(forge("ES256", valid_claims(iss="x"))))


async def test_a_source_without_a_usable_key() -> None:
    """Keys of which none is left are none: they are loaded, whatever the token is like."""

    class Source:
        loads = 0

        def peek(self) -> VerificationKeys | None:
            return VerificationKeys([], ["ES256"])

        async def load(self, header: Header | None = None) -> VerificationKeys:
            self.loads += 1
            raise ServiceUnavailable(reason="away")

    auth = auth_of("ES256", key=Source())
    for token in (TOKEN, FOREIGN, forge("HS256"), "a.b.c"):
        assert auth.at_once(on(token)) is UNDECIDED
        with pytest.raises(ServiceUnavailable):
            await auth.authenticate(on(token))


def test_keys_that_were_never_loaded() -> None:
    """Without any, each token is answered 503, and no token 401."""
    auth = JWTAuth(config_of("ES256", key=None, algorithms=["ES256"]))
    assert auth.at_once(on()) is UNDECIDED
    app = behind(auth)
    assert [request(app, "/", fields).status for fields in ([(b"authorization", BEARER)], [])] == [503, 401]


# --- among several ---------------------------------------------------------------------------------------------------


class Keys(ScopesAuth):
    """API keys in the same field."""

    name = "keys"

    def recognises(self, raw: str) -> bool:
        """Know them by their prefix."""
        return raw.startswith("sk-")

    async def verify(self, raw: str) -> dict[str, Any]:
        """Know one of them, and one that is not for here."""
        if raw == "sk-forbidden":
            raise HTTPException(418)
        if raw != "sk-good":
            raise Unauthorized("The API key is invalid", error="invalid_token")
        return {"sub": "a key", "scope": "items:read"}


@pytest.mark.parametrize(
    "raw", [TOKEN, FOREIGN, "sk-good", "sk-bad", "sk-forbidden", "other", "a.b.c", TOKEN + ",", None]
)
@pytest.mark.parametrize("first", [True, False])
def test_among_several(first: bool, raw: str | None) -> None:
    """A credential of another Auth is neither refused nor reported by this one, in whatever order they stand."""
    answers: list[Any] = []
    for kind in (JWTAuth, Awaiting):
        reasons: list[Any] = []
        options: dict[str, Any] = {
            "on_event": lambda event, reasons=reasons: reasons.append((event.auth, event.reason))
        }
        members = [kind(config_of("ES256"), clock=fixed_clock, **options), Keys(**options)]
        either = members[0] | members[1] if first else members[1] | members[0]
        app = FastAPI()

        @app.get("/")
        async def items(claims: Annotated[dict[str, Any], either.requires("items:read")]) -> Any:
            return claims

        fields = [] if raw is None else [(b"authorization", b"Bearer " + raw.encode())]
        answers.append((request(app, "/", fields), reasons))
    assert answers[0] == answers[1]
    assert (answers[0][0].status == 200) is (raw in (TOKEN, "sk-good"))
