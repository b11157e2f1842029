"""Dead letters: the letter itself, its way to the topic, what a failing handler of letters does, the desk that is asked, and the documents."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.actors.dead_letters import OWN_BYTES, OWN_HEADERS, PREFIX, describe, letter_id, read_letter, requeued, write_letter
from coterie.actors.errors import InvalidRequest
from coterie.actors.handler import HandlerActor, ObjectHandler
from coterie.actors.handler_messages import SetHandler
from coterie.actors.management.requests import OPERATIONS, letters_document, parse_letters
from coterie.actors.messages import DeadLetter, DeadLettered, DeadLetters, Publish, Requeue
from coterie.actors.replication.limits import Limits
from coterie.actors.replication.memory_buffer import MemoryBuffer
from coterie.actors.replication.packing import record_size
from coterie.actors.replication.requests import MAX_HEADERS
from coterie.actors.room_messages import Topology
from coterie.proto.record_batch import decode_batch, encode_batch
from tests.unit.replication_support import Notes, actor_of, cluster, eventually

WAIT = 10.0
LETTERS = "dead-letters"

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60)
HEADERS = st.none() | st.dictionaries(TEXT.filter(lambda name: not name.startswith(PREFIX)), TEXT, max_size=5)


def publish(node, topic, *datas, **more):
    return [f.get(timeout=WAIT).seq for f in [node.publisher.ask(Publish(topic, data, **more), block=False) for data in datas]]


def numbers(notes, topic="t"):
    return [seq for name, seq, _ in notes if name == topic]


def poison(topic, data, record):
    if data.startswith(b"bad"):
        raise ValueError(f"cannot read {data[:10]!r}")


def letters_of(node, **query):
    return node.room.letter_desk.ask(DeadLetters(**query), timeout=WAIT)


# -- the letter -------------------------------------------------------------------------------------------------------------------


@given(
    TEXT,
    st.integers(1, 1 << 62),
    st.binary(max_size=50),
    HEADERS,
    st.integers(0, 1 << 62),
    st.floats(0, 1e10),
    TEXT,
    st.text(max_size=1500),
)
def test_a_letter_says_what_failed_and_keeps_the_record(topic, seq, data, headers, index, time, node, text):
    reason = describe(ValueError(text))
    message = write_letter(LETTERS, topic, (seq, data, headers), index, time, node, 10, reason)
    batch = decode_batch(encode_batch(LETTERS, 5000, [[message.data, message.message_id, message.headers]]).data)
    letter = read_letter(7, 5.0, batch.records[0][0], batch.records[0][2])
    assert letter == DeadLetter(7, 5.0, topic, seq, index, time, node, 10, reason, data, headers or {})
    assert message.message_id == letter_id(topic, seq, node)
    own = record_size([data, message.message_id, message.headers]) - record_size([data, None, headers])
    assert own <= OWN_BYTES and len(message.headers) - len(headers or {}) <= OWN_HEADERS


def test_the_id_of_a_letter_is_of_topic_seq_and_node_and_fits():
    ids = [
        letter_id("a", 1, "n"),
        letter_id("a", 2, "n"),
        letter_id("b", 1, "n"),
        letter_id("a", 1, "m"),
        letter_id("x" * 255, 1 << 60, "n" * 128),
    ]
    assert len(set(ids)) == 5 and max(map(len, ids)) <= 255
    assert letter_id("a", 1, "n") == ids[0]


def test_any_exception_can_be_described():
    class Mute(Exception):
        def __str__(self):
            raise RuntimeError

    assert describe(Mute()).startswith("Mute: ")
    assert describe(ValueError("\ud800")).encode()
    assert len(describe(ValueError("x" * 5000))) == 1000


@pytest.mark.parametrize("headers", [None, {}, {"a": "b"}, {PREFIX + "topic": "t"}])
def test_what_is_no_letter_is_none(headers):
    assert read_letter(1, 0.0, b"", headers) is None


def test_a_letter_with_a_number_that_is_none_is_no_letter():
    headers = dict(write_letter(LETTERS, "t", (1, b"", None), 1, 0.0, "n", 1, "r").headers)
    assert read_letter(1, 0.0, b"", headers) is not None
    assert read_letter(1, 0.0, b"", headers | {PREFIX + "seq": "one"}) is None


# -- on its way -------------------------------------------------------------------------------------------------------------------


def test_a_record_on_which_the_handler_fails_too_often_becomes_a_letter_and_delivery_goes_on():
    with cluster("n1", retry=0.02, attempts=3) as (n1, _):
        tried = []

        def behave(topic, data, record):
            tried.append((record.seq, record.attempt))
            poison(topic, data, record)

        notes = n1.handle(behave)
        publish(n1, "t", b"1", b"bad", b"3", headers={"trace": "x"})
        eventually(lambda: numbers(notes) == [1, 3])
        assert tried == [(1, 1), (2, 1), (2, 2), (2, 3), (3, 1)]
        page = eventually(lambda: (p := letters_of(n1)).letters and p)
        (letter,) = page.letters
        assert (letter.letter, letter.topic, letter.seq, letter.node, letter.attempts) == (1, "t", 2, "n1", 3)
        assert letter.data == b"bad" and letter.headers == {"trace": "x"} and letter.index > 0
        assert letter.reason == "ValueError: cannot read b'bad'"
        view = n1.view()
        assert view.counters["dead_letters"] == 1 and view.counters["delivery_errors"] == 3
        assert view.dead_letters == {"t": 1} and view.failing == () and view.warnings == ()
        assert next(t for t in view.topics if t.topic == "t").delivered == 3
        assert [(e.topic, e.seq, e.node, e.letter) for e in n1.events if isinstance(e, DeadLettered)] == [("t", 2, "n1", 1)]


def test_only_the_node_whose_handler_fails_writes_a_letter_and_all_hear_of_it():
    with cluster("n1", "n2", "n3", retry=0.02, attempts=2) as (n1, n2, n3, _):
        good, bad, other = n1.handle(), n2.handle(poison), n3.handle()
        publish(n3, "t", b"1", b"bad", b"3")
        eventually(lambda: numbers(bad) == [1, 3] and numbers(good) == numbers(other) == [1, 2, 3])
        for node in (n1, n2, n3):
            page = eventually(lambda node=node: (p := letters_of(node)).letters and p)
            assert [(letter.node, letter.seq) for letter in page.letters] == [("n2", 2)]
            assert node.view().dead_letters == {"t": 1}
        assert n2.view().counters["dead_letters"] == 1 and n1.view().counters["dead_letters"] == 0


def test_every_node_that_fails_writes_its_own_letter():
    with cluster("n1", "n2", retry=0.02, attempts=2) as (n1, n2, _):
        n1.handle(poison), n2.handle(poison)
        publish(n1, "t", b"bad")
        page = eventually(lambda: len((p := letters_of(n1)).letters) == 2 and p)
        assert {letter.node for letter in page.letters} == {"n1", "n2"}


def test_with_no_limit_a_record_is_tried_for_ever():
    with cluster("n1", retry=0.001, attempts=0) as (n1, _):
        notes = n1.handle(poison)
        publish(n1, "t", b"bad", b"2")
        eventually(lambda: n1.view().counters["delivery_errors"] > 30)
        assert numbers(notes) == [] and letters_of(n1).letters == ()
        assert n1.view().failing[0].attempts > 20


def test_the_status_says_where_it_stands_how_often_and_why():
    with cluster("n1", retry=5.0, attempts=3) as (n1, _):
        n1.handle(poison)
        publish(n1, "t", b"bad")
        row = eventually(lambda: n1.view().failing)[0]
        assert (row.node, row.topic, row.seq, row.attempts, row.waiting) == ("n1", "t", 1, 1, "")
        assert row.error == "ValueError: cannot read b'bad'"
        assert "the handler fails on 't' seq 1 on n1 (attempt 1 of 3)" in n1.view().warnings[0]


def test_the_cursor_stays_until_the_letter_is_committed_and_the_status_says_why():
    with cluster("n1", retry=0.02, attempts=2, limits=Limits(request_timeout=0.2)) as (n1, raft):
        notes = n1.handle(poison)
        publish(n1, "t", b"bad", b"2")
        with raft.lock:
            raft.hold = True
        row = eventually(lambda: (f := n1.view().failing) and "Indeterminate" in f[0].waiting and f[0])
        assert row.attempts == 2
        assert "its dead letter waits" in n1.view().warnings[0]
        assert numbers(notes) == [] and n1.view().topics[-1].delivered == 0
        raft.release()
        eventually(lambda: numbers(notes) == [2])
        eventually(lambda: letters_of(n1).letters)
        assert len(letters_of(n1).letters) == 1, "it was published several times, and taken once"


@pytest.mark.parametrize("failing", ["n1", "n2"])
def test_a_letter_finds_room_in_a_queue_that_is_full_of_what_waits_for_it(failing):
    """The record holds the window of its topic shut, so its publishes fill the queue: the letter that would end that must not wait for its end."""
    limits = Limits(window=4, waiting_records=20, request_timeout=60.0)
    with cluster("n1", "n2", retry=0.05, attempts=2, limits=limits) as (n1, n2, _):
        nodes = {"n1": n1, "n2": n2}
        fails = threading.Event()

        def behave(topic, data, record):
            if data == b"poison" and fails.wait(WAIT):
                raise ValueError("no")

        notes = {name: node.handle(behave if name == failing else None) for name, node in nodes.items()}
        publish(n1, "t", b"first")
        eventually(lambda: actor_of(n1.publisher)._window.acked("t") == {"n1": 1, "n2": 1})
        asked = [n1.publisher.ask(Publish("t", b"poison"), block=False)]

        def full():
            asked.append(n1.publisher.ask(Publish("t", b"sound"), block=False))
            return actor_of(n1.publisher)._waiting.records == 20

        eventually(full)
        fails.set()
        eventually(lambda: len(notes[failing]) > 20)
        assert eventually(lambda: letters_of(n1).letters)[0].data == b"poison"


def test_without_a_leader_the_topic_waits_and_goes_on_when_there_is_one():
    with cluster("n1", retry=0.02, attempts=2, limits=Limits(request_timeout=0.1)) as (n1, _):
        gate = threading.Event()

        def behave(topic, data, record):
            gate.wait(WAIT)
            poison(topic, data, record)

        notes = n1.handle(behave)
        publish(n1, "t", b"bad", b"2")
        n1.publisher.tell(Topology(term=2, leader_id="", live=frozenset({"n1"})))
        gate.set()
        row = eventually(lambda: (f := n1.view().failing) and "NoQuorum" in f[0].waiting and f[0])
        assert row.seq == 1 and numbers(notes) == []
        n1.topology("n1", term=3)
        eventually(lambda: numbers(notes) == [2])


def test_a_crash_between_letter_and_cursor_does_not_write_it_twice():
    buffer = MemoryBuffer()
    with cluster("n1", retry=0.02, attempts=2, buffers={"n1": buffer}) as (n1, raft):
        n1.handle(poison)
        publish(n1, "t", b"bad", b"2")
        eventually(lambda: letters_of(n1).letters)
        eventually(lambda: buffer.state("t").cursor == 3)
        applied = len(raft.log)
    buffer._topics["t"] = buffer._topics["t"]._replace(cursor=1)  # as if the cursor had not been written
    with cluster("n1", retry=0.02, attempts=2, buffers={"n1": buffer}) as (n1, raft):
        raft.log = [None] * applied
        notes = n1.handle(poison)
        eventually(lambda: numbers(notes) == [2])
        assert len(letters_of(n1).letters) == 1


def test_a_new_handler_gets_the_record_whose_letter_could_not_be_published():
    with cluster("n1", retry=5.0, attempts=1, limits=Limits(request_timeout=0.1)) as (n1, _):
        gate = threading.Event()

        def behave(topic, data, record):
            gate.wait(WAIT)
            poison(topic, data, record)

        n1.handle(behave)
        publish(n1, "t", b"bad")
        n1.publisher.tell(Topology(term=2, leader_id="", live=frozenset({"n1"})))
        gate.set()
        eventually(lambda: (f := n1.view().failing) and "NoQuorum" in f[0].waiting)
        mended = n1.handle()
        eventually(lambda: numbers(mended) == [1])
        assert n1.view().failing == ()


def test_a_new_handler_begins_to_count_anew():
    with cluster("n1", retry=0.05, attempts=1000) as (n1, _):
        n1.handle(poison)
        publish(n1, "t", b"bad")
        eventually(lambda: (f := n1.view().failing) and f[0].attempts >= 3)
        n1.handle(poison)
        eventually(lambda: (f := n1.view().failing) and f[0].attempts < 3)


def test_a_handler_that_is_taken_away_while_it_fails_harms_nobody():
    with cluster("n1", retry=0.02, attempts=1) as (n1, _):
        inside, gate = threading.Event(), threading.Event()

        def behave(topic, data, record):
            inside.set()
            gate.wait(WAIT)
            raise ValueError

        n1.handle(behave)
        publish(n1, "t", b"1")
        assert inside.wait(WAIT)
        n1.publisher.tell(SetHandler(None))
        n1.view()
        gate.set()
        notes = n1.handle()
        eventually(lambda: numbers(notes) == [1])


def test_an_actor_that_is_no_handler_makes_no_letters_of_sound_records():
    with cluster("n1", retry=0.001, attempts=2) as (n1, _):
        other = HandlerActor.start()
        actor_of(other).on_receive = lambda message: 7
        n1.publisher.tell(SetHandler(other))
        publish(n1, "t", b"1")
        eventually(lambda: n1.view().counters["delivery_errors"] > 10)
        assert letters_of(n1).letters == () and n1.view().counters["dead_letters"] == 0
        other.stop()


@pytest.mark.parametrize("through", ["leader", "follower"])
def test_the_letter_of_a_maximal_record_with_maximal_headers_is_published(through):
    limits = Limits(max_payload=4096)
    with cluster("n1", "n2", retry=0.02, attempts=1, limits=limits) as (n1, n2, _):
        node = n1 if through == "leader" else n2

        def behave(topic, data, record):
            raise ValueError("\N{GRINNING FACE}" * 2000)

        node.handle(behave)
        headers = {f"{n:02}": "x" for n in range(MAX_HEADERS)}
        data = b"x" * (4096 - sum(len(k) + len(v) for k, v in headers.items()))
        publish(n1, "t" * 255, data, headers=headers)
        letter = eventually(lambda: letters_of(node).letters)[0]
        assert letter.data == data and letter.headers == headers
        node.room.letter_desk.ask(Requeue(letter.letter), timeout=WAIT)
        again = eventually(lambda: len((p := letters_of(node)).letters) == 2 and p.letters)[0]
        assert again.seq == 2 and again.data == data and again.headers == headers


# -- the handler of letters -------------------------------------------------------------------------------------------------------


class Clerk(Notes):
    """Notes letters too; `behave_letter` may raise."""

    def __init__(self, behave=None, behave_letter=None):
        self.letters, self.behave_letter = [], behave_letter
        super().__init__(behave)

    def handle_dead_letter(self, letter):
        if self.behave_letter is not None:
            self.behave_letter(letter)
        self.letters.append(letter)


def employ(node, *args):
    ref = Clerk.start(*args)
    node.handlers.append(ref)
    node.publisher.tell(SetHandler(ref))
    return actor_of(ref)


def test_a_handler_that_asks_for_letters_gets_them_on_every_node_and_others_are_not_surprised():
    with cluster("n1", "n2", retry=0.02, attempts=1) as (n1, n2, _):
        plain, clerk = n1.handle(poison), employ(n2)
        publish(n1, "t", b"bad", b"2")
        eventually(lambda: clerk.letters)
        assert [(letter.topic, letter.seq, letter.node) for letter in clerk.letters] == [("t", 1, "n1")]
        eventually(lambda: numbers(plain) == [2])
        assert numbers(plain, LETTERS) == [] and numbers(clerk.seen, LETTERS) == []
        eventually(lambda: all(t.delivered == t.seq for node in (n1, n2) for t in node.view().topics))


def test_what_an_application_publishes_on_that_topic_itself_is_a_record_like_others():
    with cluster("n1", retry=0.02, attempts=1) as (n1, _):
        clerk = employ(n1, poison)
        publish(n1, LETTERS, b"mine")
        publish(n1, "t", b"bad")
        eventually(lambda: clerk.letters)
        assert numbers(clerk.seen, LETTERS) == [1] and clerk.letters[0].letter == 2
        page = eventually(lambda: (p := letters_of(n1)).letters and p)
        assert [letter.letter for letter in page.letters] == [2] and page.next is None


def test_a_letter_whose_handler_fails_is_skipped_counted_and_never_a_letter_again():
    def refuse(letter):
        if letter.seq == 1:
            raise RuntimeError("no")

    with cluster("n1", retry=0.02, attempts=3) as (n1, _):
        clerk = employ(n1, poison, refuse)
        publish(n1, "t", b"bad 1", b"bad 2")
        eventually(lambda: [letter.seq for letter in clerk.letters] == [2])
        view = n1.view()
        assert view.counters["dead_letters_skipped"] == 1 and view.counters["dead_letters"] == 2
        eventually(lambda: len(letters_of(n1).letters) == 2)
        assert view.warnings == ()


def test_a_plain_object_may_handle_letters_too():
    class Plain:
        got = None

        def handle_dead_letter(self, letter):
            self.got = letter

    target = Plain()
    ref = ObjectHandler.start(target)
    with cluster("n1", "n2", retry=0.02, attempts=1) as (n1, n2, _):
        n1.handle(poison)
        n2.publisher.tell(SetHandler(ref))
        publish(n1, "t", b"bad")
        assert eventually(lambda: target.got).seq == 1
    ref.stop()


# -- the desk ---------------------------------------------------------------------------------------------------------------------


def test_letters_are_shown_page_by_page_the_latest_first_and_by_topic():
    with cluster("n1", retry=0.001, attempts=1) as (n1, _):
        n1.handle(poison)
        for n in range(20):
            publish(n1, "even" if n % 2 == 0 else "odd", b"bad %d" % n)
        eventually(lambda: len(letters_of(n1).letters) == 20)
        assert [letter.letter for letter in letters_of(n1).letters] == list(range(20, 0, -1))
        first = letters_of(n1, limit=8)
        assert [letter.letter for letter in first.letters] == list(range(20, 12, -1)) and first.next == 13
        rest = letters_of(n1, before=first.next)
        assert [letter.letter for letter in rest.letters] == list(range(12, 0, -1)) and rest.next is None
        odd = letters_of(n1, topic="odd", limit=3)
        assert [letter.topic for letter in odd.letters] == ["odd"] * 3
        assert len(letters_of(n1, topic="odd").letters) == 10 and letters_of(n1, topic="none").letters == ()


@pytest.mark.parametrize("query", [{"limit": 0}, {"limit": 1001}, {"limit": "1"}, {"before": 0}, {"topic": ""}, {"topic": "x" * 256}])
def test_a_question_that_makes_no_sense_is_refused(query):
    with cluster("n1") as (n1, _), pytest.raises(InvalidRequest):
        letters_of(n1, **query)


def test_requeue_publishes_the_record_again_and_once():
    mended = threading.Event()

    def behave(topic, data, record):
        if not mended.is_set():
            poison(topic, data, record)

    with cluster("n1", "n2", retry=0.02, attempts=1) as (n1, n2, _):
        notes = n2.handle(behave)
        publish(n1, "t", b"bad", headers={"a": "b"})
        eventually(lambda: n1.view().dead_letters)
        mended.set()
        for _ in range(2):
            assert n2.room.letter_desk.ask(Requeue(1), timeout=WAIT).seq == 2  # also when the buffer does not hold it yet
        eventually(lambda: numbers(notes) == [2])
        letter = letters_of(n2).letters[0]
        assert requeued(letter).headers == {"a": "b", PREFIX + "requeued": "1"}
        with pytest.raises(InvalidRequest, match="letter=2: there is no such dead letter here; 'dead-letters' holds 1 to 1"):
            n2.room.letter_desk.ask(Requeue(2), timeout=WAIT)
        for number in (0, 2, "1"):
            with pytest.raises(InvalidRequest, match="letter="):
                n2.room.letter_desk.ask(Requeue(number), timeout=WAIT)


# -- documents --------------------------------------------------------------------------------------------------------------------


def test_a_letter_where_there_are_none_is_refused_in_words():
    with cluster("n1") as (n1, _), pytest.raises(InvalidRequest, match=r"letter=7: .*'dead-letters' holds none"):
        n1.room.letter_desk.ask(Requeue(7), timeout=WAIT)


def test_the_documents_of_the_http_interface():
    assert parse_letters({}) == DeadLetters()
    assert parse_letters({"topic": "a/b", "limit": "5", "before": "9"}) == DeadLetters("a/b", 5, 9)
    for query in ({"limit": "x"}, {"before": "-1"}, {"topic": "x" * 300}, {"limit": "1" * 30}):
        with pytest.raises(InvalidRequest):
            parse_letters(query)
    assert OPERATIONS["requeue"].parse({"letter": 3}) == Requeue(3)
    for body in ({}, {"letter": "3"}, {"letter": True}, {"letter": None}):
        with pytest.raises(InvalidRequest, match="letter"):
            OPERATIONS["requeue"].parse(body)
    letter = DeadLetter(1, 2.0, "t", 3, 4, 5.0, "n", 6, "r", b"\x00\xff", {"a": "b"})
    assert letters_document(type(letters_page())((letter,), 1)) == {
        "letters": [
            {
                "letter": 1, "time": 2.0, "topic": "t", "seq": 3, "index": 4, "published": 5.0,
                "node": "n", "attempts": 6, "reason": "r", "headers": {"a": "b"}, "data": "AP8=",
            }
        ],
        "next": 1,
    }  # fmt: skip


def letters_page():
    with cluster("n1") as (n1, _):
        return letters_of(n1)
