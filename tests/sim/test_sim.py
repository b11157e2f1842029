"""The short form of the simulator: some seeds of the right code pass, every planted bug is found."""

from pathlib import Path

import pytest

from tests.scenarios.runner import play
from tests.scenarios.test_scenarios import FILES
from tests.sim.bugs import BUGS, planted
from tests.sim.kernel import InvariantViolated
from tests.sim.raft_world import RaftWorld, run

SEEDS_FOR_A_BUG = 200


@pytest.mark.parametrize("tens", range(6))
def test_raft_keeps_its_promises(tens: int) -> None:
    for seed in range(10 * tens, 10 * tens + 10):
        world = run(seed, 5 if seed % 3 == 0 else 3)
        assert world.application.acknowledged, f"seed {seed} tested nothing: no command was acknowledged"


def test_a_log_that_gets_further_while_a_snapshot_is_installed_goes_on_behind_it() -> None:
    """A slow disk held back what was handed out; the snapshot holds some of that, and not all."""
    run(747, 5)


@pytest.mark.parametrize("bug", sorted(BUGS))
def test_a_planted_bug_is_found(bug: str) -> None:
    """By a scenario, which is cheap, or by the simulator."""
    with planted(bug):
        if any(_differs(path) for path in FILES if "snapshot" in bug or "snapshot" not in path.stem):
            return
        for seed in range(SEEDS_FOR_A_BUG):
            try:
                run(seed, 5 if seed % 3 == 0 else 3)
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
