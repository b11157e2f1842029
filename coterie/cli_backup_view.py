"""What stands in a backup: as a document, as a table, and whether it is whole, which is `clusterctl check` of its file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coterie.cli_errors import CommandError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from coterie.actors.stores.backups import Verified
    from coterie.proto.raft_messages import Configuration

Document = dict[str, Any]


def check_backup(file: Path) -> Document:
    """What stands in the file, and what is wrong with it. Raises CommandError when it cannot be read."""
    from coterie.actors.stores.backups import verify
    from coterie.proto.errors import WireError

    try:
        with file.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            return {"sound": True, **backup_document(file, size, verify(stream)), "findings": []}
    except WireError as error:
        finding = {
            "where": "backup",
            "kind": "file",
            "what": str(error),
            "remedy": "take another one, or restore an older one",
            "damage": True,
        }
        return {"sound": False, "path": str(file), "findings": [finding]}
    except OSError as error:
        raise CommandError(f"{file}: {error.strerror}; give a file that can be read") from None


def backup_document(file: Path, size: int, verified: Verified) -> Document:
    header = verified.header
    return {
        "path": str(file),
        "bytes": size,
        "node": header.node_id,
        "created": header.created,
        "version": header.version,
        "online": header.online,
        "index": header.last[0],
        "term": header.last[1],
        "applied": header.applied[0],
        "entries": verified.entries,
        "records": verified.records,
        "message_ids": len(verified.content.ids),
        "topics": {
            name: {"next_seq": next_seq, "first_seq": first_seq, "cursor": header.cursors.get(name, 0)}
            for name, (next_seq, first_seq) in verified.content.topics.items()
        },
        "configuration": {"index": header.configuration_index, "servers": servers_document(header.configuration)},
    }


def servers_document(configuration: Configuration) -> list[Document]:
    """In the form of a peers file."""
    from coterie.proto.raft_messages import VOTER

    return [{"id": s.id, "address": s.address, "non_voter": s.suffrage != VOTER} for s in configuration.servers]


def view_backup(document: Document) -> RenderableType:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    sound = document["sound"]
    heading = Text.assemble(("sound" if sound else "damaged", "green" if sound else "bold red"), f"  {document['path']}")
    if not sound:
        finding = document["findings"][0]
        return Group(
            heading, Text.assemble(("damage", "red"), f"  {finding['what']}"), Text.assemble(("remedy", "bold"), f"  {finding['remedy']}")
        )
    kind = "running" if document["online"] else "stopped"
    servers = ", ".join(s["id"] + (" (learner)" if s["non_voter"] else "") for s in document["configuration"]["servers"])
    seen = Table.grid(padding=(0, 2))
    for name, value in (
        ("backup", f"of {document['node']} ({kind}), {document['created']}, {document['bytes']} bytes"),
        ("log", f"up to entry {document['index']} of term {document['term']}, {document['entries']} of them beyond the snapshot"),
        ("holds", f"{len(document['topics'])} topics, {document['records']} records, {document['message_ids']} message ids"),
        ("quorum", f"{servers or 'none'} (entry {document['configuration']['index']})"),
    ):
        seen.add_row(Text(name, "dim"), Text(value))
    return Group(heading, seen)
