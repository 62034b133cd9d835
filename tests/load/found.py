"""Findings of a soak, and whether they are as they should be."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median

from . import wrk

# How long after its return a 503 may still be the answer: the pause between two attempts, and one attempt.
RECOVERY_SECONDS = 5
GROWTH = 1.05
SAMPLES = 5


@dataclass
class Away:
    """The times of an outage, in seconds since the epoch, and the number of our own requests that were 503s then."""

    begin: float = float("inf")
    end: float = float("inf")
    unavailable: int = 0

    def covers(self, moment: float) -> bool:
        """Return whether an answer of this moment may be 503."""
        return self.begin <= moment <= self.end + RECOVERY_SECONDS


@dataclass
class Found:
    """The findings of a soak.

    Attributes:
        away: The outages, by what was unavailable.
        faults: What should not have been, a sentence each.
        resident_bytes: The memory of the server about once a second, with the second after the end of the warm-up.
    """

    away: Mapping[str, Away]
    faults: list[str] = field(default_factory=list)
    resident_bytes: list[tuple[float, int]] = field(default_factory=list)

    def memory(self) -> tuple[float, float, float]:
        """Return the bytes at the end of the warm-up, the most after it, and those at the end; ends are medians."""
        before = [size for second, size in self.resident_bytes if second < 0]
        after = [size for second, size in self.resident_bytes if second >= 0]
        return median(before[-SAMPLES:]), max(after), median(after[-SAMPLES:])

    def judge(self, answered: Mapping[int, wrk.Answers], log: str) -> None:
        """Find the faults in the answers that wrk received, in the memory, and in what the server wrote.

        Args:
            answered: By the status that was expected.
            log: The standard error of the server.
        """
        for expected, answers in answered.items():
            for second, statuses in answers.by_second.items():
                # An answer was given at any moment of its second.
                excused = any(away.covers(second) or away.covers(second + 1) for away in self.away.values())
                right = {expected, 503} if excused else {expected}
                wrong = {status: count for status, count in statuses.items() if status not in right}
                if wrong:
                    self.faults.append(f"wrk was answered {wrong} instead of {expected} in the second {second}")
            if answers.lost:
                self.faults.append(f"{answers.lost} requests of wrk had no answer instead of {expected}")
        for name, away in self.away.items():
            if not away.unavailable:
                self.faults.append(f"nothing was seen of the {name} being away")
        before, _, after = self.memory()
        if after > before * GROWTH:
            self.faults.append(f"the memory of the server grew by {after / before - 1:.1%}")
        if "Traceback" in log:
            self.faults.append(f"the server wrote:\n{log[log.index('Traceback') :][:4000]}")
