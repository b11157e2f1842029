"""The membership actor on real sockets: nodes that find each other, leave, fail, come back, and survive what strangers send."""

from __future__ import annotations

import json
import os
import socket
import threading
import time

import pytest

from coterie.actors.errors import InvalidRequest
from coterie.actors.membership.actor import MembershipActor
from coterie.actors.membership.discovery import StaticSeeds
from coterie.actors.membership.settings import Settings
from coterie.actors.room_messages import GetMembership, LeaveGossip, SetMeta
from coterie.proto.gossip_security import Security

FAST = Settings(
    probe_interval=0.1, probe_timeout=0.05, gossip_interval=0.02, push_pull_interval=0.5, reconnect_interval=0.3, stream_timeout=2.0
)
PATIENCE = 20.0


class Cluster:
    def __init__(self):
        self.changed = threading.Condition()
        self.nodes, self.views, self.events = {}, {}, []
        self.crashes = []

    def start(self, name, seeds=(), bind="127.0.0.1:0", meta=None, **more):
        def on_change(view, event):
            with self.changed:
                self.views[name] = view
                if event is not None:
                    self.events.append((name, event.kind, event.member.id))
                self.changed.notify_all()

        csv = ",".join(seeds)
        more.setdefault("settings", FAST)
        ref = MembershipActor.start(
            name, bind, "", meta or {"mgmt": f"{name}:1"}, StaticSeeds(csv), on_change, on_crash=self.crashed, **more
        )
        self.nodes[name] = ref
        return ref

    def crashed(self, crash):
        with self.changed:
            self.crashes.append(crash)
            self.changed.notify_all()

    def address(self, name):
        view = self.nodes[name].ask(GetMembership(), timeout=PATIENCE)
        return next(member.addr for member in view.members if member.id == name)

    def until(self, condition):
        with self.changed:
            assert self.changed.wait_for(condition, PATIENCE), (self.views, self.events)

    def states(self, observer):
        view = self.views.get(observer)
        return {member.id: member.state for member in view.members} if view else {}

    def meta(self, observer, name):
        return {member.id: member.meta for member in self.views[observer].members}.get(name)

    def all_alive(self, *names):
        return lambda: all(self.states(name) == dict.fromkeys(names, "alive") for name in names)

    def three(self):
        self.start("n1")
        seed = self.address("n1")
        self.start("n2", [seed])
        self.start("n3", [seed])
        self.until(self.all_alive("n1", "n2", "n3"))

    def stop(self):
        for ref in self.nodes.values():
            if ref.is_alive():
                ref.stop()


@pytest.fixture
def cluster():
    made = Cluster()
    yield made
    made.stop()


def test_nodes_meet_through_a_seed_and_read_each_other_s_metadata(cluster):
    cluster.three()
    assert cluster.meta("n3", "n2") == {"mgmt": "n2:1"}
    assert cluster.views["n2"].seeds == {cluster.address("n1"): "reached"}
    cluster.nodes["n2"].tell(SetMeta({"mgmt": "n2:2", "http": "x"}))
    cluster.until(lambda: all(cluster.meta(name, "n2") == {"mgmt": "n2:2", "http": "x"} for name in ("n1", "n2", "n3")))
    cluster.until(lambda: ("n1", "update", "n2") in cluster.events)


def test_a_leave_and_a_failure_are_told_apart(cluster):
    cluster.three()
    assert cluster.nodes["n3"].ask(LeaveGossip(timeout=5.0), timeout=PATIENCE) is True
    cluster.nodes["n3"].stop()
    cluster.nodes["n2"].stop()
    cluster.until(lambda: cluster.states("n1") == {"n1": "alive", "n2": "failed", "n3": "left"})
    assert ("n1", "leave", "n3") in cluster.events
    assert ("n1", "failed", "n2") in cluster.events
    assert ("n1", "failed", "n3") not in cluster.events


def test_who_is_alone_leaves_at_once(cluster):
    started = time.monotonic()
    assert cluster.start("n1").ask(LeaveGossip(timeout=30.0), timeout=PATIENCE) is True
    assert time.monotonic() - started < 10.0


def test_a_node_that_fails_comes_back_on_the_same_address_with_nothing_remembered(cluster):
    cluster.three()
    address, seed = cluster.address("n3"), cluster.address("n1")
    cluster.nodes["n3"].stop()
    cluster.until(lambda: cluster.states("n1").get("n3") == cluster.states("n2").get("n3") == "failed")
    cluster.start("n3", [seed], bind=address)
    cluster.until(cluster.all_alive("n1", "n2", "n3"))


def test_a_node_that_comes_back_at_another_address_is_taken(cluster):
    cluster.three()
    seed = cluster.address("n1")
    cluster.nodes["n3"].stop()
    cluster.start("n3", [seed])
    moved = cluster.address("n3")
    for name in ("n1", "n2"):
        cluster.until(lambda name=name: any(m.id == "n3" and m.addr == moved and m.state == "alive" for m in cluster.views[name].members))
        warnings = cluster.nodes[name].ask(GetMembership(), timeout=PATIENCE).warnings
        assert not any("n3" in warning for warning in warnings), "it moved, and nobody else has its name"


