"""How the replication buffer stands on disk, byte by byte (docs/formats.md, "Replication buffer"): pure functions from values to records and back.

Every record is sealed by its writer (CRC-32 over key and body, see `lmdb_env`). All numbers are big-endian, so that keys sort as the numbers do.
"""

from __future__ import annotations

import struct
from typing import Final

from coterie.actors.replication.buffer import Remembered, StateHead, StoredBatch, TopicState

_VERSION: Final = 1

_TOPIC = struct.Struct(">BIQQQQQ")  # version, topic id, next_seq, first_seq, cursor, batches, size
_BATCH_KEY = struct.Struct(">IQ")  # topic id, first_seq
_BATCH = struct.Struct(">BIQ")  # version, count, Raft index; then the data
_ORDER = struct.Struct(">Q")  # position in the window
_REMEMBERED = struct.Struct(">BIQQ")  # version, topic id, seq, Raft index; then the message id
_STATE = struct.Struct(">BQQIQ")  # version, index of the last command, Raft index, blocks, bytes
_BLOCK_KEY = struct.Struct(">QI")  # index of the last command, number
_APPLIED = struct.Struct(">BQQ")  # version, index, term

KEY_APPLIED: Final = b"applied"
KEY_ROSTER: Final = b"roster"
KEY_MARK: Final = b"installed"
KEY_STATE: Final = b"state"

batch_key = _BATCH_KEY.pack
order_key = _ORDER.pack
block_key = _BLOCK_KEY.pack
result_key = _ORDER.pack


def _check(version: int) -> None:
    if version != _VERSION:
        raise ValueError(f"record version {version} is not known")


def pack_topic(topic_id: int, state: TopicState) -> bytes:
    return _TOPIC.pack(_VERSION, topic_id, *state)


def unpack_topic(body: bytes) -> tuple[int, TopicState]:
    version, topic_id, *state = _TOPIC.unpack(body)
    _check(version)
    return topic_id, TopicState(*state)


def unpack_batch_key(key: bytes) -> tuple[int, int]:
    """(topic id, first_seq)."""
    topic_id, first_seq = _BATCH_KEY.unpack(key)
    return topic_id, first_seq


def pack_batch(batch: StoredBatch) -> bytes:
    return _BATCH.pack(_VERSION, batch.count, batch.index) + batch.data


def unpack_batch(topic: str, first_seq: int, body: bytes) -> StoredBatch:
    version, count, index = _BATCH.unpack_from(body)
    _check(version)
    return StoredBatch(topic, first_seq, count, index, body[_BATCH.size :])


def order_of(key: bytes) -> int:
    order: int = _ORDER.unpack(key)[0]
    return order


def pack_remembered(topic_id: int, remembered: Remembered) -> bytes:
    return _REMEMBERED.pack(_VERSION, topic_id, remembered.seq, remembered.index) + remembered.message_id


def unpack_remembered(body: bytes) -> tuple[int, int, int, bytes]:
    """(topic id, seq, Raft index, message id)."""
    version, topic_id, seq, index = _REMEMBERED.unpack_from(body)
    _check(version)
    return topic_id, seq, index, body[_REMEMBERED.size :]


def pack_applied(applied: tuple[int, int]) -> bytes:
    return _APPLIED.pack(_VERSION, *applied)


def unpack_applied(body: bytes) -> tuple[int, int]:
    version, index, term = _APPLIED.unpack(body)
    _check(version)
    return index, term


def pack_state(head: StateHead) -> bytes:
    return _STATE.pack(_VERSION, *head)


def unpack_state(body: bytes) -> StateHead:
    version, *values = _STATE.unpack(body)
    _check(version)
    return StateHead(*values)


def unpack_block_key(key: bytes) -> tuple[int, int]:
    """(index of the last command, number)."""
    index, number = _BLOCK_KEY.unpack(key)
    return index, number


def pack_document(document: bytes) -> bytes:
    """The roster, the mark of a snapshot, a block of the handler's state or a row of a session: bytes that nobody here looks into."""
    return bytes((_VERSION,)) + document


def unpack_document(body: bytes) -> bytes:
    if not body:
        raise ValueError("an empty record")
    _check(body[0])
    return body[1:]
