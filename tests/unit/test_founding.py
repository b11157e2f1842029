"""`bootstrap_expect`: whatever gossip shows whom, and whoever restarts, is late or was emptied, there is at most one cluster; and there is one when all is calm."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from coterie.actors.node.founding import Founding
from coterie.actors.node.topology import META_CLUSTER, META_EXPECT, META_FOUNDER, META_RAFT, NO_CLUSTER
from coterie.actors.room_messages import Member


class Node:
    """A node with its disk, and what it has heard of the others. `told`: its metadata by version; others hear one of these, never an older one than before."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name
        self.disk = ""  # whom it let
        self.cluster: tuple[Any, ...] = ()  # of the founder: what it formed; of another: that it was contacted
        self.up = False
        self.told: list[dict[str, str]] = []
        self.heard: dict[str, int] = {}

    def start(self) -> None:
        self.up = True
        self.core = Founding(self.name, f"{self.name}:9520", self.world.expect, self.disk)
        self.heard = {}
        self.tell()

    def tell(self) -> None:
        meta = {META_RAFT: f"{self.name}:9520", META_EXPECT: str(self.world.expect), META_CLUSTER: "some" if self.cluster else NO_CLUSTER}
        if self.core.founder:
            meta[META_FOUNDER] = self.core.founder
        self.told.append(meta)

    def members(self) -> list[Member]:
        seen = []
        for name, version in self.heard.items():
            state = "alive" if self.world.reaches(self, self.world.nodes[name]) else "failed"
            seen.append(Member(name, f"{name}:7946", self.world.nodes[name].told[version], state))
        return seen

    def look(self) -> None:
        missing = [seed for seed in self.world.seeds if seed != self.name and not self.world.reaches(self, self.world.nodes[seed])]
        if self.cluster:
            return
        self.world.tokens += 1
        decision = self.core.look(self.members(), f"seeds {missing} do not answer" if missing else "", str(self.world.tokens))
        if self.world.dice.random() < 0.02:
            self.up = False  # it dies before anything of it is on the disk
            return
        self.disk = decision.founder
        if self.world.dice.random() < 0.02:
            self.up = False  # it dies before anybody hears of it
            return
        if decision.servers:
            assert not self.cluster
            self.cluster = decision.servers
            self.world.formed.append(decision.servers)
        self.tell()


class World:
    def __init__(self, seed: int, count: int, expect: int, seeds: int) -> None:
        self.dice, self.expect, self.tokens = Random(seed), expect, 0
        self.nodes = {f"n{i}": Node(self, f"n{i}") for i in range(1, count + 1)}
        self.seeds = [f"n{i}" for i in range(1, seeds + 1)]
        self.side: dict[str, int] = {}
        self.formed: list[tuple[Any, ...]] = []
        self.in_trouble = 0

    def reaches(self, one: Node, other: Node) -> bool:
        return one.up and other.up and self.side.get(one.name, 0) == self.side.get(other.name, 0)

    def gossip(self, one: Node, other: Node) -> None:
        """`one` hears of `other` by its present metadata, or by an older one that is no older than what it has."""
        if self.reaches(one, other) and one is not other:
            newest = len(other.told) - 1
            one.heard[other.name] = max(one.heard.get(other.name, 0), self.dice.randint(max(0, newest - 3), newest))

    def contact(self) -> None:
        """A founder's Raft reaches those of its cluster: they have a log from then on."""
        for founder in list(self.nodes.values()):
            for name, _ in founder.cluster:
                node = self.nodes[name]
                if self.reaches(founder, node) and not node.cluster and self.dice.random() < 0.3:
                    node.cluster = founder.cluster
                    node.tell()

    def step(self, calm: bool) -> None:
        dice, nodes = self.dice, list(self.nodes.values())
        what = dice.random()
        node = dice.choice(nodes)
        if what < 0.55:
            self.gossip(node, dice.choice(nodes))
        elif what < 0.85:
            if node.up:
                node.look()
        elif what < 0.88:
            self.contact()
        elif not node.up:
            node.start()
        elif calm:
            pass
        elif what < 0.89:
            node.up = False
        elif what < 0.90:
            self.side = {name: dice.randint(0, 1) for name in self.nodes}
        else:
            self.side = {}


def run(seed: int, count: int, expect: int, seeds: int) -> World:
    """Trouble, calm until there is a cluster, and trouble again."""
    world = World(seed, count, expect, seeds)
    for _ in range(400):
        world.step(calm=False)
    world.in_trouble = len(world.formed)
    world.side = {}
    for _ in range(3000):
        if world.formed:
            break
        world.step(calm=True)
    for _ in range(400):
        world.step(calm=False)
    return world


