"""explain: the guards of one request, each check with its result."""

from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Cookie, Depends, FastAPI, HTTPException, Request, WebSocket
from fastapi.responses import PlainTextResponse
from fastapi.testclient import TestClient
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.sessions import SessionMiddleware

from fastapi_guard import AnyAuth, APIKeyScheme, Auth, ConfigurationError, ScopesAuth, ServiceUnavailable, Unauthorized
from fastapi_guard.app import guarded
from fastapi_guard.app.explain import explain
from fastapi_guard.app.explanation import Check, Explanation, GrantSource
from fastapi_guard.app.presented import Presented
from fastapi_guard.login.session import StarletteSessionScheme
from support.asgi import endpoint

CLAIMS: dict[str, Any] = {
    "reader": {"sub": "ada", "iss": "https://issuer.example", "scope": "items:read"},
    "editor": {"sub": "grace", "roles": ["editor", "unknown"], "scp": ["a"], "is_admin": True},
    "key": {"sub": "robot", "key_id": "0123", "scope": "items:edit"},
    "odd": {"sub": 5},
}


class Tokens(ScopesAuth):
    """An Auth whose credentials are names."""

    name = "tokens"

    async def verify(self, raw: str) -> dict[str, Any]:
        """Return the claims of a credential."""
        if raw == "crash":
            raise RuntimeError
        if raw == "down":
            raise ServiceUnavailable(reason="keys_unreachable")
        if raw not in CLAIMS:
            raise Unauthorized(error="invalid_token", reason="bad_signature")
        return dict(CLAIMS[raw])


class Keys(Tokens):
    """An Auth of keys, which recognises their form."""

    name = "keys"

    def recognises(self, raw: str) -> bool:
        """Return whether it looks like a key."""
        return raw.startswith("key")


class Custom(Tokens):
    """An Auth that grants what no claim has."""

    name = "custom"

    def grants_of(self, principal: dict[str, Any]) -> Any:
        """Grant a scope of its own."""
        return super().grants_of(principal)._replace(scopes=frozenset({"own"}))


TOKENS = Tokens(roles={"editor": ["items:edit"], "all": ["*"]})
KEYS = Keys(APIKeyScheme("X-Key"))
QUERY = Keys(APIKeyScheme("key", "query"), name="query")
SESSION = Tokens(APIKeyScheme("sid", "cookie"), name="session")
EITHER = AnyAuth(TOKENS, KEYS)
PRESENT = Auth(APIKeyScheme("X-Any"), name="present")


def cookie_scheme(session: Annotated[str | None, Cookie()] = None) -> str | None:
    """Return the cookie."""
    return session


CALLABLE = Tokens(cookie_scheme, name="callable")


async def item(item_id: int) -> dict[str, str] | None:
    """Return an item."""
    return {1: {"author": "ada"}, 2: {"author": "x"}}.get(item_id)


async def even(claims: dict[str, Any]) -> bool:
    """Let callers with an even name pass."""
    if claims["sub"] == "grace":
        raise RuntimeError("secret text")
    return len(claims["sub"]) % 2 == 0


async def own_item(claims: Annotated[Any, TOKENS.requires("x")]) -> dict[str, str]:
    """Return an item of its own, to callers with another scope."""
    return {"author": "ada"}  # pragma: no cover


async def admin_item(claims: Annotated[Any, TOKENS.requires_admin()]) -> dict[str, str]:
    """Return an item of another caller, to administrators."""
    return {"author": "x"}


async def optional_item(claims: Annotated[Any, KEYS.optional()]) -> dict[str, str]:
    """Return an item of another caller."""
    return {"author": "x"}


async def closing(socket: WebSocket, claims: dict[str, Any]) -> bool:
    """Close a WebSocket, and refuse it."""
    await socket.close()
    return False


async def reading(request: Request, claims: dict[str, Any]) -> bool:
    """Let requests without a body pass."""
    return not await request.body()


async def raising(claims: dict[str, Any]) -> bool:
    """Refuse by an error of the application's own."""
    raise HTTPException(418)


async def missing(*_: object) -> PlainTextResponse:
    """Respond where no route matches."""
    return PlainTextResponse("missing", 404)


