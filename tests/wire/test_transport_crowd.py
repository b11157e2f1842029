"""Ports that strangers fill: the silent ones make room, who has spoken stays, and what they leave half said or unread is bounded."""

from __future__ import annotations

import resource
import socket
import subprocess
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.proto.gossip_messages import Ack, Ping
from coterie.proto.gossip_stream import encode_stream
from coterie.proto.raft_codec import encode_request
from coterie.proto.raft_messages import COMMAND, AppendRequest, Entry, Header, PreVoteRequest, PreVoteResponse
from coterie.transport import crowd as crowd_module
from coterie.transport import http_server
from coterie.transport.crowd import LEAST, Crowd, places
from coterie.transport.gossip import GossipTransport
from coterie.transport.http_server import HttpServer
from coterie.transport.raft_server import RaftServer
from tests.wire.transport_support import eventually

ME = Header("n9", "127.0.0.1:1")
WHOLE = encode_request(PreVoteRequest(ME, 0, 0, 0))


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


class One:
    def __init__(self):
        self.out = False

    def put_out(self):
        self.out = True


# -- the rule ---------------------------------------------------------------------------------------------------------------------


def test_the_oldest_silent_one_makes_room_and_who_spoke_stays():
    clock = Clock()
    crowd, inside = Crowd(3, grace=1.0, clock=clock), [One() for _ in range(3)]
    for one in inside:
        assert crowd.enter(one) == (True, None)
    crowd.spoke(inside[0])
    assert crowd.enter(One()) == (False, None), "they have not had their time to speak"
    clock.now = 1.0
    one = One()
    assert crowd.enter(one) == (True, inside[1])
    assert [i.out for i in inside] == [False, True, False]
    crowd.spoke(one), crowd.spoke(inside[2])
    clock.now = 100.0
    assert crowd.enter(One()) == (False, None), "nobody is put out who has spoken"
    crowd.leave(inside[1]), crowd.leave(inside[0])
    assert len(crowd) == 2 and crowd.enter(One()) == (True, None)


@given(st.lists(st.tuples(st.sampled_from(["enter", "spoke", "leave", "time"]), st.integers(0, 9)), max_size=80))
def test_it_is_never_larger_than_its_bound_and_never_puts_out_who_spoke(steps):
    clock = Clock()
    crowd, ones, spoken, inside = Crowd(4, grace=1.0, clock=clock), [One() for _ in range(10)], set(), set()
    for what, number in steps:
        one = ones[number]
        if what == "enter" and one not in inside and not one.out:
            entered, put_out = crowd.enter(one)
            inside |= {one} if entered else set()
            inside -= {put_out}
            assert put_out not in spoken
        elif what == "spoke" and one in inside:
            crowd.spoke(one)
            spoken.add(one)
        elif what == "leave":
            crowd.leave(one)
            inside.discard(one), spoken.discard(one)
        elif what == "time":
            clock.now += number / 4
        assert len(crowd) == len(inside) <= 4
        assert not any(one.out for one in spoken)


def test_places_leave_descriptors_for_everything_else(monkeypatch):
    for soft, wanted, got in (
        (1024, 1024, 128),
        (100, 1024, LEAST),
        (1 << 20, 1024, 1024),
        (resource.RLIM_INFINITY, 1024, 1024),
        (1024, 2, 2),
    ):
        monkeypatch.setattr(crowd_module.resource, "getrlimit", lambda _, soft=soft: (soft, soft))
        assert places(wanted) == got


def test_a_process_of_ours_takes_the_descriptors_it_may_have():
    program = """
import resource
from coterie.transport.crowd import raise_descriptors
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
most = min(hard, 4096) if hard > 0 else 4096
resource.setrlimit(resource.RLIMIT_NOFILE, (256, most))
print(raise_descriptors(), resource.getrlimit(resource.RLIMIT_NOFILE)[0], most)
"""
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert said[0] == said[1] == said[2]


# -- on each port -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def opened():
    sockets = []

    def dial(port):
        sock = socket.create_connection(("127.0.0.1", port), timeout=10)
        sockets.append(sock)
        return sock

    yield dial
    for sock in sockets:
        sock.close()


def ended(sock):
    try:
        return sock.recv(1) == b""
    except ConnectionError:
        return True


def test_silent_strangers_cannot_shut_the_raft_port(opened):
    server = RaftServer("127.0.0.1:0", lambda handle, request: handle.reply(PreVoteResponse(ME, 0, False)), name="n1", max_connections=4)
    try:
        known = opened(server.port)
        known.sendall(WHOLE)
        assert known.recv(1 << 16)
        strangers = [opened(server.port) for _ in range(3)]
        eventually(lambda: server.counters()["connections now"] == 4, "the port is full")

        def gets_in():
            peer = opened(server.port)
            try:
                peer.sendall(WHOLE)
                return bool(peer.recv(1 << 16))
            except ConnectionError:
                return False

        eventually(gets_in, "a peer finds room")
        assert ended(strangers[0]), "that of the one who was silent for longest"
        known.sendall(WHOLE)
        assert known.recv(1 << 16), "who has spoken stays"
        assert server.counters()["silent connections put out"] >= 1
    finally:
        server.close()


