"""The snapshot of a go-cluster node as a state machine of ours: its roster, and what this node's buffer knows of topics.

The roster is all that such a node keeps, so that is all it tells. Where each topic stands as of its last entry is what this node knows: behind the records of the
entries up to there, of log and stream. That is right where nobody else has numbered records meanwhile, and only then may it be installed (`raft/foreign_snapshots`).
What was in the entries that this node never had is lost to it, and has no numbers.

No number is given twice, also where the buffer was lost and only the cursors were saved: a topic goes on at its cursor at least.
"""

from __future__ import annotations

from collections.abc import Sequence

from coterie.actors.disk.lmdb_env import Damaged
from coterie.actors.errors import StorageError
from coterie.actors.replication.buffer import BufferWrite, Remembered, ReplicationBuffer, TopicState
from coterie.actors.replication.recovery import next_seq_at
from coterie.actors.replication.snapshots import Content
from coterie.proto.errors import WireError
from coterie.proto.roster import decode_document


def restore_roster(
    buffer: ReplicationBuffer,
    document: bytes,
    applied: tuple[int, int],
    mark: bytes,
    entered: Sequence[Remembered] = (),
    left: Sequence[bytes] = (),
) -> Content:
    """Make `document` the roster as of the entry `applied`. entered, left: message ids that the buffer has not been told yet. One transaction. -> what the state
    machine is then. Raises WireError, StorageError: nothing was changed."""
    decode_document(document)
    next_seqs, restart = {}, {}
    for topic, stored in buffer.load().topics.items():
        next_seqs[topic] = _place(buffer, topic, stored, applied[0])
        if stored.cursor > max(1, stored.next_seq):
            next_seqs[topic] = restart[topic] = stored.cursor
    buffer.write(BufferWrite(restart=restart, applied=applied, roster=document, mark=mark, dedupe_add=entered, dedupe_drop=left))
    after = buffer.load()
    topics = {topic: (next_seqs[topic], stored.first_seq) for topic, stored in after.topics.items() if stored.next_seq}
    return Content(applied, topics, list(after.dedupe), document)


def _place(buffer: ReplicationBuffer, topic: str, stored: TopicState, index: int) -> int:
    try:
        return next_seq_at(buffer, topic, stored, index) if stored.next_seq else 1
    except Damaged:
        raise
    except (
        StorageError
    ) as error:  # a stream has brought records from behind that entry, and those before it are trimmed: a reason to refuse, not to fail
        raise WireError(str(error)) from error
