"""The supervisor: one actor that starts a node's rooms, wires them, answers the front door, and decides what a crash means.

It is the only one who knows all rooms (`assembly.Rooms` makes them). What it does itself is small: it keeps the `Picture` of the cluster, the latest view of
Raft and of gossip, and tells the other rooms the `Topology` made from it. What it is asked for it hands to four desks, plain objects that work in its thread:
`Requests` checks and passes on writes, reads, joins, leaves and transfers, `StatusDesk` gathers the status, `MetricsDesk` what a scrape
shows, `OperatorDesk` what `clusterctl raft` shows. A `Publish` does not come here: the reference that the user holds (`reference.py`) puts it straight into the
publisher's inbox.

Crashes: an actor that only serves (events, management, a subscriber) has started afresh in place by the time it is reported, and the status warns of
it for a while (`lately`). One whose state is the node's word (Raft, the publisher, delivery, the buffer, membership) is fatal when it cannot go on, and so is any
`StorageError`: the node fails closed. It stops voting and serving, answers every request with the reason, and says so in its status.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import attrs
import pykka

from coterie.actors.backup_messages import TakeBackup
from coterie.actors.base import LATER, Actor, Crash
from coterie.actors.config import Config
from coterie.actors.disk.disk_watch import DiskWatch
from coterie.actors.disk.lmdb_env import Damaged
from coterie.actors.errors import CoterieError, InvalidRequest, StorageError
from coterie.actors.future import LightFuture
from coterie.actors.messages import (
    Condition,
    DeadLetters,
    Event,
    Here,
    Join,
    LeaderChanged,
    Leave,
    MemberFailed,
    MemberJoin,
    MemberLeave,
    Read,
    RegisterHandler,
    Requeue,
    Status,
    Subscribe,
    TransferLeadership,
    Write,
)
from coterie.actors.node.assembly import Rooms
from coterie.actors.node.elections import Elections
from coterie.actors.node.lately import Lately
from coterie.actors.node.metrics_desk import MetricsDesk
from coterie.actors.node.operator_desk import OperatorDesk
from coterie.actors.node.quorum_desk import QuorumDesk
from coterie.actors.node.reference import ClusterRef
from coterie.actors.node.requests import Requests
from coterie.actors.node.routing import Router
from coterie.actors.node.status_desk import StatusDesk
from coterie.actors.node.topology import Picture
from coterie.actors.raft.ready import ElectionStarted
from coterie.actors.raft_report import GetRaftReport
from coterie.actors.room_messages import Emit, GetMembership, GetRaftView, MembershipEvent, MembershipView, PeerSeen, RaftView, SetMeta
from coterie.actors.traced import Traced, TracedPublisher
from coterie.actors.tracing import TRACING

__all__ = ["ClusterRef", "ClusterSupervisor"]

TRACING_PATIENCE = 1.0  # seconds at the stop for the spans that were finished
TRACER_EVERY = 0.5  # seconds between looks whether somebody traces
FATAL = ("raft", "publisher", "delivery", "commands", "buffer", "membership")

_MEMBER_EVENTS = {"join": MemberJoin, "update": MemberJoin, "leave": MemberLeave, "failed": MemberFailed}


class ClusterSupervisor(Actor):
    """`ClusterSupervisor.start(config)` gives a ClusterRef of a node whose ports are bound and whose log is open. Raises ConfigError, StorageError, BindFailed."""

    concern = "supervisor"

    def __init__(self, config: Config) -> None:
        super().__init__(config.node_id)
        self._actor_ref = ClusterRef(self)
        self.config = config
        self.started = LightFuture()
        self.failed = LightFuture()
        self._rooms: Rooms | None = None
        self._picture = Picture(config.node_id)
        self._elections = Elections()
        self._meta: dict[str, str] = {}  # as last told
        self._quorum: QuorumDesk | None = None
        self._router = Router(config.node_id, self._post)
        self._notes: dict[str, str] = {}
        self._lately = Lately()
        self._fatal: CoterieError | None = None
        self._stopping = False
        self.takes_leave = True  # False: it ends without a word to the others, as if its process had been killed
        self._metrics: MetricsDesk | None = None
        self._tracer_at: float | None = None
        self._disks: DiskWatch | None = None
        self._stalled = ""  # why Raft stands still; "" when it does not

    @classmethod
    def start(cls, *args: Any, **kwargs: Any) -> Any:
        """Start a node. -> ClusterRef. Argument: a Config."""
        if len(args) != 1 or not isinstance(args[0], Config) or kwargs:
            raise TypeError("ClusterSupervisor.start takes one argument, a Config")
        ref = super().start(*args)
        actor = ref._actor_weakref()
        assert isinstance(actor, ClusterSupervisor)
        actor.started.get()
        return ref

    # -- start and stop -------------------------------------------------------------------------------------------------------

    def on_start(self) -> None:
        ref = self.ref
        assert isinstance(ref, ClusterRef)
        try:
            rooms = self._open_rooms(ref)
            self._quorum = QuorumDesk(rooms, self._picture, self._notes, self._post, self.log)
            self._requests = Requests(rooms, self._picture, self._router, self._post, self._quorum.left)
            self._disks = DiskWatch(rooms.stores, self.config.store_timeout, rooms.metrics.stalled, self.log)
            self._status = StatusDesk(rooms, self._picture, self._notes, self._disks.warnings, self._lately, self._post)
            self._operator = OperatorDesk(rooms, self._picture, self._post)
            self._metrics = MetricsDesk(rooms, self._picture, ref, self._post)
            ref.reads = rooms.reads
            ref.node, ref.patience = self.config.node_id, self.config.request_timeout
            self._look_for_tracer()
            raft, membership = rooms.raft.ask(GetRaftView(), timeout=10), rooms.membership.ask(GetMembership(), timeout=10)
            self._post(lambda: self._begin_with(raft, membership))
            if rooms.app_handler is not None:
                self._requests.register(rooms.app_handler)
        except BaseException as error:
            if self._rooms is not None:
                self._rooms.close()
            self.started.fail(error)
            self.actor_stopped.set()
            pykka.ActorRegistry.unregister(self.actor_ref)
            if not isinstance(error, Exception):
                raise
            return
        self.flush()
        self.started.set(True)

    def _open_rooms(self, ref: ClusterRef) -> Rooms:
        """Damage that is met on the way is mended by opening once more, when all of that part is read (`storage`)."""
        self._rooms = rooms = Rooms(self.config, ref, self._crashed_elsewhere)
        try:
            rooms.open()
        except Damaged as error:
            rooms.note_damage(error)
            rooms.close()
            self._rooms = rooms = Rooms(self.config, ref, self._crashed_elsewhere)
            rooms.open()
        return rooms

    def on_restart(self) -> None:
        """Its views are told anew with every change; what was being routed is answered by deadline."""
        text = f"the supervisor of {self.config.node_id} crashed and started afresh; see the log"
        self._lately.happened("supervisor", text, time.monotonic())

    def on_stop(self) -> None:
        self._stopping = True
        self._router.close()
        if self._quorum is not None:
            self._quorum.close()
        if self._rooms is not None:
            self._rooms.say_good_bye(self._picture.raft, self._fatal is not None or not self.takes_leave)
            self._rooms.close()
        TRACING.ends.drain(TRACING_PATIENCE)
        if not self.failed.done:
            self.failed.set(None)

    def condition(self) -> Condition:
        """From any thread, also while the actor is at work."""
        if self._stopping:
            return Condition("stopping", "this node is stopping")
        fatal = self._fatal
        if fatal is not None:
            return Condition("failed", str(fatal))
        if self._stalled:
            return Condition("stalled", self._stalled)
        if waits_for := self._picture.raft.waits_for:
            return Condition("waiting", waits_for)
        return Condition("running") if self.started.done else Condition("starting", "this node is starting")

    # -- inbox ----------------------------------------------------------------------------------------------------------------

    def on_receive(self, message: Any) -> Any:
        if message.__class__ is Traced:
            with message.attached() as inner:
                return self.on_receive(inner)
        if callable(message):
            return message()  # of this node's own rooms: a node that has failed still puts its status together
        if self._fatal is not None and not isinstance(message, (Status, Subscribe)) and message not in ("addresses", "failed"):
            return self._refuse(self._fatal)
        handle = _HANDLERS.get(type(message))
        if handle is None:
            return self._say(message)
        return handle(self, message)

    def _write(self, message: Write, forwarded: bool = False) -> Any:
        self._requests.write(message, self.reply_to, forwarded)
        return LATER

    def _read(self, message: Read, forwarded: bool = False) -> Any:
        self._requests.read(message, self.reply_to, forwarded)
        return LATER

    def _here(self, message: Here) -> Any:
        """Another node has passed it on: it is answered here or refused."""
        inner = message.message
        if isinstance(inner, Write):
            return self._write(inner, forwarded=True)
        if isinstance(inner, Read):
            return self._read(inner, forwarded=True)
        return self.on_receive(inner)

    def _join(self, message: Join) -> Any:
        self._requests.join(message, self.reply_to)
        return LATER

    def _leave(self, message: Leave) -> Any:
        self._requests.leave(message, self.reply_to)
        return LATER

    def _transfer(self, message: TransferLeadership) -> Any:
        self._requests.transfer(message, self.reply_to)
        return LATER

    def _show(self, message: Status) -> Any:
        if self.reply_to is not None:
            self._status.answer(message, self.reply_to, self._fatal is not None)
        return LATER

    def _back_up(self, message: TakeBackup) -> Any:
        if self.reply_to is not None:
            self._operator.back_up(self.reply_to)
        return LATER

    def _report(self, message: GetRaftReport) -> Any:
        if self.reply_to is not None:
            self._operator.report(self.reply_to)
        return LATER

    def _refuse(self, reason: CoterieError) -> Any:
        """Answer instead of raising: a StorageError that leaves an actor's handler ends the actor, and this one must stay to say what happened."""
        if self.reply_to is not None:
            self.reply_to.fail(reason)
        return LATER

    def _say(self, message: Any) -> Any:
        if message == "addresses":
            return dict(self._need().addresses)
        if message == "failed":
            return self._fatal
        raise InvalidRequest(
            f"message={type(message).__name__}: the supervisor takes the messages of the front door: Publish, Write, Read, Join, Leave, Status…"
        )

    def _need(self) -> Rooms:
        assert self._rooms is not None
        return self._rooms

    def _post(self, work: Callable[[], None]) -> bool:
        return self.ref.send(work)

    def flush(self) -> None:
        times = [self._router.next_time(), self._tracer_at, self._quorum.next_time() if self._quorum is not None else None]
        if self._metrics is not None and self._disks is not None:
            times += [self._metrics.next_time, self._status.next_time(), self._disks.next_time]
        self.wake_at(min((t for t in times if t is not None), default=None))

    def on_wake(self, now: float) -> None:
        self._router.expire(now)
        if self._quorum is not None and self._fatal is None:
            self._quorum.on_wake(now)
        if self._disks is not None and self._metrics is not None:
            self._status.expire(now)
            if now >= self._disks.next_time:
                self._look_at_disks(self._disks, now)
        if self._tracer_at is not None and now >= self._tracer_at:
            self._look_for_tracer()
        if self._metrics is not None and self._metrics.on_wake(now):
            self._need().tidy()
            self._status.look(now)

    def _look_at_disks(self, disks: DiskWatch, now: float) -> None:
        disks.look(now)
        before, self._stalled = self._stalled, disks.stalled if self._fatal is None else ""
        if bool(before) is bool(self._stalled):
            return
        rooms, picture = self._need(), self._picture
        rooms.health.stalled(bool(self._stalled))
        picture.stalled = bool(self._stalled)
        if picture.stalled and picture.raft.role == "leader":
            picture.raft = attrs.evolve(picture.raft, role="follower", leader_id="", leader_addr="", ready=False, silent=frozenset())
            self._tell_metrics(lambda desk: desk.raft(picture.raft))
        elif not picture.stalled:
            asked = rooms.raft.ask(GetRaftView(), block=False)  # it may lead as before, and have nothing to tell
            asked.on_done(lambda: None if asked.error is not None else self.raft_changed(asked.get(timeout=0), []))
        self._look_around()

    def _look_for_tracer(self) -> None:
        """The application may set its tracer provider at any time: from then on publishes come by way of what makes their spans."""
        ref, publisher = self.ref, self._need().publisher
        assert isinstance(ref, ClusterRef)
        if TRACING.look() is not isinstance(ref.publisher, TracedPublisher) or ref.publisher is None:
            ref.publisher = TracedPublisher(publisher, self.config.node_id, self.config.max_payload) if TRACING.on else publisher
        self._tracer_at = time.monotonic() + TRACER_EVERY

    # -- what the rooms tell --------------------------------------------------------------------------------------------------

    def raft_changed(self, view: RaftView, events: list[Any]) -> None:
        """Runs in the Raft actor's thread: pass it on."""
        self.ref.send(lambda: self._raft_changed(view, events))

    def _raft_changed(self, view: RaftView, events: list[Any]) -> None:
        self._picture.raft = view
        self._need().health.waits(bool(view.waits_for))
        self._tell_metrics(lambda desk: desk.raft(view))
        for event in events:
            if isinstance(event, ElectionStarted):
                self._need().metrics.election_started()
                self._emit(*self._elections.campaigning(time.time(), view.term))
        self._look_around()

    def leader_told(self, term: int, leader: str) -> None:
        """A node of go-cluster says who leads. Runs in another actor's thread: pass it on."""
        self.ref.send(lambda: self._leader_told(term, leader))

    def _leader_told(self, term: int, leader: str) -> None:
        self._picture.told = (term, leader)
        self._look_around()

    def _begin_with(self, raft: RaftView, membership: MembershipView) -> None:
        """What the two showed when asked, once all they have told is handled. What they told is as new, or newer: it comes after every change."""
        if self._picture.raft == RaftView():
            self._raft_changed(raft, [])
        if self._picture.membership == MembershipView():
            self._membership_changed(membership, None)

    def membership_changed(self, view: MembershipView, event: MembershipEvent | None) -> None:
        """Runs in the membership actor's thread: pass it on."""
        self.ref.send(lambda: self._membership_changed(view, event))

    def _membership_changed(self, view: MembershipView, event: MembershipEvent | None) -> None:
        self._picture.membership = view
        self._tell_metrics(lambda desk: desk.membership(view))
        if event is not None and event.member.id != self.config.node_id:
            kind = _MEMBER_EVENTS[event.kind]
            self._emit(kind(time.time(), self._picture.topology.term, event.member.id, event.member.addr), news=event.kind != "update")
            if kind is MemberJoin:
                self._need().raft.send(PeerSeen(event.member.id))
        self._look_around()

    def _look_around(self) -> None:
        """Make the picture again, and tell whom it concerns what is new in it. Raft may lead before gossip has told its first view, which waits in the inbox then: a
        picture without this node's own addresses would be told, and written into the roster, for nothing."""
        rooms, picture = self._need(), self._picture
        if picture.membership == MembershipView():
            return
        before, now = picture.topology, picture.look()
        self._tell_meta(picture.raft.term if now.leads else None)
        self._tell_metrics(lambda desk: desk.topology(now))
        if now != before:
            picture.topology = now
            rooms.topology_changed(now)
        leader_addr = picture.mgmt_of(now.leader_id)
        events = self._elections.look(time.time(), now.leader_id, leader_addr, now.term)
        for event in events:
            if isinstance(event, LeaderChanged):
                rooms.metrics.leader_changed()
        self._emit(*events)
        self._look_at_quorum(time.monotonic())
        if now != before:
            if not events and leader_addr != before.mgmt_addr.get(now.leader_id, ""):
                self._emit(LeaderChanged(time.time(), now.term, now.leader_id, leader_addr), news=False)
            self._router.topology_changed(now)

    def _look_at_quorum(self, now: float) -> None:
        if self._quorum is not None and self._fatal is None:
            self._quorum.look(now)
            self._tell_meta(self._picture.raft.term if self._picture.topology.leads else None)

    def _tell_meta(self, leads_in: int | None) -> None:
        meta = self._need().meta(leads_in) | (self._quorum.meta() if self._quorum is not None else {})
        if meta != self._meta:
            self._meta = meta
            self._need().membership.send(SetMeta(meta))

    def _tell_metrics(self, tell: Callable[[MetricsDesk], None]) -> None:
        if self._metrics is not None:
            tell(self._metrics)

    def _emit(self, *events: Event, news: bool = True) -> None:
        for event in events:
            self._need().events.send(Emit(event, news))

    # -- crashes --------------------------------------------------------------------------------------------------------------

    def _crashed_elsewhere(self, crash: Crash) -> None:
        """Runs in the crashed actor's thread."""
        self.ref.send(lambda: self._crash(crash))

    def _crash(self, crash: Crash) -> None:
        if not crash.fatal:
            self._need().metrics.actor_restarted(crash.concern)
        fatal = crash.fatal and (crash.concern in FATAL or isinstance(crash.error, StorageError))
        text = f"{crash.concern} of {self.config.node_id} crashed ({type(crash.error).__name__}: {crash.error}) and "
        if crash.fatal:
            self._notes[crash.concern] = text + "has stopped"
        else:
            self._lately.happened(crash.concern, text + "started afresh", time.monotonic())
        if fatal and self._fatal is None:
            self._fail_closed(crash)

    def _fail_closed(self, crash: Crash) -> None:
        reason = f"this node has failed and serves no more: {crash.concern}: {type(crash.error).__name__}: {crash.error}"
        self._fatal = crash.error if isinstance(crash.error, StorageError) else StorageError(reason)
        self._notes["node"] = reason
        if isinstance(crash.error, Damaged):
            self._need().note_damage(crash.error)
        self.log.critical(reason)
        rooms = self._need()
        rooms.health.failed()
        ref = self.ref
        assert isinstance(ref, ClusterRef)
        ref.publisher = ref.reads = None  # no short way any more: behind its stop a publish would only hear that an actor is dead
        for room in (rooms.raft, rooms.publisher):
            room.stop(block=False)
        self._router.close()
        picture = self._picture
        picture.raft = RaftView(term=picture.raft.term, servers=picture.raft.servers)
        rooms.metrics.failed()
        self._tell_metrics(lambda desk: desk.raft(picture.raft))
        self._look_around()  # whoever acts on it, and the gossip, must not take this node for the leader any more
        self._tracer_at = None
        self.failed.set(self._fatal)


_HANDLERS: dict[type, Callable[[ClusterSupervisor, Any], Any]] = {
    DeadLetters: lambda self, message: self._need().ask_letters(message, self.reply_to),
    GetRaftReport: ClusterSupervisor._report,
    Here: ClusterSupervisor._here,
    Join: ClusterSupervisor._join,
    Leave: ClusterSupervisor._leave,
    Read: ClusterSupervisor._read,
    RegisterHandler: lambda self, message: self._requests.register(message.ref),
    Requeue: lambda self, message: self._need().ask_letters(message, self.reply_to),
    Status: ClusterSupervisor._show,
    Subscribe: lambda self, message: self._need().subscribe(message, self.reply_to),
    TransferLeadership: ClusterSupervisor._transfer,
    TakeBackup: ClusterSupervisor._back_up,
    Write: ClusterSupervisor._write,
}
