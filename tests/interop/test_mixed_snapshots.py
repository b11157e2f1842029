"""Snapshots in a quorum of both kinds, both ways: a Go server gets the roster's document from ours; of ours one that a Go leader sends it gets the rest from
another of ours, waits for it, or, where it is the only one, says what it does not know."""

from __future__ import annotations

import contextlib
import signal
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from coterie.actors.disk.findings import Finding
from coterie.actors.stores.inspection import inspect
from tests.interop.go_node import GoNode
from tests.interop.mixed import make_go_lead, roster, wait_rosters
from tests.interop.support import PeerError
from tests.product.checks import check_same
from tests.product.failover import first_write
from tests.product.nodes import Node, ProcessCluster
from tests.product.wait import wait_for

pytestmark = [pytest.mark.go, pytest.mark.timeout(240)]

StartGo = Callable[..., GoNode]


@pytest.fixture
def go_node(programs: Path, tmp_path: Path) -> Iterator[StartGo]:
    with contextlib.ExitStack() as stack:

        def start(name: str, seeds: list[str], **options: Any) -> GoNode:
            node = GoNode(programs / "roster", tmp_path, name, seeds, **options)
            stack.callback(node.close)
            return node.start()

        yield start


@pytest.fixture
def ours(tmp_path: Path) -> Iterator[ProcessCluster]:
    """Two nodes that keep nearly nothing of their logs; not started."""
    cluster = ProcessCluster(tmp_path, 2, trailing_entries=20)
    yield cluster
    for node in cluster.nodes:
        node.kill()


def outgrow(cluster: ProcessCluster, name: str) -> None:
    """Publish until both have thrown away what they had before."""
    before = max(node.status(local=True)["last_index"] for node in cluster.nodes)
    for round_ in range(20):
        publisher = cluster["n1"].load(f"{name}{round_}", topics=["t"], count=200, in_flight=4, timeout=30)
        cluster["n1"].load_done(publisher)
        if all(first_index(node) > before for node in cluster.nodes):
            return
    raise AssertionError(f"entries up to {before} are still there")


def first_index(node: Node) -> int:
    return int(node.ask("raft").get("entries compacted", 0)) + 1


def told(cluster: ProcessCluster, what: str) -> int:
    return sum(int(node.ask("raft").get(what, 0)) for node in cluster.nodes)


def wait_same(cluster: ProcessCluster, *go: GoNode) -> None:
    """Until they have applied the same, and their rosters agree."""

    def same() -> bool:
        last = cluster["n1"].status(local=True)["last_index"]
        rows = [{"ID": row["id"], "Addr": row["addr"], "Meta": row["meta"]} for row in cluster["n1"].status(local=True)["roster"]]
        return (
            all(node.state()["applied"] >= last for node in go) and all(node.roster() == rows for node in go) and len(rows) >= 2 + len(go)
        )

    wait_for(same, 40, "the rosters agree", every=0.1)


def join(cluster: ProcessCluster, go: GoNode) -> None:
    answer = cluster.leader().post_json("/join", id=go.name, raftAddr=go.raft_addr)
    assert answer == {"accepted": True}, answer


def test_go_servers_that_need_what_is_gone_get_the_rosters_document(ours: ProcessCluster, go_node: StartGo) -> None:
    """One that was away, one that begins empty, and one that the gossip knows nothing of, which is found out by what it refuses."""
    n1 = ours.start()["n1"]
    away = go_node("g1", [ours.seed])
    wait_for(lambda: any(m["id"] == "g1" for m in n1.status(local=True)["members"]), 15, "the gossip knows g1")
    join(ours, away)
    wait_same(ours, away)
    away.kill()
    outgrow(ours, "away")
    away.start()
    wait_same(ours, away)
    assert told(ours, "snapshots_sent") >= 1
    assert list((away.data / "snapshots").iterdir())
    away.kill()  # it begins with what it was given, and gets the rest
    n1.ask("publish", topic="t", data="x", timeout=15)
    away.start()
    wait_same(ours, away)

    outgrow(ours, "empty")
    sent = told(ours, "snapshots_sent")
    unseen = go_node("g2", [])
    join(ours, unseen)
    wait_same(ours, away, unseen)
    assert told(ours, "snapshots_sent") > sent
    unseen.kill()
    unseen.start()  # nothing that it cannot read is in its store
    wait_same(ours, away, unseen)
    ours.wait_settled()
    check_same(ours.nodes)


