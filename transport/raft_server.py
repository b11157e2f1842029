"""The serving side of hashicorp/raft's network transport.

A thread a connection reads, decodes and calls `on_request(handle, request)`; the answer comes later, from any thread, by
`handle.reply(response)`; `raft_conversation` keeps the answers in the order of the requests.

Rules:
- every RPC is served on every connection; connections may idle for ever, and cost a blocked thread then;
- the data behind an InstallSnapshot is read to its end, whatever the answer, and the answer waits for that end;
- what does not decode ends the connection without an answer, as a Go node does it;
- memory is bounded: connections in number, one message by the decoder, half messages of all connections together by `HALF_BYTES`, requests
  without an answer per connection in number and bytes (then the connection is simply not read further: TCP tells the sender to wait);
- strangers that have not said one whole request cannot shut the port (`crowd`), and have `NEWCOMERS` of the room for half messages among them.
- with TLS, a connection that has not shaken hands within its time, or shows no certificate that our CA vouches for, ends before a byte of Raft is read.

A thread a connection beat one thread with a selector: a leader's large batch is decoded while another peer's vote request is, and at
most a few dozen peers exist.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from itertools import count
from typing import Final, cast

from coterie.proto.errors import Stranger, WireError
from coterie.proto.raft_messages import Header, Request
from coterie.proto.raft_stream import SnapshotData
from coterie.transport.addresses import Address, parse_address
from coterie.transport.crowd import Crowd, places
from coterie.transport.errors import TlsError
from coterie.transport.limits import LOG, Complaints, Counters
from coterie.transport.listener import Listener, bind_socket
from coterie.transport.raft_conversation import ReplyHandle, Serving, reply_all
from coterie.transport.stream import BACKLOG_BYTES, OutStream, hang_up, tune
from coterie.transport.tls import HANDSHAKE_TIMEOUT, Tls
from coterie.transport.tls_stream import TlsReader, accept_tls

__all__ = ["RaftServer", "ReplyHandle", "reply_all"]

MAX_CONNECTIONS: Final = 1024
MAX_MESSAGE: Final = 64 << 20
MAX_UNANSWERED: Final = 1024
MAX_UNANSWERED_BYTES: Final = 64 << 20
HALF_BYTES: Final = 128 << 20
NEWCOMERS: Final = 0.25
LEAVING: Final = 64
READ_FIRST: Final = 16 << 10
READ_MOST: Final = 256 << 10


class RaftServer:
    """Listens on `bind` and serves the Raft RPCs.

    on_request(handle, request): called in a connection's thread, one at a time for a connection, in order; must not block.
    on_snapshot_data(handle, data): the pieces behind a SnapshotRequest, None when the connection ends before the last; it may block, and holds up its connection
        alone. Without it they are dropped (and counted).
    on_closed(header): a connection ended; `header` is that of its last request, None when it never said one.
    Raises AddressError, BindError.
    """

    def __init__(
        self,
        bind: str | Address,
        on_request: Callable[[ReplyHandle, Request], None],
        *,
        name: str = "raft",
        setting: str = "raft_addr",
        on_snapshot_data: Callable[[ReplyHandle, SnapshotData | None], None] | None = None,
        on_closed: Callable[[Header | None], None] | None = None,
        max_connections: int | None = None,
        max_message: int = MAX_MESSAGE,
        max_unanswered: int = MAX_UNANSWERED,
        max_half_bytes: int = HALF_BYTES,
        backlog_bytes: int = BACKLOG_BYTES,
        tls: Tls | None = None,
        handshake_timeout: float = HANDSHAKE_TIMEOUT,
    ) -> None:
        self.tls = tls
        self.handshake_timeout = handshake_timeout
        self.bind = parse_address(bind) if isinstance(bind, str) else bind
        self.on_request = on_request
        self.on_snapshot_data = on_snapshot_data
        self.on_closed = on_closed
        self.max_message = max_message
        self.max_unanswered = max_unanswered
        self.backlog_bytes = backlog_bytes
        self._name = name
        self.crowd = Crowd(places(MAX_CONNECTIONS) if max_connections is None else max_connections)
        self._max_half_bytes = max_half_bytes
        self._half_bytes = self._newcomers_bytes = 0
        self._lock = threading.Lock()
        self._connections: dict[_Connection, threading.Thread] = {}
        self._numbers = count(1)
        self._closing = False
        self.counts = Counters()
        self.complain = Complaints(f"{name}/raft-server", self.counts)
        sock = bind_socket(self.bind, socket.SOCK_STREAM, setting)
        self.port: int = sock.getsockname()[1]
        self._listener = Listener(sock, self._adopt, f"{name}/raft-accept", self.complain)

    def counters(self) -> dict[str, int]:
        """What happened since the start, by reason; `connections now` and `half bytes now` are levels."""
        with self._lock:
            now = {"connections now": len(self._connections), "half bytes now": self._half_bytes}
        return self.counts.snapshot() | now

    def close(self) -> None:
        """Stops listening, ends every connection and waits for its thread. Must not be called from a callback."""
        with self._lock:
            self._closing = True
        self._listener.close()
        with self._lock:
            open_now = list(self._connections.items())
        for connection, _ in open_now:
            connection.end()
        for _, thread in open_now:
            thread.join()

    def hold(self, more: int, newcomer: bool = False) -> bool:
        """Accounts for bytes of half messages (negative: released). False when all of them together, or those of newcomers, pass the bound."""
        with self._lock:
            self._half_bytes += more
            if newcomer:
                self._newcomers_bytes += more
                if more > 0 and self._newcomers_bytes > NEWCOMERS * self._max_half_bytes:
                    return False
            return more <= 0 or self._half_bytes <= self._max_half_bytes

    def forget(self, connection: _Connection) -> None:
        self.crowd.leave(connection)
        with self._lock:
            self._connections.pop(connection, None)

    def _adopt(self, sock: socket.socket, peer: str) -> None:
        connection = _Connection(self, sock, peer, next(self._numbers), self._name)
        with self._lock:
            # Those that were put out end in threads of their own, which must not pile up either.
            refused = self._closing or len(self._connections) >= self.crowd.most + LEAVING
        entered, put_out = (False, None) if refused else self.crowd.enter(connection)
        if put_out is not None:
            self.complain(
                "silent connections put out", cast(_Connection, put_out).peer, f"{self.crowd.most} are open, and another wants in"
            )
        if not entered:
            self.complain("connections refused", peer, f"{self.crowd.most} are open already")
            sock.close()
            return
        thread = threading.Thread(target=connection.run, name=f"{self._name}/raft-conn", daemon=True)
        with self._lock:
            self._connections[connection] = thread
        self.counts.add("connections")
        try:
            thread.start()
        except RuntimeError as error:
            self.forget(connection)
            sock.close()
            self.complain("connections refused", peer, error)


class _Connection:
    """One connection: the reader's loop around a `Serving`."""

    def __init__(self, server: RaftServer, sock: socket.socket, peer: str, number: int, name: str) -> None:
        self.peer = peer
        self._server = server
        self._sock = sock
        self._out = OutStream(sock, f"{name}/raft-conn", server.backlog_bytes)
        self._serving = Serving(self._out.send, server.on_request, server.on_snapshot_data, server.counts, peer, number, server.max_message)
        self._held = 0
        self._known = False

    def run(self) -> None:
        try:
            tune(self._sock)
            self._read(self._sock.recv if self._server.tls is None else self._secured(self._server.tls))
        except TlsError as error:
            self._server.complain(f"TLS: {error.reason}", self.peer, error)
        except OSError:
            self._server.counts.add("connections reset")
        except WireError as error:
            self._server.complain(error.reason if isinstance(error, Stranger) else "garbage", self.peer, error)
        except Exception:  # noqa: BLE001  # a callback failed: its owner may be stopping; this connection's requests have no taker
            self._server.counts.add("callbacks failed")
            LOG.exception("a request of %s found no taker", self.peer)
        finally:
            self._finish()

    def end(self) -> None:
        """Ends the connection from another thread."""
        self._serving.end()
        hang_up(self._sock)

    put_out = end

    def _secured(self, tls: Tls) -> Callable[[int], bytes]:
        return TlsReader(self._sock, accept_tls(self._sock, tls, self._server.handshake_timeout), self._out).recv

    def _read(self, recv: Callable[[int], bytes]) -> None:
        serving = self._serving
        size = READ_FIRST
        while data := recv(size):
            if len(data) == size:
                size = min(size * 4, READ_MOST)
            serving.feed(data)
            if not self._hold(serving.half):
                self._server.complain("half messages refused", self.peer, "those of all connections together are too large")
                return
            serving.wait_for_room(self._server.max_unanswered, MAX_UNANSWERED_BYTES)
        if serving.half:
            self._server.complain("cut off", self.peer, f"{serving.half} bytes of a request came, then the end")

    def _hold(self, half: int) -> bool:
        if not self._known and self._serving.header is not None:
            self._server.hold(-self._held, newcomer=True)
            self._held, self._known = 0, True
            self._server.crowd.spoke(self)
        more = half - self._held
        self._held = half
        return not more or self._server.hold(more, not self._known)

    def _finish(self) -> None:
        self._serving.end()
        self._serving.cut_off()
        self._hold(0)
        if self._out.overflowed:
            self._server.complain("answers unread", self.peer, "the connection was closed: its peer does not read")
        self._out.close()
        self._sock.close()
        if self._server.on_closed is not None:
            try:
                self._server.on_closed(self._serving.header)
            except Exception:  # noqa: BLE001  # as above; the connection is gone all the same
                self._server.counts.add("callbacks failed")
                LOG.exception("the end of %s found no taker", self.peer)
        self._server.forget(self)
