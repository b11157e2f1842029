"""Following a leader of go-cluster: what reaches the handler and what is acknowledged, whatever that leader sends."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.actors.errors import Unreachable
from coterie.actors.future import LightFuture
from coterie.actors.handler import HandlerActor, Record
from coterie.actors.handler_messages import SetHandler
from coterie.actors.messages import ClusterStatus
from coterie.actors.replication import foreign
from coterie.actors.replication.foreign import FROM, REMEMBERED, ForeignFollower, Taken
from coterie.actors.room_messages import Topology

PATIENCE = 10.0


def led(term: int = 3, leader: str = "g1", in_quorum: bool = True) -> Topology:
    return Topology(term=term, leader_id=leader, in_quorum=in_quorum, mgmt_addr={"g1": "h:1", "g2": "h:2"}, foreign=frozenset(("g1", "g2")))


class Stream:
    def __init__(self, address: str, on_record: Any, on_closed: Any) -> None:
        self.address, self.send, self.end = address, on_record, on_closed
        self.closed = threading.Event()

    def close(self) -> None:
        self.closed.set()


class Link:
    """A leader as the follower's port shows it."""

    def __init__(self) -> None:
        self.streams: queue.SimpleQueue[Stream] = queue.SimpleQueue()
        self.acks: queue.SimpleQueue[tuple[str, str, int]] = queue.SimpleQueue()
        self.asked: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.refuse_acks = 0
        self.leader = ""

    def subscribe(self, address: str, on_record: Any, on_closed: Any) -> Stream:
        stream = Stream(address, on_record, on_closed)
        self.streams.put(stream)
        return stream

    def ack(self, address: str, topic: str, seq: int) -> LightFuture:
        future = LightFuture()
        if self.refuse_acks:
            self.refuse_acks -= 1
            future.fail(Unreachable("gone"))
        else:
            self.acks.put((address, topic, seq))
            future.set(True)
        return future

    def status(self, address: str) -> LightFuture:
        self.asked.put(address)
        future = LightFuture()
        future.set(ClusterStatus(True, 5, self.leader, "", ()))
        return future


class Handler(HandlerActor):
    def __init__(self, had: queue.SimpleQueue[tuple[str, bytes, Record]], gate: threading.Event) -> None:
        super().__init__()
        self.had, self.gate, self.failed = had, gate, False

    def handle_sync(self, topic: str, data: bytes, record: Record | None = None) -> None:
        assert record is not None
        self.gate.wait(PATIENCE)
        if data == b"fail" and not self.failed:
            self.failed = True
            raise ValueError("not yet")
        self.had.put((topic, data, record))


class World:
    def __init__(self) -> None:
        self.link, self.told = Link(), queue.SimpleQueue[tuple[int, str]]()
        self.had: queue.SimpleQueue[tuple[str, bytes, Record]] = queue.SimpleQueue()
        self.gate = threading.Event()
        self.gate.set()
        self.handler = Handler.start(self.had, self.gate)
        self.follower = ForeignFollower.start("n1", self.link, lambda *told: self.told.put(told), retry=0.1)

    def stream(self) -> Stream:
        return self.link.streams.get(timeout=PATIENCE)

    def follow(self) -> Stream:
        self.follower.tell(SetHandler(self.handler))
        self.follower.tell(led())
        return self.stream()

    def had_data(self, n: int) -> list[bytes]:
        return [self.had.get(timeout=PATIENCE)[1] for _ in range(n)]

    def acked(self, topic: str, seq: int) -> None:
        """Waits until `seq` is acknowledged; nothing above it may be."""
        while (ack := self.link.acks.get(timeout=PATIENCE))[1:] != (topic, seq):
            assert ack[1] != topic or ack[2] < seq

    def close(self) -> None:
        self.gate.set()
        self.follower.stop()
        self.handler.stop()


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.close()


