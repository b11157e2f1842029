"""Publishing under the simulator's faults; and planted bugs, to show that it would find them."""

from __future__ import annotations

from collections import Counter
from unittest import mock

import pytest

from coterie.actors.replication import all_acks
from coterie.actors.replication.all_acks import AllAcks
from coterie.actors.replication.buffer import BufferWrite
from coterie.actors.replication.state_machine import StateMachine
from coterie.actors.replication.window import Window
from tests.sim.acks_world import AllAcked
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


# -- acks="all" ---------------------------------------------------------------------------------------------------------------------


def test_what_is_told_as_delivered_by_all_was_delivered_by_all():
    seen = Counter()
    for seed in range(2000, 2012):
        seen += run(seed, application=AllAcked).kernel.seen
    for what in ("delivered by all", "not delivered by all in time", "questions about acknowledgements"):
        assert seen[what] > 50, f"{what}: the seeds tested nothing"


def who_is_not_heard_has_it(self, acked):
    for member in self.members:
        self.acked[member] = acked.get(member, 1 << 60)


def a_quorum_is_enough(self, groups):
    for group in groups:
        least = sorted(group.acked.get(member, 0) for member in group.members)[(len(group.members) - 1) // 2]
        group.acked = dict.fromkeys(group.members, least)
    settle(self, groups)


def another_topic_counts_too(self, topic):
    return {node: max(acks.values(), default=0) for node, acks in self._acked.items()}


def what_was_asked_is_forgotten(self, number, payload, error, leader, now):
    group, members = self._questions.get(number, (None, ()))
    answered = answer(self, number, payload, error, leader, now)
    if group is not None and group.held and error is None:
        group.heard(dict.fromkeys(members, group.about))
    return answered


settle, answer = AllAcks._settle, AllAcks.answered


@pytest.mark.parametrize(
    ("target", "name", "bug"),
    [
        (all_acks._Group, "heard", who_is_not_heard_has_it),
        (AllAcks, "_settle", a_quorum_is_enough),
        (Window, "acked", another_topic_counts_too),
        (AllAcks, "answered", what_was_asked_is_forgotten),
    ],
)
def test_a_planted_bug_of_the_wait_is_found(target, name, bug):
    with mock.patch.object(target, name, bug):
        for seed in range(2000, 2060):
            try:
                run(seed, 3, AllAcked)
            except (InvariantViolated, AssertionError):
                return
    pytest.fail(f"{bug.__name__} was not found")
