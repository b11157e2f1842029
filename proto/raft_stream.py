"""Raft connections, cut into messages: what a server reads and what a client reads.

Both decoders take bytes in chunks of any size and give the messages that became whole. They hold at most one unfinished message, bounded by
`max_message`. A WireError is final: without lengths on the wire nothing can be found again behind a fault, so the connection must be
closed, and the decoder says the same error for ever. What stood whole before the fault in the same chunk is lost with the connection, as
if it had not arrived; Raft repeats what matters.

The wire has no ids. Answers come in the order of the requests on their connection, and an answer's map says nothing of its type: so the
client tells its decoder what it asked (`expect`), before it sends.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from typing import Final, Generic, NamedTuple, TypeVar

from coterie.proto.errors import TLS_HERE, TLS_RECORD, Stranger, WireError
from coterie.proto.gomsgpack import Frames
from coterie.proto.raft_codec import decode_error, decode_request, decode_response, empty_response
from coterie.proto.raft_messages import Request, Response, RpcError, SnapshotRequest

MAX_MESSAGE: Final = 64 << 20
_LAST_RPC: Final = 4

Item = TypeVar("Item")


class SnapshotData(NamedTuple):
    """Bytes of a snapshot, after its SnapshotRequest; `last` with the one that completes its `size` (perhaps an empty one)."""

    chunk: bytes
    last: bool


class _Decoder(ABC, Generic[Item]):
    def __init__(self, max_message: int, what: str) -> None:
        self._frames = Frames(max_message, what)
        self._fault: WireError | None = None

    def feed(self, data: bytes) -> list[Item]:
        """What became whole, in order. Raises WireError."""
        found: list[Item] = []
        if self._fault is not None:
            raise self._fault.again()
        try:
            for piece in Frames.pieces(data):
                self._frames.feed(piece)
                while (item := self._next()) is not None:
                    found.append(item)
        except WireError as error:
            self._fault = error
            raise
        return found

    @abstractmethod
    def _next(self) -> Item | None:
        """The next message that is whole."""


class RequestDecoder(_Decoder[Request | SnapshotData]):
    """The server's side of a connection: requests of every RPC, and the bytes of snapshots between them. A WireError stands for whatever a Go server closes the
    connection over, and for a nil entry, of which it dies."""

    def __init__(self, max_message: int = MAX_MESSAGE) -> None:
        super().__init__(max_message, "request")
        self._rpc: int | None = None
        self._snapshot_left: int | None = None

    def _next(self) -> Request | SnapshotData | None:
        if self._snapshot_left is not None:
            return self._snapshot_data(self._snapshot_left)
        if self._rpc is None:
            if not len(self._frames):
                return None
            self._rpc = self._frames.raw(1)[0]
            if self._rpc == TLS_RECORD:
                raise Stranger(TLS_HERE, "the first byte is TLS, and this side has none: turn tls_enable on on both sides, or on neither")
            if self._rpc > _LAST_RPC:
                raise WireError(f"RPC byte {self._rpc} is not known (0 to {_LAST_RPC} are)")
        body = self._frames.value()
        if body is None:
            return None
        request = decode_request(self._rpc, body)
        self._rpc = None
        if isinstance(request, SnapshotRequest):
            self._snapshot_left = request.size
        return request

    def _snapshot_data(self, left: int) -> SnapshotData | None:
        chunk = self._frames.raw(left)
        if not chunk and left:
            return None
        left -= len(chunk)
        self._snapshot_left = left or None
        return SnapshotData(chunk, last=not left)


class ResponseDecoder(_Decoder[Response | RpcError]):
    """The client's side. `expect` may be called by another thread than `feed`, as long as it is called before the request is sent. A WireError stands also for an
    answer that nobody expects."""

    def __init__(self, max_message: int = MAX_MESSAGE) -> None:
        super().__init__(max_message, "answer")
        self._expected: deque[type[Request]] = deque()
        self._error: str | None = None

    def expect(self, request_type: type[Request]) -> None:
        """A request of this type goes out now; its answer is the next that nobody waits for yet."""
        self._expected.append(request_type)

    def _next(self) -> Response | RpcError | None:
        if len(self._frames) and not self._expected:
            raise WireError(f"{len(self._frames)} bytes of an answer that nobody expects")
        if self._error is None:
            text = self._frames.value()
            if text is None:
                return None
            self._error = decode_error(text)
        body = self._frames.value()
        if body is None:
            return None
        request_type, error = self._expected.popleft(), self._error
        self._error = None
        response = decode_response(request_type, body)
        if error:
            return RpcError(error, response)
        return empty_response(request_type) if response is None else response
