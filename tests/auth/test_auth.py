import logging
from collections.abc import Iterable
from enum import Enum
from functools import partial
from types import SimpleNamespace
from typing import Annotated, Any, cast

import pytest
from fastapi import APIRouter, Cookie, Depends, FastAPI, Header, HTTPException, Request, Security, WebSocket
from fastapi.security import APIKeyHeader, HTTPBearer, OAuth2PasswordBearer
from fastapi.testclient import TestClient
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse
from starlette.testclient import WebSocketDenialResponse

from fastapi_guard import (
    AnyAuth,
    APIKeyScheme,
    Auth,
    AuthError,
    BearerScheme,
    ConfigurationError,
    Forbidden,
    ScopesAuth,
    ServiceUnavailable,
    SimpleScopeValidator,
    TokenAuth,
    Unauthorized,
    configure_app,
)
from fastapi_guard.auth import FlatGuard, Guard
from fastapi_guard.auth.decision import without_memo
from fastapi_guard.events import Event
from fastapi_guard.exceptions import EXPIRED_TOKEN
from support.asgi import Answer, call
from support.ids import case_id

PLAIN = 'Bearer realm="api"'
INVALID = f'{PLAIN}, error="invalid_token", error_description="The access token is invalid"'

NOT_AUTHENTICATED = (401, {"detail": "Not authenticated"}, [PLAIN])
REFUSED = (401, {"detail": "The access token is invalid"}, [INVALID])


def missing(scope: str, *required: str) -> tuple[int, dict[str, str], list[str]]:
    """Return the refusal of a token without a scope."""
    challenge = f'{PLAIN}, error="insufficient_scope", scope="{" ".join(required or (scope,))}"'
    return 403, {"detail": f"Token is missing required scope: {scope}"}, [challenge]


FORBIDDEN = (403, {"detail": "Forbidden"}, [])


def seen(answer: Answer) -> tuple[int, Any, list[str]]:
    """Return what matters of a refusal."""
    return answer.status, answer.json, answer.challenges


