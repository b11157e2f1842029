"""The quorum as operators change it: leadership that is handed over, and a leader that leaves. Real processes."""

from __future__ import annotations

import json
import time

import pytest

from tests.product.checks import check_outcomes, check_same
from tests.product.commands import clusterctl
from tests.product.failover import first_write
from tests.product.nodes import ProcessCluster, process_cluster
from tests.product.wait import wait_for

pytestmark = [pytest.mark.long, pytest.mark.timeout(400)]

WAIT = 30.0


def voters(cluster: ProcessCluster) -> set[str]:
    return {m["id"] for m in cluster.leader().status(local=True)["members"] if m["suffrage"] == "voter"}


def test_leadership_goes_where_it_is_sent_by_http_grpc_and_the_command(tmp_path):
    with process_cluster(tmp_path) as cluster:
        first = cluster.leader()
        second, third = cluster.others(first)
        assert first.post_json("/transfer", id=second.name) == {"accepted": True}
        assert cluster.leader() is second
        refused = first.post_json("/transfer", id=third.name)
        assert refused == {"accepted": False, "leader": second.mgmt_addr, "error": "not leader"}
        assert second.post_json("/transfer", id=second.name) == {"accepted": True}, "it leads already"
        assert second.post_json("/transfer", id="n9")["kind"] == "UnknownMember"

        told = clusterctl("transfer", "--to", third.name, "--addr", first.mgmt_addr)
        assert (told.returncode, json.loads(told.stdout)) == (0, {"accepted": True}), told
        assert cluster.leader() is third
        grpc = next(m["meta"]["grpc"] for m in first.status()["members"] if m["id"] == second.name)
        told = clusterctl("transfer", "--to", first.name, "--addr", grpc, "--mgmt-proto", "grpc")
        assert (told.returncode, json.loads(told.stdout)) == (0, {"accepted": True}), told
        assert cluster.leader() is first
        assert clusterctl("transfer", "--addr", first.mgmt_addr).returncode == 0
        assert cluster.leader() is not first
        stranger = clusterctl("transfer", "--to", "n9", "--addr", first.mgmt_addr)
        assert stranger.returncode == 1 and "n9" in stranger.stderr, stranger


def test_a_leader_that_leaves_hands_over_first_and_publishes_go_on(tmp_path):
    with process_cluster(tmp_path) as cluster:
        leader = cluster.leader()
        others = cluster.others(leader)
        for node in others:
            node.load(topics=["a", "b"], pause=0.001, timeout=5)
        time.sleep(0.5)  # of load
        began = time.monotonic()
        assert leader.post_json("/leave", id=leader.name) == {"accepted": True}
        took = time.monotonic() - began
        write = first_write(others[0])
        time.sleep(0.5)  # of load
        lines = [node.load_done(stop=True) for node in others]
        print(f"\nleft after {took:.3f} s; the next write took {write:.3f} s; {lines}")
        assert voters(cluster) == {node.name for node in others}
        assert "removed from the voters" not in (tmp_path / f"{leader.name}.stderr").read_text(), "it led no more when it was removed"
        assert not any(line["failed"] for line in lines), "a transfer loses nothing, and nothing is unknown"
        assert max(line["worst"] for line in lines) < 3.0, "no longer gap than the transfer"
        wait_for(lambda: leader.status(local=True)["leader_id"] != "", WAIT, "the one that left follows by its stream")
        cluster.wait_settled()
        check_outcomes(check_same(cluster.nodes), others, [node.name for node in others])


# -- the quorum that grows, shrinks and begins by itself ---------------------------------------------------------------------------------


def cluster_of(tmp_path, count: int, **config) -> ProcessCluster:
    """Nodes that all know one another as seeds; none is told to begin, none is started."""
    cluster = ProcessCluster(tmp_path, count, **config)
    seeds = ",".join(str(node.config["mem_bind"]) for node in cluster.nodes)
    for node in cluster.nodes:
        node.config |= {"bootstrap": False, "seeds_csv": seeds}
    return cluster


