"""One way to a principal: every request passes the same decision, and every hook is called on it."""

import gc
import json
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import FastAPI, HTTPException, Request, WebSocket
from fastapi.security import SecurityScopes
from joserfc.jwk import OctKey
from starlette.requests import HTTPConnection

from fastapi_guard import (
    APIKeyScheme,
    Auth,
    BearerScheme,
    ConfigurationError,
    JWTAuth,
    JWTConfig,
    ScopesAuth,
    ServiceUnavailable,
    Unauthorized,
)
from fastapi_guard.auth import AnyAuth, Verified
from fastapi_guard.claims import Grants
from fastapi_guard.jwt.compact import Header
from fastapi_guard.jwt.verification_keys import VerificationKeys
from support.asgi import Answer, call, call_scope, endpoint, handshake, request
from support.tokens import FOREIGN_KEYS, KEYS, auth_of, config_of, fixed_clock, forge, valid_claims

TOKEN = forge("ES256")
FOREIGN = forge("ES256", key=FOREIGN_KEYS["ES256"])
BEARER = b"Bearer " + TOKEN.encode()
INVALID = "The access token is invalid"
CHALLENGE = f'Bearer realm="api", error="invalid_token", error_description="{INVALID}"'


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


ANSWERS = json.loads((Path(__file__).parent / "answers.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(("values", "recorded"), list(zip(FIELDS, ANSWERS, strict=True)), ids=range(len(FIELDS)))
@pytest.mark.parametrize("size", [0, 4])
def test_the_answers_of_version_0_1_0(size: int, values: list[bytes], recorded: list[Any]) -> None:
    """Status, body, challenge and reason are those that version 0.1.0 answered, byte for byte, cached or not."""
    application = Application(cache_size=size)
    assert application.get(BEARER)[0].status == 200
    status, body, challenges, reasons = recorded
    for _ in range(2):
        answer, reported = application.get(*values)
        assert (answer.status, answer.challenges, reported) == (status, challenges, reasons)
        assert answer.body.decode() == body or status == 200
    assert application.get(BEARER)[0].status == 200


def test_a_websocket() -> None:
    """A WebSocket accepts a token from the field and from the offered subprotocols, and not from both."""
    offered = (b"sec-websocket-protocol", b"bearer, " + TOKEN.encode())
    field, bad = (b"authorization", BEARER), (b"authorization", b"Bearer " + FOREIGN.encode())
    app = Application().app
    answers = [handshake(app, "/", headers).status for headers in ([field], [offered], [field, offered], [bad])]
    assert answers == [101, 101, 401, 401]


async def test_a_decision_is_a_value() -> None:
    """It is the verified principal with its grants, the refusal, not raised, or None."""
    auth = auth_of("ES256")
    connection = on()
    verified = await auth.decide(connection)
    assert isinstance(verified, Verified)
    assert (verified.principal, verified.grants.scopes, verified.auth) == (valid_claims(), {"items:read"}, auth)
    assert await auth.decide(connection) is verified
    assert await auth.decide(on(None)) is None
    refusal = await auth.decide(on(FOREIGN))
    assert isinstance(refusal, Unauthorized)
    assert (refusal.detail, refusal.error, refusal.reason) == (INVALID, "invalid_token", "bad_signature")
    assert (refusal.__traceback__, refusal.__context__, refusal.__cause__) == (None, None, None)


@pytest.mark.parametrize(
    "change",
    [
        {"headers": [(b"authorization", b"Bearer " + FOREIGN.encode())]},
        {"headers": [(b"authorization", b"Bearer garbage")]},
        {"headers": []},
        {"query_string": b"a=1"},
    ],
)
async def test_a_decision_belongs_to_what_was_presented(change: dict[str, Any]) -> None:
    """A scope that is copied and gets other header fields, or another query string, is decided again."""
    auth = auth_of("ES256")
    connection = HTTPConnection({"type": "http", "headers": on().scope["headers"], "query_string": b""})
    verified = await auth.decide(connection)
    assert isinstance(verified, Verified)
    again = await auth.decide(HTTPConnection({**connection.scope, **change}))
    assert again is not verified
    assert isinstance(again, Verified) is ("query_string" in change)
    assert await auth.decide(connection) is not None
    # The list itself may be changed too.
    connection.scope["headers"][0] = (b"authorization", b"Bearer garbage")
    assert isinstance(await auth.decide(connection), Unauthorized)


def test_a_batch_endpoint() -> None:
    """An endpoint that copies its scope for other requests does not get around a guard."""
    application = Application()

    @application.app.get("/batch")
    async def batch(request_: Request, _: Annotated[Any, application.auth.authenticated()]) -> list[int]:
        answers = []
        for value in (BEARER, b"Bearer " + FOREIGN.encode(), b"Bearer garbage", None):
            headers = [] if value is None else [(b"authorization", value)]
            scope = {**request_.scope, "path": "/", "raw_path": b"/", "headers": headers}
            answers.append((await call_scope(application.app, scope)).status)
        return answers

    assert request(application.app, "/batch", [(b"authorization", BEARER)]).json == [200, 401, 401, 401]


class Tenants(JWTAuth):
    """A JWTAuth that requires a claim of its own."""

    def check_claims(self, claims: dict[str, Any]) -> None:
        """Refuse a token without a tenant."""
        try:
            claims["tenant"]
        except KeyError:
            raise Unauthorized(INVALID, error="invalid_token", reason="tenant") from None


def refusals() -> int:
    """Return how many there are in memory."""
    return sum(isinstance(kept, Unauthorized) for kept in gc.get_objects())


@pytest.mark.parametrize(("kind", "token"), [(JWTAuth, FOREIGN), (Tenants, TOKEN)])
def test_a_refused_request_is_freed_at_once(kind: type[JWTAuth], token: str) -> None:
    """The refusal holds no traceback or context, which would keep the request until a full collection."""
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
    """It is decided once, and reported where a guard raises it."""
    application = Application()
    auth, connection = application.auth, on(FOREIGN)
    decided = await auth.decide(connection)
    assert await auth.decide(connection) is decided is not None
    assert application.reasons == []
    for guard in (auth.dependency, auth.optional_dependency):
        with pytest.raises(Unauthorized) as refusal:
            await guard(connection, SecurityScopes())
        # A copy, so that the one that is remembered never holds a traceback.
        assert refusal.value is not decided
        assert vars(refusal.value) == vars(decided)
    assert decided.__traceback__ is None
    assert application.reasons == ["bad_signature"] * 2


@pytest.mark.parametrize("token", [TOKEN, FOREIGN, None])
async def test_what_another_auth_decided(token: str | None) -> None:
    """It changes nothing: each Auth decides for itself."""
    first, second, connection = auth_of("ES256"), auth_of("HS256"), on(token)
    for auth, good in ((first, token == TOKEN), (second, False)):
        decided = await auth.decide(connection)
        assert isinstance(decided, Verified) is good
        assert (decided is None) is (token is None)


@pytest.mark.parametrize("size", [0, 4])
def test_grants_of_raises(size: int) -> None:
    """A fault in it is a 500 and not a 401; an HTTPException is raised and reported as it is."""
    raised: Exception = KeyError("sub")

    class Odd(JWTAuth):
        def grants_of(self, principal: dict[str, Any]) -> Any:
            raise raised

    application = Application(Odd, cache_size=size)
    for _ in range(2):
        raised = KeyError("sub")
        with pytest.raises(KeyError):
            application.get(BEARER)
        raised = ServiceUnavailable(reason="directory_unavailable")
        answer, reasons = application.get(BEARER)
        assert (answer.status, reasons) == (503, ["directory_unavailable"])
        raised = Unauthorized(INVALID, error="invalid_token", reason="left")
        answer, reasons = application.get(BEARER)
        assert answer.refusal == (401, INVALID, CHALLENGE)
        assert reasons == ["left"]
        raised = HTTPException(418)
        answer, reasons = application.get(BEARER)
        assert (answer.status, reasons) == (418, ["refused"])


@pytest.mark.parametrize("size", [0, 4])
def test_the_grants_of_what_verify_adds(size: int) -> None:
    """A subclass may add claims to a valid token; the grants are read from these, once a request."""
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


# --- the hooks of a subclass -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["verify", "verify_request", "recognises", "check_claims", "grants_of"])
@pytest.mark.parametrize("size", [0, 4])
def test_a_hook_is_called_at_each_request(size: int, name: str) -> None:
    """Each hook of a subclass sees each token, cached or not; ``recognises`` where there are several Auths."""
    calls: list[str] = []

    def counted(self: JWTAuth, *arguments: Any) -> Any:
        calls.append(name)
        return getattr(super(Hooked, self), name)(*arguments)

    async def awaited(self: JWTAuth, *arguments: Any) -> Any:
        return await counted(self, *arguments)

    class Hooked(JWTAuth):
        """A JWTAuth with one hook."""

    setattr(Hooked, name, awaited if name.startswith("verify") else counted)
    auth = Hooked(config_of("ES256", cache_size=size), clock=fixed_clock)
    app = behind(auth | auth_of("HS256", options={"name": "other"}))
    for times in (1, 2, 3):
        assert request(app, "/", [(b"authorization", BEARER)]).status == 200
        assert len(calls) == times


@pytest.mark.parametrize("size", [0, 4])
def test_a_demoted_user(size: int) -> None:
    """Neither what a token grants nor whether its claims are accepted is kept from an earlier request."""
    directory = {"granted": "items:read", "blocked": ""}

    class Directory(JWTAuth):
        def check_claims(self, claims: dict[str, Any]) -> None:
            if claims["sub"] == directory["blocked"]:
                raise Unauthorized(INVALID, error="invalid_token", reason="blocked")

        def grants_of(self, principal: dict[str, Any]) -> Grants:
            return Grants(frozenset({directory["granted"]}))

    application = Application(Directory, cache_size=size)
    assert application.get(BEARER)[0].status == 200
    directory["granted"] = "none"
    assert application.get(BEARER)[0].status == 403
    directory["granted"], directory["blocked"] = "items:read", valid_claims()["sub"]
    assert (application.get(BEARER)[0].status, application.reasons) == (401, ["blocked"])
    directory["blocked"] = ""
    assert application.get(BEARER)[0].status == 200


def test_check_claims_that_nobody_awaits() -> None:
    """An async ``check_claims`` is refused at construction: its coroutine refuses nothing."""

    class Later(JWTAuth):
        async def check_claims(self, claims: dict[str, Any]) -> None: ...  # type: ignore[override]

    with pytest.raises(ConfigurationError, match=r"^Later\.check_claims has to be a def, not an async def$"):
        Application(Later)


@pytest.mark.parametrize("size", [0, 4])
def test_check_claims_that_returns_false(size: int) -> None:
    """``False`` is a refusal, as for ``verify``; ``True`` and ``None`` are not."""
    verdicts: list[Any] = [True, False, None, False]

    class Verdict(JWTAuth):
        def check_claims(self, claims: dict[str, Any]) -> Any:
            return verdicts.pop()

    application = Application(Verdict, cache_size=size)
    assert (application.get(BEARER)[0].status, application.reasons) == (401, ["check_claims"])
    assert application.get(BEARER)[0].status == 200
    assert (application.get(BEARER)[0].status, application.reasons) == (401, ["check_claims"])
    assert application.get(BEARER)[0].status == 200


@pytest.mark.parametrize("size", [0, 4])
def test_check_claims_raises(size: int) -> None:
    """A fault in it is a refusal; an HTTPException is raised as it is, as from ``verify``."""
    raised: list[Exception] = [KeyError("sub"), HTTPException(418), ServiceUnavailable(reason="directory_unavailable")]
    expected = [(401, ["undecodable"]), (418, ["refused"]), (503, ["directory_unavailable"])]

    class Odd(JWTAuth):
        def check_claims(self, claims: dict[str, Any]) -> None:
            raise raised[0]

    application = Application(Odd, cache_size=size)
    while raised:
        answer, reasons = application.get(BEARER)
        assert (answer.status, reasons) == expected.pop(0)
        raised.pop(0)


def test_check_claims_removes_no_rule() -> None:
    """A subclass that accepts everything in ``check_claims`` accepts nothing that the configuration refuses."""

    class Lenient(JWTAuth):
        def check_claims(self, claims: dict[str, Any]) -> None:
            claims["exp"] = 2**40

    application = Application(Lenient)
    for claims in (valid_claims(exp=1), valid_claims(iss="https://other.example"), valid_claims(aud="other")):
        assert application.get(b"Bearer " + forge("ES256", claims).encode())[0].status == 401
    assert application.get(BEARER)[0].status == 200


@pytest.mark.parametrize("where", ["instance", "class"])
async def test_what_a_test_puts_in_place_of_verify(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A replaced ``verify`` is called, although no subclass defines it."""

    async def verify(*_: Any) -> dict[str, Any]:
        return {"sub": "a stand-in", "scope": "items:read"}

    application = Application()
    monkeypatch.setattr(application.auth if where == "instance" else JWTAuth, "verify", verify)
    assert (await call(application.app, "/", FOREIGN)).json["sub"] == "a stand-in"
    monkeypatch.undo()
    assert (await call(application.app, "/", FOREIGN)).status == 401


def test_a_scheme_extracts_once() -> None:
    """One extraction a request, for any scheme, whether the credential is accepted or refused."""
    extracted: list[HTTPConnection] = []

    class Own(BearerScheme):
        def extract(self, connection: HTTPConnection) -> str | None:
            extracted.append(connection)
            return super().extract(connection)

    for several in (False, True):
        auth: Any = auth_of("ES256", options={"scheme": Own()})
        app = behind(auth | Keys(APIKeyScheme("X-Key")) if several else auth)
        for value, status in ((BEARER, 200), (b"Bearer " + FOREIGN.encode(), 401), (b"Bearer a, Bearer b", 401)):
            extracted.clear()
            assert request(app, "/", [(b"authorization", value)]).status == status
            assert len(extracted) == 1


def test_schemes_of_other_kinds() -> None:
    """A token may come in another header, or from a callable that FastAPI resolves."""

    async def scheme(connection: HTTPConnection) -> str | None:
        return connection.headers.get("x-token")

    for given in (APIKeyScheme("X-Token"), scheme):
        app = behind(auth_of("ES256", options={"scheme": given}))
        fields = ([(b"x-token", TOKEN.encode())], [(b"x-token", FOREIGN.encode())], [])
        assert [request(app, "/", field).status for field in fields] == [200, 401, 401]


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
    assert isinstance(await auth.decide(on()), Verified)
    named = forge("ES256", header={"kid": new.thumbprint()}, key=new)
    source.ready = VerificationKeys([old], ["ES256"])
    source.loaded = VerificationKeys([old, new], ["ES256"])
    source.ready._by_algorithm["ES256"] = [("its name", *kept[1:]) for kept in source.ready._by_algorithm["ES256"]]
    assert isinstance(await auth.decide(on(named)), Verified)
    source.loaded = VerificationKeys([old], ["ES256"])
    assert isinstance(await auth.decide(on(forge("ES256", valid_claims(iss="x")))), Unauthorized)


async def test_a_source_without_a_usable_key() -> None:
    """An empty set of keys is loaded again, whatever the token is."""

    class Source:
        loads = 0

        def peek(self) -> VerificationKeys | None:
            return VerificationKeys([], ["ES256"])

        async def load(self, header: Header | None = None) -> VerificationKeys:
            self.loads += 1
            raise ServiceUnavailable(reason="away")

    auth = auth_of("ES256", key=Source())
    for token in (TOKEN, FOREIGN, forge("HS256"), "a.b.c"):
        assert isinstance(await auth.decide(on(token)), ServiceUnavailable)


def test_keys_that_were_never_loaded() -> None:
    """Without keys the response to any token is 503, and to a request without a token 401."""
    app = behind(JWTAuth(config_of("ES256", key=None, algorithms=["ES256"])))
    assert [request(app, "/", fields).status for fields in ([(b"authorization", BEARER)], [])] == [503, 401]


# --- among several ---------------------------------------------------------------------------------------------------


class Keys(ScopesAuth):
    """API keys in the same field."""

    name = "keys"

    def recognises(self, raw: str) -> bool:
        """Recognise the prefix."""
        return raw.startswith("sk-")

    async def verify(self, raw: str) -> dict[str, Any]:
        """Accept one key, and forbid another."""
        if raw == "sk-forbidden":
            raise HTTPException(418)
        if raw != "sk-good":
            raise Unauthorized("The API key is invalid", error="invalid_token")
        return {"sub": "a key", "scope": "items:read"}


@pytest.mark.parametrize(
    ("raw", "status", "auth"),
    [
        (TOKEN, 200, "jwt"),
        (FOREIGN, 401, "jwt"),
        ("sk-good", 200, "keys"),
        ("sk-bad", 401, "keys"),
        ("sk-forbidden", 418, "keys"),
        ("other", 401, "any"),
        ("a.b.c", 401, "jwt"),
        (None, 401, "any"),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_among_several(first: bool, raw: str | None, status: int, auth: str) -> None:
    """A credential of another Auth is neither refused nor reported by this one, in whatever order they are."""
    reasons: list[Any] = []
    options: dict[str, Any] = {"on_event": lambda event: reasons.append((event.auth, event.status))}
    members = [JWTAuth(config_of("ES256"), clock=fixed_clock, **options), Keys(**options)]
    either = AnyAuth(*(members if first else reversed(members)), **options)
    app = FastAPI()

    @app.get("/")
    async def items(claims: Annotated[dict[str, Any], either.requires("items:read")]) -> Any:
        return claims

    fields = [] if raw is None else [(b"authorization", b"Bearer " + raw.encode())]
    assert (request(app, "/", fields).status, reasons) == (status, [(auth, None if status == 200 else status)])


@pytest.mark.parametrize("verdict", [0, "", "yes", {}], ids=["zero", "empty", "a text", "claims"])
def test_an_odd_answer_of_check_claims(verdict: Any) -> None:
    """Nothing but ``None`` and ``True`` accepts claims."""

    class Odd(JWTAuth):
        def check_claims(self, claims: dict[str, Any]) -> Any:
            return verdict

    application = Application(Odd)
    assert (application.get(BEARER)[0].status, application.reasons) == (401, ["check_claims"])


@pytest.mark.filterwarnings("ignore:coroutine:RuntimeWarning")
@pytest.mark.parametrize("where", ["class", "instance"])
def test_check_claims_that_returns_a_coroutine(where: str) -> None:
    """A def that returns a coroutine is not found at construction; it refuses everything."""

    async def accept(claims: dict[str, Any]) -> None: ...

    class Wrapped(JWTAuth):
        def check_claims(self, claims: dict[str, Any]) -> Any:
            return None if where == "instance" else accept(claims)

    application = Application(Wrapped)
    if where == "instance":
        assert application.get(BEARER)[0].status == 200
        application.auth.check_claims = accept  # type: ignore[method-assign, assignment]
    assert application.get(BEARER)[0].status == 401


class Checks:
    """Revocations and proofs of possession of the application's own."""

    algorithms = ("ES256",)

    def __init__(self, verdict: Any) -> None:
        """Answer with `verdict`, or raise it."""
        self.verdict = verdict

    def scheme(self, bearer: Any) -> BearerScheme:
        """Read the same header."""
        return BearerScheme()

    async def check(self, *_: object) -> Any:
        """Return the verdict."""
        if isinstance(self.verdict, Exception):
            raise self.verdict
        return self.verdict

    is_revoked = check


@pytest.mark.parametrize(
    ("name", "verdict", "status"),
    [
        ("revocations", False, 200),
        ("revocations", 0, 200),
        ("revocations", None, 503),
        ("revocations", True, 401),
        ("revocations", b"1", 401),
        ("revocations", OSError(), 503),
        ("dpop", None, 200),
        ("dpop", True, 200),
        ("dpop", False, 401),
        ("dpop", OSError(), 503),
        ("dpop", HTTPException(418), 418),
        ("dpop", Unauthorized(), 401),
    ],
    ids=str,
)
def test_what_checks_of_the_application_return(name: str, verdict: Any, status: int) -> None:
    """A check that forgets to return has not decided about a revocation."""
    application = Application(partial(JWTAuth, **{name: Checks(verdict)}))  # type: ignore[arg-type]
    assert application.get(BEARER)[0].status == status


@pytest.mark.filterwarnings("ignore:coroutine:RuntimeWarning")
def test_a_scope_validator_that_returns_a_coroutine() -> None:
    """A coroutine is true, and covers nothing."""

    async def later(scope: str, granted: object) -> bool: ...

    class Later:
        def has_scope(self, scope: str, granted_scopes: object, /) -> Any:
            return later(scope, granted_scopes)

    auth = JWTAuth(JWTConfig(key=OctKey.generate_key(256)), scope_validator=Later())
    assert not auth.covers({"scope": "a:b"}, "a:b")
    assert not auth.has_scope("a:b", ["a:b"])
