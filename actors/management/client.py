"""What this node asks of another one, over gRPC: requests passed on to the leader, a session of publishes, acknowledgements, a stream to follow.

Every request answers by a `LightFuture` and blocks nobody. It is marked as passed on already, so the other node either does it or says NotLeader. What a lost
answer means is decided in `failures.from_answer`: a write is Indeterminate unless it certainly never left, a read or a status is just Unreachable.

Sessions and streams are opened by the wiring's actors and answer by callbacks from a thread of their own. An acknowledgement that cannot be sent
is not kept: they are cumulative, and whoever sends them announces its whole state on the next connection.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeVar

from google.protobuf.message import DecodeError, Message

from coterie.actors.errors import CoterieError, Indeterminate, NotLeader, Unreachable
from coterie.actors.future import LightFuture
from coterie.actors.management.failures import from_answer, from_failure
from coterie.actors.management.grpc_api import FORWARDED
from coterie.actors.management.node_api import Batch
from coterie.actors.management.requests import parse_status
from coterie.actors.messages import Applied, Joined, Left, Published
from coterie.actors.room_messages import ReadFrom
from coterie.actors.snapshot_messages import StateEnd, StateReach
from coterie.actors.tracing import SpanContext, headers_of
from coterie.proto import cluster_json
from coterie.proto.errors import WireError
from coterie.proto.generated import client_pb2 as client
from coterie.proto.generated import cluster_pb2 as cluster
from coterie.proto.generated import node_pb2 as node
from coterie.transport.grpc_client import Answer, ChannelPool, ClientStream

__all__ = ["AckStream", "ForwardLink", "NodeClient"]

_MANAGEMENT: Final = "/cluster.v1.Management/"
_REPLICATION: Final = "/cluster.v1.Replication/"
_CLIENT: Final = "/coterie.v1.Client/"
_NODE: Final = "/coterie.v1.Node/"

M = TypeVar("M", bound=Message)
OnReply = Callable[[int, bytes | None, Exception | None], None]
OnClosed = Callable[[Exception | None], None]


class NodeClient:
    """Asks other nodes by the address of their gRPC server (host:port); `pool` is shared with the node's other uses."""

    def __init__(self, pool: ChannelPool, node_id: str = "", forwarded: bool = True, as_json: bool = False) -> None:
        """forwarded: False for an operator's tool, whose requests the other node may still pass on. as_json: say what is in `cluster.proto` in JSON, which nodes of
        go-cluster understand too (their server takes JSON whatever the content type says)."""
        self._json = as_json
        self._pool = pool
        self._node_id = node_id
        self._metadata = (FORWARDED,) if forwarded else ()

    # -- requests -------------------------------------------------------------------------------------------------------------

    def write(self, address: str, op: str, data: bytes, timeout: float, trace: SpanContext | None = None) -> LightFuture:
        """-> bytes. trace: the context that goes along."""
        return self._call(
            address,
            _MANAGEMENT + "AppWrite",
            cluster.AppWriteRequest(op=op, data=data),
            timeout,
            lambda b: bytes(_said(cluster.AppWriteResponse, b).data),
            trace=trace,
        )

    def publish(self, address: str, topic: str, data: bytes, timeout: float) -> LightFuture:
        """One record by the management API, which does not tell its place. -> Published with seq and index 0."""
        return self._call(
            address,
            _MANAGEMENT + "AppSync",
            cluster.AppSyncRequest(topic=topic, data=data),
            timeout,
            _then(cluster.AppSyncResponse, Published(topic, 0, 0)),
        )

    def publish_at(
        self,
        address: str,
        topic: str,
        data: bytes,
        timeout: float,
        message_id: str = "",
        headers: dict[str, str] | None = None,
        acks: str = "",
    ) -> LightFuture:
        """-> Published. Raises VersionMismatch where the node is one of go-cluster; nothing is published then."""
        return self._call(
            address,
            _CLIENT + "Publish",
            client.PublishRequest(topic=topic, data=data, message_id=message_id, headers=headers, acks=acks),
            timeout,
            lambda body: _place(cluster_json.read(client.PublishReply, body)),
        )

    def apply(self, address: str, op: str, data: bytes, session: str | None, number: int | None, timeout: float) -> LightFuture:
        """-> Applied."""
        request = client.ApplyRequest(op=op, data=data, session=session, number=number)
        return self._call(address, _CLIENT + "Apply", request, timeout, lambda body: _applied(cluster_json.read(client.ApplyReply, body)))

    def read_at(self, address: str, op: str, data: bytes, consistency: str, timeout: float) -> LightFuture:
        """-> bytes. consistency: "" for the leader's handler, else as in `Read`."""
        return self._call(
            address,
            _CLIENT + "Read",
            client.ClientReadRequest(op=op, data=data, consistency=consistency),
            timeout,
            lambda body: bytes(cluster_json.read(client.ClientReadReply, body).data),
            repeatable=True,
        )

    def read(self, address: str, op: str, data: bytes, timeout: float, trace: SpanContext | None = None) -> LightFuture:
        """As `write`."""
        return self._call(address, _NODE + "Read", node.ReadRequest(op=op, data=data), timeout, _read_reply, repeatable=True, trace=trace)

    def read_index(self, address: str, lease: bool, timeout: float) -> LightFuture:
        """-> ReadFrom, by the leader at that address."""
        request = node.ReadIndexRequest(lease=lease)
        return self._call(address, _NODE + "ReadIndex", request, timeout, _read_from, repeatable=True)

    def join(self, address: str, member_id: str, raft_addr: str, timeout: float) -> LightFuture:
        """-> Joined."""
        request = cluster.JoinRequest(id=member_id, raft_addr=raft_addr)
        return self._call(address, _MANAGEMENT + "Join", request, timeout, _then(cluster.JoinResponse, Joined(member_id, raft_addr)))

    def leave(self, address: str, member_id: str, timeout: float) -> LightFuture:
        """-> Left."""
        return self._call(
            address, _MANAGEMENT + "Leave", cluster.LeaveRequest(id=member_id), timeout, _then(cluster.LeaveResponse, Left(member_id))
        )

    def transfer(self, address: str, member_id: str | None, timeout: float) -> LightFuture:
        """-> True when another node leads."""
        return self._call(address, _NODE + "Transfer", node.TransferRequest(id=member_id or ""), timeout, _transfer_reply)

    def status(self, address: str, timeout: float) -> LightFuture:
        """That node's own view. -> ClusterStatus."""
        return self._call(
            address,
            _MANAGEMENT + "GetStatus",
            cluster.GetStatusRequest(),
            timeout,
            lambda body: parse_status(json.loads(cluster_json.read(cluster.GetStatusResponse, body).data)),
            repeatable=True,
        )

    def ack(self, address: str, subscriber: str, topic: str, seq: int, timeout: float) -> LightFuture:
        """How far a subscriber of this node is. -> True."""
        request = cluster.AckRequest(topic=topic, seq=seq, node_id=subscriber)
        return self._call(address, _REPLICATION + "Ack", request, timeout, lambda _: True, repeatable=True)

    def _call(
        self,
        address: str,
        method: str,
        request: Message,
        timeout: float,
        read: Callable[[bytes], Any],
        repeatable: bool = False,
        trace: SpanContext | None = None,
    ) -> LightFuture:
        future = LightFuture()
        metadata = self._metadata if trace is None else (*self._metadata, *headers_of(trace).items())

        def done(answer: Answer) -> None:
            error = from_answer(answer, address, repeatable)
            if error is not None:
                future.fail(error)
                return
            try:
                future.set(read(answer.body or b""))
            except CoterieError as told:
                future.fail(told)
            except (DecodeError, WireError, ValueError) as bad:
                future.fail(Indeterminate(f"{address}: the answer to {method} cannot be read: {bad}"))

        body = cluster_json.write(request, self._json and not method.startswith(_NODE))
        self._pool.call(address, method, body, max(0.001, timeout), done, metadata)
        return future

    # -- streams: opening one raises Unreachable when this node is stopping ----------------------------------------------------------

    def open_link(self, address: str, on_reply: OnReply, on_closed: OnClosed) -> ForwardLink:
        """A session of forwarded publishes. on_reply(forward_id, payload, error) for each batch that is answered; on_closed(error) once, when the session broke:
        what was not answered by then may or may not have been done. Both come from the session's thread."""

        def message(body: bytes) -> None:
            reply = node.ForwardReply.FromString(body)
            on_reply(reply.id, reply.payload if reply.ok else None, None if reply.ok else from_failure(reply.failure))

        stream = self._pool.stream(address, _NODE + "Forward", message, lambda a: on_closed(_ended(a, address)), metadata=self._metadata)
        return ForwardLink(_opened(stream))

    def open_acks(self, address: str, on_closed: OnClosed) -> AckStream:
        """A stream of this node's acknowledgements to a leader."""
        stream = self._pool.stream(
            address, _NODE + "Acks", lambda body: None, lambda a: on_closed(_ended(a, address)), metadata=self._metadata
        )
        return AckStream(_opened(stream), self._node_id)

    def follow(self, address: str, cursors: dict[str, int], on_batches: Callable[[list[Batch]], None], on_closed: OnClosed) -> ClientStream:
        """Receive the batches from `cursors` ({topic: next seq}) on. The stream ends with `close()`."""

        def message(body: bytes) -> None:
            on_batches([(b.topic, b.first_seq, b.count, b.index, b.data) for b in node.FollowBatches.FromString(body).batches])

        request = node.FollowRequest(
            node_id=self._node_id, cursors=[node.TopicCursor(topic=topic, next_seq=seq) for topic, seq in cursors.items()]
        )

        def ended(answer: Answer) -> None:
            on_closed(_ended(answer, address))

        return _opened(self._pool.stream(address, _NODE + "Follow", message, ended, request.SerializeToString(), self._metadata))

    def handler_state(
        self, address: str, at_least: int, on_part: Callable[[tuple[int, int, int, int], bytes], None], on_closed: OnClosed
    ) -> ClientStream:
        """Receive the snapshot of the handler's state that the other node keeps: on_part(head, b""), then on_part(zeros, block) for each block.
        on_closed(None): that was all."""

        def message(body: bytes) -> None:
            part = node.HandlerStatePart.FromString(body)
            on_part((part.index, part.log_index, part.blocks, part.size), part.block)

        def ended(answer: Answer) -> None:
            on_closed(_ended(answer, address))

        first = node.HandlerStateRequest(at_least=at_least).SerializeToString()
        return _opened(self._pool.stream(address, _NODE + "HandlerState", message, ended, first, self._metadata))

    def state(
        self, address: str, at_least: int, on_part: Callable[[StateReach | StateEnd | bytes], None], on_closed: OnClosed
    ) -> ClientStream:
        """Receive the other node's whole state: on_part(how far it goes), and where that is far enough on_part(its end), then on_part(piece) for each.
        on_closed(None): that was all."""

        def message(body: bytes) -> None:
            part = node.StatePart.FromString(body)
            if part.HasField("reach"):
                on_part(StateReach(part.reach.applied, part.reach.empty))
            elif part.HasField("end"):
                end = part.end
                on_part(StateEnd(end.index, end.term, end.configuration_index, end.configuration, end.size))
            else:
                on_part(part.piece)

        def ended(answer: Answer) -> None:
            on_closed(_ended(answer, address))

        first = node.StateRequest(node_id=self._node_id, at_least=at_least).SerializeToString()
        return _opened(self._pool.stream(address, _NODE + "State", message, ended, first, self._metadata))


