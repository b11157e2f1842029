"""The Raft transport on loopback: order of answers, connections that end in every way, and ports that are fed garbage."""

from __future__ import annotations

import os
import random
import socket
import threading
import time

import pytest

from coterie.proto.raft_codec import encode_request, encode_response
from coterie.proto.raft_messages import (
    AppendRequest,
    AppendResponse,
    Entry,
    Header,
    PreVoteRequest,
    PreVoteResponse,
    RpcError,
    SnapshotRequest,
    SnapshotResponse,
    TimeoutNowRequest,
    TimeoutNowResponse,
    VoteRequest,
    VoteResponse,
)
from coterie.transport import raft_client
from coterie.transport.errors import BindError, DialError
from coterie.transport.raft_client import RaftPeer, identify
from coterie.transport.raft_server import RaftServer, reply_all
from tests.wire.transport_support import Recorder, connected, eventually, read_to_end, reset, silent_listener

ME = Header("n1", "127.0.0.1:1")
YOU = Header("n2", "127.0.0.1:2")


def vote(term):
    return VoteRequest(ME, term, 7, 1)


def append(term, entries=()):
    return AppendRequest(ME, term, 7, 1, 7, tuple(entries))


def snapshot(size):
    return SnapshotRequest(ME, 3, 7, 1, b"", 1, size)


def answer(request):
    """A trivial node: says the term back."""
    if isinstance(request, AppendRequest):
        return AppendResponse(YOU, request.term, len(request.entries or ()), True)
    if isinstance(request, VoteRequest):
        return VoteResponse(YOU, request.term, True)
    if isinstance(request, PreVoteRequest):
        return PreVoteResponse(YOU, request.term, False)
    if isinstance(request, SnapshotRequest):
        return SnapshotResponse(YOU, request.term, True)
    return TimeoutNowResponse(YOU)


def answering(handle, request):
    handle.reply(answer(request))


class Caller:
    """A RaftPeer with recorders in place of a node."""

    def __init__(self, port, **options):
        self.answers, self.sessions = Recorder(), Recorder()
        options.setdefault("back_off", (0.01, 0.05))
        self.peer = RaftPeer(
            f"127.0.0.1:{port}",
            self.answers,
            lambda: self.sessions("connected"),
            lambda: self.sessions("disconnected"),
            name="n1",
            **options,
        )

    def send(self, request, token):
        return self.peer.send(encode_request(request), type(request), token)


@pytest.fixture
def serve():
    servers = []

    def start(on_request=answering, bind="127.0.0.1:0", **options):
        servers.append(RaftServer(bind, on_request, name="n2", **options))
        return servers[-1]

    yield start
    for server in servers:
        server.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("n2/") and thread.is_alive() and not ending(thread)]


def ending(thread):
    thread.join(1)
    return not thread.is_alive()


@pytest.fixture
def call():
    callers = []

    def start(port, **options):
        callers.append(Caller(port, **options))
        return callers[-1]

    yield start
    for caller in callers:
        caller.peer.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("n1/")]


def test_every_rpc_is_served_on_one_connection(serve, call):
    server = serve()
    caller = call(server.port)
    caller.sessions.wait(1)
    requests = [vote(2), append(2), PreVoteRequest(ME, 3, 7, 1), TimeoutNowRequest(ME), append(2, [Entry(8, 2, 0, b"x")]), vote(4)]
    for place, request in enumerate(requests):
        assert caller.send(request, place)
    answers = caller.answers.wait(len(requests))
    assert [token for token, _ in answers] == list(range(len(requests)))
    assert [type(response) for _, response in answers] == [type(answer(request)) for request in requests]
    assert server.counters()["connections"] == 1


