"""Name the caller of a request to an MCP server, so that its sessions have owners. Needs the extra ``mcp``."""

from collections.abc import Iterable
from typing import Any

from starlette.authentication import AuthCredentials
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from fastapi_guard.auth.decision import verified_on
from fastapi_guard.exceptions import Forbidden, MissingExtraError

try:
    from mcp.server.auth.middleware.auth_context import AuthContextMiddleware
    from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
    from mcp.server.auth.provider import AccessToken
except ImportError:
    raise MissingExtraError("mcp", "mcp") from None


class OwnedSessions:
    """An MCP server, to which the user of each request is named as the SDK expects it.

    The SDK compares client, issuer and subject of a request with those of the request that began its session, and
    responds 404 to another user. Without a user it would compare nothing.
    """

    def __init__(self, app: ASGIApp) -> None:
        """Name users to ``app``, which is behind a guard."""
        self._app = AuthContextMiddleware(app)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on with its user.

        Raises:
            Forbidden: The credential identifies no subject, so that a session of its caller would have no owner.
        """
        if scope["type"] == "http":
            token = next(filter(None, map(_token_of, verified_on(HTTPConnection(scope)))), None)
            if token is None:
                raise Forbidden(reason="no_subject")
            scope["user"] = AuthenticatedUser(token)
            scope["auth"] = AuthCredentials(token.scopes)
        await self._app(scope, receive, send)


def access_token(raw: str, claims: Any, scopes: Iterable[str]) -> AccessToken | None:
    """Return claims as the SDK's access token, ``None`` where they identify no subject.

    Args:
        raw: The text of the token, for tools that forward it; may be empty.
        claims: The claims.
        scopes: What they grant.
    """
    subject = claims.get("sub") if isinstance(claims, dict) else None
    if not isinstance(subject, str) or not subject:
        return None
    clients = [claims.get(name) for name in ("client_id", "azp")]
    client = next((name for name in clients if isinstance(name, str) and name), subject)
    expires = claims.get("exp")
    return AccessToken(
        token=raw,
        client_id=client,
        scopes=sorted(scopes),
        expires_at=None if expires is None else int(expires),
        subject=subject,
        claims=claims,
    )


def _token_of(verified: Any) -> AccessToken | None:
    # Without the text of the credential, which the SDK would show in a repr.
    return access_token("", verified.principal, verified.grants.scopes)
