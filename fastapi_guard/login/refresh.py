"""Refresh tokens: opaque, used once, and a family ends when one is used again (RFC 9700 4.14.2).

A token is 64 characters: 16 random bytes that name its family, 32 that are its own. Neither is stored. The family is
one record under the hash of its name, with the hash of the token that is good now, and a rotation is one
compare-and-swap of that record: whoever wins it, there is one successor.

The successor is HMAC-SHA256(presented token, nonce), and the nonce stays in the record while the grace lasts. So a
client that lost the answer, or sent two requests at once, is handed the same successor again, although only hashes are
stored. After the grace the nonce is erased, and a used token that comes again is in two hands.
"""

import asyncio
import hmac
import json
import logging
import secrets
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from hashlib import sha256
from inspect import isawaitable
from typing import Final, NamedTuple

from fastapi_guard.claims import Claims
from fastapi_guard.events import Event, EventCallback, checked, publish
from fastapi_guard.exceptions import ConfigurationError, ServiceUnavailable, Unauthorized
from fastapi_guard.jwt.tokens import TokenPair
from fastapi_guard.stores.protocol import Record, Store

__all__ = ["INVALID_REFRESH_TOKEN", "Family", "MayContinue", "RefreshTokens", "TokenPair"]

logger: logging.Logger = logging.getLogger("fastapi_guard")

INVALID_REFRESH_TOKEN: Final = "The refresh token is invalid"

_KEY: Final = "refresh:"
_NAME_BYTES: Final = 16
_SECRET_BYTES: Final = 32
_TOKEN_LENGTH: Final = (_NAME_BYTES + _SECRET_BYTES) * 4 // 3  # a multiple of three bytes: one spelling, no padding
_ATTEMPTS: Final = 3

# Asked with the claims of the family: False ends it, True goes on, other claims take the place of these.
MayContinue = Callable[[Claims], bool | Claims | Awaitable[bool | Claims]]


@dataclass(frozen=True, slots=True)
class Family:
    """The tokens that followed from one login.

    Attributes:
        id: What ``end`` takes. Nobody can make a token of it.
        subject: The ``sub`` of its claims.
        created_at: When it was issued, in seconds since the epoch.
        rotated_at: When it was last rotated, in seconds since the epoch; ``created_at`` at first.
        expires_at: When it ends unless it is rotated before.
    """

    id: str
    subject: str
    created_at: float
    rotated_at: float
    expires_at: float


@dataclass(frozen=True, slots=True)
class _State:
    """What the record of a family holds: hashes of tokens, in hexadecimal, and no token."""

    claims: Claims
    created_at: float
    rotated_at: float
    current: str = field(repr=False)
    previous: str | None = field(default=None, repr=False)
    nonce: str | None = field(default=None, repr=False)

    @classmethod
    def of(cls, record: Record) -> "_State":
        return cls(**json.loads(record.value))

    def encoded(self) -> bytes:
        return json.dumps(asdict(self), separators=(",", ":"), allow_nan=False).encode("ascii")


class _Token(NamedTuple):
    """A token taken apart."""

    text: str
    name: bytes

    @property
    def family(self) -> str:
        return sha256(self.name).hexdigest()

    @property
    def key(self) -> str:
        return _KEY + self.family

    @property
    def digest(self) -> str:
        return sha256(self.text.encode("ascii")).hexdigest()

    def successor(self, nonce: str) -> "_Token":
        secret = hmac.digest(self.text.encode("ascii"), bytes.fromhex(nonce), "sha256")
        return _Token(_text(self.name + secret), self.name)