def application() -> FastAPI:
    """Return an application with a route for each kind of guard."""
    app = FastAPI(openapi_url=None, dependencies=[])
    guards: dict[str, Any] = {
        "/open": [],
        "/optional": [TOKENS.optional()],
        "/lenient": [TOKENS.optional(ignore_invalid=True)],
        "/read": [TOKENS.requires("items:read")],
        "/edit": [TOKENS.requires("items:read", "items:edit")],
        "/two": [TOKENS.requires("x:read", "y:read")],
        "/any": [TOKENS.requires_any("items:edit", "x")],
        "/admin": [TOKENS.requires_admin()],
        "/policy": [TOKENS.allows(even)],
        "/nested": [TOKENS.owned(own_item, "items:read", owner="author")],
        "/inner": [TOKENS.owned(admin_item, owner="author")],
        "/mixed": [TOKENS.owned(optional_item, owner="author")],
        "/reading": [TOKENS.allows(reading)],
        "/raising": [TOKENS.allows(raising)],
        "/scoped": [TOKENS.allows(even, "x")],
        "/items/{item_id:int}": [TOKENS.owned(item, "items:read", owner="author")],
        "/bad/{item_id}": [TOKENS.owned(item, owner="author")],
        "/either": [EITHER.requires("items:read")],
        "/by-key": [EITHER.authenticated(via=["keys"])],
        "/query": [QUERY.authenticated()],
        "/session": [SESSION.authenticated()],
        "/custom": [Custom().requires("own", "x")],
        "/callable": [CALLABLE.authenticated()],
        "/present": [PRESENT.authenticated()],
        "/first": [Depends(endpoint), TOKENS.requires("items:read"), TOKENS.requires("items:read")],
    }
    for path, dependencies in guards.items():
        app.get(path, dependencies=dependencies)(endpoint)
    app.post("/session", dependencies=[SESSION.authenticated()])(endpoint)

    @app.websocket("/ws")
    async def socket(socket: WebSocket, claims: Annotated[Any, TOKENS.requires("items:read")]) -> None: ...

    @app.websocket("/closing")
    async def closed(socket: WebSocket, claims: Annotated[Any, TOKENS.allows(closing)]) -> None: ...

    router = APIRouter(prefix="/router", dependencies=[TOKENS.requires("items:read")])
    router.get("/{name}")(endpoint)
    app.include_router(router)
    app.mount("/files", guarded(PlainTextResponse("text"), TOKENS.requires("items:read")))
    app.add_exception_handler(404, missing)
    return app


APP = application()


async def explained(path: str, token: str | None = None, *, method: str = "GET", **options: Any) -> Explanation:
    """Return the explanation of a request."""
    return await explain(APP, Presented(method=method, path=path, token=token, **options))


def results(found: Explanation) -> list[tuple[str, bool | None, int | None, str | None]]:
    """Return the checks in short."""
    return [(check.requirement, check.passed, check.status, check.reason) for check in found.checks]


