"""Members that are no Raft servers follow a stream of batches from the leader.

**The leader** (`FollowHub`, `FollowSource`): each stream reads the buffer, from the follower's cursors on, and sleeps at the end until the buffer's
writer says that there is more. So a slow follower holds no memory here, and what it gets is exactly what is stored: whole batches under their seqs.
The price is the writer's pause, some 20 ms under load.

**The follower** (`StreamFollower`): keeps one stream open to the leader of the day while it is not in the Raft configuration, and tells what comes to its publisher.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Final, Protocol

from coterie.actors.base import Actor, Crash
from coterie.actors.replication.buffer import BufferState, Gap, ReplicationBuffer, StoredBatch
from coterie.actors.replication.messages import LinkClosed, Stored, StreamedBatches
from coterie.actors.room_messages import Topology

READ_BYTES: Final = 1 << 20
READ_BATCHES: Final = 256


class FollowSource(Iterator[list[StoredBatch]]):
    """One follower's stream: iterate it in the serving thread; `close()` from any thread ends it.

    An empty list comes when nothing happened for `idle` seconds, so that the serving thread can look whether its client is still there.
    """

    def __init__(self, hub: FollowHub, buffer: ReplicationBuffer, cursors: dict[str, int], ends: dict[str, int], idle: float) -> None:
        self._hub, self._buffer, self._next, self._ends, self._idle = hub, buffer, dict(cursors), dict(ends), idle
        self._changed = threading.Condition()
        self._closed = False

    def __next__(self) -> list[StoredBatch]:
        until = time.monotonic() + self._idle
        while True:
            with self._changed:
                if self._closed:
                    raise StopIteration
                behind = [topic for topic, end in self._ends.items() if self._next.get(topic, 1) < end]
                if not behind:
                    left = until - time.monotonic()
                    if left <= 0:
                        return []
                    self._changed.wait(left)
                    continue
            found = [batch for topic in behind for batch in self._read(topic)]
            if found:
                return found

    def stored(self, topics: dict[str, tuple[int, int]]) -> None:
        """The writer has got so far."""
        with self._changed:
            for topic, (_, next_seq) in topics.items():
                self._ends[topic] = next_seq
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._hub.closed(self)

    def _read(self, topic: str) -> list[StoredBatch]:
        seq = self._next.get(topic, 1)
        try:
            found = self._buffer.read(topic, seq, READ_BYTES, READ_BATCHES)
        except Gap as gap:  # the follower sees the hole by the next batch's first_seq
            seq = gap.first_retained
            found = self._buffer.read(topic, seq, READ_BYTES, READ_BATCHES)
        self._next[topic] = found[-1].first_seq + found[-1].count if found else max(seq, self._ends[topic])
        return found


class FollowHub:
    """The open streams of a node. Thread-safe."""

    def __init__(self, buffer: ReplicationBuffer, state: BufferState) -> None:
        self._buffer = buffer
        self._ends = {topic: stored.next_seq for topic, stored in state.topics.items() if stored.next_seq}
        self._sources: set[FollowSource] = set()
        self._lock = threading.Lock()

    def open(self, cursors: dict[str, int], idle: float = 1.0) -> FollowSource:
        """A stream from `cursors` ({topic: next seq}; 1 for topics not named) on."""
        with self._lock:
            source = FollowSource(self, self._buffer, cursors, self._ends, idle)
            self._sources.add(source)
        return source

    def stored(self, message: Stored) -> None:
        """The writer's transaction is done."""
        with self._lock:
            self._ends.update((topic, next_seq) for topic, (_, next_seq) in message.topics.items())
            sources = list(self._sources)
        for source in sources:
            source.stored(message.topics)

    def closed(self, source: FollowSource) -> None:
        with self._lock:
            self._sources.discard(source)

    def stop(self) -> None:
        with self._lock:
            sources = list(self._sources)
        for source in sources:
            source.close()


class FollowLink(Protocol):
    """Opens a stream at a leader. The callbacks may come from any thread."""

    def open(
        self,
        leader_id: str,
        cursors: dict[str, int],
        on_batches: Callable[[list[StoredBatch]], object],
        on_closed: Callable[[Exception | None], object],
    ) -> Any:
        """Must not block. -> something with `close()`, or None when there is no way to that node now."""
        ...


class StreamFollower(Actor):
    """state: of the buffer, for the first cursors; afterwards they follow what was received. PAUSE between tries."""

    concern: ClassVar[str] = "following"
    PAUSE: ClassVar[float] = 0.2

    def __init__(
        self,
        node: str,
        state: BufferState,
        link: FollowLink,
        to_publisher: Callable[[Any], object],
        on_crash: Callable[[Crash], None] | None = None,
    ) -> None:
        super().__init__(node, on_crash)
        self._link, self._to_publisher = link, to_publisher
        self._next = {topic: stored.next_seq for topic, stored in state.topics.items() if stored.next_seq}
        self._leader = ""
        self._stream: Any = None
        self._stream_id = 0

    def on_receive(self, message: Any) -> Any:
        kind = message.__class__
        if kind is Topology:
            ours = message.leader_id != self.node and not message.foreign_leader
            leader = message.leader_id if ours and not message.in_quorum else ""
            if leader != self._leader:
                self._leader = leader
                self._close()
                self.wake_at(time.monotonic() if leader else None)
        elif kind is Stored:  # also what came by the log, for the day this node leaves the quorum
            for topic, (_, next_seq) in message.topics.items():
                self._next[topic] = max(next_seq, self._next.get(topic, 1))
        elif kind is LinkClosed:
            if message.link_id == self._stream_id:
                self._close()
                self.wake_at(time.monotonic() + self.PAUSE if self._leader else None)
        else:
            self.log.warning("unexpected message: a %s", type(message).__name__)

    def on_wake(self, now: float) -> None:
        if self._leader and self._stream is None:
            self._stream_id += 1
            me, stream_id = self.ref, self._stream_id
            self._stream = self._link.open(
                self._leader,
                dict(self._next),
                lambda batches: self._to_publisher(StreamedBatches(batches)),
                lambda error: me.send(LinkClosed(stream_id, error)),
            )
            if self._stream is None:
                self.wake_at(now + self.PAUSE)

    def on_stop(self) -> None:
        self._close()

    def _close(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()
