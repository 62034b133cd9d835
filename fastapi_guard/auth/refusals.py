"""The refusals of an Auth: text, challenge and event of each.

A refusal is a value until ``refuse`` raises it, which is the one place where it is counted, logged and reported.
"""

from collections.abc import Mapping, Sequence
from logging import INFO
from typing import NoReturn, TypeVar

from fastapi import HTTPException
from starlette.requests import HTTPConnection

from fastapi_guard.events import Event, EventCallback, count, is_logged, known_reason, place_of, publish, who_of
from fastapi_guard.exceptions import (
    CHALLENGE_HEADER,
    EXPIRED_TOKEN,
    INVALID_API_KEY,
    INVALID_PROOF,
    INVALID_TOKEN,
    MORE_THAN_ONE_CREDENTIAL,
    NOT_AUTHENTICATED,
    STALE_LOGIN,
    AuthError,
    Forbidden,
    Unauthorized,
)
from fastapi_guard.schemes import Scheme, is_quotable

ErrorT = TypeVar("ErrorT", bound=HTTPException)

# Our texts, which are safe in a challenge. The text of an application's own verify() stays in the body.
_DESCRIPTIONS = (INVALID_TOKEN, EXPIRED_TOKEN, INVALID_API_KEY, INVALID_PROOF, MORE_THAN_ONE_CREDENTIAL)


