"""Every error a user can meet, all under `CoterieError`. Each says what to do: the field, the value, the remedy."""

from __future__ import annotations

import pykka


class CoterieError(Exception):
    """Base of all errors of this library."""


class ConfigError(CoterieError, ValueError):
    """A setting is not usable; the text names the field, the value and what would be valid."""

    def __init__(self, field: str, value: object, remedy: str) -> None:
        super().__init__(f"{field}={value!r}: {remedy}")
        self.field, self.value, self.remedy = field, value, remedy


class StorageError(CoterieError):
    """The disk did not keep its word, or the data directory is not this node's. Fatal for the node: it stops serving rather than guess."""


class NotLeader(CoterieError):
    """This node does not lead, and the request was not carried out. `leader_id` and `leader_addr` ("" when unknown) say who does."""

    def __init__(self, leader_id: str = "", leader_addr: str = "") -> None:
        where = f"the leader is {leader_id} at {leader_addr}" if leader_id else "no leader is known; retry when one is elected"
        super().__init__(f"not leader: {where}")
        self.leader_id, self.leader_addr = leader_id, leader_addr


class NoQuorum(CoterieError):
    """No leader with a living quorum was found within the deadline; the request was not carried out."""


class Indeterminate(CoterieError):
    """The outcome is unknown: the request may or may not take effect. A retry is safe only with the same `message_id`."""


class NotDelivered(CoterieError):
    """Of a publish with acks="all": it IS published, on a quorum's disks and at its place for ever, and every node's handler gets it; but some live members have
    not acknowledged it. Do not publish it again.

    topic; first_seq to last_seq: the places of its records, of a single one both are the same; index: of their log entry; missing: the ids of the members that
    are not known to have it.
    """

    def __init__(
        self, text: str, topic: str = "", first_seq: int = 0, last_seq: int = 0, index: int = 0, missing: tuple[str, ...] = ()
    ) -> None:
        super().__init__(text)
        self.topic, self.first_seq, self.last_seq, self.index, self.missing = topic, first_seq, last_seq, index, missing

    @property
    def seq(self) -> int:
        """Of a single record."""
        return self.last_seq


class DeadlineExceeded(Indeterminate, pykka.Timeout):
    """No answer within the caller's time-out; the request may still take effect. Also a `pykka.Timeout`."""


class Overloaded(CoterieError):
    """Back-pressure: the request waited its whole deadline for room and was not carried out. The text names what is full and who holds it up."""


class PayloadTooLarge(CoterieError, ValueError):
    """The payload is above the limit; nothing was sent."""


class InvalidRequest(CoterieError, ValueError):
    """The request itself is not valid: the text names the field, the value and what would be valid."""


class AlreadyMember(CoterieError):
    """The id or the address already belongs to a member of the quorum."""


class UnknownMember(CoterieError):
    """No such id in the quorum."""


class VersionMismatch(CoterieError):
    """The other side speaks a version this one does not know."""


class Unreachable(CoterieError):
    """Nobody answered at that address within the deadline."""


class HandlerFailed(CoterieError):
    """The application's handler raised; the text carries its type and message."""


class SessionExpired(CoterieError):
    """The cluster does not remember this session, or this number of it: the command was not applied now, and whether it was applied before is unknown. A
    session begins with its number 1; begin another one."""


class AlreadyApplied(CoterieError):
    """The command was applied when it came first; its result was too large to be remembered, or is not known on this node."""


class BindFailed(CoterieError):
    """A listening address could not be had: in use, not of this machine, or not permitted."""


def loggable(error: BaseException) -> str:
    """The error in words that may stand in a log or in a span: an InvalidRequest quotes the value it refuses, which can be what an application publishes."""
    if isinstance(error, InvalidRequest):
        return "InvalidRequest: a field is not valid; whoever asks hears which"
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - the application's exception; its type must do
        return type(error).__name__
