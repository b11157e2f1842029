"""What hurt the users of Raft systems, one test for each wound that the core must not have. The threads are named in the docstrings."""

import pytest

from coterie.actors.raft.membership import AddVoter, RemoveServer
from coterie.actors.raft.memory_log import MemoryLog
from coterie.actors.raft.node import Role
from coterie.actors.raft.ready import BecameLeader, LeaderChanged, LostLeadership, SnapshotToken
from coterie.actors.raft.refusals import NotLeading
from coterie.actors.raft.settings import Settings
from coterie.actors.raft.snapshot_desk import SnapshotDesk
from coterie.proto.raft_messages import COMMAND, AppendResponse, Entry, VoteRequest
from coterie.transport.logs import Log
from tests.sim.bugs import planted
from tests.sim.disk import SimDisk
from tests.sim.kernel import InvariantViolated
from tests.sim.raft_world import run
from tests.unit.raft_cluster import Member, RaftCluster, header


def test_a_frozen_disk_does_not_keep_its_leadership() -> None:
    """hashicorp/raft 503, 612, 614, 666; etcd 13527, 15247: heartbeats go on while nothing commits."""
    cluster = RaftCluster("n1", "n2", "n3")
    one = cluster.bootstrap("n1")
    one.stuck = True
    cluster.propose(b"a")
    # What only memory and network need goes on; followers could commit without the leader's disk, so no client sees an outcome yet.
    cluster.pass_time(2 * cluster.settings.election_timeout)
    assert one.core.role is not Role.LEADER
    cluster.pass_time(6)
    assert one.core.role is Role.FOLLOWER, "who cannot store does not campaign"
    assert cluster.leaders() in (["n2"], ["n3"])


def test_a_late_reply_of_an_earlier_membership_advances_nothing() -> None:
    """etcd-io/raft 349: the server was removed, lost its log, and was added again, all over one connection of one leadership."""
    cluster = RaftCluster("n1", "n2", "n3")
    one = cluster.bootstrap("n1")
    one.core.propose([b"a"] * 5, [None] * 5, cluster.now)
    one.drain()
    late = next(send for send in one.outgoing if send.peer == "n3")
    cluster.settle()
    one.core.change(RemoveServer("n3"), None, cluster.now)
    cluster.settle()
    cluster.members["n3"] = Member("n3", cluster.settings, cluster.now, SimDisk())
    cluster.cut_off = {"n3"}
    one.core.change(AddVoter("n3", "n3:9520"), None, cluster.now)
    cluster.settle()
    one.core.response("n3", late.token, AppendResponse(header("n3"), one.core.term, 0, success=True), cluster.now)
    assert [view.match for view in one.core.progress() if view.id == "n3"] == [0]
    assert one.core.counters()["late_answers"] >= 1


def test_a_removed_server_disturbs_nobody() -> None:
    """hashicorp/raft 524: it never got the entry that removes it, and campaigns for ever."""
    cluster = RaftCluster("n1", "n2", "n3")
    one = cluster.bootstrap("n1")
    cluster.cut_off = {"n3"}
    one.core.change(RemoveServer("n3"), None, cluster.now)
    cluster.pass_time(5)
    cluster.cut_off = set()
    cluster.pass_time(10)
    assert cluster["n3"].core.configuration.is_voter("n3"), "it still believes to belong"
    assert cluster.leaders() == ["n1"]
    assert one.core.term == 2
    last = cluster["n2"].core.last_index
    assert not cluster["n2"].answer(VoteRequest(header("n3"), 99, last, 2), cluster.now).granted
    assert cluster["n2"].core.term == 2


@pytest.mark.parametrize("how", ["cut off", "stopped"])
def test_a_returning_node_does_not_depose_the_leader(how: str) -> None:
    """consul 1782, 2837: pre-vote and lease; no term is raised."""
    cluster = RaftCluster("n1", "n2", "n3")
    one = cluster.bootstrap("n1")
    if how == "cut off":
        cluster.cut_off = {"n3"}
    else:
        cluster.stop("n3")
    cluster.propose(b"a")
    cluster.pass_time(20)
    if how == "cut off":
        cluster.cut_off = set()
    else:
        cluster.restart("n3")
    cluster.pass_time(5)
    assert cluster.leaders() == ["n1"]
    assert one.core.term == cluster["n3"].core.term == 2
    assert cluster["n3"].commands() == [b"a"]
    assert not any(isinstance(event, LostLeadership) for event in one.events)


@pytest.mark.parametrize("how", ["cut off", "stopped"])
@pytest.mark.parametrize("dead", ["n1", "n2", "n3"])
def test_two_of_three_alive_find_a_leader(dead: str, how: str) -> None:
    """hashicorp/raft 606: a pre-vote refused to the only hope there is."""
    cluster = RaftCluster("n1", "n2", "n3")
    cluster.bootstrap("n1")
    if how == "cut off":
        cluster.cut_off = {dead}
    else:
        cluster.stop(dead)
    cluster.pass_time(2.5)
    alive = [name for name in cluster.leaders() if name != dead]
    assert len(alive) == 1
    cluster[alive[0]].core.propose([b"a"], [None], cluster.now)
    cluster.settle()
    assert cluster[alive[0]].commands() == [b"a"]


