"""A clock that stands still until a test moves it."""

from datetime import timedelta


class Clock:
    """Seconds since the epoch, as `time.time` gives them."""

    def __init__(self, now: float = 1_800_000_000.25) -> None:
        """Stand at `now`."""
        self.now = now

    def __call__(self) -> float:
        """Return the moment."""
        return self.now

    def move(self, by: timedelta | float) -> None:
        """Go on by so much, or so many seconds; back where that is negative."""
        self.now += by.total_seconds() if isinstance(by, timedelta) else by
