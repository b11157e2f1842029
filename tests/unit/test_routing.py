"""Where a request goes, when it is tried again, and what its caller hears: always within the deadline, and never success for what nobody carried out."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from coterie.actors.errors import CoterieError, HandlerFailed, Indeterminate, NoQuorum, NotLeader, Unreachable
from coterie.actors.future import LightFuture
from coterie.actors.node.routing import LAST_TRY, RETRY_PAUSE, Request, Router
from coterie.actors.room_messages import Topology

LEADS = Topology(1, "n1", True, True, {"n1": "n1:3"}, {"n1": "n1:2"})
FOLLOWS = Topology(1, "n2", False, True, {"n1": "n1:3", "n2": "n2:3"}, {"n2": "n2:2"})
NOBODY = Topology(1, "", False, True)
SOON = 60.0


class World:
    """A router whose inbox is a list, and requests whose carriers keep what they were asked."""

    def __init__(self, topology: Topology = NOBODY) -> None:
        self.inbox: list[Callable[[], None]] = []
        self.router = Router("n1", self.inbox.append)
        self.router.topology_changed(topology)
        self.here: list[LightFuture] = []
        self.there: list[tuple[str, float, LightFuture]] = []

    def ask(self, left: float = SOON, forwarded: bool = False, refuse: CoterieError | None = None) -> LightFuture:
        def here() -> LightFuture:
            if refuse is not None:
                raise refuse
            self.here.append(LightFuture())
            return self.here[-1]

        def there(address: str, seconds: float) -> LightFuture:
            self.there.append((address, seconds, LightFuture()))
            return self.there[-1][2]

        reply = LightFuture()
        self.router.place(Request("write 'op'", reply, time.monotonic() + left, here, there, forwarded))
        return reply

    def work(self) -> None:
        while self.inbox:
            self.inbox.pop(0)()


def test_a_leader_carries_it_out_itself() -> None:
    world = World(LEADS)
    reply = world.ask()
    world.here[0].set(b"done")
    world.work()
    assert reply.get(timeout=0) == b"done"
    assert world.there == []


def test_a_follower_sends_it_to_the_leader_with_the_time_that_is_left() -> None:
    world = World(FOLLOWS)
    reply = world.ask(left=5.0)
    address, left, future = world.there[0]
    assert address == "n2:3"
    assert 4.5 < left <= 5.0
    future.set(b"done")
    world.work()
    assert reply.get(timeout=0) == b"done"


def test_without_a_leader_it_waits_for_one() -> None:
    world = World()
    reply = world.ask()
    assert not world.here and not world.there
    world.router.topology_changed(LEADS)
    world.here[0].set(b"done")
    world.work()
    assert reply.get(timeout=0) == b"done"


def test_a_leader_whose_address_is_unknown_is_waited_for() -> None:
    world = World(Topology(1, "n2", False, True, {}))
    world.ask()
    assert not world.there
    world.router.topology_changed(FOLLOWS)
    assert len(world.there) == 1


@pytest.mark.parametrize("error", [NotLeader("n3"), Unreachable("n2:3: refused")])
def test_what_was_certainly_not_carried_out_is_tried_again_after_a_pause(error: CoterieError) -> None:
    world = World(FOLLOWS)
    reply = world.ask()
    world.there[0][2].fail(error)
    world.work()
    assert not reply.done
    assert len(world.there) == 1
    again = world.router.next_time()
    assert again is not None
    assert again - time.monotonic() <= RETRY_PAUSE
    world.router.expire(again)
    assert len(world.there) == 2
    world.there[1][2].set(b"done")
    world.work()
    assert reply.get(timeout=0) == b"done"


@pytest.mark.parametrize("error", [Indeterminate("lost"), HandlerFailed("it raised")])
def test_what_may_have_been_carried_out_is_never_tried_again(error: CoterieError) -> None:
    world = World(FOLLOWS)
    reply = world.ask()
    world.there[0][2].fail(error)
    world.work()
    with pytest.raises(type(error)):
        reply.get(timeout=0)
    world.router.topology_changed(LEADS)
    assert len(world.there) == 1 and not world.here


def test_what_another_node_forwarded_is_carried_out_here_or_refused_with_the_leader() -> None:
    world = World(FOLLOWS)
    with pytest.raises(NotLeader) as refused:
        world.ask(forwarded=True).get(timeout=0)
    assert (refused.value.leader_id, refused.value.leader_addr) == ("n2", "n2:2")
    assert not world.there
    world.router.topology_changed(LEADS)
    reply = world.ask(forwarded=True)
    world.here[0].fail(NotLeader("n2"))
    world.work()
    with pytest.raises(NotLeader):
        reply.get(timeout=0)


def test_a_deadline_without_a_leader_is_no_quorum_with_the_last_reason() -> None:
    world = World(FOLLOWS)
    reply = world.ask(left=1.0)
    world.there[0][2].fail(Unreachable("n2:3: refused"))
    world.work()
    world.router.topology_changed(NOBODY)
    world.router.expire(time.monotonic() + 2)
    with pytest.raises(NoQuorum, match=r"write 'op'.*n2:3: refused.*not carried out"):
        reply.get(timeout=0)
    assert world.router.next_time() is None


def test_what_was_refused_is_not_sent_again_when_no_answer_could_come_in_time() -> None:
    world = World(FOLLOWS)
    reply = world.ask(left=0.9 * RETRY_PAUSE)
    world.there[0][2].fail(NotLeader("n3"))
    world.work()
    (request,) = world.router._waiting
    request.retry_at = 0.0  # the pause is over
    world.router.topology_changed(FOLLOWS)
    assert len(world.there) == 1
    world.router.expire(time.monotonic() + RETRY_PAUSE)
    with pytest.raises(NoQuorum, match="not carried out"):
        reply.get(timeout=0)


@pytest.mark.parametrize(("took", "last"), [(0.0, RETRY_PAUSE), (0.1, 0.2), (5.0, LAST_TRY)])
def test_how_near_the_deadline_one_is_asked_again_depends_on_how_long_it_took_to_refuse(took: float, last: float) -> None:
    request = Request("write 'op'", None, 10.0, LightFuture, lambda _, __: LightFuture())
    assert request.may_be_sent(9.999)  # it was never refused
    request.tried, request.took = NotLeader("n3"), took
    assert request.may_be_sent(10.0 - last - 0.001)
    assert not request.may_be_sent(10.0 - last + 0.001)


def test_a_deadline_under_way_is_indeterminate_and_the_late_answer_is_nobodys() -> None:
    world = World(LEADS)
    reply = world.ask(left=1.0)
    world.router.expire(time.monotonic() + 2)
    with pytest.raises(Indeterminate, match="may still be carried out"):
        reply.get(timeout=0)
    world.here[0].set(b"late")
    world.work()
    assert world.router.next_time() is None


def test_only_what_is_overdue_expires() -> None:
    world = World()
    early, late = world.ask(left=1.0), world.ask(left=30.0)
    world.router.expire(time.monotonic() + 2)
    assert early.done
    assert not late.done
    next_time = world.router.next_time()
    assert next_time is not None and next_time > time.monotonic() + 20


def test_what_is_refused_before_it_starts_is_refused_at_once() -> None:
    world = World(LEADS)
    with pytest.raises(HandlerFailed):
        world.ask(refuse=HandlerFailed("no")).get(timeout=0)


def test_closing_answers_everybody() -> None:
    world = World(LEADS)
    under_way = world.ask()
    world.router.topology_changed(NOBODY)
    waiting = world.ask()
    world.router.close()
    with pytest.raises(Indeterminate):
        under_way.get(timeout=0)
    with pytest.raises(NoQuorum):
        waiting.get(timeout=0)
    world.here[0].set(b"late")
    world.work()
