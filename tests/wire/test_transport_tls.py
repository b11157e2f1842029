"""TLS under Raft's connections: two threads on one conversation, what is refused and in which words, and certificates that change."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import ssl
import threading
from pathlib import Path

import pytest

from coterie.proto.raft_codec import encode_request
from coterie.proto.raft_messages import AppendRequest, AppendResponse, Entry, Header, PreVoteResponse, VoteRequest, VoteResponse
from coterie.transport.addresses import Address
from coterie.transport.errors import DialError, TlsError
from coterie.transport.raft_client import RaftPeer, identify
from coterie.transport.raft_server import RaftServer
from coterie.transport.stream import OutStream, dial
from coterie.transport.tls import Tls
from coterie.transport.tls_stream import TlsReader, accept_tls, dial_tls
from tests.authority import Authority, Files
from tests.wire.transport_support import Recorder, connected, eventually, read_to_end

ME, YOU = Header("n1", "127.0.0.1:1"), Header("n2", "127.0.0.1:2")


@pytest.fixture(scope="module")
def authority():
    return Authority()


@pytest.fixture
def tls(tmp_path, authority):
    """Makes the TLS of one side; each call has files of its own."""
    made = []

    def make(name="node", ca=authority.pem, pair=None, **options):
        files = Files(tmp_path / str(len(made)), ca, pair or authority.issue(name))
        made.append(Tls(files.settings, name, watch=False, **options))
        made[-1].files = files
        return made[-1]

    return make


@contextlib.contextmanager
def pair(client_tls, server_tls):
    """A connection with both ends: (sending half, reader) each."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = dial(Address(*listener.getsockname()), 5.0)
        far, _ = listener.accept()
    sessions = []
    thread = threading.Thread(target=lambda: sessions.append(accept_tls(far, server_tls)))
    thread.start()
    near_session = dial_tls(near, client_tls, "127.0.0.1")
    thread.join()
    ends = []
    for sock, session in ((near, near_session), (far, sessions[0])):
        out = OutStream(sock, "t")
        ends.append((out, TlsReader(sock, session, out)))
    try:
        yield ends
    finally:
        for out, _ in ends:
            out.close()
        near.close()
        far.close()


def read_exactly(reader, size):
    out = bytearray()
    while len(out) < size:
        data = reader.recv(1 << 16)
        assert data, "the stream ended early"
        out += data
    return bytes(out)


# -- one conversation, several threads --------------------------------------------------------------------------------------------


def test_both_directions_at_once_from_several_threads(tls):
    """24 MB each way in pieces of all sizes, four threads sending on each side: each thread's bytes come whole and in its order."""
    per_thread, threads = 6 << 20, 4

    def send(out, mark, total):
        rng, sent = random.Random(mark), 0
        while sent < total:
            size = min(total - sent, int(2 ** (rng.random() * 19)))
            with locks[id(out)]:  # so that a frame is one thread's
                assert out.send(bytes((mark,)) + size.to_bytes(3, "big") + os.urandom(1) * size)
            sent += size

    def receive(reader, got):
        buffer = bytearray()
        while sum(got.values()) < per_thread * threads:
            data = reader.recv(1 << 16)
            assert data
            buffer += data
            while len(buffer) >= 4 and len(buffer) >= 4 + (size := int.from_bytes(buffer[1:4], "big")):
                frame = buffer[4 : 4 + size]
                assert not frame or set(frame) == {frame[0]}
                got[buffer[0]] = got.get(buffer[0], 0) + size
                del buffer[: 4 + size]

    with pair(tls(), tls()) as ends:
        locks = {id(out): threading.Lock() for out, _ in ends}
        totals = [{}, {}]
        work = [threading.Thread(target=receive, args=(reader, got)) for (_, reader), got in zip(ends, totals, strict=True)]
        work += [threading.Thread(target=send, args=(out, mark, per_thread)) for out, _ in ends for mark in range(threads)]
        for thread in work:
            thread.start()
        for thread in work:
            thread.join(90)
    assert totals == [dict.fromkeys(range(threads), per_thread)] * 2


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_an_ordinary_tls_socket_is_understood_in_both_versions(tls, version):
    ours = tls()
    context = ours.client()
    context.minimum_version = context.maximum_version = version
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname(), 10)
        far, _ = listener.accept()
    got = []

    def serve():
        out = OutStream(far, "t")
        reader = TlsReader(far, accept_tls(far, ours), out)
        got.append(read_exactly(reader, 100_000))
        out.send(b"y" * 300_000)
        got.append(reader.recv(10))  # its farewell
        out.close()
        far.close()

    thread = threading.Thread(target=serve)
    thread.start()
    with context.wrap_socket(near, server_hostname="127.0.0.1") as plain:
        assert plain.version() == {"TLSv1_2": "TLSv1.2", "TLSv1_3": "TLSv1.3"}[version.name]
        plain.sendall(b"x" * 100_000)
        answer = bytearray()
        while len(answer) < 300_000:
            answer += plain.recv(1 << 16)
        with contextlib.suppress(ssl.SSLEOFError):  # it says its farewell, and gets none
            plain.unwrap()
    thread.join(10)
    assert (bytes(answer), got) == (b"y" * 300_000, [b"x" * 100_000, b""])


