"""The supervisor: one actor that starts a node's rooms, wires them, answers the front door, and decides what a crash means.

It is the only one who knows all rooms (`assembly.Rooms` makes them). What it does itself is small: it keeps the latest view of Raft and of gossip, makes the
`Topology` from them that the other rooms are told, routes writes and reads to the leader, and puts the status together. A `Publish` never comes here: the
reference that the user holds puts it straight into the publisher's inbox, since a second hop for each record would be the dearest thing in the house.

Crashes: an actor that only serves (events, management, a subscriber) has started afresh in place by the time it is reported, and a warning stays in the
status. One whose state is the node's word (Raft, the publisher, delivery, the buffer, membership) is fatal when it cannot go on, and so is any
`StorageError`: the node fails closed. It stops voting and serving, answers every request with the reason, and says so in its status.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import attrs
import pykka

from coterie.actors import topology as topologies
from coterie.actors.assembly import Rooms
from coterie.actors.base import LATER, Actor, Crash, Ref
from coterie.actors.config import Config
from coterie.actors.errors import CoterieError, DeadlineExceeded, InvalidRequest, NotLeader, StorageError
from coterie.actors.future import LightFuture, gather
from coterie.actors.messages import (
    ChangeQuorum,
    ClusterStatus,
    ConfirmLeadership,
    ElectionEnd,
    ElectionStart,
    Emit,
    GetMembership,
    GetRaftView,
    GetReplicationView,
    HandleRead,
    HandleWrite,
    Here,
    Join,
    Joined,
    LeaderChanged,
    Leave,
    Left,
    MemberFailed,
    MemberJoin,
    MemberLeave,
    MembershipEvent,
    MembershipView,
    Publish,
    RaftView,
    Read,
    RegisterHandler,
    ReplicationView,
    SetMeta,
    Status,
    Subscribe,
    Topology,
    TransferLeadership,
    Write,
)
from coterie.actors.raft.ready import ElectionEnded, ElectionStarted
from coterie.actors.replication.requests import check_timeout
from coterie.actors.routing import Request, Router
from coterie.actors.status import combine
from coterie.transport import logs

REFRESH = 5.0  # seconds between looks at what the rooms count
GRACE = 1.0  # seconds a blocking ask waits beyond the request's own deadline, so that the typed answer comes first
STATUS_PATIENCE = 2.0  # seconds a follower waits for its leader's view
FATAL = ("raft", "publisher", "delivery", "buffer", "membership")

_MEMBER_EVENTS = {"join": MemberJoin, "leave": MemberLeave, "failed": MemberFailed}


class ClusterRef(Ref):
    """What a user holds: a `pykka.ActorRef` of the supervisor. A `Publish` goes straight to the publisher."""

    publisher: Ref | None = None
    patience: float = 10.0

    def tell(self, message: Any) -> None:
        publisher = self.publisher
        if message.__class__ is Publish and publisher is not None and not publisher.actor_stopped.is_set():
            publisher.tell(message)
        else:
            self._put(message, None)

    def ask(self, message: Any, *, block: bool = True, timeout: float | None = None) -> Any:
        """The typed reply, or raises a typed error. timeout: as in pykka; without it the request's own deadline holds. What is not answered by
        then raises DeadlineExceeded, which is both Indeterminate and a `pykka.Timeout`."""
        publisher = self.publisher
        if message.__class__ is Publish and publisher is not None and not publisher.actor_stopped.is_set():
            future = publisher.ask(message, block=False)
        else:
            future = super().ask(message, block=False)
        if not block:
            return future
        if timeout is None:
            limit = getattr(message, "timeout", None)  # one that is none is refused at once
            timeout = (limit if isinstance(limit, (int, float)) and 0 < limit < math.inf else self.patience) + GRACE
        try:
            return future.get(timeout=timeout)
        except DeadlineExceeded:
            raise
        except pykka.Timeout:
            raise DeadlineExceeded(f"{type(message).__name__}: no answer within {timeout:g} s; it may still take effect") from None

    def addresses(self) -> dict[str, str]:
        """Where this node listens: raft, gossip, mgmt, http, grpc, each host:port as others dial it."""
        answer: dict[str, str] = self.ask("addresses")
        return answer


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
        self._raft = RaftView()
        self._membership = MembershipView()
        self._topology = Topology()
        self._leads_in: int | None = None
        self._handler: Any = None
        self._router = Router(config.node_id, self._post)
        self._notes: dict[str, str] = {}
        self._fatal: CoterieError | None = None
        self._refresh_at: float | None = None

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
            self._rooms = rooms = Rooms(self.config, ref, self._crashed_elsewhere)
            rooms.open()
            ref.publisher, ref.patience = rooms.publisher, self.config.request_timeout
            self._raft = rooms.raft.ask(GetRaftView(), timeout=10)
            self._membership = rooms.membership.ask(GetMembership(), timeout=10)
            if rooms.app_handler is not None:
                self._register(rooms.app_handler)
            self._look_around()
        except BaseException as error:
            if self._rooms is not None:
                self._rooms.close()
            self.started.fail(error)
            self.actor_stopped.set()
            pykka.ActorRegistry.unregister(self.actor_ref)
            if not isinstance(error, Exception):
                raise
            return
        self._refresh_at = time.monotonic() + REFRESH
        self.flush()
        self.started.set(True)

    def on_restart(self) -> None:
        """Its views are told anew with every change; what was being routed is answered by deadline."""
        self._notes["supervisor"] = "the supervisor crashed and started afresh; see the log"

    def on_stop(self) -> None:
        self._router.close()
        if self._rooms is not None:
            self._rooms.say_good_bye(self._raft, self._fatal is not None)
            self._rooms.close()
        if not self.failed.done:
            self.failed.set(None)

    # -- inbox ----------------------------------------------------------------------------------------------------------------

    def on_receive(self, message: Any) -> Any:
        if callable(message):
            return message()  # of this node's own rooms: a node that has failed still puts its status together
        if self._fatal is not None and not isinstance(message, (Status, Subscribe)) and message not in ("addresses", "failed"):
            return self._refuse(self._fatal)
        handle = _HANDLERS.get(type(message))
        if handle is None:
            return self._say(message)
        return handle(self, message)

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
        times = [self._refresh_at, self._router.next_time()]
        self.wake_at(min((t for t in times if t is not None), default=None))

    def on_wake(self, now: float) -> None:
        self._router.expire(now)
        if self._refresh_at is not None and now >= self._refresh_at:
            self._refresh_at = now + REFRESH
            self._refresh()

    def _refresh(self) -> None:
        """Counters that rooms keep go to the metrics now and then, so that a scrape never has to ask an actor."""
        rooms = self._need()
        rooms.show_inboxes()
        rooms.show_storage()
        rooms.metrics.room_counters("management", rooms.management_counters())
        for room, ref, question in (
            ("raft", rooms.raft, GetRaftView()),
            ("gossip", rooms.membership, GetMembership()),
            ("replication", rooms.publisher, GetReplicationView()),
        ):
            self._show_counters(room, ref.ask(question, block=False))

    def _show_counters(self, room: str, asked: LightFuture) -> None:
        metrics = self._need().metrics
        asked.on_done(lambda: metrics.room_counters(room, asked.get().counters) if asked.error is None else None)

    # -- what the rooms tell --------------------------------------------------------------------------------------------------

    def raft_changed(self, view: RaftView, events: list[Any]) -> None:
        """Runs in the Raft actor's thread: pass it on."""
        self.ref.send(lambda: self._raft_changed(view, events))

    def _raft_changed(self, view: RaftView, events: list[Any]) -> None:
        self._raft = view
        self._need().metrics.term(view.term)
        for event in events:
            if isinstance(event, ElectionStarted):
                self._need().metrics.election_started()
                self._emit(ElectionStart(time.time(), event.term))
            elif isinstance(event, ElectionEnded):
                leader = event.leader.id if event.leader else ""
                self._emit(ElectionEnd(time.time(), event.term, leader, self._mgmt_of(leader)))
        self._look_around()

    def membership_changed(self, view: MembershipView, event: MembershipEvent | None) -> None:
        """Runs in the membership actor's thread: pass it on."""
        self.ref.send(lambda: self._membership_changed(view, event))

    def _membership_changed(self, view: MembershipView, event: MembershipEvent | None) -> None:
        self._membership = view
        kind = _MEMBER_EVENTS.get(event.kind) if event is not None else None
        if event is not None and kind is not None and event.member.id != self.config.node_id:
            self._emit(kind(time.time(), self._topology.term, event.member.id, event.member.addr))
        self._look_around()

    def _look_around(self) -> None:
        """Make the picture again, and tell whom it concerns what is new in it."""
        rooms, before = self._need(), self._topology
        now = topologies.topology(self.config.node_id, self._raft, self._membership)
        leads_in = self._raft.term if now.leads else None
        if leads_in != self._leads_in:
            self._leads_in = leads_in
            rooms.membership.send(SetMeta(rooms.meta(leads_in)))
        rooms.metrics.members(len(now.live))
        rooms.metrics.leader(now.leads)
        if now == before:
            return
        self._topology = now
        rooms.topology_changed(now)
        if (now.leader_id, now.term if now.leader_id else 0) != (before.leader_id, before.term if before.leader_id else 0):
            rooms.metrics.leader_changed()
            self._emit(LeaderChanged(time.time(), now.term, now.leader_id, self._mgmt_of(now.leader_id)))
        self._router.topology_changed(now)

    def _mgmt_of(self, member: str) -> str:
        return self._topology.mgmt_addr.get(member, "") or topologies.topology(
            self.config.node_id, self._raft, self._membership
        ).mgmt_addr.get(member, "")

    def _emit(self, event: Any) -> None:
        self._need().events.send(Emit(event))

    # -- handlers -------------------------------------------------------------------------------------------------------------

    def _register(self, handler: Any) -> bool:
        if not (isinstance(handler, Ref) and handler.is_alive()):
            raise InvalidRequest(f"ref={handler!r}: give the reference of a running HandlerActor, as its start() returns it")
        self._handler = handler
        self._need().handler_changed(handler)
        return True

    def _write(self, message: Write, forwarded: bool = False) -> Any:
        op, data = message.op, message.data
        client = self._need().client
        return self._route(
            f"write {op!r}",
            message,
            lambda: self._ask_handler(HandleWrite(op, data)),
            lambda at, left: client.write(at, op, data, left),
            forwarded,
        )

    def _read(self, message: Read, forwarded: bool = False) -> Any:
        op, data = message.op, message.data
        client = self._need().client
        return self._route(
            f"read {op!r}",
            message,
            lambda: self._ask_handler(HandleRead(op, data)),
            lambda at, left: client.read(at, op, data, left),
            forwarded,
        )

    def _ask_handler(self, call: Any) -> LightFuture:
        if self._handler is None:
            raise InvalidRequest(
                f"op={call.op!r}: no handler is registered on the leader {self.config.node_id!r}; register one, or ask a cluster whose service has one"
            )
        answer, handler = LightFuture(), self._handler
        confirmed = self._need().raft.ask(ConfirmLeadership(), block=False)

        def confirmed_or_not() -> None:
            """In the Raft actor's thread: to the handler, or back to be routed anew."""
            if confirmed.error is not None:
                answer.fail(confirmed.error if isinstance(confirmed.error, CoterieError) else NotLeader())
                return
            handled: LightFuture = handler.ask(call, block=False)
            handled.on_done(lambda: answer.fail(handled.error) if handled.error is not None else answer.set(handled.get()))

        confirmed.on_done(confirmed_or_not)
        return answer

    def _route(
        self, name: str, message: Any, here: Callable[[], LightFuture], there: Callable[[str, float], LightFuture], forwarded: bool
    ) -> Any:
        if not isinstance(message.op, str) or not isinstance(message.data, (bytes, bytearray, memoryview)):
            raise InvalidRequest(f"{name}: op is a string and data are bytes")
        limit = self._limit(message)
        self._router.place(Request(name, self.reply_to, time.monotonic() + limit, here, there, forwarded))
        return LATER

    # -- the quorum -----------------------------------------------------------------------------------------------------------

    def _join(self, message: Join) -> Any:
        if not isinstance(message.id, str) or not message.id:
            raise InvalidRequest(f"id={message.id!r}: give the node_id of the server that joins")
        self._need().check_join(message.id, message.raft_addr, self._membership)
        return self._change(
            ChangeQuorum("join", message.id, message.raft_addr, self._deadline(message)), Joined(message.id, message.raft_addr)
        )

    def _leave(self, message: Leave) -> Any:
        if not isinstance(message.id, str) or not message.id:
            raise InvalidRequest(f"id={message.id!r}: give the node_id of the server that leaves")
        return self._change(ChangeQuorum("leave", message.id, "", self._deadline(message)), Left(message.id))

    def _deadline(self, message: Any) -> float:
        return time.monotonic() + self._limit(message)

    def _limit(self, message: Any) -> float:
        return check_timeout(message.timeout, self.config.request_timeout)

    def _change(self, change: Any, answer: Any) -> Any:
        if not self._topology.leads and self._topology.leader_id != self.config.node_id:
            raise NotLeader(self._topology.leader_id, self._mgmt_of(self._topology.leader_id))
        return self._pass_to_raft(change, answer)

    def _transfer(self, message: TransferLeadership) -> Any:
        return self._pass_to_raft(message, True)

    def _pass_to_raft(self, message: Any, answer: Any) -> Any:
        reply = self.reply_to
        future = self._need().raft.ask(message, block=False)

        def done() -> None:
            error = future.error
            if isinstance(error, NotLeader):
                error = NotLeader(error.leader_id, self._mgmt_of(error.leader_id))
            if reply is None or reply.done:
                return
            if error is not None:
                reply.fail(error)
            else:
                reply.set(answer)

        future.on_done(lambda: self._post(done))
        return LATER

    # -- status ---------------------------------------------------------------------------------------------------------------

    def _status(self, message: Status) -> Any:
        reply = self.reply_to
        if reply is None:
            return None
        topology, rooms = self._topology, self._need()
        address = topology.grpc_addr.get(topology.leader_id, "")
        if message.local or topology.leader_id in ("", self.config.node_id) or not address or self._fatal is not None:
            self._local_status(reply.set)
            return LATER
        patience = min(STATUS_PATIENCE, self._limit(message))
        asked = rooms.client.status(address, patience)

        def answered() -> None:
            if asked.error is None:
                reply.set(asked.get(timeout=0))
            else:
                self._local_status(
                    reply.set, f"the leader {topology.leader_id} at {address} did not answer ({asked.error}); this is this node's own view"
                )

        asked.on_done(lambda: self._post(answered))
        return LATER

    def _local_status(self, give: Callable[[ClusterStatus], None], note: str = "") -> None:
        rooms = self._need()
        asks = [
            rooms.raft.ask(GetRaftView(), block=False),
            rooms.membership.ask(GetMembership(), block=False),
            rooms.publisher.ask(GetReplicationView(), block=False),
        ]

        def all_there() -> None:
            raft, membership, replication = (ask.get(timeout=0) if ask.error is None else None for ask in asks)
            notes = (*self._notes.values(), *([note] if note else []), *_sink_warning())
            raft = raft or RaftView(term=self._raft.term, servers=self._raft.servers)
            if not self._topology.in_quorum:  # such a member knows its leader from gossip
                raft = attrs.evolve(raft, term=self._topology.term, leader_id=self._topology.leader_id)
            status = combine(
                self.config.node_id,
                raft,
                membership or self._membership,
                replication or ReplicationView(),
                self._topology.mgmt_addr,
                notes,
                rooms.management_counters(),
            )
            give(status)

        gather(asks, lambda: self._post(all_there))

    # -- crashes --------------------------------------------------------------------------------------------------------------

    def _crashed_elsewhere(self, crash: Crash) -> None:
        """Runs in the crashed actor's thread."""
        self.ref.send(lambda: self._crash(crash))

    def _crash(self, crash: Crash) -> None:
        if not crash.fatal:
            self._need().metrics.actor_restarted(crash.concern)
        fatal = crash.fatal and (crash.concern in FATAL or isinstance(crash.error, StorageError))
        state = "has stopped" if crash.fatal else "started afresh"
        self._notes[crash.concern] = f"{crash.concern} crashed ({type(crash.error).__name__}: {crash.error}) and {state}"
        if fatal and self._fatal is None:
            self._fail_closed(crash)

    def _fail_closed(self, crash: Crash) -> None:
        reason = f"this node has failed and serves no more: {crash.concern}: {type(crash.error).__name__}: {crash.error}"
        self._fatal = crash.error if isinstance(crash.error, StorageError) else StorageError(reason)
        self._notes["node"] = reason
        self.log.critical(reason)
        rooms = self._need()
        for room in (rooms.raft, rooms.publisher):
            room.stop(block=False)
        self._router.close()
        self._raft = RaftView(term=self._raft.term, servers=self._raft.servers)
        self._look_around()  # whoever acts on it, and the gossip, must not take this node for the leader any more
        self._refresh_at = None
        self.failed.set(self._fatal)

    def _here(self, message: Here) -> Any:
        """Another node has passed it on: it is answered here or refused."""
        inner = message.message
        if isinstance(inner, Write):
            return self._write(inner, forwarded=True)
        if isinstance(inner, Read):
            return self._read(inner, forwarded=True)
        return self.on_receive(inner)


def _sink_warning() -> list[str]:
    lost = logs.backlog.dropped
    return [f"{lost} log records were dropped: a log sink of this process blocks, or is slower than what is logged"] if lost else []


_HANDLERS: dict[type, Callable[[ClusterSupervisor, Any], Any]] = {
    Here: ClusterSupervisor._here,
    Join: ClusterSupervisor._join,
    Leave: ClusterSupervisor._leave,
    Read: ClusterSupervisor._read,
    RegisterHandler: lambda self, message: self._register(message.ref),
    Status: ClusterSupervisor._status,
    Subscribe: lambda self, message: self._need().subscribe(message, self.reply_to),
    TransferLeadership: ClusterSupervisor._transfer,
    Write: ClusterSupervisor._write,
}
