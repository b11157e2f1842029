"""The replication buffer of a node without a directory for one: the contract of `ReplicationBuffer` in memory, gone with the process."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, islice, takewhile

from coterie.actors.replication.buffer import (
    BufferState,
    BufferWrite,
    Frozen,
    Gap,
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


class MemoryBuffer:
    """`ReplicationBuffer` (see `buffer.py`): per topic a list of batches in order. A write is checked as a whole, then done."""

    def __init__(self) -> None:
        self._topics: dict[str, TopicState] = {}
        self._batches: dict[str, list[StoredBatch]] = {}
        self._applied = (0, 0)
        self._roster: bytes | None = None
        self._mark: bytes | None = None
        self._state: StateHead | None = None
        self._blocks: list[bytes] = []
        self._results: dict[int, bytes] = {}
        self._window: OrderedDict[bytes, Remembered] = OrderedDict()  # its front is taken off in constant time
        self._lock = threading.Lock()

    @property
    def applied(self) -> tuple[int, int]:
        return self._applied

    def load(self) -> BufferState:
        with self._lock:
            return self._all()

    def _all(self) -> BufferState:
        return BufferState(dict(self._topics), self._applied, tuple(self._window.values()), self._roster, self._state)

    def state(self, topic: str) -> TopicState:
        return self._topics.get(topic, TopicState())

    def write(self, change: BufferWrite) -> None:
        with self._lock:
            topics, dropped = self._changed(change)
            applied = check_applied(self._applied, change.applied) if change.applied is not None else self._applied
            leaving, entering = window_change(self._window.keys(), change)
            state, blocks = self._state, self._blocks
            if change.state is not None:
                state, blocks = check_state(state, change.state), list(change.state.blocks)
            # Everything was found sound: from here on nothing raises.
            self._state, self._blocks = state, blocks
            if change.results_anew:
                self._results.clear()
            for index, row in change.results.items():
                if row is None:
                    self._results.pop(index, None)
                else:
                    self._results[index] = row
            for topic in change.restart:
                self._batches.pop(topic, None)
            for batch in change.batches:
                self._batches.setdefault(batch.topic, []).append(batch)
            for topic, count in dropped.items():
                del self._batches.get(topic, [])[:count]
            self._mark = change.mark if change.mark is not None else self._mark
            self._topics.update(topics)
            self._applied = applied
            self._roster = change.roster if change.roster is not None else self._roster
            for message_id in leaving:
                del self._window[message_id]
            for remembered in entering:
                self._window[remembered.message_id] = remembered

    def read(self, topic: str, seq: int, max_bytes: int, max_batches: int) -> list[StoredBatch]:
        with self._lock:
            state = self._topics.get(topic)
            if state is None or seq >= state.next_seq:
                return []
            if seq < state.first_seq:
                raise Gap(topic, seq, state.first_seq)
            stored = self._batches[topic]
            at = bisect_right(stored, seq, key=lambda batch: batch.first_seq) - 1
            found = stored[at : at + max_batches]
        size = 0
        for count, batch in enumerate(found, 1):
            size += len(batch.data)
            if size >= max_bytes:
                return found[:count]
        return found

    @contextmanager
    def frozen(self) -> Iterator[Frozen]:
        with self._lock:
            batches = [list(self._batches.get(topic, ())) for topic in self._topics]
            state, blocks = self._all(), self._blocks
        yield Frozen(state, chain.from_iterable(batches), iter(blocks))

    def state_head(self) -> StateHead | None:
        return self._state

    def block(self, index: int, number: int) -> bytes | None:
        with self._lock:
            state, blocks = self._state, self._blocks
        return blocks[number] if state is not None and state.index == index and number < len(blocks) else None

    def results(self) -> list[tuple[int, bytes]]:
        with self._lock:
            return sorted(self._results.items())

    def mark(self) -> bytes | None:
        return self._mark

    def sync(self) -> None:
        """Memory survives no failure of power."""

    def close(self) -> None:
        """Nothing to release."""

    def _changed(self, change: BufferWrite) -> tuple[dict[str, TopicState], dict[str, int]]:
        """The topics that the write changes, and how many batches each loses from its front."""
        changed: dict[str, TopicState] = {}
        appended: dict[str, list[StoredBatch]] = {}
        dropped: dict[str, int] = {}

        def state(topic: str) -> TopicState:
            check_topic(topic)
            return changed.get(topic) or self._topics.get(topic) or TopicState()

        for topic, seq in change.restart.items():
            changed[topic] = restarted(topic, state(topic), seq)
        for batch in change.batches:
            changed[batch.topic] = extended(state(batch.topic), batch)
            appended.setdefault(batch.topic, []).append(batch)
        for topic, next_seq in change.topics.items():
            before = state(topic)
            changed[topic] = after = declared(topic, before, next_seq, topic in appended)
            dropped[topic] = before.batches - after.batches
        for topic, cursor in change.cursors.items():
            changed[topic] = moved(topic, state(topic), cursor)
        for topic, below in change.trim:
            held = chain(() if topic in change.restart else self._batches.get(topic, ()), appended.get(topic, ()))
            whole = list(takewhile(lambda batch: batch.first_seq + batch.count <= below, islice(held, dropped.get(topic, 0), None)))  # noqa: B023
            changed[topic] = trimmed(state(topic), ((batch.count, len(batch.data)) for batch in whole))
            dropped[topic] = dropped.get(topic, 0) + len(whole)
        return changed, dropped
