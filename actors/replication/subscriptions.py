"""Subscribers that are no nodes of ours: the nodes of go-cluster, scripts, other services. They get records over `cluster.v1.Replication/Subscribe` from the leader.

    buffer ──read──► Subscription: next ──► the stream, one record a message
                          ▲    │
                       acked   └── nothing acknowledged for `retry`: next goes back to acked + 1, for this subscriber only
                          │
                     Ack (topic, seq), cumulative

**Where one begins.** Who is known goes on after its last acknowledgement; who is new begins with what is retained, as a new node of ours does. Who gives no name
begins at the end, and is sent nothing twice. Sequence numbers are those of the log, so they go on across leaders, and a subscriber may tell repetitions by them.
The leader tells the other nodes of ours how far each subscriber is (`take_moved`), so the next leader goes on there: what was acknowledged in the last moment
before a leader's death may be sent again, nothing is left out. It is not on disk: after a stop of all nodes at once a subscriber is new again.

**What a subscriber can do to the cluster.** Nothing but read. It is not in the window of publishes, so a slow one never holds publishing up; what it has not had
stays in the buffer and not in memory; in flight to it is at most `window` records a topic without an acknowledgement, and one message in gRPC's hands. When
retention has passed it by, it goes on with the oldest record there is, which is counted. A stream that acknowledges nothing of what it was sent for `STALLED`
redeliveries is ended; a subscriber that comes back goes on as above. Known are at most `MAX_KNOWN`, those that went longest ago are forgotten first, and what the
metrics show of a subscriber goes `SHOWN` seconds after its stream.

A thread-safe object and no actor: the servers' threads read the buffer themselves, and all that is shared is a table of numbers. One lock, and never held while
reading or sending.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from coterie.actors.errors import AlreadyMember, CoterieError, NotLeader, Overloaded, StorageError
from coterie.actors.replication.buffer import BufferState, Gap, ReplicationBuffer
from coterie.actors.replication.messages import Stored
from coterie.actors.replication.metrics import NoMetrics, ReplicationMetrics
from coterie.actors.room_messages import Topology
from coterie.proto.errors import WireError
from coterie.proto.record_batch import decode_batch

__all__ = ["SentRecord", "Subscription", "Subscriptions"]

READ_BYTES: Final = 1 << 20
READ_BATCHES: Final = 64
STALLED: Final = 30  # redeliveries without an acknowledgement
SHOWN: Final = 60.0  # seconds
MAX_KNOWN: Final = 1024
MAX_TOPICS: Final = 4096  # of a subscriber that acknowledges


class SentRecord(NamedTuple):
    topic: str
    data: bytes
    seq: int


class _Known:
    """What is known of a subscriber that gave its name. acked: {topic: seq}, cumulative; gone: when its last stream ended, None while one is open."""

    __slots__ = ("acked", "gone", "shown", "stream")

    def __init__(self, now: float) -> None:
        self.acked: dict[str, int] = {}
        self.stream: Subscription | None = None
        self.gone: float = now
        self.shown = False


class Subscriptions:
    """The subscribers of a node. Any thread may call any method.

    window: records of a topic in flight to one subscriber; retry: seconds until what it does not acknowledge is sent again.
    """

    def __init__(
        self,
        buffer: ReplicationBuffer,
        state: BufferState,
        *,
        window: int = 1024,
        retry: float = 1.5,
        metrics: ReplicationMetrics | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.lock = threading.Lock()
        self.window, self.retry, self.clock, self.buffer = window, retry, clock, buffer
        self.ends = {topic: stored.next_seq for topic, stored in state.topics.items() if stored.next_seq}
        self._metrics = metrics or NoMetrics()
        self._known: dict[str, _Known] = {}
        self._streams: set[Subscription] = set()
        self._moved: dict[tuple[str, str], int] = {}  # (node, topic) -> seq: not yet told to the others
        self._topology = Topology()
        self._stopped = False
        self._counters = {"records sent again": 0, "records passed by retention": 0, "streams stalled": 0, "acks not understood": 0}

    # -- streams --------------------------------------------------------------------------------------------------------------

    def open(self, node_id: str) -> Subscription:
        """A stream for `node_id` ("": nobody in particular). An older one of the same name ends. Raises NotLeader, Overloaded."""
        with self.lock:
            if self._stopped or not self._topology.leads:
                raise self._not_leader()
            known = self._remember(node_id) if node_id else None
            if known is not None and known.stream is not None:
                known.stream.end(AlreadyMember(f"another stream of {node_id!r} has taken this one's place"))
            stream = Subscription(self, node_id, known.acked if known is not None else None)
            self._streams.add(stream)
            if known is not None:
                known.stream = stream
                self._show(node_id, known)
            self._count_streams()
        return stream

    def closed(self, stream: Subscription) -> None:
        """Its client has gone. Called with the lock held."""
        if stream in self._streams:
            self._streams.discard(stream)
            known = self._known.get(stream.node_id)
            if known is not None and known.stream is stream:
                known.stream, known.gone = None, self.clock()
            self._count_streams()

    def stored(self, message: Stored) -> None:
        """The writer's transaction is done."""
        with self.lock:
            for topic, (_, next_seq) in message.topics.items():
                self.ends[topic] = next_seq
            for node_id, known in self._known.items():
                if known.shown:
                    for topic in message.topics:
                        self._metrics.lag(node_id, topic, max(0, self.ends[topic] - 1 - known.acked.get(topic, 0)))
            for stream in self._streams:
                stream.wake()

    def set_topology(self, topology: Topology) -> None:
        """Who does not lead (any more) has no subscribers."""
        with self.lock:
            led, self._topology = self._topology.leads, topology
            if led and not topology.leads:
                for stream in list(self._streams):
                    stream.end(self._not_leader())
                for known in self._known.values():
                    known.shown = False  # the metrics have forgotten all nodes

    def stop(self) -> None:
        with self.lock:
            self._stopped = True
            for stream in list(self._streams):
                stream.end(NotLeader())

    # -- acknowledgements -----------------------------------------------------------------------------------------------------

    def ack(self, node_id: str, topic: str, seq: int) -> None:
        """`node_id` has had every record of `topic` up to `seq`. Beyond the end is as the end; what is unknown is counted. Raises NotLeader, Overloaded."""
        with self.lock:
            if not self._topology.leads:
                raise self._not_leader()
            end = self.ends.get(topic)
            if not node_id or end is None or not seq:
                self._counters["acks not understood"] += 1
                return
            known, seq = self._remember(node_id), min(seq, end - 1)
            before = known.acked.get(topic, 0)
            if seq > before:
                known.acked[topic] = self._moved[node_id, topic] = seq
                if known.stream is not None:
                    known.stream.acknowledged(topic)
            self._show(node_id, known)
            self._metrics.acked(node_id, topic, max(0, seq - before), max(seq, before))
            self._metrics.lag(node_id, topic, end - 1 - max(seq, before))

    def heard(self, node_id: str, topic: str, seq: int) -> None:
        """The leader tells how far a subscriber of its own is."""
        with self.lock:
            known = self._remember(node_id)
            if len(known.acked) < MAX_TOPICS or topic in known.acked:
                known.acked[topic] = max(seq, known.acked.get(topic, 0))

    def take_moved(self) -> list[tuple[str, str, int]]:
        """(node, topic, seq) that the others have not been told yet."""
        with self.lock:
            moved, self._moved = self._moved, {}
        return [(node_id, topic, seq) for (node_id, topic), seq in moved.items()]

    # -- upkeep ---------------------------------------------------------------------------------------------------------------

    def tidy(self) -> None:
        """To be called every few seconds: what has gone long ago is not shown any more."""
        now = self.clock()
        with self.lock:
            for node_id, known in self._known.items():
                if known.shown and known.stream is None and now - known.gone >= SHOWN:
                    known.shown = False
                    self._metrics.peer_gone(node_id)

    def counters(self) -> dict[str, int]:
        with self.lock:
            return dict(self._counters)

    def count(self, what: str, n: int) -> None:
        """With the lock held."""
        self._counters[what] += n

    def _remember(self, node_id: str) -> _Known:
        known = self._known.get(node_id)
        if known is None:
            if len(self._known) >= MAX_KNOWN:
                gone = [(k.gone, name) for name, k in self._known.items() if k.stream is None]
                if not gone:
                    raise Overloaded(f"{MAX_KNOWN} subscribers are connected, and no more are served")
                if self._known.pop(min(gone)[1]).shown:
                    self._metrics.peer_gone(min(gone)[1])
            known = self._known[node_id] = _Known(self.clock())
        elif known.stream is None:
            known.gone = self.clock()
        return known

    def _show(self, node_id: str, known: _Known) -> None:
        if not known.shown:
            known.shown = True
            for topic, end in self.ends.items():
                acked = min(known.acked.get(topic, 0), end - 1)
                if acked:
                    self._metrics.acked(node_id, topic, 0, acked)
                self._metrics.lag(node_id, topic, end - 1 - acked)

    def _count_streams(self) -> None:
        self._metrics.foreign_subscribers(len(self._streams))

    def _not_leader(self) -> NotLeader:
        leader = self._topology.leader_id
        return NotLeader(leader, self._topology.mgmt_addr.get(leader, ""))


