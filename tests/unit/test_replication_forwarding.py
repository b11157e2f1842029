"""Publishing at a follower: answers, order under refusals, broken links, back-pressure, garbage."""

from __future__ import annotations

import random
import threading
from types import SimpleNamespace

import pytest

from coterie.actors.errors import Indeterminate, InvalidRequest, NoQuorum, NotLeader, Overloaded
from coterie.actors.messages import Publish, Published
from coterie.actors.replication.all_acks import AllAcks
from coterie.actors.replication.forwarding import Forwarding
from coterie.actors.replication.limits import Limits
from coterie.actors.replication.messages import ForwardedBatch
from coterie.actors.replication.waiting import Waiting
from coterie.proto.forwarding import encode_forward
from coterie.proto.record_batch import encode_batch
from tests.unit.replication_support import actor_of, cluster, eventually

WAIT = 10.0


def ask(node, topic, data, **more):
    return node.publisher.ask(Publish(topic, data, **more), block=False)


def test_a_follower_gets_the_same_answers():
    with cluster("n1", "n2") as (_, n2, __):
        notes = n2.handle()
        assert ask(n2, "t", b"a").get(timeout=WAIT) == Published("t", 1, 1)
        futures = [ask(n2, topic, b"x", message_id=mid) for topic, mid in (("t", "i"), ("u", None), ("t", "i"), ("t", None))]
        found = [f.get(timeout=WAIT) for f in futures]
        assert [(p.topic, p.seq) for p in found] == [("t", 2), ("u", 1), ("t", 2), ("t", 3)]
        eventually(lambda: len(notes) == 4)
        assert ask(n2, "t", b"early", acks="leader").get(timeout=WAIT).seq == 0


def test_order_is_kept_between_many_refusals():
    random_ = random.Random(5)
    with cluster("n1", "n2", limits=Limits(window=64)) as (n1, n2, raft):
        notes = n1.handle()
        futures = []
        for n in range(600):
            if random_.random() < 0.02:
                raft.refuse = random_.randrange(1, 4)
            futures.append(ask(n2, "t", b"%d" % n))
            if n % 40 == 39:
                futures[-20].get(timeout=WAIT)
        assert [f.get(timeout=WAIT).seq for f in futures] == list(range(1, 601))
        eventually(lambda: len(notes) == 600)
        assert [data for _, _, data in notes] == [b"%d" % n for n in range(600)]


def test_a_node_that_does_not_lead_refuses_and_what_was_refused_waits_for_the_leader():
    with cluster("n1", "n2", leader="n1") as (n1, n2, raft):
        n1.topology("n2")  # n1 no longer leads; n2 does not know yet
        futures = [ask(n2, "t", b"%d" % n) for n in range(20)]
        eventually(lambda: len(n2.links.open_links) >= 1 and n2.links.open_links[0].sent)
        raft.leader = n2.publisher
        n2.topology("n2")
        assert [f.get(timeout=WAIT).seq for f in futures] == list(range(1, 21))


def test_after_one_refusal_the_rest_of_its_epoch_is_refused_too():
    with cluster("n1") as (n1, _):
        answers = []

        def forward(forward_id, topic, epoch):
            data = encode_forward(encode_batch(topic, 0, [b"x"]).data, False, epoch, 5.0)
            n1.publisher.tell(ForwardedBatch("s", forward_id, data, lambda *answer: answers.append(answer)))

        n1.topology("n9")
        forward(1, "t", 1)
        eventually(lambda: len(answers) == 1)
        n1.topology("n1")
        forward(2, "t", 1)
        forward(3, "other", 1)
        forward(4, "t", 2)
        eventually(lambda: len(answers) == 4)
        by_id = {forward_id: error for forward_id, _, error in answers}
        assert isinstance(by_id[1], NotLeader) and isinstance(by_id[2], NotLeader)
        assert by_id[3] is None and by_id[4] is None


