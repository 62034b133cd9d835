"""How an AnyAuth decides: its members, one after the other, each by its own decision and memo."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import params
from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import get_dependant, solve_dependencies
from fastapi.exceptions import RequestValidationError
from fastapi.security import SecurityScopes
from starlette.requests import HTTPConnection

from fastapi_guard.auth.auth import Auth
from fastapi_guard.auth.decision import Decided, Decision, Verified
from fastapi_guard.auth.guard import Guard, as_credential
from fastapi_guard.auth.refusals import Refusals, challenge_of, with_challenge
from fastapi_guard.auth.scopes import ScopesAuth
from fastapi_guard.claims import NO_GRANTS, Claims, Grants
from fastapi_guard.exceptions import (
    AuthError,
    Forbidden,
    ServiceUnavailable,
    Unauthorized,
)
from fastapi_guard.schemes import CallableScheme, Scheme
from fastapi_guard.schemes.challenges import merged

if TYPE_CHECKING:
    from fastapi_guard.auth.any_of import AnyAuth

# The credentials that FastAPI resolved, by the member whose scheme is a callable of the application.
Resolved = Mapping[Auth[Any], str | None]


class Overridden(Verified[Any]):
    """A principal that a test put in place of a member's: its scopes are not checked either."""


class AnyDecision(Decision[Claims]):
    """The first member, in their order, that verifies a credential decides.

    Attributes:
        members: The Auths whose credential is required.
        all_members: All members, whatever is required.
        overridable: The dependency that a test overrides in place of this narrowed one, ``None`` where it is not.
    """

    auth: "AnyAuth"

    def __init__(
        self,
        auth: "AnyAuth",
        refusals: Refusals,
        members: Sequence[Auth[Any]],
        overridable: Guard[Claims] | None = None,
    ) -> None:
        """Decide by ``members``; a credential of another member of ``auth`` is a 403.

        Args:
            auth: The AnyAuth.
            refusals: Its refusals.
            members: Those of its members whose credential is required.
            overridable: The dependency that a test overrides in place of a narrowed one.
        """
        super().__init__(
            auth,
            refusals,
            is_cookie=False,
            checks_presence_only=any(member.dependency.checks_presence_only for member in members),
        )
        self.members: tuple[Auth[Any], ...] = tuple(members)
        self.all_members: tuple[Auth[Any], ...] = auth.members
        self.overridable = overridable
        self._others = [member for member in self.all_members if member not in self.members]
        decisions = (member.dependency.decision for member in self.all_members)
        self._single_use: tuple[Decision[Any], ...] = tuple(one for one in decisions if one.is_single_use)
        scoped = (member for member in self.all_members if isinstance(member, ScopesAuth))
        self._spokesman = next(scoped, self.all_members[0]).dependency.decision

    def recall(self, connection: HTTPConnection, raw: str | None = None) -> Decided:
        """Return what was decided about what is presented, ``None`` where nothing was."""
        del raw
        return self.recall_among(connection, {})

    def recall_among(self, connection: HTTPConnection, resolved: Resolved) -> Decided:
        """Return what was decided about what is presented, with the credentials that FastAPI ``resolved``."""
        decided = super().recall(connection)
        if not isinstance(decided, Verified) or isinstance(decided, Overridden):
            return decided
        member = decided.auth
        if member in resolved:
            again = member.dependency.decision.recall(connection, resolved[member] or "")
        elif member.scheme.reads_fields_alone or member not in self.all_members:
            return decided
        else:
            again = member.dependency.decision.recall(connection)
        return decided if again is decided else None

    async def decide(
        self, connection: HTTPConnection, raw: str | None = None, *, among_several: bool = False
    ) -> Decided:
        """Return what the first member decides that accepts, or why none does, and remember it."""
        del among_several
        return await self.decide_among(connection, {} if raw is None else dict.fromkeys(self.members, raw))

    async def decide_among(self, connection: HTTPConnection, resolved: Resolved, scopes: Sequence[str] = ()) -> Decided:
        """Decide with the credentials that FastAPI ``resolved``; ``scopes`` are for a member that a test overrides.

        Raises:
            HTTPException: The application's own ``verify`` raised one that is not an AuthError.
        """
        # Whichever member decides, and however: a ticket in the URL is neither logged nor of any use afterwards.
        for decision in self._single_use:
            decision.withdraw(connection)
        try:
            decided = await self._first(self.members, connection, resolved, scopes)
            if self._others and (decided is None or isinstance(decided, Unauthorized)):
                other = await self._first(self._others, connection, resolved, scopes)
                if isinstance(other, Verified):
                    decided = Forbidden(reason="other_credential")
                elif other is not None and not isinstance(other, Unauthorized):
                    decided = other
        finally:
            for decision in self._single_use:
                if decision.recall(connection) is None:
                    await decision.use_up(connection)
        if decided is not None:
            self.keep(connection, decided)
        return decided

    def refusals_of(self, refusal: AuthError) -> Refusals:
        """Return the refusals of the member that refused, or else of the whole."""
        found = (member for member in self.all_members if member.name == refusal.auth)
        member = next(found, None)
        return self.refusals if member is None else member.dependency.decision.refusals

    @property
    def spokesman(self) -> Decision[Any]:
        """The decision of the first member with scopes, where a test overrides the guard."""
        return self._spokesman

    def grants(self, connection: HTTPConnection, principal: Claims) -> Grants:
        """Return what the member granted that verified ``principal``, or would where a test put it there."""
        decided = self.recall(connection)
        if isinstance(decided, Overridden):
            return decided.auth.grants_of(principal)
        return super().grants(connection, principal)

    def missing(self, grants: Grants, scopes: Sequence[str]) -> str | None:
        """Return the first of ``scopes`` that is not granted, where the member that verified is not known."""
        return self.spokesman.missing(grants, scopes)

    def tenants(self, claims: Claims) -> frozenset[str]:
        """Return the tenants that claims name whose member is not known."""
        return self.spokesman.tenants(claims)

    async def _first(
        self, members: Sequence[Auth[Any]], connection: HTTPConnection, resolved: Resolved, scopes: Sequence[str]
    ) -> Decided:
        refused: dict[Auth[Any], AuthError] = {}
        unrecognised: dict[Auth[Any], AuthError] = {}
        for member in members:
            decided = await _decided_by(member, connection, resolved, scopes)
            if decided is None:
                continue
            if not isinstance(decided, Unauthorized | ServiceUnavailable):
                return decided
            if decided.reason == "unrecognised" and decided.auth is None:
                # Something came where they look that resembles none of their credentials.
                unrecognised = unrecognised or {member: decided}
                continue
            refused[member] = decided
            if _is_ambiguous(decided):
                break
        return _merged_refusal(members, refused or unrecognised)


