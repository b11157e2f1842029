"""Who is in the cluster and in its quorum: status, leaving, returning, losing the quorum, and members that only gossip. Real processes."""

from __future__ import annotations

import time

import pytest

from tests.product.checks import check_delivered_once, check_outcomes, check_same
from tests.product.failover import first_write, wait_leader_elsewhere
from tests.product.nodes import CommandFailed, process_cluster
from tests.product.wait import wait_for


def voters(node):
    return {member["id"] for member in node.status(local=True)["members"] if member["suffrage"] == "voter"}


def wait_voters(node, *names, deadline=10):
    wait_for(lambda: voters(node) == set(names), deadline, f"{node.name} counts the voters {names}")


def test_a_follower_answers_status_with_the_leader_s_view(tmp_path):
    with process_cluster(tmp_path) as cluster:
        leader = cluster.leader()
        for node in cluster.nodes:
            status = node.get("/status")
            assert status["Healthy"], status
            assert (status["LeaderID"], status["LeaderAddr"]) == (leader.name, leader.mgmt_addr)
            assert node.status()["answered_by"] == leader.name
            assert [member["ID"] for member in status["Members"]] == ["n1", "n2", "n3"]
            assert not status["Warnings"]
            own = {"Members": None, "Seeds": None}
            assert node.get("/status") | own == leader.get("/status") | own
            assert status["Seeds"] == ({} if node.name == "n1" else {cluster.seed: "reached"})  # those of the node that was asked


def test_leaving_shrinks_the_quorum_and_a_dead_one_of_two_stops_it(tmp_path):
    with process_cluster(tmp_path) as cluster:
        leader = cluster.leader()
        gone, other = cluster.others(leader)
        refused = other.post_json("/leave", id=gone.name)
        assert refused["accepted"] is False
        assert "not leader" in refused["error"]
        assert leader.post_json("/leave", id=gone.name) == {"accepted": True}
        for node in (leader, other):
            wait_voters(node, leader.name, other.name)
        gone.kill()
        other.ask("publish", topic="t", data="two of two")
        other.kill()
        with pytest.raises(CommandFailed, match=r"Indeterminate|NoQuorum"):
            leader.ask("publish", topic="t", data="one of two", timeout=2)
        took = wait_for(lambda: not leader.get("/status")["Healthy"], 10, "unhealthy")
        print(f"\nunhealthy {took:.1f} s after the failed publish")
        other.start()
        first_write(leader)
        assert leader.get("/status")["Healthy"]


def test_the_leader_itself_leaves(tmp_path):
    with process_cluster(tmp_path) as cluster:
        old = cluster.leader()
        others = cluster.others(old)
        for node in others:
            node.load(topics=["t"], pause=0.002, timeout=5)
        assert old.ask("leave", id=old.name) == {"id": old.name}
        new = wait_leader_elsewhere(cluster, old)
        print(f"\nnext write {first_write(new):.3f} s after the leader had left")
        for node in others:
            wait_voters(node, *(node.name for node in others))
        lines = [node.load_done(stop=True) for node in others]
        print(lines)
        assert max(line["worst"] for line in lines) < 3
        cluster.wait_settled()  # the one that left follows by stream
        check_outcomes(check_same(cluster.nodes), cluster.nodes, [node.name for node in others])
        for node in cluster.nodes:
            check_delivered_once(node)


def test_the_last_voter_cannot_leave(tmp_path):
    with process_cluster(tmp_path, count=1) as cluster, pytest.raises(CommandFailed, match=r"NoQuorum.*only voter"):
        cluster.nodes[0].ask("leave", id="n1")


def test_a_node_returns_as_a_voter_from_its_data_directory_alone(tmp_path):
    with process_cluster(tmp_path) as cluster:
        leader = cluster.leader()
        back, other = cluster.others(leader)
        back.stop()
        other.ask("publish", topic="t", data="meanwhile")
        back.config |= {"seeds_csv": "", "bootstrap": False}
        back.start()
        cluster.wait_whole()
        wait_voters(back, "n1", "n2", "n3")
        other.kill()
        back.ask("publish", topic="t", data="its vote counts")
        other.start()
        cluster.wait_whole()
        cluster.wait_settled()
        assert len(check_same(cluster.nodes)["t"]) == 2


