"""Elections: who may lead, who is asked, and who is not disturbed."""

import pytest

from coterie.actors.raft import refusals
from coterie.actors.raft.node import Role
from coterie.actors.raft.ready import BecameLeader, ElectionEnded, ElectionStarted, LeaderChanged, LostLeadership, Send, TransferFailed
from coterie.proto.raft_messages import (
    COMMAND,
    AppendRequest,
    AppendResponse,
    Configuration,
    Entry,
    Header,
    PreVoteRequest,
    PreVoteResponse,
    RpcError,
    TimeoutNowRequest,
    TimeoutNowResponse,
    VoteRequest,
    VoteResponse,
)
from tests.unit.raft_cluster import RaftCluster, header, server


def test_a_server_alone_elects_itself_at_once_and_commits_when_stored() -> None:
    cluster = RaftCluster("n1")
    one = cluster["n1"]
    one.core.bootstrap(cluster.configuration, cluster.now)
    one.core.tick(cluster.now)
    cluster.settle()
    assert (one.core.role, one.core.term) == (Role.LEADER, 2)
    one.stuck = True
    cluster.propose(b"a")
    assert one.commands() == []
    one.stuck = False
    cluster.settle()
    assert one.commands() == [b"a"]
    assert one.contexts[-1] == b"a"


def test_its_own_vote_counts_only_when_it_is_on_disk() -> None:
    cluster = RaftCluster("n1")
    one = cluster["n1"]
    one.core.bootstrap(cluster.configuration, cluster.now)
    one.stuck = True
    one.core.tick(cluster.now)
    cluster.settle()
    assert one.core.role is Role.CANDIDATE
    one.stuck = False
    cluster.settle()
    assert one.core.role is Role.LEADER


def test_events_tell_the_story_of_an_election() -> None:
    cluster = RaftCluster("n1", "n2", "n3")
    one = cluster.bootstrap("n1")
    kinds = [type(event) for event in one.events]
    story = [ElectionStarted, ElectionEnded, ElectionStarted, ElectionEnded, LeaderChanged, BecameLeader]
    assert [kind for kind in kinds if kind in story] == story
    assert cluster["n2"].events[-1] == LeaderChanged(2, server("n1")) or LeaderChanged(2, server("n1")) in cluster["n2"].events


def test_the_next_leader_comes_within_a_second_of_a_process_dying() -> None:
    cluster = RaftCluster("n1", "n2", "n3")
    cluster.bootstrap("n1")
    died = cluster.now
    cluster.stop("n1")
    while not cluster.leaders():
        cluster.pass_time(0.02)
    assert cluster.now - died < 0.4


def test_a_connection_that_broke_alone_deposes_nobody() -> None:
    cluster = RaftCluster("n1", "n2", "n3")
    cluster.bootstrap("n1")
    term = cluster["n1"].core.term
    for name in ("n2", "n3"):
        cluster[name].core.disconnected("n1", cluster.now)
        cluster[name].core.connected("n1", cluster.now)
    cluster.pass_time(3)
    assert cluster.leaders() == ["n1"]
    assert cluster["n1"].core.term == term


def test_a_vote_is_given_again_to_the_same_candidate_and_to_no_other() -> None:
    cluster = RaftCluster("n1", "n2", "n3")
    one = cluster["n1"]
    one.core.bootstrap(cluster.configuration, cluster.now)
    ask = VoteRequest(header("n2"), 5, 10, 1)
    assert one.answer(ask, cluster.now) == VoteResponse(one.core._node.header, 5, True)
    assert one.answer(ask, cluster.now).granted
    assert not one.answer(VoteRequest(header("n3"), 5, 10, 1), cluster.now).granted
    assert one.disk.hard.voted_for == "n2"


