"""`clusterctl raft`: the Raft state of one node, and of every server as the leader knows it.

The node that is asked tells of itself; only a leader knows how far the others are. So where another node leads, the leader is asked too, at the address that the
node names, and its rows take the place of the node's own. A leader that does not answer is said on standard error, and the rows stay as the node knows them.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from coterie import cli_http
from coterie.cli_ask import as_table, say
from coterie.cli_errors import REFUSED, UNUSABLE, WELL, CommandError
from coterie.cli_target import Target

if TYPE_CHECKING:
    from rich.console import RenderableType

Document = dict[str, Any]


def run(target: Target, output: str | None) -> int:
    """The command; its exit code. Raises CommandError, NoAnswer."""
    if target.grpc:
        raise CommandError("--mgmt-proto grpc: the Raft state is told over HTTP; give the address of the node's HTTP server")
    document = with_leader(target, ask_raft(target))
    if as_table(output):
        from coterie.cli_tables import show

        show(view(document))
    else:
        say(document)
    return code_of(document)


def ask_raft(target: Target) -> Document:
    """The document of GET /raft. Raises CommandError, NoAnswer."""
    document = target.in_turn(lambda addr: cli_http.ask(target, addr, "GET", "/raft"), repeatable=True)
    if not isinstance(document.get("Servers"), list):
        raise CommandError(str(document.get("error") or "the answer holds no servers; is this a management address?"), REFUSED)
    return document


def with_leader(target: Target, document: Document) -> Document:
    """The node's document, with the rows that its leader gives. "ServersBy": whose they are."""
    leader, where = document["LeaderID"], document.get("LeaderHTTP")
    if leader in ("", document["Node"]):
        return {**document, "ServersBy": document["Node"]}
    try:
        if not where:
            raise CommandError(f"the leader {leader} has told no HTTP address")
        theirs = ask_raft(target.at(where))
        if theirs["Role"] != "leader":
            raise CommandError(f"{leader} leads no more")
    except CommandError as error:
        sys.stderr.write(f"clusterctl: {error}; the servers are shown as {document['Node']} knows them\n")
        return {**document, "ServersBy": document["Node"]}
    return {**document, "Servers": theirs["Servers"], "ServersBy": leader}


def code_of(document: Document) -> int:
    """0 well; 1 a server of the quorum is unreachable, or needs a snapshot; 2 no leader is known."""
    if not document["LeaderID"]:
        return UNUSABLE
    return REFUSED if any(server["State"] in ("unreachable", "snapshot") for server in document["Servers"]) else WELL


def view(document: Document) -> RenderableType:
    """document: as `with_leader` gives it."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from coterie.cli_tables import Fitting

    own = Table.grid(padding=(0, 2))
    for name, value in _own_rows(document):
        own.add_row(Text(name, "dim"), Text(value))
    heading = Text.assemble(
        (document["Node"], "bold"), f"  {document['Role']}  term {document['Term']}  leader {document['LeaderID'] or 'none'}"
    )
    wide, narrow, addresses = (Table(box=None, pad_edge=False, header_style="dim") for _ in range(3))
    columns = ("server", "address", "suffrage", "state", "match", "lag", "in flight", "heard")
    for column in columns:
        wide.add_column(column, overflow="fold")
        if column != "address":
            narrow.add_column(column, overflow="fold")
    for column in columns[:2]:
        addresses.add_column(column, overflow="fold")
    for server in document["Servers"]:
        name, address, *rest = _cells(server)
        wide.add_row(name, address, *rest)
        narrow.add_row(name, *rest)
        addresses.add_row(name, address)
    seen_by = Text(f"servers as {document['ServersBy']} knows them", "dim")
    return Group(heading, own, Text(), seen_by, Fitting(wide, Group(narrow, addresses)))


def _own_rows(document: Document) -> list[tuple[str, str]]:
    fsync = document["Fsync"]
    snapshot = document["SnapshotIndex"]
    times = "none yet"
    if fsync["Count"]:
        bounds = [("median", fsync["MedianBelow"]), ("99 %", fsync["P99Below"])]
        below = ", ".join(f"{name} below {bound * 1000:g} ms" for name, bound in bounds if bound is not None)
        times = f"{fsync['Count']}, mean {fsync['Mean'] * 1000:.2f} ms" + (f", {below}" if below else "")
    size = document["LogBytes"]
    return [
        ("log", f"entries {document['FirstIndex']}..{document['LastIndex']}, the last of term {document['LastTerm']}"),
        ("stored", str(document["StoredIndex"])),
        ("committed", str(document["CommitIndex"])),
        ("applied", str(document["AppliedIndex"])),
        ("compacted to", f"{snapshot} (term {document['SnapshotTerm']})" if snapshot else "nothing"),
        ("configuration", f"entry {document['ConfigurationIndex']}"),
        ("voted for", document["VotedFor"] or "nobody in this term"),
        ("file", "none: all in memory" if size is None else f"{size / (1 << 20):.1f} MiB"),
        ("syncs", times),
    ]


def _cells(server: Document) -> tuple[Any, ...]:
    from rich.text import Text

    def number(key: str) -> str:
        return "" if server[key] is None else str(server[key])

    contact, state = server["LastContact"], server["State"]
    colour = {"unreachable": "red", "snapshot": "yellow", "probe": "yellow", "leader": "bold"}.get(state, "")
    return (
        Text(server["ID"], "bold" if state == "leader" else ""),
        Text(server["Address"]),
        Text(server["Suffrage"] + (", leaving" if server["Leaving"] else "")),
        Text(state, colour),
        number("MatchIndex"),
        number("Lag"),
        str(server["Inflight"] or ""),
        "" if contact is None else f"{contact:.1f} s ago",
    )
