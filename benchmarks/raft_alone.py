"""Raft alone, ours: an entry per command, three processes, every commit on two disks. `python -m benchmarks.raft_alone`."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import common, profiling
from coterie.actors.lmdb_env import Identity
from coterie.actors.raft.actor import RaftActor
from coterie.actors.raft.lmdb_log import LmdbLog
from coterie.actors.raft.settings import Settings
from coterie.actors.room_messages import ChangeQuorum, GetRaftView, Propose

MODULE = "benchmarks.raft_alone"


def start(name: str, directory: str, bootstrap: bool = False) -> tuple[Any, str]:
    log = LmdbLog.open(Path(directory) / name, Identity(name, "benchmark"))
    ref = RaftActor.start(name, "127.0.0.1:0", log, Settings(), bootstrap=bootstrap)
    actor = ref._actor_weakref()
    assert isinstance(actor, RaftActor)
    address: str = actor.started.get(timeout=10)
    return ref, address


def follow(name: str, directory: str) -> None:
    _, address = start(name, directory)
    print(address, flush=True)
    sys.stdin.read()


def main() -> None:
    options = common.arguments()
    profiling.start(options.profile)
    if options.follower:
        follow(options.follower, options.directory)
        if options.profile:
            profiling.report(f"follower {options.follower}")
        return
    directory = tempfile.mkdtemp(prefix="raft-alone-")
    children = [common.Child(MODULE, name, "--directory", directory, "--profile", options.profile) for name in ("n2", "n3")]
    leader = None
    try:
        leader, _ = start("n1", directory, bootstrap=True)
        while not leader.ask(GetRaftView()).ready:
            time.sleep(0.01)
        for name, child in zip(("n2", "n3"), children, strict=True):
            leader.ask(ChangeQuorum("join", name, child.hear(), time.monotonic() + 10))
        propose = Propose(b"x" * options.payload)
        common.report(
            {
                in_flight: common.drive(lambda: leader.ask(propose, block=False), in_flight, count)
                for in_flight, count in common.counted(options)
            }
        )
        if options.profile:
            profiling.report("leader n1")
            for child in children:
                child.end()
    finally:
        if leader is not None:
            leader.stop()
        for child in children:
            child.kill()
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
