"""The cells of a lockfile, as live tests of an application."""

from collections.abc import Mapping
from pathlib import Path
from time import time
from typing import Annotated, Any

import pytest
from fastapi import FastAPI, HTTPException, WebSocket
from fastapi.responses import JSONResponse, PlainTextResponse
from fastapi.testclient import TestClient
from mcp.server.mcpserver import MCPServer
from starlette.middleware.gzip import GZipMiddleware

from fastapi_guard import AnyAuth, APIKeyScheme, ConfigurationError, ScopesAuth
from fastapi_guard.app import guarded
from fastapi_guard.app.lock import authorization_of
from fastapi_guard.app.mcp import guarded_mcp, guarded_tools
from fastapi_guard.app.mcp_tools import server_paths
from fastapi_guard.testing.cells import Caller, Cell, Objects, assert_locked, cells_of

ITEMS = {"1": {"author": "ada"}, "2": {"author": "grace"}, "9": {"author": "alan"}}


class Tokens(ScopesAuth):
    """An Auth with scopes, which no test here sends a credential."""

    name = "tokens"

    async def verify(self, raw: str) -> dict[str, Any]:
        """Accept every credential."""
        raise NotImplementedError  # pragma: no cover


TOKENS = Tokens(roles={"editor": ["items:edit"]})
KEYS = Tokens(APIKeyScheme("X-Key"), name="keys")
EITHER = AnyAuth(TOKENS, KEYS)


async def item(item_id: str) -> dict[str, str] | None:
    """Return an item."""
    return ITEMS.get(item_id)


async def even(claims: dict[str, Any]) -> bool:
    """Let callers with an even name pass."""
    return len(claims["sub"]) % 2 == 0


def application() -> FastAPI:
    """Return an application with a route for each kind of requirement."""
    app = FastAPI(openapi_url=None)
    guards: dict[str, Any] = {
        "/open": None,
        "/optional": TOKENS.optional(),
        "/known": TOKENS.authenticated(),
        "/scope": TOKENS.requires("items:edit"),
        "/any": TOKENS.requires_any("items:edit", "x"),
        "/role": TOKENS.requires_role("editor"),
        "/admin": TOKENS.requires_admin(),
        "/recent": TOKENS.requires_recent(86_400),
        "/otp": TOKENS.requires_factor("otp"),
        "/otp-recent": TOKENS.requires_factor("otp", max_age=86_400),
        "/policy": TOKENS.allows(even),
        "/either": EITHER.requires("items:read"),
        "/by-key": EITHER.authenticated(via=["keys"]),
        "/tenants/{tenant}": TOKENS.requires_tenant(),
        "/items/{item_id}": TOKENS.owned(item, owner="author"),
        "/hidden/{item_id}": TOKENS.owned(item, owner="author", or_scope="items:*", hide=True),
    }
    for path, guard in guards.items():
        app.get(path, dependencies=[] if guard is None else [guard])(lambda: None)

    @app.websocket("/ws")
    async def socket(socket: WebSocket, claims: Annotated[Any, TOKENS.requires("items:edit")]) -> None:
        await socket.accept()

    inner = FastAPI(openapi_url=None)
    inner.get("/known", dependencies=[TOKENS.authenticated()])(lambda: None)
    app.mount("/inner", GZipMiddleware(inner))
    app.mount("/files", guarded(PlainTextResponse("text"), TOKENS.requires("files:read")))

    async def missing(*_: object) -> Any:
        return JSONResponse({}, 404)

    app.add_exception_handler(404, missing)
    return app


