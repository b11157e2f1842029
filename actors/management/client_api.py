"""`coterie.v1.Client`: what HTTP's POST /publish, /apply and /read do, over gRPC, in both codecs.

It stands beside `cluster.v1.Management`, whose messages are go-cluster's and have no place for a message id, a command's session or a read's consistency. Here
nothing has to look like go-cluster, so a refusal is what gRPC's own tools expect: the call ends with a status code (`failures.GRPC_CODES`), and the kind and
the whole of it go in the trailing metadata.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from google.protobuf.message import Message

from coterie.actors.management.grpc_api import Spoken, carry_out, refusal
from coterie.actors.management.requests import check_acks, check_consistency, check_op, check_topic
from coterie.actors.management.service import ClusterService
from coterie.actors.management.spans import keep_trace
from coterie.actors.messages import Apply, Publish, Read
from coterie.proto.generated import client_pb2 as client
from coterie.transport.grpc_server import Call, Method

__all__ = ["CLIENT", "client_service"]

CLIENT: Final = "coterie.v1.Client"


def client_service(service: ClusterService) -> Mapping[str, Mapping[str, Method]]:
    """For `GrpcServer`."""

    def method(work: Callable[[Spoken, Callable[[Any], Any], Call], Message]) -> Method:
        def serve(body: bytes, call: Call) -> bytes:
            spoken = Spoken(body)
            try:
                return spoken.write(work(spoken, lambda message: carry_out(service, message, call), call))
            except Exception as error:
                raise refusal(error) from error

        return Method("work", serve)

    return {CLIENT: {"Publish": method(_publish), "Apply": method(_apply), "Read": method(_read)}}


def _publish(spoken: Spoken, ask: Callable[[Any], Any], call: Call) -> Message:
    request = spoken.read(client.PublishRequest)
    message = Publish(
        check_topic(request.topic),
        request.data,
        acks=check_acks(request.acks),
        message_id=request.message_id or None,
        headers=dict(request.headers) or None,
    )
    published = ask(keep_trace(message, call.metadata))
    return client.PublishReply(topic=published.topic, seq=published.seq, index=published.index)


def _apply(spoken: Spoken, ask: Callable[[Any], Any], call: Call) -> Message:
    """What of session and number is wrong, the node itself says."""
    request = spoken.read(client.ApplyRequest)
    number = request.number if request.HasField("number") else None
    applied = ask(Apply(check_op(request.op), request.data, request.session or None, number))
    return client.ApplyReply(index=applied.index, result=applied.result)


def _read(spoken: Spoken, ask: Callable[[Any], Any], call: Call) -> Message:
    request = spoken.read(client.ClientReadRequest)
    return client.ClientReadReply(data=ask(Read(check_op(request.op), request.data, consistency=check_consistency(request.consistency))))
