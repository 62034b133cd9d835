"""The second factors of a Login: what users have enrolled, challenges and proofs.

Login decides when a factor is needed, and Enrolments changes what is enrolled.
"""

import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, Literal, TypeVar

from fastapi_guard.events import Event, EventCallback, checked, publish
from fastapi_guard.exceptions import ConfigurationError, Forbidden, shown
from fastapi_guard.login.enrolled import EnrolledFactor, EnrolledFactors, StoredFactors
from fastapi_guard.login.factor import Context, Describes, Factor, FirstContext, FirstFactor, Proof, Strength
from fastapi_guard.login.hooks import NONE, YES_OR_NO, Kinds, expected, or_unavailable, result_of
from fastapi_guard.login.messages import Message, Outbox
from fastapi_guard.login.users import User
from fastapi_guard.stores.arguments import instance_of, items_of, like, texts_of
from fastapi_guard.stores.protocol import Store

logger: logging.Logger = logging.getLogger("fastapi_guard")

ResultT = TypeVar("ResultT")
FindUser = Callable[[str], Awaitable[User | None]]
Report = Literal["factor_added", "factor_removed", "recovery_code_used"]

_KIND: Final = re.compile(r"[a-z0-9_-]{1,32}")
# Other routes of a login and of the factors, and the proof by the password.
_RESERVED_NAMES: Final = frozenset({"challenge", "confirm", "password", "step-up"})
# What a login is without a factor: one with such a method would not be a second step after it.
_RESERVED_METHODS: Final = frozenset({"pwd", "mfa"})
_UNREACHABLE: Final = "factors_unreachable"


