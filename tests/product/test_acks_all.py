"""acks="all" on real nodes: an answer when the slowest live member has had the record, whatever dies meanwhile."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from coterie import AsyncCluster, Config, HandlerActor, NotDelivered, PublishMany
from coterie.testing import LocalCluster
from tests.product.checks import check_same
from tests.product.nodes import CommandFailed, Node, ProcessCluster, process_cluster
from tests.product.wait import wait_for

GATES: dict[str, threading.Event] = {}


class Gated:
    """The third node that starts has a handler that stands until its gate is opened."""

    def __init__(self) -> None:
        self.gate = GATES.setdefault(f"handler {len(GATES) + 1}", threading.Event())
        if len(GATES) != 3:
            self.gate.set()

    def handle_sync(self, topic: str, data: bytes) -> None:
        assert self.gate.wait(60)


def test_the_answer_comes_when_the_slowest_handler_has_had_it_and_its_lack_is_told() -> None:
    GATES.clear()
    with LocalCluster(3, Gated) as cluster:
        gate = GATES["handler 3"]
        try:
            nodes = list(cluster.nodes.values())
            with pytest.raises(NotDelivered) as late:
                nodes[1].publish("t", b"early", acks="all", timeout=0.5)
            assert (late.value.topic, late.value.seq, late.value.missing) == ("t", 1, ("n3",))
            futures = [node.ref.ask(PublishMany("t", [node.name.encode()] * 2, "all", 60.0), block=False) for node in nodes]
            assert nodes[0].publish("t", b"quorum").seq > 1
            assert not any(future.done for future in futures)
        finally:
            gate.set()
        assert sorted(future.get(timeout=60).first_seq for future in futures)[0] >= 2
        assert nodes[2].publish("t", b"all", acks="all", timeout=60.0).seq == 9
        assert all(delivered[-1] == b"all" and len(delivered) == 9 for delivered in cluster.delivered("t").values())


def test_a_handler_that_waits_for_itself_is_told_so() -> None:
    found: list[BaseException] = []

    class Inward:
        node: Any = None

        def handle_sync(self, topic: str, data: bytes) -> None:
            if topic == "in":
                try:
                    Inward.node.publish("out", b"x", acks="all", timeout=0.5)
                except NotDelivered as error:
                    found.append(error)

    with LocalCluster(1, Inward) as cluster:
        Inward.node = cluster.nodes["n1"]
        Inward.node.publish("in", b"x", acks="all", timeout=60.0)
        assert "waits for itself" in str(found[0])
        assert cluster.delivered("out") == {"n1": [b"x"]} or Inward.node.publish("out", b"y", acks="all", timeout=60.0).seq == 2


def test_with_await() -> None:
    config = Config(node_id="n1", bootstrap=True, **dict.fromkeys(("raft_addr", "mem_bind", "mgmt_addr"), "127.0.0.1:0"))
    had: list[bytes] = []

    class Keeper(HandlerActor):
        def handle_sync(self, topic: str, data: bytes) -> None:
            had.append(data)

    async def run(handler: Any) -> None:
        async with AsyncCluster(config, handler) as cluster:
            assert (await cluster.publish("t", b"a", acks="all")).seq == 1
            assert had == [b"a"]
            assert (await cluster.publish_many("t", [b"b", b"c"], acks="all")).last_seq == 3
            assert had == [b"a", b"b", b"c"]

    handler = Keeper.start()
    try:
        asyncio.run(run(handler))
    finally:
        handler.stop()


# -- real processes -----------------------------------------------------------------------------------------------------------------


def publish_at(node: Node, data: str, timeout: float = 60.0) -> int:
    """-> the number of the reply."""
    return node.post("publish", topic="t", data=data, acks="all", timeout=timeout)


def outcome(node: Node, number: int, within: float = 70.0) -> Any:
    line = node.wait_line(lambda line: line.get("reply") == number, within)
    if "error" in line:
        raise CommandFailed(line["error"], line["text"])
    return line["value"]


def answered(node: Node, number: int) -> bool:
    return any(line.get("reply") == number for line in node.lines)


def stalled(cluster: ProcessCluster, asked_at: Node, slow: Node) -> int:
    """A publish at one node that waits for the other's handler alone."""
    slow.ask("stall", on=True)
    number = publish_at(asked_at, "waits")

    def waits_for_it() -> bool:
        topics = cluster.leader().status(local=True)["topics"]
        acked = next((topic["acked"] for topic in topics if topic["topic"] == "t"), {})
        return (
            bool(acked)
            and all(acked.get(node.name, 0) == acked[asked_at.name] > 0 for node in cluster.others(slow))
            and not acked[slow.name]
        )

    wait_for(waits_for_it, 30, f"all but {slow.name} have acknowledged")
    assert not answered(asked_at, number)
    return number


