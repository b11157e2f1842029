"""The replication buffer on disk: one LMDB environment, each `write` one transaction.

    meta     what this is and whose (`lmdb_env`); `applied`: index and term; `roster`: its document; `installed`: the last snapshot's mark; `state`: head of
             the handler's state
    topics   exact name -> id, next_seq, first_seq, cursor, retained batches and bytes
    batches  id (4 bytes), first_seq (8 bytes) -> count, Raft index, the batch as it came
    blocks   command index (8 bytes), number (4 bytes) -> a block of the handler's state
    results  command index (8 bytes) -> a row of the commands' sessions
    dedupe   position (8 bytes) -> topic id, seq, Raft index, message id; positions only grow, so the window is in order

- Metasync is off: a commit is one sync, and a power failure may lose the last transactions, whole ones. What is lost comes again from the Raft
  log, from `applied` on; so the log is compacted only up to what `sync` or `close` has made safe.
- A topic is known by a number within, since a name may be longer than what one wants to repeat in each key; the number never leaves this file.
- Retained batches have no hole, and the batch of a seq is one seek away. A missing one is damage, not an empty answer.
- Topic states and the ids of the window are mirrored in memory, so that a write reads only what it trims. The mirrors change after the commit.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import attrs

from coterie.actors.disk.lmdb_env import DEFAULT_MAP_BYTES, META, Identity, Layout, LmdbEnvironment, Usage, seal
from coterie.actors.disk.lmdb_view import look
from coterie.actors.replication.buffer import (
    BufferState,
    BufferWrite,
    Frozen,
    Gap,
    NewState,
    Remembered,
    StateHead,
    StoredBatch,
    TopicState,
    check_applied,
    check_state,
    check_topic,
    declared,
    extended,
    moved,
    restarted,
    trimmed,
    window_change,
)
from coterie.actors.replication.buffer_format import (
    KEY_APPLIED,
    KEY_MARK,
    KEY_ROSTER,
    KEY_STATE,
    batch_key,
    block_key,
    order_key,
    order_of,
    pack_applied,
    pack_batch,
    pack_document,
    pack_remembered,
    pack_state,
    pack_topic,
    result_key,
    unpack_applied,
    unpack_batch,
    unpack_batch_key,
    unpack_document,
    unpack_remembered,
    unpack_state,
    unpack_topic,
)

if TYPE_CHECKING:
    from coterie.actors.disk.lmdb_env import Transaction

T = TypeVar("T")

LAYOUT: Final = Layout(
    kind="coterie replication buffer",
    format=1,
    databases=("topics", "batches", "dedupe"),
    later=("blocks", "results"),
    metasync=False,
    remedy=(
        "start the node again: what is lost comes again from its log or its leader; where that fails, "
        "remove this server from the quorum, move its data directory (and its repl_buffer_dir) away and join it again empty: the leader sends it everything"
    ),
)


@attrs.define
class _Mirror:
    """What is in memory of the environment, as of the last commit."""

    ids: dict[str, int] = attrs.field(factory=dict)
    states: dict[str, TopicState] = attrs.field(factory=dict)
    applied: tuple[int, int] = (0, 0)
    state: StateHead | None = None
    window: OrderedDict[bytes, int] = attrs.field(factory=OrderedDict)
    next_order: int = 1


class LmdbBuffer:
    """`ReplicationBuffer` (see `buffer.py`) in the directory `path`. One thread calls `write`, any thread reads."""

    def __init__(self, environment: LmdbEnvironment) -> None:
        self._environment = environment
        self._meta, self._topics, self._batches, self._dedupe, self._blocks, self._results = (
            environment.database(name) for name in (META, "topics", "batches", "dedupe", "blocks", "results")
        )
        self._mirror = _Mirror()

    @classmethod
    def open(cls, path: Path, identity: Identity, map_bytes: int = DEFAULT_MAP_BYTES) -> LmdbBuffer:
        """Open or create. StorageError: unusable directory, another node's buffer, a newer format, damage."""
        return cls._loaded(LmdbEnvironment.open(path, LAYOUT, identity, map_bytes))

    @classmethod
    def look(cls, path: Path, identity: Identity) -> LmdbBuffer:
        """Open what is there to read it, and change nothing. StorageError: as `open`."""
        return cls._loaded(look(path, LAYOUT, identity))

    @classmethod
    def _loaded(cls, environment: LmdbEnvironment) -> LmdbBuffer:
        buffer = cls(environment)
        try:
            with buffer._environment.read() as transaction:
                buffer._mirror = buffer._read_all_of(transaction)[0]
        except BaseException:
            buffer.close()
            raise
        return buffer

    @property
    def applied(self) -> tuple[int, int]:
        return self._mirror.applied

    def load(self) -> BufferState:
        with self.frozen() as frozen:
            return frozen.state

    @property
    def path(self) -> Path:
        return self._environment.path

    def state(self, topic: str) -> TopicState:
        return self._mirror.states.get(topic, TopicState())

    def usage(self) -> Usage:
        return self._environment.usage()

    def stalled(self, now: float) -> float:
        return self._environment.stalled(now)

    @property
    def released(self) -> bool:
        return self._environment.released

    def write(self, change: BufferWrite) -> None:
        outcome = self._environment.write(lambda transaction: _Writer(self, transaction, change).run())
        outcome.adopt(self._mirror)

    def read(self, topic: str, seq: int, max_bytes: int, max_batches: int) -> list[StoredBatch]:
        name = check_topic(topic)
        with self._environment.read() as transaction:
            value = transaction.get(name, db=self._topics)
            if value is None:
                return []
            topic_id, state = self._environment.opened(f"topic {topic!r}", name, value, unpack_topic)
            if seq >= state.next_seq:
                return []
            if seq < state.first_seq:
                raise Gap(topic, seq, state.first_seq)
            return self._read_from(transaction, topic, topic_id, seq, max_bytes, max_batches)

    @contextmanager
    def frozen(self) -> Iterator[Frozen]:
        with self._environment.read() as transaction:
            mirror, dedupe = self._read_all_of(transaction)
            roster = self._document(transaction, "the roster", KEY_ROSTER)
            state = BufferState(mirror.states, mirror.applied, tuple(dedupe), roster, mirror.state)
            batches = (
                self._stored(transaction, topic, mirror.ids[topic], stored.first_seq)
                for topic, stored in mirror.states.items()
                if stored.batches
            )
            head = mirror.state
            blocks = (self._block(transaction, head.index, number) for number in range(head.blocks)) if head is not None else iter(())
            yield Frozen(state, self._unhurried(chain.from_iterable(batches)), self._unhurried(blocks))

    def _unhurried(self, items: Iterator[T]) -> Iterator[T]:
        for item in items:
            self._environment.give_way()
            yield item

    def state_head(self) -> StateHead | None:
        return self._mirror.state

    def block(self, index: int, number: int) -> bytes | None:
        with self._environment.read() as transaction:
            head = self._state_head(transaction)
            if head is None or head.index != index or number >= head.blocks:
                return None
            return self._block(transaction, index, number)

    def _block(self, transaction: Transaction, index: int, number: int) -> bytes:
        key = block_key(index, number)
        what = f"block {number} of the handler's state at command {index}"
        return self._environment.opened(what, key, transaction.get(key, db=self._blocks), unpack_document)

    def _state_head(self, transaction: Transaction) -> StateHead | None:
        value = transaction.get(KEY_STATE, db=self._meta)
        return None if value is None else self._environment.opened("the head of the handler's state", KEY_STATE, value, unpack_state)

    def results(self) -> list[tuple[int, bytes]]:
        with self._environment.read() as transaction:
            return [
                (order_of(key), self._environment.opened("a row of the commands' sessions", key, value, unpack_document))
                for key, value in transaction.cursor(db=self._results)
            ]

    def mark(self) -> bytes | None:
        with self._environment.read() as transaction:
            return self._document(transaction, "the mark of a snapshot", KEY_MARK)

    def sync(self) -> None:
        """Make everything written so far survive a power failure."""
        self._environment.sync()

    def close(self) -> None:
        self._environment.close()

    def _read_from(
        self, transaction: Transaction, topic: str, topic_id: int, seq: int, max_bytes: int, max_batches: int
    ) -> list[StoredBatch]:
        found: list[StoredBatch] = []
        size = 0
        for batch in self._stored(transaction, topic, topic_id, seq):
            if not found and not batch.first_seq <= seq < batch.first_seq + batch.count:
                break
            found.append(batch)
            size += len(batch.data)
            if size >= max_bytes or len(found) >= max_batches:
                break
        if not found:
            raise self._environment.damaged(f"topic {topic!r}: the batch of seq {seq} is missing, it")
        return found

    def _stored(self, transaction: Transaction, topic: str, topic_id: int, seq: int) -> Iterator[StoredBatch]:
        """The batches of a topic in order, from the one that begins at or last before `seq`."""
        cursor = transaction.cursor(db=self._batches)
        wanted = batch_key(topic_id, seq)
        if not cursor.set_range(wanted):
            cursor.last()
        elif cursor.key() != wanted:
            cursor.prev()
        for key, value in cursor:
            found_id, first_seq = unpack_batch_key(key)
            if found_id != topic_id:
                return
            what = f"topic {topic!r}: the batch at seq {first_seq}"
            yield self._environment.opened(what, key, value, partial(unpack_batch, topic, first_seq))

    def _document(self, transaction: Transaction, what: str, key: bytes) -> bytes | None:
        value = transaction.get(key, db=self._meta)
        return None if value is None else self._environment.opened(what, key, value, unpack_document)

    def _read_all_of(self, transaction: Transaction) -> tuple[_Mirror, list[Remembered]]:
        mirror = _Mirror()
        dedupe: list[Remembered] = []
        names: dict[int, str] = {}
        window = "the window of message ids"
        value = transaction.get(KEY_APPLIED, db=self._meta)
        if value is not None:
            mirror.applied = self._environment.opened("the applied index", KEY_APPLIED, value, unpack_applied)
        mirror.state = self._state_head(transaction)
        for name, value in transaction.cursor(db=self._topics):
            topic = name.decode("utf-8", "replace")
            topic_id, state = self._environment.opened(f"topic {topic!r}", name, value, unpack_topic)
            mirror.ids[topic], names[topic_id] = topic_id, topic
            if state != TopicState():
                mirror.states[topic] = state
        for key, value in transaction.cursor(db=self._dedupe):
            topic_id, seq, index, message_id = self._environment.opened(window, key, value, unpack_remembered)
            if topic_id not in names:
                raise self._environment.damaged(f"{window}: topic number {topic_id} is missing, it")
            mirror.window[message_id] = order_of(key)
            mirror.next_order = order_of(key) + 1
            dedupe.append(Remembered(message_id, names[topic_id], seq, index))
        return mirror, dedupe


