"""gRPC between nodes, over real sockets: the management service, the nodes' own, and what a lost connection means."""

from __future__ import annotations

import contextlib
import io
import json
import queue
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import pytest

from coterie.actors.errors import (
    AlreadyMember,
    CoterieError,
    DeadlineExceeded,
    HandlerFailed,
    Indeterminate,
    InvalidRequest,
    NoQuorum,
    NotDelivered,
    NotLeader,
    Overloaded,
    PayloadTooLarge,
    UnknownMember,
    Unreachable,
)
from coterie.actors.future import LightFuture
from coterie.actors.management.client import NodeClient
from coterie.actors.management.failures import TOO_MANY_CALLS, from_answer
from coterie.actors.management.grpc_api import MANAGEMENT, management_services
from coterie.actors.management.health import NOT_SERVING, SERVING, HealthBoard
from coterie.actors.management.node_api import Batch, NodePorts
from coterie.actors.management.replication_api import refusing_replication
from coterie.actors.management.server import grpc_services
from coterie.actors.messages import Join, Joined, Leave, Left, Publish, Published, Read, Status, Write
from coterie.actors.snapshot_messages import Snapshot, StateEnd, StateReach, WholeState
from coterie.proto.generated import cluster_pb2
from coterie.transport.errors import BindError
from coterie.transport.grpc_client import Answer, ChannelPool
from coterie.transport.grpc_reception import StreamPlaces
from coterie.transport.grpc_server import MAX_MESSAGE, Call, GrpcServer, Method
from tests.product.management_world import STATUS, FakeCluster, wait_until

PATIENCE = 10.0


def done(value: Any) -> LightFuture:
    future = LightFuture()
    future.set(value)
    return future


class Replication:
    """The replication room's side of the ports, as a test sees it."""

    def __init__(self) -> None:
        self.forwarded: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.closed: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.acks: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.sources: queue.SimpleQueue[Source] = queue.SimpleQueue()
        self.refuse_to_follow: CoterieError | None = None
        self.ports = NodePorts(
            forwarded=lambda *forward: self.forwarded.put(forward),
            session_closed=self.closed.put,
            acks=lambda *acks: self.acks.put(acks),
            follow=self.follow,
        )

    def follow(self, node_id: str, cursors: dict[str, int]) -> Source:
        if self.refuse_to_follow is not None:
            raise self.refuse_to_follow
        source = Source(node_id, cursors)
        self.sources.put(source)
        return source


class Source:
    def __init__(self, node_id: str, cursors: dict[str, int]) -> None:
        self.node_id, self.cursors = node_id, cursors
        self.batches: queue.SimpleQueue[list[Batch] | None] = queue.SimpleQueue()
        self.closed = threading.Event()

    def take(self, timeout: float) -> list[Batch] | None:
        try:
            return self.batches.get(timeout=timeout)
        except queue.Empty:
            return []

    def close(self) -> None:
        self.closed.set()
        self.batches.put(None)


class World:
    def __init__(self, **server: Any) -> None:
        self.cluster = FakeCluster()
        self.replication = Replication()
        self.board = HealthBoard()
        self.serve(self.replication.ports, **server)
        self.pool = ChannelPool("n2")
        self.client = NodeClient(self.pool, "n2")

    def serve(self, ports: NodePorts, **server: Any) -> None:
        services = grpc_services(self.cluster.service(), ports, refusing_replication(), self.board)
        self.server = GrpcServer("127.0.0.1:0", services, "n1", **server)
        self.address = f"127.0.0.1:{self.server.port}"

    def close(self) -> None:
        self.pool.close()
        self.server.stop()

    def ask(self, name: str, *arguments: Any, timeout: float = PATIENCE) -> Any:
        return getattr(self.client, name)(self.address, *arguments, timeout).get(timeout=2 * PATIENCE)

    def raw(self, method: str, body: bytes = b"", timeout: float = PATIENCE) -> Answer:
        answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        self.pool.call(self.address, method, body, timeout, answers.put)
        return answers.get(timeout=2 * PATIENCE)


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.close()


# -- requests ---------------------------------------------------------------------------------------------------------------------


