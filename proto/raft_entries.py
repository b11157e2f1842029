"""The log entries of an AppendEntries request as bytes: the one codec that runs per entry.

Entries go through msgpack's C code in one call per batch. For reading, each map becomes a row of six columns while it is unpacked
(`itemgetter` as the object hook: no Python frame per entry), the columns are checked as columns, and the rows become entries. All of that is
the path of an entry as Go and we send it. Whatever looks different in any way (a missing or extra key, another form of the time, a wrong
type) goes through `gomsgpack.Reader` instead, entry by entry, some four times slower, and that path alone decides what is refused.

AppendedAt is the field in which Go cares about the family of a string: the 15 bytes as bin, str8 or raw16 close the connection.
Unpacked values do not show it, so the bytes are asked: every "AppendedAt" in them must be followed by the code of a short raw string of 15.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from operator import itemgetter
from typing import Any, Final

import msgpack

from coterie.proto.errors import WireError
from coterie.proto.gomsgpack import MALFORMED, MAX_UINT8, Reader, pack
from coterie.proto.gotime import from_payload, from_unix
from coterie.proto.raft_messages import Entry

# More entries than any sender puts into one request (Go refuses to be configured above 1024); it bounds what a few bytes per entry can cost.
MAX_ENTRIES: Final = 65_536

_WHERE: Final = "AppendEntries.Entries"
_NONE: Final = type(None)
columns: Final = itemgetter(b"Index", b"Term", b"Type", b"Data", b"Extensions", b"AppendedAt")
new_entry: Final = partial(tuple.__new__, Entry)
_SHORT_STRINGS: Final = range(0xA0, 0xC0)
_TIMESTAMPS: Final = {0xD6, 0xD7, 0xC7}


def encode_entries(entries: Sequence[Entry] | None) -> bytes:
    """The array alone, to be put into as many requests as there are followers (`raft_codec.encode_append`)."""
    if entries is None:
        return b"\xc0"
    return pack(
        [
            {"AppendedAt": appended_at or None, "Data": data, "Extensions": extensions, "Index": index, "Term": term, "Type": kind}
            for index, term, kind, data, extensions, appended_at in entries
        ]
    )


def decode_entries(segment: bytes) -> tuple[Entry, ...] | None:
    """The entries of one whole msgpack value; None for nil.

    Raises WireError for what a Go decoder refuses, for a nil entry (of which a Go node dies), and above MAX_ENTRIES.
    """
    reader = Reader(segment, _WHERE)
    if reader.is_nil(b""):
        return None
    count = reader.array(b"")
    if count > MAX_ENTRIES:
        raise WireError(f"{_WHERE}: {count} entries in one request, above {MAX_ENTRIES}")
    if count == 0:
        return ()
    usual = _decode_usual(segment, count)
    return usual if usual is not None else tuple(_decode_entry(reader) for _ in range(count))


class _Unusual(Exception):
    """Not in the form in which Go sends it: the patient path has to look."""


def _decode_usual(segment: bytes, count: int) -> tuple[Entry, ...] | None:
    """All entries at once, or None if any of them is not as Go writes it."""
    if segment.count(b"AppendedAt") != segment.count(b"AppendedAt\xaf"):
        return None

    def rows_only(rows: list[Any]) -> list[Any]:
        # A list inside an entry is seen here before it can grow into many: nothing is built that 40 bytes of input did not pay for.
        if len(rows) != count or type(rows[0]) is not tuple:
            raise _Unusual
        return rows

    try:
        rows = msgpack.unpackb(segment, raw=True, object_hook=columns, list_hook=rows_only)
    except (KeyError, _Unusual, *MALFORMED):
        return None
    if set(map(type, rows)) != {tuple}:
        return None
    indexes, terms, kinds, data, extensions, times = zip(*rows, strict=True)
    numbers_fit = (
        set(map(type, indexes)) == set(map(type, terms)) == set(map(type, kinds)) == {int}
        and min(indexes) >= 0
        and min(terms) >= 0
        and min(kinds) >= 0
        and max(kinds) <= MAX_UINT8
    )
    strings_fit = set(map(type, data)) | set(map(type, extensions)) <= {bytes, _NONE}
    times_fit = set(map(type, times)) == {bytes} and set(map(len, times)) == {15} and b"".join(times)[::15] == b"\x01" * count
    return tuple(map(new_entry, rows)) if numbers_fit and strings_fit and times_fit else None


def usual_entry(entry: Entry) -> bool:
    """Whether each field of one decoded entry has the type in which Go writes it. The form of its time is for the caller to see in the bytes."""
    index, term, kind, data, extensions, appended_at = entry
    return (
        type(index) is type(term) is type(kind) is int
        and index >= 0
        and term >= 0
        and 0 <= kind <= MAX_UINT8
        and (data is None or type(data) is bytes)
        and (extensions is None or type(extensions) is bytes)
        and type(appended_at) is bytes
        and len(appended_at) == 15
    )


def _decode_entry(reader: Reader) -> Entry:
    if reader.is_nil(b""):
        raise WireError(f"{_WHERE}: a nil entry")
    fields = reader.struct(_SCHEMA)
    return Entry(
        fields.get(b"Index", 0),
        fields.get(b"Term", 0),
        fields.get(b"Type", 0),
        fields.get(b"Data"),
        fields.get(b"Extensions"),
        fields.get(b"AppendedAt", b""),
    )


def _appended_at(reader: Reader, name: bytes) -> bytes:
    if reader.is_nil(name):
        return b""
    form = reader.time_form(name)
    if form in _TIMESTAMPS:
        seconds, nanoseconds = reader.extension(name)
        return from_unix(seconds * 1_000_000_000 + nanoseconds)
    if form not in _SHORT_STRINGS:
        raise WireError(f"{_WHERE}.AppendedAt: code {form:#04x}; Go reads a time only from a short raw string, a timestamp or nil")
    return from_payload(reader.blob(name) or b"")


_SCHEMA: Final = {
    b"AppendedAt": _appended_at,
    b"Data": Reader.blob,
    b"Extensions": Reader.blob,
    b"Index": Reader.uint,
    b"Term": Reader.uint,
    b"Type": Reader.uint8,
}
