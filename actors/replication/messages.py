"""What the actors of this room, and the wiring around them, tell each other. Made per batch or per transaction: slotted classes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable
from typing import IO, Any, NamedTuple

import attrs

from coterie.actors.errors import CoterieError
from coterie.actors.future import LightFuture
from coterie.actors.handler_messages import WrittenState
from coterie.actors.messages import Failing, Publish
from coterie.actors.replication.buffer import NewState, Remembered, StateHead, StoredBatch
from coterie.proto.record_batch import Record


class NewBatch(NamedTuple):
    """A batch that has its place: `records` begin at `first_seq`. time: seconds since the epoch; size: bytes of it, as stored; trace: the context in which
    its entry was applied here, where that was traced."""

    topic: str
    first_seq: int
    index: int  # type: ignore[assignment]  # the Raft index; tuple.index() is never wanted here
    time: float
    records: list[Record]
    size: int
    trace: Any = None

    @property
    def last_seq(self) -> int:
        return self.first_seq + len(self.records) - 1


class NewBatches:
    """The publisher tells delivery: committed, in order."""

    __slots__ = ("batches",)

    def __init__(self, batches: list[NewBatch]) -> None:
        self.batches = batches


class WriteBatches:
    """The publisher tells the buffer writer what the state machine decided.

    batches: to store, in order; those that a stream had brought before are skipped. applied: (index, term) of the last entry in it, None for streamed
    batches. ids: message ids that entered the window (key, Remembered) or left it (key, None), as it happened. next_seqs: of the state machine, of
    the topics that moved. roster: its document where it has changed.
    """

    __slots__ = ("applied", "batches", "ids", "next_seqs", "roster")

    def __init__(
        self,
        batches: list[StoredBatch],
        applied: tuple[int, int] | None = None,
        ids: list[tuple[bytes, Remembered | None]] | None = None,
        next_seqs: dict[str, int] | None = None,
        roster: bytes | None = None,
    ) -> None:
        self.batches, self.applied, self.ids, self.next_seqs, self.roster = batches, applied, ids or [], next_seqs or {}, roster


class MakeSafe:
    """Ask the buffer writer: store what it has, and sync. -> the applied index up to which everything survives a failure of power."""

    __slots__ = ()


class Restore:
    """Ask the buffer writer: put the snapshot in the file `content`, which must end with the entry `applied` (index, term), in the place of what the buffer holds.
    -> its `snapshots.Content`. Raises InvalidRequest for one that cannot be used: nothing was changed."""

    __slots__ = ("applied", "content", "mark")

    def __init__(self, content: IO[bytes], applied: tuple[int, int], mark: bytes) -> None:
        self.content, self.applied, self.mark = content, applied, mark


class RestoreRoster:
    """Ask the buffer writer: the roster becomes `document`, the snapshot of a go-cluster node that ends with the entry `applied` (index, term); topics go on
    where they are. -> and raises as `Restore`."""

    __slots__ = ("applied", "document", "mark")

    def __init__(self, document: bytes, applied: tuple[int, int], mark: bytes) -> None:
        self.document, self.applied, self.mark = document, applied, mark


class KeepState:
    """Ask the buffer writer: keep the handler's state in `new` in the place of the one before. -> True."""

    __slots__ = ("new",)

    def __init__(self, new: NewState) -> None:
        self.new = new


class CommandsDone:
    """The commands' delivery tells the buffer writer. cursor: the next command for the handler. hold: nothing from there on may be trimmed; None: as the
    retention says. rows: of sessions, by index, None for one that goes; anew: all earlier ones go first."""

    __slots__ = ("anew", "cursor", "hold", "rows")

    def __init__(self, cursor: int, hold: int | None, rows: dict[int, bytes | None], anew: bool) -> None:
        self.cursor, self.hold, self.rows, self.anew = cursor, hold, rows, anew


class Restored:
    """The publisher tells delivery: a snapshot has taken the place of the state machine; the next seq of each topic is this. unknown: (first, last) of the entries
    of which it told nothing but the roster."""

    __slots__ = ("next_seqs", "unknown")

    def __init__(self, next_seqs: dict[str, int], unknown: tuple[int, int] | None = None) -> None:
        self.next_seqs, self.unknown = next_seqs, unknown


class CursorsMoved:
    """Delivery tells the buffer writer: the next seq to deliver, by topic."""

    __slots__ = ("cursors",)

    def __init__(self, cursors: dict[str, int]) -> None:
        self.cursors = cursors


class HandlerPresent:
    """Delivery tells the buffer writer whether a handler is registered: what it has not had is then not trimmed."""

    __slots__ = ("present",)

    def __init__(self, present: bool) -> None:
        self.present = present


class Stored:
    """The buffer writer tells: a transaction is done. topics: {topic: (first retained seq, next seq)} of those it changed; size, batches: what was
    written, in bytes and in number."""

    __slots__ = ("applied", "batches", "size", "topics")

    def __init__(self, applied: int, topics: dict[str, tuple[int, int]], size: int, batches: int = 0) -> None:
        self.applied, self.topics, self.size, self.batches = applied, topics, size, batches


