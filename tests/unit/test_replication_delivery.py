"""Delivery, the buffer's writer and the streams to members that only gossip."""

from __future__ import annotations

import threading

import pytest

from coterie.actors.base import Actor
from coterie.actors.errors import StorageError
from coterie.actors.handler_messages import SetHandler
from coterie.actors.messages import Publish, ReplicationGap
from coterie.actors.replication.buffer import BufferWrite, Gap, StoredBatch
from coterie.actors.replication.memory_buffer import MemoryBuffer
from coterie.actors.replication.messages import StreamedBatches
from coterie.actors.room_messages import Committed, Topology
from coterie.proto.raft_messages import COMMAND, Entry
from coterie.proto.record_batch import encode_batch, encode_entry
from tests.unit.replication_support import cluster, eventually

WAIT = 10.0


def publish(node, topic, *datas):
    return [f.get(timeout=WAIT).seq for f in [node.publisher.ask(Publish(topic, data), block=False) for data in datas]]


def numbers(notes, topic="t"):
    return [seq for name, seq, _ in notes if name == topic]


def stored(topic, first, *datas, index=1):
    return StoredBatch(topic, first, len(datas), index, encode_batch(topic, 0, list(datas)).data)


# -- delivery -------------------------------------------------------------------------------------------------------------


def test_a_handler_that_raises_gets_the_same_record_again_and_nothing_is_skipped():
    attempts = []

    def behave(topic, data, record):
        attempts.append((record.seq, record.attempt))
        if data == b"bad" and record.attempt < 4:
            raise ValueError("no")

    with cluster("n1", retry=0.02) as (n1, _):
        notes = n1.handle(behave)
        publish(n1, "t", b"good", b"bad", b"after")
        eventually(lambda: len(notes) == 3)
        assert numbers(notes) == [1, 2, 3]
        assert attempts == [(1, 1), (2, 1), (2, 2), (2, 3), (2, 4), (3, 1)]
        view = n1.view()
        assert view.counters["delivery_errors"] == 3 and view.counters["redelivered"] == 3 and view.warnings == ()


def test_while_it_raises_the_status_says_where_and_other_topics_go_on():
    def behave(topic, data, record):
        if topic == "bad":
            raise ValueError("broken row")

    with cluster("n1", retry=0.02) as (n1, _):
        notes = n1.handle(behave)
        publish(n1, "bad", b"x")
        warning = eventually(lambda: n1.view().warnings)[0]
        assert "'bad' seq 1" in warning and "ValueError: broken row" in warning
        publish(n1, "t", b"1", b"2")
        eventually(lambda: numbers(notes) == [1, 2])


def test_without_a_handler_records_wait_and_a_handler_registered_later_gets_them_all():
    with cluster("n1", "n2") as (n1, n2, _):
        publish(n1, "t", *[b"%d" % n for n in range(3000)])  # more than a window: a node without a handler does not hold it up
        assert n1.view().warnings == ()  # a node that only stores is as it should be
        notes = n2.handle()
        eventually(lambda: len(notes) == 3000)
        publish(n1, "t", b"last")
        eventually(lambda: len(notes) == 3001)
        assert numbers(notes) == list(range(1, 3002))


def test_a_handler_that_died_is_as_none_and_the_next_one_goes_on_where_it_was():
    with cluster("n1") as (n1, _):
        first = n1.handle()
        publish(n1, "t", b"1")
        eventually(lambda: len(first) == 1)
        n1.handlers[0].stop()
        publish(n1, "t", b"2", b"3")
        assert "handler actor is dead" in eventually(lambda: n1.view().warnings)[0]
        second = n1.handle()
        eventually(lambda: numbers(second) == [2, 3])
        assert n1.view().warnings == ()
        assert numbers(first) == [1]


def test_a_replaced_handler_finishes_what_it_has():
    gate, inside = threading.Event(), threading.Event()

    def slow(topic, data, record):
        inside.set()
        gate.wait(WAIT)

    with cluster("n1", retry=5.0) as (n1, _):
        first = n1.handle(slow)
        publish(n1, "t", b"1")
        assert inside.wait(WAIT)
        second = n1.handle()
        publish(n1, "t", b"2")
        gate.set()
        eventually(lambda: numbers(second) == [2])
        assert numbers(first) == [1]


def test_a_replaced_handler_that_hangs_is_given_up_after_the_retry_time():
    gate = threading.Event()
    with cluster("n1", retry=0.1) as (n1, _):
        n1.handle(lambda topic, data, record: gate.wait(WAIT) and None)
        publish(n1, "t", b"1")
        second = n1.handle()
        eventually(lambda: numbers(second) == [1])
        gate.set()
        publish(n1, "t", b"2")
        eventually(lambda: numbers(second) == [1, 2])


