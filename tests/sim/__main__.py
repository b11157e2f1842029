"""The simulator's command: `python -m tests.sim --seeds 1000`.

Three worlds, each with every seed: `raft` (elections, replication, changes of the quorum, snapshots, and clients whose histories must be linearizable),
`publish` (the replicated state machine and its publishers on top of Raft, some of whom wait for delivery by all) and `membership` (gossip). A failing seed
prints the end of its trace and the command that repeats it to the letter; with `--smaller` that looks for a run of the same seed with fewer faults that fails
as well. In the end a campaign says how often each feature came about; one that never did in 1000 seeds makes it fail.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from typing import NamedTuple

from tests.sim.acks_world import AllAcked
from tests.sim.bugs import BUGS, planted
from tests.sim.coverage import ENOUGH, groups, missing
from tests.sim.kernel import InvariantViolated
from tests.sim.membership_world import run_membership
from tests.sim.raft_world import RaftWorld, size_of
from tests.sim.registers import Registers
from tests.sim.smaller import smaller

APPLICATIONS = {"raft": Registers, "publish": AllAcked}
WORLDS = ("raft", "publish", "membership")
REPORT_EVERY = 15.0  # seconds


class Job(NamedTuple):
    world: str
    seed: int
    nodes: int
    bug: str | None
    trace: int
    smaller: bool


class Outcome(NamedTuple):
    job: Job
    failed: bool
    steps: int = 0
    seen: Mapping[str, int] = {}


class Total:
    """Of one world."""

    def __init__(self) -> None:
        self.runs = self.steps = 0
        self.failed: list[Job] = []
        self.seen: Counter[str] = Counter()

    def add(self, outcome: Outcome) -> None:
        self.runs += 1
        self.steps += outcome.steps
        self.seen.update(outcome.seen)
        if outcome.failed:
            self.failed.append(outcome.job)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=100, help="how many seeds to run")
    parser.add_argument("--seed", type=int, help="run this seed alone, or begin with it when --seeds is given too")
    parser.add_argument("--world", choices=(*WORLDS, "all"), default="all")
    parser.add_argument("--nodes", type=int, choices=(3, 5, 7), help="default: by the seed, mostly 3, at times 5 or 7")
    parser.add_argument("--bug", choices=sorted(BUGS), help="plant a deliberate bug")
    parser.add_argument("--trace", type=int, default=40, help="lines of trace to print of a failing seed")
    parser.add_argument("--smaller", action="store_true", help="of a failing seed: leave faults away as long as it fails")
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
        return Outcome(job, True)
    return Outcome(job, False)


def raft(job: Job) -> Outcome:
    world = RaftWorld(job.seed, job.nodes, APPLICATIONS[job.world])
    try:
        world.run()
    except Exception as problem:  # noqa: BLE001 - as above
        if job.smaller:
            world, problem = smaller(lambda: RaftWorld(job.seed, job.nodes, APPLICATIONS[job.world]), world, problem)
        explain(job, problem, world.kernel.trace(job.trace))
        return Outcome(job, True)
    return Outcome(job, False, world.kernel.steps, dict(world.kernel.seen))


def again(job: Job) -> str:
    planting = f" --bug {job.bug}" if job.bug else ""
    return f"python -m tests.sim --world {job.world} --seed {job.seed} --nodes {job.nodes}{planting}"


def explain(job: Job, problem: Exception, trace: str) -> None:
    kind = "" if isinstance(problem, (InvariantViolated, AssertionError)) else " (not an invariant: the code itself failed)"
    print(
        f"{trace}\n{job.world}, seed {job.seed}, {job.nodes} nodes: {type(problem).__name__}{kind}: {problem}\nagain: {again(job)}",
        flush=True,
    )


def jobs(options: argparse.Namespace) -> Iterator[Job]:
    first = options.seed or 0
    worlds = WORLDS if options.world == "all" else (options.world,)
    for seed in range(first, first + options.seeds):
        for world in worlds:
            yield Job(world, seed, options.nodes or size_of(seed), options.bug, options.trace, options.smaller)


def report(world: str, total: Total) -> list[str]:
    """Print what the world went through. -> the features that it should have and never had."""
    print(f"{world}: {total.runs} seeds, {len(total.failed)} failed")
    for job in total.failed[:20]:
        print(f"  failed: {again(job)}")
    if world == "membership":
        return []
    print(f"  {total.steps} steps")
    for group, features in groups(world):
        print(f"  {group}: " + "; ".join(f"{total.seen[feature]} {feature}" for feature in features))
    return missing(world, total.seen)


def quiet() -> None:
    """Of a process that runs seeds: what was imported is no garbage, and a run makes little."""
    gc.collect()
    if sys.implementation.name == "cpython":  # PyPy, on which a long campaign runs twice as fast, collects in its own way
        gc.freeze()
        gc.set_threshold(50_000, 20, 100)


def main() -> int:
    options = arguments()
    count = options.seeds * (len(WORLDS) if options.world == "all" else 1)
    totals: dict[str, Total] = {world: Total() for world in WORLDS if options.world in ("all", world)}
    began = said = time.perf_counter()
    with multiprocessing.Pool(min(options.processes, count), quiet) as pool:
        for done, outcome in enumerate(pool.imap_unordered(attempt, jobs(options), chunksize=4), 1):
            totals[outcome.job.world].add(outcome)
            now = time.perf_counter()
            if now - said >= REPORT_EVERY:
                said = now
                failed = sum(len(total.failed) for total in totals.values())
                rate = done / (now - began)
                left = (count - done) / rate
                print(
                    f"  {done} of {count} runs, {now - began:.0f} s, {rate:.1f} a second, about {left:.0f} s left, {failed} failed",
                    flush=True,
                )
    taken = time.perf_counter() - began
    lacking = {world: report(world, total) for world, total in totals.items()}
    seeds, runs = options.seeds, sum(total.runs for total in totals.values())
    print(f"{seeds} seeds, {runs} runs in {taken:.1f} s: {runs / taken:.1f} runs, {seeds / taken:.1f} seeds a second")
    failed = any(total.failed for total in totals.values())
    for world, features in lacking.items():
        if features:
            grave = options.seeds >= ENOUGH and not options.bug
            failed |= grave
            print(f"{world}: {'FAILED, never seen' if grave else f'not seen (must be in {ENOUGH} seeds)'}: {', '.join(features)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
