"""Wounds of others, "Publishing and clients": one test a row, each on the room itself between a fake Raft and fake links."""

from __future__ import annotations

import threading
import time

import pytest

from coterie.actors.errors import Indeterminate, NoQuorum, Overloaded
from coterie.actors.messages import Publish
from coterie.actors.replication.limits import Limits
from tests.unit.replication_support import cluster, eventually

WAIT = 10.0


def ask(node, topic, data, **more):
    return node.publisher.ask(Publish(topic, data, **more), block=False)


def test_an_acknowledged_record_keeps_its_sequence_number_and_is_equal_on_all_nodes():
    """Jepsen on Redpanda 21.10, #3003."""
    with cluster("n1", "n2", "n3") as (n1, n2, n3, raft):
        answers = {}
        for round_, leader in enumerate((n1, n2, n3, n1)):
            raft.leader = leader.publisher
            for node in (n1, n2, n3):
                node.topology(leader.name, term=round_ + 1)
            futures = {b"%d.%d" % (round_, n): ask((n1, n2, n3)[n % 3], "t", b"%d.%d" % (round_, n)) for n in range(30)}
            answers |= {data: future.get(timeout=WAIT).seq for data, future in futures.items()}
        seen = [node.handle() for node in (n1, n2, n3)]
        for notes in seen:
            eventually(lambda notes=notes: len(notes) == 120)
            assert {data: seq for _, seq, data in notes} == answers
        assert seen[0] == seen[1] == seen[2]
        assert sorted(answers.values()) == list(range(1, 121))


def test_what_may_have_been_applied_is_indeterminate_and_a_message_id_makes_the_retry_safe():
    """Jepsen on jetcd 0.8.2."""
    with cluster("n1", "n2") as (n1, n2, raft):
        notes = n1.handle()
        raft.hold = True
        future = ask(n2, "t", b"pay", timeout=0.2, message_id="order-7")
        eventually(lambda: raft.held)
        with pytest.raises(Indeterminate):
            future.get(timeout=WAIT)
        raft.release()
        again = ask(n2, "t", b"pay", message_id="order-7").get(timeout=WAIT)
        assert again.seq == 1
        ask(n2, "t", b"end").get(timeout=WAIT)
        eventually(lambda: len(notes) == 2)
        assert [data for _, _, data in notes] == [b"pay", b"end"]


def test_a_handler_that_publishes_from_inside_its_own_call_waits_bounded_and_tell_works():
    """Actor deadlock by re-entrance."""
    with cluster("n1", limits=Limits(window=1)) as (n1, _):
        outcome = []

        def asks(topic, data, record):
            if data == b"start":
                began = time.monotonic()
                try:
                    n1.publisher.ask(Publish("t", b"inner", timeout=0.3))
                except Overloaded as error:
                    outcome.append((error, time.monotonic() - began))

        notes = n1.handle(asks)
        ask(n1, "t", b"start").get(timeout=WAIT)
        eventually(lambda: len(notes) == 1)
        error, took = outcome[0]
        assert isinstance(error, Overloaded) and "inside handle_sync" in str(error) and took < 2.0
        assert ask(n1, "t", b"after").get(timeout=WAIT).seq == 2

        def tells(topic, data, record):
            if data == b"start":
                n1.publisher.tell(Publish("t", b"told"))

        notes = n1.handle(tells)
        ask(n1, "t", b"start").get(timeout=WAIT)
        eventually(lambda: [data for _, _, data in notes] == [b"start", b"told"])


def test_every_publish_has_a_deadline_and_keeps_it():
    """Jepsen on TigerBeetle: retries for ever, no deadline."""
    gate = threading.Event()
    with cluster("n1", "n2", limits=Limits(window=1, request_timeout=0.3, entries=1)) as (n1, n2, raft):
        n1.handle(lambda topic, data, record: gate.wait(WAIT) and None)
        ask(n1, "shut", b"x").get(timeout=WAIT)
        n2.links.swallow = True
        raft.hold = True
        began = time.monotonic()
        futures = [
            ask(n1, "shut", b"x"),
            ask(n1, "t", b"x"),
            ask(n1, "t", b"behind"),
            ask(n2, "t", b"forwarded"),
            ask(n2, "t", b"x", timeout=0.1),
        ]
        for future in futures:
            with pytest.raises((Overloaded, Indeterminate, NoQuorum)):
                future.get(timeout=WAIT)
        assert time.monotonic() - began < 2.0
        gate.set()


def test_delivery_goes_on_after_every_fault_heals():
    """Jepsen on Bufstream: subscribers stop for ever after a fault."""
    fail = threading.Event()

    def behave(topic, data, record):
        if fail.is_set():
            raise OSError("the database is away")

    with cluster("n1", "n2", limits=Limits(window=4), retry=0.05) as (n1, n2, _):
        notes = [n1.handle(), n2.handle(behave)]
        ask(n1, "t", b"1").get(timeout=WAIT)
        fail.set()
        futures = [ask(n1, "t", b"%d" % n) for n in range(2, 12)]
        n2.links.down.add("n1")  # acknowledgements are lost
        eventually(lambda: n2.view().warnings)
        fail.clear()
        eventually(lambda: not n2.view().warnings)
        n2.links.down.clear()
        assert [f.get(timeout=WAIT).seq for f in futures] == list(range(2, 12))
        for seen in notes:
            eventually(lambda seen=seen: [seq for _, seq, _ in seen] == list(range(1, 12)))
