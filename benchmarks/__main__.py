"""`make bench`: every system beside the ceiling, interleaved in one run; then the trials, each beside a baseline of its own.

    python -m benchmarks [NAME...] [--rounds 3] [--scale 1] [--long] [--json FILE]

Each system runs as a process of its own, one after the other, round by round; the trials once, after them. A machine's disk and neighbours change by the
minute, so a figure is only ever compared with one of the same round or the same trial: the ratios are made within a round, and their median is shown. Exit
code 0 also when a target is missed, which the table says; 1 when a system failed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.machine import machine
from benchmarks.summary import show, summarize
from benchmarks.trials import ALL, NAMES, SYSTEMS, TRIALS, System, run


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of {', '.join(NAMES)}; none: all that are not long")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="shrinks the number of requests, and the seconds of what runs for a time")
    parser.add_argument("--long", action="store_true", help=f"also {', '.join(system.name for system in ALL if system.long) or 'nothing'}")
    parser.add_argument("--json", default="", metavar="FILE", help="every figure; - for standard output")
    options = parser.parse_args(arguments)
    unknown = set(options.names) - set(NAMES)
    if unknown or options.rounds < 1 or options.scale <= 0:
        parser.error(f"{sorted(unknown)}: give some of {','.join(NAMES)}" if unknown else "--rounds and --scale are above zero")
    if not options.names:
        options.names = [system.name for system in ALL if options.long or not system.long]
    return options


def measure(options: argparse.Namespace, progress: Console) -> dict[str, Any]:
    """{"rounds": [{system: figures}], "trials": {name: figures}}, saying what runs as it goes."""
    began = time.monotonic()

    def timed(system: System, title: str) -> dict[str, Any]:
        progress.print(f"[dim]{time.monotonic() - began:5.0f} s[/]  {title}{system.name} …", highlight=False)
        figures = run(system, options.scale)
        if "error" in figures:
            progress.print(f"[red]{system.name} failed:[/]", highlight=False)
            progress.print(figures["error"], markup=False, highlight=False)
        return figures

    systems = [system for system in SYSTEMS if system.name in options.names]
    rounds = [
        {system.name: timed(system, f"round {number} of {options.rounds}: ") for system in systems}
        for number in range(1, options.rounds * bool(systems) + 1)
    ]
    trials = {system.name: timed(system, "") for system in TRIALS if system.name in options.names}
    return {"rounds": rounds, "trials": trials}


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
