"""Auth: a scheme and a verification, declared by the application and given to FastAPI as one flat dependency."""

import time
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypedDict, cast

from fastapi import HTTPException, params
from fastapi.security.base import SecurityBase
from starlette.requests import HTTPConnection

from fastapi_guard.auth import policy as policies
from fastapi_guard.auth.conversion import check_hooks, name_of
from fastapi_guard.auth.decision import Decided, Decision, PrincipalT
from fastapi_guard.auth.guard import FlatGuard, Guard, resolving_guard, with_rule
from fastapi_guard.auth.placement import GuardParameter, Placed, guard_method
from fastapi_guard.auth.refusals import Refusals
from fastapi_guard.claims import NO_GRANTS, Grants
from fastapi_guard.events import EventCallback, checked, logger
from fastapi_guard.exceptions import INVALID_TOKEN, NOT_AUTHENTICATED, Forbidden, Unauthorized
from fastapi_guard.schemes import CallableScheme, Scheme, SchemeCallable, as_scheme
from fastapi_guard.schemes.origin import OriginText, trusted
from fastapi_guard.scopes import Scope
from fastapi_guard.stores.arguments import check_flags, instance_of, optional_texts

if TYPE_CHECKING:
    from fastapi_guard.auth.any_of import AnyAuth


class AuthOptions(TypedDict, total=False):
    """The keyword arguments of every Auth.

    Attributes:
        name: The name in events and in ``request.state.auth_method``.
        cookie: Whether a browser sends the credential by itself; by default read from the scheme.
        trusted_origins: Other origins whose pages may send that cookie, such as ``https://app.example``.
        on_event: Called with each Event.
        missing_detail: The text of the 401 for a request without a credential.
        invalid_detail: The text of the 401 for an invalid credential, where its cause has no text of its own.
    """

    name: str
    cookie: bool
    trusted_origins: Iterable[OriginText]
    on_event: EventCallback
    missing_detail: str
    invalid_detail: str


