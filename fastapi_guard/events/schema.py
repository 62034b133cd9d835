"""The JSON Schema of events, which the package ships as ``fastapi_guard/events/schema.json``."""

from typing import Any, Final

from fastapi_guard.events.event import KINDS, VERSION
from fastapi_guard.events.place import MAX_LENGTH

# The members of ``Event.as_dict`` beside version, time and event, with their meanings.
MEMBERS: Final = {
    "auth": "The name of the Auth, the Login or the Throttle.",
    "status": "The status of a refusal.",
    "reason": "Why it was refused, in one word.",
    "requirement": "What was required.",
    "subject": "The sub of the credential, or the user that it happened to; a long one as its SHA-256.",
    "issuer": "The iss of the credential.",
    "key_id": "The id of the API key.",
    "actor": "The user or the operator that did it.",
    "route": "The template of the path.",
    "method": "The method, WEBSOCKET for a WebSocket.",
    "client": "The address of the client.",
    "user_agent": "The User-Agent, printable characters.",
    "request_id": "The id of the request.",
    "trace_id": "The id of the trace.",
}


def event_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of an event, as ``Event.as_dict`` returns it."""
    texts: dict[str, dict[str, Any]] = {
        name: {"type": "string", "maxLength": MAX_LENGTH, "description": meaning} for name, meaning in MEMBERS.items()
    }
    texts["status"] = {"type": "integer", "minimum": 400, "maximum": 599, "description": MEMBERS["status"]}
    texts["trace_id"] = {"type": "string", "pattern": "^[0-9a-f]{32}$", "description": MEMBERS["trace_id"]}
    kinds = [{"const": name, "description": kind.meaning} for name, kind in KINDS.items()]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"Event of fastapi_guard, version {VERSION}",
        "type": "object",
        "required": ["version", "time", "event", "auth"],
        "additionalProperties": False,
        "properties": {
            "version": {"const": VERSION},
            "time": {"type": "string", "format": "date-time", "description": "RFC 3339, in UTC."},
            "event": {"oneOf": kinds},
            **texts,
        },
    }
