"""Listening: binding with errors that help, and one thread that accepts.

The accepting thread waits on the listener and on a waker at once, so that closing never depends on what a platform does to a thread that
is blocked in `accept`. When the process is out of file descriptors it waits a little instead of spinning: the pending connection stays in
the kernel's queue.
"""

from __future__ import annotations

import errno
import select
import socket
import threading
from collections.abc import Callable
from typing import Final

from coterie.transport.addresses import Address, format_address, plain_ip
from coterie.transport.errors import BindError
from coterie.transport.limits import Complaints

__all__ = ["Listener", "bind_socket", "peer_text"]

BACKLOG: Final = 256
EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
EXHAUSTED_WAIT: Final = 0.05

_REMEDIES: Final = {
    errno.EADDRINUSE: "another process, or another node of this one, listens there: stop it, choose another port, or :0 for a free one",
    errno.EADDRNOTAVAIL: "no interface of this host has that address: bind one of its own, or :PORT for all of them",
    errno.EACCES: "the port needs a privilege that this process lacks: choose one above 1023",
}


def bind_socket(address: Address, kind: socket.SocketKind, setting: str) -> socket.socket:
    """A bound TCP (listening) or UDP socket. Raises BindError, which names `setting`, the address and the remedy."""
    try:
        found = socket.getaddrinfo(address.host or "0.0.0.0", address.port, type=kind)
    except (OSError, UnicodeError) as error:
        raise BindError(f"{setting} {str(address)!r}: the host does not resolve: {error}; bind an IP address of this host") from error
    found.sort(key=lambda info: info[0] != socket.AF_INET)
    family, _, protocol, _, target = found[0]
    sock = socket.socket(family, kind, protocol)
    try:
        if family == socket.AF_INET6 and address.everywhere:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        if kind == socket.SOCK_STREAM:  # for UDP it would let two sockets share a port
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(target)
        if kind == socket.SOCK_STREAM:
            sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        remedy = _REMEDIES.get(error.errno or 0, "bind another address")
        raise BindError(error.errno, f"{setting} {str(address)!r} cannot be bound: {error.strerror}; {remedy}") from error
    return sock


def peer_text(source: tuple[object, ...]) -> str:
    """What `accept` or `recvfrom` calls the other end, as `host:port`."""
    return format_address(plain_ip(str(source[0])), int(str(source[1])))


class Listener:
    """Accepts connections in a thread of its own and gives each to `on_socket`, which must not block and then owns the socket."""

    def __init__(self, sock: socket.socket, on_socket: Callable[[socket.socket, str], None], name: str, complain: Complaints) -> None:
        self._sock = sock
        self._on_socket = on_socket
        self._complain = complain
        self._closing = threading.Event()
        self._waker, self._wake = socket.socketpair()
        self._thread = threading.Thread(target=self._accept, name=name, daemon=True)
        sock.setblocking(False)
        self._thread.start()

    def close(self) -> None:
        """Stops accepting and closes the listening socket."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._wake.close()
        self._thread.join()
        self._waker.close()
        self._sock.close()

    def _accept(self) -> None:
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        poll.register(self._waker, select.POLLIN)
        while True:
            poll.poll()
            if self._closing.is_set():
                return
            try:
                sock, source = self._sock.accept()
            except BlockingIOError:
                continue  # the connection was reset before it was accepted
            except OSError as error:
                self._complain("accept failed", "the listener", error)
                if error.errno in EXHAUSTED:
                    self._closing.wait(EXHAUSTED_WAIT)
                continue
            sock.setblocking(True)
            self._on_socket(sock, peer_text(source) if source else "this machine")
