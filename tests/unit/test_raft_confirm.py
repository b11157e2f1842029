"""Is this server still the leader? Asked of the quorum before anything is answered from the leader's state (ReadIndex). And whom does it not hear?"""

import pytest

from coterie.actors.raft import refusals
from tests.unit.raft_cluster import RaftCluster


def test_a_leader_is_confirmed_by_a_quorum_that_answers_what_was_sent_afterwards():
    cluster = RaftCluster("n1", "n2", "n3")
    leader = cluster.bootstrap("n1").core
    asked = cluster.now + 0.001
    assert not leader.confirm(asked, asked), "what was answered before says nothing"
    cluster.now = asked
    cluster.settle()
    assert leader.confirm(asked, asked)
    assert leader.confirm(asked - 1, asked)
    assert not leader.confirm(asked + 0.001, asked + 0.001), "each question needs an answer of its own"


def test_one_of_two_followers_is_enough():
    cluster = RaftCluster("n1", "n2", "n3")
    leader = cluster.bootstrap("n1").core
    cluster.stop("n3")
    cluster.now += 0.001
    assert not leader.confirm(cluster.now, cluster.now)
    cluster.settle()
    assert leader.confirm(cluster.now, cluster.now)


def test_a_leader_alone_needs_nobody():
    cluster = RaftCluster("n1")
    assert cluster.bootstrap("n1").core.confirm(cluster.now + 1, cluster.now + 1)


def test_a_leader_that_is_cut_off_is_never_confirmed_and_hears_why():
    cluster = RaftCluster("n1", "n2", "n3")
    old = cluster.bootstrap("n1").core
    cluster.cut_off = {"n1"}
    cluster.now += 0.001
    asked = cluster.now
    assert not old.confirm(asked, asked)
    cluster.settle()
    assert not old.confirm(asked, cluster.now)
    cluster.pass_time(5)
    assert set(cluster.leaders()) <= {"n2", "n3"}
    cluster.cut_off = set()
    cluster.pass_time(2)
    with pytest.raises(refusals.NotLeading):
        old.confirm(asked, cluster.now)


def test_a_deposed_leader_that_stood_still_is_not_confirmed_by_its_memory():
    """It wakes long after its lease, has not ticked yet, and is asked at once."""
    cluster = RaftCluster("n1", "n2", "n3")
    old = cluster.bootstrap("n1").core
    later = cluster.now + 30
    assert not old.confirm(later, later)


def test_a_peer_is_silent_when_its_connection_ends_or_it_has_not_answered_for_a_lease():
    cluster = RaftCluster("n1", "n2", "n3")
    leader = cluster.bootstrap("n1").core
    assert leader.silent(cluster.now) == frozenset()
    cluster.stop("n3")
    assert leader.silent(cluster.now) == {"n3"}
    cluster["n2"].stuck = True
    cluster.pass_time(cluster.settings.lease_timeout - 0.15)
    assert leader.silent(cluster.now) == {"n3"}
    assert leader.silent(cluster.now + 0.2) == {"n2", "n3"}
    cluster.restart("n3")
    cluster.pass_time(0.1)
    assert leader.silent(cluster.now) == {"n2"}
    assert cluster["n3"].core.silent(cluster.now) == frozenset(), "who does not lead hears nobody's answers"
