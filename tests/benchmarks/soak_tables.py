"""The tables of the soak: the responses, the outages, and the memory of the workers."""

from collections.abc import Iterator, Mapping
from typing import Any

from .tables import table

_MIB = 2**20


def soaked(measured: Mapping[str, Any]) -> str:
    """Return what was sent and answered, and how long it took to recover, as Markdown."""
    header = (
        "worker",
        "warm after, s",
        "ran, s",
        "own memory, MiB, warm",
        "most",
        "at the end",
        "growth",
        "growth of all in RAM",
    )
    return "\n".join(
        (
            *_circumstances(measured),
            "",
            *table(("expected", "as expected", "503", "another status", "no response"), list(_answers(measured))),
            "",
            *_compared(measured),
            "",
            *table(("outage", "times", "seconds", "last 503 after the return, in seconds"), list(_outages(measured))),
            "",
            *table(header, list(_memory(measured))),
            "",
            *(f"- Fault: {fault}" for fault in measured["faults"]),
            *([""] if measured["faults"] else []),
        )
    )


def _circumstances(measured: Mapping[str, Any]) -> Iterator[str]:
    machine, seconds = measured["machine"], measured["seconds"]
    yield f"Run on {machine['day']} for {seconds // 60} minutes and {seconds % 60} seconds, with"
    yield f"{', '.join(f'{name} {version}' for name, version in measured['versions'].items())}."
    yield f"Other programs used the {machine['cores']} cores as well: these counts do not measure throughput."


def _compared(measured: Mapping[str, Any]) -> Iterator[str]:
    own, checked = measured["own"], measured["checked"]
    yield f"Beside these, {sum(own.values()):,} were compared one by one; {measured['broken']} had no response."
    yield f"At the end, after a restart: {checked['200']} credentials were valid, {checked['401']} were not,"
    yield f"{checked['403']} did not have the scope, and the quota of {checked['429']} was used up;"
    yield f"{checked['families']} refresh tokens were used, and {checked['events']} events were in the audit trail."
    yield f"{measured['uses']} uses of API keys were noted right before a worker ended, and all of them were stored."


def _answers(measured: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for expected, answers in measured["answered"].items():
        statuses = answers["statuses"]
        other = sum(count for status, count in statuses.items() if status not in (expected, "503"))
        counts = (statuses.get(expected, 0), statuses.get("503", 0), other, answers["lost"])
        yield expected, *(f"{count:,}" for count in counts)


def _outages(measured: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for name in dict.fromkeys(away["name"] for away in measured["away"]):
        outages = [away for away in measured["away"] if away["name"] == name]
        lasted = [away["end"] - away["begin"] for away in outages]
        recovered = [away["recovered_seconds"] for away in outages]
        yield name, str(len(outages)), _span(lasted), _span(recovered)


def _span(values: list[float]) -> str:
    return f"{min(values):.1f} to {max(values):.1f}"


def _memory(measured: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for number, memory in enumerate(measured["memory"], 1):
        own, (first, _, last) = memory["own"], memory["resident"]
        sizes = (f"{size / _MIB:.1f}" for size in own)
        growth = (f"{after / before - 1:+.1%}" for before, after in ((own[0], own[2]), (first, last)))
        yield str(number), f"{memory['warm']:.0f}", f"{memory['seconds']:.0f}", *sizes, *growth
