"""The publisher between a fake Raft and real delivery and buffer actors: answers, order, back-pressure, deadlines."""

from __future__ import annotations

import threading

import pykka
import pytest

from coterie.actors.errors import Indeterminate, InvalidRequest, NoQuorum, NotLeader, Overloaded, PayloadTooLarge
from coterie.actors.messages import Publish, Published
from coterie.actors.replication.limits import Limits
from coterie.actors.replication.messages import AcksArrived, PeerAcks
from coterie.actors.replication.metrics import NoMetrics
from coterie.actors.replication.outcomes import TELL_BYTES, TELL_ENTRIES
from coterie.actors.room_messages import CommandsUpTo, Committed, GetReplicationView, Topology
from coterie.proto.raft_messages import COMMAND, NOOP, Entry
from coterie.proto.record_batch import encode_batch, encode_entry
from tests.unit.replication_support import cluster, eventually

WAIT = 10.0


def ask(node, topic, data, **more):
    return node.publisher.ask(Publish(topic, data, **more), block=False)


def test_a_publish_is_answered_with_its_place_and_reaches_every_handler():
    with cluster("n1", "n2", "n3") as (n1, n2, n3, _):
        seen = [node.handle() for node in (n1, n2, n3)]
        assert ask(n1, "orders", b"a").get(timeout=WAIT) == Published("orders", 1, 1)
        places = [ask(n1, topic, b"x").get(timeout=WAIT) for topic in ("orders", "other", "orders")]
        assert [(p.topic, p.seq) for p in places] == [("orders", 2), ("other", 1), ("orders", 3)]
        assert [p.index for p in places] == [2, 3, 4]
        for notes in seen:
            eventually(lambda notes=notes: len(notes) == 4)
            assert sorted(notes) == [("orders", 1, b"a"), ("orders", 2, b"x"), ("orders", 3, b"x"), ("other", 1, b"x")]
        eventually(lambda: n1.view().topics[0].acked == {"n1": 3, "n2": 3, "n3": 3})


def test_many_at_once_share_entries_and_keep_their_order():
    with cluster("n1") as (n1, raft):
        notes = n1.handle()
        raft.hold = True
        futures = [ask(n1, "t", b"%d" % n) for n in range(500)]
        eventually(lambda: raft.log)
        raft.release()
        assert [f.get(timeout=WAIT).seq for f in futures] == list(range(1, 501))
        eventually(lambda: len(notes) == 500)
        assert [data for _, _, data in notes] == [b"%d" % n for n in range(500)]
        assert len(raft.log) < 50


def test_a_retry_with_the_same_message_id_gets_the_first_ones_place():
    with cluster("n1") as (n1, _):
        notes = n1.handle()
        first = ask(n1, "t", b"pay", message_id="order-7").get(timeout=WAIT)
        burst = [ask(n1, "t", b"pay", message_id="order-7"), ask(n1, "t", b"next"), ask(n1, "t", b"pay", message_id="order-7")]
        again, after, third = [f.get(timeout=WAIT) for f in burst]
        assert again == third == first and after.seq == 2
        eventually(lambda: len(notes) == 2)
        assert [data for _, _, data in notes] == [b"pay", b"next"]


def test_headers_reach_the_handler():
    with cluster("n1") as (n1, _):
        got = []
        n1.handle(lambda topic, data, record: got.append((record.headers, record.index, record.attempt)))
        ask(n1, "t", b"x", headers={"trace": "1"}).get(timeout=WAIT)
        eventually(lambda: got)
        assert got == [({"trace": "1"}, 1, 1)]


def test_a_bad_publish_harms_nobody_else():
    with cluster("n1") as (n1, _):
        futures = [ask(n1, "t", b"1"), ask(n1, "", b"x"), ask(n1, "t", "text"), ask(n1, "t", b"x" * (2 << 20)), ask(n1, "t", b"2")]
        n1.publisher.tell(Publish("", b"told"))
        assert futures[0].get(timeout=WAIT).seq == 1 and futures[4].get(timeout=WAIT).seq == 2
        for future, error in zip(futures[1:4], (InvalidRequest, InvalidRequest, PayloadTooLarge), strict=True):
            with pytest.raises(error):
                future.get(timeout=WAIT)
        eventually(lambda: n1.view().counters.get("told_InvalidRequest") == 1)


def test_acks_leader_answers_at_the_append_without_a_place():
    with cluster("n1") as (n1, raft):
        raft.hold = True
        mixed = [ask(n1, "t", b"1"), ask(n1, "t", b"2", acks="leader"), ask(n1, "t", b"3")]
        early = mixed[1].get(timeout=WAIT)
        assert early.seq == 0 and early.index >= 1
        assert not mixed[0].done and not mixed[2].done
        raft.release()
        assert [mixed[0].get(timeout=WAIT).seq, mixed[2].get(timeout=WAIT).seq] == [1, 3]


