"""What the state machine decided, on its way to the buffer, and how far Raft is told that it is applied."""

from __future__ import annotations

import pytest

from coterie.actors.replication import outcomes
from coterie.actors.replication.messages import Stored, WriteBatches
from coterie.actors.replication.metrics import NoMetrics
from coterie.actors.replication.outcomes import Outcomes
from coterie.actors.replication.state_machine import StateMachine
from coterie.actors.room_messages import Applied
from coterie.proto.record_batch import encode_batch


class Sink(list):
    send = list.append


class Way:
    """Applies entries of one record each, `size` bytes."""

    def __init__(self, size):
        self.machine, self.raft, self.writer = StateMachine(), Sink(), Sink()
        self.outcomes = Outcomes(self.machine, {}, self.raft, self.writer, Sink(), Sink(), NoMetrics())
        self.size = size

    def apply(self, entries):
        first = self.machine.applied[0] + 1
        for index in range(first, first + entries):
            self.machine.apply(index, 1, [encode_batch("t", 0, [b"x" * self.size])])
        self.outcomes.hand_out(first + entries - 1, entries, entries * self.size, {})

    def write(self):
        """The writer has stored all that it has been given."""
        batches = [batch for message in self.writer if message.__class__ is WriteBatches for batch in message.batches]
        self.writer.clear()
        self.outcomes.was_stored(Stored(0, {}, sum(len(batch.data) for batch in batches), len(batches)))

    def told(self):
        return [message.index for message in self.raft if message.__class__ is Applied]


@pytest.mark.parametrize(("bound", "most", "size"), [("MOST_BATCHES", 3000, 1), ("MOST_UNSTORED", 1 << 20, 600)])
def test_raft_is_not_told_of_more_while_the_writer_is_behind_in_batches_or_in_bytes(monkeypatch, bound, most, size):
    monkeypatch.setattr(outcomes, bound, most)
    way = Way(size)
    way.apply(1500)
    assert way.told() == [1500]
    way.apply(1600)
    assert way.told() == [1500]
    way.apply(10)
    way.write()
    assert way.told() == [1500, 3110]
    way.apply(1500)
    assert way.told() == [1500, 3110, 4610]


def test_what_is_behind_is_told_only_when_the_writer_is_within_the_bound_again(monkeypatch):
    monkeypatch.setattr(outcomes, "MOST_BATCHES", 1000)
    way = Way(1)
    way.apply(2500)
    way.outcomes.was_stored(Stored(0, {}, 0, 1400))
    assert way.told() == []
    way.outcomes.was_stored(Stored(0, {}, 0, 100))
    assert way.told() == [2500]
