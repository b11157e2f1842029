"""Servers that move: answers of another server at a peer's address, and the change that gives a server of the quorum its new address."""

from __future__ import annotations

import pytest

from coterie.actors.errors import AlreadyMember, UnknownMember, Unreachable
from coterie.actors.future import LightFuture
from coterie.actors.raft import election
from coterie.actors.raft.changes import QuorumChange
from coterie.actors.raft.node import Role
from coterie.actors.raft.ready import AppendToken, VoteToken
from coterie.proto.raft_messages import AppendResponse, Header, RpcError, VoteResponse
from tests.unit.raft_cluster import Member, RaftCluster, header


def campaigning() -> tuple[RaftCluster, Member]:
    """n1 of five campaigns in earnest; nobody has answered yet."""
    cluster = RaftCluster("n1", "n2", "n3", "n4", "n5")
    cluster.bootstrap("n1")
    cluster.pass_time(0.5)
    for name in ("n1", "n2", "n3", "n4", "n5"):
        cluster.restart(name)
    member = cluster["n1"]
    for peer in ("n2", "n3", "n4", "n5"):
        member.core.connected(peer, cluster.now)
    election.campaign(member.core._node, transfer=True)
    member.drain()
    return cluster, member


def test_one_server_at_two_addresses_has_one_vote() -> None:
    """Addresses were exchanged: n3 answers where n2, n4 and n5 were, too."""
    cluster, member = campaigning()
    core, term = member.core, member.core.term
    votes = [send for send in member.outgoing if isinstance(send.token, VoteToken)]
    assert {send.peer for send in votes} == {"n2", "n3", "n4", "n5"}
    for send in votes:
        core.response(send.peer, send.token, VoteResponse(header("n3"), term, granted=True), cluster.now)
    assert core.role is Role.CANDIDATE, "two votes of five: its own and that of n3"
    assert core.counters()["answers_of_others"] == 3


@pytest.mark.parametrize("wrapped", [False, True])
def test_copies_are_counted_for_the_server_that_has_them(wrapped: bool) -> None:
    cluster = RaftCluster("n1", "n2", "n3", "n4", "n5")
    leader = cluster.bootstrap("n1")
    cluster.cut_off = {"n1"}
    leader.core.propose([b"x"], [None], cluster.now)
    leader.drain()
    last = leader.core.last_index
    appends = [send for send in leader.outgoing if isinstance(send.token, AppendToken) and send.token.length]
    assert len(appends) == 4
    for send in appends:
        answer = AppendResponse(header("n3"), leader.core.term, last - 1, success=True)
        leader.core.response(send.peer, send.token, RpcError("no", answer) if wrapped else answer, cluster.now)
    assert leader.core.commit < last, "one copy beside the leader's own"
    assert {peer.id for peer in leader.core.progress() if peer.match == last} == (set() if wrapped else {"n3"})


def test_an_answer_that_names_nobody_counts_as_before() -> None:
    cluster = RaftCluster("n1", "n2", "n3")
    leader = cluster.bootstrap("n1")
    cluster.cut_off = {"n1"}
    leader.core.propose([b"x"], [None], cluster.now)
    leader.drain()
    send = next(s for s in leader.outgoing if isinstance(s.token, AppendToken) and s.token.length)
    leader.core.response(send.peer, send.token, AppendResponse(Header(), leader.core.term, 0, success=True), cluster.now)
    leader.drain()
    assert leader.core.commit == leader.core.last_index


# -- the change ------------------------------------------------------------------------------------------------------------------------


def moving(cluster: RaftCluster, server_id: str, address: str, me: str = "n1") -> QuorumChange:
    return QuorumChange("move", server_id, address, cluster.now + 10, LightFuture(), me)


def carried_out(cluster: RaftCluster, change: QuorumChange) -> object:
    outcome = None
    for _ in range(100):
        outcome = change.advance(cluster.leader().core, cluster.now)
        if outcome is not None:
            break
        cluster.pass_time(0.05)
    return outcome