def test_requests_reach_the_cluster_and_come_back_typed(world: World) -> None:
    assert world.ask("write", "demo", b"abc") == b"cba"
    assert world.ask("read", "demo", b"abc") == b"read abc"
    assert world.ask("publish", "a/b", b"\xff") == Published("a/b", 0, 0)
    assert world.ask("join", "n2", "10.0.0.2:9520") == Joined("n2", "10.0.0.2:9520")
    assert world.ask("leave", "n2") == Left("n2")
    assert world.ask("status") == STATUS
    kinds = [type(message) for message in world.cluster.asked]
    assert kinds[:2] == [Write, Read]
    assert kinds[3:] == [Join, Leave, Status]


def test_what_a_node_passes_on_is_marked_so_that_it_is_not_passed_on_again(world: World) -> None:
    world.ask("write", "demo", b"")
    assert len(world.cluster.passed_on) == 1
    NodeClient(world.pool, forwarded=False).write(world.address, "demo", b"", PATIENCE).get(timeout=PATIENCE)
    assert len(world.cluster.passed_on) == 1
    world.ask("status")
    assert world.cluster.asked[-1].local


@pytest.mark.parametrize(
    "error",
    [
        NotLeader("n3", "10.0.0.3:17946"),
        NoQuorum("no leader within 10 s"),
        Indeterminate("unknown"),
        DeadlineExceeded("no answer; ü"),
        Overloaded("topic 't' is full"),
        PayloadTooLarge("above 1 MiB"),
        HandlerFailed("handle_write raised ValueError: no such order"),
        InvalidRequest("op='': no"),
        AlreadyMember("n2"),
        UnknownMember("n9"),
        Unreachable("10.0.0.3:9520"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_is_raised_as_the_same_error_on_the_other_side(world: World, error: CoterieError) -> None:
    world.cluster.answers = dict.fromkeys(world.cluster.answers, error)
    for call in (("write", "op", b""), ("read", "op", b""), ("join", "n2", "h:1"), ("leave", "n2"), ("publish", "t", b""), ("status",)):
        with pytest.raises(type(error)) as raised:
            world.ask(*call)
        assert type(raised.value) is type(error)
        assert str(raised.value) == str(error)
    if isinstance(error, NotLeader):
        assert isinstance(raised.value, NotLeader)
        assert (raised.value.leader_id, raised.value.leader_addr) == ("n3", "10.0.0.3:17946")


def test_an_error_of_any_length_comes_as_the_error_that_it_is(world: World) -> None:
    """Metadata has a limit of its own: a handler that raised with a page of text looked like a server that is full, and nothing carried out."""
    for text in ("x" * 100_000, "é" * 100_000):
        world.cluster.answers = dict.fromkeys(world.cluster.answers, HandlerFailed(text))
        for call in (("write", "op", b""), ("read", "op", b""), ("publish", "t", b""), ("status",)):
            with pytest.raises(HandlerFailed, match=text[:400]):
                world.ask(*call)


def test_a_publish_that_many_have_not_had_yet_names_some_of_them(world: World) -> None:
    names = tuple(f"{n:03}" + "x" * 120 for n in range(100))
    world.cluster.answers[Publish] = NotDelivered("late", "t", 7, 7, 9, names)
    with pytest.raises(NotDelivered) as raised:
        world.ask("publish", "t", b"")
    assert (raised.value.last_seq, raised.value.missing) == (7, names[:16])


def test_an_answer_that_is_too_large_does_not_look_like_a_write_that_was_not_carried_out(world: World) -> None:
    world.cluster.answers[Write] = world.cluster.answers[Read] = lambda m: bytes(MAX_MESSAGE)
    for name in ("write", "read"):
        with pytest.raises(Indeterminate, match="carried out"):
            world.ask(name, "op", b"")
    lost = Answer(None, "RESOURCE_EXHAUSTED", "Received message larger than max", {}, sent=True)
    assert type(from_answer(lost, "h:1", repeatable=False)) is Indeterminate
    assert type(from_answer(lost, "h:1", repeatable=True)) is Overloaded
    assert type(from_answer(lost._replace(text=TOO_MANY_CALLS), "h:1", repeatable=False)) is Overloaded


def test_the_body_alone_tells_a_client_of_the_model_what_went_wrong(world: World) -> None:
    world.cluster.answers[Join] = NotLeader("n3", "10.0.0.3:17946")
    request = cluster_pb2.JoinRequest(id="n2", raft_addr="h:1").SerializeToString()
    answer = world.raw("/cluster.v1.Management/Join", request)
    assert answer.code == "OK"
    assert cluster_pb2.JoinResponse.FromString(answer.body or b"") == cluster_pb2.JoinResponse(leader="10.0.0.3:17946", error="not leader")
    world.cluster.answers[Write] = HandlerFailed("no")
    answer = world.raw("/cluster.v1.Management/AppWrite", cluster_pb2.AppWriteRequest(op="x").SerializeToString())
    assert cluster_pb2.AppWriteResponse.FromString(answer.body or b"").error == "no"


def test_the_status_blob_is_the_document_of_the_http_api(world: World) -> None:
    answer = world.raw("/cluster.v1.Management/GetStatus")
    assert json.loads(cluster_pb2.GetStatusResponse.FromString(answer.body or b"").data)["LeaderID"] == "n1"


def test_bad_requests_are_refused_and_harm_nobody(world: World) -> None:
    for method in ("Join", "Leave", "AppWrite", "AppSync"):
        answer = world.raw(f"/cluster.v1.Management/{method}", b"\xff\xff")
        assert b"InvalidRequest" in answer.trailing["coterie-failure-bin"]
    assert world.raw("/cluster.v1.Management/GetStatus", b"\xff").code == "INVALID_ARGUMENT"
    for call in (("join", "", "h:1"), ("join", "n2", "nowhere"), ("leave", ""), ("publish", "", b""), ("publish", "t" * 256, b"")):
        with pytest.raises(InvalidRequest):
            world.ask(*call)
    assert world.raw("/cluster.v1.Management/Nothing").code == "UNIMPLEMENTED"
    assert world.cluster.asked == []
    assert world.ask("write", "demo", b"ab") == b"ba"


# -- deadlines and lost connections -----------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_nobody_listens_so_nothing_was_done(world: World) -> None:
    nowhere = f"127.0.0.1:{free_port()}"
    for future in (world.client.write(nowhere, "x", b"", 5), world.client.read(nowhere, "x", b"", 5), world.client.status(nowhere, 5)):
        with pytest.raises(Unreachable):
            future.get(timeout=PATIENCE)


def test_a_write_without_an_answer_in_time_is_indeterminate_and_its_time_is_passed_on(world: World) -> None:
    world.cluster.answers[Write] = world.cluster.answers[Read] = FakeCluster.PENDING
    with pytest.raises(Indeterminate):
        world.ask("write", "x", b"", timeout=0.3)
    assert 0 < world.cluster.asked[0].timeout < 0.35  # on the wire gRPC rounds a time-out up
    with pytest.raises((Unreachable, DeadlineExceeded)):
        world.ask("read", "x", b"", timeout=0.3)


def test_a_connection_lost_after_the_request_was_sent_leaves_a_write_indeterminate(world: World) -> None:
    world.cluster.answers[Write] = world.cluster.answers[Read] = FakeCluster.PENDING
    with Proxy(world.server.port) as proxy:
        write = world.client.write(proxy.address, "x", b"", PATIENCE)
        read = world.client.read(proxy.address, "x", b"", PATIENCE)
        world.cluster.wait_asked(2)
        proxy.cut()
        with pytest.raises(Indeterminate):
            write.get(timeout=PATIENCE)
        with pytest.raises(Unreachable):
            read.get(timeout=PATIENCE)


def test_a_peer_that_returns_is_found_again_within_seconds(world: World) -> None:
    port = free_port()
    address = f"127.0.0.1:{port}"
    with pytest.raises(Unreachable):
        world.client.status(address, 5).get(timeout=PATIENCE)
    services = management_services(world.cluster.service())
    late = GrpcServer(address, services, "late")
    started = time.monotonic()
    try:

        def answered() -> bool:
            future = world.client.status(address, 5)
            try:
                return bool(future.get(timeout=PATIENCE))
            except Unreachable:
                return False

        wait_until(answered)
        assert time.monotonic() - started < 5
    finally:
        late.stop()


def test_a_stopped_pool_answers_at_once(world: World) -> None:
    world.cluster.answers[Write] = FakeCluster.PENDING
    under_way = world.client.write(world.address, "x", b"", PATIENCE)
    world.cluster.wait_asked()
    world.pool.close()
    with pytest.raises(Indeterminate):
        under_way.get(timeout=PATIENCE)
    with pytest.raises(Unreachable):
        world.client.write(world.address, "x", b"", PATIENCE).get(timeout=PATIENCE)


# -- streams ----------------------------------------------------------------------------------------------------------------------


class Ends:
    """What a stream of the client told."""

    def __init__(self) -> None:
        self.replies: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.closed: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def on_reply(self, *reply: Any) -> None:
        self.replies.put(reply)


def open_link(world: World, ends: Ends) -> Any:
    return world.client.open_link(world.address, ends.on_reply, ends.closed.put)


def test_a_session_keeps_the_order_of_batches_and_answers_each(world: World) -> None:
    ends = Ends()
    link = open_link(world, ends)
    for number in range(1, 101):
        assert link.send(number, b"batch %d" % number)
    got = [world.replication.forwarded.get(timeout=PATIENCE) for _ in range(100)]
    assert [(forward_id, batch) for _, forward_id, batch, *_ in got] == [(n, b"batch %d" % n) for n in range(1, 101)]
    assert len({id(session) for session, *_ in got}) == 1
    reply: Callable[..., None] = got[0][3]
    reply(2, b"places", None)
    reply(1, None, NotLeader("n3", "h:3"))
    assert ends.replies.get(timeout=PATIENCE) == (2, b"places", None)
    forward_id, payload, error = ends.replies.get(timeout=PATIENCE)
    assert (forward_id, payload, type(error), error.leader_id) == (1, None, NotLeader, "n3")
    link.close()
    assert world.replication.closed.get(timeout=PATIENCE) is got[0][0]
    assert not link.send(101, b"")
    assert ends.closed.empty()


def test_who_holds_a_session_is_told_when_it_breaks(world: World) -> None:
    ends = Ends()
    with Proxy(world.server.port) as proxy:
        link = world.client.open_link(proxy.address, ends.on_reply, ends.closed.put)
        link.send(1, b"x")
        session, _, _, reply, _ = world.replication.forwarded.get(timeout=PATIENCE)
        proxy.cut()
        assert isinstance(ends.closed.get(timeout=PATIENCE), Unreachable)
        assert world.replication.closed.get(timeout=PATIENCE) is session
        reply(1, b"late", None)  # nobody hears it, and nobody minds
        wait_until(lambda: not link.send(2, b"y"))


def test_a_session_to_nobody_is_closed(world: World) -> None:
    ends = Ends()
    world.client.open_link(f"127.0.0.1:{free_port()}", ends.on_reply, ends.closed.put)
    assert isinstance(ends.closed.get(timeout=PATIENCE), Unreachable)


def test_acknowledgements_arrive(world: World) -> None:
    acks = world.client.open_acks(world.address, lambda error: None)
    assert acks.send({"a/b": 7, "ü": 2**40}.items(), announce=True)
    assert acks.send({"a/b": 8}.items())
    assert world.replication.acks.get(timeout=PATIENCE) == ("n2", {"a/b": 7, "ü": 2**40}, True)
    assert world.replication.acks.get(timeout=PATIENCE) == ("n2", {"a/b": 8}, False)
    acks.close()
    assert not acks.send({"a/b": 9}.items())


def test_a_stopped_pool_opens_no_stream(world: World) -> None:
    world.pool.close()
    for open_one in (lambda: world.client.open_acks(world.address, print), lambda: world.client.open_link(world.address, print, print)):
        with pytest.raises(Unreachable):
            open_one()


def test_a_follower_gets_batches_until_it_goes(world: World) -> None:
    got: queue.SimpleQueue[list[Batch]] = queue.SimpleQueue()
    stream = world.client.follow(world.address, {"t": 5, "u": 1}, got.put, lambda error: None)
    source = world.replication.sources.get(timeout=PATIENCE)
    assert (source.node_id, source.cursors) == ("n2", {"t": 5, "u": 1})
    first: list[Batch] = [("t", 5, 2, 17, b"\x92ab"), ("u", 1, 1, 18, b"x" * (2 << 20))]
    source.batches.put(first)
    source.batches.put([("t", 7, 1, 19, b"c")])
    assert got.get(timeout=PATIENCE) == first
    assert got.get(timeout=PATIENCE) == [("t", 7, 1, 19, b"c")]
    stream.close()
    assert source.closed.wait(PATIENCE)


def test_a_follower_is_told_why_it_is_not_served(world: World) -> None:
    ends = Ends()
    world.replication.refuse_to_follow = NotLeader("n3", "h:3")
    world.client.follow(world.address, {}, lambda batches: None, ends.closed.put)
    error = ends.closed.get(timeout=PATIENCE)
    assert (type(error), error.leader_id) == (NotLeader, "n3")


def test_a_whole_state_comes_piece_by_piece_and_one_that_is_too_short_is_not_sent(world: World) -> None:
    content = random.Random(5).randbytes(600 << 10)
    asked: list[bool] = []

    def whole() -> LightFuture:
        asked.append(True)
        return done(WholeState(Snapshot(45, 4, io.BytesIO(content), len(content), False), 7, b"servers"))

    def state(at_least: int) -> tuple[list[Any], Exception | None]:
        parts: list[Any] = []
        ends = Ends()
        world.client.state(world.address, at_least, parts.append, ends.closed.put)
        return parts, ends.closed.get(timeout=PATIENCE)

    ports = attrs.evolve(world.replication.ports, reach=lambda: done(StateReach(40, False)), whole=whole)
    world.server.stop()
    world.serve(ports)
    assert state(41) == ([StateReach(40, False)], None) and not asked
    parts, error = state(40)
    assert (parts[:2], error) == ([StateReach(40, False), StateEnd(45, 4, 7, b"servers", len(content))], None)
    assert b"".join(parts[2:]) == content and len(parts) > 3


def test_a_node_that_replicates_nothing_has_no_state_to_give(world: World) -> None:
    ends = Ends()
    world.client.state(world.address, 1, print, ends.closed.put)
    assert isinstance(ends.closed.get(timeout=PATIENCE), NotLeader)


def test_who_waits_for_a_state_serves_no_requests_and_lives() -> None:
    board = HealthBoard()
    board.serves([MANAGEMENT])
    board.topology(True, False)
    assert board.status(MANAGEMENT) == SERVING
    board.waits(True)
    assert (board.status(MANAGEMENT), board.status("")) == (NOT_SERVING, SERVING)
    board.waits(False)
    assert board.status(MANAGEMENT) == SERVING


def test_open_streams_never_starve_calls_and_one_too_many_is_refused_at_once() -> None:
    world = World(places=StreamPlaces(20), work_threads=2)
    try:
        streams = [world.client.follow(world.address, {}, lambda batches: None, lambda error: None) for _ in range(20)]
        sources = [world.replication.sources.get(timeout=PATIENCE) for _ in streams]
        ends = Ends()
        world.client.follow(world.address, {}, lambda batches: None, ends.closed.put)
        assert isinstance(ends.closed.get(timeout=PATIENCE), Overloaded)
        assert world.ask("write", "demo", b"ab") == b"ba"
        for stream in streams:
            stream.close()
        assert all(source.closed.wait(PATIENCE) for source in sources)
        wait_until(
            lambda: (
                world.client.follow(world.address, {}, lambda batches: None, lambda error: None) and not world.replication.sources.empty()
            )
        )
    finally:
        world.close()


def test_a_status_is_answered_while_writes_hold_every_worker() -> None:
    world = World(work_threads=2)
    try:
        world.cluster.answers[Write] = FakeCluster.PENDING
        waiting = [world.client.write(world.address, "slow", b"", PATIENCE) for _ in range(10)]
        world.cluster.wait_asked(2)
        assert world.ask("status") == STATUS
        world.cluster.answers[Write] = b"done"
        for future in list(world.cluster.pending):
            future.set(b"done")
        assert [future.get(timeout=PATIENCE) for future in waiting] == [b"done"] * 10
    finally:
        world.close()


# -- the server and the pool ------------------------------------------------------------------------------------------------------


def test_stopping_is_quick_with_open_streams_and_waiting_calls() -> None:
    world = World()
    world.cluster.answers[Write] = FakeCluster.PENDING
    ends = Ends()
    open_link(world, ends)
    world.client.follow(world.address, {}, lambda batches: None, ends.closed.put)
    write = world.client.write(world.address, "x", b"", 30)
    world.cluster.wait_asked()
    world.replication.sources.get(timeout=PATIENCE)
    started = time.monotonic()
    world.server.stop()
    assert time.monotonic() - started < 2
    with pytest.raises(Indeterminate):
        write.get(timeout=PATIENCE)
    assert isinstance(ends.closed.get(timeout=PATIENCE), CoterieError)
    wait_until(lambda: not [thread for thread in threading.enumerate() if thread.name.startswith("n1/")])
    world.pool.close()


def test_500_idle_connections_and_garbage_leave_the_server_answering(world: World) -> None:
    idle = [socket.create_connection(("127.0.0.1", world.server.port)) for _ in range(500)]
    try:
        noise = random.Random(11)
        for size in (1, 1000, 100_000):
            with socket.create_connection(("127.0.0.1", world.server.port)) as garbage:
                garbage.settimeout(10)
                try:
                    garbage.sendall(noise.randbytes(size))
                    garbage.shutdown(socket.SHUT_WR)
                    while garbage.recv(65536):
                        pass
                except OSError:
                    pass  # reset: as good as closed
        assert world.ask("write", "demo", b"ab") == b"ba"
        fresh = ChannelPool("fresh")
        assert NodeClient(fresh).status(world.address, PATIENCE).get(timeout=PATIENCE) == STATUS
        fresh.close()
    finally:
        for connection in idle:
            connection.close()


def test_a_port_in_use_is_a_typed_error(world: World) -> None:
    with pytest.raises(BindError, match=f"grpc_addr '{world.address}' cannot be bound.*choose another port"):
        GrpcServer(world.address, {})
    with pytest.raises(BindError, match=r"grpc_addr '203\.0\.113\.9:0'"):
        GrpcServer("203.0.113.9:0", {})


def test_a_method_that_fails_is_told_and_counted_and_the_server_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    def broken(body: bytes, call: Call) -> bytes:
        raise ZeroDivisionError("a bug")

    server = GrpcServer(
        "127.0.0.1:0", {"test.Service": {"Broken": Method("work", broken), "Well": Method("work", lambda body, call: body)}}
    )
    pool = ChannelPool()
    answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()
    try:
        pool.call(f"127.0.0.1:{server.port}", "/test.Service/Broken", b"", PATIENCE, answers.put)
        answer = answers.get(timeout=PATIENCE)
        assert (answer.code, answer.text) == ("INTERNAL", "ZeroDivisionError: a bug")
        assert server.counters.snapshot() == {"methods failed": 1}
        pool.call(f"127.0.0.1:{server.port}", "/test.Service/Well", b"x" * (8 << 20), PATIENCE, answers.put)
        assert len(answers.get(timeout=PATIENCE).body or b"") == 8 << 20
    finally:
        pool.close()
        server.stop()


def test_channels_are_reused_evicted_when_idle_and_counted(world: World) -> None:
    class Seen:
        def __init__(self) -> None:
            self.events: list[str] = []
            self.now = 0

        def dialled(self) -> None:
            self.events.append("dialled")

        def reused(self) -> None:
            self.events.append("reused")

        def evicted(self) -> None:
            self.events.append("evicted")

        def active(self, channels: int) -> None:
            self.now = channels

    seen, clock = Seen(), [0.0]
    pool = ChannelPool(observer=seen, idle_after=60, clock=lambda: clock[0])
    client = NodeClient(pool)
    client.status(world.address, PATIENCE).get(timeout=PATIENCE)
    client.status(world.address, PATIENCE).get(timeout=PATIENCE)
    assert (seen.events, seen.now) == (["dialled", "reused"], 1)
    clock[0] = 59.0
    pool.evict_idle()
    assert seen.now == 1
    world.cluster.answers[Write] = FakeCluster.PENDING
    busy = client.write(world.address, "x", b"", PATIENCE)
    world.cluster.wait_asked(3)
    clock[0] = 200.0
    pool.evict_idle()
    assert (seen.now, busy.done) == (1, False)
    world.cluster.pending[0].set(b"")
    busy.get(timeout=PATIENCE)
    clock[0] = 300.0
    pool.evict_idle()
    assert (seen.events[-1], seen.now) == ("evicted", 0)
    client.status(world.address, PATIENCE).get(timeout=PATIENCE)
    assert (seen.events[-1], seen.now) == ("dialled", 1)
    pool.close()


class Proxy:
    """Passes bytes on to `port` until `cut`, which resets both sides as a dying process does."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept)]

    def __enter__(self) -> Proxy:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()
        for thread in self._threads:
            thread.join(PATIENCE)
        for sock in self._sockets:
            sock.close()

    def cut(self) -> None:
        for sock in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):  # it is gone already
                sock.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._port))
            self._sockets += [near, far]
            for source, sink in ((near, far), (far, near)):
                thread = threading.Thread(target=self._pass, args=(source, sink))
                self._threads.append(thread)
                thread.start()

    @staticmethod
    def _pass(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
        except OSError:
            pass  # cut
