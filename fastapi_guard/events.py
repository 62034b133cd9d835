"""What happened: for the log, for a callback, and as a counter of OpenTelemetry.

Never the credential, nor anything else that the client chose. A record of the log has the fields of the Event as
attributes, so that a formatter for JSON, or a filter, finds them by name. The counter is always there: without a
provider of metrics it costs a call that does nothing.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from inspect import iscoroutinefunction, unwrap
from typing import Any, Final, Literal

from opentelemetry.metrics import get_meter
from starlette.requests import HTTPConnection

from fastapi_guard.exceptions import ConfigurationError

logger: logging.Logger = logging.getLogger("fastapi_guard")

COUNTER: Final = "fastapi_guard.events"
_MAX_METHOD_LENGTH: Final = 16

EventName = Literal[
    "authenticated",
    "refused",
    "key_created",
    "key_rotated",
    "key_revoked",
    "key_paused",
    "key_resumed",
    "login_failed",
    "login_throttled",
    "refresh_reused",
    "refresh_graced",
    "login_succeeded",
    "login_pending",
    "second_failed",
    "stepped_up",
    "device_new",
    "device_trusted",
    "session_ended",
    "factor_added",
    "factor_removed",
    "recovery_code_used",
    "passkey_counter",
    "message_failed",
    "account_registered",
    "account_verified",
    "account_disabled",
    "account_enabled",
    "account_deleted",
    "account_invited",
    "password_changed",
    "password_reset",
    "address_changed",
]


@dataclass(frozen=True, slots=True)
class Event:
    """A decision about a connection, or something that happened to a credential before or after it.

    Attributes:
        name: What happened, such as ``authenticated`` or ``refused``. ``refresh_reused``: a refresh token came again
            that was used up, so that it is in two hands. ``refresh_graced``: one that was just used came again from
            another address or with another user agent.
        auth: The name of the Auth that decided, or whose credential it is.
        status: The status of a refusal, ``None`` where there is none.
        reason: Why it was refused, in one word: "missing", "malformed", "expired", "missing_scope", ...
        key_id: The API key that it happened to, by its id, which is no secret.
        subject: Whose credential it is, where that is known from what the application stored.
        actor: Who did it, as far as that was said.
        route: The template of the path, such as ``/items/{item_id}``; of a mount, the path of the mount.
        method: The method of the request, ``WEBSOCKET`` for a WebSocket.
        client: The address of the client, as the server reports it.
    """

    name: EventName
    auth: str
    status: int | None = None
    reason: str | None = None
    key_id: str | None = None
    subject: str | None = None
    actor: str | None = None
    # Where it happened, which does not make it another event.
    route: str | None = field(default=None, compare=False)
    method: str | None = field(default=None, compare=False)
    client: str | None = field(default=None, compare=False)


EventCallback = Callable[[Event], None]

# An attribute of the counter is one of few values: whose credential it is, is for the log.
Attributes = Mapping[str, str | int]

_LEVELS: Mapping[str, int] = {
    "authenticated": logging.DEBUG,
    "login_failed": logging.WARNING,
    "login_throttled": logging.WARNING,
    "refresh_reused": logging.WARNING,
    "refresh_graced": logging.WARNING,
    "second_failed": logging.WARNING,
    "recovery_code_used": logging.WARNING,
    "passkey_counter": logging.WARNING,
    "message_failed": logging.WARNING,
}
_counter = get_meter("fastapi_guard").create_counter(
    COUNTER, unit="{event}", description="Decisions about connections, and what happened to credentials."
)
#: Return whether the log takes records of a level.
is_logged: Callable[[int], bool] = logger.isEnabledFor
#: Count an event alone, by its attributes.
count: Callable[[int, Attributes], None] = _counter.add


def attributes_of(event: Event) -> Attributes:
    """Return the attributes under which ``event`` is counted."""
    attributes: dict[str, str | int] = {"event": event.name, "auth": event.auth}
    if event.status is not None:
        attributes["status"] = event.status
    if event.reason is not None:
        attributes["reason"] = event.reason
    return attributes


def checked(callback: EventCallback | None) -> EventCallback | None:
    """Return ``callback``, where it can be called with an event.

    Raises:
        ConfigurationError: It cannot, or nobody would await it.
    """
    # An object is called by the method of its class.
    calls: tuple[Any, ...] = (callback, getattr(type(callback), "__call__", None))  # noqa: B004 - not whether, but what
    if callback is not None and (not callable(callback) or any(iscoroutinefunction(unwrap(call)) for call in calls)):
        msg = f"on_event is a function of one Event that is no async def, not {callback!r}"
        raise ConfigurationError(msg)
    return callback


def publish(event: Event, callback: EventCallback | None) -> None:
    """Count ``event``, log it, and hand it to ``callback``, whose failure never fails the request."""
    count(1, attributes_of(event))
    level = _LEVELS.get(event.name, logging.INFO)
    if is_logged(level):
        message, *arguments = _message(event)
        logger.log(level, message, *arguments, extra=_fields(event))
    if callback is not None:
        try:
            callback(event)
        except Exception:
            logger.exception("an event callback failed")


def place_of(connection: HTTPConnection) -> dict[str, str | None]:
    """Return the fields ``route``, ``method`` and ``client`` of an Event about a connection.

    The route is the template that the application declares, never the path that the client chose.
    """
    scope = connection.scope
    client = scope.get("client")
    method = str(scope.get("method", "")) if scope["type"] == "http" else "WEBSOCKET"
    return {
        "route": getattr(scope.get("route"), "path", None),
        "method": method if method.isalpha() and len(method) <= _MAX_METHOD_LENGTH else None,
        "client": None if client is None else str(client[0]),
    }


def _message(event: Event) -> tuple[str, *tuple[object, ...]]:
    if event.name == "authenticated":
        return "authenticated by %s", event.auth
    if event.name == "refused":
        return "refused by %s: %s (%s)", event.auth, event.reason, event.status
    if event.key_id is not None:
        return "%s of %s: %s, of %r, by %r", event.name, event.auth, event.key_id, event.subject, event.actor
    return "%s: %s, subject %r", event.name, event.auth, event.subject


def _fields(event: Event) -> dict[str, str | int | None]:
    # "name" is the logger's in a record. What an application stored may have line ends in it.
    return {
        "event": event.name,
        "auth": event.auth,
        "status": event.status,
        "reason": event.reason,
        "key_id": event.key_id,
        "subject": _on_one_line(event.subject),
        "actor": _on_one_line(event.actor),
        "route": event.route,
        "method": event.method,
        "client": event.client,
    }


def _on_one_line(text: str | None) -> str | None:
    return text if text is None or text.isprintable() else ascii(text)[1:-1]
