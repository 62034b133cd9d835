"""Second factors: the protocol that each kind of factor implements.

A Factor is a kind, such as TOTP or Passkeys. It has no state: what a user has enrolled is an EnrolledFactor, kept in
EnrolledFactors, and a secret that lives for minutes, such as a challenge, is a record of the Store. Login calls the
factors through Factors (``fastapi_guard.login.factors``).
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Protocol, runtime_checkable

from fastapi_guard.events import EventCallback
from fastapi_guard.login.enrolled import EnrolledFactor, EnrolledFactors
from fastapi_guard.login.users import User
from fastapi_guard.stores.protocol import Store


class Strength(IntEnum):
    """How much a proof by a factor is worth, compared where a factor is removed or replaced.

    Attributes:
        MAILBOX: A code that was sent; anyone who reads the mailbox, or the phone's messages, has it.
        CODE: A code that a device shows; a page that looks like the right one can ask for it.
        RECOVERY: A recovery code. It proves as much as a code, and stands in for any factor that was lost.
        KEY: A signature that is bound to the origin of the page.
    """

    MAILBOX = 1
    CODE = 2
    RECOVERY = 3
    KEY = 4

    def may_replace(self, other: "Strength") -> bool:
        """Return whether a proof of this strength lets the user remove or replace a factor of the ``other``."""
        if self is Strength.RECOVERY or other is Strength.RECOVERY:
            return self >= Strength.CODE
        return self >= other


@dataclass(frozen=True, kw_only=True, slots=True)
class Surroundings:
    """The storage that a factor works with, and the connection it works for.

    Attributes:
        store: Where challenges and spent codes are.
        records: Where the enrolled factors are.
        name: The name of the Login. What one Login has begun is unknown to another on the same store.
        binding: Identifies the pending login, session or browser that a challenge belongs to. A challenge for one
            binding is invalid for another. Empty for a first factor that needs none.
        now: Seconds since the epoch.
        locale: The language that the user prefers, such as ``"de"``, for messages.
        on_event: Receives events, besides the log.
    """

    store: Store
    records: EnrolledFactors
    name: str
    binding: str
    now: float
    locale: str | None = None
    on_event: EventCallback | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Context(Surroundings):
    """Surroundings, and the user who proves or enrols a factor.

    Attributes:
        user: The user.
        enrolled: The factors of this kind that the user has enrolled, the oldest first.
    """

    user: User
    enrolled: Sequence[EnrolledFactor]


@dataclass(frozen=True, kw_only=True, slots=True)
class FirstContext(Surroundings):
    """Surroundings, where no user is known yet.

    Attributes:
        find_user: Looks a user up by username or address.
        login: The username or address that the client named, normalised; ``None`` where it named none.
    """

    find_user: Callable[[str], Awaitable[User | None]]
    login: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Enrolment:
    """The first half of an enrolment.

    Attributes:
        factor: The factor as far as it goes; ``confirm`` receives it again.
        shown: What the client needs to go on, JSON throughout. Secrets in it are shown this once.
        is_complete: Whether the factor is enrolled without being confirmed.
    """

    factor: EnrolledFactor
    shown: Mapping[str, Any] = field(default_factory=dict, repr=False)
    is_complete: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Proof:
    """A factor was proven.

    Attributes:
        methods: The authentication methods for the claim ``amr``, named by RFC 8176 where it has a name.
        factor: The factor that was used; ``None`` where nothing was enrolled.
    """

    methods: tuple[str, ...]
    factor: EnrolledFactor | None = None


class Factor(Protocol):
    """A kind of factor. An application writes its own by these methods, and passes it beside the others.

    ``proof`` and ``details`` are JSON objects that a client sent, of any shape: a wrong one is ``None``, never an
    exception. A factor that is used once (a code, a challenge) is spent by ``verify`` itself, atomically.
    """

    @property
    def name(self) -> str:
        """The name in answers and routes, such as ``"totp"``: 1 to 32 characters of ``a-z 0-9 _ -``."""
        ...  # pragma: no cover

    @property
    def methods(self) -> Sequence[str]:
        """The authentication methods that name it in ``amr``, such as ``["otp"]``, and no other factor."""
        ...  # pragma: no cover

    @property
    def strength(self) -> Strength:
        """How much a proof by it is worth."""
        ...  # pragma: no cover

    def usable(self, user: User, enrolled: Sequence[EnrolledFactor]) -> bool:
        """Return whether ``user``, who has ``enrolled`` these of the kind, can prove it now."""
        ...  # pragma: no cover

    async def enrol(self, context: Context, draft: EnrolledFactor, details: Mapping[str, Any]) -> Enrolment | None:
        """Begin to enrol ``draft``, whose ``data`` is empty; ``None`` where the ``details`` are not valid."""
        ...  # pragma: no cover

    async def confirm(self, context: Context, draft: EnrolledFactor, proof: Mapping[str, Any]) -> EnrolledFactor | None:
        """Return the factor to store, now that the user has proven to have it; ``None`` where the proof is wrong."""
        ...  # pragma: no cover

    async def challenge(self, context: Context) -> Mapping[str, Any]:
        """Return what the client needs to make a proof, JSON throughout; send a code where that is needed."""
        ...  # pragma: no cover

    async def verify(self, context: Context, proof: Mapping[str, Any]) -> Proof | None:
        """Return the proof, spent so that it is valid once; ``None`` where it is wrong."""
        ...  # pragma: no cover


@runtime_checkable
class Describes(Protocol):
    """A Factor that has more to show in a list than a name and times."""

    def describe(self, enrolled: EnrolledFactor) -> Mapping[str, Any]:
        """Return what to show of a factor beside its name and times, JSON throughout, nothing secret."""
        ...  # pragma: no cover


@runtime_checkable
class FirstFactor(Protocol):
    """A Factor that can also be the first of a login: it identifies the user.

    ``offer`` and ``identify`` raise Forbidden where the factor is configured as a second factor alone.
    """

    def begins(self, user: User, enrolled: Sequence[EnrolledFactor]) -> bool:
        """Return whether ``user``, who has ``enrolled`` these of the kind, can begin a login with it now."""
        ...  # pragma: no cover

    async def offer(self, context: FirstContext) -> Mapping[str, Any]:
        """Return what the client needs to make a proof, JSON throughout.

        A known and an unknown ``context.login`` have the same result and cost the same work.
        """
        ...  # pragma: no cover

    async def identify(self, context: FirstContext, proof: Mapping[str, Any]) -> tuple[str, Proof] | None:
        """Return the subject whose factor was proven, and the spent proof; ``None`` where it is wrong."""
        ...  # pragma: no cover
