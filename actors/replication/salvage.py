"""A damaged buffer is moved aside, never deleted, and a new one begins. What it held comes again: from this node's own log where that still begins at its
beginning, else by a snapshot of a leader. Only the cursors are this node's alone; those that can still be read are taken over, so that the handler does not
have everything once more.
"""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path

from coterie.actors.disk.lmdb_env import Identity, unseal
from coterie.actors.disk.lmdb_view import LmdbView
from coterie.actors.errors import StorageError
from coterie.actors.replication.buffer import BufferWrite
from coterie.actors.replication.buffer_format import unpack_topic
from coterie.actors.replication.lmdb_buffer import LAYOUT, LmdbBuffer


def read_cursors(path: Path) -> dict[str, int]:
    """The cursors that are whole."""
    cursors: dict[str, int] = {}
    with contextlib.suppress(StorageError), contextlib.closing(LmdbView.open(path, LAYOUT)) as view:
        for key, value in view.rows("topics"):
            body = unseal(key, value)
            if body is not None:
                with contextlib.suppress(ValueError, struct.error):
                    cursor = unpack_topic(body)[1].cursor
                    if cursor:
                        cursors[key.decode()] = cursor
    return cursors


def begin_anew(path: Path, identity: Identity, cursors: dict[str, int]) -> LmdbBuffer:
    """An empty buffer with these cursors. Raises StorageError."""
    buffer = LmdbBuffer.open(path, identity)
    if cursors:
        buffer.write(BufferWrite(cursors=cursors))
        buffer.sync()
    return buffer
