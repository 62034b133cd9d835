"""What happened, for the log and for a callback. Never the credential, nor anything else that the client chose."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

logger: logging.Logger = logging.getLogger("fastapi_guard")


@dataclass(frozen=True, slots=True)
class Event:
    """A decision about a connection, or about a credential before or after it.

    Attributes:
        name: What happened: ``authenticated``, ``refused``; ``login_failed``, ``login_throttled``; ``refresh_reused``,
            when a refresh token came again that was used up, so that it is in two hands.
        auth: The name of the Auth that decided, or of what did.
        status: The status of a refusal, ``None`` where there is none.
        reason: Why it was refused, in one word: "missing", "malformed", "expired", "missing_scope", ...
        subject: Whom it concerns, where that is known from what the application stored.
    """

    name: Literal["authenticated", "refused", "login_failed", "login_throttled", "refresh_reused"]
    auth: str
    status: int | None = None
    reason: str | None = None
    subject: str | None = None


EventCallback = Callable[[Event], None]


def publish(event: Event, callback: EventCallback | None) -> None:
    """Log ``event`` and hand it to ``callback``, whose failure never fails the request."""
    if event.name == "authenticated":
        logger.debug("authenticated by %s", event.auth)
    elif event.name == "refused":
        logger.info("refused by %s: %s (%s)", event.auth, event.reason, event.status)
    else:
        logger.warning("%s: %s, subject %r", event.name, event.auth, event.subject)
    if callback is not None:
        try:
            callback(event)
        except Exception:
            logger.exception("an event callback failed")
