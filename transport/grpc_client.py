"""Calls and streams to other nodes over cached gRPC channels: one channel a peer, made when it is first needed.

Nothing here blocks: a call answers by a callback, a stream by callbacks from a thread of its own. Bodies are bytes; codecs are the caller's affair.

What a failed call means for a write is the one thing that must not be guessed. `Answer.sent` is False only when the request certainly did not leave: nobody
listens at the address, so that the call was never given a connection. Everything else (a connection that was lost, a time-out, a cancelled call) may have been
carried out. gRPC's own retries are off, since they would blur just this.

A channel that has not been used for `idle_after` seconds is closed by `evict_idle`; the others reconnect by themselves, at most `RECONNECT_MOST` apart (gRPC's own
back-off grows to two minutes, in which a restarted peer is not found). Every channel has its own connections: two nodes in one process share none.

With TLS a channel is made of the certificates of that moment, and gRPC cannot change them later. When they change, the next call makes another channel; the old
one is closed when the last call or stream on it has ended, so that none fails of it.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple, Protocol

import grpc

from coterie.transport.errors import AddressError
from coterie.transport.grpc_server import MAX_MESSAGE
from coterie.transport.limits import LOG
from coterie.transport.tls import Tls, TlsState
from coterie.transport.tls_tunnel import TlsTunnel

__all__ = ["Answer", "ChannelObserver", "ChannelPool", "ClientStream", "Metadata"]

IDLE_AFTER: Final = 300.0
RECONNECT_MOST: Final = 1_000  # milliseconds; also how long one attempt to connect may take
JOIN_TIMEOUT: Final = 2.0
STREAM_BACKLOG: Final = 64 << 20
OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_MESSAGE),
    ("grpc.max_send_message_length", MAX_MESSAGE),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", RECONNECT_MOST),
    ("grpc.max_reconnect_backoff_ms", RECONNECT_MOST),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 2_000),  # also after how long without acknowledgement by the peer's kernel a connection is given up
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),  # a proxy for the web is none for the cluster
    ("grpc.use_local_subchannel_pool", 1),
)
_NO_WAY: Final = (AddressError, OSError)
_NEVER_CONNECTED: Final = "failed to connect to all addresses"

Metadata = tuple[tuple[str, str | bytes], ...]


class Answer(NamedTuple):
    """How a call ended. body: the reply, None when it failed; code: a name of `grpc.StatusCode`; trailing: the server's metadata.
    sent: whether the request may have reached the server."""

    body: bytes | None
    code: str
    text: str
    trailing: dict[str, Any]
    sent: bool


class ChannelObserver(Protocol):
    """Who counts channels; called from any thread."""

    def dialled(self) -> None: ...
    def reused(self) -> None: ...
    def evicted(self) -> None: ...
    def active(self, channels: int) -> None: ...


class _Channel:
    __slots__ = ("channel", "in_use", "last_used", "retired", "state", "tunnel")

    def __init__(self, channel: grpc.Channel, now: float, state: TlsState | None = None, tunnel: TlsTunnel | None = None) -> None:
        self.channel = channel
        self.tunnel = tunnel
        self.state = state
        self.retired = False  # another one has taken its place; it is closed when nobody uses it
        self.in_use = 0
        self.last_used = now

    def close(self) -> None:
        self.channel.close()
        if self.tunnel is not None:
            self.tunnel.close()


class ChannelPool:
    """Channels by address (host:port). Safe from any thread."""

    def __init__(
        self,
        name: str = "",
        observer: ChannelObserver | None = None,
        idle_after: float = IDLE_AFTER,
        clock: Callable[[], float] = time.monotonic,
        tls: Tls | None = None,
    ) -> None:
        self._tls = tls
        self._retired: set[_Channel] = set()
        self._name = f"{name}/grpc-client" if name else "grpc-client"
        self._observer = observer
        self._idle_after = idle_after
        self._clock = clock
        self._lock = threading.Lock()
        self._channels: dict[str, _Channel] = {}
        self._streams: set[ClientStream] = set()
        self._closed = False

    def call(
        self, address: str, method: str, request: bytes, timeout: float, on_done: Callable[[Answer], None], metadata: Metadata = ()
    ) -> None:
        """One unary call. `on_done` gets its Answer exactly once, from another thread or, when the pool is closed, from this one; it must not block."""
        try:
            entry = self._take(address)
        except _NO_WAY as error:
            on_done(Answer(None, "UNAVAILABLE", f"{address}: {error}", {}, sent=False))
            return
        if entry is None:
            on_done(Answer(None, "CANCELLED", "this node is stopping", {}, sent=False))
            return
        try:
            call = entry.channel.unary_unary(method).future(request, timeout=timeout, metadata=metadata)  # type: ignore[call-arg]
        except ValueError as error:  # the channel was closed in this moment
            self._give_back(entry)
            on_done(Answer(None, "CANCELLED", str(error), {}, sent=False))
            return

        def finished(done: Any) -> None:
            self._give_back(entry)
            on_done(_answer(done, unary=True))

        call.add_done_callback(finished)

    def stream(
        self,
        address: str,
        method: str,
        on_message: Callable[[bytes], None],
        on_closed: Callable[[Answer], None],
        first: bytes | None = None,
        metadata: Metadata = (),
    ) -> ClientStream | None:
        """Open a stream of messages in both directions (also for methods that stream one way only: `first` is then all that is sent, or
        the reply all that comes). None when the pool is closed, or there is no way to `address`. `on_closed` is called once, after the last message,
        unless `close` came first."""
        try:
            entry = self._take(address)
        except _NO_WAY as error:
            LOG.warning("%s: no stream to %s: %s", self._name, address, error)
            return None
        if entry is None:
            return None
        stream = ClientStream(self._name, on_message, on_closed, lambda: self._stream_ended(entry, stream))
        if first is not None:
            stream.send(first)
        with self._lock:
            self._streams.add(stream)
        try:
            stream.start(entry.channel.stream_stream(method), metadata)  # type: ignore[call-arg]  # bytes as they are
        except ValueError:
            self._stream_ended(entry, stream)
            return None
        return stream

    def evict_idle(self) -> None:
        """Close the channels that have not been used for `idle_after` seconds. To be called now and then."""
        now = self._clock()
        with self._lock:
            idle = [a for a, entry in self._channels.items() if not entry.in_use and now - entry.last_used >= self._idle_after]
        for address in idle:
            self.drop(address)

    def drop(self, address: str) -> None:
        """Close the channel to `address`, if there is one: its peer is gone. Calls under way on it are cancelled."""
        with self._lock:
            entry = self._channels.pop(address, None)
            active = len(self._channels)
        if entry is not None:
            entry.close()
            if self._observer is not None:
                self._observer.evicted()
                self._observer.active(active)

    def close(self) -> None:
        """Close all. Calls under way are answered with CANCELLED."""
        with self._lock:
            self._closed = True
            channels, self._channels = [*self._channels.values(), *self._retired], {}
            streams = list(self._streams)
        for stream in streams:
            stream.close()
        for entry in channels:
            entry.close()
        for stream in streams:
            stream.join(JOIN_TIMEOUT)
        if self._observer is not None:
            self._observer.active(0)

    def _take(self, address: str) -> _Channel | None:
        """Raises AddressError, OSError where a tunnel cannot be made."""
        with self._lock:
            if self._closed:
                return None
            entry = self._channels.get(address)
            outdated = entry if entry is not None and self._tls is not None and entry.state is not self._tls.state else None
            if outdated is not None:
                outdated.retired = True
                self._retired.add(outdated)
                entry = None
            fresh = entry is None
            if entry is None:
                entry = self._channels[address] = self._open(address)
            entry.in_use += 1
            active = len(self._channels)
        if outdated is not None:
            self._close_retired(outdated)
        if self._observer is not None:
            if fresh:
                self._observer.dialled()
                self._observer.active(active)
            else:
                self._observer.reused()
        return entry

    def _open(self, address: str) -> _Channel:
        if self._tls is None:
            return _Channel(grpc.insecure_channel(address, options=OPTIONS), self._clock())
        state = self._tls.state
        if self._tls.settings.skip_verify:
            tunnel = TlsTunnel(address, self._tls, self._name)
            return _Channel(grpc.insecure_channel(tunnel.target, options=OPTIONS), self._clock(), state, tunnel)
        files = state.files
        credentials = grpc.ssl_channel_credentials(files.ca or None, files.key or None, files.chain or None)
        name = self._tls.settings.server_name
        options = (*OPTIONS, ("grpc.ssl_target_name_override", name)) if name else OPTIONS
        return _Channel(grpc.secure_channel(address, credentials, options), self._clock(), state)

    def _give_back(self, entry: _Channel) -> None:
        with self._lock:
            entry.in_use -= 1
            entry.last_used = self._clock()
        if entry.retired:
            self._close_retired(entry)

    def _close_retired(self, entry: _Channel) -> None:
        with self._lock:
            unused = not entry.in_use and entry in self._retired
            if unused:
                self._retired.discard(entry)
        if unused:
            # Not in a thread of the call that has just ended: closing a channel waits for such threads.
            threading.Thread(target=entry.close, name=f"{self._name}-close", daemon=True).start()

    def _stream_ended(self, entry: _Channel, stream: ClientStream) -> None:
        with self._lock:
            self._streams.discard(stream)
        self._give_back(entry)


class ClientStream:
    """One open stream. `send` queues and never blocks; messages come from the stream's own thread."""

    def __init__(
        self, name: str, on_message: Callable[[bytes], None], on_closed: Callable[[Answer], None], on_ended: Callable[[], None]
    ) -> None:
        self._name = name
        self._on_message = on_message
        self._on_closed = on_closed
        self._on_ended = on_ended
        self._outgoing: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._queued = 0
        self._closed = False
        self._call: Any = None
        self._thread: threading.Thread | None = None

    def start(self, method: Any, metadata: Metadata) -> None:
        self._call = method(self._requests(), metadata=metadata)
        self._thread = threading.Thread(target=self._read, name=self._name, daemon=True)
        self._thread.start()

    def send(self, message: bytes) -> bool:
        """False when the stream is closed, or is closed now because its peer has not read for so long that `STREAM_BACKLOG` bytes wait."""
        with self._lock:
            if self._closed:
                return False
            self._queued += len(message)
            overflow = self._queued > STREAM_BACKLOG
            if not overflow:
                self._outgoing.put(message)
        if overflow:
            self._call.cancel()
        return not overflow

    def finish(self) -> None:
        """No more will be sent; what the other side still says is heard."""
        self._outgoing.put(None)

    def close(self) -> None:
        """End the stream now, without waiting for its thread. `on_closed` is not called any more. May be called from its own callbacks."""
        with self._lock:
            was, self._closed = self._closed, True
        self._outgoing.put(None)
        if not was and self._call is not None:
            self._call.cancel()

    def join(self, timeout: float) -> None:
        """Wait for the stream's thread to end."""
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout)

    def _requests(self) -> Iterator[bytes]:
        while (message := self._outgoing.get()) is not None:
            with self._lock:
                self._queued -= len(message)
            yield message

    def _read(self) -> None:
        try:
            with contextlib.suppress(grpc.RpcError):  # the reason is in the call, and is read below
                for message in self._call:
                    self._on_message(message)
        finally:
            self._call.cancel()
            with self._lock:
                told, self._closed = self._closed, True
            self._outgoing.put(None)
            self._on_ended()
            if not told:
                self._on_closed(_answer(self._call, unary=False))


def _answer(done: Any, unary: bool) -> Answer:
    """The end of a call or stream that is over."""
    code = done.code()
    name = code.name if code is not None else "UNKNOWN"
    text = done.details() or ""
    trailing = {str(key): value for key, value in done.trailing_metadata() or ()}
    if name == "OK":
        return Answer(done.result() if unary else None, name, text, trailing, sent=True)
    never = name == "UNAVAILABLE" and text.startswith(_NEVER_CONNECTED)
    return Answer(None, name, text, trailing, sent=not never)
