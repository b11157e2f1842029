"""Reads on a node's own handler: one question for all that wait, none answered before the handler has what it needs, and an end to every wait."""

from __future__ import annotations

import threading

import pytest

from coterie import HandlerActor, HandlerFailed, InvalidRequest, NoQuorum, NotLeader, Overloaded, Read
from coterie.actors.future import LightFuture
from coterie.actors.handler_messages import SetHandler
from coterie.actors.replication.read_queue import KINDS, LEASE, LINEARIZABLE, LOCAL, Asked, ReadQueue
from coterie.actors.replication.reads import Reads
from coterie.actors.room_messages import ReadFrom, Topology
from tests.unit.replication_support import eventually

WAIT = 20


def asked(kind: str, op: str = "r", deadline: float = 100.0) -> Asked:
    return Asked(kind, op, b"", None, LightFuture(), deadline)


# -- the queue ----------------------------------------------------------------------------------------------------------------------------


def test_who_comes_while_the_leader_is_asked_waits_for_the_next_question():
    queue = ReadQueue(10)
    first, second, late = asked(LINEARIZABLE), asked(LINEARIZABLE), asked(LINEARIZABLE)
    queue.add(first)
    queue.add(second)
    assert queue.to_ask(LINEARIZABLE) and not queue.to_ask(LEASE)
    queue.asking(LINEARIZABLE)
    queue.add(late)
    assert not queue.to_ask(LINEARIZABLE), "one question at a time"
    assert queue.point(LINEARIZABLE, 0) is False
    assert queue.take(10) == [first, second]
    assert queue.to_ask(LINEARIZABLE)


def test_a_read_waits_for_the_commands_it_is_to_see_and_others_pass_it():
    queue = ReadQueue(10)
    behind, local = asked(LINEARIZABLE), asked(LOCAL)
    queue.add(behind)
    queue.asking(LINEARIZABLE)
    assert queue.point(LINEARIZABLE, 7) is True
    queue.add(local)
    assert queue.take(10) == [local]
    queue.returned()
    queue.had(6)
    assert queue.take(10) == []
    queue.had(7)
    assert queue.take(10) == [behind]
    queue.returned()
    assert queue.waiting == 0
    queue.add(asked(LEASE))
    queue.asking(LEASE)
    assert queue.point(LEASE, 7) is False, "the handler is known to have had that"


def test_what_another_handler_has_had_counts_for_nothing():
    queue = ReadQueue(10)
    ready, parked, local = asked(LINEARIZABLE), asked(LEASE), asked(LOCAL)
    queue.had(5)
    queue.add(ready)
    queue.asking(LINEARIZABLE)
    queue.point(LINEARIZABLE, 5)
    queue.add(parked)
    queue.asking(LEASE)
    queue.point(LEASE, 9)
    queue.add(local)
    queue.other_handler()
    assert queue.handled == 0
    assert queue.take(10) == [local]
    assert queue.to_ask(LINEARIZABLE) and queue.to_ask(LEASE)
    assert queue.waiting == 3


def test_every_wait_ends_by_its_deadline_and_is_never_indeterminate():
    queue = ReadQueue(10)
    unasked, of_leader, behind, ready, at_handler = (asked(kind, deadline=1.0) for kind in (LEASE, LINEARIZABLE, LEASE, LOCAL, LOCAL))
    queue.add(at_handler)
    queue.take(10)
    queue.add(ready)
    queue.add(behind)
    queue.asking(LEASE)
    queue.point(LEASE, 3)
    queue.add(of_leader)
    queue.asking(LINEARIZABLE)
    queue.add(unasked)
    assert queue.expire(0.9, "") == 0
    assert queue.expire(1.0, ": not leader") == 5
    assert isinstance(unasked.reply.error, NoQuorum) and "not leader" in str(unasked.reply.error)
    assert isinstance(of_leader.reply.error, NoQuorum)
    for read, text in ((behind, "command 3"), (ready, "did not answer"), (at_handler, "did not answer")):
        assert isinstance(read.reply.error, Overloaded) and text in str(read.reply.error)
    assert queue.all_late()
    queue.returned()
    queue.point(LINEARIZABLE, 0)
    assert queue.take(10) == [] and queue.waiting == 0, "nobody wants the answer any more"


