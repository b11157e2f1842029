"""PySyncObj, the Raft library for Python that is used most, at the same task: a replicated method on three nodes, each a process of its own.

Its journal is on and is not synced (it maps the file and leaves the writing to the kernel; there is no setting for more), so what it promises is less
than ours. It is set for speed, as far as its documentation goes (`SETTINGS`); the callback of the replicated method resolves the request; the rate
counts until the method ran on all three. `python -m benchmarks.pysyncobj_peer`.
"""

from __future__ import annotations

import os
import shutil
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from pysyncobj import SyncObj, SyncObjConf, replicated

from benchmarks import common
from coterie.actors.future import LightFuture

MODULE = "benchmarks.pysyncobj_peer"
SETTINGS: Final[dict[str, Any]] = {
    "appendEntriesUseBatch": True,  # its default, for throughput; False sends a message per command: 0.45 ms alone, but 8 to 13 thousand a second at depth
    "appendEntriesPeriod": 0.001,  # default 0.1: with batches it is what a request waits for; 2, 5 and 10 ms were slower at every level
    "autoTickPeriod": 0.001,  # default 0.05; 0.2 ms was slower
    "appendEntriesBatchSizeBytes": 1 << 20,
    "sendBufferSize": 1 << 20,
    "recvBufferSize": 1 << 20,
    "commandsQueueSize": 1 << 20,
    "logCompactionMinEntries": 1 << 30,  # no compaction while it is measured
    "logCompactionMinTime": 1 << 30,
}


class Peer(SyncObj):  # type: ignore[misc]
    def __init__(self, me: str, others: list[str], directory: str, **changes: Any) -> None:
        self.count = 0
        settings = SETTINGS | {"journalFile": str(Path(directory) / me.replace(":", "-")), "connectionRetryTime": 0.2} | changes
        super().__init__(me, others, SyncObjConf(**settings))

    @replicated  # type: ignore[untyped-decorator]
    def handle(self, data: bytes) -> None:
        self.count += 1

    def wait(self, count: int) -> None:
        deadline = time.monotonic() + common.PATIENCE
        while self.count < count:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.count} of {count} commands are applied after {common.PATIENCE:g} s")
            time.sleep(0.001)


def free_addresses(count: int) -> list[str]:
    """It cannot bind port 0, since the addresses are its names: three ports that are free now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    addresses = [f"127.0.0.1:{sock.getsockname()[1]}" for sock in sockets]
    for sock in sockets:
        sock.close()
    return addresses


def follow(me: str, others: list[str], directory: str, changes: dict[str, Any]) -> None:
    peer = Peer(me, others, directory, **changes)
    print("up", flush=True)
    for line in sys.stdin:
        peer.wait(int(line))
        print("done", flush=True)
    os._exit(0)


def main() -> None:
    parser = common.parser()
    parser.add_argument("--others", default="")
    parser.add_argument("--no-batch", action="store_true", help="appendEntriesUseBatch=False, its setting for a single request's latency")
    options = parser.parse_args()
    changes = {"appendEntriesUseBatch": False} if options.no_batch else {}
    if options.follower:
        # The followers wait long before they stand for election: the driver's process is to lead.
        patience = {"raftMinTimeout": 30.0, "raftMaxTimeout": 31.0, "connectionTimeout": 60.0}
        follow(options.follower, options.others.split(","), options.directory, changes | patience)
        return
    directory = tempfile.mkdtemp(prefix="pysyncobj-")
    me, *others = free_addresses(3)
    flags = ["--no-batch"] if options.no_batch else []
    children = [
        common.Child(MODULE, other, "--directory", directory, "--others", ",".join({me, *others} - {other}), *flags) for other in others
    ]
    try:
        for child in children:
            child.hear()
        peer = Peer(me, others, directory, **changes)
        deadline = time.monotonic() + common.PATIENCE
        while not (peer._isLeader() and peer.isReady()):
            if time.monotonic() > deadline:
                raise TimeoutError("it has no leader")
            time.sleep(0.05)
        payload = b"x" * options.payload
        total = 0

        def send() -> LightFuture:
            future = LightFuture()

            def done(result: Any, error: int) -> None:
                if error:
                    future.fail(RuntimeError(f"PySyncObj failed with reason {error}"))
                else:
                    future.set(True)

            peer.handle(payload, callback=done)
            return future

        def handled() -> None:
            for child in children:
                child.say(str(total))
            peer.wait(total)
            for child in children:
                child.hear()

        def level(in_flight: int, count: int) -> dict[str, float]:
            nonlocal total
            total += count
            return common.drive(send, in_flight, count, handled)

        level(16, 64)
        common.report({in_flight: level(in_flight, count) for in_flight, count in common.counted(options)})
        sys.stdout.flush()
    finally:
        for child in children:
            child.kill()
        shutil.rmtree(directory, ignore_errors=True)
    os._exit(0)  # its thread is no daemon and outlives a destroy() by seconds


if __name__ == "__main__":
    main()
