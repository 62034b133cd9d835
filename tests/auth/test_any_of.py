import asyncio
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Body, Cookie, Depends, FastAPI, Header, HTTPException, Query, Request, Security
from fastapi.exception_handlers import http_exception_handler
from fastapi.security import APIKeyHeader, SecurityScopes
from fastapi.testclient import TestClient
from sqlalchemy import Engine, create_engine
from sqlalchemy.orm import sessionmaker
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse

from fastapi_guard import (
    AnyAuth,
    APIKeyScheme,
    Auth,
    ConfigurationError,
    Forbidden,
    ScopesAuth,
    ServiceUnavailable,
    TokenAuth,
    TooManyRequests,
    Unauthorized,
    configure_app,
)
from fastapi_guard.api_key.database import DatabaseAPIKeyAuth
from fastapi_guard.app.routes import routes_of
from fastapi_guard.auth import Verified
from fastapi_guard.events import Event
from fastapi_guard.testing import acting_as
from support.asgi import Answer, call
from support.ids import case_id
from support.tokens import auth_of, forge, valid_claims

BEARER, KEY, SESSION = 'Bearer realm="api"', 'ApiKey realm="api"', 'ApiKey realm="session"'
BAD_TOKEN = f'{BEARER}, error="invalid_token", error_description="The access token is invalid"'
BAD_KEY = f'{BEARER}, error="invalid_token", error_description="Invalid API Key"'


class Keys(ScopesAuth):
    """API keys in a table: `sk-` and the scopes, spelled as token68; it counts the look-ups."""

    name = "keys"
    _missing_detail = _invalid_detail = "Invalid API Key"
    _trusts_everything = True

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """Begin without look-ups."""
        super().__init__(*arguments, **options)
        self.asked: list[str] = []

    def recognises(self, raw: str) -> bool:
        """Recognise a key by its prefix."""
        return raw.startswith("sk-")

    async def verify(self, raw: str) -> dict[str, Any]:
        """Look the key up."""
        self.asked.append(raw)
        match raw:
            case "sk-away":
                raise ServiceUnavailable(retry_after=9, reason="table_unreachable")
            case "sk-forbidden":
                raise Forbidden(reason="blocked")
            case "sk-many":
                raise TooManyRequests
            case "sk-teapot":
                raise HTTPException(418, "Tea", headers={"X-Tea": "green"})
            case "sk-bug":
                raise ZeroDivisionError
            case "sk-bad":
                raise Unauthorized(error="invalid_token", reason="unknown_key")
        return {"sub": "robot", "scope": raw[3:].translate(str.maketrans("+~_", " :*"))}


class Sessions(ScopesAuth):
    """Sessions in a cookie."""

    name = "sessions"

    def __init__(self, **options: Any) -> None:
        """Begin without look-ups."""
        super().__init__(APIKeyScheme("sid", "cookie", realm="session"), **options)
        self.asked: list[str] = []

    async def verify(self, raw: str) -> dict[str, Any]:
        """Look the session up."""
        self.asked.append(raw)
        if raw != "good":
            raise Unauthorized(reason="no_session")
        return {"sub": "grace", "scope": "items:read", "roles": ["editor"], "is_admin": True, "auth_time": 10}


def seen(answer: Answer) -> tuple[int, Any, list[str]]:
    """Return what matters of a refusal."""
    return answer.status, answer.json["detail"], answer.challenges


def giving(dependency: Any, *, on: Any = ()) -> FastAPI:
    """Return an application that returns the value of a dependency, and which Auth verified it."""
    app = FastAPI(dependencies=list(on))

    @app.get("/")
    async def index(request: Request, value: Annotated[Any, dependency]) -> Any:
        found = value["sub"] if isinstance(value, dict) else value
        return [getattr(request.state, "auth_method", None), found]

    return app


class Three:
    """A JWTAuth and keys, both in the Bearer header, and sessions in a cookie."""

    def __init__(self, **options: Any) -> None:
        """Join them."""
        self.jwt = auth_of("HS256")
        self.keys = Keys()
        self.sessions = Sessions()
        self.any = AnyAuth(self.jwt, self.keys, self.sessions, **options)


COOKIE = (b"cookie", b"sid=good")


def cookie(value: str) -> tuple[bytes, bytes]:
    """Return the field of a session."""
    return b"cookie", f"sid={value}".encode()


# --- which member decides --------------------------------------------------------------------------------------------


async def test_each_member_authenticates() -> None:
    """A credential of any kind passes, and the request state has its kind."""
    three = Three()
    app = giving(three.any.authenticated())
    assert (await call(app, "/", forge("HS256"))).json == ["jwt", "ada"]
    assert (await call(app, "/", "sk-items")).json == ["keys", "robot"]
    assert (await call(app, "/", None, COOKIE)).json == ["sessions", "grace"]


async def test_the_first_that_verifies_wins() -> None:
    """Of several credentials the first member decides; an invalid one falls through."""
    three = Three()
    app = giving(three.any.authenticated())
    assert (await call(app, "/", forge("HS256"), COOKIE)).json == ["jwt", "ada"]
    assert three.sessions.asked == []
    assert (await call(app, "/", "a.b.c", COOKIE)).json == ["sessions", "grace"]
    assert (await call(app, "/", "sk-bad", COOKIE)).json == ["sessions", "grace"]
    other_way = giving((three.sessions | three.keys | three.jwt).authenticated())
    assert (await call(other_way, "/", forge("HS256"), COOKIE)).json == ["sessions", "grace"]


async def test_no_credential() -> None:
    """Without a credential the answer has every challenge in one field, those of an equal scheme and realm as one."""
    app = giving(Three().any.authenticated())
    assert seen(await call(app)) == (401, "Not authenticated", [f"{BEARER}, {SESSION}"])
    assert seen(await call(app, "/", None, (b"authorization", b"Basic YTpi"))) == seen(await call(app))


async def test_no_credential_in_whose_words() -> None:
    """The text of a missing credential is that of the members where they agree, and the plain one where they differ."""

    class Badges(Keys):
        name = "badges"
        _missing_detail = "Show your badge"

    for members, detail in (
        ((Keys(), Badges()), "Not authenticated"),
        ((Keys(), Keys(name="others")), "Invalid API Key"),
        ((Badges(),), "Show your badge"),
    ):
        assert (await call(giving(AnyAuth(*members).authenticated()))).json == {"detail": detail}


@pytest.mark.parametrize(
    ("token", "session", "detail", "challenge"),
    [
        ("a.b.c", None, "The access token is invalid", f"{BAD_TOKEN}, {SESSION}"),
        ("sk-bad", None, "Invalid API Key", f"{BAD_KEY}, {SESSION}"),
        (None, "bad", "The access token is invalid", f"{BEARER}, {SESSION}"),
        ("sk-bad", "bad", "Invalid API Key", f"{BAD_KEY}, {SESSION}"),
        ("garbage", None, "The access token is invalid", f"{BAD_TOKEN}, {SESSION}"),
        ("garbage", "bad", "The access token is invalid", f"{BEARER}, {SESSION}"),
    ],
)
async def test_bad_credentials(token: str | None, session: str | None, detail: str, challenge: str) -> None:
    """The refusal is that of the member whose credential it was; the challenges of the others follow it."""
    app = giving(Three().any.authenticated())
    fields = () if session is None else (cookie(session),)
    assert seen(await call(app, "/", token, *fields)) == (401, detail, [challenge])


