"""When an election begins and ends, as a node sees it: from its own candidacy, and from who leads."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.actors.messages import ElectionEnd, ElectionStart, Event, LeaderChanged
from coterie.actors.node.elections import Elections

NOW = 1.0


def start(term: int) -> Event:
    return ElectionStart(NOW, term)


def end(leader: str, term: int) -> Event:
    return ElectionEnd(NOW, term, leader, f"{leader}:1")


def changed(leader: str, term: int) -> Event:
    return LeaderChanged(NOW, term, leader, f"{leader}:1" if leader else "")


def run(*steps: Any) -> list[Event]:
    """A step is (leader, term), or a term in which this node campaigns."""
    elections, told = Elections(), []
    for step in steps:
        if isinstance(step, int):
            told += elections.campaigning(NOW, step)
        else:
            leader, term = step
            told += elections.look(NOW, leader, f"{leader}:1" if leader else "", term)
    return told


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        ([("", 0), ("n1", 3)], [changed("n1", 3)]),  # it comes to a cluster that has a leader
        ([1, ("n1", 1)], [start(1), end("n1", 1), changed("n1", 1)]),  # it bootstraps
        ([("n1", 1), ("n1", 1)], [changed("n1", 1)]),
        ([("n1", 1), ("", 1), ("n2", 2)], [changed("n1", 1), start(1), changed("", 1), end("n2", 2), changed("n2", 2)]),
        ([("n1", 1), ("n2", 2)], [changed("n1", 1), start(2), end("n2", 2), changed("n2", 2)]),  # it missed the time between
        ([("n1", 1), ("n1", 2)], [changed("n1", 1), start(2), end("n1", 2), changed("n1", 2)]),  # elected again
        ([("n1", 1), 1, 1, 2, ("", 2), 2, ("n1", 3)], [changed("n1", 1), start(1), changed("", 2), end("n1", 3), changed("n1", 3)]),
        ([("n1", 1), 1, ("n1", 1)], [changed("n1", 1), start(1), end("n1", 1)]),  # the leader lives after all
    ],
)
def test_what_is_told(steps: list[Any], told: list[Event]) -> None:
    assert run(*steps) == told


@given(st.lists(st.one_of(st.integers(1, 5), st.tuples(st.sampled_from(["", "n1", "n2"]), st.integers(1, 5))), max_size=40))
def test_starts_and_ends_alternate_every_end_has_a_leader_and_no_leadership_is_told_twice_in_a_row(steps: list[Any]) -> None:
    told = run(*steps)
    rounds = [event for event in told if isinstance(event, (ElectionStart, ElectionEnd))]
    assert all(isinstance(event, ElectionStart if place % 2 == 0 else ElectionEnd) for place, event in enumerate(rounds))
    assert all(event.leader_id for event in rounds if isinstance(event, ElectionEnd))
    leaders = [(event.leader_id, event.term if event.leader_id else 0) for event in told if isinstance(event, LeaderChanged)]
    assert all(before != after for before, after in itertools.pairwise(leaders))
    if steps and isinstance(steps[-1], tuple) and steps[-1][0]:
        assert len(rounds) % 2 == 0, "with a leader no election is under way"
