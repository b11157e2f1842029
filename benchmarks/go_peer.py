"""hashicorp/raft with its log in raft-boltdb, both at their defaults: three processes of the Go program in `benchmarks/peers`, driven as ours are.

Without a Go toolchain, or where the modules cannot be had, it prints {"skipped": why}. `python -m benchmarks.go_peer [--tuned]`.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from benchmarks import common

SOURCES = Path(__file__).parent / "peers"
PROGRAM = Path(__file__).parents[1] / "build" / "peers" / "peer"
BUILD_SECONDS = 280.0
NAMES = ("n1", "n2", "n3")
LEVELS = (1, 256, 1024)
SHARE = 0.3  # of the requests that the others get: it is slower, and its rate is steady


def program() -> Path:
    """Build it, one builder at a time; the Go tool does nothing when it is up to date. Raises common.Skipped."""
    if shutil.which("go") is None:
        raise common.Skipped("needs a Go toolchain: no `go` on the PATH")
    PROGRAM.parent.mkdir(parents=True, exist_ok=True)
    with (PROGRAM.parent / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for what, arguments in (("download", ("mod", "download")), ("build", ("build", "-o", str(PROGRAM), "."))):
            done = subprocess.run(
                ["go", *arguments],
                cwd=SOURCES,
                env=os.environ | {"CGO_ENABLED": "0", "GOWORK": "off"},
                capture_output=True,
                text=True,
                timeout=BUILD_SECONDS,
                check=False,
            )
            if done.returncode and what == "download":
                raise common.Skipped(f"the Go modules cannot be downloaded: {done.stderr.strip()[-500:]}")
            if done.returncode:
                raise RuntimeError(f"benchmarks/peers cannot be built: {done.stderr.strip()}")
    return PROGRAM


def started(name: str, directory: str, payload: int, tuned: bool = False) -> common.Process:
    """One server; its first line is its address."""
    options = ["--follower", name, "--directory", directory, "--payload", str(payload), *(["--tuned"] if tuned else [])]
    return common.Process(name, [str(program()), *options], quiet=True)


def quorum(directory: str, payload: int, tuned: bool = False) -> list[common.Process]:
    """Three servers of which the first leads."""
    peers: list[common.Process] = []
    try:
        peers += [started(name, directory, payload, tuned) for name in NAMES]
        addresses = [peer.hear() for peer in peers]
        leader = peers[0]
        leader.ask("bootstrap")
        for name, address in zip(NAMES[1:], addresses[1:], strict=True):
            leader.ask(f"join {name} {address}")
    except BaseException:
        for peer in peers:
            peer.kill()
        raise
    return peers


def level(leader: common.Process, in_flight: int, count: int) -> dict[str, float]:
    figures: dict[str, float] = json.loads(leader.ask(f"drive {in_flight} {count}"))
    return figures


def measure(options: argparse.Namespace) -> dict[int, dict[str, float]]:
    directory = tempfile.mkdtemp(prefix="go-peer-")
    peers: list[common.Process] = []
    try:
        peers = quorum(directory, options.payload, options.tuned)
        level(peers[0], 16, 64)
        return {
            in_flight: level(peers[0], in_flight, count if in_flight == 1 else max(in_flight, int(count * SHARE)))
            for in_flight, count in common.counted(options)
            if in_flight in LEVELS
        }
    finally:
        for peer in peers:
            peer.kill()
        shutil.rmtree(directory, ignore_errors=True)


def main() -> None:
    parser = common.parser()
    parser.add_argument("--tuned", action="store_true", help="MaxAppendEntries 1024 and BatchApplyCh, instead of the defaults")
    options = parser.parse_args()
    try:
        common.report(measure(options))
    except common.Skipped as reason:
        print(json.dumps({"skipped": str(reason)}))


if __name__ == "__main__":
    main()
