"""The arithmetic of rates and quotas."""

from collections import deque
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from limits import parse_many
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from fastapi_guard.api_key.limits import (
    RATE_LIMITS,
    Counts,
    Limits,
    LimitState,
    Rate,
    RateLimitFields,
    check_rate,
    header_fields,
    parse_rate,
    retry_after,
)
from support.asgi import call_scope

NOW = 1_800_000_000.25
DAY = 86_400


@pytest.mark.parametrize(
    "text",
    [
        "1/second",
        "100/minute",
        "5 per 15 minutes",
        "10/hour",
        "1000 per 2 days",
        "3/months",
        "9 PER Year",
        "10/second; 1000/day",
        "1/second,2/minute|3/hour",
        "  7  /  minute ",
    ],
)
def test_rates_as_limits_reads_them(text: str) -> None:
    """The notation is that of limits."""
    assert parse_rate(text) == tuple(Rate(rate.amount, rate.get_expiry()) for rate in parse_many(text))
    assert check_rate(text) == text


@pytest.mark.parametrize(
    "text",
    [
        *("", "5", "0/minute", "5/0 minutes", "-1/minute", "5/fortnight", "1.5/minute", "5/minute;", "\u0661/minute"),
        # In lower case, or in upper case, this letter is an s.
        *("5/\u017fecond", "5/minute\u017f"),
    ],
)
def test_rates_that_are_rejected(text: str) -> None:
    """Another form, and a rate of nothing, is rejected with an example."""
    with pytest.raises(ValueError, match="such as 100/minute") as error:
        check_rate(text)
    assert str(error.value) == (
        "rate is a number of requests in a time, such as 100/minute, 5 per 15 minutes or 10/second; 1000/day"
    )


def test_too_many_rates() -> None:
    """A key has at most four rates."""
    with pytest.raises(ValueError, match=r"^rate has at most 4 parts$"):
        parse_rate(";".join(["1/minute"] * 5))
    assert parse_rate(";".join(["1/minute"] * 4)) == (Rate(1, 60),) * 4
    assert parse_rate(None) == ()


@given(
    amount=st.integers(1, 300),
    seconds=st.integers(1, 100),
    steps=st.lists(st.tuples(st.floats(0, 50), st.integers(1, 80)), max_size=60),
)
def test_never_more_than_the_rate_in_any_window(amount: int, seconds: int, steps: list[tuple[float, int]]) -> None:
    """No window has more requests than the rate, and none is refused that an exact window would allow.

    Beyond 256 requests a window is exact to a 256th of it.
    """
    limits, counts, now = Limits(rates=(Rate(amount, seconds),)), Counts(), NOW
    exact: deque[float] = deque()
    for pause, wanted in steps:
        now += pause
        granted = counts.spend(limits, wanted, now)
        while exact and exact[0] <= now - seconds:
            exact.popleft()
        assert granted <= amount - len(exact)
        assert amount > 256 or granted == min(wanted, amount - len(exact))
        exact.extend([now] * granted)
        counts = Counts.decode(counts.encode())
        assert len(counts.windows[0]) <= 258


def test_a_rate_of_thousands() -> None:
    """A large rate is kept in few moments, and is full again after its window and a 256th of it."""
    limits, counts = Limits(rates=(Rate(10_000, 60),)), Counts()
    for number in range(6000):
        assert counts.spend(limits, 2, NOW + number / 100) == (2 if number < 5000 else 0)
    assert len(counts.windows[0]) < 260
    assert counts.spend(limits, 10_000, NOW + 50 + 60 + 60 / 256) == 10_000


def test_several_rates() -> None:
    """The tightest rate decides."""
    limits, counts = Limits(rates=parse_rate("2/second; 3/minute")), Counts()
    assert [counts.spend(limits, 1, NOW) for _ in range(3)] == [1, 1, 0]
    assert [counts.spend(limits, 1, NOW + 1) for _ in range(2)] == [1, 0]
    assert counts.states(limits, NOW + 1) == [
        LimitState("rate", 2, 1, 1, 1.0),
        LimitState("rate-2", 3, 60, 0, 59.0),
    ]
    # A rate that was taken away or added leaves the counts of the others.
    assert counts.spend(Limits(rates=parse_rate("2/second")), 1, NOW + 3) == 1
    assert counts.spend(Limits(rates=parse_rate("2/second; 3/minute")), 5, NOW + 3) == 1