@pytest.mark.long
@pytest.mark.parametrize("at_leader", [True, False])
def test_one_slow_handler_holds_the_answer_up_and_no_other_publish(tmp_path: Path, at_leader: bool) -> None:
    with process_cluster(tmp_path) as cluster:
        leader, (follower, slow) = cluster.leader(), cluster.followers()
        node = leader if at_leader else follower
        number = stalled(cluster, node, slow)
        for other in (leader, follower, slow):
            assert other.ask("publish", topic="t", data="quorum")["seq"] > 1
        with pytest.raises(CommandFailed) as late:
            node.ask("publish", topic="t", data="late", acks="all", timeout=1.0)
        assert late.value.name == "NotDelivered" and slow.name in late.value.text
        told = node.post_json("/publish", topic="t", data="", acks="all", messageId="over http") if at_leader else None
        assert told is None or (told["kind"], told["missing"]) == ("NotDelivered", [slow.name]), told
        assert not answered(node, number)
        slow.ask("stall", on=False)
        assert outcome(node, number)["seq"] == 1
        if told is not None:
            again = node.post_json("/publish", topic="t", data="", acks="all", messageId="over http")
            assert (again["seq"], again["index"]) == (told["seq"], told["index"])
        cluster.wait_settled()
        check_same(cluster.nodes)


@pytest.mark.long
def test_a_node_that_is_killed_is_waited_for_no_more_than_gossip_takes(tmp_path: Path) -> None:
    with process_cluster(tmp_path) as cluster:
        node, slow = cluster.followers()
        number = stalled(cluster, node, slow)
        slow.kill()
        began = time.monotonic()
        assert outcome(node, number)["seq"] == 1
        print(f"\nanswered {time.monotonic() - began:.1f} s after the kill")
        slow.start()
        cluster.wait_whole()
        assert node.ask("publish", topic="t", data="whole again", acks="all", timeout=60.0, wait=70)["seq"] == 2
        assert slow.deliveries()["t"][-1].head == "whole again"


@pytest.mark.long
@pytest.mark.parametrize("how", ["killed", "transferred"])
def test_the_wait_outlives_the_leader(tmp_path: Path, how: str) -> None:
    """The node that published goes on with the next leader, be it another, itself, or the slow one."""
    with process_cluster(tmp_path) as cluster:
        leader = cluster.leader()
        node, slow = cluster.followers()
        number = stalled(cluster, node, slow)
        held = publish_at(leader, "at the leader") if how == "transferred" else None
        if how == "killed":
            leader.kill()
        else:
            wait_for(lambda: any(t["seq"] == 2 for t in leader.status(local=True)["topics"]), 30, "it is committed")
            leader.ask("transfer", id=slow.name)
        after = cluster.wait_leader(cluster.others(leader), 60)
        assert not answered(node, number), "the slow one has not had it"
        slow.ask("stall", on=False)
        assert outcome(node, number)["seq"] == 1
        if held is not None:
            assert outcome(leader, held)["seq"] == 2
        assert after.ask("publish", topic="t", data="after", acks="all", timeout=60.0, wait=70)["seq"] == (2 if held is None else 3)
        cluster.wait_settled()
        check_same(cluster.others())


@pytest.mark.long
def test_what_was_answered_has_been_handled_by_every_node_that_lives(tmp_path: Path) -> None:
    """Looked up in what the handlers have written, right after each answer; the leader is killed on the way."""
    with process_cluster(tmp_path) as cluster:
        leader, nodes, slowest = cluster.leader(), cluster.followers(), 0.0
        for number in range(150):
            if number == 50:
                leader.kill()
            node, began = nodes[number % 2], time.monotonic()
            while True:
                try:
                    node.ask("publish", topic="t", data=f"record {number}", acks="all", message_id=str(number), timeout=30.0, wait=40)
                    break
                except CommandFailed as error:
                    assert error.name in ("Indeterminate", "NoQuorum"), error
            for other in cluster.others():
                assert other.deliveries_path.read_text().endswith(f"\trecord {number}\n"), f"{other.name} has not had record {number}"
            slowest = max(slowest, time.monotonic() - began)
        print(f"\nthe slowest answer took {slowest:.1f} s")
        assert [place.head for place in check_same(nodes)["t"]] == [f"record {number}" for number in range(150)]
