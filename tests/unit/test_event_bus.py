"""The event bus: everybody hears everything in order, nobody is held up, and what is missed is counted."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Iterator
from typing import Any

import attrs
import pykka
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.actors.base import MAX_RESTARTS, Actor, Ref
from coterie.actors.config import Config
from coterie.actors.errors import InvalidRequest
from coterie.actors.event_bus import Callbacks, EventBus
from coterie.actors.event_stream import Backlog, CurrentState
from coterie.actors.messages import (
    ElectionEnd,
    ElectionStart,
    Event,
    EventsMissed,
    LeaderChanged,
    LeaderInfo,
    MemberFailed,
    MemberJoin,
    MemberLeave,
    Subscribe,
)
from coterie.actors.room_messages import Emit
from tests.product.wait import wait_for

WAIT = 10.0


@pytest.fixture
def bus() -> Iterator[Ref]:
    ref = EventBus.start("n1")
    yield ref
    ref.stop()


def event(number: int) -> Event:
    return MemberJoin(0.0, number, "n2", "n2:1")


def emit(bus: Ref, *numbers: int) -> None:
    for number in numbers:
        bus.tell(Emit(event(number)))
    bus.ask("missed", timeout=WAIT)  # everything before this has been handed out


def test_a_stream_has_what_comes_after_the_subscription_in_order(bus: Ref) -> None:
    emit(bus, 1)
    stream = bus.ask(Subscribe(replay=False))
    emit(bus, 2, 3)
    assert [stream.get(WAIT).term, next(stream).term] == [2, 3]
    assert stream.get(0.0) is None


def test_two_streams_have_the_same(bus: Ref) -> None:
    streams = [bus.ask(Subscribe()) for _ in range(2)]
    emit(bus, *range(5))
    assert [[stream.get(0).term for _ in range(5)] for stream in streams] == [list(range(5))] * 2


class Quick(Actor):
    concern = "listener"

    def __init__(self) -> None:
        super().__init__()
        self.had: list[int] = []

    def on_receive(self, message: Any) -> Any:
        return self.had if message == "had" else self.had.append(message.term)


@pytest.mark.parametrize("wrong", [{"listener": "n2"}, {"listener": print}, {"capacity": 0}, {"capacity": None}, {"capacity": "9"}])
def test_a_subscription_that_cannot_be_is_refused_and_harms_nobody(bus: Ref, wrong: dict[str, Any]) -> None:
    stream = bus.ask(Subscribe())
    with pytest.raises(InvalidRequest, match=next(iter(wrong))):
        bus.ask(Subscribe(**wrong))
    emit(bus, 1)
    assert stream.get(0).term == 1


def test_a_listener_that_stops_while_it_is_told_takes_nothing_from_the_others(bus: Ref, monkeypatch: pytest.MonkeyPatch) -> None:
    gone, present = Quick.start(), Quick.start()
    bus.ask(Subscribe(listener=gone))
    stream = bus.ask(Subscribe())
    bus.ask(Subscribe(listener=present))
    gone.stop()
    monkeypatch.setattr(gone, "is_alive", lambda: True)  # as seen just before
    emit(bus, 1, 2)
    assert [stream.get(0).term, stream.get(0).term] == [1, 2]
    assert present.ask("had") == [1, 2]
    present.stop()


def test_a_slow_listener_misses_the_newest_and_the_loss_is_counted(bus: Ref) -> None:
    slow, quick = bus.ask(Subscribe(capacity=2)), bus.ask(Subscribe())
    emit(bus, *range(10))
    assert (slow.missed, quick.missed, bus.ask("missed")) == (8, 0, 8)
    assert [slow.get(0).term, slow.get(0).term] == [0, 1]
    gap = slow.get(0)
    assert isinstance(gap, EventsMissed)
    assert (gap.count, gap.term) == (8, 9)
    assert slow.get(0) == attrs.evolve(event(9), current=True)
    assert slow.get(0) is None
    emit(bus, 10)
    assert slow.get(0).term == 10
    slow.close()
    assert bus.ask("missed") == 8


def test_a_stream_that_nobody_holds_any_more_misses_nothing_more(bus: Ref) -> None:
    dropped = bus.ask(Subscribe(capacity=2))
    emit(bus, *range(5))
    assert bus.ask("missed") == 3
    del dropped  # as `for event in cluster.events(): break` leaves it
    gc.collect()
    emit(bus, *range(100))
    assert bus.ask("missed") == 3


# -- what is so -------------------------------------------------------------------------------------------------------------------


def told(stream: Any) -> list[Any]:
    """All that waits."""
    return list(iter(lambda: stream.get(0), None))


def tell(bus: Ref, *events: Event, news: bool = True) -> None:
    for one in events:
        bus.tell(Emit(one, news))
    bus.ask("missed", timeout=WAIT)


def now(one: Event) -> Event:
    return attrs.evolve(one, current=True)


ONE, TWO = LeaderChanged(1.0, 1, "n1", "n1:1"), LeaderChanged(2.0, 2, "n2", "n2:1")
N2, N3 = MemberJoin(1.0, 1, "n2", "n2:7"), MemberJoin(1.5, 1, "n3", "n3:7")


def test_who_comes_late_begins_with_what_is_so_and_can_tell_it_from_news(bus: Ref) -> None:
    assert told(bus.ask(Subscribe())) == []
    tell(bus, ONE, N2, N3, ElectionStart(1.8, 1), TWO, MemberFailed(2.0, 2, "n3", "n3:7"))
    late, later = bus.ask(Subscribe()), bus.ask(Subscribe(replay=False))
    tell(bus, N3)
    assert told(late) == [now(TWO), now(N2), N3]
    assert told(later) == [N3]


def test_a_member_that_left_or_failed_is_not_there_and_one_that_came_back_is(bus: Ref) -> None:
    tell(bus, N2, N3, MemberLeave(2.0, 1, "n2", "n2:7"), MemberFailed(2.0, 1, "n3", "n3:7"), attrs.evolve(N3, addr="n3:8"))
    assert told(bus.ask(Subscribe())) == [now(attrs.evolve(N3, addr="n3:8"))]


def test_that_no_leader_is_known_is_so_too(bus: Ref) -> None:
    lost = LeaderChanged(2.0, 1)
    tell(bus, ONE, lost)
    assert told(bus.ask(Subscribe())) == [now(lost)]


def test_what_is_no_news_is_told_to_who_comes_later_only(bus: Ref) -> None:
    stream = bus.ask(Subscribe())
    tell(bus, N2)
    tell(bus, attrs.evolve(N2, addr="n2:8"), news=False)
    assert told(stream) == [N2]
    assert told(bus.ask(Subscribe())) == [now(attrs.evolve(N2, addr="n2:8"))]


def test_a_gap_stands_where_events_are_missing_and_what_was_so_then_follows(bus: Ref) -> None:
    stream = bus.ask(Subscribe(capacity=2))
    tell(bus, ONE, N2, N3, TWO)  # two fit
    assert stream.get(0) == ONE
    tell(bus, MemberLeave(3.0, 2, "n2", "n2:7"))  # the gap has taken the room that was made
    had = [stream.get(0), stream.get(0)]
    tell(bus, N2)
    had += told(stream)
    assert had[0] == N2
    assert (had[1].count, had[1].term) == (3, 2)
    assert had[2:] == [now(TWO), now(N3), N2]
    assert stream.missed == 3


def test_a_listener_that_wants_no_replay_hears_of_the_gap_alone(bus: Ref) -> None:
    stream = bus.ask(Subscribe(capacity=1, replay=False))
    tell(bus, ONE, N2)
    assert [type(one) for one in told(stream)] == [LeaderChanged, EventsMissed]


@given(st.lists(st.one_of(st.just("take"), st.integers(0, 5)), max_size=60), st.integers(1, 4))
def test_nothing_is_told_out_of_order_and_every_event_is_told_or_counted(steps: list[Any], capacity: int) -> None:
    """The last word on each member is always right, whatever the listener's pace."""
    backlog, state = Backlog(capacity, replay=True), CurrentState()
    put, had = 0, []
    for number, step in enumerate(steps):
        if step == "take":
            had.append(backlog.take())
        else:
            put += 1
            one = MemberJoin(0.0, number, f"n{step}", "a:1")
            state.member(one.member_id, one)
            backlog.put(one, state.events())
            assert len(backlog) <= capacity + 1 + 6
    had += list(iter(backlog.take, None))
    had = [one for one in had if one is not None]
    news = [one for one in had if isinstance(one, MemberJoin) and not one.current]
    assert len(news) + sum(one.count for one in had if isinstance(one, EventsMissed)) == put
    assert [one.term for one in news] == sorted(one.term for one in news)
    last = {one.member_id: one.term for one in had if isinstance(one, MemberJoin)}
    assert last == {one.member_id: one.term for one in state.events() if isinstance(one, MemberJoin)}


