"""What may happen to a cluster in one round, drawn by a seed: pure, so that a seed always gives the same rounds.

Servers are named by their place: 0 is who leads when the round begins, the others follow in an order that is drawn. A fault is some steps with pauses between them;
whatever is still wrong at its end is put right by the heal. `hits_leader` and `quorum_left` say what to expect of it: with both, another must lead and take writes
while the fault lasts.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from itertools import permutations
from typing import NamedTuple

Places = tuple[int, ...]
Links = tuple[tuple[int, int], ...]  # from, to


class Kill(NamedTuple):
    """SIGKILL."""

    places: Places


class Stand(NamedTuple):
    """SIGSTOP."""

    places: Places


class Resume(NamedTuple):
    """SIGCONT of all that stand."""


class Restart(NamedTuple):
    """Start all that were killed, whatever else is still wrong."""


class Cut(NamedTuple):
    """Frames over these links go to nobody. What goes the other way arrives."""

    links: Links


class Mend(NamedTuple):
    """All links as they were."""


class HandOver(NamedTuple):
    """Ask the leader to hand its leadership over."""


class Retire(NamedTuple):
    """A graceful stop; it is started again in the heal."""

    places: Places


class Pause(NamedTuple):
    seconds: float


Step = Kill | Stand | Resume | Restart | Cut | Mend | HandOver | Retire | Pause


class Fault(NamedTuple):
    name: str
    steps: tuple[Step, ...]
    hits_leader: bool
    quorum_left: bool


def both_ways(pairs: Iterable[tuple[int, int]]) -> Links:
    return tuple(link for a, b in pairs for link in ((a, b), (b, a)))


def between(some: Iterable[int], others: Iterable[int]) -> Links:
    """From each of the ones to each of the others."""
    others = tuple(others)
    return tuple((a, b) for a in some for b in others)


Draw = Callable[[random.Random, int], Fault]


def _long(rng: random.Random, least: float = 1.5, most: float = 4.0) -> Pause:
    return Pause(round(rng.uniform(least, most), 2))


# -- processes --------------------------------------------------------------------------------------------------------------------


def leader_killed(rng: random.Random, count: int) -> Fault:
    return Fault("leader killed", (Kill((0,)), _long(rng)), True, True)


def follower_killed(rng: random.Random, count: int) -> Fault:
    return Fault("follower killed", (Kill((1,)), _long(rng)), False, True)


def minority_killed(rng: random.Random, count: int) -> Fault:
    """With the leader, as many as the quorum can do without, one shortly after the other."""
    places = tuple(range((count - 1) // 2))
    steps = [step for place in places for step in (Kill((place,)), Pause(round(rng.uniform(0, 0.4), 2)))]
    return Fault("minority killed", (*steps, _long(rng)), True, True)


def majority_killed(rng: random.Random, count: int) -> Fault:
    places = tuple(rng.sample(range(count), count // 2 + 1))
    return Fault("majority killed", (Kill(places), _long(rng, 0.5, 1.5)), 0 in places, False)


def all_killed(rng: random.Random, count: int) -> Fault:
    return Fault("all killed", (Kill(tuple(range(count))), Pause(0.2)), True, False)


def killed_twice(rng: random.Random, count: int) -> Fault:
    """It dies again while it recovers from its first death."""
    place = rng.choice((0, 1))
    steps = (Kill((place,)), Pause(0.5), Restart(), Pause(round(rng.uniform(0, 0.5), 2)), Kill((place,)), _long(rng, 0.5, 2.0))
    return Fault("killed twice", steps, False, True)


def leader_stands(rng: random.Random, count: int) -> Fault:
    return Fault("leader stands still", (Stand((0,)), _long(rng, 3.0, 5.0)), True, True)


def follower_stands(rng: random.Random, count: int) -> Fault:
    return Fault("follower stands still", (Stand((1,)), _long(rng)), False, True)


def all_stand(rng: random.Random, count: int) -> Fault:
    return Fault("all stand still", (Stand(tuple(range(count))), _long(rng, 0.5, 3.0)), False, False)


def leader_stands_and_successor_dies(rng: random.Random, count: int) -> Fault:
    """The old leader wakes up to two others, one of which knows nothing of what it was."""
    steps = (Stand((0,)), Pause(2.5), Kill((1,)), Pause(0.3), Resume(), _long(rng))
    return Fault("leader stands still, then a follower dies and it wakes", steps, True, False)


def handed_over(rng: random.Random, count: int) -> Fault:
    return Fault("leadership handed over", (HandOver(), _long(rng, 0.5, 1.0)), False, True)


def retired(rng: random.Random, count: int) -> Fault:
    place = rng.choice((0, 0, 1))
    return Fault("leader stopped" if place == 0 else "follower stopped", (Retire((place,)), _long(rng, 0.5, 2.0)), place == 0, True)


# -- the network ------------------------------------------------------------------------------------------------------------------


def leader_cut_off(rng: random.Random, count: int) -> Fault:
    return Fault("leader cut off", (Cut(both_ways((0, other) for other in range(1, count))), _long(rng, 3.0, 5.0)), True, True)


def leader_mute(rng: random.Random, count: int) -> Fault:
    """It hears all, and nobody hears it."""
    return Fault("leader mute", (Cut(between([0], range(1, count))), _long(rng, 3.0, 5.0)), True, True)


def leader_deaf(rng: random.Random, count: int) -> Fault:
    """All hear it, and it hears nobody: its heartbeats alone must not keep it in office."""
    return Fault("leader deaf", (Cut(between(range(1, count), [0])), _long(rng, 3.0, 5.0)), True, True)


def follower_cut_off(rng: random.Random, count: int) -> Fault:
    name, links = rng.choice(
        (
            ("follower cut off", both_ways((1, other) for other in range(count) if other != 1)),
            ("follower mute", between([1], (other for other in range(count) if other != 1))),
            ("follower deaf", between((other for other in range(count) if other != 1), [1])),
        )
    )
    return Fault(name, (Cut(links), _long(rng, 2.0, 4.0)), False, True)


def pair_cut(rng: random.Random, count: int) -> Fault:
    """Leader and one follower cannot hear one another, and all others hear both."""
    links = both_ways([(0, 1)]) if rng.random() < 0.5 else (rng.choice(((0, 1), (1, 0))),)
    return Fault("one pair cut" if len(links) == 2 else "one pair cut one way", (Cut(links), _long(rng, 2.0, 4.0)), False, True)


def split(rng: random.Random, count: int) -> Fault:
    """A majority and a minority, and the leader on either side."""
    minority = rng.sample(range(count), (count - 1) // 2)
    rest = [place for place in range(count) if place not in minority]
    name = "split, leader in the minority" if 0 in minority else "split, leader in the majority"
    return Fault(name, (Cut(both_ways(between(minority, rest))), _long(rng, 3.0, 5.0)), 0 in minority, True)


def bridge(rng: random.Random, count: int) -> Fault:
    """Two halves that do not hear one another, and one server that hears both."""
    places = rng.sample(range(count), count)
    half = (count - 1) // 2
    return Fault(
        "two halves and a bridge", (Cut(both_ways(between(places[1 : half + 1], places[half + 1 :]))), _long(rng, 3.0, 5.0)), False, False
    )


def ring(rng: random.Random, count: int) -> Fault:
    """Each hears only its neighbour before it: no quorum of servers hears one another."""
    links = tuple((a, b) for a, b in permutations(range(count), 2) if b != (a + 1) % count)
    return Fault("one-way ring", (Cut(links), _long(rng, 1.5, 3.0)), False, False)


def links_at_random(rng: random.Random, count: int) -> Fault:
    links = tuple(link for link in permutations(range(count), 2) if rng.random() < 0.4)
    return Fault("links cut at random", (Cut(links), _long(rng, 2.0, 4.0)), False, False)


def flapping(rng: random.Random, count: int) -> Fault:
    """The leader's links come and go."""
    links = both_ways((0, other) for other in range(1, count))
    steps: list[Step] = []
    for _ in range(rng.randint(2, 4)):
        steps += [Cut(links), Pause(round(rng.uniform(0.2, 1.5), 2)), Mend(), Pause(round(rng.uniform(0.1, 0.8), 2))]
    return Fault("leader's links flap", tuple(steps), False, False)