async def test_an_expired_token_says_so() -> None:
    """The text of an expired token reaches the answer and its challenge."""
    app = giving(Three().any.authenticated())
    status, detail, challenges = seen(await call(app, "/", forge("HS256", valid_claims(exp=1))))
    assert (status, detail) == (401, "The access token has expired")
    expected = f'{BEARER}, error="invalid_token", error_description="The access token has expired", {SESSION}'
    assert challenges == [expected]


async def test_a_table_is_not_asked_for_what_cannot_be_its_own() -> None:
    """A member that does not recognise a credential is not asked to verify it, whatever else becomes of that."""
    three = Three()
    app = giving(three.any.authenticated())
    for raw in (forge("HS256"), "a.b.c", "garbage", forge("HS256", valid_claims(exp=1))):
        await call(app, "/", raw)
    assert three.keys.asked == []
    await call(app, "/", "sk-items")
    assert three.keys.asked == ["sk-items"]


@pytest.mark.parametrize(
    ("raw", "is_token"), [("a.b.c", True), ("..", True), ("a.b", False), ("a.b.c.d", False), ("", False)]
)
def test_what_a_jwt_auth_recognises(raw: str, is_token: bool) -> None:
    """A signed token has three parts; any other Auth recognises everything, an AnyAuth what its members do."""
    assert auth_of("HS256").recognises(raw) is is_token
    assert Sessions().recognises(raw)
    assert AnyAuth(auth_of("HS256"), Keys()).recognises(raw) is is_token


async def test_a_member_without_recognition_is_asked() -> None:
    """An Auth that recognises everything verifies in its turn, and its refusal falls through."""

    class Opaque(Keys):
        name = "opaque"

        def recognises(self, raw: str) -> bool:
            return True

        async def verify(self, raw: str) -> dict[str, Any]:
            if not raw.startswith("o-"):
                raise HTTPException(401)
            return {"sub": raw}

    app = giving(AnyAuth(Opaque(), auth_of("HS256")).authenticated())
    assert (await call(app, "/", "o-1")).json == ["opaque", "o-1"]
    assert (await call(app, "/", forge("HS256"))).json == ["jwt", "ada"]
    assert seen(await call(app, "/", "a.b.c")) == (401, "Unauthorized", [BAD_TOKEN])
    assert [await (Opaque() | auth_of("HS256")).validate_token(raw) for raw in ("o-1", "a.b.c")] == [True, False]


@pytest.fixture
def engine_away() -> Iterator[Engine]:
    """Return an engine whose database is nowhere."""
    engine = create_engine("sqlite:////nowhere/at/all.db")
    yield engine
    engine.dispose()


async def test_a_database_is_not_asked(engine_away: Engine) -> None:
    """An unavailable database blocks no credential of another kind; a key is a 503."""
    keys = DatabaseAPIKeyAuth(sessionmaker(engine_away))
    app = giving((keys | auth_of("HS256")).authenticated())
    assert (await call(app, "/", forge("HS256"))).json == ["jwt", "ada"]
    assert seen(await call(app, "/", "garbage"))[:2] == (401, "Invalid API Key")
    assert seen(await call(app, "/", "sk-typo"))[:2] == (401, "Invalid API Key")
    assert (await call(app, "/", keys.format.generate().raw)).status == 503


# --- what does not fall through --------------------------------------------------------------------------------------


async def test_a_403_does_not_fall_through() -> None:
    """A member that forbids has decided; so has one that throttles, and an exception of the application."""
    app = giving(Three().any.authenticated())
    assert (await call(app, "/", "sk-items", COOKIE)).status == 200
    assert seen(await call(app, "/", "sk-forbidden", COOKIE)) == (403, "Forbidden", [])
    assert (await call(app, "/", "sk-many", COOKIE)).status == 429
    answer = await call(app, "/", "sk-teapot", COOKIE)
    assert (answer.status, answer.json, answer.all("x-tea")) == (418, {"detail": "Tea"}, ["green"])
    with pytest.raises(ZeroDivisionError):
        await call(app, "/", "sk-bug", COOKIE)


async def test_a_missing_scope_does_not_fall_through() -> None:
    """The member that verified decides about the scopes, though another one's credential would have them."""
    three = Three()
    app = giving(three.any.requires("items:read"))
    assert (await call(app, "/", None, COOKIE)).status == 200
    answer = await call(app, "/", "sk-other~read", COOKIE)
    challenge = f'{BEARER}, error="insufficient_scope", scope="items:read"'
    assert seen(answer) == (403, "Token is missing required scope: items:read", [challenge])


async def test_a_cookie_of_another_site_does_not_fall_through() -> None:
    """The same-origin rule holds for a member whose credential is a cookie, and for no other."""
    three = Three()
    app = FastAPI()
    app.post("/", dependencies=[three.any.authenticated()])(lambda: "done")
    client = TestClient(app, cookies={"sid": "good"})
    evil = {"Origin": "https://evil.example"}
    assert client.post("/").status_code == 200
    assert client.post("/", headers=evil).status_code == 403
    assert client.post("/", headers={**evil, "Authorization": "Bearer sk-items"}).status_code == 200


async def test_two_credentials_in_one_place() -> None:
    """Two credentials where there may be one are refused, whatever else came."""
    app = giving(Three().any.authenticated())
    twice = (b"authorization", b"Bearer sk-items")
    assert (await call(app, "/", None, twice, COOKIE)).status == 200
    status, detail, [challenge] = seen(await call(app, "/", None, twice, twice, COOKIE))
    assert (status, detail) == (401, "More than one credential")
    assert challenge == (f'{BEARER}, error="invalid_request", error_description="More than one credential", {SESSION}')


async def test_two_credentials_in_one_place_of_several() -> None:
    """Two credentials are refused before any other reason, and before an unavailable backend."""
    keys = Keys(APIKeyScheme("key", "cookie"), name="cookies")
    app = giving((keys | Sessions() | auth_of("HS256")).authenticated())
    twice = ((b"authorization", b"Bearer a.b.c"),) * 2
    assert (await call(app, "/", None, (b"cookie", b"key=sk-items"))).status == 200
    assert (await call(app, "/", None, (b"cookie", b"key=sk-away"))).status == 503
    for other in (b"key=sk-bad", b"sid=bad", b"key=sk-away"):
        assert seen(await call(app, "/", None, (b"cookie", other), *twice))[:2] == (401, "More than one credential")


