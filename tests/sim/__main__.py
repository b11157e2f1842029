"""The simulator's command: `python -m tests.sim --seeds 1000`. A failing seed prints the end of its trace and the command that repeats it."""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import nullcontext

from tests.sim.bugs import BUGS, planted
from tests.sim.kernel import InvariantViolated
from tests.sim.raft_world import RaftWorld


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seeds", type=int, default=100, help="how many seeds to run")
    parser.add_argument("--seed", type=int, help="run this seed alone, or begin with it when --seeds is given too")
    parser.add_argument("--nodes", type=int, choices=(3, 5), help="default: 5 for every third seed, else 3")
    parser.add_argument("--bug", choices=sorted(BUGS), help="plant a deliberate bug")
    parser.add_argument("--trace", type=int, default=40, help="lines of trace to print of a failing seed")
    options = parser.parse_args()
    if options.seed is not None and "--seeds" not in sys.argv:
        options.seeds = 1
    return options


def size_of(seed: int, nodes: int | None) -> int:
    return nodes or (5 if seed % 3 == 0 else 3)


def attempt(seed: int, nodes: int, bug: str | None, trace: int) -> RaftWorld | None:
    """Run one seed; None when it failed, which is then explained."""
    world = RaftWorld(seed, nodes)
    try:
        world.run()
    except Exception as problem:
        print(world.kernel.trace(trace))
        print(f"seed {seed}, {nodes} nodes: {type(problem).__name__}: {problem}")
        planting = f" --bug {bug}" if bug else ""
        print(f"again: python -m tests.sim --seed {seed} --nodes {nodes}{planting}")
        if not isinstance(problem, InvariantViolated):
            raise
        return None
    return world


def main() -> int:
    options = arguments()
    first = options.seed or 0
    began, failed, steps, acknowledged, leaderships = time.perf_counter(), 0, 0, 0, 0
    with planted(options.bug) if options.bug else nullcontext():
        for seed in range(first, first + options.seeds):
            world = attempt(seed, size_of(seed, options.nodes), options.bug, options.trace)
            if world is None:
                failed += 1
                continue
            steps += world.kernel.steps
            acknowledged += len(world.application.acknowledged)
            leaderships += len(world.oracle.leaders)
    taken = time.perf_counter() - began
    print(
        f"{options.seeds} seeds in {taken:.1f} s: {failed} failed; {steps} steps, {leaderships} leaderships, "
        f"{acknowledged} acknowledged commands, none lost" + (" in the runs that passed" if failed else "")
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
