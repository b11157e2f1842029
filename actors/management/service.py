"""The one object behind every management transport.

HTTP and gRPC only translate; what a request does is here: it becomes a message to the cluster, and the reply or the error comes back by a `LightFuture`. So a
server may wait for it in its own way (a thread, an event loop) and none is ever blocked by this object.

Two doors lead to the cluster. `ask` is for users: a node that does not lead passes the request on. `ask_here` is for requests that another node has passed on
already: who does not lead answers NotLeader, so that two nodes with different views of the leader cannot pass a request round in a circle.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

import attrs

from coterie.actors.errors import CoterieError
from coterie.actors.future import LightFuture
from coterie.actors.management.requests import status_document
from coterie.actors.messages import ClusterStatus, Condition, Join, Status

__all__ = ["GRACE", "ClusterService"]

GRACE: Final = 1.0  # seconds that a transport waits beyond a request's own deadline, so that the cluster's own answer comes first

RUNNING: Final = Condition("running")

Ask = Callable[[Any], LightFuture]


class ClusterService:
    """ask: message of the front door -> future of its reply. ask_here: the same, but never passed on to another node; None: the same as `ask`.

    timeout: seconds a request may take when it does not say (`Config.request_timeout`). max_payload: largest record in bytes. metrics: the text of GET /metrics.
    on_join: told "accepted" or "rejected" after each join request. condition: how the node is, told at once and from any thread.
    """

    def __init__(
        self,
        ask: Ask,
        ask_here: Ask | None = None,
        *,
        node_id: str = "",
        timeout: float = 10.0,
        max_payload: int = 1 << 20,
        metrics: Callable[[], bytes] = lambda: b"",
        on_join: Callable[[str], object] = lambda result: None,
        condition: Callable[[], Condition] = lambda: RUNNING,
    ) -> None:
        self._ask, self._ask_here = ask, ask_here or ask
        self.node_id = node_id
        self.timeout = timeout
        self.max_payload = max_payload
        self.metrics = metrics
        self._on_join = on_join
        self.condition = condition

    def patience(self, message: Any, remaining: float | None = None) -> float:
        """How long a transport waits for the answer to `message`; remaining: what the caller's own deadline leaves."""
        wait = (getattr(message, "timeout", None) or self.timeout) + GRACE
        return wait if remaining is None else min(wait, remaining)

    def request(self, message: Any, *, forwarded: bool = False, remaining: float | None = None) -> LightFuture:
        """Carry out a message. forwarded: another node passed it on. remaining: seconds until its caller gives up: its time-out is cut to that."""
        limit = getattr(message, "timeout", None) or self.timeout
        if remaining is not None and remaining < limit:
            message = attrs.evolve(message, timeout=max(0.001, remaining))
        try:
            future = (self._ask_here if forwarded else self._ask)(message)
        except Exception as error:  # noqa: BLE001 - the cluster is stopping, or refuses: the caller gets it as the answer
            future = LightFuture()
            future.fail(error)
        if isinstance(message, Join):
            future.on_done(lambda: self._on_join("rejected" if future.error is not None else "accepted"))
        return future

    def status(self, *, forwarded: bool = False, remaining: float | None = None) -> LightFuture:
        """-> ClusterStatus; a follower asks its leader, unless `forwarded`."""
        return self.request(Status(local=forwarded), forwarded=forwarded, remaining=remaining)

    def readiness(self) -> LightFuture:
        """-> ClusterStatus of this node alone."""
        return self.request(Status(local=True))


def status_json(status: ClusterStatus) -> bytes:
    return json.dumps(status_document(status), ensure_ascii=False, separators=(",", ":")).encode()


def unready(status: ClusterStatus | CoterieError) -> str:
    """Why this node should get no traffic; "" when it should."""
    if isinstance(status, CoterieError):
        return str(status)
    return "" if status.leader_id else "no leader is known"
