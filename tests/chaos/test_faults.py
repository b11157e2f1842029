"""What a deck of faults holds: all kinds, the same by the same seed, and only places that there are."""

from __future__ import annotations

import random

import pytest

from tests.chaos.faults import NETWORK, PROCESSES, Cut, Deck, Kill, Retire, Stand


@pytest.mark.parametrize("count", [3, 5, 7])
def test_a_seed_gives_the_same_faults_all_kinds_come_and_what_they_name_exists(count: int) -> None:
    rounds = 4 * len(PROCESSES + NETWORK)
    first, second = Deck(random.Random("x"), count, True), Deck(random.Random("x"), count, True)
    drawn = [first.draw() for _ in range(rounds)]
    assert drawn == [second.draw() for _ in range(rounds)]
    assert drawn != [Deck(random.Random("y"), count, True).draw() for _ in range(rounds)]
    for fault in drawn:
        for step in fault.steps:
            match step:
                case Kill(places) | Stand(places) | Retire(places):
                    assert set(places) <= set(range(count)), fault
                case Cut(links):
                    assert all(0 <= a < count and 0 <= b < count and a != b for a, b in links), fault
    names = {fault.name for fault in drawn}
    for wanted in (
        "leader killed",
        "all killed",
        "leader stands still",
        "leader cut off",
        "leader mute",
        "leader deaf",
        "one pair cut one way",
    ):
        assert wanted in names


@pytest.mark.parametrize("count", [3, 5])
def test_where_a_quorum_is_said_to_be_left_there_is_one(count: int) -> None:
    """Enough servers live, run, and hear one another both ways, when the last blow has fallen."""
    deck = Deck(random.Random(1), count, True)
    for fault in (deck.draw() for _ in range(200)):
        if not (fault.quorum_left and fault.hits_leader):
            continue
        out: set[int] = set()
        cut: set[tuple[int, int]] = set()
        for step in fault.steps:
            match step:
                case Kill(places) | Stand(places) | Retire(places):
                    out |= set(places)
                case Cut(links):
                    cut |= set(links)
        whole = [
            a
            for a in range(count)
            if a not in out and sum((a, b) not in cut and (b, a) not in cut for b in range(count) if b not in out) > count // 2
        ]
        if fault.name != "all die and start apart":
            assert len(whole) > count // 2, fault


def test_without_namespaces_no_link_is_cut() -> None:
    deck = Deck(random.Random(1), 3, False)
    assert not any(isinstance(step, Cut) for _ in range(100) for step in deck.draw().steps)
