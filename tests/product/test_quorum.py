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

pytestmark = pytest.mark.long

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
