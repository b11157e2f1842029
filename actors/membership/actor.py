"""The membership actor: one core, its sockets, its seeds and its file.

The core decides (core.py); this feeds it and does what it wants done. Packets arrive from the transport's thread as messages; an answer to a
push/pull is taken from a snapshot, since a stream's thread must not wait for us. What blocks goes to worker threads: dialling (seeds, push/pulls) and
pings over TCP in separate pools, so that a host that swallows connections cannot delay a probe, and the disk in a third. There is no polling: the actor
sleeps until a packet comes or a deadline of the core is due, which for an idle node is its probe, once a second.

At most `MAX_WAITING` packets wait in the inbox; more are dropped and counted, as a full socket buffer would do. After a crash a new core goes on
on the same sockets, one incarnation higher, and finds the others where the old one knew them.
"""

from __future__ import annotations

import math
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import attrs

from coterie.actors.base import LATER, Actor, Crash
from coterie.actors.errors import BindFailed, CoterieError
from coterie.actors.future import LightFuture
from coterie.actors.membership import effects, views
from coterie.actors.membership.core import MembershipCore
from coterie.actors.membership.dialler import Dialled, Dialler, Exchanged, SeedsFound, StreamPinged
from coterie.actors.membership.discovery import Discovery
from coterie.actors.membership.effects import MergeRefused
from coterie.actors.membership.member_store import MemberStore
from coterie.actors.membership.seeking import Seeker
from coterie.actors.membership.settings import Settings
from coterie.actors.membership.workers import Workers
from coterie.actors.room_messages import GetMembership, LeaveGossip, MembershipEvent, MembershipView, SetMeta
from coterie.proto.gossip_messages import LEFT, Ack, Message, NodeState, Ping, PushPull, StreamMessage
from coterie.proto.gossip_security import Security
from coterie.transport.addresses import format_address
from coterie.transport.errors import AddressError, BindError
from coterie.transport.gossip import GossipTransport

MAX_WAITING: Final = 1024
SAVE_PAUSE: Final = 0.2
SHOW_PAUSE: Final = 5.0
CONFLICT_SHOWN: Final = 60.0

OnChange = Callable[[MembershipView, MembershipEvent | None], None]


class _Packet:
    __slots__ = ("messages", "source")

    def __init__(self, messages: tuple[Message, ...], source: tuple[str, int]) -> None:
        self.messages, self.source = messages, source


class _Pushed:
    """A push/pull that another node dialled."""

    __slots__ = ("said", "source")

    def __init__(self, said: PushPull, source: tuple[str, int]) -> None:
        self.said, self.source = said, source


@attrs.define(frozen=True)
class _Saved:
    error: str = ""


