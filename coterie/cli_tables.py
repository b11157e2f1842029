"""The status as tables, for a person at a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

_COLOURS = {"alive": "green", "suspect": "yellow", "failed": "red", "unknown": "red", "left": "dim"}


def show_status(document: dict[str, Any], console: Console | None = None) -> None:
    """document: the answer of GET /status."""
    console = console or Console(highlight=False)
    healthy = document["Healthy"]
    leader = document.get("LeaderID") or "none"
    console.print(
        Text.assemble(
            ("healthy" if healthy else "not healthy", "green" if healthy else "bold red"),
            f"  leader {leader}",
            f" at {document['LeaderAddr']}" if document.get("LeaderAddr") else "",
            f"  term {document.get('Term', 0)}",
            f"  answered by {document['AnsweredBy']}" if document.get("AnsweredBy") else "",
        )
    )
    console.print(_members(document))
    if document.get("Topics"):
        console.print(_topics(document["Topics"]))
    for warning in document.get("Warnings") or ():
        console.print(Text(f"warning: {warning}", "yellow"))


def _members(document: dict[str, Any]) -> Table:
    table = _table("member", "state", "suffrage", "raft", "gossip", "mgmt", "match", "heard")
    for row in document.get("Members") or ():
        state = row.get("State", "alive")
        name = Text(row["ID"], "bold" if row["ID"] == document.get("LeaderID") else "")
        contact = row.get("LastContact")
        table.add_row(
            name,
            Text(state, _COLOURS.get(state, "")),
            Text(row.get("Suffrage", "")),
            Text(row.get("RaftAddr", "")),
            Text(row.get("Addr", "")),
            Text((row.get("Meta") or {}).get("mgmt", "")),
            "" if row.get("MatchIndex") is None else str(row["MatchIndex"]),
            "" if contact is None else f"{contact:.1f} s ago",
        )
    return table


def _topics(topics: list[dict[str, Any]]) -> Table:
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


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
