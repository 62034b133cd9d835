"""What a claims dict grants: scopes, roles, the administrator mark, read once, at verification."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from fastapi_guard.exceptions import ConfigurationError
from fastapi_guard.scopes import EVERYTHING, Scope, scopes_of

Claims = dict[str, Any]


class Grants(NamedTuple):
    """What a verified credential may do, kept apart from the claims dict that the application can edit.

    Attributes:
        scopes: The granted scopes, those of the roles included.
        roles: The names of the roles.
        everything: Whether a bare ``*`` came from where the application itself grants: a role or a stored key.
        is_admin: Whether the claim ``is_admin`` is ``True``.
    """

    scopes: frozenset[str] = frozenset()
    roles: frozenset[str] = frozenset()
    everything: bool = False
    is_admin: bool = False


NO_GRANTS = Grants()
_MAX_KNOWN = 1024


class GrantRules:
    """Which claims grant scopes and roles, and what a role stands for.

    Attributes:
        roles: The scopes of each role.
    """

    def __init__(
        self,
        *,
        scope_claims: Sequence[str] = ("scope", "scp"),
        role_claims: Sequence[str] = ("roles", "role"),
        roles: Mapping[str, Iterable[str]] | None = None,
        default_role: str | None = None,
        trusts_everything: bool = False,
    ) -> None:
        """Read ``scope_claims`` and ``role_claims``.

        Args:
            scope_claims: Names of the claims that hold scopes, each a space-separated string or a list of strings.
            role_claims: Names of the claims that hold roles, each one role or a list of roles. A dotted name is first
                the name of a claim, then a path (``realm_access.roles``).
            roles: The scopes of each role. A bare ``*`` among them is every scope.
            default_role: The role of a credential that names none.
            trusts_everything: Whether a bare ``*`` in a scope claim is every scope. It is for claims that the
                application itself has stored; in somebody's token it is a scope like any other.

        Raises:
            ConfigurationError: A claim name or a role is not text, or a role holds something that is no scope.
        """
        self._scope_claims = _names("scope_claims", scope_claims)
        self._role_claims = _names("role_claims", role_claims)
        self._trusts_everything = trusts_everything
        heads = (path.partition(".")[0] for path in self._role_claims)
        relevant = dict.fromkeys((*self._scope_claims, *self._role_claims, *heads))
        # The first of what may grant, and all others.
        self._first, *others = (*relevant, "is_admin")
        self._others = frozenset(others)
        self._relevant = tuple(relevant)
        self._known: dict[str | tuple[Any, ...], Grants] = {}
        given = {} if roles is None else roles
        if not isinstance(given, Mapping) or not all(isinstance(role, str) for role in given):
            msg = f'roles maps names to scopes, such as {{"editor": ["items:edit"]}}, not {roles!r}'
            raise ConfigurationError(msg)
        self.roles: Mapping[str, frozenset[str]] = {role: _role_scopes(role, scopes) for role, scopes in given.items()}
        if default_role is not None and not isinstance(default_role, str):
            msg = f"default_role is the name of a role, not {default_role!r}"
            raise ConfigurationError(msg)
        if default_role is not None and self.roles and default_role not in self.roles:
            msg = f"default_role {default_role!r} is not among the roles {sorted(self.roles)}"
            raise ConfigurationError(msg)
        self._default_roles: frozenset[str] = frozenset() if default_role is None else frozenset({default_role})

    def grants_of(self, claims: Mapping[str, Any]) -> Grants:
        """Return what ``claims`` grant; a claim of an unexpected type grants nothing."""
        # The same few texts come with every request, in most of them in one claim alone. Only texts are remembered: to
        # Python 1, 1.0 and True are one key, which is why the administrator mark is compared before it is part of one.
        key: object = None
        if self._others.isdisjoint(claims):
            key = claims.get(self._first, "")
        else:
            texts = tuple(map(claims.get, self._relevant))
            if all(text is None or type(text) is str for text in texts):
                key = (claims.get("is_admin") is True, *texts)
        if type(key) is not str and type(key) is not tuple:
            return self._read(claims)
        known = self._known.get(key)
        if known is None:
            known = self._read(claims)
            if len(self._known) < _MAX_KNOWN:
                self._known[key] = known
        return known

    def _read(self, claims: Mapping[str, Any]) -> Grants:
        scopes: frozenset[str] = frozenset()
        for name in self._scope_claims:
            scopes |= scopes_of(claims.get(name))
        everything = self._trusts_everything and EVERYTHING in scopes
        roles = self._roles_of(claims)
        for role in roles:
            of_role = self.roles.get(role, frozenset())
            scopes |= of_role
            everything = everything or EVERYTHING in of_role
        return Grants(scopes, roles, everything, claims.get("is_admin") is True)

    def _roles_of(self, claims: Mapping[str, Any]) -> frozenset[str]:
        roles: frozenset[str] = frozenset()
        for path in self._role_claims:
            # A namespaced claim such as "https://example.com/roles" has dots of its own: the literal name goes first.
            value = claims.get(path)
            if value is None and "." in path:
                value = _at(claims, path)
            if value:
                roles |= {value} if isinstance(value, str) else scopes_of(value)
        return roles or self._default_roles


def _names(setting: str, names: Sequence[str]) -> tuple[str, ...]:
    given = tuple(names) if isinstance(names, Iterable) and not isinstance(names, str) else ("",)
    if not all(isinstance(each, str) and each for each in given):
        example = names if isinstance(names, str) else setting.removesuffix("_claims")
        msg = f'{setting} is a sequence of claim names, such as ("{example}",), not {names!r}'
        raise ConfigurationError(msg)
    return given


def _role_scopes(role: str, scopes: Iterable[str]) -> frozenset[str]:
    if isinstance(scopes, str) or not isinstance(scopes, Iterable):
        msg = f"the role {role!r} is a list of scopes, such as [{scopes!r}]"
        raise ConfigurationError(msg)
    return frozenset(Scope(scope) for scope in scopes)


def _at(claims: Mapping[str, Any], path: str) -> object:
    value: object = claims
    for step in path.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(step)
    return value


def copied(value: Any) -> Any:
    """Return a copy of what JSON can say, so that what is kept does not change with what an endpoint does to it."""
    if isinstance(value, dict):
        return {name: copied(each) for name, each in value.items()}
    if isinstance(value, list):
        return [copied(each) for each in value]
    return value
