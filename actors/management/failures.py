"""Errors across the wire: what one node raised, the other raises.

An error travels as its kind (the exception's name), its text, and for NotLeader who leads. It stands in the reply where the reply has a place for it, else in the
trailing metadata of the call under `TRAILER`. What is no error of ours (a bug, a stopped actor) becomes one that says what the caller may conclude.
"""

from __future__ import annotations

from typing import Any, Final

import pykka

from coterie.actors import errors
from coterie.actors.errors import (
    AlreadyApplied,
    AlreadyMember,
    ConfigError,
    CoterieError,
    DeadlineExceeded,
    HandlerFailed,
    Indeterminate,
    InvalidRequest,
    NoQuorum,
    NotDelivered,
    NotLeader,
    Overloaded,
    PayloadTooLarge,
    SessionExpired,
    StorageError,
    UnknownMember,
    Unreachable,
    VersionMismatch,
)
from coterie.proto.generated.node_pb2 import Failure
from coterie.transport.grpc_client import Answer

__all__ = ["GRPC_CODES", "HTTP_STATUS", "KIND", "TRAILER", "as_ours", "from_answer", "from_failure", "kind_of", "to_failure"]

TRAILER: Final = "coterie-failure-bin"
KIND: Final = "coterie-kind"  # the kind alone, for clients that do not read protobuf
TOO_MANY_CALLS: Final = "Concurrent RPC limit exceeded!"  # of grpcio's server, before the method is called

HTTP_STATUS: Final[dict[str, int]] = {
    "InvalidRequest": 400,
    "AlreadyMember": 400,
    "UnknownMember": 400,
    "PayloadTooLarge": 413,
    "Overloaded": 429,
    "HandlerFailed": 500,
    "SessionExpired": 409,
    "AlreadyApplied": 409,
    "NotLeader": 503,
    "NoQuorum": 503,
    "Unreachable": 503,
    "Indeterminate": 504,
    "DeadlineExceeded": 504,
    "NotDelivered": 504,
}

GRPC_CODES: Final[dict[str, str]] = {
    "InvalidRequest": "INVALID_ARGUMENT",
    "AlreadyMember": "ALREADY_EXISTS",
    "UnknownMember": "NOT_FOUND",
    "PayloadTooLarge": "INVALID_ARGUMENT",
    "Overloaded": "RESOURCE_EXHAUSTED",
    "SessionExpired": "FAILED_PRECONDITION",
    "AlreadyApplied": "FAILED_PRECONDITION",
    "NotLeader": "FAILED_PRECONDITION",
    "NoQuorum": "UNAVAILABLE",
    "Unreachable": "UNAVAILABLE",
    "Indeterminate": "DEADLINE_EXCEEDED",
    "DeadlineExceeded": "DEADLINE_EXCEEDED",
    "NotDelivered": "DEADLINE_EXCEEDED",
}

_BY_TEXT: Final[dict[str, type[CoterieError]]] = {
    kind.__name__: kind
    for kind in (
        AlreadyApplied,
        AlreadyMember,
        DeadlineExceeded,
        HandlerFailed,
        Indeterminate,
        InvalidRequest,
        NoQuorum,
        Overloaded,
        PayloadTooLarge,
        SessionExpired,
        StorageError,
        UnknownMember,
        Unreachable,
        VersionMismatch,
    )
}


def as_ours(error: BaseException) -> CoterieError:
    """`error` itself when it is one of ours; else the error of ours that says the same to a caller."""
    if isinstance(error, CoterieError):
        return error
    if isinstance(error, pykka.ActorDeadError):  # the actor stopped before it read the message, so nothing was done
        return Unreachable(f"this node is stopping or has stopped: {error}")
    if isinstance(error, pykka.Timeout):
        return DeadlineExceeded(f"no answer in time: {error}; the request may still take effect")
    return CoterieError(f"{type(error).__name__}: {error}")


def kind_of(error: CoterieError) -> str:
    """The name of the nearest public class of `error`."""
    return next(kind.__name__ for kind in type(error).__mro__ if kind.__module__ == errors.__name__)


def to_failure(error: BaseException) -> Failure:
    ours = as_ours(error)
    failure = Failure(kind=kind_of(ours), text=str(ours))
    if isinstance(ours, NotLeader):
        failure.leader_id, failure.leader_addr = ours.leader_id, ours.leader_addr
    elif isinstance(ours, NotDelivered):
        failure.topic, failure.first_seq, failure.last_seq, failure.index = ours.topic, ours.first_seq, ours.last_seq, ours.index
        failure.missing.extend(ours.missing)
    return failure


def from_failure(failure: Failure) -> CoterieError:
    if failure.kind == "NotLeader":
        return NotLeader(failure.leader_id, failure.leader_addr)
    if failure.kind == "NotDelivered":
        place = failure.topic, failure.first_seq, failure.last_seq, failure.index
        return NotDelivered(failure.text, *place, missing=tuple(failure.missing))
    if failure.kind == "ConfigError":
        return ConfigError("request", "", failure.text)
    known = _BY_TEXT.get(failure.kind)
    return known(failure.text) if known is not None else CoterieError(failure.text or failure.kind)


def from_answer(answer: Answer, address: str, repeatable: bool) -> CoterieError | None:
    """The error that the end of a call means; None when it succeeded.

    repeatable: the request changes nothing, so that a lost answer is just Unreachable; else it is Indeterminate, unless the request never left.
    """
    trailer: Any = answer.trailing.get(TRAILER)
    if trailer:
        return from_failure(Failure.FromString(trailer))
    if answer.code == "OK":
        return None
    what = f"{address}: {answer.code}: {answer.text}"
    if answer.code == "RESOURCE_EXHAUSTED" and (
        repeatable or answer.text == TOO_MANY_CALLS
    ):  # gRPC says it also of an answer that is too large
        return Overloaded(what)
    if answer.code == "UNIMPLEMENTED":
        return VersionMismatch(f"{what}; the node there does not know this call: does it run this version?")
    if not answer.sent or repeatable:
        return Unreachable(f"{what}; is the node up, and is this the address that it advertises?")
    return Indeterminate(f"{what}; the connection or the answer was lost, and the request may or may not take effect")
