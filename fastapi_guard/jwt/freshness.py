"""Freshness: how long fetched keys are kept, and how often an issuer is asked for them."""

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from datetime import timedelta
from typing import Final, Self

from joserfc.jwk import Key

from fastapi_guard.exceptions import ConfigurationError
from fastapi_guard.jwt.compact import Header
from fastapi_guard.jwt.keys import fits
from fastapi_guard.stores.bounds import seconds_of

_DEFAULT_MIN_TTL: Final = 60.0
_DEFAULT_MAX_TTL: Final = 3600.0
# The part of its lifetime after which a set is refreshed, while it still serves.
_AHEAD: Final = 0.8
# Three failed fetches are each repeated at once, the next after one second, two, four ... up to the cooldown.
_FAILURES_WITHOUT_PAUSE: Final = 3
_FIRST_PAUSE_SECONDS: Final = 1.0
_MAX_DOUBLINGS: Final = 16


@dataclass(frozen=True, slots=True)
class Freshness:
    """The times of a RemoteKeySet, in seconds. ``Freshness.of`` checks what a user passes.

    Attributes:
        min_ttl: The least time that keys are kept.
        max_ttl: The most.
        cooldown: The time between two fetches for the sake of an unknown key.
        stale_for: How much longer keys serve while the issuer is unreachable.
        timeout: The time for one fetch.
    """

    _: KW_ONLY
    min_ttl: float
    max_ttl: float
    cooldown: float
    stale_for: float
    timeout: float

    @classmethod
    def of(
        cls,
        *,
        min_ttl: float | timedelta | None,
        max_ttl: float | timedelta | None,
        cooldown: float | timedelta,
        stale_for: float | timedelta,
        timeout: float | timedelta,
    ) -> Self:
        """Return the settings in seconds. One bound of the lifetime moves the default of the other.

        Raises:
            ConfigurationError: One is not a duration, or the bounds cross.
        """
        most = _DEFAULT_MAX_TTL if max_ttl is None else seconds_of("max_ttl", max_ttl)
        least = min(_DEFAULT_MIN_TTL, most) if min_ttl is None else seconds_of("min_ttl", min_ttl)
        if max_ttl is None:
            most = max(most, least)
        if least > most:
            msg = f"min_ttl {least} is more than max_ttl {most}"
            raise ConfigurationError(msg)
        return cls(
            min_ttl=least,
            max_ttl=most,
            cooldown=seconds_of("cooldown", cooldown),
            stale_for=seconds_of("stale_for", stale_for),
            timeout=seconds_of("timeout", timeout, positive=True),
        )

    def lifetime(self, max_age_seconds: float | None) -> tuple[float, float]:
        """Return the seconds that keys serve, and those after which they are refreshed.

        Args:
            max_age_seconds: The lifetime by Cache-Control, ``None`` without one.
        """
        wanted = self.max_ttl if max_age_seconds is None else max_age_seconds
        ttl = min(max(wanted, self.min_ttl), self.max_ttl)
        return ttl, ttl * _AHEAD


@dataclass(frozen=True, slots=True)
class Held:
    """Fetched keys, with the start of the fetch and their lifetime in seconds.

    Attributes:
        keys: The keys.
        at: When the fetch began.
        ttl: How long they serve.
        refresh_after: After how long they are refreshed.
    """

    keys: tuple[Key, ...]
    at: float
    ttl: float
    refresh_after: float

    def may_verify(self, header: Header) -> bool:
        """Return whether a token with this header may be signed by one of the keys."""
        named = [key for key in self.keys if key.kid == header.kid]
        candidates = self.keys if header.kid is None else named or [key for key in self.keys if key.kid is None]
        return any(fits(key, header.alg) for key in candidates)


class Attempts:
    """The failures in a row, and the pauses that follow from them.

    Attributes:
        failures: The number of failed attempts since the last success.
    """

    def __init__(self, freshness: Freshness, clock: Callable[[], float]) -> None:
        """Count by ``clock``, in seconds from any moment on."""
        self.failures: int = 0
        self._freshness = freshness
        self._clock = clock
        self._last_at = float("-inf")

    def record(self, *, succeeded: bool) -> None:
        """Count an attempt that has ended."""
        self.failures = 0 if succeeded else self.failures + 1
        self._last_at = self._clock()

    def are_failing(self) -> bool:
        """Return whether the issuer is unreachable now, as far as recent attempts show."""
        # With traffic there is an attempt at least this often. Without traffic, an old failure means nothing now.
        recently = 2 * self._freshness.cooldown + self._freshness.timeout
        return self.failures > 0 and self._clock() - self._last_at <= recently

    def pause(self) -> float:
        """Return the seconds until the next attempt is due."""
        if self.failures <= _FAILURES_WITHOUT_PAUSE:
            return 0.0
        doublings = min(self.failures - _FAILURES_WITHOUT_PAUSE - 1, _MAX_DOUBLINGS)
        pause = min(_FIRST_PAUSE_SECONDS * (1 << doublings), self._freshness.cooldown)
        return self._last_at + pause - self._clock()
