"""What happened, for the log and for a callback. Never the credential, nor anything else that the client chose."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

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
