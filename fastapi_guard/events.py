"""What happened, for the log and for a callback. Never the credential, nor anything else that the client chose."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from inspect import iscoroutinefunction, unwrap
from typing import Any, Literal

from fastapi_guard.exceptions import ConfigurationError

logger: logging.Logger = logging.getLogger("fastapi_guard")


@dataclass(frozen=True, slots=True)
class Event:
    """A decision about a connection.

    Attributes:
        name: ``authenticated`` or ``refused``.
        auth: The name of the Auth that decided.
        status: The status of a refusal, ``None`` where there is none.
        reason: Why it was refused, in one word: "missing", "malformed", "expired", "missing_scope", ...
    """

    name: Literal["authenticated", "refused"]
    auth: str
    status: int | None = None
    reason: str | None = None


EventCallback = Callable[[Event], None]


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
    """Log ``event`` and hand it to ``callback``, whose failure never fails the request."""
    if event.name == "authenticated":
        logger.debug("authenticated by %s", event.auth)
    else:
        logger.info("refused by %s: %s (%s)", event.auth, event.reason, event.status)
    if callback is not None:
        try:
            callback(event)
        except Exception:
            logger.exception("an event callback failed")
