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
        """See `Publish`. Raises Indeterminate when the outcome is unknown, NoQuorum or Overloaded when it was certainly not done, NotDelivered when it was, but
        not every live member has had it (acks="all")."""
        answer: Published = self.ref.ask(Publish(topic, data, acks, message_id, headers, timeout))
        return answer

    def apply(
        self, op: str, data: bytes = b"", *, session: str | None = None, number: int | None = None, timeout: float | None = None
    ) -> Applied:
        """Run `handle_apply` on every node, in log order. See `Apply`. Raises HandlerFailed, NoQuorum, Overloaded, Indeterminate, SessionExpired."""
        answer: Applied = self.ref.ask(Apply(op, data, session, number, timeout))
        return answer

    def publish_many(self, topic: str, data: Sequence[bytes], *, acks: Acks = "quorum", timeout: float | None = None) -> PublishedMany:
        """All records or none, side by side in their topic. See `PublishMany`; raises as `publish`."""
        answer: PublishedMany = self.ref.ask(PublishMany(topic, data, acks, timeout))
        return answer

    def write(self, op: str, data: bytes = b"", *, timeout: float | None = None) -> bytes:
        answer: bytes = self.ref.ask(Write(op, data, timeout))
        return answer

    def read(self, op: str, data: bytes = b"", *, timeout: float | None = None, consistency: Consistency | None = None) -> bytes:
        answer: bytes = self.ref.ask(Read(op, data, timeout, consistency))
        return answer

    def status(self, *, local: bool = False, timeout: float | None = None) -> ClusterStatus:
        answer: ClusterStatus = self.ref.ask(Status(local, timeout))
        return answer

    def join(self, member_id: str, raft_addr: str, *, timeout: float | None = None) -> Joined:
        answer: Joined = self.ref.ask(Join(member_id, raft_addr, timeout))
        return answer

    def leave(self, member_id: str, *, timeout: float | None = None) -> Left:
        answer: Left = self.ref.ask(Leave(member_id, timeout))
        return answer

    def transfer(self, member_id: str | None = None, *, timeout: float | None = None) -> None:
        """See `TransferLeadership`."""
        self.ref.ask(TransferLeadership(member_id, timeout))

    transfer_leadership = transfer  # as it was called first

    def dead_letters(
        self, topic: str | None = None, limit: int = 100, *, before: int | None = None, timeout: float | None = None
    ) -> LetterPage:
        """See `DeadLetters`: the latest first."""
        answer: LetterPage = self.ref.ask(DeadLetters(topic, limit, before, timeout))
        return answer

    def requeue(self, letter: int, *, timeout: float | None = None) -> Published:
        """Publish a dead letter's record to its topic once more. See `Requeue`."""
        answer: Published = self.ref.ask(Requeue(letter, timeout))
        return answer

    def events(self, capacity: int = 1024, *, replay: bool = True) -> EventStream:
        """What is so (replay), then what happens. See `Subscribe`."""
        answer: EventStream = self.ref.ask(Subscribe(capacity=capacity, replay=replay))
        return answer

    def stop(self) -> None:
        self.ref.stop()

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
