"""Count attempts in moving windows, in this process or in Redis.

The notation of rates, and the windows in Redis, are those of ``limits``. The windows in memory are our own: those of
``limits`` look through every key in a task or a thread at each attempt, which is work that any client can multiply.
"""

import math
import time
from asyncio import AbstractEventLoop, Semaphore, get_running_loop
from asyncio import timeout as deadline
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from functools import partial
from hashlib import sha256
from importlib.util import find_spec
from threading import Lock
from typing import Any, Final, Protocol

from fastapi_guard.exceptions import ConfigurationError, MissingExtraError, shown
from fastapi_guard.stores.arguments import clock_of
from fastapi_guard.stores.hidden import plain

try:
    from limits import RateLimitItem, parse, parse_many
    from limits.aio.storage import Storage
    from limits.aio.strategies import MovingWindowRateLimiter
    from limits.errors import ConfigurationError as LimitsConfigurationError
    from limits.storage import storage_from_string
except ImportError:
    raise MissingExtraError("limits", "throttle") from None

# A client of Redis tries again for a while, and a login should not wait for it.
_TIMEOUT_SECONDS: Final = 2
# Fewer than the connections of a client of Redis, which are 100.
_SLOTS: Final = 50
_SYSTEM_CLOCK: Final = time.time
# About 20 MB.
_MAX_KEYS: Final = 100_000


class Windows(Protocol):
    """A place where attempts are counted."""

    async def hit(self, rate: RateLimitItem, key: str) -> float | None:
        """Count one attempt; return ``None``, or the seconds until the next is allowed where it is one too many."""
        ...  # pragma: no cover

    async def clear(self, rate: RateLimitItem, key: str) -> None:
        """Forget the attempts."""
        ...  # pragma: no cover

    async def aclose(self) -> None:
        """Close the connections that were opened for it."""
        ...  # pragma: no cover


def rate_of(text: str) -> RateLimitItem:
    """Return a rate in the notation of limits: ``5/15 minutes``, ``100 per hour``.

    Raises:
        ConfigurationError: The text is not a rate, allows nothing, or is several rates.
    """
    try:
        rate = parse(text) if isinstance(text, str) else None
    except ValueError:
        rate = None
    if rate is None:
        msg = f'a rate is such as "5/15 minutes" or "100 per hour", not {shown(text)}'
        raise ConfigurationError(msg)
    if rate.amount < 1 or len(parse_many(text)) > 1:
        msg = "this rate allows nothing, or is more than one rate: use a Throttle for each"
        raise ConfigurationError(msg)
    return rate


def windows_in(storage: str | Storage, clock: Callable[[], float], timeout: timedelta | float | None = None) -> Windows:
    """Return the windows in ``storage``: ``memory://``, a URL of Redis, or an asynchronous storage of limits.

    Args:
        storage: Where attempts are counted.
        clock: Seconds since the epoch, for the windows in memory; by default a monotonic clock.
        timeout: How long a storage other than memory may take for one attempt; 2 seconds by default.

    Raises:
        ConfigurationError: The storage is none of these, or the timeout is not positive or belongs to memory.
        MissingExtraError: The extra ``redis`` is not installed.
    """
    storage = plain(storage)
    if timeout is not None and storage == "memory://":
        msg = "timeout belongs to a storage outside of this process: windows in memory wait for nothing"
        raise ConfigurationError(msg)
    seconds = _TIMEOUT_SECONDS if timeout is None else _seconds(timeout)
    if not isinstance(storage, str):
        return StoredWindows(storage, seconds)
    if storage == "memory://":
        return MemoryWindows(clock=clock)
    if not storage.startswith(("redis://", "rediss://", "redis+unix://")):
        msg = "storage is memory://, a URL of Redis, or an asynchronous storage of limits"
        raise ConfigurationError(msg)
    try:
        return StoredWindows(_redis(storage), seconds, partial(_redis, storage))
    except LimitsConfigurationError:
        msg = "limits does not accept this URL of Redis: write redis://host:port/number"  # it may have a password in it
        raise ConfigurationError(msg) from None


def _redis(url: str) -> Storage:
    if find_spec("redis") is None:
        raise MissingExtraError("redis", "redis")
    from redis.asyncio.retry import Retry  # noqa: PLC0415 - windows in memory do not need it
    from redis.backoff import NoBackoff  # noqa: PLC0415

    # A connection that Redis closed while it was idle, as when it was restarted, is opened again, once and at once.
    # limits passes the options on to the client.
    options: dict[str, Any] = {"retry": Retry(NoBackoff(), 1)}
    built = storage_from_string(f"async+{url}", implementation="redispy", **options)
    assert isinstance(built, Storage)  # noqa: S101 - by its URL
    return built


def _seconds(timeout: timedelta | float) -> float:
    seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < math.inf:
        msg = f"timeout is a positive duration, such as timedelta(seconds=2), not {shown(timeout)}"
        raise ConfigurationError(msg)
    return seconds


