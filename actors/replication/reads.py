"""Reads on this node's own handler: with everything in it that was acknowledged before they were asked, or at once.

One per node. The cluster's reference puts each `Read` that names a consistency straight into this inbox; what happens to a read there is a check and an append to
a list. The rest is done per burst: one question to the leader for all that wait (`read_queue` says who waits for what), one message to the handler with all that
may go to it.

    Read ──► unasked ──flush──► leads:   raft ──ReadIndex──► publisher ──CommandsUpTo──► the number of the last command
                           └──► follows: the same at the leader, over `coterie.v1.Node/ReadIndex`
             ──► the handler has had that many commands ──HandleReads──► handler ──► answers

A read waits for commands alone, and not for what was published on other topics: records go to a handler at its own pace, and one on which it fails holds
its topic up; reads would stand with it. In a cluster that has no commands nothing is waited for here.

What is asked of a leader that does not answer is asked again of the next one, as soon as that is known. A read changes nothing, so it never ends Indeterminate:
NoQuorum says that nobody vouched for it by its deadline, Overloaded that this node's handler did not get to it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, ClassVar, Final

import pykka

from coterie.actors.base import LATER, Actor, Crash
from coterie.actors.errors import CoterieError, HandlerFailed, InvalidRequest, NoQuorum, NotLeader
from coterie.actors.future import LightFuture
from coterie.actors.handler_messages import HandleReads, SetHandler
from coterie.actors.messages import Read
from coterie.actors.replication.read_queue import CONFIRMED, LEASE, Asked, ReadQueue, check_consistency
from coterie.actors.replication.requests import check_data, check_timeout
from coterie.actors.room_messages import CommandsUpTo, ReadFrom, ReadIndex, ReadPoint, Topology
from coterie.actors.traced import Traced

TICK: Final = 0.05  # seconds between looks at the deadlines
RETRY_PAUSE: Final = 0.05  # seconds before a leader that could not answer is asked again
LEADER_PATIENCE: Final = 2.0  # seconds for an answer of a leader elsewhere; then it is asked again
MOST_READS: Final = 1024  # for the handler in one message, so that records get their turn
MOST_WAITING: Final = 65_536

There = Callable[[str, bool, float], LightFuture]  # (leader id, by its lease, seconds) -> ReadFrom


class _Answered:
    """A future that this actor waits for is resolved; told by the future's callback."""

    __slots__ = ("future", "then")

    def __init__(self, future: LightFuture, then: Callable[[LightFuture], None]) -> None:
        self.future, self.then = future, then


