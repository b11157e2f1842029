"""Order, completeness, acknowledgement, idempotence and back-pressure of publishing, on real processes."""

from __future__ import annotations

import signal
import time

import pytest

from tests.product.checks import check_delivered_once, check_outcomes, check_same
from tests.product.nodes import CommandFailed, process_cluster
from tests.product.wait import wait_for

TOPICS = ["orders", "orders.created", "a/b", "a_b", "روز"]


@pytest.mark.long
def test_ten_thousand_records_of_three_publishers_are_in_one_order_everywhere(tmp_path):
    with process_cluster(tmp_path) as cluster:
        began = time.monotonic()
        for node in cluster.nodes:
            node.load(topics=TOPICS, count=3334, size=[1, 256 << 10], empty=0.02, seed=node.name, timeout=60)
        done = [node.load_done(deadline=60) for node in cluster.nodes]
        cluster.wait_settled()
        print(f"\n10,002 records delivered on three nodes in {time.monotonic() - began:.1f} s: {done}")
        history = check_same(cluster.nodes)
        counts = check_outcomes(history, cluster.nodes, ["n1", "n2", "n3"])
        assert counts == {"acked": 10_002, "unknown": 0, "refused": 0}
        assert sum(map(len, history.values())) == 10_002
        for node in cluster.nodes:
            check_delivered_once(node)


def test_acknowledged_by_the_leader_alone_means_published_when_the_leader_lives(tmp_path):
    with process_cluster(tmp_path) as cluster:
        for node in cluster.nodes:
            node.load(topics=["a", "b"], count=500, acks="leader")
        assert [node.load_done()["acked"] for node in cluster.nodes] == [500, 500, 500]
        assert cluster.followers()[0].ask("publish", topic="a", data="x", acks="leader")["seq"] == 0
        cluster.wait_settled()
        assert check_outcomes(check_same(cluster.nodes), cluster.nodes, ["n1", "n2", "n3"], early=True)["acked"] == 1500


@pytest.mark.long
def test_a_retry_with_the_same_message_id_is_published_once_over_a_leader_s_death(tmp_path):
    with process_cluster(tmp_path) as cluster:
        for round_ in range(2):
            leader = cluster.leader()
            followers = cluster.others(leader)
            names = [node.load(f"{node.name}.{round_}", topics=["a", "b"], ids=True, pause=0.0005, timeout=5) for node in followers]
            time.sleep(0.7)  # of load
            leader.kill()
            wait_for(lambda leader=leader: cluster.leader() is not leader, 5, "another leads")
            time.sleep(0.3)  # of load
            done = [node.load_done(name, stop=True) for node, name in zip(followers, names, strict=True)]
            print(f"\nround {round_}: {[(line['acked'], line['retried']) for line in done]}")
            leader.start()
            cluster.wait_whole()
        cluster.wait_settled()
        history = check_same(cluster.nodes)
        names = sorted(path.stem for path in tmp_path.glob("*.outcome"))
        counts = check_outcomes(history, cluster.nodes, names, ordered=False)
        assert counts["acked"] == sum(map(len, history.values()))
        assert counts["unknown"] == counts["refused"] == 0


def test_a_stalled_handler_stops_the_publishers_at_the_window_until_it_goes_on(tmp_path):
    with process_cluster(tmp_path, repl_window=64) as cluster:
        leader = cluster.leader()
        slow, other = cluster.others(leader)
        other.ask("publish", topic="t", data="first")
        cluster.wait_settled()
        slow.ask("stall", on=True)
        for node in (leader, other):
            node.load(topics=["t"], count=300, in_flight=300, timeout=1.5)
        for node in (leader, other):
            line = node.load_done()
            assert set(line["failed"]) == {"Overloaded"}
            assert f"slowest member, {slow.name}" in line["reasons"]["Overloaded"]
            assert line["worst"] < 3, "the deadline was kept"
        with pytest.raises(CommandFailed, match=f"Overloaded.*{slow.name}"):
            leader.ask("publish", topic="t", data="x", timeout=0.5)
        leader.ask("publish", topic="another", data="goes on")
        slow.ask("stall", on=False)
        wait_for(lambda: _published(leader, "t"), 10, "the window opens")
        cluster.wait_settled()
        counts = check_outcomes(check_same(cluster.nodes), cluster.nodes, [leader.name, other.name])
        assert 64 <= counts["acked"] <= 64 * 3
        assert counts["acked"] + counts["refused"] == 600


def test_the_death_of_a_stalled_member_opens_the_window(tmp_path):
    with process_cluster(tmp_path, repl_window=64) as cluster:
        leader = cluster.leader()
        slow, other = cluster.others(leader)
        other.ask("publish", topic="t", data="first")
        cluster.wait_settled()
        slow.ask("stall", on=True)
        other.load(topics=["t"], count=300, in_flight=300, timeout=1)
        assert other.load_done()["failed"].keys() == {"Overloaded"}
        slow.kill()
        took = wait_for(lambda: _published(other, "t"), 3, "the window opens")
        print(f"\nthe window opened {took:.1f} s after the slow member's death")
        slow.start()
        cluster.wait_whole()
        cluster.wait_settled()
        check_same(cluster.nodes)


def test_a_follower_that_stands_still_stops_the_publishers_for_a_lease_at_most(tmp_path):
    with process_cluster(tmp_path, repl_window=64) as cluster:
        leader = cluster.leader()
        frozen, other = cluster.others(leader)
        other.ask("publish", topic="t", data="first")
        cluster.wait_settled()
        frozen.signal(signal.SIGSTOP)
        other.load(topics=["t"], count=2000, in_flight=300, timeout=30)
        line = other.load_done()
        print(f"\nwith a frozen follower: {line}")
        assert line["acked"] == 2000
        assert line["worst"] < 2, "Raft notices it after a lease of half a second, gossip after five"
        frozen.signal(signal.SIGCONT)
        cluster.wait_whole()
        cluster.wait_settled()
        check_outcomes(check_same(cluster.nodes), cluster.nodes, [other.name])


def _published(node, topic):
    try:
        node.ask("publish", topic=topic, data="again", timeout=0.5)
    except CommandFailed as error:
        assert error.name == "Overloaded", error
        return False
    return True