class _Writer:
    """One run of one write in one transaction. It changes nothing but the transaction, since a full map makes it run again; `adopt` does the rest."""

    def __init__(self, buffer: LmdbBuffer, transaction: Transaction, change: BufferWrite) -> None:
        self._buffer, self._transaction, self._change = buffer, transaction, change
        self._mirror = buffer._mirror
        self._ids: dict[str, int] = {}
        self._states: dict[str, TopicState] = {}
        self._applied = self._mirror.applied
        self._leaving: list[bytes] = []
        self._entering: list[tuple[bytes, int]] = []
        self._head = self._mirror.state

    def run(self) -> _Writer:
        change, put = self._change, self._transaction.put
        for topic, seq in change.restart.items():
            before = self._state(topic)
            self._states[topic] = restarted(topic, before, seq)
            self._drop_below(topic, before, seq)
        appended = set()
        for batch in change.batches:
            appended.add(batch.topic)
            self._states[batch.topic] = extended(self._state(batch.topic), batch)
            key = batch_key(self._id(batch.topic), batch.first_seq)
            put(key, seal(key, pack_batch(batch)), db=self._buffer._batches)
        for topic, next_seq in change.topics.items():
            before = self._state(topic)
            self._states[topic] = after = declared(topic, before, next_seq, topic in appended)
            if after.batches < before.batches:
                self._drop_below(topic, before, next_seq)
        for topic, cursor in change.cursors.items():
            self._states[topic] = moved(topic, self._state(topic), cursor)
        for topic, below in change.trim:
            state = self._state(topic)
            self._states[topic] = trimmed(state, self._drop_below(topic, state, below))
        self._window()
        for topic, state in self._states.items():
            name = topic.encode()
            put(name, seal(name, pack_topic(self._id(topic), state)), db=self._buffer._topics)
        if change.applied is not None:
            self._applied = check_applied(self._applied, change.applied)
            put(KEY_APPLIED, seal(KEY_APPLIED, pack_applied(self._applied)), db=self._buffer._meta)
        if change.roster is not None:
            put(KEY_ROSTER, seal(KEY_ROSTER, pack_document(change.roster)), db=self._buffer._meta)
        if change.mark is not None:
            put(KEY_MARK, seal(KEY_MARK, pack_document(change.mark)), db=self._buffer._meta)
        if change.state is not None:
            self._keep(change.state)
        self._put_results()
        return self

    def _keep(self, new: NewState) -> None:
        """The new state's blocks take the place of the old one's."""
        transaction, buffer = self._transaction, self._buffer
        self._head = head = check_state(self._mirror.state, new)
        transaction.drop(buffer._blocks, delete=False)
        count = 0
        for count, block in enumerate(new.blocks, 1):
            key = block_key(head.index, count - 1)
            transaction.put(key, seal(key, pack_document(block)), db=buffer._blocks, append=True)
        if count != head.blocks:
            raise ValueError(f"state={head}: {count} blocks came")
        transaction.put(KEY_STATE, seal(KEY_STATE, pack_state(head)), db=buffer._meta)

    def _put_results(self) -> None:
        if self._change.results_anew:
            self._transaction.drop(self._buffer._results, delete=False)
        for index, row in self._change.results.items():
            key = result_key(index)
            if row is None:
                self._transaction.delete(key, db=self._buffer._results)
            else:
                self._transaction.put(key, seal(key, pack_document(row)), db=self._buffer._results)

    def adopt(self, mirror: _Mirror) -> None:
        mirror.ids.update(self._ids)
        mirror.states.update(self._states)
        mirror.applied = self._applied
        mirror.state = self._head
        for message_id in self._leaving:
            del mirror.window[message_id]
        for message_id, order in self._entering:
            mirror.window[message_id] = order
            mirror.next_order = order + 1

    def _state(self, topic: str) -> TopicState:
        return self._states.get(topic) or self._mirror.states.get(topic) or TopicState()

    def _id(self, topic: str) -> int:
        """The topic's number; a new one gets the next. Topics are never removed, so numbers are never used again."""
        known = self._mirror.ids.get(topic) or self._ids.get(topic)
        if known is None:
            check_topic(topic)
            known = self._ids[topic] = len(self._mirror.ids) + len(self._ids) + 1
            self._states.setdefault(topic, TopicState())
        return known

    def _drop_below(self, topic: str, state: TopicState, below: int) -> list[tuple[int, int]]:
        """Delete the batches that lie below as a whole: the (count, bytes) of each."""
        if not state.batches:
            return []
        dropped = []
        keys = []
        for batch in self._buffer._stored(self._transaction, topic, self._id(topic), state.first_seq):
            if batch.first_seq + batch.count > below:
                break
            dropped.append((batch.count, len(batch.data)))
            keys.append(batch_key(self._id(topic), batch.first_seq))
        for key in keys:
            self._transaction.delete(key, db=self._buffer._batches)
        return dropped

    def _window(self) -> None:
        self._leaving, entering = window_change(self._mirror.window.keys(), self._change)
        for message_id in self._leaving:
            self._transaction.delete(order_key(self._mirror.window[message_id]), db=self._buffer._dedupe)
        for order, remembered in enumerate(entering, self._mirror.next_order):
            key = order_key(order)
            body = pack_remembered(self._id(remembered.topic), remembered)
            self._transaction.put(key, seal(key, body), db=self._buffer._dedupe, append=True)
            self._entering.append((remembered.message_id, order))
