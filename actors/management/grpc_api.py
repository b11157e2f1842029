"""The management API over gRPC: `cluster.v1.Management`, and the standard health service.

It says what HTTP says. The replies of go-cluster have a place for an error's text alone, so its kind goes in the trailing metadata of the call
(`failures.TRAILER`), from which a client of ours raises the same exception. GetStatus, whose reply has no such place, ends with a status code.
A handler thread waits for the cluster's answer, but no longer than its caller does, nor than the server lives.

Bodies reach these methods as bytes and are decoded here, so that another codec can be told apart by the request and spoken on the same methods.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from google.protobuf.message import DecodeError, Message

from coterie.actors.errors import DeadlineExceeded, InvalidRequest, NotLeader
from coterie.actors.future import LightFuture
from coterie.actors.management.failures import GRPC_CODES, TRAILER, as_ours, kind_of, to_failure
from coterie.actors.management.requests import check_id, check_op, check_raft_addr, check_topic
from coterie.actors.management.service import ClusterService, status_json
from coterie.actors.messages import Join, Leave, Publish, Write
from coterie.proto.generated import cluster_pb2 as cluster
from coterie.transport.grpc_server import Call, Method, Refused

__all__ = ["FORWARDED", "HEALTH", "carry_out", "decode", "health_service", "management_services", "refusal"]

FORWARDED: Final = ("coterie-forwarded", "1")
HEALTH: Final = "grpc.health.v1.Health"
_SERVING: Final = b"\x08\x01"  # HealthCheckResponse{status: SERVING}

M = TypeVar("M", bound=Message)


def decode(kind: type[M], body: bytes) -> M:
    """Raises InvalidRequest."""
    try:
        return kind.FromString(body)
    except DecodeError as error:
        raise InvalidRequest(f"the request is no {kind.DESCRIPTOR.full_name}: {error}") from None


def carry_out(service: ClusterService, message: Any, call: Call) -> Any:
    """The reply to `message`; blocks the calling thread of the server. Raises what the cluster raised, or DeadlineExceeded."""
    remaining = call.remaining()
    forwarded = call.metadata.get(FORWARDED[0]) == FORWARDED[1]
    return settled(service.request(message, forwarded=forwarded, remaining=remaining), call, service.patience(message, remaining))


def settled(future: LightFuture, call: Call, timeout: float) -> Any:
    """The outcome of `future`, waited for as long as the call lives."""
    call.wait(future.on_done, timeout)
    if not future.done:
        raise DeadlineExceeded(f"no answer within {timeout:.3g} s; the request may or may not take effect")
    return future.get(timeout=0)


def refusal(error: BaseException) -> Refused:
    """The end of a call whose reply has no place for an error."""
    ours = as_ours(error)
    return Refused(GRPC_CODES.get(kind_of(ours), "INTERNAL"), str(ours), trailer(ours))


def trailer(error: BaseException) -> tuple[tuple[str, bytes], ...]:
    return ((TRAILER, to_failure(error).SerializeToString()),)


def management_services(service: ClusterService) -> Mapping[str, Mapping[str, Method]]:
    """For `GrpcServer`."""
    api = _Management(service)
    return {
        "cluster.v1.Management": {
            "GetStatus": Method("control", api.get_status),
            "Join": Method("work", api.join),
            "Leave": Method("work", api.leave),
            "AppWrite": Method("work", api.app_write),
            "AppSync": Method("work", api.app_sync),
        }
    }


def health_service(known: set[str]) -> Mapping[str, Method]:
    """The standard health check; known: the services that are served. A node that answers at all is serving: whether it has a leader is `/readyz`."""

    def check(request: bytes, call: Call) -> bytes:
        # HealthCheckRequest has one field, a service's name: tag 0x0a, length (one byte for names as short as ours), text.
        name = request[2:].decode(errors="replace") if request[:1] == b"\x0a" else ""
        if name and name not in known:
            raise Refused("NOT_FOUND", f"no service {name!r} is served here")
        return _SERVING

    return {"Check": Method("control", check)}


class _Management:
    def __init__(self, service: ClusterService) -> None:
        self._service = service

    def get_status(self, body: bytes, call: Call) -> bytes:
        try:
            decode(cluster.GetStatusRequest, body)
            forwarded = call.metadata.get(FORWARDED[0]) == FORWARDED[1]
            remaining = call.remaining()
            future = self._service.status(forwarded=forwarded, remaining=remaining)
            status = settled(future, call, self._service.patience(None, remaining))
        except Exception as error:
            raise refusal(error) from error
        return cluster.GetStatusResponse(data=status_json(status)).SerializeToString()

    def join(self, body: bytes, call: Call) -> bytes:
        def work() -> Message:
            request = decode(cluster.JoinRequest, body)
            carry_out(self._service, Join(check_id(request.id), check_raft_addr(request.raft_addr)), call)
            return cluster.JoinResponse(accepted=True)

        return _answered(call, work, cluster.JoinResponse)

    def leave(self, body: bytes, call: Call) -> bytes:
        def work() -> Message:
            carry_out(self._service, Leave(check_id(decode(cluster.LeaveRequest, body).id)), call)
            return cluster.LeaveResponse(accepted=True)

        return _answered(call, work, cluster.LeaveResponse)

    def app_write(self, body: bytes, call: Call) -> bytes:
        def work() -> Message:
            request = decode(cluster.AppWriteRequest, body)
            return cluster.AppWriteResponse(data=carry_out(self._service, Write(check_op(request.op), request.data), call))

        return _answered(call, work, cluster.AppWriteResponse)

    def app_sync(self, body: bytes, call: Call) -> bytes:
        def work() -> Message:
            request = decode(cluster.AppSyncRequest, body)
            carry_out(self._service, Publish(check_topic(request.topic), request.data), call)
            return cluster.AppSyncResponse()

        return _answered(call, work, cluster.AppSyncResponse)


def _answered(call: Call, work: Callable[[], Message], reply: Callable[..., Message]) -> bytes:
    """The reply of `work`, or one that carries the error's text, with its kind in the trailing metadata."""
    try:
        return work().SerializeToString()
    except Exception as error:  # noqa: BLE001 - whatever it is, the caller gets it as an answer
        ours = as_ours(error)
        call.add_trailing(trailer(ours))
        if isinstance(ours, NotLeader) and reply in (cluster.JoinResponse, cluster.LeaveResponse):
            return reply(error="not leader", leader=ours.leader_addr).SerializeToString()
        return reply(error=str(ours)).SerializeToString()