NOW = time()
READER = Caller(name="reader", auth=TOKENS, principal={"sub": "ada", "scope": "items:read", "tenant": "acme"})
EDITOR = Caller(
    name="editor",
    auth=TOKENS,
    principal={
        "sub": "grace",
        "role": "editor",
        "scope": "items:*",
        "is_admin": True,
        "auth_time": NOW,
        "amr": ["otp"],
        "factors": {"otp": NOW},
    },
)
ROBOT = Caller(name="robot", auth=KEYS, principal={"sub": "robot", "scope": "items:edit"})
PATHS = {
    "/items/{item_id}": Objects(own={"reader": "/items/1", "editor": "/items/2"}, foreign="/items/9"),
    "/hidden/{item_id}": Objects(own={"reader": "/hidden/1"}, foreign="/hidden/9"),
    "/tenants/{tenant}": Objects(own={"reader": "/tenants/acme"}, foreign="/tenants/other"),
}
OUTCOMES: Mapping[tuple[str, str], Any] = {("reader", "GET /policy"): 403, ("editor", "GET /policy"): 403}


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    """Return the lockfile of the application."""
    file = tmp_path / "authz.lock"
    file.write_text(authorization_of(application()).text)
    return file


def cells(lock: Path, app: FastAPI, *callers: Caller, **options: Any) -> list[Cell]:
    """Return the cells of a lockfile."""
    return cells_of(app, lock, callers, **{"paths": PATHS, "outcomes": OUTCOMES, **options})


EXPECTED = {
    "GET /open": "allowed allowed allowed allowed",
    "GET /optional": "allowed allowed allowed allowed",
    "GET /known": "401 allowed allowed 401",
    "GET /scope": "401 403 allowed 401",
    "GET /any": "401 403 allowed 401",
    "GET /role": "401 403 allowed 401",
    "GET /admin": "401 403 allowed 401",
    "GET /recent": "401 401 allowed 401",
    "GET /otp": "401 401 allowed 401",
    "GET /otp-recent": "401 401 allowed 401",
    "GET /policy": "401 403 403 401",
    "GET /either": "401 allowed allowed allowed",
    "GET /by-key": "401 403 403 allowed",
    "GET /inner/known": "401 allowed allowed 401",
    "MOUNT /files": "401 403 403 401",
    "GET /tenants/{tenant}": "401 403 allowed 403 401",
    "GET /items/{item_id}": "401 403 allowed 403 allowed 401",
    "GET /hidden/{item_id}": "401 404 allowed allowed 401",
    "WEBSOCKET /ws": "401 403 allowed 401",
}


def test_every_cell(lock: Path) -> None:
    """Each caller has the outcome at each way in that the lockfile predicts, and the application agrees."""
    app = application()
    found: dict[str, list[str]] = {}
    with TestClient(app) as client:
        for cell in cells(lock, app, READER, EDITOR, ROBOT):
            cell.check(client)
            found.setdefault(cell.way, []).extend(map(str, cell.expected))
    assert {way: " ".join(outcomes) for way, outcomes in found.items()} == EXPECTED


def test_the_ids_of_cells(lock: Path) -> None:
    """A cell is named by its caller, its way in and its object."""
    found = [str(cell) for cell in cells(lock, application(), READER)]
    assert len(set(found)) == len(found)
    assert {"anonymous: GET /open", "reader: GET /items/{item_id} (own)", "reader: WEBSOCKET /ws"} <= set(found)


def one(lock: Path, app: FastAPI, way: str, caller: Caller) -> Cell:
    """Return the cell of a way in and a caller."""
    (cell,) = [cell for cell in cells(lock, app, caller) if cell.way == way and cell.caller is caller]
    return cell


def lost_guard(app: FastAPI, path: str) -> FastAPI:
    """Return an application like another where one route has lost its guards."""
    changed = FastAPI(openapi_url=None)
    changed.get(path)(lambda: None)
    changed.router.routes += app.router.routes
    return changed


@pytest.mark.parametrize("path", ["/scope", "/recent"])
def test_a_guard_that_is_lost(lock: Path, path: str) -> None:
    """The cells of a route that lost its guard fail, with what was expected."""
    app = lost_guard(application(), path)
    cell = one(lock, app, f"GET {path}", READER)
    with pytest.raises(AssertionError) as raised:
        cell.check(TestClient(app))
    expected = 403 if path == "/scope" else 401
    assert str(raised.value) == f"reader: GET {path}: expected {expected}, and the status is 200"


