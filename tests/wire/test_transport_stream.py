"""The sending half: nothing is lost or reordered, the caller never waits, the backlog is bounded."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from coterie.transport.addresses import Address
from coterie.transport.errors import DialError
from coterie.transport.stream import OutStream, dial, hang_up
from tests.wire.transport_support import eventually


@pytest.fixture
def pair():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = dial(Address(*listener.getsockname()), 5.0)
        far, _ = listener.accept()
    far.settimeout(10)
    yield near, far
    near.close()
    far.close()


def read_exactly(sock, size):
    out = bytearray()
    while len(out) < size:
        data = sock.recv(1 << 16)
        assert data, "the stream ended early"
        out += data
    return bytes(out)


def test_what_the_socket_takes_at_once_leaves_without_a_thread(pair):
    near, far = pair
    out = OutStream(near, "t")
    threads = threading.active_count()
    assert out.send(b"hello")
    assert far.recv(100) == b"hello"
    assert threading.active_count() == threads
    out.close()


def test_a_backlog_arrives_whole_and_in_order(pair):
    near, far = pair
    out = OutStream(near, "t")
    pieces = [bytes([n % 251]) * (1 + 7919 * n % 100_000) for n in range(400)]
    started = time.monotonic()
    assert all(out.send(piece) for piece in pieces)
    assert time.monotonic() - started < 5, "sending waited for the reader"
    assert out.queued > 0, "the test wants a backlog"
    whole = b"".join(pieces)
    assert read_exactly(far, len(whole)) == whole
    eventually(lambda: out.queued == 0, "the backlog is drained")
    assert out.send(b"again")
    assert far.recv(100) == b"again"
    out.close()


def test_senders_from_many_threads_do_not_mix_their_messages(pair):
    near, far = pair
    out = OutStream(near, "t")
    piece = 20_000
    senders = [threading.Thread(target=lambda n=n: [out.send(bytes([n]) * piece) for _ in range(50)]) for n in range(4)]
    for sender in senders:
        sender.start()
    data = read_exactly(far, 4 * 50 * piece)
    for sender in senders:
        sender.join()
    assert all(len(set(data[at : at + piece])) == 1 for at in range(0, len(data), piece))
    out.close()


def test_over_its_bound_the_stream_is_closed(pair):
    near, _far = pair
    out = OutStream(near, "t", bound=1 << 20)
    while out.send(bytes(1 << 18)):
        pass
    assert out.overflowed
    assert not out.send(b"more")
    out.close()


def test_a_reset_by_the_peer_ends_the_stream_and_its_writer(pair):
    near, far = pair
    out = OutStream(near, "t")
    while out.queued == 0:
        assert out.send(bytes(1 << 20))
    far.close()
    eventually(lambda: not out.send(b"x"), "the stream notices the reset")
    assert not out.overflowed
    out.close()


def test_closing_ends_a_writer_that_waits_for_a_silent_peer(pair):
    near, _far = pair
    out = OutStream(near, "t")
    while out.queued == 0:
        out.send(bytes(1 << 20))
    started = time.monotonic()
    out.close()
    assert time.monotonic() - started < 1


def test_a_dial_that_nobody_answers_names_the_address():
    with socket.socket() as unbound:
        unbound.bind(("127.0.0.1", 0))
        port = unbound.getsockname()[1]
        with pytest.raises(DialError, match=f"127.0.0.1:{port} cannot be reached"):
            dial(Address("127.0.0.1", port), 1.0)


def test_a_dial_never_meets_itself():
    """A dial to a free port of the ephemeral range now and then gets that very port as its own, and connects to itself."""

    def taken_by_itself(sock):
        sock.bind(("127.0.0.1", port))

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(DialError, match="nobody listens"):
        dial(Address("127.0.0.1", port), 1.0, taken_by_itself)


def test_a_dial_can_be_hung_up_from_another_thread():
    with socket.socket() as full:  # a backlog that is full swallows the handshake: the dial would last its whole time-out
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = Address(*full.getsockname())
        filler = [socket.socket() for _ in range(3)]
        for sock in filler:
            sock.setblocking(False)
            sock.connect_ex(tuple(address))
        seen = threading.Event()
        dialling = []

        def note(sock):
            dialling.append(sock)
            seen.set()

        failed = []

        def run():
            try:
                dial(address, 30.0, note)
            except DialError as error:
                failed.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        assert seen.wait(5)
        eventually(lambda: hang_up(dialling[0]) or bool(failed), "the dial gives up")
        thread.join()
        for sock in filler:
            sock.close()
