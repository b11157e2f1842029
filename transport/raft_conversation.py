"""The two halves of a Raft connection without the connection: bytes in, callbacks and bytes out.

`Serving` is the server's half: it cuts requests out of what arrives, gives each a `ReplyHandle`, and brings the answers into the order of
the requests, since the wire has no request id. `Calling` is the client's half: it keeps a token for each request and gives it back exactly
once, with its answer or, when the connection has ended, among the open ones. They know no sockets, so that the rules of the conversation
stand in one place, whatever carries it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable

from coterie.proto.raft_codec import encode_response
from coterie.proto.raft_messages import Header, Request, Response, RpcError, SnapshotRequest
from coterie.proto.raft_stream import RequestDecoder, ResponseDecoder, SnapshotData
from coterie.transport.limits import Counters

__all__ = ["Calling", "ReplyHandle", "Serving", "reply_all"]


class ReplyHandle:
    """The place of one answer on its connection."""

    __slots__ = ("_serving", "answer", "bytes", "waiting_for_data")

    def __init__(self, serving: Serving, size: int, waiting_for_data: bool) -> None:
        self._serving = serving
        self.answer: bytes | None = None
        self.bytes = size
        self.waiting_for_data = waiting_for_data

    @property
    def peer(self) -> str:
        """`host:port` that the request came from (a dialler's port: not an address to dial)."""
        return self._serving.peer

    @property
    def connection(self) -> int:
        """Number of the connection, never used twice by a server: requests with the same number came in order."""
        return self._serving.number

    def reply(self, response: Response | RpcError) -> None:
        """Answers the request; from any thread, never blocks.

        Does nothing when the connection has ended, or on a second reply: both are counted.
        """
        self._serving.deliver(((self, encode_response(response)),))


def reply_all(replies: Iterable[tuple[ReplyHandle, Response | RpcError]]) -> None:
    """Answers many requests, with one send for each connection among them."""
    grouped: dict[Serving, list[tuple[ReplyHandle, bytes]]] = {}
    for handle, response in replies:
        grouped.setdefault(handle._serving, []).append((handle, encode_response(response)))
    for serving, answers in grouped.items():
        serving.deliver(answers)


class Serving:
    """The server's half. `feed` is called by one thread; answers come from any.

    send(bytes) -> bool: takes all or ends the connection (False); it is called under a lock, so it must not block or call back.
    """

    def __init__(
        self,
        send: Callable[[bytes], bool],
        on_request: Callable[[ReplyHandle, Request], None],
        on_snapshot_data: Callable[[ReplyHandle, SnapshotData | None], None] | None,
        counts: Counters,
        peer: str,
        number: int,
        max_message: int,
    ) -> None:
        self.peer = peer
        self.number = number
        self.header: Header | None = None  # that of the last request
        self._send = send
        self._on_request = on_request
        self._on_snapshot_data = on_snapshot_data
        self._counts = counts
        self._decoder = RequestDecoder(max_message)
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)
        self._unanswered: deque[ReplyHandle] = deque()
        self._unanswered_bytes = 0
        self._ended = False
        self._half = 0
        self._snapshot: ReplyHandle | None = None

    @property
    def half(self) -> int:
        """Bytes held of a request that is not whole yet."""
        return self._half

    def feed(self, data: bytes) -> None:
        """Takes bytes and calls back for each request that is whole now. Raises WireError, and what a callback raises."""
        items = self._decoder.feed(data)
        if not items:
            self._half += len(data)
            return
        size, self._half = self._half + len(data), 0
        for item in items:
            if isinstance(item, SnapshotData):
                self._take_data(item)
            else:
                self._take(item, size)
                size = 0  # what came together is accounted for once

    def deliver(self, answers: Iterable[tuple[ReplyHandle, bytes]]) -> None:
        """Takes encoded answers for handles of this connection and sends all whose turn has come."""
        with self._lock:
            for handle, answer in answers:
                if self._ended:
                    self._counts.add("replies too late")
                elif handle.answer is not None:
                    self._counts.add("replies repeated")
                else:
                    handle.answer = answer
            self._send_ready()

    def wait_for_room(self, most: int, most_bytes: int) -> None:
        """Blocks while `most` requests, or more than `most_bytes` of them, wait for answers: reading no further is the back-pressure."""
        with self._lock:
            while not self._ended and (len(self._unanswered) >= most or self._unanswered_bytes > most_bytes):
                self._room.wait()

    def end(self) -> None:
        """No answer will leave any more; wakes whoever waits for room."""
        with self._lock:
            self._ended = True
            self._half = 0
            self._unanswered.clear()
            self._room.notify_all()

    def cut_off(self) -> None:
        """In the thread of `feed`, when nothing more will come: whoever was getting a snapshot's data hears that it ends here."""
        handle, self._snapshot = self._snapshot, None
        if handle is not None and self._on_snapshot_data is not None:
            self._on_snapshot_data(handle, None)

    def _take(self, request: Request, size: int) -> None:
        self.header = request.header
        handle = ReplyHandle(self, size, isinstance(request, SnapshotRequest) and request.size > 0)
        if handle.waiting_for_data:
            self._snapshot = handle
        with self._lock:
            if self._ended:
                return
            self._unanswered.append(handle)
            self._unanswered_bytes += size
        self._counts.add("requests")
        self._on_request(handle, request)

    def _take_data(self, data: SnapshotData) -> None:
        handle = self._snapshot
        if handle is None:
            return  # the empty end of an empty snapshot: its answer waits for nothing
        if self._on_snapshot_data is not None:
            self._on_snapshot_data(handle, data)
        else:
            self._counts.add("snapshot bytes dropped", len(data.chunk))
        if data.last:
            self._snapshot = None
            with self._lock:
                handle.waiting_for_data = False
                self._send_ready()

    def _send_ready(self) -> None:
        ready: list[bytes] = []
        while self._unanswered:
            first = self._unanswered[0]
            if first.answer is None or first.waiting_for_data:
                break
            ready.append(first.answer)
            self._unanswered_bytes -= first.bytes
            self._unanswered.popleft()
        if ready:
            self._room.notify_all()
            if not self._send(ready[0] if len(ready) == 1 else b"".join(ready)):
                self._ended = True


