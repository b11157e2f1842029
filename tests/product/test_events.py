"""Events and callbacks on every node of a cluster: followers, a member that is in no quorum, listeners that come late or are slow."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from coterie import (
    AsyncCluster,
    Cluster,
    Config,
    ElectionEnd,
    ElectionStart,
    Event,
    EventsMissed,
    LeaderChanged,
    LeaderInfo,
    MemberEvent,
    MemberFailed,
    MemberJoin,
    MemberLeave,
)
from coterie.actors.event_bus import MISSED
from coterie.actors.room_messages import Emit
from tests.product.nodes import process_cluster
from tests.product.wait import wait_for

PATIENCE = 60.0
ANY = {"raft_addr": "127.0.0.1:0", "mem_bind": "127.0.0.1:0", "mgmt_addr": "127.0.0.1:0"}


class Calls:
    """What the callbacks of a node were called with, in order."""

    def __init__(self) -> None:
        self.had: list[tuple[str, Any]] = []

    def config(self) -> dict[str, Any]:
        return {
            "on_leader_change": lambda info: self.had.append(("change", info)),
            "on_election_start": lambda: self.had.append(("start", None)),
            "on_election_end": lambda info: self.had.append(("end", info)),
        }


class Seen:
    """A node's stream, read to the end of what has come."""

    def __init__(self, cluster: Cluster) -> None:
        self.stream, self.events = cluster.events(), list[Event]()

    def read(self) -> list[Event]:
        while (event := self.stream.get(0)) is not None:
            self.events.append(event)
        return self.events

    def of(self, *kinds: type[Event]) -> list[Any]:
        return [event for event in self.read() if isinstance(event, kinds)]

    def wait(self, what: str, count: int, *kinds: type[Event]) -> None:
        wait_for(lambda: len(self.of(*kinds)) >= count, PATIENCE, f"{what}: {count} of {[kind.__name__ for kind in kinds]}; {self.events}")


class Three:
    """n1, n2 and n3 in this process, n2 and n3 joined as voters; n4 is a member in no quorum."""

    def __init__(self) -> None:
        self.nodes: dict[str, Cluster] = {}
        self.seen: dict[str, Seen] = {}
        self.calls: dict[str, Calls] = {}

    def add(self, name: str, seeds: str = "", **config: Any) -> Cluster:
        self.calls[name] = Calls()
        node = Cluster(Config(node_id=name, seeds_csv=seeds, bootstrap=not seeds, **ANY, **self.calls[name].config(), **config))
        self.nodes[name], self.seen[name] = node, Seen(node)
        return node

    @property
    def leader(self) -> str:
        return next(iter(self.nodes.values())).status().leader_id

    def stop(self) -> None:
        for node in self.nodes.values():
            node.stop()


@pytest.fixture
def three() -> Iterator[Three]:
    made = Three()
    try:
        first = made.add("n1")
        seed = first.ref.addresses()["gossip"]
        for name in ("n2", "n3", "n4"):
            made.add(name, seed)
        for name in ("n2", "n3"):
            first.join(name, made.nodes[name].ref.addresses()["raft"], timeout=30)
        for name, seen in made.seen.items():
            seen.wait(name, 3, MemberJoin)
            seen.wait(name, 1, LeaderChanged)
        yield made
    finally:
        made.stop()


def rounds(events: list[Event]) -> list[tuple[str, str]]:
    return [(type(event).__name__, getattr(event, "leader_id", "")) for event in events if isinstance(event, (ElectionStart, ElectionEnd))]


