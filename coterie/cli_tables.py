"""The answers as tables, for a person at a terminal. Each view takes the document that the command would print as JSON.

Members have a row each where the terminal is wide enough; else their addresses stand in a table of their own, else in a line each: an address that is broken in
the middle can be neither read nor copied. (Leaving columns out lost: what is missing on a narrow terminal is what one came for.)
"""

from __future__ import annotations

from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

Document = dict[str, Any]

_COLOURS = {"alive": "green", "suspect": "yellow", "failed": "red", "unknown": "red", "left": "dim"}
_ADDRESSES = ("raft", "gossip", "mgmt")
_ENDLESS = 100_000  # columns
_SEED_WELL = ("reached", "this node", "not dialled yet")


def show(view: RenderableType, console: Console | None = None) -> None:
    (console or Console(highlight=False)).print(view)


def status_view(document: Document) -> RenderableType:
    """document: the answer of GET /status."""
    parts: list[RenderableType] = [_heading(document), _members(document)]
    if document.get("Topics"):
        parts.append(_delivered(document["Topics"], _answered_by(document)))
    seeds = document.get("Seeds") or {}
    if any(state not in _SEED_WELL for state in seeds.values()):
        parts.append(_seeds(seeds))
    if letters := document.get("DeadLetters"):
        counts = ", ".join(f"{count} of {topic}" for topic, count in letters.items())
        parts.append(Text(f"dead letters: {counts}; see clusterctl dead-letters", "yellow"))
    return Group(*parts, *_warnings(document))


def members_view(document: Document) -> RenderableType:
    return Group(_members(document), *_warnings(document))


def topics_view(document: Document) -> RenderableType:
    """How far each topic is, and how far each node is behind."""
    if not document["Topics"]:
        return Text("nothing has been published yet")
    table = _table("topic", "seq", f"delivered on {_answered_by(document)}", "retained", "acked", "lag")
    for topic in document["Topics"]:
        acked, lag = topic.get("Acked") or {}, topic["Lag"]
        table.add_row(
            Text(topic["Topic"]),
            str(topic["Seq"]),
            str(topic["Delivered"]),
            f"{topic['Retained']} (from {topic['RetainedFrom']})" if topic["Retained"] else "0",
            Text("\n".join(f"{node} {seq}" for node, seq in acked.items())),
            Text("\n").join(Text(f"{node} {behind}", "yellow" if behind else "") for node, behind in lag.items()),
        )
    more = document.get("TopicsLeftOut")
    return Group(table, Text(f"and {more} more topics", "dim")) if more else table


def _heading(document: Document) -> Text:
    healthy = document["Healthy"]
    return Text.assemble(
        ("healthy" if healthy else "not healthy", "green" if healthy else "bold red"),
        f"  leader {document.get('LeaderID') or 'none'}",
        f" at {document['LeaderAddr']}" if document.get("LeaderAddr") else "",
        f"  term {document.get('Term', 0)}",
        f"  answered by {document['AnsweredBy']}" if document.get("AnsweredBy") else "",
    )


def _warnings(document: Document) -> list[RenderableType]:
    return [Text(f"warning: {warning}", "yellow") for warning in document.get("Warnings") or ()]


def _members(document: Document) -> RenderableType:
    members = document.get("Members") or ()
    states = [_state(row, document.get("LeaderID")) for row in members]
    wide = _table("member", "state", "suffrage", *_ADDRESSES, "match", "heard")
    narrow = _table("member", "state", "suffrage", "match", "heard")
    addresses = _table("member", *_ADDRESSES)
    lines = _table("member", "", "address")
    for row, (name, state, suffrage, match, heard) in zip(members, states, strict=True):
        own = [Text(row.get("RaftAddr", "")), Text(row.get("Addr", "")), Text((row.get("Meta") or {}).get("mgmt", ""))]
        wide.add_row(name, state, suffrage, *own, match, heard)
        narrow.add_row(name, state, suffrage, match, heard)
        addresses.add_row(Text(row["ID"]), *own)
        for kind, address in zip(_ADDRESSES, own, strict=True):
            lines.add_row(Text(row["ID"] if kind == _ADDRESSES[0] else ""), Text(kind, "dim"), address)
    return Fitting(wide, Group(narrow, Fitting(addresses, lines)))


def _state(row: Document, leader: str | None) -> tuple[Text, Text, Text, str, str]:
    """A member's cells: name, state, suffrage, match, heard."""
    state, leads, contact = row.get("State", "alive"), row["ID"] == leader, row.get("LastContact")
    return (
        Text(row["ID"], "bold" if leads else ""),
        Text(state, _COLOURS.get(state, "")),
        Text("leader" if leads else row.get("Suffrage", "")),
        "" if row.get("MatchIndex") is None else str(row["MatchIndex"]),
        "" if contact is None else f"{contact:.1f} s ago",
    )


class Fitting:
    """A table where the terminal is wide enough for it, else what stands for it."""

    def __init__(self, table: Table, instead: RenderableType) -> None:
        self._table, self._instead = table, instead

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        natural = Measurement.get(console, options.update(max_width=_ENDLESS), self._table).maximum
        yield self._table if natural <= options.max_width else self._instead


def _answered_by(document: Document) -> str:
    return document.get("AnsweredBy") or "this node"


def _delivered(topics: list[Document], answered_by: str) -> Table:
    table = _table("topic", "seq", f"delivered on {answered_by}", "retained from", "slowest")
    for topic in topics:
        acked = topic.get("Acked") or {}
        slowest = min(acked, key=lambda node: acked[node], default="")
        table.add_row(
            Text(topic["Topic"]),
            str(topic["Seq"]),
            str(topic["Delivered"]),
            str(topic["RetainedFrom"]),
            Text(f"{slowest} at {acked[slowest]}" if slowest else ""),
        )
    return table


def _seeds(seeds: dict[str, str]) -> Table:
    table = _table("seed", "last attempt")
    for seed, state in seeds.items():
        table.add_row(Text(seed), Text(state, "" if state in _SEED_WELL else "yellow"))
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