class Mine(ScopesAuth):
    """An Auth with only `verify`: the token is the scopes, spelled as token68."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """Note what was verified."""
        super().__init__(*arguments, **options)
        self.verified: list[str] = []

    async def verify(self, raw: str) -> dict[str, Any]:
        """Grant the scopes in the token, unless it is bad."""
        self.verified.append(raw)
        if raw == "bad":
            raise Unauthorized("The access token is invalid", error="invalid_token", reason="bad")
        return {"sub": "ada", "scope": raw.translate(str.maketrans("+~_", " :*"))}


def token(*scopes: str) -> str:
    """Return a token with these scopes, spelled as token68."""
    return " ".join(scopes).translate(str.maketrans(" :*", "+~_")) or "-"


class Text(TokenAuth[str]):
    """An Auth whose principal is a text."""

    async def verify(self, raw: str) -> str:
        """Return the token in upper case."""
        return raw.upper()


def guarded_by(*dependencies: Any, on: Iterable[Any] = ()) -> FastAPI:
    """Return an application with one route behind these dependencies, and others on the application."""
    app = FastAPI(dependencies=list(on))

    @app.get("/", dependencies=list(dependencies))
    async def index() -> str:
        return "passed"

    return app


def giving(dependency: Any) -> FastAPI:
    """Return an application that returns the value of a dependency."""
    app = FastAPI()

    @app.get("/")
    async def index(value: Annotated[Any, dependency]) -> Any:
        return value if not isinstance(value, frozenset) else sorted(value)

    return app


# --- authenticated, optional -----------------------------------------------------------------------------------------


async def test_authenticated() -> None:
    """A valid credential returns the principal; none and a bad one are refused with the challenge."""
    app = giving(Mine().authenticated())
    assert (await call(app, "/", "-")).json == {"sub": "ada", "scope": "-"}
    assert seen(await call(app)) == NOT_AUTHENTICATED
    assert seen(await call(app, "/", "bad")) == REFUSED


async def test_optional() -> None:
    """Without a credential an optional guard returns None, while a bad one is refused."""
    app = giving(Mine().optional())
    assert (await call(app, "/", "-")).json["sub"] == "ada"
    assert seen(await call(app)) == (200, None, [])
    assert seen(await call(app, "/", "bad")) == REFUSED


async def test_optional_that_ignores_what_is_invalid() -> None:
    """With `ignore_invalid` a bad credential counts as none; one that cannot be decided does not."""

    class Away(Mine):
        async def verify(self, raw: str) -> dict[str, Any]:
            if raw == "away":
                raise ServiceUnavailable(retry_after=7)
            if raw == "forbidden":
                raise Forbidden
            return await super().verify(raw)

    app = giving(Away().optional(ignore_invalid=True))
    assert (await call(app, "/", "-")).json["sub"] == "ada"
    assert seen(await call(app)) == (200, None, [])
    assert seen(await call(app, "/", "bad")) == (200, None, [])
    assert seen(await call(app, "/", "two words")) == (200, None, [])
    assert seen(await call(app, "/", "forbidden")) == FORBIDDEN
    answer = await call(app, "/", "away")
    assert (answer.status, answer.all("retry-after"), answer.challenges) == (503, ["7"], [])


def test_whether_an_invalid_credential_is_ignored_is_a_bool() -> None:
    """A text would count as true."""
    no: Any = "no"
    with pytest.raises(ConfigurationError, match=r"^ignore_invalid is True or False, not text of 2"):
        Mine().optional(ignore_invalid=no)


@pytest.mark.parametrize("ignore_invalid", [False, True])
async def test_an_optional_guard_waives_no_scope(ignore_invalid: bool) -> None:
    """Scopes that an enclosing dependency requires hold for an optional guard as well."""
    auth = Mine()

    async def user(claims: Annotated[Any, auth.optional(ignore_invalid=ignore_invalid)]) -> Any:
        return claims

    app = giving(Security(user, scopes=["items:read"]))
    assert (await call(app, "/", token("items:read"))).status == 200
    assert seen(await call(app)) == NOT_AUTHENTICATED
    assert seen(await call(app, "/", "-")) == missing("items:read")
    assert seen(await call(app, "/", "bad")) == (NOT_AUTHENTICATED if ignore_invalid else REFUSED)


async def test_a_presence_check_says_so() -> None:
    """The base class does not authenticate: it returns the raw credential, and logs that it checks nothing."""

    class Seeing(Auth[str]):
        async def verify_request(self, connection: HTTPConnection, raw: str) -> str: ...

    plain = Auth[str](APIKeyScheme("X-Api-Key"))
    assert (await call(giving(plain.authenticated()), "/", None, (b"x-api-key", b"anything"))).json == "anything"
    assert plain.dependency.checks_presence_only
    assert not Text().dependency.checks_presence_only
    assert not Seeing(BearerScheme()).dependency.checks_presence_only
    assert await plain.verify("x") == "x"
    await plain.aclose()


def test_what_weakens_a_check_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """It is said once, at construction, and nothing is said of an Auth that checks all."""
    Auth[str](APIKeyScheme("X-Api-Key"), name="present")
    Mine(APIKeyScheme("session", "cookie"), cookie=False)
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "present does not authenticate: any credential passes, as verify() is not overridden"),
        ("WARNING", "auth(cookie=False): pages of any origin may send its cookie"),
    ]
    caplog.clear()
    AnyAuth(Mine(APIKeyScheme("session", "cookie"), name="a"), Mine(name="b"))  # each member speaks for itself
    Mine(APIKeyScheme("session", "cookie"), cookie=True)
    Mine(cookie=False)
    assert caplog.messages == []


async def note_later(event: Event) -> None:
    """Note an event too late."""


class NoteLater:
    """An object that notes an event too late."""

    async def __call__(self, event: Event) -> None:
        """Note an event."""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"on_event": 5}, "on_event is a function of one Event"),
        ({"on_event": note_later}, "on_event is a function of one Event"),
        ({"on_event": partial(note_later)}, "on_event is a function of one Event"),
        ({"on_event": NoteLater()}, "on_event is a function of one Event"),
        ({"cookie": "no"}, "cookie is True, False, or left out, not text of 2 characters"),
        ({"cookie": 0}, "cookie is True, False, or left out, not 0"),
        ({"trusted_origins": [b"https://app.example"]}, "is not an origin as a browser sends it"),
        ({"trusted_origins": [None]}, "is not an origin as a browser sends it"),
        ({"trusted_origins": 5}, r"trusted_origins is a list of origins, such as \[5\]"),
        ({"roles": ["editor"]}, "roles maps names to scopes"),
        ({"roles": []}, "roles maps names to scopes"),
        ({"roles": {5: ["a"]}}, "roles maps names to scopes"),
        ({"roles": {"editor": 5}}, "the role 'editor' is a list of scopes"),
        ({"roles": {"editor": None}}, "the role 'editor' is a list of scopes"),
        ({"default_role": 5}, "default_role is the name of a role, not 5"),
        ({"default_role": ["editor"]}, "default_role is the name of a role"),
    ],
)
def test_options_of_another_kind(options: dict[str, Any], message: str) -> None:
    """An option that could not work raises ConfigurationError when constructed, not at the first request."""
    with pytest.raises(ConfigurationError, match=message):
        Mine(**options)


def test_options_that_work() -> None:
    """Any function, any object that is called, and any collection serve."""

    class Note:
        def __call__(self, event: Event) -> None: ...

    for on_event in (None, print, [].append, Note(), partial(print, "event"), lambda event: None):
        Mine(on_event=on_event, cookie=None, trusted_origins={"https://app.example"}, roles={"a": {"b"}})


@pytest.mark.parametrize(
    "refusal",
    [
        {"detail": {"code": 1}},
        {"error": 'in"valid'},
        {"error": "in\nvalid"},
        {"error": "\N{SNOWMAN}"},
        {"error": ""},
        {"error": 5},
    ],
    ids=case_id,
)
async def test_a_refusal_that_no_challenge_can_repeat(refusal: dict[str, Any]) -> None:
    """Whatever a verify() puts into its Unauthorized, the challenge is a constant of ours, and no 500."""

    class Refusing(ScopesAuth):
        async def verify(self, raw: str) -> dict[str, Any]:
            raise Unauthorized(**refusal)

    answer = await call(giving(Refusing().authenticated()), "/", "x")
    assert (answer.status, answer.challenges) == (401, [INVALID])
    assert answer.json == {"detail": refusal.get("detail", "The access token is invalid")}


@pytest.mark.parametrize("principal", [True, 0, "ada"])
async def test_claims_of_another_kind(principal: Any) -> None:
    """A verify() of a ScopesAuth that returns no claims is a bug of the application: no endpoint runs."""

    class Odd(ScopesAuth):
        async def verify(self, raw: str) -> dict[str, Any]:
            return principal

    with pytest.raises(TypeError, match=r"^Odd\.verify returns a claims dict"):
        await call(giving(Odd().authenticated()), "/", "x")


async def test_verify_request_sees_the_request() -> None:
    """An Auth that overrides verify_request gets the connection; by default it is verify."""

    class Seeing(Text):
        async def verify_request(self, connection: HTTPConnection, raw: str) -> str:
            return f"{connection.url.path} {await super().verify_request(connection, raw)}"

    assert (await call(giving(Seeing().authenticated()), "/", "abc")).json == "/ ABC"


@pytest.mark.parametrize("nothing", [None, False])
@pytest.mark.parametrize("by_request", [False, True])
async def test_nothing_is_a_refusal(nothing: Any, by_request: bool) -> None:
    """A verify that returns None or False has refused."""

    class Nothing(ScopesAuth):
        async def verify(self, raw: str) -> dict[str, Any]:
            return nothing if raw == "nothing" else {}

    class ByRequest(Nothing):
        async def verify_request(self, connection: HTTPConnection, raw: str) -> dict[str, Any]:
            return await self.verify(raw)

    auth = (ByRequest if by_request else Nothing)()
    app = giving(auth.authenticated())
    assert (await call(app, "/", "something")).json == {}
    assert seen(await call(app, "/", "nothing")) == REFUSED
    assert await auth.validate_token("something") is True
    assert await auth.validate_token("nothing") is False
    with pytest.raises(Unauthorized) as refused:
        auth.dependency.decision.accept(HTTPConnection({"type": "http", "headers": []}), nothing)
    assert (refused.value.detail, refused.value.error) == ("The access token is invalid", "invalid_token")


async def test_verify_that_is_no_coroutine_or_gives_no_claims() -> None:
    """A verify that is not an `async def` is refused at construction; one that returns no dict raises."""

    class Sync(ScopesAuth):
        def verify(self, raw: str) -> dict[str, Any]: ...  # type: ignore[override]

    class Wrong(ScopesAuth):
        async def verify(self, raw: str) -> dict[str, Any]:
            return ["sub"]  # type: ignore[return-value]

    with pytest.raises(ConfigurationError, match=r"^Sync.verify has to be an async def$"):
        Sync()
    with pytest.raises(TypeError, match=r"^Wrong.verify returns a claims dict, not list$"):
        await call(giving(Wrong().authenticated()), "/", "x")


def test_a_scopes_auth_has_to_verify() -> None:
    """A ScopesAuth without verify cannot be made."""
    with pytest.raises(TypeError, match=r"abstract"):
        ScopesAuth()  # type: ignore[abstract]


@pytest.mark.parametrize("name", ["recognises", "grants_of"])
def test_a_hook_that_nobody_awaits(name: str) -> None:
    """A hook that is called as a def is refused at construction where it is async: its coroutine decides nothing."""

    async def hook(self: Mine, value: Any) -> Any: ...

    kind = type("Hooked", (Mine,), {name: hook})
    with pytest.raises(ConfigurationError, match=rf"^Hooked\.{name} has to be a def, not an async def$"):
        kind()


def test_a_method_of_an_earlier_version() -> None:
    """A subclass that still overrides `authenticate` is refused at construction: what it checks is not checked."""

    class Former(Mine):
        async def authenticate(self, connection: Any) -> Any: ...

    with pytest.raises(ConfigurationError, match=r"^Former\.authenticate is never called: override verify or verify_r"):
        Former()


async def test_an_own_unauthorized() -> None:
    """The detail of an own refusal reaches the body, never the challenge; an own challenge is kept."""

    class Own(Mine):
        async def verify(self, raw: str) -> dict[str, Any]:
            if raw == "challenge":
                raise Unauthorized("Step up", headers={"WWW-Authenticate": 'Own realm="own"'})
            if raw == "bare":
                raise Unauthorized
            raise Unauthorized('Nobody called "ada"\r\nX-Injected: 1', reason="unknown_user")

    app = giving(Own().authenticated())
    assert seen(await call(app, "/", "x")) == (401, {"detail": 'Nobody called "ada"\r\nX-Injected: 1'}, [INVALID])
    assert seen(await call(app, "/", "bare")) == REFUSED
    assert seen(await call(app, "/", "challenge")) == (401, {"detail": "Step up"}, ['Own realm="own"'])


async def test_each_refusal_of_an_auth_has_its_own_challenge() -> None:
    """One that was challenged before does not lend its text to the next, nor the metadata it named."""

    class Saying(Mine):
        async def verify(self, raw: str) -> dict[str, Any]:
            raise Unauthorized({"expired": EXPIRED_TOKEN}.get(raw), error="invalid_token")

    auth = Saying()
    app = giving(auth.authenticated())
    expired = f'{PLAIN}, error="invalid_token", error_description="{EXPIRED_TOKEN}"'
    for raw, challenge in (("bad", INVALID), ("expired", expired), ("bad", INVALID)):
        assert (await call(app, "/", raw)).challenges == [challenge]
    auth.scheme.announce("https://api.example/metadata")
    named_there = ', resource_metadata="https://api.example/metadata"'
    for raw, challenge in (("bad", INVALID), ("expired", expired)):
        assert (await call(app, "/", raw)).challenges == [challenge + named_there]


async def test_own_texts() -> None:
    """An Auth may say in words of its own what is missing and what is bad; the challenge keeps to ours."""
    app = giving(Mine(missing_detail="Show your badge", invalid_detail="This is no badge").authenticated())
    assert seen(await call(app)) == (401, {"detail": "Show your badge"}, [PLAIN])
    assert seen(await call(app, "/", "bad")) == (401, {"detail": "This is no badge"}, [INVALID])


async def test_an_http_exception_of_verify() -> None:
    """An HTTPException of the application's own is its answer, with its headers, and an event."""
    events: list[Event] = []

    class Own(Mine):
        async def verify(self, raw: str) -> dict[str, Any]:
            raise HTTPException(402, "Pay first", headers={"X-Price": "1"})

    answer = await call(giving(Own(on_event=events.append).authenticated()), "/", "x")
    assert (answer.status, answer.json, answer.all("x-price")) == (402, {"detail": "Pay first"}, ["1"])
    assert events == [Event("refused", "auth", 402, "refused")]