def test_every_node_hears_of_every_election_and_member_and_its_callbacks_too(three: Three) -> None:
    old = three.leader
    assert old == "n1"
    for name in ("n2", "n3", "n4"):
        assert rounds(three.seen[name].read()) == [], "they came to a cluster that had its leader"
    three.nodes.pop(old).stop()  # hands over, and is not heard any more
    for name in ("n2", "n3", "n4"):
        seen = three.seen[name]
        seen.wait(name, 1, ElectionEnd)
        seen.wait(name, 1, MemberFailed)
        ends = [event for event in seen.of(ElectionEnd) if event.leader_id]
        assert rounds(seen.read())[:2] == [("ElectionStart", ""), ("ElectionEnd", ends[0].leader_id)]
        assert ends[0].leader_id != old and ends[0].term > 1
        assert {event.member_id for event in seen.of(MemberJoin)} >= {"n1", "n2", "n3", "n4"} - {name}
        assert [event.member_id for event in seen.of(MemberFailed)] == [old]
        assert seen.of(MemberLeave) == []
        last = seen.of(LeaderChanged)[-1]
        assert (last.leader_id, last.term) == (seen.of(ElectionEnd)[-1].leader_id, seen.of(ElectionEnd)[-1].term)
        assert last.leader_addr == three.nodes[last.leader_id].ref.addresses()["mgmt"]
        calls = three.calls[name]
        wait_for(
            lambda calls=calls, seen=seen: len(calls.had) >= len(seen.of(ElectionStart, ElectionEnd, LeaderChanged)), PATIENCE, "callbacks"
        )
        kinds = [kind for kind, _ in calls.had if kind != "change"]
        assert kinds == ["start", "end"] * (len(kinds) // 2)
        assert ("change", LeaderInfo(last.leader_id, last.leader_addr, last.term)) in calls.had
        assert ("end", LeaderInfo(last.leader_id, last.leader_addr, last.term)) in calls.had


def test_who_listens_late_begins_with_the_leader_and_the_members(three: Three) -> None:
    for name in ("n1", "n3", "n4"):
        late = Seen(three.nodes[name])
        late.wait(name, 1, LeaderChanged)
        assert all(event.current for event in late.read())
        assert [event.leader_id for event in late.of(LeaderChanged)] == ["n1"]
        assert {event.member_id: event.addr for event in late.of(MemberEvent)} == {
            other: node.ref.addresses()["gossip"] for other, node in three.nodes.items() if other != name
        }


def test_who_is_slow_is_told_what_is_missing_and_what_is_so(three: Three) -> None:
    node = three.nodes["n2"]
    with node.events(capacity=1, replay=True) as slow:
        while slow.get(0) is not None:
            pass
        bus = node.ref._actor_weakref()._rooms.events  # type: ignore[union-attr]
        for number in range(5):
            bus.tell(Emit(ElectionStart(0.0, number)))
        assert node.status(local=True).dropped[f"events: {MISSED}"] == 4
        assert isinstance(slow.get(0), ElectionStart)
        gap = slow.get(0)
        assert isinstance(gap, EventsMissed) and gap.count == 4
        now = [event for event in iter(lambda: slow.get(0), None) if event is not None]
        assert all(event.current for event in now)
        assert {type(event) for event in now} == {LeaderChanged, MemberJoin}
        assert slow.missed == 4


def test_events_of_an_async_cluster_come_as_they_happen(three: Three) -> None:
    seed = three.nodes["n1"].ref.addresses()["gossip"]

    async def main() -> None:
        async with AsyncCluster(Config(node_id="n5", seeds_csv=seed, **ANY)) as cluster:
            here = set[str]()
            async for event in cluster.events():
                if isinstance(event, MemberJoin):
                    here.add(event.member_id)
                if here == {"n1", "n2", "n3", "n4"}:
                    break
            async with cluster.events(replay=False) as news:
                wanted = asyncio.create_task(anext(news))
                three.add("n6", seed)
                event = await asyncio.wait_for(wanted, PATIENCE)
                assert isinstance(event, MemberJoin) and event.member_id == "n6" and not event.current
            assert [event async for event in news] == []

    asyncio.run(main())


@pytest.mark.long
def test_after_a_kill_followers_and_a_stranger_to_the_quorum_hear_the_same(tmp_path: Path) -> None:
    """Real processes: the leader gets no chance to say anything."""
    with process_cluster(tmp_path) as cluster:
        outsider = cluster.add("outsider").start()
        cluster.wait_whole()
        leader = cluster.leader()
        begin = {node.name: len(node.lines) for node in cluster.nodes}
        leader.kill()
        new = cluster.wait_leader(cluster.others(leader), PATIENCE)
        for node in cluster.others(leader):
            line = node.wait_line(
                lambda line: line.get("event") == "ElectionEnd" and line["leader_id"] == new.name, PATIENCE, begin[node.name]
            )
            told = [said["event"] for said in node.lines[begin[node.name] :] if said.get("event") in ("ElectionStart", "ElectionEnd")]
            assert told[:2] == ["ElectionStart", "ElectionEnd"], (node.name, told)
            assert line["leader_addr"] == new.mgmt_addr
            node.wait_line(
                lambda line: line.get("event") == "MemberFailed" and line["member_id"] == leader.name, PATIENCE, begin[node.name]
            )
        assert outsider.count("ElectionStart") == outsider.count("ElectionEnd") >= 1