class Factors:
    """The kinds of factors of a Login, and what users have enrolled of them.

    Attributes:
        name: The name of the Login.
        kinds: The kinds, by name.
        records: Where enrolled factors are.
        store: Where challenges and spent codes are.
        after: Runs work after the answer, and sends messages where there is an outbox.
    """

    def __init__(
        self,
        kinds: Sequence[Factor],
        store: Store,
        records: EnrolledFactors | None = None,
        *,
        name: str = "login",
        find_user: FindUser | None = None,
        outbox: Outbox | None = None,
        clock: Callable[[], float] = time.time,
        on_event: EventCallback | None = None,
    ) -> None:
        """Use these ``kinds``.

        Args:
            kinds: At most one of each name.
            store: Where challenges, spent codes and unconfirmed enrolments are.
            records: Where enrolled factors are; by default in ``store``.
            name: The name of the Login. What one Login has stored is unknown to another on the same store.
            find_user: Looks a user up by normalised username or address, for a factor that begins a login.
            outbox: Sends the messages about added and removed factors and used recovery codes.
            clock: Seconds since the epoch.
            on_event: Receives events, besides the log.

        Raises:
            ConfigurationError: Two kinds have one name or one method, a name is not usable in a URL, or a kind or
                ``records`` is not written as its protocol.
        """
        example = 'a list of factors, such as [TOTP(key=..., issuer="Shop")]'
        for factor in items_of("second", kinds, "such as [TOTP(...)]"):
            _check_factor(factor, example)
        if records is not None:
            like("records", records, EnrolledFactors, "such as DatabaseFactors")
        self.kinds: Mapping[str, Factor] = {kind.name: kind for kind in kinds}
        methods = [method for kind in kinds for method in kind.methods]
        if len(self.kinds) < len(kinds) or len(set(methods)) < len(methods):
            msg = "two factors have one name or one method in common: pass one factor of each kind"
            raise ConfigurationError(msg)
        for kind in self.kinds:
            if not isinstance(kind, str) or not _KIND.fullmatch(kind) or kind in _RESERVED_NAMES:
                reserved = ", ".join(sorted(_RESERVED_NAMES))
                msg = (
                    f"the name of a factor is 1 to 32 characters of a-z 0-9 _ -, none of {reserved}, not {shown(kind)}"
                )
                raise ConfigurationError(msg)
        self.name = name
        self.store = store
        self.records: EnrolledFactors = StoredFactors(store, name=name) if records is None else records
        self.now = clock
        self._find_user = find_user
        self._sends = outbox is not None
        self._on_event = checked(on_event)
        # Work that follows an answer runs there, which needs no sender.
        self.after: Outbox = outbox or Outbox(_send_nothing, on_event=self._on_event)
        self._strengths = {method: kind.strength for kind in kinds for method in kind.methods}

    async def of(self, subject: str) -> list[EnrolledFactor]:
        """Return the factors of ``subject``, of the kinds that are configured, the oldest first.

        Raises:
            ServiceUnavailable: The storage cannot be reached.
        """
        found = await reached(Sequence, self.records.of, subject)
        return [factor for factor in found if factor.kind in self.kinds]

    def usable(self, user: User, enrolled: Sequence[EnrolledFactor], *, methods: Sequence[str] = ()) -> list[str]:
        """Return the kinds that ``user`` can prove now, the strongest first.

        A kind with a method among ``methods``, those of the login so far, is left out: a mailbox counts once.
        """
        usable = [
            kind
            for kind in self.kinds.values()
            if set(methods).isdisjoint(kind.methods)
            and _decides(kind.usable, user, [factor for factor in enrolled if factor.kind == kind.name])
        ]
        return [kind.name for kind in sorted(usable, key=lambda kind: -kind.strength)]

    async def begins(self, user: User, without: str) -> bool:
        """Return whether ``user`` can begin a login with a factor other than that with the id ``without``.

        Raises:
            ServiceUnavailable: The storage cannot be reached.
        """
        first = [kind for kind in self.kinds.values() if isinstance(kind, FirstFactor)]
        enrolled = await self.of(user.subject_id) if first else []
        left = [factor for factor in enrolled if factor.id != without]
        return any(
            _decides(kind.begins, user, [factor for factor in left if factor.kind == kind.name]) for kind in first
        )

    def is_first(self, user: User, factor: EnrolledFactor) -> bool:
        """Return whether ``user`` can begin a login with an enrolled factor.

        Raises:
            ServiceUnavailable: The kind does not return ``True`` or ``False``.
        """
        kind = self.kinds[factor.kind]
        return isinstance(kind, FirstFactor) and _decides(kind.begins, user, [factor])

    def strengths(self, methods: Sequence[str]) -> list[Strength]:
        """Return the strengths of the factors that ``methods`` are of; those of other factors are left out."""
        return [self._strengths[method] for method in methods if method in self._strengths]

    def describe(self, factor: EnrolledFactor) -> Mapping[str, Any]:
        """Return what a kind shows of a factor beside its name and times."""
        kind = self.kinds[factor.kind]
        if not isinstance(kind, Describes):
            return {}
        with or_unavailable(_UNREACHABLE):
            return expected(kind.describe(factor), Mapping, kind.describe)

    async def challenge(
        self, kind: str, user: User | None, *, binding: str, login: str | None = None, locale: str | None = None
    ) -> Mapping[str, Any]:
        """Return what the client needs to prove ``kind``.

        Args:
            kind: The name of a factor.
            user: The user whose second factor it is; ``None`` for a factor that begins a login.
            binding: Identifies the login, session or browser that the challenge is for.
            login: For a factor that begins a login, the normalised username or address that the client named.
            locale: The language of a message.

        Raises:
            Forbidden: There is no such factor, the user has not enrolled it, or it cannot begin a login.
            ServiceUnavailable: The storage cannot be reached.
        """
        factor = self.kind(kind)
        if user is None:
            first, surroundings = self._first(factor, binding, login, locale)
            return await reached(Mapping, first.offer, surroundings)
        context = await self.context(kind, user, binding=binding, locale=locale)
        if not _decides(factor.usable, user, context.enrolled):
            raise Forbidden(reason="factor_not_enrolled")
        return await reached(Mapping, factor.challenge, context)

    async def verify(self, kind: str, user: User, proof: Mapping[str, Any], *, binding: str) -> Proof | None:
        """Return the proof of a second factor, spent so that it is valid once; ``None`` where it is wrong.

        Raises:
            Forbidden: There is no such factor.
            ServiceUnavailable: The storage cannot be reached.
        """
        factor = self.kind(kind)
        context = await self.context(kind, user, binding=binding)
        if not _decides(factor.usable, user, context.enrolled):
            return None
        proven = await reached((Proof, NONE), factor.verify, context, proof)
        if proven is not None:
            self._note_use(proven, context.now)
            if factor.strength is Strength.RECOVERY:
                self.report("recovery_code_used", user)
        return proven

    async def identify(self, kind: str, proof: Mapping[str, Any], *, binding: str) -> tuple[str, Proof] | None:
        """Return the subject that a first factor identifies, and its spent proof; ``None`` where it is wrong.

        Raises:
            Forbidden: There is no such factor, or it cannot begin a login.
            ServiceUnavailable: The storage cannot be reached.
        """
        first, context = self._first(self.kind(kind), binding)
        found = await reached((tuple, NONE), first.identify, context, proof)
        if found is not None:
            self._note_use(found[1], context.now)
        return found

    def kind(self, name: str) -> Factor:
        """Return the kind of this name.

        Raises:
            Forbidden: There is none.
        """
        kind = self.kinds.get(name)
        if kind is None:
            raise Forbidden(reason="unknown_factor")
        return kind

    async def context(self, kind: str, user: User, *, binding: str, locale: str | None = None) -> Context:
        """Return what a method of ``kind`` works with for ``user``.

        Raises:
            ServiceUnavailable: The storage cannot be reached.
        """
        found = await reached(Sequence, self.records.of, user.subject_id)
        return Context(
            user=user,
            enrolled=[factor for factor in found if factor.kind == kind],
            name=self.name,
            binding=binding,
            store=self.store,
            records=self.records,
            now=self.now(),
            locale=locale,
            on_event=self._on_event,
        )

    def report(self, event: Report, user: User, detail: str | None = None) -> None:
        """Publish an event about ``user``, and send the message of that name to the user's verified address."""
        publish(Event(event, self.name, subject=user.subject_id), self._on_event)
        if self._sends and user.email is not None and user.email_verified:
            self.after.post(Message(kind=event, address=user.email, user=user, detail=detail))

    def _first(
        self, factor: Factor, binding: str, login: str | None = None, locale: str | None = None
    ) -> tuple[FirstFactor, FirstContext]:
        if not isinstance(factor, FirstFactor) or self._find_user is None:
            raise Forbidden(reason="not_a_first_factor")
        return factor, FirstContext(
            find_user=self._find_user,
            login=login,
            name=self.name,
            binding=binding,
            store=self.store,
            records=self.records,
            now=self.now(),
            locale=locale,
            on_event=self._on_event,
        )

    def _note_use(self, proven: Proof, now: float) -> None:
        factor = proven.factor
        # A kind that changes its factor at each use has noted it in the same write.
        if factor is not None and factor.used_at != now:
            self.after.post(lambda: self._store_use(factor, now))

    async def _store_use(self, factor: EnrolledFactor, now: float) -> None:
        try:
            await self.records.replace(factor, replace(factor, used_at=now))
        except Exception as error:  # noqa: BLE001 - the proof is valid all the same
            logger.warning("the use of a factor was not stored: %s", type(error).__name__)


