"""What a scraper reads from nodes as they run: on the leader, on a follower, and on a member that is in no quorum. By the official parser, compared exactly."""

from __future__ import annotations

import contextlib
import json
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from coterie import Cluster, Config, HandlerActor
from tests.metrics_contract import CONTRACT, OURS, PROCESS, Shape, declared, shapes
from tests.product.commands import clusterctl
from tests.product.wait import wait_for

WAIT = 30.0
EVERYTHING: dict[str, Shape] = {**CONTRACT, **OURS, **PROCESS}
ONLY_A_LEADERS = {name for name in CONTRACT if name.startswith("go_cluster_repl_")} - {"go_cluster_repl_seq", "go_cluster_repl_subs"}
# What has no series while all is well.
RARE = {"coterie_actor_restarts_total", "coterie_dead_letters_total", "coterie_dropped_total", "coterie_redelivered_total"} | {
    "coterie_tls_certificate_expiry_timestamp_seconds"
}


class Sink(HandlerActor):
    def handle_sync(self, topic: str, data: bytes) -> None:
        return


class Node:
    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.url = f"http://{cluster.ref.addresses()['http']}/metrics"

    def text(self, **headers: str) -> str:
        answer = httpx.get(self.url, headers=headers, timeout=WAIT)
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        return answer.text

    def value(self, name: str, /, **labels: str) -> float | None:
        for family in text_string_to_metric_families(self.text()):
            for sample in family.samples:
                if sample.name == name and sample.labels == labels:
                    return sample.value
        return None


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Node]]:
    """n1 leads, n2 follows, n3 is a member that is in no quorum; all have had three records."""
    directory = tmp_path_factory.mktemp("metrics")

    def node(name: str, **more: Any) -> Cluster:
        addresses = dict.fromkeys(("raft_addr", "mem_bind", "mgmt_addr"), "127.0.0.1:0")
        return stack.enter_context(Cluster(Config(node_id=name, data_dir=directory / name, app_handlers=Sink, **addresses, **more)))

    with contextlib.ExitStack() as stack:
        first = node("n1", bootstrap=True)
        seed = first.ref.addresses()["gossip"]
        second, third = node("n2", seeds_csv=seed), node("n3", seeds_csv=seed)
        first.join("n2", second.ref.addresses()["raft"])
        for _ in range(3):
            second.publish("orders", b"x")
        found = [Node(cluster) for cluster in (first, second, third)]
        wait_for(lambda: all(one.value("coterie_delivered_total", topic="orders") == 3 for one in found), WAIT, "all have delivered")
        acked = {"topic": "orders", "node": "n3"}
        wait_for(lambda: found[0].value("go_cluster_repl_lag_per_node", **acked) == 0, WAIT, "n3 has acknowledged to n1")
        wait_for(lambda: found[0].value("coterie_raft_peer_lag", node="n2") is not None, WAIT, "the supervisor's next look around")
        yield found


@pytest.mark.parametrize("which", [0, 1, 2], ids=["leader", "follower", "in no quorum"])
def test_names_types_and_labels_are_those_of_the_contract_and_no_others(nodes: list[Node], which: int) -> None:
    text = nodes[which].text()
    assert declared(text) == {name: kind for name, (kind, _) in EVERYTHING.items()}
    found = shapes(text)
    assert found == {name: {EVERYTHING[name]} for name in found}
    absent = {0: set(), 1: ONLY_A_LEADERS, 2: ONLY_A_LEADERS}[which]
    assert {name for name in CONTRACT if name not in found} == absent
    peers = {"coterie_raft_peer_lag", "coterie_raft_peer_last_contact_seconds"} if which else set()
    applied = {"coterie_applied_total"} if which == 2 else set()
    assert {name for name in OURS if name not in found} - RARE == peers | applied


def test_a_scraper_that_would_like_openmetrics_gets_plain_text_and_is_told_so(nodes: list[Node]) -> None:
    wishes = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1"
    text = nodes[0].text(Accept=wishes)
    assert "# TYPE go_cluster_members_total gauge" in text and "# EOF" not in text


