"""Membership in the simulator: storms of faults, calm weather, and proof that the simulator sees a broken core."""

from __future__ import annotations

import pytest

from coterie.actors.membership.rumours import Rumours
from coterie.actors.membership.suspicion import Suspicion
from coterie.proto.gossip_messages import ALIVE, DEAD, LEFT
from tests.sim.membership_world import MembershipWorld, run_membership


@pytest.mark.parametrize(("nodes", "seeds"), [(3, range(40)), (5, range(100, 140)), (32, range(200, 202))])
def test_storms_end_in_one_right_view(nodes, seeds):
    for seed in seeds:
        run_membership(seed, nodes)


def test_a_run_is_replayed_to_the_letter():
    def run():
        world = MembershipWorld(7, 5)
        for node in world.nodes.values():
            world.start(node)
        world.storm(30.0)
        return list(world.trace)

    assert run() == run()


def settled(seed, nodes):
    world = MembershipWorld(seed, nodes)
    for node in world.nodes.values():
        world.start(node)
    world.agree(within=40.0)
    return world


def state_of(world, observer, name):
    return {member.name: member.state for member in world.nodes[observer].core.members()}.get(name)


@pytest.mark.parametrize("nodes", [3, 5, 32])
def test_a_crash_is_found_by_all_and_nobody_else_is_blamed(nodes):
    world = settled(11, nodes)
    world.crash(world.nodes["n0"])
    took = world.run_until(lambda: all(state_of(world, node.name, "n0") == DEAD for node in world.up()), 60.0)
    assert took > world.settings.suspicion_bounds(nodes)[0]
    assert {failed for _, _, failed in world.failures} == {"n0"}


@pytest.mark.parametrize("nodes", [3, 5, 32])
def test_who_leaves_has_left_in_all_eyes_and_did_not_fail(nodes):
    world = settled(15, nodes)
    world.loss = 0.1
    world.leave(world.nodes["n1"])
    world.run(2.0)
    assert world.nodes["n1"].core.has_left()
    world.run(40.0)
    assert {state_of(world, node.name, "n1") for node in world.up()} == {LEFT}
    assert "n1" not in {failed for _, _, failed in world.failures}


def test_moderate_loss_declares_nobody_dead():
    world = settled(12, 5)
    world.loss = 0.05
    world.run(300.0)
    assert world.failures == []


def test_halves_of_a_long_partition_find_each_other_again():
    world = settled(13, 5)
    world.partition([world.nodes["n0"], world.nodes["n1"]], one_way=False)
    world.run(300.0)
    assert state_of(world, "n2", "n0") == DEAD
    assert state_of(world, "n0", "n1") == ALIVE
    world.heal()
    assert world.agree(within=30.0) < 30.0


@pytest.mark.parametrize("seed", range(5))
def test_a_node_that_hears_nobody_but_is_heard_declares_itself_ill_first(seed):
    world = settled(seed, 5)
    world.partition([node for node in world.nodes.values() if node.name != "n0"], one_way=True)
    world.run(6.0)
    assert world.nodes["n0"].core.health > 0


def test_all_restart_at_new_addresses_with_incarnation_1():
    world = settled(14, 5)
    for node in world.nodes.values():
        world.set_meta(node, b"later")
    world.run(5.0)
    for node in list(world.nodes.values()):
        world.crash(node)
        world.run(2.0)
        world.start(node, move=True)
    assert world.agree(within=60.0) < 60.0


# ---- deliberate bugs: the invariants can fail -------------------------------------------------------------------------------------


def seeds_that_fail(nodes, count):
    failed = 0
    for seed in range(count):
        try:
            run_membership(seed, nodes)
        except AssertionError as error:
            assert f"seed {seed}" in str(error)
            failed += 1
    return failed


def test_bug_no_refutation_is_caught(monkeypatch):
    monkeypatch.setattr(Rumours, "_refute", lambda *_: None)
    assert seeds_that_fail(3, 10) > 5


def test_bug_one_accuser_counted_twice_is_caught(monkeypatch):
    def confirm(self, accuser):
        if self.confirmations >= self.wanted:
            return False
        self.confirmations += 1
        self.deadline = self._started + self._timeout()
        return True

    monkeypatch.setattr(Suspicion, "confirm", confirm)
    assert seeds_that_fail(5, 20) > 0


def test_bug_old_alive_messages_believed_is_caught(monkeypatch):
    known = Rumours._alive_known

    def believe(self, peer, said, now):
        if said.incarnation < peer.incarnation:
            peer.adopt(said)
        known(self, peer, said, now)

    monkeypatch.setattr(Rumours, "_alive_known", believe)
    assert seeds_that_fail(3, 20) > 0
