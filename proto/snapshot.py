"""The content of a snapshot: what publishing has made of the log up to one entry, as a stream of frames (docs/formats.md, "Snapshot").

    magic, then frames (`frames`)

    1 head    [1, Raft index, term]                              first, once
    2 topic   [2, name, next seq, first retained seq]            before its batches
    3 batch   [3, topic, first seq, count, Raft index, data]     of a topic in order, without a hole, up to its next seq
    4 ids     [4, [[message id, topic, seq, Raft index], …]]     the window of message ids, oldest first
    5 roster  [5, document]
    6 end     [6, frames before it]                              last, once: without it the snapshot is cut off
    7 state   [7, command index, Raft index, blocks, bytes]      of the handlers' state, where one is kept
    8 block   [8, block]                                         of it, in order (`command_state`)

A reader checks all of it before it believes any of it: `read` raises WireError at the first thing that is not so. A kind that it does not know is one of
them: leaving something out would make this state differ from the others'.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Any, Final, NamedTuple

from coterie.proto.errors import WireError
from coterie.proto.frames import decode_body, encode_frame, read_frame

__all__ = ["BATCH", "BLOCK", "END", "HEAD", "IDS", "MAGIC", "MAX_IDS", "ROSTER", "STATE", "TOPIC", "Frame", "encode_frame", "read"]

MAGIC: Final = b"coterie snapshot\x01\n"
HEAD, TOPIC, BATCH, IDS, ROSTER, END, STATE, BLOCK = range(1, 9)
MAX_IDS: Final = 1024  # of one frame

_SHAPES: Final[dict[int, tuple[type, ...]]] = {
    HEAD: (int, int),
    TOPIC: (str, int, int),
    BATCH: (str, int, int, int, bytes),
    IDS: (list,),
    ROSTER: (bytes,),
    END: (int,),
    STATE: (int, int, int, int),
    BLOCK: (bytes,),
}


class Frame(NamedTuple):
    kind: int
    values: tuple[Any, ...]


def read(stream: IO[bytes]) -> Iterator[Frame]:
    """The frames between the head's and the end's, those two included. Raises WireError."""
    if stream.read(len(MAGIC)) != MAGIC:
        raise WireError(
            "this is no snapshot of coterie (of a node of go-cluster, perhaps, which knows no topics), or one of a later format"
        )
    count = 0
    while True:
        frame = _next(stream, count)
        if (frame.kind == HEAD) != (count == 0):
            raise WireError(f"snapshot: frame {count} is of kind {frame.kind}")
        if frame.kind == END and frame.values[0] != count:
            raise WireError(f"snapshot: {count} frames came of {frame.values[0]}")
        yield frame
        if frame.kind == END:
            if stream.read(1):
                raise WireError("snapshot: something follows its end")
            return
        count += 1


def _next(stream: IO[bytes], number: int) -> Frame:
    values = decode_body(read_frame(stream, "snapshot", number), "snapshot", number)
    if values[0] not in _SHAPES:
        raise WireError(f"snapshot: frame {number} is of a kind that this version does not know")
    shape = _SHAPES[values[0]]
    if len(values) != len(shape) + 1 or any(value.__class__ is not kind for value, kind in zip(values[1:], shape, strict=True)):
        raise WireError(f"snapshot: frame {number} is not in the form of its kind, {values[0]}")
    if any(value.__class__ is int and not 0 <= value < 1 << 63 for value in values):
        raise WireError(f"snapshot: frame {number} holds a number out of range")
    return Frame(values[0], tuple(values[1:]))
