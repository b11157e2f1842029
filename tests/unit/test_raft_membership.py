"""Configuration changes: one server at a time, in force on append, back on truncation."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.actors.raft import refusals
from coterie.actors.raft.membership import AddNonvoter, AddVoter, Change, Configurations, RemoveServer, changed, quorum
from coterie.actors.raft.node import Role
from coterie.actors.raft.ready import ConfigurationChanged, LostLeadership
from coterie.proto.raft_codec import decode_configuration, encode_configuration
from coterie.proto.raft_messages import CONFIGURATION, NONVOTER, VOTER, AppendRequest, Configuration, Entry, Server
from tests.unit.raft_cluster import Member, RaftCluster, header, server

TWO = Configuration((server("n1"), server("n2")))


def test_a_learner_gets_the_log_and_then_a_vote() -> None:
    cluster = RaftCluster("n1")
    one = cluster.bootstrap("n1")
    cluster.members["n2"] = Member("n2", cluster.settings, cluster.now)
    cluster.propose(b"a")
    one.core.change(AddNonvoter("n2", "n2:9520"), "learner", cluster.now)
    cluster.settle()
    assert cluster["n2"].commands() == [b"a"]
    assert one.contexts[-1] == "learner"
    one.core.change(AddVoter("n2", "n2:9520"), "voter", cluster.now)
    cluster.settle()
    assert [peer.suffrage for peer in cluster["n2"].core.configuration.servers] == [VOTER, VOTER]
    cluster.gone.add("n2")
    one.core.propose([b"b"], [None], cluster.now)
    cluster.settle()
    assert one.commands() == [b"a"], "two voters: nothing commits without the second"


def test_one_change_at_a_time_and_none_before_the_leaders_own_entry() -> None:
    cluster = RaftCluster("n1", "n2", "n3")
    one = cluster.bootstrap("n1")
    cluster.gone = {"n2", "n3"}
    index = one.core.change(RemoveServer("n3"), None, cluster.now)
    with pytest.raises(refusals.ChangeInProgress, match=f"index {index}"):
        one.core.change(AddNonvoter("n4", "n4:9520"), None, cluster.now)
    fresh = RaftCluster("n1", "n2")
    fresh["n1"].core.bootstrap(fresh.configuration, fresh.now)
    fresh["n1"].stuck = False
    fresh["n2"].stuck = True
    with pytest.raises(refusals.NotLeading):
        fresh["n2"].core.change(RemoveServer("n1"), None, fresh.now)


def test_a_new_leader_changes_nothing_before_its_no_op_is_committed() -> None:
    cluster = RaftCluster("n1")
    one = cluster["n1"]
    one.core.bootstrap(cluster.configuration, cluster.now)
    one.drain()
    one.core.tick(cluster.now)
    ready = one.core.ready()
    assert ready is not None
    one.disk.write(ready.entries, ready.hard_state, ready.truncate_from)
    one.core.stored(one.disk.last_index, one.disk.last_term)
    assert one.core.role is Role.LEADER
    with pytest.raises(refusals.NoEntryInTerm, match="term 2"):
        one.core.change(AddVoter("n2", "n2:9520"), None, cluster.now)


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        (AddVoter("n2", "n2:9520"), refusals.AlreadyMember),
        (AddNonvoter("n2", "elsewhere:1"), refusals.AlreadyMember),
        (AddVoter("n3", "n2:9520"), refusals.AddressInUse),
        (RemoveServer("n3"), refusals.UnknownServer),
    ],
)
def test_changes_that_make_no_sense_are_refused(change: Change, refusal: type[refusals.Refusal]) -> None:
    with pytest.raises(refusal):
        changed(TWO, change)


def test_the_last_voter_stays() -> None:
    with pytest.raises(refusals.LastVoter, match="n1"):
        changed(Configuration((server("n1"), server("n2", NONVOTER))), RemoveServer("n1"))


def test_a_server_may_move_to_another_address() -> None:
    assert changed(TWO, AddVoter("n2", "new:1")).get("n2") == Server("n2", "new:1", VOTER)


def test_a_leader_that_is_removed_leads_until_that_is_committed() -> None:
    cluster = RaftCluster("n1", "n2", "n3")
    one = cluster.bootstrap("n1")
    one.core.change(RemoveServer("n1"), None, cluster.now)
    assert one.core.role is Role.LEADER
    cluster.settle()
    assert LostLeadership(2, "this server was removed from the voters") in one.events
    cluster.pass_time(4)
    assert cluster.leaders() in (["n2"], ["n3"])
    assert cluster.leader().core.configuration.get("n1") is None
    assert one.core.role is Role.FOLLOWER


def test_a_removed_server_learns_it_and_is_then_dropped() -> None:
    cluster = RaftCluster("n1", "n2", "n3")
    one = cluster.bootstrap("n1")
    one.core.change(RemoveServer("n3"), None, cluster.now)
    cluster.settle()
    assert cluster["n3"].core.configuration.get("n3") is None
    assert [view.id for view in one.core.progress()] == ["n2"]
    assert [peer.id for peer in one.core.peers()] == ["n2"]


def test_a_removed_server_that_is_dead_is_dropped_after_an_election_time_out() -> None:
    cluster = RaftCluster("n1", "n2", "n3")
    one = cluster.bootstrap("n1")
    cluster.stop("n3")
    one.core.change(RemoveServer("n3"), None, cluster.now)
    cluster.settle()
    assert [(view.id, view.leaving) for view in one.core.progress()] == [("n2", False), ("n3", True)]
    assert Server("n3", "n3:9520") in one.core.peers()
    cluster.pass_time(1.1)
    assert [view.id for view in one.core.progress()] == ["n2"]


def test_a_removed_server_that_was_long_silent_is_not_told() -> None:
    cluster = RaftCluster("n1", "n2", "n3")
    one = cluster.bootstrap("n1")
    cluster.stop("n3")
    cluster.pass_time(1.5)
    one.core.change(RemoveServer("n3"), None, cluster.now)
    cluster.pass_time(0.1)
    assert [view.id for view in one.core.progress()] == ["n2"]


def test_a_server_tells_its_removal_from_one_that_was_before_its_start() -> None:
    """It was taken out while it was down, and is up again before the leader has ceased to tell it."""
    cluster = RaftCluster("n1", "n2", "n3", "n4")
    one = cluster.bootstrap("n1")
    cluster.propose(b"x")
    one.core.change(RemoveServer("n4"), None, cluster.now)
    cluster.settle()
    assert cluster["n4"].core.configuration.get("n4") is None
    assert cluster["n4"].core.configuration_is_news, "it ran then"

    cluster.stop("n3")
    one.core.change(RemoveServer("n3"), None, cluster.now)
    cluster.settle()
    cluster.restart("n3")
    three = cluster["n3"].core
    cluster.pass_time(0.3)
    assert three.configuration.get("n3") is None
    assert not three.configuration_is_news


def test_a_configuration_is_in_force_on_append_and_gone_with_its_entry() -> None:
    cluster = RaftCluster("n1", "n2", "n3")
    one = cluster.bootstrap("n1")
    last = one.core.last_index
    smaller = encode_configuration(TWO)
    entry = Entry(last + 1, 3, CONFIGURATION, smaller)
    assert one.answer(AppendRequest(header("n2"), 3, last, 2, 0, (entry,)), cluster.now).success
    assert (one.core.configuration_index, one.core.configuration) == (last + 1, TWO)
    other = Entry(last + 1, 4, CONFIGURATION, encode_configuration(cluster.configuration))
    noop = Entry(last + 1, 4, 1, None)
    assert one.answer(AppendRequest(header("n3"), 4, last, 2, 0, (noop,)), cluster.now).success
    assert one.core.configuration_index == 1
    assert one.core.configuration == cluster.configuration
    assert one.events[-1] == ConfigurationChanged(1, cluster.configuration)
    assert decode_configuration(other.data or b"") == cluster.configuration


def test_a_configuration_from_before_the_start_is_asked_of_storage() -> None:
    asked = []

    def before(index: int) -> tuple[int, Configuration]:
        asked.append(index)
        return 1, TWO

    configurations = Configurations((5, Configuration((server("n1"),))), before)
    assert not configurations.truncate(6)
    assert configurations.truncate(4)
    assert (configurations.index, configurations.latest, asked) == (1, TWO, [4])


names = st.sampled_from(["a", "b", "c", "d"])
addresses = st.sampled_from(["1:1", "2:2", "3:3", "4:4"])
changes = st.one_of(st.builds(AddVoter, names, addresses), st.builds(AddNonvoter, names, addresses), st.builds(RemoveServer, names))


@given(st.lists(changes, max_size=30))
def test_any_series_of_changes_keeps_quorums_meeting_and_names_unique(series: list[Change]) -> None:
    configuration = Configuration((Server("a", "1:1"),))
    for change in series:
        before = {voter.id for voter in configuration.voters()}
        try:
            configuration = changed(configuration, change)
        except refusals.Refusal:
            continue
        after = {voter.id for voter in configuration.voters()}
        assert after
        assert quorum(len(before)) + quorum(len(after)) > len(before | after), "a quorum of each without a common server"
        assert len({peer.id for peer in configuration.servers}) == len(configuration.servers)
        assert len({peer.address for peer in configuration.servers}) == len(configuration.servers)
