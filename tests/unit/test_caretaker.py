"""What a leader does about its quorum by itself, against a plain model of servers that come, go and fall silent."""

from __future__ import annotations

from typing import Any

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st

from coterie.actors.node.caretaker import SMALL_LAG, STEADY, Caretaker, Rules, Step
from coterie.actors.node.topology import META_CLUSTER, META_RAFT, META_WANTS, NO_CLUSTER
from coterie.actors.room_messages import Member, PeerView, RaftView

CLUSTER = "c1"


class World:
    """n1 leads. Every change that the caretaker asks for is made at once."""

    def __init__(self, rules: Rules, voters: int = 1) -> None:
        self.rules, self.now = rules, 1000.0
        self.caretaker = Caretaker("n1", rules)
        self.servers: dict[str, str] = {f"n{i}": "voter" for i in range(1, voters + 1)}
        self.addresses = {name: f"{name}:9520" for name in self.servers}
        self.members: dict[str, Member] = {}
        self.raft_heard: dict[str, float] = {}  # when Raft last heard whom
        self.lag: dict[str, int] = {}
        self.refuse: set[str] = set()
        self.done: list[Step] = []
        for name in self.servers:
            self.member(name)

    def member(self, name: str, **meta: str) -> None:
        told = {META_RAFT: f"{name}:9520", META_CLUSTER: NO_CLUSTER, META_WANTS: "t1", **meta}
        self.members[name] = Member(name, f"{name}:7946", {key: value for key, value in told.items() if value})

    def gossip(self, name: str, state: str) -> None:
        self.members[name] = attrs.evolve(self.members[name], state=state)

    def answers(self, name: str) -> bool:
        return name not in self.raft_heard

    def voters(self) -> list[str]:
        return [name for name, suffrage in self.servers.items() if suffrage == "voter"]

    def view(self) -> RaftView:
        def peer(name: str, suffrage: str) -> PeerView:
            contact = self.now - self.raft_heard[name] if name in self.raft_heard else 0.1
            where = self.addresses[name] if self.answers(name) else ""
            return PeerView(name, self.addresses[name], suffrage, 1000 - self.lag.get(name, 0), contact, "replicate", where)

        return RaftView("leader", 3, "n1", last_index=1000, ready=True, servers=tuple(peer(*server) for server in self.servers.items()))

    def look(self, elsewhere: dict[str, str] | None = None) -> Step | None:
        step = self.caretaker.look(self.view(), self.members.values(), elsewhere or {}, "n1:9520", CLUSTER, self.now)
        if step is not None:
            refused = step.id in self.refuse
            if not refused:
                self.make(step)
            self.caretaker.done(step, refused, self.now)
        return step

    def make(self, step: Step) -> None:
        self.done.append(step)
        if step.kind == "leave":
            del self.servers[step.id]
        elif step.kind == "promote":
            assert self.servers[step.id] == "learner"
            self.servers[step.id] = "voter"
        elif step.kind == "learn":
            assert step.id not in self.servers
            self.servers[step.id] = "learner"
            self.addresses[step.id] = step.address
        else:
            self.addresses[step.id] = step.address

    def run(self, seconds: float) -> list[Step]:
        """What was done in that time."""
        begun, end = len(self.done), self.now + seconds
        while self.now < end:
            self.look()
            self.now += 0.5
        return self.done[begun:]


def kinds(steps: list[Step]) -> list[tuple[str, str]]:
    return [(step.kind, step.id) for step in steps]


def test_with_all_off_nothing_is_done_whatever_happens() -> None:
    world = World(Rules(), 3)
    world.member("n4")
    world.raft_heard["n2"] = world.now
    world.gossip("n2", "failed")
    assert world.run(3600) == []


def test_members_that_ask_become_learners_and_then_voters_in_odd_numbers() -> None:
    world = World(Rules(auto_join=True))
    for name in ("n2", "n3", "n4"):
        world.member(name)
    steps = kinds(world.run(10))
    assert sorted(steps[:3]) == [("learn", "n2"), ("learn", "n3"), ("learn", "n4")]
    assert steps[3:] == [("promote", "n2"), ("promote", "n3")], "a fourth voter tolerates no more than three do"
    world.member("n5")
    assert kinds(world.run(10))[1:] == [("promote", "n4"), ("promote", "n5")]
    for name in ("n6", "n7"):
        world.member(name)
    world.run(30)
    assert len(world.voters()) == 5
    assert world.servers["n6"] == world.servers["n7"] == "learner"