class ForwardLink:
    """The follower's end of a session."""

    def __init__(self, stream: ClientStream) -> None:
        self._stream = stream

    def send(self, forward_id: int, batch: bytes, trace: str = "") -> bool:
        """False when the session is over; never blocks."""
        return self._stream.send(node.ForwardRequest(id=forward_id, batch=batch, trace=trace).SerializeToString())

    def close(self) -> None:
        """End it; `on_closed` is not called any more."""
        self._stream.close()


class AckStream:
    """A member's end of its acknowledgements."""

    def __init__(self, stream: ClientStream, node_id: str) -> None:
        self._stream = stream
        self._node_id = node_id

    def send(self, acks: Iterable[tuple[str, int]], announce: bool = False) -> bool:
        """False when the stream is over; never blocks."""
        batch = node.AckBatch(node_id=self._node_id, announce=announce, acks=[node.TopicAck(topic=topic, seq=seq) for topic, seq in acks])
        return self._stream.send(batch.SerializeToString())

    def close(self) -> None:
        self._stream.close()


def _said(kind: type[M], body: bytes) -> M:
    """The answer. Raises the error in it: of a node of ours it has come in the trailing metadata before, one of go-cluster has no more than its text."""
    reply: Any = cluster_json.read(kind, body)
    if reply.error == "not leader":
        raise NotLeader("", getattr(reply, "leader", ""))
    if reply.error:
        raise CoterieError(reply.error)
    return reply  # type: ignore[no-any-return]


