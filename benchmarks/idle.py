"""What three nodes cost that do nothing: processor time and memory of each process, from /proc. `python -m benchmarks.idle`."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import common
from benchmarks import node as nodes

SECONDS = 15.0
SETTLE = 3.0  # after the joins: connections are up, heartbeats flow
NAMES = ("n1", "n2", "n3")


def processor_seconds(pid: int) -> float:
    """utime and stime, the 14th and 15th field of /proc/PID/stat; the second field, the name, may hold spaces."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_megabytes(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def main() -> None:
    if not Path("/proc/self/stat").exists():
        sys.exit("the idle benchmark reads /proc, which this system does not have; run it on Linux")
    options = common.arguments()
    directory = tempfile.mkdtemp(prefix="idle-")
    children: list[common.Child] = []
    try:
        seeds = ""
        for name in NAMES:
            children.append(
                common.Child(nodes.MODULE, name, "--directory", directory, *(("--seeds", seeds) if seeds else ("--bootstrap",)))
            )
            addresses = json.loads(children[-1].hear())
            if name == "n1":
                seeds = addresses["gossip"]
                commands = ["lead"]
            else:
                commands = [f"join {name} {addresses['raft']}"]
            for command in commands:
                children[0].say(command)
                children[0].hear()
        children[0].say("drive 1 10")
        children[0].hear()
        time.sleep(min(SETTLE, SETTLE * options.scale))
        pids = [child.process.pid for child in children]
        before, began = [processor_seconds(pid) for pid in pids], time.perf_counter()
        time.sleep(max(0.5, SECONDS * options.scale))
        took = time.perf_counter() - began
        figures = {
            name: {"cpu_percent": 100 * (processor_seconds(pid) - spent) / took, "rss_mb": resident_megabytes(pid)}
            for name, pid, spent in zip(NAMES, pids, before, strict=True)
        }
        print(json.dumps(figures))
    finally:
        for child in children:
            child.kill()
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
