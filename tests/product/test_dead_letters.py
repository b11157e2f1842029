"""Records that a handler cannot take, on three real processes: passed over once they are dead letters, on the failing nodes only, once, whoever dies meanwhile."""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.product.checks import check_delivered_once
from tests.product.nodes import Node, ProcessCluster, process_cluster
from tests.product.siege import call
from tests.product.wait import wait_for

LETTERS = "dead-letters"


@pytest.fixture
def cluster(tmp_path: Any) -> Iterator[ProcessCluster]:
    with process_cluster(tmp_path, repl_retry=0.1, repl_attempts=4) as cluster:
        yield cluster


def seqs(node: Node, topic: str) -> list[int]:
    return [delivery.seq for delivery in node.deliveries().get(topic, [])]


def ask_http(node: Node, method: str, path: str, body: Any = None) -> dict[str, Any]:
    status, text = call(node.mgmt_addr, method, path, body)
    assert status == 200, text
    document: dict[str, Any] = json.loads(text)
    return document


def metric(node: Node, name: str) -> float:
    _, text = call(node.mgmt_addr, "GET", "/metrics")
    return sum(float(line.rpartition(" ")[2]) for line in text.decode().splitlines() if line.startswith(name + "{"))


def test_a_record_that_one_nodes_handler_cannot_take_stops_nobody_and_is_kept(cluster: ProcessCluster) -> None:
    leader = cluster.leader()
    bad, other = cluster.others(leader)
    bad.ask("poison", begins="poison")
    for data in ("one|", "poison|", "three|"):
        other.ask("publish", topic="t", data=data)
    wait_for(lambda: ask_http(bad, "GET", "/status")["Failing"], 20, "the failing node's status says so")
    other.ask("publish", topic="u", data="others go on")
    for node in cluster.nodes:
        wait_for(lambda node=node: seqs(node, "t") == ([1, 3] if node is bad else [1, 2, 3]), 30, f"{node.name} goes on")
        wait_for(lambda node=node: seqs(node, "u") == [1], 20, f"{node.name} has the other topic")
        letters = wait_for_value(lambda node=node: ask_http(node, "GET", "/dead-letters?topic=t")["letters"])
        assert [(x["node"], x["topic"], x["seq"], x["attempts"]) for x in letters] == [(bad.name, "t", 2, 4)]
        assert letters[0]["reason"] == f"ValueError: {bad.name} cannot read 'poison'"
        assert base64.b64decode(letters[0]["data"]) == b"poison|"
        wait_for(lambda node=node: len(node.ask("letters", handled=True)) == 1, 20, "every node's handler has the letter")
        assert metric(node, "coterie_dead_letters_total") == (1 if node is bad else 0)
        wait_for(lambda node=node: any(line.get("event") == "DeadLettered" for line in node.lines), 20, f"{node.name} emits the event")
    status = ask_http(leader, "GET", "/status")
    assert status["DeadLetters"] == {"t": 1} and status["Failing"] == [] and not status["Warnings"]

    bad.ask("poison", begins="")
    for _ in range(2):
        assert ask_http(bad, "POST", "/requeue", {"letter": 1})["seq"] == 4
    for node in cluster.nodes:
        wait_for(lambda node=node: seqs(node, "t")[-1] == 4, 20, f"{node.name} has it again")
        check_delivered_once(node)
    status_code, text = call(bad.mgmt_addr, "POST", "/requeue", {"letter": 99})
    assert status_code == 400 and b"letter=99" in text


def test_all_handlers_fail_and_the_leader_dies_in_between_and_each_node_writes_each_letter_once(cluster: ProcessCluster) -> None:
    leader = cluster.leader()
    others = cluster.others(leader)
    for node in cluster.nodes:
        node.poison = "poison"
        node.ask("poison", begins=node.poison)
    number = 12
    for n in range(number):
        leader.ask("publish", topic=f"t{n % 3}", data=f"{'poison' if n % 2 else 'fine'}:{n}|")
    wait_for(lambda: others[0].ask("letters"), 30, "the first letters are there")
    leader.kill()
    wait_for(lambda: cluster.wait_leader(others) is not leader, 20, "another leads")
    leader.start()
    cluster.wait_whole()
    others[1].ask("publish", topic="t0", data="after|")
    cluster.wait_settled(60)

    expected = {(node.name, f"poison:{n}|") for node in cluster.nodes for n in range(1, number, 2)}
    first = cluster.nodes[0]
    last = next(t["seq"] for t in first.status(local=True)["topics"] if t["topic"] == LETTERS)
    reference = wait_for_value(lambda: (found := first.ask("letters")) and found[0][0] == last and found)  # the buffer is written later
    assert len(reference) == len(expected), "no letter is missing, and none was written twice"
    assert {(name, data) for _, name, _, _, _, data in reference} == expected
    for node in cluster.nodes:
        wait_for(lambda node=node: node.ask("letters") == reference, 20, f"{node.name} holds the same letters")
        for topic, group in itertools.groupby(sorted(reference, key=lambda x: x[2]), key=lambda x: x[2]):
            passed = {seq for _, name, _, seq, _, _ in group if name == node.name}
            had = set(seqs(node, topic))
            assert not had & passed, "nothing is both handled and a dead letter"
            assert had | passed == set(range(1, max(had | passed) + 1)), "and nothing is neither"


def test_without_a_quorum_the_topic_waits_and_says_so_and_goes_on_after_it(cluster: ProcessCluster) -> None:
    """Jepsen on Bufstream: subscribers stop for ever after a fault. Here two: a handler that fails, and a quorum that is lost meanwhile."""
    leader = cluster.leader()
    others = cluster.others(leader)
    leader.ask("poison", begins="poison")
    leader.ask("stall", on=True)
    for data in ("poison|", "two|"):
        leader.ask("publish", topic="t", data=data)
    for node in others:
        node.kill()
    leader.ask("stall", on=False)
    row = wait_for_value(
        lambda: [f for f in leader.status(local=True)["failing"] if "NoQuorum" in f["waiting"] or "Indeterminate" in f["waiting"]], 60
    )[0]
    assert (row["topic"], row["seq"], row["attempts"]) == ("t", 1, 4)
    assert seqs(leader, "t") == []
    for node in others:
        node.start()
    cluster.wait_whole()
    took = wait_for(lambda: seqs(leader, "t") == [2], 30, "the subscriber goes on")
    assert took < 15
    assert [(name, seq) for _, name, _, seq, _, _ in wait_for_value(lambda: leader.ask("letters"))] == [(leader.name, 1)]


def wait_for_value(look: Any, deadline: float = 20) -> Any:
    found: list[Any] = []

    def looked() -> bool:
        found[:] = [look()]
        return bool(found[0])

    wait_for(looked, deadline, "it is there")
    return found[0]
