"""Calls to the gRPC servers of go-cluster's nodes, whose codec is JSON: requests say `application/grpc+json`.

This is what `grpc_client` cannot do. gRPC's core writes the content type itself, always `application/grpc`, whatever metadata a caller gives (tried), and a Go
server takes that for protobuf unless it forces its codec on every call, as go-cluster does today. grpclib, a gRPC in Python over h2, lets a codec name its
subtype. It is asyncio: one thread with an event loop, started with the first call, so a cluster without Go leaders has neither thread nor connection of this kind;
nor does it import grpclib, which is done in that thread (`grpc_json_channel`).

The rules are those of `grpc_client`: nothing blocks the caller, answers come by callback, bodies are bytes, and `Answer.sent` is False only when the request
certainly did not leave: the connection was not made.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final

from coterie.transport.addresses import parse_address
from coterie.transport.errors import AddressError
from coterie.transport.grpc_client import Answer, ChannelObserver
from coterie.transport.tls import Tls, TlsState

if TYPE_CHECKING:
    from grpclib.client import Channel

__all__ = ["JsonChannels", "JsonStream"]

IDLE_AFTER: Final = 300.0
JOIN_TIMEOUT: Final = 2.0


_CANCELLED: Final = Answer(
    None, "CANCELLED", "this node is stopping, or the stream was closed; what was under way may have arrived", {}, sent=True
)


class _Peer:
    """state: the TLS state it was made of; when that is no longer in force, the next call gets another channel, and this one is closed with its last."""

    __slots__ = ("channel", "in_use", "last_used", "retired", "state")

    def __init__(self, channel: Channel, state: TlsState | None) -> None:
        self.channel, self.state, self.in_use, self.last_used, self.retired = channel, state, 0, 0.0, False


class JsonStream:
    """One stream of answers; `close` from any thread."""

    def __init__(self, close: Callable[[], object]) -> None:
        self.close = close


class JsonChannels:
    """Channels by address (host:port), on an event loop in a thread of its own. Safe from any thread."""

    def __init__(
        self,
        name: str = "",
        observer: ChannelObserver | None = None,
        idle_after: float = IDLE_AFTER,
        clock: Callable[[], float] = time.monotonic,
        tls: Tls | None = None,
    ) -> None:
        self._tls = tls
        self._name = f"{name}/grpc-json" if name else "grpc-json"
        self._observer, self._idle_after, self._clock = observer, idle_after, clock
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._closed = False
        self._peers: dict[str, _Peer] = {}  # of the loop's thread
        self._tasks: set[asyncio.Task[Answer]] = set()  # likewise

    def call(self, address: str, method: str, request: bytes, timeout: float, on_done: Callable[[Answer], None]) -> None:
        """One unary call. `on_done` gets its Answer exactly once, from the loop's thread or, when this is closed, from the caller's; it must not block."""

        async def work(peer: _Peer) -> bytes:
            from coterie.transport.grpc_json_channel import UnaryUnaryMethod, limit

            async with UnaryUnaryMethod(peer.channel, method, bytes, bytes).open(timeout=timeout) as stream:
                await stream.send_message(request, end=True)
                limit(stream)
                reply = await stream.recv_message()
            return reply or b""

        if not self._begin(self._answered(address, work), on_done):
            on_done(Answer(None, "CANCELLED", "this node is stopping", {}, sent=False))

    def stream(
        self, address: str, method: str, request: bytes, on_message: Callable[[bytes], None], on_closed: Callable[[Answer], None]
    ) -> JsonStream | None:
        """A stream of answers to `request`. None when this is closed. `on_closed` is called once, after the last message, unless `close` came first."""
        closed = threading.Event()
        started: list[asyncio.Task[Any]] = []

        async def work(peer: _Peer) -> bytes:
            from coterie.transport.grpc_json_channel import UnaryStreamMethod, limit

            started.append(_current())
            if closed.is_set():
                return b""
            async with UnaryStreamMethod(peer.channel, method, bytes, bytes).open() as stream:
                await stream.send_message(request, end=True)
                limit(stream)
                async for message in stream:
                    if closed.is_set():
                        break
                    on_message(message)
            return b""

        def ended(answer: Answer) -> None:
            if not closed.is_set():
                closed.set()
                on_closed(answer)

        def close() -> None:
            closed.set()
            if started:
                loop = started[0].get_loop()
                with contextlib.suppress(RuntimeError):  # the loop has ended, and every stream with it
                    loop.call_soon_threadsafe(lambda: [task.cancel() for task in started])

        return JsonStream(close) if self._begin(self._answered(address, work), ended) else None

    def evict_idle(self) -> None:
        """Close the channels that have not been used for `idle_after` seconds. To be called now and then."""
        if self._loop is not None:
            self._begin(self._evict(), lambda answer: None)

    def close(self) -> None:
        """Close all. Calls under way are answered with CANCELLED. A second time does nothing."""
        with self._lock:
            self._closed = True
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(JOIN_TIMEOUT)
            if self._observer is not None:
                self._observer.active(0)

    # -- in the loop's thread -------------------------------------------------------------------------------------------------

    async def _answered(self, address: str, work: Callable[[_Peer], Coroutine[Any, Any, bytes]]) -> Answer:
        from coterie.transport.grpc_json_channel import GRPCError, StreamTerminatedError, TooLarge

        peer = None
        try:
            peer = self._take(address)
            return Answer(await work(peer), "OK", "", {}, sent=True)
        except GRPCError as error:
            return Answer(None, error.status.name, error.message or "", {}, sent=True)
        except TooLarge as error:
            return Answer(None, "RESOURCE_EXHAUSTED", str(error), {}, sent=True)
        except TimeoutError:
            return Answer(None, "DEADLINE_EXCEEDED", "no answer in time", {}, sent=True)
        except (StreamTerminatedError, asyncio.IncompleteReadError) as error:
            return Answer(None, "UNAVAILABLE", f"the connection was lost: {error}", {}, sent=True)
        except (OSError, AddressError) as error:  # the connection was not made
            return Answer(None, "UNAVAILABLE", str(error), {}, sent=False)
        except Exception as error:  # noqa: BLE001 - what the library makes of a peer that speaks something else
            return Answer(None, "UNKNOWN", f"{type(error).__name__}: {error}", {}, sent=True)
        finally:
            if peer is not None:
                peer.in_use -= 1
                peer.last_used = self._clock()
                if peer.retired and not peer.in_use:
                    peer.channel.close()

    def _take(self, address: str) -> _Peer:
        peer = self._peers.get(address)
        if peer is not None and self._tls is not None and peer.state is not self._tls.state:
            del self._peers[address]
            peer.retired = True
            if not peer.in_use:
                peer.channel.close()
            peer = None
        if peer is None:
            peer = self._peers[address] = self._dial(address)
            self._tell("dialled")
        else:
            self._tell("reused")
        peer.in_use += 1
        return peer

    def _dial(self, address: str) -> _Peer:
        """Raises AddressError."""
        from coterie.transport.grpc_json_channel import dial

        state = self._tls.state if self._tls is not None else None
        return _Peer(dial(parse_address(address), self._tls), state)

    async def _evict(self) -> Answer:
        now = self._clock()
        for address, peer in list(self._peers.items()):
            if not peer.in_use and now - peer.last_used >= self._idle_after:
                del self._peers[address]
                peer.channel.close()
                self._tell("evicted")
        return Answer(None, "OK", "", {}, sent=False)

    def _tell(self, what: str) -> None:
        if self._observer is not None:
            getattr(self._observer, what)()
            self._observer.active(len(self._peers))

    def _begin(self, work: Coroutine[Any, Any, Answer], on_done: Callable[[Answer], None]) -> bool:
        with self._lock:
            if self._closed:
                work.close()
                return False
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._run, args=(self._loop,), name=self._name, daemon=True)
                self._thread.start()
            self._loop.call_soon_threadsafe(self._task, work, on_done)
        return True

    def _task(self, work: Coroutine[Any, Any, Answer], on_done: Callable[[Answer], None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)

        def over(task: asyncio.Task[Answer]) -> None:
            self._tasks.discard(task)
            on_done(_CANCELLED if task.cancelled() else task.result())

        task.add_done_callback(over)

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                loop.run_until_complete(asyncio.gather(*self._tasks, return_exceptions=True))
            for peer in self._peers.values():
                peer.channel.close()
            loop.run_until_complete(asyncio.sleep(0))  # the transports' own good-bye
        finally:
            loop.close()


def _current() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task
