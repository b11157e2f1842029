"""The log is compacted while it is used, and who needs what is gone gets a snapshot: real processes, killed in the middle of it."""

from __future__ import annotations

import random
import shutil
import signal
import time
from pathlib import Path

import pytest

from tests.authority import Authority, Files
from tests.product.checks import check_outcomes, check_same
from tests.product.nodes import Node, ProcessCluster, process_cluster
from tests.product.wait import wait_for

SHORT = {"trailing_entries": 20, "repl_window": 4096}  # a log that keeps nearly nothing of what is applied
TOPICS = ["orders", "a/b"]


def publish(node: Node, count: int, name: str, size: int = 20) -> None:
    """One after the other would be an entry each; this is many at a time, in a few hundred entries."""
    node.load(name, topics=TOPICS, count=count, size=[size, size], timeout=60)
    assert node.load_done(name, deadline=90)["acked"] == count


def wait_counter(node: Node, what: str, more_than: int = 0) -> int:
    """The Raft actor's counter, once it is above."""
    seen: list[int] = []

    def look() -> bool:
        seen[:] = [node.ask("raft").get(what, 0)]
        return seen[0] > more_than

    wait_for(look, 20, f"{node.name}: {what} > {more_than}")
    return seen[0]


def test_a_node_that_was_away_gets_a_snapshot_and_all_that_is_retained(tmp_path: Path) -> None:
    with process_cluster(tmp_path, **SHORT) as cluster:
        n1, n2, n3 = cluster.nodes
        publish(n1, 200, "first")
        cluster.wait_settled()
        n3.kill()
        for round_ in range(2):
            publish(n2, 2000, f"away{round_}")
        for node in (n1, n2):
            wait_counter(node, "entries compacted")
        n3.start()
        cluster.wait_settled(60)
        wait_counter(n3, "snapshots_installed")
        n1.kill()  # what n3 got must be good enough to go on with
        wait_for(lambda: n3.status(local=True)["leader_id"] in ("n2", "n3"), 15, "another leads")
        publish(n3, 500, "after")
        n1.start()
        cluster.wait_settled(60)
        history = check_same(cluster.nodes)
        assert check_outcomes(history, cluster.nodes, ["first", "away0", "away1", "after"])["acked"] == 200 + 4000 + 500


def test_a_wiped_server_joins_again_and_begins_with_a_snapshot_over_mutual_tls(tmp_path: Path) -> None:
    authority, cluster = Authority(), ProcessCluster(tmp_path, **SHORT)
    for node in cluster.nodes:
        node.config |= Files(tmp_path / f"{node.name}-tls", authority.pem, authority.issue(node.name)).config()
    try:
        n1, _, n3 = cluster.start().nodes
        publish(n1, 4000, "load")
        wait_counter(n1, "entries compacted")
        n3.stop()
        cluster.leader().ask("leave", id="n3")
        shutil.rmtree(tmp_path / "n3")
        n3.deliveries_path.unlink()
        n3.start()
        cluster.leader().ask("join", id="n3", raft_addr=n3.raft_addr)
        cluster.wait_settled(60)
        wait_counter(n3, "snapshots_installed")
        assert sum(map(len, check_same(cluster.nodes).values())) == 4000, "what is retained is delivered from the first record on"
    finally:
        for node in cluster.nodes:
            node.kill()


@pytest.mark.long
@pytest.mark.timeout(240)
def test_a_node_that_dies_in_the_middle_of_an_installation_finishes_it_in_its_next_life(tmp_path: Path) -> None:
    """Killed while the snapshot comes in, while it is written, between the state machine and the log: whenever chance has it."""
    chance = random.Random(7)
    with process_cluster(tmp_path, **SHORT) as cluster:
        n1, _, n3 = cluster.nodes
        published = compacted = 0
        for round_ in range(2):
            n3.kill()
            publish(n1, 1000, f"load{round_}", size=8 << 10)
            published += 1000
            compacted = wait_counter(n1, "entries compacted", compacted)
            for _ in range(2):
                n3.start()
                time.sleep(chance.random() * 0.5)  # the moment of the kill, not a wait for something
                n3.signal(signal.SIGKILL)
                n3.kill()
            n3.start()
            cluster.wait_settled(60)
        assert sum(map(len, check_same(cluster.nodes).values())) == published


def test_the_files_of_the_log_stop_growing(tmp_path: Path) -> None:
    with process_cluster(tmp_path, count=1, **SHORT) as cluster:
        node = cluster.nodes[0]
        used = tmp_path / "n1" / "raft" / "data.mdb"
        sizes, compacted = [], 0
        for round_ in range(5):
            publish(node, 3000, f"load{round_}", size=4 << 10)
            compacted = wait_counter(node, "entries compacted", compacted)
            sizes.append(used.stat().st_blocks * 512)
        print(f"\n15,000 records, 60 MB of them: the log's file took {[f'{size >> 20} MiB' for size in sizes]}")
        assert sizes[-1] < 30 << 20
        assert sizes[-1] <= sizes[1] * 1.5
