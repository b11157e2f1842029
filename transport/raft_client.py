"""The calling side of hashicorp/raft's network transport: one connection to one peer, requests pipelined on it.

`RaftPeer` keeps dialling in a thread of its own, which also reads. `send` may be called from any thread: it takes the request's bytes, the
type of its answer and a token, and every token it took is answered exactly once, by `on_response(token, response)` when the answer came or
`on_response(token, None)` when the connection ended first. Nothing is kept for a later connection: what was not answered may or may not
have been served, and Raft alone knows whether to say it again.

The end of a connection is told in this order: all open tokens with None, then `on_disconnected()`. Both, like `on_connected()`, come from
the peer's thread, so that a session is seen in one order: connected, answers, disconnected.

A peer may be known by two addresses, where it was and where it is said to be now (`also_at`): they are dialled in turn, and the one that served is dialled again
first. Who answers is checked by the id in the answers, where there is one: another server than `peer` is hung up on, and the other address comes next.

A link that was cut: the kernel tries again after a time that doubles with each try, so that after some seconds without a way the next try may be
seconds off when there is one again. Therefore a connection is given up when the peer's *kernel* has acknowledged nothing for `UNACKNOWLEDGED`
seconds: it does so for a process that is slow or stands still, too, and that one keeps its connection until `ANSWER_TIMEOUT`.

Re-dialling: at once after a connection that had served for a while (a restarted process often listens again already), then with a back-off
from 50 ms to 1 s, from dial to dial, that only an answer resets; a listener that accepts and hangs up, or talks nonsense, is therefore met with patience.
Who hears by another way that the peer is there again says so (`seen`): a pause under way ends then, once, and the next is as long as it would have been.
"""

from __future__ import annotations

import random
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import Final

from coterie.proto.errors import WireError
from coterie.proto.raft_codec import encode_request
from coterie.proto.raft_messages import Header, PreVoteRequest, Request, Response, RpcError, answerer
from coterie.proto.raft_stream import ResponseDecoder
from coterie.transport.addresses import Address, parse_address
from coterie.transport.errors import DialError, TlsError
from coterie.transport.limits import LOG, Complaints, Counters
from coterie.transport.raft_conversation import Calling
from coterie.transport.stream import BACKLOG_BYTES, OutStream, dial, hang_up
from coterie.transport.tls import HANDSHAKE_TIMEOUT, Tls
from coterie.transport.tls_stream import TlsReader, TlsSession, dial_tls

__all__ = ["RaftPeer", "identify"]

ANSWER_TIMEOUT: Final = 5.0
UNACKNOWLEDGED: Final = 1.5  # seconds
DIAL_TIMEOUT: Final = 1.0
BACK_OFF_FIRST: Final = 0.05
BACK_OFF_MOST: Final = 1.0
READ_BYTES: Final = 64 << 10
JOIN_TIMEOUT: Final = 10.0


class _Session:
    """One connection."""

    __slots__ = ("calling", "out", "recv", "sock")

    def __init__(self, sock: socket.socket, out: OutStream, calling: Calling, session: TlsSession | None) -> None:
        self.sock = sock
        self.out = out
        self.calling = calling
        self.recv = sock.recv if session is None else TlsReader(sock, session, out).recv