def test_answers_leave_in_the_order_of_the_requests_however_they_are_given(serve, call):
    handles = Recorder()
    server = serve(handles)
    caller = call(server.port)
    caller.sessions.wait(1)
    for term in range(50):
        caller.send(vote(term), term)
    pairs = handles.wait(50)
    random.Random(1).shuffle(pairs)
    for handle, request in pairs:
        handle.reply(answer(request))
    assert [(token, response.term) for token, response in caller.answers.wait(50)] == [(term, term) for term in range(50)]


def test_replies_together_leave_together(serve):
    handles = Recorder()
    server = serve(handles)
    requests = [vote(term) for term in range(10)]
    with connected(server.port) as sock:
        sock.sendall(b"".join(map(encode_request, requests)))
        pairs = handles.wait(10)
        reply_all((handle, answer(request)) for handle, request in reversed(pairs))
        wanted = b"".join(encode_response(answer(request)) for request in requests)
        assert sock.recv(1 << 16) == wanted


def test_replies_to_several_connections_find_each_its_own(serve, call):
    handles = Recorder()
    server = serve(handles)
    callers = [call(server.port) for _ in range(3)]
    for number, caller in enumerate(callers):
        caller.sessions.wait(1)
        caller.send(vote(number), "only")
    reply_all((handle, answer(request)) for handle, request in handles.wait(3))
    assert [caller.answers.wait(1)[0][1].term for caller in callers] == [0, 1, 2]


def test_a_second_reply_changes_nothing_and_is_counted(serve, call):
    def twice(handle, request):
        handle.reply(answer(request))
        handle.reply(RpcError("again"))

    server = serve(twice)
    caller = call(server.port)
    caller.sessions.wait(1)
    for term in range(3):
        caller.send(vote(term), term)
    assert [response.term for _, response in caller.answers.wait(3)] == [0, 1, 2]
    eventually(lambda: server.counters().get("replies repeated") == 3, "the second replies are counted")


def test_requests_may_come_byte_by_byte(serve):
    server = serve()
    requests = [vote(3), append(3, [Entry(8, 3, 0, b"data"), Entry(9, 3, 0, None)]), TimeoutNowRequest(ME)]
    with connected(server.port) as sock:
        for byte in b"".join(map(encode_request, requests)):
            sock.send(bytes((byte,)))
        sock.shutdown(socket.SHUT_WR)
        assert read_to_end(sock) == b"".join(encode_response(answer(request)) for request in requests)


def test_many_large_requests_are_answered_in_order(serve, call):
    server = serve()
    caller = call(server.port)
    caller.sessions.wait(1)
    data = os.urandom(1 << 20)
    for term in range(20):
        assert caller.send(append(term, [Entry(8, term, 0, data)]), term)
    assert [(token, response.term) for token, response in caller.answers.wait(20)] == [(term, term) for term in range(20)]


def test_an_rpc_error_is_an_answer_and_the_connection_stays(serve, call):
    server = serve(lambda handle, request: handle.reply(RpcError("not now")))
    caller = call(server.port)
    caller.sessions.wait(1)
    caller.send(vote(1), 1)
    caller.send(vote(2), 2)
    assert [response.error for _, response in caller.answers.wait(2)] == ["not now", "not now"]


# Snapshots


def test_the_answer_to_a_snapshot_waits_for_the_end_of_its_data(serve):
    pieces = Recorder()
    server = serve(on_snapshot_data=lambda handle, data: pieces(data))
    body = os.urandom(300_000)
    with connected(server.port) as sock:
        sock.sendall(encode_request(snapshot(len(body))) + body[:-1])
        eventually(lambda: sum(len(piece.chunk) for piece in pieces.seen) == len(body) - 1, "all but the last byte came")
        sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            sock.recv(1)
        sock.setblocking(True)
        sock.sendall(body[-1:] + encode_request(vote(9)))
        sock.shutdown(socket.SHUT_WR)
        assert read_to_end(sock) == encode_response(answer(snapshot(0))) + encode_response(answer(vote(9)))
    assert b"".join(piece.chunk for piece in pieces.seen) == body
    assert [piece.last for piece in pieces.seen].count(True) == 1


