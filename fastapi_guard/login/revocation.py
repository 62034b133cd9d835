"""Tokens that ended before they expired: one by one, or all of a subject's up to a moment."""

import time
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from hashlib import sha256
from math import floor
from typing import Any, Final, Protocol

from fastapi_guard.exceptions import ConfigurationError
from fastapi_guard.stores.protocol import Record, Store

# A token is accepted for the leeway of its verifier after it has expired, which is no more than this.
_LEEWAY_SECONDS: Final = 300
# Of the year 9999; what expires later never does, and a store need not be able to say when.
_LAST_SECOND: Final = 253_402_300_799
_TOKEN: Final = "revoked:token:"
_SUBJECT: Final = "revoked:subject:"
# What else ends with the subject, where it is in the same store: the keys of RefreshTokens and SessionAuth.
_ENDS_WITH_SUBJECT: Final = ("refresh:", "session:")


class EndsWithSubject(Protocol):
    """What a subject has, and loses when it is revoked: RefreshTokens, SessionAuth."""

    async def revoke_subject(self, subject: str) -> int:
        """End all that ``subject`` has; return how many there were."""
        ...  # pragma: no cover


class Revocations:
    """Which tokens are revoked: ``JWTAuth(config, revocations=Revocations(store))``.

    Each verification asks the store once, for the token and for its subject together.
    """

    def __init__(
        self,
        store: Store,
        *,
        ends: Iterable[EndsWithSubject] = (),
        longest_lifetime: timedelta | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Keep revocations in ``store``.

        Args:
            store: Sessions and refresh families in the same store end with their subject.
            ends: RefreshTokens and SessionAuths in other stores, which end with it too.
            longest_lifetime: The longest lifetime of any token, after which the revocation of a subject can be
                forgotten. ``None`` keeps it for ever, one small record for each subject ever revoked.
            clock: Seconds since the epoch.

        Raises:
            ConfigurationError: The lifetime is not positive.
        """
        if longest_lifetime is not None and longest_lifetime <= timedelta():
            msg = "longest_lifetime is positive, or None"
            raise ConfigurationError(msg)
        self._store = store
        self._ends = tuple(ends)
        self._longest_lifetime = longest_lifetime
        self._clock = clock

    async def is_revoked(self, claims: Mapping[str, Any]) -> bool:
        """Return whether the token with these claims is revoked, by its ``jti`` or by its ``sub`` and ``iat``.

        A token of a revoked subject that does not say when it was issued is revoked.

        Raises:
            ServiceUnavailable: The store cannot be reached.
        """
        jti, subject = claims.get("jti"), claims.get("sub")
        keys = [_key(_TOKEN, jti)] if isinstance(jti, str) else []
        if isinstance(subject, str):
            keys.append(_key(_SUBJECT, subject))
        found = await self._store.get(*keys) if keys else ()
        return any(record is not None and _covers(record, claims) for record in found)

    async def revoke(self, claims: Mapping[str, Any]) -> None:
        """Revoke the token with these claims, by its ``jti``, until it expires.

        Raises:
            ValueError: It has no ``jti`` to be known by.
            ServiceUnavailable: The store cannot be reached.
        """
        jti, expiry = claims.get("jti"), claims.get("exp")
        if not isinstance(jti, str):
            msg = "a token without a jti cannot be revoked by itself: revoke its subject"
            raise ValueError(msg)  # noqa: TRY004 - the token's fault, not the caller's
        await self.revoke_id(jti, expires_at=expiry if isinstance(expiry, int | float) else None)

    async def revoke_id(self, jti: str, *, expires_at: float | None = None) -> None:
        """Revoke the token with this ``jti``.

        Args:
            jti: The ``jti`` claim.
            expires_at: The ``exp`` claim, in seconds since the epoch; ``None`` revokes it for ever.

        Raises:
            ServiceUnavailable: The store cannot be reached.
        """
        until = None
        if expires_at is not None and abs(expires_at) <= _LAST_SECOND:
            until = expires_at + _LEEWAY_SECONDS
        await self._store.add(Record(_key(_TOKEN, jti), b"", None, until))

    async def revoke_subject(self, subject: str) -> int:
        """Revoke every token of ``subject`` that was issued up to now, the current second included.

        Its sessions and refresh families end too.

        Returns:
            How many sessions and families there were.

        Raises:
            ServiceUnavailable: A store cannot be reached; what was not reached has not ended.
        """
        await self._remember(subject)
        ended = 0
        for record in await self._store.find(subject):
            if record.key.startswith(_ENDS_WITH_SUBJECT):
                ended += await self._store.delete(record.key)
        for each in self._ends:
            ended += await each.revoke_subject(subject)
        return ended

    async def _remember(self, subject: str) -> None:
        now = self._clock()
        kept = self._longest_lifetime
        until = None if kept is None else now + kept.total_seconds() + _LEEWAY_SECONDS
        new = Record(_key(_SUBJECT, subject), str(floor(now)).encode(), None, until)
        while not await self._store.add(new):
            [current] = await self._store.get(new.key)
            # Of two at the same time the later moment stands, and one is not moved back with the clock.
            if current is not None and (
                int(current.value) > floor(now) or await self._store.replace(new.key, current, new)
            ):
                return


def _key(kind: str, text: str) -> str:
    # Of one length whatever stands in a token.
    return kind + sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _covers(record: Record, claims: Mapping[str, Any]) -> bool:
    if record.key.startswith(_TOKEN):
        return True
    issued_at = claims.get("iat")
    if isinstance(issued_at, bool) or not isinstance(issued_at, int | float):
        return True
    return issued_at < int(record.value) + 1
