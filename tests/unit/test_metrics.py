"""The metrics against their contract, read back with the official parser."""

from __future__ import annotations

import threading
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from coterie.actors.observability.metrics import Metrics

TOPIC = ("topic",)
NODE = ("node", "topic")
# Names as they are scraped, with type and labels: the contract with dashboards and alert rules made for go-cluster.
CONTRACT: dict[str, tuple[str, tuple[str, ...]]] = {
    "go_cluster_members_total": ("gauge", ()),
    "go_cluster_is_leader": ("gauge", ()),
    "go_cluster_leader_changes_total": ("counter", ()),
    "go_cluster_join_requests_total": ("counter", ("result",)),
    "go_cluster_grpc_conn_dials_total": ("counter", ()),
    "go_cluster_grpc_conn_reuse_total": ("counter", ()),
    "go_cluster_grpc_conn_evictions_total": ("counter", ()),
    "go_cluster_grpc_conn_active": ("gauge", ()),
    "go_cluster_repl_published_total": ("counter", TOPIC),
    "go_cluster_repl_broadcast_total": ("counter", TOPIC),
    "go_cluster_repl_acks_total": ("counter", TOPIC),
    "go_cluster_repl_seq": ("gauge", TOPIC),
    "go_cluster_repl_ack_seq": ("gauge", TOPIC),
    "go_cluster_repl_lag": ("gauge", TOPIC),
    "go_cluster_repl_subs": ("gauge", ()),
    "go_cluster_repl_acks_per_node_total": ("counter", NODE),
    "go_cluster_repl_ack_seq_per_node": ("gauge", NODE),
    "go_cluster_repl_lag_per_node": ("gauge", NODE),
}