class RaftPeer:
    """A peer at `address` that is dialled until `close()`.

    on_response(token, response): a Response, an RpcError, or None when the connection ended. on_connected(), on_disconnected(): as above.
    None of the callbacks may block. peer: the id that its answers must have, "" for any. timeout: seconds after which an unanswered request ends the
    connection. tls: None for plain TCP.
    Raises AddressError.
    """

    def __init__(
        self,
        address: str | Address,
        on_response: Callable[[object, Response | RpcError | None], None],
        on_connected: Callable[[], None],
        on_disconnected: Callable[[], None],
        *,
        name: str = "raft",
        peer: str = "",
        timeout: float = ANSWER_TIMEOUT,
        dial_timeout: float = DIAL_TIMEOUT,
        back_off: tuple[float, float] = (BACK_OFF_FIRST, BACK_OFF_MOST),
        backlog_bytes: int = BACKLOG_BYTES,
        tls: Tls | None = None,
    ) -> None:
        self._tls = tls
        self.address = parse_address(address) if isinstance(address, str) else address  # the one that is dialled now
        self._addresses: tuple[Address, ...] = (self.address,)
        self._peer = peer
        self._another = ""  # who answers in place of the peer
        self._on_response = on_response
        self._on_connected = on_connected
        self._on_disconnected = on_disconnected
        self._name = f"{name}/raft-peer"
        self._timeout = timeout
        self._dial_timeout = dial_timeout
        self._back_off = back_off
        self._backlog_bytes = backlog_bytes
        self._lock = threading.Lock()
        self._session: _Session | None = None
        self._dialling: socket.socket | None = None
        self._closing = threading.Event()
        self._awake = threading.Event()  # ends a pause
        self._counts = Counters()
        self._complain = Complaints(self._name, self._counts)
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._thread.start()

    @property
    def connected(self) -> bool:
        return self._session is not None

    def also_at(self, address: str, instead: bool = False) -> None:
        """Where it is said to be, too ("" for nowhere else); `instead`: there alone. What is connected stays so. Raises AddressError."""
        other = parse_address(address) if address else None
        first = self._addresses[0]
        if other is None:
            self._addresses = (first,)
        else:
            self._addresses = (other,) if instead or other == first else (first, other)

    def seen(self) -> None:
        """The peer is said to have come back: dial it now, if it is not connected."""
        if self._session is None:
            self._awake.set()

    def send(self, request: bytes, request_type: type[Request], token: object) -> bool:
        """Sends an encoded request; never blocks. True: the token will be answered once. False: not connected, and the token is forgotten."""
        with self._lock:
            session = self._session
            if session is None:
                return False
            session.calling.asked(request_type, token, time.monotonic() + self._timeout)
            if not session.out.send(request):
                self._session = None  # the connection is ending, and will answer this token with None
        return True

    def counters(self) -> dict[str, int]:
        """Dials, connections and how they ended, by reason."""
        return self._counts.snapshot()

    def close(self) -> None:
        """Ends the connection and the dialling, answers what is open with None and waits for the thread (unless called from it)."""
        self._closing.set()
        self._awake.set()
        with self._lock:
            session, dialling = self._session, self._dialling
        for sock in (session.sock if session else None, dialling):
            if sock is not None:
                hang_up(sock)
        if threading.current_thread() is not self._thread:
            self._thread.join(JOIN_TIMEOUT)  # a name look-up that hangs cannot be interrupted

    def _run(self) -> None:
        first, most = self._back_off
        pause = first
        while not self._closing.is_set():
            if self.address not in self._addresses:
                self.address = self._addresses[0]
            began = time.monotonic()
            session = self._dial()
            if session is not None:
                since = time.monotonic()
                self._another = ""
                self._serve(session)
                if session.calling.answered and not self._another:
                    pause = first
                    if time.monotonic() - since >= most:
                        continue
            if session is None or not session.calling.answered or self._another:
                self._next_address()
            waited = time.monotonic() - began if session is None else 0.0
            self._awake.wait(max(first, pause * random.uniform(0.75, 1.25) - waited))
            self._awake.clear()
            pause = min(pause * 2, most)

    def _next_address(self) -> None:
        addresses = self._addresses
        where = addresses.index(self.address) if self.address in addresses else -1
        self.address = addresses[(where + 1) % len(addresses)]

    def _answered(self, token: object, response: Response | RpcError | None) -> None:
        if response is not None and self._peer and not self._another and answerer(response) not in ("", self._peer):
            self._another = answerer(response)
        self._on_response(token, response)

    def _dial(self) -> _Session | None:
        self._counts.add("dials")
        try:
            sock = dial(self.address, self._dial_timeout, self._note_dialling)
            session = self._secured(sock)
            set_receive_timeout(sock, self._timeout / 5)
            give_up_after(sock, UNACKNOWLEDGED)
        except OSError as error:
            self._counts.add("dials failed")
            if isinstance(error, TlsError):
                self._complain(f"TLS: {error.reason}", self.address, error)
            LOG.debug("%s: %s", self._name, error)
            return None
        finally:
            with self._lock:
                self._dialling = None
        return _Session(sock, OutStream(sock, self._name, self._backlog_bytes), Calling(self._answered), session)

    def _secured(self, sock: socket.socket) -> TlsSession | None:
        if self._tls is None:
            return None
        try:
            return dial_tls(sock, self._tls, self.address.host)
        except OSError:
            sock.close()
            raise

    def _note_dialling(self, sock: socket.socket) -> None:
        with self._lock:
            self._dialling = sock

    def _serve(self, session: _Session) -> None:
        self._counts.add("connections")
        with self._lock:
            self._session = session
        try:
            self._on_connected()
            self._read(session)
        except WireError as error:
            self._complain("garbage", self.address, error)
        except TlsError as error:
            self._complain(f"TLS: {error.reason}", self.address, error)
        except OSError:
            self._counts.add("connections reset")
        except Exception:  # noqa: BLE001  # a callback failed: its owner may be stopping; the session cannot go on without it
            self._counts.add("callbacks failed")
            LOG.exception("%s: an answer of %s found no taker", self._name, self.address)
        finally:
            self._end(session)

    def _end(self, session: _Session) -> None:
        with self._lock:
            self._session = None
        if session.out.overflowed:
            self._complain("requests unread", self.address, "the connection is closed: its peer does not read")
        session.out.close()
        session.sock.close()
        for token in session.calling.open_tokens():
            self._tell(self._on_response, token, None)
        self._tell(self._on_disconnected)

    def _tell(self, callback: Callable[..., None], *what: object) -> None:
        try:
            callback(*what)
        except Exception:  # noqa: BLE001  # as above; the others are told all the same
            self._counts.add("callbacks failed")
            LOG.exception("%s: the end of the connection to %s found no taker", self._name, self.address)

    def _read(self, session: _Session) -> None:
        calling = session.calling
        while not self._closing.is_set():
            try:
                data = session.recv(READ_BYTES)
            except BlockingIOError:  # the receive time-out
                data = None
            if data:
                calling.feed(data)
            elif data is not None:
                return
            if self._another:
                self._complain("another server answers", self.address, f"it is {self._another}, not {self._peer}; the connection is closed")
                return
            if calling.overdue(time.monotonic()):
                self._complain("answers overdue", self.address, f"none for {self._timeout} s; the connection is closed")
                return