class AnyGuard(Guard[Claims]):
    """The guard of an AnyAuth: flat, whatever the number of members."""

    auth: "AnyAuth"
    decision: AnyDecision

    def __init__(self, decision: AnyDecision, *, optional: bool = False, ignore_invalid: bool = False) -> None:
        """Guard by ``decision``."""
        super().__init__(decision, optional=optional, ignore_invalid=ignore_invalid)
        self.members: Sequence[Auth[Any]] = decision.members
        # FastAPI resolves the schemes that are callables of the application.
        self._resolved = {
            f"raw_{number}": member for number, member in enumerate(decision.all_members) if _is_callable(member)
        }
        self.is_flat: bool = not self._resolved
        self.ignored: frozenset[str] = frozenset(
            name for name, member in self._resolved.items() if member not in self.members
        )
        self.__signature__: inspect.Signature = inspect.Signature(list(self._parameters()))

    async def __call__(
        self, connection: HTTPConnection, security_scopes: SecurityScopes, **resolved: Any
    ) -> Claims | None:
        """Admit the connection, as FastAPI's dependency."""
        decision, scopes = self.decision, security_scopes.scopes
        if decision.overridable is not None and decision.overridable in _overrides(connection):
            claims: Claims | None = await overriding(decision.overridable, connection, scopes)
            return claims
        raws = {self._resolved[name]: as_credential(raw) for name, raw in resolved.items()}
        decided = decision.recall_among(connection, raws)
        if decided is None:
            decided = await decision.decide_among(connection, raws, scopes)
        return decided.principal if isinstance(decided, Overridden) else self.admit(connection, decided, scopes)

    @property
    def schemes(self) -> tuple[Scheme, ...]:
        """Those of the members that extract by themselves, each an alternative."""
        return tuple(member.scheme for member in self.members if not _is_callable(member))

    def _parameters(self) -> Iterator[inspect.Parameter]:
        kind = inspect.Parameter.KEYWORD_ONLY
        yield inspect.Parameter("connection", kind, annotation=HTTPConnection)
        yield inspect.Parameter("security_scopes", kind, annotation=SecurityScopes)
        for name, member in self._resolved.items():
            scheme: Any = member.scheme
            yield inspect.Parameter(name, kind, annotation=Annotated[Any, params.Depends(scheme.call)])


