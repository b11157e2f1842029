"""How the Raft log stands on disk, byte by byte (docs/formats.md, "Raft log"): pure functions from values to records and back.

A record is sealed (CRC-32 over key and body, see `lmdb_env`); packing inlines the seal, since it runs once for every entry of the log.
All numbers are big-endian, so that keys sort as the indexes do.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from typing import Final

from coterie.actors.raft.log import Doubt, HardState, SnapshotMark
from coterie.proto.errors import WireError
from coterie.proto.raft_codec import decode_configuration, encode_configuration
from coterie.proto.raft_messages import Entry

# The first byte of an entry's body: the record version in the low four bits, the flags above.
_VERSION: Final = 1
_NIL_DATA: Final = 0x10
_EXTENDED: Final = 0x20  # extensions are there, if only as an empty value

_INDEX = struct.Struct(">Q")
_CRC = struct.Struct(">I")
_HEAD = struct.Struct(">BBBIQ")  # version and flags, kind, length of appended_at, length of extensions, term
_HARD_STATE = struct.Struct(">BQ")  # version, term; then voted_for
_MARK = struct.Struct(">BQQQ")  # version, index, term, index of the configuration; then the configuration
_START = struct.Struct(">BQQ")  # version, first index, term of the entry before it

KEY_HARD_STATE: Final = b"hard_state"
KEY_START: Final = b"start"
KEY_SNAPSHOT: Final = b"snapshot"
KEY_DOUBT: Final = b"doubt"

index_key = _INDEX.pack


class Damaged(ValueError):
    """The record of an entry is not what was stored."""

    def __init__(self, index: int) -> None:
        super().__init__(f"entry {index}")
        self.index = index


def key_index(key: bytes) -> int:
    index: int = _INDEX.unpack(key)[0]
    return index


def pack_entries(entries: Iterable[Entry], first: int) -> list[tuple[bytes, bytes]]:
    """(key, sealed value) of consecutive entries from index `first` on. ValueError for a gap, or a field that the format cannot hold."""
    crc32, pack_index, pack_head, pack_crc = zlib.crc32, _INDEX.pack, _HEAD.pack, _CRC.pack
    records = []
    expected = first
    like, prefix = (-1, -1, b""), b""  # what the entries of a batch have in common is packed once
    try:
        for index, term, kind, data, extensions, appended_at in entries:
            if index != expected:
                raise ValueError(
                    f"entry {index} where {expected} must follow: the entries of one append are consecutive and continue the log"
                )
            expected += 1
            if extensions is None and data is not None:
                if (term, kind, appended_at) != like:
                    like, prefix = (term, kind, appended_at), pack_head(_VERSION, kind, len(appended_at), 0, term) + appended_at
                body = prefix + data
            else:
                flags = _VERSION | (_NIL_DATA if data is None else 0) | (0 if extensions is None else _EXTENDED)
                extensions = extensions or b""
                body = b"".join((pack_head(flags, kind, len(appended_at), len(extensions), term), appended_at, extensions, data or b""))
            key = pack_index(index)
            records.append((key, pack_crc(crc32(body, crc32(key))) + body))
    except struct.error as error:
        raise ValueError(f"entry {expected - 1}: {error}") from error
    return records


def unpack_entry(index: int, body: bytes) -> Entry:
    """The entry from the body of its record. ValueError for a version or a shape that this code does not know."""
    flags, kind, appended_length, extensions_length, term = _HEAD.unpack_from(body)
    if flags & 0x0F != _VERSION:
        raise ValueError(f"record version {flags & 0x0F} is not known")
    start = _HEAD.size + appended_length
    appended_at = body[_HEAD.size : start]
    if not flags & _EXTENDED:
        return Entry(index, term, kind, None if flags & _NIL_DATA else body[start:], None, appended_at)
    end = start + extensions_length
    return Entry(index, term, kind, None if flags & _NIL_DATA else body[end:], body[start:end], appended_at)


def unpack_records(records: Iterable[tuple[bytes, bytes]], first: int, last: int, max_bytes: int) -> list[Entry]:
    """The entries of consecutive records from index `first` on: to `last`, to `max_bytes` of data (at least one), or to where the next record is not there.
    Checked and unpacked in one go, since it runs for every entry that a follower catches up with. `Damaged` for one that is not what was stored."""
    crc32, pack_index, pack_crc, unpack_head, size_of_head = zlib.crc32, _INDEX.pack, _CRC.pack, _HEAD.unpack_from, _HEAD.size
    entries: list[Entry] = []
    index, size = first, 0
    for key, value in records:
        if key != pack_index(index):
            break
        body = value[4:]
        if value[:4] != pack_crc(crc32(body, crc32(key))):
            raise Damaged(index)
        try:
            flags, kind, appended_length, _, term = unpack_head(body)
            if flags == _VERSION:
                start = size_of_head + appended_length
                entry = Entry(index, term, kind, body[start:], None, body[size_of_head:start])
            else:
                entry = unpack_entry(index, body)
        except (ValueError, struct.error) as error:
            raise Damaged(index) from error
        entries.append(entry)
        size += len(entry[3] or b"")
        if index == last or size >= max_bytes:
            break
        index += 1
    return entries


def pack_hard_state(hard_state: HardState) -> bytes:
    return _HARD_STATE.pack(_VERSION, hard_state.term) + hard_state.voted_for.encode()


def unpack_hard_state(body: bytes) -> HardState:
    version, term = _HARD_STATE.unpack_from(body)
    if version != _VERSION:
        raise ValueError(f"record version {version} is not known")
    return HardState(term, body[_HARD_STATE.size :].decode())


def pack_snapshot(index: int, term: int) -> bytes:
    """The last entry that is in the state machine alone."""
    return _START.pack(_VERSION, index, term)


def pack_mark(mark: SnapshotMark) -> bytes:
    """What is kept beside a state machine that was made of a snapshot."""
    return _MARK.pack(_VERSION, mark.index, mark.term, mark.configuration_index) + encode_configuration(mark.configuration)


def unpack_mark(body: bytes) -> SnapshotMark:
    """ValueError when it is none of ours."""
    try:
        version, index, term, configuration_index = _MARK.unpack_from(body)
        configuration = decode_configuration(body[_MARK.size :])
    except (struct.error, WireError) as error:
        raise ValueError(f"the mark of a snapshot: {error}") from error
    if version != _VERSION:
        raise ValueError(f"record version {version} is not known")
    return SnapshotMark(index, term, configuration_index, configuration)


def pack_doubt(doubt: Doubt) -> bytes:
    """What was lost and is not made up for."""
    return _START.pack(_VERSION, doubt.last, doubt.term)


def unpack_doubt(body: bytes) -> Doubt:
    return Doubt(*unpack_start(body))


def pack_start(first_index: int, previous_term: int) -> bytes:
    return _START.pack(_VERSION, first_index, previous_term)


def unpack_start(body: bytes) -> tuple[int, int]:
    """(first index, term of the entry before it)."""
    version, first_index, previous_term = _START.unpack(body)
    if version != _VERSION:
        raise ValueError(f"record version {version} is not known")
    return first_index, previous_term