# -- both -------------------------------------------------------------------------------------------------------------------------


def cut_off_and_killed(rng: random.Random, count: int) -> Fault:
    """The leader dies where nobody sees it, so no connection of its resets, and starts again before it is heard."""
    steps = (Cut(both_ways((0, other) for other in range(1, count))), Pause(0.3), Kill((0,)), Pause(2.0), Restart(), _long(rng, 0.5, 2.0))
    return Fault("leader dies cut off", steps, True, True)


def cut_off_and_all_killed(rng: random.Random, count: int) -> Fault:
    """What was acknowledged by the majority while the old leader was cut off outlives the death of all."""
    steps = (Cut(both_ways((0, other) for other in range(1, count))), _long(rng, 2.5, 3.5), Kill(tuple(range(count))))
    return Fault("leader cut off, then all die", steps, True, False)


def restarted_apart(rng: random.Random, count: int) -> Fault:
    """All die, and come back to a network in which the one that led hears nobody."""
    links = both_ways((0, other) for other in range(1, count))
    return Fault("all die and start apart", (Kill(tuple(range(count))), Cut(links), Restart(), _long(rng, 1.0, 3.0)), True, True)


def one_stands_one_deaf(rng: random.Random, count: int) -> Fault:
    links = between((other for other in range(count) if other != 1), [1])
    return Fault(
        "leader stands still, a follower is deaf", (Cut(links), Stand((0,)), _long(rng, 2.0, 4.0), Resume(), Pause(0.5)), True, count > 3
    )


PROCESSES: tuple[Draw, ...] = (
    leader_killed,
    leader_killed,
    follower_killed,
    minority_killed,
    majority_killed,
    all_killed,
    killed_twice,
    leader_stands,
    leader_stands,
    follower_stands,
    all_stand,
    leader_stands_and_successor_dies,
    handed_over,
    retired,
)
NETWORK: tuple[Draw, ...] = (
    leader_cut_off,
    leader_cut_off,
    leader_mute,
    leader_deaf,
    follower_cut_off,
    pair_cut,
    split,
    bridge,
    ring,
    links_at_random,
    flapping,
    cut_off_and_killed,
    cut_off_and_all_killed,
    restarted_apart,
    one_stands_one_deaf,
)


class Deck:
    """Draws faults without putting them back, so that so many rounds as there are kinds have them all; then it is shuffled anew."""

    def __init__(self, rng: random.Random, count: int, network: bool) -> None:
        self.random, self.count = rng, count
        self.kinds = PROCESSES + (NETWORK if network else ())
        self.left: list[Draw] = []

    def draw(self) -> Fault:
        if not self.left:
            self.left = self.random.sample(self.kinds, len(self.kinds))
        return self.left.pop()(self.random, self.count)
