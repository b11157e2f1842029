"""What the room reports, as a port: called once per batch, never per record. The observability room implements it."""

from __future__ import annotations

from typing import Protocol


class ReplicationMetrics(Protocol):
    """Implementations are called from several threads at once, and must neither block nor raise."""

    def published(self, topic: str, n: int) -> None:
        """`n` records of `topic` were committed (by this node's state machine)."""

    def seq(self, topic: str, seq: int) -> None:
        """The last sequence number of `topic`."""

    def acked(self, node: str, topic: str, n: int, seq: int) -> None:
        """`node` acknowledged `n` more records, up to `seq`. On the leader, for every member; `node` is the leader itself too."""

    def lag(self, node: str, topic: str, n: int) -> None:
        """`node` is `n` records behind on `topic`."""

    def delivered(self, topic: str, n: int) -> None:
        """This node's handler has had `n` more records."""

    def position(self, topic: str, seq: int | None) -> None:
        """This node's handler has had everything up to `seq`; None: there is no handler."""

    def redelivered(self, topic: str, n: int) -> None:
        """`n` records go to the handler again."""

    def dead_letter(self, topic: str) -> None:
        """The handler failed on a record of `topic` too often: it went to the dead letters."""

    def subscribers(self, n: int) -> None:
        """Other members whose acknowledgements this leader hears; 0 on others."""

    def foreign_subscribers(self, n: int) -> None:
        """Open streams of subscribers that are no nodes of ours."""

    def peer_gone(self, node: str) -> None:
        """Forget what was shown about `node`."""

    def dropped(self, reason: str, n: int) -> None:
        """`n` things were not done or not understood, by reason."""

    def delivery_seconds(self, seconds: float, n: int) -> None:
        """One call of the handler actor, with `n` records, took this long."""

    def commit_seconds(self, seconds: float, n: int) -> None:
        """A batch of `n` own records took this long from packing to commit."""

    def buffer_write_seconds(self, seconds: float, n: int) -> None:
        """A transaction of the buffer with `n` batches took this long."""


class NoMetrics:
    """Nobody watches."""

    def published(self, topic: str, n: int) -> None:
        return None

    def seq(self, topic: str, seq: int) -> None:
        return None

    def acked(self, node: str, topic: str, n: int, seq: int) -> None:
        return None

    def lag(self, node: str, topic: str, n: int) -> None:
        return None

    def delivered(self, topic: str, n: int) -> None:
        return None

    def position(self, topic: str, seq: int | None) -> None:
        return None

    def redelivered(self, topic: str, n: int) -> None:
        return None

    def dead_letter(self, topic: str) -> None:
        return None

    def subscribers(self, n: int) -> None:
        return None

    def foreign_subscribers(self, n: int) -> None:
        return None

    def peer_gone(self, node: str) -> None:
        return None

    def dropped(self, reason: str, n: int) -> None:
        return None

    def delivery_seconds(self, seconds: float, n: int) -> None:
        return None

    def commit_seconds(self, seconds: float, n: int) -> None:
        return None

    def buffer_write_seconds(self, seconds: float, n: int) -> None:
        return None
