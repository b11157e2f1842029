"""Whether a stored replication buffer is whole: every record of it is read, and what they say of each other is compared (docs/formats.md, "Replication
buffer"). Pure.

A node reads the topics and the window when it starts, and batches when somebody needs them. This reads all: each checksum; the batches of a topic, without a
hole from
its first retained seq to its next one, as many and as large as the topic says, of growing Raft indexes; the records in each, decoded and counted; the window
of message ids; the roster; what commands have left (`state_check`).
"""

from __future__ import annotations

from typing import Final

import attrs

from coterie.actors.disk.findings import Findings, Progress, Reporter, Tables
from coterie.actors.disk.lmdb_env import META
from coterie.actors.replication.buffer import MAX_TOPIC_BYTES, StateHead, TopicState
from coterie.actors.replication.buffer_format import (
    KEY_APPLIED,
    KEY_MARK,
    KEY_ROSTER,
    unpack_applied,
    unpack_batch,
    unpack_batch_key,
    unpack_document,
    unpack_remembered,
    unpack_topic,
)
from coterie.actors.replication.state_check import check_state
from coterie.actors.replication.state_machine import DEDUPE_WINDOW
from coterie.proto.errors import WireError
from coterie.proto.record_batch import decode_batch
from coterie.proto.roster import decode_document

WHERE: Final = "replication buffer"
STEP: Final = 1024  # batches between two words of progress


@attrs.define
class BufferSummary:
    """What was seen. applied: (index, term); mark: of the last snapshot that was installed, which is Raft's to read; members: rows of the roster, None
    without one; state: of the handler, None without one; results: rows of the commands' sessions."""

    applied: tuple[int, int] = (0, 0)
    topics: dict[str, TopicState] = attrs.field(factory=dict)
    batches: int = 0
    records: int = 0
    data_bytes: int = 0
    message_ids: int = 0
    members: int | None = None
    mark: bytes | None = None
    state: StateHead | None = None
    results: int = 0


@attrs.define
class _Reached:
    """How far the batches of one topic go that were read."""

    name: str
    state: TopicState
    next_seq: int
    index: int = 0
    batches: int = 0
    size: int = 0


def check_buffer(tables: Tables, remedy: str) -> Findings[BufferSummary]:
    """remedy: of damage. Raises StorageError when the file cannot be read any further."""
    return (yield from _BufferCheck(tables, Reporter(WHERE, remedy)).run())


