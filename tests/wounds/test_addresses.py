"""Servers whose addresses change: all of them at once, one alone, and two that exchange theirs. Real processes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tests.product.checks import check_same
from tests.product.nodes import Node, ProcessCluster, free_port, process_cluster
from tests.product.wait import wait_for

pytestmark = [pytest.mark.long, pytest.mark.timeout(400)]

WAIT = 60.0


def move(node: Node, **addresses: str) -> None:
    """Give a node that does not run other addresses: all three, unless said."""
    fresh = {field: f"127.0.0.1:{free_port()}" for field in ("raft_addr", "mem_bind", "mgmt_addr")}
    node.config |= fresh | addresses


def seconds_to_a_leader(nodes: list[Node]) -> float:
    """From now, which is the end of the last start, until all of them know who leads."""
    began = time.monotonic()

    def known() -> bool:
        leaders = {node.status(local=True)["leader_id"] for node in nodes}
        return len(leaders) == 1 and "" not in leaders

    wait_for(known, WAIT, "all know one leader")
    return time.monotonic() - began


def raft_addresses(cluster: ProcessCluster) -> dict[str, str]:
    """As the configuration has them."""
    return {m["id"]: m["raft_addr"] for m in cluster.leader().status(local=True)["members"] if m["suffrage"] == "voter"}


def settled_addresses(cluster: ProcessCluster) -> None:
    wanted = {node.name: node.raft_addr for node in cluster.nodes}
    wait_for(lambda: raft_addresses(cluster) == wanted, WAIT, f"the configuration has the addresses {wanted}", every=0.2)


def restart_everywhere_else(cluster: ProcessCluster, tmp_path: Path, discovery: str) -> float:
    for node in cluster.nodes:
        node.kill()
    for node in cluster.nodes:
        move(node)
    seeds = ",".join(str(node.config["mem_bind"]) for node in cluster.nodes)
    settings: dict[str, Any] = {"seeds_csv": seeds}
    if discovery == "file":
        (tmp_path / "seeds").write_text(seeds)
        settings = {"seeds_csv": "", "discovery_kind": "file", "file_path": str(tmp_path / "seeds")}
    for node in cluster.nodes:
        node.config |= settings
        node.start(60)
    return seconds_to_a_leader(cluster.nodes)


@pytest.mark.parametrize("discovery", ["static", "file"])
def test_addresses_change_for_all_at_once_and_there_is_a_leader_within_ten_seconds(tmp_path: Path, discovery: str) -> None:
    with process_cluster(tmp_path) as cluster:
        for number in range(100):
            cluster.nodes[number % 3].ask("publish", topic="a", data=f"before {number}")
        took = restart_everywhere_else(cluster, tmp_path, discovery)
        print(f"\na leader {took:.2f} s after the last start, every address being another")
        assert took < 10.0
        for node in cluster.nodes:
            assert node.ask("publish", topic="a", data="after")["seq"] > 100
        settled_addresses(cluster)
        cluster.wait_settled()
        assert len(check_same(cluster.nodes)["a"]) == 103, "nothing is lost"
        for node in cluster.nodes:  # what was learned from the gossip is in the log: a restart needs no gossip to find the others
            node.kill()
        for node in cluster.nodes:
            node.config |= {"seeds_csv": "", "discovery_kind": "static", "file_path": ""}
            (tmp_path / node.name / "members.json").unlink(missing_ok=True)
            node.start(60)
        assert seconds_to_a_leader(cluster.nodes) < 10.0


def test_one_server_moves_and_is_followed(tmp_path: Path) -> None:
    with process_cluster(tmp_path) as cluster:
        moving = cluster.followers()[0]
        moving.kill()
        cluster.leader().ask("publish", topic="a", data="while it was away")
        move(moving)
        moving.config["seeds_csv"] = ",".join(str(node.config["mem_bind"]) for node in cluster.others())
        moving.start(60)
        settled_addresses(cluster)
        cluster.wait_settled()
        assert check_same(cluster.nodes)["a"]
        leader = cluster.leader()
        leader.ask("transfer", id=moving.name)
        assert cluster.leader() is moving


def test_two_servers_exchange_their_addresses_and_neither_counts_for_the_other(tmp_path: Path) -> None:
    """The configuration cannot have the same address twice, so it keeps the old ones; by gossip each is found where it is."""
    with process_cluster(tmp_path) as cluster:
        cluster.nodes[0].ask("publish", topic="a", data="before")
        one, other, third = cluster.nodes
        for node in cluster.nodes:
            node.kill()
        before = {node.name: node.raft_addr for node in cluster.nodes}
        one.config["raft_addr"], other.config["raft_addr"] = other.config["raft_addr"], one.config["raft_addr"]
        seeds = ",".join(str(node.config["mem_bind"]) for node in cluster.nodes)
        for node in cluster.nodes:
            node.config["seeds_csv"] = seeds
            node.start(60)
        assert seconds_to_a_leader(cluster.nodes) < 20.0
        for node in cluster.nodes:
            node.ask("publish", topic="a", data="after")
        cluster.wait_settled()
        assert len(check_same(cluster.nodes)["a"]) == 4
        assert raft_addresses(cluster) == before
        third.kill()  # so that both of the others are needed, each as itself
        assert cluster.wait_leader([one, other], 30)
        one.ask("publish", topic="a", data="two of three", timeout=20)


def test_an_emptied_server_at_another_address_does_not_get_its_old_place(tmp_path: Path) -> None:
    """It has forgotten its votes. Gossip says that it moved; its data directory says that it is another one."""
    with process_cluster(tmp_path) as cluster:
        emptied = cluster.followers()[0]
        before = raft_addresses(cluster)
        emptied.kill()
        move(emptied, mem_bind=str(emptied.config["mem_bind"]))
        emptied.config["data_dir"] = str(tmp_path / "another")
        emptied.config["seeds_csv"] = ",".join(str(node.config["mem_bind"]) for node in cluster.others())
        emptied.start(60)
        leader = cluster.leader()

        def warned() -> bool:
            return any("with another data directory" in warning for warning in leader.status(local=True)["warnings"])

        wait_for(warned, WAIT, "the leader says that it is another one", every=0.2)
        assert raft_addresses(cluster) == before
        assert emptied.status(local=True)["role"] != "leader"
        leader.ask("leave", id=emptied.name)
        leader.ask("join", id=emptied.name, raft_addr=emptied.raft_addr, timeout=30)
        wait_for(lambda: raft_addresses(cluster).get(emptied.name) == emptied.raft_addr, WAIT, "it joined as a new one")
        wait_for(lambda: not warned(), WAIT, "the warning is over", every=0.2)
