"""What this node asks of a node of go-cluster, in its JSON over gRPC: a write for the leader, who leads, its stream of publishes, acknowledgements.

Its answers have no kind beside the text of an error, so what can be concluded is less: "not leader" is NotLeader and the write is tried elsewhere; any other
text is the handler's own error, or one that a user cannot tell from it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final, TypeVar

from google.protobuf.message import Message

from coterie.actors.errors import CoterieError, HandlerFailed, Indeterminate, InvalidRequest, NotLeader
from coterie.actors.future import LightFuture
from coterie.actors.management.failures import from_answer
from coterie.actors.management.requests import parse_status
from coterie.proto.cluster_json import read_json, write_json
from coterie.proto.errors import WireError
from coterie.proto.generated import cluster_pb2 as cluster
from coterie.transport.grpc_client import Answer
from coterie.transport.grpc_json_client import JsonChannels, JsonStream

__all__ = ["ForeignClient"]

_MANAGEMENT: Final = "/cluster.v1.Management/"
_REPLICATION: Final = "/cluster.v1.Replication/"

PATIENCE: Final = 2.0  # seconds for what waits for no handler

M = TypeVar("M", bound=Message)


class ForeignClient:
    """node_id: the name this node subscribes under."""

    def __init__(self, channels: JsonChannels, node_id: str) -> None:
        self._channels, self._node_id = channels, node_id

    def write(self, address: str, op: str, data: bytes, timeout: float) -> LightFuture:
        """-> bytes. Raises NotLeader, HandlerFailed, Unreachable, Indeterminate."""

        def read(reply: Any) -> bytes:
            if reply.error == "not leader":
                raise NotLeader
            if reply.error:
                raise HandlerFailed(f"{address} (go-cluster): {reply.error}")
            return bytes(reply.data)

        request = cluster.AppWriteRequest(op=op, data=data)
        return self._call(address, _MANAGEMENT + "AppWrite", request, cluster.AppWriteResponse, timeout, read)

    def status(self, address: str, timeout: float = PATIENCE) -> LightFuture:
        """-> ClusterStatus with go-cluster's six keys."""
        return self._call(
            address,
            _MANAGEMENT + "GetStatus",
            cluster.GetStatusRequest(),
            cluster.GetStatusResponse,
            timeout,
            lambda reply: parse_status(json.loads(reply.data)),
            repeatable=True,
        )

    def ack(self, address: str, topic: str, seq: int, timeout: float = PATIENCE) -> LightFuture:
        """-> True."""
        request = cluster.AckRequest(topic=topic, seq=seq, node_id=self._node_id)
        return self._call(address, _REPLICATION + "Ack", request, cluster.AckResponse, timeout, lambda _: True, repeatable=True)

    def subscribe(
        self, address: str, on_record: Callable[[str, bytes, int], object], on_closed: Callable[[CoterieError | None], object]
    ) -> JsonStream | None:
        """on_record(topic, data, seq) for each message, from the client's thread; on_closed(error) once, unless it was closed here. None: this node is stopping.
        What cannot be read is told as a record of the topic "", which is counted there."""

        def message(body: bytes) -> None:
            try:
                record = read_json(cluster.SubscribeMessage, body)
            except WireError:
                on_record("", b"", 0)
                return
            on_record(record.topic, record.data, record.seq)

        def ended(answer: Answer) -> None:
            on_closed(from_answer(answer, address, repeatable=True))

        request = write_json(cluster.SubscribeRequest(node_id=self._node_id))
        return self._channels.stream(address, _REPLICATION + "Subscribe", request, message, ended)

    def _call(
        self,
        address: str,
        method: str,
        request: Message,
        kind: type[M],
        timeout: float,
        read: Callable[[M], Any],
        repeatable: bool = False,
    ) -> LightFuture:
        future = LightFuture()

        def done(answer: Answer) -> None:
            error = from_answer(answer, address, repeatable)
            if error is not None:
                future.fail(error)
                return
            try:
                future.set(read(read_json(kind, answer.body or b"{}")))
            except InvalidRequest as bad:  # no status
                future.fail(Indeterminate(f"{address}: {bad}"))
            except CoterieError as told:
                future.fail(told)
            except (WireError, ValueError) as bad:
                future.fail(Indeterminate(f"{address}: the answer to {method} cannot be read: {bad}"))

        self._channels.call(address, method, write_json(request), max(0.001, timeout), done)
        return future