def test_newcomers_share_a_part_of_the_room_for_half_messages(opened):
    server = RaftServer(
        "127.0.0.1:0", lambda handle, request: handle.reply(PreVoteResponse(ME, 0, False)), name="n1", max_half_bytes=1 << 20
    )
    half = encode_request(AppendRequest(ME, 1, 0, 0, 0, (Entry(1, 1, COMMAND, bytes(1 << 21)),)))[:200_000]
    try:
        first, second, known = opened(server.port), opened(server.port), opened(server.port)
        first.sendall(half)
        eventually(lambda: server.counters()["half bytes now"] == len(half), "the first is held")
        second.sendall(half)
        assert ended(second), "two newcomers have said more than theirs"
        known.sendall(WHOLE)
        assert known.recv(1 << 16)
        known.sendall(half)
        eventually(lambda: server.counters()["half bytes now"] == 2 * len(half), "who has spoken may say more")
        first.close(), known.close()
        eventually(lambda: server.counters()["half bytes now"] == 0, "what was held is released")
    finally:
        server.close()


def test_silent_strangers_cannot_shut_the_gossip_port(opened):
    transport = GossipTransport(
        "127.0.0.1:0", "", None, lambda *_: None, lambda message, _: Ack(message.seq_no), lambda *_: None, name="n1", max_streams=3
    )
    ping = encode_stream(Ping(7, "n1"))
    try:
        strangers = [opened(transport.port) for _ in range(3)]
        eventually(lambda: transport.counters()["streams now"] == 3, "the port is full")

        def gets_in():
            peer = opened(transport.port)
            try:
                peer.sendall(ping)
                return bool(peer.recv(1 << 16))
            except ConnectionError:
                return False

        eventually(gets_in, "a peer finds room")
        assert ended(strangers[0])
        assert transport.counters()["silent streams put out"] >= 1
    finally:
        transport.close()


async def app(scope, receive, send):
    """/large answers 24 MB, anything else at once and without reading its body."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"x" * (24 << 20 if scope["path"] == "/large" else 2)})


def test_silent_strangers_cannot_shut_the_http_port(opened, monkeypatch):
    monkeypatch.setattr(http_server, "MAX_CONNECTIONS", 3)
    server = HttpServer("127.0.0.1:0", app, "n1")
    try:
        known = opened(server.port)
        known.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert known.recv(1 << 16)
        strangers = [opened(server.port) for _ in range(2)]

        def gets_in():
            peer = opened(server.port)
            try:
                peer.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                return peer.recv(1 << 16).startswith(b"HTTP/1.1 200")
            except ConnectionError:
                return False

        eventually(gets_in, "a client finds room")
        assert ended(strangers[0])
        known.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert known.recv(1 << 16), "who has asked before stays"
        assert server.counters.snapshot()["silent connections put out"] >= 1
    finally:
        server.close()


def test_who_does_not_read_its_answer_is_closed_and_what_nobody_reads_is_bounded(opened, monkeypatch):
    monkeypatch.setattr(http_server, "UNREAD_TIMEOUT", 0.3)
    server = HttpServer("127.0.0.1:0", app, "n1")
    try:
        opened(server.port).sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        eventually(lambda: server.counters.snapshot().get("answers unread") == 1, "it is closed after its time")
        reader = opened(server.port)
        reader.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        size = 0
        while more := reader.recv(1 << 20):
            size += len(more)
        assert size > 24 << 20, "who reads gets all of it"
        monkeypatch.setattr(http_server, "UNREAD_TIMEOUT", 60.0)
        monkeypatch.setattr(http_server, "UNREAD_BYTES", 26 << 20)
        for _ in range(2):
            opened(server.port).sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        eventually(lambda: server.counters.snapshot()["answers unread"] == 2, "two large answers are too much together")
    finally:
        server.close()


def test_a_body_that_goes_on_after_its_answer_ends(opened, monkeypatch):
    monkeypatch.setattr(http_server, "LINGER", 0.3)
    server = HttpServer("127.0.0.1:0", app, "n1")
    stop = threading.Event()
    try:
        sock = opened(server.port)
        sock.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n")
        assert sock.recv(1 << 16).startswith(b"HTTP/1.1 200")

        def broken():
            try:
                sock.sendall(b"x" * 1000)
            except OSError:
                return True
            return False

        eventually(broken, "the connection is closed in the middle of the body")
        assert server.counters.snapshot()["bodies without an end"] == 1
    finally:
        stop.set()
        server.close()
