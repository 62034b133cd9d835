"""Attacks on tickets, open connections, mounts, batches of requests and MCP servers."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from starlette.websockets import WebSocketDisconnect

from fastapi_guard.testing.site import (
    ELSEWHERE,
    Attacks,
    Client,
    Site,
    bearer_of,
    cookies_field,
    require,
    require_refused,
    require_success,
)

FOUND: Final[Attacks] = Attacks()

_CONNECTS: Final = "a user who is logged in cannot open a connection"
_PAUSE_SECONDS: Final = 0.005
_HIJACKING: Final = "RFC 6455 10.2"
_LASTS: Final = "OWASP ASVS 7.4.1"
_ACCEPT: Final = {"Accept": "application/json, text/event-stream"}
_INITIALIZE: Final[Mapping[str, Any]] = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "attack", "version": "1"},
    },
}
_LIST: Final[Mapping[str, Any]] = {"jsonrpc": "2.0", "id": 2, "method": "tools/list"}
_STARTED: Final[Mapping[str, Any]] = {"jsonrpc": "2.0", "method": "notifications/initialized"}


@FOUND.add("tickets", "use a ticket twice, or for another path", "RFC 6750 2.3")
def _tickets(site: Site) -> None:
    client, used = site.client(), site.part("ticket")()
    require(client.request("GET", used).status_code < 400, "a ticket does not work")
    require_refused(client.request("GET", used), "a ticket that was used before")
    path, _, query = site.part("ticket")().partition("?")
    require_refused(client.request("GET", path), "a request without a ticket")
    require_refused(client.request("GET", f"{path}?{query}&{query}"), "two tickets")
    path, _, query = site.part("ticket")().partition("?")
    for other in (site.guarded, f"{path}/other"):
        require_refused(client.request("GET", f"{other}?{query}"), "a ticket for another path")
    path, _, query = site.part("ticket")().partition("?")
    for changed in (query[:-1], query.swapcase(), f"{query}x", f"{query}%00"):
        require_refused(client.request("GET", f"{path}?{changed}"), "a changed ticket")


@FOUND.add("tickets", "use a ticket of a user who has logged out since", "OWASP ASVS 7.4.1")
def _late_ticket(site: Site) -> None:
    opened = site.client().request("GET", site.part("ticket")())
    require_success(opened, "a ticket does not work")
    refused = site.client().request("GET", site.part("late_ticket")())
    require_refused(refused, "a ticket of a user who has logged out")


@FOUND.add("connections", "open a connection without a credential, or from a page of another site", _HIJACKING)
def _hijacked(site: Site) -> None:
    client = site.client()
    headers = _headers(client, site.log_in(client))
    require(_opens(site, headers), _CONNECTS)
    require(not _opens(site, {}), "a connection is opened without a credential")
    if "Cookie" in headers:
        page = {"Origin": ELSEWHERE, "Sec-Fetch-Site": "cross-site"}
        require(not _opens(site, {**headers, **page}), "a page of another site opens a connection")


@FOUND.add("connections", "keep a connection over a logout", _LASTS)
def _kept_over_logout(site: Site) -> None:
    client = site.client()
    begun = site.log_in(client)
    headers = _headers(client, begun)
    require(_opens(site, headers), _CONNECTS)
    with _connected(site, headers) as is_alive:
        require(is_alive(), "a connection does not respond")
        require_success(site.log_out(client, begun), "a logout is not possible")
        require(_ends(site, is_alive), "a connection is open after the logout of its user")


@FOUND.add("connections", "keep a connection after the right that it needs was lost", "OWASP ASVS 8.3.2")
def _kept_without_right(site: Site) -> None:
    client = site.client()
    headers = _headers(client, site.log_in(client))
    require(_opens(site, headers), _CONNECTS)
    with _connected(site, headers) as is_alive:
        require(is_alive(), "a connection does not respond")
        site.part("demote")()
        require(not _opens(site, headers), "a connection is opened without the right that it needs")
        require(_ends(site, is_alive), "a connection is open after its user has lost the right that it needs")


@FOUND.add("mounts", "reach what is below a mount without a credential", "OWASP ASVS 8.3.1")
def _mounts(site: Site) -> None:
    site.part("mounts")
    tails = ("", "/", "//", "/index.html", "/../", "/%2e%2e/", "/.", "/%2f", "/docs", "/openapi.json", "/x?y=z")
    for mount in site.mounts:
        for tail in tails:
            for method in ("GET", "HEAD", "OPTIONS", "POST", "PUT", "DELETE", "PROPFIND"):
                response = site.client().request(method, f"{mount}{tail}")
                inside = response.status_code < 300 or response.status_code >= 500
                require(not inside, f"{method} {mount}{tail} has an answer: {response.status_code}")


@FOUND.add("mounts", "open a WebSocket below a mount without a credential", _HIJACKING)
def _mounted_connections(site: Site) -> None:
    site.part("mounts")
    client = site.client()
    require_success(site.log_in(client), "the right password does not log in")
    for mount in site.mounts:
        for tail in ("", "/", "/ws", "/x?y=z"):
            require(not _opens(site, {}, f"{mount}{tail}"), f"a WebSocket to {mount}{tail} is accepted")


@FOUND.add("batch", "send a request of a batch with another credential", "OWASP ASVS 8.3.1")
def _batched(site: Site) -> None:
    client = site.client()
    own = _headers(client, site.log_in(client))
    changed = {name: f"{value[:-8]}{value[-8:].swapcase()}x" for name, value in own.items()}
    statuses = [*site.part("batch")([own, changed])]
    require(len(statuses) == 2 and statuses[0] < 400, f"a batch with a valid credential: {statuses}")
    require(400 <= statuses[1] < 500, f"an invalid credential of a request counts as that of its batch: {statuses[1]}")


@FOUND.add("mcp", "use the session of another user", "MCP Security Best Practices, Session Hijacking")
def _mcp_session(site: Site) -> None:
    site.part("mcp")
    user, other = _mcp_headers(site, site.username, site.password), _mcp_headers(site, *site.part("other"))
    begun = _call(site, user, _INITIALIZE)
    require_success(begun, "a user cannot begin a session")
    session = {"Mcp-Session-Id": begun.headers.get("mcp-session-id", ""), "Mcp-Protocol-Version": "2025-06-18"}
    require(session["Mcp-Session-Id"], "the server has no sessions")
    _call(site, {**user, **session}, _STARTED)
    require_success(_call(site, other, _INITIALIZE), "the other user cannot begin a session")
    callers = {"another user": other, "an anonymous caller": _ACCEPT}
    if site.foreign is not None:
        callers["the same subject of another issuer"] = {**_ACCEPT, "Authorization": f"Bearer {site.foreign()}"}
    for method in ("POST", "DELETE"):
        for name, headers in callers.items():
            refused = _call(site, {**headers, **session}, _LIST, method)
            require_refused(refused, f"a {method} to the session of a user by {name}")
    require_success(_call(site, {**user, **session}, _LIST), "the session is not valid any more for its own user")


def _headers(client: Client, response: Any) -> dict[str, str]:
    return bearer_of(response) or cookies_field(dict(client.cookies))


@contextmanager
def _connected(site: Site, headers: Mapping[str, str], place: str | None = None) -> Iterator[Callable[[], bool]]:
    target = site.part("connection") if place is None else place
    # Not in the protocol of a client: that of httpx has no WebSockets.
    client: Any = site.client()
    with client.websocket_connect(target, headers=dict(headers)) as connection:

        def is_alive() -> bool:
            try:
                connection.send_text("attack")
                connection.receive_text()
            except WebSocketDisconnect:
                return False
            return True

        yield is_alive


def _opens(site: Site, headers: Mapping[str, str], place: str | None = None) -> bool:
    try:
        with _connected(site, headers, place):
            return True
    except WebSocketDisconnect:
        return False


def _ends(site: Site, is_alive: Callable[[], bool]) -> bool:
    until = time.monotonic() + site.connection_seconds
    while time.monotonic() < until:
        if not is_alive():
            return True
        time.sleep(_PAUSE_SECONDS)
    return False


def _mcp_headers(site: Site, username: str, password: str) -> dict[str, str]:
    client = site.client()
    return {**_ACCEPT, **_headers(client, site.log_in(client, username=username, password=password))}


def _call(site: Site, headers: Mapping[str, str], message: Mapping[str, Any], method: str = "POST") -> Any:
    return site.client().request(method, site.mcp, json=message, headers=headers)
