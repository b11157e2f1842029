"""Go's `time.Time` as bytes: the `AppendedAt` of a log entry.

Go's `Time.MarshalBinary` writes 15 bytes: version 1, signed seconds since 0001-01-01 (8, big endian), nanoseconds (4), zone in minutes
(2; -1 means UTC). A zone with odd seconds makes it version 2 with one byte more. A sender with go-msgpack's new time format writes the
msgpack timestamp payloads of 4, 8 or 12 bytes instead; those are turned into the 15 bytes, so that the rest of the house knows one form.
"""

from __future__ import annotations

import struct
from typing import Final

from coterie.proto.errors import WireError

# Seconds from 0001-01-01, where Go's clock starts, to 1970-01-01.
UNIX_EPOCH: Final = 62_135_596_800
_UTC: Final = -1
_BINARY: Final = struct.Struct(">BqIh")
_NANOSECONDS: Final = 1_000_000_000


def from_unix(nanoseconds: int) -> bytes:
    """The 15 bytes, in UTC, of a time given as nanoseconds since 1970 (`time.time_ns()`)."""
    seconds, fraction = divmod(nanoseconds, _NANOSECONDS)
    return _BINARY.pack(1, seconds + UNIX_EPOCH, fraction, _UTC)


def to_unix(appended_at: bytes) -> int | None:
    """Nanoseconds since 1970, or None for b"" and for Go's zero time, which both say that nobody set it."""
    if not appended_at:
        return None
    _, seconds, fraction, _ = _BINARY.unpack_from(appended_at)
    return None if seconds == fraction == 0 else (seconds - UNIX_EPOCH) * _NANOSECONDS + fraction


def is_binary(data: bytes) -> bool:
    """Whether `data` is what `Time.MarshalBinary` gives."""
    return (len(data) == 15 and data[0] == 1) or (len(data) == 16 and data[0] == 2)


def from_payload(data: bytes) -> bytes:
    """The time in any of the forms in which a Go decoder takes it, as 15 or 16 bytes.

    Raises WireError for every other length or version, and for a fraction of a second or more seconds than Go's clock has.
    """
    if is_binary(data):
        return data
    if len(data) == 4:
        seconds, fraction = int.from_bytes(data, "big"), 0
    elif len(data) == 8:
        packed = int.from_bytes(data, "big")
        seconds, fraction = packed & ((1 << 34) - 1), packed >> 34
    elif len(data) == 12:
        fraction, seconds = struct.unpack(">Iq", data)
    else:
        raise WireError(f"AppendedAt: {len(data)} bytes, version {data[0] if data else 'none'}, are no time that Go writes")
    if fraction >= _NANOSECONDS or seconds + UNIX_EPOCH >= 1 << 63:
        raise WireError(f"AppendedAt: {seconds} s and {fraction} ns are outside of Go's clock")
    return _BINARY.pack(1, seconds + UNIX_EPOCH, fraction, _UTC)
