"""What the core says: packets and streams for the shell to send, events for the rest of the node, and its two refusals."""

from __future__ import annotations

from typing import NamedTuple

import attrs

from coterie.proto.gossip_messages import META_MAX, Message, Ping


class Member(NamedTuple):
    """One member as this node sees it. `state` is ALIVE, SUSPECT, DEAD or LEFT of `gossip_messages`; `since` is when that state began,
    in the shell's monotonic seconds; `vsn` the six protocol versions that it announced."""

    name: str
    ip: str
    port: int
    meta: bytes
    state: int
    incarnation: int
    since: float
    vsn: bytes


class Packet(NamedTuple):
    """One datagram to `node` ("" when the receiver is not known by name). `crc`: the receiver understands the checksum."""

    ip: str
    port: int
    node: str
    messages: tuple[Message, ...]
    crc: bool


class StreamPing(NamedTuple):
    """Ping over TCP; the result goes to `MembershipCore.stream_pinged` with the ping's number, at most `timeout` seconds later."""

    ip: str
    port: int
    ping: Ping
    timeout: float


class PushPullWith(NamedTuple):
    """Exchange the whole state with that address; what came back goes to `MembershipCore.merge` with the address as `partner`."""

    ip: str
    port: int
    join: bool = False


@attrs.define(frozen=True)
class MemberJoined:
    """A member was not there, or dead, or had left; now it is alive."""

    member: Member


@attrs.define(frozen=True)
class MemberUpdated:
    """The metadata or the address of a living member changed."""

    member: Member
    previous_meta: bytes


@attrs.define(frozen=True)
class MemberSuspected:
    member: Member
    accuser: str


@attrs.define(frozen=True)
class MemberRefuted:
    """A suspect proved to be alive."""

    member: Member


@attrs.define(frozen=True)
class MemberFailed:
    member: Member
    accuser: str


@attrs.define(frozen=True)
class MemberLeft:
    """It said so itself."""

    member: Member


@attrs.define(frozen=True)
class SelfRefuted:
    """Somebody said something untrue about this node; `incarnation` is the one that answers it."""

    incarnation: int
    accused: int
    reason: str


@attrs.define(frozen=True)
class AddressConflict:
    """Two addresses claim one name: two nodes with the same id, or one that moved before its former address was found dead."""

    name: str
    held: tuple[str, int]
    claimed: tuple[str, int]


Event = MemberJoined | MemberUpdated | MemberSuspected | MemberRefuted | MemberFailed | MemberLeft | SelfRefuted | AddressConflict


@attrs.define(frozen=True)
class Effects:
    """What is to be done, in order within each list."""

    packets: tuple[Packet, ...] = ()
    stream_pings: tuple[StreamPing, ...] = ()
    push_pulls: tuple[PushPullWith, ...] = ()
    events: tuple[Event, ...] = ()


class MergeRefused(Exception):
    """A push/pull that is not taken, as a whole: it names a member that does not speak our protocol."""

    def __init__(self, name: str, vsn: bytes) -> None:
        super().__init__(
            f"push/pull refused: member {name!r} announces versions {list(vsn)}; six are needed (pmin pmax pcur dmin dmax dcur), "
            "with pcur between 1 and 5 and version 2 within pmin..pmax"
        )
        self.name, self.vsn = name, vsn


class MetaTooLarge(ValueError):
    """Metadata above 512 bytes: a Go node with as much would die of it."""

    def __init__(self, size: int) -> None:
        super().__init__(
            f"meta of {size} bytes: the limit is {META_MAX}; carry less in the metadata and serve the rest over the management API"
        )
        self.size = size
