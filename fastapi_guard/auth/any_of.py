"""AnyAuth: several Auths, where one credential of any of them is enough."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from copy import copy
from datetime import timedelta
from typing import Any, Literal, TypeAlias, TypedDict, Unpack

from fastapi import HTTPException, params

from fastapi_guard.auth.any_decision import AnyDecision, AnyGuard
from fastapi_guard.auth.auth import Auth
from fastapi_guard.auth.guard import Guard
from fastapi_guard.auth.placement import guard_method
from fastapi_guard.auth.policy import Owner
from fastapi_guard.auth.scopes import ScopesAuth
from fastapi_guard.claims import Claims, Grants
from fastapi_guard.events import EventCallback
from fastapi_guard.exceptions import (
    INVALID_TOKEN,
    NOT_AUTHENTICATED,
    ConfigurationError,
    ServiceUnavailable,
    Unauthorized,
)
from fastapi_guard.schemes.several import AnyScheme
from fastapi_guard.stores.arguments import check_options

# The names of the members whose credential is required; by default of any.
Via: TypeAlias = Sequence[str] | None


class AnyOptions(TypedDict, total=False):
    """The keyword arguments of an AnyAuth; see AuthOptions."""

    name: str
    on_event: EventCallback


class AnyAuth(ScopesAuth):
    """Several Auths: the first, in their order, that verifies a credential decides.

    A member whose scheme finds nothing is skipped, and so is one that does not recognise what its scheme found. A
    refusal falls through to the next, a 403 does not. Where no member accepts, the 401 has the challenges of all.

    Each guard takes ``via``, the names of the members whose credential is required; a valid credential of another
    member is a 403.

    Attributes:
        members: The Auths; another AnyAuth among them is replaced by its members.
    """

    name = "any"

    def __init__(self, *members: Auth[Any], **options: Unpack[AnyOptions]) -> None:
        """Accept a credential of any of ``members``.

        Raises:
            ConfigurationError: There is none, one is not an Auth, two have one name, or an option is one of a member's.
        """
        check_options("AnyAuth", options, AnyOptions, "pass it to its members, whose scopes and roles count")
        self.members: tuple[Auth[Any], ...] = tuple(_flat(members))
        names = [member.name for member in self.members]
        if not names:
            msg = "AnyAuth() needs at least one Auth: AnyAuth(jwt, keys)"
            raise ConfigurationError(msg)
        if twice := sorted({name for name in names if names.count(name) > 1}):
            msg = f"two members of an AnyAuth are called {', '.join(twice)}: give one another name="
            raise ConfigurationError(msg)
        self._all_members = self.members
        details = {member.dependency.decision.refusals.missing_detail for member in self.members}
        self._missing_detail = details.pop() if len(details) == 1 else NOT_AUTHENTICATED
        self._narrowed: dict[tuple[Auth[Any], ...], AnyAuth] = {}
        super().__init__(AnyScheme([member.scheme for member in self.members]), **options)

    async def verify(self, raw: str) -> Claims:
        """Return the principal of the first member that recognises a raw credential and accepts it.

        Raises:
            Unauthorized: None does.
            ServiceUnavailable: None does, and one cannot decide now.
        """
        errors: list[HTTPException] = []
        for member in self.members:
            if member.recognises(raw):
                try:
                    principal: Claims | Literal[False] | None = await member.verify(raw)
                except HTTPException as raised:
                    error = member.dependency.decision.refusals.of(raised)
                    if not isinstance(error, Unauthorized | ServiceUnavailable):
                        raise
                    errors.append(error)
                else:
                    if principal is not None and principal is not False:
                        return principal
        unavailable = [error for error in errors if isinstance(error, ServiceUnavailable)]
        unrecognised = Unauthorized(INVALID_TOKEN, error="invalid_token", reason="unrecognised")
        raise next(iter(unavailable or errors), unrecognised)

    def recognises(self, raw: str) -> bool:
        """Return whether a raw credential looks like one of a member's."""
        return any(member.recognises(raw) for member in self.members)

    def grants_of(self, principal: Claims) -> Grants:
        """Return what a principal may do whose member is not known."""
        return self.dependency.decision.spokesman.auth.grants_of(principal)

    async def aclose(self) -> None:
        """Release what the members keep open."""
        for member in self.members:
            await member.aclose()

    @guard_method
    def authenticated(self, *, via: Via = None) -> params.Security:
        """Require a valid credential; returns the principal.

        Args:
            via: The names of the members whose credential is required; another member's is a 403.

        Raises:
            ConfigurationError: ``via`` names no member.
        """
        return super(AnyAuth, self._via(via)).authenticated()

    @guard_method
    def optional(self, *, ignore_invalid: bool = False, via: Via = None) -> params.Security:
        """Return the principal, or ``None`` where no credential was sent; see ``Auth.optional``."""
        return super(AnyAuth, self._via(via)).optional(ignore_invalid=ignore_invalid)

    @guard_method
    def user(self, load: Callable[..., Any], *scopes: str, via: Via = None) -> params.Security:
        """Require all of ``scopes``, and return what ``load(claims, ...)`` returns; see ``Auth.user``."""
        return super(AnyAuth, self._via(via)).user(load, *scopes)

    @guard_method
    def allows(self, policy: Callable[..., Any], *scopes: str, via: Via = None) -> params.Security:
        """Require all of ``scopes``, and that ``policy(claims, ...)`` returns ``True``; see ``Auth.allows``."""
        return super(AnyAuth, self._via(via)).allows(policy, *scopes)

    @guard_method
    def owned(
        self,
        load: Callable[..., Any],
        *scopes: str,
        owner: Owner,
        or_scope: str | None = None,
        hide: bool = False,
        via: Via = None,
    ) -> params.Security:
        """Require that the caller owns what ``load(...)`` returns, and return it; see ``Auth.owned``."""
        return super(AnyAuth, self._via(via)).owned(load, *scopes, owner=owner, or_scope=or_scope, hide=hide)

    @guard_method
    def requires_recent(self, max_age: int | timedelta, *, via: Via = None) -> params.Security:
        """Require a login at most ``max_age`` seconds ago; see ``Auth.requires_recent``."""
        return super(AnyAuth, self._via(via)).requires_recent(max_age)

    @guard_method
    def requires_factor(
        self,
        factor: str,
        *,
        max_age: int | timedelta | None = None,
        acr_values: str | None = None,
        via: Via = None,
    ) -> params.Security:
        """Require that the login used a factor; see ``Auth.requires_factor``."""
        return super(AnyAuth, self._via(via)).requires_factor(factor, max_age=max_age, acr_values=acr_values)

    @guard_method
    def requires(self, *scopes: str, via: Via = None) -> params.Security:
        """Require all of ``scopes``, granted by the member that verified; returns the claims.

        Args:
            scopes: The required scopes; without any the same as ``authenticated()``.
            via: The names of the members whose credential is required; another member's is a 403.

        Raises:
            ConfigurationError: One is not a scope, or ``via`` names no member.
        """
        return super(AnyAuth, self._via(via)).requires(*scopes)

    @guard_method
    def requires_any(self, *scopes: str, via: Via = None) -> params.Security:
        """Require at least one of ``scopes``; see ``ScopesAuth.requires_any``."""
        return super(AnyAuth, self._via(via)).requires_any(*scopes)

    @guard_method
    def requires_role(self, *roles: str, via: Via = None) -> params.Security:
        """Require at least one of ``roles``, by name; see ``ScopesAuth.requires_role``."""
        return super(AnyAuth, self._via(via)).requires_role(*roles)

    @guard_method
    def requires_admin(self, *, via: Via = None) -> params.Security:
        """Require the claim ``is_admin`` to be ``True``; see ``ScopesAuth.requires_admin``."""
        return super(AnyAuth, self._via(via)).requires_admin()

    @guard_method
    def requires_tenant(self, path_param: str = "tenant", *, via: Via = None) -> params.Security:
        """Require the tenant in the path to be the caller's; see ``ScopesAuth.requires_tenant``."""
        return super(AnyAuth, self._via(via)).requires_tenant(path_param)

    @guard_method
    def granted(self, *, via: Via = None) -> params.Depends:
        """Return the granted scopes as a frozenset; see ``ScopesAuth.granted``."""
        return super(AnyAuth, self._via(via)).granted()

    def covers(self, claims: Claims, *scopes: str) -> bool:
        """Return whether ``claims`` grant all of ``scopes`` by every member: any may have verified them."""
        return all(member.covers(claims, *scopes) for member in self._scoped())

    def has_scope(self, scope: str, granted: Sequence[str]) -> bool:
        """Return whether the ``granted`` scopes cover ``scope``, by the validator of every member."""
        return all(member.has_scope(scope, granted) for member in self._scoped())

    def _via(self, via: Via) -> "AnyAuth":
        if via is None:
            return self
        names = [member.name for member in self._all_members]
        is_list = isinstance(via, Collection) and not isinstance(via, str)
        if not is_list or not via or not all(name in names for name in via):
            msg = f"via is a list of members, of {names}, not {via!r}"
            raise ConfigurationError(msg)
        members = tuple(member for member in self._all_members if member.name in via)
        if members == self._all_members:
            return self
        if members not in self._narrowed:
            self._narrowed[members] = self._narrow(members)
        return self._narrowed[members]

    def _narrow(self, members: tuple[Auth[Any], ...]) -> "AnyAuth":
        # The same AnyAuth for the eyes of a test that overrides its dependency, with guards of its own.
        narrowed = copy(self)
        narrowed.scheme = AnyScheme([member.scheme for member in members])
        if len(members) == 1:
            narrowed._missing_detail = members[0].dependency.decision.refusals.missing_detail  # noqa: SLF001 - a copy
        decision = AnyDecision(self, narrowed._refusals(), members, self.dependency)  # noqa: SLF001 - a copy
        narrowed.dependency = AnyGuard(decision)
        narrowed.optional_dependency = AnyGuard(decision, optional=True)
        narrowed._lenient_dependency = AnyGuard(decision, optional=True, ignore_invalid=True)  # noqa: SLF001
        return narrowed

    def _decision(self) -> AnyDecision:
        return AnyDecision(self, self._refusals(), self.members)

    def _guard(self, decision: Any, *, optional: bool = False, ignore_invalid: bool = False) -> Guard[Claims]:
        return AnyGuard(decision, optional=optional, ignore_invalid=ignore_invalid)

    def _warn(self) -> None:
        """Log nothing: each member has."""

    def _scoped(self) -> Iterator[ScopesAuth]:
        return (member for member in self.members if isinstance(member, ScopesAuth))


def members_of(auth: Auth[Any]) -> tuple[Auth[Any], ...]:
    """Return the members of an AnyAuth; of any other Auth itself alone."""
    return auth.members if isinstance(auth, AnyAuth) else (auth,)


def _flat(members: Iterable[Auth[Any]]) -> Iterator[Auth[Any]]:
    for member in members:
        if isinstance(member, AnyAuth):
            yield from member.members
        elif isinstance(member, Auth):
            yield member
        else:
            msg = f"{member!r} is not an Auth: AnyAuth(jwt, keys)"
            raise ConfigurationError(msg)


Auth._either = staticmethod(AnyAuth)  # noqa: SLF001 - an AnyAuth is an Auth, so Auth cannot import it
