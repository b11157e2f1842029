"""How fast the disk takes what is written one after another and synced: what large payloads are compared with.

A growing file, a megabyte at a time, `fdatasync` after each. Three processes at once, since three nodes share the disk of a benchmark's machine; and one alone.
`python -m benchmarks.disk`.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time

from benchmarks import common

MODULE = "benchmarks.disk"
CHUNK = 1 << 20
SECONDS = 2.0


def sequential(directory: str, seconds: float) -> float:
    """Megabytes (10^6) a second."""
    data, written = os.urandom(CHUNK), 0
    sync = getattr(os, "fdatasync", os.fsync)
    with tempfile.TemporaryFile(dir=directory or None) as file:
        began = time.perf_counter()
        while (took := time.perf_counter() - began) < seconds:
            os.write(file.fileno(), data)
            sync(file.fileno())
            written += CHUNK
    return written / took / 1e6


def rates(directory: str = "", seconds: float = SECONDS) -> dict[str, float]:
    """one: of a writer alone; three: of each of three at once, the mean. Megabytes a second."""
    children = [common.Child(MODULE, name, "--directory", directory) for name in ("w1", "w2", "w3")]
    try:
        for child in children:
            child.say(str(seconds))
        each = [float(child.hear()) for child in children]
    finally:
        for child in children:
            child.kill()
    return {"one": sequential(directory, seconds), "three": sum(each) / len(each)}


def main() -> None:
    options = common.arguments()
    if options.follower:
        for line in sys.stdin:
            print(sequential(options.directory, float(line)), flush=True)
        return
    print(json.dumps(rates(options.directory, SECONDS * options.scale)))


if __name__ == "__main__":
    main()
