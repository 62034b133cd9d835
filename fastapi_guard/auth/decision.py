"""Decide about a connection once: extract, apply the origin rule, verify, remember.

This is the one way to a principal. Guards, AnyAuth, middleware and mounts all call ``Decision.decide`` and get the
outcome as a value: ``Verified``, an AuthError that is not raised yet, or ``None`` where no credential was sent.
"""

from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass
from logging import DEBUG
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, Generic, TypeAlias

from fastapi import HTTPException
from starlette.requests import HTTPConnection
from typing_extensions import TypeVar

from fastapi_guard.auth.refusals import Refusals, without_traceback
from fastapi_guard.claims import GrantRules, Grants
from fastapi_guard.events import (
    Event,
    EventCallback,
    attributes_of,
    count,
    is_logged,
    place_of,
    publish,
    record_duration,
    who_of,
)
from fastapi_guard.exceptions import INVALID_TOKEN, AuthError, Forbidden, ServiceUnavailable, Unauthorized
from fastapi_guard.schemes import CallableScheme
from fastapi_guard.schemes.origin import is_same_origin

if TYPE_CHECKING:
    from fastapi_guard.auth.auth import Auth
    from fastapi_guard.auth.guard import Guard

# Without a type argument the principal is the raw credential, as the base class verifies it.
PrincipalT = TypeVar("PrincipalT", default=str)

# Where a connection's scope keeps what was decided:
# {decision: (outcome, header fields, query string, method, credential that is in none of them)}.
_MEMO: Final = "fastapi_guard.decided"


# Not frozen: each request makes one, and that would cost twice as much.
@dataclass(slots=True, eq=False)
class Verified(Generic[PrincipalT]):
    """A valid credential.

    Attributes:
        principal: What ``verify`` returned, a claims dict for most.
        grants: What the principal may do, fixed at verification.
        auth: The Auth that verified it: of an AnyAuth, the member.
    """

    principal: PrincipalT
    grants: Grants
    auth: "Auth[Any]"


# ``None``: no credential was sent.
Decided: TypeAlias = Verified[Any] | AuthError | None


def verified_on(connection: HTTPConnection) -> tuple[Verified[Any], ...]:
    """Return what was verified on a connection, one for each Auth."""
    outcomes = (kept[0] for kept in connection.scope.get(_MEMO, {}).values())
    verified = {outcome.auth: outcome for outcome in outcomes if isinstance(outcome, Verified)}
    return tuple(verified.values())


def without_memo(scope: MutableMapping[str, Any]) -> dict[str, Any]:
    """Return a copy of a connection's scope on which nothing was decided yet, with a state of its own."""
    return {**{name: value for name, value in scope.items() if name != _MEMO}, "state": {}}


def replace_query(scope: MutableMapping[str, Any], query: bytes) -> None:
    """Set the query string of a connection; what was decided about it stays decided."""
    before, scope["query_string"] = scope.get("query_string"), query
    memo = scope.get(_MEMO, {})
    moved = {key: (*kept[:2], query, *kept[3:]) for key, kept in memo.items() if kept[2] == before}
    scope[_MEMO] = {**memo, **moved}