def test_a_server_without_an_id_is_known_by_its_address() -> None:
    cluster = RaftCluster("n1", "n2")
    one = cluster["n1"]
    one.core.bootstrap(cluster.configuration, cluster.now)
    assert one.answer(VoteRequest(Header("", "n2:9520"), 5, 10, 1), cluster.now).granted
    assert one.disk.hard.voted_for == "n2"


def test_a_log_behind_gets_no_vote_but_its_term_counts() -> None:
    cluster = RaftCluster("n1", "n2")
    one = cluster["n1"]
    one.core.bootstrap(cluster.configuration, cluster.now)
    assert one.answer(VoteRequest(header("n2"), 9, 0, 0), cluster.now) == VoteResponse(header("n1"), 9, False)
    assert one.core.term == 9


def test_who_is_not_in_the_configuration_gets_no_vote_and_raises_no_term() -> None:
    cluster = RaftCluster("n1", "n2")
    one = cluster["n1"]
    one.core.bootstrap(cluster.configuration, cluster.now)
    assert one.answer(VoteRequest(header("n9"), 9, 99, 9), cluster.now) == VoteResponse(header("n1"), 1, False)
    assert one.answer(PreVoteRequest(header("n9"), 9, 99, 9), cluster.now) == PreVoteResponse(header("n1"), 1, False)
    assert one.core.term == 1


@pytest.mark.parametrize("known", ["not at all", "as a nonvoter"])
def test_a_configuration_that_may_be_behind_blocks_nobody_for_ever(known: str) -> None:
    """n1 missed the entry that made n2 a voter; n2's quorum needs n1's vote (found by the simulator: no leader ever again)."""
    cluster = RaftCluster("n1", "n3", nonvoters=("n2",) if known == "as a nonvoter" else ())
    one = cluster["n1"]
    one.core.bootstrap(cluster.configuration, cluster.now)
    one.drain()
    ask = PreVoteRequest(header("n2"), 9, 31, 2)
    assert not one.answer(ask, cluster.now + 3.9).granted
    assert one.answer(ask, cluster.now + 4.1).granted
    assert one.answer(VoteRequest(header("n2"), 9, 31, 2), cluster.now + 4.1).granted
    assert not one.answer(PreVoteRequest(header("n4"), 10, 0, 0), cluster.now + 4.1).granted, "its log is behind: it was removed, not added"


def test_a_server_without_a_configuration_votes_for_whoever_asks() -> None:
    cluster = RaftCluster("n1")
    assert cluster["n1"].answer(VoteRequest(header("n9"), 9, 0, 0), cluster.now).granted


def test_while_a_leader_lives_nobody_else_gets_a_vote_unless_it_hands_over() -> None:
    cluster = RaftCluster("n1", "n2", "n3")
    cluster.bootstrap("n1")
    two, last = cluster["n2"], cluster["n2"].core.last_index
    assert not two.answer(VoteRequest(header("n3"), 9, last, 2), cluster.now).granted
    assert not two.answer(PreVoteRequest(header("n3"), 9, last, 2), cluster.now).granted
    assert two.core.term == 2
    assert two.answer(VoteRequest(header("n3"), 9, last, 2, leadership_transfer=True), cluster.now).granted


def test_a_would_be_vote_carries_the_term_asked_for_and_changes_nothing() -> None:
    cluster = RaftCluster("n1", "n2")
    one = cluster["n1"]
    one.core.bootstrap(cluster.configuration, cluster.now)
    assert one.answer(PreVoteRequest(header("n2"), 7, 1, 1), cluster.now) == PreVoteResponse(header("n1"), 7, True)
    assert (one.core.term, one.disk.hard.voted_for) == (1, "")


@pytest.mark.parametrize(("answer", "goes_on"), [(RpcError("rpc: unexpected command: 4"), True), (RpcError("other"), False), (None, False)])
def test_a_peer_without_pre_vote_counts_as_willing(answer: RpcError | None, goes_on: bool) -> None:
    cluster = RaftCluster("n1", "n2")
    one = cluster["n1"]
    one.core.bootstrap(cluster.configuration, cluster.now)
    one.drain()
    one.core.connected("n2", cluster.now)
    one.core.tick(cluster.now + 5)
    one.drain()
    (send,) = one.outgoing
    one.core.response("n2", send.token, answer, cluster.now + 5)
    assert (one.core.role is Role.CANDIDATE) == goes_on