async def test_a_malformed_credential_falls_through() -> None:
    """A malformed credential is refused by the member that reads it there."""
    app = giving(Three().any.authenticated())
    malformed = (b"authorization", b'Bearer "quoted"')
    assert (await call(app, "/", None, malformed, COOKIE)).json == ["sessions", "grace"]
    assert seen(await call(app, "/", None, malformed)) == (
        401,
        "The access token is invalid",
        [f"{BAD_TOKEN}, {SESSION}"],
    )


# --- an unavailable backend -------------------------------------------------------------------------------------------


async def test_a_backend_that_is_away() -> None:
    """A member that cannot decide makes a 503 only where no other accepts; never a 401."""
    three = Three()
    app = giving(three.any.authenticated())
    answer = await call(app, "/", "sk-away")
    assert (answer.status, answer.all("retry-after"), answer.challenges) == (503, ["9"], [])
    assert (await call(app, "/", "sk-away", cookie("bad"))).status == 503
    assert (await call(app, "/", "sk-away", COOKIE)).json == ["sessions", "grace"]
    for lenient in (three.any.optional(), three.any.optional(ignore_invalid=True)):
        assert (await call(giving(lenient), "/", "sk-away")).status == 503


# --- optional --------------------------------------------------------------------------------------------------------


async def test_optional() -> None:
    """Without any credential an optional guard returns None; a bad one is refused, unless that is ignored."""
    three = Three()
    app, lenient = giving(three.any.optional()), giving(three.any.optional(ignore_invalid=True))
    for optional in (app, lenient):
        assert (await call(optional)).json == [None, None]
        assert (await call(optional, "/", "sk-items")).json == ["keys", "robot"]
    for bad in ("a.b.c", "sk-bad", "garbage"):
        assert (await call(app, "/", bad)).status == 401
        assert (await call(lenient, "/", bad)).json == [None, None]
    assert (await call(lenient, "/", "sk-forbidden")).status == 403


async def test_an_optional_guard_waives_no_scope() -> None:
    """Scopes of an enclosing dependency hold for an optional guard."""
    three = Three()

    async def user(claims: Annotated[Any, three.any.optional(ignore_invalid=True)]) -> Any:
        return claims

    app = giving(Security(user, scopes=["items:read"]))
    assert (await call(app, "/", "sk-items~read")).status == 200
    assert (await call(app)).status == 401
    assert (await call(app, "/", "sk-bad")).status == 401
    assert (await call(app, "/", "sk-other")).status == 403


# --- once a request --------------------------------------------------------------------------------------------------


async def test_a_token_in_the_cache_of_a_member() -> None:
    """A member with a token in its cache accepts it in its turn."""
    jwt, sessions = auth_of("HS256", cache_size=4), Sessions()
    for auth, by in ((jwt | sessions, ["jwt", "ada"]), (sessions | jwt, ["sessions", "grace"])):
        app = giving(auth.requires("items:read"))
        for _ in range(2):
            assert (await call(app, "/", forge("HS256"))).json == ["jwt", "ada"]
            assert (await call(app, "/", forge("HS256"), COOKIE)).json == by
        assert (await call(giving(auth.requires("never")), "/", forge("HS256"))).status == 403


async def test_a_member_is_asked_once_a_request() -> None:
    """However many guards ask, a member verifies once a request, also when it refused."""
    three = Three()
    other = AnyAuth(three.keys, three.jwt, name="other")
    app = FastAPI(dependencies=[three.any.optional(ignore_invalid=True), three.keys.optional(ignore_invalid=True)])
    router = APIRouter(dependencies=[three.any.authenticated(), other.optional(ignore_invalid=True)])

    @router.get("/", dependencies=[three.any.requires_any("items:read", "x")])
    async def index(claims: Annotated[dict[str, Any], three.any.requires("items:read")]) -> str:
        return str(claims["sub"])

    app.include_router(router)
    assert (await call(app, "/", "sk-items~read")).json == "robot"
    assert three.keys.asked == ["sk-items~read"]
    three.keys.asked.clear()
    assert (await call(app, "/", "sk-bad", COOKIE)).json == "grace"
    assert (three.keys.asked, three.sessions.asked) == (["sk-bad"], ["good"])
    three.keys.asked.clear()
    assert seen(await call(app, "/", "sk-bad")) == (401, "Invalid API Key", [f"{BAD_KEY}, {SESSION}"])
    assert three.keys.asked == ["sk-bad"]
    three.keys.asked.clear()
    assert (await call(app, "/", "sk-away")).status == 503
    assert three.keys.asked == ["sk-away"]


async def test_a_refusal_is_remembered_for_an_auth_alone() -> None:
    """An Auth that has refused in a request refuses again without asking, with its own challenge alone."""
    three = Three()
    app = FastAPI(dependencies=[three.any.optional(ignore_invalid=True)])
    app.get("/", dependencies=[three.keys.authenticated()])(lambda: None)
    assert (await call(app, "/", "sk-items")).status == 200
    three.keys.asked.clear()
    assert seen(await call(app, "/", "sk-bad")) == (401, "Invalid API Key", [BAD_KEY])
    assert three.keys.asked == ["sk-bad"]


async def test_requests_at_once() -> None:
    """Requests of different kinds at once do not meet."""
    three = Three()
    gate = asyncio.Barrier(3)
    app = FastAPI()

    @app.get("/", dependencies=[three.any.authenticated()])
    async def index(request: Request, claims: Annotated[Any, three.any.requires_any("items:read")]) -> Any:
        await gate.wait()
        return [request.state.auth_method, claims["sub"], three.any.dependency.decision.decider(request).auth.name]

    answers = await asyncio.gather(
        call(app, "/", forge("HS256")), call(app, "/", "sk-items~read"), call(app, "/", None, COOKIE)
    )
    kinds = [["jwt", "ada", "jwt"], ["keys", "robot", "keys"], ["sessions", "grace", "sessions"]]
    assert [answer.json for answer in answers] == kinds


# --- via -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("write", [AnyAuth.authenticated, AnyAuth.requires])
async def test_via(write: Callable[..., Any]) -> None:
    """A guard may ask for some of the kinds: a credential of another is a 403, and none or a bad one a 401."""
    three = Three()
    app = giving(write(three.any, via=["jwt"]))
    assert (await call(app, "/", forge("HS256"))).json == ["jwt", "ada"]
    assert (await call(app, "/", forge("HS256"), COOKIE)).json == ["jwt", "ada"]
    assert seen(await call(app, "/", "sk-items")) == (403, "Forbidden", [])
    assert seen(await call(app, "/", None, COOKIE)) == (403, "Forbidden", [])
    assert seen(await call(app)) == (401, "Not authenticated", [BEARER])
    assert seen(await call(app, "/", "a.b.c")) == (401, "The access token is invalid", [BAD_TOKEN])
    assert seen(await call(app, "/", "sk-bad")) == (401, "The access token is invalid", [BAD_TOKEN])
    assert seen(await call(app, "/", None, cookie("bad"))) == (401, "Not authenticated", [BEARER])


