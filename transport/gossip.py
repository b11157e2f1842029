"""The sockets of hashicorp/memberlist: UDP packets and TCP streams on one port.

Packets: one thread receives datagrams of up to 64 KiB, decodes them and calls `on_packet`; `send` encodes and sends in the caller's thread
and tells at once when the local socket refuses, so that the caller can count a failed probe instead of waiting for an answer.

Streams: one request a connection, then the answer, then the end. Outgoing ones (`push_pull`, `stream_ping`) block and belong on worker
threads. Incoming ones get a thread each, at most `max_streams` at once; for what comes beyond, the one that has been silent for longest makes room, or it is
closed (`crowd`), and counted. Every stream has one deadline for all of it, so that a peer that drips bytes gains nothing.

A push/pull is answered first and merged afterwards, as Go nodes do it: the answer says nothing about acceptance. Input that a Go node
answers with an error message is answered so here (the peer's log then tells its operator); other garbage is closed without a word.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final, cast

from coterie.proto.errors import Stranger, WireError
from coterie.proto.gossip_codec import decode_packet, encode_packet
from coterie.proto.gossip_messages import Ack, Err, Message, Ping, PushPull, StreamMessage
from coterie.proto.gossip_security import Security
from coterie.proto.gossip_stream import StreamDecoder, encode_stream
from coterie.transport.addresses import Address, advertised, format_address, parse_address, plain_ip, resolve
from coterie.transport.crowd import Crowd, places
from coterie.transport.errors import BindError, StreamError
from coterie.transport.limits import LOG, Complaints, Counters
from coterie.transport.listener import Listener, bind_socket
from coterie.transport.stream import dial, hang_up, tune

__all__ = ["GossipTransport", "check_bind"]

STREAM_TIMEOUT: Final = 10.0
MAX_STREAMS: Final = 128
DATAGRAM_BYTES: Final = 64 << 10
RECEIVE_BUFFER: Final = 2 << 20
READ_BYTES: Final = 64 << 10
LEAVING: Final = 32
FREE_PORT_ATTEMPTS: Final = 32
# After an error answer: how long and how much of the rest of a bad stream is read, so that a reset does not overtake the answer.
LINGER: Final = 0.5
LINGER_BYTES: Final = 4 << 20

OnPacket = Callable[[tuple[Message, ...], tuple[str, ...], tuple[str, int]], None]
OnStream = Callable[[StreamMessage, tuple[str, int]], StreamMessage | None]
OnPushPull = Callable[[PushPull, tuple[str, int]], None]


class GossipTransport:
    """Binds UDP and TCP on the same port and serves both.

    bind, advertise: `host:port` texts (a bind to port 0 finds one that is free for both). security: label and keys, None for neither.
    on_packet(messages, errors, source): a datagram came; `errors` are the parts of it that did not decode.
    on_stream(message, source) -> answer or None: a stream's request came; for a PushPull the answer is our own state.
    on_push_pull(message, source): the remote state, to be merged, after the answer has left.
    None of the callbacks may block. `source` is (ip, port). Raises AddressError, BindError.
    """

    def __init__(
        self,
        bind: str,
        advertise: str,
        security: Security | None,
        on_packet: OnPacket,
        on_stream: OnStream,
        on_push_pull: OnPushPull,
        *,
        name: str = "gossip",
        stream_timeout: float = STREAM_TIMEOUT,
        max_streams: int = MAX_STREAMS,
    ) -> None:
        self._security = security
        self._on_packet = on_packet
        self._on_stream = on_stream
        self._on_push_pull = on_push_pull
        self._name = name
        self._stream_timeout = stream_timeout
        self._crowd = Crowd(places(max_streams))
        self._counts = Counters()
        self._complain = Complaints(f"{name}/gossip", self._counts)
        self._lock = threading.Lock()
        self._streams: dict[_Stream, threading.Thread] = {}
        self._closing = threading.Event()
        address = parse_address(bind)
        tcp, self._udp = _bind_both(address)
        self.port: int = tcp.getsockname()[1]
        try:
            self.ip, self.advertised_port = resolve(advertised(address, self.port, advertise))
        except ValueError:
            tcp.close()
            self._udp.close()
            raise
        with contextlib.suppress(OSError):  # the system's limit may be lower: then that is what we get
            self._udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        self._receiver = threading.Thread(target=self._receive, name=f"{name}/gossip-udp", daemon=True)
        self._receiver.start()
        self._listener = Listener(tcp, self._adopt, f"{name}/gossip-accept", self._complain)

    def counters(self) -> dict[str, int]:
        """What came, went and was dropped since the start, by reason; `streams now` is a level."""
        with self._lock:
            now = {"streams now": len(self._streams)}
        return self._counts.snapshot() | now

    def close(self) -> None:
        """Closes both sockets and every incoming stream, and waits for their threads. Must not be called from a callback."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._listener.close()
        self._wake_receiver()
        self._receiver.join()
        self._udp.close()
        with self._lock:
            streams = list(self._streams.items())
        for stream, _ in streams:
            stream.put_out()
        for _, thread in streams:
            thread.join()

    # Packets

    def send(self, ip: str, port: int, messages: Sequence[Message | bytes], crc: bool = False) -> bool:
        """Sends one datagram; never blocks. False when the local socket refuses it (unreachable, too large, closed): counted by reason.

        Raises ValueError for more than 255 messages.
        """
        packet = encode_packet(messages, crc, self._security)
        try:
            if not ip:
                raise OSError(errno.EDESTADDRREQ, "no address")
            self._udp.sendto(packet, socket.MSG_DONTWAIT, (ip, port))
        except (OSError, OverflowError) as error:
            code = errno.errorcode.get(getattr(error, "errno", None) or 0, type(error).__name__)
            self._counts.add(f"packets not sent: {code}")  # only counted: a log that blocks must not hold up the caller
            return False
        self._counts.add("packets sent")
        return True

    def _receive(self) -> None:
        while True:
            try:
                data, source = self._udp.recvfrom(DATAGRAM_BYTES)
            except OSError as error:
                if self._closing.is_set():
                    return
                self._complain("receive failed", "the UDP socket", error)
                self._closing.wait(0.01)
                continue
            if self._closing.is_set():
                return
            self._counts.add("packets received")
            self._handle_packet(data, (plain_ip(source[0]), source[1]))

    def _handle_packet(self, data: bytes, source: tuple[str, int]) -> None:
        try:
            packet = decode_packet(data, self._security)
        except Stranger as error:
            self._complain(f"packets of strangers: {error.reason}", format_address(*source), error)
            return
        except WireError as error:
            self._complain("packets dropped", format_address(*source), error)
            return
        for text in packet.errors:
            self._complain("packet parts dropped", format_address(*source), text)
        try:
            self._on_packet(packet.messages, packet.errors, source)
        except Exception:  # noqa: BLE001  # its owner may be stopping; later packets may find it back
            self._counts.add("callbacks failed")
            LOG.exception("%s: a packet found no taker", self._name)

    def _wake_receiver(self) -> None:
        """An empty datagram to ourselves ends the blocked receive on every platform; if it is lost, the queue was full and nobody slept."""
        host = self._udp.getsockname()[0]
        loopback = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        with contextlib.suppress(OSError):
            self._udp.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError):
            self._udp.sendto(b"", socket.MSG_DONTWAIT, (loopback, self.port))

    # Outgoing streams

    def push_pull(self, ip: str, port: int, state: PushPull, timeout: float = STREAM_TIMEOUT) -> PushPull:
        """Sends our state and returns the other's; blocks up to `timeout` seconds.

        Raises DialError when nobody listens there; StreamError when no state comes back, with the other node's own words if it gave some.
        """
        answer = self._ask(ip, port, state, timeout)
        if isinstance(answer, PushPull):
            return answer
        raise StreamError(f"{ip}:{port} answered a push/pull with {_describe(answer)}")

    def stream_ping(self, ip: str, port: int, ping: Ping, timeout: float) -> bool:
        """The probe over TCP that backs a lost UDP ping; blocks up to `timeout` seconds. True when the acknowledgement came."""
        try:
            answer = self._ask(ip, port, ping, timeout)
        except OSError as error:
            self._counts.add("stream pings failed")
            LOG.debug("%s: stream ping: %s", self._name, error)
            return False
        return isinstance(answer, Ack) and answer.seq_no == ping.seq_no

    def _ask(self, ip: str, port: int, message: StreamMessage, timeout: float) -> StreamMessage:
        deadline = time.monotonic() + timeout
        request = encode_stream(message, self._security)
        sock = dial(Address(ip, port), timeout)
        try:
            sock.settimeout(_left(deadline))
            sock.sendall(request)
            return _read_message(sock, StreamDecoder(self._security, answer=True), deadline)
        except WireError as error:
            raise StreamError(f"{ip}:{port} answered what cannot be read: {error}; do label and keys agree?") from error
        except TimeoutError as error:
            raise StreamError(f"{ip}:{port} did not answer within {timeout} s") from error
        except OSError as error:
            raise StreamError(f"{ip}:{port} broke the stream off: {error}") from error
        finally:
            sock.close()

    # Incoming streams

    def _adopt(self, sock: socket.socket, peer: str) -> None:
        stream = _Stream(sock, peer)
        with self._lock:
            # Those that were put out end in threads of their own, which must not pile up either.
            refused = self._closing.is_set() or len(self._streams) >= self._crowd.most + LEAVING
        entered, put_out = (False, None) if refused else self._crowd.enter(stream)
        if put_out is not None:
            self._complain("silent streams put out", cast(_Stream, put_out).peer, f"{self._crowd.most} are open, and another wants in")
        if not entered:
            self._complain("streams refused", peer, f"{self._crowd.most} are open already")
            sock.close()
            return
        thread = threading.Thread(target=self._serve, args=(stream,), name=f"{self._name}/gossip-stream", daemon=True)
        with self._lock:
            self._streams[stream] = thread
        self._counts.add("streams")
        try:
            thread.start()
        except RuntimeError as error:
            self._forget(stream)
            sock.close()
            self._complain("streams refused", peer, error)

    def _forget(self, stream: _Stream) -> None:
        self._crowd.leave(stream)
        with self._lock:
            self._streams.pop(stream, None)

    def _serve(self, stream: _Stream) -> None:
        sock, peer = stream.sock, stream.peer
        deadline = time.monotonic() + self._stream_timeout
        try:
            tune(sock)
            ip, port, *_ = sock.getpeername()
            message = _read_message(sock, StreamDecoder(self._security), deadline)
            self._crowd.spoke(stream)
            self._answer(sock, message, (plain_ip(ip), port), deadline)
        except WireError as error:
            self._complain(f"streams of strangers: {error.reason}" if isinstance(error, Stranger) else "streams dropped", peer, error)
            if error.answerable:
                self._answer_error(sock, str(error))
        except TimeoutError:
            self._complain("streams overdue", peer, f"not done within {self._stream_timeout} s")
        except OSError:
            self._counts.add("streams reset")
        except Exception:  # noqa: BLE001  # its owner may be stopping; the dialler sees the end of the stream
            self._counts.add("callbacks failed")
            LOG.exception("%s: a stream of %s found no taker", self._name, peer)
        finally:
            sock.close()
            self._forget(stream)

    def _answer(self, sock: socket.socket, message: StreamMessage, source: tuple[str, int], deadline: float) -> None:
        answer = self._on_stream(message, source)
        if answer is not None:
            sock.settimeout(_left(deadline))
            sock.sendall(encode_stream(answer, self._security, answer=True))
        if isinstance(message, PushPull):
            self._on_push_pull(message, source)

    def _answer_error(self, sock: socket.socket, text: str) -> None:
        with contextlib.suppress(OSError):  # the sender of garbage need not wait for our opinion
            deadline = time.monotonic() + LINGER
            sock.settimeout(LINGER)
            sock.sendall(encode_stream(Err(text), self._security, answer=True))
            sock.shutdown(socket.SHUT_WR)
            rest = LINGER_BYTES
            while rest > 0 and (data := sock.recv(READ_BYTES)):
                rest -= len(data)
                sock.settimeout(_left(deadline))