def test_records_reach_the_handler_once_marked_as_what_they_are_and_are_acknowledged(world: World) -> None:
    stream = world.follow()
    assert stream.address == "h:1"
    for seq in (1, 2, 2, 1, 3):
        stream.send("t", b"%d" % seq, seq)
    got = [world.had.get(timeout=PATIENCE) for _ in range(3)]
    assert [(topic, data, r.seq, r.index, r.headers) for topic, data, r in got] == [
        ("t", b"%d" % seq, 0, 0, {FROM: f"g1 3 {seq}"}) for seq in (1, 2, 3)
    ]
    world.acked("t", 3)
    assert world.had.empty()


def test_what_came_late_is_handled_and_never_lowers_what_is_acknowledged(world: World) -> None:
    stream = world.follow()
    stream.send("t", b"5", 5)
    assert world.had_data(1) == [b"5"]
    world.acked("t", 5)
    stream.send("t", b"4", 4)
    assert world.had_data(1) == [b"4"]
    stream.send("t", b"5", 5)
    world.acked("t", 5)


def test_a_record_that_raises_comes_again_and_nothing_behind_it_is_acknowledged_before_it(world: World) -> None:
    stream = world.follow()
    for seq, data in enumerate((b"1", b"fail", b"3"), 1):
        stream.send("t", data, seq)
    got = [world.had.get(timeout=PATIENCE) for _ in range(3)]
    assert [(data, record.attempt) for _, data, record in got] == [(b"1", 1), (b"fail", 2), (b"3", 1)]
    world.acked("t", 3)


def test_a_broken_stream_is_opened_again_and_what_was_not_handled_is_taken_from_the_next(world: World) -> None:
    stream = world.follow()
    world.gate.clear()
    for seq in (1, 2, 3):
        stream.send("t", b"%d" % seq, seq)
    stream.end(Unreachable("gone"))
    again = world.stream()
    stream.send("t", b"of a stream that is over", 9)
    world.gate.set()
    for seq in (1, 2, 3):
        again.send("t", b"%d" % seq, seq)
    assert sorted(set(world.had_data(3))) == [b"1", b"2", b"3"]
    world.acked("t", 3)
    assert world.had.empty()


