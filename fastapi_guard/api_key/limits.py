"""The limits of a key, as arithmetic and as header fields: a rate in moving windows, a quota that is refilled.

The notation of a rate is that of ``limits``: ``100/minute``, ``5 per 15 minutes; 1000/day``. The header fields are
those of the IETF draft "RateLimit header fields for HTTP" (draft-ietf-httpapi-ratelimit-headers).
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, chain
from math import ceil, floor
from typing import Any, Final, NamedTuple, Self

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastapi_guard.stores.values import check_counts, check_moments, decoded

# The key of the limits of a request in its state: request.state.rate_limits.
RATE_LIMITS: Final = "rate_limits"
# Of a structured field (RFC 9651 3.3.1): with a larger one, the whole field cannot be read.
LARGEST_INTEGER: Final = 10**15 - 1
# A month of 30 days and a year of 12 months, as in limits.
_UNIT_SECONDS: Final = {
    "second": 1,
    "minute": 60,
    "hour": 3600,
    "day": 86_400,
    "month": 30 * 86_400,
    "year": 360 * 86_400,
}
_RATE: Final = re.compile(
    rf"\s*([0-9]{{1,9}})\s*(?:/|per)\s*([0-9]{{1,5}})?\s*({'|'.join(_UNIT_SECONDS)})s?\s*",
    # ASCII alone: among all letters, the case of others is that of s and k too.
    re.IGNORECASE | re.ASCII,
)
_SEPARATORS: Final = re.compile("[,;|]")
_MAX_RATES: Final = 4
# A window has so many moments: up to this rate one for each request, beyond it one for each 256th of the window.
_MAX_MOMENTS: Final = 256
# When to come back where a quota is never refilled: an operator may raise it.
_ONE_DAY: Final = 86_400


class Rate(NamedTuple):
    """At most ``amount`` requests in any ``seconds``."""

    amount: int
    seconds: int


def parse_rate(text: str | None) -> tuple[Rate, ...]:
    """Return the rates in a text; none for ``None``.

    Raises:
        ValueError: The text has another form, a rate of nothing, or more than four rates.
    """
    if text is None:
        return ()
    rates = []
    for part in _SEPARATORS.split(text):
        found = _RATE.fullmatch(part)
        amount, multiple = (0, 0) if found is None else (int(found[1]), int(found[2] or 1))
        if found is None or not amount or not multiple:
            msg = "rate is a number of requests in a time, such as 100/minute, 5 per 15 minutes or 10/second; 1000/day"
            raise ValueError(msg)
        rates.append(Rate(amount, multiple * _UNIT_SECONDS[found[3].lower()]))
    if len(rates) > _MAX_RATES:
        msg = f"rate has at most {_MAX_RATES} parts"
        raise ValueError(msg)
    return tuple(rates)


def check_rate(text: str) -> str:
    """Return a text that ``parse_rate`` reads.

    Raises:
        ValueError: See ``parse_rate``.
    """
    parse_rate(text)
    return text


class LimitState(NamedTuple):
    """One limit after a request was counted, or refused.

    Attributes:
        name: ``rate``, ``rate-2``, ..., ``quota``.
        amount: How many requests it allows.
        seconds: In which time; ``None`` for a quota that is never refilled.
        remaining: How many it allows now.
        reset_seconds: The time after which it allows more; ``None`` for never.
    """

    name: str
    amount: int
    seconds: int | None
    remaining: int
    reset_seconds: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """The limits of one key.

    Attributes:
        rates: Each with a moving window.
        quota: How many requests in a period, or in all.
        quota_seconds: The period, ``None`` for a quota that is never refilled. Periods are counted from the epoch, so
            that a key that replaces another goes on in the same period.
    """

    rates: tuple[Rate, ...] = ()
    quota: int | None = None
    quota_seconds: int | None = None


@dataclass(slots=True)
class Counts:
    """The requests that were counted for a key.

    Attributes:
        windows: For each rate the moments of its window, in seconds since the epoch, each with a number of requests.
        begin: When the period began in which ``spent`` was counted, in seconds since the epoch; 0 without periods.
        spent: The requests in that period.
    """

    windows: list[list[tuple[float, int]]] = field(default_factory=list)
    begin: int = 0
    spent: int = 0

    @classmethod
    def decode(cls, value: bytes) -> Self:
        """Return the counts in a record's value.

        Raises:
            ServiceUnavailable: It cannot be read: whether a request is allowed is unknown until the key is refilled.
        """
        return decoded(value, cls._read, "the usage of an API key")

    @classmethod
    def _read(cls, members: list[Any]) -> Self:
        windows, begin, spent = members
        # An empty object in the place of a window would be one without requests.
        if not all(isinstance(part, list) for part in (windows, *windows)):
            msg = "a window is a list"
            raise TypeError(msg)
        counts = cls([[(moment, number) for moment, number in window] for window in windows], begin, spent)
        counted = list(chain(*counts.windows))
        check_moments(*[moment for moment, _ in counted])
        check_counts(begin, spent, *[number for _, number in counted])
        return counts

    def encode(self) -> bytes:
        """Return them as the value of a record."""
        return json.dumps([self.windows, self.begin, self.spent], separators=(",", ":")).encode("ascii")

    def spend(self, limits: Limits, wanted: int, now: float) -> int:
        """Count up to ``wanted`` requests at ``now``; return how many the limits allow."""
        # Where a rate was added or its time was changed, its window begins again; of fewer rates the last is dropped.
        self.windows = [*self.windows, *([] for _ in limits.rates)][: len(limits.rates)]
        for window, rate in zip(self.windows, limits.rates, strict=True):
            window[:] = [(moment, number) for moment, number in window if moment > now - rate.seconds]
        seconds = limits.quota_seconds
        begin = 0 if seconds is None else max(0, floor(now / seconds) * seconds)
        if begin > self.begin:
            self.begin, self.spent = begin, 0
        granted = max(0, min([wanted, *(state.remaining for state in self.states(limits, now))]))
        if granted:
            for window, rate in zip(self.windows, limits.rates, strict=True):
                _append(window, rate, granted, now)
            self.spent += granted
        return granted

    def states(self, limits: Limits, now: float) -> list[LimitState]:
        """Return each limit as it is at ``now``, after ``spend``."""
        states = []
        for number, (window, rate) in enumerate(zip(self.windows, limits.rates, strict=True), 1):
            spent = sum(count for _, count in window)
            remaining = max(0, rate.amount - spent)
            reset = _first_ended(window, spent - rate.amount) + rate.seconds - now if window else rate.seconds
            name = "rate" if number == 1 else f"rate-{number}"
            states.append(LimitState(name, rate.amount, rate.seconds, remaining, reset))
        if limits.quota is not None:
            seconds = limits.quota_seconds
            until_full = None if seconds is None else self._end(seconds) - now
            remaining = max(0, limits.quota - self.spent)
            states.append(LimitState("quota", limits.quota, seconds, remaining, until_full))
        return states

    def expires_at(self, limits: Limits, now: float) -> float | None:
        """Return when they can be forgotten, in seconds since the epoch; ``None`` for never."""
        if limits.quota is not None and limits.quota_seconds is None:
            return None
        ends = [now + 2 * rate.seconds for rate in limits.rates]
        if limits.quota_seconds is not None:
            ends.append(self._end(limits.quota_seconds))
        return max(ends, default=now)

    def _end(self, seconds: int) -> int:
        # By the period of the key as it is now, which may be longer than that in which the requests were counted.
        return (self.begin // seconds + 1) * seconds


def _append(window: list[tuple[float, int]], rate: Rate, number: int, now: float) -> None:
    # Requests of one step count as if they had come at its end: never too many in a window, at the price of a step.
    step = rate.seconds / _MAX_MOMENTS
    moment = now if rate.amount <= _MAX_MOMENTS else ceil(now / step) * step
    if window and window[-1][0] >= moment:
        window[-1] = (window[-1][0], window[-1][1] + number)
    else:
        window.append((moment, number))


def _first_ended(window: list[tuple[float, int]], excess: int) -> float:
    # More than are allowed there are only where the rate was lowered.
    ended = accumulate(number for _, number in window)
    return next(moment for (moment, _), number in zip(window, ended, strict=True) if number > excess)


def retry_after(states: Iterable[LimitState]) -> float:
    """Return after how many seconds a refused request may come again."""
    return max(
        _ONE_DAY if state.reset_seconds is None else state.reset_seconds for state in states if not state.remaining
    )


def header_fields(states: Sequence[LimitState]) -> dict[str, str]:
    """Return the fields ``RateLimit-Policy`` and ``RateLimit`` for the limits of a key (RFC 9651 lists)."""
    policies, current = [], []
    for state in states:
        window = "" if state.seconds is None else f";w={_integer(state.seconds)}"
        until = "" if state.reset_seconds is None else f";t={max(1, _integer(state.reset_seconds))}"
        policies.append(f'"{state.name}";q={_integer(state.amount)}{window}')
        current.append(f'"{state.name}";r={_integer(state.remaining)}{until}')
    return {"RateLimit-Policy": ", ".join(policies), "RateLimit": ", ".join(current)}


def _integer(number: float) -> int:
    return min(ceil(number), LARGEST_INTEGER)


class RateLimitFields:
    """Middleware that adds the RateLimit fields to responses: ``app.add_middleware(RateLimitFields)``.

    The response to a request with an API key that has a rate or a quota gets ``RateLimit-Policy`` and ``RateLimit``. A
    429 has them without this middleware too.
    """

    def __init__(self, app: ASGIApp) -> None:
        """Wrap ``app``."""
        self.app: ASGIApp = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, and add the fields where its guard has counted it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        # The same dict for whatever copies the scope below.
        state = scope.setdefault("state", {})

        async def send_with_fields(message: Message) -> None:
            if message["type"] == "http.response.start" and state.get(RATE_LIMITS):
                headers = MutableHeaders(scope=message)
                for name, value in header_fields(state[RATE_LIMITS]).items():
                    headers.setdefault(name, value)
            await send(message)

        await self.app(scope, receive, send_with_fields)
