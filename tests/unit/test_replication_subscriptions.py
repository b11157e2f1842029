"""Subscribers that are no nodes of ours: where they begin, what is sent again and to whom, and that they can hold nothing up."""

from __future__ import annotations

import threading

import pytest

from coterie.actors.errors import AlreadyMember, NotLeader, Overloaded
from coterie.actors.replication.buffer import BufferWrite, StoredBatch
from coterie.actors.replication.memory_buffer import MemoryBuffer
from coterie.actors.replication.messages import Stored
from coterie.actors.replication.metrics import NoMetrics
from coterie.actors.replication.subscriptions import MAX_KNOWN, SHOWN, STALLED, Subscription, Subscriptions
from coterie.actors.room_messages import Topology
from coterie.proto.record_batch import encode_batch

LEADS = Topology(term=2, leader_id="n1", leads=True)
FOLLOWS = Topology(term=3, leader_id="n2", mgmt_addr={"n2": "h:2"})


class Shown(NoMetrics):
    def __init__(self) -> None:
        self.acks: dict[tuple[str, str], int] = {}
        self.lags: dict[tuple[str, str], int] = {}
        self.streams = 0

    def acked(self, node: str, topic: str, n: int, seq: int) -> None:
        self.acks[node, topic] = seq

    def lag(self, node: str, topic: str, n: int) -> None:
        self.lags[node, topic] = n

    def foreign_subscribers(self, n: int) -> None:
        self.streams = n

    def peer_gone(self, node: str) -> None:
        for table in (self.acks, self.lags):
            for key in [key for key in table if key[0] == node]:
                del table[key]


class World:
    """A leader's buffer and its subscribers, under a clock that the test moves."""

    def __init__(self, window: int = 100) -> None:
        self.now, self.metrics, self.buffer = 1000.0, Shown(), MemoryBuffer()
        self.hub = self.another(window)
        self.hub.set_topology(LEADS)

    def another(self, window: int = 100) -> Subscriptions:
        return Subscriptions(self.buffer, self.buffer.load(), window=window, retry=1.5, metrics=self.metrics, clock=lambda: self.now)

    def publish(self, topic: str, *records: bytes) -> None:
        first = (self.buffer.load().topics[topic].next_seq if topic in self.buffer.load().topics else 0) or 1
        data = encode_batch(topic, 0, list(records)).data
        self.buffer.write(BufferWrite(batches=[StoredBatch(topic, first, len(records), 1, data)]))
        self.hub.stored(self.stored(topic))

    def stored(self, topic: str) -> Stored:
        state = self.buffer.load().topics[topic]
        return Stored(1, {topic: (state.first_seq, state.next_seq)}, 0)

    def trim(self, topic: str, below: int) -> None:
        self.buffer.write(BufferWrite(trim=[(topic, below)]))
        self.hub.stored(self.stored(topic))


def seqs(stream: Subscription, topic: str = "t") -> list[int]:
    """Those of `topic` that can be had now."""
    got = []
    while records := stream.take(0):
        got += [record.seq for record in records if record.topic == topic]
    return got


def test_a_new_subscriber_gets_what_is_retained_and_then_all_in_order() -> None:
    world = World()
    world.publish("t", b"1", b"2")
    stream = world.hub.open("g1")
    world.publish("t", b"3")
    world.publish("u", b"x")
    got = (stream.take(0) or []) + (stream.take(0) or [])
    assert sorted(got) == [("t", b"1", 1), ("t", b"2", 2), ("t", b"3", 3), ("u", b"x", 1)]
    assert stream.take(0) == []


def test_a_known_one_goes_on_after_what_it_acknowledged_also_at_the_next_leader() -> None:
    world = World()
    world.publish("t", b"1", b"2", b"3")
    first = world.hub.open("g1")
    assert seqs(first) == [1, 2, 3]
    world.hub.ack("g1", "t", 2)
    first.close()
    assert seqs(world.hub.open("g1")) == [3]

    next_leader = world.another()
    next_leader.set_topology(FOLLOWS)
    for told in world.hub.take_moved():
        next_leader.heard(*told)
    assert world.hub.take_moved() == []
    next_leader.set_topology(LEADS)
    assert seqs(next_leader.open("g1")) == [3]


def test_who_gives_no_name_begins_at_the_end_and_is_sent_nothing_twice() -> None:
    world = World(window=2)
    world.publish("t", b"1")
    stream = world.hub.open("")
    assert seqs(stream) == []
    world.publish("t", b"2", b"3", b"4", b"5")
    world.publish("new", b"1")
    assert {(r.topic, r.seq) for r in [*(stream.take(0) or []), *(stream.take(0) or [])]} == {("t", n) for n in (2, 3, 4, 5)} | {("new", 1)}
    world.now += 100
    assert seqs(stream) == []
    world.hub.ack("", "t", 5)
    assert world.hub.counters()["acks not understood"] == 1


