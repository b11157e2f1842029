"""A row of the table of targets: a figure, what stood beside it in the same run, what is wanted, and whether it is met."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, NamedTuple

from rich.table import Table


class Row(NamedTuple):
    """what: in words. figure, unit: what was measured. beside, baseline: what it is compared with, in the same unit, and its figure of the same run.

    value: what is judged, the figure or a ratio of the two; bound: what is wanted of it, None where the figure is only told; at_least: a bound from below.
    """

    what: str
    figure: float
    unit: str
    value: float
    bound: float | None = None
    at_least: bool = True
    beside: str = ""
    baseline: float | None = None

    @property
    def met(self) -> bool | None:
        if self.bound is None:
            return None
        return self.value >= self.bound if self.at_least else self.value <= self.bound


def ratio(what: str, figure: float, unit: str, beside: str, baseline: float, bound: float, at_least: bool = True) -> Row:
    """A row that is judged by figure / baseline."""
    return Row(what, figure, unit, figure / baseline, bound, at_least, beside, baseline)


def told(what: str, figure: float, unit: str) -> Row:
    """A figure that nothing is wanted of."""
    return Row(what, figure, unit, figure)


def judged(what: str, figure: float, unit: str, bound: float, at_least: bool = True) -> Row:
    """A row that is judged by its figure."""
    return Row(what, figure, unit, figure, bound, at_least)


def report(rows: Iterable[Row]) -> None:
    """How a trial hands its rows back: a JSON object as the last line."""
    print(json.dumps({"rows": [row._asdict() for row in rows]}))


def as_json(row: Row) -> dict[str, Any]:
    return row._asdict() | {"ok": row.met}


def table(rows: Iterable[Row]) -> Table:
    found = Table(title="targets", title_justify="left")
    for column in ("", "measured", "beside it", "judged", "wanted", ""):
        found.add_column(column, justify="left" if column in ("", "beside it") else "right")
    for row in rows:
        wanted = "" if row.bound is None else f"{'≥' if row.at_least else '≤'} {number(row.bound)}"
        verdict = {True: "[green]met[/]", False: "[red]missed[/]", None: ""}[row.met]
        beside = f"{row.beside} {number(row.baseline)}" if row.baseline is not None else row.beside
        found.add_row(row.what, f"{number(row.figure)} {row.unit}", beside, number(row.value) if wanted else "", wanted, verdict)
    return found


def number(value: float) -> str:
    """Three digits, and thousands apart."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"
