"""Raft alone, ours: an entry per command, three processes, every commit on two disks. `python -m benchmarks.raft_alone`."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import common, profiling
from coterie.actors.disk.lmdb_env import Identity
from coterie.actors.raft.actor import RaftActor
from coterie.actors.raft.lmdb_log import LmdbLog
from coterie.actors.raft.settings import Settings
from coterie.actors.room_messages import ChangeQuorum, GetRaftView, Propose, RaftView

MODULE = "benchmarks.raft_alone"
NAMES = ("n2", "n3")


def start(name: str, directory: str, bootstrap: bool = False, bind: str = "127.0.0.1:0") -> tuple[Any, str]:
    log = LmdbLog.open(Path(directory) / name, Identity(name, "benchmark"))
    ref = RaftActor.start(name, bind, log, Settings(), bootstrap=bootstrap)
    actor = ref._actor_weakref()
    assert isinstance(actor, RaftActor)
    address: str = actor.started.get(timeout=10)
    return ref, address


def follow(name: str, directory: str, bind: str) -> None:
    _, address = start(name, directory, bind=bind)
    print(address, flush=True)
    sys.stdin.read()


class RaftTrio:
    """Three Raft servers, of which the first, the leader, lives in this process; a context manager. options: of `common.parser()`."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.directory = tempfile.mkdtemp(prefix="raft-alone-")
        self._profile = options.profile
        self._propose = Propose(b"x" * options.payload)
        self.leader: Any = None
        self.children: dict[str, common.Child] = {}
        self.addresses: dict[str, str] = {}
        self.had = 0  # the last entry of the server that was killed last
        try:
            for name in NAMES:
                self._start(name)
            self.leader, _ = start("n1", self.directory, bootstrap=True)
            while not self.view().ready:
                time.sleep(0.01)
            for name, child in self.children.items():
                self.addresses[name] = child.hear()
                self.leader.ask(ChangeQuorum("join", name, self.addresses[name], time.monotonic() + 10))
        except BaseException:
            self.__exit__()
            raise

    def _start(self, name: str) -> None:
        bind = ("--bind", self.addresses[name]) if name in self.addresses else ()
        self.children[name] = common.Child(MODULE, name, "--directory", self.directory, "--profile", self._profile, *bind)

    def kill(self, name: str) -> None:
        """SIGKILL, once it has all that there is."""
        while (had := self.match(name)) < self.view().last_index:
            time.sleep(0.01)
        self.had = had
        self.children.pop(name).kill()

    def match(self, name: str) -> int:
        """The last entry that a follower is known to have on its disk."""
        return next(server.match_index or 0 for server in self.view().servers if server.id == name)

    def restart(self, name: str) -> None:
        """A follower that was killed, at its address. It hears and answers when this returns."""
        self._start(name)
        self.children[name].hear()

    def view(self) -> RaftView:
        view: RaftView = self.leader.ask(GetRaftView())
        return view

    def send(self) -> Any:
        """Propose one command; its future."""
        return self.leader.ask(self._propose, block=False)

    def drive(self, in_flight: int, count: int, finish: Callable[[], None] = lambda: None) -> dict[str, float]:
        return common.drive(self.send, in_flight, count, finish)

    def __enter__(self) -> RaftTrio:
        return self

    def __exit__(self, *_: object) -> None:
        if self.leader is not None:
            self.leader.stop()
        for child in self.children.values():
            child.kill()
        shutil.rmtree(self.directory, ignore_errors=True)


def main() -> None:
    parser = common.parser()
    parser.add_argument("--bind", default="127.0.0.1:0")
    options = parser.parse_args()
    profiling.start(options.profile)
    if options.follower:
        follow(options.follower, options.directory, options.bind)
        if options.profile:
            profiling.report(f"follower {options.follower}")
        return
    with RaftTrio(options) as trio:
        common.report({in_flight: trio.drive(in_flight, count) for in_flight, count in common.counted(options)})
        if options.profile:
            profiling.report("leader n1")
            for child in trio.children.values():
                child.end()


if __name__ == "__main__":
    main()
