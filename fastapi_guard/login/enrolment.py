"""Change what a user has enrolled: add, rename, replace and remove factors.

Every change needs proof: a recent login to add a factor, and a recent proof of equal strength to remove or replace one.
So a stolen session can neither add the thief's phone nor drop the owner's.
"""

import json
import re
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from hashlib import sha256
from typing import Any, Final

from fastapi_guard.exceptions import STALE_LOGIN, Forbidden, Unauthorized
from fastapi_guard.login.credentials import Credentials
from fastapi_guard.login.enrolled import UNCONFIRMED, EnrolledFactor, Unconfirmed, checked_name
from fastapi_guard.login.factor import Context, Enrolment, Factor, Strength
from fastapi_guard.login.factors import Factors, reached
from fastapi_guard.login.hooks import NONE, YES_OR_NO, or_logged
from fastapi_guard.login.user_records import remove_unreadable
from fastapi_guard.login.users import User
from fastapi_guard.stores.protocol import Record
from fastapi_guard.stores.values import UnreadableRecord

_FACTOR: Final = (EnrolledFactor, NONE)
_KEY: Final = "enrolment:"
_PROVEN: Final = "confirmed:"
_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_ID_BYTES: Final = 32
_LIFETIME_SECONDS: Final = 600
_TRIES: Final = 5
_MOST_OF_A_KIND: Final = 10
# The clock may be behind the one that wrote a claim.
_AHEAD_SECONDS: Final = 60
_NAMES: Final = {"totp": "Authenticator app", "passkey": "Passkey", "recovery": "Recovery codes", "mail": "E-mail"}


@dataclass(frozen=True, slots=True)
class Begun:
    """An enrolment that has begun.

    Attributes:
        factor: The factor.
        shown: What to show the user, or to hand to the browser. Secrets in it are shown this once.
        enrolment: What ``confirm`` takes, a secret; ``None`` where the factor is enrolled already.
        expires_in: Seconds until it has to be confirmed.
    """

    factor: EnrolledFactor
    shown: Mapping[str, Any] = field(repr=False)
    enrolment: str | None = field(repr=False)
    expires_in: int = _LIFETIME_SECONDS


