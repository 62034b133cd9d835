"""The cells of an authorization lockfile: each caller against each way in, as a live test."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from fastapi import FastAPI
from starlette.routing import Mount
from starlette.websockets import WebSocketDisconnect

from fastapi_guard.app.audit import routes_of_app
from fastapi_guard.app.lock import Access, Authorization, auths_of
from fastapi_guard.app.lock_changes import lock_changes
from fastapi_guard.app.mcp_tools import UNKNOWN_TOOL, server_paths
from fastapi_guard.app.routes import UNMATCHED
from fastapi_guard.auth import Auth
from fastapi_guard.exceptions import ConfigurationError
from fastapi_guard.stores.arguments import instance_of, items_of, mapping_of
from fastapi_guard.testing.acting import acting_as
from fastapi_guard.testing.prediction import ObjectKind, Outcome, Prediction, Undecided

ANONYMOUS: Final = "anonymous"
ANY: Final = "*"
_REFUSALS: Final = (401, 403, 404)


class Client(Protocol):
    """The client that sends the requests, such as FastAPI's TestClient."""

    def request(self, method: str, url: str, *, headers: Any = None, json: Any = None) -> Any:
        """Return a response with a ``status_code``, ``headers`` and ``json()``."""

    def websocket_connect(self, url: str) -> Any:
        """Return a context manager of a connected WebSocket."""


@dataclass(frozen=True, kw_only=True)
class Caller:
    """A caller of the tests.

    Attributes:
        name: The name in the ids of the tests.
        auth: The Auth that would verify the caller's credential.
        principal: The principal, a claims dict for most.
    """

    name: str
    auth: Auth[Any]
    principal: Any


