"""A follower whose log is another one than its leader's where the leader's snapshot ends."""

from tests.unit.raft_cluster import RaftCluster


def test_a_snapshot_replaces_another_log_and_is_taken_once() -> None:
    """hashicorp/raft 697: the old entry at the snapshot's end stays, what follows is refused, and the same snapshot is sent for ever."""
    cluster = RaftCluster("n1", "n2", "n3")
    old = cluster.bootstrap("n1")
    cluster.cut_off = {"n1"}
    old.core.propose([b"old"] * 9, [None] * 9, cluster.now)
    cluster.pass_time(4)
    (name,) = [name for name in cluster.leaders() if name != "n1"]
    new = cluster[name]
    for command in (b"a", b"b", b"c"):
        new.core.propose([command], [None], cluster.now)
        cluster.settle()
    cluster.pass_time(0.1)
    assert old.core.last_index > new.core.applied, "it has an entry of its own where the snapshot will end, and more behind it"
    new.disk.compact(new.core.applied)
    cluster.cut_off = set()
    cluster.pass_time(5)
    assert old.core.counters()["snapshots_installed"] == new.core.counters()["snapshots_sent"] == 1
    new.core.propose([b"d"], [None], cluster.now)
    cluster.settle()
    cluster.pass_time(0.1)
    assert old.commands() == [b"a", b"b", b"c", b"d"]
    assert old.core.last_index == new.core.last_index
