"""The short form of the simulator: some seeds of the right code pass, every planted bug is found."""

from collections import Counter
from pathlib import Path

import pytest

from tests.scenarios.runner import play
from tests.scenarios.test_scenarios import FILES
from tests.sim.bugs import BUGS, planted
from tests.sim.coverage import missing
from tests.sim.kernel import InvariantViolated
from tests.sim.raft_world import RaftWorld, run
from tests.sim.smaller import smaller

SEEDS_FOR_A_BUG = 200
FIRST = {"late_answer_accepted": 75}  # where to begin with those that are found late


@pytest.mark.parametrize("tens", range(6))
def test_raft_keeps_its_promises(tens: int) -> None:
    for seed in range(10 * tens, 10 * tens + 10):
        run(seed)


def test_a_snapshot_that_was_restored_last_is_on_the_disk_before_the_end_is_judged() -> None:
    """A campaign found it: the machine had the snapshot, the log was a millisecond from being put behind it."""
    run(2613, 5)


def test_little_time_is_enough_for_most_of_what_a_campaign_is_for() -> None:
    """What is rare comes about in a campaign, which fails where it did not."""
    seen: Counter[str] = Counter()
    for seed in range(100, 140):
        seen.update(run(seed).kernel.seen)
    assert len(missing("raft", seen)) <= 4, missing("raft", seen)


@pytest.mark.parametrize("bug", sorted(BUGS))
def test_a_planted_bug_is_found(bug: str) -> None:
    """By a scenario, which is cheap, or by the simulator."""
    with planted(bug):
        if any(_differs(path) for path in FILES if "snapshot" in bug or "snapshot" not in path.stem):
            return
        first = FIRST.get(bug, 0)
        for seed in range(first, first + SEEDS_FOR_A_BUG):
            try:
                run(seed)
            except (InvariantViolated, AssertionError):
                return
    pytest.fail(f"{bug} was not found in {SEEDS_FOR_A_BUG} seeds")


def _differs(path: Path) -> bool:
    """Does a scenario tell another story than the one in its text?"""
    try:
        return any(said != list(step.wanted) for step, said in play(path))
    except (AssertionError, ValueError, KeyError):
        return True


def test_a_seed_replays_to_the_letter() -> None:
    first, second = RaftWorld(7), RaftWorld(7)
    first.run()
    second.run()
    assert first.kernel.trace(400) == second.kernel.trace(400)
    assert first.kernel.steps == second.kernel.steps


def test_a_history_with_many_open_writes_is_decided() -> None:
    """Those that were passed by had been tried before what the history itself claimed, and the checker gave up."""
    run(212, 3)


def test_a_failure_is_told_with_few_faults() -> None:
    with planted("read_without_confirmation"):
        seed, world, problem = next(found for found in map(_failure, range(30)) if found is not None)
        small, reason = smaller(lambda: RaftWorld(seed), world, problem)
    assert isinstance(reason, InvariantViolated)
    assert len(small.chaos.injected) <= len(world.chaos.injected)


def _failure(seed: int) -> tuple[int, RaftWorld, Exception] | None:
    world = RaftWorld(seed)
    try:
        world.run()
    except InvariantViolated as problem:
        return seed, world, problem
    return None