@pytest.mark.parametrize("status", [404, 429, 500, 503])
def test_a_response_that_is_not_allowed(lock: Path, status: int) -> None:
    """An endpoint that is missing, throttled or fails is not an allowed one; another 4xx is, past the guards."""
    app = application()

    async def failing() -> None:
        raise HTTPException(status)

    outer = FastAPI(openapi_url=None)
    outer.get("/known", dependencies=[TOKENS.authenticated()])(failing)
    with pytest.raises(AssertionError, match=f"expected allowed, and the status is {status}"):
        one(lock, outer, "GET /known", READER).check(TestClient(outer))
    outer = FastAPI(openapi_url=None)
    outer.get("/known", dependencies=[TOKENS.authenticated()])(lambda needed: needed)
    one(lock, outer, "GET /known", READER).check(TestClient(outer))
    assert app is not outer


def test_a_websocket_that_is_closed(lock: Path) -> None:
    """A WebSocket that is closed before it is accepted counts as 403."""
    app = FastAPI(openapi_url=None)

    @app.websocket("/ws")
    async def closing(socket: WebSocket) -> None:
        await socket.close()

    one(lock, app, "WEBSOCKET /ws", READER).check(TestClient(app))
    with pytest.raises(AssertionError, match="expected allowed, and the status is 403"):
        one(lock, app, "WEBSOCKET /ws", EDITOR).check(TestClient(app))


def test_two_requirements_that_fail(tmp_path: Path) -> None:
    """Either status is right where two requirements fail."""
    app = FastAPI(openapi_url=None)
    app.get("/", dependencies=[TOKENS.requires_recent(60), EITHER.requires("x")])(lambda: None)
    file = tmp_path / "authz.lock"
    file.write_text(authorization_of(app).text)
    _, cell = cells_of(app, file, [READER])
    assert cell.expected == {401, 403}
    cell.check(TestClient(app))


def test_what_is_missing(lock: Path) -> None:
    """A path or an outcome that is needed is named, each once."""
    with pytest.raises(ConfigurationError) as raised:
        cells(lock, application(), READER, paths={"/items/{item_id}": "/items/1"}, outcomes={})
    assert str(raised.value) == (
        f"the cells of {lock} need paths['/hidden/{{item_id}}'] as Objects; paths['/items/{{item_id}}'] as Objects;"
        " outcomes[('reader', 'GET /policy')], since policy even decides; paths['/tenants/{tenant}'] as Objects"
    )
    found = cells(lock, application(), READER, outcomes={("*", "GET /policy"): 403})
    assert [cell.expected for cell in found if cell.way == "GET /policy"] == [{403}, {403}]


UNKNOWN = [
    ('rules = ["factor"]', "factor"),
    ('rules = ["owner a or b or c"]', "owner a or b or c"),
    ('rules = ["user load"]', "user load"),
]


@pytest.mark.parametrize(("members", "rule"), UNKNOWN)
def test_a_rule_that_cannot_be_predicted(tmp_path: Path, members: str, rule: str) -> None:
    """A rule that the file alone does not decide needs an outcome."""
    file = tmp_path / "authz.lock"
    file.write_text(f'version = 1\n[ways]\n"GET /" = [{{ auth = "tokens", {members} }}]\n')
    objects = {"/": Objects(own={}, foreign="/")} if rule.startswith("owner") else {}
    with pytest.raises(ConfigurationError, match=f"since {rule} decides"):
        cells(file, application(), READER, paths=objects)


def test_the_lockfile_of_a_test(lock: Path) -> None:
    """`assert_locked` passes while nothing differs, and fails with each difference."""
    assert_locked(application(), lock)
    app = application()
    app.get("/new")(lambda: None)
    with pytest.raises(AssertionError) as raised:
        assert_locked(app, lock)
    assert str(raised.value) == "+ added     GET /new\n      now:    unguarded"