async def test_a_401_of_verify_that_is_not_ours() -> None:
    """A plain HTTPException(401) gets the challenge that every 401 carries, unless it brought one; it is a refusal."""
    events: list[Event] = []

    class Own(Mine):
        async def verify(self, raw: str) -> dict[str, Any]:
            headers = {"www-authenticate": 'Own realm="own"'} if raw == "own" else {"X-Price": "1"}
            raise HTTPException(401, "Gone", headers=headers)

    auth = Own(on_event=events.append)
    app = giving(auth.authenticated())
    answer = await call(app, "/", "x")
    assert (answer.status, answer.json, answer.all("x-price")) == (401, {"detail": "Gone"}, ["1"])
    assert answer.all("www-authenticate") == [
        'Bearer realm="api", error="invalid_token", error_description="The access token is invalid"'
    ]
    assert (await call(app, "/", "own")).all("www-authenticate") == ['Own realm="own"']
    assert events == [Event("refused", "auth", 401, "refused")] * 2
    assert not await auth.validate_token("x")
    assert (await call(giving(auth.optional(ignore_invalid=True)), "/", "x")).json is None


async def test_validate_token() -> None:
    """A token can be verified outside of a request; what cannot be decided is raised."""

    class Undecided(Mine):
        async def verify(self, raw: str) -> dict[str, Any]:
            if raw == "away":
                raise ServiceUnavailable
            if raw == "forbidden":
                raise Forbidden
            return await super().verify(raw)

    auth = Undecided()
    assert [await auth.validate_token(raw) for raw in ("good", "bad", "forbidden")] == [True, False, False]
    with pytest.raises(ServiceUnavailable):
        await auth.validate_token("away")


# --- scopes ----------------------------------------------------------------------------------------------------------


async def test_requires() -> None:
    """All of the scopes are required; the first that is missing is named, all of them are in the challenge."""
    app = giving(Mine().requires("items:read", "items:edit"))
    assert (await call(app, "/", token("items:read", "items:edit"))).json["sub"] == "ada"
    assert (await call(app, "/", token("items:*"))).status == 200
    assert seen(await call(app, "/", token("items:read"))) == missing("items:edit", "items:read", "items:edit")
    assert seen(await call(app, "/", token("other:*"))) == missing("items:read", "items:read", "items:edit")
    assert seen(await call(app)) == NOT_AUTHENTICATED
    assert seen(await call(app, "/", "bad")) == REFUSED


async def test_requires_nothing() -> None:
    """Without scopes it is the same as `authenticated()`."""
    auth = Mine()
    assert auth.requires().dependency is auth.authenticated().dependency is auth.dependency
    assert (await call(giving(auth.requires()), "/", "-")).status == 200


async def test_requires_any() -> None:
    """One of the scopes is enough; all are named where none is granted."""
    app = giving(Mine().requires_any("items:read", "posts:read"))
    assert (await call(app, "/", token("posts:read"))).json["sub"] == "ada"
    assert (await call(app, "/", token("items:edit"))).status == 200
    expected = missing("items:read or posts:read", "items:read", "posts:read")
    assert seen(await call(app, "/", token("other:read"))) == expected
    assert seen(await call(app)) == NOT_AUTHENTICATED
    assert seen(await call(app, "/", "bad")) == REFUSED