def test_a_slow_handler_holds_bounded_memory_and_misses_nothing():
    gate = threading.Event()
    with cluster("n1", memory=1000) as (n1, _):
        notes = n1.handle(lambda topic, data, record: gate.wait(WAIT) and None)
        delivery = n1.room.delivery._actor_weakref()
        entries = [
            (Entry(index, 1, COMMAND, encode_entry([encode_batch("t", 0, [b"%d" % index] + [b"x" * 90] * 4).data])), None)
            for index in range(1, 201)
        ]
        for entry in entries:
            n1.publisher.tell(Committed([entry]))
        eventually(lambda: n1.view().applied_index == 200)
        assert delivery._held <= 2000
        gate.set()
        eventually(lambda: len(notes) == 1000)
        assert numbers(notes) == list(range(1, 1001))


def test_an_actor_that_is_no_handler_is_an_error_that_says_so():
    class Plain(Actor):
        def on_receive(self, message):
            return 7

    with cluster("n1", retry=0.02) as (n1, _):
        ref = Plain.start()
        n1.publisher.tell(SetHandler(ref))
        publish(n1, "t", b"1")
        assert "HandlerActor" in eventually(lambda: n1.view().warnings)[0]
        ref.stop()


# -- the buffer -----------------------------------------------------------------------------------------------------------


def test_after_a_restart_everything_goes_on_where_it_was():
    buffer = MemoryBuffer()
    with cluster("n1", buffers={"n1": buffer}) as (n1, raft):
        notes = n1.handle()
        publish(n1, "t", b"1", b"2")
        n1.publisher.ask(Publish("t", b"3", message_id="id"), timeout=WAIT)
        eventually(lambda: len(notes) == 3)
        applied = len(raft.log)
    assert buffer.load().applied == (applied, 1) and buffer.load().topics["t"].cursor == 4
    with cluster("n1", buffers={"n1": buffer}) as (n1, raft):
        assert n1.room.applied == (applied, 1)
        raft.log = [None] * applied
        notes = n1.handle()
        assert n1.publisher.ask(Publish("t", b"3", message_id="id"), timeout=WAIT).seq == 3
        assert publish(n1, "t", b"4") == [4]
        eventually(lambda: numbers(notes) == [4])


def test_stopping_waits_for_the_handler_so_that_nothing_is_delivered_twice():
    buffer, inside, gate = MemoryBuffer(), threading.Event(), threading.Event()

    def slow(topic, data, record):
        inside.set()
        gate.wait(WAIT)

    with cluster("n1", buffers={"n1": buffer}) as (n1, _):
        n1.handle(slow)
        publish(n1, "t", b"1")
        assert inside.wait(WAIT)
        threading.Timer(0.1, gate.set).start()
        n1.room.stop()
    assert buffer.load().topics["t"].cursor == 2


def test_retention_trims_behind_the_cursor_only():
    gate = threading.Event()
    with cluster("n1", retain_records=10, gap=0.0) as (n1, _):
        notes = n1.handle(lambda topic, data, record: record.seq > 20 and gate.wait(WAIT) and None)
        for n in range(60):
            publish(n1, "t", b"%d" % n)
        eventually(lambda: n1.buffer.load().topics["t"].next_seq == 61)
        assert n1.buffer.load().topics["t"].first_seq <= 21
        gate.set()
        eventually(lambda: len(notes) == 60)
        publish(n1, "t", b"last")
        eventually(lambda: n1.buffer.load().topics["t"].first_seq >= 50)
        with pytest.raises(Gap):
            n1.buffer.read("t", 1, 1, 1)


def test_a_node_without_a_handler_keeps_no_more_than_the_bound_and_a_late_handler_hears_of_the_gap():
    with cluster("n1", retain_records=10, gap=0.0) as (n1, _):
        for n in range(50):
            publish(n1, "t", b"%d" % n)
        first = eventually(lambda: (s := n1.buffer.load().topics["t"]).next_seq == 51 and s.first_seq)
        notes = n1.handle()
        eventually(lambda: numbers(notes) == list(range(first, 51)))
        gap = n1.events[0]
        assert isinstance(gap, ReplicationGap) and (gap.topic, gap.first_missing, gap.last_missing) == ("t", 1, first - 1)


class Trimming(MemoryBuffer):
    """Trims between two readings, as a writer does that has not heard of the handler yet."""

    trims = 3

    def read(self, topic, seq, max_bytes, max_batches):
        if self.trims:
            self.trims -= 1
            self.write(BufferWrite(trim=[(topic, self.state(topic).first_seq + 2)]))
        return super().read(topic, seq, max_bytes, max_batches)


def test_a_late_handler_stands_trimming_that_goes_on_while_it_looks_for_the_first_record():
    with cluster("n1", buffers={"n1": Trimming()}, gap=0.0) as (n1, _):
        for n in range(20):
            publish(n1, "t", b"%d" % n)
        eventually(lambda: n1.buffer.load().topics["t"].next_seq == 21)
        notes = n1.handle()
        eventually(lambda: numbers(notes) == list(range(7, 21)))
        assert [(gap.first_missing, gap.last_missing) for gap in n1.events] == [(1, 2), (3, 4), (5, 6)]


