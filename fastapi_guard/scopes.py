"""Scopes, and the validators that decide whether granted scopes cover a required one (RFC 6749 3.3)."""

import re
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from enum import Enum
from functools import cached_property, lru_cache
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

from fastapi_guard.exceptions import ConfigurationError

EVERYTHING = "*"
_EMPTY = frozenset({""})

# scope-token of RFC 6749 3.3: visible ASCII without the quotation mark and the backslash.
_SCOPE_TOKEN = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")


class Scope(str):
    """A scope: a ``str`` of RFC 6749's scope-token characters, by convention ``resource:action``.

    Raises:
        ConfigurationError: It is empty or has a character that a scope cannot have.
    """

    __slots__ = ()

    def __new__(cls, value: str | Enum) -> Self:
        """Check ``value``; a member of a ``str`` Enum becomes its value."""
        text = value.value if isinstance(value, Enum) else value
        if not isinstance(text, str) or not _SCOPE_TOKEN.fullmatch(text):
            msg = (
                f"{text!r} is not a scope: one or more visible ASCII characters without the quotation mark and the"
                " backslash (RFC 6749 3.3); pass several scopes as several arguments"
            )
            raise ConfigurationError(msg)
        return super().__new__(cls, text)

    @property
    def resource(self) -> str:
        """The part before the first colon; the whole where there is none."""
        return self.partition(":")[0]

    @property
    def action(self) -> str | None:
        """The part after the first colon; ``None`` where there is none."""
        _, colon, action = self.partition(":")
        return action if colon else None


def scopes_of(value: object) -> frozenset[str]:
    """Return the scopes in a claim: a space-separated string, or a collection of strings, one scope each.

    A string is split at U+0020 alone (RFC 6749 3.3). A value of any other type grants nothing.
    """
    if isinstance(value, str):
        return frozenset(value.split(" ")) - _EMPTY
    if isinstance(value, list | tuple | set | frozenset):
        return frozenset(scope for scope in value if isinstance(scope, str) and scope)
    return frozenset()


@runtime_checkable
class ScopeValidator(Protocol):
    """Decide whether granted scopes cover a required one.

    Subclass it, or pass any object with this method, as ``scope_validator`` of a ScopesAuth.
    """

    @abstractmethod
    def has_scope(self, scope: str, granted_scopes: Iterable[str], /) -> bool:
        """Return whether ``granted_scopes`` cover the required ``scope``.

        Args:
            scope: The required scope, one scope-token of RFC 6749 3.3.
            granted_scopes: A frozenset of the granted scopes at a request; any iterable elsewhere.
        """
        ...  # pragma: no cover


class SimpleScopeValidator:
    """A required scope is covered by itself alone."""

    def has_scope(self, scope: str, granted_scopes: Iterable[str]) -> bool:
        """Return whether ``scope`` is among ``granted_scopes``, verbatim."""
        return scope in _as_set(granted_scopes)


class HierarchicalScopeValidator:
    """Cover ``resource:action`` scopes by an action hierarchy and by documented wildcards.

    * ``items:edit`` covers ``items:read`` where the hierarchy has it so, directly or through another action.
    * ``items:*`` covers every action on items, whatever the hierarchy; ``*:read`` covers ``items:read``.
    * A required ``items:*`` is covered by a granted ``*`` action only.
    * A scope without a colon stands for itself, a bare ``*`` included. An empty resource or action is covered by
      nothing.

    Comparison is exact and case-sensitive, and a scope is split at its first colon. Subclass with another
    ``scope_hierarchy`` for another hierarchy.
    """

    scope_hierarchy: ClassVar[Mapping[str, AbstractSet[str]]] = {"read": set(), "edit": {"read"}, "*": {"read", "edit"}}

    # Whether a bare "*" from the application itself (a role, a stored key) means every scope; see ScopesAuth.
    has_everything: ClassVar[bool] = True

    def __init_subclass__(cls, **arguments: Any) -> None:
        """Check the hierarchy of a subclass when the class is made.

        Raises:
            ConfigurationError: It is not a mapping, or an action's lower actions are not a set.
        """
        super().__init_subclass__(**arguments)
        if not isinstance(cls.scope_hierarchy, Mapping):
            found = type(cls.scope_hierarchy).__name__
            msg = f'scope_hierarchy maps each action to the lower ones, such as {{"edit": {{"read"}}}}, not a {found}'
            raise ConfigurationError(msg)
        for action, lower in cls.scope_hierarchy.items():
            if not isinstance(lower, AbstractSet):
                msg = f'scope_hierarchy[{action!r}] is a set of actions, such as {{"read"}}, not {lower!r}'
                raise ConfigurationError(msg)

    def has_scope(self, scope: str, granted_scopes: Iterable[str]) -> bool:
        """Return whether ``granted_scopes`` cover the required ``scope``."""
        return not self._covering(scope).isdisjoint(_as_set(granted_scopes))

    @cached_property
    def _covering(self) -> Any:
        # A few scopes cover a scope, and they are known in advance: a check is one set operation.
        # Required scopes are the application's own, so the cache is bounded only against a dynamic covers().
        return lru_cache(maxsize=1024)(self._scopes_that_cover)

    def _scopes_that_cover(self, scope: str) -> frozenset[str]:
        if not isinstance(scope, str):
            return frozenset()
        resource, colon, action = scope.partition(":")
        if not colon:
            return frozenset({scope})
        if not resource or not action:
            return frozenset()
        actions = {"*"} if action == "*" else {action, "*", *self._actions_that_cover(action)}
        return frozenset(f"{name}:{covering}" for name in {resource, "*"} for covering in actions)

    def _actions_that_cover(self, action: str) -> set[str]:
        covering: set[str] = set()
        pending = {action}
        while pending:
            pending = {
                higher
                for higher, lower in self.scope_hierarchy.items()
                if higher not in covering and not pending.isdisjoint(lower)
            }
            covering |= pending
        return covering


def decide_alike(first: ScopeValidator, other: ScopeValidator) -> bool:
    """Return whether two validators are one, or of one class with the same settings."""
    if first is other or type(first) is not type(other):
        return first is other
    # Without a dict of its own an object can be compared only by its own rules.
    return first == other or (hasattr(first, "__dict__") and _settings(first) == _settings(other))


def _settings(validator: ScopeValidator) -> dict[str, Any]:
    kind = type(validator)
    # What is computed at the first use is not a setting.
    return {
        name: value
        for name, value in vars(validator).items()
        if not isinstance(getattr(kind, name, None), cached_property)
    }


def _as_set(granted_scopes: Iterable[str]) -> AbstractSet[str]:
    if isinstance(granted_scopes, frozenset):
        return granted_scopes
    return scopes_of(granted_scopes if isinstance(granted_scopes, str) else list(granted_scopes))
