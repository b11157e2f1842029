"""`coterie.testing`: a cluster for a user's own tests, and its pytest fixtures."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from coterie import HandlerActor, HandlerFailed
from coterie.testing import LocalCluster

ROOT = Path(__file__).parents[2]
PATIENCE = 60.0


def node_threads() -> list[str]:
    return sorted(thread.name for thread in threading.enumerate() if "/" in thread.name and not thread.name.startswith("coterie/"))


class Counter(HandlerActor):
    def __init__(self) -> None:
        super().__init__()
        self.seqs: list[int] = []

    def handle_write(self, op: str, request: bytes) -> bytes:
        return request[::-1]

    def handle_sync(self, topic: str, data: bytes, record: Any = None) -> None:
        if data == b"bad":
            raise ValueError("bad")
        self.seqs.append(record.seq)

    def on_message(self, message: Any) -> Any:
        return list(self.seqs)


class Plain:
    def __init__(self) -> None:
        self.had: list[tuple[str, bytes]] = []

    def handle_sync(self, topic: str, data: bytes) -> None:
        self.had.append((topic, data))


def test_it_is_formed_healthy_and_gone_without_a_trace() -> None:
    before = node_threads()
    began = time.monotonic()
    with LocalCluster() as cluster:
        took = time.monotonic() - began
        print(f"\nthree nodes formed in {took:.2f} s")
        assert took < 20.0  # a tenth of a second on a quiet machine
        assert cluster.leader.name == "n1"
        assert sorted(node.name for node in cluster.followers) == ["n2", "n3"]
        assert all(node.status().healthy and not node.status().warnings for node in cluster.nodes.values())
        assert cluster.publish("t", b"1").seq == 1
        cluster.wait_delivered("t", b"1")
        assert cluster.delivered("t") == {"n1": [b"1"], "n2": [b"1"], "n3": [b"1"]}
        assert cluster["n2"].delivered("nothing") == []
    deadline = time.monotonic() + PATIENCE
    while node_threads() != before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert node_threads() == before


def test_each_node_has_a_handler_of_its_own() -> None:
    with LocalCluster(handler=Counter) as cluster:
        assert cluster["n3"].write("reverse", b"abc") == b"cba"
        cluster.publish("t", b"a")
        cluster.wait_delivered("t", b"a")
        assert [node.handler.ask("seqs") for node in cluster.nodes.values()] == [[1]] * 3
        cluster.publish("t", b"bad")
        cluster.wait_until(lambda: any("bad" in warning for warning in cluster.leader.status().warnings), PATIENCE, "the warning")
        assert cluster.delivered("t") == {"n1": [b"a"], "n2": [b"a"], "n3": [b"a"]}, "what it raised on is not delivered"
    with LocalCluster(1, handler=Plain) as alone:
        alone.publish("t", b"a")
        alone.wait_delivered("t", b"a")
        assert alone["n1"].handler.had == [("t", b"a")]
        with pytest.raises(HandlerFailed):
            alone["n1"].write("w", b"")


@pytest.mark.parametrize("durable", [False, True])
def test_leaders_that_are_killed_come_back_and_nothing_is_lost(tmp_path: Path, durable: bool) -> None:
    with LocalCluster(directory=tmp_path if durable else None) as cluster:
        sent: list[bytes] = []
        for number in range(3):
            sent.append(b"before %d" % number)
            cluster.publish("t", sent[-1])
            old = cluster.leader
            cluster.kill(old)
            assert old.name not in cluster.nodes
            sent.append(b"without %d" % number)
            cluster.publish("t", sent[-1])
            cluster.wait_delivered("t", *sent[-1:], timeout=PATIENCE)
            back = cluster.restart(old.name)
            assert back is cluster[old.name]
            if durable:
                cluster.wait_until(lambda back=back: back.delivered("t") == sent[-1:], PATIENCE, "what it missed, and no more")
            else:
                cluster.wait_until(lambda back=back: back.delivered("t") == sent, PATIENCE, "all, since it has forgotten")
        assert cluster.leader.status().topics[0].seq == len(sent)


def test_a_graceful_stop_hands_over_and_one_node_alone_can_be_restarted() -> None:
    with LocalCluster() as cluster:
        cluster.stop(cluster.leader)
        assert cluster.leader.name in ("n2", "n3")
        assert cluster.publish("t", b"1").seq == 1
    with LocalCluster(1) as alone:
        alone.kill("n1")
        alone.restart("n1")
        assert alone.publish("t", b"1").seq == 1


def test_what_cannot_be_is_refused_and_what_does_not_come_is_named() -> None:
    with pytest.raises(ValueError, match="nodes=0"):
        LocalCluster(0)
    with LocalCluster(1, request_timeout="200ms") as cluster:
        with pytest.raises(ValueError, match="n1"):
            cluster.restart("n1")
        with pytest.raises(KeyError):
            cluster.kill("n9")
        with pytest.raises(TimeoutError, match=r"not within 0.1 s: pigs that fly"):
            cluster.wait_until(lambda: False, 0.1, "pigs that fly")
        with pytest.raises(TimeoutError, match=r"delivered everywhere on 't'"):
            cluster.wait_delivered("t", b"never", timeout=0.1)


def test_the_fixtures_in_a_project_of_a_users_own(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["coterie.pytest_plugin"]\n')
    (tmp_path / "test_mine.py").write_text((ROOT / "examples/test_with_cluster.py").read_text().replace("pytest_plugins =", "_ ="))
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=110,
        cwd=tmp_path,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "2 passed" in ran.stdout
