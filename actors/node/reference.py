"""The reference that a user of a node holds: pykka's, with a short way for what comes often, and an end to every wait.

A `Publish`, a `PublishMany` or an `Apply` goes straight into the publisher's inbox. By way of the supervisor it would cost a second hop between threads for each
record, which would be the dearest thing in the house; nor does a `Read` go that way that this node's own handler answers. All else goes to the supervisor. Once
the publisher has stopped, its node has too or has failed closed: then they go to the supervisor as well, which knows the reason.

A request carries its own deadline, and the actors answer by it with the error that fits: it was not carried out, or that is unknown. A blocking `ask`
therefore waits a little longer than the deadline, and only then gives up by itself.
"""

from __future__ import annotations

from typing import Any

import pykka

from coterie.actors.base import Ref
from coterie.actors.durations import LONGEST
from coterie.actors.errors import DeadlineExceeded
from coterie.actors.messages import Apply, Publish, PublishMany, Read
from coterie.actors.traced import TracedPublisher, ask_traced
from coterie.actors.tracing import TRACING

GRACE = 1.0  # seconds a blocking ask waits beyond the request's own deadline, so that the typed answer comes first


class ClusterRef(Ref):
    """What a user holds: a `pykka.ActorRef` of the supervisor. A `Publish`, a `PublishMany` or an `Apply` goes straight to the publisher."""

    publisher: Ref | TracedPublisher | None = None
    reads: Ref | None = None
    patience: float = 10.0
    node: str = ""

    def tell(self, message: Any) -> None:
        publisher = self.publisher
        kind = message.__class__
        short = kind is Publish or kind is PublishMany or kind is Apply
        if short and publisher is not None and not publisher.actor_stopped.is_set():
            publisher.tell(message)
        else:
            self._put(message, None)

    def ask(self, message: Any, *, block: bool = True, timeout: float | None = None) -> Any:
        """The typed reply, or raises a typed error. timeout: as in pykka; without it the request's own deadline holds. What is not answered by
        then raises DeadlineExceeded, which is both Indeterminate and a `pykka.Timeout`."""
        publisher = self.publisher
        kind = message.__class__
        short = kind is Publish or kind is PublishMany or kind is Apply
        if short and publisher is not None and not publisher.actor_stopped.is_set():
            future = publisher.ask(message, block=False)
        else:
            reads = self.reads if kind is Read and message.consistency is not None else None
            short = reads is not None and not reads.actor_stopped.is_set()
            ask = self._ask_reads if short else self._ask_supervisor
            future = ask_traced(ask, message, self.node) if TRACING.on else ask(message)
        if not block:
            return future
        if timeout is None:
            limit = getattr(message, "timeout", None)  # one that is none is refused at once
            timeout = (limit if isinstance(limit, (int, float)) and 0 < limit <= LONGEST else self.patience) + GRACE
        try:
            return future.get(timeout=timeout)
        except DeadlineExceeded:
            raise
        except pykka.Timeout:
            raise DeadlineExceeded(f"{type(message).__name__}: no answer within {timeout:g} s; it may still take effect") from None

    def _ask_supervisor(self, message: Any) -> Any:
        return super().ask(message, block=False)

    def _ask_reads(self, message: Any) -> Any:
        assert self.reads is not None
        return self.reads.ask(message, block=False)

    def addresses(self) -> dict[str, str]:
        """Where this node listens: raft, gossip, mgmt, http, grpc, each host:port as others dial it."""
        answer: dict[str, str] = self.ask("addresses")
        return answer