PASSED = ("a credential", True, None, None)
SCOPE = ("scope items:read", True, None, None)
NOT_REACHED = (None, None, "not reached")
ANONYMOUS = ("a credential", False, 401, "missing")
NOT_OWNER = ("owner author", False, 403, "not_owner")
MISSING = (403, "missing_scope")
CASES: list[Any] = [
    ("/open", None, True, []),
    ("/optional", None, True, [("a credential, optional", True, None, None)]),
    ("/optional", "bad", False, [("a credential", False, 401, "bad_signature")]),
    ("/lenient", "bad", True, [("a credential, optional", True, None, None)]),
    ("/read", None, False, [("a credential", False, 401, "missing")]),
    ("/read", "bad", False, [("a credential", False, 401, "bad_signature")]),
    ("/read", "down", False, [("a credential", False, 503, "keys_unreachable")]),
    ("/read", "reader", True, [PASSED, SCOPE]),
    ("/edit", "reader", False, [PASSED, SCOPE, ("scope items:edit", False, *MISSING)]),
    ("/edit", "editor", True, [PASSED, SCOPE, ("scope items:edit", True, None, None)]),
    ("/two", "reader", False, [PASSED, ("scope x:read", False, *MISSING), ("scope y:read", False, *MISSING)]),
    ("/any", "reader", False, [PASSED, ("any of items:edit, x", False, *MISSING)]),
    ("/any", "editor", True, [PASSED, ("any of items:edit, x", True, None, None)]),
    ("/admin", "reader", False, [PASSED, ("admin", False, 403, "not_admin")]),
    ("/policy", "reader", False, [PASSED, ("policy even", False, 403, "policy")]),
    ("/policy", "editor", None, [PASSED, ("policy even", None, None, "it failed with RuntimeError")]),
    ("/items/1", "reader", True, [PASSED, SCOPE, ("owner author", True, None, None)]),
    ("/items/2", "reader", False, [PASSED, SCOPE, ("owner author", False, 403, "not_owner")]),
    ("/items/3", "reader", False, [PASSED, SCOPE, ("owner author", False, 404, "not_found")]),
    ("/bad/x", "reader", None, [PASSED, ("owner author", None, None, "the request has no valid path.item_id")]),
    ("/bad/x", None, False, [ANONYMOUS, ("owner author", *NOT_REACHED)]),
    ("/read", "crash", None, [("a credential", None, None, "it failed with RuntimeError")]),
    ("/mixed", "reader", False, [PASSED, ("a credential, optional", True, None, None), NOT_OWNER]),
    ("/either", "reader", True, [PASSED, SCOPE]),
    ("/by-key", "reader", False, [("a credential", False, 403, "other_credential")]),
    ("/first", "reader", True, [PASSED, SCOPE]),
    ("/router/a", "reader", True, [PASSED, SCOPE]),
    ("/files/a/b", None, False, [("a credential", False, 401, "missing")]),
    ("/files", "reader", True, [PASSED, SCOPE]),
    ("/nested", "reader", False, [PASSED, SCOPE, ("scope x", False, *MISSING), ("owner author", *NOT_REACHED)]),
    (
        "/nested",
        None,
        False,
        [("a credential", False, 401, "missing"), ("scope x", *NOT_REACHED), ("owner author", *NOT_REACHED)],
    ),
    ("/inner", "reader", False, [PASSED, ("admin", False, 403, "not_admin"), ("owner author", *NOT_REACHED)]),
    ("/inner", "editor", False, [PASSED, ("admin", True, None, None), ("owner author", False, 403, "not_owner")]),
    ("/raising", "reader", False, [PASSED, ("policy raising", False, 418, "refused")]),
    ("/reading", "reader", True, [PASSED, ("policy reading", True, None, None)]),
    ("/scoped", "reader", False, [PASSED, ("scope x", False, *MISSING), ("policy even", *NOT_REACHED)]),
    ("/callable", None, False, [("a credential", False, 401, "missing")]),
]


@pytest.mark.parametrize(("path", "token", "allowed", "expected"), CASES, ids=range(len(CASES)))
async def test_checks(path: str, token: str | None, allowed: bool | None, expected: list[Any]) -> None:
    """Each check has its result; the first that refuses has the status of the response."""
    found = await explained(path, token)
    assert (found.allowed, results(found)) == (allowed, expected)
    assert found.status == next((status for _, passed, status, _ in expected if passed is False), None)


async def test_the_decision_is_that_of_a_request() -> None:
    """The status of an explanation is the status that a client receives."""
    from support.asgi import call  # noqa: PLC0415 - beside its one use

    for path, token, allowed, _ in CASES:
        if allowed is None or path.startswith("/bad") or path == "/files":
            continue
        found = await explained(path, token)
        answer = await call(APP, path, token)
        assert answer.status == (200 if allowed else found.status)


async def test_credentials() -> None:
    """Each Auth has the place where it looks, what it found and what it decided, without the credential."""
    found = await explained("/either", "reader", headers=[("X-Key", "other")])
    assert [str(credential) for credential in found.credentials] == [
        "tokens (Authorization: Bearer): verified, sub ada, iss https://issuer.example",
        "keys (header X-Key): refused: unrecognised",
    ]
    found = await explained("/either", key="key")
    assert [str(credential) for credential in found.credentials] == [
        "tokens (Authorization: Bearer): nothing found",
        "keys (header X-Key): verified, sub robot, key 0123",
    ]
    found = await explained("/by-key", "reader", key="key-bad")
    assert [str(credential) for credential in found.credentials] == ["keys (header X-Key): refused: bad_signature"]
    found = await explained("/either", "bad", key="key")
    assert [credential.outcome for credential in found.credentials] == ["refused", "verified"]
    found = await explained("/either", "reader", key="key")
    assert [credential.outcome for credential in found.credentials] == ["verified", "not asked"]
    found = await explained("/read", "reader", headers=[("Authorization", "Bearer reader")])
    assert [str(credential) for credential in found.credentials] == [
        "tokens (Authorization: Bearer): refused: two_credentials"
    ]
    found = await explained("/present", key="x")
    assert [str(credential) for credential in found.credentials] == ["present (header X-Any): verified"]
    found = await explained("/read", "odd")
    assert [str(credential) for credential in found.credentials] == ["tokens (Authorization: Bearer): verified"]