class MembershipActor(Actor):
    """Tell it `SetMeta`; ask it `GetMembership` (-> MembershipView) and `LeaveGossip` (-> True).

    bind, advertise: `host:port`, port 0 for a free one. on_change(view, event) is called in this actor's thread at each change, with the event that
    belongs to it or None; it must not block. members_path: where to remember, None for memory only. Starting fails with BindError or AddressError.
    """

    concern = "membership"

    def __init__(
        self,
        node: str,
        bind: str,
        advertise: str,
        meta: Mapping[str, str],
        discovery: Discovery,
        on_change: OnChange,
        *,
        members_path: Path | None = None,
        security: Security | None = None,
        settings: Settings | None = None,
        dice: random.Random | None = None,
        on_crash: Callable[[Crash], None] | None = None,
    ) -> None:
        super().__init__(node, on_crash)
        self._bind, self._advertise, self._security = bind, advertise, security
        self._meta = views.encode_meta(meta)
        self._discovery = discovery
        self._on_change = on_change
        settings = settings or Settings()
        overhead = security.overhead if security else 0
        self._settings = attrs.evolve(settings, packet_bytes=settings.packet_bytes - overhead)
        self._dice = dice or random.Random()
        self._store = MemberStore(members_path, node)
        self._disk = Workers(f"{node}/membership-disk", 1, 1)
        self._counters: Counter[str] = Counter()
        self._arrived = self._taken = 0
        self._conflicts: dict[str, effects.AddressConflict] = {}
        self._conflicts_heard, self._conflict_at = 0, 0.0
        self._left = False
        self._leaving: list[tuple[float, LightFuture]] = []
        self._states: tuple[NodeState, ...] = ()
        self._handlers: dict[type, Callable[[Any], Any]] = {
            _Packet: self._packet,
            _Pushed: self._pushed,
            Exchanged: self._exchanged,
            StreamPinged: self._stream_pinged,
            Dialled: self._dialled,
            SeedsFound: self._seeds_found,
            _Saved: self._saved,
            SetMeta: self._set_meta,
            GetMembership: lambda _: self._view(),
            LeaveGossip: self._leave,
        }

    # ---- life --------------------------------------------------------------------------------------------------------------------

    def on_start(self) -> None:
        remembered = self._store.load()
        if remembered.problem:
            self._counters["members_file_unreadable"] += 1
            self.log.warning("%s", remembered.problem)
        try:
            self._transport = GossipTransport(
                self._bind,
                self._advertise,
                self._security,
                self._on_packet,
                self._on_stream,
                self._on_push_pull,
                name=self.node,
                stream_timeout=self._settings.stream_timeout,
            )
        except (BindError, AddressError) as error:
            raise BindFailed(str(error)) from error
        self._dialler = Dialler(self.node, self._transport, self.ref, self._settings.stream_timeout)
        self._seeker = Seeker(self.node, self._discovery, self._dialler, self._introduction, self._counters, self.log, self._dice)
        self._begin(remembered.incarnation + 1, [address for name, address in remembered.members if name != self.node])

    def _begin(self, incarnation: int, addresses: list[str]) -> None:
        now = time.monotonic()
        me = self._transport.ip, self._transport.advertised_port
        self._core = MembershipCore(self.node, *me, self._meta, incarnation, self._settings, now, self._dice)
        self._seeker.begin(me, addresses, now)
        self._shown, self._kept = (-1, -1, -1), (-1, -1)
        self._shown_counters: dict[str, int] = {}
        self._show_at = self._save_at = now
        self._saving = False
        self.flush()

    def _introduction(self) -> PushPull:
        return PushPull(True, self._core.push_pull_state())

    def on_restart(self) -> None:
        members = [format_address(m.ip, m.port) for m in self._core.members() if m.name != self.node and m.state != LEFT]
        self._begin(self._core.incarnation + 1, members)

    def on_stop(self) -> None:
        for _, future in self._leaving:
            future.set(True)
        if not hasattr(self, "_dialler"):
            return
        self._transport.close()
        self._dialler.close()
        self._disk.close()
        if self._store.keeps and self._kept != self._worth_keeping():
            self._save(*self._snapshot())

    # ---- the transport's threads: pass on, never wait --------------------------------------------------------------------------------

    def _on_packet(self, messages: tuple[Message, ...], errors: tuple[str, ...], source: tuple[str, int]) -> None:
        # One thread counts up here, the actor counts up there: the difference needs no lock.
        if self._arrived - self._taken >= MAX_WAITING:
            self._counters["inbox_full"] += 1
        elif messages and self.ref.send(_Packet(messages, source)):
            self._arrived += 1

    def _on_stream(self, message: StreamMessage, source: tuple[str, int]) -> StreamMessage | None:
        if isinstance(message, PushPull):
            return PushPull(message.join, self._states)
        if isinstance(message, Ping) and message.node in ("", self.node):
            return Ack(message.seq_no)
        self._counters["stream_refused"] += 1
        return None

    def _on_push_pull(self, message: PushPull, source: tuple[str, int]) -> None:
        self.ref.send(_Pushed(message, source))

    # ---- messages ----------------------------------------------------------------------------------------------------------------

    def on_receive(self, message: Any) -> Any:
        handler = self._handlers.get(type(message))
        if handler is None:
            raise CoterieError(f"the membership actor does not know {type(message).__name__}")
        return handler(message)

    def _packet(self, packet: _Packet) -> None:
        self._taken += 1
        self._core.packet(packet.messages, packet.source, time.monotonic())

    def _pushed(self, pushed: _Pushed) -> None:
        self._merge(pushed.said, None)

    def _exchanged(self, exchanged: Exchanged) -> None:
        if exchanged.answer is None:
            self._counters["push_pull_failed"] += 1
        else:
            self._merge(exchanged.answer, exchanged.address)

    def _merge(self, said: PushPull, partner: tuple[str, int] | None) -> None:
        try:
            self._core.merge(said.nodes, said.join, time.monotonic(), partner)
        except MergeRefused as refusal:
            self.log.warning("%s", refusal)

    def _stream_pinged(self, pinged: StreamPinged) -> None:
        self._core.stream_pinged(pinged.seq_no, pinged.answered)

    def _dialled(self, dialled: Dialled) -> None:
        self._seeker.dialled(dialled, time.monotonic())
        if dialled.answer is not None and dialled.address is not None:
            self._merge(dialled.answer, dialled.address)

    def _seeds_found(self, found: SeedsFound) -> None:
        self._seeker.found(found, time.monotonic())

    def _set_meta(self, message: SetMeta) -> bool:
        try:
            self._meta = views.encode_meta(message.meta)
        except CoterieError as error:
            if self.reply_to is not None:
                raise
            self._counters["meta_refused"] += 1
            self.log.error("%s", error)
            return False
        self._core.update_meta(self._meta)
        return True

    def _leave(self, message: LeaveGossip) -> Any:
        now = time.monotonic()
        self._core.leave(now)
        self._left = True
        if self.reply_to is None:
            return None
        self._leaving.append((now + message.timeout, self.reply_to))
        return LATER

    # ---- what follows from a burst ---------------------------------------------------------------------------------------------------

    def on_wake(self, now: float) -> None:
        if self._core.deadline() <= now:
            self._core.tick(now)

    def flush(self) -> None:
        now = time.monotonic()
        if not self._left:
            self._seeker.look(self._core.members, now)
        happened = self._perform(now)
        self._show(happened, now)
        self._keep(now)
        self._part(now)
        self.wake_at(min(self._core.deadline(), self._shell_deadline()))

    def _perform(self, now: float) -> list[effects.Event]:
        """Everything the core wants done; a packet that our own socket refuses may make it want more."""
        happened: list[effects.Event] = []
        while (wanted := self._core.take()) != effects.Effects():
            happened += wanted.events
            for packet in wanted.packets:
                if not self._transport.send(packet.ip, packet.port, packet.messages, packet.crc):
                    self._core.send_failed((packet.ip, packet.port), now)
            for ping in wanted.stream_pings:
                if not self._dialler.ping(ping):
                    self._counters["stream_ping_skipped"] += 1
            for exchange in wanted.push_pulls:
                if not self._dialler.push_pull((exchange.ip, exchange.port), PushPull(exchange.join, self._core.push_pull_state())):
                    self._counters["push_pull_skipped"] += 1
        return happened

    def _show(self, happened: list[effects.Event], now: float) -> None:
        shown = self._core.revision, self._core.incarnation, self._seeker.revision
        for event in happened:
            if isinstance(event, effects.AddressConflict):
                self._conflicts[event.name] = event
                self.log.warning("%s", _conflict_text(event))
            elif isinstance(event, effects.SelfRefuted):
                self.log.info("refuted an untrue %r about this node, now at incarnation %d", event.reason, event.incarnation)
        if shown != self._shown:
            self._shown = shown
            self._states = self._core.push_pull_state()
            told = [event for event in map(views.event, happened) if event is not None]
            self._publish(told or [None], now)
        elif self._show_at <= now and self._all_counters() != self._shown_counters:
            self._publish([None], now)

    def _publish(self, told: list[MembershipEvent] | list[None] | list[MembershipEvent | None], now: float) -> None:
        view = self._view()
        self._shown_counters, self._show_at = view.counters, now + SHOW_PAUSE
        for event in told:
            self._on_change(view, event)

    def _keep(self, now: float) -> None:
        if self._store.keeps and not self._saving and self._save_at <= now and self._kept != (worth := self._worth_keeping()):
            snapshot = self._snapshot()
            self._saving = self._disk.submit(lambda: self._save_and_tell(*snapshot))
            if self._saving:
                self._kept, self._save_at = worth, now + SAVE_PAUSE

    def _part(self, now: float) -> None:
        if self._leaving:
            gone = self._core.has_left()
            for deadline, future in [one for one in self._leaving if gone or one[0] <= now]:
                self._leaving.remove((deadline, future))
                future.set(True)

    def _shell_deadline(self) -> float:
        due = [deadline for deadline, _ in self._leaving]
        if not self._left:
            due.append(self._seeker.deadline())
        if self._store.keeps and not self._saving and self._kept != self._worth_keeping():
            due.append(self._save_at)
        return min(due, default=math.inf)

    # ---- what is shown and kept ----------------------------------------------------------------------------------------------------

    def _all_counters(self) -> dict[str, int]:
        return {**self._transport.counters(), **self._counters, **self._core.counters, "health": self._core.health}

    def _view(self) -> MembershipView:
        members = self._core.members()
        return MembershipView(
            views.members(members),
            self._all_counters(),
            self._seeker.states(),
            self._conflict_warnings(members),
            self._seeker.warnings(members),
        )

    def _conflict_warnings(self, members: list[effects.Member]) -> tuple[str, ...]:
        """Two nodes with one name: shown for as long as the other one is heard, and a minute longer; but not of a node that moved, once it is taken
        for the one that it says it is."""
        now, heard = time.monotonic(), self._core.counters.get("address_conflict", 0)
        if heard != self._conflicts_heard:
            self._conflicts_heard, self._conflict_at = heard, now
        elif now - self._conflict_at > CONFLICT_SHOWN:
            self._conflicts.clear()
        for member in members:
            conflict = self._conflicts.get(member.name)
            if conflict is not None and conflict.claimed == (member.ip, member.port):
                del self._conflicts[member.name]
        return tuple(map(_conflict_text, self._conflicts.values()))

    def _worth_keeping(self) -> tuple[int, int]:
        return self._core.revision, self._core.incarnation

    def _snapshot(self) -> tuple[int, list[tuple[str, str]]]:
        members = [(m.name, format_address(m.ip, m.port)) for m in self._core.members() if m.name != self.node and m.state != LEFT]
        return self._core.incarnation, members

    def _save(self, incarnation: int, members: list[tuple[str, str]]) -> str:
        try:
            self._store.save(incarnation, members)
        except OSError as error:
            return f"{type(error).__name__}: {error}"
        return ""

    def _save_and_tell(self, incarnation: int, members: list[tuple[str, str]]) -> None:
        self.ref.send(_Saved(self._save(incarnation, members)))

    def _saved(self, saved: _Saved) -> None:
        self._saving = False
        if saved.error:
            self._counters["members_file_unwritten"] += 1
            self.log.warning("the last known members could not be stored: %s", saved.error)


def _conflict_text(conflict: effects.AddressConflict) -> str:
    return (
        f"member {conflict.name} is at {format_address(*conflict.held)} and is claimed at {format_address(*conflict.claimed)} too: "
        "two nodes with one id, or one that moved; give each node its own"
    )