def by_the_leader(do: str, *go: GoNode, **fields: Any) -> None:
    """Of the Go servers; asked again where the leadership changes on the way, which does no harm to what is asked here."""

    def done() -> bool:
        with contextlib.suppress(PeerError):
            leader = next((one for one in go if one.leads()), None)
            return leader is not None and bool(leader.peer.ask(do, **fields) or True)
        return False

    wait_for(done, 40, f"the leader does {do}", every=0.1)


def compacts(*go: GoNode) -> int:
    """The Go servers take snapshots, and keep one entry of their logs; -> where the earliest may end. hashicorp/raft wants a command behind the configuration."""
    by_the_leader("apply", *go, data="nothing")  # of the roster: all skip it
    last = max(int(one.state()["applied"]) for one in go)
    wait_for(lambda: all(one.state()["applied"] >= last for one in go), 20, "all of them have it")
    for one in go:
        one.peer.ask("snapshot")
    return last


def gaps(node: Node) -> list[tuple[str, int, int]]:
    return [(x["topic"], x["first_index"], x["last_index"]) for x in node.lines if x.get("event") == "ReplicationGap"]


def number_of(node: Node, data: str) -> int:
    """Of a record that is published there, once somebody takes it."""
    return int(node.ask("publish", wait=60, topic="t", data=data, timeout=50)["seq"])


def ready(node: Node) -> str:
    """ "" when it is; else why not."""
    try:
        with urllib.request.urlopen(f"http://{node.mgmt_addr}/readyz", timeout=10):
            return ""
    except urllib.error.HTTPError as error:
        return error.read().decode()


@pytest.mark.long
def test_the_only_one_of_ours_restores_a_go_leaders_snapshot_and_says_what_it_does_not_know(ours: ProcessCluster, go_node: StartGo) -> None:
    """A newcomer, to begin with, whom nobody can tell anything; then it stands still while the Go servers go on, and compact what it needs. One more of ours, which
    comes later, has what the first one has."""
    g1 = go_node("g1", [], trailing=1)
    g1.peer.ask("bootstrap")
    g1.peer.wait_for("role", lambda line: line["role"] == "Leader")
    g2 = go_node("g2", [g1.gossip], trailing=1)
    by_the_leader("voter", g1, node="g2", addr=g2.raft_addr)
    end = compacts(g1, g2)

    n2 = ours["n2"]
    n2.config["seeds_csv"] = g1.gossip
    n2.start()
    wait_for(lambda: any(row["ID"] == "n2" for row in g1.roster()), 30, "the row of n2 is in the log")
    by_the_leader("voter", g1, g2, node="n2", addr=n2.raft_addr)
    wait_for(lambda: bool(gaps(n2)), 40, "n2 says what it does not know")
    ((topic, first, last),) = gaps(n2)
    assert (topic, first) == ("", 1) and last >= end
    wait_for(lambda: n2.status(local=True)["applied_index"] >= g1.state()["last"], 30, "n2 has the entries behind the snapshot")
    wait_for(lambda: g1.roster() == g2.roster() == roster(n2), 30, "the rosters agree", every=0.1)
    assert [number_of(n2, f"first{n}") for n in range(3)] == [1, 2, 3]

    n2.signal(signal.SIGSTOP)
    end = compacts(g1, g2)
    n2.signal(signal.SIGCONT)
    wait_for(lambda: len(gaps(n2)) == 2, 40, "n2 says again what it does not know")
    topic, first, last = gaps(n2)[1]
    assert topic == "" and gaps(n2)[0][2] < first <= end <= last
    assert number_of(n2, "more") == 4
    status = n2.status(local=True)
    assert status["dropped"]["replication: gaps"] == 2
    assert not [warning for warning in status["warnings"] if "tells only the roster" in warning]
    assert ready(n2) == ""
    wait_for(lambda: [d.seq for d in n2.deliveries()["t"]] == [1, 2, 3, 4], 20, "all records are delivered, once")
    wait_for(lambda: g1.roster() == g2.roster() == roster(n2), 20, "the rosters agree", every=0.1)
    n2.kill()
    assert not [found for found in inspect(Path(n2.config["data_dir"])) if isinstance(found, Finding) and found.damage]
    n2.start()  # what was installed is whole on its disk
    assert number_of(n2, "after the restart") == 5

    n1 = ours["n1"]
    n1.config |= {"bootstrap": False, "seeds_csv": g1.gossip}
    n1.start()
    wait_for(lambda: any(row["id"] == "n1" for row in n2.status(local=True)["members"] if row["state"] == "alive"), 30, "n2 sees n1")
    first_write(n2, deadline=40)
    assert n2.post_json("/join", id="n1", raftAddr=n1.raft_addr) == {"accepted": True}
    last = number_of(n1, "from the newcomer")
    wait_for(lambda: all(len(node.deliveries().get("t", ())) >= last for node in (n1, n2)), 30, "both handlers have all")
    check_same((n1, n2))
    assert not gaps(n1)


