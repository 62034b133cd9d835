"""A session, and its record in a store."""

import json
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache, partial
from typing import Any, Final

from fastapi_guard.claims import Claims, copied
from fastapi_guard.exceptions import ConfigurationError
from fastapi_guard.login.client import Client
from fastapi_guard.login.state import EXPIRY_SLACK_SECONDS, owner_of_claims
from fastapi_guard.stores.bounds import seconds_of
from fastapi_guard.stores.kinds import REPLACED, SESSION
from fastapi_guard.stores.protocol import Record, Store
from fastapi_guard.stores.values import UnreadableRecord, check_moments, check_texts, decoded

_WRITTEN_EVERY_SECONDS: Final = 60
# A use of a session that expires sooner is stored without delay.
_LONG_ENOUGH_SECONDS: Final = 10
_RECORDS_KEPT: Final = 1024


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """How long sessions are valid, in seconds.

    Attributes:
        idle: After the last use.
        absolute: After the login.
        written_every: How often a use is stored at most.
    """

    idle: float
    absolute: float
    written_every: float

    @classmethod
    def of(cls, idle: timedelta, absolute: timedelta) -> "Lifetimes":
        """Return the lifetimes that SessionAuth is configured with.

        Raises:
            ConfigurationError: One is not positive, or the idle lifetime is the longer one.
        """
        idle_seconds = seconds_of("idle_lifetime", idle, positive=True)
        absolute_seconds = seconds_of("absolute_lifetime", absolute, positive=True)
        if idle_seconds > absolute_seconds:
            msg = "idle_lifetime is longer than absolute_lifetime; a number is of seconds"
            raise ConfigurationError(msg)
        # A session that would expire within two minutes has to be written more often to slide at all.
        return cls(idle_seconds, absolute_seconds, min(_WRITTEN_EVERY_SECONDS, idle_seconds / 2))

    def expiry(self, created_at: float, seen_at: float) -> float:
        """Return when a session expires, in seconds since the epoch, by its beginning and its last use."""
        return min(seen_at + self.idle, created_at + self.absolute)

    def is_written_later(self, expires_at: float, now: float) -> bool:
        """Return whether the use of a session that expires at ``expires_at`` may be stored a little later."""
        return expires_at - now > _LONG_ENOUGH_SECONDS


