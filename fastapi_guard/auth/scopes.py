"""TokenAuth and ScopesAuth: a bearer token, and from its claims to scopes, roles and tenants."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Unpack

from fastapi import params
from fastapi.security.base import SecurityBase
from starlette.requests import HTTPConnection

from fastapi_guard.auth.auth import Auth, AuthOptions
from fastapi_guard.auth.decision import Decision, PrincipalT
from fastapi_guard.auth.guard import any_of_rule
from fastapi_guard.auth.placement import PlainParameter, guard_method
from fastapi_guard.callables import is_async
from fastapi_guard.claims import TENANT_CLAIMS, Claims, GrantRules, Grants, tenants_of
from fastapi_guard.exceptions import ConfigurationError, Forbidden, shown
from fastapi_guard.schemes import BearerScheme, SchemeCallable
from fastapi_guard.scopes import HierarchicalScopeValidator, Scope, ScopeValidator, scopes_of


class TokenAuth(Auth[PrincipalT]):
    """An Auth whose credential comes in ``Authorization: Bearer``, unless another scheme is given."""

    def __init__(self, scheme: SecurityBase | SchemeCallable | None = None, **options: Unpack[AuthOptions]) -> None:
        """Read tokens from ``scheme``, by default the plain Bearer header."""
        super().__init__(BearerScheme() if scheme is None else scheme, **options)


class ScopesOptions(AuthOptions, total=False):
    """The keyword arguments of every ScopesAuth, beside those of every Auth.

    Attributes:
        scope_claims: Names of the claims that hold scopes, each a space-separated string or a list of strings.
        role_claims: Names of the claims that hold roles; a dotted one may be a path (``realm_access.roles``), a
            tuple is one (``("resource_access", "com.acme.api", "roles")``). The objects in an object are roles.
        roles: The scopes of each role. A bare ``*`` among them is every scope.
        default_role: The role of a credential that names none.
        tenant_claims: Names of the claims that may name the caller's tenant, each one tenant or a list of tenants; the
            first that is there counts.
    """

    scope_claims: Sequence[str]
    role_claims: Sequence[str | tuple[str, ...]]
    roles: Mapping[str, Iterable[str]]
    default_role: str | None
    tenant_claims: Sequence[str]


class ScopesDecision(Decision[Claims]):
    """How a ScopesAuth decides: with its scope validator."""

    auth: "ScopesAuth"

    def missing(self, grants: Grants, scopes: Sequence[str]) -> str | None:
        """Return the first of ``scopes`` that is not granted, ``None`` where all are."""
        validator = self.auth.scope_validator
        for scope in scopes:
            # Anything else that is true, such as a coroutine, is not an answer.
            if validator.has_scope(scope, grants.scopes) is not True and not (
                grants.everything and self._is_grantable(scope)
            ):
                return scope
        return None

    def _is_grantable(self, scope: str) -> bool:
        # Only a validator with wildcards takes a bare "*" for more than itself: for every scope that can be granted at
        # all, as if it had been.
        validator = self.auth.scope_validator
        return getattr(validator, "has_everything", False) and validator.has_scope(scope, frozenset({scope})) is True

    @property
    def rules(self) -> GrantRules:
        """Which claims grant scopes and roles."""
        return self.auth._rules  # noqa: SLF001 - set when the Auth is constructed

    def tenants(self, claims: Claims) -> frozenset[str]:
        """Return the tenants that claims name, as text."""
        return tenants_of(claims, self.auth._tenant_claims)  # noqa: SLF001 - set when the Auth is constructed

    def has_malformed_tenant(self, claims: Claims) -> bool:
        """Return whether claims have a tenant of a wrong type, which is not the same as having none."""
        names = self.auth._tenant_claims  # noqa: SLF001 - set when the Auth is constructed
        value = next((claims[name] for name in names if claims.get(name) is not None), None)
        return bool(value) and not tenants_of(claims, names)


class ScopesAuth(TokenAuth[Claims], ABC):
    """An Auth whose principal is a claims dict, with scopes and roles in it. A subclass implements ``verify``.

    Attributes:
        scope_validator: Decides whether granted scopes cover a required one.
    """

    # Whether a bare "*" in the scopes of the claims is every scope: only where the application itself stored them.
    _trusts_everything: bool = False
    _decision_class = ScopesDecision

    def __init__(
        self,
        scheme: SecurityBase | SchemeCallable | None = None,
        scope_validator: ScopeValidator | None = None,
        *,
        scope_claims: Sequence[str] = ("scope", "scp"),
        role_claims: Sequence[str | tuple[str, ...]] = ("roles", "role"),
        roles: Mapping[str, Iterable[str]] | None = None,
        default_role: str | None = None,
        tenant_claims: Sequence[str] = TENANT_CLAIMS,
        **options: Unpack[AuthOptions],
    ) -> None:
        """Decide by ``scope_validator``, by default HierarchicalScopeValidator.

        Args:
            scheme: Where the token comes from, by default the Bearer header.
            scope_validator: Which scopes cover which.
            scope_claims: See ScopesOptions, as for the others.
            role_claims: By default ``roles`` and ``role``.
            roles: By default none.
            default_role: By default none.
            tenant_claims: By default ``tenant_id`` and ``tenant``.
            options: See AuthOptions.

        Raises:
            ConfigurationError: A role has something that is not a scope, or the validator has no ``has_scope``, or one
                that is an ``async def``.
        """
        validator = HierarchicalScopeValidator() if scope_validator is None else scope_validator
        self.scope_validator: ScopeValidator = validator
        if isinstance(scope_validator, type) or not isinstance(self.scope_validator, ScopeValidator):
            msg = f"{scope_validator!r} is not a scope validator: pass an object with has_scope(scope, granted_scopes)"
            raise ConfigurationError(msg)
        if is_async(self.scope_validator.has_scope):
            # A coroutine that is never awaited counts as True.
            msg = f"{type(scope_validator).__name__}.has_scope has to be a def, not an async def"
            raise ConfigurationError(msg)
        if isinstance(tenant_claims, str) or not isinstance(tenant_claims, Iterable) or not tenant_claims:
            msg = f"tenant_claims is a sequence of claim names, such as ({tenant_claims!r},)"
            raise ConfigurationError(msg)
        super().__init__(scheme, **options)
        self._rules = GrantRules(
            scope_claims=scope_claims,
            role_claims=role_claims,
            roles=roles,
            default_role=default_role,
            trusts_everything=self._trusts_everything,
        )
        self._tenant_claims = tuple(tenant_claims)

    @abstractmethod
    async def verify(self, raw: str) -> Claims:
        """Return the claims of a raw credential; ``None`` and ``False`` count as a refusal.

        Raises:
            AuthError: The credential is invalid, or that cannot be decided now.
        """

    def grants_of(self, principal: Claims) -> Grants:
        """Return the scopes and roles of a claims dict; called once, at verification."""
        if not isinstance(principal, dict):
            msg = f"{type(self).__name__}.verify returns a claims dict, not {type(principal).__name__}"
            raise TypeError(msg)
        return self._rules.grants_of(principal)

    @guard_method
    def requires(self, *scopes: str) -> params.Security:
        """Require all of ``scopes``; returns the claims. Without scopes the same as ``authenticated()``.

        Raises:
            ConfigurationError: One is not a scope (RFC 6749 3.3).
        """
        return self._requiring(scopes)

    @guard_method
    def requires_any(self, *scopes: str) -> params.Security:
        """Require at least one of ``scopes``; returns the claims.

        Raises:
            ConfigurationError: There is none, or one is not a scope.
        """
        required = [Scope(scope) for scope in scopes]
        if not required:
            msg = "requires_any() needs at least one scope; authenticated() requires none"
            raise ConfigurationError(msg)
        own = self.dependency.decision

        def check(decision: Decision[Any], connection: HTTPConnection, claims: Claims) -> Forbidden | None:
            grants = own.grants(connection, claims)
            if any(decision.covers(grants, scope) for scope in required):
                return None
            return decision.refusals.missing_scope(required, " or ".join(required))

        return self._checking(check, any_of_rule(required), lasts=True)

    @guard_method
    def requires_role(self, *roles: str) -> params.Security:
        """Require at least one of ``roles``, by name; returns the claims.

        Raises:
            ConfigurationError: There is none, one is not text, or one is not among the configured roles.
        """
        for role in roles:
            if not isinstance(role, str) or not role:
                msg = f"the name of a role is text, such as requires_role('editor'), not {role!r}"
                raise ConfigurationError(msg)
        unknown = sorted({role for role in roles if self._rules.roles and role not in self._rules.roles})
        if not roles or unknown:
            among = f" among {sorted(self._rules.roles)}" if self._rules.roles else ""
            msg = f"requires_role() needs at least one role{among}, not {unknown or 'none'}"
            raise ConfigurationError(msg)
        own = self.dependency.decision

        def check(_: Decision[Any], connection: HTTPConnection, claims: Claims) -> Forbidden | None:
            missing = own.grants(connection, claims).roles.isdisjoint(roles)
            return Forbidden(reason="missing_role") if missing else None

        return self._checking(check, f"role {' or '.join(roles)}", lasts=True)

    @guard_method
    def requires_admin(self) -> params.Security:
        """Require the claim ``is_admin`` to be ``True``; returns the claims."""
        own = self.dependency.decision

        def check(_: Decision[Any], connection: HTTPConnection, claims: Claims) -> Forbidden | None:
            return None if own.grants(connection, claims).is_admin else Forbidden(reason="not_admin")

        return self._checking(check, "admin", lasts=True)

    @guard_method
    def requires_tenant(self, path_param: str = "tenant") -> params.Security:
        """Require the tenant in the path to be the caller's, compared as text; returns the claims.

        The claims ``tenant_claims`` of this Auth name the caller's tenants; a caller without one has none.

        Args:
            path_param: The parameter of the path that names the tenant, as in ``/tenants/{tenant}/items``.

        Raises:
            ConfigurationError: ``path_param`` cannot be the name of a parameter. At startup by ``configure_app``, else
                at a request: the path has no such parameter.
        """
        if not isinstance(path_param, str) or not path_param.isidentifier():
            msg = f'path_param is the name of a parameter of the path, such as "tenant", not {shown(path_param)}'
            raise ConfigurationError(msg)

        def check(decision: Decision[Any], connection: HTTPConnection, claims: Claims) -> Forbidden | None:
            if path_param not in connection.path_params:
                msg = f"requires_tenant() guards a path without {{{path_param}}}: pass path_param="
                raise ConfigurationError(msg)
            same = str(connection.path_params[path_param]) in decision.tenants(claims)
            return None if same else Forbidden(reason="other_tenant")

        return self._checking(check, f"tenant {path_param}", lasts=True, path_param=path_param)

    @guard_method
    def granted(self) -> params.Depends:
        """Return the granted scopes as a frozenset, those of the caller's roles included."""
        own = self.dependency.decision

        async def scopes(
            connection: HTTPConnection, claims: Annotated[Claims, self._security(self.dependency)]
        ) -> frozenset[str]:
            return own.grants(connection, claims).scopes

        return PlainParameter(scopes, scope="request")

    def covers(self, claims: Claims, *scopes: str) -> bool:
        """Return whether ``claims`` grant all of ``scopes``: the decision of ``requires``, in a handler.

        What is not a scope (RFC 6749 3.3) is not granted.
        """
        required = _as_scopes(scopes)
        return required is not None and self.dependency.decision.missing(self.grants_of(claims), required) is None

    def has_scope(self, scope: str, granted: Sequence[str]) -> bool:
        """Return whether the ``granted`` scopes cover ``scope``, by the validator of this Auth.

        What is not a scope (RFC 6749 3.3) is not covered. A text of several is split at spaces, as the claim is.
        """
        required = _as_scopes([scope])
        # A text is a sequence of its characters, and a part of it would be "in" it for a validator.
        listed: Any = scopes_of(granted) if isinstance(granted, str) else granted
        return required is not None and self.scope_validator.has_scope(required[0], listed) is True


def _as_scopes(scopes: Iterable[str]) -> list[Scope] | None:
    try:
        return [Scope(scope) for scope in scopes]
    except ConfigurationError:
        return None
