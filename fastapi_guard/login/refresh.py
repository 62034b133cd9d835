"""Refresh tokens: opaque, used once, and a family ends when one is used again (RFC 9700 4.14.2).

A family is one record, a rotation one compare-and-swap of it. The successor is HMAC-SHA256(presented token, nonce), and
the nonce is kept for the grace: two tabs of a browser that refresh at once receive the same successor.
"""

import asyncio
import hmac
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from functools import partial
from inspect import isawaitable
from typing import Any, Final

from starlette.requests import HTTPConnection

from fastapi_guard.claims import Claims
from fastapi_guard.events import Event, EventCallback, checked, logger, publish
from fastapi_guard.exceptions import ConfigurationError, ServiceUnavailable, Unauthorized
from fastapi_guard.jwt.tokens import TokenPair
from fastapi_guard.login.client import Client
from fastapi_guard.login.family import (
    INVALID_REFRESH_TOKEN,
    Family,
    FamilyState,
    Token,
    claims_in,
    family_of,
    invalid_refresh_token,
    record_of,
)
from fastapi_guard.login.lookup import decided, ended_by
from fastapi_guard.login.state import EXPIRY_SLACK_SECONDS, check_name, claim, owner_of
from fastapi_guard.stores.arguments import clock_of, function_of, store_of
from fastapi_guard.stores.bounds import seconds_of
from fastapi_guard.stores.kinds import FAMILY
from fastapi_guard.stores.protocol import Record, Store
from fastapi_guard.stores.values import readable

__all__ = ["INVALID_REFRESH_TOKEN", "Family", "MayContinue", "RefreshTokens", "TokenPair"]

_ATTEMPTS: Final = 3
_MAX_GRACE_SECONDS, _SET_BACK_SECONDS = 60, 300

# Called with the claims of the family: False ends it, True continues, other claims take the place of these.
MayContinue = Callable[[Claims], bool | Claims | Awaitable[bool | Claims]]


