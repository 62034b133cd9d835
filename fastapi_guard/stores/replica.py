"""Look-ups on a replica of PostgreSQL, while it is known to be no older than a stated lag.

A worker reads the end of the write-ahead log from the primary, at most four times in the lag. When the replica has
replayed it, the replica is as fresh as the moment of that reading. Where that is not known, look-ups go to the primary.
Needs the extra ``sqlalchemy``.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from fastapi_guard.exceptions import ConfigurationError, MissingExtraError, ServiceUnavailable
from fastapi_guard.stores.bounds import seconds_of
from fastapi_guard.stores.database import SessionFactory, Sessions
from fastapi_guard.stores.selects import TIMEOUT_SECONDS, Selects, SharedSelect

try:
    from sqlalchemy import text
except ImportError:
    raise MissingExtraError("sqlalchemy", "sqlalchemy") from None


class Replica:
    """A replica of the database that look-ups may read, and how old it may be.

    Attributes:
        sessions: Its sessions.
        lag_seconds: How old it may be.
    """

    def __init__(self, session_factory: SessionFactory, *, lag: timedelta | float) -> None:
        """Read one physical replica.

        Args:
            session_factory: A sessionmaker or an async_sessionmaker, bound to an engine for the replica.
            lag: How old the replica may be, a timedelta or seconds: a change counts within this time.

        Raises:
            ConfigurationError: It is not a session factory on PostgreSQL, or the lag is not positive.
        """
        self.sessions: Sessions = Sessions(session_factory)
        self.lag_seconds: float = seconds_of("lag", lag, positive=True)
        engine = self.sessions.engine
        if engine is None or engine.dialect.name != "postgresql":
            msg = "a replica is one of PostgreSQL: pass async_sessionmaker(create_async_engine(...)) for it"
            raise ConfigurationError(msg)


class ReplicaSelect:
    """The rows of a table by one of its columns, as SharedSelect returns them, from a replica where it is fresh."""

    def __init__(
        self,
        primary: Sessions,
        replica: Replica,
        select: Callable[[Sessions, float], SharedSelect],
        *,
        timeout_seconds: float = TIMEOUT_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Look up with ``select``.

        Args:
            primary: The database that is written to.
            replica: Of the same database.
            select: Returns the look-ups on one of the two, with a timeout in seconds.
            timeout_seconds: The longest time that a look-up may take. The replica has no more than its lag, after
                which what it returns is too old.
            monotonic: Seconds from any start.
        """
        patience_seconds = min(replica.lag_seconds, timeout_seconds)
        self._on_primary = select(primary, timeout_seconds)
        self._on_replica = select(replica.sessions, patience_seconds)
        self._age = _Age(Selects(primary), Selects(replica.sessions), monotonic, patience_seconds)
        self._lag_seconds = replica.lag_seconds

    async def rows(self, *keys: object) -> list[Sequence[Any] | None]:
        """Return the rows with these keys, in that order, ``None`` where there is no row.

        Raises:
            ServiceUnavailable: Neither database is reachable in time, or one of these rows cannot be read.
        """
        if await self._age.is_within(self._lag_seconds):
            try:
                return await self._on_replica.rows(*keys)
            except ServiceUnavailable:
                self._age.forget()
        return await self._on_primary.rows(*keys)


class _Age:
    """When the replica was last known to be as new as the primary."""

    def __init__(
        self, primary: Selects, replica: Selects, monotonic: Callable[[], float], patience_seconds: float
    ) -> None:
        self._primary, self._replica, self._monotonic = primary, replica, monotonic
        self._patience_seconds = patience_seconds
        self._end = text("SELECT CAST(pg_current_wal_insert_lsn() AS text)")
        # NULL on a server that is not a replica.
        self._replayed = text("SELECT coalesce(pg_last_wal_replay_lsn() >= CAST(CAST(:end AS text) AS pg_lsn), false)")
        self._fresh_at = self._read_at = self._awaited_since = float("-inf")
        self._awaited_end: str | None = None
        self._is_reading = False

    async def is_within(self, lag_seconds: float) -> bool:
        now = self._monotonic()
        # Four times in the lag, since a busy replica is one reading behind. The other requests do not wait for it.
        if now - self._read_at >= lag_seconds / 4 and not self._is_reading:
            self._is_reading, self._read_at = True, now
            try:
                async with asyncio.timeout(self._patience_seconds):
                    await self._read(now)
            except (ServiceUnavailable, TimeoutError):
                self.forget()
            finally:
                self._is_reading = False
        return self._monotonic() - self._fresh_at <= lag_seconds

    def forget(self) -> None:
        self._fresh_at, self._awaited_end = float("-inf"), None

    async def _read(self, now: float) -> None:
        await self._compare()
        if self._awaited_end is None:
            [(end,)] = await self._primary.all(self._end, {})
            self._awaited_end, self._awaited_since = end, now
            await self._compare()

    async def _compare(self) -> None:
        if self._awaited_end is not None:
            [(is_replayed,)] = await self._replica.all(self._replayed, {"end": self._awaited_end})
            if is_replayed:
                self._fresh_at, self._awaited_end = self._awaited_since, None
