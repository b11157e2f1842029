"""acks="all": who is waited for, how long, and what the error says; both ends as cores against a slow, obvious model, and between real rooms."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.actors.errors import CoterieError, Indeterminate, InvalidRequest, NotDelivered, NotLeader, Overloaded
from coterie.actors.future import LightFuture
from coterie.actors.messages import Publish, Published, PublishedMany, PublishMany
from coterie.actors.replication import all_acks
from coterie.actors.replication.all_acks import AckReports, AllAcks
from coterie.actors.replication.answers import Place
from coterie.actors.replication.limits import Limits
from coterie.actors.replication.messages import ForwardedBatch
from coterie.actors.replication.packing import Chunk
from coterie.proto.errors import WireError
from coterie.proto.forwarding import decode_acked, decode_question, encode_acked, encode_question
from tests.unit.replication_support import actor_of, cluster, eventually

WAIT = 10.0


def ask(node, topic, data, **more):
    return node.publisher.ask(Publish(topic, data, "all", **more), block=False)


def held_by(node):
    return actor_of(node.publisher)._all.records


def failed(future):
    with pytest.raises(CoterieError) as caught:
        future.get(timeout=WAIT)
    return caught.value


class Gate:
    """A handler's `behave` that stands until it is opened."""

    def __init__(self):
        self.entered, self.open = threading.Event(), threading.Event()

    def __call__(self, topic, data, record):
        self.entered.set()
        assert self.open.wait(WAIT)


# -- between rooms ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [0, 1])
def test_it_is_answered_when_the_slowest_handler_has_had_it_wherever_it_is_asked(at):
    with cluster("n1", "n2", "n3") as (*nodes, _):
        gate = Gate()
        seen = [node.handle(gate if node.name == "n3" else None) for node in nodes]
        one = ask(nodes[at], "t", b"1")
        many = nodes[at].publisher.ask(PublishMany("t", [b"2", b"3"], "all"), block=False)
        eventually(lambda: len(seen[0]) == len(seen[1]) == 3 and gate.entered.is_set())
        assert nodes[at].publisher.ask(Publish("other", b"x"), timeout=WAIT).seq == 1, "the others do not wait"
        assert not one.done and not many.done
        gate.open.set()
        assert one.get(timeout=WAIT) == Published("t", 1, 1)
        found = many.get(timeout=WAIT)
        assert found == PublishedMany("t", 2, 2, found.index)
        assert [data for _, _, data in seen[2] if data != b"x"] == [b"1", b"2", b"3"]


def test_a_node_without_a_handler_acknowledges_what_it_has_stored():
    with cluster("n1", "n2") as (n1, n2, _):
        n1.handle()
        assert ask(n2, "t", b"x").get(timeout=WAIT) == Published("t", 1, 1)


@pytest.mark.parametrize("at", [0, 1])
def test_at_the_deadline_the_error_says_that_it_is_published_and_who_is_missing(at):
    with cluster("n1", "n2", "n3") as (*nodes, _):
        gate = Gate()
        for node in nodes:
            node.handle(gate if node.name == "n3" else None)
        one, many = ask(nodes[at], "t", b"1", timeout=0.5), nodes[at].publisher.ask(PublishMany("t", [b"2", b"3"], "all", 0.5), block=False)
        error = failed(one)
        assert isinstance(error, NotDelivered) and not isinstance(error, Indeterminate)
        assert (error.topic, error.seq, error.index, error.missing) == ("t", 1, 1, ("n3",))
        assert "seq 1 is published (log index 1), but not known to be delivered on n3" in str(error)
        error = failed(many)
        assert (error.first_seq, error.last_seq, error.missing) == (2, 3, ("n3",))
        gate.open.set()
        assert ask(nodes[at], "t", b"4").get(timeout=WAIT).seq == 4


def test_each_record_of_a_burst_hears_of_its_own_place():
    with cluster("n1", "n2") as (n1, n2, _):
        gate = Gate()
        n2.handle(gate)
        first = ask(n1, "t", b"a", message_id="id", timeout=0.4)
        assert failed(first).seq == 1
        burst = [ask(n1, "t", b"b", timeout=0.4), ask(n1, "t", b"a", message_id="id", timeout=0.4), ask(n1, "t", b"c", timeout=0.4)]
        assert [failed(future).seq for future in burst] == [2, 1, 3]
        gate.open.set()
        again = ask(n1, "t", b"a", message_id="id")
        assert again.get(timeout=WAIT) == Published("t", 1, 1)


