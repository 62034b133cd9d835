"""From the raw credential to a principal, and from a principal to a yes or no.

An Auth joins a scheme and a verification, and gives both to FastAPI as one flat dependency. Whatever it verified is
remembered in the connection's scope, so that an application, a router and a parameter that all ask verify once.
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from inspect import iscoroutinefunction, unwrap
from typing import Annotated, Any, Final, Generic, TypeAlias, TypedDict, TypeVar, Unpack, cast

from fastapi import HTTPException, params
from fastapi.openapi.models import SecurityBase as SecurityModel
from fastapi.security import SecurityScopes
from fastapi.security.base import SecurityBase
from starlette.requests import HTTPConnection

from fastapi_guard.claims import NO_GRANTS, Claims, GrantRules, Grants
from fastapi_guard.events import Event, EventCallback, checked, logger, publish
from fastapi_guard.exceptions import (
    CHALLENGE_HEADER,
    EXPIRED_TOKEN,
    INVALID_API_KEY,
    INVALID_TOKEN,
    MORE_THAN_ONE_CREDENTIAL,
    NOT_AUTHENTICATED,
    ConfigurationError,
    Forbidden,
    Unauthorized,
    has_challenge,
)
from fastapi_guard.origin import is_same_origin, trusted
from fastapi_guard.placement import GuardParameter, Placed, PlainParameter, called
from fastapi_guard.schemes import BearerScheme, CallableScheme, Scheme, SchemeCallable, as_scheme, is_quotable
from fastapi_guard.scopes import HierarchicalScopeValidator, Scope, ScopeValidator

PrincipalT = TypeVar("PrincipalT")

# Where a connection's scope keeps what was verified: {auth: Verified}.
_MEMO: Final = "fastapi_guard.verified"

# Texts of ours that may stand in a challenge; what an application's own verify() says stays in the body.
_DESCRIPTIONS = (INVALID_TOKEN, EXPIRED_TOKEN, INVALID_API_KEY, MORE_THAN_ONE_CREDENTIAL)


# A credential that held: its principal, and what it grants, fixed at that moment.
Verified: TypeAlias = tuple[PrincipalT, Grants]


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


class ScopesOptions(AuthOptions, total=False):
    """The keyword arguments of every ScopesAuth; see GrantRules for their meaning."""

    scope_claims: Sequence[str]
    role_claims: Sequence[str]
    roles: Mapping[str, Iterable[str]]
    default_role: str | None


class Auth(Placed, Generic[PrincipalT]):
    """A scheme, and a check that a credential is there: its principal is the raw credential.

    That check alone authenticates nobody. Override ``verify``, or ``verify_request`` to see the request too.

    Attributes:
        name: What it is called in events and in ``request.state.auth_method``.
        scheme: Where the credential comes from.
        dependency: The one callable behind every guard of this Auth: the key for ``app.dependency_overrides``.
        optional_dependency: The same for ``optional()``.
        lenient_dependency: The same for ``optional(ignore_invalid=True)``.
    """

    name: str = "auth"
    missing_detail: str = NOT_AUTHENTICATED
    invalid_detail: str = INVALID_TOKEN

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
        self.scheme: Scheme = as_scheme(scheme)
        self.name = self.name if name is None else name
        if not isinstance(cookie, bool | None):
            msg = f"cookie is True, False, or left out, not {cookie!r}"
            raise ConfigurationError(msg)
        self._is_cookie = self.scheme.is_cookie if cookie is None else cookie
        self._say_what_is_weak()
        self._trusted_origins = trusted(trusted_origins)
        self._on_event = checked(on_event)
        self._missing_headers = {CHALLENGE_HEADER: self.scheme.plain_challenge}
        self._sees_request = type(self).verify_request is not Auth.verify_request
        guard = _resolving_guard(self.scheme.call) if isinstance(self.scheme, CallableScheme) else FlatGuard
        self.dependency: Guard[PrincipalT] = guard(self)
        self.optional_dependency: Guard[PrincipalT] = guard(self, optional=True)
        self.lenient_dependency: Guard[PrincipalT] = guard(self, optional=True, ignore_invalid=True)

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

    @property
    def checks_presence_only(self) -> bool:
        """Whether any credential at all passes, because nothing verifies it."""
        kind = type(self)
        return kind.verify is Auth.verify and kind.verify_request is Auth.verify_request

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
        remembered: dict[Auth[Any], Verified[Any]] | None = connection.scope.get(_MEMO)
        if remembered is not None and self in remembered:
            return remembered[self]
        try:
            if raw is None:
                raw = self.scheme.extract(connection)
                if raw is None:
                    return None
            if self._is_cookie and not is_same_origin(connection, self._trusted_origins):
                raise Forbidden(reason="cross_origin")
            recalled = None if self._sees_request else self.recall(raw)
            if recalled is not None:
                return self._keep(connection, recalled)
            # A coroutine less, where verify_request would only forward.
            principal = await (self.verify_request(connection, raw) if self._sees_request else self.verify(raw))
            return self.remember(connection, principal)
        except HTTPException as error:
            self._challenge(error)
            self._refused(error.status_code, getattr(error, "reason", "refused"))
            if ignore_invalid and error.status_code == Unauthorized.status:
                return None
            raise

    def remember(self, connection: HTTPConnection, principal: PrincipalT) -> Verified[PrincipalT]:
        """Keep ``principal`` on ``connection`` as verified: from here on every guard of this Auth sees it.

        Sets ``request.state.auth_method``, and ``request.state.claims`` where the principal is a claims dict.

        Raises:
            Unauthorized: The principal is ``None`` or ``False``.
        """
        if principal is None or principal is False:
            raise Unauthorized(INVALID_TOKEN, error="invalid_token")
        return self._keep(connection, (principal, self.grants_of(principal)))

    def recall(self, raw: str) -> Verified[PrincipalT] | None:  # noqa: ARG002 - for overriding
        """Return what is still known of a raw credential from an earlier request, ``None`` to verify it."""
        return None

    def _keep(self, connection: HTTPConnection, verified: Verified[PrincipalT]) -> Verified[PrincipalT]:
        principal = verified[0]
        connection.scope.setdefault(_MEMO, {})[self] = verified
        state = connection.scope.setdefault("state", {})
        state["auth_method"] = self.name
        if isinstance(principal, dict):
            state["claims"] = principal
        if self._on_event is not None or logger.isEnabledFor(logging.DEBUG):
            publish(Event("authenticated", self.name), self._on_event)
        return verified

    def grants_of(self, principal: PrincipalT) -> Grants:  # noqa: ARG002 - for overriding
        """Return what a principal grants; asked once, at verification."""
        return NO_GRANTS

    def check_scopes(self, grants: Grants, scopes: Sequence[str]) -> None:  # noqa: ARG002 - for overriding
        """Refuse unless all of ``scopes`` are granted. An Auth that knows no scopes refuses each.

        Raises:
            Forbidden: One is missing; ``insufficient_scope`` in the challenge (RFC 6750 3.1).
        """
        self._refuse_scopes(scopes, scopes[0])

    def refuse_missing(self) -> Unauthorized:
        """Return the 401 for a connection without a credential."""
        self._refused(Unauthorized.status, "missing")
        return Unauthorized(self.missing_detail, reason="missing", headers=self._missing_headers)

    @staticmethod
    def _security(guard: "Guard[Any]", *scopes: str) -> params.Security:
        # FastAPI works the lifetime of a dependency out at every request, unless it is told.
        return GuardParameter(guard, scope="request", scopes=scopes)

    def _say_what_is_weak(self) -> None:
        if self.scheme.is_cookie and not self._is_cookie:
            logger.warning("%s(cookie=False): pages of any origin may send its cookie", self.name)
        if self.checks_presence_only:
            logger.warning("%s authenticates nobody: any credential passes, because no verify() is there", self.name)

    def _refused(self, status: int, reason: str) -> None:
        if self._on_event is not None or logger.isEnabledFor(logging.INFO):
            publish(Event("refused", self.name, status, reason), self._on_event)

    def _challenge(self, error: HTTPException) -> None:
        if not isinstance(error, Unauthorized):
            if error.status_code == Unauthorized.status and not has_challenge(error.headers):
                challenge = self.scheme.refusal("invalid_token", INVALID_TOKEN)
                error.headers = {**(error.headers or {}), CHALLENGE_HEADER: challenge}
            return
        if error.detail in (INVALID_TOKEN, NOT_AUTHENTICATED):
            error.detail = self.invalid_detail
        description = error.detail if error.detail in _DESCRIPTIONS else INVALID_TOKEN
        code = error.error if error.error and is_quotable(error.error) else "invalid_token"
        error.challenge(self.scheme.refusal(code, description))

    def _refuse_scopes(self, required: Sequence[str], missing: str) -> None:
        challenge = self.scheme.challenge(error="insufficient_scope", scope=" ".join(required))
        self._forbid(f"Token is missing required scope: {missing}", "missing_scope", {CHALLENGE_HEADER: challenge})

    def _forbid(self, detail: str | None, reason: str, headers: Mapping[str, str] | None = None) -> None:
        self._refused(Forbidden.status, reason)
        raise Forbidden(detail, reason=reason, headers=headers)


class Guard(Placed, Generic[PrincipalT]):
    """The callable that FastAPI calls for an Auth. There are three to an Auth, made once.

    It defines no ``__eq__``: equal callables would share FastAPI's cache, and the answer of one guard would be taken
    for the answer of another.
    """

    def __init__(self, auth: Auth[PrincipalT], *, optional: bool = False, ignore_invalid: bool = False) -> None:
        """Guard by ``auth``; an optional guard lets a connection without a credential pass with ``None``."""
        self.auth = auth
        self.optional = optional
        self.ignore_invalid = ignore_invalid

    async def __call__(self, connection: HTTPConnection, security_scopes: SecurityScopes) -> PrincipalT | None:
        """Admit the connection, as FastAPI's dependency."""
        verified = await self.auth.authenticate(connection, ignore_invalid=self.ignore_invalid)
        return self.admit(verified, security_scopes.scopes)

    def admit(self, verified: Verified[PrincipalT] | None, scopes: Sequence[str]) -> PrincipalT | None:
        """Return the principal, or raise; ``None`` only where the guard is optional."""
        if verified is None:
            # Scopes that an enclosing dependency requires are not waived by an optional guard.
            if self.optional and not scopes:
                return None
            raise self.auth.refuse_missing()
        principal, grants = verified
        if scopes:
            self.auth.check_scopes(grants, scopes)
        return principal


