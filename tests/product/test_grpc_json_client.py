"""The client that says `application/grpc+json`, over real sockets: what its answers mean, and that channels of both kinds are counted together."""

from __future__ import annotations

import asyncio
import queue
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError
from grpclib.server import Server
from prometheus_client import CollectorRegistry

from coterie.actors.observability.metrics import ChannelMetrics
from coterie.transport import grpc_json_channel
from coterie.transport.grpc_client import Answer, ChannelPool
from coterie.transport.grpc_json_channel import Bodies
from coterie.transport.grpc_json_client import JsonChannels
from coterie.transport.grpc_server import GrpcServer, Method

PATIENCE = 20.0


class Peer:
    """A server that takes `application/grpc+json` and nothing else, as a Go server does that chooses its codec by the subtype (one is in tests/interop)."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.address: str = ""
        self.ready = threading.Event()
        self.thread = threading.Thread(target=self.loop.run_until_complete, args=(self.serve(),), daemon=True)
        self.thread.start()
        assert self.ready.wait(PATIENCE)

    def __mapping__(self) -> dict[str, Handler]:
        return {
            "/s/echo": Handler(self.echo, Cardinality.UNARY_UNARY, bytes, bytes),
            "/s/count": Handler(self.count, Cardinality.UNARY_STREAM, bytes, bytes),
        }

    async def serve(self) -> None:
        self.over = asyncio.Event()
        server = Server([self], codec=Bodies())
        await server.start("127.0.0.1", 0)
        self.address = f"127.0.0.1:{server._server.sockets[0].getsockname()[1]}"  # type: ignore[union-attr, attr-defined]
        self.ready.set()
        await self.over.wait()
        server.close()
        await server.wait_closed()

    async def echo(self, stream: Any) -> None:
        body = await stream.recv_message()
        if body == b"refuse":
            raise GRPCError(Status.FAILED_PRECONDITION, "no")
        if body == b"hold":
            await self.over.wait()
        await stream.send_message(body[::-1])

    async def count(self, stream: Any) -> None:
        """`n` messages; then it ends, or with "n+" stays."""
        body = await stream.recv_message()
        for number in range(int(body.rstrip(b"+"))):
            await stream.send_message(b"%d" % number)
        if body.endswith(b"+"):
            await self.over.wait()

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.over.set)
        self.thread.join(PATIENCE)
        self.loop.close()


class World:
    def __init__(self) -> None:
        self.peer = Peer()
        self.address = self.peer.address
        self.registry = CollectorRegistry()
        self.metrics = ChannelMetrics(self.registry)
        self.now = 0.0
        self.channels = JsonChannels("n2", self.metrics.beside(), idle_after=60, clock=lambda: self.now)

    def call(self, body: bytes, address: str = "", timeout: float = PATIENCE) -> Answer:
        answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        self.channels.call(address or self.address, "/s/echo", body, timeout, answers.put)
        return answers.get(timeout=2 * PATIENCE)

    def counted(self, what: str) -> float:
        return self.registry.get_sample_value(f"go_cluster_grpc_conn_{what}") or 0.0

    def close(self) -> None:
        self.channels.close()
        self.peer.close()


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.close()


def test_calls_and_what_their_ends_mean(world: World) -> None:
    assert world.call(b"abc") == Answer(b"cba", "OK", "", {}, sent=True)
    assert world.call(b"x" * 1_000_000).body == b"x" * 1_000_000
    assert world.call(b"refuse")[:3] == (None, "FAILED_PRECONDITION", "no")
    late = world.call(b"hold", timeout=0.3)
    assert (late.code, late.sent) == ("DEADLINE_EXCEEDED", True)
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        nowhere = world.call(b"abc", f"127.0.0.1:{nobody.getsockname()[1]}")
    assert (nowhere.code, nowhere.sent) == ("UNAVAILABLE", False)
    assert world.call(b"abc", "no address").sent is False


def test_a_server_that_speaks_something_else_or_hangs_up_is_an_answer_too(world: World) -> None:
    for words in (b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n", b""):
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]

            def serve(other: socket.socket = other, words: bytes = words) -> None:
                with other.accept()[0] as connection:
                    connection.recv(100)
                    connection.sendall(words)

            thread = threading.Thread(target=serve)
            thread.start()
            answer = world.call(b"abc", f"127.0.0.1:{port}", timeout=5)
            thread.join(PATIENCE)
        assert (answer.body, answer.sent) == (None, True), answer


def test_a_message_above_the_limit_is_refused_by_what_it_claims(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """grpclib would gather all of the four GiB that a peer can announce."""
    monkeypatch.setattr(grpc_json_channel, "MAX_MESSAGE", 1000)
    answer = world.call(b"x" * 1001)
    assert (answer.code, answer.sent) == ("RESOURCE_EXHAUSTED", True)
    assert "1001 bytes" in answer.text
    ends: queue.SimpleQueue[Answer] = queue.SimpleQueue()
    world.channels.stream(world.address, "/s/echo", b"x" * 1001, lambda message: None, ends.put)
    assert ends.get(timeout=PATIENCE).code == "RESOURCE_EXHAUSTED"
    assert world.call(b"x" * 1000).code == "OK"


def test_a_stream_brings_its_messages_in_order_until_either_side_ends_it(world: World) -> None:
    got: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    ends: queue.SimpleQueue[Answer] = queue.SimpleQueue()
    stream = world.channels.stream(world.address, "/s/count", b"500+", got.put, ends.put)
    assert stream is not None
    assert [got.get(timeout=PATIENCE) for _ in range(500)] == [b"%d" % n for n in range(500)]
    stream.close()
    assert world.channels.stream(world.address, "/s/count", b"2", got.put, ends.put) is not None
    assert ends.get(timeout=PATIENCE).code == "OK"
    assert [got.get(timeout=PATIENCE) for _ in range(2)] == [b"0", b"1"]
    assert ends.empty()  # who closed is not told


def test_stopping_ends_what_is_under_way_and_refuses_what_comes_after(world: World) -> None:
    answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()
    got: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    world.channels.stream(world.address, "/s/count", b"1+", got.put, answers.put)
    got.get(timeout=PATIENCE)
    world.channels.call(world.address, "/s/echo", b"hold", PATIENCE, answers.put)
    world.channels.close()
    assert [answers.get(timeout=PATIENCE).code for _ in range(2)] == ["CANCELLED"] * 2
    assert world.call(b"late").code == "CANCELLED"
    assert world.channels.stream(world.address, "/s/count", b"1", got.put, answers.put) is None
    assert world.counted("active") == 0


def test_dials_reuse_evictions_and_what_is_open_are_counted_over_both_kinds(world: World) -> None:
    ours = GrpcServer("127.0.0.1:0", {"s": {"echo": Method("work", lambda body, call: body)}}, "n1")
    pool = ChannelPool("n2", world.metrics, idle_after=60, clock=lambda: world.now)
    answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()

    def both() -> None:
        pool.call(f"127.0.0.1:{ours.port}", "/s/echo", b"a", PATIENCE, answers.put)
        assert answers.get(timeout=PATIENCE).body == b"a"
        assert world.call(b"a").body == b"a"

    def counts() -> tuple[float, ...]:
        return tuple(world.counted(what) for what in ("dials_total", "reuse_total", "evictions_total", "active"))

    both()
    assert counts() == (2, 0, 0, 2)
    both()
    both()
    assert counts() == (2, 4, 0, 2)
    world.now = 61.0
    pool.evict_idle()
    world.channels.evict_idle()
    both()  # dialled anew: also a sign that the loop has worked through the eviction
    assert counts() == (4, 4, 2, 2)
    pool.close()
    assert counts()[3] == 1
    world.channels.close()
    assert counts()[3] == 0
    ours.stop()