def test_a_second_member_alone_stays_a_learner() -> None:
    world = World(Rules(auto_join=True))
    world.member("n2")
    assert kinds(world.run(60)) == [("learn", "n2")]


def test_a_learner_that_is_behind_or_does_not_keep_up_is_not_promoted() -> None:
    world = World(Rules(auto_join=True))
    world.member("n2")
    world.member("n3")
    world.lag = {"n2": SMALL_LAG + 1}
    assert ("promote", "n3") not in kinds(world.run(20)), "two would be no better than one"
    for _ in range(20):  # never for long enough
        world.lag["n2"] = 0
        world.run(STEADY - 0.5)
        world.lag["n2"] = SMALL_LAG + 1
        world.run(0.5)
    assert world.servers["n2"] == "learner"
    world.lag["n2"] = SMALL_LAG
    world.run(STEADY + 3)
    assert sorted(world.voters()) == ["n1", "n2", "n3"]


def test_who_is_not_to_be_taken_is_not_taken() -> None:
    world = World(Rules(auto_join=True))
    world.member("asks-nothing", **{META_WANTS: ""})
    world.member("another-cluster", **{META_CLUSTER: "c2"})
    world.member("some-log", **{META_CLUSTER: "?"})
    world.member("older-version", **{META_CLUSTER: ""})
    world.member("no-raft", **{META_RAFT: ""})
    world.member("suspect")
    world.gossip("suspect", "suspect")
    assert world.run(60) == []
    world.member("ours", **{META_CLUSTER: CLUSTER})
    assert kinds(world.run(5)) == [("learn", "ours")]


def test_who_was_taken_out_by_hand_comes_back_only_after_its_next_start() -> None:
    world = World(Rules(auto_join=True), 3)
    world.caretaker.left("n3", world.members.values())
    del world.servers["n3"]
    assert world.run(60) == []
    world.gossip("n3", "failed")
    assert world.run(60) == []
    world.member("n3", **{META_WANTS: "t2", META_CLUSTER: CLUSTER})
    assert kinds(world.run(10)) == [("learn", "n3"), ("promote", "n3")]


def test_a_dead_voter_goes_when_neither_hears_it_and_enough_are_left() -> None:
    rules = Rules(remove_dead_after=60)
    world = World(rules, 5)
    world.raft_heard["n5"] = world.now
    assert world.run(120) == [], "gossip hears it"
    world.gossip("n5", "failed")
    assert world.run(59) == [], "but gossip not for long enough"
    assert kinds(world.run(5)) == [("leave", "n5")]
    world.gossip("n4", "failed")
    assert world.run(600) == [], "Raft hears it: never on gossip alone"
    world.raft_heard["n4"] = world.raft_heard["n3"] = world.now
    world.gossip("n3", "left")
    assert kinds(world.run(600)) == [("leave", "n3")], "three are left, which is min_voters"


def test_a_voter_is_not_taken_from_those_who_could_not_decide_without_it() -> None:
    world = World(Rules(remove_dead_after=10, min_voters=1), 5)
    for name in ("n3", "n4", "n5"):
        world.raft_heard[name] = world.now
        world.gossip(name, "failed")
    assert world.run(600) == [], "two of the four that would be left answer"
    del world.raft_heard["n3"]
    assert [step.kind for step in world.run(600)] == ["leave", "leave"]


def test_a_new_leadership_counts_from_its_beginning() -> None:
    world = World(Rules(remove_dead_after=60), 5)
    world.raft_heard["n5"] = world.now - 10_000
    world.gossip("n5", "failed")
    world.run(55)
    world.caretaker.begin()
    assert world.run(55) == []
    assert kinds(world.run(10)) == [("leave", "n5")]


def test_the_place_of_a_dead_voter_goes_to_a_learner_first() -> None:
    world = World(Rules(auto_join=True, remove_dead_after=60, max_voters=3), 3)
    world.member("n4")
    assert kinds(world.run(20)) == [("learn", "n4")]
    world.raft_heard["n2"] = world.now
    world.gossip("n2", "failed")
    assert kinds(world.run(120)) == [("promote", "n4"), ("leave", "n2")]


def test_a_dead_learner_goes_too() -> None:
    world = World(Rules(remove_dead_after=60), 3)
    world.servers["n4"], world.addresses["n4"] = "learner", "n4:9520"
    world.member("n4")
    world.raft_heard["n4"] = world.now
    world.gossip("n4", "failed")
    assert kinds(world.run(120)) == [("leave", "n4")]


