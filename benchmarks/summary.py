"""From the figures of all rounds to medians, ratios and targets; and their tables."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

CEILING = {"raft": "bare", "publish": "packed", "publish-follower": "packed", "pysyncobj": "packed"}
TITLES = {
    "bare": "ceiling, an entry per proposal (bare)",
    "packed": "ceiling, packed, delivered to 3 handlers",
    "raft": "Raft alone, an entry per command",
    "publish": "publish on the leader, delivered to 3 handlers",
    "publish-follower": "publish on a follower, delivered to 3 handlers",
    "pysyncobj": "PySyncObj, journal never synced, applied on 3",
}
Round = dict[str, dict[str, Any]]


class Target(NamedTuple):
    """`value` of one round, which is to be at least (or at most) `bound`."""

    what: str
    bound: float
    at_least: bool
    systems: tuple[str, str]
    level: str
    figure: str


TARGETS = (
    Target("Raft alone / bare, rate, 1024 in flight", 0.5, True, ("raft", "bare"), "1024", "rate"),
    Target("publish / packed, rate, 1024 in flight", 0.25, True, ("publish", "packed"), "1024", "rate"),
    Target("publish / PySyncObj, rate, 1024 in flight", 1.0, True, ("publish", "pysyncobj"), "1024", "rate"),
    Target("publish / bare, p50 of a single one", 2.0, False, ("publish", "bare"), "1", "p50_ms"),
)
IDLE_TARGETS = (("idle node, % of a core", 2.0, "cpu_percent"), ("idle node, MB resident", 100.0, "rss_mb"))


def summarize(measured: dict[str, Any]) -> dict[str, Any]:
    """medians[system][level][figure], ratios[system][level] (rate to the ceiling of the same round), targets, errors."""
    rounds: list[Round] = [{name: figures for name, figures in one.items() if "error" not in figures} for one in measured["rounds"]]
    names = list(dict.fromkeys(name for one in rounds for name in one))
    medians = {name: _medians([one[name] for one in rounds if name in one]) for name in names}
    ratios = {
        name: {level: found for level in medians[name] if (found := _ratio(rounds, (name, CEILING[name]), level, "rate")) is not None}
        for name in names
        if name in CEILING
    }
    errors = {
        f"{name}, round {number}": f["error"] for number, one in enumerate(measured["rounds"], 1) for name, f in one.items() if "error" in f
    }
    idle = measured["idle"]
    if "error" in idle:
        errors["idle"], idle = idle["error"], {}
    return {"medians": medians, "ratios": ratios, "targets": _targets(rounds, idle), "errors": errors}


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


def _targets(rounds: list[Round], idle: dict[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for target in TARGETS:
        value = _ratio(rounds, target.systems, target.level, target.figure)
        if value is not None:
            rows.append(_row(target.what, value, target.bound, target.at_least))
    if idle:
        rows += [_row(what, max(node[figure] for node in idle.values()), bound, False) for what, bound, figure in IDLE_TARGETS]
    return rows


def _row(what: str, value: float, bound: float, at_least: bool) -> dict[str, Any]:
    return {"what": what, "value": value, "bound": bound, "at_least": at_least, "ok": value >= bound if at_least else value <= bound}


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
        table = Table(title="targets", title_justify="left")
        for column in ("", "wanted", "measured", ""):
            table.add_column(column, justify="left" if not column else "right")
        for row in result["targets"]:
            sign, verdict = "≥" if row["at_least"] else "≤", "[green]ok[/]" if row["ok"] else "[red]missed[/]"
            table.add_row(row["what"], f"{sign} {row['bound']:g}", f"{row['value']:.2f}", verdict)
        console.print(table)
    for where, error in result["errors"].items():
        console.print(f"[red]failed: {where}[/]", highlight=False)
        console.print(error.splitlines()[-1] if error else "", markup=False, highlight=False)


def _show_levels(result: dict[str, Any], console: Console, figure: str, title: str, written: Callable[[float], str]) -> None:
    levels = list(dict.fromkeys(level for system in result["medians"].values() for level in system))
    table = Table(title=title, title_justify="left")
    table.add_column("in flight")
    for level in levels:
        table.add_column(level, justify="right")
    for name, medians in result["medians"].items():
        cells = []
        for level in levels:
            share = result["ratios"].get(name, {}).get(level) if figure == "rate" else None
            cells.append(
                (written(medians[level][figure]) if level in medians else "") + (f"  [dim]{share:.2f}[/]" if share is not None else "")
            )
        table.add_row(TITLES.get(name, name), *cells)
    console.print(table)