class AcksArrived:
    """Acknowledgements of a member, cumulative: it has (delivered, or stored where it has no handler) every record up to `acks[topic]`.

    announce: this is its whole state, as each member sends it to a new leader; topics not named in it stand at 0.
    """

    __slots__ = ("acks", "announce", "node_id")

    def __init__(self, node_id: str, acks: dict[str, int], announce: bool = False) -> None:
        self.node_id, self.acks, self.announce = node_id, acks, announce


class PeerAcks(AcksArrived):
    """A subscriber actor tells the publisher what arrived from its peer, coalesced."""

    __slots__ = ()


class ForwardedBatch:
    """The wiring tells the leader's publisher: `data` (proto.forwarding) came over `session`.

    reply(forward_id, payload, error) is called once, from the publisher's thread: payload is the encoded answer, or error a CoterieError. NotLeader
    and Overloaded mean: refused, certainly not in the log. It must not block. trace: the context that came with it (tracing.to_text), "" for none.
    """

    __slots__ = ("data", "forward_id", "reply", "session", "trace")

    def __init__(
        self,
        session: Hashable,
        forward_id: int,
        data: bytes,
        reply: Callable[[int, bytes | None, Exception | None], None],
        trace: str = "",
    ) -> None:
        self.session, self.forward_id, self.data, self.reply, self.trace = session, forward_id, data, reply, trace


class SessionClosed:
    """The wiring tells the leader's publisher: no more batches come over `session`, and nobody hears its answers."""

    __slots__ = ("session",)

    def __init__(self, session: Hashable) -> None:
        self.session = session


class ForwardReply:
    """A link tells its own publisher what the leader answered."""

    __slots__ = ("error", "forward_id", "link_id", "payload")

    def __init__(self, link_id: int, forward_id: int, payload: bytes | None, error: Exception | None) -> None:
        self.link_id, self.forward_id, self.payload, self.error = link_id, forward_id, payload, error


class LinkClosed:
    """A link tells its own publisher that it is broken: what was not answered will not be."""

    __slots__ = ("error", "link_id")

    def __init__(self, link_id: int, error: Exception | None) -> None:
        self.link_id, self.error = link_id, error


class StreamedBatches:
    """The following of a leader's stream tells the publisher of a node that is no Raft server."""

    __slots__ = ("batches",)

    def __init__(self, batches: list[StoredBatch]) -> None:
        self.batches = batches


class DeliveryDone:
    """A handler actor has answered; told by the future's callback."""

    __slots__ = ("future", "topic")

    def __init__(self, topic: str, future: Any) -> None:
        self.topic, self.future = topic, future


APPLIED, FAILED, EXPIRED, FORGOTTEN = range(
    4
)  # what came of a command: a result, an error of the handler's, nothing, or that it was applied before


class CommandsHandled:
    """The commands' delivery tells the publisher what came of commands of this node: [(ticket, index, code, result or text)]."""

    __slots__ = ("outcomes",)

    def __init__(self, outcomes: list[tuple[int, int, int, bytes]]) -> None:
        self.outcomes = outcomes


class CommandsUnable:
    """The commands' delivery tells the publisher: commands get no result here, for this reason; None: they do."""

    __slots__ = ("error",)

    def __init__(self, error: CoterieError | None) -> None:
        self.error = error


class CommandsMoved:
    """The commands' delivery tells delivery, which tells the leader and the status. acked: up to which command this node has had them, or has stored them where its
    handler takes none. delivered: up to which the handler has had them."""

    __slots__ = ("acked", "counters", "delivered", "warnings")

    def __init__(self, acked: int, delivered: int, warnings: tuple[str, ...], counters: dict[str, int]) -> None:
        self.acked, self.delivered, self.warnings, self.counters = acked, delivered, warnings, counters


class HandlerAnswered:
    """A handler actor has answered what the commands' delivery asked; then(future): what follows. Told by the future's callback."""

    __slots__ = ("future", "then")

    def __init__(self, future: LightFuture, then: Callable[[LightFuture], None]) -> None:
        self.future, self.then = future, then


class WriterAnswered:
    """The buffer's writer has answered."""

    __slots__ = ("future",)

    def __init__(self, future: LightFuture) -> None:
        self.future = future


class StateFetched:
    """The other nodes have given a state, or have none."""

    __slots__ = ("head", "written")

    def __init__(self, head: StateHead | None, written: WrittenState | None) -> None:
        self.head, self.written = head, written


class LetterDone:
    """The publish of a topic's dead letter has its outcome; told by the future's callback."""

    __slots__ = ("future", "topic")

    def __init__(self, topic: str, future: Any) -> None:
        self.topic, self.future = topic, future


class OwnPublish:
    """Ask the publisher: a publish of this node itself (a dead letter, or the record of one), with room for its headers beyond the application's limits."""

    __slots__ = ("publish",)

    def __init__(self, publish: Publish) -> None:
        self.publish = publish


@attrs.define(frozen=True)
class GetDeliveryView:
    """-> DeliveryView. topics: those to say `delivered` of."""

    topics: Collection[str]


@attrs.define(frozen=True)
class DeliveryView:
    """delivered: last seq the handler has had, by topic. failing, dead_letters: as in `ReplicationView`."""

    delivered: dict[str, int]
    counters: dict[str, int]
    warnings: tuple[str, ...]
    failing: tuple[Failing, ...] = ()
    dead_letters: dict[str, int] = attrs.field(factory=dict)