def test_refused_proposals_go_again_in_order():
    with cluster("n1") as (n1, raft):
        notes = n1.handle()
        raft.refuse = 3
        futures = [ask(n1, "t", b"%d" % n) for n in range(200)]
        assert [f.get(timeout=WAIT).seq for f in futures] == list(range(1, 201))
        eventually(lambda: len(notes) == 200)
        assert [data for _, _, data in notes] == [b"%d" % n for n in range(200)]


def test_a_lost_proposal_is_indeterminate_and_may_still_be_delivered():
    with cluster("n1") as (n1, raft):
        notes = n1.handle()
        raft.hold = True
        future = ask(n1, "t", b"?")
        eventually(lambda: raft.held)
        entry = raft.held[0][0]
        raft.lose(Indeterminate("deposed"))
        with pytest.raises(Indeterminate):
            future.get(timeout=WAIT)
        n1.publisher.tell(Committed([(entry, None)]))
        eventually(lambda: notes == [("t", 1, b"?")])


def test_who_waits_for_the_commands_up_to_an_entry_is_told_when_it_is_applied_or_that_it_will_not_be():
    with cluster("n1") as (n1, _):
        soon, never = (n1.publisher.ask(CommandsUpTo(index), block=False) for index in (2, 3))
        n1.publisher.tell(Committed([(Entry(1, 1, NOOP, None), None)]))
        assert not soon.done
        n1.publisher.tell(Committed([(Entry(2, 1, NOOP, None), None)]))
        assert soon.get(timeout=WAIT) == 0
        assert n1.publisher.ask(CommandsUpTo(1), timeout=WAIT) == 0
    with pytest.raises(NotLeader):
        never.get(timeout=WAIT)


def test_raft_hears_how_far_the_state_machine_is_well_before_its_window_ends():
    with cluster("n1") as (n1, raft):
        for first in range(1, 2 * TELL_ENTRIES, 128):
            n1.publisher.tell(Committed([(Entry(index, 1, NOOP, None), None) for index in range(first, first + 128)]))
        eventually(lambda: raft.applied == [TELL_ENTRIES, 2 * TELL_ENTRIES])
        large = encode_entry([encode_batch("t", 0, [b"x" * TELL_BYTES]).data])
        n1.publisher.tell(Committed([(Entry(2 * TELL_ENTRIES + 1, 1, COMMAND, large), None)]))
        eventually(lambda: raft.applied[2:] == [2 * TELL_ENTRIES + 1])


@pytest.mark.parametrize(
    "data",
    [b'{"Op":"AddNode","Payload":{}}', b"\x00binary", b"\x92\x01", b"\x92\x07\x93\xa1t\x00\x91\xc4\x00", None, b""],
    ids=["roster", "unknown", "cut", "newer", "none", "empty"],
)
def test_an_entry_of_another_kind_is_skipped_and_counted(data):
    with cluster("n1") as (n1, _):
        batch = encode_entry([encode_batch("t", 0, [b"x"]).data])
        n1.publisher.tell(
            Committed([(Entry(1, 1, NOOP, None), None), (Entry(2, 1, COMMAND, data), None), (Entry(3, 1, COMMAND, batch), None)])
        )
        view = eventually(lambda: (v := n1.view()).applied_index == 3 and v)
        assert [(t.topic, t.seq) for t in view.topics] == [("t", 1)]
        assert sum(n for reason, n in view.counters.items() if reason.startswith("entries_")) == (1 if data else 0)


# -- deadlines ------------------------------------------------------------------------------------------------------------


def test_without_a_leader_a_publish_ends_with_no_quorum_at_its_deadline():
    with cluster("n1", leader="") as (n1, _):
        futures = [ask(n1, "t", b"x", timeout=0.15), ask(n1, "t", b"x", timeout=0.3)]
        n1.publisher.tell(Publish("t", b"told", timeout=0.1))
        for future in futures:
            with pytest.raises(NoQuorum):
                future.get(timeout=WAIT)
        eventually(lambda: n1.view().counters.get("told_NoQuorum") == 1)
        assert n1.view().waiting == 0


def test_a_publish_that_waits_for_a_leader_goes_when_there_is_one():
    with cluster("n1", leader="") as (n1, raft):
        future = ask(n1, "t", b"x")
        assert n1.view().waiting == 1
        raft.leader = n1.publisher
        n1.topology("n1")
        assert future.get(timeout=WAIT).seq == 1


