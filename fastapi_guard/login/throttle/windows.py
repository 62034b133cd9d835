"""Where it is counted who did something how often: moving windows, in this process or in Redis.

The notation of rates, and the windows in Redis, are those of ``limits``. The windows in memory are our own: those of
``limits`` look through every key in a task or a thread at each hit, which is work that a stranger can multiply.
"""

import math
import time
from asyncio import timeout as deadline
from collections import OrderedDict, deque
from collections.abc import Callable
from datetime import timedelta
from importlib.util import find_spec
from threading import Lock
from typing import Any, Final, Protocol

from fastapi_guard.exceptions import ConfigurationError, MissingExtraError

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


class Windows(Protocol):
    """Where it is counted who did something how often."""

    async def hit(self, rate: RateLimitItem, key: str) -> float | None:
        """Count one; return ``None``, or where that is too many the seconds until the next is not."""
        ...  # pragma: no cover

    async def clear(self, rate: RateLimitItem, key: str) -> None:
        """Forget what was counted."""
        ...  # pragma: no cover

    async def aclose(self) -> None:
        """Close what was opened for it."""
        ...  # pragma: no cover


def rate_of(text: str) -> RateLimitItem:
    """Return a rate in the notation of limits: ``5/15 minutes``, ``100 per hour``.

    Raises:
        ConfigurationError: It is none, allows nothing, or is several.
    """
    try:
        rate = parse(text)
    except ValueError:
        msg = f'{text!r} is no rate, such as "5/15 minutes" or "100 per hour"'
        raise ConfigurationError(msg) from None
    if rate.amount < 1 or len(parse_many(text)) > 1:
        msg = f"{text!r} allows nothing, or is more than one rate: use a Throttle for each"
        raise ConfigurationError(msg)
    return rate


def windows_in(storage: str | Storage, clock: Callable[[], float], timeout: timedelta | float | None = None) -> Windows:
    """Return the windows in ``storage``: ``memory://``, a URL of Redis, or an asynchronous storage of limits.

    Args:
        storage: Where attempts are counted.
        clock: Seconds since the epoch, for the windows in memory.
        timeout: How long a storage other than memory may take for one attempt; 2 seconds by default.

    Raises:
        ConfigurationError: The storage is none of these, or the timeout is not positive or belongs to memory.
        MissingExtraError: The extra ``redis`` is not installed.
    """
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
        built = storage_from_string(f"async+{storage}", implementation="redispy")
    except LimitsConfigurationError:
        if find_spec("redis") is None:
            raise MissingExtraError("redis", "redis") from None
        msg = "limits does not take this URL of Redis: write redis://host:port/number"  # it may hold a password
        raise ConfigurationError(msg) from None
    assert isinstance(built, Storage)  # noqa: S101 - the scheme says so
    return StoredWindows(built, seconds, close=True)


def _seconds(timeout: timedelta | float) -> float:
    seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < math.inf:
        msg = f"timeout is a positive duration, such as timedelta(seconds=2), not {timeout!r}"
        raise ConfigurationError(msg)
    return seconds


class MemoryWindows:
    """Moving windows in this process. A key that was not hit for a whole window is forgotten."""

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        """Tell the time by ``clock``, in seconds since the epoch."""
        self._clock = clock
        self._lock = Lock()
        # By the last hit, the oldest first; one Throttle has one rate.
        self._hits: OrderedDict[str, deque[float]] = OrderedDict()

    async def hit(self, rate: RateLimitItem, key: str) -> float | None:
        """Count one; return ``None``, or where that is too many the seconds until the next is not."""
        now, window = self._clock(), rate.get_expiry()
        with self._lock:
            while self._hits and next(iter(self._hits.values()))[-1] <= now - window:
                self._hits.popitem(last=False)
            hits = self._hits.setdefault(key, deque())
            while hits and hits[0] <= now - window:
                hits.popleft()
            if len(hits) >= rate.amount:
                return hits[0] + window - now
            hits.append(now)
            self._hits.move_to_end(key)
            return None

    async def clear(self, rate: RateLimitItem, key: str) -> None:  # noqa: ARG002 - one rate
        """Forget what was counted."""
        with self._lock:
            self._hits.pop(key, None)

    async def aclose(self) -> None:
        """Close nothing."""


class StoredWindows:
    """Moving windows of limits, in a storage that the workers share."""

    def __init__(self, storage: Storage, timeout_seconds: float, *, close: bool = False) -> None:
        """Count in ``storage``, for at most ``timeout_seconds`` an attempt; with ``close``, `aclose` closes it.

        Raises:
            ConfigurationError: It has no moving windows.
        """
        self._storage = storage if close else None
        self._timeout_seconds = timeout_seconds
        try:
            self._limiter = MovingWindowRateLimiter(storage)
        except (NotImplementedError, AssertionError) as error:
            msg = "storage has moving windows and is asynchronous, as limits.aio.storage.RedisStorage is"
            raise ConfigurationError(msg) from error

    async def hit(self, rate: RateLimitItem, key: str) -> float | None:
        """Count one; return ``None``, or where that is too many the seconds until the next is not."""
        async with deadline(self._timeout_seconds):
            if await self._limiter.hit(rate, key):
                return None
            reset, _ = await self._limiter.get_window_stats(rate, key)
        return reset - time.time()

    async def clear(self, rate: RateLimitItem, key: str) -> None:
        """Forget what was counted."""
        async with deadline(self._timeout_seconds):
            await self._limiter.clear(rate, key)

    async def aclose(self) -> None:
        """Close the client, where the storage was made for this."""
        if self._storage is not None:
            client: Any = self._storage
            await client.bridge.get_connection().aclose()
