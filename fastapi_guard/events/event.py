"""Event: its kinds and its fields, the one list of what can be published."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from logging import DEBUG, INFO, WARNING
from time import time
from typing import Any, Final, Literal, NamedTuple, get_args

from fastapi_guard.events.place import bounded

EventName = Literal[
    "authenticated",
    "refused",
    "key_created",
    "key_rotated",
    "key_revoked",
    "key_paused",
    "key_resumed",
    "login_succeeded",
    "login_pending",
    "login_failed",
    "login_throttled",
    "second_factor_succeeded",
    "second_factor_failed",
    "stepped_up",
    "device_new",
    "device_trusted",
    "session_started",
    "session_ended",
    "token_refreshed",
    "token_revoked",
    "refresh_reused",
    "refresh_graced",
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
    "provider_succeeded",
    "provider_failed",
    "provider_linked",
    "provider_unlinked",
    "provider_logout",
]


class Kind(NamedTuple):
    """A kind of event.

    Attributes:
        meaning: When it is published, in one sentence.
        level: The level of its record in the log.
    """

    meaning: str
    level: int = INFO


KINDS: Final[Mapping[EventName, Kind]] = {
    "authenticated": Kind("An Auth verified a credential; once a request.", DEBUG),
    "refused": Kind("An Auth or a Throttle refused a request, with the status, the reason and the requirement."),
    "key_created": Kind("An API key was created."),
    "key_rotated": Kind("An API key was replaced by another."),
    "key_revoked": Kind("An API key was revoked."),
    "key_paused": Kind("An API key was paused."),
    "key_resumed": Kind("A paused API key was resumed."),
    "login_succeeded": Kind("A login is complete."),
    "login_pending": Kind("A password or another first proof is right, and a second factor is required."),
    "login_failed": Kind("A password or another first proof is wrong.", WARNING),
    "login_throttled": Kind("A login was refused because of too many attempts.", WARNING),
    "second_factor_succeeded": Kind("A second factor was proven."),
    "second_factor_failed": Kind("The proof of a second factor, or the password at a step-up, is wrong.", WARNING),
    "stepped_up": Kind("A logged-in user proved a factor again."),
    "device_new": Kind("A login came from a device that the user had not used before."),
    "device_trusted": Kind("A device was marked as trusted."),
    "session_started": Kind("A session was started: by a login, or by a step-up in place of another."),
    "session_ended": Kind(
        "A session was ended before it expired: by a logout, a login, a step-up, its user or an operator."
    ),
    "token_refreshed": Kind("A refresh token was exchanged for new tokens."),
    "token_revoked": Kind("An access token, a refresh token or all tokens of a login or a user were revoked."),
    "refresh_reused": Kind("A used refresh token was presented again, so two clients have it.", WARNING),
    "refresh_graced": Kind("A refresh token was repeated from another address or user agent.", WARNING),
    "factor_added": Kind("A user enrolled a second factor."),
    "factor_removed": Kind("A second factor was removed."),
    "recovery_code_used": Kind("A recovery code was used in place of a factor.", WARNING),
    "passkey_counter": Kind("The counter of a passkey went back: it may have been copied.", WARNING),
    "message_failed": Kind("A message to a user could not be sent.", WARNING),
    "account_registered": Kind("An account was registered."),
    "account_verified": Kind("The address of an account was verified."),
    "account_disabled": Kind("An account was disabled."),
    "account_enabled": Kind("An account was enabled."),
    "account_deleted": Kind("An account was deleted."),
    "account_invited": Kind("A user was invited."),
    "password_changed": Kind("A user changed the password."),
    "password_reset": Kind("A forgotten password was reset."),
    "address_changed": Kind("The address of an account was changed."),
    "provider_succeeded": Kind("A provider vouched for a user."),
    "provider_failed": Kind("A sign-in with a provider failed.", WARNING),
    "provider_linked": Kind("An identity at a provider was linked to an account."),
    "provider_unlinked": Kind("An identity at a provider was unlinked from an account."),
    "provider_logout": Kind("A provider ended the sessions of a user."),
}
NAMES: Final[tuple[EventName, ...]] = get_args(EventName)


@dataclass(frozen=True, slots=True)
class Event:
    """A decision about a connection, or something that happened to a credential, a login or an account.

    It never contains a credential. Every text that a client or a token chose is bounded.

    Attributes:
        name: What happened, such as ``authenticated`` or ``refused``.
        auth: The name of the Auth that decided, or whose credential it is; of a Login, its name.
        status: The status of a refusal, ``None`` where there is none.
        reason: Why it was refused, in one word: "missing", "malformed", "expired", "missing_scope", ...
        key_id: The id of the API key, which is not a secret.
        subject: The ``sub`` of the verified credential, or the user that it happened to.
        actor: The user or the operator that did it, where that is known.
        issuer: The ``iss`` of the verified credential.
        requirement: What was required, such as ``items:edit``, "role editor" or "owner author_id".
        route: The template of the path, such as ``/items/{item_id}``; of a mount, the path of the mount.
        method: The method of the request, ``WEBSOCKET`` for a WebSocket.
        client: The address of the client: the peer's, or that before the trusted proxies of ``configure_app``.
        user_agent: The ``User-Agent``, at most 256 printable characters.
        request_id: The id of the request, from the header field that ``configure_app`` names.
        trace_id: The id of the trace, 32 hexadecimal digits, where OpenTelemetry traces the request.
        at: When it was published, in seconds since the epoch.
    """

    name: EventName
    auth: str
    status: int | None = None
    reason: str | None = None
    key_id: str | None = None
    subject: str | None = None
    actor: str | None = None
    # The circumstances, which do not make it another event.
    issuer: str | None = field(default=None, compare=False)
    requirement: str | None = field(default=None, compare=False)
    route: str | None = field(default=None, compare=False)
    method: str | None = field(default=None, compare=False)
    client: str | None = field(default=None, compare=False)
    user_agent: str | None = field(default=None, compare=False)
    request_id: str | None = field(default=None, compare=False)
    trace_id: str | None = field(default=None, compare=False)
    at: float = field(default_factory=time, compare=False)

    def as_dict(self) -> dict[str, Any]:
        """Return it as a dict for JSON, by the schema in ``fastapi_guard/events/schema.json``.

        The member ``event`` is the name, ``time`` the moment in RFC 3339; fields that are ``None`` are left out.
        """
        moment = datetime.fromtimestamp(self.at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        del values["name"], values["at"]
        known = {name: _bounded(value) for name, value in values.items() if value is not None}
        return {"version": VERSION, "time": moment, "event": self.name, **known}


def _bounded(value: object) -> object:
    return bounded(value) if isinstance(value, str) else value


# The version of the schema: it rises when a member changes its meaning or goes.
VERSION: Final = 1
EventCallback = Callable[[Event], None]
