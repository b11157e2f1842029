"""The shell around the Raft core, where it decides something itself."""

from __future__ import annotations

import time
from contextlib import contextmanager

import pytest

from coterie.actors.errors import NotLeader
from coterie.actors.raft.actor import RaftActor
from coterie.actors.raft.memory_log import MemoryLog
from coterie.actors.raft.node import Transfer
from coterie.actors.raft.settings import Settings
from coterie.actors.room_messages import ChangeQuorum, GetRaftView, Propose
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