class RefreshTokens:
    """Issue and rotate refresh tokens.

    Two requests to the store rotate a token, and three where it lost a race.
    """

    def __init__(
        self,
        store: Store,
        *,
        idle_lifetime: timedelta = timedelta(days=14),
        absolute_lifetime: timedelta = timedelta(days=90),
        grace: timedelta = timedelta(seconds=30),
        may_continue: MayContinue | None = None,
        on_event: EventCallback | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Keep families in ``store``.

        Args:
            store: Where the families are.
            idle_lifetime: How long a token is good that nobody uses.
            absolute_lifetime: How long a family lives, however often it is rotated.
            grace: How long a used token still gives the successor that it gave before.
            may_continue: Asked at each rotation, before anything is changed.
            on_event: Called with the Event ``refresh_reused``.
            clock: Seconds since the epoch.

        Raises:
            ConfigurationError: A lifetime is not positive, the grace is negative, or longer than an hour.
        """
        if not all(isinstance(each, timedelta) for each in (idle_lifetime, absolute_lifetime)):
            msg = "idle_lifetime and absolute_lifetime are timedeltas, such as timedelta(days=1)"
            raise ConfigurationError(msg)
        if not timedelta() < idle_lifetime <= absolute_lifetime:
            msg = "idle_lifetime is positive and no longer than absolute_lifetime"
            raise ConfigurationError(msg)
        if not isinstance(grace, timedelta) or not timedelta() <= grace <= timedelta(hours=1):
            msg = "grace is a timedelta from nothing to an hour: it is for a client that sends again at once"
            raise ConfigurationError(msg)
        self._store = store
        self._idle = idle_lifetime.total_seconds()
        self._absolute = absolute_lifetime.total_seconds()
        self._grace = grace.total_seconds()
        self._may_continue = may_continue
        self._on_event = checked(on_event)
        self._clock = clock
        self._erasing: set[asyncio.Task[None]] = set()

    async def issue(self, claims: Mapping[str, object]) -> str:
        """Return the first token of a new family.

        Args:
            claims: What ``rotate`` gives back; ``sub`` is whom the family belongs to. JSON throughout.

        Raises:
            ValueError: There is no ``sub``, or a claim is nothing that JSON can hold.
            ServiceUnavailable: The store cannot be reached.
        """
        token = _new_token()
        now = self._clock()
        state = _State(dict(claims), now, now, token.digest)
        await self._store.add(self._record(token.key, state, now))
        return token.text

    async def rotate(self, token: str, *, may_continue: MayContinue | None = None) -> tuple[Claims, str]:
        """Return the claims of the family, and the token that is good from now on.

        Args:
            token: As it was presented.
            may_continue: Asked too, where this caller has something to ask.

        Raises:
            Unauthorized: It is no token of a family that lives, it was used before, or who has it may not continue.
            ServiceUnavailable: The store cannot be reached; the token is as good as it was.
        """
        presented = _parse(token)
        claims: Claims | None = None
        for _ in range(_ATTEMPTS):
            [record] = await self._store.get(presented.key)
            now = self._clock()
            state = self._living(record, now)
            successor = await self._successor(presented, state, now)
            if claims is None:
                claims = await self._continued(presented, state.claims, may_continue)
            if successor is not None:
                return claims, successor.text
            nonce = secrets.token_hex(_SECRET_BYTES)
            successor = presented.successor(nonce)
            rotated = replace(
                state, claims=claims, rotated_at=now, current=successor.digest, previous=presented.digest, nonce=nonce
            )
            assert record is not None  # noqa: S101 - it lives
            if await self._store.replace(presented.key, record, self._record(presented.key, rotated, now)):
                self._erase_later(presented.key)
                return claims, successor.text
        raise ServiceUnavailable(reason="contended")

    async def revoke(self, token: str) -> bool:
        """End the family of ``token``, whichever of the family it is; return whether there was one.

        Raises:
            ServiceUnavailable: The store cannot be reached.
        """
        try:
            return await self._store.delete(_parse(token).key)
        except Unauthorized:
            return False

    async def end(self, family_id: str) -> bool:
        """End a family by the ``id`` of its Family; return whether there was one.

        Raises:
            ServiceUnavailable: The store cannot be reached.
        """
        return await self._store.delete(_KEY + family_id)

    async def revoke_subject(self, subject: str) -> int:
        """End every family of ``subject``; return how many there were.

        Raises:
            ServiceUnavailable: The store cannot be reached; what was not reached has not ended.
        """
        return sum([await self.end(family.id) for family in await self.families(subject)])

    async def families(self, subject: str) -> list[Family]:
        """Return the families of ``subject`` that live, the oldest first.

        Raises:
            ServiceUnavailable: The store cannot be reached.
        """
        found = [record for record in await self._store.find(subject) if record.key.startswith(_KEY)]
        return sorted(map(_family, found), key=lambda family: family.created_at)

    @staticmethod
    def family_id(token: str) -> str:
        """Return the ``id`` of the family that ``token`` is of.

        Raises:
            Unauthorized: It cannot be a token.
        """
        return _parse(token).family

    async def _continued(self, token: _Token, claims: Claims, own: MayContinue | None) -> Claims:
        subject = claims["sub"]
        for ask in (self._may_continue, own):
            if ask is not None:
                answer = ask(dict(claims))
                verdict = await answer if isawaitable(answer) else answer
                if verdict is False or verdict is None:
                    await self._store.delete(token.key)
                    raise _invalid("may_not_continue")
                if verdict is not True:
                    claims = {**verdict, "sub": subject}
        return claims

    def _living(self, record: Record | None, now: float) -> _State:
        if record is not None and record.is_alive(now):
            state = _State.of(record)
            if now < state.created_at + self._absolute:
                return state
        raise _invalid("unknown_refresh_token")

    async def _successor(self, token: _Token, state: _State, now: float) -> _Token | None:
        # None for the token that is good now; the one before it has the successor that it had.
        if hmac.compare_digest(token.digest, state.current):
            return None
        used_before = state.previous is not None and hmac.compare_digest(token.digest, state.previous)
        if used_before and state.nonce is not None and now < state.rotated_at + self._grace:
            return token.successor(state.nonce)
        # Only who had a token of the family knows its name: a token of it is in two hands.
        await self._store.delete(token.key)
        publish(Event("refresh_reused", "refresh", 401, "reused", subject=state.claims["sub"]), self._on_event)
        raise _invalid("reused")

    def _record(self, key: str, state: _State, now: float) -> Record:
        subject = state.claims.get("sub")
        if not isinstance(subject, str) or not subject:
            msg = "the claims of a refresh token need a sub, a non-empty string"
            raise ValueError(msg)
        try:
            value = state.encoded()
        except TypeError as error:
            msg = "the claims of a refresh token are JSON: texts, numbers, lists, objects"
            raise ValueError(msg) from error
        return Record(key, value, subject, min(now + self._idle, state.created_at + self._absolute))

    def _erase_later(self, key: str) -> None:
        asyncio.get_running_loop().call_later(self._grace, self._start_erasing, key)

    def _start_erasing(self, key: str) -> None:
        task = asyncio.ensure_future(self._erase(key))
        self._erasing.add(task)
        task.add_done_callback(self._erasing.discard)

    async def _erase(self, key: str) -> None:
        # Best effort: a rotation in the meantime has a nonce of its own, and one that stays is not used any more.
        try:
            [record] = await self._store.get(key)
            if record is not None:
                state = _State.of(record)
                if state.nonce is not None and self._clock() >= state.rotated_at + self._grace:
                    erased = replace(record, value=replace(state, nonce=None).encoded())
                    await self._store.replace(key, record, erased)
        except ServiceUnavailable:
            logger.warning("the nonce of a refresh token could not be erased")


def _family(record: Record) -> Family:
    state = _State.of(record)
    assert record.expires_at is not None  # noqa: S101 - no family is kept for ever
    family_id = record.key.removeprefix(_KEY)
    return Family(family_id, state.claims["sub"], state.created_at, state.rotated_at, record.expires_at)


def _new_token() -> _Token:
    name = secrets.token_bytes(_NAME_BYTES)
    return _Token(_text(name + secrets.token_bytes(_SECRET_BYTES)), name)


def _text(raw: bytes) -> str:
    return urlsafe_b64encode(raw).decode("ascii")


def _parse(token: str) -> _Token:
    if isinstance(token, str) and len(token) == _TOKEN_LENGTH and token.isascii():
        with suppress(ValueError):
            raw = urlsafe_b64decode(token)
            if _text(raw) == token:  # the decoder skips what is not of its alphabet
                return _Token(token, raw[:_NAME_BYTES])
    raise _invalid("malformed")


def _invalid(reason: str) -> Unauthorized:
    return Unauthorized(INVALID_REFRESH_TOKEN, reason=reason)
