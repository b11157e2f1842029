"""When a node of go-cluster leads, this node subscribes to it like one of its own, and gives the handler what it publishes.

    leader (go-cluster) ──Subscribe──► here: known already? ──► the handler ──► Ack (topic, seq) to that leader

Its promises are weaker than ours, and nothing here can mend that: no quorum has what it publishes, its sequence numbers begin again with each leader, and what
it had not sent is lost with it. So these records never touch what this node promises about its own: they go past the buffer, the cursors and the sequence
numbers, and reach `handle_sync` with `seq` and `index` 0 and the leader, its term and its seq in `headers` (`FROM`). In memory alone it is known which (leader,
term, topic, seq) has been taken, so what that leader sends again is not handled twice while this node and that leadership live.

Records are handled in the order in which they come, one batch at a time; one that raises is given to the handler again after `retry` seconds, and nothing after
it is acknowledged before it. Acknowledgements are cumulative, the highest of each topic, and one call at a time: its leader dies of two at once (it writes one
map from all of them). Without a handler there is no subscription: what nobody takes must not be acknowledged.

A member that is in no quorum learns from nobody that a node of go-cluster leads: it asks one of those members in turn, every `ASK_EVERY` seconds, and tells the
supervisor what it heard (`told`).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, Final, Protocol

import pykka

from coterie.actors.base import Actor, Crash
from coterie.actors.dead_letters import describe
from coterie.actors.future import LightFuture
from coterie.actors.handler_messages import Deliver, Delivered, SetHandler
from coterie.actors.replication.messages import DeliveryDone, LinkClosed
from coterie.actors.replication.metrics import NoMetrics, ReplicationMetrics
from coterie.actors.room_messages import Topology

__all__ = ["FROM", "ForeignFollower", "ForeignLink", "Taken"]

FROM: Final = "go-cluster"  # header of a record that came from such a leader: "<leader> <term> <seq>"
MOST_HELD: Final = 64 << 20  # bytes that wait for the handler; above it the stream is closed, and its leader sends again
MOST_RECORDS: Final = 256  # in one call of the handler actor
REMEMBERED: Final = 8192  # seqs of a topic below the highest; more than go-cluster's window, above which it does not publish
PAUSE: Final = 0.5  # seconds between tries
ASK_EVERY: Final = 2.0  # seconds

Told = Callable[[int, str], object]  # (term, leader id), "" when nobody leads
_NOBODY: Final = ("", 0)


class ForeignLink(Protocol):
    """The way to nodes of go-cluster. Nothing blocks; callbacks come from any thread."""

    def subscribe(
        self, address: str, on_record: Callable[[str, bytes, int], object], on_closed: Callable[[Exception | None], object]
    ) -> Any:
        """-> something with `close()`, or None when there is no way now."""

    def ack(self, address: str, topic: str, seq: int) -> LightFuture: ...

    def status(self, address: str) -> LightFuture:
        """-> ClusterStatus."""


class Taken:
    """Which sequence numbers of one topic have been taken. They come roughly in order; what lies far below the highest counts as taken.
    handled: the highest that the handler has had, which is what may be acknowledged."""

    __slots__ = ("_seen", "handled", "highest")

    def __init__(self) -> None:
        self.highest = self.handled = 0
        self._seen: set[int] = set()

    def add(self, seq: int) -> bool:
        """False: it was taken before."""
        if seq in self._seen or seq <= self.highest - REMEMBERED:
            return False
        self._seen.add(seq)
        self.highest = max(self.highest, seq)
        if len(self._seen) > 2 * REMEMBERED:
            self._seen = {s for s in self._seen if s > self.highest - REMEMBERED}
        return True

    def forget(self, seq: int) -> None:
        """It was not handled after all, and is taken when it comes again."""
        self._seen.discard(seq)


class _Record:
    __slots__ = ("data", "seq", "stream", "taken", "topic")

    def __init__(self, stream: int, topic: str, data: bytes, seq: int) -> None:
        self.stream, self.topic, self.data, self.seq = stream, topic, data, seq
        self.taken: Taken | None = None  # where it is remembered

    def forget(self) -> None:
        if self.taken is not None:
            self.taken.forget(self.seq)

    def handled(self) -> None:
        if self.taken is not None:
            self.taken.handled = max(self.seq, self.taken.handled)


class _AckDone:
    __slots__ = ("error", "seq", "stream", "topic")

    def __init__(self, stream: int, topic: str, seq: int, error: BaseException | None) -> None:
        self.stream, self.topic, self.seq, self.error = stream, topic, seq, error


class _Heard:
    __slots__ = ("asked",)

    def __init__(self, asked: LightFuture) -> None:
        self.asked = asked


class ForeignFollower(Actor):
    """Tell it Topology and SetHandler. told: gets (term, leader) when a member of go-cluster was asked who leads."""

    concern: ClassVar[str] = "foreign"

    def __init__(
        self,
        node: str,
        link: ForeignLink,
        told: Told,
        *,
        retry: float = 1.5,
        metrics: ReplicationMetrics | None = None,
        on_crash: Callable[[Crash], None] | None = None,
    ) -> None:
        super().__init__(node, on_crash)
        self._link, self._told, self._retry = link, told, retry
        self._metrics = metrics or NoMetrics()
        self._topology = Topology()
        self._handler: Any = None
        self._following = _NOBODY
        self._complained = _NOBODY  # whose lost stream was told in the log
        self._leadership = _NOBODY  # the one that `_taken` is of
        self._taken: dict[str, Taken] = {}  # topic -> what was taken in this leadership
        self._stream: Any = None
        self._stream_id = 0
        self._open_at: float | None = None
        self._waiting: deque[_Record] = deque()
        self._held = 0
        self._outstanding: LightFuture | None = None
        self._delivering: list[_Record] = []
        self._attempt = 1
        self._retry_at: float | None = None
        self._acks: dict[str, int] = {}
        self._acking = False
        self._ack_at: float | None = None
        self._ask_at: float | None = None
        self._asked = 0
        self.counters = {
            "foreign records": 0,
            "foreign records again": 0,
            "foreign records not understood": 0,
            "foreign handler errors": 0,
            "foreign streams ended": 0,
        }

    def on_receive(self, message: Any) -> Any:
        kind = message.__class__
        if kind is _Record:
            self._came(message)
        elif kind is DeliveryDone:
            self._done(message.future)
        elif kind is Topology:
            self._set_topology(message)
        elif kind is SetHandler:
            self._handler = message.ref
            self._follow()
        elif kind is LinkClosed:
            if message.link_id == self._stream_id:
                self._lost(message.error)
        elif kind is _AckDone:
            self._acknowledged(message)
        elif kind is _Heard:
            self._heard(message.asked)
        else:
            self.log.warning("unexpected message: %r", message)

    def flush(self) -> None:
        if self._waiting and self._outstanding is None and self._retry_at is None and self._handler is not None:
            self._deliver()
        if self._acks and not self._acking and self._ack_at is None:
            self._acknowledge()
        times = (self._open_at, self._retry_at, self._ack_at, self._ask_at)
        self.wake_at(min((when for when in times if when is not None), default=None))

    def on_wake(self, now: float) -> None:
        if self._retry_at is not None and self._retry_at <= now:
            self._retry_at = None
        if self._ack_at is not None and self._ack_at <= now:
            self._ack_at = None
        if self._open_at is not None and self._open_at <= now:
            self._open_at = None
            self._open()
        if self._ask_at is not None and self._ask_at <= now:
            self._ask(now)

    def on_stop(self) -> None:
        if self._stream is not None:
            self._stream.close()

    # -- whom to follow -------------------------------------------------------------------------------------------------------

    def _set_topology(self, topology: Topology) -> None:
        before, self._topology = self._topology, topology
        alone = not topology.in_quorum and bool(topology.foreign) and (not topology.leader_id or bool(topology.foreign_leader))
        if not alone:
            self._ask_at = None
        elif self._ask_at is None:
            self._ask_at = time.monotonic()
        if (before.foreign_leader, before.leader_id, before.term) != (topology.foreign_leader, topology.leader_id, topology.term):
            self._follow()

    def _follow(self) -> None:
        """Subscribe where the topology says, if there is a handler to give it to."""
        topology = self._topology
        wanted = (topology.leader_id, topology.term) if topology.foreign_leader and self._handler is not None else _NOBODY
        if wanted == self._following:
            return
        self._following = wanted
        self._drop_stream()
        self._open_at = None
        if wanted != _NOBODY:
            if wanted != self._leadership:
                self._leadership, self._taken = wanted, {}
            self._open()

    def _open(self) -> None:
        address = self._topology.foreign_leader
        if not address or self._handler is None or self._stream is not None:
            return
        self._stream_id += 1
        me, stream_id = self.ref, self._stream_id
        self._stream = self._link.subscribe(
            address,
            lambda topic, data, seq: me.send(_Record(stream_id, topic, data, seq)),
            lambda error: me.send(LinkClosed(stream_id, error)),
        )
        if self._stream is None:
            self._open_at = time.monotonic() + PAUSE

    def _lost(self, error: Exception | None) -> None:
        """The stream ended, or was none: a leader whose management speaks HTTP has nothing to subscribe to, and this is where a user hears of it."""
        if error is not None:
            self.counters["foreign streams ended"] += 1
            if self._complained != self._following:
                self._complained = self._following
                self.log.warning(
                    "the stream of what the leader %s publishes has ended, and is opened again: %s (a node of go-cluster has such a stream only where its "
                    'management speaks gRPC, MgmtProto "grpc")',
                    self._following[0],
                    error,
                )
        self._drop_stream()
        self._open_at = time.monotonic() + PAUSE

    def _drop_stream(self) -> None:
        """What it brought and was not handled is forgotten, and taken when it comes again."""
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()
        self._stream_id += 1
        for record in self._waiting:
            if record not in self._delivering:
                record.forget()
        self._waiting.clear()
        self._held = 0
        self._acks.clear()

    def _ask(self, now: float) -> None:
        self._ask_at = now + ASK_EVERY
        topology = self._topology
        members = sorted(topology.foreign)
        address = topology.mgmt_addr.get(members[self._asked % len(members)], "") if members else ""
        self._asked += 1
        if address:
            asked = self._link.status(address)
            asked.on_done(lambda: self.ref.send(_Heard(asked)))

    def _heard(self, asked: LightFuture) -> None:
        if asked.error is None:
            status = asked.get(timeout=0)
            self._told(status.term, status.leader_id)

    # -- towards the handler --------------------------------------------------------------------------------------------------

    def _came(self, record: _Record) -> None:
        if record.stream != self._stream_id:
            return
        if not record.topic or not record.seq:
            self.counters["foreign records not understood"] += 1
            return
        taken = record.taken = self._taken.setdefault(record.topic, Taken())
        if not taken.add(record.seq):
            self.counters["foreign records again"] += 1
            if taken.handled and not self._waiting and self._outstanding is None:
                self._acks[record.topic] = taken.handled  # its leader has not heard it
            return
        self._waiting.append(record)
        self._held += len(record.data)
        if self._held > MOST_HELD:
            self.log.warning("%d bytes from the leader wait for the handler: the stream is closed, and opened again later", self._held)
            self._drop_stream()
            self._open_at = time.monotonic() + self._retry

    def _deliver(self) -> None:
        first = self._waiting[0]
        batch: list[_Record] = []
        for record in self._waiting:
            if record.topic != first.topic or len(batch) == MOST_RECORDS:
                break
            batch.append(record)
        leader, term = self._leadership
        records: list[tuple[int, bytes, dict[str, str] | None]] = [(0, r.data, {FROM: f"{leader} {term} {r.seq}"}) for r in batch]
        future = self._handler.ask(Deliver(first.topic, records, 0, time.time(), self._attempt), block=False)
        self._delivering, self._outstanding = batch, future
        future.on_done(partial(self._tell_done, first.topic, future))

    def _tell_done(self, topic: str, future: LightFuture) -> None:
        """In the handler's thread."""
        self.ref.send(DeliveryDone(topic, future))

    def _done(self, future: LightFuture) -> None:
        if future is not self._outstanding:
            return
        batch, self._outstanding, self._delivering = self._delivering, None, []
        if isinstance(future.error, pykka.ActorDeadError):
            self._handler = None
            for record in batch:
                record.forget()
            self._follow()
            return
        result = _result(future)
        handled = batch[: result.count]
        for record in handled:
            record.handled()
        self.counters["foreign records"] += len(handled)
        if handled:
            self._attempt = 1
            self._metrics.delivered(handled[0].topic, len(handled))
        if (
            not self._waiting or self._waiting[0] is not batch[0]
        ):  # the stream they came by is gone: what was not handled is taken when it comes again
            for record in batch[len(handled) :]:
                record.forget()
            self._attempt = 1
            return
        for record in handled:
            self._waiting.popleft()
            self._held -= len(record.data)
            self._acks[record.topic] = max(record.seq, self._acks.get(record.topic, 0))
        if result.error is not None:
            self.counters["foreign handler errors"] += 1
            if self._attempt == 1:
                self.log.warning(
                    "the handler raised on a record of %r from the leader; again every %g s: %s",
                    batch[0].topic,
                    self._retry,
                    describe(result.error),
                )
            self._attempt += 1
            self._retry_at = time.monotonic() + self._retry

    # -- towards the leader ---------------------------------------------------------------------------------------------------

    def _acknowledge(self) -> None:
        address = self._topology.foreign_leader
        if not address:
            self._acks.clear()
            return
        topic, seq = self._acks.popitem()
        self._acking = True
        stream = self._stream_id
        asked = self._link.ack(address, topic, seq)
        asked.on_done(lambda: self.ref.send(_AckDone(stream, topic, seq, asked.error)))

    def _acknowledged(self, message: _AckDone) -> None:
        self._acking = False
        if message.error is not None and message.stream == self._stream_id:
            self._acks[message.topic] = max(message.seq, self._acks.get(message.topic, 0))
            self._ack_at = time.monotonic() + PAUSE


def _result(future: LightFuture) -> Delivered:
    """What a handler actor answered, whatever went wrong with it."""
    if future.error is not None:
        return Delivered(0, future.error)
    result = future.get()
    return result if isinstance(result, Delivered) else Delivered(0, TypeError(f"the handler actor answered {type(result).__name__}"))
