"""msgpack as Go's go-msgpack writes and reads structs; both protocols are built on it.

Writing: a struct is a map of its field names in byte order; strings and byte slices share the old raw family (never bin, never str8);
an empty slice pointer is nil; Go's signed integers above 127 take the signed codes. `pack` and `pack_signed` give those bytes.

Reading is as tolerant as Go's decoder, and no more: any order of keys, unknown keys skipped whatever they hold, missing keys and nil read as
zero, the last of two equal keys wins, strings of any family, integers of any width, an array of small integers for a byte slice. Not
tolerated: anything but a map (or nil) for a struct, a float, or a negative number for an unsigned field.

Memory is bounded by walking, not by trusting: `Reader` descends one key at a time and builds nothing for a key that the schema does not
know, so that a header which promises four billion elements, or a million empty maps, costs nothing. `Frames` finds the ends of values in
a stream with msgpack's C skipper, which builds nothing either. (Unpacking the whole value and looking at it afterwards is simpler,
and gives an attacker sixty bytes of ours for one of his.)
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NoReturn

import msgpack

from coterie.proto.errors import WireError

_NIL: Final = 0xC0
_STRINGS: Final = frozenset((*range(0xA0, 0xC0), 0xC4, 0xC5, 0xC6, 0xD9, 0xDA, 0xDB))
_ARRAYS: Final = frozenset((*range(0x90, 0xA0), 0xDC, 0xDD))
_MAPS: Final = frozenset((*range(0x80, 0x90), 0xDE, 0xDF))
_CONTAINERS: Final = _ARRAYS | _MAPS

MAX_UINT8: Final = (1 << 8) - 1
MAX_UINT16: Final = (1 << 16) - 1
MAX_UINT32: Final = (1 << 32) - 1
_INT64: Final = 1 << 63

# What msgpack raises over bad bytes: cut off, no such code, nested too deeply, a limit, a time that is none.
MALFORMED: Final = (ValueError, TypeError, OverflowError, msgpack.exceptions.UnpackException)


def pack(value: object) -> bytes:
    """`value` as Go writes it; a dict's keys must already stand in byte order. Every `bytes` and `str` becomes a raw string."""
    packed: bytes = msgpack.packb(value, use_bin_type=False)
    return packed


def pack_fields(fields: Mapping[str, object]) -> bytes:
    """The fields of a struct without the map's header: a struct can be put together from pieces. At most 15 of them."""
    return pack(fields)[1:]


def pack_signed(value: int) -> bytes:
    """An `int` of Go: the signed codes also where an unsigned one would be shorter."""
    if -32 <= value <= 127:
        return struct.pack(">b", value)
    for code, form, limit in ((0xD0, ">Bb", 1 << 7), (0xD1, ">Bh", 1 << 15), (0xD2, ">Bi", 1 << 31)):
        if -limit <= value < limit:
            return struct.pack(form, code, value)
    return struct.pack(">Bq", 0xD3, value)


def pack_array_header(count: int) -> bytes:
    """In front of `count` values that are packed already."""
    if count < 16:
        return bytes((0x90 + count,))
    return struct.pack(">BH", 0xDC, count) if count <= MAX_UINT16 else struct.pack(">BI", 0xDD, count)


def pack_map(*pieces: bytes, fields: int) -> bytes:
    """A struct from pieces that hold `fields` fields (at most 15) in key order."""
    return b"".join((bytes((0x80 + fields,)), *pieces))