@pytest.mark.parametrize("at", [0, 1])
def test_who_fails_meanwhile_is_let_go_and_who_comes_later_is_not_waited_for(at):
    with cluster("n1", "n2", "n3", "n4") as (*nodes, _):
        for node in nodes[:3]:
            node.topology("n1", live=["n1", "n2", "n3"])
        gate, other = Gate(), Gate()
        nodes[2].handle(gate)
        nodes[3].handle(other)
        future = ask(nodes[at], "t", b"x")
        eventually(lambda: gate.entered.is_set() and held_by(nodes[at]) == 1)
        for node in nodes[:3]:
            node.topology("n1", live=["n1", "n2", "n3", "n4"])
        nodes[at].view()
        assert not future.done
        for node in nodes[:2]:
            node.topology("n1", live=["n1", "n2", "n4"])
        assert future.get(timeout=WAIT).seq == 1
        assert failed(ask(nodes[at], "t", b"y", timeout=0.3)).missing == ("n4",), "it is there now"
        gate.open.set(), other.open.set()


def test_nodes_of_go_cluster_are_not_waited_for():
    with cluster("n1", "n2") as (n1, n2, _):
        for node in (n1, n2):
            node.topology("n1", live=["n1", "n2", "go"], foreign=frozenset({"go"}))
        assert ask(n2, "t", b"x").get(timeout=WAIT).seq == 1


def test_the_wait_goes_on_at_the_next_leader():
    with cluster("n1", "n2", "n3") as (n1, n2, n3, raft):
        gate = Gate()
        n3.handle(gate)
        here, there = ask(n1, "t", b"at the leader"), ask(n2, "t", b"at a follower")
        eventually(lambda: held_by(n1) == held_by(n2) == 1)
        raft.leader = n3.publisher
        for node in (n1, n2, n3):
            node.topology("n3", term=2)
        gate.open.set()
        assert sorted(f.get(timeout=WAIT).seq for f in (here, there)) == [1, 2]


def test_a_leader_that_dies_with_the_question_costs_nothing():
    with cluster("n1", "n2", "n3") as (_n1, n2, n3, raft):
        gate = Gate()
        n3.handle(gate)
        future = ask(n2, "t", b"x")
        eventually(lambda: n2.links.open_links and len(n2.links.open_links[0].sent) == 2)  # the record and the question
        n2.links.down.add("n1")
        n2.links.open_links[0].cut()
        raft.leader = n3.publisher
        for node in (n2, n3):
            node.topology("n3", live=["n2", "n3"], term=2)
        gate.open.set()
        assert future.get(timeout=WAIT) == Published("t", 1, 1)


def test_a_leader_of_an_older_version_cannot_tell_and_that_is_said_at_once():
    with cluster("n1", "n2") as (_n1, n2, _):
        room = n2.links.rooms["n1"]

        def send(message):
            if isinstance(message, ForwardedBatch) and message.data[:1] == b"\x02":
                message.reply(message.forward_id, None, InvalidRequest("forwarded batch: forward: format 2, flags 146"))
            else:
                room.publisher.send(message)

        n2.links.rooms["n1"] = SimpleNamespace(publisher=SimpleNamespace(send=send), subscribers=room.subscribers)
        error = failed(ask(n2, "t", b"x", timeout=WAIT * 2))
        assert isinstance(error, NotDelivered) and error.seq == 1 and error.missing == ("n1", "n2")
        assert "the leader n1 is of a version that cannot tell who has it" in str(error)


def test_without_a_leader_the_error_says_that_nobody_could_tell():
    with cluster("n1", "n2") as (n1, n2, _):
        gate = Gate()
        n1.handle(gate)
        future = ask(n2, "t", b"x", timeout=1.0)
        eventually(lambda: held_by(n2) == 1)
        n2.links.down.add("n1")
        n2.topology("")
        error = failed(future)
        assert error.missing == ("n1", "n2") and "no leader has told who has it" in str(error)
        gate.open.set()


def test_a_handler_that_waits_for_itself_hears_why():
    with cluster("n1") as (n1, _):
        errors = []

        def behave(topic, data, record):
            if topic == "t":
                errors.append(failed(ask(n1, "u", b"from inside", timeout=0.3)))

        n1.handle(behave)
        n1.publisher.ask(Publish("t", b"x"), timeout=WAIT)
        eventually(lambda: errors)
        assert errors[0].missing == ("n1",) and "waits for itself" in str(errors[0])
        assert ask(n1, "u", b"from outside").get(timeout=WAIT).seq == 2


