"""Attacks on the sessions of an MCP server: refused where they have owners, and found where they have none."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from joserfc import jwk
from mcp.server.auth.provider import AccessToken
from mcp.server.mcpserver import MCPServer
from starlette.types import Receive, Scope, Send

from fastapi_guard import AnyAuth, JWTAuth, JWTConfig
from fastapi_guard.app import mcp_sessions
from fastapi_guard.app.mcp import guarded_mcp
from fastapi_guard.app.mcp_sessions import OwnedSessions, access_token
from fastapi_guard.issuers import OIDCAuth
from fastapi_guard.testing.issuer import FakeIssuer
from fastapi_guard.testing.site import Site
from fastapi_guard.testing.site_attacks import site_attacks

# The same client of both issuers.
CLIENT = {"client_id": "client-1", "scope": "mcp:use"}


@contextmanager
def served() -> Iterator[Site]:
    """Yield an application with an MCP server and two issuers, whose clients share its loop."""
    issuer = FakeIssuer()
    own = JWTAuth(JWTConfig(key=jwk.OctKey.generate_key(256)))
    auth = AnyAuth(own, OIDCAuth(issuer.url, "https://api.example", client=issuer.client))
    server = MCPServer("items").streamable_http_app(host="testserver", json_response=True)
    mounted = guarded_mcp(server, auth.requires("mcp:use"))
    app = FastAPI(lifespan=mounted.lifespan)

    @app.post("/login")
    async def log_in(body: dict[str, str]) -> Any:
        return {"access_token": own.encode({"sub": body["username"], **CLIENT})}

    app.mount("/", mounted)
    with TestClient(app) as started:

        def client() -> TestClient:
            another = TestClient(app)
            another.portal = started.portal
            return another

        foreign = issuer.token("ada", **CLIENT)
        yield Site(
            client=client,
            username="ada",
            password="any",
            mcp="/mcp",
            other=("grace", "any"),
            foreign=lambda: foreign,
        )


def test_a_session_with_an_owner() -> None:
    """A session of a guarded server is not that of another user, nor of the same subject of another issuer."""
    [attack] = site_attacks("mcp")
    with served() as site:
        attack.on(site)
        attack.on(replace(site, foreign=None))


def test_a_session_without_an_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK compares no owner where it does not know the user of a request."""

    async def unnamed(self: Any, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)

    monkeypatch.setattr(OwnedSessions, "__call__", unnamed)
    [attack] = site_attacks("mcp")
    with served() as site, pytest.raises(AssertionError, match="a POST to the session of a user by another user: 200"):
        attack.on(site)


def test_an_owner_without_an_issuer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK compares the issuer where the claims of the user are known to it."""

    def without_claims(*arguments: Any) -> AccessToken | None:
        token = access_token(*arguments)
        return None if token is None else token.model_copy(update={"claims": None})

    monkeypatch.setattr(mcp_sessions, "access_token", without_claims)
    [attack] = site_attacks("mcp")
    fault = "a POST to the session of a user by the same subject of another issuer: 200"
    with served() as site, pytest.raises(AssertionError, match=fault):
        attack.on(site)