def test_a_quota_with_a_period() -> None:
    """A quota is full again at the start of each period, which is counted from the epoch."""
    limits, counts, start = Limits(quota=3, quota_seconds=DAY), Counts(), NOW // DAY * DAY
    assert [counts.spend(limits, 2, start + 1), counts.spend(limits, 2, start + 2)] == [2, 1]
    assert counts.states(limits, start + 2) == [LimitState("quota", 3, DAY, 0, DAY - 2)]
    assert counts.expires_at(limits, start + 2) == start + DAY
    assert counts.spend(limits, 1, start + DAY - 0.1) == 0
    assert counts.spend(limits, 5, start + DAY) == 3
    # A clock that is set back opens no period again.
    assert counts.spend(limits, 1, start + 3) == 0
    assert counts.spend(limits, 1, -10) == 0


def test_a_quota_whose_period_is_changed() -> None:
    """A period that was made longer, shorter or endless goes on with what was spent, and ends as the new one does."""
    limits, counts, start = Limits(quota=3, quota_seconds=3600), Counts(), NOW // DAY * DAY + 2 * 3600
    assert counts.spend(limits, 1, start) == 1
    daily, whole = Limits(quota=3, quota_seconds=DAY), Limits(quota=3)
    assert counts.spend(daily, 1, start + 3600) == 1
    assert counts.states(daily, start + 3600) == [LimitState("quota", 3, DAY, 1, DAY - 3 * 3600)]
    assert counts.expires_at(daily, start + 3600) == NOW // DAY * DAY + DAY
    assert counts.spend(whole, 5, start + 2 * DAY) == 1
    assert counts.spend(daily, 5, start + 2 * DAY) == 3
    assert counts.spend(limits, 5, start + 2 * DAY + 10) == 3


def test_a_quota_without_a_period() -> None:
    """A quota without a period is never refilled, and never forgotten."""
    limits, counts = Limits(quota=1), Counts()
    assert [counts.spend(limits, 1, NOW), counts.spend(limits, 1, NOW + 10 * DAY)] == [1, 0]
    assert counts.states(limits, NOW) == [LimitState("quota", 1, None, 0, None)]
    assert counts.expires_at(limits, NOW) is None


def test_what_is_stored() -> None:
    """A record has the moments of each rate, the start of the period, and what was spent in it."""
    counts = Counts()
    assert counts.spend(Limits(rates=(Rate(5, 60),), quota=9), 2, NOW) == 2
    assert counts.encode() == b"[[[[1800000000.25,2]]],0,2]"


def test_the_first_period() -> None:
    """Periods begin at the epoch."""
    counts, limits = Counts(), Limits(quota=5, quota_seconds=60)
    assert counts.spend(limits, 1, 10) == 1
    assert counts.states(limits, 10) == [LimitState("quota", 5, 60, 4, 50)]
    assert counts.expires_at(limits, 10) == 60


def test_when_counts_are_forgotten() -> None:
    """They are kept for as long as they matter."""
    limits = Limits(rates=parse_rate("5/minute"), quota=9, quota_seconds=DAY)
    counts = Counts()
    counts.spend(limits, 1, NOW)
    assert counts.expires_at(limits, NOW) == NOW // DAY * DAY + DAY
    assert Counts().expires_at(Limits(rates=parse_rate("5/minute")), NOW) == NOW + 120
    assert Counts().expires_at(Limits(), NOW) == NOW


STATES = [LimitState("rate", 5, 60, 0, 12.4), LimitState("quota", 100, None, 7, None)]


@pytest.mark.parametrize(
    ("states", "seconds"),
    [
        (STATES, 12.4),
        ([LimitState("quota", 1, None, 0, None)], DAY),
        ([LimitState("rate", 5, 60, 0, 12.4), LimitState("quota", 5, DAY, 0, 400.0)], 400.0),
    ],
)
def test_when_to_come_back(states: Any, seconds: float) -> None:
    """A refused request may come again when the last of the limits allows it; a day for a quota without a period."""
    assert retry_after(states) == seconds


