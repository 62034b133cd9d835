"""Predict the outcome of a request from what a lockfile requires and what the caller's principal grants."""

import re
from collections.abc import Mapping
from time import time
from typing import Any, Final, Literal, TypeAlias

from fastapi_guard.app.lock import Access, Requirement
from fastapi_guard.auth import AnyAuth, Auth, ScopesAuth
from fastapi_guard.auth.policy import is_recent, used_factor

Outcome: TypeAlias = Literal["allowed", 401, 403, 404]
# Whose object a request is about, where the way in has owners or tenants.
ObjectKind: TypeAlias = Literal["", "own", "foreign"]

_FACTOR: Final = re.compile(r"factor (?P<factor>\S+)(?: within (?P<seconds>\d+) s)?")
_OWNER: Final = re.compile(r"owner \S+?(?: or (?P<scope>\S+?))?(?P<hidden>, else 404)?")


class Undecided(Exception):
    """A policy or a loader of the application decides."""


class Prediction:
    """The outcomes that the requirements of a lockfile predict."""

    def __init__(self, auths: Mapping[str, Auth[Any]]) -> None:
        """Predict for an application that has ``auths``, by name."""
        self._auths = auths

    def of(self, caller: tuple[Auth[Any], Any] | None, access: Access, kind: ObjectKind) -> frozenset[Outcome]:
        """Return the outcomes that are right: more than one where two requirements fail with different statuses.

        Args:
            caller: The Auth and the principal of the caller, ``None`` for an anonymous one.
            access: The requirements.
            kind: Whose object the request is about.

        Raises:
            Undecided: A policy or a loader of the application decides.
        """
        refusals: set[Outcome] = set()
        undecided: Undecided | None = None
        for requirement in access.requirements:
            try:
                refusals |= self._refusals(caller, requirement, kind)
            except Undecided as rule:
                undecided = rule
        if undecided is not None and not refusals:
            raise undecided
        return frozenset(refusals) or frozenset({"allowed"})

    def _refusals(
        self, caller: tuple[Auth[Any], Any] | None, requirement: Requirement, kind: ObjectKind
    ) -> set[Outcome]:
        if caller is None or not self._is_verified(caller[0], requirement):
            return set() if requirement.optional else {401}
        auth, principal = caller
        if not _accepts(auth, requirement):
            return {403}
        if requirement.scopes and not (isinstance(auth, ScopesAuth) and auth.covers(principal, *requirement.scopes)):
            return {403}
        refusals = (_refusal_by(rule, auth, principal, kind) for rule in requirement.rules)
        return {refusal for refusal in refusals if refusal is not None}

    def _is_verified(self, auth: Auth[Any], requirement: Requirement) -> bool:
        # A credential of a member that `via` excludes is verified all the same, and refused with 403.
        whole = self._auths.get(requirement.auth)
        return _accepts(auth, requirement) or (isinstance(whole, AnyAuth) and auth in whole.members)


def _accepts(auth: Auth[Any], requirement: Requirement) -> bool:
    return auth.name == requirement.auth or auth.name in requirement.via


def _refusal_by(rule: str, auth: Auth[Any], principal: Any, kind: str) -> Outcome | None:
    kinds: Mapping[str, Any] = {"any": _by_scopes, "role": _by_role, "admin": _by_admin, "login": _by_login}
    kinds = {**kinds, "factor": _by_factor, "owner": _by_owner, "tenant": _by_tenant}
    decide = kinds.get(rule.partition(" ")[0])
    if decide is None:
        raise Undecided(rule)
    refusal: Outcome | None = decide(rule, auth, principal, kind)
    return refusal


def _by_scopes(rule: str, auth: ScopesAuth, principal: Any, _: str) -> Outcome | None:
    scopes = rule.removeprefix("any of ").split(", ")
    return None if any(auth.covers(principal, scope) for scope in scopes) else 403


def _by_role(rule: str, auth: ScopesAuth, principal: Any, _: str) -> Outcome | None:
    roles = rule.removeprefix("role ").split(" or ")
    return 403 if auth.grants_of(principal).roles.isdisjoint(roles) else None


def _by_admin(_: str, auth: ScopesAuth, principal: Any, __: str) -> Outcome | None:
    return None if auth.grants_of(principal).is_admin else 403


def _by_login(rule: str, _: Auth[Any], principal: Any, __: str) -> Outcome | None:
    seconds = int(rule.removeprefix("login within ").removesuffix(" s"))
    return None if is_recent(principal, seconds, time()) else 401


def _by_factor(rule: str, _: Auth[Any], principal: Any, __: str) -> Outcome | None:
    found = _FACTOR.fullmatch(rule)
    if found is None:
        raise Undecided(rule)
    seconds = None if found["seconds"] is None else int(found["seconds"])
    return None if used_factor(principal, found["factor"], seconds, time()) else 401


def _by_owner(rule: str, auth: Auth[Any], principal: Any, kind: str) -> Outcome | None:
    found = _OWNER.fullmatch(rule)
    if found is None:
        raise Undecided(rule)
    if kind == "own" or (found["scope"] and isinstance(auth, ScopesAuth) and auth.covers(principal, found["scope"])):
        return None
    return 404 if found["hidden"] else 403


def _by_tenant(_: str, __: Auth[Any], ___: Any, kind: str) -> Outcome | None:
    return None if kind == "own" else 403
