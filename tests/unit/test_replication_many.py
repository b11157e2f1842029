"""`PublishMany`: all records of a call or none, in one entry, with one answer; at the leader and at a follower."""

from __future__ import annotations

import random
import threading

import pytest

from coterie.actors.errors import Indeterminate, InvalidRequest, NoQuorum, Overloaded, PayloadTooLarge
from coterie.actors.messages import Publish, PublishedMany, PublishMany
from coterie.actors.replication.limits import Limits
from coterie.proto.record_batch import MAX_RECORDS, decode_entry
from tests.unit.replication_support import cluster, eventually

WAIT = 10.0


def ask(node, topic, data, **more):
    return node.publisher.ask(PublishMany(topic, data, **more), block=False)


def one(node, topic, data, **more):
    return node.publisher.ask(Publish(topic, data, **more), block=False)


@pytest.mark.parametrize("at", ["leader", "follower"])
def test_the_records_of_a_call_stand_side_by_side_in_one_entry_and_have_one_answer(at):
    with cluster("n1", "n2") as (n1, n2, raft):
        seen = [node.handle() for node in (n1, n2)]
        node = n1 if at == "leader" else n2
        assert one(node, "t", b"first").get(timeout=WAIT).seq == 1
        answer = ask(node, "t", [b"a", b"b", bytearray(b"c")]).get(timeout=WAIT)
        assert answer == PublishedMany("t", 2, 3, 2)
        assert (answer.first_seq, answer.last_seq) == (2, 4)
        assert [batch.records for batch in decode_entry(raft.log[1].data)] == [[b"a", b"b", b"c"]]
        assert ask(node, "other", (b"x",)).get(timeout=WAIT) == PublishedMany("other", 1, 1, 3)
        for notes in seen:
            eventually(lambda notes=notes: len(notes) == 5)
            assert [note for note in notes if note[0] == "t"] == [("t", 1, b"first"), ("t", 2, b"a"), ("t", 3, b"b"), ("t", 4, b"c")]
            assert ("other", 1, b"x") in notes, "between two topics there is no order"


@pytest.mark.parametrize("at", ["leader", "follower"])
def test_calls_among_single_publishes_stay_whole_and_in_order_over_refusals(at):
    random_ = random.Random(11)
    with cluster("n1", "n2", limits=Limits(window=64, entry_bytes=4096)) as (n1, n2, raft):
        notes = n1.handle()
        node = n1 if at == "leader" else n2
        sent, futures = [], []
        for n in range(300):
            if random_.random() < 0.03:
                raft.refuse = random_.randrange(1, 4)
            if random_.random() < 0.5:
                data = [b"%d-%d" % (n, m) for m in range(random_.randrange(1, 100))]
                futures.append((ask(node, "t", data), len(sent) + 1, len(data)))
                sent += data
            else:
                futures.append((one(node, "t", b"%d" % n), len(sent) + 1, 1))
                sent.append(b"%d" % n)
            if n % 40 == 39:
                futures[-20][0].get(timeout=WAIT)
        at_index = {}
        for future, first, count in futures:
            found = future.get(timeout=WAIT)
            assert getattr(found, "first_seq", None) or found.seq == first
            at_index.setdefault(found.index, []).append((first, count))
        eventually(lambda: len(notes) == len(sent))
        assert [data for _, _, data in notes] == sent
        for index, parts in at_index.items():
            (batch,) = decode_entry(raft.log[index - 1].data)
            assert len(batch.records) == sum(count for _, count in parts)


def test_a_call_larger_than_the_window_goes_when_nothing_else_of_its_topic_is_out():
    with cluster("n1", limits=Limits(window=8)) as (n1, _):
        gate = threading.Event()
        n1.handle(lambda topic, data, record: gate.wait(WAIT) and None)
        before = one(n1, "t", b"before").get(timeout=WAIT)
        large, after = ask(n1, "t", [b"x"] * 50), one(n1, "t", b"after")
        assert one(n1, "u", b"x").get(timeout=WAIT).seq == 1
        assert not large.done and before.seq == 1
        gate.set()
        assert large.get(timeout=WAIT).first_seq == 2
        assert after.get(timeout=WAIT).seq == 52