@pytest.mark.parametrize("size", [0, 1, 500_000])
def test_a_refused_snapshot_is_read_to_its_end_and_the_connection_goes_on(serve, call, size):
    refusal = RpcError("this node does not take snapshots", SnapshotResponse(YOU, 3, False))

    def refuse(handle, request):
        handle.reply(refusal if isinstance(request, SnapshotRequest) else answer(request))

    server = serve(refuse)
    with connected(server.port) as sock:
        sock.sendall(encode_request(snapshot(size)) + bytes(size) + encode_request(vote(9)))
        sock.shutdown(socket.SHUT_WR)
        assert read_to_end(sock) == encode_response(refusal) + encode_response(answer(vote(9)))
    assert server.counters().get("snapshot bytes dropped", 0) == size


# What a connection may not do


def test_garbage_closes_the_connection_without_an_answer_and_is_counted(serve):
    server = serve()
    rng = random.Random(7)
    valid = encode_request(append(3, [Entry(8, 3, 0, b"data")]))
    garbage = [
        b"\x05\x80",
        b"\xff",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x00\x90",
        b"\x00" + b"\xc1" * 9,
        rng.randbytes(1000),
        valid[:1] + b"\xa3abc",
    ]
    for data in garbage:
        with connected(server.port) as sock:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            assert read_to_end(sock) == b"", data[:20]
    eventually(lambda: server.counters()["connections now"] == 0, "all connections are closed")
    counters = server.counters()
    assert counters.get("garbage", 0) + counters.get("cut off", 0) + counters.get("connections reset", 0) == len(garbage)
    assert counters["garbage"] >= 5
    assert counters["half bytes now"] == 0
    assert "requests" not in counters


def test_a_huge_announced_length_is_refused_before_memory_is_taken(serve):
    server = serve(max_message=1 << 20)
    with connected(server.port) as sock:
        sock.sendall(b"\x00\x81\xa4Addr\xdb\x7f\xff\xff\xff")
        sock.settimeout(0.01)
        sent = 0
        while sent < 1 << 26:
            try:
                sent += sock.send(bytes(1 << 16))
            except OSError:
                break
        assert sent < 1 << 25
    eventually(lambda: server.counters()["connections now"] == 0, "the connection is closed")
    assert server.counters()["half bytes now"] == 0


def test_half_messages_of_all_connections_share_one_bound(serve):
    server = serve(max_half_bytes=300_000)
    half = encode_request(append(1, [Entry(8, 1, 0, bytes(1 << 20))]))[:200_000]
    with connected(server.port) as one, connected(server.port) as other:
        for sock in (one, other):  # who has said something whole may use all of the room
            sock.sendall(encode_request(vote(5)))
            assert sock.recv(1 << 16) == encode_response(answer(vote(5)))
        one.sendall(half)
        eventually(lambda: server.counters()["half bytes now"] == len(half), "the first half message is held")
        other.sendall(half)
        assert read_to_end(other) == b""
        eventually(lambda: server.counters()["connections now"] == 1, "the second is closed, the first stays")
        assert server.counters()["half messages refused"] == 1
        one.sendall(b"")
    eventually(lambda: server.counters()["half bytes now"] == 0, "what was held is released")
    assert server.counters()["cut off"] >= 1


def test_idle_connections_stay_and_do_not_hinder_others(serve, call):
    server = serve()
    idle = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(200)]
    try:
        eventually(lambda: server.counters()["connections now"] == 200, "all are open")
        caller = call(server.port)
        caller.sessions.wait(1)
        caller.send(vote(1), 1)
        caller.answers.wait(1)
        idle[100].sendall(encode_request(vote(5)))
        assert idle[100].recv(1 << 16) == encode_response(answer(vote(5)))
    finally:
        for sock in idle:
            sock.close()
    eventually(lambda: server.counters()["connections now"] == 1, "they are forgotten when they end")


