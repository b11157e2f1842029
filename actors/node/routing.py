"""Where a write, a read or a question to the leader goes: to this node's own handler, to the leader, or into a queue until there is a leader.

What this promises: a request is answered within its deadline; it is tried again only while it has certainly not been carried out (there was no leader, the
leader could not be reached, the node asked does not lead any more); once it may have been carried out, the answer is what came, or Indeterminate.
What was refused is not sent again when the answer would come after the deadline: nothing would be won but an outcome that nobody knows.
A request that was forwarded to this node is never forwarded again: two nodes that each believe the other to lead must not send it in circles.

Runs in the supervisor's thread: `place` takes a request, `topology_changed` and `expire` move what waits. Answers arrive through `post`, which puts
a callable into the supervisor's inbox.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from coterie.actors.errors import CoterieError, Indeterminate, NoQuorum, NotLeader, Unreachable
from coterie.actors.future import LightFuture
from coterie.actors.room_messages import Topology

RETRY_PAUSE = 0.05  # seconds before a leader that could not be reached is tried again
LAST_TRY = 0.25  # seconds before the deadline in which one that was slow to refuse is not asked again


class Request:
    """One request under way.

    here(): carries it out on this node, the leader. there(address, seconds left): sends it to the leader's node; abroad: the same to one of go-cluster, None
    where that knows no such request. Each gives a future.
    """

    __slots__ = ("abroad", "deadline", "forwarded", "here", "name", "reply", "retry_at", "since", "there", "took", "tried")

    def __init__(
        self,
        name: str,
        reply: LightFuture | None,
        deadline: float,
        here: Callable[[], LightFuture],
        there: Callable[[str, float], LightFuture],
        forwarded: bool = False,
        abroad: Callable[[str, float], LightFuture] | None = None,
    ) -> None:
        self.abroad = abroad
        self.name, self.reply, self.deadline, self.here, self.there, self.forwarded = name, reply, deadline, here, there, forwarded
        self.tried: CoterieError | None = None  # why the last attempt was not carried out
        self.retry_at = self.since = 0.0
        self.took = 0.0  # seconds, the last attempt

    def may_be_sent(self, now: float) -> bool:
        """Is it its time, and would the answer come in time?"""
        if self.tried is not None and self.deadline - now < min(max(RETRY_PAUSE, 2 * self.took), LAST_TRY):
            return False
        return now >= self.retry_at

    def answer(self, value: Any) -> None:
        if self.reply is not None and not self.reply.done:
            self.reply.set(value)

    def fail(self, error: BaseException) -> None:
        if self.reply is not None and not self.reply.done:
            self.reply.fail(error)


class Router:
    """See the module's text. `me`: this node's id."""

    def __init__(self, me: str, post: Callable[[Callable[[], None]], object]) -> None:
        self._me, self._post = me, post
        self._topology = Topology()
        self._waiting: list[Request] = []
        self._under_way: list[Request] = []

    def place(self, request: Request) -> None:
        now = time.monotonic()
        topology = self._topology
        if topology.leads:
            self._attempt(request, request.here)
        elif request.forwarded:
            request.fail(NotLeader(topology.leader_id, topology.mgmt_addr.get(topology.leader_id, "")))
        elif (
            topology.leader_id and topology.leader_id != self._me and topology.leader_id in topology.grpc_addr and request.may_be_sent(now)
        ):
            address = topology.grpc_addr[topology.leader_id]
            self._attempt(request, lambda: request.there(address, request.deadline - now))
        elif topology.foreign_leader and request.may_be_sent(now):
            self._go_abroad(request, topology, now)
        else:
            self._waiting.append(request)

    def _go_abroad(self, request: Request, topology: Topology, now: float) -> None:
        """A node of go-cluster leads. What it cannot be asked waits for a leader of ours."""
        abroad, address = request.abroad, topology.foreign_leader
        if abroad is None:
            request.tried = Unreachable(f"{topology.leader_id} leads, a node of go-cluster, which cannot be asked this by another node")
            self._waiting.append(request)
        else:
            self._attempt(request, lambda: abroad(address, request.deadline - now))

    def _attempt(self, request: Request, start: Callable[[], LightFuture]) -> None:
        self._under_way.append(request)
        request.since = time.monotonic()
        try:
            future = start()
        except CoterieError as error:
            self._settle(request, None, error)
            return
        future.on_done(lambda: self._post(lambda: self._settle(request, future, future.error)))

    def _settle(self, request: Request, future: LightFuture | None, error: BaseException | None) -> None:
        if request not in self._under_way:
            return  # its deadline came first
        self._under_way.remove(request)
        if error is None and future is not None:
            request.answer(future.get(timeout=0))
        elif isinstance(error, (NotLeader, Unreachable)) and not request.forwarded:
            now = time.monotonic()
            request.tried, request.took = error, now - request.since
            request.retry_at = now + RETRY_PAUSE
            self._waiting.append(request)
        else:
            request.fail(error or Indeterminate(f"{request.name}: ended without an answer"))

    def topology_changed(self, topology: Topology) -> None:
        self._topology = topology
        self._again()

    def _again(self) -> None:
        waiting, self._waiting = self._waiting, []
        for request in waiting:
            self.place(request)

    def next_time(self) -> float | None:
        """When `expire` is next wanted."""
        times = [request.deadline for request in (*self._waiting, *self._under_way)]
        times += [request.retry_at for request in self._waiting if request.retry_at > 0]
        return min(times, default=None)

    def expire(self, now: float) -> None:
        for request in [r for r in self._under_way if r.deadline <= now]:
            self._under_way.remove(request)
            request.fail(
                Indeterminate(
                    f"{request.name}: no answer within its deadline; it may still be carried out (a handler that waits for itself never answers)"
                )
            )
        for request in [r for r in self._waiting if r.deadline <= now]:
            self._waiting.remove(request)
            reason = f": {request.tried}" if request.tried is not None else ""
            request.fail(NoQuorum(f"{request.name}: no leader could be asked within the deadline{reason}; it was not carried out"))
        for request in self._waiting:
            if request.retry_at <= now:
                request.retry_at = 0.0
        self._again()

    def close(self) -> None:
        for request in self._waiting:
            request.fail(NoQuorum(f"{request.name}: the node stopped; it was not carried out"))
        for request in self._under_way:
            request.fail(Indeterminate(f"{request.name}: the node stopped before the outcome was known"))
        self._waiting, self._under_way = [], []