class _Place:
    """Where a stream is in one topic. next: the next seq to send; floor: what retention has taken counts as had; since: when the oldest record without an
    acknowledgement was sent, or sent again; stuck: how often it was sent again."""

    __slots__ = ("floor", "next", "since", "stuck")

    def __init__(self, following: int) -> None:
        self.next, self.floor = following, following - 1
        self.since: float | None = None
        self.stuck = 0


class Subscription:
    """One open stream: `take` in the serving thread; `close` from any thread. reason: why it ended by itself."""

    def __init__(self, hub: Subscriptions, node_id: str, acked: dict[str, int] | None) -> None:
        """With the hub's lock held. acked: of the subscriber, changed by the hub; None: it has no name."""
        self.node_id = node_id
        self.reason: CoterieError | None = None
        self._hub, self._acked = hub, acked
        self._changed = threading.Condition(hub.lock)
        self._closed = False
        self._turn = 0
        self._places = {topic: self._place(topic, end) for topic, end in hub.ends.items()}

    def take(self, timeout: float) -> list[SentRecord] | None:
        """The next records, in order within each topic; none when `timeout` seconds bring none; None when there will be no more: then `reason` says why."""
        until = self._hub.clock() + timeout
        while True:
            with self._changed:
                if self._closed:
                    return None
                now = self._hub.clock()
                due = self._go_back(now)
                if self.reason is not None:
                    return None
                wanted = self._wanted()
                if not wanted:
                    if now >= until:
                        return []
                    self._changed.wait(max(0.001, min(until, due) - now))
                    continue
            found = self._read(wanted)
            if found:
                return found

    def close(self) -> None:
        with self._changed:
            self._close()

    # -- with the hub's lock held ---------------------------------------------------------------------------------------------

    def end(self, reason: CoterieError) -> None:
        self.reason = reason
        self._close()

    def wake(self) -> None:
        self._changed.notify_all()

    def acknowledged(self, topic: str) -> None:
        place = self._places.get(topic)
        if place is not None:
            place.since, place.stuck = self._hub.clock(), 0
        self._changed.notify_all()

    def _close(self) -> None:
        self._closed = True
        self._hub.closed(self)
        self._changed.notify_all()

    def _place(self, topic: str, end: int) -> _Place:
        if self._acked is None:
            return _Place(end)
        return _Place(min(self._acked.get(topic, 0) + 1, end))

    def _had(self, topic: str, place: _Place) -> int:
        """The last record of the topic that needs not be sent again."""
        return place.next - 1 if self._acked is None else max(place.floor, self._acked.get(topic, 0))

    def _go_back(self, now: float) -> float:
        """Begin again where the subscriber's acknowledgements end, in the topics where they are overdue. -> when to look next."""
        due = float("inf")
        for topic, place in self._places.items():
            had = self._had(topic, place)
            if place.next <= had + 1:
                place.next, place.since = had + 1, None
                continue
            if place.since is None:
                place.since = now
            if now - place.since >= self._hub.retry:
                place.stuck += 1
                if place.stuck > STALLED:
                    self._hub.count("streams stalled", 1)
                    self.end(
                        Overloaded(
                            f"{self.node_id!r} has acknowledged nothing of {topic!r} after seq {had} while it was sent {STALLED} times; subscribe again and "
                            "acknowledge (cluster.v1.Replication/Ack), or subscribe without a nodeId, which needs no acknowledgements"
                        )
                    )
                    return due
                self._hub.count("records sent again", place.next - 1 - had)
                place.next, place.since = had + 1, now
            due = min(due, place.since + self._hub.retry)
        return due

    def _wanted(self) -> list[tuple[str, int, int]]:
        """(topic, first, last) that may be sent now. Another topic comes first each time."""
        wanted = []
        for topic, end in self._hub.ends.items():
            place = self._places.get(topic)
            if place is None:
                place = self._places[topic] = _Place(self._acked.get(topic, 0) + 1 if self._acked is not None else 1)
            last = min(end - 1, self._had(topic, place) + self._hub.window) if self._acked is not None else end - 1
            if place.next <= last:
                wanted.append((topic, place.next, last))
        self._turn += 1
        at = self._turn % len(wanted) if wanted else 0
        return wanted[at:] + wanted[:at]

    # -- without the lock -----------------------------------------------------------------------------------------------------

    def _read(self, wanted: list[tuple[str, int, int]]) -> list[SentRecord]:
        found: list[SentRecord] = []
        size = 0
        for topic, first, last in wanted:
            if size >= READ_BYTES:
                break
            records, following = self._records(topic, first, last)
            size += sum(len(record.data) for record in records)
            found += records
            with self._changed:
                self._places[topic].next = following
        return found

    def _records(self, topic: str, first: int, last: int) -> tuple[list[SentRecord], int]:
        """The records of `topic` from `first` to `last`, as far as one reading brings them, and the seq after them."""
        try:
            batches = self._hub.buffer.read(topic, first, READ_BYTES, READ_BATCHES)
        except Gap as gap:
            self._passed_by(topic, first, gap.first_retained)
            return [], gap.first_retained
        records: list[SentRecord] = []
        for stored in batches:
            try:
                opened = decode_batch(stored.data).records
            except WireError as error:  # it was valid when it was stored
                raise StorageError(f"the buffer's batch {topic!r} seq {stored.first_seq} is not readable: {error}") from None
            for seq, record in enumerate(opened, stored.first_seq):
                if first <= seq <= last:
                    records.append(SentRecord(topic, record if record.__class__ is bytes else record[0], seq))
        return records, records[-1].seq + 1 if records else first

    def _passed_by(self, topic: str, first: int, retained: int) -> None:
        """Records first..retained-1 are gone. Who has had nothing of the topic yet begins there, and misses nothing that was promised."""
        with self._changed:
            place = self._places[topic]
            if self._had(topic, place) or place.next > 1:
                self._hub.count("records passed by retention", retained - first)
            place.floor = retained - 1
