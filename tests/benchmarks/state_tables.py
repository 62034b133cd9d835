"""The tables of guards that read state, and what follows from them for larger loads."""

from collections.abc import Iterator, Mapping
from math import ceil
from statistics import median
from typing import Any

from .tables import table

Row = Mapping[str, Any]

RATES = (1_000, 10_000, 100_000, 1_000_000)
SCALED = ("postgres", "redis")
# Of a worker: one for reads and one for writes.
CONNECTIONS = 2


def state(measured: Mapping[str, Any]) -> str:
    """Return the costs of the guards under load, one look-up at a time, and in a burst."""
    machine, rows = measured["machine"], measured["measured"]
    burst = measured["burst"]
    first, *_, last = [row for row in rows if row["variant"]["rows"]] or [None, None]
    lines = [
        f"Measured on {machine['day']} on {machine['processor']} with {machine['cores']} cores,",
        f"over {measured['connections']} connections, in {len(rows[0]['slices'])} slices of {measured['seconds']} s",
        "that alternate with the bare route; medians, and in brackets the lowest and the highest.",
        "",
        *table(
            ("request", "of the bare route", "goal", "of memory", "goal", "0.1.0", "CPU µs", "p50 ms", "p99 ms"),
            list(_guards(rows, measured["of_memory"])),
        ),
        "",
        *table(
            ("request", "p99 / p50", "of the bare route", "without `tune_gc()`", "of the bare route"),
            list(_tails(rows)),
        ),
        "",
        *table(
            ("one look-up at a time", "µs", "beside", "µs", "ratio", "goal"),
            [
                (
                    single["name"],
                    f"{single['us']:.0f}",
                    single["driver"],
                    f"{single['driver_us']:.0f}",
                    f"{single['ratio']:.1f} ({single['lowest']:.1f} to {single['highest']:.1f})",
                    "" if single["goal"] is None else f"{single['goal']:.1f}",
                )
                for single in measured["look_ups"]
            ],
        ),
        "",
    ]
    if first is not None and last is not None:
        ratio = _cpu(last) / _cpu(first)
        lines.append(
            f"A look-up among {last['variant']['rows']:,} API keys costs {ratio:.2f} times as much processor time"
        )
        lines.append(f"as among {first['variant']['rows']:,} (goal: at most 1.1).")
    lines.append(
        f"{burst['requests']:,} requests at once with as many API keys, on a pool of {burst['pool']} connections:"
    )
    lines.append(f"all answered with 200 in {burst['seconds']:.2f} s, with {burst['selects']} SELECTs and")
    lines.append(f"{burst['others']} statements that write the last uses (goal: at most {burst['at_most']}).")
    return "\n".join((*lines, ""))


def scaled(measured: Mapping[str, Any]) -> str:
    """Return the workers, connections, round trips and memory that loads of several sizes need, as measured."""
    rows = []
    for row in measured["measured"]:
        variant = row["variant"]
        if row["goal"] is None or variant["place"] not in SCALED:
            continue
        a_second = median(part["requests_a_second"] for part in row["slices"])
        for rate in RATES:
            workers = ceil(rate / a_second)
            # With a cache a worker reads so often in a second, however many requests it has.
            counted = workers * a_second if variant["cached"] else rate
            rows.append(
                (
                    row["name"],
                    f"{rate:,}",
                    f"{workers:,}",
                    f"{workers * row['resident_bytes'] / 2**30:.1f}",
                    f"{workers * CONNECTIONS:,}",
                    f"{counted * row['trips']:,.0f}",
                    f"{counted * row['store_cpu_us'] / 1e6:,.1f}",
                )
            )
    machine = measured["machine"]
    return "\n".join(
        (
            f"Computed from the figures of {machine['day']} on {machine['processor']}, for workers with a core each",
            f"and {measured['connections']} requests in flight:",
            "",
            *table(
                (
                    *("request", "requests a second", "workers", "GiB", "connections"),
                    *("round trips a second", "cores of the store"),
                ),
                rows,
            ),
            "",
        )
    )


def _guards(rows: list[Row], of_memory: Mapping[str, float]) -> Iterator[tuple[str, ...]]:
    for row in rows:
        variant = row["variant"]
        if variant["former"] or not variant["tuned"] or variant["rows"]:
            continue
        before = None if variant["cached"] else _find(rows, variant, former=True, tuned=False)
        ceiling = None if variant["place"] == "none" else _find(rows, variant, place="memory", cached=False)
        part, goal = "", ""
        if ceiling is not None and ceiling is not row:
            part = f"{median(row['shares']) / median(ceiling['shares']):.2f}"
            goal = "" if variant["cached"] else f"{of_memory[variant['place']]:.2f}"
        yield (
            row["name"],
            _with_range(row["shares"]),
            "" if row["goal"] is None else f"{row['goal']:.2f}",
            part,
            goal,
            "" if before is None else f"{median(before['shares']):.2f}",
            f"{_cpu(row):.0f}",
            f"{median(_all(row, 'p50_ms')):.2f}",
            _with_range(_all(row, "p99_ms")),
        )


def _tails(rows: list[Row]) -> Iterator[tuple[str, ...]]:
    for row in rows:
        without = _find(rows, row["variant"], tuned=False)
        if row["variant"]["tuned"] and without is not None:
            cells = [f"{_tail(found[side]):.1f}" for found in (row, without) for side in ("slices", "bare")]
            yield row["name"], *cells


def _find(rows: list[Row], variant: Mapping[str, Any], **changes: Any) -> Row | None:
    wanted = {**variant, **changes}
    return next((row for row in rows if row["variant"] == wanted), None)


def _all(row: Row, figure: str) -> list[float]:
    return [part[figure] for part in row["slices"]]


def _cpu(row: Row) -> float:
    return median(_all(row, "cpu_us"))


def _tail(slices: list[Mapping[str, float]]) -> float:
    return median(part["p99_ms"] / part["p50_ms"] for part in slices)


def _with_range(figures: list[float]) -> str:
    return f"{median(figures):.2f} ({min(figures):.2f} to {max(figures):.2f})"