class FlatGuard(Guard[PrincipalT], SecurityBase):
    """Extraction, verification and scope check in one callable, which OpenAPI sees as the scheme itself."""

    def __init__(self, auth: Auth[PrincipalT], *, optional: bool = False, ignore_invalid: bool = False) -> None:
        """Carry the OpenAPI description of the scheme."""
        super().__init__(auth, optional=optional, ignore_invalid=ignore_invalid)
        self.model: SecurityModel = auth.scheme.model
        self.scheme_name: str = auth.scheme.scheme_name


def _resolving_guard(scheme: SchemeCallable) -> type[Guard[Any]]:
    class ResolvingGuard(Guard[PrincipalT]):
        """A guard whose scheme FastAPI resolves first, as a dependency of its own."""

        async def __call__(
            self,
            connection: HTTPConnection,
            security_scopes: SecurityScopes,
            raw: Any = params.Depends(scheme),  # noqa: B008 - this is how FastAPI is told
        ) -> PrincipalT | None:
            """Admit the connection."""
            if raw is not None and not isinstance(raw, str):
                msg = f"a scheme returns the credential as str or None, not {type(raw).__name__}"
                raise TypeError(msg)
            verified = None
            if raw:
                verified = await self.auth.authenticate(connection, raw, ignore_invalid=self.ignore_invalid)
            return self.admit(verified, security_scopes.scopes)

    return ResolvingGuard


