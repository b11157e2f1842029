"""A backup of a node's state in one file: a snapshot, and what the Raft log holds beyond it (docs/formats.md, "Backup").

    magic, then frames (`frames`)

    1 header    [1, {…}]                    first, once: whose state it is, of when, and who was in the quorum
    2 snapshot  [2, bytes]                  a piece of the snapshot (`snapshot.py`), in order
    3 entries   [3, [entry, …]]             of the log, consecutive, from the one after the snapshot's end on
    9 end       [9, frames before it]       last, once: without it the backup is cut off

    entry: [index, term, kind, data | nil, extensions | nil, appended_at]

`scan` reads all of it and checks every frame before anything of it is believed, and remembers where the pieces are; what they say is checked by who knows
what they mean.
Further keys of the header are left alone; a frame of a kind that is not known makes the whole unreadable.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from typing import IO, Any, Final

import attrs

from coterie.proto.errors import WireError
from coterie.proto.frames import START_BYTES, decode_body, encode_frame, read_frame
from coterie.proto.raft_messages import Configuration, Entry, Server

MAGIC: Final = b"coterie backup\x01\n"
HEADER, SNAPSHOT, ENTRIES, END = 1, 2, 3, 9
PIECE: Final = 1 << 20  # bytes of the snapshot in a frame, and about as many of entries

_NEXT: Final = {None: (HEADER,), HEADER: (SNAPSHOT,), SNAPSHOT: (SNAPSHOT, ENTRIES, END), ENTRIES: (ENTRIES, END)}


@attrs.define(frozen=True)
class Header:
    """node_id: whose state it was. created: when it was taken, ISO 8601 in UTC. version: of coterie. online: taken from a running node. term: the node's;
    applied: (index, term) where
    the snapshot ends; last: (index, term) of the last entry in the backup. configuration: the one in force there, of the entry configuration_index. cursors:
    per topic the next seq
    for the node's handler."""

    node_id: str
    created: str
    version: str
    online: bool
    term: int
    applied: tuple[int, int]
    last: tuple[int, int]
    configuration_index: int
    configuration: Configuration
    cursors: dict[str, int] = attrs.field(factory=dict)


# -- writing ----------------------------------------------------------------------------------------------------------------------


def frames(header: Header, snapshot: IO[bytes], entries: Iterable[Entry] = ()) -> Iterator[bytes]:
    """The whole file, piece by piece. snapshot: at its beginning."""
    yield MAGIC
    yield encode_frame(HEADER, _document(header))
    count = 1
    while piece := snapshot.read(PIECE):
        yield encode_frame(SNAPSHOT, piece)
        count += 1
    for some in _portions(entries):
        yield encode_frame(ENTRIES, some)
        count += 1
    yield encode_frame(END, count)


def _document(header: Header) -> dict[str, Any]:
    document = attrs.asdict(header, recurse=False)
    document["configuration"] = [list(server) for server in header.configuration.servers]
    return document


def _portions(entries: Iterable[Entry]) -> Iterator[list[list[Any]]]:
    some: list[list[Any]] = []
    size = 0
    for entry in entries:
        some.append(list(entry))
        size += len(entry.data or b"") + 64
        if size >= PIECE:
            yield some
            some, size = [], 0
    if some:
        yield some


# -- reading ----------------------------------------------------------------------------------------------------------------------


class Backup:
    """A backup whose every frame was read and found whole, in the file `stream`, which must stay open."""

    def __init__(self, stream: IO[bytes], header: Header, pieces: list[tuple[int, int]], portions: list[tuple[int, int]]) -> None:
        self.header = header
        self._stream, self._pieces, self._portions = stream, pieces, portions

    def snapshot(self) -> IO[bytes]:
        """The snapshot as a file of its own, at its beginning; it can be read again from there."""
        return io.BufferedReader(_Pieces(self._stream, self._pieces))

    def entries(self) -> Iterator[Entry]:
        """Raises WireError."""
        for where in self._portions:
            for values in _body(self._stream, where)[1]:
                yield _entry(values)


