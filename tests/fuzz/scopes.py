"""Claims and scopes: what is granted, and what that covers, equals the result of the slow reading of the rules."""

import json
from collections.abc import Mapping
from typing import Any, ClassVar

from fastapi_guard import (
    ConfigurationError,
    HierarchicalScopeValidator,
    JWTAuth,
    JWTConfig,
    Scope,
    ScopesAuth,
    SimpleScopeValidator,
    StaticAPIKeyAuth,
)
from fuzz.tokens import KEYS

ROLES = {"editor": ["content:edit"], "reader": ["*:read"], "root": ["*"], "nobody": []}
DEFAULT_ROLE = "reader"


class Deep(HierarchicalScopeValidator):
    """Actions in a chain and in a circle."""

    scope_hierarchy: ClassVar[Mapping[str, set[str]]] = {
        "own": {"edit"},
        "edit": {"read"},
        "read": set(),
        "a": {"b"},
        "b": {"a"},
        "all": {"*"},
    }


CONFIG = JWTConfig(key=KEYS["HS256"], algorithms=["HS256"], issuer_url="joe")


def auths() -> list[ScopesAuth]:
    """Return an Auth of each kind; the claims of the last are stored by the application itself."""
    options: dict[str, Any] = {"roles": ROLES, "role_claims": ("roles", "role", "realm_access.roles")}
    return [
        JWTAuth(CONFIG, **options),
        JWTAuth(CONFIG, scope_validator=Deep(), default_role=DEFAULT_ROLE, **options),
        JWTAuth(CONFIG, scope_validator=SimpleScopeValidator(), **options),
        StaticAPIKeyAuth({}, **options),
    ]


# The same for all inputs: what they remember of earlier ones must not matter.
AUTHS = auths()


def texts_in(value: object) -> set[str]:
    """Return the scopes in a claim (RFC 6749 3.3)."""
    if isinstance(value, str):
        value = value.split(" ")
    return {text for text in value if isinstance(text, str) and text} if isinstance(value, list) else set()


def roles_in(claims: Mapping[str, Any], default: str | None) -> set[str]:
    """Return the roles in the claims."""
    realm = claims.get("realm_access")
    nested = realm.get("roles") if isinstance(realm, dict) else None
    dotted = claims.get("realm_access.roles")
    found: set[str] = set()
    for value in (claims.get("roles"), claims.get("role"), nested if dotted is None else dotted):
        found |= ({value} - {""}) if isinstance(value, str) else texts_in(value)
    return found or ({default} if default else set())


def reaches(hierarchy: Mapping[str, Any], higher: str, lower: str) -> bool:
    """Return whether one action holds another, directly or through others."""
    held = [higher]
    for action in held:  # which grows
        held += [below for below in hierarchy.get(action, ()) if below not in held]
    return lower in held


def covers(auth: ScopesAuth, required: str, granted: set[str], *, everything: bool) -> bool:
    """Return whether the granted scopes cover a required one."""
    validator = auth.scope_validator
    if isinstance(validator, SimpleScopeValidator):
        return required in granted
    assert isinstance(validator, HierarchicalScopeValidator)
    resource, colon, action = required.partition(":")
    if not colon:
        return everything or required in granted
    if not resource or not action:
        return False
    for scope in granted:
        of, dot, may = scope.partition(":")
        if not dot or of not in (resource, "*"):
            continue
        if may == "*" or (action != "*" and reaches(validator.scope_hierarchy, may, action)):
            return True
    return everything


def is_scope(text: str) -> bool:
    """Return whether a text is a scope-token of RFC 6749 3.3."""
    return bool(text) and all("!" <= character <= "~" and character not in '"\\' for character in text)


async def check(raw: bytes) -> None:
    """Split the input: the first line is a required scope, the rest are claims, or a claim."""
    line, _, rest = raw.partition(b"\n")
    required, text = line.decode("utf-8", "surrogateescape"), rest.decode("utf-8", "surrogateescape")
    try:
        claims = json.loads(text)
    except (ValueError, RecursionError):
        claims = text
    if not isinstance(claims, dict):
        claims = {"scope": claims, "role": claims}
    try:
        Scope(required)
    except ConfigurationError:
        assert not is_scope(required), required
        required = "items:read"
    assert is_scope(required)
    for auth in AUTHS:
        default = DEFAULT_ROLE if isinstance(auth.scope_validator, Deep) else None
        own = texts_in(claims.get("scope")) | texts_in(claims.get("scp"))
        roles = roles_in(claims, default)
        granted = own.union(*(ROLES.get(role, ()) for role in roles))
        everything = "root" in roles or ("*" in own and isinstance(auth, StaticAPIKeyAuth))
        grants = auth.grants_of(claims)
        assert (grants.scopes, grants.roles) == (granted, roles), claims
        assert grants.everything is everything
        assert grants.is_admin is (claims.get("is_admin") is True)
        expected = covers(auth, required, granted, everything=everything)
        assert auth.covers(claims, required) is expected, (required, claims, type(auth.scope_validator))