@pytest.mark.parametrize("write", ["requires", "requires_any"])
@pytest.mark.parametrize("scope", ["", "a b", 'a"b', "a\\b", "é", "a\n", 5, None])
def test_what_is_no_scope(write: str, scope: Any) -> None:
    """A scope outside of RFC 6749's characters is an error when the guard is made."""
    assert getattr(Mine(), write)("items:read")
    with pytest.raises(ConfigurationError, match=r"is not a scope"):
        getattr(Mine(), write)("items:read", scope)


def test_an_empty_any() -> None:
    """An empty any-of is an error when the guard is made, as is an empty list of roles."""
    with pytest.raises(
        ConfigurationError, match=r"^requires_any\(\) needs at least one scope; authenticated\(\) requires none$"
    ):
        Mine().requires_any()
    with pytest.raises(ConfigurationError, match=r"^requires_role\(\) needs at least one role, not none$"):
        Mine().requires_role()


class Roles(Mine):
    """An Auth whose token is the roles."""

    async def verify(self, raw: str) -> dict[str, Any]:
        """Return the roles."""
        return {"sub": "ada", "roles": raw.split("+"), "is_admin": raw == "admin"}


async def test_requires_role() -> None:
    """One of the roles is enough, by its exact name; another one is a 403 without a challenge."""
    app = giving(Roles().requires_role("editor", "chief"))
    assert (await call(app, "/", "reader+chief")).json["sub"] == "ada"
    for raw in ("reader", "Editor", "editor.", "edito"):
        assert seen(await call(app, "/", raw)) == FORBIDDEN
    assert seen(await call(app)) == NOT_AUTHENTICATED


def test_unknown_roles() -> None:
    """A role that is not among the configured ones is a mistake."""
    auth = Roles(roles={"editor": ["content:edit"]})
    assert auth.requires_role("editor")
    with pytest.raises(
        ConfigurationError, match=r"^requires_role\(\) needs at least one role among \['editor'\], not \['edtior'\]$"
    ):
        auth.requires_role("editor", "edtior")


async def test_roles_as_sets_of_scopes() -> None:
    """A role grants the scopes it stands for; a bare star in it is everything, and nothing else is."""
    auth = Roles(roles={"editor": ["content:edit"], "root": ["*"], "reader": []})
    app = giving(auth.requires("content:read"))
    statuses = {raw: (await call(app, "/", raw)).status for raw in ("editor", "root", "reader", "other")}
    assert statuses == {"editor": 200, "root": 200, "reader": 403, "other": 403}
    verbatim = Roles(None, SimpleScopeValidator(), roles={"root": ["*"]})
    assert seen(await call(giving(verbatim.requires("content:read")), "/", "root")) == missing("content:read")
    nothing = giving(auth.requires("content:"))
    assert seen(await call(nothing, "/", "root")) == missing("content:")  # an empty segment is covered by nothing
    claims = {"roles": ["root"]}
    assert [auth.covers(claims, scope) for scope in ("content:read", "content:")] == [True, False]


@pytest.mark.parametrize(
    ("mark", "status"), [(True, 200), (False, 403), (1, 403), ("true", 403), (None, 403), ([1], 403)]
)
async def test_requires_admin(mark: Any, status: int) -> None:
    """The claim has to be True, and nothing that is merely like it."""

    class Marked(Mine):
        async def verify(self, raw: str) -> dict[str, Any]:
            return {"is_admin": mark}

    answer = await call(giving(Marked().requires_admin()), "/", "x")
    assert answer.status == status
    assert (answer.json == {"is_admin": True}) is (status == 200)
    assert status == 200 or seen(answer) == FORBIDDEN


def test_claims_of_another_name() -> None:
    """Scopes and roles are read from the claims that are named, and from no others."""
    auth = Mine(scope_claims=["permissions"], role_claims=["realm.groups"], roles={"editor": ["content:edit"]})
    assert auth.covers({"permissions": ["items:read"]}, "items:read")
    assert not auth.covers({"scope": "items:read"}, "items:read")
    assert auth.covers({"realm": {"groups": ["editor"]}}, "content:edit")
    assert not auth.covers({"roles": ["editor"]}, "content:edit")


async def test_granted() -> None:
    """The granted scopes are a frozenset, those of the roles included."""
    app = giving(Roles(roles={"editor": ["content:edit", "content:read"]}).granted())
    assert (await call(app, "/", "editor+other")).json == ["content:edit", "content:read"]
    assert seen(await call(app)) == NOT_AUTHENTICATED


def test_covers_and_has_scope() -> None:
    """The decision of `requires` can be asked for in a handler: of claims, and of granted scopes."""
    auth = Mine()
    claims = {"scope": "items:edit", "scp": ["posts:*"]}
    assert auth.covers(claims, "items:read", "posts:delete")
    assert auth.covers({})
    assert not auth.covers(claims, "items:read", "users:read")
    assert not auth.covers({"scope": {"items:read": 1}}, "items:read")
    assert auth.has_scope("items:read", ["items:edit"])
    assert not auth.has_scope("items:edit", ["items:read"])
    for malformed in ("", "items read", 'items:"read"', "é", None, 5):
        assert not auth.covers({"scope": "*:* *"}, cast("str", malformed))
        assert not auth.has_scope(cast("str", malformed), ["*:*", "*", ""])


@pytest.mark.parametrize("validator", [object(), SimpleScopeValidator, 5])
def test_what_is_no_scope_validator(validator: Any) -> None:
    """A validator without has_scope, or a class in place of its instance, is refused where it is passed."""
    with pytest.raises(ConfigurationError) as refused:
        Mine(None, validator)
    assert str(refused.value) == (
        f"{validator!r} is not a scope validator: pass an object with has_scope(scope, granted_scopes)"
    )


def test_a_scope_validator_that_is_false() -> None:
    """A validator counts whatever its own truth value is, such as one of no rules."""

    class Rules(dict[str, str]):
        """Validate by rules."""

        def has_scope(self, scope: str, granted_scopes: Iterable[str], /) -> bool:
            """Return whether there is a rule for a scope."""
            return scope in self

    assert not Mine(None, Rules()).covers({"scope": "a"}, "a")
    assert Mine(None, Rules(a="b")).covers({}, "a")


