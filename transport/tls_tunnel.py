"""A way around gRPC's verification, for `tls_skip_verify`: gRPC's core verifies every server, and its Python offers no way to tell it not to.

So gRPC speaks plain HTTP/2 to a socket of this process, and what comes there is carried over a TLS connection of our own, which verifies nothing. The socket is
a file in a directory that only this user may enter: who could reach it would speak to the peer with our certificate. Each connection costs two threads; for
experiments that is no matter, and no other node uses it. (Fetching the server's certificate first and trusting just that one lost: it takes no expired one, and
blocks who calls.)
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import tempfile
import threading
from pathlib import Path
from typing import Final

from coterie.transport.addresses import parse_address
from coterie.transport.errors import DialError, TlsError
from coterie.transport.limits import LOG, Complaints, Counters
from coterie.transport.listener import Listener
from coterie.transport.stream import OutStream, dial, hang_up
from coterie.transport.tls import Tls
from coterie.transport.tls_stream import TlsReader, dial_tls

__all__ = ["TlsTunnel"]

READ_BYTES: Final = 64 << 10
DIAL_TIMEOUT: Final = 1.0


class TlsTunnel:
    """Carries what comes to the socket at `target` (as gRPC writes it) to `address` (host:port), until `close`. Raises AddressError, OSError."""

    def __init__(self, address: str, tls: Tls, name: str) -> None:
        self._address, self._tls, self._name = parse_address(address), tls, name
        self._complain = Complaints(f"{name} to {address}", Counters())
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._closed = False
        self._directory = tempfile.mkdtemp(prefix="coterie-")
        path = str(Path(self._directory) / "grpc")
        self.target = f"unix:{path}"
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.bind(path)
            sock.listen()
        except OSError:
            sock.close()
            shutil.rmtree(self._directory, ignore_errors=True)
            raise
        self._listener = Listener(sock, self._adopt, f"{name}-tunnel", self._complain)

    def close(self) -> None:
        """Ends every connection. Does not wait for their threads."""
        self._listener.close()
        shutil.rmtree(self._directory, ignore_errors=True)
        with self._lock:
            self._closed = True
            sockets = list(self._open)
        for sock in sockets:
            hang_up(sock)

    def _adopt(self, near: socket.socket, peer: str) -> None:
        threading.Thread(target=self._carry, args=(near,), name=f"{self._name}-tunnel", daemon=True).start()

    def _note(self, sock: socket.socket) -> None:
        with self._lock:
            self._open.add(sock)
            if not self._closed:
                return
        raise DialError("this node is stopping")

    def _carry(self, near: socket.socket) -> None:
        sockets: list[socket.socket] = []  # all that were tried, too

        def note(sock: socket.socket) -> None:
            sockets.append(sock)
            self._note(sock)

        try:
            note(near)
            far = dial(self._address, DIAL_TIMEOUT, note)
            out = OutStream(far, f"{self._name}-tunnel")
            reader = TlsReader(far, dial_tls(far, self._tls, self._address.host, grpc=True), out)
            back = threading.Thread(target=self._return, args=(reader, near), name=f"{self._name}-tunnel", daemon=True)
            back.start()
            with contextlib.suppress(OSError):
                while (data := near.recv(READ_BYTES)) and out.send(data):
                    pass
            out.close()
            back.join()
        except TlsError as error:
            self._complain(f"TLS: {error.reason}", self._address, error)
        except OSError as error:  # gRPC sees a connection that did not come to be, and says so to its caller
            LOG.debug("%s: %s", self._name, error)
        finally:
            with self._lock:
                self._open.difference_update(sockets)
            for sock in sockets:
                sock.close()

    def _return(self, reader: TlsReader, near: socket.socket) -> None:
        try:
            while data := reader.recv(READ_BYTES):
                near.sendall(data)
        except TlsError as error:
            self._complain(f"TLS: {error.reason}", self._address, error)
        except OSError as error:  # either side hung up
            LOG.debug("%s: %s", self._name, error)
        finally:
            hang_up(near)
