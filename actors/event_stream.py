"""What one listener has before it: events in order, bounded, with a word in their place where some are missing.

The bus puts in and never waits; the listener takes out. When `capacity` events wait, further ones are lost to this listener and counted. The gap is a mark
in the queue: when the listener comes to it, it gets `EventsMissed` with their number and then, if it wants that, the state as it was after them, as events
that are marked `current`. So whoever follows the state from event to event is right again after a gap, and nothing that came after the gap is told before it.
"""

from __future__ import annotations

import collections
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import attrs

from coterie.actors.messages import Event, EventsMissed

State = Sequence[Event]  # what is so, as events marked `current`


class _Gap:
    """Events lost at this place, and what was so after them."""

    __slots__ = ("after", "count", "term")

    def __init__(self) -> None:
        self.count, self.term = 0, 0
        self.after: State = ()


class Backlog:
    """Not safe for two threads: whoever owns it sees to that. replay: whether a gap is followed by the state."""

    def __init__(self, capacity: int, replay: bool) -> None:
        self.missed = 0
        self._capacity, self._replay = capacity, replay
        self._events: collections.deque[Event | _Gap] = collections.deque()
        self._first: collections.deque[Event] = collections.deque()  # comes before them, and takes none of their room

    def __len__(self) -> int:
        return len(self._first) + len(self._events)

    def show(self, state: State) -> None:
        """Tell what is so before all else that waits."""
        self._first.extend(state)

    def put(self, event: Event, state: State) -> None:
        """state: what is so after it."""
        if len(self._events) < self._capacity:
            self._events.append(event)
            return
        gap = self._events[-1]
        if not isinstance(gap, _Gap):
            gap = _Gap()
            self._events.append(gap)
        gap.count, gap.term, gap.after = gap.count + 1, event.term, state
        self.missed += 1

    def take(self) -> Event | None:
        """The next one; None when nothing waits."""
        if self._first:
            return self._first.popleft()
        if not self._events:
            return None
        event = self._events.popleft()
        if not isinstance(event, _Gap):
            return event
        if self._replay:
            self.show(event.after)
        return EventsMissed(time.time(), event.term, event.count)


class EventStream(Iterator[Event]):
    """Events of the cluster: first what is so, if that was asked for, then what happens. Iterating blocks until there is one; it ends when the stream or
    the node is closed.

    `missed` counts the events lost because `capacity` of them were waiting; where they are missing there is an `EventsMissed`. Usable as a context
    manager; safe to close from any thread.
    """

    def __init__(self, capacity: int, on_close: Callable[[], object], replay: bool = True) -> None:
        self._on_close = on_close
        self._backlog = backlog = Backlog(capacity, replay)
        self.count = lambda: backlog.missed  # as `missed`, also when this object is gone
        self._changed = threading.Condition()
        self._closed = False
        self._wake: Callable[[], object] = lambda: None

    def on_change(self, wake: Callable[[], object]) -> None:
        """`wake()` is called whenever an event has come or been missed, and at the end, in the thread that brings it: it must not block. For whoever may not
        wait in `get`, such as an event loop."""
        self._wake = wake
        wake()

    @property
    def missed(self) -> int:
        """How many events were lost so far, since this listener was too slow."""
        return self._backlog.missed

    def __next__(self) -> Event:
        event = self.get()
        if event is None:
            raise StopIteration
        return event

    def get(self, timeout: float | None = None) -> Event | None:
        """The next event, or None when the stream is closed or `timeout` seconds passed without one."""
        with self._changed:
            self._changed.wait_for(lambda: self._backlog or self._closed, timeout)
            return self._backlog.take()

    @property
    def closed(self) -> bool:
        """Whether it has ended: after what still waits there is nothing more."""
        return self._closed

    def close(self) -> None:
        """End it; a loop over it ends."""
        self.end()
        self._on_close()

    def end(self) -> None:
        """No more events will come; those that wait can still be read."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._wake()

    def offer(self, event: Event, state: State = ()) -> None:
        """From the bus: never blocks. state: what is so after it."""
        with self._changed:
            if self._closed:
                return
            self._backlog.put(event, state)
            self._changed.notify()
        self._wake()

    def show(self, state: State) -> None:
        """From the bus: what is so at the beginning."""
        with self._changed:
            self._backlog.show(state)
            self._changed.notify()
        self._wake()

    def __enter__(self) -> EventStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class CurrentState:
    """What is so, made of what has happened: the leader, and the members that are there, this node aside."""

    def __init__(self) -> None:
        self._leader: Event | None = None
        self._members: dict[str, Event] = {}
        self._state: State | None = ()

    def leader(self, event: Event) -> None:
        self._leader, self._state = attrs.evolve(event, current=True), None

    def member(self, name: str, event: Event | None) -> None:
        """event: the one that says it is there; None when it is not any more."""
        if event is not None:
            self._members[name] = attrs.evolve(event, current=True)
        else:
            self._members.pop(name, None)
        self._state = None

    def events(self) -> State:
        if self._state is None:
            self._state = (*([self._leader] if self._leader is not None else []), *self._members.values())
        return self._state