def test_without_seeds_the_last_known_members_are_dialled(cluster, tmp_path):
    cluster.start("n1")
    cluster.start("n2", [cluster.address("n1")], members_path=tmp_path / "members.json")
    cluster.until(cluster.all_alive("n1", "n2"))
    cluster.nodes["n2"].stop()
    kept = json.loads((tmp_path / "members.json").read_bytes())
    assert kept["members"] == [{"id": "n1", "addr": cluster.address("n1")}]
    cluster.until(lambda: cluster.states("n1")["n2"] == "failed")
    cluster.start("n2", members_path=tmp_path / "members.json")
    cluster.until(cluster.all_alive("n1", "n2"))
    cluster.nodes["n2"].stop()
    assert json.loads((tmp_path / "members.json").read_bytes())["incarnation"] > kept["incarnation"]


def test_a_seed_that_comes_late_is_reached(cluster):
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{reserved.getsockname()[1]}"
    cluster.start("n1", [address])
    cluster.until(lambda: cluster.views.get("n1") is not None)
    cluster.start("n2", bind=address)
    cluster.until(cluster.all_alive("n1", "n2"))


def test_keys_and_labels_keep_strangers_out_and_both_sides_count(cluster):
    secret = Security(b"blue", (bytes(16),))
    cluster.start("n1", security=secret)
    seed = cluster.address("n1")
    cluster.start("n2", [seed], security=secret)
    cluster.until(cluster.all_alive("n1", "n2"))
    cluster.start("n3", [seed])
    cluster.until(lambda: cluster.views["n3"].counters.get("seed_unreached", 0) > 0 if "n3" in cluster.views else False)
    assert cluster.states("n3") == {"n3": "alive"}
    assert "n3" not in cluster.states("n1")
    cluster.until(lambda: cluster.nodes["n1"].ask(GetMembership(), timeout=PATIENCE).counters.get("streams of strangers: no label", 0) > 0)


def test_garbage_harms_nobody_and_is_counted(cluster):
    cluster.three()
    host, port = cluster.address("n1").split(":")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        for size in (0, 1, 7, 100, 1400, 9000):
            udp.sendto(os.urandom(size), (host, int(port)))
    for data in (b"", b"\xff", b"\x06", os.urandom(100)):
        with socket.create_connection((host, int(port)), timeout=5) as tcp:
            tcp.sendall(data)
    cluster.nodes["n2"].ask(SetMeta({"after": "all"}), timeout=PATIENCE)
    cluster.until(lambda: cluster.meta("n1", "n2") == {"after": "all"})
    counters = cluster.nodes["n1"].ask(GetMembership(), timeout=PATIENCE).counters
    assert counters["packets dropped"] >= 4
    assert not cluster.crashes


def test_metadata_too_large_is_refused_to_the_asker_and_counted_for_a_tell(cluster):
    ref = cluster.start("n1")
    with pytest.raises(InvalidRequest, match="512"):
        ref.ask(SetMeta({"a": "x" * 600}), timeout=PATIENCE)
    ref.tell(SetMeta({"a": "x" * 600}))
    assert ref.ask(GetMembership(), timeout=PATIENCE).counters["meta_refused"] == 1


def test_after_a_crash_it_goes_on_on_the_same_address_and_finds_the_others(cluster):
    cluster.three()
    before = cluster.address("n2")
    cluster.nodes["n2"].tell("not a message of ours")
    cluster.until(lambda: len(cluster.crashes) == 1)
    cluster.until(cluster.all_alive("n1", "n2", "n3"))
    assert cluster.address("n2") == before
    assert len(cluster.crashes) == 1
    assert not cluster.crashes[0].fatal


def test_an_address_in_use_is_fatal_and_says_which(cluster):
    cluster.start("n1")
    cluster.start("n2", bind=cluster.address("n1"))
    cluster.until(lambda: bool(cluster.crashes))
    assert cluster.crashes[0].fatal
    assert cluster.address("n1") in str(cluster.crashes[0].error)


def test_no_thread_stays_behind(cluster):
    cluster.three()
    cluster.stop()
    left = [thread.name for thread in threading.enumerate() if thread.name.split("/")[0] in ("n1", "n2", "n3")]
    deadline = time.monotonic() + PATIENCE
    for thread in threading.enumerate():
        if thread.name in left:
            thread.join(max(deadline - time.monotonic(), 0))
    assert not [thread.name for thread in threading.enumerate() if thread.name.split("/")[0] in ("n1", "n2", "n3")]


def test_two_nodes_with_one_id_are_named_where_operators_look(cluster):
    cluster.start("n1")
    cluster.start("n2", [cluster.address("n1")])
    cluster.until(cluster.all_alive("n1", "n2"))
    impostor = MembershipActor.start("n2", "127.0.0.1:0", "", {}, StaticSeeds(cluster.address("n1")), lambda *_: None, settings=FAST)
    try:
        until = time.monotonic() + PATIENCE
        while not (warnings := cluster.nodes["n1"].ask(GetMembership(), timeout=PATIENCE).warnings) and time.monotonic() < until:
            time.sleep(0.02)
        assert "two nodes with one id" in warnings[0] and "n2" in warnings[0]
    finally:
        impostor.stop()