async def test_via_one_that_speaks_for_itself() -> None:
    """With one accepted kind, a missing credential has the text of that kind."""
    assert seen(await call(giving(Three().any.authenticated(via=["keys"])))) == (401, "Invalid API Key", [BEARER])


async def test_via_several_with_scopes() -> None:
    """Scopes are required of the member that verified; a credential of another kind is a 403 whatever it grants."""
    three = Three()
    app = giving(three.any.requires("items:read", via=["sessions", "keys"]))
    assert (await call(app, "/", "sk-items~read")).json == ["keys", "robot"]
    assert (await call(app, "/", None, COOKIE)).json == ["sessions", "grace"]
    assert seen(await call(app, "/", forge("HS256"))) == (403, "Forbidden", [])
    assert seen(await call(app, "/", "sk-x"))[:2] == (403, "Token is missing required scope: items:read")
    assert seen(await call(app)) == (401, "Not authenticated", [f"{BEARER}, {SESSION}"])


async def test_via_below_a_guard_of_all() -> None:
    """The application may take any kind and a route one: the latter's kind is asked for, verified once."""
    three = Three()
    app = giving(three.any.authenticated(via=["keys"]), on=[three.any.authenticated()])
    assert (await call(app, "/", "sk-items")).json == ["keys", "robot"]
    assert three.keys.asked == ["sk-items"]
    assert (await call(app, "/", forge("HS256"))).status == 403
    sessions_too = giving(three.any.authenticated(via=["sessions"]), on=[three.any.authenticated()])
    assert (await call(sessions_too, "/", forge("HS256"), COOKIE)).json == ["sessions", "grace"]


async def test_a_refusal_of_a_members_own() -> None:
    """A member that has verified a credential speaks before the others, whatever its reason is called."""

    class Strict(TokenAuth[str]):
        """An Auth whose own refusal is called as that of an unrecognised credential."""

        async def verify(self, raw: str) -> str:
            """Accept nothing."""
            raise Unauthorized("Not one of ours", error="invalid_token", reason="unrecognised")

    app = giving(AnyAuth(Strict(name="strict"), Keys()).authenticated())
    assert (await call(app, "/", "sk-bad")).json == {"detail": "Not one of ours"}


async def test_via_and_optional() -> None:
    """Without a credential the request passes; another kind is a 403, and an invalid one a 401 unless it is ignored."""
    three = Three()
    strict = giving(three.any.optional(via=["jwt"]))
    lenient = giving(three.any.optional(via=["jwt"], ignore_invalid=True))
    for app in (strict, lenient):
        assert (await call(app, "/", forge("HS256"))).json == ["jwt", "ada"]
        assert (await call(app)).json == [None, None]
        assert seen(await call(app, "/", "sk-items")) == (403, "Forbidden", [])
    assert seen(await call(strict, "/", "a.b.c")) == (401, "The access token is invalid", [BAD_TOKEN])
    assert (await call(lenient, "/", "a.b.c")).json == [None, None]


async def test_via_with_a_backend_that_is_away() -> None:
    """A credential of another kind that cannot be verified now is a 503."""
    three = Three()
    app = giving(three.any.authenticated(via=["jwt"]))
    assert (await call(app, "/", "sk-away")).status == 503


def test_guards_via_the_same_members_are_one() -> None:
    """A guard is made once for each choice of members: all of them is the plain one, whatever the order."""
    three = Three()
    assert three.any.authenticated(via=["keys", "jwt"]).dependency is three.any.requires(via=("jwt", "keys")).dependency
    assert three.any.authenticated(via=["sessions", "keys", "jwt"]).dependency is three.any.dependency
    assert three.any.authenticated().dependency is three.any.dependency
    assert three.any.authenticated(via=["jwt"]).dependency is not three.any.authenticated(via=["keys"]).dependency


@pytest.mark.parametrize("via", [[], "jwt", ["jwt", "passwords"], ["JWT"], 5, [["jwt"]], [None]])
def test_via_nobody(via: Any) -> None:
    """A name that no member has, and what is not a list of names, raise ConfigurationError when the guard is made."""
    with pytest.raises(ConfigurationError, match=r"^via is a list of members, of \['jwt', 'keys', 'sessions'\], not "):
        Three().any.authenticated(via=via)


# --- construction ----------------------------------------------------------------------------------------------------


def test_flat() -> None:
    """An AnyAuth among the members is replaced by its own, in order, however they were joined."""
    jwt, keys, sessions = auth_of("HS256"), Keys(), Sessions()
    for joined in (jwt | keys | sessions, jwt | (keys | sessions), AnyAuth(AnyAuth(jwt, keys), sessions)):
        assert joined.members == (jwt, keys, sessions)
    assert AnyAuth(jwt).members == (jwt,)
    with pytest.raises(TypeError, match="unsupported operand"):
        jwt | "keys"  # type: ignore[operator]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ((), "AnyAuth() needs at least one Auth: AnyAuth(jwt, keys)"),
        ((Keys(), "keys"), "'keys' is not an Auth: AnyAuth(jwt, keys)"),
        ((Keys(), Sessions(), Keys()), "two members of an AnyAuth are called keys: give one another name="),
        ((Keys(), Sessions()) * 2, "two members of an AnyAuth are called keys, sessions: give one another name="),
    ],
)
def test_members_that_cannot_be(members: tuple[Any, ...], message: str) -> None:
    """No members, a member that is not an Auth, and two of one name are refused."""
    with pytest.raises(ConfigurationError) as refused:
        AnyAuth(*members)
    assert str(refused.value) == message


def test_options_of_a_member() -> None:
    """An AnyAuth would not use them."""
    options: Any = {"roles": {"admin": ["*"]}, "default_role": "admin"}
    with pytest.raises(
        ConfigurationError, match=r"^AnyAuth has no argument default_role, roles: pass it to its members"
    ):
        AnyAuth(auth_of("HS256"), name="any", **options)


async def test_outside_of_a_request() -> None:
    """validate_token verifies a credential, and aclose closes what the members keep open."""
    closed: list[str] = []

    class Closing(Keys):
        async def aclose(self) -> None:
            closed.append(self.name)

    class Nothing(Keys):
        name = "nothing"

        async def verify(self, raw: str) -> dict[str, Any]:
            return None  # type: ignore[return-value]

    auth = AnyAuth(auth_of("HS256"), Nothing(), Closing())
    assert [await auth.validate_token(raw) for raw in (forge("HS256"), "sk-x", "sk-bad", "x")] == [
        True,
        True,
        False,
        False,
    ]
    with pytest.raises(ServiceUnavailable):
        await auth.validate_token("sk-away")
    with pytest.raises(ZeroDivisionError):
        await auth.validate_token("sk-bug")
    assert await auth.validate_token("sk-forbidden") is False
    with pytest.raises(Unauthorized) as refused:
        await auth.verify("x")
    assert refused.value.reason == "unrecognised"
    await auth.aclose()
    assert closed == ["keys"]


