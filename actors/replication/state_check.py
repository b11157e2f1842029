"""Whether what replicated commands have left in a stored buffer is whole: the snapshot of the handler's state, and the rows of the sessions. Pure.

The head says how many blocks there are, of how many bytes, and up to which command; each is opened and decoded, the sessions' before the handler's own. The row of a
session stands under the index of its command. What the handler's own bytes mean only the handler knows.
"""

from __future__ import annotations

from typing import Any

from coterie.actors.disk.findings import Findings, Reporter, Tables
from coterie.actors.disk.lmdb_env import META
from coterie.actors.replication.buffer import StateHead
from coterie.actors.replication.buffer_format import KEY_STATE, order_of, unpack_block_key, unpack_document, unpack_state
from coterie.proto.command_state import CHUNKS, ROWS, decode_block, unpack_row


def check_state(tables: Tables, report: Reporter) -> Findings[tuple[StateHead | None, int]]:
    """The head of the state and the number of rows. Raises StorageError when the file cannot be read any further."""
    value, head = tables.get(META, KEY_STATE), None
    if value is not None:
        head = yield from report.opened("state", "the head of the handler's state", KEY_STATE, value, unpack_state)
    elif count := tables.count("blocks"):
        yield report.damage("state", f"{count} blocks of a handler's state have no head")
    if head is not None:
        yield from _blocks(tables, report, head)
    return head, (yield from _results(tables, report))


def _blocks(tables: Tables, report: Reporter, head: StateHead) -> Findings[None]:
    count = size = last = 0
    before = ROWS
    for key, value in tables.rows("blocks"):
        if len(key) != 12:
            yield report.damage("state", f"a block of the handler's state has the key {key.hex()}, which names no command and number")
            continue
        if unpack_block_key(key) != (head.index, count):
            index, number = unpack_block_key(key)
            yield report.damage(
                "state", f"the handler's state has block {number} of command {index}, where {count} of {head.index} must stand"
            )
            return
        count += 1
        block = yield from report.opened("state", f"block {count - 1} of the handler's state", key, value, unpack_document)
        if block is None:
            return  # its bytes are not known: the rest would be told as missing
        size += len(block)
        kind, items = (yield from report.opened("state", f"block {count - 1} of the handler's state", key, value, _decoded)) or (before, [])
        if kind < before:
            yield report.damage("state", f"block {count - 1} of the handler's state has rows of sessions, behind what the handler gave")
        before = kind
        for index in _indexes(kind, items):
            if not last < index <= head.index:
                yield report.damage(
                    "state", f"the handler's state up to command {head.index} has the row of command {index} behind that of {last}"
                )
            last = max(last, index)
    if (count, size) != (head.blocks, head.size):
        yield report.damage("state", f"the handler's state has {count} blocks of {size} bytes, and says {head.blocks} of {head.size}")


def _decoded(body: bytes) -> tuple[int, list[Any]]:
    return decode_block(unpack_document(body))


def _indexes(kind: int, items: list[Any]) -> list[int]:
    return [row[0] for row in items] if kind != CHUNKS else []


def _results(tables: Tables, report: Reporter) -> Findings[int]:
    rows = 0
    for key, value in tables.rows("results"):
        if len(key) != 8:
            yield report.damage("result", f"a row of the commands' sessions has the key {key.hex()}, which is no index")
            continue
        rows += 1
        index = order_of(key)
        row = yield from report.opened("result", f"the row of command {index}", key, value, lambda body: unpack_row(unpack_document(body)))
        if row is not None and row[0] != index:
            yield report.damage("result", f"the row of command {index} says it is of command {row[0]}")
    return rows