def _merged_refusal(members: Sequence[Auth[Any]], refused: Mapping[Auth[Any], AuthError]) -> AuthError | None:
    unauthorized = {member: error for member, error in refused.items() if isinstance(error, Unauthorized)}
    ambiguous = [error for error in unauthorized.values() if _is_ambiguous(error)]
    unavailable = [error for error in refused.values() if isinstance(error, ServiceUnavailable)]
    if unavailable and not ambiguous:
        return unavailable[0]
    error = next(iter(ambiguous or unauthorized.values()), None)
    if error is None:
        return None
    challenges = (
        challenge_of(unauthorized[member]) if member in unauthorized else member.scheme.plain_challenge
        for member in members
    )
    return with_challenge(error, merged(*challenges))


async def overriding(dependency: Guard[Any], connection: HTTPConnection, scopes: Sequence[str]) -> Any:
    """Return what a test put in place of ``dependency``, resolved as FastAPI does it."""
    dependant = get_dependant(path="", call=dependency, name="principal", own_oauth_scopes=list(scopes))
    solved = await solve_dependencies(
        request=connection,  # type: ignore[arg-type]
        dependant=Dependant(dependencies=[dependant]),
        dependency_overrides_provider=connection.scope["app"],
        async_exit_stack=connection.scope["fastapi_inner_astack"],
        embed_body_fields=False,
    )
    if solved.errors:
        raise RequestValidationError(solved.errors)
    return solved.values["principal"]


async def _decided_by(
    member: Auth[Any], connection: HTTPConnection, resolved: Resolved, scopes: Sequence[str]
) -> Decided:
    if member.dependency in _overrides(connection):
        return await _overridden(member, connection, scopes)
    decision = member.dependency.decision
    decided = decision.recall(connection, (resolved[member] or "") if member in resolved else None)
    if decided is not None:
        return decided
    if member not in resolved:
        return await decision.decide(connection, among_several=True)
    raw = resolved[member]
    return None if raw is None else await decision.decide(connection, raw, among_several=True)


async def _overridden(member: Auth[Any], connection: HTTPConnection, scopes: Sequence[str]) -> Decided:
    try:
        principal = await overriding(member.dependency, connection, scopes)
    except Unauthorized as error:
        return None if error.reason == "missing" else member.dependency.decision.refusals.challenge(error)
    return None if principal is None else Overridden(principal, NO_GRANTS, member)


def _overrides(connection: HTTPConnection) -> Mapping[Any, Any]:
    """Return what the tests of the application put in place of dependencies, nothing outside of tests."""
    return getattr(connection.scope.get("app"), "dependency_overrides", _NONE)


def _is_ambiguous(error: AuthError) -> bool:
    """Return whether there are two credentials where there may be one: no other member may choose between them."""
    return isinstance(error, Unauthorized) and error.error == "invalid_request"


def _is_callable(member: Auth[Any]) -> bool:
    return isinstance(member.scheme, CallableScheme)


_NONE: Mapping[Any, Any] = MappingProxyType({})