def test_presence_only() -> None:
    """One member that verifies nothing lets any credential pass; proof of the same origin is each member's own."""
    three = Three()
    assert not three.any.dependency.checks_presence_only
    assert (Keys() | Auth(APIKeyScheme("X-Key"))).dependency.checks_presence_only
    assert [auth.dependency.decision.is_cookie for auth in (three.any, three.sessions, three.jwt)] == [
        False,
        True,
        False,
    ]


async def test_decide() -> None:
    """Outside of a dependency it does the same: with a credential given, and with what is on the connection."""
    auth = Three().any

    def on(*fields: tuple[bytes, bytes]) -> HTTPConnection:
        return HTTPConnection({"type": "http", "method": "GET", "headers": list(fields)})

    verified = await auth.decide(on(COOKIE))
    assert isinstance(verified, Verified)
    assert (verified.principal["sub"], verified.auth.name) == ("grace", "sessions")
    verified = await auth.dependency.decision.decide(on(), "sk-items")
    assert isinstance(verified, Verified)
    assert verified.principal["sub"] == "robot"
    assert await auth.decide(on()) is None
    assert (await auth.dependency(on(COOKIE), SecurityScopes())) == (await Sessions().verify("good"))
    assert isinstance(await auth.decide(on(cookie("bad"))), Unauthorized)
    with pytest.raises(Unauthorized):
        await auth.dependency(on(cookie("bad")), SecurityScopes())


class Settled(ScopesAuth):
    """An Auth whose answer to every credential is settled."""

    def __init__(self, name: str, answer: Any) -> None:
        """Answer so, or raise it."""
        super().__init__(name=name)
        self.answer = answer

    async def verify(self, raw: str) -> dict[str, Any]:
        """Answer."""
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer  # type: ignore[no-any-return]


@pytest.mark.parametrize("first", [None, False, Unauthorized(), HTTPException(401), ServiceUnavailable()], ids=case_id)
async def test_verifying_goes_on(first: Any) -> None:
    """A credential that one member refuses is verified by the next; an unrecognised one is refused as such."""
    ada = {"sub": "ada"}
    assert await AnyAuth(Settled("first", first), Settled("second", ada)).verify("x") == ada
    with pytest.raises(Unauthorized) as refused:
        await AnyAuth(Settled("first", None), Settled("second", False)).verify("x")
    assert (refused.value.detail, refused.value.error) == ("The access token is invalid", "invalid_token")


@pytest.mark.parametrize("last", [Forbidden(), TooManyRequests(), HTTPException(418)], ids=case_id)
async def test_verifying_stops(last: HTTPException) -> None:
    """A member that forbids, throttles or answers by itself has decided."""
    with pytest.raises(HTTPException) as refused:
        await AnyAuth(Settled("first", last), Settled("second", {})).verify("x")
    assert refused.value is last


async def test_verifying_where_one_is_away() -> None:
    """None accepts: that is undecided where one cannot tell, and else the refusal of the first."""
    refusals = [Unauthorized(reason="one"), Unauthorized(reason="two"), ServiceUnavailable()]
    for refused, expected in ((refusals[:2], refusals[0]), (refusals, refusals[2])):
        auth = AnyAuth(*(Settled(f"no {n}", error) for n, error in enumerate(refused)))
        with pytest.raises(HTTPException) as raised:
            await auth.verify("x")
        assert raised.value is expected


# --- scopes, roles ---------------------------------------------------------------------------------------------------


class Trio(Three):
    """Members of different rules."""

    def __init__(self) -> None:
        """Join them."""
        super().__init__()
        self.sessions = Sessions(roles={"editor": ["posts:*"]})
        self.any = AnyAuth(self.jwt, self.keys, self.sessions)


async def test_the_member_decides_about_scopes_and_roles() -> None:
    """Scopes, roles and the mark of an administrator are those of the member that verified, by its rules."""
    trio = Trio()
    for dependency in (
        trio.any.requires("posts:edit"),
        trio.any.requires_any("posts:edit", "none"),
        trio.any.requires_role("editor"),
        trio.any.requires_admin(),
    ):
        app = giving(dependency)
        assert (await call(app, "/", None, COOKIE)).json == ["sessions", "grace"]
        answer = await call(app, "/", forge("HS256", valid_claims(roles=["writer"], is_admin=1)))
        assert answer.status == 403
    app = FastAPI()

    @app.get("/")
    async def granted(scopes: Annotated[frozenset[str], trio.any.granted()]) -> list[str]:
        return sorted(scopes)

    assert (await call(app, "/", None, COOKIE)).json == ["items:read", "posts:*"]
    assert (await call(app, "/", forge("HS256"))).json == ["items:read"]
    everything = giving(trio.any.requires("posts:edit"))
    assert (await call(everything, "/", "sk-_")).status == 200
    assert (await call(everything, "/", forge("HS256", valid_claims(scope="*")))).status == 403


@pytest.mark.parametrize(
    ("guard", "status", "reason"),
    [
        (lambda auth: auth.requires_any("never"), 403, "missing_scope"),
        (lambda auth: auth.requires_role("never"), 403, "missing_role"),
        (lambda auth: auth.requires_tenant(), 403, "other_tenant"),
        (lambda auth: auth.requires_recent(5), 401, "stale_login"),
        (lambda auth: auth.user(lambda claims: None), 401, "unknown_user"),
        (lambda auth: auth.allows(lambda claims: False), 403, "policy"),
        (lambda auth: auth.owned(lambda: {"by": "eve"}, owner="by"), 403, "not_owner"),
        (lambda auth: auth.owned(lambda: {"by": "eve"}, owner="by", hide=True), 404, "not_owner"),
    ],
)
async def test_the_member_refuses_what_it_verified(guard: Any, status: int, reason: str) -> None:
    """Other requirements are refused by the member that verified, in its name and with its texts."""
    events: list[Event] = []
    app = FastAPI()
    auth = auth_of("HS256") | Sessions(on_event=events.append)
    app.get("/{tenant}", dependencies=[guard(auth)])(lambda: "passed")
    answer = await call(app, "/acme", None, COOKIE)
    assert (answer.status, events[1:]) == (status, [Event("refused", "sessions", status, reason, subject="grace")])
    assert all(challenge.startswith(SESSION) for challenge in answer.challenges)


async def test_an_owner_by_scope_of_the_member() -> None:
    """The scope that stands in for ownership is looked up in what the member granted, by its rules."""
    auth = auth_of("HS256") | Sessions(roles={"editor": ["posts:edit"]})
    app = giving(auth.owned(lambda: "post", owner=lambda post: "eve", or_scope="posts:edit"))
    assert (await call(app, "/", None, COOKIE)).json == ["sessions", "post"]
    assert (await call(app, "/", forge("HS256"))).status == 403


