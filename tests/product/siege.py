"""A live cluster of three processes under attack: it publishes slowly all the while, and `unharmed` says after each attack what must hold.

What must hold: every process lives and answers, nobody stood for election, publishing goes on. At the end of a module nothing is lost and
nothing came twice (`lift`).
"""

from __future__ import annotations

import contextlib
import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.product.checks import check_delivered_once, check_outcomes, check_same
from tests.product.nodes import Node, ProcessCluster, process_cluster
from tests.product.wait import wait_for

PATIENCE = 15.0
CALM = "calm"


class Siege:
    def __init__(self, cluster: ProcessCluster) -> None:
        self.cluster, self.nodes = cluster, cluster.nodes
        self.leader, self.follower = cluster["n1"], cluster["n2"]
        self.follower.load(CALM, topics=[CALM], in_flight=8, pause=0.02)
        for node in self.nodes:
            wait_for(lambda node=node: delivered(node) > 0, PATIENCE, "the load flows")
        self.term = self.leader.status(local=True)["term"]

    @contextlib.contextmanager
    def unharmed(self) -> Iterator[None]:
        before = {node.name: delivered(node) for node in self.nodes}
        yield
        for node in self.nodes:
            assert node.running, f"{node.name} has ended: {said(node)}"
            assert call(node.mgmt_addr, "GET", "/healthz") == (200, b"ok")
            status = node.status(local=True)
            assert (status["leader_id"], status["term"]) == ("n1", self.term), f"{node.name} has seen an election: {status}"
            wait_for(lambda node=node: delivered(node) > before[node.name] + 3, PATIENCE, f"{node.name} is still delivered to")

    def lift(self) -> None:
        """The end: every publish was acknowledged, nothing is lost, nothing came twice, no node has logged a traceback."""
        done = self.follower.load_done(CALM, stop=True)
        assert done["failed"] == {}, done
        self.cluster.wait_settled()
        history = check_same(self.nodes)
        assert check_outcomes({CALM: history[CALM]}, self.nodes, [CALM])["acked"] == done["number"] > 20
        for node in self.nodes:
            check_delivered_once(node)
            assert "Traceback" not in said(node), said(node)


def said(node: Node) -> str:
    text = (node.directory / f"{node.name}.stderr").read_text()
    place = text.find("Traceback")
    return text[max(0, place - 500) : place + 3000] if place >= 0 else text[-3000:]


def delivered(node: Node) -> int:
    return next((topic["delivered"] for topic in node.status(local=True)["topics"] if topic["topic"] == CALM), 0)


@contextlib.contextmanager
def siege(directory: Path) -> Iterator[Siege]:
    # Slow machines must not pass for an attack that worked: time-outs twice the default.
    with process_cluster(directory, heartbeat_timeout=2.0, election_timeout=2.0, lease_timeout=1.0) as cluster:
        besieged = Siege(cluster)
        yield besieged
        besieged.lift()


def call(address: str, method: str, path: str, body: Any = None, timeout: float = 30.0) -> tuple[int, bytes]:
    host, _, port = address.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=timeout)
    try:
        payload = body if body is None or isinstance(body, (bytes, str)) else json.dumps(body)
        connection.request(method, path, payload)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def post(node: Node, path: str, body: Any) -> tuple[int, dict[str, Any]]:
    status, text = call(node.mgmt_addr, "POST", path, body)
    return status, json.loads(text)


def resident_bytes(node: Node) -> int:
    assert node.process is not None
    text = Path(f"/proc/{node.process.pid}/status").read_text()
    return next(int(line.split()[1]) << 10 for line in text.splitlines() if line.startswith("VmRSS"))


def counted(node: Node) -> dict[str, int]:
    """What the node's own status says that it dropped, refused or did not understand."""
    dropped: dict[str, int] = node.status(local=True)["dropped"]
    return dropped