def _then(kind: type[M], reply: Any) -> Callable[[bytes], Any]:
    def read(body: bytes) -> Any:
        _said(kind, body)
        return reply

    return read


def _place(reply: client.PublishReply) -> Published:
    return Published(reply.topic, reply.seq, reply.index)


def _applied(reply: client.ApplyReply) -> Applied:
    return Applied(reply.index, reply.result)


def _opened(stream: ClientStream | None) -> ClientStream:
    if stream is None:
        raise Unreachable("no stream is opened: this node is stopping, or nothing leads to that address")
    return stream


def _ended(answer: Answer, address: str) -> CoterieError | None:
    return from_answer(answer, address, repeatable=True)


def _read_from(body: bytes) -> ReadFrom:
    reply = node.ReadIndexReply.FromString(body)
    if reply.HasField("failure"):
        raise from_failure(reply.failure)
    return ReadFrom(reply.commands, reply.by_lease)


def _read_reply(body: bytes) -> bytes:
    reply = node.ReadReply.FromString(body)
    if reply.HasField("failure"):
        raise from_failure(reply.failure)
    return reply.data


def _transfer_reply(body: bytes) -> bool:
    reply = node.TransferReply.FromString(body)
    if reply.HasField("failure"):
        raise from_failure(reply.failure)
    return True
