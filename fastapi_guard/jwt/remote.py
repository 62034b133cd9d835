"""RemoteKeySet: the keys that an issuer publishes, fetched when they are needed and kept while they may be.

Between an application and its issuer: a request waits for a fetch only where there is nothing to decide by. What the
states are, and what leads from one to the next, is drawn in the documentation ("The states of a remote key set").
Needs the extra ``http``.
"""

import asyncio
import json
import logging
import time
from collections.abc import Callable, Sequence
from contextvars import Context
from dataclasses import dataclass, replace
from datetime import timedelta
from types import TracebackType
from typing import Final, NamedTuple, Self

from joserfc.jwk import Key

from fastapi_guard.exceptions import ConfigurationError, ServiceUnavailable
from fastapi_guard.jwt.algorithms import ASYMMETRIC
from fastapi_guard.jwt.compact import Header
from fastapi_guard.jwt.http import (
    DEFAULT_MAX_BYTES,
    DEFAULT_TIMEOUT_SECONDS,
    Client,
    Document,
    FetchError,
    check_client,
    fetch,
)
from fastapi_guard.jwt.keys import usable_keys
from fastapi_guard.jwt.urls import check_url
from fastapi_guard.jwt.verification import VerificationKeys

logger: logging.Logger = logging.getLogger("fastapi_guard")

_DEFAULT_MIN_TTL: Final = 60.0
_DEFAULT_MAX_TTL: Final = 3600.0
# Where in its lifetime a set is refreshed, while it still serves.
_AHEAD: Final = 0.8
# Three failed fetches are each repeated at once, the next after one second, two, four ... up to the cooldown.
_FAILURES_WITHOUT_PAUSE: Final = 3
_FIRST_PAUSE_SECONDS: Final = 1.0
_MAX_DOUBLINGS: Final = 16


@dataclass(frozen=True, slots=True)
class _Held:
    """Keys, and the moment and lifetime of the fetch that they stand for."""

    keys: tuple[Key, ...]
    at: float
    ttl: float
    refresh_after: float

    def knows(self, kid: str | None) -> bool:
        return kid is not None and any(key.kid == kid for key in self.keys)


class _Flight(NamedTuple):
    """A fetch that is under way, and whether it only adds to the keys that are held."""

    task: asyncio.Task[None]
    adding: bool

    async def landed(self) -> None:
        # Neither does the end of this request end the task, nor what happens to the task raise here.
        await asyncio.wait((self.task,))


