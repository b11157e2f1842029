"""`cluster.v1.Replication`: what is published, for nodes of go-cluster and for whoever else wants to hear it.

Subscribe is a stream of records, `{topic, data, seq}`, each record one message, in the order of its topic; Ack says how far its sender is. Both are spoken in
protobuf and in JSON, as the management methods are, and a stream goes on in the codec of its request. Only the leader serves them: another node ends the call
with FAILED_PRECONDITION and the leader's management address, in the text and in the trailing metadata, as its clients expect of a node that lost its leadership.
The stream's header is sent at once, so a client knows by it that it is subscribed.

The replication room is met through `ReplicationPorts`, which the wiring gives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, Protocol

import attrs

from coterie.actors.errors import CoterieError, NotLeader
from coterie.actors.management.grpc_api import Spoken, is_forwarded, refusal
from coterie.actors.management.requests import check_id, check_topic
from coterie.proto.generated import cluster_pb2 as cluster
from coterie.transport.grpc_server import Call, Method

__all__ = ["REPLICATION", "RecordSource", "ReplicationPorts", "refusing_replication", "replication_service"]

REPLICATION: Final = "cluster.v1.Replication"
PAUSE: Final = 1.0  # how long a stream without news waits before it looks whether its client is still there


class RecordSource(Protocol):
    """The records for one subscriber."""

    @property
    def reason(self) -> CoterieError | None:
        """Why there will be no more."""

    def take(self, timeout: float) -> Sequence[tuple[str, bytes, int]] | None:
        """(topic, data, seq) in order; an empty sequence when `timeout` seconds bring none; None when there will be no more."""

    def close(self) -> None:
        """The subscriber is gone. Wakes a thread that is inside `take`."""


@attrs.define(frozen=True)
class ReplicationPorts:
    """subscribe(node_id): where the records for that subscriber come from; "" gives no name. ack(node_id, topic, seq, forwarded): it has had all up to `seq`;
    forwarded: the leader says so of a subscriber of its own. Both raise a CoterieError when this node cannot serve it."""

    subscribe: Callable[[str], RecordSource]
    ack: Callable[[str, str, int, bool], object]


def refusing_replication() -> ReplicationPorts:
    """Ports of a node that replicates nothing."""

    def no_source(node_id: str) -> RecordSource:
        raise NotLeader

    def no_ack(node_id: str, topic: str, seq: int, forwarded: bool) -> None:
        raise NotLeader

    return ReplicationPorts(no_source, no_ack)


def replication_service(ports: ReplicationPorts) -> Mapping[str, Mapping[str, Method]]:
    """For `GrpcServer`."""

    def subscribe(body: bytes, call: Call) -> Iterator[bytes]:
        spoken = Spoken(body)
        try:
            node_id = spoken.read(cluster.SubscribeRequest).node_id
            source = ports.subscribe(check_id(node_id) if node_id else "")
        except CoterieError as error:
            raise refusal(error) from error
        call.on_end(source.close)
        call.accept()
        try:
            while not call.over and (records := source.take(PAUSE)) is not None:
                for topic, data, seq in records:
                    yield spoken.write(cluster.SubscribeMessage(topic=topic, data=data, seq=seq))
        finally:
            source.close()
        if source.reason is not None:
            raise refusal(source.reason)

    def ack(body: bytes, call: Call) -> bytes:
        spoken = Spoken(body)
        try:
            request = spoken.read(cluster.AckRequest)
            if request.node_id:  # who subscribed without a name needs to acknowledge nothing, and does no harm by it
                ports.ack(check_id(request.node_id), check_topic(request.topic), request.seq, is_forwarded(call))
        except CoterieError as error:
            raise refusal(error) from error
        return spoken.write(cluster.AckResponse())

    return {REPLICATION: {"Subscribe": Method("server_stream", subscribe), "Ack": Method("control", ack)}}
