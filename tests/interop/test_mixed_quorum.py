"""One quorum of nodes of ours, as real processes, and a node in the manner of go-cluster: what a migration leans on.

Whoever leads dies; Go leads and publishes wait; a Go node comes and goes; ours grow out of a Go cluster and are left alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.interop.go_node import GoNode
from tests.interop.mixed import join, make_go_lead, roster, wait_rosters, who_leads
from tests.product.checks import check_outcomes, check_same
from tests.product.failover import first_write
from tests.product.nodes import CommandFailed, Node, ProcessCluster
from tests.product.wait import wait_for

pytestmark = [pytest.mark.go, pytest.mark.timeout(300)]

StartGo = Callable[..., GoNode]


@pytest.fixture
def go_node(programs: Path, tmp_path: Path) -> Iterator[StartGo]:
    """Starts a node of the other make."""
    nodes: list[GoNode] = []

    def start(name: str, seeds: list[str], **options: Any) -> GoNode:
        nodes.append(GoNode(programs / "roster", tmp_path, name, seeds, **options))
        return nodes[-1].start()

    yield start
    for node in nodes:
        node.close()


@pytest.fixture
def ours(tmp_path: Path) -> Iterator[Callable[..., ProcessCluster]]:
    """Nodes n1, n2, … of ours, not started yet."""
    clusters: list[ProcessCluster] = []

    def make(count: int = 2, **config: Any) -> ProcessCluster:
        clusters.append(ProcessCluster(tmp_path, count, **config))
        return clusters[-1]

    yield make
    for cluster in clusters:
        for node in cluster.nodes:
            node.kill()


def warned(node: Node) -> bool:
    return any(warning.startswith("a Go node leads: g1") for warning in node.status(local=True)["warnings"])


# -- the whole ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_five_leaders_die_the_rosters_agree_and_nothing_acknowledged_is_lost(ours: Callable[..., ProcessCluster], go_node: StartGo) -> None:
    cluster = ours().start()
    go = go_node("g1", [cluster.seed])
    join(cluster.leader(), go)
    wait_rosters(cluster.nodes, [go], {"n1", "n2", "g1"})
    died, publishers = [], []
    for round_ in range(5):
        loads = {
            node.name: node.load(f"{node.name}.{round_}", topics=["a", "b/c"], seed=round_, pause=0.001, timeout=5)
            for node in cluster.nodes
        }
        time.sleep(0.3)  # of load
        if round_ in (1, 3):
            make_go_lead(cluster, go)
        leader = who_leads(cluster, go)
        leader.kill()
        died.append(leader.name)
        survivors = cluster.others()
        first_write(survivors[round_ % len(survivors)], deadline=20)
        leader.start()
        time.sleep(0.3)  # of load, while the dead one catches up
        for node in survivors:
            node.load_done(loads[node.name], stop=True)
            publishers.append(loads[node.name])
        cluster.wait_whole(30)
    assert "g1" in died and {"n1", "n2"} & set(died)

    cluster.wait_settled()
    counts = check_outcomes(check_same(cluster.nodes), cluster.nodes, publishers)
    assert counts["acked"] > 0
    rows = wait_rosters(cluster.nodes, [go], {"n1", "n2", "g1"})
    assert {row["ID"]: row["Addr"] for row in rows} == {"g1": go.gossip, **{node.name: node.config["mem_bind"] for node in cluster.nodes}}
    applied = go.state()["applied"]
    assert go.peer.ask("roster")["skipped"] > 0  # it had our publishes, and took them for what they are
    print(f"died: {', '.join(died)}; outcomes: {counts}; Go applied {applied} entries")


# -- a Go leader and our publishes --------------------------------------------------------------------------------------------------


def test_publishes_that_wait_for_a_go_leader_make_one_of_ours_lead(ours: Callable[..., ProcessCluster], go_node: StartGo) -> None:
    cluster = ours().start()
    go = go_node("g1", [cluster.seed])
    join(cluster.leader(), go)
    make_go_lead(cluster, go)
    for node in cluster.nodes:
        wait_for(lambda node=node: warned(node), 10, f"{node.name} says that g1 leads")  # type: ignore[misc]
    assert cluster["n1"].post_json("/leave", id="n9") == {"accepted": False, "leader": go.mgmt, "error": "not leader"}
    for number, node in enumerate(cluster.nodes):
        assert node.ask("publish", topic="t", data=str(number), timeout=15)["seq"] == number + 1
    assert not go.leads()
    assert cluster.leader() in cluster.nodes
    cluster.wait_settled()
    check_same(cluster.nodes)


def test_without_take_overs_a_publish_says_that_a_go_node_leads(ours: Callable[..., ProcessCluster], go_node: StartGo) -> None:
    cluster = ours(take_over_from_go=False).start()
    go = go_node("g1", [cluster.seed])
    join(cluster.leader(), go)
    make_go_lead(cluster, go)
    wait_for(lambda: warned(cluster["n2"]), 10, "n2 says that g1 leads")
    with pytest.raises(CommandFailed, match=r"NoQuorum: the leader g1 is a node of go-cluster"):
        cluster["n2"].ask("publish", topic="t", data="x", timeout=3)
    assert go.leads()


@pytest.mark.long
def test_whom_a_go_leader_put_out_comes_back_with_a_join(ours: Callable[..., ProcessCluster], go_node: StartGo) -> None:
    """go-cluster's leaders remove from the quorum whom the gossip gives up. What that node had is not lost, but it has to be asked in again."""
    cluster = ours().start()
    n1, n2 = cluster.nodes
    assert n2.ask("publish", topic="t", data="before", timeout=15)["seq"] == 1
    go = go_node("g1", [cluster.seed], evict=True)
    join(cluster.leader(), go)
    wait_rosters(cluster.nodes, [go], {"n1", "n2", "g1"})
    make_go_lead(cluster, go)
    n2.kill()
    wait_for(lambda: "n2" not in {server["node"] for server in go.peer.ask("servers")["servers"]}, 40, "g1 puts n2 out", every=0.2)
    n2.start()
    wait_for(lambda: n1.ask("publish", topic="t", data="meanwhile", timeout=15)["seq"] >= 2, 30, "n1 publishes")
    wait_for(lambda: "n2" not in {row["ID"] for row in roster(n1)}, 10, "the roster of n1 is without n2")
    assert n1.post_json("/join", id="n2", raftAddr=n2.raft_addr) == {"accepted": True}
    wait_rosters(cluster.nodes, [go], {"n1", "n2", "g1"})
    assert n2.ask("publish", topic="t", data="after", timeout=15)["seq"] == 3
    cluster.wait_settled()
    check_same(cluster.nodes)


