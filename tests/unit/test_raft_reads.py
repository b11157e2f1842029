"""From which index on may this server answer a read? It asks the quorum before anything is answered from its state (ReadIndex), or trusts its lease. And whom
does it not hear?"""

from random import Random

import pytest

from coterie.actors.raft import refusals
from coterie.actors.raft.core import RaftCore
from coterie.actors.raft.node import Role
from coterie.actors.raft.settings import CLOCK_MARGIN, Settings
from coterie.proto.raft_messages import VoteRequest
from tests.unit.raft_cluster import Member, RaftCluster, header, server


def heartbeats(member: Member) -> list[str]:
    """To whom requests without entries wait to leave."""
    return [send.peer for send in member.outgoing if not send.request.entries]


def test_a_leader_is_confirmed_by_a_quorum_that_answers_what_was_sent_afterwards():
    cluster = RaftCluster("n1", "n2", "n3")
    leader = cluster.bootstrap("n1")
    assert leader.read("r", cluster.now) is None, "what was answered before says nothing, and no time has passed since"
    cluster.settle()
    assert leader.answer_to("r") == leader.core.commit
    assert leader.read("s", cluster.now) is None, "each question needs answers of its own"


def test_one_round_serves_all_who_wait_and_the_next_all_who_come_meanwhile():
    cluster = RaftCluster("n1", "n2", "n3")
    leader = cluster.bootstrap("n1")
    before = len(cluster.sent)
    for number in range(1000):
        leader.core.read_index(number, cluster.now)
    leader.drain()
    assert heartbeats(leader) == ["n2", "n3"]
    for number in range(1000, 2000):
        leader.core.read_index(number, cluster.now)
        leader.drain()
    assert heartbeats(leader) == ["n2", "n3"], "the round under way is the only one"
    cluster.settle()
    assert [read.context for read in leader.confirmed] == list(range(2000))
    assert leader.core.counters()["read_rounds"] == 2
    assert leader.core.counters()["reads_by_round"] == 2000
    assert len(cluster.sent) - before == 4


def test_entries_that_leave_anyway_carry_the_round():
    cluster = RaftCluster("n1", "n2", "n3")
    leader = cluster.bootstrap("n1")
    leader.core.read_index("r", cluster.now)
    leader.core.propose([b"a"], [None], cluster.now)
    leader.drain()
    assert heartbeats(leader) == []
    index = leader.core.commit
    cluster.settle()
    assert leader.answer_to("r") == index, "what was committed when the round began"


def test_one_of_two_followers_is_enough():
    cluster = RaftCluster("n1", "n2", "n3")
    leader = cluster.bootstrap("n1")
    cluster.stop("n3")
    assert leader.read("r", cluster.now) is None
    cluster.settle()
    assert leader.answer_to("r")


def test_a_leader_alone_needs_nobody():
    cluster = RaftCluster("n1")
    assert cluster.bootstrap("n1").read("r", cluster.now + 1)


def test_a_leader_that_is_cut_off_is_never_confirmed_and_hears_why():
    cluster = RaftCluster("n1", "n2", "n3")
    old = cluster.bootstrap("n1")
    cluster.cut_off = {"n1"}
    old.read("r", cluster.now)
    cluster.settle()
    assert old.confirmed == []
    cluster.pass_time(5)
    assert set(cluster.leaders()) <= {"n2", "n3"}
    assert old.unconfirmed == ["r"]
    cluster.cut_off = set()
    cluster.pass_time(2)
    with pytest.raises(refusals.NotLeading):
        old.core.read_index("s", cluster.now)
    assert old.confirmed == []


def test_a_deposed_leader_that_stood_still_is_not_confirmed_by_its_memory():
    """It wakes long after its lease, has not ticked yet, and is asked at once, in whichever way."""
    cluster = RaftCluster("n1", "n2", "n3")
    old = cluster.bootstrap("n1")
    later = cluster.now + 30
    assert old.read("r", later) is None
    assert old.read("s", later, lease=True) is None


