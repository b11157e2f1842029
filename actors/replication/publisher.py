"""The publisher: takes publishes in, brings them into the log, applies what is committed, and answers.

    Publish ──► Waiting ──flush──► leads:   Proposals ──Propose──► Raft ──Committed──► StateMachine ──► answers, Delivery, BufferWriter
                               └─► follows: Forwarding ──link──► the leader's publisher ──answer──► answers

One per node. Its inbox is the hot path: the cluster's reference puts each `Publish` straight into it, and all that happens to a record there is a
check and an append to a list. The rest is done per burst (`flush`), per batch or per committed entry.

Every publish ends by its deadline, and says how: still waiting for a leader or for a commit of what is before it: NoQuorum (not carried out); for
room in its topic's window: Overloaded (not carried out); proposed or forwarded, and nothing heard: Indeterminate; committed, and not delivered by all who
were to: NotDelivered. A publish that was told, not asked, has nobody to hear of its failure: it is counted and logged.

The handler's thread is not this one, but a handler that asks for a publish inside its own call waits for a window that only its own return can open.
That wait too ends at the deadline, and the Overloaded error names this cause.

Deadlines are looked at every `TICK` seconds, over chunks and not over records. Committed entries are applied as they come; what came of them leaves by way
of `outcomes`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Final

from coterie.actors.base import LATER, Actor, Crash
from coterie.actors.errors import CoterieError, Indeterminate, NoQuorum, NotLeader
from coterie.actors.future import LightFuture
from coterie.actors.handler_messages import AwaitCommands, SetHandler
from coterie.actors.messages import Apply, Publish, PublishMany
from coterie.actors.replication.acknowledgements import Acknowledgements
from coterie.actors.replication.all_acks import AllAcks
from coterie.actors.replication.answers import answer_early, fail
from coterie.actors.replication.buffer import ReplicationBuffer
from coterie.actors.replication.command_desk import CommandDesk
from coterie.actors.replication.commits import Commits
from coterie.actors.replication.forwarding import Forwarding, LeaderLink, Link, Reception
from coterie.actors.replication.limits import Limits
from coterie.actors.replication.losses import Losses
from coterie.actors.replication.messages import (
    CommandsHandled,
    CommandsUnable,
    ForwardedBatch,
    ForwardReply,
    LinkClosed,
    OwnPublish,
    PeerAcks,
    SessionClosed,
    Stored,
    StreamedBatches,
)
from coterie.actors.replication.metrics import NoMetrics, ReplicationMetrics
from coterie.actors.replication.outcomes import Outcomes
from coterie.actors.replication.packing import Chunk
from coterie.actors.replication.proposals import Proposal, Proposals
from coterie.actors.replication.reader import Reader
from coterie.actors.replication.reasons import why_waiting
from coterie.actors.replication.registrar import Registrar, RosterProposal
from coterie.actors.replication.snapshots import Content
from coterie.actors.replication.state_machine import StateMachine
from coterie.actors.replication.state_transfer import Installed, StateTransfer
from coterie.actors.replication.takeover import TakeOvers
from coterie.actors.replication.views import TopicRow, answer_view
from coterie.actors.replication.waiting import Waiting
from coterie.actors.replication.window import Window
from coterie.actors.room_messages import Appended, CommandsUpTo, Committed, GetReplicationView, ProposalsFailed, Topology
from coterie.actors.snapshot_messages import InstallRoster, InstallSnapshot, MakeDurable, TakeSnapshot
from coterie.actors.traced import Traced
from coterie.actors.tracing import headers_of
from coterie.proto.forwarding import is_question

TICK: Final = 0.05  # seconds


class Publisher(Actor):
    """raft, writer, delivery, commands: references. streamed: next seq of what a stream brought, from the buffer (`TopicState.next_seq`). letters: the
    dead-letter topic."""

    concern: ClassVar[str] = "publisher"

    def __init__(
        self,
        node: str,
        raft: Any,
        machine: StateMachine,
        stored: dict[str, tuple[int, int]],
        writer: Any,
        delivery: Any,
        commands: Any,
        leader_link: LeaderLink,
        peers: Callable[[frozenset[str]], object],
        buffer: ReplicationBuffer,
        *,
        snapshots: Path | None = None,
        letters: str = "",
        origin: bytes = b"",
        limits: Limits | None = None,
        metrics: ReplicationMetrics | None = None,
        wall: Callable[[], float] = time.time,
        on_crash: Callable[[Crash], None] | None = None,
    ) -> None:
        super().__init__(node, on_crash)
        self._raft, self._machine, self._writer, self._delivery, self._commands = raft, machine, writer, delivery, commands
        self._leader_link, self._peers, self._wall = leader_link, peers, wall
        limits = limits or Limits()
        self._metrics = metrics or NoMetrics()
        self._losses = Losses(self._metrics, self.log)
        most_batch = max(limits.entry_bytes, limits.max_payload)
        self._all = AllAcks(node, self._losses.count, limits.waiting_records)
        self._waiting = Waiting(
            limits.max_payload,
            limits.request_timeout,
            limits.waiting_records,
            limits.waiting_bytes,
            letters,
            most_batch,
            self._all.check_room,
        )
        self._desk = CommandDesk(self._waiting, origin, limits.request_timeout, limits.max_payload, time.monotonic)
        self._window = Window(limits.window, machine.last_seq)
        self._outcomes = Outcomes(machine, stored, raft, writer, delivery, commands, self._metrics)
        self._acks = Acknowledgements(node, machine, self._outcomes.known, self._window, self._all, self._metrics)
        self._proposals = Proposals(raft, self._window, limits.entry_bytes, limits.entries, node)
        self._forwarding = Forwarding(self._open_link, self._waiting, limits.window, limits.entry_bytes, self._losses.told, self._all, node)
        self._reception = Reception(self._waiting)
        self._reader = Reader(self._losses.count, self.log)
        self._registrar = Registrar(raft, machine.roster, self._losses.count)
        self._commits = Commits(
            node,
            machine,
            self._proposals,
            self._registrar,
            self._outcomes,
            self._acks,
            self._losses,
            self._metrics,
            self._all.hold,
            self._fail,
            self._reader,
        )
        self._take_overs = TakeOvers(node, raft, limits.take_over_from_go)
        self._transfer = StateTransfer(node, buffer, writer, snapshots, self.ref.send, self._installed)
        self._topology = Topology()
        self._ticking = False
        self._handlers: dict[type, Callable[[Any], Any]] = {
            PublishMany: self._publish_many,
            Committed: self._committed,
            PeerAcks: self._acks.heard,
            ForwardedBatch: self._forwarded,
            ForwardReply: self._replied,
            Stored: self._outcomes.was_stored,
            Appended: self._appended,
            ProposalsFailed: self._proposals_failed,
            Topology: self._set_topology,
            StreamedBatches: self._streamed,
            LinkClosed: lambda m: self._forwarding.closed(m.link_id, time.monotonic()),
            SessionClosed: self._session_closed,
            Apply: self._apply,
            Traced: lambda m: self._apply(m.message, m.context),
            CommandsHandled: self._desk.handled,
            CommandsUnable: self._desk.unable,
            AwaitCommands: self._await_commands,
            SetHandler: self._set_handler,
            GetReplicationView: self._view,
            OwnPublish: self._own_publish,
            TakeSnapshot: lambda m: self._asked(partial(self._transfer.take, (m.peer in self._topology.foreign) is not m.other)),
            CommandsUpTo: self._commands_up_to,
            MakeDurable: lambda _: self._asked(self._transfer.make_durable),
            InstallSnapshot: lambda m: self._asked(partial(self._transfer.install, m, machine.applied[0])),
            InstallRoster: lambda m: self._asked(partial(self._transfer.install_roster, m, machine.applied[0])),
            Installed: lambda m: m.settle(),
        }

    def on_start(self) -> None:
        self._outcomes.show()

    def on_receive(self, message: Any) -> Any:
        if message.__class__ is Publish:
            try:
                self._waiting.add(message, self.reply_to)
            except CoterieError as error:
                if self.reply_to is not None:
                    raise
                self._losses.told(1, error)
            return LATER
        handler = self._handlers.get(message.__class__)
        if handler is None:
            self.log.warning("unexpected message: a %s", type(message).__name__)
            return None
        return handler(message)

    def _publish_many(self, message: PublishMany) -> Any:
        try:
            self._waiting.add_many(message, self.reply_to)
        except CoterieError as error:
            if self.reply_to is not None:
                raise
            self._losses.told(len(message.data) if isinstance(message.data, list) else 1, error)
        return LATER

    def _own_publish(self, message: OwnPublish) -> Any:
        self._waiting.add_own(message.publish, self.reply_to)
        return LATER

    def _apply(self, message: Apply, context: Any = None) -> Any:
        """context: of the request's span, where somebody traces."""
        try:
            self._desk.ask(message, self.reply_to, None if context is None else headers_of(context))
        except CoterieError as error:
            if self.reply_to is not None:
                raise
            self._losses.told(1, error)
        return LATER

    def _set_handler(self, message: SetHandler) -> None:
        self._desk.set_handler(message)
        self._delivery.send(message)
        self._commands.send(message)

    def _await_commands(self, message: AwaitCommands) -> Any:
        """By way of here: the commands' delivery has then been told of the handler that was registered before this was asked."""
        reply, asked = self.reply_to, self._commands.ask(message, block=False)
        asked.on_done(partial(_pass_on, asked, reply))
        return LATER

    def flush(self) -> None:
        waiting = self._waiting
        waiting.close_open()
        if waiting.active:
            # What is out with one leader must have its outcome before younger records go to the next, or a refusal would put it behind them.
            if not self._topology.leads:
                if not self._proposals.under_way:
                    self._forwarding.forward(time.monotonic(), self._wall())
            elif self._forwarding.drained:
                self._proposals.propose(waiting, time.monotonic(), self._wall(), self._topology.term)
        if self._all.records and not self._topology.leads:
            self._all.ask(self._forwarding.ask, time.monotonic())
        if not self._ticking and (
            waiting.active
            or self._proposals.under_way
            or self._forwarding.busy
            or self._acks.busy
            or self._desk.busy
            or self._registrar.retry_at is not None
        ):
            self._ticking = True
            self.wake_at(time.monotonic() + TICK)

    def on_wake(self, now: float) -> None:
        self._ticking = False
        self._waiting.close_open()
        self._forwarding.follow(self._other_leader(), now)
        self._expire(now)
        self._take_overs.look(self._topology, bool(self._waiting.active), now)
        self._acks.look(now)
        if self._registrar.retry_at is not None and now >= self._registrar.retry_at:
            self._registrar.reconcile(self._topology)

    def on_stop(self) -> None:
        self._desk.stop()
        self._waiting.close_open()
        not_done = NoQuorum("the node is stopping; the publish was not carried out")
        unknown = Indeterminate("the node stopped before the outcome was known: the publish may or may not take effect")
        for chunk in self._waiting.remove(lambda _: True):
            self._fail([chunk], not_done if chunk.ticket is None else self._not_leader())
        for proposal in list(self._proposals.under_way):
            self._fail(proposal.all_chunks(), unknown)
            self._proposals.ended(proposal, unknown)
        self._fail(self._forwarding.stop(), unknown)
        self._all.stop()
        self._outcomes.close()

    def on_restart(self) -> None:
        raise RuntimeError("the publisher lost its place in the log; the node stops rather than number records differently")

    # -- towards the log ------------------------------------------------------------------------------------------------------

    def _set_topology(self, topology: Topology) -> None:
        before, self._topology = self._topology, topology
        now = time.monotonic()
        self._acks.set_topology(topology, self._not_leader())
        self._peers((topology.live - topology.foreign - {self.node}) if topology.leads else frozenset())
        if before.leads and not topology.leads:
            self._reception.refuse(self._waiting.remove(lambda chunk: chunk.ticket is not None), self._not_leader())
        self._forwarding.follow(self._other_leader(), now)
        self._registrar.reconcile(topology)
        self._delivery.send(topology)
        self._commands.send(topology)

    def _other_leader(self) -> str:
        leader = self._topology.leader_id
        return leader if leader != self.node else ""

    def _appended(self, message: Appended) -> None:
        for proposal, index in message.items:
            if proposal.__class__ is Proposal:
                if proposal.trace is not None:
                    proposal.trace.appended(index)
                for chunk in proposal.all_chunks():
                    if chunk.early and not chunk.settled:
                        self._losses.count("answers_lost", answer_early(chunk, index))

    def _proposals_failed(self, message: ProposalsFailed) -> None:
        for proposal in message.contexts:
            if proposal.__class__ is RosterProposal:
                self._registrar.failed(proposal, time.monotonic())
            if proposal.__class__ is not Proposal:
                continue
            self._proposals.ended(proposal, message.error)
            chunks = proposal.all_chunks()
            if isinstance(message.error, NotLeader):
                self._waiting.put_back(chunk for chunk in chunks if chunk.ticket is None)
                self._reception.refuse([chunk for chunk in chunks if chunk.ticket is not None], message.error)
            else:
                self._fail(chunks, _typed(message.error))

    def _forwarded(self, message: ForwardedBatch) -> None:
        self._waiting.close_open()
        receive = self._acks.reports.asked if is_question(message.data) else self._reception.receive
        receive(message, None if self._topology.leads else self._not_leader(), time.monotonic())

    def _session_closed(self, message: SessionClosed) -> None:
        self._reception.closed(message.session)
        self._acks.reports.closed(message.session)

    def _replied(self, message: ForwardReply) -> None:
        self._waiting.close_open()
        self._forwarding.replied(message.link_id, message.forward_id, message.payload, message.error, time.monotonic())

    def _open_link(self, leader_id: str, link_id: int) -> Link | None:
        me = self.ref

        def replied(forward_id: int, payload: bytes | None, error: Exception | None) -> None:
            me.send(ForwardReply(link_id, forward_id, payload, error))

        def closed(error: Exception | None) -> None:
            me.send(LinkClosed(link_id, error))

        return self._leader_link.open(leader_id, replied, closed)

    # -- from the log ---------------------------------------------------------------------------------------------------------

    def _committed(self, message: Committed) -> None:
        if self._transfer.installing:
            self._transfer.held.append(message)
        elif self._commits.apply(message):
            self._registrar.reconcile(self._topology)

    def _commands_up_to(self, message: CommandsUpTo) -> Any:
        if self.reply_to is not None:
            self._outcomes.commands_up_to(message.index, self.reply_to)
        return LATER

    def _asked(self, work: Callable[[LightFuture], None]) -> Any:
        """For the Raft actor, who always asks."""
        assert self.reply_to is not None
        work(self.reply_to)
        return LATER

    def _installed(self, content: Content | None, unknown: tuple[int, int] | None) -> None:
        """A snapshot is in the buffer (None: it is not): the state machine becomes what it says, and goes on with what was committed meanwhile."""
        if content is not None:
            self._outcomes.become(content, unknown)
        held, self._transfer.held = self._transfer.held, []
        for message in held:
            self._committed(message)

    def _streamed(self, message: StreamedBatches) -> None:
        self._outcomes.streamed(*self._reader.streamed(message.batches, self._outcomes.known))

    # -- deadlines and failures -----------------------------------------------------------------------------------------------

    def _expire(self, now: float) -> None:
        late = self._waiting.remove(lambda chunk: chunk.deadline <= now)
        for chunk in late:
            error = why_waiting(
                chunk.topic, self._topology, self._window, self._proposals.room(chunk.topic), self._forwarding.refusal(chunk.topic)
            )
            if chunk.ticket is not None:
                self._reception.refuse([chunk], error)
            else:
                self._fail([chunk], error)
        self._proposals.expire(now, self._fail)
        self._forwarding.expire(now)
        self._desk.expire(now)

    def _fail(self, chunks: list[Chunk], error: CoterieError) -> None:
        for chunk in chunks:
            self._losses.told(fail(chunk, error), error)

    def _not_leader(self) -> NotLeader:
        leader = self._topology.leader_id
        return NotLeader(leader, self._topology.mgmt_addr.get(leader, ""))

    # -- the view -------------------------------------------------------------------------------------------------------------

    def _view(self, message: GetReplicationView) -> Any:
        if self.reply_to is None:
            return None
        leads, stored, known = self._topology.leads, self._outcomes.stored, self._outcomes.known
        wanted = sorted(known)[: message.most] if message.most != 0 else []
        rows = [
            TopicRow(topic, known[topic] - 1, stored.get(topic, (1, 1))[0], self._window.acked(topic) if leads else {}) for topic in wanted
        ]
        left_out = len(known) - len(rows)
        answer_view(self.reply_to, self._delivery, rows, left_out, self._machine, self._waiting.records, self._losses.counters)
        return LATER


def _pass_on(asked: LightFuture, reply: LightFuture | None) -> None:
    if reply is None or reply.done:
        return
    if asked.error is not None:
        reply.fail(asked.error)
    else:
        reply.set(asked.get())


def _typed(error: Exception) -> CoterieError:
    return error if isinstance(error, CoterieError) else Indeterminate(f"the outcome is unknown: {error}")