@pytest.mark.parametrize("wrap", [staticmethod, partial])
def test_a_scope_validator_that_nobody_awaits(wrap: Any) -> None:
    """An async has_scope is refused where it is passed: its coroutine would count as a yes to every scope."""

    async def has_scope(scope: str, granted_scopes: Iterable[str], /) -> bool: ...  # type: ignore[empty-body]

    validator: Any = SimpleNamespace(has_scope=wrap(has_scope))
    with pytest.raises(ConfigurationError, match=r"^SimpleNamespace\.has_scope has to be a def, not an async def$"):
        Mine(None, validator)
    validator.has_scope = SimpleScopeValidator().has_scope
    assert Mine(None, validator).covers({"scope": "a"}, "a")


@pytest.mark.parametrize("role", [Enum("Role", {"editor": "editor"})["editor"], 1, None, ""])
def test_what_is_no_name_of_a_role(role: Any) -> None:
    """A role that no claim can name is refused when the guard is made; a member of a str Enum is a name."""
    with pytest.raises(ConfigurationError) as refused:
        Mine().requires_role("chief", role)
    assert str(refused.value) == f"the name of a role is text, such as requires_role('editor'), not {role!r}"
    assert Mine().requires_role("chief", Enum("Named", {"editor": "editor"}, type=str)["editor"])


async def test_an_own_strategy() -> None:
    """A strategy needs one method."""

    class Shouted:
        def has_scope(self, scope: str, granted_scopes: Iterable[str], /) -> bool:
            return scope.upper() in granted_scopes

    app = giving(Mine(None, Shouted()).requires("read"))
    assert (await call(app, "/", "READ")).status == 200
    assert seen(await call(app, "/", "read")) == missing("read")


def test_granted_scopes_in_one_text() -> None:
    """A text of granted scopes is split as the claim is, for any strategy: a part of it covers nothing."""

    class Contained:
        def has_scope(self, scope: str, granted_scopes: Iterable[str], /) -> bool:
            return scope in granted_scopes

    for validator in (Contained(), SimpleScopeValidator(), None):
        auth = Mine(None, validator)
        assert auth.has_scope("items:read", "posts:read items:read")
        assert not auth.has_scope("items:read", "xitems:reader posts:read")


async def test_scopes_of_an_auth_that_knows_none() -> None:
    """An Auth without scopes refuses each of them, where FastAPI hands it some."""
    auth = Text()
    assert (await call(giving(auth.authenticated()), "/", "a")).json == "A"
    assert seen(await call(giving(Security(auth.dependency, scopes=["x", "y"])), "/", "a")) == missing("x", "x", "y")


# --- requirements add up ---------------------------------------------------------------------------------------------


async def test_requirements_add_up() -> None:
    """Those of the application, the router, the include, the route and the parameter all hold."""
    auth = Mine()
    app = FastAPI(dependencies=[auth.requires("app:read")])
    router = APIRouter(prefix="/r", dependencies=[auth.requires("router:read")])

    @router.get("/", dependencies=[auth.requires_any("route:read", "route:other")])
    async def index(claims: Annotated[dict[str, Any], auth.requires("parameter:read")]) -> None: ...

    app.include_router(router, dependencies=[auth.requires("include:read")])
    needed = ["app:read", "include:read", "router:read", "route:read", "parameter:read"]
    assert (await call(app, "/r/", token(*needed))).status == 200
    for scope in needed:
        answer = await call(app, "/r/", token(*(other for other in needed if other != scope)))
        expected = ("route:read or route:other", "route:read", "route:other") if scope == "route:read" else (scope,)
        assert seen(answer) == missing(*expected)


async def test_scopes_of_enclosing_dependencies() -> None:
    """A dependency that requires a scope requires it of every guard below it."""
    auth = Mine()

    async def user(claims: Annotated[dict[str, Any], auth.requires("user:read")]) -> str:
        return str(claims["sub"])

    async def friend(name: Annotated[str, Security(user, scopes=["friend:read"])]) -> str:
        return name

    app = giving(Security(friend, scopes=["outer:read"]))
    assert (await call(app, "/", token("outer:read", "friend:read", "user:read"))).json == "ada"
    for scope in ("outer:read", "friend:read", "user:read"):
        others = {"outer:read", "friend:read", "user:read"} - {scope}
        answer = await call(app, "/", token(*others))
        assert (answer.status, answer.json["detail"]) == (403, f"Token is missing required scope: {scope}")


@pytest.mark.parametrize("write", ["requires_any", "requires_role", "requires_admin", "granted"])
async def test_scopes_above_the_thin_dependencies(write: str) -> None:
    """Enclosing scopes reach through the dependencies that have the guard as their own."""

    class All(Mine):
        async def verify(self, raw: str) -> dict[str, Any]:
            return await super().verify(raw) | {"roles": ["x"], "is_admin": True}

    auth = All()
    inner = getattr(auth, write)(*{"requires_any": ["a:read"], "requires_role": ["x"]}.get(write, []))

    async def user(value: Annotated[Any, inner]) -> str:
        return "user"

    app = giving(Security(user, scopes=["outer:read"]))
    assert (await call(app, "/", token("a:read", "outer:read"))).json == "user"
    assert seen(await call(app, "/", token("a:read"))) == missing("outer:read")


def test_a_guard_is_strict_by_default() -> None:
    """A guard that is made by hand requires a valid credential, unless configured otherwise."""
    decision = Mine().dependency.decision
    for guard in (Guard(decision), FlatGuard(decision)):
        assert (guard.optional, guard.ignore_invalid) == (False, False)


async def test_guards_are_never_equal() -> None:
    """No two guards compare equal or share FastAPI's cache: the pass of one is not the pass of another."""
    auth, other = Mine(), Mine()
    made = [
        auth.dependency,
        auth.optional_dependency,
        auth.optional(ignore_invalid=True).dependency,
        other.dependency,
        *(auth.requires_any(scope).dependency for scope in ("a", "a", "b")),
        *(auth.requires_role(role).dependency for role in ("a", "a")),
        *(auth.requires_admin().dependency for _ in range(2)),
        *(auth.granted().dependency for _ in range(2)),
    ]
    assert len(set(made)) == len(made)
    assert all(one is two or one != two for one in made for two in made)
    assert Guard.__eq__ is FlatGuard.__eq__ is object.__eq__
    for first, second in ((auth.requires_any("a"), auth.requires_any("b")), (auth.requires("a"), auth.requires("b"))):
        assert seen(await call(guarded_by(first, second), "/", token("a"))) == missing("b")
        assert seen(await call(guarded_by(second, first), "/", token("a"))) == missing("b")
        assert (await call(guarded_by(first, second), "/", token("a", "b"))).status == 200


