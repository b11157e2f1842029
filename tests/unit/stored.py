"""A data directory of a stopped node, made without a node: for what reads and writes such directories."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

import lmdb

from coterie.actors.disk.data_dir import DataDir
from coterie.actors.disk.lmdb_env import open_engine
from coterie.actors.raft import lmdb_log
from coterie.actors.raft.lmdb_log import LmdbLog
from coterie.actors.raft.log import HardState
from coterie.actors.replication import lmdb_buffer
from coterie.actors.replication.buffer import BufferWrite, NewState, Remembered, StateHead, StoredBatch
from coterie.actors.replication.lmdb_buffer import LmdbBuffer
from coterie.actors.replication.state_machine import dedupe_key
from coterie.proto.command_state import chunk_blocks, pack_row, row_blocks
from coterie.proto.raft_codec import encode_configuration
from coterie.proto.raft_messages import COMMAND, CONFIGURATION, NOOP, Configuration, Entry, Server
from coterie.proto.record_batch import encode_batch, encode_entry
from coterie.proto.roster import encode_document

SERVERS: Final = Configuration(tuple(Server(f"n{n}", f"127.0.0.1:{9520 + n}") for n in (1, 2, 3)))
TERM: Final = 4

ROW: Final = [7, "session", 1, [True, b"result"], 0]
FIRST_ROW: Final = [0, "", 1, None, 0]
BLOCKS: Final = [*row_blocks([ROW]), *chunk_blocks([b"the handler's own", b"state"])]
STATE: Final = NewState(StateHead(9, 30, len(BLOCKS), sum(map(len, BLOCKS))), BLOCKS)


def command(number: int) -> bytes:
    return encode_batch("orders", 1_000 + number, [b"record %d" % number]).data


def entries(first: int, last: int) -> list[Entry]:
    """A configuration, a no-op, then commands; the term rises every ten entries."""
    found = []
    for index in range(first, last + 1):
        term = 1 + min(index // 10, TERM - 1)
        if index == 1:
            found.append(Entry(index, term, CONFIGURATION, encode_configuration(SERVERS)))
        elif index == 2:
            found.append(Entry(index, term, NOOP, None))
        else:
            found.append(Entry(index, term, COMMAND, encode_entry([command(index)])))
    return found


def make(path: Path, node: str = "n1", last: int = 40, applied: int = 35, compacted: int = 10) -> Path:
    """A node that has a log of `compacted + 1`..`last`, and a buffer that has applied up to `applied`: a record a command, the first 5 of them dropped."""
    directory = DataDir.open(path, node)
    log = LmdbLog.open(directory.raft_path, directory.identity)
    buffer = LmdbBuffer.open(directory.buffer_path(), directory.identity)
    try:
        log.append(entries(1, last), HardState(TERM, "n1"))
        if compacted:
            log.compact(compacted)
        batches = [StoredBatch("orders", index - 2, 1, index, command(index)) for index in range(3, applied + 1)]
        ids = [Remembered(dedupe_key("orders", f"id-{index}"), "orders", index - 2, index) for index in range(30, applied + 1)]
        buffer.write(
            BufferWrite(
                batches=batches,
                topics={"orders": applied - 1},
                cursors={"orders": applied - 3},
                applied=(applied, log.term(applied)),
                dedupe_add=ids,
                roster=encode_document(()),
            )
        )
        buffer.write(BufferWrite(trim=[("orders", 6)]))
    finally:
        buffer.close()
        log.close()
        directory.close()
    return path


def add_state(path: Path) -> Path:
    """What commands leave: a snapshot of the handler's state, and rows of sessions."""
    directory = DataDir.open(path, "n1")
    buffer = LmdbBuffer.open(directory.buffer_path(), directory.identity)
    try:
        buffer.write(BufferWrite(state=STATE, results={0: pack_row(FIRST_ROW), 7: pack_row(ROW)}))
    finally:
        buffer.close()
        directory.close()
    return path


def change(path: Path, part: str, table: str, key: bytes, value: bytes | None) -> None:
    """Put `value` under `key`, or take it away."""
    layout = {"raft": lmdb_log.LAYOUT, "buffer": lmdb_buffer.LAYOUT}[part]
    with open_engine(path / part, layout, 1 << 30) as environment:
        database = environment.open_db(table.encode(), create=False)
        with environment.begin(write=True, db=database) as transaction:
            transaction.delete(key) if value is None else transaction.put(key, value)


def rows(path: Path, part: str, table: str) -> list[tuple[bytes, bytes]]:
    layout = {"raft": lmdb_log.LAYOUT, "buffer": lmdb_buffer.LAYOUT}[part]
    with open_engine(path / part, layout, 1 << 30) as environment:
        try:
            database = environment.open_db(table.encode(), create=False)
        except lmdb.NotFoundError:
            return []
        with environment.begin(db=database) as transaction:
            return list(transaction.cursor())


def fingerprints(path: Path) -> dict[str, str]:
    """Of every file, but LMDB's lock files, which it makes anew."""
    return {
        str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(path.rglob("*"))
        if file.is_file() and file.name != "lock.mdb"
    }
