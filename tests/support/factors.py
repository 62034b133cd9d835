"""Enrol and prove factors without a Login."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyotp

from fastapi_guard.events import Event
from fastapi_guard.login.enrolled import EnrolledFactor, EnrolledFactors, StoredFactors
from fastapi_guard.login.factor import Context, Enrolment, Factor, FirstContext, Proof
from fastapi_guard.login.users import User
from fastapi_guard.stores import Store
from support.clock import Clock

#: At least 32 bytes, of no known sample.
KEY = "qV3r9Zk1dY8uW5mB7xN2tC6hJ4pL0sGf"
OTHER_KEY = "wE6yU1iO4pA9sD2fG7hJ5kL3zX8cV0bN"


def user_named(name: str = "ada", **fields: Any) -> User:
    """Return a user whose subject is `name` too, up to the length of a subject."""
    kind = "email" if "@" in name else "username"
    return User(**{kind: name, "password_hash": "x", "subject_id": name[:255], **fields})


@dataclass
class Desk:
    """The part of Login that calls one factor.

    Attributes:
        factor: The kind.
        store: Where challenges and enrolled factors are.
        clock: Seconds since the epoch.
        user: Who enrols and proves.
        name: The name of the Login.
        binding: The login or session.
        events: What was published.
    """

    factor: Factor
    store: Store
    clock: Clock
    user: User = field(default_factory=user_named)
    name: str = "login"
    binding: str = "pending-1"
    records: EnrolledFactors = None  # type: ignore[assignment]
    events: list[Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Keep enrolled factors in the store."""
        self.records = self.records or StoredFactors(self.store)

    async def context(self) -> Context:
        """Return the context of a method of the factor."""
        found = await self.records.of(self.user.subject_id)
        enrolled = [factor for factor in found if factor.kind == self.factor.name]
        return Context(
            user=self.user,
            enrolled=enrolled,
            name=self.name,
            binding=self.binding,
            store=self.store,
            records=self.records,
            now=self.clock(),
            on_event=self.events.append,
        )

    def first(self, find_user: Callable[[str], Any] | None = None, login: str | None = None) -> FirstContext:
        """Return the context of a first factor."""

        async def nobody(_: str) -> None: ...

        return FirstContext(
            find_user=find_user or nobody,
            login=login,
            name=self.name,
            binding=self.binding,
            store=self.store,
            records=self.records,
            now=self.clock(),
            on_event=self.events.append,
        )

    def draft(self, factor_id: str = "f1") -> EnrolledFactor:
        """Return a factor that is not enrolled yet."""
        return EnrolledFactor(
            id=factor_id,
            subject=self.user.subject_id,
            kind=self.factor.name,
            name="Mine",
            data="",
            created_at=self.clock(),
        )

    async def begin(self, factor_id: str = "f1", details: Mapping[str, Any] | None = None) -> Enrolment:
        """Begin an enrolment."""
        enrolment = await self.factor.enrol(await self.context(), self.draft(factor_id), details or {})
        assert enrolment is not None
        return enrolment

    async def confirm(self, enrolment: Enrolment, proof: Mapping[str, Any]) -> EnrolledFactor | None:
        """Confirm an enrolment, and store the factor."""
        confirmed = await self.factor.confirm(await self.context(), enrolment.factor, proof)
        if confirmed is not None:
            assert await self.records.add(confirmed)
        return confirmed

    async def challenge(self) -> Mapping[str, Any]:
        """Return what a client needs for a proof."""
        return await self.factor.challenge(await self.context())

    async def verify(self, proof: Mapping[str, Any]) -> Proof | None:
        """Verify a proof."""
        return await self.factor.verify(await self.context(), proof)


def totp_code(secret: str, moment: float) -> str:
    """Return the code that an app shows at a moment."""
    return pyotp.TOTP(secret).at(int(moment))
