"""The simulator's command: `python -m tests.sim --seeds 1000`.

Three worlds, each with every seed: `raft` (elections, replication, membership changes), `publish` (the replicated state machine and its publishers on top of
Raft) and `membership` (gossip). A failing seed prints the end of its trace and the command that repeats it to the letter.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Mapping
from contextlib import nullcontext
from typing import NamedTuple

from tests.sim.bugs import BUGS, planted
from tests.sim.kernel import InvariantViolated
from tests.sim.membership_world import run_membership
from tests.sim.publish_world import Publishing
from tests.sim.raft_world import Application, RaftWorld

COVERED = ("logs compacted", "snapshots installed", "installations finished after a crash", "leaderships handed over", "take-overs")
WORLDS = ("raft", "publish", "membership")


class Outcome(NamedTuple):
    world: str
    failed: bool
    steps: int = 0
    acknowledged: int = 0
    leaderships: int = 0
    seen: Mapping[str, int] | None = None


class Job(NamedTuple):
    world: str
    seed: int
    nodes: int
    bug: str | None
    trace: int


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=100, help="how many seeds to run")
    parser.add_argument("--seed", type=int, help="run this seed alone, or begin with it when --seeds is given too")
    parser.add_argument("--world", choices=(*WORLDS, "all"), default="all")
    parser.add_argument("--nodes", type=int, choices=(3, 5), help="default: 5 for every third seed, else 3")
    parser.add_argument("--bug", choices=sorted(BUGS), help="plant a deliberate bug in the Raft core")
    parser.add_argument("--trace", type=int, default=40, help="lines of trace to print of a failing seed")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    if options.seed is not None and "--seeds" not in sys.argv:
        options.seeds = 1
    return options


def attempt(job: Job) -> Outcome:
    """Run one seed in one world; a failure is explained."""
    with planted(job.bug) if job.bug else nullcontext():
        return membership(job) if job.world == "membership" else raft(job)


def membership(job: Job) -> Outcome:
    try:
        run_membership(job.seed, job.nodes)
    except Exception as problem:  # noqa: BLE001 - whatever it is, the seed that shows it is what is wanted
        explain(job, problem, "")
        return Outcome(job.world, True)
    return Outcome(job.world, False)


def raft(job: Job) -> Outcome:
    world = RaftWorld(job.seed, job.nodes, Publishing if job.world == "publish" else Application)
    try:
        world.run()
    except Exception as problem:  # noqa: BLE001 - as above
        explain(job, problem, world.kernel.trace(job.trace))
        return Outcome(job.world, True)
    return Outcome(
        job.world, False, world.kernel.steps, len(world.application.acknowledged), len(world.oracle.leaders), dict(world.kernel.seen)
    )


def explain(job: Job, problem: Exception, trace: str) -> None:
    kind = "" if isinstance(problem, (InvariantViolated, AssertionError)) else " (not an invariant: the code itself failed)"
    planting = f" --bug {job.bug}" if job.bug else ""
    print(
        f"{trace}\n{job.world}, seed {job.seed}, {job.nodes} nodes: {type(problem).__name__}{kind}: {problem}\n"
        f"again: python -m tests.sim --world {job.world} --seed {job.seed} --nodes {job.nodes}{planting}",
        flush=True,
    )


def main() -> int:
    options = arguments()
    first = options.seed or 0
    worlds = WORLDS if options.world == "all" else (options.world,)
    jobs = [
        Job(world, seed, options.nodes or (5 if seed % 3 == 0 else 3), options.bug, options.trace)
        for seed in range(first, first + options.seeds)
        for world in worlds
    ]
    began, outcomes = time.perf_counter(), []
    with multiprocessing.Pool(min(options.processes, len(jobs))) as pool:
        for outcome in pool.imap_unordered(attempt, jobs, chunksize=4):
            outcomes.append(outcome)
            if len(outcomes) % 300 == 0:
                print(
                    f"  {len(outcomes)} of {len(jobs)} runs, {time.perf_counter() - began:.0f} s, {sum(o.failed for o in outcomes)} failed",
                    flush=True,
                )
    taken = time.perf_counter() - began
    for world in worlds:
        of_it = [outcome for outcome in outcomes if outcome.world == world]
        line = f"{world}: {len(of_it)} seeds, {sum(o.failed for o in of_it)} failed"
        if world != "membership":
            passed = [outcome for outcome in of_it if not outcome.failed]
            line += f"; {sum(o.steps for o in passed)} steps, {sum(o.leaderships for o in passed)} leaderships, "
            line += f"{sum(o.acknowledged for o in passed)} acknowledged, none lost"
        print(line)
        if world != "membership":
            print("  " + ", ".join(f"{sum((o.seen or {}).get(what, 0) for o in of_it)} {what}" for what in COVERED))
    print(f"{len(jobs)} runs in {taken:.1f} s, {len(jobs) / taken:.1f} a second")
    return 1 if any(outcome.failed for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
