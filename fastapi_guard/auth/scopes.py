"""ScopesAuth: from claims to scopes, roles and tenants."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from inspect import iscoroutinefunction, unwrap
from typing import Annotated, Any, Unpack

from fastapi import params
from fastapi.security.base import SecurityBase
from starlette.requests import HTTPConnection

from fastapi_guard.auth.auth import AuthOptions, TokenAuth
from fastapi_guard.auth.guard import ruled
from fastapi_guard.auth.placement import PlainParameter, called
from fastapi_guard.claims import Claims, GrantRules, Grants
from fastapi_guard.exceptions import ConfigurationError
from fastapi_guard.schemes import SchemeCallable
from fastapi_guard.scopes import HierarchicalScopeValidator, Scope, ScopeValidator


class ScopesOptions(AuthOptions, total=False):
    """The keyword arguments of every ScopesAuth, beside those of every Auth.

    Attributes:
        scope_claims: Names of the claims that hold scopes, each a space-separated string or a list of strings.
        role_claims: Names of the claims that hold roles; a dotted one may be a path (``realm_access.roles``).
        roles: The scopes of each role. A bare ``*`` among them is every scope.
        default_role: The role of a credential that names none.
    """

    scope_claims: Sequence[str]
    role_claims: Sequence[str]
    roles: Mapping[str, Iterable[str]]
    default_role: str | None


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
            ConfigurationError: A role holds something that is no scope, or a validator has no ``has_scope``, or one
                that is an ``async def``.
        """
        super().__init__(scheme, **options)
        self.scope_validator: ScopeValidator = scope_validator or HierarchicalScopeValidator()
        has_scope: Any = getattr(self.scope_validator, "has_scope", None)
        if isinstance(scope_validator, type) or not callable(has_scope):
            msg = f"{scope_validator!r} is no scope validator: pass an object with has_scope(scope, granted_scopes)"
            raise ConfigurationError(msg)
        if iscoroutinefunction(unwrap(has_scope)):
            # Nobody would await its answer, and a coroutine is as good as True.
            msg = f"{type(scope_validator).__name__}.has_scope has to be a def, not an async def"
            raise ConfigurationError(msg)
        self._rules = GrantRules(
            scope_claims=scope_claims,
            role_claims=role_claims,
            roles=roles,
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
            grants, decider = self.grants_on(connection, claims), self.deciding(connection)
            if not any(decider.grants_scope(grants, scope) for scope in required):
                decider.refuse_scopes(required, " or ".join(required))
            return claims

        return self._security(ruled(any_scope, f"any of {', '.join(required)}"))

    @called
    def requires_role(self, *roles: str) -> params.Security:
        """Require at least one of ``roles``, by name; gives the claims.

        Raises:
            ConfigurationError: There is none, one is no text, or one is not among the configured roles.
        """
        strange = [role for role in roles if not isinstance(role, str) or not role]
        if strange:
            msg = f"the name of a role is text, such as requires_role('editor'), not {strange[0]!r}"
            raise ConfigurationError(msg)
        unknown = sorted({role for role in roles if self._rules.roles and role not in self._rules.roles})
        if not roles or unknown:
            among = f" among {sorted(self._rules.roles)}" if self._rules.roles else ""
            msg = f"requires_role() needs at least one role{among}, not {unknown or 'none'}"
            raise ConfigurationError(msg)

        async def role(connection: HTTPConnection, claims: Annotated[Claims, self.authenticated()]) -> Claims:
            if self.grants_on(connection, claims).roles.isdisjoint(roles):
                raise self.deciding(connection).refuse("missing_role")
            return claims

        return self._security(ruled(role, f"role {' or '.join(roles)}"))

    @called
    def requires_admin(self) -> params.Security:
        """Require the claim ``is_admin`` to be ``True``; gives the claims."""

        async def admin(connection: HTTPConnection, claims: Annotated[Claims, self.authenticated()]) -> Claims:
            if not self.grants_on(connection, claims).is_admin:
                raise self.deciding(connection).refuse("not_admin")
            return claims

        return self._security(ruled(admin, "admin"))

    @called
    def requires_tenant(
        self, path_param: str = "tenant", *, tenant_claims: Sequence[str] = ("tenant_id", "tenant")
    ) -> params.Security:
        """Require the tenant in the path to be the caller's, compared as text; gives the claims.

        Args:
            path_param: The parameter of the path that names the tenant, as in ``/tenants/{tenant}/items``.
            tenant_claims: The claims that may name the caller's, each one tenant or a list of tenants; the first that
                is there counts.

        Raises:
            ConfigurationError: ``tenant_claims`` is no list of names. At a request: its path has no such parameter.
        """
        if isinstance(tenant_claims, str) or not tenant_claims:
            msg = f"tenant_claims is a sequence of claim names, such as ({tenant_claims!r},)"
            raise ConfigurationError(msg)

        async def tenant(connection: HTTPConnection, claims: Annotated[Claims, self.authenticated()]) -> Claims:
            if path_param not in connection.path_params:
                msg = f"requires_tenant() guards a path without {{{path_param}}}: pass path_param="
                raise ConfigurationError(msg)
            if str(connection.path_params[path_param]) not in tenants_of(claims, tenant_claims):
                raise self.deciding(connection).refuse("other_tenant")
            return claims

        return self._security(ruled(tenant, f"tenant {path_param}"))

    @called
    def granted(self) -> params.Depends:
        """Give the granted scopes as a frozenset, those of the caller's roles included."""

        async def scopes(connection: HTTPConnection, claims: Annotated[Claims, self.authenticated()]) -> frozenset[str]:
            return self.grants_on(connection, claims).scopes

        return PlainParameter(scopes, scope="request")

    def covers(self, claims: Claims, *scopes: str) -> bool:
        """Return whether ``claims`` grant all of ``scopes``: the decision of ``requires``, in a handler."""
        grants = self.grants_of(claims)
        return all(self.grants_scope(grants, Scope(scope)) for scope in scopes)

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
        granted = grants.scopes
        for scope in scopes:
            if not self.scope_validator.has_scope(scope, granted) and not self._is_everything(scope, grants):
                self.refuse_scopes(scopes, scope)

    def grants_scope(self, grants: Grants, scope: str) -> bool:
        """Return whether ``grants`` cover a scope."""
        return self.scope_validator.has_scope(scope, grants.scopes) or self._is_everything(scope, grants)

    def _is_everything(self, scope: str, grants: Grants) -> bool:
        # Only a validator that knows wildcards takes a bare "*" for more than itself: for every scope that can be
        # granted at all, as if it had been.
        if not grants.everything or not getattr(self.scope_validator, "has_everything", False):
            return False
        return self.scope_validator.has_scope(scope, frozenset({scope}))


def tenants_of(claims: Mapping[str, Any], names: Sequence[str]) -> frozenset[str]:
    """Return the tenants that the first of the claims ``names`` holds, as text. What is no text or number is none."""
    value = next((claims[name] for name in names if claims.get(name) is not None), None)
    listed = value if isinstance(value, list | tuple | set | frozenset) else [value]
    return frozenset(str(each) for each in listed if isinstance(each, str | int) and not isinstance(each, bool)) - {""}
