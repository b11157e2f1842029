"""How much of the log goes, and when: as a plan, without a log."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from coterie.actors.raft.compaction import MARK_BYTES, STEP, Compaction

HUGE = 1 << 50


def run(plan: Compaction) -> list[int]:
    """Every step, done."""
    steps = []
    while (index := plan.step()) is not None:
        steps.append(index)
        plan.compacted(index + 1)
    return steps


def test_nothing_goes_before_a_good_deal_is_surplus() -> None:
    plan = Compaction(100, HUGE, 1, 0)
    plan.appended(120, 120)
    assert not plan.wanted(120)
    plan.appended(130, 130)
    assert plan.wanted(130)
    assert plan.step() is None, "not before the state machine has said what is durable"
    plan.allowed(130, 130)
    assert run(plan) == [30]
    assert not plan.wanted(131)


def test_what_is_not_durable_stays() -> None:
    plan = Compaction(10, HUGE, 1, 0)
    plan.appended(1000, 1000)
    plan.allowed(400, 1000)
    assert run(plan) == [400]


def test_it_goes_in_steps() -> None:
    plan = Compaction(10, HUGE, 1, 0)
    plan.appended(10_010, 0)
    plan.allowed(10_010, 10_010)
    assert run(plan) == [STEP, 2 * STEP, 10_000]


def test_large_entries_are_bounded_by_their_bytes() -> None:
    plan = Compaction(10_000, 8 * MARK_BYTES, 1, 0)
    for index in range(1, 101):
        plan.appended(index, index * MARK_BYTES)
    assert plan.wanted(100)
    plan.allowed(100, 100)
    (until,) = run(plan)
    assert 90 <= until <= 92


def test_a_snapshot_begins_anew() -> None:
    plan = Compaction(100, HUGE, 1, 0)
    plan.appended(500, 500)
    plan.allowed(500, 500)
    plan.replaced(9001, 500)
    assert plan.step() is None
    assert not plan.wanted(9000)
    plan.appended(9200, 700)
    assert plan.wanted(9200)


@given(
    entries=st.integers(1, 50),
    size=st.integers(1, 20),
    steps=st.lists(st.tuples(st.integers(1, 40), st.integers(0, 3 * MARK_BYTES), st.integers(0, 30)), max_size=30),
)
def test_what_goes_was_durable_and_applied_and_what_must_stay_stays(entries: int, size: int, steps: list[tuple[int, int, int]]) -> None:
    plan, last, total, first = Compaction(entries, size * MARK_BYTES, 1, 0), 0, 0, 1
    for more, bytes_, behind in steps:
        last, total = last + more, total + bytes_
        plan.appended(last, total)
        applied = max(0, last - behind)
        if plan.wanted(applied):
            plan.allowed(applied, applied)
            for index in run(plan):
                assert first <= index <= applied
                first = index + 1
    assert last - first + 1 >= 0


def test_what_is_too_old_goes_also_when_nothing_comes_any_more() -> None:
    plan = Compaction(1000, HUGE, 1, 0, age=32.0)
    for second in range(60):
        plan.appended(10 * second, 0, 100.0 + second)
    assert plan.wanted(590)
    plan.allowed(590, 590)
    assert run(plan) == [270], "the log ended at 270 when the clock was at 127, and it is 159 now"
    plan.appended(590, 0, 200.0)
    assert plan.wanted(590)
    plan.allowed(580, 590)
    assert run(plan) == [580], "what is not durable stays, however old"


def test_without_an_age_the_clock_is_nothing() -> None:
    plan = Compaction(1000, HUGE, 1, 0)
    for second in range(40):
        plan.appended(10 * second, 0, 100.0 + 1000 * second)
    assert not plan.wanted(390)
