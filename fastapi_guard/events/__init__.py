"""Events: every decision and every change of a credential, for the log, a callback and OpenTelemetry."""

from fastapi_guard.events.event import Event, EventCallback, EventName
from fastapi_guard.events.place import place_of, who_of
from fastapi_guard.events.publishing import (
    COUNTER,
    attributes_of,
    checked,
    count,
    is_logged,
    known_reason,
    logger,
    publish,
    record_duration,
)
from fastapi_guard.events.schema import event_schema
from fastapi_guard.events.trail import AuditTrail, read_trail

__all__ = [
    "COUNTER",
    "AuditTrail",
    "Event",
    "EventCallback",
    "EventName",
    "attributes_of",
    "checked",
    "count",
    "event_schema",
    "is_logged",
    "known_reason",
    "logger",
    "place_of",
    "publish",
    "read_trail",
    "record_duration",
    "who_of",
]
