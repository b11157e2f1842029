"""The metrics against their contract, read back with the official parser."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from coterie.actors.observability import peers
from coterie.actors.observability.inboxes import Inboxes
from coterie.actors.observability.labels import OTHERS
from coterie.actors.observability.metrics import Metrics
from coterie.actors.observability.views import packets_dropped
from coterie.actors.room_messages import Member, MembershipView, PeerView, RaftView, ReplicationView
from coterie.transport import logs
from tests.metrics_contract import CONTRACT, OURS, PROCESS, FakeActor, declared, full, leading, shapes


def samples(metrics: Metrics) -> dict[str, list[tuple[str, dict[str, str], float]]]:
    """{sample name: [(type, labels, value)]} as a scraper sees it."""
    found: dict[str, list[tuple[str, dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(metrics.text().decode()):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((family.type, sample.labels, sample.value))
    return found


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return next((v for _, given, v in samples(metrics).get(name, []) if given == labels), None)


def test_every_name_type_and_label_and_no_other() -> None:
    text = full().text().decode()
    everything = {**CONTRACT, **OURS, **PROCESS}
    assert shapes(text) == {name: {shape} for name, shape in everything.items()}
    assert declared(text) == {name: kind for name, (kind, _) in everything.items()}


def test_every_metric_is_declared_before_it_has_a_series() -> None:
    everything = {**CONTRACT, **OURS, **PROCESS}
    assert declared(Metrics("n1").text().decode()) == {name: kind for name, (kind, _) in everything.items()}


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
    only_a_leaders = [name for name in CONTRACT if name.startswith("go_cluster_repl_") and ("lag" in name or "ack_seq" in name)]
    assert only_a_leaders == [name for name in only_a_leaders if name not in samples(metrics)]
    assert not [row for rows in samples(metrics).values() for row in rows if "node" in row[1]]
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
    assert value(metrics, "coterie_storage_map_bytes", store="buffer") == 1 << 30
    assert value(metrics, "coterie_storage_used_bytes", store="buffer") == 4096
    metrics.fsync_seconds(0.0007)
    metrics.disk("raft", 1 << 40, 1 << 39)
    metrics.certificate("node", 2e9)
    metrics.dead_letter("t")
    metrics.failed()
    metrics.quorum(True, 3, 2)
    metrics.leader(False, known=True)
    metrics.events_missed(4)
    metrics.log_records_dropped(6)
    metrics.replication(ReplicationView(applied_index=12, waiting=7))
    assert value(metrics, "coterie_room_events_total", room="gossip", what="packets dropped") == 5
    assert value(metrics, "coterie_fsync_seconds_bucket", le="0.001") == 1
    assert value(metrics, "coterie_storage_disk_free_bytes", store="raft") == 1 << 39
    assert value(metrics, "coterie_tls_certificate_expiry_timestamp_seconds", certificate="node") == 2e9
    assert value(metrics, "coterie_dead_letters_total", topic="t") == 1
    assert value(metrics, "coterie_failed") == 1
    assert [value(metrics, f"coterie_{name}") for name in ("in_quorum", "voters", "voters_live", "leader_known")] == [1, 3, 2, 1]
    assert [value(metrics, f"coterie_{name}_total") for name in ("events_missed", "log_records_dropped")] == [4, 6]
    assert [value(metrics, f"coterie_{name}") for name in ("applied_index", "publish_waiting_records")] == [12, 7]


def test_the_handlers_lag_is_what_the_node_has_and_the_handler_has_not() -> None:
    metrics = Metrics("n1")
    metrics.seq("t", 10)
    assert value(metrics, "coterie_delivery_lag", topic="t") is None
    metrics.position("t", 7)
    assert value(metrics, "coterie_delivery_lag", topic="t") == 3
    metrics.position("new", 0)
    assert value(metrics, "coterie_delivery_lag", topic="new") == 0
    metrics.position("t", None)
    assert value(metrics, "coterie_delivery_lag", topic="t") is None


def test_raft_shows_its_peers_while_it_leads() -> None:
    metrics = Metrics("n1")
    mine, other = PeerView("n1", "a:1", "voter", 90, 0.0), PeerView("n2", "b:1", "voter", 60, 0.5)
    unheard = PeerView("n3", "c:1", "voter")
    metrics.raft(RaftView(role="leader", term=3, commit_index=80, last_index=90, servers=(mine, other, unheard)))
    assert value(metrics, "coterie_raft_role", role="leader") == 1
    assert [value(metrics, f"coterie_raft_{name}_index") for name in ("commit", "last")] == [80, 90]
    assert value(metrics, "coterie_raft_peer_lag", node="n2") == 30
    assert value(metrics, "coterie_raft_peer_last_contact_seconds", node="n2") == 0.5
    assert [labels for _, labels, _ in samples(metrics)["coterie_raft_peer_lag"]] == [{"node": "n2"}]
    metrics.raft(RaftView(role="follower", servers=(mine, other)))
    assert "coterie_raft_peer_lag" not in samples(metrics)
    assert [v for _, labels, v in samples(metrics)["coterie_raft_role"] if v] == [1]
    metrics.raft(RaftView())
    assert not [v for _, labels, v in samples(metrics)["coterie_raft_role"] if v], "a node in no quorum has no role in it"


def test_gossip_shows_members_by_state_and_its_own_health() -> None:
    metrics = Metrics("n1")
    members = tuple(Member(f"n{i}", "a:1", {}, state) for i, state in enumerate(("alive", "alive", "suspect", "failed")))
    counters = {"health": 2, "probe_failed": 3, "suspected": 4, "refuted": 1, "packets sent": 9, "streams now": 5}
    metrics.membership(MembershipView(members, counters))
    shown = {labels["state"]: v for _, labels, v in samples(metrics)["coterie_gossip_members"]}
    assert shown == {"alive": 2, "suspect": 1, "failed": 1, "left": 0}
    assert value(metrics, "coterie_gossip_health_score") == 2
    assert [value(metrics, f"coterie_gossip_{name}_total") for name in ("probes_failed", "suspicions", "refutations")] == [3, 4, 1]
    assert value(metrics, "coterie_gossip_packets_total", direction="sent") == 9
    assert value(metrics, "coterie_room_level", room="gossip", what="streams") == 5
    whats = {labels["what"] for _, labels, _ in samples(metrics)["coterie_room_events_total"]}
    assert whats == {"probe_failed", "suspected", "refuted", "packets sent"}, "a level is no counter"


def test_every_kind_of_lost_packet_has_its_reason() -> None:
    counters = {
        "packets dropped": 1,
        "packets dropped: wrong label": 2,
        "packet parts dropped": 3,
        "inbox_full": 4,
        "packets not sent: ENETUNREACH": 5,
        "packets received": 6,
    }
    assert packets_dropped(counters) == {
        "undecodable": 1,
        "wrong label": 2,
        "undecodable part": 3,
        "inbox full": 4,
        "not sent: ENETUNREACH": 5,
    }


def test_an_inbox_is_as_old_as_its_sample() -> None:
    now = [100.0]
    inboxes = Inboxes("supervisor", 1.0, lambda: now[0])
    quick, stuck, twin = FakeActor("urn:1"), FakeActor("urn:2"), FakeActor("urn:3")
    stuck.actor_inbox.put("something")
    actors: Any = [("raft", quick), ("subscriber", stuck), ("subscriber", twin)]
    inboxes.look(actors)
    assert inboxes.depths() == {"raft": 0, "subscriber": 1}
    now[0] += 0.25
    quick.asked[0].set("urn:1")
    twin.asked[0].set("urn:3")
    now[0] += 0.5
    assert inboxes.ages() == {"raft": 0.25, "subscriber": 0.75}
    inboxes.look(actors)
    assert (len(quick.asked), len(stuck.asked)) == (2, 1), "one that has not answered gets no second sample"
    quick.asked[1].set("urn:1")
    now[0] += 9.0
    assert inboxes.ages() == {"raft": 0.0, "subscriber": 9.75, "supervisor": 8.0}, "who does not come to look is stuck itself"
    inboxes.look(actors[:1])
    assert inboxes.depths() == {"raft": 0}


@pytest.mark.parametrize("ends", ["a leader that was deposed", "a member that is not the leader"])
def test_what_comes_late_shows_nothing_of_other_members(ends: str) -> None:
    metrics = leading() if "deposed" in ends else Metrics("n1")
    metrics.leader(False)
    metrics.acked("n2", "a/b", 1, 11)
    metrics.lag("n2", "a/b", 4)
    assert not [row for rows in samples(metrics).values() for row in rows if "node" in row[1]]


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


# -- many topics, many names -------------------------------------------------------------------------------------------------------


def test_topics_beyond_the_number_are_shown_together() -> None:
    metrics = Metrics("n1", topics=2)
    metrics.leader(True)
    metrics.subscribers(1)
    for topic, n in (("a", 1), ("b", 2), ("c", 30), ("d", 4), (OTHERS, 5)):
        metrics.published(topic, n)
        metrics.seq(topic, n)
        metrics.delivered(topic, n)
        metrics.position(topic, 0 if topic == "d" else n)
        metrics.acked("n2", topic, n, n)
        metrics.lag("n2", topic, 0)
    metrics.acked("n1", "c", 30, 30)
    metrics.lag("n2", "c", 7)
    metrics.lag("n2", "d", 3)
    metrics.lag("n3", "d", 4)
    for name, together in (
        ("go_cluster_repl_published_total", 39),
        ("go_cluster_repl_broadcast_total", 39),
        ("go_cluster_repl_seq", 39),
        ("go_cluster_repl_acks_total", 69),
        ("go_cluster_repl_lag", 7),
        ("go_cluster_repl_ack_seq", 39 - 7 - 4),
        ("coterie_applied_total", 39),
        ("coterie_delivered_total", 39),
        ("coterie_delivery_lag", 4),
    ):
        assert value(metrics, name, topic=OTHERS) == together, name
        assert {labels["topic"] for _, labels, _ in samples(metrics)[name]} == {"a", "b", OTHERS}, name
    for name, node, n in (
        ("go_cluster_repl_lag_per_node", "n1", 0),
        ("go_cluster_repl_lag_per_node", "n2", 7),
        ("go_cluster_repl_lag_per_node", "n3", 4),
        ("go_cluster_repl_ack_seq_per_node", "n2", 39 - 7 - 3),
        ("go_cluster_repl_acks_per_node_total", "n2", 39),
        ("go_cluster_repl_acks_per_node_total", "n1", 30),
    ):
        assert value(metrics, name, topic=OTHERS, node=node) == n, (name, node)
    assert value(metrics, "coterie_topics_unlabelled") == 3
    metrics.seq("c", 40)
    assert value(metrics, "go_cluster_repl_seq", topic=OTHERS) == 49
    assert value(metrics, "coterie_topics_unlabelled") == 3
    metrics.peer_gone("n2")
    assert value(metrics, "go_cluster_repl_lag", topic=OTHERS) == 4
    metrics.leader(False)
    shown = samples(metrics)
    assert not [row for rows in shown.values() for row in rows if "node" in row[1]]
    assert not {"go_cluster_repl_lag", "go_cluster_repl_ack_seq"} & shown.keys()
    assert value(metrics, "go_cluster_repl_published_total", topic=OTHERS) == 39


def test_a_topic_whose_name_is_that_of_the_others_is_one_of_them_from_the_beginning() -> None:
    metrics = Metrics("n1", topics=5)
    metrics.seq(OTHERS, 3)
    metrics.seq("a", 4)
    assert value(metrics, "go_cluster_repl_seq", topic=OTHERS) == 3
    assert value(metrics, "coterie_topics_unlabelled") == 1


def test_a_hundred_thousand_topics_make_no_more_series_than_a_few(caplog: pytest.LogCaptureFixture) -> None:
    metrics = Metrics("n1", topics=10)
    metrics.leader(True)
    for i in range(100_000):
        topic = f"t{i}"
        metrics.published(topic, 1)
        metrics.seq(topic, 1)
        metrics.position(topic, 1)
        metrics.delivered(topic, 1)
        metrics.acked("n1", topic, 1, 1)
        metrics.lag("n1", topic, 0)
    text = metrics.text()
    assert len(text) < 40_000
    assert value(metrics, "go_cluster_repl_published_total", topic=OTHERS) == 99_990
    logs.backlog.drain(10)
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == ["there are more than metric_topics=10 topics"]


def test_names_that_anybody_makes_up_find_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "MOST_PAIRS", 100)
    metrics = Metrics("n1", topics=10)
    metrics.leader(True)
    for i in range(1000):
        for topic in (f"t{t}" for t in range(20)):
            metrics.acked(f"stranger{i}", topic, 1, 1)
            metrics.lag(f"stranger{i}", topic, 5)
    assert len({row[1]["node"] for rows in samples(metrics).values() for row in rows if "node" in row[1]}) < 100
    assert value(metrics, "go_cluster_repl_acks_total", topic="t0") == 1000, "what all of them acknowledge together is counted whole"
    assert (value(metrics, "coterie_metrics_unshown_total") or 0) > 1000
    for i in range(1000):
        metrics.peer_gone(f"stranger{i}")
    metrics.acked("n2", "t0", 1, 1)
    assert value(metrics, "go_cluster_repl_ack_seq_per_node", topic="t0", node="n2") == 1
    assert value(metrics, "go_cluster_repl_ack_seq", topic="t0") == 1
