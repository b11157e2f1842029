"""`make bench`: every system beside the ceiling, interleaved in one run.

    python -m benchmarks [--rounds 3] [--scale 1] [--only bare,raft] [--json FILE]

Each system runs as a process of its own, one after the other, round by round; idle nodes last. A machine's disk and neighbours change by the minute, so a
figure is only ever compared with one of the same round: the ratios are made within a round, and their median is shown. Exit code 0 also when a target is
missed, which the table says; 1 when a system failed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from benchmarks.machine import machine
from benchmarks.summary import show, summarize


class System(NamedTuple):
    """name: of the figures; command: module and its options; seconds: after which it has failed, at scale 1."""

    name: str
    command: tuple[str, ...]
    seconds: float = 300.0


SYSTEMS = (
    System("bare", ("benchmarks.ceiling",)),
    System("packed", ("benchmarks.ceiling", "--packed")),
    System("raft", ("benchmarks.raft_alone",)),
    System("publish", ("benchmarks.publish",)),
    System("publish-follower", ("benchmarks.publish", "--from-follower")),
    System("pysyncobj", ("benchmarks.pysyncobj_peer",)),
)
IDLE = System("idle", ("benchmarks.idle",))
NAMES = tuple(system.name for system in (*SYSTEMS, IDLE))


def run(system: System, scale: float) -> dict[str, Any]:
    """The figures of one run, or {"error": what it said}."""
    command = [sys.executable, "-m", *system.command, "--scale", str(scale)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=max(60.0, system.seconds * scale), check=False)
    except subprocess.TimeoutExpired as error:
        said = error.stderr.decode(errors="replace") if isinstance(error.stderr, bytes) else (error.stderr or "")
        return {"error": f"not done after {error.timeout:g} s\n{said}".strip()}
    try:
        figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        return {"error": (done.stderr or done.stdout).strip() or f"ended with {done.returncode} and said nothing"}
    return figures


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="shrinks the number of requests, and the seconds of the idle nodes")
    parser.add_argument("--only", default="", help=f"some of {','.join(NAMES)}")
    parser.add_argument("--json", default="", metavar="FILE", help="every figure; - for standard output")
    options = parser.parse_args(arguments)
    options.only = options.only.split(",") if options.only else list(NAMES)
    unknown = set(options.only) - set(NAMES)
    if unknown or options.rounds < 1 or options.scale <= 0:
        parser.error(f"--only {sorted(unknown)}: give some of {','.join(NAMES)}" if unknown else "--rounds and --scale are above zero")
    return options


def measure(options: argparse.Namespace, progress: Console) -> dict[str, Any]:
    """{"rounds": [{system: figures}], "idle": figures}, saying what runs as it goes."""
    began = time.monotonic()

    def timed(system: System, title: str) -> dict[str, Any]:
        progress.print(f"[dim]{time.monotonic() - began:5.0f} s[/]  {title}: {system.name} …", highlight=False)
        figures = run(system, options.scale)
        if "error" in figures:
            progress.print(f"[red]{system.name} failed:[/]", highlight=False)
            progress.print(figures["error"], markup=False, highlight=False)
        return figures

    rounds = [
        {system.name: timed(system, f"round {number} of {options.rounds}") for system in SYSTEMS if system.name in options.only}
        for number in range(1, options.rounds + 1)
    ]
    idle = timed(IDLE, "idle nodes") if IDLE.name in options.only else {}
    return {"rounds": rounds, "idle": idle}


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    progress = Console(stderr=True)
    measured = measure(options, progress)
    result = {"machine": machine(), "scale": options.scale, **measured, **summarize(measured)}
    if options.json == "-":
        print(json.dumps(result, indent=1))
    else:
        show(result, Console())
        if options.json:
            Path(options.json).write_text(json.dumps(result, indent=1) + "\n")
    return 1 if result["errors"] else 0


if __name__ == "__main__":
    sys.exit(main())
