"""MCP clients find their way from the first 401 to a tool call and through a step-up, on all three ways."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from fastmcp import Client as FastMCPClient
from fastmcp.client.transports import StreamableHttpTransport
from mcp import Client
from mcp.client.auth import OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientInformationFull, OAuthClientMetadata, OAuthToken

from interop.running import ROOT, Serve, node

PAGE = str(ROOT / "docs" / "how-to" / "mcp.md")
# The block of the page, the path of the server, and the scope that a client asks for at first.
WAYS = [(0, "/mcp", "mcp:use"), (1, "/mcp", "mcp:use"), (2, "/mcp/", "items:read")]
IDS = ["guarded_mcp", "token_verifier", "fastmcp"]
CALLBACK = "http://127.0.0.1/callback"


class User:
    """A user who is logged in and consents to everything, and the storage of a client."""

    def __init__(self) -> None:
        """Begin without a token."""
        self.scopes: list[str] = []
        self.answer: Mapping[str, list[str]] = {}
        self.tokens: OAuthToken | None = None
        self.client: OAuthClientInformationFull | None = None

    async def visit(self, url: str) -> None:
        """Follow the redirects as a browser does, to the client's own address."""
        self.scopes += parse_qs(urlsplit(url).query)["scope"]
        async with httpx2.AsyncClient() as browser:
            while not url.startswith(CALLBACK):
                answer = await browser.get(url)
                url = str(httpx2.URL(url).join(answer.headers["location"]))
        self.answer = parse_qs(urlsplit(url).query)

    async def come_back(self) -> AuthorizationCodeResult:
        """Return what the authorization server sent back."""
        return AuthorizationCodeResult(**{name: values[0] for name, values in self.answer.items()})

    async def get_tokens(self) -> OAuthToken | None:
        """Return the tokens."""
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        """Store the tokens."""
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        """Return the registration."""
        return self.client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        """Store the registration."""
        self.client = client_info

    def auth(self, url: str) -> OAuthClientProvider:
        """Return the SDK's authentication of a client of the server at `url`."""
        metadata = OAuthClientMetadata(
            redirect_uris=[CALLBACK],  # type: ignore[list-item]
            token_endpoint_auth_method="none",
            application_type="native",
        )
        return OAuthClientProvider(url, metadata, self, self.visit, self.come_back)


@asynccontextmanager
async def connected(url: str, user: User, mode: Any) -> AsyncIterator[Client]:
    """Yield a connected client of the official SDK."""
    async with (
        httpx2.AsyncClient(auth=user.auth(url), timeout=60) as http,
        Client(streamable_http_client(url, http_client=http), mode=mode) as client,
    ):
        yield client


@pytest.mark.parametrize("mode", ["legacy", "auto"])
@pytest.mark.parametrize(("number", "path", "first"), WAYS, ids=IDS)
async def test_the_python_sdk(serve: Serve, number: int, path: str, first: str, mode: str, anyio_backend: str) -> None:
    """From the 401 to the metadata, a registration, a token, a tool call, and on a 403 to another token."""
    url, user = serve(PAGE, number) + path, User()
    async with connected(url, user, mode) as client:
        assert {tool.name for tool in (await client.list_tools()).tools} == {"list_items", "add_item"}
        read = await client.call_tool("list_items", {})
        assert not read.is_error
        assert len(user.scopes) == 1
        assert set(user.scopes[0].split()) == {first, "offline_access"}
        added = await client.call_tool("add_item", {"name": "three"})
        assert not added.is_error
        assert "added three" in str(added.content)
    assert len(user.scopes) == 2
    assert {first, "items:write"} <= set(user.scopes[1].split())


@pytest.mark.parametrize(("number", "path", "first"), WAYS, ids=IDS)
async def test_fastmcp_as_a_client(serve: Serve, number: int, path: str, first: str, anyio_backend: str) -> None:
    """The client of FastMCP too."""
    url, user = serve(PAGE, number) + path, User()
    async with FastMCPClient(StreamableHttpTransport(url, auth=user.auth(url))) as client:
        assert {tool.name for tool in await client.list_tools()} == {"list_items", "add_item"}
        assert "added four" in str((await client.call_tool("add_item", {"name": "four"})).content)
    assert first in user.scopes[0].split()
    assert "items:write" in user.scopes[1]


@pytest.mark.parametrize(("number", "path", "first"), WAYS, ids=IDS)
def test_the_typescript_sdk(serve: Serve, number: int, path: str, first: str) -> None:
    """The client of the SDK for TypeScript too, by the revision 2025-11-25."""
    did = json.loads(node("mcp_client.mjs", serve(PAGE, number) + path))
    assert did["tools"] == ["add_item", "list_items"]
    assert did["revision"] == "2025-11-25"
    assert first in did["scopes"][0].split()
    assert set(did["scopes"][1].split()) >= {"items:write"}
    assert "added three" in json.dumps(did["added"])


@pytest.mark.parametrize("method", ["OPTIONS", "POST"])
def test_a_client_in_a_browser(serve: Serve, method: str) -> None:
    """A preflight does not reach the guard, and a refusal lets a page read the challenge and the session."""
    fields = {
        "Origin": "https://app.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,mcp-session-id",
    }
    answer = httpx2.request(method, serve(PAGE) + "/mcp", headers=fields)
    assert answer.headers["access-control-allow-origin"] == "https://app.example"
    if method == "OPTIONS":
        assert answer.status_code == 200
        assert "mcp-session-id" in answer.headers["access-control-allow-headers"]
    else:
        assert answer.status_code == 401
        exposed = {name.strip() for name in answer.headers["access-control-expose-headers"].split(",")}
        assert {"WWW-Authenticate", "Mcp-Session-Id"} <= exposed