def test_the_edges_of_a_window() -> None:
    """A request leaves its window at the very second; a limit that is reached never goes below zero."""
    limits, counts = Limits(rates=(Rate(2, 60),), quota=3), Counts()
    assert [counts.spend(limits, 5, NOW), counts.spend(limits, 1, NOW + 59.75)] == [2, 0]
    assert counts.states(limits, NOW + 59.75)[0] == LimitState("rate", 2, 60, 0, 0.25)
    assert counts.spend(limits, 1, NOW + 60) == 1
    lowered = Limits(rates=(Rate(1, 3600),), quota=1)
    assert counts.spend(lowered, 1, NOW + 61) == 0
    assert [state.remaining for state in counts.states(lowered, NOW + 61)] == [0, 0]
    # A rate whose time was changed, and that counted nothing yet, is full after its whole time.
    assert Counts(windows=[[]]).states(Limits(rates=(Rate(5, 60),)), NOW) == [LimitState("rate", 5, 60, 5, 60)]


def test_a_rate_that_was_lowered() -> None:
    """A refused request may come again when the lower rate allows it, and not when the first of many moments ends."""
    counts, lowered = Counts(), Limits(rates=(Rate(2, 60),))
    for second in range(5):
        assert counts.spend(Limits(rates=(Rate(10, 60),)), 1, NOW + second) == 1
    [state] = counts.states(lowered, NOW + 5)
    assert (state.remaining, state.reset_seconds) == (0, 58)
    assert [counts.spend(lowered, 1, NOW + second) for second in (62.75, 63)] == [0, 1]


def test_a_refused_request_costs_nothing() -> None:
    """A request that one limit refuses is counted by no other one."""
    limits, counts = Limits(rates=(Rate(1, 60),), quota=5, quota_seconds=DAY), Counts()
    assert [counts.spend(limits, 1, NOW) for _ in range(3)] == [1, 0, 0]
    assert [state.remaining for state in counts.states(limits, NOW)] == [0, 4]
    assert Counts.decode(counts.encode()) == counts


def test_the_rate_from_which_moments_are_joined() -> None:
    """Up to 256 requests each has its moment; beyond it they count at the end of a 256th of the window."""
    exact, joined = Counts(), Counts()
    for counts, amount in ((exact, 256), (joined, 257)):
        for number in range(2):
            assert counts.spend(Limits(rates=(Rate(amount, 256),)), 1, NOW + number / 10) == 1
    assert exact.windows == [[(NOW, 1), (NOW + 0.1, 1)]]
    assert joined.windows == [[(NOW + 0.75, 2)]]
    # A clock that is set back makes no earlier moment.
    assert exact.spend(Limits(rates=(Rate(256, 256),)), 3, NOW - 5) == 3
    assert exact.windows == [[(NOW, 1), (NOW + 0.1, 4)]]


def test_the_header_fields() -> None:
    """The fields are the lists of the draft: a policy with its quota and window, and what remains until when."""
    assert header_fields(STATES) == {
        "RateLimit-Policy": '"rate";q=5;w=60, "quota";q=100',
        "RateLimit": '"rate";r=0;t=13, "quota";r=7',
    }
    assert header_fields([LimitState("rate", 5, 60, 1, 0.0)])["RateLimit"] == '"rate";r=1;t=1'
    # A larger integer makes a structured field unreadable as a whole.
    assert header_fields([LimitState("quota", 10**16, 10**16, 10**15, 1e15)]) == {
        "RateLimit-Policy": '"quota";q=999999999999999;w=999999999999999',
        "RateLimit": '"quota";r=999999999999999;t=999999999999999',
    }


async def test_fields_without_a_state() -> None:
    """The middleware makes the state of a request where the server has none; what is counted there is shown."""

    async def counted(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"][RATE_LIMITS] = [LimitState("quota", 5, None, 4, None)]
        await PlainTextResponse("")(scope, receive, send)

    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    assert (await call_scope(RateLimitFields(counted), {**scope})).header("ratelimit") == '"quota";r=4'
    assert (await call_scope(RateLimitFields(PlainTextResponse("")), {**scope})).header("ratelimit") is None
