"""Every certificate and the authority itself are changed on a live cluster under load: nothing fails, and nobody notices but those who must.

The authority changes with an overlap: first everybody believes both, then everybody shows a certificate of the new one, then nobody believes the old one.
"""

from __future__ import annotations

import socket
import ssl
from pathlib import Path
from typing import Any

import pytest

from coterie.cli_errors import NoAnswer
from coterie.cli_http import ask
from coterie.cli_target import Target
from coterie.proto.raft_messages import Header
from coterie.transport.errors import DialError
from coterie.transport.raft_client import identify
from coterie.transport.tls import Tls
from tests.authority import Authority, Files
from tests.product.checks import check_delivered_once, check_outcomes, check_same
from tests.product.nodes import Node, ProcessCluster
from tests.product.wait import wait_for

PATIENCE = 30.0
PAUSE = 0.005  # between two publishes of a load


class Secured:
    """Three nodes with files of their own, and clients that belong to one authority or the other."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.old, self.new = Authority("old"), Authority("new")
        self.cluster = ProcessCluster(directory, 3)
        self.files: dict[str, Files] = {}
        for node in self.cluster.nodes:
            self.files[node.name] = Files(directory / f"{node.name}-tls", self.old.pem, self.old.issue(node.name))
            node.config |= self.files[node.name].config()
        # Whoever believes both authorities can ask at any time; its certificate says which of them it stands for.
        self.clients = {
            name: Tls(
                Files(directory / f"client-{name}", self.old.pem + self.new.pem, authority.issue("client")).settings, "", "client", False
            )
            for name, authority in (("old", self.old), ("new", self.new))
        }

    def accepts(self, node: Node, client: str) -> bool:
        """Whether all of the node's servers that we can ask take this client's certificate."""
        host, _, port = node.mgmt_addr.rpartition(":")
        target = Target(((host, int(port)),), PATIENCE, False, self.clients[client])
        try:
            ask(target, target.addrs[0], "GET", "/status")
            identify(node.raft_addr, Header("client", "127.0.0.1:1"), PATIENCE, self.clients[client])
        except (NoAnswer, DialError):
            return False
        return True

    def shown_by(self, node: Node) -> dict[str, bytes]:
        """The certificates that the node's ports show now, as DER."""
        host, _, port = node.mgmt_addr.rpartition(":")
        ports = {"http": int(port), "grpc": int(port) + 1, "raft": int(node.raft_addr.rpartition(":")[2])}
        context = self.clients["new"].client()
        found: dict[str, bytes] = {}
        for name, number in ports.items():
            with _connected(context, host, number) as sock:
                found[name] = sock.getpeercert(True) or b""
        return found

    def change(self, what: dict[str, Any]) -> None:
        """what: `ca` (PEM) or `pairs` (the authority that issues new ones), for every node."""
        for name, files in self.files.items():
            if "ca" in what:
                files.ca.write_bytes(what["ca"])
            if "pairs" in what:
                what["pairs"].issue(name).write(files.cert, files.key)


def _connected(context: ssl.SSLContext, host: str, port: int) -> ssl.SSLSocket:
    return context.wrap_socket(socket.create_connection((host, port), PATIENCE), server_hostname=host)


@pytest.mark.long
def test_all_certificates_and_the_authority_are_changed_under_load(tmp_path: Path) -> None:
    secured = Secured(tmp_path)
    cluster, nodes = secured.cluster, secured.cluster.nodes
    try:
        cluster.start()
        leader = cluster.leader()
        term = leader.status(local=True)["term"]
        shown = {node.name: secured.shown_by(node) for node in nodes}
        for node in nodes:
            node.load(topics=["orders", "bills"], pause=PAUSE, in_flight=8, timeout=60)

        secured.change({"ca": secured.old.pem + secured.new.pem})
        for node in nodes:
            wait_for(lambda node=node: secured.accepts(node, "new"), PATIENCE, f"{node.name} believes both authorities")  # type: ignore[misc]
        secured.change({"pairs": secured.new})
        for node in nodes:
            before = shown[node.name]
            wait_for(
                lambda node=node, before=before: all(now != before[port] for port, now in secured.shown_by(node).items()),  # type: ignore[misc]
                PATIENCE,
                f"{node.name} shows its new certificate on every port",
            )
        secured.change({"ca": secured.new.pem})
        for node in nodes:
            wait_for(lambda node=node: not secured.accepts(node, "old"), PATIENCE, f"{node.name} believes the new authority alone")  # type: ignore[misc]
            assert secured.accepts(node, "new")

        published = [node.load_done(stop=True) for node in nodes]
        print(f"\nduring the rotation: {[(line['number'], line['acked'], line['worst']) for line in published]}")
        for line in published:
            assert (line["acked"], line["failed"]) == (line["number"], {}), line
            assert line["number"] > 50
        after = leader.status(local=True)
        assert (after["role"], after["term"]) == ("leader", term)
        # Calls from node to node go over new channels now: a follower's status is the leader's.
        for node in cluster.others(leader):
            status = node.status()
            assert (status["answered_by"], status["warnings"]) == (leader.name, [])

        # Every connection that is made anew is made with the new certificates: a node that comes back is taken in, and publishes.
        back = cluster.others(leader)[0]
        back.kill()
        back.start()
        cluster.wait_whole(30)
        back.load("after", topics=["orders"], count=50, in_flight=8, timeout=60)
        assert back.load_done("after")["acked"] == 50
        cluster.wait_settled()
        history = check_same(nodes)
        counts = check_outcomes(history, nodes, [node.name for node in nodes] + ["after"])
        assert (counts["unknown"], counts["refused"]) == (0, 0)
        check_delivered_once(leader)
    finally:
        for node in nodes:
            node.kill()


@pytest.mark.long
def test_a_mistake_in_a_rotation_is_told_and_harms_nothing(tmp_path: Path) -> None:
    secured = Secured(tmp_path)
    cluster = secured.cluster
    try:
        cluster.start()
        node = cluster.followers()[0]
        files = secured.files[node.name]
        whole = files.key.read_bytes()
        files.key.write_bytes(whole[: len(whole) // 2])
        told = f"TLS of {node.name}: the files on disk cannot be used"
        wait_for(lambda: any(text.startswith(told) for text in node.status()["warnings"]), PATIENCE, "the status says so")
        assert node.status(local=True)["dropped"]["management: tls: reloads failed"] >= 1
        assert secured.accepts(node, "old")
        node.load(topics=["orders"], count=20, timeout=60)
        assert node.load_done()["acked"] == 20
        files.key.write_bytes(whole)
        wait_for(lambda: not any("TLS" in text for text in node.status()["warnings"]), PATIENCE, "all is well again")
    finally:
        for node in cluster.nodes:
            node.kill()
