"""Revoked tokens: one by one, those of a session, or all of a subject up to a moment."""

import json
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import timedelta
from functools import partial
from math import floor
from typing import Any, Final, TypeVar

from fastapi_guard.events import Event, logger, publish
from fastapi_guard.exceptions import ConfigurationError, shown
from fastapi_guard.login.cut import ANY, REVOCATION_NUMBER, Cut, cuts_of, encoded, moments_of, named
from fastapi_guard.login.lookup import ended_by
from fastapi_guard.login.session_record import auth_of, end_or_successor
from fastapi_guard.login.state import (
    EndsWithSubject,
    check_name,
    digest_of,
    holder_of,
    issuer_of,
    makers_first,
    owner_of,
)
from fastapi_guard.stores.arguments import clock_of, instance_of, items_of, store_of
from fastapi_guard.stores.bounds import seconds_of
from fastapi_guard.stores.cached import CacheLimits, reader
from fastapi_guard.stores.kinds import FAMILY, PENDING, REVOKED, SESSION
from fastapi_guard.stores.protocol import Record, Store
from fastapi_guard.stores.values import UnreadableRecord, readable

# A token is accepted for the leeway of its verifier after it has expired, which is no more than this.
_LEEWAY_SECONDS: Final = 300
# Of the year 9999; what expires later never does, and not every store can represent it.
_LAST_SECOND: Final = 253_402_300_799
_MAX_SKEW_SECONDS: Final = 60

RevokedT = TypeVar("RevokedT")