@pytest.mark.long
def test_beside_a_go_leader_that_has_compacted_ours_waits_for_another_of_ours_and_numbers_alike(
    ours: ProcessCluster, go_node: StartGo
) -> None:
    """n2 is away while g1 compacts what it needs. With n1 down it waits, and says so; with n1 back it restores its state, with no gap and the same numbers."""
    n1, n2 = ours.start().nodes
    g1 = go_node("g1", [ours.seed], trailing=1)
    join(ours, g1)
    wait_same(ours, g1)
    assert [number_of(n1, f"a{n}") for n in range(5)] == [1, 2, 3, 4, 5]
    n2.kill()
    assert [number_of(n1, f"b{n}") for n in range(5)] == [6, 7, 8, 9, 10]
    n1.ask("publish", topic="t", data="once", message_id="id", timeout=15)
    make_go_lead(ours, g1)
    end = compacts(g1)
    wait_for(lambda: n1.status(local=True)["applied_index"] >= end, 20, "n1 has what the snapshot stands for")
    n1.kill()

    n2.start()
    wait_for(g1.leads, 40, "g1 leads with the vote of n2")

    def says_so() -> bool:
        return any("n1 is not there" in warning for warning in n2.status(local=True)["warnings"])

    wait_for(says_so, 40, "n2 says what it waits for")
    assert "waits for the state of another node of coterie" in ready(n2)
    assert n2.status(local=True)["dropped"]["raft: snapshots of hashicorp/raft put off"] >= 1
    assert n2.status(local=True)["applied_index"] < end

    n1.start()
    wait_for(lambda: n2.status(local=True)["applied_index"] >= end, 60, "n2 has the state of n1")
    wait_for(lambda: ready(n2) == "", 20, "n2 is ready")
    assert not gaps(n2)
    assert number_of(n2, "c") == 12
    again = n2.ask("publish", wait=60, topic="t", data="once", message_id="id", timeout=50)
    assert again["seq"] == 11, "the message ids came along"
    ours.wait_settled()
    wait_for(lambda: all(len(node.deliveries().get("t", ())) >= 12 for node in ours.nodes), 20, "both handlers have all")
    check_same(ours.nodes)
    wait_rosters(ours.nodes, [g1], {"n1", "n2", "g1"}, within=40)
