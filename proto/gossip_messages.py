"""What members say to each other: the messages of hashicorp/memberlist, protocol version 2 (at most 5).

Plain values; `gossip_codec` turns them into packets and streams and back. An address is a pair (ip text, port); on the wire it is 4 raw
bytes for IPv4 and 16 for IPv6, never an IPv4 address mapped into 16 (a Go node keeps such a form and then sees a conflict).
"""

from __future__ import annotations

from typing import Final, NamedTuple

# A member's state as push/pull carries it.
ALIVE: Final = 0
SUSPECT: Final = 1
DEAD: Final = 2
LEFT: Final = 3

# pmin pmax pcur dmin dmax dcur: what the Go nodes say by default.
VSN: Final = bytes((1, 5, 2, 0, 0, 0))
META_MAX: Final = 512


class Ping(NamedTuple):
    seq_no: int
    node: str = ""
    source_ip: str = ""
    source_port: int = 0
    source_node: str = ""


class IndirectPing(NamedTuple):
    """Please ping `node` at `target_ip`:`port` for me; with `nack`, tell me also when it stays silent."""

    seq_no: int
    target_ip: str
    port: int
    node: str
    nack: bool
    source_ip: str = ""
    source_port: int = 0
    source_node: str = ""


class Ack(NamedTuple):
    seq_no: int
    payload: bytes = b""


class Nack(NamedTuple):
    seq_no: int


class Suspect(NamedTuple):
    incarnation: int
    node: str
    accuser: str


class Alive(NamedTuple):
    incarnation: int
    node: str
    ip: str
    port: int
    meta: bytes = b""
    vsn: bytes = VSN


class Dead(NamedTuple):
    """`accuser` equal to `node` is a leave: the member said it of itself."""

    incarnation: int
    node: str
    accuser: str


class User(NamedTuple):
    data: bytes


class NodeState(NamedTuple):
    """One member as push/pull tells it."""

    name: str
    ip: str
    port: int
    meta: bytes
    incarnation: int
    state: int
    vsn: bytes = VSN


class PushPull(NamedTuple):
    join: bool
    nodes: tuple[NodeState, ...]
    user_state: bytes = b""


class Err(NamedTuple):
    """The answer of a node that could not read a stream."""

    error: str


Message = Ping | IndirectPing | Ack | Nack | Suspect | Alive | Dead | User
StreamMessage = PushPull | Ping | Ack | User | Err
