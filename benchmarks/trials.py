"""What `make bench` runs: the systems that are interleaved round by round, and the trials that run once, each with its own baseline beside it.

A trial is a module whose last line is {"rows": [...]} (`rows.report`), or {"skipped": why} where it cannot be run. Those marked `long` run only when they are
named, or with --long.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any, Final, NamedTuple


class System(NamedTuple):
    """name: of the figures; command: module and its options; seconds: after which it has failed, at scale 1; long: not without being asked for."""

    name: str
    command: tuple[str, ...]
    seconds: float = 300.0
    long: bool = False


SYSTEMS: Final = (
    System("bare", ("benchmarks.ceiling",)),
    System("packed", ("benchmarks.ceiling", "--packed")),
    System("raft", ("benchmarks.raft_alone",)),
    System("hashicorp", ("benchmarks.go_peer",)),
    System("publish", ("benchmarks.publish",)),
    System("publish-many", ("benchmarks.publish_many",)),
    System("publish-follower", ("benchmarks.publish", "--from-follower")),
    System("pysyncobj", ("benchmarks.pysyncobj_peer",)),
)
TRIALS: Final = (
    System("reads", ("benchmarks.reads",)),
    System("payload", ("benchmarks.payload",)),
    System("frozen", ("benchmarks.frozen",)),
    System("restart", ("benchmarks.restart",)),
    System("catchup", ("benchmarks.behind", "catchup")),
    System("memory", ("benchmarks.behind", "memory")),
    System("steady", ("tests.chaos.calm",), seconds=900.0, long=True),
    System("idle", ("benchmarks.idle",)),
)
ALL: Final = (*SYSTEMS, *TRIALS)
NAMES: Final = tuple(system.name for system in ALL)


def run(system: System, scale: float) -> dict[str, Any]:
    """The figures of one run, {"skipped": why}, or {"error": what it said}."""
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