def test_a_proposed_publish_without_a_commit_is_indeterminate_what_waits_behind_it_is_not_done():
    with cluster("n1", limits=Limits(entries=1)) as (n1, raft):
        raft.hold = True
        first = ask(n1, "t", b"1", timeout=0.6)
        eventually(lambda: raft.held)
        behind = ask(n1, "t", b"2", timeout=0.2)
        with pytest.raises(NoQuorum):
            behind.get(timeout=WAIT)
        with pytest.raises(Indeterminate):
            first.get(timeout=WAIT)
        raft.release()
        assert ask(n1, "t", b"3").get(timeout=WAIT).seq == 2


def test_proposals_that_raft_forgot_stop_nobody_for_longer_than_their_deadline():
    with cluster("n1", limits=Limits(entries=1)) as (n1, raft):
        raft.hold = True
        lost = ask(n1, "t", b"1", timeout=0.1)
        eventually(lambda: raft.held)
        with raft.lock:
            raft.held.clear()
            raft.log.clear()
            raft.hold = False
        with pytest.raises(Indeterminate):
            lost.get(timeout=WAIT)
        assert ask(n1, "t", b"2").get(timeout=WAIT).seq == 1


def test_a_full_window_ends_with_overloaded_naming_topic_window_and_the_slowest():
    with cluster("n1", "n2", limits=Limits(window=5)) as (n1, n2, _):
        n1.handle()
        gate = threading.Event()
        n2.handle(lambda topic, data, record: gate.wait(WAIT) and None)
        ask(n1, "warm", b"").get(timeout=WAIT)
        eventually(lambda: "n2" in n1.view().topics[0].acked)
        futures = [ask(n1, "t", b"%d" % n, timeout=0.4) for n in range(8)]
        assert [f.get(timeout=WAIT).seq for f in futures[:5]] == [1, 2, 3, 4, 5]
        for future in futures[5:]:
            with pytest.raises(Overloaded) as caught:
                future.get(timeout=WAIT)
        text = str(caught.value)
        assert "'t'" in text and "repl_window=5" in text and "n2, has acknowledged up to seq 0" in text
        gate.set()
        assert [ask(n1, "t", b"again").get(timeout=WAIT).seq for _ in range(3)] == [6, 7, 8]


def test_a_member_that_gossip_takes_away_opens_the_window():
    with cluster("n1", "n2", limits=Limits(window=2)) as (n1, n2, _):
        n1.handle()
        gate = threading.Event()
        n2.handle(lambda topic, data, record: gate.wait(WAIT) and None)
        eventually(lambda: n1.room.subscribers.acks_arrived(AcksArrived("n2", {}, True)))
        futures = [ask(n1, "t", b"x") for _ in range(6)]
        futures[1].get(timeout=WAIT)
        assert not futures[5].done
        n1.topology("n1", live=["n1"])
        assert futures[5].get(timeout=WAIT).seq == 6
        gate.set()


def test_one_topic_whose_window_is_shut_does_not_stop_another():
    with cluster("n1", limits=Limits(window=2)) as (n1, _):
        gate = threading.Event()
        n1.handle(lambda topic, data, record: gate.wait(WAIT) and None)
        blocked = [ask(n1, "slow", b"x") for _ in range(5)]
        assert blocked[1].get(timeout=WAIT).seq == 2
        assert ask(n1, "other", b"x").get(timeout=WAIT).seq == 1
        assert not blocked[4].done
        gate.set()
        assert blocked[4].get(timeout=WAIT).seq == 5


def test_a_full_queue_refuses_at_once():
    with cluster("n1", leader="", limits=Limits(waiting_records=3)) as (n1, _):
        futures = [ask(n1, "t", b"x", timeout=30) for _ in range(4)]
        with pytest.raises(Overloaded):
            futures[3].get(timeout=WAIT)
        assert not futures[0].done


def test_on_stop_every_pending_publish_fails():
    with cluster("n1", limits=Limits(entries=1)) as (n1, raft):
        raft.hold = True
        proposed = ask(n1, "t", b"1")
        eventually(lambda: raft.held)
        waits = ask(n1, "t", b"2")
        n1.view()
        n1.stop()
        with pytest.raises(Indeterminate):
            proposed.get(timeout=WAIT)
        with pytest.raises(NoQuorum):
            waits.get(timeout=WAIT)
        with pytest.raises(pykka.ActorDeadError):
            ask(n1, "t", b"3").get(timeout=WAIT)


def test_a_future_that_its_owner_resolved_costs_the_others_nothing():
    with cluster("n1") as (n1, raft):
        raft.hold = True
        mine, other = ask(n1, "t", b"1"), ask(n1, "t", b"2")
        eventually(lambda: raft.held)
        mine.set("given up")
        raft.release()
        assert other.get(timeout=WAIT).seq == 2
        assert n1.view().counters["answers_lost"] == 1


