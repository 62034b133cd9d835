"""The claims of a credential: the subject, its tenants, and the scopes and roles that they grant.

Read once, at verification.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from fastapi_guard.events import logger
from fastapi_guard.exceptions import ConfigurationError
from fastapi_guard.scopes import EVERYTHING, Scope, scopes_of
from fastapi_guard.stores.bounds import BoundedCache

Claims = dict[str, Any]

# The claims that may name the tenants of a credential, in the order in which they are read.
TENANT_CLAIMS: Final = ("tenant_id", "tenant")


class Subject(NamedTuple):
    """The identity that a credential names: the same ``sub`` of two issuers is two subjects (OpenID Connect Core 2).

    Attributes:
        issuer: The claim ``iss``; ``None`` for credentials of the application itself, such as sessions and API keys.
        sub: The claim ``sub``.
    """

    issuer: str | None
    sub: str


def subject_of(claims: Mapping[str, Any]) -> Subject | None:
    """Return the subject of ``claims``; ``None`` without a ``sub``, or where ``iss`` or ``sub`` is not text."""
    issuer, sub = claims.get("iss"), claims.get("sub")
    if not isinstance(sub, str) or not sub or not isinstance(issuer, str | None):
        return None
    return Subject(issuer, sub)


def tenants_of(claims: Mapping[str, Any], names: Sequence[str] = TENANT_CLAIMS) -> frozenset[str]:
    """Return the tenants of a credential, as text; an empty set means no tenant, never any tenant.

    Args:
        claims: The claims of the credential.
        names: The claims that may name tenants, each one tenant or a list of tenants, as text or integers. The first
            that is there and not ``None`` counts; a value of another type is not a tenant.
    """
    value = next((claims[name] for name in names if claims.get(name) is not None), None)
    listed = value if isinstance(value, list | tuple | set | frozenset) else (value,)
    return frozenset(
        str(tenant) for tenant in listed if isinstance(tenant, str | int) and not isinstance(tenant, bool)
    ) - {""}


class Grants(NamedTuple):
    """The rights of a verified credential, kept apart from the claims dict that the application can edit.

    Attributes:
        scopes: The granted scopes, those of the roles included.
        roles: The names of the roles.
        everything: Whether a bare ``*`` came from a role or a stored key, which the application itself granted.
        is_admin: Whether the claim ``is_admin`` is ``True``.
    """

    scopes: frozenset[str] = frozenset()
    roles: frozenset[str] = frozenset()
    everything: bool = False
    is_admin: bool = False


NO_GRANTS = Grants()
_TEXT: Final = frozenset({str})
_CONTAINERS: Final = frozenset({dict, list})
_KNOWN_GRANTS: Final = 1024


class GrantRules:
    """Which claims grant scopes and roles, and what a role stands for.

    Attributes:
        roles: The scopes of each role.
        default_role: The role of a credential that names none.
    """

    def __init__(
        self,
        *,
        scope_claims: Sequence[str] = ("scope", "scp"),
        role_claims: Sequence[str | tuple[str, ...]] = ("roles", "role"),
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
            trusts_everything: Whether a bare ``*`` in a scope claim is every scope: only for claims that the
                application itself has stored. In a token it is a scope like any other.

        Raises:
            ConfigurationError: A claim name or a role is not text, or a role has something that is not a scope.
        """
        self._scope_claims = _names("scope_claims", scope_claims)
        self._role_claims = tuple(map(_path, _names("role_claims", role_claims, paths=True)))
        self._trusts_everything = trusts_everything
        heads = (head for literal, path in self._role_claims for head in (literal, path[0]) if head is not None)
        relevant = dict.fromkeys((*self._scope_claims, *heads))
        self._logged: set[str] = set()
        # The first claim that may grant something, and all the others.
        self._first, *others = (*relevant, "is_admin")
        self._others = frozenset(others)
        self._relevant = tuple(relevant)
        self._known: BoundedCache[str | tuple[Any, ...], Grants] = BoundedCache(_KNOWN_GRANTS)
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
        self.default_role: str | None = default_role
        self._default_roles: frozenset[str] = frozenset() if default_role is None else frozenset({default_role})

    def grants_of(self, claims: Mapping[str, Any]) -> Grants:
        """Return what ``claims`` grant; a claim of an unexpected type grants nothing."""
        # The same few texts come with every request, usually in one claim alone. Only texts and lists of texts are
        # cached: to Python 1, 1.0 and True are the same key, so the administrator mark becomes a bool before it is
        # part of a key.
        key: object = None
        if claims.keys().isdisjoint(self._others):
            key = claims.get(self._first, "")
        else:
            texts = _as_key(map(claims.get, self._relevant))
            if texts is not None:
                key = (claims.get("is_admin") is True, *texts)
        if type(key) is not str and type(key) is not tuple:
            return self._read(claims)
        known = self._known.get(key)
        if known is None:
            known = self._read(claims)
            self._known.put(key, known)
        return known

    def narrowed(self, claims: Mapping[str, Any], scopes: Iterable[str]) -> Claims | None:
        """Return ``claims`` that grant ``scopes`` alone; ``None`` where the default role would grant more."""
        own = {name: value for name, value in claims.items() if name not in self._relevant}
        narrowed = {**own, "is_admin": False, self._scope_claims[0]: " ".join(scopes)}
        return narrowed if self._read(narrowed).scopes <= set(scopes) else None

    def _read(self, claims: Mapping[str, Any]) -> Grants:
        scopes: frozenset[str] = frozenset()
        for name, found in self._scopes_by_claim(claims):
            scopes |= found
            self._log_unusable(name, claims.get(name))
        everything = self._trusts_everything and EVERYTHING in scopes
        roles = frozenset(role for _, named in self._roles_by_claim(claims) for role in named) or self._default_roles
        for role in roles:
            of_role = self.roles.get(role, frozenset())
            scopes |= of_role
            everything = everything or EVERYTHING in of_role
        return Grants(scopes, roles, everything, claims.get("is_admin") is True)

    def sources_of(self, claims: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Return what ``claims`` grant, each with its source, such as ``("items:edit", "role editor")``.

        The roles are among it, as ``("role editor", "claim roles")``.
        """
        sources = [(scope, f"claim {name}") for name, found in self._scopes_by_claim(claims) for scope in sorted(found)]
        roles = [(role, f"claim {name}") for name, found in self._roles_by_claim(claims) for role in sorted(found)]
        for role, source in roles or [(role, "default role") for role in self._default_roles]:
            sources.append((f"role {role}", source))
            sources += [(scope, f"role {role}") for scope in sorted(self.roles.get(role, ()))]
        return sources

    def _scopes_by_claim(self, claims: Mapping[str, Any]) -> Iterator[tuple[str, frozenset[str]]]:
        return ((name, scopes_of(claims.get(name))) for name in self._scope_claims)

    def _roles_by_claim(self, claims: Mapping[str, Any]) -> Iterator[tuple[str, frozenset[str]]]:
        for literal, path in self._role_claims:
            # A namespaced claim such as "https://example.com/roles" has dots of its own: the literal name comes first.
            value = None if literal is None else claims.get(literal)
            if value is None:
                value = _at(claims, path)
            if value:
                self._log_unusable(literal or path[0], value, objects=True)
                yield literal or ".".join(path), _roles_in(value)

    def _log_unusable(self, name: str, value: object, *, objects: bool = False) -> None:
        """Log once that a claim, or a part of it, grants nothing because of its type; its value is not logged."""
        unusable = next(_unusable(value, objects=objects), None)
        if unusable is None or name in self._logged:
            return
        self._logged.add(name)
        what = "the claim" if unusable is value else "a part of the claim"
        logger.warning("%s %r grants nothing: it is of the type %s", what, name, type(unusable).__name__)


def _as_key(values: Iterable[object]) -> list[object] | None:
    """Return texts and lists of texts as parts of a key; ``None`` where a value is of another type."""
    key: list[object] = []
    for value in values:
        if type(value) is list and _TEXT.issuperset(map(type, value)):
            key.append(tuple(value))
        elif value is None or type(value) is str:
            key.append(value)
        else:
            return None
    return key


def _unusable(value: object, *, objects: bool) -> Iterator[object]:
    """Yield a value, or the parts of it, that grant nothing; ``objects`` may have objects as members."""
    if isinstance(value, list | tuple | set | frozenset):
        yield from (part for part in value if not isinstance(part, str))
    elif objects and isinstance(value, Mapping):
        yield from (part for part in value.values() if not isinstance(part, Mapping))
    elif value is not None and not isinstance(value, str):
        yield value


def _path(name: str | tuple[str, ...]) -> tuple[str | None, tuple[str, ...]]:
    """Return the name of a claim, and the path of members that is followed without it; of a tuple, the path alone."""
    return (None, name) if isinstance(name, tuple) else (name, tuple(name.split(".")))


def _roles_in(value: object) -> frozenset[str]:
    """Return the roles in a claim: a text, a list of texts, or an object whose members are roles (Zitadel)."""
    if isinstance(value, str):
        return frozenset({value})
    if isinstance(value, Mapping):
        return frozenset(name for name, details in value.items() if isinstance(details, Mapping))
    return scopes_of(value)


def _names(setting: str, names: Sequence[Any], *, paths: bool = False) -> tuple[Any, ...]:
    given = tuple(names) if isinstance(names, Iterable) and not isinstance(names, str) else ("",)
    steps = [step for name in given for step in (name if paths and isinstance(name, tuple) and name else (name,))]
    if not all(isinstance(step, str) and step for step in steps):
        example = names if isinstance(names, str) else setting.removesuffix("_claims")
        msg = f'{setting} is a sequence of claim names, such as ("{example}",), not {names!r}'
        raise ConfigurationError(msg)
    return given


def _role_scopes(role: str, scopes: Iterable[str]) -> frozenset[str]:
    if isinstance(scopes, str) or not isinstance(scopes, Iterable):
        msg = f"the role {role!r} is a list of scopes, such as [{scopes!r}]"
        raise ConfigurationError(msg)
    return frozenset(Scope(scope) for scope in scopes)


def _at(claims: Mapping[str, Any], path: tuple[str, ...]) -> object:
    value: object = claims
    for step in path:
        if not isinstance(value, Mapping):
            return None
        value = value.get(step)
    return value


def copied(value: Any) -> Any:
    """Return a deep copy of a JSON value, so that an endpoint that edits its claims does not edit what is cached."""
    if isinstance(value, dict):
        # Most claims are flat.
        if _CONTAINERS.isdisjoint(map(type, value.values())):
            return value.copy()
        return {name: copied(member) for name, member in value.items()}
    if isinstance(value, list):
        return [copied(member) for member in value]
    return value


def is_present(value: object) -> bool:
    """Return whether a member of another party's JSON is there: null and empty count as absent."""
    return value is not None and value not in ("", [], {})