class BrokenDisk(MemoryBuffer):
    def write(self, change):
        raise StorageError("the disk is gone")


def test_a_disk_error_is_fatal_and_reported():
    crashed = threading.Event()
    seen = []

    def on_crash(crash):
        seen.append(crash)
        crashed.set()

    with cluster("n1", buffers={"n1": BrokenDisk()}) as (n1, _):
        n1.room.writer._actor_weakref()._on_crash = on_crash
        n1.publisher.ask(Publish("t", b"x"), timeout=WAIT)
        assert crashed.wait(WAIT)
        assert seen[0].fatal and isinstance(seen[0].error, StorageError) and seen[0].concern == "buffer"


# -- streams --------------------------------------------------------------------------------------------------------------


def test_a_stream_gives_what_is_stored_from_the_cursors_on_and_then_what_comes():
    with cluster("n1") as (n1, _):
        publish(n1, "t", b"1", b"2")
        publish(n1, "u", b"1")
        eventually(lambda: {"t", "u"} <= n1.buffer.load().topics.keys())
        source = n1.room.hub.open({"t": 2}, idle=5.0)
        got = []

        def pull():
            for batches in source:
                got.extend(batches)

        thread = threading.Thread(target=pull)
        thread.start()
        eventually(lambda: sum(b.count for b in got if b.topic == "u") == 1 and any(b.topic == "t" for b in got))
        publish(n1, "t", b"3")
        eventually(lambda: max(b.first_seq + b.count for b in got if b.topic == "t") == 4)
        source.close()
        thread.join(WAIT)
        assert not thread.is_alive()


def test_a_follower_by_stream_delivers_what_comes_and_hears_of_gaps():
    with cluster("n9", leader="") as (n9, _):
        notes = n9.handle()
        n9.publisher.tell(StreamedBatches([stored("t", 1, b"1", b"2"), stored("t", 1, b"1", b"2"), stored("t", 3, b"3")]))
        n9.publisher.tell(StreamedBatches([stored("t", 3, b"3"), stored("t", 8, b"8"), StoredBatch("t", 9, 1, 1, b"garbage")]))
        eventually(lambda: numbers(notes) == [1, 2, 3, 8])
        assert [(gap.first_missing, gap.last_missing) for gap in n9.events] == [(4, 7)]
        assert n9.view().counters["stream_malformed"] == 1
        eventually(lambda: (topic := n9.buffer.load().topics.get("t")) and (topic.first_seq, topic.next_seq) == (8, 9))


def test_a_follower_by_stream_that_joins_the_quorum_sees_the_log_from_its_begin_and_delivers_nothing_twice():
    buffer = MemoryBuffer()
    entries = [Entry(n, 1, COMMAND, encode_entry([encode_batch("t", 0, [b"%d" % n]).data])) for n in range(1, 7)]
    with cluster("n9", leader="", buffers={"n9": buffer}) as (n9, _):
        notes = n9.handle()
        n9.publisher.tell(StreamedBatches([stored("t", n, b"%d" % n, index=n) for n in range(1, 5)]))
        eventually(lambda: numbers(notes) == [1, 2, 3, 4])
        n9.publisher.tell(Committed([(entry, None) for entry in entries[:2]]))
        eventually(lambda: n9.view().applied_index == 2)
    assert buffer.load().applied == (0, 0)  # not before the state machine has caught up with the stream
    with cluster("n9", leader="", buffers={"n9": buffer}) as (n9, _):
        notes = n9.handle()
        n9.publisher.tell(Committed([(entry, None) for entry in entries]))
        eventually(lambda: numbers(notes) == [5, 6])
        eventually(lambda: buffer.load().applied == (6, 1))
        assert [b.data for b in buffer.read("t", 1, 1 << 20, 9)] == [stored("t", n, b"%d" % n).data for n in range(1, 7)]


def test_the_follower_of_a_stream_opens_it_again_with_the_right_cursors():
    opened = []

    class FollowLink:
        def open(self, leader_id, cursors, on_batches, on_closed):
            opened.append((leader_id, cursors, on_batches, on_closed))
            return self

        def close(self):
            pass

    buffer = MemoryBuffer()
    buffer.write(BufferWrite(batches=[stored("t", 1, b"1")]))
    with cluster("n9", leader="", buffers={"n9": buffer}, follow_link=FollowLink()) as (n9, _):
        n9.room.follower.tell(Topology(leader_id="n1", in_quorum=False))
        eventually(lambda: opened)
        assert opened[0][:2] == ("n1", {"t": 2})
        opened[0][2]([stored("t", 2, b"2")])
        eventually(lambda: n9.buffer.load().topics["t"].next_seq == 3)
        opened[0][3](None)
        eventually(lambda: len(opened) == 2)
        assert opened[1][:2] == ("n1", {"t": 3})
        n9.room.follower.tell(Topology(leader_id="n1", in_quorum=True))
