"""Who decides alone: the only voter of a configuration, and not a server that has just the beginning of a log in which it once was the only one."""

from __future__ import annotations

from coterie.actors.raft.log import HardState
from coterie.actors.raft.node import Role
from coterie.actors.raft.settings import Settings
from coterie.proto.raft_codec import encode_configuration
from coterie.proto.raft_messages import COMMAND, CONFIGURATION, AppendRequest, AppendResponse, Configuration, Entry, RpcError, VoteRequest
from tests.sim.disk import SimDisk
from tests.unit.raft_cluster import Member, header, server

ALONE = Configuration((server("n1"),))
BEGINNING = (Entry(1, 1, CONFIGURATION, encode_configuration(ALONE)), Entry(2, 2, COMMAND, b"x"))


def catching_up() -> Member:
    """n1 has lost its disk, was added again, and n3, leader of term 7, has sent it the first two entries."""
    member = Member("n1", Settings(), 100.0)
    answer = member.answer(AppendRequest(header("n3"), 7, 0, 0, 2, BEGINNING), 100.0)
    assert isinstance(answer, AppendResponse) and answer.success
    assert member.core.configuration == ALONE
    return member


def wait(member: Member, seconds: float) -> None:
    end = 100.0 + seconds
    while (due := member.core.deadline()) <= end:
        member.core.tick(due)
        member.drain()


def test_a_server_that_catches_up_does_not_elect_itself_by_a_configuration_long_past() -> None:
    member = catching_up()
    wait(member, 60)
    assert (member.core.role, member.core.term) == (Role.FOLLOWER, 7)
    again = Member("n1", Settings(), 200.0, member.disk, applied=2)
    assert again.core.deadline() > 200.0
    assert isinstance(again.answer(AppendRequest(header("n3"), 7, 2, 2, 2, None), 200.0), AppendResponse), "and goes on following"


def test_a_vote_for_itself_is_withdrawn_when_another_leads_that_term() -> None:
    disk = SimDisk()
    disk.hard = HardState(7, "n1")
    member = Member("n1", Settings(), 100.0, disk)
    assert isinstance(member.answer(AppendRequest(header("n3"), 7, 0, 0, 2, BEGINNING), 100.0), AppendResponse)
    assert disk.hard == HardState(7, "n3")
    late = member.answer(VoteRequest(header("n2"), 7, 9, 7), 100.0)
    assert not late.granted, "nobody else gets its vote of that term"
    wait(member, 60)
    assert member.core.role is Role.FOLLOWER


def test_the_only_voter_leads_again_after_each_restart_and_gives_nobody_a_vote() -> None:
    member = Member("n1", Settings(), 100.0)
    member.core.bootstrap(ALONE, 100.0)
    for life in range(3):
        wait(member, 5)
        assert member.core.role is Role.LEADER
        assert not member.answer(VoteRequest(header("n9"), 50 + life, 99, 49), 100.0).granted
        assert isinstance(member.answer(AppendRequest(header("n9"), 50 + life, 0, 0, 0, None), 100.0), RpcError)
        assert member.core.role is Role.LEADER
        member = Member("n1", Settings(), 100.0, member.disk)
        assert member.core.deadline() == 100.0, "at once: there is nobody to wait for"


def test_the_last_voter_leads_when_the_leader_has_removed_itself() -> None:
    member = Member("n1", Settings(), 100.0)
    both = Configuration((server("n1"), server("n2")))
    entries = (Entry(1, 1, CONFIGURATION, encode_configuration(both)), Entry(2, 5, CONFIGURATION, encode_configuration(ALONE)))
    member.answer(AppendRequest(header("n2"), 5, 0, 0, 2, entries), 100.0)
    wait(member, 10)
    assert member.core.role is Role.LEADER