@pytest.mark.parametrize("configured", ["nobody", "as a nonvoter"])
def test_who_has_no_vote_never_campaigns(configured: str) -> None:
    cluster = RaftCluster("n1", nonvoters=("n2",))
    two = cluster["n2"]
    if configured == "as a nonvoter":
        cluster.bootstrap("n1")
        assert not two.core.configuration.is_voter("n2")
        cluster.stop("n1")
    cluster.pass_time(10)
    assert two.core.role is Role.FOLLOWER
    assert not any(isinstance(event, ElectionStarted) for event in two.events)
    assert two.answer(TimeoutNowRequest(header("n1")), cluster.now) == TimeoutNowResponse(header("n2"))
    assert two.core.role is Role.FOLLOWER


def test_a_leader_that_is_cut_off_gives_up_within_its_lease() -> None:
    cluster = RaftCluster("n1", "n2", "n3")
    one = cluster.bootstrap("n1")
    assert one.core.lease_valid(cluster.now)
    one.core.propose([b"a", b"b"], ["a", None], cluster.now)
    cluster.cut_off = {"n1"}
    cluster.pass_time(0.75)
    assert not one.core.lease_valid(cluster.now)
    assert [event for event in one.events if isinstance(event, LostLeadership)] == [
        LostLeadership(2, "no answer of a quorum within the lease")
    ]
    assert one.abandoned == ["a"]
    with pytest.raises(refusals.NotLeading):
        one.core.propose([b"c"], [None], cluster.now)


def test_a_leader_whose_followers_answer_late_but_steadily_goes_on() -> None:
    """Each answer belongs to a request that was sent longer than a lease ago: the others' disks are slow, and there is a queue before them."""
    cluster = RaftCluster("n1", "n2", "n3")
    one = cluster.bootstrap("n1")
    late: list[tuple[float, Send]] = []
    for step in range(80):
        cluster.now += 0.05
        one.core.propose([b"x"], [None], cluster.now)
        one.core.tick(cluster.now)
        one.drain()
        late += [(cluster.now + min(0.7, 0.02 * step), send) for send in one.outgoing]
        one.outgoing = []
        due, late = [send for at, send in late if at <= cluster.now], [(at, send) for at, send in late if at > cluster.now]
        for send in due:
            one.core.response(send.peer, send.token, cluster[send.peer].answer(send.request, cluster.now), cluster.now)
    assert one.core.role is Role.LEADER
    assert not one.core.lease_valid(cluster.now), "that they are followed now is not known"
    assert len(one.commands()) > 30


def test_leadership_is_handed_over_without_waiting() -> None:
    cluster = RaftCluster("n1", "n2", "n3")
    one = cluster.bootstrap("n1")
    began = cluster.now
    one.core.transfer("n3", cluster.now)
    with pytest.raises(refusals.TransferInProgress):
        one.core.propose([b"x"], [None], cluster.now)
    cluster.settle()
    assert cluster.leaders() == ["n3"]
    assert cluster.now == began


def test_a_transfer_to_a_dead_server_is_given_up() -> None:
    cluster = RaftCluster("n1", "n2", "n3")
    one = cluster.bootstrap("n1")
    cluster.stop("n3")
    one.core.transfer("n3", cluster.now)
    cluster.pass_time(1.2)
    assert any(isinstance(event, TransferFailed) and event.target == "n3" for event in one.events)
    cluster.propose(b"x")
    assert one.commands() == [b"x"]
    with pytest.raises(refusals.UnknownServer, match="n9"):
        one.core.transfer("n9", cluster.now)