async def test_two_auths_are_two() -> None:
    """A principal that one Auth verified is not valid for another."""

    class Never(Mine):
        async def verify(self, raw: str) -> dict[str, Any]:
            raise Unauthorized("The access token is invalid", error="invalid_token")

    yes, no = Mine(), Never()
    assert (await call(guarded_by(yes.authenticated()), "/", "-")).status == 200
    assert seen(await call(guarded_by(yes.authenticated(), no.authenticated()), "/", "-")) == REFUSED
    assert seen(await call(guarded_by(no.authenticated(), yes.authenticated()), "/", "-")) == REFUSED


# --- verified once a request -----------------------------------------------------------------------------------------


async def test_verified_once_a_request() -> None:
    """However many guards ask, in whatever form, a request's credential is verified once, and the next one's again."""
    auth = Mine()
    app = FastAPI(dependencies=[auth.authenticated()])
    router = APIRouter(dependencies=[auth.requires("a:read")])

    @router.get("/", dependencies=[auth.requires_any("a:read", "x"), auth.granted(), auth.optional()])
    async def index(
        one: Annotated[dict[str, Any], auth.requires("b:read")],
        two: Annotated[dict[str, Any], auth.optional(ignore_invalid=True)],
    ) -> bool:
        return one is two

    app.include_router(router)
    for times in (1, 2):
        assert (await call(app, "/", token("a:read", "b:read"))).json is True
        assert auth.verified == [token("a:read", "b:read")] * times


async def test_edited_claims_change_no_later_check() -> None:
    """The granted scopes are those of the verification: editing the claims changes nothing."""
    auth = Mine()

    async def escalate(claims: Annotated[dict[str, Any], auth.authenticated()]) -> None:
        claims.update(scope="admin:* items:read", roles=["root"], is_admin=True)

    async def strip(claims: Annotated[dict[str, Any], auth.authenticated()]) -> None:
        claims.clear()

    for dependency in (auth.requires("admin:read"), auth.requires_any("admin:read")):
        answer = await call(guarded_by(Depends(escalate), dependency), "/", token("items:read"))
        assert seen(answer) == missing("admin:read")
        assert (await call(guarded_by(Depends(strip), dependency), "/", token("admin:read"))).status == 200
    for dependency in (auth.requires_role("root"), auth.requires_admin()):
        assert seen(await call(guarded_by(Depends(escalate), dependency), "/", "-")) == FORBIDDEN

    app = FastAPI(dependencies=[Depends(escalate)])

    @app.get("/")
    async def granted(scopes: Annotated[frozenset[str], auth.granted()]) -> list[str]:
        return sorted(scopes)

    assert (await call(app, "/", token("items:read"))).json == ["items:read"]


async def test_a_second_guard_of_a_refused_request() -> None:
    """A refusal that one guard ignores is reported and raised by the guard that does not."""
    reasons: list[str | None] = []
    auth = Mine(on_event=lambda event: reasons.append(event.reason))
    app = guarded_by(auth.optional(ignore_invalid=True), auth.authenticated())
    assert seen(await call(app, "/", "bad")) == REFUSED
    assert (reasons, auth.verified) == (["bad"], ["bad"])
    app = guarded_by(auth.optional(ignore_invalid=True), auth.optional(ignore_invalid=True))
    assert (await call(app, "/", "bad")).status == 200
    assert (reasons, auth.verified) == (["bad"], ["bad", "bad"])


def test_a_guard_lives_as_long_as_the_request() -> None:
    """The scope of every guard is declared, so that FastAPI computes nothing at a request."""
    auth = Mine()
    written = [
        auth.authenticated(),
        auth.optional(),
        auth.optional(ignore_invalid=True),
        auth.requires("a"),
        auth.requires_any("a"),
        auth.requires_role("a"),
        auth.requires_admin(),
        auth.requires_tenant(),
        auth.requires_recent(5),
        auth.granted(),
        auth.user(print),
        auth.allows(print),
        auth.owned(print, owner="by"),
    ]
    assert {guard.scope for guard in written} == {"request"}


async def test_request_state() -> None:
    """After success the request state has the Auth's name and the claims of the last Auth with claims."""
    mine, text = Mine(name="first"), Text(name="second")
    app = FastAPI()

    async def state(request: Request) -> list[Any]:
        return [getattr(request.state, name, None) for name in ("auth_method", "claims")]

    app.add_api_route("/none", state)
    app.add_api_route("/optional", state, dependencies=[mine.optional(ignore_invalid=True)])
    app.add_api_route("/mine", state, dependencies=[mine.authenticated()])
    app.add_api_route("/text", state, dependencies=[text.authenticated()])
    app.add_api_route("/both", state, dependencies=[mine.authenticated(), text.authenticated()])
    claims = {"sub": "ada", "scope": "-"}
    assert (await call(app, "/none", "-")).json == [None, None]
    assert (await call(app, "/optional", "bad")).json == [None, None]
    assert (await call(app, "/mine", "-")).json == ["first", claims]
    assert (await call(app, "/text", "-")).json == ["second", None]
    assert (await call(app, "/both", "-")).json == ["second", claims]


async def test_events() -> None:
    """Each decision is one event, and a callback that fails fails no request."""
    events: list[Event] = []

    def note(event: Event) -> None:
        events.append(event)
        raise OSError

    auth = Mine(name="mine", on_event=note)
    app = guarded_by(auth.requires("a"), auth.requires_any("a"), auth.requires_admin())
    for raw in (token("a"), token("b"), "bad", None):
        await call(app, "/", raw)
    assert events == [
        Event("authenticated", "mine", subject="ada"),
        Event("refused", "mine", 403, "not_admin", subject="ada"),
        Event("authenticated", "mine", subject="ada"),
        Event("refused", "mine", 403, "missing_scope", subject="ada"),
        Event("refused", "mine", 401, "bad"),
        Event("refused", "mine", 401, "missing"),
    ]


async def test_the_log_has_each_decision(caplog: pytest.LogCaptureFixture) -> None:
    """Without a callback the decisions are in the log: passes at debug, refusals at info."""
    app = guarded_by(Mine().authenticated())
    for level, messages in (
        (logging.DEBUG, ["authenticated by auth", "refused by auth: bad (401)", "refused by auth: missing (401)"]),
        (logging.INFO, ["refused by auth: bad (401)", "refused by auth: missing (401)"]),
        (logging.WARNING, []),
    ):
        caplog.clear()
        with caplog.at_level(level, "fastapi_guard"):
            for raw in ("-", "bad", None):
                await call(app, "/", raw)
        assert [record.message for record in caplog.records if record.name == "fastapi_guard"] == messages


# --- overrides -------------------------------------------------------------------------------------------------------


