"""The shell around the Raft core, where it decides something itself."""

from __future__ import annotations

import time
from contextlib import contextmanager

import pytest

from coterie.actors.errors import NotLeader
from coterie.actors.raft.actor import REQUEST, RaftActor
from coterie.actors.raft.memory_log import MemoryLog
from coterie.actors.raft.node import Transfer
from coterie.actors.raft.settings import Settings
from coterie.actors.raft.sink import SetSink
from coterie.actors.room_messages import ChangeQuorum, GetRaftView, Propose
from coterie.proto.raft_codec import encode_configuration
from coterie.proto.raft_messages import COMMAND, CONFIGURATION, NOOP, AppendRequest, Configuration, Entry, Header, Server
from tests.product.wait import wait_for

WAIT = 10.0


@contextmanager
def alone():
    ref = RaftActor.start("n1", "127.0.0.1:0", MemoryLog(), Settings(), bootstrap=True)
    try:
        wait_for(lambda: ref.ask(GetRaftView()).ready, WAIT, "it leads")
        yield ref
    finally:
        ref.stop()


def hand_over(ref, seconds):
    """A hand-over to somebody who never takes it."""
    ref._actor_weakref().core._node.transfer = Transfer("n2", time.monotonic() + seconds)


def test_proposals_wait_for_the_end_of_a_hand_over_and_keep_their_order():
    with alone() as ref:
        last = ref.ask(GetRaftView()).last_index
        hand_over(ref, 0.5)
        older = [ref.ask(Propose(b"older %d" % n), block=False) for n in range(3)]
        ref.ask(GetRaftView())
        younger = ref.ask(Propose(b"younger"), block=False)
        assert [future.get(timeout=WAIT) for future in (*older, younger)] == [last + n for n in range(1, 5)]
        assert ref.ask(GetRaftView()).counters["proposals refused"] == 0


def test_proposals_of_an_earlier_leadership_are_refused():
    with alone() as ref, pytest.raises(NotLeader):
        ref.ask(Propose(b"late", term=1), timeout=WAIT)


def test_whoever_waits_is_answered_when_it_stops():
    with alone() as ref:
        hand_over(ref, 30.0)
        waits = ref.ask(Propose(b"waits"), block=False)
        change = ref.ask(ChangeQuorum("join", "n2", "127.0.0.1:1", time.monotonic() + 30.0), block=False)
        ref.ask(GetRaftView())
    with pytest.raises(NotLeader):
        waits.get(timeout=WAIT)
    assert change.error is not None


class Answers:
    """A leader's place on its connection."""

    def __init__(self, said):
        self._serving, self._said = self, said

    def deliver(self, answers):
        self._said.extend("answered" for _ in answers)


class Said(MemoryLog):
    """A log, and a sink of what is committed, which say in which order they are used."""

    def __init__(self):
        super().__init__()
        self.said = []

    def append(self, entries, hard_state=None, truncate_from=None):
        super().append(entries, hard_state, truncate_from)
        self.said += [f"stored {entry.index}" for entry in entries]

    def send(self, message):
        self.said += [f"committed {entry.index}" for entry, _ in message.entries]
        return True


def test_a_follower_stores_and_answers_before_it_hands_out_what_was_committed_earlier():
    log = Said()
    ref = RaftActor.start("n2", "127.0.0.1:0", log, Settings())
    header = Header("n1", "127.0.0.1:1")
    servers = Configuration((Server("n1", header.address), Server("n2", "127.0.0.1:2")))
    first = Entry(1, 1, CONFIGURATION, encode_configuration(servers))
    try:
        ref.ask(GetRaftView())
        ref.tell(SetSink(log))
        ref.tell((REQUEST, Answers(log.said), AppendRequest(header, 1, 0, 0, 0, (first, Entry(2, 1, NOOP, b""))), None))
        ref.ask(GetRaftView())
        ref.tell((REQUEST, Answers(log.said), AppendRequest(header, 1, 2, 1, 2, (Entry(3, 1, COMMAND, b"x"),)), None))
        ref.ask(GetRaftView())
    finally:
        ref.stop()
    assert log.said == ["stored 1", "stored 2", "answered", "stored 3", "answered", "committed 1", "committed 2"]
