"""Draw what `core` measured, and put its figures and those of the other tables into the page about performance.

Run it as `python -m tests.benchmarks.page` after `python -m tests.benchmarks.core`. The same measurements give the same
page and the same picture to the byte; what was not measured stays as it is there.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from .core import ALGORITHMS
from .harness import Timings
from .soak_tables import soaked
from .state_tables import scaled, state
from .tables import table

PAGE, SCALING = Path("docs/explanation/performance.md"), Path("docs/explanation/scaling.md")
MEASURED, LOGINS, SIGN_INS = (Path(f".bench/{name}.json") for name in ("core", "login", "providers"))
LOADED, STATE, SOAKED = (Path(f".bench/{name}.json") for name in ("load", "state", "soak"))
LIMITS = ("request", "measured", "held against", "ratio", "at most", "")
LIBRARIES = {
    "fastapi_guard": "fastapi_guard",
    "fastapi-views": "fastapi-views",
    "PyJWT": "PyJWT by hand",
    "authx": "authx",
}

WIDTH, LEFT, RIGHT = 760, 130, 80
ROW, BAR, GROUP, TOP = 22, 14, 34, 56
STYLE = """
  .ground { fill: #ffffff } text { fill: #1f2933; font: 13px system-ui, sans-serif } .title { font-weight: 600 }
  .group { font-weight: 600 } .value { font-variant-numeric: tabular-nums }
  .ours { fill: #0f766e } .theirs { fill: #9aa5b1 }
  .quartiles { stroke: #1f2933; stroke-width: 1.5 } .edge { stroke: #9aa5b1 }
  @media (prefers-color-scheme: dark) {
    .ground { fill: #161b22 } text { fill: #e6edf3 } .ours { fill: #2dd4bf } .theirs { fill: #6b7785 }
    .quartiles { stroke: #e6edf3 } .edge { stroke: #6b7785 }
  }
"""


@dataclass(frozen=True, slots=True)
class Added:
    """The cost that a variant adds to the bare route, in microseconds: the quartiles over the rounds."""

    lower: float
    median: float
    upper: float

    @classmethod
    def of(cls, timings: Timings, name: str, bare: str) -> "Added":
        """Return what was added in the same round."""
        pairs = zip(timings.rounds[name], timings.rounds[bare], strict=True)
        return cls(*quantiles((mine - other for mine, other in pairs), n=4))


def added(measured: Mapping[str, Any]) -> dict[tuple[str, str], Added]:
    """Return what each library that has an algorithm adds, by algorithm and library."""
    timings, bare = Timings(measured["microseconds"]), measured["bare"]
    names = {(algorithm, library): f"{algorithm} {library}" for algorithm in ALGORITHMS for library in LIBRARIES}
    return {key: Added.of(timings, name, bare) for key, name in names.items() if name in timings.rounds}


def picture(costs: Mapping[tuple[str, str], Added]) -> str:
    """Return the bars as SVG, on a ground of its own: it is legible whatever the page around it looks like."""
    scale = (WIDTH - LEFT - RIGHT) / max(cost.upper for cost in costs.values())
    drawn: list[str] = []
    y = TOP
    for algorithm in ALGORITHMS:
        drawn.append(f'<text class="group" x="16" y="{y + 12}">{algorithm}</text>')
        y += ROW
        for library, name in LIBRARIES.items():
            if (algorithm, library) in costs:
                drawn += _bar(y, name, costs[algorithm, library], scale, is_ours=library == "fastapi_guard")
                y += ROW
        y += GROUP - ROW
    height = y + 4
    edge = f'<line class="edge" x1="{LEFT}" x2="{LEFT}" y1="{TOP}" y2="{y - GROUP + ROW}"/>'
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}">',
            "<title>What a guard adds to one request</title>",
            f"<style>{STYLE}</style>",
            f'<rect class="ground" width="{WIDTH}" height="{height}" rx="8"/>',
            '<text class="title" x="16" y="28">Microseconds that a guard adds to one request: shorter is better</text>',
            *drawn,
            edge,
            "</svg>\n",
        )
    )


def _bar(y: int, name: str, cost: Added, scale: float, *, is_ours: bool) -> Iterator[str]:
    middle, end = y + BAR // 2, LEFT + cost.upper * scale
    kind = "ours" if is_ours else "theirs"
    yield f'<text x="{LEFT - 10}" y="{y + 12}" text-anchor="end">{name}</text>'
    yield f'<rect class="{kind}" x="{LEFT}" y="{y}" width="{cost.median * scale:.1f}" height="{BAR}"/>'
    yield f'<line class="quartiles" x1="{LEFT + cost.lower * scale:.1f}" x2="{end:.1f}" y1="{middle}" y2="{middle}"/>'
    yield f'<text class="value" x="{end + 8:.1f}" y="{y + 12}">{cost.median:.0f}</text>'


def text(measured: Mapping[str, Any], costs: Mapping[tuple[str, str], Added]) -> str:
    """Return the tables, and what they are of, as Markdown."""
    machine, timings = measured["machine"], Timings(measured["microseconds"])
    versions = ", ".join(f"{name} {version}" for name, version in measured["versions"].items())
    bare = measured["bare"]
    rows = [
        (
            algorithm,
            *(f"{costs[algorithm, name].median:.1f}" if (algorithm, name) in costs else "" for name in LIBRARIES),
        )
        for algorithm in ALGORITHMS
    ]
    return "\n".join(
        (
            f"Measured on {machine['day']} in {len(timings.rounds[bare])} rounds,",
            f"on {machine['processor']} with {machine['cores']} cores, {machine['system']},",
            f"which {machine['busy']} processes wanted at the end, the measuring one included:",
            f"{versions}.",
            f"The bare route takes {timings.cost(bare):.1f} µs.",
            "",
            *table(("µs added to a request", *LIBRARIES.values()), rows),
            "",
            *table(LIMITS, limits_of(measured)),
            "",
        )
    )


def limits_of(measured: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return the rows of what was held against a limit."""
    return [
        (
            limit["request"],
            f"{limit['measured']:.1f} {limit['unit']}",
            f"{limit['reference']}: {limit['cost']:.1f} {limit['unit']}",
            f"{limit['ratio']:.2f}",
            f"{limit['factor']:.2f}",
            limit["verdict"].lower(),
        )
        for limit in measured["limits"]
    ]


def logins(measured: Mapping[str, Any]) -> str:
    """Return what logins, and what follows from them, cost, as Markdown."""
    machine = measured["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in measured["versions"].items())
    return "\n".join(
        (
            f"Measured on {machine['day']} on {machine['processor']} with {machine['cores']} cores,",
            f"which {machine['busy']} processes wanted at the end, the measuring one included:",
            f"{versions}.",
            "",
            *table(LIMITS, limits_of(measured)),
            "",
            *table(("a failed login", "median ms", "quartiles apart"), measured["failed_logins"]),
            "",
        )
    )


def sign_ins(measured: Mapping[str, Any]) -> str:
    """Return what a sign-in with a provider costs beside the provider, as Markdown."""
    machine = measured["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in measured["versions"].items())
    return "\n".join(
        (
            f"Measured on {machine['day']} on {machine['processor']} with {machine['cores']} cores, {versions}.",
            "",
            *table(LIMITS, limits_of(measured)),
            "",
        )
    )


def loaded(measured: Mapping[str, Any]) -> str:
    """Return the requests a second of a server, and how fast they are, as Markdown."""
    machine, rounds = measured["machine"], measured["rounds"]
    bare, *_ = rounds.values()
    rows = [
        (
            name,
            *(
                f"{median(answers[figure] for answers in answered):.{places}f}"
                for figure, places in (("requests_a_second", 0), ("p50_ms", 2), ("p99_ms", 2))
            ),
            f"{median(_of(answered, bare)):.2f}",
        )
        for name, answered in rounds.items()
    ]
    return "\n".join(
        (
            f"Measured on {machine['day']} on {machine['processor']} with {machine['cores']} cores,",
            f"over {measured['connections']} connections, in {len(bare)} rounds of {measured['seconds']} s.",
            "",
            *table(("medians of the rounds", "requests a second", "p50 ms", "p99 ms", "of bare"), rows),
            "",
        )
    )


def _of(answered: Sequence[Mapping[str, float]], bare: Sequence[Mapping[str, float]]) -> Iterator[float]:
    for mine, other in zip(answered, bare, strict=True):
        yield mine["requests_a_second"] / other["requests_a_second"]


def put(name: str, figures: str, page: Path = PAGE) -> None:
    """Put figures into their place on a page."""
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->\n"
    before, found, rest = page.read_text(encoding="utf-8").partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        msg = f"{page} has no place for the figures {name}"
        raise SystemExit(msg)
    page.write_text(f"{before}{begin}\n{figures}\n{end}{after}", encoding="utf-8")


def main() -> None:
    """Read what was measured, and write the picture and the page."""
    if MEASURED.exists():
        measured = json.loads(MEASURED.read_text(encoding="utf-8"))
        costs = added(measured)
        put("measured", text(measured, costs))
        PAGE.with_suffix(".svg").write_text(picture(costs), encoding="utf-8")
    if LOGINS.exists():
        put("logins", logins(json.loads(LOGINS.read_text(encoding="utf-8"))))
    if SIGN_INS.exists():
        put("sign-ins", sign_ins(json.loads(SIGN_INS.read_text(encoding="utf-8"))))
    if LOADED.exists():
        put("loaded", loaded(json.loads(LOADED.read_text(encoding="utf-8"))))
    if STATE.exists():
        measured = json.loads(STATE.read_text(encoding="utf-8"))
        put("state", state(measured))
        put("scaled", scaled(measured), SCALING)
    if SOAKED.exists():
        put("soaked", soaked(json.loads(SOAKED.read_text(encoding="utf-8"))))
    print("written to", PAGE, "and", SCALING)


if __name__ == "__main__":
    main()