@pytest.mark.parametrize("count", [3, 4, 5])
def test_three_of_three_to_five_nodes_form_one_cluster_however_they_start_and_die(count: int) -> None:
    in_trouble = 0
    for seed in range(60):
        world = run(seed, count, 3, seeds=0)
        in_trouble += world.in_trouble
        assert [len(cluster) for cluster in world.formed] == [3], (
            f"seed {seed}: {world.formed}, {[(n.name, n.disk) for n in world.nodes.values()]}"
        )
    assert count > 3 or 5 < in_trouble < 55, "before the trouble ended, some were formed and some were not"


def test_were_founders_not_asked_whether_they_gave_up_there_would_be_two_clusters(monkeypatch: pytest.MonkeyPatch) -> None:
    """That the worlds above can tell."""
    monkeypatch.setattr(Founding, "_gave_up", lambda self, alive: True)
    assert any(len(run(seed, 5, 3, 0).formed) > 1 for seed in range(300))


def member(name: str, state: str = "alive", expect: str = "3", **meta: str) -> Member:
    return Member(name, f"{name}:7946", {META_RAFT: f"{name}:9520", META_EXPECT: expect, META_CLUSTER: NO_CLUSTER, **meta}, state)


def test_the_smallest_id_proposes_itself_and_forms_it_when_the_others_let_it() -> None:
    first, third = Founding("n1", "n1:9520", 3, ""), Founding("n3", "n3:9520", 3, "")
    assert first.look([member("n2")], "", "a").note == "bootstrap_expect=3: 2 nodes are here (n1, n2)"
    assert third.look([member("n1"), member("n2")], "", "a").founder == "", "n1 has not said it yet"
    proposed = first.look([member("n2"), member("n3")], "", "b")
    assert (proposed.founder, proposed.servers) == ("n1#b", ())
    let = third.look([member("n1", founder="n1#b"), member("n2")], "", "c")
    assert (let.founder, let.servers) == ("n1#b", ())
    done = first.look([member("n2", founder="n1#b"), member("n3", founder="n1#b")], "", "d")
    assert done.servers == (("n1", "n1:9520"), ("n2", "n2:9520"), ("n3", "n3:9520"))


@pytest.mark.parametrize(
    ("others", "seeds", "why"),
    [
        ([member("n2", cluster="77aa"), member("n3")], "", "n2 has a log"),
        ([member("n2", "failed", cluster="77aa"), member("n3"), member("n4")], "", "n2 has a log"),
        ([Member("g1", "g1:7946", {"mgmt": "g1:17946"}), member("n2"), member("n3")], "", "g1 has a log, or does not say"),
        ([member("n2", expect="5"), member("n3")], "", "n2 expects 5"),
        ([member("n2"), member("n3", raft="n2:9520")], "", "n2 and n3 tell the same Raft address"),
        ([member("n2"), member("n3", "failed")], "", "2 nodes are here"),
        ([member(f"n{n}") for n in range(2, 7)], "", "6 nodes expect 3"),
        ([member("n2"), member("n3")], "seed n9:7946: refused", "seed n9:7946"),
    ],
)
def test_nobody_proposes_or_lets_while_there_may_be_a_cluster(others: list[Member], seeds: str, why: str) -> None:
    decision = Founding("n1", "n1:9520", 3, "").look(others, seeds, "a")
    assert (decision.founder, decision.servers) == ("", ())
    assert why in decision.note


def test_strangers_and_nodes_that_expect_nothing_are_not_counted_and_do_not_hinder() -> None:
    plain = Member("n9", "n9:7946", {META_RAFT: "n9:9520", META_CLUSTER: NO_CLUSTER})
    decision = Founding("n1", "n1:9520", 3, "").look([Member("probe", "x:1", {}), plain, member("n2"), member("n3")], "", "a")
    assert decision.founder == "n1#a"


def test_what_was_let_holds_until_that_founder_gives_up() -> None:
    node = Founding("n3", "n3:9520", 3, "n2#a")
    everybody = [member("n1", founder="n1#b"), member("n4")]
    assert node.look([*everybody, member("n2", founder="n2#a")], "", "c").founder == "n2#a"
    assert node.look([*everybody, member("n2", "failed", founder="n2#a")], "", "c").founder == "n2#a", "it may have formed it"
    assert node.look([*everybody, member("n2", founder="n1#b")], "", "c").founder == "n1#b"
