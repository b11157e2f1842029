"""From the figures of all rounds to medians, ratios and targets; and their tables."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from benchmarks.rows import Row, as_json, judged, table

CEILING = {
    "raft": "bare",
    "publish": "packed",
    "publish-many": "packed",
    "publish-follower": "packed",
    "pysyncobj": "packed",
    "hashicorp": "bare",
}
TITLES = {
    "bare": "ceiling, an entry per proposal (bare)",
    "packed": "ceiling, packed, delivered to 3 handlers",
    "raft": "Raft alone, an entry per command",
    "publish": "publish on the leader, delivered to 3 handlers",
    "publish-many": "publish_many, 256 records a call, delivered to 3",
    "publish-follower": "publish on a follower, delivered to 3 handlers",
    "pysyncobj": "PySyncObj, journal never synced, applied on 3",
    "hashicorp": "hashicorp/raft + raft-boltdb, its defaults",
}
UNITS = {"rate": "/s", "p50_ms": "ms", "p99_ms": "ms"}
Round = dict[str, dict[str, Any]]


class Target(NamedTuple):
    """The ratio of `figure` of two systems in one round, at one level, which is to be at least (or at most) `bound`. A `bound` on the figure alone where
    there is one system."""

    what: str
    bound: float
    at_least: bool
    systems: tuple[str, ...]
    level: str
    figure: str


TARGETS = (
    Target("Raft alone, 1024 in flight", 0.75, True, ("raft", "bare"), "1024", "rate"),
    Target("Raft alone, 256 in flight", 2.0, True, ("raft", "hashicorp"), "256", "rate"),
    Target("Raft alone, 1024 in flight", 2.0, True, ("raft", "hashicorp"), "1024", "rate"),
    Target("publish until all three handled it, 1024 in flight", 0.5, True, ("publish", "packed"), "1024", "rate"),
    Target("publish until all three handled it, 1024 in flight", 1.0, True, ("publish", "pysyncobj"), "1024", "rate"),
    Target("publish_many until all three handled it, records, 64 calls in flight", 300_000, True, ("publish-many",), "64", "rate"),
    Target("a single publish, p50", 1.4, False, ("publish", "bare"), "1", "p50_ms"),
)
IDLE_TARGETS = (("idle node, of a core", 2.0, "cpu_percent", "%"), ("idle node, resident", 100.0, "rss_mb", "MB"))


def summarize(measured: dict[str, Any]) -> dict[str, Any]:
    """medians[system][level][figure], ratios[system][level] (rate to the ceiling of the same round), targets, skipped, errors."""
    failed = {"error": {}, "skipped": {}}  # type: dict[str, dict[str, str]]
    rounds: list[Round] = []
    for count, one in enumerate(measured["rounds"], 1):
        rounds.append({})
        for name, figures in one.items():
            why = next((why for why in failed if why in figures), None)
            if why is None:
                rounds[-1][name] = figures
            else:
                failed[why][f"{name}, round {count}" if why == "error" else name] = figures[why]
    rows: list[Row] = []
    for name, figures in measured["trials"].items():
        why = next((why for why in failed if why in figures), None)
        if why is not None:
            failed[why][name] = figures[why]
        else:
            rows += [Row(**row) for row in figures["rows"]] if "rows" in figures else _idle(figures)
    names = list(dict.fromkeys(name for one in rounds for name in one))
    medians = {name: _medians([one[name] for one in rounds if name in one]) for name in names}
    ratios = {
        name: {level: found for level in medians[name] if (found := _ratio(rounds, (name, CEILING[name]), level, "rate")) is not None}
        for name in names
        if name in CEILING
    }
    targets = [*_targets(rounds, medians), *rows]
    return {
        "medians": medians,
        "ratios": ratios,
        "targets": [as_json(row) for row in targets],
        "skipped": failed["skipped"],
        "errors": failed["error"],
    }


def _medians(runs: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    levels = list(dict.fromkeys(level for run in runs for level in run))
    return {
        level: {figure: median(run[level][figure] for run in runs if level in run) for figure in ("rate", "p50_ms", "p99_ms")}
        for level in levels
    }


def _ratio(rounds: list[Round], systems: tuple[str, str], level: str, figure: str) -> float | None:
    """The median over the rounds that have both."""
    ours, theirs = systems
    found = [
        one[ours][level][figure] / one[theirs][level][figure]
        for one in rounds
        if level in one.get(ours, {}) and level in one.get(theirs, {})
    ]
    return median(found) if found else None


def _targets(rounds: list[Round], medians: dict[str, Any]) -> list[Row]:
    rows = []
    for target in TARGETS:
        ours, *others = target.systems
        measured = medians.get(ours, {}).get(target.level, {}).get(target.figure)
        if measured is None:
            continue
        if not others:
            rows.append(judged(target.what, measured, UNITS[target.figure], target.bound, target.at_least))
            continue
        value = _ratio(rounds, (ours, others[0]), target.level, target.figure)
        if value is not None:
            baseline = medians[others[0]][target.level][target.figure]
            rows.append(Row(target.what, measured, UNITS[target.figure], value, target.bound, target.at_least, others[0], baseline))
    return rows


def _idle(nodes: dict[str, Any]) -> list[Row]:
    return [judged(what, max(node[figure] for node in nodes.values()), unit, bound, False) for what, bound, figure, unit in IDLE_TARGETS]


def show(result: dict[str, Any], console: Console) -> None:
    host, rounds = result["machine"], len(result["rounds"])
    console.print(
        f"{host['processors']} × {host['processor']}, {host['system']}, Python {host['python']}, fdatasync {host['fdatasync_ms']:.2f} ms, "
        f"load {host['load_average']:.1f}; 128 B, three processes, medians of {rounds} round{'s' * (rounds > 1)}",
        highlight=False,
    )
    if result["medians"]:
        _show_levels(result, console, "rate", "per second, and as a share of the ceiling in the same round", lambda value: f"{value:,.0f}")
        _show_levels(result, console, "p50_ms", "p50, ms", lambda value: f"{value:.2f}")
        _show_levels(result, console, "p99_ms", "p99, ms", lambda value: f"{value:.2f}")
    if result["targets"]:
        console.print(table(Row(**{name: row[name] for name in Row._fields}) for row in result["targets"]))
    for name, why in result["skipped"].items():
        console.print(f"[yellow]skipped: {name}[/]: {why}", highlight=False)
    for where, error in result["errors"].items():
        console.print(f"[red]failed: {where}[/]", highlight=False)
        console.print(error.splitlines()[-1] if error else "", markup=False, highlight=False)


def _show_levels(result: dict[str, Any], console: Console, figure: str, title: str, written: Callable[[float], str]) -> None:
    levels = sorted({level for system in result["medians"].values() for level in system}, key=int)
    found = Table(title=title, title_justify="left")
    found.add_column("in flight")
    for level in levels:
        found.add_column(level, justify="right")
    for name, medians in result["medians"].items():
        cells = []
        for level in levels:
            share = result["ratios"].get(name, {}).get(level) if figure == "rate" else None
            cells.append(
                (written(medians[level][figure]) if level in medians else "") + (f"  [dim]{share:.2f}[/]" if share is not None else "")
            )
        found.add_row(TITLES.get(name, name), *cells)
    console.print(found)
