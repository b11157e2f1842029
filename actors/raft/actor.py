"""The Raft actor: the shell around `RaftCore`.

It has the log, the listening server and the links to the peers, and works through each `Ready` in the order that its shape demands: what may leave
before the disk has it, the one transaction, what may leave only after, then what is committed. The disk is written in this thread: a disk that
hangs stops this server's heartbeats and votes with it, which is what the others need to see. Who asks for something that takes more than one `Ready` (a
quorum change, a hand-over) waits in `Decisions`, which is given its turn between them; who asks for a read index waits in the core.

Proposals and the peers' messages that wait in the inbox are one burst: proposals of a burst become consecutive entries, one transaction, one
message per follower. Where the batch ends is decided by load alone.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from coterie.actors.base import LATER, Actor, Crash
from coterie.actors.errors import BindFailed, CoterieError, Indeterminate, NotLeader, StorageError, Unreachable
from coterie.actors.future import LightFuture
from coterie.actors.messages import TransferLeadership
from coterie.actors.raft import ready as core_events
from coterie.actors.raft import refusals
from coterie.actors.raft.changes import QuorumChange
from coterie.actors.raft.core import RaftCore
from coterie.actors.raft.decisions import Decisions, not_leader
from coterie.actors.raft.foreign_snapshots import AskOthers
from coterie.actors.raft.links import CONNECTED, DISCONNECTED, RESPONSE, Links
from coterie.actors.raft.log import RaftLog
from coterie.actors.raft.node import Role
from coterie.actors.raft.ready import Ready
from coterie.actors.raft.report import raft_report
from coterie.actors.raft.settings import Settings
from coterie.actors.raft.sink import SetSink, Sink
from coterie.actors.raft.snapshot_desk import SnapshotDesk
from coterie.actors.raft.views import raft_view
from coterie.actors.raft_report import GetRaftReport
from coterie.actors.room_messages import (
    Applied,
    Bootstrap,
    ChangeQuorum,
    GetRaftView,
    PeerSeen,
    PeersElsewhere,
    Propose,
    RaftView,
    ReadIndex,
    ReadPoint,
    TakeOver,
)
from coterie.proto.gotime import from_unix
from coterie.proto.raft_messages import Configuration, Header, Server
from coterie.transport.addresses import advertised
from coterie.transport.errors import AddressError, BindError, DialError
from coterie.transport.raft_client import identify
from coterie.transport.raft_server import RaftServer, reply_all
from coterie.transport.tls import Tls

REQUEST: Final = "request"
_IDENTIFIED: Final = "identified"
STANDSTILL: Final = 0.1  # seconds in a transaction after which the others' silence in that time is none
_ENDED: Final[dict[str, float]] = {}  # when servers that this process had run ended, monotonic, by id: see `RaftCore`
_POLL: Final = 0.05  # how often a quorum change under way looks whether it can go on


class RaftActor(Actor):
    """Takes Propose, Applied, ChangeQuorum, GetRaftView, GetRaftReport, ReadIndex, TakeOver and TransferLeadership.

    wait_for_sink: what is committed is kept until `SetSink` says who gets it; otherwise, and without a sink, entries count as applied when they are
    committed.
    observe(view, events): called in this thread when role, term, leader or configuration changed; must not block. `events` are the core's.
    snapshots: where snapshots that come in are kept until they are installed; None: the system's place for temporary files.
    ask_others: what other nodes of ours know beyond the snapshot of a Go leader; None: such snapshots are refused.
    on_stored(seconds): called in this thread after each transaction of the log, with the time it took; must not block.
    Start-up errors (a port in use, a damaged log) go to `started`, a future that resolves with the advertised address.
    """

    concern = "raft"

    def __init__(
        self,
        node_id: str,
        bind: str,
        log: RaftLog,
        settings: Settings,
        *,
        applied: int = 0,
        bootstrap: bool = False,
        wait_for_sink: bool = False,
        tls: Tls | None = None,
        observe: Callable[[RaftView, list[Any]], object] | None = None,
        on_stored: Callable[[float], object] | None = None,
        on_crash: Callable[[Crash], None] | None = None,
        snapshots: Path | None = None,
        ask_others: AskOthers | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__(node_id, on_crash)
        self.started = LightFuture()
        self._tls = tls
        self._id, self._bind, self._raft_log, self._settings = node_id, bind, log, settings
        self._applied, self._bootstrap, self._observe = applied, bootstrap, observe
        self._on_stored = on_stored
        self._sink = Sink(keep=wait_for_sink)
        self._random = random.Random(seed)
        self._proposals: list[tuple[bytes, Any, bool, bytes | None]] = []
        self._counts: dict[str, int] = {"elections": 0, "leaderships": 0, "take-overs": 0, "proposals refused": 0}
        self._told_serving = False
        self._told_silent: frozenset[str] = frozenset()
        self._told_waits = ""
        self._look_for_silent = False
        self._server: RaftServer | None = None
        self._links: Links | None = None
        self._desk = SnapshotDesk(node_id, log, settings, snapshots, self._sink.ask, self._post, self.log, tls, ask_others)

    # -- start and stop -------------------------------------------------------------------------------------------------------

    def on_start(self) -> None:
        try:
            self._set_up()
        except BaseException as error:
            self._release()
            self.started.fail(error)
            raise
        self.started.set(self._me.address)
        self._after()

    def _set_up(self) -> None:
        tell, desk = self._post, self._desk
        try:
            self._server = RaftServer(
                self._bind,
                lambda handle, request: tell((REQUEST, handle, request, desk.begins(handle, request))),
                name=self.node,
                tls=self._tls,
                on_snapshot_data=desk.data,
            )
        except (BindError, AddressError) as error:
            raise BindFailed(str(error)) from error
        self._me = Server(self._id, str(advertised(self._server.bind, self._server.port)))
        log, now = self._raft_log, time.monotonic()
        try:
            self.core = RaftCore(
                self._me,
                self._settings,
                log,
                log.hard_state(),
                log.configuration(),
                log.configuration_before,
                self._applied,
                now,
                self._random,
                log.doubt(),
                _ENDED.get(self._id, float("-inf")),
            )
        except refusals.LogBehindState as refusal:
            raise StorageError(str(refusal)) from refusal
        desk.core = self.core
        self._decisions = Decisions(self.core, self._identify)
        if self._bootstrap and log.last_index == 0 and log.hard_state().term == 0:
            self.core.bootstrap(Configuration((self._me,)), now)
        self._links = Links(self.node, tell, self._tls)
        self._links.reconcile(self.core.peers())

    def on_restart(self) -> None:
        raise RuntimeError("a Raft server whose state is in doubt does not go on: restart the node, it recovers from its log")

    def on_stop(self) -> None:
        """Whoever waits is answered first: closing connections may take a while."""
        contexts = [context for _, context, _, _ in self._proposals]
        self._proposals = []
        self._sink.fail(contexts, NotLeader())
        core = getattr(self, "core", None)
        if core is not None:
            self._sink.fail(core.pending(), Indeterminate("the node stopped before the outcome was known"))
            self._fail_reads(core.reading())
            _ENDED[self._id] = time.monotonic()
            self._decisions.close()
        self._release()

    def _release(self) -> None:
        self._desk.close()
        if self._server is not None:
            self._server.close()
        if self._links is not None:
            self._links.close()
        self._raft_log.close()

    def _post(self, message: tuple[Any, ...]) -> None:
        self.ref.send(message)

    # -- inbox ----------------------------------------------------------------------------------------------------------------

    def on_receive(self, message: Any) -> Any:
        kind = message.__class__
        if kind is Propose:
            context = message.context
            if context is None:
                context = self.reply_to
            if message.term and message.term != self.core.term:
                self._refuse([context])
                return LATER
            self._proposals.append((message.data, context, message.want_appended, message.extensions))
            return LATER
        if kind is tuple:
            return self._from_transport(message)
        if kind is Applied:
            return self.core.applied_to(message.index)
        if kind is ReadIndex:
            return self._read_index(message)
        if kind is GetRaftView:
            return self.view()
        if kind is GetRaftReport:
            return raft_report(self.core, self._raft_log, self._id, time.monotonic())
        return self._seldom(message, kind)

    def _seldom(self, message: Any, kind: type) -> Any:
        """What concerns the quorum and the leadership."""
        if kind is ChangeQuorum:
            return self._decisions.change(message, self.reply_to) or LATER
        if kind is Bootstrap:
            return self._bootstrap_with(message.servers)
        if kind is PeersElsewhere:
            assert self._links is not None
            return self._links.elsewhere(message.addresses)
        if kind is PeerSeen:
            assert self._links is not None
            return self._links.seen(message.id)
        if kind is SetSink:
            return self._sink.attach(message.ref)
        if kind is TakeOver:
            self._counts["take-overs"] += self.core.take_over(message.leader_id, time.monotonic())
            return None
        if kind is TransferLeadership:
            assert self.reply_to is not None
            self._decisions.transfer(message, self.reply_to, time.monotonic())
            return LATER
        raise TypeError(f"the Raft actor does not take {kind.__name__}")

    def _bootstrap_with(self, servers: tuple[tuple[str, str], ...]) -> None:
        try:
            self.core.bootstrap(Configuration(tuple(Server(*server) for server in servers)), time.monotonic())
        except refusals.Refusal as refusal:
            self.log.warning("no cluster is formed: %s", refusal)

    def _from_transport(self, message: tuple[Any, ...]) -> None:
        what, now = message[0], time.monotonic()
        if what == REQUEST:
            wanted = self.core.request(message[1], message[2], now)
            if message[3] is not None:
                self._desk.decided(message[3], wanted)
        elif what == _IDENTIFIED:
            self._decisions.identified(*message[1:])
        elif self._desk.takes(what):
            self._desk.handle(*message)
        elif self._links is not None and self._links.current(message[1], message[2]):
            if what == RESPONSE:
                self.core.response(message[1], message[3], message[4], now)
            elif what == CONNECTED:
                self.core.connected(message[1], now)
                self._look_for_silent = True
            elif what == DISCONNECTED:
                self.core.disconnected(message[1], now)
                self._look_for_silent = True

    # -- the work -------------------------------------------------------------------------------------------------------------

    def on_wake(self, now: float) -> None:
        self.core.tick(now)
        self._look_for_silent = True

    def flush(self) -> None:
        if self._proposals:
            self._propose()
        self._after()

    def _propose(self) -> None:
        """While leadership is being handed over, proposals wait here, in their order: they are in the log if that fails, and refused if it is done. Refused at
        once, they would come back at once, and some of them behind younger ones that came just after the hand-over had failed."""
        if self.core.transferring:
            return
        batch, self._proposals = self._proposals, []
        try:
            first = self.core.propose(
                [data for data, _, _, _ in batch],
                [context for _, context, _, _ in batch],
                time.monotonic(),
                from_unix(time.time_ns()),
                [extensions for _, _, _, extensions in batch],
            )
        except refusals.Refusal:
            self._refuse([context for _, context, _, _ in batch])
            return
        for offset, (_, context, want_appended, _) in enumerate(batch):
            if want_appended:
                self._sink.want_appended(context, first + offset)

    def _refuse(self, contexts: list[Any]) -> None:
        """Not in the log, and it will not be. A leader refuses what was meant for an earlier leadership: nobody else can be named then."""
        self._counts["proposals refused"] += len(contexts)
        self._sink.fail(contexts, not_leader(self.core.leader if self.core.role is not Role.LEADER else None))

    def _after(self) -> None:
        """Everything the core wants done, until it wants nothing."""
        decisions = self._decisions
        while (ready := self.core.ready()) is not None:
            self._work(ready)
        deadline = self.core.deadline()
        if decisions.changes:
            now = time.monotonic()
            decisions.advance(now)
            while (ready := self.core.ready()) is not None:
                self._work(ready)
            deadline = min(self.core.deadline(), now + _POLL) if decisions.changes else self.core.deadline()
        self._desk.look()
        step = self._desk.compact(time.monotonic())
        if step is not None:
            deadline = min(deadline, step)
        silent = self._told_silent
        if self._look_for_silent:
            self._look_for_silent = False
            silent = self.core.silent(time.monotonic())
        if self.core.serving is not self._told_serving or silent != self._told_silent or self._desk.waits_for != self._told_waits:
            self._tell([])  # it begins to serve with a commit, and a peer falls silent with time: neither is an event of the core
        self.wake_at(deadline)

    def _work(self, ready: Ready) -> None:
        links = self._links
        assert links is not None
        # What is committed and on our own disk goes first: who waits for it is answered, and what follows is done while the disk works. But where a leader waits
        # for our answer, that goes first: handing entries out wakes threads that would take processor and interpreter from the store. (What came with
        # this very Ready must not be applied before it is stored: after a crash the buffer would be ahead of the log.)
        stored = not ready.entries or (bool(ready.committed) and ready.committed[-1][0].index < ready.entries[0].index)
        at_once = stored and not ready.replies
        if ready.committed and at_once:
            self._sink.committed(ready.committed, self.core.applied_to)
        for send in ready.before:
            links.send(send)
        if ready.confirmed or ready.unconfirmed:
            self._answer_reads(ready)
        if ready.snapshots:
            self._desk.send(ready, Header(self._me.id, self._me.address), links.where)
        if ready.must_store:
            self._store(ready)
        for send in ready.after:
            links.send(send)
        if ready.replies:
            reply_all(ready.replies)  # type: ignore[arg-type]
        if ready.committed and not at_once:
            self._sink.committed(ready.committed, self.core.applied_to)
        if ready.abandoned:
            self._sink.fail(
                ready.abandoned, Indeterminate("this node lost its leadership before the outcome was known; it may still take effect")
            )
        if ready.events:
            self._tell_events(ready.events)

    def _read_index(self, message: ReadIndex) -> Any:
        try:
            self.core.read_index(self.reply_to, time.monotonic(), message.lease)
        except refusals.NotLeading as refusal:
            raise not_leader(refusal.leader) from None
        return LATER

    def _answer_reads(self, ready: Ready) -> None:
        for context, index, by_lease in ready.confirmed:
            if isinstance(context, LightFuture):
                context.set(ReadPoint(index, by_lease))
        self._fail_reads(ready.unconfirmed)

    def _fail_reads(self, contexts: Sequence[object]) -> None:
        for context in contexts:
            if isinstance(context, LightFuture):
                context.fail(not_leader(self.core.leader if self.core.role is not Role.LEADER else None))

    def _store(self, ready: Ready) -> None:
        log, on_stored = self._raft_log, self._on_stored
        started = time.monotonic()
        if ready.mark is not None:
            self._desk.replace_log(ready.mark)
        log.append(ready.entries, ready.hard_state, ready.truncate_from)
        now = time.monotonic()
        if now - started > STANDSTILL:
            self.core.stood_still(started, now)
        if on_stored is not None:
            on_stored(now - started)
        self.core.stored(log.last_index, log.term(log.last_index) if log.last_index else 0)
        self._sink.stored()

    def _tell_events(self, events: list[Any]) -> None:
        assert self._links is not None
        for event in events:
            if isinstance(event, core_events.ElectionStarted):
                self._counts["elections"] += 1
            elif isinstance(event, core_events.BecameLeader):
                self._counts["leaderships"] += 1
                self.log.info("leads in term %d", event.term, extra={"term": event.term})
            elif isinstance(event, core_events.LostLeadership):
                self.log.info("leads no more (term %d): %s", event.term, event.reason, extra={"term": event.term})
            elif isinstance(event, core_events.DoubtSettled):
                self._raft_log.settle()  # events come when all that the Ready and those before it brought is stored
                self.log.warning("has caught up with what its damaged log had lost, up to entry %d, and votes again", event.index)
        for peer in self._links.reconcile(self.core.peers()):
            self.core.disconnected(peer, time.monotonic())  # its link says no more: it is not current
        self._decisions.settle_transfers(events)
        self._tell(events)

    def _tell(self, events: list[Any]) -> None:
        self._told_serving = self.core.serving
        view = self.view()
        self._told_silent, self._told_waits = view.silent, view.waits_for
        if self._observe is not None:
            self._observe(view, events)

    # -- a newcomer -----------------------------------------------------------------------------------------------------------

    def _identify(self, change: QuorumChange) -> None:
        """Ask the server at the address who it is, in a thread of its own: dialling a stranger may block until the time-out."""
        threading.Thread(target=self._ask_identity, args=(change,), name=f"{self.node}/raft-identify", daemon=True).start()

    def _ask_identity(self, change: QuorumChange) -> None:
        header: Header | None = None
        error: CoterieError | None = None
        try:
            patience = max(0.1, min(3.0, change.deadline - time.monotonic()))
            header = identify(change.ask_at, Header(self._me.id, self._me.address), patience, self._tls)
        except (DialError, AddressError) as problem:
            error = Unreachable(f"raftAddr={change.ask_at!r}: {problem}; nothing was changed")
        self._post((_IDENTIFIED, change, header, error))

    # -- what it shows --------------------------------------------------------------------------------------------------------

    def view(self) -> RaftView:
        assert self._server is not None and self._links is not None
        counters = self._counts | self.core.counters()
        counters.update({f"raft server: {reason}": count for reason, count in self._server.counters().items()})
        counters.update(self._desk.counters())
        counters.update({f"raft links: {reason}": count for reason, count in self._links.counters().items()})
        return raft_view(self.core, self._id, time.monotonic(), counters, self._links.where, self._desk.waits_for)
