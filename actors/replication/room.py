"""The room put together: which actor knows which, and in which order they start and stop."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any, Final

import pykka

from coterie.actors.base import Crash, Ref
from coterie.actors.errors import StorageError
from coterie.actors.future import LightFuture
from coterie.actors.handler_messages import AwaitCommands, CommandSupport, SetHandler
from coterie.actors.messages import Publish
from coterie.actors.replication.buffer import ReplicationBuffer, StateHead
from coterie.actors.replication.buffer_writer import BufferWriter
from coterie.actors.replication.command_delivery import CommandDelivery, FetchState
from coterie.actors.replication.delivery import Delivery, SendAcks
from coterie.actors.replication.following import FollowHub, FollowLink, StreamFollower
from coterie.actors.replication.foreign import ForeignFollower, ForeignLink, Told
from coterie.actors.replication.forwarding import LeaderLink
from coterie.actors.replication.letter_desk import LetterDesk
from coterie.actors.replication.limits import Limits
from coterie.actors.replication.messages import OwnPublish, Stored
from coterie.actors.replication.metrics import ReplicationMetrics
from coterie.actors.replication.publisher import Publisher
from coterie.actors.replication.reads import Reads, There, read_from
from coterie.actors.replication.recovery import Past, recovered
from coterie.actors.replication.subscriber import Subscribers
from coterie.actors.replication.subscriptions import Subscriptions
from coterie.actors.room_messages import COMMANDS_TOPIC, Topology
from coterie.proto.command import ORIGIN_BYTES

STOP_PATIENCE: Final = 6.0  # seconds for each actor; delivery gives the handler a little less


class Replication:
    """Publishing on one node.

    buffer: opened by the caller, who closes it after `stop`. leader_link, send_acks, follow_link: the way to other nodes; they must not block. emit:
    takes events. past(index): the entries of the Raft log up to there, for what a buffer of an older version lacks. snapshots:
    the directory for files of snapshots; None: the system's place. every, every_bytes: commands, or bytes of them, between two snapshots of the handler's
    state. fetch_state: from another node.

    `applied` is the Raft index from which the state machine wants the log to go on: known once this is made, before `start(raft)`. After the start,
    `publisher` takes Publish, Apply, AwaitCommands, Committed, Appended, ProposalsFailed, Topology, SetHandler, ForwardedBatch, SessionClosed and
    GetReplicationView; `letter_desk` takes DeadLetters and Requeue; `follower` and `subscriptions` want Topology too; `subscribers.acks_arrived` takes
    AcksArrived from any thread; `hub.open` serves a stream to a node of ours, and `subscriptions.open` one to any other subscriber.
    """

    publisher: Ref
    delivery: Ref
    commands: Ref
    letter_desk: Ref
    reads: Ref
    writer: Ref
    follower: Ref | None = None
    foreign: Ref | None = None

    def __init__(
        self,
        node: str,
        buffer: ReplicationBuffer,
        leader_link: LeaderLink,
        send_acks: SendAcks,
        emit: Callable[[Any], object],
        *,
        follow_link: FollowLink | None = None,
        past: Past = lambda index: (),
        foreign_link: ForeignLink | None = None,
        told: Told = lambda term, leader: None,
        read_index: There = lambda leader, lease, timeout: LightFuture(),
        limits: Limits | None = None,
        retry: float = 1.5,
        attempts: int = 10,
        letters: str = "dead-letters",
        gap: float = 0.02,
        retain_records: int = 100_000,
        retain_bytes: int = 256 << 20,
        memory: int = 64 << 20,
        snapshots: Path | None = None,
        fetch_state: FetchState | None = None,
        every: int = 10_000,
        every_bytes: int = 64 << 20,
        metrics: ReplicationMetrics | None = None,
        on_crash: Callable[[Crash], None] | None = None,
    ) -> None:
        self._node, self._buffer, self._metrics, self._on_crash = node, buffer, metrics, on_crash
        self._leader_link, self._send_acks, self._emit, self._follow_link = leader_link, send_acks, emit, follow_link
        self._foreign_link, self._told, self._read_index = foreign_link, told, read_index
        self._limits, self._retry, self._gap, self._snapshots = limits, retry, gap, snapshots
        self._attempts, self._letters = attempts, letters
        self._every, self._every_bytes, self._fetch_state = every, every_bytes, fetch_state
        self._origin = os.urandom(ORIGIN_BYTES)
        self._retain_records, self._retain_bytes, self._memory = retain_records, retain_bytes, memory
        self._machine, self._state = recovered(buffer, past)
        self.hub = FollowHub(buffer, self._state)
        self.subscriptions = Subscriptions(buffer, self._state, window=(limits or Limits()).window, retry=retry, metrics=metrics)
        self.subscribers = Subscribers(node, self._to_publisher, on_crash)

    @property
    def applied(self) -> tuple[int, int]:
        """(index, term) of the last entry in the state machine."""
        return self._machine.applied

    def start(self, raft: Any) -> Ref:
        """Start the actors; -> the publisher's reference. `raft` is the Raft actor's."""
        common: dict[str, Any] = {"metrics": self._metrics, "on_crash": self._on_crash}
        node, buffer, state = self._node, self._buffer, self._state
        self.writer = BufferWriter.start(  # type: ignore[assignment]
            node, buffer, state, dict(self._machine.next_seqs), self._stored,
            gap=self._gap, retain_records=self._retain_records, retain_bytes=self._retain_bytes, **common,
        )  # fmt: skip
        self.delivery = Delivery.start(  # type: ignore[assignment]
            node,
            buffer,
            state,
            self.writer,
            self._to_publisher,
            self._send_acks,
            self._emit,
            self._publish,
            retry=self._retry,
            attempts=self._attempts,
            letters=self._letters,
            memory=self._memory,
            ack_records=max(1, (self._limits or Limits()).window // 8),
            **common,
        )
        self.commands = CommandDelivery.start(  # type: ignore[assignment]
            node,
            buffer,
            state,
            self.writer,
            self._origin,
            self._to_publisher,
            self.delivery.send,
            self._emit,
            fetch_state=self._fetch_state,
            directory=self._snapshots,
            every=self._every,
            every_bytes=self._every_bytes,
            retry=self._retry,
            memory=self._memory,
            **common,
        )
        retained = {topic: (stored.first_seq, stored.next_seq) for topic, stored in state.topics.items() if stored.next_seq}
        self.publisher = Publisher.start(  # type: ignore[assignment]
            node,
            raft,
            self._machine,
            retained,
            self.writer,
            self.delivery,
            self.commands,
            self._leader_link,
            self.subscribers.set_peers,
            buffer,
            snapshots=self._snapshots,
            letters=self._letters,
            origin=self._origin,
            limits=self._limits,
            **common,
        )
        self.letter_desk = LetterDesk.start(node, buffer, self._letters, self._publish, self._on_crash)  # type: ignore[assignment]
        self._raft = raft
        self.reads = Reads.start(  # type: ignore[assignment]
            node,
            self.read_from,
            self._read_index,
            self._handled,
            timeout=(self._limits or Limits()).request_timeout,
            on_crash=self._on_crash,
        )
        if self._follow_link is not None:
            self.follower = StreamFollower.start(node, state, self._follow_link, self._to_publisher, self._on_crash)  # type: ignore[assignment]
        if self._foreign_link is not None:
            self.foreign = ForeignFollower.start(node, self._foreign_link, self._told, retry=self._retry, **common)  # type: ignore[assignment]
        return self.publisher

    def read_from(self, lease: bool) -> LightFuture:
        """From where on a node's own handler may answer, by this node as the leader: a ReadFrom, or NotLeader. From any thread."""
        return read_from(self._raft, self.publisher, lease)

    def _handled(self, commands: int) -> LightFuture:
        future: LightFuture = self.publisher.ask(AwaitCommands(commands), block=False)
        return future

    def actors(self) -> Iterator[tuple[str, Ref]]:
        """The room's actors beside the publisher, with their concerns; one subscriber for each peer."""
        yield from (("delivery", self.delivery), ("commands", self.commands), ("buffer", self.writer), ("reads", self.reads))
        if self.follower is not None:
            yield "following", self.follower
        if self.foreign is not None:
            yield "foreign", self.foreign
        for ref in self.subscribers.refs:
            yield "subscriber", ref

    def told_topology(self, topology: Topology) -> None:
        """For all of the room that want it."""
        self.publisher.send(topology)
        self.subscriptions.set_topology(topology)
        for ref in (self.reads, self.follower, self.foreign):
            if ref is not None:
                ref.send(topology)

    def handler_state(self, at_least: int) -> tuple[StateHead, Iterator[bytes]] | None:
        """The snapshot of the handler's state that the buffer keeps, where it goes up to that command, and its blocks: they end early when another takes its
        place. Any thread."""
        head = self._buffer.state_head()
        if head is None or head.index < at_least:
            return None
        blocks = (self._buffer.block(head.index, number) for number in range(head.blocks))
        return head, takewhile(lambda block: block is not None, blocks)  # type: ignore[arg-type]

    def set_handler(self, handler: Any) -> None:
        actor: Any = handler._actor_weakref() if handler is not None else None
        message = SetHandler(handler, getattr(actor, "command_support", CommandSupport()))
        self.publisher.send(message)
        self.reads.send(message)  # after the publisher: what it then asks for is about this handler
        if self.foreign is not None:
            self.foreign.send(message)

    def counters(self) -> dict[str, int]:
        """What subscribers that are no nodes of ours have missed, and what came from leaders that are none. From any thread."""
        actor: Any = self.foreign._actor_weakref() if self.foreign is not None else None
        return {**self.subscriptions.counters(), **(dict(actor.counters) if actor is not None else {})}

    def read_counters(self) -> dict[str, int]:
        """How many reads of each kind this node has taken, and how the leader vouched for them. From any thread."""
        actor: Any = self.reads._actor_weakref()
        return dict(actor.counters) if actor is not None else {}

    def stop(self) -> None:
        """Fail what waits, let the handler finish, write what there is. Blocks for a few seconds at most: whoever waits for a disk that does not answer is left
        to it, and stops when it answers. Raises StorageError then."""
        self.hub.stop()
        self.subscriptions.stop()
        late = []
        for name, ref in self._in_order():
            try:
                ref.stop(timeout=STOP_PATIENCE)
            except pykka.Timeout:
                late.append(name)
            if name == "publisher":
                self.subscribers.stop()
        if late:
            raise StorageError(
                f"{' and '.join(late)} did not stop within {STOP_PATIENCE:g} s: the disk does not answer, or a handler does not return"
            )

    def _in_order(self) -> Iterator[tuple[str, Ref]]:
        yield from ((name, ref) for name, ref in (("following", self.follower), ("foreign", self.foreign)) if ref is not None)
        yield from (("reads", self.reads), ("publisher", self.publisher), ("letters", self.letter_desk))
        yield from (("commands", self.commands), ("delivery", self.delivery), ("buffer", self.writer))

    def _to_publisher(self, message: Any) -> bool:
        return self.publisher.send(message)

    def _publish(self, message: Publish) -> LightFuture:
        future: LightFuture = self.publisher.ask(OwnPublish(message), block=False)
        return future

    def _stored(self, message: Stored) -> None:
        """In the writer's thread, after each transaction."""
        self.publisher.send(message)
        self.delivery.send(message)
        if COMMANDS_TOPIC in message.topics:
            self.commands.send(message)
        self.hub.stored(message)
        self.subscriptions.stored(message)
        if self.follower is not None:
            self.follower.send(message)