def test_connections_beyond_the_bound_are_closed_and_counted(serve):
    server = serve(max_connections=2)
    with connected(server.port) as one, connected(server.port) as two, connected(server.port) as three:
        assert read_to_end(three) == b""
        assert server.counters()["connections refused"] == 1
        for sock in (one, two):
            sock.sendall(encode_request(vote(1)))
            assert sock.recv(1 << 16)
    eventually(lambda: server.counters()["connections now"] == 0, "room again")
    with connected(server.port) as sock:
        sock.sendall(encode_request(vote(1)))
        assert sock.recv(1 << 16)


def test_a_connection_with_too_much_unanswered_is_read_no_further_until_it_is_answered(serve):
    handles = Recorder()
    server = serve(handles, max_unanswered=10)
    with connected(server.port) as sock:
        for term in range(10):
            sock.sendall(encode_request(vote(term)))
        pairs = handles.wait(10)
        sock.sendall(encode_request(vote(10)))
        with pytest.raises(AssertionError):
            handles.wait(11, deadline=0.1)
        pairs[0][0].reply(answer(pairs[0][1]))
        assert handles.wait(11)[10][1].term == 10


def test_a_peer_that_asks_but_never_reads_is_closed(serve):
    big = RpcError("x" * 100_000)
    server = serve(lambda handle, request: handle.reply(big), backlog_bytes=1 << 20)
    with connected(server.port) as sock:
        sock.sendall(encode_request(vote(1)) * 500)
        eventually(lambda: server.counters().get("answers unread") == 1, "the bound is met")
        eventually(lambda: server.counters()["connections now"] == 0, "the connection is closed")
    assert server.counters()["answers unread"] == 1


def test_a_reply_after_the_connection_ended_is_counted_and_harmless(serve):
    handles = Recorder()
    server = serve(handles)
    with connected(server.port) as sock:
        sock.sendall(encode_request(vote(1)))
        handle, request = handles.wait(1)[0]
    eventually(lambda: server.counters()["connections now"] == 0, "the connection has ended")
    handle.reply(answer(request))
    assert server.counters()["replies too late"] == 1


def test_the_end_of_a_connection_is_told_with_the_header_of_who_spoke(serve):
    closed = Recorder()
    server = serve(on_closed=closed)
    with connected(server.port) as sock:
        sock.sendall(encode_request(vote(1)))
        assert sock.recv(1 << 16)
        reset(sock)
        assert closed.wait(1) == [ME]


def test_a_failing_callback_ends_its_connection_only(serve, call, caplog):
    def fail(handle, request):
        if request.term == 13:
            raise RuntimeError("the actor is gone")
        answering(handle, request)

    server = serve(fail)
    caller = call(server.port)
    caller.sessions.wait(1)
    with connected(server.port) as sock:
        sock.sendall(encode_request(vote(13)))
        assert read_to_end(sock) == b""
    caller.send(vote(1), 1)
    caller.answers.wait(1)
    assert server.counters()["callbacks failed"] == 1


def test_a_port_in_use_names_setting_and_remedy(serve):
    server = serve()
    with pytest.raises(BindError, match=f"raft_addr '127.0.0.1:{server.port}'"):
        RaftServer(f"127.0.0.1:{server.port}", answering)


# The caller's side


def test_a_peer_that_is_not_there_takes_nothing(call):
    with socket.socket() as unbound:
        unbound.bind(("127.0.0.1", 0))
        caller = call(unbound.getsockname()[1])
        assert not caller.send(vote(1), 1)
        eventually(lambda: caller.peer.counters().get("dials failed", 0) >= 3, "it keeps dialling")
    assert caller.answers.seen == []