def test_garbage_from_the_wire_is_answered_and_harms_nobody():
    with cluster("n1") as (n1, _):
        answers = []
        good = encode_forward(encode_batch("t", 0, [b"x"]).data, False, 1, 5.0)
        for n, data in enumerate(
            (b"", b"\x00" * 50, good[:-1], b"\x02" + good[1:], good + b"\x00", bytes(random.Random(1).randbytes(500)))
        ):
            n1.publisher.tell(ForwardedBatch("s", n, data, lambda *answer: answers.append(answer)))
        eventually(lambda: len(answers) == 6)
        assert all(isinstance(error, InvalidRequest) for _, _, error in answers)
        assert ask(n1, "t", b"x").get(timeout=WAIT).seq == 1


def test_a_broken_link_is_indeterminate_but_what_has_ids_goes_again():
    with cluster("n1", "n2") as (_, n2, __):
        n2.links.swallow = True
        plain = ask(n2, "t", b"plain")
        eventually(lambda: n2.links.open_links and n2.links.open_links[0].sent)
        safe = ask(n2, "u", b"safe", message_id="id")
        eventually(lambda: len(n2.links.open_links[0].sent) == 2)
        n2.links.swallow = False
        n2.links.open_links[0].cut()
        with pytest.raises(Indeterminate):
            plain.get(timeout=WAIT)
        assert safe.get(timeout=WAIT).seq == 1


def test_a_retry_over_a_new_link_is_published_once():
    with cluster("n1", "n2") as (n1, n2, raft):
        notes = n1.handle()
        raft.hold = True
        future = ask(n2, "t", b"pay", message_id="id")
        eventually(lambda: raft.held)
        n2.links.open_links[0].cut()
        raft.release()
        assert future.get(timeout=WAIT) == Published("t", 1, 1)
        ask(n2, "t", b"next").get(timeout=WAIT)
        eventually(lambda: len(notes) == 2)
        assert [data for _, _, data in notes] == [b"pay", b"next"]


def test_no_way_to_the_leader_is_no_quorum():
    with cluster("n1", "n2") as (_, n2, __):
        n2.links.down.add("n1")
        with pytest.raises(NoQuorum) as caught:
            ask(n2, "t", b"x", timeout=0.2).get(timeout=WAIT)
        assert "n1" in str(caught.value)


def test_sent_and_unanswered_is_indeterminate_at_the_deadline():
    with cluster("n1", "n2") as (_, n2, __):
        n2.links.swallow = True
        with pytest.raises(Indeterminate):
            ask(n2, "t", b"x", timeout=0.2).get(timeout=WAIT)


def test_a_shut_window_reaches_the_followers_publisher_as_overloaded():
    with cluster("n1", "n2", limits=Limits(window=3)) as (n1, n2, _):
        gate = threading.Event()
        n1.handle(lambda topic, data, record: gate.wait(WAIT) and None)
        n2.handle()
        first = [ask(n2, "t", b"x", timeout=0.6) for _ in range(3)]
        assert [f.get(timeout=WAIT).seq for f in first] == [1, 2, 3]
        over = [ask(n2, "t", b"x", timeout=0.6) for _ in range(3)]
        assert ask(n2, "other", b"x").get(timeout=WAIT).seq == 1
        for future in over:
            with pytest.raises(Overloaded) as caught:
                future.get(timeout=WAIT)
        assert "repl_window=3" in str(caught.value) and "n1" in str(caught.value)
        gate.set()
        # A publisher whose time-outs are all short gets through again: only what was itself refused is not sent a second time at the last moment.
        assert ask(n2, "t", b"x", timeout=0.9).get(timeout=WAIT).seq == 4


