"""Guard MCP servers: their sessions, their tools, and tokens for the verifier of an SDK. Needs the extra ``mcp``.

For servers of the official SDK (``mcp``) and of FastMCP with the transport Streamable HTTP, protocol revisions
2025-03-26 to 2026-07-28.
"""

from collections.abc import Mapping
from typing import Any, Final

from fastapi import params
from starlette.types import ASGIApp

from fastapi_guard.app.asgi import Guarded, application_of
from fastapi_guard.app.mcp_sessions import OwnedSessions, access_token
from fastapi_guard.app.mcp_tools import GuardedTools, check_tools_at_start
from fastapi_guard.auth import ScopesAuth
from fastapi_guard.exceptions import ConfigurationError, Forbidden, MissingExtraError, Unauthorized, shown
from fastapi_guard.stores.arguments import check_flags, instance_of, mapping_of

try:
    from mcp.server.auth.provider import AccessToken
except ImportError:
    raise MissingExtraError("mcp", "mcp") from None

#: The response headers that a client in a browser reads: ``CORSMiddleware(..., expose_headers=EXPOSED_HEADERS)``.
EXPOSED_HEADERS: Final = ("WWW-Authenticate", "Mcp-Session-Id", "Mcp-Protocol-Version")


def guarded_mcp(
    app: ASGIApp, *guards: params.Depends, tools: Mapping[str, params.Depends] | None = None, hide: bool = False
) -> Guarded:
    """Return an MCP server behind guards, and some of its tools behind further ones.

    ::

        mounted = guarded_mcp(
            server.streamable_http_app(), auth.requires("mcp:use"), tools={"delete": auth.requires("items:delete")}
        )
        app = FastAPI(lifespan=mounted.lifespan)
        app.mount("/", mounted)

    A session belongs to the caller that began it: to other callers the server responds 404. A call of a tool whose
    guard refuses is a 403 with ``insufficient_scope`` and every scope that is needed, on which a client asks its user
    for more. Guards need the connection alone: no path parameters, no body.

    Args:
        app: The server, such as ``MCPServer(...).streamable_http_app()`` or ``FastMCP(...).http_app()``.
        guards: The guards of every request.
        tools: The guards of tools, by the name of the tool. The tools are registered before the application starts.
        hide: Whether tools that the caller may not call are left out of ``tools/list``, and unknown when called.

    Raises:
        ConfigurationError: See ``guarded``. At startup: the server has no tool of a name in ``tools``.
    """
    check_flags(hide=hide)
    before = Guarded(app, guards, OwnedSessions)
    of_tools = {
        name: _with_scopes_of(before, guard) for name, guard in _tools_of({} if tools is None else tools).items()
    }
    if not of_tools:
        return before
    check_tools_at_start(app, of_tools)
    return Guarded(app, guards, lambda inner: GuardedTools(OwnedSessions(inner), of_tools, hide=hide))


def guarded_tools(app: ASGIApp, tools: Mapping[str, params.Depends], *, hide: bool = False) -> ASGIApp:
    """Return an MCP server with guards for some of its tools, which authenticates its callers by itself.

    For a server with ``token_verifier``: ``guarded_tools(server.streamable_http_app(), {"delete": auth.requires()})``.
    The messages of anonymous callers are read too, up to 4 MiB; ``guarded_mcp`` reads no message of theirs.

    Args:
        app: The server.
        tools: See ``guarded_mcp``.
        hide: See ``guarded_mcp``.

    Raises:
        ConfigurationError: See ``guarded_mcp``.
    """
    check_flags(hide=hide)
    of_tools = {name: Guarded(_admitted, [guard]) for name, guard in _tools_of(tools).items()}
    check_tools_at_start(application_of(app), of_tools)
    return GuardedTools(app, of_tools, hide=hide)


def token_verifier(auth: ScopesAuth) -> "GuardTokenVerifier":
    """Return a verifier for the SDK's own checks: ``MCPServer(..., token_verifier=token_verifier(auth))``.

    Use ``guarded_mcp`` in a FastAPI application. The 403 of the SDK has no ``scope``, and it responds 500 where a
    credential cannot be verified now.

    Raises:
        ConfigurationError: ``auth`` is not an Auth with scopes.
    """
    if not isinstance(auth, ScopesAuth):
        msg = f"auth: token_verifier() takes an Auth with scopes, such as an OIDCAuth, not {shown(auth)}"
        raise ConfigurationError(msg)
    return GuardTokenVerifier(auth)


class GuardTokenVerifier:
    """The ``TokenVerifier`` of the MCP SDK and of FastMCP, by an Auth.

    Attributes:
        required_scopes: Empty: the server requires scopes.
        scopes_supported: Empty: the server names its scopes.
    """

    def __init__(self, auth: ScopesAuth) -> None:
        """Verify by ``auth``."""
        self._auth = auth
        self.required_scopes: list[str] = []
        self.scopes_supported: list[str] = []

    async def verify_token(self, token: str) -> AccessToken | None:
        """Return the token with its client, issuer, subject, scopes and claims; ``None`` where it is invalid.

        Raises:
            ServiceUnavailable: That cannot be decided now.
        """
        try:
            claims = await self._auth.verify(token)
        except (Unauthorized, Forbidden):
            return None
        if not isinstance(claims, dict):
            return None
        audience = claims.get("aud")
        found = access_token(token, claims, self._auth.grants_of(claims).scopes)
        if found is not None:
            found.resource = audience if isinstance(audience, str) else next(iter(audience or ()), None)
        return found


def _tools_of(tools: Mapping[str, params.Depends]) -> Mapping[str, params.Depends]:
    example = '{"delete": auth.requires("items:delete")}'
    for name, guard in mapping_of("tools", tools, example).items():
        instance_of(f"tools[{name!r}]", guard, params.Depends, "a guard, such as auth.requires(...)")
    return tools


def _with_scopes_of(mount: Guarded, guard: params.Depends) -> Guarded:
    # A challenge names the scopes of the mount too: a client may ask for exactly those that it names.
    scopes = tuple(dict.fromkeys(scope for use in mount.uses for scope in use.scopes))
    own = tuple(getattr(guard, "scopes", None) or ())
    everything = [*scopes, *(scope for scope in own if scope not in scopes)]
    return Guarded(_admitted, [params.Security(guard.dependency, scopes=everything)])


async def _admitted(scope: Any, receive: Any, send: Any) -> None:
    """Stand for the server behind the guard of a tool."""