def test_dialling_backs_off(call):
    with socket.socket() as unbound:
        unbound.bind(("127.0.0.1", 0))
        caller = call(unbound.getsockname()[1], back_off=(0.05, 10.0))
        eventually(lambda: caller.peer.counters()["dials"] == 3, "two pauses have passed")
        started = time.monotonic()
        eventually(lambda: caller.peer.counters()["dials"] == 4, "the third pause has passed")
        assert time.monotonic() - started > 0.1


def test_a_dial_that_took_as_long_as_a_pause_is_followed_by_none(call, monkeypatch):
    began, ended = [], []

    def no_way(address, timeout, dialling):
        began.append(time.monotonic())
        time.sleep(0.3)  # as long as a dial into a link that is cut takes
        ended.append(time.monotonic())
        raise DialError("no way")

    monkeypatch.setattr(raft_client, "dial", no_way)
    caller = call(1, back_off=(0.001, 0.25))
    eventually(lambda: caller.peer.counters().get("dials failed", 0) >= 12, "its pauses have grown")
    assert min(start - end for end, start in zip(ended[8:], began[9:], strict=False)) < 0.1


def test_a_peer_that_is_said_to_be_back_is_dialled_in_the_midst_of_a_pause(serve, call):
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
        caller = call(port, back_off=(600.0, 600.0))
        eventually(lambda: caller.peer.counters().get("dials failed") == 1, "nobody is there, and it pauses for ten minutes")
        caller.peer.seen()
        eventually(lambda: caller.peer.counters().get("dials failed") == 2, "still nobody, and the pause begins again")
    serve(bind=f"127.0.0.1:{port}")
    caller.peer.seen()
    assert caller.sessions.wait(1) == ["connected"]
    caller.peer.seen()
    caller.send(vote(1), 1)
    assert caller.answers.wait(1) == [(1, VoteResponse(YOU, 1, True))]
    assert caller.peer.counters()["dials"] == 3


def test_a_peer_that_may_be_elsewhere_is_dialled_at_both_addresses_in_turn(serve, call):
    server = serve()
    with socket.socket() as unbound:
        unbound.bind(("127.0.0.1", 0))
        caller = call(unbound.getsockname()[1], peer="n2")
        eventually(lambda: caller.peer.counters()["dials"] >= 2, "nobody is where it was")
        caller.peer.also_at(f"127.0.0.1:{server.port}")
        caller.sessions.wait(1)
        assert str(caller.peer.address) == f"127.0.0.1:{server.port}"
        caller.send(vote(1), 1)
        assert caller.answers.wait(1) == [(1, VoteResponse(YOU, 1, True))]
        caller.peer.also_at(f"127.0.0.1:{server.port}", instead=True)  # it has moved for good: what stands, stands
        caller.send(vote(2), 2)
        caller.answers.wait(2)
        assert caller.sessions.seen == ["connected"]


def test_another_server_at_its_address_is_hung_up_on_and_the_peer_is_found_at_the_other(serve, call):
    def another(handle, request):
        handle.reply(VoteResponse(Header("n3", "127.0.0.1:3"), request.term, True))

    wrong, right = serve(another), serve()
    caller = call(wrong.port, peer="n2")
    caller.peer.also_at(f"127.0.0.1:{right.port}")
    caller.sessions.wait(1)
    caller.send(vote(1), 1)
    assert caller.sessions.wait(3) == ["connected", "disconnected", "connected"]
    assert caller.peer.counters()["another server answers"] == 1
    assert str(caller.peer.address) == f"127.0.0.1:{right.port}"
    caller.send(vote(2), 2)
    assert caller.answers.wait(2)[1] == (2, VoteResponse(YOU, 2, True))


def test_answers_that_name_nobody_are_taken(serve, call):
    server = serve(lambda handle, request: handle.reply(TimeoutNowResponse(Header())))
    caller = call(server.port, peer="n2")
    caller.sessions.wait(1)
    for number in range(3):
        caller.send(TimeoutNowRequest(ME), number)
    assert len(caller.answers.wait(3)) == 3
    assert caller.sessions.seen == ["connected"]