def test_tls_1_1_is_refused(tls):
    ours = tls()
    context = ours.client()
    with pytest.warns(DeprecationWarning):
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = dial(Address(*listener.getsockname()), 5.0)
        far, _ = listener.accept()
    failure = []

    def serve():
        with pytest.raises(TlsError) as raised:
            accept_tls(far, ours)
        failure.append(str(raised.value))
        far.close()

    thread = threading.Thread(target=serve)
    thread.start()
    with pytest.raises(TlsError):
        dial_tls(near, ours, "127.0.0.1")
    thread.join(10)
    near.close()
    assert "protocol" in failure[0]


def test_a_peer_that_does_not_read_holds_up_neither_the_sender_nor_the_reader(tls):
    with pair(tls(), tls()) as ((out, reader), (far_out, _)):
        block = os.urandom(1 << 20)
        while not out.queued:
            assert out.send(block)
        assert far_out.send(b"hello")  # while its own receive buffer is full
        assert read_exactly(reader, 5) == b"hello"


def test_the_backlog_is_bounded_in_sealed_bytes(tls):
    with pair(tls(), tls()) as ((out, _), _):
        out._bound = 4 << 20
        block = os.urandom(1 << 20)
        for _ in range(64):
            if not out.send(block):
                break
        assert out.overflowed
        assert not out.send(b"x")


# -- Raft over it -----------------------------------------------------------------------------------------------------------------


def answer(handle, request):
    if isinstance(request, AppendRequest):
        handle.reply(AppendResponse(YOU, request.term, sum(len(e.data) for e in request.entries), True))
    elif isinstance(request, VoteRequest):
        handle.reply(VoteResponse(YOU, request.term, True))
    else:
        handle.reply(PreVoteResponse(YOU, request.term, False))


@pytest.fixture
def serve():
    servers = []

    def start(**options):
        servers.append(RaftServer("127.0.0.1:0", answer, name="n2", **options))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


class Caller:
    def __init__(self, port, tls, host="127.0.0.1"):
        self.answers, self.sessions = Recorder(), Recorder()
        self.peer = RaftPeer(
            f"{host}:{port}",
            self.answers,
            lambda: self.sessions("connected"),
            lambda: self.sessions("disconnected"),
            name="n1",
            back_off=(0.01, 0.05),
            tls=tls,
        )

    def send(self, request, token):
        return self.peer.send(encode_request(request), type(request), token)


@pytest.fixture
def call():
    callers = []

    def start(port, tls=None, **options):
        callers.append(Caller(port, tls, **options))
        return callers[-1]

    yield start
    for caller in callers:
        caller.peer.close()


def test_raft_speaks_over_tls_small_and_large_in_order(tls, serve, call):
    server = serve(tls=tls("n2"))
    caller = call(server.port, tls("n1"))
    caller.sessions.wait(1)
    sizes = [0, 1, 100, 16_384, 70_000, 1 << 20, 9 << 20]
    for place, size in enumerate(sizes):
        assert caller.send(AppendRequest(ME, place, 7, 1, 7, (Entry(8, 2, 0, bytes(size)),)), place)
    assert [(token, response.last_index) for token, response in caller.answers.wait(len(sizes), 30)] == list(enumerate(sizes))
    assert server.counters()["connections"] == 1
    assert identify(f"127.0.0.1:{server.port}", ME, tls=tls("n3")) == YOU


def test_a_plain_peer_at_a_tls_port_is_refused_counted_and_named(tls, serve, call, caplog):
    server = serve(tls=tls())
    with connected(server.port) as sock:
        sock.sendall(encode_request(VoteRequest(ME, 1, 1, 1)))
        read_to_end(sock)
        name = f"127.0.0.1:{sock.getsockname()[1]}"
    eventually(lambda: server.counters().get("TLS: plain connections refused") == 1, "it is counted")
    assert name in caplog.text and "does not speak TLS" in caplog.text
    plain = call(server.port)
    plain.sessions.wait(1)
    plain.send(VoteRequest(ME, 1, 1, 1), "t")
    assert plain.answers.wait(1) == [("t", None)]