def test_sequences_go_on_across_leaders():
    with cluster("n1", "n2") as (n1, n2, raft):
        ask(n1, "t", b"1").get(timeout=WAIT)
        raft.leader = n2.publisher
        for node in (n1, n2):
            node.topology("n2", term=2)
        assert ask(n2, "t", b"2").get(timeout=WAIT).seq == 2


def test_not_leader_names_the_leader():
    assert "n2" in str(NotLeader("n2", "host:1"))


def test_a_leader_again_proposes_nothing_younger_before_the_proposals_of_its_earlier_leadership_have_their_outcome():
    with cluster("n1") as (n1, raft):
        notes = n1.handle()
        raft.hold = True
        futures = [ask(n1, "t", b"older")]
        eventually(lambda: raft.held)
        n1.topology("n2", live=["n1"], term=2)
        n1.topology("n1", term=3)
        futures.append(ask(n1, "t", b"younger"))
        n1.view()
        raft.lose(NotLeader())
        raft.release()
        assert [future.get(timeout=WAIT).seq for future in futures] == [1, 2]
        eventually(lambda: [data for _, _, data in notes] == [b"older", b"younger"])


def test_what_a_told_publish_holds_is_not_logged(caplog):
    with cluster("n1") as (n1, _):
        n1.publisher.tell(Publish("t", "the-payload"))
        eventually(lambda: n1.view().counters.get("told_InvalidRequest") == 1)
        assert "InvalidRequest" in caplog.text and "the-payload" not in caplog.text


class Told(NoMetrics):
    """What the metrics are told of members; they listen while the node leads."""

    def __init__(self, leads=True):
        self.leads, self.early = leads, 0
        self.counted = 0
        self.acks = {}
        self.lags = {}

    def acked(self, node, topic, n, seq):
        if not self.leads:
            self.early += 1
            return
        self.counted += n
        self.acks[node, topic] = seq

    def lag(self, node, topic, n):
        self.lags[node, topic] = n


def test_a_new_leader_counts_no_acknowledgement_again_and_shows_who_is_behind_though_nobody_publishes():
    told, gate = Told(), threading.Event()
    with cluster("n1", "n2", metrics=told) as (n1, n2, raft):
        n1.handle()
        n2.handle(lambda topic, data, record: topic == "t" and gate.wait(WAIT) and None)
        for topic in "uttttt":
            ask(n1, topic, b"x").get(timeout=WAIT)
        acks = {("n1", "u"): 1, ("n2", "u"): 1, ("n1", "t"): 5, ("n2", "t"): 0}
        lags = {("n1", "u"): 0, ("n2", "u"): 0, ("n1", "t"): 0, ("n2", "t"): 5}
        eventually(lambda: (told.acks, told.lags) == (acks, lags))
        assert told.counted == 7
        told.__init__(leads=False)
        raft.leader = n2.publisher
        for node in (n1, n2):  # elected, but nothing of its leadership is committed yet: it hears itself already
            node.publisher.tell(Topology(term=2, leader_id="n2", leads=False, in_quorum=True, live=frozenset({"n1", "n2"})))
        eventually(lambda: told.early)
        told.leads = True
        for node in (n1, n2):
            node.topology("n2", term=2)
        eventually(lambda: (told.acks, told.lags) == (acks, lags))
        assert told.counted == 0
        gate.set()


def test_who_speaks_when_gossip_has_given_it_up_already_is_not_shown():
    told = Told()
    with cluster("n1", "n2", metrics=told) as (n1, _n2, _):
        n1.handle()
        n1.topology("n1", live=["n1"])
        n1.publisher.tell(PeerAcks("n2", {"t": 0}, True))
        ask(n1, "t", b"x").get(timeout=WAIT)
        eventually(lambda: told.lags.get(("n1", "t")) == 0)
        assert not [node for node, _ in (*told.lags, *told.acks) if node == "n2"]
        n1.topology("n1")
        eventually(lambda: ("n2", "t") in told.lags)


def test_a_view_has_no_more_topics_than_it_was_asked_for_and_says_how_many_there_are():
    with cluster("n1") as (n1, _):
        n1.handle()
        for topic in "dbca":
            ask(n1, topic, b"x").get(timeout=WAIT)
        eventually(lambda: all(row.delivered == 1 for row in n1.view().topics))
        for most, topics, left_out in ((None, "abcd", 0), (4, "abcd", 0), (3, "abc", 1), (0, "", 4)):
            view = n1.publisher.ask(GetReplicationView(most), timeout=WAIT)
            assert ("".join(row.topic for row in view.topics), view.left_out, view.applied_index) == (topics, left_out, 4)