def test_what_is_not_acknowledged_is_sent_again_to_this_subscriber_only() -> None:
    world = World()
    slow, quick = world.hub.open("slow"), world.hub.open("quick")
    world.publish("t", b"1", b"2", b"3")
    assert seqs(slow) == seqs(quick) == [1, 2, 3]
    world.hub.ack("quick", "t", 3)
    world.hub.ack("slow", "t", 1)
    world.now += 1.4
    assert seqs(slow) == seqs(quick) == []
    world.now += 0.2
    assert seqs(slow) == [2, 3]
    assert seqs(quick) == []
    assert world.hub.counters()["records sent again"] == 2
    world.hub.ack("slow", "t", 3)
    world.now += 5
    assert seqs(slow) == []
    assert world.metrics.acks == {("quick", "t"): 3, ("slow", "t"): 3}
    assert world.metrics.lags == {("quick", "t"): 0, ("slow", "t"): 0}


def test_a_subscriber_that_acknowledges_nothing_holds_up_itself_alone_and_is_sent_away() -> None:
    world = World(window=10)
    stalled, quick = world.hub.open("stalled"), world.hub.open("quick")
    world.publish("t", *[b"x"] * 50)
    assert seqs(stalled) == list(range(1, 11))
    for done in range(0, 50, 10):
        assert seqs(quick) == list(range(done + 1, done + 11))
        world.hub.ack("quick", "t", done + 10)
    assert world.metrics.lags == {("stalled", "t"): 50, ("quick", "t"): 0}
    for _ in range(STALLED):
        world.now += 1.6
        assert seqs(stalled) == list(range(1, 11))
    world.now += 1.6
    assert stalled.take(0) is None
    assert isinstance(stalled.reason, Overloaded)
    assert world.hub.counters()["streams stalled"] == 1
    again = world.hub.open("stalled")
    assert seqs(again)[0] == 1


def test_retention_passes_a_slow_one_by_and_that_is_counted() -> None:
    world = World(window=2)
    stream = world.hub.open("g1")
    for _ in range(6):
        world.publish("t", b"x")
    assert seqs(stream) == [1, 2]
    world.hub.ack("g1", "t", 1)
    world.trim("t", 5)
    world.now += 2
    assert seqs(stream) == [5, 6]
    assert world.hub.counters()["records passed by retention"] == 3
    world.hub.ack("g1", "t", 6)
    world.trim("t", 6)
    assert seqs(world.hub.open("new")) == [6]  # what was gone before it came was never promised to it
    assert world.hub.counters()["records passed by retention"] == 3


def test_acknowledgements_are_cumulative_and_end_at_the_end() -> None:
    world = World()
    world.publish("t", b"1", b"2")
    world.hub.ack("g1", "t", 2)
    world.hub.ack("g1", "t", 1)
    world.hub.ack("g1", "t", 1 << 60)
    world.hub.ack("g1", "never published", 5)
    assert world.metrics.acks == {("g1", "t"): 2}
    world.publish("t", b"3")
    assert seqs(world.hub.open("g1")) == [3]
    assert world.metrics.lags == {("g1", "t"): 1}


def test_who_does_not_lead_serves_nobody_and_says_who_does() -> None:
    world = World()
    world.publish("t", b"1")
    stream = world.hub.open("g1")
    assert world.metrics.streams == 1
    world.hub.set_topology(FOLLOWS)
    assert stream.take(0) is None
    assert isinstance(stream.reason, NotLeader)
    assert world.metrics.streams == 0
    for refused in (lambda: world.hub.open("g1"), lambda: world.hub.ack("g1", "t", 1)):
        with pytest.raises(NotLeader) as said:
            refused()
        assert (said.value.leader_id, said.value.leader_addr) == ("n2", "h:2")


def test_a_second_stream_of_a_name_takes_the_place_of_the_first() -> None:
    world = World()
    first = world.hub.open("g1")
    second = world.hub.open("g1")
    assert first.take(0) is None
    assert isinstance(first.reason, AlreadyMember)
    first.close()
    world.publish("t", b"1")
    assert seqs(second) == [1]
    assert world.metrics.streams == 1


def test_what_is_known_is_bounded_and_what_went_is_not_shown_for_ever() -> None:
    world = World()
    world.publish("t", b"1")
    for number in range(MAX_KNOWN):
        world.hub.open(f"s{number}").close()
        world.now += 0.01
    assert len({node for node, _ in world.metrics.lags}) == MAX_KNOWN
    world.hub.open("one more").close()
    assert ("s0", "t") not in world.metrics.lags
    world.now += SHOWN + 1
    world.hub.tidy()
    assert world.metrics.lags == {}
    for number in range(MAX_KNOWN):
        world.hub.open(f"open{number}")
    with pytest.raises(Overloaded):
        world.hub.open("too many")


def test_a_thread_that_waits_is_woken_by_a_record_and_by_the_end() -> None:
    world = World()
    stream = world.hub.open("g1")
    got: list[object] = []
    thread = threading.Thread(target=lambda: got.extend([stream.take(30), stream.take(30)]))
    world.now = 0.0
    thread.start()
    world.publish("t", b"1")
    world.hub.stop()
    thread.join(10)
    assert not thread.is_alive()
    assert got[-1] is None