def test_what_is_wrong_with_a_call_is_said_and_nothing_of_it_is_published():
    with cluster("n1", limits=Limits(max_payload=100, entry_bytes=1000)) as (n1, raft):
        wrong = [
            (ask(n1, "t", []), InvalidRequest, "give 1 to 65536 records"),
            (ask(n1, "t", [b""] * (MAX_RECORDS + 1)), InvalidRequest, "data=65537 records"),
            (ask(n1, "t", b"bytes"), InvalidRequest, "in a list"),
            (ask(n1, "t", None), InvalidRequest, "in a list"),
            (ask(n1, "t", [b"x", "text"]), InvalidRequest, "give bytes, not str"),
            (ask(n1, "", [b"x"]), InvalidRequest, "topic"),
            (ask(n1, 7, [b"x"]), InvalidRequest, "topic"),
            (ask(n1, "t", [b"x"], acks="some"), InvalidRequest, "acks"),
            (ask(n1, "t", [b"x"], timeout=0), InvalidRequest, "timeout"),
            (ask(n1, "t", [b"x", b"x" * 101]), PayloadTooLarge, "max_payload=100"),
            (ask(n1, "t", [b"x" * 100] * 11), PayloadTooLarge, "11 records of 1100 bytes"),
        ]
        for future, error, words in wrong:
            with pytest.raises(error, match=words):
                future.get(timeout=WAIT)
        n1.publisher.tell(PublishMany("t", ["told"]))
        assert ask(n1, "t", [b"x" * 100] * 10).get(timeout=WAIT) == PublishedMany("t", 1, 10, 1)
        assert len(raft.log) == 1
        assert n1.view().counters["told_InvalidRequest"] == 1


def test_the_callers_list_may_change_after_the_call():
    data = [b"a", b"b"]
    message = PublishMany("t", data)
    data.clear()
    assert message.data == [b"a", b"b"]


def test_acks_leader_answers_at_the_append_without_places():
    with cluster("n1", "n2") as (n1, n2, raft):
        raft.hold = True
        futures = [ask(node, "t", [b"1", b"2"], acks="leader") for node in (n1, n2)]
        for future in futures:
            early = future.get(timeout=WAIT)
            assert (early.first_seq, early.last_seq, early.count) == (0, 0, 2)
        raft.release()
        assert ask(n1, "t", [b"3"]).get(timeout=WAIT).first_seq == 5


def test_a_full_queue_refuses_the_whole_call():
    with cluster("n1", leader="", limits=Limits(waiting_records=3)) as (n1, _):
        waits, refused = ask(n1, "t", [b"x"] * 2, timeout=30), ask(n1, "t", [b"x"] * 2, timeout=30)
        with pytest.raises(Overloaded):
            refused.get(timeout=WAIT)
        assert not waits.done


def test_a_call_ends_by_its_deadline_and_a_told_one_counts_its_records():
    with cluster("n1", leader="") as (n1, _):
        n1.publisher.tell(PublishMany("t", [b"1", b"2", b"3"], timeout=0.1))
        with pytest.raises(NoQuorum):
            ask(n1, "t", [b"x"] * 5, timeout=0.15).get(timeout=WAIT)
        eventually(lambda: n1.view().counters.get("told_NoQuorum") == 3)


def test_a_lost_proposal_is_indeterminate():
    with cluster("n1") as (n1, raft):
        raft.hold = True
        future = ask(n1, "t", [b"?"] * 3)
        eventually(lambda: raft.held)
        raft.lose(Indeterminate("deposed"))
        with pytest.raises(Indeterminate):
            future.get(timeout=WAIT)


def test_a_broken_link_makes_a_call_indeterminate_and_it_is_not_sent_again():
    with cluster("n1", "n2") as (_, n2, raft):
        n2.links.swallow = True
        future = ask(n2, "t", [b"?"] * 3)
        eventually(lambda: n2.links.open_links and n2.links.open_links[0].sent)
        n2.links.swallow = False
        n2.links.open_links[0].on_closed(None)
        with pytest.raises(Indeterminate):
            future.get(timeout=WAIT)
        assert one(n2, "t", b"next").get(timeout=WAIT).seq == 1
        assert len(raft.log) == 1


def test_on_stop_every_pending_call_fails():
    with cluster("n1", limits=Limits(entries=1)) as (n1, raft):
        raft.hold = True
        proposed = ask(n1, "t", [b"1", b"2"])
        eventually(lambda: raft.held)
        waits = ask(n1, "t", [b"3"])
        n1.view()
        n1.stop()
        with pytest.raises(Indeterminate):
            proposed.get(timeout=WAIT)
        with pytest.raises(NoQuorum):
            waits.get(timeout=WAIT)


def test_a_future_that_its_owner_resolved_costs_the_others_nothing():
    with cluster("n1") as (n1, raft):
        raft.hold = True
        futures = [ask(n1, "t", [b"1", b"2"]), ask(n1, "t", [b"3"])]
        futures[0].set(None)
        raft.release()
        assert futures[1].get(timeout=WAIT).first_seq == 3
        eventually(lambda: n1.view().counters.get("answers_lost") == 1)
