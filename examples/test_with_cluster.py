"""Tests of a service against a cluster of three real nodes, in this process and in memory.

python -m pytest examples/test_with_cluster.py
"""

from __future__ import annotations

from collections.abc import Callable

from coterie import HandlerActor
from coterie.testing import LocalCluster

pytest_plugins = ["coterie.pytest_plugin"]  # in a project of its own this line stands in conftest.py


class Stock(HandlerActor):
    """The service under test: it counts what is left."""

    def __init__(self) -> None:
        super().__init__()
        self.left = 10

    def handle_sync(self, topic: str, data: bytes) -> None:
        self.left -= int(data)

    def handle_read(self, op: str, request: bytes) -> bytes:
        return str(self.left).encode()


def test_every_node_has_the_same(coterie_cluster: LocalCluster) -> None:
    coterie_cluster.publish("orders", b"1")
    coterie_cluster.publish("orders", b"2")
    coterie_cluster.wait_delivered("orders", b"1", b"2")
    assert coterie_cluster.delivered("orders") == {name: [b"1", b"2"] for name in ("n1", "n2", "n3")}


def test_the_stock_survives_the_leader(coterie_clusters: Callable[..., LocalCluster]) -> None:
    cluster = coterie_clusters(handler=Stock)
    cluster.publish("orders", b"3")
    cluster.wait_delivered("orders", b"3")
    old = cluster.leader
    cluster.kill(old)
    cluster.publish("orders", b"4")  # waits for the next leader
    cluster.wait_delivered("orders", b"3", b"4")
    assert cluster.leader.read("left") == b"3"
    back = cluster.restart(old.name)
    cluster.wait_until(lambda: back.delivered("orders") == [b"3", b"4"], what="the node that came back has had all")
