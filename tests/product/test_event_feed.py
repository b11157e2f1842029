"""`GET /events` and `clusterctl events`: lines as things happen, for a bounded number of listeners, and a clean end when the node stops."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from coterie import Cluster, Config
from coterie.actors.event_stream import EventStream
from coterie.actors.management import event_feed, http_app
from coterie.actors.management.event_feed import EventFeed, event_document
from coterie.actors.messages import ElectionStart, LeaderChanged, MemberJoin, ReplicationGap, Subscribe
from coterie.transport.http_server import HttpServer
from tests.product.commands import Program
from tests.product.management_world import FakeCluster, wait_until

FREE = {"raft_addr": "127.0.0.1:0", "mem_bind": "127.0.0.1:0", "mgmt_addr": "127.0.0.1:0"}
CTL = (sys.executable, "-m", "coterie.cli")


class World:
    """A server whose events come from here."""

    def __init__(self) -> None:
        self.cluster = FakeCluster()
        self.streams: list[EventStream] = []
        self.cluster.answers[Subscribe] = self._subscribe
        self.cluster_service = service = self.cluster.service()
        self.feed = EventFeed(service, http_app.answer, heartbeat=0.2)
        self.server = HttpServer("127.0.0.1:0", http_app.http_app(service, self.feed), "n1")
        self.addr = f"127.0.0.1:{self.server.port}"

    def _subscribe(self, message: Subscribe) -> EventStream:
        stream = EventStream(message.capacity, lambda: self.streams.remove(stream))
        self.streams.append(stream)
        return stream

    def emit(self, event: Any) -> None:
        for stream in list(self.streams):
            stream.offer(event)


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.feed.close()
    world.server.close()


class Listener:
    def __init__(self, world: World) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", world.server.port, timeout=20)
        self.connection.request("GET", "/events")
        self.answer = self.connection.getresponse()

    def line(self) -> dict[str, Any] | None:
        """The next one; None at the end."""
        text = self.answer.readline()
        document: dict[str, Any] | None = json.loads(text) if text else None
        return document

    def event(self) -> dict[str, Any]:
        """The next one that is no heartbeat."""
        while (line := self.line()) is not None:
            if line["event"] != "heartbeat":
                return line
        raise AssertionError("the stream has ended")

    def close(self) -> None:
        self.answer.close()
        self.connection.close()


@pytest.fixture
def listen(world: World) -> Iterator[Callable[[], Listener]]:
    with contextlib.ExitStack() as stack:

        def listen() -> Listener:
            listener = Listener(world)
            stack.callback(listener.close)
            return listener

        yield listen


@pytest.fixture
def listener(listen: Callable[[], Listener]) -> Listener:
    return listen()


# -- the endpoint -----------------------------------------------------------------------------------------------------------------


def test_events_are_lines_in_their_order(world: World, listener: Listener) -> None:
    assert (listener.answer.status, listener.answer.headers["content-type"]) == (200, "application/x-ndjson")
    first = listener.line()
    assert first is not None and (first["event"], first["node"], first["missed"]) == ("heartbeat", "n1", 0)
    world.emit(LeaderChanged(1.5, 3, "n2", "h:1"))
    world.emit(MemberJoin(2.5, 3, "n3", "h:2"))
    assert listener.event() == {"event": "LeaderChanged", "time": 1.5, "term": 3, "leaderId": "n2", "leaderAddr": "h:1"}
    assert listener.event() == {"event": "MemberJoin", "time": 2.5, "term": 3, "memberId": "n3", "addr": "h:2"}
    assert event_document(ReplicationGap(1.0, 2, "t", 3, 4))["firstMissing"] == 3


def test_silence_is_filled_with_heartbeats(listener: Listener) -> None:
    assert [(listener.line() or {}).get("event") for _ in range(3)] == ["heartbeat"] * 3


def test_a_listener_is_told_what_it_missed(world: World, listener: Listener) -> None:
    listener.line()
    stream = world.streams[0]
    state = (LeaderChanged(1.0, 4, "n2", "h:1", current=True),)
    with stream._changed:  # so that the feed takes nothing out until all of them have come, however long that takes
        for _ in range(event_feed.CAPACITY + 7):
            stream.offer(ElectionStart(1.0, 4), state)
    for _ in range(event_feed.CAPACITY):
        assert listener.event()["event"] == "ElectionStart"
    missed, now = listener.event(), listener.event()
    assert (missed["event"], missed["count"]) == ("EventsMissed", 7)
    assert (now["event"], now["leaderId"], now["current"]) == ("LeaderChanged", "n2", True)


def test_who_goes_is_forgotten(world: World) -> None:
    for _ in range(3):
        listener = Listener(world)
        listener.line()
        assert len(world.streams) == 1
        listener.close()
        wait_until(lambda: not world.streams)


def test_one_that_never_reads_holds_nobody_up(world: World, listener: Listener) -> None:
    with socket.create_connection(("127.0.0.1", world.server.port)) as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.sendall(b"GET /events HTTP/1.1\r\nHost: h\r\n\r\n")
        wait_until(lambda: len(world.streams) == 2)
        for number in range(40):
            for _ in range(100):
                world.streams[1].offer(MemberJoin(1.0, number, "n" * 100, "h:1"))
            world.streams[0].offer(ElectionStart(1.0, number))
            assert listener.event()["term"] == number
    wait_until(lambda: len(world.streams) == 1)


def test_listeners_are_bounded(world: World, listen: Callable[[], Listener], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_feed, "MAX_LISTENERS", 2)
    there = [listen() for _ in range(2)]
    assert [listener.line() is not None for listener in there] == [True, True]
    third = listen()
    assert third.answer.status == 429
    assert json.loads(third.answer.read())["kind"] == "Overloaded"
    there[0].close()
    wait_until(lambda: len(world.streams) == 1)
    assert listen().answer.status == 200


def test_a_stream_that_comes_too_late_is_closed(world: World) -> None:
    """The node stands still for longer than a listener waits: what it opens then has nobody who would close it."""
    world.cluster.answers[Subscribe] = FakeCluster.PENDING
    world.cluster_service.timeout = 0.1
    late = Listener(world)
    assert late.answer.status == 504
    late.close()
    world.cluster.pending[0].set(world._subscribe(Subscribe()))
    assert not world.streams


def test_at_the_end_the_answers_end_too(world: World, listen: Callable[[], Listener], listener: Listener) -> None:
    listener.line()
    world.emit(ElectionStart(1.0, 9))
    world.feed.close()
    assert listener.event()["term"] == 9, "what waited is still told"
    while listener.line() is not None:
        pass
    wait_until(lambda: not world.streams)
    late = listen()
    assert (late.answer.status, json.loads(late.answer.read())["kind"]) == (503, "Unreachable")


# -- the command ------------------------------------------------------------------------------------------------------------------


def events(world: World, *arguments: str) -> Program:
    program = Program(*CTL, "events", "--addr", world.addr, *arguments)
    wait_until(lambda: world.streams or program.process.poll() is not None)
    return program


def test_the_command_ends_after_so_many_events(world: World) -> None:
    program = events(world, "--count", "2")
    world.emit(ElectionStart(1.0, 4))
    world.emit(LeaderChanged(2.0, 4, "n2", "h:1"))
    assert program.process.wait(20) == 0
    program.kill()
    assert program.lines[0] == f"clusterctl: listening at {world.addr}; Ctrl-C ends it"
    assert [json.loads(line)["event"] for line in program.lines[1:]] == ["ElectionStart", "LeaderChanged"]


def test_on_a_terminal_an_event_is_a_line_for_people(world: World) -> None:
    program = events(world, "--count", "1", "--output", "table")
    world.emit(LeaderChanged(2.0, 4, "n2", "h:1"))
    assert program.process.wait(20) == 0
    program.kill()
    assert program.text.endswith("LeaderChanged  term 4  leaderId n2  leaderAddr h:1")


def test_the_command_ends_when_its_time_is_over_and_with_ctrl_c(world: World) -> None:
    ran = subprocess.run([*CTL, "events", "--addr", world.addr, "--for", "300ms"], capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stdout) == (0, "")
    program = events(world)
    world.emit(ElectionStart(1.0, 4))
    program.wait_line("ElectionStart")
    assert program.stop(signal.SIGINT) == 0
    assert "Traceback" not in program.text


def test_when_the_node_stops_the_command_says_so() -> None:
    with Cluster(Config(node_id="n1", bootstrap=True, **FREE)) as node:
        addr = node.ref.addresses()["mgmt"]
        program = Program(*CTL, "events", "--addr", addr)
        actor = node.ref._actor_weakref()
        wait_until(lambda: actor._rooms.events._actor_weakref()._streams)
    assert program.process.wait(20) == 2
    program.kill()
    assert program.lines[-1] == f"clusterctl: {addr} has ended it: the node is stopping"
