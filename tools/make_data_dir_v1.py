"""Make tests/data/data_dir_v1, the data directory of format 1 that every later version must open.

    python -m tools.make_data_dir_v1 [directory]

It was made once and is kept; make it again only into another directory, to compare, or on another platform: LMDB's files carry the page
size, word size and byte order of their machine (here: 4 KiB pages, 64 bit, little-endian). What stands in it is `CONTENT`, which
tests/unit/test_format_v1.py reads back. The identity is fixed, so that a second run gives the same content (not the same bytes: LMDB leaves
transaction numbers and free pages of its own).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import NamedTuple

from coterie.actors.disk.data_dir import DataDir
from coterie.actors.disk.lmdb_env import Identity
from coterie.actors.raft.lmdb_log import LmdbLog
from coterie.actors.raft.log import HardState
from coterie.actors.replication.buffer import BufferWrite, Remembered, StoredBatch
from coterie.actors.replication.lmdb_buffer import LmdbBuffer
from coterie.proto.raft_codec import encode_configuration
from coterie.proto.raft_messages import BARRIER, COMMAND, CONFIGURATION, NONVOTER, NOOP, Configuration, Entry, Server

HERE = Path(__file__).resolve().parent.parent / "tests" / "data" / "data_dir_v1"


class Content(NamedTuple):
    identity: Identity
    created: str
    configurations: tuple[tuple[int, Configuration], ...]
    entries: tuple[Entry, ...]
    hard_state: HardState
    batches: tuple[StoredBatch, ...]
    cursors: dict[str, int]
    applied: tuple[int, int]
    dedupe: tuple[Remembered, ...]
    trim: tuple[tuple[str, int], ...]


def content() -> Content:
    at = bytes.fromhex("010000000edc0a5d8017d78400ffff")
    one = Configuration((Server("n1", "127.0.0.1:9521"),))
    two = Configuration((Server("n1", "127.0.0.1:9521"), Server("n2", "[::1]:9522", NONVOTER)))
    entries = (
        Entry(1, 1, CONFIGURATION, encode_configuration(one)),
        Entry(2, 2, NOOP, None, None, at),
        Entry(3, 2, COMMAND, b"command", None, at),
        Entry(4, 2, COMMAND, b"", b"", at + b"\x01"),
        Entry(5, 3, CONFIGURATION, encode_configuration(two), None, at),
        Entry(6, 3, COMMAND, None, b"extensions", b""),
        Entry(7, 3, COMMAND, bytes(range(256)) * 20, None, at),
        Entry(8, 2**40, BARRIER, None, None, at),
    )
    return Content(
        identity=Identity("n1 نود", "0123456789abcdef0123456789abcdef"),
        created="2026-01-01T00:00:00+00:00",
        configurations=((1, one), (5, two)),
        entries=entries,
        hard_state=HardState(2**40 + 1, "n2"),
        batches=(
            StoredBatch("a/b", 1, 2, 3, b"first"),
            StoredBatch("a/b", 3, 1000, 4, b"second"),
            StoredBatch("a_b", 1, 1, 4, b""),
            StoredBatch("سفارش", 2**33, 1, 7, bytes(range(256)) * 12),
        ),
        cursors={"a/b": 4, "never seen": 9},
        applied=(7, 3),
        dedupe=(Remembered(b"id-2", "a/b", 2, 3), Remembered(b"\x00\xff", "gone", 5, 4)),
        trim=(("a/b", 3),),
    )


def make(directory: Path) -> None:
    given = content()
    directory.mkdir(parents=True)
    node = {"format": 1, "node_id": given.identity.node_id, "incarnation_id": given.identity.incarnation_id, "created": given.created}
    (directory / "node.json").write_text(json.dumps(node, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    data_dir = DataDir.open(directory, given.identity.node_id)
    log = LmdbLog.open(data_dir.raft_path, data_dir.identity)
    log.append([*given.entries[:2], Entry(3, 2, COMMAND, b"cut off")], HardState(2, "n1"))
    log.append(list(given.entries[2:]), given.hard_state, truncate_from=3)
    log.close()
    buffer = LmdbBuffer.open(data_dir.buffer_path(), data_dir.identity)
    buffer.write(BufferWrite(batches=given.batches[:2], applied=(4, 2), dedupe_add=[Remembered(b"id-1", "a/b", 1, 3)]))
    buffer.write(
        BufferWrite(
            batches=given.batches[2:],
            cursors=given.cursors,
            applied=given.applied,
            dedupe_add=given.dedupe,
            dedupe_limit=2,
            trim=given.trim,
        )
    )
    buffer.close()
    data_dir.close()
    for leftover in (directory / "LOCK", directory / "raft" / "lock.mdb", directory / "buffer" / "lock.mdb"):
        leftover.unlink(missing_ok=True)


if __name__ == "__main__":
    make(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