class Decision(Generic[PrincipalT]):
    """How one Auth decides about a connection, and the memo of what it decided.

    Attributes:
        auth: The Auth.
        refusals: What it answers where it refuses.
        is_cookie: Whether the same-origin rule applies.
        checks_presence_only: Whether any credential at all passes, because nothing verifies it.
        guards: The callables that FastAPI calls for this decision, which a test overrides.
        is_single_use: Whether its credentials are used up by being sent: see ``withdraw`` and ``use_up``.
    """

    is_single_use: bool = False

    def __init__(
        self,
        auth: "Auth[PrincipalT]",
        refusals: Refusals,
        *,
        is_cookie: bool,
        trusted_origins: frozenset[bytes] = frozenset(),
        checks_presence_only: bool = False,
        on_event: EventCallback | None = None,
    ) -> None:
        """Decide for ``auth``; a cookie counts only from this origin and ``trusted_origins``."""
        self.auth = auth
        self.refusals = refusals
        self.is_cookie = is_cookie
        self.checks_presence_only = checks_presence_only
        self.guards: list[Guard[PrincipalT]] = []
        self._trusted_origins = trusted_origins
        self._reads_fields_alone = auth.scheme.reads_fields_alone
        self._on_event = on_event
        self._authenticated = attributes_of(Event("authenticated", auth.name))
        self._verified = {"auth": auth.name, "outcome": "verified"}

    def recall(self, connection: HTTPConnection, raw: str | None = None) -> Decided:
        """Return what was decided about what is presented, ``None`` where nothing was.

        That is the method, the header fields and the query string; a credential that comes from elsewhere too, such as
        one in a session or in the path. ``raw`` is the credential where FastAPI resolved the scheme, empty for none.
        """
        scope = connection.scope
        if _MEMO in scope:
            kept = scope[_MEMO].get(self)
            if kept is not None and kept[1:4] == (scope["headers"], scope.get("query_string"), scope.get("method")):
                outcome: Decided = kept[0]
                if kept[4] is None or kept[4] == (self._extracted(connection, kept[4]) if raw is None else raw):
                    return outcome
        return None

    async def decide(
        self, connection: HTTPConnection, raw: str | None = None, *, among_several: bool = False
    ) -> Decided:
        """Verify the credential on ``connection``, and remember the outcome, good or bad.

        Args:
            connection: The request or the WebSocket.
            raw: The credential, where FastAPI resolved the scheme.
            among_several: Whether other Auths may read the same field: then a credential that this Auth does not
                recognise is refused without being verified, and that is not remembered.

        Raises:
            HTTPException: The application's own verification raised one that is not an AuthError, as it is.
        """
        auth, started, presented = self.auth, perf_counter(), raw
        try:
            if raw is None:
                raw = auth.scheme.extract(connection)
                if raw is None:
                    return None
                presented = None if self._reads_fields_alone else raw
            if among_several and not auth.recognises(raw):
                return self.refusals.unrecognised()
            if self.is_cookie and not is_same_origin(connection, self._trusted_origins):
                raise Forbidden(reason="cross_origin")
            verified = self.accept(connection, await auth.verify_request(connection, raw), presented)
        except HTTPException as raised:
            error = self.refusals.of(raised)
            if not isinstance(error, AuthError):
                self.refusals.report(connection, error)
                raise
        else:
            record_duration(perf_counter() - started, self._verified)
            return verified
        outcome = "unavailable" if isinstance(error, ServiceUnavailable) else "refused"
        record_duration(perf_counter() - started, {"auth": auth.name, "outcome": outcome})
        self.keep(connection, without_traceback(error), presented)
        return error

    def accept(
        self, connection: HTTPConnection, principal: PrincipalT, presented: str | None = None
    ) -> Verified[PrincipalT]:
        """Keep ``principal`` on ``connection`` as verified: every guard of this Auth sees it from here on.

        Sets ``request.state.auth_method``, and ``request.state.claims`` where the principal is a claims dict.

        Raises:
            Unauthorized: The principal is ``None`` or ``False``.
        """
        if principal is None or principal is False:
            raise Unauthorized(INVALID_TOKEN, error="invalid_token")
        auth = self.auth
        verified = Verified(principal, auth.grants_of(principal), auth)
        self.keep(connection, verified, presented)
        state = connection.scope.setdefault("state", {})
        state["auth_method"] = auth.name
        if isinstance(principal, dict):
            state["claims"] = principal
        if self._on_event is not None or is_logged(DEBUG):
            publish(Event("authenticated", auth.name, **who_of(principal), **place_of(connection)), self._on_event)
        else:
            count(1, self._authenticated)
        return verified

    def withdraw(self, connection: HTTPConnection) -> None:
        """Remove a credential for single use from the URL, before anything is decided; the scheme still finds it."""

    async def use_up(self, connection: HTTPConnection) -> None:
        """Use up a credential for single use that was sent, where another Auth's decided."""

    def keep(self, connection: HTTPConnection, outcome: Decided, presented: str | None = None) -> None:
        """Remember an outcome for what was presented; ``presented`` is a credential from elsewhere (see ``recall``)."""
        scope = connection.scope
        # A copy of the list, since an application may change the one in the scope.
        kept = (outcome, list(scope["headers"]), scope.get("query_string"), scope.get("method"), presented)
        # A new dict: requests that an application makes with copies of one scope do not replace each other's outcome.
        scope[_MEMO] = {**scope.get(_MEMO, {}), self: kept}

    def decider(self, connection: HTTPConnection) -> "Decision[Any]":
        """Return the decision of the Auth that verified what came on ``connection``: this one, or that of a member."""
        decided = self.recall(connection)
        return decided.auth.dependency.decision if isinstance(decided, Verified) else self.spokesman

    def grants(self, connection: HTTPConnection, principal: PrincipalT) -> Grants:
        """Return what was granted at verification.

        Where a test overrides the guard, nothing was verified, and ``principal`` is all there is.
        """
        decided = self.recall(connection)
        return decided.grants if isinstance(decided, Verified) else self.spokesman.auth.grants_of(principal)

    def _extracted(self, connection: HTTPConnection, resolved: str) -> str | None:
        # A scheme that FastAPI resolves cannot extract, so that what it ``resolved`` counts.
        try:
            return resolved if isinstance(self.auth.scheme, CallableScheme) else self.auth.scheme.extract(connection)
        except AuthError:
            return None

    def refusals_of(self, refusal: AuthError) -> Refusals:  # noqa: ARG002 - an AnyAuth has members
        """Return the refusals by which a refusal is reported."""
        return self.refusals

    @property
    def spokesman(self) -> "Decision[Any]":
        """The decision that counts where nothing was verified, since a test overrides the guard."""
        return self

    def now(self) -> float:
        """Return the time by the clock of the Auth, in seconds since the epoch."""
        return self.auth._clock()  # noqa: SLF001 - a subclass sets its clock when it is constructed

    def covers(self, grants: Grants, scope: str) -> bool:
        """Return whether ``grants`` cover a scope."""
        return self.missing(grants, (scope,)) is None

    def missing(self, grants: Grants, scopes: Sequence[str]) -> str | None:  # noqa: ARG002 - it grants none
        """Return the first of ``scopes`` that is not granted, ``None`` where all are."""
        return scopes[0]

    @property
    def rules(self) -> GrantRules | None:
        """Which claims grant scopes and roles, ``None`` for an Auth without scopes."""
        return None

    def tenants(self, claims: Any) -> frozenset[str]:  # noqa: ARG002 - an Auth without claims has no tenants
        """Return the tenants that claims name, as text; an empty set means no tenant, never any tenant."""
        return frozenset()