# -- a Go node comes and goes -------------------------------------------------------------------------------------------------------


def test_a_go_node_joins_is_shown_holds_nothing_up_and_leaves(ours: Callable[..., ProcessCluster], go_node: StartGo) -> None:
    cluster = ours(repl_window=64).start()
    n1, n2 = cluster.nodes
    go = go_node("g1", [cluster.seed])
    leader = cluster.leader()
    wrong = leader.post_json("/join", id="g1", raftAddr=n2.raft_addr)
    assert wrong["accepted"] is False and wrong["kind"] == "AlreadyMember", wrong
    join(leader, go)

    row = next(m for m in leader.get("/status")["Members"] if m["ID"] == "g1")
    shown = (row["Addr"], row["Meta"], row["State"], row["Suffrage"], row["RaftAddr"])
    assert shown == (go.gossip, {"mgmt": go.mgmt}, "alive", "voter", go.raft_addr)
    assert {"ID": "g1", "Addr": go.gossip, "Meta": {"mgmt": go.mgmt}} in wait_rosters(cluster.nodes, [go], {"n1", "n2", "g1"})

    n2.load("n2.load", topics=["t"], count=1000)  # many windows, none of which waits for the one who acknowledges nothing
    assert n2.load_done("n2.load")["failed"] == {}
    cluster.wait_settled()
    last = n1.status(local=True)["last_index"]
    wait_for(lambda: go.state()["applied"] >= last, 15, "Go has it all")
    wait_for(lambda: not n1.get("/status")["Warnings"], 10, "nothing is wrong")

    assert cluster.leader().post_json("/leave", id="g1") == {"accepted": True}
    wait_rosters(cluster.nodes, [], {"n1", "n2"})
    row = next(m for m in cluster.leader().get("/status")["Members"] if m["ID"] == "g1")
    assert (row["State"], row["Suffrage"]) == ("alive", "none")
    assert n1.ask("publish", topic="t", data="after", timeout=10)["seq"] == 1001


def test_ours_grow_out_of_a_go_cluster_with_its_roster(ours: Callable[..., ProcessCluster], go_node: StartGo) -> None:
    """The migration: a Go cluster takes in two of ours, they take over with the first publish, and the Go node leaves."""
    go = go_node("g1", [])
    go.peer.ask("bootstrap")
    go.peer.wait_for("role", lambda line: line["role"] == "Leader")
    cluster = ours(3)
    nodes = cluster.nodes[1:]  # those that do not bootstrap
    for node in nodes:
        node.config["seeds_csv"] = go.gossip
        node.start()
        go.peer.ask("voter", node=node.name, addr=node.raft_addr)
    for node in nodes:
        wait_for(lambda node=node: node.status(local=True)["leader_id"] == "g1", 15, f"{node.name} follows g1")  # type: ignore[misc]
    assert wait_rosters(nodes, [go], {"n2", "n3"} | {row["ID"] for row in go.roster()})

    assert nodes[0].ask("publish", topic="t", data="first", timeout=15)["seq"] == 1
    wait_rosters(nodes, [go], {"g1", "n2", "n3"})
    leader = cluster.wait_leader(nodes)
    assert leader.post_json("/leave", id="g1") == {"accepted": True}
    go.kill()
    wait_rosters(nodes, [], {"n2", "n3"})
    assert nodes[1].ask("publish", topic="t", data="second", timeout=15)["seq"] == 2
    cluster.wait_settled(nodes=nodes)
    check_same(nodes)
