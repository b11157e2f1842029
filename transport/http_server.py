"""An ASGI application on a socket of its own, in a thread of its own: uvicorn, with what a port open to a network needs.

Whoever can reach the port can try to hold it. So here
- connections are bounded in number; for one more the silent one that has been there for longest makes room (`crowd`), or it is closed at once, and counted;
- a connection that has begun no request within `HEAD_TIMEOUT` seconds is closed, and so is one that dribbles a request's head;
- one that does not read its answer within `UNREAD_TIMEOUT` seconds is closed, and all unread answers together are bounded by `UNREAD_BYTES`;
- one that goes on with a body after it has had its answer (a 413, say) has `LINGER` seconds for it;
- what is no HTTP gets a 400 and the end, is counted, and is logged now and then, not once a packet;
- with TLS, handshakes are bounded in time (`http_tls`); TLS where none is configured is refused by its first byte, and named so.
Bodies are the application's to bound (`read_body`): it stops reading at the limit, and answers 413 without having stored more.

The listening socket is bound before the thread starts, so that a port in use is an exception in the caller's thread and `port` is known.
The event loop is plain asyncio, whatever the host application has installed. (A server per worker process, or running in the application's own loop,
lost: the management API must answer while the application does not.)
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, cast

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from coterie.proto.errors import TLS_HERE, TLS_RECORD
from coterie.transport.addresses import Address, parse_address
from coterie.transport.crowd import Crowd, places
from coterie.transport.http_tls import TlsFront
from coterie.transport.limits import Complaints, Counters
from coterie.transport.listener import bind_socket
from coterie.transport.tls import Tls

__all__ = ["BodyTooLarge", "BodyTooSlow", "HttpServer", "read_body"]

MAX_CONNECTIONS: Final = 1024
HEAD_TIMEOUT: Final = 15.0
BODY_TIMEOUT: Final = 15.0
KEEP_ALIVE: Final = 75
UNREAD_TIMEOUT: Final = 15.0
UNREAD_BYTES: Final = 64 << 20
LINGER: Final = 5.0
STOP_TIMEOUT: Final = 1
START_TIMEOUT: Final = 10.0

# uvicorn writes a warning for each malformed request; ours are counted instead. Its errors still show.
_WIRE_LOG: Final = logging.getLogger("coterie.transport.http")
_WIRE_LOG.setLevel(logging.ERROR)


def _no_end_at_a_stop(record: logging.LogRecord) -> bool:
    """A request that is still at work when the server stops is cancelled, and that is no error of anybody's. Nothing else cancels one."""
    return not (record.exc_info and record.exc_info[0] is asyncio.CancelledError)


_WIRE_LOG.addFilter(_no_end_at_a_stop)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class BodyTooLarge(ValueError):
    """The body is above the limit; no more of it than the limit was kept."""


class BodyTooSlow(ValueError):
    """The body did not come within its time, or ended early."""


async def read_body(receive: Receive, declared: str | None, limit: int, timeout: float = BODY_TIMEOUT) -> bytes:
    """The body of a request. declared: its Content-Length header. Raises BodyTooLarge above `limit` bytes, at once when it is declared so."""
    if declared is not None and declared.isdigit() and int(declared) > limit:
        raise BodyTooLarge(f"the body has {declared} bytes; at most {limit} are taken")
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(timeout):
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    raise BodyTooSlow("the connection ended inside the body")
                chunk = message.get("body", b"")
                size += len(chunk)
                if size > limit:
                    raise BodyTooLarge(f"the body has more than {limit} bytes; no more are taken")
                chunks.append(chunk)
                if not message.get("more_body", False):
                    return b"".join(chunks)
    except TimeoutError:
        raise BodyTooSlow(f"the body did not come within {timeout} s") from None