def test_a_peer_that_restarts_is_found_again_and_each_session_is_told_in_order(serve, call):
    first = serve()
    caller = call(first.port)
    caller.sessions.wait(1)
    caller.send(vote(1), 1)
    caller.answers.wait(1)
    first.close()
    caller.sessions.wait(2)
    serve(bind=f"127.0.0.1:{first.port}")
    assert caller.sessions.wait(3) == ["connected", "disconnected", "connected"]
    caller.send(vote(2), 2)
    assert [token for token, _ in caller.answers.wait(2)] == [1, 2]


def test_every_token_is_answered_exactly_once_when_the_connection_is_reset(call):
    with silent_listener() as (port, accepted):
        caller = call(port)
        caller.sessions.wait(1)
        taken = [token for token in range(100) if caller.send(vote(token), token)]
        accepted.wait(1)[0].recv(10)
        reset(accepted.seen[0])
        assert caller.answers.wait(len(taken)) == [(token, None) for token in taken]
        assert caller.sessions.wait(2)[1] == "disconnected"
        caller.peer.close()
        assert len(caller.answers.seen) == len(taken)


def test_tokens_are_answered_once_under_resets_and_senders_in_parallel(serve, call):
    server = serve()
    caller = call(server.port, back_off=(0.001, 0.002))
    taken = [[], [], []]

    def send(mine):
        for _ in range(3000):
            token = object()
            if caller.send(vote(1), token):
                mine.append(token)

    caller.sessions.wait(1)
    senders = [threading.Thread(target=send, args=(mine,)) for mine in taken]
    for sender in senders:
        sender.start()
    for _ in range(20):
        time.sleep(0.005)
        for connection in list(server._connections):
            connection.end()
    for sender in senders:
        sender.join()
    wanted = [token for mine in taken for token in mine]
    answers = caller.answers.wait(len(wanted))
    caller.peer.close()
    assert len(caller.answers.seen) == len(wanted)
    assert {id(token) for token, _ in answers} == {id(token) for token in wanted}
    assert caller.sessions.seen.count("connected") == caller.sessions.seen.count("disconnected") > 1


def test_a_silent_peer_is_given_up_after_the_time_out(call):
    with silent_listener() as (port, _):
        caller = call(port, timeout=0.2)
        caller.sessions.wait(1)
        started = time.monotonic()
        assert caller.send(vote(1), "a") and caller.send(vote(2), "b")
        assert caller.answers.wait(2) == [("a", None), ("b", None)]
        assert 0.2 <= time.monotonic() - started < 2
        assert caller.peer.counters()["answers overdue"] == 1
        caller.sessions.wait(3)  # and it is dialled again


def test_a_peer_that_drips_bytes_is_given_up_too(call):
    with silent_listener() as (port, accepted):
        caller = call(port, timeout=0.2)
        caller.sessions.wait(1)
        assert caller.send(vote(1), "a")
        dripper = accepted.wait(1)[0]
        dripper.sendall(b"\xdb\x00\x10\x00\x00")  # an error text of 1 MiB begins
        started = time.monotonic()
        while not caller.answers.seen:
            assert time.monotonic() - started < 5
            dripper.send(b"x")
            time.sleep(0.01)
        assert caller.answers.seen == [("a", None)]
        assert caller.peer.counters()["answers overdue"] == 1


def test_an_idle_connection_is_not_given_up(serve, call):
    server = serve()
    caller = call(server.port, timeout=0.05)
    caller.sessions.wait(1)
    with pytest.raises(AssertionError):
        caller.sessions.wait(2, deadline=0.3)
    caller.send(vote(1), 1)
    assert caller.answers.wait(1)[0][1] == answer(vote(1))