class MemoryWindows:
    """Moving windows in this process, of a bounded number of keys.

    A key that was not hit for a whole window is forgotten. Where there are too many, the oldest of those that were hit
    once is forgotten first: a flood of new keys does not make it forget a key under attack.
    """

    def __init__(self, *, max_keys: int = _MAX_KEYS, clock: Callable[[], float] = time.time) -> None:
        """Count at most ``max_keys`` keys, by ``clock``, in seconds since the epoch.

        The clock of the system may be set back or forward, which would extend a window or end it: in its place the
        monotonic one counts.
        """
        self._max_keys = max_keys
        self._clock = time.monotonic if clock is _SYSTEM_CLOCK else clock_of(clock)
        self._lock = Lock()
        # By the last hit, the oldest first; one Throttle has one rate.
        self._once: dict[bytes, tuple[float, ...]] = {}
        self._often: dict[bytes, tuple[float, ...]] = {}

    async def hit(self, rate: RateLimitItem, key: str) -> float | None:
        """Count one attempt; return ``None``, or the seconds until the next is allowed where it is one too many."""
        now, window, short = self._clock(), rate.get_expiry(), _short(key)
        with self._lock:
            for hits in (self._once, self._often):
                while hits and next(iter(hits.values()))[-1] <= now - window:
                    del hits[next(iter(hits))]
            before = self._once.get(short) or self._often.get(short) or ()
            recent = tuple(moment for moment in before if moment > now - window)
            if len(recent) >= rate.amount:
                return recent[0] + window - now
            self._once.pop(short, None)
            self._often.pop(short, None)
            if len(self._once) + len(self._often) >= self._max_keys:
                hits = self._once or self._often
                del hits[next(iter(hits))]
            (self._often if len(recent) + 1 >= min(2, rate.amount) else self._once)[short] = (*recent, now)
            return None

    async def clear(self, rate: RateLimitItem, key: str) -> None:  # noqa: ARG002 - one rate
        """Forget the attempts."""
        with self._lock:
            self._once.pop(_short(key), None)
            self._often.pop(_short(key), None)

    async def aclose(self) -> None:
        """Close nothing."""


class StoredWindows:
    """Moving windows of limits, in a storage that the workers share."""

    def __init__(self, storage: Storage, timeout_seconds: float, make: Callable[[], Storage] | None = None) -> None:
        """Count in ``storage``, for at most ``timeout_seconds`` an attempt.

        Args:
            storage: The storage.
            timeout_seconds: Seconds.
            make: Makes another like it. Then each event loop has its own, since connections of one loop are useless in
                another, as after a fork; ``aclose`` closes it.

        Raises:
            ConfigurationError: It has no moving windows.
        """
        self._storage = storage
        self._make = make
        self._timeout_seconds = timeout_seconds
        self._loops: dict[AbstractEventLoop, _Loop] = {}
        try:
            MovingWindowRateLimiter(storage)
        except (NotImplementedError, AssertionError) as error:
            msg = "storage has moving windows and is asynchronous, as limits.aio.storage.RedisStorage is"
            raise ConfigurationError(msg) from error

    async def hit(self, rate: RateLimitItem, key: str) -> float | None:
        """Count one attempt; return ``None``, or the seconds until the next is allowed where it is one too many."""
        here = self._here()
        async with deadline(self._timeout_seconds), here.slots:
            if await here.limiter.hit(rate, key):
                return None
            reset, _ = await here.limiter.get_window_stats(rate, key)
        return reset - time.time()

    async def clear(self, rate: RateLimitItem, key: str) -> None:
        """Forget the attempts."""
        here = self._here()
        async with deadline(self._timeout_seconds), here.slots:
            await here.limiter.clear(rate, key)

    async def is_reachable(self) -> bool:
        """Return whether the storage responds in time; nothing is counted."""
        here = self._here()
        with suppress(TimeoutError):
            async with deadline(self._timeout_seconds), here.slots:
                return await here.storage.check()
        return False

    async def aclose(self) -> None:
        """Close the client of this event loop, where the storage was made for it."""
        here = self._loops.pop(get_running_loop(), None)
        if here is not None and self._make is not None:
            client: Any = here.storage
            await client.bridge.get_connection().aclose()

    def _here(self) -> "_Loop":
        loop = get_running_loop()
        here = self._loops.get(loop)
        if here is None:
            for closed in [other for other in self._loops if other.is_closed()]:
                del self._loops[closed]
            here = self._loops[loop] = _Loop(self._storage if self._make is None else self._make())
        return here


class _Loop:
    """The storage of an event loop, and how many attempts may be counted in it at a time."""

    def __init__(self, storage: Storage) -> None:
        """Count in ``storage``."""
        self.storage = storage
        self.limiter = MovingWindowRateLimiter(storage)
        # A client of Redis has a limited number of connections, and raises where more are wanted at once.
        self.slots = Semaphore(_SLOTS)


def _short(key: str) -> bytes:
    return sha256(key.encode()).digest()[:16]