async def test_one_override_reaches_every_guard() -> None:
    """`auth.dependency` is the one key for overrides: of all that requires a credential, with claims from the test."""
    auth = Mine()
    app = FastAPI()
    for path, dependency in {
        "/authenticated": auth.authenticated(),
        "/requires": auth.requires("a"),
        "/any": auth.requires_any("a"),
        "/role": auth.requires_role("x"),
        "/admin": auth.requires_admin(),
        "/granted": auth.granted(),
    }.items():
        app.add_api_route(path, lambda: "passed", dependencies=[dependency])
    app.add_api_route("/optional", lambda: "passed", dependencies=[auth.optional()])
    app.dependency_overrides[auth.dependency] = lambda: {"scope": "a", "roles": ["x"], "is_admin": True}
    for path in ("/authenticated", "/requires", "/any", "/role", "/admin", "/granted"):
        assert (await call(app, path)).status == 200
    # Those that look at the claims look at these; a plain override replaces the scope check of `requires`.
    app.dependency_overrides[auth.dependency] = lambda: {"sub": "ada"}
    statuses = {path: (await call(app, path)).status for path in ("/requires", "/any", "/role", "/admin", "/granted")}
    assert statuses == {"/requires": 200, "/any": 403, "/role": 403, "/admin": 403, "/granted": 200}
    app.dependency_overrides = {auth.optional_dependency: lambda: None}
    assert (await call(app, "/optional", "bad")).status == 200
    assert seen(await call(app, "/authenticated")) == NOT_AUTHENTICATED
    assert auth.verified == []


# --- schemes ---------------------------------------------------------------------------------------------------------


def cookie_scheme(session: str | None = Cookie(default=None)) -> str | None:
    """A sync callable with a cookie."""
    return session


async def header_scheme(x_token: Annotated[str | None, Header()] = None) -> str | None:
    """An async callable with a header."""
    return x_token


@pytest.mark.parametrize(
    ("scheme", "field", "challenge"),
    [
        (None, (b"authorization", b"bearer  abc"), PLAIN),
        (OAuth2PasswordBearer("/token", auto_error=False), (b"authorization", b"Bearer abc"), PLAIN),
        (APIKeyHeader(name="X-Key", auto_error=False), (b"x-key", b"abc"), 'ApiKey realm="api"'),
        (APIKeyScheme("key", "cookie"), (b"cookie", b"key=abc"), 'ApiKey realm="api"'),
        (cookie_scheme, (b"cookie", b"session=abc"), PLAIN),
        (header_scheme, (b"x-token", b"abc"), PLAIN),
    ],
    ids=["bearer", "OAuth2PasswordBearer", "APIKeyHeader", "cookie", "sync callable", "async callable"],
)
async def test_every_scheme_guards_alike(scheme: Any, field: tuple[bytes, bytes], challenge: str) -> None:
    """Whatever carries the credential: passes, refusals, optional guards and scopes are the same."""
    auth = Mine(scheme)
    app = FastAPI()

    @app.get("/")
    async def index(claims: Annotated[dict[str, Any], auth.authenticated()]) -> Any:
        return claims["scope"]

    @app.get("/optional")
    async def optional(claims: Annotated[Any, auth.optional()]) -> bool:
        return claims is not None

    @app.get("/lenient")
    async def lenient(claims: Annotated[Any, auth.optional(ignore_invalid=True)]) -> bool:
        return claims is not None

    for path, dependency in (("/all", auth.requires("abc")), ("/any", auth.requires_any("abc"))):
        app.get(path, dependencies=[dependency])(lambda: "passed")
    assert auth.dependency.is_flat is (scheme not in (cookie_scheme, header_scheme))
    name, value = field
    bad, other = (name, value.replace(b"abc", b"bad")), (name, value.replace(b"abc", b"xyz"))
    assert (await call(app, "/", None, field)).json == "abc"
    assert seen(await call(app)) == (401, {"detail": "Not authenticated"}, [challenge])
    refused = await call(app, "/", None, bad)
    assert (refused.status, refused.json["detail"]) == (401, "The access token is invalid")
    assert refused.challenges == [INVALID if challenge == PLAIN else challenge]
    assert (await call(app, "/optional", None, field)).json is True
    assert (await call(app, "/optional")).json is False
    assert (await call(app, "/optional", None, bad)).status == 401
    assert (await call(app, "/lenient", None, bad)).json is False
    for path in ("/all", "/any"):
        fields = ([field], [other], [])
        assert [(await call(app, path, None, *sent)).status for sent in fields] == [200, 403, 401]


async def test_a_callable_that_gives_no_text() -> None:
    """A callable scheme that returns another type is a mistake, and an empty text counts as no credential."""

    async def scheme(x_token: Annotated[str | None, Header()] = None) -> Any:
        return {"object": object(), "empty": ""}.get(str(x_token), x_token)

    app = giving(Mine(scheme).authenticated())
    assert (await call(app, "/", None, (b"x-token", b"good"))).status == 200
    assert seen(await call(app, "/", None, (b"x-token", b"empty"))) == NOT_AUTHENTICATED
    with pytest.raises(TypeError, match=r"^a scheme returns the credential as str or None, not object$"):
        await call(app, "/", None, (b"x-token", b"object"))


@pytest.mark.parametrize("scheme", [HTTPBearer(auto_error=False), OAuth2PasswordBearer("/token"), 5])
def test_schemes_that_cannot_be_used(scheme: Any) -> None:
    """A scheme that raises by itself, or returns an object, is refused at construction."""
    with pytest.raises(ConfigurationError):
        Mine(scheme)


async def test_a_cookie_from_another_site() -> None:
    """A credential that a browser sends by itself needs proof of its origin, with cookie=True a callable's too."""
    app = FastAPI()
    told = Mine(header_scheme, cookie=True, trusted_origins=["https://app.example"], name="told")
    kept = Mine(cookie_scheme, cookie=False)

    @app.post("/told", dependencies=[told.authenticated()])
    async def told_route() -> None: ...

    @app.post("/kept", dependencies=[kept.authenticated()])
    async def kept_route() -> None: ...

    @app.post("/cookie", dependencies=[Mine(cookie_scheme).authenticated()])
    async def cookie_route() -> None: ...

    with TestClient(app) as client:
        evil, ours = {"Origin": "https://evil.example"}, {"Origin": "https://app.example"}
        refused = client.post("/told", headers={"X-Token": "x", **evil})
        assert (refused.status_code, refused.json()) == (403, {"detail": "Forbidden"})
        assert client.post("/told", headers={"X-Token": "x", **ours}).status_code == 200
        assert client.post("/told", headers={"X-Token": "x"}).status_code == 200
        assert client.post("/cookie", headers={"Cookie": "session=x", **evil}).status_code == 403
        assert client.post("/kept", headers={"Cookie": "session=x", **evil}).status_code == 200