@dataclass(frozen=True, slots=True)
class Session:
    """A session that is valid.

    Attributes:
        id: The argument of ``end``, and the claim ``sid``. No cookie can be made of it.
        subject: The ``sub`` of its claims.
        claims: The claims that were passed to ``login``, and ``sid``, ``iat``, ``exp`` and ``auth_time``.
        created_at: When it began, in seconds since the epoch.
        seen_at: When it was last used, to the minute.
        expires_at: When it expires unless it is used before.
        client: The client that logged in.
    """

    id: str
    subject: str
    claims: Claims
    created_at: float
    seen_at: float
    expires_at: float
    client: Client = field(default_factory=Client)

    @classmethod
    def of(cls, claims: Claims, created_at: float, seen_at: float, expires_at: float, client: Client) -> "Session":
        """Return a session with these claims, ``sid`` among them."""
        return cls(claims["sid"], claims.get("sub", ""), claims, created_at, seen_at, expires_at, client)

    @classmethod
    def begun(
        cls, session_id: str, claims: Claims, client: Client, lifetimes: Lifetimes, times: tuple[float, float]
    ) -> "Session":
        """Return a new session; ``times`` are when it was created and seen, in seconds since the epoch."""
        created_at, seen_at = times
        given = {"iat": int(created_at), "auth_time": int(created_at), **claims}
        own = {"sid": session_id, "exp": int(created_at + lifetimes.absolute)}
        return cls.of({**given, **own}, created_at, seen_at, lifetimes.expiry(created_at, seen_at), client)

    @classmethod
    def read(cls, record: Record, auth: str, expiry: Callable[[float, float], float]) -> "Session | None":
        """Return the session of a record, ``None`` where it belongs to an Auth of another name.

        A record of version 0.1.0 has no name, and so belongs to none.

        Args:
            record: The record.
            auth: The name of the Auth.
            expiry: Returns when a session expires, by its beginning and its last use.

        Raises:
            ServiceUnavailable: The record cannot be read.
        """
        name, claims, created_at, seen_at, client = _decoded(record.key, record.value)
        if name != auth:
            return None
        # A copy, since the application may change the claims that it gets.
        return cls.of(copied(claims), created_at, seen_at, expiry(created_at, seen_at), client)

    @classmethod
    def read_to_end(cls, record: Record, auth: str, expiry: Callable[[float, float], float]) -> "Session | None":
        """Return as ``read`` does, and an expired session for a record that cannot be read: of whichever Auth it is."""
        try:
            return cls.read(record, auth, expiry)
        except UnreadableRecord:
            return cls(record.key.removeprefix(SESSION), "", {}, 0.0, 0.0, -math.inf)

    def record(self, auth: str) -> Record:
        """Return the record of the session, for the Auth of this name.

        Raises:
            ValueError: The claims have no ``sub``, or are not JSON.
        """
        owner = owner_of_claims(self.claims, "session")
        held = {
            "auth": auth,
            "claims": self.claims,
            "created_at": self.created_at,
            "seen_at": self.seen_at,
            "address": self.client.address,
            "agent": self.client.agent,
        }
        try:
            value = json.dumps(held, separators=(",", ":"), allow_nan=False).encode("ascii")
        except TypeError as error:
            msg = "the claims of a session are JSON: texts, numbers, lists, objects"
            raise ValueError(msg) from error
        return Record(SESSION + self.id, value, owner, self.expires_at + EXPIRY_SLACK_SECONDS)

    def replaced(self, by: "Session") -> Record:
        """Return the record by which ``by``, the same login with another id, is found when this session is to end."""
        # Of several that replace it at once one stays, and which one is not known when this is written.
        until = by.claims["exp"] + EXPIRY_SLACK_SECONDS
        return Record(REPLACED + by.id, by.id.encode("ascii"), REPLACED + self.id, until)


def auth_of(record: Record) -> str:
    """Return the name of the Auth of a session.

    Raises:
        ServiceUnavailable: The record cannot be read.
    """
    return _decoded(record.key, record.value)[0]


async def end_or_successor(session_id: str, store: Store, end: Callable[[str], Awaitable[bool]]) -> bool:
    """End a session by its id, or what step-ups have put in its place; return whether there was one.

    Args:
        session_id: Its id.
        store: Where the sessions are.
        end: Ends a session by its id alone; returns whether there was one.

    Raises:
        ServiceUnavailable: The store cannot be reached.
    """
    following = [session_id]
    for known in following:
        if await end(known):
            return True
        following += [record.key.removeprefix(REPLACED) for record in await store.find(REPLACED + known)]
    return False


Sessions = list[Session]  # SessionAuth has a method of the name list


# A session is read with each request, and its record changes once a minute at most.
@lru_cache(_RECORDS_KEPT)
def _decoded(key: str, value: bytes) -> tuple[str, Claims, float, float, Client]:
    return decoded(value, partial(_members, key.removeprefix(SESSION)), "a session")


def _members(session_id: str, held: dict[str, Any]) -> tuple[str, Claims, float, float, Client]:
    auth, claims, client = held.get("auth", ""), held["claims"], Client(held.get("address"), held.get("agent"))
    owner_of_claims(claims, "session")
    check_texts(auth, client.address, client.agent)
    check_moments(held["created_at"], held["seen_at"])
    if claims["sid"] != session_id:
        msg = "the sid is that of another record"
        raise ValueError(msg)
    return auth, claims, held["created_at"], held["seen_at"], client