def test_a_server_moves_where_it_answers_and_only_there() -> None:
    world = World(Rules(), 3)
    assert world.look({"n2": "elsewhere:1"}) is None, "it answers at its old address"
    view = world.view()
    servers = tuple(attrs.evolve(s, reached_at="elsewhere:1") if s.id == "n2" else s for s in view.servers)
    step = world.caretaker.look(attrs.evolve(view, servers=servers), [], {"n2": "elsewhere:1"}, "n1:9520", CLUSTER, world.now)
    assert step is not None
    assert (step.kind, step.id, step.address) == ("move", "n2", "elsewhere:1")
    own = world.caretaker.look(view, [], {}, "n1-moved:9520", CLUSTER, world.now)
    assert own is not None
    assert (own.kind, own.id, own.address) == ("move", "n1", "n1-moved:9520")


def test_what_was_refused_is_tried_again_with_growing_pauses_and_holds_up_nothing_else() -> None:
    world = World(Rules(auto_join=True), 1)
    world.member("n2")
    world.member("n3")
    world.refuse = {"n2"}
    tries = 0
    for _ in range(240):
        step = world.look()
        tries += step is not None and step.id == "n2"
        world.now += 0.5
    assert world.servers.get("n3") == "learner"
    assert 5 <= tries <= 9, "after 1, 2, 4… seconds"


# -- whatever happens -----------------------------------------------------------------------------------------------------------------

NAMES = [f"n{i}" for i in range(2, 9)]
EVENTS = st.lists(
    st.tuples(st.sampled_from(["up", "down", "deaf", "mute", "lag", "leave", "restart", "refuse", "wait"]), st.sampled_from(NAMES)),
    max_size=60,
)


@settings(max_examples=60, deadline=None)
@given(EVENTS, st.sampled_from([1, 3, 5]), st.sampled_from([3, 5]), st.integers(1, 3), st.booleans())
def test_no_step_takes_what_the_cluster_needs(events: list[tuple[str, str]], voters: int, most: int, least: int, auto: bool) -> None:
    world = World(Rules(auto_join=auto, remove_dead_after=20, max_voters=most, min_voters=least), voters)
    for what, name in events:
        act(world, what, name)
        for _ in range(12):
            before, state = dict(world.servers), snapshot(world)
            step = world.look()
            if step is not None and step.id not in world.refuse:
                check(world, step, before, state)
            world.now += 1.0


def act(world: World, what: str, name: str) -> None:
    if what in ("up", "restart"):
        token = f"t{world.now}" if what == "restart" else "t1"
        world.member(name, **{META_WANTS: token})
        world.raft_heard.pop(name, None)
    elif what == "down":
        world.raft_heard.setdefault(name, world.now)
        if name in world.members:
            world.gossip(name, "failed")
    elif what == "deaf" and name in world.members:
        world.gossip(name, "failed")
    elif what == "mute":
        world.raft_heard.setdefault(name, world.now)
    elif what == "lag":
        world.lag[name] = 0 if world.lag.get(name) else 10_000
    elif what == "leave" and len(world.voters()) > 1 and name in world.servers:
        world.caretaker.left(name, world.members.values())
        del world.servers[name]
    elif what == "refuse":
        world.refuse ^= {name}


def snapshot(world: World) -> dict[str, Any]:
    return {
        "answering": {n for n in world.servers if world.answers(n)},
        "heard": {n for n in world.servers if world.answers(n) or (n in world.members and world.members[n].state == "alive")},
    }


def check(world: World, step: Step, before: dict[str, str], state: dict[str, Any]) -> None:
    voters = [name for name, suffrage in before.items() if suffrage == "voter"]
    after = world.voters()
    assert abs(len(after) - len(voters)) <= 1, "one change at a time"
    if step.kind == "leave":
        assert step.id not in state["heard"], "never on the word of one of them"
        if before[step.id] == "voter":
            assert len(after) >= world.rules.min_voters
            assert 2 * len([name for name in after if name in state["answering"]]) > len(after)
    if step.kind == "promote":
        assert step.id in state["answering"]
        assert not world.lag.get(step.id)
        living = [name for name in after if name in state["heard"]]
        assert len(living) <= world.rules.max_voters or len(after) <= world.rules.max_voters