@pytest.mark.parametrize(
    "answer_bytes", [b"\xc1", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\xa0\x90", encode_response(VoteResponse(YOU, 1, True)) * 2]
)
def test_garbage_as_an_answer_ends_the_connection_and_is_counted(call, answer_bytes):
    with silent_listener() as (port, accepted):
        caller = call(port)
        caller.sessions.wait(1)
        caller.send(vote(1), "a")
        accepted.wait(1)[0].sendall(answer_bytes)
        caller.sessions.wait(2)
        assert caller.peer.counters()["garbage"] >= 1
        assert [token for token, _ in caller.answers.wait(1)] == ["a"]


def test_an_answer_that_nobody_asked_for_ends_the_connection(call):
    with silent_listener() as (port, accepted):
        caller = call(port)
        accepted.wait(1)[0].sendall(encode_response(VoteResponse(YOU, 1, True)))
        assert caller.sessions.wait(2) == ["connected", "disconnected"]
        assert caller.peer.counters()["garbage"] >= 1


def test_a_listener_that_hangs_up_at_once_is_not_dialled_in_a_loop(call):
    with silent_listener() as (port, accepted):
        call(port, back_off=(0.05, 0.1))
        for number in range(1, 5):
            accepted.wait(number)[-1].close()
        started = time.monotonic()
        accepted.wait(5)
        assert time.monotonic() - started > 0.05


def test_a_backlog_beyond_the_bound_ends_the_connection(call):
    with silent_listener() as (port, _):
        caller = call(port, backlog_bytes=1 << 20)
        caller.sessions.wait(1)
        big = encode_request(append(1, [Entry(8, 1, 0, bytes(1 << 20))]))
        taken = 0
        while caller.peer.send(big, AppendRequest, taken):
            taken += 1
            assert taken < 200
        assert caller.answers.wait(taken) == [(token, None) for token in range(taken)]
        eventually(lambda: caller.peer.counters().get("requests unread", 0) == 1, "the overflow is counted")


def test_closing_answers_what_is_open_and_ends_the_thread(call):
    with silent_listener() as (port, _):
        caller = call(port)
        caller.sessions.wait(1)
        caller.send(vote(1), "a")
        caller.peer.close()
        assert caller.answers.seen == [("a", None)]
        assert caller.sessions.seen == ["connected", "disconnected"]
        assert not caller.send(vote(2), "b")


# Who is there?


def test_identify_gives_the_header_of_the_answer(serve):
    asked = Recorder()

    def note(handle, request):
        asked(request)
        answering(handle, request)

    server = serve(note)
    assert identify(f"127.0.0.1:{server.port}", ME) == YOU
    assert asked.seen == [PreVoteRequest(ME, 0, 0, 0)]


def test_identify_takes_the_id_from_a_refusal_with_a_body_and_refuses_one_without(serve):
    told = serve(lambda handle, request: handle.reply(RpcError("no", PreVoteResponse(YOU, 1, False))))
    silent = serve(lambda handle, request: handle.reply(RpcError("no")))
    assert identify(f"127.0.0.1:{told.port}", ME) == YOU
    with pytest.raises(DialError, match=r"does not tell its id.*it said: no"):
        identify(f"127.0.0.1:{silent.port}", ME)


def test_identify_says_what_is_wrong_with_the_address(serve):
    with socket.socket() as unbound:
        unbound.bind(("127.0.0.1", 0))
        with pytest.raises(DialError, match="cannot be reached"):
            identify(f"127.0.0.1:{unbound.getsockname()[1]}", ME)
    with silent_listener() as (port, _), pytest.raises(DialError, match=r"did not answer within 0\.1 s"):
        identify(f"127.0.0.1:{port}", ME, timeout=0.1)
    with silent_listener() as (port, accepted):
        speaker = threading.Thread(target=lambda: accepted.wait(1)[0].sendall(b"HTTP/1.1 400\r\n\r\n"))
        speaker.start()
        with pytest.raises(DialError, match="does not speak Raft"):
            identify(f"127.0.0.1:{port}", ME)
        speaker.join()
