"""The answers as tables, for a person at a terminal. Each view takes the document that the command would print as JSON."""

from __future__ import annotations

from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

Document = dict[str, Any]

_COLOURS = {"alive": "green", "suspect": "yellow", "failed": "red", "unknown": "red", "left": "dim"}
_SEED_WELL = ("reached", "this node", "not dialled yet")


def show(view: RenderableType, console: Console | None = None) -> None:
    (console or Console(highlight=False)).print(view)


def status_view(document: Document) -> RenderableType:
    """document: the answer of GET /status."""
    parts: list[RenderableType] = [_heading(document), _members(document)]
    if document.get("Topics"):
        parts.append(_delivered(document["Topics"]))
    seeds = document.get("Seeds") or {}
    if any(state not in _SEED_WELL for state in seeds.values()):
        parts.append(_seeds(seeds))
    return Group(*parts, *_warnings(document))


def members_view(document: Document) -> RenderableType:
    return Group(_members(document), *_warnings(document))


def topics_view(document: Document) -> RenderableType:
    """How far each topic is, and how far each node is behind."""
    if not document["Topics"]:
        return Text("nothing has been published yet")
    table = _table("topic", "seq", f"delivered on {document.get('AnsweredBy') or 'this node'}", "retained", "acked", "lag")
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
    return table


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


def _members(document: Document) -> Table:
    table = _table("member", "state", "suffrage", "raft", "gossip", "mgmt", "match", "heard")
    for row in document.get("Members") or ():
        state = row.get("State", "alive")
        leads = row["ID"] == document.get("LeaderID")
        contact = row.get("LastContact")
        table.add_row(
            Text(row["ID"], "bold" if leads else ""),
            Text(state, _COLOURS.get(state, "")),
            Text("leader" if leads else row.get("Suffrage", "")),
            Text(row.get("RaftAddr", "")),
            Text(row.get("Addr", "")),
            Text((row.get("Meta") or {}).get("mgmt", "")),
            "" if row.get("MatchIndex") is None else str(row["MatchIndex"]),
            "" if contact is None else f"{contact:.1f} s ago",
        )
    return table


def _delivered(topics: list[Document]) -> Table:
    table = _table("topic", "seq", "delivered here", "retained from", "slowest")
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