def test_when_leadership_moves_nothing_is_lost_or_overtaken():
    with cluster("n1", "n2", "n3") as (n1, n2, n3, raft):
        notes = n1.handle()
        raft.hold = True
        futures = [ask(n3, "t", b"%d" % n) for n in range(10)]
        eventually(lambda: raft.held)
        futures += [ask(n3, "t", b"%d" % n) for n in range(10, 20)]
        for node in (n2, n3):
            node.topology("n2", term=2)
        raft.lose(NotLeader("n2"))
        n1.topology("n2", term=2)
        raft.leader = n2.publisher
        raft.hold = False
        raft.log.clear()
        assert [f.get(timeout=WAIT).seq for f in futures] == list(range(1, 21))
        eventually(lambda: [data for _, _, data in notes] == [b"%d" % n for n in range(20)])


def test_a_deposed_leader_forwards_nothing_younger_before_its_own_proposals_have_their_outcome():
    with cluster("n1", "n2") as (n1, n2, raft):
        notes = n2.handle()
        raft.hold = True
        futures = [ask(n1, "t", b"%d" % n) for n in range(5)]
        eventually(lambda: raft.held)
        futures += [ask(n1, "t", b"%d" % n) for n in range(5, 10)]
        for node in (n1, n2):
            node.topology("n2", term=2)
        n1.view()
        assert n1.links.open_links == []
        raft.lose(NotLeader("n2"))
        raft.leader = n2.publisher
        raft.hold = False
        raft.log.clear()
        assert [f.get(timeout=WAIT).seq for f in futures] == list(range(1, 11))
        eventually(lambda: [data for _, _, data in notes] == [b"%d" % n for n in range(10)])


def test_a_leader_that_falls_silent_is_waited_for_only_so_long():
    with cluster("n1", "n2", "n3") as (n1, n2, n3, raft):
        n3.links.swallow = True
        lost = ask(n3, "t", b"lost", timeout=30)
        eventually(lambda: n3.links.open_links and n3.links.open_links[0].sent)
        n3.links.swallow = False
        raft.leader = n2.publisher
        for node in (n1, n2, n3):
            node.topology("n2", term=2)
        after = ask(n3, "t", b"after")
        with pytest.raises(Indeterminate):
            lost.get(timeout=WAIT)
        assert after.get(timeout=WAIT).seq == 1


@pytest.mark.parametrize(("answered", "replaced", "given_up"), [(None, 11.4, 11.65), (None, 10.3, 11.0), (11.3, 11.4, 12.3)])
def test_who_had_its_patience_before_it_was_replaced_is_not_waited_for_once_more(answered, replaced, given_up):
    """A record goes out at 10 s, and another at 10.1 s that stays without an answer; times are seconds."""
    opened, failed = [], []
    waiting = Waiting(1 << 20, 60.0, 100, 1 << 20)

    def open_link(leader, link_id):
        opened.append(leader)
        return SimpleNamespace(send=lambda *_: True, close=lambda: None)

    forwarding = Forwarding(open_link, waiting, 64, 1 << 20, lambda count, error: failed.append(error), AllAcks("n3", print, 100))
    forwarding.follow("n1", 9.0)
    for now in (10.0, 10.1):
        waiting.add(Publish("t", b"x"), None)
        forwarding.forward(now, 0.0)
    if answered is not None:
        forwarding.replied(1, 1, None, Indeterminate("?"), answered)
        failed.clear()
    forwarding.follow("n2", replaced)
    for now, over in ((given_up - 0.01, False), (given_up + 0.01, True)):
        forwarding.forward(now, 0.0)
        assert (forwarding.drained, bool(failed)) == (over, over)
    waiting.add(Publish("t", b"y"), None)
    forwarding.forward(given_up + 0.1, 0.0)
    assert opened == ["n1", "n2"]


def test_a_session_that_is_over_leaves_nothing_behind():
    with cluster("n1", "n2") as (n1, n2, raft):
        raft.hold = True
        ask(n2, "t", b"1")
        eventually(lambda: raft.held)
        n2.links.open_links[0].cut()
        n1.view()
        raft.lose(NotLeader())
        n1.view()
        assert actor_of(n1.publisher)._reception._refused == {}
