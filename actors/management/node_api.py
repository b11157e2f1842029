"""The nodes' own service, `coterie.v1.Node`: how a node passes on what is not its to do.

The replication room is met through `NodePorts`, plain callables that the wiring gives. An open session or stream is a thread for as long as it is open;
what a session answers comes from the publisher's thread, and is queued for the session's. When the peer goes away the threads end: the iterator of
requests ends, and the end of the call wakes whoever waits for something to send.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, Protocol

import attrs

from coterie.actors.errors import CoterieError, NotLeader
from coterie.actors.future import LightFuture
from coterie.actors.management.failures import to_failure
from coterie.actors.management.grpc_api import carry_out, decode, refusal, sendable, settled
from coterie.actors.management.requests import check_id, check_op
from coterie.actors.management.service import ClusterService
from coterie.actors.messages import Read, TransferLeadership
from coterie.proto.generated import node_pb2 as node
from coterie.transport.grpc_server import Call, Method

__all__ = ["Batch", "FollowSource", "ForwardSession", "NodePorts", "node_service"]

READ_PATIENCE: Final = 10.0  # seconds, for a caller that names no deadline
STATE_PATIENCE: Final = 600.0  # seconds for the state machine to write all of its state
PIECE: Final = 256 << 10  # bytes
FOLLOW_PAUSE: Final = 1.0  # how long a stream without news waits before it looks whether its peer is still there

Reply = Callable[[int, bytes | None, Exception | None], None]
State = tuple[tuple[int, int, int, int], Iterator[bytes]]  # command index, Raft index, blocks, bytes; and the blocks
Batch = tuple[str, int, int, int, bytes]  # topic, first seq, count, Raft index, data: the fields of a stored batch, in their order


class FollowSource(Protocol):
    """The batches that one follower has not had yet."""

    def take(self, timeout: float) -> Sequence[Batch] | None:
        """Batches in order; an empty sequence when `timeout` seconds bring none; None when there will be no more."""

    def close(self) -> None:
        """The follower is gone. Wakes a thread that is inside `take`."""


@attrs.define(frozen=True)
class NodePorts:
    """What the wiring gives. Called from the server's threads; none of them may block.

    forwarded(session, forward_id, batch, reply, trace): a batch of a follower's session, and the context of its trace as text;
    `reply(forward_id, payload, error)` is called once, from any thread.
    session_closed(session): nobody hears its answers any more. acks(node_id, {topic: seq}, announce): a member's acknowledgements.
    read_from(by lease): from where on a node's own handler may answer, by this node as the leader: a future of a ReadFrom, or of NotLeader.
    follow(node_id, {topic: next seq}): where the batches for that member come from; raises a CoterieError when this node cannot serve it.
    reach(): how far the state of this node goes, on its disk: a future of a StateReach. whole(): all of it: a future of a WholeState.
    state(at_least): the snapshot of the handler's state that this node keeps, when it goes up to that command; its blocks end early when another takes its place.
    """

    forwarded: Callable[[ForwardSession, int, bytes, Reply, str], object]
    session_closed: Callable[[ForwardSession], object]
    acks: Callable[[str, dict[str, int], bool], object]
    follow: Callable[[str, dict[str, int]], FollowSource]
    read_from: Callable[[bool], LightFuture] = lambda lease: refused(NotLeader())
    state: Callable[[int], State | None] = lambda at_least: None
    reach: Callable[[], LightFuture] = lambda: refused(NotLeader())
    whole: Callable[[], LightFuture] = lambda: refused(NotLeader())


def refused(error: CoterieError) -> LightFuture:
    future = LightFuture()
    future.fail(error)
    return future


def refusing_ports() -> NodePorts:
    """Ports of a node that replicates nothing: all is refused with NotLeader."""

    def no_source(node_id: str, cursors: dict[str, int]) -> FollowSource:
        raise NotLeader

    return NodePorts(
        forwarded=lambda session, forward_id, batch, reply, trace: reply(forward_id, None, NotLeader()),
        session_closed=lambda session: None,
        acks=lambda node_id, acks, announce: None,
        follow=no_source,
    )


class ForwardSession:
    """One open Forward stream, the identity of a follower's session; its answers wait here for the stream's thread."""

    def __init__(self, peer: str) -> None:
        self.peer = peer
        self.answers: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()

    def __repr__(self) -> str:
        return f"<session of {self.peer}>"

    def reply(self, forward_id: int, payload: bytes | None, error: Exception | None) -> None:
        """Never blocks; after the end of the session nobody reads it."""
        if error is None:
            message = node.ForwardReply(id=forward_id, ok=True, payload=payload or b"")
        else:
            message = node.ForwardReply(id=forward_id, failure=to_failure(error))
        self.answers.put(message.SerializeToString())

    def end(self) -> None:
        self.answers.put(None)


def node_service(service: ClusterService, ports: NodePorts) -> Mapping[str, Mapping[str, Method]]:
    """For `GrpcServer`."""
    api = _Node(service, ports)
    return {
        "coterie.v1.Node": {
            "Read": Method("work", api.read),
            "ReadIndex": Method("work", api.read_index),
            "Transfer": Method("work", api.transfer),
            "Forward": Method("bidi", api.forward, of_members=True),
            "Acks": Method("client_stream", api.acks, of_members=True),
            "Follow": Method("server_stream", api.follow, of_members=True),
            "HandlerState": Method("server_stream", api.handler_state, of_members=True),
            "State": Method("server_stream", api.state, of_members=True),
        }
    }


class _Node:
    def __init__(self, service: ClusterService, ports: NodePorts) -> None:
        self._service = service
        self._ports = ports

    def read(self, body: bytes, call: Call) -> bytes:
        try:
            request = decode(node.ReadRequest, body)
            reply = node.ReadReply(data=carry_out(self._service, Read(check_op(request.op), request.data), call))
            return sendable(reply.SerializeToString())
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller gets it as an answer
            return node.ReadReply(failure=to_failure(error)).SerializeToString()

    def transfer(self, body: bytes, call: Call) -> bytes:
        try:
            request = decode(node.TransferRequest, body)
            carry_out(self._service, TransferLeadership(check_id(request.id) if request.id else None), call)
            reply = node.TransferReply()
        except Exception as error:  # noqa: BLE001 - as above
            reply = node.TransferReply(failure=to_failure(error))
        return reply.SerializeToString()

    def read_index(self, body: bytes, call: Call) -> bytes:
        try:
            asked = self._ports.read_from(decode(node.ReadIndexRequest, body).lease)
            remaining = call.remaining()
            point = settled(asked, call, READ_PATIENCE if remaining is None else remaining)
            reply = node.ReadIndexReply(commands=point.commands, by_lease=point.by_lease)
        except Exception as error:  # noqa: BLE001 - as above
            reply = node.ReadIndexReply(failure=to_failure(error))
        return reply.SerializeToString()

    def forward(self, requests: Iterator[bytes], call: Call) -> Iterator[bytes]:
        session = ForwardSession(call.peer)
        call.on_end(session.end)
        threading.Thread(
            target=self._take_forwarded, args=(session, requests), name=f"{self._service.node_id}/forward-session", daemon=True
        ).start()
        while (answer := session.answers.get()) is not None:
            yield answer

    def _take_forwarded(self, session: ForwardSession, requests: Iterator[bytes]) -> None:
        try:
            for body in requests:
                request = decode(node.ForwardRequest, body)
                self._ports.forwarded(session, request.id, request.batch, session.reply, request.trace)
        except CoterieError as error:  # not a ForwardRequest: the session's order cannot be kept, so it ends
            session.reply(0, None, error)
        finally:
            session.end()
            self._ports.session_closed(session)

    def acks(self, requests: Iterator[bytes], call: Call) -> bytes:
        try:
            for body in requests:
                batch = decode(node.AckBatch, body)
                self._ports.acks(check_id(batch.node_id), {ack.topic: ack.seq for ack in batch.acks}, batch.announce)
        except CoterieError as error:
            raise refusal(error) from error
        return node.AcksDone().SerializeToString()

    def follow(self, body: bytes, call: Call) -> Iterator[bytes]:
        try:
            request = decode(node.FollowRequest, body)
            source = self._ports.follow(check_id(request.node_id), {cursor.topic: cursor.next_seq for cursor in request.cursors})
        except CoterieError as error:
            raise refusal(error) from error
        call.on_end(source.close)
        try:
            while not call.over and (batches := source.take(FOLLOW_PAUSE)) is not None:
                if batches:
                    yield node.FollowBatches(
                        batches=[
                            node.FollowBatch(topic=topic, first_seq=first_seq, count=count, index=index, data=data)
                            for topic, first_seq, count, index, data in batches
                        ]
                    ).SerializeToString()
        finally:
            source.close()

    def handler_state(self, body: bytes, call: Call) -> Iterator[bytes]:
        try:
            found = self._ports.state(decode(node.HandlerStateRequest, body).at_least)
        except CoterieError as error:
            raise refusal(error) from error
        if found is None:
            return
        index, log_index, blocks, size = found[0]
        yield node.HandlerStatePart(index=index, log_index=log_index, blocks=blocks, size=size).SerializeToString()
        for block in found[1]:
            if call.over:
                return
            yield node.HandlerStatePart(block=block).SerializeToString()

    def state(self, body: bytes, call: Call) -> Iterator[bytes]:
        try:
            at_least = decode(node.StateRequest, body).at_least
            reach = settled(self._ports.reach(), call, READ_PATIENCE)
            yield node.StatePart(reach=node.StateReach(applied=reach.applied, empty=reach.empty)).SerializeToString()
            if reach.applied < at_least:
                return
            whole = settled(self._ports.whole(), call, STATE_PATIENCE)
        except CoterieError as error:
            raise refusal(error) from error
        taken = whole.snapshot
        with taken.content:
            end = node.StateEnd(
                index=taken.index,
                term=taken.term,
                configuration_index=whole.configuration_index,
                configuration=whole.configuration,
                size=taken.size,
            )
            yield node.StatePart(end=end).SerializeToString()
            while not call.over and (piece := taken.content.read(PIECE)):
                yield node.StatePart(piece=piece).SerializeToString()