class _BufferCheck:
    def __init__(self, tables: Tables, report: Reporter) -> None:
        self._tables, self._report = tables, report
        self._seen = BufferSummary()
        self._topics: dict[int, _Reached] = {}
        self._beyond = 0  # batches of entries above the applied one

    def run(self) -> Findings[BufferSummary]:
        yield from self._meta()
        yield from self._topic_states()
        yield from self._batches()
        yield from self._against_states()
        yield from self._window()
        self._seen.state, self._seen.results = yield from check_state(self._tables, self._report)
        return self._seen

    def _meta(self) -> Findings[None]:
        seen, found = self._seen, {key: self._tables.get(META, key) for key in (KEY_APPLIED, KEY_ROSTER, KEY_MARK)}
        if (value := found[KEY_APPLIED]) is not None:
            seen.applied = (yield from self._report.opened("meta", "its applied index", KEY_APPLIED, value, unpack_applied)) or (0, 0)
        if (value := found[KEY_MARK]) is not None:
            seen.mark = yield from self._report.opened("meta", "the mark of its last snapshot", KEY_MARK, value, unpack_document)
        if (value := found[KEY_ROSTER]) is not None:
            document = yield from self._report.opened("roster", "the roster", KEY_ROSTER, value, unpack_document)
            try:
                seen.members = None if document is None else len(decode_document(document))
            except WireError as error:
                yield self._report.damage("roster", f"the roster does not decode: {error}")

    def _topic_states(self) -> Findings[None]:
        for name, value in self._tables.rows("topics"):
            shown = name.decode(errors="replace")
            found = yield from self._report.opened("topic", f"topic {shown!r}", name, value, unpack_topic)
            if found is None:
                continue
            number, state = found
            if number in self._topics:
                yield self._report.damage("topic", f"topics {self._topics[number].name!r} and {shown!r} have the same number, {number}")
            if not 1 <= len(name) <= MAX_TOPIC_BYTES or shown.encode() != name:
                yield self._report.damage("topic", f"a topic has the name {name!r}, which is no topic's")
            if state.next_seq and not 1 <= state.first_seq <= state.next_seq:
                yield self._report.damage(
                    "topic", f"topic {shown!r} retains from seq {state.first_seq} on, and its next is {state.next_seq}"
                )
            if state.cursor > state.next_seq:
                yield self._report.note(
                    "cursor",
                    f"topic {shown!r}: the handler has had records up to seq {state.cursor - 1}, the buffer has them up to {state.next_seq - 1}; the others "
                    "come again from the log",
                )
            self._topics[number] = _Reached(shown, state, state.first_seq)
            self._seen.topics[shown] = state

    def _batches(self) -> Findings[None]:
        total = self._tables.count("batches")
        for number, (key, value) in enumerate(self._tables.rows("batches"), 1):
            if number % STEP == 0:
                yield Progress(WHERE, number, total)
            if len(key) != 12:
                yield self._report.damage("batch", f"a batch has the key {key.hex()}, which names no topic and seq")
                continue
            topic_number, seq = unpack_batch_key(key)
            topic = self._topics.get(topic_number)
            if topic is None:
                yield self._report.damage("batch", f"the batch at seq {seq} of topic number {topic_number} belongs to no topic")
                continue
            yield from self._batch(topic, seq, key, value)
        yield Progress(WHERE, total, total)

    def _batch(self, topic: _Reached, seq: int, key: bytes, value: bytes) -> Findings[None]:
        report, seen = self._report, self._seen
        if seq != topic.next_seq:
            hole = f"records {topic.next_seq}..{seq - 1} are missing" if seq > topic.next_seq else f"{topic.next_seq} must follow"
            yield report.damage("batch", f"topic {topic.name!r}: there is a batch at seq {seq}, where {hole}")
        topic.batches += 1
        what = f"topic {topic.name!r}: the batch at seq {seq}"
        batch = yield from self._report.opened("checksum", what, key, value, lambda body: unpack_batch(topic.name, seq, body))
        if batch is None:
            topic.next_seq = seq + 1  # how many records it had is not known: what follows it is told as a hole
            return
        topic.next_seq = seq + batch.count
        topic.size += len(batch.data)
        if batch.index < topic.index:
            yield report.damage("batch", f"{what} is of entry {batch.index}, one before it of entry {topic.index}")
        topic.index = max(topic.index, batch.index)
        self._beyond += batch.index > seen.applied[0]
        try:
            opened = decode_batch(batch.data)
        except WireError as error:
            yield report.damage("batch", f"{what} does not decode: {error}")
            return
        if opened.topic != topic.name or len(opened.records) != batch.count:
            yield report.damage("batch", f"{what} holds {len(opened.records)} records of {opened.topic!r}, and says {batch.count}")
        seen.batches += 1
        seen.records += len(opened.records)
        seen.data_bytes += len(batch.data)

    def _against_states(self) -> Findings[None]:
        for topic in self._topics.values():
            state = topic.state
            if topic.next_seq != state.next_seq and state.next_seq:
                yield self._report.damage(
                    "topic", f"topic {topic.name!r}: its batches end before seq {topic.next_seq}, its next is {state.next_seq}"
                )
            if (topic.batches, topic.size) != (state.batches, state.size):
                yield self._report.damage(
                    "topic",
                    f"topic {topic.name!r} has {topic.batches} batches of {topic.size} bytes, and says {state.batches} of {state.size}",
                )
        if self._beyond:
            yield self._report.note(
                "beyond",
                f"{self._beyond} batches are of entries above {self._seen.applied[0]}, the last applied: they came over a stream, while this node was in no quorum",
            )

    def _window(self) -> Findings[None]:
        report, seen = self._report, self._seen
        known: set[bytes] = set()
        for key, value in self._tables.rows("dedupe"):
            found = yield from self._report.opened(
                "message id", f"the message id at position {int.from_bytes(key)}", key, value, unpack_remembered
            )
            if found is None:
                continue
            number, seq, index, message_id = found
            seen.message_ids += 1
            topic = self._topics.get(number)
            if topic is None:
                yield report.damage("message id", f"a message id belongs to topic number {number}, which is no topic")
            elif not 1 <= seq < topic.state.next_seq:
                yield report.damage("message id", f"a message id is of seq {seq} of {topic.name!r}, whose next is {topic.state.next_seq}")
            if index > seen.applied[0]:
                yield report.damage("message id", f"a message id is of entry {index}, above {seen.applied[0]}, the last applied")
            if message_id in known:
                yield report.damage("message id", f"a message id stands twice in the window (seq {seq})")
            known.add(message_id)
        if seen.message_ids > DEDUPE_WINDOW:
            yield report.damage("message id", f"the window holds {seen.message_ids} message ids, and may hold {DEDUPE_WINDOW}")
