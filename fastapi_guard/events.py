"""What happened, for the log and for a callback. Never the credential, nor anything else that the client chose."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

logger: logging.Logger = logging.getLogger("fastapi_guard")


EventName = Literal[
    "authenticated",
    "refused",
    "key_created",
    "key_rotated",
    "key_revoked",
    "login_failed",
    "login_throttled",
    "refresh_reused",
]


@dataclass(frozen=True, slots=True)
class Event:
    """A decision about a connection, or something that happened to a credential before or after it.

    Attributes:
        name: What happened, such as ``authenticated`` or ``refused``. ``refresh_reused``: a refresh token came again
            that was used up, so that it is in two hands.
        auth: The name of the Auth that decided, or whose credential it is.
        status: The status of a refusal, ``None`` where there is none.
        reason: Why it was refused, in one word: "missing", "malformed", "expired", "missing_scope", ...
        key_id: The API key that it happened to, by its id, which is no secret.
        subject: Whose credential it is, where that is known from what the application stored.
        actor: Who did it, as far as that was said.
    """

    name: EventName
    auth: str
    status: int | None = None
    reason: str | None = None
    key_id: str | None = None
    subject: str | None = None
    actor: str | None = None


EventCallback = Callable[[Event], None]


def publish(event: Event, callback: EventCallback | None) -> None:
    """Log ``event`` and hand it to ``callback``, whose failure never fails the request."""
    if event.name == "authenticated":
        logger.debug("authenticated by %s", event.auth)
    elif event.key_id is not None:
        logger.info("%s of %s: %s, of %r, by %r", event.name, event.auth, event.key_id, event.subject, event.actor)
    elif event.name == "refused":
        logger.info("refused by %s: %s (%s)", event.auth, event.reason, event.status)
    else:
        logger.warning("%s: %s, subject %r", event.name, event.auth, event.subject)
    if callback is not None:
        try:
            callback(event)
        except Exception:
            logger.exception("an event callback failed")
