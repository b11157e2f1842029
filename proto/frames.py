"""Frames of a file that is written once and read whole: a backup, a snapshot.

    length (4 bytes), CRC-32 of the body (4 bytes), body; big-endian
    body: msgpack [kind, …]

Whoever reads them says what a frame of each kind holds, and which may follow which.
"""

from __future__ import annotations

import struct
import zlib
from typing import IO, Any, Final

import msgpack

from coterie.proto.errors import WireError

MAX_FRAME: Final = 64 << 20

_START = struct.Struct(">II")
START_BYTES: Final = _START.size


def encode_frame(kind: int, *values: object) -> bytes:
    body: bytes = msgpack.packb([kind, *values], use_bin_type=True)
    return _START.pack(len(body), zlib.crc32(body)) + body


def read_frame(stream: IO[bytes], what: str, number: int) -> bytes:
    """The body of the frame where the stream stands, whole. what: the file's kind, for the text of an error; number: the frame's. Raises WireError."""
    start = stream.read(START_BYTES)
    if len(start) < START_BYTES:
        raise WireError(f"{what}: cut off after {number} frames")
    length, crc = _START.unpack(start)
    if length > MAX_FRAME:
        raise WireError(f"{what}: frame {number} has {length} bytes, above {MAX_FRAME}; it is damaged")
    body = stream.read(length)
    if len(body) < length:
        raise WireError(f"{what}: cut off in frame {number}")
    if zlib.crc32(body) != crc:
        raise WireError(f"{what}: frame {number} is damaged: its checksum does not fit")
    return body


def decode_body(body: bytes, what: str, number: int) -> list[Any]:
    """[kind, …]. Raises WireError."""
    try:
        values = msgpack.unpackb(body, raw=False, strict_map_key=True)
    except (ValueError, msgpack.UnpackException) as error:
        raise WireError(f"{what}: frame {number} does not decode: {error}") from None
    if not isinstance(values, list) or not values or values[0].__class__ is not int:
        raise WireError(f"{what}: frame {number} is not in the form of a frame")
    return values
