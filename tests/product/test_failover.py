"""Leaders that die, stand still, or leave; quorums that are lost and come back. Real processes under load."""

from __future__ import annotations

import signal
import time

import pytest

from tests.product.checks import check_delivered_once, check_outcomes, check_same
from tests.product.failover import MOST_SECONDS, first_write, kill_leader_under_load, pause, wait_leader_elsewhere
from tests.product.nodes import CommandFailed, process_cluster
from tests.product.wait import wait_for

TOPICS = ["a", "b", "c"]


def leaderships(node):
    """(term, leader) of every LeaderChanged that names one, as the node's listeners saw them."""
    return [(line["term"], line["leader_id"]) for line in node.lines if line.get("event") == "LeaderChanged" and line["leader_id"]]


def elections(cluster):
    return max(node.status(local=True)["term"] for node in cluster.others())


@pytest.mark.long
def test_five_leaders_killed_under_load_lose_nothing_acknowledged(tmp_path):
    with process_cluster(tmp_path) as cluster:
        times, publishers = [], []
        for round_ in range(5):
            took, names = kill_leader_under_load(cluster, round_, TOPICS)
            times.append(took)
            publishers += names
        print(f"\nseconds to the next write: {[round(t, 2) for t in times]}")
        cluster.wait_settled()
        history = check_same(cluster.nodes)
        counts = check_outcomes(history, cluster.nodes, publishers)
        print(counts)
        assert max(times) < MOST_SECONDS
        assert counts["acked"] > 1000
        for node in cluster.nodes:
            terms = [term for term, _ in leaderships(node)]
            assert terms == sorted(terms), f"{node.name} saw leaderships out of order: {leaderships(node)}"


@pytest.mark.long
def test_a_leader_that_stands_still_for_five_seconds_is_replaced_and_follows_when_it_returns(tmp_path):
    with process_cluster(tmp_path) as cluster:
        old = cluster.leader()
        others = cluster.others(old)
        for node in cluster.nodes:
            node.load(topics=TOPICS, pause=0.001, timeout=4)
        time.sleep(0.5)  # of load
        old.signal(signal.SIGSTOP)
        took = first_write(others[0])
        time.sleep(5 - took)  # what it stands for
        old.signal(signal.SIGCONT)
        new = cluster.wait_leader(others)
        term = new.status(local=True)["term"]
        wait_for(lambda: old.status(local=True)["leader_id"] == new.name, 5, "the old leader follows the new one")
        time.sleep(1)  # of load
        done = [node.load_done(stop=True) for node in cluster.nodes]
        print(f"\nnext write after {took:.2f} s; {done}")
        assert took < MOST_SECONDS
        assert new.status(local=True)["term"] == term, "its return cost no election"
        cluster.wait_settled()
        check_outcomes(check_same(cluster.nodes), cluster.nodes, [node.name for node in cluster.nodes])
        for node in cluster.nodes:
            check_delivered_once(node)


def test_a_short_pause_costs_no_election(tmp_path):
    with process_cluster(tmp_path) as cluster:
        leader, term = cluster.leader(), elections(cluster)
        for node in cluster.nodes:
            node.load(topics=TOPICS, pause=0.002)
        for node in cluster.nodes:
            pause(node, 0.3)
            time.sleep(0.3)  # of load
        for node in cluster.nodes:
            assert not node.load_done(stop=True)["failed"]
        assert (cluster.leader(), elections(cluster)) == (leader, term)
        assert all(node.count("ElectionStart", begin=0) == 0 for node in cluster.nodes if node is not leader)


def test_without_a_quorum_nothing_is_acknowledged_and_writes_go_on_when_one_returns(tmp_path):
    with process_cluster(tmp_path) as cluster:
        leader = cluster.leader()
        survivor, other = cluster.others(leader)
        survivor.load("before", topics=TOPICS, count=200)
        survivor.load_done("before")
        other.kill()
        leader.kill()
        survivor.load("without", topics=TOPICS, count=50, timeout=2)
        line = survivor.load_done("without")
        assert line["acked"] == 0
        assert set(line["failed"]) <= {"NoQuorum", "Indeterminate"}
        assert line["worst"] < 3.5, "the deadline was kept"
        with pytest.raises(CommandFailed, match="NoQuorum"):
            survivor.ask("write", op="x", data="y", timeout=1)
        assert not survivor.get("/status")["Healthy"]
        other.start()
        print(f"\nnext write {first_write(survivor):.2f} s after one has returned")
        assert survivor.get("/status")["Healthy"]
        leader.start()
        cluster.wait_whole()
        cluster.wait_settled()
        check_outcomes(check_same(cluster.nodes), cluster.nodes, ["before", "without"])


@pytest.mark.long
def test_all_three_killed_at_once_and_started_again_have_what_was_acknowledged(tmp_path):
    with process_cluster(tmp_path) as cluster:
        for node in cluster.nodes:
            node.load(topics=TOPICS, count=3000, in_flight=32)
        lines = [node.load_done() for node in cluster.nodes]
        for node in cluster.nodes:
            node.signal(signal.SIGKILL)
        for node in cluster.nodes:
            node.kill()
            node.config |= {"seeds_csv": "", "bootstrap": False}
        for node in cluster.nodes:
            node.start()
        cluster.wait_whole()
        before = cluster.leader().ask("publish", topic="a", data="after")["seq"]
        cluster.wait_settled()
        history = check_same(cluster.nodes)
        assert len(history["a"]) == before
        assert (
            check_outcomes(history, cluster.nodes, [n.name for n in cluster.nodes])["acked"] == sum(line["acked"] for line in lines) == 9000
        )


def test_a_leader_that_stops_hands_its_leadership_over(tmp_path):
    with process_cluster(tmp_path) as cluster:
        leader = cluster.leader()
        others = cluster.others(leader)
        for node in others:
            node.load(topics=TOPICS, pause=0.001, timeout=5)
        time.sleep(0.3)  # of load
        leader.post("stop")
        began = time.monotonic()
        wait_leader_elsewhere(cluster, leader)
        took = first_write(others[0])
        gap = time.monotonic() - began
        leader.process.wait(20)
        stopped = time.monotonic() - began
        lines = [node.load_done(stop=True) for node in others]
        print(f"\nnext write {took:.3f} s, {gap:.3f} s after the order to stop; the process ended after {stopped:.2f} s; {lines}")
        assert gap < 1
        assert not any(line["failed"].get("NoQuorum") for line in lines)
        assert max(line["worst"] for line in lines) < 1.5
        cluster.wait_settled()
        check_outcomes(check_same(others), others, [node.name for node in others])