def test_nothing_is_held_for_who_only_told_it():
    with cluster("n1", "n2") as (n1, n2, _raft):
        gate = Gate()
        n2.handle(gate)
        n1.publisher.tell(Publish("t", b"x", "all"))
        n1.publisher.tell(PublishMany("t", [b"x"], "all"))
        assert gate.entered.wait(WAIT)
        assert n1.publisher.ask(Publish("t", b"x"), timeout=WAIT).seq == 3
        assert held_by(n1) == 0 and not any(n1.view().counters.values())
        gate.open.set()


def test_a_node_that_stops_says_that_it_is_published():
    with cluster("n1", "n2") as (n1, n2, _):
        gate = Gate()
        n2.handle(gate)
        future = ask(n1, "t", b"x")
        eventually(lambda: gate.entered.is_set() and n1.view().topics[0].acked.get("n1") == 1)
        future.on_done(gate.open.set)  # the first of the two has stopped
    error = failed(future)
    assert isinstance(error, NotDelivered) and error.missing == ("n2",) and "stopped meanwhile" in str(error)


def test_what_waits_is_bounded():
    with cluster("n1", "n2", limits=Limits(waiting_records=4)) as (n1, n2, _):
        gate = Gate()
        n2.handle(gate)
        futures = [ask(n1, "t", b"%d" % n) for n in range(4)]
        eventually(lambda: held_by(n1) == 4)
        for more in (Publish("t", b"x", "all"), PublishMany("t", [b"x"], "all")):
            error = failed(n1.publisher.ask(more, block=False))
            assert isinstance(error, Overloaded) and "acks='all'" in str(error)
        assert n1.publisher.ask(Publish("t", b"x"), timeout=WAIT).seq == 5, "what does not wait for all goes"
        gate.open.set()
        assert [future.get(timeout=WAIT).seq for future in futures] == [1, 2, 3, 4]
        eventually(lambda: held_by(n1) == 0)


def test_an_unknown_level_is_refused():
    with cluster("n1") as (n1, _):
        for message in (Publish("t", b"x", "some"), PublishMany("t", [b"x"], ["all"])):
            assert isinstance(failed(n1.publisher.ask(message, block=False)), InvalidRequest)


# -- the cores, against a slow and obvious model ------------------------------------------------------------------------------------

MEMBERS = ("n1", "n2", "n3")
TOPICS = ("a", "b")
step = st.one_of(
    st.tuples(st.just("hold"), st.sampled_from(TOPICS), st.integers(0, 3), st.sampled_from([1.0, 3.0]), st.integers(1, 3)),
    st.tuples(st.just("ack"), st.sampled_from(TOPICS), st.sampled_from(MEMBERS), st.integers(1, 4)),
    st.tuples(st.just("live"), st.sets(st.sampled_from(MEMBERS[1:]))),
    st.tuples(st.just("later"), st.sampled_from([0.125, 0.5, 2.0])),
    st.tuples(st.just("lost")),
)


class Model:
    """Every member's every acknowledgement compared with every record, after each step."""

    def __init__(self):
        self.acked = {topic: dict.fromkeys(MEMBERS, 0) for topic in TOPICS}
        self.records = []  # [topic, seq, deadline, waited for, outcome]

    def look(self, live, now):
        for record in self.records:
            topic, seq, deadline, waited, outcome = record
            if outcome is None:
                waited &= live
                missing = tuple(sorted(member for member in waited if self.acked[topic][member] < seq))
                record[4] = True if not missing else missing if deadline <= now else None


class Ends:
    """Both ends; the node that published leads, or asks over a link that loses nothing until it is cut."""

    def __init__(self, model, leads):
        self.model, self.leads, self.now, self.session = model, leads, 100.0, 0
        self.all = AllAcks("n1", lambda *_: None, 1 << 30)
        self.reports = AckReports(lambda topic: model.acked[topic])
        self.answers, self.asked = [], 0

    def send(self, data, now):
        self.asked += 1
        reply = lambda *answer, session=self.session: self.answers.append((session, answer))  # noqa: E731
        self.reports.asked(ForwardedBatch(self.session, self.asked, data, reply), None, now)
        return self.asked

    def settle(self, topics=TOPICS):
        if self.leads:
            self.all.look(lambda topic: self.model.acked[topic])
        else:
            self.reports.heard(topics)
            self.reports.expire(self.now)
            while True:
                self.all.ask(self.send, self.now)
                answers, self.answers = self.answers, []
                if not answers:
                    break
                for session, answer in answers:
                    if session == self.session:
                        self.all.answered(*answer, "n2", self.now)
        self.all.expire(self.now)

    def cut(self):
        self.reports.closed(self.session)
        self.session += 1
        self.all.link_lost()