class RemoteKeySet:
    """The JWK Set at a URL, as ``JWTConfig(key=RemoteKeySet(url))``. Several configurations may share one.

    It is fetched at the first request, or by ``start()`` or ``async with`` in a lifespan. One fetch is in flight at a
    time, in a task of its own that outlives the request that caused it.
    """

    def __init__(  # noqa: PLR0913 - each is a number that somebody needs to change, and has a default
        self,
        url: str,
        *,
        client: Client | None = None,
        min_ttl: float | timedelta | None = None,
        max_ttl: float | timedelta | None = None,
        cooldown: float | timedelta = 30,
        stale_for: float | timedelta = 3600,
        timeout: float | timedelta = DEFAULT_TIMEOUT_SECONDS,
        max_bytes: int = DEFAULT_MAX_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Remember where the keys are; nothing is fetched yet.

        Durations are seconds or timedeltas.

        Args:
            url: An https URL; http on loopback.
            client: The httpx2 client to use; it stays open.
            min_ttl: The least time that keys are kept, whatever Cache-Control says; 60 seconds, or ``max_ttl`` where
                that is less.
            max_ttl: The most, and the time where it says nothing; an hour, or ``min_ttl`` where that is more. A key
                that the issuer withdraws is refused after at most this long.
            cooldown: The time between two fetches for the sake of an unknown ``kid``, and the longest pause between
                attempts while the issuer is away.
            stale_for: How much longer keys serve while the issuer is away. From then on the answer is 503.
            timeout: The time for one fetch, from its start to the last byte.
            max_bytes: The size of a document at which reading stops.
            clock: Seconds, from any moment on.

        Raises:
            ConfigurationError: The URL is not https, or a number makes no sense.
        """
        self.url: str = check_url(url)
        self._client = check_client(client)
        self._min_ttl, self._max_ttl = _bounds(min_ttl, max_ttl)
        self._cooldown = _seconds("cooldown", cooldown)
        self._stale_for = _seconds("stale_for", stale_for)
        self._timeout = _seconds("timeout", timeout)
        if not self._timeout or type(max_bytes) is not int or max_bytes < 1:
            msg = "timeout is more than 0 seconds, and max_bytes a whole number from 1"
            raise ConfigurationError(msg)
        self._max_bytes = max_bytes
        self._clock = clock
        self._held: _Held | None = None
        self._failures = 0
        self._attempted_at = float("-inf")
        self._asked_for_unknown_at = float("-inf")
        # The fetch in flight, one for each event loop: a task of a loop that has ended never ends.
        self._flights: dict[asyncio.AbstractEventLoop, _Flight] = {}

    async def __aenter__(self) -> Self:
        """Fetch the keys, see ``start``."""
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End what is in flight."""
        await self.aclose()

    async def start(self) -> None:
        """Fetch the keys now, so that no request waits for them.

        An issuer that is away does not keep the application from starting: it is logged, and the requests ask again.
        """
        try:
            await self.refresh()
        except ServiceUnavailable:
            logger.warning("started without the keys at %s: requests are answered 503 until they are there", self.url)

    async def refresh(self) -> None:
        """Fetch the keys now, in place of those that are held.

        Raises:
            ServiceUnavailable: That failed; what was held stays.
        """
        await self._replaced()
        if self._failures:
            raise self._unavailable()

    async def aclose(self) -> None:
        """End the fetch that is in flight in this event loop. The keys stay, and may be used and fetched again."""
        flight = self._flight()
        if flight is not None:
            flight.task.cancel()
            await flight.landed()

    def for_algorithms(self, algorithms: Sequence[str]) -> "Selection":
        """Return the source of those keys that fit ``algorithms``, as a JWTConfig asks for it."""
        return Selection(self, tuple(algorithms))

    def current(self) -> tuple[Key, ...] | None:
        """Return the keys that may be used at once, and begin to refresh them where that is due.

        ``None`` where a request has to wait: nothing was fetched yet, or it is older than it may be while nobody knows
        whether the issuer is away.
        """
        held = self._held
        if held is None:
            return None
        age = self._clock() - held.at
        if age < held.refresh_after:
            return held.keys
        if age >= held.ttl and not (self._is_failing() and age < held.ttl + self._stale_for):
            return None
        if self._flight() is None and self._pause() <= 0:
            self._begin(adding=False)
        return held.keys

    async def load(self) -> tuple[Key, ...]:
        """Return usable keys, fetched if need be.

        Raises:
            ServiceUnavailable: There are none: the issuer is away, longer than ``stale_for`` where it was there before.
        """
        if self.current() is None and (self._pause() <= 0 or self._flight() is not None):
            await self._replaced()
        return self._usable()

    async def load_unknown(self, kid: str | None) -> tuple[Key, ...]:
        """Return usable keys, after at most one fetch in a cooldown for the sake of a ``kid`` that they lack.

        Raises:
            ServiceUnavailable: Whether the issuer has such a key cannot be found out now.
        """
        for _ in range(2):  # what is in flight already may have left before the key was there
            if self._held is not None and self._held.knows(kid):
                return self._usable()
            flight = self._flight()
            if flight is None:
                now = self._clock()
                if now - self._asked_for_unknown_at < self._cooldown:
                    break
                self._asked_for_unknown_at = now
                flight = self._begin(adding=True)
            await flight.landed()
        if self._failures and not (self._held is not None and self._held.knows(kid)):
            raise self._unavailable(self._asked_for_unknown_at + self._cooldown - self._clock())
        return self._usable()

    async def read(self) -> Document:
        """Fetch the JWK Set.

        Raises:
            FetchError: It did not come.
        """
        return await fetch(self.url, client=self._client, timeout_seconds=self._timeout, max_bytes=self._max_bytes)

    async def _replaced(self) -> None:
        flight = self._flight()
        if flight is not None and flight.adding:
            await flight.landed()
            flight = self._flight()
        await (flight or self._begin(adding=False)).landed()

    def _flight(self) -> _Flight | None:
        return self._flights.get(asyncio.get_running_loop())

    def _begin(self, *, adding: bool) -> _Flight:
        loop = asyncio.get_running_loop()
        for dead in [each for each in self._flights if each.is_closed()]:
            del self._flights[dead]
        # In a context of its own: nothing of the request that caused it, such as its trace, goes with it.
        task = loop.create_task(self._fetch(adding=adding), context=Context())
        flight = self._flights[loop] = _Flight(task, adding)
        task.add_done_callback(lambda _: self._flights.pop(loop, None))
        return flight

    async def _fetch(self, *, adding: bool) -> None:
        started, succeeded = self._clock(), False
        try:
            async with asyncio.timeout(self._timeout):
                document = await self.read()
            self._take(document, started, adding=adding)
            succeeded = True
        except Exception as error:  # noqa: BLE001 - whatever the way to the issuer provokes, the keys stay
            logger.warning("the keys at %s stay as they are: %s", self.url, _cause(error))
        finally:  # also where it is cancelled
            self._failures = 0 if succeeded else self._failures + 1
            self._attempted_at = self._clock()

    def _take(self, document: Document, at: float, *, adding: bool) -> None:
        keys = _keys_in(document.value)
        held = self._held
        if adding and held is not None and at - held.at < held.ttl:
            known = {_identity(key) for key in held.keys}
            added = tuple(key for key in keys if _identity(key) not in known)
            if added:
                self._held = replace(held, keys=held.keys + added)
            return
        if held is not None and [*map(_identity, held.keys)] == [*map(_identity, keys)]:
            keys = held.keys  # the same object: tokens verified with it stay verified
        said = self._max_ttl if document.max_age_seconds is None else document.max_age_seconds
        ttl = min(max(said, self._min_ttl), self._max_ttl)
        self._held = _Held(keys, at, ttl, ttl * _AHEAD)

    def _usable(self) -> tuple[Key, ...]:
        held = self._held
        if held is None or self._clock() - held.at >= held.ttl + self._stale_for:
            raise self._unavailable()
        return held.keys

    def _is_failing(self) -> bool:
        # With traffic there is an attempt at least this often. Without, what failed long ago says nothing about now.
        recently = 2 * self._cooldown + self._timeout
        return self._failures > 0 and self._clock() - self._attempted_at <= recently

    def _pause(self) -> float:
        """Return the seconds until the next attempt is due."""
        if self._failures <= _FAILURES_WITHOUT_PAUSE:
            return 0.0
        doublings = min(self._failures - _FAILURES_WITHOUT_PAUSE - 1, _MAX_DOUBLINGS)
        doubled = _FIRST_PAUSE_SECONDS * (1 << doublings)
        pause = min(doubled, self._cooldown)
        return self._attempted_at + pause - self._clock()

    def _unavailable(self, pause: float = 0.0) -> ServiceUnavailable:
        return ServiceUnavailable(retry_after=max(1.0, pause, self._pause()), reason="keys_unreachable")


class Selection:
    """The keys of a RemoteKeySet that fit the algorithms of one configuration; a KeySource."""

    def __init__(self, keys: RemoteKeySet, algorithms: tuple[str, ...]) -> None:
        """Select from ``keys``."""
        self._remote = keys
        self._algorithms = algorithms
        self._selected_from: tuple[Key, ...] | None = None
        self._selected = VerificationKeys((), algorithms)

    def peek(self) -> VerificationKeys | None:
        """Return the keys that can be used at once, ``None`` where they have to be loaded."""
        keys = self._remote.current()
        if keys is self._selected_from and keys is not None:
            return self._selected
        return None if keys is None else self._select(keys)

    async def load(self, header: Header | None = None) -> VerificationKeys:
        """Return usable keys; ``header`` is that of a token for which ``peek()`` had none.

        Raises:
            ServiceUnavailable: There are none now.
        """
        if header is None:
            return self._select(await self._remote.load())
        return self._select(await self._remote.load_unknown(header.kid))

    def _select(self, keys: tuple[Key, ...]) -> VerificationKeys:
        if keys is not self._selected_from:
            self._selected = VerificationKeys(keys, self._algorithms)
            self._selected_from = keys
        return self._selected


def _keys_in(document: object) -> tuple[Key, ...]:
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        msg = "it is no JWK Set"
        raise FetchError(msg)
    keys = tuple(key for key in usable_keys(document, ASYMMETRIC) if VerificationKeys([key], ASYMMETRIC))
    # An issuer may withdraw all its keys. One that lists keys of which none can be used says something else.
    if entries and not keys:
        msg = "none of its keys can be used"
        raise FetchError(msg)
    return keys


def _identity(key: Key) -> str:
    return json.dumps(key.as_dict(private=False), sort_keys=True)


def _cause(error: Exception) -> str:
    # The text of a FetchError is ours; that of anything else may be anybody's.
    return str(error) if isinstance(error, FetchError) else type(error).__name__


def _bounds(least: float | timedelta | None, most: float | timedelta | None) -> tuple[float, float]:
    max_ttl = _DEFAULT_MAX_TTL if most is None else _seconds("max_ttl", most)
    min_ttl = min(_DEFAULT_MIN_TTL, max_ttl) if least is None else _seconds("min_ttl", least)
    if most is None:
        max_ttl = max(max_ttl, min_ttl)
    if min_ttl > max_ttl:
        msg = f"min_ttl {min_ttl} is more than max_ttl {max_ttl}"
        raise ConfigurationError(msg)
    return min_ttl, max_ttl


def _seconds(name: str, value: float | timedelta) -> float:
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < float("inf"):
        msg = f"{name} is a number of seconds from 0, or a timedelta, not {value!r}"
        raise ConfigurationError(msg)
    return float(seconds)
