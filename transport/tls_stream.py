"""TLS on a socket that one thread reads while others write.

An `ssl.SSLSocket` may not be read and written by two threads at once, and knows no MSG_DONTWAIT. So the socket stays plain, and an `ssl.SSLObject` stands
between it and us, with memory on both its sides and a lock around it: `TlsSession`. Nobody ever waits for a socket under this lock, so that a
peer that does not read never holds up who reads it, nor the other way round. On the wire it is an ordinary TLS stream, as Go's TLS stream layers speak it.

Sealed bytes must leave in the order in which they were sealed. They are therefore taken out in one place only: in `seal`, which `OutStream.send` calls
under its own lock. What the reading side makes TLS say (an answer to a key update, an alert) waits in memory for the next `seal`, which `TlsReader` asks for.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from typing import Final

from coterie.transport.errors import TlsError
from coterie.transport.stream import OutStream
from coterie.transport.tls import HANDSHAKE_TIMEOUT, Tls, explain

__all__ = ["TlsReader", "TlsSession", "accept_tls", "dial_tls"]

READ_BYTES: Final = 64 << 10
RECORD_BYTES: Final = 16 << 10
_FIRST: Final = (20, 21, 22)  # kinds of TLS records that a conversation may begin with: change cipher, alert, handshake


def accept_tls(sock: socket.socket, tls: Tls, timeout: float = HANDSHAKE_TIMEOUT) -> TlsSession:
    """The server's handshake; blocks for `timeout` seconds at most. Raises TlsError. The socket is in blocking mode afterwards."""
    return _shake_hands(sock, TlsSession(tls.server(), True), timeout)


def dial_tls(sock: socket.socket, tls: Tls, host: str, timeout: float = HANDSHAKE_TIMEOUT, grpc: bool = False) -> TlsSession:
    """The client's. host: what was dialled. grpc: HTTP/2 is what will be spoken, which gRPC's servers want to hear first.

    With TLS 1.3 a server that refuses our certificate says so only when we read: as a TlsError of `TlsReader`.
    """
    return _shake_hands(sock, TlsSession(tls.client_of_grpc() if grpc else tls.client(), False, tls.name_of(host)), timeout)


def _shake_hands(sock: socket.socket, session: TlsSession, timeout: float) -> TlsSession:
    try:
        session.handshake(sock, time.monotonic() + timeout)
        sock.settimeout(None)
    except (OSError, ValueError) as error:  # ValueError: a server name that cannot be one
        raise explain(error) from error
    return session


class TlsSession:
    """One TLS conversation without its socket."""

    def __init__(self, context: ssl.SSLContext, server_side: bool, server_name: str | None = None) -> None:
        self._lock = threading.Lock()
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_side, server_name)
        self.ended = False  # nothing more comes

    def handshake(self, sock: socket.socket, deadline: float) -> None:
        """Raises ssl.SSLError, TlsError, TimeoutError, OSError."""
        first = True
        while True:
            try:
                self._object.do_handshake()
                done = True
            except ssl.SSLWantReadError:
                done = False
            except ssl.SSLError:
                with contextlib.suppress(OSError):  # the alert: so that the other side learns why
                    sock.sendall(self._outgoing.read())
                raise
            sock.settimeout(_left(deadline))
            sock.sendall(self._outgoing.read())
            if done:
                return
            sock.settimeout(_left(deadline))
            data = sock.recv(READ_BYTES)
            if not data:
                raise ssl.SSLEOFError
            if first and data[0] not in _FIRST:
                raise TlsError("plain connections refused", "the other side does not speak TLS: turn tls_enable on there, or off here")
            first = False
            self._incoming.write(data)

    def seal(self, data: bytes | memoryview) -> bytes:
        """What goes on the wire for `data`, with whatever TLS itself has to say before. Raises ssl.SSLError."""
        with self._lock:
            rest = memoryview(data)
            while rest:
                rest = rest[self._object.write(rest) :]
            return self._outgoing.read()

    def open(self, data: bytes | None) -> tuple[bytes, bool]:
        """The text in what came from the wire (b"": its end; None: with the handshake), and whether TLS has something to say now. Raises ssl.SSLError."""
        with self._lock:
            if data:
                self._incoming.write(data)
            elif data is not None:
                self._incoming.write_eof()
            text: list[bytes] = []
            try:
                while chunk := self._object.read(RECORD_BYTES):
                    text.append(chunk)
                self.ended = True
            except ssl.SSLWantReadError:
                pass
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):  # without a farewell, too: messages have lengths, and tell a cut-off one
                self.ended = True
            return text[0] if len(text) == 1 else b"".join(text), self._outgoing.pending > 0


class TlsReader:
    """Reads a connection, and makes `out`, its sending half, seal what it sends: `recv` is like the socket's."""

    def __init__(self, sock: socket.socket, session: TlsSession, out: OutStream) -> None:
        self._sock, self._session, self._out = sock, session, out
        self._begun = False
        out.secure(session.seal)

    def recv(self, size: int) -> bytes:
        """The next bytes, as many as came at once; b"" at the end. `size` is for the likeness only. Raises TlsError, and what `recv` of a socket does."""
        session, text = self._session, b""
        while not text and not session.ended:
            data = self._sock.recv(READ_BYTES) if self._begun else None
            self._begun = True
            try:
                text, speaks = session.open(data)
            except ssl.SSLError as error:
                self._out.send(b"")  # TLS's own last word
                raise explain(error) from error
            if speaks:
                self._out.send(b"")
        return text


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
