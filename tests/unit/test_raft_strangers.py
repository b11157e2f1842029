"""Who is in no configuration cannot depose a leader that lives, whatever it says; and a true leader whose configuration is not known yet waits a moment only."""

from __future__ import annotations

import pytest

from coterie.actors.raft.node import Role
from coterie.proto.raft_messages import AppendRequest, AppendResponse, Entry, RpcError, TimeoutNowRequest, TimeoutNowResponse
from tests.unit.raft_cluster import Member, RaftCluster, header


def appends(sender: str, term: int, *entries: Entry) -> AppendRequest:
    return AppendRequest(header(sender), term, 0, 0, 0, entries or None)


@pytest.mark.parametrize("asked", ["n1", "n2"])
@pytest.mark.parametrize("ahead", [0, 1, 1000])
def test_a_strangers_append_request_is_refused_and_counted_while_the_leader_lives(asked: str, ahead: int) -> None:
    cluster = RaftCluster("n1", "n2", "n3")
    leader = cluster.bootstrap("n1")
    term, last, member = leader.core.term, cluster[asked].core.last_index, cluster[asked]
    answer = member.answer(appends("stranger", term + ahead, Entry(1, term + ahead, 0, b"x")), cluster.now)
    assert isinstance(answer, RpcError)
    assert (member.core.term, member.core.last_index, member.core.leader and member.core.leader.id) == (term, last, "n1")
    assert leader.core.role is Role.LEADER
    assert sum(member.core.counters().get(name, 0) for name in ("append_requests_of_strangers", "second_leader_of_term")) == 1


def test_once_the_leader_is_silent_an_unknown_leader_of_a_later_term_is_followed() -> None:
    cluster = RaftCluster("n1", "n2", "n3")
    term = cluster.bootstrap("n1").core.term
    member = cluster["n2"]
    later = cluster.now + cluster.settings.heartbeat_timeout
    assert member.answer(AppendRequest(header("n9"), term + 1, 0, 0, 0, None), later) == AppendResponse(
        header("n2"), term + 1, member.core.last_index, success=True
    )
    assert member.core.leader is not None
    assert member.core.leader.id == "n9"


def test_a_server_without_a_configuration_follows_whoever_adds_it() -> None:
    cluster = RaftCluster("n1", "n2")
    new = RaftCluster("n5")["n5"]
    assert isinstance(new.answer(AppendRequest(header("n1"), 3, 0, 0, 0, None), cluster.now), AppendResponse)
    assert isinstance(new.answer(AppendRequest(header("n2"), 4, 0, 0, 0, None), cluster.now), AppendResponse)


@pytest.mark.parametrize("sender", ["stranger", "n3"])
def test_only_the_leader_hands_leadership_over(sender: str) -> None:
    cluster = RaftCluster("n1", "n2", "n3")
    term = cluster.bootstrap("n1").core.term
    member = cluster["n2"]
    assert member.answer(TimeoutNowRequest(header(sender)), cluster.now) == TimeoutNowResponse(header("n2"))
    assert (member.core.role, member.core.term) == (Role.FOLLOWER, term)
    assert member.core.counters()["timeout_now_ignored"] == 1
    member.answer(TimeoutNowRequest(header("n1")), cluster.now)
    assert (member.core.role, member.core.term) == (Role.CANDIDATE, term + 1)


@pytest.mark.parametrize("behind", [0, 1, 5])
def test_a_server_of_another_cluster_takes_nothing_of_this_one_and_does_not_depose_its_leader(behind: int) -> None:
    """It was bootstrapped by mistake, or kept its old directory. Its log may agree with ours in index and term, and hold other entries all the same."""
    foreign = RaftCluster("n5")
    term = foreign.bootstrap("n5").core.term
    foreign.propose(b"theirs")
    foreign.settle()
    foreign.stop("n5")
    foreign.restart("n5")
    five = foreign["n5"]
    before = five.core.role, five.core.term, five.core.last_index, five.core.commit
    ours = Entry(before[2] + 1, term, 0, b"ours")
    answer = five.answer(AppendRequest(header("n1"), max(1, before[1] - behind), before[2], before[1], before[2] + 1, (ours,)), foreign.now)
    assert isinstance(answer, RpcError)
    assert answer.body is None
    assert (five.core.role, five.core.term, five.core.last_index, five.core.commit) == before


def test_the_only_voter_of_a_cluster_follows_no_stranger_before_it_has_elected_itself() -> None:
    foreign = RaftCluster("n5")
    foreign.bootstrap("n5")
    disk = foreign["n5"].disk
    just_started = Member("n5", foreign.settings, foreign.now, disk)
    assert just_started.core.role is Role.FOLLOWER
    term, last = just_started.core.term, just_started.core.last_index
    answer = just_started.answer(AppendRequest(header("n1"), term + 1, last, term, last, None), foreign.now)
    assert isinstance(answer, RpcError)
    assert (just_started.core.term, just_started.core.leader) == (term, None)
