"""Explanation: why a request is allowed or refused, for the operator, as values and as text."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from fastapi_guard.events.publishing import on_one_line


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundCredential:
    """The credential that one Auth found, and its decision.

    Attributes:
        auth: The name of the Auth.
        scheme: The place where its scheme looks, such as "Authorization: Bearer".
        found: Whether there is a credential.
        outcome: "verified", "refused", "not asked", or "nothing found".
        reason: Why it was refused, in one word.
        subject: The ``sub`` of a verified credential.
        issuer: The ``iss`` of a verified credential.
        key_id: The id of a verified API key.
    """

    auth: str
    scheme: str
    found: bool
    outcome: str
    reason: str | None = None
    subject: str | None = None
    issuer: str | None = None
    key_id: str | None = None

    def __str__(self) -> str:
        """Return it as a line of a report."""
        who = [f"{name} {value}" for name, value in (("sub", self.subject), ("iss", self.issuer), ("key", self.key_id))]
        known = ", ".join(
            text for text, value in zip(who, (self.subject, self.issuer, self.key_id), strict=True) if value
        )
        outcome = self.outcome if self.reason is None else f"{self.outcome}: {self.reason}"
        return f"{self.auth} ({self.scheme}): {outcome}" + (f", {known}" if known else "")


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One check of a guard.

    Attributes:
        auth: The name of the Auth.
        requirement: What is required, such as "scope items:edit", "role editor" or "a credential".
        passed: Whether it passes; ``None`` where it was not reached or could not be decided.
        status: The status of the refusal.
        reason: Why it was refused, or why it could not be decided.
    """

    auth: str
    requirement: str
    passed: bool | None
    status: int | None = None
    reason: str | None = None

    def __str__(self) -> str:
        """Return it as a line of a report."""
        mark = {True: "passed", False: "REFUSED", None: "not decided"}[self.passed]
        detail = " ".join(str(part) for part in (self.status, self.reason) if part is not None)
        return f"{mark:11} {self.auth}: {self.requirement}" + (f" ({detail})" if detail else "")


@dataclass(frozen=True, kw_only=True, slots=True)
class GrantSource:
    """A granted scope or role, and where it comes from.

    Attributes:
        auth: The name of the Auth that verified the credential.
        grant: The scope, or "role editor".
        source: Such as "claim scope", "role editor" or "key 1f2e3d".
    """

    auth: str
    grant: str
    source: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Explanation:
    """Why a request is allowed or refused.

    Attributes:
        method: The method of the request.
        path: The path of the request.
        route: The way in that matches, such as ``/items/{item_id}``; ``None`` without one.
        allowed: Whether every guard passes; ``None`` where that could not be decided.
        status: The status of the refusal; 404 or 405 without a route.
        credentials: What each Auth found.
        checks: Each check with its result, in the order in which they run.
        grants: What the verified credentials grant.
        needed: The smallest grant that would do, in words.
    """

    method: str
    path: str
    route: str | None
    allowed: bool | None
    status: int | None = None
    credentials: tuple[FoundCredential, ...] = ()
    checks: tuple[Check, ...] = ()
    grants: tuple[GrantSource, ...] = ()
    needed: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return it as a dict of what JSON has."""
        return asdict(self)

    def __str__(self) -> str:
        """Return it as a report."""
        return "\n".join(map(on_one_line, self._lines()))

    def _lines(self) -> Iterator[str]:
        if self.route is None:
            yield f"{self.method} {self.path}: no route ({self.status})"
            return
        verdict = {True: "allowed", False: f"refused ({self.status})", None: "not decided"}[self.allowed]
        yield f"{self.method} {self.route}: {verdict}"
        for title, entries in (("credentials", self.credentials), ("checks", self.checks)):
            yield from (f"{title}:", *(f"  {entry}" for entry in entries)) if entries else ()
        if self.grants:
            yield "granted:"
            yield from (f"  {grant.grant} from {grant.source} ({grant.auth})" for grant in self.grants)
        if self.needed:
            yield "needed:"
            yield from (f"  {text}" for text in self.needed)
