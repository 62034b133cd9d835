"""From the raw credential to a principal, and from a principal to a yes or no.

An Auth joins a scheme and a verification, and gives both to FastAPI as one flat dependency. Whatever it verified is
remembered in the connection's scope, so that an application, a router and a parameter that all ask verify once. What it
refused is remembered too.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from inspect import iscoroutinefunction, unwrap
from logging import DEBUG
from typing import TYPE_CHECKING, Annotated, Any, Final, Generic, TypedDict, Unpack, cast

from fastapi import HTTPException, params
from fastapi.security.base import SecurityBase
from starlette.requests import HTTPConnection

from fastapi_guard.auth import policy as policies
from fastapi_guard.auth.guard import FlatGuard, Guard, PrincipalT, Verified, resolving_guard, ruled
from fastapi_guard.auth.placement import GuardParameter, Placed, called
from fastapi_guard.auth.refusals import Refusals, own_refusal
from fastapi_guard.claims import NO_GRANTS, Grants
from fastapi_guard.events import (
    Attributes,
    Event,
    EventCallback,
    attributes_of,
    checked,
    count,
    is_logged,
    logger,
    publish,
)
from fastapi_guard.exceptions import INVALID_TOKEN, AuthError, ConfigurationError, Forbidden, Unauthorized
from fastapi_guard.schemes import UNDECIDED, BearerScheme, CallableScheme, SchemeCallable, Undecided, as_scheme
from fastapi_guard.schemes.origin import is_same_origin, trusted
from fastapi_guard.scopes import Scope

if TYPE_CHECKING:
    from fastapi_guard.auth.any_of import AnyAuth

# Where a connection's scope keeps what each Auth has decided: {auth: Verified | AuthError}.
MEMO: Final = "fastapi_guard.known"


class AuthOptions(TypedDict, total=False):
    """The keyword arguments of every Auth.

    Attributes:
        name: What this Auth is called in events and in ``request.state.auth_method``.
        cookie: Whether a browser sends the credential by itself; seen in the scheme where it is left out.
        trusted_origins: Other origins whose pages may send that cookie, such as ``https://app.example``.
        on_event: Called with each Event.
    """

    name: str
    cookie: bool
    trusted_origins: Iterable[str]
    on_event: EventCallback


class Auth(Refusals, Placed, Generic[PrincipalT]):
    """A scheme, and a check that a credential is there: its principal is the raw credential.

    That check alone authenticates nobody. Override ``verify``, or ``verify_request`` to see the request too.

    Attributes:
        name: What it is called in events and in ``request.state.auth_method``.
        scheme: Where the credential comes from.
        dependency: The one callable behind every guard of this Auth: the key for ``app.dependency_overrides``.
        optional_dependency: The same for ``optional()``.
        lenient_dependency: The same for ``optional(ignore_invalid=True)``.
    """

    _clock: Callable[[], float] = staticmethod(time.time)

    def __init__(
        self,
        scheme: SecurityBase | SchemeCallable,
        *,
        name: str | None = None,
        cookie: bool | None = None,
        trusted_origins: Iterable[str] = (),
        on_event: EventCallback | None = None,
    ) -> None:
        """Take credentials from ``scheme``: one of ours, one of FastAPI's, or a callable that returns ``str | None``.

        Args:
            scheme: Where the credential comes from.
            name: See AuthOptions, as for the others.
            cookie: Seen in the scheme where it is left out.
            trusted_origins: None, unless named.
            on_event: Nobody, unless given.

        Raises:
            ConfigurationError: The scheme would answer by itself, or cannot give the text of a credential;
                ``verify`` is no ``async def``; or an option is of another kind.
        """
        for method in ("verify", "verify_request"):
            if not iscoroutinefunction(unwrap(getattr(self, method))):
                msg = f"{type(self).__name__}.{method} has to be an async def"
                raise ConfigurationError(msg)
        if not isinstance(cookie, bool | None):
            msg = f"cookie is True, False, or left out, not {cookie!r}"
            raise ConfigurationError(msg)
        super().__init__(as_scheme(scheme), checked(on_event))
        self.name: str = self.name if name is None else name
        self._authenticated: Attributes = attributes_of(Event("authenticated", self.name))
        self._is_cookie = self.scheme.is_cookie if cookie is None else cookie
        self._say_what_is_weak()
        self._trusted_origins = trusted(trusted_origins)
        self._sees_request = type(self).verify_request is not Auth.verify_request
        # A subclass that authenticates in its own way is asked to by every guard.
        self.remembers: bool = type(self).authenticate is Auth.authenticate
        self.dependency: Guard[PrincipalT] = self._guard()
        self.optional_dependency: Guard[PrincipalT] = self._guard(optional=True)
        self.lenient_dependency: Guard[PrincipalT] = self._guard(optional=True, ignore_invalid=True)

    async def verify(self, raw: str) -> PrincipalT:
        """Return the principal of a raw credential; ``None`` and ``False`` count as a refusal.

        Raises:
            AuthError: The credential does not hold, or that cannot be decided now.
        """
        return cast("PrincipalT", raw)

    async def verify_request(self, connection: HTTPConnection, raw: str) -> PrincipalT:  # noqa: ARG002 - for overriding
        """Return the principal of a raw credential that came on ``connection``."""
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
        """Return whether a raw credential could be one of this Auth's, by its looks alone.

        Asked where several Auths read the same header, so that only one whose credential it can be is asked to verify
        it. It asks no backend, and says nothing about whether the credential holds.
        """
        return True

    async def aclose(self) -> None:
        """Release what this Auth holds open."""

    @called
    def authenticated(self) -> params.Security:
        """Require a credential that holds; gives the principal."""
        return self._security(self.dependency)

    @called
    def optional(self, *, ignore_invalid: bool = False) -> params.Security:
        """Give the principal, or ``None`` where no credential was sent.

        A credential that does not hold is refused all the same, unless ``ignore_invalid``.
        """
        return self._security(self.lenient_dependency if ignore_invalid else self.optional_dependency)

    @called
    def user(self, load: Callable[..., Any], *scopes: str) -> params.Security:
        """Require all of ``scopes``, and give what ``load(claims, ...)`` returns; ``None`` is a 401.

        Args:
            load: Any callable, sync or async, that returns a user. It gets the principal as its parameter ``claims``,
                or else as the first that FastAPI does not fill; the others are FastAPI's to resolve, afterwards.
            scopes: What is required beside a credential that holds.

        Raises:
            ConfigurationError: ``load`` yields, or an annotation of it cannot be evaluated.
        """
        user = policies.loading(load, self._requiring(scopes), lambda on: self.deciding(on).refuse_user())
        return self._security(ruled(user, f"user {policies.name_of(load)}"))

    @called
    def allows(self, policy: Callable[..., Any], *scopes: str) -> params.Security:
        """Require all of ``scopes``, and that ``policy(claims, ...)`` returns ``True``; gives the principal.

        Args:
            policy: As ``load`` of ``user``. What it returns is a bool, and anything false is a 403.
            scopes: What is required beside a credential that holds.

        Raises:
            ConfigurationError: ``policy`` yields, or an annotation of it cannot be evaluated.
        """
        allowed = policies.allowing(policy, self._requiring(scopes), lambda on: self.deciding(on).refuse("policy"))
        return self._security(ruled(allowed, f"policy {policies.name_of(policy)}"))

    @called
    def owned(
        self,
        load: Callable[..., Any],
        *scopes: str,
        owner: policies.Owner,
        or_scope: str | None = None,
        hide: bool = False,
    ) -> params.Security:
        """Require that the caller owns what ``load(...)`` finds, and give it; ``None`` is a 404.

        Args:
            load: A FastAPI dependency that returns an object or a mapping. It gets the principal where it has a
                parameter ``claims``.
            scopes: What is required beside a credential that holds.
            owner: The attribute or the key that holds the owner, compared with ``sub`` as text; or a callable that
                returns the owner.
            or_scope: The scope that stands in for ownership.
            hide: Whether what somebody else owns is a 404, and not a 403.

        Raises:
            ConfigurationError: ``load`` yields, an annotation of it cannot be evaluated, or ``or_scope`` is no scope.
        """
        instead = None if or_scope is None else Scope(or_scope)

        def exempt(connection: HTTPConnection, principal: Any) -> bool:
            decider = self.deciding(connection)
            return instead is not None and decider.grants_scope(decider.grants_on(connection, principal), instead)

        def refuse(connection: HTTPConnection) -> Exception:
            decider = self.deciding(connection)
            return decider.refuse_hidden() if hide else decider.refuse("not_owner")

        own = policies.owning(load, self._requiring(scopes), owner, exempt, refuse)
        whose = owner if isinstance(owner, str) else policies.name_of(owner)
        rule = f"owner {whose}" + (f" or {instead}" if instead else "")
        return self._security(ruled(own, rule, 404))

    @called
    def requires_recent(self, max_age: int | timedelta) -> params.Security:
        """Require a login, the claim ``auth_time``, at most ``max_age`` seconds ago; gives the principal.

        An older one is a 401 with the challenge of RFC 9470, on which a client logs its user in again.

        Raises:
            ConfigurationError: ``max_age`` is no number of whole seconds.
        """
        seconds = policies.whole_seconds(max_age, "max_age")

        async def recent(connection: HTTPConnection, claims: Annotated[Any, self.authenticated()]) -> Any:
            decider = self.deciding(connection)
            if not policies.is_recent(claims, seconds, decider.now()):
                raise decider.refuse_stale_login(seconds)
            return claims

        return self._security(ruled(recent, f"login within {seconds} s"))

    def __or__(self, other: "Auth[Any]") -> "AnyAuth":
        """Return the AnyAuth that takes a credential of this Auth, or else of the ``other``."""
        from fastapi_guard.auth.any_of import AnyAuth  # noqa: PLC0415 - which is an Auth itself

        return AnyAuth(self, other) if isinstance(other, Auth) else NotImplemented

    @property
    def checks_presence_only(self) -> bool:
        """Whether any credential at all passes, because nothing verifies it."""
        kind = type(self)
        return kind.verify is Auth.verify and kind.verify_request is Auth.verify_request

    @property
    def proves_origin(self) -> bool:
        """Whether its credential counts only with proof of the same origin, where a browser may send it by itself."""
        return self._is_cookie

    async def authenticate(
        self, connection: HTTPConnection, raw: str | None = None, *, ignore_invalid: bool = False
    ) -> Verified[PrincipalT] | None:
        """Verify the credential on ``connection`` once, and remember it there; ``None`` where none was sent.

        Args:
            connection: The request or the WebSocket.
            raw: The credential, where FastAPI has resolved the scheme.
            ignore_invalid: Whether a credential that does not hold counts as none.

        Raises:
            AuthError: With the challenge of the scheme.
        """
        decided = self._decided_on(connection)
        if decided is not None:
            if isinstance(decided, tuple):
                return decided
            _settle(decided, ignore_invalid=ignore_invalid)
            return None
        try:
            if raw is None:
                raw = self.scheme.extract(connection)
                if raw is None:
                    return None
            if self._is_cookie and not is_same_origin(connection, self._trusted_origins):
                raise Forbidden(reason="cross_origin")
            # A coroutine less, where verify_request would only forward.
            principal = await (self.verify_request(connection, raw) if self._sees_request else self.verify(raw))
            return self.remember(connection, principal)
        except HTTPException as raised:
            error = own_refusal(raised)
            if not isinstance(error, AuthError):
                self.report_refusal(raised.status_code, "refused")
                raise
            self.remember_refusal(connection, error)
            _settle(error, ignore_invalid=ignore_invalid)
            return None

    def remember(
        self, connection: HTTPConnection, principal: PrincipalT, grants: Grants | None = None
    ) -> Verified[PrincipalT]:
        """Keep ``principal`` on ``connection`` as verified: from here on every guard of this Auth sees it.

        Sets ``request.state.auth_method``, and ``request.state.claims`` where the principal is a claims dict.

        Args:
            connection: The request or the WebSocket.
            principal: Who it is.
            grants: What the principal grants, where that is known.

        Raises:
            Unauthorized: The principal is ``None`` or ``False``.
        """
        if principal is None or principal is False:
            raise Unauthorized(INVALID_TOKEN, error="invalid_token")
        verified = principal, self.grants_of(principal) if grants is None else grants
        scope = connection.scope
        scope.setdefault(MEMO, {})[self] = verified
        state = scope.setdefault("state", {})
        state["auth_method"] = self.name
        if isinstance(principal, dict):
            state["claims"] = principal
        if self._on_event is not None or is_logged(DEBUG):
            publish(Event("authenticated", self.name), self._on_event)
        else:
            count(1, self._authenticated)
        return verified

    def remember_refusal(self, connection: HTTPConnection, error: AuthError) -> None:
        """Report ``error``, and keep it on ``connection``: from here on every guard of this Auth raises it."""
        if isinstance(error, Unauthorized):
            self.challenged(error)
        self.report_refusal(error.status, error.reason)
        connection.scope.setdefault(MEMO, {})[self] = error

    def at_once(self, connection: HTTPConnection) -> Verified[PrincipalT] | Undecided | None:
        """Return what ``authenticate`` would, where that is known without awaiting anything, and else UNDECIDED.

        Raises:
            AuthError: The credential was refused before.
        """
        if not self.remembers:
            return UNDECIDED
        decided = self._decided_on(connection)
        if decided is None or isinstance(decided, tuple):
            return decided or UNDECIDED
        raise decided

    def verified_on(self, connection: HTTPConnection) -> Verified[PrincipalT] | None:
        """Return what was verified on ``connection`` before, ``None`` where nothing was, or it was refused."""
        decided = self._decided_on(connection)
        return decided if isinstance(decided, tuple) else None

    def _decided_on(self, connection: HTTPConnection) -> Verified[PrincipalT] | AuthError | None:
        scope = connection.scope
        decided: Verified[PrincipalT] | AuthError | None = scope[MEMO].get(self) if MEMO in scope else None
        return decided

    def deciding(self, connection: HTTPConnection) -> "Auth[Any]":  # noqa: ARG002 - for overriding
        """Return the Auth that verified what came on ``connection``, which decides about it: this one."""
        return self

    def grants_on(self, connection: HTTPConnection, principal: PrincipalT) -> Grants:
        """Return what was granted when ``principal`` was verified on ``connection``."""
        # Nothing is remembered where a test has overridden the dependency: then its principal is what there is.
        verified = self.verified_on(connection)
        return self.grants_of(principal) if verified is None else verified[1]

    def grants_scope(self, grants: Grants, scope: str) -> bool:  # noqa: ARG002 - for overriding
        """Return whether ``grants`` cover a scope. An Auth that knows no scopes covers none."""
        return False

    def grants_of(self, principal: PrincipalT) -> Grants:  # noqa: ARG002 - for overriding
        """Return what a principal grants; asked once, at verification."""
        return NO_GRANTS

    def check_scopes(self, grants: Grants, scopes: Sequence[str]) -> None:  # noqa: ARG002 - for overriding
        """Refuse unless all of ``scopes`` are granted. An Auth that knows no scopes refuses each.

        Raises:
            Forbidden: One is missing; ``insufficient_scope`` in the challenge (RFC 6750 3.1).
        """
        self.refuse_scopes(scopes, scopes[0])

    def _guard(self, *, optional: bool = False, ignore_invalid: bool = False) -> Guard[PrincipalT]:
        kind = resolving_guard(self.scheme.call) if isinstance(self.scheme, CallableScheme) else FlatGuard
        return kind(self, optional=optional, ignore_invalid=ignore_invalid)

    def _requiring(self, scopes: Sequence[str]) -> params.Security:
        return self._security(self.dependency, *(Scope(scope) for scope in scopes))

    @staticmethod
    def _security(dependency: Callable[..., Any], *scopes: str) -> params.Security:
        # FastAPI works the lifetime of a dependency out at every request, unless it is told.
        return GuardParameter(dependency, scope="request", scopes=scopes)

    def _say_what_is_weak(self) -> None:
        if self.scheme.is_cookie and not self._is_cookie:
            logger.warning("%s(cookie=False): pages of any origin may send its cookie", self.name)
        if self.checks_presence_only:
            logger.warning("%s authenticates nobody: any credential passes, because no verify() is there", self.name)

    def now(self) -> float:
        """Return the time by the clock of this Auth, in seconds since the epoch."""
        return self._clock()


class TokenAuth(Auth[PrincipalT]):
    """An Auth whose credential comes in ``Authorization: Bearer``, unless another scheme is given."""

    def __init__(self, scheme: SecurityBase | SchemeCallable | None = None, **options: Unpack[AuthOptions]) -> None:
        """Take tokens from ``scheme``, by default the plain Bearer header."""
        super().__init__(BearerScheme() if scheme is None else scheme, **options)


def _settle(error: AuthError, *, ignore_invalid: bool) -> None:
    if not (ignore_invalid and isinstance(error, Unauthorized)):
        raise error
