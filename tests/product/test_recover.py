"""A lost quorum, and a lost cluster: real processes are killed for good, their disks go with them, and what is left becomes a cluster again."""

from __future__ import annotations

import base64
import contextlib
import http.client
import itertools
import json
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.product.checks import check_outcomes, check_same, history_of
from tests.product.commands import clusterctl
from tests.product.nodes import CommandFailed, Node, NodeFailed, ProcessCluster, process_cluster
from tests.product.wait import wait_for

pytestmark = [pytest.mark.long, pytest.mark.timeout(400)]


def publish(node: Node, count: int, name: str) -> None:
    """With message ids, and again until acknowledged: the machine may be slow enough for a leader to step down."""
    node.load(name, topics=["orders", "a/b"], count=count, size=[20, 200], timeout=60, ids=True)
    done = node.load_done(name, deadline=120)
    assert done["acked"] == count, done


def join(cluster: ProcessCluster, node: Node) -> None:
    if not node.running:
        node.start(60)

    def joined() -> bool:
        with contextlib.suppress(CommandFailed, NodeFailed):  # who led does not any more
            cluster.wait_leader(cluster.others(node), 30).ask("join", id=node.name, raft_addr=node.raft_addr)
            return True
        return False

    wait_for(joined, 90, f"{node.name} is a voter", every=0.2)


def done(*arguments: str) -> dict[str, Any]:
    ran = clusterctl(*arguments, "--output", "json", timeout=120)
    assert ran.returncode == 0, ran.stderr
    document: dict[str, Any] = json.loads(ran.stdout)
    return document


def data_dir(node: Node) -> str:
    return str(node.config["data_dir"])


def peers_file(directory: Path, *nodes: Node) -> str:
    file = directory / "peers.json"
    file.write_text(json.dumps([{"id": node.name, "address": node.raft_addr} for node in nodes]))
    return str(file)


def destroy(cluster: ProcessCluster, *nodes: Node) -> None:
    for node in nodes:
        node.kill()
        shutil.rmtree(data_dir(node))
        cluster.nodes.remove(node)


def test_one_of_three_is_left_and_goes_on_alone_and_two_new_ones_join(tmp_path: Path) -> None:
    with process_cluster(tmp_path) as cluster:
        n1, n2, n3 = cluster.nodes
        publish(n1, 400, "before")
        cluster.wait_settled()
        n3.kill()  # not stopped: its last entries may be in the log alone
        destroy(cluster, n1, n2)
        n3.start()
        wait_for(lambda: not n3.status(local=True)["leader_id"], 20, "n3 alone has no leader")
        refused = clusterctl("recover", data_dir(n3), "--peers", peers_file(tmp_path, n3))
        assert refused.returncode != 0 and "in use by process" in refused.stderr, "a node that runs is not recovered"
        n3.stop()

        planned = done("recover", data_dir(n3), "--peers", peers_file(tmp_path, n3), "--dry-run")
        assert (planned["changed"], planned["copy"]) == (False, None)
        assert [server["id"] for server in planned["configuration"]["before"]] == ["n1", "n2", "n3"]
        recovered = done("recover", data_dir(n3), "--peers", peers_file(tmp_path, n3))
        assert recovered["entry"] == planned["entry"] and Path(recovered["copy"], "raft", "data.mdb").exists()
        assert done("check", data_dir(n3))["sound"] and done("check", recovered["copy"])["sound"]

        n3.start()
        assert cluster.wait_leader([n3], 30) is n3
        publish(n3, 300, "alone")
        cluster.seed = str(n3.config["mem_bind"])
        for name in ("n4", "n5"):
            join(cluster, cluster.add(name))
        cluster.wait_whole(30)
        publish(cluster["n5"], 300, "three again")
        cluster.wait_settled(60)
        history = check_same(cluster.nodes)
        assert check_outcomes(history, cluster.nodes, ["before", "alone", "three again"], ordered=False)["acked"] == 1000
        n3.kill()  # the two new ones are a quorum by themselves
        cluster.wait_leader([cluster["n4"], cluster["n5"]], 30)
        publish(cluster["n4"], 50, "without n3")


def test_two_of_five_are_left_with_logs_of_different_lengths_and_the_longer_one_wins(tmp_path: Path) -> None:
    with process_cluster(tmp_path, count=5) as cluster:
        n1, n2, n3, n4, n5 = cluster.nodes
        publish(n1, 200, "all")
        cluster.wait_settled()
        n4.kill()  # it misses what follows, which n5 has
        publish(n1, 300, "without n4")
        cluster.wait_settled()
        n5.kill()
        destroy(cluster, n1, n2, n3)
        peers = peers_file(tmp_path, n4, n5)
        ends = [done("recover", data_dir(node), "--peers", peers)["log"]["last"] for node in (n4, n5)]
        assert ends[0] < ends[1]
        n4.config["seeds_csv"] = n5.config["mem_bind"]
        begun = threading.Thread(target=n4.start)  # it votes, and may not win
        begun.start()
        n5.start()
        begun.join(30)
        cluster.wait_leader([n4, n5], 30)  # it is n5 at first; on a slow machine another election may follow
        cluster.wait_whole(30)
        publish(n4, 200, "two")
        cluster.wait_settled(60)
        cluster.seed = str(n5.config["mem_bind"])
        n6 = cluster.add("n6")
        join(cluster, n6)
        n5.kill()  # n4 and n6 are two of three now
        cluster.wait_leader([n4, n6], 30)
        publish(n6, 100, "n4 and n6")
        n5.start()
        cluster.wait_settled(60)
        history = check_same(cluster.nodes)
        assert check_outcomes(history, cluster.nodes, ["all", "without n4", "two", "n4 and n6"], ordered=False)["acked"] == 800


