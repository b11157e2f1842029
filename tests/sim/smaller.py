"""A smaller story of a failure: the same seed with as few faults as fail it, whatever way it fails then.

Each fault that a run injects has a number. Left away, it changes what chance does after it, so the rest is another story; but most bugs are found in many stories,
and the one with five faults is the one to read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.sim.raft_world import RaftWorld

ATTEMPTS = 300


def smaller(make: Callable[[], RaftWorld], failed: RaftWorld, problem: Exception) -> tuple[RaftWorld, Exception]:
    """Begin with a failed run. -> the run with the fewest faults that was found to fail, and how."""
    without: set[int] = set()
    attempts, size = 0, max(1, failed.chaos.count // 2)
    while size and attempts < ATTEMPTS:
        left_away = False
        for start in range(0, failed.chaos.count, size):
            chunk = set(range(start, start + size)) - without
            if not chunk or attempts >= ATTEMPTS:
                continue
            attempts += 1
            world = make()
            world.chaos.without = without | chunk
            try:
                world.run()
            except Exception as found:  # noqa: BLE001 - any failure will do
                failed, problem, without, left_away = world, found, world.chaos.without, True
        if not left_away or size > 1:
            size //= 2
    print(f"{failed.chaos.count - len(without)} faults are left, after {attempts} attempts:")
    print("\n".join(f"  {fault}" for fault in failed.chaos.injected))
    return failed, problem
