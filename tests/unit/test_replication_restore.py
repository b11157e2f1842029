"""A snapshot takes the place of a node's replicated state while it runs: what waited, what failed, what was under way."""

from __future__ import annotations

import io
import time

import pytest

from coterie.actors.errors import Indeterminate, InvalidRequest
from coterie.actors.messages import Publish, ReplicationGap
from coterie.actors.replication.buffer import BufferWrite, Remembered, StoredBatch
from coterie.actors.replication.memory_buffer import MemoryBuffer
from coterie.actors.replication.recovery import recovered
from coterie.actors.replication.roster_snapshot import restore_roster
from coterie.actors.replication.snapshots import dump
from coterie.actors.room_messages import RosterMember, Topology
from coterie.actors.snapshot_messages import InstallRoster, InstallSnapshot
from coterie.proto.errors import WireError
from coterie.proto.record_batch import encode_batch
from coterie.proto.roster import RosterRow, decode_document, encode_document
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


# -- of a Go leader: the roster alone -----------------------------------------------------------------------------------------------


def roster_of(index, *names, after=0):
    return InstallRoster(encode_document(RosterRow(name, f"{name}:1", {"mgmt": "a:1"}) for name in names), index, 1, b"mark", after)


def test_the_roster_of_a_go_leader_moves_no_counter_and_the_entries_in_between_are_told_as_a_gap():
    with cluster("n1") as (n1, raft):
        seen = n1.handle()
        n1.publisher.ask(Publish("t", b"one", message_id="m"), timeout=WAIT)
        n1.publisher.ask(Publish("t", b"two"), timeout=WAIT)
        assert n1.publisher.ask(roster_of(9, "g1", "g2"), timeout=WAIT)
        machine = actor_of(n1.publisher)._machine
        assert (machine.applied, set(machine.roster.rows)) == ((9, 1), {"g1", "g2"})
        (gap,) = eventually(lambda: n1.events)
        assert isinstance(gap, ReplicationGap)
        assert (gap.topic, gap.first_missing, gap.last_missing, gap.first_index, gap.last_index) == ("", 0, 0, 3, 9)
        raft.log += [None] * (9 - len(raft.log))
        assert n1.publisher.ask(Publish("t", b"three"), timeout=WAIT).seq == 3
        assert n1.publisher.ask(Publish("t", b"one", message_id="m"), timeout=WAIT).seq == 1, "the window of message ids stays too"
        eventually(lambda: [seq for _, seq, _ in seen] == [1, 2, 3])
        state = n1.buffer.load()
        assert (n1.buffer.mark(), decode_document(state.roster)[0].id) == (b"mark", "g1")
        assert n1.view().counters["gaps"] == 1


def test_the_gap_waits_for_a_handler_that_lacks_it():
    with cluster("n1") as (n1, _):
        assert n1.publisher.ask(roster_of(9, "g1"), timeout=WAIT)
        n1.view()
        assert not n1.events
        n1.handle()
        eventually(lambda: [(gap.first_index, gap.last_index) for gap in n1.events] == [(1, 9)])


def test_it_is_not_installed_before_what_the_log_here_has_is_applied_nor_twice_nor_when_it_is_no_roster():
    with cluster("n1") as (n1, _):
        n1.publisher.ask(Publish("t", b"x"), timeout=WAIT)
        with pytest.raises(InvalidRequest, match="entries up to 5 are in the log here, and applied up to 1"):
            n1.publisher.ask(roster_of(9, "g1", after=5), timeout=WAIT)
        with pytest.raises(InvalidRequest, match="roster"):
            n1.publisher.ask(InstallRoster(b"[]", 9, 2, b"mark", 0), timeout=WAIT)
        assert n1.publisher.ask(roster_of(1, "g1"), timeout=WAIT)
        assert not actor_of(n1.publisher)._machine.roster.rows and n1.buffer.mark() is None
        assert n1.publisher.ask(Publish("t", b"y"), timeout=WAIT).seq == 2


def test_where_the_topics_stand_is_what_log_and_stream_have_brought_up_to_its_end():
    """t: batches of the entries 3 and 12, which a stream has brought; u: only a cursor was saved of it."""
    buffer = MemoryBuffer()
    batches = [
        StoredBatch("t", 1, 1, 3, encode_batch("t", 0, [b"x"]).data),
        StoredBatch("t", 2, 2, 12, encode_batch("t", 0, [b"y", b"z"]).data),
    ]
    buffer.write(BufferWrite(batches, cursors={"u": 7}))
    content = restore_roster(buffer, encode_document(()), (9, 2), b"mark", [Remembered(b"id", "t", 1, 3)])
    assert content.topics == {"t": (2, 1), "u": (7, 7)}
    assert [remembered.message_id for remembered in content.ids] == [b"id"]
    machine, _ = recovered(buffer)
    assert (machine.next_seqs, machine.applied) == ({"t": 2, "u": 7}, (9, 2)), "a restart finds the same"


def test_where_that_cannot_be_told_it_is_refused_and_nothing_is_changed():
    buffer = MemoryBuffer()
    buffer.write(BufferWrite([StoredBatch("t", 5, 1, 12, encode_batch("t", 0, [b"x"]).data)]))
    with pytest.raises(WireError, match="where the log goes on cannot be told"):
        restore_roster(buffer, encode_document(()), (9, 2), b"mark")
    assert buffer.load().applied == (0, 0) and buffer.mark() is None
