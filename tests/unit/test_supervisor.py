"""The supervisor between the application and the rooms: what it refuses, and that it ends in time whatever the application does."""

from __future__ import annotations

import math
import sys
import threading
import time

import pykka
import pytest

from coterie import (
    Apply,
    ClusterSupervisor,
    Config,
    ElectionStart,
    HandlerActor,
    HandlerFailed,
    Leave,
    Publish,
    Read,
    RegisterHandler,
    Status,
    Subscribe,
    Write,
)
from coterie.actors.errors import InvalidRequest
from coterie.actors.replication.lmdb_buffer import LmdbBuffer
from coterie.actors.room_messages import Emit, GetRaftView, Member, MembershipEvent, MembershipView, RaftView
from tests.product.wait import wait_for

ANY = "127.0.0.1:0"


class Plain(pykka.ThreadingActor):
    """An actor, but no HandlerActor: its replies are pykka's futures, which cannot call back."""


def config(**more):
    return Config(node_id="n1", bootstrap=True, raft_addr=ANY, mem_bind=ANY, mgmt_addr=ANY, **more)


@pytest.fixture(scope="module")
def node():
    ref = ClusterSupervisor.start(config(repl_retry=0.2, repl_attempts=5))
    yield ref
    ref.stop()


def test_an_actor_that_is_no_handler_actor_is_refused_and_the_node_goes_on():
    node, plain = ClusterSupervisor.start(config()), Plain.start()
    try:
        with pytest.raises(InvalidRequest, match="HandlerActor"):
            node.ask(RegisterHandler(plain))
        assert node.ask(Publish("t", b"1")).seq == 1
    finally:
        plain.stop()
        node.stop()


@pytest.mark.parametrize("timeout", [0, -1, math.nan, math.inf, 1e300, "3s", True])
def test_a_timeout_that_is_none_is_refused_at_once_in_every_request(node, timeout):
    for message in (
        Publish("t", b"1", timeout=timeout),
        Write("w", timeout=timeout),
        Read("r", timeout=timeout),
        Leave("n9", timeout=timeout),
    ):
        with pytest.raises(InvalidRequest, match="timeout="):
            node.ask(message)
    assert node.ask(Publish("t", b"1", timeout=5)).seq > 0


def test_an_application_that_never_returns_holds_up_the_end_of_its_node_for_less_than_ten_seconds():
    over, inside = threading.Event(), threading.Semaphore(0)

    def stuck(*_):
        inside.release()
        over.wait(60)

    class Stuck(HandlerActor):
        def handle_sync(self, topic, data):
            stuck()

    node = ClusterSupervisor.start(config(app_handlers=Stuck, on_leader_change=stuck))
    threads = set(threading.enumerate())
    try:
        node.ask(Publish("t", b"1"))
        assert inside.acquire(timeout=10)
        assert inside.acquire(timeout=10)
        began = time.monotonic()
        node.stop()
        assert time.monotonic() - began < 10.0
    finally:
        over.set()
        for thread in threads - {threading.main_thread()}:
            if thread.name.endswith(("handler", "callbacks")):
                thread.join(10)


class Exits(HandlerActor):
    """Calls sys.exit wherever it is told to, and remembers what it took."""

    def __init__(self):
        super().__init__()
        self.had = []

    def handle_sync(self, topic, data):
        if data == b"exit":
            sys.exit(3)
        self.had.append(data)

    def handle_apply(self, index, op, data):
        return sys.exit(3) if op == "exit" else b"done"

    def handle_write(self, op, request):
        return sys.exit(3) if op == "exit" else b"written"


def test_an_application_that_exits_in_its_handler_fails_there_and_blocks_nothing_behind_it(node):
    handler = Exits.start()
    node.ask(RegisterHandler(handler))
    for message in (Write("exit"), Apply("exit")):
        with pytest.raises(HandlerFailed, match="SystemExit"):
            node.ask(message)
    assert node.ask(Write("w")) == b"written"
    assert node.ask(Apply("a")).result == b"done"
    for data in (b"exit", b"behind it"):
        node.ask(Publish("exits", data))
    wait_for(lambda: any("exits" in text and "SystemExit" in text for text in node.ask(Status()).warnings), 10, "the status names it")
    wait_for(lambda: b"behind it" in handler._actor_weakref().had, 10, "the record behind it is delivered")
    handler.stop()
    with pytest.raises(HandlerFailed, match="handler actor of 'n1' is dead"):
        node.ask(Write("w"))


def test_what_was_asked_for_at_the_start_does_not_undo_what_was_told_since(node):
    actor = node._actor_weakref()
    wait_for(lambda: node.ask(Status()).leader_id == "n1", 10, "it leads")
    seen, topology = node.ask(Subscribe(replay=False)), actor._picture.topology
    actor._post(lambda: actor._begin_with(RaftView(), MembershipView((Member("n9", "n9:1", {}),))))
    assert node.ask(Status()).leader_id == "n1"
    assert actor._picture.topology == topology
    assert seen.get(0) is None
    seen.close()


def test_what_slow_listeners_miss_stands_in_the_status(node):
    with node.ask(Subscribe(capacity=1)) as slow:
        bus = node._actor_weakref()._rooms.events
        for _ in range(4):
            bus.tell(Emit(ElectionStart(0.0, 1)))
        assert node.ask(Status()).dropped["events: missed by slow listeners"] == 3
        assert slow.missed == 3


def test_one_election_at_the_start_is_one_change_of_the_leader():
    """What Raft told while the node was starting is older than what it answered at the end of the start."""
    led = []
    node = ClusterSupervisor.start(config(on_leader_change=led.append))
    try:
        assert node.ask(Publish("t", b"1")).seq == 1
        rooms = node._actor_weakref()._rooms
        assert node.ask(Status()).leader_id == "n1"
        assert "go_cluster_leader_changes_total 1.0" in rooms.metrics.text().decode()
    finally:
        node.stop()
    assert [info.id for info in led][:1] == ["n1"]


def test_a_server_that_gossip_has_news_of_is_dialled_by_raft_at_once(node, monkeypatch):
    supervisor, seen = node._actor_weakref(), []
    links = supervisor._rooms.raft._actor_weakref()._links
    monkeypatch.setattr(links, "seen", seen.append)
    for kind in ("failed", "join", "update", "leave"):
        back = Member(f"n-{kind}", "127.0.0.1:1", {})
        supervisor.membership_changed(supervisor._picture.membership, MembershipEvent(kind, back))
    wait_for(lambda: len(seen) >= 2, 10, "Raft has heard of both that live")
    supervisor._rooms.raft.ask(GetRaftView())
    assert seen == ["n-join", "n-update"]


def test_a_start_reads_the_buffers_window_of_ids_twice_when_it_opens_and_when_the_state_machine_is_made(tmp_path, monkeypatch):
    read, read_all_of = [], LmdbBuffer._read_all_of
    monkeypatch.setattr(LmdbBuffer, "_read_all_of", lambda buffer, transaction: read.append(1) or read_all_of(buffer, transaction))
    ClusterSupervisor.start(config(data_dir=tmp_path)).stop()
    read.clear()
    ClusterSupervisor.start(config(data_dir=tmp_path)).stop()
    assert len(read) == 2
