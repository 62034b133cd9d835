"""Events: every decision and every change of a credential, for the log, a callback and OpenTelemetry."""

from fastapi_guard.events.event import Event, EventCallback, EventName
from fastapi_guard.events.place import place_of, who_of
from fastapi_guard.events.publishing import COUNTER, attributes_of, checked, count, is_logged, logger, publish

__all__ = [
    "COUNTER",
    "Event",
    "EventCallback",
    "EventName",
    "attributes_of",
    "checked",
    "count",
    "is_logged",
    "logger",
    "place_of",
    "publish",
    "who_of",
]