class Reads(Actor):
    """here(by lease): the answer of this node as the leader; there: that of a leader elsewhere. handled(n): resolved once this node's handler has had the first n
    commands. timeout: of a read that names none, seconds."""

    concern: ClassVar[str] = "reads"

    def __init__(
        self,
        node: str,
        here: Callable[[bool], LightFuture],
        there: There,
        handled: Callable[[int], LightFuture],
        *,
        timeout: float = 10.0,
        on_crash: Callable[[Crash], None] | None = None,
    ) -> None:
        super().__init__(node, on_crash)
        self._here, self._there, self._handled, self._timeout = here, there, handled, timeout
        self._queue = ReadQueue(MOST_WAITING)
        self._handler: Any = None
        self._changes = 0  # of the handler
        self._topology = Topology()
        self._questions: dict[str, LightFuture] = {}  # under way, by kind
        self._retry_at: dict[str, float] = {}
        self._trouble: dict[str, CoterieError] = {}  # why the latest question of a kind got no answer
        self._tick_at: float | None = None
        self._batch: LightFuture | None = None  # what the handler has
        self.counters = {"linearizable": 0, "lease": 0, "local": 0, "by round": 0, "by lease": 0, "questions": 0, "not answered": 0}

    def on_receive(self, message: Any) -> Any:
        kind = message.__class__
        if kind is Read:
            return self._read(message, None)
        if kind is Traced:
            return self._read(message.message, message.context)
        if kind is _Answered:
            message.then(message.future)
        elif kind is Topology:
            self._set_topology(message)
        elif kind is SetHandler:
            self._handler = message.ref
            self._changes += 1
            self._queue.other_handler()
        else:
            self.log.warning("unexpected message: a %s", kind.__name__)
        return None

    def flush(self) -> None:
        now = time.monotonic()
        times = []
        for kind in CONFIRMED:
            if self._queue.to_ask(kind):
                retry_at = self._retry_at.get(kind, 0.0)
                if now >= retry_at:
                    self._ask_leader(kind, now)
                else:
                    times.append(retry_at)
        self._hand_out()
        if self._queue.waiting:
            if self._tick_at is None:
                self._tick_at = now + TICK
            times.append(self._tick_at)
        self.wake_at(min(times, default=None))

    def on_wake(self, now: float) -> None:
        if self._tick_at is None or now < self._tick_at:
            return
        self._tick_at = None
        trouble = next(iter(self._trouble.values()), None)
        self.counters["not answered"] += self._queue.expire(now, f": {trouble}" if trouble is not None else "")
        if self._batch is not None and self._queue.all_late():
            self._batch = None  # a handler that does not return keeps what it has, and gets no more of it; the next may be luckier
            self._queue.returned()

    def on_stop(self) -> None:
        self._queue.close(NoQuorum("the node is stopping; nothing was read"))

    def on_restart(self) -> None:
        self._queue.close(NoQuorum("what passes reads on has crashed and started afresh; nothing was read"))
        self._questions, self._batch = {}, None

    # -- what arrives ---------------------------------------------------------------------------------------------------------

    def _read(self, message: Read, trace: Any) -> Any:
        kind, op = check_consistency(message.consistency), message.op
        if op.__class__ is not str:
            raise InvalidRequest(f"op={op!r:.80}: give a string, not {type(op).__name__}")
        data, timeout = check_data(message.data), check_timeout(message.timeout, self._timeout)
        if self._handler is None:
            raise InvalidRequest(
                f"op={op!r}: no handler is registered on {self.node!r}, whose own handler answers a read with a consistency; register one"
            )
        if self.reply_to is not None:  # nobody hears the answer to a read that was told
            self._queue.add(Asked(kind, op, data, trace, self.reply_to, time.monotonic() + timeout))
            self.counters[kind] += 1
        return LATER

    def _set_topology(self, topology: Topology) -> None:
        before, self._topology = self._topology, topology
        if (before.leader_id, before.term, before.leads) != (topology.leader_id, topology.term, topology.leads):
            for kind in list(self._questions):  # whoever was asked may never answer
                del self._questions[kind]
                self._queue.not_answered(kind)
            self._retry_at.clear()

    # -- the leader's word ----------------------------------------------------------------------------------------------------

    def _ask_leader(self, kind: str, now: float) -> None:
        topology, lease = self._topology, kind == LEASE
        if topology.leads:
            until = self._queue.asking(kind)
            question = self._here(lease and not topology.foreign)  # a voter of another make has a patience of its own
        elif topology.foreign_leader:
            self._trouble[kind] = NotLeader(topology.leader_id, topology.foreign_leader)
            self._retry_at[kind] = now + RETRY_PAUSE
            return
        elif topology.leader_id in topology.grpc_addr and topology.leader_id != self.node:
            until = self._queue.asking(kind)
            question = self._there(topology.leader_id, lease, max(TICK, min(until - now, LEADER_PATIENCE)))
        else:
            self._trouble[kind] = NotLeader()
            self._retry_at[kind] = now + RETRY_PAUSE
            return
        self.counters["questions"] += 1
        self._questions[kind] = question
        self._when_done(question, lambda future: self._told(kind, future))

    def _told(self, kind: str, future: LightFuture) -> None:
        if self._questions.get(kind) is not future:
            return  # it was given up: another leader is known
        del self._questions[kind]
        if future.error is not None:
            self._trouble[kind] = _typed(future.error)
            self._retry_at[kind] = time.monotonic() + RETRY_PAUSE
            self._queue.not_answered(kind)
            return
        self._trouble.pop(kind, None)
        point: ReadFrom = future.get()
        self.counters["by lease" if point.by_lease else "by round"] += 1
        if self._queue.point(kind, point.commands):
            changes = self._changes
            self._when_done(self._handled(point.commands), lambda handled: self._had(point.commands, handled, changes))

    def _had(self, commands: int, future: LightFuture, changes: int) -> None:
        if changes != self._changes:
            return  # another handler had them
        if future.error is None:
            self._queue.had(commands)
        else:
            self._queue.cannot_have(commands, _typed(future.error))

    # -- the handler ----------------------------------------------------------------------------------------------------------

    def _hand_out(self) -> None:
        reads = self._queue.take(MOST_READS)
        if not reads:
            return
        if self._handler is None:
            self._queue.returned()
            _fail(reads, HandlerFailed(f"the handler of {self.node!r} is gone; register one"))
            return
        message = HandleReads([(read.op, read.data, read.trace) for read in reads], self.node)
        self._batch = self._handler.ask(message, block=False)
        self._when_done(self._batch, self._answered)

    def _answered(self, future: LightFuture) -> None:
        if self._batch is not future:
            return  # it was given up: nobody waits for it any more
        self._batch = None
        reads = self._queue.returned()
        if future.error is not None:
            dead = isinstance(future.error, pykka.ActorDeadError)
            _fail(reads, HandlerFailed(f"the handler actor of {self.node!r} is dead; register another" if dead else str(future.error)))
            return
        answers = future.get()
        if not isinstance(answers, list) or len(answers) != len(reads):
            _fail(reads, HandlerFailed(f"the handler actor of {self.node!r} answered {type(answers).__name__}; is it a HandlerActor?"))
            return
        for read, answer in zip(reads, answers, strict=True):
            reply = read.reply
            if reply.done:
                continue  # its deadline came first
            if answer.__class__ is bytes:
                reply.set(answer)
            else:
                reply.fail(answer)

    def _when_done(self, future: LightFuture, then: Callable[[LightFuture], None]) -> None:
        send = self.ref.send
        future.on_done(lambda: send(_Answered(future, then)))


def read_from(raft: Any, publisher: Any, lease: bool) -> LightFuture:
    """The leader's answer to a node that has reads, itself or another: a ReadFrom. NotLeader where it does not lead. Blocks nobody."""
    answer = LightFuture()
    asked: LightFuture = raft.ask(ReadIndex(lease), block=False)

    def indexed() -> None:
        """In the Raft actor's thread."""
        if asked.error is not None:
            answer.fail(_typed(asked.error))
            return
        point: ReadPoint = asked.get()
        counted: LightFuture = publisher.ask(CommandsUpTo(point.index), block=False)
        counted.on_done(
            lambda: answer.fail(_typed(counted.error)) if counted.error is not None else answer.set(ReadFrom(counted.get(), point.by_lease))
        )

    asked.on_done(indexed)
    return answer


def _typed(error: BaseException) -> CoterieError:
    return error if isinstance(error, CoterieError) else NotLeader()


def _fail(reads: list[Asked], error: CoterieError) -> None:
    for read in reads:
        if not read.reply.done:
            read.reply.fail(error)