def test_each_leadership_is_told_once_in_order_with_its_term() -> None:
    """nomad 6977, 10437: leadership flaps faster than the application notices."""
    cluster = RaftCluster("n1", "n2", "n3")
    one = cluster.bootstrap("n1")
    for target in ("n2", "n1", "n3", "n1"):
        cluster.leader().core.transfer(target, cluster.now)
        cluster.settle()
    told = [event for event in one.events if isinstance(event, (BecameLeader, LostLeadership))]
    assert [(type(event), event.term) for event in told] == [
        (BecameLeader, 2),
        (LostLeadership, 2),
        (BecameLeader, 4),
        (LostLeadership, 4),
        (BecameLeader, 6),
    ]
    terms = [event.term for event in cluster["n2"].events if isinstance(event, LeaderChanged)]
    assert terms == sorted(terms)


@pytest.mark.parametrize("bug", ["vote_not_persisted", "acknowledged_before_durable", "own_copy_counts_unstored"])
def test_term_vote_and_log_are_durable_before_anybody_hears_of_them(bug: str) -> None:
    """PySyncObj 84, 202; Jepsen on NATS 2.12.1: crashes that lose what was not synced lose nothing acknowledged."""
    for seed in range(3):
        run(seed)
    with planted(bug), pytest.raises(InvariantViolated):
        for seed in range(30):
            run(seed)


def test_one_dead_node_slows_nobody() -> None:
    """Jepsen on TigerBeetle 0.16.11; hashicorp/raft 541: commands commit in one round without it, and its window does not grow."""
    cluster = RaftCluster("n1", "n2", "n3")
    one = cluster.bootstrap("n1")
    cluster.cut_off = {"n3"}
    for number in range(300):
        one.core.propose([b"%d" % number], [None], cluster.now)
        cluster.settle()
    assert len(one.commands()) == 300
    dead = next(view for view in one.core.progress() if view.id == "n3")
    assert dead.inflight <= cluster.settings.max_inflight


def test_a_leader_that_was_deposed_does_not_act_on_its_return() -> None:
    """etcd 15247: what it proposed alone never happens, and it says so."""
    cluster = RaftCluster("n1", "n2", "n3")
    one = cluster.bootstrap("n1")
    cluster.cut_off = {"n1"}
    one.core.propose([b"lost"], ["lost"], cluster.now)
    cluster.pass_time(4)
    (name,) = [name for name in cluster.leaders() if name != "n1"]
    cluster[name].core.propose([b"kept"], [None], cluster.now)
    cluster.settle()
    cluster.cut_off = set()
    cluster.pass_time(2)
    assert one.abandoned == ["lost"]
    assert {member.name: member.commands() for member in cluster.alive()} == {name: [b"kept"] for name in cluster.members}


def test_stale_reads_from_a_deposed_leader_are_never_confirmed() -> None:
    """Jepsen on etcd and Consul 2014, on Redis-Raft 2020: nothing is answered from a leader's state before a quorum confirmed it after the question."""
    cluster = RaftCluster("n1", "n2", "n3")
    old = cluster.bootstrap("n1")
    assert old.read("before", cluster.now) is None, "what the others said before the question says nothing"
    old.outgoing.clear()
    cluster.cut_off = {"n1"}
    cluster.settle()
    assert old.read("cut off", cluster.now + 0.001, lease=True), "its lease holds yet, and nobody else can lead"
    assert old.read("late", cluster.now + 60, lease=True) is None, "it stood still, and has not ticked yet"
    old.core._node.now = cluster.now
    cluster.pass_time(4)
    assert old.unconfirmed == ["before", "late"]
    (name,) = [name for name in cluster.leaders() if name != "n1"]
    cluster[name].core.propose([b"new"], [None], cluster.now)
    cluster.settle()
    for lease in (False, True):
        with pytest.raises(NotLeading):
            old.core.read_index("at last", cluster.now, lease)
    new = cluster[name]
    assert new.read("new", cluster.now) is None
    cluster.settle()
    assert new.answer_to("new") == new.core.last_index


def test_a_snapshot_that_fails_is_not_sent_in_a_loop_and_nothing_goes_while_one_is_on_its_way() -> None:
    """hashicorp/raft 212, consul 9609: the install is slower than the truncation, and begins again for ever."""
    cluster = RaftCluster("n1", "n2", "n3")
    one = cluster.bootstrap("n1")
    cluster.stop("n3")
    cluster.propose(b"a", b"b")
    cluster.pass_time(0.1)
    one.disk.compact(one.core.applied)
    cluster.allowed["n1", "n3"] = 1  # what comes after the first probe is lost
    cluster.restart("n3")
    cluster.pass_time(20)
    assert 2 <= one.core.counters()["snapshots_failed"] <= 7, "the pause between two of them grows"
    cluster.allowed = {}
    cluster.reconnect(("n1", "n3"))
    cluster.pass_time(2)
    assert cluster["n3"].commands() == [b"a", b"b"]

    log, told = MemoryLog(), []
    log.append([Entry(index, 1, COMMAND, b"x") for index in range(1, 1001)])
    desk = SnapshotDesk("n1", log, Settings(trailing_entries=10), None, lambda _: None, told.append, Log("test"), None)
    desk._compaction.appended(1000, 1000)
    desk._outgoing._latest["n3"] = SnapshotToken(1, 1)
    desk._compaction.allowed(1000, 1000)
    desk._step_at = 0.0
    assert desk.compact(5.0) == 6.0
    assert log.first_index == 1, "what follows the snapshot under way is still there"
    desk._outgoing._latest.clear()
    desk.compact(7.0)
    assert log.first_index == 991