class TokenAuth(Auth[PrincipalT]):
    """An Auth whose credential comes in ``Authorization: Bearer``, unless another scheme is given."""

    def __init__(self, scheme: SecurityBase | SchemeCallable | None = None, **options: Unpack[AuthOptions]) -> None:
        """Take tokens from ``scheme``, by default the plain Bearer header."""
        super().__init__(BearerScheme() if scheme is None else scheme, **options)


class ScopesAuth(TokenAuth[Claims], ABC):
    """An Auth whose principal is a claims dict, with scopes and roles in it. A subclass implements ``verify``."""

    # Whether a bare "*" in the scopes of the claims is every scope: only where the application itself stored them.
    trusts_everything: bool = False

    def __init__(
        self,
        scheme: SecurityBase | SchemeCallable | None = None,
        scope_validator: ScopeValidator | None = None,
        *,
        scope_claims: Sequence[str] = ("scope", "scp"),
        role_claims: Sequence[str] = ("roles", "role"),
        roles: Mapping[str, Iterable[str]] | None = None,
        default_role: str | None = None,
        **options: Unpack[AuthOptions],
    ) -> None:
        """Decide by ``scope_validator``, by default HierarchicalScopeValidator.

        Raises:
            ConfigurationError: A role holds something that is no scope, or a validator has no ``has_scope``.
        """
        super().__init__(scheme, **options)
        self.scope_validator: ScopeValidator = scope_validator or HierarchicalScopeValidator()
        if isinstance(scope_validator, type) or not callable(getattr(self.scope_validator, "has_scope", None)):
            msg = f"{scope_validator!r} is no scope validator: pass an object with has_scope(scope, granted_scopes)"
            raise ConfigurationError(msg)
        self._rules = GrantRules(
            scope_claims=scope_claims,
            role_claims=role_claims,
            roles={} if roles is None else roles,
            default_role=default_role,
            trusts_everything=self.trusts_everything,
        )

    @abstractmethod
    async def verify(self, raw: str) -> Claims:
        """Return the claims of a raw credential; ``None`` and ``False`` count as a refusal.

        Raises:
            AuthError: The credential does not hold, or that cannot be decided now.
        """

    @called
    def requires(self, *scopes: str) -> params.Security:
        """Require all of ``scopes``; gives the claims. Without scopes the same as ``authenticated()``.

        Raises:
            ConfigurationError: One is not a scope (RFC 6749 3.3).
        """
        return self._security(self.dependency, *(Scope(scope) for scope in scopes))

    @called
    def requires_any(self, *scopes: str) -> params.Security:
        """Require at least one of ``scopes``; gives the claims.

        Raises:
            ConfigurationError: There is none, or one is not a scope.
        """
        required = [Scope(scope) for scope in scopes]
        if not required:
            msg = "requires_any() needs at least one scope; authenticated() asks for none"
            raise ConfigurationError(msg)

        async def any_scope(connection: HTTPConnection, claims: Annotated[Claims, self.authenticated()]) -> Claims:
            grants = self._grants(connection, claims)
            if not any(self._covered(scope, grants) for scope in required):
                self._refuse_scopes(required, " or ".join(required))
            return claims

        return GuardParameter(any_scope)

    @called
    def requires_role(self, *roles: str) -> params.Security:
        """Require at least one of ``roles``, by name; gives the claims.

        Raises:
            ConfigurationError: There is none, or one is not among the configured roles.
        """
        unknown = sorted({role for role in roles if self._rules.roles and role not in self._rules.roles})
        if not roles or unknown:
            among = f" among {sorted(self._rules.roles)}" if self._rules.roles else ""
            msg = f"requires_role() needs at least one role{among}, not {unknown or 'none'}"
            raise ConfigurationError(msg)

        async def role(connection: HTTPConnection, claims: Annotated[Claims, self.authenticated()]) -> Claims:
            if self._grants(connection, claims).roles.isdisjoint(roles):
                self._forbid(None, "missing_role")
            return claims

        return GuardParameter(role)

    @called
    def requires_admin(self) -> params.Security:
        """Require the claim ``is_admin`` to be ``True``; gives the claims."""

        async def admin(connection: HTTPConnection, claims: Annotated[Claims, self.authenticated()]) -> Claims:
            if not self._grants(connection, claims).is_admin:
                self._forbid(None, "not_admin")
            return claims

        return GuardParameter(admin)

    @called
    def granted(self) -> params.Depends:
        """Give the granted scopes as a frozenset, those of the caller's roles included."""

        async def scopes(connection: HTTPConnection, claims: Annotated[Claims, self.authenticated()]) -> frozenset[str]:
            return self._grants(connection, claims).scopes

        return PlainParameter(scopes)

    def covers(self, claims: Claims, *scopes: str) -> bool:
        """Return whether ``claims`` grant all of ``scopes``: the decision of ``requires``, in a handler."""
        grants = self._rules.grants_of(claims)
        return all(self._covered(Scope(scope), grants) for scope in scopes)

    def has_scope(self, scope: str, granted: Sequence[str]) -> bool:
        """Return whether the ``granted`` scopes cover ``scope``, by this Auth's validator."""
        return self.scope_validator.has_scope(Scope(scope), granted)

    def grants_of(self, principal: Claims) -> Grants:
        """Return the scopes and roles of a claims dict."""
        if not isinstance(principal, dict):
            msg = f"{type(self).__name__}.verify returns a claims dict, not {type(principal).__name__}"
            raise TypeError(msg)
        return self._rules.grants_of(principal)

    def check_scopes(self, grants: Grants, scopes: Sequence[str]) -> None:
        """Refuse unless all of ``scopes`` are granted, naming the first that is missing.

        Raises:
            Forbidden: One is missing; ``insufficient_scope`` in the challenge (RFC 6750 3.1).
        """
        has_scope = self.scope_validator.has_scope
        for scope in scopes:
            if not has_scope(scope, grants.scopes) and not self._is_everything(scope, grants):
                self._refuse_scopes(scopes, scope)

    def _covered(self, scope: str, grants: Grants) -> bool:
        return self.scope_validator.has_scope(scope, grants.scopes) or self._is_everything(scope, grants)

    def _is_everything(self, scope: str, grants: Grants) -> bool:
        # Only a validator that knows wildcards takes a bare "*" for more than itself: for every scope that can be
        # granted at all, as if it had been.
        if not grants.everything or not getattr(self.scope_validator, "has_everything", False):
            return False
        return self.scope_validator.has_scope(scope, frozenset({scope}))

    def _grants(self, connection: HTTPConnection, claims: Claims) -> Grants:
        # Nothing is remembered where a test has overridden the dependency: then its claims are what there is.
        verified: Verified[Claims] | None = connection.scope.get(_MEMO, {}).get(self)
        return self._rules.grants_of(claims) if verified is None else verified[1]
