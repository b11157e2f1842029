"""The messages that packets and streams share, one by one: type byte and map, there and back.

Keys stand in byte order; where Go leaves an empty field out (the source of a ping) so do we, and where it says nil (no metadata, no payload) we
say nil. Vsn must have 6 bytes: a Go node takes fewer, and then refuses every push/pull for as long as that member lives; so a
message with fewer is refused here, by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from coterie.proto.errors import WireError
from coterie.proto.gomsgpack import Reader, Schema, pack
from coterie.proto.gossip_address import pack_ip, unpack_ip
from coterie.proto.gossip_messages import Ack, Alive, Dead, IndirectPing, Message, Nack, NodeState, Ping, Suspect, User

PING: Final = 0
INDIRECT_PING: Final = 1
ACK: Final = 2
SUSPECT: Final = 3
ALIVE: Final = 4
DEAD: Final = 5
PUSH_PULL: Final = 6
COMPOUND: Final = 7
USER: Final = 8
COMPRESS: Final = 9
ENCRYPT: Final = 10
NACK: Final = 11
HAS_CRC: Final = 12
ERR: Final = 13

VSN_SIZE: Final = 6

Fields = Mapping[bytes, Any]


def encode_message(message: Message) -> bytes:
    """Type byte and body, as it stands in a packet. Raises ValueError for an address that is no IP address."""
    match message:
        case User(data):
            return bytes((USER,)) + data
        case Ping(seq_no, node, ip, port, source):
            return bytes((PING,)) + pack({"Node": node, "SeqNo": seq_no, **_source(ip, source, port)})
        case IndirectPing(seq_no, target, port, node, nack, ip, source_port, source):
            asked = {
                "Nack": nack,
                "Node": node,
                "Port": port,
                "SeqNo": seq_no,
                **_source(ip, source, source_port),
                "Target": pack_ip(target),
            }
            return bytes((INDIRECT_PING,)) + pack(asked)
        case Ack(seq_no, payload):
            return bytes((ACK,)) + pack({"Payload": payload or None, "SeqNo": seq_no})
        case Nack(seq_no):
            return bytes((NACK,)) + pack({"SeqNo": seq_no})
        case Suspect(incarnation, node, accuser):
            return bytes((SUSPECT,)) + pack({"From": accuser, "Incarnation": incarnation, "Node": node})
        case Dead(incarnation, node, accuser):
            return bytes((DEAD,)) + pack({"From": accuser, "Incarnation": incarnation, "Node": node})
        case Alive(incarnation, node, ip, port, meta, vsn):
            alive = {"Addr": pack_ip(ip), "Incarnation": incarnation, "Meta": meta or None, "Node": node, "Port": port, "Vsn": _vsn(vsn)}
            return bytes((ALIVE,)) + pack(alive)


def encode_node_state(node: NodeState) -> bytes:
    """One member of a push/pull."""
    return pack(
        {
            "Addr": pack_ip(node.ip),
            "Incarnation": node.incarnation,
            "Meta": node.meta or None,
            "Name": node.name,
            "Port": node.port,
            "State": node.state,
            "Vsn": _vsn(node.vsn),
        }
    )


def _source(ip: str, node: str, port: int) -> dict[str, object]:
    fields = {"SourceAddr": pack_ip(ip) if ip else b"", "SourceNode": node, "SourcePort": port}
    return {name: value for name, value in fields.items() if value}


def _vsn(vsn: bytes) -> bytes:
    if len(vsn) != VSN_SIZE:
        raise ValueError(f"vsn: {len(vsn)} bytes; exactly {VSN_SIZE} belong there, older Go nodes die of fewer")
    return vsn


def decode_message(data: bytes) -> Message:
    """One message from its type byte on; not a compound or a compressed one. Raises WireError."""
    if data[0] == USER:
        return User(data[1:])
    form = _FORMS.get(data[0])
    if form is None:
        raise WireError(f"message type {data[0]} is not one for packets")
    name, schema, build = form
    return build(Reader(data[1:], name).struct(schema))


def decode_node_state(data: bytes) -> NodeState:
    """One member of a push/pull. Raises WireError."""
    fields = Reader(data, "pushPull.Nodes").struct(_NODE_STATE)
    get = fields.get
    name = get(b"Name", "")
    ip = unpack_ip(get(b"Addr"), f"pushPull.Nodes {name!r}")
    meta = get(b"Meta") or b""
    return NodeState(name, ip, get(b"Port", 0), meta, get(b"Incarnation", 0), get(b"State", 0), _read_vsn(fields, name))


def _ping(fields: Fields) -> Ping:
    get = fields.get
    return Ping(get(b"SeqNo", 0), get(b"Node", ""), _source_ip(fields), get(b"SourcePort", 0), get(b"SourceNode", ""))


def _indirect_ping(fields: Fields) -> IndirectPing:
    get = fields.get
    target = unpack_ip(get(b"Target"), "indirectPing.Target")
    source = (_source_ip(fields), get(b"SourcePort", 0), get(b"SourceNode", ""))
    return IndirectPing(get(b"SeqNo", 0), target, get(b"Port", 0), get(b"Node", ""), get(b"Nack", False), *source)


def _ack(fields: Fields) -> Ack:
    return Ack(fields.get(b"SeqNo", 0), fields.get(b"Payload") or b"")


def _nack(fields: Fields) -> Nack:
    return Nack(fields.get(b"SeqNo", 0))


def _suspect(fields: Fields) -> Suspect:
    return Suspect(fields.get(b"Incarnation", 0), fields.get(b"Node", ""), fields.get(b"From", ""))


def _dead(fields: Fields) -> Dead:
    return Dead(fields.get(b"Incarnation", 0), fields.get(b"Node", ""), fields.get(b"From", ""))


def _alive(fields: Fields) -> Alive:
    get = fields.get
    node = get(b"Node", "")
    ip = unpack_ip(get(b"Addr"), f"alive {node!r}")
    return Alive(get(b"Incarnation", 0), node, ip, get(b"Port", 0), get(b"Meta") or b"", _read_vsn(fields, node))


def _source_ip(fields: Fields) -> str:
    raw = fields.get(b"SourceAddr")
    return unpack_ip(raw, "SourceAddr") if raw else ""


def _read_vsn(fields: Fields, node: str) -> bytes:
    vsn: bytes = fields.get(b"Vsn") or b""
    if len(vsn) != VSN_SIZE:
        raise WireError(f"Vsn of member {node!r}: {len(vsn)} bytes instead of {VSN_SIZE}")
    return vsn


_SOURCE: Final[Schema] = {b"SourceAddr": Reader.blob, b"SourceNode": Reader.text, b"SourcePort": Reader.uint16}
_PROBE: Final[Schema] = {b"Node": Reader.text, b"SeqNo": Reader.uint32, **_SOURCE}
_ACCUSATION: Final[Schema] = {b"From": Reader.text, b"Incarnation": Reader.uint32, b"Node": Reader.text}
_MEMBER: Final[Schema] = {
    b"Addr": Reader.blob,
    b"Incarnation": Reader.uint32,
    b"Meta": Reader.blob,
    b"Port": Reader.uint16,
    b"Vsn": Reader.blob,
}
_NODE_STATE: Final[Schema] = {**_MEMBER, b"Name": Reader.text, b"State": Reader.signed}
_FORMS: Final[dict[int, tuple[str, Schema, Callable[[Fields], Message]]]] = {
    PING: ("ping", _PROBE, _ping),
    INDIRECT_PING: (
        "indirectPing",
        {**_PROBE, b"Nack": Reader.boolean, b"Port": Reader.uint16, b"Target": Reader.blob},
        _indirect_ping,
    ),
    ACK: ("ack", {b"Payload": Reader.blob, b"SeqNo": Reader.uint32}, _ack),
    SUSPECT: ("suspect", _ACCUSATION, _suspect),
    ALIVE: ("alive", {**_MEMBER, b"Node": Reader.text}, _alive),
    DEAD: ("dead", _ACCUSATION, _dead),
    NACK: ("nack", {b"SeqNo": Reader.uint32}, _nack),
}
