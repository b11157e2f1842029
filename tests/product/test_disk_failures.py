"""A disk that is full, or takes no writes any more: the node on it fails closed and says why, the others go on, and on a good disk it comes back with everything.

For the disk of the Raft log and for that of the buffer separately, since a node may have them apart (`repl_buffer_dir`).
"""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.product.checks import check_outcomes, check_same
from tests.product.commands import CLUSTERCTL, Program
from tests.product.disks import Ext4, Mounts, Tmpfs, reason_not_to
from tests.product.nodes import CommandFailed, Node, NodeFailed, ProcessCluster, process_cluster
from tests.product.wait import wait_for

REASON = reason_not_to()
pytestmark = [pytest.mark.root, pytest.mark.long, pytest.mark.timeout(240), pytest.mark.skipif(bool(REASON), reason=REASON)]

SMALL, LARGE = "8m", "512m"
FULL = "No space left"
READ_ONLY = "Read-only file system|Input/output error"  # the write that meets the error, or one after it


@pytest.fixture
def mounts() -> Iterator[Mounts]:
    with Mounts() as mounts:
        yield mounts


def put_on(node: Node, mounts: Mounts, disk: Path, store: str) -> None:
    """Its Raft log, with the directory as a whole, or its buffer alone, is on this disk."""
    node.machine = mounts.prefix
    if store == "raft":
        node.config |= {"data_dir": str(disk / "data"), "repl_buffer_dir": str(node.directory / f"{node.name}-buffer")}
    else:
        node.config["repl_buffer_dir"] = str(disk / "buffer")


def health(node: Node, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{node.mgmt_addr}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def wait_failed(node: Node, reason: str) -> None:
    """It has failed closed, and says why wherever it is asked."""
    wait_for(lambda: any("serves no more" in warning for warning in node.status(local=True)["warnings"]), 60, f"{node.name} has failed")
    status = node.status(local=True)
    assert not status["healthy"] and status["role"] != "leader"
    assert any(re.search(reason, warning) and "serves no more" in warning for warning in status["warnings"]), status["warnings"]
    code, text = health(node, "/livez")
    assert code == 503 and re.search(reason, text)
    assert health(node, "/readyz")[0] == 503
    with pytest.raises(CommandFailed, match=reason):
        node.ask("publish", topic="t", data="x")
    assert re.search(reason, (node.directory / f"{node.name}.stderr").read_text())


def fill(cluster: ProcessCluster, at: Node, name: str, failed: Callable[[], bool], size: int = 40_000) -> None:
    """Publish until the disk has had enough."""
    at.load(name, topics=["t"], size=[size, size], in_flight=8, timeout=30, pause=0.001)
    try:
        wait_for(failed, 90, "the disk has had enough", every=0.2)
    finally:
        at.load_done(name, stop=True, deadline=90)


def has_failed(node: Node) -> bool:
    try:
        return any("serves no more" in warning for warning in node.status(local=True)["warnings"])
    except (CommandFailed, NodeFailed):
        return False


@pytest.mark.parametrize("role", ["leader", "follower"])
@pytest.mark.parametrize("store", ["raft", "buffer"])
def test_a_full_disk_closes_its_node_and_a_larger_one_brings_it_back(tmp_path: Path, mounts: Mounts, store: str, role: str) -> None:
    disk = Tmpfs(mounts, tmp_path / "disk", SMALL)
    cluster = ProcessCluster(tmp_path)
    n1, n2, n3 = cluster.nodes
    ill, well = (n1, n2) if role == "leader" else (n3, n1)
    put_on(ill, mounts, disk.path, store)
    try:
        cluster.start()
        fill(cluster, well, "filling", lambda: has_failed(ill))
        wait_failed(ill, FULL)
        others = [node for node in cluster.nodes if node is not ill]
        cluster.wait_leader(others)
        well.load("after", topics=["t"], count=200, timeout=30)
        assert well.load_done("after")["acked"] == 200, "the others go on"
        ill.stop()

        disk.enlarge(LARGE)
        ill.start()
        cluster.wait_settled(60)
        history = check_same(cluster.nodes)
        assert check_outcomes(history, cluster.nodes, ["filling", "after"])["acked"] > 200
        others[0].kill()  # what the node has is good enough to go on with
        survivor = others[1]
        wait_for(lambda: survivor.status(local=True)["leader_id"] in (ill.name, survivor.name), 20, "the two have a leader")
        survivor.ask("publish", topic="t", data="x", timeout=20)
    finally:
        for node in cluster.nodes:
            node.kill()


@pytest.mark.parametrize("store", ["raft", "buffer"])
def test_a_disk_that_takes_no_writes_closes_its_node_and_a_mended_one_brings_it_back(tmp_path: Path, mounts: Mounts, store: str) -> None:
    disk = Ext4(mounts, tmp_path / "disk")
    cluster = ProcessCluster(tmp_path)
    n1, n2, _ = cluster.nodes
    put_on(n1, mounts, disk.path, store)
    try:
        cluster.start()
        n2.load("before", topics=["t"], count=500, timeout=30)
        assert n2.load_done("before")["acked"] == 500
        disk.fail()
        n2.load("during", topics=["t"], count=500, timeout=30)
        n2.load_done("during", deadline=90)
        wait_failed(n1, READ_ONLY)
        n2.load("after", topics=["t"], count=200, timeout=30)
        assert n2.load_done("after")["acked"] == 200, "the others go on"
        n1.stop()
        with pytest.raises(NodeFailed, match="StorageError"):  # the same disk is no better
            n1.start()
        n1.kill()
        disk.mend()
        n1.start()
        cluster.wait_settled(60)
        assert check_outcomes(check_same(cluster.nodes), cluster.nodes, ["before", "during", "after"])["acked"] >= 700
    finally:
        for node in cluster.nodes:
            node.kill()


def test_clusterctl_run_ends_with_code_1_and_the_reason_when_the_disk_is_full(tmp_path: Path, mounts: Mounts) -> None:
    disk = Tmpfs(mounts, tmp_path / "disk", SMALL)
    with process_cluster(tmp_path, 2) as cluster:
        n1, _ = cluster.nodes
        n3 = Node(tmp_path, "n3", cluster.seed)
        flags = {
            "id": "n3",
            "data": disk.path / "data",
            "join": cluster.seed,
            **{f: n3.config[f] for f in ("raft_addr", "mem_bind", "mgmt_addr")},
        }
        words = [word for flag, value in flags.items() for word in (f"--{flag.replace('_', '-')}", str(value))]
        program = Program(*mounts.prefix, CLUSTERCTL, "run", *words)
        try:
            program.wait_line("node n3 runs")
            cluster.leader().ask("join", id="n3", raft_addr=n3.raft_addr)
            fill(cluster, n1, "filling", lambda: program.process.poll() is not None)
            assert program.process.wait(30) == 1
            said = program.wait_line("node n3 gave up")
            assert FULL in said and "remedy: free space on that file system" in said
        finally:
            program.kill()
