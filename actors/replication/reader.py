"""Bytes from elsewhere become batches: entries of the log that were not packed here, and batches from a leader's stream.

What is not valid is skipped and counted, never an exception: for an entry of the log the verdict is the same on every node (it rests on the bytes
alone), so skipping it keeps them equal.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from coterie.actors.replication.buffer import StoredBatch
from coterie.actors.replication.messages import NewBatch
from coterie.proto.errors import WireError
from coterie.proto.raft_messages import COMMAND, Entry
from coterie.proto.record_batch import Batch, decode_batch, decode_entry, kind_of
from coterie.proto.roster import RosterCommand, UnknownOp, decode_command
from coterie.transport.logs import Log

NOTHING: Final[tuple[list[Batch], RosterCommand | None]] = ([], None)


class Reader:
    """count(reason, n): what was skipped."""

    def __init__(self, count: Callable[[str, int], None], log: Log) -> None:
        self._count, self._log = count, log

    def entry(self, entry: Entry) -> tuple[list[Batch], RosterCommand | None]:
        """What a committed entry holds: batches, or a roster command; neither where it is of another kind (no-op, configuration, kinds of later versions)."""
        if entry.kind != COMMAND or not entry.data:
            return NOTHING
        kind = kind_of(entry.data)
        try:
            if kind == "batch":
                return decode_entry(entry.data), None
            if kind == "roster":
                return [], decode_command(entry.data)
            self._count("entries_unknown", 1)
        except UnknownOp:
            self._count("entries_unknown", 1)
        except WireError as error:
            self._count("entries_malformed", 1)
            self._log.error("entry %d of the log is not valid and is skipped on every node: %s", entry.index, error)
        return NOTHING

    def streamed(self, batches: list[StoredBatch], known: dict[str, int]) -> tuple[list[StoredBatch], list[NewBatch]]:
        """The batches that are new here, to store and to deliver. known: {topic: next seq}, moved on by what is taken. A hole is left for delivery to report."""
        stored, fresh = [], []
        for batch in batches:
            next_seq = known.get(batch.topic, 1)
            if batch.first_seq + batch.count <= next_seq:
                continue
            opened = self._streamed(batch, next_seq)
            if opened is None:
                self._count("stream_malformed", 1)
                continue
            known[batch.topic] = batch.first_seq + batch.count
            stored.append(batch)
            fresh.append(NewBatch(batch.topic, batch.first_seq, batch.index, opened.time / 1000, opened.records, len(batch.data)))
        return stored, fresh

    def _streamed(self, batch: StoredBatch, next_seq: int) -> Batch | None:
        try:
            opened = decode_batch(batch.data)
        except WireError as error:
            self._log.warning("a streamed batch of %r at seq %d is not valid and is dropped: %s", batch.topic, batch.first_seq, error)
            return None
        if opened.topic != batch.topic or len(opened.records) != batch.count or batch.first_seq < next_seq:
            self._log.warning(
                "a streamed batch of %r at seq %d does not hold what its head says and is dropped", batch.topic, batch.first_seq
            )
            return None
        return opened
