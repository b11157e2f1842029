"""`Cluster`: the same messages as plain methods, for code that does not think in actors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from coterie.actors.config import Config
from coterie.actors.event_stream import EventStream
from coterie.actors.messages import (
    Acks,
    Applied,
    Apply,
    ClusterStatus,
    Consistency,
    DeadLetters,
    Join,
    Joined,
    Leave,
    Left,
    LetterPage,
    Publish,
    Published,
    PublishedMany,
    PublishMany,
    Read,
    RegisterHandler,
    Requeue,
    Status,
    Subscribe,
    TransferLeadership,
    Write,
)
from coterie.actors.supervisor import ClusterRef, ClusterSupervisor


class Cluster:
    """A running node; a context manager that stops it. Every method may raise a `CoterieError`, and keeps its deadline.

    with Cluster(Config(node_id="n1", bootstrap=True)) as cluster:
        cluster.publish("orders.created", b"42")

    `timeout`: seconds; None is `Config.request_timeout`. Safe to use from several threads.
    """

    def __init__(self, config: Config, handler: Any = None) -> None:
        """handler: a running HandlerActor's reference. Raises ConfigError, StorageError, BindFailed."""
        self.ref: ClusterRef = ClusterSupervisor.start(config)
        if handler is not None:
            try:
                self.register(handler)
            except BaseException:  # nobody else holds the reference
                self.ref.stop()
                raise

    def register(self, handler: Any) -> None:
        """Use the handler actor `handler` (the reference that `HandlerActor.start()` gives) from now on, instead of the one before. Raises InvalidRequest."""
        self.ref.ask(RegisterHandler(handler))

    def publish(
        self,
        topic: str,
        data: bytes,
        *,
        acks: Acks = "quorum",
        message_id: str | None = None,
        headers: dict[str, str] | None = None,
        timeout: float | None = None,
    ) -> Published:
        """Publish one record to every node's handler. -> Published, with its `seq` in the topic. See `Publish`.

        Raises NoQuorum, Overloaded, PayloadTooLarge and InvalidRequest when it was certainly not published, Indeterminate when nobody knows: then only a retry
        with the same `message_id` is safe. With acks="all", NotDelivered when it is published and somebody lacks it.
        """
        answer: Published = self.ref.ask(Publish(topic, data, acks, message_id, headers, timeout))
        return answer

    def apply(
        self, op: str, data: bytes = b"", *, session: str | None = None, number: int | None = None, timeout: float | None = None
    ) -> Applied:
        """Run the command `op` on every node's `handle_apply`, in one order. -> Applied, with the `result` of this node's handler. See `Apply`.

        Raises HandlerFailed (it counts as applied), NoQuorum, Overloaded, Indeterminate, SessionExpired, AlreadyApplied.
        """
        answer: Applied = self.ref.ask(Apply(op, data, session, number, timeout))
        return answer

    def publish_many(self, topic: str, data: Sequence[bytes], *, acks: Acks = "quorum", timeout: float | None = None) -> PublishedMany:
        """Publish all records or none, side by side in their topic. -> PublishedMany, with `first_seq` and `last_seq`. See `PublishMany`; raises as `publish`."""
        answer: PublishedMany = self.ref.ask(PublishMany(topic, data, acks, timeout))
        return answer

    def write(self, op: str, data: bytes = b"", *, timeout: float | None = None) -> bytes:
        """Run `handle_write(op, data)` on the leader, whichever node this is. -> the handler's bytes.

        Raises HandlerFailed, NoQuorum (the handler did not run), Indeterminate (it may have run).
        """
        answer: bytes = self.ref.ask(Write(op, data, timeout))
        return answer

    def read(self, op: str, data: bytes = b"", *, timeout: float | None = None, consistency: Consistency | None = None) -> bytes:
        """Run `handle_read(op, data)`. -> the handler's bytes. See `Read` for `consistency`; None reads on the leader.

        Raises HandlerFailed, NoQuorum, Overloaded; it can be asked again.
        """
        answer: bytes = self.ref.ask(Read(op, data, timeout, consistency))
        return answer

    def status(self, *, local: bool = False, timeout: float | None = None) -> ClusterStatus:
        """The cluster as the leader sees it; local=True: as this node sees it, without asking anybody. -> ClusterStatus. A leader that does not answer is a warning
        in it, and no error.
        """
        answer: ClusterStatus = self.ref.ask(Status(local, timeout))
        return answer

    def join(self, member_id: str, raft_addr: str, *, timeout: float | None = None) -> Joined:
        """Make the server `member_id` at Raft address `raft_addr` (host:port) a voter; it catches up first. On the leader only. -> Joined.

        Raises NotLeader (with the leader's address), AlreadyMember, Unreachable, NoQuorum.
        """
        answer: Joined = self.ref.ask(Join(member_id, raft_addr, timeout))
        return answer

    def leave(self, member_id: str, *, timeout: float | None = None) -> Left:
        """Take the server `member_id` out of the quorum. On the leader only. -> Left. Raises NotLeader, UnknownMember, NoQuorum."""
        answer: Left = self.ref.ask(Leave(member_id, timeout))
        return answer

    def transfer(self, member_id: str | None = None, *, timeout: float | None = None) -> None:
        """Hand leadership to the voter `member_id`, or to the one that has most of the log. On the leader only. See `TransferLeadership`. Raises NotLeader,
        UnknownMember, Unreachable.
        """
        self.ref.ask(TransferLeadership(member_id, timeout))

    transfer_leadership = transfer  # as it was called first

    def dead_letters(
        self, topic: str | None = None, limit: int = 100, *, before: int | None = None, timeout: float | None = None
    ) -> LetterPage:
        """The latest dead letters that this node keeps, the latest first. -> LetterPage. See `DeadLetters`. Raises InvalidRequest."""
        answer: LetterPage = self.ref.ask(DeadLetters(topic, limit, before, timeout))
        return answer

    def requeue(self, letter: int, *, timeout: float | None = None) -> Published:
        """Publish the record of dead letter number `letter` to its topic once more. -> Published. See `Requeue`. Raises InvalidRequest, and what `publish` does."""
        answer: Published = self.ref.ask(Requeue(letter, timeout))
        return answer

    def events(self, capacity: int = 1024, *, replay: bool = True) -> EventStream:
        """What is so (replay), then what happens, until it is closed. See `Subscribe`. Raises InvalidRequest."""
        answer: EventStream = self.ref.ask(Subscribe(capacity=capacity, replay=replay))
        return answer

    def stop(self) -> None:
        """Stop the node gracefully: a leader hands its leadership over first, and all that was acknowledged is on the disk. Safe to call twice."""
        self.ref.stop()

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