async def test_the_member_decides_behind_another_that_refused() -> None:
    """The member that verifies after a refusal decides: its scopes are required, its roles count."""
    trio = Trio()
    bad = "sk-bad"
    for dependency in (
        trio.any.requires("items:read"),
        trio.any.requires("posts:edit"),
        trio.any.requires_any("posts:edit"),
        trio.any.requires_role("editor"),
        trio.any.requires_admin(),
    ):
        assert (await call(giving(dependency), "/", bad, COOKIE)).json == ["sessions", "grace"]
    for dependency in (trio.any.requires("never"), trio.any.requires_any("never"), trio.any.requires_role("chief")):
        assert (await call(giving(dependency), "/", bad, COOKIE)).status == 403


async def test_edited_claims_change_no_later_check() -> None:
    """The grants of a member are fixed at its verification: editing the claims changes nothing."""
    trio = Trio()

    async def escalate(claims: Annotated[dict[str, Any], trio.any.authenticated()]) -> None:
        claims.update(scope="admin:*", roles=["root"])

    async def strip(claims: Annotated[dict[str, Any], trio.any.authenticated()]) -> None:
        claims.update(scope="", roles=[])

    for dependency in (trio.any.requires("admin:read"), trio.any.requires_any("admin:read")):
        assert (await call(giving(dependency, on=[Depends(escalate)]), "/", None, COOKIE)).status == 403
    assert (await call(giving(trio.any.requires_role("root"), on=[Depends(escalate)]), "/", None, COOKIE)).status == 403
    for dependency in (trio.any.requires_any("posts:edit"), trio.any.requires_role("editor")):
        assert (await call(giving(dependency, on=[Depends(strip)]), "/", None, COOKIE)).status == 200


async def test_a_member_that_knows_no_scopes() -> None:
    """A credential without scopes passes where none are required, and has none and no role."""

    class Devices(TokenAuth[str]):
        name = "devices"

        async def verify(self, raw: str) -> str:
            return raw

    devices = Devices(APIKeyScheme("X-Device"))
    auth = devices | Keys()
    field = (b"x-device", b"d-1")
    assert (await call(giving(auth.authenticated()), "/", None, field)).json == ["devices", "d-1"]
    assert (await call(giving(auth.requires("a")), "/", "sk-a")).status == 200
    for dependency in (auth.requires("a"), auth.requires_any("a"), auth.requires_role("r"), auth.requires_admin()):
        assert (await call(giving(dependency), "/", None, field)).status == 403
    with acting_as(app := giving(AnyAuth(devices, name="one").authenticated()), devices, "d-2"):
        assert (await call(app)).json == ["devices", "d-2"]
    alone = AnyAuth(devices)
    app = giving(alone.requires_any("a"))
    app.dependency_overrides[alone.dependency] = lambda: "d-3"
    assert (await call(app)).status == 403


async def test_what_only_a_member_reads() -> None:
    """Tenants without a known member are those of the first with scopes; a factor may be required of one member."""
    three = Three()
    assert three.any.dependency.decision.tenants({"tenant": "acme"}) == {"acme"}
    app = giving(three.any.requires_factor("otp", via=["jwt"]))
    assert (await call(app, "/", forge("HS256", valid_claims(amr=["otp"])))).status == 200
    assert (await call(app, "/", forge("HS256"))).status == 401
    assert (await call(app, "/", None, COOKIE)).status == 403
    assert deepcopy(three.any) is three.any


def test_covers() -> None:
    """In a handler claims count by the rules of all members, since any may have verified them."""
    trio = Trio()
    assert trio.any.covers({"scope": "items:*"}, "items:read")
    assert not trio.any.covers({"roles": ["editor"]}, "posts:read")
    assert not trio.any.covers({"scope": "*"}, "items:read")
    assert trio.any.has_scope("items:read", ["items:edit"])
    assert not trio.any.has_scope("items:edit", ["items:read"])


def test_what_it_says_as_a_whole() -> None:
    """As an Auth it stands for all of its schemes, and decides by the first member with scopes."""
    three = Three()
    scheme = three.any.scheme
    request = HTTPConnection({"type": "http", "headers": [(b"authorization", b"Bearer abc"), COOKIE]})
    assert scheme.extract(request) == "abc"
    assert scheme.extract(HTTPConnection({"type": "http", "headers": []})) is None
    assert scheme.is_cookie
    assert (scheme.model, scheme.scheme_name, scheme.realm) == (three.jwt.scheme.model, "Bearer", "api")
    assert scheme.refusal("invalid_token", "The access token is invalid") == f"{BAD_TOKEN}, {SESSION}"
    assert scheme.plain_challenge == scheme.missing(())
    grants = three.any.grants_of({"scope": "items:read *"})
    decision = three.any.dependency.decision
    assert [decision.covers(grants, scope) for scope in ("items:read", "items:edit")] == [True, False]


# --- callables as schemes --------------------------------------------------------------------------------------------


def session_cookie(session: Annotated[str | None, Cookie()] = None) -> str | None:
    """Return a cookie."""
    return session


async def ticket(x_ticket: Annotated[str | None, Header()] = None, t: Annotated[str | None, Query()] = None) -> Any:
    """Return a header or a query parameter."""
    return 5 if x_ticket == "five" else x_ticket or t


async def test_members_whose_schemes_fastapi_resolves() -> None:
    """A scheme with FastAPI parameters of its own is resolved before the members verify."""
    cookies, tickets = Keys(session_cookie, name="cookies"), Keys(ticket, name="tickets")
    auth = AnyAuth(Keys(name="keys"), cookies, tickets)
    assert (auth.dependency.is_flat, Three().any.dependency.is_flat) == (False, True)
    app = giving(auth.authenticated())
    assert (await call(app, "/", "sk-a")).json == ["keys", "robot"]
    assert (await call(app, "/", None, (b"cookie", b"session=sk-a"))).json == ["cookies", "robot"]
    assert (await call(app, "/", None, (b"x-ticket", b"sk-a"))).json == ["tickets", "robot"]
    assert seen(await call(app)) == (401, "Invalid API Key", [BEARER])
    assert seen(await call(app, "/", None, (b"x-ticket", b"sk-bad"))) == (401, "Invalid API Key", [BAD_KEY])
    assert (await call(giving(auth.authenticated(via=["keys"])), "/", None, (b"x-ticket", b"sk-a"))).status == 403
    with pytest.raises(TypeError, match="not int"):
        await call(app, "/", None, (b"x-ticket", b"five"))
    with TestClient(app) as client:
        assert client.get("/?t=sk-a").json() == ["tickets", "robot"]


async def test_a_resolved_credential_of_another_kind() -> None:
    """A member whose scheme FastAPI resolves verifies only what it recognises, and leaves the rest to the next."""

    class Tickets(Keys):
        """Tickets with a prefix of their own."""

        def recognises(self, raw: str) -> bool:
            """Recognise a ticket."""
            return raw.startswith("t-")

    tickets, keys = Tickets(ticket, name="tickets"), Keys(ticket)
    app = giving(AnyAuth(tickets, keys).authenticated())
    assert (await call(app, "/", None, (b"x-ticket", b"sk-a"))).json == ["keys", "robot"]
    assert (tickets.asked, keys.asked) == ([], ["sk-a"])
    assert (await call(app, "/", None, (b"x-ticket", b"t-a"))).json == ["tickets", "robot"]
    assert (tickets.asked, keys.asked) == (["t-a"], ["sk-a"])


