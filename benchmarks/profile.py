"""`python -m benchmarks.profile raft|publish [--how threads|cpu|wall] [any option of that benchmark]`: where the threads of every node spend their time."""

from __future__ import annotations

import argparse
import subprocess
import sys

ONE_PROFILE_A_THREAD = sys.version_info < (3, 12)
MODULES = {"raft": "benchmarks.raft_alone", "publish": "benchmarks.publish", "publish-many": "benchmarks.publish_many"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("system", choices=MODULES)
    parser.add_argument("--how", choices=("threads", "cpu", "wall"), default="cpu" if ONE_PROFILE_A_THREAD else "threads")
    parser.add_argument("--levels", default="1024")
    options, rest = parser.parse_known_args()
    if options.how != "threads" and not ONE_PROFILE_A_THREAD:
        parser.error(
            f"--how {options.how}: since Python 3.12 cProfile watches one thread of a process only; use --how threads, or Python 3.11"
        )
    command = [sys.executable, "-m", MODULES[options.system], "--levels", options.levels, "--profile", options.how, *rest]
    sys.exit(subprocess.call(command))


if __name__ == "__main__":
    main()
