"""A disk that hangs: a frozen file system, on which every write waits in the kernel until it is thawed. The node's others are on another disk, and go on."""

from __future__ import annotations

import contextlib
import itertools
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.product.checks import check_outcomes, check_same
from tests.product.disks import Ext4, Mounts, reason_not_to
from tests.product.nodes import CommandFailed, Node, ProcessCluster
from tests.product.wait import wait_for

REASON = reason_not_to()
pytestmark = [pytest.mark.root, pytest.mark.long, pytest.mark.timeout(300), pytest.mark.skipif(bool(REASON), reason=REASON)]


class Hung(ProcessCluster):
    """Three nodes; n1's data directory is on a disk that can hang."""

    def __init__(self, directory: Path, mounts: Mounts) -> None:
        super().__init__(directory)
        self.disk = Ext4(mounts, directory / "disk")
        self.ill, self.others_ = self.nodes[0], self.nodes[1:]
        self.ill.machine = mounts.prefix
        self.ill.config["data_dir"] = str(self.disk.path / "data")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Hung]:
    with Mounts() as mounts:
        cluster = Hung(tmp_path, mounts)
        try:
            yield cluster.start()
        finally:
            for disk in list(mounts._frozen):
                disk.thaw()
            for node in cluster.nodes:
                node.kill()


def get(node: Node, path: str, wait: float = 10) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{node.mgmt_addr}{path}", timeout=wait) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def metric(node: Node, name: str) -> float:
    found = re.search(rf"^{re.escape(name)} (\S+)$", get(node, "/metrics")[1], re.MULTILINE)
    assert found, name
    return float(found[1])


STALLED = 'coterie_storage_stalled_seconds{store="raft"}'


@contextlib.contextmanager
def writes(cluster: Hung) -> Iterator[list[float]]:
    """One publish after another at n2, while it lasts; -> when each was acknowledged."""
    done: list[float] = []
    over = threading.Event()

    def run() -> None:
        for number in itertools.count():
            if over.is_set():
                return
            with contextlib.suppress(CommandFailed):
                cluster["n2"].ask("publish", topic="t", data=f"w{number}", timeout=20, wait=30)
                done.append(time.monotonic())

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield done
    finally:
        over.set()
        thread.join(40)


def others_leader(cluster: Hung, deadline: float) -> float:
    """Seconds until one of the others leads."""
    return wait_for(
        lambda: any(node.status(local=True)["role"] == "leader" for node in cluster.others_), deadline, "another one leads", every=0.05
    )


def test_a_leader_whose_disk_hangs_says_so_is_succeeded_and_goes_on_as_a_follower(cluster: Hung) -> None:
    n1 = cluster.ill
    assert cluster.leader() is n1
    n1.load("before", topics=["t"], count=200, timeout=30)
    assert n1.load_done("before")["acked"] == 200
    cluster.disk.freeze()
    began = time.monotonic()
    with writes(cluster) as done:
        took = others_leader(cluster, 15)
        print(f"\nanother leader after {took:.1f} s")
        wait_for(lambda: "raft" in str(n1.status(local=True)["warnings"]) and bool(get(n1, "/readyz")[0] == 503), 15, "n1 says so")
        asked = time.monotonic()
        code, text = get(n1, "/status")
        assert code == 200 and "the disk of the Raft log does not answer" in text
        assert time.monotonic() - asked < 5
        code, text = get(n1, "/readyz")
        assert code == 503 and "does not answer" in text
        assert get(n1, "/livez")[0] == 200, "a new start would be of no use"
        assert metric(n1, STALLED) > 1
        assert metric(n1, "go_cluster_is_leader") == 0
        assert "the disk of the Raft log does not answer" in (cluster.directory / "n1.stderr").read_text()
        status = n1.status(local=True)
        assert status["role"] != "leader" and status["leader_id"] in ("", "n2", "n3")
        wait_for(lambda: n1.status(local=True)["leader_id"] in ("n2", "n3"), 15, "gossip tells n1 who leads now")
        asked = time.monotonic()
        with contextlib.suppress(CommandFailed):  # what it had proposed itself has no outcome yet, and nothing may overtake that
            n1.ask("publish", topic="t", data="from n1", timeout=3)
        assert time.monotonic() - asked < 8, "within its deadline"
        wait_for(lambda: bool(done), 20, "the others write")
        wait_for(lambda: time.monotonic() - began > 10, 20, "the disk hangs for ten seconds")
        cluster.disk.thaw()
        wait_for(lambda: not any("does not answer" in w for w in n1.status(local=True)["warnings"]), 15, "n1 is well again")
        wait_for(lambda: get(n1, "/readyz")[0] == 200, 15, "and ready")
    assert n1.status(local=True)["role"] == "follower"
    assert metric(n1, STALLED) == 0
    cluster.wait_settled(60)
    check_outcomes(check_same(cluster.nodes), cluster.nodes, ["before"])


