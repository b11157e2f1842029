"""What a Raft server tells an operator of itself and of its followers, and how `clusterctl raft` shows it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import attrs
import pytest

from coterie import Config, cli
from coterie.actors.management.http_app import http_app
from coterie.actors.observability.metrics import Metrics
from coterie.actors.raft.report import raft_report
from coterie.actors.raft_report import GetRaftReport, RaftReport, ServerReport
from coterie.testing import ANY, LocalCluster, LocalNode
from coterie.transport.http_server import HttpServer
from tests.product.management_world import FakeCluster
from tests.unit.raft_cluster import RaftCluster

REPORT = RaftReport(
    node="n1",
    role="leader",
    term=7,
    voted_for="n1",
    leader_id="n1",
    leader_addr="10.0.0.1:9520",
    first_index=21,
    last_index=50,
    last_term=7,
    stored_index=50,
    commit_index=49,
    applied_index=48,
    snapshot_index=20,
    snapshot_term=6,
    configuration_index=12,
    servers=(
        ServerReport("n1", "10.0.0.1:9520", "voter", "leader", 50, lag=0, last_contact=0.0),
        ServerReport("n2", "10.0.0.2:9520", "voter", "replicate", 49, 50, 1, 1, 0.1),
    ),
    leader_http="10.0.0.1:17946",
)


def report_of(cluster: RaftCluster, name: str) -> RaftReport:
    member = cluster[name]
    return raft_report(member.core, member.disk, name, cluster.now)  # type: ignore[arg-type]


def test_a_leader_tells_how_far_each_server_is_and_whom_it_does_not_reach() -> None:
    cluster = RaftCluster("n1", "n2", "n3")
    cluster.bootstrap("n1")
    cluster.cut_off.add("n3")
    cluster.propose(b"a", b"b")
    cluster.pass_time(cluster.settings.lease_timeout * 1.5)
    report = report_of(cluster, "n1")
    servers = {server.id: server for server in report.servers}
    assert (report.role, report.leader_id, report.voted_for, report.first_index) == ("leader", "n1", "n1", 1)
    assert report.last_index == report.commit_index == report.applied_index == report.stored_index
    assert (servers["n1"].state, servers["n1"].lag) == ("leader", 0)
    assert (servers["n2"].state, servers["n2"].lag, servers["n2"].suffrage) == ("replicate", 0, "voter")
    assert servers["n3"].state == "unreachable"
    assert servers["n3"].lag is not None and servers["n3"].lag >= 2
    follower = report_of(cluster, "n2")
    assert (follower.role, follower.leader_id, follower.leader_addr) == ("follower", "n1", "n1:9520")
    assert {server.id: (server.state, server.lag) for server in follower.servers} == {
        "n1": ("", None),
        "n2": ("follower", None),
        "n3": ("", None),
    }


def test_the_times_of_the_disk_are_told_as_bounds() -> None:
    metrics = Metrics()
    assert metrics.disk_times().count == 0
    for _ in range(98):
        metrics.fsync_seconds(0.0015)
    for _ in range(2):
        metrics.fsync_seconds(0.3)
    times = metrics.disk_times()
    assert (times.count, times.median, times.p99) == (100, 0.002, 0.5)
    assert times.mean == pytest.approx((98 * 0.0015 + 0.6) / 100)


# -- over HTTP and on the command line --------------------------------------------------------------------------------------------


class World:
    def __init__(self) -> None:
        self.node, self.leader = FakeCluster(), FakeCluster()
        self.servers = [HttpServer("127.0.0.1:0", http_app(cluster.service()), "n1") for cluster in (self.node, self.leader)]
        self.addr, self.leader_addr = (f"127.0.0.1:{server.port}" for server in self.servers)


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    made.node.answers[GetRaftReport] = made.leader.answers[GetRaftReport] = REPORT
    yield made
    for server in made.servers:
        server.close()


@pytest.fixture
def clusterctl(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    def run(*arguments: str, columns: int = 200) -> tuple[int, str, str]:
        monkeypatch.setenv("COLUMNS", str(columns))
        with pytest.raises(SystemExit) as ended:
            cli.main(arguments)
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return run


def test_it_is_json_for_programs_and_a_table_for_people(world: World, clusterctl: Any) -> None:
    code, out, err = clusterctl("raft", "--addr", world.addr)
    document = json.loads(out)
    assert (code, err) == (0, "")
    assert (document["Term"], document["FirstIndex"], document["SnapshotIndex"], document["ServersBy"]) == (7, 21, 20, "n1")
    assert document["Servers"][1] == {
        "ID": "n2",
        "Address": "10.0.0.2:9520",
        "Suffrage": "voter",
        "State": "replicate",
        "MatchIndex": 49,
        "NextIndex": 50,
        "Inflight": 1,
        "Lag": 1,
        "LastContact": 0.1,
        "Leaving": False,
    }
    for columns in (200, 60):
        code, out, _ = clusterctl("raft", "--addr", world.addr, "--output", "table", columns=columns)
        assert code == 0
        for cell in ("n1  leader  term 7", "entries 21..50", "20 (term 6)", "10.0.0.2:9520", "replicate", "0.1 s ago", "none yet"):
            assert cell in out, out


def test_a_follower_is_asked_for_itself_and_its_leader_for_the_servers(world: World, clusterctl: Any) -> None:
    of_follower = attrs.evolve(REPORT, node="n2", role="follower", applied_index=40, servers=(), leader_http=world.leader_addr)
    world.node.answers[GetRaftReport] = of_follower
    lagging = attrs.evolve(REPORT, servers=(*REPORT.servers, ServerReport("n3", "n3:1", "voter", "unreachable", 3, 4, 0, 47, 9.0)))
    world.leader.answers[GetRaftReport] = lagging
    code, out, err = clusterctl("raft", "--addr", world.addr)
    document = json.loads(out)
    assert (code, err, document["Node"], document["AppliedIndex"], document["ServersBy"]) == (1, "", "n2", 40, "n1")
    assert [server["State"] for server in document["Servers"]] == ["leader", "replicate", "unreachable"]


def test_a_leader_that_does_not_answer_is_said_and_a_missing_one_ends_with_2(world: World, clusterctl: Any) -> None:
    world.node.answers[GetRaftReport] = attrs.evolve(REPORT, node="n2", role="follower", leader_http="127.0.0.1:1")
    code, out, err = clusterctl("raft", "--addr", world.addr)
    assert (code, json.loads(out)["ServersBy"]) == (0, "n2")
    assert "127.0.0.1:1 cannot be asked" in err and "as n2 knows them" in err
    world.node.answers[GetRaftReport] = attrs.evolve(REPORT, node="n2", role="follower", leader_id="", leader_http="")
    assert clusterctl("raft", "--addr", world.addr)[0] == 2
    code, _, err = clusterctl("raft", "--addr", world.addr, "--mgmt-proto", "grpc")
    assert (code, "told over HTTP" in err) == (2, True)


def test_a_running_cluster_tells(clusterctl: Any) -> None:
    with LocalCluster(nodes=3) as cluster:
        cluster.publish("orders", b"1")
        follower = cluster.followers[0]
        code, out, err = clusterctl("raft", "--addr", follower.ref.addresses()["http"])
        document = json.loads(out)
        assert (document["Node"], document["ServersBy"], document["LogBytes"]) == (follower.name, cluster.leader.name, None), err
        assert {server["ID"] for server in document["Servers"]} == {"n1", "n2", "n3"}
        assert {server["State"] for server in document["Servers"]} <= {"leader", "replicate", "probe"} and code == 0
        member = LocalNode(
            Config(node_id="m", raft_addr=ANY, mem_bind=ANY, mgmt_addr=ANY, seeds_csv=follower.ref.addresses()["gossip"]), None
        )
        try:
            addr = member.ref.addresses()["http"]
            cluster.wait_until(
                lambda: clusterctl("raft", "--addr", addr)[0] != 2 or None, what="who is in no quorum hears of the leader in gossip"
            )
            document = json.loads(clusterctl("raft", "--addr", addr)[1])
            assert (document["Node"], document["ServersBy"], len(document["Servers"])) == ("m", cluster.leader.name, 3)
            code, _, err = clusterctl("backup", "--addr", addr, "unwritten")
            assert code == 1 and "m is in no quorum" in err
        finally:
            member.stop()