@dataclass(frozen=True, kw_only=True)
class Objects:
    """The paths of objects that have owners, or of tenants.

    Attributes:
        own: The path of an object that belongs to a caller, by the name of the caller.
        foreign: The path of an object that belongs to no caller of the tests.
    """

    own: Mapping[str, str]
    foreign: str


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One caller against one way in, with the outcome that the lockfile predicts.

    Attributes:
        app: The application.
        caller: The caller, ``None`` for an anonymous one.
        way: The way in, such as ``GET /items/{item_id}``.
        path: The path of the request.
        object: "own" or "foreign" where the way in has owners or tenants, otherwise empty.
        expected: The outcomes that are right: more than one where two requirements fail with different statuses.
        message: What is sent to an MCP server, otherwise ``None``.
    """

    app: FastAPI
    caller: Caller | None
    way: str
    path: str
    object: ObjectKind
    expected: frozenset[Outcome]
    message: Mapping[str, Any] | None = None

    def check(self, client: Client) -> None:
        """Send the request as the caller, and compare the response.

        The endpoint runs where the caller is allowed: any status counts as allowed but 401, 403, 404, 429 and 5xx. A
        tool of an MCP server is called without a session; one that is hidden from the caller counts as 403.

        Args:
            client: A client of the application, fresh for each cell where endpoints change something.

        Raises:
            AssertionError: The response is not the expected one.
        """
        with ExitStack() as stack:
            if self.caller is not None:
                for app in _applications(self.app):
                    stack.enter_context(acting_as(app, self.caller.auth, self.caller.principal))
            if self.message is None:
                status = _status_of(client, self.way.partition(" ")[0], self.path)
            else:
                status = _status_of_message(client, self.message, self.path)
        expected = " or ".join(sorted(map(str, self.expected)))
        if _outcome(status) not in self.expected:
            msg = f"{self}: expected {expected}, and the status is {status}"
            raise AssertionError(msg)

    def __str__(self) -> str:
        """Return the id of the test."""
        name = ANONYMOUS if self.caller is None else self.caller.name
        return f"{name}: {self.way}" + (f" ({self.object})" if self.object else "")


def assert_locked(app: FastAPI, lock: str | Path) -> None:
    """Raise unless ``app`` requires what its lockfile contains: for a test of the application.

    Raises:
        AssertionError: It differs; each difference is in the message.
        ConfigurationError: There is no such file, or it is not a lockfile.
    """
    changes = lock_changes(app, _text_of(lock))
    if changes:
        raise AssertionError("\n".join(map(str, changes)))


def cells_of(
    app: FastAPI,
    lock: str | Path,
    callers: Sequence[Caller],
    *,
    paths: Mapping[str, str | Objects] | None = None,
    outcomes: Mapping[tuple[str, str], Outcome] | None = None,
) -> list[Cell]:
    """Return a cell for each caller, the anonymous one included, and each way in of a lockfile.

    Args:
        app: The application under test.
        lock: The lockfile of ``fastapi-guard audit --lock``.
        callers: The callers beside the anonymous one.
        paths: A path for each template with parameters, such as ``{"/items/{item_id}": "/items/7"}``; Objects where
            the way in has an owner or a tenant. For a tool such as ``TOOL /mcp#delete``, the path of a server that is
            not one of the official SDK or of FastMCP.
        outcomes: The outcome of (caller, way) where a policy or a loader of the application decides, or where the
            endpoint itself responds with 401, 403 or 404; the caller ``*`` is every caller.

    Raises:
        ConfigurationError: A path or an outcome is missing, an argument has the wrong type, there is no such file, or
            it is not a lockfile.
    """
    authorization = Authorization.parse(_text_of(lock))
    listed = items_of("callers", callers, 'such as [Caller(name="ada", auth=auth, principal={...})]')
    for caller in listed:
        instance_of("callers", caller, Caller, 'a list such as [Caller(name="ada", auth=auth, principal={...})]')
    named = mapping_of("paths", paths or {}, '{"/items/{item_id}": "/items/7"}')
    fixed = instance_of("outcomes", outcomes or {}, Mapping, 'a mapping such as {("ada", "GET /items/7"): 403}')
    table = _Table(app, listed, named, fixed)
    cells = [cell for way, access in authorization.ways.items() for cell in table.cells(way, access)]
    if table.missing:
        msg = f"the cells of {lock} need {'; '.join(dict.fromkeys(table.missing))}"
        raise ConfigurationError(msg)
    return cells


def _text_of(lock: str | Path) -> str:
    path = Path(instance_of("lock", lock, (str, Path), "the path of a lockfile"))
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        msg = f"lock: {path} cannot be read ({error.strerror}); fastapi-guard audit --lock writes a lockfile"
        raise ConfigurationError(msg) from None


class _Table:
    """The callers and the paths of the tests, and the arguments that are missing for a cell.

    Attributes:
        missing: The arguments of ``cells_of`` that are missing, each in words.
    """

    def __init__(
        self,
        app: FastAPI,
        callers: Sequence[Caller],
        paths: Mapping[str, str | Objects],
        outcomes: Mapping[tuple[str, str], Outcome],
    ) -> None:
        self._app = app
        self._callers: tuple[Caller | None, ...] = (None, *callers)
        self._paths = paths
        self._outcomes = outcomes
        self._servers = tuple(server_paths(app))
        self._prediction = Prediction(auths_of(routes_of_app(app).ways))
        self.missing: list[str] = []

    def cells(self, way: str, access: Access) -> Iterator[Cell]:
        """Yield the cells of one way in."""
        template = way.partition(" ")[2].partition(" #")[0]
        if template.endswith(UNMATCHED):
            return  # the handler of 404 has no outcome of its own
        if way.startswith("TOOL "):
            mount = template.partition("#")[0]
            template, given = way, self._paths.get(way, next(filter(_below(mount), self._servers), mount))
        else:
            given = self._paths.get(template, template)
        has_owner = any(rule.startswith(("owner ", "tenant ")) for one in access.requirements for rule in one.rules)
        if "{" in (given if isinstance(given, str) else given.foreign) or (has_owner and isinstance(given, str)):
            self.missing.append(f"paths[{template!r}]" + (" as Objects" if has_owner else ""))
            return
        for caller in self._callers:
            if isinstance(given, str):
                yield from self._cell(caller, way, access, given, "")
                continue
            yield from self._cell(caller, way, access, given.foreign, "foreign")
            own = None if caller is None else given.own.get(caller.name)
            if own is not None:
                yield from self._cell(caller, way, access, own, "own")

    def _cell(self, caller: Caller | None, way: str, access: Access, path: str, kind: ObjectKind) -> Iterator[Cell]:
        name = ANONYMOUS if caller is None else caller.name
        outcome = self._outcomes.get((name, way), self._outcomes.get((ANY, way)))
        who = None if caller is None else (caller.auth, caller.principal)
        try:
            expected = self._prediction.of(who, access, kind) if outcome is None else frozenset({outcome})
        except Undecided as rule:
            self.missing.append(f"outcomes[{(name, way)!r}], since {rule} decides")
            return
        message = _message_to(way, path, self._servers)
        yield Cell(app=self._app, caller=caller, way=way, path=path, object=kind, expected=expected, message=message)


def _applications(app: Any) -> Iterator[FastAPI]:
    while not isinstance(app, FastAPI) and hasattr(app, "app"):
        app = app.app
    if isinstance(app, FastAPI):
        yield app
        for route in app.routes:
            if isinstance(route, Mount):
                yield from _applications(route.app)


def _below(mount: str) -> Callable[[str], bool]:
    return lambda path: path == mount or path.startswith(mount.rstrip("/") + "/")


def _message_to(way: str, path: str, servers: Collection[str]) -> Mapping[str, Any] | None:
    # A server that is requested with GET sends events without end.
    if way.startswith("TOOL "):
        return {"method": "tools/call", "params": {"name": way.partition("#")[2], "arguments": {}}}
    return {"method": "ping"} if path in servers else None


def _status_of(client: Client, method: str, path: str) -> int:
    if method != "WEBSOCKET":
        response = client.request("GET" if method in ("ANY", "MOUNT") else method, path)
        return int(response.status_code)
    try:
        with client.websocket_connect(path):
            return 101
    except WebSocketDisconnect as refusal:
        # A TestClient adds the status of a denial response, whose class cannot be imported without an HTTP client.
        return int(getattr(refusal, "status_code", 403))  # 403: closed before it was accepted


def _status_of_message(client: Client, message: Mapping[str, Any], path: str) -> int:
    accept = {"Accept": "application/json, text/event-stream"}
    response = client.request("POST", path, headers=accept, json={"jsonrpc": "2.0", "id": 1, **message})
    if response.status_code == 200 and response.headers.get("content-type") == "application/json":
        found = response.json()
        error = found.get("error") if isinstance(found, dict) else None
        if isinstance(error, dict) and error.get("code") == UNKNOWN_TOOL:
            return 403
    return int(response.status_code)


def _outcome(status: int) -> object:
    if status == 429 or status >= 500:
        return status
    return status if status in _REFUSALS else "allowed"
