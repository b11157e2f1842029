"""The event bus: what happens in the cluster, told on every node to whoever listens.

One actor takes the events and hands each to every subscription. A subscription is bounded: a listener that does not keep up loses the newest events, and
counts them (`EventStream.missed`), but never holds anybody up. The callbacks of `Config` run in an actor of their own (`Callbacks`), so that the
application's code cannot delay the bus either; they see each leadership once, in order.
"""

from __future__ import annotations

import collections
import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pykka

from coterie.actors.base import Actor, Crash
from coterie.actors.config import Config
from coterie.actors.errors import InvalidRequest
from coterie.actors.messages import ElectionEnd, ElectionStart, Emit, Event, LeaderChanged, LeaderInfo, Subscribe


class EventStream(Iterator[Event]):
    """Events from the moment of `Subscribe` on. Iterating blocks until there is one; it ends when the stream or the node is closed.

    `missed` counts the events lost because `capacity` of them were waiting. Usable as a context manager; safe to close from any thread.
    """

    def __init__(self, capacity: int, on_close: Callable[[EventStream], object]) -> None:
        self.missed = 0
        self._capacity, self._on_close = capacity, on_close
        self._events: collections.deque[Event] = collections.deque()
        self._changed = threading.Condition()
        self._closed = False
        self._wake: Callable[[], object] = lambda: None

    def on_change(self, wake: Callable[[], object]) -> None:
        """`wake()` is called whenever an event has come or been missed, and at the end, in the thread that brings it: it must not block. For whoever may not
        wait in `get`, such as an event loop."""
        self._wake = wake
        wake()

    def __next__(self) -> Event:
        event = self.get()
        if event is None:
            raise StopIteration
        return event

    def get(self, timeout: float | None = None) -> Event | None:
        """The next event, or None when the stream is closed or `timeout` seconds passed without one."""
        with self._changed:
            self._changed.wait_for(lambda: self._events or self._closed, timeout)
            return self._events.popleft() if self._events else None

    @property
    def closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        self.end()
        self._on_close(self)

    def end(self) -> None:
        """No more events will come; those that wait can still be read."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._wake()

    def offer(self, event: Event) -> None:
        """From the bus: never blocks."""
        with self._changed:
            if self._closed:
                return
            if len(self._events) >= self._capacity:
                self.missed += 1
            else:
                self._events.append(event)
                self._changed.notify()
        self._wake()

    def __enter__(self) -> EventStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Unsubscribe:
    def __init__(self, stream: EventStream) -> None:
        self.stream = stream


class EventBus(Actor):
    """Takes `Emit` and `Subscribe`. Answers "missed" with how many events listeners have lost so far."""

    concern = "events"

    def __init__(self, node: str, on_crash: Callable[[Crash], None] | None = None) -> None:
        super().__init__(node, on_crash)
        self._streams: list[EventStream] = []
        self._listeners: list[tuple[Any, int]] = []
        self._missed = 0

    def on_receive(self, message: Any) -> Any:
        if isinstance(message, Emit):
            return self._emit(message.event)
        if isinstance(message, Subscribe):
            return self._subscribe(message)
        if isinstance(message, _Unsubscribe):
            if message.stream in self._streams:
                self._streams.remove(message.stream)
                self._missed += message.stream.missed
            return None
        if message == "missed":
            return self._missed + sum(stream.missed for stream in self._streams)
        raise TypeError(f"the event bus takes Emit and Subscribe, not {type(message).__name__}")

    def _subscribe(self, request: Subscribe) -> EventStream | bool:
        if not isinstance(request.capacity, int) or request.capacity < 1:
            raise InvalidRequest(f"capacity={request.capacity!r}: give how many events may wait, at least 1")
        if request.listener is not None:
            if not isinstance(request.listener, pykka.ActorRef):
                raise InvalidRequest(f"listener={request.listener!r}: give the reference of a running actor, or none for an EventStream")
            self._listeners.append((request.listener, request.capacity))
            return True
        stream = EventStream(request.capacity, lambda closed: self.ref.send(_Unsubscribe(closed)))
        self._streams.append(stream)
        return stream

    def _emit(self, event: Event) -> None:
        for stream in self._streams:
            stream.offer(event)
        for listener, capacity in list(self._listeners):
            if not listener.is_alive():
                self._listeners.remove((listener, capacity))
            elif listener.actor_inbox.qsize() >= capacity:
                self._missed += 1
            else:
                with contextlib.suppress(pykka.ActorDeadError):  # it stopped a moment ago
                    listener.tell(event)

    def on_restart(self) -> None:
        """The subscriptions survive a crash: nothing else is state here."""

    def on_stop(self) -> None:
        for stream in self._streams:
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
        except Exception:
            self.log.exception("the application's callback %s raised; the cluster goes on", getattr(callback, "__name__", callback))