# -- the end ----------------------------------------------------------------------------------------------------------------------


def test_a_closed_stream_ends_for_whoever_waits_on_it(bus: Ref) -> None:
    stream = bus.ask(Subscribe())
    seen: list[Any] = []
    reader = threading.Thread(target=lambda: seen.extend(stream))
    reader.start()
    emit(bus, 1)
    stream.close()
    reader.join(WAIT)
    assert not reader.is_alive()
    assert stream.closed
    assert [e.term for e in seen] in ([1], [])
    emit(bus, 2)
    assert stream.get(0) is None or stream.get(0) is None
    with bus.ask(Subscribe()) as managed:
        pass
    assert managed.closed


def test_streams_end_with_the_bus_after_what_was_waiting() -> None:
    bus = EventBus.start("n1")
    stream = bus.ask(Subscribe())
    emit(bus, 1, 2)
    bus.stop()
    assert [e.term for e in stream] == [1, 2]


class Listener(Actor):
    concern = "listener"

    def __init__(self) -> None:
        super().__init__()
        self.had: list[Any] = []
        self.free, self.inside = threading.Event(), threading.Event()

    def on_receive(self, message: Any) -> Any:
        if message == "had":
            return self.had
        self.inside.set()
        assert self.free.wait(WAIT)
        self.had.append(EventsMissed if isinstance(message, EventsMissed) else message.term)
        return None