async def test_where_a_credential_is_put() -> None:
    """A key and a cookie go where the first scheme of the route reads one; a bearer scheme reads a key too."""
    assert (await explained("/query?a=1", key="key")).allowed
    assert (await explained("/query", key="key")).allowed
    assert (await explained("/read", key="reader")).allowed
    assert (await explained("/session", cookie="reader")).allowed
    assert (await explained("/session", cookie="reader", method="post")).allowed
    assert (await explained("/callable", headers=[("Cookie", "session=reader")])).allowed
    assert (await explained("/ws", "reader", method="WEBSOCKET")).allowed
    assert (await explained("/closing", "reader", method="WEBSOCKET")).status == 403
    assert (await explained("/read", "reader", method="HEAD")).allowed
    assert (await explained("/read", "reader")).as_dict()["checks"][0] == {
        "auth": "tokens",
        "requirement": "a credential",
        "passed": True,
        "status": None,
        "reason": None,
    }
    with pytest.raises(ConfigurationError, match="no Auth of this route reads a cookie"):
        await explained("/read", cookie="x")
    with pytest.raises(ConfigurationError, match="no Auth of this route reads an API key"):
        await explained("/session", key="x")


class Forwarding:
    """Middleware of the application's own, which explain does not run."""

    def __init__(self, app: Any) -> None:
        """Forward to `app`."""
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Forward."""
        await self.app(scope, receive, send)


class Sessions(SessionMiddleware):
    """A SessionMiddleware of the application's own."""


def with_sessions(inner: FastAPI, kind: str) -> FastAPI:
    """Return an application with Starlette's session in one of several ways, and `inner` at /here."""
    sessions: dict[str, Any] = {"secret_key": "a key of a test", "https_only": True}
    mounted: Any = inner
    if kind == "mounted":
        inner.add_middleware(Forwarding)
        inner.add_middleware(Sessions, **sessions)
    elif kind == "wrapped":
        mounted = GZipMiddleware(SessionMiddleware(inner, **sessions))
    elif kind == "guarded":
        mounted = guarded(inner, TOKENS.optional())
    outer = FastAPI()
    outer.mount("/other", PlainTextResponse("other"))
    outer.mount("/here", mounted)
    if kind in ("around", "guarded"):
        outer.add_middleware(SessionMiddleware, **sessions)
    return outer


@pytest.mark.parametrize("kind", ["mounted", "wrapped", "around", "guarded"])
async def test_the_session_of_starlette(kind: str) -> None:
    """An application whose Auth reads Starlette's session is explained with the cookie that a browser has."""
    auth = Tokens(StarletteSessionScheme("user"))
    inner = FastAPI()

    @inner.get("/login")
    async def login(request: Request) -> None:
        request.session["user"] = "reader"

    inner.get("/me", dependencies=[auth.requires("items:read")])(endpoint)
    app = with_sessions(inner, kind)
    browser = TestClient(app, base_url="https://api.example")
    browser.get("/here/login")
    cookie = browser.cookies["session"]
    found = await explain(app, Presented(method="GET", path="/here/me", cookie=cookie))
    assert (found.allowed, results(found)[-2:]) == (True, [PASSED, SCOPE])
    shown = "tokens (cookie session): verified, sub ada, iss https://issuer.example"
    assert str(found.credentials[-1]) == shown
    for other in (None, f"forged.{cookie}"):
        found = await explain(app, Presented(method="GET", path="/here/me", cookie=other))
        assert (found.allowed, found.status) == (False, 401)
    assert (await explain(app, Presented(method="GET", path="/other/x"))).allowed


async def test_a_session_that_is_missing() -> None:
    """A session of another middleware is not there, and the report contains why nothing could be decided."""
    app = FastAPI()
    app.get("/me", dependencies=[Tokens(StarletteSessionScheme("user")).authenticated()])(endpoint)
    found = await explain(app, Presented(method="GET", path="/me", cookie="x"))
    reason = "request.session is missing: of all middleware, explain runs Starlette's SessionMiddleware alone"
    assert (found.allowed, results(found)) == (None, [("a credential", None, None, reason)])
    assert f"not decided tokens: a credential ({reason})" in str(found)


