"""LZW as Go's `compress/lzw` speaks it (least significant bit first, 8-bit literals), which is memberlist's only compression.

Codes start at 9 bits; 256 clears the table, 257 ends, the first entry is 258; the width grows when the *next* code would not fit, up to
12 bits. The writer begins with a clear and sends another just before the table is full (next code 4095), so its bytes equal Go's. The
reader also takes streams that go on with a full table.

Both loops walk bytes, since a byte never completes more than one code: codes are at least 9 bits wide. Table entries are the expanded
strings; a full table of the worst input holds 8 MiB.
"""

from __future__ import annotations

from typing import Final

from coterie.proto.errors import WireError

_CLEAR: Final = 256
_END: Final = 257
_FIRST_WIDTH: Final = 9
_LAST_WIDTH: Final = 12
_TABLE_SIZE: Final = 1 << _LAST_WIDTH
_LITERALS: Final = [bytes((value,)) for value in range(256)] + [b"", b""]


def decompress(data: bytes, limit: int) -> bytes:
    """What `data` expands to. Raises WireError when it is cut, holds an impossible code or expands to more than `limit` bytes."""
    out = bytearray()
    table = _LITERALS.copy()
    width, mask, full = _FIRST_WIDTH, (1 << _FIRST_WIDTH) - 1, 1 << _FIRST_WIDTH
    previous: bytes | None = None
    bits = held = 0
    for byte in data:
        bits |= byte << held
        held += 8
        if held < width:
            continue
        code = bits & mask
        bits >>= width
        held -= width
        if code == _CLEAR:
            del table[258:]
            width, mask, full, previous = _FIRST_WIDTH, (1 << _FIRST_WIDTH) - 1, 1 << _FIRST_WIDTH, None
            continue
        if code == _END:
            return bytes(out)
        size = len(table)
        if code < size:
            current = table[code]
            if previous is not None and size < _TABLE_SIZE:
                table.append(previous + current[:1])
        elif code == size and previous is not None and size < _TABLE_SIZE:
            current = previous + previous[:1]  # the entry that this very code defines
            table.append(current)
        else:
            raise WireError(f"LZW: code {code} is not in a table of {size}, {len(out)} bytes into the text")
        out += current
        if len(out) > limit:
            raise WireError(f"LZW: expands to more than {limit} bytes")
        previous = current
        if len(table) == full and width < _LAST_WIDTH:
            width += 1
            mask, full = (1 << width) - 1, 1 << width
    raise WireError(f"LZW: cut off after {len(data)} bytes, without an end code")


def compress(data: bytes) -> bytes:
    """`data` as Go's `lzw.Writer` writes it, byte for byte."""
    out = bytearray()
    table: dict[int, int] = {}
    width, last, full = _FIRST_WIDTH, _END, 1 << _FIRST_WIDTH
    bits, held = _CLEAR, _FIRST_WIDTH
    code = -1
    for byte in data:
        if code < 0:
            code = byte
            continue
        longer = code << 8 | byte
        known = table.get(longer)
        if known is not None:
            code = known
            continue
        bits |= code << held
        held += width
        while held >= 8:
            out.append(bits & 0xFF)
            bits >>= 8
            held -= 8
        code = byte
        last += 1
        if last == full:
            width += 1
            full <<= 1
        if last == _TABLE_SIZE - 1:
            bits |= _CLEAR << held
            held += width
            table.clear()
            width, last, full = _FIRST_WIDTH, _END, 1 << _FIRST_WIDTH
        else:
            table[longer] = last
    if code >= 0:
        bits |= code << held
        held += width
        last += 1
        if last == _TABLE_SIZE - 1:
            bits |= _CLEAR << held
            held += width
            width = _FIRST_WIDTH
        elif last == full:
            width += 1
    bits |= _END << held
    held += width
    out += bits.to_bytes((held + 7) // 8, "little")
    return bytes(out)
