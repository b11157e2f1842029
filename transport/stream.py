"""Dialling, and sending without ever waiting.

`OutStream.send` is called by whichever thread has the data: an actor that has just decided something. When nothing is queued it tries the
socket at once, so that in the ordinary case bytes leave without a thread hop; what the kernel does not take is queued for a writer thread,
which exists only on connections that ever had a backlog. (Leaving large messages to the writer thread lost: a twentieth to a tenth fewer commits at
1024 in flight.) The queue is bounded in bytes. Over the bound the peer has not read for so long
that what it would read is stale: the connection is closed, which its owner sees as any other loss of a connection.

With TLS, what `secure` was given turns what is sent into what goes on the wire, in the order of the sends; the queue and its bound are then about sealed bytes.

The sockets stay in blocking mode, since readers block in `recv`; sends say MSG_DONTWAIT. (Non-blocking sockets on an event loop lost: they
put one thread between every actor and its peers.)
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Final

from coterie.transport.addresses import Address
from coterie.transport.errors import DialError

__all__ = ["BACKLOG_BYTES", "OutStream", "dial", "hang_up", "tune"]

BACKLOG_BYTES: Final = 64 << 20
_GATHER: Final = 64
_KEEPALIVE: Final = (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))


def tune(sock: socket.socket) -> None:
    """No delay, and keep-alive: an idle connection may stay, but not that of a host that is gone."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE:
        if hasattr(socket, option):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def hang_up(sock: socket.socket) -> None:
    """Ends the connection in both directions, which wakes every thread that waits on the socket; does not close it."""
    with contextlib.suppress(OSError):  # it was never connected, or is closed already: nobody waits on it
        sock.shutdown(socket.SHUT_RDWR)


def dial(address: Address, timeout: float, dialling: Callable[[socket.socket], None] = lambda sock: None) -> socket.socket:
    """A connected TCP socket in blocking mode. Raises DialError.

    timeout: seconds for each of the host's IP addresses. dialling: sees the socket before it connects, so that another thread can hang up.
    """
    failure: OSError | None = None
    try:
        found = socket.getaddrinfo(address.host or "127.0.0.1", address.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise DialError(f"{address}: the host does not resolve: {error}; check the name, or give the IP address") from error
    for family, kind, protocol, _, target in found:
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(timeout)
            dialling(sock)
            sock.connect(target)
            # A dial to a free local port can meet itself (simultaneous open) and would then keep the owner from binding it.
            if sock.getsockname() == sock.getpeername():
                raise ConnectionRefusedError("nobody listens there")
            sock.settimeout(None)
            tune(sock)
        except OSError as error:
            sock.close()
            failure = error
        else:
            return sock
    raise DialError(f"{address} cannot be reached: {failure}; is the node up, and is this the address that it advertises?") from failure


class OutStream:
    """The sending half of a connection. The owner of the socket closes the stream first, then the socket."""

    def __init__(self, sock: socket.socket, name: str, bound: int = BACKLOG_BYTES) -> None:
        self._sock = sock
        self._seal: Callable[[bytes], bytes] | None = None
        self._name = name
        self._bound = bound
        self._lock = threading.Lock()
        self._more = threading.Condition(self._lock)
        self._queue: deque[memoryview] = deque()
        self._queued = 0
        self._closed = False
        self._overflowed = False
        self._writer: threading.Thread | None = None

    @property
    def overflowed(self) -> bool:
        """True when the stream was closed because its backlog passed the bound."""
        return self._overflowed

    @property
    def queued(self) -> int:
        """Bytes that the kernel has not taken yet."""
        return self._queued

    def secure(self, seal: Callable[[bytes], bytes]) -> None:
        """From now on `seal(data)` is what goes on the wire; to be said before the first send. It raises OSError when it can seal no more."""
        self._seal = seal

    def send(self, data: bytes) -> bool:
        """Sends or queues `data`, whole and in order (b"": what TLS alone has to say). False when the stream is closed, or is closed now since the peer does
        not read."""
        with self._lock:
            if self._closed:
                return False
            if self._seal is not None:
                try:
                    data = self._seal(data)
                except OSError:  # the conversation has ended inside TLS
                    self._end()
                    return False
            rest = memoryview(data)
            if not self._queued:
                try:
                    rest = rest[self._sock.send(rest, socket.MSG_DONTWAIT) :]
                except (BlockingIOError, InterruptedError):
                    pass
                except OSError:
                    self._end()
                    return False
                if not rest:
                    return True
            if self._queued + len(rest) > self._bound:
                self._overflowed = True
                self._end()
                return False
            self._queue.append(rest)
            self._queued += len(rest)
            if self._writer is None:
                self._writer = threading.Thread(target=self._write, name=f"{self._name}-writer", daemon=True)
                self._writer.start()
            self._more.notify()
            return True

    def close(self) -> None:
        """Hangs up and waits for the writer thread to end. What is queued is lost."""
        with self._lock:
            self._end()
        if self._writer is not None:
            self._writer.join()

    def _end(self) -> None:
        self._closed = True
        self._queue.clear()
        self._queued = 0
        hang_up(self._sock)
        self._more.notify()

    def _write(self) -> None:
        writable = select.poll()
        writable.register(self._sock.fileno(), select.POLLOUT)
        while True:
            with self._lock:
                while not self._queued and not self._closed:
                    self._more.wait()
                if self._closed:
                    return
            writable.poll()
            with self._lock:
                self._push()

    def _push(self) -> None:
        if self._closed:
            return
        try:
            taken = self._sock.sendmsg(islice(self._queue, _GATHER), (), socket.MSG_DONTWAIT)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._end()
            return
        self._queued -= taken
        while taken:
            first = self._queue[0]
            if taken < len(first):
                self._queue[0] = first[taken:]
                return
            taken -= len(first)
            self._queue.popleft()