async def test_where_grants_come_from() -> None:
    """Each granted scope and role has the claim, role, key or method that it comes from."""
    found = await explained("/edit", "editor")
    assert [(grant.grant, grant.source) for grant in found.grants] == [
        ("a", "claim scp"),
        ("role editor", "claim roles"),
        ("items:edit", "role editor"),
        ("role unknown", "claim roles"),
        ("administrator", "claim is_admin"),
    ]
    found = await explained("/either", key="key")
    assert [(grant.auth, grant.grant, grant.source) for grant in found.grants] == [("keys", "items:edit", "key 0123")]
    found = await explained("/custom", "reader")
    assert [(grant.grant, grant.source) for grant in found.grants] == [("own", "Custom.grants_of")]
    assert (await explained("/present", key="x")).grants == ()


NEEDED: list[Any] = [
    ("/read", "reader", ()),
    ("/read", None, ("a valid credential of tokens (Authorization: Bearer)",)),
    ("/either", None, ("a valid credential of tokens (Authorization: Bearer) or keys (header X-Key)",)),
    ("/edit", "reader", ("the scope items:edit, or the role all or editor",)),
    ("/edit", "odd", ("the scope items:edit, or the role all or editor",)),
    ("/two", "reader", ("the scopes x:read, y:read, or the role all",)),
    ("/any", "reader", ("any of items:edit, x",)),
    ("/custom", "reader", ("the scope x",)),
    ("/items/2", "reader", ("owner author",)),
    ("/items/3", "reader", ("an object that exists, and owner author",)),
    ("/callable", None, ("a valid credential of callable (callable cookie_scheme)",)),
]


@pytest.mark.parametrize(("path", "token", "needed"), NEEDED, ids=range(len(NEEDED)))
async def test_the_smallest_grant(path: str, token: str | None, needed: tuple[str, ...]) -> None:
    """The smallest grant that would do: scopes that the missing ones cover are left out, roles are named."""
    assert (await explained(path, token)).needed == needed


async def test_no_route() -> None:
    """A path without a route is a 404, another method a 405; the handler of 404 is a way in of its own."""
    bare = FastAPI(openapi_url=None)
    bare.get("/a")(endpoint)
    found = await explain(bare, Presented(method="GET", path="/b"))
    assert (found.route, found.allowed, found.status, str(found)) == (None, False, 404, "GET /b: no route (404)")
    assert (await explain(bare, Presented(method="POST", path="/a"))).status == 405
    assert (await explained("/nothing/here")).route == "/{unmatched:path}"


async def test_a_report() -> None:
    """The report has the verdict, the credentials, the checks, the grants and what is needed."""
    assert str(await explained("/edit", "reader")) == (
        "GET /edit: refused (403)\n"
        "credentials:\n"
        "  tokens (Authorization: Bearer): verified, sub ada, iss https://issuer.example\n"
        "checks:\n"
        "  passed      tokens: a credential\n"
        "  passed      tokens: scope items:read\n"
        "  REFUSED     tokens: scope items:edit (403 missing_scope)\n"
        "granted:\n"
        "  items:read from claim scope (tokens)\n"
        "needed:\n"
        "  the scope items:edit, or the role all or editor"
    )
    assert str(await explained("/open")) == "GET /open: allowed"
    assert str(await explained("/policy", "editor")).startswith("GET /policy: not decided\n")
    assert str(Check(auth="a", requirement="b", passed=None)) == "not decided a: b"


async def test_no_secret() -> None:
    """Neither a report nor a repr has the credential, or the text of an error of the application."""
    found = await explained("/policy", "editor")
    assert "secret text" not in repr(found) + str(found)
    presented = Presented(method="GET", path="/", token="s1", key="s2", cookie="s3", headers=[("a", "s4")])
    assert repr(presented) == "Presented(method='GET', path='/')"


def test_lines_of_a_report() -> None:
    """A text of a credential cannot add a line to the report."""
    grant = GrantSource(auth="jwt", grant="role x\nneeded:", source="claim roles")
    found = Explanation(method="GET", path="/", route="/", allowed=True, grants=(grant,))
    assert str(found).splitlines()[-1] == r"  role x\nneeded: from claim roles (jwt)"