def test_a_full_queue_refuses_and_all_hear_of_the_end():
    queue = ReadQueue(2)
    reads = [asked(LOCAL), asked(LINEARIZABLE)]
    for read in reads:
        queue.add(read)
    with pytest.raises(Overloaded, match="2 reads wait"):
        queue.add(asked(LOCAL))
    queue.close(NoQuorum("the end"))
    assert [str(read.reply.error) for read in reads] == ["the end", "the end"]
    assert queue.waiting == 0


# -- the actor ----------------------------------------------------------------------------------------------------------------------------


class Echo(HandlerActor):
    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []
        self.free = threading.Event()
        self.free.set()

    def on_receive(self, message):
        if hasattr(message, "reads"):
            self.batches.append(len(message.reads))
        return super().on_receive(message)

    def handle_read(self, op: str, request: bytes) -> bytes:
        self.free.wait(WAIT)
        if op == "raise":
            raise ValueError("because")
        return op.encode() + request


class World:
    """A node's reads between a leader and a command delivery that answer when they are told to."""

    def __init__(self) -> None:
        self.questions: list[tuple[str, bool, LightFuture]] = []
        self.awaited: list[tuple[int, LightFuture]] = []
        self.ref = Reads.start("n1", lambda lease: self.ask("", lease), lambda leader, lease, _: self.ask(leader, lease), self.handled)
        self.handler = Echo.start()
        self.ref.tell(SetHandler(self.handler))

    def ask(self, leader: str, lease: bool) -> LightFuture:
        future = LightFuture()
        self.questions.append((leader, lease, future))
        return future

    def handled(self, commands: int) -> LightFuture:
        future = LightFuture()
        self.awaited.append((commands, future))
        return future

    def read(self, consistency, op: str = "r", timeout: float = WAIT) -> LightFuture:
        return self.ref.ask(Read(op, b"!", timeout, consistency), block=False)

    def question(self, number: int) -> LightFuture:
        return eventually(lambda: len(self.questions) > number and self.questions[number], WAIT)[2]


LEADS = Topology(term=2, leader_id="n1", leads=True)
FOLLOWS = Topology(term=2, leader_id="n2", grpc_addr={"n2": "127.0.0.1:1", "n3": "127.0.0.1:2"})


@pytest.fixture
def world():
    made = World()
    yield made
    made.handler._actor_weakref().free.set()
    made.ref.stop()
    made.handler.stop()


def test_one_question_and_one_message_to_the_handler_serve_all_that_wait(world):
    world.ref.tell(LEADS)
    first = world.read("linearizable")
    question = world.question(0)
    others = [world.read("linearizable", f"r{n}") for n in range(500)]
    world.ref.ask(Read("x", b"", None, "local"), timeout=WAIT)
    assert len(world.questions) == 1
    question.set(ReadFrom(0, False))
    assert first.get(timeout=WAIT) == b"r!"
    world.question(1).set(ReadFrom(0, False))
    assert [other.get(timeout=WAIT) for other in others] == [b"r%d!" % n for n in range(500)]
    assert len(world.questions) == 2
    assert world.handler._actor_weakref().batches == [1, 1, 500]


def test_a_follower_asks_its_leader_and_waits_for_its_own_handler(world):
    world.ref.tell(FOLLOWS)
    read = world.read("lease")
    world.question(0).set(ReadFrom(4, True))
    commands, handled = eventually(lambda: world.awaited and world.awaited[0], WAIT)
    assert (world.questions[0][:2], commands) == (("n2", True), 4)
    assert not read.done
    handled.set(True)
    assert read.get(timeout=WAIT) == b"r!"
    again = world.read("lease")
    world.question(1).set(ReadFrom(4, True))
    assert again.get(timeout=WAIT) == b"r!"
    assert len(world.awaited) == 1, "it is known to have had them"


def test_beside_servers_of_another_make_a_lease_is_no_word(world):
    world.ref.tell(Topology(term=2, leader_id="n1", leads=True, foreign=frozenset({"go"})))
    world.read("lease")
    world.question(0)
    assert world.questions[0][:2] == ("", False)


