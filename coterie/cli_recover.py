"""`clusterctl recover`: a new configuration for a stopped node whose quorum is lost.

The directory is verified as a whole first (`cli_check`), then what would change is worked out, then, unless it is a dry run, the directory is copied and
changed.
What is shown is the same in both cases, but for the copy.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coterie.cli_ask import as_table, say
from coterie.cli_backup import read_peers, refusing
from coterie.cli_backup_view import servers_document
from coterie.cli_check import check_directory, progress
from coterie.cli_errors import REFUSED, CommandError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from coterie.actors.stores.recovering import Plan

Document = dict[str, Any]


def recover_from(data_dir: str, output: str | None, peers: str, dry_run: bool, copy_to: str | None, repl_buffer_dir: str | None) -> None:
    """The command. Raises CommandError."""
    from coterie.actors.stores.recovering import plan, recover

    directory, buffer = Path(data_dir), Path(repl_buffer_dir) if repl_buffer_dir else None
    configuration = read_peers(peers)
    found = check_directory(directory, buffer, progress())
    if not found["sound"]:
        worst = next(finding for finding in found["findings"] if finding["damage"])
        raise CommandError(
            f"{data_dir} is damaged, and nothing was changed: {worst['where']}: {worst['what']}; see clusterctl check; recover another server that is left, "
            "or start this one once, so that it keeps what is sound, or restore a backup",
            REFUSED,
        )
    with refusing():
        if dry_run:
            planned, copy = plan(directory, buffer, configuration), None
        else:
            stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
            copy = Path(copy_to) if copy_to else directory.absolute().with_name(f"{directory.absolute().name}.before-recover-{stamp}")
            planned = recover(directory, buffer, configuration, copy, progress())
    document = plan_document(data_dir, planned, copy)
    if as_table(output):
        from coterie.cli_tables import show

        show(view(document))
    else:
        say(document)


def plan_document(path: str, planned: Plan, copy: Path | None) -> Document:
    before, after = planned.hard_state
    return {
        "path": path,
        "node": planned.node_id,
        "changed": copy is not None,
        "copy": None if copy is None else str(copy),
        "log": {"first": planned.first, "last": planned.last[0], "last_term": planned.last[1], "applied": planned.applied},
        "lost_to_damage": None if planned.doubt is None else {"up_to": planned.doubt.last or None},
        "taken_as_committed": planned.taken_as_committed,
        "entry": {"index": planned.index, "term": planned.term},
        "term": {"before": before.term, "after": after.term},
        "configuration": {
            "index": planned.configuration_index,
            "before": servers_document(planned.before),
            "after": servers_document(planned.after),
        },
    }


def view(document: Document) -> RenderableType:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    changed, log, entry = document["changed"], document["log"], document["entry"]
    heading = Text.assemble(
        ("recovered" if changed else "dry run: nothing was changed", "green" if changed else "bold"),
        f"  {document['path']}  node {document['node']}",
    )
    facts = Table.grid(padding=(0, 2))
    rows = [
        ("log", f"entries {log['first']}..{log['last']}, the last of term {log['last_term']}; applied {log['applied']}"),
        ("taken as committed", f"{document['taken_as_committed']} entries beyond what is applied"),
        ("new entry", f"{entry['index']} of term {entry['term']}, with the configuration below"),
        ("term", f"{document['term']['before']}, then {document['term']['after']}"),
    ]
    if document["lost_to_damage"] is not None:
        rows.append(
            (
                "lost to damage",
                f"entries up to {document['lost_to_damage']['up_to'] or 'one that is not known'}, for good if no other server has them",
            )
        )
    if changed:
        rows.append(("copy of before", document["copy"]))
    for name, value in rows:
        facts.add_row(Text(name, "dim"), Text(str(value)))
    servers = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("server", "until now", "from now on"):
        servers.add_column(column, overflow="fold")
    before, after = ({server["id"]: server for server in document["configuration"][when]} for when in ("before", "after"))
    for name in dict.fromkeys([*before, *after]):
        gone = name not in after
        servers.add_row(Text(name), Text(_shown(before.get(name))), Text(_shown(after.get(name)), "red" if gone else ""))
    left = [name for name in after if name != document["node"]]
    advice = f"do the same, with the same file, on {', '.join(left)}, as far as they have a log, before any is started" if left else ""
    if sum(not server["non_voter"] for server in after.values()) > 2:
        advice += (
            "; with three voters or more, shorter logs can outvote the longest: make the server whose log has the greatest term, then the greatest "
            "entry, the only voter first (see docs/operations.md)"
        )
    return Group(heading, facts, Text(), servers, *([Text(advice, "dim")] if advice else []))


def _shown(server: Document | None) -> str:
    if server is None:
        return "not in it"
    return f"{'learner' if server['non_voter'] else 'voter'} at {server['address']}"
