"""A bounded cache, and durations in seconds."""

import math
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastapi_guard import ConfigurationError
from fastapi_guard.stores.bounds import BoundedCache, duration_of, seconds_of, whole_seconds_of


def test_the_oldest_entry_is_dropped() -> None:
    """A full cache drops the entry that was put in first; putting one in again makes it the newest."""
    cache: BoundedCache[str, int] = BoundedCache(2)
    for key, value in (("a", 1), ("b", 2), ("a", 3), ("c", 4)):
        cache.put(key, value)
    assert (cache.get("a"), cache.get("b"), cache.get("c"), len(cache)) == (3, None, 4, 2)


def test_entries_are_removed() -> None:
    """`pop` removes one entry and returns it, `clear` removes all; the reading method stays the same."""
    cache: BoundedCache[str, int] = BoundedCache(5)
    read = cache.get
    cache.put("a", 1)
    cache.put("b", 2)
    assert (cache.pop("a"), cache.pop("a"), read("a"), read("b")) == (1, None, None, 2)
    cache.clear()
    assert (read("b"), len(cache)) == (None, 0)


def test_a_cache_of_size_zero() -> None:
    """With size 0 nothing is kept."""
    cache: BoundedCache[str, int] = BoundedCache(0)
    cache.put("a", 1)
    assert (cache.get("a"), len(cache)) == (None, 0)


@pytest.mark.parametrize("size", [-1, 1.0, True, None, "8"])
def test_sizes_that_are_rejected(size: Any) -> None:
    """A size is a whole number from 0."""
    with pytest.raises(ConfigurationError, match="the size of a cache is a whole number of entries from 0"):
        BoundedCache(size)


def test_many_threads() -> None:
    """Threads that put and pop at the same time leave no more than the size, and raise nothing."""
    cache: BoundedCache[int, int] = BoundedCache(8)

    def work(start: int) -> None:
        for number in range(start, start + 2000):
            cache.put(number % 50, number)
            cache.pop(number % 7)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(4)))
    assert len(cache) <= 8


@pytest.mark.parametrize(
    ("duration", "seconds"),
    [(0, 0.0), (1.5, 1.5), (timedelta(minutes=1), 60.0), (timedelta.max, 86399999999999.999999)],
)
def test_seconds(duration: timedelta | float, seconds: float) -> None:
    """A duration is a timedelta or a number of seconds."""
    assert seconds_of("ttl", duration) == seconds


@pytest.mark.parametrize(
    "duration", [-1, -0.1, math.nan, math.inf, -math.inf, 10**400, True, "60", None, timedelta(seconds=-1)]
)
def test_durations_that_are_rejected(duration: Any) -> None:
    """A value other than a finite duration of 0 or more is rejected with the name of the setting."""
    with pytest.raises(ConfigurationError, match="ttl is a timedelta or a number of seconds, 0 or more, not "):
        seconds_of("ttl", duration)


@pytest.mark.parametrize("duration", [0, 0.0, timedelta()])
def test_a_positive_duration(duration: Any) -> None:
    """Zero is rejected for a duration that has to be positive."""
    with pytest.raises(ConfigurationError, match="ttl is a timedelta or a number of seconds, more than 0, not"):
        seconds_of("ttl", duration, positive=True)
    assert seconds_of("ttl", 0.5, positive=True) == 0.5


def test_whole_seconds() -> None:
    """A fraction of a second is rejected where whole seconds are needed."""
    assert (whole_seconds_of("age", 5.0), whole_seconds_of("age", timedelta(hours=1))) == (5, 3600)
    with pytest.raises(ConfigurationError, match=r"age is a timedelta or a number of whole seconds, not 1\.5"):
        whole_seconds_of("age", 1.5)
    with pytest.raises(ConfigurationError, match="more than 0"):
        whole_seconds_of("age", 0, positive=True)


@given(st.integers(0, 999_999), st.sampled_from("smhdw"))
def test_durations_as_text(number: int, unit: str) -> None:
    """A duration in a text is a number and a unit."""
    seconds = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
    assert duration_of(f"{number}{unit}") == timedelta(seconds=number * seconds[unit])


@pytest.mark.parametrize("text", ["", "1", "d", "1 d", "-1d", "1.5h", "1y", "1234567s", "\u0661d", "1d\n"])
def test_texts_that_are_not_durations(text: str) -> None:
    """Another form is rejected, with an example of the right one."""
    with pytest.raises(ValueError, match="is not a duration: write a number and s, m, h, d or w, such as 90d"):
        duration_of(text)
