"""When a node asks its Raft to take over from a Go leader: while publishes wait, and not often."""

from __future__ import annotations

import attrs
import pytest

from coterie.actors.errors import NoQuorum
from coterie.actors.replication.limits import Limits
from coterie.actors.replication.takeover import EVERY, PATIENCE, TakeOvers
from coterie.actors.room_messages import TakeOver, Topology
from tests.unit.replication_support import cluster, eventually
from tests.unit.test_replication_publisher import ask

GO = Topology(term=3, leader_id="go1", in_quorum=True, mgmt_addr={"go1": "go1:2"}, foreign=frozenset({"go1"}))
LONG = 2 * PATIENCE


class Raft:
    def __init__(self) -> None:
        self.told: list[TakeOver] = []

    def send(self, message: TakeOver) -> None:
        self.told.append(message)


def test_after_a_while_and_then_at_most_once_in_a_while() -> None:
    raft = Raft()
    take_overs = TakeOvers("n1", raft, enabled=True)
    take_overs.look(GO, True, 100.0)
    take_overs.look(GO, True, 100.0 + PATIENCE / 2)
    assert raft.told == []
    for step in range(200):
        take_overs.look(GO, True, 100.0 + LONG + step * EVERY / 100)
    assert raft.told == [TakeOver("go1")] * 2


@pytest.mark.parametrize(
    ("topology", "waiting", "enabled"),
    [
        (attrs.evolve(GO, foreign=frozenset()), True, True),
        (attrs.evolve(GO, leader_id=""), True, True),
        (attrs.evolve(GO, in_quorum=False), True, True),
        (GO, False, True),
        (GO, True, False),
    ],
    ids=["ours leads", "nobody leads", "no voter", "nothing waits", "switched off"],
)
def test_otherwise_never(topology: Topology, waiting: bool, enabled: bool) -> None:
    raft = Raft()
    take_overs = TakeOvers("n1", raft, enabled)
    for now in (100.0, 100.0 + LONG, 200.0):
        take_overs.look(topology, waiting, now)
    assert raft.told == []


def test_the_wait_begins_anew_with_each_leader_and_each_time_that_something_waits() -> None:
    raft = Raft()
    take_overs = TakeOvers("n1", raft, enabled=True)
    other = attrs.evolve(GO, leader_id="go2", foreign=frozenset({"go1", "go2"}), mgmt_addr={"go1": "1:1", "go2": "2:2"})
    for step in range(20):
        take_overs.look(other if step % 2 else GO, True, 100.0 + step * PATIENCE / 2)
    for step in range(20):
        take_overs.look(GO, step % 2 == 0, 200.0 + step * PATIENCE / 2)
    assert raft.told == []


def test_a_publish_that_waits_for_a_go_leader_makes_the_publisher_ask() -> None:
    with cluster("n1", leader="") as (n1, raft):
        n1.publisher.tell(GO)
        future = ask(n1, "t", b"x", timeout=5)
        eventually(lambda: raft.take_overs == ["go1"])
        n1.topology("n1")
        raft.leader = n1.publisher
        assert future.get(timeout=5).seq == 1


def test_without_it_the_publish_says_who_leads() -> None:
    with cluster("n1", leader="", limits=Limits(take_over_from_go=False)) as (n1, raft):
        n1.publisher.tell(GO)
        with pytest.raises(NoQuorum, match=r"the leader go1 is a node of go-cluster.*take_over_from_go"):
            ask(n1, "t", b"x", timeout=1.0).get(timeout=5)
        assert raft.take_overs == []