class Revocations:
    """Revoked tokens: ``JWTAuth(config, revocations=Revocations(store))``.

    Each verification reads the store once, for the token, its session and its subject together.

    Attributes:
        name: The name, ``None`` for those of the whole store.
        store: The store.
    """

    def __init__(  # noqa: PLR0913 - keywords, each with a default
        self,
        store: Store,
        *,
        name: str | None = None,
        ends: Iterable[EndsWithSubject] = (),
        longest_lifetime: timedelta | None = None,
        clock_skew: timedelta | float = 10,
        cache_ttl: timedelta | float | None = None,
        cache_size: int | None = None,
        fresh_within: timedelta | float | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Store revocations in ``store``.

        Args:
            store: Without a ``name``, all sessions and refresh families in it end with their subject.
            name: Where several Auths with subjects of their own are on one store. Revocations of another name are
                unknown here, and only ``ends`` ends with a subject.
            ends: RefreshTokens, SessionAuths and others that end with a subject too.
            longest_lifetime: The longest lifetime of any token, after which the revocation of a subject can be
                forgotten. ``None`` keeps it indefinitely, one small record for each subject ever revoked.
            clock_skew: How far the clock of a host that issues tokens may be ahead of that of a host that revokes, at
                most a minute, alike on all hosts. The revocation of a subject covers tokens that are dated up to this
                time later, unless ``number_for`` has numbered them.
            cache_ttl: How long it is cached that a token is revoked or not, at most an hour. Off by default.
            cache_size: How many look-ups are cached, by default 10,000; a token takes up to three.
            fresh_within: How soon a revocation in another process counts for what is cached, by default a second.
            clock: Seconds since the epoch.

        Raises:
            ConfigurationError: The lifetime is not positive, the skew is longer than a minute, the name has other
                characters than a name can have, one of ``ends`` cannot end a subject, or a cache is out of its range
                or on a store whose changes cannot be read.
        """
        if longest_lifetime is not None:
            instance_of("longest_lifetime", longest_lifetime, timedelta, "a positive timedelta, or None")
            seconds_of("longest_lifetime", longest_lifetime, positive=True)
        self.name: str | None = None if name is None else check_name(name)
        self.store: Store = store_of("store", store)
        limits = CacheLimits.of(cache_ttl, cache_size, fresh_within)
        self._read = reader(store, limits, keep_missing=True, clock=clock)
        self._prefix = f"{name or ''}|"
        holders: tuple[EndsWithSubject, ...] = items_of("ends", ends, "such as [SessionAuth(store)]")
        self._ends = makers_first(map(holder_of, holders))
        self._longest_lifetime = longest_lifetime
        self._skew_seconds = seconds_of("clock_skew", clock_skew)
        if self._skew_seconds > _MAX_SKEW_SECONDS:
            msg = f"clock_skew is at most a minute, not {shown(clock_skew)}: synchronise the clocks of the hosts"
            raise ConfigurationError(msg)
        self._clock = clock_of(clock)

    async def is_revoked(self, claims: Mapping[str, Any]) -> bool:
        """Return whether the token with these claims is revoked, by its ``jti``, its ``sid``, or ``sub`` and ``iat``.

        Only revocations of its issuer count, and those of any issuer. A token of a revoked subject without ``iat`` is
        revoked.

        Raises:
            ServiceUnavailable: The store cannot be reached.
        """
        named = [(kind, claims.get(kind)) for kind in ("jti", "sid", "sub")]
        keys = [self._key(kind, value) for kind, value in named if isinstance(value, str)]
        found = await self._read(*keys) if keys else ()
        return any(self._covers(record, claims) for record in found if record is not None)

    async def revoke(self, claims: Mapping[str, Any]) -> None:
        """Revoke the token with these claims, by its ``jti`` and ``iss``, until it expires.

        Raises:
            ValueError: It has no ``jti`` to be identified by.
            ServiceUnavailable: The store cannot be reached.
        """
        jti, expiry = claims.get("jti"), claims.get("exp")
        if not isinstance(jti, str):
            msg = "a token without a jti cannot be revoked alone: revoke its subject"
            raise ValueError(msg)  # noqa: TRY004 - the token's fault, not the caller's
        expires_at = expiry if isinstance(expiry, int | float) and not isinstance(expiry, bool) else None
        await self._revoke("jti", jti, named(issuer_of(claims)), expires_at)

    async def revoke_id(self, jti: str, *, expires_at: float | None = None, issuer: str | None = None) -> None:
        """Revoke the token with this ``jti``; where it is revoked already, the later expiry counts.

        Args:
            jti: The ``jti`` claim.
            expires_at: The ``exp`` claim, in seconds since the epoch; ``None`` revokes it indefinitely.
            issuer: The ``iss`` claim; ``None`` revokes the ``jti`` of any issuer.

        Raises:
            ServiceUnavailable: The store cannot be reached.
        """
        await self._revoke("jti", jti, ANY if issuer is None else named(issuer), expires_at)

    async def revoke_session(self, sid: str, *, expires_at: float | None = None, issuer: str | None = None) -> None:
        """Revoke the tokens with this ``sid``: those of a device.

        Args:
            sid: The ``sid`` claim, such as the ``id`` of a Family.
            expires_at: When the last of these tokens expires; ``None`` revokes them indefinitely.
            issuer: The ``iss`` claim; ``None`` revokes the ``sid`` of any issuer.

        Raises:
            ServiceUnavailable: The store cannot be reached.
        """
        await self._revoke("sid", sid, ANY if issuer is None else named(issuer), expires_at)

    async def revoke_subject(self, subject: str, *, keep: str | None = None, issuer: str | None = None) -> int:
        """Revoke every token of ``subject`` that was issued up to now, by whichever host.

        Its sessions, refresh families and pending logins end too. A login of TokenPairs or LocalAuth afterwards is
        valid at once, a token without a number (``number_for``) from a second and ``clock_skew`` later. One whose
        proof is verified at this moment still completes: ``Login.end_all`` and ``LocalAuth.revoke_subject`` end it.

        Args:
            subject: The ``sub`` claim.
            keep: The ``sid`` of a session that continues.
            issuer: The ``iss`` claim; ``None`` revokes the tokens of any issuer, and the sessions and families
                without one.

        Returns:
            How many sessions, families and other credentials there were, tokens apart.

        Raises:
            AuthError: One of ``ends`` raised it, or a ServiceUnavailable where a store cannot be reached. What is in
                the others has ended all the same; call it again to end the rest.
        """
        ends: list[Callable[[], Awaitable[int | None]]] = [partial(self._cut, subject, issuer, keep)]
        if self.name is None:
            ends.append(partial(end_records, self.store, subject, keep=keep, issuer=issuer))
        of_issuer = {} if issuer is None else {"issuer": issuer}
        ends += [partial(holder.revoke_subject, subject, keep=keep, **of_issuer) for holder in self._ends]
        return await ended_by(ends)

    async def number_for(self, claims: Mapping[str, Any]) -> dict[str, int]:
        """Return the claim with which a new token stays valid after a revocation: ``{"revocation_number": 2}``.

        Empty unless the subject was revoked shortly before ``iat``, or after it by a clock that is ahead. In a login of
        your own, call it before you read the user, and add the result to the claims of the token.

        Args:
            claims: ``sub``, ``iat`` in seconds since the epoch and, where the tokens have one, ``iss``.

        Raises:
            ServiceUnavailable: The store cannot be reached.
        """
        [record] = await self.store.get(self._key("sub", str(claims["sub"])))
        if record is None:
            return {}
        issuer = named(issuer_of(claims))
        cuts = [cut for name, cut in cuts_of(record).items() if name in (issuer, ANY)]
        late = any(cut.covers(claims, self._skew_seconds) for cut in cuts)
        return {REVOCATION_NUMBER: max(cut.number for cut in cuts)} if late else {}

    async def _revoke(self, kind: str, value: str, issuer: str, expires_at: float | None) -> None:
        until = None
        if expires_at is not None and abs(expires_at) <= _LAST_SECOND:
            until = expires_at + _LEEWAY_SECONDS
        key, everything = self._key(kind, value), dict[str, float | None]([(ANY, None)])

        def merged(record: Record | None) -> Record:
            ends = _read(moments_of, record, everything)
            ends[issuer] = until if issuer not in ends else _later(ends[issuer], until)
            value = json.dumps(ends, separators=(",", ":")).encode("ascii")
            return Record(key, value, None, _last(ends.values()))

        await self._write(key, merged)

    async def _cut(self, subject: str, issuer: str | None, keep: str | None) -> None:
        now = self._clock()
        second = floor(now)
        name = ANY if issuer is None else named(issuer)
        kept = self._longest_lifetime
        until = None if kept is None else now + kept.total_seconds() + _LEEWAY_SECONDS
        key = self._key("sub", subject)

        def merged(record: Record | None) -> Record:
            # With a number that no token can have.
            cuts = _read(cuts_of, record, {ANY: Cut(second, second, until=until)})
            # Numbers count on over all issuers, so that one is enough for a token.
            number = 1 + max((cut.number for cut in cuts.values()), default=0)
            cuts[name] = cuts.get(name, Cut(-1, 0)).again(second, number, keep, until)
            return Record(key, encoded(cuts), None, _last(cut.until for cut in cuts.values()))

        await self._write(key, merged)

    async def _write(self, key: str, merged: Callable[[Record | None], Record]) -> None:
        while True:
            current = await self._current(key)
            new = merged(current)
            done = self.store.add(new) if current is None else self.store.replace(key, current, new)
            if await done:
                return

    async def _current(self, key: str) -> Record | None:
        try:
            [current] = await self.store.get(key)
        except UnreadableRecord as error:
            if error.record is None:
                raise
            return error.record
        return current

    def _covers(self, record: Record, claims: Mapping[str, Any]) -> bool:
        issuer = named(issuer_of(claims))
        if not record.key.startswith(f"{REVOKED}sub:"):
            return not {issuer, ANY}.isdisjoint(moments_of(record))
        cuts = cuts_of(record).items()
        return any(cut.covers(claims, self._skew_seconds) for name, cut in cuts if name in (issuer, ANY))

    def _key(self, kind: str, value: str) -> str:
        # Of fixed length, whatever is in a token.
        return f"{REVOKED}{kind}:{digest_of(self._prefix + value)}"


async def end_records(store: Store, subject: str, *, keep: str | None = None, issuer: str | None = None) -> int:
    """End the sessions, refresh families and pending logins of a subject, of any Auth; count those of the first two.

    A record that cannot be read ends as any other.

    Raises:
        ServiceUnavailable: The store cannot be reached; some may not have ended.
    """
    found = await store.find(owner_of(subject, issuer))
    return await ended_by(partial(_end_record, store, record, subject, keep=keep, issuer=issuer) for record in found)


async def _end_record(store: Store, record: Record, subject: str, *, keep: str | None, issuer: str | None) -> int:
    kind, _, name = record.key.rpartition(":")
    if f"{kind}:" == PENDING:
        await store.delete(record.key)
    elif f"{kind}:" == FAMILY and name != keep:
        return await store.delete(record.key)
    elif f"{kind}:" == SESSION and name != keep and await _end_session(store, name):
        for auth in readable([record], auth_of):
            publish(Event("session_ended", auth, subject=subject, issuer=issuer), None)
        return 1
    return 0


async def _end_session(store: Store, session_id: str) -> bool:
    async def end(known: str) -> bool:
        return await store.delete(SESSION + known)

    return await end_or_successor(session_id, store, end)


def _read(
    read: Callable[[Record], dict[str, RevokedT]], record: Record | None, everything: dict[str, RevokedT]
) -> dict[str, RevokedT]:
    # What cannot be read revoked something: all that it can be about is revoked.
    if record is None:
        return {}
    try:
        return read(record)
    except UnreadableRecord:
        logger.warning("a revocation that cannot be read is replaced by one of everything that it can be about")
    return everything


def _later(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else max(first, second)


def _last(moments: Iterable[float | None]) -> float | None:
    listed = list(moments)
    return None if None in listed else max(moment for moment in listed if moment is not None)