def give_up_after(sock: socket.socket, seconds: float) -> None:
    """The connection ends when what was sent has not been acknowledged by the peer's kernel (not: answered) for so long. Where the system has that."""
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(seconds * 1000))


def set_receive_timeout(sock: socket.socket, seconds: float) -> None:
    """Lets a blocking `recv` give up (BlockingIOError) after `seconds`, without the extra system call of a Python time-out."""
    whole = int(seconds)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", whole, max(1, int((seconds - whole) * 1e6))))


def identify(address: str | Address, header: Header, timeout: float = 2.0, tls: Tls | None = None) -> Header:
    """Asks the server at `address` who it is.

    Sends a pre-vote request of term 0, which every Raft server refuses without a change to its state, and returns the header of the answer.
    header: who asks; timeout: seconds in all after the connection stands, and for the connection. Blocks: for worker threads.
    Raises AddressError; DialError when nobody answers, or what answers does not speak Raft or gives no id.
    """
    where = parse_address(address) if isinstance(address, str) else address
    decoder = ResponseDecoder()
    decoder.expect(PreVoteRequest)
    sock = dial(where, timeout)
    deadline = time.monotonic() + timeout
    out = OutStream(sock, "identify")
    try:
        recv = sock.recv if tls is None else TlsReader(sock, dial_tls(sock, tls, where.host, min(timeout, HANDSHAKE_TIMEOUT)), out).recv
        out.send(encode_request(PreVoteRequest(header, 0, 0, 0)))
        while True:
            sock.settimeout(max(0.001, deadline - time.monotonic()))
            data = recv(READ_BYTES)
            if not data:
                raise DialError(f"{where} hung up on a pre-vote request: no Raft server of protocol version 3 listens there")
            answers = decoder.feed(data)
            if answers:
                return _identity(where, answers[0])
    except DialError:
        raise
    except TlsError as error:
        raise DialError(f"{where} cannot be asked over TLS: {error}") from error
    except WireError as error:
        raise DialError(f"{where} does not speak Raft: {error}; is that the Raft address, not the gossip or management one?") from error
    except TimeoutError as error:
        raise DialError(f"{where} took the connection but did not answer within {timeout} s; is that the Raft address?") from error
    except OSError as error:
        raise DialError(f"{where} broke the connection off: {error}; is that the Raft address?") from error
    finally:
        out.close()
        sock.close()


def _identity(where: Address, answer: Response | RpcError) -> Header:
    body = answer.body if isinstance(answer, RpcError) else answer
    if body is None or not body.header.id:
        said = f" (it said: {answer.error})" if isinstance(answer, RpcError) else ""
        raise DialError(f"{where} speaks Raft but does not tell its id{said}; a server of hashicorp/raft 1.7 or later, or of ours, does")
    return body.header
