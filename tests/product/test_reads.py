"""Reads with a consistency on real nodes: what was acknowledged anywhere before is in the answer of every node, and of one that stood still meanwhile."""

from __future__ import annotations

import base64
import contextlib
import json
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from coterie import HandlerActor, InvalidRequest, Read
from coterie.testing import LocalCluster
from tests.product.nodes import ProcessCluster

SEEING = ("linearizable", "lease")


class Register(HandlerActor):
    """One value, changed by commands."""

    def __init__(self) -> None:
        self.value = b""
        super().__init__()

    def handle_apply(self, index: int, op: str, data: bytes) -> bytes:
        self.value = data
        return b"%d" % index

    def handle_read(self, op: str, request: bytes) -> bytes:
        return self.value


@pytest.fixture(scope="module")
def cluster():
    with LocalCluster(handler=Register) as running:
        yield running


def test_every_node_sees_every_command_that_was_acknowledged_before(cluster):
    for number in range(60):
        value = b"%d" % number
        cluster[cluster.names[number % 3]].apply("set", value)
        for name in cluster.names:
            for consistency in SEEING:
                assert cluster[name].read("get", consistency=consistency) == value, (number, name, consistency)


def test_reads_that_wait_share_rounds(cluster):
    def counters(node):
        return node.ref._actor_weakref()._rooms.read_counters()

    for node in cluster.nodes.values():
        before = counters(node)
        futures = [node.ref.ask(Read("get", consistency="linearizable"), block=False) for _ in range(2000)]
        assert len({future.get(timeout=30) for future in futures}) == 1
        after = counters(node)
        assert after["linearizable"] - before["linearizable"] == 2000
        assert 1 <= after["by round"] - before["by round"] <= after["questions"] - before["questions"] < 1000


def test_a_local_read_needs_nobody_and_all_doors_take_the_word(cluster):
    cluster.apply("set", b"all")
    for name in cluster.names:
        cluster[name].read("get", consistency="linearizable")
        assert cluster[name].read("get", consistency="local") == b"all"

    with pytest.raises(InvalidRequest, match="consistency='strict': give 'linearizable'"):
        cluster["n2"].read("get", consistency="strict")
    at = cluster["n3"].ref.addresses()["http"]

    def post(query: str, **body: str) -> tuple[int, dict[str, str]]:
        request = urllib.request.Request(f"http://{at}/read{query}", json.dumps({"op": "get", "data": "", **body}).encode())
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as refused:
            return refused.code, json.load(refused)

    expected = (200, {"data": base64.b64encode(b"all").decode()})
    assert post("?consistency=linearizable") == post("", consistency="lease") == post("", consistency="local") == expected
    status, refused = post("?consistency=strong")
    assert (status, refused["kind"]) == (400, "InvalidRequest")
    assert "give linearizable, lease or local" in refused["error"]


@contextlib.contextmanager
def processes(directory: Path, **of_the_first: float) -> Iterator[ProcessCluster]:
    """Three processes with a register; the first, which leads, with settings of its own."""
    cluster = ProcessCluster(directory)
    cluster.nodes[0].config.update(of_the_first)
    for node in cluster.nodes:
        node.program = "tests.product.reads_worker"
    try:
        yield cluster.start()
    finally:
        for node in cluster.nodes:
            node.kill()


@pytest.mark.long
def test_a_leader_that_stood_still_while_another_wrote_never_answers_from_its_old_state(tmp_path: Path):
    """Everything waits in its inbox when it wakes, and its clock has told it nothing yet."""
    with processes(tmp_path) as cluster:
        for number in range(3):
            old = cluster.leader()
            others = cluster.others(old)
            old.ask("apply", data=f"old {number}")
            assert old.ask("read", op="get", data="", consistency="lease") == f"old {number}"
            old.signal(signal.SIGSTOP)
            cluster.wait_leader(others, 30)
            others[0].ask("apply", data=f"new {number}", wait=40)
            asked = [old.post("read", op="get", data="", timeout=20, consistency=consistency) for consistency in SEEING for _ in range(50)]
            old.signal(signal.SIGCONT)
            for one in asked:
                line = old.wait_line(lambda line, one=one: line.get("reply") == one, 40)
                assert line.get("value") == f"new {number}", line
            cluster.wait_settled()


@pytest.mark.long
def test_a_linearizable_read_needs_no_clock(tmp_path: Path):
    """This leader would believe in itself for a minute. It wakes to reads whose time has come, before it has looked at what the others have sent."""
    with processes(tmp_path, heartbeat_timeout=60.0, election_timeout=60.0, lease_timeout=60.0) as cluster:
        old, others = cluster.nodes[0], cluster.nodes[1:]
        for number in range(6):  # whether the reads or the new leader's words come first is up to the scheduler
            assert cluster.leader() is old
            old.ask("apply", data=f"old {number}")
            assert old.ask("read", op="get", data="", consistency="linearizable") == f"old {number}"
            asked = [old.post("read_after", seconds=1.0, consistency="linearizable") for _ in range(50)]
            old.ask("raft")  # it has taken them
            old.signal(signal.SIGSTOP)
            new = cluster.wait_leader(others, 30)
            others[0].ask("apply", data=f"new {number}", wait=40)
            old.signal(signal.SIGCONT)
            for one in asked:
                line = old.wait_line(lambda line, one=one: line.get("reply") == one, 40)
                assert line.get("value") == f"new {number}", line
            new.ask("transfer", id=old.name)
