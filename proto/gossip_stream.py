"""Gossip on TCP: one message per stream and direction, cut out of it as it arrives.

A dialled stream nests, outside in: label, encryption, compression, message; its answer has no label header, but when it is
encrypted it vouches for the label all the same. An encrypted part has its length in front; a push/pull does not: its header gives a number of members,
then the members, then the bytes of the user state. So a plain stream is read member by member, and nothing is held but what they say.

Whatever is too long is refused at the number that promises it, before it is waited for. Bytes after the message are nobody's concern.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Final

from coterie.proto import lzw
from coterie.proto.errors import Stranger, WireError
from coterie.proto.gomsgpack import Frames, Reader, Schema, pack, pack_map, pack_signed
from coterie.proto.gossip_bodies import (
    ACK,
    COMPRESS,
    ENCRYPT,
    ERR,
    PING,
    PUSH_PULL,
    USER,
    decode_message,
    decode_node_state,
    encode_message,
    encode_node_state,
)
from coterie.proto.gossip_codec import decode_compressed, encode_compressed
from coterie.proto.gossip_messages import Ack, Err, NodeState, Ping, PushPull, StreamMessage, User
from coterie.proto.gossip_security import LABEL_TYPE, OVERHEAD, PLAIN, Security, check_label

MAX_NODES: Final = 1_048_576
MAX_USER_STATE: Final = 20 << 20
MAX_USER_MESSAGE: Final = 20 << 20
MAX_SEALED: Final = 20 << 20
MAX_EXPANDED: Final = 40 << 20
# All members of one push/pull together; Go has no such bound, but 1,048,576 usual members fit.
MAX_MEMBERS_BYTES: Final = 160 << 20
_MAX_COMPRESSED: Final = MAX_SEALED
_MAX_VALUE: Final = 1 << 20

_PUSH_PULL: Final[Schema] = {b"Join": Reader.boolean, b"Nodes": Reader.signed, b"UserStateLen": Reader.signed}
_USER: Final[Schema] = {b"UserMsgLen": Reader.signed}
_ERROR: Final[Schema] = {b"Error": Reader.blob}

_Reading = Generator[None, None, StreamMessage]


def encode_stream(message: StreamMessage, security: Security | None = None, answer: bool = False, compress: bool = False) -> bytes:
    """All bytes of one direction of a stream. `answer`: on a stream that the other side dialled. Go compresses always, even where it grows."""
    guard = security or PLAIN
    plain = _encode_plain(message)
    if compress:
        plain = encode_compressed(plain)
    if guard.encrypts:
        head = bytes((ENCRYPT,)) + (OVERHEAD + len(plain)).to_bytes(4, "big")
        plain = head + guard.seal(plain, head + guard.label)
    return plain if answer else guard.header() + plain


def _encode_plain(message: StreamMessage) -> bytes:
    if isinstance(message, Ping | Ack):
        return encode_message(message)
    if isinstance(message, User):
        return bytes((USER,)) + pack_map(b"\xaaUserMsgLen", pack_signed(len(message.data)), fields=1) + message.data
    if isinstance(message, Err):
        return bytes((ERR,)) + pack({"Error": message.error})
    header = (
        b"\xa4Join\xc3" if message.join else b"\xa4Join\xc2",
        b"\xa5Nodes" + pack_signed(len(message.nodes)),
        b"\xacUserStateLen" + pack_signed(len(message.user_state)),
    )
    return b"".join((bytes((PUSH_PULL,)), pack_map(*header, fields=3), *map(encode_node_state, message.nodes), message.user_state))


class StreamDecoder:
    """Reads the one message of a stream. `answer`: of a stream that we dialled. A WireError is final; close the stream then."""

    def __init__(self, security: Security | None = None, answer: bool = False) -> None:
        self._frames = Frames(_MAX_COMPRESSED, "stream")
        self._reading = _read_stream(self._frames, security or PLAIN, answer)
        self._message: StreamMessage | None = None
        self._fault: WireError | None = None
        self._fed = 0

    def feed(self, data: bytes) -> StreamMessage | None:
        """The message, as soon as it is whole; None as long as it is not. Raises WireError."""
        if self._fault is not None:
            raise self._fault.again()
        self._fed += len(data)
        if self._message is None:
            try:
                self._message = _advance(self._reading, self._frames, data)
            except WireError as error:
                self._fault = error
                raise
        return self._message

    def finish(self) -> None:
        """The other side sends no more. Raises WireError if its message was not whole."""
        if self._message is None:
            raise self._fault.again() if self._fault else WireError(f"stream: cut off after {self._fed} bytes")


def _advance(reading: _Reading, frames: Frames, data: bytes) -> StreamMessage | None:
    try:
        for piece in frames.pieces(data):
            frames.feed(piece)
            next(reading)
    except StopIteration as done:
        message: StreamMessage = done.value
        return message
    return None


def _read_stream(frames: Frames, guard: Security, answer: bool) -> _Reading:
    """A coroutine that stands still at each `yield` until more was fed."""
    if guard.label and not answer:
        yield from _read_label(frames, guard.label)
    kind = (yield from _exactly(frames, 1))[0]
    if kind == LABEL_TYPE:
        raise Stranger("wrong label", "label: a header where none belongs")
    if kind == ENCRYPT and not guard.encrypts:
        raise Stranger("encrypted", "stream: encrypted, and encryption is not configured", answerable=True)
    if kind != ENCRYPT and guard.encrypts:
        raise Stranger("no key", "stream: plain, and encryption is configured", answerable=True)
    if kind != ENCRYPT:
        return (yield from _read_message(frames, kind))
    length = yield from _exactly(frames, 4)
    size = int.from_bytes(length, "big")
    if size > MAX_SEALED:
        raise WireError(f"stream: {size} encrypted bytes, above {MAX_SEALED}", answerable=True)
    sealed = yield from _exactly(frames, size)
    return _decode_whole(_opened(lambda: guard.open(sealed, bytes((ENCRYPT,)) + length + guard.label)), compressed=False)


def _opened(layer: Callable[[], bytes]) -> bytes:
    """What is inside a layer; its faults are of the kind that Go answers."""
    try:
        return layer()
    except Stranger as error:
        raise Stranger(error.reason, str(error), answerable=True) from error
    except WireError as error:
        raise WireError(str(error), answerable=True) from error


def _read_label(frames: Frames, label: bytes) -> Generator[None, None, None]:
    if (yield from _exactly(frames, 1))[0] != LABEL_TYPE:
        check_label(b"", label)
    size = (yield from _exactly(frames, 1))[0]
    found = yield from _exactly(frames, size)
    if not found:
        raise WireError("label: a header with an empty label")
    check_label(found, label)


def _decode_whole(plain: bytes, compressed: bool) -> StreamMessage:
    """A message of which all bytes are here."""
    frames = Frames(_MAX_COMPRESSED, "stream")
    if not plain:
        raise WireError("stream: an empty message in its encryption or compression", answerable=True)

    def read() -> _Reading:
        kind = (yield from _exactly(frames, 1))[0]
        if kind == COMPRESS and compressed:
            raise WireError("stream: compression in compression")
        return (yield from _read_message(frames, kind))

    message = _advance(read(), frames, plain)
    if message is None:
        raise WireError(f"stream: cut off after {len(plain)} bytes")
    return message


def _read_message(frames: Frames, kind: int) -> _Reading:
    if kind in (PING, ACK):
        found = decode_message(bytes((kind,)) + (yield from _value(frames)))
        if isinstance(found, Ping | Ack):
            return found
    if kind == PUSH_PULL:
        return (yield from _read_push_pull(frames))
    if kind == USER:
        size = Reader((yield from _value(frames)), "user").struct(_USER).get(b"UserMsgLen", 0)
        data = yield from _exactly(frames, _bounded(size, MAX_USER_MESSAGE, "user.UserMsgLen"))
        return User(data)
    if kind == COMPRESS:
        body = yield from _value(frames, _MAX_COMPRESSED)
        return _decode_whole(_opened(lambda: lzw.decompress(decode_compressed(body), MAX_EXPANDED)), compressed=True)
    if kind == ERR:
        text = Reader((yield from _value(frames)), "err").struct(_ERROR).get(b"Error") or b""
        return Err(text.decode("utf-8", "backslashreplace"))
    raise WireError(f"message type {kind} is not one for streams")


def _read_push_pull(frames: Frames) -> _Reading:
    header = Reader((yield from _value(frames)), "pushPull").struct(_PUSH_PULL)
    count = _bounded(header.get(b"Nodes", 0), MAX_NODES, "pushPull.Nodes")
    state_size = _bounded(header.get(b"UserStateLen", 0), MAX_USER_STATE, "pushPull.UserStateLen")
    nodes: list[NodeState] = []
    room = MAX_MEMBERS_BYTES
    for _ in range(count):
        member = yield from _value(frames)
        room -= len(member)
        if room < 0:
            raise WireError(f"pushPull: the members take more than {MAX_MEMBERS_BYTES} bytes")
        nodes.append(decode_node_state(member))
    user_state = yield from _exactly(frames, state_size)
    return PushPull(header.get(b"Join", False), tuple(nodes), user_state)


def _value(frames: Frames, most: int = _MAX_VALUE) -> Generator[None, None, bytes]:
    while (value := frames.value(most)) is None:
        yield
    return value


def _exactly(frames: Frames, size: int) -> Generator[None, None, bytes]:
    taken = bytearray()
    while len(taken) < size:
        chunk = frames.raw(size - len(taken))
        if not chunk:
            yield
        taken += chunk
    return bytes(taken)


def _bounded(value: int, limit: int, where: str) -> int:
    if not 0 <= value <= limit:
        raise WireError(f"{where}: {value} is not between 0 and {limit}")
    return value