# --- OpenAPI ---------------------------------------------------------------------------------------------------------


def security_of(app: FastAPI, path: str = "/") -> Any:
    """Return the security requirements of a route."""
    return app.openapi()["paths"][path]["get"]["security"]


def test_openapi() -> None:
    """configure_app lists the members as alternatives, with their schemes; one scheme of two members is listed once."""
    three = Three()
    app = FastAPI()
    for path, dependencies in {
        "/any": [three.any.requires("items:read")],
        "/via": [three.any.requires("items:read", via=["sessions"])],
        "/both": [three.any.authenticated(), three.any.requires("a", via=["sessions"])],
        "/optional": [three.any.optional()],
        "/and": [three.any.authenticated(), Auth(APIKeyScheme("X-Key")).authenticated()],
        "/thin": [three.any.requires_any("a")],
    }.items():
        app.get(path, dependencies=dependencies)(lambda: None)
    configure_app(app)
    assert {path: security_of(app, path) for path in app.openapi()["paths"]} == {
        "/any": [{"Bearer": ["items:read"]}, {"sid": ["items:read"]}],
        "/via": [{"sid": ["items:read"]}],
        "/both": [{"sid": ["a"]}],
        "/optional": [{"Bearer": []}, {"sid": []}, {}],
        "/and": [{"X-Key": [], "Bearer": []}, {"X-Key": [], "sid": []}],
        "/thin": [{"Bearer": []}, {"sid": []}],
    }
    schemes = app.openapi()["components"]["securitySchemes"]
    assert schemes["Bearer"] == {"type": "http", "scheme": "bearer"}
    assert schemes["sid"] == {"type": "apiKey", "in": "cookie", "name": "sid"}
    assert set(app.openapi()["paths"]["/any"]["get"]["responses"]) == {"200", "401", "403", "503"}


def test_openapi_of_callables() -> None:
    """Schemes that FastAPI resolves are alternatives too, unless the guard is narrowed to others."""
    header = APIKeyHeader(name="X-One", auto_error=False)

    def one(value: Annotated[str | None, Depends(header)]) -> str | None:
        """Return a header."""
        return value  # pragma: no cover - nothing is sent here

    auth = AnyAuth(Keys(one, name="one"), Sessions())
    app = FastAPI()
    app.get("/", dependencies=[auth.authenticated()])(lambda: None)
    app.get("/via", dependencies=[auth.authenticated(via=["sessions"])])(lambda: None)
    assert [route.guards[0].schemes for route in routes_of(app)] == [("sid", "APIKeyHeader"), ("sid",)]


def test_a_route_behind_it_is_guarded() -> None:
    """A route behind an AnyAuth counts as guarded, and one behind its optional guard does not."""
    three = Three()
    app = FastAPI()
    app.get("/any", dependencies=[three.any.requires_role("x")])(lambda: None)
    app.get("/optional", dependencies=[three.any.optional()])(lambda: None)
    assert [route.is_guarded for route in routes_of(app)] == [True, False]


async def test_problem_details() -> None:
    """With configure_app the refusal is a problem, with the same challenges."""
    app = giving(Three().any.authenticated())
    configure_app(app)
    answer = await call(app)
    assert (answer.json["title"], answer.challenges) == ("Unauthorized", [f"{BEARER}, {SESSION}"])


# --- own exceptions, events ------------------------------------------------------------------------------------------


async def test_an_own_unauthorized() -> None:
    """An Unauthorized of a class of the application keeps its class, its headers and its challenge."""

    class Locked(Unauthorized):
        pass

    class Locking(Keys):
        async def verify(self, raw: str) -> dict[str, Any]:
            if raw == "sk-locked":
                raise Locked("Locked", headers={"www-authenticate": 'Own realm="own"', "X-Until": "noon"})
            raise Unauthorized('Nobody "here"', headers={"X-Until": "never"})

    app = giving(AnyAuth(Locking(), Sessions()).authenticated())
    caught: list[Exception] = []

    @app.exception_handler(Locked)
    async def locked(request: Request, error: Locked) -> Any:
        caught.append(error)
        return await http_exception_handler(request, error)

    answer = await call(app, "/", "sk-locked")
    assert seen(answer) == (401, "Locked", [f'Own realm="own", {SESSION}'])
    assert (len(caught), answer.all("x-until")) == (1, ["noon"])
    answer = await call(app, "/", "sk-x")
    assert seen(answer) == (401, 'Nobody "here"', [f"{BAD_TOKEN}, {SESSION}"])
    assert (len(caught), answer.all("x-until")) == (1, ["never"])


async def test_whose_callback_is_called() -> None:
    """A refusal of a member is reported to the callback of that member, any other to that of the whole."""
    of_keys: list[Event] = []
    of_jwt: list[Event] = []
    of_all: list[Event] = []
    jwt = auth_of("HS256", options={"on_event": of_jwt.append})
    app = giving(AnyAuth(jwt, Keys(on_event=of_keys.append), on_event=of_all.append).authenticated())
    await call(app, "/", "sk-bad")
    await call(app, "/", "sk-away")
    await call(app, "/", forge("HS256", valid_claims(iss="https://other.example")))
    await call(app)
    assert of_keys == [
        Event("refused", "keys", 401, "unknown_key"),
        Event("refused", "keys", 503, "table_unreachable"),
    ]
    assert of_jwt == [Event("refused", "jwt", 401, "issuer")]
    assert of_all == [Event("refused", "any", 401, "missing")]


async def test_events() -> None:
    """A member's decision is its event; a missing or unrecognised credential is one of the whole."""
    events: list[Event] = []
    keys, jwt = Keys(on_event=events.append), auth_of("HS256", options={"on_event": events.append})
    auth = AnyAuth(jwt, keys, name="either", on_event=events.append)
    app = giving(auth.authenticated())
    await call(app, "/", "sk-items")
    await call(app, "/", "sk-bad")
    await call(app)
    await call(app, "/", "garbage")
    await call(giving(auth.authenticated(via=["jwt"])), "/", "sk-items")
    assert events == [
        Event("authenticated", "keys", subject="robot"),
        Event("refused", "keys", 401, "unknown_key"),
        Event("refused", "either", 401, "missing"),
        Event("refused", "either", 401, "unrecognised"),
        Event("authenticated", "keys", subject="robot"),
        Event("refused", "either", 403, "other_credential"),
    ]


