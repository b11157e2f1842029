"""The status, made of the views of the rooms."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from coterie.actors.management.requests import parse_status, status_document
from coterie.actors.messages import ClusterStatus, TopicStatus
from coterie.actors.node.status import combine
from coterie.actors.room_messages import Member, MembershipView, PeerView, RaftView, ReplicationView

MGMT = {"n1": "n1:17946", "n2": "n2:17946", "n3": "n3:17946"}


def voter(name: str, contact: float | None = 0.01, suffrage: str = "voter") -> PeerView:
    return PeerView(name, f"{name}:9520", suffrage, 10, contact)


def leading(*servers: PeerView, **fields: Any) -> RaftView:
    return RaftView(role="leader", term=3, leader_id="n1", ready=True, servers=servers, **fields)


def gossip(**states: str) -> MembershipView:
    return MembershipView(tuple(Member(name, f"{name}:7946", {"mgmt": MGMT.get(name, "")}, state) for name, state in states.items()))


def status(raft: RaftView, members: MembershipView, **more: Any) -> ClusterStatus:
    return combine("n1", raft, members, more.pop("replication", ReplicationView()), MGMT, **more)


ALL = gossip(n1="alive", n2="alive", n3="alive")
WELL = leading(voter("n1"), voter("n2"), voter("n3"))


def test_all_is_well() -> None:
    seen = status(WELL, ALL)
    assert (seen.healthy, seen.term, seen.leader_id, seen.leader_addr, seen.warnings) == (True, 3, "n1", "n1:17946", ())
    assert [(m.id, m.addr, m.state, m.suffrage, m.raft_addr) for m in seen.members] == [
        (n, f"{n}:7946", "alive", "voter", f"{n}:9520") for n in ("n1", "n2", "n3")
    ]
    assert (seen.answered_by, seen.role) == ("n1", "leader")


def test_a_server_that_nobody_hears_is_a_row_and_not_a_hole() -> None:
    seen = status(leading(voter("n1"), voter("n2"), voter("n3", 60.0), silent=frozenset({"n3"})), gossip(n1="alive", n2="alive"))
    row = seen.members[2]
    assert (row.id, row.state, row.suffrage, row.addr, row.raft_addr) == ("n3", "unknown", "voter", "", "n3:9520")
    assert seen.healthy
    assert any("n3" in warning and "one more failure" in warning for warning in seen.warnings)


@pytest.mark.parametrize(
    ("contact", "silent", "lives"), [(0.0, "", True), (0.4, "", True), (0.01, "n2", False), (60.0, "n2", False), (None, "", True)]
)
def test_a_leader_goes_by_its_own_contact_before_gossip(contact: float | None, silent: str, lives: bool) -> None:
    seen = status(leading(voter("n1"), voter("n2", contact), silent=frozenset({silent})), gossip(n1="alive", n2="alive"))
    assert seen.healthy is lives


def test_from_its_first_moment_a_new_leader_misses_the_one_that_died() -> None:
    """Gossip has it for alive for seconds yet, and the leadership is too young to have waited for it; but its connection is gone."""
    seen = status(leading(voter("n1"), voter("n2"), voter("n3", 0.05), silent=frozenset({"n3"})), ALL)
    assert seen.healthy
    assert seen.warnings == ("voters not heard: n3; one more failure stops all writes",)


def test_a_leader_without_a_quorum_is_not_healthy_and_says_so() -> None:
    seen = status(leading(voter("n1"), voter("n2", 9.0), voter("n3", 9.0), silent=frozenset({"n2", "n3"})), ALL)
    assert not seen.healthy
    assert any(w.startswith("no quorum: 1 of 3 voters live (n1), 2 are needed") for w in seen.warnings)


def test_a_follower_goes_by_gossip() -> None:
    raft = RaftView(role="follower", term=3, leader_id="n2", servers=(voter("n1", None), voter("n2", None), voter("n3", None)))
    assert status(raft, gossip(n1="alive", n2="alive", n3="failed")).healthy
    assert status(raft, gossip(n1="alive", n2="suspect", n3="failed")).healthy
    assert not status(raft, gossip(n1="alive", n2="failed", n3="failed")).healthy


def test_without_a_leader_nothing_is_healthy() -> None:
    seen = status(RaftView(role="candidate", term=4, servers=WELL.servers), ALL)
    assert (seen.healthy, seen.leader_id, seen.leader_addr) == (False, "", "")
    assert "no leader is known" in seen.warnings


def test_who_is_in_no_quorum_is_told_how_to_get_in() -> None:
    seen = status(RaftView(), gossip(n1="alive"))
    assert not seen.healthy
    assert "join it" in seen.warnings[0] and "bootstrap" in seen.warnings[0]


def test_who_left_is_history_unless_the_quorum_still_lists_it() -> None:
    seen = status(WELL, gossip(n1="alive", n2="alive", n3="left", n4="left"))
    assert [(m.id, m.state) for m in seen.members] == [("n1", "alive"), ("n2", "alive"), ("n3", "left")]


def test_members_outside_the_quorum_and_learners_are_warned_of() -> None:
    seen = status(leading(voter("n1"), voter("n2", suffrage="learner")), gossip(n1="alive", n2="alive", n5="failed", n6="alive"))
    assert seen.healthy
    assert [m.suffrage for m in seen.members] == ["voter", "learner", "none", "none"]
    assert any("n2 is a learner" in w for w in seen.warnings)
    assert any("member n5 at n5:7946 failed" in w for w in seen.warnings)
    assert not any("n6" in w for w in seen.warnings)


def test_what_was_dropped_stands_under_its_rooms_name_and_nothing_that_is_zero_or_ordinary() -> None:
    raft = leading(voter("n1"), counters={"raft server: garbage": 2, "late_answers": 0, "raft server: connections": 7, "elections": 1})
    members = MembershipView(ALL.members, {"packets dropped": 5, "packets sent": 9})
    seen = status(raft, members, replication=ReplicationView(counters={"no handler": 1}), management={"http: garbage": 3})
    assert seen.dropped == {
        "raft: server: garbage": 2,
        "gossip: packets dropped": 5,
        "replication: no handler": 1,
        "management: http: garbage": 3,
    }


def test_notes_come_first_and_the_replications_warnings_last() -> None:
    seen = status(WELL, ALL, replication=ReplicationView((TopicStatus("t", 9, 8),), 12, warnings=("slow",)), notes=("a", "b"))
    assert seen.warnings == ("a", "b", "slow")
    assert (seen.topics[0].seq, seen.applied_index) == (9, 12)


def test_what_a_node_waits_for_is_a_warning() -> None:
    assert "n3 has it" in combine("n1", attrs.evolve(WELL, waits_for="n3 has it"), ALL, ReplicationView(), MGMT).warnings


def test_a_go_leader_is_a_warning() -> None:
    go = Member("go1", "go1:1", {"mgmt": "go1:2"})
    raft = attrs.evolve(WELL, role="follower", leader_id="go1")
    said = combine("n1", raft, MembershipView((*ALL.members, go)), ReplicationView(), MGMT).warnings
    assert any(warning.startswith("a Go node leads: go1") and "take_over_from_go" in warning for warning in said)
    assert not any("Go node" in warning for warning in combine("n1", WELL, ALL, ReplicationView(), MGMT).warnings)


def test_how_many_topics_are_left_out_is_said_and_travels_to_followers() -> None:
    seen = status(WELL, ALL, replication=ReplicationView((TopicStatus("a", 1, 1, 1, {}),), left_out=7))
    assert seen.topics_left_out == 7
    document = status_document(seen)
    assert document["TopicsLeftOut"] == 7
    assert parse_status(document) == seen