class RefreshTokens:
    """Issue and rotate refresh tokens.

    A rotation takes two round trips to the store, three after a lost race.

    Attributes:
        name: Stored with each family: a family of another name is unknown here.
        idle_seconds: How long a token is valid that is not used.
    """

    def __init__(
        self,
        store: Store,
        *,
        name: str = "refresh",
        idle_lifetime: timedelta = timedelta(days=14),
        absolute_lifetime: timedelta = timedelta(days=90),
        grace: timedelta = timedelta(seconds=10),
        may_continue: MayContinue | None = None,
        on_event: EventCallback | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Store families in ``store``.

        Args:
            store: Where the families are.
            name: Keeps these families apart from those of other RefreshTokens on the store.
            idle_lifetime: How long a token is valid that is not used.
            absolute_lifetime: How long a family is valid, however often it is rotated.
            grace: How long a used token still returns the successor that it returned before, unless that was used in
                the meantime; at most a minute.
            may_continue: Called at each rotation, before anything is changed.
            on_event: Receives the events ``refresh_reused`` and ``refresh_graced``.
            clock: Seconds since the epoch.

        Raises:
            ConfigurationError: A lifetime is not positive, the grace is longer than a minute, or other RefreshTokens
                in this process have the name on this store.
        """
        if may_continue is not None:
            function_of("may_continue", may_continue, "of the claims of a family", "claims")
        self.idle_seconds: float = seconds_of("idle_lifetime", idle_lifetime, positive=True)
        self._absolute = seconds_of("absolute_lifetime", absolute_lifetime, positive=True)
        self._grace = seconds_of("grace", grace)
        if self.idle_seconds > self._absolute:
            msg = "idle_lifetime is longer than absolute_lifetime; a number is of seconds"
            raise ConfigurationError(msg)
        if self._grace > _MAX_GRACE_SECONDS:
            msg = f"grace is at most {_MAX_GRACE_SECONDS} seconds: it is for a client that sends again at once"
            raise ConfigurationError(msg)
        self.name: str = check_name(name)
        claim("RefreshTokens", store, name, self, 'pass RefreshTokens(store, name="...")')
        self._store = store_of("store", store)
        self._may_continue = may_continue and partial(decided, "may_continue", may_continue)
        self._on_event = checked(on_event)
        self._clock = clock_of(clock)
        self._latest = 0.0
        self._before_reuse: Callable[[str], Awaitable[object]] | None = None  # of the TokenPairs that they belong to
        self._erasing: set[asyncio.Task[None]] = set()

    async def issue(self, claims: Mapping[str, object], *, client: Client | None = None) -> str:
        """Return the first token of a new family.

        Args:
            claims: What ``rotate`` returns; the family belongs to ``sub``. JSON throughout.
            client: The client that receives it.

        Raises:
            ValueError: There is no ``sub``, or a claim is not JSON.
            ServiceUnavailable: The store cannot be reached.
        """
        token, now, holder = Token.new(), self._now(), client or Client()
        state = FamilyState(self.name, dict(claims), now, now, token.digest, address=holder.address, agent=holder.agent)
        await self._store.add(self._record(token.key, state, now))
        return token.text

    async def rotate(
        self,
        token: str,
        *,
        may_continue: MayContinue | None = None,
        connection: HTTPConnection | None = None,
        client: Client | None = None,
    ) -> tuple[Claims, str]:
        """Return the claims of the family, and the token that is valid from now on.

        Args:
            token: As it was presented.
            may_continue: Called too, for a check of this caller.
            connection: The request, for its address and user agent.
            client: These, where the caller has read them already.

        Raises:
            Unauthorized: It is not a token of a valid family, it was used before, or a check refused.
            ServiceUnavailable: The store cannot be reached; the token is still valid.
        """
        presented, sender = Token.parse(token), client or Client.of(connection)
        claims, decided_on = {}, None
        for _ in range(_ATTEMPTS):
            [record] = await self._store.get(presented.key)
            now = self._now()
            state = self._valid(record, now)
            successor = await self._successor(presented, state, now, sender)
            # Once, unless a step-up has changed the claims in the meantime, which must not be lost.
            if state.claims != decided_on:
                decided_on, claims = state.claims, await self._continued(presented, state.claims, may_continue)
            if successor is not None:
                return claims, successor.text
            rotated, successor = state.rotated(presented, claims, sender, now)
            assert record is not None  # noqa: S101 - it is valid
            if await self._store.replace(presented.key, record, self._record(presented.key, rotated, now)):
                self._erase_later(presented.key)
                return claims, successor.text
        raise ServiceUnavailable(reason="contended")

    async def change(self, family_id: str, changes: Mapping[str, Any], *, subject: str) -> Claims | None:
        """Change claims of a family of ``subject``, by compare-and-swap.

        Returns the claims; ``None`` where there is no such family.

        Raises:
            ServiceUnavailable: The store cannot be reached.
        """
        key = FAMILY + family_id
        for _ in range(_ATTEMPTS):
            [record] = await self._store.get(key)
            try:
                state = self._valid(record, self._now())
            except Unauthorized:
                return None
            if state.claims["sub"] != subject:
                return None
            assert record is not None  # noqa: S101 - it is valid
            claims = {**state.claims, **changes}
            changed = replace(record, value=replace(state, claims=claims).encoded())
            if await self._store.replace(key, record, changed):
                return claims
        raise ServiceUnavailable(reason="contended")

    async def revoke(self, token: str) -> bool:
        """End the family of ``token``, whichever of its tokens it is; return whether there was one.

        Raises:
            ServiceUnavailable: The store cannot be reached.
        """
        try:
            return await self.end(Token.parse(token).family)
        except Unauthorized:
            return False

    async def end(self, family_id: str, *, before: Callable[[], Awaitable[object]] | None = None) -> bool:
        """End a family by the ``id`` of its Family, after ``before``; return whether there was one.

        Raises:
            ServiceUnavailable: The store cannot be reached.
        """
        [record] = await self._store.get(FAMILY + family_id)
        if record is None or not self._may_end(record):
            return False
        if before is not None:
            await before()
        return await self._store.delete(FAMILY + family_id)

    async def revoke_subject(self, subject: str, *, keep: str | None = None, issuer: str | None = None) -> int:
        """End every family of ``subject``, also one whose record cannot be read; return how many there were.

        Args:
            subject: The ``sub`` of their claims.
            keep: The id of a family that continues.
            issuer: The ``iss`` of their claims, where they have one.

        Raises:
            ServiceUnavailable: The store cannot be reached; some families may not have ended.
        """
        found = await self._found(subject, issuer)
        return await ended_by(partial(self._store.delete, one.key) for one in found if one.key != f"{FAMILY}{keep}")

    async def families(self, subject: str, *, issuer: str | None = None) -> list[Family]:
        """Return the valid families of ``subject``, the oldest first, without those that cannot be read.

        Raises:
            ServiceUnavailable: The store cannot be reached.
        """
        own = readable(await self._found(subject, issuer), family_of)
        found = [replace(one, ends_at=one.created_at + self._absolute) for one in own]
        valid = [family for family in found if self._now() < min(family.expires_at, family.ends_at)]
        return sorted(valid, key=lambda family: family.created_at)

    @staticmethod
    def family_id(token: str) -> str:
        """Return the ``id`` of the family of ``token``.

        Raises:
            Unauthorized: The text cannot be a token.
        """
        return Token.parse(token).family

    async def _continued(self, token: Token, claims: Claims, own: MayContinue | None) -> Claims:
        subject = claims["sub"]
        for check in (self._may_continue, own):
            if check is not None:
                answer = check(dict(claims))
                verdict = await answer if isawaitable(answer) else answer
                if verdict is False or verdict is None:
                    await self._store.delete(token.key)
                    raise invalid_refresh_token("may_not_continue")
                if verdict is not True:
                    claims = {**claims_in(verdict), "sub": subject}
        return claims

    async def _found(self, subject: str, issuer: str | None) -> list[Record]:
        return [one for one in await self._store.find(owner_of(subject, issuer)) if self._may_end(one)]

    def _may_end(self, record: Record) -> bool:  # also one that cannot be read, which is of no use to any Auth
        return record.key.startswith(FAMILY) and {one.auth for one in readable([record], FamilyState.of)} <= {self.name}

    def _now(self) -> float:
        now = self._clock()
        if not 0 <= self._latest - now <= _SET_BACK_SECONDS:
            self._latest = now
        return now

    def _valid(self, record: Record | None, now: float) -> FamilyState:
        if record is not None and record.is_alive(now + EXPIRY_SLACK_SECONDS):
            state = FamilyState.of(record)
            if state.auth == self.name and now < state.created_at + self._absolute:
                return state
        raise invalid_refresh_token("unknown_refresh_token")

    async def _successor(self, token: Token, state: FamilyState, now: float, sender: Client) -> Token | None:
        # None for the current token; the one before it has the successor that it had.
        if hmac.compare_digest(token.digest, state.current):
            return None
        used_before = state.previous is not None and hmac.compare_digest(token.digest, state.previous)
        # A clock that is set back does not begin a grace again: a moment before the rotation is after the grace, and a
        # little back from the latest moment that this process has seen is no earlier.
        elapsed = self._latest - state.rotated_at if now >= state.rotated_at - self._grace else self._grace
        if used_before and state.nonce is not None and elapsed < self._grace:
            self._report_grace(state, sender)
            return token.successor(state.nonce)
        # Only a holder of a token of the family has its name: one of them is in two hands.
        await self.end(token.family, before=self._before_reuse and partial(self._before_reuse, token.family))
        publish(Event("refresh_reused", self.name, 401, "reused", subject=state.claims["sub"]), self._on_event)
        raise invalid_refresh_token("reused")

    def _report_grace(self, state: FamilyState, sender: Client) -> None:
        if reason := state.difference(sender):
            publish(Event("refresh_graced", self.name, None, reason, subject=state.claims["sub"]), self._on_event)

    def _record(self, key: str, state: FamilyState, now: float) -> Record:
        return record_of(key, state, min(now + self.idle_seconds, state.created_at + self._absolute))

    def _erase_later(self, key: str) -> None:
        asyncio.get_running_loop().call_later(self._grace, self._start_erasing, key)

    def _start_erasing(self, key: str) -> None:
        task = asyncio.ensure_future(self._erase(key))
        self._erasing.add(task)
        task.add_done_callback(self._erasing.discard)

    async def _erase(self, key: str) -> None:
        # Best effort: a rotation in the meantime has its own nonce, and a nonce that stays is not used any more.
        try:
            [record] = await self._store.get(key)
            if record is not None:
                state = FamilyState.of(record)
                if state.nonce is not None and self._clock() >= state.rotated_at + self._grace:
                    await self._store.replace(key, record, replace(record, value=replace(state, nonce=None).encoded()))
        except ServiceUnavailable:
            logger.warning("the nonce of a refresh token could not be erased")
