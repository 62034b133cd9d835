"""Publish an event: to the log, to a callback, and to a counter of OpenTelemetry.

A record of the log has the fields of the Event as attributes, so that a formatter for JSON, or a filter, finds them by
name. The counter always exists: without a provider of metrics it costs a call that does nothing.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import fields
from inspect import iscoroutine
from typing import Any, Final

from opentelemetry.metrics import get_meter

from fastapi_guard.callables import accepts, is_async
from fastapi_guard.events.event import KINDS, Event, EventCallback
from fastapi_guard.exceptions import ConfigurationError, shown

logger: logging.Logger = logging.getLogger("fastapi_guard")

COUNTER: Final = "fastapi_guard.events"
LOST: Final = "fastapi_guard.events.lost"
DURATION: Final = "fastapi_guard.decision.duration"
# From a cached token to an issuer that is hardly reachable.
_BOUNDARIES: Final = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
# An application may make reasons of its own; more than these are counted as one.
_MOST_REASONS: Final = 200
_MOST_CHARACTERS: Final = 64

# An attribute of the counter has few values: the subject is for the log alone.
Attributes = Mapping[str, str | int]

_FIELDS: Final = tuple(field.name for field in fields(Event) if field.name != "name")
_counter = get_meter("fastapi_guard").create_counter(
    COUNTER, unit="{event}", description="Decisions about connections, and changes of credentials, logins and accounts."
)
_durations = get_meter("fastapi_guard").create_histogram(
    DURATION,
    unit="s",
    description="How long it took to decide about a credential.",
    explicit_bucket_boundaries_advisory=_BOUNDARIES,
)
_lost = get_meter("fastapi_guard").create_counter(LOST, unit="{event}", description="Events that were not written.")
#: Return whether the log takes records of a level.
is_logged: Callable[[int], bool] = logger.isEnabledFor
#: Count an event alone, by its attributes.
count: Callable[[int, Attributes], None] = _counter.add
#: Count events that could not be written.
count_lost: Callable[[int], None] = _lost.add
#: Record the seconds that a decision took, by its attributes.
record_duration: Callable[[float, Attributes], None] = _durations.record
_reasons: Final[set[str]] = set()


def attributes_of(event: Event) -> Attributes:
    """Return the attributes under which ``event`` is counted."""
    attributes: dict[str, str | int] = {"event": event.name, "auth": event.auth}
    if event.status is not None:
        attributes["status"] = event.status
    if event.reason is not None:
        attributes["reason"] = known_reason(event.reason)
    return attributes


def known_reason(reason: str) -> str:
    """Return a reason as an attribute: of an application that makes ever new ones, "other"."""
    if reason not in _reasons:
        if len(_reasons) >= _MOST_REASONS or len(reason) > _MOST_CHARACTERS:
            return "other"
        _reasons.add(reason)
    return reason


def checked(callback: EventCallback | None) -> EventCallback | None:
    """Return ``callback``, where it can be called with an event.

    Raises:
        ConfigurationError: It cannot, it is a class such as ``AuditTrail``, or it is an ``async def``, which is not
            awaited.
    """
    if callback is None:
        return None
    if not callable(callback) or isinstance(callback, type) or is_async(callback) or not accepts(callback, 1):
        msg = f"on_event is a function of one Event and not an async def, unlike {shown(callback)}"
        raise ConfigurationError(msg)
    return callback


def publish(event: Event, callback: EventCallback | None) -> None:
    """Count ``event``, log it, and hand it to ``callback``, whose failure never fails the request."""
    count(1, attributes_of(event))
    level = KINDS[event.name].level
    if is_logged(level):
        message, *arguments = _message(event)
        logger.log(level, message, *arguments, extra=_fields(event))
    if callback is not None:
        try:
            answer: object = callback(event)
        except Exception:
            logger.exception("an event callback failed")
        else:
            if iscoroutine(answer):
                answer.close()
                logger.error("an event is lost: on_event returned a coroutine, which nothing awaits")


def _message(event: Event) -> tuple[str, *tuple[object, ...]]:
    if event.name == "authenticated":
        return "authenticated by %s", event.auth
    if event.name == "refused":
        return "refused by %s: %s (%s)", event.auth, event.reason, event.status
    if event.key_id is not None:
        return "%s of %s: %s, of %r, by %r", event.name, event.auth, event.key_id, event.subject, event.actor
    return "%s: %s, subject %r", event.name, event.auth, event.subject


def _fields(event: Event) -> dict[str, Any]:
    # "name" is the logger's in a record.
    values = {name: getattr(event, name) for name in _FIELDS}
    return {
        "event": event.name,
        **{name: on_one_line(value) if isinstance(value, str) else value for name, value in values.items()},
    }


def on_one_line(text: str) -> str:
    """Return ``text`` with escapes in place of what is not printable: line ends, and sequences for a terminal."""
    return text if text.isprintable() else ascii(text)[1:-1]