class Reader:
    """Reads structs from `data`, which is complete; `where` names them in errors. Bytes after what is read are nobody's concern.

    A schema maps a key to the method that reads its value. All methods raise WireError, naming the field.
    """

    __slots__ = ("_data", "_unpacker", "_where")

    def __init__(self, data: bytes, where: str) -> None:
        self._data = data
        self._where = where
        self._unpacker = msgpack.Unpacker(raw=True, max_buffer_size=max(len(data), 1))
        self._unpacker.feed(data)

    def struct(self, schema: Schema) -> dict[bytes, Any]:
        """The fields that the schema knows and the bytes hold; {} for nil."""
        try:
            return self._struct(schema)
        except MALFORMED as error:
            self._malformed(b"", error)

    def tell(self) -> int:
        """How many bytes were read."""
        return int(self._unpacker.tell())

    def uint(self, name: bytes) -> int:
        value = self._scalar(name)
        if value is None:
            return 0
        if type(value) is not int or value < 0:
            self._refuse(name, f"{value!r:.40} is not an unsigned integer")
        return int(value)

    def uint8(self, name: bytes) -> int:
        return self._at_most(name, MAX_UINT8)

    def uint16(self, name: bytes) -> int:
        return self._at_most(name, MAX_UINT16)

    def uint32(self, name: bytes) -> int:
        return self._at_most(name, MAX_UINT32)

    def signed(self, name: bytes) -> int:
        value = self._scalar(name)
        if value is None:
            return 0
        if type(value) is not int or value >= _INT64:
            self._refuse(name, f"{value!r:.40} is not an integer of 64 bits")
        return int(value)

    def boolean(self, name: bytes) -> bool:
        value = self._scalar(name)
        if value not in (None, False, True, 0, 1) or type(value) is float:
            self._refuse(name, f"{value!r:.40} is not a boolean")
        return bool(value)

    def blob(self, name: bytes) -> bytes | None:
        """A byte slice; None for nil. An array of small integers is one too, for Go."""
        if self._first(name) in _ARRAYS:
            count = self.array(name)
            return bytes(self.uint8(name) for _ in range(count))
        value = self._scalar(name)
        if value is not None and type(value) is not bytes:
            self._refuse(name, f"{value!r:.40} is not a string")
        return value

    def text(self, name: bytes) -> str:
        """A name or an address. Go would take any bytes; what is not UTF-8 would break every log and label that shows it."""
        value = self.blob(name)
        try:
            return value.decode() if value else ""
        except UnicodeDecodeError:
            self._refuse(name, f"{value!r:.40} is not UTF-8")

    def segment(self, name: bytes) -> bytes:
        """The bytes of one value, whatever it is, for a decoder of its own."""
        start = self._unpacker.tell()
        try:
            self._unpacker.skip()
        except MALFORMED as error:
            self._malformed(name, error)
        return self._data[start : self._unpacker.tell()]

    def array(self, name: bytes) -> int:
        """The count of an array whose elements come next. Never more than there are bytes left."""
        if self._first(name) not in _ARRAYS:
            self._refuse(name, "not an array")
        try:
            count = int(self._unpacker.read_array_header())
        except MALFORMED as error:
            self._malformed(name, error)
        if count > len(self._data) - self._unpacker.tell():
            self._refuse(name, f"cut off: an array of {count} in {len(self._data)} bytes")
        return count

    def is_nil(self, name: bytes) -> bool:
        """Whether nil comes next; if so, it is read."""
        if self._first(name) != _NIL:
            return False
        self._unpacker.skip()
        return True

    def time_form(self, name: bytes) -> int:
        """The msgpack code of the value that comes next: the one place (AppendedAt) where the family of a string matters."""
        return self._first(name)

    def extension(self, name: bytes) -> tuple[int, int]:
        """A msgpack timestamp: seconds and nanoseconds since 1970."""
        value = self._scalar(name)
        if type(value) is not msgpack.Timestamp:
            self._refuse(name, f"{value!r:.40} is not a time")
        return int(value.seconds), int(value.nanoseconds)

    def _struct(self, schema: Schema) -> dict[bytes, Any]:
        if self.is_nil(b""):
            return {}
        if self._first(b"") not in _MAPS:
            self._refuse(b"", f"not a map at byte {self._unpacker.tell()}")
        values: dict[bytes, Any] = {}
        for _ in range(self._unpacker.read_map_header()):
            if self._first(b"") not in _STRINGS:
                self._refuse(b"", f"a key that is not a string at byte {self._unpacker.tell()}")
            key: bytes = self._unpacker.unpack()
            read = schema.get(key)
            if read is None:
                self._unpacker.skip()
            else:
                values[key] = read(self, key)
        return values

    def _first(self, name: bytes) -> int:
        position = self.tell()
        if position >= len(self._data):
            self._refuse(name, f"cut off after {len(self._data)} bytes")
        return self._data[position]

    def _scalar(self, name: bytes) -> Any:
        if self._first(name) in _CONTAINERS:
            self._refuse(name, "an array or a map where one value belongs")
        try:
            return self._unpacker.unpack()
        except MALFORMED as error:
            self._malformed(name, error)

    def _at_most(self, name: bytes, limit: int) -> int:
        value = self.uint(name)
        if value > limit:
            self._refuse(name, f"{value} is above {limit}")
        return value

    def _malformed(self, name: bytes, error: Exception) -> NoReturn:
        self._refuse(name, f"cut off or malformed near byte {self._unpacker.tell()} ({error or type(error).__name__})")

    def _refuse(self, name: bytes, what: str) -> NoReturn:
        field = name.decode("ascii", "replace")
        raise WireError(f"{self._where}{'.' if field else ''}{field}: {what}")


Schema = Mapping[bytes, Callable[[Reader, bytes], Any]]


class Frames:
    """Cuts a stream, fed in pieces of any size, into whole msgpack values and runs of raw bytes.

    Work is linear in the bytes, whatever the chunks: the skipper goes on where it stopped. It holds at most `limit` bytes of one unfinished value
    beside the piece just fed. `feed` small pieces (`PIECE`) and take out all there is before the next.
    """

    PIECE: Final = 1 << 18

    def __init__(self, limit: int, where: str) -> None:
        self._limit = limit
        self._where = where
        self._held = bytearray()
        self._skipper = msgpack.Unpacker(raw=True, max_buffer_size=2 * (limit + self.PIECE), read_size=1 << 14)
        self._mark: int | None = None

    def __len__(self) -> int:
        """Bytes fed and not yet taken out."""
        return len(self._held)

    def feed(self, piece: bytes | memoryview) -> None:
        self._held += piece
        self._skipper.feed(piece)

    def raw(self, most: int) -> bytes:
        """The next bytes as they are, at most `most`. Not in the middle of a value."""
        taken = bytes(self._held[:most])
        self._skipper.read_bytes(len(taken))
        del self._held[: len(taken)]
        return taken

    @classmethod
    def pieces(cls, data: bytes) -> Iterator[memoryview]:
        """`data` in pieces fit to be fed."""
        view = memoryview(data)
        return (view[start : start + cls.PIECE] for start in range(0, len(data), cls.PIECE))

    def value(self, most: int | None = None) -> bytes | None:
        """The next msgpack value, once it is whole. Raises WireError when it is malformed or longer than `most` (at most the limit)."""
        limit = self._limit if most is None else most
        if self._mark is None:
            self._mark = self._skipper.tell()
        try:
            self._skipper.skip()
        except msgpack.OutOfData:
            if len(self._held) > limit:
                raise WireError(f"{self._where}: a message of more than {limit} bytes") from None
            return None
        except MALFORMED as error:
            raise WireError(f"{self._where}: not msgpack ({error or type(error).__name__})") from error
        size = self._skipper.tell() - self._mark
        self._mark = None
        if size > limit:
            raise WireError(f"{self._where}: a message of {size} bytes, above {limit}")
        taken = bytes(self._held[:size])
        del self._held[:size]
        return taken