def test_each_node_says_what_it_is(nodes: list[Node]) -> None:
    def row(name: str, **labels: str) -> list[float | None]:
        return [node.value(name, **labels) for node in nodes]

    assert row("go_cluster_is_leader") == [1, 0, 0]
    assert row("coterie_leader_known") == [1, 1, 1]
    assert row("coterie_in_quorum") == [1, 1, 0]
    assert row("coterie_voters") == row("coterie_voters_live") == [2, 2, 0]
    assert row("coterie_raft_role", role="leader") == [1, 0, 0]
    assert row("coterie_raft_role", role="follower") == [0, 1, 0]
    assert len(set(row("coterie_term"))) == 1 and row("coterie_term")[0] == 2, "also where it is known from gossip only"
    assert row("go_cluster_members_total") == [3, 3, 3]
    assert row("go_cluster_repl_seq", topic="orders") == [3, 3, 3]
    assert row("coterie_delivery_lag", topic="orders") == [0, 0, 0]
    assert row("coterie_gossip_members", state="alive") == [3, 3, 3]
    assert nodes[0].value("go_cluster_repl_subs") == 2
    fsyncs = row("coterie_fsync_seconds_count")
    assert fsyncs[2] == 0 and min(fsyncs[:2]) > 3, "a node that is no Raft server writes no Raft log"
    for concern in ("supervisor", "raft", "membership", "publisher", "delivery", "buffer", "events", "management", "following", "handler"):
        assert all(age is not None and age < WAIT for age in row("coterie_inbox_age_seconds", concern=concern)), concern
    assert row("coterie_inbox_depth", concern="subscriber") == [0, None, None]


def test_what_a_leader_shows_of_others_goes_with_them_and_with_its_leadership(nodes: list[Node]) -> None:
    leader, follower, _ = nodes

    def peers(node: Node) -> set[str]:
        families = text_string_to_metric_families(node.text())
        return {sample.labels["node"] for family in families for sample in family.samples if "node" in sample.labels}

    assert peers(leader) == {"n1", "n2", "n3"}
    leader.cluster.transfer_leadership("n2")
    wait_for(lambda: peers(leader) == set(), WAIT, "who led shows nobody any more")
    wait_for(lambda: peers(follower) == {"n1", "n2", "n3"}, WAIT, "who leads now shows all of them")
    assert leader.value("go_cluster_repl_ack_seq", topic="orders") is None
    assert leader.value("go_cluster_repl_published_total", topic="orders") == 3, "a counter stays"


def test_a_node_with_tls_says_when_its_certificates_end(tmp_path: Path) -> None:
    made = clusterctl("tls", "init", "--dir", str(tmp_path / "tls"), "--nodes", "n1", "--days", "30", "--output", "json")
    assert made.returncode == 0, made
    files = json.loads(made.stdout)
    tls = {"tls_enable": True, "tls_ca": files["ca"], "tls_cert": files["nodes"]["n1"]["cert"], "tls_key": files["nodes"]["n1"]["key"]}
    addresses = dict.fromkeys(("raft_addr", "mem_bind", "mgmt_addr"), "127.0.0.1:0")
    context = ssl.create_default_context(cafile=files["ca"])
    context.load_cert_chain(files["client"]["cert"], files["client"]["key"])
    name = "coterie_tls_certificate_expiry_timestamp_seconds"
    with Cluster(Config(node_id="n1", bootstrap=True, **addresses, **tls)) as cluster, httpx.Client(verify=context, timeout=WAIT) as client:

        def ends() -> dict[str, float]:
            text = client.get(f"https://{cluster.ref.addresses()['http']}/metrics").text
            families = text_string_to_metric_families(text)
            return {sample.labels["certificate"]: sample.value for family in families for sample in family.samples if sample.name == name}

        wait_for(lambda: ends().keys() == {"node", "ca"}, WAIT, "the supervisor's next look around")
        assert 29 * 86400 < ends()["node"] - time.time() < 31 * 86400
