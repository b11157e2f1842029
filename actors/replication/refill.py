"""Batches that are read from the buffer for a handler, when they are not in memory any more."""

from __future__ import annotations

from typing import Final

from coterie.actors.errors import StorageError
from coterie.actors.replication.buffer import StoredBatch
from coterie.actors.replication.messages import NewBatch
from coterie.proto.errors import WireError
from coterie.proto.record_batch import decode_batch

READ_BYTES: Final = 1 << 20  # at a time
READ_BATCHES: Final = 256


def opened(stored: StoredBatch) -> NewBatch:
    """Raises StorageError."""
    try:
        batch = decode_batch(stored.data)
    except WireError as error:  # it was valid when it was stored
        raise StorageError(
            f"the buffer's batch {stored.topic!r} seq {stored.first_seq} is not readable: {error}; remove the buffer's directory"
        ) from None
    return NewBatch(stored.topic, stored.first_seq, stored.index, batch.time / 1000, batch.records, len(stored.data))
