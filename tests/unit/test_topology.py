"""The picture of the cluster, made of Raft's view and gossip's."""

from __future__ import annotations

from typing import Any

import attrs
from hypothesis import given
from hypothesis import strategies as st

from coterie.actors.messages import RosterMember
from coterie.actors.node.topology import leader_by_gossip, own_meta, topology
from coterie.actors.room_messages import Member, MembershipView, PeerView, RaftView


def member(name: str, state: str = "alive", **meta: str) -> Member:
    return Member(name, f"{name}:1", {"mgmt": f"{name}:2", "grpc": f"{name}:3", "raft": f"{name}:4"} | meta, state)


def raft(*servers: str, **fields: Any) -> RaftView:
    return RaftView(servers=tuple(PeerView(name, f"{name}:4", "voter") for name in servers), **fields)


def test_a_server_believes_its_raft_about_the_leader() -> None:
    gossip = MembershipView((member("n1"), member("n2", leads="9"), member("n3")))
    seen = topology("n1", raft("n1", "n2", "n3", term=4, leader_id="n3", role="follower"), gossip)
    assert (seen.term, seen.leader_id, seen.leads, seen.in_quorum) == (4, "n3", False, True)
    assert seen.grpc_addr == {"n1": "n1:3", "n2": "n2:3", "n3": "n3:3"}
    assert seen.mgmt_addr["n3"] == "n3:2"
    assert seen.live == {"n1", "n2", "n3"}


def test_who_is_in_no_quorum_believes_gossip_and_there_the_highest_term() -> None:
    gossip = MembershipView((member("n1", leads="3"), member("n2", leads="12"), member("n9")))
    seen = topology("n9", raft("n1", "n2", term=2, leader_id="n1"), gossip)
    assert (seen.term, seen.leader_id, seen.in_quorum) == (12, "n2", False)


def test_gossip_of_an_older_term_than_ones_own_tells_nothing() -> None:
    seen = topology("n9", raft("n1", term=7, leader_id="n1"), MembershipView((member("n9"), member("n2", leads="6"))))
    assert (seen.term, seen.leader_id) == (7, "n1")


def test_leading_needs_an_entry_of_the_own_term() -> None:
    gossip = MembershipView((member("n1"),))
    assert not topology("n1", raft("n1", term=1, leader_id="n1", role="leader", ready=False), gossip).leads
    assert topology("n1", raft("n1", term=1, leader_id="n1", role="leader", ready=True), gossip).leads


def test_failed_and_left_members_have_no_address_and_suspects_have() -> None:
    gossip = MembershipView((member("n1"), member("n2", "suspect"), member("n3", "failed"), member("n4", "left")))
    seen = topology("n1", raft("n1", "n3"), gossip)
    assert set(seen.grpc_addr) == set(seen.mgmt_addr) == seen.live == {"n1", "n2"}


def test_the_leader_has_addresses_also_while_gossip_has_it_for_dead() -> None:
    """After a cut of some seconds Raft is back at once, and gossip takes its time: publishes of that node waited for it."""
    gossip = MembershipView((member("n1"), member("n2", "failed"), member("n3", "failed"), member("n4", "left")))
    seen = topology("n1", raft("n1", "n2", "n3", term=3, leader_id="n2"), gossip)
    assert set(seen.grpc_addr) == set(seen.mgmt_addr) == {"n1", "n2"}
    assert seen.live == {"n1"}
    assert "n4" not in topology("n1", raft("n1", "n4", term=3, leader_id="n4"), gossip).grpc_addr


def test_a_member_of_another_make_has_no_grpc_address() -> None:
    go = Member("go1", "go1:1", {"mgmt": "go1:2"}, "alive")
    seen = topology("n1", raft("n1"), MembershipView((member("n1"), go)))
    assert "go1" in seen.live
    assert "go1" not in seen.grpc_addr
    assert seen.mgmt_addr["go1"] == "go1:2"


def test_of_which_make_a_member_is_stays_known_while_it_is_dead_and_not_when_it_has_left() -> None:
    go, mute = Member("go1", "go1:1", {"mgmt": "go1:2"}, "failed"), Member("x", "x:1", {})
    gossip = MembershipView((member("n1"), member("n2", "failed"), member("n3", "left"), go, mute))
    assert topology("n1", raft("n1"), gossip).makes == {"n1": True, "n2": True, "go1": False}


@given(st.dictionaries(st.text(max_size=3), st.text(max_size=6), max_size=5))
def test_no_claim_of_leadership_can_break_it(claims: dict[str, str]) -> None:
    term, name = leader_by_gossip({who: {"leads": claim} for who, claim in claims.items()})
    assert term >= 0
    assert (name in claims) or (term, name) == (0, "")


def test_only_a_leader_says_that_it_leads() -> None:
    addresses = {"mgmt": "a:1", "http": "a:1", "grpc": "a:2", "raft": "a:3", "gossip": "a:4"}
    assert own_meta(addresses, None) == {"mgmt": "a:1", "grpc": "a:2", "raft": "a:3"}
    assert own_meta(addresses, 7)["leads"] == "7"
    assert own_meta(addresses | {"mgmt": "a:2"}, None)["http"] == "a:1", "where gRPC sits on the management address, HTTP is told too"


def test_the_roster_should_be_the_voters_as_gossip_has_them_without_who_leads() -> None:
    gossip = MembershipView((member("n1", leads="4"), member("n2", "failed"), member("n9")))
    seen = topology("n1", raft("n1", "n2", "n3", term=4, leader_id="n1", role="leader"), gossip)
    assert seen.voters == (
        RosterMember("n1", "n1:1", {"mgmt": "n1:2", "grpc": "n1:3", "raft": "n1:4"}),
        RosterMember("n2", "n2:4", None),
        RosterMember("n3", "n3:4", None),
    )
    assert topology("n1", RaftView(servers=(PeerView("n4", "n4:4", "learner"),)), gossip).voters == ()


def test_a_management_address_without_a_host_has_the_gossips() -> None:
    def mgmt(told: str) -> str:
        return topology("n1", raft("n1"), MembershipView((member("n1"), Member("go1", "10.0.0.7:7946", {"mgmt": told})))).mgmt_addr["go1"]

    assert mgmt(":17946") == mgmt("0.0.0.0:17946") == "10.0.0.7:17946"
    assert (mgmt("go1.test:17946"), mgmt("nonsense")) == ("go1.test:17946", "nonsense")


def test_a_leader_that_stops_hands_over_to_one_of_ours() -> None:
    seen = topology("n1", raft("n1", "go1", "n2"), MembershipView((member("n1"), Member("go1", "go1:1", {"mgmt": "go1:2"}), member("n2"))))
    assert seen.heir(["go1", "n2"]) == "n2"
    assert seen.heir(["n2"]) is None
    assert seen.heir(["go1"]) is None
    assert attrs.evolve(seen, silent=frozenset({"n2"})).heir(["go1", "n2"]) is None