def test_tls_at_a_plain_port_is_refused_counted_and_named_on_both_sides(tls, serve, call, caplog):
    server = serve()
    caller = call(server.port, tls())
    eventually(lambda: server.counters().get("TLS at a plain port", 0) >= 1, "the server counts it")
    eventually(lambda: caller.peer.counters().get("TLS: handshakes broken off", 0) >= 1, "the dialler counts it")
    assert caller.sessions.seen == []
    assert "turn tls_enable on on both sides" in caplog.text
    with pytest.raises(DialError, match="is it TLS there"):
        identify(f"127.0.0.1:{server.port}", ME, tls=tls())


@pytest.mark.parametrize("first", [b"", b"\x16", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"])
def test_a_handshake_that_does_not_come_is_ended_in_time_and_hinders_nobody(tls, serve, call, first):
    server = serve(tls=tls(), handshake_timeout=0.3)
    with connected(server.port) as sock:
        sock.sendall(first)
        caller = call(server.port, tls())
        caller.sessions.wait(1)
        assert read_to_end(sock) == b""
    eventually(lambda: server.counters().get("TLS: handshakes too slow") == 1, "it is counted")
    assert caller.send(VoteRequest(ME, 1, 1, 1), 0)
    assert caller.answers.wait(1)


def test_garbage_after_the_first_bytes_of_a_handshake_is_survived(tls, serve, call):
    server = serve(tls=tls())
    rng = random.Random(5)
    for _ in range(30):
        with connected(server.port) as sock, contextlib.suppress(OSError):
            sock.sendall(b"\x16\x03\x01" + rng.randbytes(rng.randrange(2000)))
            sock.shutdown(socket.SHUT_WR)
            read_to_end(sock)
    caller = call(server.port, tls())
    caller.sessions.wait(1)
    eventually(lambda: server.counters()["connections now"] == 1, "the others are gone")


def test_a_server_closes_in_the_middle_of_handshakes(tls, serve):
    server = serve(tls=tls(), handshake_timeout=60)
    with connected(server.port) as sock:
        eventually(lambda: server.counters()["connections now"] == 1, "it is accepted")
        server.close()
        assert read_to_end(sock) == b""


def test_a_connection_that_stands_outlives_its_certificates_and_the_next_uses_the_new_ones(tls, serve, call, tmp_path: Path):
    theirs, ours = tls("n2"), tls("n1")
    server = serve(tls=theirs)
    caller = call(server.port, ours)
    caller.sessions.wait(1)
    other = Authority("another CA")
    for side in (theirs, ours):
        side.files.ca.write_bytes(other.pem)
        other.issue("new").write(side.files.cert, side.files.key)
        assert side.look()
    assert caller.send(VoteRequest(ME, 1, 1, 1), "old connection")
    assert caller.answers.wait(1)[0][0] == "old connection"
    assert identify(f"127.0.0.1:{server.port}", ME, tls=ours) == YOU  # by the new certificates
    with pytest.raises(DialError, match=r"does not know the CA|certificate is refused"):
        identify(f"127.0.0.1:{server.port}", ME, tls=tls("of the old CA"))
    assert caller.sessions.seen == ["connected"]


def test_one_name_for_all_stands_in_for_the_address(tls, serve, tmp_path, authority):
    pair = authority.issue(names=("cluster.test",))
    server = serve(tls=tls(pair=pair))
    address = f"127.0.0.1:{server.port}"
    with pytest.raises(DialError, match=r"IP address mismatch.*tls_server_name"):
        identify(address, ME, tls=tls())
    named = Tls(Files(tmp_path / "named", authority.pem, authority.issue(), server_name="cluster.test").settings, watch=False)
    assert identify(address, ME, tls=named) == YOU
    other = Tls(Files(tmp_path / "other", authority.pem, authority.issue(), server_name="elsewhere.test").settings, watch=False)
    with pytest.raises(DialError, match="Hostname mismatch"):
        identify(address, ME, tls=other)
    skipping = Tls(Files(tmp_path / "skip", Authority("stranger").pem, authority.issue(), skip_verify=True).settings, watch=False)
    assert identify(address, ME, tls=skipping) == YOU
