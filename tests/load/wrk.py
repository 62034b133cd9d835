"""wrk, and the answers that it received."""

import json
import subprocess
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

SCRIPT = Path(__file__).with_name("mixed.lua")


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """A GET, and the header field with its credential; an empty one is not sent."""

    path: str
    credential: str
    field: str = "Authorization"


@dataclass(frozen=True, kw_only=True, slots=True)
class Answers:
    """The answers that wrk received.

    Attributes:
        requests_a_second: Over the whole time.
        p50_ms: The median of the time to an answer, in milliseconds. A connection sends its next request when it has
            the answer to the one before, so that the time which that one waited is not counted.
        p99_ms: The 99th percentile.
        lost: Requests without an answer: connections refused or broken, and timeouts.
        by_second: How many of each status there were, by the second of the epoch.
    """

    requests_a_second: float
    p50_ms: float
    p99_ms: float
    lost: int
    by_second: dict[int, Counter[int]]

    @property
    def statuses(self) -> Counter[int]:
        """How many of each status there were."""
        return sum(self.by_second.values(), Counter())


def write(file: Path, requests: Iterable[Request]) -> None:
    """List the requests for wrk, in one step: it may be reading."""
    new = file.with_suffix(".new")
    lines = [(sent.path, sent.field if sent.credential else "", sent.credential) for sent in requests]
    new.write_text("".join("\t".join(line) + "\n" for line in lines), encoding="ascii")
    new.replace(file)


def start(url: str, listed: Path, *, connections: int, seconds: int) -> "subprocess.Popen[str]":
    """Load `url` with the requests that are listed, for so many seconds."""
    options = ["--threads=1", f"--connections={connections}", f"--duration={seconds}s", "--timeout=10s", "--latency"]
    command = ["wrk", *options, f"--script={SCRIPT}", url, "--", str(listed)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603 - ours


def finished(running: "subprocess.Popen[str]") -> Answers:
    """Wait for the end, and return the answers."""
    output, _ = running.communicate()
    if running.returncode:
        raise SystemExit(f"wrk failed:\n{output}")
    said = json.loads(output.rstrip().rpartition("\n")[2])
    by_second: dict[int, Counter[int]] = {}
    for key, count in said["answers"].items():
        second, status = map(int, key.split())
        by_second.setdefault(second, Counter())[status] = count
    return Answers(
        requests_a_second=said["requests"] / said["microseconds"] * 1e6,
        p50_ms=said["p50"] / 1e3,
        p99_ms=said["p99"] / 1e3,
        lost=said["lost"],
        by_second=by_second,
    )
