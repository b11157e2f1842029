"""go-cluster's gRPC both ways: a Go client with a JSON codec of its own asks a node of ours, and a node of ours follows a Go leader that serves the same."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from coterie import Cluster, Config, HandlerActor, Join, NoQuorum, Publish, TransferLeadership
from coterie.actors.errors import HandlerFailed
from coterie.actors.handler import Record
from coterie.actors.replication.foreign import FROM
from coterie.proto.grpc_standard import HEALTH, REFLECTION
from tests.authority import Authority, Files
from tests.interop.support import LinePeer, Said

pytestmark = [pytest.mark.go, pytest.mark.timeout(300)]

ANYWHERE = {"raft_addr": "127.0.0.1:0", "mem_bind": "127.0.0.1:0", "mgmt_addr": "127.0.0.1:0"}
PATIENCE = 30.0


class Inventory(HandlerActor):
    """Notes what it is given. A record that is b"fail" is refused the first time."""

    def __init__(self, had: list[tuple[Record, bytes]], news: threading.Condition) -> None:
        super().__init__()
        self.had, self.news, self.refused = had, news, False

    def handle_write(self, op: str, request: bytes) -> bytes:
        return op.encode() + b":" + request

    def handle_sync(self, topic: str, data: bytes, record: Record | None = None) -> None:
        assert record is not None
        if data == b"fail" and not self.refused:
            self.refused = True
            raise ValueError("not yet")
        with self.news:
            self.had.append((record, data))
            self.news.notify_all()


class Ours:
    """A node of ours and what its handler has had."""

    def __init__(self, name: str, handler: bool = True, **options: object) -> None:
        self.had: list[tuple[Record, bytes]] = []
        self.news = threading.Condition()
        self.cluster = Cluster(Config(node_id=name, repl_retry=0.3, **ANYWHERE, **options))
        self.addresses = self.cluster.ref.addresses()
        if handler:
            self.register()

    def register(self) -> None:
        self.handler = Inventory.start(self.had, self.news)
        self.cluster.register(self.handler)

    def close(self) -> None:
        self.cluster.stop()
        if hasattr(self, "handler"):
            self.handler.stop()

    def knows(self, subscriber: str, topic: str) -> int:
        """How far this node knows a subscriber to be; no interface shows it where no stream of it is."""
        replication = self.cluster.ref._actor_weakref()._rooms._replication
        known = replication.subscriptions._known.get(subscriber)
        return known.acked.get(topic, 0) if known is not None else 0

    def wait_had(self, topic: str, *data: bytes) -> list[Record]:
        """The records of `topic`, once their data are these."""

        def there() -> bool:
            return [d for record, d in self.had if record.topic == topic] == list(data)

        with self.news:
            assert self.news.wait_for(there, PATIENCE), self.had
            return [record for record, _ in self.had if record.topic == topic]


@pytest.fixture
def ours() -> Iterator[Callable[..., Ours]]:
    running: list[Ours] = []

    def start(name: str, **options: object) -> Ours:
        running.append(Ours(name, **options))
        return running[-1]

    yield start
    for node in reversed(running):
        node.close()


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, what
        threading.Event().wait(0.05)


def leads(cluster: Cluster, leader: str) -> bool:
    return cluster.status(local=True).leader_id == leader


def text(data: str) -> bytes:
    return base64.b64decode(data)


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def metric(address: str, name: str, **labels: str) -> float | None:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=PATIENCE) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    return next((s.value for f in families for s in f.samples if s.name == name and s.labels == labels), None)


# -- a Go client asks ours ------------------------------------------------------------------------------------------------------------


def test_a_go_client_with_its_own_json_codec_is_served_by_every_method(
    ours: Callable[..., Ours], go_server: Callable[[str], LinePeer], go_asker: Callable[[str], LinePeer]
) -> None:
    node = ours("n1", bootstrap=True, mgmt_proto="grpc")
    until(lambda: leads(node.cluster, "n1"), "n1 leads")
    assert node.addresses["mgmt"] == node.addresses["grpc"]
    asker = go_asker(node.addresses["mgmt"])

    status = asker.ask("status")["status"]
    assert (status["Healthy"], status["LeaderID"], status["LeaderAddr"]) == (True, "n1", node.addresses["mgmt"])
    assert status["Members"][0]["Meta"]["mgmt"] == node.addresses["mgmt"]
    assert status["Members"][0]["Meta"]["http"] == node.addresses["http"]
    assert text(asker.ask("appwrite", op="demo", data=b64(b"\x00\xff"))["data"]) == b"demo:\x00\xff"

    server = go_server("g1")
    joined = asker.ask("join", member="g1", raftAddr=server.address, within=PATIENCE)
    assert joined["accepted"], joined
    assert {m["ID"]: m["Suffrage"] for m in asker.ask("status")["status"]["Members"]} == {"n1": "voter", "g1": "voter"}
    assert asker.ask("leave", member="g1", within=PATIENCE)["accepted"]
    refused = asker.ask("leave", member="nobody")
    assert not refused["accepted"]
    assert "nobody" in refused["reason"]

    asker.ask("subscribe", node="g9")
    for number in range(50):
        assert asker.ask("appsync", topic="orders", data=b64(b"%d" % number))["reason"] == ""
    asker.wait_for("record", lambda line: line["seq"] == 50, within=PATIENCE)
    records = {line["seq"]: text(line["data"]) for line in asker.said("record")}
    assert records == {number + 1: b"%d" % number for number in range(50)}
    assert sorted(records) == list(dict.fromkeys(line["seq"] for line in asker.said("record")))
    asker.ask("ack", topic="orders", seq=50, node="g9")
    http = node.addresses["http"]
    assert metric(http, "go_cluster_repl_ack_seq_per_node", topic="orders", node="g9") == 50
    assert metric(http, "go_cluster_repl_lag_per_node", topic="orders", node="g9") == 0
    assert metric(http, "go_cluster_repl_subs") == 1

    assert asker.ask("health", service="cluster.v1.Replication")["status"] == "SERVING"
    assert asker.ask("health", service="no.Such")["status"] == "NOT_FOUND"
    services = asker.ask("services")["services"]
    assert services == sorted(
        ["cluster.v1.Management", "cluster.v1.Replication", "coterie.v1.Client", "coterie.v1.Node", HEALTH, *REFLECTION]
    )


def test_a_go_subscriber_moves_with_the_leader_and_misses_nothing(ours: Callable[..., Ours], go_asker: Callable[[str], LinePeer]) -> None:
    first = ours("n1", bootstrap=True)
    others = [ours(name, seeds_csv=first.addresses["gossip"]) for name in ("n2", "n3")]
    for other, name in zip(others, ("n2", "n3"), strict=True):
        first.cluster.join(name, other.addresses["raft"])
    asker = go_asker(first.addresses["grpc"])
    asker.ask("subscribe", node="g1")
    for number in range(20):
        first.cluster.publish("t", b"%d" % number)
    asker.wait_for("record", lambda line: line["seq"] == 20, within=PATIENCE)
    asker.ask("ack", topic="t", seq=10, node="g1")
    until(lambda: others[0].knows("g1", "t") == 10, "n1 has told n2")
    first.cluster.ref.ask(TransferLeadership("n2"))
    asker.wait_for("unsubscribed", lambda line: line["code"] == "FailedPrecondition", within=PATIENCE)

    second = others[0]
    until(lambda: leads(second.cluster, "n2"), "n2 leads")
    second.cluster.publish("t", b"from the next leader")
    again = go_asker(second.addresses["grpc"])
    again.ask("subscribe", node="g1")
    again.wait_for("record", lambda line: line["seq"] == 21, within=PATIENCE)
    assert again.said("record")[0]["seq"] == 11  # it went on behind what it had acknowledged at the leader before


# -- ours follow a Go leader ----------------------------------------------------------------------------------------------------------


def test_a_member_that_only_gossips_follows_a_go_leader_and_acknowledges(
    ours: Callable[..., Ours], go_leader: Callable[..., LinePeer]
) -> None:
    leader = go_leader("g1")
    node = ours("n1", handler=False, seeds_csv=leader.address)
    until(lambda: leads(node.cluster, "g1"), "n1 has asked who leads")
    assert leader.said("subscribed") == []  # nobody here takes the records yet
    node.register()
    leader.wait_for("subscribed", lambda line: line["node"] == "n1", within=PATIENCE)

    for number in range(100):
        leader.ask("publish", topic="t", data=b64(b"%d" % number))
    expected = [b"%d" % number for number in range(100)]
    records = node.wait_had("t", *expected)
    assert {(record.seq, record.index) for record in records} == {(0, 0)}
    assert [record.headers for record in records] == [{FROM: f"g1 7 {seq}"} for seq in range(1, 101)]
    leader.wait_for("ack", lambda line: (line["topic"], line["seq"], line["node"]) == ("t", 100, "n1"), within=PATIENCE)

    # What is sent again, also over another stream, is handled once and acknowledged again.
    mark = leader.mark()
    leader.ask("cut")
    leader.wait_for("subscribed", within=PATIENCE, since=mark)
    mark = leader.mark()
    for seq in (99, 100):
        leader.ask("send", topic="t", data=b64(b"again"), seq=seq)
    leader.wait_for("ack", lambda line: line["seq"] == 100, within=PATIENCE, since=mark)
    leader.ask("publish", topic="u", data=b64(b"fail"))
    leader.ask("publish", topic="u", data=b64(b"after"))
    leader.wait_for("ack", lambda line: (line["topic"], line["seq"]) == ("u", 2), within=PATIENCE)
    assert [record.attempt for record in node.wait_had("u", b"fail", b"after")] == [2, 1]
    node.wait_had("t", *expected)

    # Another leadership begins its numbers again: they are other records.
    leader.ask("leads", leader="g1", term=8)
    until(lambda: node.cluster.status(local=True).term == 8, "n1 has heard of the next term")
    leader.wait_for("subscribed", within=PATIENCE, since=mark)
    leader.ask("publish", topic="t", data=b64(b"first of term 8"))
    assert node.wait_had("t", *expected, b"first of term 8")[-1].headers == {FROM: "g1 8 1"}

    status = node.cluster.status()
    assert any("a Go node leads: g1" in warning for warning in status.warnings)
    assert status.leader_addr
    assert status.topics == ()  # nothing of it is in our log, buffer or cursors
    assert status.dropped["management: foreign records again"] == 2


def test_writes_go_to_a_go_leader_and_publishes_wait_for_one_of_ours(ours: Callable[..., Ours], go_leader: Callable[..., LinePeer]) -> None:
    leader = go_leader("g1")
    node = ours("n1", seeds_csv=leader.address)
    until(lambda: leads(node.cluster, "g1"), "n1 has asked who leads")
    assert node.cluster.write("demo", b"abc", timeout=PATIENCE) == b"go:abc"
    assert leader.said("write")[-1]["op"] == "demo"
    leader.ask("refuse", reason="sold out")
    with pytest.raises(HandlerFailed, match="sold out"):
        node.cluster.write("demo", timeout=PATIENCE)
    leader.ask("refuse", reason="not leader")
    with pytest.raises(NoQuorum):
        node.cluster.write("demo", timeout=1)
    with pytest.raises(NoQuorum, match="go-cluster"):
        node.cluster.read("demo", timeout=1)
    for acks in ("quorum", "leader"):
        with pytest.raises(NoQuorum, match="g1 is a node of go-cluster"):
            node.cluster.ref.ask(Publish("t", b"x", acks=acks, timeout=1))  # type: ignore[arg-type]
    assert [line for line in leader.said("asked") if line["what"] == "appsync"] == []
    assert metric(node.addresses["http"], "go_cluster_grpc_conn_dials_total") == 1
    assert metric(node.addresses["http"], "go_cluster_grpc_conn_active") == 1


def test_a_go_leader_behind_mutual_tls_is_followed_too(
    ours: Callable[..., Ours], go_leader: Callable[..., LinePeer], tmp_path: Path
) -> None:
    authority = Authority()
    theirs, mine = (Files(tmp_path / name, authority.pem, authority.issue(name)) for name in ("g1", "n1"))
    leader = go_leader("g1", "-tls", str(theirs.cert.parent))
    node = ours("n1", seeds_csv=leader.address, **mine.config())
    leader.wait_for("subscribed", lambda line: line["node"] == "n1", within=PATIENCE)
    leader.ask("publish", topic="t", data=b64(b"secret"))
    node.wait_had("t", b"secret")
    leader.wait_for("ack", within=PATIENCE)
    assert node.cluster.write("demo", b"abc", timeout=PATIENCE) == b"go:abc"


def test_clusterctl_asks_a_node_of_go_cluster_as_it_asks_ours(go_leader: Callable[..., LinePeer]) -> None:
    leader = go_leader("g1", "-force")
    where = ("--addr", leader.wait_for("started")["mgmt"], "--mgmt-proto", "grpc")

    def clusterctl(*arguments: str) -> Said:
        ran = subprocess.run(
            [sys.executable, "-m", "coterie.cli", *arguments, *where, "--output", "json"],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return json.loads(ran.stdout)  # type: ignore[no-any-return]

    assert clusterctl("status")["LeaderID"] == "g1"
    assert clusterctl("join", "--id", "n9", "--raft-addr", "127.0.0.1:1")["accepted"]
    assert clusterctl("leave", "--id", "n9")["accepted"]
    assert text(clusterctl("write", "demo", "abc")["data"]) == b"go:abc"
    leader.ask("refuse", reason="sold out")
    with pytest.raises(subprocess.CalledProcessError) as refused:
        clusterctl("write", "demo", "abc")
    assert "sold out" in refused.value.stdout + refused.value.stderr


def test_in_a_quorum_the_go_leader_that_raft_elected_is_followed_until_one_of_ours_leads(
    ours: Callable[..., Ours], go_server: Callable[[str], LinePeer], go_leader: Callable[..., LinePeer]
) -> None:
    node = ours("n1", bootstrap=True)
    server, leader = go_server("g1"), go_leader("g1")  # one node of go-cluster: its Raft, and the rest of it
    leader.ask("join", addrs=[node.addresses["gossip"]])
    node.cluster.publish("t", b"ours")
    node.cluster.ref.ask(Join("g1", server.address))
    node.cluster.ref.ask(TransferLeadership("g1"))
    until(lambda: leads(node.cluster, "g1"), "g1 leads")
    leader.wait_for("subscribed", lambda line: line["node"] == "n1", within=PATIENCE)
    leader.ask("publish", topic="t", data=b64(b"theirs"))
    theirs = node.wait_had("t", b"ours", b"theirs")[-1]
    assert (theirs.seq, theirs.headers) == (0, {FROM: f"g1 {node.cluster.status(local=True).term} 1"})
    assert any("a Go node leads" in warning for warning in node.cluster.status().warnings)

    # A publish that waits makes n1 take over; its number is the next of ours: what the Go leader published has no place among them.
    assert node.cluster.publish("t", b"waited", timeout=60).seq == 2
    assert [record.seq for record in node.wait_had("t", b"ours", b"theirs", b"waited")] == [1, 0, 2]
    leader.wait_for("unsubscribed", within=PATIENCE)
    assert not any("a Go node leads" in warning for warning in node.cluster.status().warnings)