@pytest.mark.parametrize(
    ("fields", "error", "reason"),
    [
        ((), None, "missing"),
        (((b"authorization", b"Bearer sk-bad"),), "invalid_token", "unknown_key"),
        (((b"authorization", b"Bearer garbage"),), "invalid_token", "unrecognised"),
        (((b"authorization", b"Bearer a.b.c"),), "invalid_token", "base64url"),
        (((b"authorization", b"Bearer sk-x"),) * 2, "invalid_request", "two_credentials"),
    ],
    ids=["none", "a bad key", "nobody's", "a bad token", "two"],
)
async def test_what_a_handler_sees(fields: Any, error: str | None, reason: str) -> None:
    """A handler of the application finds in the refusal of the whole what the member refused for."""
    app = giving(Three().any.authenticated())

    @app.exception_handler(Unauthorized)
    async def answer(request: Request, error: Unauthorized) -> JSONResponse:
        return JSONResponse([error.error, error.reason], error.status_code)

    assert (await call(app, "/", None, *fields)).json == [error, reason]


async def test_what_was_verified_before() -> None:
    """A principal that a member verified on the connection counts, though no credential is on it any more."""
    three = Three()

    async def log_in(request: Request) -> None:
        three.sessions.dependency.decision.accept(request, {"sub": "eve", "scope": "items:read"})

    app = giving(three.any.requires("items:read"), on=[Depends(log_in)])
    assert (await call(app)).json == ["sessions", "eve"]


# --- overrides -------------------------------------------------------------------------------------------------------


def overridden(sub: str) -> Callable[[], dict[str, Any]]:
    """Return an override that returns these claims."""
    return lambda: {"sub": sub, "scope": "items:read", "roles": ["editor"]}


async def test_an_override_of_one_member() -> None:
    """An override of a member's dependency replaces that member, in every guard of the AnyAuth."""
    three = Three()
    app = FastAPI()
    for path, dependency in {
        "/": three.any.authenticated(),
        "/requires": three.any.requires("never"),
        "/any": three.any.requires_any("items:read"),
        "/role": three.any.requires_role("editor"),
        "/optional": three.any.optional(),
        "/via": three.any.authenticated(via=["keys"]),
        "/other": three.any.authenticated(via=["jwt"]),
    }.items():

        @app.get(path)
        async def index(claims: Annotated[Any, dependency]) -> Any:
            return claims and claims["sub"]

    app.dependency_overrides[three.keys.dependency] = overridden("test")
    for path in ("/", "/requires", "/any", "/role", "/optional", "/via"):
        assert (await call(app, path)).json == "test"
    assert (await call(app, "/", forge("HS256"))).json == "ada"
    assert (await call(app, "/", None, COOKIE)).json == "test"
    assert (await call(app, "/other")).status == 403
    assert three.keys.asked == []
    app.dependency_overrides[three.keys.dependency] = lambda: None
    assert (await call(app)).status == 401
    assert (await call(app, "/", None, COOKIE)).json == "grace"


async def test_an_override_with_parameters_of_its_own() -> None:
    """FastAPI resolves the override: async, with parameters, yielding, refusing; other overrides count in there."""
    three = Three()
    app = giving(three.any.authenticated())

    def name(x_name: Annotated[str, Header()]) -> str:
        return x_name

    async def override(found: Annotated[str, Depends(name)]) -> Any:
        if found == "nobody":
            raise Unauthorized(reason="test")
        yield {"sub": found}

    app.dependency_overrides[three.jwt.dependency] = override
    field = (b"x-name", b"eve")
    assert (await call(app, "/", None, field)).json == [None, "eve"]
    assert (await call(app, "/", None, (b"x-name", b"nobody"))).status == 401
    assert (await call(app, "/", None, (b"x-name", b"nobody"), COOKIE)).json == ["sessions", "grace"]
    answer = await call(app)
    assert (answer.status, [error["loc"] for error in answer.json["detail"]]) == (422, [["header", "x-name"]])
    app.dependency_overrides[name] = lambda: "other"
    assert (await call(app)).json == [None, "other"]

    async def reading(body: Annotated[dict[str, Any], Body()]) -> Any: ...

    app.dependency_overrides[three.jwt.dependency] = reading  # no body is read for an override
    answer = await call(app)
    assert (answer.status, [error["loc"] for error in answer.json["detail"]]) == (422, [["body"]])


@pytest.mark.parametrize(("reason", "status"), [("missing", 200), ("test", 401)])
async def test_an_override_that_refuses(reason: str, status: int) -> None:
    """An override that finds no credential is passed over, any other refusal of it counts as one."""
    three = Three()
    app = giving(three.any.optional())

    def refuse() -> None:
        raise Unauthorized(reason=reason)

    app.dependency_overrides[three.jwt.dependency] = refuse
    assert (await call(app)).status == status


async def test_an_override_of_the_whole() -> None:
    """An override of the AnyAuth's dependency reaches its guards, narrowed ones too."""
    three = Three()
    app = FastAPI()
    for path, dependency in {
        "/": three.any.requires("never"),
        "/via": three.any.authenticated(via=["jwt"]),
        "/role": three.any.requires_role("editor"),
        "/no": three.any.requires_role("chief"),
        "/scope": three.any.requires_any("items:read"),
    }.items():
        app.get(path, dependencies=[dependency])(lambda: "passed")
    app.dependency_overrides[three.any.dependency] = overridden("test")
    statuses = [(await call(app, path)).status for path in ("/", "/via", "/role", "/no", "/scope")]
    assert statuses == [200, 200, 200, 403, 200]
    narrowed = giving(three.any.authenticated(via=["jwt"]))
    narrowed.dependency_overrides[three.any.dependency] = overridden("test")
    assert (await call(narrowed)).json == [None, "test"]


async def test_acting_as() -> None:
    """acting_as works with a member, and with the whole; scopes are enforced, and anonymous callers stay anonymous."""
    three = Three()
    app = FastAPI()
    for path, dependency in {
        "/": three.any.requires("items:read"),
        "/edit": three.any.requires("items:edit"),
        "/any": three.any.requires_any("items:edit", "items:read"),
        "/via": three.any.requires("items:read", via=["jwt"]),
    }.items():
        app.get(path, dependencies=[dependency])(lambda: "passed")
    paths = ("/", "/edit", "/any", "/via")
    claims = {"sub": "ada", "scope": "items:read"}
    for who in (three.jwt, three.any):
        with acting_as(app, who, claims):
            assert [(await call(app, path)).status for path in paths] == [200, 403, 200, 200]
    with acting_as(app, three.keys, claims):
        assert [(await call(app, path)).status for path in paths] == [200, 403, 200, 403]
    assert [(await call(app, path)).status for path in paths] == [401] * 4
    assert app.dependency_overrides == {}


async def test_acting_as_elsewhere() -> None:
    """While one task acts as a user, a request of another task has to authenticate, and can."""
    three = Three()
    app = giving(three.any.authenticated())
    inside, outside = asyncio.Event(), asyncio.Event()

    async def act() -> int:
        with acting_as(app, three.jwt, {"sub": "test"}):
            inside.set()
            await outside.wait()
            return (await call(app)).status

    async def ask() -> list[Any]:
        await inside.wait()
        answers = [(await call(app)).status, (await call(app, "/", None, COOKIE)).json]
        outside.set()
        return answers

    assert await asyncio.gather(act(), ask()) == [200, [401, ["sessions", "grace"]]]