def test_another_leader_is_asked_when_the_first_does_not_answer(world):
    world.ref.tell(FOLLOWS)
    read = world.read("linearizable")
    silent = world.question(0)
    world.ref.tell(Topology(term=3, leader_id="n3", grpc_addr=FOLLOWS.grpc_addr))
    world.question(1).fail(NotLeader("n2"))
    silent.set(ReadFrom(0, False))
    world.question(2).set(ReadFrom(0, False))
    assert read.get(timeout=WAIT) == b"r!"
    assert [leader for leader, _, _ in world.questions] == ["n2", "n3", "n3"]


def test_without_a_leader_a_read_ends_with_the_reason_and_local_ones_need_none(world):
    with pytest.raises(NoQuorum, match="no leader is known"):
        world.read("linearizable", timeout=0.2).get(timeout=WAIT)
    assert world.read("local").get(timeout=WAIT) == b"r!"


def test_a_handler_that_cannot_have_the_commands_says_why(world):
    world.ref.tell(LEADS)
    read = world.read("linearizable")
    world.question(0).set(ReadFrom(4, False))
    eventually(lambda: world.awaited, WAIT)[0][1].fail(HandlerFailed("commands are missing"))
    with pytest.raises(HandlerFailed, match="commands are missing"):
        read.get(timeout=WAIT)


def test_a_new_handler_is_asked_about_itself(world):
    world.ref.tell(LEADS)
    read = world.read("linearizable")
    world.question(0).set(ReadFrom(4, False))
    (of_the_first,) = eventually(lambda: world.awaited, WAIT)
    second = Echo.start()
    world.ref.tell(SetHandler(second))
    of_the_first[1].set(True)
    world.question(1).set(ReadFrom(4, False))
    eventually(lambda: len(world.awaited) == 2, WAIT)
    assert not read.done, "that the first had them says nothing about the second"
    world.awaited[1][1].set(True)
    assert read.get(timeout=WAIT) == b"r!"
    assert second._actor_weakref().batches == [1] and world.handler._actor_weakref().batches == []
    second.stop()


def test_what_is_wrong_with_a_read_is_said_at_once(world):
    for message, text in (
        (Read("r", b"", None, "strong"), "consistency='strong': give 'linearizable'"),
        (Read("r", b"", None, []), r"consistency=\[\]"),
        (Read(7, b"", None, "local"), "op=7"),
        (Read("r", "text", None, "local"), "data='text'"),
        (Read("r", b"", -1, "local"), "timeout=-1"),
    ):
        with pytest.raises(InvalidRequest, match=text):
            world.ref.ask(message, timeout=WAIT)
    world.ref.tell(SetHandler(None))
    for kind in KINDS:
        with pytest.raises(InvalidRequest, match="no handler is registered on 'n1'"):
            world.read(kind).get(timeout=WAIT)


def test_what_the_handler_raises_is_the_answer_of_that_read_alone(world):
    answers = [world.read("local", op) for op in ("a", "raise", "b")]
    assert (answers[0].get(timeout=WAIT), answers[2].get(timeout=WAIT)) == (b"a!", b"b!")
    with pytest.raises(HandlerFailed, match=r"handle_read\('raise'\) raised ValueError: because"):
        answers[1].get(timeout=WAIT)


def test_a_handler_that_does_not_return_or_is_dead_leaves_nobody_waiting(world):
    actor = world.handler._actor_weakref()
    actor.free.clear()
    with pytest.raises(Overloaded, match="did not answer within the deadline"):
        world.read("local", timeout=0.2).get(timeout=WAIT)
    actor.free.set()
    assert world.read("local").get(timeout=WAIT) == b"r!"
    world.handler.stop()
    with pytest.raises(HandlerFailed, match="is dead"):
        world.read("local").get(timeout=WAIT)


def test_a_stop_answers_all_who_wait(world):
    read = world.read("linearizable")
    world.ref.stop()
    with pytest.raises(NoQuorum, match="stopping"):
        read.get(timeout=WAIT)
