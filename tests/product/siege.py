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

from tests.product.nodes import Node, ProcessCluster, check_same_everywhere, process_cluster
from tests.product.wait import wait_for

PATIENCE = 15.0
TOPICS = ["calm/a", "calm_a"]


class Siege:
    def __init__(self, directory: Path, cluster: ProcessCluster) -> None:
        self.cluster, self.outcome = cluster, directory / "outcome.json"
        self.leader, self.follower = cluster["n1"], cluster["n2"]
        self.follower.ask("load", publisher="calm", topics=TOPICS, in_flight=8, pause=0.02, outcome=str(self.outcome))
        wait_for(lambda: self.follower.ask("delivered") > 0, PATIENCE, "the load flows")
        self.term = self.leader.status(local=True)["term"]

    @contextlib.contextmanager
    def unharmed(self) -> Iterator[None]:
        delivered = {node.name: node.ask("delivered") for node in self.cluster.nodes}
        yield
        for node in self.cluster.nodes:
            assert node.running, f"{node.name} has ended"
            assert call(node.mgmt_addr, "GET", "/healthz") == (200, b"ok")
            status = node.status(local=True)
            assert (status["leader_id"], status["term"]) == ("n1", self.term), f"{node.name} has seen an election: {status}"
            wait_for(lambda node=node: node.ask("delivered") > delivered[node.name] + 3, PATIENCE, f"{node.name} is still delivered to")

    def lift(self) -> None:
        """The end: nothing is lost, nothing came twice, every publish was acknowledged."""
        self.follower.ask("stop-load", publisher="calm")
        self.follower.wait_line(lambda line: line.get("event") == "load-done", 60)
        outcome = json.loads(self.outcome.read_text())
        assert (outcome["failed"], outcome["unknown"], outcome["refused"]) == ({}, [], [])
        acked = {(topic, seq): head for topic, head, seq, _ in outcome["acked"]}
        assert len(acked) > 20

        def delivered() -> bool:
            return all(
                len({seq for seq, *_ in node.deliveries().get(topic, [])}) >= sum(t == topic for t, _ in acked)
                for node in self.cluster.nodes
                for topic in TOPICS
            )

        wait_for(delivered, PATIENCE, "every node has had all that was acknowledged", every=0.1)
        wait_for(lambda: len({delivered_by(node) for node in self.cluster.nodes}) == 1, PATIENCE, "all have had the same number", every=0.1)
        sequence = check_same_everywhere(self.cluster.nodes, exactly_once=True)
        for topic in TOPICS:
            heads = {seq: head for seq, _, head in sequence[topic]}
            assert all(heads[seq] == head for (t, seq), head in acked.items() if t == topic)
        for node in self.cluster.nodes:
            said = (self.cluster.directory / f"{node.name}.stderr").read_text()
            assert "Traceback" not in said, f"{node.name} said: {said[-3000:]}"


def delivered_by(node: Node) -> int:
    return sum(map(len, node.deliveries().values()))


@contextlib.contextmanager
def siege(directory: Path) -> Iterator[Siege]:
    # Slow machines must not pass for an attack that worked: time-outs twice the default.
    with process_cluster(directory, heartbeat_timeout=2.0, election_timeout=2.0, lease_timeout=1.0) as cluster:
        besieged = Siege(directory, cluster)
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


def dropped(node: Node) -> int:
    """Everything the node says it has dropped, refused or not understood: its status, and the metrics for what the servers of the management API refuse."""
    return sum(count for reason, count in node.status(local=True)["dropped"].items() if is_refusal(reason)) + metric_drops(node)


REFUSALS = (
    "drop",
    "refused",
    "garbage",
    "cut off",
    "overdue",
    "too slow",
    "unsupported",
    "unacceptable",
    "ignored",
    "reset",
    "unknown",
    "invalid",
)


def is_refusal(reason: str) -> bool:
    return any(word in reason for word in REFUSALS)


def metric_drops(node: Node) -> int:
    _, text = call(node.mgmt_addr, "GET", "/metrics")
    rows = [line for line in text.decode().splitlines() if line.startswith('coterie_room_events_total{room="management"')]
    return int(sum(float(row.rpartition(" ")[2]) for row in rows))