@pytest.mark.parametrize("leads", [True, False])
@given(steps=st.lists(step, max_size=60))
def test_each_record_is_answered_exactly_when_all_who_were_there_and_still_are_have_it(leads, steps):
    model = Model()
    ends = Ends(model, leads)
    live, last, futures = frozenset({"n1"}), dict.fromkeys(TOPICS, 0), []
    for kind, *rest in steps:
        if kind == "hold":
            topic, back, timeout, count = rest
            future = LightFuture()
            chunk = Chunk(topic, 0, ends.now + timeout, False)
            chunk.by_all, chunk.whole, chunk.reply = True, True, future
            repeats = back and last[topic] > back
            first = last[topic] - back if repeats else last[topic] + 1
            count = 1 if repeats else count
            last[topic] = max(last[topic], first + count - 1)
            ends.all.hold(chunk, Place(topic, 9, first, count, None))
            futures.append(future)
            model.records.append([topic, first + count - 1, chunk.deadline, set(live), None])
        elif kind == "ack":
            topic, member, more = rest
            model.acked[topic][member] = min(last[topic], model.acked[topic][member] + more)
        elif kind == "live":
            live = frozenset(rest[0] | {"n1"})
            ends.all.set_live(live)
        elif kind == "later":
            ends.now += rest[0]
        else:
            ends.cut()
        ends.settle()
        model.look(live, ends.now)
        for future, record in zip(futures, model.records, strict=True):
            outcome = None if not future.done else True if future.error is None else future.error.missing
            assert outcome == record[4], record
    waiting = sum(not future.done for future in futures)
    assert (ends.all.records == 0) == (waiting == 0)
    ends.reports.refuse(NotLeader())
    assert ends.reports.count == 0


def test_a_repetition_of_what_all_are_known_to_have_is_answered_at_once():
    held, futures = AllAcks("n1", lambda *_: None, 100), [LightFuture(), LightFuture(), LightFuture()]
    for future, seq, now in zip(futures, (5, 7, 4), (0.0, 0.0, 1.0), strict=True):
        if now:
            assert held.answered(1, encode_acked([5]), None, "n2", now)
        chunk = Chunk("t", 0, 10.0, False)
        chunk.whole, chunk.reply = True, future
        held.hold(chunk, Place("t", 9, seq, 1, None))
        held.ask(lambda data, at: 1, now)
    assert [future.done for future in futures] == [True, False, True]
    held.expire(20.0)
    assert futures[1].error.missing == ("n1",)


def test_a_leader_takes_only_so_many_questions(monkeypatch):
    monkeypatch.setattr(all_acks, "MOST_QUESTIONS", 2)
    reports, answers = AckReports(lambda topic: {}), []
    for number in range(3):
        message = ForwardedBatch("s", number, encode_question("t", 1, ["n2"], 5.0), lambda *answer: answers.append(answer))
        reports.asked(message, None, 0.0)
    assert [(number, type(error)) for number, _, error in answers] == [(2, Overloaded)]
    reports.closed("s")
    assert reports.count == 0
    reports.expire(10.0)
    assert len(answers) == 1, "nobody hears it any more"


# -- what is said -------------------------------------------------------------------------------------------------------------------


@given(st.text(min_size=1, max_size=9), st.integers(0, 1 << 60), st.lists(st.text(min_size=1, max_size=9), max_size=5))
def test_a_question_is_read_as_it_was_asked(topic, seq, members):
    try:
        topic.encode(), [member.encode() for member in members]
    except UnicodeEncodeError:
        return
    asked = decode_question(encode_question(topic, seq, members, 1.5))
    assert asked == (topic, seq, tuple(members), 1.5)


@given(st.binary(max_size=200))
def test_garbage_is_no_question_and_no_answer(data):
    for decode in (lambda: decode_question(data), lambda: decode_question(b"\x02" + data), lambda: decode_acked(data, 2)):
        try:
            decode()
        except WireError:
            continue
    with pytest.raises(WireError):
        decode_acked(encode_acked([1, 2, 3]), 2)