def test_a_leader_that_has_no_stream_is_told_once_with_what_it_may_be(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.follow().end(Unreachable("it speaks HTTP"))
    world.stream().end(Unreachable("it speaks HTTP"))
    world.stream()
    actor: Any = world.follower._actor_weakref()
    assert actor.counters["foreign streams ended"] == 2
    told = [record.getMessage() for record in caplog.records if "MgmtProto" in record.getMessage()]
    assert len(told) == 1
    assert "g1" in told[0]
    assert "it speaks HTTP" in told[0]


def test_what_was_given_up_with_its_stream_is_not_acknowledged_by_what_comes_again(world: World) -> None:
    """1 is handled, 2 raises, the stream breaks: when its leader sends 1 again, only 1 may be acknowledged, or it would never send 2 and 3."""
    world.follower._actor_weakref()._retry = PATIENCE  # type: ignore[union-attr]
    world.link.refuse_acks = 1000  # none is heard before the stream breaks
    stream = world.follow()
    world.gate.clear()
    for seq, data in enumerate((b"1", b"fail", b"3"), 1):
        stream.send("t", data, seq)
    world.gate.set()
    assert world.had_data(1) == [b"1"]
    actor: Any = world.follower._actor_weakref()
    until = time.monotonic() + PATIENCE
    while not actor.counters["foreign handler errors"] and time.monotonic() < until:
        time.sleep(0.01)
    stream.end(Unreachable("gone"))
    again = world.stream()
    world.link.refuse_acks = 0
    again.send("t", b"1", 1)
    assert world.link.acks.get(timeout=PATIENCE) == ("h:1", "t", 1)


class Unspeakable(ValueError):
    def __repr__(self) -> str:
        raise RuntimeError("no")

    __str__ = __repr__


def test_an_exception_that_cannot_be_shown_is_one_like_others(world: World) -> None:
    raised = threading.Event()

    class Bad(HandlerActor):
        def handle_sync(self, topic: str, data: bytes) -> None:
            if not raised.is_set():
                raised.set()
                raise Unspeakable

    handler = Bad.start()
    world.follower.tell(SetHandler(handler))
    world.follower.tell(led())
    world.stream().send("t", b"1", 1)
    try:
        world.acked("t", 1)
    finally:
        handler.stop()
    actor: Any = world.follower._actor_weakref()
    assert not actor._restarts


def test_an_acknowledgement_that_failed_is_sent_again(world: World) -> None:
    world.link.refuse_acks = 2
    world.follow().send("t", b"1", 1)
    world.acked("t", 1)


def test_another_leadership_begins_its_numbers_again(world: World) -> None:
    first = world.follow()
    first.send("t", b"old", 1)
    assert world.had_data(1) == [b"old"]
    world.follower.tell(led(term=4))
    assert first.closed.wait(PATIENCE)
    world.stream().send("t", b"new", 1)
    assert world.had_data(1) == [b"new"]
    world.follower.tell(Topology(term=5, leader_id="n1", leads=True, in_quorum=True))
    world.follower.tell(led(term=6, leader="g2"))
    assert world.stream().address == "h:2"


def test_without_a_handler_nothing_is_taken(world: World) -> None:
    world.follower.tell(led())
    assert world.follower.ask(SetHandler(None), timeout=PATIENCE) is None
    assert world.link.streams.empty()
    world.follower.tell(SetHandler(world.handler))
    stream = world.stream()
    world.handler.stop()
    stream.send("t", b"1", 1)
    assert stream.closed.wait(PATIENCE)
    assert world.link.acks.empty()
    world.handler = Handler.start(world.had, world.gate)
    world.follower.tell(SetHandler(world.handler))
    world.stream().send("t", b"1", 1)
    assert world.had_data(1) == [b"1"]
    world.acked("t", 1)


def test_a_handler_that_does_not_keep_up_costs_bounded_memory(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foreign, "MOST_HELD", 1000)
    stream = world.follow()
    world.gate.clear()
    for seq in range(1, 12):
        stream.send("t", b"x" * 100, seq)
    assert stream.closed.wait(PATIENCE)
    monkeypatch.setattr(foreign, "MOST_HELD", 1 << 20)
    again = world.stream()
    world.gate.set()
    for seq in range(1, 12):
        again.send("t", b"x" * 100, seq)
    world.acked("t", 11)
    assert len(world.had_data(11)) == 11


def test_what_says_nothing_is_counted_and_passed_over(world: World) -> None:
    stream = world.follow()
    for nonsense in (("", b"", 0), ("t", b"x", 0), ("", b"x", 1)):
        stream.send(*nonsense)
    stream.send("t", b"1", 1)
    assert world.had_data(1) == [b"1"]
    actor: Any = world.follower._actor_weakref()
    assert actor.counters["foreign records not understood"] == 3


def test_a_member_in_no_quorum_asks_who_leads(world: World) -> None:
    world.link.leader = "g2"
    world.follower.tell(led(term=0, leader="", in_quorum=False))
    assert world.link.asked.get(timeout=PATIENCE) == "h:1"
    assert world.told.get(timeout=PATIENCE) == (5, "g2")
    assert world.link.asked.get(timeout=PATIENCE) == "h:2"  # another one the next time, for as long as no node of ours leads
    for settled in (Topology(term=6, leader_id="n2", mgmt_addr={"g1": "h:1"}, foreign=frozenset(("g1",))), led(in_quorum=True)):
        world.follower.tell(settled)
        assert world.follower.ask(SetHandler(None), timeout=PATIENCE) is None
        actor: Any = world.follower._actor_weakref()
        assert actor._ask_at is None


@given(st.lists(st.integers(1, 50), max_size=200))
def test_each_number_is_taken_once(seqs: list[int]) -> None:
    taken = Taken()
    assert [seq for seq in seqs if taken.add(seq)] == list(dict.fromkeys(seqs))


def test_what_is_remembered_of_a_topic_is_bounded() -> None:
    taken = Taken()
    once: Callable[[int], bool] = taken.add
    assert all(once(seq) for seq in range(1, 4 * REMEMBERED))
    assert len(taken._seen) <= 2 * REMEMBERED
    assert not once(1)
    assert not once(taken.highest - REMEMBERED + 1)
    taken.forget(taken.highest)
    assert once(taken.highest)
