"""The circumstances of an event: the caller, the route, the client, the request and its trace, all bounded."""

from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Final, NamedTuple, TypedDict

from opentelemetry.trace import get_current_span
from starlette.requests import HTTPConnection

MAX_LENGTH: Final = 256
_MAX_METHOD_LENGTH: Final = 16
_MAX_REQUEST_ID_LENGTH: Final = 128
_REQUEST_ID: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:=+/")
# The key of the Origins of an application in a connection's scope, where configure_app puts them.
ORIGINS: Final = "fastapi_guard.origins"


class Place(TypedDict, total=False):
    """The fields of an Event that are about a connection."""

    route: str | None
    method: str | None
    client: str | None
    user_agent: str | None
    request_id: str | None
    trace_id: str | None


class Who(TypedDict, total=False):
    """The fields of an Event that are about the caller."""

    subject: str | None
    issuer: str | None
    key_id: str | None


class Origins(NamedTuple):
    """The sources of the client's address and of the id of a request, for the events of an application.

    Attributes:
        client_of: Returns the address of the client of a connection.
        request_id_header: The header field that has the id of the request; ``None``: there is none.
    """

    client_of: Callable[[HTTPConnection], str | None]
    request_id_header: str | None = None


def place_of(connection: HTTPConnection | None) -> Place:
    """Return the fields of an Event that are about a connection, from ``route`` to ``trace_id``.

    The route is the template that the application declares, never the path that the client chose. Without a connection
    there is a trace at most.
    """
    context = get_current_span().get_span_context()
    trace_id = format(context.trace_id, "032x") if context.is_valid else None
    if connection is None:
        return {"trace_id": trace_id}
    scope = connection.scope
    method = str(scope.get("method", "")) if scope["type"] == "http" else "WEBSOCKET"
    origins: Origins | None = scope.get(ORIGINS)
    return {
        "route": getattr(scope.get("route"), "path", None),
        "method": method if method.isalpha() and len(method) <= _MAX_METHOD_LENGTH else None,
        "client": _peer(connection) if origins is None else origins.client_of(connection),
        "user_agent": _printable(connection.headers.get("user-agent")),
        "request_id": _request_id(connection, origins),
        "trace_id": trace_id,
    }


def who_of(principal: object) -> Who:
    """Return the fields ``subject``, ``issuer`` and ``key_id`` of an Event, of a verified principal."""
    if not isinstance(principal, Mapping):
        return {}
    return {"subject": _text(principal, "sub"), "issuer": _text(principal, "iss"), "key_id": _text(principal, "key_id")}


def bounded(text: str) -> str:
    """Return a text, or its SHA-256 where it is longer than 256 characters."""
    if len(text) <= MAX_LENGTH:
        return text
    return "sha256:" + sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _text(principal: Mapping[str, object], name: str) -> str | None:
    value = principal.get(name)
    return bounded(value) if isinstance(value, str) else None


def _peer(connection: HTTPConnection) -> str | None:
    client = connection.scope.get("client")
    return None if client is None else str(client[0])[:MAX_LENGTH]


def _printable(text: str | None) -> str | None:
    if text is None:
        return None
    return "".join(character for character in text[:MAX_LENGTH] if character.isprintable()) or None


def _request_id(connection: HTTPConnection, origins: Origins | None) -> str | None:
    if origins is None or origins.request_id_header is None:
        return None
    value = connection.headers.get(origins.request_id_header, "")
    return value if 0 < len(value) <= _MAX_REQUEST_ID_LENGTH and _REQUEST_ID.issuperset(value) else None
