"""The process that reads a data directory for `clusterctl check`: `python -m coterie.check_reader DIRECTORY [BUFFER]`.

It tells what it finds on standard output, a line of JSON each, and ends. It is a process of its own because LMDB trusts its pages: garbage in one of them can crash
whoever reads it, and that must be a finding and not the end of the check.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs

from coterie.actors.disk.findings import Finding, Progress
from coterie.actors.errors import StorageError
from coterie.actors.stores.inspection import Inspection, inspect
from coterie.proto.raft_messages import BARRIER, COMMAND, CONFIGURATION, NOOP, VOTER

KINDS = {COMMAND: "commands", NOOP: "no-ops", BARRIER: "barriers", CONFIGURATION: "configurations"}


def main(arguments: Sequence[str]) -> None:
    directory, *buffer = map(Path, arguments)
    try:
        for item in inspect(directory, *buffer):
            if isinstance(item, Finding):
                say("finding", attrs.asdict(item))
            elif isinstance(item, Progress):
                say("progress", list(item))
            else:
                say("end", document(item))
    except StorageError as error:
        say("refused", str(error))


def say(what: str, value: Any) -> None:
    sys.stdout.write(json.dumps({what: value}, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def document(seen: Inspection) -> dict[str, Any]:
    """What was seen, in the names of `clusterctl check --output json`."""
    log, buffer = seen.log, seen.buffer
    return {
        "path": seen.path,
        "node": seen.identity.node_id if seen.identity is not None else None,
        "created": seen.created or None,
        "damage": seen.damage,
        "not_shown": [{"where": where, "kind": kind, "count": count} for (where, kind), count in seen.more.items()],
        "raft": None
        if log is None
        else {
            "first": log.first,
            "last": log.last,
            "last_term": log.last_term,
            "entries": log.entries,
            "bytes": log.data_bytes,
            "kinds": {KINDS.get(kind, str(kind)): count for kind, count in sorted(log.kinds.items())},
            "term": log.hard_state.term,
            "voted_for": log.hard_state.voted_for,
            "configuration": {
                "index": log.configuration_index,
                "servers": [{"id": s.id, "address": s.address, "non_voter": s.suffrage != VOTER} for s in log.configuration.servers],
            },
        },
        "buffer": None
        if buffer is None
        else {
            "applied": buffer.applied[0],
            "applied_term": buffer.applied[1],
            "topics": {
                name: {"next_seq": state.next_seq, "first_seq": state.first_seq, "cursor": state.cursor, "batches": state.batches}
                for name, state in buffer.topics.items()
            },
            "batches": buffer.batches,
            "records": buffer.records,
            "bytes": buffer.data_bytes,
            "message_ids": buffer.message_ids,
            "roster": buffer.members,
            "state": None
            if buffer.state is None
            else {
                "command": buffer.state.index,
                "entry": buffer.state.log_index,
                "blocks": buffer.state.blocks,
                "bytes": buffer.state.size,
            },
            "results": buffer.results,
        },
    }


if __name__ == "__main__":
    main(sys.argv[1:])