class HttpServer:
    """Serves `app` on `bind` from construction until `close`, over HTTPS with `tls`. Raises BindError, which names `setting`, and AddressError."""

    def __init__(
        self,
        bind: str,
        app: App,
        name: str = "",
        setting: str = "http_addr",
        head_timeout: float = HEAD_TIMEOUT,
        tls: Tls | None = None,
    ) -> None:
        address = parse_address(bind)
        self._sock = bind_socket(address, socket.SOCK_STREAM, setting)
        self.address = Address(address.host, int(self._sock.getsockname()[1]))
        self.counters = Counters()
        complain = Complaints(f"{name} http", self.counters)

        class Protocol(_BoundedProtocol):
            pass

        Protocol.complain, Protocol.head_timeout = complain, head_timeout
        Protocol.crowd, Protocol.unread = Crowd(places(MAX_CONNECTIONS)), set()

        def front(**made: Any) -> asyncio.Protocol:
            """What uvicorn makes for each connection."""
            assert tls is not None
            return TlsFront(tls, made["server_state"].connections, Protocol.crowd, lambda: Protocol(**made), complain, head_timeout)

        config = uvicorn.Config(
            app,
            http=Protocol if tls is None else cast(Any, front),
            ws="none",
            loop="asyncio",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=STOP_TIMEOUT,
        )
        self._server = _Server(config)
        self._thread = threading.Thread(target=self._run, name=f"{name}/http" if name else "http", daemon=True)
        self._thread.start()
        if not self._server.ready.wait(START_TIMEOUT):
            self.close()
            raise RuntimeError(f"the HTTP server on {self.address} did not start within {START_TIMEOUT} s; is the machine overloaded?")

    @property
    def port(self) -> int:
        return self.address.port

    def close(self, timeout: float = 3.0) -> None:
        """Stops accepting, lets running requests finish for a second, closes all connections."""
        self._server.should_exit = True
        self._thread.join(timeout)
        self._sock.close()

    def _run(self) -> None:
        self._server.run(sockets=[self._sock])


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        for connection in list(self.server_state.connections):
            connection.put_out()  # type: ignore[union-attr]  # ours: it waits for a peer that does not read
        await asyncio.sleep(0)  # so that they hear of their end


class _BoundedProtocol(H11Protocol):
    """One connection, with a bound on how long it may go without a whole request head, and without reading its answers."""

    complain: Complaints
    head_timeout: float
    crowd: Crowd
    unread: set[_BoundedProtocol]  # those whose peer does not take what is written

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.logger = _WIRE_LOG
        self._head_timer: asyncio.TimerHandle | None = None
        self._unread_timer: asyncio.TimerHandle | None = None
        self._refused = False
        self._known = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        peer = transport.get_extra_info("peername")
        entered, put_out = self.crowd.enter(self)
        if put_out is not None:
            self.complain("silent connections put out", peer, f"{self.crowd.most} are open, and this one wants in")
        if not entered:
            self.complain("connections refused", peer, f"{self.crowd.most} are open")
            self._refused = True
            transport.abort()
            return
        super().connection_made(transport)
        self._await_head()

    def put_out(self) -> None:
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        if data[0] == TLS_RECORD and self.conn.their_state is h11.IDLE:
            self.complain(TLS_HERE, self.client, "this port speaks plain HTTP: turn tls_enable on here, or ask with http://")
            self.transport.close()
            return
        super().data_received(data)
        if self.conn.their_state is h11.IDLE:
            self._await_head()
        elif self.conn.their_state is h11.SEND_BODY and self._answered:
            self._await_end()
        else:
            self._forget_timer()
        if not self._known and self.cycle is not None:  # a whole head was read
            self._known = True
            self.crowd.spoke(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_timer()
        self.resume_writing()
        self.crowd.leave(self)
        if not self._refused:
            super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        self.complain("garbage", self.client, msg)
        super().send_400_response(msg)

    @property
    def _answered(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    # -- what it says ---------------------------------------------------------------------------------------------------------

    def _await_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self.head_timeout, self._lose_patience)

    def _await_end(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(LINGER, self._lose_patience)

    def _forget_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _lose_patience(self) -> None:
        self._head_timer = None
        if self.conn.their_state is h11.IDLE and self._answered:
            self.complain("too slow", self.client, f"no whole request head within {self.head_timeout} s")
            self.transport.close()
        elif self.conn.their_state is h11.SEND_BODY and self._answered:
            self.complain("bodies without an end", self.client, f"it has its answer, and goes on with its body after {LINGER} s")
            self.transport.abort()

    # -- what it reads --------------------------------------------------------------------------------------------------------

    def pause_writing(self) -> None:
        """More waits to be read by the peer than is good."""
        super().pause_writing()
        self.unread.add(self)
        if sum(one.transport.get_write_buffer_size() for one in self.unread) > UNREAD_BYTES:
            self._give_up("the answers that nobody reads are too many")
        elif self._unread_timer is None:
            self._unread_timer = self.loop.call_later(
                UNREAD_TIMEOUT, self._give_up, f"it has not read its answer within {UNREAD_TIMEOUT} s"
            )

    def resume_writing(self) -> None:
        self.unread.discard(self)
        if self._unread_timer is not None:
            self._unread_timer.cancel()
            self._unread_timer = None
        super().resume_writing()

    def _give_up(self, why: str) -> None:
        self.complain("answers unread", self.client, why)
        self.transport.abort()
