"""The management API over gRPC: `cluster.v1.Management`.

It says what HTTP says. The replies of go-cluster have a place for an error's text alone, so its kind goes in the trailing metadata of the call
(`failures.TRAILER`), from which a client of ours raises the same exception. GetStatus, whose reply has no such place, ends with a status code.
A handler thread waits for the cluster's answer, but no longer than its caller does, nor than the server lives.

Bodies reach these methods as bytes: protobuf, or JSON as go-cluster's nodes send it. `Spoken` reads the request in whichever it is, and writes the answer in the
same (`proto/cluster_json.py` says how the two are told apart). The content type cannot tell: gRPC's core takes `application/grpc+json` for `application/grpc` and
keeps what followed it to itself, and answers with `application/grpc`, which grpc-go takes for its own codec's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from google.protobuf.message import DecodeError, Message

from coterie.actors.errors import CoterieError, DeadlineExceeded, Indeterminate, InvalidRequest, NotLeader
from coterie.actors.future import LightFuture
from coterie.actors.management.failures import GRPC_CODES, KIND, TRAILER, as_ours, kind_of, to_failure
from coterie.actors.management.requests import check_id, check_op, check_raft_addr, check_topic
from coterie.actors.management.service import ClusterService, status_json
from coterie.actors.management.spans import keep_trace
from coterie.actors.messages import Join, Leave, Publish, Write
from coterie.proto import cluster_json
from coterie.proto.errors import WireError
from coterie.proto.generated import cluster_pb2 as cluster
from coterie.transport.grpc_server import MAX_MESSAGE, Call, Method, Refused

__all__ = ["FORWARDED", "MANAGEMENT", "Spoken", "carry_out", "decode", "is_forwarded", "management_services", "refusal", "sendable"]

MAX_TEXT: Final = 1000  # bytes of an error's text in the trailing metadata; in the status it is percent-encoded, three times as many
MOST_NAMES: Final = 16  # of those who have not delivered, likewise
FORWARDED: Final = ("coterie-forwarded", "1")
MANAGEMENT: Final = "cluster.v1.Management"

M = TypeVar("M", bound=Message)


def decode(kind: type[M], body: bytes) -> M:
    """Raises InvalidRequest."""
    try:
        return kind.FromString(body)
    except DecodeError as error:
        raise InvalidRequest(f"the request is no {kind.DESCRIPTOR.full_name}: {error}") from None


class Spoken:
    """The codec of one request of `cluster.proto`, in which it is answered."""

    __slots__ = ("_body", "_json")

    def __init__(self, body: bytes) -> None:
        self._body, self._json = body, cluster_json.is_json(body)

    def read(self, kind: type[M]) -> M:
        """Raises InvalidRequest."""
        try:
            return cluster_json.read(kind, self._body)
        except WireError as error:
            raise InvalidRequest(f"bad request: {error}") from None

    def write(self, message: Message) -> bytes:
        """Raises Indeterminate where it is too large to be sent."""
        return sendable(cluster_json.write(message, self._json))


def sendable(reply: bytes) -> bytes:
    """`reply`, which gRPC itself would end with a status that tells a caller nothing of what was done. Raises Indeterminate."""
    if len(reply) > MAX_MESSAGE:
        raise Indeterminate(
            f"the answer has {len(reply)} bytes, and a message at most {MAX_MESSAGE}: the request was carried out, its answer cannot be sent"
        )
    return reply


def is_forwarded(call: Call) -> bool:
    """Whether another node has passed this on."""
    return bool(call.metadata.get(FORWARDED[0]) == FORWARDED[1])


def carry_out(service: ClusterService, message: Any, call: Call) -> Any:
    """The reply to `message`; blocks the calling thread of the server. Raises what the cluster raised, or DeadlineExceeded."""
    remaining = call.remaining()
    return settled(service.request(message, forwarded=is_forwarded(call), remaining=remaining), call, service.patience(message, remaining))


def settled(future: LightFuture, call: Call, timeout: float) -> Any:
    """The outcome of `future`, waited for as long as the call lives."""
    call.wait(future.on_done, timeout)
    if not future.done:
        raise DeadlineExceeded(f"no answer within {timeout:.3g} s; the request may or may not take effect")
    return future.get(timeout=0)


def refusal(error: BaseException) -> Refused:
    """The end of a call whose reply has no place for an error."""
    ours = as_ours(error)
    return Refused(GRPC_CODES.get(kind_of(ours), "INTERNAL"), cut(str(ours)), trailer(ours))


def trailer(error: CoterieError) -> tuple[tuple[str, str | bytes], ...]:
    failure = to_failure(error)
    failure.text = cut(failure.text)
    del failure.missing[MOST_NAMES:]
    return (KIND, failure.kind), (TRAILER, failure.SerializeToString())


def cut(text: str) -> str:
    """`text` as it may stand among the headers of a call: a handler's exception can be of any length, and a client takes 8 KiB of headers in all."""
    raw = text.encode("utf-8", "replace")
    return text if len(raw) <= MAX_TEXT else raw[:MAX_TEXT].decode("utf-8", "ignore") + "…"