class Calling:
    """The client's half. `asked` is called by any thread, in the order of the bytes on the wire; all else by the connection's own."""

    __slots__ = ("_asked", "_decoder", "_on_response", "_waiting", "answered")

    def __init__(self, on_response: Callable[[object, Response | RpcError | None], None]) -> None:
        self.answered = False  # whether any answer ever came
        self._on_response = on_response
        self._decoder = ResponseDecoder()
        self._waiting: deque[tuple[object, float]] = deque()
        self._asked: deque[type[Request]] = deque()

    def asked(self, request_type: type[Request], token: object, deadline: float) -> None:
        """Notes a request, before it is sent."""
        self._asked.append(request_type)
        self._waiting.append((token, deadline))

    def feed(self, data: bytes) -> None:
        """Takes bytes and hands out the tokens of the answers that are whole now. Raises WireError, and what the callback raises."""
        # The decoder belongs to this thread. An answer follows its request, which was noted before it was sent: it learns of it in time.
        while self._asked:
            self._decoder.expect(self._asked.popleft())
        for response in self._decoder.feed(data):
            self.answered = True
            self._on_response(self._waiting.popleft()[0], response)

    def overdue(self, now: float) -> bool:
        """Whether the oldest request waits beyond its deadline."""
        return bool(self._waiting) and self._waiting[0][1] < now

    def open_tokens(self) -> list[object]:
        """What is left without an answer when the connection has ended, oldest first; each is given once."""
        tokens = [token for token, _ in self._waiting]
        self._waiting.clear()
        return tokens