def test_three_of_five_are_left_and_the_longest_log_is_the_only_voter_at_first(tmp_path: Path) -> None:
    with process_cluster(tmp_path, count=5) as cluster:
        n1, n2, n3, n4, n5 = cluster.nodes
        publish(n1, 100, "all")
        cluster.wait_settled()
        n3.kill()
        n4.kill()  # they miss what follows
        publish(n1, 200, "on three")
        cluster.wait_settled()
        n5.kill()
        destroy(cluster, n1, n2)
        peers = tmp_path / "peers.json"
        peers.write_text(json.dumps([{"id": node.name, "address": node.raft_addr, "non_voter": node is not n5} for node in (n3, n4, n5)]))
        ends = {node.name: done("recover", data_dir(node), "--peers", str(peers))["log"] for node in (n3, n4, n5)}
        assert max(ends, key=lambda name: (ends[name]["last_term"], ends[name]["last"])) == "n5"
        for node in (n3, n4, n5):
            node.config["seeds_csv"] = n5.config["mem_bind"]
        for node in (n3, n4, n5):
            node.start(60)
        assert cluster.wait_leader([n3, n4, n5], 30) is n5
        for node in (n3, n4):
            join(cluster, node)
        cluster.wait_whole(30)
        publish(n3, 100, "three voters")
        cluster.wait_settled(60)
        history = check_same(cluster.nodes)
        assert check_outcomes(history, cluster.nodes, ["all", "on three", "three voters"], ordered=False)["acked"] == 400
        n5.kill()
        cluster.wait_leader([n3, n4], 30)


def test_a_cluster_is_backed_up_while_it_works_and_restored_on_three_others(tmp_path: Path) -> None:
    backup = str(tmp_path / "cluster.backup")
    with process_cluster(tmp_path) as cluster:
        n1 = cluster.nodes[0]
        publish(n1, 500, "before")
        cluster.wait_settled()
        n1.load("meanwhile", topics=["orders"], count=100_000, size=[20, 20], timeout=60)
        taken = done("backup", "--addr", n1.mgmt_addr, backup)
        n1.load_done("meanwhile", stop=True)
        publish(n1, 100, "after")
        assert done("check", backup)["sound"]
        old_term = n1.status(local=True)["term"]
        for node in list(cluster.nodes):
            destroy(cluster, node)

        new = [Node(tmp_path, f"m{n}", "") for n in (1, 2, 3)]
        for node in new:
            node.config["seeds_csv"] = new[0].config["mem_bind"]
            cluster.nodes.append(node)
        peers = peers_file(tmp_path, *new)
        for node in new:
            restored = done("restore", backup, data_dir(node), "--id", node.name, "--peers", peers, "--deliver-again")
            assert (restored["last_index"], restored["records"]) == (taken["index"] + 1, taken["records"])
            assert done("check", data_dir(node))["sound"]
        for node in new:
            node.start()
        leader = cluster.wait_leader(new, 30)
        assert leader.status(local=True)["term"] > old_term
        cluster.wait_whole(30)
        publish(new[1], 200, "restored")
        cluster.wait_settled(60)
        history = check_same(new)
        assert check_outcomes(history, new, ["before", "restored"], ordered=False)["acked"] == 700
        assert sum(map(len, history.values())) == taken["records"] + 200, (
            "what came after the backup is not there, and nothing else is missing"
        )


def test_a_stopped_node_that_was_killed_is_backed_up_with_all_that_it_acknowledged(tmp_path: Path) -> None:
    backup = str(tmp_path / "n1.backup")
    with process_cluster(tmp_path, count=1) as cluster:
        n1 = cluster.nodes[0]
        acknowledged: dict[int, str] = {}

        def keep_publishing() -> None:
            with contextlib.suppress(OSError, http.client.HTTPException):  # it is killed
                for number in itertools.count():
                    answer = n1.post_json("/publish", topic="orders", data=base64.b64encode(b"%d|" % number).decode())
                    acknowledged[answer["seq"]] = str(number)

        threads = [threading.Thread(target=keep_publishing) for _ in range(4)]
        for thread in threads:
            thread.start()
        wait_for(lambda: len(acknowledged) > 300, 60, "it is under way")
        n1.kill()
        for thread in threads:
            thread.join(20)
        taken = done("backup", data_dir(n1), backup)
        destroy(cluster, n1)
        m1 = Node(tmp_path, "m1", "")
        cluster.nodes.append(m1)
        done("restore", backup, data_dir(m1), "--id", "m1", "--raft-addr", m1.raft_addr, "--deliver-again")
        m1.start()
        cluster.wait_leader([m1], 30)
        publish(m1, 100, "restored")
        cluster.wait_settled(60)
        orders = history_of(m1)["orders"]
        print(
            f"\n{len(acknowledged)} were acknowledged; the backup holds {taken['records']} records and {taken['entries']} entries beyond them"
        )
        assert {seq: orders[seq - 1].head for seq in acknowledged} == acknowledged