def test_a_follower_whose_disk_hangs_costs_the_others_nothing(cluster: Hung) -> None:
    n1, n2 = cluster.ill, cluster["n2"]
    n1.ask("transfer", id="n2")
    wait_for(lambda: n2.status(local=True)["role"] == "leader", 15, "n2 leads")
    cluster.disk.freeze()
    n2.load("during", topics=["t"], count=2000, timeout=60)
    assert n2.load_done("during")["acked"] == 2000
    wait_for(lambda: get(n1, "/readyz")[0] == 503, 15, "n1 says so")
    term = n2.status(local=True)["term"]
    cluster.disk.thaw()
    cluster.wait_settled(60)
    assert (n2.status(local=True)["role"], n2.status(local=True)["term"]) == ("leader", term)
    check_outcomes(check_same(cluster.nodes), cluster.nodes, ["during"])


@pytest.mark.parametrize("seconds", [0.3, 0.6, 3.0, 30.0])
def test_how_long_a_hang_costs_how_much(cluster: Hung, seconds: float) -> None:
    """While the leader's disk hangs nothing is written, until another leads. What is short costs no leadership."""
    n1 = cluster.ill
    assert cluster.leader() is n1
    term = n1.status(local=True)["term"]
    with writes(cluster) as done:
        wait_for(lambda: len(done) > 20, 20, "writes")
        cluster.disk.freeze()
        began = time.monotonic()
        time.sleep(seconds)  # the hang itself, not a wait for something
        cluster.disk.thaw()
        wait_for(lambda: bool(done) and done[-1] > began + seconds + 1, 30, "writes again")
        times = list(done)
    gap = max(after - before for before, after in itertools.pairwise(times))
    terms = cluster["n2"].status(local=True)["term"] - term
    print(f"\na hang of {seconds} s: no write for {gap:.2f} s, {terms} new terms")
    cluster.wait_settled(60)
    check_same(cluster.nodes)
    if seconds < 1:
        assert terms == 0, "a short hang costs no election"
    assert gap < min(seconds, 5) + 10


def test_a_node_whose_disk_hangs_can_be_stopped(cluster: Hung) -> None:
    """Its process leaves as soon as the kernel lets go of the thread that waits for the disk; everything that it can end it has ended by then."""
    n1 = cluster.ill
    cluster.disk.freeze()
    cluster["n2"].load("during", topics=["t"], count=200, timeout=30, in_flight=1)
    wait_for(lambda: any("does not answer" in w for w in n1.status(local=True)["warnings"]), 30, "n1 says so")
    began = time.monotonic()
    n1.post("stop")
    n1.wait_line(lambda line: line.get("event") == "stopped", 60)
    took = time.monotonic() - began
    print(f"\nstopped after {took:.1f} s")
    assert took < 40
    cluster.disk.thaw()
    assert n1.process is not None
    n1.process.wait(20)
    n1.kill()
    n1.start()
    cluster["n2"].load_done("during")
    cluster.wait_settled(60)
    check_outcomes(check_same(cluster.nodes), cluster.nodes, ["during"])
