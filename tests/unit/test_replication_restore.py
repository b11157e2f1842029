"""A snapshot takes the place of a node's replicated state while it runs: what waited, what failed, what was under way."""

from __future__ import annotations

import io
import time

import pytest

from coterie.actors.errors import Indeterminate, InvalidRequest
from coterie.actors.messages import Publish, ReplicationGap
from coterie.actors.replication.buffer import BufferWrite, StoredBatch
from coterie.actors.replication.memory_buffer import MemoryBuffer
from coterie.actors.replication.snapshots import dump
from coterie.actors.room_messages import InstallSnapshot, RosterMember, Topology
from coterie.proto.record_batch import encode_batch
from coterie.proto.roster import encode_document
from tests.unit.replication_support import actor_of, cluster, eventually

WAIT = 10.0


def snapshot_of(index, topic="t", first=5, data=b"five", roster=None):
    """One record, and the log up to `index` behind it."""
    source = MemoryBuffer()
    batches = [StoredBatch(topic, first, 1, index, encode_batch(topic, 0, [data]).data)]
    source.write(BufferWrite(batches, applied=(index, 1), roster=encode_document(()) if roster is None else roster))
    out = io.BytesIO()
    dump(source, out)
    out.seek(0)
    return InstallSnapshot(out, index, 1, b"mark")


def test_what_was_held_against_a_record_that_is_gone_is_not_held_against_the_next():
    """The handler fails on record 1 and is taken away; then the node gets a snapshot that does not retain that record any more."""
    attempts = []

    def behave(topic, data, record):
        attempts.append((record.seq, record.attempt))
        if data == b"bad":
            raise ValueError("no")

    with cluster("n1", retry=0.02) as (n1, _):
        n1.handle(behave)
        n1.publisher.ask(Publish("t", b"bad"), timeout=WAIT)
        eventually(lambda: len(attempts) >= 3)
        n1.room.set_handler(None)
        eventually(lambda: n1.view().topics[0].acked == {"n1": 1})
        assert n1.publisher.ask(snapshot_of(9), timeout=WAIT)
        tried = len(attempts)
        n1.handle(behave)
        eventually(lambda: len(attempts) > tried)
        assert attempts[tried:] == [(5, 1)]
        assert n1.view().warnings == ()
        (gap,) = n1.events
        assert isinstance(gap, ReplicationGap) and (gap.first_missing, gap.last_missing) == (1, 4)


def test_a_publish_whose_outcome_a_snapshot_brought_is_answered_at_once():
    """It led, proposed, was deposed; its entry committed, and a snapshot that holds it came before the entry was applied here."""
    with cluster("n1") as (n1, raft):
        raft.hold = True
        publish = n1.publisher.ask(Publish("t", b"x", timeout=60.0), block=False)
        eventually(lambda: raft.log)
        assert n1.publisher.ask(snapshot_of(9), timeout=WAIT)
        raft.release()
        began = time.monotonic()
        with pytest.raises(Indeterminate, match="a snapshot took the place of its outcome"):
            publish.get(timeout=WAIT)
        assert time.monotonic() - began < WAIT
        raft.log += [None] * (9 - len(raft.log))  # the log goes on behind the snapshot
        assert n1.publisher.ask(Publish("t", b"next"), timeout=WAIT).seq == 6


def test_a_row_of_the_roster_whose_outcome_a_snapshot_brought_does_not_stop_the_rows_after_it():
    with cluster("n1") as (n1, raft):
        raft.hold = True
        voters = (RosterMember("n1", "10.0.0.1:7946", {}),)
        n1.publisher.tell(Topology(term=1, leader_id="n1", leads=True, in_quorum=True, live=frozenset({"n1"}), voters=voters))
        eventually(lambda: raft.log)
        assert n1.publisher.ask(snapshot_of(9), timeout=WAIT)
        raft.release()
        n1.view()
        raft.log += [None] * (9 - len(raft.log))
        n1.publisher.tell(Topology(term=2, leader_id="n1", leads=True, in_quorum=True, live=frozenset({"n1"}), voters=voters))
        eventually(lambda: "n1" in actor_of(n1.publisher)._machine.roster.rows)


def test_a_snapshot_with_a_roster_that_cannot_be_read_is_refused_and_nothing_is_changed():
    with cluster("n1") as (n1, _):
        n1.publisher.ask(Publish("t", b"x"), timeout=WAIT)
        with pytest.raises(InvalidRequest, match="roster"):
            n1.publisher.ask(snapshot_of(9, roster=b"{}"), timeout=WAIT)
        assert n1.publisher.ask(Publish("t", b"y"), timeout=WAIT).seq == 2
