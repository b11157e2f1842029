"""Gossip messages and packets as bytes, as hashicorp/memberlist has them on UDP.

A message is one type byte and a map (a user message: the type byte and the rest). A packet nests, outside in: label, encryption, CRC,
compression, compound or message. Compounds and compressions may hold each other; CRC and label only stand outside. What a
packet carries beside a bad part is still good, so the parts are read one by one and the bad ones come back as errors, to be counted.

A datagram of 64 KiB may expand, and what it expands to may again. So one packet has one allowance for all its layers together: bytes out of
compression, bytes into it (they are what costs time), messages, and depth. Go bounds only the first, per layer.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from coterie.proto import lzw
from coterie.proto.errors import Stranger, WireError
from coterie.proto.gomsgpack import Reader, Schema, pack
from coterie.proto.gossip_bodies import COMPOUND, COMPRESS, HAS_CRC, decode_message, encode_message
from coterie.proto.gossip_messages import Message
from coterie.proto.gossip_security import OVERHEAD, PLAIN, Security, check_label, split_label

__all__ = [
    "Packet",
    "decode_compressed",
    "decode_message",
    "decode_packet",
    "encode_compressed",
    "encode_message",
    "encode_packet",
    "pack_packets",
]

COMPOUND_PARTS: Final = 255
COMPOUND_HEADER: Final = 2
COMPOUND_PART: Final = 2
CRC_SIZE: Final = 5

# One packet's allowance. Go nodes expand one packet to 4 MiB and more; a legitimate sender never compresses more than a datagram holds.
PACKET_EXPANDED: Final = 8 << 20
PACKET_COMPRESSED: Final = 128 << 10
PACKET_MESSAGES: Final = 16_384
PACKET_DEPTH: Final = 8

_COMPRESS: Final[Schema] = {b"Algo": Reader.uint8, b"Buf": Reader.blob}


class Packet(NamedTuple):
    """What a packet held: its messages in order, and a sentence for each part that could not be read."""

    messages: tuple[Message, ...]
    errors: tuple[str, ...]


def encode_packet(
    messages: Sequence[Message | bytes], crc: bool = False, security: Security | None = None, compress: bool = False
) -> bytes:
    """One packet: a single message bare, several as a compound. Messages may be encoded already.

    `crc` only for receivers whose protocol maximum is 5. `compress` takes effect where it makes the packet smaller, as in Go.
    Raises ValueError for no message, for more than 255, and for one of several above 65,535 bytes.
    """
    guard = security or PLAIN
    parts = [part if isinstance(part, bytes) else encode_message(part) for part in messages]
    plain = parts[0] if len(parts) == 1 else _compound(parts)
    if compress:
        smaller = encode_compressed(plain)
        plain = smaller if len(smaller) < len(plain) else plain
    if crc:
        plain = bytes((HAS_CRC,)) + zlib.crc32(plain).to_bytes(4, "big") + plain
    if guard.encrypts:
        plain = guard.seal(plain, guard.label)
    return guard.header() + plain


def pack_packets(messages: Iterable[Message | bytes], limit: int, crc: bool = False, security: Security | None = None) -> list[bytes]:
    """As few packets as hold the messages in their order, each at most `limit` bytes with all its layers and at most 255 parts.

    A message that is longer by itself still gets its packet: whether the network carries it is not known here.
    """
    room = limit - (security or PLAIN).overhead - (CRC_SIZE if crc else 0)
    packets: list[bytes] = []
    parts: list[bytes] = []
    used = COMPOUND_HEADER
    for message in messages:
        part = message if isinstance(message, bytes) else encode_message(message)
        if parts and (used + COMPOUND_PART + len(part) > room or len(parts) == COMPOUND_PARTS):
            packets.append(encode_packet(parts, crc, security))
            parts, used = [], COMPOUND_HEADER
        parts.append(part)
        used += COMPOUND_PART + len(part)
    if parts:
        packets.append(encode_packet(parts, crc, security))
    return packets


def encode_compressed(plain: bytes) -> bytes:
    """The compress message around another message."""
    return bytes((COMPRESS,)) + pack({"Algo": 0, "Buf": lzw.compress(plain)})


def _compound(parts: Sequence[bytes]) -> bytes:
    if not 1 <= len(parts) <= COMPOUND_PARTS:
        raise ValueError(f"{len(parts)} messages in one packet; 1 to {COMPOUND_PARTS} fit, split them with pack_packets")
    longest = max(map(len, parts))
    if longest > 0xFFFF:
        raise ValueError(f"a message of {longest} bytes among several in one packet; at most 65535 fit, send it alone or on a stream")
    lengths = b"".join(len(part).to_bytes(2, "big") for part in parts)
    return b"".join((bytes((COMPOUND, len(parts))), lengths, *parts))


def decode_packet(data: bytes, security: Security | None = None) -> Packet:
    """The messages of one datagram. Raises WireError if nothing in it can be read: wrong label or key, bad CRC, no message whole."""
    guard = security or PLAIN
    split = split_label(data)
    if split is None:
        raise WireError("packet: empty" if not data else "label: cut off")
    label, rest = split
    check_label(label, guard.label)
    if guard.encrypts:
        rest = guard.open(rest, guard.label)
    if rest[:1] == bytes((HAS_CRC,)) and len(rest) >= CRC_SIZE:
        said, rest = int.from_bytes(rest[1:CRC_SIZE], "big"), rest[CRC_SIZE:]
        if (found := zlib.crc32(rest)) != said:
            raise WireError(f"packet: CRC {found:08x} where {said:08x} was sent")
    unpacking = _Unpacking()
    unpacking.part(rest, PACKET_DEPTH)
    if unpacking.errors and not unpacking.messages:
        if not guard.encrypts and _looks_sealed(rest):
            raise Stranger("encrypted", "packet: it looks encrypted, and encryption is not configured")
        raise WireError("; ".join(unpacking.errors[:3]))
    return Packet(tuple(unpacking.messages), tuple(unpacking.errors))


def _looks_sealed(data: bytes) -> bool:
    """Whether a packet that could not be read begins as an encrypted one: its version would be a message type, but no map follows."""
    return len(data) >= OVERHEAD and data[0] <= 1 and not (0x80 <= data[1] <= 0x8F or data[1] in (0xDE, 0xDF))


class _Unpacking:
    """One packet under way: what was found, and what is left of its allowance."""

    __slots__ = ("_compressed_left", "_expanded_left", "errors", "messages")

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.errors: list[str] = []
        self._compressed_left = PACKET_COMPRESSED
        self._expanded_left = PACKET_EXPANDED

    def part(self, data: bytes, depth: int) -> None:
        """One message or layer; what is wrong with it becomes an error, and the others go on."""
        try:
            if not data:
                raise WireError("packet: a part without a type byte")
            if data[0] in (COMPOUND, COMPRESS) and depth == 0:
                raise WireError(f"packet: more than {PACKET_DEPTH} layers")
            if data[0] == COMPOUND:
                self._compound(data, depth - 1)
            elif data[0] == COMPRESS:
                self.part(self._expand(data), depth - 1)
            else:
                self.messages.append(decode_message(data))
        except WireError as error:
            self.errors.append(str(error))

    def _compound(self, data: bytes, depth: int) -> None:
        count = data[1] if len(data) > 1 else 0
        start = COMPOUND_HEADER + COMPOUND_PART * count
        if len(data) < 2 or len(data) < start:
            raise WireError(f"compound: cut off among the lengths of {count} parts")
        for number in range(count):
            at = COMPOUND_HEADER + COMPOUND_PART * number
            end = start + int.from_bytes(data[at : at + 2], "big")
            if end > len(data):
                raise WireError(f"compound: the last {count - number} of {count} parts are cut off")
            if len(self.messages) + len(self.errors) >= PACKET_MESSAGES:
                raise WireError(f"packet: more than {PACKET_MESSAGES} messages")
            self.part(data[start:end], depth)
            start = end

    def _expand(self, data: bytes) -> bytes:
        packed = decode_compressed(data[1:])
        self._compressed_left -= len(packed)
        if self._compressed_left < 0:
            raise WireError(f"compress: more than {PACKET_COMPRESSED} compressed bytes in one packet")
        plain = lzw.decompress(packed, self._expanded_left)
        self._expanded_left -= len(plain)
        return plain


def decode_compressed(body: bytes) -> bytes:
    """The compressed bytes in the body of a compress message. Raises WireError for an algorithm other than LZW."""
    fields = Reader(body, "compress").struct(_COMPRESS)
    if fields.get(b"Algo", 0) != 0:
        raise WireError(f"compress: algorithm {fields[b'Algo']} is not known (0 is LZW)")
    return fields.get(b"Buf") or b""
