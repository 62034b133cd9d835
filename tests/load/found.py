"""Findings of a soak, and whether they are as they should be."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from . import wrk
from .workers import Lifetime, Restart

# How long after its return a 503 may still be the answer: the pause between two attempts, and one attempt.
RECOVERY_SECONDS = 5
GROWTH = 1.05
SAMPLES = 5
# A worker has warmed up after this time, and its first outage of each server, which runs code that it had not run.
# How long it has to run after that for its memory to be judged.
WARM_UP_SECONDS, JUDGED_SECONDS = 60, 20


@dataclass
class Away:
    """A server that is stopped for a while.

    Attributes:
        name: Which one.
        begin: Seconds since the epoch, as those below.
        end: When it was started again.
        unavailable: The number of our own requests with the response 503.
        last: When the last of all requests was.
    """

    name: str
    begin: float
    end: float = float("inf")
    unavailable: int = 0
    last: float = 0.0

    def covers(self, moment: float) -> bool:
        """Return whether an answer of this moment may be 503."""
        return self.begin <= moment <= self.end + RECOVERY_SECONDS

    @property
    def recovered_seconds(self) -> float:
        """How long after its return the last 503 was."""
        return max(0.0, self.last - self.end)


@dataclass(frozen=True, slots=True)
class Memory:
    """The memory of a worker: medians at the end of its warm-up and at its end, and the most in between.

    Attributes:
        pid: The worker.
        warm: When it had warmed up, in seconds after it began.
        seconds: How long it ran.
        own: The bytes that it shares with no process.
        resident: Those that are in RAM at all.
    """

    pid: int
    warm: float
    seconds: float
    own: tuple[int, int, int]
    resident: tuple[int, int, int]


@dataclass
class Found:
    """The findings of a soak.

    Attributes:
        away: The outages, in their order.
        faults: What should not have been, a sentence each.
        own: How many of our own requests had each status.
        broken: How many of our own requests a worker did not answer that was told to end.
        uses: How many uses of keys were noted right before a worker was told to end; all of them have to be stored.
        checked: What was compared at the end, by its name.
    """

    away: list[Away] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    own: Counter[int] = field(default_factory=Counter)
    broken: int = 0
    uses: int = 0
    checked: dict[str, int] = field(default_factory=dict)

    def excusing(self, needs: Sequence[str], moment: float) -> list[Away]:
        """Return the outages that excuse a 503, at this moment, of a request that needs these."""
        return [away for away in self.away if away.name in needs and away.covers(moment)]

    def judge(
        self, answered: Mapping[int, wrk.Answers], connections: Mapping[int, int], restarts: Sequence[Restart]
    ) -> None:
        """Find the faults in the answers that wrk received.

        Args:
            answered: By the status that was expected.
            connections: Likewise, over how many connections.
            restarts: The workers that were told to end.
        """
        for expected, answers in answered.items():
            for second, statuses in answers.by_second.items():
                # An answer was given at any moment of its second.
                excuses = [away for away in self.away if away.covers(second) or away.covers(second + 1)]
                for away in excuses if statuses[503] else ():
                    away.last = max(away.last, second)
                right = {expected, 503} if excuses else {expected}
                wrong = {status: count for status, count in statuses.items() if status not in right}
                if wrong:
                    self.faults.append(f"wrk received {wrong} instead of {expected} in the second {second}")
            # A connection has one request under way, and breaks at most once for each worker that ends.
            most = connections[expected] * sum(len(restart.pids) for restart in restarts)
            if answers.lost > most:
                self.faults.append(f"{answers.lost} requests of wrk had no answer instead of {expected}, not {most}")
        for away in self.away:
            if not away.unavailable:
                self.faults.append(f"nothing was seen of the {away.name} being away")
        for restart in restarts:
            if restart.end == float("inf"):
                self.faults.append(f"the workers {restart.pids} were not replaced after {restart.kind}")

    def judge_memory(self, lifetimes: Sequence[Lifetime]) -> list[Memory]:
        """Return the memory of each worker that ran long enough, and find those that grew."""
        measured = list(_measured(lifetimes, self.away))
        for memory in measured:
            for what, (before, _, after) in (("own", memory.own), ("resident", memory.resident)):
                if after > before * GROWTH:
                    self.faults.append(f"the {what} memory of worker {memory.pid} grew by {after / before - 1:.1%}")
        if not measured:
            self.faults.append("no worker ran long enough to judge its memory")
        return measured

    def judge_log(self, log: str) -> None:
        """Find the faults in what the server wrote on its standard error."""
        if "Traceback" in log:
            self.faults.append(f"the server wrote:\n{log[log.index('Traceback') :][:4000]}")


def _measured(lifetimes: Sequence[Lifetime], outages: Sequence[Away]) -> Iterator[Memory]:
    for lifetime in lifetimes:
        warm = max(WARM_UP_SECONDS, _seen_all(lifetime, outages))
        before = [sample for sample in lifetime.memory if sample[0] < warm]
        after = [sample for sample in lifetime.memory if sample[0] >= warm]
        if not before or not after or after[-1][0] < warm + JUDGED_SECONDS:
            continue
        own, resident = (
            _ends([sample[column] for sample in before], [sample[column] for sample in after]) for column in (1, 2)
        )
        yield Memory(lifetime.pid, warm, after[-1][0], own, resident)


def _seen_all(lifetime: Lifetime, outages: Sequence[Away]) -> float:
    """Return the second of a worker that follows its first outage of each server; infinite for none."""
    seconds = []
    for name in {away.name for away in outages}:
        seen = [away.end for away in outages if away.name == name and away.end > lifetime.began]
        seconds.append(min(seen, default=float("inf")) + RECOVERY_SECONDS - lifetime.began)
    return max(seconds)


def _ends(before: Sequence[float], after: Sequence[float]) -> tuple[int, int, int]:
    return round(median(before[-SAMPLES:])), round(max(after)), round(median(after[-SAMPLES:]))