def test_who_knows_that_it_lacks_entries_takes_nothing_over() -> None:
    cluster = RaftCluster("n1", "n2", "n3")
    cluster.bootstrap("n1")
    three, term = cluster["n3"].core, cluster["n3"].core.term
    last = three.last_index
    request = AppendRequest(header("n1"), term, last + 3, term, last, ())
    assert not cluster["n3"].answer(request, cluster.now).success
    assert not three.take_over("n1", cluster.now)
    # hashicorp's heartbeat, with zeros, says nothing about a log.
    assert cluster["n3"].answer(AppendRequest(header("n1"), term, 0, 0, 0, ()), cluster.now).success
    assert not three.take_over("n1", cluster.now)
    assert cluster["n3"].answer(AppendRequest(header("n1"), term, last, term, last, ()), cluster.now).success
    assert three.take_over("n1", cluster.now)
    cluster.settle()
    assert cluster.leaders() == ["n3"]


def test_a_disk_that_has_not_answered_takes_nothing_over() -> None:
    cluster = RaftCluster("n1", "n2", "n3")
    cluster.bootstrap("n1")
    three = cluster["n3"]
    last = three.core.last_index
    three.core.request(object(), AppendRequest(header("n1"), 2, last, 2, last, (Entry(last + 1, 2, COMMAND, b"x"),)), cluster.now)
    assert not three.core.take_over("n1", cluster.now)
    ready = three.core.ready()
    assert ready is not None and ready.entries
    assert not three.core.take_over("n1", cluster.now)
    three.disk.write(ready.entries, ready.hard_state, ready.truncate_from)
    three.core.stored(three.disk.last_index, three.disk.last_term)
    assert three.core.take_over("n1", cluster.now)


def test_only_an_empty_server_is_bootstrapped_and_only_with_itself() -> None:
    cluster = RaftCluster("n1", "n2")
    one = cluster["n1"]
    with pytest.raises(refusals.UnknownServer):
        one.core.bootstrap(Configuration((server("n2"),)), cluster.now)
    one.core.bootstrap(cluster.configuration, cluster.now)
    one.drain()
    with pytest.raises(refusals.NotEmpty, match="last index 1"):
        one.core.bootstrap(cluster.configuration, cluster.now)


def test_two_leaders_of_one_term_are_refused_aloud() -> None:
    cluster = RaftCluster("n1", "n2", "n3")
    one = cluster.bootstrap("n1")
    answer = one.answer(AppendRequest(header("n2"), one.core.term, 0, 0, 0, None), cluster.now)
    assert isinstance(answer, RpcError)
    assert one.core.role is Role.LEADER
    assert one.core.counters()["second_leader_of_term"] == 1


def test_an_answer_of_a_later_term_ends_a_leadership() -> None:
    cluster = RaftCluster("n1", "n2", "n3")
    one = cluster.bootstrap("n1")
    one.core.propose([b"x"], [None], cluster.now)
    one.drain()
    send = next(send for send in one.outgoing if send.peer == "n2")
    one.core.response("n2", send.token, AppendResponse(header("n2"), 7, 1, success=False), cluster.now)
    assert (one.core.role, one.core.term) == (Role.FOLLOWER, 7)


def test_a_voter_whose_connection_broke_before_its_answer_is_asked_again_when_there_is_a_new_one() -> None:
    cluster = RaftCluster("n1", "n2", "n3")
    cluster.bootstrap("n1")
    two = cluster["n2"]
    cluster.stop("n1")
    two.core.tick(cluster.now + 10)
    two.drain()
    (asked,) = [send for send in two.outgoing if send.peer == "n3"]
    two.outgoing = []
    two.core.response("n3", asked.token, None, cluster.now + 10)
    two.core.disconnected("n3", cluster.now + 10)
    two.core.connected("n3", cluster.now + 10.1)
    two.drain()
    (again,) = [send for send in two.outgoing if send.peer == "n3"]
    assert again.request == asked.request
