"""The event bus: what happens in the cluster, told on every node to whoever listens.

One actor takes the events and hands each to every subscription. It also keeps what follows from them, who leads and who is there, so that whoever
comes late begins with that. A subscription is bounded: a listener that does not keep up loses the newest events, but never holds anybody up; it is told in
their place how many they were (`EventsMissed`), and what is so after them. A stream that nobody holds any more, closed or not, is forgotten. The callbacks of
`Config` run in an actor of their own (`Callbacks`), so that the application's code cannot delay the bus either; they see each leadership once, in order.
"""

from __future__ import annotations

import contextlib
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import pykka

from coterie.actors.base import Actor, Crash
from coterie.actors.config import Config
from coterie.actors.errors import InvalidRequest
from coterie.actors.event_stream import CurrentState, EventStream, State
from coterie.actors.messages import (
    ElectionEnd,
    ElectionStart,
    Event,
    EventsMissed,
    LeaderChanged,
    LeaderInfo,
    MemberEvent,
    MemberJoin,
    Subscribe,
)
from coterie.actors.room_messages import Emit

MISSED: Final = "missed by slow listeners"  # the name of this count in the status and the metrics
LOOK_AGAIN: Final = 0.2  # seconds between looks whether an actor that missed events has room again


class _Unsubscribe:
    def __init__(self, number: int) -> None:
        self.number = number


class _Stream(NamedTuple):
    """A subscription. The stream is its listener's: who drops it without closing it would else be one who misses every event for ever. missed: asked also
    when it is gone."""

    ref: weakref.ref[EventStream]
    missed: Callable[[], int]


class _Listener:
    """An actor that is told. Its queue is its own inbox; what it misses is said when there is room in it again."""

    __slots__ = ("capacity", "lost", "ref", "replay", "term")

    def __init__(self, ref: Any, capacity: int, replay: bool) -> None:
        self.ref, self.capacity, self.replay = ref, capacity, replay
        self.lost, self.term = 0, 0  # since it was last told so; the term of the latest

    def has_room(self) -> bool:
        return bool(self.ref.actor_inbox.qsize() < self.capacity)

    def tell(self, events: Sequence[Event]) -> None:
        with contextlib.suppress(pykka.ActorDeadError):  # it stopped a moment ago
            for event in events:
                self.ref.tell(event)

    def catch_up(self, state: State) -> None:
        """Say what was missed, if there is room."""
        if self.lost and self.has_room():
            lost, self.lost = self.lost, 0
            self.tell([EventsMissed(time.time(), self.term, lost), *(state if self.replay else ())])


class EventBus(Actor):
    """Takes `Emit` and `Subscribe`. Answers "missed" with how many events listeners have lost so far."""

    concern = "events"

    def __init__(self, node: str, on_crash: Callable[[Crash], None] | None = None) -> None:
        super().__init__(node, on_crash)
        self._streams: dict[int, _Stream] = {}
        self._opened = 0
        self._listeners: list[_Listener] = []
        self._state = CurrentState()
        self._missed = 0

    def on_receive(self, message: Any) -> Any:
        if isinstance(message, Emit):
            return self._emit(message)
        if isinstance(message, Subscribe):
            return self._subscribe(message)
        if isinstance(message, _Unsubscribe):
            self._forget(message.number)
            return None
        if message == "missed":
            return self._missed + sum(stream.missed() for stream in self._streams.values())
        raise TypeError(f"the event bus takes Emit and Subscribe, not {type(message).__name__}")

    def _subscribe(self, request: Subscribe) -> EventStream | bool:
        if not isinstance(request.capacity, int) or request.capacity < 1:
            raise InvalidRequest(f"capacity={request.capacity!r}: give how many events may wait, at least 1")
        state = self._state.events() if request.replay else ()
        if request.listener is not None:
            if not isinstance(request.listener, pykka.ActorRef):
                raise InvalidRequest(f"listener={request.listener!r}: give the reference of a running actor, or none for an EventStream")
            listener = _Listener(request.listener, request.capacity, request.replay)
            listener.tell(state)
            self._listeners.append(listener)
            return True
        self._opened += 1
        number, ref = self._opened, self.ref
        stream = EventStream(request.capacity, lambda: ref.send(_Unsubscribe(number)), request.replay)
        stream.show(state)
        self._streams[number] = _Stream(weakref.ref(stream), stream.count)
        return stream

    def _forget(self, number: int) -> None:
        stream = self._streams.pop(number, None)
        if stream is not None:
            self._missed += stream.missed()

    def _emit(self, message: Emit) -> None:
        event = message.event
        if isinstance(event, LeaderChanged):
            self._state.leader(event)
        elif isinstance(event, MemberEvent):
            self._state.member(event.member_id, event if isinstance(event, MemberJoin) else None)
        if not message.news:
            return
        state = self._state.events()
        for number, (ref, _) in tuple(self._streams.items()):
            stream = ref()
            if stream is not None:
                stream.offer(event, state)
            else:
                self._forget(number)
        for listener in list(self._listeners):
            if not listener.ref.is_alive():
                self._listeners.remove(listener)
            elif listener.lost or not listener.has_room():  # what comes in a gap is part of it until it is told
                listener.lost, listener.term = listener.lost + 1, event.term
                self._missed += 1
            else:
                listener.tell([event])

    def flush(self) -> None:
        self.on_wake(time.monotonic())

    def on_wake(self, now: float) -> None:
        for listener in self._listeners:
            listener.catch_up(self._state.events())
        gaps = any(listener.lost and listener.ref.is_alive() for listener in self._listeners)
        self.wake_at(now + LOOK_AGAIN if gaps else None)

    def on_restart(self) -> None:
        """The subscriptions and the state survive a crash: nothing else is state here."""

    def on_stop(self) -> None:
        for ref, _ in self._streams.values():
            if (stream := ref()) is not None:
                stream.end()


class Callbacks(Actor):
    """Calls `Config.on_leader_change`, `on_election_start` and `on_election_end`: one at a time, in order, each leadership once."""

    concern = "callbacks"

    def __init__(self, config: Config, on_crash: Callable[[Crash], None] | None = None) -> None:
        super().__init__(config.node_id, on_crash)
        self._config = config
        self._last = ("", -1)

    @staticmethod
    def wanted(config: Config) -> bool:
        return any((config.on_leader_change, config.on_election_start, config.on_election_end))

    def on_receive(self, event: Any) -> None:
        config = self._config
        if isinstance(event, LeaderChanged) and config.on_leader_change is not None and (event.leader_id, event.term) != self._last:
            self._last = (event.leader_id, event.term)
            self._call(config.on_leader_change, LeaderInfo(event.leader_id, event.leader_addr, event.term))
        elif isinstance(event, ElectionStart) and config.on_election_start is not None:
            self._call(config.on_election_start)
        elif isinstance(event, ElectionEnd) and config.on_election_end is not None:
            self._call(config.on_election_end, LeaderInfo(event.leader_id, event.leader_addr, event.term))

    def _call(self, callback: Callable[..., object], *arguments: object) -> None:
        try:
            callback(*arguments)
        except BaseException:
            self.log.exception("the application's callback %s raised; the cluster goes on", getattr(callback, "__name__", callback))
