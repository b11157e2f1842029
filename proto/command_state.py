"""A snapshot of a handler's state, in blocks, as buffers keep it and nodes pass it on (docs/formats.md, "Handler state").

    block = [1, [row...]]        rows of the commands' sessions, by index; these blocks come first
          | [2, [chunk...]]      what `handle_snapshot` gave, in order, each chunk as it came        msgpack, new family

    row   = [index, session, number, outcome, dropped]       outcome: nil where it is not remembered, else [done, result]; dropped: 0 in a snapshot

A chunk is never cut, so that `handle_restore` gets what `handle_snapshot` gave; a block is closed when it has reached `BLOCK_BYTES`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgpack

from coterie.proto.errors import WireError

ROWS, CHUNKS = 1, 2
BLOCK_BYTES: Final = 1 << 20
MAX_CHUNK: Final = 16 << 20
MAX_BLOCK: Final = BLOCK_BYTES + MAX_CHUNK + 64
MOST_ROWS: Final = 4096  # of one block

Row = list[Any]  # [int, str, int, [bool, bytes] | None, int]


def chunk_blocks(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Raises ValueError for what is no chunk."""
    waiting: list[bytes] = []
    size = 0
    for chunk in chunks:
        if not isinstance(chunk, (bytes, bytearray, memoryview)):
            raise ValueError(f"a chunk of the snapshot is of type {type(chunk).__name__}; give bytes")
        if len(chunk) > MAX_CHUNK:
            raise ValueError(f"a chunk of the snapshot has {len(chunk)} bytes; give it in pieces of at most {MAX_CHUNK}")
        waiting.append(bytes(chunk))
        size += len(chunk) + 8
        if size >= BLOCK_BYTES:
            yield _packed(CHUNKS, waiting)
            waiting, size = [], 0
    if waiting:
        yield _packed(CHUNKS, waiting)


def row_blocks(rows: Iterable[Row]) -> Iterator[bytes]:
    """One block at least, so that no state is without any."""
    waiting: list[Row] = []
    for row in rows:
        waiting.append(row)
        if len(waiting) == MOST_ROWS:
            yield _packed(ROWS, waiting)
            waiting = []
    yield _packed(ROWS, waiting)


def pack_row(row: Row) -> bytes:
    packed: bytes = msgpack.packb(row, use_bin_type=True)
    return packed


def unpack_row(data: bytes) -> Row:
    """Raises WireError."""
    return _checked_row(_unpacked(data))


def decode_block(block: bytes) -> tuple[int, list[Any]]:
    """ROWS and rows, or CHUNKS and chunks. Raises WireError."""
    value = _unpacked(block)
    if value.__class__ is not list or len(value) != 2 or value[1].__class__ is not list:
        raise WireError("handler state: a block is [kind, items]")
    kind, items = value
    if kind == ROWS:
        for row in items:
            _checked_row(row)
    elif kind != CHUNKS or any(chunk.__class__ is not bytes for chunk in items):
        raise WireError("handler state: a block of an unknown kind, or of no chunks")
    return kind, items


def _packed(kind: int, items: list[Any]) -> bytes:
    packed: bytes = msgpack.packb([kind, items], use_bin_type=True)
    return packed


def _unpacked(data: bytes) -> Any:
    try:
        return msgpack.unpackb(data, raw=False)
    except (ValueError, msgpack.UnpackException) as error:
        raise WireError(f"handler state: {error or type(error).__name__}") from None


def _checked_row(row: Any) -> Row:
    if row.__class__ is list and len(row) == 5 and [value.__class__ for value in (*row[:3], row[4])] == [int, str, int, int]:
        outcome = row[3]
        if outcome is None or (outcome.__class__ is list and [value.__class__ for value in outcome] == [bool, bytes]):
            return row
    raise WireError("handler state: a row is [index, session, number, outcome, dropped]")
