"""Every refusal of an Auth: its text, its challenge, its event."""

from collections.abc import Mapping, Sequence
from logging import INFO
from typing import NoReturn

from fastapi import HTTPException

from fastapi_guard.events import Event, EventCallback, count, is_logged, publish
from fastapi_guard.exceptions import (
    CHALLENGE_HEADER,
    EXPIRED_TOKEN,
    INVALID_API_KEY,
    INVALID_PROOF,
    INVALID_TOKEN,
    MORE_THAN_ONE_CREDENTIAL,
    NOT_AUTHENTICATED,
    STALE_LOGIN,
    Forbidden,
    Unauthorized,
)
from fastapi_guard.schemes import Scheme, is_quotable

# Texts of ours that may stand in a challenge; what an application's own verify() says stays in the body.
_DESCRIPTIONS = (INVALID_TOKEN, EXPIRED_TOKEN, INVALID_API_KEY, INVALID_PROOF, MORE_THAN_ONE_CREDENTIAL)


class Refusals:
    """What an Auth says where it refuses, in the words of its scheme.

    Attributes:
        name: What the Auth is called in events and in ``request.state.auth_method``.
        missing_detail: The text for a connection without a credential.
        invalid_detail: The text for a credential that does not hold.
        scheme: Where the credential comes from, and how it is challenged.
    """

    name: str = "auth"
    missing_detail: str = NOT_AUTHENTICATED
    invalid_detail: str = INVALID_TOKEN

    def __init__(self, scheme: Scheme, on_event: EventCallback | None) -> None:
        """Challenge as ``scheme`` does, and tell ``on_event``."""
        self.scheme: Scheme = scheme
        self._on_event = on_event
        # The challenges of this scheme's own texts, by the plain one (announce() changes that) and these.
        self._challenges: dict[tuple[str, str], str] = {}

    def refuse_missing(self) -> Unauthorized:
        """Return the 401 for a connection without a credential."""
        self.report_refusal(Unauthorized.status, "missing")
        headers = {CHALLENGE_HEADER: self.scheme.plain_challenge}
        return Unauthorized(self.missing_detail, reason="missing", headers=headers)

    def refuse_unrecognised(self) -> Unauthorized:
        """Return the 401 for a credential that is like none of this Auth; whoever answers with it reports it."""
        return self.challenged(Unauthorized(error="invalid_token", reason="unrecognised"))

    def refuse_user(self) -> Unauthorized:
        """Return the 401 for a credential that holds, and whose user is not there."""
        self.report_refusal(Unauthorized.status, "unknown_user")
        return self.challenged(Unauthorized(error="invalid_token", reason="unknown_user"))

    def refuse_stale_login(self, max_age: int) -> Unauthorized:
        """Return the 401 for a login that is more than ``max_age`` seconds ago (RFC 9470 3)."""
        self.report_refusal(Unauthorized.status, "stale_login")
        said = {"error": "insufficient_user_authentication", "error_description": STALE_LOGIN}
        challenge = self.scheme.challenge(**said, max_age=str(max_age))
        return Unauthorized(STALE_LOGIN, reason="stale_login", headers={CHALLENGE_HEADER: challenge})

    def refuse_hidden(self) -> HTTPException:
        """Return the 404 for what somebody else owns, which is that for what is not there."""
        self.report_refusal(404, "not_owner")
        return HTTPException(404)

    def refuse(self, reason: str) -> Forbidden:
        """Return the 403 that says nothing: of a policy, an owner, a tenant, a role."""
        self.report_refusal(Forbidden.status, reason)
        return Forbidden(reason=reason)

    def refuse_scopes(self, required: Sequence[str], missing: str) -> NoReturn:
        """Refuse the scopes that are ``missing`` of those that are ``required`` (RFC 6750 3.1).

        Raises:
            Forbidden: Always.
        """
        self.report_refusal(Forbidden.status, "missing_scope")
        challenge = self.scheme.challenge(error="insufficient_scope", scope=" ".join(required))
        detail = f"Token is missing required scope: {missing}"
        raise Forbidden(detail, reason="missing_scope", headers={CHALLENGE_HEADER: challenge})

    def challenged(self, error: Unauthorized) -> Unauthorized:
        """Return the 401 for a credential that came, with the challenge of the scheme."""
        if error.detail in (INVALID_TOKEN, NOT_AUTHENTICATED):
            error.detail = self.invalid_detail
        description = error.detail if error.detail in _DESCRIPTIONS else INVALID_TOKEN
        if error.error != "invalid_token":
            code = error.error if error.error and is_quotable(error.error) else "invalid_token"
            error.challenge(self.scheme.refusal(code, description))
            return error
        said = (self.scheme.plain_challenge, description)
        if said not in self._challenges:
            self._challenges[said] = self.scheme.refusal("invalid_token", description)
        error.challenge(self._challenges[said])
        return error

    def report_refusal(self, status: int, reason: str) -> None:
        """Count a refusal, log it, and tell the callback."""
        if self._on_event is not None or is_logged(INFO):
            publish(Event("refused", self.name, status, reason), self._on_event)
        else:
            count(1, {"event": "refused", "auth": self.name, "status": status, "reason": reason})


def own_refusal(error: HTTPException) -> HTTPException:
    """Return a plain 401 of an application's own ``verify`` as an Unauthorized, and every other error as it is."""
    if isinstance(error, Unauthorized) or error.status_code != Unauthorized.status:
        return error
    return Unauthorized(error.detail, headers=error.headers)


def challenge_of(error: Unauthorized) -> str:
    """Return the challenge of a 401; each has one."""
    return next(value for name, value in (error.headers or {}).items() if name.lower() == CHALLENGE_HEADER.lower())


def with_challenge(error: Unauthorized, challenge: str) -> Mapping[str, str]:
    """Return the headers of a 401 with another challenge."""
    others = {name: value for name, value in (error.headers or {}).items() if name.lower() != CHALLENGE_HEADER.lower()}
    return {**others, CHALLENGE_HEADER: challenge}
