"""The error tree: the status, code and text of every refusal, decided here and nowhere else.

::

    GuardError
    ├── ConfigurationError (ValueError)       raised at construction
    ├── MissingExtraError (ImportError)       names the command that installs what is missing
    ├── KeyNotFound (LookupError)             there is no API key of that id
    ├── KeyConflict                           an API key is in another state than the operation needs
    ├── UserConflict                          a user was changed in the meantime, or a name is taken
    └── AuthError (fastapi.HTTPException)     the response to a client
        ├── Unauthorized          401
        ├── Forbidden             403
        ├── Conflict              409
        ├── TooManyRequests       429, Retry-After
        └── ServiceUnavailable    503, Retry-After

An AuthError works in an application that registers no handler at all. The texts are constants of ours: what a client
sent, and what a library said about it, never reaches an answer. The cause is the ``reason``, which goes to the log.
"""

from collections.abc import Mapping
from datetime import timedelta
from math import ceil
from typing import ClassVar, Final

from fastapi import HTTPException

NOT_AUTHENTICATED = "Not authenticated"
INVALID_TOKEN = "The access token is invalid"
EXPIRED_TOKEN = "The access token has expired"
_MAX_REPORTED_CHARACTERS: Final = 300
# Redis quotes the arguments of a command that it does not know, or that is disabled.
_ARGUMENTS: Final = ", with args"
# A number of more digits may be a secret.
_LONG: Final = 10**10
INVALID_PROOF = "The DPoP proof is invalid"
MORE_THAN_ONE_CREDENTIAL = "More than one credential"
INVALID_API_KEY = "Invalid API Key"
STALE_LOGIN = "More recent authentication is required"
FORBIDDEN = "Forbidden"
CONFLICT = "Conflict"
TOO_MANY_REQUESTS = "Too many requests"
SERVICE_UNAVAILABLE = "Service temporarily unavailable"

# What a 401 carries that no scheme has claimed, such as one that an endpoint raises: RFC 9110 15.5.2 wants a challenge.
DEFAULT_CHALLENGE = 'Bearer realm="api"'
CHALLENGE_HEADER = "WWW-Authenticate"


def has_challenge(headers: Mapping[str, str]) -> bool:
    """Return whether ``headers`` hold a challenge, however its name is written."""
    return CHALLENGE_HEADER in headers or any(name.lower() == "www-authenticate" for name in headers)


class GuardError(Exception):
    """The base of every error of this package."""


class ConfigurationError(GuardError, ValueError):
    """A configuration that would be unsafe or could not work; the message has the remedy."""


def shown(value: object) -> str:
    """Return what a message may show of a value that was configured: its type, since a text may be a secret.

    A number of ordinary size, a duration, a bool and ``None`` are shown as they are.
    """
    if value is None or isinstance(value, bool | float | timedelta) or (isinstance(value, int) and abs(value) < _LONG):
        return str(value)
    if isinstance(value, type):
        return f"the class {value.__name__:.80}"
    return f"text of {len(value)} characters" if isinstance(value, str) else f"{type(value).__name__:.80}"


def first_line(report: object) -> str:
    """Return the first line of what a library reported, at most 300 characters: what follows quotes values."""
    return str(report).strip().partition("\n")[0].partition(_ARGUMENTS)[0][:_MAX_REPORTED_CHARACTERS]


class MissingExtraError(GuardError, ImportError):
    """A feature needs an optional library that is not installed."""

    def __init__(self, library: str, extra: str) -> None:
        """Name the ``library`` that is missing and the ``extra`` of this distribution that brings it."""
        super().__init__(f"{library} is not installed: pip install 'fastapi-guard-auth[{extra}]'", name=library)
        self.extra = extra

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle by the arguments of this class, not by those of an ImportError."""
        return type(self), (self.name, self.extra)


class KeyNotFound(GuardError, LookupError):
    """There is no API key of that id."""


class KeyConflict(GuardError):
    """The API key was revoked or has expired, or another process was first; nothing was changed."""


class UserConflict(GuardError):
    """A user was changed or removed in the meantime, or a name belongs to another user; nothing was changed."""


class AuthError(GuardError, HTTPException):
    """An answer to a client: a status, a constant text, headers.

    Attributes:
        headers: What is sent beside the body; its own, so that a challenge can be put there.
        reason: Why, in one word for logs and events ("expired", "bad_signature"). It is never sent.
        auth: The name of the Auth that refused, for events; ``None`` where none did.
        requirement: What was required, for events, such as ``items:edit`` or "role editor". It is never sent.
    """

    status: ClassVar[int]
    default_detail: ClassVar[str]
    headers: dict[str, str]
    auth: str | None = None
    requirement: str | None = None

    def __init__(
        self, detail: str | None = None, *, reason: str = "refused", headers: Mapping[str, str] | None = None
    ) -> None:
        """Answer with ``detail``, or with the constant text of the class."""
        own = {} if headers is None else dict(headers)
        super().__init__(self.status, self.default_detail if detail is None else detail, own)
        self.reason = reason


class Unauthorized(AuthError):
    """401: no credential, or an invalid one.

    An Auth that catches one puts the challenge of its scheme on it. Raised anywhere else it answers
    ``Bearer realm="api"``. A ``WWW-Authenticate`` among ``headers`` is kept as it is.

    Attributes:
        error: The error code of RFC 6750 3.1, ``None`` where no credential came.
    """

    status = 401
    default_detail = NOT_AUTHENTICATED

    def __init__(
        self,
        detail: str | None = None,
        *,
        error: str | None = None,
        reason: str = "refused",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Answer with ``detail``; ``error`` becomes the code of the challenge."""
        super().__init__(detail, reason=reason, headers=headers)
        self.error = error
        self._has_own_challenge = has_challenge(self.headers) if headers else False
        if not self._has_own_challenge:
            self.headers[CHALLENGE_HEADER] = DEFAULT_CHALLENGE

    def challenge(self, challenge: str) -> None:
        """Set this challenge, unless the error was raised with one."""
        if not self._has_own_challenge:
            self.headers[CHALLENGE_HEADER] = challenge


def invalid_token(reason: str) -> Unauthorized:
    """Return the refusal of an invalid token, whatever the ``reason``, which goes to the log alone."""
    return Unauthorized(INVALID_TOKEN, error="invalid_token", reason=reason)


class Forbidden(AuthError):
    """403: who it is is known, and it is not allowed."""

    status = 403
    default_detail = FORBIDDEN


class Conflict(AuthError):
    """409: the name is taken, or the user was changed at the same time."""

    status = 409
    default_detail = CONFLICT


class _Temporary(AuthError):
    """An error with the time after which the client may try again (RFC 9110 10.2.3)."""

    default_reason: ClassVar[str]

    def __init__(
        self,
        detail: str | None = None,
        *,
        retry_after: float = 5,
        reason: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Answer with a Retry-After of ``retry_after`` seconds, rounded up, at least one."""
        waiting = {"Retry-After": str(max(1, ceil(retry_after)))}
        super().__init__(detail, reason=reason or self.default_reason, headers={**waiting, **(headers or {})})


class TooManyRequests(_Temporary):
    """429: throttled."""

    status = 429
    default_detail = TOO_MANY_REQUESTS
    default_reason = "throttled"


class ServiceUnavailable(_Temporary):
    """503: what is needed to decide cannot be reached. It is never a pass, and never a 401."""

    status = 503
    default_detail = SERVICE_UNAVAILABLE
    default_reason = "unavailable"