class Enrolments:
    """Adds, renames, replaces and removes the factors of users."""

    def __init__(
        self,
        factors: Factors,
        *,
        changed: Callable[[User], Awaitable[object]] | None = None,
        credentials: Credentials | None = None,
        recent: timedelta = timedelta(minutes=10),
    ) -> None:
        """Change the records of ``factors``.

        Args:
            factors: The kinds, and where enrolled factors are.
            changed: Called after each factor that was added, replaced or removed. ``False``: the user was not as read.
            credentials: The ways of users to log in, of which the last one is not removed.
            recent: How long ago a login, or the proof of a factor, may be.
        """
        self._factors = factors
        self._changed = changed
        self._credentials = credentials
        self._recent = recent.total_seconds()

    async def begin(
        self,
        kind: str,
        user: User,
        details: Mapping[str, Any],
        *,
        binding: str,
        name: str | None = None,
        claims: Mapping[str, Any] | None = None,
        locale: str | None = None,
    ) -> Begun | None:
        """Begin to enrol a factor. Of a kind that a user has once, such as recovery codes, it replaces the old one.

        Args:
            kind: The name of a factor.
            user: Who enrols it.
            details: What the kind needs, such as a phone number.
            binding: Identifies the session or login in which it is confirmed.
            name: What the user calls it, by default the name of the kind.
            claims: Of the session or token, which have to show a recent login, and a recent proof of a factor where
                one is enrolled. ``None``: the caller has made sure that the user may.
            locale: The language of a message.

        Returns:
            ``None`` where the ``details`` or the ``name`` are not valid.

        Raises:
            Unauthorized: The login, or the proof of a factor, is too long ago (RFC 9470).
            Forbidden: There is no such factor, or the user has ten of the kind.
            ServiceUnavailable: The storage cannot be reached.
        """
        factor = self._factors.kind(kind)
        label = _NAMES.get(kind, kind) if name is None else checked_name(name)
        if claims is not None:
            await self._check_may_add(factor, user, claims, binding)
        context = await self._factors.context(kind, user, binding=binding, locale=locale)
        if len(context.enrolled) >= _MOST_OF_A_KIND:
            raise Forbidden(reason="too_many_factors")
        current = await self._as_now(user)
        if label is None or current is None:
            return None
        new, now = secrets.token_hex(_ID_BYTES), context.now
        draft = EnrolledFactor(id=new, subject=user.subject_id, kind=kind, name=label, data="", created_at=now)
        enrolment = await reached((Enrolment, NONE), factor.enrol, context, draft, details)
        if enrolment is not None and not enrolment.is_complete:
            return Begun(enrolment.factor, enrolment.shown, await self._keep(enrolment.factor, context))
        if enrolment is None:
            return None
        replaced = next((known for known in context.enrolled if known.id == enrolment.factor.id), None)
        stored = await self._store(current, enrolment.factor, binding, replaced)
        return Begun(enrolment.factor, enrolment.shown, None) if stored else None

    async def confirm(
        self, user: User, enrolment: str, proof: Mapping[str, Any], *, binding: str
    ) -> EnrolledFactor | None:
        """Return the factor, which is enrolled now; ``None`` where the proof is wrong or the enrolment has expired.

        An enrolment has five tries. A passkey that any user has is refused too, and a user who changes meanwhile.

        Raises:
            ServiceUnavailable: The storage cannot be reached.
        """
        key = _key(enrolment)
        [record] = await self._factors.store.get(key)
        current = await self._as_now(user)
        unconfirmed = UNCONFIRMED.read_or_none(record)
        if record is None or unconfirmed is None or current is None:
            return None
        draft = unconfirmed.factor
        context = await self._factors.context(draft.kind, user, binding=binding)
        begun_in = (unconfirmed.login, unconfirmed.binding, draft.subject)
        if begun_in != (context.name, binding, user.subject_id) or len(context.enrolled) >= _MOST_OF_A_KIND:
            return None
        # Counted before the proof is verified, so that of many at the same time no more than five are.
        counted = replace(record, value=UNCONFIRMED.encoded(replace(unconfirmed, tries=unconfirmed.tries + 1)))
        if unconfirmed.tries >= _TRIES or not await self._factors.store.replace(key, record, counted):
            return None
        try:
            confirmed = await reached(_FACTOR, self._factors.kind(draft.kind).confirm, context, draft, proof)
        except UnreadableRecord:
            return None
        if confirmed is None or not await self._factors.store.delete(key):
            return None
        return confirmed if await self._store(current, confirmed, binding, None) else None

    async def rename(self, user: User, factor_id: str, name: str) -> bool:
        """Rename a factor of ``user``; return whether there is one and the name is valid.

        Raises:
            ServiceUnavailable: The storage cannot be reached.
        """
        label = checked_name(name)
        factor = await self._find(user, factor_id)
        if factor is None or label is None:
            return False
        return await reached(YES_OR_NO, self._factors.records.replace, factor, replace(factor, name=label))

    async def remove(self, user: User, factor_id: str, *, binding: str, claims: Mapping[str, Any] | None) -> bool:
        """Remove a factor of ``user``; return whether there was one.

        Args:
            user: Whose factor it is.
            factor_id: The id of the factor.
            binding: Identifies the session.
            claims: Of the session or token, which have to show a recent proof of equal strength. ``None``: the caller
                has made sure that the user may.

        Raises:
            Unauthorized: There was no such proof (RFC 9470).
            Forbidden: It is the only way to log in.
            ServiceUnavailable: The storage cannot be reached.
        """
        factor = await self._find(user, factor_id)
        if factor is None:
            return False
        strength = self._factors.kind(factor.kind).strength
        if claims is not None:
            proven = await self._recently_proven(user, claims, binding)
            if not any(proof.may_replace(strength) for proof in proven):
                raise _stale()
        records = self._factors.records
        if self._credentials is not None and self._factors.is_first(user, factor):
            removed = await self._credentials.give_up(
                user,
                factor.id,
                remove=lambda: reached(YES_OR_NO, records.remove, factor.id),
                restore=lambda: reached(YES_OR_NO, records.add, factor),
            )
        else:
            removed = await reached(YES_OR_NO, records.remove, factor.id)
        if removed:
            await self._raise_version(user)
            self._factors.report("factor_removed", user, factor.name)
        return bool(removed)

    async def reset(self, user: User) -> int:
        """Remove and count the factors of ``user``, as an operator does who has verified by other means who it is.

        Raises:
            ServiceUnavailable: The storage cannot be reached.
        """
        records = self._factors.records
        removed = await remove_unreadable(records, user.subject_id)
        factors = await reached(Sequence, records.of, user.subject_id)
        for factor in factors:
            if await reached(YES_OR_NO, records.remove, factor.id):
                removed += 1
                # At once: where a later step fails, a repetition finds it gone.
                self._factors.report("factor_removed", user, factor.name)
        # Also without a factor: what began with one does not complete.
        if self._changed is not None:
            await self._changed(user)
        return removed

    async def _as_now(self, user: User) -> User | None:
        return user if self._credentials is None else await self._credentials.current(user)

    async def _find(self, user: User, factor_id: str) -> EnrolledFactor | None:
        factor = await reached(_FACTOR, self._factors.records.get, factor_id) if _ID.fullmatch(factor_id) else None
        return factor if factor is not None and factor.subject == user.subject_id else None

    async def _keep(self, draft: EnrolledFactor, context: Context) -> str:
        enrolment = secrets.token_urlsafe(_ID_BYTES)
        value = UNCONFIRMED.encoded(Unconfirmed(context.name, context.binding, draft))
        await self._factors.store.add(Record(_key(enrolment), value, None, context.now + _LIFETIME_SECONDS))
        return enrolment

    async def _store(self, user: User, factor: EnrolledFactor, binding: str, replaced: EnrolledFactor | None) -> bool:
        # The caller has the factor: an app, a key, codes. First, so that nothing is enrolled where it fails.
        await self._factors.store.add(self._proven(factor.kind, user, binding))
        records = self._factors.records
        write, undo = partial(records.add, factor), partial(records.remove, factor.id)
        if replaced is not None:
            write, undo = partial(records.replace, replaced, factor), partial(records.replace, factor, replaced)
        if not await reached(YES_OR_NO, write):
            return False
        if not await self._raise_version(user):
            # What ended the logins of the user in the meantime, such as a reset of the factors, ends this too.
            await reached(YES_OR_NO, undo)
            return False
        self._factors.report("factor_added", user, factor.name)
        return True

    async def _raise_version(self, user: User) -> bool:
        # The factor has changed already. Without the answer, which alone has the codes, it would lock the user out.
        with or_logged("the version of a user could not be raised after a change of factors"):
            return self._changed is None or await self._changed(user) is not False
        return True

    async def _check_may_add(self, new: Factor, user: User, claims: Mapping[str, Any], binding: str) -> None:
        if not self._is_recent(claims.get("auth_time")):
            raise _stale()
        enrolled = {self._factors.kind(factor.kind).strength for factor in await self._factors.of(user.subject_id)}
        # A factor that proves the mailbox alone protects nothing from a caller who reads the mailbox.
        protected = [strength for strength in enrolled if strength > Strength.MAILBOX]
        if not protected:
            return
        proven = [proof for proof in await self._recently_proven(user, claims, binding) if proof > Strength.MAILBOX]
        # With the new factor the caller could go on to remove these.
        at_stake = [strength for strength in protected if new.strength.may_replace(strength)]
        if not proven or not all(any(proof.may_replace(strength) for proof in proven) for strength in at_stake):
            raise _stale()

    async def _recently_proven(self, user: User, claims: Mapping[str, Any], binding: str) -> list[Strength]:
        moments = claims.get("factors")
        recent = [name for name, at in moments.items() if self._is_recent(at)] if isinstance(moments, dict) else []
        kinds = list(self._factors.kinds)
        # To confirm an enrolment was to prove the factor, which the claims do not show.
        records = [self._proven(kind, user, binding).key for kind in kinds]
        found = zip(kinds, await self._factors.store.get(*records), strict=True)
        confirmed = [self._factors.kinds[kind].strength for kind, record in found if record is not None]
        return [*self._factors.strengths(recent), *confirmed]

    def _proven(self, kind: str, user: User, binding: str) -> Record:
        named = json.dumps([self._factors.name, binding, user.subject_id, kind]).encode("ascii")
        return Record(f"{_PROVEN}{sha256(named).hexdigest()}", b"", None, self._factors.now() + self._recent)

    def _is_recent(self, moment: object) -> bool:
        if isinstance(moment, bool) or not isinstance(moment, int | float):
            return False
        return moment - _AHEAD_SECONDS <= self._factors.now() <= moment + self._recent


def _stale() -> Unauthorized:
    return Unauthorized(STALE_LOGIN, error="insufficient_user_authentication", reason="stale_factor")


def _key(enrolment: str) -> str:
    return _KEY + sha256(enrolment.encode("utf-8", "surrogatepass")).hexdigest()