@pytest.mark.long
def test_all_three_stopped_and_started_without_seeds_are_the_same_cluster(tmp_path):
    with process_cluster(tmp_path) as cluster:
        cluster.nodes[1].load(topics=["t"], count=500)
        cluster.nodes[1].load_done()
        cluster.wait_settled()
        began = time.monotonic()
        cluster.stop()
        print(f"\nall stopped in {time.monotonic() - began:.1f} s")
        for node in cluster.nodes:
            node.config |= {"seeds_csv": "", "bootstrap": False}
            node.start()
        took = first_write(cluster.nodes[2])
        print(f"next write {took:.1f} s after the start")
        cluster.wait_whole()
        for node in cluster.nodes:
            wait_voters(node, "n1", "n2", "n3")
        cluster.wait_settled()
        check_outcomes(check_same(cluster.nodes), cluster.nodes, ["n2"])
        for node in cluster.nodes:
            check_delivered_once(node)  # a graceful stop keeps the cursor


@pytest.mark.long
def test_the_survivor_of_three_says_that_the_quorum_is_lost(tmp_path):
    with process_cluster(tmp_path) as cluster:
        survivor, *others = cluster.followers()
        for node in (cluster.leader(), *others):
            node.kill()
        began = time.monotonic()
        wait_for(lambda: not survivor.get("/status")["Healthy"], 5, "unhealthy")
        unhealthy = time.monotonic() - began
        wait_for(lambda: any("no quorum: 1 of 3" in w for w in survivor.get("/status")["Warnings"]), 15, "the warning")
        print(f"\nunhealthy after {unhealthy:.1f} s, the dead ones counted after {time.monotonic() - began:.1f} s")
        assert {m["ID"] for m in survivor.get("/status")["Members"]} == {"n1", "n2", "n3"}, "the unreachable are rows"


@pytest.mark.long
def test_a_member_that_only_gossips_gets_everything_and_nothing_twice_when_it_joins_later(tmp_path):
    with process_cluster(tmp_path) as cluster:
        cluster.leader().ask("publish", topic="a", data="before it came")
        guest = cluster.add("guest").start()
        cluster.wait_whole()
        assert voters(guest) <= {"n1", "n2", "n3"}
        publishers = [node.load(f"{node.name}.1", topics=["a", "b"], pause=0.001, timeout=10) for node in cluster.nodes]
        time.sleep(0.5)  # of load
        old = cluster.leader()
        old.kill()
        new = wait_leader_elsewhere(cluster, old)
        first_write(guest)
        time.sleep(1)  # of load
        new.ask("join", id="guest", raft_addr=guest.raft_addr)
        wait_voters(guest, "n1", "n2", "n3", "guest")
        time.sleep(0.5)  # of load
        done = [node.load_done(f"{node.name}.1", stop=True) for node in cluster.others()]
        print(f"\n{[(line['publisher'], line['acked'], line['failed']) for line in done]}")
        publishers.remove(f"{old.name}.1")  # its outcomes died with it
        old.start()
        cluster.wait_whole()
        cluster.wait_settled()
        check_outcomes(check_same(cluster.nodes), cluster.nodes, publishers)
        for node in cluster.nodes:
            if node is not old:
                check_delivered_once(node)


def test_a_member_that_was_removed_goes_on_by_stream(tmp_path):
    with process_cluster(tmp_path) as cluster:
        leader = cluster.leader()
        removed = cluster.others(leader)[0]
        for node in cluster.nodes:
            node.load(topics=["a", "b"], pause=0.001, timeout=10)
        time.sleep(0.3)  # of load
        leader.ask("leave", id=removed.name)
        time.sleep(1)  # of load
        lines = [node.load_done(stop=True) for node in cluster.nodes]
        print(f"\n{[(line['publisher'], line['acked'], line['failed'], line['worst']) for line in lines]}")
        assert not any(line["failed"] for line in lines)
        cluster.wait_settled()
        check_outcomes(check_same(cluster.nodes), cluster.nodes, [node.name for node in cluster.nodes])
        for node in cluster.nodes:
            check_delivered_once(node)