def scan(stream: IO[bytes]) -> Backup:
    """Read all of it, from where the stream stands. Raises WireError, which says what is wrong with it; OSError."""
    if stream.read(len(MAGIC)) != MAGIC:
        raise WireError("this is no backup of coterie, or one of a later format")
    header: Header | None = None
    pieces: list[tuple[int, int]] = []
    portions: list[tuple[int, int]] = []
    before: int | None = None
    count = 0
    while before != END:
        where = stream.tell()
        kind, value, length = _next(stream, count)
        if kind not in _NEXT.get(before, ()):
            raise WireError(f"backup: frame {count} is of kind {kind!r}, which does not belong there, or which this version does not know")
        if kind == HEADER:
            header = _header(value)
        elif kind == SNAPSHOT:
            pieces.append((where, length))
        elif kind == ENTRIES:
            portions.append((where, length))
        elif value != count:
            raise WireError(f"backup: {count} frames came of {value}")
        before = kind
        count += 1
    if stream.read(1):
        raise WireError("backup: something follows its end")
    assert header is not None
    return Backup(stream, header, pieces, portions)


def _next(stream: IO[bytes], number: int) -> tuple[Any, Any, int]:
    """(kind, value, length of the body)."""
    packed = read_frame(stream, "backup", number)
    kind, value = _opened(packed, number)
    return kind, value, len(packed)


def _opened(packed: bytes, number: int) -> tuple[Any, Any]:
    values = decode_body(packed, "backup", number)
    if len(values) != 2:
        raise WireError(f"backup: frame {number} is not in the form of a frame")
    kind, value = values
    if {HEADER: dict, SNAPSHOT: bytes, ENTRIES: list, END: int}.get(kind) is not value.__class__:
        raise WireError(f"backup: frame {number} is of kind {kind!r}, which this version does not know, or not in its form")
    return kind, value


def _body(stream: IO[bytes], where: tuple[int, int]) -> tuple[Any, Any]:
    """A frame that `scan` has found whole."""
    stream.seek(where[0] + START_BYTES)
    return _opened(stream.read(where[1]), -1)


def _header(document: dict[str, Any]) -> Header:
    fields = {field.name: document.get(field.name) for field in attrs.fields(Header)}
    plain = {"node_id": str, "created": str, "version": str, "online": bool, "term": int, "configuration_index": int, "cursors": dict}
    for name, kind in plain.items():
        if fields[name].__class__ is not kind:
            raise WireError(f"backup: {name}={fields[name]!r} in its header is no {kind.__name__}")
    for name in ("applied", "last"):
        if [value.__class__ for value in fields[name] or ()] != [int, int]:
            raise WireError(f"backup: {name}={fields[name]!r} in its header is no index and term")
        fields[name] = tuple(fields[name] or ())
    servers = fields["configuration"]
    if not isinstance(servers, list) or any([value.__class__ for value in server] != [str, str, int] for server in servers):
        raise WireError("backup: the configuration in its header is not in its form")
    fields["configuration"] = Configuration(tuple(Server(*server) for server in servers))
    if any(topic.__class__ is not str or seq.__class__ is not int for topic, seq in document["cursors"].items()):
        raise WireError("backup: the cursors in its header are not in their form")
    return Header(**fields)  # type: ignore[arg-type]


def _entry(values: Any) -> Entry:
    if isinstance(values, list) and len(values) == 6:
        index, term, kind, data, extensions, appended_at = values
        numbers = all(value.__class__ is int and 0 <= value < 1 << 63 for value in (index, term, kind))
        optional = all(value is None or value.__class__ is bytes for value in (data, extensions))
        if numbers and optional and appended_at.__class__ is bytes:
            return Entry(index, term, kind, data, extensions, appended_at)
    raise WireError("backup: an entry is not in its form")


class _Pieces(io.RawIOBase):
    """What the frames of the snapshot hold, as one file that can be read from its beginning."""

    def __init__(self, stream: IO[bytes], pieces: list[tuple[int, int]]) -> None:
        self._stream, self._pieces = stream, pieces
        self._next, self._left = 0, memoryview(b"")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if (offset, whence) != (0, io.SEEK_SET):
            raise io.UnsupportedOperation("only to the beginning")
        self._next, self._left = 0, memoryview(b"")
        return 0

    def readinto(self, buffer: Any) -> int:
        if not self._left and self._next < len(self._pieces):
            self._left = memoryview(_body(self._stream, self._pieces[self._next])[1])
            self._next += 1
        some = self._left[: len(buffer)]
        buffer[: len(some)] = some
        self._left = self._left[len(some) :]
        return len(some)