class Auth(Placed, Generic[PrincipalT]):
    """A scheme, and a check that a credential is there: its principal is the raw credential.

    That check alone does not authenticate. Override ``verify``, or ``verify_request`` to see the request too.

    Attributes:
        name: The name in events and in ``request.state.auth_method``.
        scheme: Where the credential comes from.
        dependency: The one callable behind every guard of this Auth: the key for ``app.dependency_overrides``.
        optional_dependency: The same for ``optional()``.
    """

    name: str = "auth"
    _missing_detail: str = NOT_AUTHENTICATED
    _invalid_detail: str = INVALID_TOKEN
    _clock: Callable[[], float] = staticmethod(time.time)
    _decision_class: ClassVar[type[Decision[Any]]] = Decision
    _either: ClassVar[Callable[["Auth[Any]", "Auth[Any]"], "AnyAuth"]]  # set by the module of AnyAuth

    def __init__(
        self,
        scheme: SecurityBase | SchemeCallable,
        *,
        name: str | None = None,
        cookie: bool | None = None,
        trusted_origins: Iterable[OriginText] = (),
        on_event: EventCallback | None = None,
        missing_detail: str | None = None,
        invalid_detail: str | None = None,
    ) -> None:
        """Extract credentials by ``scheme``: one of ours, one of FastAPI's, or a callable that returns ``str | None``.

        Args:
            scheme: Where the credential comes from.
            name: See AuthOptions, as for the others.
            cookie: By default read from the scheme.
            trusted_origins: By default none.
            on_event: By default none.
            missing_detail: By default ``Not authenticated``.
            invalid_detail: By default ``The access token is invalid``.

        Raises:
            ConfigurationError: The scheme answers by itself or does not return the text of a credential; ``verify`` is
                not an ``async def``, ``grants_of`` is one, or ``authenticate`` is there; an option has the wrong type.
        """
        check_hooks(self, verify=True, verify_request=True, recognises=False, grants_of=False, authenticate=None)
        instance_of("cookie", cookie, (bool, type(None)), "True, False, or left out")
        optional_texts(name=name, missing_detail=missing_detail, invalid_detail=invalid_detail)
        self.scheme: Scheme = as_scheme(scheme)
        self.name: str = self.name if name is None else name
        self._missing_detail = self._missing_detail if missing_detail is None else missing_detail
        self._invalid_detail = self._invalid_detail if invalid_detail is None else invalid_detail
        self._on_event = checked(on_event)
        self._trusted_origins = trusted(trusted_origins)
        self._is_cookie = self.scheme.is_cookie if cookie is None else cookie
        self._warn()
        decision = self._decision()
        self.dependency: Guard[PrincipalT] = self._guard(decision)
        self.optional_dependency: Guard[PrincipalT] = self._guard(decision, optional=True)
        self._lenient_dependency: Guard[PrincipalT] = self._guard(decision, optional=True, ignore_invalid=True)

    async def verify(self, raw: str) -> PrincipalT:
        """Return the principal of a raw credential; ``None`` and ``False`` count as a refusal.

        Raises:
            AuthError: The credential is invalid, or that cannot be decided now.
        """
        return cast("PrincipalT", raw)

    async def verify_request(self, connection: HTTPConnection, raw: str) -> PrincipalT:  # noqa: ARG002 - for overriding
        """Return the principal of a raw credential that came on ``connection``; by default that of ``verify``."""
        return await self.verify(raw)

    async def validate_token(self, raw: str) -> bool:
        """Return whether ``verify`` accepts a raw credential, outside of any request.

        Raises:
            ServiceUnavailable: That cannot be decided now.
        """
        try:
            principal = await self.verify(raw)
        except HTTPException as error:
            if error.status_code in (Unauthorized.status, Forbidden.status):
                return False
            raise
        return principal is not None and principal is not False

    def recognises(self, raw: str) -> bool:  # noqa: ARG002 - for overriding
        """Return whether a raw credential looks like one of this Auth's; it need not be valid.

        An AnyAuth calls it for each member, so that only a member whose credential it can be verifies it.
        """
        return True

    def grants_of(self, principal: PrincipalT) -> Grants:  # noqa: ARG002 - for overriding
        """Return what a principal may do; called once, at verification."""
        return NO_GRANTS

    async def decide(self, connection: HTTPConnection) -> Decided:
        """Return the decision about a connection as a value, for middleware: nothing is raised or reported.

        ``Verified`` has the principal and its grants; an AuthError is the refusal, which ``dependency.admit`` reports
        and raises; ``None`` means that no credential was sent. The decision is made once a connection.

        Raises:
            HTTPException: The application's own ``verify`` raised one that is not an AuthError.
        """
        decision = self.dependency.decision
        return decision.recall(connection) or await decision.decide(connection)

    async def aclose(self) -> None:
        """Close connections that this Auth keeps open."""

    @guard_method
    def authenticated(self) -> params.Security:
        """Require a valid credential; returns the principal."""
        return self._security(self.dependency)

    @guard_method
    def optional(self, *, ignore_invalid: bool = False) -> params.Security:
        """Return the principal, or ``None`` where no credential was sent.

        Args:
            ignore_invalid: Whether an invalid credential counts as none, instead of being a 401.

        Raises:
            ConfigurationError: ``ignore_invalid`` is not a bool.
        """
        check_flags(ignore_invalid=ignore_invalid)
        return self._security(self._lenient_dependency if ignore_invalid else self.optional_dependency)

    @guard_method
    def user(self, load: Callable[..., Any], *scopes: str) -> params.Security:
        """Require all of ``scopes``, and return what ``load(claims, ...)`` returns; ``None`` is a 401.

        Args:
            load: Any callable, sync or async, that returns a user. It gets the principal as its parameter ``claims``,
                or else as the first that FastAPI does not fill; FastAPI resolves the others afterwards.
            scopes: The scopes that are required beside a valid credential.

        Raises:
            ConfigurationError: ``load`` yields, or an annotation of it cannot be evaluated.
        """
        loaded = policies.loading(load, self._requiring(scopes), self.dependency.decision)
        return self._security(with_rule(loaded, f"user {name_of(load)}"))

    @guard_method
    def allows(self, policy: Callable[..., Any], *scopes: str) -> params.Security:
        """Require all of ``scopes``, and that ``policy(claims, ...)`` returns ``True``; returns the principal.

        Args:
            policy: As ``load`` of ``user``. It returns a bool, and anything false is a 403.
            scopes: The scopes that are required beside a valid credential.

        Raises:
            ConfigurationError: ``policy`` yields, or an annotation of it cannot be evaluated.
        """
        allowed = policies.allowing(policy, self._requiring(scopes), self.dependency.decision)
        return self._security(with_rule(allowed, f"policy {name_of(policy)}"))

    @guard_method
    def owned(
        self,
        load: Callable[..., Any],
        *scopes: str,
        owner: policies.Owner,
        or_scope: str | None = None,
        hide: bool = False,
    ) -> params.Security:
        """Require that the caller owns what ``load(...)`` returns, and return it; ``None`` is a 404.

        Args:
            load: A FastAPI dependency that returns an object or a mapping. It gets the principal where it has a
                parameter ``claims``.
            scopes: The scopes that are required beside a valid credential.
            owner: The attribute or the key that holds the owner, compared with ``sub`` as text; or a callable that
                returns the owner.
            or_scope: The scope that stands in for ownership.
            hide: Whether another user's object is a 404, and not a 403.

        Raises:
            ConfigurationError: ``load`` yields, an annotation of it cannot be evaluated, or ``or_scope`` is not a
                scope.
        """
        ownership = policies.Ownership(owner, None if or_scope is None else Scope(or_scope), hide=hide)
        owned = policies.owning(load, self._requiring(scopes), self.dependency.decision, ownership)
        return self._security(with_rule(owned, f"owner {ownership}", 404))

    @guard_method
    def requires_recent(self, max_age: int | timedelta) -> params.Security:
        """Require a login, the claim ``auth_time``, at most ``max_age`` seconds ago; returns the principal.

        An older one is a 401 with the challenge of RFC 9470, on which a client logs its user in again.

        Raises:
            ConfigurationError: ``max_age`` is not a number of whole seconds.
        """
        return self._checking(*policies.recent(max_age))

    @guard_method
    def requires_factor(
        self, factor: str, *, max_age: int | timedelta | None = None, acr_values: str | None = None
    ) -> params.Security:
        """Require that the login used a factor, named in the claim ``amr`` (RFC 8176); returns the principal.

        Anything else is a 401 with the challenge of RFC 9470, on which a client steps up.

        Args:
            factor: An authentication method, such as ``"otp"`` or ``"mfa"``.
            max_age: The greatest age of that factor in seconds, by the claim ``factors``: seconds since the epoch by
                method, such as ``{"otp": 1712345678}``.
            acr_values: The authentication contexts that the challenge names, separated by spaces.

        Raises:
            ConfigurationError: ``factor`` is empty, or ``max_age`` is not a number of whole seconds.
        """
        return self._checking(*policies.with_factor(factor, max_age, acr_values))

    def __or__(self, other: "Auth[Any]") -> "AnyAuth":
        """Return the AnyAuth that accepts a credential of this Auth, or else of the ``other``."""
        return Auth._either(self, other) if isinstance(other, Auth) else NotImplemented

    def __deepcopy__(self, _: object) -> Self:
        """Return this Auth, which is compared by identity: FastAPI copies the default of a parameter."""
        return self

    async def _current(self, principal: PrincipalT, connection: HTTPConnection | None) -> PrincipalT:  # noqa: ARG002
        # For tickets: the principal as it is now, without its credential; ``connection`` is that of a ticket's request.
        return principal

    def _refusals(self) -> Refusals:
        details = {"missing_detail": self._missing_detail, "invalid_detail": self._invalid_detail}
        return Refusals(self.name, self.scheme, self._on_event, **details)

    def _decision(self) -> Decision[PrincipalT]:
        return self._decision_class(
            self,
            self._refusals(),
            is_cookie=self._is_cookie,
            trusted_origins=self._trusted_origins,
            checks_presence_only=self._checks_presence_only(),
            on_event=self._on_event,
        )

    def _guard(
        self, decision: Decision[PrincipalT], *, optional: bool = False, ignore_invalid: bool = False
    ) -> Guard[PrincipalT]:
        kind = resolving_guard(self.scheme.call) if isinstance(self.scheme, CallableScheme) else FlatGuard
        return kind(decision, optional=optional, ignore_invalid=ignore_invalid)

    def _checks_presence_only(self) -> bool:
        # Only the class shows it: the base returns any credential as its own principal.
        return (type(self).verify, type(self).verify_request) == (Auth.verify, Auth.verify_request)

    def _warn(self) -> None:
        if self.scheme.is_cookie and not self._is_cookie:
            logger.warning("%s(cookie=False): pages of any origin may send its cookie", self.name)
        if self._checks_presence_only():
            logger.warning("%s does not authenticate: any credential passes, as verify() is not overridden", self.name)

    def _requiring(self, scopes: Iterable[str]) -> params.Security:
        return self._security(self.dependency, *(Scope(scope) for scope in scopes))

    def _checking(self, check: policies.Check, rule: str, **marks: Any) -> params.Security:
        checked_ = policies.checking(check, self._security(self.dependency), self.dependency.decision)
        return self._security(with_rule(checked_, rule, **marks))

    @staticmethod
    def _security(dependency: Callable[..., Any], *scopes: str) -> params.Security:
        # FastAPI works out the lifetime of a dependency at every request, unless it is declared.
        return GuardParameter(dependency, scope="request", scopes=scopes)