def suffrages(cluster: ProcessCluster) -> dict[str, str]:
    members = cluster.leader().status(local=True)["members"]
    return {m["id"]: m["suffrage"] for m in members if m["suffrage"] != "none"}


def kill_all(cluster: ProcessCluster) -> None:
    for node in cluster.nodes:
        node.kill()


def test_nodes_become_learners_and_voters_by_themselves_and_a_lost_one_is_replaced(tmp_path):
    cluster = cluster_of(tmp_path, 4, auto_join=True, max_voters=3, remove_dead_after="5s")
    cluster.nodes[0].config |= {"bootstrap": True}
    try:
        for node in cluster.nodes:
            node.start(60)

        def grown() -> bool:
            return sorted(suffrages(cluster).values()) == ["learner", "voter", "voter", "voter"]

        wait_for(grown, WAIT, "three voters and a learner", every=0.2)
        cluster.nodes[1].ask("publish", topic="a", data="x")
        lost = next(node for node in cluster.followers() if suffrages(cluster)[node.name] == "voter")
        spare = next(name for name, suffrage in suffrages(cluster).items() if suffrage == "learner")
        lost.kill()

        def replaced() -> bool:
            now = suffrages(cluster)
            return lost.name not in now and now[spare] == "voter" and len(now) == 3

        wait_for(replaced, 90, "the learner has the place of the one that was lost", every=0.2)
        lost.start(60)
        wait_for(lambda: suffrages(cluster).get(lost.name) == "learner", WAIT, "it is back, as the spare one", every=0.2)

        leaver = next(node for node in cluster.followers() if suffrages(cluster)[node.name] == "voter")
        cluster.leader().ask("leave", id=leaver.name)
        wait_for(lambda: suffrages(cluster).get(lost.name) == "voter", WAIT, "the spare one has its place", every=0.2)
        assert leaver.name not in suffrages(cluster), "who was taken out by hand is not taken again"
        leaver.kill()
        leaver.start(60)
        wait_for(lambda: suffrages(cluster).get(leaver.name) == "learner", WAIT, "until it has started anew", every=0.2)
    finally:
        kill_all(cluster)


def test_three_nodes_form_one_cluster_a_fourth_and_an_emptied_one_do_not_form_another(tmp_path):
    cluster = cluster_of(tmp_path, 4, bootstrap_expect=3)
    first, second, third, fourth = cluster.nodes
    for node in cluster.nodes:
        node.config["seeds_csv"] = ",".join(str(node.config["mem_bind"]) for node in (first, second, third))
    try:
        first.start(60)
        second.start(60)
        time.sleep(2)  # in which two of three must not begin
        for node in (first, second):
            status = node.status(local=True)
            assert (status["term"], status["leader_id"]) == (0, ""), status
            assert any("bootstrap_expect=3" in warning for warning in status["warnings"]), status["warnings"]
        third.start(60)
        cluster.wait_leader([first, second, third], WAIT)
        wait_for(lambda: suffrages(cluster) == {"n1": "voter", "n2": "voter", "n3": "voter"}, WAIT, "three voters")
        first.ask("publish", topic="a", data="x")

        fourth.start(60)  # late
        emptied = cluster.followers()[0]
        emptied.kill()
        emptied.config["data_dir"] = str(tmp_path / "emptied")
        emptied.start(60)
        wait_for(lambda: any("forms no cluster beside it" in w for w in fourth.status(local=True)["warnings"]), WAIT, "the fourth waits")
        cluster.leader().ask("join", id=fourth.name, raft_addr=fourth.raft_addr, timeout=30)
        assert suffrages(cluster) == {"n1": "voter", "n2": "voter", "n3": "voter", "n4": "voter"}
        cluster.wait_settled()
        for node in cluster.nodes:  # and all of it once more: nobody begins anew
            node.kill()
        for node in cluster.nodes:
            node.start(60)
        cluster.wait_leader(cluster.nodes, WAIT)
        assert set(suffrages(cluster)) == {"n1", "n2", "n3", "n4"}
    finally:
        kill_all(cluster)
