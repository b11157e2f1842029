"""Calls whose request never comes, and places for streams: strangers on a node's gRPC port keep nobody out."""

from __future__ import annotations

import contextlib
import queue
import socket
import struct
import threading
import time
from collections.abc import Iterator

import grpc
import pytest

from coterie.transport.addresses import host_of
from coterie.transport.grpc_client import Answer, ChannelPool
from coterie.transport.grpc_reception import HALF_CALLS, StreamPlaces
from coterie.transport.grpc_server import Call, GrpcServer, Method
from tests.product.attacks import GRPC_HELLO, frame, grpc_call
from tests.product.wait import wait_for

PATIENCE = 30.0


def forever(request: object, call: Call) -> Iterator[bytes]:
    yield b"open"
    over = threading.Event()
    call.on_end(over.set)
    over.wait()


SERVICES = {
    "test.Service": {
        "Control": Method("control", lambda body, call: body),
        "Work": Method("work", lambda body, call: body),
        "Watch": Method("server_stream", forever),
        "Forward": Method("bidi", forever, of_members=True),
    }
}


@contextlib.contextmanager
def server(places: StreamPlaces | None = None) -> Iterator[GrpcServer]:
    running = GrpcServer("127.0.0.1:0", SERVICES, "n1", places=places)
    try:
        yield running
    finally:
        running.stop()


@contextlib.contextmanager
def half_calls(port: int, method: str, many: int) -> Iterator[None]:
    """One connection with so many calls, each of which has said its headers and the beginning of a message."""
    with socket.create_connection(("127.0.0.1", port)) as sock:
        beginning = b"\x00" + struct.pack(">I", 1000) + b"x"
        sock.sendall(GRPC_HELLO)
        for number in range(1, 2 * many + 1, 2):
            sock.sendall(grpc_call(number, f"/test.Service/{method}".encode()) + frame(0, 0, number, beginning))
        yield


def ask(address: str, method: str) -> Answer:
    pool = ChannelPool()
    answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()
    try:
        pool.call(address, f"/test.Service/{method}", b"question", PATIENCE, answers.put)
        return answers.get(timeout=2 * PATIENCE)
    finally:
        pool.close()


def test_a_thousand_calls_without_their_request_on_one_connection_shut_nobody_out() -> None:
    """They took every thread of the server, those for health checks too."""
    with server() as running, contextlib.ExitStack() as attack:
        address = f"127.0.0.1:{running.port}"
        for method in ("Control", "Work"):
            attack.enter_context(half_calls(running.port, method, 500))
        for method in ("Control", "Work"):
            until = time.monotonic() + PATIENCE  # who asks in the moment of the flood may be put out, too, and asks again
            while ask(address, method).body != b"question":
                assert time.monotonic() < until, method
        wait_for(lambda: running.counters.snapshot()["calls without a request put out"] >= 2 * (500 - HALF_CALLS), PATIENCE, "all came in")


def test_a_call_that_ends_without_a_request_is_told_so() -> None:
    with server() as running, grpc.insecure_channel(f"127.0.0.1:{running.port}") as channel:
        with pytest.raises(grpc.RpcError) as refused:
            channel.stream_unary("/test.Service/Work")(iter(()), timeout=PATIENCE)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_guests_fill_their_own_places_and_members_get_in() -> None:
    with server(StreamPlaces(guests=4, members=4, a_host=2)) as running, grpc.insecure_channel(f"127.0.0.1:{running.port}") as channel:

        def open_stream(method: str) -> str:
            call = channel.stream_stream(f"/test.Service/{method}")(iter([b"request"]) if method == "Watch" else endless())
            try:
                assert next(call) == b"open"
            except grpc.RpcError:
                return str(call.details())
            calls.append(call)
            return ""

        calls: list[grpc.Call] = []
        done = threading.Event()

        def endless() -> Iterator[bytes]:
            done.wait()
            return
            yield b""

        assert [open_stream("Watch"), open_stream("Forward")] == ["", ""]  # gossip does not know the address yet: both are guests
        assert "to one address" in open_stream("Forward")
        running._places.known = {"127.0.0.1": 1}
        assert open_stream("Forward") == ""
        assert "to one address" in open_stream("Watch")
        assert running.counters.snapshot() == {"streams refused": 2}
        for call in calls:
            call.cancel()
        done.set()


def test_each_member_has_places_of_its_own_and_a_machine_of_strangers_takes_no_others() -> None:
    places = StreamPlaces(guests=8, members=64, a_host=4)
    places.known = {"10.0.0.1": 1, "10.0.0.2": 2}
    given = {host: [places.take(f"ipv4:{host}:{n}", True)[0] for n in range(100)] for host in ("10.0.0.1", "10.0.0.9", "10.0.0.2")}
    taken = {host: [leave for leave in leaves if leave is not None] for host, leaves in given.items()}
    assert {host: len(leaves) for host, leaves in taken.items()} == {"10.0.0.1": 16 + 4, "10.0.0.9": 4, "10.0.0.2": 32}
    assert places.take("ipv4:10.0.0.7:1", False) == (None, "8 streams are open, and no more are served")
    for leaves in taken.values():
        for leave in leaves:
            leave()
    assert all(not hosts for hosts in places._hosts.values())


@pytest.mark.parametrize(
    ("peer", "host"),
    [
        ("ipv4:10.0.0.1:45678", "10.0.0.1"),
        ("ipv6:%5B::1%5D:45678", "::1"),
        ("ipv6:[fe80::1%25eth0]:1", "fe80::1"),
        ("ipv6:%5B::ffff:10.0.0.1%5D:9", "10.0.0.1"),
        ("10.0.0.1:7946", "10.0.0.1"),
        ("[0:0::1]:7946", "::1"),
        ("n1.lan:7946", "n1.lan"),
        ("unix:", "unix"),
        ("", ""),
    ],
)
def test_hosts_of_peers(peer: str, host: str) -> None:
    assert host_of(peer) == host