def management_services(service: ClusterService) -> Mapping[str, Mapping[str, Method]]:
    """For `GrpcServer`."""
    api = _Management(service)
    return {
        MANAGEMENT: {
            "GetStatus": Method("control", api.get_status),
            "Join": Method("work", api.join),
            "Leave": Method("work", api.leave),
            "AppWrite": Method("work", api.app_write),
            "AppSync": Method("work", api.app_sync),
        }
    }


class _Management:
    def __init__(self, service: ClusterService) -> None:
        self._service = service

    def get_status(self, body: bytes, call: Call) -> bytes:
        spoken = Spoken(body)
        try:
            spoken.read(cluster.GetStatusRequest)
            remaining = call.remaining()
            future = self._service.status(forwarded=is_forwarded(call), remaining=remaining)
            status = settled(future, call, self._service.patience(None, remaining))
        except Exception as error:
            raise refusal(error) from error
        return spoken.write(cluster.GetStatusResponse(data=status_json(status)))

    def join(self, body: bytes, call: Call) -> bytes:
        def work(spoken: Spoken) -> Message:
            request = spoken.read(cluster.JoinRequest)
            carry_out(self._service, Join(check_id(request.id), check_raft_addr(request.raft_addr)), call)
            return cluster.JoinResponse(accepted=True)

        return _answered(body, call, work, cluster.JoinResponse)

    def leave(self, body: bytes, call: Call) -> bytes:
        def work(spoken: Spoken) -> Message:
            carry_out(self._service, Leave(check_id(spoken.read(cluster.LeaveRequest).id)), call)
            return cluster.LeaveResponse(accepted=True)

        return _answered(body, call, work, cluster.LeaveResponse)

    def app_write(self, body: bytes, call: Call) -> bytes:
        def work(spoken: Spoken) -> Message:
            request = spoken.read(cluster.AppWriteRequest)
            return cluster.AppWriteResponse(data=carry_out(self._service, Write(check_op(request.op), request.data), call))

        return _answered(body, call, work, cluster.AppWriteResponse)

    def app_sync(self, body: bytes, call: Call) -> bytes:
        def work(spoken: Spoken) -> Message:
            request = spoken.read(cluster.AppSyncRequest)
            carry_out(self._service, keep_trace(Publish(check_topic(request.topic), request.data), call.metadata), call)
            return cluster.AppSyncResponse()

        return _answered(body, call, work, cluster.AppSyncResponse)


def _answered(body: bytes, call: Call, work: Callable[[Spoken], Message], reply: Callable[..., Message]) -> bytes:
    """The reply of `work`, or one that carries the error's text, with its kind in the trailing metadata."""
    spoken = Spoken(body)
    try:
        return spoken.write(work(spoken))
    except Exception as error:  # noqa: BLE001 - whatever it is, the caller gets it as an answer
        ours = as_ours(error)
        call.add_trailing(trailer(ours))
        if isinstance(ours, NotLeader) and reply in (cluster.JoinResponse, cluster.LeaveResponse):
            return spoken.write(reply(error="not leader", leader=ours.leader_addr))
        return spoken.write(reply(error=str(ours)))