def address_of(cluster: RaftCluster, server_id: str) -> str:
    server = cluster.leader().core.configuration.get(server_id)
    assert server is not None
    return server.address


@pytest.mark.parametrize("learner", [False, True])
def test_a_server_moves_once_it_has_said_at_its_new_address_who_it_is(learner: bool) -> None:
    cluster = RaftCluster("n1", "n2", "n3", nonvoters=("n4",))
    who = "n4" if learner else "n3"
    core = cluster.bootstrap("n1").core
    suffrage = core.configuration.get(who).suffrage  # type: ignore[union-attr]
    change = moving(cluster, who, "elsewhere:9520")
    assert change.check(core.configuration) is None
    assert (change.asks, change.ask_at) == (True, "elsewhere:9520")
    assert change.identified(Header(who, "elsewhere:9520"), None) is None
    assert carried_out(cluster, change) is True
    assert address_of(cluster, who) == "elsewhere:9520"
    assert core.configuration.get(who).suffrage == suffrage  # type: ignore[union-attr]
    assert moving(cluster, who, "elsewhere:9520").check(core.configuration) is True, "it may be repeated"


def test_a_stranger_does_not_get_the_place_of_a_server() -> None:
    cluster = RaftCluster("n1", "n2", "n3")
    core = cluster.bootstrap("n1").core
    change = moving(cluster, "n3", "elsewhere:9520")
    assert isinstance(change.identified(Header("stranger", "elsewhere:9520"), None), AlreadyMember)
    assert isinstance(moving(cluster, "n3", "elsewhere:9520").identified(None, Unreachable("nobody there")), Unreachable)
    assert isinstance(moving(cluster, "n9", "elsewhere:9520").check(core.configuration), UnknownMember)
    assert isinstance(moving(cluster, "n3", "n2:9520").check(core.configuration), AlreadyMember), "the place of another"


def test_a_leader_that_has_moved_is_looked_for_where_it_was() -> None:
    cluster = RaftCluster("n1", "n2", "n3")
    core = cluster.bootstrap("n1").core
    stays = moving(cluster, "n1", "elsewhere:9520")
    assert stays.check(core.configuration) is None
    assert stays.ask_at == "n1:9520"
    assert isinstance(stays.identified(Header("n1", "elsewhere:9520"), None), AlreadyMember), "it answers there: a name, or another network"
    for answer in ((None, Unreachable("nobody there")), (Header("n2", "n1:9520"), None)):
        goes = moving(cluster, "n1", "elsewhere:9520")
        assert goes.check(core.configuration) is None
        assert goes.identified(*answer) is None
    assert carried_out(cluster, goes) is True
    assert address_of(cluster, "n1") == "elsewhere:9520"
    assert cluster.leaders() == ["n1"]


def test_a_join_in_two_halves() -> None:
    cluster = RaftCluster("n1", "n2", "n3")
    cluster.members["n4"] = Member("n4", cluster.settings, cluster.now)
    core = cluster.bootstrap("n1").core
    learn = QuorumChange("learn", "n4", "n4:9520", cluster.now + 10, LightFuture(), "n1")
    assert learn.check(core.configuration) is None and learn.asks
    assert learn.identified(header("n4"), None) is None
    assert carried_out(cluster, learn) is True
    assert not core.configuration.is_voter("n4")
    assert QuorumChange("learn", "n4", "n4:9520", cluster.now + 10, LightFuture(), "n1").check(core.configuration) is True
    change = QuorumChange("promote", "n4", "", cluster.now + 10, LightFuture(), "n1")
    assert change.check(core.configuration) is None and not change.asks, "the learner is known"
    assert carried_out(cluster, change) is True
    assert core.configuration.is_voter("n4") and address_of(cluster, "n4") == "n4:9520"
