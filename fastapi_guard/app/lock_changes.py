"""Compare two states of an application's authorization, as a reviewer reads it.

A requirement is weakened where a caller may pass that was refused before. Where that cannot be excluded, such as for a
policy with another name, the change counts as weakened.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from fastapi import FastAPI

from fastapi_guard.app.audit import routes_of_app
from fastapi_guard.app.lock import Access, Authorization, Requirement, RoleRules, authorization_of, auths_of
from fastapi_guard.auth import Auth, ScopesAuth
from fastapi_guard.scopes import EVERYTHING

Verdict = Literal["added", "removed", "weakened", "tightened", "changed"]
# Whether a granted scope covers a required one: (name of the Auth, required, granted).
Covers = Callable[[str, str, str], bool]

_ORDER: Final = ("weakened", "added", "removed", "tightened", "changed")
_HIDDEN: Final = ", else 404"
_WITHIN: Final = re.compile(r"(?P<what>login|factor \S+)(?: within (?P<seconds>\d+) s)?")
_MARKS: Final[Mapping[Verdict, str]] = {"added": "+", "removed": "-", "weakened": "!", "tightened": "^", "changed": "~"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """One difference.

    Attributes:
        verdict: "weakened" where a caller may pass that was refused before; "tightened" for the reverse; "changed"
            where the same callers pass by another text; "added" and "removed" for ways in and roles.
        subject: The way in, such as ``GET /items``, or a role, such as ``role editor of jwt``.
        before: What was required or granted, in words; ``None`` where it is new.
        after: What is required or granted now; ``None`` where it is gone.
    """

    verdict: Verdict
    subject: str
    before: str | None
    after: str | None

    def as_dict(self) -> dict[str, Any]:
        """Return it as a dict of what JSON has."""
        return {"change": self.verdict, "subject": self.subject, "before": self.before, "after": self.after}

    def __str__(self) -> str:
        """Return it as lines of a report."""
        lines = [f"{_MARKS[self.verdict]} {self.verdict:9} {self.subject}"]
        lines += [f"      before: {self.before}"] if self.before is not None else []
        lines += [f"      now:    {self.after}"] if self.after is not None else []
        return "\n".join(lines)


def lock_changes(app: FastAPI, text: str) -> list[Change]:
    """Return every difference between a lockfile and ``app`` as it is now, weakened ways first.

    Args:
        app: The application.
        text: The text of the lockfile.

    Raises:
        ConfigurationError: It is not a lockfile of this version.
    """
    old, new = Authorization.parse(text), authorization_of(app)
    return changes_between(old, new, covering(auths_of(routes_of_app(app).ways)))


def changes_between(old: Authorization, new: Authorization, covers: Covers) -> list[Change]:
    """Return every difference, weakened ways first."""
    changes = [*_ways(old, new, covers), *_roles(old, new, covers)]
    return sorted(changes, key=lambda change: (_ORDER.index(change.verdict), change.subject))


def covering(auths: Mapping[str, Auth[Any]]) -> Covers:
    """Return how scopes cover each other by the validators of ``auths``; without one a scope covers itself alone."""

    def covers(name: str, required: str, granted: str) -> bool:
        auth = auths.get(name)
        return required == granted or (isinstance(auth, ScopesAuth) and auth.has_scope(required, [granted]))

    return covers


def _ways(old: Authorization, new: Authorization, covers: Covers) -> Iterator[Change]:
    for way in dict.fromkeys((*old.ways, *new.ways)):
        before, after = old.ways.get(way), new.ways.get(way)
        if before != after:
            texts = [None if access is None else str(access) for access in (before, after)]
            yield Change(verdict=_verdict(before, after, covers), subject=way, before=texts[0], after=texts[1])


def _verdict(before: Access | None, after: Access | None, covers: Covers) -> Verdict:
    if before is None:
        return "added"
    if after is None:
        return "removed"
    if not _implies(after, before, covers):
        return "weakened"
    return "changed" if _implies(before, after, covers) else "tightened"


def _implies(strong: Access, weak: Access, covers: Covers) -> bool:
    """Return whether every caller that passes ``strong`` passes ``weak``."""
    required = [requirement for requirement in weak.requirements if not requirement.optional]
    return all(any(_is_implied(by, one, covers) for by in strong.requirements) for one in required)


def _is_implied(by: Requirement, requirement: Requirement, covers: Covers) -> bool:
    name = requirement.auth
    if by.auth != name or by.optional or (by.presence_only and not requirement.presence_only):
        return False
    if not set(by.via) <= set(requirement.via):
        return False
    if not all(any(covers(name, scope, granted) for granted in by.scopes) for scope in requirement.scopes):
        return False
    return all(_rule_is_implied(by, rule, covers) for rule in requirement.rules)


def _rule_is_implied(by: Requirement, rule: str, covers: Covers) -> bool:
    if rule.startswith("any of "):
        scopes = rule.removeprefix("any of ").split(", ")
        if any(covers(by.auth, scope, granted) for scope in scopes for granted in by.scopes):
            return True
    return any(_narrows(own, rule, by.auth, covers) for own in by.rules)


def _narrows(strong: str, weak: str, auth: str, covers: Covers) -> bool:
    """Return whether a rule refuses whatever another refuses."""
    if strong == weak:
        return True
    for prefix, separator in (("any of ", ", "), ("role ", " or ")):
        if strong.startswith(prefix) and weak.startswith(prefix):
            wanted = weak.removeprefix(prefix).split(separator)
            given = strong.removeprefix(prefix).split(separator)
            same = covers if prefix == "any of " else _is_same
            return all(any(same(auth, one, granted) for one in wanted) for granted in given)
    if strong.startswith("owner "):
        # A scope that stands in for ownership lets more callers pass; the status of a refusal does not.
        owner, other = strong.removesuffix(_HIDDEN), weak.removesuffix(_HIDDEN)
        return other == owner or other.startswith(f"{owner} or ")
    within, limit = _WITHIN.fullmatch(strong), _WITHIN.fullmatch(weak)
    if within is None or limit is None or within["what"] != limit["what"]:
        return False
    if limit["seconds"] is None:
        return True
    return within["seconds"] is not None and int(within["seconds"]) <= int(limit["seconds"])


def _is_same(_: str, one: str, other: str) -> bool:
    return one == other


def _roles(old: Authorization, new: Authorization, covers: Covers) -> Iterator[Change]:
    for name in dict.fromkeys((*old.auths, *new.auths)):
        before, after = old.auths.get(name, RoleRules()), new.auths.get(name, RoleRules())
        for role in dict.fromkeys((*before.roles, *after.roles)):
            was, now = before.roles.get(role), after.roles.get(role)
            if was != now:
                verdict = _granting(name, was, now, covers)
                yield Change(verdict=verdict, subject=f"role {role} of {name}", before=_all(was), after=_all(now))
        if before.default_role != after.default_role:
            default: Verdict = "tightened" if after.default_role is None else "weakened"
            subject = f"default role of {name}"
            yield Change(verdict=default, subject=subject, before=before.default_role, after=after.default_role)


def _granting(name: str, was: tuple[str, ...] | None, now: tuple[str, ...] | None, covers: Covers) -> Verdict:
    if was is None:
        return "added"
    if now is None:
        return "removed"
    # A role that grants more lets more callers pass.
    if not _grants(name, was, now, covers):
        return "weakened"
    return "changed" if _grants(name, now, was, covers) else "tightened"


def _grants(name: str, granted: tuple[str, ...], scopes: tuple[str, ...], covers: Covers) -> bool:
    # A bare "*" of a role is every scope.
    return EVERYTHING in granted or all(any(covers(name, scope, own) for own in granted) for scope in scopes)


def _all(scopes: tuple[str, ...] | None) -> str | None:
    return None if scopes is None else ", ".join(scopes) or "no scopes"
