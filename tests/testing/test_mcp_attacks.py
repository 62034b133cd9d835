"""Attacks on the sessions of an MCP server: refused where they have owners, and found where they have none."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from joserfc import jwk
from mcp.server.mcpserver import MCPServer
from starlette.types import Receive, Scope, Send

from fastapi_guard import JWTAuth, JWTConfig
from fastapi_guard.app.mcp import guarded_mcp
from fastapi_guard.app.mcp_sessions import OwnedSessions
from fastapi_guard.testing.site import Site
from fastapi_guard.testing.site_attacks import site_attacks


@contextmanager
def served() -> Iterator[Site]:
    """Yield an application with an MCP server, whose clients share its loop."""
    auth = JWTAuth(JWTConfig(key=jwk.OctKey.generate_key(256)))
    server = MCPServer("items").streamable_http_app(host="testserver", json_response=True)
    mounted = guarded_mcp(server, auth.requires("mcp:use"))
    app = FastAPI(lifespan=mounted.lifespan)

    @app.post("/login")
    async def log_in(body: dict[str, str]) -> Any:
        return {"access_token": auth.encode({"sub": body["username"], "scope": "mcp:use"})}

    app.mount("/", mounted)
    with TestClient(app) as started:

        def client() -> TestClient:
            another = TestClient(app)
            another.portal = started.portal
            return another

        yield Site(client=client, username="ada", password="any", mcp="/mcp", other=("grace", "any"))


def test_a_session_with_an_owner() -> None:
    """A session of a guarded server is not that of another user."""
    [attack] = site_attacks("mcp")
    with served() as site:
        attack.on(site)


def test_a_session_without_an_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK compares no owner where it does not know the user of a request."""

    async def unnamed(self: Any, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)

    monkeypatch.setattr(OwnedSessions, "__call__", unnamed)
    [attack] = site_attacks("mcp")
    with served() as site, pytest.raises(AssertionError, match="a POST to the session of a user by another user: 200"):
        attack.on(site)