# --- WebSockets ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("configured", [False, True])
def test_websockets(configured: bool) -> None:
    """A WebSocket is accepted with a credential that holds, and refused before it is accepted without one."""
    auth = Mine()
    app = FastAPI()

    @app.websocket("/")
    async def echo(socket: WebSocket, claims: Annotated[dict[str, Any], auth.requires("ws:read")]) -> None:
        await socket.accept()
        await socket.send_json([claims["sub"], socket.state.auth_method])
        await socket.close()

    if configured:
        configure_app(app)
    with TestClient(app) as client:
        good = {"Authorization": f"Bearer {token('ws:read')}"}
        with client.websocket_connect("/", headers=good) as socket:
            assert socket.receive_json() == ["ada", "auth"]
        for headers, status, challenge in (
            ({}, 401, PLAIN),
            ({"Authorization": "Bearer bad"}, 401, INVALID),
            ({"Authorization": "Bearer x"}, 403, missing("ws:read")[2][0]),
        ):
            with pytest.raises(WebSocketDenialResponse) as denied, client.websocket_connect("/", headers=headers):
                pass  # pragma: no cover
            assert denied.value.status_code == status
            assert denied.value.headers["WWW-Authenticate"] == challenge


def test_websockets_with_a_cookie() -> None:
    """A handshake that a browser sends with a cookie needs proof of its origin."""
    auth = Mine(APIKeyScheme("key", "cookie"), trusted_origins=["https://app.example"])
    app = FastAPI()

    @app.websocket("/")
    async def echo(socket: WebSocket, claims: Annotated[Any, auth.optional()]) -> None:
        await socket.accept()
        await socket.send_json(claims and claims["sub"])
        await socket.close()

    with TestClient(app) as client:
        for headers, sub in (
            ({"Cookie": "key=x", "Origin": "https://app.example"}, "ada"),
            ({"Origin": "https://evil.example"}, None),
        ):
            with client.websocket_connect("/", headers=headers) as socket:
                assert socket.receive_json() == sub
        evil = {"Cookie": "key=x", "Origin": "https://evil.example"}
        with pytest.raises(WebSocketDenialResponse) as denied, client.websocket_connect("/", headers=evil):
            pass  # pragma: no cover
        assert denied.value.status_code == 403


# --- handlers of the application -------------------------------------------------------------------------------------


@pytest.mark.parametrize("configured", [False, True])
async def test_own_handlers(configured: bool) -> None:
    """Handlers of the application's own for Unauthorized and Forbidden answer, before and after configure_app."""
    app = guarded_by(Mine().requires("a"))

    @app.exception_handler(Unauthorized)
    @app.exception_handler(Forbidden)
    async def answer(_: Request, error: Unauthorized | Forbidden) -> JSONResponse:
        return JSONResponse({"own": error.reason}, error.status_code, headers=error.headers)

    if configured:
        configure_app(app)
    assert seen(await call(app)) == (401, {"own": "missing"}, [PLAIN])
    assert seen(await call(app, "/", "b")) == (403, {"own": "missing_scope"}, missing("a")[2])


@pytest.mark.parametrize(
    ("guard", "raw", "error", "reason"),
    [
        (lambda auth: auth.authenticated(), None, None, "missing"),
        (lambda auth: auth.authenticated(), "bad", "invalid_token", "bad"),
        (lambda auth: auth.authenticated(), "nothing", "invalid_token", "refused"),
        (lambda auth: auth.authenticated(), "a b", "invalid_request", "two_credentials"),
        (lambda auth: auth.requires("a"), "x", None, "missing_scope"),
        (lambda auth: auth.requires_any("a"), "y", None, "missing_scope"),
        (lambda auth: auth.requires_role("a"), "x", None, "missing_role"),
        (lambda auth: auth.requires_admin(), "x", None, "not_admin"),
        (lambda auth: auth.requires_tenant(), "x", None, "other_tenant"),
        (lambda auth: auth.requires_recent(5), "x", "insufficient_user_authentication", "stale_login"),
        (lambda auth: auth.user(lambda claims: None), "x", "invalid_token", "unknown_user"),
        (lambda auth: auth.allows(lambda claims: False), "x", None, "policy"),
        (lambda auth: auth.owned(lambda: {"by": "eve"}, owner="by"), "x", None, "not_owner"),
    ],
)
async def test_what_a_handler_sees(guard: Any, raw: str | None, error: str | None, reason: str) -> None:
    """A handler of the application finds in a refusal the word that its event has, and the code of its challenge."""

    class Some(Mine):
        async def verify(self, raw: str) -> dict[str, Any]:
            return None if raw == "nothing" else await super().verify(raw)  # type: ignore[return-value]

    events: list[Event] = []
    app = FastAPI()
    app.get("/{tenant}", dependencies=[guard(Some(on_event=events.append))])(lambda: None)

    @app.exception_handler(AuthError)
    async def answer(_: Request, error: AuthError) -> JSONResponse:
        return JSONResponse([getattr(error, "error", None), error.reason], error.status_code)

    found = await call(app, "/acme", raw)
    assert found.json == [error, reason]
    # Whose credential it is, is known where it is valid.
    subject = "ada" if events[0].name == "authenticated" else None
    assert events[-1] == Event("refused", "auth", found.status, reason, subject=subject)
    assert (events[-1].route, events[-1].method, events[-1].client) == ("/{tenant}", "GET", "192.0.2.1")


def test_another_site_is_an_event() -> None:
    """That a cookie came from another site is said in a word of its own."""
    events: list[Event] = []
    auth = Mine(APIKeyScheme("key", "cookie"), on_event=events.append)
    app = FastAPI()
    app.post("/", dependencies=[auth.authenticated()])(lambda: None)
    client = TestClient(app, cookies={"key": "x"})
    assert client.post("/").status_code == 200
    assert client.post("/", headers={"Origin": "https://evil.example"}).status_code == 403
    assert events == [Event("authenticated", "auth", subject="ada"), Event("refused", "auth", 403, "cross_origin")]


async def test_an_unauthorized_of_an_endpoint() -> None:
    """An Unauthorized that an endpoint raises has the challenge of a plain bearer token."""
    app = FastAPI()

    @app.get("/")
    async def index() -> None:
        raise Unauthorized("Incorrect username or password")

    assert seen(await call(app)) == (401, {"detail": "Incorrect username or password"}, [PLAIN])


def test_a_scope_to_decide_about_again() -> None:
    """The copy has no decision and a state of its own, so that a later check writes nothing on the live connection."""
    scope = {"type": "http", "path": "/a", "state": {"claims": 1}, "fastapi_guard.decided": {}}
    assert without_memo(scope) == {"type": "http", "path": "/a", "state": {}}
    assert scope == {"type": "http", "path": "/a", "state": {"claims": 1}, "fastapi_guard.decided": {}}