def samples(metrics: Metrics) -> dict[str, list[tuple[str, dict[str, str], float]]]:
    """{sample name: [(type, labels, value)]} as a scraper sees it."""
    found: dict[str, list[tuple[str, dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(metrics.text().decode()):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((family.type, sample.labels, sample.value))
    return found


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return next((v for _, given, v in samples(metrics).get(name, []) if given == labels), None)


def leading() -> Metrics:
    metrics = Metrics("n1")
    metrics.leader(True)
    metrics.subscribers(3)
    metrics.published("a/b", 10)
    metrics.seq("a/b", 10)
    for node, seq in (("n1", 10), ("n2", 8), ("n3", 4)):
        metrics.acked(node, "a/b", seq, seq)
        metrics.lag(node, "a/b", 10 - seq)
    return metrics


def test_every_name_type_and_label_of_the_contract_and_no_other_under_its_prefix() -> None:
    metrics = leading()
    metrics.join_request("accepted")
    found = samples(metrics)
    shown = {name: rows for name, rows in found.items() if name.startswith("go_cluster_")}
    assert {name: (rows[0][0], tuple(sorted(rows[0][1]))) for name, rows in shown.items()} == CONTRACT
    assert all(name.startswith("coterie_") for name in found if name not in shown)
    assert not [name for name in found if name.endswith("_created")]


def test_values_are_what_they_say() -> None:
    metrics = leading()
    metrics.members(3)
    metrics.leader_changed()
    metrics.join_request("rejected")
    assert value(metrics, "go_cluster_members_total") == 3
    assert value(metrics, "go_cluster_is_leader") == 1
    assert value(metrics, "go_cluster_leader_changes_total") == 1
    assert value(metrics, "go_cluster_join_requests_total", result="accepted") == 0
    assert value(metrics, "go_cluster_join_requests_total", result="rejected") == 1
    assert value(metrics, "go_cluster_repl_published_total", topic="a/b") == 10
    assert value(metrics, "go_cluster_repl_broadcast_total", topic="a/b") == 30
    assert value(metrics, "go_cluster_repl_acks_total", topic="a/b") == 22
    assert value(metrics, "go_cluster_repl_seq", topic="a/b") == 10
    assert value(metrics, "go_cluster_repl_ack_seq", topic="a/b") == 4
    assert value(metrics, "go_cluster_repl_lag", topic="a/b") == 6
    assert value(metrics, "go_cluster_repl_lag_per_node", topic="a/b", node="n3") == 6
    assert value(metrics, "go_cluster_repl_subs") == 3


def test_a_peer_that_goes_takes_its_labels_along_and_raises_no_alarm_any_more() -> None:
    metrics = leading()
    metrics.peer_gone("n3")
    metrics.peer_gone("never seen")
    assert not [row for rows in samples(metrics).values() for row in rows if row[1].get("node") == "n3"]
    assert value(metrics, "go_cluster_repl_lag", topic="a/b") == 2
    assert value(metrics, "go_cluster_repl_ack_seq", topic="a/b") == 8


def test_who_led_shows_nothing_of_the_others_and_a_follower_counts_no_publishes() -> None:
    metrics = leading()
    metrics.leader(False)
    metrics.published("a/b", 5)
    assert value(metrics, "go_cluster_is_leader") == 0
    assert value(metrics, "go_cluster_repl_subs") == 0
    assert value(metrics, "go_cluster_repl_lag", topic="a/b") == 0
    assert "go_cluster_repl_lag_per_node" not in samples(metrics)
    assert value(metrics, "go_cluster_repl_published_total", topic="a/b") == 10
    assert value(metrics, "coterie_applied_total", topic="a/b") == 15


def test_our_own_metrics() -> None:
    metrics = Metrics("n1")
    metrics.election_started()
    metrics.term(4)
    metrics.dropped("no handler", 2)
    metrics.delivered("t", 3)
    metrics.redelivered("t", 1)
    metrics.actor_restarted("delivery")
    metrics.commit_seconds(0.003, 128)
    metrics.delivery_seconds(0.1, 128)
    metrics.buffer_write_seconds(0.004, 2)
    metrics.inbox_depth("raft", 17)
    metrics.storage("buffer", 1 << 30, 4096)
    metrics.room_counters("gossip", {"packets dropped": 5})
    assert value(metrics, "coterie_elections_total") == 1
    assert value(metrics, "coterie_term") == 4
    assert value(metrics, "coterie_dropped_total", reason="no handler") == 2
    assert value(metrics, "coterie_delivered_total", topic="t") == 3
    assert value(metrics, "coterie_redelivered_total", topic="t") == 1
    assert value(metrics, "coterie_actor_restarts_total", concern="delivery") == 1
    assert value(metrics, "coterie_commit_seconds_count") == 1
    assert value(metrics, "coterie_commit_seconds_bucket", le="0.005") == 1
    assert value(metrics, "coterie_delivery_seconds_sum") == 0.1
    assert value(metrics, "coterie_buffer_commit_seconds_count") == 1
    assert value(metrics, "coterie_buffer_batches_total") == 2
    assert value(metrics, "coterie_inbox_depth", concern="raft") == 17
    assert value(metrics, "coterie_storage_map_bytes", store="buffer") == 1 << 30
    assert value(metrics, "coterie_storage_used_bytes", store="buffer") == 4096
    assert value(metrics, "coterie_room_events_total", room="gossip", what="packets dropped") == 5


def test_any_topic_can_be_a_label() -> None:
    for topic in ("a/b", "a_b", 'quo"te', "back\\slash", "new\nline", "темы 🦉"):
        metrics = Metrics()
        metrics.seq(topic, 7)
        assert value(metrics, "go_cluster_repl_seq", topic=topic) == 7


def test_two_nodes_of_one_process_do_not_mix() -> None:
    one, two = Metrics("n1"), Metrics("n2")
    one.members(3)
    assert (value(one, "go_cluster_members_total"), value(two, "go_cluster_members_total")) == (3, 0)


def test_many_threads_count_together_while_it_is_scraped() -> None:
    metrics = Metrics("n1")
    metrics.leader(True)

    def count(node: str) -> None:
        for n in range(500):
            metrics.published("t", 1)
            metrics.acked(node, "t", 1, n)
            if n % 100 == 0:
                metrics.peer_gone(node)

    threads: list[Any] = [threading.Thread(target=count, args=(f"n{i}",)) for i in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        samples(metrics)
    for thread in threads:
        thread.join()
    assert value(metrics, "go_cluster_repl_published_total", topic="t") == 2000
    assert value(metrics, "go_cluster_repl_acks_total", topic="t") == 2000