def test_an_actor_is_told_bounded_and_a_dead_one_is_forgotten(bus: Ref) -> None:
    ref = Listener.start()
    listener = ref._actor_weakref()
    assert bus.ask(Subscribe(listener=ref, capacity=3)) is True
    emit(bus, 0)
    assert listener.inside.wait(WAIT)
    emit(bus, *range(1, 11))
    assert bus.ask("missed") == 7
    listener.free.set()
    wait_for(lambda: len(ref.ask("had", timeout=WAIT)) == 6, WAIT, "it is told of the gap, and what is so, without another event")
    assert ref.ask("had", timeout=WAIT) == [0, 1, 2, 3, EventsMissed, 10]
    ref.stop()
    emit(bus, 11)
    assert bus.is_alive()


def test_what_is_no_event_is_refused(bus: Ref) -> None:
    with pytest.raises(TypeError, match="str"):
        bus.ask("nonsense")


class Calls:
    def __init__(self, raises: bool = False) -> None:
        self.seen: list[Any] = []
        self.raises = raises

    def __call__(self, *arguments: Any) -> None:
        self.seen.append(arguments)
        if self.raises:
            raise RuntimeError("the application's own")


def test_callbacks_see_each_leadership_once_and_in_order() -> None:
    changed, started, ended = Calls(), Calls(), Calls()
    config = Config(node_id="n1", on_leader_change=changed, on_election_start=started, on_election_end=ended)
    assert Callbacks.wanted(config)
    ref = Callbacks.start(config)
    for told in (
        ElectionStart(0.0, 2),
        ElectionEnd(0.0, 2, "n1", "n1:2"),
        LeaderChanged(0.0, 2, "n1", "n1:2"),
        LeaderChanged(0.5, 2, "n1", "n1:2"),
        LeaderChanged(1.0, 2, "", ""),
        LeaderChanged(2.0, 3, "n2", "n2:2"),
        MemberJoin(3.0, 3, "n4", "n4:1"),
    ):
        ref.tell(told)
    ref.stop()
    assert changed.seen == [(LeaderInfo("n1", "n1:2", 2),), (LeaderInfo("", "", 2),), (LeaderInfo("n2", "n2:2", 3),)]
    assert (started.seen, ended.seen) == ([()], [(LeaderInfo("n1", "n1:2", 2),)])


def test_a_callback_that_raises_stops_nothing() -> None:
    failing = Calls(raises=True)
    ref = Callbacks.start(Config(node_id="n1", on_leader_change=failing))
    for term in (1, 2):
        ref.tell(LeaderChanged(0.0, term, "n1", ""))
    ref.stop()
    assert len(failing.seen) == 2
    assert not Callbacks.wanted(Config(node_id="n1"))
    assert not [actor for actor in pykka.ActorRegistry.get_all() if isinstance(actor, Ref) and actor == ref]


def test_a_callback_that_exits_ends_nothing() -> None:
    seen: list[LeaderInfo] = []

    def exits(info: LeaderInfo) -> None:
        seen.append(info)
        sys.exit(3)

    ref = Callbacks.start(Config(node_id="n1", on_leader_change=exits))
    for term in range(MAX_RESTARTS + 2):
        ref.tell(LeaderChanged(0.0, term, "n1", ""))
    ref.stop()
    assert len(seen) == MAX_RESTARTS + 2