class _Stream:
    """One incoming stream, as a member of the crowd."""

    __slots__ = ("peer", "sock")

    def __init__(self, sock: socket.socket, peer: str) -> None:
        self.sock, self.peer = sock, peer

    def put_out(self) -> None:
        hang_up(self.sock)


def check_bind(bind: str) -> None:
    """Could a transport bind there now? Raises BindError, AddressError. For who must know before it can say what it will gossip."""
    for sock in _bind_both(parse_address(bind)):
        sock.close()


def _bind_both(address: Address) -> tuple[socket.socket, socket.socket]:
    """A TCP listener and a UDP socket on one port."""
    for attempt in range(FREE_PORT_ATTEMPTS):
        tcp = bind_socket(address, socket.SOCK_STREAM, "mem_bind")
        try:
            return tcp, bind_socket(Address(address.host, tcp.getsockname()[1]), socket.SOCK_DGRAM, "mem_bind")
        except BindError:
            tcp.close()
            if address.port or attempt == FREE_PORT_ATTEMPTS - 1:
                raise
    raise AssertionError("unreachable")


def _read_message(sock: socket.socket, decoder: StreamDecoder, deadline: float) -> StreamMessage:
    """The one message of a stream. Raises WireError (also when it is cut off), TimeoutError past the deadline, OSError."""
    while True:
        sock.settimeout(_left(deadline))
        data = sock.recv(READ_BYTES)
        if not data:
            decoder.finish()
            raise WireError("the stream ended before it said anything")
        message = decoder.feed(data)
        if message is not None:
            return message


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("the stream's deadline has passed")
    return left


def _describe(answer: StreamMessage) -> str:
    return f"an error: {answer.error}" if isinstance(answer, Err) else f"a {type(answer).__name__}"
