"""The campaign on real processes: `python -m tests.chaos [--rounds N] [--nodes 3,5] [--seed S]`.

Every round something happens to a cluster under load: leaders, followers, all of them are killed, stopped, cut off, cut off one way only. After each heal
every node must take writes within ten seconds; after every ten rounds all nodes must have had the same, nothing acknowledged may be missing, nothing refused
may be there, and the history of all clients must be linearizable. A violation ends it with exit code 1; data, histories, deliveries and logs are kept, and
named.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path

from tests.chaos.campaign import run

BEGAN = time.monotonic()


def tell(text: str) -> None:
    print(f"[{time.monotonic() - BEGAN:7.1f} s] {text}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=100, help="in all: three fifths of them on the first size (100)")
    parser.add_argument("--nodes", default="3,5", help="sizes of the clusters (3,5)")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the faults")
    given = parser.parse_args()
    sizes = [int(size) for size in given.nodes.split(",")]
    first = given.rounds if len(sizes) == 1 else given.rounds * 3 // 5
    shares = [first, *((given.rounds - first) // (len(sizes) - 1) for _ in sizes[1:])]
    root = Path(tempfile.mkdtemp(prefix="coterie-chaos-"))
    tell(f"seed {given.seed}, in {root}")
    summary = []
    for size, rounds in zip(sizes, shares, strict=True):
        directory = root / f"{size}-nodes"
        directory.mkdir()
        tell(f"{rounds} rounds on {size} nodes")
        try:
            figures = run(directory, size, rounds, given.seed, tell)
        except BaseException:  # noqa: BLE001 - whatever it is, the campaign has failed and says where to look
            traceback.print_exc()
            tell(f"VIOLATION on {size} nodes, seed {given.seed}; everything is kept in {directory}")
            sys.exit(1)
        summary += [f"{rounds} rounds on {size} nodes, seed {given.seed}", *figures.lines()]
        shutil.rmtree(directory)
    shutil.rmtree(root)
    print("\n".join(["", "no violation:", *summary]))


if __name__ == "__main__":
    main()
