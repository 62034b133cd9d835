"""A clock that stands still until a test moves it."""

from datetime import timedelta


class Clock:
    """A callable that returns seconds since the epoch, as `time.time` does."""

    def __init__(self, now: float = 1_800_000_000.25) -> None:
        """Start at `now`."""
        self.now = now

    def __call__(self) -> float:
        """Return the current time."""
        return self.now

    def move(self, by: timedelta | float) -> None:
        """Move by a duration or a number of seconds; back where that is negative."""
        self.now += by.total_seconds() if isinstance(by, timedelta) else by