def _check_factor(factor: Factor, example: str) -> None:
    like("second", factor, Factor, example)
    for protocol in (FirstFactor, Describes):
        if isinstance(factor, protocol):
            like("second", factor, protocol, example)
    named = f"{type(factor).__name__}"
    instance_of(f"{named}.strength", factor.strength, Strength, "a Strength, such as Strength.CODE")
    reserved = _RESERVED_METHODS.intersection(texts_of(f"{named}.methods", factor.methods, 'such as ["otp"]'))
    if reserved:
        msg = f"{named}.methods has {', '.join(sorted(reserved))}, which a login sets by itself: name another one"
        raise ConfigurationError(msg)


def _decides(
    rule: Callable[[User, Sequence[EnrolledFactor]], bool], user: User, enrolled: Sequence[EnrolledFactor]
) -> bool:
    # None, as of a forgotten return, would be a user without the factor, who needs no second step.
    with or_unavailable(_UNREACHABLE):
        return bool(expected(rule(user, enrolled), YES_OR_NO, rule))


def _send_nothing(message: Message) -> None:
    """Drop a message: there is no sender."""


async def reached(kinds: Kinds, call: Callable[..., Awaitable[ResultT]], *arguments: Any) -> ResultT:
    """Return the result of a factor or of its storage.

    Raises:
        ServiceUnavailable: It raised anything other than an AuthError, or returned nothing of these ``kinds``.
    """
    return await result_of(_UNREACHABLE, kinds, call, *arguments)
