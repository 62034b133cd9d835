"""Limits on what a process keeps: a bounded cache, and durations in seconds."""

import re
from collections.abc import Callable
from datetime import timedelta
from threading import Lock
from typing import Final, Generic, TypeVar

from fastapi_guard.exceptions import ConfigurationError, shown

KeyT = TypeVar("KeyT")
ValueT = TypeVar("ValueT")

_DURATION: Final = re.compile(r"([0-9]{1,6})([smhdw])")
_LONGEST_SECONDS: Final = timedelta.max.total_seconds()
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class BoundedCache(Generic[KeyT, ValueT]):
    """A mapping of at most ``size`` entries. Where it is full, the entry that was put in first is dropped.

    Reading takes no lock and costs what it costs in a dict. Several threads may read and write.

    Attributes:
        get: Return the value of a key, ``None`` where there is none: ``cache.get(key)``.
    """

    __slots__ = ("_entries", "_lock", "_size", "get")

    def __init__(self, size: int) -> None:
        """Keep at most ``size`` entries; with 0 nothing is kept.

        Raises:
            ConfigurationError: The size is negative or not a whole number.
        """
        if type(size) is not int or size < 0:
            msg = f"the size of a cache is a whole number of entries from 0, not {shown(size)}"
            raise ConfigurationError(msg)
        self._size = size
        self._entries: dict[KeyT, ValueT] = {}
        self._lock = Lock()
        # The method of the dict itself: a method of this class around it would double the cost of a hit.
        self.get: Callable[[KeyT], ValueT | None] = self._entries.get

    def __len__(self) -> int:
        """Return the number of entries."""
        return len(self._entries)

    def put(self, key: KeyT, value: ValueT) -> None:
        """Set the value of ``key`` and make it the newest entry."""
        with self._lock:
            self._entries.pop(key, None)
            self._entries[key] = value
            if len(self._entries) > self._size:
                del self._entries[next(iter(self._entries))]

    def pop(self, key: KeyT) -> ValueT | None:
        """Remove ``key``; return its value, ``None`` where there was none."""
        with self._lock:
            return self._entries.pop(key, None)

    def clear(self) -> None:
        """Remove every entry."""
        with self._lock:
            self._entries.clear()


def seconds_of(name: str, duration: timedelta | float, *, positive: bool = False) -> float:
    """Return a duration that was configured, in seconds.

    Args:
        name: The name of the setting, for the message.
        duration: A timedelta, or a number of seconds.
        positive: Whether zero is rejected too.

    Raises:
        ConfigurationError: It is of another type, negative, or longer than a timedelta can be.
    """
    seconds = duration.total_seconds() if isinstance(duration, timedelta) else duration
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    # A comparison with NaN is false.
    if not is_number or not 0 <= seconds <= _LONGEST_SECONDS or (positive and not seconds):
        least = "more than 0" if positive else "0 or more"
        msg = f"{name} is a timedelta or a number of seconds, {least}, not {shown(duration)}"
        raise ConfigurationError(msg)
    return float(seconds)


def whole_seconds_of(name: str, duration: timedelta | float, *, positive: bool = False) -> int:
    """Return a duration that was configured, in whole seconds.

    Raises:
        ConfigurationError: As for ``seconds_of``, or it has a fraction of a second.
    """
    seconds = seconds_of(name, duration, positive=positive)
    if not seconds.is_integer():
        msg = f"{name} is a timedelta or a number of whole seconds, not {shown(duration)}"
        raise ConfigurationError(msg)
    return int(seconds)


def duration_of(text: str) -> timedelta:
    """Return the duration that a text such as ``90d`` stands for: a number and s, m, h, d or w.

    Raises:
        ValueError: The text is of another form.
    """
    parts = _DURATION.fullmatch(text)
    if parts is None:
        msg = f"{text!r} is not a duration: write a number and s, m, h, d or w, such as 90d"
        raise ValueError(msg)
    return timedelta(**{_UNITS[parts[2]]: int(parts[1])})