def test_a_shell_that_stops_can_answer_all_who_wait():
    cluster = RaftCluster("n1", "n2", "n3")
    leader = cluster.bootstrap("n1")
    leader.read("r", cluster.now)
    leader.read("s", cluster.now)
    assert leader.core.reading() == ["r", "s"]


# -- by the lease -------------------------------------------------------------------------------------------------------------------------


def test_the_lease_is_shorter_than_any_servers_patience_by_a_margin_for_clocks():
    for settings in (
        Settings(),
        Settings(disconnect_grace=5.0),
        Settings(heartbeat_timeout=0.1, lease_timeout=0.1),
        Settings(heartbeat_timeout=0.6, lease_timeout=0.01),
    ):
        shortest = min(settings.disconnect_grace, settings.heartbeat_timeout)
        assert settings.read_lease <= shortest * (1 - CLOCK_MARGIN)
        assert settings.read_lease < settings.lease_timeout
        assert settings.voters_hold <= shortest


def test_the_lease_ends_by_the_time_at_which_the_answered_request_was_sent():
    cluster = RaftCluster("n1", "n2", "n3")
    leader = cluster.bootstrap("n1")
    leader.read("r", cluster.now)  # makes the followers answer what is sent now
    cluster.settle()
    sent = cluster.now
    assert leader.read("s", sent + cluster.settings.read_lease - 0.001, lease=True) == leader.core.commit
    assert leader.core.counters()["reads_by_lease"] == 1
    assert leader.read("t", sent + cluster.settings.read_lease, lease=True) is None, "falls back to a round"
    cluster.settle()
    assert leader.answer_to("t") == leader.core.commit
    assert leader.core.counters()["read_rounds"] == 2


def test_who_never_answered_a_leader_is_nothing_its_lease_rests_on():
    """A new leader, and a voter that was just added, are in contact by convention; that licenses no read."""
    cluster = RaftCluster("n1", "n2", "n3")
    leader = cluster.bootstrap("n1")
    node = leader.core._node
    for progress in node.progress.values():
        progress.contact, progress.answered = cluster.now, float("-inf")
    assert leader.core.lease_valid(cluster.now), "it does not give up yet"
    assert leader.read("r", cluster.now, lease=True) is None


def test_no_lease_is_trusted_after_leadership_was_offered():
    cluster = RaftCluster("n1", "n2", "n3")
    leader = cluster.bootstrap("n1")
    cluster.allowed["n1", "n2"] = 0
    leader.core.transfer("n2", cluster.now)
    cluster.settle()
    assert leader.read("r", cluster.now, lease=True) is None
    cluster.settle()
    assert leader.answer_to("r"), "n3 confirms the round"
    cluster.allowed = {}
    cluster.reconnect(("n1", "n2"))
    cluster.pass_time(3)
    assert leader.core.role is Role.LEADER and not leader.core.transferring
    assert leader.read("s", cluster.now, lease=True) is None, "the offer may arrive late"


def test_a_server_that_restarts_within_a_lease_keeps_the_vote_that_its_earlier_life_owed():
    cluster = RaftCluster("n1", "n2", "n3")
    cluster.bootstrap("n1")
    ended, disk = cluster.now, cluster["n2"].disk
    for since, granted in ((0.0, False), (cluster.settings.read_lease, False), (cluster.settings.voters_hold, True)):
        now = ended + since
        core = RaftCore(
            server("n2"),
            cluster.settings,
            disk,
            disk.hard,
            disk.configuration(),
            disk.configuration_before,
            0,
            now,
            Random(1),
            lived_until=ended,
        )
        core.request("vote", VoteRequest(header("n3"), 9, disk.last_index, disk.last_term), now)
        ready = core.ready()
        assert ready is not None and ready.replies[0][1].granted is granted, since


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
