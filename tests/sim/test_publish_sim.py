"""Publishing under the simulator's faults; and planted bugs, to show that it would find them."""

from __future__ import annotations

from unittest import mock

import pytest

from coterie.actors.replication.buffer import BufferWrite
from coterie.actors.replication.state_machine import StateMachine
from tests.sim.kernel import InvariantViolated
from tests.sim.publish_world import Publishing, PublishState
from tests.sim.raft_world import run


@pytest.mark.parametrize("tens", range(3))
def test_every_record_has_one_place_for_ever(tens):
    for seed in range(1000 + 10 * tens, 1010 + 10 * tens):
        world = run(seed, application=Publishing)
        assert world.application.acknowledged, f"seed {seed} tested nothing"


def window_not_persisted(self):
    outcome = self.machine.take_outcome()
    self.buffer.write(BufferWrite(outcome.stored, {}, dict(self.cursors), self.machine.applied))


def applied_ahead_of_the_batches(self):
    outcome = self.machine.take_outcome()
    self.buffer.write(BufferWrite(outcome.stored[:-1], {}, {}, self.machine.applied, [r for _, r in outcome.ids if r]))


def applied_not_written(self):
    outcome = self.machine.take_outcome()
    self.buffer.write(BufferWrite((), {}, dict(self.cursors), None, ()))
    del outcome


def ids_not_looked_at(self, topic, records, first, index):
    return records, {}


def entries_applied_twice(self, index, term, batches):
    self.applied = (index, term)
    return [self._place(index, batch) for batch in batches if index % 7 or self._place(index, batch)]


def ids_lost_with_a_snapshot(self, next_seqs, applied, window, roster):
    become(self, next_seqs, applied, (), roster)


become = StateMachine.become


@pytest.mark.parametrize(
    ("target", "name", "bug"),
    [
        (PublishState, "write", window_not_persisted),
        (PublishState, "write", applied_ahead_of_the_batches),
        (PublishState, "write", applied_not_written),
        (StateMachine, "_unique", ids_not_looked_at),
        (StateMachine, "apply", entries_applied_twice),
        (StateMachine, "become", ids_lost_with_a_snapshot),
    ],
)
def test_a_planted_bug_is_found(target, name, bug):
    with mock.patch.object(target, name, bug):
        for seed in range(1000, 1060):
            try:
                run(seed, 3, Publishing)
            except (InvariantViolated, AssertionError, ValueError):
                return
    pytest.fail(f"{bug.__name__} was not found")
