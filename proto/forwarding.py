"""What a follower sends to its leader on the forwarding session, and what comes back.

Forward: 10 bytes, then one record batch (`record_batch`), the records of one topic that waited together:

    format (1) | flags (1; bit 0: answer at the leader's append) | epoch (4) | wait (4, milliseconds)          big-endian

epoch: the follower counts it up, per topic, after the leader refused a batch: the leader refuses every later one of the old epoch, so that nothing
overtakes what was refused. wait: how long the leader may hold the batch for room in the topic's window before it refuses it.

Answer of a batch that is in the log: msgpack `[index, first seq, [[position, seq, index]...]]`. The records got first seq, first seq + 1, … in their
order; those at the listed positions were duplicates (message id) of an earlier record, and took no number. first seq is 0 when the answer came at the append.

Question, on the same session, of a node whose publish waits for all members (acks="all"):

    format (2) | msgpack [topic, seq, wait (milliseconds), [member id…]]

Its answer: msgpack [seq…], up to where each of these members has acknowledged the topic, in their order, 0 for none. It comes once all of them have `seq`, or when
`wait` is over. A leader that knows no questions answers with InvalidRequest, as to every other format.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgpack

from coterie.proto.errors import WireError
from coterie.proto.record_batch import MAX_NAME, MAX_RECORDS, Batch, decode_batch

FORMAT: Final = 1
MAX_MEMBERS: Final = 4096  # in a question
MAX_WAIT: Final = 0xFFFF_FFFF  # milliseconds

_HEAD: Final = struct.Struct(">BBII")
_EARLY: Final = 1
_QUESTION: Final = b"\x02"  # its format

Duplicates = dict[int, tuple[int, int]]  # position in the batch -> (seq, index) of the record it repeats


class Forward(NamedTuple):
    batch: Batch
    early: bool
    epoch: int
    wait: float  # seconds


class Answer(NamedTuple):
    index: int  # type: ignore[assignment]  # the Raft index; tuple.index() is never wanted here
    first_seq: int
    duplicates: Duplicates


class Question(NamedTuple):
    topic: str
    seq: int
    members: tuple[str, ...]
    wait: float  # seconds


def encode_forward(batch: bytes, early: bool, epoch: int, wait: float) -> bytes:
    milliseconds = min(MAX_WAIT, max(0, int(wait * 1000)))
    return _HEAD.pack(FORMAT, _EARLY if early else 0, epoch & 0xFFFF_FFFF, milliseconds) + batch


def decode_forward(data: bytes) -> Forward:
    """WireError for anything but a valid forward."""
    if len(data) <= _HEAD.size:
        raise WireError(f"forward: {len(data)} bytes are no batch")
    form, flags, epoch, wait = _HEAD.unpack_from(data)
    if form != FORMAT or flags > _EARLY:
        raise WireError(f"forward: format {form}, flags {flags}; this version knows format {FORMAT}, flag {_EARLY}")
    return Forward(decode_batch(data[_HEAD.size :]), bool(flags & _EARLY), epoch, wait / 1000)


def encode_answer(index: int, first_seq: int, duplicates: Duplicates | None) -> bytes:
    rows = [[position, seq, first] for position, (seq, first) in duplicates.items()] if duplicates else []
    packed: bytes = msgpack.packb([index, first_seq, rows])
    return packed


def decode_answer(data: bytes) -> Answer:
    """WireError for anything but a valid answer."""
    try:
        value = msgpack.unpackb(data, raw=False, max_array_len=min(len(data), MAX_RECORDS))
        index, first_seq, rows = value
        duplicates = {position: (seq, first) for position, seq, first in rows}
        numbers = [index, first_seq, *duplicates, *(n for pair in duplicates.values() for n in pair)]
    except (ValueError, TypeError) as error:
        raise WireError(f"answer to a forward: {error}") from None
    if not all(_is_number(number) for number in numbers):
        raise WireError("answer to a forward: an index, a seq and rows of three numbers are wanted")
    return Answer(index, first_seq, duplicates)


def is_question(data: bytes) -> bool:
    return data[:1] == _QUESTION


def encode_question(topic: str, seq: int, members: Sequence[str], wait: float) -> bytes:
    packed: bytes = msgpack.packb([topic, seq, min(MAX_WAIT, max(0, int(wait * 1000))), list(members)])
    return _QUESTION + packed


def decode_question(data: bytes) -> Question:
    """WireError for anything but a valid question."""
    try:
        if not is_question(data):
            raise ValueError("it does not begin as one")
        topic, seq, wait, members = msgpack.unpackb(data[1:], raw=False, max_array_len=MAX_MEMBERS)
        if not (isinstance(members, list) and all(map(_is_name, members)) and _is_name(topic) and _is_number(seq) and _is_number(wait)):
            raise ValueError("a topic, a seq, a wait and ids are wanted")
    except (ValueError, TypeError) as error:
        raise WireError(f"question about acknowledgements: {error}") from None
    return Question(topic, seq, tuple(members), min(wait, MAX_WAIT) / 1000)


def encode_acked(acked: Sequence[int]) -> bytes:
    packed: bytes = msgpack.packb(list(acked))
    return packed


def decode_acked(data: bytes, count: int) -> list[int]:
    """The answer to a question about `count` members. WireError for anything else."""
    try:
        acked = msgpack.unpackb(data, raw=False, max_array_len=MAX_MEMBERS)
    except (ValueError, TypeError) as error:
        raise WireError(f"answer to a question: {error}") from None
    if not isinstance(acked, list) or len(acked) != count or not all(map(_is_number, acked)):
        raise WireError(f"answer to a question: {count} numbers are wanted")
    return acked


def _is_name(value: Any) -> bool:
    return value.__class__ is str and 1 <= len(value.encode()) <= MAX_NAME


def _is_number(value: Any) -> bool:
    return value.__class__ is int and value >= 0
