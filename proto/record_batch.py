"""The record batch: what a publish becomes in the Raft log, in the buffer and on the way to a member that follows by stream.

One Raft entry carries all the records that waited for a flush, one batch a topic, as msgpack (new family: `str` and `bin`):

    entry  = [1, batch...]                      1 is the format
    batch  = [topic, time, [record...]]         time: milliseconds since the epoch, when it was packed
    record = data | [data, message id | nil, headers | nil]

`bin` and not the old raw family: an entry's data is opaque to every Raft server, Go's included, so nothing forces the old one, and with the new one the
decoder itself tells bytes from text. The batch is the unit: its bytes are cut out of the entry and stored, streamed and read again without being packed anew.

The first byte of an entry's data tells kinds apart: an array (`90`-`9f`, `dc`, `dd`) is a record batch, `{` a roster command (`roster.py`). Others
may come with later versions: they are skipped and counted, never an error.

Whether an entry is valid decides which sequence numbers come after it. So the decoder's verdict depends on the bytes alone, never on a setting, and its
limits are part of the format.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, Final, Literal, NamedTuple

import msgpack

from coterie.proto.errors import WireError

FORMAT: Final = 1
MAX_NAME: Final = 255  # bytes of UTF-8 in a topic, and in a message id
MAX_RECORDS: Final = 65_536  # in one batch; bounds what a claimed length can make the decoder reserve
MAX_TIME: Final = (1 << 63) - 1

EntryKind = Literal["batch", "roster", "unknown"]
Record = Any  # bytes, or [bytes, str | None, dict[str, str] | None]

_ONE_BATCH: Final = bytes((0x92, FORMAT))  # how an entry with one batch begins
_ARRAY16: Final = struct.Struct(">BHB")
_PLAIN: Final = {bytes}
_BROKEN: Final = (ValueError, TypeError, OverflowError, msgpack.OutOfData)


class Batch(NamedTuple):
    """The records of one topic in one entry. `data` are its bytes; `plain`: every record is bare data, without message id and headers."""

    topic: str
    time: int
    records: list[Record]
    data: bytes
    plain: bool


def kind_of(data: bytes) -> EntryKind:
    """What an entry's data is, by its first byte."""
    first = data[0] if data else 0
    if 0x90 <= first <= 0x9F or first in (0xDC, 0xDD):
        return "batch"
    return "roster" if first == 0x7B else "unknown"


def encode_batch(topic: str, time: int, records: list[Record]) -> Batch:
    """Pack the records of one topic. The caller has checked them (`encode` and `decode` agree on every valid batch). What no clock should say is brought within the
    bounds here: this batch is numbered without being decoded where it is made, and nobody else may refuse it."""
    time = min(max(time, 0), MAX_TIME)
    data: bytes = msgpack.packb([topic, time, records], use_bin_type=True)
    return Batch(topic, time, records, data, set(map(type, records)) <= _PLAIN)


def encode_entry(batches: Sequence[bytes]) -> bytes:
    """The data of one Raft entry, from the bytes of 1 to 65,534 batches."""
    length = len(batches) + 1
    head = bytes((0x90 | length, FORMAT)) if length < 16 else _ARRAY16.pack(0xDC, length, FORMAT)
    return head + b"".join(batches)


def decode_entry(data: bytes) -> list[Batch]:
    """The batches of an entry in their order. WireError when the bytes are not exactly a valid entry; memory is bounded by their length."""
    if data.startswith(_ONE_BATCH):  # as nearly all entries of a log of single records
        rest = data[len(_ONE_BATCH) :]
        try:
            value = _whole(rest)
        except _BROKEN:
            return decode_patiently(data)
        return [_checked(value, rest)]
    return decode_patiently(data)


def decode_patiently(data: bytes) -> list[Batch]:
    """The same, whatever it is: what this refuses is refused."""
    unpacker = _unpacker(data)
    try:
        length = unpacker.read_array_header()
        form = unpacker.unpack() if length else None
        if form != FORMAT or form.__class__ is not int:
            raise WireError(f"record batch: format {form!r}; this version knows {FORMAT}")
        if length < 2:
            raise WireError("record batch: an entry without a batch")
        batches, start = [], unpacker.tell()
        for _ in range(length - 1):
            value = unpacker.unpack()
            end = unpacker.tell()
            batches.append(_checked(value, data[start:end]))
            start = end
    except _BROKEN as error:
        raise WireError(f"record batch: {error or type(error).__name__}") from None
    if start != len(data):
        raise WireError(f"record batch: {len(data) - start} bytes after its end")
    return batches


def decode_batch(data: bytes) -> Batch:
    """One batch, as it stands in an entry, in the buffer and on the stream. WireError when it is not exactly that."""
    try:
        value = _whole(data)
    except _BROKEN as error:
        raise WireError(f"record batch: {error or type(error).__name__}") from None
    return _checked(value, data)


def _whole(data: bytes) -> Any:
    """The one value that these bytes are, by the limits of `_unpacker`, which takes several times as long to make as this takes. Raises one of `_BROKEN`."""
    return msgpack.unpackb(data, raw=False, strict_map_key=True, max_array_len=MAX_RECORDS, max_map_len=MAX_RECORDS)


def _unpacker(data: bytes) -> Any:
    unpacker = msgpack.Unpacker(
        raw=False, strict_map_key=True, max_buffer_size=max(1, len(data)), max_array_len=MAX_RECORDS, max_map_len=MAX_RECORDS
    )
    unpacker.feed(data)
    return unpacker


def _checked(value: Any, data: bytes) -> Batch:
    if value.__class__ is not list or len(value) != 3:
        raise WireError("record batch: a batch is [topic, time, records]")
    topic, time, records = value
    if topic.__class__ is not str or not 1 <= len(topic.encode()) <= MAX_NAME:
        raise WireError(f"record batch: topic {topic!r:.80}; a topic is 1 to {MAX_NAME} bytes of UTF-8")
    if time.__class__ is not int or not 0 <= time <= MAX_TIME:
        raise WireError(f"record batch: time {time!r:.80} of {topic!r}; milliseconds since the epoch are wanted")
    if records.__class__ is not list or not records:
        raise WireError(f"record batch: no records for {topic!r}")
    plain = set(map(type, records)) == _PLAIN
    if not plain:
        for record in records:
            if record.__class__ is not bytes:
                _check_record(topic, record)
    return Batch(topic, time, records, data, plain)


def _check_record(topic: str, record: Any) -> None:
    if record.__class__ is not list or len(record) != 3 or record[0].__class__ is not bytes:
        raise WireError(f"record batch: a record of {topic!r} is neither data nor [data, message id, headers]")
    _, message_id, headers = record
    if message_id is not None and (message_id.__class__ is not str or not 1 <= len(message_id.encode()) <= MAX_NAME):
        raise WireError(f"record batch: message id {message_id!r:.80} of {topic!r}; it is 1 to {MAX_NAME} bytes of UTF-8")
    if headers is not None and (
        headers.__class__ is not dict or not all(k.__class__ is str and v.__class__ is str for k, v in headers.items())
    ):
        raise WireError(f"record batch: headers of a record of {topic!r} are not a map of strings")