def with_tools(hide: bool, server: Any = None) -> FastAPI:
    """Return an application with an MCP server at /api/mcp, one of whose tools has a guard of its own."""
    items = MCPServer("items")

    @items.tool()
    def delete() -> str:
        return "deleted"

    real = items.streamable_http_app(host="testserver", json_response=True, stateless_http=True)
    tools = {"delete": TOKENS.requires("items:delete")}
    mounted = guarded_mcp(server or real, TOKENS.requires("mcp:use"), tools=tools, hide=hide)
    app = FastAPI(openapi_url=None, lifespan=mounted.lifespan)
    app.get("/known", dependencies=[TOKENS.authenticated()])(lambda: None)
    app.mount("/api", mounted)
    return app


USER = Caller(name="user", auth=TOKENS, principal={"sub": "ada", "scope": "mcp:use"})
DELETER = Caller(name="deleter", auth=TOKENS, principal={"sub": "grace", "scope": "mcp:use items:delete"})


@pytest.mark.parametrize("hide", [False, True])
def test_the_tools_of_an_mcp_server(hide: bool, tmp_path: Path) -> None:
    """Each caller calls each tool that has a guard of its own; a tool that is hidden from the caller is refused."""
    app, lock = with_tools(hide), tmp_path / "authz.lock"
    lock.write_text(authorization_of(app).text)
    found = cells_of(app, lock, [READER, USER, DELETER, ROBOT])
    tools = {str(cell): (cell.path, *cell.expected) for cell in found if "TOOL" in cell.way}
    assert tools == {
        "anonymous: TOOL /api#delete": ("/api/mcp", 401),
        "reader: TOOL /api#delete": ("/api/mcp", 403),
        "user: TOOL /api#delete": ("/api/mcp", 403),
        "deleter: TOOL /api#delete": ("/api/mcp", "allowed"),
        "robot: TOOL /api#delete": ("/api/mcp", 401),
    }
    with TestClient(app) as client:
        for cell in found:
            cell.check(client)
    loosened = with_tools(hide)
    loosened.router.routes[-1].app._inner.tool_guards.clear()  # type: ignore[attr-defined]
    with TestClient(loosened) as client:
        wrong = [cell for cell in cells_of(loosened, lock, [USER]) if cell.caller is USER and "TOOL" in cell.way]
        with pytest.raises(AssertionError, match=r"user: TOOL /api#delete: expected 403, and the status is 200"):
            wrong[0].check(client)


def test_the_tools_of_another_server(tmp_path: Path) -> None:
    """A server whose paths are not known is called where it is mounted, unless a path is given."""
    app, lock = with_tools(False, JSONResponse(["no object"])), tmp_path / "authz.lock"
    lock.write_text(authorization_of(app).text)
    for paths, path in (({}, "/api"), ({"TOOL /api#delete": "/api/rpc"}, "/api/rpc")):
        found = [cell for cell in cells_of(app, lock, [DELETER], paths=paths) if "TOOL" in cell.way]
        assert {cell.path for cell in found} == {path}
        for cell in found:
            cell.check(TestClient(app))
    assert list(server_paths(guarded_tools(PlainTextResponse("a server"), {"delete": TOKENS.requires("a")}))) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lock": "missing.lock"}, "missing.lock cannot be read .* fastapi-guard audit --lock writes"),
        ({"lock": "."}, "cannot be read"),
        ({"lock": None}, "lock is the path of a lockfile, not None"),
        ({"callers": "reader"}, "callers is a list"),
        ({"callers": [TOKENS]}, "callers is a list such as .* not Tokens"),
        ({"paths": ["/items/1"]}, "paths is a mapping"),
        ({"outcomes": [403]}, "outcomes is a mapping"),
    ],
)
def test_arguments_of_another_type(lock: Path, arguments: dict[str, Any], message: str) -> None:
    """A missing file and an argument of another type are errors with a remedy."""
    with pytest.raises(ConfigurationError, match=message):
        cells_of(**{"app": application(), "lock": lock, "callers": [READER], **arguments})


def test_a_lockfile_that_is_missing(tmp_path: Path) -> None:
    """A test of an application whose lockfile was never written names the command that writes it."""
    with pytest.raises(ConfigurationError, match="fastapi-guard audit --lock writes"):
        assert_locked(application(), tmp_path / "authz.lock")