class Refusals:
    """Make, report and raise the refusals of one Auth.

    Attributes:
        name: The name of the Auth in events.
        scheme: The scheme whose challenges are sent.
        missing_detail: The text for a request without a credential.
        invalid_detail: The text for an invalid credential.
    """

    def __init__(
        self, name: str, scheme: Scheme, on_event: EventCallback | None, *, missing_detail: str, invalid_detail: str
    ) -> None:
        """Challenge by ``scheme``, and report to ``on_event``."""
        self.name = name
        self.scheme = scheme
        self.missing_detail = missing_detail
        self.invalid_detail = invalid_detail
        self._on_event = on_event
        # The challenges for our own texts, by the plain challenge (which announce() changes) and the text.
        self._challenges: dict[tuple[str, str], str] = {}
        # The 401 for a request without a credential, by its challenge: the same one for every such request.
        self._missing: dict[str, Unauthorized] = {}

    def refuse(
        self,
        connection: HTTPConnection,
        error: HTTPException,
        principal: object = None,
        *,
        requirement: str | None = None,
    ) -> NoReturn:
        """Report a refusal and raise it.

        Args:
            connection: The request or the WebSocket.
            error: The refusal. A copy is raised, so that one that is remembered never holds a traceback.
            principal: The principal, where the credential is valid.
            requirement: What was required, in words, where the error does not have it.

        Raises:
            HTTPException: Always.
        """
        self.report(connection, error, principal, requirement=requirement)
        # Without a name for it: a frame in its traceback that held it would keep the request until a full collection.
        raise copied_error(error, {} if requirement is None else {"requirement": requirement})

    def report(
        self,
        connection: HTTPConnection,
        error: HTTPException,
        principal: object = None,
        *,
        requirement: str | None = None,
    ) -> None:
        """Count a refusal, log it, and call the callback."""
        auth, reason = self.name, "refused"
        if isinstance(error, AuthError):
            auth, reason = error.auth or auth, error.reason
        elif error.status_code == 404:
            reason = "not_owner"
        status = error.status_code
        if self._on_event is not None or is_logged(INFO):
            required = requirement or getattr(error, "requirement", None)
            who, place = who_of(principal), place_of(connection)
            publish(Event("refused", auth, status, reason, requirement=required, **who, **place), self._on_event)
        else:
            count(1, {"event": "refused", "auth": auth, "status": status, "reason": known_reason(reason)})

    def of(self, error: HTTPException) -> HTTPException:
        """Return what ``verify`` raised as a refusal of this Auth, with its challenge.

        A plain 401 of the application becomes an Unauthorized; any other error that is not an AuthError stays as it is.
        """
        if not isinstance(error, AuthError):
            if error.status_code != Unauthorized.status:
                return error
            error = Unauthorized(error.detail, headers=error.headers)
        if isinstance(error, Unauthorized):
            self.challenge(error)
        error.auth = self.name
        return error

    def challenge(self, error: Unauthorized) -> Unauthorized:
        """Put the challenge of the scheme on the 401 for an invalid credential, and return it."""
        if error.detail in (INVALID_TOKEN, NOT_AUTHENTICATED):
            error.detail = self.invalid_detail
        description = error.detail if error.detail in _DESCRIPTIONS else INVALID_TOKEN
        if error.error != "invalid_token":
            code = error.error if error.error and is_quotable(error.error) else "invalid_token"
            error.challenge(self.scheme.refusal(code, description))
            return error
        key = (self.scheme.plain_challenge, description)
        if key not in self._challenges:
            self._challenges[key] = self.scheme.refusal("invalid_token", description)
        error.challenge(self._challenges[key])
        return error

    def missing(self, scopes: Sequence[str] = ()) -> Unauthorized:
        """Return the 401 for a request without a credential, whose challenge names ``scopes``."""
        challenge = self.scheme.missing(scopes)
        if challenge not in self._missing:
            headers = {CHALLENGE_HEADER: challenge}
            self._missing[challenge] = Unauthorized(self.missing_detail, reason="missing", headers=headers)
        return self._missing[challenge]

    def unrecognised(self) -> Unauthorized:
        """Return the 401 for a credential that does not look like one of this Auth's."""
        return self.challenge(Unauthorized(error="invalid_token", reason="unrecognised"))

    def unknown_user(self) -> Unauthorized:
        """Return the 401 for a valid credential whose user does not exist."""
        return self.challenge(Unauthorized(error="invalid_token", reason="unknown_user"))

    def stale_login(self, *, max_age: int | None = None, acr_values: str | None = None) -> Unauthorized:
        """Return the 401 for a login that is too old or too weak (RFC 9470 3).

        Args:
            max_age: The greatest age of the login in seconds.
            acr_values: The authentication contexts that would do, separated by spaces.
        """
        parameters = {"error": "insufficient_user_authentication", "error_description": STALE_LOGIN}
        if acr_values is not None:
            parameters["acr_values"] = acr_values
        if max_age is not None:
            parameters["max_age"] = str(max_age)
        headers = {CHALLENGE_HEADER: self.scheme.challenge(**parameters)}
        return Unauthorized(STALE_LOGIN, error=parameters["error"], reason="stale_login", headers=headers)

    def missing_scope(self, required: Sequence[str], missing: str) -> Forbidden:
        """Return the 403 for the scopes that are ``missing`` of those that are ``required`` (RFC 6750 3.1)."""
        challenge = self.scheme.challenge(error="insufficient_scope", scope=" ".join(required))
        detail = f"Token is missing required scope: {missing}"
        error = Forbidden(detail, reason="missing_scope", headers={CHALLENGE_HEADER: challenge})
        error.requirement = missing
        return error


def without_traceback(error: ErrorT) -> ErrorT:
    """Return an error without its traceback and what it was raised from, which would keep the request alive."""
    error.__traceback__ = error.__context__ = error.__cause__ = None
    return error


def copied_error(error: ErrorT, attributes: Mapping[str, object] | None = None) -> ErrorT:
    """Return an equal error that was never raised, of the same class, without calling its constructor.

    Args:
        error: The error.
        attributes: Attributes of the copy in place of its own.
    """
    copied = type(error).__new__(type(error), *error.args)
    copied.__dict__.update(error.__dict__, **(attributes or {}))
    return copied


def challenge_of(error: Unauthorized) -> str:
    """Return the challenge of a 401; each has one."""
    return next(value for name, value in error.headers.items() if name.lower() == CHALLENGE_HEADER.lower())


def with_challenge(error: Unauthorized, challenge: str) -> Unauthorized:
    """Return a copy of a 401 with another challenge."""
    others = {name: value for name, value in error.headers.items() if name.lower() != CHALLENGE_HEADER.lower()}
    copied = copied_error(error)
    copied.headers = {**others, CHALLENGE_HEADER: challenge}
    return copied
