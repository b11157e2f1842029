"""A node that starts with a long log: seconds from the start of its process until it has answered a publish.

One node, its only voter, whose log is written beforehand: a million entries, each a record of 128 bytes. Its first start applies them all (the buffer has none
of them yet), and is told. Then it is stopped, and killed, and started again: these starts are judged; beside them, those of the same node before its log was long.
Then a follower of three is killed, is away for a while, and comes back: seconds until its handler has had what the others have published meanwhile.

The nodes' bytecode is kept beside their data: what Python compiles at the first start of an installation is not what a start takes, and whether it may be kept
where the sources are is a matter of the machine. `python -m benchmarks.restart`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from benchmarks import common, publish
from benchmarks import node as nodes
from benchmarks.rows import Row, judged, report, told
from coterie.actors.disk.data_dir import read_node
from coterie.actors.raft.lmdb_log import LmdbLog
from coterie.proto.raft_messages import COMMAND, Entry
from coterie.proto.record_batch import encode_batch, encode_entry

ENTRIES = 1_000_000
STEP = 10_000  # entries of one transaction
TIMES = 3
AWAY = 3.0  # seconds
MEANWHILE = 1024  # publishes
MOST = 3.0  # seconds
# Nothing is compacted, and a publish waits till all that is in the log has been applied.
SETTINGS = '{"trailing_entries": 1073741823, "trailing_bytes": 1099511627776, "request_timeout": 110}'


def started(directory: str) -> tuple[common.Child, float]:
    """The node, and the seconds until it had answered a publish."""
    began = time.monotonic()
    child = common.Child(nodes.MODULE, "n1", "--directory", directory, "--settings", SETTINGS, "--bootstrap")
    child.hear()
    child.ask("lead")
    child.ask("drive 1 1")
    return child, time.monotonic() - began


def fill(directory: str, entries: int, payload: int) -> None:
    home = Path(directory) / "n1"
    log = LmdbLog.open(home / "raft", read_node(home)[0])
    data, term = encode_entry([encode_batch(nodes.TOPIC, 0, [b"x" * payload]).data]), log.hard_state().term
    try:
        for first in range(log.last_index + 1, log.last_index + 1 + entries, STEP):
            log.append([Entry(index, term, COMMAND, data) for index in range(first, first + STEP)])
    finally:
        log.close()


def starts(directory: str, stop: Callable[[common.Child], object], times: int) -> list[float]:
    found = []
    for _ in range(times):
        child, took = started(directory)
        found.append(took)
        stop(child)
        child.kill()
    return found


def back_again(options: argparse.Namespace) -> float:
    """Seconds from the start of a follower's process until it has handled all."""
    with publish.Trio(options) as trio:
        trio.level(16, MEANWHILE)
        trio.children[-1].kill()
        time.sleep(AWAY)  # it is away: the others have given up dialling it at once
        trio.leader.drive(16, MEANWHILE, b"x" * options.payload)
        began = time.monotonic()
        trio.children[-1] = child = trio.child(publish.NAMES[-1], trio.addresses[-1])
        child.hear()
        child.ask(f"wait {MEANWHILE}")
        return time.monotonic() - began


def main() -> None:
    options = nodes.parser().parse_args()
    entries = max(STEP, int(ENTRIES * options.scale) // STEP * STEP)
    directory = tempfile.mkdtemp(prefix="restart-")
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = str(Path(directory) / "bytecode")
    try:
        starts(directory, common.Child.end, 1)
        short = median(starts(directory, common.Child.end, TIMES))
        fill(directory, entries, options.payload)
        (first,) = starts(directory, common.Child.end, 1)
        stopped = median(starts(directory, common.Child.end, TIMES))
        killed = median(starts(directory, common.Child.kill, TIMES))
        again = median(back_again(options) for _ in range(TIMES))
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    beside = "with a short log"
    report(
        [
            Row(f"restart with {entries:,} entries, after a stop", stopped, "s", stopped, MOST, False, beside, short),
            Row(f"restart with {entries:,} entries, after a SIGKILL", killed, "s", killed, MOST, False, beside, short),
            judged("a follower of three that was killed: until it has handled what it missed", again, "s", MOST, at_least=False),
            told(f"start that must apply {entries:,} entries anew", first, "s"),
        ]
    )


if __name__ == "__main__":
    main()
