"""Whole nodes of ours among Go peers, by what a user sees: events, status and publishes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator

import pytest

from coterie import ClusterSupervisor, Config, Join, MemberFailed, MemberJoin, MemberLeave, Publish, Status, Subscribe, TransferLeadership
from coterie.actors.event_stream import EventStream
from coterie.actors.messages import ClusterStatus, Event, MemberEvent, MemberStatus
from coterie.actors.supervisor import ClusterRef
from coterie.proto.gossip_messages import ALIVE, LEFT
from tests.interop.support import LinePeer, believes, from_go

pytestmark = [pytest.mark.go, pytest.mark.timeout(300)]

FAILURE = 20.0


@pytest.fixture
def node() -> Iterator[Callable[..., ClusterRef]]:
    running: list[ClusterRef] = []

    def start(name: str, **options: object) -> ClusterRef:
        anywhere = {"raft_addr": "127.0.0.1:0", "mem_bind": "127.0.0.1:0", "mgmt_addr": "127.0.0.1:0"}
        running.append(ClusterSupervisor.start(Config(node_id=name, **anywhere, **options)))
        return running[-1]

    yield start
    for cluster in reversed(running):
        cluster.stop()


def wait_event(events: EventStream, kind: type[MemberEvent], name: str, within: float = 10.0) -> None:
    deadline = time.monotonic() + within
    others: list[Event] = []
    while (event := events.get(timeout=max(0.0, deadline - time.monotonic()))) is not None:
        if isinstance(event, kind) and event.member_id == name:
            return
        others.append(event)
    raise AssertionError(f"no {kind.__name__} of {name} within {within} s, but {others}")


def row(cluster: ClusterRef, name: str) -> MemberStatus:
    status: ClusterStatus = cluster.ask(Status(local=True))
    return next(member for member in status.members if member.id == name)


def test_go_members_come_fail_and_leave_in_events_and_status(node: Callable[..., ClusterRef], go_member: Callable[..., LinePeer]) -> None:
    cluster = node("n1", bootstrap=True)
    gossip = cluster.addresses()["gossip"]
    events: EventStream = cluster.ask(Subscribe())
    doomed, leaving = go_member("g1", '{"mgmt":"g1.test:1"}'), go_member("g2", '{"mgmt":"g2.test:1"}')
    for peer in (doomed, leaving):
        peer.ask("join", addrs=[gossip])
        wait_event(events, MemberJoin, peer.name)
        joined = peer.wait_for("join", lambda line: line["node"] == "n1")
        assert json.loads(joined["meta"])["mgmt"] == cluster.addresses()["mgmt"]
    assert row(cluster, "g1").meta == {"mgmt": "g1.test:1"}
    assert row(cluster, "g1").addr == doomed.address

    leaving.ask("leave", timeout=5)
    wait_event(events, MemberLeave, "g2")
    doomed.kill()
    wait_event(events, MemberFailed, "g1", within=FAILURE)
    assert row(cluster, "g1").state == "failed"


def test_a_node_that_stops_gracefully_has_left_for_go(node: Callable[..., ClusterRef], go_member: Callable[..., LinePeer]) -> None:
    go = go_member("g1")
    cluster = node("n1", seeds_csv=go.address, leave_on_stop=True)
    go.wait_for("join", lambda line: line["node"] == "n1")
    cluster.stop()
    go.wait_for("leave", lambda line: line["node"] == "n1")
    assert believes(go) == {"g1": ALIVE, "n1": LEFT}


def test_publishes_go_on_through_a_quorum_with_go_servers(go_server: Callable[[str], LinePeer], node: Callable[..., ClusterRef]) -> None:
    cluster = node("n1", bootstrap=True)
    first, second = go_server("g1"), go_server("g2")
    cluster.ask(Publish("t", b"alone"))
    for peer in (first, second):
        cluster.ask(Join(peer.name, peer.address))
    published = [cluster.ask(Publish("t", b"record %d" % number)) for number in range(100)]
    assert [one.seq for one in published] == list(range(2, 102))
    for peer in (first, second):
        carried = peer.wait_for("applied", lambda line: line["index"] == published[-1].index)
        assert b"record 99" in (from_go([carried])[0].data or b"")

    # A Go leader's commands are not ours: they are skipped and counted, and the sequence goes on when ours leads again.
    mark = first.mark()
    cluster.ask(TransferLeadership("g1"))
    first.wait_for("role", lambda line: line["role"] == "Leader", since=mark)
    first.ask("apply", prefix="go", count=10)
    first.ask("transfer", node="n1", addr=cluster.addresses()["raft"])
    assert cluster.ask(Publish("t", b"again")).seq == 102
    assert any("unknown" in reason for reason in cluster.ask(Status(local=True)).dropped)
